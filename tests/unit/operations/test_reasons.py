"""Every reason has a sentence that names what it is about."""

from __future__ import annotations

import pytest

from snaptool.operations.crypto import Outcome
from snaptool.operations.labels import NO_KEY_NAME, PLAIN, Header
from snaptool.operations.reasons import explain, server_message
from snaptool.providers.keyring import SERVER_TEXTS
from snaptool.providers.provider import Kind, Reason

CBC = Header(Kind.AESCBC, "key1")


def lost(*reasons: Reason, server_error: str = "") -> Outcome:
    return Outcome(False, None, "", (), stale=False, reasons=reasons, server_error=server_error)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_sentence_without_gaps(reason: Reason) -> None:
    sentence = explain(lost(reason), CBC)
    assert len(sentence) > 30
    assert "{" not in sentence
    assert server_message(lost(reason)) == SERVER_TEXTS[reason]


@pytest.mark.parametrize(
    ("reason", "header", "words"),
    [
        (Reason.UNKNOWN_KEY_NAME, CBC, "has aescbc keys for it, but none with the name 'key1'"),
        (Reason.UNKNOWN_PREFIX, CBC, "it is under aescbc 'key1', and the configuration has no aescbc provider"),
        (Reason.UNKNOWN_PREFIX, PLAIN, "stored in plaintext, and the configuration has no identity provider"),
        (Reason.UNKNOWN_PREFIX, Header(None, "k8s:enc:rot13:v1:k"), "names a provider that Kubernetes does not have"),
        (Reason.IDENTITY_ENCRYPTED, CBC, "no entry of the configuration covers its resource"),
        (Reason.CBC_PADDING_BYTES, CBC, "same name, other secret"),
        (Reason.DOUBTFUL_PLAINTEXT, CBC, "garbage that is not a Kubernetes object"),
        (Reason.GCM_AUTH, Header(Kind.AESGCM, "k"), "moved here from another etcd key"),
        (Reason.SECRETBOX_AUTH, Header(Kind.SECRETBOX, "k"), "same name, other secret"),
        (Reason.NOT_BLOCK_MULTIPLE, CBC, "it is damaged"),
        (Reason.KMS_UNWRAP_FAILED, Header(Kind.KMS_V2, "vault"), "key service of kms/v2 'vault'"),
        (Reason.UNKNOWN_KEY_NAME, Header(Kind.AESCBC, NO_KEY_NAME), "under aescbc, but no key name follows"),
    ],
)
def test_a_sentence_says_what_is_the_matter(reason: Reason, header: Header, words: str) -> None:
    assert words in explain(lost(reason), header)


def test_names_with_braces_are_shown_as_they_are() -> None:
    assert "'{key}{0}'" in explain(lost(Reason.GCM_AUTH), Header(Kind.AESGCM, "{key}{0}"))


def test_several_reasons_are_all_told_and_equal_sentences_once() -> None:
    both = explain(lost(Reason.CBC_PADDING_LENGTH, Reason.CBC_PADDING_BYTES, Reason.UNKNOWN_KEY_NAME), CBC)
    assert both.count("does not open it") == 1
    assert both.count("none with the name") == 1


def test_without_a_configuration_that_is_the_reason() -> None:
    sentence = explain(lost(Reason.IDENTITY_ENCRYPTED), CBC, with_config=False)
    assert sentence == "it is stored under aescbc 'key1', and no configuration was given to open it with"


def test_the_text_of_the_server_goes_before_our_table() -> None:
    assert server_message(lost(Reason.GCM_AUTH, server_error="[one, two]")) == "[one, two]"
