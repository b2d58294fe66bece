"""Conformance cases of spec/etcd-snapshot.md, section 10, that concern bolt; every damaged variant of the vectors."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from snaptool.bolt import ByteOrderNotSupported, CorruptPage, Database, NotABoltFile, check
from snaptool.bolt.layout import (
    ELEMENT_SIZE,
    HEADER_SIZE,
    META_SIZE,
    BadMeta,
    Meta,
    PageFlag,
    PageHeader,
    PageId,
    TxId,
    decode_meta,
    encode_meta,
    fnv1a64,
)
from tests.support.bolt import TINY, contents, damaged, make_database, tiny, vectors

RECORDS = {b"%06d" % number: b"v" * (number % 900) for number in range(400)}


@pytest.mark.parametrize("name", TINY)
def test_pages_and_buckets_are_those_that_bbolt_sees(name: str) -> None:
    facts = vectors()["files"][name]
    database = Database(tiny(name))
    meta = facts["meta"][facts["active_meta"]]
    assert database.page_size == facts["page_size"]
    assert (database.meta.txid, database.meta.root) == (meta["txid"], meta["root"])
    assert database.high_water_mark == meta["high_water_pgid"]
    buckets = database.buckets()
    assert {bucket.name.decode(): (bucket.root, len(list(bucket.items()))) for bucket in buckets.values()} == {
        bucket: (stated["root"], stated["records"]) for bucket, stated in facts["buckets"].items()
    }
    used = {page["id"] + extra for page in facts["reachable_pages"] for extra in range(page["overflow"] + 1)}
    assert set(database.free_pages().tolist()) == set(range(2, database.high_water_mark)) - used
    assert list(check(tiny(name))) == []


def test_case_06_meta_checksum_fnv1a() -> None:
    page = tiny()[:4096]
    assert f"{fnv1a64(page[16:72]):016x}" == "2dc92fdf5ed811a1"
    assert fnv1a64(b"") == 0xCBF29CE484222325
    meta = decode_meta(page)
    assert encode_meta(meta, 0) == page
    for cut in range(META_SIZE):
        with pytest.raises(BadMeta):
            decode_meta(page[:cut])


@pytest.mark.parametrize("name", ["meta0_checksum_flip", "meta1_checksum_flip", "meta0_magic_broken"])
def test_case_07_one_broken_meta_uses_the_other(name: str) -> None:
    data = damaged(name)[:-32]
    assert contents(data) == contents(tiny())
    assert Database(data).meta.txid == (51 if name.startswith("meta1") else 50)
    (problem,) = check(data)
    assert problem.page == (1 if name.startswith("meta1") else 0)
    assert "cannot be used" in problem.problem


def test_case_08_both_metas_broken_refused() -> None:
    with pytest.raises(NotABoltFile, match="page 0: wrong checksum; page 1: wrong checksum"):
        Database(damaged("both_meta_checksum_flip"))


def test_case_09_meta_checksum_zero_refused_by_default() -> None:
    with pytest.raises(NotABoltFile, match="wrong checksum"):
        Database(damaged("both_meta_checksum_zero"))


@pytest.mark.parametrize("page_size", [1024, 2048, 8192, 16384, 32768, 65536])
def test_case_10_other_page_sizes_with_meta0_broken(page_size: int) -> None:
    data = bytearray(make_database({b"key": RECORDS}, page_size=page_size, txid=8))
    assert Database(bytes(data)).page_size == page_size
    data[16] ^= 0xFF
    database = Database(bytes(data))
    assert (database.page_size, database.meta.txid) == (page_size, 7)
    assert dict(database.buckets()[b"key"].items()) == RECORDS


def test_case_11_big_endian_magic_reported() -> None:
    data = bytearray(tiny())
    for at in (16, 4096 + 16):
        data[at : at + 4] = data[at : at + 4][::-1]
    with pytest.raises(ByteOrderNotSupported, match="big-endian") as caught:
        Database(bytes(data))
    assert "s390x" in caught.value.hint


def test_one_valid_meta_counts_more_than_a_foreign_magic_in_the_other() -> None:
    data = bytearray(tiny())
    data[16:20] = data[16:20][::-1]
    database = Database(bytes(data))
    assert (database.meta.txid, database.meta_problems[1]) == (50, None)
    assert "big-endian" in str(database.meta_problems[0])


def test_case_12_leaf_with_overflow_4_records() -> None:
    values = [value for value in contents(tiny())[b"key"].values() if len(value) > 6000]
    assert len(values) == 1
    header = PageHeader.from_buffer_copy(tiny(), 5 * 4096)
    assert (header.id, header.count, header.overflow) == (5, 4, 1)


def test_case_14_empty_inline_bucket_32_bytes() -> None:
    data = make_database({b"alarm": {}})
    assert bytes.fromhex(vectors()["inline_empty_bucket_value"]["value_hex"]) in data
    assert contents(data) == {b"alarm": {}}


@pytest.mark.parametrize("count", [0, 1, 65_534, 65_535, 70_000])
def test_case_15_freelist_counts_around_the_limit(count: int) -> None:
    data = with_freelist(count)
    database = Database(data)
    assert len(database.free_pages()) == count
    assert list(check(data)) == []
    broken = bytearray(data)
    if count:
        end = len(broken) - (-len(freelist_page(count, 0)) % 1024)
        broken[end - 8 : end] = struct.pack("<Q", 2)  # a page that is in use
        problems = [problem.problem for problem in check(bytes(broken))]
        assert any("it is in use" in problem for problem in problems)
        assert any("neither in use nor in the freelist" in problem for problem in problems)


def freelist_page(count: int, page: int) -> bytes:
    ids = list(range(3, 3 + count))
    if count >= 0xFFFF:
        ids = [count, *ids]
    body = struct.pack(f"<{len(ids)}Q", *ids)
    overflow = -(-(HEADER_SIZE + len(body)) // 1024) - 1
    return bytes(PageHeader(page, PageFlag.FREELIST, min(count, 0xFFFF), overflow)) + body


def with_freelist(count: int) -> bytes:
    """A database of 1 KiB pages: an empty root on page 2, then `count` free pages, then the freelist naming them."""
    first = 3 + count
    body = freelist_page(count, first)
    body = body.ljust(-(-len(body) // 1024) * 1024, b"\0")
    meta = Meta(
        page_size=1024,
        root=PageId(2),
        sequence=0,
        freelist=first,
        high_water_mark=first + len(body) // 1024,
        txid=TxId(2),
    )
    root = bytes(PageHeader(2, PageFlag.LEAF, 0, 0)).ljust(1024, b"\0")
    return encode_meta(meta, 0) + encode_meta(meta, 1) + root + b"\xaa" * (1024 * count) + body


NAMED_FAULTS = {
    "leaf_flags_unknown": (12, "flags 0x0040"),
    "leaf_flags_two_bits": (12, "flags 0x0003"),
    "leaf_page_id_mismatch": (12, "says that it is page 13"),
    "leaf_page_zeroed": (12, "says that it is page 0"),
    "branch_self_cycle": (13, "reached twice"),
    "branch_duplicate_child": (11, "reached twice"),
    "branch_child_out_of_range": (1_000_000, "beyond the high-water mark"),
    "leaf_key_order_swapped": (12, "not in ascending order"),
    "leaf_element_pos_past_page": (12, "outside its page"),
}


@pytest.mark.parametrize("name", NAMED_FAULTS)
def test_case_16_damage_is_a_named_error_with_its_page(name: str) -> None:
    page, problem = NAMED_FAULTS[name]
    started = time.monotonic()
    with pytest.raises(CorruptPage, match=problem) as caught:
        contents(damaged(name)[:-32])
    assert caught.value.page == page
    found = list(check(damaged(name)[:-32]))
    assert any(finding.page == page and problem in finding.problem for finding in found)
    assert time.monotonic() - started < 1


def test_case_16_truncated_file() -> None:
    with pytest.raises(NotABoltFile, match="the file is cut: its meta counts 15 pages"):
        Database(damaged("truncated_to_8_pages")[:-32])


def test_case_17_inline_bucket_unsorted_keys_detected() -> None:
    data = bytearray(make_database({b"meta": {b"aaaa": b"1", b"bbbb": b"2"}}))
    at = data.index(b"aaaa1bbbb2")
    data[at : at + 10] = b"bbbb1aaaa2"
    with pytest.raises(CorruptPage, match="not in ascending order"):
        contents(bytes(data))
    (problem,) = check(bytes(data))
    assert problem.page == Database(bytes(data)).meta.root


def test_case_48_live_db_longer_than_hwm() -> None:
    assert contents(damaged("extra_bytes_after_hwm")) == contents(tiny())


def test_check_goes_on_after_the_first_fault() -> None:
    data = bytearray(make_database({b"key": RECORDS}))
    for page in (4, 7):
        data[page * 4096 + 8] = 0x40
    data[6 * 4096] = 99
    assert [problem.page for problem in check(bytes(data))] == [6, 4, 7]


def test_every_problem_names_the_way_to_its_page() -> None:
    (problem,) = check(damaged("leaf_flags_unknown")[:-32])
    assert problem.path == (13, 12)


def test_cycle_of_overflow_pages_ends(tmp_path: Path) -> None:
    """A branch whose children are all the same page, with the largest overflow there can be."""
    del tmp_path
    data = bytearray(make_database({b"key": RECORDS}))
    struct.pack_into("<I", data, 4 * 4096 + 12, 0xFFFF_FFFF)
    with pytest.raises(CorruptPage, match="overflow pages reach beyond"):
        contents(bytes(data))


def test_element_table_larger_than_its_page_is_refused() -> None:
    data = bytearray(make_database({b"key": RECORDS}))
    struct.pack_into("<H", data, 4 * 4096 + 10, 0xFFFF)
    with pytest.raises(CorruptPage, match="65535 elements do not fit"):
        contents(bytes(data))


def test_element_inside_the_element_table_is_refused() -> None:
    data = bytearray(make_database({b"key": RECORDS}))
    struct.pack_into("<I", data, 4 * 4096 + HEADER_SIZE + 4, ELEMENT_SIZE - 1)
    with pytest.raises(CorruptPage, match="outside its page"):
        contents(bytes(data))


def test_key_below_its_parents_key_is_refused() -> None:
    data = bytearray(make_database({b"key": RECORDS}))
    first_of_second_leaf = list(Database(bytes(data)).buckets()[b"key"].chunks(1))[1].key_pos[0]
    data[first_of_second_leaf] = ord("!")
    with pytest.raises(CorruptPage, match="not in ascending order"):
        contents(bytes(data))
