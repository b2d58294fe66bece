"""Builders of bolt files: from plain records, and the damaged variants of the vectors."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from snaptool.bolt import Database, DatabaseWriter

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
    """Read everything."""
    return {name: dict(bucket.items()) for name, bucket in Database(database).buckets().items()}


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
