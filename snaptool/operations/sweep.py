"""One pass over the records of a snapshot: what each is called, what opens it, and which of them are live.

Everything that reads whole snapshots is built on this pass: `inspect` and `verify` count its results, `rewrite`
decides by them. It goes chunk by chunk: what it remembers of a record is four numbers and two marks; a Python object is
made for lost values only.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from snaptool.bolt import Walk, numbers
from snaptool.etcd import REPEATED_VALUE, TOMBSTONE, Records, Revision, Snapshot
from snaptool.kube.cutting import count_labels, narrowed, put_at, renumber, shortened
from snaptool.kube.undecodable import ExpectedType
from snaptool.operations.crypto import Batch, OpenedBatch, Outcome, Workshop
from snaptool.operations.judging import NOTHING_DEFINED, Depth, Doubts, expected_of, is_listed
from snaptool.operations.labels import Header, Labels, Resource
from snaptool.providers.values import gathered

NOT_OPENED = 0
"""Outcome number of records that nobody tried to open: tombstones, and everything when there are no keys."""

NOTHING_TRIED = Outcome(opened=True, kind=None, key_name="", position=(), stale=False)


class Counted(Protocol):
    """What a sweep has counted: see `Sweep`."""

    @property
    def resources(self) -> tuple[Resource, ...]:
        """By number."""

    @property
    def headers(self) -> tuple[Header, ...]:
        """By number."""

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """By number."""

    @property
    def counts(self) -> Counter[tuple[int, int, int, int]]:
        """See `Sweep`."""


class Progress(Protocol):
    """Told how far a step is: `done` of `total` units."""

    def __call__(self, step: str, done: int, total: int) -> None:
        """Take note."""


def no_progress(step: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


Wanted = Callable[[Records, Labels, list[int]], list[int]]
"""Which values of a chunk to open: some of the given rows, which are those of encrypted values."""


def encrypted_values(_records: Records, _labels: Labels, rows: list[int]) -> list[int]:
    """Want every value with an encryption header: plaintext needs no opening to be judged."""
    return rows


def nothing(_records: Records, _labels: Labels, _rows: list[int]) -> list[int]:
    """Want no value: there are no keys."""
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class LostValue:
    """A value that does not open, or that no API server can decode: see its `outcome`.

    `record` is its number; `live`: it is the current value of its key.
    """

    record: int
    key: bytes
    revision: Revision
    live: bool
    resource: Resource
    header: Header
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a pass found. Arrays are by record number.

    `resource`, `header`, `outcome`: indices into `resources`, `headers`, `outcomes`. `outcomes[0]` stands for records
    that were not opened. `tombstone`, `live`: a byte each, 0 or 1. `repeated`: records with several value fields.
    `opened`: the records that were opened, ascending; `stored_sizes`, `plain_sizes`: of their values and plaintexts, 0
    where there is none. `value_bytes`: bytes of stored values by resource and header; values without a byte are not in.
    """

    resources: tuple[Resource, ...]
    headers: tuple[Header, ...]
    outcomes: tuple[Outcome, ...]
    resource: array[int]
    header: array[int]
    outcome: array[int]
    tombstone: bytearray
    live: bytearray
    repeated: array[int]
    opened: array[int]
    stored_sizes: array[int]
    plain_sizes: array[int]
    value_bytes: Mapping[tuple[int, int], int]
    lost: tuple[LostValue, ...]
    undecodable: tuple[LostValue, ...] = ()

    @cached_property
    def counts(self) -> Counter[tuple[int, int, int, int]]:
        """How many values there are of each resource, header, outcome and age: 1 for current values, 0 for old ones."""
        labels = memoryview(self.resource), memoryview(self.header), memoryview(self.outcome)
        return Counter(count_labels(*labels, memoryview(self.live), memoryview(self.tombstone)))


NOTHING_SWEPT = Sweep(
    resources=(),
    headers=(),
    outcomes=(NOTHING_TRIED,),
    resource=array("I"),
    header=array("H"),
    outcome=array("H"),
    tombstone=bytearray(),
    live=bytearray(),
    repeated=array("q"),
    opened=array("q"),
    stored_sizes=array("I"),
    plain_sizes=array("I"),
    value_bytes={},
    lost=(),
)
"""What is known before a pass."""


def sweep(
    snapshot: Snapshot,
    labels: Labels,
    workshop: Workshop | None,
    *,
    wanted: Wanted = encrypted_values,
    observers: Sequence[Callable[[Records], None]] = (),
    progress: Progress = no_progress,
    step: str = "reading",
    walk: Walk | None = None,
) -> Sweep:
    """Pass over every record once, in order.

    `workshop` opens the values that `wanted` picks, and plain ones that it has to judge; without one nothing is
    opened. `observers` see the records of every chunk as it goes by. `walk`: one that has other trees behind it.
    """
    going = Passing(snapshot, labels, workshop, observers, progress, step, walk)
    if workshop is None:
        for _ in going:
            pass
        return going.result()
    doubts = None if workshop.depth is None else Doubts(workshop.depth)

    def batches() -> Iterator[Batch]:
        for records in going:
            rows = [row for row in wanted(records, labels, going.encrypted) if not records.flags[row] & TOMBSTONE]
            if doubts is not None:
                doubted = doubts.rows(records, labels, going.notes.expected())
                rows = sorted({*rows, *doubted}) if doubted else rows
            if rows:
                yield batch_of(records, rows, labels, workshop.depth)

    for batch, answer in workshop.opened(batches()):
        going.notes.take_answer(batch, answer)
    return going.result()


class Passing:
    """A sweep as it goes: the records, chunk by chunk, for whoever has to do with them meanwhile; see `sweep`.

    `encrypted`: the rows of the encrypted values of the last chunk.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        labels: Labels,
        workshop: Workshop | None,
        observers: Sequence[Callable[[Records], None]],
        progress: Progress,
        step: str = "reading",
        walk: Walk | None = None,
    ) -> None:
        self.notes = _Notes(labels, workshop)
        self.encrypted: list[int] = []
        self._snapshot = snapshot
        self._observers = observers
        self._progress, self._step = progress, step
        self._walk = walk or snapshot.database.new_walk()

    def __iter__(self) -> Iterator[Records]:
        pages = self._snapshot.database.high_water_mark
        for records in self._snapshot.chunks(walk=self._walk):
            self.encrypted = self.notes.take(records)
            for observe in self._observers:
                observe(records)
            self._progress(self._step, self._walk.pages_seen(), pages)
            yield records
        self._progress(self._step, pages, pages)

    def result(self) -> Sweep:
        """Return what was found, once all went by."""
        return self.notes.finish(self._snapshot.live())


def batch_of(records: Records, rows: list[int], labels: Labels, depth: Depth | None) -> Batch:
    """Take the records of these rows out of a chunk, whose labels are the last that were added, as one batch."""
    chosen = memoryview(array("q", rows))
    return Batch(
        resources=labels.group_resources,
        resource=gathered(chosen, labels.resource),
        record=array("q", [records.first_record + row for row in rows]),
        key_pos=gathered(chosen, records.key_at),
        key_len=gathered(chosen, records.key_size),
        value_pos=gathered(chosen, records.value_at),
        value_len=gathered(chosen, records.value_size),
        main=gathered(chosen, records.main),
        sub=gathered(chosen, records.sub),
        depth=depth,
    )


_IS_TOMBSTONE = bytes(number & TOMBSTONE for number in range(256))


class _Notes:
    """What the pass collects on its way."""

    def __init__(self, labels: Labels, workshop: Workshop | None) -> None:
        self._labels = labels
        self._workshop = workshop
        self._resource, self._header, self._outcome = array("I"), array("H"), array("H")
        self._tombstone = bytearray()
        self._repeated, self._opened = array("q"), array("q")
        self._stored_sizes, self._plain_sizes = array("I"), array("I")
        self._outcomes = {NOTHING_TRIED: NOT_OPENED}
        self._plain_outcome = array("q")
        self._refused: set[int] = set()
        self._named: dict[int, tuple[bytes, Revision, int]] = {}
        self._expected: list[ExpectedType | None] = []

    def take(self, records: Records) -> list[int]:
        """Take the records of a chunk; return the rows of the encrypted values."""
        encrypted = self._labels.add(records)
        resource, flags = self._labels.resource, bytes(records.flags[: len(records)])
        self._resource.frombytes(narrowed(resource))
        self._header.frombytes(shortened(self._labels.header))
        self._tombstone += flags.translate(_IS_TOMBSTONE)
        if any(flag & REPEATED_VALUE for flag in set(flags)):
            self._repeated.extend(records.first_record + row for row, flag in enumerate(flags) if flag & REPEATED_VALUE)
        self._judge_plaintext(records, resource, encrypted)
        return encrypted

    def expected(self) -> list[ExpectedType | None]:
        """What values have to be, by number of their resource."""
        known = self._labels.resources[len(self._expected) :]
        defined = NOTHING_DEFINED if self._workshop is None else self._workshop.defined
        self._expected += [expected_of(one.group_resource, defined) for one in known]
        return self._expected

    def _judge_plaintext(self, records: Records, resource: memoryview, encrypted: Sequence[int]) -> None:
        """Find plaintext that its chain refuses. The answer is the same for every plaintext of a resource."""
        first = records.first_record
        if self._workshop is None:
            self._outcome.frombytes(bytes(2 * len(records)))
            return
        for number, known in enumerate(self._labels.resources[len(self._plain_outcome) :], len(self._plain_outcome)):
            outcome = self._workshop.judge_plaintext(known.group_resource)
            self._plain_outcome.append(self._number_of(outcome))
            if not outcome.opened:
                self._refused.add(number)
        found = numbers(len(records))
        renumber(resource, memoryview(self._plain_outcome), len(records), found)
        self._outcome.frombytes(shortened(found))
        for row in encrypted:
            self._outcome[first + row] = NOT_OPENED
        deleted = self._tombstone.find(1, first)
        while deleted >= 0:
            self._outcome[deleted] = NOT_OPENED
            deleted = self._tombstone.find(1, deleted + 1)
        if self._refused:
            for row, number in enumerate(resource):
                if number in self._refused and not self._labels.header[row] and records.is_put(row):
                    key, outcome_number = records.user_key(row), self._plain_outcome[number]
                    self._named[first + row] = key, records.revision(row), outcome_number

    def _number_of(self, outcome: Outcome) -> int:
        return self._outcomes.setdefault(outcome, len(self._outcomes))

    def take_answer(self, batch: Batch, answer: OpenedBatch) -> None:
        numbers = memoryview(array("q", map(self._number_of, answer.outcomes)))
        self._opened.extend(batch.record)
        self._stored_sizes.frombytes(narrowed(batch.value_len))
        self._plain_sizes.frombytes(narrowed(answer.sizes))
        put_at(batch.record, gathered(answer.outcome, numbers), memoryview(self._outcome))
        for row, key in answer.named_keys.items():
            record, place = batch.record[row], answer.outcome[row]
            outcome = answer.outcomes[place]
            if outcome.fault is not None and not outcome.headless and not is_listed(key, self._labels.prefixes):
                self._outcome[record] = self._number_of(replace(outcome, fault=None))
            else:
                self._named[record] = key, Revision(batch.main[row], batch.sub[row]), numbers[place]

    def finish(self, live: bytearray) -> Sweep:
        resources, headers = tuple(self._labels.resources), self._labels.named_headers()
        outcomes = tuple(self._outcomes)
        named = [
            LostValue(
                record=record,
                key=key,
                revision=revision,
                live=bool(live[record]),
                resource=resources[self._resource[record]],
                header=headers[self._header[record]],
                outcome=outcomes[number],
            )
            for record, (key, revision, number) in sorted(self._named.items())
        ]
        return Sweep(
            resources=resources,
            headers=headers,
            outcomes=outcomes,
            resource=self._resource,
            header=self._header,
            outcome=self._outcome,
            tombstone=self._tombstone,
            live=live,
            repeated=self._repeated,
            opened=self._opened,
            stored_sizes=self._stored_sizes,
            plain_sizes=self._plain_sizes,
            value_bytes=self._labels.value_bytes(),
            lost=tuple(value for value in named if not value.outcome.opened),
            undecodable=tuple(value for value in named if value.outcome.opened),
        )
