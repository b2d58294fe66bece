"""The main job: read a snapshot with the old keys, write it under new ones, prove it, then give it its name.

Re-encrypting, stripping, dropping what no key opens, compacting and plain repacking differ only in the decision per
record that is made between two passes:

1. *read*: a sweep of the source opens every encrypted value (`sweep`); nothing has been written yet, but where every
   record stays as it is, whatever is found: then it is copied as it goes by.
2. *decide*: every record is copied, re-encrypted or dropped (`plan`); deletions obey etcd's editing rules.
3. *write*: the engine writes into an unnamed file: from file to file (`direct`), or through a real etcd (`engine`).
4. *read back*: the engine reads the new file with the new keys only, and compares it with the source.
5. *publish*: the SHA-256 of what was written is appended (`written`), and the file gets its name.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from snaptool.containers.wrap import choose_wrapping
from snaptool.embedded.places import openshift_secrets
from snaptool.embedded.update import Updates
from snaptool.errors import VerificationFailed
from snaptool.etcd import (
    Records,
    Snapshot,
    decode_key_value,
)
from snaptool.etcd.leaves import Leaves
from snaptool.files import Draft, require_room
from snaptool.kube.cutting import rows_labelled
from snaptool.kube.undecodable import may_be_ciphertext
from snaptool.operations.coverage import UnmatchedName, refuse_outside, unmatched_names
from snaptool.operations.crypto import (
    Work,
    Workshop,
)
from snaptool.operations.defined import defined_versions
from snaptool.operations.direct import DirectEngine
from snaptool.operations.inside import Unread, refuse_while_unread, unread_places
from snaptool.operations.judging import NOTHING_DEFINED, Defined, Depth, NotYetDefined
from snaptool.operations.labels import Labels
from snaptool.operations.likelier import Cause, likelier_causes, opened_by_header
from snaptool.operations.older import NO_OLDER, OlderValues, find_older
from snaptool.operations.opening import Digests, OpenedSnapshot
from snaptool.operations.plan import (
    Deletion,
    Job,
    Plan,
    RecordCounts,
    Restoration,
    RewriteRequest,
    Undecodable,
    Undecryptable,
    ValueChange,
    copy_of,
    doomed,
)
from snaptool.operations.platform import Step
from snaptool.operations.scout import Scout
from snaptool.operations.sweep import LostValue, Passing, Progress, Sweep, encrypted_values, no_progress, sweep
from snaptool.operations.verdict import (
    Fates,
    KeyCount,
    LostKeys,
    Verdict,
    also_going,
    done,
    found,
    lost_keys,
    never_encrypted,
    older_wanted,
    values_by_key,
)
from snaptool.operations.wrapping import TargetDraft
from snaptool.operations.written import FileReport, file_report
from snaptool.providers.keyring import Keyring
from snaptool.providers.provider import Kind
from snaptool.stores.publish import check_target
from snaptool.text import printable

if TYPE_CHECKING:
    from snaptool.scratch import EtcdBinaries


class BootCheckFailed(VerificationFailed):
    """A real etcd serves something else from the written file than is in it. Nothing was published."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What goes along with the records and matters after a restore. `key_secrets`: OpenShift's, current ones."""

    alarms: tuple[str, ...] = ()
    auth_enabled: bool = False
    key_secrets: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteReport:
    """What was done. `target` is None after a dry run and when `stopped`: values are lost, the request says stop.

    `undecodable`: the values that no API server can decode; those of them that are `headless` were mended.
    `source_problem`: what is wrong with the trailer of the source, where the request said to go on all the same.
    `prefixes`: the API servers' `--etcd-prefix`, in their normal form; None where no values were to be opened.
    `platforms`: which ones the source shows signs of; `bootstrap`: it has keys under `/bootstrap/`; `carried`: what
    else goes along. `also_going`: when `stopped`, how many values that open deleting the others would take along.
    `unmatched`: names in the new configuration that cover no key. `older`: which of the objects whose current values
    are lost have an older revision that opens; `restored`: those that got it back. `only_lost`: all else was copied.
    `causes`: what is likelier than that a key is lost; `source_by_key`: the source's encrypted values by key; `never`:
    its resources that are never encrypted. `next`: what to do with the new file, in the reports of the library.
    `with_config`: there was a configuration to read with.
    """

    source: FileReport
    target: FileReport | None
    dry_run: bool
    engine: str
    prefixes: tuple[str, ...] | None
    records: RecordCounts
    unmatched: tuple[UnmatchedName, ...]
    values: tuple[ValueChange, ...]
    lost: tuple[LostValue, ...]
    undecryptable: Undecryptable
    undecodable: tuple[LostValue, ...]
    undecodable_choice: Undecodable
    deletions: tuple[Deletion, ...]
    verified: bool
    seconds: float
    older: OlderValues = NO_OLDER
    restored: tuple[Restoration, ...] = ()
    only_lost: bool = False
    causes: tuple[Cause, ...] = ()
    source_by_key: tuple[KeyCount, ...] = ()
    never: tuple[str, ...] = ()
    source_problem: str = ""
    platforms: tuple[str, ...] = ()
    bootstrap: bool = False
    updated: Updates = field(default_factory=Updates)
    carried: Carried = field(default_factory=Carried)
    also_going: int = 0
    next: tuple[Step, ...] = ()
    with_config: bool = True

    @property
    def summary(self) -> Verdict:
        """The verdict in objects: what was done or would be, or, where it stopped, what was found."""
        tried, prefixes = self.prefixes is not None, self.prefixes or ()
        keys = lost_keys(self.lost, self.undecodable) if tried else LostKeys()
        if self.stopped:
            return found(keys, self.older, prefixes, self.by_key, never=self.never, with_config=self.with_config)
        fates = Fates(
            deleted=tuple(one.key for one in self.deletions if one.whole),
            cut=tuple(one.key for one in self.deletions if not one.whole),
            taken_back=tuple(one.key for one in self.restored),
            kept=self.undecryptable is Undecryptable.KEEP or not tried,
            only_lost=self.only_lost,
            dry_run=self.dry_run,
            tried=tried,
        )
        return done(keys, self.older, prefixes, self.by_key, fates, self.never)

    @property
    def stopped(self) -> bool:
        """Nothing was written, because values are lost or undecodable and the request says stop."""
        return bool(self.unsettled)

    @property
    def by_key(self) -> tuple[KeyCount, ...]:
        """Encrypted values by key: of the new file, and of the source where nothing was written."""
        if self.stopped:
            return self.source_by_key
        counts: Counter[tuple[str, str]] = Counter()
        for change in self.values:
            if change.to_key is not None and change.to_kind is not Kind.IDENTITY:
                counts[change.to_kind or "unknown", change.to_key] += change.live + change.old
        return tuple(
            KeyCount(provider=provider, key_name=name, values=count)
            for (provider, name), count in sorted(counts.items())
        )

    @property
    def unsettled(self) -> tuple[LostValue, ...]:
        """The values that nobody said what to do with: why it is `stopped`."""
        lost = self.lost if self.undecryptable is Undecryptable.STOP else ()
        return (*lost, *(self.broken if self.undecodable_choice is Undecodable.STOP else ()))

    @property
    def broken(self) -> tuple[LostValue, ...]:
        """The undecodable values that nobody can mend."""
        return tuple(value for value in self.undecodable if not value.outcome.headless)


class MayBeCiphertext(VerificationFailed):
    """Values would be deleted as undecodable that a key may still open: what they look like, and no key was given."""

    def __init__(self, values: Sequence[LostValue]) -> None:
        count = "1 value" if len(values) == 1 else f"{len(values):,} values"
        super().__init__(
            f"{count} would be deleted, and may be ciphertext that lost its header, which a key opens; nothing was "
            f"written; the first: {printable(values[0].key)}",
            hint="give the configurations that the cluster had with --config; what none of their keys opens is then "
            "deleted. Without any key, --undecodable keep leaves these values as they are",
        )


class Engine(Protocol):
    """How a snapshot is rewritten, once it is known what opens and what does not."""

    @property
    def name(self) -> str:
        """What `--engine` calls it."""

    def decide(
        self,
        snapshot: Snapshot,
        swept: Sweep,
        labels: Labels,
        workshop: Workshop,
        request: RewriteRequest,
        older: OlderValues,
    ) -> Plan:
        """Decide what becomes of every record. Raises PlaintextNotAllowed, and OnlyDirect."""

    def write(self, job: Job, draft: Draft) -> FileReport:
        """Write the new file into `draft`, trailer included, and read it back. Raises ReadBackFailed."""

    def rehearse(self, job: Job) -> None:
        """Do the same work into nothing."""


_MOST_SHRINKING = 4096

DIRECT = DirectEngine()


def rewrite(
    opened: OpenedSnapshot,
    target: Path | None,
    request: RewriteRequest,
    *,
    engine: Engine = DIRECT,
    boot_with: EtcdBinaries | None = None,
    container: str = "auto",
    force: bool = False,
    progress: Progress = no_progress,
) -> RewriteReport:
    """Rewrite a snapshot into `target`, or, when that is None, do the same work into nothing.

    `boot_with`: boot a copy of the new file with that etcd before it gets its name; with no target there is none.
    `container`: what goes around the new file, one of `snaptool.containers.CHOICES`; `auto` goes by the target's name.

    The report says `stopped` when values are lost and the request says stop; then nothing was written. Raises
    OutsidePrefixes, PlaintextNotAllowed, MayBeCiphertext, InputError for a target that may not be written,
    WrongTrailer, CorruptPage and the other FormatErrors for a damaged source, OutputError when the disk fails,
    ReadBackFailed when the written file is not as it should be, BootCheckFailed when etcd finds that, ScratchError when
    etcd does not do its work.
    """
    started = time.monotonic()
    if target is not None:
        check_target(target, force=force, source=opened.source)
    wrapping = choose_wrapping(target, container, opened.container)
    with ExitStack() as stack, opened.digests() as digests:
        draft = None
        if target is not None and request.only_copies and engine is DIRECT:
            wrapping = wrapping.updated(request.updates.files, request.updates.keys)
            draft = stack.enter_context(TargetDraft(target, force=force, wrapping=wrapping))
        read = _read(opened, request, stack, draft, progress)
        request = request.settled()
        work, labels, leaves, swept, workshop = read.work, read.labels, read.leaves, read.swept, read.workshop
        if not request.skip_hash_check:
            digests.require_right_trailer()
        older = NO_OLDER
        if request.reading is not None:
            refuse_outside(opened)
            wanted = older_wanted((*swept.lost, *swept.undecodable))
            older = find_older(opened.snapshot, request.reading, wanted, request.earlier, defined=work.defined)
        _refuse_deleting_ciphertext(opened.snapshot, swept, request)
        plan = engine.decide(opened.snapshot, swept, labels, workshop, request, older)
        job = Job(
            request=request,
            opened=opened,
            swept=swept,
            plan=plan,
            workshop=workshop,
            labels=labels,
            progress=progress,
            leaves=leaves,
        )
        unread = _places_unread(job, work.reading)
        report = replace(_report(job, read, older, unread, digests), engine=engine.name, dry_run=target is None)
        if report.stopped:
            return replace(
                report,
                also_going=also_going(opened.snapshot, report.unsettled),
                seconds=time.monotonic() - started,
            )
        if target is None:
            engine.rehearse(job)
            return replace(report, seconds=time.monotonic() - started)
        if draft is None or read.written is None:
            if not plan.counts.deleted:
                # A value may lose its wrapped key and padding; of a page, at most.
                require_room(target, sum(leaves.size) - _MOST_SHRINKING * plan.counts.rewritten)
            wrapping = wrapping.updated(request.updates.files, request.updates.keys)
            draft = stack.enter_context(TargetDraft(target, force=force, wrapping=wrapping))
        written = _publish(read.written or engine.write(job, draft), job, draft, boot_with)
    return replace(report, target=written, verified=True, seconds=time.monotonic() - started)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What the pass over the source found, and with what.

    `written`: the report on the copy that was made meanwhile, if any; `leaves` are then those of the copy, with the
    same records.
    """

    work: Work
    workshop: Workshop
    labels: Labels
    leaves: Leaves
    swept: Sweep
    written: FileReport | None = None


def _read(
    opened: OpenedSnapshot, request: RewriteRequest, stack: ExitStack, draft: Draft | None, progress: Progress
) -> _Read:
    """Go over all records and open what is encrypted, or will be; with a `draft`, copy them there on the way.

    What keys are called depends on the prefixes, and what custom resources have to be on their definitions; nobody
    knows either before the end. The prefixes are guessed from the first records, and every version of a custom resource
    is right until its definition is read. Where either turns out wrong, another pass is needed, as in `survey`.
    """
    first, undefined = None, NotYetDefined()
    if not opened.is_scouted:
        scout = opened.new_scout()
        work = _work(request, undefined)
        first = _pass(opened, request, work, stack, progress, Labels(scout.likely(), _names(work)), scout, draft)
        opened.found_by(scout)
    defined = {} if request.reading is None else defined_versions(opened, request.reading)
    work = _work(request, defined)
    if first is not None and {*first.labels.prefixes} == {*opened.prefixes} and undefined.were_right(defined):
        return replace(first, work=work)
    again = Labels(opened.prefixes, _names(work))
    if first is None:
        return _pass(opened, request, work, stack, progress, again, None, draft)
    return replace(_pass(opened, request, work, stack, progress, again, None, None), written=first.written)


def _work(request: RewriteRequest, defined: Defined) -> Work:
    """Say what values are read and written with, and how closely they are looked at."""
    writing = Keyring(()) if request.decrypt else request.writing
    if request.reading is None:
        return Work(Keyring(()), writing, request.randomness, request.rewraps, None, defined=NOTHING_DEFINED)
    # What is asked to go or to stop the run is what `verify` finds: nothing less will do then.
    depth = Depth.CHEAP if request.undecodable is Undecodable.KEEP else Depth.FULL
    return Work(request.reading, writing, request.randomness, request.rewraps, depth, defined=defined)


def _names(work: Work) -> frozenset[tuple[Kind, str]]:
    return work.reading.key_names() | work.writing.key_names()


def _pass(
    opened: OpenedSnapshot,
    request: RewriteRequest,
    work: Work,
    stack: ExitStack,
    progress: Progress,
    labels: Labels,
    scout: Scout | None,
    draft: Draft | None,
) -> _Read:
    workshop = stack.enter_context(Workshop(work, opened.source, jobs=request.jobs))
    leaves = Leaves(only_tidy=draft is not None)

    def look(records: Records) -> None:
        opened.source.check_unchanged()
        leaves.take(records, opened.snapshot.database.page_size)
        if scout is not None:
            scout.add(records, labels.paths, labels.path_of())

    if draft is not None:
        passing = Passing(opened.snapshot, labels, None, [look], progress)
        job = copy_of(passing, request, opened, workshop, labels, progress, leaves)
        written, leaves = DIRECT.copy(job, draft)
        swept = passing.result()
        return _Read(work=work, workshop=workshop, labels=labels, leaves=leaves, swept=swept, written=written)
    opening = None if request.reading is None else workshop
    wanted = encrypted_values if opening is None else partial(_encrypted_before_or_after, workshop)
    swept = sweep(opened.snapshot, labels, opening, wanted=wanted, observers=[look], progress=progress)
    return _Read(work=work, workshop=workshop, labels=labels, leaves=leaves, swept=swept)


def _places_unread(job: Job, reading: Keyring) -> tuple[Unread, ...]:
    """Find the configurations in the snapshot that could not be read. Raises KeysInside while they may open values."""
    snapshot, request, plan = job.opened.snapshot, job.request, job.plan
    matter = {value.record for value in (*plan.lost, *plan.undecodable)}
    going = tuple(value for value in doomed(job.swept, request) if value.record in matter)
    unread = unread_places(job.opened, request.carried, going or job.swept.lost, reading)
    if unread:
        refuse_while_unread(unread, going, more=also_going(snapshot, going), given_up=request.embedded_lost)
    return unread


def _report(job: Job, read: _Read, older: OlderValues, unread: Sequence[Unread], digests: Digests) -> RewriteReport:
    """Say what is known before anything is written."""
    opened, request, plan, swept, work = job.opened, job.request, job.plan, job.swept, read.work
    names = () if request.only_lost else unmatched_names(work.writing.resource_names(), swept.resources)
    return RewriteReport(
        source=_source_report(job, read.written, digests.file_sha256()),
        target=None,
        dry_run=False,
        engine="",
        prefixes=opened.prefixes if request.reading is not None else None,
        unmatched=names,
        records=plan.counts,
        values=plan.changes,
        lost=plan.lost,
        undecryptable=request.undecryptable,
        undecodable=plan.undecodable,
        undecodable_choice=request.undecodable,
        deletions=plan.deletions,
        older=older,
        restored=plan.restored,
        only_lost=request.only_lost,
        with_config=any(work.reading.providers()),
        causes=likelier_causes(opened.snapshot, swept.lost, opened_by_header(swept), work.reading, unread),
        source_by_key=values_by_key(swept),
        never=never_encrypted(swept),
        verified=False,
        seconds=0,
        source_problem=digests.trailer_problem(),
        platforms=opened.platforms,
        bootstrap=opened.has_bootstrap,
        updated=request.updates,
        carried=_carried(opened),
    )


def _source_report(job: Job, copy: FileReport | None, sha256: str) -> FileReport:
    """Report on the source; a copy of all its records has the same HashKV."""
    opened = job.opened
    if copy is None:
        size, live = opened.source.size, job.swept.live
        return file_report(opened.path, size, sha256, opened.snapshot, job.leaves, live)
    size, status_hash = opened.source.size, opened.snapshot.status_hash(job.leaves)
    return replace(copy, path=str(opened.path), size=size, sha256=sha256, hash=status_hash)


def _publish(written: FileReport, job: Job, draft: TargetDraft, boot_with: EtcdBinaries | None) -> FileReport:
    """Boot the new file, where that is asked for, and give it its name."""
    if boot_with is not None:
        job.progress("booting", 0, 1)
        _boot(draft, boot_with)
    job.opened.source.check_unchanged()
    job.progress("publishing", 0, 1)
    draft.publish()
    return replace(written, packed=draft.packed)


def repair(
    opened: OpenedSnapshot,
    target: Path,
    *,
    container: str = "auto",
    force: bool = False,
    progress: Progress = no_progress,
) -> RewriteReport:
    """Write the same records to a fresh file: packed, without leftovers, with a right trailer. Raises as `rewrite`."""
    request = RewriteRequest(reading=None, writing=Keyring(()), skip_hash_check=True)
    return rewrite(opened, target, request, container=container, force=force, progress=progress)


def _carried(opened: OpenedSnapshot) -> Carried:
    return Carried(
        alarms=tuple(dict.fromkeys(alarm.name for alarm in opened.snapshot.alarms())),
        auth_enabled=opened.snapshot.auth_enabled,
        key_secrets=len(openshift_secrets(opened.places.live())),
    )


def _refuse_deleting_ciphertext(snapshot: Snapshot, swept: Sweep, request: RewriteRequest) -> None:
    """Without any key nobody knows whether bytes that are no object are ciphertext. Raises MayBeCiphertext."""
    if request.undecodable is not Undecodable.DELETE or (request.reading and request.reading.key_names()):
        return
    unclear = []
    for value in swept.undecodable:
        message = decode_key_value(snapshot.stored_value(snapshot.record(value.record)))
        if value.header.kind is Kind.IDENTITY and may_be_ciphertext(message.value, value.outcome.fault):
            unclear.append(value)
    if unclear:
        raise MayBeCiphertext(unclear)


def _boot(draft: Draft, binaries: EtcdBinaries) -> None:
    """Boot a copy of the finished file. Raises BootCheckFailed, and ScratchError when etcd does not take it."""
    from snaptool.operations.boot import boot_check  # noqa: PLC0415 - seldom needed, and heavy

    report = boot_check(Snapshot(draft.read_back().buffer), Path(draft.readable_path), binaries=binaries)
    if report.differences:
        first, more = report.differences[0], len(report.differences) - 1
        raise BootCheckFailed(
            f"{report.etcd} serves something else than was written: {first}" + (f" (and {more} more)" if more else ""),
            hint="nothing was published; please report it with the versions of etcd and snaptool",
        )


def _encrypted_before_or_after(workshop: Workshop, records: Records, labels: Labels, rows: list[int]) -> list[int]:
    """Want the values whose plaintext is to be compared afterwards: those that are encrypted, or will be."""
    writers = [workshop.writer(known.group_resource)[0] for known in labels.resources]
    will_be = memoryview(bytes(kind is not Kind.IDENTITY for kind in writers))
    return rows_labelled(labels.header, labels.resource, will_be, len(records)) if any(will_be) else rows
