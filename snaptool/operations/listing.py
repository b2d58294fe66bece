"""Which records a snapshot has, as rows: the live ones of a type or a namespace, or every revision of them.

`listing` passes over the records twice, first for which are live, then for what is asked for, and keeps arrays of
numbers for the chosen ones; a Python object is made for a row when it is taken out to be printed.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from snaptool.errors import InputError
from snaptool.etcd import RecordChunk, Revision, Snapshot, hash_spans
from snaptool.kube import ResourceType, key_prefixes, parse_key, resolve_type
from snaptool.operations.columns import make_batches
from snaptool.operations.crypto import Batch, Outcome, SystemRandomness, Work, Workshop
from snaptool.operations.defined import defined_versions
from snaptool.operations.judging import Depth, expected_of, is_listed
from snaptool.operations.label_columns import ColumnLabels, doubted
from snaptool.operations.labels import Header, resource_of
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.reasons import explain
from snaptool.operations.sweep import NOTHING_TRIED, LostValue, Progress, no_progress
from snaptool.providers import Keyring
from snaptool.text import printable

Rows = NDArray[np.int64]


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

    def rows(self, chunk: RecordChunk, resource: Rows, prefixes: Sequence[str]) -> Rows:
        """Find the selected records of a chunk. `resource` has their resource numbers."""
        chosen = np.zeros(len(chunk), dtype=np.bool_)
        every = np.arange(len(chunk))
        for head in self.heads:
            chosen[beginning(chunk, every, head)] = True
        (rows,) = np.nonzero(chosen)
        if self.namespace is None:
            return rows
        return np.array(sorted(self._in_namespace(chunk, rows, resource, prefixes)), dtype=np.int64)

    def _in_namespace(self, chunk: RecordChunk, rows: Rows, resource: Rows, prefixes: Sequence[str]) -> Iterator[int]:
        for number in np.unique(resource[rows]).tolist():
            of_resource = rows[resource[rows] == number]
            parsed = parse_key(chunk.user_key(int(of_resource[0])), prefixes)
            if parsed is None:
                continue
            for prefix in prefixes:
                head = f"{prefix}/{parsed.path}/{self.namespace}/"
                for row in beginning(chunk, of_resource, head.encode(errors="surrogateescape")).tolist():
                    found = parse_key(chunk.user_key(row), prefixes)
                    if found is not None and found.namespace == self.namespace:
                        yield row


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


def beginning(chunk: RecordChunk, rows: Rows, head: bytes) -> Rows:
    """Which of `rows` have keys that begin with `head`."""
    if not head:
        return rows
    rows = rows[chunk.key_len[rows] >= len(head)]
    return rows[_equal(chunk, chunk.key_pos[rows], head)]


def _equal(chunk: RecordChunk, positions: Rows, text: bytes) -> NDArray[np.bool_]:
    """Does `text` stand at `positions`? By hashes, which are keyed: nobody can make two texts that have the same."""
    wanted = hash_spans(np.frombuffer(text, dtype=np.uint8), np.zeros(1, np.int64), np.array([len(text)]))
    equal: NDArray[np.bool_] = hash_spans(chunk.buffer, positions, np.full(len(positions), len(text))) == wanted[0]
    return equal


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
    point into `buffer`, the bytes of the file: valid while the snapshot is open.
    """

    selection: Selection
    revision: int
    prefixes: tuple[str, ...]
    lost_before: int
    columns: dict[str, Rows] = field(repr=False)
    headers: tuple[Header, ...]
    outcomes: tuple[Outcome, ...]
    past: tuple[bytes, ...]
    broken: tuple[LostValue, ...]
    opened_by: Mapping[Header, int] | None
    buffer: NDArray[np.uint8] = field(repr=False)

    def __len__(self) -> int:
        return len(self.columns["record"])

    @property
    def lost(self) -> int:
        """How many of the rows are lost or undecodable."""
        broken = np.array([bool(outcome.why) for outcome in self.outcomes])
        return int(np.count_nonzero(broken[self.columns["outcome"]]))

    def __iter__(self) -> Iterator[ListedRecord]:
        order = order_of_keys(self.buffer, self.columns["key_pos"], self.columns["key_len"])
        for start in range(0, len(order), _BLOCK_ROWS):
            block = [column[order[start : start + _BLOCK_ROWS]].tolist() for column in self.columns.values()]
            for cells in zip(*block, strict=True):
                yield self._row(dict(zip(self.columns, cells, strict=True)))

    def stored(self, row: ListedRecord) -> bytes:
        """Return the value of a row as it is stored."""
        return self.buffer[row.position : row.position + row.size].tobytes()

    def _row(self, cells: dict[str, int]) -> ListedRecord:
        key = self.buffer[cells["key_pos"] : cells["key_pos"] + cells["key_len"]].tobytes()
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
            size=cells["value_len"],
            position=cells["value_pos"],
            outcome=None if outcome is NOTHING_TRIED else outcome,
        )


_BLOCK_ROWS = 1000
_FIRST_BYTES = np.array([0, *((1 << 64) - (1 << 64 - 8 * count) for count in range(1, 9))], dtype=np.uint64)
_LONG_KEY = 4096


def order_of_keys(buffer: NDArray[np.uint8], positions: Rows, lengths: Rows) -> Rows:
    """Sort byte strings of `buffer`; equal ones stay in the order in which they came.

    Eight bytes at a time, of those alone that were equal so far, so that no Python object is made for any but those
    that agree in more bytes than a key has. `buffer` has a page at least.
    """
    windows = np.ndarray((len(buffer) - 7,), dtype=">u8", buffer=buffer.data, strides=(1,))
    order = np.arange(len(positions))
    group = np.zeros(len(positions), dtype=np.int64)
    unsettled = order.copy()
    for depth in range(0, _LONG_KEY, 8):
        if len(unsettled) < 2:
            return order
        rows = order[unsettled]
        left = np.clip(lengths[rows] - depth, 0, 8)
        at = np.where(left > 0, positions[rows] + depth, 0)
        behind = np.maximum(at - (len(windows) - 1), 0)
        words = windows[at - behind].astype(np.uint64) << (behind * 8).astype(np.uint64)
        words &= _FIRST_BYTES[left]
        sorting = np.lexsort((left, words, group[unsettled]))
        order[unsettled] = rows[sorting]
        keys = np.stack((group[unsettled].astype(np.uint64), words[sorting], left[sorting].astype(np.uint64)))
        first = np.concatenate(([True], (keys[:, 1:] != keys[:, :-1]).any(axis=0)))
        group[unsettled] = np.maximum.accumulate(np.where(first, unsettled, 0))
        number = np.cumsum(first) - 1
        unsettled = unsettled[(np.bincount(number)[number] > 1) & (left[sorting] == 8)]

    def whole(row: int) -> bytes:
        return buffer[positions[row] : positions[row] + lengths[row]].tobytes()

    for start in np.unique(group[unsettled]).tolist():
        places = unsettled[group[unsettled] == start]
        order[places] = sorted(order[places].tolist(), key=whole)
    return order


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
        collected = _Collected(snapshot, ColumnLabels(opened.prefixes, names), workshop, revision)
        # An old value that is lost stops a rewrite as well, so that they are counted even where they are not shown.
        collected.run(selection, opened.tend, progress, every=all_revisions or lost)
        if not skip_hash_check:
            digests.require_right_trailer()
    return collected.listing(selection, lost=lost, all_revisions=all_revisions)


def live_at(snapshot: Snapshot, revision: int | None) -> NDArray[np.bool_]:
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
    live = snapshot.live_mask(revision)
    every = np.zeros(snapshot.record_count, dtype=np.bool_)
    every[: len(live)] = live
    return every


class _Collected:
    """What the pass for a listing keeps: columns of numbers for the selected records."""

    def __init__(
        self, snapshot: Snapshot, labels: ColumnLabels, workshop: Workshop | None, revision: int | None
    ) -> None:
        self._snapshot = snapshot
        self._labels = labels
        self._workshop = workshop
        self._live = live_at(snapshot, revision)
        self._parts: list[dict[str, Rows]] = []
        self._outcomes = {NOTHING_TRIED: 0}
        self._answers: list[tuple[Rows, Rows]] = []

    def run(
        self, selection: Selection, tend: Callable[[RecordChunk], None], progress: Progress, *, every: bool
    ) -> None:
        batches = self._batches(selection, tend, progress, every=every)
        if self._workshop is None:
            for _ in batches:
                pass
            return
        for batch, answer in self._workshop.opened(batches):
            numbers = np.array([self._number_of(outcome) for outcome in answer.outcomes], dtype=np.int64)
            found = numbers[np.frombuffer(answer.outcome, dtype=np.int64)]
            for row, key in answer.named_keys.items():
                outcome = answer.outcomes[answer.outcome[row]]
                if outcome.fault is not None and not is_listed(key, self._labels.prefixes):
                    found[row] = self._number_of(replace(outcome, fault=None))
            self._answers.append((np.asarray(batch.record, dtype=np.int64), found))

    def _number_of(self, outcome: Outcome) -> int:
        return self._outcomes.setdefault(outcome, len(self._outcomes))

    def _batches(
        self, selection: Selection, tend: Callable[[RecordChunk], None], progress: Progress, *, every: bool
    ) -> Iterator[Batch]:
        for chunk in self._snapshot.records():
            tend(chunk)
            progress("reading", chunk.first_leaf + len(chunk.leaf_page), chunk.total_leaves)
            resource = self._labels.resource_numbers(chunk)
            header = self._labels.header_numbers(chunk)
            rows = selection.rows(chunk, resource, self._labels.prefixes)
            if not every:
                rows = rows[self._live[rows + chunk.first_record]]
            self._keep(chunk, rows, resource, header)
            if self._workshop is not None:
                wanted = (header != 0) & ~chunk.tombstone
                if self._workshop.depth is not None:
                    defined = self._workshop.defined
                    judged = [expected_of(known.group_resource, defined) for known in self._labels.resources]
                    wanted |= doubted(chunk, resource, header, judged, self._workshop.depth)
                values = rows[wanted[rows]]
                yield from make_batches(chunk, values, resource, self._labels)

    def _keep(self, chunk: RecordChunk, rows: Rows, resource: Rows, header: Rows) -> None:
        self._parts.append(
            {
                "record": rows + chunk.first_record,
                "key_pos": chunk.key_pos[rows],
                "key_len": chunk.key_len[rows],
                "main": chunk.main[rows],
                "sub": chunk.sub[rows],
                "version": chunk.version[rows],
                "value_pos": chunk.value_pos[rows],
                "value_len": chunk.value_len[rows],
                "tombstone": chunk.tombstone[rows].astype(np.int64),
                "live": self._live[rows + chunk.first_record].astype(np.int64),
                "header": header[rows],
                "outcome": self._judged(chunk, rows, resource, header),
            }
        )

    def _judged(self, chunk: RecordChunk, rows: Rows, resource: Rows, header: Rows) -> Rows:
        """Outcome numbers of plaintext, which only depend on the resource; 0 for everything else."""
        outcome = np.zeros(len(rows), dtype=np.int64)
        if self._workshop is None:
            return outcome
        plain = (header[rows] == 0) & ~chunk.tombstone[rows]
        for number in np.unique(resource[rows[plain]]).tolist():
            judged = self._workshop.judge_plaintext(self._labels.resources[number].group_resource)
            outcome[plain & (resource[rows] == number)] = self._number_of(judged)
        return outcome

    def _opened_by(self, columns: dict[str, Rows]) -> Mapping[Header, int]:
        """Count the encrypted values that open, by header."""
        headers = self._labels.named_headers()
        opens = np.array([outcome.opened and outcome.kind is not None for outcome in self._outcomes])
        chosen = (columns["header"] != 0) & (columns["tombstone"] == 0) & opens[columns["outcome"]]
        counts: Counter[Header] = Counter()
        for number, count in zip(*np.unique(columns["header"][chosen], return_counts=True), strict=True):
            counts[headers[number]] += int(count)
        return counts

    def _broken(self, columns: dict[str, Rows]) -> Iterator[LostValue]:
        buffer, outcomes = self._snapshot.database.pages.bytes, tuple(self._outcomes)
        headers = self._labels.named_headers()
        for number in range(len(columns["record"])):
            cells = {name: int(column[number]) for name, column in columns.items()}
            key = buffer[cells["key_pos"] : cells["key_pos"] + cells["key_len"]].tobytes()
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
        parts = self._parts or [{"record": np.empty(0, dtype=np.int64)}]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for records, numbers in self._answers:
            columns["outcome"][np.searchsorted(columns["record"], records)] = numbers
        lost_before = 0
        opened_by: Mapping[Header, int] | None = None
        broken: tuple[LostValue, ...] = ()
        if lost:
            if selection.is_everything:
                opened_by = self._opened_by(columns)
            why = np.array([bool(outcome.why) for outcome in self._outcomes])
            columns = _where(columns, why[columns["outcome"]])
            broken = tuple(self._broken(columns))
        past = _only_old(self._snapshot.database.pages.bytes, columns) if lost else ()
        if not all_revisions:
            live = columns["live"] != 0
            lost_before = int(np.count_nonzero(~live)) if lost else 0
            columns = _where(columns, live)
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
            buffer=self._snapshot.database.pages.bytes,
        )


def _only_old(buffer: NDArray[np.uint8], columns: dict[str, Rows]) -> tuple[bytes, ...]:
    """Return the keys that have no live row among `columns`, each once."""
    keys: dict[bytes, bool] = {}
    places = (columns[name].tolist() for name in ("key_pos", "key_len", "live"))
    for start, size, live in zip(*places, strict=True):
        key = buffer[start : start + size].tobytes()
        keys[key] = keys.get(key, False) or bool(live)
    return tuple(key for key, live in keys.items() if not live)


def _where(columns: dict[str, Rows], chosen: NDArray[np.bool_]) -> dict[str, Rows]:
    return {name: column[chosen] for name, column in columns.items()}
