"""Protobuf wire format: a cursor over one message, and the few encoders that go with it.

Knows tags, varints and lengths; knows no schema and no message. It accepts and refuses exactly what Go's protobuf
runtime does (docs/formats/kms.md, "Parsing messages"), because kube-apiserver and etcd are what the
results must agree with: varints of at most ten bytes whose tenth is at most 1, field numbers 1 to 2^29-1, wire types 6
and 7 refused, groups balanced. Every field carries its span, so that a caller can keep unknown fields byte for byte.
A message cut between two fields looks like a whole one: that is the format's, not a check that is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from snaptool.errors import FormatError

VARINT, FIXED64, BYTES, START_GROUP, END_GROUP, FIXED32 = range(6)
MAX_FIELD_NUMBER = (1 << 29) - 1
MAX_GROUP_DEPTH = 10_000  # protobuf-go: protowire.DefaultRecursionLimit


class BadMessage(FormatError):
    """Bytes that are not a protobuf message. `offset` is where the cursor stood, counted from the message's start."""

    def __init__(self, problem: str, offset: int) -> None:
        super().__init__(f"not a protobuf message: {problem} at byte {offset}")
        self.problem = problem
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Field:
    """One field as it stands in a message.

    `value` is an int for varints (0 to 2^64-1) and bytes for everything else: the payload of a length-delimited field,
    4 or 8 raw bytes of a fixed one, the inside of a group. `start` and `end` bound the whole field with its tag.
    """

    number: int
    wire_type: int
    value: int | bytes
    start: int
    end: int


def read_varint(message: bytes, offset: int) -> tuple[int, int]:
    """Read the varint at `offset`; return it (0 to 2^64-1) and the offset behind it. Raises BadMessage."""
    value = 0
    for length in range(10):
        if offset + length >= len(message):
            raise BadMessage("a varint is cut off", offset)
        byte = message[offset + length]
        if length == 9 and byte > 1:
            raise BadMessage("a varint does not fit 64 bits", offset)
        value |= (byte & 0x7F) << (7 * length)
        if byte < 0x80:
            return value, offset + length + 1
    raise BadMessage("a varint does not fit 64 bits", offset)  # pragma: no cover - the tenth byte decides above


def fields(message: bytes) -> Iterator[Field]:
    """Yield the fields of `message` in order. Raises BadMessage at the first byte that breaks the format."""
    offset = 0
    while offset < len(message):
        found = field_at(message, offset)
        yield found
        offset = found.end


def field_at(message: bytes, offset: int) -> Field:
    """Read the one field that stands at `offset`, however long `message` goes on. Raises BadMessage."""
    number, wire_type, body = _read_tag(message, offset)
    if wire_type == END_GROUP:
        raise BadMessage("a group ends that never began", offset)
    value, end = _read_value(message, number, wire_type, body, depth=0)
    return Field(number, wire_type, value, offset, end)


def _read_tag(message: bytes, offset: int) -> tuple[int, int, int]:
    tag, body = read_varint(message, offset)
    number, wire_type = tag >> 3, tag & 7
    if not 1 <= number <= MAX_FIELD_NUMBER:
        raise BadMessage(f"field number {number} is out of range", offset)
    if wire_type > FIXED32:
        raise BadMessage(f"wire type {wire_type} does not exist", offset)
    return number, wire_type, body


def _read_value(message: bytes, number: int, wire_type: int, offset: int, depth: int) -> tuple[int | bytes, int]:
    if wire_type == VARINT:
        return read_varint(message, offset)
    if wire_type == START_GROUP:
        return _read_group(message, number, offset, depth)
    if wire_type == BYTES:
        length, offset = read_varint(message, offset)
    else:
        length = 8 if wire_type == FIXED64 else 4
    end = offset + length
    if end > len(message):
        raise BadMessage(f"field {number} needs {length} bytes, {len(message) - offset} are left", offset)
    return bytes(message[offset:end]), end


def _read_group(message: bytes, number: int, offset: int, depth: int) -> tuple[bytes, int]:
    if depth >= MAX_GROUP_DEPTH:
        raise BadMessage("groups are nested too deeply", offset)
    # An explicit stack: a hostile message must not reach Python's recursion limit.
    start = offset
    open_groups = [number]
    while open_groups:
        if offset >= len(message):
            raise BadMessage("a group is cut off", offset)
        inner, wire_type, body = _read_tag(message, offset)
        if wire_type == END_GROUP:
            if open_groups.pop() != inner:
                raise BadMessage("a group ends under another number", offset)
            end, offset = offset, body
        elif wire_type == START_GROUP:
            if len(open_groups) >= MAX_GROUP_DEPTH:
                raise BadMessage("groups are nested too deeply", offset)
            open_groups.append(inner)
            offset = body
        else:
            _, offset = _read_value(message, inner, wire_type, body, depth)
    return bytes(message[start:end]), offset


def encode_varint(value: int) -> bytes:
    """Encode `value` (0 to 2^64-1; negative numbers as two's complement of 64 bits, as protobuf's int64 does)."""
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_field(number: int, value: int | bytes) -> bytes:
    """Encode one field: an int as varint, bytes length-delimited. proto3's "omit the default" is the caller's rule."""
    if isinstance(value, int):
        return encode_varint(number << 3 | VARINT) + encode_varint(value)
    return encode_varint(number << 3 | BYTES) + encode_varint(len(value)) + value
