"""A directory that appears whole or not at all.

It is made beside its target under a name of its own, for its owner alone, and gets the target's name by one rename
after every file was written, synced and read back. On any way out that the process survives nothing else is left. An
older tree is replaced by exchanging the two names, where the system can, so that there is a whole one at every moment.

Knows paths and bytes; knows no format. Source: rename(2), syncfs(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Self

from snaptool import signals
from snaptool.errors import InputError, OutputError
from snaptool.files import RENAME_EXCHANGE, RENAME_NOREPLACE, TargetExists, check_parent, output_error, renameat2
from snaptool.inputs import advice, notice, of_run, why

_READ_BYTES = 4 << 20
_MODULUS = 1 << 128


class FolderDraft:
    """A directory being made. `may_replace` says of an existing one, under `force`, whether it is of our own making."""

    def __init__(self, target: Path, *, force: bool, may_replace: Callable[[Path], bool]) -> None:
        check_folder_target(target, force=force, may_replace=may_replace)
        self.target = target
        self._work: Path | None = None
        self._force = force
        self._may_replace = may_replace
        self._sum = self._files = 0
        self._folders: set[str] = {""}
        work = target.parent / f".snaptool-{secrets.token_hex(6)}.part"
        signals.unwanted(work)
        try:
            work.mkdir(0o700)
            self._work = work
            work.chmod(0o700)
        except OSError as error:
            self.discard()
            signals.wanted(work)
            raise output_error("create a directory in", target.parent, error) from error

    def write(self, path: str, content: bytes) -> None:
        """Write a file at a path below the target. Raises FileExistsError where there is one, OutputError."""
        self.write_blocks(path, (content,))

    def write_blocks(self, path: str, blocks: Iterable[bytes]) -> None:
        """Write a file of any size, piece by piece. Raises as `write`."""
        assert self._work is not None
        digest = _new_digest(path)
        folder, _, _ = path.rpartition("/")
        try:
            self._make_folders(folder)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._work / path, flags, 0o600)
            with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor, which Path cannot open
                os.fchmod(descriptor, 0o600)
                for content in blocks:
                    signals.look()
                    digest.update(content)
                    left = memoryview(content)
                    while left:
                        left = left[file.write(left) :]
        except FileExistsError:
            raise
        except OSError as error:
            raise output_error("write", self.target / path, error) from error
        self._sum = (self._sum + int.from_bytes(digest.digest())) % _MODULUS
        self._files += 1

    def working_path(self, path: str) -> Path:
        """Where a file that was written lies until `publish`: to look at it."""
        assert self._work is not None
        return self._work / path

    def _make_folders(self, folder: str) -> None:
        assert self._work is not None
        if folder in self._folders:
            return
        above, _, _ = folder.rpartition("/")
        self._make_folders(above)
        place = self._work / folder
        place.mkdir(0o700)
        place.chmod(0o700)
        self._folders.add(folder)

    def publish(self) -> None:
        """Bring everything to the disk, read it back, and give the directory its name. Raises OutputError.

        When this returns, the directory is there for good.
        """
        assert self._work is not None
        try:
            self._sync()
            self._read_back(self._work)
            check_folder_target(self.target, force=self._force, may_replace=self._may_replace)
            with signals.no_return():
                self._name(self._work)
                signals.written(self.target)
        except OSError as error:
            raise output_error("name", self.target, error) from error
        self.discard()  # of what was replaced
        try:
            descriptor = os.open(self.target.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            notice(f"{self.target} was written, but its directory cannot be synced ({why(error)})")

    def _sync(self) -> None:
        descriptor = os.open(self._work or "", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # One call for all files: a sync of each would take minutes where there are many.
            syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
            if syncfs is None:
                os.sync()
            elif syncfs(descriptor):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(descriptor)

    def _read_back(self, work: Path) -> None:
        found = files = 0
        for folder, _, names in os.walk(work):
            for name in names:
                path = Path(folder, name)
                digest = _new_digest(path.relative_to(work).as_posix())
                with path.open("rb") as file:
                    while content := file.read(_READ_BYTES):
                        signals.look()
                        digest.update(content)
                found = (found + int.from_bytes(digest.digest())) % _MODULUS
                files += 1
        if (found, files) != (self._sum, self._files):
            raise OutputError(f"what is in {self.target} is not what was written", hint="try another disk")

    def _name(self, work: Path) -> None:
        """Give the directory its name. What it replaces is under our working name then."""
        if os.path.lexists(self.target):
            _rename(work, self.target, RENAME_EXCHANGE)
        else:
            _rename(work, self.target, RENAME_NOREPLACE)
            self._work = None
            signals.wanted(work)

    def discard(self) -> None:
        """Leave nothing behind but what `publish` has given its name."""
        if self._work is not None:
            shutil.rmtree(self._work, ignore_errors=True)
            signals.wanted(self._work)
            self._work = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def check_folder_target(target: Path, *, force: bool, may_replace: Callable[[Path], bool]) -> None:
    """Refuse a target that may not be written, before any work. Raises InputError and its leaves."""
    try:
        check_parent(target)
    except OSError as error:
        raise InputError(
            f"cannot look at target {target}: {why(error)}", hint=advice(error), code="cannot_look_at_target"
        ) from error
    if not os.path.lexists(target):
        return
    known = of_run()
    if known is not None:
        for path in (target, *(target.rglob("*") if target.is_dir() else ())):
            known.refuse(path)
    if not force:
        raise TargetExists(f"target {target} already exists", hint="choose another target; --force replaces an export")
    if not stat.S_ISDIR(target.lstat().st_mode) or not may_replace(target):
        raise TargetExists(
            f"target {target} exists, and is not a directory that an export made: it is not deleted",
            hint="choose another target, or remove it yourself",
        )


def _rename(source: Path, target: Path, flag: int) -> None:
    """Rename without replacing, or exchange two names; by plain renames where the system has neither."""
    number = renameat2(source, target, flag)
    if not number:
        return
    if number not in {errno.ENOSYS, errno.EINVAL}:
        raise OSError(number, os.strerror(number))
    if flag == RENAME_EXCHANGE:
        aside = source.with_name(f"{source.name}.old")
        target.rename(aside)
        source.rename(target)
        aside.rename(source)
    else:
        source.rename(target)


def _new_digest(path: str) -> blake2b:
    """Begin to digest a file with its place; sums of these do not depend on the order."""
    name = path.encode(errors="surrogateescape")
    return blake2b(len(name).to_bytes(4) + name, digest_size=16)
