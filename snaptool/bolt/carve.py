"""What is left in a damaged file, and what lies in the free pages of a healthy one.

Two ways to bytes. The *walk* goes from a root, over what is broken, and takes what is reachable. The *carving* looks at
every page that no walk reached: a page whose header has its own number and the flags of a leaf was one once, and its
elements that are in bounds are records that were stored once. Old pages of the root hold whole inline buckets too.

Free pages are used again piecemeal, so the later pages of a large old record may belong to something newer: a record
that runs into a page that is in use, or that has a header of its own, is not carved. Headers in pages that a walk
reached as the rest of a longer page are not looked at, for they are the bytes of values.

Bounded: headers are tested by numpy, no element table may lie in another, and no page may claim more bytes than it
has. Source: docs/formats/bolt.md, "Carving". Knows nothing of what the records are, nor which of them are true.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from snaptool.bolt.faults import MAX_PROBLEMS, Problem
from snaptool.bolt.layout import (
    BUCKET_FLAG,
    BUCKET_HEADER_SIZE,
    ELEMENT_SIZE,
    HEADER_SIZE,
    MAGIC,
    MAX_KEY_SIZE,
    META_SIZE,
    NO_FREELIST,
    PAGE_SIZES,
    BadMeta,
    BucketHeader,
    Meta,
    MetaBody,
    PageFlag,
    PageHeader,
    PageId,
    TxId,
    decode_meta,
)
from snaptool.bolt.reader import Bucket, Database, NotABoltFile
from snaptool.bolt.scan import (
    MAX_DEPTH,
    LeafChunk,
    PageMap,
    Positions,
    blocks,
    elements_of,
)

_USUAL_SIZES = (4096, 16384, 65536, 8192, 1024)
_LEGAL_FLAGS = (PageFlag.BRANCH, PageFlag.LEAF, PageFlag.META, PageFlag.FREELIST)
_CHUNK_ELEMENTS = 100_000
MOST_ROOTS = 16
"""Old roots that are tried, newest copies being unknown: each costs a walk."""


class NothingToCarve(NotABoltFile):
    """No page size fits: this is not a bolt file, or nothing of one is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """Where a tree may start. `proven`: a meta with a right checksum says so, and the file is as long as it says."""

    page: int
    meta: Meta
    proven: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What a lenient walk from a root found. `holes`: ranges of keys of a bucket that broken pages may have held.

    A hole is the first key that may be missing and the first that may not (None: no limit), by bucket name.
    """

    root: Root
    database: Database
    buckets: dict[bytes, Bucket]
    reached: NDArray[np.bool_]
    problems: tuple[Problem, ...]
    holes: dict[bytes, tuple[tuple[bytes, bytes | None], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineBucket:
    """A bucket inside a record of an old root page."""

    name: bytes
    page: int
    records: LeafChunk


class Wreck:
    """A file of which nothing is taken for granted. `page_size` in bytes, `size` in pages.

    Raises NothingToCarve when no page size fits.
    """

    def __init__(self, buffer: bytes | mmap | memoryview) -> None:
        self._buffer = memoryview(buffer)
        metas = list(_metas(self._buffer))
        sound = next((meta.page_size for meta, trusted in metas if trusted), 0)
        self.page_size = sound or _guess_page_size(self._buffer)
        self.size = len(self._buffer) // self.page_size
        if self.size < 3:
            raise NothingToCarve("the file holds no page of a tree", hint="take another copy of the snapshot")
        self._metas = metas
        self.pages = PageMap(self._buffer, self.page_size, self.size)
        start = np.arange(self.size, dtype=np.int64) * self.page_size
        self._flags = self.pages.u16[(start >> 1) + 4]
        self._own = self.pages.u64[start >> 3] == np.arange(self.size, dtype=np.uint64)
        self._own &= np.isin(self._flags, _LEGAL_FLAGS)

    def roots(self) -> Iterator[Root]:
        """Yield where trees may start, best first: by the metas, then pages that look like old roots, latest first."""
        seen: set[int] = set()
        for meta, sound in self._metas:
            if meta.page_size == self.page_size and 2 <= meta.root < self.size and meta.root not in seen:
                seen.add(meta.root)
                yield Root(page=meta.root, meta=meta, proven=sound and meta.high_water_mark <= self.size)
        for page in self._old_roots():
            if page not in seen and len(seen) < MOST_ROOTS:
                seen.add(page)
                yield Root(page=page, meta=self._meta_for(page), proven=False)

    def is_page(self, data: bytes) -> bool:
        """Does `data` begin like a page of this file, whichever it is?"""
        if len(data) < HEADER_SIZE:
            return False
        header = PageHeader.from_buffer_copy(data)
        return header.id < self.size and header.overflow < self.size and header.flags in _LEGAL_FLAGS

    def _meta_for(self, root: int) -> Meta:
        return Meta(
            page_size=self.page_size,
            root=PageId(root),
            sequence=0,
            freelist=NO_FREELIST,
            high_water_mark=self.size,
            txid=TxId(0),
        )

    def _old_roots(self) -> list[int]:
        """Leaves of which every element is a bucket."""
        found = []
        for page in self._leaf_pages(np.ones(self.size, dtype=np.bool_)).tolist():
            base = page * self.page_size
            count = int(self.pages.u16[(base >> 1) + 5])
            flags = self.pages.u32[(base + HEADER_SIZE >> 2) : (base + HEADER_SIZE + ELEMENT_SIZE * count >> 2) : 4]
            if len(flags) and flags[0] == BUCKET_FLAG and bool((flags == BUCKET_FLAG).all()):
                found.append(page)
        return found[::-1]

    def walk(self, root: Root) -> Reached:
        """Take all that is reachable from `root`, stepping over what is broken."""
        meta = self._meta_for(root.page)
        database = Database(self._buffer, meta=meta)
        report: list[Problem] = []
        database.tolerant = True
        walk = database.new_walk(report)
        buckets = database.walk_buckets(walk)
        for bucket in buckets.values():
            for _ in bucket.leaves(walk):
                pass
        reached = np.frombuffer(walk.reached_pages(), dtype=np.bool_)
        broken = {problem.page for problem in report}
        whole = len(report) > MAX_PROBLEMS
        holes: dict[bytes, tuple[tuple[bytes, bytes | None], ...]] = {}
        for name, bucket in buckets.items():
            if whole:
                holes[name] = ((b"", None),)
            elif bucket.root:
                holes[name] = tuple(self._holes(bucket.root, reached, broken))
            else:
                holes[name] = ((b"", None),) if database.meta.root in broken else ()
        return Reached(
            root=root,
            database=database,
            buckets=buckets,
            reached=reached,
            problems=tuple(report),
            holes=holes,
        )

    def _holes(self, root: int, reached: NDArray[np.bool_], broken: set[int]) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the ranges of keys under pages that are broken or were not reached."""
        if not broken:
            return
        todo: list[tuple[int, bytes, bytes | None, int]] = [(root, b"", None, 0)]
        seen: set[int] = set()
        while todo:
            page, low, high, depth = todo.pop()
            if not 2 <= page < self.size or page in broken or not reached[page] or page in seen or depth > MAX_DEPTH:
                yield low, high
                continue
            seen.add(page)
            if self._flags[page] != PageFlag.BRANCH:
                continue
            children = self._children(page)
            for index, (key, child) in enumerate(children):
                above = children[index + 1][0] if index + 1 < len(children) else high
                todo.append((child, key if index else low, above, depth + 1))

    def _children(self, page: int) -> list[tuple[bytes, int]]:
        """Read a branch page in which the walk found nothing wrong."""
        base = page * self.page_size
        data = self.pages.bytes.data
        found = []
        for index in range(int(self.pages.u16[(base >> 1) + 5])):
            at = base + HEADER_SIZE + ELEMENT_SIZE * index
            key = at + int(self.pages.u32[at >> 2])
            child = int(self.pages.u64[(at >> 3) + 1])
            found.append((bytes(data[key : key + int(self.pages.u32[(at >> 2) + 1])]), child))
        return found

    def carve(self, reached: Reached | None) -> Iterator[LeafChunk]:
        """Yield the records of leaves that no walk reached, or in which it found something wrong."""
        for chunk, _ in self._carved(reached):
            yield chunk

    def inline(self, reached: Reached | None) -> Iterator[InlineBucket]:
        """Yield the inline buckets of old root pages, the last page of the file first."""
        found = [bucket for chunk, flags in self._carved(reached) for bucket in self._inline_in(chunk, flags)]
        return reversed(found)

    def _carved(self, reached: Reached | None) -> Iterator[tuple[LeafChunk, NDArray[np.uint32]]]:
        free = np.ones(self.size, dtype=np.bool_)
        if reached is not None:
            free = ~reached.reached
            broken = [problem.page for problem in reached.problems if 2 <= problem.page < self.size]
            free[broken] = True
        # Where something else begins or is in use, an old record cannot go on.
        foreign = np.concatenate(([0], np.cumsum(self._own | ~free)))
        pages = self._leaf_pages(free)
        base = pages * self.page_size
        counts = self.pages.u16[(base >> 1) + 5].astype(np.int64)
        for block in blocks((np.cumsum(counts), _CHUNK_ELEMENTS)):
            yield self._elements(pages[block], counts[block], foreign)

    def _leaf_pages(self, free: NDArray[np.bool_]) -> Positions:
        """Pages that were leaves once, in file order, of which no table of elements lies in that of another."""
        pages = np.nonzero(self._own & (self._flags == PageFlag.LEAF) & free)[0].astype(np.int64)
        pages = pages[pages >= 2]
        base = pages * self.page_size
        table_end = base + HEADER_SIZE + ELEMENT_SIZE * self.pages.u16[(base >> 1) + 5].astype(np.int64)
        span_end = base + (self.pages.u32[(base >> 2) + 3].astype(np.int64) + 1) * self.page_size
        fits = (table_end <= span_end) & (table_end <= self.size * self.page_size)
        pages, base, table_end = pages[fits], base[fits], table_end[fits]
        before = np.concatenate(([0], np.maximum.accumulate(table_end)[:-1])) if len(pages) else base
        chosen: Positions = pages[base >= before]
        return chosen

    def _elements(
        self, pages: Positions, counts: Positions, foreign: NDArray[np.int64]
    ) -> tuple[LeafChunk, NDArray[np.uint32]]:
        base = pages * self.page_size
        overflow = self.pages.u32[(base >> 2) + 3].astype(np.int64)
        size = np.minimum((overflow + 1) * self.page_size, self.size * self.page_size - base)
        chunk, flags, owner = _records(self.pages, base, size, pages, counts)
        end = chunk.value_pos + chunk.value_len
        last_page = np.maximum(end - 1, 0) // self.page_size
        clean = foreign[last_page + 1] == foreign[pages[owner] + 1]
        return _only(chunk, owner, clean), flags[clean]

    def _inline_in(self, chunk: LeafChunk, flags: NDArray[np.uint32]) -> Iterator[InlineBucket]:
        for row in np.nonzero((flags & BUCKET_FLAG) != 0)[0].tolist():
            start, size = int(chunk.value_pos[row]), int(chunk.value_len[row])
            if size < BUCKET_HEADER_SIZE + HEADER_SIZE or BucketHeader.from_buffer_copy(self._buffer, start).root:
                continue
            start, size = start + BUCKET_HEADER_SIZE, size - BUCKET_HEADER_SIZE
            header = PageHeader.from_buffer_copy(self._buffer, start)
            if header.id or header.flags != PageFlag.LEAF or HEADER_SIZE + ELEMENT_SIZE * header.count > size:
                continue
            leaf = int(np.searchsorted(chunk.leaf_start, row, side="right")) - 1
            page = int(chunk.leaf_page[leaf])
            one = np.array([start], np.int64), np.array([size], np.int64), np.array([page], np.int64)
            records, _, _ = _records(self.pages, *one, np.array([header.count], np.int64))
            yield InlineBucket(name=chunk.key(row), page=page, records=records)


def _records(
    pages: PageMap, base: Positions, size: Positions, ids: Positions, counts: Positions
) -> tuple[LeafChunk, NDArray[np.uint32], Positions]:
    """Read the elements of leaf images that are in bounds and follow each other; also their flags and leaves."""
    owner, element = elements_of(base, counts)
    flags = pages.number(element)
    key = element + pages.number(element + 4).astype(np.int64)
    key_len = pages.number(element + 8).astype(np.int64)
    value = key + key_len
    end = value + pages.number(element + 12).astype(np.int64)
    table_end = base + HEADER_SIZE + ELEMENT_SIZE * counts
    good = (key >= table_end[owner]) & (end <= (base + size)[owner]) & (key_len > 0) & (key_len <= MAX_KEY_SIZE)
    # bolt packs what it writes: a record that ends inside another one has a size that is not its own.
    order = np.lexsort((key, owner))
    follows = np.ones(len(owner), dtype=np.bool_)
    if len(order):
        reaches = np.where(good, end, 0)[order[:-1]]
        into_next = (owner[order[:-1]] == owner[order[1:]]) & good[order[1:]] & (reaches > key[order[1:]])
        follows[order[:-1][into_next]] = False
    good &= follows
    chunk = LeafChunk(
        pages=pages,
        leaf_base=base,
        leaf_size=size,
        leaf_page=ids,
        leaf_start=np.searchsorted(owner, np.arange(len(counts) + 1)),
        key_pos=key,
        key_len=key_len,
        value_pos=value,
        value_len=end - value,
        first_record=0,
        first_leaf=0,
        total_leaves=len(counts),
    )
    return _only(chunk, owner, good), flags[good], owner[good]


def _only(chunk: LeafChunk, owner: Positions, rows: NDArray[np.bool_]) -> LeafChunk:
    owner = owner[rows]
    return LeafChunk(
        pages=chunk.pages,
        leaf_base=chunk.leaf_base,
        leaf_size=chunk.leaf_size,
        leaf_page=chunk.leaf_page,
        leaf_start=np.searchsorted(owner, np.arange(len(chunk.leaf_base) + 1)),
        key_pos=chunk.key_pos[rows],
        key_len=chunk.key_len[rows],
        value_pos=chunk.value_pos[rows],
        value_len=chunk.value_len[rows],
        first_record=0,
        first_leaf=0,
        total_leaves=chunk.total_leaves,
    )


def _metas(buffer: memoryview) -> Iterator[tuple[Meta, bool]]:
    """Yield metas with a right checksum, the newest first, then those that are wrong in that alone."""
    sound, doubtful = [], []
    for offset in (0, *PAGE_SIZES):
        page = bytes(buffer[offset : offset + META_SIZE])
        if len(page) < META_SIZE:
            continue
        try:
            meta = decode_meta(page)
        except BadMeta:
            body = MetaBody.from_buffer_copy(page, HEADER_SIZE)
            if body.magic != MAGIC or body.page_size not in PAGE_SIZES or offset not in {0, body.page_size}:
                continue
            doubtful.append(
                Meta(
                    page_size=body.page_size,
                    root=PageId(body.root.root),
                    sequence=body.root.sequence,
                    freelist=body.freelist,
                    high_water_mark=body.high_water_mark,
                    txid=TxId(body.txid),
                )
            )
        else:
            if offset in {0, meta.page_size}:
                sound.append(meta)
    for trusted, metas in ((True, sound), (False, doubtful)):
        for meta in sorted(metas, key=lambda one: one.txid, reverse=True):
            yield meta, trusted


def _guess_page_size(buffer: memoryview) -> int:
    """Return the page size at which most pages have their own number and legal flags."""
    best, most = 0, 0
    words = np.frombuffer(buffer if len(buffer) else bytes(8), dtype="<u8", count=len(buffer) // 8)
    for page_size in (*_USUAL_SIZES, *(size for size in PAGE_SIZES if size not in _USUAL_SIZES)):
        step = page_size // 8
        first, second = words[2 * step :: step], words[2 * step + 1 :: step]
        first = first[: len(second)]
        fits = first == np.arange(2, len(first) + 2, dtype=np.uint64)
        fits &= np.isin(second & np.uint64(0xFFFF), _LEGAL_FLAGS)
        # A smaller size sees the pages of a larger one at multiples of their number, so it is never right by chance.
        if int(fits.sum()) > most:
            best, most = page_size, int(fits.sum())
    if not best:
        raise NothingToCarve(
            "no page of a bolt file is left at any page size", hint="is this an etcd snapshot or member/snap/db?"
        )
    return best
