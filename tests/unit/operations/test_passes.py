"""How often a run goes over all records: that is what it takes, more than anything else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptool.etcd import Records, Snapshot
from snaptool.operations import direct
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


def test_a_copy_takes_one_pass_over_the_records_and_a_rewrite_two(tmp_path: Path, passes: list[str]) -> None:
    snaptool = Snaptool(tmp_path)
    source, config = SAMPLES / "aescbc-cluster.db", SAMPLES / "aescbc.yaml"
    assert snaptool("repair", source, tmp_path / "copy.db", makes=[tmp_path / "copy.db"]).code == 0
    assert len(passes) == 1
    del passes[:]
    target = tmp_path / "new.db"
    assert snaptool("rewrite", source, target, "--config", config, "--decrypt", makes=[target]).code == 0
    assert len(passes) == 2
