"""A tar archive as entries, one after the other: ustar, GNU and PAX, long names and sparse files.

The standard library's reader takes a damaged header for the end of the archive, reads headers of any size into memory,
and does not see what follows the end. This one reads an archive of any size in the memory of one header. Links,
devices and the like are not taken for files; nothing is ever followed or created.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Sparse Formats".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from snaptool.containers.faults import corrupt, too_big, trailing, truncated
from snaptool.containers.readers import PIECE, Peekable, Reader, Section

BLOCK = 512
_LARGEST_HEADER = 1 << 20  # of a long name or a PAX header
_MOST_HOLES = 1 << 18
_LONGEST_TAIL = 32 << 20  # zeros behind the end: blocking factors are far below
_PAX_MEMBERS = frozenset({b"x", b"g"})
_GNU_NAMES = frozenset({b"L", b"K"})
_WITHOUT_DATA = frozenset(b"123456")


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry. `size` in bytes as a file, holes included; `is_file`: regular or sparse; `content` reads it.

    `raw_name` and `header`, 512 bytes, as they are stored. `section`: where the file stands in the archive, as it is.
    """

    name: str
    size: int
    is_file: bool
    content: Peekable
    raw_name: bytes
    header: bytes
    section: Section | None


@dataclass(slots=True)
class _Header:
    name: bytes
    size: int
    kind: bytes
    raw: bytes


class TarWalk:
    """Walks an archive once. Leave an entry unread, or read it, before asking for the next.

    Raises ContainerFault: container_truncated, container_corrupt, container_trailing_data.
    """

    def __init__(self, source: Peekable, place: str) -> None:
        self._source = source
        self._place = place

    def __iter__(self) -> Iterator[TarEntry]:
        """Yield the entries; then read the archive to its end."""
        common: dict[str, bytes] = {}
        own: dict[str, bytes] = {}
        long_name: bytes | None = None
        holes: list[tuple[int, int]] = []
        while (header := self._header()) is not None:
            if header.kind in _PAX_MEMBERS:
                (common if header.kind == b"g" else own).update(self._pax(header.size, holes))
                continue
            if header.kind in _GNU_NAMES:
                text = self._extra(header.size)
                long_name = text.rstrip(b"\0") if header.kind == b"L" else long_name
                continue
            yield from self._entry(header, common | own, long_name, holes)
            own, long_name, holes = {}, None, []
        self._read_tail()

    def _entry(
        self, header: _Header, pax: dict[str, bytes], long_name: bytes | None, holes: list[tuple[int, int]]
    ) -> Iterator[TarEntry]:
        stored = self._number(pax["size"]) if "size" in pax else header.size
        name = pax.get("GNU.sparse.name") or pax.get("path") or long_name or header.name
        is_file = header.kind in {b"0", b"\0", b"7", b"S"} and not (header.kind == b"\0" and name.endswith(b"/"))
        if ord(header.kind) in _WITHOUT_DATA:
            stored = 0
        size, parts = stored, None
        if header.kind == b"S":
            size, parts = self._old_sparse(header.raw)
        elif is_file and any(key.startswith("GNU.sparse.") for key in pax):
            before = self._source.position
            size, parts = self._pax_sparse(pax, holes)
            stored -= self._source.position - before
        end = self._source.position + stored
        body: Reader = _Body(self._source, stored, self._place)
        section = Section(self._source.position, stored) if parts is None else None
        if parts is not None:
            self._check_parts(parts, size, stored)
            body = _Sparse(body, parts, size)
        content = Peekable(body)
        yield TarEntry(name.decode(errors="backslashreplace"), size, is_file, content, name, header.raw, section)
        self._pass_over(end)

    def _pass_over(self, end: int) -> None:
        left = end - self._source.position
        padding = -end % BLOCK
        # The archive begins where its source does, so that positions are multiples of blocks.
        if self._source.skip(left):
            raise truncated(self._place, self._source.position)
        missing = self._source.skip(padding)
        if 0 < missing < padding:
            raise truncated(self._place, self._source.position)

    def _header(self) -> _Header | None:
        block = self._source.read_exactly(BLOCK)
        if not block or block == bytes(BLOCK):
            return None
        if len(block) < BLOCK:
            raise truncated(self._place, self._source.position)
        stated = self._octal(block[148:156])
        counted = sum(block) - sum(block[148:156]) + 8 * 0x20
        signed = counted - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
        if stated not in {counted, signed}:
            raise corrupt(self._place, self._source.position - BLOCK, "a tar header has a wrong checksum")
        name = block[:100].split(b"\0", 1)[0]
        prefix = block[345:500].split(b"\0", 1)[0]
        if block[257:263] == b"ustar\0" and prefix:
            name = prefix + b"/" + name
        return _Header(name, self._octal(block[124:136]), block[156:157], block)

    def _octal(self, field: bytes) -> int:
        """Read a number: octal digits, or from GNU tar binary with the first bit set."""
        if field[0] & 0x80:
            value = int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
            if field[0] & 0x40:
                value = 0  # negative: times before 1970; no size
            if value >= 1 << 63:
                raise corrupt(self._place, self._source.position, "a number in a tar header is too large")
            return value
        text = field.split(b"\0", 1)[0].strip()
        if not text:
            return 0
        if not all(0x30 <= digit <= 0x37 for digit in text):
            raise corrupt(self._place, self._source.position, "a number in a tar header is not octal")
        return int(text, 8)

    def _number(self, text: bytes) -> int:
        if not text.isdigit() or len(text) > 18:
            raise corrupt(self._place, self._source.position, "a number in a PAX header is none")
        return int(text)

    def _extra(self, size: int) -> bytes:
        """Read what a header of the archive itself holds."""
        if size > _LARGEST_HEADER:
            raise corrupt(self._place, self._source.position, f"a header of the archive has {size:,} bytes")
        data = self._source.read_exactly(size)
        if len(data) < size or self._source.skip(-size % BLOCK):
            raise truncated(self._place, self._source.position)
        return data

    def _pax(self, size: int, holes: list[tuple[int, int]]) -> dict[str, bytes]:
        data, found, at = self._extra(size), {}, 0
        while at < len(data):
            space = data.find(b" ", at, at + 12)
            length = data[at:space] if space > 0 else b""
            if data[at : at + 1] == b"\0":
                break
            if not length.isdigit() or not 5 <= int(length) <= len(data) - at:
                raise corrupt(self._place, self._source.position, "a PAX header is not a list of records")
            key, equals, value = data[space + 1 : at + int(length) - 1].partition(b"=")
            if not equals:
                raise corrupt(self._place, self._source.position, "a PAX header is not a list of records")
            name = key.decode(errors="replace")
            found[name] = value
            if name == "GNU.sparse.offset":
                holes.append((self._number(value), 0))
            elif name == "GNU.sparse.numbytes" and holes:
                holes[-1] = holes[-1][0], self._number(value)
            at += int(length)
        return found

    def _old_sparse(self, block: bytes) -> tuple[int, list[tuple[int, int]]]:
        size, parts = self._octal(block[483:495]), self._sparse_table(block[386:482])
        more = block[482]
        while more:
            block = self._source.read_exactly(BLOCK)
            if len(block) < BLOCK:
                raise truncated(self._place, self._source.position)
            parts += self._sparse_table(block[:504])
            more = block[504]
            self._limit(len(parts))
        return size, parts

    def _sparse_table(self, table: bytes) -> list[tuple[int, int]]:
        pairs = [(table[at : at + 12], table[at + 12 : at + 24]) for at in range(0, len(table), 24)]
        return [(self._octal(offset), self._octal(count)) for offset, count in pairs if offset[0]]

    def _pax_sparse(self, pax: dict[str, bytes], holes: list[tuple[int, int]]) -> tuple[int, list[tuple[int, int]]]:
        size = self._number(pax.get("GNU.sparse.realsize") or pax.get("GNU.sparse.size") or b"0")
        if pax.get("GNU.sparse.major") == b"1":
            return size, self._sparse_map()
        if "GNU.sparse.map" in pax:
            numbers = [self._number(text) for text in pax["GNU.sparse.map"].split(b",")]
            return size, list(zip(numbers[::2], numbers[1::2], strict=False))
        return size, holes

    def _sparse_map(self) -> list[tuple[int, int]]:
        """Read the map of format 1.0: decimal numbers, one a line, before the data, filled up to whole blocks."""
        start, line, numbers, wanted = self._source.position, b"", list[int](), 1
        while len(numbers) < wanted:
            block = self._source.read_exactly(BLOCK)
            if len(block) < BLOCK:
                raise truncated(self._place, start)
            *lines, line = (line + block).split(b"\n")
            if len(line) > BLOCK:
                raise corrupt(self._place, start, "the map of a sparse file is not a list of numbers")
            numbers += [self._number(text) for text in lines[: wanted - len(numbers)]]
            if wanted == 1 and numbers:
                self._limit(numbers[0])
                wanted = 1 + 2 * numbers[0]
                numbers += [self._number(text) for text in lines[1:wanted]]
        return list(zip(numbers[1::2], numbers[2::2], strict=True))

    def _limit(self, count: int) -> None:
        if count > _MOST_HOLES:
            raise corrupt(self._place, self._source.position, f"a sparse file has more than {_MOST_HOLES:,} parts")

    def _check_parts(self, parts: list[tuple[int, int]], size: int, stored: int) -> None:
        at = 0
        for offset, count in parts:
            if offset < at or offset + count > size:
                raise corrupt(self._place, self._source.position, "the parts of a sparse file overlap")
            at = offset + count
        if sum(count for _, count in parts) != stored:
            raise corrupt(self._place, self._source.position, "the parts of a sparse file are not its data")

    def _read_tail(self) -> None:
        """Read what is behind the end: zeros alone, so that the layer around the archive is read to its own end."""
        start = self._source.position
        while data := self._source.read(PIECE):
            if data.strip(b"\0"):
                raise trailing(self._place, self._source.position - len(data))
            if self._source.position - start > _LONGEST_TAIL:
                raise too_big(f"{self._place}, behind its end,", self._source.position, _LONGEST_TAIL, by_meta=False)


class _Tee:
    """Keeps what is read through it, until it is taken, or only counts it."""

    def __init__(self, source: Reader) -> None:
        self._source = source
        self._kept: list[bytes] = []
        self.keeping = True
        self.count = 0

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self.count += len(data)
        if self.keeping:
            self._kept.append(data)
        return data

    def take(self) -> bytes:
        data, self._kept = b"".join(self._kept), []
        return data


def copy_with(
    source: Reader, place: str, write: Callable[[bytes], object], name: str, size: int, blocks: Iterator[bytes]
) -> None:
    """Copy an archive with the file `name` holding `blocks`, `size` bytes in all. Every other byte of entries stays.

    Raises as `TarWalk`.
    """
    tee, done, padding = _Tee(source), False, 0
    for entry in TarWalk(Peekable(tee), place):
        headers = tee.take()[padding:]
        before = tee.count
        if done or not entry.is_file or entry.name != name:
            write(headers)
            while entry.content.read(PIECE):
                write(tee.take())
            padding = -(tee.count - before) % BLOCK
            write(bytes(padding))
            continue
        done, tee.keeping = True, False
        while entry.content.read(PIECE):
            pass
        padding, tee.keeping = -(tee.count - before) % BLOCK, True
        write(_plain_header(entry, size))
        for block in blocks:
            write(block)
        write(bytes(-size % BLOCK))
    write(bytes(2 * BLOCK))


def _plain_header(entry: TarEntry, size: int) -> bytes:
    """Make the header of a regular file of `size` bytes out of that of an entry, which may be sparse."""
    long_name = b""
    if len(entry.raw_name) > 100:
        text = entry.raw_name + b"\0"
        long_name = _numbered(entry.header, b"././@LongLink", b"L", len(text)) + text + bytes(-len(text) % BLOCK)
    return long_name + _numbered(entry.header, entry.raw_name[:100], b"0", size)


def _numbered(header: bytes, name: bytes, kind: bytes, size: int) -> bytes:
    block = bytearray(header)
    block[:100] = name.ljust(100, b"\0")
    block[124:136] = b"%011o\0" % size if size < 1 << 33 else b"\x80" + size.to_bytes(11, "big")
    block[156:157] = kind
    block[157:257] = bytes(100)  # where a link leads
    block[345:512] = bytes(167)  # a prefix of the name, or the parts of a sparse file
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


class _Body:
    """The stored bytes of an entry."""

    def __init__(self, source: Peekable, size: int, place: str) -> None:
        self._source = source
        self._left = size
        self._place = place

    def read(self, size: int) -> bytes:
        if not self._left:
            return b""
        data = self._source.read(min(size, self._left))
        if not data:
            raise truncated(self._place, self._source.position)
        self._left -= len(data)
        return data


class _Sparse:
    """A file with holes, as its reader sees it: zeros where nothing is stored."""

    def __init__(self, body: Reader, parts: list[tuple[int, int]], size: int) -> None:
        self._body = body
        self._parts = iter(parts)
        self._size = size
        self._at = 0
        self._part = next(self._parts, (size, 0))

    def read(self, size: int) -> bytes:
        while self._at >= sum(self._part) and self._part[0] < self._size:
            self._part = next(self._parts, (self._size, 0))
        offset, count = self._part
        if self._at < offset:
            data = bytes(min(size, offset - self._at))
        elif count and self._at < offset + count:
            data = self._body.read(min(size, offset + count - self._at))
        else:
            data = b""
        self._at += len(data)
        return data
