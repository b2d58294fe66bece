"""The command line: parse options, open, call one operation, render the result.

The terminal's voice, for every command: results go to stdout, everything else to stderr. A message is one sentence that
says what and where, then, on a line of its own, what to do next. No exclamation marks, no apologies, no colours that
carry meaning. Keys, seeds, wrapped keys and plaintext are never printed but by the commands whose purpose is to show
them.

Command modules import what they need when they run, so that `--help` stays fast.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import io
import itertools
import os
import re
import sys
from functools import partial
from typing import TextIO

import click

from snaptool import signals
from snaptool.cli import exits
from snaptool.cli.command import misplaced, missed
from snaptool.cli.outside import from_outside
from snaptool.cli.render import OutputFailed, echo, json_text, print_json, printed
from snaptool.cli.render import begin as begin_output
from snaptool.compiled import WHY_NOT, is_compiled
from snaptool.errors import SnaptoolError
from snaptool.hashing import end_early
from snaptool.inputs import remembering_inputs
from snaptool.text import printable

_M_MMAP_THRESHOLD = -3

_COMMANDS = {
    "inspect": ("inspect", "Describe a snapshot and the keys it is stored under"),
    "verify": ("verify", "Check pages, records and values"),
    "list": ("listing", "List keys, and what each value is stored under"),
    "get": ("object", "Show objects, decrypted, as kubectl does"),
    "history": ("object", "Show every stored revision of a key"),
    "diff": ("diff", "Compare two snapshots by plaintext"),
    "export": ("export", "Write objects as manifests for kubectl apply"),
    "rewrite": ("rewrite", "Re-encrypt, decrypt or prune a snapshot"),
    "repair": ("rewrite", "Write the same records to a clean file"),
    "audit": ("audit", "Look at many backups: which open, which are damaged"),
    "config": ("config", "Make, check or extract an EncryptionConfiguration"),
    "kms": ("kms", "Check KMS plugins, plan and save their answers"),
    "scratch": ("scratch", "Serve a copy with a real etcd"),
    "help": ("command", "Show the help of a command"),
}
"""Each with its module and what it does, in at most 55 characters: help fits 80 columns."""


class _Group(click.Group):
    """Commands by name, imported when asked for, listed in the order a user meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"snaptool.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise missed(ctx, self, args)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Group,
    subcommand_metavar="COMMAND [ARGUMENTS]",
    epilog=exits.epilog(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(
    package_name="snaptool",
    message="snaptool %(version)s",
    help="Show the version and exit; with -v, also whether the engine is compiled.",
)
def cli() -> None:
    """Re-encrypt, decrypt, prune or repair etcd snapshots of Kubernetes clusters, offline.

    Open every value with the old EncryptionConfiguration, write it under a new one or as plaintext, or drop what no
    key opens. The source is never changed; the target is whole and verified, or absent.
    """


def main() -> None:
    """Run the command line: the one place where errors become exit codes and a broad catch is allowed."""
    gc.set_threshold(50_000, 20, 20)  # what imports and records make is not in cycles: looking there takes a tenth
    _give_memory_back()
    arguments = sys.argv[1:]
    _fill_closed_streams()
    signals.leave_no_core()
    signals.install(partial(_say_interrupted, arguments))
    code = run(arguments)
    end_early()
    for stream in (sys.stdout, sys.stderr):
        # What they still hold would be lost, and complained about, at exit, where nobody could answer any more.
        if stream is not None and not _flushed(stream):
            code = _after_output_failed(code)
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    gc.freeze()  # the interpreter would look for cycles in all of it once more, only to end
    sys.exit(code)


def _give_memory_back() -> None:
    """Let large arrays grow where they are, and go when they are freed.

    glibc puts blocks of up to 32 MB between small ones once one of that size was freed: an array that grows is then
    copied again and again, and leaves holes that nobody fills. A threshold that is set stays. Source: mallopt(3).
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def _fill_closed_streams() -> None:
    """Open what the caller has closed of the first three descriptors: a file would take the number, and the words."""
    with contextlib.suppress(OSError):
        while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(opened)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    signals.begin()
    begin_output()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    quiet = _asks_for(arguments, "q", "--quiet")
    with remembering_inputs(None if quiet else _say):
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    try:
        return _try(arguments)
    except KeyboardInterrupt:  # it came while an error was said
        return _end_interrupted(arguments)


def _try(arguments: list[str]) -> int:
    if "--version" in arguments and set(arguments) <= {"--version", "-v", "--verbose"} and len(arguments) > 1:
        return _say_how_it_runs()
    try:
        code = _called(arguments)
        return code if isinstance(code, int) else exits.DONE
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        usage = isinstance(error, click.UsageError)
        _say_usage(error)
        _print_failure(arguments, "wrong_usage" if usage else "failed", error.format_message())
        return exits.USAGE if usage else exits.FAILED
    except (KeyboardInterrupt, click.Abort):
        return _end_interrupted(arguments)
    except SnaptoolError as error:
        return _fail(arguments, error)
    except OutputFailed as error:
        # The reader of our output left, as `| head` does, or the disk that it goes to is full.
        if not error.reader_left:
            _say(f"error: cannot print to stdout: {error}")
        _say_written()
        return _after_output_failed(exits.DONE)
    except BrokenPipeError:
        return _after_output_failed(exits.DONE)  # click prints help by itself
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        outside = from_outside(error)
        if outside is not None:
            return _fail(arguments, outside)
        return _fail_by_bug(arguments, error)
    except Exception as error:  # noqa: BLE001 - the boundary: anything that gets here is a bug, and is said to be one
        return _fail_by_bug(arguments, error)


def _called(arguments: list[str]) -> object:
    signals.look()
    try:
        return cli.main(arguments, prog_name="snaptool", standalone_mode=False)
    finally:
        signals.look()


def _say_how_it_runs() -> int:
    from importlib.metadata import version

    echo(f"snaptool {version('snaptool')}")
    echo("engine: compiled" if is_compiled() else f"engine: not compiled; {WHY_NOT}")
    return exits.DONE


def _end_interrupted(arguments: list[str]) -> int:
    code = signals.last_words()
    sentence = _interrupted(signals.all_written())
    _say(sentence)
    _print_failure(arguments, "interrupted", sentence)
    return code


def _fail(arguments: list[str], error: SnaptoolError) -> int:
    if signals.came():  # whatever failed, failed on the way out, or because others were told to end too
        return _end_interrupted(arguments)
    hint = (misplaced(cli, arguments, error.place or "") if error.code in _UNUSABLE else "") or error.hint
    _say(f"error: {error}")
    if hint:
        _say(f"       {hint}")
    _say_written()
    _print_failure(arguments, error.code, str(error), hint, error.place)
    return exits.exit_code(error)


_UNUSABLE = {"cannot_read", "cannot_use_path", "not_a_regular_file"}
"""Codes of paths that cannot be read: the arguments may be in the wrong order."""


def _fail_by_bug(arguments: list[str], error: Exception) -> int:
    _say_bug(error)
    _print_failure(arguments, "bug", f"this is a bug in snaptool: {type(error).__name__}")
    return exits.FAILED


def _after_output_failed(code: int) -> int:
    """What was written is there, whatever became of the words about it; without that, the words were the result."""
    return code if signals.all_written() or code != exits.DONE else exits.FAILED


def _flushed(stream: TextIO) -> bool:
    try:
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _interrupted(written: tuple[str, ...]) -> str:
    if not written:
        return "interrupted: nothing was written"
    return f"interrupted, but {' and '.join(written)} {'was' if len(written) == 1 else 'were'} written, complete"


def _say_interrupted(arguments: list[str], written: tuple[str, ...]) -> None:
    """Say how a signal ended the run, by plain writes: it may have come in the middle of a print."""
    sentence = printable(_interrupted(written))
    with contextlib.suppress(OSError):
        os.write(2, f"snaptool: {sentence}\n".encode(errors="replace"))
    if wants_json(arguments) and not printed():
        document = {"code": "interrupted", "problem": sentence, "remedy": None, "place": None}
        os.write(1, json_text({"error": document}).encode() + b"\n")


def _say(line: str) -> None:
    echo(f"snaptool: {line}", err=True)


def _say_usage(error: click.ClickException) -> None:
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        for line in error.format_message().splitlines():  # the help itself
            echo(line, err=True)
        return
    if context is not None:
        for line in context.get_usage().splitlines():
            echo(line, err=True)
        echo(f"Try '{context.command_path} --help' for help.", err=True)
        echo(err=True)
    echo(f"Error: {error.format_message()}", err=True)


def _print_failure(arguments: list[str], code: str, problem: str, remedy: str = "", place: str | None = None) -> None:
    """Print a failure as the one document that a program which asked for JSON gets."""
    if wants_json(arguments) and not printed():
        with contextlib.suppress(OutputFailed):
            print_json({"error": {"code": code, "problem": problem, "remedy": remedy or None, "place": place}})


def wants_json(arguments: list[str]) -> bool:
    """Do the arguments ask for JSON? Looked at by itself: wrong usage is found before options are known."""
    mine = list(itertools.takewhile(lambda word: word != "--", arguments))
    pairs = [f"{before}={word}" for before, word in zip(["", *mine], mine, strict=False)]
    asked = re.compile(r"(-[qv]*o|--output)=json|.*=(-[qv]*ojson|--output=json)", re.DOTALL)
    return any(map(asked.fullmatch, pairs))


def _asks_for(arguments: list[str], letter: str, word: str) -> bool:
    mine = itertools.takewhile(lambda argument: argument != "--", arguments)
    return any(one == word or re.fullmatch(rf"-[qv]*{letter}[qv]*", one) for one in mine)


def _say_bug(error: BaseException) -> None:
    import traceback

    # Places only: the message and the arguments of an unforeseen error could hold what must not be printed.
    for frame in traceback.extract_tb(error.__traceback__):
        echo(f"  {frame.filename}:{frame.lineno} in {frame.name}", err=True)
    _say(f"this is a bug in snaptool: {type(error).__name__}")
    if not _say_written():
        _say("nothing was published")
    _say("please report the lines above with the command that you ran")


def _say_written() -> bool:
    for name in signals.all_written():
        _say(f"{name} was written, complete, before that")
    return bool(signals.all_written())
