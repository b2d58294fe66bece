"""A whole snapshot file: the golden files of three etcd versions, their checksums, and files that lack something."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest

from snaptool.etcd import (
    BUCKETS,
    CURRENT_SERVERS,
    NO_EDITS,
    TOMBSTONE,
    AlarmMember,
    BadRecord,
    KeyValue,
    Lease,
    RemarkCode,
    Revision,
    RevisionCompacted,
    RevisionInFuture,
    Snapshot,
    Trailer,
    decode_key_value,
    decode_revision_key,
    describe_bad_trailer,
    encode_key_value,
    encode_revision_key,
    server_generation,
    split_trailer,
)
from snaptool.etcd.records import encode_alarm, encode_lease, encode_lease_key
from tests.support.bolt import GOLDEN, TINY, contents, damaged, make_database, tiny, vectors, with_trailer
from tests.support.history import Record, Store, leaves_of, make_snapshot, plain_crc32c, rewritten

SERVERS = {
    "tiny-3.4.db": server_generation(3, 4, 23),
    "tiny-3.5.db": server_generation(3, 5, 1),
    "tiny-3.7.db": server_generation(3, 7, 1),
}
OLD = server_generation(3, 4, 23)
LEASE = 0x4C56A20BFAC57658


def golden(name: str) -> Snapshot:
    return Snapshot((GOLDEN / name).read_bytes())


def facts(name: str) -> Any:
    return vectors()["files"][name]


def listed(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The records of bucket `key` as the vectors list them, by the plain codecs."""
    rows = []
    for stored_key, stored_value in snapshot.items(b"key"):
        (revision, tombstone), key_value = decode_revision_key(stored_key), decode_key_value(stored_value)
        rows.append(
            {
                "rev": list(revision),
                "tombstone": tombstone,
                "key": key_value.key.decode(),
                "create": key_value.create_revision,
                "mod": key_value.mod_revision,
                "version": key_value.version,
                "value_len": len(key_value.value),
                "lease": key_value.lease,
            }
        )
    return rows


def scanned(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The same by the scan."""
    return [
        {
            "rev": [*chunk.revision(row)],
            "tombstone": bool(chunk.flags[row] & TOMBSTONE),
            "key": chunk.user_key(row).decode(),
            "create": chunk.create[row],
            "mod": chunk.mod[row],
            "version": chunk.version[row],
            "value_len": chunk.value_size[row],
            "lease": chunk.lease[row],
        }
        for chunk in snapshot.chunks()
        for row in range(len(chunk))
    ]


# --- the golden files ---


@pytest.mark.parametrize("name", TINY)
def test_case_01_read_tiny34_record_list(name: str) -> None:
    snapshot = golden(name)
    assert scanned(snapshot) == listed(snapshot) == facts(name)["key_bucket"]
    assert snapshot.record_count == facts(name)["buckets"]["key"]["records"]


@pytest.mark.parametrize("name", TINY)
def test_other_buckets_are_handed_over_unread(name: str) -> None:
    snapshot = golden(name)
    for bucket, records in facts(name)["other_buckets"].items():
        found = [{"k_hex": key.hex(), "v_hex": value.hex()} for key, value in snapshot.items(bucket.encode())]
        assert found == records
    assert tuple(snapshot.database.buckets()) == BUCKETS


def test_case_03_read_tiny37_storage_version() -> None:
    assert [golden(name).storage_version for name in TINY] == ["", "", "3.7.0"]
    assert [golden(name).version_hint for name in TINY] == ["3.4 or older", "3.5 or newer", "3.7.0"]
    assert [golden(name).cluster_version for name in TINY] == ["3.4.0", "3.5.0", "3.7.0"]
    tombstone = encode_revision_key(Revision(82, 2), tombstone=True)
    assert [tombstone in dict(golden(name).items(b"key")) for name in TINY] == [False, False, True]


@pytest.mark.parametrize("name", TINY)
def test_case_04_trailer_detected_and_matches(name: str) -> None:
    snapshot = golden(name)
    assert snapshot.check_trailer() is Trailer.OK
    assert snapshot.behind.hex() == facts(name)["sha256_trailer"] == facts(name)["sha256_of_db_part"]


def test_case_04_trailer_flip_is_reported_and_contents_readable() -> None:
    snapshot = Snapshot(damaged("trailer_flip"))
    assert snapshot.check_trailer() is Trailer.WRONG
    assert scanned(snapshot) == facts("tiny-3.4.db")["key_bucket"]


def test_case_05_bare_db_without_trailer() -> None:
    snapshot = Snapshot(tiny())
    assert snapshot.check_trailer() is Trailer.MISSING
    assert snapshot.behind == b""
    assert scanned(snapshot) == facts("tiny-3.4.db")["key_bucket"]


def test_trailer_may_cover_bytes_behind_the_database() -> None:
    snapshot = Snapshot(damaged("extra_bytes_after_hwm"))
    assert snapshot.check_trailer() is Trailer.OK
    assert snapshot.status().hash == 0xF27BFCEA


def test_split_trailer_goes_by_the_size_alone() -> None:
    for size, behind in ((512, b""), (512 + 32, b"d" * 32), (512 + 22, b"d" * 22), (0, b"")):
        database, found = split_trailer((bytes(512) + b"d" * 32)[:size])
        assert (len(database), found) == (size - len(behind), behind)


@pytest.mark.parametrize(
    ("behind", "trailer", "says"),
    [
        (b"", Trailer.MISSING, ""),
        (hashlib.sha256(tiny()).digest(), Trailer.OK, ""),
        (bytes(32), Trailer.WRONG, "not that of the bytes before it"),
        (hashlib.sha256(tiny()).digest()[:22], Trailer.CUT, "lacks its last 10 bytes"),
        (hashlib.sha256(tiny()).digest()[:31], Trailer.CUT, "lacks its last 1 byte;"),
        (hashlib.sha256(b"another file").digest()[:22], Trailer.CUT, "22 bytes behind the last page are not a SHA-256"),
        (hashlib.sha256(tiny()).digest() + b"\n", Trailer.CUT, "1 byte was appended"),
        (b"# taken by cron at midnight\n", Trailer.CUT, "28 bytes behind the last page"),
        (bytes(512 + 32), Trailer.CUT, "544 bytes behind the last page"),
        (bytes(4095), Trailer.CUT, "4095 bytes behind the last page"),
    ],
)
def test_what_stands_behind_the_last_page_is_a_trailer_or_a_finding(behind: bytes, trailer: Trailer, says: str) -> None:
    snapshot = Snapshot(tiny() + behind)
    assert snapshot.check_trailer() is trailer
    assert trailer.is_bad == bool(says)
    if says:
        assert says in describe_bad_trailer(snapshot.behind, hashlib.sha256(tiny()).digest())
    assert scanned(snapshot) == facts("tiny-3.4.db")["key_bucket"]


@pytest.mark.parametrize("name", TINY)
def test_facts_of_meta_and_leases(name: str) -> None:
    snapshot, expected = golden(name), facts(name)
    assert snapshot.current_revision == expected["current_revision"]
    assert snapshot.finished_compaction == expected["finishedCompactRev"]
    assert snapshot.scheduled_compaction == expected["scheduledCompactRev"]
    assert snapshot.compacted_revision == expected["finishedCompactRev"]
    (lease,) = expected["other_buckets"]["lease"]
    lease_id = int(lease["k_hex"], 16)
    assert snapshot.leases() == {lease_id: Lease(lease_id, 86400)}
    (member,) = snapshot.members()
    assert member.name == "default"
    assert [*snapshot.remarks(), *snapshot.dangling_leases()] == []


# --- checksums ---


def test_crc32c_of_the_model_is_the_one_etcd_uses() -> None:
    check = vectors()["primitives"]["crc32c_check"]
    assert f"{plain_crc32c(check['input_ascii'].encode()):08x}" == check["crc32c"]


@pytest.mark.parametrize("name", TINY)
def test_case_18_status_hash_all_three_files(name: str) -> None:
    status, expected = golden(name).status(), facts(name)["snapshot_status"]
    assert f"{status.hash:x}" == expected["hash_hex"]
    assert {"f27bfcea", "7578a9ba", "2ec90557"} >= {expected["hash_hex"]}
    assert (status.revision, status.total_size) == (expected["revision"], expected["totalSize"])


@pytest.mark.parametrize("name", TINY)
def test_case_19_status_total_key_both_rules(name: str) -> None:
    status, expected = golden(name).status(), facts(name)["snapshot_status"]
    assert status.total_key_records == expected["totalKey_rule_3.5_and_older"]
    assert status.total_key_live == expected["totalKey_rule_3.6_and_newer"]


@pytest.mark.parametrize("name", TINY)
def test_status_after_a_pass_and_in_pieces_is_the_same(name: str) -> None:
    whole, snapshot = golden(name).status(), golden(name)
    for _ in snapshot.chunks():
        pass
    assert snapshot.status() == whole
    known = leaves_of(snapshot)
    assert snapshot.status_hash(known) == whole.hash
    assert snapshot.hashkv(known=known) == golden(name).hashkv()


@pytest.mark.parametrize("name", TINY)
def test_case_20_hashkv_all_listed_revisions(name: str) -> None:
    snapshot, generation = golden(name), SERVERS[name]
    for at, expected in facts(name)["hashkv_server"].items():
        # "82" is the compacted revision: case 21; what a 3.7 server says there was stored while compacting.
        if at != "82":
            found = snapshot.hashkv(int(at), generation)
            assert (found.hash, found.compact_revision) == (expected["hash"], expected["compact_revision"])
            assert found.revision == (int(at) or 89)


def test_case_21_hashkv_rev_equal_compact_rev_old_error_new_value() -> None:
    for name in TINY[:2]:
        with pytest.raises(RevisionCompacted, match="revision 82 is gone: the store was compacted at 82"):
            golden(name).hashkv(82, SERVERS[name])
    found = golden("tiny-3.7.db").hashkv(82)
    assert (found.revision, found.compact_revision) == (82, 82)
    for generation in (OLD, CURRENT_SERVERS):
        with pytest.raises(RevisionCompacted):
            golden("tiny-3.7.db").hashkv(81, generation)
        with pytest.raises(RevisionInFuture):
            golden("tiny-3.7.db").hashkv(90, generation)


def history(name: str, *, scheduled: int | None = None) -> Snapshot:
    """A state of the vectors' four-operation history."""
    state = vectors()["hashkv_history"][name]
    records = [(bytes.fromhex(key), bytes.fromhex(value)) for key, value in state["records"]]
    finished = state["compact_revision"] if state["compact_revision"] > 0 else None
    return Snapshot(make_snapshot(records, finished=finished, scheduled=scheduled))


@pytest.mark.parametrize("name", ["uncompacted", "compacted_at_3", "compacted_at_5_old", "compacted_at_5_new"])
def test_hashkv_of_the_history_in_the_vectors(name: str) -> None:
    expected, snapshot = vectors()["hashkv_history"][name], history(name)
    generation = OLD if name.endswith("old") else CURRENT_SERVERS
    found = snapshot.hashkv(0, generation)
    assert (found.hash, found.revision, found.compact_revision) == (expected["rev0"], 5, expected["compact_revision"])
    if "rev4" in expected:
        assert snapshot.hashkv(4, generation).hash == expected["rev4"]


def test_case_22_hashkv_tombstone_at_compact_rev_skipped() -> None:
    assert history("uncompacted").hashkv().hash == 4149232296
    assert history("compacted_at_5_old").hashkv().hash == 2067958843
    assert history("compacted_at_5_new").hashkv().hash == 2067958843
    # Older servers skip that tombstone too, as a record that no read needs; unless no key is alive: nothing is skipped.
    assert history("compacted_at_5_new").hashkv(0, OLD).hash == 2067958843
    last = tuple(history("compacted_at_5_new").items(b"key"))[-1]
    only_tombstone = Snapshot(make_snapshot([last], finished=5))
    assert only_tombstone.hashkv().hash == plain_crc32c(b"key")
    assert only_tombstone.hashkv(0, OLD).hash == plain_crc32c(b"key" + b"".join(last))


def test_history_of_the_vectors_is_what_the_model_store_makes() -> None:
    store = Store()
    store.put(b"k", b"1")
    store.put(b"k", b"2")
    store.put(b"o", b"1")
    store.delete(b"k")
    states = vectors()["hashkv_history"]
    assert [[key.hex(), value.hex()] for key, value in store.records] == states["uncompacted"]["records"]
    store.compact(3, new_rule=True)
    assert [[key.hex(), value.hex()] for key, value in store.records] == states["compacted_at_3"]["records"]
    store.compact(5, new_rule=True)
    assert [[key.hex(), value.hex()] for key, value in store.records] == states["compacted_at_5_new"]["records"]


def put(main: int, key: bytes, value: bytes = b"v", *, lease: int = 0) -> Record:
    content = KeyValue(key=key, create_revision=main, mod_revision=main, version=1, value=value, lease=lease)
    return encode_revision_key(Revision(main, 0)), encode_key_value(content)


def test_case_23_hashkv_pending_compaction() -> None:
    records = [put(2, b"/a"), put(3, b"/a", b"2"), put(9, b"/b"), put(12, b"/a", b"3")]
    pending = Snapshot(make_snapshot(records, scheduled=9))
    done = Snapshot(make_snapshot(records, scheduled=9, finished=9))
    assert pending.hashkv() == done.hashkv()
    assert pending.hashkv().compact_revision == pending.compacted_revision == 9
    assert pending.hashkv().hash != Snapshot(make_snapshot(records)).hashkv().hash
    assert Snapshot(make_snapshot(records)).hashkv().compact_revision == -1


def test_case_39_bump_revision_record_is_the_live_record_of_the_empty_key() -> None:
    bump = (bytes.fromhex(vectors()["bump_revision_record"]["key_hex"]), b"")
    snapshot = Snapshot(make_snapshot([put(14, b"/a"), bump], scheduled=1014))
    ((first, second),) = ([chunk.user_key(0), chunk.user_key(1)] for chunk in snapshot.chunks())
    assert (first, second) == (b"/a", b"")
    assert list(snapshot.live()) == [1, 1]
    assert snapshot.status().total_key_live == 2
    assert (snapshot.current_revision, snapshot.compacted_revision) == (1014, 1014)


def test_compaction_that_was_only_scheduled_raises_the_revision_of_newer_servers() -> None:
    snapshot = Snapshot(make_snapshot([put(2, b"/a")], scheduled=50))
    assert snapshot.revision_on(OLD) == 2
    assert snapshot.current_revision == 50
    assert snapshot.hashkv(0, OLD).compact_revision == -1
    assert snapshot.hashkv().compact_revision == 50
    assert Snapshot(make_snapshot([put(2, b"/a")], finished=50)).revision_on(OLD) == 50


def test_case_24_hashkv_empty_keep_skips_nothing() -> None:
    gone = (encode_revision_key(Revision(3, 0), tombstone=True), encode_key_value(KeyValue(key=b"/a")))
    records = [put(2, b"/a"), gone]
    found = Snapshot(make_snapshot(records, finished=3)).hashkv(0, OLD)
    assert found.hash == plain_crc32c(b"key" + b"".join(key + value for key, value in records))


@pytest.mark.parametrize(
    ("version", "serves", "raises", "keeps"),
    [
        ((3, 3, 27), False, False, False),
        ((3, 4, 26), False, False, False),
        ((3, 4, 27), True, False, False),
        ((3, 4, 32), True, True, False),
        ((3, 4, 34), True, True, True),
        ((3, 5, 0), False, False, False),
        ((3, 5, 10), True, False, False),
        ((3, 5, 14), True, True, False),
        ((3, 5, 16), True, True, True),
        ((3, 6, 0), True, True, True),
        ((4, 0, 0), True, True, True),
    ],
)
def test_generations_of_servers(version: tuple[int, int, int], serves: object, raises: object, keeps: object) -> None:
    generation = server_generation(*version)
    assert generation.serves_compacted_revision is serves
    assert generation.scheduled_raises_revision is raises
    assert generation.keeps_tombstones is keeps


# --- rewriting nothing ---


@pytest.mark.parametrize("name", TINY)
def test_case_25_rewrite_identity(name: str) -> None:
    source = golden(name)
    written = rewritten(source, NO_EDITS)
    target = Snapshot(written)
    assert contents(written[:-32]) == contents(tiny(name))
    assert target.status().hash == source.status().hash
    assert target.hashkv() == source.hashkv()
    assert target.check_trailer() is Trailer.OK
    assert b"STALE-SECRET-VALUE-0001" not in written
    assert len(written) == target.database.high_water_mark * target.database.page_size + 32


def test_case_26_rewrite_is_deterministic() -> None:
    first, second = (rewritten(golden("tiny-3.7.db"), NO_EDITS) for _ in range(2))
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()


def test_case_44_unknown_bucket_preserved() -> None:
    source = Snapshot(make_snapshot([put(2, b"/a")], {b"mystery": {b"k": b"v"}}))
    assert [key for key, _ in source.items(b"mystery")] == [b"k"]
    target = Snapshot(rewritten(source, NO_EDITS))
    assert dict(target.items(b"mystery")) == {b"k": b"v"}
    assert target.status().hash == source.status().hash


# --- what is missing or broken ---


def bare(buckets: Mapping[bytes, Mapping[bytes, bytes]]) -> Snapshot:
    return Snapshot(with_trailer(make_database(buckets)))


def test_case_43_missing_meta_bucket_reported() -> None:
    snapshot = bare({b"key": dict([put(2, b"/a")])})
    (remark,) = snapshot.remarks()
    assert (remark.code, remark.place) == (RemarkCode.MISSING_META, "bucket meta")
    assert remark.hint
    assert snapshot.version_hint == "of unknown version"
    assert (snapshot.current_revision, snapshot.compacted_revision, snapshot.term) == (2, 0, None)
    assert tuple(Snapshot(rewritten(snapshot, NO_EDITS)).database.buckets()) == BUCKETS


def test_file_without_key_bucket_is_an_empty_store() -> None:
    snapshot = bare({b"meta": {}})
    assert list(snapshot.chunks()) == []
    assert (snapshot.current_revision, snapshot.record_count, snapshot.last_revision) == (1, 0, None)
    assert snapshot.live() == snapshot.live(5) == b""
    assert snapshot.hashkv().hash == plain_crc32c(b"key")
    assert snapshot.status().hash == plain_crc32c(b"meta")


def test_case_46_alarm_present_warned() -> None:
    alarm = encode_alarm(AlarmMember(0xABC, 1))
    snapshot = Snapshot(make_snapshot(buckets={b"alarm": {alarm: b""}}))
    (remark,) = snapshot.remarks()
    assert (remark.code, remark.place) == (RemarkCode.ALARM, "bucket alarm, member abc")
    assert "NOSPACE" in remark.problem
    assert "alarm disarm" in remark.hint
    assert [one.name for one in snapshot.alarms()] == ["NOSPACE"]


def test_authentication_that_is_on_is_a_finding() -> None:
    for stored, expected in ((b"\x01", [RemarkCode.AUTH_ENABLED]), (b"\x00", [])):
        snapshot = Snapshot(make_snapshot(buckets={b"auth": {b"authEnabled": stored}}))
        assert [remark.code for remark in snapshot.remarks()] == expected
        assert snapshot.auth_enabled == bool(expected)


@pytest.mark.parametrize(
    ("bucket", "key", "value"),
    [
        (b"meta", b"finishedCompactRev", b"short"),
        (b"meta", b"term", b"short"),
        (b"meta", b"storageVersion", b"\x00"),
        (b"cluster", b"clusterVersion", b"\xff"),
        (b"lease", b"\x00" * 8, b"\x08"),
        (b"members", b"1", b"{}"),
        (b"alarm", b"\x08", b""),
    ],
)
def test_broken_record_elsewhere_is_one_finding_and_does_not_stop_the_others(
    bucket: bytes, key: bytes, value: bytes
) -> None:
    snapshot = Snapshot(make_snapshot([put(2, b"/a")], {bucket: {key: value}}))
    (remark,) = snapshot.remarks()
    assert (remark.code, remark.place) == (RemarkCode.BAD_RECORD, f"bucket {bucket.decode()}")
    assert key.hex() in remark.problem
    assert [len(chunk) for chunk in snapshot.chunks()] == [1]


def test_broken_compaction_mark_is_a_named_error() -> None:
    snapshot = Snapshot(make_snapshot(buckets={b"meta": {b"scheduledCompactRev": b"x"}}))
    with pytest.raises(BadRecord, match="bucket meta: it is not a revision: it has 1 byte instead of 17 or 18"):
        _ = snapshot.current_revision


def test_case_38_dangling_lease_reported() -> None:
    lease = {encode_lease_key(7): encode_lease(Lease(7, 60))}
    records = [put(2, b"/old", lease=5), put(3, b"/old"), put(4, b"/gone", lease=LEASE), put(5, b"/ok", lease=7)]
    snapshot = Snapshot(make_snapshot(records, {b"lease": lease}))
    (dangling,) = snapshot.dangling_leases()
    assert (dangling.key, dangling.lease, dangling.revision) == (b"/gone", LEASE, Revision(4, 0))
    remark = dangling.remark()
    assert remark.code is RemarkCode.DANGLING_LEASE
    assert "/gone" in remark.place
    assert f"{LEASE:x}" in remark.problem


# --- the live view, and single records ---


def test_live_view_at_a_revision() -> None:
    store = Store()
    store.put(b"/a", b"1")
    store.txn([(b"/b", b"1", 0), (b"/a", b"2", 0)])
    store.delete(b"/a")
    store.put(b"/a", b"3")
    snapshot = Snapshot(store.snapshot())
    assert list(snapshot.live(1)) == [0, 0, 0, 0, 0]
    assert list(snapshot.live(2)) == [1, 0, 0, 0, 0]
    assert list(snapshot.live(3)) == [0, 1, 1, 0, 0]
    assert list(snapshot.live(4)) == [0, 1, 0, 0, 0]
    assert list(snapshot.live(5)) == list(snapshot.live()) == [0, 1, 0, 0, 1]


def test_live_records_need_no_pass_of_their_own_after_one() -> None:
    snapshot = golden("tiny-3.4.db")
    for _ in snapshot.chunks():
        pass
    first = snapshot.live()
    assert snapshot.live() is first
    assert first.count(1) == 30


def test_history_and_records_by_number() -> None:
    snapshot = golden("tiny-3.4.db")
    (item,) = snapshot.history_of([b"app/item/004", b"no/such/key"]).items()
    key, records = item
    assert key == b"app/item/004"
    assert [(record.revision, record.tombstone) for record in records] == [
        (Revision(59, 0), False),
        (Revision(86, 0), True),
        (Revision(87, 0), False),
    ]
    assert snapshot.record(records[1].number) == records[1]
    assert decode_key_value(snapshot.stored_value(records[2])).version == 1
    for number in (-1, 33):
        with pytest.raises(IndexError):
            snapshot.record(number)
    assert {record.key for record in snapshot.leased_records()} == {b"app/session/1", b"app/session/2"}


def test_case_48_records_of_a_longer_live_database_are_the_same() -> None:
    longer = Snapshot(tiny() + bytes(16 << 20))
    assert scanned(longer) == facts("tiny-3.4.db")["key_bucket"]
    assert longer.status() == golden("tiny-3.4.db").status()
