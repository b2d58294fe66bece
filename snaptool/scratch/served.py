"""What a store serves and what can go wrong while it does, as plain values.

Apart from the client so that callers can speak of them without the client's library, which is an extra.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from snaptool.errors import ScratchError

ROOM_HINT = "set TMPDIR to a directory on a disk with more room: four times the snapshot, and 200 MB for etcd's own log"


def is_about_room(text: str) -> bool:
    """Say whether a message of etcd or of its tools is about a disk without room."""
    return any(sign in text for sign in ("no space left", "file too large", "quota exceeded"))


class Sink(Protocol):
    """Where a saved snapshot goes, block by block: a file, or a draft of `snaptool.files`."""

    def write(self, data: bytes, /) -> object:
        """Take the next block."""


class CallFailed(ScratchError):
    """etcd answered a call with an error, or not at all. `status` is gRPC's name of it."""

    def __init__(self, call: str, code: str, details: str) -> None:
        super().__init__(f"etcd refused {call}: {details or code}", hint=ROOM_HINT if is_about_room(details) else "")
        self.call = call
        self.status = code


class AuthEnabled(ScratchError):
    """The store asks for a user and a password, and they are not ours to know."""

    def __init__(self) -> None:
        super().__init__(
            "this snapshot has etcd's authentication switched on, so its scratch copy lets no client in",
            hint="work without etcd: `rewrite --engine direct`, `verify` without `--boot`",
        )


class Drift(ScratchError):
    """The scratch store changed in a way that we did not ask for: a lease ran out, or somebody else wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedKey:
    """A key as etcd serves it. `value` is empty when only keys were asked for."""

    key: bytes
    value: bytes = field(repr=False)
    create_revision: int
    mod_revision: int
    version: int
    lease: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """`revision` is the store's current one; `leader` is 0 as long as nothing can be written."""

    version: str
    revision: int
    db_size: int
    leader: int


@dataclass(frozen=True, slots=True)
class ServedHash:
    """HashKV: `hash` over what is stored up to `revision`, after compaction at `compact_revision` (-1: never)."""

    hash: int
    revision: int
    compact_revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """One conditional write: `key` must still be at `mod_revision`. `value` None deletes it."""

    key: bytes
    mod_revision: int
    value: bytes | None = field(repr=False)
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """What a watcher receives: a put, or (`deleted`) the end of a key."""

    key: bytes
    value: bytes = field(repr=False)
    mod_revision: int
    deleted: bool
