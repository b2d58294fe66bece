"""The scratch etcd in every version: restore, boot, client, exercise, data directory, etcd's own client beside ours."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from snaptool.errors import ScratchError
from snaptool.scratch import EtcdBinaries, EtcdFailed, ScratchEtcd, boot
from tests.support.etcd import GOLDEN

TINY = sorted(GOLDEN.glob("tiny-*.db"))


@pytest.mark.parametrize("snapshot", TINY, ids=lambda path: path.name)
def test_real_snapshots_of_every_version_live_in_every_version(
    every_etcd: EtcdBinaries, scratch_parent: Path, snapshot: Path
) -> None:
    if snapshot.name == "tiny-3.7.db" and every_etcd.version[:2] == (3, 6):
        # From 3.6 on, etcd looks at the storage version in the file; 3.4 and 3.5 do not know of it.
        with pytest.raises(EtcdFailed, match=r'etcd ended with exit code 1: .*version "3\.7\.0" is not supported'):
            ScratchEtcd.restore(snapshot, binaries=every_etcd, parent=scratch_parent)
        return
    with ScratchEtcd.restore(snapshot, binaries=every_etcd, parent=scratch_parent) as server:
        client = server.client()
        assert client.status().version == ".".join(map(str, every_etcd.version))
        revision = client.status().revision
        boot.exercise(client)
        assert client.status().revision == revision + 2


@pytest.mark.parametrize("tcp", [False, True])
def test_shown_command_line_works(every_etcd: EtcdBinaries, scratch_parent: Path, *, tcp: bool) -> None:
    if every_etcd.etcdctl is None:
        pytest.skip("this build has no etcdctl")
    with ScratchEtcd.restore(GOLDEN / "tiny-3.4.db", binaries=every_etcd, parent=scratch_parent, tcp=tcp) as server:
        line = server.etcdctl("get", "app/item", "--prefix", "--keys-only")
        by_line = subprocess.run(shlex.split(line), capture_output=True, check=True, env={"ETCDCTL_API": "3"})
        by_environment = subprocess.run(
            ["etcdctl", "get", "app/item", "--prefix", "--keys-only"],
            capture_output=True,
            check=True,
            env=server.environment(),
        )
        keys = [
            key.key for page in server.client().pages(revision=0) for key in page if key.key.startswith(b"app/item")
        ]
        assert by_line.stdout.split() == keys
        assert by_environment.stdout.split() == keys


def test_listens_nowhere_else(every_etcd: EtcdBinaries, scratch_parent: Path) -> None:
    with ScratchEtcd.fresh(binaries=every_etcd, parent=scratch_parent) as server:
        process = psutil.Process(server.pid)
        assert [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN] == []


@pytest.mark.parametrize("force_new_cluster", [False, True])
def test_data_directory_of_a_killed_etcd_serves_its_last_writes(
    every_etcd: EtcdBinaries, scratch_parent: Path, tmp_path: Path, *, force_new_cluster: bool
) -> None:
    with ScratchEtcd.fresh(binaries=every_etcd, parent=scratch_parent) as server:
        server.client().put(b"/late", b"in the WAL, and the next entry says that it is committed")
        server.client().put(b"/last", b"in the WAL, and nothing says so")
        os.kill(server.pid, signal.SIGSTOP)
        shutil.copytree(server.directory / "data", tmp_path / "data")
        os.kill(server.pid, signal.SIGCONT)
    with ScratchEtcd.data_dir(
        tmp_path / "data", force_new_cluster=force_new_cluster, binaries=every_etcd, parent=scratch_parent
    ) as server:
        assert server.client().get(b"/late") is not None
        assert force_new_cluster or server.client().get(b"/last") is not None


def test_damaged_file_is_one_clear_error(every_etcd: EtcdBinaries, scratch_parent: Path) -> None:
    damaged = bytearray((GOLDEN / "tiny-3.4.db").read_bytes())
    for page in range(2, len(damaged) // 4096):
        damaged[page * 4096 : page * 4096 + 16] = bytes(16)
    with pytest.raises(ScratchError, match="etcd") as failure:
        ScratchEtcd.restore(memoryview(damaged), binaries=every_etcd, parent=scratch_parent, skip_hash_check=True)
    assert failure.value.hint
