"""Stored values under KMS for tests: a little store of them, and the sources in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from snaptool.providers.kms import KmsV1Provider, KmsV2Provider, SharedWriteKeys, UnwrappedKeys, WriteKey
from snaptool.providers.kms_envelope import Envelope, SourceType, WrappedSource, encode_envelope
from snaptool.providers.kms_service import KmsService
from snaptool.providers.kms_sources import SourceCollector, Sources
from snaptool.providers.provider import Api
from tests.support.local_keks import LocalKeks

KMS_VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "golden" / "kms.json").read_text())


class Form(StrEnum):
    """The four bodies that KMS values have had."""

    V1_GCM = "v1-gcm"
    V1_CBC = "v1-cbc"
    V2_SEED = "v2-seed"
    V2_DEK = "v2-dek"


def stored_value(form: Form, wrapped: WrappedSource, key: bytes, etcd_key: bytes, plaintext: bytes) -> bytes:
    """Return what kube-apiserver stored: 1.24 and older for v1-cbc, 1.27 for v2-dek, of today for the others.

    `wrapped`: `key` wrapped by the plugin. Made with the bare primitives, not with the code under test, but for the
    envelope around it, which the vectors vouch for.
    """
    nonce = os.urandom(12)
    if form is Form.V1_CBC:
        padding = 16 - len(plaintext) % 16
        iv = os.urandom(16)
        encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
        body = iv + encryptor.update(plaintext + bytes([padding]) * padding) + encryptor.finalize()
    elif form is Form.V2_SEED:
        info = os.urandom(32)
        derived = HKDFExpand(hashes.SHA256(), 32, info).derive(key)
        body = info + nonce + AESGCM(derived).encrypt(nonce, plaintext, etcd_key)
    else:
        body = nonce + AESGCM(key).encrypt(nonce, plaintext, etcd_key)
    if form is Form.V2_DEK:
        wrapped = replace(wrapped, source_type=SourceType.AES_GCM_KEY)
    prefix = wrapped.api.prefix + wrapped.provider.encode() + b":"
    return prefix + encode_envelope(Envelope(wrapped, body))


def plaintext_of(number: int) -> bytes:
    return b"k8s\0object %d" % number


class Store:
    """Stored values by place, as a snapshot would hand them out. Counts how often it is asked."""

    def __init__(self, provider: str = "kp") -> None:
        self.provider = provider
        self.values: list[tuple[bytes, bytes]] = []

    def seal(self, count: int, api: Api, write: WriteKey, provider: str | None = None) -> None:
        """Add `count` values under one write key."""
        name = provider or self.provider
        sealer = (
            KmsV1Provider(name, UnwrappedKeys(), SharedWriteKeys((write,)))
            if api is Api.V1
            else KmsV2Provider(name, UnwrappedKeys(), write)
        )
        for _ in range(count):
            number = len(self.values)
            key = b"/registry/secrets/default/s%d" % number
            self.values.append((key, sealer.prefix + sealer.seal(plaintext_of(number), key, os.urandom)))

    def seal_by(self, service: KmsService, *counts: int) -> None:
        """Add values under a key of their own for each count, wrapped by `service`."""
        for count in counts:
            key = os.urandom(32)
            self.seal(count, service.api, WriteKey(service.wrap(key), key), service.provider)

    def seal_as(self, form: Form, service: KmsService, count: int) -> None:
        """Add `count` values of one form under one key."""
        key = os.urandom(32)
        wrapped = service.wrap(key)
        for _ in range(count):
            number = len(self.values)
            etcd_key = b"/registry/secrets/default/s%d" % number
            self.values.append((etcd_key, stored_value(form, wrapped, key, etcd_key, plaintext_of(number))))

    def fetch(self, place: int) -> tuple[bytes, bytes]:
        return self.values[place]

    def collect(self, api: Api, provider: str | None = None) -> Sources:
        name = provider or self.provider
        collector = SourceCollector([(api, name)])
        for place, (_, stored) in enumerate(self.values):
            collector.add(stored, place)
        return collector.sources(api, name)

    def open_all(self, provider: KmsV1Provider | KmsV2Provider) -> None:
        """Open every value and compare with what was sealed."""
        for number, (key, stored) in enumerate(self.values):
            assert stored.startswith(provider.prefix)
            assert provider.unseal(stored[len(provider.prefix) :], key).plaintext == plaintext_of(number)


def local_keks(api: Api, provider: str = "kp", current: str = "kek-1") -> LocalKeks:
    """The test plugin's KEKs, without the plugin."""
    return LocalKeks(provider, api, {f"kek-{number}": bytes([0x11 * number]) * 32 for number in range(1, 6)}, current)


class Scripted:
    """A KmsService that does what a function says, for what no plugin in another process can be made to do."""

    def __init__(self, inner: KmsService, unwrap: Callable[[WrappedSource], bytes]) -> None:
        self._inner = inner
        self._unwrap = unwrap
        self.closed = False

    @property
    def provider(self) -> str:
        return self._inner.provider

    @property
    def api(self) -> Api:
        return self._inner.api

    def unwrap(self, source: WrappedSource) -> bytes:
        return self._unwrap(source)

    def wrap(self, key: bytes) -> WrappedSource:
        return self._inner.wrap(key)

    def status(self) -> Any:
        return self._inner.status()

    def close(self) -> None:
        self.closed = True
