"""The records of bucket `key`, a hundred thousand at a time, as arrays.

No Python object is made per record. Eight bytes at any offset are one array gather, so a revision key is two gathers
and a field of a KeyValue one: its tag and its varint stand in the same eight bytes. Only messages in the order in
which etcd writes them (fields 1 to 6 ascending, each at most once, nothing unknown) are read that way; every other
one goes through `snaptool.etcd.records`, which is also the model that the tests compare with.

What may not be is told to a `Report`; the default one raises. Knows LeafChunks and records; knows no Kubernetes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snaptool import wire
from snaptool.bolt import LeafChunk
from snaptool.etcd.problems import RecordFault, RecordProblem, Report, refuse
from snaptool.etcd.records import (
    CREATE_REVISION,
    KEY,
    LEASE,
    MAX_REVISION,
    MOD_REVISION,
    REVISION_KEY_SIZE,
    SEPARATOR,
    TOMBSTONE_KEY_SIZE,
    TOMBSTONE_MARK,
    VALUE,
    VERSION,
    BadRecord,
    BadRevision,
    Revision,
    decode_key_value,
    decode_revision_key,
    locate,
)

Positions = NDArray[np.int64]
Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordChunk:
    """The records of a run of leaves. One entry per record; positions are offsets in the file, sizes are in bytes.

    `leaves`: the same records as bolt sees them, with positions of stored keys and values. `key_pos`, `key_len`: the
    *user* key, inside the stored value. `value_pos`, `value_len`: the payload of field 5. `field_pos`, `field_len`: the
    whole of field 5 with tag and length; when there is none, length 0 at the place where it belongs.
    `repeated_value`: there are several fields 5, so `records.replace_value` has to write it, not a splice.
    `readable`: False where the record is broken and the Report let it pass; all else about it is then 0.
    """

    leaves: LeafChunk
    main: Positions
    sub: Positions
    tombstone: NDArray[np.bool_]
    readable: NDArray[np.bool_]
    key_pos: Positions
    key_len: Positions
    create: Positions
    mod: Positions
    version: Positions
    lease: Positions
    value_pos: Positions
    value_len: Positions
    field_pos: Positions
    field_len: Positions
    repeated_value: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.main)

    @property
    def buffer(self) -> NDArray[np.uint8]:
        """The bytes of the file."""
        return self.leaves.buffer

    @property
    def first_record(self) -> int:
        """Number of the first record in its bucket."""
        return self.leaves.first_record

    @property
    def leaf_page(self) -> Positions:
        """Page id of each leaf."""
        return self.leaves.leaf_page

    @property
    def first_leaf(self) -> int:
        """Number of the first leaf in its bucket."""
        return self.leaves.first_leaf

    @property
    def total_leaves(self) -> int:
        """Leaves in the bucket."""
        return self.leaves.total_leaves

    def last_revision(self) -> Revision | None:
        """Return the revision of the last readable record."""
        (rows,) = np.nonzero(self.readable)
        return Revision(int(self.main[rows[-1]]), int(self.sub[rows[-1]])) if len(rows) else None

    def user_key(self, row: int) -> bytes:
        """Return the user key of a record of the chunk."""
        return self.buffer[self.key_pos[row] : self.key_pos[row] + self.key_len[row]].tobytes()

    def stored_key(self, row: int) -> bytes:
        """Return the revision key of a record of the chunk."""
        start = self.leaves.key_pos[row]
        return self.buffer[start : start + self.leaves.key_len[row]].tobytes()

    def stored_value(self, row: int) -> bytes:
        """Return the KeyValue message of a record of the chunk."""
        start = self.leaves.value_pos[row]
        return self.buffer[start : start + self.leaves.value_len[row]].tobytes()


@dataclass(frozen=True, slots=True)
class RevisionChunk:
    """The revision keys alone, decoded. `readable`: as in RecordChunk."""

    main: Positions
    sub: Positions
    tombstone: NDArray[np.bool_]
    readable: NDArray[np.bool_]


def scan_revisions(leaves: LeafChunk, previous: Revision | None = None, report: Report = refuse) -> RevisionChunk:
    """Decode the revision keys of a chunk. `previous`: the last revision before it, to see one that stands twice.

    Raises what `report` raises: BadRevision, unless told otherwise.
    """
    size = leaves.key_len
    windows = _Windows(leaves.buffer)
    main = windows.words(leaves.key_pos).byteswap()
    sub = windows.words(leaves.key_pos + 9).byteswap()
    separator = windows.bytes(leaves.key_pos + 8)
    tombstone = size == TOMBSTONE_KEY_SIZE
    readable = tombstone | (size == REVISION_KEY_SIZE)
    readable &= (separator == SEPARATOR) & ((main | sub) <= np.uint64(MAX_REVISION))
    (rows,) = np.nonzero(tombstone)
    readable[rows] &= windows.bytes(leaves.key_pos[rows] + TOMBSTONE_KEY_SIZE - 1) == TOMBSTONE_MARK
    for row in np.nonzero(~readable)[0].tolist():
        _report_revision(leaves, row, report)
    main[~readable] = 0
    sub[~readable] = 0
    found = RevisionChunk(main.astype(np.int64), sub.astype(np.int64), tombstone & readable, readable)
    _report_places(leaves, found, previous, report)
    return found


def _report_revision(leaves: LeafChunk, row: int, report: Report) -> None:
    key = _stored_key(leaves, row)
    try:
        decode_revision_key(key)
    except BadRevision as error:
        report(_problem(leaves, row, RecordFault.BAD_REVISION, error.problem))


def _report_places(leaves: LeafChunk, found: RevisionChunk, previous: Revision | None, report: Report) -> None:
    for row in np.nonzero(found.readable & (found.main == 0))[0].tolist():
        report(_problem(leaves, row, RecordFault.REVISION_ZERO, "etcd does not see records of main revision 0"))
    twice = np.zeros(len(found.main), dtype=np.bool_)
    twice[1:] = (found.main[1:] == found.main[:-1]) & (found.sub[1:] == found.sub[:-1])
    twice[1:] &= found.readable[1:] & found.readable[:-1]
    if previous is not None and len(twice) and found.readable[0]:
        twice[0] = previous == (found.main[0], found.sub[0])
    for row in np.nonzero(twice)[0].tolist():
        report(_problem(leaves, row, RecordFault.REVISION_TWICE, "the record before has the same revision"))


def scan_records(leaves: LeafChunk, previous: Revision | None = None, report: Report = refuse) -> RecordChunk:
    """Decode the records of a chunk. `previous`: the last revision before it.

    Raises what `report` raises: BadRevision and BadRecord, unless told otherwise.
    """
    revisions = scan_revisions(leaves, previous, report)
    messages = _Messages(leaves)
    readable = revisions.readable.copy()
    for row in np.nonzero(readable & ~messages.canonical)[0].tolist():
        readable[row] = messages.take(row, report)
    messages.clear(np.nonzero(~readable)[0])
    return RecordChunk(
        leaves=leaves,
        main=revisions.main,
        sub=revisions.sub,
        tombstone=revisions.tombstone,
        readable=readable,
        key_pos=messages.key_pos,
        key_len=messages.key_len,
        create=messages.create,
        mod=messages.mod,
        version=messages.version,
        lease=messages.lease,
        value_pos=messages.value_pos,
        value_len=messages.value_len,
        field_pos=messages.field_pos,
        field_len=messages.field_len,
        repeated_value=messages.repeated_value,
    )


class _Messages:
    """The KeyValue messages of a chunk: read at once where they are canonical, one by one where told to."""

    def __init__(self, leaves: LeafChunk) -> None:
        self._leaves = leaves
        self._windows = _Windows(leaves.buffer)
        self._cursor = leaves.value_pos.copy()
        self._end = leaves.value_pos + leaves.value_len
        self.key_len = self._length(KEY)
        self.key_pos = self._payload(self.key_len)
        self.create = self._number(CREATE_REVISION)
        self.mod = self._number(MOD_REVISION)
        self.version = self._number(VERSION)
        self.field_pos = self._cursor.copy()
        self.value_len = self._length(VALUE)
        self.value_pos = self._payload(self.value_len)
        self.field_len = self._cursor - self.field_pos
        self.lease = self._number(LEASE)
        self.canonical = self._cursor == self._end
        self.repeated_value = np.zeros(len(leaves), dtype=np.bool_)

    def _length(self, field: int) -> Positions:
        # Lengths beyond any file are cut, so that sums with them stay numbers; they lead past the end all the same.
        return np.minimum(self._varint(field << 3 | wire.BYTES), np.uint64(1 << 40)).view(np.int64)

    def _payload(self, length: Positions) -> Positions:
        start = self._cursor.copy()
        self._cursor += length
        return start

    def _number(self, field: int) -> Positions:
        return self._varint(field << 3 | wire.VARINT).view(np.int64)

    def _varint(self, tag: int) -> Words:
        """Read tag and varint at the cursors that have this tag and move those; 0 for the others."""
        here = self._cursor < self._end
        if not here.any():
            return np.zeros(len(here), dtype=np.uint64)
        word = self._windows.words(self._cursor)
        here &= (word & np.uint64(0xFF)) == tag
        value, size = _short_varints(word >> np.uint64(8))
        (rows,) = np.nonzero(here & (size > 7))
        if len(rows):
            value[rows], size[rows] = _long_varints(self._windows, self._cursor[rows] + 1)
        value *= here
        size += 1
        size *= here
        self._cursor += size
        return value

    def take(self, row: int, report: Report) -> bool:
        """Read the message of one record by the plain codec; answer whether it is one."""
        leaves = self._leaves
        start = int(leaves.value_pos[row])
        stored = leaves.buffer[start : start + int(leaves.value_len[row])].tobytes()
        try:
            key_value, spans = decode_key_value(stored), locate(stored)
        except BadRecord as error:
            report(_problem(leaves, row, RecordFault.BAD_RECORD, error.problem))
            return False
        self.key_pos[row], self.key_len[row] = start + spans.key_start, spans.key_size
        self.value_pos[row], self.value_len[row] = start + spans.value_start, spans.value_size
        self.field_pos[row], self.field_len[row] = start + spans.field_start, spans.field_size
        self.create[row], self.mod[row] = key_value.create_revision, key_value.mod_revision
        self.version[row], self.lease[row] = key_value.version, key_value.lease
        self.repeated_value[row] = spans.values > 1
        return True

    def clear(self, rows: Positions) -> None:
        """Forget what was read of records that are none."""
        if not len(rows):
            return
        for numbers in (self.key_len, self.create, self.mod, self.version, self.lease, self.value_len, self.field_len):
            numbers[rows] = 0
        for positions in (self.key_pos, self.value_pos, self.field_pos):
            positions[rows] = self._leaves.value_pos[rows]


def _problem(leaves: LeafChunk, row: int, fault: RecordFault, problem: str) -> RecordProblem:
    leaf = int(np.searchsorted(leaves.leaf_start, row, side="right")) - 1
    return RecordProblem(
        fault=fault,
        record=leaves.first_record + row,
        key=_stored_key(leaves, row),
        page=int(leaves.leaf_page[leaf]),
        problem=problem,
    )


def _stored_key(leaves: LeafChunk, row: int) -> bytes:
    return leaves.buffer[leaves.key_pos[row] : leaves.key_pos[row] + leaves.key_len[row]].tobytes()


# --- eight bytes at any offset --------------------------------------------------------------------------------------


class _Windows:
    """Gathers eight bytes, little-endian, from any offset of a buffer. Bytes behind the buffer's end read as zero."""

    def __init__(self, buffer: NDArray[np.uint8]) -> None:
        if len(buffer) < 8:
            buffer = np.concatenate((buffer, np.zeros(8, dtype=np.uint8)))
        self._bytes = buffer
        # Each entry overlaps the next by seven bytes. Indexing it gathers; `take` would copy the whole view first.
        self._windows = np.ndarray((len(buffer) - 7,), dtype="<u8", buffer=buffer, strides=(1,))

    def words(self, positions: Positions) -> Words:
        """Gather a word at each position."""
        last = len(self._windows) - 1
        if not len(positions) or int(positions.max()) <= last:
            return self._windows[positions]
        inside = np.minimum(positions, last)
        beyond = np.minimum(positions - inside, 8).astype(np.uint64)
        words = self._windows[inside] >> (np.minimum(beyond, np.uint64(7)) * np.uint64(8))
        words[beyond > 7] = 0
        return words

    def bytes(self, positions: Positions) -> NDArray[np.uint8]:
        """Gather a byte at each position."""
        return self._bytes[np.minimum(positions, len(self._bytes) - 1)]


def _short_varints(word: Words) -> tuple[Words, Positions]:
    """Decode the varints that begin words; return values and sizes in bytes, a size beyond 8 for longer ones."""
    stop = ~word & np.uint64(0x8080808080808080)
    stop &= ~stop + np.uint64(1)  # the lowest bit that is set: the top bit of the varint's last byte
    # As a float, a power of two shows its exponent; there is no portable count of trailing zeros before numpy 2.
    size = (stop.astype(np.float64).view(np.int64) >> 52) - 1023 + 1
    size >>= 3
    size[stop == 0] = 9
    return _pack_groups(word & (stop - np.uint64(1))), size


def _long_varints(windows: _Windows, positions: Positions) -> tuple[Words, Positions]:
    """Decode varints of up to ten bytes; a size beyond any message for those that do not fit 64 bits."""
    word, rest = windows.words(positions), windows.words(positions + 8)
    value, size = _short_varints(word)
    ninth, tenth = rest & np.uint64(0xFF), (rest >> np.uint64(8)) & np.uint64(0xFF)
    is_long = size == 9
    value[is_long] |= (ninth[is_long] & np.uint64(0x7F)) << np.uint64(56)
    longest = is_long & (ninth >= 0x80)
    value[longest] |= tenth[longest] << np.uint64(63)
    size[longest] = np.where(tenth[longest] > 1, 1 << 40, 10)
    return value, size


def _pack_groups(word: Words) -> Words:
    """Join the low seven bits of each byte: pairs, then pairs of pairs, then halves."""
    word = word & np.uint64(0x7F7F7F7F7F7F7F7F)
    word = (word & np.uint64(0x007F007F007F007F)) | ((word & np.uint64(0x7F007F007F007F00)) >> np.uint64(1))
    word = (word & np.uint64(0x00003FFF00003FFF)) | ((word & np.uint64(0x3FFF00003FFF0000)) >> np.uint64(2))
    return (word & np.uint64(0x000000000FFFFFFF)) | ((word & np.uint64(0x0FFFFFFF00000000)) >> np.uint64(4))


_LONG = 1024
"""Strings beyond this many bytes are taken one by one: keys are shorter, and one huge one must not mean many rounds."""

_SECRET = os.urandom(32)
_FIRST = np.uint64(int.from_bytes(_SECRET[:8], "little") | 1)
_SECOND = np.uint64(int.from_bytes(_SECRET[8:16], "little") | 1)


def hash_spans(buffer: NDArray[np.uint8], starts: Positions, lengths: Positions) -> Words:
    """Hash byte strings of `buffer` to 64 bits each; every byte and the length count.

    The hash is of this process alone: it is keyed with random numbers, so that who chooses the strings cannot choose
    two that collide. That they never do by chance is no more certain than with any hash of 64 bits.
    """
    windows = _Windows(buffer)
    hashes = lengths.astype(np.uint64) * _FIRST
    (long_rows,) = np.nonzero(lengths > _LONG)
    for row in long_rows.tolist():
        digest = hashlib.blake2b(
            buffer[starts[row] : starts[row] + lengths[row]].data, digest_size=8, key=_SECRET
        ).digest()
        hashes[row] ^= np.uint64(int.from_bytes(digest, "little"))
    rows, at, left = np.arange(len(starts)), starts, np.where(lengths > _LONG, 0, lengths)
    while True:
        more = left > 0
        if not more.all():
            rows, at, left = rows[more], at[more], left[more]
        if not len(rows):
            break
        word = windows.words(at)
        unused = np.maximum(8 - left, 0)
        if unused.any():
            shift = (unused * 8).astype(np.uint64)
            word = (word << shift) >> shift
        # Twice: a difference in the top bit alone comes through one multiplication as it was, whatever the factor is.
        mixed = (hashes[rows] ^ word) * _FIRST
        mixed ^= mixed >> np.uint64(32)
        hashes[rows] = mixed * _SECOND
        at, left = at + 8, left - 8
    return hashes ^ (hashes >> np.uint64(32))


def find_byte(buffer: NDArray[np.uint8], starts: Positions, lengths: Positions, byte: int) -> Positions:
    """Measure how far it is, in byte strings of `buffer`, to the first `byte`; the whole length where there is none.

    The zero byte of a word is found by arithmetic on all eight bytes at once: of the bytes that turn out to be set, the
    lowest is right, and those above it may not be.
    """
    windows = _Windows(buffer)
    pattern, low = np.uint64(0x0101010101010101 * byte), np.uint64(0x0101010101010101)
    found, rows, offset = lengths.copy(), np.arange(len(starts)), 0
    while True:
        more = lengths[rows] > offset
        rows = rows if more.all() else rows[more]
        if not len(rows):
            return found
        word = windows.words(starts[rows] + offset) ^ pattern
        zeros = (word - low) & ~word & np.uint64(0x8080808080808080)
        zeros &= ~zeros + np.uint64(1)
        here = zeros != 0
        # As a float, a power of two shows its exponent.
        distance = offset + (((zeros[here].astype(np.float64).view(np.int64) >> 52) - 1023) >> 3)
        found[rows[here]] = np.minimum(distance, lengths[rows[here]])
        rows, offset = rows[~here], offset + 8


def same_spans(buffer: NDArray[np.uint8], first: Positions, second: Positions, lengths: Positions) -> NDArray[np.bool_]:
    """Which byte strings at `first` equal those of the same length at `second`."""
    windows = _Windows(buffer)
    same = np.ones(len(first), dtype=np.bool_)
    (long_rows,) = np.nonzero(lengths > _LONG)
    for row in long_rows.tolist():
        one, other, length = int(first[row]), int(second[row]), int(lengths[row])
        same[row] = buffer.data[one : one + length] == buffer.data[other : other + length]
    (rows,) = np.nonzero(lengths <= _LONG)
    offset = 0
    while True:
        rows = rows[lengths[rows] > offset]
        if not len(rows):
            return same
        shift = (np.maximum(8 - (lengths[rows] - offset), 0) * 8).astype(np.uint64)
        different = (windows.words(first[rows] + offset) ^ windows.words(second[rows] + offset)) << shift != 0
        same[rows[different]] = False
        rows = rows[~different]
        offset += 8
