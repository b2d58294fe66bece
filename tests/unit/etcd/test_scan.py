"""The scan of whole chunks: what it decodes, what it hands to the plain codec, what it says about bad records."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from snaptool.etcd import (
    BadRecord,
    BadRevision,
    KeyValue,
    RecordChunk,
    RecordFault,
    RecordProblem,
    Revision,
    Snapshot,
    encode_key_value,
    encode_revision_key,
    hash_spans,
)
from snaptool.etcd.live import LiveIndex
from snaptool.etcd.scan import same_spans
from tests.support.history import Record, make_snapshot

LEASE = 0x4C56A20BFAC57658


def put(main: int, key: bytes, *, value: bytes = b"", version: int = 1, lease: int = 0) -> Record:
    content = KeyValue(key=key, create_revision=main, mod_revision=main, version=version, value=value, lease=lease)
    return encode_revision_key(Revision(main, 0)), encode_key_value(content)


def tombstone(main: int, key: bytes) -> Record:
    return encode_revision_key(Revision(main, 0), tombstone=True), encode_key_value(KeyValue(key=key))


def only_chunk(*records: Record) -> RecordChunk:
    (chunk,) = Snapshot(make_snapshot(records)).records()
    return chunk


def test_chunk_holds_positions_of_key_and_value_and_the_span_of_field_5() -> None:
    chunk = only_chunk(put(2, b"/k", value=b"hello", lease=LEASE, version=300), tombstone(3, b"/k"))
    assert chunk.main.tolist() == [2, 3]
    assert chunk.tombstone.tolist() == [False, True]
    assert chunk.lease.tolist() == [LEASE, 0]
    assert chunk.version.tolist() == [300, 0]
    assert chunk.user_key(0) == chunk.user_key(1) == b"/k"
    data = chunk.buffer
    value, field = int(chunk.value_pos[0]), int(chunk.field_pos[0])
    assert data[value : value + chunk.value_len[0]].tobytes() == b"hello"
    assert data[field : field + chunk.field_len[0]].tobytes() == b"\x2a\x05hello"
    assert chunk.field_len[1] == 0
    assert chunk.field_pos[1] == chunk.leaves.value_pos[1] + chunk.leaves.value_len[1]
    assert chunk.stored_key(1) == tombstone(3, b"/k")[0]
    assert chunk.stored_value(1) == b"\x0a\x02/k"


def test_field_5_that_is_missing_has_its_place_before_the_lease() -> None:
    chunk = only_chunk(put(2, b"/k", lease=1))
    assert chunk.field_pos[0] == chunk.leaves.value_pos[0] + chunk.leaves.value_len[0] - 2


def test_unusual_messages_are_read_as_the_codec_reads_them() -> None:
    backwards = b"\x2a\x03old\x20\x01\x18\x05\x10\x05\x0a\x02/k"
    repeated = b"\x0a\x02/k\x2a\x03old\x2a\x03new"
    unknown = b"\x0a\x02/k\x7a\x01x\x2a\x01v"
    keys = [encode_revision_key(Revision(main, 0)) for main in (5, 6, 7)]
    chunk = only_chunk(*zip(keys, (backwards, repeated, unknown), strict=True))
    assert [chunk.user_key(row) for row in range(3)] == [b"/k"] * 3
    assert chunk.create.tolist() == [5, 0, 0]
    assert chunk.repeated_value.tolist() == [False, True, False]
    spans = zip(chunk.value_pos.tolist(), chunk.value_len.tolist(), strict=True)
    assert [chunk.buffer[start : start + size].tobytes() for start, size in spans] == [b"old", b"new", b"v"]


def problems(*records: Record) -> tuple[list[RecordProblem], list[RecordChunk]]:
    found: list[RecordProblem] = []
    return found, list(Snapshot(make_snapshot(records)).records(found.append))


@pytest.mark.parametrize("key", [bytes(16), bytes(7) + b"\x05-" + bytes(8), b"\x80" + bytes(7) + b"_" + bytes(8)])
def test_case_40_bad_revision_is_refused_or_collected_with_hex_and_page(key: bytes) -> None:
    good = put(3, b"/k", value=b"v")
    found, chunks = problems(good, (key, good[1]))
    (problem,) = found
    assert problem.fault is RecordFault.BAD_REVISION
    assert problem.key == key
    bad = problem.record
    assert chunks[0].readable.tolist() == [number != bad for number in range(2)]
    assert chunks[0].key_len[bad] == chunks[0].value_len[bad] == chunks[0].main[bad] == 0
    with pytest.raises(BadRevision, match=f"^page {problem.page}: revision key {key.hex()}: "):
        list(Snapshot(make_snapshot([good, (key, good[1])])).records())


def test_case_41_truncated_message_is_refused_or_collected() -> None:
    key = encode_revision_key(Revision(9, 1))
    found, chunks = problems(put(3, b"/k"), (key, b"\x0a\x05/k"))
    (problem,) = found
    assert (problem.fault, problem.record, problem.key) == (RecordFault.BAD_RECORD, 1, key)
    assert chunks[0].readable.tolist() == [True, False]
    assert (chunks[0].main[1], chunks[0].key_len[1]) == (9, 0)
    with pytest.raises(BadRecord, match=f"record {key.hex()} in bucket key: not a protobuf message"):
        list(Snapshot(make_snapshot([(key, b"\x0a\x05/k")])).records())


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
    found, chunks = problems(put(5, b"/k"), tombstone(5, b"/k"))
    assert [(problem.fault, problem.record) for problem in found] == [(RecordFault.REVISION_TWICE, 1)]
    assert chunks[0].readable.all()
    with pytest.raises(BadRevision, match="the record before has the same revision"):
        list(Snapshot(make_snapshot([put(5, b"/k"), tombstone(5, b"/other")])).records())


def test_duplicate_is_seen_across_chunks() -> None:
    # Every record fills a chunk of its own.
    big = b"x" * (33 << 20)
    snapshot = Snapshot(make_snapshot([put(5, b"/k", value=big), tombstone(5, b"/k")]))
    found: list[RecordProblem] = []
    assert len(list(snapshot.records(found.append))) == 2
    assert [problem.record for problem in found] == [1]


def test_main_revision_zero_is_told_and_never_live() -> None:
    found, _ = problems(put(0, b"/k"), put(2, b"/o"))
    assert [(problem.fault, problem.record) for problem in found] == [(RecordFault.REVISION_ZERO, 0)]
    with pytest.raises(BadRevision, match="etcd does not see records of main revision 0"):
        Snapshot(make_snapshot([put(0, b"/k")])).live_mask()
    snapshot = Snapshot(make_snapshot([put(0, b"/k"), put(2, b"/o")]))
    assert list(snapshot.records(found.append))
    assert snapshot.live_mask().tolist() == [False, True]


# --- strings in a buffer ---


def spans(*texts: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    return np.frombuffer(b"".join(texts), dtype=np.uint8), np.cumsum(lengths) - lengths, lengths


def test_hash_depends_on_every_byte_and_on_the_length_but_not_on_the_place() -> None:
    texts = [b"", b"\0", b"\0" * 8, b"\0" * 9, b"a" * 8, b"a" * 9, b"b" + b"a" * 8, b"a" * 2000, b"a" * 1999 + b"b"]
    hashes = hash_spans(*spans(*texts, *texts))
    assert hashes[: len(texts)].tolist() == hashes[len(texts) :].tolist()
    assert len(set(hashes.tolist())) == len(texts)


def test_hash_has_no_differences_that_cancel_whatever_the_key_is() -> None:
    # The top bit of a word comes through a multiplication by any odd number as it was; the next word could undo it.
    for shift in range(1, 64):
        first, second = b"/registry/secret", bytearray(b"/registry/secret")
        second[7] ^= 0x80
        undone = int.from_bytes(second[8:], "little") ^ 1 << 63 ^ 1 << 63 - shift
        second[8:] = undone.to_bytes(8, "little")
        assert len(set(hash_spans(*spans(first, bytes(second))).tolist())) == 2


def test_hash_is_of_this_process_alone() -> None:
    texts = [b"/registry/secrets/", b"x" * 1025]
    script = (
        "import numpy as np; from snaptool.etcd import hash_spans;"
        "print(*hash_spans(np.frombuffer(b'/registry/secrets/' + b'x' * 1025, np.uint8),"
        " np.array([0, 18]), np.array([18, 1025])))"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    for mine, others in zip(hash_spans(*spans(*texts)).tolist(), map(int, other), strict=True):
        assert mine != others


def test_same_spans_compares_short_and_long_strings() -> None:
    texts = [b"abc", b"abd", b"abc", b"x" * 3000, b"x" * 2999 + b"y", b"x" * 3000, b"", b""]
    buffer, starts, lengths = spans(*texts)
    first, second = np.array([0, 0, 3, 3, 6]), np.array([1, 2, 4, 5, 7])
    assert same_spans(buffer, starts[first], starts[second], lengths[first]).tolist() == [
        False,
        True,
        False,
        True,
        True,
    ]


def test_keys_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [put(2, b"/a"), put(3, b"/b"), put(4, b"/a"), put(5, b"/cc"), tombstone(6, b"/b"), put(7, b"/d")]
    monkeypatch.setattr("snaptool.etcd.live.hash_spans", lambda _, starts, __: np.zeros(len(starts), np.uint64))
    snapshot = Snapshot(make_snapshot(records))
    assert snapshot.live_mask().tolist() == [False, False, True, True, False, True]


def test_keys_too_long_to_pack_their_length_are_still_compared_whole() -> None:
    long_key = b"/" + b"k" * (1 << 20)
    records = [put(2, long_key), put(3, long_key + b"2"), put(4, long_key)]
    assert Snapshot(make_snapshot(records)).live_mask().tolist() == [False, True, True]


def test_index_in_parts_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [put(main, b"/k%d" % (main % 70)) for main in range(2, 402)]
    whole = Snapshot(make_snapshot(records)).live_mask()
    monkeypatch.setattr("snaptool.etcd.live._PART_BITS", 4)
    parts = Snapshot(make_snapshot(records))
    index = LiveIndex(parts.database.pages, len(records))
    for chunk in parts.records():
        index.add(chunk)
    assert index.live().tolist() == whole.tolist() == [False] * 330 + [True] * 70
