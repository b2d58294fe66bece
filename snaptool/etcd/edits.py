"""Changes to a store's history that a server can live with, and no others.

etcd builds its index from what it finds: which record answers a read, and which create_revision and version the next
put gets. So not every set of records may go. What may (each seen on etcd 3.4 to 3.7; docs/formats/etcd.md, "Changing a
history"):

* Of a key, either all records go, or its oldest ones: a *suffix* of its history stays, as after a compaction.
Anything else
  revives a deleted key, brings an older value back, or makes the next put continue the wrong generation.
* The store's revision must not fall, or the next put would get a revision that clients have seen. If the record that
holds
  it goes, a tombstone takes its place: of the same key, or of the empty one where the name must not stay.
* A key is deleted for watchers by a tombstone at a revision of its own, one above all others.
* A lease stays while the last record of a live key names it: a put that keeps the lease would kill the server, at
  every start.

`Editor` collects wishes, refuses the impossible ones, and gives `Edits`: plain numbers and bytes for whoever writes the
file. Knows no bolt writer and no Kubernetes.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, count

from snaptool.errors import InputError
from snaptool.etcd.compaction import kept_now, marks
from snaptool.etcd.records import (
    MAX_REVISION,
    KeyValue,
    Revision,
    clear_lease,
    decode_key_value,
    encode_key_value,
    encode_lease_key,
    encode_revision_key,
    replace_value,
)
from snaptool.etcd.snapshot import Snapshot, StoredRecord


class UnsafeEdit(InputError):
    """An edit after which a server would serve, or write, something wrong. `key` is the user key it is about."""

    def __init__(self, key: bytes, problem: str, *, hint: str) -> None:
        super().__init__(f"key {key.decode(errors='backslashreplace')}: {problem}", hint=hint)
        self.key = key
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What to do to the records of a snapshot when it is rewritten.

    For bucket `key`, by record number: `drop` (ascending) are left out, `replace` gives others a new stored key and
    value, which keep their place in the order; `append` comes behind the last record. `buckets` has, for other
    buckets, new values by stored key, None for records that go. Records in none of these keep every byte.
    """

    drop: array[int]
    replace: Mapping[int, tuple[bytes, bytes]]
    append: tuple[tuple[bytes, bytes], ...]
    buckets: Mapping[bytes, Mapping[bytes, bytes | None]]

    @property
    def is_empty(self) -> bool:
        """Nothing changes."""
        return not (len(self.drop) or self.replace or self.append or self.buckets)

    @property
    def is_compaction(self) -> bool:
        """Records only go, and a mark in `meta` holds the store's revision whichever they are."""
        return not (self.replace or self.append) and [*self.buckets] == [b"meta"]

    def apply(self, bucket: bytes, records: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        """Yield the records that take the place of `records`, which are all those of `bucket` in order."""
        if bucket == b"key":
            yield from self._apply_to_history(records)
            return
        changes = self.buckets.get(bucket, {})
        if not changes:
            yield from records
            return
        for key, value in sorted({**dict(records), **changes}.items()):
            if value is not None:
                yield key, value

    def _apply_to_history(self, records: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        drops = iter(self.drop)
        drop = next(drops, None)
        for number, record in enumerate(records):
            if number == drop:
                drop = next(drops, None)
            else:
                yield self.replace.get(number, record)
        yield from self.append


NO_EDITS = Edits(drop=array("q"), replace={}, append=(), buckets={})


class Editor:
    """Collects edits to a snapshot. `keys`: the user keys that are to be edited; one pass finds their records.

    Methods raise InputError for a key or lease that is not there, and UnsafeEdit for what may not be done.
    """

    def __init__(self, snapshot: Snapshot, keys: Collection[bytes] = ()) -> None:
        self._snapshot = snapshot
        self._histories = snapshot.history_of(keys) if keys else {}
        self._kept_from: dict[bytes, int] = {}
        self._values: dict[int, bytes] = {}
        self._nameless: set[bytes] = set()
        self._deleted: list[bytes] = []
        self._removed_leases: set[int] = set()
        self._compact = False

    def history(self, key: bytes) -> Sequence[StoredRecord]:
        """Return the records of a key in the snapshot, oldest first."""
        if key not in self._histories:
            name = key.decode(errors="backslashreplace")
            raise InputError(f"no record of key {name} was collected", hint="name the keys when making the editor")
        return self._histories[key]

    def replace_value(self, key: bytes, number: int, value: bytes) -> None:
        """Give one record of a key another value; all else in the record stays."""
        record = next((one for one in self.history(key) if one.number == number), None)
        if record is None or record.tombstone:
            raise UnsafeEdit(
                key, f"record {number} is not one of this key's values", hint="take the numbers from its history"
            )
        self._values[number] = replace_value(self._value(record), value)

    def remove_key(self, key: bytes, *, keep_name: bool = True) -> Sequence[StoredRecord]:
        """Drop all records of a key, as if it had never been. Returns them.

        `keep_name`: where one of them holds the store's revision, it may become a tombstone of the key, which a
        compaction takes away; else the tombstone is one of the empty key.
        """
        if not keep_name:
            self._nameless.add(key)
        history = self.history(key)
        self._kept_from[key] = len(history)
        return history

    def forget(self, key: bytes, numbers: Collection[int], *, keep_name: bool = True) -> Sequence[StoredRecord]:
        """Drop these records of a key, and as many others as it takes to leave a safe history. Returns all that go.

        If the last record is among them, the key goes as a whole: an older value must not come back. Else
        everything up to the last of them goes.
        """
        history = self.history(key)
        places = self._places(key, numbers)
        if not places:
            return ()
        if places[-1] == len(history) - 1:
            return self.remove_key(key, keep_name=keep_name)
        self._keep_from(key, places[-1] + 1)
        return history[: self._kept_from[key]]

    def drop_records(self, key: bytes, numbers: Collection[int]) -> None:
        """Drop exactly these records of a key; they have to be its oldest ones, and not all."""
        places = self._places(key, numbers)
        if places != list(range(len(places))):
            raise UnsafeEdit(
                key,
                "only its oldest records may go, without a gap: else a deleted key or an old value comes back, or "
                "the next put continues the wrong generation",
                hint="drop everything up to the last record that has to go, or the whole key",
            )
        if len(places) == len(self.history(key)):
            raise UnsafeEdit(key, "these are all its records", hint="remove the key as a whole")
        self._keep_from(key, len(places))

    def _places(self, key: bytes, numbers: Collection[int]) -> Sequence[int]:
        """Where records with these numbers stand in the history of a key, ascending. Raises UnsafeEdit for others'."""
        wanted = set(numbers)
        places = [place for place, record in enumerate(self.history(key)) if record.number in wanted]
        if len(places) < len(wanted):
            unknown = wanted - {record.number for record in self.history(key)}
            raise UnsafeEdit(
                key, f"record {min(unknown)} is not one of this key's", hint="take the numbers from its history"
            )
        return places

    def _keep_from(self, key: bytes, place: int) -> None:
        self._kept_from[key] = max(place, self._kept_from.get(key, 0))

    def delete_key(self, key: bytes) -> None:
        """Delete a key as a client does: a tombstone at a new revision. Its history stays; watchers see it."""
        if self.history(key)[-1].tombstone:
            raise UnsafeEdit(key, "it is deleted already", hint="leave it, or remove its records")
        if key not in self._deleted:
            self._deleted.append(key)

    def clear_lease(self, key: bytes) -> None:
        """Take the lease out of all records of a key: it then never expires."""
        for record in self.history(key):
            if record.lease:
                self._values[record.number] = clear_lease(self._value(record))

    def remove_lease(self, lease: int) -> None:
        """Drop the record of a lease. `finish` refuses that while a live key needs it."""
        if lease not in self._snapshot.leases():
            raise InputError(f"there is no lease {lease:x}")
        self._removed_leases.add(lease)

    def compact(self) -> None:
        """Compact at the current revision, as a server of 3.4.34, 3.5.16, 3.6 or newer does, and note it as done."""
        self._compact = True

    def _value(self, record: StoredRecord) -> bytes:
        return self._values.get(record.number, self._snapshot.stored_value(record))

    # --- the result ---

    def finish(self) -> Edits:
        """Return the edits. Raises UnsafeEdit for a lease that is still needed, or a name that would stay."""
        for key in self._deleted:
            if key in self._nameless:
                raise UnsafeEdit(key, "its tombstone would keep the name", hint="either delete it or remove it")
        current = self._snapshot.current_revision
        append = self._tombstones(current)
        dropped = self._dropped()
        replace = self._replaced(dropped)
        buckets: dict[bytes, dict[bytes, bytes | None]] = {}
        if self._compact:
            at = current + 1 if append else current
            self._drop_superseded(dropped, at)
            buckets[b"meta"] = {**marks(at)}
        elif not append:
            self._hold_revision(dropped, replace)
        self._check_leases(dropped, replace)
        if self._removed_leases:
            buckets[b"lease"] = {encode_lease_key(lease): None for lease in self._removed_leases}
        return Edits(
            drop=array("q", compress(count(), dropped)),
            replace={number: record for number, record in replace.items() if not dropped[number]},
            append=append,
            buckets=buckets,
        )

    def _tombstones(self, current: int) -> tuple[tuple[bytes, bytes], ...]:
        if current >= MAX_REVISION:
            raise InputError("the store is at the highest revision there is")
        return tuple(
            (encode_revision_key(Revision(current + 1, sub), tombstone=True), encode_key_value(KeyValue(key=key)))
            for sub, key in enumerate(sorted(self._deleted))
        )

    def _dropped(self) -> bytearray:
        """Return a byte for each record by number: 1 for those that go."""
        dropped = bytearray(self._snapshot.record_count)
        for key, place in self._kept_from.items():
            for record in self._histories[key][:place]:
                dropped[record.number] = 1
        return dropped

    def _replaced(self, dropped: bytearray) -> dict[int, tuple[bytes, bytes]]:
        return {
            record.number: (
                encode_revision_key(record.revision, tombstone=record.tombstone),
                self._values[record.number],
            )
            for history in self._histories.values()
            for record in history
            if record.number in self._values and not dropped[record.number]
        }

    def _drop_superseded(self, dropped: bytearray, at: int) -> None:
        """Drop what a compaction at the current revision `at` drops, once the deleted keys have their tombstones."""
        live = bytearray(self._snapshot.live())
        for key in self._deleted:
            live[self._histories[key][-1].number] = 0
        kept = kept_now(self._snapshot.chunks(), live, at)
        number = kept.find(0)
        while number >= 0:
            dropped[number] = 1
            number = kept.find(0, number + 1)

    def _hold_revision(self, dropped: bytearray, replace: dict[int, tuple[bytes, bytes]]) -> None:
        """Put a tombstone in place of the last record if the store's revision would fall without it."""
        if not len(dropped) or not dropped[-1]:
            return
        kept = dropped.rfind(0)
        last = self._snapshot.record(len(dropped) - 1)
        highest = self._snapshot.record(kept).revision.main if kept >= 0 else 0
        # Servers before 3.4.32 and 3.5.14 do not count a compaction that was only scheduled, so it holds nothing.
        if max(highest, self._snapshot.finished_compaction or 0) >= last.revision.main:
            return
        dropped[-1] = 0
        value = b"" if last.key in self._nameless else encode_key_value(KeyValue(key=last.key))
        if last.tombstone and last.key not in self._nameless:
            value = self._snapshot.stored_value(last)
        replace[last.number] = (encode_revision_key(last.revision, tombstone=True), value)

    def _check_leases(self, dropped: bytearray, replace: Mapping[int, tuple[bytes, bytes]]) -> None:
        if not self._removed_leases:
            return
        for record in self._snapshot.leased_records():
            if dropped[record.number] or record.key in self._deleted:
                continue
            key, value = replace.get(record.number, (b"", b""))
            lease = decode_key_value(value).lease if key else record.lease
            if lease in self._removed_leases:
                raise UnsafeEdit(
                    record.key,
                    f"it needs the lease {record.lease:x}: without it a put that keeps the lease kills the server",
                    hint="clear the lease from the key first",
                )


def delete_lost(snapshot: Snapshot, lost: Mapping[bytes, Collection[int]]) -> Edits:
    """Drop records that nobody can read any more. `lost`: their numbers by user key.

    A key whose last record is lost goes with all its records; of another one everything up to the last lost record.
    The store's revision stays what it is. Raises InputError and UnsafeEdit when a number is no record of its key.
    """
    editor = Editor(snapshot, lost)
    for key, numbers in lost.items():
        editor.forget(key, numbers)
    return editor.finish()


def set_values(snapshot: Snapshot, edits: Edits, values: Mapping[int, bytes]) -> Edits:
    """Give records, by number, other values, all else in them staying; those that `edits` drops or replaces stay so."""
    dropped = set(edits.drop)
    replace = dict(edits.replace)
    for number, value in values.items():
        if number in dropped or number in replace:
            continue
        record = snapshot.record(number)
        if record.tombstone:
            raise UnsafeEdit(record.key, f"record {number} is a tombstone", hint="give values to records that have one")
        stored = replace_value(snapshot.stored_value(record), value)
        replace[number] = (encode_revision_key(record.revision), stored)
    return Edits(drop=edits.drop, replace=replace, append=edits.append, buckets=edits.buckets)


def compact(snapshot: Snapshot) -> Edits:
    """Compact at the current revision, as `Editor.compact`."""
    editor = Editor(snapshot)
    editor.compact()
    return editor.finish()


def merge(*edits: Edits) -> Edits:
    """Join compactions and at most one other edit of the same snapshot. A record that one of them drops is dropped.

    Two other edits have to come from one Editor: each may leave it to a record that the other drops to hold the
    store's revision, and both may add records at the same revision. Raises ValueError for them, and for compactions
    at different revisions.
    """
    others = [one for one in edits if not one.is_compaction and not one.is_empty]
    if len(others) > 1:
        raise ValueError("edits that are not compactions are safe together only when one Editor makes them")
    dropped = {number for one in edits for number in one.drop}
    replace = {number: record for one in edits for number, record in one.replace.items() if number not in dropped}
    buckets: dict[bytes, dict[bytes, bytes | None]] = {}
    for one in edits:
        for name, changes in one.buckets.items():
            merged = buckets.setdefault(name, {})
            if any(merged.get(key, value) != value for key, value in changes.items()):
                raise ValueError("the edits compact at different revisions")
            merged.update(changes)
    return Edits(
        drop=array("q", sorted(dropped)),
        replace=replace,
        append=tuple(added for one in edits for added in one.append),
        buckets=buckets,
    )
