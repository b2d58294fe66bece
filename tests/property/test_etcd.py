"""Laws of etcd's records and histories: random and hostile input against plain codecs and a plain store."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from types import ModuleType

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

import snaptool.etcd.comparing
import snaptool.etcd.reading
from snaptool import wire
from snaptool.bolt import Chunk
from snaptool.errors import SnaptoolError
from snaptool.etcd import (
    CURRENT_SERVERS,
    REPEATED_VALUE,
    TOMBSTONE,
    UNREADABLE,
    Editor,
    KeyValue,
    RecordFault,
    RecordProblem,
    Revision,
    RevisionCompacted,
    ServerGeneration,
    Snapshot,
    UnsafeEdit,
    decode_key_value,
    decode_revision_key,
    encode_key_value,
    encode_revision_key,
    replace_value,
    server_generation,
)
from snaptool.etcd import records as codecs
from snaptool.etcd.leaves import Leaves
from tests.support.engine import uncompiled
from tests.support.history import (
    Record,
    Store,
    boot,
    leaves_of,
    make_snapshot,
    model_hashkv,
    plain_crc32c,
    random_store,
    rewritten,
)

GENERATIONS = (CURRENT_SERVERS, server_generation(3, 4, 23), server_generation(3, 5, 10), server_generation(3, 5, 14))

int64 = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 300)
revisions = st.builds(Revision, st.integers(0, (1 << 63) - 1), st.integers(0, (1 << 63) - 1) | st.integers(0, 3))
key_values = st.builds(
    KeyValue,
    key=st.binary(max_size=20),
    create_revision=int64,
    mod_revision=int64,
    version=int64,
    value=st.binary(max_size=300),
    lease=int64,
)


def overlong(number: int, size: int) -> bytes:
    """A varint in `size` bytes, more than it needs."""
    encoded = bytearray(wire.encode_varint(number))
    while len(encoded) < size:
        encoded[-1] |= 0x80
        encoded.append(0)
    return bytes(encoded)


varints = st.builds(overlong, st.integers(0, (1 << 64) - 1) | st.integers(0, 200), st.integers(1, 10))
known_fields = st.one_of(
    st.builds(wire.encode_field, st.sampled_from((1, 5)), st.binary(max_size=30)),
    st.builds(lambda number, value: bytes([number << 3]) + value, st.sampled_from((2, 3, 4, 6)), varints),
    st.builds(
        lambda number, size, value: bytes([number << 3 | 2]) + overlong(len(value), size) + value,
        st.sampled_from((1, 5)),
        st.integers(1, 10),
        st.binary(max_size=30),
    ),
)
unknown_fields = st.sampled_from((b"\x7a\x01x", b"\x38\x05", b"\x3d\0\0\0\0", b"\x39" + bytes(8), b"\x3b\x08\x01\x3c"))
messages = st.lists(known_fields | unknown_fields, max_size=8).map(b"".join)

ordered_messages = st.lists(known_fields, max_size=6, unique_by=lambda one: bytes(one)[0]).map(
    lambda fields: b"".join(sorted(map(bytes, fields)))
)
hostile_messages = st.binary(max_size=60) | st.builds(
    lambda message, at, byte: message[: at % (len(message) + 1)] + byte + message[at % (len(message) + 1) + 1 :],
    messages,
    st.integers(0, 100),
    st.binary(max_size=2),
)


# --- codecs ---


@given(revision=revisions, tombstone=st.booleans())
def test_revision_keys_come_back_and_sort_as_revisions(*, revision: Revision, tombstone: bool) -> None:
    key = encode_revision_key(revision, tombstone=tombstone)
    assert decode_revision_key(key) == (revision, tombstone)
    other = Revision(revision.main // 2, revision.sub)
    assert (encode_revision_key(other) < encode_revision_key(revision)) == (other < revision)


@given(key_values)
def test_key_values_come_back(key_value: KeyValue) -> None:
    stored = encode_key_value(key_value)
    assert decode_key_value(stored) == key_value
    assert replace_value(stored, key_value.value) == stored


@given(messages, st.binary(max_size=40))
def test_replacing_a_value_changes_the_value_and_no_other_field(stored: bytes, value: bytes) -> None:
    changed = replace_value(stored, value)
    assert decode_key_value(changed).value == value
    others = [stored[one.start : one.end] for one in wire.fields(stored) if one.number != codecs.VALUE]
    kept = [changed[one.start : one.end] for one in wire.fields(changed) if one.number != codecs.VALUE]
    assert kept == others
    assert sum(one.number == codecs.VALUE for one in wire.fields(changed)) == bool(value)


DECODERS: tuple[Callable[[bytes], object], ...] = (
    decode_revision_key,
    decode_key_value,
    codecs.locate,
    codecs.clear_lease,
    codecs.decode_alarm,
    lambda stored: replace_value(stored, b"x"),
    lambda stored: codecs.decode_lease(stored[:8], stored[8:]),
    lambda stored: codecs.decode_member(b"1", stored),
    lambda stored: codecs.decode_user(b"u", stored),
    lambda stored: codecs.decode_role(b"r", stored),
    lambda stored: codecs.decode_counter("meta", b"term", stored),
    lambda stored: codecs.decode_text("meta", b"storageVersion", stored),
    Snapshot,
)


@pytest.mark.parametrize("decode", DECODERS)
@given(stored=st.binary(max_size=80) | hostile_messages | messages)
def test_any_bytes_give_a_value_or_a_named_error(decode: Callable[[bytes], object], stored: bytes) -> None:
    try:
        decode(stored)
    except SnaptoolError as error:
        assert str(error)  # noqa: PT017 - either answer is right


# --- the scan ---


def columns_by_codec(records: list[Record]) -> list[tuple[object, ...] | None]:
    """What the scan has to find, by the plain codecs; None for what they refuse."""
    rows: list[tuple[object, ...] | None] = []
    for stored_key, stored_value in records:
        try:
            revision, tombstone = decode_revision_key(stored_key)
            one, spans = decode_key_value(stored_value), codecs.locate(stored_value)
        except SnaptoolError:
            rows.append(None)
            continue
        field = stored_value[spans.field_start : spans.field_start + spans.field_size]
        rows.append(
            (
                *revision,
                tombstone,
                one.key,
                one.create_revision,
                one.mod_revision,
                one.version,
                one.lease,
                one.value,
                spans.field_start,
                field,
                spans.values > 1,
            )
        )
    return rows


def columns_by_reading(
    snapshot: Snapshot, problems: list[RecordProblem], way: ModuleType, most: int
) -> list[tuple[object, ...] | None]:
    """The same by reading chunks, `most` records at a time."""
    rows: list[tuple[object, ...] | None] = []
    bucket, leaves, reader = snapshot.bucket(b"key"), Chunk(most), way.RecordReader(snapshot.view)
    assert bucket is not None
    records, index = way.Records(snapshot.view, leaves), way.LiveIndex(snapshot.view)
    for _ in bucket.leaves(None, leaves):
        reader.read(records, problems.append)
        index.add(records, len(records))
        for row in range(len(records)):
            if records.flags[row] & UNREADABLE:
                rows.append(None)
                continue
            field = records.field_at[row]
            rows.append(
                (
                    *records.revision(row),
                    bool(records.flags[row] & TOMBSTONE),
                    records.user_key(row),
                    records.create[row],
                    records.mod[row],
                    records.version[row],
                    records.lease[row],
                    records.value(row),
                    field - leaves.value_at[row],
                    bytes(snapshot.view[field : field + records.field_size[row]]),
                    bool(records.flags[row] & REPEATED_VALUE),
                )
            )
    last = {row[3]: number for number, row in enumerate(rows) if row is not None and row[0]}
    assert list(index.live()) == [
        int(row is not None and last.get(row[3]) == number and not row[2]) for number, row in enumerate(rows)
    ]
    return rows


@given(
    keys=st.lists(st.text("a/b", max_size=9).map(str.encode), min_size=1, max_size=30), text=st.text("a/b", max_size=3)
)
def test_rows_whose_keys_begin_end_with_or_hold_a_text_are_those_of_bytes(keys: list[bytes], text: str) -> None:
    one = text.encode()
    content = {encode_revision_key(Revision(main, 0)): key for main, key in enumerate(keys, start=2)}
    snapshot = Snapshot(
        make_snapshot([(stored, encode_key_value(KeyValue(key=key))) for stored, key in sorted(content.items())])
    )
    records = next(snapshot.chunks())
    assert keys == [records.user_key(row) for row in range(len(keys))]
    for way in (snaptool.etcd.reading, uncompiled(snaptool.etcd.reading)):
        assert way.rows_holding(records, one) == [row for row, key in enumerate(keys) if one in key]
        assert way.rows_between(records, b"a", one) == [
            row for row, key in enumerate(keys) if key[:1] == b"a" and key[1:].endswith(one)
        ]


bad_keys = st.binary(min_size=1, max_size=20)
good_keys = st.builds(lambda one, tombstone: encode_revision_key(one, tombstone=tombstone), revisions, st.booleans())


@settings(max_examples=300)
@given(
    st.dictionaries(
        good_keys | good_keys | bad_keys,
        ordered_messages | ordered_messages | messages | hostile_messages | key_values.map(encode_key_value),
        max_size=12,
    )
)
def test_scan_finds_what_the_codecs_find_and_reports_what_they_refuse(content: dict[bytes, bytes]) -> None:
    records = sorted(content.items())
    snapshot = Snapshot(make_snapshot(records))
    problems: list[RecordProblem] = []
    expected = columns_by_codec(records)
    for way in (snaptool.etcd.reading, uncompiled(snaptool.etcd.reading)):
        for most in (1, 512):
            problems = []
            assert columns_by_reading(snapshot, problems, way, most) == expected
            check_problems(problems, records, expected)
    if problems:
        with pytest.raises(SnaptoolError):
            list(Snapshot(make_snapshot(records)).chunks())


def check_problems(
    problems: list[RecordProblem], records: list[Record], expected: list[tuple[object, ...] | None]
) -> None:
    unreadable = [one for one in problems if one.fault in {RecordFault.BAD_REVISION, RecordFault.BAD_RECORD}]
    assert sorted(one.record for one in unreadable) == [number for number, row in enumerate(expected) if row is None]
    for one in problems:
        assert one.key == records[one.record][0]
        assert one.key.hex() in str(one.error())


@given(st.lists(st.binary(max_size=300), max_size=20), st.binary(max_size=20), st.integers(0, 3))
def test_checksums_of_parts_join_to_that_of_the_whole(parts: list[bytes], before: bytes, long: int) -> None:
    parts = [*parts, *(bytes(4096 * number + 4095) for number in range(long))]
    crcs = memoryview(array("I", [crc32c(part) for part in parts]))
    sizes = memoryview(array("q", [len(part) for part in parts]))
    for way in (snaptool.etcd.comparing, uncompiled(snaptool.etcd.comparing)):
        assert way.join_sums(crc32c(before), crcs, sizes) == crc32c(before + b"".join(parts))


# --- histories ---

seeds = st.integers(0, 1 << 32)


def hash_of(
    snapshot: Snapshot, way: ModuleType, compacted: int, at: int, generation: ServerGeneration, known: Leaves | None
) -> int:
    """HashKV, a record at a time, or by what is known of leaves."""
    skips, live = generation.keeps_tombstones, snapshot.live(at)
    history = way.HistoryHash(snapshot.view, crc32c, live, (at, compacted), skips_tombstones=skips)
    bucket = snapshot.bucket(b"key")
    if known is not None and all(known.page[:1]):
        known.hash(history, snapshot.database)
    else:
        for leaves in bucket.leaves(None, Chunk(1)) if bucket else ():
            history.add(leaves)
    found: int = history.value()
    return found


def check_views(store: Store) -> None:
    """Live view, current revision and HashKV at every revision, for every generation of servers."""
    snapshot = Snapshot(store.snapshot(page_size=1024))
    records, leaves, noted = store.records, leaves_of(snapshot), Leaves()
    for chunk in snapshot.chunks():
        noted.take(chunk, 1024)
    one, other = dict(vars(noted)), dict(vars(leaves))
    assert one.pop("branches").digest() == other.pop("branches").digest()
    assert one == other
    crc = 0
    for name, bucket in snapshot.database.buckets().items():
        crc = plain_crc32c(name + b"".join(key + value for key, value in bucket.items()), crc)
    assert snapshot.status_hash() == snapshot.status_hash(leaves) == crc
    for generation in GENERATIONS:
        booted = boot(records, generation, store.finished, store.scheduled)
        assert snapshot.revision_on(generation) == booted.revision
        for at in range(1, booted.revision + 1):
            mask = snapshot.live(at)
            live = {decode_revision_key(key)[0] for (key, _), is_live in zip(records, mask, strict=True) if is_live}
            assert live == {revision for key in booted.index if (revision := booted.get(key, at)) is not None}
            assert live == booted.keep_set(at, new_rule=generation.keeps_tombstones)
            try:
                found = snapshot.hashkv(at, generation)
            except RevisionCompacted:
                assert at < booted.compacted + (not generation.serves_compacted_revision)
                continue
            assert found.hash == model_hashkv(records, booted, at, generation)
            assert found.compact_revision == booted.compacted
            if at % 4 == 0:
                assert found == snapshot.hashkv(at, generation, known=leaves, live=mask)
                for way in (snaptool.etcd.comparing, uncompiled(snaptool.etcd.comparing)):
                    for known in (None, leaves):
                        assert hash_of(snapshot, way, booted.compacted, at, generation, known) == found.hash
        # Some servers refuse the current revision by its number when it was just compacted; 0 is never refused.
        found = snapshot.hashkv(0, generation)
        assert found.hash == model_hashkv(records, booted, booted.revision, generation)
        assert (found.revision, found.compact_revision) == (booted.revision, booted.compacted)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, new_rule=st.booleans())
def test_live_view_revision_and_hashkv_are_those_of_the_model(*, seed: int, new_rule: bool) -> None:
    check_views(random_store(seed, operations=30, new_rule=new_rule))


@pytest.mark.soak
@settings(max_examples=100, deadline=None)
@given(seed=seeds, new_rule=st.booleans())
def test_live_view_revision_and_hashkv_are_those_of_the_model_at_length(*, seed: int, new_rule: bool) -> None:
    check_views(random_store(seed, operations=60, new_rule=new_rule))


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_compaction_leaves_what_a_server_leaves(seed: int) -> None:
    store = random_store(seed)
    snapshot = Snapshot(store.snapshot())
    editor = Editor(snapshot)
    editor.compact()
    target = Snapshot(rewritten(snapshot, editor.finish()))
    at = snapshot.current_revision
    if at > (store.finished or 0):
        store.compact(at, new_rule=True)
    assert list(target.items(b"key")) == store.records
    assert (target.finished_compaction, target.scheduled_compaction, target.current_revision) == (at, at, at)
    assert target.hashkv() == Snapshot(store.snapshot()).hashkv()


def check_safe(store: Store, target: Snapshot, changed: set[bytes]) -> None:
    """What must hold after any edit but deletion at a new revision: servers of all generations go on as before.

    The revision did not fall. Keys that were not edited answer and continue as before. An edited key answers at no
    revision with another record than before, and, if anything of it is left alive, continues as before.
    """
    records = list(target.items(b"key"))
    for generation in GENERATIONS:
        before = boot(store.records, generation, store.finished, store.scheduled)
        after = boot(records, generation, target.finished_compaction, target.scheduled_compaction)
        assert after.revision == before.revision
        for key in before.index:
            alive_before = before.get(key, before.revision)
            alive_after = after.get(key, after.revision)
            if key not in changed:
                assert alive_after == alive_before
                assert after.next_put(key) == before.next_put(key)
            elif alive_after is None:
                assert after.next_put(key) == (after.revision + 1, 1)
            else:
                assert alive_after == alive_before
                assert after.next_put(key) == before.next_put(key)
            for at in range(1, before.revision + 1):
                assert after.get(key, at) in {before.get(key, at), None}
                if key not in changed:
                    assert after.get(key, at) == before.get(key, at)


@settings(max_examples=100, deadline=None)
@given(seed=seeds, new_rule=st.booleans(), compact=st.booleans(), keep_name=st.booleans())
def test_forgetting_any_records_leaves_a_safe_history_without_them(
    *,
    seed: int,
    new_rule: bool,
    compact: bool,
    keep_name: bool,
) -> None:
    store, rng = random_store(seed, new_rule=new_rule), random.Random(seed)
    snapshot = Snapshot(store.snapshot())
    by_key: dict[bytes, list[int]] = {}
    lost = set()
    for number, (stored_key, stored_value) in enumerate(store.records):
        if rng.random() < 0.15 and not decode_revision_key(stored_key)[1]:
            by_key.setdefault(decode_key_value(stored_value).key, []).append(number)
            lost.add((stored_key, stored_value))
    editor = Editor(snapshot, by_key)
    for key, numbers in by_key.items():
        editor.forget(key, numbers, keep_name=keep_name)
    if compact:
        editor.compact()
    target = Snapshot(rewritten(snapshot, editor.finish()))
    assert not lost & set(target.items(b"key"))
    left = {decode_revision_key(key)[0]: value for key, value in target.items(b"key")}
    for stored_key, stored_value in store.records:
        revision, _ = decode_revision_key(stored_key)
        if decode_key_value(stored_value).key not in by_key and not compact:
            assert left[revision] == stored_value
    if compact:
        # A server would compact at the same revision; what it then serves is asked of that state.
        store.compact(snapshot.current_revision, new_rule=True)
    check_safe(store, target, set(by_key))


@settings(max_examples=100, deadline=None)
@given(seed=seeds, new_rule=st.booleans())
def test_dropping_records_is_safe_or_refused(*, seed: int, new_rule: bool) -> None:
    store, rng = random_store(seed, operations=25, keys=2, new_rule=new_rule), random.Random(seed)
    snapshot = Snapshot(store.snapshot())
    histories = snapshot.history_of(store.index)
    editor = Editor(snapshot, histories)
    changed = set()
    for key, history in histories.items():
        if rng.random() < 0.5:
            chosen = history[: rng.randrange(len(history))]
        else:
            chosen = rng.sample(history, rng.randint(0, len(history)))
        is_prefix = chosen == history[: len(chosen)] and len(chosen) < len(history)
        try:
            editor.drop_records(key, [record.number for record in chosen])
        except UnsafeEdit:
            assert not is_prefix
        else:
            assert sorted(chosen, key=lambda record: record.number) == history[: len(chosen)]
            changed.add(key)
    check_safe(store, Snapshot(rewritten(snapshot, editor.finish())), changed)


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_deleting_keys_deletes_them_at_one_new_revision(seed: int) -> None:
    store, rng = random_store(seed), random.Random(seed)
    snapshot = Snapshot(store.snapshot())
    alive = [key for key in store.index if store.index[key].get(store.revision) is not None]
    chosen = rng.sample(alive, rng.randint(0, len(alive)))
    editor = Editor(snapshot, chosen)
    for key in chosen:
        editor.delete_key(key)
    target = Snapshot(rewritten(snapshot, editor.finish()))
    store.revision = snapshot.current_revision
    store.delete(*sorted(chosen))
    assert list(target.items(b"key")) == store.records
    assert target.current_revision == snapshot.current_revision + bool(chosen)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_crc_of_the_model_continues_as_the_fast_one(first: bytes, second: bytes) -> None:
    from crc32c import crc32c

    assert plain_crc32c(second, plain_crc32c(first)) == crc32c(second, crc32c(first)) == crc32c(first + second)
