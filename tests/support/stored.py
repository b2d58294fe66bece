"""The one builder of snapshot files: records of bucket `key` and what else is to be in the ten buckets.

Written by the project's own writer. What is stored under a key is the caller's: objects (`objects`), values sealed for
a KMS (`kms_snapshots`), any number of either (`snapshots`), or whole histories of etcd (`history`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from snaptool.bolt import DatabaseWriter, Meta
from snaptool.etcd import BUCKETS, KeyValue, Revision, encode_key_value, encode_revision_key

Record = tuple[bytes, bytes]
"""The stored key, which is a revision, and the stored value."""
Change = tuple[bytes, bytes | None]
"""An etcd key and its new value; None deletes it."""


def write_buckets(
    file: BinaryIO, records: Iterable[Record], others: Mapping[bytes, Iterable[Record]] | None = None
) -> Meta:
    """Write ten buckets from the start of `file`, no trailer; memory stays the same for any number of records."""
    writer = DatabaseWriter(file)
    for name in BUCKETS:
        with writer.bucket(name) as bucket:
            for key, value in records if name == b"key" else (others or {}).get(name, ()):
                bucket.put(key, value)
    return writer.finish()


def write_records(
    path: Path, records: Iterable[Record], others: Mapping[bytes, Iterable[Record]] | None = None
) -> Path:
    """Write such a file, as an etcd member has it: without a trailer."""
    with path.open("w+b") as file:
        write_buckets(file, records, others)
    return path


def records_of(changes: Sequence[Change]) -> list[Record]:
    """What etcd stores of changes, a revision each from 2 on."""
    created: dict[bytes, tuple[int, int]] = {}
    records = []
    for main, (key, value) in enumerate(changes, start=2):
        revision = encode_revision_key(Revision(main, 0), tombstone=value is None)
        if value is None:
            created.pop(key, None)
            records.append((revision, encode_key_value(KeyValue(key=key))))
            continue
        create, version = created.get(key, (main, 0))
        created[key] = create, version + 1
        record = KeyValue(key=key, create_revision=create, mod_revision=main, version=version + 1, value=value)
        records.append((revision, encode_key_value(record)))
    return records


def write_history(path: Path, changes: Sequence[Change]) -> Path:
    """Write a snapshot of these changes."""
    return write_records(path, records_of(changes))
