"""`audit` beside the obvious alternative, a shell loop over `inspect`, on the same backups, in one run, as a ratio.

`python -m tests.benchmarks.audit` prints it as a table.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SAMPLES = Path(__file__).parents[2] / "samples"
BACKUPS, ROUNDS = 100, 3
LOOP = 'for one in "$1"/*; do "$2" -m snaptool inspect -q -o json "$one" --config "$3" || exit; done'


def seconds(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)  # else it is no measure
    return time.perf_counter() - started


def measure(folder: Path, backups: int, rounds: int) -> list[tuple[str, float]]:
    """Seconds of each way, the best of some rounds; they take turns."""
    bucket = folder / "bucket"
    bucket.mkdir()
    for number in range(backups):
        shutil.copy2(SAMPLES / "aescbc-cluster.db", bucket / f"n{number:04}.db")
    config = str(SAMPLES / "aescbc.yaml")
    audit = [sys.executable, "-m", "snaptool", "audit", "-q", str(bucket), "--config", config, "--recheck", "all"]
    audit += ["--store", str(folder / "store.db")]
    ways = {
        "shell loop over inspect": ["sh", "-c", LOOP, "sh", str(bucket), sys.executable, config],
        "audit": audit,
        "audit, nothing changed": audit[: audit.index("--recheck")] + audit[audit.index("--store") :],
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, command in ways.items():
            best[name] = min(best[name], seconds(command))
    return list(best.items())


def main(backups: int = BACKUPS, rounds: int = ROUNDS) -> None:
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), backups, rounds)
    base = found[0][1]
    sys.stdout.write(f"\n| {backups} small backups | seconds | beside the loop |\n| --- | --- | --- |\n")
    for what, took in found:
        sys.stdout.write(f"| {what} | {took:.1f} | {took / base:.2f} |\n")


if __name__ == "__main__":
    main()
