"""Every fault of a bolt file, each with its page and the way that leads there.

The same walk that readers use, with a report instead of an exception: it goes on with what is left after each fault.
On a healthy file this costs what reading costs. What bbolt's own check does not look at is looked at too: inline
buckets, element positions, the order inside them. Source: bbolt tx_check.go (v1.4.3); docs/formats/bolt.md, "Checking".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from mmap import mmap

from snaptool.bolt.faults import MAX_PROBLEMS, CorruptPage, Problem
from snaptool.bolt.reader import Database, Release, read_freelist


def check(buffer: bytes | mmap | memoryview, release: Release | None = None) -> Iterator[Problem]:
    """Yield every problem of the database in `buffer`. Raises NotABoltFile or ByteOrderNotSupported without a start.

    `release` is called where the memory of a large file can go.
    """
    try:
        database = Database(buffer, release)
    except CorruptPage as error:
        yield Problem(error.page, error.problem, error.path)
        return
    for page, problem in enumerate(database.meta_problems):
        if problem is not None:
            yield Problem(page, f"this meta cannot be used: {problem}", ())
    report: list[Problem] = []
    walk = database.new_walk(report)
    for bucket in database.walk_buckets(walk).values():
        for _ in bucket.leaves(walk):
            pass
    yield from report
    yield from _check_freelist(database, walk.reached_pages(), whole=not report)


def _check_freelist(database: Database, reached: bytearray, *, whole: bool) -> Iterator[Problem]:
    """Check the freelist against the pages that trees reached. `whole`: they reached all that there is to reach."""
    ids, span, problem = read_freelist(database)
    page = database.meta.freelist
    if problem is not None:
        yield Problem(page, problem, ())
    if not span:
        return
    own = range(page, page + span)
    inside = sorted(one for one in ids if 2 <= one < database.high_water_mark)
    outside = (one for one in ids if not 2 <= one < database.high_water_mark)
    named = dict.fromkeys(inside)
    twice = dict.fromkeys(one for one, following in pairwise(inside) if one == following)
    yield from _each((one for one in own if reached[one]), "it holds the freelist and is part of a tree too")
    for wrong in islice(outside, MAX_PROBLEMS):
        yield Problem(page, f"the freelist names page {wrong}, which cannot be free", ())
    yield from _each(twice, "the freelist names it twice")
    yield from _each((one for one in named if reached[one]), "the freelist names it, and it is in use")
    if whole:  # pages below a broken one were not reached, and saying so of each would hide what is broken
        lost = (one for one, mark in enumerate(reached) if one > 1 and not mark and one not in named and one not in own)
        yield from _each(lost, "it is neither in use nor in the freelist")


def _each(pages: Iterable[int], problem: str) -> Iterator[Problem]:
    return (Problem(page, problem, ()) for page in islice(pages, MAX_PROBLEMS))
