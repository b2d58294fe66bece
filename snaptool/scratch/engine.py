"""Rewriting as a client: every change is an ordinary new revision, which watchers see.

Theory of operation. All live keys are read at one revision, page by page. The caller turns each page into changes;
they are written in transactions that compare every key's mod_revision and name its lease. Each transaction must raise
the revision by one exactly: more means that a lease ran out or somebody else wrote, and the run ends with `Drift`.
Then the history, and with it every old value, is compacted away, the database is defragmented, and the server's own
snapshot stream is the result.

Leases do not run out while we work because the caller gives the scratch copy leases of `boot.SAFE_TTL`, and the result
the recorded ones again; that is an edit of the `lease` bucket, and files are not this module's business. `save_now` is
for a store whose leases could not be edited, since its newest writes are in a WAL.

Must not know: what a value means, which file the store came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snaptool.errors import ScratchError
from snaptool.scratch.served import Change, Drift, ServedKey, Sink

if TYPE_CHECKING:
    from snaptool.scratch.client import EtcdClient

_TXN_OPERATIONS = 128  # etcd's own default limit; the scratch server allows more, which gains nothing
_TXN_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """What was done, in revisions of the store and numbers of keys."""

    old_revision: int
    new_revision: int
    read: int
    written: int
    deleted: int


def rewrite(
    client: EtcdClient,
    plan: Callable[[list[ServedKey]], Iterable[Change]],
    *,
    revision: int,
    leases: Mapping[int, int],
    progress: Callable[[int], None],
) -> Rewritten:
    """Apply to every live key what `plan` says, and see that nothing else happens to the store.

    `plan` gets pages in key order and returns changes of keys in that page; keys that it leaves out stay as they are.
    `revision` and `leases` (granted TTL in seconds by id) are what the file says: the store must be just there.
    `progress` gets the number of keys read so far. Raises ScratchError, Drift where the store is not as it should be.
    """
    client.check_auth()
    client.disarm()
    current = client.status().revision
    if current != revision:
        raise Drift(
            f"the scratch store is at revision {current}, the snapshot at {revision}",
            hint="a lease may have run out, or this etcd's restore changed keys; the direct engine needs no etcd",
        )
    _check_leases(client, leases)
    read = written = deleted = 0
    for page in client.pages(revision=revision):
        read += len(page)
        _refuse_dangling_leases(page, leases)
        for batch in _batches(plan(page)):
            now = client.apply(batch)
            if now != current + 1:
                raise Drift(
                    f"the scratch store went from revision {current} to {now} in one step",
                    hint="a lease ran out, or something else wrote; nothing was published, so run the command again",
                )
            current = now
            removed = sum(change.value is None for change in batch)
            deleted, written = deleted + removed, written + len(batch) - removed
        progress(read)
    _check_leases(client, leases)
    left = sum(len(page) for page in client.pages(revision=current, keys_only=True))
    if left != read - deleted or client.status().revision != current:
        raise Drift(f"the scratch store holds {left} keys after the rewrite, {read - deleted} should be left")
    return Rewritten(old_revision=revision, new_revision=current, read=read, written=written, deleted=deleted)


def finish(client: EtcdClient, rewritten: Rewritten, leases: Mapping[int, int], sink: Sink) -> int:
    """Forget the history, defragment, and save into `sink`. Returns the number of bytes. Raises ScratchError."""
    # Nothing was changed in a store that is compacted at its last revision: etcd refuses to do that twice.
    if client.hashkv().compact_revision < rewritten.new_revision:
        client.compact(rewritten.new_revision)
    client.defragment()
    size = client.save(sink)
    _check_leases(client, leases)
    current = client.status().revision
    if current != rewritten.new_revision:
        raise Drift(f"the scratch store went from revision {rewritten.new_revision} to {current} while it was saved")
    return size


def save_now(client: EtcdClient, sink: Sink, check_start: Callable[[], None] = lambda: None) -> int:
    """Save a store with running leases before any of them ends. Returns the revision that was saved.

    `check_start` is called when the leases have been listed, and raises if one may have ended before that. Raises
    Drift if one ends later.
    """
    client.check_auth()
    leases = client.leases()
    check_start()
    for lease in leases:
        client.keep_alive(lease)
    revision = client.status().revision
    client.save(sink)
    # The server streams the state of the moment in which the call begins, so that what is still there afterwards is in
    # the stream, and nothing else has happened meanwhile.
    if client.leases() != leases or client.status().revision != revision:
        raise Drift("a lease ran out on the scratch copy while it was saved", hint="run the command again")
    return revision


def _batches(changes: Iterable[Change]) -> Iterable[list[Change]]:
    batch: list[Change] = []
    weight = 0
    for change in changes:
        size = len(change.key) + len(change.value or b"")
        if batch and (len(batch) == _TXN_OPERATIONS or weight + size > _TXN_BYTES):
            yield batch
            batch, weight = [], 0
        batch.append(change)
        weight += size
    if batch:
        yield batch


def _refuse_dangling_leases(page: list[ServedKey], leases: Mapping[int, int]) -> None:
    for key in page:
        if key.lease and key.lease not in leases:
            raise ScratchError(
                f"{key.key.decode(errors='backslashreplace')} names lease {key.lease:x}, which does not exist:"
                " etcd lets no client write such a key and keep its lease",
                hint="use `--engine direct`, which keeps every such byte",
            )


def _check_leases(client: EtcdClient, leases: Mapping[int, int]) -> None:
    served = {lease: client.lease_ttl(lease)[0] for lease in client.leases()}
    if served != leases:
        changed = [f"{lease:x}" for lease in leases.keys() ^ served.keys()] or ["one with another TTL"]
        raise Drift(
            f"leases are not those of the snapshot: {', '.join(sorted(changed)[:5])}",
            hint="a lease ran out on the scratch copy; nothing was published, so run the command again",
        )
