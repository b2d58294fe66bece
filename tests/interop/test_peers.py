"""Rewritten snapshots in the hands of others: bbolt, etcdutl, and a real etcd of every line, which lives on them."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from snaptool.bolt import check
from snaptool.etcd import (
    KeyValue,
    Revision,
    Snapshot,
    Trailer,
    decode_key_value,
    decode_revision_key,
    server_generation,
)
from snaptool.kube.keys import parse_key
from snaptool.kube.objects import plausible
from snaptool.operations.opening import open_snapshot
from snaptool.operations.plan import RewriteRequest, Undecryptable
from snaptool.operations.rewrite import repair, rewrite
from snaptool.providers.config.model import EncryptionConfig
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import Keyring
from snaptool.scratch import EtcdBinaries, EtcdFailed, ScratchEtcd, ServedKey
from snaptool.sources import Source
from tests.oracles.judge import Judge
from tests.support.etcd import GOLDEN
from tests.support.peers import BBOLT_VERSIONS, Judged, peer

SAMPLES = Path(__file__).parents[2] / "samples"
NEW_CONFIG = """\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets, configmaps]
  providers:
  - aesgcm: {keys: [{name: new, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}
"""
"""TEST ONLY: the key is not a secret. Without identity: what is not sealed with it cannot be read."""


@dataclass(frozen=True)
class Case:
    """A rewrite of a sample. `old`: configuration of the source; `new`: text of the new one, empty to decrypt."""

    source: str
    old: str
    new: str = NEW_CONFIG
    undecryptable: Undecryptable = Undecryptable.STOP
    compact: bool = False

    def __str__(self) -> str:
        way = "sealed" if self.new else "decrypted"
        return "-".join([self.source, way, *(["compacted"] if self.compact else [])])


DELETE = Undecryptable.DELETE
SAMPLE_CASES = (
    Case("aescbc-cluster", "aescbc"),
    Case("aescbc-cluster", "aescbc", new=""),
    Case("mixed-providers", "mixed"),
    Case("mixed-providers", "mixed", new="", compact=True),
    Case("missing-trailer", "aescbc"),
    Case("lost-key", "lost-key", undecryptable=DELETE),
    Case("lost-key", "lost-key", undecryptable=DELETE, compact=True),
)
TINY = tuple(sorted(GOLDEN.glob("tiny-*.db")))


def config(text: str) -> EncryptionConfig:
    return parse_config(text.encode())


def rewritten(case: Case, target: Path) -> None:
    request = RewriteRequest(
        reading=Keyring([config((SAMPLES / f"{case.old}.yaml").read_text())], plausible=plausible),
        writing=Keyring([config(case.new)] if case.new else [], plausible=plausible),
        decrypt=not case.new,
        undecryptable=case.undecryptable,
        compact=case.compact,
    )
    with open_snapshot(SAMPLES / f"{case.source}.db") as opened:
        report = rewrite(opened, target, request)
    assert report.verified
    assert report.records.rewritten > 0


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case | Path], Path]:
    """Rewrites a sample, or repairs a golden file; each once."""
    folder = tmp_path_factory.mktemp("rewritten")
    made: dict[Case | Path, Path] = {}

    def target(case: Case | Path) -> Path:
        if case not in made:
            path = folder / f"{len(made)}.db"
            if isinstance(case, Case):
                rewritten(case, path)
            else:
                with open_snapshot(case) as opened:
                    repair(opened, path)
            made[case] = path
        return made[case]

    return target


EVERY_TARGET = pytest.mark.parametrize(
    "case", [*SAMPLE_CASES, *TINY], ids=lambda case: case.name if isinstance(case, Path) else str(case)
)


@EVERY_TARGET
@pytest.mark.parametrize("version", BBOLT_VERSIONS)
def test_bbolt_finds_nothing_wrong(
    case: Case | Path, version: str, targets: Callable[[Case | Path], Path], tmp_path: Path, judged: Judged
) -> None:
    program = peer("bbolt", version) / "bbolt"
    database = tmp_path / "db"
    with Source(targets(case)) as source:
        database.write_bytes(memoryview(source.buffer)[: Snapshot(source.buffer).database.size])
    before = database.read_bytes()
    checked = subprocess.run([program, "check", database], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "OK\n")
    assert database.read_bytes() == before
    judged(f"bbolt {version}", "files", 1)


@EVERY_TARGET
def test_snapshot_status_is_what_we_say(
    case: Case | Path,
    every_etcd: EtcdBinaries,
    targets: Callable[[Case | Path], Path],
    tmp_path: Path,
    judged: Judged,
) -> None:
    path = tmp_path / "copy.db"
    shutil.copy(targets(case), path)
    with Source(path) as source:
        status = Snapshot(source.buffer).status()
    stated = json.loads(
        subprocess.run(
            [every_etcd.restorer, "snapshot", "status", "-w", "json", path],
            capture_output=True,
            check=True,
            env={"ETCDCTL_API": "3"},
        ).stdout
    )
    live = every_etcd.version >= (3, 6, 0)
    assert (stated["hash"], stated["revision"], stated["totalSize"]) == (
        status.hash,
        status.revision,
        status.total_size,
    )
    assert stated["totalKey"] == (status.total_key_live if live else status.total_key_records)
    assert stated.get("version", status.version) == status.version
    judged(f"etcd {'.'.join(map(str, every_etcd.version))}", "hashes of files", 1)


# --- booted ---------------------------------------------------------------------------------------------------------


def history(snapshot: Snapshot) -> Iterator[tuple[int, list[ServedKey]]]:
    """What a client gets at each revision that can be asked for, worked out record by record."""
    now: dict[bytes, ServedKey] = {}
    states: dict[int, list[ServedKey]] = {}
    for stored_key, stored_value in snapshot.items(b"key"):
        revision, tombstone = decode_revision_key(stored_key)
        found = decode_key_value(stored_value)
        if tombstone:
            now.pop(found.key, None)
        else:
            now[found.key] = ServedKey(
                key=found.key,
                value=found.value,
                create_revision=found.create_revision,
                mod_revision=found.mod_revision,
                version=found.version,
                lease=found.lease,
            )
        states[revision.main] = [now[key] for key in sorted(now)]
    first, state = max(1, snapshot.finished_compaction or 1), list[ServedKey]()
    for main in range(1, max(states) + 1):
        state = states.get(main, state)
        if main >= first:
            yield main, state


@EVERY_TARGET
def test_etcd_serves_every_revision_and_lives_on(
    case: Case | Path,
    every_etcd: EtcdBinaries,
    targets: Callable[[Case | Path], Path],
    scratch_parent: Path,
    judged: Judged,
) -> None:
    path = targets(case)
    generation = server_generation(*every_etcd.version)
    if isinstance(case, Path) and case.name == "tiny-3.7.db" and every_etcd.version[:2] == (3, 6):
        # From 3.6 on, etcd looks at the storage version in the file; 3.4 and 3.5 do not know of it.
        with pytest.raises(EtcdFailed, match=r'version "3\.7\.0" is not supported'):
            ScratchEtcd.restore(path, binaries=every_etcd, parent=scratch_parent)
        return
    values = 0
    with Source(path) as source, ScratchEtcd.restore(path, binaries=every_etcd, parent=scratch_parent) as server:
        snapshot, client = Snapshot(source.buffer), server.client()
        assert client.status().revision == snapshot.revision_on(generation)
        for main, expected in history(snapshot):
            served = [key for page in client.pages(revision=main) for key in page]
            assert served == expected, main
            values += len(served)
            if main > (snapshot.finished_compaction or 0):
                assert client.hashkv(main).hash == snapshot.hashkv(main, generation).hash, main
        revision = client.put(b"/later", b"written")
        assert revision == snapshot.revision_on(generation) + 1
        client.compact(client.delete(b"/later"))
        client.defragment()
        assert [key for page in client.pages(revision=0) for key in page] == expected
        saved = io.BytesIO()
        client.save(saved)
    after = Snapshot(saved.getvalue())
    assert after.check_trailer() is Trailer.OK
    assert list(check(memoryview(saved.getvalue())[: after.database.size])) == []
    assert after.revision_on(generation) == revision + 1
    judged(f"etcd {'.'.join(map(str, every_etcd.version))}", "values of all revisions", values)


# --- what the API server reads from it --------------------------------------------------------------------------------


def records_of(path: Path) -> dict[Revision, KeyValue]:
    """What was put at each revision."""
    with Source(path) as source:
        records = [
            (decode_revision_key(stored_key), decode_key_value(stored_value))
            for stored_key, stored_value in Snapshot(source.buffer).items(b"key")
        ]
    return {revision: found for (revision, tombstone), found in records if not tombstone}


@pytest.mark.parametrize("case", SAMPLE_CASES, ids=str)
def test_the_api_server_reads_every_revision_as_before(
    case: Case, targets: Callable[[Case | Path], Path], judge: Judge
) -> None:
    old_config = (SAMPLES / f"{case.old}.yaml").read_text()
    nothing = NEW_CONFIG.split("- resources", maxsplit=1)[0] + "- resources: [pods]\n  providers: [{identity: {}}]\n"
    before, after = records_of(SAMPLES / f"{case.source}.db"), records_of(targets(case))
    compared = sealed = 0
    for revision, found in after.items():
        assert replace(found, value=b"") == replace(before[revision], value=b"")
        named = parse_key(found.key)
        if named is None:
            assert found == before[revision]
            continue
        resource = f"{named.resource}.{named.group}" if named.group else named.resource
        was = judge.read(old_config, resource, found.key, before[revision].value)
        now = judge.read(case.new or nothing, resource, found.key, found.value)
        assert (now.value, now.error, now.stale) == (was.value, "", False)
        assert now.value != b""
        compared += 1
        sealed += found.value.startswith(b"k8s:enc:")
    assert (sealed > 0) == bool(case.new)
    assert compared > 10


def test_nothing_of_an_old_key_is_left_when_everything_is_decrypted(targets: Callable[[Case | Path], Path]) -> None:
    for case in SAMPLE_CASES:
        if not case.new:
            assert b"k8s:enc:" in (SAMPLES / f"{case.source}.db").read_bytes()
            assert b"k8s:enc:" not in targets(case).read_bytes()
