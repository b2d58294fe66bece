"""Writes a bolt file in one pass: leaves as they come, branches above them, metas last.

The result is what a fresh defragmentation would give, only more so: no free page, no slack content, no freelist ids,
every branch with at least two children (a lone child passes every check and kills the server at its next compaction),
equal bytes for equal input. Leaves in which nothing changed are carried over whole: elements point relative to
themselves, so only the page id in the header differs.

Source: docs/formats/bolt.md, "Writing", a recipe verified on etcd 3.4 to 3.7; bbolt node.go (`write`), bucket.go
(`inlineable`). Knows buckets of byte pairs and a sink; knows nothing of what they mean.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from snaptool.bolt.building import BadOrder, Builder, Piece
from snaptool.bolt.layout import (
    BUCKET_FLAG,
    MAX_VALUE_SIZE,
    BucketHeader,
    Meta,
    PageFlag,
    PageHeader,
    PageId,
    TxId,
    encode_meta,
    struct_format,
)
from snaptool.bolt.walk import Chunk
from snaptool.errors import SnaptoolError

_FIRST_DATA_PAGE = 3
_LAST_TXID = (1 << 64) - 2
_HEADER = struct.Struct(struct_format(PageHeader))


class Sink(Protocol):
    """Where the file goes: written in order, but for the metas, which are known last and come first."""

    def write(self, data: bytes | bytearray | memoryview) -> object:
        """Write at the position and move it."""

    def seek(self, offset: int) -> object:
        """Move the position."""


Exchange = Callable[[memoryview, int, int], memoryview]
"""Writes the beginning of a block to a sink, and returns one of a size at least: see `Builder`."""

BLOCK_SIZE = 2 << 20  # measured: 1-2 MB stay in the cache


class OtherPageSize(SnaptoolError):
    """Leaves to be carried over have another page size than the file: a mistake of the caller."""


def first_pages(meta: Meta) -> bytes:
    """Return the pages before the trees: both metas, and a freelist that lists nothing, which any bolt can open."""
    older = replace(meta, txid=TxId(meta.txid - 1))
    freelist = _HEADER.pack(2, PageFlag.FREELIST, 0, 0).ljust(meta.page_size, b"\0")
    return encode_meta(meta, 0) + encode_meta(older, 1) + freelist


class DatabaseWriter:
    """Writes buckets, in ascending name order, to `sink`. `page_size` in bytes; `txid`: that of the source, or 0.

    `exchange`: how blocks get there, where they are to be used again. `forecast`: the meta that is expected in the end;
    where it is right, all is written in order, and the position is never moved.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        page_size: int = 4096,
        txid: int = 0,
        exchange: Exchange | None = None,
        forecast: Meta | None = None,
    ) -> None:
        self.page_size = page_size
        self._sink = sink
        self._forecast = forecast
        # Page 0 holds the meta with the even id, as if a transaction had written it there.
        self._txid = min(max(txid + txid % 2, 2), _LAST_TXID)
        self._buckets: list[tuple[bytes, bytes]] = []
        self.builder = Builder(page_size, _FIRST_DATA_PAGE, exchange or self._exchange)
        # `finish` writes them where they are not known.
        self.builder.put_pages(bytes(_FIRST_DATA_PAGE * page_size) if forecast is None else first_pages(forecast))

    def _exchange(self, block: memoryview, used: int, size: int) -> memoryview:
        if used:
            self._sink.write(block[:used])
        return memoryview(bytearray(max(BLOCK_SIZE, size) if size else 0))

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
        top = self.builder.finish()
        meta = Meta(
            page_size=self.page_size,
            root=PageId(top),
            sequence=0,
            freelist=2,
            high_water_mark=self.builder.allocate(0),
            txid=TxId(self._txid),
        )
        self.builder.hand_over()
        if meta != self._forecast:
            self._sink.seek(0)
            self._sink.write(first_pages(meta))
        return meta


class BucketWriter:
    """Takes the records of one bucket in ascending key order, one by one or in whole leaves."""

    def __init__(self, database: DatabaseWriter, element_flags: int = 0) -> None:
        self._page_size, self._builder = database.page_size, database.builder
        self._builder.begin(element_flags)

    def put(self, key: bytes, value: bytes) -> None:
        """Add one record. Raises BadOrder unless `key` is above all keys so far and within bolt's limits."""
        if len(value) > MAX_VALUE_SIZE:
            raise BadOrder(f"the value of record {key[:40].hex()} is too large")
        self._builder.put(key, value)

    def put_piece(
        self,
        file: memoryview,
        piece: Piece,
        page_size: int,
        fields: tuple[memoryview, ...],
        sealed: tuple[memoryview, ...],
        at: memoryview,
    ) -> bool:
        """Add leaves of a file of that page size: see `Builder.put_piece`. Raises BadOrder and OtherPageSize."""
        if page_size != self._page_size:
            raise OtherPageSize(f"pages of {page_size} bytes in a file of {self._page_size}")
        return self._builder.put_piece(file, piece, fields, sealed, at)

    def measure_carried(self, leaves: Chunk) -> None:
        """Allot pages to leaves as `put_piece` would: see `Builder.measure_carried`. Nothing is written."""
        self._builder.measure_carried(leaves)

    def measure(self, *columns: memoryview) -> None:
        """Allot pages to records as `put_piece` would: see `Builder.measure`. Nothing is written."""
        self._builder.measure(*columns)

    def end_leaves(self) -> int:
        """Make the last leaf, of a bucket that is not small; return the id of the page behind it."""
        return self._builder.end_leaves()

    @property
    def next_page(self) -> int:
        """Id of the page that is made next."""
        return self._builder.allocate(0)

    @property
    def is_small(self) -> bool:
        """Does all of it go into the record of the bucket?"""
        return self._builder.is_small

    def close(self, sequence: int) -> bytes:
        """Finish the bucket and return its header: with the whole bucket in it when that is small, as bbolt does."""
        if self._builder.is_small:
            return bytes(BucketHeader(0, sequence)) + self._builder.inline()
        return bytes(BucketHeader(self._builder.finish(), sequence))
