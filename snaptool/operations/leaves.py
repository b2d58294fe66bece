"""What is kept of the leaves of a tree: enough to know them again, and for the hashes of the file."""

from __future__ import annotations

from array import array

from crc32c import crc32c

from snaptool.bolt import Chunk
from snaptool.etcd import Records
from snaptool.etcd.comparing import mark_tidy, sums_of_leaves


class Leaves:
    """Leaves of a tree in order: page id, number of records, their CRC-32C and their size. 24 bytes for each."""

    def __init__(self) -> None:
        self.page, self.size = array("q"), array("q")
        self.records, self.crc = array("I"), array("I")

    def __len__(self) -> int:
        return len(self.page)

    def take(self, records: Records, page_size: int) -> None:
        """Take note of the leaves of a chunk of records."""
        tidy = memoryview(bytearray(records.leaves.leaves))
        mark_tidy(records.view, records.leaves, page_size, tidy)
        self.add(records.leaves, records.view, tidy)

    def add(self, leaves: Chunk, file: memoryview, tidy: memoryview) -> None:
        """Take note of the leaves of a chunk. `tidy`: see `mark_tidy`."""
        start = leaves.leaf_start
        crc, size = sums_of_leaves(leaves, file, tidy, crc32c)
        self.page.extend(leaves.leaf_page[: leaves.leaves])
        self.records.extend([start[leaf + 1] - start[leaf] for leaf in range(leaves.leaves)])
        self.crc.extend(crc)
        self.size.extend(size)

    def have(self, leaves: Chunk, file: memoryview, tidy: memoryview) -> bool:
        """Are the leaves of a chunk, by their numbers, what they were when they were taken note of?"""
        here = slice(leaves.first_leaf, leaves.first_leaf + leaves.leaves)
        return (self.crc[here].tolist(), self.size[here].tolist()) == sums_of_leaves(leaves, file, tidy, crc32c)

    def sums(self) -> tuple[array[int], array[int]]:
        """Return CRC-32C and size alone."""
        return self.crc, self.size
