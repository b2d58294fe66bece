"""The benchmarks run: what they measure is looked at by people, what they print is looked at here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import ROOT, Bench, growth, shapes, standing
from tests.benchmarks.measure import Program, Result, Target

OURS = ["inspect", "inspect --config", "rewrite, Secrets alone", "rewrite, every value", "repair", "snaptool --help"]
OURS += ["inspect, 52 KB", *(f"{what}, 500 records, uncompiled" for what in ("inspect", "repair", "rewrite"))]
OURS += [f"{what} {count}" for what, count in [("rewrite, 500 values of", "1 KB"), ("direct engine, 500", "records")]]
PEERS = ["etcdutl snapshot status", "etcdutl snapshot restore", "bbolt compact", "bbolt check", "cp", "openssl sha256"]
PEERS += ["bbolt compact and check, openssl dgst of both"]
AIMS = [
    "inspect",
    "inspect --config",
    *(["rewrite, Secrets alone"] * 2),
    *(["rewrite, every value"] * 2),
    *(["repair"] * 2),
]
AIMS += ["rewrite, 500 values of 1 KB", "inspect, 52 KB", "snaptool --help", "private memory without etcds"]


def test_every_program_is_shown_or_named_as_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--records", "500", "--rounds", "1", "--folder", str(tmp_path)]
    command += ["--rest", "0"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    first, aims, *_ = result.stdout.split("\n\n")[1:]
    rows = {line.split("|")[1].strip() for line in first.splitlines()}
    assert rows >= {*OURS, "etcd engine, 500 records"}
    skipped = "".join(line for line in result.stdout.splitlines() if line.startswith("Skipped"))
    assert all((name in rows) != (name in skipped) for name in PEERS)
    kept = json.loads((tmp_path / "beside_peers-500.json").read_text())["seconds, bytes"]["500"]
    assert kept.keys() == rows - {"program"} - {name for name in rows if set(name) == {"-"}}
    assert all(figures["uss"] > 0 and len(figures["seconds"]) == 1 for name, figures in kept.items() if name in OURS)
    assert not (tmp_path / "target.db").exists()
    assert [line.split("|")[1].strip() for line in aims.splitlines()[2:]] == AIMS
    assert "Least squares" in result.stdout


@pytest.mark.parametrize(("what", "rows"), [(growth, 4), (shapes, 4)])
def test_growth_and_shapes_generate_and_print(
    what: Callable[[Bench, int], tuple[str, object]], rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(_: Bench, programs: Sequence[Program]) -> dict[str, Result]:
        return {program.name: Result(uss=10_000_000, seconds=[3, 1, 2]) for program in programs}

    monkeypatch.setattr(Bench, "measure", measured)
    text, _ = what(Bench(tmp_path, rounds=3), 400)
    assert sum("2.00 s, 10 MB" in line for line in text.splitlines()) == rows


def test_a_missing_peer_is_no_ratio() -> None:
    results = {"repair": Result(uss=1, seconds=[1]), "bbolt compact": Result(uss=1, seconds=[2])}
    target = Target(0.6, 0.4, "bbolt compact")
    program = Program("repair", ("repair",), (target,))
    assert standing(program, target, results) == ("0.50 x bbolt compact", "0.60", "0.40", "yes")
    del results["bbolt compact"]
    assert standing(program, target, results) == ("no bbolt compact", "", "", "")


@pytest.mark.parametrize(
    ("seconds", "values", "target", "reached"),
    [
        (1, 100_000, Target(50_000, 80_000), "beyond"),
        (1.9, 100_000, Target(50_000, 80_000), "yes"),
        (2.1, 100_000, Target(50_000, 80_000), "no"),
        (0.1, 0, Target(0.15, 0.1), "beyond"),
        (0.14, 0, Target(0.15, 0.1), "yes"),
        (0.16, 0, Target(0.15), "no"),
    ],
)
def test_fewer_seconds_and_more_values_a_second_are_better(
    seconds: float, values: int, target: Target, reached: str
) -> None:
    results = {"values": Result(uss=1, seconds=[seconds])}
    assert standing(Program("values", ("rewrite",), values=values), target, results)[3] == reached
