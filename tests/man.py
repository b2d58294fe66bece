"""Man pages, one for snaptool and one for each command, from the same definitions as the help. `make man` writes them.

The format is man(7): a section begins with .SH, a paragraph with .PP, a term and its text with .TP.
"""

from __future__ import annotations

import inspect
import re
from importlib import metadata
from pathlib import Path

import click

from snaptool.cli import cli
from tests.docs import ROOT, commands, records

FOLDER = ROOT / "build" / "man"


def pages() -> dict[str, str]:
    """File name and text of every man page: snaptool.1, snaptool-config-new.1."""
    return {
        f"{context.command_path.replace(' ', '-')}.1": page(command, context)
        for command, context in commands(cli, "snaptool")
    }


def page(command: click.Command, context: click.Context) -> str:
    """The man page of a command."""
    name = context.command_path.replace(" ", "-")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH "{name.upper()}" "1" "" "snaptool {metadata.version("snaptool")}" "snaptool"',
        ".SH NAME",
        f"{name} \\- {roff(command.get_short_help_str(limit=200))}",
        ".SH SYNOPSIS",
        f"\\fB{roff(context.command_path)}\\fR {roff(usage)}",
        ".SH DESCRIPTION",
        *paragraphs(command.help or ""),
    ]
    options = [*records(command, context), ("-h, --help", "Show the help, and exit.")]
    lines += [".SH OPTIONS", *terms(options)]
    if isinstance(command, click.Group):
        children = [(child, command.get_command(context, child)) for child in command.list_commands(context)]
        rows = [(child, below.get_short_help_str(limit=200)) for child, below in children if below is not None]
        lines += [".SH COMMANDS", *terms(rows)]
    if command.epilog:
        lines += [".SH NOTES", *paragraphs(command.epilog)]
    return "\n".join([*lines, ""])


def paragraphs(text: str) -> list[str]:
    """Paragraphs of a help text; one that begins with a backspace keeps its lines, as in click."""
    lines = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        kept = paragraph.startswith("\b")
        body = roff(paragraph.removeprefix("\b").strip("\n"))
        lines += [".PP", *([".nf", body, ".fi"] if kept else [body])]
    return lines


def terms(rows: list[tuple[str, str]]) -> list[str]:
    """Terms, each with its text."""
    return [line for term, text in rows for line in (".TP", f"\\fB{roff(term)}\\fR", roff(text))]


def roff(text: str) -> str:
    """Text that means itself: no line of it is a request, no character an escape."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def write(folder: Path) -> None:
    """Write every page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    write(FOLDER)
