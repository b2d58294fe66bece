"""The CRC-32C of the package crc32c, without the rest of it.

The package reads the metadata of all that is installed to learn its own version, which takes longer than to inspect a
small snapshot. So its extension is loaded by itself; where that is not to be found, the package is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


@cache
def crc32c() -> Callable[[bytes | memoryview, int], int]:
    """Return the function: bytes, and the CRC of what stands before them."""
    package = PathFinder.find_spec("crc32c")
    places = package.submodule_search_locations if package is not None else None
    spec = PathFinder.find_spec("_crc32c", list(places)) if places else None
    if spec is None or spec.loader is None:
        from crc32c import crc32c as function  # noqa: PLC0415 - see above

        return function
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[bytes | memoryview, int], int] = module.crc32c
    return found
