"""The engine's modules: on disk none that is older than its source, and each of them as Python runs it, uncompiled."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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


def modules(package: Path = PACKAGE) -> Iterator[tuple[Path, Path]]:
    """Yield the source and each compiled form of every module that has a `.pxd`."""
    for declarations in sorted(package.rglob("*.pxd")):
        source = declarations.with_suffix(".py")
        for module in source.parent.glob(f"{source.stem}.*.so"):
            yield source, module


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
