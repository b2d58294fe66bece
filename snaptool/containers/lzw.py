"""The LZW that Go's `compress/lzw` writes in LSB order with 8-bit literals, as Gardener's `.Z` files have it.

Codes begin 9 bits wide; 256 empties the table, 257 ends the stream; each code but the first after an emptying adds an
entry, and the width grows when the next entry would not fit, up to 12 bits, where the table stays as it is. Not the
format of Unix compress. Source: docs/formats/containers.md, "Gardener".
"""

from __future__ import annotations

from snaptool.containers.faults import corrupt, trailing, truncated
from snaptool.containers.readers import Peekable

_CLEAR, _END, _WIDEST = 256, 257, 12
_INPUT = 4096  # a code stands for up to 3,838 bytes: so many come out at once
_LITERALS = [bytes((value,)) for value in range(256)]


class LzwReader:
    """Unpacks one stream. Memory: the table, at most 8 MiB, and one piece."""

    def __init__(self, source: Peekable, place: str) -> None:
        self._source = source
        self._place = place
        self._table = [*_LITERALS, b"", b""]
        self._last: bytes | None = None
        self._width = 9
        self._bits = 0
        self._count = 0
        self._ended = False
        self._ready = bytearray()

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises ContainerFault: truncated, corrupt, trailing data."""
        while not self._ready and not self._ended:
            data = self._source.read(_INPUT)
            if not data:
                raise truncated(self._place, self._source.position)
            self._unpack(data)
        out = bytes(self._ready[:size])
        del self._ready[:size]
        return out

    def _unpack(self, data: bytes) -> None:
        table, ready, last, width = self._table, self._ready, self._last, self._width
        bits, count, mask = self._bits, self._count, (1 << self._width) - 1
        for number, byte in enumerate(data):
            bits |= byte << count
            count += 8
            if count < width:
                continue
            code = bits & mask
            bits >>= width
            count -= width
            if code == _CLEAR:
                del table[258:]
                last, width, mask = None, 9, 511
                continue
            if code == _END:
                self._ended = True
                if number + 1 < len(data) or not self._source.at_end():
                    raise trailing(self._place, self._source.position - len(data) + number + 1)
                return
            if code < len(table):
                entry = table[code]
            elif code == len(table) and last is not None:
                entry = last + last[:1]
            else:
                raise corrupt(self._place, self._source.position, f"the code {code} stands for nothing yet")
            ready += entry
            if last is not None:
                table.append(last + entry[:1])
            last = entry
            if len(table) > mask:
                if width == _WIDEST:
                    last = None  # the table is full: no entry is added until it is emptied
                else:
                    width += 1
                    mask = (1 << width) - 1
        self._last, self._width, self._bits, self._count = last, width, bits, count
