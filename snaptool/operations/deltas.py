"""A full snapshot with the deltas after it, as one snapshot: what etcd-backup-restore would restore from both.

The result goes to a private file without a name. Its trailer is right, wrong or missing as the full snapshot's is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from snaptool.bolt import DatabaseWriter
from snaptool.containers.gardener import ChainFile, read_delta
from snaptool.containers.spool import Spool
from snaptool.etcd import Snapshot, Trailer
from snaptool.etcd.replay import Replay
from snaptool.text import counted


class SpoolSink:
    """A sink in a private file."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._at = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write at the position and move it."""
        self._spool.write_at(data, self._at)
        self._at += len(data)

    def seek(self, offset: int) -> None:
        """Move the position."""
        self._at = offset


def with_deltas(
    snapshot: Snapshot, directory: Path, deltas: Sequence[ChainFile], folder: Path
) -> tuple[Spool, tuple[str, ...]]:
    """Apply `deltas`, files below `directory`, to a full snapshot; return the new file and what to say about it.

    Raises ContainerFault delta_hash and delta_format, DeltaGap, DeltaEvent, NoRoom, OutputError, and the FormatErrors
    of a damaged snapshot.
    """
    trailer = snapshot.check_trailer()
    keys = {event.key for one in deltas for event in read_delta(directory / one.path)}
    replay = Replay(snapshot, keys)
    spool = Spool(folder, snapshot.database.size)
    try:
        sink, database = SpoolSink(spool), snapshot.database
        writer = DatabaseWriter(sink, page_size=database.page_size, txid=database.meta.txid)
        for name, bucket in sorted(snapshot.database.buckets().items()):
            with writer.bucket(name, bucket.sequence) as out:
                for key, value in bucket.items():
                    out.put(key, value)
                for one in deltas if name == b"key" else ():
                    path = directory / one.path
                    for key, value in replay.apply(read_delta(path), one.last, str(path)):
                        out.put(key, value)
        writer.finish()
        spool.write_at(_trailer(spool, trailer, snapshot), spool.size)
    except BaseException:
        spool.close()
        raise
    return spool, _notices(replay, snapshot)


def _trailer(spool: Spool, trailer: Trailer, snapshot: Snapshot) -> bytes:
    if trailer is Trailer.OK:
        digest = hashlib.sha256()
        for block in spool.blocks():
            digest.update(block)
        return digest.digest()
    return snapshot.behind


def _notices(replay: Replay, snapshot: Snapshot) -> tuple[str, ...]:
    notices: tuple[str, ...] = ()
    if replay.skipped:
        notices += (f"{counted(replay.skipped, 'event was', 'events were')} in the full snapshot already",)
    leases = len(snapshot.leases())
    if replay.leases_lost or leases:
        lost = f"writes that come back without theirs: {replay.leases_lost:,}"
        notices += (f"leases are not in deltas: {lost}; leases as they were in the full snapshot: {leases:,}",)
    return notices
