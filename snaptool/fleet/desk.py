"""One process that asks key services for all workers of a machine: each wrapped key once for all backups, paced once.

Connections and credentials are in this process alone. Workers ask it over a socket of their seat, which has messages
and no stream, so that one who is killed leaves no half of one; keys go back the same way, and nowhere else. What was
refused is asked again for the next backup: only keys are remembered. Source: docs/audit.md, "Key services".
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any, Self

from snaptool import signals
from snaptool.errors import SnaptoolError
from snaptool.operations.keys import TooManyV1Keys, key_services
from snaptool.operations.kms_options import KmsOptions
from snaptool.providers.config.model import KmsConfig
from snaptool.providers.kms_envelope import WrappedSource
from snaptool.providers.kms_service import AsksForMany, Category, KmsError, KmsService, KmsUnreachable, ServiceStatus
from snaptool.providers.provider import Api

_LARGEST_MESSAGE = 1 << 18
_LARGEST_QUESTION = 1 << 16
"""Bytes of wrapped keys in one message: what a socket takes at a time is bounded."""
_CALLS = 8
"""In flight, unless the user says another number."""

Ask = Callable[[KmsConfig], KmsService]


class Desk:
    """The process. `seats`: how many workers there are at a time; `most_v1`: calls for KMS v1 that may be made."""

    def __init__(self, seats: int, options: KmsOptions, most_v1: int | None = None) -> None:
        self._options, self._most_v1 = options, most_v1
        kind = socket.SOCK_SEQPACKET
        pairs = [socket.socketpair(socket.AF_UNIX, kind) for _ in range(seats)]
        self._workers, self._own = [one for one, _ in pairs], [other for _, other in pairs]
        self._process: BaseProcess | None = None

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=self._serve, name="snaptool-keys", daemon=True)
        self._process.start()
        assert self._process.pid is not None
        signals.helper(self._process.pid)
        for one in self._own:
            one.close()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._workers:
            one.close()
        if self._process is None:
            return
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        if self._process.pid is not None:
            signals.no_helper(self._process.pid)

    def at(self, seat: int) -> Ask:
        """Return what makes the services that a worker on that seat asks: in the worker."""
        line = _Line(self._workers[seat])
        many = self._options.keys_a_call
        return lambda config: (_AtDesk if many(config) == 1 else _ManyAtDesk)(line, config)

    def _serve(self) -> None:
        signals.in_worker()
        for one in self._workers:
            one.close()
        with key_services(self._options) as service_of, key_services(self._options) as again_of:
            pool = ThreadPoolExecutor(self._options.concurrency or _CALLS)
            answering = _Answering(service_of, again_of, self._most_v1)
            with selectors.DefaultSelector() as waiting:
                for one in self._own:
                    waiting.register(one, selectors.EVENT_READ)
                while waiting.get_map():
                    for key, _ in waiting.select():
                        seat = key.fileobj
                        assert isinstance(seat, socket.socket)
                        message = _received(seat)
                        if message:
                            pool.submit(answering.answer, seat, message)
                        else:
                            waiting.unregister(seat)
        os._exit(0)


@dataclass(slots=True)
class _Answering:
    """Answers of services, remembered. `again_of`: services of connections of their own, for what is doubted."""

    service_of: Ask
    again_of: Ask
    most_v1: int | None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[tuple[KmsConfig, bytes], Future[Any]] = field(default_factory=dict)
    _of_v1: int = 0

    def answer(self, seat: socket.socket, message: bytes) -> None:
        number, config, source, again = pickle.loads(message)  # noqa: S301 - from a process of ours
        answer: Any
        try:
            if isinstance(source, tuple):
                self._prepare(config, source)
                answer = None
            else:
                answer = self._asked(config, source, again=again)
        except SnaptoolError as error:
            answer = error
        with contextlib.suppress(OSError):  # who asked is gone
            seat.send(pickle.dumps((number, answer)))

    def _asked(self, config: KmsConfig, source: WrappedSource | None, *, again: bool) -> Any:
        key = config, b"" if source is None else source.cache_key
        with self._lock:
            known = self._known.get(key)
            mine = known is None or again
            if mine:
                self._count(config, source, known)
                known = self._known[key] = Future()
        assert known is not None
        if mine:
            try:
                service = (self.again_of if again else self.service_of)(config)
                known.set_result(service.status() if source is None else service.unwrap(source))
            except BaseException as error:
                with self._lock:
                    if self._known.get(key) is known:
                        del self._known[key]
                known.set_exception(error)
                raise
        return known.result()

    def _prepare(self, config: KmsConfig, sources: tuple[WrappedSource, ...]) -> None:
        """Ask in one call for those that nobody asked for yet; what fails is said to who asks for it alone."""
        with self._lock:
            unknown = [one for one in sources if (config, one.cache_key) not in self._known]
            if not unknown:
                return
            self._count(config, unknown[0], None)
            futures: list[Future[Any]] = [Future() for _ in unknown]
            self._known |= {(config, one.cache_key): future for one, future in zip(unknown, futures, strict=True)}
        service: KmsService | None = None
        for source, future in zip(unknown, futures, strict=True):
            try:
                if service is None:
                    service = self.service_of(config)
                    if isinstance(service, AsksForMany):
                        service.prepare(unknown)
                future.set_result(service.unwrap(source))
            except BaseException as error:  # noqa: BLE001 - somebody may wait for each
                with self._lock:
                    self._known.pop((config, source.cache_key), None)
                future.set_exception(error)

    def _count(self, config: KmsConfig, source: WrappedSource | None, known: object) -> None:
        if source is None or known is not None or config.api_version != Api.V1:
            return
        if self.most_v1 is not None and self._of_v1 >= self.most_v1:
            raise TooManyV1Keys(config.name, self.most_v1)
        self._of_v1 += 1


class _Line:
    """The socket of a seat, for all threads of the worker there: whoever waits reads for the others, too."""

    def __init__(self, seat: socket.socket) -> None:
        self._seat = seat
        self._changed = threading.Condition()
        self._answers: dict[tuple[int, int], Any] = {}
        self._last = 0
        self._reading = False

    def ask(self, config: KmsConfig, source: WrappedSource | tuple[WrappedSource, ...] | None, *, again: bool) -> Any:
        """Ask for a key, for many ahead, or for the status, and wait for the answer.

        Raises it where it is an error, KmsUnreachable where nobody is there.
        """
        with self._changed:
            self._last += 1
            number = os.getpid(), self._last
        message = pickle.dumps((number, config, source, again))
        try:
            self._seat.send(message)
            answer = self._answer_to(number)
        except OSError:
            raise KmsUnreachable(
                f"KMS provider {config.name!r}: the process that asks key services has ended",
                provider=config.name,
                category=Category.UNREACHABLE,
            ) from None
        if isinstance(answer, SnaptoolError):
            raise answer
        return answer

    def _answer_to(self, number: tuple[int, int]) -> Any:
        while True:
            with self._changed:
                if number in self._answers:
                    return self._answers.pop(number)
                if self._reading:
                    self._changed.wait()
                    continue
                self._reading = True
            try:
                message = self._seat.recv(_LARGEST_MESSAGE)
            finally:
                with self._changed:
                    self._reading = False
                    self._changed.notify_all()
            if not message:
                raise ConnectionError
            whose, answer = pickle.loads(message)  # noqa: S301 - from a process of ours
            if whose[0] == number[0]:  # else one that was killed here had asked
                with self._changed:
                    self._answers[whose] = answer
                    self._changed.notify_all()


class _AtDesk:
    """A key service as a worker sees it: a KmsService."""

    def __init__(self, line: _Line, config: KmsConfig) -> None:
        self._line, self._config = line, config
        self._again = False

    @property
    def provider(self) -> str:
        """The provider's name in the configuration."""
        return self._config.name

    @property
    def api(self) -> Api:
        """Which KMS API this is."""
        return self._config.api

    def unwrap(self, source: WrappedSource) -> bytes:
        """Return the key that `source` wraps; after `close` it is asked for again, over another connection."""
        key: bytes = self._line.ask(self._config, source, again=self._again)
        return key

    def wrap(self, key: bytes) -> WrappedSource:
        """Not done: nobody writes here."""
        raise NotImplementedError

    def status(self) -> ServiceStatus:
        """Return how the service was when it was first asked."""
        status: ServiceStatus = self._line.ask(self._config, None, again=False)
        return status

    def close(self) -> None:
        """Doubt what was answered so far."""
        self._again = True


class _ManyAtDesk(_AtDesk):
    """A key service that is asked for many keys in one call: an AsksForMany."""

    BATCH = 1000

    def prepare(self, sources: Sequence[WrappedSource]) -> None:
        """Ask ahead: `unwrap` then finds the keys known. Raises what ends the run."""
        if self._again:
            return
        some: list[WrappedSource] = []
        size = 0
        for one in sources:
            some.append(one)
            size += len(one.source) + len(one.key_id) + 200
            if size >= _LARGEST_QUESTION:
                self._prepare(some)
                some, size = [], 0
        self._prepare(some)

    def _prepare(self, sources: Sequence[WrappedSource]) -> None:
        if sources:
            with contextlib.suppress(KmsError):  # unwrap says so
                self._line.ask(self._config, tuple(sources), again=False)


def _received(seat: socket.socket) -> bytes:
    try:
        return seat.recv(_LARGEST_MESSAGE)
    except OSError:
        return b""
