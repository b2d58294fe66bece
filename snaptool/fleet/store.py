"""The store of results: one row for each backup, version and question, written by the asking process alone.

Work may be done twice, answers cannot be. Source: docs/audit.md, "The store".
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from snaptool.errors import InputError, OutputError
from snaptool.fleet.looking import FORMAT, Record
from snaptool.inputs import of_run

_SCHEMA_VERSION = 1
_SCHEMA = """
create table result (
  url text not null, version text not null, question text not null, status text not null, checked_at text not null,
  size integer not null, sha256 text, record text not null, primary key (url, version, question)
);
create table census (
  url text not null, version text not null, question text not null, resource text not null, provider text not null,
  key_name text, live integer not null, old integer not null, lost integer, stale integer
);
create index census_of on census (url, version, question);
create view newest as
  select * from (select *, row_number() over (partition by url order by checked_at desc, rowid desc) as place
                 from result) where place = 1;
create view keys_needed as
  select json_extract(key.value, '$.file') as config, json_extract(key.value, '$.key_name') as key_name,
         count(distinct newest.url) as backups, min(json_extract(newest.record, '$.time')) as oldest,
         max(json_extract(newest.record, '$.time')) as newest
  from newest, json_each(newest.record, '$.keys_needed') as key group by 1, 2;
"""


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
    return not (known["lost"] and given - had)


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
            self._database = sqlite3.connect(path or ":memory:", isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise

    def _make(self) -> None:
        if self.path is None:
            return
        if self.path.exists():
            if not self.path.is_file():
                raise NoStore(f"{self.path} is not a regular file", hint="name another file with --store")
            if (known := of_run()) is not None:
                known.refuse(self.path)
        else:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _prepare(self) -> None:
        version = self._database.execute("pragma user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise StoreTooNew(
                f"{self.path} was written by a newer snaptool (its format is {version}, this one knows "
                f"{_SCHEMA_VERSION})",
                hint="use that version, or another --store",
            )
        tables = {name for (name,) in self._database.execute("select name from sqlite_master")}
        if tables if version == 0 else "result" not in tables:
            raise NoStore(f"{self.path} is an SQLite file of something else", hint="name another --store")
        self._database.execute("pragma journal_mode=wal")
        self._database.execute("pragma synchronous=full")
        if version == 0:
            self._database.executescript(f"begin;{_SCHEMA}pragma user_version={_SCHEMA_VERSION};commit;")

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
        for end in ("", "-wal", "-shm") if self.path is not None else ():
            try:
                status = Path(f"{self.path}{end}").stat()
            except OSError:
                continue
            found.add((status.st_dev, status.st_ino))
        return found

    def answers(self, urls: Iterable[str]) -> dict[str, list[Record]]:
        """Return what is known of some backups, the newest answer of each last."""
        found: dict[str, list[Record]] = {}
        with self._errors():
            for url in urls:
                rows = self._database.execute(
                    "select record from result where url = ? order by checked_at, rowid", (url,)
                ).fetchall()
                found[url] = [json.loads(row[0]) for row in rows]
        return found

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
        with self._errors():
            self._database.execute("begin immediate")
            try:
                self._put(record, key, again=again)
            except BaseException:
                self._database.execute("rollback")
                raise
            self._database.execute("commit")

    def _put(self, record: Record, key: tuple[str, str, str], *, again: bool) -> None:
        row = (*key, record["status"], record["checked_at"], record["size"], record["sha256"], json.dumps(record))
        changed = self._database.execute(
            "insert into result values (?, ?, ?, ?, ?, ?, ?, ?) on conflict do update set status = excluded.status, "
            "checked_at = excluded.checked_at, size = excluded.size, sha256 = excluded.sha256, "
            "record = excluded.record where result.status = 'failed' or ?",
            (*row, again),
        ).rowcount
        if not changed:
            return
        self._database.execute("delete from census where url = ? and version = ? and question = ?", key)
        self._database.executemany(
            "insert into census values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    *key,
                    one["resource"],
                    one["provider"],
                    one["key_name"],
                    one["live"],
                    one["old"],
                    one["lost"],
                    one["stale"],
                )
                for one in record["census"]
            ],
        )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = ["FORMAT", "Asked", "NoStore", "Store", "StoreTooNew", "is_answered"]
