"""Plain values: is this a Kubernetes object, and which one.

A stored object comes in one of four encodings, recognised by its first bytes (docs/formats/encryption.md, "What is
encrypted"): the protobuf envelope of built-in types (``k8s`` NUL, then a `runtime.Unknown`: who it is, then the object
as raw bytes), JSON (custom resources), CBOR with its self-description tag, and YAML. The envelope names the type;
namespace and name stand in the object's metadata, which is field 1 of every built-in type's message.

`plausible` answers for ciphers that cannot tell a right key from a wrong one (AES-CBC). What a wrong key gives is
random bytes, so a magic of four bytes and a well-formed envelope behind it leave chance no room; JSON must parse, YAML
be valid UTF-8 without control characters, CBOR be well-formed, and all of them name both `apiVersion` and `kind`. It
also notices much of the damage inside of a right object, but it does not promise to.

This module knows no key, no cipher and no file. CBOR is read as far as its header, since no CBOR library is among our
dependencies and the encoding is an alpha feature; `snaptool.kube.kinds` reads whole objects.

Source: kubernetes/apimachinery pkg/runtime/generated.proto, pkg/apis/meta/v1/generated.proto, and
pkg/runtime/serializer/{protobuf,cbor} (eed236ce).
"""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, lru_cache
from math import isfinite
from re import DOTALL, MULTILINE
from re import compile as pattern
from typing import Any

from snaptool import wire
from snaptool.errors import FormatError
from snaptool.kube.cutting import Envelopes

PROTOBUF_MAGIC = b"k8s\x00"
CBOR_MAGIC = b"\xd9\xd9\xf7"  # tag 55799, RFC 8949 section 3.4.6


class Encoding(StrEnum):
    """How an object is written."""

    PROTOBUF = "protobuf"
    JSON = "json"
    CBOR = "cbor"
    YAML = "yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectHeader:
    """Which object a plaintext says it is. Empty texts: it does not say (cluster-scoped objects have no namespace)."""

    api_version: str
    kind: str
    namespace: str
    name: str
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Envelope:
    """The protobuf envelope, a `runtime.Unknown`. `raw`: the object's own message."""

    api_version: str
    kind: str
    raw: bytes = field(repr=False)
    content_encoding: str
    content_type: str


class NotAnObject(FormatError):
    """A plaintext that is not a Kubernetes object in any encoding we know. Says what is wrong, never what it holds."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"not a Kubernetes object: {problem}")
        self.problem = problem


def encoding_of(plaintext: bytes) -> Encoding:
    """Tell the encoding by the first bytes alone. Raises NotAnObject."""
    if plaintext.startswith(PROTOBUF_MAGIC):
        return Encoding.PROTOBUF
    if plaintext.startswith(b"{"):
        return Encoding.JSON
    if plaintext.startswith(CBOR_MAGIC):
        return Encoding.CBOR
    if _YAML_START.match(plaintext):
        return Encoding.YAML
    raise NotAnObject("it begins like no known encoding" if plaintext else "it is empty")


class _Plausible:
    """Does a plaintext look like an object? Random bytes do not: far less than one in 2^40 would.

    Costs microseconds where it is asked most, about every built-in object of an AES-CBC cluster: of those only the
    envelope is looked at. JSON is parsed, some microseconds per KiB.
    """

    def __call__(self, plaintext: bytes) -> bool:
        """Answer for one."""
        if usual_type(plaintext) is not None:
            return True
        try:
            encoding = encoding_of(plaintext)
            if encoding is Encoding.PROTOBUF:
                decode_envelope(plaintext)
                return True
            if encoding is Encoding.CBOR:
                _cbor_header(plaintext)
                return True
            if encoding is Encoding.YAML:
                _yaml_header(plaintext)
                return True
            _json_header(plaintext)
        except FormatError:
            return False
        return True

    def mark(self, data: memoryview, at: memoryview, size: memoryview, rows: memoryview, sure: bytearray) -> None:
        """Set `sure[row]` to 1 where the plaintext of `size[row]` bytes at `at[row]` of `data` is a usual envelope."""
        any_kind = memoryview(array("q", bytes(8 * len(at))))
        _envelopes().mark(data, at, size, rows, any_kind, memoryview(sure))


plausible = _Plausible()


@cache
def _envelopes() -> Envelopes:
    return Envelopes(lambda start, _: _usual_start(start) is not None)


def describe(plaintext: bytes) -> ObjectHeader:
    """Read type, namespace and name of an object. Raises NotAnObject, or wire.BadMessage for a broken envelope."""
    encoding = encoding_of(plaintext)
    if encoding is Encoding.PROTOBUF:
        return _protobuf_header(plaintext)
    if encoding is Encoding.JSON:
        return _json_header(plaintext)
    if encoding is Encoding.CBOR:
        return _cbor_header(plaintext)
    return _yaml_header(plaintext)


# -- protobuf --------------------------------------------------------------------------------------------------------


_USUAL_START = pattern(rb"k8s\x00\n(.)\n(.)([a-z0-9./-]+)\x12(.)([A-Za-z0-9]+)\x12", DOTALL)
_USUAL_END = b"\x1a\x00\x22\x00"  # contentEncoding and contentType, empty


def usual_type(plaintext: bytes) -> tuple[str, str] | None:
    """Return apiVersion and kind of an envelope that is byte for byte what the API server writes; None proves nothing.

    Every length is in its place; the object inside is not looked at.
    """
    if len(plaintext) < 12 or not plaintext.endswith(_USUAL_END):
        return None
    at = 7 + plaintext[5]
    named = _usual_start(plaintext[:at])
    if named is None:
        return None
    # The length of the object, whose last byte is below 0x80; there is one, for the zero at the end is.
    length, shift = plaintext[at] & 0x7F, 7
    while plaintext[at] & 0x80:
        at += 1
        length |= (plaintext[at] & 0x7F) << shift
        shift += 7
    return named if shift <= 28 and at + 1 + length + len(_USUAL_END) == len(plaintext) else None


@lru_cache(maxsize=1024)
def _usual_start(start: bytes) -> tuple[str, str] | None:
    """Read the type of this magic, type and tag of the object. There are few types, and many objects of each."""
    match = _USUAL_START.fullmatch(start)
    if match is None:
        return None
    type_length, version_length, version, kind_length, kind = match.groups()
    fits = (
        version_length[0] == len(version)
        and kind_length[0] == len(kind)
        and type_length[0] == len(version) + len(kind) + 4 < 0x80
    )
    return (version.decode(), kind.decode()) if fits else None


def decode_envelope(plaintext: bytes) -> Envelope:
    """Open the protobuf envelope. Raises NotAnObject or wire.BadMessage.

    Strict: type and object must be there, and nothing that a `runtime.Unknown` does not have, because this is the proof
    that a key was right.
    """
    if not plaintext.startswith(PROTOBUF_MAGIC):
        raise NotAnObject("the protobuf magic is missing")
    parts: dict[int, bytes] = {}
    for part in wire.fields(plaintext[len(PROTOBUF_MAGIC) :]):
        if not 1 <= part.number <= 4 or not isinstance(part.value, bytes) or part.wire_type != wire.BYTES:
            raise NotAnObject(f"the envelope has an unknown field {part.number}")
        parts[part.number] = part.value
    if 1 not in parts or 2 not in parts:
        raise NotAnObject("the envelope lacks its type or its object")
    api_version, kind = _texts(parts[1], 1, 2)
    if not kind.isalnum() or not api_version.isprintable():
        raise NotAnObject("the envelope does not name a type")
    return Envelope(api_version, kind, parts[2], _text(parts.get(3, b"")), _text(parts.get(4, b"")))


def _protobuf_header(plaintext: bytes) -> ObjectHeader:
    envelope = decode_envelope(plaintext)
    name = namespace = ""
    if not envelope.content_type:
        first = next((part for part in wire.fields(envelope.raw) if part.number == 1), None)
        if first is not None and isinstance(first.value, bytes):
            name, namespace = _texts(first.value, 1, 3)
    return ObjectHeader(
        api_version=envelope.api_version,
        kind=envelope.kind,
        namespace=namespace,
        name=name,
        encoding=Encoding.PROTOBUF,
    )


def _texts(message: bytes, *numbers: int) -> tuple[str, ...]:
    """Return the text fields of these numbers, empty where absent; the last of several counts, as in protobuf."""
    found = {part.number: part.value for part in wire.fields(message) if part.wire_type == wire.BYTES}
    return tuple(_text(found.get(number, b"")) for number in numbers)


def _text(value: int | bytes) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else ""
    except UnicodeDecodeError:
        raise NotAnObject("a text is not UTF-8") from None  # the cause would carry the plaintext along


# -- JSON ------------------------------------------------------------------------------------------------------------


def _no_number(text: str) -> float:
    raise ValueError(text)  # NaN and Infinity are Python's addition


def _finite(text: str) -> float:
    number = float(text)
    return number if isfinite(number) else _no_number(text)


def load_json(plaintext: bytes) -> dict[str, Any]:
    """Parse a JSON object whole. Raises NotAnObject, also for nesting beyond what the parser can follow."""
    try:
        loaded = json.loads(plaintext, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8, numbers of thousands of digits
        raise NotAnObject(f"broken JSON ({type(error).__name__})") from None
    if not isinstance(loaded, dict):
        raise NotAnObject("the JSON is not an object")
    return loaded


def _json_header(plaintext: bytes) -> ObjectHeader:
    loaded = load_json(plaintext)
    metadata = loaded.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    texts = [loaded.get("apiVersion"), loaded.get("kind"), metadata.get("namespace", ""), metadata.get("name", "")]
    api_version, kind, namespace, name = (text if isinstance(text, str) else "" for text in texts)
    if not api_version or not kind:
        raise NotAnObject("the JSON does not name a type")
    return ObjectHeader(api_version=api_version, kind=kind, namespace=namespace, name=name, encoding=Encoding.JSON)


# -- CBOR, to the header ---------------------------------------------------------------------------------------------

_CBOR_UNSIGNED, _CBOR_NEGATIVE, _CBOR_BYTES, _CBOR_TEXT, _CBOR_ARRAY, _CBOR_MAP, _CBOR_TAG, _CBOR_SIMPLE = range(8)


def _cbor_header(plaintext: bytes) -> ObjectHeader:
    """Walk the outermost map (and `metadata`), stepping over everything else.

    Kubernetes writes texts and names as byte strings and only definite lengths (apimachinery cbor/internal/modes); more
    than that is not read.
    """
    top = _cbor_texts(plaintext, len(CBOR_MAGIC))
    metadata = top.get("metadata")
    inner = _cbor_texts(plaintext, metadata) if isinstance(metadata, int) else {}
    texts = [top.get("apiVersion"), top.get("kind"), inner.get("namespace"), inner.get("name")]
    api_version, kind, namespace, name = (text if isinstance(text, str) else "" for text in texts)
    if not api_version or not kind:
        raise NotAnObject("the CBOR does not name a type")
    return ObjectHeader(api_version=api_version, kind=kind, namespace=namespace, name=name, encoding=Encoding.CBOR)


def check_cbor(plaintext: bytes) -> None:
    """Raise NotAnObject unless the tag is followed by exactly one whole map."""
    major, _, _ = _cbor_head(plaintext, len(CBOR_MAGIC))
    if major != _CBOR_MAP:
        raise NotAnObject("the CBOR is not a map")
    if _cbor_skip(plaintext, len(CBOR_MAGIC)) != len(plaintext):
        raise NotAnObject("something follows the CBOR")


def _cbor_texts(plaintext: bytes, offset: int) -> dict[str, str | int]:
    """Read the map at `offset`: its texts, and for every other value the offset at which it stands."""
    major, count, offset = _cbor_head(plaintext, offset)
    if major != _CBOR_MAP:
        raise NotAnObject("the CBOR is not a map")
    found: dict[str, str | int] = {}
    for _ in range(count):
        key, offset = _cbor_string(plaintext, offset)
        major, _, _ = _cbor_head(plaintext, offset)
        if major in (_CBOR_BYTES, _CBOR_TEXT):
            found[key], offset = _cbor_string(plaintext, offset)
        else:
            found[key], offset = offset, _cbor_skip(plaintext, offset)
    return found


def _cbor_head(plaintext: bytes, offset: int) -> tuple[int, int, int]:
    """Return major type, argument, and the offset behind the head."""
    if offset >= len(plaintext):
        raise NotAnObject("the CBOR is cut off")
    major, short = plaintext[offset] >> 5, plaintext[offset] & 31
    if short < 24:
        return major, short, offset + 1
    if short > 27:
        raise NotAnObject("the CBOR has lengths that Kubernetes does not write")
    end = offset + 1 + (1 << (short - 24))
    if end > len(plaintext):
        raise NotAnObject("the CBOR is cut off")
    return major, int.from_bytes(plaintext[offset + 1 : end], "big"), end


def _cbor_string(plaintext: bytes, offset: int) -> tuple[str, int]:
    major, length, start = _cbor_head(plaintext, offset)
    if major not in (_CBOR_BYTES, _CBOR_TEXT) or length > len(plaintext) - start:
        raise NotAnObject("the CBOR has no text where one belongs")
    return plaintext[start : start + length].decode(errors="backslashreplace"), start + length


def _cbor_skip(plaintext: bytes, offset: int) -> int:
    """Return the offset behind the item at `offset`. A count instead of recursion: nesting costs nothing."""
    pending = 1
    while pending:
        pending -= 1
        major, argument, offset = _cbor_head(plaintext, offset)
        if major in (_CBOR_BYTES, _CBOR_TEXT):
            if argument > len(plaintext) - offset:
                raise NotAnObject("the CBOR is cut off")
            offset += argument
        elif major == _CBOR_ARRAY:
            pending += argument
        elif major == _CBOR_MAP:
            pending += 2 * argument
        elif major == _CBOR_TAG:
            pending += 1
    return offset


# -- YAML, to the header ---------------------------------------------------------------------------------------------

_YAML_START = pattern(rb"(?:---[ \t]*\r?\n|#[^\n]*\n|[ \t]*\r?\n)*[A-Za-z_\"'][A-Za-z0-9_.\"'-]*[ \t]*:(?:[ \t\r\n]|$)")
_YAML_TOP = pattern(r"^(apiVersion|kind):[ \t]+[\"']?([^\s\"'#]+)[\"']?[ \t]*$", MULTILINE)
_YAML_METADATA = pattern(r"^metadata:[ \t]*\n((?:[ \t]+[^\n]*(?:\n|\Z))*)", MULTILINE)
_YAML_INNER = pattern(r"^([ \t]+)(name|namespace):[ \t]+[\"']?([^\s\"'#]+)[\"']?[ \t]*$", MULTILINE)
_CONTROL = pattern(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def _yaml_header(plaintext: bytes) -> ObjectHeader:
    """Read block-style YAML as the API server's encoder writes it, by its lines."""
    try:
        text = plaintext.decode()
    except UnicodeDecodeError:
        raise NotAnObject("the YAML is not UTF-8") from None
    top = {match[1]: match[2] for match in _YAML_TOP.finditer(text)}
    if len(top) < 2 or _CONTROL.search(text):
        raise NotAnObject("the YAML does not name a type")
    inner: dict[str, str] = {}
    block = _YAML_METADATA.search(text)
    if block is not None:
        indent = len(block[1]) - len(block[1].lstrip(" \t"))
        inner = {match[2]: match[3] for match in _YAML_INNER.finditer(block[1]) if len(match[1]) == indent}
    return ObjectHeader(
        api_version=top["apiVersion"],
        kind=top["kind"],
        namespace=inner.get("namespace", ""),
        name=inner.get("name", ""),
        encoding=Encoding.YAML,
    )
