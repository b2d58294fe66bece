"""The bytes of the clouds' plugins, as the doubles make and take them: docs/formats/kms.md, "Plugins"."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.kms_formats import (
    Aws,
    Azure,
    Gcp,
    OpenShift,
    Refusal,
    Wrapped,
    aws_blob,
    aws_encryption_context,
    azure_block,
    azure_check_annotations,
    azure_key_id,
    azure_private_key,
    azure_unwrap,
    gcp_crypto_key,
    transit_text,
)
from tests.support.kms_values import KMS_VECTORS

AZURE, AWS = KMS_VECTORS["azure"], KMS_VECTORS["aws"]


@pytest.mark.parametrize("case", AWS["cases"], ids=lambda case: case["name"])
def test_case_40_aws_bytes(case: dict[str, str]) -> None:
    api = "v1" if case["name"].startswith("v1") else "v2"
    plugin_bytes = bytes.fromhex(case["plugin_bytes"])
    if "error" in case:
        with pytest.raises(Refusal) as refusal:
            aws_blob(api, plugin_bytes)
        assert refusal.value.text == case["error"]
    else:
        assert aws_blob(api, plugin_bytes).hex() == case["ciphertext_blob"]


@pytest.mark.parametrize("case", AWS["encryption_context_flag"], ids=lambda case: case["flag"] or "empty")
def test_case_40_aws_context_flag(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(ValueError, match=case["error"]):
            aws_encryption_context(case["flag"])
    else:
        assert aws_encryption_context(case["flag"]) == case["context"]


def test_case_41_aws_wrong_context_looks_like_corruption_and_a_disabled_key_says_so() -> None:
    plugin, other = Aws(context="cluster=a"), Aws(context="cluster=b")
    wrapped = plugin.wrap("v2", b"k" * 32)
    assert wrapped.ciphertext[:1] == b"1"
    assert plugin.unwrap("v2", wrapped) == plugin.unwrap("v1", wrapped) == b"k" * 32
    assert plugin.unwrap("v1", Wrapped(wrapped.ciphertext[1:])) == b"k" * 32
    with pytest.raises(Refusal, match="InvalidCiphertextException"):
        other.unwrap("v2", wrapped)
    plugin.remove(plugin.current)
    with pytest.raises(Refusal, match="DisabledException"):
        plugin.unwrap("v2", wrapped)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return azure_private_key(AZURE["test_only_rsa_jwk"])


@pytest.mark.parametrize("case", AZURE["cases"], ids=lambda case: case["name"])
def test_case_42_azure_and_its_fork_are_told_apart_by_sniffing(
    case: dict[str, Any], rsa_key: rsa.RSAPrivateKey
) -> None:
    raw = bytes.fromhex(case["plugin_bytes"]) if "plugin_bytes" in case else case["plugin_bytes_text"].encode()
    assert len(raw) == case["plugin_bytes_len"]
    block, variant = azure_block(raw)
    assert block.hex() == case["sdk_ciphertext"]
    assert variant == ("openshift" if "OpenShift" in case["name"] else "upstream")
    assert azure_unwrap(rsa_key, raw, case["algorithm"]).hex() == case["dek"]


@pytest.mark.parametrize("case", AZURE["key_id_hash"], ids=lambda case: case["vault_url"])
def test_case_43_azure_key_id(case: dict[str, str]) -> None:
    assert azure_key_id(case["vault_url"], case["key_name"], case["key_version"]) == case["key_id"]


def test_case_43_azure_data_of_another_version_is_refused_before_any_vault_call() -> None:
    old, new = Azure("1" * 32), Azure("2" * 32)
    with pytest.raises(Refusal, match="does not match expected key id"):
        new.unwrap("v2", old.wrap("v2", b"k" * 32))


def test_case_44_azure_annotation_version_2_is_another_envelope() -> None:
    wrapped = Azure().wrap("v2", b"k" * 32)
    azure_check_annotations(wrapped.annotations)
    with pytest.raises(Refusal, match="unsupported envelope version"):
        azure_check_annotations(wrapped.annotations | {"version.azure.akv.io": b"2"})
    with pytest.raises(Refusal, match="cannot be empty"):
        azure_check_annotations({})


def test_azure_doubles_make_what_azure_makes() -> None:
    upstream, fork = Azure().wrap("v2", b"k" * 32), OpenShift().wrap("v2", b"k" * 32)
    assert (len(upstream.ciphertext), len(fork.ciphertext)) == (342, 256)
    assert (len(upstream.annotations), len(fork.annotations)) == (5, 2)
    assert upstream.key_id == fork.key_id


@pytest.mark.parametrize("case", KMS_VECTORS["gcp"]["key_id_to_crypto_key"], ids=lambda case: case["key_id"] or "empty")
def test_case_45_gcp_key_id_to_crypto_key(case: dict[str, str | None]) -> None:
    assert gcp_crypto_key(str(case["key_id"])) == case["crypto_key"]


def test_case_45_gcp_key_id_of_something_else_is_refused_and_status_lags() -> None:
    plugin = Gcp(suffix="gen2")
    before = plugin.status()[1]
    wrapped = plugin.wrap("v2", b"k" * 32)
    assert (before, wrapped.key_id) == (plugin.key_uri, f"{plugin.key_uri}/cryptoKeyVersions/1:gen2")
    assert plugin.unwrap("v2", wrapped) == plugin.unwrap("v1", Wrapped(wrapped.ciphertext)) == b"k" * 32
    with pytest.raises(Refusal, match="Error 404"):
        plugin.unwrap("v2", Wrapped(wrapped.ciphertext, "1234567"))
    plugin.remove("1")
    with pytest.raises(Refusal, match="is not enabled, current state is: DISABLED"):
        plugin.unwrap("v2", wrapped)


@pytest.mark.parametrize("case", KMS_VECTORS["vault_transit"][:2], ids=lambda case: case["plugin"])
def test_case_46_transit_texts(case: dict[str, str]) -> None:
    assert transit_text(case["plugin_bytes_text"].encode()) == case["sdk_ciphertext_text"]


def test_case_46_transit_aggregate_and_renamed() -> None:
    plain, _, aggregate, renamed = KMS_VECTORS["vault_transit"]
    assert transit_text(aggregate["plugin_bytes_text"].encode()) == plain["sdk_ciphertext_text"]
    assert transit_text(renamed["plugin_bytes_text"].encode(), "kube-secret-enc-key") == renamed["sdk_ciphertext_text"]
