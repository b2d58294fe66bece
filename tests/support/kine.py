"""Databases of Kine, made by SQLite itself as k3s' Kine fills them: the table and its rows, nothing of the server."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TABLE = """CREATE TABLE IF NOT EXISTS kine
    (id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER, deleted INTEGER,
     create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB)"""
INDEXES = (
    "CREATE INDEX kine_name_index ON kine (name)",
    "CREATE INDEX kine_id_deleted_index ON kine (id,deleted)",
    "CREATE UNIQUE INDEX kine_name_prev_revision_uindex ON kine (name, prev_revision)",
)


@dataclass(frozen=True, slots=True)
class Change:
    """A put, or a deletion where `value` is None."""

    revision: int
    key: str
    value: bytes | None


def make_kine(path: Path, *, page_size: int = 4096, encoding: str = "UTF-8", wal: bool = True) -> sqlite3.Connection:
    """An empty database. What is written stays in the write-ahead log as long as nobody closes it."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(f"PRAGMA page_size={page_size}")
    database.execute(f"PRAGMA encoding='{encoding}'")
    database.execute(TABLE)
    for statement in INDEXES:
        database.execute(statement)
    if wal:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA wal_autocheckpoint=0")
    return database


def fill(database: sqlite3.Connection, changes: Iterable[Change]) -> None:
    """Write rows as Kine does: each knows the one before it, and keeps its value."""
    rows: dict[str, tuple[int, int, bytes | None]] = {}
    database.execute("BEGIN")
    for change in changes:
        before, created, old = rows.get(change.key, (0, 0, None))
        creates = old is None
        row = (
            *(change.revision, change.key, int(creates), int(change.value is None), 0 if creates else created, before),
            *(0, change.value, old),
        )
        database.execute("INSERT INTO kine VALUES (?,?,?,?,?,?,?,?,?)", row)
        rows[change.key] = (change.revision, change.revision if creates else created, change.value)
    database.execute("COMMIT")


def compact(database: sqlite3.Connection, revision: int) -> None:
    """Do what Kine's compaction does: old rows go, and the mark is raised."""
    database.execute(
        "DELETE FROM kine WHERE id IN (SELECT prev_revision FROM kine WHERE name != 'compact_rev_key' "
        "AND prev_revision != 0 AND id <= ?) OR (deleted != 0 AND id <= ?)",
        (revision, revision),
    )
    database.execute("UPDATE kine SET prev_revision = ? WHERE name = 'compact_rev_key'", (revision,))
