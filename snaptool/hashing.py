"""SHA-256 of a file, computed in a thread of its own: what a large file takes the longest for, so it begins first.

`begin_early` begins before anything else is imported, by a guess at which argument is the snapshot; `hash_of` takes
that over where the very file is opened later.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
from pathlib import Path

from snaptool import signals

_BLOCK = 8 << 20
"""Measured: every block waits twice for other threads to let go of the interpreter; larger ones leave the cache."""
_SECTOR = 512
"""A trailer makes up no whole one: a file is the longer than its database by the rest."""
_EARLY_FROM = 16 << 20  # bytes: less is hashed before anybody waits for it
_HASHING = {"inspect", "repair", "rewrite", "verify"}
_MAGIC = slice(16, 20), b"\xed\xda\x0c\xed"  # of a bolt database


class FileHash:
    """SHA-256 of `size` bytes of an open file from `begin`, and of every shorter stretch from there."""

    def __init__(self, descriptor: int, begin: int, size: int) -> None:
        self._fd = os.dup(descriptor)
        self._begin, self._size = begin, size
        self._stopped = False
        self._states = [(0, hashlib.sha256())]
        self._room = memoryview(bytearray(min(_BLOCK, size)))
        self._thread = threading.Thread(target=self._run, name="snaptool-sha256", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        start, state = self._states[0]
        whole = self._size - self._size % _SECTOR
        while start < self._size and not self._stopped:
            state = state.copy()
            end = min(start + _BLOCK, whole if start < whole else self._size)
            if not (count := self._add(state, start, end)):
                return  # it was cut, which is told by whoever looks at it next
            start += count
            self._states.append((start, state))

    def _add(self, state: hashlib._Hash, start: int, end: int) -> int:
        # Read, not mapped: pages that this thread mapped would have to be let go of, and those of others too.
        count = os.preadv(self._fd, [self._room[: end - start]], self._begin + start)
        state.update(self._room[:count])
        return count

    def digest(self, end: int) -> bytes:
        """Wait for the end of the thread; return the digest of the first `end` bytes; b"": they were cut off."""
        signals.join(self._thread)
        start, state = max((one for one in self._states if one[0] <= end), key=lambda one: one[0])
        state = state.copy()
        while start < end:
            if not (count := self._add(state, start, min(start + _BLOCK, end))):
                return b""
            start += count
        return state.digest()

    def stop(self) -> None:
        """End the thread, with or without a result, and close the file."""
        self._stopped = True
        self._thread.join()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_early: list[tuple[FileHash, os.stat_result]] = []


def begin_early(arguments: list[str]) -> None:
    """Hash the first large database among the arguments of a command that hashes one, before it is known what for."""
    if arguments[:1] and arguments[0] in _HASHING:
        for word in arguments[1:]:
            with contextlib.suppress(OSError, ValueError):
                if _begun(word):
                    return


def _begun(word: str) -> bool:
    found = Path(word).stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size < _EARLY_FROM:  # a pipe is not to be opened
        return False
    descriptor = os.open(word, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        where, magic = _MAGIC
        if descriptor <= 2 or os.pread(descriptor, where.stop, 0)[where] != magic:  # what the caller closed stays free
            return False
        now = os.fstat(descriptor)
        _early.append((FileHash(descriptor, 0, now.st_size), now))
    finally:
        os.close(descriptor)
    return True


def hash_of(descriptor: int, begin: int, size: int) -> FileHash:
    """Hash `size` bytes of an open file from `begin`, or take what has begun to."""
    now = os.fstat(descriptor)
    while _early:
        begun, then = _early.pop()
        if (begin, size) == (0, then.st_size) and _same(now, then):
            return begun
        begun.stop()
    return FileHash(descriptor, begin, size)


def end_early() -> None:
    """Stop what nobody took."""
    while _early:
        _early.pop()[0].stop()


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    facts = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    return all(getattr(one, fact) == getattr(other, fact) for fact in facts)
