"""Plaintext that no API server can decode: one such value, and every list of its resource fails.

`expected_type` says what the keys of a resource hold; nothing for keys that hold no API objects (`ranges`,
`masterleases`, what other programs keep under a plural that nobody knows). `fault` judges a plaintext by it, at one of
two depths. The cheap one looks at the encoding: a protobuf envelope whose lengths add up, JSON and CBOR that parse,
and a type that the resource can have. The full one also reads the message inside of the envelope with the table of
kinds; what that does not have is read by the wire format alone, so that a healthy value of a newer release is never
called undecodable.

It follows what API servers do, not what they write: unknown fields, texts that are not UTF-8 in protobuf and JSON, and
a missing end of the envelope are all read. Two kinds of values go further: an empty one and one that names no type.
For built-in resources servers make an object without a name of them, which no client can get or delete; no API server
ever stored one.

Source: kubernetes/apimachinery pkg/runtime/serializer/{json,protobuf,cbor,recognizer}; run against the storage of
k8s.io/apiserver 0.31.14 and 0.37.2 (tests/interop/test_oracle_storage.py). Any bytes have an answer.
"""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from re import compile as pattern

from snaptool import wire
from snaptool.errors import FormatError
from snaptool.kube.keys import RESOURCE_TYPES
from snaptool.kube.objects import CBOR_MAGIC, PROTOBUF_MAGIC, check_cbor, describe, load_json, usual_type


class Fault(StrEnum):
    """Why no API server can decode a plaintext. The values are codes of findings and reasons in JSON."""

    EMPTY = "empty"
    NO_OBJECT = "no_object"
    """It begins like no encoding of objects."""
    BAD_ENVELOPE = "bad_envelope"
    """The protobuf envelope is broken: cut off, mostly."""
    BAD_OBJECT = "bad_object"
    """The envelope is whole, and the object inside of it breaks off or has a field of another type."""
    BAD_JSON = "bad_json"
    BAD_CBOR = "bad_cbor"
    NO_TYPE = "no_type"
    """It names no apiVersion or no kind."""
    WRONG_TYPE = "wrong_type"
    """It is an object of another resource, or of a version that no release has."""
    UNDEFINED_VERSION = "undefined_version"
    """It is a custom resource in a version that its CustomResourceDefinition does not have."""
    HEADLESS = "headless"
    """It is the ciphertext of an object, without the header that names provider and key."""


@dataclass(frozen=True, slots=True)
class ExpectedType:
    """What the values of a resource say they are. `kind` empty: any; `groups` None: any. `core`: version v1 alone.

    `versions`: the apiVersions that a custom resource is defined in; None where its definition is not known.
    """

    kind: str = ""
    groups: frozenset[str] | None = None
    core: bool = False
    versions: Container[str] | None = None


ANY_TYPE = ExpectedType()
_TYPES = {(known.resource, known.group): known for known in RESOURCE_TYPES}
_VERSION = pattern(r"v[0-9]+((alpha|beta)[0-9]+)?")

# Groups whose objects may have been stored under another one before, or may be in a later release.
_OTHER_GROUPS = {"autoscaling": "extensions", "batch": "extensions"}
_UNSETTLED = frozenset(
    {
        "resource.k8s.io",
        "lifecycle.k8s.io",
        "internal.apiserver.k8s.io",
        "storagemigration.k8s.io",
        "certificates.k8s.io",
        "scheduling.k8s.io",
        "coordination.k8s.io",
    }
)


@lru_cache(maxsize=1024)
def expected_type(resource: str, group: str | None) -> ExpectedType | None:
    """Return what values of a resource have to be; None where nobody can say that they are API objects.

    `group` None: a plural that is in no table. Custom resources may be of any kind.
    """
    if group is None:
        return None
    known = _TYPES.get((resource, group))
    if known is None:
        return ANY_TYPE if "." in group else None
    if group in _UNSETTLED or group.endswith(".openshift.io"):
        return ExpectedType(known.kind)
    others = {_OTHER_GROUPS[group]} if group in _OTHER_GROUPS else set()
    groups = frozenset({group, *known.former_groups, *others})
    return ExpectedType(known.kind, groups, core=groups == {""})


def fault(plaintext: bytes, expected: ExpectedType, *, full: bool = False) -> Fault | None:
    """Say why no API server can decode `plaintext` as an object of a resource; None where one can. Never raises."""
    named = usual_type(plaintext)
    if named is not None:
        return _type_fault(*named, expected) or (_object_fault(plaintext, *named) if full else None)
    if plaintext.startswith(PROTOBUF_MAGIC):
        return _envelope_fault(plaintext, expected, full=full)
    text = plaintext.lstrip(b" \t\r\n")
    if not text:
        return Fault.EMPTY
    if text.startswith(b"{"):
        return _json_fault(text, expected)
    if plaintext.startswith(CBOR_MAGIC):
        return _cbor_fault(plaintext, expected)
    return _yaml_fault(plaintext, expected)


def is_object_of(plaintext: bytes, expected: ExpectedType) -> bool:
    """Is it certain that `plaintext` is an object of a resource? For guesses that have to prove themselves by it."""
    return plaintext.startswith((PROTOBUF_MAGIC, b"{", CBOR_MAGIC)) and fault(plaintext, expected, full=True) is None


def shows_right_key(plaintext: bytes) -> bool:
    """Is it certain that a key was right that gave `plaintext`, sound or not?

    What a wrong key gives is random: that begins like an envelope once in 2^40 times, and is JSON more seldom still.
    """
    if plaintext.startswith(PROTOBUF_MAGIC + b"\n"):
        return True
    if len(plaintext) < _SHORTEST_JSON or not plaintext.startswith(b"{"):
        return False
    try:
        load_json(plaintext)
    except FormatError:
        return False
    return True


_SHORTEST_JSON = 8


def may_be_ciphertext(value: bytes, why: Fault | None) -> bool:
    """Could a plain value be ciphertext that lost its header? Only a key says. `why` it is not an object."""
    if why is Fault.BAD_JSON:
        value = value[:_SHORTEST_CIPHERTEXT]  # JSON that was damaged begins like JSON
    return why in _NO_ENCODING and len(value) >= _SHORTEST_CIPHERTEXT and not _is_text(value)


_NO_ENCODING = (Fault.NO_OBJECT, Fault.BAD_JSON, Fault.BAD_CBOR)


_SHORTEST_CIPHERTEXT = 28
"""AES-GCM's nonce and tag."""


@lru_cache(maxsize=1024)
def _type_fault(api_version: str, kind: str, expected: ExpectedType) -> Fault | None:
    if not api_version or not kind:
        return Fault.NO_TYPE
    group, _, version = api_version.rpartition("/")
    if expected.versions is not None and api_version not in expected.versions:
        return Fault.UNDEFINED_VERSION
    if expected.kind and kind != expected.kind:
        return Fault.WRONG_TYPE
    if expected.groups is not None and group not in expected.groups:
        return Fault.WRONG_TYPE
    if expected.kind and (not _VERSION.fullmatch(version) or (expected.core and version != "v1")):
        return Fault.WRONG_TYPE
    return None


# -- protobuf --------------------------------------------------------------------------------------------------------


def _envelope_fault(plaintext: bytes, expected: ExpectedType, *, full: bool) -> Fault | None:
    """Judge an envelope that is not as API servers write it, by what they read: unknown fields are stepped over."""
    parts: dict[int, bytes] = {}
    texts: dict[int, str] = {}
    try:
        for part in wire.fields(plaintext[len(PROTOBUF_MAGIC) :]):
            if part.number <= len(_ENVELOPE):
                parts[part.number] = _bytes(part)
        for part in wire.fields(parts.get(1, b"")):
            if part.number <= len(_TYPE_META):
                texts[part.number] = _bytes(part).decode(errors="replace")
    except FormatError:
        return Fault.BAD_ENVELOPE
    if not parts:
        return Fault.BAD_ENVELOPE
    api_version, kind = texts.get(1, ""), texts.get(2, "")
    found = _type_fault(api_version, kind, expected)
    if found is None and full:
        found = _message_fault(parts.get(2, b""), api_version, kind)
    return found


_ENVELOPE = ("typeMeta", "raw", "contentEncoding", "contentType")
_TYPE_META = ("apiVersion", "kind")


def _bytes(field: wire.Field) -> bytes:
    if field.wire_type != wire.BYTES or not isinstance(field.value, bytes):
        raise wire.BadMessage(f"field {field.number} has another wire type", field.start)
    return field.value


def _object_fault(plaintext: bytes, api_version: str, kind: str) -> Fault | None:
    raw = next((part.value for part in wire.fields(plaintext[len(PROTOBUF_MAGIC) :]) if part.number == 2), b"")
    return _message_fault(raw if isinstance(raw, bytes) else b"", api_version, kind)


def _message_fault(message: bytes, api_version: str, kind: str) -> Fault | None:
    from snaptool.kube.kinds.reader import is_refused  # noqa: PLC0415 - a cheap look needs no table of kinds

    return Fault.BAD_OBJECT if is_refused(message, api_version, kind) else None


# -- JSON, CBOR, YAML ------------------------------------------------------------------------------------------------


def _no_constant(text: str) -> float:
    raise ValueError(text)  # NaN and Infinity are Python's addition


def _number(_text: str) -> int:
    return 0  # only the syntax counts, and a number may have more digits than Python reads


def _json_fault(text: bytes, expected: ExpectedType) -> Fault | None:
    try:
        # Go reads bytes that are not UTF-8 as U+FFFD.
        loaded = json.loads(
            text.decode(errors="replace"), parse_constant=_no_constant, parse_float=_number, parse_int=_number
        )
    except RecursionError:
        return None  # deeper than we can follow, which is no verdict
    except ValueError:
        return Fault.BAD_JSON
    api_version, kind = loaded.get("apiVersion", ""), loaded.get("kind", "")
    if not isinstance(api_version, str) or not isinstance(kind, str):
        return Fault.NO_TYPE
    if not isinstance(loaded.get("metadata", {}), dict | None):
        return Fault.BAD_OBJECT
    return _type_fault(api_version, kind, expected)


def _cbor_fault(plaintext: bytes, expected: ExpectedType) -> Fault | None:
    try:
        check_cbor(plaintext)
        header = describe(plaintext)
    except FormatError as error:
        return Fault.NO_TYPE if "name a type" in str(error) else Fault.BAD_CBOR
    return _type_fault(header.api_version, header.kind, expected)


def _yaml_fault(plaintext: bytes, expected: ExpectedType) -> Fault | None:
    try:
        header = describe(plaintext)
    except FormatError:
        # YAML in another style than an encoder's is no verdict, as long as it could name a type.
        if b"apiVersion" in plaintext and b"kind" in plaintext and _is_text(plaintext):
            return None
        return Fault.NO_OBJECT
    return _type_fault(header.api_version, header.kind, expected)


def _is_text(plaintext: bytes) -> bool:
    try:
        return _CONTROL.search(plaintext.decode()) is None
    except UnicodeDecodeError:
        return False


_CONTROL = pattern(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
