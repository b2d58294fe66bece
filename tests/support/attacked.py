"""Runs the command line while something happens to it: a process of one thread that forks one child for each job.

A job is a line of JSON: `argv`; `moment`, the audit event at which `action` is done (`any`: after `delay` seconds, from
outside), `number` for it; `limits`, by name of RLIMIT; `out` and `err`, where the child's streams go (null: closed);
`missing`, calls that the system has not. The answer is a line with the child's wait status.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import sys
import threading
import time
from typing import Any

from snaptool import signals

UNNAMED = os.O_TMPFILE


def attack(action: str, number: int, source: str, process: int) -> None:
    """Do it: everything that another process, a user or a machine may do to a run."""
    status = os.stat(source)  # noqa: PTH116 - hooks stay with the calls that they watch
    if action == "signal":
        os.kill(process, number)
    elif action == "cut":
        os.truncate(source, number % status.st_size)
    elif action == "grow":
        os.truncate(source, status.st_size + 1 + number % 9000)
    elif action == "replace":
        os.replace(f"{source}.other", source)  # noqa: PTH105 - as above
    elif action == "unlink":
        os.unlink(source)  # noqa: PTH108 - as above
    elif action == "in place":
        descriptor = os.open(source, os.O_RDWR)
        at = number % status.st_size
        os.pwrite(descriptor, bytes([os.pread(descriptor, 1, at)[0] ^ 1]), at)
        os.close(descriptor)
        os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))


def moment_of(event: str, arguments: tuple[Any, ...]) -> str:
    if event == "mmap.__new__" and arguments[0] != -1:
        return "map"
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & UNNAMED == UNNAMED:
        return "draft"
    return {
        "snaptool.thread": "thread",
        "os.link": "name",
        "os.rename": "name",
        "import": "import",
        "open": "open",
    }.get(event, "")


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def be_attacked(job: dict[str, Any]) -> None:
    """Become the command that the job is about; does not return."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            if number not in {signal.SIGPIPE, signal.SIGXFSZ}:
                signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, place in ((0, os.devnull), (1, job["out"]), (2, job["err"])):
        if place is None:
            os.close(descriptor)
        else:
            os.dup2(os.open(place, os.O_RDWR | os.O_CREAT, 0o600), descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        None if place is None else open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
        for descriptor, place, mode in ((0, os.devnull, "r"), (1, job["out"], "w"), (2, job["err"], "w"))
    )
    if "unnamed files" in job["missing"]:
        del os.O_TMPFILE
    if "links" in job["missing"]:
        os.link = refuse
    from snaptool.__main__ import main

    for name, limit in job["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    left, mine = job["nth"], os.getpid()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if left and os.getpid() == mine and moment_of(event, arguments) == job["moment"]:
            left -= 1
            if not left:
                attack(job["action"], job["number"], job["source"], mine)

    signals.block()  # the first thing that the program itself does
    start = threading.Thread.start

    def tell(thread: threading.Thread) -> None:
        sys.audit("snaptool.thread")  # Python says it from 3.12 on
        start(thread)

    threading.Thread.start = tell  # type: ignore[method-assign,assignment]
    sys.addaudithook(hook)
    sys.argv = ["snaptool", *job["argv"]]
    main()


def serve() -> None:
    import snaptool.cli.rewrite
    import snaptool.operations.rewrite  # noqa: F401 - so that a child does not wait for it

    signals.block()  # a child's too, until it is ready for them
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            try:
                be_attacked(job)
            except SystemExit as end:
                os._exit(end.code if isinstance(end.code, int) else 0)
            except BaseException:  # noqa: BLE001 - whatever it is, it is the child's end, and a failure of the test
                import traceback

                traceback.print_exc()
            os._exit(99)
        if job["moment"] == "any":
            time.sleep(job["delay"])  # from outside, whatever it is doing then
            with contextlib.suppress(OSError):
                attack(job["action"], job["number"], job["source"], child)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    serve()
