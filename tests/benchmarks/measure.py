"""Runs programs in turn and notes wall clock, processor time and private memory.

Nothing watches a program while it is timed: reading its memory slows it down. Memory is taken in a round of its own,
the first, which also warms the page cache and leaves compiled bytecode behind, as every user has it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_INTERVAL = 0.02
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@dataclass(frozen=True, slots=True)
class Program:
    """A command to time. `peer`: the name of the program that it is compared with.

    `target`: what to reach, and beyond, both from docs/performance.md: times the peer's seconds; with `values`,
    values a second; else seconds.
    """

    name: str
    command: tuple[str, ...]
    peer: str = ""
    target: tuple[float, float] | None = None
    values: int = 0


@dataclass(slots=True)
class Result:
    """What was measured of one program. `uss`: most private bytes of the process tree; `cpu`: user and system."""

    uss: int
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def measure(programs: Sequence[Program], rounds: int, before: Callable[[], None]) -> dict[str, Result]:
    """Run all programs in each round, so that a machine that slows down slows all. `before` every run, clean up."""
    results = {}
    for program in programs:
        before()
        results[program.name] = Result(uss=_peak(program.command))
        _say(f"warm-up  {results[program.name].uss >> 20:8,} MiB  {program.name}")
    for number in range(1, rounds + 1):
        for program in programs:
            before()
            seconds, cpu = _timed(program.command)
            results[program.name].seconds.append(seconds)
            results[program.name].cpu.append(cpu)
            _say(f"round {number}  {seconds:8.2f} s    {program.name}")
    before()
    return results


def _timed(command: tuple[str, ...]) -> tuple[float, float]:
    os.sync()  # what an earlier program has left to be written is not this one's work
    with tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        process = subprocess.Popen(command, env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        _check(process, errors)
    return seconds, usage.ru_utime + usage.ru_stime


def _peak(command: tuple[str, ...]) -> int:
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=errors)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _private_bytes(process.pid))
            time.sleep(_INTERVAL)
        _check(process, errors)
    return peak


def _private_bytes(root: int) -> int:
    """Memory that a process and those below it have for themselves: USS, clean pages of a mapped file included."""
    total, tree = 0, [root]
    for pid in tree:
        try:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):  # a thread may have started them
                tree += map(int, children.read_text().split())
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        total += sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Private_"))
    return total


def _check(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    if process.returncode != 0:
        errors.seek(0)
        sys.exit(f"{process.args!r} ended with {process.returncode}: {errors.read().decode()[-500:]}")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
