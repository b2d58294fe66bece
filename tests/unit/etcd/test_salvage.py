"""Salvage: what a broken file still proves is kept, what is stale stays out, and nothing is made up."""

from __future__ import annotations

import random
import time
from functools import cache

import pytest

from snaptool.bolt import Database
from snaptool.errors import SnaptoolError
from snaptool.etcd import BUCKETS, KeyValue, Revision, encode_key_value, encode_revision_key
from snaptool.etcd.salvage import Origin, Records, Salvage, salvage
from tests.support.bolt import TINY, damaged, database_of, leaf, make_database, mutations, rooted, tiny
from tests.support.cli import SAMPLES

PAGE = 4096
Pairs = set[tuple[bytes, bytes]]


def pairs(records: Records) -> Pairs:
    return {(one.stored_key, bytes(one.stored)) for one in records}


def everything(found: Salvage) -> Pairs:
    return pairs(found.kept) | pairs(found.stale) | pairs(found.contradicted)


def stored(database: bytes) -> Pairs:
    return set(Database(database).buckets()[b"key"].items())


def put(main: int, value: bytes, key: bytes = b"k", sub: int = 0) -> tuple[bytes, bytes]:
    record = KeyValue(key=key, create_revision=main, mod_revision=main, version=1, value=value)
    return encode_revision_key(Revision(main, sub)), encode_key_value(record)


@pytest.mark.parametrize("name", TINY)
def test_healthy_file_gives_what_its_tree_holds(name: str) -> None:
    found = salvage(tiny(name))
    assert found.intact
    assert found.missing == ()
    assert pairs(found.kept) == stored(tiny(name))
    whole = Database(tiny(name)).buckets()
    assert found.buckets == {bucket: dict(one.items()) for bucket, one in whole.items() if bucket != b"key"}


def test_case_47_carve_free_pages_tiny34() -> None:
    found = salvage(tiny())
    assert len(found.stale) == 57
    (secret,) = [one for one in found.stale if bytes(one.value) == b"STALE-SECRET-VALUE-0001"]
    assert (secret.key, secret.revision, secret.tombstone, secret.page) == (b"app/secret", Revision(2, 0), False, 3)
    assert pairs(found.stale) & stored(tiny()) == set()


@pytest.mark.parametrize("name", ["both_meta_checksum_flip", "both_meta_checksum_zero"])
def test_case_08_both_metas_broken_salvaged(name: str) -> None:
    found = salvage(damaged(name))
    assert pairs(found.kept) == stored(tiny())
    assert not found.intact
    assert "no sound meta" in found.missing[0]


@pytest.mark.parametrize("name", sorted(mutations()))
def test_damaged_variant_gives_all_records_and_no_others(name: str) -> None:
    started = time.process_time()
    found = salvage(damaged(name))
    assert time.process_time() - started < 1
    assert everything(found) <= everything(salvage(tiny()))
    if name == "truncated_to_8_pages":  # the root and the latest leaves are cut off; what is before them is found
        assert len(found.kept) == 54
        assert found.count(Origin.REACHED) == 0
        return
    # Copies in free pages stand in for the broken leaf; nothing stale comes back.
    assert pairs(found.kept) == stored(tiny())
    assert len(found.stale) == 57


def test_metas_gone_altogether_leave_the_latest_root() -> None:
    found = salvage(bytes(2 * PAGE) + tiny()[2 * PAGE :])
    assert pairs(found.kept) == stored(tiny())
    assert found.buckets == salvage(tiny()).buckets


def test_root_page_gone_leads_to_the_state_before_the_compaction() -> None:
    database = bytearray(tiny())
    root = Database(tiny()).meta.root
    database[root * PAGE : (root + 1) * PAGE] = bytes(PAGE)
    found = salvage(bytes(database))
    assert not found.intact
    assert pairs(found.kept) == everything(salvage(tiny()))
    assert found.missing == ("no sound meta names the root; page 10 was taken, the latest that was found",)
    assert set(found.buckets) == set(BUCKETS) - {b"key"}
    assert b"consistent_index" in found.buckets[b"meta"]
    assert b"finishedCompactRev" not in found.buckets[b"meta"]


def test_equal_revisions_that_differ_are_both_left_out() -> None:
    first, second, third = put(5, b"one"), put(5, b"two"), put(6, b"three")
    database = database_of(leaf(2, [(b"x", b"y")]), leaf(3, [first, third]), leaf(4, [second]), root=9, page_size=1024)
    found = salvage(bytes(2048) + database[2048:])
    assert pairs(found.kept) == {third}
    assert pairs(found.contradicted) == {first, second}


def test_reached_copy_is_preferred_to_one_that_differs() -> None:
    reached, other = put(5, b"one"), put(5, b"two")
    database = database_of(leaf(2, [(b"key", rooted(3))], flags=1), leaf(3, [reached]), leaf(4, [other]))
    found = salvage(database)
    assert pairs(found.kept) == {reached}
    assert found.intact


def test_key_whose_message_says_another_revision_is_left_out_and_told() -> None:
    good, forged = put(5, b"one"), (encode_revision_key(Revision(900, 0)), put(6, b"two")[1])
    database = database_of(leaf(2, [(b"key", rooted(3))], flags=1), leaf(3, [good, forged]))
    found = salvage(database)
    assert pairs(found.kept) == {good}
    assert not found.intact
    assert found.missing == (f"page 3: record {forged[0].hex()} is altered, and left out",)


def test_zeroed_page_inside_a_value_is_told() -> None:
    record = put(5, b"x" * 10_000)
    database = bytearray(make_database({b"key": dict([record]), b"meta": {}}))
    at = bytes(database).index(b"x" * 9000)
    page = at // PAGE + 1
    database[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    found = salvage(bytes(database))
    assert not found.intact
    assert found.missing == (f"revision 5: page {page}, in the middle of its value, is all zeros; it may be damaged",)


@pytest.mark.parametrize("behind", [1, 2, 8])
def test_a_value_whose_last_bytes_alone_are_in_another_page_is_whole(behind: int) -> None:
    """What an API server stores as protobuf ends with a zero."""
    for size in range(3900, 4100):
        record = put(5, b"x" * size + bytes(behind))
        database = make_database({b"key": dict([record]), b"meta": {}})
        at = database.index(record[1]) + len(record[1])
        if at % PAGE == behind:
            break
    else:
        pytest.fail("no such size")
    assert salvage(database).missing == ()


@cache
def originals() -> dict[str, bytes]:
    files = {name: tiny(name) for name in TINY}
    return files | {path.name: path.read_bytes() for path in SAMPLES.glob("*.db")}


@cache
def original_records(name: str) -> tuple[Pairs, set[tuple[int, bytes]]]:
    found = salvage(originals()[name])
    parts = (found.kept, found.stale, found.contradicted)
    return everything(found), {(one.revision.main, one.key) for part in parts for one in part}


def harm(content: bytes, seed: int) -> tuple[bytes, int]:
    """Zero, swap, cut and flip. Returns how many bits were flipped too."""
    chance, data, flips = random.Random(seed), bytearray(content), 0
    for _ in range(chance.randint(1, 4)):
        pages = len(data) // PAGE
        one, other = (chance.randrange(pages) * PAGE for _ in range(2))
        match chance.choice(["zero", "swap", "cut", "flip", "flip in a header"]):
            case "zero":
                data[one : one + PAGE] = bytes(PAGE)
            case "swap":
                data[one : one + PAGE], data[other : other + PAGE] = data[other : other + PAGE], data[one : one + PAGE]
            case "cut":
                del data[chance.randrange(len(data) // 2, len(data)) :]
            case kind:
                data[one + chance.randrange(64 if kind == "flip in a header" else PAGE)] ^= 1 << chance.randrange(8)
                flips += 1
    return bytes(data), flips


@pytest.mark.parametrize("name", [*TINY, "aescbc-cluster.db", "lost-key.db", "mixed-providers.db"])
def test_random_damage_never_makes_a_record_up(name: str) -> None:
    known, revisions = original_records(name)
    for seed in range(40):
        content, flips = harm(originals()[name], seed)
        started = time.process_time()
        try:
            found = salvage(content)
        except SnaptoolError:
            continue
        assert time.process_time() - started < 1
        invented = everything(found) - known
        # bolt has no checksums: a flipped bit of a value shows nowhere, nor does a page in the middle of a long one.
        assert len([record for record in invented if len(record[1]) < PAGE // 2]) <= flips, (name, seed)
        if not flips:
            records = (*found.kept, *found.stale, *found.contradicted)
            assert {(one.revision.main, one.key) for one in records} <= revisions, (name, seed)
