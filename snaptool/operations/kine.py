"""A database of Kine, in which k3s and k0s keep what etcd would: as a snapshot, to be read and never to be restored.

A row is a revision: its `id`. Of each name the last row counts, unless it says `deleted`. Rows that create have no
`create_revision`, for it is their own; `compact_rev_key` and the `gap-N` of numbers that were never used are Kine's. It
keeps no version of a key, and no lease but as seconds. Source: docs/formats/containers.md, "Kine".
"""

from __future__ import annotations

from pathlib import Path

from snaptool.bolt import DatabaseWriter
from snaptool.containers.spool import Spool
from snaptool.containers.sqlite import Row, SqliteFile
from snaptool.etcd import BUCKETS, KeyValue, Revision, encode_key_value, encode_revision_key
from snaptool.etcd.compaction import marks
from snaptool.operations.deltas import SpoolSink

_COMPACTION = b"compact_rev_key"
_LAST = (1 << 63) - 1
_READ_ONLY = (
    "read from a database of Kine (SQLite): it can be looked at and exported, and no etcd restores it; versions of "
    "keys and leases are not in it"
)


def from_kine(database: SqliteFile, folder: Path) -> tuple[Spool, tuple[str, ...]]:
    """Write the rows of a database as a snapshot without trailer, in a private file; return it and what to say of it.

    Raises ContainerFault for a damaged database, NoRoom, OutputError.
    """
    spool = Spool(folder, 0)
    compacted = 0
    try:
        writer = DatabaseWriter(SpoolSink(spool))
        for name in BUCKETS:
            with writer.bucket(name) as out:
                for row in database.rows("kine") if name == b"key" else ():
                    if row.values.get("name") == _COMPACTION:
                        compacted = max(compacted, _number(row, "prev_revision"))
                        continue
                    record = _record(row)
                    if record is not None:
                        out.put(*record)
                if name == b"meta" and compacted:
                    for mark in sorted(marks(compacted).items()):
                        out.put(*mark)
        writer.finish()
    except BaseException:
        spool.close()
        raise
    return spool, (_READ_ONLY,)


def _record(row: Row) -> tuple[bytes, bytes] | None:
    """Return a row as etcd stores a revision; None for one that is no key's."""
    key, value = row.values.get("name"), row.values.get("value")
    if not isinstance(key, bytes) or not key or not 0 < row.number <= _LAST:
        return None
    if _number(row, "deleted"):
        if key == b"gap-%d" % row.number:
            return None
        return encode_revision_key(Revision(row.number, 0), tombstone=True), encode_key_value(KeyValue(key=key))
    created = 0 if _number(row, "created") else _number(row, "create_revision")
    stored = KeyValue(
        key=key,
        create_revision=created if 0 < created <= row.number else row.number,
        mod_revision=row.number,
        value=value if isinstance(value, bytes) else b"",
    )
    return encode_revision_key(Revision(row.number, 0)), encode_key_value(stored)


def _number(row: Row, name: str) -> int:
    value = row.values.get(name)
    return value if isinstance(value, int) and 0 <= value <= _LAST else 0
