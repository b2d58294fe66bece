"""The reading of chunks: what it decodes, what it hands to the plain codec, what it says about bad records."""

from __future__ import annotations

import pytest

from snaptool.etcd import (
    REPEATED_VALUE,
    TOMBSTONE,
    UNREADABLE,
    BadRecord,
    BadRevision,
    KeyValue,
    RecordFault,
    RecordProblem,
    Records,
    Revision,
    Snapshot,
    encode_key_value,
    encode_revision_key,
    reading,
)
from tests.support.history import Record, make_snapshot

LEASE = 0x4C56A20BFAC57658


def put(main: int, key: bytes, *, value: bytes = b"", version: int = 1, lease: int = 0) -> Record:
    content = KeyValue(key=key, create_revision=main, mod_revision=main, version=version, value=value, lease=lease)
    return encode_revision_key(Revision(main, 0)), encode_key_value(content)


def tombstone(main: int, key: bytes) -> Record:
    return encode_revision_key(Revision(main, 0), tombstone=True), encode_key_value(KeyValue(key=key))


def only_chunk(*records: Record) -> Records:
    chunk = next(Snapshot(make_snapshot(records)).chunks())
    assert len(chunk) == len(records)
    return chunk


def flagged(chunk: Records, flag: int) -> list[bool]:
    return [bool(flags & flag) for flags in chunk.flags[: len(chunk)]]


def test_chunk_holds_positions_of_key_and_value_and_the_span_of_field_5() -> None:
    chunk = only_chunk(put(2, b"/k", value=b"hello", lease=LEASE, version=300), tombstone(3, b"/k"))
    assert chunk.main[:2].tolist() == [2, 3]
    assert flagged(chunk, TOMBSTONE) == [False, True]
    assert chunk.lease[:2].tolist() == [LEASE, 0]
    assert chunk.version[:2].tolist() == [300, 0]
    assert chunk.user_key(0) == chunk.user_key(1) == b"/k"
    assert chunk.value(0) == b"hello"
    field = chunk.field_at[0]
    assert bytes(chunk.view[field : field + chunk.field_size[0]]) == b"\x2a\x05hello"
    assert chunk.field_size[1] == 0
    assert chunk.field_at[1] == chunk.leaves.value_at[1] + chunk.leaves.value_size[1]
    assert chunk.stored_key(1) == tombstone(3, b"/k")[0]
    assert chunk.stored_value(1) == b"\x0a\x02/k"


def test_field_5_that_is_missing_has_its_place_before_the_lease() -> None:
    chunk = only_chunk(put(2, b"/k", lease=1))
    assert chunk.field_at[0] == chunk.leaves.value_at[0] + chunk.leaves.value_size[0] - 2


def test_unusual_messages_are_read_as_the_codec_reads_them() -> None:
    backwards = b"\x2a\x03old\x20\x01\x18\x05\x10\x05\x0a\x02/k"
    repeated = b"\x0a\x02/k\x2a\x03old\x2a\x03new"
    unknown = b"\x0a\x02/k\x7a\x01x\x2a\x01v"
    keys = [encode_revision_key(Revision(main, 0)) for main in (5, 6, 7)]
    chunk = only_chunk(*zip(keys, (backwards, repeated, unknown), strict=True))
    assert [chunk.user_key(row) for row in range(3)] == [b"/k"] * 3
    assert chunk.create[:3].tolist() == [5, 0, 0]
    assert flagged(chunk, REPEATED_VALUE) == [False, True, False]
    assert [chunk.value(row) for row in range(3)] == [b"old", b"new", b"v"]


def problems(*records: Record) -> tuple[list[RecordProblem], Records]:
    found: list[RecordProblem] = []
    return found, next(Snapshot(make_snapshot(records)).chunks(found.append))


@pytest.mark.parametrize("key", [bytes(16), bytes(7) + b"\x05-" + bytes(8), b"\x80" + bytes(7) + b"_" + bytes(8)])
def test_case_40_bad_revision_is_refused_or_collected_with_hex_and_page(key: bytes) -> None:
    good = put(3, b"/k", value=b"v")
    found, chunk = problems(good, (key, good[1]))
    (problem,) = found
    assert problem.fault is RecordFault.BAD_REVISION
    assert problem.key == key
    bad = problem.record
    assert flagged(chunk, UNREADABLE) == [number == bad for number in range(2)]
    assert chunk.key_size[bad] == chunk.value_size[bad] == chunk.main[bad] == 0
    with pytest.raises(BadRevision, match=f"^page {problem.page}: revision key {key.hex()}: "):
        list(Snapshot(make_snapshot([good, (key, good[1])])).chunks())


def test_case_41_truncated_message_is_refused_or_collected() -> None:
    key = encode_revision_key(Revision(9, 1))
    found, chunk = problems(put(3, b"/k"), (key, b"\x0a\x05/k"))
    (problem,) = found
    assert (problem.fault, problem.record, problem.key) == (RecordFault.BAD_RECORD, 1, key)
    assert flagged(chunk, UNREADABLE) == [False, True]
    assert (chunk.main[1], chunk.key_size[1]) == (9, 0)
    with pytest.raises(BadRecord, match=f"record {key.hex()} in bucket key: not a protobuf message"):
        list(Snapshot(make_snapshot([(key, b"\x0a\x05/k")])).chunks())


@pytest.mark.parametrize("field", [b"\x10", b"\x18", b"\x20", b"\x30"])
def test_numbers_of_nine_and_ten_bytes_are_read_and_those_beyond_64_bits_refused(field: bytes) -> None:
    key = encode_revision_key(Revision(9, 0))
    chunk = only_chunk((key, b"\x0a\x02/k" + field + b"\xff" * 8 + b"\x7f"))
    assert max(chunk.create[0], chunk.mod[0], chunk.version[0], chunk.lease[0]) == (1 << 63) - 1
    chunk = only_chunk((key, b"\x0a\x02/k" + field + b"\xff" * 9 + b"\x01"))
    assert min(chunk.create[0], chunk.mod[0], chunk.version[0], chunk.lease[0]) == -1
    found, _ = problems((key, b"\x0a\x02/k" + field + b"\xff" * 9 + b"\x02"))
    assert [problem.fault for problem in found] == [RecordFault.BAD_RECORD]
    assert found[0].problem == "not a protobuf message: a varint does not fit 64 bits at byte 5"


def test_case_42_duplicate_main_sub_detected() -> None:
    found, chunk = problems(put(5, b"/k"), tombstone(5, b"/k"))
    assert [(problem.fault, problem.record) for problem in found] == [(RecordFault.REVISION_TWICE, 1)]
    assert flagged(chunk, UNREADABLE) == [False, False]
    with pytest.raises(BadRevision, match="the record before has the same revision"):
        list(Snapshot(make_snapshot([put(5, b"/k"), tombstone(5, b"/other")])).chunks())


def test_duplicate_is_seen_across_chunks() -> None:
    # Every record fills a chunk of its own.
    big = b"x" * (33 << 20)
    snapshot = Snapshot(make_snapshot([put(5, b"/k", value=big), tombstone(5, b"/k")]))
    found: list[RecordProblem] = []
    assert [len(chunk) for chunk in snapshot.chunks(found.append)] == [1, 1]
    assert [problem.record for problem in found] == [1]


def test_main_revision_zero_is_told_and_never_live() -> None:
    found, _ = problems(put(0, b"/k"), put(2, b"/o"))
    assert [(problem.fault, problem.record) for problem in found] == [(RecordFault.REVISION_ZERO, 0)]
    with pytest.raises(BadRevision, match="etcd does not see records of main revision 0"):
        Snapshot(make_snapshot([put(0, b"/k")])).live()
    snapshot = Snapshot(make_snapshot([put(0, b"/k"), put(2, b"/o")]))
    assert [len(chunk) for chunk in snapshot.chunks(found.append)]
    assert list(snapshot.live()) == [0, 1]


def test_keys_of_any_length_are_compared_whole() -> None:
    long_key = b"/" + b"k" * (1 << 20)
    records = [put(2, long_key), put(3, long_key + b"2"), put(4, long_key)]
    assert list(Snapshot(make_snapshot(records)).live()) == [0, 1, 1]


@pytest.mark.parametrize(("first", "many"), [(reading.FIRST_SLOTS, reading.MANY_SLOTS), (1 << 10, 1), (1, 1 << 10)])
def test_an_index_that_grows_finds_the_last_of_every_key(
    first: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FIRST_SLOTS", first)
    monkeypatch.setattr(reading, "MANY_SLOTS", many)
    records = [put(main, b"/k%d" % (main % 7000)) for main in range(2, 9002)]
    assert list(Snapshot(make_snapshot(records)).live()) == [0] * 2000 + [1] * 7000
