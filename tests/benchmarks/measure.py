"""Runs programs in turn and notes wall clock, processor time and private memory.

Nothing watches a program while it is timed: reading its memory slows it down. Memory is taken in a round of its own,
the first, which also warms the page cache and leaves compiled bytecode behind, as every user has it. Before every
timed run the files that it names are read, and the machine rests: on a virtual one, memory that was just let go is
cheaper for whoever runs second.
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
class Target:
    """What is to be reached, and beyond that: times the seconds of `peer`; without one seconds, or values a second."""

    reach: float
    beyond: float | None = None
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """A command to time, and what it is to reach. `values`: how many it opens. `folder`: where it runs."""

    name: str
    command: tuple[str, ...]
    targets: tuple[Target, ...] = ()
    values: int = 0
    folder: Path | None = None


@dataclass(slots=True)
class Result:
    """What was measured of one program. `uss`: most private bytes of the process tree; `cpu`: user and system.

    `others`: what all other programs used of the processors meanwhile, in seconds.
    """

    uss: int
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def measure(programs: Sequence[Program], rounds: int, before: Callable[[], None], rest: float) -> dict[str, Result]:
    """Run all programs in each round, so that a machine that slows down slows all. `before` every run, clean up.

    `rest`: seconds before every timed run.
    """
    results = {}
    for program in programs:
        before()
        results[program.name] = Result(uss=_peak(program))
        _say(f"warm-up  {results[program.name].uss >> 20:8,} MiB  {program.name}")
    for number in range(1, rounds + 1):
        for program in programs:
            before()
            _read(program)
            os.sync()  # what an earlier program has left to be written is not this one's work
            time.sleep(rest)
            seconds = _time(program, results[program.name])
            _say(f"round {number}  {seconds:8.2f} s    {program.name}")
    before()
    return results


def _read(program: Program) -> None:
    """Read the files that a command names, so that they lie in memory for whoever comes first, too."""
    for path in filter(Path.is_file, map(Path, program.command)):
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass


def _time(program: Program, result: Result) -> float:
    with tempfile.TemporaryFile() as errors:
        busy, started = _busy(), time.monotonic()
        process = _start(program, errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        _check(process, errors)
    own = usage.ru_utime + usage.ru_stime
    result.seconds.append(seconds)
    result.cpu.append(own)
    result.others.append(max(_busy() - busy - own, 0.0))
    return seconds


def _start(program: Program, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        program.command, env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=errors, cwd=program.folder
    )


def _busy() -> float:
    """Return how many seconds all processors of the machine have worked since it started. Source: proc_stat(5)."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def _peak(program: Program) -> int:
    with tempfile.TemporaryFile() as errors:
        process = _start(program, errors)
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
