"""Which records of a snapshot may carry a configuration: collected by key, in whatever pass sees all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from snaptool.etcd import RecordChunk, Revision

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

    def __init__(self) -> None:
        self.records: dict[bytes, list[SeenRecord]] = {}
        self._count = 0

    def add(self, chunk: RecordChunk) -> None:
        """Take the records of a chunk; chunks come in order."""
        rows = np.nonzero(chunk.readable & (chunk.key_len > len(BOOTSTRAP)))[0]
        # `/b` and `/kubernetes.io/secrets/o`: two bytes leave few keys to look at one by one.
        second = chunk.buffer[chunk.key_pos[rows] + 1]
        rows = rows[(second == ord("b")) | (second == ord("k")) | (second == ord("r"))]
        heads = (BOOTSTRAP, *OPENSHIFT, *RKE1)
        for head in heads:
            for row in rows[self._starts(chunk, rows, head)].tolist():
                self._take(chunk, row)

    @staticmethod
    def _starts(chunk: RecordChunk, rows: np.ndarray[tuple[int], np.dtype[np.int64]], head: bytes) -> list[int]:
        some = np.nonzero(chunk.key_len[rows] >= len(head))[0]
        for offset, byte in enumerate(head):
            if not len(some):
                break
            some = some[chunk.buffer[chunk.key_pos[rows[some]] + offset] == byte]
        found: list[int] = some.tolist()
        return found

    def _take(self, chunk: RecordChunk, row: int) -> None:
        if self._count >= _MOST_RECORDS:
            return
        self._count += 1
        key = chunk.buffer[chunk.key_pos[row] : chunk.key_pos[row] + chunk.key_len[row]].tobytes()
        start = int(chunk.value_pos[row])
        self.records.setdefault(key, []).append(
            SeenRecord(
                number=chunk.first_record + row,
                key=key,
                revision=Revision(int(chunk.main[row]), int(chunk.sub[row])),
                tombstone=bool(chunk.tombstone[row]),
                value=chunk.buffer[start : start + int(chunk.value_len[row])].tobytes(),
            )
        )

    def live(self) -> dict[bytes, SeenRecord]:
        """Return the last record of each key that is not deleted."""
        return {key: records[-1] for key, records in self.records.items() if not records[-1].tombstone}
