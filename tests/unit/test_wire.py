"""The protobuf cursor, both ways, and at its limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptool.wire import BYTES, VARINT, BadMessage, Field, encode_field, encode_varint, fields, read_varint

VARINTS = [
    (0, "00"),
    (1, "01"),
    (127, "7f"),
    (128, "8001"),
    (300, "ac02"),
    ((1 << 63) - 1, "ffffffffffffffff7f"),
    ((1 << 64) - 1, "ffffffffffffffffff01"),
]


@pytest.mark.parametrize(("value", "encoded"), VARINTS)
def test_varint_both_ways(value: int, encoded: str) -> None:
    assert encode_varint(value).hex() == encoded
    assert read_varint(bytes.fromhex(encoded), 0) == (value, len(encoded) // 2)
    for cut in range(len(encoded) // 2):
        with pytest.raises(BadMessage):
            read_varint(bytes.fromhex(encoded)[:cut], 0)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("ffffffffffffffffff02", "64 bits"),  # the tenth byte may be at most 1
        ("ffffffffffffffffffff01", "64 bits"),
        ("00", "field number 0"),
        ("0e", "wire type 6"),
        ("0f", "wire type 7"),
        ("0c", "never began"),
        ("0a05616263", "needs 5 bytes"),
        ("0d0000", "needs 4 bytes"),
        ("0900", "needs 8 bytes"),
        ("0b0800", "cut off"),
        ("0b14", "another number"),
        ("0aff", "cut off"),
    ],
)
def test_broken_messages_are_refused_with_the_reason(message: str, problem: str) -> None:
    with pytest.raises(BadMessage, match=problem):
        list(fields(bytes.fromhex(message)))


def test_fields_carry_their_spans_and_unknown_groups_are_skipped_whole() -> None:
    message = bytes.fromhex("0a017810011b08051c1d010203042001")
    assert list(fields(message)) == [
        Field(1, BYTES, b"x", 0, 3),
        Field(2, VARINT, 1, 3, 5),
        Field(3, 3, bytes.fromhex("0805"), 5, 9),
        Field(3, 5, bytes.fromhex("01020304"), 9, 14),
        Field(4, VARINT, 1, 14, 16),
    ]


def test_deep_groups_are_refused_without_recursion() -> None:
    with pytest.raises(BadMessage, match="nested too deeply"):
        list(fields(b"\x0b" * 1_000_000))


@given(st.integers(min_value=1, max_value=(1 << 29) - 1), st.one_of(st.integers(0, (1 << 64) - 1), st.binary()))
def test_encoded_fields_decode_to_themselves(number: int, value: int | bytes) -> None:
    encoded = encode_field(number, value)
    (field,) = fields(encoded)
    assert (field.number, field.value, field.start, field.end) == (number, value, 0, len(encoded))


@given(st.binary(max_size=64))
def test_any_bytes_give_fields_or_bad_message(message: bytes) -> None:
    try:
        spans = [(field.start, field.end) for field in fields(message)]
    except BadMessage:
        return
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
