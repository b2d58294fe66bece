"""A directory appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptool import signals
from snaptool.errors import InputError, OutputError
from snaptool.files import TargetExists
from snaptool.folder import FolderDraft
from snaptool.inputs import TargetIsRead, remember, remembering_inputs


@pytest.fixture(autouse=True)
def nothing_written() -> Iterator[None]:
    signals.begin()
    yield
    signals.begin()


def make(target: Path, *, force: bool = False, ours: bool = True) -> FolderDraft:
    return FolderDraft(target, force=force, may_replace=lambda _: ours)


def files(target: Path) -> dict[str, bytes]:
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}


@pytest.fixture(params=[True, False], ids=["renameat2", "plain renames"])
def renames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())


@pytest.mark.usefixtures("renames")
def test_nothing_is_there_before_all_is(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with make(target) as draft:
        draft.write("a/b/c", b"1")
        draft.write("a/d", b"")
        assert not target.exists()
        draft.publish()
    assert files(target) == {"a/b/c": b"1", "a/d": b""}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.stat().st_mode & 0o777 for path in (target, target / "a", target / "a/b")} == {0o700}
    assert signals.all_written() == (str(target),)


@pytest.mark.usefixtures("renames")
def test_an_older_tree_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for name in ("one", "other"):
        with make(target, force=True) as draft:
            draft.write(name, b"x")
            draft.publish()
        assert files(target) == {name: b"x"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(TargetExists):
        make(target)
    with pytest.raises(TargetExists):
        make(target, force=True, ours=False)
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(TargetExists):
        make(link, force=True)
    with pytest.raises(InputError):
        make(tmp_path / "no" / "out")


def test_what_the_run_reads_is_not_replaced_with_the_directory_that_it_lies_in(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "source.yaml").write_bytes(b"x")
    with remembering_inputs():
        remember((target / "source.yaml").stat(), "source.yaml")
        with pytest.raises(TargetIsRead):
            make(target, force=True)


def test_a_target_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with make(target) as draft:
        draft.write("a", b"1")
        target.mkdir()
        with pytest.raises(TargetExists):
            draft.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert files(target) == {}


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    with make(tmp_path / "out") as draft:
        draft.write("a", b"1")
        with pytest.raises(FileExistsError):
            draft.write("a", b"2")


@pytest.mark.parametrize("change", ["content", "name", "more", "less"])
def test_reading_back_sees_every_change(tmp_path: Path, change: str) -> None:
    with make(tmp_path / "out") as draft:
        draft.write("a/b", b"1")
        draft.write("a/c", b"2")
        (work,) = tmp_path.iterdir()
        if change == "content":
            (work / "a/b").write_bytes(b"2")
        elif change == "name":
            os.rename(work / "a/b", work / "a/x")  # noqa: PTH104 - shorter
        elif change == "more":
            (work / "z").write_bytes(b"")
        else:
            (work / "a/b").unlink()
        with pytest.raises(OutputError, match="is not what was written"):
            draft.publish()
    assert list(tmp_path.iterdir()) == []
