"""list, get, history and diff as their users run them: output, exit codes, and what each of them refuses."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.cli import SAMPLES, Snaptool
from tests.support.stored import write_history
from tests.unit.operations.builders import OBJECT

LOST, LOST_KEYS = SAMPLES / "lost-key.db", SAMPLES / "lost-key.yaml"
MIXED, MIXED_KEYS = SAMPLES / "mixed-providers.db", SAMPLES / "mixed.yaml"
CLUSTER, CLUSTER_KEYS = SAMPLES / "aescbc-cluster.db", SAMPLES / "aescbc.yaml"


# --- list -----------------------------------------------------------------------------------------------------------


def test_list_of_a_type_has_kubectls_columns(snaptool: Snaptool) -> None:
    ran = snaptool("list", LOST, "secrets", "-n", "kube-system")
    assert ran.code == 0
    assert ran.stdout == (
        "NAMESPACE    NAME                    REVISION  PROVIDER  KEY         SIZE\n"
        "kube-system  bootstrap-token-abcdef        21  aescbc    year-2025    556\n"
        "kube-system  metrics-reader-token          22  aescbc    year-2025  1,324\n"
    )


def test_list_of_everything_is_grouped_by_resource(snaptool: Snaptool) -> None:
    ran = snaptool("list", MIXED, "-n", "shop")
    groups = [block.splitlines()[0] for block in ran.stdout.split("\n\n")]
    assert groups == ["configmaps", "events", "widgets.example.com", "pods", "secrets"]
    assert snaptool("list", MIXED, "-A").stdout == snaptool("list", MIXED).stdout
    assert snaptool("list", MIXED, "-A", "-n", "shop").stdout == snaptool("list", MIXED).stdout


def test_cluster_scoped_types_have_no_namespace_column(snaptool: Snaptool) -> None:
    lines = snaptool("list", MIXED, "ns").stdout.splitlines()
    assert lines[0].split() == ["NAME", "REVISION", "PROVIDER", "KEY", "SIZE"]
    assert [line.split()[0] for line in lines[1:]] == [
        "default",
        "kube-node-lease",
        "kube-public",
        "kube-system",
        "shop",
    ]


def test_list_of_names_is_what_get_and_history_take(snaptool: Snaptool) -> None:
    ran = snaptool("list", MIXED, "-n", "shop", "-o", "name")
    names = ran.stdout.splitlines()
    assert len(names) == 17
    assert {"secret/queue", "configmap/settings", "widgets.example.com/banner"} <= set(names)
    assert snaptool("list", MIXED, "leases", "-o", "name").stdout == (
        "lease.coordination.k8s.io/node-1\nlease.coordination.k8s.io/node-2\n"
    )
    for name in names:
        assert snaptool("history", MIXED, name, "-n", "shop").code == 0


def test_list_wide_shows_version_and_etcd_key(snaptool: Snaptool) -> None:
    ran = snaptool("list", LOST, "secrets", "-n", "shop", "-o", "wide")
    row = next(line for line in ran.stdout.splitlines() if "rewritten-since" in line)
    assert row.split() == [
        *("shop", "rewritten-since", "36", "aescbc", "year-2026", "396", "3"),
        "/registry/secrets/shop/rewritten-since",
    ]


def test_list_json_is_one_document(snaptool: Snaptool) -> None:
    found = snaptool("list", MIXED, "/registry/secrets/shop/recreated", "--all-revisions", "-o", "json").json
    assert (found["revision"], found["lost"], len(found["items"])) == (56, 0, 3)
    assert found["items"][1] == {
        "key": "/registry/secrets/shop/recreated",
        "resource": "secrets",
        "namespace": "shop",
        "name": "recreated",
        "revision": 46,
        "sub": 0,
        "version": 0,
        "live": False,
        "deleted": True,
        "provider": None,
        "key_name": None,
        "size": 0,
        "opens": None,
        "undecodable": None,
        "stale": None,
        "reasons": [],
        "explanation": "",
        "server_error": "",
    }
    assert snaptool("list", MIXED, "/nothing", "-o", "json").json["items"] == []


def test_list_lost_explains_and_exits_3(snaptool: Snaptool) -> None:
    ran = snaptool("list", LOST, "--lost", "--config", LOST_KEYS, "--jobs", "1")
    assert ran.code == 3
    assert ran.stdout == (
        "secrets\n"
        "NAMESPACE  NAME             REVISION  PROVIDER  KEY        STATE\n"
        "shop       never-rewritten        19  aescbc    year-2024  LOST\n"
        "shop       written-last           38  aescbc    year-2024  LOST\n"
        "\n"
        "2 lost: the configuration has aescbc keys for it, but none with the name 'year-2024'\n"
        "    kube-apiserver says: no matching key was found for the provided AES transformer\n"
        "\n"
        "2 Secrets in namespace shop are lost (none has an older revision that opens), 1 more only loses history.\n"
        "Next: look for the missing key, and give it with a further --config; only if that fails, this deletes 2 "
        "objects and cuts 1 history:\n"
        f"    snaptool rewrite {LOST} new.db --config {LOST_KEYS} --undecryptable delete\n"
    )
    assert "older revisions are lost too: 1; --all-revisions lists them" in ran.stderr


def test_list_lost_json_has_code_sentence_and_the_servers_words(snaptool: Snaptool) -> None:
    arguments = ("list", LOST, "--lost", "--all-revisions", "--config", LOST_KEYS, "--jobs", "1", "-o", "json")
    found = snaptool(*arguments).json
    assert [(item["name"], item["revision"], item["live"]) for item in found["items"]] == [
        ("never-rewritten", 19, True),
        ("rewritten-since", 20, False),
        ("written-last", 38, True),
    ]
    assert found["items"][1]["reasons"] == ["unknown_key_name"]
    assert "none with the name 'year-2024'" in found["items"][1]["explanation"]
    assert found["items"][1]["server_error"] == "no matching key was found for the provided AES transformer"


def test_with_every_key_nothing_is_lost(snaptool: Snaptool) -> None:
    keys = ("--config", LOST_KEYS, "--config", SAMPLES / "found-key.yaml")
    ran = snaptool("list", LOST, "--lost", *keys, "--jobs", "1")
    assert (ran.code, ran.stdout) == (0, "")
    assert "no value is lost" in ran.stderr


def test_lost_without_a_configuration_is_wrong_usage(snaptool: Snaptool) -> None:
    ran = snaptool("list", LOST, "--lost")
    assert ran.code == 2
    assert "--lost needs --config" in ran.stderr


def test_an_unknown_type_is_refused_with_the_likely_one(snaptool: Snaptool) -> None:
    ran = snaptool("list", LOST, "secretes")
    assert ran.code == 2
    assert "secrets" in ran.stderr


# --- get ------------------------------------------------------------------------------------------------------------


def test_get_shows_a_secret_as_yaml(snaptool: Snaptool) -> None:
    ran = snaptool("get", LOST, "secret", "smtp", "-n", "shop", "--config", LOST_KEYS, shows_secrets=True)
    assert ran.code == 0
    found = yaml.safe_load(ran.stdout)
    assert list(found) == ["apiVersion", "data", "kind", "metadata", "type"]
    assert (found["metadata"]["name"], found["data"]["username"], found["type"]) == ("smtp", "c210cA==", "Opaque")
    assert ran.stderr == (
        "snaptool: /registry/secrets/shop/smtp at revision 29, the current value, "
        f"opened by aescbc year-2025 of {LOST_KEYS}\n"
    )


def test_get_takes_a_key_and_a_type_with_a_name_alike(snaptool: Snaptool) -> None:
    wanted = snaptool("get", MIXED, "cm", "settings", "-n", "shop", "--revision", "32")
    assert wanted.code == 0
    assert "settings.ini: |\n    [shop]\n    currency = EUR\n" in wanted.stdout
    for words in (("configmap/settings", "-n", "shop"), ("/registry/configmaps/shop/settings",)):
        assert snaptool("get", MIXED, *words, "--revision", "32").stdout == wanted.stdout


def test_get_json_is_the_object(snaptool: Snaptool) -> None:
    found = snaptool("get", MIXED, "widgets.example.com", "banner", "-n", "shop", "-o", "json").json
    assert (found["kind"], found["spec"]) == ("Widget", {"text": "hello"})


def test_get_value_and_stored_are_bytes(snaptool: Snaptool) -> None:
    assert snaptool("get", CLUSTER, "compact_rev_key", "-o", "value").stdout == "1"
    stored = subprocess.run(
        [sys.executable, "-m", "snaptool", "get", str(MIXED), "secret/queue", "-n", "shop", "-o", "stored"],
        capture_output=True,
        check=True,
    ).stdout
    assert stored.startswith(b"k8s:enc:aesgcm:v1:gcm-2025:")
    assert len(stored) == 375


def test_a_value_in_default_needs_no_namespace(snaptool: Snaptool) -> None:
    ran = snaptool("get", MIXED, "secret", "forgotten", "-v", shows_secrets=True)
    assert ran.code == 0
    assert yaml.safe_load(ran.stdout)["metadata"]["namespace"] == "default"
    assert "looking in namespace default, as kubectl does; -n names another" in ran.stderr
    assert "in plaintext" in ran.stderr


def test_a_lost_value_exits_3_and_says_why(snaptool: Snaptool) -> None:
    ran = snaptool("get", LOST, "secret", "written-last", "-n", "shop", "--config", LOST_KEYS)
    assert (ran.code, ran.stdout) == (3, "")
    assert "does not open: the configuration has aescbc keys for it, but none with the name 'year-2024'" in ran.stderr
    assert "kube-apiserver says: no matching key was found for the provided AES transformer" in ran.stderr
    ran = snaptool("get", LOST, "secret", "written-last", "-n", "shop")
    assert (ran.code, ran.stdout) == (3, "")
    assert "no configuration was given" in ran.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("secret", "smtp"), "found in namespace shop; choose with -n"),
        (("secret", "nothing"), "`snaptool list SNAPSHOT secrets` shows which there are"),
        (("/registry/nothing",), "there is no such key"),
        (("secret", "smtp", "-n", "shop", "--revision", "28"), "its oldest record is of revision 29, after 28"),
        (("a", "b", "c"), "no resource is called 'a'"),
    ],
)
def test_what_is_not_there_exits_2_with_advice(snaptool: Snaptool, words: tuple[str, ...], said: str) -> None:
    ran = snaptool("get", LOST, *words)
    assert (ran.code, ran.stdout) == (2, "")
    assert said in ran.stderr


def on_a_terminal(*arguments: str | Path) -> tuple[subprocess.CompletedProcess[bytes], str]:
    """Run a command whose stdout is a terminal; return how it ended and what the terminal got."""
    leader, follower = pty.openpty()
    try:
        words = [sys.executable, "-m", "snaptool", *map(str, arguments)]
        ran = subprocess.run(words, stdout=follower, stderr=subprocess.PIPE, check=False)
        os.write(follower, b"$")
        shown = os.read(leader, 1 << 16).decode()
    finally:
        os.close(leader)
        os.close(follower)
    return ran, shown.removesuffix("$").replace("\r\n", "\n")


@pytest.mark.parametrize(("output", "code"), [("stored", 2), ("value", 2), ("yaml", 0)])
def test_a_terminal_gets_no_binary(output: str, code: int) -> None:
    ran, shown = on_a_terminal("get", MIXED, "secret/queue", "-n", "shop", "--config", MIXED_KEYS, "-o", output)
    assert ran.returncode == code
    if code:
        assert shown == ""
        assert b"is binary" in ran.stderr
        assert b"redirect it to a file" in ran.stderr
    else:
        assert shown.startswith("apiVersion: v1\n")


@pytest.mark.parametrize("output", ["yaml", "json"])
def test_text_that_a_terminal_would_obey_is_escaped_there_and_is_kubectls_in_a_pipe(
    snaptool: Snaptool, output: str
) -> None:
    text = "\x9b31m right \u202e left"
    content = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n"}, "data": {"a": text}}
    plaintext = json.dumps(content, ensure_ascii=False).encode()
    path = write_history(snaptool.folder / "db", [(b"/registry/configmaps/default/n", plaintext)])
    ran, shown = on_a_terminal("get", path, "cm", "n", "-o", output)
    assert ran.returncode == 0
    assert "\x9b" not in shown
    assert "\u202e" not in shown
    piped = snaptool("get", path, "cm", "n", "-o", output).stdout
    assert "\u202e" in piped
    for printed in (shown, piped):
        read = yaml.safe_load if output == "yaml" else json.loads
        assert read(printed)["data"] == {"a": text}


def test_keys_that_a_terminal_would_obey_are_escaped(snaptool: Snaptool) -> None:
    path = write_history(snaptool.folder / "db", [(b"/registry/pods/a\x1b[2J/b\nc\xff", OBJECT), (b"\x1b]0;x", OBJECT)])
    for arguments in (("list", path), ("list", path, "-o", "wide"), ("list", path, "-o", "name")):
        out = snaptool(*arguments).stdout
        assert "\x1b" not in out
        assert "\\x1b" in out
    assert "\x1b" not in snaptool("get", path, b"\x1b]0;y".decode()).stderr


# --- history --------------------------------------------------------------------------------------------------------


def test_history_shows_every_revision(snaptool: Snaptool) -> None:
    ran = snaptool("history", LOST, "secret", "rewritten-since", "-n", "shop", "--config", LOST_KEYS)
    assert ran.code == 3
    lines = ran.stdout.splitlines()
    assert lines[:2] == ["/registry/secrets/shop/rewritten-since", "the store is at revision 38, never compacted"]
    rows = [line.split() for line in lines[3:7]]
    assert rows[0] == ["REVISION", "EVENT", "VERSION", "PROVIDER", "KEY", "SIZE", "CONTENT", "STATE"]
    assert rows[1] == ["20", "put", "1", "aescbc", "year-2024", "396", "-", "old,", "LOST"]
    assert rows[2] == ["35", "put", "2", "aescbc", "year-2025", "396", "1", "old,", "stale"]
    assert rows[3] == ["36", "put", "3", "aescbc", "year-2026", "396", "2", "current"]
    assert "1 lost: the configuration has aescbc keys for it, but none with the name 'year-2024'" in ran.stdout


def test_history_without_keys_is_no_finding(snaptool: Snaptool) -> None:
    ran = snaptool("history", LOST, "secret", "rewritten-since", "-n", "shop")
    assert ran.code == 0
    assert "LOST" not in ran.stdout


def test_history_json_tells_deletions_and_equal_contents(snaptool: Snaptool) -> None:
    arguments = ("secret", "recreated", "-n", "shop", "--config", MIXED_KEYS, "-o", "json")
    found = snaptool("history", MIXED, *arguments).json
    assert (found["key"], found["revision"], found["compacted_revision"]) == (
        "/registry/secrets/shop/recreated",
        56,
        39,
    )
    assert [(one["revision"], one["event"], one["version"], one["key_name"]) for one in found["revisions"]] == [
        (42, "put", 1, "cbc-2025"),
        (46, "delete", 0, None),
        (48, "put", 1, "box-2026"),
    ]
    assert [one["opens"] for one in found["revisions"]] == [True, None, True]
    assert len(found["revisions"][0]["digest"]) == 32


def test_digests_of_a_history_say_nothing_of_a_guessed_content(snaptool: Snaptool) -> None:
    arguments = ("history", MIXED, "secret", "recreated", "-n", "shop", "--config", MIXED_KEYS, "-o", "json")
    first, second = ([one["digest"] for one in snaptool(*arguments).json["revisions"]] for _ in range(2))
    assert [one is None for one in first] == [False, True, False]
    assert first[0] != first[2]
    assert set(first) & set(second) == {None}, "with another key in each run"


# --- diff -----------------------------------------------------------------------------------------------------------


def test_diff_of_the_same_is_0(snaptool: Snaptool) -> None:
    ran = snaptool("diff", LOST, LOST)
    assert ran.code == 0
    assert ran.stdout == "34 stored alike, 0 re-encrypted only, 0 added, 0 removed, 0 changed, 0 undecided\n"


def test_diff_after_a_rewrite_is_re_encrypted_only_and_0(snaptool: Snaptool) -> None:
    target, new = snaptool.folder / "new.db", SAMPLES / "secretbox.yaml"
    assert snaptool("rewrite", CLUSTER, target, "--config", CLUSTER_KEYS, "--new-config", new, makes=[target]).code == 0
    keys = ("--config-a", CLUSTER_KEYS, "--config-b", new, "--jobs", "1")
    ran = snaptool("diff", CLUSTER, target, *keys)
    assert ran.code == 0
    assert ran.stdout == (
        "9 secrets re-encrypted only: aescbc key1 to secretbox key1\n"
        "22 stored alike, 9 re-encrypted only, 0 added, 0 removed, 0 changed, 0 undecided\n"
    )
    assert snaptool("diff", CLUSTER, target, *keys[:2], *keys[4:]).code == 3
    found = snaptool("diff", CLUSTER, target, *keys, "-o", "json").json
    assert {name: len(found[name]) for name in ("added", "removed", "changed", "re_encrypted", "undecided")} == {
        "added": 0,
        "removed": 0,
        "changed": 0,
        "re_encrypted": 9,
        "undecided": 0,
    }
    assert found["same"] == 22


def test_diff_lists_what_differs_and_is_1(snaptool: Snaptool) -> None:
    keys = ("--config-a", CLUSTER_KEYS, "--config-b", MIXED_KEYS, "--jobs", "1")
    ran = snaptool("diff", CLUSTER, MIXED, *keys)
    assert ran.code == 1
    assert (
        "removed secrets\n"
        "NAMESPACE  NAME  REVISION  STORED UNDER\n"
        "shop       smtp        27  aescbc key1\n"
        "\n"
        "changed configmaps\n"
        "NAMESPACE  NAME      REV A  REV B  A UNDER   B UNDER\n"
        "shop       settings     28     50  identity  secretbox box-2026\n"
    ) in ran.stdout
    assert ran.stdout.endswith(
        "7 secrets re-encrypted only: aescbc key1 to aescbc cbc-2024\n"
        "19 stored alike, 7 re-encrypted only, 10 added, 1 removed, 4 changed, 0 undecided\n"
    )


def test_diff_json_names_both_sides(snaptool: Snaptool) -> None:
    arguments = ("--config-a", CLUSTER_KEYS, "--config-b", MIXED_KEYS, "--jobs", "1", "-o", "json")
    found = snaptool("diff", CLUSTER, MIXED, *arguments).json
    assert (found["a"]["revision"], found["b"]["revision"]) == (38, 56)
    assert found["removed"] == [
        {
            "key": "/registry/secrets/shop/smtp",
            "resource": "secrets",
            "namespace": "shop",
            "name": "smtp",
            "a": {
                "revision": 27,
                "provider": "aescbc",
                "key_name": "key1",
                "size": 359,
                "explanation": "",
                "undecodable": None,
            },
            "b": None,
        }
    ]


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("list",), ("get", "ns", "shop"), ("history", "ns", "shop"), ("diff", str(LOST))])
def test_a_wrong_trailer_exits_4_unless_told_to_go_on(snaptool: Snaptool, command: tuple[str, ...]) -> None:
    path = snaptool.sample("lost-key.db")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes((content[-1] ^ 1,)))
    assert snaptool(command[0], path, *command[1:]).code == 4
    assert snaptool(command[0], path, *command[1:], "--skip-hash-check").code == 0


@pytest.mark.parametrize("command", [("list",), ("get", "ns", "shop"), ("history", "ns", "shop")])
def test_a_file_without_trailer_is_read(snaptool: Snaptool, command: tuple[str, ...]) -> None:
    assert snaptool(command[0], SAMPLES / "missing-trailer.db", *command[1:]).code == 0


def test_stdin_is_one_configuration_and_not_two(snaptool: Snaptool) -> None:
    keys = LOST_KEYS.read_bytes()
    ran = snaptool("list", LOST, "secrets", "--config", "-", "--jobs", "1", stdin=keys)
    assert ran.code == 3
    ran = snaptool("diff", LOST, LOST, "--config-a", "-", "--config-b", "-", stdin=keys)
    assert ran.code == 2


def test_examples_in_the_help_are_complete(snaptool: Snaptool) -> None:
    for command in ("list", "get", "history", "diff"):
        ran = snaptool(command, "--help")
        assert ran.code == 0
        assert f"Examples:\n    snaptool {command} " in ran.stdout
