"""Sources: files that are opened read-only, once, and mapped, and never changed.

Every later look at one goes through the descriptor or the map, never through its name; whether it is still what it was
is asked between stretches of work. Knows paths and bytes; knows no format.
"""

from __future__ import annotations

import mmap
import os
import stat
import sys
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from snaptool.errors import FormatError, InputError, KeyServiceError, OutputError, ScratchError, StoreError
from snaptool.hashing import FileHash, hash_of
from snaptool.inputs import Inputs, advice, of_run, why
from snaptool.lost_pages import Guarded, guard


class SourceChanged(FormatError):
    """The source was cut, grown or rewritten while it was read."""


def source_changed(path: Path, how: str = "") -> SourceChanged:
    """Make the error that says so."""
    return SourceChanged(
        f"{path} changed while it was read{how}",
        hint="wait until whatever writes it is done, or work on a copy, then run the command again",
        place=str(path),
    )


Buffer = mmap.mmap | memoryview | bytes


class Mapped(Protocol):
    """A file that was opened and mapped: nobody opens it again."""

    @property
    def buffer(self) -> Buffer:
        """Its bytes."""

    def fileno(self) -> int:
        """Return its descriptor."""

    def check_unchanged(self) -> None:
        """Raise SourceChanged where it is no longer what it was when it was mapped."""


class Source:
    """A file mapped read-only, or the part of one that `narrow` chose: `size` bytes, `buffer`.

    `buffer` is empty bytes for an empty file, which cannot be mapped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not block
        except OSError as error:
            raise InputError(
                f"cannot read {path}: {why(error)}", hint=advice(error), code="cannot_read", place=str(path)
            ) from error
        self._opened_as = os.fstat(self._fd)
        self.size = self._opened_as.st_size
        if not stat.S_ISREG(self._opened_as.st_mode):
            self.close()
            raise InputError(
                f"{path} is not a regular file",
                hint="name a snapshot file or an etcd data directory",
                code="not_a_regular_file",
                place=str(path),
            )
        self.inputs = Inputs()
        self._protect(self.inputs)
        if (run := of_run()) is not None:
            self._protect(run)
        self._guarded = Guarded(0, 0)
        self._begin = 0
        self._map = self._map_whole() if self.size else None
        self.buffer: Buffer = b"" if self._map is None else self._map

    def _protect(self, inputs: Inputs) -> None:
        inputs.add(self._opened_as, str(self.path))
        real = Path(os.path.realpath(self.path))
        if real.parts[-3:] == ("member", "snap", "db"):
            inputs.add_data_directory(real.parents[1])

    def _map_whole(self) -> mmap.mmap:
        try:
            mapped = mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ)
        except ValueError:
            # Python refuses a map longer than the file, which was as long as that a moment ago.
            try:
                self.check_unchanged()
            finally:
                self.close()
            raise
        except OSError as error:
            self.close()
            raise InputError(
                f"cannot map {self.path}: {why(error)}", hint="copy it to another file system", code="cannot_read"
            ) from error
        self._guarded = guard(mapped)
        return mapped

    def narrow(self, begin: int, size: int) -> None:
        """Take `size` bytes from `begin` of the file for all of it: what an archive holds as it is.

        What the file is, for the target and for changes meanwhile, stays the whole file.
        """
        self.buffer = memoryview(self.buffer)[begin : begin + size]
        self._begin, self.size = self._begin + begin, size

    def begin_hash(self) -> FileHash:
        """Compute its SHA-256 in a thread, which is to be stopped."""
        return hash_of(self._fd, self._begin, self.size)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    @property
    def begin(self) -> int:
        """Where in the file `buffer` begins."""
        return self._begin

    @property
    def image(self) -> Path | memoryview:
        """What a copy is made of: a path to the very file, whatever has become of its name, or the part of it."""
        if isinstance(self.buffer, memoryview):
            return self.buffer
        return Path(f"/proc/self/fd/{self._fd}") if sys.platform == "linux" else self.path

    def is_same_file(self, other: Path) -> bool:
        """Is `other` this file, by device and inode and not by spelling?"""
        try:
            return os.path.samestat(self._opened_as, other.stat())
        except OSError:
            return False

    def check_unchanged(self) -> None:
        """Raise SourceChanged if the file is no longer what it was when it was opened.

        Size, modification time, and the time that a file system keeps for itself (ctime), which nobody can put back.
        The latter also changes when a name is given or taken away; where the number of names shows that, all is well:
        the file that was opened is the file that is read.
        """
        now, then = os.fstat(self._fd), self._opened_as
        same = (now.st_size, now.st_mtime_ns) == (then.st_size, then.st_mtime_ns)
        if self._guarded.torn or not same or (now.st_ctime_ns != then.st_ctime_ns and now.st_nlink == then.st_nlink):
            raise source_changed(self.path, f": {then.st_size} bytes then, {now.st_size} now")

    def release_memory(self) -> None:
        """Let the pages read so far go; they are read again when touched. Keeps memory flat on large files."""
        if self._map is not None:
            release_memory(self._map)

    def close(self) -> None:
        """Close the file. Views into `buffer` may outlive this; the map itself goes with the last of them."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What was found wrong, or right, may have been found in zeros, or in a mixture of two files.
        is_suspect = self._guarded.torn if error is None else _is_about_bytes(error)
        try:
            if is_suspect:
                self.check_unchanged()
        finally:
            self.close()


def _is_about_bytes(error: BaseException) -> bool:
    """May it come from what was read? A request, a disk, a service or an interruption has reasons of its own."""
    others = (InputError, OutputError, KeyServiceError, StoreError, ScratchError, SourceChanged, OSError, MemoryError)
    return isinstance(error, Exception) and not isinstance(error, others)


def release_memory(mapped: mmap.mmap) -> None:
    """Let the pages of a read-only map go that were read so far; the file still has them."""
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
