# cython: boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True, show_performance_hints=False
"""Are leaves tidy, are the records of two files the same, and what are the checksums? Compiled where possible.

A leaf is tidy when it has records, and holds nothing but them: back to back behind its table, in their order, and
zeros up to the end of its pages. Records are compared byte by byte: whole, or all around the value of their KeyValue.
The CRC-32C of two texts follows from theirs and the size of the second: so a leaf whose sum is known is not read again.

Knows Chunk and Records; knows nothing of what values mean. One long module, where two would do: each that is compiled
costs whoever installs another eight seconds of compiling.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from snaptool.bolt import Chunk, numbers
from snaptool.bolt.building import Piece
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
    Counts = memoryview  # of 32 bits, to write to
    Sums = memoryview
    Views = tuple[memoryview, ...]
    Crc = Callable[..., int]

HEADER = cython.declare(cython.longlong, 16)
ELEMENT = cython.declare(cython.longlong, 16)

TURNED = cython.declare(cython.uint, 0xFFFFFFFF)
AS_IT_IS = cython.declare(cython.uchar, 0)
RESEALED = cython.declare(cython.uchar, 1)
GONE = cython.declare(cython.uchar, 3)

MORE, NO_MORE, ALONE, DIFFERENT, CHANGED = range(5)
"""How a comparison ends: before a leaf or record that the chunk no longer has; at the end of the piece; before a record
that the caller made; at a difference; at a leaf that is no longer the one that the first pass has seen."""

CHUNK_ENDS = cython.declare(cython.int, 0)
NOTHING_LEFT = cython.declare(cython.int, 1)
MADE = cython.declare(cython.int, 2)
UNEQUAL = cython.declare(cython.int, 3)
ANOTHER = cython.declare(cython.int, 4)


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
    leaves: Chunk,
    file: memoryview,
    tidy: Marks,
    crc32c: tuple[Callable[[memoryview, int], int], int],
    crcs: Counts,
    sizes: Numbers,
) -> None:
    """Set CRC-32C and size in bytes of the records of each leaf; those of a `tidy` one stand back to back.

    `crc32c`: the function, and its address or 0: see `castagnoli`.
    """
    data: Bytes = file
    start: Numbers = leaves.leaf_start
    key_at: Numbers = leaves.key_at
    value_at: Numbers = leaves.value_at
    value_size: Numbers = leaves.value_size
    count: cython.longlong = leaves.leaves
    leaf: cython.longlong
    row: cython.longlong
    begin: cython.longlong
    end: cython.longlong
    function = crc32c[0]
    address: cython.size_t = crc32c[1]
    crc: cython.uint
    with cython.nogil:
        for leaf in range(count):
            row = start[leaf]
            crc, sizes[leaf] = 0, 0
            while row < start[leaf + 1]:
                begin = key_at[row]
                row = start[leaf + 1] - 1 if tidy[leaf] else row
                end = value_at[row] + value_size[row]
                if cython.compiled and address and end > begin:
                    crc = sum_of(data, begin, end, crc, address)
                else:
                    with cython.gil:
                        crc = function(file[begin:end], crc)
                sizes[leaf] += end - begin
                row += 1
            crcs[leaf] = crc


def checksum(leaves: Chunk, file: memoryview, crc32c: tuple[Callable[[memoryview, int], int], int], before: int) -> int:
    """Continue a CRC-32C with all keys and values of a chunk: one call for bytes that touch, mostly a leaf's."""
    data: Bytes = file
    key_at: Numbers = leaves.key_at
    value_at: Numbers = leaves.value_at
    value_size: Numbers = leaves.value_size
    rows: cython.longlong = leaves.records
    row: cython.longlong = 0
    begin: cython.longlong
    end: cython.longlong
    function = crc32c[0]
    address: cython.size_t = crc32c[1]
    crc: cython.uint = before
    with cython.nogil:
        while row < rows:
            begin, end = key_at[row], value_at[row] + value_size[row]
            row += 1
            while row < rows and key_at[row] == end:
                end = value_at[row] + value_size[row]
                row += 1
            if cython.compiled and address:
                crc = sum_of(data, begin, end, crc, address)
            else:
                with cython.gil:
                    crc = function(file[begin:end], crc)
    return crc


@cython.cfunc
@cython.nogil
@cython.exceptval(check=True)
def sum_of(
    data: Bytes, begin: cython.longlong, end: cython.longlong, crc: cython.uint, address: cython.size_t
) -> cython.uint:
    """Continue a CRC-32C with a stretch of a file, by the function at an address. Both ends are looked at before."""
    if not cython.compiled:
        return crc
    function: Crc = cython.cast(Crc, address)
    data[begin]
    data[end - 1]
    return function(crc ^ TURNED, cython.address(data[begin]), end - begin) ^ TURNED


def describe_leaves(leaves: Chunk, file: Bytes, span: Counts, records: Counts, main: Numbers) -> None:
    """Set, for each leaf, its pages, how many records it has, and the main revision of the first.

    That is -1 where it has none, or one without a revision.
    """
    spans: Numbers = leaves.leaf_span
    start: Numbers = leaves.leaf_start
    key_at: Numbers = leaves.key_at
    key_size: Numbers = leaves.key_size
    count: cython.longlong = leaves.leaves
    leaf: cython.longlong
    row: cython.longlong
    with cython.nogil:
        for leaf in range(count):
            span[leaf] = cython.cast(cython.uint, spans[leaf])
            records[leaf] = cython.cast(cython.uint, start[leaf + 1] - start[leaf])
            main[leaf] = -1
            for row in range(start[leaf + 1] - 1, start[leaf] - 1, -1):
                main[leaf] = revision_of(file, key_at[row], key_size[row])
                if main[leaf] < 0:
                    break


def pages_and_keys(file: Bytes, leaves: Chunk) -> memoryview:
    """Return, for each leaf of a chunk, its page id in 8 bytes and its first key, if it has one."""
    page: Numbers = leaves.leaf_page
    start: Numbers = leaves.leaf_start
    key_at: Numbers = leaves.key_at
    key_size: Numbers = leaves.key_size
    count: cython.longlong = leaves.leaves
    leaf: cython.longlong
    row: cython.longlong
    offset: cython.longlong
    size: cython.longlong = 0
    for leaf in range(count):
        size += 8 + (key_size[start[leaf]] if start[leaf + 1] > start[leaf] else 0)
    room = memoryview(bytearray(size))
    found: Marks = room
    size = 0
    with cython.nogil:
        for leaf in range(count):
            row = start[leaf]
            for offset in range(8):
                found[size + offset] = cython.cast(cython.uchar, page[leaf] >> 8 * offset & 255)
            size += 8
            if start[leaf + 1] > row:
                found[size : size + key_size[row]] = file[key_at[row] : key_at[row] + key_size[row]]
                size += key_size[row]
    return room


def sizes_of_records(leaves: Chunk, key_sizes: Marks, sizes: Counts) -> None:
    """Set, for each record of a chunk, the bytes of its key, which is a revision, and of key and value together."""
    key_size: Numbers = leaves.key_size
    value_size: Numbers = leaves.value_size
    count: cython.longlong = leaves.records
    row: cython.longlong
    with cython.nogil:
        for row in range(count):
            key_sizes[row] = cython.cast(cython.uchar, key_size[row] & 255)
            sizes[row] = cython.cast(cython.uint, key_size[row] + value_size[row])


def resize(
    sizes: Counts, records: Numbers, before: Sums, plain: Sums, action: Bytes, resource: Sums, growth: Numbers
) -> None:
    """Set the sizes of records to what they will be: those of action 1 sealed again, those of action 3 gone, so 0.

    `records`: numbers of those that were opened, with sizes of value and plaintext; `growth`: by resource, what sealing
    adds to a plaintext, and the blocks that it fills up before, of 1 byte where it fills up none.
    """
    index: cython.Py_ssize_t
    record: cython.longlong
    size: cython.longlong
    block: cython.longlong
    with cython.nogil:
        for index in range(len(records)):
            record = records[index]
            if action[record] == 1:
                block = growth[2 * cython.cast(cython.longlong, resource[record]) + 1]
                size = plain[index] + growth[2 * cython.cast(cython.longlong, resource[record])]
                if block > 1:
                    size += block - plain[index] % block
                sizes[record] = cython.cast(cython.uint, sizes[record] - field_size(before[index]) + field_size(size))
        for index in range(len(sizes)):
            if action[index] == 3:
                sizes[index] = 0


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(-1, check=False)
def field_size(size: cython.longlong) -> cython.longlong:
    """Measure field 5 of a KeyValue, tag and length included; an empty one is left out."""
    if size == 0:
        return 0
    number: cython.longlong = size
    total: cython.longlong = size + 2
    while number > 127:
        number >>= 7
        total += 1
    return total


@cython.cfunc
@cython.nogil
@cython.exceptval(-2, check=False)
def revision_of(file: Bytes, at: cython.longlong, size: cython.longlong) -> cython.longlong:
    """Return the main revision in a stored key: eight bytes, most significant first; -1 where it has none."""
    main: cython.longlong = 0
    offset: cython.longlong
    if size not in (17, 18) or file[at] > 127:
        return -1
    for offset in range(8):
        main = main << 8 | file[at + offset]
    return main


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
QUICK = cython.declare(cython.Py_ssize_t, 24)


def products() -> memoryview:
    """Return the products of the first powers and each byte in each of its four places: 1024 numbers for each."""
    found = array("I", bytes(4 * 1024 * QUICK))
    for digit in range(QUICK):
        for place in range(4):
            base = 1024 * digit + 256 * place
            for byte in range(1, 256):
                lowest = byte & -byte
                found[base + byte] = (
                    found[base + lowest] ^ found[base + byte - lowest]
                    if byte > lowest
                    else times(POWERS[digit], byte << 8 * place)
                )
    return memoryview(found)


PRODUCTS = products()


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def moved(crc: cython.uint, size: cython.longlong, powers: Sums, products: Sums) -> cython.uint:
    """Move a CRC past so many bytes. The idea is that of zlib's crc32_combine."""
    digit: cython.Py_ssize_t = 0
    base: cython.Py_ssize_t
    while size > 0 and crc:
        if size & 1 and digit < QUICK:
            base = 1024 * digit
            crc = (
                products[base + (crc & 255)]
                ^ products[base + 256 + (crc >> 8 & 255)]
                ^ products[base + 512 + (crc >> 16 & 255)]
                ^ products[base + 768 + (crc >> 24)]
            )
        elif size & 1:
            crc = times(crc, powers[digit])
        size >>= 1
        digit += 1
    return crc


def join_sums(crc: int, crcs: Sums, sizes: Numbers) -> int:
    """Continue a CRC-32C with texts of which only CRC and size in bytes are known."""
    powers: Sums = POWERS
    products: Sums = PRODUCTS
    joined: cython.uint = crc
    index: cython.Py_ssize_t
    with cython.nogil:
        for index in range(len(crcs)):
            joined = moved(joined, sizes[index], powers, products) ^ crcs[index]
    return joined


@cython.final
@cython.cclass
class HistoryHash:
    """HashKV over the records of bucket `key`, which are given in order: leaf by leaf, or by the sums of leaves.

    Left out are records newer than the revision `at`; at or below `compacted` those that are not among the `live` ones
    of `at`, unless there are none; and, if it `skips_tombstones`, tombstones at `compacted`.
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
    number: cython.longlong
    crc: cython.uint

    def __init__(
        self,
        view: memoryview,
        crc32c: Callable[[bytes | memoryview, int], int],
        live: bytearray,
        revisions: tuple[int, int],
        *,
        skips_tombstones: bool,
    ) -> None:
        self.data = self.view = view
        self.crc32c = crc32c
        self.live = memoryview(live)
        self.any_live = 1 in live
        self.at, self.compacted = revisions
        self.skips_tombstones = skips_tombstones
        self.number = 0
        self.crc = crc32c(b"key", 0)

    def value(self) -> int:
        """Return the hash of what was given so far."""
        return self.crc

    def join(self, leaf: int, records: Sums, main: Numbers, crcs: Sums, sizes: Numbers) -> int:
        """Take leaves, from one on, by their sums, as long as all records of each count; return the one after these.

        `records`, `main`: see `describe_leaves`.
        """
        powers: Sums = POWERS
        products: Sums = PRODUCTS
        at: cython.Py_ssize_t = leaf
        with cython.nogil:
            while at < len(records) and self.all_count(records[at], main, at):
                self.crc = moved(self.crc, sizes[at], powers, products) ^ crcs[at]
                self.number += records[at]
                at += 1
        return at

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def all_count(self, count: cython.longlong, main: Numbers, leaf: cython.Py_ssize_t) -> cython.int:
        """Is it known that all records of a leaf are part of the hash? They are no newer than the leaf behind it."""
        row: cython.longlong
        if leaf + 1 == len(main) or main[leaf] < 0 or not 0 <= main[leaf + 1] <= self.at:
            return count == 0
        if main[leaf] > self.compacted:
            return 1
        if main[leaf + 1] >= self.compacted:
            return 0
        for row in range(self.number, self.number + count):
            if self.any_live and not self.live[row]:
                return 0
        return 1

    def add(self, leaves: Chunk) -> None:
        """Take the next leaves."""
        start: Numbers = leaves.leaf_start
        key_at: Numbers = leaves.key_at
        key_size: Numbers = leaves.key_size
        value_at: Numbers = leaves.value_at
        value_size: Numbers = leaves.value_size
        count: cython.longlong = leaves.leaves
        leaf: cython.longlong
        row: cython.longlong
        begin: cython.longlong
        end: cython.longlong
        for leaf in range(count):
            begin = end = 0
            for row in range(start[leaf], start[leaf + 1]):
                if not self.counts(self.number + row, key_at[row], key_size[row]):
                    continue
                if key_at[row] != end:
                    self.take(begin, end)
                    begin = key_at[row]
                end = value_at[row] + value_size[row]
            self.take(begin, end)
        self.number += start[count]

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
        main: cython.longlong = max(revision_of(self.data, at, size), 0)
        if main > self.at:
            return 0
        if main > self.compacted:
            return 1
        if self.any_live and not self.live[number]:
            return 0
        return not (self.skips_tombstones and main == self.compacted and size == 18)


# --- the records of two files ----------------------------------------------------------------------------------------


def mark_leaves(leaves: Chunk, is_leaf: Marks) -> None:
    """Mark all pages of the leaves of a chunk."""
    page: Numbers = leaves.leaf_page
    span: Numbers = leaves.leaf_span
    count: cython.longlong = leaves.leaves
    leaf: cython.longlong
    number: cython.longlong
    with cython.nogil:
        for leaf in range(count):
            for number in range(page[leaf], page[leaf] + span[leaf]):
                is_leaf[number] = 1


def are_tidy_branches(file: Bytes, first: int, page_size: int, is_leaf: Marks) -> bool:
    """Do all pages from `first` on that are no leaves hold a branch: elements, keys one behind the other, and zeros?

    Raises IndexError for one that says that it goes on behind the file's end.
    """
    page: cython.longlong = first
    size: cython.longlong = page_size
    while page < len(is_leaf):
        if is_leaf[page]:
            page += 1
        elif is_tidy_branch(file, page * size, size):
            page += u32(file, page * size + 12) + 1
        else:
            return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(-1, check=False)
def is_tidy_branch(file: Bytes, base: cython.longlong, page_size: cython.longlong) -> cython.int:
    """Does a branch hold its elements, the keys that they name one behind the other, and zeros?"""
    count: cython.longlong = file[base + 10] | file[base + 11] << 8
    element: cython.longlong = base + HEADER
    end: cython.longlong = element + ELEMENT * count
    for _ in range(count):
        if element + u32(file, element) != end:
            return 0
        end += u32(file, element + 4)
        element += ELEMENT
    return are_zeros(file, end, base + (u32(file, base + 12) + 1) * page_size)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(-1, check=False)
def u32(file: Bytes, at: cython.longlong) -> cython.longlong:
    """Return the number of 32 bits at an offset, little-endian."""
    return file[at] | file[at + 1] << 8 | file[at + 2] << 16 | cython.cast(cython.longlong, file[at + 3]) << 24


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


def looked_into(
    records: Sums, tidy: Bytes, action: Bytes, watched: Bytes, whole: Marks
) -> tuple[memoryview, memoryview]:
    """Set `whole` for the leaves that can be carried over; return those that have to be looked into all the same.

    By leaf: number of records, 1 where it is tidy. By record of all leaves: what becomes of it, and 1 where its value
    is to be opened; `watched` may be empty. What is returned: numbers of leaves, and of the first record of each: of
    all that are not whole, or have a value to be opened.
    """
    leaf: cython.Py_ssize_t
    row: cython.longlong
    start: cython.longlong = 0
    count: cython.longlong = 0
    wanted: cython.bint
    leaves, starts = numbers(len(records)), numbers(len(records))
    numbers_of: Numbers = leaves
    starts_of: Numbers = starts
    with cython.nogil:
        for leaf in range(len(records)):
            whole[leaf] = tidy[leaf]
            wanted = tidy[leaf] == 0
            for row in range(start, start + records[leaf]):
                if action[row]:
                    whole[leaf] = 0
                    wanted = True
                elif row < len(watched) and watched[row]:
                    wanted = True
            if wanted:
                numbers_of[count], starts_of[count] = leaf, start
                count += 1
            start += records[leaf]
    return leaves[:count], starts[:count]


def rows_of_leaves(numbers_of: Numbers, start: Numbers, first: int, count: int) -> tuple[memoryview, memoryview]:
    """Return, for `count` leaves from number `first` on, their first and last rows; none of those not looked into.

    `numbers_of`: of the leaves that are; `start`: see `Chunk.leaf_start`.
    """
    begin: cython.longlong = first
    most: cython.longlong = count
    index: cython.Py_ssize_t
    leaf: cython.longlong
    firsts, lasts = numbers(count), numbers(count)
    first_of: Numbers = firsts
    last_of: Numbers = lasts
    with cython.nogil:
        for index in range(len(numbers_of)):
            leaf = numbers_of[index] - begin
            if 0 <= leaf < most:
                first_of[leaf], last_of[leaf] = start[index], start[index + 1]
    return firsts, lasts


def number_rows(numbers_of: Numbers, starts: Numbers, records: Sums, start: Numbers, found: Numbers) -> bool:
    """Set the numbers of records of leaves that are looked into; whether each leaf has as many as it had.

    `starts`: the number of the first of each; `records`: how many every leaf had; `start`: see `Chunk.leaf_start`.
    """
    index: cython.Py_ssize_t
    row: cython.longlong
    for index in range(len(numbers_of)):
        if start[index + 1] - start[index] != records[numbers_of[index]]:
            return False
        for row in range(start[index], start[index + 1]):
            found[row] = starts[index] + row - start[index]
    return True


@cython.final
@cython.cclass
class Match:
    """Holds the pieces of a source against the chunks of a written file, one after the other.

    Where it is: before a leaf of the piece, or a row of it (-1: its first), and before a row of the chunk.
    """

    leaf: cython.longlong
    row: cython.longlong
    other_leaf: cython.longlong
    other: cython.longlong
    rows: Numbers
    others: Numbers
    pairs: cython.longlong
    view: object
    other_view: object

    def __init__(self) -> None:
        self.leaf = self.other_leaf = self.other = self.pairs = 0
        self.row = -1
        self.view = self.other_view = numbers(0)
        self.rows = self.others = self.view

    def begin_piece(self) -> None:
        """Go on with the start of another piece."""
        self.leaf, self.row = 0, -1

    def begin_chunk(self) -> None:
        """Go on with the start of another chunk."""
        self.other_leaf = self.other = self.pairs = 0

    def place(self) -> tuple[int, int]:
        """Return the row of the piece and that of the chunk, where a comparison ended."""
        return self.row, self.other

    def step(self) -> None:
        """Pass over a record of both, and a row of the chunk alone where the piece has no more."""
        self.row, self.other = self.row + 1, self.other + 1

    def watched(self) -> tuple[memoryview, memoryview]:
        """Return the rows, of piece and chunk, of the values to be opened that were come by since the last call."""
        pairs, self.pairs = self.pairs, 0
        return self.view[:pairs], self.other_view[:pairs]  # type: ignore[index]

    def look_at(self, row: int, other: int, watched: Marks) -> None:
        """Note a value that is to be opened, if it is `watched`."""
        if len(watched):
            self.note(row, other, watched)

    def is_done(self, piece: Piece) -> bool:
        """Is there nothing left in a piece that has to be in the written file?"""
        for leaf in range(self.leaf, len(piece.whole)):
            first = self.row if leaf == self.leaf and self.row >= 0 else piece.first[leaf]
            if piece.whole[leaf] or any(mark != GONE for mark in piece.action[first : piece.last[leaf]]):
                return False
        return True

    def compare(self, old: Records, piece: Piece, watched: Marks, new: Records, page_size: int, sums: Views) -> int:
        """Compare as much as there is in both. `old`: the records of the piece; `watched`: a mark for each, or empty.

        Whole leaves are compared as they are, but for their numbers and what is behind their records. `sums`: CRC-32C
        of the records of the leaves of the piece, as the first pass found it, or empty, and of those of the chunk.
        """
        crcs: Sums = sums[0]
        other_crcs: Sums = sums[1]
        source: Bytes = old.view
        target: Bytes = new.view
        page: Numbers = piece.page
        span: Numbers = piece.span
        whole: Marks = piece.whole
        first: Numbers = piece.first
        last: Numbers = piece.last
        action: Marks = piece.action
        key_at: Numbers = old.leaves.key_at
        key_size: Numbers = old.leaves.key_size
        value_at: Numbers = old.leaves.value_at
        value_size: Numbers = old.leaves.value_size
        field_at: Numbers = old.field_at
        field_size: Numbers = old.field_size
        other_page: Numbers = new.leaves.leaf_page
        other_span: Numbers = new.leaves.leaf_span
        other_start: Numbers = new.leaves.leaf_start
        other_key_at: Numbers = new.leaves.key_at
        other_key_size: Numbers = new.leaves.key_size
        other_value_at: Numbers = new.leaves.value_at
        other_value_size: Numbers = new.leaves.value_size
        other_field_at: Numbers = new.field_at
        other_field_size: Numbers = new.field_size
        leaves: cython.longlong = len(whole)
        total: cython.longlong = new.leaves.records
        size: cython.longlong = page_size
        base: cython.longlong
        end: cython.longlong
        tail: cython.longlong
        row: cython.longlong
        result: cython.int = -1
        if len(self.rows) < total:
            self.view, self.other_view = numbers(total), numbers(total)
            self.rows, self.others = self.view, self.other_view
        with cython.nogil:
            while result < 0:
                if self.leaf == leaves:
                    result = NOTHING_LEFT
                elif whole[self.leaf]:
                    if self.other == total:
                        result = CHUNK_ENDS
                        break
                    while other_start[self.other_leaf + 1] <= self.other:
                        self.other_leaf += 1
                    row = other_start[self.other_leaf + 1] - 1
                    base = other_page[self.other_leaf] * size
                    end = other_value_at[row] + other_value_size[row]
                    if (
                        other_start[self.other_leaf] != self.other
                        or other_span[self.other_leaf] != span[self.leaf]
                        or not same(source, page[self.leaf] * size + 8, target, base + 8, end - base - 8)
                    ):
                        result = UNEQUAL
                        break
                    if len(crcs) and crcs[self.leaf] != other_crcs[self.other_leaf]:
                        result = ANOTHER
                        break
                    if len(watched):
                        for row in range(first[self.leaf], last[self.leaf]):
                            self.note(row, self.other + row - first[self.leaf], watched)
                    self.other = other_start[self.other_leaf + 1]
                    self.leaf += 1
                else:
                    self.row = first[self.leaf] if self.row < 0 else self.row
                    while self.row < last[self.leaf]:
                        row = self.row
                        if action[row] == GONE:
                            self.row += 1
                            continue
                        if self.other == total:
                            result = CHUNK_ENDS
                            break
                        if action[row] > RESEALED:
                            result = MADE
                            break
                        end = value_at[row] + value_size[row]
                        tail = other_value_at[self.other] + other_value_size[self.other]
                        if key_size[row] != other_key_size[self.other]:
                            result = UNEQUAL
                        elif action[row] == AS_IT_IS:
                            # A record's value follows its key.
                            if end - key_at[row] != tail - other_key_at[self.other] or not same(
                                source, key_at[row], target, other_key_at[self.other], end - key_at[row]
                            ):
                                result = UNEQUAL
                        else:
                            # Everything but the whole of field 5, which may be of any length.
                            base = other_field_at[self.other] + other_field_size[self.other]
                            if (
                                field_at[row] - key_at[row] != other_field_at[self.other] - other_key_at[self.other]
                                or end - field_at[row] - field_size[row] != tail - base
                                or not same(
                                    source,
                                    key_at[row],
                                    target,
                                    other_key_at[self.other],
                                    field_at[row] - key_at[row],
                                )
                                or not same(source, field_at[row] + field_size[row], target, base, tail - base)
                            ):
                                result = UNEQUAL
                        if result >= 0:
                            break
                        if len(watched):
                            self.note(row, self.other, watched)
                        self.row, self.other = row + 1, self.other + 1
                    if result < 0:
                        self.leaf, self.row = self.leaf + 1, -1
        return result

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def note(self, row: cython.longlong, other: cython.longlong, watched: Marks) -> cython.int:
        """Note a value that is to be opened."""
        if watched[row]:
            self.rows[self.pairs], self.others[self.pairs] = row, other
            self.pairs += 1
        return 0


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
