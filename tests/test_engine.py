"""One source, two ways to run: never a compiled module that is older than its source; the tool says which way it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.engine import PACKAGE, modules, remove_stale, stale

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
    package = tmp_path / "snaptool"
    shutil.copytree(PACKAGE, package, ignore=None if compiled else shutil.ignore_patterns("*.so"))
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
