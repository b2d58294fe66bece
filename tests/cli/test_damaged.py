"""The damaged variants of the vectors through every command: a named error with a place, exit 4, within a second."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from snaptool.operations.opening import open_snapshot
from tests.support.bolt import damaged, mutations
from tests.support.cli import SAMPLES, Snaptool

READABLE = {
    "meta0_checksum_flip",
    "meta1_checksum_flip",
    "meta0_magic_broken",
    "trailer_missing",
    "trailer_flip",
    "extra_bytes_after_hwm",
}
BROKEN = sorted(set(mutations()) - READABLE)
METAS = {"both_meta_checksum_flip", "both_meta_checksum_zero", "truncated_to_8_pages"}
"""What is wrong with the file as a whole, so that no single page is named."""


def commands(source: Path, target: Path) -> dict[str, list[str | Path]]:
    return {
        "inspect": ["inspect", source],
        "rewrite": ["rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt"],
        "repair": ["repair", source, target],
    }


def records(path: Path) -> dict[bytes, list[tuple[bytes, bytes]]]:
    with open_snapshot(path) as opened:
        return {name: list(bucket.items()) for name, bucket in opened.snapshot.database.buckets().items()}


def test_there_are_eighteen_variants() -> None:
    assert len(mutations()) == 18
    assert set(mutations()) >= READABLE
    assert len(BROKEN) == 12


@pytest.mark.parametrize("command", ["inspect", "rewrite", "repair"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_refused_with_its_place(snaptool: Snaptool, tmp_path: Path, name: str, command: str) -> None:
    source = snaptool.write("damaged.db", damaged(name))
    started = time.process_time()
    ran = snaptool(*commands(source, tmp_path / "new.db")[command])
    assert time.process_time() - started < 1
    assert ran.code == 4
    assert ran.stdout == ""
    first, *hint = ran.stderr.splitlines()
    assert first.startswith("snaptool: error: ")
    assert "page " in first or name in METAS
    assert len(hint) == 1


@pytest.mark.parametrize("name", BROKEN)
def test_verify_of_a_broken_file_lists_findings_with_places(snaptool: Snaptool, name: str) -> None:
    source = snaptool.write("damaged.db", damaged(name))
    ran = snaptool("verify", source, "-o", "json")
    assert ran.code == 4
    if name in METAS and "error" in ran.json:
        assert ran.stderr.startswith("snaptool: error: ")
        return
    assert ran.json["damaged"] is True
    bad = [finding for finding in ran.json["findings"] if finding["code"] == "bad_page"]
    assert bad
    assert all(finding["place"] and finding["problem"] and finding["remedy"] for finding in bad)


@pytest.mark.parametrize("name", sorted(READABLE))
def test_readable_variant_is_repaired_to_the_same_records(snaptool: Snaptool, tmp_path: Path, name: str) -> None:
    golden = snaptool.sample("tiny-3.4.db")
    source, target = snaptool.write("damaged.db", damaged(name)), tmp_path / "new.db"
    assert snaptool("repair", source, target, makes=[target]).code == 0
    assert records(target) == records(golden)
    verified = snaptool("verify", target, "-o", "json")
    assert [finding for finding in verified.json["findings"] if finding["code"] != "plaintext"] == []


@pytest.mark.parametrize("name", sorted(READABLE - {"trailer_flip"}))
def test_readable_variant_is_rewritten_and_inspected_as_if_whole(snaptool: Snaptool, tmp_path: Path, name: str) -> None:
    source, target = snaptool.write("damaged.db", damaged(name)), tmp_path / "new.db"
    ran = snaptool(
        "rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt", "-o", "json", makes=[target]
    )
    assert ran.code == 0
    whole = snaptool("inspect", snaptool.sample("tiny-3.4.db"), "-o", "json").json
    inspected = snaptool("inspect", source, "-o", "json")
    assert inspected.code == 0
    assert inspected.json["etcd"] == whole["etcd"]
    assert inspected.json["census"] == whole["census"]
    assert ran.json["target"]["hash"] == whole["etcd"]["hash"]


@pytest.mark.parametrize("name", ["meta0_checksum_flip", "meta1_checksum_flip", "meta0_magic_broken"])
def test_meta_that_is_not_used_is_a_finding_of_verify(snaptool: Snaptool, name: str) -> None:
    ran = snaptool("verify", snaptool.write("damaged.db", damaged(name)), "-o", "json")
    assert ran.code == 3
    (finding,) = [finding for finding in ran.json["findings"] if finding["code"] == "bad_meta"]
    assert finding["place"] == ("page 1" if name == "meta1_checksum_flip" else "page 0")


def test_wrong_trailer_is_told_by_each_command_in_its_way(snaptool: Snaptool, tmp_path: Path) -> None:
    source, target = snaptool.write("damaged.db", damaged("trailer_flip")), tmp_path / "new.db"
    inspected = snaptool("inspect", source, "-o", "json")
    assert (inspected.code, inspected.json["file"]["trailer"]) == (3, "wrong")
    assert [finding["code"] for finding in inspected.json["findings"]] == ["wrong_trailer"]
    assert "SHA-256 WRONG" in snaptool("inspect", source).stdout
    verified = snaptool("verify", source, "-o", "json")
    assert verified.code == 4
    assert "wrong_trailer" in [finding["code"] for finding in verified.json["findings"]]
    refused = snaptool("rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt")
    assert refused.code == 4
    assert snaptool("repair", source, target, makes=[target]).code == 0


def test_missing_trailer_is_normal(snaptool: Snaptool) -> None:
    ran = snaptool("inspect", snaptool.write("db", damaged("trailer_missing")), "-o", "json")
    assert (ran.code, ran.json["file"]["trailer"], ran.json["findings"]) == (0, "missing", [])


@pytest.mark.parametrize("cut", [0, 1, 31, 32, 80, 4095, 4096, 8191, 8192, 12288, 61439])
def test_truncated_snapshots_are_refused(snaptool: Snaptool, tmp_path: Path, cut: int) -> None:
    source = snaptool.write("cut.db", (SAMPLES / "aescbc-cluster.db").read_bytes()[:cut])
    if cut > 53248:
        source = snaptool.write("cut.db", (SAMPLES / "mixed-providers.db").read_bytes()[:cut])
    for words in commands(source, tmp_path / "new.db").values():
        ran = snaptool(*words)
        assert ran.code == 4
        assert ran.stderr.startswith("snaptool: error: ")
