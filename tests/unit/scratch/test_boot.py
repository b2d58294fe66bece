"""A booted copy against what was read: equal stores have no difference, and each difference is named."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import time
from pathlib import Path

import pytest

from snaptool.errors import ScratchError
from snaptool.scratch import AuthEnabled, Drift, EtcdBinaries, Expected, ScratchEtcd, ServedKey, boot
from snaptool.scratch.client import EtcdClient
from tests.support.etcd import GOLDEN, saved

LEASE = 0x77


def digest(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()[:16]


def seed(client: EtcdClient) -> list[ServedKey]:
    """Write a small history; what must be served afterwards follows from etcd's rules, not from asking."""
    client.grant_lease(1000, LEASE)
    client.put(b"/a", b"old")  # revision 2
    client.put(b"/a", b"secret-new", lease=LEASE)  # 3
    client.write([(b"/b", b""), (b"/c", b"x" * 5000)])  # 4
    client.delete(b"/b")  # 5
    client.put(b"/b", b"again")  # 6
    return [
        ServedKey(key=b"/a", value=b"secret-new", create_revision=2, mod_revision=3, version=2, lease=LEASE),
        ServedKey(key=b"/b", value=b"again", create_revision=6, mod_revision=6, version=1, lease=0),
        ServedKey(key=b"/c", value=b"x" * 5000, create_revision=4, mod_revision=4, version=1, lease=0),
    ]


def test_equal_store_has_no_difference(scratch_etcd: ScratchEtcd) -> None:
    client = scratch_etcd.client()
    keys = seed(client)
    expected = Expected(revision=6, hashkv=client.hashkv().hash, compact_revision=-1, leases={LEASE: 1000})
    assert list(boot.compare(client, expected, keys)) == []


def test_golden_file_has_the_hash_of_its_vectors(etcd_binaries: EtcdBinaries, scratch_parent: Path) -> None:
    with ScratchEtcd.restore(GOLDEN / "tiny-3.4.db", binaries=etcd_binaries, parent=scratch_parent) as server:
        client = server.client()
        leases = {5500762167215224408: 86400}
        expected = Expected(revision=89, hashkv=1809503574, compact_revision=82, leases=leases)
        served = [key for page in client.pages(revision=89) for key in page]
        assert list(boot.compare(client, expected, served)) == []


def test_every_difference_is_named_and_no_value_shown(scratch_etcd: ScratchEtcd) -> None:
    client = scratch_etcd.client()
    a, b, c = seed(client)
    expected = Expected(revision=7, hashkv=1, compact_revision=3, leases={LEASE: 999, 0x78: 5})
    keys = [
        dataclasses.replace(a, value=b"canary", create_revision=1, mod_revision=2, version=9, lease=0),
        dataclasses.replace(b, key=b"/aa"),
        c,
        dataclasses.replace(c, key=b"/d"),
    ]
    said = [str(difference) for difference in boot.compare(client, expected, keys)]
    served_hash = client.hashkv().hash
    assert said == [
        "revision should be 7, etcd serves 6",
        "compacted revision should be 3, etcd serves -1",
        f"HashKV should be 1, etcd serves {served_hash}",
        "TTL of lease 77 should be 999 seconds, etcd serves 1000 seconds",
        "TTL of lease 78 should be 5 seconds, etcd serves absent",
        "create revision of /a should be 1, etcd serves 2",
        "mod revision of /a should be 2, etcd serves 3",
        "version of /a should be 9, etcd serves 2",
        f"lease of /a should be 0, etcd serves {LEASE}",
        (
            f"value of /a should be 6 bytes with SHA-256 {digest(b'canary')}, etcd serves 10 bytes with SHA-256"
            f" {digest(b'secret-new')}"
        ),
        "key of /aa should be present, etcd serves nothing",
        "key of /b should be absent, etcd serves revision 6",
        "key of /d should be present, etcd serves nothing",
    ]


def test_pages_give_every_key_once_in_order(scratch_etcd: ScratchEtcd) -> None:
    client = scratch_etcd.client()
    keys = [f"/k/{number:05}".encode() for number in range(1500)]
    keys.insert(200, keys[199] + b"\0")  # the first page has 200 keys, and this is the nearest key behind them
    for start in range(0, len(keys), 100):
        client.write([(key, key * 40) for key in keys[start : start + 100]])
    pages = list(client.pages(revision=0))
    assert [key.key for page in pages for key in page] == keys
    assert len(pages) > 1
    assert all(key.value == key.key * 40 for page in pages for key in page)


def test_exercise_works_the_copy_and_leaves_its_keys(scratch_etcd: ScratchEtcd) -> None:
    client = scratch_etcd.client()
    seed(client)
    before = list(client.pages(revision=0))
    boot.exercise(client)
    assert list(client.pages(revision=0)) == before
    assert client.status().revision == 8
    assert client.hashkv().compact_revision == 8


def test_leases_are_kept_alive_beyond_their_ttl(scratch_etcd: ScratchEtcd) -> None:
    client = scratch_etcd.client()
    lease = client.grant_lease(2)
    client.put(b"/leased", b"v", lease=lease)
    with boot.kept_alive(client, {lease: 2}):
        time.sleep(4)
        assert client.get(b"/leased") is not None
        assert client.status().revision == 2


def test_a_lease_that_has_ended_cannot_be_kept_alive(scratch_etcd: ScratchEtcd) -> None:
    with (
        pytest.raises(Drift, match="lease 99 ran out on the scratch copy"),
        boot.kept_alive(scratch_etcd.client(), {0x99: 2}),
    ):
        pytest.fail("the block must not run")


def test_nospace_alarm_in_the_file_is_taken_back(
    scratch_etcd: ScratchEtcd, etcd_binaries: EtcdBinaries, scratch_parent: Path
) -> None:
    seed(scratch_etcd.client())
    scratch_etcd.client().raise_nospace_alarm()
    stream = memoryview(saved(scratch_etcd))
    with ScratchEtcd.restore(stream, binaries=etcd_binaries, parent=scratch_parent) as server:
        assert server.client().alarms() == ["NOSPACE"]
        with pytest.raises(ScratchError, match="etcd refused put: database space exceeded"):
            server.client().put(b"k", b"v")
        boot.exercise(server.client())
        assert server.client().alarms() == []


def test_authentication_in_the_file_is_recognised(
    scratch_etcd: ScratchEtcd, etcd_binaries: EtcdBinaries, scratch_parent: Path, tmp_path: Path
) -> None:
    seed(scratch_etcd.client())

    def etcdctl(*arguments: str) -> None:
        assert etcd_binaries.etcdctl is not None
        command: list[str | Path] = [etcd_binaries.etcdctl, "--endpoints", scratch_etcd.endpoint, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    etcdctl("user", "add", "root:root-password")
    etcdctl("user", "grant-role", "root", "root")
    etcdctl("auth", "enable")
    etcdctl("--user", "root:root-password", "snapshot", "save", str(tmp_path / "auth.db"))
    with ScratchEtcd.restore(tmp_path / "auth.db", binaries=etcd_binaries, parent=scratch_parent) as server:
        assert server.client().status().revision == 6
        expected = Expected(revision=6, hashkv=0, compact_revision=-1, leases={})
        with pytest.raises(AuthEnabled, match="authentication switched on") as failure:
            list(boot.compare(server.client(), expected, []))
        assert "--engine direct" in failure.value.hint
