"""A bucket's tree as arrays: levels of pages, then leaves, then the records of a chunk of leaves at a time.

No Python object is made per page or record. Headers and element tables are read through views of the whole file, at
offsets computed for a whole level or chunk; whatever they say is compared with the file's bounds before it is used.
The walk goes level by level, so neither cycles nor depth can make it run long: every page may be reached once.

Knows pages and elements; knows nothing of what keys and values mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from snaptool.bolt.layout import ELEMENT_SIZE, HEADER_SIZE, PageFlag
from snaptool.errors import FormatError

Positions = NDArray[np.int64]
MAX_DEPTH = 64  # far beyond any real tree: bolt's fan-out is in the dozens at least
MAX_PROBLEMS = 1000  # of a kind, per level: a hostile file must not fill the memory with complaints
CHUNK_RECORDS = 100_000
CHUNK_BYTES = 32 << 20


class CorruptPage(FormatError):
    """A page that breaks the tree. `path`: page ids from the bucket's root down to it."""

    def __init__(self, page: int, problem: str, path: tuple[int, ...] = ()) -> None:
        way = " > ".join(str(step) for step in path)
        super().__init__(
            f"page {page}: {problem}" + (f" (reached by {way})" if len(path) > 1 else ""),
            hint="list every problem with `snaptool verify`; save what can be saved with `snaptool repair --salvage`",
        )
        self.page = page
        self.problem = problem
        self.path = path


class PageMap:
    """The pages of a file as arrays that share its bytes, nothing copied. `size` in pages."""

    def __init__(self, buffer: memoryview, page_size: int, size: int) -> None:
        self.page_size = page_size
        self.size = size
        self.bytes = np.frombuffer(buffer, dtype=np.uint8, count=size * page_size)
        self.u16 = self.bytes.view("<u2")
        self.u32 = self.bytes.view("<u4")
        self.u64 = self.bytes.view("<u8")
        self._numbers = np.ndarray((len(self.bytes) - 3,), dtype="<u4", buffer=self.bytes, strides=(1,))
        # Eight bytes from any offset, most significant first, so that comparing numbers compares bytes.
        self._windows = np.ndarray((len(self.bytes) - 7,), dtype=">u8", buffer=self.bytes, strides=(1,))

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
class Leaves:
    """The leaves of one tree in key order, one entry each.

    `base`: offset in the file, `size`: bytes, `page`: id (0 inside an inline bucket), `count`: elements. `bound` and
    `bound_len` are position and size of the least key that may stand in the leaf, position -1: any. `path`: page ids
    from the root.
    """

    base: Positions
    size: Positions
    page: Positions
    count: Positions
    bound: Positions
    bound_len: Positions
    path: Callable[[int], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class LeafChunk:
    """A run of consecutive leaves of one bucket. Positions are offsets in the file; sizes are in bytes.

    `leaf_base`, `leaf_size`, `leaf_page` (id; 0 in an inline bucket): one entry per leaf. Leaf i holds records
    `leaf_start[i]` to `leaf_start[i + 1]` of the chunk. `first_record`, `first_leaf`: how many came before in the
    bucket, of `total_leaves`.
    """

    pages: PageMap
    leaf_base: Positions
    leaf_size: Positions
    leaf_page: Positions
    leaf_start: Positions
    flags: NDArray[np.uint32]
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

    def portable(self) -> NDArray[np.bool_]:
        """Which leaves may be carried over whole: a page of their own, packed data, and nothing but zeros behind it."""
        record_end = self.value_pos + self.value_len
        packed = np.ones(len(self), dtype=np.bool_)
        packed[1:] = self.key_pos[1:] == record_end[:-1]
        first = self.leaf_start[:-1]
        filled = self.leaf_start[1:] > first
        table_end = self.leaf_base + HEADER_SIZE + ELEMENT_SIZE * (self.leaf_start[1:] - first)
        packed[first[filled]] = self.key_pos[first[filled]] == table_end[filled]
        packed &= self.flags == 0
        bad = np.concatenate(([0], np.cumsum(~packed)))
        result: NDArray[np.bool_] = filled & (self.leaf_page > 0) & (bad[self.leaf_start[1:]] == bad[first])
        (rows,) = np.nonzero(result)
        data_end = record_end[self.leaf_start[rows + 1] - 1]
        span_end = self.leaf_base[rows] + self.leaf_size[rows]
        data, zeros = self.buffer.data, bytes(self.pages.page_size)
        for row, start, end in zip(rows.tolist(), data_end.tolist(), span_end.tolist(), strict=True):
            # Slack is less than a page in files that bolt wrote; more than that is not worth carrying over.
            if end - start > len(zeros) or bytes(data[start:end]) != zeros[: end - start]:
                result[row] = False
        return result


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a page. `page` is its id, `path` the ids that led there."""

    page: int
    problem: str
    path: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Level:
    """One level of a tree: page ids, each one's parent in the level above, and the key under which it hangs.

    `bound` and `bound_len` are the position and size of that key; the root has none, told by the position -1.
    `fresh`: not seen before; a leaf above the deepest level stands in every level below it.
    """

    nodes: Positions
    parent: Positions
    bound: Positions
    bound_len: Positions
    fresh: NDArray[np.bool_]

    def select(self, rows: NDArray[np.bool_]) -> _Level:
        return _Level(self.nodes[rows], self.parent[rows], self.bound[rows], self.bound_len[rows], self.fresh[rows])


class Walk:
    """A walk over the trees of one file; remembers which pages were reached, so that none is reached twice.

    With a `report`, problems are added to it and the walk goes on with what is left; without one the first is raised.
    """

    def __init__(self, pages: PageMap, report: list[Problem] | None = None) -> None:
        self.pages = pages
        self.reached = np.zeros(pages.size, dtype=np.bool_)
        self._report = report

    def complain(self, page: int, problem: str, path: tuple[int, ...]) -> None:
        """Raise CorruptPage, or note the problem."""
        if self._report is None:
            raise CorruptPage(page, problem, path)
        if len(self._report) < MAX_PROBLEMS:
            self._report.append(Problem(page, problem, path))

    def leaves(self, root: int) -> Leaves:
        """Find the leaves of the tree at `root`, in key order. Checks all that can be said without reading leaves."""
        zero = np.zeros(1, dtype=np.int64)
        level = _Level(np.array([root], dtype=np.int64), zero, zero - 1, zero, np.ones(1, dtype=np.bool_))
        trail: list[_Level] = []
        for _ in range(MAX_DEPTH):
            trail.append(level)
            level = level.select(self._admit(trail))
            trail[-1] = level
            branch = self.pages.u16[(level.nodes * self.pages.page_size >> 1) + 4] == PageFlag.BRANCH
            if not branch.any():
                base = level.nodes * self.pages.page_size
                return Leaves(
                    base=base,
                    size=(self.pages.u32[(base >> 2) + 3].astype(np.int64) + 1) * self.pages.page_size,
                    page=level.nodes,
                    count=self.pages.u16[(base >> 1) + 5].astype(np.int64),
                    bound=level.bound,
                    bound_len=level.bound_len,
                    path=partial(self.path, trail),
                )
            level = self._below(trail, branch)
        self.complain(root, f"the tree is deeper than {MAX_DEPTH} levels", (root,))
        nothing = level.nodes[:0]
        return Leaves(nothing, nothing, nothing, nothing, nothing, nothing, partial(self.path, trail))

    def path(self, trail: list[_Level], index: int) -> tuple[int, ...]:
        """Return the page ids from the root down to page `index` of the last level."""
        ids = []
        for level in reversed(trail):
            ids.append(int(level.nodes[index]))
            index = int(level.parent[index])
        return tuple(dict.fromkeys(reversed(ids)))

    def _admit(self, trail: list[_Level]) -> NDArray[np.bool_]:
        """Which pages of the last level are tree pages inside the file that nothing else has reached. Marks those."""
        pages, nodes = self.pages, trail[-1].nodes
        good = (nodes >= 2) & (nodes < pages.size)
        for index in np.nonzero(~good)[0][:MAX_PROBLEMS].tolist():
            what = "a meta page" if nodes[index] < 2 else f"beyond the high-water mark of {pages.size} pages"
            self.complain(int(nodes[index]), f"a tree leads here, and this is {what}", self.path(trail, index))
        base = np.where(good, nodes, 0) * pages.page_size
        ids, flags, counts = (
            pages.u64[base >> 3],
            pages.u16[(base >> 1) + 4],
            pages.u16[(base >> 1) + 5].astype(np.int64),
        )
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
            for index in np.nonzero(good & ~passed)[0][:MAX_PROBLEMS].tolist():
                problem = text.format(
                    id=int(ids[index]), flags=int(flags[index]), overflow=int(overflow[index]), count=int(counts[index])
                )
                self.complain(int(nodes[index]), problem, self.path(trail, index))
            good &= passed
        self._reach(trail, overflow, good)
        return good

    def _reach(self, trail: list[_Level], overflow: Positions, good: NDArray[np.bool_]) -> None:
        """Mark the pages of the last level as reached; those that were reached before are no longer good."""
        nodes = trail[-1].nodes
        new = np.nonzero(good & trail[-1].fresh)[0]
        start, end = nodes[new], nodes[new] + overflow[new] + 1
        size = self.pages.size
        cover = np.cumsum(np.bincount(start, minlength=size + 1) - np.bincount(end, minlength=size + 1))[:size]
        twice = (cover > 1) | ((cover > 0) & self.reached)
        if twice.any():
            before = np.concatenate(([0], np.cumsum(twice)))
            for index in new[before[end] > before[start]].tolist():
                span = slice(int(nodes[index]), int(nodes[index] + overflow[index]) + 1)
                if self.reached[span].any():
                    self.complain(int(nodes[index]), "it is reached twice", self.path(trail, index))
                    good[index] = False
                self.reached[span] = True
        self.reached |= cover > 0

    def _below(self, trail: list[_Level], branch: NDArray[np.bool_]) -> _Level:
        """The level below the last one: children of its branches, and its leaves once more."""
        pages, level = self.pages, trail[-1]
        base = level.nodes * pages.page_size
        width = np.where(branch, pages.u16[(base >> 1) + 5].astype(np.int64), 1)
        owner, element = _elements(base, width)
        real = branch[owner]
        element = np.where(real, element, 0)
        key = np.where(real, element + pages.u32[element >> 2], level.bound[owner])
        key_len = np.where(real, pages.u32[(element >> 2) + 1].astype(np.int64), level.bound_len[owner])
        # A child id beyond int64 is as wrong as any beyond the file; the next level says so.
        ids = np.minimum(pages.u64[(element >> 3) + 1], np.uint64(1 << 62)).astype(np.int64)
        child = np.where(real, ids, level.nodes[owner])
        table_end = base + HEADER_SIZE + ELEMENT_SIZE * width
        span_end = base + (pages.u32[(base >> 2) + 3].astype(np.int64) + 1) * pages.page_size
        good = ~real | ((key >= table_end[owner]) & (key + key_len <= span_end[owner]))
        for index in np.nonzero(~good)[0][:MAX_PROBLEMS].tolist():
            self.complain(
                int(level.nodes[owner[index]]),
                "an element points outside its page",
                self.path(trail, int(owner[index])),
            )
        owner, child, key, key_len, real = owner[good], child[good], key[good], key_len[good], real[good]
        for index in self._disordered(owner, key, key_len, real, level.bound, level.bound_len).tolist():
            self.complain(
                int(level.nodes[owner[index]]),
                "its keys are not in ascending order",
                self.path(trail, int(owner[index])),
            )
        return _Level(child, owner, key, key_len, real)

    def chunks(self, leaves: Leaves, max_records: int = CHUNK_RECORDS) -> Iterator[LeafChunk]:
        """Yield the records of `leaves`, at least one leaf at a time, checked for bounds and order."""
        records = np.concatenate(([0], np.cumsum(leaves.count)))
        sizes = np.concatenate(([0], np.cumsum(leaves.size)))
        last: tuple[int, int] | None = None
        start = 0
        while start < len(leaves.base):
            end = min(
                int(np.searchsorted(records, records[start] + max_records, side="right")) - 1,
                int(np.searchsorted(sizes, sizes[start] + CHUNK_BYTES, side="right")) - 1,
            )
            end = max(end, start + 1)
            chunk = self._chunk(leaves, start, end, int(records[start]), last)
            if len(chunk):
                last = (int(chunk.key_pos[-1]), int(chunk.key_len[-1]))
            yield chunk
            start = end

    def _chunk(
        self, leaves: Leaves, start: int, end: int, first_record: int, last: tuple[int, int] | None
    ) -> LeafChunk:
        pages, base, count = self.pages, leaves.base[start:end], leaves.count[start:end]
        owner, element = _elements(base, count)
        # Inline buckets stand at any offset, so their elements are not aligned.
        flags, pos = pages.number(element), pages.number(element + 4).astype(np.int64)
        key_len, value_len = pages.number(element + 8).astype(np.int64), pages.number(element + 12).astype(np.int64)
        key = element + pos
        value = key + key_len
        table_end, span_end = base + HEADER_SIZE + ELEMENT_SIZE * count, base + leaves.size[start:end]
        good = (key >= table_end[owner]) & (value + value_len <= span_end[owner]) & (key_len > 0)
        for index in np.nonzero(~good)[0][:MAX_PROBLEMS].tolist():
            leaf = start + int(owner[index])
            problem = "an element points outside its page" if key_len[index] else "an element has an empty key"
            path = leaves.path(leaf)
            self.complain(path[-1], problem, path)
        owner, key, key_len, flags = owner[good], key[good], key_len[good], flags[good]
        value, value_len = value[good], value_len[good]
        bound, bound_len = leaves.bound[start:end].copy(), leaves.bound_len[start:end].copy()
        real = np.ones(len(owner), dtype=np.bool_)
        wrong = self._disordered(owner, key, key_len, real, bound, bound_len).tolist()
        if last is not None and len(key):
            at, size = (np.array([number]) for number in last)
            if pages.compare(at, size, key[:1], key_len[:1])[0] >= 0:
                wrong.append(0)
        for index in wrong:
            leaf = start + int(owner[index])
            path = leaves.path(leaf)
            self.complain(path[-1], "its keys are not in ascending order", path)
        return LeafChunk(
            pages=pages,
            leaf_base=base,
            leaf_size=leaves.size[start:end],
            leaf_page=leaves.page[start:end],
            leaf_start=np.searchsorted(owner, np.arange(end - start + 1)),
            flags=flags,
            key_pos=key,
            key_len=key_len,
            value_pos=value,
            value_len=value_len,
            first_record=first_record,
            first_leaf=start,
            total_leaves=len(leaves.base),
        )

    def _disordered(
        self,
        owner: Positions,
        key: Positions,
        key_len: Positions,
        real: NDArray[np.bool_],
        bound: Positions,
        bound_len: Positions,
    ) -> Positions:
        """Find keys that break the order: not above the one before, below the page's bound, or above the next page's.

        `owner` is the page of each key, by index into `bound`: the least key that may stand in that page, position
        -1: any.
        """
        if not len(owner):
            return owner
        compare = self.pages.compare
        wrong = np.zeros(len(owner), dtype=np.bool_)
        same = owner[1:] == owner[:-1]
        (rows,) = np.nonzero(same & real[1:])
        wrong[rows + 1] = compare(key[rows], key_len[rows], key[rows + 1], key_len[rows + 1]) >= 0
        first = np.concatenate(([True], ~same))
        (rows,) = np.nonzero(first & real & (bound[owner] >= 0))
        wrong[rows] |= compare(bound[owner[rows]], bound_len[owner[rows]], key[rows], key_len[rows]) > 0
        (rows,) = np.nonzero(~same & real[:-1] & (bound[owner[1:]] >= 0))
        after = owner[rows + 1]
        wrong[rows] |= compare(key[rows], key_len[rows], bound[after], bound_len[after]) >= 0
        return np.nonzero(wrong)[0][:MAX_PROBLEMS]


def _elements(base: Positions, count: Positions) -> tuple[Positions, Positions]:
    """Number the elements of pages that start at `base`: for each, the index of its page and its offset in the file."""
    owner = np.repeat(np.arange(len(base)), count)
    first = np.cumsum(count) - count
    return owner, base[owner] + HEADER_SIZE + ELEMENT_SIZE * (np.arange(len(owner)) - first[owner])
