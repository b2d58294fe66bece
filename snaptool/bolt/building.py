# cython: boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True, show_performance_hints=False
"""The pages of a new tree, left to right: leaves carried over or packed, then the branches above them. Compiled.

A leaf takes records until the next one does not fit, one at least. Branches are made level by level from the first keys
of the pages below: as many as fit, two at least, and none left alone for the last page, since a lone child passes every
check and kills the server at its next compaction. Elements point relative to themselves, so that a leaf that is carried
over whole needs nothing but its new id.

Pages come in the order of their ids, in blocks. Where a block ends has no influence on what is in it. What stays for a
whole tree is about 30 bytes for each page of one level. Source: docs/formats/bolt.md, "Writing"; bbolt node.go
(`write`, `split`). Knows pages and byte strings.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable

from snaptool.bolt.walk import Chunk
from snaptool.errors import SnaptoolError

try:
    import cython
except ImportError:
    from snaptool.compiled import cython  # type: ignore[no-redef]

if cython.compiled:
    from cython.cimports.posix.unistd import pread  # type: ignore[import-untyped]

if not cython.compiled:
    Bytes = memoryview
    Marks = memoryview
    Numbers = memoryview
    Sums = memoryview  # of 32 bits
    View = memoryview
    Views = tuple[memoryview, ...]
    Take = Callable[[memoryview, int, int], memoryview]

BRANCH = cython.declare(cython.longlong, 1)
LEAF = cython.declare(cython.longlong, 2)
HEADER = cython.declare(cython.longlong, 16)
OVERFLOW = cython.declare(cython.longlong, 12)
ELEMENT = cython.declare(cython.longlong, 16)
MOST_ELEMENTS = cython.declare(cython.longlong, 65534)  # writers of bolt panic at 0xFFFF
MOST_VALUE = cython.declare(cython.longlong, (1 << 31) - 2)
VALUE_FIELD = cython.declare(cython.longlong, 0x2A)  # tag of KeyValue.value: field 5, bytes
LONGEST_KEY = cython.declare(cython.longlong, 32768)

AS_IT_IS = cython.declare(cython.uchar, 0)
RESEALED = cython.declare(cython.uchar, 1)
GONE = cython.declare(cython.uchar, 3)


class BadOrder(SnaptoolError):
    """Keys or buckets were not given in ascending order, or are beyond bolt's limits: a mistake of the caller."""


class Piece:
    """Some leaves of a source, one behind the other, and what becomes of them. Positions are offsets in the source.

    By leaf: `page`, `span`; `whole`: 1 where it is carried over, which has to be tidy; `first`, `last`: its records in
    `chunk`, from row `first` to row `last`, not included: none of a whole leaf that nobody has to look into. `action`,
    by row: what becomes of the record, 0 it stays, 1 it gets a new value, 3 it goes; others are made by whoever calls.
    """

    def __init__(
        self,
        page: memoryview,
        span: memoryview,
        whole: memoryview,
        rows: tuple[memoryview, memoryview],
        chunk: Chunk,
        action: memoryview,
    ) -> None:
        self.page, self.span, self.whole = page, span, whole
        self.first, self.last = rows
        self.chunk, self.action = chunk, action


def _numbers(count: int) -> memoryview:
    return memoryview(array("q", bytes(8 * count)))


@cython.final
@cython.cclass
class Builder:
    """Makes pages of one file. `next_page`: the id of the next one.

    `take` is given every full block, how much of it is used, and the size that is needed next; it returns a block of
    that size at least, whatever may be in it.
    """

    page_size: cython.longlong
    next_page: cython.longlong
    take: Take
    block: Marks
    block_view: View
    used: cython.longlong
    zeros: Bytes
    # The tree at hand: flags of its elements; the finished pages of its lowest level, by id and first key.
    flags: cython.longlong
    pages: cython.longlong
    ids: Numbers
    key_ends: Numbers
    keys: Marks
    keys_view: View
    # The leaf at hand: its records' keys and values back to back, and the sizes of both.
    count: cython.longlong
    packed: Marks
    packed_view: View
    packed_size: cython.longlong
    key_sizes: Numbers
    value_sizes: Numbers
    # The last key of the tree so far.
    last_key: Marks
    last_size: cython.longlong

    def __init__(self, page_size: int, next_page: int, take: Take) -> None:
        self.page_size, self.next_page = page_size, next_page
        self.take = take
        self.zeros = memoryview(bytes(page_size))
        self.block_view = memoryview(bytearray(0))
        self.block = self.block_view
        self.used = 0
        self.flags = self.pages = self.count = self.packed_size = self.last_size = 0
        self.last_key = memoryview(bytearray(LONGEST_KEY))
        self.ids, self.key_ends = _numbers(1024), _numbers(1024)
        self.key_sizes, self.value_sizes = _numbers(1024), _numbers(1024)
        self.keys_view = memoryview(bytearray(1 << 16))
        self.keys = self.keys_view
        self.packed_view = memoryview(bytearray(1 << 16))
        self.packed = self.packed_view

    def begin(self, flags: int = 0) -> None:
        """Begin the next tree, all of whose records have these element flags."""
        self.flags = flags
        self.pages = self.count = self.packed_size = self.last_size = 0

    def allocate(self, pages: int) -> int:
        """Hand out that many consecutive page ids; return the first."""
        first = self.next_page
        self.next_page += pages
        return first

    @property
    def is_small(self) -> bool:
        """Is all of the tree at hand in one leaf of a quarter of a page? Then it goes into its bucket's record."""
        return self.pages == 0 and HEADER + ELEMENT * self.count + self.packed_size <= self.page_size // 4

    # --- room ---

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def need(self, size: cython.longlong) -> cython.int:
        """Have room for a page of that size behind those that are there."""
        if self.used + size > len(self.block):
            with cython.gil:
                self.hand_over(size)
        return 0

    def hand_over(self, size: int = 0) -> None:
        """Give away the pages that are finished, and get room for as many bytes, if any."""
        self.block_view = self.take(self.block_view, self.used, size)
        self.block = self.block_view
        self.used = 0

    def put_pages(self, pages: bytes) -> None:
        """Put whole pages that were made elsewhere, whose ids were handed out last."""
        self.need(len(pages))
        self.block_view[self.used : self.used + len(pages)] = pages
        self.used += len(pages)

    # --- numbers ---

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def put16(self, at: cython.longlong, number: cython.longlong) -> cython.int:
        """Put the lower 16 bits of a number into the block, little-endian."""
        self.block[at] = cython.cast(cython.uchar, number & 255)
        self.block[at + 1] = cython.cast(cython.uchar, number >> 8 & 255)
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def put32(self, at: cython.longlong, number: cython.longlong) -> cython.int:
        """Put the lower 32 bits of a number into the block."""
        self.put16(at, number)
        return self.put16(at + 2, number >> 16)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def put_header(
        self, at: cython.longlong, flags: cython.longlong, count: cython.longlong, pages: cython.longlong
    ) -> cython.int:
        """Put the header of the next page."""
        self.put32(at, self.next_page)
        self.put32(at + 4, self.next_page >> 32)
        self.put16(at + 8, flags)
        self.put16(at + 10, count)
        return self.put32(at + 12, pages - 1)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def put_zeros(self, start: cython.longlong, end: cython.longlong) -> cython.int:
        """Put zeros, of less than a page: blocks are used again, so that something may be there."""
        self.block[start:end] = self.zeros[: end - start]
        return 0

    # --- leaves ---

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def carry(self, file: Bytes, page: cython.longlong, span: cython.longlong) -> cython.int:
        """Carry a leaf over whole."""
        base: cython.longlong = page * self.page_size
        size: cython.longlong = span * self.page_size
        element: cython.longlong = base + HEADER
        key: cython.longlong = element + u32(file, element + 4)
        key_size: cython.longlong = u32(file, element + 8)
        self.finish_leaf()
        self.go_on(file, key, key_size)
        self.need(size)
        self.block[self.used : self.used + size] = file[base : base + size]
        self.put32(self.used, self.next_page)
        self.put32(self.used + 4, self.next_page >> 32)
        self.note_page(file, key, key_size)
        self.used += size
        self.next_page += span
        element += ELEMENT * (file[base + 10] + (file[base + 11] << 8) - 1)
        key = element + u32(file, element + 4)
        key_size = u32(file, element + 8)
        return self.keep_last(file, key, key_size)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def go_on(self, file: Bytes, at: cython.longlong, size: cython.longlong) -> cython.int:
        """Raise BadOrder unless a key is above all of the tree so far; it is the last one then."""
        offset: cython.longlong = 0
        common: cython.longlong = min(size, self.last_size)
        while offset < common and file[at + offset] == self.last_key[offset]:
            offset += 1
        if size <= offset if offset == common else file[at + offset] < self.last_key[offset]:
            return self.refuse(file, at, size)
        return self.keep_last(file, at, size)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def keep_last(self, file: Bytes, at: cython.longlong, size: cython.longlong) -> cython.int:
        """Take a key for the last one so far."""
        if size > LONGEST_KEY or at + size > len(file):
            return self.refuse(file, at, size)
        self.last_key[:size] = file[at : at + size]
        self.last_size = size
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def refuse(self, file: Bytes, at: cython.longlong, size: cython.longlong) -> cython.int:
        """Raise BadOrder for a key."""
        with cython.gil:
            key, last = bytes(file[at : at + min(size, 40)]), bytes(self.last_key[: min(self.last_size, 40)])
            raise BadOrder(f"record {key.hex()} is not above {last.hex()}, or too large")

    # --- sizes alone ---

    def measure_carried(self, leaves: Chunk) -> None:
        """Make ids and branches as if leaves that were skimmed were carried over, all that have records."""
        span: Numbers = leaves.leaf_span
        key_size: Numbers = leaves.key_size
        count: cython.longlong = leaves.leaves
        leaf: cython.longlong
        for leaf in range(count):
            if key_size[leaf]:
                self.note_room(key_size[leaf])
                self.next_page += span[leaf]

    def measure(self, span: Sums, records: Sums, tidy: Bytes, touched: Bytes, key_size: Bytes, size: Sums) -> None:
        """Make ids and branches as if leaves were carried over that are tidy, none of their records touched.

        By leaf: pages, number of records, and 1 where it is tidy. By record: 0 where nothing touches it, and bytes of
        its new key, and of its new key and value, 0 where it goes: the records of all other leaves are packed.
        """
        count: cython.longlong = 0
        used: cython.longlong = HEADER
        first: cython.longlong = 0
        start: cython.longlong = 0
        end: cython.longlong
        row: cython.longlong
        leaf: cython.Py_ssize_t
        is_carried: cython.bint
        for leaf in range(len(span)):
            end = start + records[leaf]
            is_carried = tidy[leaf] != 0
            for row in range(start, end):
                is_carried = is_carried and touched[row] == 0
            if is_carried:
                self.measure_leaf(count, used, first)
                count, used = 0, HEADER
                self.note_room(key_size[start])
                self.next_page += span[leaf]
            for row in range(end if is_carried else start, end):
                if size[row] == 0:
                    continue
                if count and (used + ELEMENT + size[row] > self.page_size or count == MOST_ELEMENTS):
                    self.measure_leaf(count, used, first)
                    count, used = 0, HEADER
                if count == 0:
                    first = key_size[row]
                count += 1
                used += ELEMENT + size[row]
            start = end
        self.measure_leaf(count, used, first)

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def measure_leaf(self, count: cython.longlong, used: cython.longlong, first: cython.longlong) -> cython.int:
        """Note a page of so many records and bytes, the first of which has a key of that size."""
        if count:
            self.note_room(first)
            self.next_page += self.pages_for(used - HEADER)
        return 0

    # --- records ---

    def put(self, key: bytes, value: bytes) -> None:
        """Add one record. Raises BadOrder unless its key is above all so far."""
        self.go_on(memoryview(key), 0, len(key))
        self.begin_record(len(key), len(value))
        self.add(memoryview(key), 0, len(key))
        self.add(memoryview(value), 0, len(value))

    def put_piece(self, file: Bytes, piece: Piece, fields: Views, sealed: Views, at: Numbers) -> bool:
        """Add the leaves of a piece, from a place on, up to a record that the caller makes; whether there is one.

        `fields`: where the field is that holds the value, and its size, by row; `sealed`: the bytes of the new values,
        where each is among them, and its size, by row; `at`: the place, which moves: a leaf, and a row of it, -1 for
        its first. Raises BadOrder unless keys are above all so far.
        """
        page: Numbers = piece.page
        span: Numbers = piece.span
        whole: Marks = piece.whole
        first: Numbers = piece.first
        last: Numbers = piece.last
        action: Marks = piece.action
        leaves: Chunk = piece.chunk
        key_at: Numbers = leaves.key_at
        key_size: Numbers = leaves.key_size
        value_at: Numbers = leaves.value_at
        value_size: Numbers = leaves.value_size
        field_at: Numbers = fields[0]
        field_size: Numbers = fields[1]
        new: Bytes = sealed[0]
        new_at: Numbers = sealed[1]
        new_size: Numbers = sealed[2]
        leaf: cython.longlong = at[0]
        row: cython.longlong = at[1]
        end: cython.longlong
        size: cython.longlong
        alone: cython.bint = False
        with cython.nogil:
            while leaf < len(page):
                if whole[leaf]:
                    self.carry(file, page[leaf], span[leaf])
                    leaf += 1
                    continue
                row = first[leaf] if row < 0 else row
                while row < last[leaf] and not alone:
                    end = value_at[row] + value_size[row]
                    if action[row] == AS_IT_IS:
                        self.go_on(file, key_at[row], key_size[row])
                        self.begin_record(key_size[row], value_size[row])
                        self.add(file, key_at[row], end - key_at[row])
                    elif action[row] == RESEALED:
                        # Only field 5 changes: tag, length and value, or nothing at all where the value is empty.
                        size = new_size[row]
                        if size:
                            size += 1 + varint_size(size)
                        self.go_on(file, key_at[row], key_size[row])
                        self.begin_record(key_size[row], value_size[row] - field_size[row] + size)
                        self.add(file, key_at[row], field_at[row] - key_at[row])
                        if size:
                            self.add_head(new_size[row])
                            self.add(new, new_at[row], new_size[row])
                        self.add(file, field_at[row] + field_size[row], end - field_at[row] - field_size[row])
                    elif action[row] != GONE:
                        alone = True
                        break
                    row += 1
                if alone:
                    break
                leaf, row = leaf + 1, -1
        at[0], at[1] = leaf, row
        return alone

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def add_head(self, size: cython.longlong) -> cython.int:
        """Add tag and length of a value to the record that was begun."""
        self.packed[self.packed_size] = cython.cast(cython.uchar, VALUE_FIELD)
        self.packed_size += 1
        while size > 127:
            self.packed[self.packed_size] = cython.cast(cython.uchar, size & 127 | 128)
            self.packed_size += 1
            size >>= 7
        self.packed[self.packed_size] = cython.cast(cython.uchar, size)
        self.packed_size += 1
        return 0

    def end_leaves(self) -> int:
        """Make a leaf of the records at hand; return the id of the page that comes next."""
        self.finish_leaf()
        return self.next_page

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def begin_record(self, key_size: cython.longlong, value_size: cython.longlong) -> cython.int:
        """Begin a record, in a new leaf if the one at hand has no room for it."""
        size: cython.longlong = HEADER + ELEMENT * (self.count + 1) + self.packed_size + key_size + value_size
        if value_size > MOST_VALUE:
            with cython.gil:
                raise OverflowError("a value of more bytes than bolt allows")
        if self.count and (size > self.page_size or self.count == MOST_ELEMENTS):
            self.finish_leaf()
        if self.packed_size + key_size + value_size > len(self.packed):
            with cython.gil:
                self.packed_view = grown(self.packed_view, self.packed_size + key_size + value_size)
                self.packed = self.packed_view
        if self.count == len(self.key_sizes):
            with cython.gil:
                self.key_sizes, self.value_sizes = more_numbers(self.key_sizes), more_numbers(self.value_sizes)
        self.key_sizes[self.count], self.value_sizes[self.count] = key_size, value_size
        self.count += 1
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def add(self, data: Bytes, at: cython.longlong, size: cython.longlong) -> cython.int:
        """Add bytes to the record that was begun."""
        self.packed[self.packed_size : self.packed_size + size] = data[at : at + size]
        self.packed_size += size
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def finish_leaf(self) -> cython.int:
        """Make a page of the records at hand."""
        if self.count == 0:
            return 0
        pages: cython.longlong = self.pages_for(ELEMENT * self.count + self.packed_size)
        self.need(pages * self.page_size)
        self.put_header(self.used, LEAF, self.count, pages)
        self.put_records(self.used)
        self.put_zeros(self.used + HEADER + ELEMENT * self.count + self.packed_size, self.used + pages * self.page_size)
        self.note_page(self.packed, 0, self.key_sizes[0])
        self.used += pages * self.page_size
        self.next_page += pages
        self.count = self.packed_size = 0
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def put_records(self, start: cython.longlong) -> cython.int:
        """Put elements, keys and values of the records at hand behind a header at `start` of the block."""
        index: cython.longlong
        element: cython.longlong = start + HEADER
        at: cython.longlong = element + ELEMENT * self.count
        self.block[at : at + self.packed_size] = self.packed[: self.packed_size]
        for index in range(self.count):
            self.put32(element, self.flags)
            self.put32(element + 4, at - element)
            self.put32(element + 8, self.key_sizes[index])
            self.put32(element + 12, self.value_sizes[index])
            at += self.key_sizes[index] + self.value_sizes[index]
            element += ELEMENT
        return 0

    def inline(self) -> bytes:
        """Return the tree at hand, which `is_small`, as the image of a leaf without a number."""
        size = HEADER + ELEMENT * self.count + self.packed_size
        self.need(size)
        next_page, self.next_page = self.next_page, 0
        self.put_header(self.used, LEAF, self.count, 1)
        self.next_page = next_page
        self.put_records(self.used)
        return bytes(self.block_view[self.used : self.used + size])

    # --- branches ---

    @cython.cfunc
    @cython.inline
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def pages_for(self, content: cython.longlong) -> cython.longlong:
        """Count the pages that hold a header and so many bytes."""
        return (HEADER + content + self.page_size - 1) // self.page_size

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def note_page(self, data: Bytes, at: cython.longlong, size: cython.longlong) -> cython.int:
        """Note the page that comes next, with its first key."""
        start: cython.longlong = self.key_ends[self.pages]
        self.note_room(size)
        self.keys[start : start + size] = data[at : at + size]
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def note_room(self, size: cython.longlong) -> cython.int:
        """Note the page that comes next, with room for its first key."""
        start: cython.longlong = self.key_ends[self.pages]
        if self.pages + 1 == len(self.key_ends):
            with cython.gil:
                self.ids, self.key_ends = more_numbers(self.ids), more_numbers(self.key_ends)
        if start + size > len(self.keys):
            with cython.gil:
                self.keys_view = grown(self.keys_view, start + size)
                self.keys = self.keys_view
        self.ids[self.pages] = self.next_page
        self.pages += 1
        self.key_ends[self.pages] = start + size
        return 0

    def finish(self) -> int:
        """Make what is left of the tree at hand; return the id of its top page."""
        self.finish_leaf()
        if self.pages == 0:
            self.need(self.page_size)
            self.put_header(self.used, LEAF, 0, 1)
            self.put_zeros(self.used + HEADER, self.used + self.page_size)
            self.used += self.page_size
            return self.allocate(1)
        while self.pages > 1:
            self.make_level()
        return self.ids[0]

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def make_level(self) -> cython.int:
        """Make the branches above the pages of the lowest level, which is theirs then."""
        ids: Numbers = self.ids
        ends: Numbers = self.key_ends
        keys: Marks = self.keys
        pages: cython.longlong = self.pages
        first: cython.longlong = 0
        last: cython.longlong
        size: cython.longlong
        self.ids, self.key_ends = _numbers(1024), _numbers(1024)
        self.keys_view = memoryview(bytearray(1 << 16))
        self.keys = self.keys_view
        self.pages = 0
        while first < pages:
            last, size = first, HEADER
            while last < pages and last - first < MOST_ELEMENTS:
                size += ELEMENT + ends[last + 1] - ends[last]
                # Two children at least, even where long keys make the page overflow.
                if size > self.page_size and last - first >= 2:
                    break
                last += 1
            if pages - last == 1:
                last = last - 1 if last - first > 2 else last + 1
            self.make_branch(ids, ends, keys, first, last)
            first = last
        return 0

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def make_branch(
        self, ids: Numbers, ends: Numbers, keys: Marks, first: cython.longlong, last: cython.longlong
    ) -> cython.int:
        """Make one branch, above the pages from `first` to `last`, not included."""
        count: cython.longlong = last - first
        size: cython.longlong = ends[last] - ends[first]
        pages: cython.longlong = self.pages_for(ELEMENT * count + size)
        self.need(pages * self.page_size)
        element: cython.longlong = self.used + HEADER
        at: cython.longlong = element + ELEMENT * count
        index: cython.longlong
        self.put_header(self.used, BRANCH, count, pages)
        self.block[at : at + size] = keys[ends[first] : ends[last]]
        self.put_zeros(at + size, self.used + pages * self.page_size)
        for index in range(first, last):
            self.put32(element, at - element)
            self.put32(element + 4, ends[index + 1] - ends[index])
            self.put32(element + 8, ids[index])
            self.put32(element + 12, ids[index] >> 32)
            at += ends[index + 1] - ends[index]
            element += ELEMENT
        self.note_page(keys, ends[first], ends[first + 1] - ends[first])
        self.used += pages * self.page_size
        self.next_page += pages
        return 0


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(-1, check=False)
def u32(data: Bytes, at: cython.longlong) -> cython.longlong:
    """Return the number of 32 bits at an offset, little-endian."""
    return data[at] | data[at + 1] << 8 | data[at + 2] << 16 | cython.cast(cython.longlong, data[at + 3]) << 24


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(-1, check=False)
def varint_size(number: cython.longlong) -> cython.longlong:
    """Measure a varint."""
    size: cython.longlong = 1
    while number > 127:
        number >>= 7
        size += 1
    return size


def spans_of(pages: Numbers, used: Bytes, descriptor: int, begin: int, page_size: int, spans: Numbers) -> None:
    """Set how many pages each of some pages spans, in a file whose database begins at an offset, without mapping them.

    `used`: by page, and for the one behind the last, 1 where a page of a tree begins: where the next one does, the span
    is known. What cannot be read is taken for one page.
    """
    index: cython.Py_ssize_t
    page: cython.longlong
    at: cython.longlong
    overflow: cython.longlong
    start: cython.longlong = begin
    size: cython.longlong = page_size
    file: cython.int = descriptor
    room: Marks = memoryview(bytearray(4))
    for index in range(len(pages)):
        page, spans[index] = pages[index], 1
        if used[page + 1]:
            continue
        at, overflow = start + page * size + OVERFLOW, 0
        if cython.compiled:
            with cython.nogil:
                if pread(file, cython.address(room[0]), 4, at) == 4:
                    overflow = u32(room, 0)
        elif len(found := os.pread(file, 4, at)) == 4:
            overflow = int.from_bytes(found, "little")
        while spans[index] <= overflow and not used[page + spans[index]]:
            spans[index] += 1


def grown(view: memoryview, size: int) -> memoryview:
    """Return room for `size` bytes, and as many again, that begins with what is in `view`."""
    larger = memoryview(bytearray(2 * size))
    larger[: len(view)] = view
    return larger


def more_numbers(numbers: Numbers) -> memoryview:
    """Return twice as much room for numbers, that begins with those there are."""
    return memoryview(array("q", bytes(memoryview(numbers)) + bytes(8 * len(numbers))))
