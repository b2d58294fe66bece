"""The sweep as columns of numpy, for the writing side until that goes over chunks too. See `sweep`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from snaptool.bolt import LeafChunk, blocks
from snaptool.etcd import RecordChunk, Revision, Snapshot
from snaptool.kube import ExpectedType
from snaptool.operations.crypto import BATCH_BYTES, BATCH_VALUES, DIGEST_SIZE, Batch, OpenedBatch, Outcome, Workshop
from snaptool.operations.judging import NOTHING_DEFINED, expected_of, is_listed
from snaptool.operations.label_columns import ColumnLabels, doubted
from snaptool.operations.labels import Header, Labels, Resource
from snaptool.operations.sweep import NOT_OPENED, NOTHING_TRIED, LostValue, Progress, no_progress

Item = TypeVar("Item", bound=np.generic)

_STRETCH = 1 << 19

Wanted = Callable[[RecordChunk, NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
"""Which records of a chunk to open, given the numbers of their resources and headers."""


def encrypted_values(_chunk: RecordChunk, _resource: NDArray[np.int64], header: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Want every value with an encryption header: plaintext needs no opening to be judged."""
    wanted: NDArray[np.bool_] = header != 0
    return wanted


def nothing(_chunk: RecordChunk, _resource: NDArray[np.int64], header: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Want no value: there are no keys."""
    return np.zeros(len(header), dtype=np.bool_)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a pass found. Arrays are by record number.

    `resource`, `header`, `outcome`: indices into `resources`, `headers`, `outcomes`. `outcomes[0]` stands for records
    that were not opened. `repeated`: records with several value fields. `opened`: the records whose plaintext was
    digested, ascending; `digests` has a row for each. `value_bytes`: bytes of stored values by resource and header,
    for those pairs that occur.
    """

    resources: tuple[Resource, ...]
    headers: tuple[Header, ...]
    outcomes: tuple[Outcome, ...]
    resource: NDArray[np.uint32]
    header: NDArray[np.uint16]
    outcome: NDArray[np.uint16]
    tombstone: NDArray[np.bool_]
    live: NDArray[np.bool_]
    repeated: NDArray[np.int64]
    opened: NDArray[np.int64]
    digests: NDArray[np.uint8]
    value_bytes: Mapping[tuple[int, int], int]
    lost: tuple[LostValue, ...]
    undecodable: tuple[LostValue, ...] = ()

    def stretches(self) -> Iterator[slice]:
        """Cut the records into stretches: what is made of all of them at once takes more room than they do."""
        for start in range(0, len(self.resource), _STRETCH):
            yield slice(start, start + _STRETCH)

    @cached_property
    def counts(self) -> Counter[tuple[int, int, int, int]]:
        """How many values there are of each resource, header, outcome and age: 1 for current values, 0 for old ones."""
        counts: Counter[tuple[int, int, int, int]] = Counter()
        for some in self.stretches():
            values = ~self.tombstone[some]
            found, times = np.unique(self.codes(some)[values] << 1 | self.live[some][values], return_counts=True)
            for code, count in zip(found.tolist(), times.tolist(), strict=True):
                counts[code >> 33, code >> 17 & 0xFFFF, code >> 1 & 0xFFFF, code & 1] += count
        return counts

    def codes(self, some: slice) -> NDArray[np.int64]:
        """Pack resource, header and outcome of some records into one number each: 32, 16 and 16 bits."""
        high = (self.resource[some].astype(np.int64) << 16) | self.header[some]
        return (high << 16) | self.outcome[some]


def sweep(
    snapshot: Snapshot,
    some: Labels,
    workshop: Workshop | None,
    *,
    wanted: Wanted = encrypted_values,
    observers: Sequence[Callable[[LeafChunk], None]] = (),
    progress: Progress = no_progress,
    step: str = "reading",
) -> Sweep:
    """Pass over every record once, in order.

    `workshop` opens the values that `wanted` picks, and plain ones that it has to judge; without one nothing is
    opened. `observers` see the leaves of every chunk as it goes by.
    """
    labels = ColumnLabels.of(some)
    notes = _Notes(labels, workshop)

    def batches() -> Iterator[Batch]:
        for chunk in snapshot.records():
            for observe in observers:
                observe(chunk.leaves)
            resource, header = notes.take(chunk)
            progress(step, chunk.first_leaf + len(chunk.leaf_page), chunk.total_leaves)
            if workshop is None:
                continue
            chosen = wanted(chunk, resource, header) & ~chunk.tombstone
            if workshop.depth is not None:
                chosen |= doubted(chunk, resource, header, notes.expected(), workshop.depth)
            (rows,) = np.nonzero(chosen)
            yield from make_batches(chunk, rows, resource, labels)

    if workshop is None:
        for _ in batches():
            pass
    else:
        for batch, answer in workshop.opened(batches()):
            notes.take_answer(batch, answer)
    return notes.finish(snapshot.live_mask())


def make_batches(
    chunk: RecordChunk, rows: NDArray[np.int64], resource: NDArray[np.int64], labels: Labels
) -> Iterator[Batch]:
    """Cut the records `rows` of `chunk` into batches; `resource` has the resource numbers of the whole chunk."""
    for some in batches_of(rows, chunk.value_len[rows]):
        # Those of this batch alone go to a worker: a file may have any number of resources.
        numbers, number = np.unique(resource[some], return_inverse=True)
        yield Batch(
            resources=tuple(labels.resources[one].group_resource for one in numbers.tolist()),
            resource=number,
            record=some + chunk.first_record,
            key_pos=chunk.key_pos[some],
            key_len=chunk.key_len[some],
            value_pos=chunk.value_pos[some],
            value_len=chunk.value_len[some],
            main=chunk.main[some],
            sub=chunk.sub[some],
        )


def batches_of(rows: NDArray[np.int64], sizes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Cut rows into batches; `sizes` are those of the stored values in the same order. Of no rows comes no batch."""
    for block in blocks((np.arange(1, len(rows) + 1), BATCH_VALUES), (np.cumsum(sizes), BATCH_BYTES)):
        yield rows[block]


class _Notes:
    """What the pass collects on its way."""

    def __init__(self, labels: ColumnLabels, workshop: Workshop | None) -> None:
        self._labels = labels
        self._workshop = workshop
        self._resource: list[NDArray[np.uint32]] = []
        self._header: list[NDArray[np.uint16]] = []
        self._tombstone: list[NDArray[np.bool_]] = []
        self._repeated: list[NDArray[np.int64]] = []
        self._bytes: Counter[tuple[int, int]] = Counter()
        self._outcomes = {NOTHING_TRIED: NOT_OPENED}
        self._plain_outcome: list[int] = []
        self._answered: list[tuple[NDArray[np.int64], NDArray[np.uint16]]] = []
        self._digests: list[NDArray[np.uint8]] = []
        self._named: dict[int, tuple[bytes, Revision, int]] = {}
        self._expected: list[ExpectedType | None] = []

    def take(self, chunk: RecordChunk) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        resource = self._labels.resource_numbers(chunk)
        header = self._labels.header_numbers(chunk)
        self._resource.append(resource.astype(np.uint32))
        self._header.append(header.astype(np.uint16))
        self._tombstone.append(chunk.tombstone)
        self._repeated.append(np.nonzero(chunk.repeated_value)[0] + chunk.first_record)
        self._count_bytes(resource, header, chunk.value_len)
        self._judge_plaintext(chunk, resource, header)
        return resource, header

    def expected(self) -> list[ExpectedType | None]:
        """What values have to be, by number of their resource."""
        known = self._labels.resources[len(self._expected) :]
        defined = NOTHING_DEFINED if self._workshop is None else self._workshop.defined
        self._expected += [expected_of(one.group_resource, defined) for one in known]
        return self._expected

    def _count_bytes(self, resource: NDArray[np.int64], header: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        # Pairs that occur: names come from the file, and a table of all names by all others may be as large as memory.
        pairs, pair = np.unique(resource << 16 | header, return_inverse=True)
        for code, size in zip(pairs.tolist(), np.bincount(pair, weights=sizes).tolist(), strict=True):
            self._bytes[code >> 16, code & 0xFFFF] += int(size)

    def _judge_plaintext(self, chunk: RecordChunk, resource: NDArray[np.int64], header: NDArray[np.int64]) -> None:
        """Find plaintext that its chain refuses. The answer is the same for every plaintext of a resource."""
        if self._workshop is None:
            return
        for known in self._labels.resources[len(self._plain_outcome) :]:
            self._plain_outcome.append(self._number_of(self._workshop.judge_plaintext(known.group_resource)))
        outcomes = list(self._outcomes)
        refused = np.array([not outcomes[number].opened for number in self._plain_outcome])
        for row in np.nonzero((header == 0) & ~chunk.tombstone & refused[resource])[0].tolist():
            key = chunk.buffer[chunk.key_pos[row] : chunk.key_pos[row] + chunk.key_len[row]].tobytes()
            revision = Revision(int(chunk.main[row]), int(chunk.sub[row]))
            self._named[chunk.first_record + row] = key, revision, self._plain_outcome[resource[row]]

    def _number_of(self, outcome: Outcome) -> int:
        return self._outcomes.setdefault(outcome, len(self._outcomes))

    def take_answer(self, batch: Batch, answer: OpenedBatch) -> None:
        numbers = np.array([self._number_of(outcome) for outcome in answer.outcomes], dtype=np.uint16)
        outcome_of = np.frombuffer(answer.outcome, dtype=np.int64)
        found = numbers[outcome_of]
        self._answered.append((np.asarray(batch.record, dtype=np.int64), found))
        self._digests.append(np.frombuffer(answer.digests, dtype=np.uint8))
        named = np.array([bool(outcome.why) for outcome in answer.outcomes])
        for row in np.nonzero(named[outcome_of])[0].tolist():
            revision = Revision(int(batch.main[row]), int(batch.sub[row]))
            key, outcome = answer.named_keys[row], answer.outcomes[answer.outcome[row]]
            if outcome.fault is not None and not outcome.headless and not is_listed(key, self._labels.prefixes):
                found[row] = self._number_of(replace(outcome, fault=None))
                continue
            self._named[int(batch.record[row])] = key, revision, int(found[row])

    def finish(self, live: NDArray[np.bool_]) -> Sweep:
        resource, header = _joined(self._resource, np.uint32), _joined(self._header, np.uint16)
        tombstone = _joined(self._tombstone, np.bool_)
        outcome = np.full(len(resource), NOT_OPENED, dtype=np.uint16)
        if self._workshop is not None:
            plain = (header == 0) & ~tombstone
            outcome[plain] = np.array(self._plain_outcome, dtype=np.uint16)[resource[plain]]
        for records, numbers in self._answered:
            outcome[records] = numbers
        resources, headers = tuple(self._labels.resources), self._labels.named_headers()
        outcomes = tuple(self._outcomes)
        named = [
            LostValue(
                record=record,
                key=key,
                revision=revision,
                live=bool(live[record]),
                resource=resources[resource[record]],
                header=headers[header[record]],
                outcome=outcomes[number],
            )
            for record, (key, revision, number) in sorted(self._named.items())
        ]
        return Sweep(
            resources=resources,
            headers=headers,
            outcomes=outcomes,
            resource=resource,
            header=header,
            outcome=outcome,
            tombstone=tombstone,
            live=live,
            repeated=_joined(self._repeated, np.int64),
            opened=_joined([records for records, _ in self._answered], np.int64),
            digests=_joined(self._digests, np.uint8).reshape(-1, DIGEST_SIZE),
            value_bytes=self._bytes,
            lost=tuple(value for value in named if not value.outcome.opened),
            undecodable=tuple(value for value in named if value.outcome.opened),
        )


def _joined(parts: list[NDArray[Item]], kind: type[Item]) -> NDArray[Item]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=kind)
