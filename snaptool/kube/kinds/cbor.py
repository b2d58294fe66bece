"""CBOR as the API server stores custom resources behind its alpha gate: definite lengths, texts as byte strings.

Source: RFC 8949; apimachinery pkg/runtime/serializer/cbor/internal/modes; docs/formats/kinds.md, "CBOR".
"""

from __future__ import annotations

import struct
from base64 import b64encode, urlsafe_b64encode
from typing import Any

from snaptool.kube.kinds.special import go_text
from snaptool.kube.objects import NotAnObject

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_SIMPLE_VALUES = {20: False, 21: True, 22: None}
_FLOATS = {25: ">e", 26: ">f", 27: ">d"}
_CUT = "the CBOR is cut off"


def read_cbor(content: bytes, offset: int, depth: int) -> Any:
    """Read the one item that stands at `offset`. Raises NotAnObject, also for nesting of more than `depth` levels."""
    value, end = _item(content, offset, depth)
    if end != len(content):
        raise NotAnObject("something follows the CBOR")
    return value


def _item(content: bytes, at: int, depth: int, tag: int | None = None) -> tuple[Any, int]:
    if at >= len(content):
        raise NotAnObject(_CUT)
    major, short = content[at] >> 5, content[at] & 31
    argument, at = _argument(content, at, short)
    if major == _UNSIGNED:
        return argument if argument < 1 << 63 else float(argument), at
    if major == _NEGATIVE:
        return -1 - argument if argument < 1 << 63 else float(-1 - argument), at
    if major in {_BYTES, _TEXT}:
        if argument > len(content) - at:
            raise NotAnObject(_CUT)
        return _string(content[at : at + argument], tag if major == _BYTES else None), at + argument
    if major == _SIMPLE:
        if short in _FLOATS:
            return _float(content, at, short), at
        if argument not in _SIMPLE_VALUES:
            raise NotAnObject("the CBOR has a value that Kubernetes does not write")
        return _SIMPLE_VALUES[argument], at
    if not depth:
        raise NotAnObject("the CBOR is nested too deeply")
    if major == _TAG:
        return _item(content, at, depth - 1, argument)
    if major == _ARRAY:
        items = []
        for _ in range(min(argument, len(content) - at + 1)):  # each has a byte at least
            item, at = _item(content, at, depth - 1)
            items.append(item)
        return items, at
    members = {}
    for _ in range(min(argument, len(content) - at + 1)):
        name, at = _item(content, at, depth - 1)
        if not isinstance(name, str):
            raise NotAnObject("the CBOR has a key that is not text")
        members[name], at = _item(content, at, depth - 1)
    return members, at


def _argument(content: bytes, at: int, short: int) -> tuple[int, int]:
    if short < 24:
        return short, at + 1
    if short > 27:
        raise NotAnObject("the CBOR has lengths that Kubernetes does not write")
    end = at + 1 + (1 << (short - 24))
    if end > len(content):
        raise NotAnObject(_CUT)
    return int.from_bytes(content[at + 1 : end], "big"), end


def _float(content: bytes, end: int, short: int) -> float:
    size = 1 << (short - 24)
    (value,) = struct.unpack(_FLOATS[short], content[end - size : end])
    if value - value != 0:
        raise NotAnObject("the CBOR has a number that is none")
    return float(value)


def _string(raw: bytes, tag: int | None) -> str:
    """Decode a text. Tags 21 to 23 say that bytes stand for their base64url, base64 or hex."""
    if tag == 21:
        return urlsafe_b64encode(raw).decode().rstrip("=")
    if tag == 22:
        return b64encode(raw).decode()
    if tag == 23:
        return raw.hex()
    return go_text(raw)
