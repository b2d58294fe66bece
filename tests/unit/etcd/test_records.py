"""The codecs of etcd's records: one table of values and bytes per kind, read both ways."""

from __future__ import annotations

from typing import Any

import pytest

from snaptool.etcd import Snapshot
from snaptool.etcd import records as r
from snaptool.etcd.records import BadRecord, BadRevision, KeyValue, Lease, Revision
from tests.support.bolt import TINY, tiny, vectors

PUT = KeyValue(key=b"k", create_revision=2, mod_revision=3, version=2, value=b"old", lease=5)
FIELD_1, FIELD_5, FIELD_6 = bytes.fromhex("0a016b"), bytes.fromhex("2a036f6c64"), bytes.fromhex("3005")
UNKNOWN = bytes.fromhex("7a0178")  # field 15, bytes


# --- revision keys ---


@pytest.mark.parametrize("row", vectors()["revision_keys"], ids=lambda row: row["hex"])
def test_revision_keys_of_the_vectors(row: dict[str, Any]) -> None:
    revision = Revision(row["main"], row["sub"])
    assert r.decode_revision_key(bytes.fromhex(row["hex"])) == (revision, row["tombstone"])
    assert r.encode_revision_key(revision, tombstone=row["tombstone"]).hex() == row["hex"]


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (b"", "it has 0 bytes instead of 17 or 18"),
        (bytes(8) + b"_" + bytes(7), "it has 16 bytes instead of 17 or 18"),
        (bytes(8) + b"_" + bytes(8) + b"tt", "it has 19 bytes instead of 17 or 18"),
        (bytes(7) + b"\x05-" + bytes(8), "byte 8 is 2d instead of 5f"),
        (bytes(7) + b"\x05_" + bytes(8) + b"x", "byte 17 is 78 instead of 74"),
        (b"\x80" + bytes(7) + b"_" + bytes(8), "a number in it is negative"),
        (bytes(7) + b"\x05_\xff" + bytes(7), "a number in it is negative"),
    ],
)
def test_case_40_revision_key_bad_length_or_separator_or_sign(key: bytes, problem: str) -> None:
    with pytest.raises(BadRevision) as caught:
        r.decode_revision_key(key, page=12)
    assert caught.value.problem == problem
    assert caught.value.page == 12
    assert str(caught.value) == f"page 12: revision key {key.hex() or 'of no bytes'}: {problem}"


def test_revision_key_cut_anywhere_is_refused() -> None:
    key = r.encode_revision_key(Revision(89, 3))
    for size in range(len(key)):
        with pytest.raises(BadRevision):
            r.decode_revision_key(key[:size])


@pytest.mark.parametrize("revision", [Revision(-1, 0), Revision(0, -1), Revision(1 << 63, 0), Revision(1, 1 << 63)])
def test_what_is_no_revision_is_not_encoded(revision: Revision) -> None:
    with pytest.raises(ValueError, match="is not a revision"):
        r.encode_revision_key(revision)


# --- KeyValue ---


@pytest.mark.parametrize("row", vectors()["keyvalue_samples"], ids=lambda row: row["why"])
def test_key_values_of_the_vectors(row: dict[str, Any]) -> None:
    decoded, stored = row["decoded"], bytes.fromhex(row["value_hex"])
    key_value = KeyValue(
        key=decoded["key"].encode(),
        create_revision=decoded["create_revision"],
        mod_revision=decoded["mod_revision"],
        version=decoded["version"],
        value=decoded["value"].encode(),
        lease=decoded["lease"],
    )
    assert r.decode_key_value(stored) == key_value
    assert r.encode_key_value(key_value) == stored
    assert r.replace_value(stored, key_value.value) == stored
    assert r.decode_revision_key(bytes.fromhex(row["key_hex"])) == (Revision(*decoded["rev"]), decoded["tombstone"])


def test_case_39_bump_revision_record() -> None:
    sample = vectors()["bump_revision_record"]
    assert r.decode_revision_key(bytes.fromhex(sample["key_hex"])) == (Revision(1014, 0), False)
    assert r.decode_key_value(bytes.fromhex(sample["value_hex"])) == KeyValue()
    assert r.encode_key_value(KeyValue()) == b""


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        ("0a056b", "not a protobuf message: field 1 needs 5 bytes, 1 are left at byte 2"),
        ("0a016b10", "not a protobuf message: a varint is cut off at byte 4"),
        ("0a016b2a", "not a protobuf message: a varint is cut off at byte 4"),
        ("0a016b10" + "ff" * 10, "not a protobuf message: a varint does not fit 64 bits at byte 4"),
        ("0801", "field 1 has wire type 0"),
        ("1200", "field 2 has wire type 2"),
        ("2801", "field 5 has wire type 0"),
    ],
)
def test_case_41_keyvalue_truncated_protobuf(stored: str, problem: str) -> None:
    key = r.encode_revision_key(Revision(5, 0))
    for read in (r.decode_key_value, r.locate):
        with pytest.raises(BadRecord) as caught:
            read(bytes.fromhex(stored), key, 7)
        assert caught.value.problem == problem
        assert str(caught.value) == f"page 7: record {key.hex()} in bucket key: {problem}"


def test_key_value_reads_negative_numbers_unknown_fields_and_the_last_of_several() -> None:
    stored = UNKNOWN + FIELD_6 + FIELD_5 + b"\x30" + b"\xff" * 9 + b"\x01" + b"\x2a\x03new"
    assert r.decode_key_value(stored) == KeyValue(value=b"new", lease=-1)
    assert r.encode_key_value(KeyValue(lease=-1)) == b"\x30" + b"\xff" * 9 + b"\x01"


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (FIELD_1 + FIELD_5 + FIELD_6, FIELD_1 + b"\x2a\x01n" + FIELD_6),
        (UNKNOWN + FIELD_6 + FIELD_5 + FIELD_1, UNKNOWN + FIELD_6 + b"\x2a\x01n" + FIELD_1),
        (FIELD_1 + FIELD_6, FIELD_1 + b"\x2a\x01n" + FIELD_6),
        (FIELD_1 + UNKNOWN, FIELD_1 + b"\x2a\x01n" + UNKNOWN),
        (FIELD_1, FIELD_1 + b"\x2a\x01n"),
        (b"", b"\x2a\x01n"),
        # A tag and a length in more bytes than they need are part of field 5; those of other fields stay.
        (b"\x8a\x00\x01k\xaa\x00\x83\x00old\x30\x85\x00", b"\x8a\x00\x01k\x2a\x01n\x30\x85\x00"),
        # Of several values the last one counts; an earlier one must not stay behind under the old key.
        (FIELD_5 + FIELD_1 + FIELD_5 + FIELD_6, FIELD_1 + b"\x2a\x01n" + FIELD_6),
    ],
)
def test_replace_value_keeps_all_other_bytes(stored: bytes, expected: bytes) -> None:
    assert r.replace_value(stored, b"n") == expected
    assert r.replace_value(expected, b"") == expected.replace(b"\x2a\x01n", b"")


def test_clear_lease_keeps_all_other_bytes() -> None:
    assert r.clear_lease(FIELD_6 + UNKNOWN + FIELD_1 + FIELD_6 + FIELD_5) == UNKNOWN + FIELD_1 + FIELD_5
    assert r.decode_key_value(r.clear_lease(r.encode_key_value(PUT))).lease == 0
    with pytest.raises(BadRecord):
        r.clear_lease(b"\x08\x01")


def test_locate_gives_the_spans_of_what_decode_reads() -> None:
    stored = FIELD_5 + FIELD_1 + UNKNOWN + b"\x2a\x82\x00hi" + FIELD_6
    spans = r.locate(stored)
    assert stored[spans.key_start : spans.key_start + spans.key_size] == b"k"
    assert stored[spans.value_start : spans.value_start + spans.value_size] == b"hi"
    assert stored[spans.field_start : spans.field_start + spans.field_size] == b"\x2a\x82\x00hi"
    assert spans.values == 2


def test_errors_and_reprs_do_not_show_values() -> None:
    assert "old" not in repr(PUT)
    with pytest.raises(BadRecord) as caught:
        r.decode_key_value(FIELD_5 + b"\x0a\x7f", b"\x01" * 60)
    assert FIELD_5.hex() not in str(caught.value)
    assert str(caught.value).startswith(f"record {'01' * 48}… in bucket key: ")


# --- the other buckets ---


def test_lease_sample_of_the_vectors() -> None:
    sample = vectors()["lease_sample"]
    key, stored = bytes.fromhex(sample["key_hex"]), bytes.fromhex(sample["value_hex"])
    lease = Lease(sample["decoded"]["ID"], sample["decoded"]["TTL"], sample["decoded"]["RemainingTTL"])
    assert r.decode_lease(key, stored) == lease
    assert (r.encode_lease_key(lease.id), r.encode_lease(lease)) == (key, stored)
    with pytest.raises(BadRecord, match="has the id 4c56a20bfac57658"):
        r.decode_lease(bytes(8), stored)
    with pytest.raises(BadRecord, match="cut off"):
        r.decode_lease(key, stored[:4])


@pytest.mark.parametrize(
    ("alarm", "name", "stored"),
    [
        (r.AlarmMember(5, r.Alarm.NOSPACE), "NOSPACE", "08051001"),
        (r.AlarmMember((1 << 64) - 1, r.Alarm.CORRUPT), "CORRUPT", "08" + "ff" * 9 + "01" + "1002"),
        (r.AlarmMember(0, 7), "alarm 7", "1007"),
    ],
)
def test_alarms(alarm: r.AlarmMember, name: str, stored: str) -> None:
    assert r.decode_alarm(bytes.fromhex(stored)) == alarm
    assert r.encode_alarm(alarm).hex() == stored
    assert alarm.name == name


def test_case_45_member_id_not_zero_padded() -> None:
    member_id = 0x1A304212F52BD92
    key = r.encode_member_id(member_id)
    assert key == b"1a304212f52bd92"
    assert len(key) == 15
    stored = b'{"id":%d,"peerURLs":["http://a:2380"],"name":"n","clientURLs":["http://a:2379"]}' % member_id
    assert r.decode_member(key, stored) == r.Member(
        id=member_id,
        name="n",
        peer_urls=("http://a:2380",),
        client_urls=("http://a:2379",),
        is_learner=False,
    )
    with pytest.raises(BadRecord, match="the member inside has the id 1a304212f52bd92"):
        r.decode_member(b"01a304212f52bd92", stored)


@pytest.mark.parametrize("stored", [b"", b"{", b"[]", b'{"id":"1"}', b'{"id":-1}', b"\xff", b"[" * 100_000])
def test_what_is_no_member_is_refused(stored: bytes) -> None:
    with pytest.raises(BadRecord):
        r.decode_member(b"0", stored)


def test_case_02_read_tiny35_auth_buckets() -> None:
    snapshot = Snapshot(tiny(TINY[1]))
    ((name, stored),) = snapshot.items(b"authUsers")
    user = r.decode_user(name, stored)
    assert (user.name, user.roles) == (b"u1", (b"reader",))
    assert user.password.startswith(b"$2a$10$")
    assert "$2a$" not in repr(user)
    ((name, stored),) = snapshot.items(b"authRoles")
    assert r.decode_role(name, stored) == r.Role(b"reader", (r.Permission(0, b"app/", b"app0"),))
    assert snapshot.term == 2
    assert not snapshot.auth_enabled


def test_counters_and_texts_are_checked() -> None:
    assert r.decode_counter("meta", b"term", bytes(7) + b"\x09") == 9
    with pytest.raises(BadRecord, match="7 bytes instead of 8"):
        r.decode_counter("meta", b"term", bytes(7))
    assert r.decode_text("meta", b"storageVersion", b"3.6.0") == "3.6.0"
    with pytest.raises(BadRecord, match="not printable text"):
        r.decode_text("meta", b"storageVersion", b"3.6\n")
