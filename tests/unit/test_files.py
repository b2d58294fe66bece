"""Sources stay as they are; targets are whole or absent."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from snaptool import files
from snaptool.bolt.building import BadOrder
from snaptool.errors import FormatError, InputError, OutputError, VerificationFailed
from snaptool.files import Draft, TargetExists, TargetIsNoFile, check_target, write_private
from snaptool.sources import Source, SourceChanged


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(params=["unnamed", "sibling"])
def kind_of_draft(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sibling":
        monkeypatch.delattr(os, "O_TMPFILE")
    return str(request.param)


@pytest.mark.usefixtures("kind_of_draft")
def test_draft_has_no_name_until_it_is_published(tmp_path: Path) -> None:
    target = tmp_path / "out.db"
    with Draft(target, force=False) as draft:
        draft.write(b"0" * 100)
        draft.write(memoryview(b"tail"))
        draft.seek(0)
        draft.write(b"head")
        draft.sync()
        assert not target.exists()
        assert draft.read_back().buffer[:] == b"head" + b"0" * 96 + b"tail"
        draft.publish()
    assert target.read_bytes() == b"head" + b"0" * 96 + b"tail"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert names(tmp_path) == ["out.db"]


@pytest.mark.usefixtures("kind_of_draft")
def test_draft_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Draft(tmp_path / "out.db", force=False) as draft:  # noqa: PT012 - the failure must be inside
        draft.write(b"something")
        raise ZeroDivisionError
    assert names(tmp_path) == []


@pytest.mark.usefixtures("kind_of_draft")
def test_existing_target_is_replaced_only_by_force(tmp_path: Path) -> None:
    target = tmp_path / "out.db"
    target.write_bytes(b"old")
    with pytest.raises(TargetExists, match="already exists"):
        Draft(target, force=False)
    with Draft(target, force=True) as draft:
        draft.write(b"new")
        assert target.read_bytes() == b"old"
        draft.publish()
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["out.db"]


@pytest.mark.usefixtures("kind_of_draft")
def test_target_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out.db"
    with Draft(target, force=False) as draft:
        draft.write(b"mine")
        target.write_bytes(b"theirs")
        with pytest.raises(TargetExists):
            draft.publish()
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == ["out.db"]


def test_source_is_recognised_by_identity_and_not_by_spelling(tmp_path: Path) -> None:
    path = tmp_path / "in.db"
    path.write_bytes(b"x")
    (tmp_path / "hard.db").hardlink_to(path)
    (tmp_path / "soft.db").symlink_to(path)
    with Source(path) as source:
        for spelling in ("in.db", "hard.db", "soft.db", "../" + tmp_path.name + "/in.db"):
            with pytest.raises(InputError, match="same file"):
                check_target(tmp_path / spelling, force=True, source=source)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "socket", "link to nothing", "link to a pipe", "loop"])
def test_only_regular_files_are_replaced(tmp_path: Path, kind: str, *, force: bool) -> None:
    target = tmp_path / "out.db"
    if kind == "folder":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    elif kind == "device":
        target = Path("/dev/null")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(target))
    elif kind == "link to nothing":
        target.symlink_to(tmp_path / "nowhere")
    elif kind == "link to a pipe":
        os.mkfifo(tmp_path / "pipe")
        target.symlink_to(tmp_path / "pipe")
    else:
        target.symlink_to(target)
    before = target.lstat()
    with pytest.raises(TargetIsNoFile):
        check_target(target, force=force)
    assert target.lstat() == before


def test_only_regular_files_are_sources(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for odd in ("folder", "pipe"):
        with pytest.raises(InputError, match="not a regular file"):
            Source(tmp_path / odd)


def test_missing_source_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file") as caught:
        Source(tmp_path / "absent.db")
    assert "spelling" in caught.value.hint


def test_source_that_changes_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "in.db"
    path.write_bytes(b"x" * 100)
    with Source(path) as source:
        source.check_unchanged()
        os.truncate(path, 10)
        with pytest.raises(SourceChanged, match="100 bytes then, 10 now"):
            source.check_unchanged()


def fail_while_reading(path: Path, size: int, error: BaseException) -> None:
    """Let something go wrong with a file of 100 bytes that has `size` by then."""
    with Source(path):
        if size != 100:
            os.truncate(path, size)
        raise error


@pytest.mark.parametrize(
    "error", [FormatError("a page"), BadOrder("a record"), VerificationFailed("a digest"), IndexError("a bug")]
)
def test_what_is_wrong_with_bytes_of_a_source_that_changed_is_that_it_changed(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "source.db"
    path.write_bytes(bytes(100))
    with pytest.raises(type(error)):
        fail_while_reading(path, 100, error)
    with pytest.raises(SourceChanged):
        fail_while_reading(path, 99, error)


@pytest.mark.parametrize(
    "error", [InputError("a word"), OutputError("a disk"), OSError(errno.EIO, ""), KeyboardInterrupt()]
)
def test_other_reasons_stay_what_they_are(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "source.db"
    path.write_bytes(bytes(100))
    with pytest.raises(type(error)):
        fail_while_reading(path, 99, error)


def test_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        from snaptool.errors import OutputError
        from snaptool.files import Draft
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            with Draft(Path(sys.argv[1]), force=False) as draft:
                for _ in range(100):
                    draft.write(b"x" * 4096)
                draft.publish()
        except OutputError as error:
            print(error)
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out.db")], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("cannot write")
    assert os.strerror(errno.EFBIG) in result.stdout
    assert names(tmp_path) == []


class Disk:
    """Stands in for fsync on files: fails where it is told to, counted from 0, once for each; notes every call."""

    def __init__(self, *failing: int, error: int = errno.EIO) -> None:
        self.failing = failing
        self.error = error
        self.calls = 0
        self.done = threading.Event()
        self._fsync = os.fsync

    def __call__(self, descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._fsync(descriptor)
            return
        number, self.calls = self.calls, self.calls + 1
        try:
            if number in self.failing:
                raise OSError(self.error, os.strerror(self.error))
            self._fsync(descriptor)
        finally:
            self.done.set()


@pytest.mark.usefixtures("kind_of_draft")
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("when", ["publish", "before publish", "write"])
def test_disk_that_fails_in_the_background_is_an_output_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, when: str
) -> None:
    """The kernel tells of a failed write once: that a later fsync succeeds says nothing."""
    disk = Disk(0, error=error)
    monkeypatch.setattr(os, "fsync", disk)

    def fill(draft: Draft) -> None:
        draft.write(b"x" * 100)
        draft.start_syncing()
        if when != "publish":
            assert disk.done.wait(10)
            draft._stop_syncing()
        if when == "write":
            draft.write(b"trailer")
        draft.publish()

    with pytest.raises(OutputError, match=os.strerror(error)) as caught, Draft(tmp_path / "out.db", force=False) as one:
        fill(one)
    assert ("space" in caught.value.hint) == (error != errno.EIO) or "quota" in caught.value.hint
    assert names(tmp_path) == []


@pytest.mark.usefixtures("kind_of_draft")
def test_disk_that_fails_at_last_is_an_output_error_and_keeps_the_old_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.db").write_bytes(b"old")
    disk = Disk(1)
    monkeypatch.setattr(os, "fsync", disk)

    def fill(draft: Draft) -> None:
        draft.write(b"x" * 100)
        draft.start_syncing()
        draft._stop_syncing()
        assert disk.calls == 1
        draft.write(b"trailer")
        draft.publish()

    with pytest.raises(OutputError, match="Input/output error"), Draft(tmp_path / "out.db", force=True) as one:
        fill(one)
    assert (tmp_path / "out.db").read_bytes() == b"old"
    assert names(tmp_path) == ["out.db"]


@pytest.mark.usefixtures("kind_of_draft")
@pytest.mark.parametrize("failing", [(0,), (1,), ()])
def test_large_draft_is_synced_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: tuple[int, ...]
) -> None:
    monkeypatch.setattr(files, "_SYNC_BYTES", 1000)
    disk = Disk(*failing)
    monkeypatch.setattr(os, "fsync", disk)
    content = random.Random(1).randbytes(50_000)

    def fill(draft: Draft) -> None:
        for at in range(0, len(content), 500):
            draft.write(content[at : at + 500])
        assert disk.done.wait(10), "nobody asked for it yet"
        draft.start_syncing()
        draft.publish()

    if failing:
        with pytest.raises(OutputError, match="Input/output error"), Draft(tmp_path / "out.db", force=False) as one:
            fill(one)
        assert names(tmp_path) == []
        return
    with Draft(tmp_path / "out.db", force=False) as one:
        fill(one)
        assert one._syncing is None
    assert disk.calls > 1
    assert (tmp_path / "out.db").read_bytes() == content


def test_draft_that_is_given_up_waits_for_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the descriptor that they write and sync could be another file's by then."""
    slow = threading.Event()
    fsync = os.fsync
    synced = []

    def late(descriptor: int) -> None:
        slow.wait(10)
        synced.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", late)
    draft = Draft(tmp_path / "out.db", force=False)
    draft.write(b"x" * 100)
    draft.start_syncing()
    threading.Timer(0.1, slow.set).start()
    draft.discard()
    assert synced == [100]
    assert not [one for one in threading.enumerate() if one.name.startswith("snaptool-")]
    assert names(tmp_path) == []


@pytest.mark.usefixtures("kind_of_draft")
def test_draft_is_read_beside_its_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Draft(tmp_path / "out.db", force=False) as draft:
        draft.write(b"0123456789")
        draft.flush()
        assert (draft.read(2, 3), draft.read(10, 0)) == (b"234", b"")
        with pytest.raises(OutputError, match="it ends at 10 bytes"):
            draft.read(8, 100)
        draft.write(b"abc")
        draft.start_syncing()
        assert draft.read(8, 5) == b"89abc"
        with monkeypatch.context() as some_at_a_time:
            pread = os.pread
            some_at_a_time.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, 2), offset))
            assert draft.read(8, 5) == b"89abc"
        monkeypatch.setattr(os, "pread", broken)
        with pytest.raises(OutputError, match=r"cannot read back .*Input/output error"):
            draft.read(0, 1)
    assert names(tmp_path) == []


def test_kill_leaves_nothing(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from snaptool.files import Draft
        with Draft(Path(sys.argv[1]), force=False) as draft:
            draft.write(b"x" * (1 << 20))
            draft.sync()
            print("written", flush=True)
            time.sleep(60)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out.db")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    assert names(tmp_path) == []


def test_private_text_is_for_its_owner_only(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        write_private(tmp_path / "config.yaml", "secret: x\n", force=False)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "config.yaml").stat().st_mode) == 0o600
    with pytest.raises(TargetExists):
        write_private(tmp_path / "config.yaml", "other\n", force=False)
    assert (tmp_path / "config.yaml").read_text() == "secret: x\n"


def test_unwritable_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="create a file in"):
        Draft(Path("/proc/out.db"), force=False)
    with pytest.raises(InputError, match="no directory"):
        Draft(tmp_path / "absent" / "out.db", force=False)


def test_reading_never_changes_times_or_bytes(tmp_path: Path) -> None:
    path = tmp_path / "in.db"
    path.write_bytes(os.urandom(10_000))
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    with Source(path) as source:
        assert bytes(source.buffer) == before[0]
        source.release_memory()
        assert bytes(source.buffer) == before[0]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
