"""What platforms put around a snapshot: the vectors, and cases by number; docs/formats/containers.md."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from snaptool import open_snapshot
from snaptool.containers.unwrap import Unpacking
from snaptool.etcd import decode_key_value, decode_revision_key
from snaptool.operations.boot import boot_check
from snaptool.scratch import find_etcd
from tests.support.cli import GOLDEN, Ran, Snaptool

VECTORS = GOLDEN / "containers"
TABLE = json.loads((VECTORS / "containers.json").read_text())
EXPECTED = {vector["file"]: vector["expect"] for vector in TABLE["vectors"]}
OMNI_KEY = bytes(range(0x20, 0x40))
EXITS = {
    "container_encrypted": 2,
    "container_method": 2,
    "container_ambiguous": 2,
    "container_target": 2,
    "container_no_space": 1,
    "delta_only": 2,
    "omni_version": 2,
}
"""The codes whose exit code is not 4. Source: docs/formats/containers.md, "Error codes"."""


def opened_bytes(path: Path, **how: Any) -> bytes:
    with open_snapshot(path, Unpacking(**how)) as opened:
        return bytes(opened.source.buffer)


def inspect(snaptool: Snaptool, path: Path | str, *words: str | Path, stdin: bytes = b"") -> Ran:
    return snaptool("inspect", path, "-o", "json", *words, stdin=stdin)


def omni_key(snaptool: Snaptool) -> tuple[str, Path]:
    return "--omni-key-file", snaptool.write("omni.key", OMNI_KEY.hex())


def is_as_expected(ran: Ran, expect: dict[str, Any]) -> None:
    if "error" in expect:
        assert ran.json["error"]["code"] == expect["error"], ran.text
        assert ran.code == EXITS.get(expect["error"], 4), ran.text
        assert ran.json["error"]["remedy"], "every refusal says what to do next"
        return
    found = ran.json
    assert found["file"]["trailer"] == expect["trailer"]
    assert found["file"]["size"] == expect["size"]
    if expect["path"]:
        assert found["container"]["layers"] == expect["path"]
        assert found["container"]["unpacked_size"] == expect["size"]
    else:
        assert found["container"] is None


CASES = {
    1: ["plain/etcd-snapshot-node-1-1767323045"],
    2: ["plain/member-snap-db"],
    4: ["plain/empty.db", "stream/empty-body.gz"],
    6: ["stream/two-members.db.gz"],
    7: ["stream/trailing-zeros.db.gz", "stream/trailing-garbage.db.gz"],
    8: ["stream/truncated.db.gz", "stream/no-gzip-trailer.db.gz"],
    9: ["stream/crc-wrong.db.gz", "stream/isize-wrong.db.gz"],
    10: ["stream/two-frames.db.zst", "stream/go-stream.db.zst"],
    11: ["stream/truncated.db.zst"],
    12: ["stream/window-2GiB.db.zst"],
    13: ["stream/two-streams.db.xz"],
    14: ["stream/dict-1GiB.db.xz", "stream/truncated.db.xz"],
    15: ["stream/cli.db.bz2", "stream/two-streams.db.bz2", "stream/lzma-alone.db.lzma"],
    16: ["stream/wrong-suffix.db.zst", "stream/no-suffix"],
    19: ["stream/truncated-db-inside.gz"],
    20: ["stream/not-a-snapshot.gz"],
    21: ["stream/bare-db.gz"],
    22: ["zip/k3s/etcd-snapshot-node-1-1767323045.zip"],
    23: [f"zip/{folder}/c-abc12-rl-7xk2p_2026-01-02T03-04-05Z.zip" for folder in ("rke1", "rke1-no-state")],
    24: ["zip/stored.zip", "zip/bzip2.zip", "zip/lzma.zip", "zip/zip64.zip"],
    25: ["zip/zipcrypto.zip", "zip/aes256.zip"],
    28: ["zip/symlink.zip", "zip/symlink-beside.zip"],
    29: ["zip/dirs-and-junk.zip"],
    30: ["zip/crc-wrong.zip", "zip/size-lies.zip"],
    31: ["zip/truncated.zip", "zip/prefixed.zip"],
    32: ["zip/zip-in-zip.zip", "zip/gz-in-zip.zip", "zip/empty.zip", "zip/no-snapshot.zip"],
    33: ["tar/charmed-plain.tar", "tar/charmed/etcd-snapshot-2026-01-02-03.04.05.tar.gz"],
    34: ["tar/xz.tar.xz", "tar/bz2.tar.bz2", "tar/zst.tar.zst"],
    36: ["tar/symlink.tar.gz", "tar/hardlink.tar.gz", "tar/device.tar.gz"],
    37: ["tar/sparse-8GiB.tar.gz"],
    39: ["tar/truncated.tar.gz", "tar/no-end-blocks.tar.gz"],
    42: ["tar/vcluster-etcd.tar.gz", "tar/k0s_backup_2026-01-02T03_04_05_000Z.tar.gz"],
    45: [
        *(f"notetcd/{name}.tar.gz" for name in ("velero", "rancher-backup", "vcluster-keyvalue", "k0s-kine")),
        *("notetcd/microk8s/backup-2026-01-02-03-04-05.tar.gz", "notetcd/state.db"),
    ],
    46: ["notetcd/openssl.enc", "notetcd/gpg-symmetric.gpg", "notetcd/age-passphrase.age"],
}
"""The cases that one look at a vector decides; the others have tests of their own, named by number."""
NUMBERS = {name: number for number, names in CASES.items() for name in names}


@pytest.mark.parametrize(
    "name", EXPECTED, ids=[f"case {NUMBERS[name]}: {name}" if name in NUMBERS else name for name in EXPECTED]
)
def test_every_vector_gives_its_path_or_its_error(snaptool: Snaptool, name: str) -> None:
    words = omni_key(snaptool) if name.startswith("omni/") else ()
    is_as_expected(inspect(snaptool, VECTORS / name, *words), EXPECTED[name])


def test_vectors_of_every_case_are_there() -> None:
    assert set(NUMBERS) <= set(EXPECTED)


def test_every_case_has_a_test_that_has_its_number() -> None:
    """The 70 cases of the specification, by the names of tests and the table above."""
    tests = Path(__file__).parents[1]
    files = [*tests.glob("cli/test_containers*.py"), *tests.glob("cli/test_embedded*.py"), tests / "cli/test_kine.py"]
    files += [*tests.glob("unit/embedded/*.py"), tests / "unit/providers/test_config_forms.py"]
    named = re.findall(r"(?m)^def test_(?:case_)?((?:\d\d_)+)", "".join(file.read_text() for file in files))
    numbers = {int(number) for one in named for number in one.split("_") if number}
    assert numbers | set(CASES) == set(range(1, 71))


@pytest.mark.parametrize("command", ["inspect", "list", "verify", "get", "rewrite", "repair"])
def test_70_the_source_stays_untouched(snaptool: Snaptool, command: str) -> None:
    source = snaptool.write("backup.zip", (VECTORS / "zip/k3s/etcd-snapshot-node-1-1767323045.zip").read_bytes())
    before = source.read_bytes(), source.stat().st_mtime_ns
    new = snaptool.folder / "new.db"
    words: dict[str, list[str | Path]] = {
        "get": ["namespace", "absent"],
        "rewrite": [new, "--decrypt"],
        "repair": [new],
    }
    made = [new] if command == "repair" else []
    snaptool(command, source, *words.get(command, []), makes=made)
    assert (source.read_bytes(), source.stat().st_mtime_ns) == before


@pytest.mark.parametrize("name", [name for name, expect in EXPECTED.items() if "sha256" in expect])
def test_every_vector_gives_the_very_bytes(name: str) -> None:
    found = opened_bytes(VECTORS / name, omni_key=OMNI_KEY)
    assert hashlib.sha256(found).hexdigest() == EXPECTED[name]["sha256"]


@pytest.mark.parametrize(
    "name",
    [
        "stream/cli.db.gz",
        "stream/two-streams.db.xz",
        "zip/k3s/etcd-snapshot-node-1-1767323045.zip",
        "zip/zip-in-zip.zip",
        "tar/gz-inside.tar.gz",
        "tar/charmed-plain.tar",
        "omni/no-secretbox.snapshot",
        "stream/bomb-64MiB.db.gz",
        "stream/truncated.db.gz",
    ],
)
def test_containers_may_come_from_stdin(snaptool: Snaptool, name: str) -> None:
    words = omni_key(snaptool) if name.startswith("omni/") else ()
    is_as_expected(inspect(snaptool, "-", *words, stdin=(VECTORS / name).read_bytes()), EXPECTED[name])


def test_03_part_file_is_said_to_be_an_unfinished_save(snaptool: Snaptool) -> None:
    ran = inspect(snaptool, VECTORS / "plain/etcd-snapshot-node-1-1767323045.part")
    assert "unfinished `etcdctl snapshot save`" in ran.json["error"]["remedy"]


def test_05_three_writers_of_gzip_give_the_same(snaptool: Snaptool) -> None:
    found = {opened_bytes(VECTORS / f"stream/{name}.db.gz") for name in ("cli", "go", "named")}
    assert {hashlib.sha256(one).hexdigest() for one in found} == {TABLE["inner"]["k3s"]}
    assert snaptool.folder.exists()


def test_17_three_layers_are_opened_and_a_fourth_is_refused(snaptool: Snaptool) -> None:
    three = snaptool.write("three.gz", gzip.compress((VECTORS / "stream/gz-in-gz.db.gz").read_bytes()))
    assert inspect(snaptool, three).json["container"]["layers"] == ["gzip"] * 3
    four = snaptool.write("four.gz", gzip.compress(three.read_bytes()))
    ran = inspect(snaptool, four)
    assert (ran.code, ran.json["error"]["code"]) == (4, "container_too_deep")


def test_26_entry_takes_one_of_two(snaptool: Snaptool) -> None:
    two = VECTORS / "zip/two-snapshots.zip"
    ran = inspect(snaptool, two)
    assert "a.db (28,704 bytes, revision 13); b.db (28,672 bytes, revision 13)" in ran.json["error"]["problem"]
    assert "--entry" in ran.json["error"]["remedy"]
    ran = inspect(snaptool, two, "--entry", "b.db")
    assert ran.json["container"]["layers"] == ["zip:b.db"]
    assert ran.json["file"]["trailer"] == "missing"
    assert inspect(snaptool, two, "--entry", "c.db").json["error"]["code"] == "container_no_entry"
    same = inspect(snaptool, VECTORS / "zip/same-name-twice.zip", "--entry", "etcd-snapshot-node-1-1767323045")
    assert same.json["error"]["code"] == "container_ambiguous"


@pytest.mark.parametrize("name", ["zip/dotdot.zip", "tar/dotdot.tar.gz", "tar/absolute.tar.gz"])
def test_27_35_names_that_leave_the_directory_write_nothing(snaptool: Snaptool, name: str) -> None:
    inside = snaptool.folder / "a" / "b" / "c"
    inside.mkdir(parents=True)
    source = Path(shutil.copy2(VECTORS / name, inside))
    assert inspect(snaptool, source).json["file"]["trailer"] == "ok"  # the runner sees every file below its folder


def test_38_entry_takes_one_of_a_tar(snaptool: Snaptool) -> None:
    two = VECTORS / "tar/two-snapshots.tar.gz"
    for entry, trailer in (("old/snapshot.db", "missing"), ("new/snapshot.db", "ok")):
        ran = inspect(snaptool, two, "--entry", entry)
        assert (ran.json["container"]["layers"][1], ran.json["file"]["trailer"]) == (f"tar:{entry}", trailer)


def test_40_the_checksum_around_a_tar_is_looked_at(snaptool: Snaptool) -> None:
    data = bytearray((VECTORS / "tar/kubespray.tar.gz").read_bytes())
    data[-6] ^= 1  # the CRC; the last four bytes are the size
    ran = inspect(snaptool, snaptool.write("flipped.tar.gz", bytes(data)))
    assert (ran.code, ran.json["error"]["code"]) == (4, "container_corrupt")


def test_41_a_wal_beside_the_db_is_mentioned(snaptool: Snaptool) -> None:
    ran = snaptool("inspect", VECTORS / "tar/data-dir.tar.gz")
    assert "WAL" in ran.stderr


def test_43_openshift_directory(snaptool: Snaptool) -> None:
    ran = inspect(snaptool, VECTORS / "openshift/dir")
    assert ran.json["container"]["layers"] == ["directory:snapshot_2026-01-02_030405.db"]
    assert [one["role"] for one in ran.json["container"]["entries"]] == ["snapshot", "static_kuberesources"]
    with open_snapshot(VECTORS / "openshift/dir") as opened:
        assert hashlib.sha256(opened.source.buffer).hexdigest() == TABLE["inner"]["openshift"]
        assert opened.container is not None
        name = "static_kuberesources_2026-01-02_030405.tar.gz"
        assert opened.container.read_member(name) == (VECTORS / "openshift/dir" / name).read_bytes()
    with open_snapshot(VECTORS / "openshift/backup.tar.gz") as opened:
        assert opened.container is not None
        assert opened.container.read_member(f"backup/{name}") == (VECTORS / "openshift/dir" / name).read_bytes()


def test_43_openshift_directory_takes_the_newest_pair_as_ls_v_sorts(snaptool: Snaptool) -> None:
    backup = Path(shutil.copytree(VECTORS / "openshift/dir", snaptool.folder / "backup"))
    shutil.copy2(backup / "snapshot_2026-01-02_030405.db", backup / "snapshot_2025-12-31_235959.db")
    ran = inspect(snaptool, backup)
    assert ran.json["container"]["layers"] == ["directory:snapshot_2026-01-02_030405.db"]
    assert "newest of 2" in ran.stderr
    (backup / "static_kuberesources_2026-01-02_030405.tar.gz").unlink()
    assert "not beside it" in inspect(snaptool, backup).stderr


@pytest.mark.parametrize("below", ["", "backups", "backups/etcd", "backups/etcd/main"])
def test_44_kops_store_at_any_level(snaptool: Snaptool, below: str) -> None:
    ran = inspect(snaptool, VECTORS / "kops" / below)
    if below == "backups":  # is not where kOps puts anything to be named
        return
    assert ran.json["container"]["layers"][-1] == "gzip"
    assert "2026-01-02T03:04:05Z, etcd 3.5.30" in ran.stderr


def test_kubespray_s_copy_of_etcd_2_is_not_taken_for_the_snapshot(snaptool: Snaptool) -> None:
    backup = snaptool.folder / "etcd-2026-01-02_03:04:05"
    (backup / "member" / "snap").mkdir(parents=True)
    shutil.copy2(VECTORS / "plain/etcd-snapshot-node-1-1767323045", backup / "snapshot.db")
    shutil.copy2(VECTORS / "plain/member-snap-db", backup / "member/snap/db")
    ran = inspect(snaptool, backup)
    assert (ran.json["file"]["trailer"], ran.json["platform"]) == ("ok", ["k3s", "kubespray"])
    # In any other directory they are those of a member, beside which somebody has put a snapshot.
    backup.rename(snaptool.folder / "data")
    assert inspect(snaptool, snaptool.folder / "data").json["file"]["trailer"] == "missing"


def test_44_kops_takes_the_newest_and_refuses_etcd_2(snaptool: Snaptool) -> None:
    store = Path(shutil.copytree(VECTORS / "kops/backups/etcd/main", snaptool.folder / "main"))
    shutil.copytree(store / "2026-01-02T03:04:05Z-000001", store / "2026-01-02T04:04:05Z-000002")
    ran = inspect(snaptool, store)
    assert ran.json["container"]["layers"][0] == "directory:2026-01-02T04:04:05Z-000002/etcd.backup.gz"
    ran = inspect(snaptool, store, "--entry", "2026-01-02T03:04:05Z-000001")
    assert ran.json["container"]["layers"][0] == "directory:2026-01-02T03:04:05Z-000001/etcd.backup.gz"
    meta = store / "2026-01-02T04:04:05Z-000002" / "_etcd_backup.meta"
    meta.write_text(meta.read_text().replace("3.5.30", "2.2.1"))
    ran = inspect(snaptool, store)
    assert (ran.code, ran.json["error"]["code"]) == (4, "not_etcd:etcd-v2")


def test_47_omni_gives_its_secrets_to_the_library_and_shows_none(snaptool: Snaptool) -> None:
    for name in ("omni/FFFFFFFF96A8CA5B.snapshot", "omni/no-secretbox.snapshot"):
        with open_snapshot(VECTORS / name, Unpacking(omni_key=OMNI_KEY)) as opened:
            assert opened.container is not None
            assert opened.container.omni is not None
            found = {"aescbc": opened.container.omni.aescbc, "secretbox": opened.container.omni.secretbox}
            assert found == EXPECTED[name]["omni"]
            assert found["aescbc"] not in repr(opened.container)
        ran = inspect(snaptool, VECTORS / name, *omni_key(snaptool))
        assert found["aescbc"] not in ran.text


def test_48_omni_without_its_key_or_with_another(snaptool: Snaptool) -> None:
    backup = VECTORS / "omni/FFFFFFFF96A8CA5B.snapshot"
    ran = inspect(snaptool, backup)
    assert (ran.code, ran.json["error"]["code"]) == (2, "container_encrypted")
    assert "--omni-key-file" in ran.json["error"]["remedy"]
    ran = inspect(snaptool, backup, "--omni-key-file", snaptool.write("wrong.key", bytes(32)))
    assert (ran.code, ran.json["error"]["code"]) == (4, "age_auth")
    ran = inspect(snaptool, backup, "--omni-key-file", snaptool.write("short.key", b"abc"))
    assert (ran.code, ran.json["error"]["code"]) == (2, "omni_key")


# --- Gardener ---

CHAINS = json.loads((VECTORS / "gardener/expected.json").read_text())


def records_of(path: Path, **how: Any) -> list[dict[str, Any]]:
    found = []
    with open_snapshot(path, Unpacking(**how)) as opened:
        for key, stored in opened.snapshot.items(b"key"):
            (revision, tombstone), value = decode_revision_key(key), decode_key_value(stored)
            record: dict[str, Any] = {"rev": f"{revision.main}.{revision.sub}" + "t" * tombstone}
            record["key"] = base64.b64encode(value.key).decode()
            if not tombstone:
                record |= {"create": value.create_revision, "mod": value.mod_revision, "version": value.version}
                record |= {"lease": value.lease, "value_sha256": hashlib.sha256(value.value).hexdigest()}
            found.append(record)
    return found


def chain(snaptool: Snaptool, name: str = "gzip") -> Path:
    return Path(shutil.copytree(VECTORS / "gardener" / name, snaptool.folder / "chain")) / "v2"


def delta(first: int, last: int, events: list[dict[str, Any]], created: int = 1795876700) -> tuple[str, bytes]:
    body = json.dumps([{"etcdEvent": event, "time": "2026-01-02T03:04:05Z"} for event in events]).encode()
    name = f"Incr-{first:08}-{last:08}-{created}.gz"
    return name, gzip.compress(body + hashlib.sha256(body).digest())


def put(key: bytes, revision: int, **numbers: int) -> dict[str, Any]:
    stated = {"create_revision": revision, "mod_revision": revision, "version": 1} | numbers
    return {"kv": {"key": base64.b64encode(key).decode(), "value": "eA==", **stated}}


def deletion(key: bytes, revision: int) -> dict[str, Any]:
    return {"type": 1, "kv": {"key": base64.b64encode(key).decode(), "mod_revision": revision}}


@pytest.mark.parametrize("name", ["gzip", "lzw", "zlib", "none"])
def test_49_gardener_four_codecs_give_what_etcdbrctl_restored(snaptool: Snaptool, name: str) -> None:
    assert records_of(VECTORS / CHAINS[name]["dir"]) == CHAINS[name]["records"]
    ran = inspect(snaptool, VECTORS / "gardener" / name)
    assert ran.json["etcd"]["revision"] == CHAINS[name]["revision"] == 18
    assert ran.json["file"]["trailer"] == "ok"
    assert [one["role"] for one in ran.json["container"]["entries"]] == ["snapshot", "delta", "delta", "delta"]
    assert "leases are not in deltas" in ran.stderr


@pytest.mark.parametrize("name", ["overlap", "full-ahead"])
def test_50_51_gardener_overlap_and_full_ahead(snaptool: Snaptool, name: str) -> None:
    ran = inspect(snaptool, VECTORS / "gardener" / name)
    assert ran.json["etcd"]["revision"] == 18
    assert "in the full snapshot already" in ran.stderr
    assert [one["rev"] for one in records_of(VECTORS / "gardener" / name)] == [
        one["rev"] for one in CHAINS["gzip"]["records"]
    ]


def test_52_gardener_gap_names_the_first_missing_revision(snaptool: Snaptool) -> None:
    files = chain(snaptool)
    (files / "Incr-00000013-00000016-1795876692.gz").unlink()
    ran = inspect(snaptool, files)
    assert (ran.code, ran.json["error"]["code"]) == (4, "delta_gap")
    assert "revision 13" in ran.json["error"]["problem"]


def test_53_gardener_hash(snaptool: Snaptool) -> None:
    files = chain(snaptool)
    name = "Incr-00000013-00000016-1795876692.gz"
    whole = (files / name).read_bytes()
    (files / name).write_bytes((VECTORS / "gardener/sha-wrong" / name).read_bytes())
    assert inspect(snaptool, files).json["error"]["code"] == "delta_hash"
    (files / name).write_bytes(gzip.compress(gzip.decompress(whole) + b"\n"))
    ran = inspect(snaptool, files)
    assert (ran.code, ran.json["error"]["code"]) == (4, "delta_hash")


def test_53_gardener_up_to_the_delta_before_a_broken_one(snaptool: Snaptool) -> None:
    files = chain(snaptool)
    (files / "Incr-00000013-00000016-1795876692.gz").write_bytes(gzip.compress(b"x" * 64))
    assert inspect(snaptool, files).json["error"]["code"] == "delta_hash"
    ran = inspect(snaptool, files, "--entry", "Incr-00000008-00000012-1795876688.gz")
    assert ran.json["etcd"]["revision"] == 12
    ran = inspect(snaptool, files, "--entry", "Full-00000000-00000007-1795876684.gz")
    assert ran.json["error"]["code"] == "delta_hash"


def test_54_gardener_deltas_alone(snaptool: Snaptool) -> None:
    files = chain(snaptool)
    (files / "Full-00000000-00000007-1795876684.gz").unlink()
    for path in (files, files / "Incr-00000008-00000012-1795876688.gz"):
        ran = inspect(snaptool, path)
        assert (ran.code, ran.json["error"]["code"]) == (2, "delta_only"), ran.text
        assert "directory" in ran.json["error"]["remedy"]


SECRET = b"/registry/secrets/shop/s0"  # live at revision 18: created at 2, version 2


@pytest.mark.parametrize(
    ("last", "events", "code"),
    [
        (19, [deletion(b"/not/there", 19)], "delta_event"),
        (19, [put(b"/a", 19), put(b"/a", 19, version=2)], "delta_event"),
        (20, [], "delta_gap"),
        (19, [put(b"/a", 19, version=2)], "delta_event"),
        (19, [put(b"/a", 19, create_revision=3)], "delta_event"),
        (19, [put(SECRET, 19, create_revision=2, version=7)], "delta_event"),
        (20, [put(b"/a", 20)], "delta_gap"),
        (20, [put(b"/a", 19)], "delta_gap"),
        (19, [put(b"/a", 19), put(b"/b", 20)], "delta_event"),
        (20, [put(b"/a", 20), put(b"/b", 19)], "delta_gap"),
        (19, [put(b"", 19)], "delta_format"),
        (19, [{"type": 2, "kv": {"key": "YQ==", "mod_revision": 19}}], "delta_format"),
        (19, [{"kv": {"key": "YQ==", "mod_revision": 19.0}}], "delta_format"),
        (19, [{"kv": {"key": "%%", "mod_revision": 19}}], "delta_format"),
        (19, [{"kv": None}], "delta_format"),
    ],
)
def test_55_gardener_bad_events(snaptool: Snaptool, last: int, events: list[dict[str, Any]], code: str) -> None:
    files = chain(snaptool)
    name, content = delta(19, last, events)
    (files / name).write_bytes(content)
    ran = inspect(snaptool, files)
    assert (ran.code, ran.json["error"]["code"]) == (4, code), ran.text


def test_55_gardener_good_events_follow(snaptool: Snaptool) -> None:
    files = chain(snaptool)
    big = (1 << 63) - 1
    events = [put(SECRET, 19, create_revision=2, version=3, lease=big), put(b"/a", 19), deletion(b"/a", 20)]
    name, content = delta(19, 20, events)
    (files / name).write_bytes(content)
    assert [one["rev"] for one in records_of(files)][-3:] == ["19.0", "19.1", "20.0t"]
    assert "without theirs: 2; leases" in inspect(snaptool, files).stderr


@pytest.mark.parametrize("end", [".gz.final", ".final.gz", ".final"])
def test_gardener_final_snapshots_are_snapshots(snaptool: Snaptool, end: str) -> None:
    chain = Path(shutil.copytree(VECTORS / "gardener/gzip", snaptool.folder / "chain"))
    (full,) = (chain / "v2").glob("Full-*")
    full.rename(full.with_name(full.name.removesuffix(".gz") + end))
    assert inspect(snaptool, chain).json["etcd"]["revision"] == 18


def test_56_gardener_takes_the_newest_full(snaptool: Snaptool) -> None:
    files = chain(snaptool)
    full = files / "Full-00000000-00000007-1795876684.gz"
    later = files / "Full-00000000-00000018-1795876999.gz"
    with open_snapshot(files) as opened:
        later.write_bytes(gzip.compress(bytes(opened.source.buffer)))
    ran = inspect(snaptool, files)
    assert ran.json["container"]["layers"][0] == f"directory:{later.name}"
    assert [one["role"] for one in ran.json["container"]["entries"]] == ["snapshot"]
    again = files / "Full-00000000-00000018-1795877000.gz"
    shutil.copy2(later, again)
    assert inspect(snaptool, files).json["container"]["layers"][0] == f"directory:{again.name}"
    ran = inspect(snaptool, files, "--entry", full.name)
    assert len(ran.json["container"]["entries"]) == 4


def test_57_gardener_chain_is_restored_by_etcdutl(snaptool: Snaptool) -> None:
    target = snaptool.folder / "new.db"
    assert snaptool("repair", VECTORS / "gardener/lzw", target, makes=[target]).code == 0
    assert records_of(target) == CHAINS["lzw"]["records"]
    with open_snapshot(target) as opened:
        assert boot_check(opened.snapshot, target, binaries=find_etcd(None)).differences == ()


# --- platforms ---


@pytest.mark.parametrize(
    ("name", "platform"),
    [
        ("zip/k3s/etcd-snapshot-node-1-1767323045.zip", "k3s"),
        ("plain/etcd-snapshot-node-1-1767323045", "k3s"),
        ("zip/rke1/c-abc12-rl-7xk2p_2026-01-02T03-04-05Z.zip", "rke1"),
        ("openshift/dir", "openshift"),
        ("openshift/backup.tar.gz", "openshift"),
        ("gardener/lzw", "gardener"),
        ("tar/k0s_backup_2026-01-02T03_04_05_000Z.tar.gz", "k0s"),
        ("tar/vcluster-etcd.tar.gz", "vcluster"),
        ("tar/kubespray.tar.gz", "kubespray"),
        ("tar/charmed/etcd-snapshot-2026-01-02-03.04.05.tar.gz", "charmed"),
        ("kops", "kops"),
    ],
)
def test_the_platform_is_named(snaptool: Snaptool, name: str, platform: str) -> None:
    assert platform in inspect(snaptool, VECTORS / name).json["platform"]


def test_a_snapshot_of_no_known_platform_has_none(snaptool: Snaptool) -> None:
    assert inspect(snaptool, snaptool.sample("aescbc-cluster.db")).json["platform"] == []


# --- situations ---

FIELD = GOLDEN / "cases" / "field2"


def test_situation_21_half_a_database_in_a_whole_gzip_is_short(snaptool: Snaptool) -> None:
    store = FIELD / "21-half-in-gzip/store/backups/etcd/main"
    ran = inspect(snaptool, store / "2026-03-01T08:15:00Z-000002")
    assert (ran.code, ran.json["error"]["code"]) == (4, "snapshot_short")
    problem = ran.json["error"]["problem"]
    assert "57,344" in problem
    assert "28,688" in problem
    assert inspect(snaptool, store / "2026-03-01T08:00:00Z-000001").json["file"]["trailer"] == "ok"
    ran = inspect(snaptool, store / "control")
    assert ran.code == 2


def test_situation_21_the_newest_of_a_store_is_half_and_the_one_before_it_can_be_named(snaptool: Snaptool) -> None:
    store = FIELD / "21-half-in-gzip/store"
    ran = inspect(snaptool, store)
    assert ran.json["error"]["code"] == "snapshot_short"
    ran = inspect(snaptool, store, "--entry", "2026-03-01T08:00:00Z-000001")
    assert ran.json["file"]["trailer"] == "ok"


def test_situation_24_directories_are_backups(snaptool: Snaptool) -> None:
    bucket = FIELD / "24-audit-directories/bucket"
    for path in (
        bucket / "garden",
        bucket / "garden/shoot--a--b/etcd-main",
        bucket / "garden/shoot--a--b/etcd-main/v2",
    ):
        ran = inspect(snaptool, path)
        assert (ran.json["etcd"]["revision"], ran.json["platform"]) == (18, ["gardener"])
    ran = snaptool("inspect", bucket / "ocp/2026-01-02", "--embedded-config", "-o", "json")
    assert ran.json["platform"] == ["openshift"]
    assert ran.json["lost"] == []


def test_charmed_kubernetes_copies_a_running_etcd(snaptool: Snaptool) -> None:
    ran = inspect(snaptool, VECTORS / "tar/charmed/etcd-snapshot-2026-01-02-03.04.05.tar.gz")
    assert "snapshot_live_copy" in [one["code"] for one in ran.json["findings"]]


@pytest.mark.parametrize(
    ("content", "says", "helps"),
    [
        (b"kind: EncryptionConfiguration\napiVersion: v1\n", "an EncryptionConfiguration", "--config"),
        (
            b"# ours\napiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n",
            "EncryptionConf",
            "--config",
        ),
        (b'{"kind":"EncryptionConfiguration","resources":[]}', "an EncryptionConfiguration", "--config"),
        (b"apiVersion: v1\nkind: Secret\n", "a YAML manifest", "--config"),
        (b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code></Error>', "object store", "download"),
        (b"<!DOCTYPE html><html>", "HTML", "download"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", "git lfs pull"),
        (b"-----BEGIN CERTIFICATE-----\n", "PEM", "SNAPSHOT"),
        (b'{"items": []}', "JSON", "--config"),
        (b"7z\xbc\xaf\x27\x1c\0\0", "7z", "7z x"),
        (bytes(8192), "zeros", "snapshot"),
        (b"hello world\n", "'hello world", "etcdctl snapshot save"),
    ],
)
def test_what_is_no_snapshot_is_named_by_its_first_bytes(
    snaptool: Snaptool, content: bytes, says: str, helps: str
) -> None:
    ran = inspect(snaptool, snaptool.write("file", content))
    assert (ran.code, ran.json["error"]["code"]) == (4, "container_unknown")
    assert says in ran.json["error"]["problem"]
    assert helps in ran.json["error"]["remedy"]
