"""Every check there is, as a list of findings: pages, trailer, records, leases, and with keys every value.

Nothing here stops at the first fault. What cannot be judged because something below it is broken is left out, and the
broken thing is what is reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snaptool.bolt import Problem, check
from snaptool.embedded.found import Recovered
from snaptool.embedded.places import RKE1
from snaptool.etcd import RecordProblem, Snapshot
from snaptool.kube.undecodable import Fault
from snaptool.operations.coverage import outside_findings, unmatched_findings, unmatched_names
from snaptool.operations.crypto import Outcome, SystemRandomness, Work, Workshop
from snaptool.operations.defined import defined_versions
from snaptool.operations.findings import (
    DAMAGE,
    PLACES_NAMED,
    SEVERITIES,
    Finding,
    Severity,
    finding,
    from_etcd,
    grouped,
)
from snaptool.operations.inside import unread_places, where_configurations_are
from snaptool.operations.judging import Depth
from snaptool.operations.labels import Header, Labels
from snaptool.operations.likelier import Cause, likelier_causes, opened_by_header
from snaptool.operations.older import NO_OLDER, OlderValues, find_older
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.platform import container_findings
from snaptool.operations.reasons import explain, of_each, server_message
from snaptool.operations.survey import trailer_findings
from snaptool.operations.sweep import LostValue, Progress, Sweep, encrypted_values, no_progress, nothing, sweep
from snaptool.operations.verdict import (
    KeyCount,
    Verdict,
    also_going,
    found,
    lost_keys,
    never_encrypted,
    older_wanted,
    values_by_key,
)
from snaptool.providers.keyring import Keyring
from snaptool.providers.provider import Kind, Reason
from snaptool.text import counted, printable

if TYPE_CHECKING:
    from snaptool.scratch import Difference, EtcdBinaries

_MOST_PROBLEMS = 1000

Remedy = Callable[[Header, Reason], str]
"""What helps for a value under a header that does not open for a reason; empty where nothing special does."""


def no_remedy(header: Header, reason: Reason) -> str:  # noqa: ARG001 - the signature of every Remedy
    """Know nothing special."""
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What the checks found: `findings`, one for each kind, worst first.

    `encrypted`: how many values are, and `opened`: how many of them opened, 0 where there was no configuration.
    `records` is 0 where the tree is broken: they were not looked at then. `lost`: the values that do not
    open; `undecodable`: those that no API server can decode. `every_lost`: old ones too, whatever was
    left out.
    `prefixes`: the API servers' `--etcd-prefix`, in their normal form; none where records were not looked at.
    """

    path: str
    prefixes: tuple[str, ...]
    findings: tuple[Finding, ...]
    records: int
    opened: int
    encrypted: int
    lost: tuple[LostValue, ...] = ()
    every_lost: tuple[LostValue, ...] = ()
    undecodable: tuple[LostValue, ...] = ()
    older: OlderValues = NO_OLDER
    causes: tuple[Cause, ...] = ()
    by_key: tuple[KeyCount, ...] = ()
    never: tuple[str, ...] = ()
    with_config: bool = False

    @property
    def summary(self) -> Verdict:
        """The verdict in objects."""
        keys = lost_keys(self.lost, self.undecodable)
        return found(keys, self.older, self.prefixes, self.by_key, never=self.never, with_config=self.with_config)

    @property
    def losses(self) -> Verdict:
        """The verdict on what is lost, old values too, whatever was left out: what a deletion would drop."""
        return found(lost_keys(self.every_lost), self.older, self.prefixes)

    @property
    def damaged(self) -> bool:
        """Tree, records or trailer of the file are damaged."""
        return any(found.code in DAMAGE for found in self.findings)

    def reaches(self, threshold: Severity) -> bool:
        """Is any finding as bad as `threshold`?"""
        return any(found.severity.reaches(threshold) for found in self.findings)


def verify(
    opened: OpenedSnapshot,
    keyring: Keyring | None = None,
    *,
    remedy: Remedy = no_remedy,
    live_only: bool = False,
    jobs: int = 1,
    boot_with: EtcdBinaries | None = None,
    carried: Callable[[], Recovered] | None = None,
    progress: Progress = no_progress,
) -> Verification:
    """Check a snapshot from its pages to its values. `live_only`: leave out what concerns older revisions alone.

    `remedy`: what helps for values that a key service did not open. `boot_with`: also boot a copy with that etcd, and
    compare what it serves. `carried` finds what the snapshot carries inside, and opens what it can; without it nothing
    is opened that takes a token.
    Raises ScratchError when etcd does not start.
    """
    snapshot = opened.snapshot
    keys = keyring or Keyring(())
    work = Work(keys, Keyring(()), SystemRandomness(), depth=Depth.FULL, defined=defined_versions(opened, keyring))
    with Workshop(work, opened.source, jobs=jobs) as workshop, opened.digests() as digests:
        findings = [_from_bolt(problem) for problem in check(opened.database_bytes, opened.source.release_memory)]
        broken_tree = any(found.code == BAD_PAGE for found in findings)
        findings += trailer_findings(opened, digests)
        swept: Sweep | None = None
        older = NO_OLDER
        causes: tuple[Cause, ...] = ()
        if not broken_tree:
            findings += [from_etcd(found) for found in snapshot.remarks()]
            broken = list(_broken_records(snapshot))
            findings += broken
            if not broken:
                findings += [from_etcd(dangling.remark()) for dangling in snapshot.dangling_leases()]
                findings += _leftovers(snapshot)
                swept = _swept(opened, keyring, workshop, progress)
                older = find_older(snapshot, keys, older_wanted(swept.lost), defined=work.defined)
                found = carried() if carried and swept.lost else None
                unread = unread_places(opened, found, swept.lost, keys)
                causes = likelier_causes(snapshot, swept.lost, opened_by_header(swept), keys, unread)
                findings += _value_findings(snapshot, swept, remedy, causes, older, live_only=live_only)
                findings += _findings_of_names(opened, keyring, swept)
    if boot_with is not None and not broken_tree:
        from snaptool.operations.boot import boot_check  # noqa: PLC0415 - seldom needed, and heavy

        report = boot_check(snapshot, opened.source.image, binaries=boot_with)
        findings += [_from_boot(difference, report.etcd) for difference in report.differences]
    return Verification(
        path=str(opened.path),
        prefixes=() if swept is None else opened.prefixes,
        findings=grouped(findings),
        records=0 if broken_tree else snapshot.record_count,
        opened=0 if swept is None else _count_opened(swept),
        encrypted=0 if swept is None else sum(one.values for one in values_by_key(swept)),
        lost=_of_interest(swept.lost if swept else (), live_only=live_only),
        every_lost=swept.lost if swept else (),
        undecodable=_of_interest(swept.undecodable if swept else (), live_only=live_only),
        older=older,
        causes=causes,
        by_key=() if swept is None else values_by_key(swept),
        never=() if swept is None else never_encrypted(swept),
        with_config=keyring is not None,
    )


def _swept(opened: OpenedSnapshot, keyring: Keyring | None, workshop: Workshop, progress: Progress) -> Sweep:
    """Open all that is encrypted; without keys look at plaintext alone."""
    return sweep(
        opened.snapshot,
        Labels(opened.prefixes, keyring.key_names() if keyring else ()),
        workshop,
        wanted=nothing if keyring is None else encrypted_values,
        observers=[opened.between_chunks],
        progress=progress,
        step="opening",
    )


def _findings_of_names(opened: OpenedSnapshot, keyring: Keyring | None, swept: Sweep) -> Iterator[Finding]:
    """Yield what is found beside the values: what is outside, what lies beside, and names that cover nothing."""
    if keyring is None:
        yield from _not_opened(opened, swept)
    yield from outside_findings(opened)
    yield from container_findings(opened.container)
    yield from unmatched_findings(unmatched_names(keyring.resource_names() if keyring else (), swept.resources))
    yield from _copies(opened)


def _not_opened(opened: OpenedSnapshot, swept: Sweep) -> Iterator[Finding]:
    """Say that nobody looked into encrypted values: without keys, what is said of the rest says nothing of them."""
    counts = values_by_key(swept)
    if total := sum(one.values for one in counts):
        yield Finding(
            code="not_opened",
            severity=SEVERITIES["not_opened"],
            places=(),
            problem=f"{counted(total, 'encrypted value was', 'encrypted values were')} not opened: no configuration "
            "was given, so it is not known which keys open them",
            remedy=f"give the EncryptionConfiguration of the cluster {where_configurations_are(opened)}",
            count=total,
        )


def _copies(opened: OpenedSnapshot) -> Iterator[Finding]:
    """Find RKE1's copies of its state, which nothing reads at a restore and nobody would think of."""
    for key in opened.places.live():
        if key in RKE1:
            yield finding(
                "embedded_config_copy",
                printable(key),
                "RKE keeps a copy of its state there, with the encryption keys it had when it wrote that",
                "after a rewrite under new keys it still has the old ones: run `rke up` with the new state",
            )


def _of_interest(values: Sequence[LostValue], *, live_only: bool) -> tuple[LostValue, ...]:
    return tuple(value for value in values if value.live or not live_only)


def _from_boot(difference: Difference, etcd: str) -> Finding:
    return finding(
        "boot",
        difference.place or "the whole store",
        f"{etcd} serves something else: {difference}",
        "this should not happen; please report it with the versions of etcd and snaptool",
    )


BAD_PAGE, BAD_META = "bad_page", "bad_meta"


def _from_bolt(problem: Problem) -> Finding:
    way = " > ".join(str(page) for page in problem.path)
    place = f"page {problem.page}" + (f" (reached by {way})" if len(problem.path) > 1 else "")
    if "meta cannot be used" in problem.problem:
        remedy = "the other meta is used, as etcd does; `snaptool repair` writes a file with both"
        return finding(BAD_META, place, problem.problem, remedy)
    remedy = "use another snapshot if there is one; `snaptool repair --salvage` saves what can be saved"
    return finding(BAD_PAGE, place, problem.problem, remedy)


def _broken_records(snapshot: Snapshot) -> Iterator[Finding]:
    problems: list[RecordProblem] = []

    def take(problem: RecordProblem) -> None:
        if len(problems) < _MOST_PROBLEMS:
            problems.append(problem)

    for _ in snapshot.chunks(take):
        pass
    for problem in problems:
        yield finding(
            problem.fault,
            f"record {problem.record} (key {problem.key[:40].hex()}, page {problem.page})",
            problem.problem,
            "etcd may refuse to start with it; use another snapshot, or `snaptool repair --salvage`",
        )


def leftover_pages(snapshot: Snapshot) -> list[int]:
    """Return the pages that nothing uses and that hold values: copies of what was overwritten, deleted or compacted."""
    database = snapshot.database
    return [
        page
        for page in database.free_pages()
        if any(mark in database.page_bytes(page) for mark in (b"k8s:enc:", b"k8s\0"))
    ]


def _leftovers(snapshot: Snapshot) -> Iterator[Finding]:
    marked = leftover_pages(snapshot)
    if marked:
        places = tuple(f"page {page}" for page in marked[:PLACES_NAMED])
        yield Finding(
            code="leftovers",
            severity=Severity.NOTE,
            places=places,
            problem="free pages hold values that are no longer part of the store, in plaintext or under old keys; "
            "a running etcd leaves such pages behind",
            remedy="nothing has to be done; `snaptool repair` and `snaptool rewrite` write files without them",
            count=len(marked),
        )


def _value_findings(
    snapshot: Snapshot,
    swept: Sweep,
    remedy: Remedy,
    causes: Sequence[Cause],
    older: OlderValues,
    *,
    live_only: bool,
) -> Iterator[Finding]:
    count, more = len(swept.lost), also_going(snapshot, swept.lost)
    drops = f"`snaptool rewrite --undecryptable delete` drops what is lost: all {count:,} lost values"
    if count == 1:
        drops = "`snaptool rewrite --undecryptable delete` drops this 1 lost value"
    if more:
        drops += f", and with them {counted(more, 'older value')} of the same objects"
    if back := len(older.found):
        drops = (
            "`snaptool rewrite --undecryptable older` gives "
            f"{counted(back, 'object its', 'objects their')} older revision back, and drops what is lost of the others"
        )
    first = "; ".join(f"{cause.problem}: {cause.remedy}" for cause in causes)
    for (live, outcome, header), values in _kinds(_of_interest(swept.lost, live_only=live_only)):
        yield Finding(
            code=outcome.reasons[0],
            severity=Severity.ERROR if live else Severity.WARNING,
            places=tuple(map(_place, values[:PLACES_NAMED])),
            problem=f"{_values(len(values), live=live)} not open: "
            f"{of_each(explain(outcome, header), len(values))}; "
            f"kube-apiserver says: {server_message(outcome)}",
            remedy=remedy(header, outcome.reasons[0])
            or first
            or f"if another configuration has the key, add it with a further --config; if none has, {drops}",
            count=len(values),
        )
    yield from _undecodable(swept, live_only=live_only)
    yield from _under_other_keys(swept, live_only=live_only)


def _kinds(values: Sequence[LostValue]) -> Iterator[tuple[tuple[bool, Outcome, Header], list[LostValue]]]:
    """Sort values by whether they are current, what came of opening them, and what stands in front of them."""
    kinds: dict[tuple[bool, Outcome, Header], list[LostValue]] = {}
    for value in values:
        kinds.setdefault((value.live, value.outcome, value.header), []).append(value)
    yield from kinds.items()


def _undecodable(swept: Sweep, *, live_only: bool) -> Iterator[Finding]:
    broken = sum(1 for value in swept.undecodable if not value.outcome.headless)
    dropped = f"all {broken:,} undecodable values" if broken > 1 else "this 1 undecodable value"
    by_fault: dict[tuple[Fault, bool, str], list[LostValue]] = {}
    for value in _of_interest(swept.undecodable, live_only=live_only):
        if value.outcome.fault is not None:
            sentence = explain(value.outcome, value.header)
            by_fault.setdefault((value.outcome.fault, value.live, sentence), []).append(value)
    for (fault, live, sentence), values in by_fault.items():
        remedy = "`snaptool rewrite` writes the object under the new key"
        if fault is not Fault.HEADLESS:
            keys = ""
            if fault is Fault.UNDEFINED_VERSION:
                keys = (
                    "add the version to the definition again (served: false will do) and store each object again; else "
                )
            if fault is Fault.NO_OBJECT:
                keys = "if it is ciphertext that lost its header, a --config with its key opens it; else "
            remedy = keys + (
                "overwrite or delete the object through etcd, or restore it from another backup; "
                f"`snaptool rewrite --undecodable delete` drops {dropped}"
            )
        age = "current" if live else "old"
        count = f"the {age} value" if len(values) == 1 else f"{len(values):,} {age} values"
        consequence = ": every list of the resource fails" if live else ""
        yield Finding(
            code=fault,
            severity=Severity.ERROR if live else Severity.WARNING,
            places=tuple(map(_place, values[:PLACES_NAMED])),
            problem=f"no API server can decode {count}{consequence}; {of_each(sentence, len(values))}",
            remedy=remedy,
            count=len(values),
        )


def _place(value: LostValue) -> str:
    return f"{value.key.decode(errors='backslashreplace')} at revision {value.revision.main}"


def _values(count: int, *, live: bool) -> str:
    """Begin a sentence about so many values: `the current value does`, `3 old values do`."""
    age = "current" if live else "old"
    return f"the {age} value does" if count == 1 else f"{count:,} {age} values do"


def _under_other_keys(swept: Sweep, *, live_only: bool) -> Iterator[Finding]:
    """Find values that open, but not under the key that writes, and those in plaintext although configured."""
    counts: Counter[tuple[str, str, str, bool]] = Counter()
    for (resource, number, outcome_number, live), count in swept.counts.items():
        outcome, header = swept.outcomes[outcome_number], swept.headers[number]
        if outcome.stale and outcome.opened and not outcome.headless and (live or not live_only):
            name = swept.resources[resource].name
            counts[name, header.provider, header.name, outcome.kind is Kind.IDENTITY] += count
    for (place, provider, name, plain), count in sorted(counts.items()):
        values = counted(count, "value is", "values are")
        finding_code, problem = "stale", f"{values} under {provider} {name}, not under the key that writes"
        if plain:
            finding_code, problem = "plaintext", f"{values} in plaintext, and configured to be encrypted"
        yield Finding(
            code=finding_code,
            severity=SEVERITIES[finding_code],
            places=(place,),
            problem=problem,
            remedy="`snaptool rewrite`, or an update of each object through the API, brings them under the first key",
            count=count,
        )


def _count_opened(swept: Sweep) -> int:
    """Count the encrypted values that were tried and opened."""
    tried = (record for record in swept.opened if swept.header[record])
    return sum(swept.outcomes[swept.outcome[record]].opened for record in tried)
