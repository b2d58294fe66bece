"""Chains and keyrings against the vectors of the specification, and what several configurations mean together."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from snaptool.providers.config.model import EncryptionConfig, KmsConfig
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import SERVER_TEXTS, Chain, GroupResource, Keyring, NoKeyFits
from snaptool.providers.kms import KmsV1Provider, KmsV2Provider
from snaptool.providers.kms_envelope import SourceType, WrappedSource
from snaptool.providers.kms_service import Category, UnwrapFailed
from snaptool.providers.provider import Kind, Provider, Reason

GOLDEN = Path(__file__).parents[2] / "golden" / "encryption-at-rest.json"
VECTORS: dict[str, dict[str, Any]] = {one["name"]: one for one in json.loads(GOLDEN.read_text())["vectors"]}
CONTEXT = b"/registry/secrets/default/s1"
SECRETS = GroupResource("secrets", "")
ONE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
TWO = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
OBJECT = b"k8s\0 an object"

# Section 7 of the specification. Cases 20 to 38 are KMS envelopes, 50 to 52 are keys of etcd.
CASES = {
    "case_01_identity_passes_any_bytes": ["identity-arbitrary-bytes"],
    "case_02_identity_short_prefix": ["identity-prefix-without-second-colon"],
    "case_03_empty_value_identity": ["identity-empty-value"],
    "case_04_empty_value_no_identity": ["aescbc-empty-stored"],
    "case_05_cbc_full_block_padding": ["aescbc-len-16"],
    "case_06_cbc_key_sizes": ["aescbc-128", "aescbc-192", "aescbc-256"],
    "case_07_cbc_padding_17": ["aescbc-padding-17-accepted"],
    "case_08_cbc_padding_whole": ["aescbc-padding-32-empty-plaintext"],
    "case_09_cbc_padding_zero": ["aescbc-padding-0"],
    "case_10_cbc_iv_only": ["aescbc-iv-only"],
    "case_11_cbc_moved": ["aescbc-other-etcd-key-still-ok"],
    "case_12_cbc_wrong_key_garbage": ["aescbc-wrong-key-garbage-accepted"],
    "case_13_gcm_moved": ["aesgcm-moved-to-other-key"],
    "case_14_gcm_aad_full_key": ["aesgcm-aad-without-leading-slash", "aesgcm-aad-without-etcd-prefix"],
    "case_15_gcm_nonce_only": ["aesgcm-nonce-only", "aesgcm-11-bytes"],
    "case_16_gcm_empty": ["aesgcm-empty-plaintext"],
    "case_17_secretbox_order": ["secretbox"],
    "case_18_secretbox_moved": ["secretbox-other-etcd-key-still-ok"],
    "case_19_secretbox_39": ["secretbox-39-bytes", "secretbox-40-bytes-bad-tag"],
    "case_39_chain_identity_first": ["chain-identity-first-reads-encrypted"],
    "case_40_chain_identity_last_plain": ["chain-identity-last-reads-plain"],
    "case_41_chain_identity_error_hidden": ["chain-identity-last-encrypted-unknown"],
    "case_42_chain_overlapping_providers": ["chain-two-providers-same-prefix"],
    "case_43_chain_same_name_two_secrets": ["chain-same-key-name-second-secret"],
    "case_44_chain_colon_names": ["chain-key-name-with-colon"],
    "case_45_chain_key_prefix_name": ["aescbc-key-name-prefix-of-other"],
    "case_46_chain_equal_errors_merge": ["chain-aggregated-identical-errors"],
    "case_47_resource_two_entries_concat": ["chain-same-resource-in-two-entries"],
    "case_48_resource_no_inherit": ["resource-specific-does-not-inherit"],
    "case_49_resource_uncovered": ["resource-not-configured-encrypted"],
}
# A file can be read although the plugin was never healthy; that the server cannot is a matter of its own state.
OURS = {"kmsv2-plugin-never-healthy"}


def by_case() -> list[Any]:
    case_of = {vector: case for case, vectors in CASES.items() for vector in vectors}
    return [
        pytest.param(vector, id=f"{case_of[name]}-{name}" if name in case_of else name)
        for name, vector in VECTORS.items()
        if name not in OURS
    ]


class StandInPlugin:
    """The plugin of the vectors: a table of wrapped keys."""

    def __init__(self, table: dict[bytes, bytes]) -> None:
        self._table = table

    def candidates(self, source: WrappedSource) -> Sequence[bytes]:
        if source.source not in self._table:
            raise UnwrapFailed(source.provider, Category.BAD_CIPHERTEXT)
        return (self._table[source.source],)


def plugins_of(vector: dict[str, Any]) -> Callable[[KmsConfig], Provider]:
    def make(config: KmsConfig) -> Provider:
        kms = vector["kms"]
        table = {bytes.fromhex(one["ciphertext_hex"]): bytes.fromhex(one["plaintext_hex"]) for one in kms["unwrap"]}
        if config.api_version == "v1":
            return KmsV1Provider(config.name, StandInPlugin(table))
        current_type = SourceType(kms["write_source_type"])
        return KmsV2Provider(config.name, StandInPlugin(table), None, kms["write_key_id"], current_type)

    return make


def chain_of(vector: dict[str, Any]) -> Chain:
    keyring = Keyring([parse_config(vector["config"].encode())], kms=plugins_of(vector))
    resource, _, group = vector["resource"].partition(".")
    return keyring.chain_for(GroupResource(resource, group))


def config(*entries: str) -> EncryptionConfig:
    """Parse entries written as `secrets,*.apps: aescbc a=1 b=2; identity`; secrets are named 1 and 2."""
    lines = ["apiVersion: apiserver.config.k8s.io/v1", "kind: EncryptionConfiguration", "resources:"]
    for entry in entries:
        names, _, providers = entry.partition(": ")
        lines += [f"- resources: {json.dumps(names.split(','))}", "  providers:"]
        for provider in providers.split("; "):
            kind, *keys = provider.split(" ")
            if kind == "identity":
                lines.append("  - identity: {}")
            elif kind in {"kms", "kms1"}:
                api = "v1" if kind == "kms1" else "v2"
                lines.append(f"  - kms: {{name: {keys[0]}, apiVersion: {api}, endpoint: 'unix:///s'}}")
            else:
                pairs = [key.rpartition("=") for key in keys]
                made = [{"name": name, "secret": ONE if number == "1" else TWO} for name, _, number in pairs]
                lines.append(f"  - {kind}: {{keys: {json.dumps(made)}}}")
    return parse_config("\n".join(lines).encode())


def sealed(entry: str, plaintext: bytes = OBJECT, context: bytes = CONTEXT) -> bytes:
    chain = Keyring([config(f"secrets: {entry}")]).chain_for(SECRETS)
    return chain.seal(plaintext, context, lambda size: b"n" * size)


def refused(chain: Chain, stored: bytes) -> NoKeyFits:
    with pytest.raises(NoKeyFits) as refusal:
        chain.unseal(stored, CONTEXT)
    return refusal.value


@pytest.mark.parametrize("vector", by_case())
def test_stored_value_reads_as_kube_apiserver_reads_it(vector: dict[str, Any]) -> None:
    chain, stored, context = chain_of(vector), bytes.fromhex(vector["stored_hex"]), vector["etcd_key"].encode()
    if vector["expect"] == "ok":
        unsealed = chain.unseal(stored, context)
        assert unsealed.plaintext.hex() == vector["plaintext_hex"]
        assert (unsealed.stale, unsealed.doubtful) == (vector["stale"], False)
    else:
        with pytest.raises(NoKeyFits) as refusal:
            chain.unseal(stored, context)
        assert list(refusal.value.reasons) == vector["errors"]


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(one, id=name)
        for name, one in VECTORS.items()
        if "write_randomness" in one and not one["provider"].startswith("kms")
    ],
)
def test_writer_emits_the_bytes_of_kube_apiserver(vector: dict[str, Any]) -> None:
    pieces = iter([bytes.fromhex(one["hex"]) for one in vector["write_randomness"]])
    stored = chain_of(vector).seal(
        bytes.fromhex(vector["plaintext_hex"]), vector["etcd_key"].encode(), lambda _: next(pieces)
    )
    assert stored.hex() == vector["stored_hex"]
    assert not list(pieces)


def test_every_case_names_vectors_that_exist() -> None:
    assert {vector for vectors in CASES.values() for vector in vectors} <= set(VECTORS)


def test_no_configuration_means_that_everything_is_plain() -> None:
    chain = Keyring(()).chain_for(SECRETS)
    assert chain.writer == (Kind.IDENTITY, "")
    unsealed = chain.unseal(OBJECT, CONTEXT)
    assert (unsealed.plaintext, unsealed.stale, unsealed.position) == (OBJECT, False, (0, 0, 0))
    assert chain.seal(OBJECT, CONTEXT) == OBJECT
    assert refused(chain, b"k8s:enc:aescbc:v1:a:").reasons == (Reason.IDENTITY_ENCRYPTED,)
    assert not Keyring(()).covers(SECRETS)


def test_position_tells_keys_of_one_name_apart() -> None:
    configs = [config("secrets: aesgcm a=1"), config("secrets: secretbox a=1; aesgcm b=1 a=1 a=2")]
    unsealed = Keyring(configs).chain_for(SECRETS).unseal(sealed("aesgcm a=2"), CONTEXT)
    assert (unsealed.plaintext, unsealed.kind, unsealed.key_name) == (OBJECT, Kind.AESGCM, "a")
    assert (unsealed.position, unsealed.stale) == ((1, 1, 2), True)


def test_configurations_are_asked_in_order_each_with_its_own_chain_for_the_resource() -> None:
    keyring = Keyring([config("secrets: aesgcm a=1"), config("*.*: secretbox b=2")])
    both, second = keyring.chain_for(SECRETS), keyring.chain_for(GroupResource("configmaps", ""))
    assert both.unseal(sealed("secretbox b=2"), CONTEXT).position == (1, 0, 0)
    assert second.unseal(sealed("secretbox b=2"), CONTEXT).position == (1, 0, 0)
    # The first configuration says nothing of configmaps, so they may be plain, and what it seals is not known.
    assert second.unseal(OBJECT, CONTEXT).kind is Kind.IDENTITY
    assert refused(second, sealed("aesgcm a=1")).reasons == (Reason.IDENTITY_ENCRYPTED, Reason.UNKNOWN_PREFIX)
    assert refused(both, OBJECT).reasons == (Reason.UNKNOWN_PREFIX,)
    assert both.writer == (Kind.AESGCM, "a")


def test_a_failing_key_says_more_than_configurations_that_do_not_know_the_value() -> None:
    keyring = Keyring([config("pods: aesgcm a=1"), config("secrets: aesgcm a=1"), config("secrets: secretbox a=1")])
    failure = refused(keyring.chain_for(SECRETS), sealed("aesgcm a=2"))
    assert failure.reasons == (Reason.GCM_AUTH,)
    assert [(one.place, one.kind, one.reasons) for one in failure.attempts] == [
        ((0, 0), Kind.IDENTITY, (Reason.IDENTITY_ENCRYPTED,)),
        ((1, 0), Kind.AESGCM, (Reason.GCM_AUTH,)),
    ]


@pytest.mark.parametrize(
    ("resource", "key"),
    [
        (GroupResource("deployments", "apps"), "exact"),
        (GroupResource("deployments", "extensions"), "all"),
        (GroupResource("daemonsets", "apps"), "group"),
        (GroupResource("secrets", ""), "core"),
        (GroupResource("foos", "cr.bar.com"), "all"),
        (GroupResource("deployments", None), "exact"),
    ],
)
def test_exact_name_then_group_then_everything(resource: GroupResource, key: str) -> None:
    keyring = Keyring(
        [config("deployments.apps: aesgcm exact=1", "*.apps: aesgcm group=1", "*.: aesgcm core=1", "*.*: aesgcm all=1")]
    )
    assert keyring.chain_for(resource).writer == (Kind.AESGCM, key)
    assert keyring.covers(resource)


def test_a_resource_of_unknown_group_reads_with_every_entry_that_may_be_its_own() -> None:
    keyring = Keyring(
        [config("foos.b.example: aesgcm b=1", "pods: aesgcm c=1", "foos.a.example: aesgcm a=1", "*.: secretbox d=1")]
    )
    chain = keyring.chain_for(GroupResource("foos", None))
    for entry in ("aesgcm b=1", "aesgcm a=1", "secretbox d=1"):
        unsealed = chain.unseal(sealed(entry), CONTEXT)
        assert (unsealed.plaintext, unsealed.key_name) == (OBJECT, entry.split(" ")[1][0])
    assert chain.unseal(OBJECT, CONTEXT).kind is Kind.IDENTITY
    assert refused(chain, sealed("aesgcm c=1")).reasons == (Reason.UNKNOWN_KEY_NAME,)


@pytest.mark.parametrize(
    ("entries", "writer"),
    [
        (["foos.a.example: aesgcm a=1"], "a"),
        (["foos.a.example: aesgcm a=1", "*.b.example: aesgcm b=1", "*.*: aesgcm c=1"], "a"),
        (["*.b.example: aesgcm b=1", "foos.a.example: aesgcm a=1"], "a"),
        (["*.*: aesgcm c=1"], "c"),
        (["pods: aesgcm a=1", "*.*: aesgcm c=1"], "c"),
        # The server has one of the two, or either the wildcard of the group or that of everything, and not both.
        (["foos.a.example: aesgcm a=1", "foos.b.example: aesgcm b=1"], None),
        (["*.b.example: aesgcm b=1", "*.*: aesgcm c=1"], None),
        (["*.: aesgcm b=1"], None),
        (["pods: aesgcm a=1"], None),
    ],
)
def test_a_resource_of_unknown_group_is_sealed_only_when_its_entry_is_certain(
    entries: list[str], writer: str | None
) -> None:
    keyring, foos = Keyring([config(*entries)]), GroupResource("foos", None)
    assert keyring.covers(foos) is (writer is not None)
    expected = (Kind.AESGCM, writer) if writer else (Kind.IDENTITY, "")
    assert keyring.chain_for(foos).writer == expected


def test_a_resource_in_no_entry_is_not_covered() -> None:
    keyring = Keyring([config("foos.b.example: aesgcm b=1", "pods: aesgcm c=1")])
    assert not keyring.covers(GroupResource("bars", None))
    assert not keyring.covers(GroupResource("pods", "metrics.example"))
    assert not keyring.covers(GroupResource("foos", ""))


def test_a_key_of_no_resource_is_read_with_any_key_and_written_in_plaintext() -> None:
    keyring = Keyring([config("secrets: aesgcm a=1", "pods: identity; secretbox b=1"), config("*.*: aescbc c=1")])
    chain = keyring.chain_for(None)
    for entry in ("aesgcm a=1", "secretbox b=1", "aescbc c=1"):
        unsealed = chain.unseal(sealed(entry), CONTEXT)
        assert (unsealed.plaintext, unsealed.stale) == (OBJECT, True)
    assert not chain.unseal(OBJECT, CONTEXT).stale
    assert chain.writer == (Kind.IDENTITY, "")
    assert chain.seal(OBJECT, CONTEXT) == OBJECT
    assert not keyring.covers(None)


def test_providers_shared_by_resources_are_made_once() -> None:
    made: list[str] = []

    def make(one: KmsConfig) -> Provider:
        made.append(one.name)
        return KmsV2Provider(one.name, StandInPlugin({}))

    keyring = Keyring([config("secrets,configmaps: kms kp; identity")], kms=make)
    keyring.chain_for(SECRETS)
    keyring.chain_for(GroupResource("configmaps", ""))
    assert made == ["kp"]
    assert [[one.kind for one in providers] for providers in keyring.providers()] == [[Kind.KMS_V2, Kind.IDENTITY]]


def test_without_its_plugin_a_kms_entry_opens_nothing_and_the_others_still_do() -> None:
    chain = Keyring([config("secrets: kms kp; aesgcm a=1")]).chain_for(SECRETS)
    assert chain.unseal(sealed("aesgcm a=1"), CONTEXT).plaintext == OBJECT
    assert refused(chain, b"k8s:enc:kms:v2:kp:x").reasons == (Reason.KMS_UNWRAP_FAILED,)
    assert refused(chain, b"k8s:enc:kms:v2:other:x").reasons == (Reason.UNKNOWN_PREFIX,)
    assert chain.writer == (Kind.KMS_V2, "kp")


@pytest.mark.parametrize(
    ("entry", "stored", "text"),
    [
        ("aesgcm a=1", OBJECT, "no matching prefix found"),
        ("aesgcm a=1", b"k8s:enc:aesgcm:v1:b:", "no matching key was found for the provided AES transformer"),
        (
            "secretbox a=1",
            b"k8s:enc:secretbox:v1:b:",
            "no matching key was found for the provided Secretbox transformer",
        ),
        ("aescbc a=1", b"k8s:enc:aescbc:v1:a:", "the stored data was shorter than the required size"),
        ("aesgcm a=1 a=2", sealed("aesgcm a=1", context=b"/moved"), "cipher: message authentication failed"),
        (
            "aesgcm a=1; aesgcm b=1",
            sealed("aesgcm a=2"),
            "[cipher: message authentication failed, no matching key was found for the provided AES transformer]",
        ),
        ("kms kp", b"k8s:enc:kms:v2:kp:x", "failed to decrypt DEK, error: rpc error: code ="),
        ("kms1 kp", b"k8s:enc:kms:v1:kp:x", "rpc error: code ="),
        ("secretbox a=1", sealed("secretbox a=2"), "output array was not large enough for encryption"),
    ],
)
def test_errors_read_as_in_the_log_of_the_server(entry: str, stored: bytes, text: str) -> None:
    failure = refused(Keyring([config(f"secrets: {entry}")]).chain_for(SECRETS), stored)
    assert str(failure) == text


def test_the_two_padding_errors_have_texts_of_their_own() -> None:
    for name, text in (
        ("aescbc-padding-0", "invalid PKCS7 data (empty or not padded)"),
        ("aescbc-padding-inconsistent", "invalid padding on input"),
    ):
        vector = VECTORS[name]
        assert str(refused(chain_of(vector), bytes.fromhex(vector["stored_hex"]))) == text


def test_every_reason_has_a_text() -> None:
    assert set(SERVER_TEXTS) == set(Reason)


def looks_like_an_object(plaintext: bytes) -> bool:
    return plaintext.startswith((b"k8s\0", b"{"))


def test_garbage_is_passed_over_for_an_object_of_a_later_provider_or_configuration() -> None:
    vector = VECTORS["aescbc-wrong-key-garbage-accepted"]
    stored, wrong = bytes.fromhex(vector["stored_hex"]), parse_config(vector["config"].encode())
    believing = Keyring([wrong]).chain_for(SECRETS).unseal(stored, CONTEXT)
    assert (believing.plaintext.hex(), believing.doubtful) == (vector["plaintext_hex"], False)
    asking = Keyring([wrong], plausible=looks_like_an_object).chain_for(SECRETS).unseal(stored, CONTEXT)
    assert (asking.plaintext.hex(), asking.doubtful) == (vector["plaintext_hex"], True)
    right = config("secrets: aescbc key1=1")
    both = Keyring([wrong, right], plausible=looks_like_an_object).chain_for(SECRETS).unseal(stored, CONTEXT)
    assert (both.position, both.doubtful, both.plaintext) == ((1, 0, 0), False, b'{"a":356}')


def test_of_several_doubtful_answers_the_first_place_counts() -> None:
    keyring = Keyring([config("secrets: aescbc a=1; aescbc a=1")] * 2, plausible=looks_like_an_object)
    unsealed = keyring.chain_for(SECRETS).unseal(sealed("aescbc a=1", b"no object"), CONTEXT)
    assert (unsealed.plaintext, unsealed.doubtful, unsealed.position) == (b"no object", True, (0, 0, 0))


@pytest.mark.parametrize(
    ("old", "position", "new", "same"),
    [
        ("aesgcm a=1", (0, 0, 0), "aesgcm a=1", True),
        ("aesgcm b=2 a=1", (0, 0, 1), "aesgcm a=1 b=2", True),
        ("identity; aesgcm a=1", (0, 1, 0), "aesgcm a=1", True),
        ("aesgcm a=1", (0, 0, 0), "aesgcm a=2", False),
        ("aesgcm a=1", (0, 0, 0), "aesgcm b=1", False),
        ("aesgcm a=1", (0, 0, 0), "aescbc a=1", False),
        ("aesgcm a=1", (0, 0, 0), "aesgcm b=2 a=1", False),
        ("aesgcm a=1", (0, 0, 0), "identity", False),
        ("identity", (0, 0, 0), "aesgcm a=1", False),
        ("aesgcm a=1; identity", (0, 1, 0), "identity; aesgcm a=1", True),
    ],
)
def test_a_value_needs_no_rewriting_only_under_the_very_key_that_would_write_it(
    old: str, position: tuple[int, int, int], new: str, *, same: bool
) -> None:
    reading = Keyring([config(f"secrets: {old}")]).chain_for(SECRETS)
    writing = Keyring([config(f"secrets: {new}")]).chain_for(SECRETS)
    assert reading.is_writer_of(position, writing) is same


def test_names_print_as_configurations_write_them() -> None:
    assert [str(GroupResource("secrets", "")), str(GroupResource("deployments", "apps"))] == [
        "secrets",
        "deployments.apps",
    ]
    assert str(GroupResource("foos", None)) == "foos"
    assert len({GroupResource("foos", None), GroupResource("foos", ""), GroupResource("foos", "")}) == 2


def test_keyrings_and_their_errors_travel_to_other_processes() -> None:
    keyring = Keyring(
        [config("secrets: aescbc a=1; aesgcm a=1; secretbox a=1"), config("*.*: kms kp")],
        plausible=looks_like_an_object,
    )
    stored = sealed("secretbox a=1")
    keyring.chain_for(SECRETS).unseal(stored, CONTEXT)
    arrived: Keyring = pickle.loads(pickle.dumps(keyring))  # noqa: S301 - our own bytes of a moment ago
    assert arrived.chain_for(SECRETS).unseal(stored, CONTEXT).position == (0, 2, 0)
    failure = refused(keyring.chain_for(SECRETS), sealed("aesgcm a=2"))
    copy: NoKeyFits = pickle.loads(pickle.dumps(failure))  # noqa: S301 - our own bytes of a moment ago
    assert (copy.reasons, copy.attempts, str(copy)) == (failure.reasons, failure.attempts, str(failure))


def test_plaintext_does_not_show_in_what_was_unsealed() -> None:
    unsealed = Keyring(()).chain_for(SECRETS).unseal(b"hush", CONTEXT)
    assert "hush" not in repr(unsealed)


def test_importing_providers_brings_neither_grpc_nor_yaml() -> None:
    code = "import sys, snaptool.providers; sys.exit(bool({'grpc', 'snaptool.providers.kms', 'yaml'} & {*sys.modules}))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
