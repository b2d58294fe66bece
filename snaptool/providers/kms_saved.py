"""KMS keys without a KMS: saved while there was one.

A JSON file::

    {"format": "snaptool/kms-keys/1",          unwrapped keys, named by the SHA-256 of what was wrapped, and per
     "keys": {sha256: base64},                 provider keys to try on everything: whoever tried them finds out by
     "candidates": {provider: [base64]}}       authentication which one fits

It becomes a `KeySource`. Such a file is worth as much as the KMS was: nothing here opens, writes or prints one.
This module knows no plugin and no socket.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from snaptool.errors import InputError
from snaptool.providers.kms import key_size_problem
from snaptool.providers.kms_envelope import WrappedSource
from snaptool.providers.kms_service import Category, UnwrapFailed

KEY_FILE_FORMAT: Final = "snaptool/kms-keys/1"


class BadKeyFile(InputError):
    """A file of saved keys that cannot be used. Names the place, never the content."""


@dataclass(frozen=True, slots=True)
class SavedKeys:
    """Keys that were saved while there was a service: by SHA-256 of what was wrapped, and lists to try, by provider.

    `digest`: SHA-256 of the file that they were read from, in hex.
    """

    by_digest: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    to_try: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict, repr=False)
    digest: str = ""

    def candidates(self, source: WrappedSource) -> Sequence[bytes]:
        """Return the saved key of `source`, or its provider's that have a possible length. Raises UnwrapFailed."""
        key = self.by_digest.get(source.source_digest)
        if key is not None:
            return (key,)
        possible = [one for one in self.to_try.get(source.provider, ()) if key_size_problem(source, one) is None]
        if not possible:
            raise UnwrapFailed(source.provider, Category.NOT_ASKED)
        return possible


def read_key_file(text: str) -> SavedKeys:
    """Read a file of saved keys. Raises BadKeyFile."""
    document = _json_object(text)
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
    return SavedKeys(by_digest, to_try, hashlib.sha256(text.encode()).hexdigest())


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
