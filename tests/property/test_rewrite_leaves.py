"""Laws of rewriting, by leaf: carried over, taken apart, empty, untidy or inline, all mixed, against a plain model."""

from __future__ import annotations

import random
import struct
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaptool import wire
from snaptool.bolt import Chunk, check
from snaptool.etcd import (
    KeyValue,
    Revision,
    Snapshot,
    decode_key_value,
    encode_key_value,
    encode_revision_key,
    replace_value,
    snapshot,
)
from snaptool.files import Draft
from snaptool.operations import direct, pieces, reading_back
from snaptool.operations.crypto import SeededRandomness
from snaptool.operations.opening import open_snapshot
from snaptool.operations.plan import RewriteRequest, Undecryptable
from snaptool.operations.rewrite import RewriteReport, rewrite
from snaptool.operations.written import FileReport
from snaptool.providers.keyring import GroupResource, Keyring
from snaptool.providers.values import Values, same_plaintexts
from tests.support.bolt import branch, database_of, leaf, model_contents, rooted, with_trailer
from tests.unit.operations.builders import OBJECT, keyring, seal_cbc

OLD, NEW, LOST = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
READING, WRITING = keyring("aescbc", ("old", OLD)), keyring("secretbox", ("new", NEW))

Record = tuple[bytes, bytes]


def random_records(rng: random.Random, count: int) -> tuple[list[Record], dict[bytes, bytes], set[bytes]]:
    """Records of distinct keys, the plaintext of those that are sealed, and those that no key opens."""
    records, plaintexts, lost = [], {}, set()
    share = rng.choice((0.02, 0.3, 0.9))
    for main in range(2, 2 + count):
        text = OBJECT % rng.randbytes(rng.choice((0, 5, 90, 400, 3000))).hex().encode()
        revision = encode_revision_key(Revision(main, 0))
        sealed, is_lost = rng.random() < share, rng.random() < 0.1
        key = b"/registry/%s/ns/%d" % (b"secrets" if sealed else b"pods", main)
        value = seal_cbc("lost" if is_lost else "old", LOST if is_lost else OLD, text) if sealed else text
        stored = encode_key_value(KeyValue(key=key, create_revision=main, mod_revision=main, version=1, value=value))
        if sealed and not is_lost and rng.random() < 0.3:
            stored = replace_value(stored, b"another") + wire.encode_field(5, value)
        if sealed and is_lost:
            lost.add(revision)
        elif sealed:
            plaintexts[revision] = text
        records.append((revision, stored))
    return records, plaintexts, lost


def random_tree(rng: random.Random, records: list[Record]) -> tuple[list[bytes], int]:
    """Pages from 3 on: leaves with any number of records, some with garbage behind them, some empty; their branch."""
    if not records:
        return [leaf(3, [])], 3
    pages: list[bytes] = []
    children: list[tuple[bytes, int]] = []
    number, start = 3, 0
    while start < len(records):
        some = records[start : start + rng.randint(1, 6)]
        image = bytearray(leaf(number, some))
        end = 16 + 16 * len(some) + sum(len(key) + len(value) for key, value in some)
        if rng.random() < 0.3 and end < len(image):
            at = rng.randrange(end, len(image))
            image[at : at + 7] = b"GARBAGE"[: len(image) - at]
        children.append((some[0][0], number))
        pages.append(bytes(image))
        number, start = number + len(image) // 1024, start + len(some)
        if rng.random() < 0.2 and start < len(records):
            # Deleting everything in a leaf leaves it empty until somebody else has to write.
            children.append((some[-1][0] + b"\0", number))
            pages.append(leaf(number, []))
            number += 1
    pages.append(branch(number, children))
    return pages, number


def inline(records: list[Record]) -> bytes:
    whole = leaf(0, records)
    size = 16 + 16 * len(records) + sum(len(key) + len(value) for key, value in records)
    return struct.pack("<QQ", 0, 7) + whole[:8] + struct.pack("<HHI", 2, len(records), 0) + whole[16:size]


def source_of(rng: random.Random, records: list[Record]) -> bytes:
    meta = inline([(b"consistent_index", (7).to_bytes(8, "big"))])
    if sum(len(key) + len(value) for key, value in records) < 500 and rng.random() < 0.7:
        return with_trailer(database_of(leaf(2, [(b"key", inline(records)), (b"meta", meta)], flags=1)))
    pages, top = random_tree(rng, records)
    return with_trailer(database_of(leaf(2, [(b"key", rooted(top, 5)), (b"meta", meta)], flags=1), *pages))


def in_both_orders(source: Path, request: RewriteRequest, patch: pytest.MonkeyPatch) -> tuple[RewriteReport, bytes]:
    """Rewrite twice: planned and read back behind the writer, and one thing after the other. The bytes are the same.

    What was planned from sizes comes true, and the trailer is that of the bytes, whichever they were taken from.
    """
    original, files = direct._read_back, []

    def read_back(draft: Draft, writer: direct._Writer, follower: reading_back.Follower | None = None) -> FileReport:
        written = Snapshot(draft.read(0, draft.size)).bucket(b"key")
        is_inline, tidy = written is None or not written.root, writer.job.leaves.tidy
        if writer._forecast is not None and not is_inline and (writer.job.passing is None or 0 not in tidy):
            assert writer.is_as_forecast
        assert follower is None or direct.FOLLOWED_FROM == 0
        return original(draft, writer, follower)

    with patch.context() as more:
        more.setattr(direct, "_read_back", read_back)
        for followed_from in (0, 1 << 40):
            more.setattr(direct, "FOLLOWED_FROM", followed_from)
            target = source.with_name("new.db")
            with open_snapshot(source) as opened:
                report = rewrite(opened, target, request)
            files.append(target.read_bytes())
            target.unlink()
    assert files[0] == files[1]
    assert files[0][-32:] == sha256(files[0][:-32]).digest()
    return report, files[0]


def check_rewrite(seed: int) -> None:
    rng = random.Random(seed)
    records, plaintexts, lost = random_records(rng, rng.choice((0, 1, 2, 30, 80)))
    undecryptable = rng.choice((Undecryptable.KEEP, Undecryptable.DELETE))
    decrypt = rng.random() < 0.2
    of_source, of_target = (rng.choice((1, 3, 50_000)) for _ in range(2))
    writing = rng.choice((WRITING, keyring("aescbc", ("new", NEW)), keyring("aesgcm", ("new", NEW))))
    request = RewriteRequest(
        reading=READING,
        writing=writing,
        decrypt=decrypt,
        undecryptable=undecryptable,
        randomness=SeededRandomness(b"leaves"),
    )
    opened_twice = 0

    def counting(old: Values, rows: memoryview, new: Values, others: memoryview) -> int:
        nonlocal opened_twice
        opened_twice += len(rows)
        return same_plaintexts(old, rows, new, others)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading_back, "same_plaintexts", counting)
        patch.setattr(reading_back, "Chunk", lambda *_: Chunk(of_target))
        patch.setattr(snapshot, "Chunk", lambda: Chunk(of_source))
        patch.setattr(pieces, "Chunk", lambda *sizes: Chunk(of_source if len(sizes) > 1 else 0))
        patch.setattr(pieces, "_MOST", rng.choice((1, 3, 512)))
        patch.setattr(reading_back, "_WINDOW", rng.choice((1024, 8 << 20)))
        source = Path(folder) / "source.db"
        source.write_bytes(source_of(rng, records))
        assert [*model_contents(source.read_bytes(), 1024)[b"key"]] == records
        report, written = in_both_orders(source, request, patch)
        assert opened_twice == 2 * len(plaintexts), "every value is opened in both files, in each order"
        copied, copy = in_both_orders(source, RewriteRequest(reading=None, writing=Keyring(())), patch)
    assert copied.verified
    assert list(check(copy)) == []
    assert [*model_contents(copy, 1024)[b"key"]] == records
    assert b"GARB" not in copy
    assert report.verified
    assert list(check(written)) == []
    found = model_contents(written, 1024)[b"key"]
    gone = lost if undecryptable is Undecryptable.DELETE else set()
    if records and records[-1][0] in gone:
        # The revision must not fall: a tombstone holds it.
        tombstone, stored = found.pop()
        assert tombstone == records[-1][0] + b"t"
        assert decode_key_value(stored).version == 0
    assert [key for key, _ in found] == [key for key, _ in records if key not in gone]
    before = dict(records)
    chain = writing.chain_for(GroupResource("secrets", ""))
    for key, stored in found:
        if key not in plaintexts:
            assert stored == before[key]
            continue
        one, other = decode_key_value(before[key]), decode_key_value(stored)
        assert stored == replace_value(before[key], other.value)
        value = other.value if decrypt else chain.unseal(other.value, one.key).plaintext
        assert value == plaintexts[key]
        assert (b":v1:new:" in other.value[:32]) != decrypt
    assert b"GARB" not in written
    assert written.count(b":v1:old:") == 0
    assert written.count(b":v1:lost:") == len(lost - gone)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32))
def test_leaves_of_every_kind_come_out_as_the_model_says(seed: int) -> None:
    check_rewrite(seed)


@pytest.mark.soak
@settings(max_examples=2000, deadline=None)
@given(st.integers(0, 1 << 32))
def test_leaves_of_every_kind_come_out_as_the_model_says_for_long(seed: int) -> None:
    check_rewrite(seed)
