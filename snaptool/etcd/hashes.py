"""The two checksums by which etcd compares stores: that of `snapshot status`, and HashKV.

Both are CRC-32C over keys and values back to back, which is how they lie in a leaf: so one call per run of neighbouring
records does, usually one per leaf. The CRC of two texts follows from theirs and the length of the second
(`join_sums`), so each leaf is gone through once (`LeafSums`), however many checksums its records are part of.

HashKV also depends on the server: three of its rules changed in patch releases (`ServerGeneration`). It is computed
from what is in the file; a running server may answer for the compacted revision itself with a number it stored while
compacting, which no file holds.

Source: etcd etcdutl/snapshot/v3_snapshot.go (v3.7.1), server/storage/mvcc/hash.go (v3.7.1), mvcc/kvstore.go (v3.4.23);
docs/formats/etcd.md, "Status hash" and "HashKV".
"""

from __future__ import annotations

from functools import cache, cached_property

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from snaptool.bolt import Bucket, LeafChunk, spans

Sums = NDArray[np.uint32]


class LeafSums:
    """CRC-32C and size in bytes of the records of every leaf of a bucket, by leaf number: 12 bytes per leaf."""

    def __init__(self, leaves: int) -> None:
        self.crc = np.zeros(leaves, dtype=np.uint32)
        self.size = np.zeros(leaves, dtype=np.int64)

    def add(self, leaves: LeafChunk) -> None:
        """Take the leaves of a chunk."""
        here = slice(leaves.first_leaf, leaves.first_leaf + len(leaves.leaf_page))
        self.crc[here], self.size[here] = sum_leaves(leaves)

    @cached_property
    def whole(self) -> tuple[Sums, NDArray[np.int64]]:
        """CRC-32C and size of all leaves joined, once they are all there, as one more text to join."""
        crc = join_sums(0, self.crc, self.size)
        return np.array([crc], dtype=np.uint32), np.array([self.size.sum()], dtype=np.int64)


def sum_leaves(leaves: LeafChunk) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return CRC-32C and size in bytes of the records of each leaf of a chunk."""
    start, end = leaves.key_pos, leaves.value_pos + leaves.value_len
    first, last = leaves.leaf_start[:-1], leaves.leaf_start[1:]
    begins = np.ones(len(start), dtype=np.bool_)
    begins[1:] = start[1:] != end[:-1]
    (filled,) = np.nonzero(last > first)
    begins[first[filled]] = True
    (stretch,) = np.nonzero(begins)
    stretch_end = end[np.append(stretch[1:], len(end))[: len(stretch)] - 1]
    data = leaves.buffer.data
    places = zip(start[stretch].tolist(), stretch_end.tolist(), strict=True)
    crc = np.zeros(len(first), dtype=np.uint32)
    if len(stretch) == len(filled):
        crc[filled] = [crc32c(data[begin:end]) for begin, end in places]
    else:
        leaf = np.searchsorted(first, stretch, side="right") - 1
        sums = [0] * len(first)
        for owner, (begin, until) in zip(leaf.tolist(), places, strict=True):
            sums[owner] = crc32c(data[begin:until], sums[owner])
        crc[:] = sums
    total = np.concatenate(([0], np.cumsum(end - start)))
    return crc, total[last] - total[first]


_POLYNOMIAL = np.uint32(0x82F63B78)  # Castagnoli, lowest power in the highest bit
_ONE = np.uint32(0x80000000)
_TABLE_BITS = 12
_SHORT = 200  # stretches of fewer bytes on average are copied together: that is less than a call for each
_BLOCK = 1 << 14  # sums that are joined together: they stay in the cache


def join_sums(crc: int, crcs: Sums, sizes: NDArray[np.int64]) -> int:
    """Continue a CRC-32C with texts of which only CRC and size are known.

    A text moves the CRC of what is before it by a power of x that depends on its size; the moved CRCs add up. All are
    moved at once. The idea is that of zlib's crc32_combine.
    """
    for begin in range(0, len(crcs), _BLOCK):
        some, size = crcs[begin : begin + _BLOCK], sizes[begin : begin + _BLOCK]
        behind = np.concatenate((np.cumsum(size[::-1])[::-1], [0]))
        moved = _times(np.concatenate((np.array([crc], np.uint32), some)), _powers(behind))
        crc = int(np.bitwise_xor.reduce(moved))
    return crc


def _times(a: Sums, b: Sums) -> Sums:
    """Multiply polynomials over GF(2), modulo Castagnoli's."""
    product = np.zeros(np.broadcast(a, b).shape, dtype=np.uint32)
    for bit in range(31, -1, -1):
        product ^= b * (a >> np.uint32(bit) & np.uint32(1))
        b = (b >> np.uint32(1)) ^ (_POLYNOMIAL * (b & np.uint32(1)))
    return product


def _powers(sizes: NDArray[np.int64]) -> Sums:
    """Return x to the power of 8 times each size: what moves a CRC past so many bytes."""
    power, digit = np.full(len(sizes), _ONE, dtype=np.uint32), 0
    while sizes.any():
        power = _times(power, _table(digit)[sizes & ((1 << _TABLE_BITS) - 1)])
        sizes, digit = sizes >> _TABLE_BITS, digit + 1
    return power


@cache
def _table(digit: int) -> Sums:
    """Powers for one digit of a size, counted from the lowest."""
    step = np.array([1 << 23], dtype=np.uint32)  # x to the 8th: one byte
    for _ in range(digit * _TABLE_BITS):
        step = _times(step, step)
    table = np.array([_ONE], dtype=np.uint32)
    for _ in range(_TABLE_BITS):
        table = np.concatenate((table, _times(table, step)))
        step = _times(step, step)
    return table


def sums_of(bucket: Bucket) -> LeafSums:
    """Go through a bucket for its sums. Raises CorruptPage."""
    sums = LeafSums(bucket.leaf_count)
    for leaves in bucket.chunks():
        sums.add(leaves)
    return sums


def add_spans(crc: int, buffer: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64]) -> int:
    """Continue a CRC-32C with stretches of the file, in their order: one call for neighbours that touch."""
    if not len(start):
        return crc
    size = end - start
    if (total := int(size.sum())) < _SHORT * len(size):
        return crc32c(buffer[spans(start, size)].data, crc) if total else crc
    apart = start[1:] != end[:-1]
    starts = start[np.concatenate(([True], apart))].tolist()
    ends = end[np.concatenate((apart, [True]))].tolist()
    for first, last in zip(starts, ends, strict=True):
        crc = crc32c(buffer.data[first:last], crc)
    return crc
