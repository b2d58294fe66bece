"""Pace and patience with key services: how fast and how many at once, and how often what may pass is tried again.

Source: docs/formats/kms.md, "Failures".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from snaptool import signals
from snaptool.providers.kms_service import Category, KmsService

_T = TypeVar("_T")

RETRIED: Final = frozenset({Category.UNREACHABLE, Category.UNAVAILABLE, Category.TIMEOUT, Category.THROTTLED})


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a call that may pass by itself is tried, and how long to wait between. Seconds.

    Source: docs/formats/kms.md, "Failures".
    """

    tries: int = 5
    first_wait: float = 0.2
    longest_wait: float = 5.0
    overall: float = 120.0

    def wait(self, attempt: int, chance: float) -> float:
        """Return the pause after `attempt` (from 1): doubled each time, half of it left to `chance` (0 to 1)."""
        bound = min(self.longest_wait, self.first_wait * (1 << (attempt - 1)))
        return bound * (0.5 + 0.5 * chance)


class Pace:
    """Spaces calls out to a rate, shared by all threads: the running cluster lives on the same quota.

    `per_second` None: no limit, until the service throttles; then the rate is halved each time and creeps back up.
    """

    _SLOWEST_GAP_SECONDS = 5.0

    def __init__(
        self,
        per_second: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = signals.sleep,
    ) -> None:
        self._least_gap = 1 / per_second if per_second else 0.0
        self._gap = self._least_gap
        self._next = 0.0
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for this call's turn."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._gap
        if turn > now:
            self._sleep(turn - now)

    def throttled(self) -> None:
        """The service asked to slow down."""
        with self._lock:
            self._gap = min(max(2 * self._gap, 0.05), self._SLOWEST_GAP_SECONDS)

    def answered(self) -> None:
        """A call went through."""
        with self._lock:
            self._gap = max(self._least_gap, 0.95 * self._gap - 1e-4)


def in_threads(work: Callable[[_T], None], items: Sequence[_T], concurrency: int, service: KmsService | None) -> None:
    """Do `work` on every item, in order of start, at most `concurrency` at a time; the first bug or Ctrl-C ends it."""
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait  # noqa: PLC0415 - seldom needed, and heavy

    queue: Iterator[_T] = iter(items)
    lock = threading.Lock()
    over = threading.Event()

    def worker() -> None:
        while not over.is_set():
            with lock:
                item = next(queue, None)
            if item is None:
                return
            work(item)

    number = min(concurrency, len(items))
    with ThreadPoolExecutor(max(1, number)) as pool:
        running = {pool.submit(worker) for _ in range(number)}
        try:
            while running:
                # Waking up now and then lets Ctrl-C in, whichever thread the signal was delivered to.
                finished, running = wait(running, timeout=0.2, return_when=FIRST_EXCEPTION)
                signals.look()
                for one in finished:
                    one.result()
        except BaseException:
            over.set()
            if service is not None:
                service.close()  # cancels the calls that the other threads wait for
            raise
