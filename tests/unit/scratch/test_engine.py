"""Rewriting as a client: what changes, what stays, and that drift of any kind stops the run."""

from __future__ import annotations

import io
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from snaptool.errors import ScratchError
from snaptool.scratch import SAFE_TTL, Change, Drift, EtcdBinaries, ScratchEtcd, ServedKey, WatchEvent, engine
from snaptool.scratch.client import EtcdClient
from tests.support.etcd import saved

LEASE = 0x55


def upper(page: list[ServedKey]) -> Iterator[Change]:
    """Rewrite every value in capitals; delete what says so; leave numbers alone."""
    for served in page:
        if served.value == b"lost":
            yield Change(served.key, served.mod_revision, None)
        elif not served.value.isdigit():
            yield Change(served.key, served.mod_revision, served.value.upper(), served.lease)


def seed(client: EtcdClient) -> dict[int, int]:
    client.grant_lease(SAFE_TTL, LEASE)
    client.put(b"/a", b"first life")  # 2
    client.put(b"/a", b"plain text", lease=LEASE)  # 3
    client.write([(b"/b", b"lost"), (b"/c", b"42")])  # 4
    return {LEASE: SAFE_TTL}


def ignore(_: int) -> None:
    pass


def test_values_change_leases_stay_history_goes(
    scratch_etcd: ScratchEtcd, etcd_binaries: EtcdBinaries, scratch_parent: Path
) -> None:
    client = scratch_etcd.client()
    leases = seed(client)
    seen: list[int] = []
    done = engine.rewrite(client, upper, revision=4, leases=leases, progress=seen.append)
    assert done == engine.Rewritten(old_revision=4, new_revision=5, read=3, written=1, deleted=1)
    assert seen == [3]
    assert list(client.events(5, 5)) == [
        WatchEvent(key=b"/a", value=b"PLAIN TEXT", mod_revision=5, deleted=False),
        WatchEvent(key=b"/b", value=b"", mod_revision=5, deleted=True),
    ]
    sink = io.BytesIO()
    assert engine.finish(client, done, leases, sink) == len(sink.getvalue())
    assert b"plain text" not in sink.getvalue()
    assert b"first life" not in sink.getvalue()
    with ScratchEtcd.restore(memoryview(sink.getvalue()), binaries=etcd_binaries, parent=scratch_parent) as server:
        assert [key for page in server.client().pages(revision=0) for key in page] == [
            ServedKey(key=b"/a", value=b"PLAIN TEXT", create_revision=2, mod_revision=5, version=3, lease=LEASE),
            ServedKey(key=b"/c", value=b"42", create_revision=4, mod_revision=4, version=1, lease=0),
        ]
        assert server.client().lease_ttl(LEASE)[2] == [b"/a"]
        assert server.client().status().revision == 5


def test_many_keys_go_in_bounded_transactions(scratch_etcd: ScratchEtcd) -> None:
    client = scratch_etcd.client()
    for start in range(0, 1000, 100):
        client.write([(f"/k/{number:04}".encode(), b"v%d" % number) for number in range(start, start + 100)])
    done = engine.rewrite(client, upper, revision=11, leases={}, progress=ignore)
    assert (done.read, done.written) == (1000, 1000)
    assert done.new_revision == 11 + 2 + 7  # a page of 200 is 128 and 72, the next page of 800 is 6 times 128 and 32
    values = {key.key: key.value for page in client.pages(revision=0) for key in page}
    assert values == {f"/k/{number:04}".encode(): b"V%d" % number for number in range(1000)}


def test_large_values_go_in_small_transactions(scratch_etcd: ScratchEtcd) -> None:
    client = scratch_etcd.client()
    client.write([(f"/{number}".encode(), b"v" * 400_000) for number in range(5)])
    done = engine.rewrite(client, upper, revision=2, leases={}, progress=ignore)
    assert done.new_revision == 2 + 3  # two of 400,000 bytes fit into a mebibyte


def test_a_foreign_write_stops_the_run(scratch_etcd: ScratchEtcd) -> None:
    client = scratch_etcd.client()
    leases = seed(client)

    def interfering(page: list[ServedKey]) -> Iterable[Change]:
        client.put(b"/other", b"x")
        return upper(page)

    with pytest.raises(Drift, match="went from revision 4 to 6 in one step"):
        engine.rewrite(client, interfering, revision=4, leases=leases, progress=ignore)


def test_a_key_changed_meanwhile_is_not_overwritten(scratch_etcd: ScratchEtcd) -> None:
    client = scratch_etcd.client()
    leases = seed(client)

    def interfering(page: list[ServedKey]) -> Iterable[Change]:
        client.put(b"/a", b"newer")
        return upper(page)

    with pytest.raises(Drift, match="no longer at the revision it was read at"):
        engine.rewrite(client, interfering, revision=4, leases=leases, progress=ignore)
    served = client.get(b"/a")
    assert served is not None
    assert served.value == b"newer"
    assert client.get(b"/b") is not None


def test_a_lease_that_runs_out_stops_the_run(
    scratch_etcd: ScratchEtcd, etcd_binaries: EtcdBinaries, scratch_parent: Path
) -> None:
    lease = scratch_etcd.client().grant_lease(2)
    scratch_etcd.client().put(b"/leased", b"short")
    scratch_etcd.client().put(b"/leased", b"shorter", lease=lease)
    stream = memoryview(saved(scratch_etcd))
    with ScratchEtcd.restore(stream, binaries=etcd_binaries, parent=scratch_parent) as server:
        client = server.client()

        def slow(_: list[ServedKey]) -> Iterable[Change]:
            deadline = time.monotonic() + 20
            while client.get(b"/leased") is not None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            return []

        with pytest.raises(Drift, match=f"leases are not those of the snapshot: {lease:x}"):
            engine.rewrite(client, slow, revision=3, leases={lease: 2}, progress=ignore)
        with pytest.raises(Drift, match="the scratch store is at revision 4, the snapshot at 3"):
            engine.rewrite(client, upper, revision=3, leases={lease: 2}, progress=ignore)


def test_running_leases_last_until_the_store_is_saved(
    scratch_etcd: ScratchEtcd, etcd_binaries: EtcdBinaries, scratch_parent: Path
) -> None:
    client = scratch_etcd.client()
    lease = client.grant_lease(2)
    client.put(b"/leased", b"short", lease=lease)
    time.sleep(1.2)  # of its 2 seconds
    sink = io.BytesIO()
    assert engine.save_now(client, sink) == 2
    assert client.lease_ttl(lease)[1] >= 1  # it would be over by now
    with ScratchEtcd.restore(memoryview(sink.getvalue()), binaries=etcd_binaries, parent=scratch_parent) as server:
        assert server.client().lease_ttl(lease)[0] == 2
        assert server.client().get(b"/leased") is not None


def test_etcd_killed_during_the_rewrite_is_one_error(scratch_etcd: ScratchEtcd) -> None:
    client = scratch_etcd.client()
    leases = seed(client)

    def killing(page: list[ServedKey]) -> Iterable[Change]:
        os.kill(scratch_etcd.pid, signal.SIGKILL)
        return upper(page)

    with pytest.raises(ScratchError, match="etcd refused txn"):
        engine.rewrite(client, killing, revision=4, leases=leases, progress=ignore)


def test_etcd_killed_during_the_save_is_one_error(scratch_etcd: ScratchEtcd) -> None:
    client = scratch_etcd.client()
    client.write([(f"/{number}".encode(), os.urandom(100_000)) for number in range(200)])

    class Killing:
        def write(self, _: bytes, /) -> None:
            os.kill(scratch_etcd.pid, signal.SIGKILL)
            time.sleep(0.2)

    with pytest.raises(ScratchError, match="etcd refused snapshot"):
        client.save(Killing())


def test_data_directory_serves_what_only_its_wal_holds(
    scratch_etcd: ScratchEtcd, etcd_binaries: EtcdBinaries, scratch_parent: Path, tmp_path: Path
) -> None:
    scratch_etcd.client().put(b"/early", b"in the db")
    time.sleep(0.3)  # etcd commits to the db every 100 ms
    scratch_etcd.client().put(b"/late", b"in the WAL alone")
    os.kill(scratch_etcd.pid, signal.SIGSTOP)
    shutil.copytree(scratch_etcd.directory / "data", tmp_path / "data")
    os.kill(scratch_etcd.pid, signal.SIGCONT)
    assert b"in the WAL alone" not in (tmp_path / "data/member/snap/db").read_bytes()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    with ScratchEtcd.data_dir(
        tmp_path / "data", force_new_cluster=False, binaries=etcd_binaries, parent=scratch_parent
    ) as server:
        late = server.client().get(b"/late")
        assert late is not None
        assert late.value == b"in the WAL alone"
        assert server.client().put(b"/new", b"it lives") == 4
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before


def test_data_directory_in_use_is_refused(
    scratch_etcd: ScratchEtcd, etcd_binaries: EtcdBinaries, scratch_parent: Path
) -> None:
    with pytest.raises(ScratchError, match="an etcd is running on") as failure:
        ScratchEtcd.data_dir(
            scratch_etcd.directory / "data", force_new_cluster=False, binaries=etcd_binaries, parent=scratch_parent
        )
    assert "etcdctl snapshot save" in failure.value.hint
    with pytest.raises(ScratchError, match=r"cannot read .*: No such file or directory"):
        ScratchEtcd.data_dir(
            scratch_etcd.directory / "absent", force_new_cluster=False, binaries=etcd_binaries, parent=scratch_parent
        )
