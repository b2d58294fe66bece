"""Every case of the specification has tests that name it: what is required can be looked for by its number."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.cli import ROOT

KEY_SERVICES, STORES = 21, 16


def test_every_case_is_named_by_a_test() -> None:
    files = [*(ROOT / "tests" / "clouds").glob("test_*.py"), *(ROOT / "tests" / "unit" / "stores").glob("test_*.py")]
    named = {case for path in files for case in cases_of(path)}
    wanted = {f"a{number}" for number in range(1, KEY_SERVICES + 1)} | {f"b{number}" for number in range(1, STORES + 1)}
    assert wanted - named == set()
    assert named - wanted == set(), "a number that the specification does not have"


def cases_of(path: Path) -> set[str]:
    names: list[str] = re.findall(r"(?m)^def test_((?:[ab]\d+_)+)", path.read_text())
    return {case for name in names for case in name.strip("_").split("_")}
