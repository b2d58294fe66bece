"""Looking into a snapshot without starting anything: its keys, one value, the history of one key.

`listing` passes over the records twice, first for which are live, then for what is asked for, and keeps arrays of
numbers for the chosen ones; a Python object is made for a row when it is taken out to be printed. `find_value` and
`history` look for one key by its hash and decode nothing else.

Which key people mean is said as with kubectl, TYPE NAME and a namespace, or by the etcd key itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from snaptool.errors import InputError, ProviderError
from snaptool.etcd import KeyValue, RecordChunk, Revision, Snapshot, StoredRecord, decode_key_value, hash_spans
from snaptool.kube import ResourceType, UnknownType, key_prefixes, parse_key, resolve_type
from snaptool.operations.crypto import (
    Batch,
    Outcome,
    SystemRandomness,
    Work,
    Workshop,
    open_value,
    plaintext_digest,
)
from snaptool.operations.labels import Header, Labels, header_of, resource_of
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.reasons import explain, server_message
from snaptool.operations.sweep import NOTHING_TRIED, Progress, make_batches, no_progress
from snaptool.providers import Chain, Keyring, Kind, Reason
from snaptool.text import printable

Rows = NDArray[np.int64]

DEFAULT_NAMESPACE = "default"
"""Where an object is looked for when its type has namespaces and none is named: kubectl's default."""


class NoSuchKey(InputError):
    """The snapshot has no such key, or none at that revision. `key` is what was looked for, as the user said it."""

    def __init__(self, key: str, problem: str, *, hint: str) -> None:
        super().__init__(f"{key}: {problem}", hint=hint)
        self.key = key


class ValueLost(ProviderError):
    """A value that was asked for does not open."""

    def __init__(self, value: StoredValue, outcome: Outcome, sentence: str, *, with_config: bool) -> None:
        hint = "give the EncryptionConfiguration of its cluster with --config; -o stored shows the bytes as they are"
        if with_config:
            hint = f"kube-apiserver says: {server_message(outcome)}; another --config may hold the key that fits"
        super().__init__(f"{printable(value.key)} at revision {value.revision} does not open: {sentence}", hint=hint)
        self.key = value.key
        self.revision = value.revision
        self.reasons = outcome.reasons


# --- which keys -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selection:
    """Keys that begin with one of `heads`, and lie in `namespace` if that is given. `kind`: all are of that type."""

    heads: tuple[bytes, ...] = (b"",)
    namespace: str | None = None
    kind: ResourceType | None = None

    def rows(self, chunk: RecordChunk, resource: Rows, prefixes: Sequence[str]) -> Rows:
        """Find the selected records of a chunk. `resource` has their resource numbers."""
        chosen = np.zeros(len(chunk), dtype=np.bool_)
        every = np.arange(len(chunk))
        for head in self.heads:
            chosen[_beginning(chunk, every, head)] = True
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
                for row in _beginning(chunk, of_resource, head.encode(errors="surrogateescape")).tolist():
                    found = parse_key(chunk.user_key(row), prefixes)
                    if found is not None and found.namespace == self.namespace:
                        yield row


def select(word: str | None, namespace: str | None, prefixes: Sequence[str]) -> Selection:
    """Select by a type as kubectl knows it, or by the beginning of an etcd key, which begins with a slash.

    A word that is neither is taken for the beginning of a key outside of Kubernetes. Raises UnknownType for one that
    is no type and looks like one.
    """
    if word is None:
        return Selection(namespace=namespace)
    if word.startswith("/"):
        return Selection((word.encode(errors="surrogateescape"),), namespace)
    try:
        kind = resolve_type(word)
    except UnknownType:
        if "_" in word:  # no type has one, and compact_rev_key has
            return Selection((word.encode(errors="surrogateescape"),), namespace)
        raise
    heads = tuple(head for prefix in prefixes for head in key_prefixes(kind, namespace, prefix=prefix))
    return Selection(heads, None, kind)


def _beginning(chunk: RecordChunk, rows: Rows, head: bytes) -> Rows:
    """Which of `rows` have keys that begin with `head`."""
    if not head:
        return rows
    rows = rows[chunk.key_len[rows] >= len(head)]
    return rows[_equal(chunk, chunk.key_pos[rows], head)]


def _ending(chunk: RecordChunk, rows: Rows, tail: bytes) -> Rows:
    """Which of `rows` have keys that end with `tail`."""
    rows = rows[chunk.key_len[rows] >= len(tail)]
    return rows[_equal(chunk, chunk.key_pos[rows] + chunk.key_len[rows] - len(tail), tail)]


def _equal(chunk: RecordChunk, positions: Rows, text: bytes) -> NDArray[np.bool_]:
    """Does `text` stand at `positions`? By hashes, which are keyed: nobody can make two texts that have the same."""
    wanted = hash_spans(np.frombuffer(text, dtype=np.uint8), np.zeros(1, np.int64), np.array([len(text)]))
    equal: NDArray[np.bool_] = hash_spans(chunk.buffer, positions, np.full(len(positions), len(text))) == wanted[0]
    return equal


# --- list -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRecord:
    """One row of a listing. `size`: bytes of the stored value; `outcome` is None when nobody tried to open it.

    `namespace` is empty for what is in none. `key_name` is the name of the encryption key, not of the etcd key.
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
    key_name: str
    size: int
    outcome: Outcome | None

    @property
    def reason(self) -> str:
        """Why it is lost, in a sentence; empty when it is not."""
        return "" if self.outcome is None else explain(self.outcome, self.header)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Listing:
    """The chosen records in order of their keys, and of one key in order of revision. Iterate to get rows.

    `lost_before`: older values that are lost too, and not shown. The rest are the rows as columns of numbers, which
    point into `buffer`, the bytes of the file: valid while the snapshot is open.
    """

    selection: Selection
    revision: int
    prefixes: tuple[str, ...]
    lost_before: int
    columns: dict[str, Rows] = field(repr=False)
    headers: tuple[Header, ...]
    outcomes: tuple[Outcome, ...]
    buffer: NDArray[np.uint8] = field(repr=False)

    def __len__(self) -> int:
        return len(self.columns["record"])

    @property
    def lost(self) -> int:
        """How many of the rows are lost."""
        lost = np.array([not outcome.opened for outcome in self.outcomes])
        return int(np.count_nonzero(lost[self.columns["outcome"]]))

    def __iter__(self) -> Iterator[ListedRecord]:
        order = order_of_keys(self.buffer, self.columns["key_pos"], self.columns["key_len"])
        for start in range(0, len(order), _BLOCK_ROWS):
            block = [column[order[start : start + _BLOCK_ROWS]].tolist() for column in self.columns.values()]
            for cells in zip(*block, strict=True):
                yield self._row(dict(zip(self.columns, cells, strict=True)))

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
            key_name=opened_by or header.name,
            size=cells["value_len"],
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
    word: str | None = None,
    namespace: str | None = None,
    keyring: Keyring | None = None,
    *,
    all_revisions: bool = False,
    lost: bool = False,
    skip_hash_check: bool = False,
    jobs: int = 1,
    progress: Progress = no_progress,
) -> Listing:
    """List the live values, or with `all_revisions` every record, deletions too. `word`: see `select`.

    With a keyring every listed value is opened as well; `lost` then lists those alone that do not open. Raises
    UnknownType, WrongTrailer, and the FormatErrors of a damaged file.
    """
    snapshot = opened.snapshot
    selection = select(word, namespace, opened.prefixes)
    with contextlib.ExitStack() as stack:
        workshop = None
        if keyring is not None:
            work = Work(keyring, keyring, SystemRandomness())
            workshop = stack.enter_context(Workshop(work, opened.source, jobs=jobs))
        digests = stack.enter_context(opened.digests())
        collected = _Collected(snapshot, Labels(opened.prefixes), workshop)
        # An old value that is lost stops a rewrite as well, so that they are counted even where they are not shown.
        collected.run(selection, opened.tend, progress, every=all_revisions or lost)
        if not skip_hash_check:
            digests.require_right_trailer()
    return collected.listing(selection, lost=lost, all_revisions=all_revisions)


class _Collected:
    """What the pass for a listing keeps: columns of numbers for the selected records."""

    def __init__(self, snapshot: Snapshot, labels: Labels, workshop: Workshop | None) -> None:
        self._snapshot = snapshot
        self._labels = labels
        self._workshop = workshop
        self._live = snapshot.live_mask()
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
            self._answers.append((batch.record, numbers[answer.outcome]))

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
            values = rows[(header[rows] != 0) & ~chunk.tombstone[rows]]
            if self._workshop is not None:
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

    def listing(self, selection: Selection, *, lost: bool, all_revisions: bool) -> Listing:
        parts = self._parts or [{"record": np.empty(0, dtype=np.int64)}]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for records, numbers in self._answers:
            columns["outcome"][np.searchsorted(columns["record"], records)] = numbers
        lost_before = 0
        if lost:
            not_opened = np.array([not outcome.opened for outcome in self._outcomes])
            columns = _where(columns, not_opened[columns["outcome"]])
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
            headers=tuple(self._labels.headers),
            outcomes=tuple(self._outcomes),
            buffer=self._snapshot.database.pages.bytes,
        )


def _where(columns: dict[str, Rows], chosen: NDArray[np.bool_]) -> dict[str, Rows]:
    return {name: column[chosen] for name, column in columns.items()}


# --- one key --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A key as the user said it: `key` whole, or `kind`, `name` and `namespace`.

    `namespace_assumed`: the type may have namespaces, none was named, so it is looked for in `default`.
    """

    said: str
    key: bytes | None = None
    kind: ResourceType | None = None
    name: str = ""
    namespace: str | None = None
    namespace_assumed: bool = False

    def keys(self, prefixes: Sequence[str]) -> tuple[bytes, ...]:
        """The etcd keys that this may be, likelier first."""
        if self.kind is None:
            return () if self.key is None else (self.key,)
        return tuple(
            key for prefix in prefixes for key in key_prefixes(self.kind, self.namespace, self.name, prefix=prefix)
        )


def parse_target(words: Sequence[str], namespace: str | None = None) -> Target:
    """Read `KEY`, `TYPE NAME` or `TYPE/NAME`. Raises UnknownType, and InputError for anything else."""
    if len(words) == 1:
        kind_word, slash, name = words[0].partition("/")
        if not (kind_word and slash and name):
            key = words[0].encode(errors="surrogateescape")
            return Target(said=printable(key), key=key)
        words = (kind_word, name)
    if len(words) != 2:
        raise InputError("say one key, or a type and a name", hint="for example: secrets my-secret -n my-namespace")
    kind = resolve_type(words[0])
    assumed = namespace is None and kind.namespaced is not False
    where = None if kind.namespaced is False else namespace or DEFAULT_NAMESPACE
    said = f"{kind.group_resource} {words[1]!r}" + (f" in namespace {where!r}" if where else "")
    return Target(said=said, kind=kind, name=words[1], namespace=where, namespace_assumed=assumed)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredValue:
    """One value as it is stored. `stored`: with the encryption around it; `live`: it is the current one of its key."""

    key: bytes
    revision: Revision
    live: bool
    record: KeyValue
    header: Header
    stored: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedValue:
    """What opening a value gave. `notice`: what the user should know about it, empty mostly."""

    plaintext: bytes = field(repr=False)
    outcome: Outcome
    notice: str = ""


def find_value(
    opened: OpenedSnapshot,
    target: Target,
    revision: int | None = None,
    *,
    skip_hash_check: bool = False,
) -> StoredValue:
    """Find the current value of a key, or the one that a client got at `revision`.

    Raises NoSuchKey, WrongTrailer, and the FormatErrors of a damaged file.
    """
    key, records = _find(opened, target, skip_hash_check=skip_hash_check)
    snapshot = opened.snapshot
    if revision is not None and revision > snapshot.current_revision:
        problem = f"the snapshot ends at revision {snapshot.current_revision}, before {revision}"
        raise NoSuchKey(printable(key), problem, hint="without --revision you get the current value")
    until = [record for record in records if revision is None or record.revision.main <= revision]
    if not until:
        problem = f"its oldest record is of revision {records[0].revision}, after {revision}"
        if snapshot.compacted_revision:
            problem += f"; the store was compacted at {snapshot.compacted_revision}"
        raise NoSuchKey(printable(key), problem, hint="`snaptool history` lists what is stored")
    record = until[-1]
    if record.tombstone:
        hint = "nothing older is stored"
        if len(until) > 1:
            hint = f"its value before that: --revision {until[-2].revision.main}"
        raise NoSuchKey(printable(key), f"it was deleted at revision {record.revision}", hint=hint)
    return _stored_value(snapshot, record, live=record is records[-1])


def _stored_value(snapshot: Snapshot, record: StoredRecord, *, live: bool) -> StoredValue:
    key_value = decode_key_value(snapshot.stored_value(record))
    return StoredValue(
        key=record.key,
        revision=record.revision,
        live=live,
        record=key_value,
        header=header_of(key_value.value),
        stored=key_value.value,
    )


def _find(opened: OpenedSnapshot, target: Target, *, skip_hash_check: bool) -> tuple[bytes, list[StoredRecord]]:
    snapshot = opened.snapshot
    with opened.digests() as digests:
        keys = target.keys(opened.prefixes)
        histories = snapshot.history_of(keys)
        if not skip_hash_check:
            digests.require_right_trailer()
    for key in keys:
        if key in histories:
            return key, histories[key]
    raise NoSuchKey(target.said, "there is no such key", hint=_where_else(snapshot, target, opened.prefixes))


_NAMED_PLACES = 5


def _where_else(snapshot: Snapshot, target: Target, prefixes: Sequence[str]) -> str:
    """Say where objects of the same type and name are, which is what people who forgot `-n` need."""
    if target.kind is None:
        return "`snaptool list SNAPSHOT KEY-PREFIX` shows which keys there are; or say a type and a name"
    tail = b"/" + target.name.encode(errors="surrogateescape")
    heads = [head for prefix in prefixes for head in key_prefixes(target.kind, prefix=prefix)]
    places: dict[str, None] = {}
    for chunk in snapshot.records():
        for head in heads:
            rows = _ending(chunk, _beginning(chunk, np.arange(len(chunk)), head), tail)
            for row in rows.tolist() if len(places) <= _NAMED_PLACES else ():
                parsed = parse_key(chunk.user_key(row), prefixes)
                if parsed is not None and parsed.namespace and parsed.name == target.name:
                    places[parsed.namespace] = None
    if not places:
        return f"`snaptool list SNAPSHOT {target.kind.group_resource}` shows which there are"
    more = ", ..." if len(places) > _NAMED_PLACES else ""
    return f"one of that name is in namespace {', '.join([*places][:_NAMED_PLACES])}{more}: say -n"


def open_found(opened: OpenedSnapshot, value: StoredValue, keyring: Keyring | None) -> OpenedValue:
    """Open a value that was found. What is stored in clear is shown whatever the keyring says. Raises ValueLost."""
    prefixes = opened.prefixes
    chain = (keyring or Keyring()).chain_for(resource_of(value.key, prefixes).group_resource)
    outcome, plaintext = open_value(chain, value.stored, value.key)
    if value.header.kind is Kind.IDENTITY:
        notice = "" if keyring is None else explain(outcome, value.header)
        return OpenedValue(plaintext=value.stored, outcome=outcome, notice=notice)
    if plaintext is None or not outcome.opened:
        sentence = explain(outcome, value.header, with_config=False)
        if keyring is not None:
            sentence = _Origins(opened.snapshot, value.key, chain, prefixes).explain(value, outcome)
        raise ValueLost(value, outcome, sentence, with_config=keyring is not None)
    return OpenedValue(plaintext=plaintext, outcome=outcome)


class _Origins:
    """Finds the etcd key that a value was moved from: the one of the same resource under which it opens.

    AES-GCM and KMS bind a value to its etcd key. Gives up after some tries, in all, which take some 100 ms.
    """

    def __init__(self, snapshot: Snapshot, key: bytes, chain: Chain, prefixes: Sequence[str]) -> None:
        self._snapshot = snapshot
        self._key = key
        self.chain = chain
        self._prefixes = prefixes
        self._tries_left = _MOST_TRIES

    def explain(self, value: StoredValue, outcome: Outcome) -> str:
        """Say why the value does not open, by its origin where there is one."""
        if Reason.GCM_AUTH in outcome.reasons:
            for key in self._others:
                if self._tries_left <= 0:
                    break
                self._tries_left -= 1
                if open_value(self.chain, value.stored, key)[0].opened:
                    return (
                        f"the key fits, but the value was moved here from {printable(key)}, and its encryption is "
                        "bound to that etcd key"
                    )
        return explain(outcome, value.header)

    @cached_property
    def _others(self) -> tuple[bytes, ...]:
        parsed = parse_key(self._key, self._prefixes)
        if parsed is None:
            return ()
        head = f"{parsed.prefix}/{parsed.path}/".encode(errors="surrogateescape")
        keys: dict[bytes, None] = {}
        for chunk in self._snapshot.records():
            for row in _beginning(chunk, np.arange(len(chunk)), head)[:_MOST_TRIES].tolist():
                keys[chunk.user_key(row)] = None
            if len(keys) > _MOST_TRIES:
                break
        keys.pop(self._key, None)
        return tuple(keys)


_MOST_TRIES = 10_000


# --- history --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One record of a key. A deletion has no value: its `header`, `outcome` and `digest` are None.

    `digest`: 16 bytes that are equal for equal plaintexts, None where the value was not opened. `outcome` is None also
    when there were no keys to try. `reason`: why the value is lost, in a sentence.
    """

    revision: Revision
    deleted: bool
    live: bool
    version: int
    lease: int
    size: int
    header: Header | None
    key_name: str
    digest: bytes | None
    outcome: Outcome | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Every stored revision of a key, oldest first. What a compaction took is not there: see `compacted_revision`."""

    key: bytes
    revision: int
    compacted_revision: int
    entries: tuple[HistoryEntry, ...]

    @property
    def lost(self) -> int:
        """How many values are lost."""
        return sum(1 for entry in self.entries if entry.outcome is not None and not entry.outcome.opened)


def history(
    opened: OpenedSnapshot,
    target: Target,
    keyring: Keyring | None = None,
    *,
    skip_hash_check: bool = False,
) -> History:
    """Tell the history of a key. Without a keyring plaintext alone is digested. Raises as `find_value`."""
    prefixes = opened.prefixes
    key, records = _find(opened, target, skip_hash_check=skip_hash_check)
    snapshot = opened.snapshot
    origins = None
    if keyring is not None:
        chain = keyring.chain_for(resource_of(key, prefixes).group_resource)
        origins = _Origins(snapshot, key, chain, prefixes)
    return History(
        key=key,
        revision=snapshot.current_revision,
        compacted_revision=snapshot.compacted_revision,
        entries=tuple(
            _deletion(record)
            if record.tombstone
            else _entry(_stored_value(snapshot, record, live=record is records[-1]), origins)
            for record in records
        ),
    )


def _deletion(record: StoredRecord) -> HistoryEntry:
    return HistoryEntry(
        revision=record.revision,
        deleted=True,
        live=False,
        version=0,
        lease=0,
        size=0,
        header=None,
        key_name="",
        digest=None,
        outcome=None,
    )


def _entry(value: StoredValue, origins: _Origins | None) -> HistoryEntry:
    plaintext = value.stored if value.header.kind is Kind.IDENTITY else None
    outcome, reason = None, ""
    if origins is not None:
        outcome, found = open_value(origins.chain, value.stored, value.key)
        plaintext = found if outcome.opened else plaintext
        reason = origins.explain(value, outcome)
    return HistoryEntry(
        revision=value.revision,
        deleted=False,
        live=value.live,
        version=value.record.version,
        lease=value.record.lease,
        size=len(value.stored),
        header=value.header,
        key_name=(outcome.key_name if outcome else "") or value.header.name,
        digest=None if plaintext is None else plaintext_digest(plaintext),
        outcome=outcome,
        reason=reason,
    )
