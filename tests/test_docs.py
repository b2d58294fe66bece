"""What README.md and docs/ say is run: their sessions, their Python, the generated help."""

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
from tests.docs import CLI_PAGE, PAGES, ROOT, cli_page

TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}


def blocks(language: str) -> list[object]:
    """Every block of a language, each with the page and the number that it has there."""
    return [
        pytest.param(block, id=f"{name}-{number}")
        for name, text in TEXTS.items()
        for number, block in enumerate(re.findall(rf"(?s)```{language}\n(.*?)```", text))
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    shutil.copytree(ROOT / "tests" / "golden" / "containers", tmp_path / "tests" / "golden" / "containers")
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


@pytest.mark.parametrize("session", blocks("console"))
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


@pytest.mark.parametrize("code", blocks("python"))
def test_python_example_runs(code: str, folder: Path) -> None:
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert result.stdout == "11 True\n"


def test_help_of_the_commands_is_up_to_date() -> None:
    assert CLI_PAGE.read_text() == cli_page(), "run `make docs`"


@pytest.mark.parametrize("name", TEXTS)
def test_pages_name_make_targets_that_exist(name: str) -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):.*## ", (ROOT / "Makefile").read_text()))
    assert set(re.findall(r"`make ([a-z ]+)`", TEXTS[name])) <= targets | {"peers oracles"}


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files_and_headings_that_exist(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        page = (ROOT / name).parent / path if path else ROOT / name
        assert page.exists(), f"{name} leads to {target}"
        if heading:
            assert heading in anchors(page.read_text()), f"{name} leads to {target}"


def anchors(text: str) -> set[str]:
    """The anchors of headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
