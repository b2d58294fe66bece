"""What servers of different versions answer about a store: its hashes, and which revisions can be asked for.

HashKV depends on the server: three of its rules changed in patch releases (`ServerGeneration`).
Source: etcd server/storage/mvcc/hash.go (v3.7.1), mvcc/kvstore.go (v3.4.23); docs/formats/etcd.md, "HashKV".
"""

from __future__ import annotations

from dataclasses import dataclass

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
