"""The direct engine: from file to file, with every byte that the request does not change, and the whole history.

Leaf pages in which nothing changes are carried over by their pages, unread; the others are taken apart, and put
together anew from slices of the source and the values that the workers have sealed. Then the new file is read back.
What was carried over has to have the checksum that the first pass took of it; what was built anew is compared byte by
byte but for the values, and those by the digests of what they open to, with the new keys.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from snaptool.bolt import (
    CHUNK_BYTES,
    CHUNK_RECORDS,
    Bucket,
    BucketWriter,
    DatabaseWriter,
    LeafChunk,
    Sink,
    blocks,
    spans,
)
from snaptool.errors import FormatError
from snaptool.etcd import (
    BUCKETS,
    NO_EDITS,
    Edits,
    RecordChunk,
    Snapshot,
    add_spans,
    compact,
    decode_key_value,
    delete_lost,
    merge,
    replace_value,
    scan_records,
    set_values,
    sum_leaves,
)
from snaptool.files import Draft, source_changed
from snaptool.operations.columns import Sweep, make_batches
from snaptool.operations.crypto import (
    DIGEST_SIZE,
    Batch,
    OpenedBatch,
    Sealed,
    Work,
    Workshop,
    open_value,
    plaintext_digest,
)
from snaptool.operations.labels import Labels
from snaptool.operations.older import OlderValues
from snaptool.operations.plan import (
    COPY,
    DROP,
    REBUILD,
    REPLACE,
    RESEAL,
    Job,
    Plan,
    RecordCounts,
    RewriteRequest,
    changes,
    deletions,
    doomed,
    require_encryption,
    restorations,
    sealed_anew,
    values_of_ways,
    ways_of,
)
from snaptool.operations.written import (
    FileReport,
    ReadBackFailed,
    append_trailer,
    hashing,
    is_stale,
    require_nothing_else,
    require_order,
)
from snaptool.providers import Keyring
from snaptool.text import printable


class DirectEngine:
    """File to file: every byte that the request does not change is the same, and so is the history."""

    name = "direct"

    def decide(
        self,
        snapshot: Snapshot,
        swept: Sweep,
        labels: Labels,
        workshop: Workshop,
        request: RewriteRequest,
        older: OlderValues,
    ) -> Plan:
        """Decide what becomes of every record, by the editing rules of etcd."""
        return _decide(snapshot, swept, labels, workshop, request, older)

    def write(self, job: Job, draft: Draft) -> FileReport:
        """Write records from file to file, and read them back."""
        writer = _Writer(job)
        writer.write(draft)
        draft.start_syncing()
        try:
            return _read_back(draft, writer)
        except (FormatError, ReadBackFailed) as error:
            job.opened.source.check_unchanged()  # the file was held against a source that is no longer there
            if isinstance(error, ReadBackFailed):
                raise
            # It is not the input that is damaged.
            raise ReadBackFailed(f"the written file is broken: {error}") from error

    def rehearse(self, job: Job) -> None:
        """Write into nothing."""
        _Writer(job).write(_Nowhere())


class _Nowhere:
    """A sink that keeps nothing: dry runs do all the work into it."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the bytes and forget them."""

    def seek(self, offset: int) -> None:
        """Do nothing: there is no position."""


def _decide(
    snapshot: Snapshot,
    swept: Sweep,
    labels: Labels,
    workshop: Workshop,
    request: RewriteRequest,
    older: OlderValues,
) -> Plan:
    ways, way_of = ways_of(swept, workshop, only_lost=request.only_lost)
    restored, stored = restorations(swept, older, workshop, request)
    if not (request.decrypt or request.allow_plaintext):
        require_encryption(ways, values_of_ways(swept, ways, way_of), restored, request.writing)
    action = np.array([way.action for way in ways], dtype=np.uint8)[way_of]
    action[swept.tombstone] = COPY
    action[swept.repeated[action[swept.repeated] == RESEAL]] = REBUILD
    edits = _edits(snapshot, swept, request, stored)
    action[edits.drop] = DROP
    action[list(edits.replace)] = REPLACE
    gone = action >= DROP
    updated = [number for number in (*request.updates.values, *stored) if number in edits.replace]
    gone[updated] = False
    return Plan(
        action=action,
        edits=edits,
        counts=RecordCounts(
            total=len(action),
            copied=int(np.count_nonzero(action == COPY)),
            rewritten=int(np.count_nonzero(sealed_anew(action))) + len(updated),
            deleted=int(np.count_nonzero(gone)),
        ),
        changes=changes(swept, ways, way_of, gone, restored),
        deletions=deletions(
            doomed(swept, request),
            {*edits.drop.tolist(), *edits.replace} - {*updated},
            snapshot,
            labels.prefixes,
            restored,
            older,
        ),
        lost=swept.lost,
        undecodable=swept.undecodable,
        restored=restored,
    )


def _edits(snapshot: Snapshot, swept: Sweep, request: RewriteRequest, restored: Mapping[int, bytes]) -> Edits:
    edits = NO_EDITS
    lost: dict[bytes, list[int]] = {}
    for value in doomed(swept, request):
        if value.record not in restored:
            lost.setdefault(value.key, []).append(value.record)
    if lost:
        edits = delete_lost(snapshot, lost)
    if request.compact:
        edits = merge(edits, compact(snapshot))
    values = {**request.updates.values, **restored}
    return set_values(snapshot, edits, values) if values else edits


@dataclass(slots=True)
class _Unchanged:
    """Checksums over what the request does not change, in the records of leaves that are built anew.

    The bytes run on over page borders and around the value fields that change, so that source and target give the same
    numbers exactly when these bytes are the same, however they are laid out. `sizes`: where each key and value ends.
    `rebuilt`: records with several value fields, without those. Records that were added do not count.
    """

    crc: int = 0
    sizes: int = 0
    rebuilt: int = 0

    def add(
        self,
        leaves: LeafChunk,
        action: NDArray[np.uint8],
        counted: NDArray[np.bool_],
        decoded: tuple[NDArray[np.int64], RecordChunk],
    ) -> None:
        """Take the `counted` records of a chunk; what they are without is decided by their `action`.

        `decoded`: records of some rows of the chunk, among them all that were sealed.
        """
        rows, records = decoded
        (taken,) = np.nonzero(counted & (action <= RESEAL))
        (cut,) = np.nonzero(action[rows] == RESEAL)
        at = np.searchsorted(taken, rows[cut])
        start, end = leaves.key_pos[taken], leaves.value_pos[taken] + leaves.value_len[taken]
        starts = np.concatenate((start, records.field_pos[cut] + records.field_len[cut]))
        ends = np.concatenate((end, end[at]))
        ends[at] = records.field_pos[cut]
        order = np.argsort(np.concatenate((2 * np.arange(len(taken)), 2 * at + 1)))
        self.crc = add_spans(self.crc, leaves.buffer, starts[order], ends[order])
        sizes = np.stack((leaves.key_len[taken], leaves.value_len[taken]), axis=1)
        sizes[at, 1] -= records.field_len[cut]
        self.sizes = crc32(sizes.tobytes(), self.sizes)
        for row in np.nonzero(counted & (action == REBUILD))[0].tolist():
            self.rebuilt = crc32(leaves.key(row) + replace_value(leaves.value(row), b""), self.rebuilt)


@dataclass(slots=True, kw_only=True)
class _Stretch:
    """Some leaves in a row, from number `first` on, on their way into the new file.

    `whole`: which are carried over. `leaves`: the others; `numbers`: those of their records. `rows`: which of these are
    sealed anew; `records`: the same, decoded. `answers` are still to come until all `sealed` values are there.
    """

    first: int
    whole: NDArray[np.bool_]
    leaves: LeafChunk | None = None
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    records: RecordChunk | None = None
    answers: int = 0
    sealed: list[Sealed] = field(default_factory=list)


class _Writer:
    """Writes what a job says. `carried`: which leaves of the source were carried over whole."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.carried = np.zeros(len(job.notes.portable), dtype=np.bool_)
        self.unchanged = _Unchanged()

    def write(self, sink: Sink) -> None:
        """Write every record of the source by its action: the whole database but for the trailer."""
        snapshot, edits = self.job.opened.snapshot, self.job.plan.edits
        database = snapshot.database
        writer = DatabaseWriter(sink, page_size=database.page_size, txid=database.meta.txid)
        buckets = database.buckets()
        for name in sorted({*buckets, *BUCKETS}):
            bucket = buckets.get(name)
            with writer.bucket(name, bucket.sequence if bucket is not None else 0) as out:
                if name == b"key":
                    self._write_records(out, bucket)
                    continue
                for key, value in _edited(name, bucket, edits):
                    out.put(key, value)
        writer.finish()

    def _write_records(self, out: BucketWriter, bucket: Bucket | None) -> None:
        if bucket is not None:
            waiting: deque[_Stretch] = deque()
            for _, answer in self.job.workshop.resealed(self._batches(out, bucket, waiting)):
                waiting[0].sealed.append(answer)
                waiting[0].answers -= 1
                self._write_ready(out, bucket, waiting)
        for key, value in self.job.plan.edits.append:
            out.put(key, value)

    def _batches(self, out: BucketWriter, bucket: Bucket, waiting: deque[_Stretch]) -> Iterator[Batch]:
        """Yield the values to seal, stretch by stretch; those that have none are written in their turn."""
        starts, sizes = bucket.leaf_starts(), np.cumsum(bucket.leaf_sizes()[1])
        for block in blocks((starts[1:], CHUNK_RECORDS), (sizes, CHUNK_BYTES >> 1)):
            self.job.opened.tend(block)
            stretch = self._stretch(bucket, block, starts)
            waiting.append(stretch)
            if stretch.records is not None and len(stretch.rows):
                resource = self.job.swept.resource[stretch.numbers[stretch.rows]].astype(np.int64)
                batches = list(make_batches(stretch.records, np.arange(len(resource)), resource, self.job.labels))
                stretch.answers = len(batches)
                yield from batches
            self._write_ready(out, bucket, waiting)

    def _stretch(self, bucket: Bucket, block: slice, starts: NDArray[np.int64]) -> _Stretch:
        first_record, until = int(starts[block.start]), int(starts[block.stop])
        changes = np.concatenate(([0], np.cumsum(self.job.plan.action[first_record:until] != COPY)))
        border = starts[block.start : block.stop + 1] - first_record
        whole = self.job.notes.portable[block] & (changes[border[1:]] == changes[border[:-1]])
        self.carried[block] = whole
        stretch = _Stretch(first=block.start, whole=whole)
        numbers = block.start + np.nonzero(~whole)[0]
        if len(numbers):
            leaves = stretch.leaves = bucket.chunk(numbers)
            stretch.numbers = spans(starts[numbers], starts[numbers + 1] - starts[numbers])
            (stretch.rows,) = np.nonzero(sealed_anew(self.job.plan.action[stretch.numbers]))
            stretch.records = scan_records(leaves.pick(stretch.rows))
        return stretch

    def _write_ready(self, out: BucketWriter, bucket: Bucket, waiting: deque[_Stretch]) -> None:
        while waiting and not waiting[0].answers:
            stretch = waiting.popleft()
            self._write_stretch(out, bucket, stretch)
            self.job.opened.tend(stretch)
            self.job.progress("writing", stretch.first + len(stretch.whole), bucket.leaf_count)

    def _write_stretch(self, out: BucketWriter, bucket: Bucket, stretch: _Stretch) -> None:
        built = self._built(stretch) if stretch.leaves is not None else None
        ids, sizes = bucket.leaf_sizes()
        leaf = np.concatenate(
            ([0], np.cumsum(~stretch.whole))
        )  # of the leaves that are built anew, how many came before
        border = np.concatenate(([0], np.nonzero(np.diff(stretch.whole))[0] + 1, [len(stretch.whole)]))
        for first, last in zip(border[:-1].tolist(), border[1:].tolist(), strict=True):
            if stretch.whole[first]:
                here = slice(stretch.first + first, stretch.first + last)
                out.put_leaves(self.job.opened.snapshot.database.pages, ids[here], sizes[here])
            elif built is not None:
                out.put_records(*built.records(int(leaf[first]), int(leaf[last])))
        if stretch.leaves is not None:
            self._require_same(stretch.leaves, stretch.first + np.nonzero(~stretch.whole)[0])

    def _require_same(self, leaves: LeafChunk, numbers: NDArray[np.int64]) -> None:
        """Raise SourceChanged unless the leaves that were just written from are those that the first pass checked.

        Leaves that are carried over whole are held against the same sums when the new file is read back.
        """
        crc, size = sum_leaves(leaves)
        known = self.job.notes.sums
        if (crc != known.crc[numbers]).any() or (size != known.size[numbers]).any():
            self.job.opened.source.check_unchanged()
            raise source_changed(self.job.opened.path)

    def _built(self, stretch: _Stretch) -> _Built:
        """Make the records of leaves that are taken apart, as they go into the new file."""
        assert stretch.leaves is not None
        assert stretch.records is not None
        leaves, action, data = stretch.leaves, self.job.plan.action[stretch.numbers], stretch.leaves.buffer.data
        self.unchanged.add(leaves, action, np.ones(len(action), dtype=np.bool_), (stretch.rows, stretch.records))
        start, end = leaves.key_pos, leaves.value_pos + leaves.value_len
        # Only field 5 of the KeyValue changes; every other byte of the record stays as it is.
        head_end, tail_start, value_size = end.copy(), end.copy(), leaves.value_len.copy()
        spliced = action[stretch.rows] == RESEAL
        rows, records = stretch.rows[spliced], stretch.records
        head_end[rows] = records.field_pos[spliced]
        tail_start[rows] = (records.field_pos + records.field_len)[spliced]
        ends = [np.diff(sealed.ends, prepend=0) for sealed in stretch.sealed]
        if ends:
            value_size[rows] += np.concatenate(ends)[spliced] - records.field_len[spliced]
        pieces: list[bytes | memoryview] = [b""] * (3 * len(action))
        pieces[::3] = [data[a:b] for a, b in zip(start.tolist(), head_end.tolist(), strict=True)]
        pieces[2::3] = [data[a:b] for a, b in zip(tail_start.tolist(), end.tolist(), strict=True)]
        fields = chain.from_iterable(sealed.fields() for sealed in stretch.sealed)
        for row, value_field, splice in zip(stretch.rows.tolist(), fields, spliced.tolist(), strict=True):
            if splice:
                pieces[3 * row + 1] = value_field
        key_size = leaves.key_len.copy()
        values = chain.from_iterable(stretch.sealed)
        for row in stretch.rows.tolist() if not spliced.all() else ():
            value = next(values)
            if action[row] == REBUILD:
                pieces[3 * row] = leaves.key(row) + (stored := replace_value(leaves.value(row), value))
                value_size[row] = len(stored)
        for row in np.nonzero(action == REPLACE)[0].tolist():
            key, stored = self.job.plan.edits.replace[int(stretch.numbers[row])]
            pieces[3 * row] = key + stored
            key_size[row], value_size[row] = len(key), len(stored)
        for row in np.nonzero(action == DROP)[0].tolist():
            pieces[3 * row] = b""
        return _Built(pieces, key_size, value_size, action != DROP, leaves.leaf_start)


@dataclass(frozen=True, slots=True)
class _Built:
    """Records of leaves that are built anew: three `pieces` and two sizes for each, of which only the `kept` count."""

    pieces: list[bytes | memoryview]
    key_size: NDArray[np.int64]
    value_size: NDArray[np.int64]
    kept: NDArray[np.bool_]
    leaf_start: NDArray[np.int64]

    def records(self, first: int, last: int) -> tuple[bytes, NDArray[np.int64], NDArray[np.int64]]:
        """Return data and sizes of the records of some leaves in a row."""
        begin, end = int(self.leaf_start[first]), int(self.leaf_start[last])
        kept = self.kept[begin:end]
        data = b"".join(self.pieces[3 * begin : 3 * end])
        return data, self.key_size[begin:end][kept], self.value_size[begin:end][kept]


def _read_back(draft: Draft, writer: _Writer) -> FileReport:
    """Read the written file with the new keys only, compare it with the source, append the SHA-256 of what was read.

    Every page and every byte is read. What was carried over has to have the checksum that it had in the source, and is
    then known: its records are not decoded again. Raises ReadBackFailed, which names the first difference, and the
    FormatErrors of a broken file.
    """
    job = writer.job
    request = job.request
    keys = Keyring(()) if request.decrypt else request.writing
    # What keeps every byte opens with what it opened with before.
    reading = keys if not request.only_lost or request.reading is None else request.reading
    work = Work(reading, keys, request.randomness, digests=True)
    # Not closed: views into the map may outlive this, in an error that is under way above all.
    file = draft.read_back()
    written = Snapshot(file.buffer, file.release_memory)
    comparison = _Comparison(writer, written)
    jobs = request.jobs if len(job.swept.opened) else 1
    with Workshop(work, file, jobs=jobs) as workshop, hashing(draft) as digest:
        for _, answer in workshop.opened(comparison.batches()):
            comparison.take(answer)
        comparison.finish()
        comparison.require_restored(keys)
        _compare_other_buckets(job, written)
        require_nothing_else(written)
        live = job.swept.live if job.plan.edits.is_empty else None
        return append_trailer(draft, digest(), written, comparison.sums, live)


class _Comparison:
    """The pass over the records of the written file: each is what the plan makes of one of the source."""

    def __init__(self, writer: _Writer, written: Snapshot) -> None:
        job = writer.job
        plan, source = job.plan, job.swept
        self.sums = written.new_sums()
        self._shapes = np.zeros(len(self.sums.crc), dtype=np.uint64)
        self._job = job
        self._writer = writer
        self._written = written
        self._unchanged = _Unchanged()
        kept = plan.action != DROP
        whole = bool(kept.all()) and not plan.edits.append
        self._action = plan.action if whole else plan.surviving()
        self._dropped = np.nonzero(~kept)[0]
        self._starts = job.opened.snapshot.leaf_starts()
        built = ~np.repeat(writer.carried, np.diff(self._starts))
        self._built = built if whole else np.concatenate((built[kept], np.zeros(len(plan.edits.append), np.bool_)))
        # Plain values that stay are compared byte by byte, like all else that is not sealed.
        staying = (source.header[source.opened] != 0) | sealed_anew(plan.action[source.opened])
        staying &= plan.action[source.opened] < DROP
        expected = source.opened[staying]
        self._digests = source.digests[staying]
        self._resource = source.resource[expected]
        self._opened = expected if whole else self._place(expected)
        self._lost = set(self._place(np.array([value.record for value in source.lost], dtype=np.int64)).tolist())
        added = {int(self._place(np.array([record]))[0]): pair for record, pair in plan.edits.replace.items()}
        first = len(self._action) - len(plan.edits.append)
        self._added = {**added, **dict(enumerate(plan.edits.append, first))}
        self._taken = 0

    def _place(self, records: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number source records in the new file; meaningless for those that were dropped."""
        places: NDArray[np.int64] = records - np.searchsorted(self._dropped, records)
        return places

    def batches(self) -> Iterator[Batch]:
        """Read everything; yield the values to open. Raises ReadBackFailed."""
        bucket = self._written.bucket(b"key")
        sealed = sealed_anew(self._action)
        if bucket is None or bucket.record_count != len(self._action):
            count = 0 if bucket is None else bucket.record_count
            raise ReadBackFailed(f"{len(self._action)} records were written, {count} were read back")
        watched = np.zeros(len(sealed), dtype=np.bool_)
        watched[self._opened] = True
        if (sealed & ~watched).any():
            raise ReadBackFailed("values were sealed of which the source's plaintext is not known")
        for leaves in bucket.chunks():
            self.sums.add(leaves)
            self._shapes[leaves.first_leaf : leaves.first_leaf + len(leaves.leaf_page)] = leaves.shapes()
            require_order(bucket, leaves)
            first, until = leaves.first_record, leaves.first_record + len(leaves)
            here = slice(*np.searchsorted(self._opened, (first, until)).tolist())
            rows = self._opened[here] - first
            records = scan_records(leaves.pick(rows))
            action = self._action[first:until]
            self._unchanged.add(leaves, action, self._built[first:until], (rows, records))
            for row in np.nonzero(action == REPLACE)[0].tolist():
                if (leaves.key(row), leaves.value(row)) != self._added[first + row]:
                    raise ReadBackFailed(f"record {first + row} of the written file is not the one that was added")
            yield from make_batches(
                records, np.arange(len(rows)), self._resource[here].astype(np.int64), self._job.labels
            )
            self._job.progress("verifying", leaves.first_leaf + len(leaves.leaf_page), leaves.total_leaves)
            self._written.database.pages.let_go()

    def take(self, answer: OpenedBatch) -> None:
        """Compare what a batch opened to with what it was in the source. Raises ReadBackFailed."""
        here = slice(self._taken, self._taken + len(answer.outcome))
        self._taken = here.stop
        places = self._opened[here]
        digests = np.frombuffer(answer.digests, dtype=np.uint8).reshape(-1, DIGEST_SIZE)
        outcome_of = np.frombuffer(answer.outcome, dtype=np.int64)
        different = (digests != self._digests[here]).any(axis=1)
        not_open = np.array([not outcome.opened for outcome in answer.outcomes], dtype=np.bool_)[outcome_of]
        # What equals the source's plaintext is right, whatever it looks like.
        doubtful = np.array([outcome.doubtful for outcome in answer.outcomes], dtype=np.bool_)[outcome_of]
        not_open &= ~doubtful | different
        for row in np.nonzero(different | not_open)[0].tolist():
            place = int(places[row])
            if place in self._lost:
                continue
            if not_open[row]:
                reasons = ", ".join(answer.outcomes[answer.outcome[row]].reasons)
                raise ReadBackFailed(f"{printable(answer.named_keys[row])}, record {place}, does not open: {reasons}")
            raise ReadBackFailed(f"record {place} of the written file opens to another plaintext than in the source")
        rewrapped = bool(self._job.request.rewraps)
        stale = np.array([is_stale(outcome, rewrapped=rewrapped) for outcome in answer.outcomes], dtype=np.bool_)
        if (stale[outcome_of] & sealed_anew(self._action[places])).any():
            raise ReadBackFailed("a value was written under another key than the first one of the new configuration")

    def finish(self) -> None:
        """Compare what the whole pass has gathered. Raises ReadBackFailed."""
        if self._taken != len(self._opened):
            raise ReadBackFailed(f"{len(self._opened)} values should have been opened, {self._taken} were")
        source, carried = self._job.notes.sums, self._writer.carried
        starts = self._written.leaf_starts()
        # A leaf that was carried over begins where its first record is now, and no other leaf begins there.
        at = np.searchsorted(starts[1:], self._place(self._starts[:-1][carried]), side="right")
        same = (starts[1:] - starts[:-1])[at] == np.diff(self._starts)[carried]
        same &= (self.sums.crc[at] == source.crc[carried]) & (self.sums.size[at] == source.size[carried])
        same &= self._shapes[at] == self._job.notes.shapes[carried]
        if not same.all() or self._unchanged != self._writer.unchanged:
            raise ReadBackFailed("bytes that the request does not change are not the same in the written file")

    def require_restored(self, keys: Keyring) -> None:
        """Open what came back from older revisions with the keys that write. Raises ReadBackFailed."""
        for one in self._job.plan.restored:
            record = self._written.record(int(self._place(np.array([one.record]))[0]))
            stored = decode_key_value(self._written.stored_value(record)).value
            outcome, plaintext = open_value(keys.chain_for(one.resource.group_resource), stored, one.key)
            same = record.key == one.key and record.revision.main == one.revision
            if not same or plaintext is None or plaintext_digest(plaintext) != one.digest or outcome.stale:
                raise ReadBackFailed(f"{printable(one.key)} does not open to its older revision {one.from_revision}")


def _edited(name: bytes, bucket: Bucket | None, edits: Edits) -> Iterator[tuple[bytes, bytes]]:
    return edits.apply(name, bucket.items() if bucket is not None else ())


def _compare_other_buckets(job: Job, written: Snapshot) -> None:
    source, edits = job.opened.snapshot, job.plan.edits
    found, expected = written.database.buckets(), source.database.buckets()
    if set(found) != {*expected, *BUCKETS}:
        raise ReadBackFailed("the written file has other buckets than the source")
    for name, bucket in found.items():
        before = expected.get(name)
        same = bucket.sequence == (before.sequence if before is not None else 0)
        if not same or (name != b"key" and list(bucket.items()) != list(_edited(name, before, edits))):
            raise ReadBackFailed(f"bucket {name.decode(errors='replace')} is not the same in the written file")
