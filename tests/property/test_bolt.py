"""Laws of the bolt package."""

from __future__ import annotations

import io
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaptool.bolt import Database, DatabaseWriter, PageMap, check
from snaptool.bolt.layout import META_SIZE, BadMeta, Meta, PageId, TxId, decode_meta, encode_meta
from snaptool.errors import SnaptoolError
from tests.support.bolt import contents, make_database, model_contents, tiny

records = st.dictionaries(st.binary(min_size=1, max_size=40), st.binary(max_size=3000), max_size=60)
databases = st.dictionaries(st.binary(min_size=1, max_size=12), records, min_size=1, max_size=6)


@given(databases, st.sampled_from([1024, 4096, 16384]))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(buckets: dict[bytes, dict[bytes, bytes]], page_size: int) -> None:
    data = make_database(buckets, page_size=page_size)
    assert contents(data) == buckets
    assert {name: dict(pairs) for name, pairs in model_contents(data, page_size).items()} == buckets
    assert data == make_database(buckets, page_size=page_size)
    assert list(check(data)) == []
    assert Database(data).free_pages().tolist() == []
    for bucket in Database(data).buckets().values():
        keys = [key for key, _ in bucket.items()]
        assert keys == sorted(set(keys))


TREE = make_database(
    {b"key": {b"%05d" % number: bytes(number % 900) for number in range(300)}, b"meta": {b"a": b"b"}}, page_size=1024
)


@given(st.sampled_from([(tiny(), 4096), (TREE, 1024)]), st.data())
@settings(max_examples=300, deadline=None)
def test_any_damage_gives_contents_or_an_error_of_ours(file: tuple[bytes, int], data: st.DataObject) -> None:
    healthy, page_size = file
    damaged = bytearray(healthy)
    numbers = st.sampled_from([0, 1, 2, 3, 16, 0xFFFF, 0xFFFFFFFF, 2**63]).map(
        lambda number: number.to_bytes(8, "little")
    )
    for _ in range(data.draw(st.integers(1, 4))):
        page = data.draw(st.integers(0, len(healthy) // page_size - 1))
        at = page * page_size + data.draw(st.one_of(st.integers(0, 80), st.integers(0, page_size - 1)))
        piece = data.draw(st.one_of(st.binary(min_size=1, max_size=8), numbers))[: len(healthy) - at]
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


metas = st.builds(
    Meta,
    page_size=st.sampled_from([1024 << step for step in range(15)]),
    root=st.integers(0, 2**64 - 1).map(PageId),
    sequence=st.integers(0, 2**64 - 1),
    freelist=st.integers(0, 2**64 - 1),
    high_water_mark=st.integers(0, 2**64 - 1),
    txid=st.integers(0, 2**64 - 1).map(TxId),
)


@given(metas, st.sampled_from([0, 1]), st.data())
@settings(deadline=None)
def test_metas_survive_encoding_and_no_part_or_changed_bit_passes(meta: Meta, number: int, data: st.DataObject) -> None:
    page = encode_meta(meta, number)
    assert len(page) == meta.page_size
    assert decode_meta(page) == meta
    with pytest.raises(BadMeta):
        decode_meta(page[: data.draw(st.integers(0, META_SIZE - 1))])
    broken = bytearray(page[:META_SIZE])
    broken[data.draw(st.integers(16, META_SIZE - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BadMeta):
        decode_meta(bytes(broken))


pieces = st.lists(st.binary(max_size=9), max_size=4).map(b"".join)
strings = st.one_of(pieces, st.binary(max_size=40), st.integers(0, 30).map(bytes))


@given(st.lists(strings, min_size=2, max_size=40), st.sampled_from(["start", "end"]))
def test_comparing_in_the_file_is_comparing_bytes(values: list[bytes], place: str) -> None:
    whole = b"".join(values)
    size = -(-max(len(whole), 1) // 1024)
    at_the_end = place == "end"
    whole = whole.rjust(size * 1024, b"\xff") if at_the_end else whole.ljust(size * 1024, b"\xff")
    lengths = np.array([len(value) for value in values])
    start = np.cumsum(lengths) - lengths + (len(whole) - int(lengths.sum()) if at_the_end else 0)
    result = PageMap(memoryview(whole), 1024, size).compare(start[:-1], lengths[:-1], start[1:], lengths[1:])
    assert result.tolist() == [(a > b) - (a < b) for a, b in pairwise(values)]


@given(records, st.integers(1, 50), st.lists(st.booleans(), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_carrying_leaves_over_changes_no_record(pairs: dict[bytes, bytes], chunk_size: int, whole: list[bool]) -> None:
    data = make_database({b"key": pairs}, page_size=1024)
    bucket, sink = Database(data).buckets()[b"key"], io.BytesIO()
    writer = DatabaseWriter(sink, page_size=1024)
    with writer.bucket(b"key") as out:
        for chunk in bucket.chunks(chunk_size):
            portable = chunk.portable()
            for leaf in range(len(portable)):
                if portable[leaf] and whole[(chunk.first_leaf + leaf) % len(whole)]:
                    out.put_leaves(chunk.pages, chunk.leaf_page[leaf : leaf + 1], chunk.leaf_size[leaf : leaf + 1])
                    continue
                for row in range(chunk.leaf_start[leaf], chunk.leaf_start[leaf + 1]):
                    out.put(chunk.key(row), pairs[chunk.key(row)])
    writer.finish()
    assert dict(model_contents(sink.getvalue(), 1024)[b"key"]) == pairs
    assert list(check(sink.getvalue())) == []
    if all(whole):
        # Leaves are filled from the left, so carrying all of them over and writing them anew is the same.
        assert sink.getvalue() == data
