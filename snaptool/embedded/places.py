"""Which records of a snapshot may carry a configuration: collected by key, in whatever pass sees all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from snaptool.etcd import TOMBSTONE, UNREADABLE, Records, Revision

BOOTSTRAP = b"/bootstrap/"
OPENSHIFT = (
    b"/kubernetes.io/secrets/openshift-config-managed/encryption-",
    b"/kubernetes.io/secrets/openshift-kube-apiserver/encryption-config",
    b"/kubernetes.io/secrets/openshift-apiserver/encryption-config",
    b"/kubernetes.io/secrets/openshift-oauth-apiserver/encryption-config",
)
RKE1 = (
    b"/registry/secrets/kube-system/full-cluster-state",
    b"/registry/configmaps/kube-system/full-cluster-state",
)
_MOST_RECORDS = 10_000
"""No cluster has nearly as many; a file that does is hostile."""


@dataclass(frozen=True, slots=True)
class SeenRecord:
    """One record: its number in bucket `key`, and its value as stored."""

    number: int
    key: bytes
    revision: Revision
    tombstone: bool
    value: bytes = field(repr=False)


class PlaceFinder:
    """Collects the records of the places."""

    heads = (BOOTSTRAP, *OPENSHIFT, *RKE1)

    def __init__(self) -> None:
        self.records: dict[bytes, list[SeenRecord]] = {}
        self._count = 0

    def take(self, records: Records, row: int) -> None:
        """Take a record whose key begins with one of `heads`; they come in order."""
        if self._count >= _MOST_RECORDS or records.flags[row] & UNREADABLE:
            return
        self._count += 1
        key = records.user_key(row)
        if key == BOOTSTRAP:
            return
        self.records.setdefault(key, []).append(
            SeenRecord(
                number=records.first_record + row,
                key=key,
                revision=records.revision(row),
                tombstone=bool(records.flags[row] & TOMBSTONE),
                value=records.value(row),
            )
        )

    def live(self) -> dict[bytes, SeenRecord]:
        """Return the last record of each key that is not deleted."""
        return {key: records[-1] for key, records in self.records.items() if not records[-1].tombstone}


def openshift_secrets(live: Mapping[bytes, SeenRecord]) -> dict[bytes, SeenRecord]:
    """Choose the records that are OpenShift's."""
    return {key: record for key, record in live.items() if key.startswith(OPENSHIFT)}
