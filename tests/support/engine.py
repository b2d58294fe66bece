"""The engine's modules: on disk none that is older than its source, and each of them as Python runs it, uncompiled.

Run by `make setup`: compiles what is not, or no more, compiled.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

PACKAGE = Path(__file__).parents[2] / "snaptool"


def uncompiled(module: ModuleType) -> ModuleType:
    """Load the source of a module of the engine a second time, whatever form it is installed in."""
    name = f"uncompiled.{module.__name__}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, str(module.__file__).split(".")[0] + ".py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def both_ways(module: ModuleType) -> pytest.MarkDecorator:
    """Run a test with the module as it is installed, and uncompiled; its argument is called `way`."""
    import pytest  # not there when `make setup` runs this file

    return pytest.mark.parametrize("way", [module, uncompiled(module)], ids=["as installed", "uncompiled"])


def uncompiled_copy(folder: Path, package: Path = PACKAGE) -> Path:
    """Copy the package without what is compiled, to a folder that then goes first on the path."""
    shutil.copytree(package, folder / "snaptool", ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    return folder


def modules(package: Path = PACKAGE) -> Iterator[tuple[Path, Path]]:
    """Yield the source and each compiled form of every module that has a `.pxd`."""
    for declarations in sorted(package.rglob("*.pxd")):
        source = declarations.with_suffix(".py")
        for module in source.parent.glob(f"{source.stem}.*.so"):
            yield source, module


def missing(package: Path = PACKAGE) -> list[Path]:
    """Sources of the engine without a compiled form."""
    compiled = {source for source, _ in modules(package)}
    return [path for path in (one.with_suffix(".py") for one in package.rglob("*.pxd")) if path not in compiled]


def stale(package: Path = PACKAGE) -> list[Path]:
    """Compiled modules that are older than their source or its declarations."""
    return [
        module
        for source, module in modules(package)
        if module.stat().st_mtime < max(source.stat().st_mtime, source.with_suffix(".pxd").stat().st_mtime)
    ]


def remove_stale(package: Path = PACKAGE) -> None:
    """Remove them: their sources run uncompiled then, until `make setup` compiles them again."""
    for module in stale(package):
        module.unlink(missing_ok=True)


def compile_missing() -> None:
    """Compile the engine where it is stale or not compiled, and a compiler is installed; say so where none is."""
    remove_stale()
    if not missing():
        return
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if shutil.which(compiler.split()[0]) is None:
        print(f"no C compiler ({compiler}): the engine runs as Python, which takes many times as long")  # noqa: T201
        return
    setup = "from setuptools import setup; setup()"
    build = [sys.executable, "-W", "ignore", "-c", setup, "--quiet", "build_ext", "--inplace"]
    subprocess.run(build, cwd=PACKAGE.parent, check=True)


if __name__ == "__main__":
    compile_missing()
