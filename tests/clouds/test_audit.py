"""`snaptool audit` on a bucket, on moto: what is listed, what is read of it, and that nothing is asked twice."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from snaptool.fleet import Places, Question, ShardResult
from snaptool.fleet.looking import look
from tests.clouds.conftest import requires
from tests.clouds.stores import Sftp
from tests.support.cli import GOLDEN, SAMPLES, Ran, Snaptool

AESCBC = SAMPLES / "aescbc.yaml"
CLUSTER = (SAMPLES / "aescbc-cluster.db").read_bytes()
LOST = (SAMPLES / "lost-key.db").read_bytes()


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"b{secrets.token_hex(6)}"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    return name


@pytest.fixture
def snaptool(tmp_path: Path) -> Snaptool:
    (tmp_path / "work").mkdir()
    return Snaptool(tmp_path)


def audit(snaptool: Snaptool, *arguments: str | Path, first: bool = False) -> Ran:
    store = snaptool.folder / "store.db"
    ran = snaptool(
        *("audit", *arguments, "--store", store, "--work-dir", snaptool.folder / "work", "-o", "json"),
        makes=[store] if first else [],
        replaces=[] if first else [store],
    )
    assert list((snaptool.folder / "work").iterdir()) == [], "downloads are gone"
    return ran


def statuses(ran: Ran) -> dict[str, str]:
    return {record["url"].rpartition("/")[2]: record["status"] for record in ran.json["records"]}


def rows(snaptool: Snaptool) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(snaptool.folder / "store.db")) as database:
        return database.execute("select url, version from result order by 1, 2").fetchall()


def test_case_1_and_7_a_bucket_is_looked_at_once(snaptool: Snaptool, s3: Any, bucket: str) -> None:
    import gzip
    import hashlib

    content = {
        "prod/a.db": CLUSTER,
        "prod/b.db.gz": gzip.compress(CLUSTER),
        "prod/cut.db": CLUSTER[: len(CLUSTER) // 2],
        "prod/lost.db": LOST,
        "prod/readme.txt": b"hello",
        "prod/a.db.sha256": hashlib.sha256(CLUSTER).hexdigest().encode(),
        "prod/empty": b"",
        "prod/folder/": b"",
        "other/x.db": CLUSTER,
    }
    for name, data in content.items():
        s3.put_object(Bucket=bucket, Key=name, Body=data)
    words: tuple[str | Path, ...] = (f"s3://{bucket}/prod", "--config", AESCBC, "--jobs", "2")
    ran = audit(snaptool, *words, first=True)
    assert statuses(ran) == {
        "a.db": "ok",
        "a.db.sha256": "not_a_snapshot",
        "b.db.gz": "ok",
        "cut.db": "damaged",
        "empty": "not_a_snapshot",
        "lost.db": "undecryptable",
        "readme.txt": "not_a_snapshot",
    }
    first = ran.json["records"][0]
    assert (first["url"], first["findings"]) == (f"s3://{bucket}/prod/a.db", ["checksum_ok"])
    assert first["sha256"] == hashlib.sha256(CLUSTER).hexdigest()
    damaged = next(one for one in ran.json["records"] if one["status"] == "damaged")
    assert damaged["error"]["message"].startswith(f"s3://{bucket}/prod/cut.db: ")
    assert str(snaptool.folder / "work") not in json.dumps(ran.json), "copies are not what is talked about"
    assert "versions that were replaced" in ran.json["reach"]

    again = audit(snaptool, *words)
    assert again.json["kept"] == 7
    assert len(rows(snaptool)) == 7
    s3.put_object(Bucket=bucket, Key="prod/lost.db", Body=CLUSTER)
    s3.delete_object(Bucket=bucket, Key="prod/cut.db")
    once = audit(snaptool, *words)
    assert (once.json["kept"], statuses(once)["lost.db"]) == (5, "ok")
    assert len(rows(snaptool)) == 8, "one row for each version"
    audit(snaptool, *words, "--forget-gone")
    assert {url for url, _ in rows(snaptool)} == {one["url"] for one in once.json["records"]}


def test_what_is_named_decides_what_is_listed(snaptool: Snaptool, s3: Any, bucket: str) -> None:
    for name in ("a/x.db", "a/b/y.db", "a/b/z.txt", "ab/w.db", "top.db"):
        s3.put_object(Bucket=bucket, Key=name, Body=b"x")

    def listed(argument: str) -> list[str]:
        ran = snaptool("audit", argument, "--list", "-o", "json")
        return [one["url"].removeprefix(f"s3://{bucket}/") for one in ran.json["backups"]]

    assert listed(f"s3://{bucket}") == ["a/b/y.db", "a/b/z.txt", "a/x.db", "ab/w.db", "top.db"]
    assert listed(f"s3://{bucket}/") == listed(f"s3://{bucket}")
    assert listed(f"s3://{bucket}/a") == ["a/b/y.db", "a/b/z.txt", "a/x.db"]
    assert listed(f"s3://{bucket}/a/*.db") == ["a/x.db"]
    assert listed(f"s3://{bucket}/**/*.db") == ["a/b/y.db", "a/x.db", "ab/w.db", "top.db"]
    assert listed(f"s3://{bucket}/a*/?.db") == ["a/x.db", "ab/w.db"]
    assert listed(f"s3://{bucket}/top.db") == ["top.db"]
    assert snaptool("audit", f"s3://{bucket}/nothing", "--list").code == 2
    assert snaptool("audit", f"s3://{bucket}-not-there/", "--list").code == 2


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sftp]:
    requires("asyncssh")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    server = Sftp(home)
    yield server
    server.close()


def test_folders_of_a_host_are_listed_as_those_of_a_bucket(snaptool: Snaptool, host: Sftp) -> None:
    for name in ("a/x.db", "a/b/y.db", "a/b/z.txt", "ab/w.db", "top.db", "ü/1.db"):
        path = host.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (host.root / "a" / "again").symlink_to("..")
    (host.root / "a" / "link.db").symlink_to("x.db")
    (host.root / "a" / "gone.db").symlink_to("nowhere")
    url = host.place().url

    def listed(argument: str) -> list[str]:
        ran = snaptool("audit", argument, "--list", "-o", "json")
        assert ran.code == 0, ran.text
        return [one["url"].removeprefix(f"{url}/") for one in ran.json["backups"]]

    every = ["a/b/y.db", "a/b/z.txt", "a/link.db", "a/x.db", "ab/w.db", "top.db", "ü/1.db"]
    assert listed(url) == every
    assert listed(f"{url}/") == every
    assert listed(f"{url}/~/") == [f"~/{name}" for name in every]
    assert listed(f"{url}/a") == ["a/b/y.db", "a/b/z.txt", "a/link.db", "a/x.db"]
    assert listed(f"{url}/~/a/b") == ["~/a/b/y.db", "~/a/b/z.txt"]
    assert listed(f"{url}/a/*.db") == ["a/link.db", "a/x.db"]
    assert listed(f"{url}/**/*.db") == [name for name in every if name.endswith(".db")]
    assert listed(f"{url}/a*/?.db") == ["a/x.db", "ab/w.db"]
    assert listed(f"{url}/top.db") == ["top.db"]
    assert snaptool("audit", f"{url}/nothing", "--list").code == 2
    (host.root / os.fsdecode(b"\xff.db")).write_bytes(b"x")
    ran = snaptool("audit", url, "--list")
    assert (ran.code, "not UTF-8" in ran.stderr) == (5, True), ran.text


def test_backups_on_a_host_are_looked_at_once(snaptool: Snaptool, host: Sftp) -> None:
    (host.root / "prod").mkdir()
    (host.root / "prod" / "good.db").write_bytes(CLUSTER)
    (host.root / "prod" / "cut.db").write_bytes(CLUSTER[:20000])
    argv = (f"{host.place().url}/prod", "--config", AESCBC)
    ran = audit(snaptool, *argv, first=True)
    assert (ran.code, statuses(ran)) == (3, {"good.db": "ok", "cut.db": "damaged"}), ran.text
    once = rows(snaptool)
    audit(snaptool, *argv)
    assert rows(snaptool) == once


def test_versions_that_were_replaced_are_looked_at_where_that_is_wanted(
    snaptool: Snaptool, s3: Any, bucket: str
) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=bucket, Key="a.db", Body=LOST)["VersionId"]
    s3.put_object(Bucket=bucket, Key="a.db", Body=CLUSTER)
    where = f"s3://{bucket}/a.db"
    assert statuses(audit(snaptool, where, "--config", AESCBC, first=True)) == {"a.db": "ok"}
    ran = audit(snaptool, where, "--config", AESCBC, "--all-versions")
    assert ran.json["kept"] == 1
    assert statuses(ran) == {"a.db": "ok", f"a.db?versionId={first}": "undecryptable"}
    assert "versions that were replaced" not in ran.json["reach"]
    one = audit(snaptool, f"{where}?versionId={first}", "--config", AESCBC)
    assert (one.json["kept"], one.json["counts"]) == (1, {"undecryptable": 1})


def test_case_14_an_object_replaced_after_it_was_listed_is_looked_at_whole(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a.db", Body=LOST)
    (listed,) = Places().find(f"s3://{bucket}/a.db").backups
    s3.put_object(Bucket=bucket, Key="a.db", Body=CLUSTER)
    (now,) = Places().find(f"s3://{bucket}/a.db").backups
    record = look(listed, Question(check="census"))
    assert record["version"] == now.version != listed.version
    quick = look(listed, Question(check="quick"))
    assert (quick["status"], quick["error"]["kind"], quick["version"]) == ("failed", "source_changed", listed.version)
    s3.delete_object(Bucket=bucket, Key="a.db")
    gone = look(listed, Question(check="census"))
    assert (gone["status"], gone["error"]["kind"]) == ("failed", "no_such_object")


def test_situation_24_what_is_one_backup_is_one_record_in_a_bucket_too(
    snaptool: Snaptool, s3: Any, bucket: str
) -> None:
    folder = GOLDEN / "audit" / "24-audit-directories" / "bucket"
    for path in folder.rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), bucket, f"b/{path.relative_to(folder)}")
    records = audit(snaptool, f"s3://{bucket}/b", "--embedded-config", first=True).json["records"]
    assert [(one["platform"], one["status"], len(one["files"])) for one in records] == [
        ("gardener", "ok (not opened)", 4),
        ("openshift", "ok", 2),
    ]
    assert records[0]["etcd"]["revision"] == 18
    again = audit(snaptool, f"s3://{bucket}/b", "--embedded-config")
    assert again.json["kept"] == 2


def test_situation_21_half_a_database_in_a_whole_gzip_shows_by_two_reads(
    snaptool: Snaptool, s3: Any, bucket: str
) -> None:
    folder = GOLDEN / "audit" / "21-half-in-gzip" / "store"
    for path in folder.rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), bucket, f"store/{path.relative_to(folder)}")
    records = audit(snaptool, f"s3://{bucket}/store", "--check", "quick", first=True).json["records"]
    assert [(one["status"], (one["error"] or {}).get("kind")) for one in records] == [
        ("ok", None),
        ("damaged", "snapshot_short"),
    ]


def test_case_8_and_9_shards_leave_one_object_each_and_are_merged(snaptool: Snaptool, s3: Any, bucket: str) -> None:
    names = [f"n{number}.db" for number in range(6)]
    for name in names:
        s3.put_object(Bucket=bucket, Key=f"in/{name}", Body=CLUSTER)
    results = f"s3://{bucket}/results/night"
    words: tuple[str | Path, ...] = ("audit", f"s3://{bucket}/in", "--config", AESCBC, "--results", results)
    store = snaptool.folder / "merged.db"
    for index in (0, 2):
        assert snaptool(*words, "--shard", f"{index}/3").code == 0
    missing = snaptool("audit", "--merge", results, "--store", store, makes=[store])
    assert missing.code == 1
    assert "1 of 3 shards have left no results: 1" in missing.stderr
    assert snaptool(*words, "--shard", "1/3").code == 0
    again = snaptool(*words, "--shard", "1/3")
    assert (again.code, "done already" in again.stderr) == (0, True)
    merged = snaptool("audit", "--merge", results, "--store", store, "-o", "json", replaces=[store])
    assert (merged.code, merged.json["counts"]) == (0, {"ok": 6})
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="results/night/")["Contents"]
    assert [one["Key"].rpartition("/")[2] for one in listed] == [f"0000{index}-of-00003.jsonl" for index in range(3)]


class Requests:
    """What the client of this process sends, seen by its own events: operation and range."""

    def __init__(self) -> None:
        from snaptool.stores import s3 as module

        self.sent: list[tuple[str, str]] = []
        module._clients.clear()
        self._module = module

    def watch(self) -> None:
        (client,) = self._module._clients.values()
        client.meta.events.register("before-send.s3", self._note)

    def _note(self, request: Any, **_: Any) -> None:
        headers = {str(name).lower(): value for name, value in request.headers.items()}
        text = headers.get("range", b"")
        self.sent.append((request.method, text.decode() if isinstance(text, bytes) else text))


def test_case_16_a_quick_look_reads_128_kib_of_the_listed_version_and_asks_for_nothing_else(
    s3: Any, bucket: str
) -> None:
    import gzip
    import random

    long = CLUSTER + bytes(1 << 20)
    noise = random.Random(1).randbytes(300_000)
    packed = gzip.compress(CLUSTER + noise)
    for name, data in (("a/whole.db", long), ("a/cut.db", CLUSTER[:9000]), ("a/x.db.gz", packed)):
        s3.put_object(Bucket=bucket, Key=name, Body=data)
    requests = Requests()
    listed = Places().find(f"s3://{bucket}/a/").backups
    requests.watch()
    found = {one.url.rpartition("/")[2]: look(one, Question(check="quick"))["status"] for one in listed}
    assert found == {"whole.db": "ok", "cut.db": "damaged", "x.db.gz": "ok"}
    assert sorted(requests.sent) == sorted(
        [
            ("GET", "bytes=0-131071"),
            ("GET", "bytes=0-8999"),
            ("GET", "bytes=0-131071"),
            ("GET", f"bytes={len(packed) - 4}-{len(packed) - 1}"),
        ]
    )


@pytest.mark.soak
def test_five_thousand_objects_are_listed_by_pages_and_looked_at_by_one_read_each(
    snaptool: Snaptool, s3: Any, bucket: str
) -> None:
    """5,000 at level quick: five pages of a listing, and one read of each object."""
    from concurrent.futures import ThreadPoolExecutor

    def put(number: int) -> None:
        data = CLUSTER[:9000] if number % 625 == 0 else CLUSTER
        s3.put_object(Bucket=bucket, Key=f"prod/etcd-{number:05}.db", Body=data)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(5_000)))
    requests = Requests()
    Places().find(f"s3://{bucket}/prod/etcd-00000.db")
    requests.watch()
    listed = Places().find(f"s3://{bucket}/prod/").backups
    assert (len(listed), len(requests.sent)) == (5_000, 5), "a thousand a page"
    ran = audit(snaptool, f"s3://{bucket}/prod/", "--check", "quick", "--jobs", "4", first=True)
    assert ran.json["counts"] == {"ok": 4_992, "damaged": 8}
    again = audit(snaptool, f"s3://{bucket}/prod/", "--check", "quick")
    assert again.json["kept"] == 5_000


def test_case_9_of_two_that_do_the_same_shard_in_a_bucket_one_wins_and_both_are_done(
    snaptool: Snaptool, s3: Any, bucket: str
) -> None:
    """Two processes, each of which found nothing there before it began."""
    import subprocess
    import sys

    for number in range(4):
        s3.put_object(Bucket=bucket, Key=f"in/n{number}.db", Body=CLUSTER)
    words = [sys.executable, "-m", "snaptool", "audit", f"s3://{bucket}/in", "--shard", "0/1", "--jobs", "1"]
    words += ["--results", f"s3://{bucket}/results", "-o", "jsonl", "--work-dir", str(snaptool.folder / "work")]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=240) for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    (left,) = s3.list_objects_v2(Bucket=bucket, Prefix="results/")["Contents"]
    lines = s3.get_object(Bucket=bucket, Key=left["Key"])["Body"].read().splitlines()
    assert sorted(json.loads(line)["url"] for line in lines) == [f"s3://{bucket}/in/n{n}.db" for n in range(4)]


def test_case_9_a_result_that_came_meanwhile_stays(s3: Any, bucket: str) -> None:
    """Both looked before either had written: the second neither fails nor replaces."""
    from concurrent.futures import ThreadPoolExecutor

    shard = ShardResult(f"s3://{bucket}/results", "0" * 64, 0, 1)
    records = [[{"url": f"s3://{bucket}/{who}.db"}] for who in "ab"]
    assert not shard.is_there()
    with ThreadPoolExecutor(2) as pool:
        wrote = list(pool.map(shard.publish, records))
    assert sorted(wrote) == [False, True]
    body = s3.get_object(Bucket=bucket, Key=f"results/{'0' * 64}/00000-of-00001.jsonl")["Body"].read()
    assert json.loads(body) == records[wrote.index(True)][0]
