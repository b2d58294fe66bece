"""Reading back: whatever happens to the file between writing and reading, nothing wrong gets a name.

A file that has leaves of every kind is written once, and then damaged again and again before it is read back: single
bytes, places that matter, whole pages. Every time it is refused. The one exception is stated below, and harms nobody.
"""

from __future__ import annotations

import errno
import os
import random
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from snaptool import wire
from snaptool.bolt import Bucket, BucketWriter, Database, TxId, check
from snaptool.bolt.layout import PageFlag, decode_meta, encode_meta
from snaptool.errors import FormatError, OutputError
from snaptool.etcd import KeyValue, Revision, Snapshot, Trailer, encode_key_value, encode_revision_key
from snaptool.files import Draft
from snaptool.operations import direct, reading_back
from snaptool.operations.crypto import SeededRandomness
from snaptool.operations.direct import _Writer
from snaptool.operations.opening import open_snapshot
from snaptool.operations.pieces import Part
from snaptool.operations.plan import COPY, DROP, REBUILD, REPLACE, RESEAL, RewriteRequest, Undecryptable
from snaptool.operations.rewrite import RewriteReport, rewrite
from snaptool.operations.written import FileReport, ReadBackFailed
from snaptool.providers.values import Sealed
from snaptool.sources import Source, SourceChanged
from tests.support.cli import Snaptool
from tests.support.history import make_snapshot
from tests.support.snapshots import NEW_SECRET, config
from tests.unit.operations.builders import OBJECT, keyring, seal_cbc

PAGE = 1024
OLD, NEW, LOST = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
READING, WRITING = keyring("aescbc", ("old", OLD)), keyring("secretbox", ("new", NEW))
SEALED, LEASED, TWICE, LONG = {13, 25, 26}, 26, 27, 30

Record = tuple[bytes, bytes]


def put(main: int, key: bytes, value: bytes, lease: int = 0) -> Record:
    record = KeyValue(key=key, create_revision=main, mod_revision=main, version=1, value=value, lease=lease)
    return encode_revision_key(Revision(main, 0)), encode_key_value(record)


def source_records(*, drops: bool) -> list[Record]:
    """Leaves of 1 KiB: some without Secrets, some with; a record of two value fields, a long one, lost ones."""
    records = []
    for main in range(2, 42):
        key = b"/registry/secrets/ns/%d" % main
        if main in SEALED:
            lease = 77 if main == LEASED else 0
            records.append(put(main, key, seal_cbc("old", OLD, OBJECT % (b"%d" % main * 40)), lease))
        elif main == TWICE:
            first, second = (seal_cbc("old", OLD, OBJECT % text) for text in (b"does not count", b"counts"))
            revision, stored = put(main, key, first)
            records.append((revision, stored + wire.encode_field(5, second)))
        elif main in {33, 41} and drops:
            records.append(put(main, key, seal_cbc("lost", LOST, OBJECT % b"gone")))
        elif main == 20:
            revision = encode_revision_key(Revision(main, 0), tombstone=True)
            records.append((revision, encode_key_value(KeyValue(key=b"/registry/pods/ns/7"))))
        else:
            times = 1500 if main == LONG else 20 + main
            records.append(put(main, b"/registry/pods/ns/%d" % main, OBJECT % (b"%d" % main * times)))
    return records


BUCKETS = {
    b"lease": {number.to_bytes(8, "big"): wire.encode_field(1, number) * 5 for number in range(1, 60)},
    b"meta": {b"consistent_index": (7).to_bytes(8, "big"), b"term": (2).to_bytes(8, "big")},
}


def source_file(*, drops: bool) -> bytes:
    return make_snapshot(source_records(drops=drops), BUCKETS, page_size=PAGE)


def leaf_pages(bucket: Bucket) -> list[int]:
    return [page for chunk in bucket.leaves() for page in chunk.leaf_page[: chunk.leaves]]


class Image:
    """The written file as bytes that may be changed, and where what is in it."""

    def __init__(self, source: bytes, written: bytes) -> None:
        self.data = bytearray(written)
        buckets = Database(written).buckets()
        self.leaves = leaf_pages(buckets[b"key"])
        self.top = buckets[b"key"].root
        self.lease_leaves = leaf_pages(buckets[b"lease"])
        self.root = Database(written).meta.root
        tails = {source[at + 8 : at + PAGE] for at in range(0, len(source), PAGE)}
        self.carried = [page for page in self.leaves if written[page * PAGE + 8 : (page + 1) * PAGE] in tails]

    def header(self, page: int) -> tuple[int, int, int, int]:
        """Id, flags, count, overflow."""
        found: tuple[int, int, int, int] = struct.unpack_from("<QHHI", self.data, page * PAGE)
        return found

    def element(self, page: int, number: int) -> int:
        return page * PAGE + 16 + 16 * number

    def record(self, page: int, number: int) -> tuple[int, int, int, int]:
        """Where the element is, where key and value begin, and where the value ends."""
        at = self.element(page, number)
        _, pos, key, value = struct.unpack_from("<IIII", self.data, at)
        return at, at + pos, at + pos + key, at + pos + key + value

    def find(self, main: int) -> tuple[int, int]:
        """Page and number of the record of a revision."""
        for page in self.leaves:
            for number in range(self.header(page)[2]):
                _, key, _, _ = self.record(page, number)
                if int.from_bytes(self.data[key : key + 8], "big") == main:
                    return page, number
        raise AssertionError(main)

    def add(self, at: int, number: int, size: int = 4) -> None:
        """Add to a number of the format."""
        value = int.from_bytes(self.data[at : at + size], "little") + number
        self.data[at : at + size] = value.to_bytes(size, "little")

    def flip(self, at: int) -> None:
        self.data[at] ^= 1

    def content_end(self, page: int) -> int:
        """Where what a branch or a leaf needs ends."""
        _, flags, count, _ = self.header(page)
        if flags == PageFlag.BRANCH:
            sizes = [struct.unpack_from("<I", self.data, self.element(page, n) + 4)[0] for n in range(count)]
        else:
            sizes = [sum(struct.unpack_from("<II", self.data, self.element(page, n) + 8)) for n in range(count)]
        return self.element(page, count) + int(sum(sizes))

    def slack(self, pages: Iterable[int]) -> set[int]:
        return {at for page in pages for at in range(self.content_end(page), (page + self.header(page)[3] + 1) * PAGE)}

    def tree_pages(self) -> list[int]:
        found, page = [], 3
        while page < len(self.data) // PAGE:
            found.append(page)
            page += self.header(page)[3] + 1
        return found

    def set_metas(self, first: bytes, second: bytes) -> None:
        self.data[: 2 * PAGE] = first + second


ReadBack = Callable[[bytes], FileReport]
Examine = Callable[[Image, _Writer, ReadBack], None]


@pytest.fixture(params=[False, True], ids=["all-stay", "some-go"])
def drops(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def examined(folder: Path, monkeypatch: pytest.MonkeyPatch, examine: Examine, *, drops: bool) -> RewriteReport:
    """Rewrite, and let `examine` read other bytes back as often as it likes before it is done for good."""
    source = source_file(drops=drops)
    (folder / "source.db").write_bytes(source)
    original = direct._read_back

    def instead(draft: Draft, writer: _Writer, follower: None) -> FileReport:
        assert follower is None, "small files are read back afterwards"
        written = draft.read(0, draft.size)

        def restore(data: bytes) -> None:
            draft.flush()
            os.ftruncate(draft._fd, len(data))
            os.pwrite(draft._fd, data, 0)
            draft.size = len(data)

        def read_back(data: bytes) -> FileReport:
            restore(data)
            try:
                return original(draft, writer)
            finally:
                restore(written)

        examine(Image(source, written), writer, read_back)
        return original(draft, writer)

    monkeypatch.setattr(direct, "_read_back", instead)
    request = RewriteRequest(
        reading=READING,
        writing=WRITING,
        undecryptable=Undecryptable.DELETE if drops else Undecryptable.STOP,
        randomness=SeededRandomness(b"read back"),
    )
    with open_snapshot(folder / "source.db") as opened:
        return rewrite(opened, folder / "new.db", request)


def refusal(read_back: ReadBack, data: bytes) -> str | None:
    """Read other bytes back; what is said against them."""
    try:
        read_back(data)
    except FormatError as error:
        return f"broken: {error}"
    except ReadBackFailed as error:
        return str(error)
    return None


def test_the_file_has_leaves_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, drops: bool) -> None:
    def examine(image: Image, writer: _Writer, read_back: ReadBack) -> None:
        assert read_back(bytes(image.data)) == read_back(bytes(image.data))
        assert 1 < len(image.carried) == writer.carried < len(image.leaves) - 2
        assert {*writer.job.plan.action} == {COPY, RESEAL, REBUILD} | ({DROP, REPLACE} if drops else set())
        assert image.header(image.top)[1] == PageFlag.BRANCH
        assert len(image.lease_leaves) > 1
        assert max(image.header(page)[3] for page in image.carried) > 0, "a carried leaf has overflow pages"

    report = examined(tmp_path, monkeypatch, examine, drops=drops)
    assert report.verified
    assert list(check((tmp_path / "new.db").read_bytes())) == []


# --- single bytes ---------------------------------------------------------------------------------------------------


def check_bytes(image: Image, read_back: ReadBack, places: Iterable[int], flips: tuple[int, ...]) -> None:
    """No changed byte passes, wherever it is: behind the keys of a branch, behind an inline bucket, in the zeros."""
    for place in places:
        for flip in flips:
            image.data[place] ^= flip
            passed = refusal(read_back, bytes(image.data)) is None
            image.data[place] ^= flip
            assert not passed, f"page {place // PAGE}, byte {place % PAGE}, bits {flip:#x}"


def test_no_changed_byte_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, drops: bool) -> None:
    rng = random.Random(drops)

    def examine(image: Image, _writer: _Writer, read_back: ReadBack) -> None:
        size = len(image.data)
        slack = image.slack(image.tree_pages()) | {*range(3 * PAGE)}
        content = sorted({*range(size)} - slack)
        metas = [at + page for at in range(80) for page in (0, PAGE, 2 * PAGE)]
        places = rng.sample(content, 120) + rng.sample(sorted(slack), 40) + rng.sample(metas, 40)
        check_bytes(image, read_back, places, (1 << rng.randrange(8),))

    examined(tmp_path, monkeypatch, examine, drops=drops)


@pytest.mark.soak
def test_no_changed_byte_passes_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, drops: bool) -> None:
    def examine(image: Image, _writer: _Writer, read_back: ReadBack) -> None:
        for start in range(8):
            check_bytes(image, read_back, range(start, len(image.data), 8), (1 << (start + 5) % 8,))

    examined(tmp_path, monkeypatch, examine, drops=drops)


# --- damage with a plan ---------------------------------------------------------------------------------------------


def carried_key(image: Image) -> None:
    _, key, _, _ = image.record(image.carried[0], 1)
    image.flip(key + 16)  # its sub revision: order stays


def carried_value(image: Image) -> None:
    *_, end = image.record(image.carried[1], 0)
    image.flip(end - 1)


def carried_overflow_page(image: Image) -> None:
    page, number = image.find(LONG)
    _, _, value, _ = image.record(page, number)
    image.flip(value + 2 * PAGE)


def carried_slack(image: Image) -> None:
    page = image.carried[0]
    image.data[page * PAGE + PAGE - 9 : page * PAGE + PAGE - 1] = b"k8s:enc:"


def carried_flags(image: Image) -> None:
    image.flip(image.element(image.carried[0], 0))


def carried_count(image: Image) -> None:
    image.add(image.carried[0] * PAGE + 10, -1, 2)


def carried_id(image: Image) -> None:
    image.flip(image.carried[0] * PAGE)


def border_in_a_carried_record(image: Image) -> None:
    at, *_ = image.record(image.carried[0], 1)
    image.add(at + 8, 1)
    image.add(at + 12, -1)


def border_in_a_copied_record(image: Image) -> None:
    at, *_ = image.record(*image.find(24))
    image.add(at + 8, 1)
    image.add(at + 12, -1)


def border_between_carried_records(image: Image) -> None:
    """Only the last record can begin later than its key does and still be above all before."""
    page, number = image.find(40)
    before, *_ = image.record(page, number - 1)
    at, *_ = image.record(page, number)
    image.add(before + 12, 1)
    image.add(at + 4, 1)
    image.add(at + 8, -1)


def value_borders_of_carried_records(image: Image) -> None:
    """As many bytes for keys and values as before, but not in the same records."""
    first, *_ = image.record(image.carried[0], 0)
    second, *_ = image.record(image.carried[0], 1)
    for at, change in ((first, 1), (second, -1)):
        image.add(at + 8, change)
        image.add(at + 12, -change)


def copied_record_of_a_built_leaf(image: Image) -> None:
    *_, end = image.record(*image.find(24))
    image.flip(end - 2)


def sealed_value(image: Image) -> None:
    *_, end = image.record(*image.find(25))
    image.flip(end - 1)


def sealed_values_of_two_records(image: Image) -> None:
    ends = [image.record(*image.find(main))[3] for main in (25, 26)]
    values = [bytes(image.data[end - 100 : end]) for end in ends]
    texts = [image.data.rindex(b"k8s:enc:secretbox:v1:new:", 0, end) for end in ends]
    values = [bytes(image.data[text:end]) for text, end in zip(texts, ends, strict=True)]
    for text, value in zip(texts, reversed(values), strict=True):
        image.data[text : text + len(value)] = value


def version_of_a_sealed_record(image: Image) -> None:
    _, _, value, end = image.record(*image.find(25))
    image.data[image.data.index(b"\x20\x01", value, end) + 1] = 2


def key_of_a_sealed_record(image: Image) -> None:
    _, key, _, _ = image.record(*image.find(25))
    image.flip(key + 16)


def lease_of_a_sealed_record(image: Image) -> None:
    """It stands behind the value."""
    *_, end = image.record(*image.find(LEASED))
    image.flip(end - 1)


def lease_cut_off_a_sealed_record(image: Image) -> None:
    page, number = image.find(LEASED)
    (at, *_, end), last = image.record(page, number), image.content_end(page)
    image.data[end - 2 : last] = image.data[end:last] + bytes(2)
    image.add(at + 12, -2)
    for later in range(number + 1, image.header(page)[2]):
        image.add(image.element(page, later) + 4, -2)


def version_of_a_record_with_two_values(image: Image) -> None:
    _, _, value, end = image.record(*image.find(TWICE))
    image.data[image.data.index(b"\x20\x01", value, end) + 1] = 2


def revision_of_a_record_with_two_values(image: Image) -> None:
    _, key, _, _ = image.record(*image.find(TWICE))
    image.flip(key + 16)


def key_in_a_branch(image: Image) -> None:
    at = image.element(image.top, 2)
    image.data[at + struct.unpack_from("<I", image.data, at)[0] + 16] = 0
    image.add(at + 4, -1)  # shorter, so still between its neighbours


def first_key_of_a_branch(image: Image) -> None:
    at = image.element(image.top, 0)
    image.add(at + struct.unpack_from("<I", image.data, at)[0] + 7, -1, 1)


def children_swapped(image: Image) -> None:
    one, other = (image.element(image.top, number) + 8 for number in (1, 2))
    image.data[one : one + 8], image.data[other : other + 8] = image.data[other : other + 8], image.data[one : one + 8]


def carried_leaves_swapped(image: Image) -> None:
    one, other = [page * PAGE for page in image.carried if not image.header(page)[3]][:2]
    parts = bytes(image.data[one + 8 : one + PAGE]), bytes(image.data[other + 8 : other + PAGE])
    image.data[other + 8 : other + PAGE], image.data[one + 8 : one + PAGE] = parts


def leaf_twice(image: Image) -> None:
    one, other = (page * PAGE for page in image.carried[:2])
    image.data[other + 8 : other + PAGE] = image.data[one + 8 : one + PAGE]


def leaf_dropped(image: Image) -> None:
    count = image.header(image.top)[2]
    image.add(image.top * PAGE + 10, -1, 2)
    at = image.element(image.top, count - 1)
    del image.data[at : at + 16]
    image.data[(image.top + 1) * PAGE - 16 : (image.top + 1) * PAGE - 16] = bytes(16)
    for number in range(count - 1):
        image.add(image.element(image.top, number), -16)


def record_dropped(image: Image) -> None:
    """The last record of the bucket becomes slack."""
    page = image.leaves[-1]
    _, _, count, _ = image.header(page)
    *_, key, _, end = image.record(page, count - 1)
    size = end - key
    first = image.element(page, count)
    data = bytes(image.data[first:key])
    image.add(page * PAGE + 10, -1, 2)
    image.data[first - 16 : first - 16 + len(data)] = data
    image.data[first - 16 + len(data) : end] = bytes(size + 16)
    for number in range(count - 1):
        image.add(image.element(page, number) + 4, -16)


def freelist_names_a_meta(image: Image) -> None:
    image.data[2 * PAGE + 10] = 1


def freelist_goes_over_a_leaf(image: Image) -> None:
    image.data[2 * PAGE + 12] = 1


def freelist_is_none(image: Image) -> None:
    image.data[2 * PAGE + 8] = PageFlag.LEAF


def behind_the_freelist(image: Image) -> None:
    image.data[3 * PAGE - 1] = 1


def first_meta(image: Image) -> None:
    image.flip(16 + 60)


def second_meta(image: Image) -> None:
    image.flip(PAGE + 16 + 60)


def second_meta_names_another_root(image: Image) -> None:
    meta = decode_meta(bytes(image.data[PAGE : 2 * PAGE]))
    image.data[PAGE : 2 * PAGE] = encode_meta(replace(meta, root=meta.root.__class__(image.top)), 1)


def second_meta_counts(image: Image) -> None:
    meta = decode_meta(bytes(image.data[:PAGE]))
    image.data[PAGE : 2 * PAGE] = encode_meta(replace(meta, txid=TxId(meta.txid + 1)), 1)


def behind_the_metas(image: Image) -> None:
    image.data[2 * PAGE - 1] = 1


def record_of_another_bucket(image: Image) -> None:
    *_, end = image.record(image.lease_leaves[1], 1)
    image.flip(end - 1)


def buckets_overlap(image: Image) -> None:
    at, *_ = image.record(image.root, 7)
    image.add(at + 12, 64)


def behind_a_leaf_of_another_bucket(image: Image) -> None:
    image.data[(image.lease_leaves[0] + 1) * PAGE - 1] = 1


def behind_the_root(image: Image) -> None:
    image.data[(image.root + 1) * PAGE - 1] = 1


def key_in_a_branch_of_another_bucket(image: Image) -> None:
    branch = image.lease_leaves[-1] + 1
    at = image.element(branch, 1)
    key = at + int(struct.unpack_from("<I", image.data, at)[0])
    image.add(at + 4, -1)  # seven bytes of it: above all before, and not above the leaf's first key
    assert image.data[key + 7]


def inline_bucket(image: Image) -> None:
    at = image.data.index(b"consistent_index", image.root * PAGE)
    image.flip(at + len(b"consistent_index"))


def sequence_of_a_bucket(image: Image) -> None:
    _, _, value, _ = image.record(image.root, 5)
    image.data[value + 8] = 1


def sequence_of_another_bucket(image: Image) -> None:
    _, _, value, _ = image.record(image.root, 6)
    image.data[value + 8] = 1


def name_of_a_bucket(image: Image) -> None:
    image.data[image.data.index(b"members_removed", image.root * PAGE) + 14] = ord("e")


def page_behind_the_end(image: Image) -> None:
    image.data += bytes(PAGE)


def free_page(image: Image) -> None:
    meta = decode_meta(bytes(image.data[:PAGE]))
    meta = replace(meta, high_water_mark=meta.high_water_mark + 1)
    image.set_metas(encode_meta(meta, 0), encode_meta(replace(meta, txid=TxId(meta.txid - 1)), 1))
    image.data += bytes(PAGE)


def page_cut_off(image: Image) -> None:
    del image.data[-PAGE:]


def old_value_behind_a_branch(image: Image) -> None:
    end = (image.top + 1) * PAGE
    image.data[end - 30 : end] = b"k8s:enc:aescbc:v1:old:".ljust(30, b"x")


def old_value_behind_the_root(image: Image) -> None:
    end = (image.root + 1) * PAGE
    image.data[end - 30 : end] = b"k8s\0".ljust(30, b"x")


DAMAGES = [
    carried_key,
    carried_value,
    carried_overflow_page,
    carried_slack,
    carried_flags,
    carried_count,
    carried_id,
    border_in_a_carried_record,
    border_in_a_copied_record,
    border_between_carried_records,
    value_borders_of_carried_records,
    copied_record_of_a_built_leaf,
    sealed_value,
    sealed_values_of_two_records,
    version_of_a_sealed_record,
    key_of_a_sealed_record,
    lease_of_a_sealed_record,
    lease_cut_off_a_sealed_record,
    version_of_a_record_with_two_values,
    revision_of_a_record_with_two_values,
    key_in_a_branch,
    first_key_of_a_branch,
    children_swapped,
    carried_leaves_swapped,
    leaf_twice,
    leaf_dropped,
    record_dropped,
    freelist_names_a_meta,
    freelist_goes_over_a_leaf,
    freelist_is_none,
    behind_the_freelist,
    first_meta,
    second_meta,
    second_meta_names_another_root,
    second_meta_counts,
    behind_the_metas,
    record_of_another_bucket,
    buckets_overlap,
    behind_a_leaf_of_another_bucket,
    behind_the_root,
    key_in_a_branch_of_another_bucket,
    inline_bucket,
    sequence_of_a_bucket,
    sequence_of_another_bucket,
    name_of_a_bucket,
    page_behind_the_end,
    free_page,
    page_cut_off,
    old_value_behind_a_branch,
    old_value_behind_the_root,
]


def test_damage_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, drops: bool) -> None:
    passed = []

    def examine(image: Image, _writer: _Writer, read_back: ReadBack) -> None:
        written = bytes(image.data)
        for damage in DAMAGES:
            image.data[:] = written
            damage(image)
            assert image.data != written, damage.__name__
            if refusal(read_back, bytes(image.data)) is None:
                passed.append(damage.__name__)

    assert examined(tmp_path, monkeypatch, examine, drops=drops).verified
    assert passed == []


@pytest.fixture
def snaptool(tmp_path: Path) -> Snaptool:
    return Snaptool(tmp_path)


@pytest.fixture
def tampering(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[Image], None]]]:
    """What is done to the next file between writing and reading back."""
    todo: list[Callable[[Image], None]] = []
    original = Draft.start_syncing

    def start_syncing(draft: Draft) -> None:
        draft.flush()
        image = Image(source_file(drops=False), draft.read(0, draft.size))
        for damage in todo:
            damage(image)
        os.pwrite(draft._fd, bytes(image.data), 0)
        original(draft)

    monkeypatch.setattr(Draft, "start_syncing", start_syncing)
    yield todo
    assert todo


@pytest.mark.parametrize("jobs", ["1", "4"])
@pytest.mark.parametrize("followed", [False, True], ids=["afterwards", "following"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (carried_value, "bytes that the request does not change"),
        (border_in_a_carried_record, "the written file is broken: page "),
        (carried_slack, "bytes that belong to no record"),
        (sealed_value, "does not open"),
        (sealed_values_of_two_records, "opens to another plaintext"),
        (key_in_a_branch, "a branch of the written file"),
        (carried_id, "the written file is broken: page "),
        (freelist_names_a_meta, "the metas and the freelist"),
        (record_of_another_bucket, "bucket lease"),
        (old_value_behind_a_branch, "bytes that belong to no key"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_damage_ends_the_command_and_nothing_appears(
    snaptool: Snaptool,
    tmp_path: Path,
    tampering: list[Callable[[Image], None]],
    damage: Callable[[Image], None],
    words: str,
    jobs: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    followed: bool,
) -> None:
    """Following the writer, all was compared before the damage, and what was compared is no longer there."""
    monkeypatch.setattr(direct, "FOLLOWED_FROM", 0 if followed else 1 << 40)
    if followed and damage in {
        carried_value,
        carried_slack,
        carried_id,
        border_in_a_carried_record,
        sealed_value,
        sealed_values_of_two_records,
    }:
        words = "changed after it was compared"
    source = snaptool.write("source.db", source_file(drops=False))
    old = snaptool.write("old.yaml", config("aescbc", name="old"))
    new = snaptool.write("new.yaml", config("secretbox", name="new", secret=NEW_SECRET))
    tampering.append(damage)
    ran = snaptool(
        "rewrite", source, tmp_path / "new.db", "--config", old, "--new-config", new, "--jobs", jobs, makes=[]
    )
    assert ran.code == 3
    assert words in ran.stderr
    assert "verified" not in ran.text


def planned_source() -> bytes:
    """As `source_file`, without what cannot be forecast: a record of two value fields, values that go."""
    records = [one for one in source_records(drops=False) if int.from_bytes(one[0][:8], "big") != TWICE]
    return make_snapshot(records, BUCKETS, page_size=PAGE)


class OnItsWay:
    """Changes one byte between the writer and the file. `size`: of what was written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.flip, self.size = -1, 1, 0
        self._write = os.pwrite
        monkeypatch.setattr(os, "pwrite", self.pwrite)
        monkeypatch.setattr(direct, "FOLLOWED_FROM", 0)
        monkeypatch.setattr(reading_back, "_WINDOW", 4 * PAGE)
        self.hashed = 0
        original = Draft.digests_of_blocks

        def digests_of_blocks(draft: Draft) -> tuple[bytes, str]:
            self.hashed += 1
            return original(draft)

        monkeypatch.setattr(Draft, "digests_of_blocks", digests_of_blocks)

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        changed = bytearray(data)
        if offset <= self.place < offset + len(changed):
            changed[self.place - offset] ^= self.flip
        self.size = max(self.size, offset + len(changed))
        return self._write(descriptor, changed, offset)

    def check(self, folder: Path, request: RewriteRequest, places: Callable[[bytes], Iterable[int]]) -> None:
        """No changed byte gets a name, wherever it is; and nothing is changed where none is."""
        (folder / "source.db").write_bytes(planned_source())

        def run() -> RewriteReport:
            with open_snapshot(folder / "source.db") as opened:
                return rewrite(opened, folder / "new.db", request)

        assert run().verified
        assert self.hashed == 1, "it is as it was planned"
        written = (folder / "new.db").read_bytes()
        (folder / "new.db").unlink()
        assert written[-32:] == sha256(written[:-32]).digest()
        for place in places(written[:-32]):
            self.place, self.flip = place, 1 << place % 8
            with pytest.raises(ReadBackFailed):  # and not an error of the source, which is read meanwhile
                run()
            assert not (folder / "new.db").exists(), f"page {place // PAGE}, byte {place % PAGE}"


PLANNED = {
    "rewrite": RewriteRequest(reading=READING, writing=WRITING, randomness=SeededRandomness(b"on its way")),
    "copy": RewriteRequest(reading=None, writing=keyring("secretbox", ("new", NEW))),
}


@pytest.mark.parametrize("request_", PLANNED.values(), ids=PLANNED)
def test_no_byte_that_changes_on_its_way_gets_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: RewriteRequest
) -> None:
    rng = random.Random(7)

    def places(written: bytes) -> list[int]:
        image = Image(planned_source(), written)
        ends = [image.content_end(page) for page in image.leaves]
        # The last byte of the last record of each leaf, and what is behind it.
        edges = [*(end - 1 for end in ends), *(end for end in ends if end % PAGE)]
        size = len(written)
        return [*rng.sample(range(size), 40), *edges, 0, 20, PAGE + 70, size - 1]

    OnItsWay(monkeypatch).check(tmp_path, request_, places)


@pytest.mark.soak
@pytest.mark.parametrize("request_", PLANNED.values(), ids=PLANNED)
def test_no_byte_that_changes_on_its_way_gets_a_name_at_ten_thousand_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: RewriteRequest
) -> None:
    OnItsWay(monkeypatch).check(tmp_path, request_, lambda written: range(len(written) % 11, len(written), 11))


def test_where_the_value_of_a_record_begins_is_compared_where_no_record_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy packs an untidy leaf again: as far as its checksums know, keys and values are one text."""
    source = Image(b"", planned_source()[:-32])
    for page in source.leaves:
        if (end := source.content_end(page)) % PAGE:
            source.data[end] = 1
    (tmp_path / "source.db").write_bytes(source.data + sha256(source.data).digest())
    original = Draft.start_syncing

    def start_syncing(draft: Draft) -> None:
        draft.flush()
        written = Image(b"", draft.read(0, draft.size))
        border_in_a_copied_record(written)
        os.pwrite(draft._fd, bytes(written.data), 0)
        original(draft)

    with open_snapshot(tmp_path / "source.db") as opened:
        assert rewrite(opened, tmp_path / "new.db", PLANNED["copy"]).verified
        monkeypatch.setattr(Draft, "start_syncing", start_syncing)
        with pytest.raises(ReadBackFailed, match="bytes that the request does not change"):
            rewrite(opened, tmp_path / "again.db", PLANNED["copy"])
    assert not (tmp_path / "again.db").exists()


@pytest.mark.parametrize("followed", [False, True], ids=["afterwards", "following"])
@pytest.mark.parametrize("request_", PLANNED.values(), ids=PLANNED)
def test_leaf_that_was_not_written_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: RewriteRequest, *, followed: bool
) -> None:
    """The last one, which is carried over: without it, the file is as whole as with it."""
    (tmp_path / "source.db").write_bytes(planned_source())
    last = Image(b"", planned_source()).leaves[-1]
    original, dropped = _Writer._write_piece, []

    def write_piece(writer: _Writer, out: BucketWriter, view: memoryview, part: Part, sealed: Sealed) -> None:
        if part.page[-1] == last:
            assert part.whole[-1]
            dropped.append(part)
            rows = part.first[:-1], part.last[:-1]
            part = Part(part.page[:-1], part.span[:-1], part.whole[:-1], rows, part.looked, part.crcs[:-1])
        original(writer, out, view, part, sealed)

    monkeypatch.setattr(_Writer, "_write_piece", write_piece)
    monkeypatch.setattr(direct, "FOLLOWED_FROM", 0 if followed else 1 << 40)
    with open_snapshot(tmp_path / "source.db") as opened, pytest.raises(ReadBackFailed, match="records"):
        rewrite(opened, tmp_path / "new.db", request_)
    assert dropped
    assert not (tmp_path / "new.db").exists()


def test_trailer_is_that_of_the_bytes_that_were_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes after it was read back makes the trailer wrong: nobody restores it."""
    way = OnItsWay(monkeypatch)
    way.check(tmp_path, PLANNED["copy"], lambda _: [])
    original = Draft.start_syncing

    def start_syncing(draft: Draft) -> None:
        original(draft)
        os.pwrite(draft._fd, b"\xff", Image(planned_source(), draft.read(0, draft.size)).leaves[3] * PAGE + 700)

    monkeypatch.setattr(Draft, "start_syncing", start_syncing)
    with open_snapshot(tmp_path / "source.db") as opened:
        rewrite(opened, tmp_path / "new.db", PLANNED["copy"])
    assert Snapshot((tmp_path / "new.db").read_bytes()).check_trailer() is Trailer.WRONG


@pytest.mark.parametrize("followed", [False, True], ids=["afterwards", "following"])
@pytest.mark.parametrize("carried", [False, True], ids=["taken apart", "carried"])
def test_leaf_that_changes_between_the_passes_is_found_without_the_times_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, carried: bool, followed: bool
) -> None:
    source = tmp_path / "source.db"
    source.write_bytes(planned_source())
    original = direct._Writer.write
    changed: list[int] = []

    def write(writer: _Writer, *args: Any) -> None:
        for records in Snapshot(source.read_bytes()).chunks():
            leaves, action = records.leaves, writer.job.plan.action
            for leaf in range(leaves.leaves):
                rows = range(leaves.leaf_start[leaf], leaves.leaf_start[leaf + 1])
                stays = [row for row in rows if not action[records.first_record + row]]
                if stays and writer.job.leaves.tidy[leaf] and (len(stays) == len(rows)) == carried and not changed:
                    changed.append(records.key_at[stays[0]])
        with source.open("r+b") as file:
            file.seek(changed[0])
            file.write(b"?")
        original(writer, *args)

    monkeypatch.setattr(direct._Writer, "write", write)
    monkeypatch.setattr(Source, "check_unchanged", lambda _: None)
    monkeypatch.setattr(direct, "FOLLOWED_FROM", 0 if followed else 1 << 40)
    with pytest.raises(SourceChanged), open_snapshot(source) as opened:
        rewrite(opened, tmp_path / "new.db", PLANNED["rewrite"])
    assert changed
    assert not (tmp_path / "new.db").exists()


def test_disk_that_fails_under_the_reader_ends_the_wait_for_him(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer may be far ahead of who reads back, who then waits for what is never written."""
    (tmp_path / "source.db").write_bytes(planned_source())

    def pwrite(_descriptor: int, _data: memoryview, _offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def hand_over(follower: reading_back.Follower, part: Part) -> None:
        follower._draft.exchange(memoryview(bytearray(PAGE)), PAGE, 0)  # a leaf before, larger than the lead
        original(follower, part)

    original = reading_back.Follower.hand_over
    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(direct, "FOLLOWED_FROM", 0)
    monkeypatch.setattr(reading_back, "_LEAD", -1 << 40)
    monkeypatch.setattr(reading_back.Follower, "hand_over", hand_over)
    with open_snapshot(tmp_path / "source.db") as opened, pytest.raises(OutputError, match="Input/output error"):
        rewrite(opened, tmp_path / "new.db", PLANNED["copy"])


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize(("error", "words"), [(errno.EIO, "Input/output error"), (errno.ENOSPC, "No space left")])
def test_disk_that_fails_beside_the_reading_ends_the_command_and_nothing_appears(
    snaptool: Snaptool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int, error: int, words: str
) -> None:
    source = snaptool.write("source.db", source_file(drops=False))
    old = snaptool.write("old.yaml", config("aescbc", name="old"))
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == failing + 1:
            raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fsync)
    ran = snaptool("rewrite", source, tmp_path / "new.db", "--config", old, "--decrypt", makes=[])
    assert ran.code == 1
    assert words in ran.stderr
    assert calls
