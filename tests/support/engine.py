"""The engine's modules on disk: which are compiled, and none that is older than its source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "snaptool"


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
