"""Laws of the bolt package."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from snaptool.bolt import Database, check
from snaptool.errors import SnaptoolError
from tests.support.bolt import contents, make_database, tiny

records = st.dictionaries(st.binary(min_size=1, max_size=40), st.binary(max_size=3000), max_size=60)
databases = st.dictionaries(st.binary(min_size=1, max_size=12), records, min_size=1, max_size=6)


@given(databases, st.sampled_from([1024, 4096, 16384]))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(buckets: dict[bytes, dict[bytes, bytes]], page_size: int) -> None:
    data = make_database(buckets, page_size=page_size)
    assert contents(data) == buckets
    assert list(check(data)) == []
    for bucket in Database(data).buckets().values():
        keys = [key for key, _ in bucket.items()]
        assert keys == sorted(set(keys))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_damage_gives_contents_or_an_error_of_ours(data: st.DataObject) -> None:
    damaged = bytearray(tiny())
    for _ in range(data.draw(st.integers(1, 4))):
        page = data.draw(st.integers(0, 14))
        at = page * 4096 + data.draw(st.one_of(st.integers(0, 80), st.integers(0, 4095)))
        piece = data.draw(st.binary(min_size=1, max_size=8))
        damaged[at : at + len(piece)] = piece
    try:
        found = contents(bytes(damaged))
    except SnaptoolError:
        assert problems(bytes(damaged))
    else:
        assert all(list(records) == sorted(records) for records in found.values())


def problems(data: bytes) -> list[str]:
    try:
        return [problem.problem for problem in check(data)]
    except SnaptoolError as error:
        return [str(error)]


@given(st.binary(max_size=9000))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    with suppress(SnaptoolError):
        contents(data)
