"""The prefixes of the API servers in a snapshot: evidence, gathered by whatever pass sees all records.

Every place in a key where the path of a resource may begin is looked at: a segment that is called like a resource, or
that has a dot and may be an API group; and samples of the values there. As soon as a prefix is certain, keys under it
that read as its own are passed over, by their paths: nearly all keys of a real snapshot.

What counts as evidence, and what follows from it, is said by `kube.prefixes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from snaptool.errors import FormatError
from snaptool.etcd import Records
from snaptool.kube.cutting import Paths, marked
from snaptool.kube.keys import DEFAULT_PREFIXES, RESOURCE_TYPES, resource_segments
from snaptool.kube.names import is_plural_of
from snaptool.kube.objects import PROTOBUF_MAGIC, decode_envelope, describe
from snaptool.kube.prefixes import Judgement, OutsidePrefix, PrefixEvidence
from snaptool.operations.labels import ENCRYPTED

_OBJECTS = (PROTOBUF_MAGIC, b"{", b"\xd9\xd9\xf7")
"""What objects begin with: protobuf, JSON, CBOR."""

_LONGEST_KEY = 4096
_DEEPEST = 16
"""Nobody nests a prefix deeper, and a hostile key may consist of slashes."""

_SAMPLES = 6
_LARGEST_SAMPLE = 1 << 18
_MOST_EVIDENCE = 50_000
_MOST_STRAYS = 1000

_BY_PATH = {known.path: known for known in RESOURCE_TYPES}
_DEPTHS = {first.encode(): resource_segments(first) for first in {path.partition("/")[0] for path in _BY_PATH}}
_DEPTHS = {first: depth for first, depth in _DEPTHS.items() if b"." not in first}


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


def head_of(prefix: str) -> bytes:
    """Return what the keys under a prefix begin with."""
    return f"{prefix}/".encode(errors="surrogateescape")


class PrefixFinder:
    """Gathers the evidence. `given`: prefixes that the user said, in their normal form."""

    def __init__(self, given: tuple[str, ...] = ()) -> None:
        self._given = given
        self._evidence = PrefixEvidence()
        self._strays: Counter[bytes] = Counter()
        self._with_keys: set[str] = set()
        self._certain: tuple[bytes, ...] = ()
        self._own: list[bool] = []
        self._judged = 0

    def facts(self) -> PrefixFacts:
        """Say what follows from what was seen."""
        found = self._evidence.judge()
        judgement = self._evidence.judge(self._given) if self._given else found
        heads = tuple(map(head_of, judgement.taken))
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

    def add(self, records: Records, paths: Paths, path_of: memoryview) -> None:
        """Take the records of a chunk. `path_of`: of each, the number of its path in `paths`, cut by given prefixes."""
        met = paths.met()
        for text in met[len(self._own) :]:
            self._own.append(self._reads_as_its_own(text))
            self._with_keys.update(prefix for prefix in self._given if text.startswith(head_of(prefix)))
        strange = marked(path_of, memoryview(bytes(not own for own in self._own)), len(records))
        if not strange:
            return
        self._look_at(records, [row for row in strange if records.is_put(row)])
        if len(self._evidence) != self._judged:
            self._judged = len(self._evidence)
            certain = tuple(map(head_of, self._evidence.judge().taken))
            if certain != self._certain:
                self._certain = certain
                self._own = [self._reads_as_its_own(text) for text in met]

    def _reads_as_its_own(self, path: bytes) -> bool:
        """Does a path go on behind a certain prefix with that of a resource, or with a group and an unusual name?"""
        for head in self._certain:
            if path.startswith(head) and path.endswith(b"/"):
                behind = path[len(head) : -1].decode(errors="surrogateescape")
                first, _, second = behind.partition("/")
                if behind in _BY_PATH or (
                    "." in first and second and second.encode(errors="surrogateescape") not in _DEPTHS
                ):
                    return True
        return False

    def _look_at(self, records: Records, rows: Sequence[int]) -> None:
        """Look at every place in keys where the path of a resource may begin."""
        places: dict[tuple[bytes, bytes], list[_Value]] = {}
        stray: set[int] = set()
        for row in rows:
            begin = bytes(records.view[records.value_at[row] :][: min(records.value_size[row], len(ENCRYPTED))])
            encrypted = begin == ENCRYPTED
            if not encrypted and not begin.startswith(_OBJECTS):
                continue
            key = records.user_key(row)[:_LONGEST_KEY]
            if encrypted or begin.startswith(PROTOBUF_MAGIC):
                stray.add(row)
            for prefix, path, segments in _places(key):
                value = _Value(row, encrypted=encrypted, sure=row in stray, segments=segments)
                places.setdefault((prefix, path), []).append(value)
        for (prefix, path), values in places.items():
            self._take(
                records, prefix.decode(errors="surrogateescape"), path.decode(errors="surrogateescape"), values, stray
            )
        for row in sorted(stray):
            key = records.user_key(row)[:_LONGEST_KEY]
            self._stray(key[: key.rfind(b"/") + 1], 1)

    def _stray(self, place: bytes, count: int) -> None:
        self._strays[place if place in self._strays or len(self._strays) < _MOST_STRAYS else b""] += count

    def _take(self, records: Records, prefix: str, path: str, values: Sequence[_Value], stray: set[int]) -> None:
        """Count evidence for a path behind a prefix; the rows of what speaks for it are not `stray`."""
        if path not in _BY_PATH and "." not in path.partition("/")[0]:
            return
        plain = [value for value in values if not value.encrypted]
        encrypted = [value for value in values if value.encrypted]
        objects = _objects(records, [value.row for value in plain], path)
        if prefix in DEFAULT_PREFIXES:
            # Damaged or misplaced objects are Kubernetes' too; under another prefix they prove nothing.
            objects = objects or sum(value.sure for value in plain) * (path in _BY_PATH)
        else:
            encrypted = [value for value in encrypted if value.segments in _segments_behind(path)]
        stray.difference_update(value.row for value in encrypted)
        if objects:
            stray.difference_update(value.row for value in plain)
        if not encrypted and not objects:
            return
        if len(self._evidence) >= _MOST_EVIDENCE:
            self._stray(head_of(prefix), len(values))
        else:
            self._evidence.add(prefix, path, objects=objects, encrypted=len(encrypted))


@dataclass(frozen=True, slots=True)
class _Value:
    """A value at a place where the path of a resource may stand, with so many segments behind it, 3 for more.

    `sure`: nothing but Kubernetes writes a value that begins so.
    """

    row: int
    encrypted: bool
    sure: bool
    segments: int


def _places(key: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield prefix, path and number of segments behind of every place in a key where a resource's path may stand."""
    if not key.startswith(b"/"):
        return
    start = 1
    for _ in range(_DEEPEST):
        first = key.find(b"/", start)
        if first < 0:
            return
        segment = key[start:first]
        until = first
        for _ in range(1, _DEPTHS.get(segment, 2 if b"." in segment else 0)):
            until = key.find(b"/", until + 1) if until >= 0 else until
        if until >= 0 and (segment in _DEPTHS or b"." in segment):
            yield key[: start - 1], key[start:until], min(key.count(b"/", until + 1) + 1, 3)
        start = first + 1


def _segments_behind(path: str) -> tuple[int, ...]:
    """How many segments follow the path of a resource: namespace and name, or a name alone."""
    known = _BY_PATH.get(path)
    return (1, 2) if known is None else (2 if known.namespaced else 1,)


def _objects(records: Records, rows: Sequence[int], path: str) -> int:
    """Count the values that are objects of the resource at `path`, as far as samples tell: all of them, or none."""
    for row in rows[:: max(len(rows) // _SAMPLES, 1)]:
        try:
            if records.value_size[row] <= _LARGEST_SAMPLE and _is_of(path, records.value(row)):
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
