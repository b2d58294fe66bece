"""Nothing survives: no process and no directory, whoever is killed, and when."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from snaptool.errors import ScratchError
from snaptool.scratch import EtcdBinaries, EtcdFailed, ScratchEtcd, find_etcd
from tests.support.etcd import GOLDEN

TINY = GOLDEN / "tiny-3.4.db"

PARENT = """
import sys, time
from pathlib import Path
from snaptool.scratch import ScratchEtcd, find_etcd
server = ScratchEtcd.restore(Path(sys.argv[1]), binaries=find_etcd(), parent=Path(sys.argv[2]))
print(server.pid, server.directory, flush=True)
time.sleep(60)
"""


def eventually(claim: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 15
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_parent_leaves_nothing(scratch_parent: Path, number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, TINY, scratch_parent],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        assert Path(directory).parent == scratch_parent
        assert psutil.Process(int(pid)).name() == "etcd"
        parent.send_signal(number)
    assert eventually(lambda: not psutil.pid_exists(int(pid)))
    assert eventually(lambda: list(scratch_parent.iterdir()) == [])


def test_a_parent_killed_at_any_moment_of_the_start_leaves_nothing(scratch_parent: Path) -> None:
    for delay in (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.8):
        with subprocess.Popen(
            [sys.executable, "-c", PARENT, TINY, scratch_parent], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as parent:
            time.sleep(delay)
            parent.kill()
        assert eventually(lambda: list(scratch_parent.iterdir()) == []), delay


def test_a_killed_keeper_takes_etcd_along_and_is_named(etcd_binaries: EtcdBinaries, scratch_parent: Path) -> None:
    with ScratchEtcd.fresh(binaries=etcd_binaries, parent=scratch_parent) as server:
        keeper = psutil.Process(server.pid).ppid()
        os.kill(keeper, signal.SIGKILL)
        assert eventually(lambda: not psutil.pid_exists(server.pid))
        with pytest.raises(EtcdFailed, match="the process that keeps the scratch directory was killed"):
            server.check_running()


def test_an_exception_inside_leaves_nothing(etcd_binaries: EtcdBinaries, scratch_parent: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        ScratchEtcd.fresh(binaries=etcd_binaries, parent=scratch_parent) as server,
    ):
        raise KeyboardInterrupt
    assert not psutil.pid_exists(server.pid)


def script(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o700)


def test_restore_killed_is_one_clear_error(etcd_binaries: EtcdBinaries, scratch_parent: Path, tmp_path: Path) -> None:
    script(tmp_path, "etcd", f'exec {etcd_binaries.etcd} "$@"')
    script(tmp_path, "etcdutl", "kill -9 $$")
    with pytest.raises(EtcdFailed, match=r"etcdutl 3\.5\.1 cannot restore the snapshot \(by signal 9\)") as failure:
        ScratchEtcd.restore(TINY, binaries=find_etcd(tmp_path), parent=scratch_parent)
    assert failure.value.hint == "something killed it, perhaps for want of memory; run the command again"


def test_boot_killed_is_one_clear_error(etcd_binaries: EtcdBinaries, scratch_parent: Path, tmp_path: Path) -> None:
    script(tmp_path, "etcd", '[ "$1" = --version ] && echo "etcd Version: 3.5.1" || kill -9 $$')
    script(tmp_path, "etcdutl", f'exec {etcd_binaries.etcdutl} "$@"')
    with pytest.raises(EtcdFailed, match="etcd ended by signal 9"):
        ScratchEtcd.restore(TINY, binaries=find_etcd(tmp_path), parent=scratch_parent)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (20_000, "cannot copy to the scratch directory .*: File too large"),
        (1_000_000, r"etcdutl 3\.5\.1 cannot restore the snapshot \(with exit code 1\): Error: file too large"),
    ],
)
def test_no_room_is_one_clear_error(
    etcd_binaries: EtcdBinaries, scratch_parent: Path, limit: int, message: str
) -> None:
    # A limit on file sizes stands in for a full disk: the same calls fail in the same places, and no mount is needed.
    # 20,000 bytes do not hold the copy, 1,000,000 do, but not the 64 MB that etcd sets aside for its WAL.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(ScratchError, match=message) as failure:
            ScratchEtcd.restore(TINY, binaries=etcd_binaries, parent=scratch_parent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert failure.value.hint.startswith("set TMPDIR to a directory on a disk with more room")


def test_a_directory_that_cannot_be_made_is_named(etcd_binaries: EtcdBinaries, tmp_path: Path) -> None:
    with pytest.raises(ScratchError, match="cannot make a scratch directory: No such file or directory"):
        ScratchEtcd.fresh(binaries=etcd_binaries, parent=tmp_path / "absent")


def test_environment_of_the_caller_does_not_reach_etcd(
    etcd_binaries: EtcdBinaries, scratch_parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCD_LISTEN_CLIENT_URLS", "http://0.0.0.0:23790")
    monkeypatch.setenv("ETCD_DISCOVERY", "http://203.0.113.1/")
    with ScratchEtcd.fresh(binaries=etcd_binaries, parent=scratch_parent) as server:
        assert not {name for name in psutil.Process(server.pid).environ() if name.startswith("ETCD_")}
