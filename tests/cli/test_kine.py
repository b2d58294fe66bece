"""Databases of Kine, which k3s has by default: commands that look read them, SQLite itself is the judge of rows."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import snaptool as library
from snaptool.cli import exits
from snaptool.containers.sqlite import SqliteFile
from snaptool.errors import FormatError, SnaptoolError
from snaptool.etcd import decode_key_value, decode_revision_key
from snaptool.operations.opening import open_snapshot
from tests.cli.test_containers import VECTORS
from tests.cli.test_embedded import CLUSTER
from tests.cli.test_embedded import K3S as K3S_SNAPSHOT
from tests.support.cli import SAMPLES, Ran, Snaptool
from tests.support.kine import Change, compact, fill, make_kine

STATE, ARCHIVE = VECTORS / "notetcd" / "state.db", VECTORS / "notetcd" / "k0s-kine.tar.gz"
CLUSTER_DB, CLUSTER_CONFIG = SAMPLES / "aescbc-cluster.db", SAMPLES / "aescbc.yaml"


def rows_of(path: Path, log: Path | None = None) -> list[tuple[Any, ...]]:
    found = SqliteFile(path.read_bytes(), str(path), log.read_bytes() if log is not None else b"").rows("kine")
    return [tuple(row.values.values()) for row in found]


def rows_by_sqlite(path: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT * FROM kine ORDER BY id").fetchall()
    database.close()
    return [tuple(cell.encode() if isinstance(cell, str) else cell for cell in row) for row in rows]


def changes_of(snapshot: Path) -> Iterator[Change]:
    """The history of a snapshot of etcd, one row for each record, as Kine would number them."""
    with open_snapshot(snapshot) as opened:
        for number, (key, stored) in enumerate(opened.snapshot.items(b"key"), start=2):
            record = decode_key_value(stored)
            if record.key != b"compact_rev_key":  # Kubernetes has a key of that name in etcd, and Kine a row
                yield Change(number, record.key.decode(), None if decode_revision_key(key)[1] else record.value)


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A real cluster's history in Kine, half of it in the write-ahead log still."""
    target = tmp_path / "state.db"
    database = make_kine(tmp_path / "writing.db")
    database.execute("INSERT INTO kine VALUES (1,'compact_rev_key',1,0,0,0,0,NULL,NULL)")
    changes = list(changes_of(CLUSTER_DB))
    fill(database, changes)
    database.execute("PRAGMA wal_checkpoint(RESTART)")
    last = changes[-1].revision
    database.execute("INSERT INTO kine VALUES (?, ?, 0, 1, 0, 0, 0, NULL, NULL)", (last + 1, f"gap-{last + 1}"))
    compact(database, 5)
    for name in ("", "-wal"):
        shutil.copy2(f"{tmp_path / 'writing.db'}{name}", f"{target}{name}")
    database.close()
    (tmp_path / "writing.db").unlink()
    return target


def inside(ran: Ran) -> list[Any]:
    """What a command printed of objects, without revisions, which Kine counts otherwise."""

    def cleaned(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {name: cleaned(value) for name, value in tree.items() if name not in {"resourceVersion", "revision"}}
        return [cleaned(one) for one in tree] if isinstance(tree, list) else tree

    return [cleaned(json.loads(ran.stdout))]


@pytest.mark.parametrize("source", [STATE, ARCHIVE], ids=lambda path: path.name)
def test_45_inspect_names_what_it_is_and_shows_what_is_in_it(snaptool: Snaptool, source: Path) -> None:
    ran = snaptool("inspect", source, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.DAMAGED, "not_etcd:kine")
    assert "--cluster-init" in ran.json["error"]["remedy"]
    assert ran.json["container"]["layers"][-1] == "kine"
    rows = {row["resource"]: (row["live"], row["old"]) for row in ran.json["census"]}
    assert rows == {"secrets": (1, 2), "configmaps": (1, 0), "(other)": (1, 0)}
    assert ran.json["etcd"]["revision"] == 7
    assert ran.json["etcd"]["written_by"] is None
    text = snaptool("inspect", source)
    assert text.code == exits.DAMAGED
    assert "Kine: revision 7" in text.stdout


@pytest.mark.parametrize("source", [STATE, ARCHIVE], ids=lambda path: path.name)
def test_45_what_needs_an_etcd_refuses_and_says_why(snaptool: Snaptool, source: Path) -> None:
    target = snaptool.folder / "new.db"
    for words in (("rewrite", source, target, "--decrypt"), ("repair", source, target), ("verify", source)):
        ran = snaptool(*words, "-o", "json")
        assert (ran.code, ran.json["error"]["code"]) == (exits.DAMAGED, "not_etcd:kine")
        assert "the value before it" in ran.json["error"]["remedy"]


def test_45_the_library_refuses_what_was_opened_to_be_read(tmp_path: Path) -> None:
    with open_snapshot(STATE, kine=True) as opened:
        assert len(list(library.list_keys(opened))) == 3
        for work in (lambda: library.repair(opened, tmp_path / "x.db"), lambda: library.verify(opened)):
            with pytest.raises(SnaptoolError) as refused:
                work()
            assert refused.value.code == "not_etcd:kine"
    with pytest.raises(SnaptoolError) as refused:
        open_snapshot(STATE)
    assert refused.value.code == "not_etcd:kine"


def test_list_and_history_of_the_vector(snaptool: Snaptool) -> None:
    ran = snaptool("list", STATE, "secrets", "-A", "-o", "json")
    assert ran.code == exits.DONE
    assert [row["key"] for row in ran.json["items"]] == ["/registry/secrets/shop/database"]
    ran = snaptool("history", STATE, "secret", "gone", "-n", "shop", "-o", "json")
    assert [entry["event"] for entry in ran.json["revisions"]] == ["put", "delete"]


def test_objects_are_those_of_the_same_history_in_etcd(snaptool: Snaptool, cluster: Path) -> None:
    config = ("--config", CLUSTER_CONFIG)
    for words in (("get", "secrets", "-n", "shop", "-o", "json"), ("export", "-n", "shop", "--format", "json")):
        command, *rest = words
        ran = snaptool(command, cluster, *rest, *config, shows_secrets=True)
        judge = snaptool(command, CLUSTER_DB, *rest, *config, shows_secrets=True)
        assert (ran.code, inside(ran)) == (judge.code, inside(judge))
        assert inside(ran)[0]["items"]
    census = snaptool("inspect", cluster, *config, "-o", "json")
    judge = snaptool("inspect", CLUSTER_DB, *config, "-o", "json")
    columns = ("resource", "provider", "key_name", "live", "lost")
    live = [
        [tuple(row[name] for name in columns) for row in one.json["census"] if row["live"]] for one in (census, judge)
    ]
    assert live[0] == [row for row in live[1] if row[0] != "compact_rev_key"]
    assert census.json["etcd"]["compacted_revision"] == 5
    ran = snaptool("diff", cluster, CLUSTER_DB, *config, "-o", "json")
    assert [one["key"] for one in ran.json["added"]] == ["compact_rev_key"]
    assert [one["key"] for one in ran.json["removed"] + ran.json["changed"]] == []


def test_the_log_beside_counts_and_a_copy_without_it_is_older(
    snaptool: Snaptool, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert snaptool("inspect", cluster, "-o", "json").json["etcd"]["compacted_revision"] == 5
    alone = Path(shutil.copy2(cluster, snaptool.folder / "alone.db"))
    assert snaptool("inspect", alone, "-o", "json").json["etcd"]["compacted_revision"] == 0
    with tarfile.open(snaptool.folder / "both.tar", "w") as archive:
        for name in ("", "-wal"):
            archive.add(f"{cluster}{name}", f"db/state.db{name}")
    assert snaptool("inspect", snaptool.folder / "both.tar", "-o", "json").json["etcd"]["compacted_revision"] == 5
    monkeypatch.chdir(snaptool.folder)
    shutil.copy2(f"{cluster}-wal", snaptool.folder / "stdin-wal")  # of a pipe nothing is beside
    piped = snaptool("inspect", "-", "-o", "json", stdin=alone.read_bytes())
    assert piped.json["etcd"]["compacted_revision"] == 0
    piped = snaptool("list", "-", "secrets", "-A", "-o", "json", stdin=alone.read_bytes())
    assert piped.json["items"]


def test_the_directory_of_the_database_will_do(snaptool: Snaptool, cluster: Path) -> None:
    ran = snaptool("inspect", cluster.parent, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.DAMAGED, "not_etcd:kine")
    assert ran.json["container"]["layers"] == ["directory:state.db", "kine"]
    assert ran.json["etcd"]["compacted_revision"] == 5, "the log was read"


def test_what_k3s_keeps_under_bootstrap_is_in_kine_too(snaptool: Snaptool) -> None:
    source = snaptool.folder / "state.db"
    database = make_kine(source, wal=False)
    fill(database, (change for change in changes_of(K3S_SNAPSHOT)))
    database.close()
    token = snaptool.write("token", CLUSTER["token"])
    target = snaptool.folder / "old.json"
    ran = snaptool("config", "extract", source, "--token-file", token, "-f", target, makes=[target], shows_secrets=True)
    assert ran.code == exits.DONE
    words = ("secret", "database", "-n", "shop", "--embedded-config", "--token-file", token, "-o", "yaml")
    ran = snaptool("get", source, *words, shows_secrets=True)
    judge = snaptool("get", K3S_SNAPSHOT, *words, shows_secrets=True)
    assert (ran.code, ran.stdout.splitlines()[:3]) == (judge.code, judge.stdout.splitlines()[:3])


def test_other_sqlite_databases_stay_refused(snaptool: Snaptool) -> None:
    other = snaptool.folder / "other.db"
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE photos (id INTEGER PRIMARY KEY, kine TEXT)")
    database.commit()
    database.close()
    ran = snaptool("list", other, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.DAMAGED, "not_etcd:sqlite")


# --- rows, judged by SQLite ---


def odd_changes(count: int, seed: int) -> list[Change]:
    """Values of every size around the limits of pages, empty ones, deletions, and numbers that were skipped."""
    chance = random.Random(seed)
    sizes = (0, 1, 2, 60, 400, 470, 500, 960, 1000, 4000, 4050, 4061, 4096, 8200, 65_000, 70_000, 200_000)
    revision, changes, live = 1, list[Change](), set[str]()
    for _ in range(count):
        revision += chance.choice((1, 1, 1, 2, 300))
        key = f"/registry/odd/é{chance.randrange(count // 3 + 1)}"
        deletes = key in live and chance.random() < 0.2
        live ^= {key} if deletes or key not in live else set()
        changes.append(Change(revision, key, None if deletes else chance.randbytes(chance.choice(sizes))))
    return changes


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_rows_are_those_that_sqlite_reads(tmp_path: Path, page_size: int, encoding: str) -> None:
    path = tmp_path / "state.db"
    database = make_kine(path, page_size=page_size, encoding=encoding, wal=False)
    fill(database, odd_changes(150, page_size))
    database.execute("DELETE FROM kine WHERE id % 3 = 0")
    database.close()
    assert rows_of(path) == rows_by_sqlite(path)
    assert len(rows_of(path)) > 90


def test_a_tree_of_several_levels(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = make_kine(path, page_size=512, wal=False)
    fill(database, (Change(number, f"/registry/many/{number}", b"x" * 30) for number in range(1, 30_000)))
    database.close()
    assert rows_of(path) == rows_by_sqlite(path)


@pytest.mark.parametrize("cut", [1.0, 0.99, 0.7, 0.3, 0.01, 0.0])
def test_a_log_counts_up_to_its_last_whole_commit_as_for_sqlite(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "writing.db"
    database = make_kine(path)
    changes = odd_changes(120, 7)
    for start in range(0, 120, 10):
        for change in changes[start : start + 10]:
            database.execute(
                "INSERT INTO kine VALUES (?,?,1,0,0,?,0,?,NULL)",
                (change.revision, change.key, change.revision, change.value),
            )
        if start == 40:
            database.execute("PRAGMA wal_checkpoint(RESTART)")
    copy = tmp_path / "state.db"
    shutil.copy2(path, copy)
    log = Path(f"{path}-wal").read_bytes()
    log_copy = tmp_path / "state.db-wal"
    log_copy.write_bytes(log[: int(len(log) * cut)])
    database.close()
    mine = rows_of(copy, log_copy)
    assert mine == rows_by_sqlite(copy)
    assert len(mine) >= 50


# --- hostile files ---


def test_pages_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = make_kine(path, page_size=512, wal=False)
    fill(database, (Change(number, f"/registry/many/{number}", b"x" * 30) for number in range(1, 2000)))
    (root,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'kine'").fetchone()
    database.close()
    data = bytearray(path.read_bytes())
    at = (root - 1) * 512
    count = int.from_bytes(data[at + 3 : at + 5], "big")
    for number in range(count):  # every child is the root itself
        cell = at + int.from_bytes(data[at + 12 + 2 * number : at + 14 + 2 * number], "big")
        data[cell : cell + 4] = root.to_bytes(4, "big")
    with pytest.raises(FormatError):
        list(SqliteFile(bytes(data), "x").rows("kine"))
