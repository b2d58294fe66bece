"""Files: sources that are never changed, targets that appear whole or not at all.

A source is opened read-only and mapped; nothing here can write to it. A draft is a new file without a name
(`O_TMPFILE`, where the system has it): it gets its name by one `link` or `rename` after it was written, synced, read
back and accepted, so that a crash or a kill leaves no trace. Elsewhere a sibling temporary file stands in and is
removed on every way out that the process survives.

Knows paths and bytes; knows no format. A mapping that loses its file's end raises SIGBUS, which no Python code can
catch: `Source.check_unchanged` asks before each stretch of work, and `snaptool.cli` has the last resort.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import queue
import secrets
import stat
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from snaptool.errors import FormatError, InputError, OutputError

_BLOCKS_IN_FLIGHT = 4
_SYNC_BYTES = 64 << 20


class SourceChanged(FormatError):
    """The source was cut, grown or rewritten while it was read."""


class TargetExists(InputError):
    """The target is there already."""


class Source:
    """A file mapped read-only. `buffer` is empty bytes for an empty file, which cannot be mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not block
        except OSError as error:
            raise InputError(f"cannot read {path}: {_why(error)}", hint=_advice(error)) from error
        self._opened_as = os.fstat(self._fd)
        self.size = self._opened_as.st_size
        if not stat.S_ISREG(self._opened_as.st_mode):
            self.close()
            raise InputError(f"{path} is not a regular file", hint="name a snapshot file or an etcd data directory")
        self.buffer: mmap.mmap | bytes = self._map() if self.size else b""

    def _map(self) -> mmap.mmap:
        try:
            return mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ)
        except ValueError:
            # Python refuses a map longer than the file, which was as long as that a moment ago.
            try:
                self.check_unchanged()
            finally:
                self.close()
            raise
        except OSError as error:
            self.close()
            raise InputError(f"cannot map {self.path}: {_why(error)}", hint="copy it to another file system") from error

    def read(self, offset: int, size: int) -> bytes:
        """Read bytes past the map; fewer where the file ends."""
        return os.pread(self._fd, size, offset)

    def check_unchanged(self) -> None:
        """Raise SourceChanged if size or modification time are no longer what they were when the file was opened."""
        now = os.fstat(self._fd)
        if (now.st_size, now.st_mtime_ns) != (self.size, self._opened_as.st_mtime_ns):
            raise SourceChanged(
                f"{self.path} changed while it was read: {self.size} bytes then, {now.st_size} now",
                hint="wait until whatever writes it is done, or work on a copy, then run the command again",
            )

    def release_memory(self) -> None:
        """Let the pages read so far go; they are read again when touched. Keeps memory flat on large files."""
        if isinstance(self.buffer, mmap.mmap):
            release_memory(self.buffer)

    def is_same_file(self, other: Path) -> bool:
        """Is `other` this file, by device and inode and not by spelling?"""
        try:
            return os.path.samestat(self._opened_as, other.stat())
        except OSError:
            return False

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
        self.close()


class Draft:
    """A file being made, without a name until `publish`. A thread of its own writes, in order, behind the producer.

    Offers the two calls of a sink: `write` and `seek`, the latter because bolt's metas are known last and come first.
    """

    def __init__(self, target: Path, *, force: bool) -> None:
        check_target(target, force=force)
        self.target = target
        self.size = 0
        self._force = force
        self._position = 0
        self._temporary: Path | None = None
        self._fd = self._open()
        self._failure: OSError | None = None
        self._blocks: queue.Queue[tuple[int, memoryview] | None] = queue.Queue(_BLOCKS_IN_FLIGHT)
        self._drain: threading.Thread | None = None
        self._unsynced = 0
        self._to_sync = threading.Event()
        self._closing = False
        self._syncing: threading.Thread | None = None

    def _open(self) -> int:
        folder = self.target.parent
        if hasattr(os, "O_TMPFILE"):
            # Some file systems have no unnamed files: EOPNOTSUPP, or EISDIR from kernels that do not know the flag.
            try:
                return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except OSError as error:
                if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:
                    raise _output_error("create a file in", folder, error) from error
        self._temporary = self._sibling()
        try:
            return os.open(self._temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._temporary = None
            raise _output_error("create a file in", folder, error) from error

    def _sibling(self) -> Path:
        return self.target.with_name(f".{self.target.name}.{secrets.token_hex(6)}.part")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write at the position and move it. `data` must not change afterwards. Raises OutputError on a full disk."""
        if self._failure is not None:
            raise _output_error("write", self.target, self._failure) from self._failure
        if self._drain is None:
            self._drain = threading.Thread(target=self._write_blocks, name="snaptool-writer", daemon=True)
            self._drain.start()
        block = memoryview(data).cast("B")
        self._blocks.put((self._position, block))
        self._position += block.nbytes
        self.size = max(self.size, self._position)

    def seek(self, offset: int) -> None:
        """Let the next `write` go to `offset`, counted from the start of the file."""
        self._position = offset

    def _write_blocks(self) -> None:
        while (item := self._blocks.get()) is not None:
            offset, block = item
            self._unsynced += len(block)
            while block and self._failure is None:
                try:
                    count = os.pwrite(self._fd, block, offset)
                except OSError as error:
                    self._failure = error
                else:
                    offset, block = offset + count, block[count:]
            if self._unsynced >= _SYNC_BYTES:
                self._start_syncing()

    def flush(self) -> None:
        """Wait until everything written so far has reached the operating system."""
        self._stop_writing()
        if self._failure is not None:
            raise _output_error("write", self.target, self._failure) from self._failure

    def _stop_writing(self) -> None:
        if self._drain is not None:
            self._blocks.put(None)
            self._drain.join()
            self._drain = None

    def start_syncing(self) -> None:
        """Begin to bring what is written to the disk, beside whatever else is done; `publish` waits for it.

        Large files begin by themselves: a disk that waits for the end of the work keeps its user waiting then.
        """
        self.flush()
        self._start_syncing()

    def _start_syncing(self) -> None:
        self._unsynced = 0
        self._to_sync.set()
        if self._syncing is None:
            self._syncing = threading.Thread(target=self._sync_on, name="snaptool-sync", daemon=True)
            self._syncing.start()

    def _sync_on(self) -> None:
        while self._to_sync.wait():
            self._to_sync.clear()
            if self._closing:
                return
            self._sync()

    def _sync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            # Told once by the kernel, so it is kept: a later fsync may succeed, and would mean nothing.
            self._failure = error

    def _stop_syncing(self) -> None:
        if self._syncing is not None:
            self._closing = True
            self._to_sync.set()
            self._syncing.join()
            self._syncing, self._closing = None, False
            self._to_sync.clear()

    def sync(self) -> None:
        """Bring everything to the disk itself."""
        self.flush()
        self._stop_syncing()
        self._sync()
        self.flush()

    @property
    def readable_path(self) -> str:
        """A path under which other processes of this user can open the file before it has a name."""
        return f"/proc/{os.getpid()}/fd/{self._fd}" if self._temporary is None else str(self._temporary)

    def read_back(self) -> mmap.mmap:
        """Map what was written, read-only."""
        self.flush()
        return mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ)

    def read(self, offset: int, size: int) -> bytes:
        """Read what was written, past any map: all of it, or OutputError."""
        parts: list[bytes] = []
        while size:
            try:
                parts.append(os.pread(self._fd, size, offset))
            except OSError as error:
                raise _output_error("read back", self.target, error) from error
            if not parts[-1]:
                raise OutputError(f"cannot read back {self.target}: it ends at {offset} bytes")
            offset, size = offset + len(parts[-1]), size - len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def publish(self) -> None:
        """Give the file its name. Raises TargetExists if one has appeared meanwhile and may not be replaced."""
        self.sync()
        try:
            if self._temporary is not None:
                self._name_temporary(self._temporary)
            else:
                self._name_unnamed()
            _sync_folder(self.target.parent)
        except FileExistsError as error:
            raise _exists(self.target) from error
        except OSError as error:
            raise _output_error("name", self.target, error) from error

    def _name_unnamed(self) -> None:
        try:
            self._link_unnamed(self.target)
        except FileExistsError:
            if not self._force:
                raise
            # An existing file is replaced by rename, and a rename needs a name to start from.
            self._temporary = self._sibling()
            self._link_unnamed(self._temporary)
            self._name_temporary(self._temporary)

    def _link_unnamed(self, name: Path) -> None:
        # open(2), O_TMPFILE: linkat with AT_SYMLINK_FOLLOW. Python calls plain link, which does not follow, unless a
        # directory descriptor is given; with an absolute path that descriptor is not looked at.
        os.link(f"/proc/self/fd/{self._fd}", name, src_dir_fd=self._fd, follow_symlinks=True)

    def _name_temporary(self, temporary: Path) -> None:
        if self._force:
            temporary.replace(self.target)
        else:
            os.link(temporary, self.target)
            temporary.unlink()
        self._temporary = None

    def discard(self) -> None:
        """Close, and leave nothing behind unless `publish` has succeeded."""
        if self._drain is not None:
            self._failure = self._failure or OSError(errno.ECANCELED, "given up")
            self._stop_writing()
        self._stop_syncing()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def release_memory(mapped: mmap.mmap) -> None:
    """Let the pages of a read-only map go that were read so far; the file still has them."""
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def check_target(target: Path, *, force: bool, source: Source | None = None) -> None:
    """Refuse a target that may not be written: the source itself, an existing file without `force`, a directory."""
    if source is not None and source.is_same_file(target):
        raise InputError(
            f"source and target are the same file: {target}", hint="name another target; the source is never changed"
        )
    if target.is_dir():
        raise InputError(f"target {target} is a directory", hint="name a file in it")
    if (target.exists() or target.is_symlink()) and not force:
        raise _exists(target)
    if not target.parent.is_dir():
        raise InputError(f"there is no directory {target.parent}", hint="create it, or name another target")


def write_private(target: Path, text: str, *, force: bool) -> None:
    """Write a small text file, whole or not at all, readable by its owner only."""
    with Draft(target, force=force) as draft:
        draft.write(text.encode())
        draft.publish()


def _exists(target: Path) -> TargetExists:
    return TargetExists(f"target {target} exists already", hint="name another target, or say --force to replace it")


def _output_error(verb: str, path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot {verb} {path}: {_why(error)}", hint=_advice(error))


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _advice(error: OSError) -> str:
    advice = {
        errno.ENOSPC: "free space on that disk, or name a target on another one",
        errno.EDQUOT: "free space within your quota, or name a target on another disk",
        errno.EACCES: "check the permissions of the file and its directories",
        errno.ENOENT: "check the spelling of the path",
    }
    return advice.get(error.errno or 0, "")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
