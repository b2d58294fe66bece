"""`snaptool audit` on every store: what is in it, twice, and what was replaced between."""

from __future__ import annotations

import hashlib
import shutil
import signal
from pathlib import Path

import pytest

from tests.cli.test_audit_kills import Asker, fleet, rows
from tests.clouds.stores import Place
from tests.support.cli import SAMPLES, Ran, Snaptool

CLUSTER = (SAMPLES / "aescbc-cluster.db").read_bytes()
ON_EVERY = pytest.mark.parametrize("place", ["s3", "gs", "az", "sftp"], indirect=True)


def audit(folder: Path, *arguments: str | Path, first: bool = False) -> Ran:
    store = folder / "store.db"
    made = {"makes": [store]} if first else {"replaces": [store]}
    words = ("--store", store, "--work-dir", folder / "work", "-o", "json", "--config", SAMPLES / "aescbc.yaml")
    ran = Snaptool(folder)("audit", *arguments, *words, **made)  # type: ignore[arg-type]
    assert list((folder / "work").iterdir()) == [], "downloads are gone"
    return ran


@ON_EVERY
def test_case_1_and_7_what_is_in_a_store_is_looked_at_once(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    (folder / "work").mkdir(parents=True)
    place.put("etcd-2026-03-01.db", CLUSTER)
    place.put("etcd-2026-03-02.db", (SAMPLES / "lost-key.db").read_bytes())
    place.put("etcd-2026-03-03.db", CLUSTER[: len(CLUSTER) // 2])
    place.put("readme.txt", b"hello")

    def statuses(ran: Ran) -> list[str]:
        assert "records" in ran.json, ran.text
        return [record["status"] for record in ran.json["records"]]

    ran = audit(folder, place.at(""), first=True)
    assert statuses(ran) == ["ok", "undecryptable", "damaged", "not_a_snapshot"], ran.text
    assert ran.json["records"][0]["url"] == place.at("etcd-2026-03-01.db")
    place.put("etcd-2026-03-02.db", CLUSTER)
    again = audit(folder, place.at("etcd-*.db"))
    assert (again.json["kept"], statuses(again)) == (2, ["ok", "ok", "damaged"])
    quick = audit(folder, place.at(""), "--check", "quick")
    assert statuses(quick) == ["ok", "ok", "damaged", "not_a_snapshot"]
    newest = audit(folder, place.at(""), "--newest", "1")
    assert (newest.json["left_out"], statuses(newest)) == (2, ["damaged", "not_a_snapshot"])


@pytest.mark.parametrize("place", ["s3"], indirect=True)
@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.soak)])
def test_case_1_and_2_a_bucket_whose_workers_are_killed(place: Place, tmp_path: Path, count: int) -> None:
    """The backups of case 1, from a gateway; a worker is killed while it looks at one, and the asker after that."""
    made = fleet(tmp_path / "made", count)
    for path in made:
        place.put(Path(path).name, Path(path).read_bytes())
    wanted = {place.at(Path(path).name): status for path, status in made.items()}
    first = Asker(tmp_path, "--jobs", "2", where=place.at(""))
    first.hear(count // 5)
    first.workers()[0].send_signal(signal.SIGKILL)
    first.hear(count // 5)
    first.kill()
    assert list((tmp_path / "work").iterdir()) == [], "downloads are gone"
    before = rows(tmp_path)
    second = Asker(tmp_path, "--jobs", "2", where=place.at(""))
    assert second.end() == 3, [one["error"] for one in second.records if one["status"] == "failed"]
    assert f"kept {len(before)}".encode() in second.said
    assert rows(tmp_path) == wanted


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_an_object_without_an_etag_is_said_and_the_others_are_looked_at(
    place: Place, versitygw_folder: Path, tmp_path: Path
) -> None:
    """As a gateway shows what came into its folder by other ways."""
    folder = tmp_path / "here"
    (folder / "work").mkdir(parents=True)
    place.put("a.db", CLUSTER)
    shutil.copy2(SAMPLES / "aescbc-cluster.db", versitygw_folder / place.url.removeprefix("s3://") / "b.db")
    ran = audit(folder, place.at(""), first=True)
    assert [record["status"] for record in ran.json["records"]] == ["ok", "failed"]
    assert (ran.code, ran.json["records"][1]["error"]["kind"]) == (1, "store_unsupported")
    assert "has no ETag" in ran.json["records"][1]["error"]["message"]


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_file_of_checksums_that_is_none_says_nothing(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    (folder / "work").mkdir(parents=True)
    digest = hashlib.sha256(CLUSTER).hexdigest()
    for name, content in (
        ("right.db", f"{digest}  right.db".encode()),
        ("odd.db", f"\\{digest}  odd\\nname.db".encode()),
        ("wrong.db", b"0" * 64),
        ("long.db", digest.encode() + bytes(1 << 20)),
        ("none.db", b""),
    ):
        place.put(name, CLUSTER)
        place.put(f"{name}.sha256", content)
    ran = audit(folder, place.at("*.db*"), first=True)
    found = {one["url"].rpartition("/")[2]: one["findings"] for one in ran.json["records"] if one["status"] == "ok"}
    said = {name: [one for one in findings if one.startswith("checksum")] for name, findings in found.items()}
    ok, differs = ["checksum_ok"], ["checksum_differs"]
    assert said == {"right.db": ok, "odd.db": ok, "wrong.db": differs, "long.db": [], "none.db": []}
