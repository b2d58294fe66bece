"""A bolt file as buckets of byte pairs: which meta counts, where its page size comes from, and the buckets of its root.

Source: bbolt db.go (`meta`, `getPageSize`), bucket.go (`openBucket`); docs/formats/bolt.md, "Which meta counts",
"High-water mark" and "Buckets". Knows nothing of what the buckets are for, and opens no file.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator
from mmap import mmap

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
from snaptool.bolt.walk import Chunk, Walk
from snaptool.errors import FormatError

Release = Callable[[], None]
"""Told now and then that what was read so far may leave the memory."""

LET_GO = 16 << 20  # bytes of a map that may stay in memory behind a walk
MAX_BUCKETS = 1000  # a hostile file could hold millions of empty ones; bolt sets no limit, etcd makes ten


class NotABoltFile(FormatError):
    """No usable meta page, or a file shorter than its meta says."""


class Bucket:
    """One bucket: its records in key order. `root`: page id of its tree, 0 when it lies in the root bucket's leaf.

    `image`: of such a one, offset and size of its page image, and the page that holds it.
    """

    def __init__(
        self,
        database: Database,
        name: bytes,
        sequence: int,
        root: int,
        image: tuple[int, int, int] = (0, 0, 0),
        flags: int = 0,
    ) -> None:
        self._flags = flags
        self.name = name
        self.sequence = sequence
        self.root = root
        self.image = image
        self._database = database

    def begin(self, walk: Walk) -> None:
        """Put a walk at the start of the bucket. Raises CorruptPage."""
        if self.root:
            walk.begin(self.root, self._flags)
        else:
            walk.begin_inline(*self.image)

    def new_walk(self) -> Walk:
        """Return a walk at the start of the bucket. Raises CorruptPage."""
        walk = self._database.new_walk()
        self.begin(walk)
        return walk

    def leaves(self, walk: Walk | None = None, chunk: Chunk | None = None) -> Iterator[Chunk]:
        """Yield the leaves in order, some at a time: `chunk`, filled again and again. Raises CorruptPage.

        `walk`: one that may have reached other pages before; by default one of its own.
        """
        chunk = Chunk() if chunk is None else chunk
        walk = walk or self._database.new_walk()
        self.begin(walk)
        walked = 0
        while walk.fill(chunk):
            yield chunk
            walked += chunk.size
            if walked >= LET_GO:
                self._database.let_go()
                walked = 0

    def last_key(self) -> bytes | None:
        """Return the key of the last record; None of an empty bucket. Raises CorruptPage.

        Reads the way there alone, unless the last leaf is empty, which bolt leaves behind in the middle of a
        transaction only.
        """
        view, chunk, walk = self._database.view, Chunk(), self._database.new_walk()
        self.begin(walk)
        walk.to_last_leaf()
        walk.fill(chunk)
        last = chunk.key(view, chunk.records - 1) if chunk.records else None
        for found in self.leaves() if last is None else ():
            last = found.key(view, found.records - 1) if found.records else last
        return last

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and value of every record, in key order. Raises CorruptPage."""
        view = self._database.view
        for chunk in self.leaves():
            for row in range(chunk.records):
                yield chunk.key(view, row), chunk.value(view, row)

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
        self.view = self._buffer[:needed]
        """The pages of the database."""
        self._release = release
        self.tolerant = False
        """Walks step over what is broken, and tell nobody, unless they have a report."""
        self._buckets: dict[bytes, Bucket] | None = None

    def let_go(self) -> None:
        """Tell that what was read so far may leave the memory."""
        if self._release is not None:
            self._release()

    @property
    def page_size(self) -> int:
        """Bytes per page."""
        return self.meta.page_size

    @property
    def high_water_mark(self) -> int:
        """Number of pages ever allocated: the file needs that many."""
        return self.meta.high_water_mark

    def buckets(self) -> dict[bytes, Bucket]:
        """Return the buckets in name order. Raises CorruptPage."""
        if self._buckets is None:
            self._buckets = self.walk_buckets(self.new_walk())
        return self._buckets

    def new_walk(self, report: list[Problem] | None = None) -> Walk:
        """Return a walk that has reached no page yet. See there for `report`."""
        return Walk(self.view, self.page_size, self.high_water_mark, [] if report is None and self.tolerant else report)

    def page_bytes(self, page: int) -> bytes:
        """Return the bytes of one page below the high-water mark, whatever it is."""
        return bytes(self._buffer[page * self.page_size : (page + 1) * self.page_size])

    def free_pages(self, walk: Walk | None = None) -> list[int]:
        """Return the ids of the pages that nothing uses: neither metas, nor trees, nor the freelist itself.

        `walk`: one that has all trees behind it; by default they are walked now. Raises CorruptPage.
        """
        if walk is None:
            walk = self.new_walk()
            for bucket in self.walk_buckets(walk).values():
                for _ in bucket.leaves(walk):
                    pass
        used = bytearray(walk.reached_pages())
        used[:2] = b"\1\1"
        _, span, _ = read_freelist(self)
        used[self.meta.freelist : self.meta.freelist + span] = b"\1" * span
        free, page = [], used.find(0)
        while page >= 0:
            free.append(page)
            page = used.find(0, page + 1)
        return free

    def root_bucket(self) -> Bucket:
        """Return the bucket whose records are the buckets."""
        return Bucket(self, b"", self.meta.sequence, self.meta.root, flags=BUCKET_FLAG)

    def walk_buckets(self, walk: Walk) -> dict[bytes, Bucket]:
        """Return the buckets, reading through `walk`, which decides what becomes of problems."""
        found: dict[bytes, Bucket] = {}
        root, rows = self.meta.root, []
        for chunk in self.root_bucket().leaves(walk):
            for row in range(chunk.records):
                page = chunk.leaf_page[chunk.leaf_of(row)]
                rows.append((chunk.key(self.view, row), chunk.value_at[row], chunk.value_size[row], page))
            if len(rows) > MAX_BUCKETS:
                walk.told(root, f"the root holds {len(rows)} buckets, not {MAX_BUCKETS} at most")
                return found
        for name, start, size, page in rows:
            bucket = self._open_bucket(name, start, size, page, walk)
            if bucket is not None:
                found[name] = bucket
        return found

    def _open_bucket(self, name: bytes, start: int, size: int, page: int, walk: Walk) -> Bucket | None:
        if size < BUCKET_HEADER_SIZE:
            walk.told(page, f"the header of bucket {name!r} is cut off")
            return None
        header = BucketHeader.from_buffer_copy(self._buffer, start)
        if header.root:
            return Bucket(self, name, header.sequence, header.root)
        at, size = start + BUCKET_HEADER_SIZE, size - BUCKET_HEADER_SIZE
        problem = self._inline_problem(at, size)
        if problem:
            walk.told(page, problem.format(repr(name)))
            at, size = 0, 0
        return Bucket(self, name, header.sequence, 0, (at, size, page))

    def _inline_problem(self, start: int, size: int) -> str:
        if size < HEADER_SIZE:
            return "the inline bucket {} is cut off"
        header = PageHeader.from_buffer_copy(self._buffer, start)
        if header.id != 0 or header.flags != PageFlag.LEAF or header.overflow:
            return "the inline bucket {} is not a leaf"
        if HEADER_SIZE + ELEMENT_SIZE * header.count > size:
            return f"the {header.count} elements of inline bucket {{}} do not fit into it"
        return ""


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


def read_freelist(database: Database) -> tuple[array[int], int, str | None]:
    """Read the freelist: its page ids, how many pages it occupies (0 when there is none), and what is wrong with it."""
    start, nothing = database.meta.freelist, array("Q")
    if start == NO_FREELIST:
        return nothing, 0, None
    if not 2 <= start < database.high_water_mark:
        return nothing, 0, "the meta names a freelist page that is not in the file"
    base = start * database.page_size
    header = PageHeader.from_buffer_copy(database.view, base)
    span = header.overflow + 1
    if header.id != start or header.flags != PageFlag.FREELIST or start + span > database.high_water_mark:
        return nothing, 0, "its header is not that of a freelist page"
    first, count = base + HEADER_SIZE, header.count
    if count == MANY_IDS:
        first, count = first + 8, int.from_bytes(database.view[first : first + 8], "little")
    if first + 8 * count > base + span * database.page_size:
        return nothing, span, f"its {count} ids do not fit into it"
    ids = array("Q", bytes(database.view[first : first + 8 * count]))
    if sys.byteorder == "big":
        ids.byteswap()
    return ids, span, None
