"""TEST ONLY: the test plugin's keys without the plugin: a service and a source of keys from its key-encryption keys.

Wrapped form: `01 || nonce(12) || AES-256-GCM`, AAD the key id; v1 puts the key id and `|` in front, v2 demands one
annotation. Source: docs/formats/kms.md, "The protocol".
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from snaptool.providers.kms_envelope import SourceType, WrappedSource, hash_key_id
from snaptool.providers.kms_service import Category, KmsError, KmsRefused, ServiceStatus, UnwrapFailed
from snaptool.providers.provider import Api, Entropy
from tests.support.kms_formats import ANNOTATION


@dataclass(frozen=True, slots=True)
class SavedKeks:
    """Key-encryption keys by key id, one of them current. A KeySource, and a service to write through."""

    keks: Mapping[str, bytes] = field(repr=False)
    current: str

    def candidates(self, source: WrappedSource) -> Sequence[bytes]:
        """Return the key that unwrapping gives. Raises UnwrapFailed."""
        try:
            return (self.service(source.provider, source.api).unwrap(source),)
        except KmsError as error:
            raise UnwrapFailed(source.provider, error.category, error) from error

    def service(self, provider: str, api: Api, entropy: Entropy = os.urandom) -> LocalKeks:
        """Return a KmsService that wraps with the current KEK, for a provider of this name."""
        return LocalKeks(provider, api, self.keks, self.current, entropy)


class LocalKeks:
    """A KmsService without a plugin."""

    def __init__(
        self, provider: str, api: Api, keks: Mapping[str, bytes], current: str, entropy: Entropy = os.urandom
    ) -> None:
        self._provider = provider
        self._api = api
        self._keks = dict(keks)
        self._current = current
        self._entropy = entropy

    @property
    def provider(self) -> str:
        """The provider's name in the configuration."""
        return self._provider

    @property
    def api(self) -> Api:
        """Which envelope the keys are for."""
        return self._api

    def unwrap(self, source: WrappedSource) -> bytes:
        """Unwrap with the KEK of the source's key id. Raises KmsRefused."""
        key_id, blob = source.key_id, source.source
        if self._api is Api.V1:
            head, _, blob = blob.partition(b"|")
            key_id = head.decode(errors="replace")
        elif source.annotations != ((ANNOTATION, b"1"),):
            raise self._refused(Category.BAD_CIPHERTEXT, "the annotation of this format is not there")
        kek = self._keks.get(key_id)
        if kek is None:
            raise self._refused(Category.KEY_UNKNOWN, f"no KEK for key id {hash_key_id(key_id)}")
        if blob[:1] != b"\x01" or len(blob) < 29:
            raise self._refused(Category.BAD_CIPHERTEXT, "not this format")
        try:
            return AESGCM(kek).decrypt(blob[1:13], blob[13:], key_id.encode())
        except InvalidTag as error:
            raise self._refused(Category.BAD_CIPHERTEXT, "message authentication failed") from error

    def wrap(self, key: bytes) -> WrappedSource:
        """Wrap under the current KEK."""
        nonce = self._entropy(12)
        name = self._current.encode()
        blob = b"\x01" + nonce + AESGCM(self._keks[self._current]).encrypt(nonce, key, name)
        if self._api is Api.V1:
            return WrappedSource(
                provider=self._provider, api=Api.V1, source_type=SourceType.AES_GCM_KEY, source=name + b"|" + blob
            )
        return WrappedSource(
            provider=self._provider,
            api=Api.V2,
            source_type=SourceType.HKDF_SEED,
            source=blob,
            key_id=self._current,
            annotations=((ANNOTATION, b"1"),),
        )

    def status(self) -> ServiceStatus:
        """Healthy, always."""
        if self._api is Api.V1:
            return ServiceStatus(version="v1beta1", healthz="", key_id="")
        return ServiceStatus(version="v2", healthz="ok", key_id=self._current)

    def close(self) -> None:
        """Nothing is open."""

    def _refused(self, category: Category, detail: str) -> KmsRefused:
        return KmsRefused(
            f"KMS provider {self._provider!r}: {detail}", provider=self._provider, category=category, detail=detail
        )
