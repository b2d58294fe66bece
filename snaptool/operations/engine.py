"""The other engine: a rewrite through a real etcd, as a client of a scratch copy.

Theory of operation. A copy of the source whose leases last for years is restored and booted. Every live value, as etcd
serves it at one revision, goes the way that the direct engine would send it (`rewrite.way`): it stays, is re-encrypted,
or its key is deleted; each change is an ordinary new revision. Then etcd itself compacts, defragments and streams its
snapshot. That stream, with the recorded TTLs in place again, becomes the new file, and is compared with the source key
by key, by the direct reader and with the new configuration alone.

Only what is live comes through: older revisions are not kept, and values that are lost in them alone are no loss. What
etcd keeps about itself (members, consistent index, alarms) is the scratch server's; a restore replaces it anyway.

Scratch copies are files without a name in the system's temporary directory, and a scratch etcd's own directory: no way
out leaves any of them behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import compress, count
from operator import or_
from pathlib import Path
from typing import ClassVar

from snaptool.errors import InputError, ScratchError
from snaptool.etcd import NO_EDITS, Snapshot, Trailer, server_generation
from snaptool.etcd.leaves import Leaves
from snaptool.files import Draft
from snaptool.operations.boot import (
    LiveKeys,
    copy_with_leases,
    lasting,
    recorded,
    refuse_to_lose_keys,
    room_for_scratch_files,
    scratch_file,
)
from snaptool.operations.crypto import Work, Workshop
from snaptool.operations.labels import Labels, header_of, resource_of_value
from snaptool.operations.older import OlderValues
from snaptool.operations.plan import (
    COPY,
    DROP,
    RESEAL,
    Job,
    Plan,
    RecordCounts,
    RewriteRequest,
    Undecodable,
    Undecryptable,
    Way,
    Ways,
    changes,
    deletions,
    doomed,
    require_encryption,
    way,
)
from snaptool.operations.sweep import Sweep, sweep
from snaptool.operations.written import (
    FileReport,
    ReadBackFailed,
    append_trailer,
    hashing,
    is_stale,
    require_nothing_else,
)
from snaptool.providers.keyring import Keyring
from snaptool.scratch import SAFE_TTL, Change, EtcdBinaries, Rewritten, ScratchEtcd, ServedKey, engine
from snaptool.text import printable


class OnlyDirect(InputError):
    """The request is one that only the direct engine can serve."""


@dataclass(frozen=True, slots=True)
class EtcdEngine:
    """Writes through that etcd. `parent`: where scratch files go, by default the system's temporary directory.

    Needs room for about four times the file there, and some 300 bytes of memory for each live key. A data directory is
    rewritten with what its WAL holds when it goes through `boot.replayed` first.
    """

    binaries: EtcdBinaries
    parent: Path | None = None
    name: ClassVar[str] = "etcd"

    def decide(
        self,
        snapshot: Snapshot,
        swept: Sweep,
        labels: Labels,
        workshop: Workshop,
        request: RewriteRequest,
        older: OlderValues,
    ) -> Plan:
        """Decide on live values; everything else goes. Counts are of live keys.

        Every change is a new revision here, so that nothing comes back at its old one.
        """
        if request.only_lost or request.undecryptable is Undecryptable.OLDER:
            raise OnlyDirect(
                "the etcd engine gives every change a new revision and keeps no history, so it neither takes older "
                "revisions back nor leaves all else as it is",
                hint="leave --engine etcd out",
            )
        if (nameless := swept.live.count(1) - len(LiveKeys(snapshot))) > 0:
            raise ScratchError(
                f"{nameless} live key has an empty name, which no client of etcd can ask for",
                hint="use `--engine direct`, which keeps every such byte",
            )
        ways = Ways(swept, workshop, only_lost=False)
        if not (request.decrypt or request.allow_plaintext):
            require_encryption(ways.ways, ways.values(live=True), (), request.writing)
        gone = tuple(value for value in doomed(swept, request) if value.live)
        action = bytearray(way if live else DROP for way, live in zip(ways.actions(), swept.live, strict=True))
        for value in gone:
            action[value.record] = DROP
        live = bytes(compress(action, swept.live))
        return Plan(
            action=action,
            edits=NO_EDITS,
            counts=RecordCounts(
                total=len(live),
                copied=live.count(COPY),
                rewritten=live.count(RESEAL),
                deleted=live.count(DROP),
            ),
            changes=changes(ways, bytearray(one == DROP for one in action)),
            deletions=deletions(gone, range(len(action)), snapshot, labels.prefixes, older=older),
            lost=tuple(value for value in swept.lost if value.live),
            undecodable=tuple(value for value in swept.undecodable if value.live),
        )

    def write(self, job: Job, draft: Draft) -> FileReport:
        """Rewrite through etcd, take what it saves into `draft`, and read that back. Raises ScratchError too."""
        with scratch_file(self.parent) as saved:
            with room_for_scratch_files(self.parent):
                done = self._rewrite(job, saved)
                saved.flush()
            # Not closed: views into the map may outlive this, in an error that is under way above all.
            image = saved.read_back()
            snapshot = Snapshot(image.buffer, image.release_memory)
            if snapshot.check_trailer() is not Trailer.OK:
                raise ReadBackFailed("what etcd streamed as its snapshot is cut, or altered on its way")
            copy_with_leases(snapshot, recorded(job.opened.snapshot.leases()), draft)
            draft.sync()
        return _read_back(draft, job, done)

    def rehearse(self, job: Job) -> None:
        """Do all of it, into a scratch file."""
        with scratch_file(self.parent) as draft, room_for_scratch_files(self.parent):
            self.write(job, draft)

    def _rewrite(self, job: Job, saved: Draft) -> Rewritten:
        """Boot a copy, rewrite it as a client, and save it into `saved`."""
        source, counts = job.opened.snapshot, job.plan.counts
        leases = dict.fromkeys(source.leases(), SAFE_TTL)
        refuse_to_lose_keys(source, self.binaries)
        with scratch_file(self.parent) as copy:
            copy_with_leases(source, lasting, copy)
            copy.flush()  # it is read through its descriptor, behind which blocks may still be waiting
            with hashing(copy) as digest:
                database_digest, _ = digest()
            copy.seek(copy.size)
            copy.write(database_digest)
            copy.flush()
            job.opened.source.check_unchanged()
            job.progress("booting", 0, 1)
            image = Path(copy.readable_path)
            with ScratchEtcd.restore(image, binaries=self.binaries, parent=self.parent) as server:
                copy.discard()
                done = engine.rewrite(
                    server.client(),
                    _Changes(job),
                    revision=source.revision_on(server_generation(*self.binaries.version)),
                    leases=leases,
                    progress=lambda read: job.progress("rewriting", read, counts.total),
                )
                if (done.read, done.written, done.deleted) != (counts.total, counts.rewritten, counts.deleted):
                    raise ReadBackFailed(
                        f"etcd served {done.read} keys, of which {done.written} were rewritten and {done.deleted} "
                        f"deleted; the file has {counts.total}, {counts.rewritten} and {counts.deleted}"
                    )
                engine.finish(server.client(), done, leases, saved)
        return done


class _Changes:
    """Turns pages of served keys into changes."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._numbers = count()

    def __call__(self, page: list[ServedKey]) -> Iterator[Change]:
        for served in page:
            found, _ = _judge(self._job, served)
            if _goes(self._job, found):
                yield Change(served.key, served.mod_revision, None)
            elif found.action == RESEAL:
                # Clients do not see the second half of a revision; any number that is not repeated will do.
                revision = served.mod_revision, next(self._numbers)
                anew = self._job.workshop.reseal(found.resource.group_resource, served.value, served.key, revision)
                yield Change(served.key, served.mod_revision, anew, served.lease)


def _goes(job: Job, found: Way) -> bool:
    """Does the request delete values of this outcome?"""
    if not found.outcome.opened:
        return job.request.undecryptable is Undecryptable.DELETE
    undecodable = found.outcome.fault is not None and not found.outcome.headless
    return undecodable and job.request.undecodable is Undecodable.DELETE


def _judge(job: Job, served: ServedKey) -> tuple[Way, bytes | None]:
    """Open a value of the source: which way it goes, and its plaintext."""
    resource = resource_of_value(served.key, served.value, job.labels.prefixes)
    outcome, plaintext = job.workshop.open(resource.group_resource, served.value, served.key)
    return way(resource, header_of(served.value), outcome, job.workshop, only_lost=False), plaintext


def _read_back(draft: Draft, job: Job, done: Rewritten) -> FileReport:
    """Compare the new file with the source, key by key, and append its SHA-256. Raises ReadBackFailed, FormatErrors."""
    request = job.request
    keys = Keyring(()) if request.decrypt else request.writing
    # Not closed, as above.
    file = draft.read_back()
    work = Work(keys, keys, request.randomness)
    with Workshop(work, file, jobs=1) as workshop, hashing(draft) as digest:
        written = Snapshot(file.buffer, file.release_memory)
        leaves = Leaves()
        note = partial(leaves.take, page_size=written.database.page_size)
        labels = Labels(job.labels.prefixes, keys.key_names() | (request.reading or Keyring(())).key_names())
        swept = sweep(written, labels, None, observers=[note], progress=job.progress, step="verifying")
        if not all(map(or_, swept.live, swept.tombstone)):
            raise ReadBackFailed("the written file has values that are not live, although it was compacted")
        if written.current_revision != done.new_revision:
            raise ReadBackFailed(
                f"the written file is at revision {written.current_revision}, not at {done.new_revision}"
            )
        if written.leases() != job.opened.snapshot.leases():
            raise ReadBackFailed("the written file has other leases than the source")
        _compare(job, written, workshop, done)
        require_nothing_else(written, leaves)
        return append_trailer(draft, digest(), written, leaves)


def _compare(job: Job, written: Snapshot, workshop: Workshop, done: Rewritten) -> None:
    """Hold every live key of the new file against the source's. `workshop` has the new keys only."""
    theirs = iter(LiveKeys(written))
    for before in LiveKeys(job.opened.snapshot):
        found, plaintext = _judge(job, before)
        if _goes(job, found):
            continue
        after = next(theirs, None)
        if after is None or after.key != before.key:
            raise ReadBackFailed(
                f"{printable(min(before.key, after.key if after else before.key))} is in one of the files only"
            )
        if found.action == COPY and after != before:
            raise ReadBackFailed(f"{printable(before.key)} is not as it was in the source")
        if found.action != COPY and not _is_next_version(before, after, done):
            raise ReadBackFailed(f"{printable(before.key)} has other numbers or another lease than a rewrite gives it")
        if found.outcome.opened:
            outcome, plaintext_now = workshop.open(found.resource.group_resource, after.value, after.key)
            if not outcome.opened and not (outcome.doubtful and plaintext_now == plaintext):
                raise ReadBackFailed(f"{printable(before.key)} does not open: {', '.join(outcome.reasons)}")
            if plaintext_now != plaintext:
                raise ReadBackFailed(f"{printable(before.key)} opens to another plaintext than in the source")
            if found.action != COPY and is_stale(outcome, rewrapped=bool(job.request.rewraps)):
                raise ReadBackFailed(
                    f"{printable(before.key)} is under another key than the new configuration's first one"
                )
    if (extra := next(theirs, None)) is not None:
        raise ReadBackFailed(f"{printable(extra.key)} should not be in the written file")


def _is_next_version(before: ServedKey, after: ServedKey, done: Rewritten) -> bool:
    return (
        after.create_revision == before.create_revision
        and after.version == before.version + 1
        and done.old_revision < after.mod_revision <= done.new_revision
        and after.lease == before.lease
    )
