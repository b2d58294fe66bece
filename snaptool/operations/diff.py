"""What differs between two snapshots, by plaintext: a value that only lies under another key is not a change.

The live records of each side are kept as arrays of numbers, sorted by key, and merged. A value whose stored bytes are
the same on both sides is the same without being opened; of every other pair the two plaintexts are digested, each by
the keys of its own side, and no more than 16 bytes of each is kept. So neither side needs the other's configuration,
and the memory is that of some numbers per key.

What does not open on one side cannot be compared; such pairs are *undecided*.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress, repeat

from snaptool.etcd import Revision
from snaptool.kube.cutting import order_of_keys
from snaptool.kube.keys import parse_key
from snaptool.kube.undecodable import Fault
from snaptool.operations.crypto import (
    BATCH_BYTES,
    BATCH_VALUES,
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
from snaptool.operations.labels import Header, Labels
from snaptool.operations.opening import NoKeyUnderPrefix, OpenedSnapshot
from snaptool.operations.reasons import explain
from snaptool.operations.sweep import Progress, no_progress
from snaptool.providers.keyring import Keyring

Rows = Sequence[int]


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
        return Differences(self._a, self._b, None, rows)

    @property
    def removed(self) -> Differences:
        """Keys that only the first snapshot has."""
        rows = self._pairs.only_a
        return Differences(self._a, self._b, rows, None)

    @property
    def changed(self) -> Differences:
        """Keys with another plaintext."""
        return self._of(_CHANGED)

    @property
    def re_encrypted(self) -> Differences:
        """Keys with the same plaintext in other stored bytes."""
        return self._of(_SAME)

    @property
    def undecided(self) -> Differences:
        """Keys with other stored bytes, which do not open on one side or on both."""
        return self._of(_UNDECIDED)

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
    def _judged(self) -> bytes:
        """What is known of each pair: _UNDECIDED, _SAME or _CHANGED."""
        return bytes(
            _UNDECIDED
            if not (self._a.readable(one) and self._b.readable(other))
            else _SAME
            if self._a.digest(one) == self._b.digest(other)
            else _CHANGED
            for one, other in zip(self._pairs.a, self._pairs.b, strict=True)
        )

    def _of(self, wanted: int) -> Differences:
        chosen = [judged == wanted for judged in self._judged]
        rows_a, rows_b = (array("q", compress(rows, chosen)) for rows in (self._pairs.a, self._pairs.b))
        return Differences(self._a, self._b, rows_a, rows_b)


_UNDECIDED, _SAME, _CHANGED = range(3)


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


@dataclass(slots=True)
class _Pairs:
    """Rows of both sides: keys of one side alone, and keys of both whose stored bytes differ. `same`: of the others."""

    only_a: array[int] = field(default_factory=lambda: array("q"))
    only_b: array[int] = field(default_factory=lambda: array("q"))
    a: array[int] = field(default_factory=lambda: array("q"))
    b: array[int] = field(default_factory=lambda: array("q"))
    same: int = 0


class _Side:
    """The live records of a snapshot as columns, sorted by key, and what came of opening some of them."""

    def __init__(self, side: DiffSide, progress: Progress, step: str) -> None:
        self._side = side
        snapshot = side.opened.snapshot
        self._view = snapshot.view
        self.labels = Labels(side.opened.prefix_facts.taken, side.keyring.key_names() if side.keyring else ())
        live = snapshot.live()
        found: dict[str, array[int]] = {name: array("q") for name in _COLUMNS}
        walk, pages = snapshot.database.new_walk(), snapshot.database.high_water_mark
        for records in snapshot.chunks(walk=walk):
            side.opened.between_chunks(records)
            progress(step, walk.pages_seen(), pages)
            self.labels.add(records)
            alive = live[records.first_record : records.first_record + len(records)]
            for name in _OF_RECORDS:
                found[name].extend(compress(getattr(records, name), alive))
            found["resource"].extend(compress(self.labels.resource, alive))
            found["header"].extend(compress(self.labels.header, alive))
        progress(step, pages, pages)
        order = order_of_keys(snapshot.view, memoryview(found["key_at"]), memoryview(found["key_size"]))
        self.columns = {name: array("q", map(column.__getitem__, order)) for name, column in found.items()}
        self._headers = self.labels.named_headers()
        self._digests = bytearray(DIGEST_SIZE * len(self))
        self._outcome = array("q", bytes(8 * len(self)))
        self._outcomes: dict[Outcome | None, int] = {None: 0}

    def __len__(self) -> int:
        return len(self.columns["key_at"])

    def keys(self) -> Iterator[bytes]:
        return map(self.key, range(len(self)))

    def stored(self, row: int) -> bytes:
        start = self.columns["value_at"][row]
        return bytes(self._view[start : start + self.columns["value_size"][row]])

    def readable(self, row: int) -> bool:
        """Is it plaintext, or did it open?"""
        return self._opens[self._outcome[row]]

    @cached_property
    def _opens(self) -> list[bool]:
        return [outcome is None or outcome.opened for outcome in self._outcomes]

    def digest(self, row: int) -> bytes:
        """Return the digest of a plaintext."""
        return bytes(self._digests[DIGEST_SIZE * row : DIGEST_SIZE * (row + 1)])

    def _take_digest(self, row: int, digest: bytes) -> None:
        self._digests[DIGEST_SIZE * row : DIGEST_SIZE * (row + 1)] = digest

    def open(self, rows: Rows, jobs: int, progress: Progress, step: str) -> None:
        """Digest the plaintexts of some rows. What is stored in plaintext is its own plaintext, whatever the keys."""
        header = self.columns["header"]
        for row in rows:
            if not header[row]:
                self._take_digest(row, plaintext_digest(self.stored(row)))
        rows = [row for row in rows if header[row]]
        if not rows:
            return
        source = self._side.opened.source
        keyring = self._side.keyring or Keyring()
        work = Work(keyring, keyring, SystemRandomness(), digests=True)
        with Workshop(work, source, jobs=jobs) as workshop:
            done = 0
            for batch, answer in workshop.opened(self._batches(rows)):
                numbers = [self._outcomes.setdefault(one, len(self._outcomes)) for one in answer.outcomes]
                for place, row in enumerate(batch.record):
                    self._outcome[row] = numbers[answer.outcome[place]]
                    self._take_digest(row, answer.digests[DIGEST_SIZE * place : DIGEST_SIZE * (place + 1)])
                done += len(batch)
                progress(step, done, len(rows))

    def _batches(self, rows: Rows) -> Iterator[Batch]:
        some, size = array("q"), 0
        for row in rows:
            more = self.columns["value_size"][row]
            if some and (len(some) == BATCH_VALUES or size + more > BATCH_BYTES):
                yield self._batch(some)
                some, size = array("q"), 0
            some.append(row)
            size += more
        if some:
            yield self._batch(some)

    def _batch(self, rows: array[int]) -> Batch:
        column = {name: array("q", [values[row] for row in rows]) for name, values in self.columns.items()}
        places: dict[int, int] = {}
        resource = array("q", [places.setdefault(number, len(places)) for number in column["resource"]])
        return Batch(
            resources=tuple(self.labels.resources[number].group_resource for number in places),
            resource=resource,
            record=rows,
            key_pos=column["key_at"],
            key_len=column["key_size"],
            value_pos=column["value_at"],
            value_len=column["value_size"],
            main=column["main"],
            sub=column["sub"],
        )

    def value(self, row: int) -> DiffValue:
        cells = {name: column[row] for name, column in self.columns.items()}
        header = self._headers[cells["header"]]
        outcome = list(self._outcomes)[self._outcome[row]]
        reason = "" if outcome is None else explain(outcome, header, with_config=self._side.keyring is not None)
        return DiffValue(
            revision=Revision(cells["main"], cells["sub"]),
            header=header,
            key_name=(outcome.key_name if outcome else "") or header.key_name,
            size=cells["value_size"],
            reason=reason,
            fault=None if outcome is not None and not outcome.opened else self._fault(row),
        )

    def _fault(self, row: int) -> Fault | None:
        """Say why no API server can decode a value that is plaintext, or opens."""
        key, keyring = self.key(row), self._side.keyring
        resource = self.labels.resources[self.columns["resource"][row]].group_resource
        if not is_listed(key, self.labels.prefixes):
            return None
        chain = (keyring or Keyring()).chain_for(resource)
        return judge_value(chain, resource, (self.stored(row), key), Depth.FULL, self._defined)[0].fault

    @cached_property
    def _defined(self) -> Defined:
        return defined_versions(self._side.opened, self._side.keyring)

    def key(self, row: int) -> bytes:
        start = self.columns["key_at"][row]
        return bytes(self._view[start : start + self.columns["key_size"][row]])


_OF_RECORDS = ("key_at", "key_size", "value_at", "value_size", "main", "sub")
_COLUMNS = (*_OF_RECORDS, "resource", "header")


def _merge(a: _Side, b: _Side) -> _Pairs:
    """Go through the sorted keys of both sides at once."""
    pairs = _Pairs()
    keys_a, keys_b = enumerate(a.keys()), enumerate(b.keys())
    one, other = next(keys_a, None), next(keys_b, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[1] < other[1]):
            assert one is not None
            pairs.only_a.append(one[0])
            one = next(keys_a, None)
        elif one is None or other[1] < one[1]:
            pairs.only_b.append(other[0])
            other = next(keys_b, None)
        else:
            if a.stored(one[0]) == b.stored(other[0]):
                pairs.same += 1
            else:
                pairs.a.append(one[0])
                pairs.b.append(other[0])
            one, other = next(keys_a, None), next(keys_b, None)
    return pairs


class Differences:
    """Keys that differ in one way, in order. Has a length; the Python objects are made while it is iterated.

    `rows_a`, `rows_b`: where they are on both sides, None for a side that has none of them.
    """

    def __init__(self, a: _Side, b: _Side, rows_a: Rows | None, rows_b: Rows | None) -> None:
        self._a = a
        self._b = b
        self._rows_a = rows_a
        self._rows_b = rows_b

    def __len__(self) -> int:
        return len(self._rows_a or self._rows_b or ())

    def __iter__(self) -> Iterator[Difference]:
        nobody = repeat(None, len(self))
        for one, other in zip(self._rows_a or nobody, self._rows_b or nobody, strict=True):
            side, row = (self._a, one) if one is not None else (self._b, other)
            assert row is not None
            key = side.key(row)
            parsed = parse_key(key, side.labels.prefixes)
            yield Difference(
                key=key,
                resource=parsed.group_resource if parsed else "(other)",
                namespace=(parsed.namespace or "") if parsed else "",
                name=parsed.name if parsed else key.decode(errors="backslashreplace"),
                a=None if one is None else self._a.value(one),
                b=None if other is None else self._b.value(other),
            )
