"""A bucket's tree as arrays: levels of pages, then leaves, then the records of a chunk of leaves at a time.

No Python object is made per page or record. Headers and element tables are read through views of the whole file, at
offsets computed for many pages at once; whatever they say is compared with the file's bounds before it is used. The
walk goes level by level, so neither cycles nor depth can make it run long: every page may be reached once.

What a hostile file can cost is bounded by its size. No level has more pages than the file, so branches that promise
more are refused before their elements are looked at. Records may not claim more bytes than their page has: bolt does
not forbid them to overlap, but it never writes that, and a small page could claim gigabytes. Work goes in blocks of
pages; what stays for a whole bucket is about 40 bytes per leaf.

Knows pages and elements; knows nothing of what keys and values mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from snaptool.bolt.faults import CorruptPage
from snaptool.bolt.layout import (
    BUCKET_FLAG,
    ELEMENT_SIZE,
    HEADER_SIZE,
    MAX_KEY_SIZE,
    BranchElement,
    LeafElement,
    PageFlag,
    PageHeader,
)

Positions = NDArray[np.int64]
PAGE_HEADER = np.dtype(PageHeader)
BRANCH_ELEMENT = np.dtype(BranchElement)
LEAF_ELEMENT = np.dtype(LeafElement)
MAX_DEPTH = 64  # far beyond any real tree: bolt's fan-out is in the dozens at least
BLOCK = 1 << 17  # pages or elements that are looked at together
CHUNK_RECORDS = 50_000
CHUNK_BYTES = 32 << 20
HEADERS_AT_ONCE = 8192  # pages: 32 MiB of a usual file


class PageMap:
    """The pages of a file as arrays that share its bytes, nothing copied. `size` in pages."""

    def __init__(
        self, buffer: memoryview, page_size: int, size: int, release: Callable[[], None] | None = None
    ) -> None:
        self._release = release
        self.view = buffer
        self.page_size = page_size
        self.size = size
        self.bytes = np.frombuffer(buffer, dtype=np.uint8, count=size * page_size)
        self.u16 = self.bytes.view("<u2")
        self.u32 = self.bytes.view("<u4")
        self.u64 = self.bytes.view("<u8")
        self._numbers = np.ndarray((len(self.bytes) - 3,), dtype="<u4", buffer=self.bytes, strides=(1,))
        # Eight bytes from any offset, most significant first, so that comparing numbers compares bytes.
        self._windows = np.ndarray((len(self.bytes) - 7,), dtype=">u8", buffer=self.bytes, strides=(1,))

    def let_go(self) -> None:
        """Tell that what was read so far may leave the memory."""
        if self._release is not None:
            self._release()

    def words(self, positions: Positions) -> NDArray[np.uint64]:
        """Gather eight bytes at each position; bytes behind the end of the file are zero."""
        last = len(self._windows) - 1
        inside = np.minimum(positions, last)
        words = self._windows[inside].astype(np.uint64)
        beyond = positions - inside
        if beyond.any():
            words <<= (8 * np.minimum(beyond, 7)).astype(np.uint64)
            words[beyond > 7] = 0
        return words

    def number(self, positions: Positions) -> NDArray[np.uint32]:
        """Gather 32-bit numbers from any offsets inside the file."""
        return self._numbers[positions]

    def compare(self, a: Positions, a_len: Positions, b: Positions, b_len: Positions) -> NDArray[np.int8]:
        """Compare byte strings pair by pair, as bolt orders keys: -1, 0 or 1."""
        common = np.minimum(a_len, b_len)
        result: NDArray[np.int8] = np.sign(a_len - b_len).astype(np.int8)
        rows = np.arange(len(a))
        offset = 0
        while len(rows):
            rows = rows[common[rows] > offset]
            left, right = self.words(a[rows] + offset), self.words(b[rows] + offset)
            unused = (8 * np.maximum(8 - (common[rows] - offset), 0)).astype(np.uint64)
            left, right = left >> unused, right >> unused
            differ = left != right
            result[rows[differ]] = np.where(left[differ] < right[differ], -1, 1)
            rows = rows[~differ]
            offset += 8
        return result


@dataclass(frozen=True, slots=True)
class _Level:
    """One level of a tree: page ids, each one's parent in the level above, and the key under which it hangs.

    `lower` and `lower_len` are position and size of that key, which is the least that may stand in the page; position
    -1: any may. `ceiling` and `ceiling_len` say of each page of the level above where its keys must end. `fresh`: not
    seen before; a leaf above the deepest level stands in every level below it.
    """

    nodes: Positions
    parent: Positions
    lower: Positions
    lower_len: NDArray[np.uint16]
    fresh: NDArray[np.bool_]
    ceiling: Positions
    ceiling_len: NDArray[np.uint16]

    def select(self, rows: NDArray[np.bool_]) -> _Level:
        """Return the level with only these of its pages."""
        if rows.all():
            return self
        return replace(
            self,
            nodes=self.nodes[rows],
            parent=self.parent[rows],
            lower=self.lower[rows],
            lower_len=self.lower_len[rows],
            fresh=self.fresh[rows],
        )

    def upper(self, rows: Positions) -> tuple[Positions, NDArray[np.uint16]]:
        """Position and size, for these pages, of the first key that may not stand in them any more; -1: there is none.

        That is the key of the next page under the same parent; for the last one of a parent, the parent's own limit.
        """
        parent, following = self.parent[rows], np.minimum(rows + 1, len(self.parent) - 1)
        at, size = self.ceiling[parent], self.ceiling_len[parent]
        sibling = (following > rows) & (self.parent[following] == parent)
        at[sibling], size[sibling] = self.lower[following[sibling]], self.lower_len[following[sibling]]
        return at, size


@dataclass(frozen=True, slots=True)
class _Kinds:
    """What the headers of a level's pages say: is it a page of the tree at all, a branch, and its size."""

    good: NDArray[np.bool_]
    branch: NDArray[np.bool_]
    count: NDArray[np.uint16]
    overflow: NDArray[np.uint32]

    @classmethod
    def unknown(cls, pages: int) -> _Kinds:
        """Nothing is known yet."""
        return cls(
            np.zeros(pages, np.bool_), np.zeros(pages, np.bool_), np.zeros(pages, np.uint16), np.zeros(pages, np.uint32)
        )


@dataclass(frozen=True, slots=True)
class Leaves:
    """The leaves of one tree in key order.

    `overflow` and `count`: pages behind the first one, and elements, of each leaf. `flags`: what its records have as
    element flags. `trail`: the levels of the tree, the leaves last. `image`: offset and size of the page image when
    the bucket is an inline one, which lies in page `holder`.
    """

    trail: Sequence[_Level]
    overflow: NDArray[np.uint32]
    count: NDArray[np.uint16]
    flags: int = 0
    image: tuple[int, int] | None = None
    holder: int = 0

    @classmethod
    def inline(cls, offset: int, size: int, count: int, holder: int) -> Leaves:
        """The one leaf of an inline bucket."""
        return cls((_root(0),), np.zeros(1, np.uint32), np.array([count], np.uint16), 0, (offset, size), holder)

    def __len__(self) -> int:
        return len(self.count)

    def path(self, leaf: int) -> tuple[int, ...]:
        """Return the page ids from the root down to a leaf."""
        return (self.holder,) if self.image else _path(self.trail, leaf)


def _root(page: int) -> _Level:
    """The level of a root page: no key is too low for it, and none too high."""
    zero, none, size = np.zeros(1, np.int64), np.full(1, -1), np.zeros(1, np.uint16)
    return _Level(np.array([page], np.int64), zero, none, size, np.ones(1, np.bool_), none, size)


def _path(trail: Sequence[_Level], index: int) -> tuple[int, ...]:
    """Return the page ids from the root down to page `index` of the last level."""
    ids = []
    for level in reversed(trail):
        ids.append(int(level.nodes[index]))
        index = int(level.parent[index])
    return tuple(dict.fromkeys(reversed(ids)))


@dataclass(frozen=True, slots=True)
class LeafChunk:
    """A run of consecutive leaves of one bucket. Positions are offsets in the file; sizes are in bytes.

    `leaf_base`, `leaf_size`, `leaf_page` (id; 0 in an inline bucket): one entry per leaf. Leaf i holds records
    `leaf_start[i]` to `leaf_start[i + 1]` of the chunk. `first_record`, `first_leaf`: how many came before in the
    bucket, of `total_leaves`. The leaves follow each other, unless the chunk was made of chosen ones.
    """

    pages: PageMap
    leaf_base: Positions
    leaf_size: Positions
    leaf_page: Positions
    leaf_start: Positions
    key_pos: Positions
    key_len: Positions
    value_pos: Positions
    value_len: Positions
    first_record: int
    first_leaf: int
    total_leaves: int

    @property
    def buffer(self) -> NDArray[np.uint8]:
        """The bytes of the file."""
        return self.pages.bytes

    def __len__(self) -> int:
        return len(self.key_pos)

    def key(self, row: int) -> bytes:
        """The key of one record."""
        return self.buffer[int(self.key_pos[row]) :][: int(self.key_len[row])].tobytes()

    def value(self, row: int) -> bytes:
        """The value of one record."""
        return self.buffer[int(self.value_pos[row]) :][: int(self.value_len[row])].tobytes()

    def pick(self, rows: Positions) -> LeafChunk:
        """Return the chunk with only these of its records, ascending; `first_record` stays what it was."""
        return replace(
            self,
            leaf_start=np.searchsorted(rows, self.leaf_start),
            key_pos=self.key_pos[rows],
            key_len=self.key_len[rows],
            value_pos=self.value_pos[rows],
            value_len=self.value_len[rows],
        )


class Walk:
    """A walk over the trees of one file; remembers which pages were reached, so that none is reached twice.

    The first problem is raised as CorruptPage.
    """

    def __init__(self, pages: PageMap) -> None:
        self.pages = pages
        self.reached = np.zeros(pages.size, dtype=np.bool_)

    def complain(self, page: int, problem: str, path: tuple[int, ...]) -> None:
        """Raise CorruptPage."""
        raise CorruptPage(page, problem, path)

    def leaves(self, root: int, flags: int = 0) -> Leaves:
        """Find the leaves of the tree at `root`, in key order. Checks all that can be said without reading leaves.

        `flags`: the element flags that all its records must have.
        """
        level = _root(root)
        trail: list[_Level] = []
        for _ in range(MAX_DEPTH):
            trail.append(level)
            kinds = _Kinds.unknown(len(level.nodes))
            # Headers that are far apart bring more with them: the system maps files in pieces of up to megabytes.
            at_once = max(HEADERS_AT_ONCE * len(level.nodes) // self.pages.size, HEADERS_AT_ONCE >> 7)
            for block in blocks((np.arange(1, len(level.nodes) + 1), at_once)):
                self._admit(trail, block, kinds)
                if len(level.nodes) > at_once:
                    self.pages.let_go()
            level = trail[-1] = level.select(kinds.good)
            branch = kinds.branch[kinds.good]
            if not branch.any():
                return Leaves(trail, kinds.overflow[kinds.good], kinds.count[kinds.good], flags)
            level = self._below(trail, branch)
        self.complain(root, f"the tree is deeper than {MAX_DEPTH} levels", (root,))
        return Leaves(trail, np.empty(0, np.uint32), np.empty(0, np.uint16), flags)

    def _admit(self, trail: list[_Level], block: slice, kinds: _Kinds) -> None:
        """Find out which pages of the last level are tree pages inside the file that nothing else has reached.

        Marks those as reached. This touches every page of the level, which is why all that is needed is taken now.
        """
        pages, nodes = self.pages, trail[-1].nodes[block]
        good = (nodes >= 2) & (nodes < pages.size)
        for index in _some(~good):
            what = "a meta page" if nodes[index] < 2 else f"beyond the high-water mark of {pages.size} pages"
            path = _path(trail, block.start + index)
            self.complain(int(nodes[index]), f"a tree leads here, and this is {what}", path)
        base = np.where(good, nodes, 0) * pages.page_size
        ids, flags = pages.u64[base >> 3], pages.u16[(base >> 1) + 4]
        counts = pages.u16[(base >> 1) + 5].astype(np.int64)
        overflow = pages.u32[(base >> 2) + 3].astype(np.int64)
        table = HEADER_SIZE + ELEMENT_SIZE * counts
        for passed, text in (
            (ids == nodes.astype(np.uint64), "its header says that it is page {id}"),
            (
                (flags == PageFlag.BRANCH) | (flags == PageFlag.LEAF),
                "flags {flags:#06x} are not those of a branch or a leaf",
            ),
            (nodes + overflow < pages.size, "its {overflow} overflow pages reach beyond the high-water mark"),
            (table <= (overflow + 1) * pages.page_size, "its {count} elements do not fit into it"),
            ((counts > 0) | (flags != PageFlag.BRANCH), "a branch without children"),
        ):
            for index in _some(good & ~passed):
                problem = text.format(
                    id=int(ids[index]), flags=int(flags[index]), overflow=int(overflow[index]), count=int(counts[index])
                )
                self.complain(int(nodes[index]), problem, _path(trail, block.start + index))
            good &= passed
        self._reach(trail, block, overflow + 1, good)
        kinds.good[block], kinds.branch[block] = good, flags == PageFlag.BRANCH
        kinds.count[block], kinds.overflow[block] = counts, overflow

    def _reach(self, trail: list[_Level], block: slice, span: Positions, good: NDArray[np.bool_]) -> None:
        """Mark pages of the last level, `span` pages each, as reached; those reached before are no longer good."""
        nodes = trail[-1].nodes[block]
        (new,) = np.nonzero(good & trail[-1].fresh[block])
        in_file = new[np.argsort(nodes[new], kind="stable")]
        start, size = nodes[in_file], span[in_file]
        end = start + size
        if not (start[1:] < end[:-1]).any():
            taken = np.repeat(start - (np.cumsum(size) - size), size) + np.arange(int(size.sum()))
            if not self.reached[taken].any():
                self.reached[taken] = True
                return
        for index in new.tolist():
            reached = self.reached[nodes[index] : nodes[index] + span[index]]
            if reached.any():
                self.complain(int(nodes[index]), "it is reached twice", _path(trail, block.start + index))
                good[index] = False
            else:
                reached[:] = True

    def _below(self, trail: list[_Level], branch: NDArray[np.bool_]) -> _Level:
        """The level below the last one: children of its branches, and its leaves once more."""
        level = trail[-1]
        width = np.where(branch, self.pages.u16[(level.nodes * self.pages.page_size >> 1) + 5], 1).astype(np.int64)
        ends = np.cumsum(width)
        beyond = ends > self.pages.size
        if beyond.any():
            index = int(np.argmax(beyond))
            problem = "its children, and those before them, are more than the file has pages"
            self.complain(int(level.nodes[index]), problem, _path(trail, index))
            width[beyond] = 0
            ends = np.cumsum(width)
        ceiling, ceiling_len = level.upper(np.arange(len(level.nodes)))
        parts = [self._children(trail, branch, width, block) for block in blocks((ends, BLOCK))]
        owner, child, key, key_len, real = zip(*parts, strict=True)
        return _Level(
            nodes=np.concatenate(child),
            parent=np.concatenate(owner),
            lower=np.concatenate(key),
            lower_len=np.concatenate(key_len).astype(np.uint16),
            fresh=np.concatenate(real),
            ceiling=ceiling,
            ceiling_len=ceiling_len,
        )

    def _children(
        self, trail: list[_Level], branch: NDArray[np.bool_], width: Positions, block: slice
    ) -> tuple[Positions, Positions, Positions, Positions, NDArray[np.bool_]]:
        """Read what `block` of the last level leads to: parent, page id, lowest key (position, size), whether new."""
        pages, level = self.pages, trail[-1]
        width, nodes, lower, lower_len = width[block], level.nodes[block], level.lower[block], level.lower_len[block]
        base = nodes * pages.page_size
        owner, element = elements_of(base, width)
        real = branch[block][owner]
        element = np.where(real, element, 0)
        key = np.where(real, element + pages.u32[element >> 2], lower[owner])
        key_len = np.where(real, pages.u32[(element >> 2) + 1], lower_len[owner]).astype(np.int64)
        # A child id beyond int64 is as wrong as any beyond the file; the next level says so.
        ids = np.minimum(pages.u64[(element >> 3) + 1], np.uint64(1 << 62)).astype(np.int64)
        child = np.where(real, ids, nodes[owner])
        span_end = base + (pages.u32[(base >> 2) + 3].astype(np.int64) + 1) * pages.page_size
        good = ~real
        table = base, np.where(branch[block], width, 0), span_end
        good[real] = self._inside(
            partial(_path, trail), block.start, owner[real], table, key[real], key_len[real], (key + key_len)[real]
        )
        owner, child, key, key_len, real = owner[good], child[good], key[good], key_len[good], real[good]
        for index in self._disordered(
            owner, key, key_len, real, (lower, lower_len), level.upper(np.arange(block.start, block.stop))
        ):
            at = int(owner[index])
            self.complain(int(nodes[at]), "its keys are not in ascending order", _path(trail, block.start + at))
        return owner + block.start, child, key, key_len, real

    def _inside(
        self,
        path_of: Callable[[int], tuple[int, ...]],
        first: int,
        owner: Positions,
        page: tuple[Positions, Positions, Positions],
        key: Positions,
        key_len: Positions,
        end: Positions,
    ) -> NDArray[np.bool_]:
        """Which elements point behind their page's table and not beyond its end, and do not overlap.

        `page`: offset, number of elements and end of each page. The first of them is number `first` for `path_of`.
        `owner`, `key`, `key_len`, `end`: of each element, its page, and where its bytes begin and end.
        """
        base, count, page_end = page
        table_end = base + HEADER_SIZE + ELEMENT_SIZE * count

        def complain(at: int, problem: str) -> None:
            path = path_of(first + at)
            self.complain(path[-1], problem, path)

        inside = (key >= table_end[owner]) & (end <= page_end[owner])
        for index in _some(~inside):
            complain(int(owner[index]), "an element points outside its page")
        legal = key_len <= MAX_KEY_SIZE
        for index in _some(inside & ~legal):
            complain(int(owner[index]), f"a key has {key_len[index]} bytes, more than bolt allows")
        claimed = np.concatenate(([0], np.cumsum(np.where(inside, end - key, 0))))
        last = np.cumsum(count)
        packed = claimed[last] - claimed[last - count] <= page_end - table_end
        for at in _some(~packed):
            complain(at, "its elements overlap")
        result: NDArray[np.bool_] = inside & legal & packed[owner]
        return result

    def chunks(
        self, leaves: Leaves, max_records: int = CHUNK_RECORDS, first: int = 0, last: int | None = None
    ) -> Iterator[LeafChunk]:
        """Yield the records of `leaves`, or of those from `first` to `last` (not included).

        One leaf at a time at least, checked for bounds and order.
        """
        before = int(leaves.count[:first].sum(dtype=np.int64))
        records = np.cumsum(leaves.count[first:last], dtype=np.int64)
        sizes = np.cumsum(leaves.overflow[first:last] + np.int64(1)) * self.pages.page_size
        for block in blocks((records, max_records), (sizes, CHUNK_BYTES)):
            earlier = int(records[block.start - 1]) if block.start else 0
            yield self.chunk(leaves, np.arange(first + block.start, first + block.stop), before + earlier)

    def chunk(self, leaves: Leaves, numbers: Positions, first_record: int) -> LeafChunk:
        """Read the leaves of these `numbers`, ascending; `first_record` is that of the first one."""
        pages, level, count = self.pages, leaves.trail[-1], leaves.count[numbers].astype(np.int64)
        page = level.nodes[numbers]

        def path_of(index: int) -> tuple[int, ...]:
            return leaves.path(int(numbers[index]))

        base = page * pages.page_size
        size = (leaves.overflow[numbers] + np.int64(1)) * pages.page_size
        if leaves.image:
            base, size = (np.array([number]) for number in leaves.image)
        owner, element = elements_of(base, count)
        # Inline buckets stand at any offset, so their elements are not aligned.
        flags, pos = pages.number(element), pages.number(element + 4)
        key_len, value_len = pages.number(element + 8).astype(np.int64), pages.number(element + 12).astype(np.int64)
        key = element + pos
        value = key + key_len
        good = self._inside(path_of, 0, owner, (base, count, base + size), key, key_len, value + value_len)
        for passed, text in (
            (key_len > 0, "an element has an empty key"),
            (flags == leaves.flags, _flags_text(leaves.flags)),
        ):
            for index in _some(good & ~passed):
                path = path_of(int(owner[index]))
                self.complain(path[-1], text.format(flags=int(flags[index])), path)
            good &= passed
        if not good.all():
            owner, key, key_len, value, value_len = (part[good] for part in (owner, key, key_len, value, value_len))
        lower = level.lower[numbers], level.lower_len[numbers]
        # Limits follow each other without a gap, so keys inside them ascend from leaf to leaf and chunk to chunk.
        wrong = self._disordered(owner, key, key_len, np.ones(len(owner), np.bool_), lower, level.upper(numbers))
        for index in wrong:
            path = path_of(int(owner[index]))
            self.complain(path[-1], "its keys are not in ascending order", path)
        return LeafChunk(
            pages=pages,
            leaf_base=base,
            leaf_size=size,
            leaf_page=page,
            leaf_start=np.searchsorted(owner, np.arange(len(count) + 1)),
            key_pos=key,
            key_len=key_len,
            value_pos=value,
            value_len=value_len,
            first_record=first_record,
            first_leaf=int(numbers[0]),
            total_leaves=len(leaves),
        )

    def _disordered(
        self,
        owner: Positions,
        key: Positions,
        key_len: Positions,
        real: NDArray[np.bool_],
        lower: tuple[Positions, NDArray[np.uint16]],
        upper: tuple[Positions, NDArray[np.uint16]],
    ) -> list[int]:
        """Find keys that break the order: not above the one before, or not inside the limits of their page.

        `owner` is the page of each key, by index into `lower` and `upper`: position and size of the first key that may
        stand in the page, and of the first one that may not; position -1: there is none. Only `real` keys are compared.
        """
        if not len(owner):
            return []
        compare = self.pages.compare
        wrong = np.zeros(len(owner), dtype=np.bool_)
        same = owner[1:] == owner[:-1]
        (rows,) = np.nonzero(same & real[1:])
        wrong[rows + 1] = compare(key[rows], key_len[rows], key[rows + 1], key_len[rows + 1]) >= 0
        first, last = np.concatenate(([True], ~same)), np.concatenate((~same, [True]))
        low, high = (limit[0][owner] >= 0 for limit in (lower, upper))
        (rows,) = np.nonzero(first & real & low)
        at = owner[rows]
        wrong[rows] |= compare(lower[0][at], lower[1][at].astype(np.int64), key[rows], key_len[rows]) > 0
        (rows,) = np.nonzero(last & real & high)
        at = owner[rows]
        wrong[rows] |= compare(key[rows], key_len[rows], upper[0][at], upper[1][at].astype(np.int64)) >= 0
        return _some(wrong)


def _flags_text(expected: int) -> str:
    if expected == BUCKET_FLAG:
        return "the root bucket holds something that is not a bucket (element flags {flags:#x})"
    return "a record is a bucket inside a bucket, or of an unknown kind (element flags {flags:#x})"


def _some(rows: NDArray[np.bool_]) -> list[int]:
    """Index of the first row that is set."""
    found: list[int] = np.nonzero(rows)[0][:1].tolist()
    return found


def blocks(*limits: tuple[Positions, int]) -> Iterator[slice]:
    """Cut a sequence into runs, of one member at least, that stay within every limit.

    A limit is the running total of something over the members, and how much of it a run may have.
    """
    total, start = len(limits[0][0]), 0
    while start < total:
        end = total
        for sums, limit in limits:
            before = int(sums[start - 1]) if start else 0
            end = min(end, int(np.searchsorted(sums, before + limit, side="right")))
        end = max(end, start + 1)
        yield slice(start, end)
        start = end


def elements_of(base: Positions, count: Positions) -> tuple[Positions, Positions]:
    """Number the elements of pages that start at `base`: for each, the index of its page and its offset in the file."""
    owner = np.repeat(np.arange(len(base)), count)
    first = np.cumsum(count) - count
    return owner, base[owner] + HEADER_SIZE + ELEMENT_SIZE * (np.arange(len(owner)) - first[owner])


def spans(start: Positions, size: Positions) -> Positions:
    """Number the members of spans: `start`, `start` + 1, … for each."""
    if (size == 1).all():
        return start
    return np.repeat(start - (np.cumsum(size) - size), size) + np.arange(int(size.sum()))
