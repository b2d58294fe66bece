"""What a run reads: small files whole and bounded, and the rule that nothing of it is ever written.

The rule goes by identity and not by spelling: a link to a file is that file. The command line remembers all that is
opened during a run; a library's calls know the source that they were given. `snaptool.files.check_target` asks here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from snaptool import signals
from snaptool.errors import InputError


class TargetIsRead(InputError):
    """The target is a file that the run reads, or belongs to what it reads."""


class InputTooLarge(InputError):
    """A configuration or a file of keys is larger than any that is meant. `beginning`: its first bytes."""

    def __init__(self, message: str, *, hint: str, beginning: bytes, place: str | None = None) -> None:
        super().__init__(message, hint=hint, place=place)
        self.beginning = beginning


_BEGINNING = 4096


@dataclass(slots=True)
class Inputs:
    """What a run reads: files by identity, and etcd's directories, in which nothing may be written.

    `objects` of stores, each with its version.
    `notices`: sentences for the user about these files, and about those that were written; `say` gets each at once.
    """

    files: dict[tuple[int, int], str] = field(default_factory=dict)
    folders: dict[tuple[int, int], str] = field(default_factory=dict)
    objects: list[tuple[Path, str]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    say: Callable[[str], None] | None = None

    def add(self, status: os.stat_result, name: str) -> None:
        """Take note of a file, whatever other names it has."""
        self.files.setdefault((status.st_dev, status.st_ino), name)

    def add_data_directory(self, member: Path) -> None:
        """Take note of all that is in the directory `member` of an etcd data directory."""
        with contextlib.suppress(OSError):
            status = member.stat()
            self.folders.setdefault((status.st_dev, status.st_ino), str(member))
            for folder, _, names in os.walk(member):
                for name in names:
                    with contextlib.suppress(OSError):
                        self.add((Path(folder) / name).stat(), f"{folder}/{name}")

    def refuse(self, target: Path) -> None:
        """Raise TargetIsRead for a target that is one of these files, by whatever spelling or link."""
        hint = "choose another target; what a run reads is never written, --force or not"
        with contextlib.suppress(OSError):
            status = target.stat()
            if (read := self.files.get((status.st_dev, status.st_ino))) is not None:
                raise TargetIsRead(f"target {target} is the same file as {read}, which this run reads", hint=hint)
        folder = Path(os.path.realpath(target.parent))
        for above in (folder, *folder.parents) if self.folders else ():
            with contextlib.suppress(OSError):
                status = above.stat()
                if (read := self.folders.get((status.st_dev, status.st_ino))) is not None:
                    raise TargetIsRead(f"target {target} is inside {read}, the data of an etcd", hint=hint)


_run: ContextVar[Inputs | None] = ContextVar("snaptool_inputs", default=None)


@contextlib.contextmanager
def remembering_inputs(say: Callable[[str], None] | None = None) -> Iterator[Inputs]:
    """Remember, for the block, every file that is opened here; `check_target` refuses all of them."""
    inputs = Inputs(say=say)
    token = _run.set(inputs)
    try:
        yield inputs
    finally:
        _run.reset(token)


def of_run() -> Inputs | None:
    """Return what this run has read so far, where that is remembered."""
    return _run.get()


def remember(status: os.stat_result, name: str) -> None:
    """Take note of a file that the run reads."""
    if (inputs := _run.get()) is not None:
        inputs.add(status, name)


def remember_object(place: Path, version: str) -> None:
    """Take note of an object of a store that the run reads."""
    if (inputs := _run.get()) is not None:
        inputs.objects.append((place, version))


def notice(sentence: str) -> None:
    """Leave a sentence for the user, who gets it once."""
    if (inputs := _run.get()) is not None and sentence not in inputs.notices:
        inputs.notices.append(sentence)
        if inputs.say is not None:
            inputs.say(sentence)


def read_input(
    path: str | os.PathLike[str], limit: int, what: str, *, secret: bool | bytes = False, hint: str = ""
) -> bytes:
    """Read a whole small file, or a pipe that has a writer (`<(…)` of a shell); `-` is stdin.

    `what` it is called: `configuration`. `secret`: it holds keys, always or where these bytes are in it; that other
    users can read it is noticed. Raises InputError; InputTooLarge for more than `limit` bytes: what is cut is not what
    was meant.
    """
    name = "stdin" if os.fspath(path) == "-" else os.fspath(path)
    try:
        if name == "stdin":
            if sys.stdin is None:
                raise InputError(f"cannot read {what} from stdin: it is closed", code="cannot_read")
            with contextlib.suppress(OSError, ValueError):
                remember(os.fstat(sys.stdin.fileno()), name)
            content = _read_all(sys.stdin.buffer, limit + 1)
        else:
            # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                status = os.fstat(file.fileno())
                remember(status, name)
                if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                    raise InputError(
                        f"{what} {name} is a device, not a file", hint=hint, code="not_a_regular_file", place=name
                    )
                content = _read_all(file, limit + 1)
            if secret is True or (secret and secret in content):
                _note_readers(Path(name), status)
    except OSError as error:
        helps = advice(error) or "check the path and its permissions"
        raise InputError(
            f"cannot read {what} {name}: {why(error)}", hint=helps, code="cannot_read", place=name
        ) from error
    if len(content) > limit:
        raise InputTooLarge(
            f"{what} {name} has more than {limit:,} bytes", hint=hint, beginning=content[:_BEGINNING], place=name
        )
    return content


def _read_all(stream: BinaryIO, size: int) -> bytes:
    """Read up to `size` bytes of a stream, to its end if it has fewer; a signal ends the wait for them."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return stream.read(size)  # it is in memory
    parts = []
    while size and (part := signals.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _note_readers(path: Path, status: os.stat_result) -> None:
    """Notice a file of keys that every user of the machine can read: its own mode, and that of every folder above."""
    if not (stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH):
        return
    with contextlib.suppress(OSError):
        folders = Path(os.path.realpath(path)).parents
        if all(folder.stat().st_mode & stat.S_IXOTH for folder in folders):
            mode = stat.S_IMODE(status.st_mode)
            notice(f"{path} holds keys, and every user of this machine can read it (mode {mode:04o})")


def why(error: OSError) -> str:
    """Return what the system says about an error."""
    return error.strerror or type(error).__name__


def advice(error: OSError) -> str:
    """Return what helps, "" where that is not known."""
    known = {
        errno.ENOSPC: "free space on that disk, or choose a target on another one",
        errno.EDQUOT: "free space within your quota, or choose a target on another disk",
        errno.EACCES: "check the permissions of the file and its directories",
        errno.ENOENT: "check the spelling of the path",
    }
    return known.get(error.errno or 0, "")
