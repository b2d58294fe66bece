"""How often a run goes over all records: that is what it takes, more than anything else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptool.bolt import Database
from snaptool.etcd import Records, Snapshot
from snaptool.etcd.comparing import looked_into
from snaptool.operations import direct, pieces
from tests.support.cli import SAMPLES, Snaptool


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passes over all records that go to the end, one word for each."""
    made: list[str] = []
    original = Snapshot.chunks

    def chunks(snapshot: Snapshot, *args: object, **kwargs: object) -> Iterator[Records]:
        yield from original(snapshot, *args, **kwargs)  # type: ignore[arg-type]
        made.append("chunks")

    monkeypatch.setattr(Snapshot, "chunks", chunks)
    monkeypatch.setattr(direct, "FOLLOWED_FROM", 0)
    return made


def test_a_copy_and_a_rewrite_take_one_pass_over_all_records(
    tmp_path: Path, passes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written after the first pass is found by its pages; leaves that stay whole are not read again."""
    named: list[int] = []

    def looking(*columns: memoryview) -> tuple[memoryview, memoryview]:
        found = looked_into(*columns)
        named.extend(found[0])
        return found

    monkeypatch.setattr(pieces, "looked_into", looking)
    snaptool = Snaptool(tmp_path)
    source, config = SAMPLES / "aescbc-cluster.db", SAMPLES / "aescbc.yaml"
    assert snaptool("repair", source, tmp_path / "copy.db", makes=[tmp_path / "copy.db"]).code == 0
    assert len(passes) == 1
    del passes[:]
    target = tmp_path / "new.db"
    assert snaptool("rewrite", source, target, "--config", config, "--decrypt", makes=[target]).code == 0
    assert len(passes) == 1
    leaves = sum(chunk.leaves for chunk in Database(target.read_bytes()).buckets()[b"key"].leaves())
    assert 0 < len(named) < leaves
