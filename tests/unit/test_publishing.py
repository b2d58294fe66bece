"""Files get their names on every kind of file system: with calls taken away here, on a real exFAT where it can be."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptool import files
from snaptool.errors import OutputError
from snaptool.files import Draft, TargetExists, write_private
from snaptool.inputs import remembering_inputs

CONTENT = bytes(range(256)) * 40_000


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def no_links(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.fixture(params=["all", "no names like that", "no unnamed files", "no links", "neither", "renames only"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system, by the calls that it lacks."""
    kind = str(request.param)
    if kind in {"no unnamed files", "neither", "renames only"}:
        monkeypatch.delattr(os, "O_TMPFILE")
    if kind in {"no links", "neither", "renames only"}:
        monkeypatch.setattr(os, "link", no_links)
    if kind in {"no names like that", "renames only"}:
        monkeypatch.setattr(files, "renameat2", lambda _old, _new, _flags: errno.EINVAL)
    return kind


@pytest.mark.parametrize("mask", [0o777, 0o077, 0o022, 0o000])
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.usefixtures("system")
def test_a_file_appears_whole_and_private_whatever_there_is(tmp_path: Path, mask: int, *, force: bool) -> None:
    target = tmp_path / "new.db"
    if force:
        target.write_bytes(b"old")
    before = os.umask(mask)
    try:
        with Draft(target, force=force) as draft:
            draft.write(CONTENT)
            draft.publish()
            assert draft.published
    finally:
        os.umask(before)
    assert target.read_bytes() == CONTENT
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert names(tmp_path) == ["new.db"]


@pytest.mark.usefixtures("system")
def test_what_appears_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "new.db"
    with Draft(target, force=False) as draft:
        draft.write(CONTENT)
        target.write_bytes(b"theirs")
        with pytest.raises(TargetExists):
            draft.publish()
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == ["new.db"]


@pytest.mark.usefixtures("system")
def test_names_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 255)
    for force in (False, True):
        write_private(target, "text", force=force)
    assert target.read_text() == "text"
    assert len(names(tmp_path)) == 1


def test_a_directory_that_cannot_be_synced_is_worth_a_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_folder: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(files, "_sync_folder", refuse)
    with remembering_inputs() as inputs:
        write_private(tmp_path / "new.yaml", "text", force=False)
    assert (tmp_path / "new.yaml").read_text() == "text"
    assert [notice for notice in inputs.notices if "cannot be synced" in notice]


def test_a_rename_that_fails_takes_the_empty_file_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(files, "renameat2", lambda _old, _new, _flags: errno.EINVAL)
    with Draft(tmp_path / "new.db", force=False) as draft:
        draft.write(CONTENT)
        monkeypatch.setattr(Path, "replace", no_links)
        with pytest.raises(OutputError, match="cannot name"):
            draft.publish()
    assert names(tmp_path) == []


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    """A real exFAT: no unnamed files, no links, no rename that replaces nothing, no modes."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("mount.exfat-fuse", "mkfs.exfat", "losetup"))):
        pytest.skip("needs root, and Debian's exfat-fuse and exfatprogs")
    image, folder = tmp_path / "image", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.exfat", image], check=True, capture_output=True)
    attached = subprocess.run(["losetup", "-f", "--show", image], check=False, capture_output=True, text=True)
    if attached.returncode:
        pytest.skip("there is no loop device")
    device = attached.stdout.strip()
    mounted = subprocess.run(["mount.exfat-fuse", device, folder], check=False, capture_output=True)
    try:
        if mounted.returncode:
            pytest.skip("exFAT cannot be mounted here")
        yield folder
    finally:
        subprocess.run(["umount", folder], check=False, capture_output=True)
        subprocess.run(["losetup", "-d", device], check=False, capture_output=True)


def test_exfat_takes_files_whole_and_says_that_it_keeps_no_modes(exfat: Path) -> None:
    target = exfat / "new.db"
    with remembering_inputs() as inputs, Draft(target, force=False) as draft:
        draft.write(CONTENT)
        draft.publish()
    assert target.read_bytes() == CONTENT
    assert [notice for notice in inputs.notices if "keeps no permissions" in notice]
    with pytest.raises(TargetExists):
        write_private(target, "text", force=False)
    write_private(target, "text", force=True)
    assert target.read_text() == "text"
    assert names(exfat) == ["new.db"]
