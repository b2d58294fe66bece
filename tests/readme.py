"""Writes the generated parts of README.md anew: the help of every command. `make readme` runs it, a test compares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from snaptool.cli import cli

README = Path(__file__).parents[1] / "README.md"
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


def commands() -> str:
    """The help of snaptool in full, that of each command folded."""
    (_, first), *others = helps(cli, "snaptool")
    parts = [f"```text\n{first}\n```\n"]
    parts += [
        f"<details><summary><code>{name}</code></summary>\n\n```text\n{text}\n```\n\n</details>\n"
        for name, text in others
    ]
    return "\n".join(parts)


def rendered(page: str) -> str:
    """README.md with its generated part written anew."""
    return re.sub(
        r"(?s)(<!-- generated: commands -->\n).*?(<!-- end -->)", lambda match: match[1] + commands() + match[2], page
    )


if __name__ == "__main__":
    README.write_text(rendered(README.read_text()))
