# cython: boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True, show_performance_hints=False
"""Cuts the text out of keys and values that says what they are, and numbers it. Compiled where possible.

Of a key that is the path of its resource, of a value what stands in front of its ciphertext. Both repeat: a text is
looked up in a dict, and only one that was not met before is ever looked at by anybody else. So it is with the start of
an envelope, which names its type. Here keys are sorted, too, and rows are picked by columns of numbers.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

try:
    import cython
except ImportError:
    from snaptool.compiled import cython  # type: ignore[no-redef]

if cython.compiled:
    from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize  # type: ignore[import-untyped]

if not cython.compiled:
    Bytes = memoryview
    Column = memoryview  # of 16 bits, to write to
    Fits = Callable[[bytes, int], bool]
    Flags = memoryview  # to write to
    Halves = memoryview  # of 32 bits, to write to
    Marks = memoryview
    Numbers = memoryview
    Shorts = memoryview
    Words = memoryview

SLASH = cython.declare(cython.int, 47)
COLON = cython.declare(cython.int, 58)
LONGEST = cython.declare(cython.longlong, 4096)
"""Bytes of a key behind its prefix, and of a value, that are looked at: a hostile one may be anything."""
COLONS = cython.declare(cython.int, 5)  # k8s:enc:PROVIDER:VERSION:NAME:
MAGIC = cython.declare(bytes, b"k8s\x00\n")
END = cython.declare(bytes, b"\x1a\x00\x22\x00")
SMALLEST_ENVELOPE = cython.declare(cython.longlong, 12)
LONGEST_START = cython.declare(cython.longlong, 128)
SLOTS = cython.declare(cython.Py_ssize_t, 512)
MOST_TEXTS = 10_000  # they come from the file: one that makes up a text per value must not fill the memory


def _numbers(count: int) -> memoryview:
    return memoryview(array("q", bytes(8 * count)))


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
class Texts:
    """A few texts to compare bytes of the file with, in their order."""

    data: Bytes
    joined: Bytes
    border: Numbers
    count: cython.Py_ssize_t

    def __init__(self, view: memoryview, texts: Sequence[bytes]) -> None:
        self.data = view
        self.joined = memoryview(b"".join(texts) + b"\0")
        self.count = len(texts)
        self.border = _numbers(len(texts) + 1)
        for number, text in enumerate(texts):
            self.border[number + 1] = self.border[number] + len(text)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def stands(self, number: cython.Py_ssize_t, at: cython.longlong, end: cython.longlong) -> cython.int:
        """Does a byte string from `at` to `end` begin with the text of this number?

        The last byte is looked at first: what texts have in common is mostly their beginning.
        """
        first: cython.longlong = self.border[number]
        size: cython.longlong = self.border[number + 1] - first
        offset: cython.longlong
        if end - at < size:
            return 0
        for offset in range(size - 1, -1, -1):
            if self.data[at + offset] != self.joined[first + offset]:
                return 0
        return 1

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-2, check=False)
    def which(self, at: cython.longlong, end: cython.longlong) -> cython.Py_ssize_t:
        """Which is the first of the texts that a byte string begins with? -1: none."""
        number: cython.Py_ssize_t
        for number in range(self.count):
            if self.stands(number, at, end):
                return number
        return -1

    @cython.cfunc
    @cython.inline
    @cython.exceptval(-1, check=False)
    def length(self, number: cython.Py_ssize_t) -> cython.longlong:
        """Return the size of a text."""
        return self.border[number + 1] - self.border[number]


@cython.cfunc
@cython.nogil
@cython.exceptval(-1, check=False)
def behind(
    data: Bytes, at: cython.longlong, end: cython.longlong, byte: cython.int, times: cython.int
) -> cython.longlong:
    """Find the place behind the so manieth `byte` from `at` on; `end` if there are fewer."""
    while at < end:
        if data[at] == byte:
            times -= 1
            if times == 0:
                return at + 1
        at += 1
    return end


@cython.final
@cython.cclass
class Paths:
    """The paths of resources at the beginning of keys: a prefix, and the one to three segments that decide.

    `texts` has every path that was met, with the slash behind it if the key goes on; `goes_on` says whether it does.
    Number 0 is that of keys under none of the prefixes. `heads`: the prefixes with their slash, longer ones first.
    `depth_of`: how many segments decide, by the first one. `alone`: one key that is a path although it has no prefix.
    """

    data: Bytes
    heads: Texts
    slashes: list[int]
    depth_of: Callable[[bytes], int]
    alone: bytes
    known: dict[bytes, int]
    ended: dict[bytes, int]
    texts: list[bytes]
    goes_on: list[bool]

    def __init__(
        self, view: memoryview, heads: Sequence[bytes], depth_of: Callable[[bytes], int], alone: bytes = b""
    ) -> None:
        self.data = view
        self.heads = Texts(view, [*heads, alone])
        self.slashes = [head.count(b"/") for head in heads]
        self.depth_of = depth_of
        self.alone = alone
        self.known = {}  # of a first segment that does not decide: how many do, negative
        self.ended = {}
        self.texts = [b""]
        self.goes_on = [False]

    def met(self) -> list[bytes]:
        """Return the paths by number."""
        return self.texts

    def ends_open(self, number: int) -> bool:
        """Do keys go on behind a path?"""
        return self.goes_on[number]

    def cut(self, key_at: Numbers, key_size: Numbers, count: int, found: Numbers) -> None:
        """Number the paths of the first `count` keys, into `found`."""
        row: cython.longlong
        rows: cython.longlong = count
        for row in range(rows):
            found[row] = self.path_of(key_at[row], key_size[row])

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def path_of(self, at: cython.longlong, size: cython.longlong) -> cython.longlong:
        """Number the path of one key."""
        end: cython.longlong = at + size
        behind_first: cython.longlong
        number: cython.longlong
        head: cython.Py_ssize_t = self.heads.which(at, end)
        if head == len(self.slashes):
            return self.number_of(self.alone, False) if size == len(self.alone) and size else 0
        if head < 0:
            return 0
        start: cython.longlong = at + self.heads.length(head)
        end = min(end, start + LONGEST)
        behind_first = behind(self.data, start, end, SLASH, 1)
        text: bytes = text_at(self.data, at, behind_first)
        number = self.known.get(text, -8)
        if number >= 0:
            return number
        if number == -8:
            segment = text[start - at :]
            depth = self.depth_of(segment.removesuffix(b"/"))
            if depth == 1:
                return self.number_of(text, text.count(b"/") > self.slashes[head])
            number = -depth
            if len(self.known) < 2 * MOST_TEXTS:
                self.known[text] = number
        end = behind(self.data, behind_first, end, SLASH, cython.cast(cython.int, -number - 1))
        text = text_at(self.data, at, end)
        return self.number_of(text, text.count(b"/") >= self.slashes[head] - number)

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def number_of(self, text: bytes, goes_on: cython.bint) -> cython.longlong:
        """Number a path."""
        known = self.known if goes_on else self.ended
        number: cython.longlong = known.get(text, -1)
        if number < 0:
            number = len(self.texts)
            known[text] = number
            self.texts.append(text)
            self.goes_on.append(goes_on)
        return number


@cython.final
@cython.cclass
class Headers:
    """What stands in front of encrypted values: the text up to its fifth colon, or a longer one that is known.

    `texts` has every one that was met; number 0 is that of values that do not begin with `mark`, and MOST_TEXTS stands
    for all that were met when there were so many. `longer`: known ones with colons in the name, longest last.
    """

    data: Bytes
    mark: bytes
    begins: Texts
    longer: Texts
    known: dict[bytes, int]
    texts: list[bytes]

    def __init__(self, view: memoryview, mark: bytes, longer: Sequence[bytes]) -> None:
        self.data = view
        self.mark = mark
        self.begins = Texts(view, [mark])
        self.longer = Texts(view, longer[::-1])
        self.known = {}
        self.texts = [b""]

    def met(self) -> list[bytes]:
        """Return the headers by number."""
        return self.texts

    def cut(self, value_at: Numbers, value_size: Numbers, count: int, found: Numbers) -> list[int]:
        """Number the headers of the first `count` values, into `found`; return the rows that have one."""
        row: cython.longlong
        rows: cython.longlong = count
        at: cython.longlong
        end: cython.longlong
        encrypted: list[int] = []
        for row in range(rows):
            at, end = value_at[row], value_at[row] + value_size[row]
            found[row] = 0
            if self.begins.stands(0, at, end):
                found[row] = self.header_of(at, end)
                encrypted.append(row)
        return encrypted

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def header_of(self, at: cython.longlong, end: cython.longlong) -> cython.longlong:
        """Number the header of one value."""
        number: cython.longlong
        until: cython.longlong = behind(self.data, at, min(end, at + LONGEST), COLON, COLONS)
        longer: cython.Py_ssize_t = self.longer.which(at, end)
        if longer >= 0:
            until = at + self.longer.length(longer)
        header: bytes = text_at(self.data, at, until)
        number = self.known.get(header, -1)
        if number < 0:
            number = len(self.texts)
            if number > MOST_TEXTS:
                return MOST_TEXTS
            self.texts.append(header if number < MOST_TEXTS else self.mark)
            if number < MOST_TEXTS:
                self.known[header] = number
        return number


@cython.final
@cython.cclass
class Watch:
    """Looks out for keys that begin with one of a few texts."""

    heads: Texts

    def __init__(self, view: memoryview, heads: Sequence[bytes]) -> None:
        self.heads = Texts(view, heads)

    def rows(self, key_at: Numbers, key_size: Numbers, count: int) -> list[int]:
        """Return the rows of the keys that begin with any of them."""
        found: list[int] = []
        row: cython.longlong
        rows: cython.longlong = count
        for row in range(rows):
            if self.heads.which(key_at[row], key_at[row] + key_size[row]) >= 0:
                found.append(row)  # noqa: PERF401 - a comprehension has no typed variable
        return found


@cython.final
@cython.cclass
class Envelopes:
    """Finds the values that are whole envelopes of a type that fits, byte for byte as API servers write them.

    `fits`: does a type fit a kind of value, by the envelope's start and the kind's number? The rule is
    `objects.usual_type`'s: magic and type stand at the start, every length is in its place, an empty encoding and an
    empty content type end it. The start names the type and is the same in all objects of it, so that a start is judged
    once for each kind, and then known. What is not found is not wrong: it has to be looked at by itself.
    """

    fits: Fits
    known: dict[tuple[int, bytes], bool]

    def __init__(self, fits: Fits) -> None:
        self.fits = fits
        self.known = {}

    def mark(self, data: Bytes, at: Numbers, size: Numbers, rows: Numbers, kinds: Numbers, found: Flags) -> None:
        """Set `found[row]` to 1 where value `row` is a usual envelope of a type that fits kind `kinds[row]`.

        `at`, `size`: where values begin in `data`, and their sizes, by row. Raises IndexError for others.
        """
        index: cython.Py_ssize_t
        row: cython.longlong
        for index in range(len(rows)):
            row = rows[index]
            if self.is_usual(data, at[row], size[row], kinds[row]):
                found[row] = 1

    def others(self, data: Bytes, at: Numbers, size: Numbers, rows: Numbers, kinds: Numbers) -> list[int]:
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
            if len(self.known) < MOST_TEXTS:
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
    if size < SMALLEST_ENVELOPE:
        return 0
    for offset in range(5):
        if data[at + offset] != MAGIC[offset]:
            return 0
    for offset in range(4):
        if data[at + size - 4 + offset] != END[offset]:
            return 0
    start = place = 7 + cython.cast(cython.longlong, data[at + 5])
    if start >= LONGEST_START:
        return 0
    # The length of the object, a varint, leads exactly to the end.
    while place < size and shift < 28:
        length |= cython.cast(cython.longlong, data[at + place] & 0x7F) << shift
        shift += 7
        place += 1
        if data[at + place - 1] < 0x80:
            return start if place + length + 4 == size else 0
    return 0


def rows_of(marks: Marks, wanted: Marks, first: int = 0) -> memoryview:
    """Return the places of the marks of which `wanted` says 1, counted from `first`."""
    start: cython.longlong = first
    index: cython.Py_ssize_t
    count: cython.Py_ssize_t = 0
    for index in range(len(marks)):
        count += wanted[marks[index]]
    room = _numbers(count)
    found: Numbers = room
    count = 0
    for index in range(len(marks)):
        if wanted[marks[index]]:
            found[count] = start + index
            count += 1
    return room


def rows_labelled(header: Numbers, resource: Numbers, wanted: Marks, count: int) -> list[int]:
    """Return the rows that have a header, or a resource that is wanted."""
    return [row for row in range(count) if header[row] or wanted[resource[row]]]


def put_at(places: Numbers, numbers: Numbers, column: Column) -> None:
    """Put numbers into a column, each at its place."""
    index: cython.Py_ssize_t
    for index in range(len(places)):
        if not 0 <= numbers[index] < 65536:
            raise OverflowError("a number of more than 16 bits")
        column[places[index]] = cython.cast(cython.ushort, numbers[index])


def narrowed(numbers: Numbers) -> bytes:
    """Return numbers in 32 bits each, what is below 0 as 0."""
    index: cython.Py_ssize_t
    room = memoryview(array("I", bytes(4 * len(numbers))))
    found: Halves = room
    for index in range(len(numbers)):
        if numbers[index] > 0:
            found[index] = cython.cast(cython.uint, numbers[index])
    return bytes(room)


def shortened(numbers: Numbers) -> bytes:
    """Return numbers in 16 bits each."""
    index: cython.Py_ssize_t
    room = memoryview(array("H", bytes(2 * len(numbers))))
    found: Column = room
    for index in range(len(numbers)):
        found[index] = cython.cast(cython.ushort, numbers[index])
    return bytes(room)


def widened(numbers: Words) -> memoryview:
    """Return numbers of 32 bits in 64."""
    index: cython.Py_ssize_t
    room = _numbers(len(numbers))
    found: Numbers = room
    for index in range(len(numbers)):
        found[index] = numbers[index]
    return room


def weigh(
    paths: Numbers, fronts: Numbers, size: Numbers, count: int, plain: Numbers, rest: dict[tuple[int, int], int]
) -> None:
    """Add up the sizes of values: of those without a header by path in `plain`, of others by both numbers in `rest`."""
    row: cython.longlong
    rows: cython.longlong = count
    for row in range(rows):
        if fronts[row] == 0:
            plain[paths[row]] += size[row]
        else:
            pair = (paths[row], fronts[row])
            rest[pair] = rest.get(pair, 0) + size[row]


def renumber(numbers: Numbers, table: Numbers, count: int, found: Numbers) -> None:
    """Look up what each of `count` numbers stands for in `table`."""
    row: cython.longlong
    rows: cython.longlong = count
    for row in range(rows):
        found[row] = table[numbers[row]]


def tally(numbers: Numbers, flags: Marks, without: int, start: int, end: int, total: Numbers) -> None:
    """Count how often each number stands in the rows from `start` to `end` that have none of the flags `without`."""
    row: cython.longlong
    first: cython.longlong = start
    last: cython.longlong = end
    mask: cython.int = without
    for row in range(first, last):
        if not flags[row] & mask:
            total[numbers[row]] += 1


def marked(numbers: Numbers, marks: Marks, count: int) -> list[int]:
    """Return the rows whose number has a mark."""
    row: cython.longlong
    rows: cython.longlong = count
    found: list[int] = []
    for row in range(rows):
        if marks[numbers[row]]:
            found.append(row)  # noqa: PERF401 - a comprehension has no typed variable
    return found


def pick(numbers: Numbers, wanted: Marks, others: Numbers, flags: Marks, without: int, count: int) -> memoryview:
    """Return the rows whose number is `wanted`, whose other number is 0, and that have none of the flags `without`."""
    row: cython.longlong
    rows: cython.longlong = count
    mask: cython.int = without
    picked = _numbers(count)
    found: Numbers = picked
    last: cython.longlong = 0
    for row in range(rows):
        if wanted[numbers[row]] and others[row] == 0 and not flags[row] & mask:
            found[last] = row
            last += 1
    return picked[:last]


def count_labels(
    resource: Words, header: Shorts, outcome: Shorts, live: Marks, left_out: Marks
) -> dict[tuple[int, int, int, int], int]:
    """Count the records by these labels, but for those that are left out."""
    row: cython.Py_ssize_t
    slot: cython.Py_ssize_t
    code: cython.longlong
    counts: dict[int, int] = {}
    met, times = _numbers(SLOTS), _numbers(SLOTS)  # of the labels that were met last: a dict takes the rest
    codes: Numbers = met
    totals: Numbers = times
    for row in range(len(resource)):
        if left_out[row]:
            continue
        # One number. Resources are fewer than records: 30 bits.
        code = cython.cast(cython.longlong, resource[row]) << 33
        code |= cython.cast(cython.longlong, header[row]) << 17 | outcome[row] << 1 | live[row]
        slot = (resource[row] * 8 + header[row] * 4 + outcome[row] * 2 + live[row]) % SLOTS
        if codes[slot] != code:
            counts[codes[slot]] = counts.get(codes[slot], 0) + totals[slot]
            codes[slot], totals[slot] = code, 0
        totals[slot] += 1
    for slot in range(SLOTS):
        counts[codes[slot]] = counts.get(codes[slot], 0) + totals[slot]
    parted = {(code >> 33, code >> 17 & 0xFFFF, code >> 1 & 0xFFFF, code & 1): many for code, many in counts.items()}
    return {labels: many for labels, many in parted.items() if many}


def number_labels(resource: Words, header: Shorts, outcome: Shorts, found: Halves) -> dict[tuple[int, int, int], int]:
    """Number the labels of records as they are met: set `found` to the number of each record's; return the numbers."""
    row: cython.Py_ssize_t
    slot: cython.Py_ssize_t
    code: cython.longlong
    known: dict[int, int] = {}
    met, numbers = _numbers(SLOTS), _numbers(SLOTS)  # of the labels that were met last: a dict takes the rest
    codes: Numbers = met
    number_of: Numbers = numbers
    for slot in range(SLOTS):
        codes[slot] = -1
    for row in range(len(resource)):
        code = cython.cast(cython.longlong, resource[row]) << 32
        code |= cython.cast(cython.longlong, header[row]) << 16 | outcome[row]
        slot = (resource[row] * 8 + header[row] * 4 + outcome[row] * 2) % SLOTS
        if codes[slot] != code:
            codes[slot], number_of[slot] = code, known.setdefault(code, len(known))
        found[row] = cython.cast(cython.uint, number_of[slot])
    return {(code >> 32, code >> 16 & 0xFFFF, code & 0xFFFF): number for code, number in known.items()}


def marks_of(numbers: Words, marks: Marks, found: Flags) -> None:
    """Set the mark of each record, by its number."""
    row: cython.Py_ssize_t
    for row in range(len(numbers)):
        found[row] = marks[numbers[row]]


def order_of_keys(view: memoryview, key_at: Numbers, key_size: Numbers) -> memoryview:
    """Sort keys by their bytes: return their numbers; those of equal ones stay in the order in which they came.

    Keys are copied first, one behind the other: they lie all over the file, and each is looked at a dozen times.
    """
    count: cython.longlong = len(key_at)
    row: cython.longlong
    if not cython.compiled:
        keys = [bytes(view[at : at + size]) for at, size in zip(key_at, key_size, strict=True)]
        return memoryview(array("q", sorted(range(count), key=keys.__getitem__)))
    copied, place = bytearray(), array("q")
    for row in range(count):
        place.append(len(copied))
        copied += view[key_at[row] : key_at[row] + key_size[row]]
    order, merged = memoryview(array("q", range(count))), _numbers(count)
    run: cython.longlong = 1
    while run < count:
        merge_runs(memoryview(copied), memoryview(place), key_size, order, merged, run)
        order, merged = merged, order
        run *= 2
    return order


@cython.cfunc
@cython.exceptval(-1, check=False)
def merge_runs(
    data: Bytes, key_at: Numbers, key_size: Numbers, order: Numbers, merged: Numbers, run: cython.longlong
) -> cython.int:
    """Merge every two neighbours of the runs in `order`, which have their keys sorted, to one in `merged`."""
    count: cython.longlong = len(order)
    row: cython.longlong = 0
    left: cython.longlong
    right: cython.longlong
    middle: cython.longlong
    end: cython.longlong
    with cython.nogil:
        while row < count:
            left, middle = row, min(row + run, count)
            right, end = middle, min(middle + run, count)
            while row < end:
                if right == end or (
                    left < middle
                    and not is_less(
                        data,
                        key_at[order[right]],
                        key_size[order[right]],
                        key_at[order[left]],
                        key_size[order[left]],
                    )
                ):
                    merged[row] = order[left]
                    left += 1
                else:
                    merged[row] = order[right]
                    right += 1
                row += 1
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(-1, check=False)
def is_less(
    data: Bytes, at: cython.longlong, size: cython.longlong, other_at: cython.longlong, other_size: cython.longlong
) -> cython.int:
    """Does a byte string come before another?"""
    offset: cython.longlong
    for offset in range(min(size, other_size)):
        if data[at + offset] != data[other_at + offset]:
            return data[at + offset] < data[other_at + offset]
    return size < other_size
