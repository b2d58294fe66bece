"""What is kept of the leaves of bucket `key`: enough to know them again, and for the hashes of the file."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from hashlib import sha256

from snaptool.bolt import Chunk, Database
from snaptool.etcd.castagnoli import address, crc32c
from snaptool.etcd.comparing import (
    HistoryHash,
    describe_leaves,
    join_sums,
    mark_tidy,
    pages_and_keys,
    sizes_of_records,
    sums_of_leaves,
)
from snaptool.etcd.reading import Records


def _sums() -> tuple[Callable[[memoryview, int], int], int]:
    return crc32c(), address()


class Leaves:
    """Leaves of a tree in order, 37 bytes for each.

    `page`: its id, 0 of an inline bucket; `span`: its pages; `records`: how many it has, `main`: the revision of the
    first; `crc`, `size`: CRC-32C and bytes of its records; `tidy`: 1 where it holds nothing else, see `mark_tidy`.
    Of the records that `take` was given, `key_sizes` and `sizes` are their bytes: 5 for each. `branches`: the hash of
    all page ids and first keys, which the branches have to repeat. `only_tidy`: nothing but `tidy` is kept.
    """

    def __init__(self, *, only_tidy: bool = False) -> None:
        self._only_tidy = only_tidy
        self.page, self.main, self.size = array("q"), array("q"), array("q")
        self.span, self.records, self.crc = array("I"), array("I"), array("I")
        self.tidy = bytearray()
        self.key_sizes, self.sizes = bytearray(), array("I")
        self.branches = sha256()

    def __len__(self) -> int:
        return len(self.tidy)

    def take(self, records: Records, page_size: int) -> None:
        """Take note of the leaves of a chunk of records, and of the sizes of these."""
        self.add(records.leaves, records.view, page_size)
        if self._only_tidy:
            return
        first, count = len(self.sizes), len(records)
        self.key_sizes += bytes(count)
        self.sizes.frombytes(bytes(4 * count))
        sizes_of_records(records.leaves, memoryview(self.key_sizes)[first:], memoryview(self.sizes)[first:])

    def add(self, leaves: Chunk, file: memoryview, page_size: int) -> None:
        """Take note of the leaves of a chunk."""
        first, count = len(self), leaves.leaves
        self.tidy += bytes(count)
        tidy = memoryview(self.tidy)[first:]
        mark_tidy(file, leaves, page_size, tidy)
        if self._only_tidy:
            return
        self.page.frombytes(leaves.leaf_page[:count].cast("B"))
        for column in (self.main, self.size, self.span, self.records, self.crc):
            column.frombytes(bytes(count * column.itemsize))
        main, size, span, records, crc = (
            memoryview(column)[first:] for column in (self.main, self.size, self.span, self.records, self.crc)
        )
        sums_of_leaves(leaves, file, tidy, _sums(), crc, size)
        describe_leaves(leaves, file, span, records, main)
        self.branches.update(pages_and_keys(file, leaves))

    def tidy_of(self, leaves: Chunk) -> memoryview:
        """Return `tidy` of the leaves of a chunk, by their numbers."""
        return memoryview(self.tidy)[leaves.first_leaf : leaves.first_leaf + leaves.leaves]

    def have(self, leaves: Chunk, file: memoryview, numbers: memoryview) -> bool:
        """Have leaves, which have these numbers, the records that they had when they were taken note of?"""
        crc, size = array("I", bytes(4 * leaves.leaves)), array("q", bytes(8 * leaves.leaves))
        tidy = memoryview(bytearray([self.tidy[number] for number in numbers]))
        sums_of_leaves(leaves, file, tidy, _sums(), memoryview(crc), memoryview(size))
        return all(
            [*found] == [column[number] for number in numbers] for found, column in ((crc, self.crc), (size, self.size))
        )

    def joined(self, crc: int) -> int:
        """Continue a CRC-32C with all records."""
        return join_sums(crc, memoryview(self.crc), memoryview(self.size))

    def hash(self, history: HistoryHash, database: Database) -> None:
        """Give HashKV all leaves, by their sums where that is enough; the others are read again."""
        chunk, walk, leaf = Chunk(), database.new_walk(), 0
        records, main, crc, size = (memoryview(one) for one in (self.records, self.main, self.crc, self.size))
        while (leaf := history.join(leaf, records, main, crc, size)) < len(self):
            walk.begin_line(self.page[leaf], self.page[leaf] + 1)
            walk.fill(chunk)
            history.add(chunk)
            leaf += 1
