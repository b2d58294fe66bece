"""What people give as `--config`: forms that hold a configuration are read, others are named, faults have a place."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from snaptool.providers.config.held import hypershift_key_name, read_configs
from snaptool.providers.config.model import BadConfig, EncryptionConfig, KmsConfig
from snaptool.providers.config.recognise import recognise_bytes
from snaptool.providers.config.rules import parse_config
from snaptool.providers.provider import Kind

GOLDEN = Path(__file__).parents[2] / "golden"
FORMS = GOLDEN / "cases" / "config-forms"
CONTAINERS = GOLDEN / "containers"
KEY = bytes(range(32))
KEY_TEXT = base64.b64encode(KEY).decode()
OTHER_TEXT = base64.b64encode(KEY[::-1]).decode()
CONFIG = f"""\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources:
  - secrets
  providers:
  - aescbc:
      keys:
      - name: key1
        secret: {KEY_TEXT}
  - identity: {{}}
"""


def writers(config: EncryptionConfig) -> list[tuple[str, str, str]]:
    """Resource, provider and key name of each entry's first provider."""
    found = []
    for entry in config.entries:
        first = entry.providers[0]
        assert not isinstance(first, KmsConfig)
        name = first.keys[0].name if first.keys else ""
        found += [(resource, str(first.kind), name) for resource in entry.resources]
    return found


def refusal(data: bytes | str) -> BadConfig:
    with pytest.raises(BadConfig) as refused:
        read_configs(data.encode() if isinstance(data, str) else data, name="a file.yaml", strict=True)
    assert KEY_TEXT not in f"{refused.value} {refused.value.hint}"
    return refused.value


@pytest.mark.parametrize(
    ("name", "place", "said", "helps"),
    [
        ("02-flat-indent.yaml", (11, 1), "indentation is lost", "indent it"),
        ("04-folded-b64.yaml", (10, 23), "a line was folded", "one line"),
        ("08-tabs.yaml", (5, 1), "a tab in the indentation", "spaces"),
        ("11-duplicate-kind.yaml", (3, 1), "set twice", "remove one"),
        ("12-v1beta1.yaml", (1, 13), "v1beta1 has no kind", "apiVersion: apiserver.config.k8s.io/v1"),
        ("20-kubeadm-manifest.yaml", None, "a Pod manifest", "/etc/kubernetes/enc.yaml"),
        ("21-empty.yaml", None, "an empty file", "look where it came from"),
        ("23-aes-provider.yaml", (7, 9), "unknown field", "aescbc, aesgcm, secretbox"),
        ("26-unquoted-star.yaml", (5, 9), "*.* needs quotes", 'write "*.*"'),
        ("27-ansible-vault.yaml", None, "ansible-vault", "ansible-vault view 'a file.yaml'"),
        ("30-smart-quotes.yaml", (10, 23), "typographic quote, U+201C", "plain quotes"),
        ("36-url-b64.yaml", (10, 23), "URL-safe base64", "write + for each -"),
    ],
)
def test_forms_from_the_field_are_named_with_the_place_and_what_helps(
    name: str, place: tuple[int, int] | None, said: str, helps: str
) -> None:
    refused = refusal((FORMS / name).read_bytes())
    problem = refused.problems[0]
    assert (place or (None, None)) == (problem.line, problem.column)
    assert said in str(refused)
    assert helps in refused.hint
    assert "config check" not in refused.hint


@pytest.mark.parametrize(
    ("name", "place", "expected"),
    [
        ("06-legacy-kms2.yaml", "", "kms/v2"),
        ("14-cluster-yml-rke1.yaml", "services.kube-api.secrets_encryption_config.custom_config", "aescbc"),
        ("15-secret-manifest.yaml", "data.encryption-config", "aescbc"),
        ("33-talos.yaml", "cluster (keys of Talos)", "aescbc"),
    ],
)
def test_forms_from_the_field_that_hold_a_configuration_are_read(name: str, place: str, expected: str) -> None:
    (config,) = read_configs((FORMS / name).read_bytes(), name=name).configs
    assert config.name == (f"{name}, {place}" if place else name)
    assert config.entries[0].providers[0].kind == expected


@pytest.mark.parametrize(
    ("name", "said"), [("11-duplicate-kind.yaml", "line 3, character 1: kind"), ("misspelt", "resources[0].comment")]
)
def test_reading_is_as_lenient_as_servers_before_1_31_and_says_what_newer_ones_refuse(name: str, said: str) -> None:
    path = FORMS / name
    data = path.read_bytes() if path.exists() else CONFIG.replace("  providers:", "  comment: x\n  providers:").encode()
    found = read_configs(data, name="old.yaml")
    assert [writer[2] for writer in writers(found.configs[0])] == ["key1"]
    (note,) = found.notes
    assert said in note
    assert "Kubernetes 1.31 and newer refuse it" in note
    with pytest.raises(BadConfig):
        read_configs(data, strict=True)


def secret_of(**data: str) -> dict[str, Any]:
    encoded = {name.replace("_", "."): base64.b64encode(text.encode()).decode() for name, text in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "enc"}, "data": encoded}


HELD: dict[str, tuple[Any, list[str]]] = {
    "a Secret with several entries": (secret_of(enc_yaml=CONFIG, note="hello"), ["data.enc.yaml"]),
    "stringData": (
        {"apiVersion": "v1", "kind": "Secret", "metadata": {}, "stringData": {"enc.yaml": CONFIG}},
        ["stringData.enc.yaml"],
    ),
    "a ConfigMap": ({"apiVersion": "v1", "kind": "ConfigMap", "data": {"c": CONFIG}}, ["data.c"]),
    "a list of Secrets": (
        {"apiVersion": "v1", "kind": "List", "items": [secret_of(other="x"), secret_of(e=CONFIG)]},
        ["items.enc.data.e"],
    ),
    "the copy of kubectl apply is not a second one": (
        secret_of(e=CONFIG)
        | {
            "metadata": {
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": json.dumps(
                        secret_of(e=CONFIG.replace("key1", "older"))
                    )
                }
            }
        },
        ["data.e"],
    ),
    "two states of RKE that differ": (
        {
            "currentState": {"encryptionConfig": CONFIG.replace("key1", "before")},
            "desiredState": {"encryptionConfig": CONFIG},
        },
        ["desiredState.encryptionConfig", "currentState.encryptionConfig"],
    ),
    "a Secret in a Secret": (secret_of(outer=json.dumps(secret_of(inner=CONFIG))), ["data.outer, data.inner"]),
    "cloud-init": ({"write_files": [{"path": "/etc/enc.yaml", "content": CONFIG}]}, ["write_files[0].content"]),
    "files of Cluster API in base64": (
        {
            "kind": "KubeadmControlPlane",
            "spec": {
                "kubeadmConfigSpec": {
                    "files": [{"encoding": "base64", "content": base64.b64encode(CONFIG.encode()).decode()}]
                }
            },
        },
        ["spec.kubeadmConfigSpec.files[0].content"],
    ),
    "a name that could be a secret is not shown": (
        {"apiVersion": "v1", "kind": "ConfigMap", "data": {KEY_TEXT: CONFIG}},
        ["data.…"],
    ),
    "the document of Talos, as a mapping": (
        {
            "apiVersion": "v1alpha1",
            "kind": "KubeEtcdEncryptionConfig",
            "config": {"resources": yaml.safe_load(CONFIG)["resources"]},
        },
        ["config"],
    ),
    "the document of Talos, as a text": (
        {
            "apiVersion": "v1alpha1",
            "kind": "KubeEtcdEncryptionConfig",
            "config": yaml.safe_dump({"resources": yaml.safe_load(CONFIG)["resources"]}),
        },
        ["config"],
    ),
}


@pytest.mark.parametrize("written", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
@pytest.mark.parametrize(("document", "places"), HELD.values(), ids=HELD)
def test_a_configuration_is_found_wherever_it_stands(document: Any, places: list[str], written: Any) -> None:
    found = read_configs(written(document).encode(), name="f")
    assert [config.name for config in found.configs] == [f"f, {place}" for place in places]
    assert writers(found.configs[0]) == [("secrets", "aescbc", "key1")]
    assert found.configs[0].entries == parse_config(CONFIG.encode()).entries
    assert KEY_TEXT not in repr(found)


def test_a_configuration_in_a_later_document_is_found() -> None:
    text = "kind: Namespace\napiVersion: v1\n---\n" + yaml.safe_dump(secret_of(e=CONFIG)) + "---\n" + CONFIG
    # Both documents hold the same one, which is then one.
    (config,) = read_configs(text.encode(), name="f").configs
    assert config.name == "f, document 2, data.e"
    assert read_configs(("---\n---\n" + CONFIG).encode(), name="f").configs[0].name == "f, document 2"


def test_a_configuration_behind_a_configuration_is_noted_and_not_taken() -> None:
    found = read_configs((CONFIG + "---\n" + CONFIG.replace("key1", "key2") + "---\na: b\n").encode(), name="f")
    assert [writers(config)[0][2] for config in found.configs] == ["key1"]
    assert "2 more documents (1 of them an EncryptionConfiguration)" in found.notes[0]


def test_a_fault_inside_of_what_holds_a_configuration_has_its_place_there() -> None:
    refused = refusal(json.dumps(secret_of(e=CONFIG.replace("  - secrets", "\t- secrets"))))
    assert "data.e" in str(refused)
    assert (refused.problems[0].line, refused.problems[0].column) == (5, 1)
    # One that is right beside it is taken, and the other is named.
    found = read_configs(json.dumps(secret_of(a=CONFIG.replace(KEY_TEXT, "AAEC"), b=CONFIG)).encode(), name="f")
    assert [config.name for config in found.configs] == ["f, data.b"]
    assert "f, data.a" in found.notes[0]
    assert "it was not taken" in found.notes[0]


def test_case_64_rkestate_desired_state_is_read() -> None:
    (config,) = read_configs((CONTAINERS / "config" / "cluster.rkestate").read_bytes(), name="f").configs
    assert config.name == "f, desiredState.encryptionConfig"
    assert writers(config) == [("secrets", "aescbc", "aescbckey")]


def test_case_65_talos_recover_equals_the_rendered_file() -> None:
    (config,) = read_configs((CONTAINERS / "config" / "talos-controlplane.yaml").read_bytes()).configs
    rendered = parse_config((CONTAINERS / "config" / "talos-encryptionconfig.yaml").read_bytes())
    assert config.entries == rendered.entries
    assert config.platform == "talos"
    bundle = {"secrets": {"secretboxencryptionsecret": OTHER_TEXT, "aescbcencryptionsecret": KEY_TEXT}}
    (of_bundle,) = read_configs(yaml.safe_dump(bundle).encode()).configs
    assert [provider.kind for provider in of_bundle.entries[0].providers] == ["secretbox", "aescbc", "identity"]


def test_case_65_hypershift_key_name() -> None:
    vector = json.loads((CONTAINERS / "config" / "hypershift-key-name.json").read_text())
    assert hypershift_key_name(bytes.fromhex(vector["key_hex"])) == vector["name"]
    secret = {"kind": "Secret", "apiVersion": "v1", "metadata": {}}
    raw = base64.b64encode(bytes.fromhex(vector["key_hex"])).decode()
    (config,) = read_configs(json.dumps(secret | {"data": {"key": raw}}).encode()).configs
    assert ("secrets", "aescbc", vector["name"]) in writers(config)


def test_kops_file_of_its_state_store_is_read() -> None:
    (config,) = read_configs((CONTAINERS / "kops" / "secrets" / "encryptionconfig").read_bytes(), name="f").configs
    assert config.name == "f, Data"
    assert writers(config) == [("secrets", "aescbc", "aescbckey")]


@pytest.mark.parametrize("mode", ["aescbc", "aesgcm", "secretbox", "identity", "KMS"])
def test_a_key_secret_of_openshift_gives_the_key_of_its_component_alone(mode: str) -> None:
    prefix = "encryption.apiserver.operator.openshift.io"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "encryption-key-openshift-oauth-apiserver-7",
            "annotations": {f"{prefix}/mode": mode},
        },
        "data": {f"{prefix}-key": KEY_TEXT},
    }
    if mode in {"identity", "KMS"}:
        assert "a Secret whose 1 entry holds no EncryptionConfiguration" in str(refusal(json.dumps(secret)))
        return
    (config,) = read_configs(json.dumps(secret).encode()).configs
    resources = ("oauthaccesstokens.oauth.openshift.io", "oauthauthorizetokens.oauth.openshift.io")
    assert writers(config) == [(resource, mode, "7") for resource in resources]


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "spec": {
        "containers": [
            {
                "command": ["kube-apiserver", "--encryption-provider-config=/etc/enc/c.yaml"],
                "volumeMounts": [{"name": "e", "mountPath": "/etc/enc/"}],
            }
        ],
        "volumes": [{"name": "e", "hostPath": {"path": "/srv/secret"}}, {"name": "x"}],
    },
}
KUBEADM = {"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration"}


@pytest.mark.parametrize(
    ("content", "what", "helps"),
    [
        (json.dumps(POD), "a Pod manifest", "/srv/secret/c.yaml on the hosts"),
        (
            yaml.safe_dump(
                KUBEADM
                | {"apiServer": {"extraArgs": [{"name": "encryption-provider-config", "value": "/etc/k/e.yaml"}]}}
            ),
            "a configuration of kubeadm",
            "/etc/k/e.yaml",
        ),
        (
            yaml.safe_dump(KUBEADM | {"apiServer": {"extraArgs": {"encryption-provider-config": "/etc/k/e.yaml"}}}),
            "a configuration of kubeadm",
            "/etc/k/e.yaml",
        ),
        (yaml.safe_dump(KUBEADM), "a configuration of kubeadm", "it names no --encryption-provider-config"),
        (
            "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nencryption-provider-config: /var/k0s/e.yaml",
            "a configuration of k0s",
            "/var/k0s/e.yaml",
        ),
        ("apiVersion: v1\nkind: Config\nclusters: []\nusers: []\n", "a kubeconfig", "--encryption-provider-config"),
        ("secrets-encryption: true\ntoken: x\n", "a configuration of k3s or RKE2", "cred/encryption-config.json"),
        ("start-" + "0" * 64, "encryption-state.json", "encryption-config.json"),
        ("K10" + "0" * 64 + "::server:x\n", "a token of k3s", "--token-file"),
        (KEY_TEXT + "\n", "a bare key of 32 bytes in base64", "snaptool inspect"),
        (KEY.hex(), "a bare key of 32 bytes in hex", "snaptool inspect"),
        (bytes(range(200, 232)), "a bare key of 32 bytes in raw bytes", "snaptool inspect"),
        (KEY_TEXT[:24] if len(base64.b64decode(KEY_TEXT[:24])) == 18 else "", "", ""),
        (
            json.dumps({"data": "ENC[AES256_GCM,data:x]", "sops": {"mac": "x", "version": "3"}}),
            "sops",
            "sops --decrypt",
        ),
        ("data: ENC[AES256_GCM]\nsops:\n  mac: x\n", "sops", "sops --decrypt 'a file.yaml'"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "a PEM file", "--encryption-provider-config"),
        ("-----BEGIN PGP MESSAGE-----\n", "PGP", "gpg --decrypt"),
        ("age-encryption.org/v1\n-> X25519", "age", "age --decrypt"),
        (b"\x1f\x8b\x08\0", "a gzip file", "gzip -dc"),
        (b"PK\x03\x04", "a zip archive", "unzip -p"),
        (bytes(257) + b"ustar", "a tar archive", "tar -xOf"),
        (b"SQLite format 3\0" + bytes(100), "an SQLite database", "--encryption-provider-config"),
        (bytes(16) + b"\xed\xda\x0c\xed" + bytes(100), "an etcd snapshot", "--config"),
        ("<!DOCTYPE html><html>", "an HTML page", "login"),
        ("<?xml version='1.0'?><Error>", "an XML document", "refuses a download"),
        ("resources:\n{% for x in y %}\n", "a template that was not rendered (line 2", "rendered"),
        ("kind: X\nname: {{ key }}\n", "a template that was not rendered (line 2", "rendered"),
        ("#!/bin/sh\ncat <<EOF\n", "a script", "that it writes"),
        ("kind: SealedSecret\napiVersion: bitnami.com/v1alpha1\n", "a SealedSecret", "the Secret"),
        ("kind: Cluster\napiVersion: kops.k8s.io/v1alpha2\n", "a cluster of kOps", "secrets/encryptionconfig"),
        ("kind: APIServer\napiVersion: config.openshift.io/v1\n", "of OpenShift", "config extract"),
        ("kind: Deployment\napiVersion: apps/v1\n", "a Deployment (apps/v1)", "--encryption-provider-config"),
        ("apiVersion: v1\nkind: Secret\ndata: {a: aGk=, b: aGk=}\n", "a Secret whose 2 entries hold no", "mounts"),
        ("version: v1alpha1\nmachine: {type: worker}\n", "of Talos without", "control plane node"),
        ("desiredState: {rkeConfig: {}}\n", "an RKE state file without", "encryption was off"),
        (
            "services: {kube-api: {secrets_encryption_config: {enabled: true}}}\n",
            "whose key RKE made by itself",
            "cluster.rkestate",
        ),
        ("services: {kube-api: {}}\n", "a cluster.yml of RKE without", "encryption is off"),
        ("# only comments\n", "comments", "the file with the configuration"),
        (b"k8s:enc:aescbc:v1:key1:" + bytes(32), "an encrypted value", "configuration that has its key"),
        (b"k8s\0\n\x0c", "an object in protobuf", "snaptool get"),
        ("\n \n", "an empty file", "look where"),
    ],
)
def test_what_is_no_configuration_is_named_for_what_it_is(content: str | bytes, what: str, helps: str) -> None:
    refused = refusal(content)
    assert what in str(refused)
    assert helps in refused.hint


@pytest.mark.parametrize(
    ("old", "new", "place", "said", "helps"),
    [
        (KEY_TEXT, "<BASE 64 ENCODED SECRET>", (10, 17), "placeholder", "put the key there"),
        (KEY_TEXT, "${ENCRYPTION_KEY}", (10, 17), "placeholder", "put the key there"),
        (KEY_TEXT, KEY_TEXT[:-1], (10, 17), "padding is missing", "add = at the end"),
        (KEY_TEXT, "ENC[AES256_GCM,data:x]", (10, 17), "sops", "sops -d"),
        (KEY_TEXT, KEY.hex(), (10, 17), "48 bytes", "written in hex"),
        (KEY_TEXT, base64.b64encode(KEY.hex().encode()).decode(), (10, 17), "64 bytes", "base64 of a text in hex"),
        (KEY_TEXT, base64.b64encode(KEY_TEXT.encode()).decode(), (10, 17), "44 bytes", "decoded twice it has 32"),
        (KEY_TEXT, base64.b64encode(KEY + b"\n").decode(), (10, 17), "33 bytes", "`echo` without -n"),
        ("name: key1", "name:key1", (9, 14), "a blank is missing behind name:", "`name: `"),
        ("name: key1", 'name: "key1', (9, 15), "the quote that opens here", "close it"),
        ("name: key1", "name: 1", (9, 15), "must be a text", "correct the line"),
        ("  - secrets", "  - *secrets", (5, 5), "*secrets needs quotes", 'write "*secrets"'),
        ("  - secrets", "  \u2013 secrets", (5, 3), "U+2013 EN DASH", "plain hyphen"),
        ("  - secrets", "\u00a0\u00a0- secrets", (5, 1), "U+00A0 NO-BREAK SPACE", "plain space"),
        ("identity: {}", "identity:", (11, 5), "no provider", "identity: {}"),
        ("  providers:", "  provider:", (6, 3), "unknown field", "did you mean providers?"),
        ("kind:", "<<<<<<< HEAD\nkind:", (2, 1), "conflict", "resolve it"),
        ("apiserver.config.k8s.io/v1", "v1", (1, 13), "v1 has no kind", "apiVersion: apiserver.config.k8s.io/v1"),
    ],
)
def test_faults_of_hands_are_found_where_they_are(
    old: str, new: str, place: tuple[int, int], said: str, helps: str
) -> None:
    refused = refusal(CONFIG.replace(old, new))
    problem = refused.problems[0]
    assert said in problem.message
    assert helps in refused.hint
    assert (problem.line, problem.column) == place
    if new == KEY.hex():
        assert new not in f"{refused} {refused.hint}"


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_bytes_are_read_or_refused(rng: random.Random) -> None:
    samples = [path.read_bytes() for path in sorted(FORMS.iterdir())]
    samples += [json.dumps(document).encode() for document, _ in HELD.values()] + [CONFIG.encode()]
    data = bytearray(rng.choice(samples))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data) + 1)
        data[at : at + rng.randrange(4)] = rng.choice(
            [bytes([rng.randrange(256)]), b"\t", b"*", b"\n---\n", b"&a ", "“".encode(), b"{", rng.choice(samples)[:40]]
        )
    recognise_bytes(bytes(data))
    for strict in (True, False):
        refused: BadConfig | None = None
        configs: tuple[EncryptionConfig, ...] = ()
        try:
            configs = read_configs(bytes(data), name="f", strict=strict).configs
        except BadConfig as error:
            refused = error
        assert configs or (refused is not None and refused.problems and refused.hint)
        assert "UVk2Nfzi2aktzGxCOlkVud4h845mHo7DH6Z3L0m4LDA" not in f"{refused} {refused and refused.hint}"
        assert all(provider.kind in Kind for config in configs for one in config.entries for provider in one.providers)
