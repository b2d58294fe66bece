"""Writes a bolt file in one pass: leaves as they come, branches above them, metas last.

The result is what a fresh defragmentation would give, only more so: no free page, no slack content, no freelist ids,
every branch with at least two children (a lone child passes every check and kills the server at its next compaction),
equal bytes for equal input. Leaves in which nothing changed are carried over whole: elements point relative to
themselves, so only the page id in the header differs.

Records and carried leaves wait until there is a block of them; then the pages, headers and element tables of the whole
block are made by array operations. Where a block ends has no influence on the result: a last leaf that is not full
waits for the next one.

Source: docs/formats/bolt.md, "Writing", a recipe verified on etcd 3.4 to 3.7; bbolt node.go (`write`), bucket.go
(`inlineable`). Knows buckets of byte pairs and a sink; knows nothing of what they mean.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from snaptool.bolt.layout import (
    BRANCH_ELEMENT,
    BUCKET_FLAG,
    ELEMENT_SIZE,
    HEADER_SIZE,
    LEAF_ELEMENT,
    MAX_KEY_SIZE,
    MAX_PAGE_COUNT,
    MAX_VALUE_SIZE,
    PAGE_HEADER,
    BucketHeader,
    LeafElement,
    Meta,
    PageFlag,
    PageHeader,
    PageId,
    TxId,
    encode_meta,
    struct_format,
)
from snaptool.bolt.scan import PageMap, Positions, blocks, spans
from snaptool.errors import SnaptoolError

_BLOCK_BYTES = 2 << 20  # measured: 1-2 MB stay in the cache
_FIRST_DATA_PAGE = 3
_LAST_TXID = (1 << 64) - 2
_HEADER = struct.Struct(struct_format(PageHeader))
_LEAF = struct.Struct(struct_format(LeafElement))


class Sink(Protocol):
    """Where the file goes: written in order, but for the metas, which are known last and come first."""

    def write(self, data: bytes | bytearray | memoryview) -> object:
        """Write at the position and move it."""

    def seek(self, offset: int) -> object:
        """Move the position."""


class BadOrder(SnaptoolError):
    """Keys or buckets were not given in ascending order, or are beyond bolt's limits: a mistake of the caller."""


class OtherPageSize(SnaptoolError):
    """Leaves to be carried over have another page size than the file: a mistake of the caller."""


class _Level:
    """Pages of one level of a tree, in key order: id and first key of each. About 30 bytes per page."""

    def __init__(self) -> None:
        self.ids = array("Q")
        self.key_sizes = array("H")
        self.keys = bytearray()

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, pages: NDArray[np.uint64], key_sizes: NDArray[np.uint16], keys: bytes) -> None:
        """Add pages: their ids, and the sizes and bytes of their first keys."""
        self.ids.frombytes(pages.tobytes())
        self.key_sizes.frombytes(key_sizes.tobytes())
        self.keys += keys


def first_pages(meta: Meta) -> bytes:
    """Return the pages before the trees: both metas, and a freelist that lists nothing, which any bolt can open."""
    older = replace(meta, txid=TxId(meta.txid - 1))
    freelist = _HEADER.pack(2, PageFlag.FREELIST, 0, 0).ljust(meta.page_size, b"\0")
    return encode_meta(meta, 0) + encode_meta(older, 1) + freelist


class DatabaseWriter:
    """Writes buckets, in ascending name order, to `sink`. `page_size` in bytes; `txid`: that of the source, or 0."""

    def __init__(self, sink: Sink, *, page_size: int = 4096, txid: int = 0) -> None:
        self.page_size = page_size
        self._sink = sink
        # Page 0 holds the meta with the even id, as if a transaction had written it there.
        self._txid = min(max(txid + txid % 2, 2), _LAST_TXID)
        self._next_page = _FIRST_DATA_PAGE
        self._block: list[bytes | memoryview] = []
        self._block_bytes = 0
        self._buckets: list[tuple[bytes, bytes]] = []
        self.emit(bytes(_FIRST_DATA_PAGE * page_size))  # `finish` writes them

    @contextmanager
    def bucket(self, name: bytes, sequence: int = 0) -> Iterator[BucketWriter]:
        """Open the next bucket for writing; it is complete when the block ends."""
        if self._buckets and name <= self._buckets[-1][0]:
            raise BadOrder(f"bucket {name!r} comes after {self._buckets[-1][0]!r}")
        writer = BucketWriter(self)
        yield writer
        self._buckets.append((name, writer.close(sequence)))

    def finish(self) -> Meta:
        """Write the root bucket and the metas; return the meta that counts."""
        root = BucketWriter(self, element_flags=BUCKET_FLAG)
        for name, header in self._buckets:
            root.put(name, header)
        meta = Meta(
            page_size=self.page_size,
            root=PageId(root.close_tree()),
            sequence=0,
            freelist=2,
            high_water_mark=self._next_page,
            txid=TxId(self._txid),
        )
        self._flush()
        self._sink.seek(0)
        self._sink.write(first_pages(meta))
        return meta

    def allocate(self, pages: int) -> int:
        """Hand out that many consecutive page ids; return the first."""
        page = self._next_page
        self._next_page += pages
        return page

    def emit(self, data: bytes | memoryview) -> None:
        """Write whole pages, in the order in which their ids were handed out."""
        if len(data) >= _BLOCK_BYTES // 2:
            self._flush()
            self._sink.write(data)
            return
        self._block.append(data)
        self._block_bytes += len(data)
        if self._block_bytes >= _BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._block:
            self._sink.write(self._block[0] if len(self._block) == 1 else b"".join(self._block))
            self._block = []
            self._block_bytes = 0


class BucketWriter:
    """Takes the records of one bucket in ascending key order, one by one or in whole leaves."""

    def __init__(self, database: DatabaseWriter, element_flags: int = 0) -> None:
        self._database = database
        self._flags = element_flags
        self._leaves = _Level()
        self._last = b""
        self._data: list[bytes | memoryview] = []  # keys and values of the records that wait, back to back
        self._sizes = array("q")  # key, value, key, value, …
        self._runs: list[_Run] = []
        self._waiting = 0  # bytes of all that wait, page headers not counted
        # A leaf that waits for more is looked at again with every block, so a block has to be larger than a leaf.
        self._enough = max(_BLOCK_BYTES, 2 * database.page_size)

    def put(self, key: bytes, value: bytes) -> None:
        """Add one record. Raises BadOrder unless `key` is above all keys so far and within bolt's limits."""
        if key <= self._last or len(key) > MAX_KEY_SIZE or len(value) > MAX_VALUE_SIZE:
            raise BadOrder(f"record {key[:40].hex()} is not above {self._last[:40].hex()}, or too large")
        self._last = key
        self._data += (key, value)
        self._sizes.extend((len(key), len(value)))
        self._waiting += ELEMENT_SIZE + len(key) + len(value)
        if self._waiting >= self._enough:
            self._write_block()

    def put_records(self, data: bytes, key_sizes: Positions, value_sizes: Positions) -> None:
        """Add records whose keys and values stand back to back in `data`, in an order that was checked before.

        Raises BadOrder unless the first one's key is above all keys so far, and all are within bolt's limits.
        """
        if not len(key_sizes):
            return
        head, last = data[: key_sizes[0]], len(data) - int(value_sizes[-1])
        if head <= self._last or key_sizes.max() > MAX_KEY_SIZE or value_sizes.max() > MAX_VALUE_SIZE:
            raise BadOrder(f"record {head[:40].hex()} is not above {self._last[:40].hex()}, or one is too large")
        self._last = data[last - int(key_sizes[-1]) : last]
        self._data.append(data)
        self._sizes.frombytes(np.stack((key_sizes, value_sizes), axis=1).tobytes())
        self._waiting += ELEMENT_SIZE * len(key_sizes) + len(data)
        if self._waiting >= self._enough:
            self._write_block()

    def put_leaves(self, pages: PageMap, ids: Positions, sizes: Positions) -> None:
        """Carry leaves over whole: those at page `ids`, of `sizes` bytes, all portable, from the file of `pages`.

        Raises BadOrder unless their keys are above all keys so far, and OtherPageSize.
        """
        if not len(ids):
            return
        if pages.page_size != self._database.page_size:
            raise OtherPageSize(f"pages of {pages.page_size} bytes in a file of {self._database.page_size}")
        head, tail = _end_key(pages, int(ids[0]), last=False), _end_key(pages, int(ids[-1]), last=True)
        if head <= self._last:
            raise BadOrder(f"leaf that begins with {head[:40].hex()} is not above {self._last[:40].hex()}")
        self._last = tail
        if self._runs and self._runs[-1].pages is not pages:
            self._write_block()
        total = int(sizes.sum())
        parts = blocks((np.cumsum(sizes), _BLOCK_BYTES // 2)) if total > _BLOCK_BYTES // 2 else [slice(None)]
        for part in parts:
            self._runs.append(_Run(len(self._sizes) // 2, pages, ids[part], sizes[part]))
            self._waiting += int(sizes[part].sum()) if len(sizes[part]) < len(sizes) else total
            if self._waiting >= self._enough:
                self._write_block()

    def _write_block(self, *, finish: bool = False) -> None:
        """Write what waits; a last leaf that is not full waits on, unless this is to `finish`."""
        page_size = self._database.page_size
        runs, self._runs = self._runs, []
        packed = _pack(np.frombuffer(self._sizes, dtype=np.int64), [run.after for run in runs], page_size)
        if not finish and len(packed.first) and packed.before[-1] == len(runs) and packed.size[-1] < page_size:
            packed = packed.without_last()
        data = memoryview(b"".join(self._data))
        used = int(packed.lengths[: 2 * packed.records].sum())
        self._data = [data[used:]]
        self._sizes = self._sizes[2 * packed.records :]
        self._waiting = len(data) - used + ELEMENT_SIZE * (len(self._sizes) // 2)
        # The order of all leaves: built ones by the run that they stand before, carried ones by their run.
        source = np.concatenate([np.empty(0, np.int64), *(run.ids for run in runs)])
        sizes = np.concatenate([np.empty(0, np.int64), *(run.sizes for run in runs)])
        run_of = np.repeat(np.arange(len(runs)), [len(run.ids) for run in runs])
        order = np.argsort(np.concatenate([2 * packed.before, 2 * run_of + 1]), kind="stable")
        built_pages, carried_pages = -(-packed.size // page_size), sizes // page_size
        pages = np.concatenate([built_pages, carried_pages])
        total = int(pages.sum())
        if not total:
            return
        # From here on a leaf is known by its row: the number of its first page within the block.
        rows = np.empty_like(pages)
        rows[order] = np.cumsum(pages[order]) - pages[order]
        page = self._database.allocate(total)
        built, carried = rows[: len(built_pages)], rows[len(built_pages) :]
        if len(carried):
            wanted = np.zeros(total, dtype=np.int64)  # any page will do where a built one comes
            wanted[spans(carried, carried_pages)] = spans(source, carried_pages)
            block = runs[0].pages.bytes.reshape(-1, page_size)[wanted]
            block[spans(built, built_pages)] = 0
            block.view("<u8")[carried, 0] = page + carried
        else:
            block = np.zeros((total, page_size), dtype=np.uint8)
        packed.fill(block.reshape(-1), built * page_size, data, page + built, built_pages, self._flags)
        self._add_leaves(block, page, rows[order])
        self._database.emit(block.reshape(-1).data)

    def _add_leaves(self, block: NDArray[np.uint8], page: int, rows: Positions) -> None:
        """Note id and first key of the leaves that start at `rows` of a block whose first page is `page`."""
        first = block.view("<u4")[rows, HEADER_SIZE // 4 : (HEADER_SIZE + ELEMENT_SIZE) // 4].astype(np.int64)
        key_at, key_sizes = rows * block.shape[1] + HEADER_SIZE + first[:, 1], first[:, 2]
        keys = block.reshape(-1)[spans(key_at, key_sizes)].tobytes()
        self._leaves.add((page + rows).astype(np.uint64), key_sizes.astype(np.uint16), keys)

    def close(self, sequence: int) -> bytes:
        """Finish the bucket and return its header: with the whole bucket in it when that is small, as bbolt does."""
        size = HEADER_SIZE + self._waiting
        if len(self._leaves) or self._runs or size > self._database.page_size // 4:
            return bytes(BucketHeader(self.close_tree(), sequence))
        image = np.zeros(-(-size // ELEMENT_SIZE) * ELEMENT_SIZE, dtype=np.uint8)
        image[:HEADER_SIZE] = np.frombuffer(_HEADER.pack(0, PageFlag.LEAF, 0, 0), dtype=np.uint8)
        if self._sizes:
            first, pages = np.zeros(1, np.int64), np.ones(1, np.int64)
            packed = _pack(np.frombuffer(self._sizes, dtype=np.int64), [], size)
            packed.fill(image, first, memoryview(b"".join(self._data)), first, pages, self._flags)
        return bytes(BucketHeader(0, sequence)) + image[:size].tobytes()

    def close_tree(self) -> int:
        """Write what is left and the branches above; return the id of the top page."""
        self._write_block(finish=True)
        level = self._leaves
        if not len(level):
            page = self._database.allocate(1)
            image = _HEADER.pack(page, PageFlag.LEAF, 0, 0)
            self._database.emit(image.ljust(self._database.page_size, b"\0"))
            return page
        while len(level) > 1:
            level = self._write_branches(level)
        return level.ids[0]

    def _write_branches(self, below: _Level) -> _Level:
        size, above = self._database.page_size, _Level()
        below_sizes = np.frombuffer(below.key_sizes, dtype=np.uint16)
        key_sizes = below_sizes.astype(np.int64)
        key_ends = np.cumsum(key_sizes)
        ends = np.cumsum(key_sizes + ELEMENT_SIZE)
        ids = np.frombuffer(below.ids, dtype=np.uint64)
        start = 0
        while start < len(below):
            used = int(ends[start - 1]) if start else 0
            end = int(np.searchsorted(ends, used + size - HEADER_SIZE, side="right"))
            # Two children at least, even where long keys make the page overflow; and none left alone for the last page.
            end = min(max(end, start + 2), start + MAX_PAGE_COUNT, len(below))
            if len(below) - end == 1:
                end = end - 1 if end - start > 2 else end + 1
            first_byte = int(key_ends[start - 1]) if start else 0
            data = bytes(below.keys[first_byte : int(key_ends[end - 1])])
            table = np.zeros(end - start, dtype=BRANCH_ELEMENT)
            table["ksize"] = key_sizes[start:end]
            table["pgid"] = ids[start:end]
            before = key_ends[start:end] - key_sizes[start:end] - first_byte
            table["pos"] = ELEMENT_SIZE * (end - start - np.arange(end - start)) + before
            content = table.tobytes() + data
            pages = -(-(HEADER_SIZE + len(content)) // size)
            page = self._database.allocate(pages)
            header = _HEADER.pack(page, PageFlag.BRANCH, end - start, pages - 1)
            self._database.emit((header + content).ljust(pages * size, b"\0"))
            above.add(np.array([page], np.uint64), below_sizes[start : start + 1], data[: int(key_sizes[start])])
            start = end
        return above


@dataclass(frozen=True, slots=True)
class _Run:
    """Leaves that are carried over whole, and how many of the waiting records come before them."""

    after: int
    pages: PageMap
    ids: Positions
    sizes: Positions


def _end_key(pages: PageMap, page: int, *, last: bool) -> bytes:
    """Return the first or the last key of a leaf."""
    start = page * pages.page_size
    count = _HEADER.unpack_from(pages.bytes.data, start)[2]
    element = start + HEADER_SIZE + ELEMENT_SIZE * (count - 1 if last else 0)
    _, position, size, _ = _LEAF.unpack_from(pages.bytes.data, element)
    return pages.bytes[element + position : element + position + size].tobytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packed:
    """How records are shared out among leaves.

    `lengths`: size of every key and value in turn. `first`, `size`, `before`: of each leaf, its first record, its size
    in bytes, and the run that comes after it. `records`: how many are in these leaves.
    """

    lengths: Positions
    first: Positions
    size: Positions
    before: Positions
    records: int

    def without_last(self) -> _Packed:
        """Leave out the last leaf."""
        return replace(
            self,
            first=self.first[:-1],
            size=self.size[:-1],
            before=self.before[:-1],
            records=int(self.first[-1]),
        )

    def fill(
        self, block: NDArray[np.uint8], at: Positions, data: memoryview, ids: Positions, pages: Positions, flags: int
    ) -> None:
        """Build the leaves in `block`, which has zeros there, each at its offset `at`; `data` are all their records."""
        key, value = self.lengths[: 2 * self.records : 2], self.lengths[1 : 2 * self.records : 2]
        last = np.append(self.first[1:], self.records)[: len(self.first)]
        count = last - self.first
        leaf = np.repeat(np.arange(len(last)), count)
        ends = np.concatenate(([0], np.cumsum(key + value)))
        index = np.arange(self.records) - self.first[leaf]
        table = np.zeros(self.records, dtype=LEAF_ELEMENT)
        table["flags"], table["ksize"], table["vsize"] = flags, key, value
        table["pos"] = ELEMENT_SIZE * (count[leaf] - index) + ends[:-1] - ends[self.first[leaf]]
        header = np.zeros(len(last), dtype=PAGE_HEADER)
        header["id"], header["flags"], header["count"], header["overflow"] = ids, PageFlag.LEAF, count, pages - 1
        # Headers and elements have 16 bytes both, and stand at multiples of 16.
        block.view(PAGE_HEADER)[at // HEADER_SIZE] = header
        block.view(LEAF_ELEMENT)[(at + HEADER_SIZE)[leaf] // ELEMENT_SIZE + index] = table
        target = block.data
        for start, begin, end in zip(
            (at + HEADER_SIZE + ELEMENT_SIZE * count).tolist(),
            ends[self.first].tolist(),
            ends[last].tolist(),
            strict=True,
        ):
            target[start : start + end - begin] = data[begin:end]


def _pack(lengths: Positions, borders: list[int], page_size: int) -> _Packed:
    """Share records out among leaves: as many as fit, one at least; a leaf ends at every border too."""
    lengths = lengths.copy()
    sums = np.cumsum(lengths[::2] + lengths[1::2] + ELEMENT_SIZE)
    ends: list[int] = sums.tolist()
    first: list[int] = []
    before: list[int] = []
    start = 0
    for group, border in enumerate([*borders, len(ends)]):
        while start < border:
            used = ends[start - 1] if start else 0
            end = bisect_right(ends, used + page_size - HEADER_SIZE, start, border)
            first.append(start)
            before.append(group)
            start = min(max(end, start + 1), start + MAX_PAGE_COUNT)
    begins = np.array(first, dtype=np.int64)
    tops = np.concatenate(([0], sums))[np.append(begins, len(ends))]
    return _Packed(
        lengths=lengths,
        first=begins,
        size=HEADER_SIZE + np.diff(tops),
        before=np.array(before, dtype=np.int64),
        records=len(ends),
    )
