"""The leaves of a source, piece by piece: as they are written, and as they have to be found in the written file.

The first pass has looked at every record. In the second one a leaf in which nothing changes is known by its page; only
those that are taken apart are read again, and those of which a value has to be opened in both files.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from snaptool.bolt import Chunk
from snaptool.bolt.building import Piece
from snaptool.bolt.reader import LET_GO
from snaptool.bolt.walk import CHUNK_RECORDS, CHUNK_SIZE
from snaptool.etcd import RecordReader, Records, refuse
from snaptool.etcd.comparing import looked_into, number_rows, rows_of_leaves, untouched
from snaptool.kube.cutting import rows_of, widened
from snaptool.operations.crypto import Batch
from snaptool.operations.judging import Depth
from snaptool.operations.plan import SEALED, Job
from snaptool.providers.values import gathered, words
from snaptool.sources import source_changed

OPENED = 2 * CHUNK_RECORDS, 2 * CHUNK_SIZE
"""Records, and bytes of pages, after which a chunk ends whose values are opened; measured."""

_MOST = 512
"""Leaves of a piece: what is handed over at once."""

_IS_SEALED = memoryview(bytes(action in SEALED for action in range(256)))


@dataclass(frozen=True, slots=True)
class Looked:
    """Records that are looked into. By row: `number` in the bucket, `action`, `watched`, `resource`.

    `watched`: 1 where the value has to open to the same in both files; empty where that is nowhere so. `leaves`: the
    numbers of their leaves, where a pass before has seen these, or empty.
    """

    records: Records
    number: memoryview
    action: memoryview
    watched: memoryview
    resource: memoryview
    leaves: memoryview


class Part(Piece):
    """A piece, and the records of it that are looked into. `crcs`: of its leaves, where they are known."""

    def __init__(
        self,
        page: memoryview,
        span: memoryview,
        whole: memoryview,
        rows: tuple[memoryview, memoryview],
        looked: Looked,
        crcs: memoryview,
    ) -> None:
        super().__init__(page, span, whole, rows, looked.records.leaves, looked.action)
        self.looked, self.crcs = looked, crcs


class Pieces:
    """The source of a job in pieces, by what becomes of its records.

    `watched`: by number of the record, 1 where its value has to open to the same in both files; or empty. `depth`: how
    closely to look at what values of the source open to.
    """

    def __init__(self, job: Job, watched: bytearray) -> None:
        self._job, self._watched = job, watched
        self._snapshot = job.opened.snapshot
        self.view = self._snapshot.view
        self._resources = tuple(known.group_resource for known in job.swept.resources)
        # All else of what was judged in the first pass leaves the plaintext as it is.
        self.depth = Depth.CHEAP if any(outcome.headless for outcome in job.swept.outcomes) else None
        nothing = Records(self.view, Chunk(0))
        nothing.make_room()
        self._nothing = Looked(nothing, words(0), _NONE, _NONE, words(0), words(0))
        self._passed = 0

    def __iter__(self) -> Iterator[Part]:
        for _, parts in self.by_batch(self._snapshot.chunks()):
            yield from parts

    def by_batch(self, chunks: Iterable[Records]) -> Iterator[tuple[Looked, Iterator[Part]]]:
        """Yield records to look into, and the pieces that they belong to. All stays good.

        `chunks`: all records, where leaves are not to be found by their numbers.
        """
        bucket = self._snapshot.bucket(b"key")
        if self._job.passing is None and bucket is not None and bucket.root and len(self._job.leaves):
            yield from self._by_number()
            return
        for records in chunks:
            yield self._chunk(records)

    def batch(self, looked: Looked) -> Batch:
        """Name the values that are to be sealed."""
        return self.values(looked.records, rows_of(looked.action, _IS_SEALED), looked.resource, self.depth)

    def values(self, records: Records, rows: memoryview, resource: memoryview, depth: Depth | None = None) -> Batch:
        """Name the values of some records. `resource`: by row, the number that it has in the source."""
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
            rows=rows,
            depth=depth,
        )

    def _by_number(self) -> Iterator[tuple[Looked, Iterator[Part]]]:
        leaves, action = self._job.leaves, memoryview(self._job.plan.action)
        whole = memoryview(bytearray(len(leaves)))
        columns = memoryview(leaves.records), memoryview(leaves.tidy)
        chosen, starts = looked_into(*columns, action, memoryview(self._watched), whole)
        walk, chunk = self._snapshot.database.new_walk(), Chunk(*OPENED)
        records, reader = Records(self.view, chunk), RecordReader(self.view)
        walk.begin_named(gathered(chosen, memoryview(leaves.page)))
        done = leaf = 0
        while walk.fill(chunk):
            reader.read(records, refuse)
            end = done + chunk.leaves
            number = words(len(records))
            here = chosen[done:end]
            if not number_rows(here, starts[done:end], columns[0], chunk.leaf_start, number):
                self._job.opened.source.check_unchanged()
                raise source_changed(self._job.opened.path)
            looked = self._looked(records.kept(), number, here)
            until = chosen[end] if end < len(chosen) else len(leaves)
            yield looked, self._parts(looked, whole, leaf, until)
            done, leaf = end, until
        if leaf < len(leaves):
            yield self._nothing, self._parts(self._nothing, whole, leaf, len(leaves))

    def _looked(self, records: Records, number: memoryview, leaves: memoryview) -> Looked:
        """Say what becomes of the records of these leaves, which have these numbers."""
        job = self._job
        resource = memoryview(array("q", map(job.swept.resource.__getitem__, number)))
        return Looked(records, number, _marks(job.plan.action, number), _marks(self._watched, number), resource, leaves)

    def _parts(self, looked: Looked, whole: memoryview, first: int, until: int) -> Iterator[Part]:
        """Yield the leaves from one number to another, with the records of them that are looked into."""
        leaves, database = self._job.leaves, self._snapshot.database
        page, span, crc = (memoryview(one) for one in (leaves.page, leaves.span, leaves.crc))
        for begin in range(first, until, _MOST):
            end = min(begin + _MOST, until)
            rows = rows_of_leaves(looked.leaves, looked.records.leaves.leaf_start, begin, end - begin)
            part = Part(page[begin:end], widened(span[begin:end]), whole[begin:end], rows, looked, crc[begin:end])
            yield part
            self._passed += sum(part.span) * database.page_size
            if self._passed >= LET_GO:
                database.let_go()
                self._passed = 0

    def _chunk(self, records: Records) -> tuple[Looked, Iterator[Part]]:
        """Make a piece of a chunk, with all its records, unless they are all copied in whole leaves."""
        job, leaves, count = self._job, records.leaves, len(records)
        whole = memoryview(bytearray(job.leaves.tidy_of(leaves)))
        page, span = (
            memoryview(bytearray(one[: leaves.leaves])).cast("q") for one in (leaves.leaf_page, leaves.leaf_span)
        )
        rows = words(len(whole)), words(len(whole))
        looked = self._nothing
        if job.passing is None or 0 in bytes(whole):
            kept = records.kept()
            rows = kept.leaves.leaf_start[: len(whole)], kept.leaves.leaf_start[1 : len(whole) + 1]
            number = memoryview(array("q", range(records.first_record, records.first_record + count)))
            looked = Looked(kept, number, memoryview(bytearray(count)), _NONE, words(count), words(0))
            if job.passing is None:
                first = leaves.first_leaf
                looked = self._looked(kept, number, memoryview(array("q", range(first, first + len(whole)))))
                untouched(leaves, looked.action, whole)
        return looked, iter((Part(page, span, whole, rows, looked, _NO_SUMS),))


_NONE = memoryview(bytearray(0))
_NO_SUMS = memoryview(array("I"))


def _marks(column: bytearray, numbers: memoryview) -> memoryview:
    """Return the marks of some records; nothing where there are none at all."""
    return memoryview(bytearray(map(column.__getitem__, numbers))) if column else _NONE
