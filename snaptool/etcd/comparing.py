# cython: boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True, show_performance_hints=False
"""Are leaves tidy, are the records of two files the same, and what are the checksums? Compiled where possible.

A leaf is tidy when it has records, and holds nothing but them: back to back behind its table, in their order, and
zeros up to the end of its pages. Records are compared byte by byte: whole, or all around the value of their KeyValue.
The CRC-32C of two texts follows from theirs and the size of the second: so a leaf whose sum is known is not read again.

Knows Chunk and Records; knows nothing of what values mean.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from snaptool.bolt import Chunk
from snaptool.etcd.reading import Records

try:
    import cython
except ImportError:
    from snaptool.compiled import cython  # type: ignore[no-redef]

if cython.compiled:
    from cython.cimports.libc.string import memcmp  # type: ignore[import-untyped]

if not cython.compiled:
    Bytes = memoryview
    Marks = memoryview
    Numbers = memoryview
    Sums = memoryview

HEADER = cython.declare(cython.longlong, 16)
ELEMENT = cython.declare(cython.longlong, 16)

WHOLE = 0
"""Compare all of a record."""
AROUND = 1
"""Compare everything but the whole of field 5, which may be of any length."""

ALL_OF_IT = cython.declare(cython.uchar, 0)
ALL_BUT_THE_VALUE = cython.declare(cython.uchar, 1)


def mark_tidy(file: Bytes, leaves: Chunk, page_size: int, tidy: Marks) -> int:
    """Set `tidy[i]` for every leaf of a chunk to 1 or 0; return how many are tidy. An inline bucket's leaf is not."""
    page: Numbers = leaves.leaf_page
    span: Numbers = leaves.leaf_span
    start: Numbers = leaves.leaf_start
    key_at: Numbers = leaves.key_at
    value_at: Numbers = leaves.value_at
    value_size: Numbers = leaves.value_size
    size: cython.longlong = page_size
    count: cython.longlong = leaves.leaves
    leaf: cython.longlong
    row: cython.longlong
    end: cython.longlong
    good: cython.longlong = 0
    with cython.nogil:
        for leaf in range(count):
            tidy[leaf] = start[leaf + 1] > start[leaf] and page[leaf] > 0
            end = page[leaf] * size + HEADER + ELEMENT * (start[leaf + 1] - start[leaf])
            for row in range(start[leaf], start[leaf + 1]):
                if key_at[row] != end:
                    tidy[leaf] = 0
                end = value_at[row] + value_size[row]
            # Slack is a page at most in files that bolt wrote; more than that is not worth carrying over.
            if (page[leaf] + span[leaf]) * size - end > size:
                tidy[leaf] = 0
            if tidy[leaf] and not are_zeros(file, end, (page[leaf] + span[leaf]) * size):
                tidy[leaf] = 0
            good += tidy[leaf]
    return good


@cython.cfunc
@cython.nogil
@cython.exceptval(-1, check=False)
def are_zeros(file: Bytes, start: cython.longlong, end: cython.longlong) -> cython.int:
    """Whether a stretch of a file is zeros: its first byte is, and every other is as the one before it."""
    return start == end or (file[start] == 0 and same(file, start, file, start + 1, end - start - 1) == 1)


def sums_of_leaves(
    leaves: Chunk, file: memoryview, tidy: Marks, crc32c: Callable[[memoryview, int], int]
) -> tuple[list[int], list[int]]:
    """Return CRC-32C and size in bytes of the records of each leaf; those of a `tidy` one stand back to back."""
    start: Numbers = leaves.leaf_start
    key_at: Numbers = leaves.key_at
    value_at: Numbers = leaves.value_at
    value_size: Numbers = leaves.value_size
    count: cython.longlong = leaves.leaves
    leaf: cython.longlong
    row: cython.longlong
    begin: cython.longlong
    end: cython.longlong
    size: cython.longlong
    crcs: list[int] = []
    sizes: list[int] = []
    for leaf in range(count):
        row = start[leaf]
        crc, size = 0, 0
        while row < start[leaf + 1]:
            begin = key_at[row]
            row = start[leaf + 1] - 1 if tidy[leaf] else row
            end = value_at[row] + value_size[row]
            crc, size = crc32c(file[begin:end], crc), size + end - begin
            row += 1
        crcs.append(crc)
        sizes.append(size)
    return crcs, sizes


# --- checksums joined -----------------------------------------------------------------------------------------------

POLYNOMIAL = cython.declare(cython.uint, 0x82F63B78)  # Castagnoli, lowest power in the highest bit


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def times(a: cython.uint, b: cython.uint) -> cython.uint:
    """Multiply polynomials over GF(2), modulo Castagnoli's."""
    product: cython.uint = 0
    bit: cython.int
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = (b >> 1) ^ (POLYNOMIAL if b & 1 else 0)
    return product


def powers_of_x() -> memoryview:
    """Return x to the power of 8, 16, 32 and so on: what moves a CRC past 1, 2, 4 bytes."""
    power, found = 1 << 23, array("I")
    for _ in range(63):
        found.append(power)
        power = times(power, power)
    return memoryview(found)


POWERS = powers_of_x()


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def moved(crc: cython.uint, size: cython.longlong, powers: Sums) -> cython.uint:
    """Move a CRC past so many bytes. The idea is that of zlib's crc32_combine."""
    digit: cython.Py_ssize_t = 0
    while size > 0 and crc:
        if size & 1:
            crc = times(crc, powers[digit])
        size >>= 1
        digit += 1
    return crc


def join_sums(crc: int, crcs: Sums, sizes: Numbers) -> int:
    """Continue a CRC-32C with texts of which only CRC and size in bytes are known."""
    powers: Sums = POWERS
    joined: cython.uint = crc
    index: cython.Py_ssize_t
    with cython.nogil:
        for index in range(len(crcs)):
            joined = moved(joined, sizes[index], powers) ^ crcs[index]
    return joined


@cython.final
@cython.cclass
class HistoryHash:
    """HashKV over the records of bucket `key`, which are given a chunk at a time, in order.

    Left out are records newer than the revision `at`; at or below `compacted` those that are not among the `live` ones
    of `at`, unless there are none; and, if it `skips_tombstones`, tombstones at `compacted`.
    `sums`: CRC-32C and size of every leaf, array("I") and array("q"), where they are known.
    Source: etcd server/storage/mvcc/hash.go (v3.7.1); docs/formats/etcd.md, "HashKV".
    """

    data: Bytes
    view: memoryview
    crc32c: object
    live: Marks
    any_live: cython.bint
    at: cython.longlong
    compacted: cython.longlong
    skips_tombstones: cython.bint
    is_known: cython.bint
    crcs: Sums
    sizes: Numbers
    crc: cython.uint

    def __init__(
        self,
        view: memoryview,
        crc32c: Callable[[bytes | memoryview, int], int],
        live: bytearray,
        revisions: tuple[int, int],
        sums: tuple[array[int], array[int]] | None,
        *,
        skips_tombstones: bool,
    ) -> None:
        self.data = self.view = view
        self.crc32c = crc32c
        self.live = memoryview(live)
        self.any_live = 1 in live
        self.at, self.compacted = revisions
        self.skips_tombstones = skips_tombstones
        self.is_known = sums is not None
        crcs, sizes = (array("I"), array("q")) if sums is None else sums
        self.crcs, self.sizes = memoryview(crcs), memoryview(sizes)
        self.crc = crc32c(b"key", 0)

    def value(self) -> int:
        """Return the hash of what was given so far."""
        return self.crc

    def add(self, leaves: Chunk) -> None:
        """Take the next leaves."""
        start: Numbers = leaves.leaf_start
        key_at: Numbers = leaves.key_at
        key_size: Numbers = leaves.key_size
        value_at: Numbers = leaves.value_at
        value_size: Numbers = leaves.value_size
        powers: Sums = POWERS
        number: cython.longlong = leaves.first_record
        known: cython.longlong = leaves.first_leaf
        count: cython.longlong = leaves.leaves
        leaf: cython.longlong
        row: cython.longlong
        begin: cython.longlong
        end: cython.longlong
        for leaf in range(count):
            row = start[leaf]
            while self.is_known and row < start[leaf + 1] and self.counts(number + row, key_at[row], key_size[row]):
                row += 1
            if self.is_known and row == start[leaf + 1]:
                self.crc = moved(self.crc, self.sizes[known + leaf], powers) ^ self.crcs[known + leaf]
                continue
            begin = end = 0
            for row in range(start[leaf], start[leaf + 1]):
                if not self.counts(number + row, key_at[row], key_size[row]):
                    continue
                if key_at[row] != end:
                    self.take(begin, end)
                    begin = key_at[row]
                end = value_at[row] + value_size[row]
            self.take(begin, end)

    @cython.cfunc
    def take(self, begin: cython.longlong, end: cython.longlong) -> cython.void:
        """Take a stretch of the file."""
        if end > begin:
            self.crc = self.crc32c(self.view[begin:end], self.crc)  # type: ignore[operator]

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def counts(self, number: cython.longlong, at: cython.longlong, size: cython.longlong) -> cython.int:
        """Is a record, given by number and stored key, part of the hash? One without a revision is at revision 0."""
        main: cython.longlong = 0
        offset: cython.longlong
        if size in (17, 18) and self.data[at] < 128:
            for offset in range(8):
                main = main << 8 | self.data[at + offset]
        if main > self.at:
            return 0
        if main > self.compacted:
            return 1
        if self.any_live and not self.live[number]:
            return 0
        return not (self.skips_tombstones and main == self.compacted and size == 18)


# --- the records of two files ----------------------------------------------------------------------------------------


def is_tidy_branch(file: Bytes, page: int, page_size: int) -> bool:
    """Does a branch hold its elements, the keys that they name one behind the other, and zeros?

    Raises IndexError for one that says that it goes on behind the file's end.
    """
    base: cython.longlong = page * page_size
    count: cython.longlong = file[base + 10] | file[base + 11] << 8
    element: cython.longlong = base + HEADER
    end: cython.longlong = element + ELEMENT * count
    for _ in range(count):
        if element + u32(file, element) != end:
            return False
        end += u32(file, element + 4)
        element += ELEMENT
    return are_zeros(file, end, base + (u32(file, base + 12) + 1) * page_size) == 1


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(-1, check=False)
def u32(file: Bytes, at: cython.longlong) -> cython.longlong:
    """Return the number of 32 bits at an offset, little-endian."""
    return file[at] | file[at + 1] << 8 | file[at + 2] << 16 | cython.cast(cython.longlong, file[at + 3]) << 24


def runs(leaves: Chunk, chosen: Marks) -> list[tuple[int, int, bool]]:
    """Cut the leaves of a chunk into runs of those that are `chosen` and those that are not: first, last, which."""
    leaf: cython.longlong
    first: cython.longlong = 0
    count: cython.longlong = leaves.leaves
    found: list[tuple[int, int, bool]] = []
    for leaf in range(1, count + 1):
        if leaf == count or chosen[leaf] != chosen[first]:
            found.append((first, leaf, chosen[first] != 0))
            first = leaf
    return found


def untouched(leaves: Chunk, action: Marks, tidy: Marks) -> None:
    """Take the mark from leaves of which a record has an action. `action`: by record of the chunk, 0 for none."""
    start: Numbers = leaves.leaf_start
    count: cython.longlong = leaves.leaves
    leaf: cython.longlong
    row: cython.longlong
    with cython.nogil:
        for leaf in range(count):
            for row in range(start[leaf], start[leaf + 1]):
                if action[row]:
                    tidy[leaf] = 0
                    break


def same_records(
    source: Bytes, old: Records, first: int, target: Bytes, new: Records, begin: int, how: Marks, count: int
) -> int:
    """Compare records in turn, from row `first` of one file and row `begin` of the other; return how many are the same.

    `how`: for each row of the source WHOLE or AROUND; anything else ends the comparison, as a difference does.
    """
    a_key: Numbers = old.leaves.key_at
    a_key_size: Numbers = old.leaves.key_size
    a_value: Numbers = old.leaves.value_at
    a_value_size: Numbers = old.leaves.value_size
    b_key: Numbers = new.leaves.key_at
    b_key_size: Numbers = new.leaves.key_size
    b_value: Numbers = new.leaves.value_at
    b_value_size: Numbers = new.leaves.value_size
    a_field: Numbers = old.field_at
    a_field_size: Numbers = old.field_size
    b_field: Numbers = new.field_at
    b_field_size: Numbers = new.field_size
    x: cython.longlong = first
    y: cython.longlong = begin
    index: cython.longlong = 0
    most: cython.longlong = count
    head: cython.longlong
    tail: cython.longlong
    with cython.nogil:
        while index < most:
            if a_key_size[x] != b_key_size[y]:
                break
            if how[x] == ALL_OF_IT:
                # A record's value follows its key.
                if a_value_size[x] != b_value_size[y]:
                    break
                if not same(source, a_key[x], target, b_key[y], a_key_size[x] + a_value_size[x]):
                    break
            elif how[x] == ALL_BUT_THE_VALUE:
                head = a_field[x] - a_key[x]
                tail = a_value[x] + a_value_size[x] - a_field[x] - a_field_size[x]
                if b_field[y] - b_key[y] != head:
                    break
                if b_value[y] + b_value_size[y] - b_field[y] - b_field_size[y] != tail:
                    break
                if not same(source, a_key[x], target, b_key[y], head):
                    break
                if not same(source, a_field[x] + a_field_size[x], target, b_field[y] + b_field_size[y], tail):
                    break
            else:
                break
            index, x, y = index + 1, x + 1, y + 1
    return index


@cython.cfunc
@cython.nogil
@cython.exceptval(-1, check=False)
def same(a: Bytes, at: cython.longlong, b: Bytes, start: cython.longlong, size: cython.longlong) -> cython.int:
    """Whether so many bytes of two files are equal. The last of them is looked at first: so they are all there."""
    if size <= 0:
        return size == 0
    if a[at] != b[start] or a[at + size - 1] != b[start + size - 1]:
        return 0
    if cython.compiled:
        different: cython.int = memcmp(cython.address(a[at]), cython.address(b[start]), size)
        return different == 0
    return a[at : at + size] == b[start : start + size]
