"""The lives of keys that are gone or going: when a deletion began, and the last revision at which all was whole.

On DELETE the API server only marks an object that has finalizers, and a namespace has one: a controller then empties
the namespace, and the Namespace goes last. So the revision before it vanished shows it empty and terminating; the one
that is wanted is the one before it was marked. Source: docs/formats/kinds.md, "What export leaves out".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from snaptool.errors import FormatError
from snaptool.etcd import StoredRecord, decode_key_value
from snaptool.kube.keys import key_prefixes, resolve_type
from snaptool.kube.kinds.reader import decode_object
from snaptool.operations.crypto import open_value
from snaptool.operations.labels import header_of, resource_of
from snaptool.operations.opening import OpenedSnapshot
from snaptool.providers.keyring import Keyring
from snaptool.providers.provider import Kind

Look = Callable[[StoredRecord], tuple[bool | None, int]]
"""Says whether the object of a record is being deleted, None where that cannot be read, and which version it is."""


@dataclass(frozen=True, slots=True)
class Life:
    """The last life of a key. `marked`, `deleted`: revisions, 0 where that did not happen.

    `whole`: the last revision at which it was there and not being deleted, which may be compacted away; 0 where its
    deletion never began, or it was never there before.
    """

    marked: int
    deleted: int
    whole: int


def last_life(records: Sequence[StoredRecord], look: Look, until: int | None = None) -> Life | None:
    """Follow the last life of a key, up to a revision. None where there is none. `records`: of one key, in order."""
    records = [one for one in records if until is None or one.revision.main <= until]
    if not records:
        return None
    deleted = records[-1].revision.main if records[-1].tombstone else 0
    first_mark, version = 0, 1
    for record in reversed(records[:-1] if deleted else records):
        if record.tombstone:
            break
        found, version = look(record)
        if found is False:
            version += 1  # this one is whole, and comes before the mark
            break
        if found:
            first_mark = record.revision.main
    end = first_mark or deleted
    return Life(first_mark, deleted, end - 1 if end and (version > 1 or not first_mark) else 0)


def looking(opened: OpenedSnapshot, keyring: Keyring | None) -> Look:
    """Make what `last_life` asks, with the keys given."""

    def look(record: StoredRecord) -> tuple[bool | None, int]:
        value = decode_key_value(opened.snapshot.stored_value(record))
        stored = value.value
        plaintext: bytes | None = stored
        if header_of(stored).kind is not Kind.IDENTITY:
            chain = (keyring or Keyring()).chain_for(resource_of(record.key, opened.prefixes).group_resource)
            plaintext = open_value(chain, stored, record.key)[1]
        try:
            metadata = decode_object(plaintext or b"").tree.get("metadata")
        except FormatError:
            return None, value.version
        return isinstance(metadata, dict) and bool(metadata.get("deletionTimestamp")), value.version

    return look


def life_of_namespace(
    opened: OpenedSnapshot, namespace: str, keyring: Keyring | None, until: int | None = None
) -> Life | None:
    """Follow the last life of a Namespace."""
    kind = resolve_type("namespaces")
    keys = [key for prefix in opened.prefixes for key in key_prefixes(kind, None, namespace, prefix=prefix)]
    found = opened.snapshot.history_of(keys)
    look = looking(opened, keyring)
    return next((last_life(found[key], look, until) for key in keys if key in found), None)
