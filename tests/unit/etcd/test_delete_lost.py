"""Lost records: what goes with them, and which edits of one snapshot may be joined."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from snaptool.etcd import (
    CURRENT_SERVERS,
    NO_EDITS,
    Editor,
    Edits,
    Revision,
    Snapshot,
    UnsafeEdit,
    compact,
    decode_key_value,
    decode_revision_key,
    delete_lost,
    merge,
    server_generation,
)
from tests.support.history import Store, rewritten

OLD = server_generation(3, 4, 23)
LEASE = 0x4C56A20BFAC57658
Left = list[tuple[int, bool, bytes]]


def store() -> Store:
    """Revisions 2 to 8: /a has two generations, /b is deleted, /c holds the highest revision."""
    made = Store()
    made.put(b"/a", b"lost with a key", LEASE)
    made.delete(b"/a")
    made.put(b"/b", b"1")
    made.put(b"/a", b"3")
    made.delete(b"/b")
    made.put(b"/a", b"4", LEASE)
    made.put(b"/c", b"5")
    return made


def numbers(snapshot: Snapshot, key: bytes, *mains: int) -> list[int]:
    return [record.number for record in snapshot.history_of([key])[key] if record.revision.main in mains]


def left(snapshot: Snapshot, edits: Edits) -> Left:
    target = Snapshot(rewritten(snapshot, edits))
    assert target.current_revision == snapshot.current_revision
    assert target.revision_on(OLD) == snapshot.revision_on(OLD)
    return [
        (revision.main, tombstone, decode_key_value(value).key)
        for (revision, tombstone), value in ((decode_revision_key(key), value) for key, value in target.items(b"key"))
    ]


ALL: Left = [
    (2, False, b"/a"),
    (3, True, b"/a"),
    (4, False, b"/b"),
    (5, False, b"/a"),
    (6, True, b"/b"),
    (7, False, b"/a"),
    (8, False, b"/c"),
]


def without(*mains: int) -> Left:
    return [record for record in ALL if record[0] not in mains]


@pytest.mark.parametrize(
    ("key", "mains", "expected"),
    [
        (b"/a", (7,), without(2, 3, 5, 7)),  # the live value: the key goes with its tombstones
        (b"/a", (2,), without(2)),  # an older generation: a leading tombstone may stay
        (b"/a", (5,), without(2, 3, 5)),  # and never without what was before it
        (b"/a", (2, 7), without(2, 3, 5, 7)),
        (b"/b", (4,), without(4)),  # a deleted key stays deleted
        (b"/c", (8,), [*without(8), (8, True, b"/c")]),  # the highest revision is held by a tombstone
    ],
)
def test_lost_records_take_a_safe_part_of_the_history_along(key: bytes, mains: tuple[int, ...], expected: Left) -> None:
    snapshot = Snapshot(store().snapshot())
    assert left(snapshot, delete_lost(snapshot, {key: numbers(snapshot, key, *mains)})) == expected


def test_every_key_lost_leaves_one_tombstone_at_the_highest_revision() -> None:
    snapshot = Snapshot(store().snapshot())
    lost = {b"/a": numbers(snapshot, b"/a", 7), b"/b": numbers(snapshot, b"/b", 6), b"/c": numbers(snapshot, b"/c", 8)}
    assert left(snapshot, delete_lost(snapshot, lost)) == [(8, True, b"/c")]


def test_nothing_lost_edits_nothing() -> None:
    assert delete_lost(Snapshot(store().snapshot()), {}).is_empty
    assert NO_EDITS.is_empty


def test_lost_records_of_another_key_are_refused() -> None:
    snapshot = Snapshot(store().snapshot())
    with pytest.raises(UnsafeEdit, match="record 2 is not one of this key's"):
        delete_lost(snapshot, {b"/a": [0, *numbers(snapshot, b"/b", 4)]})


class CountedList(list[int]):
    """Counts how often it is gone through."""

    passes = 0

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        return super().__iter__()


def test_lost_records_of_one_key_are_gone_through_once() -> None:
    # For each record of the key it would be a minute for a node whose 10,000 heartbeats are lost.
    snapshot = Snapshot(store().snapshot())
    lost = CountedList(numbers(snapshot, b"/a", 2, 5))
    delete_lost(snapshot, {b"/a": lost})
    assert lost.passes == 1


def test_deleting_and_compacting_is_what_a_compaction_of_the_edited_store_leaves() -> None:
    snapshot = Snapshot(store().snapshot())
    for key, main in ((b"/a", 5), (b"/a", 7), (b"/b", 4), (b"/c", 8)):
        deleted = delete_lost(snapshot, {key: numbers(snapshot, key, main)})
        once = Snapshot(rewritten(snapshot, merge(deleted, compact(snapshot))))
        between = Snapshot(rewritten(snapshot, deleted))
        twice = Snapshot(rewritten(between, compact(between)))
        assert list(once.items(b"key")) == list(twice.items(b"key"))
        assert dict(once.items(b"meta")) == dict(twice.items(b"meta"))
        assert once.hashkv() == twice.hashkv()
        assert once.finished_compaction == once.revision_on(OLD) == once.revision_on(CURRENT_SERVERS) == 8


def test_what_a_compaction_drops_is_not_replaced() -> None:
    snapshot = Snapshot(store().snapshot())
    editor = Editor(snapshot, [b"/a"])
    for number in numbers(snapshot, b"/a", 5, 7):
        editor.replace_value(b"/a", number, b"new")
    edits = merge(compact(snapshot), editor.finish(), NO_EDITS)
    assert [*edits.replace] == numbers(snapshot, b"/a", 7)
    assert left(snapshot, edits) == [(7, False, b"/a"), (8, False, b"/c")]


def test_edits_that_are_safe_alone_and_not_together_are_refused() -> None:
    made = Store()
    made.txn([(b"/a", b"1", 0), (b"/b", b"1", 0)])
    snapshot = Snapshot(made.snapshot())
    # Each leaves the other key's record to hold revision 2.
    first, second = (delete_lost(snapshot, {key: [number]}) for number, key in enumerate((b"/a", b"/b")))
    assert not first.replace
    with pytest.raises(ValueError, match="only when one Editor makes them"):
        merge(first, second)
    assert left(snapshot, delete_lost(snapshot, {b"/a": [0], b"/b": [1]})) == [(2, True, b"/b")]


def test_two_edits_that_add_records_are_refused_even_if_they_compact() -> None:
    snapshot = Snapshot(store().snapshot())
    editors = [Editor(snapshot, [key]) for key in (b"/a", b"/c")]
    for editor, key in zip(editors, (b"/a", b"/c"), strict=True):
        editor.delete_key(key)
        editor.compact()
    with pytest.raises(ValueError, match="only when one Editor makes them"):
        merge(*(editor.finish() for editor in editors))
    with pytest.raises(ValueError, match="different revisions"):
        merge(editors[0].finish(), compact(snapshot))


def test_compactions_merge_to_one() -> None:
    snapshot = Snapshot(store().snapshot())
    once, twice = compact(snapshot), merge(compact(snapshot), compact(snapshot))
    assert twice.drop.tolist() == once.drop.tolist()
    assert twice.buckets == once.buckets
    assert decode_revision_key(once.buckets[b"meta"][b"finishedCompactRev"] or b"") == (Revision(8, 0), False)
