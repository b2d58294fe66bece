"""The main job: read a snapshot with the old keys, write it under new ones, prove it, then give it its name.

This is the direct engine, from file to file; `engine` has the other one, which writes through a real etcd, and shares
the first two steps and the last. Re-encrypting, stripping, dropping what no key opens, compacting and plain repacking
differ only in the decision per record that is made between two passes:

1. *read*: a sweep of the source opens every encrypted value (`sweep`); nothing has been written yet.
2. *decide*: every record is copied, sealed anew or dropped (`_decide`); deletions obey etcd's editing rules.
3. *write*: records stream into an unnamed file. Leaf pages in which nothing changes are carried over whole.
4. *read back*: the same sweep over the new file, with the new keys only. Every plaintext must have the digest it had
   in the source, and every byte that the request does not change must be the same (`_Unchanged`, a CRC over them all).
5. *publish*: the SHA-256 of what was read back is appended, and the file gets its name.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from itertools import chain
from mmap import mmap
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from snaptool.bolt import (
    CHUNK_BYTES,
    CHUNK_RECORDS,
    Bucket,
    BucketWriter,
    DatabaseWriter,
    LeafChunk,
    Sink,
    blocks,
    spans,
)
from snaptool.errors import InputError, VerificationFailed
from snaptool.etcd import (
    BUCKETS,
    NO_EDITS,
    Edits,
    LeafSums,
    RecordChunk,
    Snapshot,
    add_spans,
    compact,
    delete_lost,
    merge,
    replace_value,
    scan_records,
)
from snaptool.files import Draft, check_target, release_memory
from snaptool.kube import consequence, parse_key
from snaptool.operations.boot import boot_check
from snaptool.operations.crypto import (
    Batch,
    OpenedBatch,
    Outcome,
    Randomness,
    Rewraps,
    Sealed,
    SystemRandomness,
    Work,
    Workshop,
)
from snaptool.operations.labels import Header, Labels, Resource
from snaptool.operations.opening import OpenedSnapshot, found_prefixes
from snaptool.operations.sweep import (
    NOTHING_TRIED,
    LostValue,
    Progress,
    Sweep,
    make_batches,
    no_progress,
    sweep,
)
from snaptool.providers import Keyring, Kind
from snaptool.scratch import EtcdBinaries

_SEARCH_BLOCK = 4 << 20
_HASH_BLOCK = 2 << 20
_PAGES_AT_ONCE = 1024


class Undecryptable(StrEnum):
    """What to do with values that no key opens."""

    STOP = "stop"
    KEEP = "keep"
    DELETE = "delete"


class UncoveredResources(InputError):
    """Encrypted values would become plaintext because the new configuration has no entry for their resource."""

    def __init__(self, resources: Sequence[str]) -> None:
        names = ", ".join(resources)
        super().__init__(
            f"the new configuration has no entry for {names}, whose encrypted values would be written in clear",
            hint="add an entry for them, or say --allow-uncovered if that is what you want",
        )
        self.resources = tuple(resources)


class ReadBackFailed(VerificationFailed):
    """What was written is not what should have been written. Nothing was published."""


class BootCheckFailed(VerificationFailed):
    """A real etcd serves something else from the written file than is in it. Nothing was published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteRequest:
    """What to do with the values of a snapshot.

    `reading` opens (None: values are not looked at, every record is copied), `writing` seals; `decrypt` writes
    everything in clear (`writing` is then not looked at). `rewraps`: KMS values that keep their keys and bodies, under
    another wrapping.
    """

    reading: Keyring | None
    writing: Keyring
    decrypt: bool = False
    undecryptable: Undecryptable = Undecryptable.STOP
    allow_uncovered: bool = False
    compact: bool = False
    skip_hash_check: bool = False
    prefixes: tuple[str, ...] = ()
    jobs: int = 1
    randomness: Randomness = field(default_factory=SystemRandomness)
    rewraps: Rewraps = field(default_factory=Rewraps)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """A snapshot file in a report. `hash` is that of `etcdutl snapshot status`, `hashkv` that of a current server."""

    path: str
    size: int
    sha256: str
    revision: int
    hash: int
    hashkv: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordCounts:
    """Records of bucket `key`, by what became of them."""

    total: int
    copied: int
    rewritten: int
    deleted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueChange:
    """Values that went the same way. `to_kind` and `to_key` are None when they were deleted."""

    resource: str
    from_kind: Kind | None
    from_key: str
    to_kind: Kind | None
    to_key: str | None
    live: int
    old: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """A key of which records were dropped. `whole`: nothing is left of it; else its history was cut."""

    key: bytes
    resource: str
    whole: bool
    revisions: tuple[int, ...]
    reason: str
    consequence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteReport:
    """What was done. `target` is None after a dry run and when `stopped`: values are lost, the request says stop."""

    source: FileReport
    target: FileReport | None
    dry_run: bool
    engine: str
    records: RecordCounts
    values: tuple[ValueChange, ...]
    lost: tuple[LostValue, ...]
    undecryptable: Undecryptable
    deletions: tuple[Deletion, ...]
    verified: bool
    seconds: float

    @property
    def stopped(self) -> bool:
        """Nothing was written, because values are lost and the request says stop."""
        return bool(self.lost) and self.undecryptable is Undecryptable.STOP


class Engine(Protocol):
    """How a snapshot is written anew, once it is known what opens and what does not."""

    @property
    def name(self) -> str:
        """What `--engine` calls it."""

    def decide(
        self, snapshot: Snapshot, swept: Sweep, labels: Labels, workshop: Workshop, request: RewriteRequest
    ) -> Plan:
        """Decide what becomes of every record. Raises UncoveredResources."""

    def write(self, job: Job, draft: Draft) -> FileReport:
        """Write the new file into `draft`, trailer included, and read it back. Raises ReadBackFailed."""

    def rehearse(self, job: Job) -> None:
        """Do the same work into nothing."""


class DirectEngine:
    """File to file: every byte that the request does not change is the same, and so is the history."""

    name = "direct"

    def decide(
        self, snapshot: Snapshot, swept: Sweep, labels: Labels, workshop: Workshop, request: RewriteRequest
    ) -> Plan:
        """Decide what becomes of every record, by the editing rules of etcd."""
        return _decide(snapshot, swept, labels, workshop, request)

    def write(self, job: Job, draft: Draft) -> FileReport:
        """Write records from file to file, and read them back."""
        job.write(draft)
        draft.start_syncing()
        return _read_back(draft, job)

    def rehearse(self, job: Job) -> None:
        """Write into nothing."""
        job.write(Nowhere())


DIRECT = DirectEngine()


def rewrite(
    opened: OpenedSnapshot,
    target: Path | None,
    request: RewriteRequest,
    *,
    engine: Engine = DIRECT,
    boot_with: EtcdBinaries | None = None,
    force: bool = False,
    progress: Progress = no_progress,
) -> RewriteReport:
    """Rewrite a snapshot into `target`, or, when that is None, do the same work into nothing.

    `boot_with`: boot a copy of the new file with that etcd before it gets its name; with no target there is none.

    The report says `stopped` when values are lost and the request says stop; then nothing was written. Raises
    UncoveredResources, InputError for a target that may not be written, WrongTrailer, CorruptPage and the other
    FormatErrors for a damaged source, OutputError when the disk fails, ReadBackFailed when the written file is not as
    it should be, BootCheckFailed when etcd finds that, ScratchError when etcd does not do its work.
    """
    started = time.monotonic()
    if target is not None:
        check_target(target, force=force, source=opened.source)
    snapshot = opened.snapshot
    labels = Labels(request.prefixes or found_prefixes(snapshot))
    writing = Keyring(()) if request.decrypt else request.writing
    reading = request.reading or Keyring(())
    work = Work(str(opened.source.path), opened.source.size, reading, writing, request.randomness, request.rewraps)
    with Workshop(work, opened.source.buffer, jobs=request.jobs) as workshop, opened.digests() as digests:
        notes = LeafNotes(snapshot)
        swept = sweep(
            snapshot,
            labels,
            workshop if request.reading is not None else None,
            wanted=partial(_encrypted_before_or_after, labels, workshop),
            observers=[opened.tend, notes.add],
            progress=progress,
        )
        if not request.skip_hash_check:
            digests.require_right_trailer()
        plan = engine.decide(snapshot, swept, labels, workshop, request)
        report = RewriteReport(
            source=_file_report(opened.path, opened.source.size, digests.file_sha256(), snapshot, notes.sums),
            target=None,
            dry_run=target is None,
            engine=engine.name,
            records=plan.counts,
            values=plan.changes,
            lost=plan.lost,
            undecryptable=request.undecryptable,
            deletions=plan.deletions,
            verified=False,
            seconds=time.monotonic() - started,
        )
        if report.stopped:
            return report
        job = Job(
            request=request,
            opened=opened,
            swept=swept,
            plan=plan,
            workshop=workshop,
            labels=labels,
            progress=progress,
            notes=notes,
            carried=np.zeros(len(notes.portable), dtype=np.bool_),
        )
        if target is None:
            engine.rehearse(job)
            return replace(report, seconds=time.monotonic() - started)
        with Draft(target, force=force) as draft:
            written = engine.write(job, draft)
            if boot_with is not None:
                progress("booting", 0, 1)
                _boot(draft, boot_with)
            opened.source.check_unchanged()
            progress("publishing", 0, 1)
            draft.publish()
    return replace(report, target=written, verified=True, seconds=time.monotonic() - started)


def repair(
    opened: OpenedSnapshot, target: Path, *, force: bool = False, progress: Progress = no_progress
) -> RewriteReport:
    """Write the same records to a fresh file: packed, without leftovers, with a right trailer. Raises as `rewrite`."""
    request = RewriteRequest(reading=None, writing=Keyring(()), skip_hash_check=True)
    return rewrite(opened, target, request, force=force, progress=progress)


def _boot(draft: Draft, binaries: EtcdBinaries) -> None:
    """Boot a copy of the finished file. Raises BootCheckFailed, and ScratchError when etcd does not take it."""
    report = boot_check(Snapshot(draft.read_back()), Path(draft.readable_path), binaries=binaries)
    if report.differences:
        first, more = report.differences[0], len(report.differences) - 1
        raise BootCheckFailed(
            f"{report.etcd} serves something else than was written: {first}" + (f" (and {more} more)" if more else ""),
            hint="nothing was published; please report it with the versions of etcd and snaptool",
        )


class Nowhere:
    """A sink that keeps nothing: dry runs do all the work into it."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the bytes and forget them."""

    def seek(self, offset: int) -> None:
        """Do nothing: there is no position."""


def _encrypted_before_or_after(
    labels: Labels, workshop: Workshop, chunk: RecordChunk, resource: NDArray[np.int64], header: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Want the values whose plaintext is to be compared afterwards: those that are encrypted, or will be."""
    del chunk
    will_be = np.array([workshop.writer(known.group_resource)[0] is not Kind.IDENTITY for known in labels.resources])
    wanted: NDArray[np.bool_] = (header != 0) | will_be[resource]
    return wanted


# --- decide ---------------------------------------------------------------------------------------------------------

COPY, RESEAL, REBUILD, DROP, REPLACE = range(5)
"""REBUILD is RESEAL of a record with several value fields, of which only the one that counts stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What happens to every record (`action`), the edits that come with it, and how all that is told.

    `lost`: the values that do not open, as far as they matter to the engine.
    """

    action: NDArray[np.uint8]
    edits: Edits
    counts: RecordCounts
    changes: tuple[ValueChange, ...]
    deletions: tuple[Deletion, ...]
    lost: tuple[LostValue, ...]

    def surviving(self) -> NDArray[np.uint8]:
        """The actions of the new file's records, in its order: what was dropped is not there, what was added is."""
        kept = self.action[self.action != DROP]
        return np.concatenate([kept, np.full(len(self.edits.append), REPLACE, dtype=np.uint8)])


def _decide(snapshot: Snapshot, swept: Sweep, labels: Labels, workshop: Workshop, request: RewriteRequest) -> Plan:
    ways, way_of = ways_of(swept, workshop)
    if not (request.decrypt or request.allow_uncovered):
        require_cover(ways, request.writing)
    action = np.array([way.action for way in ways], dtype=np.uint8)[way_of]
    action[swept.tombstone] = COPY
    action[swept.repeated[action[swept.repeated] == RESEAL]] = REBUILD
    edits = _edits(snapshot, swept, request)
    action[edits.drop] = DROP
    action[list(edits.replace)] = REPLACE
    gone = action >= DROP
    return Plan(
        action=action,
        edits=edits,
        counts=RecordCounts(
            total=len(action),
            copied=int(np.count_nonzero(action == COPY)),
            rewritten=int(np.count_nonzero(_sealed_anew(action))),
            deleted=int(np.count_nonzero(gone)),
        ),
        changes=changes(swept, ways, way_of, gone),
        deletions=deletions(swept.lost, {*edits.drop.tolist(), *edits.replace}, snapshot, labels.prefixes)
        if request.undecryptable is Undecryptable.DELETE
        else (),
        lost=swept.lost,
    )


def _sealed_anew(action: NDArray[np.uint8]) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = (action == RESEAL) | (action == REBUILD)
    return result


@dataclass(frozen=True, slots=True)
class Way:
    """What happens to all values of one resource, header and outcome."""

    resource: Resource
    header: Header
    outcome: Outcome
    action: int
    to_kind: Kind | None
    to_key: str


def ways_of(swept: Sweep, workshop: Workshop) -> tuple[list[Way], NDArray[np.int64]]:
    """Return the ways that values go, and for every record the number of its way."""
    codes = (swept.resource.astype(np.int64) << 32) | (swept.header.astype(np.int64) << 16) | swept.outcome
    combinations, numbers = np.unique(codes, return_inverse=True)
    ways = [
        way(swept.resources[code >> 32], swept.headers[code >> 16 & 0xFFFF], swept.outcomes[code & 0xFFFF], workshop)
        for code in combinations.tolist()
    ]
    return ways, numbers


def way(resource: Resource, header: Header, outcome: Outcome, workshop: Workshop) -> Way:
    """Decide on values of one resource, header and outcome."""
    kind, key = workshop.writer(resource.group_resource)
    if not outcome.opened or outcome is NOTHING_TRIED:
        # Lost values keep their bytes unless the request deletes them; they are never sealed a second time.
        return Way(resource, header, outcome, COPY, header.kind, header.name)
    same = (
        kind is Kind.IDENTITY if outcome.kind is Kind.IDENTITY else workshop.is_writer(resource.group_resource, outcome)
    )
    return Way(resource, header, outcome, COPY if same else RESEAL, kind, key)


def require_cover(ways: Sequence[Way], writing: Keyring) -> None:
    """Refuse to write in clear what the new configuration does not mention. Raises UncoveredResources."""
    uncovered = {
        way.resource.name
        for way in ways
        if way.action == RESEAL
        and way.to_kind is Kind.IDENTITY
        and (way.resource.group_resource is None or not writing.covers(way.resource.group_resource))
    }
    if uncovered:
        raise UncoveredResources(sorted(uncovered))


def _edits(snapshot: Snapshot, swept: Sweep, request: RewriteRequest) -> Edits:
    edits = NO_EDITS
    if swept.lost and request.undecryptable is Undecryptable.DELETE:
        lost: dict[bytes, list[int]] = {}
        for value in swept.lost:
            lost.setdefault(value.key, []).append(value.record)
        edits = delete_lost(snapshot, lost)
    if request.compact:
        edits = merge(edits, compact(snapshot))
    return edits


def changes(
    swept: Sweep, ways: Sequence[Way], way_of: NDArray[np.int64], gone: NDArray[np.bool_]
) -> tuple[ValueChange, ...]:
    """Count values by where they came from and went to."""
    values = ~swept.tombstone
    counts = np.bincount(
        way_of[values] * 4 + gone[values] * 2 + (~swept.live[values]).astype(np.int64), minlength=4 * len(ways)
    ).reshape(-1, 2, 2)
    rows: Counter[tuple[str, Kind | None, str, Kind | None, str | None, bool]] = Counter()
    for way, by_fate in zip(ways, counts.tolist(), strict=True):
        for deleted, (live, old) in enumerate(by_fate):
            from_key = way.outcome.key_name if way.outcome.kind is not None else way.header.name
            to: tuple[Kind | None, str | None] = (None, None) if deleted else (way.to_kind, way.to_key)
            rows[way.resource.name, way.header.kind, from_key, *to, True] += live
            rows[way.resource.name, way.header.kind, from_key, *to, False] += old
    fates = sorted({row[:5] for row, count in rows.items() if count}, key=str)
    return tuple(
        ValueChange(
            resource=fate[0],
            from_kind=fate[1],
            from_key=fate[2],
            to_kind=fate[3],
            to_key=fate[4],
            live=rows[*fate, True],
            old=rows[*fate, False],
        )
        for fate in fates
    )


def deletions(
    lost_values: Sequence[LostValue], gone: Container[int], snapshot: Snapshot, prefixes: Sequence[str]
) -> tuple[Deletion, ...]:
    """Tell, for every key with lost values, what goes (`gone` has the records) and what that means for the cluster."""
    reasons: dict[bytes, LostValue] = {}
    for value in lost_values:
        # The live value's reason says most; else the newest one's.
        if value.key not in reasons or value.live or not reasons[value.key].live:
            reasons[value.key] = value
    found = []
    for key, records in snapshot.history_of(reasons).items():
        revisions = tuple(record.revision.main for record in records if record.number in gone)
        if not revisions:
            continue
        lost, parsed = reasons[key], parse_key(key, prefixes)
        whole = len(revisions) == len(records)
        meaning = "only old revisions are gone; the object itself is as it was"
        if whole:
            meaning = consequence(parsed) if parsed else "snaptool does not know what this key is for"
        found.append(
            Deletion(
                key=key,
                resource=lost.resource.name,
                whole=whole,
                revisions=revisions,
                reason=", ".join(lost.outcome.reasons),
                consequence=meaning,
            )
        )
    return tuple(sorted(found, key=lambda deletion: deletion.key))


# --- write ----------------------------------------------------------------------------------------------------------


class _Unchanged:
    """CRC-32C over the bytes that the request does not change, in the records of leaves that are built anew.

    The bytes run on over page borders and around the value fields that change, so that source and target give the same
    number exactly when these bytes are the same, however they are laid out. Records that were added do not count.
    """

    def __init__(self) -> None:
        self.crc = 0

    def add(
        self,
        leaves: LeafChunk,
        action: NDArray[np.uint8],
        counted: NDArray[np.bool_],
        decoded: tuple[NDArray[np.int64], RecordChunk],
    ) -> None:
        """Take the `counted` records of a chunk; what they are without is decided by their `action`.

        `decoded`: records of some rows of the chunk, among them all that were sealed.
        """
        rows, records = decoded
        (taken,) = np.nonzero(counted & (action <= RESEAL))
        (cut,) = np.nonzero(action[rows] == RESEAL)
        at = np.searchsorted(taken, rows[cut])
        start, end = leaves.key_pos[taken], leaves.value_pos[taken] + leaves.value_len[taken]
        starts = np.concatenate((start, records.field_pos[cut] + records.field_len[cut]))
        ends = np.concatenate((end, end[at]))
        ends[at] = records.field_pos[cut]
        order = np.argsort(np.concatenate((2 * np.arange(len(taken)), 2 * at + 1)))
        self.crc = add_spans(self.crc, leaves.buffer, starts[order], ends[order])


class LeafNotes:
    """What the first pass learns of the leaves of bucket `key`, by number: their sums, and which are `portable`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.sums = snapshot.new_sums()
        self.portable = np.zeros(len(self.sums.crc), dtype=np.bool_)

    def add(self, leaves: LeafChunk) -> None:
        """Take the leaves of a chunk."""
        self.sums.add(leaves)
        self.portable[leaves.first_leaf : leaves.first_leaf + len(leaves.leaf_page)] = leaves.portable()


@dataclass(slots=True, kw_only=True)
class _Stretch:
    """Some leaves in a row, from number `first` on, on their way into the new file.

    `whole`: which are carried over. `leaves`: the others; `numbers`: those of their records. `rows`: which of these are
    sealed anew; `records`: the same, decoded. `answers` are still to come until all `sealed` values are there.
    """

    first: int
    whole: NDArray[np.bool_]
    leaves: LeafChunk | None = None
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    records: RecordChunk | None = None
    answers: int = 0
    sealed: list[Sealed] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that is known between the passes; `write` is the direct engine's write pass.

    `carried`: which leaves of the source are carried over whole, known once they are written.
    """

    request: RewriteRequest
    opened: OpenedSnapshot
    swept: Sweep
    plan: Plan
    workshop: Workshop
    labels: Labels
    progress: Progress
    notes: LeafNotes
    carried: NDArray[np.bool_]
    unchanged: _Unchanged = field(default_factory=_Unchanged)

    def write(self, sink: Sink) -> None:
        """Write every record of the source by its action: the whole database but for the trailer."""
        snapshot, edits = self.opened.snapshot, self.plan.edits
        database = snapshot.database
        writer = DatabaseWriter(sink, page_size=database.page_size, txid=database.meta.txid)
        buckets = database.buckets()
        for name in sorted({*buckets, *BUCKETS}):
            bucket = buckets.get(name)
            with writer.bucket(name, bucket.sequence if bucket is not None else 0) as out:
                if name == b"key":
                    self._write_records(out, bucket)
                    continue
                for key, value in _edited(name, bucket, edits):
                    out.put(key, value)
        writer.finish()

    def _write_records(self, out: BucketWriter, bucket: Bucket | None) -> None:
        if bucket is not None:
            waiting: deque[_Stretch] = deque()
            for _, answer in self.workshop.resealed(self._batches(out, bucket, waiting)):
                waiting[0].sealed.append(answer)
                waiting[0].answers -= 1
                self._write_ready(out, bucket, waiting)
        for key, value in self.plan.edits.append:
            out.put(key, value)

    def _batches(self, out: BucketWriter, bucket: Bucket, waiting: deque[_Stretch]) -> Iterator[Batch]:
        """Yield the values to seal, stretch by stretch; those that have none are written in their turn."""
        starts, sizes = bucket.leaf_starts(), np.cumsum(bucket.leaf_sizes()[1])
        for block in blocks((starts[1:], CHUNK_RECORDS), (sizes, CHUNK_BYTES)):
            self.opened.tend(block)
            stretch = self._stretch(bucket, block, starts)
            waiting.append(stretch)
            if stretch.records is not None and len(stretch.rows):
                resource = self.swept.resource[stretch.numbers[stretch.rows]].astype(np.int64)
                batches = list(make_batches(stretch.records, np.arange(len(resource)), resource, self.labels))
                stretch.answers = len(batches)
                yield from batches
            self._write_ready(out, bucket, waiting)

    def _stretch(self, bucket: Bucket, block: slice, starts: NDArray[np.int64]) -> _Stretch:
        first_record, until = int(starts[block.start]), int(starts[block.stop])
        changes = np.concatenate(([0], np.cumsum(self.plan.action[first_record:until] != COPY)))
        border = starts[block.start : block.stop + 1] - first_record
        whole = self.notes.portable[block] & (changes[border[1:]] == changes[border[:-1]])
        self.carried[block] = whole
        stretch = _Stretch(first=block.start, whole=whole)
        numbers = block.start + np.nonzero(~whole)[0]
        if len(numbers):
            leaves = stretch.leaves = bucket.chunk(numbers)
            stretch.numbers = spans(starts[numbers], starts[numbers + 1] - starts[numbers])
            (stretch.rows,) = np.nonzero(_sealed_anew(self.plan.action[stretch.numbers]))
            stretch.records = scan_records(leaves.pick(stretch.rows))
        return stretch

    def _write_ready(self, out: BucketWriter, bucket: Bucket, waiting: deque[_Stretch]) -> None:
        while waiting and not waiting[0].answers:
            stretch = waiting.popleft()
            self._write_stretch(out, bucket, stretch)
            self.progress("writing", stretch.first + len(stretch.whole), bucket.leaf_count)

    def _write_stretch(self, out: BucketWriter, bucket: Bucket, stretch: _Stretch) -> None:
        built = self._built(stretch) if stretch.leaves is not None else None
        ids, sizes = bucket.leaf_sizes()
        leaf = np.concatenate(
            ([0], np.cumsum(~stretch.whole))
        )  # of the leaves that are built anew, how many came before
        border = np.concatenate(([0], np.nonzero(np.diff(stretch.whole))[0] + 1, [len(stretch.whole)]))
        for first, last in zip(border[:-1].tolist(), border[1:].tolist(), strict=True):
            if stretch.whole[first]:
                here = slice(stretch.first + first, stretch.first + last)
                out.put_leaves(self.opened.snapshot.database.pages, ids[here], sizes[here])
            elif built is not None:
                out.put_records(*built.records(int(leaf[first]), int(leaf[last])))

    def _built(self, stretch: _Stretch) -> _Built:
        """Make the records of leaves that are taken apart, as they go into the new file."""
        assert stretch.leaves is not None
        assert stretch.records is not None
        leaves, action, data = stretch.leaves, self.plan.action[stretch.numbers], stretch.leaves.buffer.data
        self.unchanged.add(leaves, action, np.ones(len(action), dtype=np.bool_), (stretch.rows, stretch.records))
        start, end = leaves.key_pos, leaves.value_pos + leaves.value_len
        # Only field 5 of the KeyValue changes; every other byte of the record stays as it is.
        head_end, tail_start, value_size = end.copy(), end.copy(), leaves.value_len.copy()
        spliced = action[stretch.rows] == RESEAL
        rows, records = stretch.rows[spliced], stretch.records
        head_end[rows] = records.field_pos[spliced]
        tail_start[rows] = (records.field_pos + records.field_len)[spliced]
        ends = [np.diff(sealed.ends, prepend=0) for sealed in stretch.sealed]
        if ends:
            value_size[rows] += np.concatenate(ends)[spliced] - records.field_len[spliced]
        pieces: list[bytes | memoryview] = [b""] * (3 * len(action))
        pieces[::3] = [data[a:b] for a, b in zip(start.tolist(), head_end.tolist(), strict=True)]
        pieces[2::3] = [data[a:b] for a, b in zip(tail_start.tolist(), end.tolist(), strict=True)]
        fields = chain.from_iterable(sealed.fields() for sealed in stretch.sealed)
        for row, value_field, splice in zip(stretch.rows.tolist(), fields, spliced.tolist(), strict=True):
            if splice:
                pieces[3 * row + 1] = value_field
        key_size = leaves.key_len.copy()
        values = chain.from_iterable(stretch.sealed)
        for row in stretch.rows.tolist() if not spliced.all() else ():
            value = next(values)
            if action[row] == REBUILD:
                pieces[3 * row] = leaves.key(row) + (stored := replace_value(leaves.value(row), value))
                value_size[row] = len(stored)
        for row in np.nonzero(action == REPLACE)[0].tolist():
            key, stored = self.plan.edits.replace[int(stretch.numbers[row])]
            pieces[3 * row] = key + stored
            key_size[row], value_size[row] = len(key), len(stored)
        for row in np.nonzero(action == DROP)[0].tolist():
            pieces[3 * row] = b""
        return _Built(pieces, key_size, value_size, action != DROP, leaves.leaf_start)


@dataclass(frozen=True, slots=True)
class _Built:
    """Records of leaves that are built anew: three `pieces` and two sizes for each, of which only the `kept` count."""

    pieces: list[bytes | memoryview]
    key_size: NDArray[np.int64]
    value_size: NDArray[np.int64]
    kept: NDArray[np.bool_]
    leaf_start: NDArray[np.int64]

    def records(self, first: int, last: int) -> tuple[bytes, NDArray[np.int64], NDArray[np.int64]]:
        """Return data and sizes of the records of some leaves in a row."""
        begin, end = int(self.leaf_start[first]), int(self.leaf_start[last])
        kept = self.kept[begin:end]
        data = b"".join(self.pieces[3 * begin : 3 * end])
        return data, self.key_size[begin:end][kept], self.value_size[begin:end][kept]


# --- read back ------------------------------------------------------------------------------------------------------


def _read_back(draft: Draft, job: Job) -> FileReport:
    """Read the written file with the new keys only, compare it with the source, append the SHA-256 of what was read.

    Every page and every byte is read. What was carried over has to have the checksum that it had in the source, and is
    then known: its records are not decoded again. Raises ReadBackFailed, which names the first difference, and the
    FormatErrors of a broken file.
    """
    request = job.request
    keys = Keyring(()) if request.decrypt else request.writing
    work = Work(draft.readable_path, draft.size, keys, keys, request.randomness)
    # Not closed: views into the map may outlive this, in an error that is under way above all.
    buffer = draft.read_back()
    written = Snapshot(buffer, partial(release_memory, buffer))
    comparison = _Comparison(job, written)
    jobs = request.jobs if len(job.swept.opened) else 1
    with Workshop(work, buffer, jobs=jobs) as workshop, hashing(draft) as digest:
        for _, answer in workshop.opened(comparison.batches()):
            comparison.take(answer)
        comparison.finish()
        _compare_other_buckets(job, written)
        _search_other_pages(written)
        live = job.swept.live if job.plan.edits.is_empty else None
        return append_trailer(draft, digest(), written, comparison.sums, live)


class _Comparison:
    """The pass over the records of the written file: each is what the plan makes of one of the source."""

    def __init__(self, job: Job, written: Snapshot) -> None:
        plan, source = job.plan, job.swept
        self.sums = written.new_sums()
        self._job = job
        self._written = written
        self._unchanged = _Unchanged()
        kept = plan.action != DROP
        whole = bool(kept.all()) and not plan.edits.append
        self._action = plan.action if whole else plan.surviving()
        self._dropped = np.nonzero(~kept)[0]
        self._starts = job.opened.snapshot.leaf_starts()
        built = ~np.repeat(job.carried, np.diff(self._starts))
        self._built = built if whole else np.concatenate((built[kept], np.zeros(len(plan.edits.append), np.bool_)))
        self._expected = source.opened[plan.action[source.opened] < DROP]
        self._digests = source.digests if whole else source.digests[plan.action[source.opened] < DROP]
        self._resource = source.resource[self._expected].astype(np.int64)
        self._opened = self._place(self._expected)
        self._lost = set(self._place(np.array([value.record for value in source.lost], dtype=np.int64)).tolist())
        added = {int(self._place(np.array([record]))[0]): pair for record, pair in plan.edits.replace.items()}
        first = len(self._action) - len(plan.edits.append)
        self._added = {**added, **dict(enumerate(plan.edits.append, first))}
        self._taken = 0

    def _place(self, records: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number source records in the new file; meaningless for those that were dropped."""
        places: NDArray[np.int64] = records - np.searchsorted(self._dropped, records)
        return places

    def batches(self) -> Iterator[Batch]:
        """Read everything; yield the values to open. Raises ReadBackFailed."""
        bucket = self._written.bucket(b"key")
        sealed = _sealed_anew(self._action)
        if bucket is None or bucket.record_count != len(self._action):
            count = 0 if bucket is None else bucket.record_count
            raise ReadBackFailed(f"{len(self._action)} records were written, {count} were read back")
        if not np.isin(np.nonzero(sealed)[0], self._opened, assume_unique=True).all():
            raise ReadBackFailed("values were sealed of which the source's plaintext is not known")
        for leaves in bucket.chunks():
            self.sums.add(leaves)
            first, until = leaves.first_record, leaves.first_record + len(leaves)
            if not (
                leaves.portable() | (leaves.leaf_page == 0) | (leaves.leaf_start[1:] == leaves.leaf_start[:-1])
            ).all():
                raise ReadBackFailed("a page of the written file has bytes that belong to no record")
            here = slice(*np.searchsorted(self._opened, (first, until)).tolist())
            rows = self._opened[here] - first
            records = scan_records(leaves.pick(rows))
            action = self._action[first:until]
            self._unchanged.add(leaves, action, self._built[first:until], (rows, records))
            for row in np.nonzero(action == REPLACE)[0].tolist():
                if (leaves.key(row), leaves.value(row)) != self._added[first + row]:
                    raise ReadBackFailed(f"record {first + row} of the written file is not the one that was added")
            yield from make_batches(records, np.arange(len(rows)), self._resource[here], self._job.labels)
            self._job.progress("verifying", leaves.first_leaf + len(leaves.leaf_page), leaves.total_leaves)
            self._written.database.pages.let_go()

    def take(self, answer: OpenedBatch) -> None:
        """Compare what a batch opened to with what it was in the source. Raises ReadBackFailed."""
        here = slice(self._taken, self._taken + len(answer.outcome))
        self._taken = here.stop
        places = self._opened[here]
        different = (answer.digests != self._digests[here]).any(axis=1)
        not_open = np.array([not outcome.opened for outcome in answer.outcomes], dtype=np.bool_)[answer.outcome]
        for row in np.nonzero(different | not_open)[0].tolist():
            place = int(places[row])
            if place in self._lost:
                continue
            if not_open[row]:
                reasons = ", ".join(answer.outcomes[answer.outcome[row]].reasons)
                raise ReadBackFailed(f"{answer.lost_keys[row]!r}, record {place}, does not open: {reasons}")
            raise ReadBackFailed(f"record {place} of the written file opens to another plaintext than in the source")
        rewrapped = bool(self._job.request.rewraps)
        stale = np.array([is_stale(outcome, rewrapped=rewrapped) for outcome in answer.outcomes], dtype=np.bool_)
        if (stale[answer.outcome] & _sealed_anew(self._action[places])).any():
            raise ReadBackFailed("a value was written under another key than the first one of the new configuration")

    def finish(self) -> None:
        """Compare what the whole pass has gathered. Raises ReadBackFailed."""
        if self._taken != len(self._opened):
            raise ReadBackFailed(f"{len(self._opened)} values should have been opened, {self._taken} were")
        source, carried = self._job.notes.sums, self._job.carried
        starts = self._written.leaf_starts()
        # A leaf that was carried over begins where its first record is now, and no other leaf begins there.
        at = np.searchsorted(starts[1:], self._place(self._starts[:-1][carried]), side="right")
        same = (starts[1:] - starts[:-1])[at] == np.diff(self._starts)[carried]
        same &= (self.sums.crc[at] == source.crc[carried]) & (self.sums.size[at] == source.size[carried])
        if not same.all() or self._unchanged.crc != self._job.unchanged.crc:
            raise ReadBackFailed("bytes that the request does not change are not the same in the written file")


def append_trailer(
    draft: Draft,
    digests: tuple[bytes, str],
    written: Snapshot,
    sums: LeafSums,
    live: NDArray[np.bool_] | None = None,
) -> FileReport:
    """Put the digest that `hashing` gave behind the database, and report on the file."""
    database_digest, file_digest = digests
    draft.seek(draft.size)  # the metas were written last, at the start
    draft.write(database_digest)
    return _file_report(draft.target, draft.size, file_digest, written, sums, live)


def is_stale(outcome: Outcome, *, rewrapped: bool) -> bool:
    """Is a value that was sealed anew under another key than the first one of the new configuration?"""
    # A body that is only wrapped anew may be of a form that servers of today no longer write.
    return outcome.position[1:] > (0, 0) if rewrapped else outcome.stale


def _edited(name: bytes, bucket: Bucket | None, edits: Edits) -> Iterator[tuple[bytes, bytes]]:
    return edits.apply(name, bucket.items() if bucket is not None else ())


def _compare_other_buckets(job: Job, written: Snapshot) -> None:
    source, edits = job.opened.snapshot, job.plan.edits
    found, expected = written.database.buckets(), source.database.buckets()
    if set(found) != {*expected, *BUCKETS}:
        raise ReadBackFailed("the written file has other buckets than the source")
    for name, bucket in found.items():
        if name != b"key" and list(bucket.items()) != list(_edited(name, expected.get(name), edits)):
            raise ReadBackFailed(f"bucket {name.decode(errors='replace')} is not the same in the written file")


@contextmanager
def hashing(draft: Draft) -> Iterator[Callable[[], tuple[bytes, str]]]:
    """Hash a written database in a thread; the result is its digest, and in hex that of both together."""
    size = draft.size

    def run() -> tuple[bytes, str]:
        digest = hashlib.sha256()
        for start in range(0, size, _HASH_BLOCK):
            # Read, not mapped: what this thread mapped would count as memory, or have to be let go of.
            digest.update(draft.read(start, min(_HASH_BLOCK, size - start)))
        trailer = digest.digest()
        digest.update(trailer)
        return trailer, digest.hexdigest()

    with ThreadPoolExecutor(1, thread_name_prefix="snaptool-sha256") as executor:
        yield executor.submit(run).result


def _search_other_pages(written: Snapshot) -> None:
    """Search the pages that hold no record of bucket `key` for values, and all for pages that nothing uses.

    Leaves were looked at byte by byte: headers, elements, records that were compared with the source, zeros.
    """
    database = written.database
    if len(database.free_pages()):
        raise ReadBackFailed("the written file has free pages")
    other = np.ones(database.high_water_mark, dtype=np.bool_)
    known = 0
    for name, bucket in database.buckets().items():
        if name == b"key" and bucket.root:
            other[bucket.leaf_pages()] = False
        else:  # compared with the source by now, byte by byte
            known += sum(_count_marks(part) for record in bucket.items() for part in (name, *record))
    content = database.pages.bytes.reshape(-1, database.page_size)
    (pages,) = np.nonzero(other)
    found = sum(
        _count_marks(content[pages[start : start + _PAGES_AT_ONCE]].tobytes())
        for start in range(0, len(pages), _PAGES_AT_ONCE)
    )
    if found != known:
        raise ReadBackFailed("pages of the written file that hold no values have something like values in them")


def _count_marks(data: bytes) -> int:
    return data.count(b"k8s:enc:") + data.count(b"k8s\0")


def retired(source: Sweep, action: NDArray[np.uint8], swept: Sweep) -> list[bytes]:
    """Return the headers under which source values stood and no value of the new file does."""
    here = {swept.headers[number].text for number in np.unique(swept.header).tolist()}
    there = {source.headers[number].text for number in np.unique(source.header[action != COPY]).tolist()}
    return sorted(there - here - {b""})


def search_leftovers(buffer: mmap, written: Snapshot, headers: list[bytes]) -> None:
    """Search every byte of the new file for values under keys that it no longer has.

    The same text inside another value is that value's own business, and has been compared with the source.
    """
    found = np.array(sorted(at for header in headers for at in _occurrences(buffer, header)), dtype=np.int64)
    for chunk in written.records() if len(found) else ():
        starts, ends = chunk.value_pos, chunk.value_pos + chunk.value_len
        order = np.argsort(starts)
        owner = order[np.maximum(np.searchsorted(starts[order], found, side="right") - 1, 0)]
        found = found[(found <= starts[owner]) | (found >= ends[owner])]
    if len(found):
        page = int(found[0]) // written.database.page_size
        raise ReadBackFailed(f"page {page} of the written file holds a value under a key that it should not have")


def _occurrences(buffer: mmap, text: bytes) -> Iterator[int]:
    for start in range(0, len(buffer), _SEARCH_BLOCK):
        block = buffer[start : start + _SEARCH_BLOCK + len(text) - 1]
        release_memory(buffer)
        at = block.find(text)
        while at >= 0:
            yield start + at
            at = block.find(text, at + 1)


def _file_report(
    path: Path, size: int, sha256: str, snapshot: Snapshot, sums: LeafSums, live: NDArray[np.bool_] | None = None
) -> FileReport:
    return FileReport(
        path=str(path),
        size=size,
        sha256=sha256,
        revision=snapshot.current_revision,
        hash=snapshot.status_hash(sums),
        hashkv=snapshot.hashkv(sums=sums, live=live).hash,
    )
