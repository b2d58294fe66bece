"""The fixture by which every test of the command line runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import GOLDEN, SAMPLES, Snaptool, states


@pytest.fixture
def snaptool(tmp_path: Path) -> Iterator[Snaptool]:
    """Runs commands in the test's folder and holds each run to the promises; samples stay as they are too."""
    before = states(SAMPLES), states(GOLDEN)
    runner = Snaptool(tmp_path)
    yield runner
    assert (states(SAMPLES), states(GOLDEN)) == before
    assert [path.name for path in tmp_path.rglob("*.part")] == []
