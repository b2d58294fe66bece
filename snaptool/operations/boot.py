"""Proof by booting: a real etcd on a copy of a file, compared with what the direct reader says, then put to work.

Everything that can be served is computed from the file first, without etcd, by the rules of the etcd version in use:
revision, compacted revision, HashKV, leases, and every live key with its numbers and its stored value. Then the very
bytes of the file are restored and booted. Leases are kept alive meanwhile, so that none of them ends and takes keys
along.

Also here: a copy of a snapshot with other lease TTLs. The etcd engine boots one whose leases last for years, and gives
its result the recorded TTLs again. And `replayed`: a data directory as etcd itself reads it, WAL included, by which its
newest writes come into reach of everything that works on snapshots.
"""

from __future__ import annotations

import secrets
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from snaptool import scratch
from snaptool.bolt import DatabaseWriter
from snaptool.bolt.writer import Sink
from snaptool.errors import OutputError, ScratchError
from snaptool.etcd import BUCKETS, Lease, Snapshot, Trailer, server_generation
from snaptool.etcd.reading import rows_among
from snaptool.etcd.records import encode_lease, encode_lease_key, encode_member_id
from snaptool.files import Draft
from snaptool.inputs import Inputs
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.sweep import Progress, no_progress
from snaptool.scratch import ROOM_HINT, Difference, EtcdBinaries, Expected, ScratchEtcd, ServedKey, engine
from snaptool.sources import Source


@dataclass(frozen=True, slots=True)
class BootReport:
    """What came of it. `etcd`: which one was booted. `keys`: how many were compared."""

    etcd: str
    keys: int
    differences: tuple[Difference, ...]


def serve_copy(
    opened: OpenedSnapshot, binaries: EtcdBinaries, *, skip_hash_check: bool = False, tcp: bool = False
) -> ScratchEtcd:
    """Start a scratch etcd on a copy, WAL included; the caller closes it.

    Raises WrongTrailer, FormatError, ScratchError.
    """
    snapshot = opened.snapshot
    if opened.data_directory is not None:
        several = len(snapshot.members()) > 1
        return ScratchEtcd.data_dir(opened.data_directory, force_new_cluster=several, binaries=binaries, tcp=tcp)
    with opened.digests() as digests:
        if not skip_hash_check:
            digests.require_right_trailer()
        trailer = digests.trailer()
    if trailer is not Trailer.OK:
        snapshot.status()  # etcd is told not to check, so we do: this reads every page, and raises at what is broken
    refuse_to_lose_keys(snapshot, binaries)
    return ScratchEtcd.restore(
        opened.source.image, binaries=binaries, skip_hash_check=trailer is not Trailer.OK, tcp=tcp
    )


class _Replayed(Source):
    """What etcd made of a data directory. Each of the directory's own files counts as the source itself."""

    def __init__(self, path: Path, directory: Path) -> None:
        self._directory = directory
        super().__init__(path)

    def _protect(self, inputs: Inputs) -> None:
        super()._protect(inputs)
        inputs.add_data_directory(self._directory / "member")


@contextmanager
def replayed(
    opened: OpenedSnapshot,
    binaries: EtcdBinaries | None,
    *,
    parent: Path | None = None,
    progress: Progress = no_progress,
) -> Iterator[OpenedSnapshot]:
    """Give a data directory as that etcd reads it from its db and its WAL; anything else, or without an etcd, as it is.

    A copy is booted, saved by etcd, and opened; it lasts as long as the block. Leases keep their recorded TTLs. Raises
    ScratchError, AuthEnabled included; Drift where a lease may have run out meanwhile.
    """
    directory = opened.data_directory
    if directory is None or binaries is None:
        yield opened
        return
    progress("booting", 0, 1)
    before, members = opened.snapshot.revision_on(server_generation(*binaries.version)), opened.snapshot.members()
    with scratch_file(parent) as saved:
        with (
            room_for_scratch_files(parent),
            ScratchEtcd.data_dir(
                directory, force_new_cluster=len(members) > 1, binaries=binaries, parent=parent
            ) as server,
        ):
            revision = engine.save_now(server.client(), saved, server.check_leases_were_safe)
            saved.flush()
        notices = [f"reading {directory} with its WAL, by {binaries}: revision {revision:,}, of its db {before:,}"]
        if len(members) > 1:
            notices.append(f"it is one of {len(members)} members, and what it did not know to be committed is left out")
        with _Replayed(Path(saved.readable_path), directory) as source:
            snapshot = Snapshot(source.buffer, source.release_memory)
            if snapshot.check_trailer() is not Trailer.OK:
                raise ScratchError("what etcd streamed as its snapshot is cut, or altered on its way")
            yield OpenedSnapshot(
                source, snapshot, tuple(notices), stated_path=directory, given_prefixes=opened.given_prefixes
            )


def scratch_file(parent: Path | None = None) -> Draft:
    """Make a file without a name where scratch files go: below `parent`, or in the system's temporary directory."""
    with room_for_scratch_files(parent):
        return Draft(_folder(parent) / f"snaptool-{secrets.token_hex(8)}.db", force=False)


def _folder(parent: Path | None) -> Path:
    return parent or Path(tempfile.gettempdir())


@contextmanager
def room_for_scratch_files(parent: Path | None = None) -> Iterator[None]:
    """Name a disk that fails by what it is used for: nobody who runs a command has named these files."""
    try:
        yield
    except OutputError as error:
        why = error.__cause__.strerror if isinstance(error.__cause__, OSError) else str(error)
        raise ScratchError(f"cannot write scratch files in {_folder(parent)}: {why}", hint=ROOM_HINT) from error


def refuse_to_lose_keys(snapshot: Snapshot, binaries: EtcdBinaries) -> None:
    """Raise ScratchError if that etcd's restore would delete a key.

    Up to 3.4 it deletes old members in the users' key space, where a key may have the name of a member's id. Source:
    docs/formats/etcd.md, "Buckets".
    """
    if binaries.version >= (3, 5, 0):
        return
    ids = {encode_member_id(member.id) for member in snapshot.members()}
    live = snapshot.live()
    for records in snapshot.chunks():
        for row in rows_among(records, ids):
            if live[records.first_record + row]:
                name = records.user_key(row).decode()
                raise ScratchError(
                    f"a key is named {name} as an old member of the cluster is, and the restore of {binaries}"
                    " deletes such keys",
                    hint="name an etcd from 3.5 on by --etcd-bin, or work without etcd",
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
    refuse_to_lose_keys(snapshot, binaries)
    generation = server_generation(*binaries.version)
    hashkv = snapshot.hashkv(generation=generation)
    leases = {lease.id: scratch.boot.served_ttl(lease.ttl) for lease in snapshot.leases().values()}
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
        self._view = snapshot.view
        live = snapshot.live()
        self._names: list[bytes] = []
        self._fields = tuple(array("q") for _ in range(6))
        for records in snapshot.chunks():
            columns = (
                records.create,
                records.mod,
                records.version,
                records.lease,
                records.value_at,
                records.value_size,
            )
            for row in range(len(records)):
                if live[records.first_record + row] and records.key_size[row]:
                    self._names.append(records.user_key(row))
                    for field, column in zip(self._fields, columns, strict=True):
                        field.append(column[row])

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[ServedKey]:
        for row in sorted(range(len(self._names)), key=self._names.__getitem__):
            create, mod, version, lease, position, length = (column[row] for column in self._fields)
            yield ServedKey(
                key=self._names[row],
                value=bytes(self._view[position : position + length]),
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
    """Write the database into `sink`, every record as it is but for the leases, which `change` maps. No trailer.

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
