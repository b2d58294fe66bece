"""The CRC-32C that loops call by its address."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator

import pytest
from crc32c import crc32c

from snaptool.etcd import castagnoli


@pytest.fixture(autouse=True)
def _looked_for_again() -> Iterator[None]:
    castagnoli.address.cache_clear()
    yield
    castagnoli.address.cache_clear()


def test_function_by_its_address_is_that_of_the_package() -> None:
    """Processors for x86 without the instruction are older than any that runs these tests."""
    address = castagnoli.address()
    assert (address != 0) == (platform.machine() == "x86_64")
    if address:
        kind = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_ulong)
        text = bytes(range(256)) * 33
        for size in (0, 1, 255, len(text)):
            assert kind(address)(0x1234 ^ 0xFFFFFFFF, text, size) ^ 0xFFFFFFFF == crc32c(text[:size], 0x1234)


def test_function_that_is_missing_or_finds_something_else_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(castagnoli, "crc32c", lambda: lambda _text, _before: 7)
    assert castagnoli.address() == 0
    castagnoli.address.cache_clear()
    monkeypatch.undo()
    monkeypatch.setattr(castagnoli, "_extension", lambda: None)
    assert castagnoli.address() == 0
