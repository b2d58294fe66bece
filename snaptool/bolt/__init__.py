"""The bolt page file: etcd's storage, as buckets of byte pairs.

Theory of operation. A file is an array of pages. Two metas at its start each name a root page; the valid one with the
higher transaction id counts, the other is what was true before. From the root hang branch and leaf pages of a B+ tree
whose records are buckets: a bucket is again such a tree, or, when small, a leaf image inside its record. A page that
needs more room is followed by overflow pages. What no tree reaches is free, whatever it still contains.

Reading (`Database`) trusts nothing: every id, count and offset is compared with the file before it is followed, and
no page is reached twice. Writing (`DatabaseWriter`) is one pass from sorted records to packed pages. `check` lists
all faults. This package knows nothing of etcd, and opens no file: buffers come in, a sink takes what goes out.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from snaptool.bolt.check import check
from snaptool.bolt.faults import CorruptPage, Problem
from snaptool.bolt.layout import ByteOrderNotSupported, Meta, PageId, TxId
from snaptool.bolt.reader import Bucket, Database, NotABoltFile
from snaptool.bolt.walk import Chunk, Walk, numbers

if TYPE_CHECKING:
    from snaptool.bolt.writer import BucketWriter, DatabaseWriter, Sink, first_pages

__all__ = [
    "Bucket",
    "BucketWriter",
    "ByteOrderNotSupported",
    "Chunk",
    "CorruptPage",
    "Database",
    "DatabaseWriter",
    "Meta",
    "NotABoltFile",
    "PageId",
    "Problem",
    "Sink",
    "TxId",
    "Walk",
    "check",
    "first_pages",
    "numbers",
]


def __getattr__(name: str) -> Any:
    """Import what writes when it is asked for: who only reads does not wait for it."""
    if name not in __all__:
        raise AttributeError(name)
    return getattr(import_module("snaptool.bolt.writer"), name)
