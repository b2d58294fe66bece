"""The direct engine: from file to file, with every byte that the request does not change, and the whole history.

Leaves in which nothing changes are carried over by their pages; the others are taken apart, and put together again from
stretches of the source and newly sealed values. Meanwhile, or afterwards where the file is small, the new file is read
back: every record is compared with the source's, whole, or around its value, and the values by what both open to, the
new one with the new keys.
"""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import compress
from types import TracebackType
from typing import Self

from crc32c import crc32c

from snaptool.bolt import Bucket, BucketWriter, Chunk, DatabaseWriter, Sink, Walk
from snaptool.errors import FormatError
from snaptool.etcd import (
    BUCKETS,
    NO_EDITS,
    Edits,
    RecordReader,
    Records,
    Snapshot,
    compact,
    decode_key_value,
    delete_lost,
    merge,
    refuse,
    replace_value,
    set_values,
)
from snaptool.etcd.comparing import mark_tidy, runs, same_records, untouched
from snaptool.files import Draft, Mapped, source_changed
from snaptool.operations.crypto import (
    Batch,
    Work,
    Workshop,
    open_value,
    outcome_of,
    plaintext_digest,
)
from snaptool.operations.judging import Depth
from snaptool.operations.labels import Labels
from snaptool.operations.leaves import Leaves
from snaptool.operations.older import OlderValues
from snaptool.operations.plan import (
    COPY,
    DROP,
    REBUILD,
    REPLACE,
    RESEAL,
    SEALED,
    Job,
    Plan,
    RecordCounts,
    RewriteRequest,
    changes,
    deletions,
    doomed,
    require_encryption,
    restorations,
    values_of_ways,
    ways_of,
)
from snaptool.operations.sweep import Sweep
from snaptool.operations.written import (
    FileReport,
    ReadBackFailed,
    append_trailer,
    hashing,
    is_stale,
    require_nothing_else,
)
from snaptool.providers.keyring import Keyring
from snaptool.providers.values import Sealed as SealedValues
from snaptool.providers.values import same_plaintexts, words
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
        follower = _Follower(job, draft) if job.opened.source.size >= FOLLOWED_FROM else None
        try:
            with follower or nullcontext():
                writer.write(draft, follower)
            draft.start_syncing()
            return _read_back(draft, writer, follower)
        except (FormatError, ReadBackFailed) as error:
            job.opened.source.check_unchanged()  # the file was held against a source that is no longer there
            if isinstance(error, ReadBackFailed) or writer.is_reading:
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


_GOES = bytes(action >= DROP for action in range(256))
_IS_SEALED = bytes(action in SEALED for action in range(256))


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
    action = bytearray(map([way.action for way in ways].__getitem__, way_of))
    for record in swept.repeated:
        action[record] = REBUILD if action[record] == RESEAL else action[record]
    edits = _edits(snapshot, swept, request, stored)
    for record in edits.drop:
        action[record] = DROP
    for record in edits.replace:
        action[record] = REPLACE
    gone = action.translate(_GOES)
    updated = [number for number in (*request.updates.values, *stored) if number in edits.replace]
    for record in updated:
        gone[record] = 0
    return Plan(
        action=action,
        edits=edits,
        counts=RecordCounts(
            total=len(action),
            copied=action.count(COPY),
            rewritten=sum(map(action.count, SEALED)) + len(updated),
            deleted=gone.count(1),
        ),
        changes=changes(swept, ways, way_of, gone, restored),
        deletions=deletions(
            doomed(swept, request),
            {*edits.drop, *edits.replace} - {*updated},
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


FOLLOWED_FROM = 16 << 20
"""Bytes of a source from which on the new file is read back while it is written."""

_LET_GO = 32
"""Chunks after which what was read may leave the memory."""

_WINDOW = 8 << 20
"""Bytes that are mapped together behind the writer: as many as begin to be brought to the disk together."""


class _Source:
    """A pass over the records of the source, a chunk at a time."""

    def __init__(self, job: Job, chunks: int = 1) -> None:
        self.job = job
        self.view = job.opened.snapshot.view
        self.action = memoryview(job.plan.action)
        self._chunks = [Records(self.view, Chunk()) for _ in range(chunks)]
        self._reader = RecordReader(self.view)
        self._resources = tuple(known.group_resource for known in job.swept.resources)

    def __iter__(self) -> Iterator[Records]:
        """Yield the chunks, in turn: each is good until as many others as there are at a time were taken."""
        bucket = self.job.opened.snapshot.bucket(b"key")
        if bucket is None:
            return
        walk = self.job.opened.snapshot.database.new_walk()
        bucket.begin(walk)
        leaves = records = turn = 0
        while True:
            chunk = self._chunks[turn % len(self._chunks)]
            chunk.leaves.first_leaf, chunk.leaves.first_record = leaves, records
            chunk.leaves.leaves = chunk.leaves.records = 0
            if not walk.fill(chunk.leaves):
                return
            chunk.make_room()
            if any(self.actions(chunk)) or self.job.request.reading is not None:
                self._reader.read(chunk, refuse)
            yield chunk
            leaves, records, turn = leaves + chunk.leaves.leaves, records + len(chunk), turn + 1
            if turn % _LET_GO == 0:
                self.job.opened.between_chunks(chunk)

    def actions(self, records: Records) -> memoryview:
        """Return what becomes of each record of a chunk."""
        return self.action[records.first_record : records.first_record + len(records)]

    def batch(self, records: Records, rows: Sequence[int]) -> Batch:
        """Name the values in some rows of a chunk. Nothing is copied."""
        resource = memoryview(self.job.swept.resource)
        return self.batch_like(records, rows, resource[records.first_record : records.first_record + len(records)])

    def batch_like(self, records: Records, rows: Sequence[int], resource: memoryview) -> Batch:
        """Name values in another file. `resource`: by row, the number that it has in the source."""
        return Batch(
            resources=self._resources,
            resource=resource,
            record=(),
            key_pos=records.key_at,
            key_len=records.key_size,
            value_pos=records.value_at,
            value_len=records.value_size,
            main=records.main,
            sub=records.sub,
            rows=_numbers(rows),
        )


class _Writer:
    """Writes what a job says. `carried`: how many leaves of the source were carried over whole."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.carried = 0
        self.is_reading = True
        self._tidy = memoryview(bytearray(0))

    def write(self, sink: Sink, follower: _Follower | None = None) -> None:
        """Write every record of the source by its action: the whole database but for the trailer."""
        snapshot, edits = self.job.opened.snapshot, self.job.plan.edits
        database = snapshot.database
        writer = DatabaseWriter(sink, page_size=database.page_size, txid=database.meta.txid)
        buckets = database.buckets()
        for name in sorted({*buckets, *BUCKETS}):
            bucket = buckets.get(name)
            with writer.bucket(name, bucket.sequence if bucket is not None else 0) as out:
                if name == b"key":
                    self._write_records(out, follower)
                    continue
                for key, value in _edited(name, bucket, edits):
                    out.put(key, value)
        writer.finish()
        self.is_reading = False

    def _write_records(self, out: BucketWriter, follower: _Follower | None) -> None:
        if follower is not None:
            follower.begin(out.next_page)
        source = _Source(self.job, self.job.workshop.ahead + 1)
        waiting: deque[Records] = deque()
        for _, sealed in self.job.workshop.resealed(self._batches(source, waiting)):
            if follower is not None:
                follower.check()
            self._write_chunk(out, source, waiting.popleft(), sealed)
        for key, value in self.job.plan.edits.append:
            out.put(key, value)
        if follower is not None:
            follower.end(None if out.is_small else out.end_leaves())

    def _batches(self, source: _Source, waiting: deque[Records]) -> Iterator[Batch]:
        """Yield the values to seal, chunk by chunk, none at all for many of them."""
        total = self.job.opened.snapshot.record_count
        for records in source:
            waiting.append(records)
            actions = source.actions(records)
            rows = [row for row, action in enumerate(actions) if action in SEALED] if any(actions) else []
            yield source.batch(records, rows)
            self.job.progress("writing", records.first_record + len(records), total)

    def _write_chunk(self, out: BucketWriter, source: _Source, records: Records, sealed: SealedValues) -> None:
        leaves, actions = records.leaves, source.actions(records)
        page_size = self.job.opened.snapshot.database.page_size
        if len(self._tidy) <= leaves.leaves:
            self._tidy = memoryview(bytearray(2 * leaves.leaves + 1))
        tidy = self._tidy
        mark_tidy(source.view, leaves, page_size, tidy)
        self._require_same(leaves, source.view, tidy)
        untouched(leaves, actions, tidy)
        for first, last, whole in runs(leaves, tidy):
            if whole:
                out.carry(source.view, leaves, first, last, page_size)
                self.carried += last - first
            else:
                self._write_rows(out, source, records, range(leaves.leaf_start[first], leaves.leaf_start[last]), sealed)

    def _write_rows(
        self, out: BucketWriter, source: _Source, records: Records, rows: range, sealed: SealedValues
    ) -> None:
        """Write records that are taken apart: in stretches, but for those that are made by themselves."""
        leaves, actions = records.leaves, source.actions(records)
        alone = (
            [row for row in rows if actions[row] > RESEAL] if max(actions[rows.start : rows.stop], default=0) else []
        )
        start = rows.start
        for row in (*alone, rows.stop):
            fields = records.field_at, records.field_size
            out.put_rows(source.view, leaves, start, row, fields, sealed.places())
            start = row + 1
            if row == rows.stop or actions[row] == DROP:
                continue
            if actions[row] == REPLACE:
                out.put(*self.job.plan.edits.replace[records.first_record + row])
            else:
                stored = replace_value(records.stored_value(row), bytes(sealed.value(row)))
                out.put(records.stored_key(row), stored)

    def _require_same(self, leaves: Chunk, file: memoryview, tidy: memoryview) -> None:
        """Raise SourceChanged unless the leaves that are written from are those that the first pass checked."""
        if not self.job.leaves.have(leaves, file, tidy):
            self.job.opened.source.check_unchanged()
            raise source_changed(self.job.opened.path)


class _Comparison:
    """The pass over the records of the written file: each is what the plan makes of one of the source.

    `leaves`: those of the written file so far.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.leaves = Leaves()
        request = job.request
        keys = Keyring(()) if request.decrypt else request.writing
        # What keeps every byte opens with what it opened with before.
        reading = keys if not request.only_lost or request.reading is None else request.reading
        self._work = Work(reading, keys, request.randomness)
        self._old_bench, self._new_bench = job.workshop.bench(), job.workshop.bench()
        self._depth = None if job.workshop.depth is None else Depth.CHEAP
        self._watched = _watched(job)
        self._source = _Source(job)
        self._chunks = iter(self._source)
        self._old = next(self._chunks, None)
        self._row = 0
        self._added = deque(job.plan.edits.append)

    def look_at(self, file: Mapped) -> None:
        """Take records of that map from now on."""
        self._new_bench = Workshop(self._work, file, jobs=1).bench()

    def take(self, new: Records) -> None:
        """Compare the records of a chunk with those that should be there. Raises ReadBackFailed."""
        self._take_leaves(new)
        row = 0
        while row < len(new):
            old = self._next()
            if old is None:
                self._require_pair(new, row, self._added.popleft() if self._added else None)
                row += 1
            elif self._source.action[old.first_record + self._row] == REPLACE:
                self._require_pair(new, row, self.job.plan.edits.replace[old.first_record + self._row])
                self._row, row = self._row + 1, row + 1
            else:
                count = self._compare(old, self._row, new, row)
                self._row, row = self._row + count, row + count

    def _take_leaves(self, new: Records) -> None:
        """Note the leaves. Raises ReadBackFailed where one holds anything but its records."""
        leaves, tidy = new.leaves, memoryview(bytearray(new.leaves.leaves))
        page_size = self.job.opened.snapshot.database.page_size
        # What lies in an inline bucket is the business of its holder.
        if mark_tidy(new.view, leaves, page_size, tidy) < leaves.leaves and leaves.leaf_page[0]:
            raise ReadBackFailed("a page of the written file has bytes that belong to no record")
        self.leaves.add(leaves, new.view, tidy)

    def _next(self) -> Records | None:
        """Return the chunk of the source with the next record that has to be there; None when there is none left."""
        while (old := self._old) is not None:
            while self._row < len(old) and self._source.action[old.first_record + self._row] == DROP:
                self._row += 1
            if self._row < len(old):
                break
            self._old, self._row = next(self._chunks, None), 0
        return self._old

    @staticmethod
    def _require_pair(new: Records, row: int, expected: tuple[bytes, bytes] | None) -> None:
        if (new.stored_key(row), new.stored_value(row)) != expected:
            raise ReadBackFailed(f"record {new.first_record + row} of the written file is not the one that was added")

    def _compare(self, old: Records, x: int, new: Records, y: int) -> int:
        """Compare records from row `x` of the source and row `y` of the written file on; return how many."""
        count, actions = min(len(old) - x, len(new) - y), self._source.actions(old)
        if actions[x] == REBUILD:
            stored = replace_value(old.stored_value(x), new.value(y))
            count = int((old.stored_key(x), stored) == (new.stored_key(y), new.stored_value(y)))
        else:
            count = same_records(old.view, old, x, new.view, new, y, actions, count)
        if not count:
            raise ReadBackFailed("bytes that the request does not change are not the same in the written file")
        rows = [row for row in range(x, x + count) if self._watched[old.first_record + row]] if self._watched else []
        if rows:
            self._compare_values(old, rows, new, [row - x + y for row in rows])
        return count

    def _compare_values(self, old: Records, rows: list[int], new: Records, others: list[int]) -> None:
        """Open values of both files and compare. Raises ReadBackFailed for one that does not open to the same."""
        before, after, resource = self._old_bench, self._new_bench, words(len(new))
        for row, other in zip(rows, others, strict=True):
            resource[other] = self.job.swept.resource[old.first_record + row]
        before.open_all(self._source.batch(old, rows), self._depth)
        ways = after.open_all(self._source.batch_like(new, others, resource), None)
        same = same_plaintexts(before.values, _numbers(rows), after.values, _numbers(others))
        outcomes = {number: outcome_of(ways[number]) for number in {after.way[other] for other in others}}
        for row, other in zip(rows, others, strict=True):
            outcome = outcomes[after.way[other]]
            # What equals the source's plaintext is right, whatever it looks like.
            if not outcome.opened and not outcome.doubtful:
                where = f"{printable(new.user_key(other))}, record {new.first_record + other}"
                raise ReadBackFailed(f"{where}, does not open: {', '.join(outcome.reasons)}")
            is_sealed = self._source.action[old.first_record + row] in SEALED
            if is_sealed and is_stale(outcome, rewrapped=bool(self.job.request.rewraps)):
                raise ReadBackFailed(
                    "a value was written under another key than the first one of the new configuration"
                )
        if same < len(rows):
            raise ReadBackFailed(
                f"record {new.first_record + others[same]} of the written file opens to another plaintext than in the "
                "source"
            )

    def finish(self) -> Leaves:
        """Require that nothing is missing; return the leaves. Raises ReadBackFailed."""
        if self._next() is not None or self._added:
            found = sum(self.leaves.records)
            raise ReadBackFailed(f"more records were written than the {found} that were read back")
        return self.leaves

    def require_restored(self, written: Snapshot) -> None:
        """Open what came back from older revisions with the keys that write. Raises ReadBackFailed."""
        for one in self.job.plan.restored:
            dropped = bytes(self._source.action[: one.record]).count(DROP)
            record = written.record(one.record - dropped)
            stored = decode_key_value(written.stored_value(record)).value
            chain = self._work.writing.chain_for(one.resource.group_resource)
            outcome, plaintext = open_value(chain, stored, one.key)
            same = record.key == one.key and record.revision.main == one.revision
            if not same or plaintext is None or plaintext_digest(plaintext) != one.digest or outcome.stale:
                raise ReadBackFailed(f"{printable(one.key)} does not open to its older revision {one.from_revision}")


def _watched(job: Job) -> bytearray:
    """Mark the records whose value has to open to the same in both files. Raises ReadBackFailed for a sealed one.

    Plain values that stay are compared byte by byte, like all else that is not sealed; lost ones open in neither.
    """
    swept, action = job.swept, job.plan.action
    watched = bytearray(len(action))
    for record in swept.opened:
        watched[record] = (swept.header[record] != 0 and action[record] < DROP) or action[record] in SEALED
    if not all(compress(watched, action.translate(_IS_SEALED))):
        raise ReadBackFailed("values were sealed of which the source's plaintext is not known")
    for value in swept.lost:
        watched[value.record] = 0
    return watched if 1 in watched else bytearray()


class _Follower:
    """Reads the records of bucket `key` back while they are written: a thread, a window behind the writer.

    The leaves of a new tree stand one behind the other, so that they need no branch to be found. What leads to them is
    looked at when all is there, and has to lead to just these leaves, in this order.
    """

    def __init__(self, job: Job, draft: Draft) -> None:
        self.comparison = _Comparison(job)
        self.is_done = False
        self._job, self._draft = job, draft
        self._page_size = job.opened.snapshot.database.page_size
        self._first, self._end = 0, -1
        self._stopped = False
        self._windows: list[tuple[int, int, int]] = []
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="snaptool-read-back", daemon=True)

    def begin(self, page: int) -> None:
        """Begin with the leaf at a page, which is written next."""
        self._first = page
        self._thread.start()

    def end(self, page: int | None) -> None:
        """Say where the leaves end, before anything is written behind them. None: there are none, but one inline."""
        self._end, self._stopped = (self._first, True) if page is None else (page, self._stopped)
        self._draft.nudge()

    def check(self) -> None:
        """Raise what the thread has found, if anything."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            chunk, page, size = Chunk(), self._first, self._page_size
            while not self._stopped and page != self._end:
                # In this order: what is written once the end is known may be something else.
                written = self._draft.wait_written(page * size + _WINDOW, seconds=0.2) // size
                end = self._end
                until = written if end < 0 else min(written, end)
                if until > page and ((until - page) * size >= _WINDOW or until == end):
                    self._compare(page, until, chunk)
                    page = until
            self.is_done = not self._stopped and page == self._end
        except BaseException as error:  # noqa: BLE001 - raised again by who waits for it
            self._failure = error

    def _compare(self, page: int, until: int, chunk: Chunk) -> None:
        """Compare the leaves from one page to another."""
        file = self._draft.map_written(until * self._page_size)
        view = memoryview(file.buffer)
        walk = Walk(view, self._page_size, until)
        walk.begin_line(page, until)
        self.comparison.look_at(file)
        for records in _records(view, walk, chunk):
            if self._stopped:
                return
            self.comparison.take(records)
        self._windows.append((page, until, crc32c(view[page * self._page_size : until * self._page_size])))

    def require_unchanged(self, written: Snapshot) -> None:
        """Raise ReadBackFailed where the file is no longer what it was when it was compared."""
        for page, until, crc in self._windows:
            if crc32c(written.view[page * self._page_size : until * self._page_size]) != crc:
                raise ReadBackFailed("the written file changed after it was compared")
            written.database.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._thread.ident is None:
            return
        if kind is None:
            self._draft.flush()
            while self._thread.is_alive():
                self._thread.join(0.1)
                self._job.progress("verifying", len(self.comparison.leaves), max(self._end - self._first, 1))
            self.check()
        self._stopped = True
        self._draft.nudge()
        self._thread.join()


def _records(view: memoryview, walk: Walk, chunk: Chunk) -> Iterator[Records]:
    """Yield the records that a walk goes over, some at a time: one object, filled again and again."""
    records, reader = Records(view, chunk), RecordReader(view)
    while walk.fill(chunk):
        reader.read(records, refuse)
        yield records


def _numbers(listed: Sequence[int]) -> memoryview:
    return memoryview(array("q", listed))


def _read_back(draft: Draft, writer: _Writer, follower: _Follower | None = None) -> FileReport:
    """Read the written file with the new keys only, compare it with the source, append the SHA-256 of what was read.

    Every page and every byte is read. Raises ReadBackFailed, which names the first difference, and the FormatErrors of
    a broken file.
    """
    job = writer.job
    # Not closed: views into the map may outlive this, in an error that is under way above all.
    file = draft.read_back()
    written = Snapshot(file.buffer, file.release_memory)
    with hashing(draft) as digest:
        if follower is not None and follower.is_done:
            comparison = follower.comparison
        else:
            comparison = _Comparison(job)
            comparison.look_at(file)
            _compare_records(job, written, comparison)
        leaves = comparison.finish()
        comparison.require_restored(written)
        _compare_other_buckets(job, written)
        if follower is not None and follower.is_done:
            follower.require_unchanged(written)
        require_nothing_else(written, comparison.leaves)
        live = job.swept.live if job.plan.edits.is_empty else None
        return append_trailer(draft, digest(), written, leaves, live)


def _compare_records(job: Job, written: Snapshot, comparison: _Comparison) -> None:
    """Compare all records, once everything is written."""
    bucket = written.bucket(b"key")
    if bucket is None:
        raise ReadBackFailed("the written file has other buckets than the source")
    edits = job.plan.edits
    total = job.opened.snapshot.record_count - len(edits.drop) + len(edits.append)
    chunk, walk = Chunk(), written.database.new_walk()
    bucket.begin(walk)
    for turn, records in enumerate(_records(written.view, walk, chunk), 1):
        comparison.take(records)
        if turn % _LET_GO == 0:
            written.database.let_go()
        job.progress("verifying", records.first_record + len(records), total)


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
