"""The keeper: a process that owns a scratch directory and the one etcd program that runs in it.

Run as a script by `snaptool.scratch.server`, never imported by it: standard library only, one thread only. It makes a
private directory, starts the programs it is asked to start, one at a time, and ends when its standard input ends. Then
it stops the program and removes the directory. Its input is a pipe that only the parent holds, so this happens however
the parent ends, SIGKILL included; and the program has asked the kernel to die with the keeper (PR_SET_PDEATHSIG), so
nothing survives if the keeper is killed either: the parent then removes the directory.

Why not `preexec_fn` in the parent: the parent has threads (gRPC), and Python code between fork and exec may deadlock
there. Why not only PR_SET_PDEATHSIG: it follows the thread that forked, and it removes no directory.

Requests and answers are JSON, one a line. In: `{"start": argv, "env": {...}}`, `{"stop": seconds}`. Out:
`{"directory": path}` once, then `{"started": pid}`, `{"failed": why}`, `{"exited": code}`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOG = "log"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_GRACE = 3.0  # seconds between SIGTERM and SIGKILL when the parent has gone


def _say(**message: object) -> None:
    # The parent may be gone; then nobody needs the answer, and the end of input says what to do.
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(message).encode() + b"\n")


class _Child:
    """The one program that runs at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._keeper = os.getpid()

    def _die_with_keeper(self) -> None:
        if self._libc is not None:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self._keeper:  # it died before the kernel was asked
            os._exit(1)

    def start(self, argv: list[str], env: dict[str, str]) -> None:
        try:
            with (self._directory / LOG).open("wb") as log:
                self._process = subprocess.Popen(
                    argv,
                    cwd=self._directory,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    preexec_fn=self._die_with_keeper,  # noqa: PLW1509 - this process has one thread only
                )
        except OSError as error:
            _say(failed=error.strerror or type(error).__name__)
        else:
            _say(started=self._process.pid)

    def report_exit(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            _say(exited=self._process.returncode)
            self._process = None

    def stop(self, grace: float) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.report_exit()


def _catch_signals(ends: list[int]) -> int:
    """Let signals wake a selector that watches the returned descriptor; those that end the keeper go into `ends`."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: ends.append(number))
    return woken


def _serve(directory: Path, woken: int, ends: list[int]) -> None:
    child = _Child(directory)
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as cleanup:
        cleanup.callback(child.stop, _GRACE)
        selector.register(0, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        pending = b""
        while not ends:
            for key, _ in selector.select():
                if key.fd == woken:
                    os.read(woken, 4096)
                    child.report_exit()
                    continue
                block = os.read(0, 65536)
                if not block:
                    return
                *lines, pending = (pending + block).split(b"\n")
                for line in lines:
                    request = json.loads(line)
                    if "start" in request:
                        child.start(request["start"], request["env"])
                    else:
                        child.stop(request["stop"])


def _remove(directory: Path) -> bool:
    """Remove the directory. A program that has just been killed may still be finishing a write, hence the retries."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return True
        time.sleep(0.05)
    return False


def main() -> int:
    """Make the directory, serve requests until the input ends, remove the directory."""
    ends: list[int] = []
    woken = _catch_signals(ends)
    os.umask(0o077)
    try:
        directory = Path(tempfile.mkdtemp(prefix="snaptool-", dir=sys.argv[1] if len(sys.argv) > 1 else None)).resolve()
    except OSError as error:
        _say(failed=error.strerror or type(error).__name__)
        return 1
    try:
        _say(directory=str(directory))
        _serve(directory, woken, ends)
    finally:
        removed = _remove(directory)
    return 0 if removed else 1


if __name__ == "__main__":
    sys.exit(main())
