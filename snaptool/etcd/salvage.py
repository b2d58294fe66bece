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
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from snaptool.bolt import LeafChunk
from snaptool.bolt.carve import InlineBucket, Reached, Wreck
from snaptool.bolt.scan import Positions
from snaptool.etcd.problems import RecordProblem
from snaptool.etcd.records import (
    TOMBSTONE_KEY_SIZE,
    BadRecord,
    BadRevision,
    Revision,
    decode_counter,
    decode_revision_key,
)
from snaptool.etcd.scan import RecordChunk, hash_spans, same_spans, scan_records
from snaptool.etcd.snapshot import BUCKETS, FINISHED, SCHEDULED, split_trailer


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Records as arrays, one entry each: positions are offsets in `buffer`, sizes are in bytes."""

    buffer: NDArray[np.uint8]
    main: Positions
    sub: Positions
    stored_key: Positions
    stored_key_len: Positions
    stored: Positions
    stored_len: Positions
    key: Positions
    key_len: Positions
    value: Positions
    value_len: Positions
    page: Positions
    origin: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.main)

    def __iter__(self) -> Iterator[SalvagedRecord]:
        return map(self.record, range(len(self)))

    def record(self, row: int) -> SalvagedRecord:
        """Return one of them."""
        data = self.buffer.data

        def span(start: Positions, size: Positions) -> memoryview:
            return data[int(start[row]) : int(start[row]) + int(size[row])]

        return SalvagedRecord(
            key=bytes(span(self.key, self.key_len)),
            revision=Revision(int(self.main[row]), int(self.sub[row])),
            tombstone=int(self.stored_key_len[row]) == TOMBSTONE_KEY_SIZE,
            page=int(self.page[row]),
            origin=_ORIGINS[int(self.origin[row])],
            stored_key=bytes(span(self.stored_key, self.stored_key_len)),
            stored=span(self.stored, self.stored_len),
            value=span(self.value, self.value_len),
        )

    def only(self, rows: NDArray[np.bool_] | Positions) -> Records:
        """Return some of them, in the order asked for."""
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
        return Records(buffer=self.buffer, **columns)


Hole = tuple[Revision, Revision | None]
_MOST_SENTENCES = 1000
_COLUMNS = tuple(name for name in Records.__dataclass_fields__ if name != "buffer")


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
        parts = [self.kept.only(self.kept.origin != _ORIGINS.index(Origin.REACHED)), self.stale, self.contradicted]
        found = _join(self.kept.only(np.zeros(0, dtype=np.int64)), parts)
        return found.only(_order(found))

    def count(self, origin: Origin) -> int:
        """How many of the kept records have this origin."""
        return int(np.count_nonzero(self.kept.origin == _ORIGINS.index(origin)))


def salvage(buffer: bytes | mmap | memoryview) -> Salvage:
    """Collect what can be trusted from a snapshot or db file. Raises NothingToCarve when it is no bolt file at all."""
    wreck = Wreck(split_trailer(buffer)[0])
    reached = _best_root(wreck)
    carved = list(wreck.carve(reached))
    inline = list(wreck.inline(reached))
    missing: list[str] = []
    found: list[Records] = []
    altered: list[Hole] = []
    for chunk in map(_scan, _reached_chunks(reached)):
        found.append(_records(chunk, Origin.REACHED))
        altered += _altered(chunk, missing)
    images = (one.records for one in inline if one.name == b"key")
    left = [_records(_scan(leaves), Origin.STALE) for leaves in (*carved, *images)]
    empty = _nothing(wreck)
    live, old = _unique(_join(empty, found)), _join(empty, left)
    old = old.only(np.argsort(old.page, kind="stable"))
    intact = reached is not None and reached.root.proven and not reached.problems and not missing
    buckets = _other_buckets(reached, inline, missing)
    old, contradicted = _lacking(live, old)
    if intact:
        old.origin[contradicted] = _ORIGINS.index(Origin.STALE)
    else:
        _describe(reached, missing)
        _judge(live, old, _holes(reached, live) + altered, _compacted(buckets))
    taken = np.isin(old.origin, [_ORIGINS.index(Origin.CARVED), _ORIGINS.index(Origin.UNCERTAIN)])
    kept = _join(empty, [live, old.only(taken)])
    suspects = list(itertools.islice(_suspects(wreck, kept), _MOST_SENTENCES))
    missing += suspects
    return Salvage(
        kept=kept.only(_order(kept)),
        stale=old.only(old.origin == _ORIGINS.index(Origin.STALE)),
        contradicted=old.only(old.origin == _ORIGINS.index(Origin.CONTRADICTED)),
        buckets=buckets,
        intact=intact and not suspects,
        missing=tuple(missing),
        page_size=wreck.page_size,
        pages=wreck.size,
        carved_pages=len({page for chunk in carved for page in chunk.leaf_page.tolist()}),
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
        last = max((_last_revision(chunk) for chunk in _reached_chunks(reached)), default=Revision(0, 0))
        meta = _items(reached, b"meta")
        rank = (*last, _counter(meta, b"consistent_index"), -number)
        if best is None or rank > best[0]:
            best = rank, reached
    return best[1] if best is not None else None


def _last_revision(leaves: LeafChunk) -> Revision:
    found = _records(_scan(leaves), Origin.REACHED)
    if not len(found):
        return Revision(0, 0)
    row = int(_order(found)[-1])
    return Revision(int(found.main[row]), int(found.sub[row]))


def _reached_chunks(reached: Reached | None) -> Iterator[LeafChunk]:
    bucket = reached.buckets.get(b"key") if reached is not None else None
    return bucket.chunks() if bucket is not None else iter(())


def _pass_over(problem: RecordProblem) -> None:
    """Let a record that is none pass: it is not readable then."""
    del problem


def _scan(leaves: LeafChunk) -> RecordChunk:
    return scan_records(leaves, None, _pass_over)


def _records(chunk: RecordChunk, origin: Origin) -> Records:
    """Take what a chunk holds; what is no record of a history is left out."""
    leaves = chunk.leaves
    good = chunk.readable & (chunk.main > 0)
    # etcd writes the revision into the message too, but for tombstones and for the records of `--bump-revision`.
    good &= (chunk.mod == chunk.main) | (chunk.mod == 0)
    if origin is not Origin.REACHED:
        good &= (chunk.tombstone == (chunk.mod == 0)) & ~chunk.repeated_value
    owner = np.searchsorted(leaves.leaf_start, np.arange(len(leaves)), side="right") - 1
    return Records(
        buffer=leaves.buffer,
        main=chunk.main[good],
        sub=chunk.sub[good],
        stored_key=leaves.key_pos[good],
        stored_key_len=leaves.key_len[good],
        stored=leaves.value_pos[good],
        stored_len=leaves.value_len[good],
        key=chunk.key_pos[good],
        key_len=chunk.key_len[good],
        value=chunk.value_pos[good],
        value_len=chunk.value_len[good],
        page=leaves.leaf_page[owner][good],
        origin=np.full(int(good.sum()), _ORIGINS.index(origin), dtype=np.uint8),
    )


def _altered(chunk: RecordChunk, missing: list[str]) -> list[Hole]:
    """Tell of reached records that are none any more; return the revisions at which a true copy may stand in for them.

    The page is sound, and what it holds is not: its bytes have changed since etcd wrote them.
    """
    leaves = chunk.leaves
    holes: list[Hole] = []
    wrong = ~chunk.readable | ((chunk.mod != chunk.main) & (chunk.mod != 0)) | (chunk.main == 0)
    for row in np.nonzero(wrong)[0].tolist():
        page = int(leaves.leaf_page[np.searchsorted(leaves.leaf_start, row, side="right") - 1])
        if len(missing) < _MOST_SENTENCES:
            missing.append(f"page {page}: record {leaves.key(row)[:TOMBSTONE_KEY_SIZE].hex()} is altered, and left out")
        main = int(chunk.mod[row]) if chunk.readable[row] else int(chunk.main[row])
        if main > 0:
            holes.append((Revision(main, 0), Revision(main + 1, 0)))
    return holes[:_MOST_SENTENCES]


def _suspects(wreck: Wreck, records: Records) -> Iterator[str]:
    """Tell of values that go on in a page which is all zeros, or begins as another page does: bolt has no checksums."""
    size = wreck.page_size
    first, end = records.stored_key // size, records.stored + records.stored_len
    for row in np.nonzero(end > (first + 1) * size)[0].tolist():
        last = int(end[row])
        for page in range(int(first[row]) + 1, -(-last // size)):
            data = bytes(records.buffer[page * size : min((page + 1) * size, last)])
            what = (
                "is all zeros"
                if data.count(0) == len(data)
                else "looks like another page"
                if wreck.is_page(data)
                else ""
            )
            if what:
                revision = Revision(int(records.main[row]), int(records.sub[row]))
                yield f"revision {revision}: page {page}, in the middle of its value, {what}; it may be damaged"
                break


def _nothing(wreck: Wreck) -> Records:
    columns = {name: np.zeros(0, dtype=np.int64) for name in _COLUMNS if name != "origin"}
    return Records(buffer=wreck.pages.bytes, origin=np.zeros(0, dtype=np.uint8), **columns)


def _join(empty: Records, parts: list[Records]) -> Records:
    columns = {name: np.concatenate([getattr(part, name) for part in (empty, *parts)]) for name in _COLUMNS}
    return Records(buffer=empty.buffer, **columns)


def _order(records: Records) -> Positions:
    order: Positions = np.lexsort((records.sub, records.main))
    return order


def _repeats(records: Records) -> NDArray[np.bool_]:
    """Which records, in order of revision, have the revision of the one before."""
    repeats = np.zeros(len(records), dtype=np.bool_)
    repeats[1:] = (records.main[1:] == records.main[:-1]) & (records.sub[1:] == records.sub[:-1])
    return repeats


def _unique(records: Records) -> Records:
    """In order of revision, the first of each."""
    records = records.only(_order(records))
    return records.only(~_repeats(records))


def _lacking(live: Records, old: Records) -> tuple[Records, Positions]:
    """Return one carved record of each revision that `live` lacks, or all of them where they differ; and which do."""
    old = old.only(_order(old))
    known = np.isin(_packed(old), _packed(live))
    old = old.only(~known)
    repeats = _repeats(old)
    first = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(old)))) if len(old) else np.zeros(0, np.int64)
    same = (old.stored_len == old.stored_len[first]) & (old.stored_key_len == old.stored_key_len[first])
    rows = np.nonzero(repeats & same)[0]
    same[rows] = same_spans(old.buffer, old.stored[rows], old.stored[first[rows]], old.stored_len[rows])
    quarrel = np.zeros(len(old), dtype=np.bool_)
    quarrel[first[~same]] = True
    stays = ~repeats | ~same
    contradicted = quarrel[first]
    old = old.only(stays)
    old.origin[contradicted[stays]] = _ORIGINS.index(Origin.CONTRADICTED)
    return old, np.nonzero(contradicted[stays])[0]


def _packed(records: Records) -> NDArray[np.void]:
    """Revisions as one comparable value each."""
    pairs = np.empty(len(records), dtype=[("main", "<i8"), ("sub", "<i8")])
    pairs["main"], pairs["sub"] = records.main, records.sub
    return pairs


def _holes(reached: Reached | None, live: Records) -> list[Hole]:
    """Return the ranges of revisions that the tree may have lost."""
    if reached is None:
        return [(Revision(0, 0), None)]
    holes: list[Hole] = []
    for low, high in reached.holes.get(b"key", ()):
        holes.append((_revision(low) or Revision(0, 0), _revision(high) if high else None))
    if not reached.root.proven:
        last = Revision(int(live.main[-1]), int(live.sub[-1])) if len(live) else Revision(0, 0)
        holes.append((last, None))
    return holes


def _revision(key: bytes) -> Revision | None:
    try:
        return decode_revision_key(key)[0]
    except BadRevision:
        return None


def _judge(live: Records, old: Records, holes: list[Hole], compacted: int) -> None:
    """Decide of every carved record whether it is taken."""
    inside = np.zeros(len(old), dtype=np.bool_)
    for low, high in holes:
        after = (old.main > low.main) | ((old.main == low.main) & (old.sub >= low.sub))
        if high is not None:
            after &= (old.main < high.main) | ((old.main == high.main) & (old.sub < high.sub))
        inside |= after
    candidate = inside & (old.origin != _ORIGINS.index(Origin.CONTRADICTED))
    ancient = old.main <= compacted
    old.origin[candidate] = _ORIGINS.index(Origin.CARVED)
    old.origin[candidate & ancient] = _ORIGINS.index(Origin.UNCERTAIN)
    # A compaction keeps the last record of a key up to its revision, unless that is a tombstone.
    everything = _join(old, [live]) if len(old) else live
    names = hash_spans(everything.buffer, everything.key, everything.key_len)
    below = np.nonzero(everything.main <= compacted)[0]
    order = below[np.lexsort((everything.sub[below], everything.main[below], names[below]))]
    last = np.ones(len(order), dtype=np.bool_)
    last[:-1] = names[order[1:]] != names[order[:-1]]
    gone = np.zeros(len(everything), dtype=np.bool_)
    gone[order[~last]] = True
    gone[order[last]] = everything.stored_key_len[order[last]] == TOMBSTONE_KEY_SIZE
    old.origin[candidate & gone[: len(old)]] = _ORIGINS.index(Origin.STALE)


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
    reached: Reached | None, inline: list[InlineBucket], missing: list[str]
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
        return _counter(_pairs(meta), b"consistent_index") if meta is not None else 0, page

    for page in sorted(images, key=newest, reverse=True):
        for name, one in images[page].items():
            if name in BUCKETS and name != b"key" and name not in found:
                found[name] = _pairs(one)
                missing.append(f"bucket {name.decode()} is from page {page}, an old root, and may be of an older time")
    if reached is None or reached.problems:
        absent = [name.decode() for name in BUCKETS if name not in found and name != b"key"]
        missing.extend(f"bucket {name} was not found; it is empty in what is written" for name in absent)
    return found


def _pairs(one: InlineBucket) -> dict[bytes, bytes]:
    data, chunk = one.records.buffer.data, one.records
    return {
        chunk.key(row): bytes(data[int(chunk.value_pos[row]) :][: int(chunk.value_len[row])])
        for row in range(len(chunk))
    }


def _describe(reached: Reached | None, missing: list[str]) -> None:
    if reached is None:
        missing.append("no root was found: every record is carved, and which of them were current is not proven")
        return
    if not reached.root.proven:
        missing.append(f"no sound meta names the root; page {reached.root.page} was taken, the latest that was found")
    missing.extend(f"page {problem.page}: {problem.problem}" for problem in reached.problems)
