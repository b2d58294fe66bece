"""Builders of bolt files: from plain records, from single pages, and the damaged variants of the vectors.

Also the model of the reader: the format read page by page and record by record, slow and plain.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from snaptool.bolt import Database, DatabaseWriter, Meta, PageId, TxId
from snaptool.bolt.layout import NO_FREELIST, encode_meta

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = ("tiny-3.4.db", "tiny-3.5.db", "tiny-3.7.db")

Buckets = Mapping[bytes, Mapping[bytes, bytes]]


@cache
def vectors() -> dict[str, Any]:
    """tests/golden/etcd-snapshot.json."""
    document: dict[str, Any] = json.loads((GOLDEN / "etcd-snapshot.json").read_text())
    return document


def make_database(buckets: Buckets, *, page_size: int = 4096, txid: int = 0) -> bytes:
    """Write `buckets` with the project's writer."""
    sink = io.BytesIO()
    writer = DatabaseWriter(sink, page_size=page_size, txid=txid)
    for name, records in sorted(buckets.items()):
        with writer.bucket(name) as bucket:
            for key, value in sorted(records.items()):
                bucket.put(key, value)
    writer.finish()
    return sink.getvalue()


def contents(database: bytes) -> dict[bytes, dict[bytes, bytes]]:
    """Read everything, in one walk: no page may be reached twice."""
    read = Database(database)
    walk = read.new_walk()
    return {
        name: {
            chunk.key(read.view, row): chunk.value(read.view, row)
            for chunk in bucket.leaves(walk)
            for row in range(chunk.records)
        }
        for name, bucket in read.walk_buckets(walk).items()
    }


def with_trailer(database: bytes) -> bytes:
    return database + hashlib.sha256(database).digest()


def tiny(name: str = "tiny-3.4.db") -> bytes:
    """The database of a golden snapshot, without its trailer."""
    return (GOLDEN / name).read_bytes()[:-32]


def mutations() -> dict[str, Any]:
    return {case["name"]: case for case in vectors()["mutations"]["cases"]}


def damaged(name: str) -> bytes:
    """A damaged variant of tiny-3.4.db as the vectors describe it, with the trailer they ask for."""
    case = mutations()[name]
    if name == "trailer_missing":
        return tiny()
    if name == "trailer_flip":
        whole = bytearray(with_trailer(tiny()))
        whole[-1] ^= 1
        return bytes(whole)
    if name == "extra_bytes_after_hwm":
        return with_trailer(tiny() + b"\xee" * 8192)
    database = bytearray(tiny())
    for patch in case["patches"]:
        piece = bytes.fromhex(patch["hex"]) if patch["hex"] else bytes.fromhex(patch["fill"]) * patch["length"]
        database[patch["offset"] : patch["offset"] + len(piece)] = piece
    cut = case["truncate_db_part_to"]
    return with_trailer(bytes(database[:cut] if cut else database))


Pairs = Sequence[tuple[bytes, bytes]]


def page(number: int, flags: int, elements: Sequence[bytes], data: bytes, *, page_size: int = 1024) -> bytes:
    """A page of the tree, zeros up to its end; with as many overflow pages as it needs."""
    size = 16 + 16 * len(elements) + len(data)
    pages = -(-size // page_size)
    header = struct.pack("<QHHI", number, flags, len(elements), pages - 1)
    return (header + b"".join(elements) + data).ljust(pages * page_size, b"\0")


def leaf(number: int, records: Pairs, *, flags: int = 0, page_size: int = 1024) -> bytes:
    """A leaf page. `flags`: those of its elements."""
    elements, data = [], b""
    for index, (key, value) in enumerate(records):
        elements.append(struct.pack("<IIII", flags, 16 * (len(records) - index) + len(data), len(key), len(value)))
        data += key + value
    return page(number, 2, elements, data, page_size=page_size)


def branch(number: int, children: Sequence[tuple[bytes, int]], *, page_size: int = 1024) -> bytes:
    """A branch page."""
    elements, data = [], b""
    for index, (key, child) in enumerate(children):
        elements.append(struct.pack("<IIQ", 16 * (len(children) - index) + len(data), len(key), child))
        data += key
    return page(number, 1, elements, data, page_size=page_size)


def database_of(
    *pages: bytes, root: int = 2, freelist: int = NO_FREELIST, sequence: int = 0, page_size: int = 1024
) -> bytes:
    """A database of these pages, the first of which is page 2. Its root is page `root`."""
    body = b"".join(pages)
    meta = Meta(
        page_size=page_size,
        root=PageId(root),
        sequence=sequence,
        freelist=freelist,
        high_water_mark=2 + len(body) // page_size,
        txid=TxId(2),
    )
    return encode_meta(meta, 0) + encode_meta(meta, 1) + body


def rooted(page_number: int, sequence: int = 0) -> bytes:
    """The header of a bucket whose tree starts at this page."""
    return struct.pack("<QQ", page_number, sequence)


def model_contents(database: bytes, page_size: int = 4096) -> dict[bytes, list[tuple[bytes, bytes]]]:
    """Read a healthy database whose first meta counts as the format says, one record after the other."""
    (root,) = struct.unpack_from("<Q", database, 32)
    found: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for name, value in _model_records(database, root, page_size):
        (top,) = struct.unpack_from("<Q", value)
        found[name] = list(_model_records(database, top, page_size) if top else _model_leaf(value[16:]))
    return found


def _model_records(database: bytes, number: int, page_size: int) -> Iterator[tuple[bytes, bytes]]:
    at = number * page_size
    flags, count, overflow = struct.unpack_from("<HHI", database, at + 8)
    image = database[at : at + (overflow + 1) * page_size]
    if flags == 2:
        yield from _model_leaf(image)
        return
    for index in range(count):
        (child,) = struct.unpack_from("<Q", image, 16 + 16 * index + 8)
        yield from _model_records(database, child, page_size)


def _model_leaf(image: bytes) -> Iterator[tuple[bytes, bytes]]:
    (count,) = struct.unpack_from("<H", image, 10)
    for at in range(16, 16 + 16 * count, 16):
        pos, key_size, value_size = struct.unpack_from("<III", image, at + 4)
        key = at + pos
        yield image[key : key + key_size], image[key + key_size : key + key_size + value_size]
