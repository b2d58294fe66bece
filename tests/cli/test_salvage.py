"""`repair --salvage` and `list --carved`: any file in, a clean store or a listing out, and the source as it was."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from snaptool.bolt import check
from snaptool.etcd import BUCKETS, Snapshot, Trailer
from snaptool.operations.boot import boot_check
from snaptool.operations.opening import open_snapshot
from snaptool.operations.salvage import salvage
from snaptool.scratch import EtcdBinaries
from snaptool.sources import SourceChanged
from tests.support.bolt import damaged, mutations, tiny
from tests.support.cli import GOLDEN, SAMPLES, Snaptool

INTACT = {
    "meta0_checksum_flip",
    "meta1_checksum_flip",
    "meta0_magic_broken",
    "trailer_missing",
    "trailer_flip",
    "extra_bytes_after_hwm",
}
CUT = "truncated_to_8_pages"
BOOTED = ["both_meta_checksum_flip", "leaf_page_zeroed", "branch_self_cycle", CUT]


def records(path: Path) -> dict[bytes, list[tuple[bytes, bytes]]]:
    with open_snapshot(path) as opened:
        return {name: list(bucket.items()) for name, bucket in opened.snapshot.database.buckets().items()}


@pytest.mark.parametrize("name", sorted(mutations()))
def test_damaged_variant_is_salvaged_to_a_clean_store(snaptool: Snaptool, tmp_path: Path, name: str) -> None:
    source, target = snaptool.write("damaged.db", damaged(name)), tmp_path / "new.db"
    started = time.process_time()
    ran = snaptool("repair", "--salvage", source, target, "-o", "json", makes=[target])
    assert time.process_time() - started < 1
    assert ran.code == (0 if name in INTACT else 3)
    assert ran.json["intact"] is (name in INTACT)
    assert bool(ran.json["missing"]) is (name not in INTACT)
    assert ran.json["doubtful"] == []
    assert ("of the source, the SHA-256 at the end is not" in ran.stderr) is (name == "trailer_flip")
    written = Snapshot(target.read_bytes())
    assert written.check_trailer() is Trailer.OK
    assert list(check(target.read_bytes())) == []
    assert set(written.database.buckets()) == set(BUCKETS)
    if name == CUT:
        assert ran.json["records"] == {"total": 54, "carved": 54, "uncertain": 0, "stale": 0}
        return
    assert records(target) == records(GOLDEN / "tiny-3.4.db")
    assert ran.json["records"]["total"] == 33
    assert ran.json["records"]["stale"] == 57
    assert b"STALE-SECRET-VALUE-0001" not in target.read_bytes()


@pytest.mark.parametrize("name", BOOTED)
def test_salvaged_store_boots_in_etcd(
    snaptool: Snaptool, tmp_path: Path, etcd_binaries: EtcdBinaries, scratch_parent: Path, name: str
) -> None:
    source, target = snaptool.write("damaged.db", damaged(name)), tmp_path / "new.db"
    assert snaptool("repair", "--salvage", source, target, makes=[target]).code == 3
    with open_snapshot(target) as opened:
        report = boot_check(opened.snapshot, target, binaries=etcd_binaries, parent=scratch_parent)
    assert report.differences == ()
    assert report.keys > 0


@pytest.mark.parametrize("seed", range(4))
def test_store_salvaged_from_random_damage_boots_in_etcd(
    snaptool: Snaptool, tmp_path: Path, etcd_binaries: EtcdBinaries, scratch_parent: Path, seed: int
) -> None:
    chance, data = random.Random(seed), bytearray((SAMPLES / "mixed-providers.db").read_bytes())
    for _ in range(3):
        one, other = (chance.randrange(2, len(data) // 4096) * 4096 for _ in range(2))
        data[one : one + 4096], data[other : other + 4096] = data[other : other + 4096], bytes(4096)
    source, target = snaptool.write("damaged.db", bytes(data)), tmp_path / "new.db"
    assert snaptool("repair", "--salvage", source, target, makes=[target]).code in {0, 3}
    with open_snapshot(target) as opened:
        report = boot_check(opened.snapshot, target, binaries=etcd_binaries, parent=scratch_parent)
    assert report.differences == ()


def test_report_in_text_says_what_is_not_proven(snaptool: Snaptool, tmp_path: Path) -> None:
    source, target = snaptool.write("damaged.db", damaged("leaf_page_zeroed")), tmp_path / "new.db"
    ran = snaptool("repair", "--salvage", source, target, makes=[target])
    assert ran.stdout.splitlines()[:4] == [
        "missing or not proven: page 12: its header says that it is page 0",
        "33 records: 16 from the tree, 17 carved",
        "  14 of the carved ones are older than the compaction: a deletion may be lost",
        "57 stale records in 6 free pages left out",
    ]


def test_data_directory_is_salvaged_too(snaptool: Snaptool, tmp_path: Path) -> None:
    database, target = tmp_path / "data" / "member" / "snap" / "db", tmp_path / "new.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(tiny())
    assert snaptool("repair", "--salvage", tmp_path / "data", target, makes=[target]).code == 0
    assert records(target) == records(GOLDEN / "tiny-3.4.db")


def test_what_is_no_database_is_refused_and_nothing_is_written(snaptool: Snaptool, tmp_path: Path) -> None:
    for content in (b"", b"text" * 10_000, bytes(100_000)):
        ran = snaptool("repair", "--salvage", snaptool.write("text.db", content), tmp_path / "new.db", replaces=[])
        assert ran.code == 4
        (tmp_path / "text.db").unlink()


def test_existing_target_and_source_as_target_are_refused(snaptool: Snaptool) -> None:
    source = snaptool.write("damaged.db", damaged("leaf_page_zeroed"))
    other = snaptool.write("other.db", b"mine")
    assert snaptool("repair", "--salvage", source, other).code == 2
    assert snaptool("repair", "--salvage", source, source, "--force").code == 2


def test_case_47_list_carved_shows_what_lies_in_free_pages(snaptool: Snaptool) -> None:
    source = snaptool.sample("tiny-3.4.db")
    items = snaptool("list", "--carved", source, "-o", "json").json["items"]
    assert len(items) == 57
    assert items[0] == {
        "key": "app/secret",
        "revision": 2,
        "sub": 0,
        "deleted": False,
        "size": len(b"STALE-SECRET-VALUE-0001"),
        "provider": "identity",
        "key_name": None,
        "page": 3,
        "state": "stale",
    }
    text = snaptool("list", "--carved", source)
    assert text.code == 0
    assert text.stdout.splitlines()[0].split() == ["KEY", "REVISION", "SIZE", "PROVIDER", "PAGE", "STATE"]
    assert text.stdout.splitlines()[1].split() == ["app/secret", "2", "23", "identity", "3", "stale"]
    assert len(text.stdout.splitlines()) == 58
    assert "STALE-SECRET" not in text.text
    assert snaptool("list", "--carved", source, "-o", "name").stdout.splitlines()[0] == "app/secret"


@pytest.mark.parametrize("name", sorted(mutations()))
def test_list_carved_takes_a_file_of_any_state(snaptool: Snaptool, name: str) -> None:
    ran = snaptool("list", "--carved", snaptool.write("damaged.db", damaged(name)), "-o", "json")
    assert ran.code == 0
    assert len(ran.json["items"]) >= 54


def test_list_carved_of_a_rewritten_file_is_empty(snaptool: Snaptool, tmp_path: Path) -> None:
    target = tmp_path / "new.db"
    assert snaptool("repair", SAMPLES / "aescbc-cluster.db", target, makes=[target]).code == 0
    ran = snaptool("list", "--carved", target)
    assert (ran.code, ran.stdout) == (0, "")
    assert "no records lie in free pages" in ran.stderr


def test_list_carved_takes_no_other_choice(snaptool: Snaptool) -> None:
    assert snaptool("list", "--carved", snaptool.sample("tiny-3.4.db"), "secrets").code == 2


def test_source_that_is_cut_while_it_is_salvaged_has_changed(tmp_path: Path) -> None:
    """What is lost reads as zeros, which are no records in order."""
    source, target = tmp_path / "damaged.db", tmp_path / "new.db"
    source.write_bytes(damaged("both_meta_checksum_flip"))

    def cut(step: str, done: int, total: int) -> None:  # noqa: ARG001 - as it is called
        if step == "writing":
            os.truncate(source, 0)

    with pytest.raises(SourceChanged):
        salvage(source, target, progress=cut)
    assert list(tmp_path.iterdir()) == [source]
