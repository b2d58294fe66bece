# cython: boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True, show_performance_hints=False
"""The records of bucket `key`, a chunk of leaves at a time, and which of them are live. Compiled where possible.

A record's key is a revision, its value a KeyValue message. Messages in the order in which etcd writes them (fields 1 to
6 ascending, each at most once, nothing unknown) are read here; every other one goes through `snaptool.etcd.records`,
which is also the model that the tests compare with.

Source: etcd server/storage/mvcc/revision.go, api/mvccpb/kv.proto (v3.7.1).
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Collection
from copy import copy
from hashlib import blake2b

from snaptool.bolt import Chunk, numbers
from snaptool.etcd.problems import RecordFault, RecordProblem, Report
from snaptool.etcd.records import (
    BadRecord,
    BadRevision,
    Revision,
    decode_key_value,
    decode_revision_key,
    locate,
)

try:
    import cython
except ImportError:
    from snaptool.compiled import cython  # type: ignore[no-redef]

if not cython.compiled:
    Bytes = memoryview
    Marks = memoryview
    Numbers = memoryview

TOMBSTONE = 1
"""The record says that its key was deleted."""
REPEATED_VALUE = 2
"""There are several fields 5, so `records.replace_value` has to write it, not a splice."""
UNREADABLE = 4
"""It is broken, and the Report let it pass; all else about it is then 0."""
UNSEEN = 8
"""Its main revision is 0: servers overlook it."""
TWICE = 16
"""The record before has the same revision."""
UNUSUAL = 32
"""Its message is not in the order in which etcd writes it, and not read yet."""

_ODD = UNREADABLE | UNSEEN | TWICE | UNUSUAL

DELETED = cython.declare(cython.uchar, 1)
BROKEN = cython.declare(cython.uchar, 4)
OVERLOOKED = cython.declare(cython.uchar, 8)
SAME_REVISION = cython.declare(cython.uchar, 16)
UNORDERED = cython.declare(cython.uchar, 32)

KEY = cython.declare(cython.longlong, 1)
CREATE = cython.declare(cython.longlong, 2)
MOD = cython.declare(cython.longlong, 3)
VERSION = cython.declare(cython.longlong, 4)
VALUE = cython.declare(cython.longlong, 5)
LEASE = cython.declare(cython.longlong, 6)
VARINT = cython.declare(cython.longlong, 0)
BYTES = cython.declare(cython.longlong, 2)


class Records:
    """The records of a chunk of leaves. One entry per record in every array; positions are offsets in the file.

    `flags`: TOMBSTONE and the like. `main`, `sub`: the revision. `key_at`, `key_size`: the *user* key, inside the
    stored value. `value_at`, `value_size`: the payload of field 5. `field_at`, `field_size`: the whole of field 5 with
    tag and length; when there is none, size 0 at the place where it belongs. `leaves`: the same records as bolt sees
    them, with positions of stored keys and values. All is good until the next chunk only.
    """

    def __init__(self, view: memoryview, leaves: Chunk) -> None:
        self.view = view
        self.leaves = leaves
        self.room = -1

    def make_room(self) -> None:
        """Have as much room as the leaves have."""
        if self.room != self.leaves.room:
            self.room = self.leaves.room
            self.flags = memoryview(bytearray(self.room))
            self.main, self.sub, self.create, self.mod = (numbers(self.room) for _ in range(4))
            self.version, self.lease, self.key_at, self.key_size = (numbers(self.room) for _ in range(4))
            self.value_at, self.value_size, self.field_at, self.field_size = (numbers(self.room) for _ in range(4))

    def __len__(self) -> int:
        return self.leaves.records

    def kept(self) -> Records:
        """Return a copy of what is in it now, which stays good."""
        kept, leaves, most = copy(self), copy(self.leaves), max(self.leaves.leaves, self.leaves.records) + 1
        for one in (kept, leaves):
            for name, column in vars(one).items():
                if name != "view" and isinstance(column, memoryview):
                    room = memoryview(bytearray(column[:most]))
                    setattr(one, name, room if column.itemsize == 1 else room.cast("q"))
        kept.leaves = leaves
        return kept

    @property
    def first_record(self) -> int:
        """Number of the first record in its bucket."""
        return self.leaves.first_record

    def is_put(self, row: int) -> bool:
        """Is a record readable, and no tombstone?"""
        return not self.flags[row] & (TOMBSTONE | UNREADABLE)

    def revision(self, row: int) -> Revision:
        """Return the revision of a record."""
        return Revision(self.main[row], self.sub[row])

    def user_key(self, row: int) -> bytes:
        """Return the user key of a record."""
        return bytes(self.view[self.key_at[row] : self.key_at[row] + self.key_size[row]])

    def value(self, row: int) -> bytes:
        """Return what is stored under the user key."""
        return bytes(self.view[self.value_at[row] : self.value_at[row] + self.value_size[row]])

    def stored_key(self, row: int) -> bytes:
        """Return the revision key of a record."""
        leaves = self.leaves
        return bytes(self.view[leaves.key_at[row] : leaves.key_at[row] + leaves.key_size[row]])

    def stored_value(self, row: int) -> bytes:
        """Return the KeyValue message of a record."""
        leaves = self.leaves
        return bytes(self.view[leaves.value_at[row] : leaves.value_at[row] + leaves.value_size[row]])

    def beginning(self, head: bytes, tail: bytes = b"") -> list[int]:
        """Return the rows whose user keys begin and end with these bytes, without an overlap, tombstones included."""
        return rows_between(self, head, tail)

    def holding(self, text: bytes) -> list[int]:
        """Return the rows whose user keys have these bytes somewhere, tombstones included."""
        return rows_holding(self, text)

    def settle(self, report: Report) -> None:
        """Tell of what may not be, and read the messages in an unusual order, by the plain codecs."""
        for row in range(len(self)):
            if self.flags[row] & _ODD:
                self._settle(row, report)

    def _settle(self, row: int, report: Report) -> None:
        flags = self.flags[row]
        if flags & UNREADABLE:
            try:
                decode_revision_key(self.stored_key(row))
            except BadRevision as error:
                report(self._problem(row, RecordFault.BAD_REVISION, error.problem))
            return
        if flags & UNSEEN:
            report(self._problem(row, RecordFault.REVISION_ZERO, "etcd does not see records of main revision 0"))
        if flags & TWICE:
            report(self._problem(row, RecordFault.REVISION_TWICE, "the record before has the same revision"))
        if flags & UNUSUAL:
            self.flags[row] ^= UNUSUAL
            self._take(row, report)

    def _take(self, row: int, report: Report) -> None:
        """Read the message of one record by the plain codec."""
        start, stored = self.leaves.value_at[row], self.stored_value(row)
        try:
            one, spans = decode_key_value(stored), locate(stored)
        except BadRecord as error:
            self.flags[row] = UNREADABLE
            for column in (self.create, self.mod, self.version, self.lease):
                column[row] = 0
            for at, size in ((self.key_at, self.key_size), (self.value_at, self.value_size)):
                at[row], size[row] = start, 0
            self.field_at[row], self.field_size[row] = start, 0
            report(self._problem(row, RecordFault.BAD_RECORD, error.problem))
            return
        self.key_at[row], self.key_size[row] = start + spans.key_start, spans.key_size
        self.value_at[row], self.value_size[row] = start + spans.value_start, spans.value_size
        self.field_at[row], self.field_size[row] = start + spans.field_start, spans.field_size
        self.create[row], self.mod[row] = one.create_revision, one.mod_revision
        self.version[row], self.lease[row] = one.version, one.lease
        if spans.values > 1:
            self.flags[row] |= REPEATED_VALUE

    def _problem(self, row: int, fault: RecordFault, problem: str) -> RecordProblem:
        return RecordProblem(
            fault=fault,
            record=self.first_record + row,
            key=self.stored_key(row),
            page=self.leaves.leaf_page[self.leaves.leaf_of(row)],
            problem=problem,
        )


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def signed(word: cython.ulonglong) -> cython.longlong:
    """Read 64 bits as two's complement."""
    if not cython.compiled:
        return word - (word >> 63 << 64)
    return cython.cast(cython.longlong, word)


@cython.final
@cython.cclass
class RecordReader:
    """Reads the records of one bucket `key` in order, a chunk at a time."""

    data: Bytes
    cursor: cython.longlong
    end: cython.longlong
    last_main: cython.longlong
    last_sub: cython.longlong
    # The arrays of the chunk at hand.
    stored_at: Numbers
    stored_size: Numbers
    message_at: Numbers
    message_size: Numbers
    flags: Marks
    main: Numbers
    sub: Numbers
    create: Numbers
    mod: Numbers
    version: Numbers
    lease: Numbers
    key_at: Numbers
    key_size: Numbers
    value_at: Numbers
    value_size: Numbers
    field_at: Numbers
    field_size: Numbers

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.cursor = self.end = 0
        self.last_main = self.last_sub = -1

    def last_revision(self) -> tuple[int, int] | None:
        """Return the revision of the last record so far that has one."""
        return None if self.last_main < 0 else (self.last_main, self.last_sub)

    def read(self, records: Records, report: Report) -> None:
        """Read the records of the leaves. Raises what `report` raises: BadRevision and BadRecord, mostly."""
        if self.read_all(records):
            records.settle(report)

    def read_all(self, records: Records) -> bool:
        """Read them as far as that goes here; whether there are odd ones."""
        records.make_room()
        leaves = records.leaves
        self.stored_at, self.stored_size = leaves.key_at, leaves.key_size
        self.message_at, self.message_size = leaves.value_at, leaves.value_size
        self.flags = records.flags
        self.main, self.sub = records.main, records.sub
        self.create, self.mod, self.version, self.lease = records.create, records.mod, records.version, records.lease
        self.key_at, self.key_size = records.key_at, records.key_size
        self.value_at, self.value_size = records.value_at, records.value_size
        self.field_at, self.field_size = records.field_at, records.field_size
        count: cython.longlong = leaves.records
        row: cython.longlong
        odd: cython.int = 0
        with cython.nogil:
            for row in range(count):
                self.clear(row)
                if self.read_revision(row) and not self.read_message(row):
                    self.flags[row] |= UNORDERED
                odd |= self.flags[row] & (BROKEN | OVERLOOKED | SAME_REVISION | UNORDERED)
        return odd != 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def clear(self, row: cython.longlong) -> cython.int:
        """Everything is 0, and empty at the end of the message, where a field 5 of none belongs."""
        end: cython.longlong = self.message_at[row] + self.message_size[row]
        self.flags[row] = 0
        self.main[row] = self.sub[row] = 0
        self.create[row] = self.mod[row] = self.version[row] = self.lease[row] = 0
        self.key_at[row] = self.value_at[row] = self.field_at[row] = end
        self.key_size[row] = self.value_size[row] = self.field_size[row] = 0
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def read_revision(self, row: cython.longlong) -> cython.int:
        """Read main, '_', sub, and 't' behind a tombstone; 0 if it is no revision."""
        at: cython.longlong = self.stored_at[row]
        size: cython.longlong = self.stored_size[row]
        main: cython.longlong
        sub: cython.longlong
        if size not in (17, 18) or self.data[at + 8] != 0x5F or (size == 18 and self.data[at + 17] != 0x74):
            self.flags[row] = BROKEN
            return 0
        main, sub = self.number(at), self.number(at + 9)
        if main < 0 or sub < 0:
            self.flags[row] = BROKEN
            return 0
        if size == 18:
            self.flags[row] |= DELETED
        if main == 0:
            self.flags[row] |= OVERLOOKED
        if main == self.last_main and sub == self.last_sub:
            self.flags[row] |= SAME_REVISION
        self.main[row] = self.last_main = main
        self.sub[row] = self.last_sub = sub
        return 1

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-2, check=False)
    def number(self, at: cython.longlong) -> cython.longlong:
        """Eight bytes, most significant first; -1 beyond 63 bits."""
        if self.data[at] > 127:
            return -1
        result: cython.longlong = 0
        offset: cython.longlong
        for offset in range(8):
            result = result << 8 | self.data[at + offset]
        return result

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def read_message(self, row: cython.longlong) -> cython.int:
        """Read a KeyValue whose fields ascend; 0 for any other message."""
        last: cython.longlong = 0
        field: cython.longlong
        kind: cython.longlong
        start: cython.longlong
        number: cython.longlong
        self.cursor = self.message_at[row]
        self.end = self.cursor + self.message_size[row]
        while self.cursor < self.end:
            start = self.cursor
            field, kind = self.data[start] >> 3, self.data[start] & 7
            self.cursor += 1
            if field <= last or field > LEASE or kind != (BYTES if field in (KEY, VALUE) else VARINT):
                return 0
            number = self.varint()
            if kind == BYTES:
                if number < 0 or number > self.end - self.cursor:
                    return 0
                if field == KEY:
                    self.key_at[row], self.key_size[row] = self.cursor, number
                else:
                    self.value_at[row], self.value_size[row] = self.cursor, number
                    self.field_at[row], self.field_size[row] = start, self.cursor + number - start
                self.cursor += number
            elif field == CREATE:
                self.create[row] = number
            elif field == MOD:
                self.mod[row] = number
            elif field == VERSION:
                self.version[row] = number
            else:
                self.lease[row] = number
                if last < VALUE:
                    self.field_at[row] = self.value_at[row] = start
            last = field
        return self.cursor == self.end

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=True)
    def varint(self) -> cython.longlong:
        """Read a varint at the cursor: 64 bits, two's complement. Moves that beyond the end if there is none."""
        result: cython.ulonglong = 0
        byte: cython.ulonglong
        shift: cython.int = 0
        while self.cursor < self.end and shift < 64:
            byte = self.data[self.cursor]
            self.cursor += 1
            if shift == 63 and byte > 1:
                break
            result |= (byte & 127) << shift
            if byte < 128:
                return signed(result)
            shift += 7
        self.cursor = self.end + 1
        return 0


def rows_among(records: Records, keys: Collection[bytes]) -> list[int]:
    """Return the rows whose user keys are among `keys`, which finds them by hash."""
    view = records.view
    key_at: Numbers = records.key_at
    key_size: Numbers = records.key_size
    count: cython.longlong = len(records)
    row: cython.longlong
    found: list[int] = []
    for row in range(count):
        if bytes(view[key_at[row] : key_at[row] + key_size[row]]) in keys:
            found.append(row)  # noqa: PERF401 - a comprehension has no typed variable
    return found


def rows_between(records: Records, head: bytes, tail: bytes) -> list[int]:
    """See `Records.beginning`."""
    data: Bytes = records.view
    first: Bytes = memoryview(head)
    last: Bytes = memoryview(tail)
    key_at: Numbers = records.key_at
    key_size: Numbers = records.key_size
    count: cython.longlong = len(records)
    row: cython.longlong
    at: cython.longlong
    size: cython.longlong
    found: list[int] = []
    for row in range(count):
        at, size = key_at[row], key_size[row]
        if (
            size >= len(first) + len(last)
            and stands_at(data, at, first)
            and stands_at(data, at + size - len(last), last)
        ):
            found.append(row)
    return found


def rows_holding(records: Records, text: bytes) -> list[int]:
    """See `Records.holding`."""
    data: Bytes = records.view
    wanted: Bytes = memoryview(text)
    key_at: Numbers = records.key_at
    key_size: Numbers = records.key_size
    count: cython.longlong = len(records)
    row: cython.longlong
    at: cython.longlong
    found: list[int] = []
    for row in range(count):
        for at in range(key_at[row], key_at[row] + key_size[row] - len(wanted) + 1):
            if stands_at(data, at, wanted):
                found.append(row)
                break
    return found


@cython.cfunc
@cython.nogil
@cython.exceptval(-1, check=False)
def stands_at(data: Bytes, at: cython.longlong, text: Bytes) -> cython.int:
    """Do these bytes stand there?"""
    offset: cython.Py_ssize_t
    for offset in range(len(text)):
        if data[at + offset] != text[offset]:
            return 0
    return 1


# --- which record is the last of its key ----------------------------------------------------------------------------

WORD = cython.declare(cython.ulonglong, 0xFFFF_FFFF_FFFF_FFFF)
SIP_0 = cython.declare(cython.ulonglong, 0x736F6D6570736575)
SIP_1 = cython.declare(cython.ulonglong, 0x646F72616E646F6D)
SIP_2 = cython.declare(cython.ulonglong, 0x6C7967656E657261)
SIP_3 = cython.declare(cython.ulonglong, 0x7465646279746573)
FIRST_SLOTS = 1 << 12
MANY_SLOTS = 1 << 20
"""From so many on there are half as many more each time, and not twice as many: memory counts for more than time."""


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def turn(word: cython.ulonglong, bits: cython.int) -> cython.ulonglong:
    """Rotate to the left."""
    return (word << bits | word >> (64 - bits)) & WORD


@cython.final
@cython.cclass
class LiveIndex:
    """Which record is the last of its user key: a table from the key's fingerprint to the record's number.

    Takes the records of a bucket in order. Those that etcd does not see (unreadable ones, those of main revision 0) are
    the last of no key. The fingerprint is SipHash-2-4 with 128 bits under a key of this process alone: who chooses the
    user keys cannot make two collide, and by chance ten million of them do with a probability of 10^-25.
    Source: Aumasson, Bernstein, SipHash (2012), and its 128-bit form in the authors' reference code.
    """

    data: Bytes
    view: memoryview
    secret: bytes
    secret_0: cython.ulonglong
    secret_1: cython.ulonglong
    found: bytearray
    # Three numbers a slot: record number + 1 (0: free), and the fingerprint.
    store: array[int]
    slots: Numbers
    size: cython.longlong
    used: cython.longlong
    looked_at: cython.longlong
    # The state of the hash; the first two are its result.
    v0: cython.ulonglong
    v1: cython.ulonglong
    v2: cython.ulonglong
    v3: cython.ulonglong

    def __init__(self, data: memoryview) -> None:
        self.data = self.view = data
        self.secret = os.urandom(16)
        self.secret_0 = int.from_bytes(self.secret[:8], "little")
        self.secret_1 = int.from_bytes(self.secret[8:], "little")
        self.found = bytearray()
        self.used = self.looked_at = 0
        self.v0 = self.v1 = self.v2 = self.v3 = 0
        self.size = FIRST_SLOTS
        self.store = array("q", bytes(24 * FIRST_SLOTS))
        self.slots = memoryview(self.store)

    def live(self) -> bytearray:
        """Return a byte for each record by number: 1 for the values that a client gets."""
        return self.found

    def add(self, records: Records, count: int) -> None:
        """Take the first `count` records of a chunk, which follow those taken before."""
        flags: Marks = records.flags
        key_at: Numbers = records.key_at
        key_size: Numbers = records.key_size
        base: cython.longlong = len(self.found)
        rows: cython.longlong = count
        row: cython.longlong
        slot: cython.longlong
        low: Numbers = numbers(count)
        high: Numbers = numbers(count)
        self.found += bytes(count)
        live: Marks = memoryview(self.found)
        while 4 * (self.used + rows) > 3 * self.size:
            self.grow()
        with cython.nogil:
            for row in range(rows):
                self.fingerprint(key_at[row], key_size[row])
                low[row] = cython.cast(cython.longlong, self.v0 >> 1)
                high[row] = cython.cast(cython.longlong, self.v1 >> 1)
            # The slots lie all over the memory. Here many are waited for at once, below each would be by itself.
            for row in range(rows):
                self.looked_at ^= self.slots[self.home(low[row])]
            for row in range(rows):
                if flags[row] & (BROKEN | OVERLOOKED):
                    continue
                slot = self.place(low[row], high[row])
                if self.slots[slot]:
                    live[self.slots[slot] - 1] = 0
                else:
                    self.used += 1
                self.slots[slot] = base + row + 1
                live[base + row] = 0 if flags[row] & DELETED else 1

    def grow(self) -> None:
        """Have more slots: the same memory grows, so that there are never two tables at once."""
        old: cython.longlong = self.size
        index: cython.longlong
        slot: cython.longlong
        number: cython.longlong
        low: cython.longlong
        high: cython.longlong
        self.size = old + (old if old < MANY_SLOTS else old // 2)
        self.slots = numbers(0)  # an array that somebody looks at does not grow
        self.store.frombytes(bytes(24 * (self.size - old)))
        self.slots = memoryview(self.store)
        with cython.nogil:
            for index in range(0, 3 * old, 3):
                self.slots[index] = -self.slots[index]  # not yet where it belongs
            for index in range(0, 3 * old, 3):
                if self.slots[index] >= 0:
                    continue
                number, low, high = -self.slots[index], self.slots[index + 1], self.slots[index + 2]
                self.slots[index] = 0
                while number:
                    slot = self.home(low)
                    while self.slots[slot] > 0:
                        slot = slot + 3 if slot + 3 < 3 * self.size else 0
                    # What is in the way goes on to where it belongs.
                    number, self.slots[slot] = -self.slots[slot], number
                    low, self.slots[slot + 1] = self.slots[slot + 1], low
                    high, self.slots[slot + 2] = self.slots[slot + 2], high

    @cython.cfunc
    @cython.inline
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def home(self, low: cython.longlong) -> cython.longlong:
        """Return the first slot in which a fingerprint may be."""
        return 3 * ((low >> 31) * self.size >> 32)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def place(self, low: cython.longlong, high: cython.longlong) -> cython.longlong:
        """Find the slot of a fingerprint; takes a free one for it where there is none."""
        slot: cython.longlong = self.home(low)
        while self.slots[slot]:
            if self.slots[slot + 1] == low and self.slots[slot + 2] == high:
                return slot
            slot += 3
            if slot == 3 * self.size:
                slot = 0
        self.slots[slot + 1], self.slots[slot + 2] = low, high
        return slot

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def fingerprint(self, at: cython.longlong, size: cython.longlong) -> cython.int:
        """Hash a user key; the result is v0 and v1."""
        if not cython.compiled:
            return self.fingerprint_by_python(at, size)
        word: cython.ulonglong
        second: cython.ulonglong
        offset: cython.longlong = 0
        inside: cython.longlong
        self.v0 = self.secret_0 ^ SIP_0
        self.v1 = self.secret_1 ^ SIP_1 ^ 0xEE
        self.v2 = self.secret_0 ^ SIP_2
        self.v3 = self.secret_1 ^ SIP_3
        while offset <= size:
            # Eight bytes; the last word has what is left, and the size in its highest byte.
            word = 0 if offset + 8 <= size else cython.cast(cython.ulonglong, size & 255) << 56
            for inside in range(min(8, size - offset)):
                word |= cython.cast(cython.ulonglong, self.data[at + offset + inside]) << (8 * inside)
            self.v3 ^= word
            self.mix(2)
            self.v0 ^= word
            offset += 8
        self.v2 ^= 0xEE
        self.mix(4)
        word = self.v0 ^ self.v1 ^ self.v2 ^ self.v3
        self.v1 ^= 0xDD
        self.mix(4)
        second = self.v0 ^ self.v1 ^ self.v2 ^ self.v3
        self.v0, self.v1 = word, second
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def mix(self, rounds: cython.int) -> cython.int:
        """Do so many SipRounds."""
        v0: cython.ulonglong = self.v0
        v1: cython.ulonglong = self.v1
        v2: cython.ulonglong = self.v2
        v3: cython.ulonglong = self.v3
        for _ in range(rounds):
            v0 = (v0 + v1) & WORD
            v2 = (v2 + v3) & WORD
            v1, v3 = turn(v1, 13) ^ v0, turn(v3, 16) ^ v2
            v0 = turn(v0, 32)
            v2 = (v2 + v1) & WORD
            v0 = (v0 + v3) & WORD
            v1, v3 = turn(v1, 17) ^ v2, turn(v3, 21) ^ v0
            v2 = turn(v2, 32)
        self.v0, self.v1, self.v2, self.v3 = v0, v1, v2, v3
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def fingerprint_by_python(self, at: cython.longlong, size: cython.longlong) -> cython.int:
        """Hash a user key with what Python has: any keyed hash does."""
        with cython.gil:
            digest = blake2b(self.view[at : at + size], digest_size=16, key=self.secret).digest()
            self.v0 = int.from_bytes(digest[:8], "little")
            self.v1 = int.from_bytes(digest[8:], "little")
        return 0
