"""The direct engine: from file to file, with every byte that the request does not change, and the whole history.

Leaves in which nothing changes are carried over by their pages; the others are taken apart, and put together again from
stretches of the source and newly sealed values. Meanwhile, or afterwards where the file is small, the new file is read
back: every record is compared with the source's, whole, or around its value, and the values by what both open to, the
new one with the new keys.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

from snaptool.bolt import Bucket, BucketWriter, Chunk, DatabaseWriter, Sink
from snaptool.bolt.building import spans_of
from snaptool.bolt.layout import Meta
from snaptool.bolt.writer import BLOCK_SIZE, Exchange
from snaptool.errors import FormatError
from snaptool.etcd import (
    BUCKETS,
    NO_EDITS,
    Edits,
    Snapshot,
    compact,
    delete_lost,
    merge,
    replace_value,
    set_values,
)
from snaptool.etcd.comparing import resize
from snaptool.etcd.leaves import Leaves
from snaptool.files import Draft, require_room
from snaptool.operations.crypto import (
    Batch,
    Workshop,
)
from snaptool.operations.labels import Labels
from snaptool.operations.older import OlderValues
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.pieces import Looked, Part, Pieces
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
    Ways,
    changes,
    deletions,
    doomed,
    require_encryption,
    restorations,
)
from snaptool.operations.reading_back import Comparison, Follower, compare_records, require_same
from snaptool.operations.sweep import Sweep
from snaptool.operations.written import (
    FileReport,
    ReadBackFailed,
    append_trailer,
    hashing,
    require_nothing_else,
)
from snaptool.providers.values import Sealed as SealedValues
from snaptool.providers.values import words
from snaptool.sources import SourceChanged


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
        return self.copy(job, draft)[0]

    def copy(self, job: Job, draft: Draft) -> tuple[FileReport, Leaves]:
        """Do so, and return the new leaves of bucket `key` too."""
        follower = forecast = None
        if job.opened.source.size >= FOLLOWED_FROM:
            forecast = _forecast(job)
            follower = Follower(job, draft, keeps_sums=forecast is None)
        writer = _Writer(job, forecast)
        try:
            with follower or nullcontext():
                if forecast is not None:
                    require_room(draft.target, forecast.high_water_mark * forecast.page_size)
                    draft.hash_blocks()
                    draft.drop_behind()
                writer.write(draft, draft.exchange, follower)
            draft.start_syncing()
            report = _read_back(draft, writer, follower)
        except (FormatError, ReadBackFailed) as error:
            job.opened.source.check_unchanged()  # the file was held against a source that is no longer there
            if isinstance(error, ReadBackFailed | SourceChanged) or writer.is_reading:
                raise
            # It is not the input that is damaged.
            raise ReadBackFailed(f"the written file is broken: {error}") from error
        return report, writer.leaves

    def rehearse(self, job: Job) -> None:
        """Write into nothing."""
        nowhere = _Nowhere()
        _Writer(job).write(nowhere, nowhere.exchange)


class _Nowhere:
    """A sink that keeps nothing: dry runs do all the work into it."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the bytes and forget them."""

    def seek(self, offset: int) -> None:
        """Do nothing: there is no position."""

    def exchange(self, block: memoryview, used: int, size: int) -> memoryview:  # noqa: ARG002 - nobody looks at them
        """Forget the bytes; the block is good again."""
        return block if len(block) >= size else memoryview(bytearray(max(size, BLOCK_SIZE)))


_GOES = bytes(action >= DROP for action in range(256))


def _decide(
    snapshot: Snapshot,
    swept: Sweep,
    labels: Labels,
    workshop: Workshop,
    request: RewriteRequest,
    older: OlderValues,
) -> Plan:
    ways = Ways(swept, workshop, only_lost=request.only_lost)
    restored, stored = restorations(swept, older, workshop, request)
    if not (request.decrypt or request.allow_plaintext):
        require_encryption(ways.ways, ways.values(), restored, request.writing)
    action = ways.actions()
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
        changes=changes(ways, gone, restored),
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


def _forecast(job: Job) -> Meta | None:
    """Say what meta the new file will have, from sizes alone; None where these are not known.

    With it the file is written, and hashed, from its start to its end.
    """
    snapshot, edits, actions = job.opened.snapshot, job.plan.edits, job.plan.action
    growths = [job.workshop.growth(known.group_resource) for known in job.swept.resources]
    if edits.append or edits.replace or REBUILD in actions or (RESEAL in actions and None in growths):
        return None
    nowhere, database = _Nowhere(), snapshot.database
    writer = DatabaseWriter(nowhere, page_size=database.page_size, txid=database.meta.txid, exchange=nowhere.exchange)
    for name, bucket, out in _each_bucket(writer, snapshot):
        if name != b"key":
            for key, value in _edited(name, bucket, edits):
                out.put(key, value)
        elif job.passing is not None:
            _measure_copy(out, bucket, job.opened)
        else:
            _measure(out, job, growths)
    return writer.finish()


def _measure_copy(out: BucketWriter, bucket: Bucket | None, opened: OpenedSnapshot) -> None:
    """Allot pages to all leaves of a bucket as if they were tidy, and all as deep in the tree as the first one.

    Few are looked at, and none is mapped: a leaf has one page where the next page is another one of the tree.
    """
    if bucket is None or not bucket.root:
        return
    walk, chunk = bucket.new_walk(), Chunk(_MANY, 0)
    walk.to_key(b"")
    depth = len(walk.path()) - 1
    if depth == 0 and walk.skim(chunk):
        out.measure_carried(chunk)
        return
    first, second = bucket.new_walk(), bucket.new_walk()
    for walk in first, second:
        walk.assume_leaves(depth)
    used, page_size = first.reached_pages(), opened.snapshot.database.page_size
    while first.skim(chunk):
        for page in chunk.leaf_page[: chunk.leaves]:
            used[page] = 1
    used = used + b"\1"  # the end of the file
    while second.skim(chunk):
        pages, source = chunk.leaf_page[: chunk.leaves], opened.source
        spans_of(pages, memoryview(used), source.fileno(), source.begin, page_size, chunk.leaf_span)
        out.measure_carried(chunk)


def _measure(out: BucketWriter, job: Job, growths: Sequence[tuple[int, int] | None]) -> None:
    """Allot pages to what becomes of all records."""
    leaves, swept, action = job.leaves, job.swept, memoryview(job.plan.action)
    sizes = memoryview(leaves.sizes[:])
    growth = memoryview(array("q", [number for one in growths for number in one or (0, 1)]))
    before, plain, resource = (memoryview(one) for one in (swept.stored_sizes, swept.plain_sizes, swept.resource))
    resize(sizes, memoryview(swept.opened), before, plain, action, resource, growth)
    span, records, tidy, key_sizes = (
        memoryview(one) for one in (leaves.span, leaves.records, leaves.tidy, leaves.key_sizes)
    )
    out.measure(span, records, tidy, action, key_sizes, sizes)


FOLLOWED_FROM = 16 << 20
"""Bytes of a source from which on the new file is read back while it is written."""

_MANY = 8192
"""Leaves at a time, of which headers and first keys alone are looked at."""


class _Writer:
    """Writes what a job says. `carried`: how many leaves of the source were carried over whole.

    `is_as_forecast`: the new file has the meta that was forecast, and was written from its start to its end. `leaves`:
    those of its bucket `key`, once they were read back.
    """

    def __init__(self, job: Job, forecast: Meta | None = None) -> None:
        self.job = job
        self.carried = 0
        self.is_as_forecast = False
        self.leaves = Leaves()
        self._forecast = forecast
        self.is_reading = True
        self._leaves = 0

    def write(self, sink: Sink, exchange: Exchange, follower: Follower | None = None) -> None:
        """Write every record of the source by its action: the whole database but for the trailer."""
        snapshot, edits = self.job.opened.snapshot, self.job.plan.edits
        writer = DatabaseWriter(
            sink,
            page_size=snapshot.database.page_size,
            txid=snapshot.database.meta.txid,
            exchange=exchange,
            forecast=self._forecast,
        )
        for name, bucket, out in _each_bucket(writer, snapshot):
            if name == b"key":
                self._write_records(out, follower)
                continue
            for key, value in _edited(name, bucket, edits):
                out.put(key, value)
        self.is_as_forecast = writer.finish() == self._forecast
        self.is_reading = False

    def _write_records(self, out: BucketWriter, follower: Follower | None) -> None:
        if follower is not None:
            follower.begin(out.next_page)
        pieces = Pieces(self.job, bytearray()) if follower is None else follower.comparison.pieces
        waiting = deque[tuple[Looked, Iterator[Part]]]()
        for _, sealed in self.job.workshop.resealed(self._batches(pieces, waiting)):
            looked, parts = waiting.popleft()
            if follower is None:
                require_same(self.job, looked)
            for part in parts:
                if follower is not None:
                    follower.hand_over(part)
                self._write_piece(out, pieces.view, part, sealed)
        for key, value in self.job.plan.edits.append:
            out.put(key, value)
        if follower is not None:
            follower.end(None if out.is_small else out.end_leaves())

    def _batches(self, pieces: Pieces, waiting: deque[tuple[Looked, Iterator[Part]]]) -> Iterator[Batch]:
        """Yield the values to seal, none at all for many a chunk."""
        for looked, parts in pieces.by_batch(self.job.passing or self.job.opened.snapshot.chunks()):
            waiting.append((looked, parts))
            yield pieces.batch(looked)

    def _write_piece(self, out: BucketWriter, view: memoryview, part: Part, sealed: SealedValues) -> None:
        """Write leaves, and by themselves those records of them that are made one by one."""
        records, number, action = part.looked.records, part.looked.number, part.looked.action
        page_size, at = self.job.opened.snapshot.database.page_size, words(2)
        fields, values = (records.field_at, records.field_size), sealed.places()
        at[1] = -1
        while out.put_piece(view, part, page_size, fields, values, at):
            row = at[1]
            if action[row] == REPLACE:
                out.put(*self.job.plan.edits.replace[number[row]])
            else:
                out.put(records.stored_key(row), replace_value(records.stored_value(row), bytes(sealed.value(row))))
            at[1] = row + 1
        self.carried += sum(part.whole)
        if self.job.passing is None:
            self._leaves += len(part.whole)
            self.job.progress("writing", self._leaves, len(self.job.leaves))


def _read_back(draft: Draft, writer: _Writer, follower: Follower | None = None) -> FileReport:
    """Read the written file with the new keys only, compare it with the source, append its SHA-256.

    Every page and every byte is read. Raises ReadBackFailed, which names the first difference, and the FormatErrors of
    a broken file.
    """
    job = writer.job
    # Not closed: views into the map may outlive this, in an error that is under way above all.
    file = draft.read_back()
    written = Snapshot(file.buffer, file.release_memory)
    if follower is not None and not (follower.is_done and (writer.is_as_forecast or follower.keeps_sums)):
        follower = None
    with nullcontext(draft.digests_of_blocks) if writer.is_as_forecast else hashing(draft) as digest:
        if follower is not None:
            comparison = follower.comparison
        else:
            comparison = Comparison(job)
            comparison.look_at(file)
            compare_records(job, written, comparison)
        writer.leaves = leaves = comparison.finish()
        comparison.require_restored(written)
        _compare_other_buckets(job, written)
        if follower is not None:
            follower.require_unchanged(written)
        require_nothing_else(written, leaves, in_line=follower is not None)
        live = job.opened.snapshot.live() if job.plan.edits.is_empty else None
        return append_trailer(draft, digest(), written, leaves, live)


def _each_bucket(writer: DatabaseWriter, snapshot: Snapshot) -> Iterator[tuple[bytes, Bucket | None, BucketWriter]]:
    """Yield the buckets to write: name, that of the source, if it has one, and where its records go."""
    buckets = snapshot.database.buckets()
    for name in sorted({*buckets, *BUCKETS}):
        bucket = buckets.get(name)
        with writer.bucket(name, bucket.sequence if bucket is not None else 0) as out:
            yield name, bucket, out


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
