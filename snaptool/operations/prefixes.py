"""The prefixes of the API servers in a snapshot: one pass over all keys, by arrays, that gathers evidence.

Every place in a key where the path of a resource may begin is looked at: a segment that is called like a resource, or
that has a dot and may be an API group. Python sees one representative of each distinct beginning of a key under which
values look like Kubernetes', and samples of those values. As soon as a prefix is certain, keys under it that read as
its own are passed over.

What counts as evidence, and what follows from it, is said by `kube.prefixes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snaptool.errors import FormatError
from snaptool.etcd import RecordChunk, Snapshot, find_byte, hash_spans
from snaptool.kube import (
    DEFAULT_PREFIXES,
    PROTOBUF_MAGIC,
    RESOURCE_TYPES,
    Judgement,
    OutsidePrefix,
    PrefixEvidence,
    decode_envelope,
    describe,
    is_plural_of,
    resource_segments,
)
from snaptool.operations.labels import ENCRYPTED, starts_with

_OBJECTS = (PROTOBUF_MAGIC, b"{", b"\xd9\xd9\xf7")
"""What objects begin with: protobuf, JSON, CBOR."""

_SLASH, _DOT = ord("/"), ord(".")
_LONGEST_KEY = 4096
_DEEPEST = 16
"""Nobody nests a prefix deeper, and a hostile key may consist of slashes."""

_SAMPLES = 6
_LARGEST_SAMPLE = 1 << 18
_MOST_EVIDENCE = 50_000
_MOST_STRAYS = 1000

Rows = NDArray[np.int64]

_BY_PATH = {known.path: known for known in RESOURCE_TYPES}
_FIRST = [first.encode() for first in sorted({path.partition("/")[0] for path in _BY_PATH}) if "." not in first]
_DEPTH = np.array([resource_segments(first) for first in _FIRST], dtype=np.int64)
_TEXT = np.frombuffer(b"".join(_FIRST), dtype=np.uint8)
_SIZE = np.array([len(first) for first in _FIRST], dtype=np.int64)
_HASH = hash_spans(_TEXT, np.cumsum(_SIZE) - _SIZE, _SIZE)
_ORDER = np.argsort(_HASH)
_HASH, _DEPTH = _HASH[_ORDER], _DEPTH[_ORDER]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixFacts:
    """What the keys say of prefixes, all in their normal form (`kube.normal_prefix`).

    `taken`: those given, else those found, in order. `found`: what evidence speaks for. `outside`: what is not taken,
    although values under it look like Kubernetes'. `strays`: how many encrypted values lie where no resource can,
    under none of `taken`, by the place above them. `empty`: which of the given ones no key lies under.
    """

    taken: tuple[str, ...]
    found: tuple[str, ...]
    outside: tuple[OutsidePrefix, ...]
    strays: tuple[tuple[bytes, int], ...]
    empty: tuple[str, ...]


def find_prefixes(
    snapshot: Snapshot, given: tuple[str, ...] = (), tend: Callable[[RecordChunk], None] = lambda _: None
) -> PrefixFacts:
    """Pass over all keys. `given`: prefixes that the user said, in their normal form. Raises CorruptPage."""
    finder = _Finder(given)
    for chunk in snapshot.records(lambda _: None):
        finder.add(chunk)
        tend(chunk)
    return finder.facts()


class _Finder:
    def __init__(self, given: tuple[str, ...]) -> None:
        self._given = given
        self._evidence = PrefixEvidence()
        self._strays: Counter[bytes] = Counter()
        self._with_keys: set[str] = set()
        self._certain: tuple[bytes, ...] = ()
        self._judged = 0

    def facts(self) -> PrefixFacts:
        found = self._evidence.judge()
        judgement = self._evidence.judge(self._given) if self._given else found
        heads = tuple(f"{prefix}/".encode(errors="surrogateescape") for prefix in judgement.taken)
        return PrefixFacts(
            taken=judgement.taken,
            found=found.taken,
            outside=judgement.outside,
            strays=tuple(sorted(one for one in self._strays.items() if not one[0].startswith(heads))),
            empty=tuple(prefix for prefix in self._given if self._is_empty(prefix, found)),
        )

    def _is_empty(self, prefix: str, found: Judgement) -> bool:
        if prefix not in self._with_keys:
            return True
        # All that lies under `/` may lie under `/registry`, and is read as something else from there.
        longer = any(other.startswith(f"{prefix}/") for other in found.taken)
        return longer and not self._evidence.speaks_for(prefix)

    def add(self, chunk: RecordChunk) -> None:
        """Take the records of a chunk."""
        for prefix in self._given:
            head = f"{prefix}/".encode(errors="surrogateescape")
            if prefix not in self._with_keys and starts_with(chunk.buffer, chunk.key_pos, chunk.key_len, head).any():
                self._with_keys.add(prefix)
        rows = np.nonzero(chunk.readable & ~chunk.tombstone)[0]
        for head in self._certain:
            rows = rows[~self._reads_as_its_own(chunk, rows, head)]
        if len(rows):
            self._look_at(_Values(chunk, rows))
            if len(self._evidence) != self._judged:
                self._judged = len(self._evidence)
                taken = self._evidence.judge().taken
                self._certain = tuple(f"{prefix}/".encode(errors="surrogateescape") for prefix in taken)

    @staticmethod
    def _reads_as_its_own(chunk: RecordChunk, rows: Rows, head: bytes) -> NDArray[np.bool_]:
        """Which keys go on behind a certain prefix with the name of a resource, or with a group and an unusual name."""
        own = starts_with(chunk.buffer, chunk.key_pos[rows], chunk.key_len[rows], head)
        (some,) = np.nonzero(own)
        start = chunk.key_pos[rows[some]] + len(head)
        left = np.minimum(chunk.key_len[rows[some]], _LONGEST_KEY) - len(head)
        first = find_byte(chunk.buffer, start, left, _SLASH)
        known = _depths(chunk.buffer, start, first) == 1
        (others,) = np.nonzero(~known)
        if len(others):
            start, left, first = start[others], left[others], first[others]
            dotted = find_byte(chunk.buffer, start, first, _DOT) < first
            start, left = start + np.minimum(first + 1, left), np.maximum(left - first - 1, 0)
            second = find_byte(chunk.buffer, start, left, _SLASH)
            known[others] = dotted & (_depths(chunk.buffer, start, second) == 0)
        own[some] = known
        return own

    def _look_at(self, values: _Values) -> None:
        """Look at every place in a key where the path of a resource may begin."""
        buffer, chunk = values.chunk.buffer, values.chunk
        slash = starts_with(buffer, chunk.key_pos[values.rows], chunk.key_len[values.rows], b"/")
        stray = np.ones(len(values.rows), dtype=np.bool_)
        (rows,) = np.nonzero(slash)
        start = chunk.key_pos[values.rows[rows]] + 1
        end = start - 1 + np.minimum(chunk.key_len[values.rows[rows]], _LONGEST_KEY)
        for _ in range(_DEEPEST):
            first = find_byte(buffer, start, end - start, _SLASH)
            goes_on = start + first < end
            rows, start, end, first = rows[goes_on], start[goes_on], end[goes_on], first[goes_on]
            if not len(rows):
                break
            depth = _depths(buffer, start, first)
            depth[(depth == 0) & (find_byte(buffer, start, first, _DOT) < first)] = 2
            for segments in range(1, int(_DEPTH.max()) + 1):
                (some,) = np.nonzero(depth == segments)
                until = start[some] + first[some]
                for _ in range(1, segments):
                    until = np.minimum(until + 1, end[some])
                    until += find_byte(buffer, until, end[some] - until, _SLASH)
                some, until = some[until < end[some]], until[until < end[some]]
                places = _Places(rows[some], start[some], until, _count_segments(buffer, until + 1, end[some]))
                self._take(values, places, stray)
            start = start + first + 1
        for row in np.nonzero(stray & values.sure)[0].tolist():
            key = chunk.user_key(int(values.rows[row]))[:_LONGEST_KEY]
            self._stray(key[: key.rfind(b"/") + 1], 1)

    def _stray(self, place: bytes, count: int) -> None:
        self._strays[place if place in self._strays or len(self._strays) < _MOST_STRAYS else b""] += count

    def _take(self, values: _Values, places: _Places, stray: NDArray[np.bool_]) -> None:
        """Count evidence for the paths at some places, and what stands before them; such rows are not `stray`."""
        rows, start, until = places.rows, places.start, places.until
        buffer, key = values.chunk.buffer, values.chunk.key_pos[values.rows[rows]]
        _, some, group = np.unique(hash_spans(buffer, key, until - key), return_index=True, return_inverse=True)
        order = np.argsort(group, kind="stable")
        border = np.searchsorted(group[order], np.arange(len(some) + 1))
        for number, row in enumerate(some.tolist()):
            prefix = buffer[key[row] : start[row] - 1].tobytes().decode(errors="surrogateescape")
            path = buffer[start[row] : until[row]].tobytes().decode(errors="surrogateescape")
            if path not in _BY_PATH and "." not in path.partition("/")[0]:
                continue
            chosen = order[border[number] : border[number + 1]]
            members = rows[chosen]
            encrypted = values.encrypted[members]
            objects = _objects(values, members[~encrypted], path)
            if prefix in DEFAULT_PREFIXES:
                # Damaged or misplaced objects are Kubernetes' too; under another prefix they prove nothing.
                objects = objects or int(np.count_nonzero(values.sure[members] & ~encrypted)) * (path in _BY_PATH)
            else:
                encrypted &= np.isin(places.segments[chosen], _segments_behind(path))
            stray[members[encrypted]] = False
            if objects:
                stray[members[~values.encrypted[members]]] = False
            if encrypted.any() or objects:
                if len(self._evidence) >= _MOST_EVIDENCE:
                    self._stray(prefix.encode(errors="surrogateescape") + b"/", len(members))
                    continue
                self._evidence.add(prefix, path, objects=objects, encrypted=int(np.count_nonzero(encrypted)))


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the path of a resource may stand: from `start` to `until` in the key of each of `rows`.

    `segments`: how many of them follow, 3 for more.
    """

    rows: Rows
    start: Rows
    until: Rows
    segments: Rows


def _count_segments(buffer: NDArray[np.uint8], start: Rows, end: Rows) -> Rows:
    """Count the segments between `start` and `end`: 1, 2, or 3 for more."""
    count = np.ones(len(start), dtype=np.int64)
    for _ in range(2):
        start = np.minimum(start + find_byte(buffer, start, end - start, _SLASH) + 1, end)
        count += start < end
    return count


def _segments_behind(path: str) -> tuple[int, ...]:
    """How many segments follow the path of a resource: namespace and name, or a name alone."""
    known = _BY_PATH.get(path)
    return (1, 2) if known is None else (2 if known.namespaced else 1,)


class _Values:
    """The records among some rows of a chunk whose values say something: those encrypted, and what may be objects.

    `sure`: nothing but Kubernetes writes a value that begins so.
    """

    def __init__(self, chunk: RecordChunk, rows: Rows) -> None:
        position, size = chunk.value_pos[rows], chunk.value_len[rows]
        encrypted = starts_with(chunk.buffer, position, size, ENCRYPTED)
        protobuf, *others = (starts_with(chunk.buffer, position, size, start) for start in _OBJECTS)
        chosen = np.logical_or.reduce([encrypted, protobuf, *others])
        self.chunk = chunk
        self.rows = rows[chosen]
        self.encrypted = encrypted[chosen]
        self.sure = (encrypted | protobuf)[chosen]

    def stored(self, row: int) -> bytes | None:
        """Return a value; None for one that is too large for a sample."""
        start, size = (int(numbers[self.rows[row]]) for numbers in (self.chunk.value_pos, self.chunk.value_len))
        return self.chunk.buffer[start : start + size].tobytes() if size <= _LARGEST_SAMPLE else None


def _depths(buffer: NDArray[np.uint8], start: Rows, size: Rows) -> Rows:
    """How many segments form the path of a resource that begins with the segment at `start`; 0 where none does."""
    found = hash_spans(buffer, start, size)
    at = np.minimum(np.searchsorted(_HASH, found), len(_HASH) - 1)
    depths: Rows = np.where(_HASH[at] == found, _DEPTH[at], 0)
    return depths


def _objects(values: _Values, rows: Rows, path: str) -> int:
    """Count the values that are objects of the resource at `path`, as far as samples tell: all of them, or none."""
    for row in rows[:: max(len(rows) // _SAMPLES, 1)].tolist():
        stored = values.stored(row)
        try:
            if stored is not None and _is_of(path, stored):
                return len(rows)
        except FormatError:
            continue
    return 0


def _is_of(path: str, stored: bytes) -> bool:
    """Is a value an object of the resource at `path`? Raises FormatErrors for what is none."""
    protobuf = stored.startswith(PROTOBUF_MAGIC)
    header = decode_envelope(stored) if protobuf else describe(stored)  # what the envelope holds may be damaged
    group = header.api_version.rpartition("/")[0]
    known = _BY_PATH.get(path)
    if known is not None:
        return header.kind == known.kind and group in {known.group, *known.former_groups}
    its_group, _, plural = path.partition("/")
    # JSON says nothing of a custom resource: Calico writes its own in the same way, to keys of the same form.
    return group == its_group and protobuf and is_plural_of(plural, header.kind)
