"""Carving: what old pages hold is found, what values hold is not taken for pages, and hostile files cost little."""

from __future__ import annotations

import struct
import time

import pytest

from snaptool.bolt import Database
from snaptool.bolt.carve import NothingToCarve, Wreck
from tests.support.bolt import TINY, database_of, leaf, make_database, page, rooted, tiny

SIZES = (1024, 4096, 8192, 16384, 65536)


def without_metas(database: bytes, page_size: int) -> bytes:
    return bytes(2 * page_size) + database[2 * page_size :]


def carved_keys(wreck: Wreck, *, walked: bool) -> list[bytes]:
    reached = wreck.walk(next(wreck.roots())) if walked else None
    return [chunk.key(wreck.view, row) for chunk in wreck.carve(reached) for row in range(len(chunk))]


@pytest.mark.parametrize("page_size", SIZES)
def test_page_size_is_found_without_a_meta(page_size: int) -> None:
    records = {b"%05d" % number: b"v" * 700 for number in range(300)}
    database = without_metas(make_database({b"key": records}, page_size=page_size), page_size)
    wreck = Wreck(database)
    assert wreck.page_size == page_size
    assert {*records} <= {*carved_keys(wreck, walked=False)}
    (root,) = list(wreck.roots())
    assert not root.proven
    assert dict(wreck.walk(root).buckets[b"key"].items()) == records


@pytest.mark.parametrize("name", TINY)
def test_case_08_root_is_found_when_both_metas_are_gone(name: str) -> None:
    whole = Database(tiny(name))
    expected = {bucket: list(found.items()) for bucket, found in whole.buckets().items()}
    wreck = Wreck(without_metas(tiny(name), 4096))
    candidates = [wreck.walk(root) for root in wreck.roots()]
    assert expected in [
        {bucket: list(found.items()) for bucket, found in one.buckets.items()} for one in candidates if not one.problems
    ]


def test_nothing_of_a_healthy_file_without_free_pages_is_carved() -> None:
    records = {b"%05d" % number: b"v" * 100 for number in range(3000)}
    wreck = Wreck(make_database({b"key": records}))
    assert carved_keys(wreck, walked=True) == []


def test_leaf_inside_the_value_of_a_reachable_record_is_not_carved() -> None:
    forged = leaf(4, [(b"forged", b"value")])
    value = b"x" * (1024 - 16 - 16 - 1) + forged
    tree = leaf(3, [(b"k", value)])
    assert tree[1024 : 1024 + len(forged)] == forged
    database = database_of(leaf(2, [(b"key", rooted(3))], flags=1), tree)
    assert carved_keys(Wreck(database), walked=True) == []


def test_old_record_that_runs_into_a_page_of_another_is_not_carved() -> None:
    old = leaf(4, [(b"small", b"v"), (b"large", b"x" * 1500)])[:1024]
    newer = leaf(5, [(b"new", b"v")])
    database = database_of(leaf(2, [(b"key", rooted(3))], flags=1), leaf(3, [(b"a", b"b")]), old, newer)
    assert carved_keys(Wreck(database), walked=True) == [b"small", b"new"]


def test_elements_out_of_bounds_are_passed_over_one_by_one() -> None:
    elements = [
        struct.pack("<IIII", 0, 48, 1, 1),
        struct.pack("<IIII", 0, 5000, 1, 1),
        struct.pack("<IIII", 0, 18, 1, 1),
    ]
    broken = page(4, 2, elements, b"k1k2")
    database = database_of(leaf(2, [(b"key", rooted(3))], flags=1), leaf(3, [(b"a", b"b")]), broken)
    assert carved_keys(Wreck(database), walked=True) == [b"k", b"k"]


def test_record_that_runs_into_the_next_is_not_carved() -> None:
    elements = [struct.pack("<IIII", 0, 32, 1, 2), struct.pack("<IIII", 0, 18, 1, 1)]
    broken = page(4, 2, elements, b"a1b2")
    database = database_of(leaf(2, [(b"key", rooted(3))], flags=1), leaf(3, [(b"a", b"b")]), broken)
    assert carved_keys(Wreck(database), walked=True) == [b"b"]


def test_record_that_runs_over_a_broken_element_into_a_good_one_is_not_carved() -> None:
    elements = [
        struct.pack("<IIII", 0, 48, 1, 3),
        struct.pack("<IIII", 0, 33, 0, 1),
        struct.pack("<IIII", 0, 19, 1, 1),
    ]
    broken = page(4, 2, elements, b"a12c3")
    database = database_of(leaf(2, [(b"key", rooted(3))], flags=1), leaf(3, [(b"a", b"b")]), broken)
    assert carved_keys(Wreck(database), walked=True) == [b"c"]


def test_inline_buckets_of_old_roots_are_found_last_page_first() -> None:
    def inline(records: list[tuple[bytes, bytes]]) -> bytes:
        image = leaf(0, records)
        size = 16 + 16 * len(records) + sum(len(key) + len(value) for key, value in records)
        return struct.pack("<QQ", 0, 0) + image[:size]

    old = leaf(4, [(b"meta", inline([(b"index", b"1")]))], flags=1)
    newer = leaf(5, [(b"meta", inline([(b"index", b"2")]))], flags=1)
    database = database_of(leaf(2, [(b"key", rooted(3))], flags=1), leaf(3, [(b"a", b"b")]), old, newer)
    wreck = Wreck(database)
    found = list(wreck.inline(wreck.walk(next(wreck.roots()))))
    assert [(one.name, one.page, wreck.records_of(one).key(wreck.view, 0)) for one in found] == [
        (b"meta", 5, b"index"),
        (b"meta", 4, b"index"),
    ]


def test_broken_inline_bucket_has_no_records_whatever_page_0_says() -> None:
    database = bytearray(database_of(leaf(2, [(b"meta", bytes(20))], flags=1), leaf(3, [(b"a", b"b")])))
    database[10:12] = b"\xff\xff"
    wreck = Wreck(bytes(database))
    reached = wreck.walk(next(wreck.roots()))
    assert [problem.problem for problem in reached.problems] == ["the inline bucket b'meta' is cut off"]
    assert dict(reached.buckets[b"meta"].items()) == {}


def test_hole_is_the_range_of_the_broken_leaf() -> None:
    records = {b"%05d" % number: b"v" * 500 for number in range(40)}
    database = bytearray(make_database({b"key": records}))
    first = Database(bytes(database)).buckets()[b"key"]
    leaves = [page for chunk in first.leaves() for page in chunk.leaf_page[: chunk.leaves]]
    view = memoryview(database)
    starts = [chunk.key(view, row) for chunk in first.leaves() for row in chunk.leaf_start[: chunk.leaves]]
    view.release()
    database[leaves[1] * 4096 : (leaves[1] + 1) * 4096] = bytes(4096)
    wreck = Wreck(bytes(database))
    reached = wreck.walk(next(wreck.roots()))
    assert reached.holes == {b"key": ((starts[1], starts[2]),)}
    assert len(dict(reached.buckets[b"key"].items())) == 40 - (int(starts[2]) - int(starts[1]))


@pytest.mark.parametrize("content", [b"", b"x", bytes(100), bytes(1 << 16), b"not a database " * 5000])
def test_what_is_no_bolt_file_is_refused(content: bytes) -> None:
    with pytest.raises(NothingToCarve):
        Wreck(content)


def test_overlapping_tables_cost_little() -> None:
    pages = [struct.pack("<QHHI", number, 2, 0xFFFF, 5000).ljust(1024, b"\1") for number in range(4, 6000)]
    database = database_of(leaf(2, [(b"key", rooted(3))], flags=1), leaf(3, [(b"a", b"b")]), *pages)
    started = time.process_time()
    carved_keys(Wreck(database), walked=True)
    assert time.process_time() - started < 2
