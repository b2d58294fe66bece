"""How a run ends by a signal: a flag that is looked at, the names that may not stay, the point of no return.

A handler leaves a flag and raises nothing: an exception that may come out of any line leaves a doubt about every line.
The run looks at the flag once per piece of work (`look`: at progress, at every block that is written, in every wait),
and ends there by `Interrupted`, so that everything that was begun is ended by whoever began it.

Where nobody looks within a second (a call into a library or a disk that does not come back), and at a second signal,
the process ends at once. That is as safe: it is what SIGKILL does, and files under work have no name, or one that is
listed here and removed first; workers and the scratch etcd end with their parent. Two stretches are different, and say
so themselves:

- `no_return`: a file is about to get its name. The flag is looked at when the name is there, or is known not to come.
  From then on the run goes on to its end, whose words and exit code say what is true; a further signal ends it at once,
  with the same words.
- `interruptible`: a wait inside a library that knows how to end at KeyboardInterrupt, which a signal raises there.

Only the command line installs handlers. A library leaves its host's signals alone, and finds no flag.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

_FAULTS = {"SIGSEGV", "SIGFPE", "SIGILL", "SIGBUS"}
"""Raised by the processor: Python's handlers would run after the instruction, which is never."""

_HARMLESS = {"SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGSTOP", "SIGKILL"}

_ERRORS_INSTEAD = {"SIGPIPE", "SIGXFSZ"}
"""Python ignores them: a pipe without a reader and a file that may not grow are errors of the call that meets them."""

_HELPERS_END_WITHIN = 10.0  # seconds
_LOOKED_AT_WITHIN = 1.0  # seconds
_SLICE = 0.1  # seconds of a wait between two looks

Words = Callable[[tuple[str, ...]], None]
"""Says that a signal ends the run, and which files had been written by then."""


class Interrupted(KeyboardInterrupt):
    """A signal has ended the run. A KeyboardInterrupt, so that libraries let go of what they hold as on Ctrl-C."""


class _State:
    """Of the process: there is one, as there is one table of handlers."""

    def __init__(self) -> None:
        self.process = 0
        self.say: Words | None = None
        self.unwanted: set[str] = set()
        self.written: list[str] = []
        self.deferring = 0
        self.interruptible = 0
        self.pending = 0
        self.raised: set[int] = set()
        self.armed = False
        self.ending = False
        self.helpers: set[int] = set()


_state = _State()


def ending() -> set[signal.Signals | int]:
    """Return the signals that end a run: every one that a program can catch and that means an end."""
    kept = {
        int(signal.Signals[name])
        for name in _FAULTS | _HARMLESS | _ERRORS_INSTEAD
        if name in signal.Signals.__members__
    }
    return {number for number in signal.valid_signals() if int(number) not in kept}


def block() -> None:
    """Hold signals back until `install`: nothing that a run does is worth interrupting before."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ending())


def install(say: Words) -> None:
    """Answer signals from now on; those that the parent chose to ignore (nohup) stay ignored."""
    _state.process, _state.say = os.getpid(), say
    for number in ending():
        if signal.getsignal(number) is not signal.SIG_IGN:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ending())


def in_worker() -> None:
    """Be a process whose parent decides: what a terminal sends to all of them is ignored, the rest ends it."""
    for number in ending():
        if signal.getsignal(number) in (_end, signal.default_int_handler):
            from_terminal = number in {signal.SIGINT, signal.SIGQUIT, signal.SIGHUP}
            signal.signal(number, signal.SIG_IGN if from_terminal else signal.SIG_DFL)


def _end(number: int, _frame: FrameType | None) -> None:
    if os.getpid() != _state.process:
        os._exit(128 + number)
    late = number == signal.SIGALRM and _state.armed
    first = not _state.pending
    _state.pending = _state.pending or number
    if _state.ending:
        end(_state.pending)
    if _state.deferring or (_state.written and (first or late)):
        return
    if not first:
        end(_state.pending)
    if _state.interruptible:
        _raise()
    _arm()


def _arm() -> None:
    """Let a second pass in which somebody may look. The system's clock counts it, and wakes us as a signal does."""
    _state.armed = True
    signal.signal(signal.SIGALRM, _end)  # where the parent ignores it too
    signal.setitimer(signal.ITIMER_REAL, _LOOKED_AT_WITHIN, _LOOKED_AT_WITHIN)


def _disarm() -> None:
    if _state.armed:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _state.armed = False


def look() -> None:
    """Raise Interrupted, once in each thread, where a signal came and nothing was written yet. To be called often."""
    if not _state.pending or _state.written or _state.deferring or _state.ending:
        return
    if threading.get_ident() not in _state.raised:
        _raise()


def _raise() -> None:
    _state.raised.add(threading.get_ident())
    raise Interrupted


def sleep(seconds: float) -> None:
    """Sleep, and look now and then."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        look()
        time.sleep(min(left, _SLICE))
    look()


def join(thread: threading.Thread) -> None:
    """Wait for the end of a thread, and look now and then."""
    while thread.is_alive():
        look()
        thread.join(_SLICE)
    thread.join()


def read(descriptor: int, size: int) -> bytes:
    """Read up to `size` bytes, none at the end, and look while a pipe has none. Raises OSError.

    A signal that comes just before a call that blocks does not end it, so that nothing blocks here.
    """
    if not os.get_blocking(descriptor):
        with contextlib.suppress(BlockingIOError):
            return os.read(descriptor, size)  # of a pipe that nobody has opened for writing, the end
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    while not waiting.poll(_SLICE * 1000):
        look()
    look()
    return os.read(descriptor, size)


def came() -> bool:
    """Has a signal come that ends the run, which has written nothing?"""
    return bool(_state.pending) and not _state.written


def last_words() -> int:
    """Begin to end a run that was interrupted: a further signal does not wait. Return its exit code."""
    _state.ending = True
    _disarm()
    return 128 + (_state.pending or signal.SIGINT)


def end(number: int) -> None:
    """End the process as that signal does: nothing but what was published stays.

    A signal that comes meanwhile does not wait for the helpers, which end by themselves then.
    """
    if _state.ending:
        os._exit(128 + number)
    _state.ending = True
    for name in list(_state.unwanted):
        with contextlib.suppress(OSError):
            Path(name).unlink()
        if Path(name).is_dir():
            from shutil import rmtree  # noqa: PLC0415 - who made a directory has imported it

            rmtree(name, ignore_errors=True)
    if _state.say is not None:
        with contextlib.suppress(Exception):
            _state.say(tuple(_state.written))
    _end_helpers()
    os._exit(128 + number)


def _end_helpers() -> None:
    for process in _state.helpers:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + _HELPERS_END_WITHIN
    for process in _state.helpers:
        with contextlib.suppress(OSError):
            while os.waitpid(process, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
                time.sleep(0.01)


def helper(process: int) -> None:
    """Take note of a child that cleans up after itself, given SIGTERM and a moment."""
    _state.helpers.add(process)


def no_helper(process: int) -> None:
    """Forget a child that has ended."""
    _state.helpers.discard(process)


@contextlib.contextmanager
def no_return() -> Iterator[None]:
    """Give a file its name in here. A signal waits until the block is over; if nothing was written, it ends the run."""
    look()
    _disarm()
    _state.deferring += 1
    try:
        yield
    finally:
        _state.deferring -= 1
        look()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Wait in here, in a library that lets go of what it holds at KeyboardInterrupt: a signal raises Interrupted."""
    look()
    mine = threading.current_thread() is threading.main_thread()
    _state.interruptible += mine
    try:
        yield
    finally:
        _state.interruptible -= mine


def begin() -> None:
    """Forget what an earlier run in this process has written."""
    _state.written.clear()
    _state.ending = False
    _state.interruptible = 0
    answered()


def answered() -> None:
    """Forget a signal that did what it was meant to."""
    _disarm()
    _state.pending = 0
    _state.raised.clear()


def unwanted(name: Path) -> None:
    """Take note, before it is made, of a file or directory that may not stay when the process ends."""
    _state.unwanted.add(str(name))


def wanted(name: Path) -> None:
    """Forget a file that is gone, or has become what it was made for."""
    _state.unwanted.discard(str(name))


def written(name: Path) -> None:
    """Take note that a file that the user asked for is there, whole."""
    _state.written.append(str(name))


def all_written() -> tuple[str, ...]:
    """Return the files that this run has published so far."""
    return tuple(_state.written)


def leave_no_core() -> None:
    """Let no core file of this process, which has keys in its memory, be written, nor of a program that it starts.

    The limit does not count where cores go through a pipe, so that the filter of what is in them is emptied too.
    Source: core(5).
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError):
        Path("/proc/self/coredump_filter").write_text("0")
