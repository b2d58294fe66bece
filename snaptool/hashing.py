# cython: boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True, show_performance_hints=False
"""SHA-256 of a file, computed in a thread of its own: what a large file takes the longest for, so it begins first.

`begin_early` begins before anything else is imported, by a guess at which argument is the snapshot; `hash_of` takes
that over where the very file is opened later.

The file is read, not mapped, in pieces that are still in the core's cache when they are hashed. Compiled, they go
through libcrypto's functions, by their addresses: a thread that came back to Python after each would wait there for
those that run it. Where these are not to be had, and uncompiled, hashlib does the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import stat
import threading
from functools import cache
from pathlib import Path
from typing import Any

from snaptool import signals

try:
    import cython
except ImportError:
    from snaptool.compiled import cython  # type: ignore[no-redef]

if cython.compiled:
    from cython.cimports.posix.unistd import pread  # type: ignore[import-untyped]

if not cython.compiled:
    Room = memoryview
    Update = Any  # a function by its address

_SECTOR = 512
"""A trailer makes up no whole one: a file is the longer than its database by the rest."""
_EARLY_FROM = 16 << 20  # bytes: less is hashed before anybody waits for it
_HASHING = {"inspect", "repair", "rewrite", "verify"}
_MAGIC = slice(16, 20), b"\xed\xda\x0c\xed"  # of a bolt database


class ByHashlib:
    """SHA-256 of what was added. `block`: bytes to read at once; `stretch`: bytes that may be added at once.

    Measured: every block waits twice for the interpreter, and one that is larger still takes longer than that.
    """

    block = stretch = 8 << 20

    def __init__(self) -> None:
        self.state = hashlib.sha256()

    def copy(self) -> ByHashlib:
        """Return another one of the same bytes."""
        made = ByHashlib()
        made.state = self.state.copy()
        return made

    def add(self, descriptor: int, room: memoryview, start: int, end: int) -> int:
        """Add what a file has from `start` up to `end`; return how many bytes that were. Raises OSError."""
        count = os.preadv(descriptor, [room[: end - start]], start)
        self.state.update(room[:count])
        return count

    def digest(self) -> bytes:
        """Return the digest."""
        return self.state.digest()


@cache
def libcrypto() -> Any:
    """Return the library that hashlib has loaded, with the functions that are called here; None: not to be had."""
    nothing, number, pointer = None, ctypes.c_int, ctypes.c_void_p
    try:
        import _hashlib  # noqa: PLC0415 - there may be none

        library = ctypes.CDLL(_hashlib.__file__)
        for result, name, arguments in (
            (pointer, "EVP_MD_CTX_new", 0),
            (nothing, "EVP_MD_CTX_free", 1),
            (number, "EVP_MD_CTX_copy_ex", 2),
            (pointer, "EVP_sha256", 0),
            (number, "EVP_DigestInit_ex", 3),
            (number, "EVP_DigestUpdate", 3),
            (number, "EVP_DigestFinal_ex", 3),
        ):
            getattr(library, name).restype, getattr(library, name).argtypes = result, [pointer] * arguments
    except (ImportError, OSError, AttributeError):
        return None
    return library


class ByLibcrypto:
    """The same, with a `block` that fits into the cache. Source: EVP_DigestInit(3)."""

    block, stretch = 1 << 18, 32 << 20

    def __init__(self) -> None:
        self._library = libcrypto()
        self.context = self._library.EVP_MD_CTX_new()
        if not self._library.EVP_DigestInit_ex(self.context, self._library.EVP_sha256(), None):
            raise MemoryError

    def copy(self) -> ByLibcrypto:
        """Return another one of the same bytes."""
        made = ByLibcrypto()
        if not self._library.EVP_MD_CTX_copy_ex(made.context, self.context):
            raise MemoryError
        return made

    def add(self, descriptor: int, room: memoryview, start: int, end: int) -> int:
        """Add what a file has from `start` up to `end`; return how many bytes that were. Raises OSError."""
        update = ctypes.cast(self._library.EVP_DigestUpdate, ctypes.c_void_p).value or 0
        count: int = add_file(descriptor, room, start, end, self.context, update)
        if not count:
            os.pread(descriptor, 1, start)  # the end of the file; or an error, which this raises
        return count

    def digest(self) -> bytes:
        """Return the digest."""
        last, found = self.copy(), ctypes.create_string_buffer(32)
        if not self._library.EVP_DigestFinal_ex(last.context, found, None):
            raise MemoryError
        return found.raw

    def __del__(self) -> None:
        self._library.EVP_MD_CTX_free(self.context)


if cython.compiled:

    def add_file(
        descriptor: cython.int,
        room: Room,
        start: cython.longlong,
        end: cython.longlong,
        context: cython.size_t,
        address: cython.size_t,
    ) -> int:
        """Hash what a file has from `start` up to `end` by the function at `address`; return how many bytes."""
        update: Update = cython.cast(Update, address)
        size: cython.longlong = len(room)
        at: cython.longlong = start
        count: cython.longlong
        room[size - 1]  # so that all of it is there
        with cython.nogil:
            while at < end:
                count = pread(descriptor, cython.address(room[0]), min(size, end - at), at)
                if count <= 0 or not update(cython.cast(cython.p_void, context), cython.address(room[0]), count):
                    break
                at += count
        return at - start


class FileHash:
    """SHA-256 of `size` bytes of an open file from `begin`, and of every shorter stretch from there."""

    def __init__(self, descriptor: int, begin: int, size: int) -> None:
        self._fd = os.dup(descriptor)
        self._begin, self._size = begin, size
        self._stopped = False
        first = ByLibcrypto() if cython.compiled and libcrypto() is not None else ByHashlib()
        self._states: list[tuple[int, ByHashlib | ByLibcrypto]] = [(0, first)]
        self._room = memoryview(bytearray(first.block))
        self._thread = threading.Thread(target=self._run, name="snaptool-sha256", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        start, state = self._states[0]
        whole = self._size - self._size % _SECTOR
        with contextlib.suppress(OSError):  # whoever asks for a digest meets it again
            while start < self._size and not self._stopped:
                state, end = state.copy(), min(start + state.stretch, whole if start < whole else self._size)
                if not (count := self._add(state, start, end)):
                    return  # it was cut, which is told by whoever looks at it next
                start += count
                self._states.append((start, state))

    def _add(self, state: ByHashlib | ByLibcrypto, start: int, end: int) -> int:
        return state.add(self._fd, self._room, self._begin + start, self._begin + end)

    def digest(self, end: int) -> bytes:
        """Wait for the end of the thread; return the digest of the first `end` bytes; b"": they were cut off.

        Raises OSError.
        """
        signals.join(self._thread)
        start, state = max((one for one in self._states if one[0] <= end), key=lambda one: one[0])
        state = state.copy()
        while start < end:
            if not (count := self._add(state, start, end)):
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
