"""`snaptool config`: new configurations, checked ones, and files that hold one, as a user sees them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from snaptool.cli import exits
from snaptool.providers.config.model import KmsConfig
from snaptool.providers.config.rules import parse_config
from snaptool.providers.provider import Kind
from tests.support.cli import GOLDEN, Snaptool, assert_no_canary

FORMS = GOLDEN / "cases" / "config-forms"
HEAD = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"


def entry(names: str, *keys: str) -> str:
    secrets = {name: base64.b64encode(name.encode().ljust(32, b"#")).decode() for name in keys}
    lines = "".join(f"      - name: {name}\n        secret: {secret}\n" for name, secret in secrets.items())
    providers = f"  - aescbc:\n      keys:\n{lines}" if keys else ""
    return f"- resources: [{names}]\n  providers:\n{providers}  - identity: {{}}\n"


def first_keys(path: Path) -> dict[str, list[str]]:
    """The names of all keys, by resource, in order."""
    found: dict[str, list[str]] = {}
    for one in parse_config(path.read_bytes()).entries:
        names = [
            f"{provider.kind}:{key.name}"
            for provider in one.providers
            if not isinstance(provider, KmsConfig)
            for key in provider.keys
        ]
        found |= dict.fromkeys(one.resources, names)
    return found


@pytest.mark.parametrize("flag", ["--config", "-c"])
def test_a_secret_manifest_opens_what_its_configuration_opens(snaptool: Snaptool, flag: str) -> None:
    config = (snaptool.sample("aescbc.yaml")).read_bytes()
    manifest = snaptool.write(
        "secret.json",
        json.dumps({"kind": "Secret", "apiVersion": "v1", "data": {"e.yaml": base64.b64encode(config).decode()}}),
    )
    ran = snaptool("inspect", snaptool.sample("aescbc-cluster.db"), flag, manifest, "-o", "json")
    assert ran.code == exits.DONE
    assert ran.json["lost"] == []
    assert sum(row["opens"] or 0 for row in ran.json["census"] if row["provider"] == "aescbc") > 0
    assert "data.e.yaml: a configuration was taken" in ran.stderr


def test_old_configurations_are_read_leniently_and_new_ones_strictly(snaptool: Snaptool) -> None:
    text = snaptool.sample("aescbc.yaml").read_text()
    odd = snaptool.write("odd.yaml", "kind: EncryptionConfiguration\n" + text)
    snapshot = snaptool.sample("aescbc-cluster.db")
    ran = snaptool("inspect", snapshot, "-c", odd)
    assert ran.code == exits.DONE
    assert "set twice; Kubernetes 1.31 and newer refuse it" in ran.stderr
    target = snaptool.folder / "new.db"
    refused = snaptool("rewrite", snapshot, target, "-c", odd, "--new-config", odd)
    assert refused.code == exits.USAGE
    assert "set twice" in refused.stderr


def test_new_configuration_of_a_file_that_holds_two_is_refused(snaptool: Snaptool) -> None:
    config = snaptool.sample("aescbc.yaml").read_text()
    data = {"a.yaml": config, "b.yaml": config.replace("key1", "key2")}
    manifest = snaptool.write("map.json", json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "data": data}))
    snapshot, target = snaptool.sample("aescbc-cluster.db"), snaptool.folder / "n.db"
    ran = snaptool("rewrite", snapshot, target, "-c", manifest, "--new-config", manifest)
    assert ran.code == exits.USAGE
    assert "holds 2 configurations" in ran.stderr


def test_a_snapshot_given_as_configuration_is_named(snaptool: Snaptool) -> None:
    snapshot = snaptool.sample("aescbc-cluster.db")
    large = snaptool.folder / "large.db"
    large.write_bytes(snapshot.read_bytes())
    os.truncate(large, 17 << 20)
    for path in (snapshot, large):
        ran = snaptool("inspect", snapshot, "-c", path)
        assert ran.code == exits.USAGE
        assert "an etcd snapshot" in ran.stderr
    large.write_bytes(b"# \n" * (6 << 20))
    ran = snaptool("inspect", snapshot, "-c", large)
    assert ran.code == exits.USAGE
    assert "more than 16 MiB" in ran.stderr


# --- check ----------------------------------------------------------------------------------------------------------


def test_check_shows_what_a_manifest_holds(snaptool: Snaptool) -> None:
    ran = snaptool("config", "check", FORMS / "15-secret-manifest.yaml", "-o", "json")
    assert ran.code == exits.DONE
    assert ran.json["held"] == [f"{FORMS / '15-secret-manifest.yaml'}, data.encryption-config"]
    assert ran.json["resources"] == {"secrets": "aescbc:key1, identity"}
    assert "data.encryption-config:" in snaptool("config", "check", FORMS / "15-secret-manifest.yaml").stdout


def test_check_gives_line_character_and_remedy_as_json(snaptool: Snaptool) -> None:
    ran = snaptool("config", "check", FORMS / "08-tabs.yaml", "-o", "json")
    assert ran.code == exits.USAGE
    (problem,) = ran.json["problems"]
    assert (problem["code"], problem["line"], problem["column"]) == ("syntax", 5, 1)
    assert "spaces" in problem["remedy"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("secret", "secrets"),
        ("deployment.apps", "deployments.apps"),
        ("apps/v1/deployments", "deployments.apps"),
        ("deployments.v1.apps", "deployments.apps"),
        ("management.cattle.io/tokens", "tokens.management.cattle.io"),
        ("secrets.v1", "secrets"),
        ("cm", "configmaps"),
    ],
)
def test_check_warns_of_names_that_name_nothing(snaptool: Snaptool, name: str, meant: str) -> None:
    path = snaptool.write("c.yaml", HEAD + entry(f'"{name}"', "k"))
    ran = snaptool("config", "check", path)
    assert ran.code == exits.DONE
    assert any(name in line and f"did you mean {meant}" in line for line in ran.stdout.splitlines())
    right = snaptool.write("right.yaml", HEAD + entry(meant, "k"))
    assert "did you mean" not in snaptool("config", "check", right).stdout


def test_check_of_twenty_thousand_keys_is_linear(snaptool: Snaptool) -> None:
    # A comparison of every two keys would take minutes; the runner's own time limit is the judge of that.
    one = snaptool.write("one.yaml", HEAD + entry("secrets", *(f"key{number}" for number in range(20_000))))
    ran = snaptool("config", "check", one)
    assert ran.code == exits.DONE
    assert "19,992 more" in ran.stdout
    clash = snaptool.write(
        "clash.yaml", HEAD + entry("secrets", *(f"key{number}" for number in range(5_000)), '"key77:2"')
    )
    assert "two aescbc keys fit one name" in snaptool("config", "check", clash).stdout


# --- new ------------------------------------------------------------------------------------------------------------


def test_keep_takes_over_all_resources_and_each_gets_the_new_key_first(snaptool: Snaptool) -> None:
    old = snaptool.write(
        "old.yaml", HEAD + entry("secrets, configmaps", "a") + entry("widgets.example.com", "b") + entry("events")
    )
    target, final = snaptool.folder / "new.yaml", snaptool.folder / "final.yaml"
    ran = snaptool(
        "config", "new", "--keep", old, "-f", target, "--final", final, makes=[target, final], shows_secrets=True
    )
    assert ran.code == exits.DONE
    assert_no_canary(ran.text.encode(), snaptool.folder)
    assert first_keys(target) == {
        "secrets": ["secretbox:key1", "aescbc:a"],
        "configmaps": ["secretbox:key1", "aescbc:a"],
        "widgets.example.com": ["secretbox:key1", "aescbc:b"],
        "events": [],
    }
    assert first_keys(final) == {
        "secrets": ["secretbox:key1"],
        "configmaps": ["secretbox:key1"],
        "widgets.example.com": ["secretbox:key1"],
        "events": [],
    }
    assert "events" in ran.stderr
    assert [path.stat().st_mode & 0o777 for path in (target, final)] == [0o600, 0o600]
    secrets = [
        {
            key.secret
            for one in parse_config(path.read_bytes()).entries
            for provider in one.providers
            if provider.kind is Kind.SECRETBOX and not isinstance(provider, KmsConfig)
            for key in provider.keys
        }
        for path in (target, final)
    ]
    assert secrets[0] == secrets[1]


def test_keep_is_not_narrowed_silently(snaptool: Snaptool) -> None:
    old = snaptool.write("old.yaml", HEAD + entry("secrets, configmaps", "a"))
    target = snaptool.folder / "new.yaml"
    ran = snaptool("config", "new", "--keep", old, "--resource", "secrets", "-f", target)
    assert ran.code == exits.USAGE
    assert "more than --resource names: configmaps" in ran.stderr
    wider = snaptool(
        "config", "new", "--keep", old, "--resource", "*.*", "-f", target, makes=[target], shows_secrets=True
    )
    assert wider.code == exits.DONE
    assert {names[0] for names in first_keys(target).values()} == {"secretbox:key1"}
    assert set(first_keys(target)) == {"*.*", "secrets", "configmaps"}


def test_neither_file_appears_when_the_other_cannot(snaptool: Snaptool) -> None:
    old = snaptool.write("old.yaml", HEAD + entry("secrets", "a"))
    target = snaptool.folder / "new.yaml"
    taken = snaptool.write("taken.yaml", "x")
    for final, words in ((taken, "exist"), (target, "the same file"), (snaptool.folder / "no" / "f.yaml", "directory")):
        ran = snaptool("config", "new", "--keep", old, "-f", target, "--final", final)
        assert ran.code == exits.USAGE
        assert words in ran.stderr
    ran = snaptool("config", "new", "--keep", old, "-f", target, "--final", old, "--force")
    assert ran.code == exits.USAGE
    assert "is the old configuration" in ran.stderr


def test_keys_of_talos_get_the_names_that_talos_serves(snaptool: Snaptool) -> None:
    target = snaptool.folder / "new.yaml"
    ran = snaptool("config", "new", "--keep", FORMS / "33-talos.yaml", "-f", target, makes=[target], shows_secrets=True)
    assert ran.code == exits.DONE
    assert first_keys(target) == {"secrets": ["secretbox:key2", "aescbc:key1"]}
