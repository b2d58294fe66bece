"""Proof by booting: a real etcd on a copy of a file, compared with what the direct reader says, then put to work.

Everything that can be served is computed from the file first, without etcd, by the rules of the etcd version at hand:
revision, compacted revision, HashKV, leases, and every live key with its numbers and its stored value. Then the very
bytes of the file are restored and booted. Leases are kept alive meanwhile, so that none of them ends and takes keys
along.

Also here: a copy of a snapshot with other lease TTLs. The etcd engine boots one whose leases last for years, and gives
its result the recorded TTLs again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snaptool import scratch
from snaptool.bolt import DatabaseWriter
from snaptool.bolt.writer import Sink
from snaptool.etcd import BUCKETS, Lease, Snapshot, Trailer, server_generation
from snaptool.etcd.records import encode_lease, encode_lease_key
from snaptool.operations.opening import OpenedSnapshot, wrong_trailer
from snaptool.scratch import Difference, EtcdBinaries, Expected, ScratchEtcd, ServedKey


@dataclass(frozen=True, slots=True)
class BootReport:
    """What came of it. `etcd`: which one was booted. `keys`: how many were compared."""

    etcd: str
    keys: int
    differences: tuple[Difference, ...]


def serve_copy(
    opened: OpenedSnapshot, binaries: EtcdBinaries, *, skip_hash_check: bool = False, tcp: bool = False
) -> ScratchEtcd:
    """Start a scratch etcd on a copy; the caller closes it. Raises WrongTrailer, FormatError, ScratchError."""
    snapshot = opened.snapshot
    trailer = snapshot.check_trailer()
    if trailer is Trailer.WRONG and not skip_hash_check:
        raise wrong_trailer(opened.source.path)
    if trailer is not Trailer.OK:
        snapshot.status()  # etcd is told not to check, so we do: this reads every page, and raises at what is broken
    return ScratchEtcd.restore(
        opened.source.path, binaries=binaries, skip_hash_check=trailer is not Trailer.OK, tcp=tcp
    )


def boot_check(
    snapshot: Snapshot,
    image: Path | memoryview,
    *,
    binaries: EtcdBinaries,
    parent: Path | None = None,
) -> BootReport:
    """Boot a copy of `image`, which is the file that `snapshot` was read from; compare; write, compact, defragment.

    A copy that differs is not put to work. Needs room for twice the file below `parent`, and some 150 bytes of memory
    for each live key, since etcd serves keys in another order than that in the file. Raises ScratchError if etcd does
    not take the file, AuthEnabled included, and FormatError as the reader does.
    """
    generation = server_generation(*binaries.version)
    hashkv = snapshot.hashkv(generation=generation)
    leases = {lease.id: lease.ttl for lease in snapshot.leases().values()}
    expected = Expected(
        revision=snapshot.revision_on(generation),
        hashkv=hashkv.hash,
        compact_revision=hashkv.compact_revision,
        leases=leases,
    )
    keys = LiveKeys(snapshot)
    bare = snapshot.check_trailer() is Trailer.MISSING
    with ScratchEtcd.restore(image, binaries=binaries, parent=parent, skip_hash_check=bare) as server:
        client = server.client()
        with scratch.boot.kept_alive(client, leases):
            differences = tuple(scratch.boot.compare(client, expected, keys))
            if not differences:
                scratch.boot.exercise(client)
    return BootReport(str(binaries), len(keys), differences)


class LiveKeys:
    """The live keys of a snapshot, ascending by key, as etcd serves them. The empty key cannot be asked for."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._buffer = snapshot.database.pages.bytes.data
        live = snapshot.live_mask()
        names: list[bytes] = []
        columns: list[tuple[np.ndarray[tuple[int], np.dtype[np.int64]], ...]] = []
        for chunk in snapshot.records():
            chosen = live[chunk.first_record : chunk.first_record + len(chunk)] & (chunk.key_len > 0)
            (rows,) = np.nonzero(chosen)
            names += [chunk.user_key(row) for row in rows.tolist()]
            fields = (chunk.create, chunk.mod, chunk.version, chunk.lease, chunk.value_pos, chunk.value_len)
            columns.append(tuple(column[rows] for column in fields))
        self._names = names
        self._fields = [np.concatenate(column) for column in zip(*columns, strict=True)]

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[ServedKey]:
        for row in sorted(range(len(self._names)), key=self._names.__getitem__):
            create, mod, version, lease, position, length = (int(column[row]) for column in self._fields)
            yield ServedKey(
                key=self._names[row],
                value=bytes(self._buffer[position : position + length]),
                create_revision=create,
                mod_revision=mod,
                version=version,
                lease=lease,
            )


def lasting(lease: Lease) -> Lease:
    """The lease with a TTL that outlives any run."""
    return Lease(lease.id, scratch.SAFE_TTL)


def recorded(leases: Mapping[int, Lease]) -> Callable[[Lease], Lease]:
    """The way back from `lasting`: each lease as it was recorded, by id."""
    return lambda lease: leases.get(lease.id, lease)


def copy_with_leases(snapshot: Snapshot, change: Callable[[Lease], Lease], sink: Sink) -> None:
    """Write the database anew into `sink`, every record as it is but for the leases, which `change` maps. No trailer.

    Raises as the reader does.
    """
    database = snapshot.database
    buckets = database.buckets()
    writer = DatabaseWriter(sink, page_size=database.page_size, txid=database.meta.txid)
    for name in sorted({*buckets, *BUCKETS}):
        bucket = buckets.get(name)
        with writer.bucket(name, bucket.sequence if bucket is not None else 0) as out:
            if name == b"lease":
                for lease in map(change, snapshot.leases().values()):
                    out.put(encode_lease_key(lease.id), encode_lease(lease))
            elif bucket is not None:
                for key, value in bucket.items():
                    out.put(key, value)
    writer.finish()
