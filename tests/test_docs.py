"""What README.md and docs/ say is run: their sessions, their Python, the generated help."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from snaptool import documents
from snaptool.cli import cli, exits
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
    for folder in ("containers", "cases/field2/19-older-in-another-backup"):
        shutil.copytree(ROOT / "tests" / "golden" / folder, tmp_path / "tests" / "golden" / folder)
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
        # Where a page shows what goes to stderr, all of it counts.
        said = any(line.startswith(("snaptool: ", "Error: ")) for line in shown)
        output = result.stdout + result.stderr if said else result.stdout
        assert re.fullmatch(pattern(shown), output), f"{command}\n{output}"


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


def test_each_story_has_at_most_five_commands() -> None:
    stories = re.split(r"(?m)^## ", TEXTS["docs/stories.md"])[1:]
    assert len(stories) == 7
    for story in stories:
        commands = re.findall(r"(?m)^\$ ", story)
        code = re.findall(r"(?s)```python\n(.*?)```", story)
        assert 1 <= len(commands) <= 5 or (len(code) == 1 and len(code[0].splitlines()) <= 12), story


@pytest.mark.parametrize("block", blocks("yaml"))
def test_yaml_parses_and_names_options_that_exist(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")  # an indexed Job has it
    calls = [arguments for document in yaml.safe_load_all(block) for arguments in commands_in(document)]
    assert calls or "kind: CronJob" not in block
    for arguments in calls:
        assert_options_exist(arguments)


@pytest.mark.parametrize("block", blocks("crontab"))
def test_cron_lines_name_options_that_exist(block: str) -> None:
    for line in block.splitlines():
        minute, hour, day, month, weekday, command = line.split(maxsplit=5)
        assert all(re.fullmatch(r"[0-9*/,-]+", field) for field in (minute, hour, day, month, weekday))
        words = shlex.split(command)
        assert "%" not in command
        assert_options_exist(words[words.index("snaptool") :])


def commands_in(tree: object) -> Iterator[list[str]]:
    """Every call of snaptool in a manifest: a list of words, a line for a shell, or arguments alone."""
    if isinstance(tree, dict):
        for below in tree.values():
            yield from commands_in(below)
    elif isinstance(tree, list) and tree and all(isinstance(word, str) for word in tree):
        words = [str(word) for word in tree]
        words = shlex.split(words[0]) if len(words) == 1 else words
        if "snaptool" in words:
            yield words[words.index("snaptool") :]
        elif words[0] in cli.list_commands(click.Context(cli)):
            yield ["snaptool", *words]
    elif isinstance(tree, list):
        for below in tree:
            yield from commands_in(below)


def assert_options_exist(arguments: list[str]) -> None:
    assert arguments[0] == "snaptool"
    command = cli.get_command(click.Context(cli), arguments[1])
    assert command is not None
    command.make_context(arguments[1], arguments[2:], resilient_parsing=False)


# -- docs/json.md: the keys of documents

DOCUMENTS = {
    "inspect": ("inspect", "samples/lost-key.db", "--config", "samples/lost-key.yaml"),
    "verify": ("verify", "samples/lost-key.db", "--config", "samples/lost-key.yaml"),
    "rewrite": (
        *("rewrite", "samples/lost-key.db", "new.db", "--config", "samples/lost-key.yaml"),
        *("--new-config", "samples/secretbox.yaml", "--undecryptable", "delete"),
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_page_of_json_lists_the_keys_of_a_document(name: str, folder: Path) -> None:
    section = TEXTS["docs/json.md"].partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]
    listed = re.findall(r"`(\w+)`", " ".join(re.findall(r"(?m)^\| (`[^|]+) \|", section)))
    result = subprocess.run(
        [Path(sys.executable).parent / "snaptool", *DOCUMENTS[name], "-o", "json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in {exits.DONE, exits.FINDINGS}, result.stderr
    assert listed == list(json.loads(result.stdout)), f"docs/json.md, section {name}"


OTHER_SECTIONS = {
    "Errors": ("Error",),
    "Findings": ("Finding",),
    "Values in lists": ("Lost", "Undecodable"),
    "`inspect`": ("Inspected", "InspectedFile", "InspectedEtcd", "Container", "Entry", "Census", "OpenedBy"),
    "`verify`": ("Verified",),
    "`rewrite`": (
        *("Rewritten", "WrittenFile", "Packed", "Unmatched", "RecordCounts", "Change", "Under", "Updated"),
        *("Restored", "Deletion"),
    ),
    "`repair --salvage`": ("Salvaged", "SalvagedRecords", "Doubtful", "SalvagedPages"),
    "`list`": ("Listed", "Carved"),
    "`history`": ("History", "Revised"),
    "`diff`": ("Different", "DifferentSide", "Compared", "ComparedSide"),
    "`config check`": ("RefusedConfiguration", "AcceptedConfiguration"),
    "Summary": ("Summary", "ValuesByKey", "Cause"),
    "`embedded`": ("Embedded", "EmbeddedKey"),
    "Next steps": ("Next",),
    "`kms`": ("CheckedPlugin", "PlannedCalls", "GivenUp", "ExportedKeys", "KmsFailure"),
}
"""Heading of docs/json.md -> types of snaptool/documents.py that it describes."""


@pytest.mark.parametrize("heading", OTHER_SECTIONS)
def test_page_of_json_names_every_field(heading: str) -> None:
    page = TEXTS["docs/json.md"]
    section = page.partition(f"\n## {heading}\n")[2] or page.partition(f"\n### {heading}\n")[2]
    section = re.split(r"\n##+ ", section)[0]
    assert section, heading
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", section))))
    fields = {field for name in OTHER_SECTIONS[heading] for field in getattr(documents, name).__annotations__}
    assert fields <= named, f"docs/json.md, section {heading}: {sorted(fields - named)}"


def test_page_of_json_describes_every_document() -> None:
    types = {name for name, one in vars(documents).items() if hasattr(one, "__total__")}
    assert types == {name for names in OTHER_SECTIONS.values() for name in names}


# -- references from code to pages

SOURCES = sorted(
    path
    for folder in ("snaptool", "tests", "samples")
    for path in (ROOT / folder).rglob("*.py")
    if path != Path(__file__)
)
REFERENCE = re.compile(r'([\w/-]+)\.md((?:(?:,? and|,) "[^"]+")*)')
HOMES_OF_PAGES = ("docs/", "spec/", "design/")


def references(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the pages that a file refers to, each with the headings that are quoted behind it."""
    for name, quoted in REFERENCE.findall(re.sub(r"\s+(?:# )?", " ", text)):
        if name.startswith(HOMES_OF_PAGES):
            yield f"{name}.md", re.findall(r'"([^"]+)"', quoted)


def test_references_are_found_over_the_ends_of_lines() -> None:
    text = 'Source: docs/formats/kms.md, "How\n    # many calls",\n "Failures" and "Plugins"; docs/json.md.'
    assert list(references(text)) == [
        ("docs/formats/kms.md", ["How many calls", "Failures", "Plugins"]),
        ("docs/json.md", []),
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_references_lead_to_pages_and_headings_that_exist(path: Path) -> None:
    for name, headings in references(path.read_text()):
        assert (ROOT / name).exists(), f"{path} refers to {name}"
        known = set(re.findall(r"(?m)^#+ (.+)$", (ROOT / name).read_text()))
        assert set(headings) <= known, f"{path} refers to {name}: {set(headings) - known}"
