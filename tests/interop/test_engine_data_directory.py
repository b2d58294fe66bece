"""A data directory whose WAL is ahead of its db: every write that etcd has acknowledged is in what comes of it.

The directories are made by real servers that were killed. Nothing of them is ever changed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snaptool.errors import ScratchError
from snaptool.etcd import Snapshot
from snaptool.kube.objects import plausible
from snaptool.operations.boot import LiveKeys, replayed
from snaptool.operations.engine import EtcdEngine
from snaptool.operations.opening import open_snapshot
from snaptool.operations.plan import RewriteRequest
from snaptool.operations.rewrite import rewrite
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import GroupResource, Keyring
from snaptool.scratch import EtcdBinaries, find_etcd
from snaptool.scratch.client import EtcdClient
from tests.support.cli import states
from tests.support.kms_snapshots import secret
from tests.support.peers import peer
from tests.support.scratch_moments import eventually, left_behind, run_until
from tests.support.snapshots import NEW_SECRET, config, seal

LEASE = 0x2A
SECRETS = GroupResource("secrets", "")
NEW = config("secretbox", name="new", secret=NEW_SECRET)


def key(number: int) -> bytes:
    return b"/registry/secrets/shop/secret-%03d" % number


def plaintext(number: int) -> bytes:
    return secret(b"secret-%03d" % number, b"content of number %d" % number)


def write(client: EtcdClient) -> dict[bytes, bytes]:
    """Write and delete; return what must be alive after the last acknowledgement, by key."""
    client.grant_lease(2, LEASE)
    for number in range(40):
        client.put(key(number), seal(plaintext(1000 + number), os.urandom(16)))
        client.put(key(number), seal(plaintext(number), os.urandom(16)), lease=LEASE if number == 7 else 0)
    for number in range(10, 20):
        client.delete(key(number))
    return {key(number): plaintext(number) for number in range(40) if not 10 <= number < 20}


@contextmanager
def member(
    binaries: EtcdBinaries, folder: Path, name: str = "member-1", cluster: tuple[str, ...] = ("member-1",)
) -> Iterator[subprocess.Popen[bytes]]:
    """A server with its own name and sockets, as an operator would have started it; killed at the end."""
    urls = {one: f"unix://peer-{one}:1" for one in cluster}
    argv: list[str | Path] = [binaries.etcd, "--name", name, "--data-dir", folder / name]
    argv += ["--listen-client-urls", f"unix://{name}:1", "--advertise-client-urls", f"unix://{name}:1"]
    argv += ["--listen-peer-urls", urls[name], "--initial-advertise-peer-urls", urls[name]]
    argv += ["--initial-cluster", ",".join(f"{one}={url}" for one, url in urls.items())]
    with subprocess.Popen(
        argv, cwd=folder, env={}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def connected(folder: Path, name: str = "member-1") -> EtcdClient:
    client = EtcdClient(str(folder / f"{name}:1"))
    assert eventually(client.has_leader)
    return client


class Directory:
    """A data directory of a killed server, its configurations, and what is in it."""

    def __init__(self, folder: Path, binaries: EtcdBinaries) -> None:
        self.folder, self.binaries = folder, binaries
        self.servers = folder / "servers"
        self.servers.mkdir()
        self.path = self.servers / "member-1"
        self.target = folder / "target.db"
        (folder / "old.yaml").write_text(config("aescbc"))
        (folder / "new.yaml").write_text(NEW)
        with member(binaries, self.servers) as server:
            client = connected(self.servers)
            before = client.status().revision
            self.written = write(client)
            self.revision = before + 90
            server.send_signal(signal.SIGKILL)
            client.close()
        self.before = states(self.path)

    def rewrite(self, *more: str | Path) -> subprocess.CompletedProcess[str]:
        words: list[str | Path] = ["rewrite", self.path, self.target, "--config", self.folder / "old.yaml"]
        words += ["--new-config", self.folder / "new.yaml", "--jobs", "1", "-o", "json", *more]
        return self.run(*words)

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        (self.folder / "temporary").mkdir(exist_ok=True)
        result = subprocess.run(
            [sys.executable, "-m", "snaptool", *map(str, words)],
            env=os.environ | {"TMPDIR": str(self.folder / "temporary")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in result.stderr
        assert left_behind(self.folder) == []
        assert states(self.path) == self.before
        return result

    @property
    def etcd(self) -> tuple[str | Path, ...]:
        return ("--etcd-bin", self.binaries.etcd.parent)


@pytest.fixture
def directory(etcd_binaries: EtcdBinaries, tmp_path: Path) -> Directory:
    return Directory(tmp_path, etcd_binaries)


def opened(path: Path, text: str) -> dict[bytes, bytes]:
    keyring = Keyring([parse_config(text.encode())], plausible=plausible)
    chain = keyring.chain_for(SECRETS)
    return {one.key: chain.unseal(one.value, one.key).plaintext for one in LiveKeys(Snapshot(path.read_bytes()))}


def test_every_acknowledged_write_is_in_the_result(every_etcd: EtcdBinaries, tmp_path: Path) -> None:
    directory = Directory(tmp_path, every_etcd)
    with open_snapshot(directory.path) as found:
        of_db = found.snapshot.current_revision
    assert of_db < directory.revision  # the WAL is ahead, or this proves nothing
    result = directory.rewrite("--engine", "etcd", *directory.etcd)
    assert result.returncode == 0, result.stderr
    assert opened(directory.target, NEW) == directory.written
    snapshot = Snapshot(directory.target.read_bytes())
    assert {lease.id: lease.ttl for lease in snapshot.leases().values()} == {LEASE: 2}
    assert {one.key for one in LiveKeys(snapshot) if one.lease == LEASE} == {key(7)}
    report = json.loads(result.stdout)
    assert report["source"]["path"] == str(directory.path)
    assert report["source"]["revision"] == directory.revision
    assert report["records"] == {"total": 30, "copied": 0, "rewritten": 30, "deleted": 0}
    assert f"reading {directory.path} with its WAL" in result.stderr
    assert f"revision {directory.revision}, of its db {of_db}" in result.stderr


def test_the_direct_engine_reads_the_db_alone_and_says_who_reads_more(directory: Directory) -> None:
    result = directory.rewrite()
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["source"]["revision"] < directory.revision
    assert "the WAL of this data directory may hold newer writes than its db" in result.stderr
    assert "rewrite --engine etcd" in result.stderr


def test_a_boot_check_looks_at_what_the_wal_holds(directory: Directory) -> None:
    words = ("verify", "--boot", directory.path, *directory.etcd, "--config", directory.folder / "old.yaml")
    result = directory.run(*words, "-o", "json")
    assert result.returncode == 0, result.stdout
    report = json.loads(result.stdout)
    assert (report["records"], report["opened"]) == (90, 80)
    assert report["path"] == str(directory.path)


def test_scratch_serves_what_the_wal_holds(directory: Directory) -> None:
    asked = ("etcdctl", "get", "/", "--prefix", "--keys-only")
    result = directory.run("scratch", directory.path, *directory.etcd, "--", *asked)
    assert result.returncode == 0, result.stderr
    assert [line.encode() for line in result.stdout.split()] == sorted(directory.written)
    assert f"serving {directory.path} with its WAL" in result.stderr


def test_a_directory_in_use_is_refused(etcd_binaries: EtcdBinaries, directory: Directory) -> None:
    with member(etcd_binaries, directory.servers):
        connected(directory.servers).close()
        directory.before = states(directory.path)
        result = directory.rewrite("--engine", "etcd", *directory.etcd)
    assert result.returncode == 1
    assert f"an etcd is running on {directory.path}" in result.stderr
    assert "etcdctl snapshot save" in result.stderr
    assert not directory.target.exists()


@pytest.mark.parametrize("place", ["snap/db", "wal"])
def test_a_target_in_the_directory_is_the_source(directory: Directory, place: str) -> None:
    target = directory.path / "member" / place
    directory.target = next(target.glob("*.wal")) if target.is_dir() else target
    result = directory.rewrite("--engine", "etcd", "--force", *directory.etcd)
    assert result.returncode == 2
    assert "never written" in result.stderr or "the source is never changed" in result.stderr


def test_a_directory_of_a_newer_etcd_asks_for_that_one(directory: Directory, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.mkdir()
    of_newer = Directory(newer, find_etcd(peer("etcd", "3.6.16")))
    result = of_newer.rewrite("--engine", "etcd", *directory.etcd)
    assert result.returncode == 1
    first, second = result.stderr.splitlines()
    assert first.startswith("snaptool: error: etcd ended with exit code 1: ")
    assert second.startswith("snaptool:        name the etcd version that ran on it by --etcd-bin")
    assert not of_newer.target.exists()


def test_a_member_of_three_becomes_the_only_one(every_etcd: EtcdBinaries, tmp_path: Path, scratch_parent: Path) -> None:
    names = ("member-1", "member-2", "member-3")
    with member(every_etcd, tmp_path, names[0], names), member(every_etcd, tmp_path, names[1], names):
        client = connected(tmp_path)
        written = write(client)
        # It learns with the next entry that the entries before it are committed, and writes that into its WAL.
        client.put(b"/registry/secrets/shop/last", b"k8s\0")
        time.sleep(0.3)
        client.close()
    before = states(tmp_path / "member-1")
    keys = Keyring([parse_config(config("aescbc").encode())], plausible=plausible)
    request = RewriteRequest(reading=keys, writing=Keyring([parse_config(NEW.encode())], plausible=plausible))
    with (
        open_snapshot(tmp_path / "member-1") as found,
        replayed(found, every_etcd, parent=scratch_parent) as source,
    ):
        assert len(found.snapshot.members()) == 3
        assert source.notices[1] == "it is one of 3 members, and what it did not know to be committed is left out"
        rewrite(source, tmp_path / "target.db", request, engine=EtcdEngine(every_etcd, scratch_parent))
    found_there = opened(tmp_path / "target.db", NEW)
    found_there.pop(b"/registry/secrets/shop/last", None)
    assert found_there == written
    assert states(tmp_path / "member-1") == before


def test_a_lease_that_may_have_run_out_stops_the_run(directory: Directory) -> None:
    config_of = ("--config", directory.folder / "old.yaml", "--decrypt", "--engine", "etcd", "--jobs", "1")
    words = ("rewrite", directory.path, directory.target, *config_of, *directory.etcd)
    seen = run_until(directory.folder, *words, moment="save_now", action="wait", number=4)
    assert seen.programs == ("etcd",)
    assert seen.code == 1
    assert seen.stderr.splitlines()[0] == (
        "snaptool: error: etcd took so long to start that a lease may have run out, and keys with it"
    )
    assert left_behind(directory.folder) == []
    assert not directory.target.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_replay_that_is_ended_leaves_nothing(directory: Directory, number: signal.Signals) -> None:
    words = ("verify", "--boot", directory.path, *directory.etcd)
    seen = run_until(directory.folder, *words, moment="EtcdClient.save", action="signal", number=number)
    assert seen.programs == ("etcd",)
    assert seen.code == (-9 if number == signal.SIGKILL else 128 + number)
    assert eventually(lambda: left_behind(directory.folder) == [])
    assert states(directory.path) == directory.before


def test_a_directory_without_a_wal_is_read_as_its_db(directory: Directory, etcd_binaries: EtcdBinaries) -> None:
    for file in (directory.path / "member" / "wal").iterdir():
        file.unlink()
    with open_snapshot(directory.path) as found, replayed(found, etcd_binaries) as source:
        assert source is found
        assert found.path == directory.path / "member" / "snap" / "db"


def test_a_damaged_wal_is_one_error(directory: Directory) -> None:
    (wal,) = (directory.path / "member" / "wal").glob("*.wal")
    damaged = bytearray(wal.read_bytes())
    damaged[200:600] = bytes(byte ^ 0xFF for byte in damaged[200:600])
    wal.write_bytes(damaged)
    directory.before = states(directory.path)
    result = directory.rewrite("--engine", "etcd", *directory.etcd)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 2
    assert result.stderr.startswith("snaptool: error: etcd ended ")
    assert not directory.target.exists()


def test_a_directory_where_nothing_reached_the_db(etcd_binaries: EtcdBinaries, tmp_path: Path) -> None:
    with member(etcd_binaries, tmp_path) as server:
        client = connected(tmp_path)
        client.put(key(1), seal(plaintext(1), os.urandom(16)))
        server.send_signal(signal.SIGKILL)
        client.close()
    with open_snapshot(tmp_path / "member-1") as found, replayed(found, etcd_binaries, parent=tmp_path) as source:
        assert [one.key for one in LiveKeys(source.snapshot)] == [key(1)]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["member-1"]


def test_no_room_for_the_copy_is_one_error(directory: Directory, scratch_parent: Path) -> None:
    # A limit on file sizes stands in for a full disk, as in test_keeper.py. The WAL is larger than this one.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, before[1]))
    try:
        with (
            open_snapshot(directory.path) as found,
            pytest.raises(ScratchError, match=r"cannot copy to the scratch directory \S+: File too large") as failure,
            replayed(found, directory.binaries, parent=scratch_parent),
        ):
            pytest.fail("the block must not run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert failure.value.hint.startswith("set TMPDIR to a directory on a disk with more room")


def test_a_server_counts_as_started_when_its_log_is_applied(every_etcd: EtcdBinaries, tmp_path: Path) -> None:
    """Reads of one member, and snapshots, do not wait for that; only what goes through the log does."""
    both = ("member-1", "member-2")
    with member(every_etcd, tmp_path, both[0], both):
        with member(every_etcd, tmp_path, both[1], both):
            client = connected(tmp_path)
            client.put(key(1), plaintext(1))
            revision = client.status().revision
            assert client.has_caught_up()
            assert client.status().revision == revision
        assert client.can_read()
        assert not client.has_caught_up(), "nothing is applied any more"
        client.close()
