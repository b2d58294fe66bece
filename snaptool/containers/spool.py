"""Where what is unpacked goes: a private file without a name, of which nothing stays when its process ends."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from snaptool import signals
from snaptool.containers.faults import NoRoom
from snaptool.errors import OutputError

_FALLBACK = "/var/tmp"  # noqa: S108 - not /tmp, which is often memory; the file has no name there


class Spool:
    """A new file without a name, mode 0600, that holds what is written to it until it is closed.

    `folder`: where it is, by `folder_for`; `need`: how many bytes must be free there before one is written. Raises
    NoRoom and OutputError.
    """

    def __init__(self, folder: Path, need: int) -> None:
        self.folder = folder
        self.size = 0
        self._need = need
        have = self._free()
        if have < need:
            raise NoRoom(str(folder), need, have)
        self.descriptor = _open_unnamed(folder)

    def _free(self) -> int:
        try:
            state = os.statvfs(self.folder)
        except OSError as error:
            raise _cannot(self.folder, error) from error
        return state.f_bavail * state.f_frsize

    def write(self, data: bytes) -> None:
        """Add bytes at the end."""
        self.write_at(data, self.size)

    def write_at(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write bytes at an offset."""
        signals.look()
        view = memoryview(data).cast("B")
        while view:
            try:
                count = os.pwrite(self.descriptor, view, offset)
            except OSError as error:
                need, have = max(self._need, offset + len(view)), self._free()
                # A quota and a limit of the process leave a disk with room.
                if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} and have < need:
                    raise NoRoom(str(self.folder), need, have) from error
                raise _cannot(self.folder, error) from error
            offset += count
            self.size = max(self.size, offset)
            view = view[count:]

    def blocks(self, size: int = 1 << 20) -> Iterator[bytes]:
        """Yield the content from its start."""
        at = 0
        while data := os.pread(self.descriptor, size, at):
            yield data
            at += len(data)

    @property
    def readable_path(self) -> Path:
        """A path under which this process can open the file again."""
        return Path(f"/proc/self/fd/{self.descriptor}" if sys.platform == "linux" else f"/dev/fd/{self.descriptor}")

    def close(self) -> None:
        """Let the file go, and all that is in it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def folder_for(near: Path | None) -> Path:
    """Return the directory for unpacked files: TMPDIR, else that of the target, else /var/tmp."""
    stated = os.environ.get("TMPDIR")
    if stated:
        return Path(stated)
    return near if near is not None else Path(_FALLBACK)


def _open_unnamed(folder: Path) -> int:
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | os.O_EXCL, 0o600)
        except OSError as error:
            # Some file systems have no unnamed files: EOPNOTSUPP, or EISDIR from kernels that do not know the flag.
            if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOTSUP}:
                raise _cannot(folder, error) from error
    import tempfile  # noqa: PLC0415 - seldom needed

    try:
        descriptor, name = tempfile.mkstemp(prefix=".snaptool-", dir=folder)
    except OSError as error:
        raise _cannot(folder, error) from error
    Path(name).unlink()
    return descriptor


def _cannot(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot unpack in {folder}: {error.strerror or type(error).__name__}",
        hint="name another directory with TMPDIR",
    )
