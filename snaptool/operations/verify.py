"""Every check there is, as a list of findings: pages, trailer, records, leases, and with keys every value.

Nothing here stops at the first fault. What cannot be judged because something below it is broken is left out, and the
broken thing is what is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snaptool.bolt import Problem, check
from snaptool.etcd import RecordProblem, Snapshot, Trailer
from snaptool.operations.boot import boot_check
from snaptool.operations.crypto import SystemRandomness, Work, Workshop
from snaptool.operations.labels import Labels
from snaptool.operations.opening import OpenedSnapshot, found_prefixes
from snaptool.operations.reasons import explain, server_message
from snaptool.operations.survey import Finding, from_etcd, trailer_finding
from snaptool.operations.sweep import Progress, Sweep, no_progress, sweep
from snaptool.providers import Keyring, Kind
from snaptool.scratch import Difference, EtcdBinaries

_MOST_PROBLEMS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What the checks found. `damaged`: the database itself is broken, so that its records were not looked at."""

    path: str
    findings: tuple[Finding, ...]
    damaged: bool
    records: int
    opened: int


def verify(
    opened: OpenedSnapshot,
    keyring: Keyring | None = None,
    *,
    live_only: bool = False,
    prefixes: tuple[str, ...] = (),
    jobs: int = 1,
    boot_with: EtcdBinaries | None = None,
    progress: Progress = no_progress,
) -> Verification:
    """Check a snapshot from its pages to its values. `live_only`: leave out what concerns older revisions alone.

    `boot_with`: also boot a copy with that etcd, and compare what it serves. Raises ScratchError when etcd does not
    start.
    """
    snapshot = opened.snapshot
    work = Work(str(opened.source.path), opened.source.size, keyring or Keyring(()), Keyring(()), SystemRandomness())
    with Workshop(work, opened.source.buffer, jobs=jobs if keyring else 1) as workshop, opened.digests() as digests:
        findings = [_from_bolt(problem) for problem in check(opened.database_bytes, opened.source.release_memory)]
        damaged = any(finding.code == BAD_PAGE for finding in findings)
        if digests.trailer() is Trailer.WRONG:
            findings.append(trailer_finding(opened))
        swept: Sweep | None = None
        if not damaged:
            findings += [from_etcd(finding) for finding in snapshot.findings()]
            broken = list(_broken_records(snapshot))
            findings += broken
            if not broken:
                findings += [from_etcd(dangling.finding()) for dangling in snapshot.dangling_leases()]
                findings += _leftovers(snapshot)
                labels = Labels(prefixes or found_prefixes(snapshot))
                swept = sweep(
                    snapshot,
                    labels,
                    workshop if keyring else None,
                    observers=[opened.tend],
                    progress=progress,
                    step="opening",
                )
                findings += _value_findings(swept, live_only=live_only)
    if boot_with is not None and not damaged:
        report = boot_check(snapshot, opened.source.path, binaries=boot_with)
        findings += [_from_boot(difference, report.etcd) for difference in report.differences]
    return Verification(
        path=str(opened.path),
        findings=tuple(findings),
        damaged=damaged,
        records=0 if damaged else snapshot.record_count,
        opened=0 if swept is None else _count_opened(swept),
    )


def _from_boot(difference: Difference, etcd: str) -> Finding:
    return Finding(
        code="boot",
        place=difference.place or "the whole store",
        problem=f"{etcd} serves something else: {difference}",
        remedy="this should not happen; please report it with the versions of etcd and snaptool",
    )


BAD_PAGE, BAD_META = "bad-page", "bad-meta"


def _from_bolt(problem: Problem) -> Finding:
    way = " > ".join(str(page) for page in problem.path)
    place = f"page {problem.page}" + (f" (reached by {way})" if len(problem.path) > 1 else "")
    if "meta cannot be used" in problem.problem:
        remedy = "the other meta is used, as etcd does; `snaptool repair` writes a file with both"
        return Finding(code=BAD_META, place=place, problem=problem.problem, remedy=remedy)
    remedy = "use another snapshot if there is one; `snaptool repair --salvage` saves what can be saved"
    return Finding(code=BAD_PAGE, place=place, problem=problem.problem, remedy=remedy)


def _broken_records(snapshot: Snapshot) -> Iterator[Finding]:
    problems: list[RecordProblem] = []

    def take(problem: RecordProblem) -> None:
        if len(problems) < _MOST_PROBLEMS:
            problems.append(problem)

    for _ in snapshot.records(take):
        pass
    for problem in problems:
        yield Finding(
            code=problem.fault,
            place=f"record {problem.record} (key {problem.key[:40].hex()}, page {problem.page})",
            problem=problem.problem,
            remedy="etcd may refuse to start with it; use another snapshot, or `snaptool repair --salvage`",
        )


def _leftovers(snapshot: Snapshot) -> Iterator[Finding]:
    """Find values in pages that nothing uses: copies of what was overwritten, deleted or compacted."""
    database = snapshot.database
    marked = [
        page
        for page in database.free_pages().tolist()
        if any(mark in database.page_bytes(page) for mark in (b"k8s:enc:", b"k8s\0"))
    ]
    if marked:
        pages = ", ".join(str(page) for page in marked[:20]) + (", ..." if len(marked) > 20 else "")
        yield Finding(
            code="leftovers",
            place=f"{len(marked)} free pages: {pages}",
            problem="they hold values that are no longer part of the store, in clear or under old keys",
            remedy="`snaptool repair` or `snaptool rewrite` writes a file without them",
        )


def _value_findings(swept: Sweep, *, live_only: bool) -> Iterator[Finding]:
    for value in swept.lost:
        if value.live or not live_only:
            age = "current" if value.live else "old"
            yield Finding(
                code=value.outcome.reasons[0],
                place=f"{value.key.decode(errors='backslashreplace')} at revision {value.revision.main}",
                problem=f"the {age} value does not open: {explain(value.outcome, value.header)}; "
                f"kube-apiserver says: {server_message(value.outcome)}",
                remedy="add the configuration with its key, or drop it with `rewrite --undecryptable delete`",
            )
    counts: Counter[tuple[str, str, str, bool]] = Counter()
    for number, outcome in enumerate(swept.outcomes):
        chosen = swept.outcome == number
        if live_only:
            chosen &= swept.live
        if not outcome.stale or not outcome.opened or not chosen.any():
            continue
        for code, count in _by_label(swept, chosen):
            resource, header = swept.resources[code[0]], swept.headers[code[1]]
            counts[resource.name, header.provider, header.name, outcome.kind is Kind.IDENTITY] += count
    for (place, provider, name, plain), count in sorted(counts.items()):
        problem = "in clear" if plain else f"under {provider} {name}, which is not the key that writes"
        yield Finding(
            code="plaintext" if plain else "stale",
            place=place,
            problem=f"{count} values are {problem}",
            remedy="`snaptool rewrite`, or an update of each object through the API, brings them under the first key",
        )


def _count_opened(swept: Sweep) -> int:
    """Count the values that were tried and opened."""
    opened = np.array([outcome.opened for outcome in swept.outcomes])
    return int(np.count_nonzero(opened[swept.outcome[swept.opened]]))


def _by_label(swept: Sweep, chosen: NDArray[np.bool_]) -> Iterator[tuple[tuple[int, int], int]]:
    codes = (swept.resource[chosen].astype(np.int64) << 16) | swept.header[chosen]
    for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
        yield (int(code) >> 16, int(code) & 0xFFFF), int(count)
