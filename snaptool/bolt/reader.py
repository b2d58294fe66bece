"""A bolt file as buckets of byte pairs: which meta counts, where its page size comes from, and the buckets of its root.

Source: bbolt db.go (`meta`, `getPageSize`), bucket.go (`openBucket`); docs/formats/bolt.md, "Which meta counts",
"High-water mark" and "Buckets". Knows nothing of what the buckets are for, and opens no file.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from snaptool.bolt.faults import CorruptPage, Problem
from snaptool.bolt.layout import (
    BUCKET_FLAG,
    BUCKET_HEADER_SIZE,
    ELEMENT_SIZE,
    HEADER_SIZE,
    MANY_IDS,
    META_SIZE,
    NO_FREELIST,
    NO_MAGIC,
    PAGE_SIZES,
    BadMeta,
    BucketHeader,
    ByteOrderNotSupported,
    Meta,
    PageFlag,
    PageHeader,
    decode_meta,
)
from snaptool.bolt.scan import CHUNK_RECORDS, LeafChunk, Leaves, PageMap, Release, Walk, spans
from snaptool.bolt.walk import Chunk
from snaptool.bolt.walk import Walk as TreeWalk
from snaptool.errors import FormatError

LET_GO = 32 << 20  # bytes of a map that may stay in memory behind a walk
MAX_BUCKETS = 1000  # a hostile file could hold millions of empty ones; bolt sets no limit, etcd makes ten


class NotABoltFile(FormatError):
    """No usable meta page, or a file shorter than its meta says."""


class Bucket:
    """One bucket: its records in key order. `root`: page id of its tree, 0 when it lies in the root bucket's leaf."""

    def __init__(self, name: bytes, sequence: int, root: int, walk: Walk, leaves: Leaves) -> None:
        self.name = name
        self.sequence = sequence
        self.root = root
        self._walk = walk
        self._leaves = leaves

    @property
    def leaf_count(self) -> int:
        """Number of leaves."""
        return len(self._leaves)

    @property
    def record_count(self) -> int:
        """Number of records, by the page headers."""
        return int(self._leaves.count.sum())

    def begin(self, walk: TreeWalk) -> None:
        """Put a walk at the start of the bucket. Raises CorruptPage."""
        if self._leaves.image is None:
            walk.begin(self.root)
        else:
            walk.begin_inline(*self._leaves.image, self._leaves.holder)

    def leaves(self, walk: TreeWalk | None = None, chunk: Chunk | None = None) -> Iterator[Chunk]:
        """Yield the leaves in order, some at a time: `chunk`, filled again and again. Raises CorruptPage.

        `walk`: one that may have reached other pages before; by default one of its own.
        """
        pages, chunk = self._walk.pages, Chunk() if chunk is None else chunk
        walk = walk or TreeWalk(pages.view, pages.page_size, pages.size)
        self.begin(walk)
        walked = 0
        while walk.fill(chunk):
            yield chunk
            walked += chunk.size
            if walked >= LET_GO:
                pages.let_go()
                walked = 0

    def chunks(
        self, max_records: int = CHUNK_RECORDS, *, first_leaf: int = 0, last_leaf: int | None = None
    ) -> Iterator[LeafChunk]:
        """Yield the records as arrays, in runs of whole leaves of about `max_records`. Raises CorruptPage.

        `first_leaf`, `last_leaf`: only leaves from the one to the other (not included), by number.
        """
        return self._walk.chunks(self._leaves, max_records, first_leaf, last_leaf)

    def chunk(self, numbers: NDArray[np.int64]) -> LeafChunk:
        """Read the leaves of these numbers alone, ascending, one at least. Raises CorruptPage."""
        return self._walk.chunk(self._leaves, numbers, int(self._leaves.count[: numbers[0]].sum(dtype=np.int64)))

    def leaf_sizes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return page id and size in bytes of each leaf."""
        leaves, page_size = self._leaves, self._walk.pages.page_size
        return leaves.trail[-1].nodes, (leaves.overflow + np.int64(1)) * page_size

    def leaf_pages(self) -> NDArray[np.int64]:
        """Number all pages of the leaves of a bucket that has a tree of its own."""
        return spans(self._leaves.trail[-1].nodes, self._leaves.overflow + np.int64(1))

    def leaf_starts(self) -> NDArray[np.int64]:
        """Number the first record of each leaf; one more entry for the end."""
        return np.concatenate((np.zeros(1, np.int64), np.cumsum(self._leaves.count, dtype=np.int64)))

    def is_found_by_first_keys(self, leaves: LeafChunk) -> bool:
        """Do these leaves, a chunk of this bucket, begin with the keys under which branches have them?

        To read, a branch's key may be any that divides the leaves. Bolt's writer looks for the leaf's first key in the
        branch when it replaces the leaf; does it not find it, the old page stays in the tree.
        """
        first = leaves.leaf_start[:-1]
        filled = leaves.leaf_start[1:] > first
        numbers = leaves.first_leaf + np.nonzero(filled)[0]
        key, size = leaves.key_pos[first[filled]], leaves.key_len[first[filled]]
        for level in reversed(self._leaves.trail):
            lower, lower_size = level.lower[numbers], level.lower_len[numbers].astype(np.int64)
            if self._walk.pages.compare(lower, lower_size, key, size)[lower >= 0].any():
                return False
            # Where a page is the first one under its branch, the branch itself hangs by the same key.
            eldest = (numbers == 0) | (level.parent[numbers - 1] != level.parent[numbers])
            numbers, key, size = level.parent[numbers[eldest]], key[eldest], size[eldest]
        return True

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and value of every record, in key order. Raises CorruptPage."""
        for chunk in self.chunks():
            data = chunk.buffer.data
            for key, key_len, value, value_len in zip(
                chunk.key_pos.tolist(),
                chunk.key_len.tolist(),
                chunk.value_pos.tolist(),
                chunk.value_len.tolist(),
                strict=True,
            ):
                yield bytes(data[key : key + key_len]), bytes(data[value : value + value_len])

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`. Reads the bucket from its start: for small buckets."""
        return next((value for found, value in self.items() if found == key), None)


class Database:
    """A bolt database in `buffer`, which may be longer than the database.

    `meta` is the one that counts; `meta_problems` says, for pages 0 and 1, why a meta cannot be used (None: it can).
    `release` is called where the memory of a large file can go. With `meta`, that one counts, and those in the file are
    not looked at. Raises NotABoltFile, ByteOrderNotSupported.
    """

    def __init__(
        self, buffer: bytes | mmap | memoryview, release: Release | None = None, *, meta: Meta | None = None
    ) -> None:
        self._buffer = memoryview(buffer)
        self.size = len(self._buffer)
        if meta is None:
            meta, self.meta_problems = _choose_meta(self._buffer)
        else:
            self.meta_problems = None, None
        self.meta = meta
        needed = self.meta.high_water_mark * self.meta.page_size
        if self.size < needed:
            raise NotABoltFile(
                f"the file is cut: its meta counts {self.meta.high_water_mark} pages of {self.meta.page_size} bytes "
                f"({needed} bytes), {self.size} bytes are there",
                hint="take the snapshot or copy again; collect what is left with `snaptool repair --salvage`",
            )
        if not 2 <= self.meta.root < self.meta.high_water_mark:
            raise CorruptPage(self.meta.root, "the meta names it as the root, and it is not a page of the tree")
        self.pages = PageMap(self._buffer, self.meta.page_size, self.meta.high_water_mark, release)
        self._walked: tuple[Walk, dict[bytes, Bucket]] | None = None

    @property
    def page_size(self) -> int:
        """Bytes per page."""
        return self.meta.page_size

    @property
    def high_water_mark(self) -> int:
        """Number of pages ever allocated: the file needs that many."""
        return self.meta.high_water_mark

    def buckets(self) -> dict[bytes, Bucket]:
        """Return the buckets in name order. Walks the trees once, at the first call. Raises CorruptPage."""
        if self._walked is None:
            walk = Walk(self.pages)
            self._walked = walk, self.walk_buckets(walk)
        return self._walked[1]

    def new_walk(self, report: list[Problem] | None = None) -> TreeWalk:
        """Return a walk that has reached no page yet. See there for `report`."""
        return TreeWalk(self.pages.view, self.page_size, self.high_water_mark, report)

    def page_bytes(self, page: int) -> bytes:
        """Return the bytes of one page below the high-water mark, whatever it is."""
        return bytes(self._buffer[page * self.page_size : (page + 1) * self.page_size])

    def free_pages(self) -> NDArray[np.int64]:
        """Return the ids of the pages that nothing uses: neither metas, nor trees, nor the freelist itself."""
        self.buckets()
        assert self._walked is not None
        used = self._walked[0].reached.copy()
        used[:2] = True
        _, span, _ = read_freelist(self)
        if span:
            used[self.meta.freelist : self.meta.freelist + span] = True
        return np.nonzero(~used)[0]

    def walk_buckets(self, walk: Walk) -> dict[bytes, Bucket]:
        """Return the buckets, reading through `walk`, which decides what becomes of problems."""
        found: dict[bytes, Bucket] = {}
        root = self.root_bucket(walk)
        if root.record_count > MAX_BUCKETS:
            walk.complain(
                root.root, f"the root holds {root.record_count} buckets, not {MAX_BUCKETS} at most", (root.root,)
            )
            return found
        for chunk in root.chunks():
            for index in range(len(chunk)):
                bucket = self._open_bucket(chunk, index, walk)
                if bucket is not None:
                    found[bucket.name] = bucket
        return found

    def root_bucket(self, walk: Walk | None = None) -> Bucket:
        """Return the bucket whose records are the buckets, reading through `walk`. Raises CorruptPage without one."""
        walk = walk or Walk(self.pages)
        return Bucket(b"", self.meta.sequence, self.meta.root, walk, walk.leaves(self.meta.root, BUCKET_FLAG))

    def _open_bucket(self, chunk: LeafChunk, index: int, walk: Walk) -> Bucket | None:
        key, start, size = (int(part[index]) for part in (chunk.key_pos, chunk.value_pos, chunk.value_len))
        name = bytes(self._buffer[key : key + int(chunk.key_len[index])])
        leaf = int(np.searchsorted(chunk.leaf_start, index, side="right")) - 1
        page = int(chunk.leaf_page[leaf])
        if size < BUCKET_HEADER_SIZE:
            walk.complain(page, f"the header of bucket {name!r} is cut off", (page,))
            return None
        header = BucketHeader.from_buffer_copy(self._buffer, start)
        if header.root:
            return Bucket(name, header.sequence, header.root, walk, walk.leaves(min(header.root, 1 << 62)))
        leaves = self._inline_leaf(name, page, start + BUCKET_HEADER_SIZE, size - BUCKET_HEADER_SIZE, walk)
        return Bucket(name, header.sequence, 0, walk, leaves)

    def _inline_leaf(self, name: bytes, page: int, start: int, size: int, walk: Walk) -> Leaves:
        count = 0
        if size < HEADER_SIZE:
            walk.complain(page, f"the inline bucket {name!r} is cut off", (page,))
            size = HEADER_SIZE
        else:
            header = PageHeader.from_buffer_copy(self._buffer, start)
            count = header.count
            if header.id != 0 or header.flags != PageFlag.LEAF or header.overflow:
                walk.complain(page, f"the inline bucket {name!r} is not a leaf", (page,))
                count = 0
            elif HEADER_SIZE + ELEMENT_SIZE * count > size:
                walk.complain(page, f"the {count} elements of inline bucket {name!r} do not fit into it", (page,))
                count = 0
        return Leaves.inline(start, size, count, page)


def _choose_meta(buffer: memoryview) -> tuple[Meta, tuple[str | None, str | None]]:
    """Choose as bbolt does: the valid meta with the higher transaction id; page 0 wins a tie."""
    first = _try_meta(buffer, 0)
    # Without a valid first meta its page size is unknown: the second one is looked for at every size there is.
    sizes = (first.page_size,) if isinstance(first, Meta) else PAGE_SIZES
    second: Meta | BadMeta = BadMeta(NO_MAGIC)
    for page_size in sizes:
        found = _try_meta(buffer, page_size)
        if isinstance(found, Meta) and found.page_size != page_size:
            found = BadMeta(f"it claims a page size of {found.page_size}")
        # Of many places that were tried, the one that looked most like a meta says the most.
        if isinstance(found, Meta) or str(second) == NO_MAGIC:
            second = found
        if isinstance(found, Meta):
            break
    valid = [meta for meta in (first, second) if isinstance(meta, Meta)]
    problems = tuple(None if isinstance(meta, Meta) else str(meta) for meta in (first, second))
    if valid:
        return max(valid, key=lambda meta: meta.txid), (problems[0], problems[1])
    for meta in (first, second):
        if isinstance(meta, ByteOrderNotSupported):
            raise meta
    raise NotABoltFile(
        f"no usable meta page: page 0: {problems[0]}; page 1: {problems[1]}",
        hint="is this an etcd snapshot or member/snap/db? What is left of one: `snaptool repair --salvage`",
    )


def _try_meta(buffer: memoryview, offset: int) -> Meta | BadMeta:
    try:
        return decode_meta(bytes(buffer[offset : offset + META_SIZE]))
    except BadMeta as error:
        return error


def read_freelist(database: Database) -> tuple[NDArray[np.uint64], int, str | None]:
    """Read the freelist: its page ids, how many pages it occupies (0 when there is none), and what is wrong with it."""
    start = database.meta.freelist
    nothing = np.empty(0, dtype=np.uint64)
    if start == NO_FREELIST:
        return nothing, 0, None
    if not 2 <= start < database.high_water_mark:
        return nothing, 0, "the meta names a freelist page that is not in the file"
    pages = database.pages
    base = start * pages.page_size
    header = PageHeader.from_buffer_copy(pages.bytes.data, base)
    span = header.overflow + 1
    if header.id != start or header.flags != PageFlag.FREELIST or start + span > database.high_water_mark:
        return nothing, 0, "its header is not that of a freelist page"
    first, count = base + HEADER_SIZE >> 3, header.count
    if count == MANY_IDS:
        first, count = first + 1, int(pages.u64[first])
    if (first + count) * 8 > base + span * pages.page_size:
        return nothing, span, f"its {count} ids do not fit into it"
    return pages.u64[first : first + count], span, None
