"""Envelopes that are marked in a loop are those that the rule finds one by one, compiled and uncompiled."""

from __future__ import annotations

import random
from array import array
from contextlib import suppress
from types import ModuleType

from hypothesis import given
from hypothesis import strategies as st

from snaptool.kube import cutting
from snaptool.kube.objects import _usual_start, usual_type
from tests.support.engine import both_ways, uncompiled

PLAIN = uncompiled(cutting)


def envelope(version: bytes, kind: bytes, content: bytes) -> bytes:
    named = b"\n" + bytes([len(version)]) + version + b"\x12" + bytes([len(kind)]) + kind
    length, size = b"", len(content)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    whole = b"k8s\0\n" + bytes([len(named)]) + named + b"\x12" + length + bytes([size]) + content
    return whole + b"\x1a\x00\x22\x00"


def marked(way: ModuleType, values: list[bytes]) -> list[int]:
    at, size = array("q"), array("q", map(len, values))
    for value in values:
        at.append(at[-1] + size[len(at) - 1] if at else 0)
        assert value is not None
    found = bytearray(len(values))
    judge = way.Envelopes(lambda start, _: _usual_start(start) is not None)
    rows, kinds = array("q", range(len(values))), array("q", bytes(8 * len(values)))
    columns = (memoryview(one) for one in (at, size, rows, kinds, found))
    at_, size_, rows_, kinds_, found_ = columns
    view = memoryview(b"".join(values) or b"\0")
    judge.mark(view, at_, size_, rows_, kinds_, found_)
    assert judge.others(view, at_, size_, rows_, kinds_) == [row for row, mark in enumerate(found) if not mark]
    return list(found)


def some_values(seed: int) -> list[bytes]:
    rng = random.Random(seed)
    values = []
    for _ in range(30):
        whole = envelope(
            rng.choice((b"v1", b"apps/v1", b"UPPER")),
            rng.choice((b"Pod", b"Secret", b"K" * 100)),
            rng.randbytes(rng.choice((0, 1, 126, 127, 128, 20_000))),
        )
        cut, flipped = rng.randrange(len(whole) + 1), bytearray(whole)
        flipped[rng.randrange(min(len(whole), 40))] ^= 1 << rng.randrange(8)
        values.append(rng.choice((whole, whole, whole[:cut], whole + b"\0", bytes(flipped), b"")))
    return values


@given(st.integers(0, 1 << 32))
def test_marked_are_those_of_the_rule(seed: int) -> None:
    values = some_values(seed)
    found = marked(cutting, values)
    assert found == marked(PLAIN, values)
    assert found == [usual_type(value) is not None for value in values]


@both_ways(cutting)
def test_places_outside_are_never_marked(way: ModuleType) -> None:
    whole = envelope(b"v1", b"Pod", b"content")
    judge = way.Envelopes(lambda _, __: True)
    for at, size in ((0, len(whole) + 1), (0, 1 << 62), (1 << 40, 20), (len(whole) - 5, 20), (len(whole) - 11, 12)):
        columns = (memoryview(array("q", [number])) for number in (at, size, 0, 0))
        found = bytearray(1)
        with suppress(IndexError):
            judge.mark(memoryview(whole), *columns, memoryview(found))
        assert found == b"\0"
