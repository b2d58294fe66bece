"""Opening and sealing many values: batches in order, in worker processes when that pays.

A batch names values by their places in the mapped file, so that nothing but offsets travels to a worker; what comes
back is a verdict and a 16-byte digest per value, or the new stored bytes, those through shared memory. Answers arrive
in the order of the batches whatever the number of workers, and with seeded randomness every value's random bytes depend
on its revision only: the same request gives the same file for any `--jobs`.

Workers run ahead of whoever takes the answers, by one chunk of records or so: he has work of his own to do meanwhile.
They inherit the map of the file that was opened, whatever its name means by then, and are started before any other
thread exists. They never talk to a key service: wrapped
keys were unwrapped before. They end with their parent, even when that is killed.
"""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import blake2b, sha256
from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from snaptool import signals
from snaptool.bolt import blocks
from snaptool.errors import SnaptoolError
from snaptool.etcd import encode_value_field
from snaptool.files import Mapped, release_memory
from snaptool.kube import Fault
from snaptool.operations.judging import Depth, Undecoded, judge
from snaptool.providers import (
    Chain,
    Entropies,
    Entropy,
    GroupResource,
    KeyDoesNotFit,
    Keyring,
    Kind,
    NoKeyFits,
    Opening,
    Reason,
)

if TYPE_CHECKING:
    from snaptool.providers.kms_keys import Rewrapping

Answer = TypeVar("Answer")

DIGEST_SIZE = 16
BATCH_VALUES = 512
"""Measured: batches of 500 values amortise the hand-over and keep both cores busy."""

BATCH_BYTES = 1 << 20
"""Of stored values: this stays in the cache, and keeps memory flat where values are large."""

_AT_HAND = 2
"""Batches that a worker has: one to work on, and the next."""

_SHELF_BYTES = 2 * BATCH_BYTES
_AHEAD = 48
"""Full batches that workers may be ahead by: one chunk of records has 32 MiB of pages."""

_LAST_OF_CHUNK = 8
"""What a batch counts for that is not full: it is the last of its chunk, whose arrays wait with it."""


class WorkerDied(SnaptoolError):
    """A worker process ended unexpectedly, for instance killed for want of memory."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of opening one value: a small value that many records share.

    `reasons` is empty when it opened. `kind` and `key_name` tell the key that opened it; `position` tells it from
    others of the same name: configuration, provider, key, counted from 0. For a lost value they are None and empty.
    `server_error` is what kube-apiserver would print. `fault`: it opened, to something that no API server can decode.
    """

    opened: bool
    kind: Kind | None
    key_name: str
    position: tuple[int, ...]
    stale: bool
    reasons: tuple[Reason, ...] = ()
    server_error: str = ""
    fault: Fault | None = None

    @property
    def headless(self) -> bool:
        """Is it ciphertext that lost its header, and opens without one?"""
        return self.fault is Fault.HEADLESS

    @property
    def why(self) -> tuple[str, ...]:
        """Why it is lost or undecodable, in codes; empty for what is neither."""
        return self.reasons or (() if self.fault is None else (self.fault,))

    @property
    def doubtful(self) -> bool:
        """Opened by a cipher without authentication, to something that is no object: counted as lost."""
        return Reason.DOUBTFUL_PLAINTEXT in self.reasons


@dataclass(frozen=True, slots=True)
class Batch:
    """Values to work on. All arrays have one entry per value; positions are offsets in the file.

    `resource` indexes `resources`; None there is a key of no known resource. `record` numbers the record in its bucket,
    `main` and `sub` are its revision.
    """

    resources: tuple[GroupResource | None, ...]
    resource: NDArray[np.int64]
    record: NDArray[np.int64]
    key_pos: NDArray[np.int64]
    key_len: NDArray[np.int64]
    value_pos: NDArray[np.int64]
    value_len: NDArray[np.int64]
    main: NDArray[np.int64]
    sub: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.resource)


@dataclass(frozen=True, slots=True)
class OpenedBatch:
    """One `outcome` index into `outcomes` and one row of `digests` (see `plaintext_digest`) per value.

    `named_keys`: the etcd keys of the values that are lost or undecodable, by row.
    """

    outcomes: tuple[Outcome, ...]
    outcome: NDArray[np.int64]
    digests: NDArray[np.uint8]
    named_keys: dict[int, bytes]


@dataclass(frozen=True, slots=True)
class Sealed(Sequence[bytes]):
    """The new stored values of a batch, in order: each in its field 5 of a KeyValue, back to back in `data`.

    `ends[i]` is where the i-th field ends; its last `sizes[i]` bytes are the value. As a sequence it has the values.
    """

    data: bytes = field(repr=False)
    ends: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def fields(self) -> Iterator[memoryview]:
        """Yield every field whole; an empty value has none, so it is empty then."""
        data, start = memoryview(self.data), 0
        for end in self.ends.tolist():
            yield data[start:end]
            start = end

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        end = int(self.ends[index])
        return self.data[end - int(self.sizes[index]) : end]

    def __iter__(self) -> Iterator[bytes]:
        data = self.data
        for end, size in zip(self.ends.tolist(), self.sizes.tolist(), strict=True):
            yield data[end - size : end]


def batches_of(rows: NDArray[np.int64], sizes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Cut rows into batches; `sizes` are those of the stored values in the same order. Of no rows comes no batch."""
    for block in blocks((np.arange(1, len(rows) + 1), BATCH_VALUES), (np.cumsum(sizes), BATCH_BYTES)):
        yield rows[block]


class Randomness(Protocol):
    """Where the random bytes of a value come from. Implementations must be picklable."""

    def for_value(self, main: int, sub: int) -> Entropy:
        """Return the source for the value of that revision."""

    def for_values(self, main: Sequence[int], sub: Sequence[int]) -> Entropies:
        """Return the sources for the values of those revisions."""


@dataclass(frozen=True, slots=True)
class SystemRandomness:
    """The operating system's generator."""

    def for_value(self, main: int, sub: int) -> Entropy:  # noqa: ARG002 - every value gets fresh bytes
        """Return os.urandom."""
        return os.urandom

    def for_values(self, main: Sequence[int], sub: Sequence[int]) -> Entropies:  # noqa: ARG002 - as above
        """Return os.urandom, for all of them."""
        return os.urandom


@dataclass(frozen=True, slots=True)
class SeededRandomness:
    """Repeatable bytes, for tests alone: BLAKE2b keyed by the seed, over revision and counter."""

    seed: bytes

    def for_value(self, main: int, sub: int) -> Entropy:
        """Return a stream that depends on seed and revision only."""
        counter = 0

        def read(size: int) -> bytes:
            nonlocal counter
            out = b""
            while len(out) < size:
                label = b"%d/%d/%d" % (main, sub, counter)
                out += blake2b(label, key=self.seed[:64]).digest()
                counter += 1
            return out[:size]

        return read

    def for_values(self, main: Sequence[int], sub: Sequence[int]) -> Entropies:
        """Return a stream for each, as `for_value` does."""
        return [self.for_value(*revision) for revision in zip(main, sub, strict=True)]


@dataclass(frozen=True, slots=True)
class Rewraps:
    """Values whose wrapped key alone is replaced, by provider and name of who would seal them otherwise."""

    by_writer: Mapping[tuple[Kind, str], tuple[Rewrapping, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.by_writer)

    def rewrap(self, stored: bytes, writer: tuple[Kind, str]) -> bytes | None:
        """Return `stored` under its new wrapping; None if it is to be sealed anew."""
        for rewrapping in self.by_writer.get(writer, ()):
            prefix = rewrapping.api.prefix + rewrapping.old_provider.encode() + b":"
            if stored.startswith(prefix):
                try:
                    payload = rewrapping.rewrap(stored[len(prefix) :])
                except KeyDoesNotFit:
                    continue  # names of v1 may hold colons: it is of another provider
                return rewrapping.api.prefix + writer[1].encode() + b":" + payload
        return None


@dataclass(frozen=True, slots=True)
class Work:
    """What workers need to know: whose keys read, whose keys write, what is only wrapped anew.

    `depth`: how closely to look at what values open to; None: not at all.
    """

    reading: Keyring
    writing: Keyring
    randomness: Randomness
    rewraps: Rewraps = field(default_factory=Rewraps)
    depth: Depth | None = None


class _Bench:
    """One process's workplace: the mapped file and the chains, looked up once per resource."""

    def __init__(self, work: Work, buffer: mmap.mmap | bytes) -> None:
        self.buffer = buffer
        self.work = work
        self._reading: dict[GroupResource | None, Chain] = {}
        self._writing: dict[GroupResource | None, Chain] = {}

    def reading_chain(self, resource: GroupResource | None) -> Chain:
        if resource not in self._reading:
            self._reading[resource] = self.work.reading.chain_for(resource)
        return self._reading[resource]

    def writing_chain(self, resource: GroupResource | None) -> Chain:
        if resource not in self._writing:
            # What has no resource that a configuration could name is never encrypted.
            keyring = Keyring(()) if resource is None else self.work.writing
            self._writing[resource] = keyring.chain_for(resource)
        return self._writing[resource]

    def open_all(
        self, batch: Batch, rows: NDArray[np.int64], keys: list[bytes], stored: list[bytes], depth: Depth | None
    ) -> tuple[list[Opening | NoKeyFits | Undecoded], list[bytes]]:
        """Open values that one chain reads, each as `Chain.open` does, and judge what comes out."""
        numbers = batch.resource[rows].tolist()
        chain = self.reading_chain(batch.resources[numbers[0]])
        opened, plaintexts = chain.open_many(stored, keys)
        ways: list[Opening | NoKeyFits | Undecoded] = list(opened)
        if depth is not None:
            for row, (number, value, found) in enumerate(
                zip(numbers, zip(stored, keys, strict=True), zip(opened, plaintexts, strict=True), strict=True)
            ):
                ways[row], plaintexts[row] = judge(chain, batch.resources[number], value, found, depth)
        return ways, plaintexts

    def open_one(
        self, resource: GroupResource | None, stored: bytes, key: bytes
    ) -> tuple[Opening | NoKeyFits | Undecoded, bytes]:
        """Open one value and judge what comes out; no plaintext where none of the keys fits."""
        chain = self.reading_chain(resource)
        found: tuple[Opening | NoKeyFits, bytes]
        try:
            found = chain.open(stored, key)
        except NoKeyFits as error:
            found = error, b""
        return found if self.work.depth is None else judge(chain, resource, (stored, key), found, self.work.depth)

    def reseal(self, resource: GroupResource | None, stored: bytes, key: bytes, entropy: Entropy) -> bytes:
        """Return the new stored value of one that is known to open: its key wrapped anew where that is all."""
        writer, rewraps = self.writing_chain(resource), self.work.rewraps
        anew = rewraps.rewrap(stored, writer.writer) if rewraps else None
        if anew is not None:
            return anew
        way, plaintext = self.open_one(resource, stored, key)
        if isinstance(way, NoKeyFits):
            raise way
        return writer.seal(plaintext, key, entropy)

    def sorted_out(self, batch: Batch) -> Iterator[tuple[Chain, Chain, NDArray[np.int64], list[bytes], list[bytes]]]:
        """Yield the values that the same chains read and write: those chains, rows, etcd keys and stored values."""
        rows_of: dict[tuple[Chain, Chain], list[int]] = {}
        numbers = batch.resource.tolist()
        mine = {}
        for number in dict.fromkeys(numbers):
            resource = batch.resources[number]
            mine[number] = rows_of.setdefault((self.reading_chain(resource), self.writing_chain(resource)), [])
        for row, number in enumerate(numbers):
            mine[number].append(row)
        for (reader, writer), listed in rows_of.items():
            rows = np.array(listed, dtype=np.int64)
            keys = self._cut_out(batch.key_pos[rows], batch.key_len[rows])
            yield reader, writer, rows, keys, self._cut_out(batch.value_pos[rows], batch.value_len[rows])

    def _cut_out(self, at: NDArray[np.int64], size: NDArray[np.int64]) -> list[bytes]:
        buffer = self.buffer
        return [buffer[start:end] for start, end in zip(at.tolist(), (at + size).tolist(), strict=True)]


def open_batch(bench: _Bench, batch: Batch) -> OpenedBatch:
    """Open every value of `batch` with the reading keys."""
    known: dict[Outcome, int] = {}
    numbers = np.zeros(len(batch), dtype=np.int64)
    digests = np.zeros((len(batch), DIGEST_SIZE), dtype=np.uint8)
    named_keys: dict[int, bytes] = {}
    for _, _, rows, keys, stored in bench.sorted_out(batch):
        ways, plaintexts = bench.open_all(batch, rows, keys, stored, bench.work.depth)
        # Values that opened the same way share an opening: to make an outcome of each costs more than some ciphers do.
        outcome_of = {way: _outcome(way) for way in dict.fromkeys(ways)}
        number_of = {way: known.setdefault(outcome, len(known)) for way, outcome in outcome_of.items()}
        numbers[rows] = [number_of[way] for way in ways]
        digested = b"".join([sha256(plaintext).digest() for plaintext in plaintexts])
        digests[rows] = np.frombuffer(digested, dtype=np.uint8).reshape(len(rows), -1)[:, :DIGEST_SIZE]
        if any(outcome.why for outcome in outcome_of.values()):
            for row, key, way in zip(rows.tolist(), keys, ways, strict=True):
                if outcome_of[way].why:
                    named_keys[row] = key
                if isinstance(way, NoKeyFits):
                    digests[row] = 0
    return OpenedBatch(tuple(known), numbers, digests, named_keys)


def _outcome(way: Opening | NoKeyFits | Undecoded) -> Outcome:
    if isinstance(way, Undecoded):
        return replace(_outcome(way.way), opened=True, reasons=(), fault=way.fault)
    if isinstance(way, NoKeyFits):
        return Outcome(False, None, "", (), stale=False, reasons=way.reasons, server_error=str(way))
    reasons = (Reason.DOUBTFUL_PLAINTEXT,) if way.doubtful else ()
    return Outcome(not way.doubtful, way.kind, way.key_name, way.position, way.stale, reasons)


def open_value(chain: Chain, stored: bytes, key: bytes) -> tuple[Outcome, bytes | None]:
    """Open one value: what came of it, and the plaintext (None when it did not open)."""
    try:
        opening, plaintext = chain.open(stored, key)
    except NoKeyFits as error:
        return _outcome(error), None
    return _outcome(opening), plaintext


def reseal_batch(bench: _Bench, batch: Batch) -> Sealed:
    """Seal every value of `batch` with the writing keys, or wrap its key anew; all of them are known to open."""
    sealed = [b""] * len(batch)
    randomness, rewraps = bench.work.randomness, bench.work.rewraps
    for _, writer, rows, keys, stored in bench.sorted_out(batch):
        main, sub = batch.main[rows].tolist(), batch.sub[rows].tolist()
        if rewraps:
            resources = [batch.resources[number] for number in batch.resource[rows].tolist()]
            anew = [
                bench.reseal(resource, value, key, randomness.for_value(*revision))
                for resource, value, key, *revision in zip(resources, stored, keys, main, sub, strict=True)
            ]
        else:
            # Whether a header is missing shows at the cheap depth, and all else is known by now.
            depth = None if bench.work.depth is None else Depth.CHEAP
            ways, plaintexts = bench.open_all(batch, rows, keys, stored, depth)
            for way in dict.fromkeys(ways):
                if isinstance(way, NoKeyFits):
                    raise way
            anew = writer.seal_many(plaintexts, keys, randomness.for_values(main, sub))
        for row, value in zip(rows.tolist(), anew, strict=True):
            sealed[row] = value
    sizes = [len(value) for value in sealed]
    heads = [_field_head(size) for size in sizes]
    ends = np.cumsum(np.array([len(head) + size for head, size in zip(heads, sizes, strict=True)], dtype=np.int64))
    data = b"".join([part for field in zip(heads, sealed, strict=True) for part in field])
    return Sealed(data, ends, np.array(sizes, dtype=np.int64))


@lru_cache(maxsize=1 << 14)
def _field_head(size: int) -> bytes:
    """Return what stands in front of a value of that size in its field."""
    return encode_value_field(bytes(size))[: -size or None]


def plaintext_digest(plaintext: bytes) -> bytes:
    """Return 16 bytes by which equal plaintexts are recognised: of SHA-256, for which processors have instructions."""
    return sha256(plaintext).digest()[:DIGEST_SIZE]


class Workshop:
    """Runs batches through `open_batch` or `reseal_batch`, here or in `jobs` worker processes."""

    def __init__(self, work: Work, file: Mapped, *, jobs: int) -> None:
        self._bench = _Bench(work, file.buffer)
        self._file = file
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._workers: list[_Worker] = []
        if jobs > 1:
            # fork, where there is one, starts in milliseconds; nothing has started a thread yet.
            method = "fork" if sys.platform == "linux" else "spawn"
            context = multiprocessing.get_context(method)
            self._workers = [_Worker(context, work, file, self._tasks) for _ in range(jobs)]
            for worker in self._workers:
                worker.begin()

    @property
    def depth(self) -> Depth | None:
        """How closely values are looked at."""
        return self._bench.work.depth

    def writer(self, resource: GroupResource | None) -> tuple[Kind, str]:
        """Return provider and key name that a value of `resource` is sealed with."""
        return self._bench.writing_chain(resource).writer

    def is_writer(self, resource: GroupResource | None, outcome: Outcome) -> bool:
        """Was a value that opened so sealed with the very key that `resource` is sealed with?"""
        position = outcome.position
        if len(position) != 3:
            return False
        chain = self._bench.reading_chain(resource)
        return chain.is_writer_of((position[0], position[1], position[2]), self._bench.writing_chain(resource))

    def judge_plaintext(self, resource: GroupResource | None) -> Outcome:
        """Tell what comes of opening any plaintext of `resource`: only identity matches it, whatever it says."""
        return open_value(self._bench.reading_chain(resource), b"", b"/")[0]

    def open(self, resource: GroupResource | None, stored: bytes, key: bytes) -> tuple[Outcome, bytes | None]:
        """Open one value, here; as `open_value`."""
        way, plaintext = self._bench.open_one(resource, stored, key)
        return _outcome(way), None if isinstance(way, NoKeyFits) else plaintext

    def reseal(self, resource: GroupResource | None, stored: bytes, key: bytes, revision: tuple[int, int]) -> bytes:
        """Seal one value anew that is known to open, here; `revision` (main, sub) chooses the random bytes."""
        return self._bench.reseal(resource, stored, key, self._bench.work.randomness.for_value(*revision))

    def seal(self, resource: GroupResource | None, plaintext: bytes, key: bytes, revision: tuple[int, int]) -> bytes:
        """Seal one plaintext, here; `revision` as in `reseal`."""
        entropy = self._bench.work.randomness.for_value(*revision)
        return self._bench.writing_chain(resource).seal(plaintext, key, entropy)

    def opened(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, OpenedBatch]]:
        """Yield every batch with what came of opening it, in order."""
        return self._run(open_batch, batches)

    def resealed(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Sealed]]:
        """Yield every batch with its new stored values, in order."""
        return self._run(reseal_batch, batches)

    def _run(self, work: Callable[[_Bench, Batch], Answer], batches: Iterable[Batch]) -> Iterator[tuple[Batch, Answer]]:
        if not self._workers:
            for batch in batches:
                yield batch, work(self._bench, batch)
            return
        waiting: deque[tuple[Batch, Future[Answer]]] = deque()
        ahead, most = 0, max(_AHEAD, 2 * _AT_HAND * len(self._workers))
        try:
            for batch in batches:
                task = _Task(work, batch, Future())
                self._tasks.put(task)
                waiting.append((batch, task.answer))
                ahead += _weight(batch)
                while ahead > most:
                    first, future = waiting.popleft()
                    ahead -= _weight(first)
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        except WorkerDied:
            self._file.check_unchanged()  # a worker that found less than it should have says so by ending
            raise

    def close(self) -> None:
        """End the workers, without waiting for work that nobody wants any more."""
        for worker in self._workers:
            worker.kill()
        for _ in self._workers:
            self._tasks.put(None)
        for worker in self._workers:
            worker.join()
        self._workers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _weight(batch: Batch) -> int:
    full = 2 * len(batch) >= BATCH_VALUES or 2 * int(batch.value_len.sum()) >= BATCH_BYTES
    return 1 if full else _LAST_OF_CHUNK


@dataclass(frozen=True, slots=True)
class _Task:
    work: Callable[[_Bench, Batch], Any]
    batch: Batch
    answer: Future[Any]


@dataclass(frozen=True, slots=True)
class _Shelved:
    """A `Sealed` whose data lies on the shelf."""

    size: int
    ends: NDArray[np.int64]
    sizes: NDArray[np.int64]


class _Worker:
    """A process with a pipe and a shelf of its own, and a thread that hands it tasks and takes its answers.

    concurrent.futures shares one pipe among its workers: one that is killed in the middle of an answer leaves all
    others, and the parent, waiting for ever. Here the pipe ends with the worker.

    The shelf is memory that both have, a place for each batch at hand: new values are too many bytes for a pipe. Both
    sides go through the places in turn, so that nothing has to be said about them. What finds no room goes through the
    pipe, and so does everything where processes are not forked.
    """

    def __init__(self, context: BaseContext, work: Work, file: Mapped, tasks: SimpleQueue[_Task | None]) -> None:
        self._pipe, theirs = context.Pipe()
        forked = context.get_start_method() == "fork"
        here = file if forked else _Handed(file)
        self._shelf = mmap.mmap(-1, _AT_HAND * _SHELF_BYTES) if forked else None
        make: Callable[..., BaseProcess] = context.Process  # type: ignore[attr-defined]  # typeshed: by subclass only
        self._process = make(target=_serve, args=(theirs, work, here, self._shelf, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()
        self._tasks = tasks
        self._at_hand: deque[Future[Any]] = deque()
        self._thread = threading.Thread(target=self._drive, name="snaptool-worker", daemon=True)

    def begin(self) -> None:
        """Begin to take tasks: a thread, so that all workers have to be there before."""
        self._thread.start()

    def _drive(self) -> None:
        """Keep the worker busy until there is a None among the tasks."""
        try:
            self._exchange()
        except Exception:  # noqa: BLE001 - a cut or senseless answer is the end of the worker, whatever it raises
            for future in self._at_hand:
                future.set_exception(_died())
            # Whoever waits for a task must hear that nobody will do it.
            while (task := self._tasks.get()) is not None:
                task.answer.set_exception(_died())

    def _exchange(self) -> None:
        places = cycle(range(0, _AT_HAND * _SHELF_BYTES, _SHELF_BYTES))
        while True:
            while len(self._at_hand) < _AT_HAND:
                try:
                    task = self._tasks.get(block=not self._at_hand)
                except Empty:
                    break
                if task is None:
                    return
                self._at_hand.append(task.answer)
                self._pipe.send((task.work, task.batch))
            answer, failure = self._pipe.recv()
            place = next(places)
            if isinstance(answer, _Shelved) and self._shelf is not None:
                answer = Sealed(self._shelf[place : place + answer.size], answer.ends, answer.sizes)
            future = self._at_hand.popleft()
            if failure is None:
                future.set_result(answer)
            else:
                future.set_exception(failure)

    def kill(self) -> None:
        """End the process; it holds nothing that could be lost."""
        self._process.kill()

    def join(self) -> None:
        """Wait until process and thread have ended, the latter by a None among the tasks."""
        self._process.join()
        self._thread.join()
        self._pipe.close()
        if self._shelf is not None:
            self._shelf.close()


def _died() -> WorkerDied:
    return WorkerDied(
        "a worker process died while it opened or sealed values",
        hint="look for the out-of-memory killer in the system log; --jobs 1 works without worker processes",
    )


class _Handed:
    """A mapped file for a process that is not forked: its descriptor, which is mapped there again."""

    def __init__(self, file: Mapped) -> None:
        self._descriptor = DupFd(file.fileno())
        self._size = len(file.buffer)

    @cached_property
    def buffer(self) -> mmap.mmap | bytes:
        return mmap.mmap(self.fileno(), self._size, access=mmap.ACCESS_READ)

    @cached_property
    def _fd(self) -> int:
        number: int = self._descriptor.detach()
        return number

    def fileno(self) -> int:
        return self._fd

    def check_unchanged(self) -> None:
        if os.fstat(self._fd).st_size < self._size:
            raise ValueError("cut")


def _serve(pipe: Connection, work: Work, file: Mapped, shelf: mmap.mmap | None, parent: int) -> None:
    """Be a worker: answer batches until the pipe or the process ends."""
    signals.in_worker()
    signals.leave_no_core()
    if sys.platform == "linux":
        # prctl(PR_SET_PDEATHSIG, SIGKILL): no worker outlives its parent. Source: prctl(2).
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)
    try:
        buffer = file.buffer
        bench = _Bench(work, buffer)
        for place in cycle(range(0, _AT_HAND * _SHELF_BYTES, _SHELF_BYTES)):
            task, batch = pipe.recv()
            answer, failure = _answer(bench, task, batch)
            file.check_unchanged()  # what was read past the end of a file that was cut is nothing
            if isinstance(buffer, mmap.mmap):
                release_memory(buffer)
            if isinstance(answer, Sealed) and shelf is not None and len(answer.data) <= _SHELF_BYTES:
                shelf[place : place + len(answer.data)] = answer.data
                answer = _Shelved(len(answer.data), answer.ends, answer.sizes)
            pipe.send((answer, failure))
    except (SnaptoolError, OSError, EOFError, ValueError):
        # The file has changed, or the parent is gone: it sees the pipe end and says what there is to say.
        os._exit(1)


def _answer(bench: _Bench, task: Callable[[_Bench, Batch], Any], batch: Batch) -> tuple[Any, Exception | None]:
    try:
        return task(bench, batch), None
    except Exception as error:  # noqa: BLE001 - the parent raises it, and knows what may be printed
        return None, error
