"""The CRC-32C of the package crc32c, without the rest of it.

The package reads the metadata of all that is installed to learn its own version, which takes longer than to inspect a
small snapshot. So its extension is loaded by itself; where that is not to be found, the package is.

A leaf is a few kilobytes, which take less time than a call from Python: `address` is for loops over many.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec


@cache
def _extension() -> ModuleSpec | None:
    package = PathFinder.find_spec("crc32c")
    places = package.submodule_search_locations if package is not None else None
    return PathFinder.find_spec("_crc32c", list(places)) if places else None


@cache
def crc32c() -> Callable[[bytes | memoryview, int], int]:
    """Return the function: bytes, and the CRC of what stands before them."""
    spec = _extension()
    if spec is None or spec.loader is None:
        from crc32c import crc32c as function  # noqa: PLC0415 - see above

        return function
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[bytes | memoryview, int], int] = module.crc32c
    return found


@cache
def address() -> int:
    """Return where that extension has the function for x86 that it calls itself; 0: it is not to be had.

    It takes the CRC of what stands before with all bits turned, bytes, and how many of them; it returns the CRC with
    all bits turned. Source: crc32c 2.9, ext/crc32c.h and ext/_crc32c.c.
    """
    whole, spec = crc32c(), _extension()
    try:
        library = ctypes.CDLL(spec.origin if spec is not None else None)
        function, probe = (getattr(library, f"_crc32c_{name}") for name in ("hw_adler", "intel_probe"))
    except (OSError, AttributeError):
        return 0
    if not probe():
        return 0
    function.restype, function.argtypes = ctypes.c_uint32, (ctypes.c_uint32, ctypes.c_char_p, ctypes.c_ulong)
    text = bytes(range(251)) * 40
    right = all(
        function(before ^ _TURNED, text, size) ^ _TURNED == whole(text[:size], before)
        for before in (0, 1, _TURNED)
        for size in (1, 7, 8, 300, len(text))
    )
    return (ctypes.cast(function, ctypes.c_void_p).value or 0) if right else 0


_TURNED = 0xFFFF_FFFF
