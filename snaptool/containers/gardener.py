"""Gardener's backups: a full snapshot and the deltas after it, as etcd-backup-restore writes them.

Which files belong together, and what a delta says. What the events make of the database is `snaptool.etcd.replay`'s
business. Source: docs/formats/containers.md, "Gardener".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snaptool.containers.faults import COPY_AGAIN, ContainerFault, ContainerRefused, too_big
from snaptool.containers.readers import PIECE, FileReader, Peekable, Reader
from snaptool.containers.recognise import STREAMS, Kind, recognise
from snaptool.containers.streams import open_stream
from snaptool.text import counted

_DIGEST = 32
_LARGEST_DELTA = 512 << 20  # etcd-backup-restore ends a file at about 10 MiB
_CODECS = {"gz", "Z", "zlib"}
EVENTS = b'[{"etcdEvent"'
"""How a file of changes begins, unpacked."""
_NUMBER = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class ChainFile:
    """One file of a chain. `first` and `last`: revisions; `created`: Unix time; `path`: below the directory."""

    path: str
    full: bool
    first: int
    last: int
    created: int

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rsplit("/", 1)[-1]


def parse_name(path: str) -> ChainFile | None:
    """Read a file's name as etcd-backup-restore does; None for any other file."""
    base, *suffixes = path.rsplit("/", 1)[-1].split(".")
    suffixes = [one for one in suffixes if one != "final"]
    if len(suffixes) > 1 or not set(suffixes) <= _CODECS:
        return None
    kind, *numbers = base.split("-")
    if kind not in {"Full", "Incr"} or len(numbers) != 3 or not all(map(_NUMBER.fullmatch, numbers)):
        return None
    first, last, created = map(int, numbers)
    return ChainFile(path, kind == "Full", first, last, created) if first <= last else None


def choose_chain(files: Sequence[ChainFile], place: str, entry: str | None) -> tuple[ChainFile, list[ChainFile]]:
    """Choose the full snapshot, the newest unless `entry` names one, and the deltas up to the next one.

    Raises ContainerRefused, delta_only, when there is no full snapshot.
    """
    ordered = sorted(files, key=lambda one: (one.last, one.created))
    at = next((number for number in reversed(range(len(ordered))) if ordered[number].full), None)
    stop = len(ordered)
    if entry is not None:
        named = next((number for number, one in enumerate(ordered) if entry in {one.name, one.path}), None)
        if named is None:
            fulls = ", ".join(one.name for one in ordered if one.full)
            raise ContainerRefused(
                f"{place} has no file {entry!r} of a Gardener backup",
                hint=f"full snapshots: {fulls}",
                code="container_no_entry",
            )
        if ordered[named].full:
            at = named
            stop = next((number for number in range(named + 1, len(ordered)) if ordered[number].full), len(ordered))
        else:  # up to a delta, included
            at = next((number for number in reversed(range(named)) if ordered[number].full), None)
            stop = named + 1
    if at is None:
        raise only_deltas(place)
    return ordered[at], ordered[at + 1 : stop]


def only_deltas(place: str) -> ContainerRefused:
    """Say that a full snapshot is missing."""
    return ContainerRefused(
        f"{place} has changes after a full snapshot (Gardener's Incr files), and no full snapshot",
        hint="give the directory that holds the Full-… file and all Incr-… files after it",
        code="delta_only",
    )


@dataclass(frozen=True, slots=True)
class Event:
    """One change that etcd sent to a watcher. Numbers not stated are 0; a deletion has key and revision alone."""

    revision: int
    key: bytes
    deleted: bool
    value: bytes
    create_revision: int
    version: int
    lease: int


def read_delta(path: Path, limit: int = _LARGEST_DELTA) -> list[Event]:
    """Read the events of one delta, in their order. Raises ContainerFault: delta_format, delta_hash, and of layers."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        data = _unpacked(descriptor, path, min(limit, _LARGEST_DELTA))
    finally:
        os.close(descriptor)
    if len(data) < _DIGEST + 1:
        raise _format(path, f"it has {counted(len(data), 'byte')}, too few for events and their SHA-256")
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise ContainerFault(
            f"{path}: the SHA-256 at its end is not that of the events before it",
            hint=f"{COPY_AGAIN}; or restore up to the file before it: --entry NAME-OF-THAT-FILE",
            code="delta_hash",
        )
    try:
        events = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _format(path, "it is not JSON") from error
    if not isinstance(events, list):
        raise _format(path, "it is not a list of events")
    return list(_events(events, path))


def _unpacked(descriptor: int, path: Path, limit: int) -> bytes:
    source = Peekable(FileReader(descriptor))
    kind = recognise(source.peek(1024), path.name)
    reader: Reader = open_stream(kind, source, str(path)) if kind in STREAMS else source
    if kind not in STREAMS and kind is not Kind.UNKNOWN:
        raise _format(path, f"it is {kind}")
    parts, size = [], 0
    while data := reader.read(PIECE):
        parts.append(data)
        size += len(data)
        if size > limit:
            raise too_big(str(path), size, limit, by_meta=False)
    return b"".join(parts)


def _events(events: list[Any], path: Path) -> Iterator[Event]:
    for number, outer in enumerate(events):
        try:
            event = outer["etcdEvent"]
            stored, kind = event["kv"], event.get("type", 0)
            key = base64.b64decode(stored["key"], validate=True)
            value = base64.b64decode(stored.get("value", ""), validate=True)
            numbers = [stored.get(name, 0) for name in ("mod_revision", "create_revision", "version", "lease")]
        except (KeyError, TypeError, AttributeError, binascii.Error, ValueError) as error:
            raise _format(path, f"event {number} is not as etcd-backup-restore writes them") from error
        if not key or kind not in {0, 1} or not all(map(_is_int64, numbers)):
            raise _format(path, f"event {number} is not as etcd-backup-restore writes them")
        revision, create_revision, version, lease = numbers
        if not revision > 0 or create_revision < 0 or version < 0:
            raise _format(path, f"event {number} has a number that no revision can have")
        yield Event(revision, key, kind == 1, value, create_revision, version, lease)


def _is_int64(number: object) -> bool:
    return type(number) is int and -(1 << 63) <= number < 1 << 63


def _format(path: Path, problem: str) -> ContainerFault:
    return ContainerFault(
        f"{path} is not a delta of Gardener's backups: {problem}",
        hint=f"{COPY_AGAIN}; or restore up to the file before it: --entry NAME-OF-THAT-FILE",
        code="delta_format",
    )
