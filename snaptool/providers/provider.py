"""What a provider is, what it answers, and how it says that a key does not fit.

A provider is one entry of a chain: one algorithm with its keys. It sees payload bytes (what follows its prefix in the
stored value) and the context (the complete etcd key, which some algorithms authenticate). It knows no file, no etcd and
no clock. Randomness comes in as a function, so that the same request with the same randomness gives the same bytes.

Source: kubernetes/apiserver pkg/storage/value/transformer.go (24a394e51); codes: docs/formats/encryption.md, "Why a
value does not open".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from snaptool.errors import ProviderError

Entropy = Callable[[int], bytes]
"""Returns that many random bytes: `os.urandom`, or a seeded stream where a result must be repeatable."""

Entropies = Entropy | Sequence[Entropy]
"""The randomness of many values: one source for all of them, which is asked once, or one for each."""


class Plausible(Protocol):
    """Does a plaintext look like an object at all? AES-CBC has no integrity check, so its answers are asked this."""

    def __call__(self, plaintext: bytes, /) -> bool:
        """Answer for one plaintext."""


@runtime_checkable
class SureOfMany(Protocol):
    """A `Plausible` that can look at many plaintexts at once."""

    def mark(self, data: memoryview, at: memoryview, size: memoryview, rows: memoryview, sure: bytearray) -> None:
        """Set `sure[row]` to 1 where the plaintext of `size[row]` bytes at `at[row]` of `data` is surely plausible."""


class Kind(StrEnum):
    """The providers there are, by the names that reports and JSON use."""

    IDENTITY = "identity"
    AESCBC = "aescbc"
    AESGCM = "aesgcm"
    SECRETBOX = "secretbox"
    KMS_V1 = "kms/v1"
    KMS_V2 = "kms/v2"


class Api(StrEnum):
    """The two KMS APIs, by the names of `apiVersion` in EncryptionConfiguration."""

    V1 = "v1"
    V2 = "v2"

    @property
    def kind(self) -> Kind:
        """The kind of providers of this API."""
        return Kind.KMS_V1 if self is Api.V1 else Kind.KMS_V2

    @property
    def prefix(self) -> bytes:
        """What values of every provider of this API begin with; the provider's name and a colon follow."""
        return b"k8s:enc:kms:v1:" if self is Api.V1 else b"k8s:enc:kms:v2:"


class Reason(StrEnum):
    """Why a stored value does not open: docs/formats/encryption.md, "Why a value does not open"."""

    UNKNOWN_PREFIX = "unknown_prefix"
    UNKNOWN_KEY_NAME = "unknown_key_name"
    IDENTITY_ENCRYPTED = "identity_encrypted"
    TOO_SHORT = "too_short"
    NOT_BLOCK_MULTIPLE = "not_block_multiple"
    NO_CIPHER_BLOCK = "no_cipher_block"
    CBC_PADDING_LENGTH = "cbc_padding_length"
    CBC_PADDING_BYTES = "cbc_padding_bytes"
    GCM_AUTH = "gcm_auth"
    SECRETBOX_AUTH = "secretbox_auth"
    KMSV1_BAD_LENGTH = "kmsv1_bad_length"
    DEK_BAD_SIZE = "dek_bad_size"
    KMS_UNWRAP_FAILED = "kms_unwrap_failed"
    KMSV2_BAD_PROTO = "kmsv2_bad_proto"
    KMSV2_BAD_SOURCE_TYPE = "kmsv2_bad_source_type"
    KMSV2_NO_DATA = "kmsv2_no_data"
    KMSV2_BAD_DEK_SOURCE = "kmsv2_bad_dek_source"
    KMSV2_BAD_KEY_ID = "kmsv2_bad_key_id"
    KMSV2_BAD_ANNOTATIONS = "kmsv2_bad_annotations"
    KMSV2_SEED_TOO_SHORT = "kmsv2_seed_too_short"
    KMSV2_NO_STATE = "kmsv2_no_state"
    DOUBTFUL_PLAINTEXT = "doubtful_plaintext"
    """Ours: an unauthenticated cipher opened it, but what came out does not look like an object."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A provider's answer.

    `stale`: a fresh write would store other bytes (another key, another scheme). `key_name`: the key that opened it.
    `doubtful`: opened without authentication, and the plaintext is not plausible. `key_index`: which of the
    provider's keys.
    """

    plaintext: bytes = field(repr=False)
    stale: bool
    key_name: str
    doubtful: bool = False
    key_index: int = 0


class KeyDoesNotFit(ProviderError):
    """This provider, or this key of it, does not open the payload: try the next one.

    `reasons` holds one code, or several where kube-apiserver reports an aggregate, in its order.
    """

    def __init__(self, *reasons: Reason, detail: str = "") -> None:
        super().__init__(detail or ", ".join(reasons))
        self.reasons = reasons


class Provider(Protocol):
    """One entry of a chain."""

    @property
    def kind(self) -> Kind:
        """Which algorithm."""

    @property
    def prefix(self) -> bytes:
        """How stored values of this entry begin: `k8s:enc:aescbc:v1:`, `k8s:enc:kms:v2:NAME:`, empty for identity."""

    @property
    def write_key(self) -> str:
        """Name of the key that `seal` uses: the first one; empty for identity, the provider's name for KMS."""

    def unseal(self, payload: bytes, context: bytes) -> Opened:
        """Open what follows the prefix. `context`: the whole etcd key. Raises KeyDoesNotFit."""

    def seal(self, plaintext: bytes, context: bytes, entropy: Entropy) -> bytes:
        """Return what follows the prefix in a fresh stored value, as kube-apiserver 1.29 and newer writes it."""
