"""The command line: parse options, open, call one operation, render the result.

The terminal's voice, for every command: results go to stdout, everything else to stderr. A message is one sentence that
says what and where, then, on a line of its own, what to do next. No exclamation marks, no apologies, no colours that
carry meaning. Keys, seeds, wrapped keys and plaintext are never printed but by the commands whose purpose is to show
them.

Command modules import what they need when they run, so that `--help` stays fast.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import itertools
import os
import re
import signal
import sys
import time
from types import FrameType

import click

from snaptool.cli import exits
from snaptool.cli.render import echo, print_json
from snaptool.errors import SnaptoolError

_COMMANDS = {
    "inspect": "inspect",
    "verify": "verify",
    "list": "browse",
    "get": "browse",
    "history": "browse",
    "diff": "browse",
    "rewrite": "rewrite",
    "repair": "rewrite",
    "config": "config",
    "kms": "kms",
    "scratch": "scratch",
}


class _Group(click.Group):
    """Commands by name, imported when asked for, listed in the order a user meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"snaptool.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


@click.group(
    cls=_Group,
    epilog=exits.epilog(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="snaptool", message="snaptool %(version)s")
def cli() -> None:
    """Rewrite etcd snapshots of Kubernetes clusters.

    Open every value with the old EncryptionConfiguration, write it under a new one or in clear, or drop what no key
    opens. The source is never changed; the target is whole and verified, or absent.
    """


def main() -> None:
    """Run the command line: the one place where errors become exit codes and a broad catch is allowed."""
    # numpy starts a thread per processor for matrices, of which there are none here; and before workers are forked.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.set_threshold(50_000, 20, 20)  # what imports and records make is not in cycles: looking there takes a tenth
    _answer_lost_pages()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(arguments, prog_name="snaptool", standalone_mode=False)
        return code if isinstance(code, int) else exits.DONE
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        usage = isinstance(error, click.UsageError)
        _say_usage(error)
        _print_failure(arguments, "wrong_usage" if usage else "failed", error.format_message())
        return exits.USAGE if usage else exits.FAILED
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted: nothing was written")
        _print_failure(arguments, "interrupted", "interrupted: nothing was written")
        return exits.INTERRUPTED
    except SnaptoolError as error:
        _say(f"error: {error}")
        if error.hint:
            _say(f"       {error.hint}")
        _print_failure(arguments, error.code, str(error), error.hint, error.place)
        return exits.exit_code(error)
    except BrokenPipeError:
        # The reader of our output left, as `| head` does; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    except Exception as error:  # noqa: BLE001 - the boundary: anything that gets here is a bug, and is said to be one
        _say_bug(error)
        _print_failure(arguments, "bug", f"this is a bug in snaptool: {type(error).__name__}")
        return exits.FAILED


_on_lost_page: object = None


def _answer_lost_pages() -> None:
    """End with a sentence when a mapped file loses its end, instead of being killed by SIGBUS.

    The kernel sends the signal to the thread that touched the lost page, inside an instruction that would fault again
    at once: Python's own handlers run later, which is never. So this one is C's, made by ctypes, and does not return.
    Workers inherit it and end in silence; the parent tells what happened. An unnamed draft vanishes with its process.
    Source: mmap(2), signal(7), signal-safety(7).
    """
    global _on_lost_page  # noqa: PLW0603 - C code must find the function for as long as the process lives
    main_process = os.getpid()
    libc = ctypes.CDLL(None)

    said: list[bool] = []

    def end(_number: int) -> None:
        if os.getpid() == main_process:
            if said:
                time.sleep(60)  # another thread is about to end the process
            said.append(True)
            os.write(2, b"snaptool: error: a file was cut while it was read; nothing was published\n")
        os._exit(exits.DAMAGED)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, handler], ctypes.c_void_p
    _on_lost_page = handler(end)
    libc.signal(signal.SIGBUS, _on_lost_page)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    echo(f"snaptool: {line}", err=True)


def _say_usage(error: click.ClickException) -> None:
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        for line in context.get_usage().splitlines():
            echo(line, err=True)
        echo(f"Try '{context.command_path} --help' for help.", err=True)
        echo(err=True)
    echo(f"Error: {error.format_message()}", err=True)


def _print_failure(arguments: list[str], code: str, problem: str, remedy: str = "", place: str | None = None) -> None:
    """Print a failure as the one document that a program which asked for JSON gets."""
    if wants_json(arguments):
        print_json({"error": {"code": code, "problem": problem, "remedy": remedy or None, "place": place}})


def wants_json(arguments: list[str]) -> bool:
    """Do the arguments ask for JSON? Looked at by itself: wrong usage is found before options are known."""
    mine = list(itertools.takewhile(lambda word: word != "--", arguments))
    pairs = [f"{before}={word}" for before, word in zip(["", *mine], mine, strict=False)]
    asked = re.compile(r"(-[qv]*o|--output)=json|.*=(-[qv]*ojson|--output=json)", re.DOTALL)
    return any(map(asked.fullmatch, pairs))


def _say_bug(error: BaseException) -> None:
    import traceback

    # Places only: the message and the arguments of an unforeseen error could hold what must not be printed.
    for frame in traceback.extract_tb(error.__traceback__):
        echo(f"  {frame.filename}:{frame.lineno} in {frame.name}", err=True)
    _say(f"this is a bug in snaptool: {type(error).__name__}")
    _say("nothing was published; please report the lines above with the command that you ran")
