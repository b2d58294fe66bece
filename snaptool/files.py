"""Targets: files that appear whole or not at all.

A draft is a new file without a name (`O_TMPFILE`, where the system has it): it gets its name by one `link` or `rename`
after it was written, synced, read back and accepted, so that a crash or a kill leaves no trace. Elsewhere a sibling
temporary file stands in and is removed on every way out that the process survives. From the moment the name exists
nothing that fails takes that back: see `snaptool.signals`.

What may be replaced is one rule, `check_target`: a regular file, that the user allows to be replaced, and that the run
does not read. Knows paths and bytes; knows no format.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import queue
import secrets
import stat
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from snaptool import signals
from snaptool.errors import InputError, OutputError
from snaptool.inputs import TargetIsRead, advice, notice, of_run, why
from snaptool.lost_pages import guard
from snaptool.sources import Source, release_memory

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2  # linux/fs.h
_BLOCKS = 6  # of those that go round: one is filled, the others are on their way to the file
_BLOCK_BYTES = 2 << 20
_SYNC_BYTES = 64 << 20
_DROP_BYTES = 8 << 20
_KEPT_BYTES = 64 << 20  # behind the writer: the disk has them by then
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4  # sync_file_range(2)
_COPY_BYTES = 4 << 20


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    found = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if found is not None:
        found.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return found


_sync_file_range = _find_sync_file_range()


class TargetExists(InputError):
    """The target is there already."""


class TargetIsNoFile(InputError):
    """The target is a directory, a device, a pipe, a socket, or a link that leads nowhere: nothing to be replaced."""


class Draft:
    """A file being made, without a name until `publish`. A thread of its own writes, in order, behind the producer.

    Offers the two calls of a sink: `write` and `seek`, the latter because bolt's metas are known last and come first.
    """

    def __init__(self, target: Path, *, force: bool) -> None:
        self.target = target
        self.size = 0
        self._force = force
        self._check()
        self._position = 0
        self.published = False
        self._temporary: Path | None = None
        self._fd = self._open()
        self._failure: OSError | None = None
        self._blocks: queue.Queue[tuple[int, memoryview, int, bool] | None] = queue.Queue(_BLOCKS)
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._made = 0
        self._to_hash: queue.SimpleQueue[tuple[memoryview, int, bool] | None] | None = None
        self._hashing: threading.Thread | None = None
        self._hash = sha256()
        self._drain: threading.Thread | None = None
        self._reached = 0
        self._moved = threading.Condition()
        self._drops = False
        self._begun = self._kept_from = self._read_until = 0
        self._unsynced = 0
        self._to_sync = threading.Event()
        self._closing = False
        self._syncing: threading.Thread | None = None

    def _check(self) -> None:
        check_target(self.target, force=self._force)

    def _open(self) -> int:
        folder = self.target.parent
        if hasattr(os, "O_TMPFILE"):
            # Many file systems have no unnamed files, and say so in many ways; a named one shows what is wrong.
            with contextlib.suppress(OSError):
                return _private(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), self.target)
        self._temporary = _sibling(folder)
        return self._open_temporary(self._temporary)

    def _open_temporary(self, temporary: Path) -> int:
        signals.unwanted(temporary)
        try:
            return _private(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600), self.target)
        except OSError as error:
            self._temporary = None
            signals.wanted(temporary)
            raise output_error("create a file in", self.target.parent, error) from error

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write at the position and move it. `data` must not change afterwards. Raises OutputError on a full disk."""
        block = memoryview(data).cast("B")
        self._put(block, block.nbytes, again=False)

    def exchange(self, block: memoryview, used: int, size: int) -> memoryview:
        """Write the beginning of a block, as `write` does; return one of `size` bytes at least, for the same use.

        What is in it is anything: blocks go round. For a `size` of 0 the block has none.
        """
        if used:
            self._put(block, used, again=len(block) == _BLOCK_BYTES)
        elif len(block) == _BLOCK_BYTES:
            self._free.put(block)
        if not 0 < size <= _BLOCK_BYTES:
            return memoryview(bytearray(size))
        if self._made < _BLOCKS and self._free.empty():
            self._made += 1
            return memoryview(bytearray(_BLOCK_BYTES))
        return self._free.get()

    def require_no_failure(self) -> None:
        """Raise OutputError where the disk has failed so far."""
        if self._failure is not None:
            raise output_error("write", self.target, self._failure) from self._failure

    def _put(self, block: memoryview, used: int, *, again: bool) -> None:
        self.require_no_failure()
        signals.look()
        if self._drain is None:
            drain = threading.Thread(target=self._write_blocks, name="snaptool-writer", daemon=True)
            drain.start()  # the system may have none to give
            self._drain = drain
        self._blocks.put((self._position, block, used, again))
        self._position += used
        self.size = max(self.size, self._position)

    def seek(self, offset: int) -> None:
        """Let the next `write` go to `offset`, counted from the start of the file."""
        self._position = offset

    def _write_blocks(self) -> None:
        while (item := self._blocks.get()) is not None:
            offset, whole, used, again = item
            self._unsynced += used
            block = whole[:used]
            while block and self._failure is None:
                try:
                    count = os.pwrite(self._fd, block, offset)
                except OSError as error:
                    self._failure = error
                else:
                    offset, block = offset + count, block[count:]
            if self._to_hash is not None:
                self._to_hash.put((whole, used, again))
            elif again:
                self._free.put(whole)
            if self._failure is None:
                with self._moved:
                    self._reached = max(self._reached, offset)
                    self._moved.notify_all()
            if self._drops:
                self._drop(self._reached)
            elif self._unsynced >= _SYNC_BYTES:
                self._start_syncing()

    def drop_behind(self) -> None:
        """Let what was written leave the memory once it was read back (`was_read`) and is on the disk.

        It leaves other files' pages in memory, and takes few new ones, which may be dear where they come from a host.
        """
        self._drops = _sync_file_range is not None

    def was_read(self, size: int) -> None:
        """Say that the first `size` bytes were read back, and that nobody reads nor maps them again."""
        self._read_until = size

    def _drop(self, written: int) -> None:
        if written - self._begun >= _DROP_BYTES:
            self._drops = self._sync_range(self._begun, written, _WRITE)
            self._begun = written
        end = min(self._read_until, written - _KEPT_BYTES)
        if self._drops and end - self._kept_from >= _DROP_BYTES:
            self._drops = self._sync_range(self._kept_from, end, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)
            os.posix_fadvise(self._fd, self._kept_from, end - self._kept_from, os.POSIX_FADV_DONTNEED)
            self._kept_from = end

    def _sync_range(self, start: int, end: int, how: int) -> bool:
        """Begin to bring a part to the disk, or wait until it is there; whether the file system can do that."""
        assert _sync_file_range is not None
        if _sync_file_range(self._fd, start, end - start, how) == 0:
            return True
        number = ctypes.get_errno()
        if number in {errno.EIO, errno.ENOSPC, errno.EDQUOT}:
            # It may be told once: a later fsync may succeed, and would mean nothing.
            self._failure = OSError(number, os.strerror(number))
        return False

    def hash_blocks(self) -> None:
        """Compute the SHA-256 of all that is written from now on up to the next `flush`, in that order.

        Of the very blocks: what changes on its way to the disk makes it wrong, where a hash of what is read back would
        be right for that.
        """
        self._to_hash = queue.SimpleQueue()
        self._hashing = threading.Thread(target=self._hash_blocks, name="snaptool-sha256-target", daemon=True)
        self._hashing.start()

    def _hash_blocks(self) -> None:
        assert self._to_hash is not None
        while (item := self._to_hash.get()) is not None:
            block, used, again = item
            self._hash.update(block[:used])
            if again:
                self._free.put(block)

    def digests_of_blocks(self) -> tuple[bytes, str]:
        """Return what `hash_blocks` found, and in hex the hash of all that with this behind it."""
        self.flush()
        trailer, whole = self._hash.digest(), self._hash.copy()
        whole.update(trailer)
        return trailer, whole.hexdigest()

    def flush(self) -> None:
        """Wait until everything written so far has reached the operating system."""
        if self._drain is not None:
            self._blocks.put(None)
            signals.join(self._drain)
            self._drain = None
        if self._hashing is not None and self._to_hash is not None:
            self._to_hash.put(None)
            signals.join(self._hashing)
            self._hashing = self._to_hash = None
        self.require_no_failure()

    def _stop_writing(self) -> None:
        if self._drain is not None:
            self._blocks.put(None)
            self._drain.join()
            self._drain = None
        if self._hashing is not None and self._to_hash is not None:
            self._to_hash.put(None)
            self._hashing.join()
            self._hashing = self._to_hash = None

    def wait_written(self, size: int, *, seconds: float) -> int:
        """Wait until the file has that many bytes, `seconds` at most, or a nudge; return how many it has."""
        with self._moved:
            if self._reached < size:
                self._moved.wait(seconds)
            return self._reached

    def nudge(self) -> None:
        """End the waiting of whoever waits for more to be written."""
        with self._moved:
            self._moved.notify_all()

    def map_written(self, size: int) -> WrittenMap:
        """Map the first `size` bytes, which have been written, while writing goes on."""
        return WrittenMap(self._fd, size, self.target)

    def start_syncing(self) -> None:
        """Begin to bring what is written to the disk, beside whatever else is done; `publish` waits for it.

        Large files begin by themselves: a disk that waits for the end of the work keeps its user waiting then.
        """
        self.flush()
        self._start_syncing()

    def _start_syncing(self) -> None:
        self._drops = False
        self._begun = self._kept_from = self._read_until = 0
        self._unsynced = 0
        self._to_sync.set()
        if self._syncing is None:
            syncing = threading.Thread(target=self._sync_on, name="snaptool-sync", daemon=True)
            syncing.start()
            self._syncing = syncing

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
        """A path under which this process can open the file before it has a name."""
        return f"/proc/self/fd/{self._fd}" if self._temporary is None else str(self._temporary)

    def read_back(self) -> WrittenMap:
        """Map what was written, read-only."""
        self.flush()
        return WrittenMap(self._fd, self.size, self.target)

    def read(self, offset: int, size: int) -> bytes:
        """Read what was written, past any map: all of it, or OutputError."""
        parts: list[bytes] = []
        while size:
            try:
                parts.append(os.pread(self._fd, size, offset))
            except OSError as error:
                raise output_error("read back", self.target, error) from error
            if not parts[-1]:
                raise OutputError(f"cannot read back {self.target}: it ends at {offset} bytes")
            offset, size = offset + len(parts[-1]), size - len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def publish(self) -> None:
        """Give the file its name. Raises TargetExists if one has appeared meanwhile and may not be replaced.

        When this returns, the file is there for good: a directory that cannot be synced is worth a notice, no error.
        """
        self.sync()
        try:
            self._check()
            if not self._name():
                self._copy_to_temporary()
                self._name()
        except FileExistsError as error:
            raise _exists(self.target) from error
        except OSError as error:
            raise output_error("name", self.target, error) from error
        try:
            _sync_folder(self.target.parent)
        except OSError as error:
            notice(f"{self.target} was written, but its directory cannot be synced ({why(error)})")

    def _name(self) -> bool:
        """Give it its name, or say that this file system cannot name what has no name yet."""
        signals.look()
        with signals.no_return():
            if self._temporary is not None:
                self._name_temporary(self._temporary)
            else:
                try:
                    self._name_unnamed()
                except FileExistsError:
                    raise
                except OSError:
                    return False
            signals.written(self.target)
            self.published = True
        return True

    def _name_unnamed(self) -> None:
        try:
            self._link_unnamed(self.target)
        except FileExistsError:
            if not self._force:
                raise
            # An existing file is replaced by rename, and a rename needs a name to start from.
            temporary = _sibling(self.target.parent)
            signals.unwanted(temporary)
            self._link_unnamed(temporary)
            self._temporary = temporary
            self._name_temporary(temporary)

    def _link_unnamed(self, name: Path) -> None:
        # open(2), O_TMPFILE: linkat with AT_SYMLINK_FOLLOW. Python calls plain link, which does not follow, unless a
        # directory descriptor is given; with an absolute path that descriptor is not looked at.
        os.link(f"/proc/self/fd/{self._fd}", name, src_dir_fd=self._fd, follow_symlinks=True)

    def _name_temporary(self, temporary: Path) -> None:
        if self._force:
            temporary.replace(self.target)
        else:
            _rename_new(temporary, self.target)
        self._temporary = None
        signals.wanted(temporary)

    def _copy_to_temporary(self) -> None:
        """Move to a file with a name, where one without cannot get one (no links, no /proc), and compare the two."""
        unnamed, temporary = self._fd, _sibling(self.target.parent)
        copy = self._open_temporary(temporary)
        self._fd, self._temporary = copy, temporary
        try:
            for offset in range(0, self.size, _COPY_BYTES):
                at, block = offset, memoryview(os.pread(unnamed, _COPY_BYTES, offset))
                while block:
                    count = os.pwrite(copy, block, at)
                    at, block = at + count, block[count:]
            os.fsync(copy)
            for offset in range(0, self.size, _COPY_BYTES):
                if os.pread(unnamed, _COPY_BYTES, offset) != os.pread(copy, _COPY_BYTES, offset):
                    raise OutputError(f"cannot write {self.target}: a copy of it is not the same")
        finally:
            os.close(unnamed)

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
            signals.wanted(self._temporary)
            self._temporary = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class WrittenMap:
    """What was written, mapped read-only, before it has a name."""

    def __init__(self, fd: int, size: int, target: Path) -> None:
        self._fd, self._size, self._target = fd, size, target
        self.buffer = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        self._guarded = guard(self.buffer)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def check_unchanged(self) -> None:
        """Raise OutputError where somebody has cut it: it has a name on file systems without unnamed files."""
        if self._guarded.torn or os.fstat(self._fd).st_size < self._size:
            raise OutputError(f"cannot read back {self._target}: it was cut by something else")

    def release_memory(self) -> None:
        """Let its pages go."""
        release_memory(self.buffer)


def check_target(target: Path, *, force: bool, source: Source | None = None) -> None:
    """Refuse a target that may not be written, before any work: the one rule for every file that a run makes.

    Never, `force` or not: what the run reads or belongs to it, and what is not a regular file. Without `force`: what is
    there. Further a name that is too long, and a directory that is not there, closed, or not writable. Raises
    InputError and its leaves; OutputError for a directory in which nothing can be written.
    """
    try:
        check_parent(target)
        if source is not None and source.is_same_file(target):
            raise TargetIsRead(
                f"source and target are the same file: {target}",
                hint="choose another target; the source is never changed",
            )
        known = of_run()
        for inputs in ([known] if known else []) + ([source.inputs] if source is not None else []):
            inputs.refuse(target)
        found = target.lstat()
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise InputError(
            f"cannot look at target {target}: {why(error)}", hint=advice(error), code="cannot_look_at_target"
        ) from error
    if found is not None:
        _check_replaceable(target, found, force=force)
    if not os.access(target.parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with contextlib.suppress(OSError):
            if os.statvfs(target.parent).f_flag & os.ST_RDONLY:
                denied = PermissionError(errno.EROFS, os.strerror(errno.EROFS))
        raise output_error("create a file in", target.parent, denied)


def check_parent(target: Path) -> None:
    """Refuse a target whose directory is not there, or does not take its name. Raises InputError, and OSError."""
    folder = target.parent
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_folder = False
    if not is_folder:
        raise InputError(
            f"there is no directory {folder}", hint="create it, or choose another target", code="no_directory"
        )
    size, most = len(os.fsencode(target.name)), os.pathconf(folder, "PC_NAME_MAX")
    if size > most:
        raise InputError(
            f"the name of target {target} has {size} bytes, and its file system takes {most}",
            hint="choose a shorter name",
            code="name_too_long",
        )


def _check_replaceable(target: Path, found: os.stat_result, *, force: bool) -> None:
    kind = found.st_mode
    if stat.S_ISLNK(kind):
        try:
            kind = target.stat().st_mode
        except OSError:
            raise TargetIsNoFile(
                f"target {target} is a symbolic link that leads nowhere", hint="remove it, or choose another target"
            ) from None
    if stat.S_ISDIR(kind):
        raise TargetIsNoFile(f"target {target} is a directory", hint="name a file in it")
    if not stat.S_ISREG(kind):
        raise TargetIsNoFile(
            f"target {target} is {_KINDS.get(stat.S_IFMT(kind), 'no regular file')}",
            hint="choose another target; only regular files are replaced",
        )
    if not force:
        raise _exists(target)


_KINDS = {
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


def require_room(target: Path, size: int) -> None:
    """Refuse to begin where `size` bytes, which the result has at least, do not fit. Raises OutputError."""
    try:
        found = os.statvfs(target.parent)
    except OSError:
        return
    if found.f_blocks and found.f_bavail * found.f_frsize < size:
        room = found.f_bavail * found.f_frsize
        raise OutputError(
            f"no room for {target}: it needs at least {size:,} bytes, and its disk has {room:,}",
            hint="free space on that disk, or choose a target on another one",
            code="no_room",
        )


def _private(fd: int, target: Path) -> int:
    """Give a new file mode 0600 whatever the umask says; notice where its file system keeps no modes."""
    try:
        os.fchmod(fd, 0o600)
        open_to_others = stat.S_IMODE(os.fstat(fd).st_mode) & 0o077
    except OSError:
        open_to_others = stat.S_IMODE(os.fstat(fd).st_mode) & 0o077
    if open_to_others:
        notice(f"{target} can be read by other users: its file system keeps no permissions")
    return fd


def _sibling(folder: Path) -> Path:
    """Return a name for a temporary file; short, so that every name that fits a target has a sibling."""
    return folder / f".snaptool-{secrets.token_hex(6)}.part"


def _rename_new(old: Path, new: Path) -> None:
    """Rename a file to a name that is not taken; FileExistsError otherwise.

    Three ways, as file systems have different ones: a rename that replaces nothing (Linux 3.15, not everywhere), a
    second link, and, where neither is, an empty file of that name which only one can create, and which is replaced.
    """
    number = renameat2(old, new, RENAME_NOREPLACE)
    if number == 0:
        return
    if number == errno.EEXIST:
        raise FileExistsError(number, os.strerror(number), str(new))
    try:
        os.link(old, new)
    except FileExistsError:
        raise
    except OSError:
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        try:
            old.replace(new)
        except OSError:
            new.unlink()
            raise
    else:
        old.unlink()


def renameat2(old: Path, new: Path, flags: int) -> int:
    """Call renameat2 with flags; return 0 or the error's number. Source: rename(2)."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return errno.ENOSYS
    here = -100  # AT_FDCWD
    return ctypes.get_errno() if call(here, os.fsencode(old), here, os.fsencode(new), flags) else 0


def write_private(target: Path, text: str, *, force: bool) -> None:
    """Write a small text file, whole or not at all, readable by its owner only."""
    with Draft(target, force=force) as draft:
        draft.write(text.encode())
        draft.publish()


def _exists(target: Path) -> TargetExists:
    return TargetExists(
        f"target {target} already exists",
        hint="choose another target, or use --force to replace it",
        place=str(target),
    )


def output_error(verb: str, path: Path, error: OSError) -> OutputError:
    """Make the error that says what could not be done where, and why."""
    code = "no_room" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
    if hasattr(path, "location"):  # of a store: the disk is that of what is on its way there
        hint = "free space there, or name a larger directory with TMPDIR"
        message = f"cannot {verb} in {path.parent} what is to go to {path}: {why(error)}"
        return OutputError(message, hint=hint, code=code, place=str(path.parent))
    return OutputError(f"cannot {verb} {path}: {why(error)}", hint=advice(error), code=code, place=str(path))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
