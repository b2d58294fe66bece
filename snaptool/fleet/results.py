"""What several machines share: the list of backups that all of them have, and the results of each, one object a shard.

A result is created whole or not at all, and never replaced: of two that do the same shard, one wins, and both are done.
Source: docs/audit.md, "More than one machine".
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from snaptool.containers.spool import folder_for
from snaptool.errors import InputError, SnaptoolError
from snaptool.files import TargetExists
from snaptool.fleet.looking import FORMAT, Question, Record, blank
from snaptool.fleet.places import Backup, File, Places, read_backup
from snaptool.fleet.report import STATUSES
from snaptool.inputs import read_input
from snaptool.stores.listing import is_object
from snaptool.stores.location import place_of
from snaptool.stores.publish import StoreDraft
from snaptool.stores.reading import fetch

_LARGEST_LIST = 1 << 30
_LARGEST_NUMBER = 1 << 62
_RESULT = re.compile(r"([0-9a-f]{64})/(\d{5})-of-(\d{5})\.jsonl")


class BadResults(InputError):
    """What is there are not results of an audit."""


class ShardsMissing(SnaptoolError):
    """Some shards have left no results yet."""


@dataclass(frozen=True, slots=True)
class ShardResult:
    """Where the results of one shard are. `place`: RESULTS/RUN, a folder or the URL of one."""

    place: str
    question: str
    index: int
    of: int

    @property
    def target(self) -> Path:
        """The file or object."""
        return place_of(f"{self.place.rstrip('/')}/{self.question}/{self.index:05}-of-{self.of:05}.jsonl")

    def is_there(self) -> bool:
        """Has somebody done this shard?"""
        return is_object(str(self.target)) if "://" in self.place else self.target.exists()

    def publish(self, records: Iterable[Record]) -> bool:
        """Write it; False where somebody else has meanwhile. Raises OutputError, StoreError."""
        if "://" not in self.place:
            self.target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with StoreDraft(self.target, force=False) as draft:
                for record in sorted(records, key=lambda one: str(one["url"])):
                    draft.write(json.dumps(record).encode() + b"\n")
                draft.publish()
        except TargetExists:
            return False
        return True


def read_results(place: str) -> Iterator[tuple[str, Record]]:
    """Yield question and record of all shards, every shard of which has to be there.

    Raises BadResults, ShardsMissing, StoreError.
    """
    found: dict[tuple[str, int], dict[int, str]] = {}
    for file in _files(place):
        match = _RESULT.search("/".join(file.name.rsplit("/", 2)[-2:]))
        if match is not None:
            found.setdefault((match[1], int(match[3])), {})[int(match[2])] = file.name
    if not found:
        raise BadResults(f"{place}: no results of shards are there", hint="name the folder that --results named")
    if len(found) > 1:
        sets = "; ".join(f"{question[:12]}… of {of}" for question, of in sorted(found))
        raise BadResults(
            f"{place} holds results of {len(found)} audits: {sets}",
            hint="name one of the folders in it, or use one a run",
        )
    ((question, of), shards) = next(iter(found.items()))
    missing = [index for index in range(of) if index not in shards]
    if missing:
        named = ", ".join(map(str, missing[:20])) + (", …" if len(missing) > 20 else "")
        raise ShardsMissing(
            f"{place}: {len(missing)} of {of} shards have left no results: {named}",
            hint="run them again with --shard, then merge",
        )
    for index in range(of):
        for record in _records(shards[index]):
            yield question, record


def _files(place: str) -> list[File]:
    try:
        listing = Places().find(place.rstrip("/") + ("/" if "://" in place else ""))
    except InputError as error:
        raise BadResults(f"{place}: {error}", hint="name the folder that --results named") from error
    return [file for one in listing.backups for file in one.files]


def _records(name: str) -> Iterator[Record]:
    if "://" in name:
        fetched = fetch(place_of(name), folder_for(None))
        content = b"".join(fetched.spool.blocks())
        fetched.spool.close()
    else:
        content = read_input(name, _LARGEST_LIST, "results")
    for number, line in enumerate(content.splitlines(), 1):
        record = _json(line)
        if not is_record(record):
            raise BadResults(
                f"{name}: line {number} is not a record of an audit", hint="run that shard again", place=name
            )
        yield record


_MODEL: dict[str, Any] = blank(
    Backup(url="", path="", entry=None, files=(File("", 0, datetime.fromtimestamp(0, UTC), ""),)),
    Question(check="quick"),
)


def is_record(found: Any) -> bool:
    """Is this a record of this format, so that it can be kept, and a report made of it?"""
    if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("status") not in STATUSES:
        return False
    for name, model in _MODEL.items():
        value = found.get(name, ...)
        if value is ...:
            return False
        if value is None:
            if name not in _MAY_BE_NONE:
                return False
        elif model is not None and not _is_like(value, (int, float) if isinstance(model, float) else type(model)):
            return False
    return (
        all(_is_like(found[name], str) for name in _MAY_BE_NONE & _TEXTS if found[name] is not None)
        and _all_have(found["keys_needed"], _KEY_NEEDED)
        and _all_have(found["census"], _CENSUS)
        and all(_all_have(row["opened_by"], _OPENED_BY) for row in found["census"])
        and _all_have([] if found["error"] is None else [found["error"]], _ERROR)
        and all(_is_like(one, str) for name in _LISTS for one in found[name])
        and all(_is_time(found[name]) for name in ("modified", "checked_at", "time") if found[name] is not None)
    )


_MAY_BE_NONE = {"platform", "time", "entry", "sha256", "etcd", "error"}
_TEXTS = {"platform", "time", "entry", "sha256"}
_LISTS = ("findings", "configs", "opened_by", "files")
_KEY_NEEDED = {"config": (str, None), "file": (str, None), "key_name": (str, None), "provider": str, "values": int}
_CENSUS = {
    "resource": str,
    "provider": str,
    "key_name": (str, None),
    "live": int,
    "old": int,
    "lost": (int, None),
    "stale": (int, None),
    "opened_by": list,
}
_OPENED_BY = {"config": str, "key_name": str, "values": int}
_ERROR = {"kind": str, "message": str, "hint": (str, None)}


def _is_like(value: Any, kind: Any) -> bool:
    """Is a value of a kind, and one that a database keeps? A kind with None may be None."""
    if isinstance(kind, tuple) and None in kind:
        return value is None or _is_like(value, kind[0])
    if isinstance(value, bool) and kind is not bool:
        return False
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    return isinstance(value, kind) and not (isinstance(value, int) and abs(value) >= _LARGEST_NUMBER)


def _all_have(found: Sequence[Any], kinds: dict[str, Any]) -> bool:
    return all(
        isinstance(one, dict) and all(_is_like(one.get(name, ...), kind) for name, kind in kinds.items())
        for one in found
    )


def _is_time(text: str) -> bool:
    try:
        return re.fullmatch(r"[-0-9:T]+Z", text) is not None and datetime.fromisoformat(text).year >= 1970
    except ValueError:
        return False


def _json(line: bytes) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(line)
    return None


def read_plan(path: str) -> list[Backup]:
    """Read a list of backups that `--list -o jsonl` printed. Raises InputError."""
    content = read_input(path, _LARGEST_LIST, "list of backups")
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            found.append(read_backup(_json(line)))
        except InputError as error:
            raise InputError(f"{path}: line {number}: {error}", hint=error.hint, code="bad_plan", place=path) from None
    return found
