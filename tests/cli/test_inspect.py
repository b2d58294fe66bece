"""`snaptool inspect`, `verify`, `repair` and `config` on the samples."""

from __future__ import annotations

import base64
import hashlib
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from snaptool.cli import exits
from snaptool.operations.opening import open_snapshot
from tests.cli.test_rewrite import LAST, NEVER, SINCE, STATED
from tests.support.cli import SAMPLES, Snaptool
from tests.support.snapshots import config

TOO_LONG = base64.b64encode(b"seventeen letters").decode()
LIVE_KEYS = {"aescbc-cluster.db": 31, "missing-trailer.db": 20, "mixed-providers.db": 40, "lost-key.db": 34}


@pytest.mark.parametrize("sample", list(STATED))
def test_inspect_states_what_etcd_stated(snaptool: Snaptool, sample: str) -> None:
    source = snaptool.sample(sample)
    document = snaptool("inspect", source, "-o", "json").json
    _, status_hash, _, revision = STATED[sample]
    assert set(document) >= {"file", "etcd", "census", "findings"}
    assert document["file"] == {
        "path": str(source),
        "size": source.stat().st_size,
        "page_size": 4096,
        "trailer": "missing" if sample == "missing-trailer.db" else "ok",
        "free_pages": document["file"]["free_pages"],
        "high_water_mark": document["file"]["high_water_mark"],
    }
    etcd = document["etcd"]
    assert (etcd["hash"], etcd["revision"], etcd["keys"]) == (status_hash, revision, LIVE_KEYS[sample])
    assert etcd["compacted_revision"] == (39 if sample == "mixed-providers.db" else 0)
    assert set(etcd) >= {"records", "tombstones", "leases", "alarms", "storage_version"}
    for row in document["census"]:
        assert set(row) >= {"resource", "provider", "key_name", "live", "old", "bytes", "opens", "lost", "stale"}
        assert (row["opens"], row["lost"], row["stale"]) == (None, None, None)
    assert sum(row["live"] for row in document["census"]) == etcd["keys"]
    assert sum(row["live"] + row["old"] for row in document["census"]) == etcd["records"] - etcd["tombstones"]
    text = snaptool("inspect", source).stdout
    assert f"status hash {status_hash:x}" in text
    assert str(source) in text


def secrets_of(document: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["provider"], row["key_name"]): row for row in document["census"] if row["resource"] == "secrets"}


def test_inspect_with_keys_counts_what_opens_what_is_lost_and_what_is_stale(snaptool: Snaptool) -> None:
    source = snaptool.sample("lost-key.db")
    ran = snaptool("inspect", source, "--config", SAMPLES / "lost-key.yaml", "-o", "json")
    assert ran.code == 3
    rows = secrets_of(ran.json)
    lost = rows["aescbc", "year-2024"]
    assert (lost["opens"], lost["lost"], lost["lost_by_reason"]) == (0, 3, {"unknown_key_name": 3})
    assert (rows["aescbc", "year-2025"]["opens"], rows["aescbc", "year-2025"]["stale"]) == (10, 10)
    assert (rows["aescbc", "year-2026"]["opens"], rows["aescbc", "year-2026"]["stale"]) == (2, 0)
    whole = snaptool(
        *("inspect", source, "--config", SAMPLES / "lost-key.yaml", "--config", SAMPLES / "found-key.yaml"),
        *("-o", "json"),
    )
    assert whole.code == 0
    assert secrets_of(whole.json)["aescbc", "year-2024"]["opens"] == 3


def test_inspect_of_mixed_providers_finds_all_of_them(snaptool: Snaptool) -> None:
    ran = snaptool("inspect", snaptool.sample("mixed-providers.db"), "--config", SAMPLES / "mixed.yaml", "-o", "json")
    assert ran.code == 0
    rows = {key: (row["live"], row["old"], row["stale"]) for key, row in secrets_of(ran.json).items()}
    assert rows == {
        ("aescbc", "cbc-2024"): (7, 3, 10),
        ("aescbc", "cbc-2025"): (1, 2, 3),
        ("aesgcm", "gcm-2025"): (2, 1, 3),
        ("identity", None): (1, 1, 2),
        ("secretbox", "box-2026"): (2, 1, 0),
    }


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_bad_configuration_is_named_by_path(snaptool: Snaptool, command: str) -> None:
    bad = snaptool.write("bad.yaml", config("secretbox", secret=base64.b64encode(bytes(20)).decode()))
    ran = snaptool(command, snaptool.sample("aescbc-cluster.db"), "--config", bad)
    assert ran.code == 2
    assert f"{bad}: line 6, character " in ran.stderr
    assert "resources[0].providers[0].secretbox.keys[0].secret: " in ran.stderr


def test_inspect_reads_configurations_from_stdin(snaptool: Snaptool) -> None:
    text = (SAMPLES / "aescbc.yaml").read_bytes()
    ran = snaptool("inspect", snaptool.sample("aescbc-cluster.db"), "--config", "-", "-o", "json", stdin=text)
    assert secrets_of(ran.json)["aescbc", "key1"]["opens"] == 11


def test_inspect_leaves_out_what_is_all_plaintext_and_says_how_much_unless_verbose(snaptool: Snaptool) -> None:
    words = ("inspect", snaptool.sample("lost-key.db"), "--config", SAMPLES / "lost-key.yaml")
    short, whole = snaptool(*words).stdout, snaptool(*words, "-v").stdout
    assert "\nand 6 resources that are all plaintext; -v shows them\n" in short
    assert "configmaps" not in short
    assert "\nconfigmaps " in whole
    assert "-v shows them" not in whole
    plain = snaptool("inspect", snaptool.sample("cases/nightly/nightly.db", "nightly.db"), "-v").stdout
    assert "\nleases.coordination.k8s.io " in plain


# --- verify ---------------------------------------------------------------------------------------------------------


def codes(ran: Any) -> list[str]:
    return sorted(finding["code"] for finding in ran.json["findings"])


def test_verify_of_a_healthy_sample_is_silent(snaptool: Snaptool) -> None:
    ran = snaptool("verify", snaptool.sample("aescbc-cluster.db"), "--config", SAMPLES / "aescbc.yaml", "-o", "json")
    assert codes(ran) == []
    assert ran.code == 0
    assert (ran.json["records"], ran.json["opened"], ran.json["damaged"]) == (37, 11, False)


def test_verify_finds_lost_values_by_place_and_counts_only_what_opened(snaptool: Snaptool) -> None:
    arguments: list[str | Path] = [snaptool.sample("lost-key.db"), "--config", SAMPLES / "lost-key.yaml", "-o", "json"]
    ran = snaptool("verify", *arguments)
    assert ran.code == 3
    lost = {found["severity"]: found for found in ran.json["findings"] if found["code"] == "unknown_key_name"}
    assert lost["error"]["places"] == [f"{NEVER} at revision 19", f"{LAST} at revision 38"]
    assert lost["warning"]["places"] == [f"{SINCE} at revision 20"]
    assert [value["revision"] for value in ran.json["lost"]] == [19, 20, 38]
    assert ran.json["opened"] == 12
    live = snaptool("verify", *arguments, "--live-only")
    assert [found["count"] for found in live.json["findings"] if found["code"] == "unknown_key_name"] == [2]
    assert [value["revision"] for value in live.json["lost"]] == [19, 38]


NIGHTLY = [Path("nightly.db"), Path("enc.yaml")]


def test_verify_of_a_healthy_nightly_snapshot_is_silent_in_cron(snaptool: Snaptool) -> None:
    source, keys = (snaptool.sample(f"cases/nightly/{name}", str(name)) for name in NIGHTLY)
    ran = snaptool("verify", source, "--config", keys, "-o", "json")
    assert ran.code == 0
    assert [(found["code"], found["severity"], found["count"]) for found in ran.json["findings"]] == [
        ("leftovers", "note", 24)
    ]
    quiet = snaptool("verify", source, "--config", keys, "-q")
    assert (quiet.code, quiet.text) == (0, "")
    assert snaptool("verify", source, "--config", keys, "-q", "--fail-on", "note").code == 3


@pytest.mark.parametrize(("threshold", "code"), [("error", 0), ("warning", 3), ("note", 3)])
def test_verify_fails_from_the_severity_that_was_asked_for(snaptool: Snaptool, threshold: str, code: int) -> None:
    both: list[str | Path] = ["--config", SAMPLES / "lost-key.yaml", "--config", SAMPLES / "found-key.yaml"]
    ran = snaptool("verify", snaptool.sample("lost-key.db"), *both, "--fail-on", threshold, "-q")
    assert ran.code == code
    assert bool(ran.stdout) == bool(code)


def test_verify_finds_stale_values_and_plaintext(snaptool: Snaptool) -> None:
    ran = snaptool("verify", snaptool.sample("mixed-providers.db"), "--config", SAMPLES / "mixed.yaml", "-o", "json")
    assert ran.code == 3
    assert {"stale", "plaintext"} <= set(codes(ran))
    assert all(finding["place"] and finding["problem"] and finding["remedy"] for finding in ran.json["findings"])


# --- repair ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", list(STATED))
def test_repair_keeps_every_record_and_needs_no_key(snaptool: Snaptool, tmp_path: Path, sample: str) -> None:
    source, target = snaptool.sample(sample), tmp_path / "new.db"
    ran = snaptool("repair", source, target, "-o", "json", makes=[target])
    assert ran.code == 0
    assert ran.json["verified"] is True
    assert ran.json["lost"] == []
    assert (ran.json["records"]["rewritten"], ran.json["records"]["deleted"]) == (0, 0)
    with open_snapshot(source) as one, open_snapshot(target) as other:
        before, after = one.snapshot.database.buckets(), other.snapshot.database.buckets()
        assert {name: list(bucket.items()) for name, bucket in before.items()} == {
            name: list(bucket.items()) for name, bucket in after.items()
        }
        assert len(other.snapshot.database.free_pages()) == 0
    whole = target.read_bytes()
    assert whole[-32:] == hashlib.sha256(whole[:-32]).digest()
    assert ran.json["target"]["hashkv"] == STATED[sample][2]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    again = tmp_path / "again.db"
    snaptool("repair", target, again, makes=[again])
    assert again.read_bytes() == whole


def test_repair_refuses_an_existing_target_without_force(snaptool: Snaptool) -> None:
    source, target = snaptool.sample("aescbc-cluster.db"), snaptool.write("new.db", "mine")
    assert snaptool("repair", source, target).code == 2
    assert snaptool("repair", source, target, "--force", replaces=[target]).code == 0


# --- config ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["secretbox", "aesgcm", "aescbc", "identity"])
def test_new_configuration_is_accepted_and_seals(snaptool: Snaptool, tmp_path: Path, provider: str) -> None:
    path, target = tmp_path / "new.yaml", tmp_path / "new.db"
    ran = snaptool("config", "new", "--provider", provider, "-f", path, makes=[path], shows_secrets=True)
    assert ran.code == 0
    assert ran.stdout == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    checked = snaptool("config", "check", path, "-o", "json")
    assert (checked.code, checked.json["accepted"]) == (0, True)
    ran = snaptool(
        *("rewrite", snaptool.sample("aescbc-cluster.db"), target, "--config", SAMPLES / "aescbc.yaml"),
        *("--new-config", path),
        *(("--allow-plaintext",) if provider == "identity" else ()),
        makes=[target],
    )
    assert ran.code == 0
    assert (b"k8s:enc:" in target.read_bytes()) == (provider != "identity")


def test_new_configurations_differ_and_take_names_resources_and_an_old_chain(snaptool: Snaptool) -> None:
    arguments = ["config", "new", "--key-name", "fresh", "--resource", "secrets", "--resource", "foos.example.com"]
    first, second = (snaptool(*arguments, shows_secrets=True).stdout for _ in range(2))
    assert first != second
    (entry,) = yaml.safe_load(first)["resources"]
    assert entry["resources"] == ["secrets", "foos.example.com"]
    (key,) = entry["providers"][0]["secretbox"]["keys"]
    assert key["name"] == "fresh"
    assert len(base64.b64decode(key["secret"])) == 32
    kept = snaptool("config", "new", "--keep", SAMPLES / "aescbc.yaml", shows_secrets=True).stdout
    old = yaml.safe_load((SAMPLES / "aescbc.yaml").read_text())["resources"][0]["providers"][0]
    assert old in yaml.safe_load(kept)["resources"][0]["providers"]


def test_rotating_a_key_of_the_default_name_needs_no_name_for_the_new_one(snaptool: Snaptool) -> None:
    words = ("config", "new", "--provider", "aescbc", "--keep", SAMPLES / "aescbc.yaml")
    first, second, *_ = yaml.safe_load(snaptool(*words, shows_secrets=True).stdout)["resources"][0]["providers"]
    assert [one["aescbc"]["keys"][0]["name"] for one in (first, second)] == ["key2", "key1"]
    named = snaptool(*words, "--key-name", "key1")
    assert named.code == 2
    assert "give the new key a name of its own" in named.stderr


def test_new_configuration_is_not_written_over_another(snaptool: Snaptool) -> None:
    path = snaptool.write("new.yaml", "mine")
    assert snaptool("config", "new", "-f", path).code == 2
    assert snaptool("config", "new", "-f", path, "--force", replaces=[path]).code == 0


def test_check_shows_resources_and_never_a_secret(snaptool: Snaptool) -> None:
    ran = snaptool("config", "check", SAMPLES / "mixed.yaml", "-o", "json")
    assert ran.code == 0
    assert ran.json["resources"]["configmaps"].startswith("secretbox:box-2026, aesgcm:gcm-2025")
    assert "secretbox:box-2026" in snaptool("config", "check", SAMPLES / "mixed.yaml").stdout


def test_check_of_a_bad_configuration_names_every_place(snaptool: Snaptool) -> None:
    bad = snaptool.write("bad.yaml", config("aesgcm", secret=TOO_LONG))
    text = snaptool("config", "check", bad)
    ran = snaptool("config", "check", bad, "-o", "json")
    assert text.code == ran.code == 2
    assert ran.json["accepted"] is False
    assert [problem["path"] for problem in ran.json["problems"]] == ["resources[0].providers[0].aesgcm.keys[0].secret"]
    assert "resources[0].providers[0].aesgcm.keys[0].secret" in text.stderr


# --- the frame ------------------------------------------------------------------------------------------------------


def test_help_lists_commands_and_exit_codes(snaptool: Snaptool) -> None:
    ran = snaptool("--help")
    assert ran.code == 0
    for command in ("inspect", "verify", "rewrite", "repair", "config"):
        assert f"\n  {command} " in ran.stdout
        assert snaptool(command, "--help").code == 0
    for code, meaning in exits.MEANINGS.items():
        assert f"{code}  {meaning.split(',')[0]}" in ran.stdout


@pytest.mark.parametrize("words", [["nothing"], ["inspect"], ["inspect", "--no-such"], ["inspect", "x", "-o", "xml"]])
def test_wrong_usage_is_exit_code_two(snaptool: Snaptool, words: list[str]) -> None:
    ran = snaptool(*words)
    assert ran.code == 2
    assert ran.stdout == ""
    assert "Usage" in ran.stderr
