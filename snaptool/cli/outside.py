"""Errors of the world around: what the system refuses is named, and is not a bug of snaptool.

A net below the places that know better what they were doing: a path that cannot be used, no more descriptors, threads,
processes or memory.
"""

from __future__ import annotations

import errno
import os

from snaptool.errors import InputError, OutputError, SnaptoolError

_OF_OUTPUT = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def from_outside(error: OSError | MemoryError | RuntimeError | ImportError) -> SnaptoolError | None:
    """Return the named error for one that the system raised; None for one that looks like a mistake of ours."""
    if isinstance(error, ImportError):
        # What the loader of a library says. Source: ld.so(8), elf/dl-load.c of glibc.
        if "cannot open shared object file" in str(error) and os.strerror(errno.EMFILE) in str(error):
            return from_outside(OSError(errno.EMFILE, ""))
        if not any(words in str(error) for words in ("failed to map segment", "cannot allocate memory")):
            return None
        return from_outside(MemoryError())
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return SnaptoolError(
            "there is not enough memory", hint="allow more (ulimit -v, cgroup), or use --jobs 1", code="no_memory"
        )
    if isinstance(error, RuntimeError):
        if "start new thread" not in str(error):
            return None
        return SnaptoolError(
            "the system starts no further thread", hint="allow more processes (ulimit -u) or memory", code="no_threads"
        )
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return SnaptoolError(
            "too many open files", hint="allow more (ulimit -n), or use fewer --jobs", code="too_many_open_files"
        )
    if error.errno == errno.EAGAIN and error.filename is None:
        return SnaptoolError(
            "the system starts no further process", hint="allow more (ulimit -u), or use --jobs 1", code="no_processes"
        )
    if error.errno is None:
        return None
    why = os.strerror(error.errno)
    if error.filename is None:
        return OutputError(f"the system refused: {why}") if error.errno in _OF_OUTPUT else None
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    if error.errno in _OF_OUTPUT:
        return OutputError(f"cannot write {name}: {why}", place=name)
    return InputError(
        f"cannot use {name}: {why}", hint="check the path and its permissions", code="cannot_use_path", place=name
    )
