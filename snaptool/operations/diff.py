"""What differs between two snapshots, by plaintext: a value that only lies under another key is not a change.

The live records of each side are kept as arrays of numbers, sorted by key, and merged. A value whose stored bytes are
the same on both sides is the same without being opened; of every other pair the two plaintexts are digested, each by
the keys of its own side, and no more than 16 bytes of each is kept. So neither side needs the other's configuration,
and the memory is that of some numbers per key.

What does not open on one side cannot be compared; such pairs are *undecided*.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from snaptool.etcd import Revision
from snaptool.kube import Fault, parse_key
from snaptool.operations.columns import batches_of
from snaptool.operations.crypto import (
    DIGEST_SIZE,
    Batch,
    Outcome,
    SystemRandomness,
    Work,
    Workshop,
    judge_value,
    plaintext_digest,
)
from snaptool.operations.defined import defined_versions
from snaptool.operations.judging import Defined, Depth, is_listed
from snaptool.operations.label_columns import ColumnLabels
from snaptool.operations.labels import Header
from snaptool.operations.listing import order_of_keys
from snaptool.operations.opening import NoKeyUnderPrefix, OpenedSnapshot
from snaptool.operations.reasons import explain
from snaptool.operations.sweep import Progress, no_progress
from snaptool.providers import Keyring

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DiffSide:
    """One of the two snapshots, and the keys that open its values."""

    opened: OpenedSnapshot
    keyring: Keyring | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffValue:
    """A value on one side. `key_name`: the name of its encryption key. `reason`: why it does not open, if so.

    `fault`: why no API server can decode it, if so.
    """

    revision: Revision
    header: Header
    key_name: str | None
    size: int
    reason: str = ""
    fault: Fault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A key that differs. `a` is None for one that was added, `b` for one that was removed."""

    key: bytes
    resource: str
    namespace: str
    name: str
    a: DiffValue | None
    b: DiffValue | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recoded:
    """Values with equal plaintext that went from one provider and key to another, which may have the same name."""

    resource: str
    from_header: Header
    from_key: str
    to_header: Header
    to_key: str
    count: int


class Diff:
    """What differs. `same`: how many values have the same stored bytes. Valid while both snapshots are open."""

    def __init__(self, a: _Side, b: _Side, pairs: _Pairs) -> None:
        self._a = a
        self._b = b
        self._pairs = pairs
        self.same = pairs.same

    @property
    def added(self) -> Differences:
        """Keys that only the second snapshot has."""
        rows = self._pairs.only_b
        return Differences(self._a, self._b, np.full(len(rows), _NONE), rows)

    @property
    def removed(self) -> Differences:
        """Keys that only the first snapshot has."""
        rows = self._pairs.only_a
        return Differences(self._a, self._b, rows, np.full(len(rows), _NONE))

    @property
    def changed(self) -> Differences:
        """Keys with another plaintext."""
        return self._of(self._decided & ~self._equal)

    @property
    def re_encrypted(self) -> Differences:
        """Keys with the same plaintext in other stored bytes."""
        return self._of(self._decided & self._equal)

    @property
    def undecided(self) -> Differences:
        """Keys with other stored bytes, which do not open on one side or on both."""
        return self._of(~self._decided)

    @property
    def differs(self) -> bool:
        """Is anything added, removed or changed?"""
        return bool(len(self.added) or len(self.removed) or len(self.changed))

    def recoded(self) -> tuple[Recoded, ...]:
        """Count what `re_encrypted` has, by where it came from and went to."""
        counts: dict[tuple[str, Header, str, Header, str], int] = {}
        for one in self.re_encrypted:
            if one.a is not None and one.b is not None:
                way = (one.resource, one.a.header, one.a.key_name or "", one.b.header, one.b.key_name or "")
                counts[way] = counts.get(way, 0) + 1
        return tuple(
            Recoded(
                resource=way[0],
                from_header=way[1],
                from_key=way[2],
                to_header=way[3],
                to_key=way[4],
                count=count,
            )
            for way, count in sorted(counts.items(), key=lambda item: (item[0][0], item[0][2], item[0][4]))
        )

    @cached_property
    def _decided(self) -> NDArray[np.bool_]:
        return self._a.readable(self._pairs.a) & self._b.readable(self._pairs.b)

    @cached_property
    def _equal(self) -> NDArray[np.bool_]:
        equal: NDArray[np.bool_] = (self._a.digests[self._pairs.a] == self._b.digests[self._pairs.b]).all(axis=1)
        return equal

    def _of(self, chosen: NDArray[np.bool_]) -> Differences:
        return Differences(self._a, self._b, self._pairs.a[chosen], self._pairs.b[chosen])


def diff(
    a: DiffSide,
    b: DiffSide,
    *,
    skip_hash_check: bool = False,
    jobs: int = 1,
    progress: Progress = no_progress,
) -> Diff:
    """Compare the current values of two snapshots. Raises WrongTrailer, and the FormatErrors of damaged files."""
    empty = set(a.opened.prefix_facts.empty) & set(b.opened.prefix_facts.empty)
    if empty:
        raise NoKeyUnderPrefix(a.opened.source.path, a.opened.prefix_facts)
    with ExitStack() as stack:
        digests = [stack.enter_context(side.opened.digests()) for side in (a, b)]
        side_a, side_b = _Side(a, progress, "reading A"), _Side(b, progress, "reading B")
        if not skip_hash_check:
            for digest in digests:
                digest.require_right_trailer()
    pairs = _merge(side_a, side_b)
    # One after the other: worker processes start where no thread is running.
    side_a.open(pairs.a, jobs, progress, "opening A")
    side_b.open(pairs.b, jobs, progress, "opening B")
    return Diff(side_a, side_b, pairs)


_NONE = -1


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Rows of both sides: keys of one side alone, and keys of both whose stored bytes differ. `same`: of the others."""

    only_a: Rows
    only_b: Rows
    a: Rows
    b: Rows
    same: int


class _Side:
    """The live records of a snapshot as columns, sorted by key, and what came of opening some of them."""

    def __init__(self, side: DiffSide, progress: Progress, step: str) -> None:
        self._side = side
        snapshot = side.opened.snapshot
        self.buffer: mmap | bytes = side.opened.source.buffer
        self.labels = ColumnLabels(side.opened.prefix_facts.taken, side.keyring.key_names() if side.keyring else ())
        live = snapshot.live_mask()
        parts: dict[str, list[Rows]] = {name: [] for name in _COLUMNS}
        for chunk in snapshot.records():
            side.opened.tend(chunk)
            progress(step, chunk.first_leaf + len(chunk.leaf_page), chunk.total_leaves)
            resource, header = self.labels.resource_numbers(chunk), self.labels.header_numbers(chunk)
            (rows,) = np.nonzero(live[chunk.first_record : chunk.first_record + len(chunk)])
            found = (chunk.key_pos, chunk.key_len, chunk.value_pos, chunk.value_len, chunk.main, chunk.sub)
            for name, column in zip(_COLUMNS, (*found, resource, header), strict=True):
                parts[name].append(column[rows])
        self.columns = {name: np.concatenate(arrays) if arrays else _NO_ROWS for name, arrays in parts.items()}
        order = order_of_keys(snapshot.database.pages.bytes, self.columns["key_pos"], self.columns["key_len"])
        self.columns = {name: column[order] for name, column in self.columns.items()}
        self._headers = self.labels.named_headers()
        self.digests = np.zeros((len(self), DIGEST_SIZE), dtype=np.uint8)
        self._outcome = np.zeros(len(self), dtype=np.int64)
        self._outcomes: dict[Outcome | None, int] = {None: 0}

    def __len__(self) -> int:
        return len(self.columns["key_pos"])

    def keys(self) -> Iterator[bytes]:
        for start, size in zip(self.columns["key_pos"].tolist(), self.columns["key_len"].tolist(), strict=True):
            yield self.buffer[start : start + size]

    def stored(self, row: int) -> bytes:
        start = int(self.columns["value_pos"][row])
        return self.buffer[start : start + int(self.columns["value_len"][row])]

    def readable(self, rows: Rows) -> NDArray[np.bool_]:
        opened = np.array([outcome is None or outcome.opened for outcome in self._outcomes])
        found: NDArray[np.bool_] = opened[self._outcome[rows]]
        return found

    def open(self, rows: Rows, jobs: int, progress: Progress, step: str) -> None:
        """Digest the plaintexts of some rows. What is stored in plaintext is its own plaintext, whatever the keys."""
        encrypted = self.columns["header"][rows] != 0
        for row in rows[~encrypted].tolist():
            self.digests[row] = np.frombuffer(plaintext_digest(self.stored(row)), dtype=np.uint8)
        rows = rows[encrypted]
        if not len(rows):
            return
        source = self._side.opened.source
        keyring = self._side.keyring or Keyring()
        work = Work(keyring, keyring, SystemRandomness(), digests=True)
        with Workshop(work, source, jobs=jobs) as workshop:
            done = 0
            for batch, answer in workshop.opened(self._batches(rows)):
                numbers = [self._outcomes.setdefault(one, len(self._outcomes)) for one in answer.outcomes]
                self._outcome[batch.record] = np.array(numbers, dtype=np.int64)[
                    np.frombuffer(answer.outcome, dtype=np.int64)
                ]
                self.digests[batch.record] = np.frombuffer(answer.digests, dtype=np.uint8).reshape(-1, DIGEST_SIZE)
                done += len(batch)
                progress(step, done, len(rows))

    def _batches(self, rows: Rows) -> Iterator[Batch]:
        for chosen in batches_of(rows, self.columns["value_len"][rows]):
            column = {name: values[chosen] for name, values in self.columns.items()}
            del column["header"]
            numbers, column["resource"] = np.unique(column["resource"], return_inverse=True)
            resources = tuple(self.labels.resources[one].group_resource for one in numbers.tolist())
            yield Batch(resources=resources, record=chosen, **column)

    def value(self, row: int) -> DiffValue:
        cells = {name: int(column[row]) for name, column in self.columns.items()}
        header = self._headers[cells["header"]]
        outcome = list(self._outcomes)[self._outcome[row]]
        reason = "" if outcome is None else explain(outcome, header, with_config=self._side.keyring is not None)
        return DiffValue(
            revision=Revision(cells["main"], cells["sub"]),
            header=header,
            key_name=(outcome.key_name if outcome else "") or header.key_name,
            size=cells["value_len"],
            reason=reason,
            fault=None if outcome is not None and not outcome.opened else self._fault(row),
        )

    def _fault(self, row: int) -> Fault | None:
        """Say why no API server can decode a value that is plaintext, or opens."""
        key, keyring = self.key(row), self._side.keyring
        resource = self.labels.resources[int(self.columns["resource"][row])].group_resource
        if not is_listed(key, self.labels.prefixes):
            return None
        chain = (keyring or Keyring()).chain_for(resource)
        return judge_value(chain, resource, (self.stored(row), key), Depth.FULL, self._defined)[0].fault

    @cached_property
    def _defined(self) -> Defined:
        return defined_versions(self._side.opened, self._side.keyring)

    def key(self, row: int) -> bytes:
        start = int(self.columns["key_pos"][row])
        return self.buffer[start : start + int(self.columns["key_len"][row])]


_COLUMNS = ("key_pos", "key_len", "value_pos", "value_len", "main", "sub", "resource", "header")
_NO_ROWS = np.empty(0, dtype=np.int64)


def _merge(a: _Side, b: _Side) -> _Pairs:
    """Go through the sorted keys of both sides at once."""
    only_a, only_b, changed_a, changed_b = (array("q") for _ in range(4))
    same = 0
    keys_a, keys_b = enumerate(a.keys()), enumerate(b.keys())
    one, other = next(keys_a, None), next(keys_b, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[1] < other[1]):
            assert one is not None
            only_a.append(one[0])
            one = next(keys_a, None)
        elif one is None or other[1] < one[1]:
            only_b.append(other[0])
            other = next(keys_b, None)
        else:
            if a.stored(one[0]) == b.stored(other[0]):
                same += 1
            else:
                changed_a.append(one[0])
                changed_b.append(other[0])
            one, other = next(keys_a, None), next(keys_b, None)
    return _Pairs(_rows(only_a), _rows(only_b), _rows(changed_a), _rows(changed_b), same)


def _rows(numbers: array[int]) -> Rows:
    return np.array(numbers, dtype=np.int64)


class Differences:
    """Keys that differ in one way, in order. Has a length; the Python objects are made while it is iterated."""

    def __init__(self, a: _Side, b: _Side, rows_a: Rows, rows_b: Rows) -> None:
        self._a = a
        self._b = b
        self._rows_a = rows_a
        self._rows_b = rows_b

    def __len__(self) -> int:
        return len(self._rows_a)

    def __iter__(self) -> Iterator[Difference]:
        for one, other in zip(self._rows_a.tolist(), self._rows_b.tolist(), strict=True):
            side, row = (self._a, one) if one != _NONE else (self._b, other)
            key = side.key(row)
            parsed = parse_key(key, side.labels.prefixes)
            yield Difference(
                key=key,
                resource=parsed.group_resource if parsed else "(other)",
                namespace=(parsed.namespace or "") if parsed else "",
                name=parsed.name if parsed else key.decode(errors="backslashreplace"),
                a=None if one == _NONE else self._a.value(one),
                b=None if other == _NONE else self._b.value(other),
            )
