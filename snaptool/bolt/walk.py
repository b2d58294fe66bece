# cython: boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True, show_performance_hints=False
"""The leaves of a tree in key order, checked, a chunk of records at a time. Compiled where there is a compiler.

A walk goes down from the root as a reader would: where it is (`path`) is a stack of page ids, and the limits of a
page's keys are those of the branch element that leads to it. Every page may be reached once, so neither cycles nor
depth can make it run long, and what a hostile file can cost is bounded by its size. Whatever a page says is compared
with the file's bounds before it is followed. Records may not claim more bytes than their page has: bolt does not
forbid them to overlap, but it never writes that, and a small page could claim gigabytes.

What stays for a whole tree is one byte per page of the file. Knows pages and elements; knows nothing of what keys and
values mean. Source: bbolt internal/common/{page,inode}.go, tx_check.go (v1.4.3); docs/formats/bolt.md, "Checking".
"""

from __future__ import annotations

from array import array

from snaptool.bolt.faults import MAX_PROBLEMS, CorruptPage, Problem

try:
    import cython
except ImportError:
    from snaptool.compiled import cython  # type: ignore[no-redef]

if not cython.compiled:
    Bytes = memoryview
    Marks = memoryview
    Numbers = memoryview

BRANCH = cython.declare(cython.longlong, 1)
LEAF = cython.declare(cython.longlong, 2)
BUCKET = cython.declare(cython.longlong, 1)
HEADER = cython.declare(cython.longlong, 16)
ELEMENT = cython.declare(cython.longlong, 16)
LONGEST_KEY = cython.declare(cython.longlong, 32768)
DEEPEST = cython.declare(cython.longlong, 64)  # far beyond any real tree: bolt's fan-out is in the dozens at least
BEYOND = cython.declare(cython.longlong, 1 << 62)

CHUNK_RECORDS = 512
CHUNK_SIZE = 1 << 20  # bytes of pages: this stays in the cache, where four times as much does not
_ROOM = 8192


def numbers(count: int) -> memoryview:
    """Return so many zeros, of 63 bits and a sign each."""
    return memoryview(array("q", bytes(8 * count)))


class Chunk:
    """Some consecutive leaves of a tree, filled again and again. Positions are offsets in the buffer of the walk.

    Leaf i has page `leaf_page[i]` (0 for an inline bucket), spans `leaf_span[i]` pages, and holds records
    `leaf_start[i]` to `leaf_start[i + 1]`. `first_leaf`, `first_record`: how many came before in the tree. `most` and
    `size`: after how many records, and bytes of pages, the walk stops filling; one leaf goes in at least.
    Arrays grow by being replaced, so a view of one is good until the next filling only.
    """

    def __init__(self, most: int = CHUNK_RECORDS, size: int = CHUNK_SIZE) -> None:
        self.most, self.size = most, size
        self.leaves = self.records = self.first_leaf = self.first_record = 0
        self.make_room(min(_ROOM, 2 * most + 512))

    def make_room(self, room: int) -> None:
        """Have arrays for so many leaves and records, with nothing in them."""
        self.room = room
        self.leaf_page, self.leaf_span, self.leaf_start = (numbers(room + 1) for _ in range(3))
        self.key_at, self.key_size, self.value_at, self.value_size = (numbers(room) for _ in range(4))

    def __len__(self) -> int:
        return self.records

    def key(self, view: memoryview, row: int) -> bytes:
        """Return the key of a record. `view`: the buffer of the walk."""
        return bytes(view[self.key_at[row] : self.key_at[row] + self.key_size[row]])

    def value(self, view: memoryview, row: int) -> bytes:
        """Return the value of a record."""
        return bytes(view[self.value_at[row] : self.value_at[row] + self.value_size[row]])

    def leaf_of(self, row: int) -> int:
        """Return the number, in the chunk, of the leaf that holds a record."""
        return next(leaf for leaf in range(self.leaves) if self.leaf_start[leaf + 1] > row)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(-1, check=False)
def u16(data: Bytes, at: cython.Py_ssize_t) -> cython.longlong:
    """Two bytes, least significant first."""
    return data[at] | data[at + 1] << 8


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(-1, check=False)
def u32(data: Bytes, at: cython.Py_ssize_t) -> cython.longlong:
    """Four bytes."""
    return u16(data, at) | u16(data, at + 2) << 16


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(-1, check=False)
def u64(data: Bytes, at: cython.Py_ssize_t) -> cython.longlong:
    """Eight bytes. Numbers beyond 62 bits are as wrong as any other beyond the file, and come as one such."""
    high: cython.longlong = u32(data, at + 4)
    return u32(data, at) | high << 32 if high <= 0x3FFFFFFF else BEYOND


@cython.final
@cython.cclass
class Walk:
    """Goes over trees of one file, one after the other, and reaches no page twice.

    `data`: the file; `pages`: how many of it the database has. With a `report`, problems are added to it and the walk
    goes on with what is left; without one the first is raised as CorruptPage.
    """

    data: Bytes
    view: memoryview
    page_size: cython.longlong
    pages: cython.longlong
    reached: Marks
    marks: bytearray
    report: list[Problem] | None
    record_flags: cython.longlong
    # The way down. Per level: the page, its elements, which of them is next, and the first key that may not stand here.
    depth: cython.Py_ssize_t
    page: Numbers
    count: Numbers
    upcoming: Numbers
    limit_at: Numbers
    limit_size: Numbers
    # An inline bucket has one leaf, at any offset; -1: this is none.
    image_at: cython.longlong
    image_size: cython.longlong
    holder: cython.longlong
    # Pages from `ready` up to `ready_end` are not written yet: the walk stops before it enters one.
    ready: cython.longlong
    ready_end: cython.longlong
    # Leaves that stand in a line, in no tree: the next one begins at this page, the last one ends before the other.
    line_next: cython.longlong
    line_end: cython.longlong
    # Leaves that are named one by one, in no tree, and which of them is next.
    named: Numbers
    named_next: cython.Py_ssize_t
    # Pages from `known` up to `known_end`, at that depth and below, are leaves that are known already; the key under
    # which the last one stands.
    known: cython.longlong
    known_end: cython.longlong
    known_depth: cython.Py_ssize_t
    under_at: cython.longlong
    under_size: cython.longlong
    skimming: cython.bint
    is_exact: cython.bint
    seen: cython.longlong

    def __init__(self, data: memoryview, page_size: int, pages: int, report: list[Problem] | None = None) -> None:
        self.data = self.view = data
        self.page_size, self.pages = page_size, pages
        self.marks = bytearray(pages)
        self.reached = memoryview(self.marks)
        self.report = report
        self.record_flags = self.ready = self.ready_end = self.holder = self.image_size = 0
        self.line_next = self.line_end = self.known = self.known_end = self.known_depth = self.under_at = (
            self.under_size
        ) = 0
        self.named, self.named_next = numbers(0), 0
        self.image_at = self.depth = -1
        self.skimming = False
        self.is_exact = True
        self.seen = 0
        self.page, self.count, self.upcoming = numbers(DEEPEST), numbers(DEEPEST), numbers(DEEPEST)
        self.limit_at, self.limit_size = numbers(DEEPEST), numbers(DEEPEST)

    def begin(self, root: int, flags: int = 0) -> None:
        """Start at the root of a tree, all of whose records have these element flags."""
        self.begin_line(0, 0)
        self.record_flags = flags
        self.skimming = False
        self.enter(min(root, BEYOND), -1, 0, -1, 0)

    def begin_line(self, first: int, end: int) -> None:
        """Start at leaves that stand one behind the other from page `first` up to `end`, whatever leads to them."""
        self.depth = self.image_at = -1
        self.line_next, self.line_end = first, end
        self.named_next = len(self.named)
        self.record_flags = 0

    def begin_named(self, pages: Numbers) -> None:
        """Start at leaves that are named by their pages, whatever leads to them."""
        self.begin_line(0, 0)
        self.named, self.named_next = pages, 0

    def begin_inline(self, at: int, size: int, holder: int) -> None:
        """Start at an inline bucket: one leaf image at offset `at`, in the record of page `holder`."""
        self.begin_line(0, 0)
        self.depth = 0
        self.image_at, self.image_size, self.holder = at, size, holder
        self.page[0] = self.upcoming[0] = 0
        # A broken one has size 0 where the walk goes on all the same; what stands at its offset is not its own.
        self.count[0] = u16(self.data, at + 10) if size >= HEADER else 0
        self.limit_at[0] = -1
        self.check_elements(at, size, True, -1, 0)

    def set_ready(self, ready: int, end: int) -> None:
        """Stop before pages from `ready` up to `end`, which are not written yet."""
        self.ready, self.ready_end = ready, end

    def set_known(self, first: int, end: int) -> None:
        """Take pages from `first` up to `end` for leaves without a look at them: `skim` says under which keys they are.

        They count as reached, all of them.
        """
        self.known, self.known_end = first, end
        self.marks[first:end] = b"\1" * (end - first)
        self.seen += end - first

    def assume_leaves(self, depth: int) -> None:
        """Take all pages that many levels below the root for leaves without a look at them, as `set_known` does.

        They do not count as reached.
        """
        self.known, self.known_end, self.known_depth = 0, self.pages, depth

    @cython.cfunc
    @cython.inline
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def is_known(self, page: cython.longlong, depth: cython.Py_ssize_t) -> cython.int:
        """Is it a leaf that nobody has to look at?"""
        return self.known <= page < self.known_end and self.known_depth <= depth < DEEPEST

    def to_last_leaf(self) -> None:
        """Pass over all leaves but the last one. Raises CorruptPage for what is wrong on the way to that."""
        while self.depth >= 0 and self.image_at < 0:
            if u16(self.data, self.page[self.depth] * self.page_size + 8) == LEAF:
                break
            self.upcoming[self.depth] = max(self.count[self.depth] - 1, 0)
            self.follow()

    def to_key(self, key: bytes) -> None:
        """Pass over all leaves before the one in which a key belongs. Raises CorruptPage, as `to_last_leaf`."""
        while self.depth >= 0 and self.image_at < 0:
            base = self.page[self.depth] * self.page_size
            if u16(self.data, base + 8) == LEAF:
                break
            low, high = 0, self.count[self.depth]
            while low < high:
                element = base + HEADER + ELEMENT * ((low + high) // 2)
                at = element + u32(self.data, element)
                if bytes(self.view[at : at + u32(self.data, element + 4)]) <= key:
                    low = (low + high) // 2 + 1
                else:
                    high = (low + high) // 2
            self.upcoming[self.depth] = max(low - 1, 0)
            self.follow()

    def pages_seen(self) -> int:
        """Return how many pages were reached so far."""
        return self.seen

    def at_end(self) -> bool:
        """Has the tree no more leaves?"""
        return self.depth < 0

    def reached_pages(self) -> bytearray:
        """Return a byte for each page of the file, 1 where a tree has it."""
        return self.marks

    def found_by_first_keys(self) -> bool:
        """Did every page so far begin with the key under which its branch has it?

        To read, a branch's key may be any that divides the pages. Bolt's writer looks for the page's first key in the
        branch when it replaces the page; does it not find it, the old page stays in the tree.
        """
        return self.is_exact

    def path(self) -> tuple[int, ...]:
        """Return the page ids from the root down to where the walk is."""
        if self.image_at >= 0:
            return (int(self.holder),)
        return tuple([int(self.page[level]) for level in range(self.depth + 1)])

    # --- problems ---

    def told(self, page: int, problem: str) -> None:
        """Raise CorruptPage, or note the problem."""
        path = self.path()
        page = self.holder if self.image_at >= 0 else page
        if page not in path:
            path = (*path, page)
        if self.report is None:
            raise CorruptPage(page, problem, path)
        if len(self.report) < MAX_PROBLEMS:
            self.report.append(Problem(page, problem, path))
        elif len(self.report) == MAX_PROBLEMS:
            self.report.append(Problem(page, "and more problems from here on, which are not listed", path))

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def complain(self, page: cython.longlong, problem: cython.Py_ssize_t, number: cython.longlong = 0) -> cython.int:
        """Tell of a problem; 0 when the walk goes on."""
        with cython.gil:
            self.told(page, PROBLEMS[problem].format(number))
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def complain_of_id(self, page: cython.longlong) -> cython.int:
        """Tell of a page whose header has another number; that may have any size."""
        with cython.gil:
            found = int.from_bytes(self.view[page * self.page_size :][:8], "little")
            self.told(page, f"its header says that it is page {found}")
        return 0

    # --- the way down ---

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def enter(
        self,
        page: cython.longlong,
        lower_at: cython.longlong,
        lower_size: cython.longlong,
        limit_at: cython.longlong,
        limit_size: cython.longlong,
    ) -> cython.int:
        """Step down to a page whose keys have to be from the one at `lower_at` on and below the one at `limit_at`.

        A position of -1: there is no such limit. A page that cannot be one of the tree is told of and left out.
        """
        depth: cython.Py_ssize_t = self.depth + 1
        number: cython.longlong
        if page < 2:
            return self.complain(page, META_PAGE)
        if page >= self.pages:
            return self.complain(page, BEHIND_THE_END, self.pages)
        base: cython.longlong = page * self.page_size
        flags: cython.longlong = u16(self.data, base + 8)
        count: cython.longlong = u16(self.data, base + 10)
        overflow: cython.longlong = u32(self.data, base + 12)
        size: cython.longlong = (overflow + 1) * self.page_size
        if u64(self.data, base) != page:
            return self.complain_of_id(page)
        if flags not in (BRANCH, LEAF):
            return self.complain(page, WRONG_FLAGS, flags)
        if page + overflow >= self.pages:
            return self.complain(page, OVERFLOWS, overflow)
        if HEADER + ELEMENT * count > size:
            return self.complain(page, TOO_MANY, count)
        if flags == BRANCH and count == 0:
            return self.complain(page, CHILDLESS)
        if depth >= DEEPEST:
            return self.complain(page, TOO_DEEP, DEEPEST)
        for number in range(page, page + overflow + 1):
            if self.reached[number]:
                return self.complain(page, REACHED_TWICE)
        for number in range(page, page + overflow + 1):
            self.reached[number] = 1
        self.seen += overflow + 1
        self.depth = depth
        self.page[depth] = page
        self.count[depth] = count
        self.upcoming[depth] = 0
        self.limit_at[depth] = limit_at
        self.limit_size[depth] = limit_size
        if self.skimming and flags == LEAF:
            # Of its records the first alone is looked at.
            element: cython.longlong = base + HEADER
            if count and self.fits(element, base, size, True, page) and lower_at >= 0:
                element_key: cython.longlong = element + u32(self.data, element + 4)
                if self.compare(lower_at, lower_size, element_key, u32(self.data, element + 8)):
                    self.is_exact = False
            return 0
        return self.check_elements(base, size, flags == LEAF, lower_at, lower_size)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def check_elements(
        self,
        base: cython.longlong,
        size: cython.longlong,
        is_leaf: cython.bint,
        lower_at: cython.longlong,
        lower_size: cython.longlong,
    ) -> cython.int:
        """Elements lie inside their page, do not overlap, and their keys ascend within the limits of the page."""
        count: cython.longlong = self.count[self.depth]
        page: cython.longlong = base // self.page_size
        room: cython.longlong = size - HEADER - ELEMENT * count
        before_at: cython.longlong = lower_at
        before_size: cython.longlong = lower_size
        element: cython.longlong = base + HEADER
        key_at: cython.longlong
        key_size: cython.longlong
        order: cython.int
        first: cython.bint = True
        for _ in range(count):
            if self.fits(element, base, size, is_leaf, page):
                key_at = element + u32(self.data, element + (4 if is_leaf else 0))
                key_size = u32(self.data, element + (8 if is_leaf else 4))
                room -= key_size + (u32(self.data, element + 12) if is_leaf else 0)
                if room < 0:
                    self.count[self.depth] = 0
                    return self.complain(page, OVERLAPS)
                if before_at >= 0:
                    order = self.compare(before_at, before_size, key_at, key_size)
                    if order > 0 or (order == 0 and not first):
                        self.complain(page, DISORDERED)
                    elif order and first:
                        self.is_exact = False
                before_at, before_size, first = key_at, key_size, False
            element += ELEMENT
        if (
            not first
            and self.limit_at[self.depth] >= 0
            and self.compare(before_at, before_size, self.limit_at[self.depth], self.limit_size[self.depth]) >= 0
        ):
            self.complain(page, DISORDERED)
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def fits(
        self,
        element: cython.longlong,
        base: cython.longlong,
        size: cython.longlong,
        is_leaf: cython.bint,
        told_of: cython.longlong,
    ) -> cython.int:
        """Is an element of the page at `base` one that may be followed? Tells of page `told_of` if not; -1: nobody."""
        key_at: cython.longlong = element + u32(self.data, element + (4 if is_leaf else 0))
        key_size: cython.longlong = u32(self.data, element + (8 if is_leaf else 4))
        value_size: cython.longlong = u32(self.data, element + 12) if is_leaf else 0
        problem: cython.Py_ssize_t = -1
        number: cython.longlong = 0
        if key_at < base + HEADER + ELEMENT * self.count[self.depth] or key_at + key_size + value_size > base + size:
            problem = OUTSIDE
        elif key_size > LONGEST_KEY:
            problem, number = LONG_KEY, key_size
        elif is_leaf and key_size == 0:
            problem = EMPTY_KEY
        elif is_leaf and u32(self.data, element) != self.record_flags:
            problem = NOT_A_BUCKET if self.record_flags == BUCKET else NESTED
            number = u32(self.data, element)
        if problem < 0:
            return 1
        return self.complain(told_of, problem, number) if told_of >= 0 else 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-2, check=False)
    def compare(
        self, a: cython.longlong, a_size: cython.longlong, b: cython.longlong, b_size: cython.longlong
    ) -> cython.int:
        """Compare two keys as bolt orders them: -1, 0 or 1."""
        offset: cython.longlong
        for offset in range(min(a_size, b_size)):
            if self.data[a + offset] != self.data[b + offset]:
                return -1 if self.data[a + offset] < self.data[b + offset] else 1
        return -1 if a_size < b_size else a_size > b_size

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def follow(self) -> cython.int:
        """Step down to the next child of the branch at hand; its keys end where those of its sibling begin."""
        depth: cython.Py_ssize_t = self.depth
        base: cython.longlong = self.page[depth] * self.page_size
        size: cython.longlong = (u32(self.data, base + 12) + 1) * self.page_size
        index: cython.longlong = self.upcoming[depth]
        element: cython.longlong = base + HEADER + ELEMENT * index
        sibling: cython.longlong = element + ELEMENT
        self.upcoming[depth] = index + 1
        if not self.fits(element, base, size, False, -1):
            return 0
        limit_at: cython.longlong = self.limit_at[depth]
        limit_size: cython.longlong = self.limit_size[depth]
        while index + 1 < self.count[depth]:
            if self.fits(sibling, base, size, False, -1):
                limit_at = sibling + u32(self.data, sibling)
                limit_size = u32(self.data, sibling + 4)
                break
            index, sibling = index + 1, sibling + ELEMENT
        key_at: cython.longlong = element + u32(self.data, element)
        child: cython.longlong = u64(self.data, element + 8)
        if self.is_known(child, depth + 1):
            self.under_at, self.under_size = key_at, u32(self.data, element + 4)
            self.depth = depth + 1
            self.page[self.depth] = child
            return 0
        return self.enter(child, key_at, u32(self.data, element + 4), limit_at, limit_size)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def to_leaf(self) -> cython.int:
        """Go on to the next leaf; 0 at the end, and before a page that is not written yet."""
        base: cython.longlong
        child: cython.longlong
        if self.depth < 0 and self.named_next < len(self.named):
            self.line_next = self.named[self.named_next]
            self.line_end = self.line_next + 1
            self.named_next += 1
        if self.depth < 0 and self.line_next < self.line_end:
            self.enter(self.line_next, -1, 0, -1, 0)
            base = self.line_next * self.page_size
            if u16(self.data, base + 8) != LEAF:
                self.complain(self.line_next, WRONG_FLAGS, u16(self.data, base + 8))
            self.line_next += u32(self.data, base + 12) + 1
        while self.depth >= 0 and self.image_at < 0:
            if self.is_known(self.page[self.depth], self.depth):
                return 1
            base = self.page[self.depth] * self.page_size
            if u16(self.data, base + 8) == LEAF:
                return 1
            if self.upcoming[self.depth] < self.count[self.depth]:
                if self.ready < self.ready_end:
                    child = u64(self.data, base + HEADER + ELEMENT * self.upcoming[self.depth] + 8)
                    if self.ready <= child < self.ready_end:
                        return 0
                self.follow()
            else:
                self.depth -= 1
        return self.depth >= 0

    # --- leaves ---

    def fill(self, chunk: Chunk) -> bool:
        """Put the next leaves into `chunk`; whether there are any. Raises CorruptPage."""
        self.skimming = False
        chunk.first_leaf += chunk.leaves
        chunk.first_record += chunk.records
        chunk.leaves = chunk.records = 0
        while self.add_leaves(chunk):
            chunk.make_room(max(2 * chunk.room, self.count[self.depth] + 1))
        return chunk.leaves > 0

    def add_leaves(self, chunk: Chunk) -> bool:
        """Fill `chunk`; whether the next leaf has more records than it has room for, and it holds nothing yet."""
        leaf_page: Numbers = chunk.leaf_page
        leaf_span: Numbers = chunk.leaf_span
        leaf_start: Numbers = chunk.leaf_start
        key_at: Numbers = chunk.key_at
        key_size: Numbers = chunk.key_size
        value_at: Numbers = chunk.value_at
        value_size: Numbers = chunk.value_size
        room: cython.longlong = chunk.room
        most: cython.longlong = chunk.most
        most_pages: cython.longlong = max(chunk.size // self.page_size, 1)
        leaves: cython.longlong = 0
        records: cython.longlong = 0
        pages: cython.longlong = 0
        base: cython.longlong
        size: cython.longlong
        element: cython.longlong
        too_small: cython.bint = False
        with cython.nogil:
            while records < most and pages < most_pages and leaves < room and self.to_leaf():
                if records + self.count[self.depth] > room:
                    too_small = leaves == 0
                    break
                if self.image_at >= 0:
                    base, size = self.image_at, self.image_size
                    leaf_page[leaves] = leaf_span[leaves] = 0
                else:
                    base = self.page[self.depth] * self.page_size
                    leaf_page[leaves] = self.page[self.depth]
                    leaf_span[leaves] = u32(self.data, base + 12) + 1
                    size = leaf_span[leaves] * self.page_size
                leaf_start[leaves] = records
                element = base + HEADER
                for _ in range(self.count[self.depth]):
                    if self.report is None or self.fits(element, base, size, True, -1):
                        key_at[records] = element + u32(self.data, element + 4)
                        key_size[records] = u32(self.data, element + 8)
                        value_at[records] = key_at[records] + key_size[records]
                        value_size[records] = u32(self.data, element + 12)
                        records += 1
                    element += ELEMENT
                pages += leaf_span[leaves]
                leaves += 1
                self.depth -= 1
            leaf_start[leaves] = records
        chunk.leaves, chunk.records = leaves, records
        return too_small

    def skim(self, chunk: Chunk) -> bool:
        """Put the next leaves into `chunk`, each with one record: its first, whose value nobody has checked.

        `leaf_start` is then the number of the leaf in the chunk. A leaf without records has a first key of size 0. Of a
        known one (`set_known`) the key is that of its branch, and the span 0.
        """
        chunk.first_leaf += chunk.leaves
        chunk.first_record = chunk.first_leaf
        chunk.leaves = chunk.records = 0
        leaf_page: Numbers = chunk.leaf_page
        leaf_span: Numbers = chunk.leaf_span
        leaf_start: Numbers = chunk.leaf_start
        key_at: Numbers = chunk.key_at
        key_size: Numbers = chunk.key_size
        room: cython.longlong = min(chunk.room, chunk.most)
        leaves: cython.longlong = 0
        base: cython.longlong
        element: cython.longlong
        self.skimming = True
        with cython.nogil:
            while leaves < room and self.to_leaf():
                leaf_page[leaves] = self.page[self.depth]
                leaf_start[leaves] = leaves
                if self.is_known(self.page[self.depth], self.depth):
                    key_at[leaves], key_size[leaves], leaf_span[leaves] = self.under_at, self.under_size, 0
                    leaves += 1
                    self.depth -= 1
                    continue
                base = self.page[self.depth] * self.page_size
                element = base + HEADER
                leaf_span[leaves] = u32(self.data, base + 12) + 1
                key_at[leaves] = key_size[leaves] = 0
                if self.count[self.depth]:
                    key_at[leaves] = element + u32(self.data, element + 4)
                    key_size[leaves] = u32(self.data, element + 8)
                leaves += 1
                self.depth -= 1
            leaf_start[leaves] = leaves
        chunk.leaves = chunk.records = leaves
        return leaves > 0


PROBLEMS = (
    "a tree leads here, and this is a meta page",
    "a tree leads here, and this is beyond the high-water mark of {} pages",
    "flags {:#06x} are not those of a branch or a leaf",
    "its {} overflow pages reach beyond the high-water mark",
    "its {} elements do not fit into it",
    "a branch without children",
    "it is reached twice",
    "the tree is deeper than {} levels",
    "an element points outside its page",
    "a key has {} bytes, more than bolt allows",
    "an element has an empty key",
    "a record is a bucket inside a bucket, or of an unknown kind (element flags {:#x})",
    "the root bucket holds something that is not a bucket (element flags {:#x})",
    "its elements overlap",
    "its keys are not in ascending order",
)
META_PAGE = cython.declare(cython.Py_ssize_t, 0)
BEHIND_THE_END = cython.declare(cython.Py_ssize_t, 1)
WRONG_FLAGS = cython.declare(cython.Py_ssize_t, 2)
OVERFLOWS = cython.declare(cython.Py_ssize_t, 3)
TOO_MANY = cython.declare(cython.Py_ssize_t, 4)
CHILDLESS = cython.declare(cython.Py_ssize_t, 5)
REACHED_TWICE = cython.declare(cython.Py_ssize_t, 6)
TOO_DEEP = cython.declare(cython.Py_ssize_t, 7)
OUTSIDE = cython.declare(cython.Py_ssize_t, 8)
LONG_KEY = cython.declare(cython.Py_ssize_t, 9)
EMPTY_KEY = cython.declare(cython.Py_ssize_t, 10)
NESTED = cython.declare(cython.Py_ssize_t, 11)
NOT_A_BUCKET = cython.declare(cython.Py_ssize_t, 12)
OVERLAPS = cython.declare(cython.Py_ssize_t, 13)
DISORDERED = cython.declare(cython.Py_ssize_t, 14)
