"""Streams with one thing in them: gzip, zstd, xz, bzip2, lzma, zlib and the LZW of Go.

The compressors' file objects are not used: some return the first of several joined streams as if it were all, ignore
what follows, or take a cut stream for a whole one (docs/formats/containers.md, "Streams"). Here the decompressor
objects are asked one by one, and every stream is read to its own end, checksum included.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from snaptool.containers.faults import corrupt, method, trailing, truncated
from snaptool.containers.lzw import LzwReader
from snaptool.containers.readers import Peekable, Reader
from snaptool.containers.recognise import Kind

_INPUT = 64 << 10
_XZ_MEMORY = 256 << 20
_ZSTD_WINDOW_LOG = 27  # 128 MiB
_SKIPPABLE_HEADER = 8


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Zlib:
    """zlib's object with the interface that bz2, lzma and zstd have in common."""

    def __init__(self, window_bits: int) -> None:
        self._inner = zlib.decompressobj(window_bits)
        self._tail = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._inner.decompress(self._tail + data, max_length)
        self._tail = self._inner.unconsumed_tail
        # A full buffer may hide more output of the same input.
        self.needs_input = not self._tail and len(out) < max_length
        return out


@dataclass(frozen=True, slots=True)
class _Codec:
    """How one kind of stream is read. `again`: how a further stream begins where streams may be joined.

    `padding`: zeros may follow in multiples of so many bytes, 0 for none; `joins_after_padding`: and a stream behind.
    """

    new: Callable[[], _Decompressor]
    again: tuple[bytes, ...] = ()
    padding: int = 0
    joins_after_padding: bool = False


def _new_zstd() -> _Decompressor:
    zstd = import_zstd()
    made: _Decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
    return made


def import_zstd() -> Any:
    """Import zstd: in the standard library from Python 3.14 on, else the backport. Raises ImportError."""
    import importlib  # noqa: PLC0415 - an extra, imported where it is used

    try:
        return importlib.import_module("compression.zstd")
    except ImportError:
        return importlib.import_module("backports.zstd")


_CODECS = {
    Kind.GZIP: _Codec(lambda: _Zlib(31), (b"\x1f\x8b",), padding=1),
    Kind.ZLIB: _Codec(lambda: _Zlib(15)),
    Kind.BZIP2: _Codec(bz2.BZ2Decompressor, (b"BZh",)),
    Kind.XZ: _Codec(
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
        (b"\xfd7zXZ\0",),
        padding=4,
        joins_after_padding=True,
    ),
    Kind.LZMA: _Codec(lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_XZ_MEMORY)),
    Kind.ZSTD: _Codec(_new_zstd, (b"\x28\xb5\x2f\xfd",)),
}


def open_stream(kind: Kind, source: Peekable, place: str) -> Reader:
    """Return what a stream of `kind` unpacks to. Raises ContainerRefused, container_method, without its library."""
    if kind is Kind.LZW:
        return LzwReader(source, place)
    if kind is Kind.ZSTD:
        try:
            import_zstd()
        except ImportError:
            raise method(
                place,
                "it is packed by zstd, and the library for that is not installed",
                "pip install backports.zstd, or unpack it first: zstd -d FILE -o snapshot.db",
            ) from None
    return StreamReader(_CODECS[kind], source, place)


class StreamReader:
    """Unpacks streams that may be joined, and reads to the end of the last. Memory: one piece and the window.

    Raises ContainerFault container_truncated, container_corrupt, container_trailing_data, and ContainerRefused
    container_method for a window beyond the limits.
    """

    def __init__(self, codec: _Codec, source: Peekable, place: str) -> None:
        self._codec = codec
        self._source = source
        self._place = place
        self._carry = b""
        self._current: _Decompressor | None = None
        self._first = True

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes of what was packed."""
        while True:
            if self._current is None:
                if not self._begin():
                    return b""
                self._current = self._codec.new()
            stream, data = self._current, b""
            if stream.needs_input:
                data = self._take(_INPUT)
                if not data:
                    raise truncated(self._place, self._source.position)
            try:
                out = stream.decompress(data, size)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                raise self._fault(error) from error
            except Exception as error:
                if type(error).__name__ != "ZstdError":  # its class cannot be named where it is not installed
                    raise
                raise self._fault(error) from error
            if stream.eof:
                self._carry = stream.unused_data + self._carry
                self._current = None
            if out:
                return out

    def _fault(self, error: Exception) -> Exception:
        text = str(error)
        if "emory" in text or "window" in text:
            return method(
                self._place,
                "it needs more memory to unpack than is allowed here (xz 256 MiB, zstd a window of 128 MiB)",
                "unpack it first with the program that packed it (xz -d, zstd -d --long=31)",
            )
        return corrupt(self._place, self._source.position, text)

    def _begin(self) -> bool:
        """Go to the next stream; say whether there is one."""
        zeros = 0
        while True:
            head = self._peek(_SKIPPABLE_HEADER)
            if self._codec.new is _new_zstd and _is_skippable(head):
                size = int.from_bytes(head[4:8], "little") + _SKIPPABLE_HEADER
                if len(head) < _SKIPPABLE_HEADER or self._skip(size):
                    raise truncated(self._place, self._source.position)
                self._first = False
                continue
            if self._first:
                self._first = False
                return True
            if not head and self._source.at_end():
                if self._codec.padding and zeros % self._codec.padding:
                    break
                return False
            if self._codec.padding and head[:1] == b"\0":
                block = self._peek(_INPUT)
                count = len(block) - len(block.lstrip(b"\0"))
                zeros += count
                self._skip(count)
                continue
            if zeros and (not self._codec.joins_after_padding or zeros % self._codec.padding):
                break
            if head.startswith(self._codec.again or (b"\0no",)):
                return True
            if self._codec.again and any(again.startswith(head) for again in self._codec.again):
                raise truncated(self._place, self._source.position)
            break
        raise trailing(self._place, self._source.position - len(self._carry))

    def _take(self, size: int) -> bytes:
        if self._carry:
            data, self._carry = self._carry, b""
            return data
        return self._source.read(size)

    def _peek(self, size: int) -> bytes:
        if len(self._carry) < size:
            return self._carry + self._source.peek(size - len(self._carry))
        return self._carry[:size]

    def _skip(self, size: int) -> int:
        """Pass over bytes; return how many of them were not there."""
        held = min(size, len(self._carry))
        self._carry = self._carry[held:]
        return self._source.skip(size - held)


def _is_skippable(head: bytes) -> bool:
    return len(head) >= 4 and 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18"
