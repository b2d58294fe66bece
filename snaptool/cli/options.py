"""Arguments and options that several commands share."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from snaptool.cli.render import Terminal
from snaptool.errors import InputError

if TYPE_CHECKING:
    from snaptool.providers import EncryptionConfig

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_LARGEST_CONFIG = 16 << 20


def terminal_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-q` and `-v`; the command receives a `terminal`."""

    @click.option("-q", "--quiet", is_flag=True, help="No notes, no progress.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more about what happens.")
    @functools.wraps(command)
    def wrapped(*args: Any, quiet: bool, verbose: bool, **kwargs: Any) -> Any:
        return command(*args, terminal=Terminal(quiet=quiet, verbose=verbose), **kwargs)

    return wrapped


def snapshot_argument(name: str = "snapshot", metavar: str = "SNAPSHOT") -> Decorator:
    """Add a path to a snapshot, a db file, or an etcd data directory."""
    return click.argument(name, metavar=metavar, type=click.Path(path_type=Path))


def config_option(flag: str = "--config", help_text: str = "", *, required: bool = False) -> Decorator:
    """Add the repeatable EncryptionConfiguration to read with."""
    return click.option(
        flag,
        flag.lstrip("-").replace("-", "_") + "s",
        metavar="FILE",
        multiple=True,
        required=required,
        help=help_text or "EncryptionConfiguration to read with; may be repeated, tried in order; - is stdin.",
    )


def output_option(*formats: str, default: str = "text") -> Decorator:
    """Add `-o`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats or ("text", "json")),
        default=default,
        show_default=True,
        help="How to print the result.",
    )


def prefix_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--etcd-prefix`."""
    return click.option(
        "--etcd-prefix",
        "prefixes",
        metavar="PATH",
        multiple=True,
        help="The API servers' --etcd-prefix; may be repeated.  [default: found from the file]",
    )(command)


def hash_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--skip-hash-check`."""
    return click.option(
        "--skip-hash-check", is_flag=True, help="Go on although the SHA-256 at the end of the file is wrong."
    )(command)


def jobs_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--jobs`."""
    return click.option(
        "--jobs",
        metavar="N",
        type=click.IntRange(min=1),
        default=lambda: os.cpu_count() or 1,
        help="Worker processes that open and seal values.  [default: number of cores]",
    )(command)


def load_configs(paths: Sequence[str]) -> tuple[EncryptionConfig, ...]:
    """Read and check EncryptionConfiguration files in the order given; `-` is stdin, once."""
    from snaptool.providers import parse_config

    refuse_stdin_twice(paths)
    return tuple(parse_config(read_config(path), name="stdin" if path == "-" else path) for path in paths)


def refuse_stdin_twice(paths: Sequence[str]) -> None:
    """Refuse a second `-` among all the configurations of a command: it would be read as an empty file."""
    if list(paths).count("-") > 1:
        raise InputError("stdin can be read once only", hint="put the second configuration into a file")


def read_config(path: str) -> bytes:
    """Read a configuration file; `-` is stdin. Raises InputError."""
    if path == "-":
        return sys.stdin.buffer.read(_LARGEST_CONFIG)
    try:
        with Path(path).open("rb") as file:
            return file.read(_LARGEST_CONFIG)
    except OSError as error:
        raise InputError(
            f"cannot read configuration {path}: {error.strerror}", hint="check the path and its permissions"
        ) from error
