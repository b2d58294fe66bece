"""`snaptool kms` and the options about KMS of other commands: what they ask, what they print, what they refuse."""

from __future__ import annotations

import json
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptool.providers.kms_envelope import hash_key_id
from snaptool.providers.provider import Api
from tests.support.cli import SAMPLES, Snaptool
from tests.support.kms_plugin import RunningPlugin, kms_plugin
from tests.support.kms_snapshots import configuration, database, in_plaintext, kms_entry, sealed, stored_values
from tests.support.kms_values import Form
from tests.support.snapshots import config


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningPlugin]:
    with kms_plugin() as plugin:
        yield plugin


@pytest.fixture
def plugin(shared: RunningPlugin) -> RunningPlugin:
    shared.control(faults=[], apis=["v1", "v2"], rotate="kek-1")
    shared.forget()
    return shared


@pytest.fixture
def both(snaptool: Snaptool, plugin: RunningPlugin) -> Path:
    entries = [kms_entry(Api.V2, "kp", plugin.endpoint), kms_entry(Api.V1, "old", plugin.endpoint)]
    return snaptool.write("kms.yaml", configuration(*entries))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two v2 seeds, one of three values and one of two; four v1 keys."""
    v1 = [one for number in range(4) for one in sealed(Form.V1_GCM, 1, 10 + number)]
    return database(tmp_path / "source.db", sealed(Form.V2_SEED, 3) + sealed(Form.V2_SEED, 2, 5) + v1)


# --- check ----------------------------------------------------------------------------------------------------------


def test_check_asks_each_plugin_for_a_round_trip(snaptool: Snaptool, plugin: RunningPlugin, both: Path) -> None:
    ran = snaptool("kms", "check", "--config", both, "-o", "json")
    assert ran.code == 0
    v2, v1 = ran.json["plugins"]
    names = ("provider", "key_name", "usable", "version", "healthz")
    assert [v2[name] for name in names] == ["kms/v2", "kp", True, "v2", "ok"]
    assert [v1[name] for name in names] == ["kms/v1", "old", True, "v1beta1", None]
    assert v2["key_id_hash"] == hash_key_id("kek-1")
    assert v2["plugin"] is None
    assert (v2["round_trip"], v1["round_trip"], v2["error"]) == (True, True, None)
    assert set(v2["milliseconds"]) == {"Status", "Encrypt", "Decrypt"}
    assert plugin.methods() == ["Status", "Encrypt", "Decrypt", "Version", "Encrypt", "Decrypt"]


def test_check_decrypt_only_encrypts_nothing(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path
) -> None:
    ran = snaptool("kms", "check", "--config", both, "--decrypt-only", "--sample", source)
    assert ran.code == 0, ran.text
    assert plugin.methods() == ["Status", "Decrypt", "Version", "Decrypt"]
    assert ran.stdout.count("round trip: the same key came back") == 2
    plugin.forget()
    assert snaptool("kms", "check", "--config", both, "--decrypt-only").code == 0
    assert plugin.methods() == ["Status", "Version"]


def test_check_with_a_sample_proves_the_key_on_a_value(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path
) -> None:
    plugin.fail({"kind": "plaintext", "method": "Decrypt", "bytes": 32})
    ran = snaptool("kms", "check", "--config", both, "--decrypt-only", "--sample", source)
    assert ran.code == 5, ran.text
    assert ran.stdout.count("ANOTHER KEY CAME BACK") == 2


def test_check_says_what_is_wrong_with_each_plugin(snaptool: Snaptool, plugin: RunningPlugin, both: Path) -> None:
    plugin.fail({"kind": "status", "method": "Status", "healthz": "vault sealed"})
    ran = snaptool("kms", "check", "--config", both, "--kms-endpoint", "old=unix:///nowhere/kms.sock")
    assert ran.code == 5
    assert "kp (KMS v2): NOT USABLE" in ran.stdout
    assert "problem: healthz is 'vault sealed', not 'ok'" in ran.stdout
    assert "old (KMS v1): NOT USABLE" in ran.stdout
    assert "no socket at /nowhere/kms.sock (ENOENT)" in ran.stdout
    assert "--kms-endpoint old=unix:///PATH" in ran.stdout


def test_check_catches_a_plugin_that_returns_another_key(snaptool: Snaptool, plugin: RunningPlugin, both: Path) -> None:
    plugin.fail({"kind": "plaintext", "method": "Decrypt", "bytes": 32})
    ran = snaptool("kms", "check", "--config", both)
    assert ran.code == 5
    assert ran.stdout.count("ANOTHER KEY CAME BACK") == 2


def test_check_of_a_configuration_without_kms_has_nothing_to_ask(snaptool: Snaptool) -> None:
    ran = snaptool("kms", "check", "--config", snaptool.write("a.yaml", config("secretbox")))
    assert (ran.code, ran.stdout) == (0, "")
    assert ran.stderr == "snaptool: the configuration has no KMS provider\n"


# --- plan -----------------------------------------------------------------------------------------------------------


def test_plan_counts_the_calls_that_a_rewrite_then_makes(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path, tmp_path: Path
) -> None:
    plan = snaptool("kms", "plan", source, "--config", both, "--new-config", both, "-o", "json")
    assert plan.code == 0
    assert plugin.calls() == []
    rows = [(row["key_name"], row["purpose"], row["values"], row["wrapped_keys"]) for row in plan.json["plans"]]
    assert rows == [("kp", "read", 5, 2), ("old", "read", 4, 4), ("kp", "write", 9, 1), ("old", "write", 0, 0)]
    target = tmp_path / "new.db"
    assert snaptool("rewrite", source, target, "--config", both, "--new-config", both, makes=[target]).code == 0
    assert_planned(plan.json, plugin)


def test_plan_of_a_rewrap(snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path, tmp_path: Path) -> None:
    plan = snaptool("kms", "plan", source, "--config", both, "--new-config", both, "--rewrap", "-o", "json")
    rows = [(row["key_name"], row["purpose"], row["values"]) for row in plan.json["plans"]]
    assert rows == [("kp", "rewrap", 5), ("old", "read", 4), ("kp", "write", 4), ("old", "write", 0)]
    target = tmp_path / "new.db"
    ran = snaptool("rewrite", source, target, "--config", both, "--new-config", both, "--rewrap", makes=[target])
    assert ran.code == 0, ran.text
    assert_planned(plan.json, plugin)


def assert_planned(plan: dict[str, list[dict[str, dict[str, int]]]], plugin: RunningPlugin) -> None:
    planned: dict[str, int] = {}
    for row in plan["plans"]:
        for method, count in row["calls"].items():
            planned[method] = planned.get(method, 0) + count
    made = plugin.methods()
    assert {method: made.count(method) for method in set(made)} == planned


def test_plan_of_a_key_per_object(snaptool: Snaptool, plugin: RunningPlugin, tmp_path: Path) -> None:
    clear = in_plaintext(tmp_path, 30)
    old = snaptool.write("a.yaml", config("secretbox"))
    new = snaptool.write("v1.yaml", configuration(kms_entry(Api.V1, "old", plugin.endpoint)))
    words = ("kms", "plan", clear, "--config", old, "--new-config", new)
    assert "1 Version, 1 Encrypt, 1 Decrypt" in snaptool(*words).stdout
    per_object = snaptool(*words, "--kms-v1-dek-per-object")
    assert "1 Version, 30 Encrypt, 30 Decrypt" in per_object.stdout  # each wrapping is proved


# --- export-deks ----------------------------------------------------------------------------------------------------


def test_export_needs_the_flag_and_writes_a_private_file(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    refused = snaptool("kms", "export-deks", source, keys, "--config", both)
    assert refused.code == 2
    assert "--yes-write-keys" in refused.stderr
    assert plugin.calls() == []
    words = ("kms", "export-deks", source, keys, "--config", both, "--yes-write-keys")
    ran = snaptool(*words, makes=[keys], shows_secrets=True)
    assert ran.code == 0, ran.text
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    saved = json.loads(keys.read_text())
    assert len(saved["keys"]) == 6
    assert not any(key in ran.text for key in saved["keys"].values())
    assert snaptool(*words).code == 2  # it is there already
    plugin.forget()
    ran = snaptool("inspect", source, "--config", both, "--dek-file", keys)
    assert (ran.code, plugin.calls()) == (0, [])


def test_export_writes_all_keys_or_nothing(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path, tmp_path: Path
) -> None:
    words = ("kms", "export-deks", source, tmp_path / "keys.json", "--config", both, "--yes-write-keys")
    plugin.fail({"kind": "error", "method": "Decrypt", "code": "NOT_FOUND", "text": "no such key"})
    ran = snaptool(*words)
    assert ran.code == 5
    assert "key_unknown" in ran.stderr
    plugin.fail({"kind": "error", "method": "Decrypt", "first": 1, "code": "NOT_FOUND", "text": "no such key"})
    ran = snaptool(*words, "-o", "json", makes=[tmp_path / "keys.json"], shows_secrets=True)
    assert (ran.code, ran.json["keys"], ran.json["given_up"]) == (0, 6, [])


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["kp", "=unix:///x", "kp="])
def test_endpoint_has_to_be_a_pair(snaptool: Snaptool, both: Path, source: Path, word: str) -> None:
    ran = snaptool("inspect", source, "--config", both, "--kms-endpoint", word)
    assert ran.code == 2
    assert "is not NAME=URL" in ran.stderr


def test_endpoint_that_no_socket_can_have_is_refused(snaptool: Snaptool, both: Path, source: Path) -> None:
    ran = snaptool("inspect", source, "--config", both, "--kms-endpoint", "kp=http://127.0.0.1/")
    assert ran.code == 2
    assert "the scheme must be unix" in ran.stderr


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"nonsense", "not a JSON document"),
        (b"\xff\xfe", "not a text"),
        (b"{}", "format"),
        (b'{"format": "snaptool/kms-keys/1", "keys": {"xx": ""}}', "SHA-256"),
    ],
)
def test_bad_key_file_is_named(snaptool: Snaptool, both: Path, source: Path, content: bytes, problem: str) -> None:
    path = snaptool.write("keys.json", content)
    ran = snaptool("verify", source, "--config", both, "--dek-file", path)
    assert ran.code == 2
    assert str(path) in ran.stderr
    assert problem in ran.stderr


def test_rewrap_and_decrypt_contradict_each_other(snaptool: Snaptool, both: Path, source: Path, tmp_path: Path) -> None:
    ran = snaptool("rewrite", source, tmp_path / "x.db", "--config", both, "--decrypt", "--rewrap")
    assert ran.code == 2


def test_existing_target_is_refused_before_any_plugin_is_asked(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path
) -> None:
    existing = snaptool.sample("aescbc-cluster.db")
    ran = snaptool("rewrite", source, existing, "--config", both, "--decrypt")
    assert ran.code == 2
    assert plugin.calls() == []


def with_trailer(path: Path, trailer: bytes) -> Path:
    path.write_bytes(path.read_bytes() + trailer)
    return path


@pytest.mark.parametrize("command", ["rewrite", "list", "diff", "diff-b"])
def test_wrong_trailer_is_refused_before_any_plugin_is_asked(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path, tmp_path: Path, command: str
) -> None:
    other = snaptool.write("other.db", source.read_bytes())
    with_trailer(source, bytes(32))
    target = tmp_path / "new.db"
    words: dict[str, tuple[str | Path, ...]] = {
        "rewrite": ("rewrite", source, target, "--decrypt", "--config", both),
        "list": ("list", source, "--config", both, "--jobs", "1"),
        "diff": ("diff", source, other, "--config-a", both, "--config-b", both, "--jobs", "1"),
        "diff-b": ("diff", other, source, "--config-a", both, "--config-b", both, "--jobs", "1"),
    }
    ran = snaptool(*words[command])
    assert (ran.code, plugin.calls()) == (4, [])
    assert "the SHA-256 at the end is not that of the bytes before it" in ran.stderr
    makes = [target] if command == "rewrite" else []
    assert snaptool(*words[command], "--skip-hash-check", makes=makes).code == 0
    assert plugin.methods().count("Decrypt") >= 6


@pytest.mark.parametrize("command", ["plan", "export-deks", "check"])
def test_wrong_trailer_stops_every_kms_command_that_reads_a_snapshot(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path, tmp_path: Path, command: str
) -> None:
    with_trailer(source, bytes(32))
    target = tmp_path / "deks"
    words: dict[str, tuple[str | Path, ...]] = {
        "plan": ("kms", "plan", source, "--config", both),
        "export-deks": ("kms", "export-deks", source, target, "--config", both, "--yes-write-keys"),
        "check": ("kms", "check", "--config", both, "--sample", source),
    }
    ran = snaptool(*words[command])
    assert (ran.code, plugin.calls()) == (4, [])
    assert "the SHA-256 at the end is not that of the bytes before it" in ran.stderr
    makes = [target] if command == "export-deks" else []
    assert snaptool(*words[command], "--skip-hash-check", makes=makes).code == 0


def test_uncovered_resources_are_refused_before_any_plugin_is_asked(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path, tmp_path: Path
) -> None:
    new = snaptool.write("new.yaml", config("secretbox", resources="configmaps"))
    target = tmp_path / "new.db"
    words = ("rewrite", source, target, "--config", both, "--new-config", new)
    ran = snaptool(*words)
    assert (ran.code, plugin.calls()) == (3, [])
    assert "encrypted values would become plaintext" in ran.stderr
    assert "has no entry for them" in ran.stderr
    assert snaptool(*words, "--allow-plaintext", makes=[target]).code == 0


def test_lost_values_need_no_entry_where_the_request_says_what_becomes_of_them(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path, tmp_path: Path
) -> None:
    new = snaptool.write("new.yaml", config("secretbox", resources="configmaps"))
    plugin.fail({"kind": "error", "method": "Decrypt", "code": "NOT_FOUND", "text": "no such key"})
    target = tmp_path / "new.db"
    words = ("rewrite", source, target, "--config", both, "--new-config", new, "--undecryptable", "keep")
    assert snaptool(*words).code == 5
    assert snaptool(*words, "--kms-lost", "kp", "--kms-lost", "old", makes=[target]).code == 0
    assert stored_values(target) == stored_values(source)


@pytest.mark.parametrize("dry", [False, True], ids=["", "dry run"])
def test_report_that_fails_at_last_says_whether_the_target_is_there(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path, tmp_path: Path, *, dry: bool
) -> None:
    report, target = tmp_path / "report.json", tmp_path / "new.db"
    plugin.fail({"kind": "slow", "method": "Decrypt", "seconds": 0.2})

    def come_in_between() -> None:
        while not plugin.calls():
            time.sleep(0.01)
        report.write_text("mine")

    other = threading.Thread(target=come_in_between)
    other.start()
    ran = snaptool(
        *("rewrite", source, target, "--config", both, "--decrypt", "--report", report),
        *(["--dry-run"] if dry else []),
        makes=[report] if dry else [report, target],
    )
    other.join()
    assert report.read_text() == "mine"
    assert ran.code == (2 if dry else 1)
    assert f"target {report} already exists" in ran.stderr
    assert (f"but {target} is published, and verified" in ran.stderr) == (not dry)


def test_commands_without_kms_values_ask_nothing(snaptool: Snaptool, plugin: RunningPlugin, both: Path) -> None:
    ran = snaptool(
        "inspect", snaptool.sample("aescbc-cluster.db"), "--config", SAMPLES / "aescbc.yaml", "--config", both
    )
    assert ran.code == 0
    assert plugin.calls() == []


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_plugin_that_is_gone_is_said_once_and_everything_else_is_shown(
    snaptool: Snaptool, both: Path, source: Path, command: str
) -> None:
    gone = ("--kms-endpoint", "kp=unix:///nowhere/kms.sock")
    ran = snaptool(command, source, "--config", both, *gone, "-o", "json")
    assert ran.code == 5
    assert "no socket at /nowhere/kms.sock (ENOENT)" in ran.stderr
    assert len(ran.stderr.splitlines()) == 2
    if command == "inspect":
        rows = {row["provider"]: (row["opens"], row["lost_by_reason"]) for row in ran.json["census"]}
        assert rows == {"kms/v1": (4, {}), "kms/v2": (0, {"kms_unwrap_failed": 5})}
    else:
        lost, stale = ran.json["findings"]
        assert (lost["code"], lost["count"], stale["code"]) == ("kms_unwrap_failed", 5, "stale")
        keys = [f"/registry/secrets/default/s{number:05}" for number in (0, 1, 2, 5, 6)]
        assert [place.partition(" ")[0] for place in lost["places"]] == keys


def test_verify_lists_the_damage_of_a_file_whose_kms_values_cannot_be_collected(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path
) -> None:
    content = bytearray(source.read_bytes())
    page = next(at for at in range(8192, len(content), 4096) if b"/registry/secrets/" in content[at : at + 4096])
    content[page + 8 : page + 10] = b"\xff\xff"
    ran = snaptool("verify", snaptool.write("damaged.db", bytes(content)), "--config", both)
    assert ran.code == 4
    assert "bad_page" in ran.stdout
    assert plugin.calls() == []


def test_values_under_a_key_that_is_no_longer_current_are_stale(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, tmp_path: Path
) -> None:
    values = sealed(Form.V2_SEED, 3) + sealed(Form.V2_SEED, 2, 3, kek="kek-2") + sealed(Form.V2_DEK, 1, 5, kek="kek-2")
    rotated = database(tmp_path / "rotated.db", values)
    plugin.control(rotate="kek-2")
    (row,) = snaptool("inspect", rotated, "--config", both, "-o", "json").json["census"]
    assert (row["opens"], row["stale"]) == (6, 4)  # three under the old key, one of the old form
    assert sorted(plugin.methods()) == ["Decrypt"] * 3 + ["Status"]
    plugin.fail({"kind": "error", "method": "Status", "code": "UNAVAILABLE"})
    (row,) = snaptool("inspect", rotated, "--config", both, "--kms-timeout", "1", "-o", "json").json["census"]
    assert (row["opens"], row["stale"]) == (6, 1)


# --- looking at a few values ----------------------------------------------------------------------------------------

ONE = "/registry/secrets/default/s00000"


def test_get_and_history_ask_for_the_keys_of_what_they_open_alone(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path
) -> None:
    ran = snaptool("get", source, ONE, "--config", both, "-o", "value")
    assert ran.code == 0, ran.text
    assert "secret 0 of generation 0" in ran.stdout
    assert plugin.methods() == ["Decrypt"]
    plugin.forget()
    ran = snaptool("history", source, ONE, "--config", both, "-o", "json")
    assert ran.code == 0, ran.text
    assert plugin.methods() == ["Decrypt"]


def test_list_and_diff_ask_for_each_key_once(
    snaptool: Snaptool, plugin: RunningPlugin, both: Path, source: Path, tmp_path: Path
) -> None:
    ran = snaptool("list", source, "secrets", "--config", both, "--lost", "--jobs", "1")
    assert ran.code == 0, ran.text
    assert plugin.methods().count("Decrypt") == 6
    target = tmp_path / "new.db"
    assert snaptool("rewrite", source, target, "--config", both, "--decrypt", makes=[target]).code == 0
    assert snaptool("diff", source, target, "--config-a", both, "--jobs", "1").code == 0


@pytest.mark.parametrize(
    "words",
    [("get", ONE, "--config"), ("history", ONE, "--config"), ("list", "--config")],
    ids=lambda words: words[0],
)
def test_looking_without_the_plugin_says_where_it_was_looked_for(
    snaptool: Snaptool, both: Path, source: Path, words: tuple[str, ...]
) -> None:
    command, *rest = words
    ran = snaptool(command, source, *rest, both, "--kms-endpoint", "kp=unix:///nowhere/kms.sock")
    assert ran.code == 5
    assert "no socket at /nowhere/kms.sock (ENOENT)" in ran.stderr


# --- key files ------------------------------------------------------------------------------------------------------


def test_odd_key_files_are_named(snaptool: Snaptool, both: Path, source: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, problem in [
        (Path("/dev/zero"), "a device, not a file"),
        (Path("/dev/null"), "a device, not a file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "nowhere", "No such file or directory"),
        (pipe, "not a JSON document"),  # nobody writes to it
    ]:
        ran = snaptool("inspect", source, "--config", both, "--dek-file", path)
        assert ran.code == 2, (path, ran.text)
        assert problem in ran.stderr
        assert str(path) in ran.stderr


def test_a_key_file_beyond_the_limit_is_refused_and_not_cut(
    snaptool: Snaptool, both: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snaptool.cli.options._LARGEST_KEY_FILE", 1 << 20)
    whole = '{"format": "snaptool/kms-keys/1", "keys": {}}'
    fits = snaptool.write("fits.json", whole + " " * ((1 << 20) - len(whole)))
    beyond = snaptool.write("beyond.json", whole + " " * ((1 << 20) - len(whole) + 1))
    assert snaptool("inspect", source, "--config", both, "--dek-file", fits).code == 0
    ran = snaptool("inspect", source, "--config", both, "--dek-file", beyond)
    assert ran.code == 2
    assert "beyond.json has more than 1,048,576 bytes" in ran.stderr


def test_a_key_file_that_every_user_can_read_is_mentioned(snaptool: Snaptool, both: Path, source: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        keys = Path(folder) / "keys.json"
        keys.write_text('{"format": "snaptool/kms-keys/1"}')
        for mode, said in ((0o600, False), (0o640, False), (0o604, True)):
            keys.chmod(mode)
            ran = snaptool("inspect", source, "--config", both, "--dek-file", keys)
            assert (f"{keys} holds keys, and every user of this machine can read it" in ran.stderr) == said


def test_keys_come_from_a_pipe_too(snaptool: Snaptool, both: Path, source: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        pipe.write('{"format": "snaptool/kms-keys/1"}')
    ran = snaptool("inspect", source, "--config", both, "--dek-file", f"/dev/fd/{reading}")
    os.close(reading)
    assert ran.code == 0, ran.text
