"""Conformance cases by number, docs/formats/bolt.md; every damaged variant of the vectors."""

from __future__ import annotations

import struct
import time

import pytest

from snaptool.bolt import ByteOrderNotSupported, Chunk, CorruptPage, Database, NotABoltFile, check
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
from tests.support.bolt import (
    TINY,
    branch,
    contents,
    damaged,
    database_of,
    leaf,
    make_database,
    model_contents,
    mutations,
    page,
    rooted,
    tiny,
    vectors,
)

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
    assert set(database.free_pages()) == set(range(2, database.high_water_mark)) - used
    assert list(check(tiny(name))) == []
    for number in (0, 1, database.high_water_mark - 1):
        assert database.page_bytes(number) == tiny(name)[4096 * number : 4096 * (number + 1)]


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


def test_freelist_that_names_a_page_twice_or_one_that_is_not_there_is_found() -> None:
    data = bytearray(with_freelist(4))
    first = len(data) - 1024 + HEADER_SIZE
    struct.pack_into("<4Q", data, first, 3, 3, 1, 1000)
    assert [(problem.page, problem.problem) for problem in check(bytes(data))] == [
        (7, "the freelist names page 1, which cannot be free"),
        (7, "the freelist names page 1000, which cannot be free"),
        (3, "the freelist names it twice"),
        (4, "it is neither in use nor in the freelist"),
        (5, "it is neither in use nor in the freelist"),
        (6, "it is neither in use nor in the freelist"),
    ]


@pytest.mark.parametrize(
    ("at", "piece", "problem"),
    [
        (0, b"\x08", "its header is not that of a freelist page"),
        (8, b"\x02", "its header is not that of a freelist page"),
        (12, b"\x01", "its header is not that of a freelist page"),
        (10, b"\xf0\x00", "its 240 ids do not fit into it"),
        (10, b"\xff\xff\xff\xff\xff\xff" + b"\xff" * 8, "its header is not that of a freelist page"),
        (10, b"\xff\xff\0\0\0\0" + b"\xff" * 8, f"its {2**64 - 1} ids do not fit into it"),
    ],
)
def test_broken_freelist_page_is_found_and_does_not_hinder_reading(at: int, piece: bytes, problem: str) -> None:
    data = bytearray(with_freelist(4))
    start = len(data) - 1024 + at
    data[start : start + len(piece)] = piece
    assert problem in [found.problem for found in check(bytes(data))]
    assert contents(bytes(data)) == {}


def test_freelist_page_that_is_part_of_a_tree_is_found() -> None:
    data = database_of(leaf(2, [], flags=1), freelist=2)
    assert "its header is not that of a freelist page" in [found.problem for found in check(data)]
    overlapped = database_of(page(2, 0x10, [], b"", page_size=1024), leaf(3, []), root=3, freelist=2)
    grown = bytearray(overlapped)
    grown[2 * 1024 + 12] = 1
    assert (3, "it holds the freelist and is part of a tree too") in [
        (found.page, found.problem) for found in check(bytes(grown))
    ]


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


ANOTHER_META = {"meta0_checksum_flip", "meta1_checksum_flip", "meta0_magic_broken"}
REFUSED = {"both_meta_checksum_flip", "both_meta_checksum_zero", "truncated_to_8_pages"}
SAME_CONTENTS = {"trailer_flip", "trailer_missing", "extra_bytes_after_hwm"}


def test_every_damaged_variant_of_the_vectors_is_answered_in_time() -> None:
    assert ANOTHER_META | REFUSED | SAME_CONTENTS | set(NAMED_FAULTS) == set(mutations())
    for name in mutations():
        data = damaged(name) if name == "trailer_missing" else damaged(name)[:-32]
        started = time.monotonic()
        try:
            assert contents(data) == contents(tiny())
        except NotABoltFile:
            assert name in REFUSED
        except CorruptPage:
            assert name in NAMED_FAULTS
        else:
            assert name in ANOTHER_META | SAME_CONTENTS
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
    for number in (4, 7):
        data[number * 4096 + 8] = 0x40
    data[6 * 4096] = 99
    assert [problem.page for problem in check(bytes(data))] == [4, 6, 7]


def test_every_problem_names_the_way_to_its_page() -> None:
    (problem,) = check(damaged("leaf_flags_unknown")[:-32])
    assert problem.path == (13, 12)


def test_overflow_beyond_the_file_is_refused() -> None:
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
    leaves = Database(bytes(data)).buckets()[b"key"].leaves(None, Chunk(1))
    first_of_each = [chunk.key_at[0] for chunk in leaves]
    data[first_of_each[1]] = ord("!")
    with pytest.raises(CorruptPage, match="not in ascending order"):
        contents(bytes(data))


@pytest.mark.parametrize("name", TINY)
def test_records_are_those_of_the_plain_model(name: str) -> None:
    expected = model_contents(tiny(name))
    assert {name: list(records.items()) for name, records in contents(tiny(name)).items()} == expected
    for bucket in Database(tiny(name)).buckets().values():
        assert [bucket.get(key) for key, _ in expected[bucket.name]] == [value for _, value in expected[bucket.name]]
        assert bucket.get(b"not there") is None


def test_real_metas_and_bucket_headers_are_those_of_the_vectors() -> None:
    facts = vectors()
    for number in (0, 1):
        data = tiny()[4096 * number : 4096 * (number + 1)]
        assert data[:80].hex() == facts["meta_page"][f"page{number}_first_80_bytes_hex"]
        assert encode_meta(decode_meta(data), number) == data
    for case in (facts["inline_bucket_value"], facts["rooted_bucket_value"]):
        value = bytes.fromhex(case["value_hex"])
        assert value in tiny()
    assert [(key.decode(), value.hex()) for key, value in contents(tiny())[b"meta"].items()] == [
        tuple(pair) for pair in facts["inline_bucket_value"]["decoded"]
    ]


def metas(first: Meta, second: Meta) -> bytes:
    body = leaf(2, [(b"a", rooted(3))], flags=1) + leaf(3, [(b"k", b"a")])
    body += leaf(4, [(b"a", rooted(5))], flags=1) + leaf(5, [(b"k", b"b")])
    return encode_meta(first, 0) + encode_meta(second, 1) + body


@pytest.mark.parametrize(("txids", "value"), [((9, 8), b"a"), ((8, 9), b"b"), ((8, 8), b"a"), ((1, 2**64 - 1), b"b")])
def test_the_valid_meta_with_the_higher_transaction_counts(txids: tuple[int, int], value: bytes) -> None:
    first, second = (
        Meta(page_size=1024, root=PageId(root), sequence=0, freelist=2**64 - 1, high_water_mark=6, txid=TxId(txid))
        for root, txid in zip((2, 4), txids, strict=True)
    )
    data = bytearray(metas(first, second))
    assert contents(bytes(data)) == {b"a": {b"k": value}}
    winner = 0 if value == b"a" else 1
    data[1024 * winner + 60] ^= 1
    assert contents(bytes(data)) == {b"a": {b"k": b"b" if value == b"a" else b"a"}}


def test_second_meta_with_another_page_size_than_its_place_is_not_used() -> None:
    data = bytearray(make_database({b"key": RECORDS}, page_size=1024))
    data[2048 : 2048 + 80] = make_database({b"key": {}}, page_size=4096)[:80]
    data[16] ^= 1
    assert Database(bytes(data)).page_size == 1024
    data[1024 + 16] ^= 1
    with pytest.raises(NotABoltFile, match="page 1: it claims a page size of 4096"):
        Database(bytes(data))


def test_pages_of_16_mib_are_read() -> None:
    size = 16 << 20
    data = bytearray(make_database({b"key": {b"k": b"v" * 5_000_000}}, page_size=size))
    assert contents(bytes(data)) == {b"key": {b"k": b"v" * 5_000_000}}
    data[16] = 0
    assert Database(bytes(data)).page_size == size


def test_every_cut_file_is_refused() -> None:
    for cut in [*range(200), *range(4000, 4300), *range(8000, len(tiny()), 97), len(tiny()) - 1]:
        with pytest.raises(NotABoltFile):
            Database(tiny()[:cut])


@pytest.mark.parametrize("root", [0, 1, 15, 2**63, 2**64 - 1])
def test_root_that_is_no_page_of_the_tree_is_refused_and_found(root: int) -> None:
    meta = Meta(page_size=4096, root=PageId(root), sequence=0, freelist=2**64 - 1, high_water_mark=15, txid=TxId(2))
    data = encode_meta(meta, 0) + encode_meta(meta, 1) + tiny()[8192:]
    with pytest.raises(CorruptPage, match="as the root"):
        Database(data)
    assert [problem.page for problem in check(data)] == [root]


def test_empty_leaves_inside_a_tree_are_stepped_over() -> None:
    data = database_of(
        leaf(2, [(b"key", rooted(3, 7))], flags=1),
        branch(3, [(b"a", 4), (b"f", 5), (b"k", 6), (b"p", 7), (b"x", 8)]),
        leaf(4, []),
        leaf(5, [(b"f", b"1"), (b"g", b"2")]),
        leaf(6, []),
        leaf(7, [(b"q", b"3")]),
        leaf(8, []),
    )
    assert contents(data) == {b"key": {b"f": b"1", b"g": b"2", b"q": b"3"}}
    assert Database(data).buckets()[b"key"].sequence == 7
    for chunk_size in (1, 2, 100):
        found = [
            (chunk.leaf_page[leaf], chunk.leaf_start[leaf + 1] - chunk.leaf_start[leaf])
            for chunk in Database(data).buckets()[b"key"].leaves(None, Chunk(chunk_size))
            for leaf in range(chunk.leaves)
        ]
        assert found == [(4, 0), (5, 2), (6, 0), (7, 1), (8, 0)]
    assert list(check(data)) == []


def test_leaves_at_different_depths_keep_their_order() -> None:
    data = database_of(
        leaf(2, [(b"key", rooted(3))], flags=1),
        branch(3, [(b"a", 4), (b"c", 5), (b"g", 6)]),
        leaf(4, [(b"a", b"1"), (b"b", b"2")]),
        branch(5, [(b"c", 7), (b"e", 8)]),
        leaf(6, [(b"g", b"6")]),
        leaf(7, [(b"c", b"3")]),
        leaf(8, [(b"e", b"4"), (b"f", b"5")]),
    )
    assert "".join(value.decode() for value in contents(data)[b"key"].values()) == "123456"
    assert list(check(data)) == []


def three_leaves(first: list[bytes], second: list[bytes], third: list[bytes], *, keys: bytes = b"adg") -> bytes:
    return database_of(
        leaf(2, [(b"key", rooted(3))], flags=1),
        branch(3, [(keys[index : index + 1], 4 + index) for index in range(3)]),
        *(leaf(4 + index, [(key, b"") for key in chosen]) for index, chosen in enumerate((first, second, third))),
    )


@pytest.mark.parametrize(
    ("leaves", "wrong"),
    [
        (([b"a", b"b"], [b"d"], [b"g"]), None),
        (([b"a", b"cz"], [b"d"], [b"g", b"z"]), None),
        (([b"a", b"d"], [b"e"], [b"g"]), 4),  # may stand only in the next leaf
        (([b"a", b"e"], [b"f"], [b"g"]), 4),  # in order, but lookups would miss it
        (([b"a"], [b"c"], [b"g"]), 5),  # below the key of its leaf
        (([b"a"], [b"d", b"d"], [b"g"]), 5),
        (([b"a", b"a\0", b"a"], [b"d"], [b"g"]), 4),
        (([b"a"], [], [b"f"]), 6),
        (([b"a", b"h"], [], []), 4),  # nothing follows, and still it is beyond the limit
    ],
)
@pytest.mark.parametrize("chunk_size", [1, 100])
def test_keys_stay_inside_the_limits_of_their_leaf(
    leaves: tuple[list[bytes], list[bytes], list[bytes]], wrong: int | None, chunk_size: int
) -> None:
    data = three_leaves(*leaves)
    bucket = Database(data).buckets()[b"key"]
    if wrong is None:
        assert sum(len(chunk) for chunk in bucket.leaves(None, Chunk(chunk_size))) == sum(map(len, leaves))
        assert list(check(data)) == []
        return
    with pytest.raises(CorruptPage, match="not in ascending order") as caught:
        list(bucket.leaves(None, Chunk(chunk_size)))
    assert (caught.value.page, caught.value.path) == (wrong, (3, wrong))
    assert wrong in [problem.page for problem in check(data)]


@pytest.mark.parametrize("chunk_size", [1, 100])
def test_limits_that_are_prefixes_of_keys_hold(chunk_size: int) -> None:
    data = database_of(
        leaf(2, [(b"key", rooted(3))], flags=1),
        branch(3, [(b"a", 4), (b"ab\0", 5), (b"abcdef", 6), (b"b", 7)]),
        leaf(4, [(b"a", b""), (b"ab", b"")]),
        leaf(5, [(b"ab\0", b""), (b"abcde", b"")]),
        leaf(6, [(b"abcdef", b""), (b"abcdefg" * 9, b"")]),
        leaf(7, [(b"b", b"")]),
    )
    assert sum(len(chunk) for chunk in Database(data).buckets()[b"key"].leaves(None, Chunk(chunk_size))) == 7
    assert list(check(data)) == []


def test_branch_keys_are_ordered_too() -> None:
    with pytest.raises(CorruptPage, match="page 3: its keys are not in ascending order"):
        contents(three_leaves([], [], [], keys=b"aga"))


def test_key_between_an_ancestors_limit_and_the_next_branchs_first_key_is_refused() -> None:
    """bbolt hands limits down from the ancestors; comparing neighbours alone would let this pass."""
    data = database_of(
        leaf(2, [(b"key", rooted(3))], flags=1),
        branch(3, [(b"a", 4), (b"k", 5)]),
        branch(4, [(b"a", 6), (b"c", 7)]),
        branch(5, [(b"m", 8), (b"o", 9)]),
        leaf(6, [(b"a", b"")]),
        leaf(7, [(b"c", b""), (b"l", b"")]),
        leaf(8, [(b"m", b"")]),
        leaf(9, [(b"o", b"")]),
    )
    with pytest.raises(CorruptPage) as caught:
        contents(data)
    assert caught.value.path == (3, 4, 7)


def in_one_leaf(*records: tuple[bytes, bytes], flags: int = 0) -> bytes:
    return database_of(leaf(2, [(b"key", rooted(3))], flags=1), leaf(3, list(records), flags=flags))


def patched(data: bytes, offset: int, form: str, *numbers: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, offset, *numbers)
    return bytes(changed)


FIRST_ELEMENT = 3 * 1024 + HEADER_SIZE
PLAIN = in_one_leaf((b"a", b"1"), (b"b", b"2"))
STRANGE = {
    "element_behind_the_page": (patched(PLAIN, FIRST_ELEMENT + 4, "<I", 1024), "outside its page"),
    "element_far_behind_the_file": (patched(PLAIN, FIRST_ELEMENT + 4, "<III", *[2**32 - 1] * 3), "outside its page"),
    "element_in_the_table": (patched(PLAIN, FIRST_ELEMENT + 4, "<I", 16), "outside its page"),
    "value_over_the_end": (patched(PLAIN, FIRST_ELEMENT + 28, "<I", 1024), "outside its page"),
    "empty_key": (patched(PLAIN, FIRST_ELEMENT + 8, "<II", 0, 2), "empty key"),
    "bucket_in_a_bucket": (in_one_leaf((b"a", rooted(3)), flags=1), "bucket inside a bucket"),
    "unknown_element_flags": (patched(PLAIN, FIRST_ELEMENT, "<I", 8), r"element flags 0x8"),
    "record_in_the_root": (database_of(leaf(2, [(b"a", b"1")])), "not a bucket"),
    "bucket_header_cut": (database_of(leaf(2, [(b"a", b"1" * 15)], flags=1)), "header of bucket b'a' is cut off"),
    "inline_bucket_cut": (database_of(leaf(2, [(b"a", bytes(31))], flags=1)), "inline bucket b'a' is cut off"),
    "inline_bucket_not_a_leaf": (database_of(leaf(2, [(b"a", bytes(32))], flags=1)), "b'a' is not a leaf"),
    "inline_elements_cut": (
        database_of(leaf(2, [(b"a", bytes(16) + struct.pack("<QHHI", 0, 2, 1, 0))], flags=1)),
        "1 elements of inline bucket b'a' do not fit",
    ),
    "bucket_root_is_a_meta": (database_of(leaf(2, [(b"a", rooted(1))], flags=1)), "this is a meta page"),
    "bucket_root_is_the_root": (database_of(leaf(2, [(b"a", rooted(2))], flags=1)), "reached twice"),
    "bucket_root_beyond_everything": (
        database_of(leaf(2, [(b"a", rooted(2**64 - 1))], flags=1)),
        "beyond the high-water mark",
    ),
    "bucket_root_is_the_high_water_mark": (
        database_of(leaf(2, [(b"a", rooted(3))], flags=1)),
        "beyond the high-water mark of 3 pages",
    ),
    "overflow_up_to_the_high_water_mark": (
        patched(database_of(leaf(2, [(b"a", rooted(3))], flags=1), leaf(3, [])), 3 * 1024 + 12, "<I", 1),
        "its 1 overflow pages reach beyond",
    ),
    "two_buckets_one_tree": (
        database_of(leaf(2, [(b"a", rooted(3)), (b"b", rooted(3))], flags=1), leaf(3, [])),
        "reached twice",
    ),
    "branch_key_over_the_end": (
        patched(
            database_of(
                leaf(2, [(b"a", rooted(3))], flags=1), branch(3, [(b"a", 4), (b"b", 5)]), leaf(4, []), leaf(5, [])
            ),
            FIRST_ELEMENT + 16 + 4,
            "<I",
            1024,
        ),
        "an element points outside its page",
    ),
    "branch_without_children": (
        database_of(leaf(2, [(b"a", rooted(3))], flags=1), branch(3, [])),
        "a branch without children",
    ),
    "freelist_in_the_tree": (
        database_of(leaf(2, [(b"a", rooted(3))], flags=1), page(3, 0x10, [], b"")),
        "flags 0x0010",
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_page_is_refused_and_found(name: str) -> None:
    data, problem = STRANGE[name]
    with pytest.raises(CorruptPage, match=problem) as caught:
        contents(data)
    found = {found.problem: found for found in check(data)}
    assert caught.value.problem in found
    assert (found[caught.value.problem].page, found[caught.value.problem].path) == (
        caught.value.page,
        caught.value.path,
    )


def test_tree_deeper_than_any_real_one_is_refused() -> None:
    def chain(depth: int) -> bytes:
        steps = [branch(3 + step, [(b"a", 4 + step)]) for step in range(depth - 1)]
        return database_of(leaf(2, [(b"key", rooted(3))], flags=1), *steps, leaf(2 + depth, [(b"a", b"1")]))

    assert contents(chain(64)) == {b"key": {b"a": b"1"}}
    with pytest.raises(CorruptPage, match="deeper than 64 levels"):
        contents(chain(65))
    assert "deeper than 64 levels" in next(check(chain(65))).problem


def test_records_that_overlap_are_refused_before_they_grow() -> None:
    """A page of 2 MB whose 60,000 records each claim a megabyte."""
    count, room = 60_000, 1_000_000
    elements = [
        struct.pack("<IIII", 0, 16 * (count - index) + index, 32_768, room - 32_768 - index) for index in range(count)
    ]
    data = database_of(leaf(2, [(b"key", rooted(3))], flags=1), page(3, 2, elements, bytes(room)))
    started = time.monotonic()
    with pytest.raises(CorruptPage, match="page 3: its elements overlap"):
        contents(data)
    assert "its elements overlap" in [problem.problem for problem in check(data)]
    assert time.monotonic() - started < 1


def test_key_longer_than_bolt_allows_is_refused() -> None:
    key = b"k" * 32_768
    data = database_of(leaf(2, [(b"key", rooted(3))], flags=1), leaf(3, [(key, b"")]))
    assert contents(data) == {b"key": {key: b""}}
    data = database_of(leaf(2, [(b"key", rooted(3))], flags=1), leaf(3, [(key + b"k", b"")]))
    with pytest.raises(CorruptPage, match="a key has 32769 bytes"):
        contents(data)


def test_branches_with_more_children_than_the_file_has_pages_cost_no_more_than_their_elements() -> None:
    pages = 65
    # Each of them alone could be right.
    children = [struct.pack("<IIQ", 16 * (1500 - index), 0, index) for index in range(1500)]
    tops = [3 + 1 + index * pages for index in range(30)]
    data = database_of(
        leaf(2, [(b"key", rooted(3))], flags=1),
        branch(3, [(b"%02d" % index, top) for index, top in enumerate(tops)]),
        *(page(top, 1, children, b"").ljust(pages * 1024, b"\0") for top in tops),
    )
    started = time.monotonic()
    with pytest.raises(CorruptPage, match="not in ascending order"):
        contents(data)
    assert any("reached twice" in problem.problem or "and more" in problem.problem for problem in check(data))
    assert time.monotonic() - started < 5


def test_more_buckets_than_anyone_makes_are_refused() -> None:
    def many(count: int) -> bytes:
        empty = bytes(16) + struct.pack("<QHHI", 0, 2, 0, 0)
        return database_of(leaf(2, [(b"%04d" % index, empty) for index in range(count)], flags=1))

    assert len(Database(many(1000)).buckets()) == 1000
    with pytest.raises(CorruptPage, match="the root holds 1001 buckets"):
        Database(many(1001)).buckets()
    assert [problem.page for problem in check(many(1001))] == [2]


def test_check_lists_no_more_than_a_reader_can_bear_and_says_so() -> None:
    wrong = leaf(3, [(b"k", b"")] * 3000)
    found = list(check(database_of(leaf(2, [(b"key", rooted(3))], flags=1), wrong)))
    assert len(found) == 1001
    assert found[-1].problem == "and more problems from here on, which are not listed"


def test_inline_bucket_at_any_offset_is_read() -> None:
    for shift in range(9):
        image = leaf(0, [(b"key", b"value"), (b"kez", b"")])[: 16 + 32 + 11]
        data = database_of(leaf(2, [(b"b" * (shift + 1), bytes(8) + struct.pack("<Q", 5) + image)], flags=1))
        bucket = Database(data).buckets()[b"b" * (shift + 1)]
        assert (bucket.sequence, bucket.root) == (5, 0)
        assert list(bucket.items()) == [(b"key", b"value"), (b"kez", b"")]
        assert [(chunk.leaves, chunk.leaf_page[0]) for chunk in bucket.leaves()] == [(1, 0)]
        assert list(check(data)) == []


def test_chunks_number_records_and_leaves_of_the_whole_bucket() -> None:
    data = make_database({b"key": RECORDS})
    database = Database(data)
    records = leaves = 0
    for chunk in database.buckets()[b"key"].leaves(None, Chunk(10)):
        assert (chunk.first_record, chunk.first_leaf) == (records, leaves)
        assert (chunk.leaf_start[0], chunk.leaf_start[chunk.leaves]) == (0, len(chunk))
        assert chunk.key(database.view, 0) == b"%06d" % records
        records, leaves = records + len(chunk), leaves + chunk.leaves
    assert records == len(RECORDS)


def test_memory_can_be_let_go_of_while_reading_and_checking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snaptool.bolt.reader.LET_GO", 1)
    data = make_database({b"key": RECORDS, b"meta": {b"a": b"b"}})
    calls: list[int] = []
    chunks = len(list(Database(data, lambda: calls.append(1)).buckets()[b"key"].leaves(None, Chunk(10))))
    assert len(calls) >= chunks > 10
    calls.clear()
    assert list(check(data, lambda: calls.append(1))) == []
    assert calls


def test_branches_that_lead_by_other_keys_than_the_first_ones_are_seen_at_every_level() -> None:
    """Such a tree is read well; but bolt would not find the entry of a leaf that it replaces."""
    records = {b"%05d" % number + b"k" * 200: bytes(600) for number in range(24)}
    data = make_database({b"key": records}, page_size=1024)

    def are_found_by_first_keys(data: bytes) -> bool:
        database = Database(data)
        walk = database.new_walk()
        assert sum(chunk.records for chunk in database.buckets()[b"key"].leaves(walk)) == len(records)
        return walk.found_by_first_keys()

    assert are_found_by_first_keys(data)
    pages = [PageHeader.from_buffer_copy(data, at) for at in range(0, len(data), 1024)]
    upper, refused = 0, 0
    for header in pages[3:]:
        if header.flags != PageFlag.BRANCH:
            continue
        for number in range(header.count):
            at = 1024 * header.id + HEADER_SIZE + ELEMENT_SIZE * number
            position, size, child = struct.unpack_from("<IIQ", data, at)
            shorter = bytearray(data)
            shorter[at + 4 : at + 8] = struct.pack("<I", size - 1)
            try:  # not where it is the first key of a branch: that one may not be below what leads there
                assert contents(bytes(shorter)) == contents(data)
            except CorruptPage:
                assert number == 0
                refused += 1
                continue
            upper += pages[child].flags == PageFlag.BRANCH
            assert not are_found_by_first_keys(bytes(shorter))
            assert position
    assert upper > 1
    assert refused > 1
