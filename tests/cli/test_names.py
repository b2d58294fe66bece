"""What is what in a snapshot: prefixes, neighbours, names of keys and names of resources, from real situations.

Inputs: tests/golden/cases, and snapshots made here of keys and values.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from snaptool.operations.opening import open_snapshot
from tests.support.cli import GOLDEN, SAMPLES, Snaptool
from tests.support.kms_snapshots import database
from tests.support.snapshots import config, envelope

CASES = GOLDEN / "cases"
SECRET = envelope("v1", "Secret", b"\n\x05\n\x03one")
NAMESPACE = envelope("v1", "Namespace", b"\n\x05\n\x03one")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new.db"


def stored(path: Path) -> dict[bytes, bytes]:
    """Return the last value of every key."""
    found = {}
    with open_snapshot(path) as opened:
        for records in opened.snapshot.chunks():
            for row in range(len(records)):
                found[records.user_key(row)] = records.value(row)
    return found


# --- prefixes -------------------------------------------------------------------------------------------------------


def test_the_advice_about_prefixes_when_followed_leaves_no_secret_in_plaintext(
    snaptool: Snaptool, target: Path
) -> None:
    """Nothing under them is an object, so that they are no evidence of a prefix; the advice has it all the same."""
    new = snaptool.write("new.yaml", config("secretbox"))
    content = {f"{prefix}/secrets/shop/a".encode(): SECRET[:-6] for prefix in ("/x/y", "/a" + "/b" * 18)}
    source = snapshot(snaptool, content)
    refused = snaptool("rewrite", source, target, "--new-config", new)
    assert refused.code == 3
    options = refused.stderr.partition("say all prefixes: ")[2].split()
    assert options == ["--etcd-prefix", "/a" + "/b" * 18, "--etcd-prefix", "/x/y"]
    ran = snaptool("rewrite", source, target, "--new-config", new, *options, makes=[target])
    assert ran.code == 0
    assert all(value.startswith(b"k8s:enc:secretbox:") for value in stored(target).values())


def test_keys_without_a_slash_are_under_no_prefix_that_could_be_given(snaptool: Snaptool, target: Path) -> None:
    source = snapshot(snaptool, {b"registry/secrets/shop/a": SECRET})
    refused = snaptool("rewrite", source, target, "--new-config", snaptool.write("new.yaml", config("secretbox")))
    assert refused.code == 3
    assert "--etcd-prefix" not in refused.stderr
    assert "do not begin with a slash" in refused.stderr


@pytest.mark.parametrize("prefix", [b"/\xff\xfe", b"/a b", b"/x\x1b[31m"])
def test_prefixes_of_any_bytes(snaptool: Snaptool, target: Path, prefix: bytes) -> None:
    content = {prefix + b"/secrets/shop/a": SECRET, prefix + b"/namespaces/shop": NAMESPACE}
    source, new = snapshot(snaptool, content), snaptool.write("new.yaml", config("secretbox"))
    ran = snaptool("rewrite", source, target, "--new-config", new, makes=[target])
    assert ran.code == 0
    assert stored(target)[prefix + b"/secrets/shop/a"].startswith(b"k8s:enc:secretbox:")
    for command in ("inspect", "verify", "list", "export"):
        words = ("-A",) if command == "export" else ("-o", "json")
        assert snaptool(command, target, "--config", new, *words, shows_secrets=True).code == 0, command


@pytest.mark.parametrize("name", ["garden.db", "garden-clear.db"])
def test_two_prefixes_are_found_shown_and_encrypted_together(snaptool: Snaptool, target: Path, name: str) -> None:
    case = CASES / "two-prefixes"
    words = ("--config", case / "old.yaml", "--new-config", case / "new.yaml", "-o", "json")
    ran = snaptool("rewrite", case / name, target, *words, makes=[target])
    assert ran.code == 0
    assert ran.json["prefixes"] == ["/registry", "/registry-gardener"]
    assert b"PRIVATE" not in target.read_bytes()
    assert all(b"k8s:enc:secretbox" in value for key, value in stored(target).items() if b"secrets/" in key)
    assert snaptool("inspect", target, "-o", "json").json["prefixes"] == ["/registry", "/registry-gardener"]
    assert "prefixes: /registry, /registry-gardener" in snaptool("inspect", target).stdout
    checked = snaptool("verify", target, "--config", case / "new.yaml", "-o", "json")
    assert (checked.code, checked.json["prefixes"]) == (0, ["/registry", "/registry-gardener"])


def test_plaintext_under_a_second_prefix_is_an_error_of_verify(snaptool: Snaptool) -> None:
    case = CASES / "two-prefixes"
    ran = snaptool("verify", case / "garden-clear.db", "--config", case / "new.yaml", "-o", "json")
    assert ran.code == 3
    (found,) = [one for one in ran.json["findings"] if one["code"] == "plaintext"]
    assert found["severity"] == "error"
    assert "internalsecrets.core.gardener.cloud" in str(found)


@pytest.mark.parametrize("name", ["new.yaml", "newstar.yaml"])
def test_neighbours_keep_every_byte_under_any_configuration(snaptool: Snaptool, target: Path, name: str) -> None:
    case = CASES / "neighbours"
    words = ("--config", case / "old.yaml", "--new-config", case / name, "-o", "json")
    ran = snaptool("rewrite", case / "custom.db", target, *words, makes=[target])
    assert (ran.code, ran.json["prefixes"]) == (0, ["/k8s-prod"])
    before, after = stored(case / "custom.db"), stored(target)
    foreign = [key for key in before if key.startswith((b"/calico/", b"/apisix/"))]
    assert len(foreign) == 4
    assert [after[key] for key in foreign] == [before[key] for key in foreign]
    assert all(b"k8s:enc:secretbox" in value for key, value in after.items() if key.startswith(b"/k8s-prod/secrets/"))


def snapshot(snaptool: Snaptool, pairs: dict[bytes, bytes]) -> Path:
    return database(snaptool.folder / "made.db", [(key, value, b"") for key, value in pairs.items()])


OURS = {b"/registry/namespaces/default": NAMESPACE, b"/registry/secrets/default/a": SECRET}


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        (b"/copy/secrets/default/a", SECRET, "/copy"),
        (b"/copy/secrets/default/a", b"k8s:enc:aescbc:v1:k:" + bytes(32), "/copy"),
        (b"/copy/secrets/default/a", b'{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}', "/copy"),
        (b"/copy/agg.example.com/things/default/a", b"k8s:enc:aescbc:v1:k:" + bytes(32), "/copy"),
        (b"/copy/x", b"k8s:enc:aescbc:v1:k:" + bytes(32), "/copy"),
        (b"/copy/x/y", SECRET, "/copy"),
    ],
)
def test_values_of_kubernetes_outside_stop_the_run_and_the_hint_followed_takes_them_in(
    snaptool: Snaptool, target: Path, key: bytes, value: bytes, place: str
) -> None:
    source = snapshot(snaptool, {**OURS, key: value})
    new = snaptool.write("new.yaml", config("secretbox"))
    words = ("rewrite", source, target, "--new-config", new)
    ran = snaptool(*words)
    assert ran.code == 3
    hint = ran.stderr.splitlines()[-1]
    options = [word for pair in hint.split(" --etcd-prefix ")[1:] for word in ("--etcd-prefix", pair)]
    assert options == ["--etcd-prefix", "/registry", "--etcd-prefix", place]
    assert snaptool(*words, "-o", "json").json["error"]["code"] == "outside_prefixes"
    found = snaptool("verify", source, "-o", "json").json["findings"]
    assert "outside_prefixes" in {one["code"] for one in found}
    assert "outside_prefixes" in {one["code"] for one in snaptool("inspect", source, "-o", "json").json["findings"]}
    again = snaptool(*words, *options, "--dry-run", "-o", "json")
    assert again.json.get("error", {}).get("code") != "outside_prefixes"


HOSTILE = {
    b"/x/secrets/a": b"not an object",
    b"/x/secrets/b/c": b'{"kind":"Other","apiVersion":"v1"}',
    b"/secrets/a/b": b'{"user":"x"}',
    b"/registry-x/configmaps/a/b": b'{"a":1}',
    b"/registry/foo/bar": b'{"plain":"json"}',
    b"/registry/foo/baz/x": b"text",
    b"/registry": b"x",
    b"/service/patroni/leader": b"node-1",
    b"/calico/resources/v3/projectcalico.org/nodes/a": b'{"kind":"Node","apiVersion":"projectcalico.org/v3"}',
    b"registry/secrets/a/b": b"x",
    b"\xff/secrets/x": b"x",
}


def test_hostile_neighbours_and_foreign_values_in_a_prefix_keep_every_byte(snaptool: Snaptool, target: Path) -> None:
    ours = {**OURS, b"/registry/newthings/default/a": envelope("new.k8s.io/v1", "NewThing", b"\n\x03\n\x01a")}
    source = snapshot(snaptool, {**HOSTILE, **ours})
    new = snaptool.write("new.yaml", config("secretbox", resources='"*.*"'))
    ran = snaptool("rewrite", source, target, "--new-config", new, "-o", "json", makes=[target])
    assert (ran.code, ran.json["prefixes"]) == (0, ["/registry"])
    after = stored(target)
    assert {key: after[key] for key in HOSTILE} == HOSTILE
    assert all(after[key].startswith(b"k8s:enc:secretbox:v1:") for key in ours)


@pytest.mark.parametrize("given", ["/", "/registry/../", "/a"])
def test_given_prefixes_that_leave_out_a_found_one_stop_the_run(snaptool: Snaptool, target: Path, given: str) -> None:
    source = snapshot(snaptool, {**OURS, b"/a/secrets/default/a": SECRET, b"/secrets/default/a": SECRET})
    new = snaptool.write("new.yaml", config("secretbox"))
    ran = snaptool("rewrite", source, target, "--new-config", new, "--etcd-prefix", given)
    assert ran.code == 3
    assert "/registry (namespaces, secrets: 2 in plaintext)" in ran.stderr


def test_damaged_objects_prove_a_usual_prefix_and_no_other(snaptool: Snaptool) -> None:
    source = snapshot(snaptool, {b"/registry/secrets/default/a": b"k8s\0damaged"})
    assert snaptool("inspect", source, "-o", "json").json["prefixes"] == ["/registry"]
    other = database(snaptool.folder / "other.db", [(b"/k8s/secrets/default/a", b"k8s\0damaged", b"")])
    found = snaptool("inspect", other, "-o", "json").json
    assert found["prefixes"] == []
    assert "outside_prefixes" in {one["code"] for one in found["findings"]}


# --- names of keys --------------------------------------------------------------------------------------------------


def secrets_of(document: dict[str, Any]) -> dict[str, tuple[bool, Any, Any]]:
    rows = [row for row in document["census"] if row["resource"] == "secrets"]
    return {row["key_name"]: (row["key_name_certain"], row["opens"], row["lost"]) for row in rows}


NEWER, OLDER = "aescbckey-2026-03-09T09:58:01+01:00", "aescbckey-2026-03-09T09:46:54+01:00"


def test_names_with_colons_are_whole_where_a_configuration_has_them(snaptool: Snaptool) -> None:
    case = CASES / "rotated-within-an-hour"
    source = case / "etcd-snapshot-node-1"
    both = snaptool("inspect", source, "--config", case / "both.yaml", "-o", "json")
    assert secrets_of(both.json) == {NEWER: (True, 3, 0), OLDER: (True, 1, 0)}
    one = snaptool("inspect", source, "--config", case / "have.yaml", "-o", "json")
    assert secrets_of(one.json) == {NEWER: (True, 3, 0), OLDER: (False, 0, 1)}
    assert [(lost["key_name"], lost["key_name_certain"]) for lost in one.json["lost"]] == [(OLDER, False)]


def test_without_a_configuration_a_name_is_what_all_values_have_in_common_and_marked(snaptool: Snaptool) -> None:
    source = CASES / "rotated-within-an-hour" / "etcd-snapshot-node-1"
    assert secrets_of(snaptool("inspect", source, "-o", "json").json) == {
        "aescbckey-2026-03-09T09": (False, None, None)
    }
    text = snaptool("inspect", source).stdout
    assert "aescbckey-2026-03-09T09:… " in text
    assert "the name of the key may go on" in text


def test_a_plain_name_is_not_marked_in_text(snaptool: Snaptool) -> None:
    text = snaptool("inspect", snaptool.sample("aescbc-cluster.db")).stdout
    assert " key1 " in text
    assert "…" not in text


# --- names of resources ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("singular", "secrets"),
        ("crd-singular", "tokens.management.cattle.io"),
        ("slash", "tokens.management.cattle.io"),
    ],
)
def test_a_name_that_matches_no_key_is_said_with_what_was_meant(
    snaptool: Snaptool, target: Path, name: str, meant: str
) -> None:
    case = CASES / "resource-names"
    wrong = case / f"{name}.yaml"
    entry = json.loads(wrong.read_text())["resources"][0]["resources"][0]
    words = ("rewrite", case / "clear.db", target, "--new-config", wrong, "--dry-run")
    said = f"{entry} matches no key in this snapshot"
    text = snaptool(*words).stdout
    assert said in text
    assert f"did you mean {meant}?" in text
    (unmatched,) = snaptool(*words, "-o", "json").json["unmatched"]
    assert (unmatched["resource"], unmatched["meant"]) == (entry, [meant])
    ran = snaptool("verify", case / "clear.db", "--config", wrong, "-o", "json")
    (found,) = [one for one in ran.json["findings"] if one["code"] == "misnamed_resource"]
    assert ran.code == 3
    assert f"did you mean {meant}?" in found["problem"]
    assert f"did you mean {meant}?" in snaptool("config", "check", wrong).text


def test_a_right_name_without_a_key_is_a_note(snaptool: Snaptool) -> None:
    text = (SAMPLES / "aescbc.yaml").read_text()
    new = snaptool.write("new.yaml", text.replace("  - secrets\n", "  - secrets\n  - limitranges\n"))
    ran = snaptool("verify", snaptool.sample("aescbc-cluster.db"), "--config", new, "-o", "json")
    assert [(one["code"], one["severity"]) for one in ran.json["findings"]] == [("unmatched_resource", "note")]
    assert ran.code == 0


# --- several new configurations -------------------------------------------------------------------------------------


SERVERS = ("kube-apiserver", "openshift-apiserver", "openshift-oauth-apiserver")


def test_each_api_server_has_its_configuration_and_all_of_them_count(snaptool: Snaptool, target: Path) -> None:
    case = CASES / "three-api-servers"
    news = [word for name in SERVERS for word in ("--new-config", case / name)]
    ran = snaptool("rewrite", case / "plain.db", target, *news, "-o", "json", makes=[target])
    assert (ran.code, ran.json["prefixes"]) == (0, ["/kubernetes.io", "/openshift.io"])
    named = [
        name
        for server in SERVERS
        for entry in json.loads((case / server).read_text())["resources"]
        for name in entry["resources"]
    ]
    unmatched = {one["resource"] for one in ran.json["unmatched"]}
    encrypted = {change["resource"] for change in ran.json["values"] if change["to"]["provider"] == "aescbc"}
    assert encrypted == set(named) - unmatched
    assert {"secrets", "configmaps", "oauthaccesstokens.oauth.openshift.io"} == encrypted
    reads = [word for name in SERVERS for word in ("--config", case / name)]
    assert snaptool("inspect", target, *reads, "-o", "json").json["lost"] == []


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("secrets", "secrets", "secrets"),
        ("secrets", '"secrets."', "secrets"),
        ('"*.*"', "secrets", "*.* and secrets"),
        ("deployments.apps", '"*.apps"', "deployments.apps and *.apps"),
    ],
)
def test_a_resource_that_two_files_name_is_refused(
    snaptool: Snaptool, target: Path, first: str, second: str, said: str
) -> None:
    one = snaptool.write("one.yaml", config("secretbox", resources=first))
    other = snaptool.write("other.yaml", config("aescbc", resources=second))
    source = snaptool.sample("aescbc-cluster.db")
    ran = snaptool("rewrite", source, target, "--new-config", one, "--new-config", other)
    assert ran.code == 2
    assert f"both name {said}:" in ran.stderr
    assert str(one) in ran.stderr
    assert str(other) in ran.stderr


def test_a_misnamed_resource_is_said_however_quiet(snaptool: Snaptool, target: Path) -> None:
    source, new = snapshot(snaptool, OURS), snaptool.write("new.yaml", config("secretbox", resources="secret"))
    ran = snaptool("rewrite", source, target, "--new-config", new, "-q", makes=[target])
    assert (ran.code, ran.stdout) == (0, "")
    assert "did you mean secrets?" in ran.stderr
