"""Findings and lost values in text and JSON: the same for every command, and cut to what a screen holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from snaptool.cli.render import echo, print_sentence
from snaptool.text import counted, printable

if TYPE_CHECKING:
    from snaptool import documents
    from snaptool.operations.findings import Finding
    from snaptool.operations.sweep import LostValue

_SHOWN_PLACES = 5


def finding_document(found: Finding) -> documents.Finding:
    """Return the JSON form of a finding."""
    return {
        "code": found.code,
        "severity": found.severity,
        "count": found.count,
        "place": found.place,
        "places": list(found.places),
        "problem": found.problem,
        "remedy": found.remedy,
    }


def lost_document(lost: LostValue) -> documents.Lost:
    """Return the JSON form of a value that does not open."""
    return {
        "key": printable(lost.key),
        "revision": lost.revision.main,
        "live": lost.live,
        "provider": lost.header.provider,
        "key_name": lost.header.key_name,
        "key_name_certain": lost.header.certain,
        "reason": lost.outcome.reasons[0],
        "reasons": list(lost.outcome.reasons),
        "server_error": lost.outcome.server_error,
    }


def undecodable_document(value: LostValue) -> documents.Undecodable:
    """Return the JSON form of a value that no API server can decode; `provider` and `key_name` are what opens it."""
    outcome = value.outcome
    return {
        "key": printable(value.key),
        "revision": value.revision.main,
        "live": value.live,
        "provider": outcome.kind,
        "key_name": outcome.key_name or None,
        "reason": outcome.fault,
        "headless": outcome.headless,
    }


def print_findings(findings: Sequence[Finding]) -> None:
    """Print findings, each with its first places and its remedy below it, unless that was said before.

    Codes that say why a value is lost or undecodable are for programs: here it is said in words.
    """
    from snaptool.operations.findings import SEVERITIES

    said = set()
    for found in findings:
        echo()
        head, problem = f"{found.severity}: {found.code}" if found.code in SEVERITIES else found.severity, found.problem
        if len(found.places) == 1:
            print_sentence(f"{head}: {found.place}: {problem}")
        else:
            print_sentence(f"{head}: {problem}")
            for place in found.places[:_SHOWN_PLACES]:
                echo(f"    {place}")
            if found.count > _SHOWN_PLACES:
                echo(f"    ... {found.count:,} in all")
        if found.remedy and found.remedy not in said:
            said.add(found.remedy)
            print_sentence(f"    {found.remedy}")


def prefix_sentence(prefixes: Sequence[str]) -> str:
    """Say which prefixes were taken: what is not under them is not Kubernetes', and was not looked at as such."""
    from snaptool.kube.prefixes import prefix_text

    named = ", ".join(map(prefix_text, prefixes))
    return f"prefixes: {named or 'none; no key shows that it is of an API server'}"


def count_findings(findings: Sequence[Finding]) -> str:
    """Count findings by severity, in words."""
    counts = Counter(found.severity for found in findings)
    words = [counted(count, severity) for severity, count in sorted(counts.items())]
    return ", ".join(words) or "0 findings"
