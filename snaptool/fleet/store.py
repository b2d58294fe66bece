"""The store of results: one row for each backup, version and question, written by the asking process alone.

Work may be done twice, answers cannot be. Which answer is the newest is said by the order of rows, not by clocks, which
jump. Source: docs/audit.md, "The store".
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from snaptool import signals
from snaptool.errors import InputError, OutputError
from snaptool.fleet.looking import FORMAT, Record
from snaptool.inputs import of_run, remember

_SCHEMA_VERSION = 2
"""2 since a census has the configuration, and the newest answer is the last row: both are made of the records."""

_RESULT = """
create table result (
  url text not null, version text not null, question text not null, status text not null, checked_at text not null,
  size integer not null, sha256 text, record text not null, primary key (url, version, question)
);
"""
_DERIVED = """
create table census (
  url text not null, version text not null, question text not null, resource text not null, provider text not null,
  key_name text, config text, live integer not null, old integer not null, lost integer, stale integer
);
create index census_of on census (url, version, question);
create view newest as
  select * from (select *, row_number() over (partition by url order by result.rowid desc) as place
                 from result) where place = 1;
create view keys_needed as
  select json_extract(key.value, '$.file') as config, json_extract(key.value, '$.key_name') as key_name,
         count(distinct newest.url) as backups, min(json_extract(newest.record, '$.time')) as oldest,
         max(json_extract(newest.record, '$.time')) as newest
  from newest, json_each(newest.record, '$.keys_needed') as key group by 1, 2;
"""
_OUTDATED = "drop view keys_needed; drop view newest; drop table census;"
_SIDES = ("-wal", "-shm", "-journal")
_PATIENCE = 60
"""Seconds, tries of one each, for which another run may hold the file."""


class NoStore(OutputError):
    """The store of results cannot be used."""

    code = "no_store"


class StoreTooNew(InputError):
    """The store was written by a newer snaptool."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What decides whether a known answer is still one."""

    version: str
    check: str
    format: int
    configs: Sequence[str]


def is_answered(known: Record, asked: Asked) -> bool:
    """Is a record still the answer? The first rule that fits decides. Source: docs/audit.md, "The store"."""
    given, had = set(asked.configs), set(known["configs"])
    if known["version"] != asked.version or known["status"] == "failed":
        return False
    if (known["check"], known["format"]) != (asked.check, asked.format):
        return False
    if known["status"] in {"damaged", "not_a_snapshot"}:
        return True
    if not set(known["opened_by"]) <= given:
        return False
    closed = known["lost"] or "embedded_closed" in known.get("findings", ())
    return not (closed and given - had)


class Store:
    """An SQLite file, mode 0600; None: in memory. Raises NoStore and StoreTooNew."""

    def __init__(self, path: Path | None, *, must_exist: bool = False) -> None:
        self.path = path
        if must_exist and path is not None and not path.is_file():
            raise InputError(
                f"there is no store {path} to report from", hint="name one with --store", code="cannot_read"
            )
        with self._errors():
            self._make()
            to_read = path is not None and must_exist and self._is_closed(path)
            where = self._as_it_is(path) if path is not None and to_read else str(path or ":memory:")
            self._database = sqlite3.connect(where, isolation_level=None, timeout=1, uri=to_read)
            try:
                if not to_read:
                    self._prepare()
                for end in ("", *_SIDES) if path is not None else ():
                    with suppress(OSError):
                        remember(Path(f"{path}{end}").stat(), f"{path}{end}")
            except BaseException:
                self._database.close()
                raise

    def _make(self) -> None:
        if self.path is None:
            return
        # SQLite takes files of these names for parts of a database, and would remove them. A store's own are younger.
        beside = [f"{self.path}{end}" for end in _SIDES if os.path.lexists(f"{self.path}{end}")]
        if beside and not os.path.lexists(self.path):
            raise NoStore(
                f"{beside[0]} is there, and belongs to no store", hint="name another file with --store, or move it"
            )
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            if not self.path.is_file():
                raise NoStore(f"{self.path} is not a regular file", hint="name another file with --store") from None
            if (known := of_run()) is not None:
                known.refuse(self.path)
            self._look(self.path)

    def _look(self, path: Path) -> None:
        """Refuse what is another program's without opening it as a database, which could change it."""
        with closing(sqlite3.connect(self._as_it_is(path), uri=True)) as database:
            self._refuse_other(database)

    @staticmethod
    def _as_it_is(path: Path) -> str:
        return f"file:{quote(os.fsencode(path.absolute()))}?mode=ro&immutable=1"

    def _is_closed(self, path: Path) -> bool:
        """Can nothing be written there, as on a volume that is mounted to be read? Raises NoStore for half of one."""
        effective = os.access in os.supports_effective_ids
        if all(os.access(one, os.W_OK, effective_ids=effective) for one in (path, path.parent)):
            return False
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size:
            raise NoStore(
                f"{path}: its newest answers are in {log}, and cannot be read where nothing can be written",
                hint="copy both to a folder of yours, and name the copy with --store",
            )
        return True

    def _refuse_other(self, database: sqlite3.Connection) -> int:
        """Return the version of the file's format, 0 for a new one. Raises NoStore, StoreTooNew."""
        version: int = database.execute("pragma user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise StoreTooNew(
                f"{self.path} was written by a newer snaptool (its format is {version}, this one knows "
                f"{_SCHEMA_VERSION})",
                hint="use that version, or another --store",
            )
        tables = {name for (name,) in database.execute("select name from sqlite_master")}
        if tables if version == 0 else not {"result", "census"} <= tables:
            raise NoStore(f"{self.path} is an SQLite file of something else", hint="name another --store")
        return version

    def _prepare(self) -> None:
        self._refuse_other(self._database)
        self._patiently("pragma journal_mode=wal")
        self._database.execute("pragma synchronous=full")
        with self._changing():
            version = self._refuse_other(self._database)  # another run may have made it meanwhile
            if version < _SCHEMA_VERSION:
                made = {0: _RESULT, 1: _OUTDATED}[version] + _DERIVED
                for statement in filter(str.strip, made.split(";")):
                    self._database.execute(statement)
                for row in self._database.execute("select url, version, question, record from result").fetchall():
                    self._put_census(tuple(row[:3]), json.loads(row[3]))
                self._database.execute(f"pragma user_version={_SCHEMA_VERSION}")

    def _patiently(self, statement: str) -> None:
        """Do what has to wait where another run is at it; SQLite waits a second, in which no signal is heard."""
        for _ in range(_PATIENCE):
            try:
                self._database.execute(statement)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                    raise
                signals.sleep(0.1)
            else:
                return
        self._database.execute(statement)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Do all of a block, or nothing."""
        self._patiently("begin immediate")
        try:
            yield
            self._database.execute("commit")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("rollback")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise NoStore(
                f"cannot use the store {self.path}: {error}", hint="name another file with --store"
            ) from error
        except OSError as error:
            raise NoStore(
                f"cannot make the store {self.path}: {error.strerror}", hint="name another file with --store"
            ) from error

    @property
    def own_files(self) -> set[tuple[int, int]]:
        """Device and inode of its files, which are not backups."""
        found: set[tuple[int, int]] = set()
        for end in ("", *_SIDES) if self.path is not None else ():
            try:
                status = Path(f"{self.path}{end}").stat()
            except OSError:
                continue
            found.add((status.st_dev, status.st_ino))
        return found

    def answers(self, url: str) -> list[tuple[int, Record]]:
        """Return what is known of a backup, each with its row, the newest last."""
        with self._errors():
            rows = self._database.execute("select rowid, record from result where url = ? order by 1", (url,))
            return [(row, json.loads(record)) for row, record in rows]

    def renew(self, row: int) -> None:
        """Let an answer be the newest of its backup again: there was another one between."""
        with self._errors():
            self._database.execute(
                "update result set rowid = (select max(rowid) + 1 from result) where rowid = ?", (row,)
            )

    def newest(self) -> list[Record]:
        """Return the newest answer of every backup, by name."""
        with self._errors():
            rows = self._database.execute("select record from newest order by url").fetchall()
        return [json.loads(row[0]) for row in rows]

    def forget(self, urls: Iterable[str]) -> int:
        """Delete all that is known of some backups; return of how many something was."""
        count = 0
        with self._errors():
            for url in urls:
                count += self._database.execute("select exists(select 1 from result where url = ?)", (url,)).fetchone()[
                    0
                ]
                for table in ("result", "census"):
                    self._database.execute(f"delete from {table} where url = ?", (url,))  # noqa: S608 - one of two words
        return count

    def urls(self) -> list[str]:
        """Return the names of all backups of which something is known."""
        with self._errors():
            return [row[0] for row in self._database.execute("select distinct url from result order by url")]

    def put(self, record: Record, question: str, *, again: bool = False) -> None:
        """Keep an answer; one that is there stays, unless it is `failed` or was asked for `again`."""
        key = (record["url"], record["version"], question)
        same = "url = ? and version = ? and question = ?"
        with self._errors(), self._changing():
            known = self._database.execute(f"select status from result where {same}", key).fetchone()  # noqa: S608
            if known is not None and known[0] != "failed" and not again:
                return
            for table in ("result", "census"):
                self._database.execute(f"delete from {table} where {same}", key)  # noqa: S608 - one of two words
            row = (*key, record["status"], record["checked_at"], record["size"], record["sha256"], json.dumps(record))
            self._database.execute("insert into result values (?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._put_census(key, record)

    def _put_census(self, key: tuple[str, ...], record: Record) -> None:
        names = ("resource", "provider", "key_name", "config", "live", "old", "lost", "stale")
        rows = [
            (*key, *({**one, "config": _opened_with(one, record)}[name] for name in names)) for one in record["census"]
        ]
        self._database.executemany("insert into census values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened_with(row: dict[str, Any], record: Record) -> str | None:
    """Return the digest of the configuration that opens the values of a row of a census; of several, with spaces."""
    opened = {(one["config"], one["key_name"], row["provider"]) for one in row.get("opened_by", ())}
    keys = (one for one in record["keys_needed"] if (one["file"], one["key_name"], one["provider"]) in opened)
    return " ".join(dict.fromkeys(one["config"] for one in keys)) or None


__all__ = ["FORMAT", "Asked", "NoStore", "Store", "StoreTooNew", "is_answered"]
