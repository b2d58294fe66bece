"""Why a value does not open, in a sentence for a person, and what kube-apiserver prints about it.

The codes are for scripts and exact; at three in the morning they help nobody. A sentence here says what the code means
for this value, naming its provider and the key that it asks for. Where one code has several causes, all are named, the
likeliest first. Never says anything of plaintext or keys but their names.

Source: docs/formats/encryption.md, "Why a value does not open".
"""

from __future__ import annotations

from snaptool.kube.undecodable import Fault
from snaptool.operations.crypto import Outcome
from snaptool.operations.labels import NO_KEY_NAME, Header
from snaptool.providers.keyring import SERVER_TEXTS
from snaptool.providers.provider import Kind, Reason


def explain(outcome: Outcome, header: Header, *, with_config: bool = True) -> str:
    """Say why a value with `header` in front did not open, or cannot be decoded; nothing for one that is sound.

    `with_config`: a configuration was given to read with.
    """
    if outcome.fault is not None:
        return _FAULTS[outcome.fault].format(key=f"{outcome.kind} {outcome.key_name}".rstrip())
    if not with_config and outcome.reasons and header.kind is not Kind.IDENTITY:
        return f"it is stored under {_named(header)}, and no configuration was given to open it with"
    return "; ".join(dict.fromkeys(_sentence(reason, header) for reason in outcome.reasons))


def of_each(sentence: str, count: int) -> str:
    """Say of several values what was said of one."""
    return f"each {sentence.removeprefix('it ')}" if count > 1 and sentence.startswith("it ") else sentence


def server_message(outcome: Outcome) -> str:
    """Say what kube-apiserver prints about a value that did not open: what to search its log for."""
    return outcome.server_error or "; ".join(SERVER_TEXTS[reason] for reason in outcome.reasons)


def _named(header: Header) -> str:
    return f"{header.provider} {header.shown!r}" if header.name not in {"", NO_KEY_NAME} else header.provider


def _sentence(reason: Reason, header: Header) -> str:
    if header.kind and header.name == NO_KEY_NAME and reason in {Reason.UNKNOWN_PREFIX, Reason.UNKNOWN_KEY_NAME}:
        return f"it is damaged: it begins like a value under {header.provider}, but no key name follows"
    if reason is Reason.UNKNOWN_PREFIX:
        return _no_provider(header)
    if reason is Reason.UNKNOWN_KEY_NAME:
        return f"the configuration has {header.provider} keys for it, but none with the name {header.shown!r}"
    return _SENTENCES[reason].format(key=_named(header))


def _no_provider(header: Header) -> str:
    if header.kind is Kind.IDENTITY:
        return "it is stored in plaintext, and the configuration has no identity provider for its resource"
    if header.kind is None:
        return "it begins like an encrypted value, but names a provider that Kubernetes does not have"
    return f"it is under {_named(header)}, and the configuration has no {header.provider} provider for its resource"


_OTHER_KEY = "the key of that name in the configuration is another one (same name, other secret)"
_UNREADABLE_KMS = "the envelope of {key} is damaged: "

_SENTENCES = {
    Reason.IDENTITY_ENCRYPTED: (
        "no entry of the configuration covers its resource, so the API server expects it in plaintext, "
        "but it is under {key}"
    ),
    Reason.TOO_SHORT: "it is damaged: too short for any value under {key}",
    Reason.NOT_BLOCK_MULTIPLE: "it is damaged: its size is not a multiple of 16 bytes, as AES-CBC makes it",
    Reason.NO_CIPHER_BLOCK: "it is damaged: nothing follows the initialisation vector, and API servers crash at it",
    Reason.CBC_PADDING_LENGTH: f"{{key}} does not open it: {_OTHER_KEY}, or the value is damaged",
    Reason.CBC_PADDING_BYTES: f"{{key}} does not open it: {_OTHER_KEY}, or the value is damaged",
    Reason.DOUBTFUL_PLAINTEXT: (
        f"{{key}} turns it into garbage that is not a Kubernetes object: {_OTHER_KEY}, and AES-CBC cannot notice, "
        "or the value is damaged"
    ),
    Reason.GCM_AUTH: (
        f"{{key}} does not open it: {_OTHER_KEY}, "
        "or the value was moved here from another etcd key, to which its encryption is bound, or it is damaged"
    ),
    Reason.SECRETBOX_AUTH: f"{{key}} does not open it: {_OTHER_KEY}, or the value is damaged",
    Reason.KMSV1_BAD_LENGTH: _UNREADABLE_KMS + "its data key is cut off",
    Reason.DEK_BAD_SIZE: "the key service returned a data key of impossible size: it unwrapped something else",
    Reason.KMS_UNWRAP_FAILED: "the key service of {key} did not unwrap its data key, or was not asked",
    Reason.KMSV2_BAD_PROTO: _UNREADABLE_KMS + "it is not a protobuf message",
    Reason.KMSV2_BAD_SOURCE_TYPE: _UNREADABLE_KMS + "it names a kind of data key that Kubernetes does not have",
    Reason.KMSV2_NO_DATA: _UNREADABLE_KMS + "it holds no encrypted data",
    Reason.KMSV2_BAD_DEK_SOURCE: _UNREADABLE_KMS + "its wrapped data key is missing or too long",
    Reason.KMSV2_BAD_KEY_ID: _UNREADABLE_KMS + "the id of the key service's key is missing or too long",
    Reason.KMSV2_BAD_ANNOTATIONS: _UNREADABLE_KMS + "its annotations break the rules",
    Reason.KMSV2_SEED_TOO_SHORT: "the key service returned a seed that is too short: it unwrapped something else",
    Reason.KMSV2_NO_STATE: "the key service of {key} was never reached, so the provider knows no key",
}

_FAULTS = {
    Fault.EMPTY: "it is empty",
    Fault.NO_OBJECT: "it is not an object in any encoding that API servers read",
    Fault.BAD_ENVELOPE: "its protobuf envelope breaks off or is damaged",
    Fault.BAD_OBJECT: "its envelope is whole, and the object inside is cut off or damaged",
    Fault.BAD_JSON: "it is broken JSON",
    Fault.BAD_CBOR: "it is broken CBOR",
    Fault.NO_TYPE: "it does not name an apiVersion and a kind",
    Fault.WRONG_TYPE: "it is an object of another resource, or of a version that no API server has",
    Fault.UNDEFINED_VERSION: "its CustomResourceDefinition does not have the version that it is stored in",
    Fault.HEADLESS: "it is ciphertext that lost its header, and opens under {key} without it",
}
