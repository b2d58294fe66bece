"""Writes a bolt file in one pass: leaves as they come, branches above them, metas last.

The result is what a fresh defragmentation would give, only more so: no free page, no slack content, no freelist ids,
every branch with at least two children (a lone child passes every check and kills the server at its next compaction),
equal bytes for equal input. Leaves in which nothing changed are carried over whole: elements point relative to
themselves, so only the page id in the header differs.

Source: spec/etcd-snapshot.md, section 6, a recipe verified on etcd 3.4 to 3.7; bbolt node.go (`write`), bucket.go
(`inlineable`). Knows buckets of byte pairs and a sink; knows nothing of what they mean.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from snaptool.bolt.layout import (
    BRANCH_ELEMENT,
    BUCKET_FLAG,
    ELEMENT_SIZE,
    HEADER_SIZE,
    MAX_KEY_SIZE,
    MAX_PAGE_COUNT,
    MAX_VALUE_SIZE,
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
from snaptool.bolt.scan import LeafChunk
from snaptool.errors import SnaptoolError

_BLOCK_BYTES = 2 << 20  # measured in design/performance.md: 1-2 MB stay in the cache
_FIRST_DATA_PAGE = 3
_HEADER = struct.Struct(struct_format(PageHeader))
_ELEMENT_CODES = struct_format(LeafElement)[1:]


class Sink(Protocol):
    """Where the file goes: written in order, but for the metas, which are known last and come first."""

    def write(self, data: bytes | bytearray | memoryview) -> object:
        """Write at the position and move it."""

    def seek(self, offset: int) -> object:
        """Move the position."""


class BadOrder(SnaptoolError):
    """Keys or buckets were not given in ascending order, or are beyond bolt's limits: a mistake of the caller."""


class _Level:
    """Pages of one level of a tree, in key order: id and first key of each. About 30 bytes per page."""

    def __init__(self) -> None:
        self.ids = array("Q")
        self.key_sizes = array("H")
        self.keys = bytearray()

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, page: int, key: bytes) -> None:
        self.ids.append(page)
        self.key_sizes.append(len(key))
        self.keys += key


class DatabaseWriter:
    """Writes buckets, in ascending name order, to `sink`. `page_size` in bytes; `txid`: that of the source, or 0."""

    def __init__(self, sink: Sink, *, page_size: int = 4096, txid: int = 0) -> None:
        self.page_size = page_size
        self._sink = sink
        self._txid = txid + txid % 2  # page 0 holds the meta with the even id, as if a transaction had written it there
        self._next_page = _FIRST_DATA_PAGE
        self._block: list[bytes | memoryview] = []
        self._block_bytes = 0
        self._buckets: list[tuple[bytes, bytes]] = []
        # Pages 0 and 1 are written at the end; page 2 is a freelist that lists nothing, which bolt of any age can open.
        self.emit(bytes(2 * page_size))
        self.emit(_HEADER.pack(2, PageFlag.FREELIST, 0, 0).ljust(page_size, b"\0"))

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
            txid=TxId(max(self._txid, 2)),
        )
        older = replace(meta, txid=TxId(meta.txid - 1))
        self._flush()
        self._sink.seek(0)
        self._sink.write(encode_meta(meta, 0) + encode_meta(older, 1))
        return meta

    def allocate(self, pages: int) -> int:
        """Hand out that many consecutive page ids; return the first."""
        page = self._next_page
        self._next_page += pages
        return page

    def emit(self, data: bytes | memoryview) -> None:
        """Write whole pages, in the order in which their ids were handed out."""
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
        self._keys: list[bytes] = []
        self._values: list[bytes] = []
        self._size = HEADER_SIZE
        self._last = b""

    def put(self, key: bytes, value: bytes) -> None:
        """Add one record. Raises BadOrder unless `key` is above all keys so far and within bolt's limits."""
        if key <= self._last or len(key) > MAX_KEY_SIZE or len(value) > MAX_VALUE_SIZE:
            raise BadOrder(f"record {key[:40].hex()} is not above {self._last[:40].hex()}, or too large")
        size = ELEMENT_SIZE + len(key) + len(value)
        if self._keys and (self._size + size > self._database.page_size or len(self._keys) == MAX_PAGE_COUNT):
            self._write_leaf()
        self._keys.append(key)
        self._values.append(value)
        self._size += size
        self._last = key

    def put_leaves(self, chunk: LeafChunk, first: int, last: int) -> None:
        """Carry over leaves `first` to `last` (not included) of `chunk` whole; all of them are portable."""
        pages, ids = chunk.leaf_size[first:last] // self._database.page_size, chunk.leaf_page[first:last]
        starts = chunk.leaf_start[first:last]
        top = int(chunk.leaf_start[last]) - 1
        data = chunk.buffer.data
        head = bytes(data[int(chunk.key_pos[starts[0]]) :][: int(chunk.key_len[starts[0]])])
        if head <= self._last:
            raise BadOrder(f"leaf that begins with {head[:40].hex()} is not above {self._last[:40].hex()}")
        if self._keys:
            self._write_leaf()
        self._last = bytes(data[int(chunk.key_pos[top]) :][: int(chunk.key_len[top])])
        ends = np.cumsum(pages)
        block_pages = max(_BLOCK_BYTES // self._database.page_size, 1)
        at = 0
        while at < len(ids):
            done = int(ends[at - 1]) if at else 0
            until = max(int(np.searchsorted(ends, done + block_pages, side="right")), at + 1)
            self._carry(chunk, ids[at:until], pages[at:until], starts[at:until])
            at = until

    def _carry(
        self, chunk: LeafChunk, ids: NDArray[np.int64], pages: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> None:
        size = self._database.page_size
        total = int(pages.sum())
        page = self._database.allocate(total)
        offset = np.cumsum(pages) - pages
        if total == len(ids):
            block = chunk.buffer.reshape(-1, size)[ids]
        else:
            block = chunk.buffer.reshape(-1, size)[np.repeat(ids - offset, pages) + np.arange(total)]
        new_ids = page + offset
        block.view("<u8")[offset, 0] = new_ids
        self._database.emit(block.data.cast("B"))
        leaves = self._leaves
        sizes = chunk.key_len[starts]
        leaves.ids.frombytes(new_ids.astype(np.uint64).tobytes())
        leaves.key_sizes.frombytes(sizes.astype(np.uint16).tobytes())
        positions = np.repeat(chunk.key_pos[starts] - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
        leaves.keys += chunk.buffer[positions].tobytes()

    def _leaf_image(self, page: int, overflow: int) -> bytes:
        keys, values = self._keys, self._values
        count = len(keys)
        numbers: list[int] = []
        pos = ELEMENT_SIZE * count
        for key, value in zip(keys, values, strict=True):
            numbers += (self._flags, pos, len(key), len(value))
            pos += len(key) + len(value) - ELEMENT_SIZE
        pieces = [
            _HEADER.pack(page, PageFlag.LEAF, count, overflow),
            struct.pack("<" + _ELEMENT_CODES * count, *numbers),
        ]
        for pair in zip(keys, values, strict=True):
            pieces += pair
        return b"".join(pieces)

    def _write_leaf(self) -> None:
        size = self._database.page_size
        pages = -(-self._size // size)
        page = self._database.allocate(pages)
        self._database.emit(self._leaf_image(page, pages - 1).ljust(pages * size, b"\0"))
        self._leaves.add(page, self._keys[0] if self._keys else b"")
        self._keys, self._values, self._size = [], [], HEADER_SIZE

    def close(self, sequence: int) -> bytes:
        """Finish the bucket and return its header: with the whole bucket in it when that is small, as bbolt does."""
        if not len(self._leaves) and self._size <= self._database.page_size // 4:
            return bytes(BucketHeader(0, sequence)) + self._leaf_image(0, 0)
        return bytes(BucketHeader(self.close_tree(), sequence))

    def close_tree(self) -> int:
        """Write what is left and the branches above; return the id of the top page."""
        if self._keys or not len(self._leaves):
            self._write_leaf()
        level = self._leaves
        while len(level) > 1:
            level = self._write_branches(level)
        return level.ids[0]

    def _write_branches(self, below: _Level) -> _Level:
        size, above = self._database.page_size, _Level()
        key_sizes = np.frombuffer(below.key_sizes, dtype=np.uint16).astype(np.int64)
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
            above.add(page, data[: int(key_sizes[start])])
            start = end
        return above
