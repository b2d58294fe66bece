"""What was asked for and is not there: at which revision it still was, and what is left of it."""

from __future__ import annotations

from collections.abc import Sequence

from snaptool.errors import SnaptoolError
from snaptool.etcd import TOMBSTONE, Snapshot
from snaptool.kube.keys import parse_key


class NothingToExport(SnaptoolError):
    """What was named is not in the snapshot at that revision. `revision`: where it still was, 0 if nowhere."""

    def __init__(self, message: str, *, hint: str, revision: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.revision = revision


def last_with_objects(snapshot: Snapshot, namespace: str, prefixes: Sequence[str]) -> int:
    """Return the last revision at which a namespace still had an object that is gone now, 0 if there is none."""
    last = 0
    needle = f"/{namespace}/".encode(errors="surrogateescape")
    for records in snapshot.chunks():
        for row in records.holding(needle):
            if records.flags[row] & TOMBSTONE:
                parsed = parse_key(records.user_key(row), prefixes)
                if parsed is not None and parsed.namespace == namespace:
                    last = max(last, records.main[row] - 1)
    return last


def left_at(snapshot: Snapshot, namespace: str, prefixes: Sequence[str], revision: int) -> dict[str, int]:
    """Count the objects of a namespace at a revision, by resource."""
    live = snapshot.live(revision)
    counted: dict[str, int] = {}
    needle = f"/{namespace}/".encode(errors="surrogateescape")
    for records in snapshot.chunks():
        for row in records.holding(needle):
            if live[records.first_record + row]:
                parsed = parse_key(records.user_key(row), prefixes)
                if parsed is not None and parsed.namespace == namespace:
                    counted[parsed.group_resource] = counted.get(parsed.group_resource, 0) + 1
    return counted
