"""A history from a file that is broken, and what is left of older ones in the free pages of any file.

What can be reached from the root counts. Leaves that nothing reaches any more hold records too, most of them *stale*:
copies of what is still there, or records that a compaction deleted, or that were rolled back. A file whose tree walks
needs none of them. Where the tree is broken, a carved record is taken when it belongs where a broken page stood, or
behind the end of a tree that no meta vouches for, and when the known compaction would have kept it; never otherwise,
since a stale record can bring a deleted key back to life. What stays uncertain even so is written and said.

A revision is written once by etcd, so two carved records of one revision with different bytes cannot both be true:
neither is written then. Source: docs/formats/etcd.md, "Damage" and "Compaction". Must not know: Kubernetes, encryption,
paths.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from mmap import mmap

from snaptool.bolt import Chunk
from snaptool.bolt.carve import InlineBucket, Reached, Wreck
from snaptool.etcd.compaction import FINISHED, SCHEDULED, keeps
from snaptool.etcd.problems import RecordProblem
from snaptool.etcd.reading import REPEATED_VALUE, TOMBSTONE, UNREADABLE, RecordReader
from snaptool.etcd.reading import Records as ReadRecords
from snaptool.etcd.records import (
    TOMBSTONE_KEY_SIZE,
    BadRecord,
    BadRevision,
    Revision,
    decode_counter,
    decode_revision_key,
)
from snaptool.etcd.snapshot import BUCKETS, split_trailer


class Origin(StrEnum):
    """What is known of a record."""

    REACHED = "reached"
    """A tree leads to it."""
    CARVED = "carved"
    """It lies where nothing leads, and belongs where the tree is broken."""
    UNCERTAIN = "uncertain"
    """As carved, but older than the compaction: that its key was deleted later may be lost."""
    STALE = "stale"
    """Left over in a free page: compacted, replaced or rolled back."""
    CONTRADICTED = "contradicted"
    """Another carved record has the same revision and other bytes."""


_ORIGINS = tuple(Origin)
_REACHED, _CARVED, _UNCERTAIN, _STALE, _CONTRADICTED = range(len(_ORIGINS))
_CHUNK = 50_000, 32 << 20  # records, bytes
_SHORTEST_ZEROS = 8
"""Bytes at the end of a value that may well be zeros: the last one is, in all that an API server stores as protobuf."""


@dataclass(frozen=True, slots=True)
class SalvagedRecord:
    """One record. `key` is the user key, `page` where it was found, `value` the payload of field 5 in the file."""

    key: bytes
    revision: Revision
    tombstone: bool
    page: int
    origin: Origin
    stored_key: bytes
    stored: memoryview
    value: memoryview


class _Found:
    """All records that were found, in columns: positions are offsets in `view`, sizes are in bytes.

    `message`: the KeyValue, which ends at `end` and begins where the stored key ends. `origin`: number of an Origin.
    """

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.main, self.sub, self.page = array("q"), array("q"), array("q")
        self.stored_key, self.message, self.end = array("q"), array("q"), array("q")
        self.key, self.key_size, self.value, self.value_size = array("q"), array("q"), array("q"), array("q")
        self.origin = bytearray()

    def __len__(self) -> int:
        return len(self.origin)

    def add(self, records: ReadRecords, origin: int) -> bool:
        """Take what a chunk holds; what is no record of a history is left out. Was there such a one?"""
        leaves, count = records.leaves, len(records)
        good = [row for row in range(count) if _is_record(records, row, origin)]
        for column, numbers in (
            (self.main, records.main),
            (self.sub, records.sub),
            (self.stored_key, leaves.key_at),
            (self.message, leaves.value_at),
            (self.key, records.key_at),
            (self.key_size, records.key_size),
            (self.value, records.value_at),
            (self.value_size, records.value_size),
        ):
            if good and len(good) == count:
                column.frombytes(numbers[:count].cast("B"))
            else:
                column.extend(map(numbers.__getitem__, good))
        self.end.extend([leaves.value_at[row] + leaves.value_size[row] for row in good])
        pages = [
            page
            for leaf, page in enumerate(leaves.leaf_page[: leaves.leaves])
            for _ in range(leaves.leaf_start[leaf], leaves.leaf_start[leaf + 1])
        ]
        self.page.extend(map(pages.__getitem__, good))
        self.origin.extend(bytes([origin]) * len(good))
        return len(good) < count

    def revision(self, row: int) -> Revision:
        """Return the revision of a record."""
        return Revision(self.main[row], self.sub[row])

    def user_key(self, row: int) -> bytes:
        """Return the user key of a record."""
        return bytes(self.view[self.key[row] : self.key[row] + self.key_size[row]])

    def is_tombstone(self, row: int) -> bool:
        """Does the record say that its key was deleted?"""
        return self.message[row] - self.stored_key[row] == TOMBSTONE_KEY_SIZE

    def is_copy(self, row: int, other: int) -> bool:
        """Do two records of one revision have the same bytes?"""
        return self.is_tombstone(row) == self.is_tombstone(other) and (
            self.view[self.message[row] : self.end[row]] == self.view[self.message[other] : self.end[other]]
        )

    def order(self, row: int) -> int:
        """Return a number by which records sort as their revisions do."""
        return self.main[row] << 64 | self.sub[row]

    def in_order(self, rows: Iterable[int]) -> array[int]:
        """Return these rows by revision; where that is the same, as they come."""
        return array("q", sorted(rows, key=self.order))


def _is_record(records: ReadRecords, row: int, origin: int) -> bool:
    """Is this a record of a history?"""
    flags, mod = records.flags[row], records.mod[row]
    # etcd writes the revision into the message too, but for tombstones and for the records of `--bump-revision`.
    if flags & UNREADABLE or records.main[row] == 0 or mod not in (0, records.main[row]):
        return False
    return origin == _REACHED or (bool(flags & TOMBSTONE) == (mod == 0) and not flags & REPEATED_VALUE)


class Records:
    """Some of the records that were found, in an order of their own."""

    def __init__(self, found: _Found, rows: array[int]) -> None:
        self._found = found
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[SalvagedRecord]:
        return map(self.record, range(len(self)))

    def record(self, index: int) -> SalvagedRecord:
        """Return one of them."""
        found, row = self._found, self._rows[index]
        return SalvagedRecord(
            key=found.user_key(row),
            revision=found.revision(row),
            tombstone=found.is_tombstone(row),
            page=found.page[row],
            origin=_ORIGINS[found.origin[row]],
            stored_key=bytes(found.view[found.stored_key[row] : found.message[row]]),
            stored=found.view[found.message[row] : found.end[row]],
            value=found.view[found.value[row] : found.value[row] + found.value_size[row]],
        )

    def count(self, origin: Origin) -> int:
        """How many have this origin."""
        number = _ORIGINS.index(origin)
        return sum(self._found.origin[row] == number for row in self._rows)

    def unreached(self, *others: Records) -> Records:
        """Return those to which nothing leads, of these and others, by revision."""
        found, rows = self._found, self._rows[:]
        for one in others:
            rows += one._rows  # noqa: SLF001 - of its own kind
        return Records(found, found.in_order(row for row in rows if found.origin[row] != _REACHED))


Hole = tuple[Revision, Revision | None]
_MOST_SENTENCES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvage:
    """What a file gave. `kept`: the history to write, in order. `stale` and `contradicted` are not in it.

    `intact`: a tree that a sound meta names was walked without a fault. `buckets`: the records of the other buckets;
    `missing`: what could not be found or is not proven, a sentence each. `page_size` in bytes, `pages` in the file.
    """

    kept: Records
    stale: Records
    contradicted: Records
    buckets: dict[bytes, dict[bytes, bytes]]
    intact: bool
    missing: tuple[str, ...]
    page_size: int
    pages: int
    carved_pages: int

    @property
    def left(self) -> Records:
        """All that nothing leads to, by revision: what was taken of it, and what was not."""
        return self.kept.unreached(self.stale, self.contradicted)

    def count(self, origin: Origin) -> int:
        """How many of the kept records have this origin."""
        return self.kept.count(origin)


def salvage(buffer: bytes | mmap | memoryview) -> Salvage:
    """Collect what can be trusted from a snapshot or db file. Raises NothingToCarve when it is no bolt file at all."""
    wreck = Wreck(split_trailer(buffer)[0])
    reached = _best_root(wreck)
    inline = list(wreck.inline(reached))
    missing: list[str] = []
    found = _Found(wreck.view)
    altered: list[Hole] = []
    for records in _read(wreck, _reached_chunks(reached)):
        if found.add(records, _REACHED):
            altered += _altered(records, missing)
    live = _unique(found)
    end, carved_pages = len(found), 0
    for records in _read(wreck, wreck.carve(reached)):
        found.add(records, _STALE)
        carved_pages += records.leaves.leaves
    for records in _read(wreck, (wreck.records_of(one) for one in inline if one.name == b"key")):
        found.add(records, _STALE)
    intact = reached is not None and reached.root.proven and not reached.problems and not missing
    buckets = _other_buckets(wreck, reached, inline, missing)
    old = _lacking(found, live, sorted(range(end, len(found)), key=found.page.__getitem__))
    if intact:
        for row in old:
            found.origin[row] = _STALE
    else:
        _describe(reached, missing)
        _judge(found, live, old, _holes(found, reached, live) + altered, _compacted(buckets))
    kept = live + array("q", [row for row in old if found.origin[row] in (_CARVED, _UNCERTAIN)])
    suspects = list(itertools.islice(_suspects(wreck, found, kept), _MOST_SENTENCES))
    missing += suspects
    return Salvage(
        kept=Records(found, found.in_order(kept)),
        stale=Records(found, array("q", [row for row in old if found.origin[row] == _STALE])),
        contradicted=Records(found, array("q", [row for row in old if found.origin[row] == _CONTRADICTED])),
        buckets=buckets,
        intact=intact and not suspects,
        missing=tuple(missing),
        page_size=wreck.page_size,
        pages=wreck.size,
        carved_pages=carved_pages,
    )


def _best_root(wreck: Wreck) -> Reached | None:
    """Walk from the root that a sound meta names; else from the one that leads to the latest revision."""
    best: tuple[tuple[int, int, int, int], Reached] | None = None
    for number, root in enumerate(wreck.roots()):
        reached = wreck.walk(root)
        if b"key" not in reached.buckets:
            continue
        if root.proven:
            return reached
        last = _last_revision(wreck, reached)
        meta = _items(reached, b"meta")
        rank = (*last, _counter(meta, b"consistent_index"), -number)
        if best is None or rank > best[0]:
            best = rank, reached
    return best[1] if best is not None else None


def _last_revision(wreck: Wreck, reached: Reached) -> Revision:
    last = Revision(0, 0)
    for records in _read(wreck, _reached_chunks(reached)):
        for row in range(len(records)):
            if _is_record(records, row, _REACHED):
                last = max(last, records.revision(row))
    return last


def _reached_chunks(reached: Reached | None) -> Iterator[Chunk]:
    bucket = reached.buckets.get(b"key") if reached is not None else None
    return bucket.leaves(chunk=Chunk(*_CHUNK)) if bucket is not None else iter(())


def _read(wreck: Wreck, chunks: Iterable[Chunk]) -> Iterator[ReadRecords]:
    """Read the records of chunks, good until the next one; what is none is not readable then."""
    reader = RecordReader(wreck.view)
    records: ReadRecords | None = None
    for chunk in chunks:
        if records is None or records.leaves is not chunk:
            records = ReadRecords(wreck.view, chunk)
        reader.read(records, _pass_over)
        yield records


def _pass_over(problem: RecordProblem) -> None:
    """Let a record that is none pass: it is not readable then."""
    del problem


def _altered(records: ReadRecords, missing: list[str]) -> list[Hole]:
    """Tell of reached records that are none any more; return the revisions at which a true copy may stand in for them.

    The page is sound, and what it holds is not: its bytes have changed since etcd wrote them.
    """
    leaves = records.leaves
    holes: list[Hole] = []
    for row in range(len(records)):
        if _is_record(records, row, _REACHED):
            continue
        if len(missing) < _MOST_SENTENCES:
            page, key = leaves.leaf_page[leaves.leaf_of(row)], records.stored_key(row)[:TOMBSTONE_KEY_SIZE].hex()
            missing.append(f"page {page}: record {key} is altered, and left out")
        main = records.main[row] if records.flags[row] & UNREADABLE else records.mod[row]
        if main > 0 and len(holes) < _MOST_SENTENCES:
            holes.append((Revision(main, 0), Revision(main + 1, 0)))
    return holes


def _suspects(wreck: Wreck, found: _Found, rows: Iterable[int]) -> Iterator[str]:
    """Tell of values that go on in a page which is all zeros, or begins as another page does: bolt has no checksums."""
    size = wreck.page_size
    for row in rows:
        end = found.end[row]
        for page in range(found.stored_key[row] // size + 1, -(-end // size)):
            data = bytes(found.view[page * size : min((page + 1) * size, end)])
            what = (
                "is all zeros"
                if data.count(0) == len(data) > _SHORTEST_ZEROS
                else "looks like another page"
                if wreck.is_page(data)
                else ""
            )
            if what:
                revision = found.revision(row)
                yield f"revision {revision}: page {page}, in the middle of its value, {what}; it may be damaged"
                break


def _unique(found: _Found) -> array[int]:
    """Return rows by revision, the first of each."""
    rows = found.in_order(range(len(found)))
    return array("q", [next(group) for _, group in itertools.groupby(rows, key=found.order)])


def _lacking(found: _Found, live: array[int], old: list[int]) -> array[int]:
    """Return one carved record of each revision that `live` lacks, or all of them where they differ, by revision."""
    lacking = array("q")
    known = iter(live)
    at = next(known, None)
    for revision, group in itertools.groupby(found.in_order(old), key=found.order):
        while at is not None and found.order(at) < revision:
            at = next(known, None)
        if at is not None and found.order(at) == revision:
            continue
        first, *copies = group
        others = [row for row in copies if not found.is_copy(row, first)]
        lacking.append(first)
        lacking.extend(others)
        for row in (first, *others) if others else ():
            found.origin[row] = _CONTRADICTED
    return lacking


def _holes(found: _Found, reached: Reached | None, live: array[int]) -> list[Hole]:
    """Return the ranges of revisions that the tree may have lost."""
    if reached is None:
        return [(Revision(0, 0), None)]
    holes: list[Hole] = []
    for low, high in reached.holes.get(b"key", ()):
        holes.append((_revision(low) or Revision(0, 0), _revision(high) if high else None))
    if not reached.root.proven:
        holes.append((found.revision(live[-1]) if live else Revision(0, 0), None))
    return holes


def _revision(key: bytes) -> Revision | None:
    try:
        return decode_revision_key(key)[0]
    except BadRevision:
        return None


def _judge(found: _Found, live: array[int], old: array[int], holes: list[Hole], compacted: int) -> None:
    """Decide of every carved record whether it is taken. `live` and `old`: rows by revision."""
    inside = _inside(found, old, holes)
    last = {found.user_key(row): row for row in old if found.main[row] <= compacted}
    for row in live if last else ():
        if found.main[row] > compacted:
            break
        key = found.user_key(row)
        if key in last and found.order(row) > found.order(last[key]):
            last[key] = row
    for row in inside:
        if found.origin[row] == _CONTRADICTED:
            continue
        main, tombstone = found.main[row], found.is_tombstone(row)
        if main > compacted:
            found.origin[row] = _CARVED
        elif keeps(main, compacted, last=last[found.user_key(row)] == row, tombstone=tombstone):
            found.origin[row] = _UNCERTAIN


def _inside(found: _Found, rows: array[int], holes: list[Hole]) -> list[int]:
    """Return those of `rows`, which are in order of revision, that lie in a hole."""
    waiting = sorted(holes, key=lambda hole: hole[0], reverse=True)
    end: Revision | None = Revision(0, 0)
    inside = []
    for row in rows:
        revision = found.revision(row)
        while end is not None and waiting and waiting[-1][0] <= revision:
            high = waiting.pop()[1]
            end = high if high is None else max(end, high)
        if end is None or revision < end:
            inside.append(row)
    return inside


def _compacted(buckets: dict[bytes, dict[bytes, bytes]]) -> int:
    """Return the revision up to which the store was compacted, 0 if that is not known."""
    meta = buckets.get(b"meta", {})
    marks = [_revision(meta.get(name, b"")) for name in (SCHEDULED, FINISHED)]
    return max((mark.main for mark in marks if mark is not None), default=0)


def _items(reached: Reached, name: bytes) -> dict[bytes, bytes]:
    bucket = reached.buckets.get(name)
    return dict(bucket.items()) if bucket is not None else {}


def _counter(meta: dict[bytes, bytes], name: bytes) -> int:
    try:
        return decode_counter("meta", name, meta.get(name, b""))
    except BadRecord:
        return 0


def _other_buckets(
    wreck: Wreck, reached: Reached | None, inline: list[InlineBucket], missing: list[str]
) -> dict[bytes, dict[bytes, bytes]]:
    """Take every bucket but `key` from the tree, or else from the newest old root page that has it."""
    found: dict[bytes, dict[bytes, bytes]] = {}
    for name, bucket in (reached.buckets if reached is not None else {}).items():
        if name != b"key":
            found[name] = dict(bucket.items())
    images: dict[int, dict[bytes, InlineBucket]] = {}
    for one in inline:
        images.setdefault(one.page, {}).setdefault(one.name, one)

    def newest(page: int) -> tuple[int, int]:
        meta = images[page].get(b"meta")
        return _counter(_pairs(wreck, meta), b"consistent_index") if meta is not None else 0, page

    for page in sorted(images, key=newest, reverse=True):
        for name, one in images[page].items():
            if name in BUCKETS and name != b"key" and name not in found:
                found[name] = _pairs(wreck, one)
                missing.append(f"bucket {name.decode()} is from page {page}, an old root, and may be of an older time")
    if reached is None or reached.problems:
        absent = [name.decode() for name in BUCKETS if name not in found and name != b"key"]
        missing.extend(f"bucket {name} was not found; it is empty in what is written" for name in absent)
    return found


def _pairs(wreck: Wreck, one: InlineBucket) -> dict[bytes, bytes]:
    chunk = wreck.records_of(one)
    return {chunk.key(wreck.view, row): chunk.value(wreck.view, row) for row in range(len(chunk))}


def _describe(reached: Reached | None, missing: list[str]) -> None:
    if reached is None:
        missing.append("no root was found: every record is carved, and which of them were current is not proven")
        return
    if not reached.root.proven:
        missing.append(f"no sound meta names the root; page {reached.root.page} was taken, the latest that was found")
    missing.extend(f"page {problem.page}: {problem.problem}" for problem in reached.problems)
