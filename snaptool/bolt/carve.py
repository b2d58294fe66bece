"""What is left in a damaged file, and what lies in the free pages of a healthy one.

Two ways to bytes. The *walk* goes from a root, over what is broken, and takes what is reachable. The *carving* looks at
every page that no walk reached: a page whose header has its own number and the flags of a leaf was one once, and its
elements that are in bounds are records that were stored once. Old pages of the root hold whole inline buckets too.

Free pages are used again piecemeal, so the later pages of a large old record may belong to something newer: a record
that runs into a page that is in use, or that has a header of its own, is not carved. Headers in pages that a walk
reached as the rest of a longer page are not looked at, for they are the bytes of values.

Bounded: no element table may lie in another, no record that is carved in another one, and no page may claim more bytes
than it has. Source: docs/formats/bolt.md, "Carving". Knows nothing of what the records are, nor which of them are true.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from mmap import mmap
from operator import or_

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
from snaptool.bolt.walk import Chunk

_USUAL_SIZES = (4096, 16384, 65536, 8192, 1024)
_LEGAL_FLAGS = frozenset(map(int, (PageFlag.BRANCH, PageFlag.LEAF, PageFlag.META, PageFlag.FREELIST)))
_LEAF, _BRANCH = int(PageFlag.LEAF), int(PageFlag.BRANCH)
_HEADER = struct.Struct("<QHHI")  # number, flags, elements, overflow pages
_LEAF_ELEMENT = struct.Struct("<IIII")  # flags, where the key is from here, sizes of key and value
_BRANCH_ELEMENT = struct.Struct("<IIQ")  # where the key is from here, its size, page
_MAX_DEPTH = 64  # far beyond any real tree
_CHUNK_RECORDS = 4096
_ANY = bytes(1) + b"\1" * 255
MOST_ROOTS = 16
"""Old roots that are tried, newest copies being unknown: each costs a walk."""

Elements = list[tuple[int, int, int, int]]
"""Of each its flags, where its key is in the file, and the sizes of key and value, which follow each other."""


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
    reached: bytearray
    problems: tuple[Problem, ...]
    holes: dict[bytes, tuple[tuple[bytes, bytes | None], ...]]


@dataclass(frozen=True, slots=True)
class InlineBucket:
    """A bucket inside a record of an old root page: `size` bytes of a leaf image at offset `at` of the file."""

    name: bytes
    page: int
    at: int
    size: int


class Wreck:
    """A file of which nothing is taken for granted. `page_size` in bytes, `size` in pages.

    Raises NothingToCarve when no page size fits.
    """

    def __init__(self, buffer: bytes | mmap | memoryview) -> None:
        self.view = memoryview(buffer)
        metas = list(_metas(self.view))
        sound = next((meta.page_size for meta, trusted in metas if trusted), 0)
        self.page_size = sound or _guess_page_size(self.view)
        self.size = len(self.view) // self.page_size
        if self.size < 3:
            raise NothingToCarve("the file holds no page of a tree", hint="take another copy of the snapshot")
        self._metas = metas
        self._end = self.size * self.page_size
        self._flags = bytearray(self.size)
        """Of each page its flags, 0 where its header has not its own number, or flags that no page has."""
        for page in range(self.size):
            number, flags, _, _ = _HEADER.unpack_from(self.view, page * self.page_size)
            if number == page and flags in _LEGAL_FLAGS:
                self._flags[page] = flags

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
        for page, elements, _ in self._leaf_pages(bytearray(self.size)):
            first = page * self.page_size + HEADER_SIZE
            table = range(first, first + ELEMENT_SIZE * elements, ELEMENT_SIZE)
            if table and all(_LEAF_ELEMENT.unpack_from(self.view, at)[0] == BUCKET_FLAG for at in table):
                found.append(page)
        return found[::-1]

    def walk(self, root: Root) -> Reached:
        """Take all that is reachable from `root`, stepping over what is broken."""
        meta = self._meta_for(root.page)
        database = Database(self.view, meta=meta)
        report: list[Problem] = []
        database.tolerant = True
        walk = database.new_walk(report)
        buckets = database.walk_buckets(walk)
        for bucket in buckets.values():
            for _ in bucket.leaves(walk):
                pass
        reached = walk.reached_pages()
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

    def _holes(self, root: int, reached: bytearray, broken: set[int]) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the ranges of keys under pages that are broken or were not reached."""
        if not broken:
            return
        todo: list[tuple[int, bytes, bytes | None, int]] = [(root, b"", None, 0)]
        seen: set[int] = set()
        while todo:
            page, low, high, depth = todo.pop()
            if not 2 <= page < self.size or page in broken or not reached[page] or page in seen or depth > _MAX_DEPTH:
                yield low, high
                continue
            seen.add(page)
            if self._flags[page] != _BRANCH:
                continue
            children = self._children(page)
            for index, (key, child) in enumerate(children):
                above = children[index + 1][0] if index + 1 < len(children) else high
                todo.append((child, key if index else low, above, depth + 1))

    def _children(self, page: int) -> list[tuple[bytes, int]]:
        """Read a branch page in which the walk found nothing wrong."""
        base = page * self.page_size
        found = []
        for index in range(_HEADER.unpack_from(self.view, base)[2]):
            at = base + HEADER_SIZE + ELEMENT_SIZE * index
            place, size, child = _BRANCH_ELEMENT.unpack_from(self.view, at)
            found.append((bytes(self.view[at + place : at + place + size]), child))
        return found

    def carve(self, reached: Reached | None) -> Iterator[Chunk]:
        """Yield the records of leaves that no walk reached, or in which it found something wrong.

        The chunk is one object, filled again and again, some leaves at a time; a leaf may have no records.
        """
        chunk = Chunk(_CHUNK_RECORDS)
        for page, table, elements in self._carved(reached):
            if chunk.leaves == chunk.room or chunk.records + table > chunk.room:
                if chunk.leaves:
                    yield chunk
                chunk.leaves = chunk.records = 0
                if table > chunk.room:
                    chunk.make_room(table)
            _add_leaf(chunk, page, elements())
        if chunk.leaves:
            yield chunk

    def inline(self, reached: Reached | None) -> Iterator[InlineBucket]:
        """Yield the inline buckets of old root pages, the last page of the file first."""
        found: list[InlineBucket] = []
        for page, table, elements in self._carved(reached):
            first = page * self.page_size + HEADER_SIZE
            # In all but roots and what is broken, no element has flags.
            if any(bytes(self.view[first : first + ELEMENT_SIZE * table : ELEMENT_SIZE])):
                found += self._inline_in(page, elements())
        return reversed(found)

    def _inline_in(self, page: int, elements: Elements) -> Iterator[InlineBucket]:
        for flags, key, key_size, value_size in elements:
            value = key + key_size
            at, size = value + BUCKET_HEADER_SIZE, value_size - BUCKET_HEADER_SIZE
            if not flags & BUCKET_FLAG or size < HEADER_SIZE or BucketHeader.from_buffer_copy(self.view, value).root:
                continue
            number, kind, table, _ = _HEADER.unpack_from(self.view, at)
            if number == 0 and kind == _LEAF and HEADER_SIZE + ELEMENT_SIZE * table <= size:
                yield InlineBucket(name=bytes(self.view[key:value]), page=page, at=at, size=size)

    def records_of(self, bucket: InlineBucket) -> Chunk:
        """Return the records of an inline bucket, as those of one leaf: the page that holds it."""
        elements = _elements_in(self.view, bucket.at, bucket.size)
        chunk = Chunk(0)
        chunk.make_room(len(elements) + 1)
        _add_leaf(chunk, bucket.page, elements)
        return chunk

    def _carved(self, reached: Reached | None) -> Iterator[tuple[int, int, Callable[[], Elements]]]:
        """Yield old leaves: page, number of elements, and a function that reads those of them that are records."""
        used = bytearray(self.size)
        if reached is not None:
            used[:] = reached.reached
            for problem in reached.problems:
                if 2 <= problem.page < self.size:
                    used[problem.page] = 0
        # Where something else begins or is in use, an old record cannot go on.
        foreign = bytes(map(or_, self._flags, used)).translate(_ANY)
        for page, table, end in self._leaf_pages(used):
            base, following = page * self.page_size, foreign.find(1, page + 1)
            limit = following * self.page_size if following >= 0 else self._end
            yield page, table, partial(_elements_in, self.view, base, end - base, limit)

    def _leaf_pages(self, used: bytearray) -> Iterator[tuple[int, int, int]]:
        """Yield pages that were leaves once, in file order, of which no table of elements lies in that of another.

        Those in use are left out. Page, number of elements, and the offset where the page ends, overflow included.
        """
        reach = 0
        page = self._flags.find(_LEAF, 2)
        while page >= 0:
            if not used[page]:
                base = page * self.page_size
                _, _, table, overflow = _HEADER.unpack_from(self.view, base)
                table_end = base + HEADER_SIZE + ELEMENT_SIZE * table
                end = min(base + (overflow + 1) * self.page_size, self._end)
                if table_end <= end:
                    if base >= reach:
                        yield page, table, end
                    reach = max(reach, table_end)
            page = self._flags.find(_LEAF, page + 1)


def _elements_in(view: memoryview, base: int, size: int, limit: int | None = None) -> Elements:
    """Read the elements of the leaf image at `base` that are in bounds and follow each other.

    Those that do not end before `limit` are left out.
    """
    first = base + HEADER_SIZE
    table_end, end = first + ELEMENT_SIZE * _HEADER.unpack_from(view, base)[2], base + size
    found: Elements = []
    for at, element in zip(count(first, ELEMENT_SIZE), _LEAF_ELEMENT.iter_unpack(view[first:table_end]), strict=False):
        flags, place, key_size, value_size = element
        key = at + place
        if key >= table_end and 0 < key_size <= MAX_KEY_SIZE and key + key_size + value_size <= end:
            found.append((flags, key, key_size, value_size))
    # bolt packs what it writes: a record that ends inside another one has a size that is not its own.
    by_place = sorted(range(len(found)), key=lambda row: found[row][1])
    wrong = {row for row, after in pairwise(by_place) if _end_of(found[row]) > found[after][1]}
    return [
        element
        for row, element in enumerate(found)
        if row not in wrong and (limit is None or _end_of(element) <= limit)
    ]


def _end_of(element: tuple[int, int, int, int]) -> int:
    return element[1] + element[2] + element[3]


def _add_leaf(chunk: Chunk, page: int, elements: Elements) -> None:
    """Put one more leaf into a chunk that has room for it."""
    row = chunk.records
    for _, key, key_size, value_size in elements:
        chunk.key_at[row], chunk.key_size[row] = key, key_size
        chunk.value_at[row], chunk.value_size[row] = key + key_size, value_size
        row += 1
    chunk.leaf_page[chunk.leaves], chunk.leaf_span[chunk.leaves] = page, 0
    chunk.leaf_start[chunk.leaves], chunk.leaf_start[chunk.leaves + 1] = chunk.records, row
    chunk.leaves, chunk.records = chunk.leaves + 1, row


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
    for page_size in (*_USUAL_SIZES, *(size for size in PAGE_SIZES if size not in _USUAL_SIZES)):
        fits = 0
        for page in range(2, (len(buffer) - HEADER_SIZE) // page_size + 1):
            number, flags, _, _ = _HEADER.unpack_from(buffer, page * page_size)
            fits += number == page and flags in _LEGAL_FLAGS
        # A smaller size sees the pages of a larger one at multiples of their number, so it is never right by chance.
        if fits > most:
            best, most = page_size, fits
    if not best:
        raise NothingToCarve(
            "no page of a bolt file is left at any page size", hint="is this an etcd snapshot or member/snap/db?"
        )
    return best
