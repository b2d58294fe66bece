"""One source, two ways to run: never a compiled module that is older than its source; the tool says which way it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.engine import PACKAGE, modules, remove_stale, stale, uncompiled_copy
from tests.support.stored import write_records

ROOT = PACKAGE.parent


def test_no_compiled_module_is_older_than_its_source() -> None:
    assert stale() == []


def test_a_module_whose_source_was_edited_is_removed_and_one_that_was_not_stays(tmp_path: Path) -> None:
    for name in ("edited", "declared", "same"):
        for suffix in ("py", "pxd", "abi3.so"):
            (tmp_path / f"{name}.{suffix}").touch()
            os.utime(tmp_path / f"{name}.{suffix}", (1000, 1000))
    os.utime(tmp_path / "edited.py", (2000, 2000))
    os.utime(tmp_path / "declared.pxd", (2000, 2000))
    remove_stale(tmp_path)
    assert [module.name for _, module in modules(tmp_path)] == ["same.abi3.so"]


def test_what_has_declarations_is_compiled_and_nothing_else() -> None:
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
    declared = {path.relative_to(ROOT).with_suffix("") for path in PACKAGE.rglob("*.pxd")}
    assert {table["name"] for table in tables} == {".".join(path.parts) for path in declared}
    for table in tables:
        assert table["sources"] == [table["name"].replace(".", "/") + ".py"]
        assert table["depends"] == [table["name"].replace(".", "/") + ".pxd"]
        assert table["optional"]
        assert {**table, "name": "", "sources": [], "depends": []} == {
            **tables[0],
            "name": "",
            "sources": [],
            "depends": [],
        }


@pytest.mark.parametrize("how", ["compiled", "not compiled"])
def test_version_says_how_the_engine_runs(how: str, tmp_path: Path) -> None:
    compiled = how == "compiled"
    if compiled and not list(modules()):
        pytest.skip("nothing is compiled here: no compiler")
    if compiled:
        shutil.copytree(PACKAGE, tmp_path / "snaptool")
    else:
        uncompiled_copy(tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "snaptool", "--version", "-v"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    version, engine = run.stdout.splitlines()
    assert version.startswith("snaptool ")
    assert engine.startswith("engine: compiled" if compiled else "engine: not compiled; there was no C compiler")


@pytest.mark.parametrize(("megabytes", "lines"), [(12, 0), (24, 1)])
def test_a_large_file_gets_a_line_where_the_engine_is_not_compiled(tmp_path: Path, megabytes: int, lines: int) -> None:
    copy, source = uncompiled_copy(tmp_path / "copy"), tmp_path / "large.db"
    write_records(source, [], {b"auth": [(b"large", bytes(megabytes * 1_000_000))]})
    runs = [run_copy(copy, "inspect", source)]
    if list(modules()):
        runs.append(run_copy(ROOT, "inspect", source))
    assert [run.stderr.count("the engine is not compiled") for run in runs] == [lines, 0][: len(runs)]
    assert [run.returncode for run in runs] == [0] * len(runs)


def test_without_a_compiler_modules_stay_uncompiled_and_that_is_said() -> None:
    code = "from tests.support import engine; engine.missing = lambda: [engine.PACKAGE]; engine.compile_missing()"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"CC": "no-such-compiler"},
    )
    assert run.stdout.startswith("no C compiler (no-such-compiler)")


SAMPLES = sorted((ROOT / "samples").glob("*.db"))
KEYS = ROOT / "samples" / "aescbc.yaml"


def run_copy(copy: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command of a copy of the package."""
    return subprocess.run(
        [sys.executable, "-c", "from snaptool.__main__ import main; main()", *map(str, words)],
        cwd=copy,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(copy)},
    )


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_the_uncompiled_engine_says_and_writes_what_the_compiled_one_does(sample: Path, tmp_path: Path) -> None:
    copy, target, results = uncompiled_copy(tmp_path / "copy"), tmp_path / "new.db", []
    for package in (ROOT, copy):
        inspected = run_copy(package, "inspect", sample, "--config", KEYS, "-o", "json")
        repaired = run_copy(package, "repair", sample, target)
        said = [(one.returncode, re.sub("; [0-9.]+ s", "", one.stdout), one.stderr) for one in (inspected, repaired)]
        results.append((said, target.read_bytes()))
        target.unlink()
    assert results[0] == results[1]


@pytest.mark.soak
def test_the_tests_of_the_engine_pass_without_a_compiler(tmp_path: Path) -> None:
    uncompiled_copy(tmp_path)
    for name in ("tests", "samples", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    rooms = [f"tests/unit/{room}" for room in ("bolt", "etcd", "kube", "operations", "providers")]
    laws = [f"tests/property/test_{name}.py" for name in ("bolt", "etcd", "kube", "rewrite", "rewrite_leaves")]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *rooms, *laws],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert run.returncode == 0, run.stdout[-3000:]
    where = "import snaptool.bolt.walk as walk; print(walk.__file__)"
    done = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / "snaptool" / "bolt" / "walk.py")
