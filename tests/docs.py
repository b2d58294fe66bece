"""Pages for users, and the generated one of them: docs/cli.md, the help of every command.

`make docs` writes it, a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from snaptool.cli import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CLI_PAGE = ROOT / "docs" / "cli.md"
_WIDTH = 100


def helps(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """Yield name and help text of a command and those below it."""
    settings = {**command.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    context = click.Context(command, parent=parent, info_name=name, **settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            below = command.get_command(context, child)
            assert below is not None
            yield from helps(below, child, context)


def cli_page() -> str:
    """docs/cli.md: the help of snaptool, then that of each command."""
    parts = [f"## {name}\n\n```text\n{text}\n```\n" for name, text in helps(cli, "snaptool")]
    return "\n".join(["# Commands\n\nGenerated from `--help` by `make docs`.\n", *parts])


if __name__ == "__main__":
    CLI_PAGE.write_text(cli_page())
