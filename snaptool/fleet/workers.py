"""Long-lived worker processes that look at backups, one at a time each; a death costs one backup one attempt.

Workers are forked, so that configurations and keys come with them and go through no pipe: what goes there are numbers
of backups, and records. The asking process has one thread. When it is gone, a pipe that nobody writes to says so, and
its workers end at once, wherever they are. Source: docs/audit.md.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from snaptool import signals
from snaptool.containers.spool import folder_for

ATTEMPTS = 3
_RENEW_AFTER = 500
_LEAST_TIMEOUT = 600.0
_BYTES_A_SECOND = 1e6
_SLICE = 0.2  # seconds

_SHARE_OF_ROOM = 0.8


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a worker sits. `number`: from 0; one that replaces it has the same. `folder`: for what it downloads.

    The folder is not there yet.
    """

    number: int
    folder: Path


Look = Callable[[int, Seat], Any]


@dataclass(frozen=True, slots=True)
class Room:
    """Where downloads go, and how much each job needs there. `free`: bytes that are free in `folder`."""

    folder: Path = field(default_factory=lambda: folder_for(None))
    needs: Sequence[int] = ()

    def free(self) -> int:
        """Return how many bytes jobs may take."""
        state = os.statvfs(self.folder)
        return int(state.f_bavail * state.f_frsize * _SHARE_OF_ROOM)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a job. `attempts`: times tried. `result` is None where there is none: `why`, and of which `kind`.

    Kinds: worker_died, no_room, other_worker.
    """

    job: int
    result: Any
    attempts: int
    why: str = ""
    kind: str = "worker_died"


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    seat: Seat
    job: int | None = None
    done: int = 0
    deadline: float = 0.0
    late: bool = False


class Workers:
    """Up to `count` processes that run `look` on numbers. `sizes`: bytes of each job, of which time-outs are made.

    Jobs that need more room together than there is wait for each other; one that never fits is answered without.
    """

    def __init__(
        self, look: Look, sizes: Sequence[int], *, count: int, timeout: float | None = None, room: Room | None = None
    ) -> None:
        self._look = look
        self._sizes = sizes
        self._count = max(1, min(count, len(sizes)))
        self._timeout = timeout
        self._room = room or Room()
        self._needs = self._room.needs or [0] * len(sizes)
        self._free = 0
        self._workers: list[_Worker] = []
        self._context = multiprocessing.get_context("fork")
        self._folder = self._room.folder / f"snaptool-audit-{os.getpid()}-{secrets.token_hex(4)}"
        self._alive, self._mine = os.pipe()

    def run(self) -> Generator[Answer, None, None]:
        """Do all jobs, the largest first, and yield each answer as it comes. Closing it ends the workers."""
        waiting = deque(sorted(range(len(self._sizes)), key=lambda job: -self._sizes[job]))
        tried = [0] * len(self._sizes)
        try:
            while waiting or any(worker.job is not None for worker in self._workers):
                for large in self._give(waiting, tried):
                    why = f"it needs room for {self._needs[large]:,} bytes, and {self._free:,} may be taken in"
                    yield Answer(large, None, 0, f"{why} {self._room.folder}", "no_room")
                for worker in self._heard():
                    answer, why = self._answer(worker)
                    job, worker.job = worker.job, None
                    assert job is not None
                    if not why:
                        worker.done += 1
                        if worker.done >= _RENEW_AFTER:
                            self._end(worker)
                        yield Answer(job, answer, tried[job])
                        continue
                    if not worker.process.is_alive():
                        self._end(worker)
                    if tried[job] < ATTEMPTS:
                        waiting.appendleft(job)
                    else:
                        yield Answer(job, None, tried[job], f"{why}, {ATTEMPTS} times")
        finally:
            for worker in list(self._workers):
                self._end(worker)
            os.close(self._alive)
            os.close(self._mine)
            shutil.rmtree(self._folder, ignore_errors=True)
            signals.wanted(self._folder)

    def _give(self, waiting: deque[int], tried: list[int]) -> list[int]:
        """Give jobs to those who have none; return those for which there is no room."""
        never = []
        while waiting:
            idle = next((worker for worker in self._workers if worker.job is None), None)
            if idle is None and len(self._workers) >= self._count:
                break
            taken = [worker.job for worker in self._workers if worker.job is not None]
            if not taken and any(self._needs):
                self._free = self._room.free()
            left = self._free - sum(self._needs[one] for one in taken)
            fits = next((one for one in waiting if not self._needs[one] or self._needs[one] <= left), None)
            if fits is None:
                if taken:
                    break
                never.append(waiting.popleft())
                continue
            job = fits
            waiting.remove(job)
            idle = idle or self._start()
            tried[job] += 1
            idle.job = job
            seconds = self._timeout or max(_LEAST_TIMEOUT, self._sizes[job] / _BYTES_A_SECOND)
            idle.deadline = time.monotonic() + seconds
            with contextlib.suppress(OSError):  # it has died meanwhile, which its pipe says
                idle.pipe.send(job)
        return never

    def _heard(self) -> list[_Worker]:
        """Wait until workers have answered, died, or run out of time; the last are killed."""
        busy = [worker for worker in self._workers if worker.job is not None]
        if not busy:
            return []
        ready: list[Any] = []
        while not ready and (left := min(worker.deadline for worker in busy) - time.monotonic()) > 0:
            signals.look()
            ready = wait([worker.pipe for worker in busy], timeout=min(left, _SLICE))
        heard = [worker for worker in busy if worker.pipe in ready]
        late = [worker for worker in busy if worker not in heard and worker.deadline <= time.monotonic()]
        for worker in late:
            worker.late = True
            worker.process.kill()
            worker.process.join()
        return heard + late

    @staticmethod
    def _answer(worker: _Worker) -> tuple[Any, str]:
        """Return an answer, or why there is none."""
        try:
            if worker.late:
                return None, "the time for it was over"
            good, answer = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            return None, f"a worker ended with {worker.process.exitcode}"
        return (answer, "") if good else (None, f"this is a bug in snaptool: {answer}")

    def _start(self) -> _Worker:
        mine, theirs = self._context.Pipe()
        number = min(set(range(self._count)) - {worker.seat.number for worker in self._workers})
        seat = Seat(number, self._folder / str(number))
        if any(self._needs) and not self._folder.exists():
            signals.unwanted(self._folder)
            self._folder.mkdir(mode=0o700)
        arguments = (theirs, mine, seat)
        process = self._context.Process(target=self._work, args=arguments, name="snaptool-audit", daemon=True)
        process.start()
        theirs.close()
        assert process.pid is not None
        signals.helper(process.pid)
        worker = _Worker(process, mine, seat)
        self._workers.append(worker)
        return worker

    def _work(self, pipe: Connection, parents: Connection, seat: Seat) -> None:
        """Be a worker: until the asking process closes the pipe, or is gone."""
        signals.in_worker()
        parents.close()
        os.close(self._mine)
        for other in self._workers:
            other.pipe.close()  # else nobody would see that the asking process is gone
        os.environ["TMPDIR"] = str(self._room.folder)  # what is unpacked goes there, too
        threading.Thread(target=self._end_with_asker, args=(seat,), name="snaptool-alive", daemon=True).start()
        with contextlib.suppress(EOFError, OSError):
            while True:
                job = pipe.recv()
                try:
                    answer = (True, self._look(job, seat))
                except Exception as error:  # noqa: BLE001 - counted as a death; its words could hold what is secret
                    answer = (False, f"{type(error).__name__} in {_where(error)}")
                pipe.send(answer)
        os._exit(0)

    def _end_with_asker(self, seat: Seat) -> None:
        with contextlib.suppress(OSError):
            os.read(self._alive, 1)  # ends when nobody is left who could write
        shutil.rmtree(seat.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # the last one can
        os._exit(0)

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.pipe.close()
        if worker.job is not None:
            worker.process.terminate()
        worker.process.join(5)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        if worker.process.pid is not None:
            signals.no_helper(worker.process.pid)
        shutil.rmtree(worker.seat.folder, ignore_errors=True)


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"  # noqa: PTH119
