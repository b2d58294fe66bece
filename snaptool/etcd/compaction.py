"""What a compaction keeps, and how a store notes it: said once here.

A compaction at a revision keeps all records above it, and of every key the last record up to it, unless that is a
tombstone; a tombstone of that very revision stays too, as servers from 3.4.34, 3.5.16 and 3.6.0 on leave it
(`ServerGeneration.keeps_tombstones`). What was the answer to a client at that revision or after it is still the answer.
`HistoryHash.counts` in `comparing` has the same rule for HashKV, compiled, with what servers of other versions do.

Source: etcd server/storage/mvcc/key_index.go (compact, keep) and kvstore_compaction.go; docs/formats/etcd.md,
"Compaction".
"""

from __future__ import annotations

from collections.abc import Iterable

from snaptool.etcd.reading import TOMBSTONE, Records
from snaptool.etcd.records import Revision, encode_revision_key

SCHEDULED = b"scheduledCompactRev"
FINISHED = b"finishedCompactRev"


def keeps(revision: int, at: int, *, last: bool, tombstone: bool) -> bool:
    """Does a compaction at the revision `at` keep a record, on every server? So a tombstone of `at` does not count.

    `last`: it is the last record of its key up to `at`.
    """
    return revision > at or (last and not tombstone)


def kept_now(chunks: Iterable[Records], live: bytearray, at: int) -> bytearray:
    """Mark by number the records that a compaction at the store's own revision `at` keeps, which are the `live` ones.

    And tombstones of `at`: no record is above it, and of a key only the last is live.
    """
    kept = bytearray(live)
    for records in chunks:
        # Records are in order of revision.
        if not len(records) or records.main[len(records) - 1] < at:
            continue
        for row in range(len(records)):
            if records.main[row] == at and records.flags[row] & TOMBSTONE:
                kept[records.first_record + row] = 1
    return kept


def marks(at: int) -> dict[bytes, bytes]:
    """Return what bucket `meta` holds after a compaction at `at` that was scheduled and has ended."""
    mark = encode_revision_key(Revision(at, 0))
    return {SCHEDULED: mark, FINISHED: mark}
