"""Editing rules: the edits of the vectors with their confirmed numbers, and what has to be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from snaptool.errors import InputError
from snaptool.etcd import (
    CURRENT_SERVERS,
    NO_EDITS,
    Editor,
    KeyValue,
    Lease,
    Revision,
    Snapshot,
    UnsafeEdit,
    decode_key_value,
    decode_revision_key,
    encode_key_value,
    encode_revision_key,
    server_generation,
)
from snaptool.etcd.records import encode_lease, encode_lease_key
from tests.support.bolt import GOLDEN, vectors
from tests.support.history import Record, Store, make_snapshot, rewritten

OLD = server_generation(3, 4, 23)
LEASE = 0x4C56A20BFAC57658
LAST, SECRET, ITEM = b"app/last", b"app/secret", b"app/item/003"


def tiny34() -> Snapshot:
    return Snapshot((GOLDEN / "tiny-3.4.db").read_bytes())


def edited(snapshot: Snapshot, editor: Editor) -> Snapshot:
    return Snapshot(rewritten(snapshot, editor.finish()))


def expect(name: str, target: Snapshot, generation: Any = OLD) -> None:
    """Compare with the numbers that etcd gave for an edit of the vectors."""
    (edit,) = (edit for edit in vectors()["edits"] if edit["name"] == name)
    status = target.status()
    assert {
        "status_hash_hex": f"{status.hash:x}",
        "revision": status.revision,
        "totalKey_old": status.total_key_records,
        "totalKey_new": status.total_key_live,
        "hashkv": target.hashkv(0, generation).hash,
        "current_revision": target.revision_on(generation),
    } == edit["expect"]


def test_edit_identity() -> None:
    expect("identity", edited(tiny34(), Editor(tiny34())))
    assert list(NO_EDITS.apply(b"key", tiny34().items(b"key"))) == list(tiny34().items(b"key"))


def test_case_31_edit_replace_value() -> None:
    editor = Editor(tiny34(), [LAST])
    editor.replace_value(LAST, editor.history(LAST)[0].number, b"REDACTED")
    target = edited(tiny34(), editor)
    expect("replace_value", target)
    assert target.hashkv().hash == 4015052860


def test_case_32_edit_remove_key() -> None:
    editor = Editor(tiny34(), [ITEM])
    assert [record.revision.main for record in editor.remove_key(ITEM)] == [58, 85]
    target = edited(tiny34(), editor)
    expect("remove_key", target)
    assert ITEM not in target.history_of([ITEM])


def test_case_33_edit_append_tombstone() -> None:
    editor = Editor(tiny34(), [SECRET])
    editor.delete_key(SECRET)
    target = edited(tiny34(), editor)
    expect("append_tombstone", target)
    assert [(record.revision.main, record.tombstone) for record in target.history_of([SECRET])[SECRET]] == [
        (80, False),
        (90, True),
    ]


def test_case_34_edit_remove_highest_keeps_revision() -> None:
    editor = Editor(tiny34(), [LAST])
    editor.remove_key(LAST)
    expect("remove_highest_keep_revision", edited(tiny34(), editor))


def test_case_34_name_that_must_not_remain_gives_way_to_the_empty_key() -> None:
    editor = Editor(tiny34(), [LAST])
    editor.remove_key(LAST, keep_name=False)
    written = rewritten(tiny34(), editor.finish())
    target = Snapshot(written)
    assert LAST not in written
    assert target.current_revision == target.revision_on(OLD) == 89
    *_, (stored_key, stored_value) = target.items(b"key")
    assert (stored_key.hex(), stored_value) == ("00000000000000595f000000000000000074", b"")
    assert target.status().total_key_live == 29


def put(main: int, key: bytes, *, sub: int = 0, lease: int = 0, value: bytes = b"v") -> Record:
    content = KeyValue(key=key, create_revision=main, mod_revision=main, version=1, value=value, lease=lease)
    return encode_revision_key(Revision(main, sub)), encode_key_value(content)


def gone(main: int, key: bytes, sub: int = 0) -> Record:
    return encode_revision_key(Revision(main, sub), tombstone=True), encode_key_value(KeyValue(key=key))


def revisions(snapshot: Snapshot) -> list[tuple[str, bool, bytes]]:
    """Revision, tombstone or not, and user key of every record."""
    return [
        (str(revision), tombstone, decode_key_value(value).key)
        for (revision, tombstone), value in ((decode_revision_key(key), value) for key, value in snapshot.items(b"key"))
    ]


def test_highest_transaction_with_a_record_that_stays_needs_no_stand_in() -> None:
    snapshot = Snapshot(make_snapshot([put(2, b"/a"), put(3, b"/b"), put(3, b"/a", sub=1)]))
    editor = Editor(snapshot, [b"/a"])
    editor.remove_key(b"/a")
    assert revisions(edited(snapshot, editor)) == [("3", False, b"/b")]


def test_highest_transaction_that_goes_whole_leaves_one_tombstone() -> None:
    snapshot = Snapshot(make_snapshot([put(2, b"/c"), put(3, b"/b"), put(3, b"/a", sub=1)]))
    editor = Editor(snapshot, [b"/a", b"/b"])
    editor.remove_key(b"/a")
    editor.remove_key(b"/b")
    assert revisions(edited(snapshot, editor)) == [("2", False, b"/c"), ("3.1", True, b"/a")]


def test_tombstone_that_holds_the_revision_stays_as_it_is_stored() -> None:
    odd = (gone(3, b"/a")[0], encode_key_value(KeyValue(key=b"/a")) + b"\x7a\x01x")
    snapshot = Snapshot(make_snapshot([put(2, b"/a"), odd]))
    editor = Editor(snapshot, [b"/a"])
    editor.remove_key(b"/a")
    assert list(edited(snapshot, editor).items(b"key")) == [odd]
    editor.remove_key(b"/a", keep_name=False)
    assert list(edited(snapshot, editor).items(b"key")) == [(odd[0], b"")]


def test_finished_compaction_holds_the_revision_and_a_scheduled_one_does_not() -> None:
    cases: list[tuple[int | None, int | None, list[tuple[str, bool, bytes]]]] = [
        (3, None, []),
        (None, 3, [("3", True, b"/a")]),
    ]
    for finished, scheduled, expected in cases:
        snapshot = Snapshot(make_snapshot([put(3, b"/a")], finished=finished, scheduled=scheduled))
        editor = Editor(snapshot, [b"/a"])
        editor.remove_key(b"/a")
        target = edited(snapshot, editor)
        assert revisions(target) == expected
        assert target.revision_on(OLD) == snapshot.revision_on(OLD) == 3


# --- parts of a history ---


def history() -> tuple[Snapshot, Callable[..., list[int]]]:
    """A key with two generations; the function gives the numbers of its records at some revisions."""
    store = Store()
    for value in (b"1", b"2"):
        store.put(b"/k", value)
    store.delete(b"/k")
    for value in (b"3", b"4", b"5"):
        store.put(b"/k", value)
    store.put(b"/other", b"x")
    snapshot = Snapshot(store.snapshot())

    def at(*mains: int) -> list[int]:
        return [record.number for record in snapshot.history_of([b"/k"])[b"/k"] if record.revision.main in mains]

    return snapshot, at


@pytest.mark.parametrize(
    ("removed", "why"),
    [
        ((4,), "the tombstone between two generations"),
        ((5,), "the create record of a later generation"),
        ((2, 3, 5), "all of that but the tombstone"),
        ((6,), "a middle put of the open generation"),
        ((3,), "a put inside a closed generation"),
        ((7,), "the newest put"),
        ((2, 3, 4, 5, 6, 7), "all records"),
    ],
)
def test_case_35_edit_partial_history_only_suffix(removed: tuple[int, ...], why: str) -> None:
    snapshot, at = history()
    editor = Editor(snapshot, [b"/k"])
    with pytest.raises(UnsafeEdit) as caught:
        editor.drop_records(b"/k", at(*removed))
    assert caught.value.key == b"/k", why
    assert caught.value.hint
    assert list(editor.finish().drop) == []


@pytest.mark.parametrize("kept_from", [3, 4, 5, 6, 7])
def test_any_suffix_of_a_history_may_stay(kept_from: int) -> None:
    snapshot, at = history()
    editor = Editor(snapshot, [b"/k"])
    editor.drop_records(b"/k", at(*range(kept_from)))
    kept = [int(revision) for revision, _, key in revisions(edited(snapshot, editor)) if key == b"/k"]
    assert kept == list(range(kept_from, 8))


def test_case_35_last_tombstone_stays() -> None:
    snapshot = Snapshot(make_snapshot([put(2, b"/k"), gone(3, b"/k"), put(4, b"/o")]))
    editor = Editor(snapshot, [b"/k"])
    with pytest.raises(UnsafeEdit):
        editor.drop_records(b"/k", [1])


@pytest.mark.parametrize(
    ("lost", "left"),
    [
        ((2,), [3, 4, 5, 6, 7]),
        ((3,), [4, 5, 6, 7]),
        ((2, 5), [6, 7]),
        ((6,), [7]),
        ((7,), []),
        ((2, 7), []),
        ((), [2, 3, 4, 5, 6, 7]),
    ],
)
def test_forgetting_records_leaves_what_is_behind_the_last_of_them(lost: tuple[int, ...], left: list[int]) -> None:
    snapshot, at = history()
    editor = Editor(snapshot, [b"/k"])
    went = editor.forget(b"/k", at(*lost))
    kept = [int(revision) for revision, _, key in revisions(edited(snapshot, editor)) if key == b"/k"]
    assert kept == left
    assert [record.revision.main for record in went] == [main for main in range(2, 8) if main not in left]


def test_forgetting_a_key_with_its_name_leaves_no_trace_of_it() -> None:
    snapshot = Snapshot(make_snapshot([put(2, b"/a"), put(3, b"/secret-name"), put(4, b"/secret-name")]))
    editor = Editor(snapshot, [b"/secret-name"])
    editor.forget(b"/secret-name", [2], keep_name=False)
    written = rewritten(snapshot, editor.finish())
    assert b"/secret-name" not in written
    assert revisions(Snapshot(written)) == [("2", False, b"/a"), ("4", True, b"")]


def test_records_that_are_not_of_the_key_are_refused() -> None:
    snapshot, _ = history()
    editor = Editor(snapshot, [b"/k"])
    with pytest.raises(UnsafeEdit, match="record 6 is not one of this key's"):
        editor.drop_records(b"/k", [6])
    with pytest.raises(UnsafeEdit, match="record 6 is not one of this key's values"):
        editor.replace_value(b"/k", 6, b"")
    with pytest.raises(UnsafeEdit, match="record 2 is not one of this key's values"):
        editor.replace_value(b"/k", 2, b"")
    with pytest.raises(InputError, match="no record of key /other was collected"):
        editor.remove_key(b"/other")


# --- tombstones at a new revision ---


def test_case_36_edit_append_tombstone_after_compaction_uses_current_revision() -> None:
    snapshot = Snapshot(make_snapshot([put(94, b"/b"), put(95, b"/a")], finished=100, scheduled=100))
    editor = Editor(snapshot, [b"/a", b"/b"])
    editor.delete_key(b"/b")
    editor.delete_key(b"/a")
    editor.delete_key(b"/a")
    target = edited(snapshot, editor)
    assert revisions(target)[2:] == [("101", True, b"/a"), ("101.1", True, b"/b")]
    assert target.current_revision == target.revision_on(OLD) == 101
    assert 1 not in target.live()
    assert list(target.live(100)) == [1, 1, 0, 0]


def test_deleting_what_is_deleted_is_refused() -> None:
    snapshot = Snapshot(make_snapshot([put(2, b"/a"), gone(3, b"/a")]))
    editor = Editor(snapshot, [b"/a"])
    with pytest.raises(UnsafeEdit, match="it is deleted already"):
        editor.delete_key(b"/a")


def test_deleting_and_removing_together_leaves_the_tombstone_alone_and_not_the_name_if_told() -> None:
    snapshot = Snapshot(make_snapshot([put(2, b"/b"), put(3, b"/a")]))
    editor = Editor(snapshot, [b"/a"])
    editor.delete_key(b"/a")
    editor.remove_key(b"/a")
    assert revisions(edited(snapshot, editor)) == [("2", False, b"/b"), ("4", True, b"/a")]
    editor.remove_key(b"/a", keep_name=False)
    with pytest.raises(UnsafeEdit, match="would keep the name"):
        editor.finish()


def test_store_at_the_highest_revision_takes_no_further_change() -> None:
    snapshot = Snapshot(make_snapshot([put((1 << 63) - 1, b"/a")]))
    editor = Editor(snapshot, [b"/a"])
    editor.delete_key(b"/a")
    with pytest.raises(InputError, match="highest revision"):
        editor.finish()


# --- compaction ---


def test_compaction_leaves_live_records_and_tombstones_of_just_now_and_notes_it() -> None:
    store = Store()
    store.put(b"/a", b"1")
    store.put(b"/a", b"2")
    store.put(b"/b", b"1")
    store.put(b"/c", b"1")
    store.delete(b"/c")
    store.txn([(b"/b", None, 0), (b"/d", b"1", 0)])
    snapshot = Snapshot(store.snapshot())
    editor = Editor(snapshot)
    editor.compact()
    target = edited(snapshot, editor)
    store.compact(store.revision, new_rule=True)
    assert list(target.items(b"key")) == store.records
    assert revisions(target) == [("3", False, b"/a"), ("7", True, b"/b"), ("7.1", False, b"/d")]
    assert target.finished_compaction == target.scheduled_compaction == target.current_revision == 7
    assert target.hashkv() == Snapshot(store.snapshot()).hashkv()
    assert target.consistent_index == snapshot.consistent_index


def test_compaction_takes_deletions_of_the_same_edit_along() -> None:
    snapshot = Snapshot(make_snapshot([put(2, b"/a"), put(3, b"/b"), put(4, b"/c")]))
    editor = Editor(snapshot, [b"/a", b"/c"])
    editor.delete_key(b"/a")
    editor.remove_key(b"/c")
    editor.compact()
    target = edited(snapshot, editor)
    assert revisions(target) == [("3", False, b"/b"), ("5", True, b"/a")]
    assert target.finished_compaction == target.current_revision == 5


def test_compaction_that_removes_the_highest_record_holds_the_revision_by_itself() -> None:
    snapshot = Snapshot(make_snapshot([put(2, b"/a"), put(3, b"/b")]))
    editor = Editor(snapshot, [b"/b"])
    editor.remove_key(b"/b", keep_name=False)
    editor.compact()
    target = edited(snapshot, editor)
    assert revisions(target) == [("2", False, b"/a")]
    assert target.revision_on(OLD) == target.revision_on(CURRENT_SERVERS) == 3


# --- leases ---


def leased() -> Snapshot:
    records = [put(2, b"/a", lease=LEASE), put(3, b"/b", lease=LEASE), put(4, b"/b"), put(5, b"/c", lease=9)]
    leases = {encode_lease_key(one): encode_lease(Lease(one, 60)) for one in (9, LEASE)}
    return Snapshot(make_snapshot(records, {b"lease": leases}))


def test_case_37_lease_record_needed_by_live_key_not_removable() -> None:
    snapshot = leased()
    editor = Editor(snapshot, [b"/a", b"/b", b"/c"])
    editor.remove_lease(LEASE)
    # Only /a: the last record of /b names no lease any more, and /c has another one.
    with pytest.raises(UnsafeEdit, match="key /a: it needs the lease 4c56a20bfac57658") as caught:
        editor.finish()
    assert caught.value.key == b"/a"
    editor.replace_value(b"/a", 0, b"other")
    with pytest.raises(UnsafeEdit):
        editor.finish()


def test_case_37_lease_cleared_from_key_then_removable() -> None:
    snapshot = leased()
    editor = Editor(snapshot, [b"/a"])
    editor.remove_lease(LEASE)
    editor.replace_value(b"/a", 0, b"other")
    editor.clear_lease(b"/a")
    target = edited(snapshot, editor)
    assert set(target.leases()) == {9}
    (_, stored), *others = target.items(b"key")
    assert decode_key_value(stored) == KeyValue(key=b"/a", create_revision=2, mod_revision=2, version=1, value=b"other")
    assert others == list(snapshot.items(b"key"))[1:]
    assert list(target.dangling_leases()) == []


@pytest.mark.parametrize("way", ["remove_key", "delete_key"])
def test_lease_may_go_with_its_keys(way: str) -> None:
    snapshot = leased()
    editor = Editor(snapshot, [b"/c"])
    editor.remove_lease(9)
    getattr(editor, way)(b"/c")
    target = edited(snapshot, editor)
    assert set(target.leases()) == {LEASE}
    assert list(target.dangling_leases()) == []


def test_removing_a_leased_key_leaves_the_lease() -> None:
    snapshot = leased()
    editor = Editor(snapshot, [b"/a"])
    editor.remove_key(b"/a")
    assert edited(snapshot, editor).leases() == snapshot.leases()


def test_lease_that_is_not_there_cannot_be_removed() -> None:
    with pytest.raises(InputError, match="there is no lease 63"):
        Editor(leased()).remove_lease(0x63)
