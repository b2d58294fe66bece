"""Reads the rows of a table of an SQLite file, in the order of their ids, out of bytes alone.

The library of SQLite opens files by name, makes others beside them, and does what a hostile file asks for. Here the
file is a buffer, and its write-ahead log another: pages of committed transactions count before those of the file.
Tables, records and overflow pages are read; indexes, free pages and everything that SQL can do are not.

Every page is visited once at most, so that any bytes end in rows or in a ContainerFault, in time and memory that the
size of the file bounds. Source: sqlite.org/fileformat2.html, 1.3, 1.5, 1.6, 2.1, 2.3, 4.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from snaptool.containers.faults import ContainerFault, corrupt

Buffer = bytes | memoryview
Cell = int | float | bytes | None
"""A value of a row; texts are given as UTF-8."""

_HEADER: Final = 100
_WAL_HEADER, _FRAME_HEADER = 32, 24
_WAL_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
_DEEPEST = 40
_INTERIOR, _LEAF = 0x05, 0x0D
_ENCODINGS = {0: "utf-8", 1: "utf-8", 2: "utf-16-le", 3: "utf-16-be"}
_INTEGER_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its id, and the values by name of column; those that a shorter, older row lacks are absent."""

    number: int
    values: dict[str, Cell]


class SqliteFile:
    """The file in `buffer`, which messages call `place`, with its write-ahead log. Raises ContainerFault."""

    def __init__(self, buffer: Buffer, place: str, log: Buffer = b"") -> None:
        self._data = memoryview(buffer)
        self._place = place
        head = self._data[:_HEADER]
        stated = int.from_bytes(head[16:18], "big") if len(head) == _HEADER else 0
        self._page_size = 65536 if stated == 1 else stated
        if self._page_size & (self._page_size - 1) or self._page_size < 512:
            raise self._damaged(0, "it states no size of a page")
        self._usable = self._page_size - head[20]
        self._encoding = _ENCODINGS.get(int.from_bytes(head[56:60], "big"), "")
        if self._usable < 480 or not self._encoding:
            raise self._damaged(0, "its header cannot be")
        self._log = memoryview(log)
        self._newer = _committed(self._log, self._page_size)
        self._visits = 0

    @property
    def _page_count(self) -> int:
        return len(self._data) // self._page_size + len(self._newer)

    def _damaged(self, page: int, problem: str) -> ContainerFault:
        return corrupt(self._place, max(page - 1, 0) * getattr(self, "_page_size", 0), problem)

    def _page(self, number: int) -> memoryview:
        """Return a page, numbered from 1; each is asked for once."""
        self._visits += 1
        if self._visits > self._page_count:
            raise self._damaged(number, "its pages lead in a circle")
        at = self._newer.get(number)
        if at is not None:
            return self._log[at : at + self._page_size]
        page = self._data[(number - 1) * self._page_size : number * self._page_size] if number > 0 else self._data[:0]
        if len(page) < self._page_size:
            raise self._damaged(number, f"page {number:,} is behind its end")
        return page

    # --- tables ---

    def rows(self, table: str) -> Iterator[Row]:
        """Yield the rows of a table in ascending order of their ids. Raises ContainerFault, also for no such table."""
        root, columns, alias = self._definition(table)
        self._visits = 0
        last: int | None = None
        for number, payload in self._cells(root):
            if last is not None and number <= last:
                raise self._damaged(root, f"row {number:,} stands behind row {last:,}")
            last = number
            values = dict(zip(columns, self._record(payload), strict=False))
            if alias:
                values[alias] = number
            yield Row(number, values)

    def _definition(self, table: str) -> tuple[int, list[str], str]:
        """Find a table: its root page, the names of its columns, and the one that is another name of the id."""
        self._visits = 0
        for _, payload in self._cells(1):
            kind, name, _, root, sql = (*self._record(payload), *[None] * 5)[:5]
            if kind == b"table" and isinstance(name, bytes) and name.decode(errors="replace").lower() == table:
                if not isinstance(root, int) or not isinstance(sql, bytes):
                    break
                columns, alias = _columns(sql.decode(errors="replace"))
                return root, columns, alias
        raise self._damaged(1, f"it has no table {table}")

    def _cells(self, root: int) -> Iterator[tuple[int, memoryview | bytes]]:
        """Yield id and payload of each row below a page of a table."""
        stack = [iter([root])]
        while stack:
            number = next(stack[-1], None)
            if number is None:
                stack.pop()
                continue
            page = self._page(number)
            start = _HEADER if number == 1 else 0
            kind, count = page[start], int.from_bytes(page[start + 3 : start + 5], "big")
            pointers = start + (12 if kind == _INTERIOR else 8)
            if pointers + 2 * count > self._usable or kind not in {_INTERIOR, _LEAF}:
                raise self._damaged(number, f"page {number:,} is not a page of a table")
            places = struct.unpack_from(f">{count}H", page, pointers)
            if kind == _INTERIOR:
                if len(stack) >= _DEEPEST:
                    raise self._damaged(number, "its tree is too deep")
                stack.append(self._children(page, places, start))
                continue
            for at in places:
                yield self._cell(number, page, at)

    def _children(self, page: memoryview, places: tuple[int, ...], start: int) -> Iterator[int]:
        for at in (*places, start + 8):
            yield int.from_bytes(page[at : at + 4], "big")

    def _cell(self, number: int, page: memoryview, at: int) -> tuple[int, memoryview | bytes]:
        try:
            size, at = _varint(page, at)
            row, at = _varint(page, at)
        except IndexError:
            raise self._damaged(number, f"a cell of page {number:,} breaks off") from None
        row -= (row >> 63) << 64
        local = self._local_size(size)
        inside = page[at : at + local]
        if at + local > self._usable or size > len(self._data) + len(self._log):
            raise self._damaged(number, f"row {row:,} is larger than the file")
        if local == size:
            return row, inside
        parts = [bytes(inside)]
        left, following = size - local, int.from_bytes(page[at + local : at + local + 4], "big")
        while left:
            more = self._page(following)
            parts.append(bytes(more[4 : min(self._usable, 4 + left)]))
            left -= len(parts[-1])
            following = int.from_bytes(more[:4], "big")
        return row, b"".join(parts)

    def _local_size(self, size: int) -> int:
        """How much of a payload is in its cell. Source: fileformat2, 1.6, "Cell Payload Overflow Pages"."""
        largest = self._usable - 35
        if size <= largest:
            return size
        least = (self._usable - 12) * 32 // 255 - 23
        wanted = least + (size - least) % (self._usable - 4)
        return wanted if wanted <= largest else least

    # --- records ---

    def _record(self, payload: memoryview | bytes) -> list[Cell]:
        """Decode the values of a record. Source: fileformat2, 2.1."""
        try:
            header, at = _varint(payload, 0)
            types = []
            while at < header:
                one, at = _varint(payload, at)
                types.append(one)
            values: list[Cell] = []
            for one in types:
                value, at = self._value(one, payload, at)
                values.append(value)
        except (IndexError, struct.error):
            raise self._damaged(1, "a row of it breaks off") from None
        return values

    def _value(self, kind: int, payload: memoryview | bytes, at: int) -> tuple[Cell, int]:
        if kind == 0:
            return None, at
        if kind in {8, 9}:
            return kind - 8, at
        size = _INTEGER_SIZES.get(kind, 8) if kind < 12 else (kind - 12) // 2
        data = bytes(payload[at : at + size])
        if len(data) < size:
            raise IndexError
        if kind == 7:
            return float(struct.unpack(">d", data)[0]), at + size
        if kind < 7:
            return int.from_bytes(data, "big", signed=True), at + size
        if kind < 12:
            raise self._damaged(1, f"a row of it has a value of type {kind}, which none has")
        if kind % 2 and self._encoding != "utf-8":
            data = data.decode(self._encoding, errors="replace").encode()
        return data, at + size


def _varint(data: memoryview | bytes, at: int) -> tuple[int, int]:
    """Read a number of one to nine bytes; return it and the place behind it. Raises IndexError."""
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | data[at], at + 1


def _columns(sql: str) -> tuple[list[str], str]:
    """Take the names of the columns out of a CREATE TABLE, and the name of the one that is the id."""
    inside = sql[sql.find("(") + 1 : sql.rfind(")")]
    parts, depth, begin = [], 0, 0
    for at, character in enumerate(inside):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(inside[begin:at])
            begin = at + 1
    names, alias = [], ""
    for part in (*parts, inside[begin:]):
        match = re.match(r"\s*[\"'`\[]?(\w+)", part)
        if match is None or match[1].upper() in {"PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "CONSTRAINT"}:
            continue
        names.append(match[1].lower())
        if re.search(r"\bINTEGER\s+PRIMARY\s+KEY\b", part, re.IGNORECASE):
            alias = names[-1]
    return names, alias


def _committed(log: memoryview, page_size: int) -> dict[int, int]:
    """Return where in a write-ahead log the newest committed form of each page is. Source: fileformat2, 4.

    As SQLite does, whatever is not whole ends it: frames behind the last commit, those of an earlier use of the file,
    and a log whose header is not one.
    """
    if len(log) < _WAL_HEADER:
        return {}
    order = _WAL_MAGIC.get(int.from_bytes(log[:4], "big"))
    if order is None or int.from_bytes(log[8:12], "big") != page_size:
        return {}
    salts, sums = bytes(log[16:24]), _checksum(log[:24], (0, 0), order)
    if sums != struct.unpack_from(">II", log, 24):
        return {}
    found: dict[int, int] = {}
    pending: dict[int, int] = {}
    for at in range(_WAL_HEADER, len(log) - page_size - _FRAME_HEADER + 1, page_size + _FRAME_HEADER):
        number, commits = struct.unpack_from(">II", log, at)
        sums = _checksum(log[at : at + 8], sums, order)
        sums = _checksum(log[at + _FRAME_HEADER : at + _FRAME_HEADER + page_size], sums, order)
        if bytes(log[at + 8 : at + 16]) != salts or struct.unpack_from(">II", log, at + 16) != sums:
            break
        pending[number] = at + _FRAME_HEADER
        if commits:
            found |= pending
            pending = {}
    return found


def _checksum(data: memoryview, sums: tuple[int, int], order: str) -> tuple[int, int]:
    first, second = sums
    for one, other in struct.iter_unpack(f"{order}II", data):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return first, second
