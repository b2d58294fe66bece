"""What words of `snaptool audit` mean: a level of looking, a shard, what is a failure."""

from __future__ import annotations

import os
import re
from typing import Any

import click

LEVELS = "quick, census, keys, sample=N or boot"
_INDEXES = ("JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID", "PARALLEL_SEQ")


class Level(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click alone
    """A level of looking."""

    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read a level of looking. Raises BadParameter."""
        if not re.fullmatch(r"quick|census|keys|boot|sample=[1-9][0-9]{0,8}", str(value)):
            self.fail(f"{value!r} is not one of {LEVELS}", param, ctx)
        return str(value)


class Shard(click.ParamType):  # type: ignore[type-arg]  # as above
    """A part of all backups."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read I/N, or env/N. Raises BadParameter."""
        if isinstance(value, tuple):
            return value
        index, _, of = str(value).partition("/")
        if index == "env":
            name = next((name for name in _INDEXES if os.environ.get(name)), None)
            if name is None:
                self.fail(f"none of {', '.join(_INDEXES)} is set", param, ctx)
            index = os.environ[name]
            if name == "PARALLEL_SEQ" and index.isdecimal():
                index = str(int(index) - 1)  # GNU parallel counts from 1
        if not (index.isdecimal() and of.isdecimal() and int(index) < int(of)):
            self.fail(f"{value!r} is not I/N with I from 0 to N less 1, nor env/N", param, ctx)
        return int(index), int(of)


class FailOn(click.ParamType):  # type: ignore[type-arg]  # as above
    """What exits with 3."""

    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Read statuses with commas between. Raises BadParameter."""
        if isinstance(value, tuple):
            return value
        words = tuple(word.strip() for word in str(value).split(",") if word.strip())
        known = {"damaged", "empty", "undecryptable", "plaintext", "undecodable", "stale", "not_a_snapshot", "none"}
        for word in words:
            if word not in known:
                self.fail(f"{word!r} is not one of {', '.join(sorted(known))}", param, ctx)
        return words
