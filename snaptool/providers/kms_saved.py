"""KMS keys without a KMS: saved while there was one, or unwrapped with the KEK itself.

Two kinds of JSON files are read, and told apart by what they hold::

    {"format": "snaptool/kms-keys/1",          unwrapped keys, named by the SHA-256 of what was wrapped, and per
     "keys": {sha256: base64},                 provider keys to try on everything: whoever tried them finds out by
     "candidates": {provider: [base64]}}       authentication which one fits

    {"keks": {key id: 64 hex digits},          key-encryption keys, in the format of the project's test plugin
     "current": key id}

Either becomes a `KeySource`. Such a file is worth as much as the KMS was: nothing here opens, writes or prints one.
This module knows no plugin and no socket. Source: spec/kms.md 5 (wrapped form of the test plugin).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from snaptool.errors import InputError
from snaptool.providers.kms import (
    TEST_PLUGIN_ANNOTATION,
    Api,
    Category,
    KmsError,
    KmsRefused,
    ServiceStatus,
    SourceType,
    UnwrapFailed,
    WrappedSource,
    hash_key_id,
    key_size_problem,
)
from snaptool.providers.provider import Entropy

KEY_FILE_FORMAT: Final = "snaptool/kms-keys/1"


class BadKeyFile(InputError):
    """A file of saved keys or KEKs that cannot be used. Names the place, never the content."""


@dataclass(frozen=True, slots=True)
class SavedKeys:
    """Keys that were saved while there was a service: by SHA-256 of what was wrapped, and lists to try, by provider."""

    by_digest: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    to_try: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict, repr=False)

    def candidates(self, source: WrappedSource) -> Sequence[bytes]:
        """Return the saved key of `source`, or its provider's that have a possible length. Raises UnwrapFailed."""
        key = self.by_digest.get(source.source_digest)
        if key is not None:
            return (key,)
        possible = [one for one in self.to_try.get(source.provider, ()) if key_size_problem(source, one) is None]
        if not possible:
            raise UnwrapFailed(source.provider, Category.NOT_ASKED)
        return possible


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


def read_key_file(text: str) -> SavedKeys | SavedKeks:
    """Read a file of either kind; `keks` in it makes it one of KEKs. Raises BadKeyFile."""
    document = _json_object(text)
    if "keks" in document:
        return _read_keks(document)
    if document.get("format") != KEY_FILE_FORMAT:
        raise BadKeyFile(f"format: is not {KEY_FILE_FORMAT!r}")
    by_digest = {}
    for name, value in _object_at(document, "keys").items():
        if not re.fullmatch("[0-9a-fA-F]{64}", name):
            raise BadKeyFile("keys: a name is not a SHA-256 in hex")
        by_digest[bytes.fromhex(name)] = _key_at(value, f"keys[{name}]")
    to_try = {}
    for provider, values in _object_at(document, "candidates").items():
        if not isinstance(values, list):
            raise BadKeyFile(f"candidates[{provider!r}]: is not a list")
        to_try[provider] = tuple(
            _key_at(value, f"candidates[{provider!r}][{index}]") for index, value in enumerate(values)
        )
    return SavedKeys(by_digest, to_try)


def _read_keks(document: Mapping[str, object]) -> SavedKeks:
    keks = {}
    for key_id, value in _object_at(document, "keks").items():
        if not isinstance(value, str) or not re.fullmatch("[0-9a-fA-F]{64}", value):
            raise BadKeyFile(f"keks[{hash_key_id(key_id)}]: is not 64 hex digits")
        keks[key_id] = bytes.fromhex(value)
    current = document.get("current")
    if not isinstance(current, str) or current not in keks:
        raise BadKeyFile("current: names none of the keks")
    return SavedKeks(keks, current)


def write_key_file(keys: Iterable[tuple[WrappedSource, bytes]]) -> str:
    """Return the text of a file of saved keys. It is worth as much as the KMS: the caller keeps it at mode 0600."""
    saved = {source.source_digest.hex(): base64.b64encode(key).decode() for source, key in keys}
    return json.dumps({"format": KEY_FILE_FORMAT, "keys": saved, "candidates": {}}, indent=2, sort_keys=True) + "\n"


def _json_object(text: str) -> dict[str, object]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise BadKeyFile("not a JSON document") from None  # the decoder's error carries the whole document along
    if not isinstance(document, dict):
        raise BadKeyFile("not a JSON object")
    return document


def _object_at(document: Mapping[str, object], name: str) -> dict[str, object]:
    found = document.get(name, {})
    if not isinstance(found, dict):
        raise BadKeyFile(f"{name}: is not an object")
    return found


def _key_at(value: object, place: str) -> bytes:
    if not isinstance(value, str):
        raise BadKeyFile(f"{place}: is not a string")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise BadKeyFile(f"{place}: is not base64") from None  # the cause would show the text


class LocalKeks:
    """A KmsService without a plugin: key-encryption keys from a file, in the format of the project's test plugin.

    Wrapped form: `01 || nonce(12) || AES-256-GCM`, AAD the key id; v1 puts the key id and `|` in front, v2 demands one
    annotation. Source: spec/kms.md 5.
    """

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
        elif source.annotations != ((TEST_PLUGIN_ANNOTATION, b"1"),):
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
            annotations=((TEST_PLUGIN_ANNOTATION, b"1"),),
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
