"""Labels and doubts of whole chunks as columns of numpy, for those who do not go over `Records` yet. See `labels`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from snaptool.etcd import RecordChunk, find_byte, hash_spans
from snaptool.kube import (
    COMPACT_REVISION_KEY,
    MAX_RESOURCE_SEGMENTS,
    ExpectedType,
    fault,
    resource_segments,
    usual_type,
)
from snaptool.operations.judging import Depth
from snaptool.operations.labels import (
    _COLON,
    _HEADER_COLONS,
    _MOST_NAMES,
    _SAMPLES,
    _SLASH,
    _WINDOW,
    ENCRYPTED,
    LONGEST_HEADER,
    Labels,
    is_foreign,
    text_before_colon,
)
from snaptool.providers import Kind

Positions = NDArray[np.int64]
Rows = NDArray[np.int64]


class ColumnLabels(Labels):
    """Labels that number whole chunks."""

    def __init__(self, prefixes: Sequence[str], names: Iterable[tuple[Kind, str]] = ()) -> None:
        super().__init__(prefixes, names)
        self._known_segments: dict[bytes, int] = {}
        self._known_paths: dict[bytes, int] = {}
        self._known_headers: dict[bytes, int] = {}

    @classmethod
    def of(cls, labels: Labels) -> ColumnLabels:
        """Return labels that number whole chunks, and are `labels` in everything else."""
        if isinstance(labels, cls):
            return labels
        columns = cls.__new__(cls)
        columns.__dict__ = labels.__dict__
        columns.__dict__ |= {"_known_segments": {}, "_known_paths": {}, "_known_headers": {}}
        return columns

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
            self._goes_on[number] = self._goes_on.get(number, True) and all(map(text_before_colon, samples))


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


def doubted(
    chunk: RecordChunk, resource: Rows, header: Rows, judged: Sequence[ExpectedType | None], depth: Depth
) -> NDArray[np.bool_]:
    """Which plain values of a chunk have to be judged one at a time.

    `resource`, `header`: the numbers of every record; `judged`: by number of a resource, what its values have to be.
    """
    known = np.array([expected is not None for expected in judged], dtype=np.bool_)
    wanted: NDArray[np.bool_] = (header == 0) & ~chunk.tombstone & known[resource]
    if depth is Depth.FULL or not wanted.any():
        return wanted
    (rows,) = np.nonzero(wanted)
    wanted[rows[_are_usual(chunk, rows, resource[rows], judged)]] = False
    return wanted


_SMALLEST, _LONGEST_START = 12, 128
_END = b"\x1a\x00\x22\x00"
_LENGTH_BYTES = 5


def _are_usual(
    chunk: RecordChunk, rows: Rows, resource: Rows, judged: Sequence[ExpectedType | None]
) -> NDArray[np.bool_]:
    """Which values are whole envelopes of a type that their resource has, as `kube.usual_type` finds them.

    Only the start is hashed, and one of each distinct pair of start and resource is looked at by the rule itself.
    """
    buffer, at, size = chunk.buffer, chunk.value_pos[rows], chunk.value_len[rows]
    usual = size >= _SMALLEST
    usual[usual] &= _stand_at(buffer, at[usual], b"k8s\0\n")
    usual[usual] &= _stand_at(buffer, (at + size)[usual] - len(_END), _END)
    start = np.zeros(len(rows), dtype=np.int64)
    start[usual] = buffer[at[usual] + 5].astype(np.int64) + 7
    usual &= (start < _LONGEST_START) & (start < size)
    (some,) = np.nonzero(usual)
    if not len(some):
        return usual
    # The length of the object, a varint, leads exactly to the end.
    place = at[some] + start[some]
    last = at[some] + size[some]
    length = np.zeros(len(some), dtype=np.int64)
    going = np.ones(len(some), dtype=np.bool_)
    for number in range(_LENGTH_BYTES):
        here = going & (place < last)
        byte = buffer[place[here]].astype(np.int64)
        length[here] |= (byte & 0x7F) << (7 * number)
        place[here] += 1
        going[here] = byte >= 0x80
    usual[some] = ~going & (place + length + len(_END) == last)
    (some,) = np.nonzero(usual)
    usual[some] = _types_fit(buffer, at[some], start[some], resource[some], judged)
    return usual


def _types_fit(
    buffer: NDArray[np.uint8], at: Rows, start: Rows, resource: Rows, judged: Sequence[ExpectedType | None]
) -> NDArray[np.bool_]:
    if not len(at):
        return np.zeros(0, dtype=np.bool_)
    marks = hash_spans(buffer, at, start) ^ (resource.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    _, first, inverse = np.unique(marks, return_index=True, return_inverse=True)
    fits = []
    for row in first.tolist():
        head = buffer[at[row] : at[row] + start[row]].tobytes()
        expected = judged[resource[row]]
        whole = head + b"\x00" + _END  # an empty object makes it whole
        fits.append(usual_type(whole) is not None and expected is not None and fault(whole, expected) is None)
    result: NDArray[np.bool_] = np.array(fits, dtype=np.bool_)[inverse]
    return result


def _stand_at(buffer: NDArray[np.uint8], at: Rows, text: bytes) -> NDArray[np.bool_]:
    equal: NDArray[np.bool_] = np.ones(len(at), dtype=np.bool_)
    for offset, byte in enumerate(text):
        equal &= buffer[at + offset] == byte
    return equal
