"""Which records a snapshot has, as rows: the live ones of a type or a namespace, or every revision of them.

`listing` passes over the records twice, first for which are live, then for what is asked for, and keeps arrays of
numbers for the chosen ones; a Python object is made for a row when it is taken out to be printed.
"""

from __future__ import annotations

import contextlib
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

from snaptool.errors import InputError
from snaptool.etcd import TOMBSTONE, Records, Revision, Snapshot
from snaptool.kube.cutting import Watch, order_of_keys
from snaptool.kube.keys import ResourceType, key_prefixes, parse_key, resolve_type
from snaptool.kube.undecodable import ExpectedType
from snaptool.operations.crypto import Batch, Outcome, SystemRandomness, Work, Workshop
from snaptool.operations.defined import defined_versions
from snaptool.operations.judging import Depth, Doubts, expected_of, is_listed
from snaptool.operations.labels import Header, Labels, resource_of
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.reasons import explain
from snaptool.operations.sweep import NOTHING_TRIED, LostValue, Progress, batch_of, no_progress
from snaptool.providers.keyring import Keyring
from snaptool.text import printable

Columns = dict[str, "array[int]"]
"""Numbers of records, by what they say; see `_Collected`."""


# --- which keys -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selection:
    """Keys that begin with one of `heads`, and lie in `namespace` if that is given. `kind`: all are of that type."""

    heads: tuple[bytes, ...] = (b"",)
    namespace: str | None = None
    kind: ResourceType | None = None

    @property
    def is_everything(self) -> bool:
        """Are all keys selected?"""
        return self.namespace is None and self.heads == (b"",)

    def rows(self, records: Records, prefixes: Sequence[str]) -> Sequence[int]:
        """Find the selected records of a chunk."""
        if self.is_everything:
            return range(len(records))
        if self.namespace is None:
            return Watch(records.view, self.heads).rows(records.key_at, records.key_size, len(records))
        place = f"/{self.namespace}/".encode(errors="surrogateescape")
        return [row for row in records.holding(place) if self._has(records.user_key(row), prefixes)]

    def _has(self, key: bytes, prefixes: Sequence[str]) -> bool:
        parsed = parse_key(key, prefixes) if key.startswith(self.heads) else None
        return parsed is not None and parsed.namespace == self.namespace


def select(word: str | ResourceType | None, namespace: str | None, prefixes: Sequence[str]) -> Selection:
    """Select by a type, also as kubectl calls it, or by the beginning of an etcd key, which begins with a slash.

    A word with an underscore is the beginning of a key outside of Kubernetes. Raises UnknownType.
    """
    if word is None:
        return Selection(namespace=namespace)
    if isinstance(word, ResourceType):
        kind = word
    elif word.startswith("/") or "_" in word:  # no type has one of these, and compact_rev_key has
        return Selection((word.encode(errors="surrogateescape"),), namespace)
    else:
        kind = resolve_type(word)
    heads = tuple(head for prefix in prefixes for head in key_prefixes(kind, namespace, prefix=prefix))
    return Selection(heads, None, kind)


# --- list -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRecord:
    """One row of a listing. `size`: bytes of the stored value, which stands at `position` of the file.

    `outcome` is None when nobody tried to open it. `namespace` is empty for what is in none. `key_name` is the name of
    the encryption key, not of the etcd key.
    """

    key: bytes
    resource: str
    namespace: str
    name: str
    revision: Revision
    version: int
    live: bool
    deleted: bool
    header: Header
    key_name: str | None
    size: int
    position: int
    outcome: Outcome | None

    @property
    def reason(self) -> str:
        """Why it is lost, in a sentence; empty when it is not."""
        return "" if self.outcome is None else explain(self.outcome, self.header)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Listing:
    """The chosen records in order of their keys, and of one key in order of revision. Iterate to get rows.

    `lost_before`: older values that are lost too, and not shown; `past`: keys of which only such are lost; `broken`:
    every lost or undecodable value, shown or not, where only such were asked for; `opened_by`: then how many encrypted
    values open, by header, None where not all keys were selected. The rest are the rows as columns of numbers, which
    point into `view`, the bytes of the file: valid while the snapshot is open.
    """

    selection: Selection
    revision: int
    prefixes: tuple[str, ...]
    lost_before: int
    columns: Columns = field(repr=False)
    headers: tuple[Header, ...]
    outcomes: tuple[Outcome, ...]
    past: tuple[bytes, ...]
    broken: tuple[LostValue, ...]
    opened_by: Mapping[Header, int] | None
    view: memoryview = field(repr=False)

    def __len__(self) -> int:
        return len(self.columns["record"])

    @property
    def lost(self) -> int:
        """How many of the rows are lost or undecodable."""
        broken = [bool(outcome.why) for outcome in self.outcomes]
        return sum(broken[number] for number in self.columns["outcome"])

    def __iter__(self) -> Iterator[ListedRecord]:
        at, size = (memoryview(self.columns[name]) for name in ("key_at", "key_size"))
        return map(self._row, order_of_keys(self.view, at, size))

    def stored(self, row: ListedRecord) -> bytes:
        """Return the value of a row as it is stored."""
        return bytes(self.view[row.position : row.position + row.size])

    def _row(self, number: int) -> ListedRecord:
        cells = {name: column[number] for name, column in self.columns.items()}
        key = _key(self.view, cells)
        parsed = parse_key(key, self.prefixes)
        header, outcome = self.headers[cells["header"]], self.outcomes[cells["outcome"]]
        opened_by = outcome.key_name if outcome.kind is not None else ""
        return ListedRecord(
            key=key,
            resource=parsed.group_resource if parsed else "(other)",
            namespace=(parsed.namespace or "") if parsed else "",
            name=parsed.name if parsed else printable(key),
            revision=Revision(cells["main"], cells["sub"]),
            version=cells["version"],
            live=bool(cells["live"]),
            deleted=bool(cells["tombstone"]),
            header=header,
            key_name=opened_by or header.key_name,
            size=cells["value_size"],
            position=cells["value_at"],
            outcome=None if outcome is NOTHING_TRIED else outcome,
        )


def listing(
    opened: OpenedSnapshot,
    word: str | ResourceType | None = None,
    namespace: str | None = None,
    keyring: Keyring | None = None,
    *,
    all_revisions: bool = False,
    lost: bool = False,
    revision: int | None = None,
    skip_hash_check: bool = False,
    jobs: int = 1,
    progress: Progress = no_progress,
) -> Listing:
    """List the live values, or with `all_revisions` every record, deletions too. `word`: see `select`.

    `revision`: the values that were live then. With a keyring every listed value is opened as well; `lost` then lists
    those alone that do not open. Raises UnknownType, WrongTrailer, InputError for a revision that is not to be had, and
    the FormatErrors of a damaged file.
    """
    snapshot = opened.snapshot
    selection = select(word, namespace, opened.prefixes)
    with contextlib.ExitStack() as stack:
        workshop = None
        if keyring is not None:
            # What is asked for by its faults is looked for as closely as `verify` does.
            depth = Depth.FULL if lost else Depth.CHEAP
            defined = defined_versions(opened, keyring)
            work = Work(keyring, keyring, SystemRandomness(), depth=depth, defined=defined)
            workshop = stack.enter_context(Workshop(work, opened.source, jobs=jobs))
        digests = stack.enter_context(opened.digests())
        names = keyring.key_names() if keyring else ()
        collected = _Collected(snapshot, Labels(opened.prefixes, names), workshop, revision)
        # An old value that is lost stops a rewrite as well, so that they are counted even where they are not shown.
        collected.run(selection, opened.between_chunks, progress, every=all_revisions or lost)
        if not skip_hash_check:
            digests.require_right_trailer()
    return collected.listing(selection, lost=lost, all_revisions=all_revisions)


def live_at(snapshot: Snapshot, revision: int | None) -> bytearray:
    """Which of all records a client gets at a revision, None for now. Raises InputError where nobody can say."""
    if revision is not None:
        newest, compacted = snapshot.current_revision, snapshot.compacted_revision
        if revision > newest:
            problem = f"the snapshot ends at revision {newest}, before {revision}"
            raise InputError(problem, code="revision_in_future", hint="without --revision you get the current values")
        if revision < compacted:
            problem = f"the store was compacted at revision {compacted}: what was there at {revision} is not known"
            raise InputError(
                problem, code="revision_compacted", hint=f"--revision {compacted} is the oldest that can be read"
            )
    return snapshot.live(revision)


_OF_RECORDS = ("key_at", "key_size", "main", "sub", "version", "value_at", "value_size")
_COLUMNS = ("record", *_OF_RECORDS, "tombstone", "live", "header", "outcome")


class _Collected:
    """What the pass for a listing keeps: columns of numbers for the selected records."""

    def __init__(self, snapshot: Snapshot, labels: Labels, workshop: Workshop | None, revision: int | None) -> None:
        self._snapshot = snapshot
        self._labels = labels
        self._workshop = workshop
        self._live = live_at(snapshot, revision)
        self._columns: Columns = {name: array("q") for name in _COLUMNS}
        self._outcomes = {NOTHING_TRIED: 0}
        self._plain_outcome: list[int] = []  # by number of a resource
        self._expected: list[ExpectedType | None] = []  # the same

    def run(self, selection: Selection, between: Callable[[Records], None], progress: Progress, *, every: bool) -> None:
        batches = self._batches(selection, between, progress, every=every)
        if self._workshop is None:
            for _ in batches:
                pass
            return
        record_of, outcome_of = self._columns["record"], self._columns["outcome"]
        for batch, answer in self._workshop.opened(batches):
            numbers = [self._number_of(outcome) for outcome in answer.outcomes]
            found = [numbers[place] for place in answer.outcome]
            for row, key in answer.named_keys.items():
                outcome = answer.outcomes[answer.outcome[row]]
                if outcome.fault is not None and not is_listed(key, self._labels.prefixes):
                    found[row] = self._number_of(replace(outcome, fault=None))
            for record, number in zip(batch.record, found, strict=True):
                outcome_of[bisect_left(record_of, record)] = number

    def _number_of(self, outcome: Outcome) -> int:
        return self._outcomes.setdefault(outcome, len(self._outcomes))

    def _batches(
        self, selection: Selection, between: Callable[[Records], None], progress: Progress, *, every: bool
    ) -> Iterator[Batch]:
        snapshot, labels, workshop = self._snapshot, self._labels, self._workshop
        doubts = None if workshop is None or workshop.depth is None else Doubts(workshop.depth)
        walk, pages = snapshot.database.new_walk(), snapshot.database.high_water_mark
        for records in snapshot.chunks(walk=walk):
            between(records)
            progress("reading", walk.pages_seen(), pages)
            encrypted = labels.add(records)
            self._learn_resources()
            rows, first = selection.rows(records, labels.prefixes), records.first_record
            if not every:
                rows = [row for row in rows if self._live[first + row]]
            if rows:
                self._keep(records, rows)
            if workshop is not None and rows:
                wanted = {row for row in encrypted if not records.flags[row] & TOMBSTONE}
                if doubts is not None:
                    wanted.update(doubts.rows(records, labels, self._expected))
                values = [row for row in rows if row in wanted]
                if values:
                    yield batch_of(records, values, labels, workshop.depth)
        progress("reading", pages, pages)

    def _learn_resources(self) -> None:
        if self._workshop is not None:
            for known in self._labels.resources[len(self._expected) :]:
                self._plain_outcome.append(self._number_of(self._workshop.judge_plaintext(known.group_resource)))
                self._expected.append(expected_of(known.group_resource, self._workshop.defined))

    def _keep(self, records: Records, rows: Sequence[int]) -> None:
        columns, first = self._columns, records.first_record
        columns["record"].extend(first + row for row in rows)
        for name in _OF_RECORDS:
            columns[name].extend(map(getattr(records, name).__getitem__, rows))
        columns["tombstone"].extend(records.flags[row] & TOMBSTONE for row in rows)
        columns["live"].extend(self._live[first + row] for row in rows)
        columns["header"].extend(map(self._labels.header.__getitem__, rows))
        columns["outcome"].extend(self._judged(records, rows))

    def _judged(self, records: Records, rows: Sequence[int]) -> Iterator[int]:
        """Yield the outcome numbers of plaintext, which only depend on the resource; 0 for everything else."""
        resource, header = self._labels.resource, self._labels.header
        for row in rows:
            plain = self._workshop is not None and not header[row] and not records.flags[row] & TOMBSTONE
            yield self._plain_outcome[resource[row]] if plain else 0

    def _opened_by(self) -> Mapping[Header, int]:
        """Count the encrypted values that open, by header."""
        headers = self._labels.named_headers()
        opens = [outcome.opened and outcome.kind is not None for outcome in self._outcomes]
        counts: Counter[Header] = Counter()
        cells = zip(*(self._columns[name] for name in ("header", "tombstone", "outcome")), strict=True)
        for (header, tombstone, outcome), count in Counter(cells).items():
            if header and not tombstone and opens[outcome]:
                counts[headers[header]] += count
        return counts

    def _broken(self, columns: Columns) -> Iterator[LostValue]:
        outcomes, headers = tuple(self._outcomes), self._labels.named_headers()
        for number in range(len(columns["record"])):
            cells = {name: column[number] for name, column in columns.items()}
            key = _key(self._snapshot.view, cells)
            yield LostValue(
                record=cells["record"],
                key=key,
                revision=Revision(cells["main"], cells["sub"]),
                live=bool(cells["live"]),
                resource=resource_of(key, self._labels.prefixes),
                header=headers[cells["header"]],
                outcome=outcomes[cells["outcome"]],
            )

    def listing(self, selection: Selection, *, lost: bool, all_revisions: bool) -> Listing:
        columns = self._columns
        lost_before = 0
        opened_by: Mapping[Header, int] | None = None
        broken: tuple[LostValue, ...] = ()
        if lost:
            if selection.is_everything:
                opened_by = self._opened_by()
            why = [bool(outcome.why) for outcome in self._outcomes]
            columns = _where(columns, [why[number] for number in columns["outcome"]])
            broken = tuple(self._broken(columns))
        past = _only_old(broken)
        if not all_revisions:
            lost_before = columns["live"].count(0) if lost else 0
            columns = _where(columns, columns["live"])
        return Listing(
            selection=selection,
            revision=self._snapshot.current_revision,
            prefixes=self._labels.prefixes,
            lost_before=lost_before,
            columns=columns,
            headers=self._labels.named_headers(),
            outcomes=tuple(self._outcomes),
            past=past,
            broken=broken,
            opened_by=opened_by,
            view=self._snapshot.view,
        )


def _only_old(values: Iterable[LostValue]) -> tuple[bytes, ...]:
    """Return the keys that have no live value among these, each once."""
    keys: dict[bytes, bool] = {}
    for value in values:
        keys[value.key] = keys.get(value.key, False) or value.live
    return tuple(key for key, live in keys.items() if not live)


def _where(columns: Columns, chosen: Sequence[int]) -> Columns:
    return {name: array("q", compress(column, chosen)) for name, column in columns.items()}


def _key(view: memoryview, cells: Mapping[str, int]) -> bytes:
    return bytes(view[cells["key_at"] : cells["key_at"] + cells["key_size"]])
