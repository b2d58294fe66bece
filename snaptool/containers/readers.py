"""Bytes one after the other: what every layer reads from and gives to the next one.

Nothing here knows a format. A reader gives up to as many bytes as it is asked for, and none at its end.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from snaptool.containers.faults import too_big
from snaptool.errors import SnaptoolError

PIECE = 1 << 20
"""Bytes that are handled at once."""


class Reader(Protocol):
    """What gives bytes in order."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, at least one; none at the end."""


@dataclass(frozen=True, slots=True)
class Section:
    """Where something stands, as it is, in an open file: bytes from its start, and how many."""

    begin: int
    size: int


class FileReader:
    """A part of an open file, read past its position: many readers may share the descriptor."""

    def __init__(self, descriptor: int, start: int = 0, end: int | None = None) -> None:
        self._descriptor = descriptor
        self._at = start
        self._end = os.fstat(descriptor).st_size if end is None else end

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes."""
        data = os.pread(self._descriptor, max(0, min(size, self._end - self._at)), self._at)
        self._at += len(data)
        return data


class BytesReader:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes."""
        data, self._data = bytes(self._data[:size]), self._data[size:]
        return data


class Peekable:
    """A reader that can be looked into before it is read. `position`: bytes given so far.

    A fault behind the bytes that a look needs is kept for whoever reads that far: what an entry of an archive is shows
    in its first bytes, and its damage is of interest when it is the one that is wanted.
    """

    def __init__(self, source: Reader) -> None:
        self._source = source
        self._ahead = b""
        self._fault: SnaptoolError | None = None
        self.position = 0

    def peek(self, size: int) -> bytes:
        """Return the next bytes without taking them: `size`, or what is left."""
        while len(self._ahead) < size and self._fault is None:
            try:
                data = self._source.read(max(size - len(self._ahead), 4096))
            except SnaptoolError as error:
                self._fault = error
                break
            if not data:
                break
            self._ahead += data
        return self._ahead[:size]

    def at_end(self) -> bool:
        """Say whether nothing is left. Raises what the source raised instead of giving more."""
        if self.peek(1):
            return False
        if self._fault is not None:
            raise self._fault
        return True

    @property
    def fault(self) -> SnaptoolError | None:
        """What went wrong behind the bytes that were looked at."""
        return self._fault

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises what the source raised."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
        elif self._fault is not None:
            raise self._fault
        else:
            data = self._source.read(size)
        self.position += len(data)
        return data

    def read_exactly(self, size: int) -> bytes:
        """Return `size` bytes, fewer only at the end: for headers."""
        parts, missing = [], size
        while missing and (data := self.read(missing)):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def skip(self, size: int) -> int:
        """Pass over bytes; return how many of them were not there."""
        while size and (data := self.read(min(size, PIECE))):
            size -= len(data)
        return size


class Counted:
    """Gives what `source` gives, up to `bound` bytes; one more is too big."""

    def __init__(self, source: Reader, bound: int, place: str) -> None:
        self._source = source
        self._left = bound
        self._bound = bound
        self._place = place

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises ContainerFault, container_too_big."""
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise too_big(self._place, self._bound - self._left, self._bound, by_meta=False)
        return data
