"""The compiled engine, the uncompiled one and a plain model find the same in the same random files, whole or broken."""

from __future__ import annotations

import os
import random
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from types import ModuleType

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from snaptool.bolt import Chunk, Database, building, walk
from snaptool.bolt.building import Piece
from snaptool.errors import SnaptoolError
from snaptool.etcd import Records, Snapshot, castagnoli, comparing, reading
from snaptool.etcd.records import locate
from snaptool.kube import cutting
from snaptool.providers import values
from snaptool.providers.values import words
from tests.property.test_rewrite_leaves import random_records, source_of
from tests.support.bolt import contents, make_database, model_contents, tiny
from tests.support.engine import uncompiled
from tests.support.history import make_snapshot
from tests.support.pieces import piece_of
from tests.unit.bolt.test_writer import alternating

seeds = st.integers(0, 1 << 32)


@dataclass(frozen=True)
class Engine:
    """The modules that read, in one of both ways."""

    walk: ModuleType
    reading: ModuleType
    comparing: ModuleType


ENGINES = [
    Engine(walk, reading, comparing),
    Engine(uncompiled(walk), uncompiled(reading), uncompiled(comparing)),
]


def random_file(rng: random.Random) -> tuple[bytes, int]:
    """A healthy file, and its page size."""
    if rng.random() < 0.3:
        return tiny(), 4096
    records, _, _ = random_records(rng, rng.choice((0, 1, 5, 40, 80)))
    return source_of(rng, records), 1024


def broken(data: bytes, page_size: int, rng: random.Random) -> bytes:
    """The same with a few numbers, elements or bytes written over: where pages begin, mostly."""
    damaged, pages = bytearray(data), len(data) // page_size
    for _ in range(rng.randint(1, 3)):
        page = rng.randrange(2, pages)
        start = page * page_size
        at = start + rng.choice((8, 10, 12, rng.randrange(80), rng.randrange(page_size)))
        number = rng.choice((0, 1, 2, 3, 16, 0xFFFF, 0xFFFFFFFF, 1 << 62, 1 << 63)).to_bytes(8, "little")
        element = start + 16 * rng.randint(1, 4)
        at, piece = rng.choice(
            (
                (at, number[: rng.randint(1, 8)]),
                (at, rng.randbytes(rng.randint(1, 8))),
                (start + 12, (pages - page - rng.randint(0, 1)).to_bytes(4, "little")),  # pages that it goes on for
                (element + 16, copied(damaged, element)),
            )
        )
        damaged[at : at + len(piece)] = piece
    return bytes(damaged)


def copied(data: bytearray, element: int) -> bytes:
    """The element of a leaf as the next one, which has the same record then."""
    position = int.from_bytes(data[element + 4 : element + 8], "little") - 16
    return bytes(data[element : element + 4] + (position % (1 << 32)).to_bytes(4, "little") + data[element + 8 :][:8])


def all_that_is_said(engine: Engine, data: bytes, most: int, *, tolerant: bool) -> list[object]:
    """What the loops find in all buckets of a file, leaf by leaf, and the error that ends it."""
    said: list[object] = []
    try:
        snapshot = Snapshot(data)
        database, view = snapshot.database, snapshot.view
        report: list[object] | None = [] if tolerant else None
        way = engine.walk.Walk(view, database.page_size, database.high_water_mark, report)
        for name, bucket in database.walk_buckets(way).items():
            chunk, reader = engine.walk.Chunk(most), engine.reading.RecordReader(view)
            records, index = engine.reading.Records(view, chunk), engine.reading.LiveIndex(view)
            problems: list[object] = []
            bucket.begin(way)
            while way.fill(chunk):
                said += [name, chunk.leaves, *(chunk.leaf_page[: chunk.leaves]), *(chunk.leaf_span[: chunk.leaves])]
                said += [(name, chunk.key(view, row), chunk.value(view, row)) for row in range(chunk.records)]
                tidy = memoryview(bytearray(chunk.leaves))
                said.append(engine.comparing.mark_tidy(view, chunk, database.page_size, tidy))
                said.append(tidy.tolist())
                if name == b"key":
                    reader.read(records, problems.append)
                    index.add(records, len(records))
                    columns = (records.flags, records.main, records.sub, records.create, records.mod, records.lease)
                    said += [column[: len(records)].tolist() for column in columns]
                    said += [(records.user_key(row), records.value(row)) for row in range(len(records))]
            said += [index.live(), list(map(str, problems))]
        said += [way.reached_pages(), way.pages_seen(), way.found_by_first_keys(), list(map(str, report or ()))]
    except SnaptoolError as error:
        said += [type(error), str(error)]
    return said


@settings(max_examples=250, deadline=None)
@given(seed=seeds, tolerant=st.booleans())
def test_any_file_is_read_alike_both_ways_or_refused_by_an_error_of_ours(*, seed: int, tolerant: bool) -> None:
    rng = random.Random(seed)
    data, page_size = random_file(rng)
    is_broken = rng.random() < 0.8
    if is_broken:
        data = broken(data, page_size, rng)
    most = rng.choice((1, 3, 512))
    compiled, plain = (all_that_is_said(engine, data, most, tolerant=tolerant) for engine in ENGINES)
    assert compiled == plain
    if not is_broken:
        listed = [(name, *pair) for name, pairs in model_contents(data, page_size).items() for pair in pairs]
        assert [one for one in compiled if isinstance(one, tuple) and len(one) == 3] == listed


@pytest.mark.soak
@settings(max_examples=5000, deadline=None)
@given(seed=seeds, tolerant=st.booleans())
def test_any_file_is_read_alike_both_ways_at_length(*, seed: int, tolerant: bool) -> None:
    rng = random.Random(seed)
    data, page_size = random_file(rng)
    data, most = broken(data, page_size, rng), rng.choice((1, 3, 512))
    compiled, plain = (all_that_is_said(engine, data, most, tolerant=tolerant) for engine in ENGINES)
    assert compiled == plain


# --- comparing ---


def chunks_of(data: bytes) -> Iterator[tuple[Snapshot, Records]]:
    snapshot = Snapshot(data)
    for records in snapshot.chunks(lambda _: None):
        yield snapshot, records


def leaf_rows(chunk: Chunk) -> list[range]:
    return [range(chunk.leaf_start[leaf], chunk.leaf_start[leaf + 1]) for leaf in range(chunk.leaves)]


def is_tidy(data: bytes, chunk: Chunk, leaf: int, page_size: int) -> bool:
    """Nothing but the table, the records behind it in their order, and a page of zeros at most?"""
    rows, begin = leaf_rows(chunk)[leaf], chunk.leaf_page[leaf] * page_size
    if not rows or not begin:
        return False
    page = data[begin : begin + chunk.leaf_span[leaf] * page_size]
    texts = b"".join(
        data[chunk.key_at[row] :][: chunk.key_size[row]] + data[chunk.value_at[row] :][: chunk.value_size[row]]
        for row in rows
    )
    places = [chunk.key_at[row] - begin for row in rows]
    ends = [16 + 16 * len(rows)]
    for row in rows:
        ends.append(ends[-1] + chunk.key_size[row] + chunk.value_size[row])
    rest = page[ends[-1] :]
    return places == ends[:-1] and page[ends[0] : ends[-1]] == texts and not any(rest) and len(rest) <= page_size


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_leaves_are_tidy_and_untouched_and_have_the_sums_that_the_model_says(seed: int) -> None:
    rng = random.Random(seed)
    data, page_size = random_file(rng)
    for _, records in chunks_of(data):
        chunk = records.leaves
        tidy = [is_tidy(data, chunk, leaf, page_size) for leaf in range(chunk.leaves)]
        action = memoryview(bytearray(rng.choice((0, 0, 0, 1, 3)) for _ in range(len(records))))
        left = [one and not any(action[row] for row in rows) for one, rows in zip(tidy, leaf_rows(chunk), strict=True)]
        texts = [
            b"".join(records.stored_key(row) + records.stored_value(row) for row in rows) for rows in leaf_rows(chunk)
        ]
        for engine in ENGINES:
            marks = memoryview(bytearray(b"\xff" * chunk.leaves))
            assert engine.comparing.mark_tidy(memoryview(data), chunk, page_size, marks) == sum(tidy)
            assert marks.tolist() == tidy
            for address in {0, castagnoli.address()}:
                crcs, sizes = array("I", bytes(4 * chunk.leaves)), array("q", bytes(8 * chunk.leaves))
                way = castagnoli.crc32c(), address
                engine.comparing.sums_of_leaves(
                    chunk, memoryview(data), marks, way, memoryview(crcs), memoryview(sizes)
                )
                assert crcs.tolist() == [crc32c(text) for text in texts]
                assert sizes.tolist() == [len(text) for text in texts]
            engine.comparing.untouched(chunk, action, marks)
            assert marks.tolist() == left


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_leaves_are_found_and_measured_without_a_look_at_them(seed: int) -> None:
    rng = random.Random(seed)
    data, page_size = random_file(rng)
    database = Database(data)
    bucket = database.buckets()[b"key"]
    if not bucket.root:
        return
    chunk = Chunk(rng.choice((1, 3, 8192)), 0)
    found: list[tuple[int, int]] = []
    walk_ = bucket.new_walk()
    while walk_.skim(chunk):
        found += zip(chunk.leaf_page[: chunk.leaves], chunk.leaf_span[: chunk.leaves], strict=True)
    descriptor = os.memfd_create("source")
    try:
        os.write(descriptor, b"x" * 7 + data)
        for engine in ENGINES:
            way = engine.walk.Walk(database.view, page_size, database.high_water_mark)
            bucket.begin(way)
            way.to_key(b"")
            depth = len(way.path()) - 1
            if depth == 0:
                continue
            way = engine.walk.Walk(database.view, page_size, database.high_water_mark)
            bucket.begin(way)
            way.assume_leaves(depth)
            used = bytearray(database.high_water_mark) + b"\1"
            pages: list[int] = []
            while way.skim(chunk):
                pages += chunk.leaf_page[: chunk.leaves]
            assert pages == [page for page, _ in found]
            for page in pages:
                used[page] = rng.random() < 0.7
            for builder in (building, uncompiled(building)):
                spans = words(len(pages))
                builder.spans_of(memoryview(array("q", pages)), memoryview(used), descriptor, 7, page_size, spans)
                assert spans.tolist() == [span for _, span in found]
                far = 1 + len(data)  # nothing can be read there
                builder.spans_of(memoryview(array("q", pages)), memoryview(used), descriptor, far, page_size, spans)
                assert spans.tolist() == [1] * len(pages)
                os.pwrite(descriptor, b"\xff" * 4, 7 + pages[-1] * page_size + 12)
                builder.spans_of(memoryview(array("q", pages)), memoryview(used), descriptor, 7, page_size, spans)
                assert spans[-1] == used.find(1, pages[-1] + 1) - pages[-1]
                os.pwrite(descriptor, data[pages[-1] * page_size + 12 :][:4], 7 + pages[-1] * page_size + 12)
    finally:
        os.close(descriptor)


def changed(rng: random.Random, stored: bytes) -> bytes:
    """A record as it is, with another value, with one field more, or with another byte somewhere."""
    how = rng.random()
    if how < 0.5:
        return stored
    if how < 0.7:
        return replaced(stored, rng.randbytes(rng.choice((0, 1, 100, 300))))
    if how < 0.9:
        at = rng.choice((locate(stored).field_start, len(stored)))
        return stored[:at] + b"\x7a\x01x" + stored[at:]  # a field that nobody knows
    at = rng.randrange(len(stored))
    return stored[:at] + bytes([stored[at] ^ 1 << rng.randrange(8)]) + stored[at + 1 :]


def replaced(stored: bytes, value: bytes) -> bytes:
    spans = locate(stored)
    size = len(value)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    field = b"\x2a" + length + value
    return stored[: spans.field_start] + field + stored[spans.field_start + spans.field_size :]


def around(records: Records, row: int) -> tuple[bytes, bytes, bytes]:
    """A record but for the whole of field 5."""
    stored, start = records.stored_value(row), records.field_at[row] - records.leaves.value_at[row]
    return records.stored_key(row), stored[:start], stored[start + records.field_size[row] :]


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_leaves_that_matter_are_those_that_the_model_says(seed: int) -> None:
    rng = random.Random(seed)
    counts = array("I", [rng.choice((0, 1, 1, 3)) for _ in range(rng.choice((0, 1, 9)))])
    tidy = bytearray(rng.choice((0, 1, 1)) for _ in counts)
    action = bytearray(rng.choice((0, 0, 0, 0, 1, 3)) for _ in range(sum(counts)))
    watched = bytearray(rng.choice((0, 0, 1)) for _ in action) if rng.random() < 0.7 else bytearray()
    starts = [sum(counts[:leaf]) for leaf in range(len(counts) + 1)]
    rows = [range(start, end) for start, end in pairwise(starts)]
    whole = [bool(one) and not any(action[row] for row in some) for one, some in zip(tidy, rows, strict=True)]
    chosen = [
        leaf for leaf, some in enumerate(rows) if not whole[leaf] or (watched and any(watched[row] for row in some))
    ]
    start = [0, *accumulate(counts[leaf] for leaf in chosen)]
    first = rng.randint(0, len(counts))
    for engine in ENGINES:
        marks = memoryview(bytearray(len(counts)))
        columns = [memoryview(one) for one in (counts, tidy, action, watched)]
        found, of = engine.comparing.looked_into(*columns, marks)
        assert (marks.tolist(), found.tolist(), of.tolist()) == (whole, chosen, [starts[leaf] for leaf in chosen])
        begins, numbered = memoryview(array("q", start)), memoryview(array("q", bytes(8 * start[-1])))
        assert engine.comparing.number_rows(found, of, columns[0], begins, numbered)
        assert numbered.tolist() == [row for leaf in chosen for row in rows[leaf]]
        firsts, lasts = engine.comparing.rows_of_leaves(found, begins, first, len(counts) - first)
        assert [[numbered[row] for row in range(begin, end)] for begin, end in zip(firsts, lasts, strict=True)] == [
            [*rows[leaf]] if leaf in chosen else [] for leaf in range(first, len(counts))
        ]
        if chosen:
            begins[len(chosen)] += 1
            assert not engine.comparing.number_rows(found, of, columns[0], begins, words(start[-1] + 1))


@dataclass
class Model:
    """A comparison of two chunks, told record by record."""

    old: Records
    new: Records
    piece: Piece
    watched: bytes
    crcs: Sequence[int]
    other_crcs: Sequence[int]

    def compare(self, leaf: int, row: int, other: int) -> tuple[int, int, int, int, list[tuple[int, int]]]:
        """How it ends, at which leaf and row of the piece and row of the chunk; the watched rows that it came by."""
        pairs: list[tuple[int, int]] = []
        starts = [rows.start for rows in leaf_rows(self.new.leaves)]
        while leaf < len(self.piece.whole):
            rows = leaf_rows(self.old.leaves)[leaf]
            if self.piece.whole[leaf]:
                if other == len(self.new):
                    return comparing.MORE, leaf, -1, other, pairs
                there = starts.index(other) if other in starts else -1
                if there < 0 or self.image(self.old, leaf) != self.image(self.new, there):
                    return comparing.DIFFERENT, leaf, -1, other, pairs
                if self.crcs and self.crcs[leaf] != self.other_crcs[there]:
                    return comparing.CHANGED, leaf, -1, other, pairs
                pairs += [(one, other + one - rows.start) for one in rows if self.watched and self.watched[one]]
                leaf, other = leaf + 1, other + len(rows)
                continue
            for one in range(rows.start if row < 0 else row, rows.stop):
                action = self.piece.action[one]
                if action == 3:
                    continue
                if other == len(self.new):
                    return comparing.MORE, leaf, one, other, pairs
                if action > 1:
                    return comparing.ALONE, leaf, one, other, pairs
                if not self.same(one, other, action):
                    return comparing.DIFFERENT, leaf, one, other, pairs
                pairs += [(one, other)] if self.watched and self.watched[one] else []
                other += 1
            leaf, row = leaf + 1, -1
        return comparing.NO_MORE, leaf, -1, other, pairs

    def same(self, one: int, other: int, action: int) -> bool:
        """Are two records the same, or all of them but the value?"""
        if action:
            return around(self.old, one) == around(self.new, other)
        both = (
            (records.stored_key(row), records.stored_value(row))
            for records, row in ((self.old, one), (self.new, other))
        )
        return next(both) == next(both)

    @staticmethod
    def image(records: Records, leaf: int) -> bytes:
        """A leaf from behind its number up to its last record, and its pages."""
        leaves, begin = records.leaves, records.leaves.leaf_page[leaf] * 4096
        last = leaves.leaf_start[leaf + 1] - 1
        end = leaves.value_at[last] + leaves.value_size[last]
        return bytes(records.view[begin + 8 : end]) + bytes([leaves.leaf_span[leaf]])


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_pieces_and_chunks_are_the_same_as_far_as_the_model_says(seed: int) -> None:
    rng = random.Random(seed)
    listed, _, _ = random_records(rng, rng.choice((1, 5, 30)))
    share = rng.choice((0.0, 0.05, 0.5))
    others = [(key, changed(rng, stored) if rng.random() < share else stored) for key, stored in listed]
    others = [one for one in others if rng.random() < rng.choice((0.9, 1, 1))] or others
    (_, old), (_, new) = (next(chunks_of(make_snapshot(one))) for one in (listed, others))
    whole = [rng.random() < 0.6 and old.leaves.leaf_page[leaf] > 0 for leaf in range(old.leaves.leaves)]
    action = [rng.choice((0, 0, 0, 1, 1, 2, 3)) for _ in range(len(old))]
    piece = piece_of(old.leaves, whole=whole, action=action)
    watched = bytearray(rng.choice((0, 1)) for _ in action) if rng.random() < 0.7 else bytearray()
    crcs = array("I", [rng.choice((1, 1, 1, 2)) for _ in whole] if rng.random() < 0.5 else [])
    other_crcs = array("I", [1] * new.leaves.leaves)
    model = Model(old, new, piece, bytes(watched), crcs, other_crcs)
    for engine in ENGINES:
        match, leaf, row, other = engine.comparing.Match(), 0, -1, 0
        end = comparing.ALONE
        while end == comparing.ALONE:
            sums = memoryview(crcs), memoryview(other_crcs)
            expected = model.compare(leaf, row, other)
            end = match.compare(old, piece, memoryview(watched), new, 4096, sums)
            pairs = [*zip(*match.watched(), strict=True)]
            assert (end, *match.place(), pairs) == (expected[0], *expected[2:])
            _, leaf, row, other, _ = expected
            left = [
                place
                for place in range(leaf, len(whole))
                for one in leaf_rows(old.leaves)[place]
                if whole[place] or (action[one] != 3 and (place > leaf or one >= row))
            ]
            assert match.is_done(piece) == (not left)
            match.step()
            row, other = row + 1, other + 1


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_plaintexts_are_the_same_wherever_they_lie(seed: int) -> None:
    """Each is read from the file or was put in by hand; some are closed."""
    rng = random.Random(seed)
    texts = [rng.randbytes(rng.choice((0, 1, 5, 200))) for _ in range(rng.randint(1, 12))]
    others = [text if rng.random() < 0.9 else rng.choice((b"", text + b"\0", text[:-1])) for text in texts]
    closed = [rng.random() < 0.05 for _ in texts]
    inside = [[rng.random() < 0.5 for _ in texts] for _ in range(2)]
    ends = [shut or one != other for one, other, shut in zip(texts, others, closed, strict=True)]
    expected = next((row for row, end in enumerate(ends) if end), len(texts))
    for way in (values, uncompiled(values)):
        sides = [opened(way, *side, closed) for side in zip((texts, others), inside, strict=True)]
        rows = memoryview(array("q", range(len(texts))))
        assert way.same_plaintexts(sides[0], rows, sides[1], rows) == expected


def opened(way: ModuleType, texts: Sequence[bytes], inside: Sequence[bool], closed: Sequence[bool]) -> values.Values:
    at, size, end = array("q"), array("q", map(len, texts)), 0
    for one in size:
        at.append(end)
        end += one
    columns, rows = [memoryview(one) for one in (at, size)], memoryview(array("q", range(len(texts))))
    found: values.Values = way.Values(memoryview(b"".join(texts) + b"\0"))
    found.begin(columns[0], columns[1], columns[0], columns[1], rows)
    found.ask(rows, [])
    found.open_plain(rows)
    for row, text in enumerate(texts):
        if inside[row]:
            found.put(row, text)
        if closed[row]:
            found.close(row)
    return found


# --- building ---


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([1024, 4096]), st.integers(0, 127))
def test_what_both_ways_build_is_the_same_and_holds_the_records(seed: int, page_size: int, choose: int) -> None:
    rng = random.Random(seed)
    sizes = rng.choice(((0, 10), (0, 100, 5000), (200,)))
    buckets = {
        name: {
            b"%06d%s" % (number, b"k" * rng.randrange(rng.choice((1, 300)))): bytes(rng.choice(sizes))
            for number in range(rng.choice((0, 1, 7, 90)))
        }
        for name in (b"key", b"lease", b"meta")
    }
    with pytest.MonkeyPatch.context() as patch:
        files = []
        for builder in (building.Builder, uncompiled(building).Builder):
            patch.setattr("snaptool.bolt.writer.Builder", builder)
            made = make_database(buckets, page_size=page_size)
            files.append((made, alternating(made, rng.choice((1, 5, 512)), choose)))
    assert files[0][0] == files[1][0]
    assert contents(files[0][0]) == contents(files[0][1]) == contents(files[1][1]) == buckets
    assert len(files[0][1]) == len(files[1][1])


# --- labels ---

numbers = st.lists(st.tuples(*[st.integers(0, 3)] * 3, st.sampled_from([0, 1, 4])), min_size=1, max_size=30)


@given(numbers)
def test_labels_are_weighed_numbered_picked_and_tallied_as_lists_are(rows: list[tuple[int, ...]]) -> None:
    paths, fronts, sizes = (memoryview(array("q", column)) for column in list(zip(*rows, strict=True))[:3])
    flags, table = memoryview(bytes(row[3] for row in rows)), memoryview(array("q", [7, 5, 7, 9]))
    wanted, count = memoryview(b"\0\1\1\0"), len(rows)
    plain: Counter[int] = Counter()
    rest: Counter[tuple[int, int]] = Counter()
    for path, front, size, _ in rows:
        if front:
            rest[path, front] += size
        else:
            plain[path] += size
    for way in (cutting, uncompiled(cutting)):
        found: dict[tuple[int, int], int] = {}
        weights, named, total = (memoryview(array("q", bytes(8 * n))) for n in (4, count, 4))
        way.weigh(paths, fronts, sizes, count, weights, found)
        way.renumber(paths, table, count, named)
        way.tally(paths, flags, 4, 1, count, total)
        assert (weights.tolist(), found) == ([plain[path] for path in range(4)], dict(rest) | found)
        assert {pair: size for pair, size in found.items() if size} == {pair: n for pair, n in rest.items() if n}
        assert named.tolist() == [table[path] for path in paths]
        assert total.tolist() == [sum(row[0] == path and not row[3] & 4 for row in rows[1:]) for path in range(4)]
        assert way.marked(paths, wanted, count) == [row for row, one in enumerate(rows) if wanted[one[0]]]
        assert way.pick(paths, wanted, fronts, flags, 4, count).tolist() == [
            row for row, (path, front, _, flag) in enumerate(rows) if wanted[path] and not front and not flag & 4
        ]


heads = st.lists(st.text("ab/", min_size=1, max_size=4).map(str.encode), max_size=5)


@given(heads, st.lists(st.text("ab/", max_size=7).map(str.encode), max_size=12))
def test_keys_that_are_watched_for_are_those_that_begin_so(texts: list[bytes], keys: list[bytes]) -> None:
    size, at, end = array("q", map(len, keys)), array("q"), 0
    for one in size:
        at.append(end)
        end += one
    view = memoryview(b"".join(keys) + b"\0")
    expected = [row for row, key in enumerate(keys) if key.startswith(tuple(texts))]
    for way in (cutting, uncompiled(cutting)):
        assert way.Watch(view, texts).rows(memoryview(at), memoryview(size), len(keys)) == expected
