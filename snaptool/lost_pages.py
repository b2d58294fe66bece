"""What happens when a mapped file is cut under our hands: zeros and a mark, in place of the end of the process.

To touch a page of a map that its file no longer has raises SIGBUS in the thread that touched it, inside an instruction
that would fault again at once. Python's own handlers run later, which is never; so this one is C's, made by ctypes. It
puts zeros in the place of the lost pages, up to the end of the map, and lets the instruction read those. What is made
of them is thrown away: whoever works on the map asks `Guarded.torn` between stretches of work, and raises.

Faults at addresses that are nobody's here go to whoever had the signal before. Reading by calls instead of maps would
need none of this, and a copy of every page that is looked at. Source: mmap(2), sigaction(2), signal-safety(7).
"""

from __future__ import annotations

import ctypes
import mmap
import signal
import sys
import weakref
from typing import Final

_SA_SIGINFO, _SA_NODEFER = 4, 0x40000000  # bits/sigaction.h
_MAP_FIXED = 0x10
_ADDRESS_AT: Final = 16
"""Where si_addr is in siginfo_t, on Linux of 64 bits."""


class _Action(ctypes.Structure):
    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class _Buffer(ctypes.Structure):
    """Py_buffer. Source: CPython, Include/pybuffer.h."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


class Guarded:
    """A range of addresses in which lost pages read as zeros. `torn`: some were lost."""

    def __init__(self, start: int, size: int) -> None:
        self.start, self.end = start, start + size
        self.torn = False


class _Guard:
    """The handler of the process, and the ranges that it answers for."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        self.ranges: list[Guarded] = []
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(self._answer)
        self._before = _Action()
        action = _Action(handler=ctypes.cast(self._callback, ctypes.c_void_p), flags=_SA_SIGINFO | _SA_NODEFER)
        self._libc.sigaction(int(signal.SIGBUS), ctypes.byref(action), ctypes.byref(self._before))

    def _answer(self, number: int, info: int, _context: int) -> None:
        address = ctypes.c_void_p.from_address(info + _ADDRESS_AT).value or 0
        for known in self.ranges:
            if known.start <= address < known.end:
                known.torn = True
                page = address & ~(mmap.PAGESIZE - 1)
                flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
                got = self._libc.mmap(page, known.end - page, mmap.PROT_READ, flags, -1, 0)
                if got == page:
                    return
        self._libc.sigaction(number, ctypes.byref(self._before), None)  # the fault comes again, to its owner


_guard: _Guard | None = None


def guard(mapped: mmap.mmap) -> Guarded:
    """Answer for the pages of a map for as long as it lives. On other systems it is never torn, and SIGBUS is fatal."""
    global _guard  # noqa: PLW0603 - one handler in a process, made when the first file is mapped
    view = _Buffer()
    known = Guarded(0, 0)
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return known
    if ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(mapped), ctypes.byref(view), 0) == 0:
        known = Guarded(view.buf or 0, len(mapped))
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))
        if _guard is None:
            _guard = _Guard()
        _guard.ranges.append(known)
        weakref.finalize(mapped, _guard.ranges.remove, known)
    return known
