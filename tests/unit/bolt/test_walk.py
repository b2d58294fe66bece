"""The walk in loops finds what the plain model finds, compiled and uncompiled, and reports faults where they are."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

import snaptool.bolt.walk
from snaptool.bolt import Chunk, CorruptPage, Database
from tests.support.bolt import TINY, branch, damaged, database_of, leaf, make_database, model_contents, rooted, tiny
from tests.support.engine import uncompiled

WAYS = [snaptool.bolt.walk, uncompiled(snaptool.bolt.walk)]


def ways() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("way", WAYS, ids=["as installed", "uncompiled"])


def records(way: ModuleType, data: bytes, name: bytes, most: int = 7, room: int = 0) -> list[tuple[bytes, bytes]]:
    database = Database(data)
    chunk = way.Chunk(most)
    if room:
        chunk.make_room(room)
    walk = way.Walk(memoryview(data), database.page_size, database.high_water_mark)
    database.buckets()[name].begin(walk)
    return list(pairs(walk, chunk, data))


def pairs(walk: snaptool.bolt.walk.Walk, chunk: Chunk, data: bytes) -> Iterator[tuple[bytes, bytes]]:
    leaves = found = 0
    while walk.fill(chunk):
        assert (chunk.first_leaf, chunk.first_record) == (leaves, found)
        assert chunk.leaf_start[0] == 0
        assert chunk.leaf_start[chunk.leaves] == chunk.records
        for row in range(chunk.records):
            key, value = chunk.key_at[row], chunk.value_at[row]
            yield data[key : key + chunk.key_size[row]], data[value : value + chunk.value_size[row]]
        leaves, found = leaves + chunk.leaves, found + chunk.records


@ways()
@pytest.mark.parametrize("name", TINY)
def test_records_are_those_of_the_plain_model(way: ModuleType, name: str) -> None:
    for bucket, expected in model_contents(tiny(name)).items():
        assert records(way, tiny(name), bucket) == expected
        assert records(way, tiny(name), bucket, most=1, room=1) == expected


@ways()
def test_leaf_with_more_records_than_there_is_room_for_makes_room(way: ModuleType) -> None:
    many = {b"%05d" % number: b"" for number in range(3000)}
    data = make_database({b"key": many}, page_size=65536)
    assert records(way, data, b"key", most=512, room=100) == list(many.items())


@ways()
@pytest.mark.parametrize(
    ("name", "page", "problem"),
    [
        ("leaf_page_id_mismatch", 12, "says that it is page 13"),
        ("branch_self_cycle", 13, "reached twice"),
        ("leaf_key_order_swapped", 12, "not in ascending order"),
        ("leaf_element_pos_past_page", 12, "outside its page"),
        ("branch_child_out_of_range", 1_000_000, "beyond the high-water mark of 15 pages"),
    ],
)
def test_damage_stops_the_walk_and_names_page_and_way(way: ModuleType, name: str, page: int, problem: str) -> None:
    data = damaged(name)[:-32]
    walk = way.Walk(memoryview(data), 4096, 15)
    walk.begin(13)
    with pytest.raises(CorruptPage, match=problem) as caught:
        list(pairs(walk, way.Chunk(), data))
    assert caught.value.page == page
    assert caught.value.path[-1] == page


@ways()
def test_with_a_report_the_walk_goes_on_with_what_is_left(way: ModuleType) -> None:
    good = [leaf(4, [(b"a", b"1")]), leaf(5, [(b"f", b"2"), (b"e", b"3")]), leaf(6, [(b"m", b"4")])]
    data = bytearray(
        database_of(
            leaf(2, [(b"key", rooted(3))], flags=1), branch(3, [(b"a", 4), (b"e", 5), (b"m", 6), (b"x", 99)]), *good
        )
    )
    data[4 * 1024] = 9
    report: list[snaptool.bolt.Problem] = []
    walk = way.Walk(memoryview(bytes(data)), 1024, 7, report)
    walk.begin(3)
    assert list(pairs(walk, way.Chunk(), bytes(data))) == [(b"f", b"2"), (b"e", b"3"), (b"m", b"4")]
    assert [(one.page, one.problem, one.path) for one in report] == [
        (4, "its header says that it is page 9", (3, 4)),
        (5, "its keys are not in ascending order", (3, 5)),
        (99, "a tree leads here, and this is beyond the high-water mark of 7 pages", (3, 99)),
    ]
    assert list(walk.reached_pages()) == [0, 0, 0, 1, 0, 1, 1]


@ways()
def test_skimming_gives_leaves_and_their_first_keys(way: ModuleType) -> None:
    data = make_database({b"key": {b"%05d" % number: b"v" * 90 for number in range(400)}})
    database = Database(data)
    bucket = database.buckets()[b"key"]
    whole, skimmed = [], []
    for chunk in bucket.leaves():
        for number in range(chunk.leaves):
            row = chunk.leaf_start[number]
            whole.append((chunk.leaf_page[number], chunk.leaf_span[number], chunk.key_at[row], chunk.key_size[row]))
    walk, chunk = way.Walk(memoryview(data), database.page_size, database.high_water_mark), way.Chunk(3)
    walk.begin(bucket.root)
    while walk.skim(chunk):
        columns = (chunk.leaf_page, chunk.leaf_span, chunk.key_at, chunk.key_size)
        skimmed += list(zip(*(column[: chunk.leaves] for column in columns), strict=True))
    assert skimmed == whole
    assert walk.found_by_first_keys()


@ways()
def test_known_leaves_are_skimmed_by_what_their_branches_say(way: ModuleType) -> None:
    """Nobody looks at them: their pages may hold anything."""
    data = bytearray(make_database({b"key": {b"%05d" % number: b"v" * 900 for number in range(900)}}, page_size=1024))
    database = Database(bytes(data))
    bucket, size = database.buckets()[b"key"], database.page_size
    leaves = [(chunk.leaf_page[n], chunk.key(database.view, n)) for chunk in bucket.leaves() for n in range(len(chunk))]
    first, end = leaves[0][0], leaves[-1][0] + 1
    data[first * size : end * size] = b"\xff" * ((end - first) * size)
    walk, chunk = way.Walk(memoryview(data), size, database.high_water_mark), way.Chunk(3)
    walk.begin(bucket.root)
    walk.set_known(first, end)
    skimmed = []
    while walk.skim(chunk):
        skimmed += [(chunk.leaf_page[n], chunk.key(memoryview(data), n)) for n in range(chunk.leaves)]
    assert skimmed == leaves
    assert list(walk.reached_pages()).count(1) == bucket.root - first + 1


@ways()
def test_walk_stops_before_pages_that_are_not_written_yet(way: ModuleType) -> None:
    data = make_database({b"key": {b"%05d" % number: b"v" * 90 for number in range(400)}})
    database = Database(data)
    bucket = database.buckets()[b"key"]
    pages = [chunk.leaf_page[number] for chunk in bucket.leaves() for number in range(chunk.leaves)]
    walk, chunk = way.Walk(memoryview(data), database.page_size, database.high_water_mark), way.Chunk()
    walk.begin(bucket.root)
    walk.set_ready(pages[2], pages[-1] + 1)
    assert walk.fill(chunk)
    assert chunk.leaf_page[: chunk.leaves].tolist() == pages[:2]
    assert not walk.fill(chunk)
    assert not walk.at_end()
    walk.set_ready(pages[-1] + 1, pages[-1] + 1)
    assert walk.fill(chunk)
    assert chunk.leaf_page[: chunk.leaves].tolist() == pages[2:]
    assert not walk.fill(chunk)
    assert walk.at_end()


@ways()
def test_way_to_a_key_leads_to_the_leaf_that_has_it(way: ModuleType) -> None:
    data = make_database({b"key": {b"%05d" % number: b"v" * 90 for number in range(0, 4000, 2)}})
    database = Database(data)
    bucket = database.buckets()[b"key"]
    for number in (0, 1, 2, 777, 1998, 3998, 3999, 9999):
        walk, chunk = way.Walk(memoryview(data), database.page_size, database.high_water_mark), way.Chunk(1)
        bucket.begin(walk)
        walk.to_key(b"%05d" % number)
        assert walk.fill(chunk)
        first, last = chunk.key(memoryview(data), 0), chunk.key(memoryview(data), chunk.records - 1)
        assert first <= b"%05d" % min(number, 3998)
        assert b"%05d" % min(number // 2 * 2, 3998) <= last
