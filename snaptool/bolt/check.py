"""Every fault of a bolt file, each with its page and the way that leads there.

The same walk that readers use, with a report instead of an exception: it goes on with what is left after each fault.
On a healthy file this costs what reading costs. What bbolt's own check does not look at is looked at too: inline
buckets, element positions, the order inside them. Source: bbolt tx_check.go (v1.4.3); docs/formats/bolt.md, "Checking".
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap

import numpy as np

from snaptool.bolt.faults import MAX_PROBLEMS, CorruptPage, Problem
from snaptool.bolt.reader import Database, read_freelist
from snaptool.bolt.scan import Release, Walk


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
    walk = Walk(database.pages, report)
    for bucket in database.walk_buckets(walk).values():
        for _ in bucket.chunks():
            database.pages.let_go()
    yield from report
    yield from _check_freelist(database, walk, whole=not report)


def _check_freelist(database: Database, walk: Walk, *, whole: bool) -> Iterator[Problem]:
    """Check the freelist against the pages that `walk` reached. `whole`: it reached all that there is to reach."""
    ids, span, problem = read_freelist(database)
    page = database.meta.freelist
    if problem is not None:
        yield Problem(page, problem, ())
    if not span:
        return
    own = np.arange(page, page + span)
    for reached in own[walk.reached[own]][:MAX_PROBLEMS].tolist():
        yield Problem(reached, "it holds the freelist and is part of a tree too", ())
    inside = ids[(ids >= 2) & (ids < database.high_water_mark)].astype(np.int64)
    for wrong in ids[(ids < 2) | (ids >= database.high_water_mark)][:MAX_PROBLEMS].tolist():
        yield Problem(page, f"the freelist names page {wrong}, which cannot be free", ())
    unique, times = np.unique(inside, return_counts=True)
    for twice in unique[times > 1][:MAX_PROBLEMS].tolist():
        yield Problem(twice, "the freelist names it twice", ())
    for used in unique[walk.reached[unique]][:MAX_PROBLEMS].tolist():
        yield Problem(used, "the freelist names it, and it is in use", ())
    if not whole:
        return  # pages below a broken one were not reached, and saying so of each would hide what is broken
    known = walk.reached.copy()
    known[:2] = known[own] = known[unique] = True
    for lost in np.nonzero(~known)[0][:MAX_PROBLEMS].tolist():
        yield Problem(lost, "it is neither in use nor in the freelist", ())
