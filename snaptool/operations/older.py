"""Older revisions that open: what an object was before its current value was lost.

A key rotation seals every new revision under the new key, so an object whose current value is lost often has an older
revision that opens: in the snapshot itself, or, since API servers compact every five minutes, in an earlier backup. It
counts only when it is of the same life of the object (the same create revision), came before the lost value (its
revision and its version say so), and is an object that API servers can decode. An earlier backup counts only when it is
of the same cluster: the uid of namespace kube-system is made once, and no restore changes it.

Source: docs/formats/etcd.md, "KeyValue" (create revision).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from snaptool.etcd import KeyValue, Snapshot, StoredRecord, decode_key_value
from snaptool.operations.judging import NOTHING_DEFINED, Defined, Depth, judge
from snaptool.operations.opening import OpenedSnapshot
from snaptool.providers.keyring import GroupResource, Keyring, NoKeyFits, Opening

Wanted = Mapping[bytes, GroupResource | None]
"""Keys whose current values are lost, with their resources."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier backup, and what opens its values."""

    opened: OpenedSnapshot
    keyring: Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderValue:
    """The newest older revision of a key that opens. `place`: the earlier backup that has it, "" for the same file."""

    revision: int
    place: str
    plaintext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderValues:
    """What was found for keys whose current values are lost.

    `missing`: why the others have none. `compacted`: how many of these had older revisions that are not in the snapshot
    any more; `compacted_at`: its compacted revision, 0 for none.
    """

    found: Mapping[bytes, OlderValue] = field(default_factory=dict)
    missing: Mapping[bytes, str] = field(default_factory=dict)
    compacted: int = 0
    compacted_at: int = 0

    def sentence(self) -> str:
        """Say where older revisions may be that are not in the snapshot; empty where there are none."""
        if not self.compacted:
            return ""
        if self.compacted_at:
            return (
                f"this snapshot was compacted at revision {self.compacted_at}: older revisions are in earlier backups "
                "(--older-from)"
            )
        return "older revisions are not in this snapshot: look into earlier backups (--older-from)"


NO_OLDER = OlderValues()


def find_older(
    snapshot: Snapshot,
    keyring: Keyring,
    wanted: Wanted,
    earlier: Sequence[Earlier] = (),
    *,
    defined: Defined = NOTHING_DEFINED,
) -> OlderValues:
    """Find, for keys whose current values are lost, the newest older revisions that open: one pass over each file.

    `earlier` is asked where the snapshot has none. Raises the FormatErrors of a damaged file.
    """
    if not wanted:
        return NO_OLDER
    found: dict[bytes, OlderValue] = {}
    missing: dict[bytes, str] = {}
    theirs = [one.opened.snapshot.history_of(wanted) for one in earlier]
    compacted = 0
    for key, records in snapshot.history_of(wanted).items():
        current = _decoded(snapshot, records[-1])
        life = _life(snapshot, records[:-1], current.create_revision)
        sought = _Sought(key, wanted[key], defined)
        best = _newest(sought, life, keyring, "")
        if best is None and earlier:
            best, missing[key] = _from_earlier(sought, current, earlier, theirs)
        if best is not None:
            found[key] = best
            missing.pop(key, None)
            continue
        missing.setdefault(key, "no older revision of it opens" if life else "no older revision of it is stored")
        compacted += current.version > len(life) + 1
    return OlderValues(found=found, missing=missing, compacted=compacted, compacted_at=snapshot.compacted_revision)


def _decoded(snapshot: Snapshot, record: StoredRecord) -> KeyValue:
    return decode_key_value(snapshot.stored_value(record))


def _life(snapshot: Snapshot, records: Sequence[StoredRecord], create_revision: int) -> list[KeyValue]:
    """Return the puts among some records that belong to one life of their key, oldest first."""
    puts = (_decoded(snapshot, record) for record in records if not record.tombstone)
    return [put for put in puts if put.create_revision == create_revision]


@dataclass(frozen=True, slots=True)
class _Sought:
    """A key, its resource, and the versions that custom resources are defined in."""

    key: bytes
    resource: GroupResource | None
    defined: Defined


def _newest(sought: _Sought, life: Sequence[KeyValue], keyring: Keyring, place: str) -> OlderValue | None:
    for put in reversed(life):
        plaintext = open_object(keyring, sought.resource, put.value, sought.key, sought.defined)
        if plaintext is not None:
            return OlderValue(revision=put.mod_revision, place=place, plaintext=plaintext)
    return None


def open_object(
    keyring: Keyring,
    resource: GroupResource | None,
    stored: bytes,
    key: bytes,
    defined: Defined = NOTHING_DEFINED,
) -> bytes | None:
    """Open a value that is to become current; None where it does not open to what API servers can decode."""
    chain = keyring.chain_for(resource)
    found: tuple[Opening | NoKeyFits, bytes]
    try:
        found = chain.open(stored, key)
    except NoKeyFits as error:
        found = error, b""
    way, plaintext = judge(chain, resource, (stored, key), found, Depth.FULL, defined)
    return plaintext if isinstance(way, Opening) and not way.doubtful else None


def _from_earlier(
    sought: _Sought,
    current: KeyValue,
    earlier: Sequence[Earlier],
    theirs: Sequence[Mapping[bytes, Sequence[StoredRecord]]],
) -> tuple[OlderValue | None, str]:
    """Look into earlier backups: the newest revision that opens, else why there is none."""
    best: OlderValue | None = None
    reasons = []
    for backup, histories in zip(earlier, theirs, strict=True):
        place = str(backup.opened.path)
        records = histories.get(sought.key, ())
        if not records:
            reasons.append(f"not in {place}")
            continue
        life = _life(backup.opened.snapshot, records, current.create_revision)
        if not life:
            reasons.append(f"another life (create revision) in {place}")
            continue
        before = [put for put in life if _comes_before(put, current)]
        one = _newest(sought, before, backup.keyring, place)
        if one is None:
            reasons.append(f"no revision of it opens in {place}" if before else f"only newer revisions in {place}")
        elif best is None or one.revision > best.revision:
            best = one
    return best, "; ".join(dict.fromkeys(reasons))


def _comes_before(put: KeyValue, current: KeyValue) -> bool:
    """Is a put of another file a past state of the current one, or that state itself, under another key?"""
    if put.mod_revision == current.mod_revision:
        return put.version == current.version
    return put.mod_revision < current.mod_revision and put.version < current.version
