"""Every store by what all promise: created whole where nothing is, one version read, nothing left of what failed."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snaptool.errors import SnaptoolError
from snaptool.files import TargetExists
from snaptool.sources import SourceChanged
from snaptool.stores.listing import entries_below
from snaptool.stores.location import location_of, place_of
from snaptool.stores.publish import StoreDraft
from snaptool.stores.reading import fetch
from snaptool.stores.same import are_one
from snaptool.stores.store import Replaced, StoreUnreachable, UploadDiffers, open_store
from snaptool.stores.sums import Sums, sums_of
from tests.clouds.stores import Place, Sftp
from tests.support.cli import GOLDEN, SAMPLES, Snaptool

SAMPLE = SAMPLES / "aescbc-cluster.db"
KINDS = ["s3", "gs", "az", "sftp"]
everywhere = pytest.mark.parametrize("place", KINDS, indirect=True)
CHECKSUMS = json.loads((GOLDEN / "clouds" / "storage-and-fleets.json").read_text())["checksums"]


@pytest.fixture
def snaptool(tmp_path: Path) -> Snaptool:
    folder = tmp_path / "work"
    folder.mkdir()
    return Snaptool(folder)


def created(url: str, content: bytes, *, force: bool = False) -> None:
    with StoreDraft(place_of(url), force=force) as draft:
        draft.write(content)
        draft.publish()


def fetched(url: str, folder: Path) -> bytes:
    found = fetch(place_of(url), folder)
    try:
        return Path(found.spool.readable_path).read_bytes()
    finally:
        found.spool.close()


@everywhere
@pytest.mark.parametrize("size", [0, 1, 1000, (16 << 20) - 1, 16 << 20, (16 << 20) + 1])
def test_b2_b5_what_arrives_is_what_was_sent(place: Place, size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    created(place.at("x.db"), content)
    assert place.get("x.db") == content
    assert fetched(place.at("x.db"), tmp_path) == content
    assert place.names() == ["x.db"]
    assert place.pending() == []


@everywhere
def test_b2_a_rewrite_there_and_back(place: Place, snaptool: Snaptool) -> None:
    name = "a b+c%20ö.db"
    place.put(name, SAMPLE.read_bytes())
    old, new = snaptool.sample("aescbc.yaml"), snaptool.sample("secretbox.yaml")
    source, target = place.at(name), place.at("new.db")
    ran = snaptool("rewrite", source, target, "--config", old, "--new-config", new)
    assert ran.code == 0, ran.text
    assert target in ran.stdout.partition("next:")[2], "the object is named where it goes on"
    assert place.get(name) == SAMPLE.read_bytes()
    assert snaptool("verify", target, "--config", new).code == 0
    before = place.get("new.db")
    ran = snaptool("rewrite", source, target, "--config", old, "--new-config", new, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "target_exists")
    assert place.get("new.db") == before
    assert sorted(place.names()) == sorted([name, "new.db"])
    ran = snaptool("repair", target, target, "--force")
    assert (ran.code, "same object" in ran.stderr) == (2, True)


@everywhere
def test_configurations_and_the_report_may_be_in_the_store(place: Place, snaptool: Snaptool) -> None:
    for name in ("aescbc.yaml", "secretbox.yaml"):
        place.put(name, (SAMPLES / name).read_bytes())
    place.put("a.db", SAMPLE.read_bytes())
    how = ("--config", place.at("aescbc.yaml"), "--new-config", place.at("secretbox.yaml"))
    ran = snaptool("rewrite", place.at("a.db"), place.at("n.db"), *how, "--report", place.at("r.json"))
    assert ran.code == 0, ran.text
    assert json.loads(place.get("r.json"))["target"]["path"] == place.at("n.db")
    ran = snaptool("rewrite", place.at("a.db"), place.at("n2.db"), *how, "--report", place.at("r.json"))
    assert (ran.code, "r.json already exists" in ran.stderr) == (2, True)
    ran = snaptool("rewrite", place.at("a.db"), place.at("n2.db"), *how, "--report", place.at("n2.db"))
    assert (ran.code, "same file" in ran.stderr) == (2, True)
    assert "n2.db" not in place.names()
    ran = snaptool("inspect", place.at("n.db"), "--config", place.at("none.yaml"))
    assert (ran.code, "none.yaml" in ran.stderr) == (2, True)


@everywhere
@pytest.mark.parametrize("size", [1000, (16 << 20) + 1])
def test_b3_a_target_that_appears_meanwhile_is_left_alone(place: Place, size: int) -> None:
    with StoreDraft(place_of(place.at("x")), force=False) as draft:
        draft.write(bytes(size))
        place.put("x", b"theirs")
        with pytest.raises(TargetExists):
            draft.publish()
    assert place.get("x") == b"theirs"
    assert place.pending() == []
    assert place.names() == ["x"]


@everywhere
@pytest.mark.parametrize("size", [1000, (16 << 20) + 1])
def test_b4_of_three_writers_at_once_one_wins(place: Place, size: int) -> None:
    contents = [os.urandom(size) for _ in range(3)]
    won: list[int] = []
    refused: list[BaseException] = []
    start = threading.Barrier(3)

    def write(number: int) -> None:
        with StoreDraft(place_of(place.at("x")), force=False) as draft:
            draft.write(contents[number])
            start.wait()
            try:
                draft.publish()
                won.append(number)
            except TargetExists as error:
                refused.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 2)
    assert place.get("x") == contents[won[0]]
    assert place.pending() == []


@everywhere
@pytest.mark.parametrize("when", [0, 1], ids=["before it is read", "in the middle"])
def test_b8_an_object_that_is_replaced_is_no_mixture(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    size = 40 << 20
    place.put("x", bytes(size))
    path = place_of(place.at("x"))
    kind = type(open_store(path))
    read = kind.read

    def replaced(self: Any, *arguments: Any) -> Iterator[bytes]:
        for number, data in enumerate(read(self, *arguments)):
            if number == when:
                place.put("x", b"\1" * size)
            yield data

    if when:
        monkeypatch.setattr(kind, "read", replaced)
    else:
        store = open_store(path)
        seen = store.look()
        assert seen is not None
        place.put("x", b"\1" * size)
        with pytest.raises(Replaced):
            list(store.read(seen, 0))
        return
    try:
        content = fetched(place.at("x"), tmp_path)
    except SourceChanged:
        return
    assert content == bytes(size), "one version, as a whole"


@everywhere
def test_b11_force_replaces_only_what_was_seen(place: Place) -> None:
    place.put("x", b"first")
    created(place.at("x"), b"ours", force=True)
    assert place.get("x") == b"ours"
    with StoreDraft(place_of(place.at("x")), force=True) as draft:
        draft.write(b"ours again")
        place.put("x", b"a third writer's")
        with pytest.raises(TargetExists):
            draft.publish()
    assert place.get("x") == b"a third writer's"
    assert place.pending() == []


@everywhere
def test_an_exception_in_the_middle_leaves_nothing(place: Place) -> None:
    with contextlib.suppress(ZeroDivisionError), StoreDraft(place_of(place.at("x")), force=False) as draft:
        draft.write(bytes(1000))
        raise ZeroDivisionError
    assert place.names() == []
    assert place.pending() == []


@everywhere
def test_what_is_not_there_and_what_names_nothing(place: Place, snaptool: Snaptool) -> None:
    ran = snaptool("inspect", place.at("none.db"), "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "no_such_object")
    ran = snaptool("inspect", place.at("*.db"))
    assert (ran.code, f"snaptool audit --list '{place.at('*.db')}'" in ran.stderr) == (2, True), ran.text
    ran = snaptool("inspect", place.url + "/", "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "bad_url")


@everywhere
def test_nothing_listens_is_unreachable(place: Place, snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    connection = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "").replace("127.0.0.1", "127.0.0.9")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
    url = "sftp://ops@127.0.0.1:9/x.db" if place.url.startswith("sftp") else place.at("x.db")
    ran = snaptool("inspect", url, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (5, "store_unreachable")
    assert "Traceback" not in ran.text


@pytest.mark.parametrize("place", ["s3", "gs", "az"], indirect=True)
def test_what_is_below_a_name_is_listed_with_its_version(place: Place) -> None:
    for name in ("a/1.db", "a/2.db", "a/b/3.db", "b.db"):
        place.put(name, name.encode())
    found = {one.url: one for one in entries_below(place.at("a/"))}
    assert sorted(found) == [place.at(name) for name in ("a/1.db", "a/2.db", "a/b/3.db")]
    for url, one in found.items():
        seen = open_store(place_of(url)).look()
        assert seen is not None
        assert (seen.version, seen.size) == (one.version, one.size)
    assert len(list(entries_below(place.url))) == 4
    assert len(list(entries_below(place.at("a/b")))) == 1


@pytest.mark.parametrize("place", ["s3", "gs"], indirect=True)
@pytest.mark.parametrize("model", CHECKSUMS, ids=lambda model: str(model["size"]))
def test_b5_checksums_are_those_that_are_given(place: Place, model: dict[str, Any], tmp_path: Path) -> None:
    block = bytes(i * i % 251 for i in range(251))
    content = (block * (model["size"] // 251 + 1))[: model["size"]]
    created(place.at("x"), content)
    store = open_store(place_of(place.at("x")))
    seen = store.look()
    assert seen is not None
    stated = seen.checksum.partition(":")[2].partition("-")[0]
    wanted = model["gcs_crc32c"] if place.url.startswith("gs") else model["s3_ChecksumSHA256_before_any_dash"]
    assert stated == wanted
    (tmp_path / "x").write_bytes(content)
    sums = sums_of(tmp_path / "x")
    assert sums.sha256 == model["sha256"]
    assert store.kept(sums) is True
    assert store.kept(Sums([content, b"more"])) is False


@pytest.mark.parametrize("place", ["s3", "gs", "az"], indirect=True)
def test_a_version_that_was_replaced_is_told_when_it_is_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else replaces it between creation and comparison: that is no success, and nothing is deleted."""
    path = place_of(place.at("x"))
    kind = type(open_store(path))
    create = kind.create

    def and_then(self: Any, *arguments: Any) -> None:
        create(self, *arguments)
        place.put("x", b"theirs")

    monkeypatch.setattr(kind, "create", and_then)
    with StoreDraft(path, force=False) as draft:
        draft.write(b"ours")
        with pytest.raises(UploadDiffers):
            draft.publish()
    assert place.get("x") == b"theirs"


@everywhere
def test_b10_nothing_that_the_run_reads_is_replaced_however_it_is_spelled(place: Place, snaptool: Snaptool) -> None:
    """Source, configurations and earlier backups, under `--force`, by another spelling of where they are."""
    local = snaptool.sample("aescbc.yaml")
    place.put("a.db", SAMPLE.read_bytes())
    place.put("old.yaml", local.read_bytes())
    place.put("earlier.db", SAMPLE.read_bytes())
    others = [place.url]
    kind, _, rest = place.url.partition("://")
    if kind == "az":
        others += [f"az://devstoreaccount1.blob.core.windows.net/{rest}"]
        others += [f"abfs://{rest}@devstoreaccount1.dfs.core.windows.net"]
    if kind == "sftp":
        others += [f"{place.url}/~", f"{place.url}/.", place.url.replace("ops@", "root@")]
    for other in others:
        for name in ("a.db", "old.yaml", "earlier.db"):
            ran = snaptool(
                *("rewrite", place.at("a.db"), f"{other}/{name}", "--force", "--config", place.at("old.yaml")),
                *("--new-config", snaptool.sample("secretbox.yaml"), "--undecryptable", "older"),
                *("--older-from", place.at("earlier.db")),
            )
            assert ran.code == 2, (other, name, ran.text)
            assert "this run reads" in ran.stderr or "same object" in ran.stderr
    assert place.get("a.db") == SAMPLE.read_bytes() == place.get("earlier.db")
    assert place.get("old.yaml") == local.read_bytes()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://b.s3.eu-west-1.amazonaws.com/k/x.db?X-Amz-Signature=1", "s3://b/k/x.db", True),
        ("https://s3.eu-west-1.amazonaws.com/b/k/x.db", "s3://b/k/x.db?versionId=1", True),
        ("https://storage.googleapis.com/b/k%20/x.db?X-Goog-Signature=1", "gs://b/k /x.db#12", True),
        ("https://a.blob.core.windows.net/c/x.db?sig=1", "az://c/x.db", True),
        ("https://h/x.db?sig=1", "https://H/x.db?sig=2", True),
        ("az://a.blob.core.windows.net/c/x", "abfs://c@a.dfs.core.windows.net/x", True),
        ("sftp://h/a/./x", "sftp://u@H:22/a/x", True),
        ("s3://b/x", "gs://b/x", False),
        ("s3://b/x", "s3://b/X", False),
        ("az://a.blob.core.windows.net/c/x", "az://b.blob.core.windows.net/c/x", False),
        ("sftp://h/a/x", "sftp://h:2222/a/x", False),
        ("sftp://a@h/~/x", "sftp://b@h/~/x", False),
        ("https://h/other.db", "s3://b/x.db", False),
    ],
)
def test_b10_places_are_one_by_what_they_name(
    one: str, other: str, monkeypatch: pytest.MonkeyPatch, *, same: bool
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    places = [location_of(place_of(url)) for url in (one, other)]
    assert are_one(*places) == are_one(*reversed(places)) == same


# -- sftp


def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool = True) -> Sftp:
    from tests.clouds.conftest import requires

    requires("asyncssh")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return Sftp(home, links=links)


def test_b15_a_server_without_links_is_refused_unless_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = served(tmp_path, monkeypatch, links=False)
    try:
        place = server.place()
        with pytest.raises(SnaptoolError, match="hard links") as caught:
            created(place.at("x"), b"ours")
        assert "--force" in caught.value.hint
        assert place.names() == []
        place.put("x", b"theirs")
        created(place.at("x"), b"ours", force=True)
        assert place.get("x") == b"ours"
        assert place.pending() == []
    finally:
        server.close()


def test_b15_an_unknown_host_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = served(tmp_path, monkeypatch)
    try:
        server.known_hosts.write_text("")
        with pytest.raises(SnaptoolError, match="key is not known") as caught:
            created(server.place().at("x"), b"ours")
        assert "fingerprint" in caught.value.hint
        assert server.place().names() == []
    finally:
        server.close()


def test_a_file_over_sftp_has_mode_0600(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = served(tmp_path, monkeypatch)
    try:
        created(server.place().at("x"), b"ours")
        assert (server.root / "x").stat().st_mode & 0o777 == 0o600
        (server.root / "folder").mkdir()
        with pytest.raises(SnaptoolError, match="not a regular file"):
            fetch(place_of(server.place().at("folder")), tmp_path)
    finally:
        server.close()


def test_without_an_account_azure_says_what_to_set(snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.clouds.conftest import requires

    requires("azure.storage.blob", "azure.identity")
    for name in ("CONNECTION_STRING", "ACCOUNT", "KEY", "SAS_TOKEN"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    ran = snaptool("inspect", "az://c/x.db")
    assert (ran.code, "AZURE_STORAGE_ACCOUNT" in ran.stderr) == (2, True)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=verysecretkey")
    ran = snaptool("inspect", "az://c/x.db")
    assert (ran.code, "verysecretkey" in ran.text) == (2, False)
    assert issubclass(StoreUnreachable, SnaptoolError)
