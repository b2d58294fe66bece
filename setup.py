"""Compiles the engine: every module that has a `.pxd` beside it. All else about the package stands in pyproject.toml.

Where no compiler is at hand, the same files run as Python. A compiled module that is older than its source is removed
first: Python would go on importing it.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")  # free-threaded Python has no limited API yet
MACROS: list[tuple[str, str | None]] = [("Py_LIMITED_API", "0x030B0000"), ("CYTHON_LIMITED_API", "1")]


def extensions() -> list[Extension]:
    """Return the modules to compile, without what is left of older versions of them."""
    found = []
    for declarations in sorted(ROOT.glob("snaptool/**/*.pxd")):
        source = declarations.with_suffix(".py")
        newest = max(source.stat().st_mtime, declarations.stat().st_mtime)
        for module in source.parent.glob(f"{source.stem}.*.so"):
            if module.stat().st_mtime < newest:
                module.unlink()
        path = source.relative_to(ROOT)
        extension = Extension(
            ".".join(path.with_suffix("").parts),
            [str(path)],
            depends=[str(declarations.relative_to(ROOT))],
            define_macros=MACROS if LIMITED else [],
            extra_compile_args=["-O2", "-g0"],
            py_limited_api=LIMITED,
            optional=True,
        )
        found.append(extension)
    return found


setup(
    ext_modules=extensions(),
    options={"build_ext": {"parallel": 2}, "bdist_wheel": {"py_limited_api": "cp311"} if LIMITED else {}},
)
