"""Texts are cut out of keys and values alike by the compiled loops, the uncompiled ones, and a plain model."""

from __future__ import annotations

from array import array
from collections import Counter
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snaptool.kube.cutting
from snaptool.kube.keys import resource_segments
from tests.support.engine import uncompiled

WAYS = [snaptool.kube.cutting, uncompiled(snaptool.kube.cutting)]
HEADS = [b"/registry/sub/", b"/registry/", b"/"]
ALONE = b"compact_rev_key"
segments = st.sampled_from(["registry", "sub", "pods", "services", "specs", "a.b", "apps", "", "x", "\udcff", "k.io"])
keys = st.lists(
    st.lists(segments, max_size=7).map(lambda parts: "/".join(["", *parts]).encode(errors="surrogateescape"))
    | st.just(ALONE)
    | st.binary(max_size=20),
    max_size=12,
)
values = st.lists(
    st.binary(max_size=30)
    | st.builds(
        lambda *parts: b"k8s:enc:" + b":".join(parts), *[st.sampled_from([b"aescbc", b"v1", b"k", b"", b"a:b"])] * 4
    ),
    max_size=12,
)


def places(texts: list[bytes]) -> tuple[memoryview, memoryview, memoryview]:
    at, size, where = array("q"), array("q"), 0
    for text in texts:
        at.append(where)
        size.append(len(text))
        where += len(text)
    return memoryview(b"".join(texts) + b"\0"), memoryview(at), memoryview(size)


def path_by_model(key: bytes) -> bytes:
    head = next((head for head in HEADS if key.startswith(head)), None)
    if head is None:
        return key if key == ALONE else b""
    rest = key[len(head) :].split(b"/")
    depth = resource_segments(rest[0])
    return head + b"/".join(rest[:depth]) + b"/" * (len(rest) > depth)


@pytest.mark.parametrize("way", WAYS, ids=["as installed", "uncompiled"])
@given(keys)
def test_paths_are_those_of_keys_read_alone(way: ModuleType, texts: list[bytes]) -> None:
    view, at, size = places(texts)
    paths, found = way.Paths(view, HEADS, resource_segments, ALONE), memoryview(array("q", bytes(8 * len(texts))))
    for _ in range(2):
        paths.cut(at, size, len(texts), found)
        met = paths.met()
        assert [met[number] for number in found] == list(map(path_by_model, texts))
    for text, number in zip(texts, found, strict=True):
        assert paths.ends_open(number) == (
            bool(met[number])
            and len(text) >= len(met[number])
            and met[number][-1:] == b"/"
            and met[number].count(b"/") > _slashes(met[number])
        )


def _slashes(path: bytes) -> int:
    head = next(head for head in HEADS if path.startswith(head))
    return head.count(b"/") + resource_segments(path[len(head) :].split(b"/")[0]) - 1


@pytest.mark.parametrize("way", WAYS, ids=["as installed", "uncompiled"])
@given(values)
def test_headers_end_behind_the_fifth_colon_or_a_longer_known_name(way: ModuleType, texts: list[bytes]) -> None:
    view, at, size = places(texts)
    longer = b"k8s:enc:aescbc:v1:a:b:"
    headers, found = way.Headers(view, b"k8s:enc:", [longer]), memoryview(array("q", bytes(8 * len(texts))))
    rows = headers.cut(at, size, len(texts), found)
    assert rows == [row for row, text in enumerate(texts) if text.startswith(b"k8s:enc:")]
    for text, number in zip(texts, found, strict=True):
        parts = text.split(b":")
        expected = b":".join(parts[:5]) + b":" * (len(parts) > 5) if text.startswith(b"k8s:enc:") else b""
        assert headers.met()[number] == (longer if text.startswith(longer) else expected)


@pytest.mark.parametrize("way", WAYS, ids=["as installed", "uncompiled"])
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3, st.integers(0, 1), st.integers(0, 1)), max_size=30))
def test_labels_are_counted_and_numbered_as_dicts_do_it(way: ModuleType, rows: list[tuple[int, ...]]) -> None:
    if not rows:
        return
    resource, header, outcome, live, left_out = zip(*rows, strict=True)
    labels = memoryview(array("I", resource)), memoryview(array("H", header)), memoryview(array("H", outcome))
    found = way.count_labels(*labels, memoryview(bytes(live)), memoryview(bytes(left_out)))
    assert found == Counter(row[:4] for row in rows if not row[4])
    numbers, marks = array("I", bytes(4 * len(rows))), bytearray(len(rows))
    known = way.number_labels(*labels, memoryview(numbers))
    assert [*known.items()] == [(label, number) for number, label in enumerate(dict.fromkeys(row[:3] for row in rows))]
    assert numbers.tolist() == [known[row[:3]] for row in rows]
    way.marks_of(memoryview(numbers), memoryview(bytes(3 * number % 7 for number in range(64))), memoryview(marks))
    assert [*marks] == [3 * number % 7 for number in numbers]
