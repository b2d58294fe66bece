"""Everything that README.md says is run: its sessions, its Python, its generated help."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptool.cli import exits
from tests.readme import README, rendered

PAGE = README.read_text()
SESSIONS = re.findall(r"(?s)```console\n(.*?)```", PAGE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(README.parent / "samples", tmp_path / "samples")
    return tmp_path


def steps(session: str) -> Iterator[tuple[str, list[str], int]]:
    """Yield the commands of a session, the lines shown for each, and its exit code."""
    for part in re.split(r"(?m)^\$ ", session)[1:]:
        command, *shown = part.rstrip().split("\n")
        code = 0
        if shown and (stated := re.fullmatch(r"\[exit (\d+)\]", shown[-1])):
            code = int(stated[1])
            shown.pop()
        yield command, shown, code


def pattern(shown: list[str]) -> str:
    """A regular expression for shown lines: an ellipsis alone stands for any lines, one within a line for any text."""
    lines = [r"(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in shown]
    return "".join(lines)


@pytest.mark.parametrize("session", SESSIONS, ids=range(len(SESSIONS)))
def test_sessions_run_and_show_what_the_page_shows(session: str, folder: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command, shown, code in steps(session):
        result = subprocess.run(
            shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        # A finding is an answer: inspect shows it, and its exit code says that there is one.
        allowed = {code, exits.FINDINGS} if re.search(" (inspect|history) ", command) else {code}
        assert result.returncode in allowed, result.stderr
        assert re.fullmatch(pattern(shown), result.stdout), f"{command}\n{result.stdout}"


@pytest.mark.parametrize("code", re.findall(r"(?s)```python\n(.*?)```", PAGE))
def test_python_example_runs(code: str, folder: Path) -> None:
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert result.stdout == "11 True\n"


def test_generated_parts_are_up_to_date() -> None:
    assert rendered(PAGE) == PAGE, "run `make readme`"


def test_page_names_every_make_target_that_it_mentions() -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):.*## ", (README.parent / "Makefile").read_text()))
    assert set(re.findall(r"`make ([a-z ]+)`", PAGE)) <= targets | {"peers oracles"}
