"""Laws of the bolt package."""

from __future__ import annotations

import io
import random
import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaptool.bolt import Chunk, CorruptPage, Database, DatabaseWriter, check
from snaptool.bolt.layout import META_SIZE, BadMeta, Meta, PageId, TxId, decode_meta, encode_meta
from snaptool.errors import SnaptoolError
from snaptool.etcd.comparing import mark_tidy
from tests.support.bolt import contents, database_of, leaf, make_database, model_contents, page, rooted, tiny
from tests.support.pieces import piece_of, put

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
    assert Database(data).free_pages() == []
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


@given(records, st.integers(1, 50), st.lists(st.booleans(), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_carrying_leaves_over_changes_no_record(pairs: dict[bytes, bytes], chunk_size: int, whole: list[bool]) -> None:
    data = make_database({b"key": pairs}, page_size=1024)
    bucket, sink = Database(data).buckets()[b"key"], io.BytesIO()
    writer = DatabaseWriter(sink, page_size=1024)
    with writer.bucket(b"key") as out:
        for chunk in bucket.leaves(None, Chunk(chunk_size)):
            tidy = memoryview(bytearray(chunk.leaves))
            mark_tidy(memoryview(data), chunk, 1024, tidy)
            for leaf in range(chunk.leaves):
                tidy[leaf] &= whole[(chunk.first_leaf + leaf) % len(whole)]
            put(out, data, piece_of(chunk, whole=tidy), 1024)
    writer.finish()
    assert dict(model_contents(sink.getvalue(), 1024)[b"key"]) == pairs
    assert list(check(sink.getvalue())) == []
    if all(whole):
        # Leaves are filled from the left, so carrying all of them over and writing them again is the same.
        assert sink.getvalue() == data


@given(
    records,
    st.lists(st.integers(1, 25), min_size=1, max_size=5),
    st.lists(st.sampled_from(["one by one", "together", "leaf"]), min_size=1, max_size=6),
    st.sampled_from([1024, 4096]),
)
@settings(max_examples=100, deadline=None)
def test_records_put_together_make_the_file_that_they_make_one_by_one(
    pairs: dict[bytes, bytes], parts: list[int], ways: list[str], page_size: int
) -> None:
    """Leaves that are carried between them end the leaves before, so both files carry the same ones."""
    ordered = sorted(pairs.items())
    last = make_database({b"key": {b"\xff" * 41: bytes(700)}}, page_size=page_size)
    leaf = next(Database(last).buckets()[b"key"].leaves())
    joined = b"".join(key + value for key, value in ordered)
    chunk, at = side_by_side(ordered), 0
    files = []
    for together in (True, False):
        sink = io.BytesIO()
        writer = DatabaseWriter(sink, page_size=page_size)
        with writer.bucket(b"key") as out:
            at, turn = 0, 0
            while at < len(ordered):
                until = min(at + parts[turn % len(parts)], len(ordered))
                if together and ways[turn % len(ways)] == "together":
                    chunk.leaf_start[0], chunk.leaf_start[1] = at, until
                    put(out, joined, piece_of(chunk, 0, 1, whole=[0], action=bytes(until)), page_size)
                else:
                    for key, value in ordered[at:until]:
                        out.put(key, value)
                at, turn = until, turn + 1
            if "leaf" in ways and leaf.leaf_page[0]:
                put(out, last, piece_of(leaf, 0, 1), page_size)
        writer.finish()
        files.append(sink.getvalue())
    assert files[0] == files[1]
    found = dict(model_contents(files[0], page_size)[b"key"])
    found.pop(b"\xff" * 41, None)
    assert found == pairs
    assert list(check(files[0])) == []


def side_by_side(ordered: list[tuple[bytes, bytes]]) -> Chunk:
    """Records that stand back to back, as a chunk."""
    chunk, at = Chunk(), 0
    chunk.make_room(len(ordered))
    for row, (key, value) in enumerate(ordered):
        chunk.key_at[row], chunk.key_size[row] = at, len(key)
        chunk.value_at[row], chunk.value_size[row] = at + len(key), len(value)
        at += len(key) + len(value)
    return chunk


def leaves_of(file: bytes, most: int) -> list[list[tuple[bytes, bytes]]]:
    """The records of bucket `key`, leaf by leaf, read in chunks of about `most` records."""
    database = Database(file)
    return [
        [
            (chunk.key(database.view, row), chunk.value(database.view, row))
            for row in range(chunk.leaf_start[leaf], chunk.leaf_start[leaf + 1])
        ]
        for chunk in database.buckets()[b"key"].leaves(None, Chunk(most))
        for leaf in range(chunk.leaves)
    ]


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 2500)), min_size=1, max_size=80), st.randoms())
@settings(max_examples=80, deadline=None)
def test_leaves_are_the_same_however_many_are_read_at_once(sizes: list[tuple[int, int]], rng: random.Random) -> None:
    """Long keys: trees of up to four levels."""
    pairs = {b"%03d" % n + b"k" * key: rng.randbytes(value) for n, (key, value) in enumerate(sizes)}
    file = make_database({b"key": pairs}, page_size=1024)
    found = leaves_of(file, 3)
    assert [record for leaf in found for record in leaf] == sorted(pairs.items())
    assert found == leaves_of(file, 1) == leaves_of(file, 1000)


@given(st.integers(2, 12), st.integers(-40, 60), st.booleans(), st.randoms())
@settings(max_examples=200, deadline=None)
def test_elements_may_share_bytes_until_they_are_one_byte_more_than_their_page_has(
    count: int,
    excess: int,
    is_branch: bool,  # noqa: FBT001 - hypothesis gives it
    rng: random.Random,
) -> None:
    """Each lies inside of the page, with the keys in order; all together have so many bytes too many."""
    room = 1024 - 16 - 16 * count
    data, rest, sizes = bytes(range(256)) * 4, room + excess - count, []
    for index in range(count):
        later = sum(room - 1 - other for other in range(index + 1, count))
        sizes.append(rng.randint(max(0, rest - later), min(room - 1 - index, rest)))
        rest -= sizes[-1]
    places = [16 * (count - index) + index for index in range(count)]
    if is_branch:
        keys = [data[index : index + 1 + size] for index, size in enumerate(sizes)]
        elements = [
            struct.pack("<IIQ", at, len(key), 4 + index)
            for index, (at, key) in enumerate(zip(places, keys, strict=True))
        ]
        pages = [page(3, 1, elements, data[:room]), *(leaf(4 + index, [(key, b"")]) for index, key in enumerate(keys))]
        expected = dict.fromkeys(keys, b"")
    else:
        elements = [struct.pack("<IIII", 0, at, 1, size) for at, size in zip(places, sizes, strict=True)]
        pages = [page(3, 2, elements, data[:room])]
        expected = {data[index : index + 1]: data[index + 1 : index + 1 + size] for index, size in enumerate(sizes)}
    database = database_of(leaf(2, [(b"key", rooted(3))], flags=1), *pages)
    if excess > 0:
        with pytest.raises(CorruptPage, match="page 3: its elements overlap"):
            contents(database)
    else:
        assert contents(database) == {b"key": expected}
