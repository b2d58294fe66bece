"""Pages for users, and the generated one of them: docs/cli.md, the help of every command.

An option that several commands take is described once. `make docs` writes it, a test compares.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from snaptool.cli import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CLI_PAGE = ROOT / "docs" / "cli.md"
_WIDTH = 100


_SHARED = 3  # commands that take the same option with the same words


def commands(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a command and those below it, each with its context."""
    settings = {**command.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    context = click.Context(command, parent=parent, info_name=name, **settings)
    yield command, context
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            below = command.get_command(context, child)
            assert below is not None
            yield from commands(below, child, context)


def cli_page() -> str:
    """docs/cli.md: the help of snaptool, then that of each command, then the options that several of them take."""
    every = list(commands(cli, "snaptool"))
    taken = Counter(record for command, context in every for record in records(command, context))
    often = {record for record, times in taken.items() if times >= _SHARED}
    meanings = Counter(long_name(record) for record in often)
    shared = {record for record in often if meanings[long_name(record)] == 1}
    parts = ["# Commands\n\nGenerated from `--help` by `make docs`.\n"]
    for command, context in every:
        own = copy.copy(command)
        own.params = [
            param
            for param in command.params
            if isinstance(param, click.Argument) or param.get_help_record(context) not in shared
        ]
        also = sorted(long_name(record) for record in records(command, context) if record in shared)
        parts.append(f"## {context.command_path}\n\n```text\n{own.get_help(context)}\n```\n")
        if also:
            parts.append(f"[Also](#shared-options): {', '.join(f'`{name}`' for name in also)}.\n")
    parts.append(
        "## Shared options\n\nThey mean the same wherever they are taken.\n\n| Option | Meaning |\n| --- | --- |"
    )
    rows = "\n".join(f"| `{escaped(names)}` | {escaped(text)} |" for names, text in sorted(shared, key=long_name))
    return "\n".join([*parts, rows, ""])


def records(command: click.Command, context: click.Context) -> list[tuple[str, str]]:
    """Names and help of each option of a command, as its help prints them."""
    options = (param for param in command.params if isinstance(param, click.Option))
    return [record for option in options if (record := option.get_help_record(context))]


def long_name(record: tuple[str, str]) -> str:
    """The name by which an option is looked up: --config."""
    return re.search(r"--[a-z-]+", record[0])[0]  # type: ignore[index]


def escaped(text: str) -> str:
    """A cell of a table."""
    return text.replace("|", "\\|").replace("  [", " [")


if __name__ == "__main__":
    CLI_PAGE.write_text(cli_page())
