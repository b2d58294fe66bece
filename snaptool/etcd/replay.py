"""What a snapshot becomes when events of a watch are applied to it, record for record as etcd would have stored them.

Used for Gardener's deltas. Leases are not in events: what a delta put has none, and those of the snapshot stay as they
were. Source: docs/formats/containers.md, "Gardener", held against what etcd-backup-restore left in real etcds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from snaptool.errors import FormatError
from snaptool.etcd.reading import rows_among
from snaptool.etcd.records import KeyValue, Revision, decode_key_value, encode_key_value, encode_revision_key
from snaptool.etcd.snapshot import Snapshot


class _Change(Protocol):
    """An event: what happened to a key at a revision. Numbers that are not stated are 0."""

    @property
    def revision(self) -> int: ...
    @property
    def key(self) -> bytes: ...
    @property
    def deleted(self) -> bool: ...
    @property
    def value(self) -> bytes: ...
    @property
    def create_revision(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def lease(self) -> int: ...


class DeltaGap(FormatError):
    """Changes are missing between a snapshot and those that are there. `revision`: the first one that is."""

    code = "delta_gap"

    def __init__(self, revision: int, place: str, problem: str) -> None:
        super().__init__(
            f"{place}: {problem}: the first one missing is revision {revision:,}",
            hint="fetch the file that holds it; or restore up to the file before the gap: --entry NAME-OF-THAT-FILE",
        )
        self.revision = revision


class DeltaEvent(FormatError):
    """An event that cannot have happened to the store as it was then."""

    code = "delta_event"


@dataclass(frozen=True, slots=True)
class _Life:
    """The current life of a key: the revision that created it, and how many puts it has had."""

    created: int
    version: int


class Replay:
    """Applies events, file by file in order. `keys`: all keys that they name. `leases_lost`: events that had one."""

    def __init__(self, snapshot: Snapshot, keys: Collection[bytes]) -> None:
        self.revision = snapshot.current_revision
        self._base = self.revision
        self.leases_lost = 0
        self.skipped = 0
        self._lives = _lives(snapshot, set(keys))

    def apply(self, events: Sequence[_Change], last: int, place: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield the stored records that a file of events adds. `last`: the revision at which it says it ends.

        Raises DeltaGap and DeltaEvent.
        """
        sub, touched = 0, set[bytes]()
        for event in events:
            if event.revision <= self._base:
                self.skipped += 1  # the full snapshot was taken a little later than its name says
                continue
            if event.revision != self.revision or not touched:
                if event.revision != self.revision + 1:
                    if event.revision <= self.revision:
                        raise DeltaEvent(f"{place}: revision {event.revision:,} stands behind a later one")
                    raise DeltaGap(self.revision + 1, place, "changes are missing")
                self.revision, sub, touched = event.revision, 0, set()
            if event.key in touched:
                raise DeltaEvent(f"{place}: revision {event.revision:,} changes one key twice")
            touched.add(event.key)
            yield self._record(event, sub, place)
            sub += 1
        if self.revision < last:
            raise DeltaGap(self.revision + 1, place, f"its name says that it ends at revision {last:,}")
        if self.revision > max(last, self._base):
            raise DeltaEvent(f"{place}: it goes to revision {self.revision:,}, its name says {last:,}")

    def _record(self, event: _Change, sub: int, place: str) -> tuple[bytes, bytes]:
        life, revision = self._lives.get(event.key), Revision(event.revision, sub)
        if event.deleted:
            if life is None:
                raise DeltaEvent(f"{place}: revision {event.revision:,} deletes a key that is not there")
            del self._lives[event.key]
            return encode_revision_key(revision, tombstone=True), encode_key_value(KeyValue(key=event.key))
        made = _Life(life.created, life.version + 1) if life is not None else _Life(event.revision, 1)
        if (event.create_revision, event.version) != (made.created, made.version):
            raise DeltaEvent(
                f"{place}: revision {event.revision:,} continues another history: it makes version {event.version:,} "
                f"since revision {event.create_revision:,}, where {made.version:,} since {made.created:,} would follow"
            )
        self._lives[event.key] = made
        self.leases_lost += bool(event.lease)
        stored = KeyValue(
            key=event.key,
            create_revision=made.created,
            mod_revision=event.revision,
            version=made.version,
            value=event.value,
        )
        return encode_revision_key(revision), encode_key_value(stored)


def _lives(snapshot: Snapshot, keys: set[bytes]) -> dict[bytes, _Life]:
    """Find the current life of each key that has one: one pass."""
    found: dict[bytes, _Life] = {}
    live = snapshot.live() if keys else bytearray()
    for records in snapshot.chunks() if keys else ():
        for row in rows_among(records, keys):
            if live[records.first_record + row]:
                stored = decode_key_value(records.stored_value(row))
                found[records.user_key(row)] = _Life(stored.create_revision, stored.version)
    return found
