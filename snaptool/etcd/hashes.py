"""The two checksums by which etcd compares stores: that of `snapshot status`, and HashKV.

Both are CRC-32C over keys and values back to back, which is how they lie in a leaf: so one call per run of neighbouring
records does, usually one per leaf.

HashKV also depends on the server: three of its rules changed in patch releases (`ServerGeneration`). It is computed
from what is in the file; a running server may answer for the compacted revision itself with a number it stored while
compacting, which no file holds.

Source: etcd etcdutl/snapshot/v3_snapshot.go (v3.7.1), server/storage/mvcc/hash.go (v3.7.1), mvcc/kvstore.go (v3.4.23);
spec/etcd-snapshot.md, 2.3 and 2.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from snaptool.bolt import Bucket, LeafChunk
from snaptool.errors import InputError


class RevisionCompacted(InputError):
    """A revision that the store no longer has."""


class RevisionInFuture(InputError):
    """A revision that the store has not reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerGeneration:
    """What servers do differently.

    `serves_compacted_revision`: the revision that was compacted at can still be asked for.
    `scheduled_raises_revision`: a compaction that was only scheduled holds the current revision up.
    `keeps_tombstones`: a compaction at a tombstone leaves it in the file, and HashKV leaves it out.
    """

    serves_compacted_revision: bool
    scheduled_raises_revision: bool
    keeps_tombstones: bool


CURRENT_SERVERS = ServerGeneration(
    serves_compacted_revision=True, scheduled_raises_revision=True, keeps_tombstones=True
)
"""From 3.4.34, 3.5.16 and 3.6.0 on."""


def server_generation(major: int, minor: int, patch: int) -> ServerGeneration:
    """Return the rules of an etcd version, 3.3 or newer."""
    version = (major, minor, patch)

    def since(patch_of_34: int, patch_of_35: int) -> bool:
        return version >= ((3, 4, patch_of_34) if version < (3, 5, 0) else (3, 5, patch_of_35))

    return ServerGeneration(
        serves_compacted_revision=since(27, 10),
        scheduled_raises_revision=since(32, 14),
        keeps_tombstones=since(34, 16),
    )


@dataclass(frozen=True, slots=True)
class HashKV:
    """HashKV of the store as it was at `revision`. `compact_revision` is -1 if it was never compacted."""

    hash: int
    revision: int
    compact_revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What `etcdutl snapshot status` prints.

    `total_key_records` is its totalKey up to 3.5: records of all buckets; `total_key_live` from 3.6: live keys.
    `revision` is that of the last record, not of the server. `total_size` in bytes, without what lies behind the
    high-water mark.
    """

    hash: int
    revision: int
    total_key_records: int
    total_key_live: int
    total_size: int
    version: str


class StatusHash:
    """The hash of `snapshot status` over buckets given in name order, in pieces as small as a chunk of leaves."""

    def __init__(self) -> None:
        self.value = 0
        self.records = 0

    def begin(self, bucket: Bucket) -> None:
        """Begin a bucket: its name counts."""
        self.value = crc32c(bucket.name, self.value)

    def add(self, leaves: LeafChunk) -> None:
        """Take the next records of the bucket."""
        self.value = add_records(self.value, leaves)
        self.records += len(leaves)


def add_records(crc: int, leaves: LeafChunk, chosen: NDArray[np.bool_] | None = None) -> int:
    """Continue a CRC-32C with the keys and values of the records of a chunk, or of the `chosen` ones."""
    start, end = leaves.key_pos, leaves.value_pos + leaves.value_len
    if chosen is not None and not chosen.all():
        start, end = start[chosen], end[chosen]
    return add_spans(crc, leaves.buffer, start, end)


def add_spans(crc: int, buffer: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64]) -> int:
    """Continue a CRC-32C with stretches of the file, in their order: one call for neighbours that touch."""
    if not len(start):
        return crc
    apart = start[1:] != end[:-1]
    starts = start[np.concatenate(([True], apart))].tolist()
    ends = end[np.concatenate((apart, [True]))].tolist()
    for first, last in zip(starts, ends, strict=True):
        crc = crc32c(buffer.data[first:last], crc)
    return crc
