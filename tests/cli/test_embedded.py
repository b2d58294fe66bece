"""Configurations inside snapshots, as a user sees them: found, opened, extracted, read with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from snaptool.cli import exits
from snaptool.etcd import KeyValue, Revision, encode_key_value, encode_revision_key
from snaptool.providers.config.rules import parse_config
from tests.support.cli import GOLDEN, Ran, Snaptool
from tests.support.history import make_snapshot

CONTAINERS = GOLDEN / "containers"
K3S = CONTAINERS / "plain" / "etcd-snapshot-node-1-1767323045"
OPENSHIFT = CONTAINERS / "openshift" / "dir" / "snapshot_2026-01-02_030405.db"
TWO = GOLDEN / "cases" / "field2" / "28-two-bootstrap-keys"
CLUSTER: dict[str, Any] = json.loads((CONTAINERS / "config" / "k3s-cluster.json").read_text())
OPENSHIFT_FACTS: dict[str, Any] = json.loads((CONTAINERS / "config" / "openshift.json").read_text())


@pytest.fixture
def token(snaptool: Snaptool) -> Path:
    return snaptool.write("token", CLUSTER["token"] + "\n")


def counts(ran: Ran) -> tuple[int, int]:
    """How many values open, and how many are lost, of those that are encrypted."""
    rows = [row for row in ran.json["census"] if row["provider"] != "identity"]
    return sum(row["opens"] for row in rows), sum(row["lost"] for row in rows)


def test_field_28_with_the_token_the_right_record_is_taken(snaptool: Snaptool) -> None:
    ran = snaptool("inspect", TWO / "two.db", "--embedded-config", "--token-file", TWO / "token", "-o", "json")
    assert ran.code == exits.DONE
    assert counts(ran) == (3, 0)
    assert "taken from /bootstrap/ad65e8565e5e, which opened with the token" in ran.stderr
    assert [(place["place"], place["opens"]) for place in ran.json["embedded"]] == [
        ("/bootstrap/e3b0c44298fc", "without a token"),
        ("/bootstrap/ad65e8565e5e", "with the token"),
    ]


def test_field_28_without_the_token_nothing_is_lost_for_good(snaptool: Snaptool) -> None:
    ran = snaptool("inspect", TWO / "two.db", "--embedded-config", "-o", "json")
    assert ran.code == exits.FINDINGS
    assert counts(ran) == (0, 3)
    assert "/bootstrap/ad65e8565e5e is newer and closed: its token is needed" in ran.stderr
    assert "/bootstrap/e3b0c44298fc opens without one and may be out of date" in ran.stderr
    text = snaptool("inspect", TWO / "two.db", "--embedded-config").text
    assert "nothing of it is lost for good" in text
    assert "delete" not in text


def test_k3s_snapshot_opens_with_its_token_alone(snaptool: Snaptool, token: Path) -> None:
    ran = snaptool("inspect", K3S, "--embedded-config", "--token-file", token, "-o", "json")
    assert ran.code == exits.FINDINGS  # the vector has an Event that is not a whole object
    assert ran.json["lost"] == []
    assert counts(ran) == (4, 0)
    (place,) = ran.json["embedded"]
    assert place["keys"] == [{"provider": "aescbc", "name": "aescbckey"}]
    assert place["state"] == "start"
    verified = snaptool("verify", K3S, "--embedded-config", "--token-file", token, "-o", "json")
    assert not [found for found in verified.json["findings"] if found["code"] == "lost"]


@pytest.mark.parametrize(
    "words",
    [["list", K3S, "secrets"], ["history", K3S, "secret", "s1"], ["diff", K3S, K3S]],
    ids=["list", "history", "diff"],
)
def test_every_reading_command_takes_what_is_inside(snaptool: Snaptool, token: Path, words: list[str | Path]) -> None:
    closed = snaptool(*words, "--embedded-config")
    assert closed.code == exits.USAGE
    assert "/bootstrap/69c4de406fab: its token is needed" in closed.stderr
    assert "--token-file" in closed.stderr
    ran = snaptool(*words, "--embedded-config", "--token-file", token, shows_secrets=True)
    assert "taken from /bootstrap/69c4de406fab" in ran.stderr
    assert "LOST" not in ran.stdout


def test_wrong_tokens_are_told_apart_by_hashes(snaptool: Snaptool) -> None:
    wrong = snaptool.write("wrong", "other")
    ran = snaptool("inspect", K3S, "--embedded-config", "--token-file", wrong)
    assert ran.code == exits.USAGE
    assert "the token is for /bootstrap/d9298a10d1b0; the snapshot has /bootstrap/69c4de406fab" in ran.stderr
    assert "other" not in ran.stderr.replace(str(wrong), "")
    none = snaptool("inspect", snaptool.sample("aescbc-cluster.db"), "--embedded-config")
    assert none.code == exits.USAGE
    assert "carries no configuration inside" in none.stderr
    shape = snaptool.write("shape", "abcdef.0123456789abcdef")
    ran = snaptool("inspect", K3S, "--embedded-config", "--token-file", shape, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "token_format")


def test_extract_writes_what_the_server_has(snaptool: Snaptool, token: Path) -> None:
    target = snaptool.folder / "out.yaml"
    ran = snaptool("config", "extract", K3S, "--token-file", token, "-f", target, makes=[target], shows_secrets=True)
    assert ran.code == exits.DONE
    assert target.stat().st_mode & 0o777 == 0o600
    assert parse_config(target.read_bytes()).entries == parse_config(CLUSTER["config"].encode()).entries
    assert counts(snaptool("inspect", K3S, "-c", target, "-o", "json")) == (4, 0)
    again = snaptool("config", "extract", K3S, "--token-file", token, "-f", target)
    assert again.code == exits.USAGE


def test_extract_says_with_its_exit_code_that_something_stayed_closed(snaptool: Snaptool) -> None:
    ran = snaptool("config", "extract", TWO / "two.db", shows_secrets=True)
    assert ran.code == exits.FINDINGS
    assert "kind: EncryptionConfiguration" in ran.stdout
    assert "is newer and closed" in ran.stderr


# --- OpenShift ------------------------------------------------------------------------------------------------------


def test_case_62_openshift_recover(snaptool: Snaptool) -> None:
    config = snaptool.write("kas.json", OPENSHIFT_FACTS["configs"]["openshift-kube-apiserver"])
    alone = snaptool("inspect", OPENSHIFT, "-c", config, "-o", "json")
    opened = {row["resource"]: row["opens"] for row in alone.json["census"] if row["provider"] != "identity"}
    assert sum(row["opens"] for row in alone.json["census"] if row["resource"] == "secrets") == 17
    assert opened["configmaps"] == 1
    assert counts(alone)[1] == 2
    ran = snaptool("inspect", OPENSHIFT, "-c", config, "--embedded-config", "-o", "json")
    assert ran.json["lost"] == []
    assert counts(ran) == (20, 0)
    target = snaptool.folder / "all.yaml"
    made = snaptool("config", "extract", OPENSHIFT, "-c", config, "-f", target, makes=[target], shows_secrets=True)
    assert made.code == exits.DONE
    assert counts(snaptool("inspect", OPENSHIFT, "-c", target, "-o", "json")) == (20, 0)
    # A configuration of each component, under the resources of that component alone.
    wanted = [parse_config(text.encode()) for text in OPENSHIFT_FACTS["configs"].values()]
    expected = {name: entry.providers for config in wanted for entry in config.entries for name in entry.resources}
    entries = {name: entry.providers for entry in parse_config(target.read_bytes()).entries for name in entry.resources}
    assert entries == expected


def test_static_resources_that_lie_elsewhere_are_named(snaptool: Snaptool) -> None:
    (beside,) = OPENSHIFT.parent.glob("static_kuberesources_*")
    elsewhere = snaptool.write("resources.tgz", beside.read_bytes())
    elsewhere.chmod(0o600)
    target = snaptool.folder / "all.yaml"
    words: list[str | Path] = ["config", "extract", OPENSHIFT, "--static-resources"]
    made = snaptool(*words, elsewhere, "-f", target, makes=[target], shows_secrets=True)
    assert made.code == exits.DONE
    assert counts(snaptool("inspect", OPENSHIFT, "-c", target, "-o", "json")) == (20, 0)
    for content in (b"nonsense", CONTAINERS.joinpath("tar", "no-snapshot.tar.gz").read_bytes()):
        ran = snaptool(*words, snaptool.write("other.tgz", content))
        assert ran.code == exits.USAGE
        assert "has no configuration of kube-apiserver" in ran.stderr


def test_case_63_openshift_same_number(snaptool: Snaptool) -> None:
    config = snaptool.write("kas.json", OPENSHIFT_FACTS["configs"]["openshift-kube-apiserver"])
    target = snaptool.folder / "all.yaml"
    snaptool("config", "extract", OPENSHIFT, "-c", config, "-f", target, makes=[target], shows_secrets=True)
    names = {}
    for entry in parse_config(target.read_bytes()).entries:
        keys = [key for provider in entry.providers for key in getattr(provider, "keys", ()) if key.name == "2"]
        assert len(keys) == 1, "one key 2 for a resource"
        names[entry.resources] = keys[0].secret
    assert len(set(names.values())) == 3


def test_closed_openshift_secrets_say_what_is_needed(snaptool: Snaptool) -> None:
    ran = snaptool("inspect", OPENSHIFT, "--embedded-config", "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.FINDINGS, "embedded_closed")
    assert "kube-apiserver" in ran.json["error"]["remedy"]
    assert "15 of them closed" in snaptool("inspect", OPENSHIFT).stdout


# --- files of the container -----------------------------------------------------------------------------------------


def test_case_62_openshift_recovers_with_the_file_beside_the_snapshot(snaptool: Snaptool) -> None:
    for source in (OPENSHIFT.parent, CONTAINERS / "openshift" / "backup.tar.gz"):
        ran = snaptool("inspect", source, "--embedded-config", "-o", "json")
        assert counts(ran) == (20, 0)
        places = [place["place"] for place in ran.json["embedded"] if place["opens"] == "as it is"]
        assert len(places) == 1
        assert places[0].endswith("kube-apiserver-pod-7/secrets/encryption-config/encryption-config")
        made = snaptool("config", "extract", source, shows_secrets=True)
        assert made.code == exits.DONE
        assert "oauthaccesstokens.oauth.openshift.io" in made.stdout


def test_case_64_rkestate_beside_the_snapshot_opens_it(snaptool: Snaptool) -> None:
    (source,) = (CONTAINERS / "zip" / "rke1").iterdir()
    ran = snaptool("inspect", source, "--embedded-config", "-o", "json")
    assert counts(ran) == (4, 0)
    (state,) = [place for place in ran.json["embedded"] if place["kind"] == "rke1"]
    assert state["place"].endswith(".rkestate, desiredState.encryptionConfig")
    assert state["keys"] == [{"provider": "aescbc", "name": "aescbckey"}]


def test_case_47_keys_in_the_header_of_omni_give_the_configuration_of_talos(snaptool: Snaptool) -> None:
    hexadecimal = (CONTAINERS / "omni" / "README.txt").read_text().split("(hex): ")[1].split()[0]
    key = snaptool.write("omni.key", hexadecimal)
    source = CONTAINERS / "omni" / "FFFFFFFF96A8CA5B.snapshot"
    target = snaptool.folder / "out.yaml"
    ran = snaptool(
        "config", "extract", source, "--omni-key-file", key, "-f", target, makes=[target], shows_secrets=True
    )
    assert "Omni's header" in ran.stderr
    rendered = parse_config((CONTAINERS / "config" / "talos-encryptionconfig.yaml").read_bytes())
    assert parse_config(target.read_bytes()).entries == rendered.entries


def test_a_copy_of_rkes_state_in_the_cluster_is_noted(snaptool: Snaptool) -> None:
    key = b"/registry/secrets/kube-system/full-cluster-state"
    record = KeyValue(key=key, create_revision=2, mod_revision=2, version=1, value=b"k8s:enc:aescbc:v1:k:" + bytes(32))
    space = KeyValue(key=b"/registry/namespaces/x", create_revision=3, mod_revision=3, version=1, value=b"{}")
    records = [(encode_revision_key(Revision(one.mod_revision, 0)), encode_key_value(one)) for one in (record, space)]
    ran = snaptool("verify", snaptool.write("rke.db", make_snapshot(records)), "-o", "json")
    (found,) = [one for one in ran.json["findings"] if one["code"] == "embedded_config_copy"]
    assert (found["severity"], found["place"]) == ("note", key.decode())
    assert "a copy" in snaptool("inspect", snaptool.folder / "rke.db").stdout
