"""What records are called: the resource of every key, the provider and key name in front of every value.

Both are answered for whole chunks at once. The bytes that decide (a few leading path segments of a key; the text up to
the fifth colon of a value that begins with `k8s:enc:`) are found with array operations and hashed; Python looks at one
representative of each distinct text, and remembers it for the chunks that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from snaptool.bolt import numbers
from snaptool.etcd import RecordChunk, Records, find_byte, hash_spans
from snaptool.kube import COMPACT_REVISION_KEY, MAX_RESOURCE_SEGMENTS, parse_key, plausible, resource_segments
from snaptool.kube.cutting import MOST_TEXTS, Headers, Paths, weigh
from snaptool.providers import GroupResource, Kind

ENCRYPTED = b"k8s:enc:"
_SLASH, _COLON = ord("/"), ord(":")
_HEADER_COLONS = 5  # k8s:enc:PROVIDER:VERSION:NAME:
_WINDOW = 96
_SAMPLES = 8
LONGEST_HEADER = 4096
_MOST_NAMES = MOST_TEXTS

NO_KEY_NAME = "(no key name)"
"""Shown where no colon ends the name, or what stands before the colon is no text: the value is damaged there."""

Positions = NDArray[np.int64]


_KINDS = {
    b"aescbc:v1": Kind.AESCBC,
    b"aesgcm:v1": Kind.AESGCM,
    b"secretbox:v1": Kind.SECRETBOX,
    b"kms:v1": Kind.KMS_V1,
    b"kms:v2": Kind.KMS_V2,
}


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as it occurs in a snapshot.

    `name` is for people and JSON: `secrets`, `deployments.apps`, `foos.?`, or `(other)` for keys under no known prefix.
    `group_resource` chooses the chain: None when no configuration can name it. `encryptable`: API servers encrypt it.
    """

    name: str
    group_resource: GroupResource | None
    encryptable: bool

    @property
    def needs_an_object(self) -> bool:
        """Is the plural known to nobody, so that anything may lie there?"""
        return self.group_resource is not None and self.group_resource.group is None


@dataclass(frozen=True, slots=True)
class Header:
    """What stands in front of a stored value: empty for plaintext.

    `name` is that of the configured key that has it (`certain`). Where none has, it is what all values of the kind have
    in common up to a colon, since names may hold colons; `goes_on`: that looks like a part of the name only.
    """

    kind: Kind | None
    name: str
    certain: bool = False
    goes_on: bool = False

    @property
    def key_name(self) -> str | None:
        """The name of the encryption key as far as it is known; None for plaintext, and where there is none."""
        return self.name if self.kind and self.name not in {"", NO_KEY_NAME} else None

    @property
    def shown(self) -> str:
        """The name for people: marked where it may go on."""
        return f"{self.name}:…" if self.goes_on else self.name

    @property
    def provider(self) -> str:
        """The provider's name in reports; `unknown` for what begins like an encrypted value and is none we know."""
        return self.kind or "unknown"

    @property
    def text(self) -> bytes:
        """The header as it stands in front of values; empty for plaintext, unknown providers, and with no key name."""
        if self.name == NO_KEY_NAME:
            return b""
        return header_text(self.kind, self.name)


def header_text(kind: Kind | None, name: str) -> bytes:
    """Return what stands in front of values under a key of that name; empty for what is no kind of encryption."""
    return next(
        (ENCRYPTED + text + b":" + name.encode() + b":" for text, known in _KINDS.items() if known is kind), b""
    )


PLAIN = Header(Kind.IDENTITY, "", certain=True)
NOT_KUBERNETES = Resource("(other)", None, encryptable=False)


def resource_of(key: bytes, prefixes: Sequence[str]) -> Resource:
    """Tell the resource of one etcd key."""
    parsed = parse_key(key, prefixes)
    if parsed is None:
        return NOT_KUBERNETES
    group_resource = GroupResource(parsed.resource, parsed.group) if parsed.encryptable else None
    return Resource(parsed.group_resource, group_resource, parsed.encryptable)


def resource_of_value(key: bytes, stored: bytes, prefixes: Sequence[str]) -> Resource:
    """Tell the resource of one record, as `Labels` does: plaintext under an unknown plural has to be an object."""
    resource = resource_of(key, prefixes)
    return NOT_KUBERNETES if resource.needs_an_object and is_foreign(stored) else resource


def is_foreign(stored: bytes) -> bool:
    """Is a value in plaintext, and no API object?"""
    return not stored.startswith(ENCRYPTED) and not plausible(stored)


def header_of(stored: bytes) -> Header:
    """Tell what stands in front of one stored value, whatever names keys may have."""
    if not stored.startswith(ENCRYPTED):
        return PLAIN
    *fields, _ = stored[:LONGEST_HEADER].split(b":", _HEADER_COLONS)
    kind = _KINDS.get(b":".join(fields[2:4]))
    if len(fields) < _HEADER_COLONS:
        return Header(kind, NO_KEY_NAME)
    try:
        text = b":".join(fields).decode()
    except UnicodeDecodeError:
        return Header(kind, NO_KEY_NAME)  # no configuration can hold it: the colon is one of the ciphertext
    return Header(kind, text.split(":")[-1] if kind else text[:_WINDOW])


class Labels:
    """Resources and headers of one snapshot, numbered in the order in which they were met.

    `names`: those of the keys at hand, by kind. Without them, a colon in a name is as good as the one that ends it.
    """

    def __init__(self, prefixes: Sequence[str], names: Iterable[tuple[Kind, str]] = ()) -> None:
        self.resources: list[Resource] = [NOT_KUBERNETES]
        self.headers: list[Header] = [PLAIN]
        # A key under nested prefixes is of the longest.
        self.prefixes = tuple(sorted(prefixes, key=lambda prefix: (-len(prefix), prefix)))
        self._resource_of: dict[Resource, int] = {NOT_KUBERNETES: 0}
        self._header_of: dict[Header, int] = {PLAIN: 0}
        self._known_segments: dict[bytes, int] = {}
        self._known_paths: dict[bytes, int] = {}
        self._known_headers: dict[bytes, int] = {}
        self._configured = {header_text(*name): Header(*name, certain=True) for name in names}
        self._with_colons = sorted((text for text in self._configured if text.count(b":") > _HEADER_COLONS), key=len)
        self._common: dict[int, bytes] = {}
        self._goes_on: dict[int, bool] = {}
        self._paths: Paths | None = None
        self._resource_numbers: list[int] = []
        self._header_numbers: list[int] = []
        self._weights: dict[tuple[int, int], int] = {}
        self._doubtful: set[int] = set()
        self._open_names: set[int] = set()  # headers behind whose names all values so far have text up to a colon
        self._texts = numbers(0)
        self.resource: list[int] = []
        """Of each record that was added last: an index into `resources`."""
        self.header: list[int] = []
        """The same, into `headers`."""

    @property
    def paths(self) -> Paths:
        """The paths of resources that were met. Their numbers, of each record that was added last: `path_of`."""
        assert self._paths is not None
        return self._paths

    def path_of(self) -> memoryview:
        """Number the path of the resource of each record that was added last."""
        return self._texts

    def add(self, records: Records) -> list[int]:
        """Take the records of a chunk into `resource` and `header`; return the rows of the encrypted values."""
        count = len(records)
        if self._paths is None:
            heads = [prefix.encode(errors="surrogateescape") + b"/" for prefix in self.prefixes]
            self._paths = Paths(records.view, heads, resource_segments, COMPACT_REVISION_KEY)
            self._headers = Headers(records.view, ENCRYPTED, self._with_colons)
        if len(self._texts) < records.room:
            self._texts, self._fronts = numbers(records.room), numbers(records.room)
        self._paths.cut(records.key_at, records.key_size, count, self._texts)
        encrypted = self._headers.cut(records.value_at, records.value_size, count, self._fronts)
        weigh(self._texts, self._fronts, records.value_size, count, self._weights)
        for number, text in enumerate(self._paths.met()[len(self._resource_numbers) :], len(self._resource_numbers)):
            self._resource_numbers.append(self._learn_resource(text, number))
        for text in self._headers.met()[len(self._header_numbers) :]:
            self._header_numbers.append(self._learn_front(text))
        self.resource = list(map(self._resource_numbers.__getitem__, self._texts[:count]))
        self.header = list(map(self._header_numbers.__getitem__, self._fronts[:count])) if encrypted else [0] * count
        if self._doubtful:
            self._leave_out(records)
        for row in encrypted:
            if self.header[row] in self._open_names:
                self._look_behind(records, row)
        return encrypted

    def value_bytes(self) -> dict[tuple[int, int], int]:
        """Add up the bytes of all values by numbers of resource and header."""
        total: dict[tuple[int, int], int] = {}
        for (path, front), size in self._weights.items():
            pair = self._resource_numbers[path], self._header_numbers[front]
            total[pair] = total.get(pair, 0) + size
        return total

    def _learn_resource(self, path: bytes, number: int) -> int:
        if not path:
            return 0
        found = self._learn_path(path + b"-" if self.paths.ends_open(number) else path, 1 << 30)
        if self.resources[found].needs_an_object:
            self._doubtful.add(found)
        return found

    def _leave_out(self, records: Records) -> None:
        """Take plaintext under plurals that nobody knows for another program's, unless it is an API object."""
        for row, number in enumerate(self.resource):
            if number in self._doubtful and records.is_put(row) and is_foreign(records.value(row)):
                self.resource[row] = 0
                self._weights[self._texts[row], 0] -= records.value_size[row]
                self._weights[0, 0] = self._weights.get((0, 0), 0) + records.value_size[row]

    def _look_behind(self, records: Records, row: int) -> None:
        """Learn what all values under a name that no key at hand has have in common behind it: it may go on there."""
        number = self.header[row]
        start = records.value_at[row] + len(self._headers.met()[self._fronts[row]])
        end = min(start + _WINDOW, records.value_at[row] + records.value_size[row])
        tail = bytes(records.view[start:end])
        common = self._common.setdefault(number, tail)
        while not tail.startswith(common):
            common = common[:-1]
        self._common[number] = common
        self._goes_on[number] = bool(_text_before_colon(tail))
        if not self._goes_on[number]:
            self._open_names.discard(number)

    def resource_numbers(self, chunk: RecordChunk) -> NDArray[np.int64]:
        """Number, for every record, the resource of its key: an index into `resources`."""
        numbers = np.zeros(len(chunk.key_pos), dtype=np.int64)
        undecided = np.ones(len(numbers), dtype=np.bool_)
        for prefix in self.prefixes:
            head = prefix.encode(errors="surrogateescape") + b"/"
            (rows,) = np.nonzero(undecided & starts_with(chunk.buffer, chunk.key_pos, chunk.key_len, head))
            undecided[rows] = False
            numbers[rows] = self._below(chunk.buffer, chunk.key_pos[rows], chunk.key_len[rows], head)
        (rows,) = np.nonzero(undecided)
        if len(rows):
            compactor = chunk.key_len[rows] == len(COMPACT_REVISION_KEY)
            compactor &= starts_with(chunk.buffer, chunk.key_pos[rows], chunk.key_len[rows], COMPACT_REVISION_KEY)
            numbers[rows[compactor]] = self._learn_path(COMPACT_REVISION_KEY)
        self._leave_out_foreign(chunk, numbers)
        return numbers

    def _leave_out_foreign(self, chunk: RecordChunk, numbers: NDArray[np.int64]) -> None:
        """Take plaintext under plurals that nobody knows for another program's, unless it is an API object."""
        doubtful = np.array([known.needs_an_object for known in self.resources])
        (rows,) = np.nonzero(doubtful[numbers] & ~chunk.tombstone)
        for row, start, size in zip(
            rows.tolist(), chunk.value_pos[rows].tolist(), chunk.value_len[rows].tolist(), strict=True
        ):
            if is_foreign(chunk.buffer[start : start + size].tobytes()):
                numbers[row] = 0

    def _below(self, buffer: NDArray[np.uint8], keys: Positions, lengths: Positions, head: bytes) -> NDArray[np.int64]:
        numbers, start = np.empty(len(keys), dtype=np.int64), len(head)
        lengths = np.minimum(lengths, start + LONGEST_HEADER)
        first_end = _next(buffer, keys, np.full(len(keys), start), lengths, _SLASH)
        segments = _number(buffer, keys + start, first_end - start, self._known_segments, resource_segments)
        for depth in range(1, MAX_RESOURCE_SEGMENTS + 1):
            (rows,) = np.nonzero(segments == depth)
            if len(rows):
                key, length = keys[rows], lengths[rows]
                path_end = first_end[rows]
                for _ in range(1, depth):
                    path_end = _next(buffer, key, np.minimum(path_end + 1, length), length, _SLASH)
                path_end += path_end < length  # with the slash, which tells a path that goes on from a key that ends
                learn = partial(self._learn_path, slashes=head.count(b"/") + depth)
                numbers[rows] = _number(buffer, key, path_end, self._known_paths, learn)
        return numbers

    def _learn_path(self, path: bytes, slashes: int = 1) -> int:
        # A path that goes on has all its slashes and any name may follow; one that has fewer is a key that ends there.
        resource = resource_of(path + b"-" if path.count(b"/") >= slashes else path, self.prefixes)
        if resource not in self._resource_of:
            self._resource_of[resource] = len(self.resources)
            self.resources.append(resource)
        return self._resource_of[resource]

    def header_numbers(self, chunk: RecordChunk) -> NDArray[np.int64]:
        """Number, for every record, what stands in front of its value: an index into `headers`."""
        numbers = np.zeros(len(chunk.key_pos), dtype=np.int64)
        (rows,) = np.nonzero(starts_with(chunk.buffer, chunk.value_pos, chunk.value_len, ENCRYPTED))
        if len(rows):
            values, lengths = chunk.value_pos[rows], chunk.value_len[rows]
            ends, lengths = np.zeros(len(rows), dtype=np.int64), np.minimum(lengths, LONGEST_HEADER)
            for _ in range(_HEADER_COLONS):
                ends = _next(chunk.buffer, values, ends, lengths, _COLON)
                ends += ends < lengths  # with the colon, which tells a name from what has no end
            for text in self._with_colons:  # the longest last: of names that all fit, it says most
                (some,) = np.nonzero(starts_with(chunk.buffer, values, chunk.value_len[rows], text))
                ends[some] = len(text)
            numbers[rows] = _number(chunk.buffer, values, ends, self._known_headers, self._learn_header)
            self._learn_common(chunk.buffer, numbers[rows], values + ends, np.maximum(chunk.value_len[rows] - ends, 0))
        return numbers

    def _learn_common(
        self, buffer: NDArray[np.uint8], numbers: NDArray[np.int64], at: Positions, left: Positions
    ) -> None:
        """Learn what all values under a name that no key at hand has have in common behind it: it may go on there."""
        left = np.minimum(left, _WINDOW)
        order = np.argsort(numbers, kind="stable")
        found, first = np.unique(numbers[order], return_index=True)
        for number, begin, end in zip(found.tolist(), first.tolist(), [*first[1:].tolist(), len(order)], strict=True):
            header = self.headers[number]
            if header.certain or header.key_name is None:
                continue
            starts, sizes = at[order[begin:end]], left[order[begin:end]]
            some = zip(starts[:_SAMPLES].tolist(), sizes[:_SAMPLES].tolist(), strict=True)
            samples = [buffer[start : start + size].tobytes() for start, size in some]
            common = self._common.get(number, samples[0])
            for offset, byte in enumerate(common):
                if (sizes <= offset).any() or (buffer[starts + offset] != byte).any():
                    common = common[:offset]
                    break
            self._common[number] = common
            self._goes_on[number] = self._goes_on.get(number, True) and all(map(_text_before_colon, samples))

    def named_headers(self) -> tuple[Header, ...]:
        """Return `headers` with the names that they have in the end, when all values are known."""
        return tuple(self._named(number, header) for number, header in enumerate(self.headers))

    def _named(self, number: int, header: Header) -> Header:
        if not self._goes_on.get(number, False):
            return header
        more = _text_before_colon(self._common[number])
        return Header(header.kind, f"{header.name}:{more}" if more else header.name, goes_on=True)

    def _learn_front(self, text: bytes) -> int:
        if not text:
            return 0
        return self._learn_header(text if len(self._header_numbers) < MOST_TEXTS else b"")

    def _learn_header(self, text: bytes) -> int:
        header = self._configured.get(text) or header_of(text)
        if not text or (header not in self._header_of and len(self.headers) >= _MOST_NAMES):
            header = Header(None, "(many more names)")
        if header not in self._header_of:
            self._header_of[header] = len(self.headers)
            if not header.certain and header.key_name is not None:
                self._open_names.add(len(self.headers))
            self.headers.append(header)
        return self._header_of[header]


def _text_before_colon(tail: bytes) -> str:
    """Return what of a name may stand before the last colon that printable text leads to."""
    for end in range(tail.rfind(b":"), 0, -1):
        if tail[end : end + 1] == b":":
            try:
                text = tail[:end].decode()
            except UnicodeDecodeError:
                continue
            if text.isprintable():
                return text
    return ""


def _number(
    buffer: NDArray[np.uint8],
    starts: Positions,
    lengths: Positions,
    known: dict[bytes, int],
    learn: Callable[[bytes], int],
) -> NDArray[np.int64]:
    """Give every text its number; `learn` is asked for texts that `known` does not hold yet."""
    _, representatives, inverse = np.unique(hash_spans(buffer, starts, lengths), return_index=True, return_inverse=True)
    numbers = []
    for row in representatives.tolist():
        text = buffer[starts[row] : starts[row] + lengths[row]].tobytes()
        number = known.get(text)
        if number is None:
            number = learn(text)
            if len(known) < _MOST_NAMES:
                known[text] = number
        numbers.append(number)
    found: NDArray[np.int64] = np.array(numbers, dtype=np.int64)[inverse]
    return found


def starts_with(buffer: NDArray[np.uint8], starts: Positions, lengths: Positions, text: bytes) -> NDArray[np.bool_]:
    """Which byte strings of `buffer` begin with `text`."""
    result: NDArray[np.bool_] = lengths >= len(text)
    (rows,) = np.nonzero(result)
    at = starts[rows]
    equal: NDArray[np.bool_] = np.ones(len(rows), dtype=np.bool_)
    for offset, byte in enumerate(text):
        equal &= buffer[at + offset] == byte
    result[rows] = equal
    return result


def _next(buffer: NDArray[np.uint8], starts: Positions, after: Positions, lengths: Positions, byte: int) -> Positions:
    """Measure, for every text, how far it is to the next `byte` from `after` on; its whole length if there is none."""
    return after + find_byte(buffer, starts + after, lengths - after, byte)
