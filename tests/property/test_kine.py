"""Any bytes as a database of Kine, or as the write-ahead log of one, are rows or have a named fault."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from snaptool.containers.sqlite import SqliteFile
from snaptool.errors import FormatError, SnaptoolError
from snaptool.operations.kine import from_kine
from tests.support.cli import GOLDEN
from tests.support.kine import Change, fill, make_kine

SMALL = (GOLDEN / "containers" / "notetcd" / "state.db").read_bytes()
EDITS = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=8)


def edited(data: bytes, edits: list[tuple[float, bytes]]) -> bytes:
    changed = bytearray(data)
    for ratio, new in edits:
        at = int(ratio * len(data))
        changed[at : at + len(new)] = new
    return bytes(changed)


def read(data: bytes, log: bytes = b"") -> int:
    """How many bytes the snapshot has that comes out; -1 where a fault was named."""
    try:
        spool, _ = from_kine(SqliteFile(data, "state.db", log), Path("/var/tmp"))  # noqa: S108 - it has no name there
    except SnaptoolError as error:
        assert isinstance(error, FormatError)  # noqa: PT017 - either outcome is right
        return -1
    size = spool.size
    spool.close()
    return size


@given(EDITS, st.floats(0, 1))
def test_any_damage_gives_rows_or_our_error(edits: list[tuple[float, bytes]], cut: float) -> None:
    assert read(SMALL) > 0
    read(edited(SMALL, edits))
    read(SMALL[: int(cut * len(SMALL))])


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_behind_the_magic(data: bytes, log: bytes) -> None:
    read(b"SQLite format 3\0" + data, log)


@given(EDITS)
def test_any_damage_of_the_log(edits: list[tuple[float, bytes]]) -> None:
    data, log = with_a_log()
    assert read(data, log) > 0
    read(data, edited(log, edits))


@cache
def with_a_log() -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        database = make_kine(Path(folder, "state.db"), page_size=512)
        fill(database, (Change(number, f"/registry/x/{number}", b"y" * number) for number in range(1, 60)))
        data, log = (Path(folder, name).read_bytes() for name in ("state.db", "state.db-wal"))
        database.close()
    return data, log
