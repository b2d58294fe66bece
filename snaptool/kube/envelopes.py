# cython: boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True, show_performance_hints=False
"""Which of many values are whole envelopes of a type that fits, byte for byte as API servers write them. Compiled.

The rule is `objects.usual_type`'s: magic and type stand at the start, every length is in its place, an empty encoding
and an empty content type end it. The start names the type and is the same in all objects of it, so that a start is
judged once for each kind of value, and then known. What is not marked is not wrong: it has to be looked at by itself.
"""

from __future__ import annotations

from collections.abc import Callable

try:
    import cython
except ImportError:
    from snaptool.compiled import cython  # type: ignore[no-redef]

if cython.compiled:
    from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize  # type: ignore[import-untyped]

if not cython.compiled:
    Bytes = memoryview
    Marks = memoryview  # of bytes
    Words = memoryview  # of 64-bit numbers
    Fits = Callable[[bytes, int], bool]

_MAGIC = cython.declare(bytes, b"k8s\x00\n")
_END = cython.declare(bytes, b"\x1a\x00\x22\x00")
_SMALLEST = cython.declare(cython.longlong, 12)
_LONGEST_START = cython.declare(cython.longlong, 128)
_MOST_KNOWN = cython.declare(cython.longlong, 10_000)


@cython.cfunc
@cython.inline
def text_at(data: Bytes, at: cython.longlong, end: cython.longlong) -> bytes:
    """Copy the bytes from `at` up to `end`. The last of them is looked at first: so they are all there."""
    if not cython.compiled:
        return bytes(data[at:end])
    if end <= at:
        return b""
    data[end - 1]
    text: bytes = PyBytes_FromStringAndSize(cython.cast("char *", cython.address(data[at])), end - at)
    return text


@cython.final
@cython.cclass
class Envelopes:
    """Marks usual envelopes. `fits`: does a type fit a kind of value, by the envelope's start and the kind's number?"""

    fits: Fits
    known: dict[tuple[int, bytes], bool]

    def __init__(self, fits: Fits) -> None:
        self.fits = fits
        self.known = {}

    def mark(self, data: Bytes, at: Words, size: Words, rows: Words, kinds: Words, found: Marks) -> None:
        """Set `found[row]` to 1 where value `row` is a usual envelope of a type that fits kind `kinds[row]`.

        `at`, `size`: where values begin in `data`, and their sizes, by row. Raises IndexError for others.
        """
        index: cython.Py_ssize_t
        row: cython.longlong
        for index in range(len(rows)):
            row = rows[index]
            if self.is_usual(data, at[row], size[row], kinds[row]):
                found[row] = 1

    def others(self, data: Bytes, at: Words, size: Words, rows: Words, kinds: Words) -> list[int]:
        """Return the rows that `mark` would not mark."""
        index: cython.Py_ssize_t
        row: cython.longlong
        found: list[int] = []
        for index in range(len(rows)):
            row = rows[index]
            if not self.is_usual(data, at[row], size[row], kinds[row]):
                found.append(row)
        return found

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def is_usual(self, data: Bytes, at: cython.longlong, size: cython.longlong, kind: cython.longlong) -> cython.int:
        """Is a value a usual envelope of a type that fits its kind?"""
        start: cython.longlong = start_of(data, at, size)
        if start == 0:
            return 0
        known = (kind, text_at(data, at, at + start))
        fits = self.known.get(known)
        if fits is None:
            fits = self.fits(known[1], kind)
            if len(self.known) < _MOST_KNOWN:
                self.known[known] = fits
        return 1 if fits else 0


@cython.cfunc
@cython.nogil
@cython.exceptval(-1, check=False)
def start_of(data: Bytes, at: cython.longlong, size: cython.longlong) -> cython.longlong:
    """Measure how far it is to the object inside of an envelope; 0 for a value that is none, or not a usual one."""
    offset: cython.longlong
    length: cython.longlong = 0
    shift: cython.int = 0
    start: cython.longlong
    place: cython.longlong
    if size < _SMALLEST:
        return 0
    for offset in range(5):
        if data[at + offset] != _MAGIC[offset]:
            return 0
    for offset in range(4):
        if data[at + size - 4 + offset] != _END[offset]:
            return 0
    start = place = 7 + cython.cast(cython.longlong, data[at + 5])
    if start >= _LONGEST_START:
        return 0
    # The length of the object, a varint, leads exactly to the end.
    while place < size and shift < 28:
        length |= cython.cast(cython.longlong, data[at + place] & 0x7F) << shift
        shift += 7
        place += 1
        if data[at + place - 1] < 0x80:
            return start if place + length + 4 == size else 0
    return 0
