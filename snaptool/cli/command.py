"""How commands are listed, helped and missed: for people who know kubectl, on 80 columns.

Options that belong together stand under a heading of their own. A command that does not exist is answered with the one
that was meant, arguments in the wrong order with the right one.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from snaptool.text import quoted

_HEADINGS = (
    ("Options for KMS plugins", ("kms", "dek_files")),
    ("Options for what is around a snapshot", ("kept_",)),
)
"""Heading, and how the names of the parameters under it begin. All others come first, under Options."""

_MEANT = {
    "ls": "list",
    "show": "inspect",
    "info": "inspect",
    "describe": "get",
    "status": "inspect",
    "check": "verify",
    "log": "history",
    "compare": "diff",
    "decrypt": "rewrite",
    "encrypt": "rewrite",
    "reencrypt": "rewrite",
    "re-encrypt": "rewrite",
    "fix": "repair",
    "dump": "export",
    "serve": "scratch",
}
"""Words that people use for a command, and what it is called."""
_CLOSE, _CLOSE_FILE = 0.7, 0.8
_MOST_BESIDE = 10_000


class Command(click.Command):
    """A command whose options stand under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, the common ones first."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": [], **{heading: [] for heading, _ in _HEADINGS}}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                groups[_heading(parameter.name or "")].append(record)
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _heading(name: str) -> str:
    return next((heading for heading, starts in _HEADINGS if name.startswith(starts)), "Options")


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Say which commands a word may have meant; "" where none is like it."""
    meant = [_MEANT[word]] if _MEANT.get(word) in known else _similar(word.lower(), known, _CLOSE)
    return f"did you mean {' or '.join(f'`{name}`' for name in meant)}?" if meant else ""


def _similar(word: str, known: Sequence[str], cutoff: float) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(word, known, n=2, cutoff=cutoff)


class NoSuchCommand(click.UsageError):
    """A word that is not a command, with what was meant."""


def missed(ctx: click.Context, group: click.Group, arguments: Sequence[str]) -> NoSuchCommand:
    """Make the error for arguments whose first word is not a command of a group."""
    word, known = arguments[0], group.list_commands(ctx)
    named = next((other for other in arguments[1:] if other in known), None)
    if named is not None and os.access(word, os.F_OK):
        return NoSuchCommand(f"the command comes first: `{ctx.command_path} {named} {word} …`", ctx)
    hint = did_you_mean(word, known) or f"`{ctx.command_path} --help` lists the commands"
    return NoSuchCommand(f"no command is called {word!r}; {hint}", ctx)


@click.command("help", short_help="Show the help of a command")
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
@click.pass_context
def help_command(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of snaptool, or of a command: `snaptool help config new`."""
    from snaptool.cli.render import print_lines

    context = ctx.find_root()
    command: click.Command = context.command
    for number, word in enumerate(words):
        found = command.get_command(context, word) if isinstance(command, click.Group) else None
        if found is None:
            if isinstance(command, click.Group):
                raise missed(context, command, words[number:])
            break
        context = click.Context(found, info_name=word, parent=context, **found.context_settings)
        command = found
    print_lines(command.get_help(context).splitlines())


def misplaced(cli: click.Group, arguments: Sequence[str], path: str) -> str:
    """Say what was meant by a `path` that is not there: a file of a similar name beside it, or another argument.

    `get secret smtp backup.db`: the snapshot comes first. "" where neither is so, or that is not known.
    """
    if os.access(path, os.F_OK):
        return ""
    similar = [one for one in _similar_files(path) if one not in arguments]
    if similar:
        return f"did you mean {' or '.join(map(quoted, similar))}?"
    words = list(arguments)
    context = click.Context(cli, info_name="snaptool")
    while words and words[0].startswith("-"):
        words.pop(0)
    command = cli.get_command(context, words[0]) if words else None
    if command is None or isinstance(command, click.Group):
        return ""
    with contextlib.suppress(click.ClickException), contextlib.redirect_stderr(io.StringIO()):
        given, _, _ = command.make_parser(click.Context(command)).parse_args(args=words[1:])
        places = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
        values = [(parameter, value) for parameter in places for value in _flat(given.get(parameter.name or ""))]
        if len(values) < 2 or values[0][1] != path:
            return ""
        other, found = next((one for one in values[1:] if os.access(one[1], os.F_OK)), (places[0], ""))
        first = places[0].metavar or "SNAPSHOT"
        rest = " ".join(shlex.quote(word) for word in words[1:] if word != found)
        swapped = f"{first} comes first: `snaptool {words[0]} {quoted(found)} {rest}`"
        if not found or other.name == "b":
            return ""
        if other.name != "target":
            return swapped
        # The file in TARGET's place may be there from an earlier run as well: only the user knows.
        new = Path(path).parent.is_dir() and "--force" not in words
        return f"if {quoted(found)} is the one to read: {swapped}" if new else ""
    return ""


def _similar_files(path: str) -> list[str]:
    """Return the paths of files beside a missing one whose names are like its own."""
    missing = Path(path)
    beside: list[str] = []
    with contextlib.suppress(OSError), os.scandir(missing.parent) as entries:
        for entry in itertools.islice(entries, _MOST_BESIDE):
            with contextlib.suppress(OSError):  # a link in a circle
                beside += [entry.name] * entry.is_file()
    similar = _similar(missing.name, beside, _CLOSE_FILE)
    return [str(missing.with_name(name)) for name in similar]


def _flat(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        return (value,)
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, (list, tuple)) else ()
