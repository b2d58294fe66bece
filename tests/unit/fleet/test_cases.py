"""Every conformance case of an audit has a test that is named by its number."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[2]
CASES = 24


def test_each_case_has_a_test_of_its_number() -> None:
    files = [*TESTS.glob("cli/test_audit*.py"), *TESTS.glob("clouds/test_audit*.py"), *TESTS.glob("unit/fleet/*.py")]
    names = [name for path in files for name in re.findall(r"def test_case_((?:\d+_(?:and_)?)+)", path.read_text())]
    found = {int(number) for name in names for number in re.findall(r"\d+", name)}
    assert found == set(range(1, CASES + 1))
