"""Whatever bytes a container has, reading it gives a snapshot or one of our own errors, in bounds."""

from __future__ import annotations

import gzip
import os
import resource
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snaptool.containers.gardener import read_delta
from snaptool.containers.lzw import LzwReader
from snaptool.containers.readers import BytesReader, Peekable
from snaptool.containers.tars import TarWalk
from snaptool.containers.unwrap import Unpacking, unwrap
from snaptool.errors import SnaptoolError
from tests.support.cli import GOLDEN

VECTORS = GOLDEN / "containers"
KINDS = [
    "stream/cli.db.gz",
    "stream/two-frames.db.zst",
    "stream/two-streams.db.xz",
    "stream/two-streams.db.bz2",
    "stream/lzma-alone.db.lzma",
    "zip/zip64.zip",
    "zip/lzma.zip",
    "zip/bzip2.zip",
    "zip/zip-in-zip.zip",
    "zip/rke1/c-abc12-rl-7xk2p_2026-01-02T03-04-05Z.zip",
    "tar/charmed-plain.tar",
    "tar/pax-long-name.tar.gz",
    "tar/sparse-8GiB.tar.gz",
    "omni/no-secretbox.snapshot",
    "gardener/lzw/v2/Full-00000000-00000007-1795876698.Z",
    "gardener/zlib/v2/Full-00000000-00000007-1795876712.zlib",
    "plain/etcd-snapshot-node-1-1767323045",
]
HOW = Unpacking(omni_key=bytes(range(0x20, 0x40)), max_unpacked=64 << 20)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(scope="module", autouse=True)
def peak_before() -> int:
    """What other tests in this process have used."""
    return peak()


@contextmanager
def as_file(data: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("container")
    try:
        os.write(descriptor, data)
        yield descriptor
    finally:
        os.close(descriptor)


def read(data: bytes, name: str) -> int:
    """Unwrap; return the size of what came out."""
    with as_file(data) as descriptor:
        made = unwrap(descriptor, name, HOW)
        try:
            return made.size
        finally:
            made.close()


def outcome(call: Callable[[], object]) -> SnaptoolError | None:
    """Call; return the error of ours that came of it, with which a user can go on."""
    try:
        call()
    except SnaptoolError as error:
        assert_helps(error)
        return error
    return None


def assert_helps(error: SnaptoolError) -> None:
    assert str(error)
    assert error.hint


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


changes = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["flip", "cut", "drop", "insert", "zero", "repeat"]),
        st.binary(max_size=40),
    ),
    min_size=1,
    max_size=4,
)


def changed(data: bytes, what: list[tuple[float, str, bytes]]) -> bytes:
    for place, way, text in what:
        at = int(place * len(data))
        if way == "flip" and data:
            data = data[:at] + bytes((data[at] ^ (1 << len(text) % 8),)) + data[at + 1 :]
        elif way == "cut":
            data = data[:at]
        elif way == "drop":
            data = data[:at] + data[at + len(text) :]
        elif way == "insert":
            data = data[:at] + text + data[at:]
        elif way == "zero":
            data = data[:at] + bytes(len(text)) + data[at + len(text) :]
        else:
            data = data[:at] + data[at : at + 512] + data[at:]
    return data


@pytest.mark.parametrize("name", KINDS)
@given(what=changes)
@example(what=[(0.0, "cut", b"")])
@example(what=[(0.0, "flip", b"")])
def test_damaged_containers_give_a_snapshot_or_our_error(name: str, what: list[tuple[float, str, bytes]]) -> None:
    data = changed((VECTORS / name).read_bytes(), what)
    before = open_files()
    outcome(lambda: read(data, Path(name).name))
    assert open_files() == before


@given(what=changes, ratio=st.integers(0, 3))
def test_damaged_tars_with_a_right_checksum_around_them_too(what: list[tuple[float, str, bytes]], ratio: int) -> None:
    names = ["charmed-plain.tar", "pax-long-name", "kubespray", "sparse-8GiB"]
    path = VECTORS / "tar" / names[ratio]
    data = path.read_bytes() if ratio == 0 else gzip.decompress((path.parent / f"{path.name}.tar.gz").read_bytes())

    def walk() -> None:
        for entry in TarWalk(Peekable(BytesReader(changed(data, what))), "a tar"):
            while entry.content.position < 1 << 22 and entry.content.read(1 << 20):
                pass
            if entry.size > 1 << 30:
                break

    error = outcome(walk)
    assert error is None or error.code.startswith("container_")


@given(
    st.dictionaries(
        st.text(st.characters(min_codepoint=32, exclude_characters="\x7f"), min_size=1, max_size=180).filter(
            lambda name: name.strip("/. ")
        ),
        st.binary(max_size=2000),
        max_size=5,
    ),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_what_the_standard_library_writes_is_read(files: dict[str, bytes], form: int) -> None:
    out = BytesIO()
    expected = {}
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.size = len(content)
            try:
                archive.addfile(info, BytesIO(content))
            except ValueError:
                continue  # a name that this format cannot hold
            expected[info.name] = content
    found = {}
    for entry in TarWalk(Peekable(BytesReader(out.getvalue())), "a tar"):
        parts = []
        while data := entry.content.read(700):
            parts.append(data)
        found[entry.name] = b"".join(parts)
    assert found == expected


def go_lzw(data: bytes) -> bytes:
    """Write LZW as Go does: a greedy match of the longest entry; the table is emptied when it is full."""
    bits = count = 0
    out = bytearray()

    def emit(code: int, width: int) -> None:
        nonlocal bits, count
        bits |= code << count
        count += width
        while count >= 8:
            out.append(bits & 255)
            bits, count = bits >> 8, count - 8

    def fresh() -> dict[bytes, int]:
        return {bytes((value,)): value for value in range(256)}

    table, width, following = fresh(), 9, 257
    emit(256, width)
    current = b""
    for value in data:
        longer = current + bytes((value,))
        if longer in table:
            current = longer
            continue
        emit(table[current], width)
        following += 1
        if following == 1 << width and width < 12:
            width += 1
        elif following == 4095:
            emit(256, width)
            table, width, following = fresh(), 9, 257
            current = bytes((value,))
            continue
        table[longer] = following
        current = bytes((value,))
    if current:
        emit(table[current], width)
        following += 1
        if following == 1 << width and width < 12:
            width += 1
    emit(257, width)
    if count:
        out.append(bits & 255)
    return bytes(out)


@given(
    st.one_of(
        st.binary(max_size=4000),
        st.lists(st.sampled_from([b"a", b"abab", b"\0" * 30, b"xyz"]), max_size=900).map(b"".join),
    )
)
@example(bytes(100_000))
@example(bytes(range(256)) * 60)
def test_lzw_reads_what_was_written(data: bytes) -> None:
    source = LzwReader(Peekable(BytesReader(go_lzw(data))), "a stream")
    parts = []
    while piece := source.read(1000):
        parts.append(piece)
    assert b"".join(parts) == data


@given(st.binary(max_size=3000))
def test_lzw_of_any_bytes_ends(data: bytes) -> None:
    source = LzwReader(Peekable(BytesReader(data)), "a stream")

    def read_all() -> None:
        while source.read(1 << 16):
            pass

    error = outcome(read_all)
    assert error is None or error.code in {"container_truncated", "container_corrupt", "container_trailing_data"}


DELTA = (VECTORS / "gardener/gzip/v2/Incr-00000008-00000012-1795876688.gz").read_bytes()


@given(what=changes)
def test_damaged_deltas_give_events_or_our_error(what: list[tuple[float, str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "Incr-00000008-00000012-1795876688.gz")
        path.write_bytes(changed(DELTA, what))
        outcome(lambda: read_delta(path))


@given(st.binary(max_size=300), st.binary(max_size=70_000))
def test_any_bytes_are_named(head: bytes, tail: bytes) -> None:
    outcome(lambda: read(head + tail, "file"))


def test_fuzzing_has_not_used_much_memory(peak_before: int) -> None:
    assert peak() - peak_before < 1 << 20  # KiB
