"""One source, two ways to run: is the engine compiled, and what stands in for Cython where it is not.

Modules with a `.pxd` beside them are plain Python that Cython compiles in its pure Python mode. A compiled module does
not import anything from here; see docs/design.md, "One source, two ways to run".
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TypeVar

Thing = TypeVar("Thing")

LARGE = 20_000_000
"""Bytes of a file from which on it is worth a word that the engine is not compiled."""

WHY_NOT = (
    "there was no C compiler when snaptool was installed: results are the same, and take many times as long; "
    "with a compiler (gcc or clang), `pip install --force-reinstall --no-deps` it again"
)


def is_compiled() -> bool:
    """Is the engine compiled? One module stands for all."""
    spec = find_spec("snaptool.bolt.walk")
    return spec is not None and not str(spec.origin).endswith(".py")


class _Unchanged:
    """A decorator that returns its argument, and a context that does nothing."""

    def __call__(self, thing: Thing) -> Thing:
        return thing

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


class cython:  # noqa: N801 - the name of what it stands in for
    """What the engine uses of the module `cython`, for Python alone."""

    compiled = False
    cclass = cfunc = ccall = final = gil = inline = nogil = _Unchanged()
    bint = int = longlong = p_void = Py_ssize_t = size_t = uchar = uint = ulonglong = ushort = void = None

    @staticmethod
    def exceptval(*_: object, **__: object) -> Callable[[Thing], Thing]:
        """Return a decorator that changes nothing."""
        return lambda thing: thing

    @staticmethod
    def boundscheck(_on: object) -> Callable[[Thing], Thing]:
        """Return a decorator that changes nothing."""
        return lambda thing: thing

    @staticmethod
    def declare(_kind: object, value: Thing) -> Thing:
        """Return the value."""
        return value

    @staticmethod
    def cast(_kind: object, value: Thing) -> Thing:
        """Return the value."""
        return value
