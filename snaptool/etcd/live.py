"""Which record is the last of its user key, for millions of records in bounded memory.

Per record three numbers are kept: a hash of the user key, where the key stands and how long it is, packed into one
word, and whether it is a tombstone: 17 bytes. Records with equal hashes are sorted together, part by part, and then
compared byte by byte, so that neither chance nor a crafted file can join two keys.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from snaptool.bolt import PageMap, blocks
from snaptool.etcd.scan import Positions, RecordChunk, hash_spans

_LENGTH_BITS = 20
_LENGTH_MASK = (1 << _LENGTH_BITS) - 1
_PART_BITS = 19  # half a million records sorted at a time: 20 MB of work space

_COMPARED_WORDS = 1 << 21  # of keys that are copied out of the file at a time to be compared
_STRETCH = 16 << 20  # bytes of the file that may be in memory while they are
_LONG = 1024  # keys of more bytes are compared one by one, so that a huge one does not make room for itself in each row

_ABSENT, _PUT, _TOMBSTONE = 0, 1, 2


class LiveIndex:
    """Collects the records of a bucket, in order, and then tells which of them are the last of their user key.

    `pages`: those of the file; `records`: how many there are at most. Records that etcd does not see (unreadable
    ones, those of main revision 0) are the last of no key.
    """

    def __init__(self, pages: PageMap, records: int) -> None:
        self._pages = pages
        self._hash = np.zeros(records, dtype=np.uint64)
        self._span = np.zeros(records, dtype=np.uint64)
        self._kind = np.zeros(records, dtype=np.uint8)
        self._long_keys: dict[int, int] = {}

    def add(self, chunk: RecordChunk, count: int | None = None) -> None:
        """Take the records of a chunk, or its first `count` ones."""
        count = len(chunk) if count is None else count
        into = slice(chunk.first_record, chunk.first_record + count)
        key_pos, key_len = chunk.key_pos[:count], chunk.key_len[:count]
        self._hash[into] = hash_spans(chunk.buffer, key_pos, key_len)
        self._span[into] = (key_pos << _LENGTH_BITS) | np.minimum(key_len, _LENGTH_MASK)
        seen = chunk.readable[:count] & (chunk.main[:count] > 0)
        self._kind[into] = np.where(chunk.tombstone[:count], _TOMBSTONE, _PUT) * seen
        for row in np.nonzero(key_len >= _LENGTH_MASK)[0].tolist():
            self._long_keys[chunk.first_record + row] = int(key_len[row])

    def live(self) -> NDArray[np.bool_]:
        """Which records are the last of their key and no tombstone: the values that a client gets."""
        live: NDArray[np.bool_] = self.latest() & (self._kind == _PUT)
        return live

    def latest(self) -> NDArray[np.bool_]:
        """Which records are the last of their key, be it a tombstone."""
        latest = np.zeros(len(self._hash), dtype=np.bool_)
        bits = max(len(self._hash) >> _PART_BITS, 1).bit_length() - 1
        for part in range(1 << bits):
            found = [self._of_part(part, bits, start) for start in range(0, len(latest), 1 << _PART_BITS)]
            rows = np.concatenate([np.empty(0, dtype=np.int64), *found])
            self._mark_latest(rows[np.argsort(self._hash[rows], kind="stable")], latest)
        return latest

    def _of_part(self, part: int, bits: int, start: int) -> Positions:
        """Number the records from `start` on, a part's worth of them, whose hashes begin with the `bits` of `part`."""
        some = slice(start, start + (1 << _PART_BITS))
        chosen = self._kind[some] != _ABSENT
        if bits:
            chosen &= self._hash[some] >> np.uint64(64 - bits) == part
        return start + np.nonzero(chosen)[0]

    def _mark_latest(self, order: Positions, latest: NDArray[np.bool_]) -> None:
        """Mark the last records of each key among `order`: records by hash, and by number where hashes are equal."""
        hashes = self._hash[order]
        joined = np.zeros(len(order), dtype=np.bool_)
        joined[:-1] = hashes[1:] == hashes[:-1]
        (at,) = np.nonzero(joined)
        first, second = order[at], order[at + 1]
        lengths = self._lengths(first)
        different = lengths != self._lengths(second)
        for row in np.nonzero(~different & (lengths > _LONG))[0].tolist():
            one, other = self._key(first[row]), self._key(second[row])
            different[row] = one != other
        (rows,) = np.nonzero(~different & (lengths <= _LONG))
        width = -(-int(lengths[rows].max(initial=0)) // 8)
        for block in blocks((np.arange(1, len(rows) + 1), max(_COMPARED_WORDS // max(width, 1), 1))):
            some = rows[block]
            unequal = self._words(first[some], width) ^ self._words(second[some], width)
            # What stands behind a key does not count: whole words by a mask, bytes of the last one by a shift.
            left = lengths[some][:, None] - 8 * np.arange(width)
            unequal >>= (8 * np.clip(8 - left, 0, 7)).astype(np.uint64)
            different[some] = ((unequal != 0) & (left > 0)).any(axis=1)
        latest[order] = ~joined
        if different.any():
            group = np.cumsum(np.concatenate(([True], ~joined[:-1])))
            for number in np.unique(group[at[different]]).tolist():
                self._separate(order[slice(*np.searchsorted(group, (number, number + 1)))], latest)

    def _words(self, records: Positions, width: int) -> NDArray[np.uint64]:
        """Copy the first `width` words of the keys of `records`, a row for each; first bytes are highest.

        They lie anywhere in the file, so they are taken in the order of the file, and what was touched is let go of.
        """
        positions = self._positions(records)
        words = np.empty((len(records), width), dtype=np.uint64)
        order = np.argsort(positions)
        for block in blocks((positions[order], _STRETCH)):
            some = order[block]
            words[some] = self._pages.words(positions[some][:, None] + 8 * np.arange(width))
            self._pages.let_go()
        return words

    def _key(self, record: int) -> bytes:
        row = np.array([record])
        position, length = int(self._positions(row)[0]), int(self._lengths(row)[0])
        return self._pages.bytes[position : position + length].tobytes()

    def _separate(self, records: Positions, latest: NDArray[np.bool_]) -> None:
        """Tell apart keys that only share a hash."""
        latest[records] = False
        last: dict[bytes, int] = {}
        positions, lengths = self._positions(records).tolist(), self._lengths(records).tolist()
        for record, position, length in zip(records.tolist(), positions, lengths, strict=True):
            last[self._pages.bytes[position : position + length].tobytes()] = record
        latest[list(last.values())] = True

    def _positions(self, records: Positions) -> Positions:
        return (self._span[records] >> np.uint64(_LENGTH_BITS)).astype(np.int64)

    def _lengths(self, records: Positions) -> Positions:
        lengths = (self._span[records] & np.uint64(_LENGTH_MASK)).astype(np.int64)
        for row in np.nonzero(lengths == _LENGTH_MASK)[0].tolist():
            lengths[row] = self._long_keys[int(records[row])]
        return lengths
