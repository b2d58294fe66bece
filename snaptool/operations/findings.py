"""What the checks can find: every code there is, how bad it is, and one entry for all findings of a kind.

A code is for scripts, and stable: docs/json.md lists all of them (a test compares). A severity says who should wake up:
an *error* makes a restore or a list fail, is lost data, or a configured value in plaintext; a *warning* is worth a
look by day; a *note* is a normal state that is good to know. Damage is what makes the file itself untrustworthy: its
tree, its records or its trailer.

Source: docs/json.md, "Findings" and "Lost values".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from snaptool.etcd import Remark

PLACES_NAMED = 20
"""So many places of a finding are named; the rest are counted."""


class Severity(StrEnum):
    """How bad a finding is, worst first."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    def reaches(self, threshold: Severity) -> bool:
        """Is it as bad as `threshold`, or worse?"""
        return _ORDER[self] <= _ORDER[threshold]


_ORDER = {severity: number for number, severity in enumerate(Severity)}

SEVERITIES: dict[str, Severity] = {
    "bad_page": Severity.ERROR,
    "wrong_trailer": Severity.ERROR,
    "cut_trailer": Severity.ERROR,
    "bad_record": Severity.ERROR,
    "bad_revision": Severity.ERROR,
    "revision_zero": Severity.ERROR,
    "revision_twice": Severity.ERROR,
    "missing_meta": Severity.ERROR,
    "boot": Severity.ERROR,
    "plaintext": Severity.ERROR,
    "bad_meta": Severity.WARNING,
    "alarm": Severity.WARNING,
    "dangling_lease": Severity.WARNING,
    "stale": Severity.WARNING,
    "outside_prefixes": Severity.WARNING,
    "misnamed_resource": Severity.WARNING,
    "snapshot_live_copy": Severity.WARNING,
    "auth_enabled": Severity.NOTE,
    "embedded_config_copy": Severity.NOTE,
    "leftovers": Severity.NOTE,
    "not_opened": Severity.NOTE,
    "unmatched_resource": Severity.NOTE,
}
"""Every code but those of values that are lost or undecodable.

These two have the codes of `Reason` and of `kube.Fault`; current values are errors, old revisions are warnings.
"""

DAMAGE = frozenset(
    {
        "bad_page",
        "wrong_trailer",
        "cut_trailer",
        "bad_record",
        "bad_revision",
        "revision_zero",
        "revision_twice",
    }
)
"""Codes of a file whose tree, records or trailer are damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that should be known. `code` for scripts, `problem` for people, `remedy`: what to do.

    `count`: how often it was found; `places`: where, the first of them.
    """

    code: str
    severity: Severity
    places: tuple[str, ...]
    problem: str
    remedy: str
    count: int = 1

    @property
    def place(self) -> str:
        """Where it was found first; empty for the whole file."""
        return self.places[0] if self.places else ""


def finding(code: str, place: str, problem: str, remedy: str, severity: Severity | None = None) -> Finding:
    """Make a finding with one place, as bad as its code is unless `severity` says otherwise."""
    return Finding(
        code=code,
        severity=severity or SEVERITIES[code],
        places=(place,) if place else (),
        problem=problem,
        remedy=remedy,
    )


def from_etcd(found: Remark) -> Finding:
    """Make a finding of what the etcd package has to say."""
    return finding(found.code, found.place, found.problem, found.hint)


def grouped(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Join findings of one kind into one entry each, the worst first.

    A kind is a code with its severity and remedy. Where the problems differ, each stands with its place.
    """
    kinds: dict[tuple[str, Severity, str], list[Finding]] = {}
    for one in findings:
        kinds.setdefault((one.code, one.severity, one.remedy), []).append(one)
    joined = [_joined(several) for several in kinds.values()]
    return tuple(sorted(joined, key=lambda one: _ORDER[one.severity]))


def _joined(several: list[Finding]) -> Finding:
    first = several[0]
    if len({one.problem for one in several}) > 1:
        places = tuple(f"{place}: {one.problem}" for one in several for place in one.places or ("",))
        problem = "several problems of this kind, each named with its place"
    else:
        places, problem = tuple(place for one in several for place in one.places), first.problem
    count = sum(one.count for one in several)
    return replace(first, places=places[:PLACES_NAMED], problem=problem, count=count)
