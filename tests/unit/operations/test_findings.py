"""Findings: one entry for a kind, the worst first, and codes that the documentation lists."""

from __future__ import annotations

import re
from pathlib import Path

from snaptool.etcd import RecordFault
from snaptool.etcd.snapshot import RemarkCode
from snaptool.kube.undecodable import Fault
from snaptool.operations.findings import DAMAGE, PLACES_NAMED, SEVERITIES, Severity, finding, grouped
from snaptool.providers.provider import Reason

PAGE = (Path(__file__).parents[3] / "docs" / "json.md").read_text()


def test_every_code_is_documented_with_its_severity_and_whether_it_is_damage() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \| (error|warning|note) \| (yes|no) \|", PAGE)
    assert {code: Severity(severity) for code, severity, _ in rows} == SEVERITIES
    assert {code for code, _, damage in rows if damage == "yes"} == DAMAGE


def test_every_reason_of_a_lost_value_is_documented() -> None:
    section = PAGE.partition("### Lost values")[2].partition("\n##")[0]
    cells = re.findall(r"(?m)^\| (`[^|]+`) \|", section)
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == set(Reason)


def test_every_fault_of_an_undecodable_value_is_documented() -> None:
    section = PAGE.partition("### Undecodable values")[2].partition("\n##")[0]
    cells = re.findall(r"(?m)^\| (`[^|]+`) \|", section)
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == set(Fault)


def test_what_etcd_files_can_have_has_a_severity() -> None:
    assert {*RemarkCode, *RecordFault} <= set(SEVERITIES)


def test_findings_of_one_kind_are_one_entry_and_the_worst_comes_first() -> None:
    found = [finding("leftovers", f"page {page}", "old values", "nothing") for page in range(30)]
    found += [finding("wrong_trailer", "the end", "cut", "compare")]
    worst, notes = grouped(found)
    assert (worst.code, worst.count, worst.places) == ("wrong_trailer", 1, ("the end",))
    assert (notes.count, len(notes.places), notes.place) == (30, PLACES_NAMED, "page 0")


def test_problems_that_differ_stand_with_their_places() -> None:
    one = grouped([finding("bad_page", "page 5", "cut", "salvage"), finding("bad_page", "page 7", "torn", "salvage")])
    assert [(found.count, found.places) for found in one] == [(2, ("page 5: cut", "page 7: torn"))]


def test_severities_are_ordered() -> None:
    reached = {(one, other) for one in Severity for other in Severity if one.reaches(other)}
    assert (Severity.ERROR, Severity.NOTE) in reached
    assert (Severity.NOTE, Severity.WARNING) not in reached
    assert (Severity.WARNING, Severity.WARNING) in reached
