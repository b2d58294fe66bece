"""What was asked for and is not there: at which revision it still was, whole.

On DELETE the API server only marks a namespace; a controller then empties it, and the Namespace goes last. So the
revision before it vanished shows an empty, terminating one: the one that is wanted is the one before it was marked.
The same holds for an object with finalizers. Source: spec/kinds.md 9.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from snaptool.errors import SnaptoolError
from snaptool.etcd import Snapshot, StoredRecord
from snaptool.kube import key_prefixes, parse_key, resolve_type
from snaptool.kube.export import Tree, at

ReadRecord = Callable[[StoredRecord], Tree | None]


class NothingToExport(SnaptoolError):
    """What was named is not in the snapshot at that revision. `revision`: where it still was, 0 if nowhere."""

    def __init__(self, message: str, *, hint: str, revision: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.revision = revision


@dataclass(frozen=True, slots=True)
class Trace:
    """The last life of a key that is gone or going. `marked`, `deleted`: revisions, 0 where that did not happen.

    `whole`: the last revision at which it was there and not being deleted; may be compacted away. 0: never.
    """

    key: bytes
    marked: int
    deleted: int
    whole: int


def trace(records: Sequence[StoredRecord], read: ReadRecord, until: int | None = None) -> Trace | None:
    """Follow the last life of a key, up to a revision. None where there is none. `records`: of one key, in order."""
    records = [one for one in records if until is None or one.revision.main <= until]
    if not records:
        return None
    deleted = records[-1].revision.main if records[-1].tombstone else 0
    if deleted:
        records = records[:-1]
    born = next((at + 1 for at in range(len(records) - 1, -1, -1) if records[at].tombstone), 0)
    marked = 0
    for record in reversed(records[born:]):
        tree = read(record)
        if tree is not None and at(tree, "metadata", "deletionTimestamp"):
            marked = record.revision.main
        elif tree is not None:
            break
    end = marked or deleted
    key = records[-1].key if records else b""
    return Trace(key, marked, deleted, end - 1 if end else 0)


def namespace_trace(
    snapshot: Snapshot, namespace: str, prefixes: Sequence[str], read: ReadRecord, until: int | None = None
) -> Trace | None:
    """Follow the last life of a Namespace."""
    kind = resolve_type("namespaces")
    keys = [key for prefix in prefixes for key in key_prefixes(kind, None, namespace, prefix=prefix)]
    found = snapshot.history_of(keys)
    return next((trace(found[key], read, until) for key in keys if key in found), None)


def last_with_objects(snapshot: Snapshot, namespace: str, prefixes: Sequence[str]) -> int:
    """Return the last revision at which a namespace still had an object that is gone now, 0 if there is none."""
    last = 0
    needle = f"/{namespace}/".encode(errors="surrogateescape")
    for chunk in snapshot.records():
        for row in chunk.tombstone.nonzero()[0].tolist():
            key = chunk.user_key(row)
            if needle in key:
                parsed = parse_key(key, prefixes)
                if parsed is not None and parsed.namespace == namespace:
                    last = max(last, int(chunk.main[row]) - 1)
    return last


def left_at(snapshot: Snapshot, namespace: str, prefixes: Sequence[str], revision: int) -> dict[str, int]:
    """Count the objects of a namespace at a revision, by resource."""
    live = snapshot.live_mask(revision)
    counted: dict[str, int] = {}
    needle = f"/{namespace}/".encode(errors="surrogateescape")
    for chunk in snapshot.records():
        part = live[chunk.first_record : chunk.first_record + len(chunk)]
        for row in part.nonzero()[0].tolist():
            key = chunk.user_key(row)
            parsed = parse_key(key, prefixes) if needle in key else None
            if parsed is not None and parsed.namespace == namespace:
                counted[parsed.group_resource] = counted.get(parsed.group_resource, 0) + 1
    return counted
