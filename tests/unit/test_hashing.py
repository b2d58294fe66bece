"""Hashing a file in a thread: any stretch of it, a file that is cut, and the one that was begun early."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptool import hashing
from snaptool.bolt.layout import MAGIC
from snaptool.sources import Source
from tests.support.cli import SAMPLES, Snaptool
from tests.support.engine import both_ways

SAMPLE = SAMPLES / "aescbc-cluster.db"


@contextmanager
def hashed(way: ModuleType, path: Path, begin: int = 0, size: int | None = None) -> Iterator[hashing.FileHash]:
    descriptor = os.open(path, os.O_RDONLY)
    found = way.hash_of(descriptor, begin, path.stat().st_size if size is None else size)
    os.close(descriptor)
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(hashing, "_EARLY_FROM", 1)
    yield
    hashing.end_early()


@both_ways(hashing)
@given(st.integers(1, 3000), st.integers(0, 1500), st.integers(1, 700), st.integers(1, 700), st.data())
def test_the_digest_of_every_stretch_is_that_of_its_bytes(
    way: ModuleType, size: int, begin: int, block: int, stretch: int, data: st.DataObject
) -> None:
    content, begin = os.urandom(size), min(begin, size)
    memory = os.memfd_create("content")
    os.write(memory, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(way.ByHashlib, "block", block)
        patch.setattr(way.ByHashlib, "stretch", min(stretch, block))
        patch.setattr(way.ByLibcrypto, "block", block)
        patch.setattr(way.ByLibcrypto, "stretch", stretch)
        with hashed(way, Path(f"/proc/self/fd/{memory}"), begin, size - begin) as found:
            for end in (size - begin, data.draw(st.integers(0, size - begin)), size - begin):
                assert found.digest(end) == hashlib.sha256(content[begin : begin + end]).digest()
    os.close(memory)


@both_ways(hashing)
def test_a_file_that_was_cut_has_no_digest(way: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(bytes(5000))
    with hashed(way, path, size=6000) as found:
        assert found.digest(6000) == b""
        assert found.digest(5000) == hashlib.sha256(bytes(5000)).digest()


@both_ways(hashing)
def test_what_cannot_be_read_is_an_error_of_whoever_asks(way: ModuleType, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    found = way.hash_of(descriptor, 0, 6000)
    os.close(descriptor)
    with pytest.raises(IsADirectoryError):
        found.digest(6000)
    found.stop()


def test_the_functions_of_libcrypto_are_called_where_hashlib_has_them() -> None:
    if not hashing.__file__.endswith(".so") or hashing.libcrypto() is None:
        pytest.skip("not compiled, or a hashlib without OpenSSL")
    with hashed(hashing, SAMPLE) as found:
        assert type(found._states[0][1]) is hashing.ByLibcrypto


@pytest.mark.usefixtures("early")
def test_what_was_begun_early_is_taken_over_for_the_very_file_alone(tmp_path: Path) -> None:
    one, copy = tmp_path / "one.db", tmp_path / "copy.db"
    for path in (one, copy):
        shutil.copy(SAMPLE, path)
    for opened, is_taken in ((one, True), (copy, False)):
        hashing.begin_early(["repair", "--force", str(SAMPLES / "aescbc.yaml"), str(one), str(copy)])
        begun = hashing._early[0][0]
        with Source(opened) as source:
            found = source.begin_hash()
            assert (found is begun) == is_taken
            assert found.digest(source.size) == hashlib.sha256(SAMPLE.read_bytes()).digest()
            found.stop()
        assert not hashing._early


@pytest.mark.usefixtures("early")
def test_a_file_that_changed_since_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    shutil.copy(SAMPLE, path)
    hashing.begin_early(["inspect", str(path)])
    hashing._early[0][0].digest(1)  # it has read all
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"changed")
    with Source(path) as source:
        found = source.begin_hash()
        assert found.digest(source.size) == hashlib.sha256(path.read_bytes()).digest()
        found.stop()


@pytest.mark.usefixtures("early")
def test_nothing_but_databases_of_commands_that_hash_is_begun(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for arguments in (
        ["list", str(SAMPLE)],
        ["inspect"],
        ["inspect", str(tmp_path), str(pipe), str(tmp_path / "absent"), "a\0b", str(SAMPLES / "aescbc.yaml")],
        [],
    ):
        hashing.begin_early(arguments)
        assert not hashing._early
    where, magic = hashing._MAGIC
    assert SAMPLE.read_bytes()[where] == magic == MAGIC.to_bytes(4, "little")


@pytest.mark.usefixtures("early")
def test_a_wrong_trailer_is_found_by_a_hash_that_was_begun_early(tmp_path: Path) -> None:
    path = tmp_path / "wrong.db"
    content = bytearray(SAMPLE.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    hashing.begin_early(["inspect", str(path)])
    assert hashing._early
    ran = Snaptool(tmp_path)("inspect", path)
    assert "SHA-256 WRONG" in ran.stdout
    assert not hashing._early
