"""What the direct reader computes is what a real etcd serves; leases survive any delay."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snaptool.etcd import KeyValue, Lease, Revision, Snapshot, encode_key_value, encode_revision_key
from snaptool.etcd.records import encode_lease, encode_lease_key
from snaptool.operations.boot import boot_check, copy_with_leases, lasting, recorded
from snaptool.scratch import Change, EtcdBinaries, EtcdFailed, ScratchEtcd, ServedKey, engine
from snaptool.scratch.boot import served_ttl
from tests.support.etcd import GOLDEN, saved
from tests.support.history import make_snapshot

SAMPLES = Path(__file__).parents[2] / "samples"
FILES = sorted([*SAMPLES.glob("*.db"), *GOLDEN.glob("tiny-3.[45].db")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_etcd_serves_what_the_reader_computes(every_etcd: EtcdBinaries, scratch_parent: Path, path: Path) -> None:
    snapshot = Snapshot(path.read_bytes())
    report = boot_check(snapshot, path, binaries=every_etcd, parent=scratch_parent)
    assert report.differences == ()
    assert report.keys == snapshot.live().count(1)
    assert report.etcd.startswith("etcd " + ".".join(map(str, every_etcd.version)))


def test_a_file_that_is_not_the_one_read_differs(etcd_binaries: EtcdBinaries, scratch_parent: Path) -> None:
    read, booted = SAMPLES / "aescbc-cluster.db", SAMPLES / "lost-key.db"
    report = boot_check(Snapshot(read.read_bytes()), booted, binaries=etcd_binaries, parent=scratch_parent)
    said = {str(difference) for difference in report.differences}
    assert "key of /registry/secrets/shop/written-last should be absent, etcd serves revision 38" in said
    assert {"HashKV", "key"} <= {difference.what for difference in report.differences}


def test_a_damaged_trailer_does_not_boot(etcd_binaries: EtcdBinaries, scratch_parent: Path) -> None:
    stored = bytearray((SAMPLES / "aescbc-cluster.db").read_bytes())
    stored[-1] ^= 1
    with pytest.raises(EtcdFailed, match="expected sha256"):
        boot_check(Snapshot(bytes(stored)), memoryview(stored), binaries=etcd_binaries, parent=scratch_parent)


@pytest.mark.parametrize("ttl", [-5, 0, 1, 2, 3600])
def test_leases_shorter_than_etcd_has_are_served_at_its_minimum(
    every_etcd: EtcdBinaries, scratch_parent: Path, ttl: int
) -> None:
    """A lease with a TTL below the minimum is raised to it at start, which is no difference."""
    key = b"/registry/events/default/e"
    record = KeyValue(key=key, create_revision=2, mod_revision=2, version=1, lease=7, value=b"leased")
    records = [(encode_revision_key(Revision(2, 0)), encode_key_value(record))]
    stored = make_snapshot(records, {b"lease": {encode_lease_key(7): encode_lease(Lease(7, ttl))}})
    report = boot_check(Snapshot(stored), memoryview(stored), binaries=every_etcd, parent=scratch_parent)
    assert report.differences == ()
    assert served_ttl(ttl) == max(ttl, 1)


def with_leases(server: ScratchEtcd) -> tuple[bytes, list[ServedKey], dict[int, int]]:
    client = server.client()
    leases = {0x10: 2, 0x11: 2, 0x12: 3600}
    for lease, ttl in leases.items():
        client.grant_lease(ttl, lease)
        for number in range(3):
            client.put(f"/{lease:x}/{number}".encode(), b"leased", lease=lease)
    stored = saved(server)
    return stored, [key for page in client.pages(revision=10) for key in page], leases


def test_short_leases_outlast_a_boot_check(
    scratch_etcd: ScratchEtcd, etcd_binaries: EtcdBinaries, scratch_parent: Path
) -> None:
    stored, _, _ = with_leases(scratch_etcd)
    report = boot_check(Snapshot(stored), memoryview(stored), binaries=etcd_binaries, parent=scratch_parent)
    assert report.differences == ()
    assert report.keys == 9


def in_memory(snapshot: Snapshot, change: Callable[[Lease], Lease]) -> bytes:
    sink = io.BytesIO()
    copy_with_leases(snapshot, change, sink)
    return sink.getvalue() + hashlib.sha256(sink.getvalue()).digest()


def test_two_second_leases_survive_a_slow_rewrite_with_their_ttl(
    scratch_etcd: ScratchEtcd, every_etcd: EtcdBinaries, scratch_parent: Path
) -> None:
    stored, keys, leases = with_leases(scratch_etcd)
    source = Snapshot(stored)
    lasting_leases = {lease: lasting(Lease(lease, ttl)).ttl for lease, ttl in leases.items()}

    def slow(page: list[ServedKey]) -> list[Change]:
        time.sleep(3)
        return [Change(key.key, key.mod_revision, b"rewritten", key.lease) for key in page]

    image, sink = memoryview(in_memory(source, lasting)), io.BytesIO()
    with ScratchEtcd.restore(image, binaries=every_etcd, parent=scratch_parent) as server:
        client = server.client()
        done = engine.rewrite(client, slow, revision=10, leases=lasting_leases, progress=lambda _: None)
        engine.finish(client, done, lasting_leases, sink)
    result = in_memory(Snapshot(sink.getvalue()), recorded(source.leases()))
    assert Snapshot(result).leases() == source.leases() == {lease: Lease(lease, ttl) for lease, ttl in leases.items()}
    report = boot_check(Snapshot(result), memoryview(result), binaries=every_etcd, parent=scratch_parent)
    assert report.differences == ()
    with ScratchEtcd.restore(memoryview(result), binaries=every_etcd, parent=scratch_parent) as server:
        served = [key for page in server.client().pages(revision=11) for key in page]
        assert [(key.key, key.lease) for key in served] == [(key.key, key.lease) for key in keys]
        assert {key.value for key in served} == {b"rewritten"}
        assert {lease: server.client().lease_ttl(lease)[0] for lease in leases} == leases
