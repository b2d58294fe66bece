"""A zip archive: its central directory by the standard library, its entries by decompressors with bounds.

The library reads a directory of any size into memory, unpacks LZMA with whatever dictionary is asked for, and tells a
cut archive and something else apart by one message. So the end record is looked at before the library sees the file,
and entries are unpacked here, up to the sizes and checksums that the directory states.

Source: PKWARE APPNOTE 6.3.10, 4.3.7, 4.3.16, 4.4.5, 5.8; docs/formats/containers.md, "Archives".
"""

from __future__ import annotations

import bz2
import errno
import io
import lzma
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

from snaptool.containers.faults import ContainerFault, corrupt, encrypted, inside, method, truncated
from snaptool.containers.readers import FileReader, Peekable, Reader, Section

MOST_ENTRIES = 10_000
END_SIZE = 22
_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_LONGEST_COMMENT = 0xFFFF
_LARGEST_DIRECTORY = 64 << 20
_LINK = 0o120000
_AES = 99
_LARGEST_DICTIONARY = 256 << 20
_LOCAL = struct.Struct("<4s5H3L2H")
_INPUT = 64 << 10
_LIBRARY_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    struct.error,
    ValueError,
    ArithmeticError,
    EOFError,
    OSError,
)
_METHODS = {0: "stored", 8: "deflate", 12: "bzip2", 14: "LZMA"}


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One entry. `is_file`: no directory, no link, not macOS's own; `size` in bytes as stated."""

    name: str
    size: int
    is_file: bool
    info: zipfile.ZipInfo


class ZipFileReader:
    """A zip archive in an open file. Raises ContainerFault for a directory that cannot be read."""

    def __init__(self, descriptor: int, place: str) -> None:
        self._descriptor = descriptor
        self._place = place
        self.entries = [_entry(info) for info in self._directory()]

    def _directory(self) -> list[zipfile.ZipInfo]:
        self._check_end()
        try:
            with zipfile.ZipFile(_Seekable(self._descriptor)) as archive:
                infos = archive.infolist()
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            struct.error,
            ValueError,
            OverflowError,
            EOFError,
            OSError,
        ) as error:
            raise corrupt(self._place, os.fstat(self._descriptor).st_size, str(error) or "bad directory") from error
        if len(infos) > MOST_ENTRIES:
            raise self._too_many(len(infos))
        return infos

    def _check_end(self) -> None:
        size = os.fstat(self._descriptor).st_size
        reach = END_SIZE + _LONGEST_COMMENT
        tail = os.pread(self._descriptor, reach, max(0, size - reach))
        at = tail.rfind(_END)
        if at < 0 or len(tail) - at < END_SIZE:
            raise truncated(self._place, size)
        count, directory = struct.unpack_from("<HL", tail, at + 10)
        end64 = tail.rfind(_END64, 0, at)
        if end64 >= 0 and at - end64 >= 56:
            count, directory = struct.unpack_from("<QQ", tail, end64 + 32)
        elif directory == 0xFFFFFFFF or count == 0xFFFF:
            raise truncated(self._place, size)
        if count > MOST_ENTRIES:
            raise self._too_many(count)
        if directory > min(size, _LARGEST_DIRECTORY):
            raise corrupt(self._place, size, f"its directory is said to have {directory:,} bytes")

    def _too_many(self, count: int) -> ContainerFault:
        return ContainerFault(
            f"{self._place} has {count:,} entries, more than the {MOST_ENTRIES:,} that are looked through",
            hint="unpack the snapshot with your own tool, and name it",
            code="container_no_snapshot",
        )

    def open(self, entry: ZipEntry) -> Peekable:
        """Return what an entry unpacks to. Faults of its content are raised when it is read."""
        return Peekable(_EntryReader(self._descriptor, entry, inside(self._place, entry.name)))

    def section(self, entry: ZipEntry) -> Section | None:
        """Say where an entry stands as it is; None for one that is packed. What `open` reads is checked, this is not.

        Raises ContainerFault.
        """
        if entry.info.compress_type != zipfile.ZIP_STORED:
            return None
        return _section(self._descriptor, entry.info, inside(self._place, entry.name))

    def refusal(self, entry: ZipEntry) -> Exception | None:
        """Say why an entry cannot be read at all, None when it can."""
        return _refusal(entry.info, inside(self._place, entry.name))


def _entry(info: zipfile.ZipInfo) -> ZipEntry:
    mode = info.external_attr >> 16
    is_directory = info.filename.endswith("/")  # the library's own answer is an IndexError where there is no name
    is_file = not is_directory and mode & 0o170000 != _LINK and not info.filename.startswith("__MACOSX/")
    return ZipEntry(info.filename, info.file_size, is_file, info)


def _refusal(info: zipfile.ZipInfo, place: str) -> Exception | None:
    if info.flag_bits & 1 or info.compress_type == _AES:
        return encrypted(place, "encrypted with a password", "unpack it with your tool first: 7z x FILE, or unzip FILE")
    if info.compress_type not in _METHODS:
        return method(
            place, f"method {info.compress_type} of zip is not read here", "unpack it with your tool first: 7z x FILE"
        )
    return None


def _section(descriptor: int, info: zipfile.ZipInfo, place: str) -> Section:
    """Find the bytes of an entry behind its own header, whose names may be of other lengths than the directory's."""
    start = info.header_offset  # of 64 bits, less what the library takes for bytes before the archive
    in_file = 0 <= start < os.fstat(descriptor).st_size
    header = os.pread(descriptor, _LOCAL.size, start) if in_file else b""
    if len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04":
        raise corrupt(place, 0, "the archive's directory points at something else")
    *_, name, extra = _LOCAL.unpack(header)
    return Section(start + _LOCAL.size + name + extra, info.compress_size)


class _Seekable(io.RawIOBase):
    """A descriptor for the library: positions of its own, and a name that is not used."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: os.fstat(self._descriptor).st_size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "an offset before the start")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]  # what the base class passes
        data = os.pread(self._descriptor, len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _EntryReader:
    """Unpacks one entry, and checks size and CRC at its end."""

    def __init__(self, descriptor: int, entry: ZipEntry, place: str) -> None:
        self._info = entry.info
        self._descriptor = descriptor
        self._place = place
        self._unpacker: Reader | None = None
        self._crc = 0
        self._size = 0

    def read(self, size: int) -> bytes:
        if self._unpacker is None:
            self._unpacker = self._open()
        data = self._unpacker.read(size)
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        if self._size > self._info.file_size:
            raise corrupt(self._place, self._size, f"the archive says that it has {self._info.file_size:,} bytes")
        if not data and self._size < self._info.file_size:
            raise corrupt(self._place, self._size, f"the archive says that it has {self._info.file_size:,} bytes")
        if not data and self._crc != self._info.CRC:
            raise corrupt(self._place, self._size, "its CRC is not the one in the archive")
        return data

    def _open(self) -> Reader:
        refusal = _refusal(self._info, self._place)
        if refusal is not None:
            raise refusal
        at = _section(self._descriptor, self._info, self._place)
        packed = FileReader(self._descriptor, at.begin, at.begin + at.size)
        if self._info.compress_type == zipfile.ZIP_STORED:
            return packed
        return _Inflater(self._info.compress_type, packed, self._place)


class _Inflater:
    """One compressed stream of known method, to its own end."""

    def __init__(self, compression: int, packed: Reader, place: str) -> None:
        self._packed = packed
        self._place = place
        self._read_in = 0
        self._tail = b""
        if compression == zipfile.ZIP_DEFLATED:
            self._stream: bz2.BZ2Decompressor | lzma.LZMADecompressor | None = None
            self._deflate = zlib.decompressobj(-15)
        elif compression == zipfile.ZIP_BZIP2:
            self._stream = bz2.BZ2Decompressor()
        else:
            self._stream = self._lzma()

    def _lzma(self) -> lzma.LZMADecompressor:
        """Open LZMA as zip has it: version, size of properties, properties of five bytes, raw stream."""
        head = Peekable(self._packed).read_exactly(9)
        if len(head) < 9 or head[2:4] != b"\x05\0":
            raise corrupt(self._place, 0, "the header of its LZMA stream is cut or of another form")
        first, dictionary = head[4], int.from_bytes(head[5:9], "little")
        if dictionary > _LARGEST_DICTIONARY:
            raise method(
                self._place,
                f"its LZMA stream wants a dictionary of {dictionary:,} bytes, 256 MiB are allowed",
                "unpack it with your tool first: 7z x FILE",
            )
        if first >= 9 * 5 * 5:
            raise corrupt(self._place, 4, "the properties of its LZMA stream cannot be")
        filters = {
            "id": lzma.FILTER_LZMA1,
            "lc": first % 9,
            "lp": first // 9 % 5,
            "pb": first // 45,
            "dict_size": max(dictionary, 4096),
        }
        try:
            return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[filters])
        except (lzma.LZMAError, ValueError) as error:
            raise corrupt(self._place, 4, "the properties of its LZMA stream cannot be") from error

    def read(self, size: int) -> bytes:
        while True:
            try:
                out, ended = self._step(size)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                raise corrupt(self._place, self._read_in, str(error)) from error
            if out or ended:
                return out

    def _step(self, size: int) -> tuple[bytes, bool]:
        """Unpack a little; say whether the stream has ended."""
        if self._stream is None:
            if _ended(self._deflate):
                return b"", True
            data = self._tail or self._next()
            out = self._deflate.decompress(data, size)
            self._tail = self._deflate.unconsumed_tail
            # Output may be held back though all input is taken, so the end of the input alone is no end.
            if not data and not out and not _ended(self._deflate):
                raise corrupt(self._place, self._read_in, "its stream ends too early")
            return out, _ended(self._deflate) and not out
        if _ended(self._stream):
            return b"", True
        data = self._next() if self._stream.needs_input else b""
        out = self._stream.decompress(data, size)
        if self._stream.needs_input and not data and not out and not _ended(self._stream):
            # LZMA in zip may end by its size alone.
            return b"", True
        return out, _ended(self._stream) and not out

    def _next(self) -> bytes:
        data = self._packed.read(_INPUT)
        self._read_in += len(data)
        return data


def _ended(stream: Any) -> bool:
    """Ask again: a stream's `eof` changes while it is read."""
    return bool(stream.eof)
