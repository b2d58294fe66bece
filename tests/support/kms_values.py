"""Stored values under KMS for tests: a little store of them, and the sources in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snaptool.providers.kms import (
    Api,
    KmsService,
    KmsV1Provider,
    KmsV2Provider,
    SharedWriteKeys,
    UnwrappedKeys,
    WrappedSource,
    WriteKey,
)
from snaptool.providers.kms_keys import LocalKeks, SourceCollector, Sources

KMS_VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "golden" / "kms.json").read_text())


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
    """The test plugin's first two KEKs, without the plugin."""
    return LocalKeks(provider, api, {"kek-1": b"\x11" * 32, "kek-2": b"\x22" * 32}, current)


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
