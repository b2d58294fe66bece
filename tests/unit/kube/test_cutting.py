"""Keys are sorted as their bytes are, compiled and uncompiled."""

from __future__ import annotations

from array import array
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptool.kube import cutting
from tests.support.engine import uncompiled

WAYS = [cutting, uncompiled(cutting)]


def order_of(way: ModuleType, keys: list[bytes], before: bytes = b"") -> list[int]:
    """Sort keys that stand one behind the other, up to the very end of what there is."""
    size, at, end = array("q", map(len, keys)), array("q"), len(before)
    for one in size:
        at.append(end)
        end += one
    view = memoryview(before + b"".join(keys))
    return list(way.order_of_keys(view, memoryview(at), memoryview(size)))


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"a" * 24, b"a" * 24 + b"\0", b"", b"\0", b"\xff" * 9])))
def test_order_of_keys_is_that_of_bytes_and_stable(keys: list[bytes]) -> None:
    expected = sorted(range(len(keys)), key=keys.__getitem__)
    assert [order_of(way, keys, b"x") for way in WAYS] == [expected, expected]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
def test_any_number_of_keys_is_sorted(way: ModuleType, count: int) -> None:
    keys = [b"%04d" % (number * 7919 % count) for number in range(count)]
    assert [keys[row] for row in order_of(way, keys)] == sorted(keys)


@pytest.mark.parametrize("way", WAYS)
def test_keys_that_agree_in_thousands_of_bytes_are_ordered_too(way: ModuleType) -> None:
    assert order_of(way, [b"k" * 5000 + b"2", b"k" * 5000 + b"1", b"k" * 5000]) == [2, 1, 0]
