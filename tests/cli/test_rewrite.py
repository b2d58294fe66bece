"""`snaptool rewrite`: what it writes, what it says, what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from snaptool.etcd import decode_key_value, decode_revision_key
from snaptool.operations.opening import open_snapshot
from snaptool.scratch.server import EtcdBinaries
from tests.support.bolt import TINY
from tests.support.cli import SAMPLES, Snaptool, states
from tests.support.snapshots import config

STATED = {
    "aescbc-cluster.db": ("aescbc.yaml", 0xB5F953B9, 2482416133, 38),
    "missing-trailer.db": ("aescbc.yaml", 0x1AEDD8E4, 3146813120, 21),
    "mixed-providers.db": ("mixed.yaml", 0x88B4D192, 2361726300, 56),
    "lost-key.db": ("lost-key.yaml", 0xA7AD8CC, 3098474809, 38),
}
"""samples/README.md: configuration, status hash, HashKV and revision, as etcd stated them."""
ALL = [sample for sample in STATED if sample != "lost-key.db"]
NEVER, SINCE, LAST = (
    f"/registry/secrets/shop/{name}" for name in ("never-rewritten", "rewritten-since", "written-last")
)

Stored = dict[bytes, bytes]


def stored(path: Path, bucket: bytes = b"key") -> Stored:
    with open_snapshot(path) as opened:
        return dict(opened.snapshot.items(bucket))


def values(path: Path) -> dict[tuple[str, int], bytes]:
    """Stored values by key and revision; tombstones are left out."""
    found = {}
    for key, value in stored(path).items():
        revision, tombstone = decode_revision_key(key)
        if not tombstone:
            record = decode_key_value(value)
            found[record.key.decode(), revision.main] = record.value
    return found


def both(configs: list[str]) -> list[str]:
    return [word for name in configs for word in ("--config", str(SAMPLES / name))]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new.db"


@pytest.mark.parametrize("sample", ALL)
def test_every_value_is_written_under_the_new_key(snaptool: Snaptool, target: Path, sample: str) -> None:
    source, old = snaptool.sample(sample), SAMPLES / STATED[sample][0]
    new = snaptool.write("new.yaml", config("secretbox", resources="secrets, configmaps", name="fresh"))
    ran = snaptool(
        "rewrite", source, target, "--config", old, "--new-config", new, "--force", "-o", "json", makes=[target]
    )
    assert ran.code == 0
    assert ran.stderr == ""
    assert_shape(ran.json)
    for (key, revision), value in values(target).items():
        encrypted = key.startswith(("/registry/secrets/", "/registry/configmaps/"))
        assert value.startswith(b"k8s:enc:secretbox:v1:fresh:") == encrypted, (key, revision)
    assert list(stored(source)) == list(stored(target))


def assert_shape(document: Any) -> None:
    """The JSON of docs/json.md, "`rewrite`"; more keys may be there."""
    assert {
        "source",
        "target",
        "dry_run",
        "engine",
        "records",
        "values",
        "prefixes",
        "lost",
        "deletions",
        "verified",
        "seconds",
    } <= set(document)
    for file in (document["source"], document["target"]):
        assert file is None or {"path", "size", "sha256", "revision", "hash", "hashkv"} == set(file)
    assert {"total", "copied", "rewritten", "deleted"} == set(document["records"])
    for change in document["values"]:
        assert {"resource", "from", "to", "live", "old"} == set(change)
        assert {"provider", "key_name"} == set(change["from"])
        assert change["to"] is None or {"provider", "key_name"} == set(change["to"])
    for lost in document["lost"]:
        assert {"key", "revision", "live", "provider", "key_name", "reason"} <= set(lost)


@pytest.mark.parametrize("sample", list(STATED))
def test_report_states_the_numbers_that_etcd_stated(snaptool: Snaptool, target: Path, sample: str) -> None:
    source = snaptool.sample(sample)
    old, status_hash, hashkv, revision = STATED[sample]
    document = snaptool(
        "rewrite", source, target, "--config", SAMPLES / old, "--decrypt", "--dry-run", "-o", "json"
    ).json
    assert document["source"] == {
        "path": str(source),
        "size": source.stat().st_size,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "revision": revision,
        "hash": status_hash,
        "hashkv": hashkv,
    }


def test_report_counts_values_by_where_they_came_from_and_went_to(snaptool: Snaptool, target: Path) -> None:
    ran = snaptool(
        *("rewrite", snaptool.sample("aescbc-cluster.db"), target),
        *("--config", SAMPLES / "aescbc.yaml", "--new-config", SAMPLES / "secretbox.yaml", "-o", "json"),
        makes=[target],
    )
    document = ran.json
    assert document["engine"] == "direct"
    assert document["dry_run"] is False
    assert document["verified"] is True
    assert document["records"] == {"total": 37, "copied": 26, "rewritten": 11, "deleted": 0}
    assert document["lost"] == []
    (change,) = [change for change in document["values"] if change["resource"] == "secrets"]
    assert change == {
        "resource": "secrets",
        "from": {"provider": "aescbc", "key_name": "key1"},
        "to": {"provider": "secretbox", "key_name": "key1"},
        "live": 9,
        "old": 2,
    }
    assert document["target"]["path"] == str(target)
    assert document["target"]["size"] == target.stat().st_size
    assert document["target"]["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert document["target"]["revision"] == 38


def test_text_ends_with_what_to_do_next(snaptool: Snaptool, target: Path) -> None:
    new = SAMPLES / "secretbox.yaml"
    ran = snaptool(
        *("rewrite", snaptool.sample("aescbc-cluster.db"), target),
        *("--config", SAMPLES / "aescbc.yaml", "--new-config", new),
        makes=[target],
    )
    result, _, following = ran.stdout.partition("\nnext:\n")
    assert "37 records: 26 copied, 11 rewritten, 0 deleted" in result
    assert "read back and verified" in result
    assert f"etcdutl snapshot restore {target} --data-dir" in following
    assert "--bump-revision" in following
    assert "--mark-compacted" in following
    assert f"--encryption-provider-config {new}" in following


@pytest.mark.parametrize("sample", ALL)
def test_target_ends_with_its_sha256_and_only_its_owner_reads_it(snaptool: Snaptool, target: Path, sample: str) -> None:
    source, old = snaptool.sample(sample), SAMPLES / STATED[sample][0]
    assert snaptool("rewrite", source, target, "--config", old, "--decrypt", makes=[target]).code == 0
    whole = target.read_bytes()
    assert whole[-32:] == hashlib.sha256(whole[:-32]).digest()
    assert len(whole) % 4096 == 32
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize("sample", ALL)
@pytest.mark.parametrize("new", ["secretbox", "decrypt"])
def test_etcdutl_states_the_same_hash_and_restores_the_target(
    snaptool: Snaptool, target: Path, etcd_binaries: EtcdBinaries, sample: str, new: str
) -> None:
    source, old = snaptool.sample(sample), SAMPLES / STATED[sample][0]
    writing = ["--decrypt"] if new == "decrypt" else ["--new-config", str(SAMPLES / "secretbox.yaml")]
    ran = snaptool(
        "rewrite", source, target, "--config", old, *writing, "--allow-plaintext", "-o", "json", makes=[target]
    )
    etcdutl: Any = etcd_binaries.etcdutl
    status = json.loads(
        subprocess.run([etcdutl, "snapshot", "status", target, "-w", "json"], check=True, capture_output=True).stdout
    )
    assert status["hash"] == ran.json["target"]["hash"]
    assert status["revision"] == ran.json["target"]["revision"] == STATED[sample][3]
    data = target.parent / "data"
    done = subprocess.run(
        [etcdutl, "snapshot", "restore", target, "--data-dir", data], check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert (data / "member" / "snap" / "db").exists()


@pytest.mark.parametrize("sample", ALL)
def test_decrypt_leaves_plaintext_alone(snaptool: Snaptool, target: Path, sample: str) -> None:
    source, old = snaptool.sample(sample), SAMPLES / STATED[sample][0]
    ran = snaptool("rewrite", source, target, "--config", old, "--decrypt", "-o", "json", makes=[target])
    assert ran.code == 0
    assert b"k8s:enc:" not in target.read_bytes()
    before = values(source)
    for place, value in values(target).items():
        assert value == before[place] or before[place].startswith(b"k8s:enc:")
    # All of it went to identity, which has no key.
    assert [change["to"] for change in ran.json["values"]] == [{"provider": "identity", "key_name": None}] * len(
        ran.json["values"]
    )


@pytest.mark.parametrize("sample", ALL)
def test_other_buckets_and_other_fields_keep_every_byte(snaptool: Snaptool, target: Path, sample: str) -> None:
    source, old = snaptool.sample(sample), SAMPLES / STATED[sample][0]
    snaptool("rewrite", source, target, "--config", old, "--decrypt", makes=[target])
    with open_snapshot(source) as one, open_snapshot(target) as other:
        before, after = one.snapshot.database.buckets(), other.snapshot.database.buckets()
        assert list(before) == list(after)
        for name in before:
            if name != b"key":
                assert list(before[name].items()) == list(after[name].items())
                assert before[name].sequence == after[name].sequence
    for (key, old_value), (new_key, new_value) in zip(stored(source).items(), stored(target).items(), strict=True):
        assert key == new_key
        if b"k8s:enc:" not in old_value:
            assert old_value == new_value


@pytest.mark.parametrize("name", TINY)
def test_identity_rewrite_of_a_golden_snapshot_changes_no_record(snaptool: Snaptool, target: Path, name: str) -> None:
    source = snaptool.sample(name)
    ran = snaptool(
        "rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt", "-o", "json", makes=[target]
    )
    assert ran.code == 0
    assert stored(source) == stored(target)
    assert ran.json["records"]["rewritten"] == 0
    assert ran.json["source"]["hashkv"] == ran.json["target"]["hashkv"]


# --- dry run, report ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", list(STATED))
def test_dry_run_writes_nothing_and_reports_the_same(snaptool: Snaptool, target: Path, sample: str) -> None:
    arguments: list[str | Path] = [
        snaptool.sample(sample),
        target,
        "--config",
        SAMPLES / STATED[sample][0],
        "--decrypt",
        "-o",
        "json",
    ]
    options = ["--undecryptable", "delete"] if sample == "lost-key.db" else []
    dry = snaptool("rewrite", *arguments, *options, "--dry-run")
    real = snaptool("rewrite", *arguments, *options, makes=[target])
    assert dry.code == real.code == 0
    told = dry.json
    assert (told["dry_run"], told["target"]) == (True, None)
    for same in ("source", "engine", "records", "values", "lost", "deletions"):
        assert told[same] == real.json[same]


def test_dry_run_in_text_says_so(snaptool: Snaptool, target: Path) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    ran = snaptool("rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt", "--dry-run")
    assert ran.stdout.endswith("dry run: nothing was written\n")


def test_report_goes_to_a_file_too(snaptool: Snaptool, target: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    source = snaptool.sample("aescbc-cluster.db")
    ran = snaptool(
        *("rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt", "--report", report),
        *("-o", "json"),
        makes=[target, report],
    )
    assert json.loads(report.read_text()) == ran.json
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


def test_report_that_exists_is_refused_before_any_work(snaptool: Snaptool, target: Path) -> None:
    report = snaptool.write("report.json", "{}")
    source = snaptool.sample("aescbc-cluster.db")
    ran = snaptool("rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt", "--report", report)
    assert ran.code == 2
    assert "already exists" in ran.stderr
    assert "--force" in ran.stderr


def test_report_that_cannot_be_written_is_refused_before_any_work(
    snaptool: Snaptool, target: Path, tmp_path: Path
) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    words = ("rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt", "--report")
    ran = snaptool(*words, "/proc/report.json")  # where even root makes no file
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("snaptool: error: cannot create a file in /proc: ")
    ran = snaptool(*words, tmp_path, "--force")
    assert (ran.code, ran.stdout) == (2, "")
    assert "is a directory" in ran.stderr


@pytest.mark.parametrize("which", ["source", "target", "link", "no folder"])
def test_report_may_not_take_the_place_of_source_or_target(
    snaptool: Snaptool, target: Path, tmp_path: Path, which: str
) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    link = tmp_path / "link.db"
    os.link(source, link)
    report = {"source": source, "target": target, "link": link, "no folder": tmp_path / "no" / "report.json"}[which]
    ran = snaptool(
        *("rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt", "--report", report, "--force")
    )
    assert ran.code == 2


# --- targets that are refused ---------------------------------------------------------------------------------------


def test_existing_target_is_refused_and_kept(snaptool: Snaptool) -> None:
    source, target = snaptool.sample("aescbc-cluster.db"), snaptool.write("new.db", "mine")
    ran = snaptool("rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt")
    assert ran.code == 2
    assert ran.stdout == ""
    assert ran.stderr.splitlines() == [
        f"snaptool: error: target {target} already exists",
        "snaptool:        choose another target, or use --force to replace it",
    ]


def test_force_replaces_an_existing_target(snaptool: Snaptool) -> None:
    source, target = snaptool.sample("aescbc-cluster.db"), snaptool.write("new.db", "mine")
    ran = snaptool(
        "rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt", "--force", replaces=[target]
    )
    assert ran.code == 0
    assert len(stored(target)) == 37
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_force_keeps_the_old_target_when_the_run_stops(snaptool: Snaptool) -> None:
    source, target = snaptool.sample("lost-key.db"), snaptool.write("new.db", "mine")
    ran = snaptool("rewrite", source, target, "--config", SAMPLES / "lost-key.yaml", "--decrypt", "--force")
    assert ran.code == 3
    assert target.read_text() == "mine"


@pytest.mark.parametrize("spelling", ["same", "hard link", "soft link", "dots", "link to folder"])
@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("command", ["rewrite", "repair"])
def test_source_as_target_is_refused_by_any_name(
    snaptool: Snaptool, tmp_path: Path, spelling: str, force: list[str], command: str
) -> None:
    (tmp_path / "sub").mkdir()
    source = snaptool.sample("aescbc-cluster.db")
    target = tmp_path / "other.db"
    if spelling == "same":
        target = source
    elif spelling == "hard link":
        os.link(source, target)
    elif spelling == "soft link":
        target.symlink_to(source)
    elif spelling == "dots":
        target = tmp_path / "sub" / ".." / source.name
    else:
        (tmp_path / "folder").symlink_to(tmp_path, target_is_directory=True)
        target = tmp_path / "folder" / source.name
    options = ["--config", str(SAMPLES / "aescbc.yaml"), "--decrypt"] if command == "rewrite" else []
    ran = snaptool(command, source, target, *options, *force)
    assert ran.code == 2
    assert ran.stderr.splitlines()[0] == f"snaptool: error: source and target are the same file: {target}"


def test_target_that_is_a_folder_or_in_none_is_refused(snaptool: Snaptool, tmp_path: Path) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    for target, words in ((tmp_path, "is a directory"), (tmp_path / "no" / "x.db", "there is no directory")):
        ran = snaptool("rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt")
        assert ran.code == 2
        assert words in ran.stderr


def test_dangling_link_as_target_is_an_existing_target(snaptool: Snaptool, tmp_path: Path) -> None:
    source, target = snaptool.sample("aescbc-cluster.db"), tmp_path / "new.db"
    target.symlink_to(tmp_path / "elsewhere.db")
    assert snaptool("rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt").code == 2


# --- values that no key opens ---------------------------------------------------------------------------------------


def lost_key(snaptool: Snaptool, target: Path, *options: str | Path, makes: list[Path] | None = None) -> Any:
    return snaptool(
        *("rewrite", snaptool.sample("lost-key.db"), target, "--config", SAMPLES / "lost-key.yaml"),
        *options,
        makes=makes or [],
    )


def test_stop_lists_everything_lost_and_writes_nothing(snaptool: Snaptool, target: Path) -> None:
    new = ("--new-config", SAMPLES / "secretbox.yaml")
    ran = lost_key(snaptool, target, *new, "-o", "json")
    assert ran.code == 3
    assert ran.json["target"] is None
    assert ran.json["verified"] is False
    facts = [(lost["key"], lost["revision"], lost["live"]) for lost in ran.json["lost"]]
    assert facts == [(NEVER, 19, True), (SINCE, 20, False), (LAST, 38, True)]
    assert {(lost["provider"], lost["key_name"], lost["reason"]) for lost in ran.json["lost"]} == {
        ("aescbc", "year-2024", "unknown_key_name")
    }
    text = lost_key(snaptool, target, *new, "--undecryptable", "stop")
    assert text.code == 3
    for key in (NEVER, SINCE, LAST):
        assert key in text.stdout
    assert "3 values do not open, so nothing was written" in text.stdout
    assert "--undecryptable delete" in text.stdout


def test_keep_leaves_lost_bytes_as_they_are(snaptool: Snaptool, target: Path) -> None:
    ran = lost_key(
        *(snaptool, target, "--new-config", SAMPLES / "secretbox.yaml", "--undecryptable", "keep", "-o", "json"),
        makes=[target],
    )
    assert ran.code == 0
    assert ran.json["verified"] is True
    assert len(ran.json["lost"]) == 3
    before, after = values(target.parent / "lost-key.db"), values(target)
    assert list(before) == list(after)
    for place in ((NEVER, 19), (SINCE, 20), (LAST, 38)):
        assert after[place] == before[place]
        assert after[place].startswith(b"k8s:enc:aescbc:v1:year-2024:")
    others = [value for value in after.values() if value.startswith(b"k8s:enc:") and b"year-2024" not in value]
    assert len(others) == 12
    assert all(value.startswith(b"k8s:enc:secretbox:v1:key1:") for value in others)


def test_delete_drops_lost_keys_cuts_lost_history_and_keeps_the_revision(snaptool: Snaptool, target: Path) -> None:
    ran = lost_key(
        *(snaptool, target, "--new-config", SAMPLES / "secretbox.yaml", "--undecryptable", "delete", "-o", "json"),
        makes=[target],
    )
    assert ran.code == 0
    assert ran.json["verified"] is True
    assert ran.json["source"]["revision"] == ran.json["target"]["revision"] == 38
    assert b"year-2024" not in target.read_bytes()
    left = values(target)
    assert not [key for key, _ in left if key in (NEVER, LAST)]
    assert [revision for key, revision in left if key == SINCE]
    assert (SINCE, 20) not in left
    deleted = {deletion["key"]: deletion for deletion in ran.json["deletions"]}
    assert set(deleted) == {NEVER, SINCE, LAST}
    assert {key for key, deletion in deleted.items() if deletion["whole"]} == {NEVER, LAST}
    lost_bytes = [value for (key, _), value in values(target.parent / "lost-key.db").items() if key in (NEVER, LAST)]
    assert lost_bytes
    for value in lost_bytes:
        assert value not in target.read_bytes()
        assert value[40:72] not in target.read_bytes()


def test_second_configuration_opens_what_the_first_does_not(snaptool: Snaptool, target: Path) -> None:
    ran = lost_key(
        *(snaptool, target, "--config", SAMPLES / "found-key.yaml", "--new-config", SAMPLES / "secretbox.yaml"),
        *("-o", "json"),
        makes=[target],
    )
    assert ran.code == 0
    assert ran.json["lost"] == []
    assert b"aescbc" not in target.read_bytes()


# --- cover, compaction ----------------------------------------------------------------------------------------------


def test_uncovered_resources_stop_the_run_by_name(snaptool: Snaptool, target: Path) -> None:
    source = snaptool.sample("mixed-providers.db")
    arguments: list[str | Path] = [
        source,
        target,
        "--config",
        SAMPLES / "mixed.yaml",
        "--new-config",
        SAMPLES / "secretbox.yaml",
    ]
    ran = snaptool("rewrite", *arguments)
    assert ran.code == 3
    assert "configmaps (" in ran.stderr
    assert "has no entry for them" in ran.stderr
    assert "--allow-plaintext" in ran.stderr
    ran = snaptool("rewrite", *arguments, "--allow-plaintext", makes=[target])
    assert ran.code == 0
    for (key, _), value in values(target).items():
        assert value.startswith(b"k8s:enc:") == key.startswith("/registry/secrets/")


def test_identity_in_front_needs_the_users_word(snaptool: Snaptool, target: Path) -> None:
    new = snaptool.write(
        "new.yaml",
        config("secretbox") + "- resources: [configmaps]\n  providers:\n  - identity: {}\n",
    )
    source = snaptool.sample("mixed-providers.db")
    words = ("rewrite", source, target, "--config", SAMPLES / "mixed.yaml", "--new-config", new)
    assert snaptool(*words).code == 3
    assert snaptool(*words, "--allow-plaintext", makes=[target]).code == 0


def test_compact_drops_what_a_compaction_would_and_notes_it(snaptool: Snaptool, target: Path) -> None:
    source = snaptool.sample("mixed-providers.db")
    ran = snaptool(
        *("rewrite", source, target, "--config", SAMPLES / "mixed.yaml", "--decrypt", "--compact", "-o", "json"),
        makes=[target],
    )
    assert ran.code == 0
    with open_snapshot(target) as opened:
        assert opened.snapshot.compacted_revision == opened.snapshot.current_revision == 56
    assert ran.json["records"]["deleted"] == 53 - len(stored(target)) > 0
    assert len({key for key, _ in values(target)}) == 40
    assert len(values(target)) == 40
    # Tombstones of the very revision that is compacted stay, as servers since 3.6 keep them.
    tombstones = [revision.main for revision, gone in map(decode_revision_key, stored(target)) if gone]
    assert set(tombstones) <= {56}
    assert snaptool("inspect", target, "-o", "json").json["etcd"]["tombstones"] == len(tombstones)


# --- trailer, sources -----------------------------------------------------------------------------------------------


def test_wrong_trailer_stops_unless_told_to_go_on(snaptool: Snaptool, target: Path) -> None:
    whole = bytearray((SAMPLES / "aescbc-cluster.db").read_bytes())
    whole[-1] ^= 1
    source = snaptool.write("wrong.db", bytes(whole))
    arguments = ("rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt")
    for options in ([], ["--dry-run"]):
        ran = snaptool(*arguments, *options)
        assert ran.code == 4
        assert "SHA-256" in ran.stderr
        assert "--skip-hash-check" in ran.stderr
    assert snaptool(*arguments, "--skip-hash-check", makes=[target]).code == 0
    written = target.read_bytes()
    assert written[-32:] == hashlib.sha256(written[:-32]).digest()


def test_data_directory_is_read_with_a_warning(snaptool: Snaptool, target: Path, tmp_path: Path) -> None:
    wal = tmp_path / "data" / "member" / "wal"
    wal.mkdir(parents=True)
    (wal / "0000000000000000-0000000000000000.wal").write_bytes(b"log")
    (tmp_path / "data" / "member" / "snap").mkdir()
    db = snaptool.sample("missing-trailer.db", "data/member/snap/db")
    arguments = ("rewrite", tmp_path / "data", target, "--config", SAMPLES / "aescbc.yaml", "--decrypt")
    ran = snaptool(*arguments, "-o", "json", makes=[target])
    assert ran.code == 0
    assert ran.json["source"]["path"] == str(db)
    assert "WAL" in ran.stderr
    target.unlink()
    assert snaptool(*arguments, "-q", makes=[target]).stderr == ""


def test_missing_and_unreadable_sources_are_refused(snaptool: Snaptool, target: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for source, words in (
        (tmp_path / "no.db", "cannot read"),
        (tmp_path / "empty", "without member/snap/db"),
        (tmp_path / "pipe", "is not a regular file"),
    ):
        ran = snaptool("rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt")
        assert ran.code == 2
        assert words in ran.stderr


@pytest.mark.parametrize("content", [b"", b"x", b"not a snapshot" * 1000])
def test_files_that_are_no_snapshots_are_damaged_input(snaptool: Snaptool, target: Path, content: bytes) -> None:
    source = snaptool.write("junk.db", content)
    ran = snaptool("rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", "--decrypt")
    assert ran.code == 4
    assert ran.stdout == ""
    assert ran.stderr.startswith("snaptool: error: ")


# --- configurations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("both_given", [True, False])
def test_new_config_or_decrypt_is_needed_and_not_both(snaptool: Snaptool, target: Path, *, both_given: bool) -> None:
    options = ["--decrypt", "--new-config", str(SAMPLES / "secretbox.yaml")] if both_given else []
    source = snaptool.sample("aescbc-cluster.db")
    ran = snaptool("rewrite", source, target, "--config", SAMPLES / "aescbc.yaml", *options)
    assert ran.code == 2
    assert "--new-config" in ran.stderr
    assert "--decrypt" in ran.stderr


def test_without_a_config_what_is_encrypted_stops_the_run_and_nothing_is_said_of_deleting(
    snaptool: Snaptool, target: Path
) -> None:
    ran = snaptool("rewrite", snaptool.sample("aescbc-cluster.db"), target, "--decrypt")
    assert ran.code == 3
    assert "--config FILE; none was given" in ran.stdout
    assert "delete" not in ran.text


def test_a_cluster_that_was_never_encrypted_needs_no_config(snaptool: Snaptool, target: Path, tmp_path: Path) -> None:
    source, clear = snaptool.sample("aescbc-cluster.db"), tmp_path / "clear.db"
    snaptool("rewrite", source, clear, "--config", SAMPLES / "aescbc.yaml", "--decrypt", makes=[clear])
    ran = snaptool("rewrite", clear, target, "--new-config", SAMPLES / "secretbox.yaml", "-o", "json", makes=[target])
    assert (ran.code, ran.json["records"]["rewritten"], ran.json["lost"]) == (0, 11, [])
    assert snaptool("verify", target, "--config", SAMPLES / "secretbox.yaml").code == 0


@pytest.mark.parametrize("option", ["--config", "--new-config"])
def test_bad_configuration_is_named_by_file_and_path(snaptool: Snaptool, target: Path, option: str) -> None:
    short = "c2hvcnQgYW5kIHNlY3JldCBhbmQgbG9uZw=="
    bad = snaptool.write("bad.yaml", config("aesgcm", secret=short))
    good = str(SAMPLES / "aescbc.yaml")
    options = {"--config": good, "--new-config": good, option: str(bad)}
    ran = snaptool(
        "rewrite",
        snaptool.sample("aescbc-cluster.db"),
        target,
        *(word for pair in options.items() for word in pair),
    )
    assert ran.code == 2
    assert f"{bad}: line 6, character " in ran.stderr
    assert "resources[0].providers[0].aesgcm.keys[0].secret: " in ran.stderr


def test_missing_configuration_is_named(snaptool: Snaptool, target: Path, tmp_path: Path) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    ran = snaptool("rewrite", source, target, "--config", tmp_path / "no.yaml", "--decrypt")
    assert ran.code == 2
    assert str(tmp_path / "no.yaml") in ran.stderr


def test_configuration_may_come_from_stdin_once(snaptool: Snaptool, target: Path) -> None:
    text = (SAMPLES / "aescbc.yaml").read_bytes()
    source = snaptool.sample("aescbc-cluster.db")
    ran = snaptool("rewrite", source, target, "--config", "-", "--decrypt", stdin=text, makes=[target])
    assert ran.code == 0
    for twice in (["--config", "-", "--config", "-", "--decrypt"], ["--config", "-", "--new-config", "-"]):
        ran = snaptool("rewrite", source, target, *twice, "--force", stdin=text)
        assert ran.code == 2
        assert "only one configuration can be read from stdin" in ran.stderr


# --- workers, prefixes ----------------------------------------------------------------------------------------------


def test_jobs_do_not_change_the_result(snaptool: Snaptool, tmp_path: Path) -> None:
    source = snaptool.sample("mixed-providers.db")
    reports = []
    for jobs in ("1", "2"):
        target = tmp_path / f"{jobs}.db"
        ran = snaptool(
            *("rewrite", source, target, "--config", SAMPLES / "mixed.yaml", "--decrypt", "--jobs", jobs),
            *("-o", "json"),
            makes=[target],
        )
        assert ran.code == 0
        reports.append({key: ran.json[key] for key in ("source", "records", "values", "verified")})
    assert reports[0] == reports[1]
    assert (tmp_path / "1.db").read_bytes() == (tmp_path / "2.db").read_bytes()
    assert snaptool("rewrite", source, tmp_path / "3.db", "--jobs", "0").code == 2


@pytest.mark.parametrize("command", ["rewrite", "inspect", "verify", "list"])
@pytest.mark.parametrize("prefix", ["/other", "", "/registry/secrets/default"])
def test_a_prefix_under_which_no_key_of_kubernetes_lies_is_refused_and_the_found_one_named(
    snaptool: Snaptool, target: Path, command: str, prefix: str
) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    more: list[str | Path] = [target, "--decrypt"] if command == "rewrite" else []
    ran = snaptool(command, source, *more, "--config", SAMPLES / "aescbc.yaml", "--etcd-prefix", prefix)
    assert ran.code == 2
    assert f"no key lies under --etcd-prefix {prefix or '/'}" in ran.stderr
    assert "/registry" in ran.stderr.splitlines()[-1]
    assert not target.exists()


@pytest.mark.parametrize("prefix", ["/registry", "/registry/", "registry", "//registry", "/registry/."])
def test_a_given_prefix_is_read_as_the_api_server_reads_it(snaptool: Snaptool, target: Path, prefix: str) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    words = ("--config", SAMPLES / "aescbc.yaml", "--new-config", SAMPLES / "secretbox.yaml", "--etcd-prefix", prefix)
    ran = snaptool("rewrite", source, target, *words, "-o", "json", makes=[target])
    assert ran.json["records"]["rewritten"] > 10
    assert b"k8s:enc:aescbc" not in target.read_bytes()


def test_source_of_a_failed_run_is_as_it_was(snaptool: Snaptool, tmp_path: Path) -> None:
    source = snaptool.sample("lost-key.db")
    before = states(tmp_path)
    assert snaptool("rewrite", source, tmp_path / "x.db", "--config", SAMPLES / "aescbc.yaml", "--decrypt").code == 3
    assert states(tmp_path) == before
