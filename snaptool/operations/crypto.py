"""Opening and sealing many values: batches in order, in threads where there are cores for them.

A batch names values by their places in the mapped file. Ciphers and the loops around them let other threads run, so
that threads are enough: one copy of the keys, nothing handed over but numbers, nothing that outlives the process. What
comes back is a verdict per value, with a 16-byte digest of its plaintext where that is asked for, or the new stored
bytes. Answers arrive in the order of the batches whatever the number of threads, and with seeded randomness every
value's random bytes depend on its revision only: the same request gives the same file for any `--jobs`.

Threads run ahead of whoever takes the answers: he has work of his own to do meanwhile. They never talk to a key
service: wrapped keys were unwrapped before.
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b, sha256
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from snaptool.kube.cutting import Envelopes, renumber
from snaptool.kube.undecodable import ANY_TYPE, Fault, fault
from snaptool.operations.judging import NOTHING_DEFINED, Defined, Depth, Undecoded, expected_of, judge
from snaptool.providers.keyring import Chain, GroupResource, Keyring, NoKeyFits, Opening
from snaptool.providers.provider import Entropies, Entropy, KeyDoesNotFit, Kind, Reason
from snaptool.providers.values import Sealed as SealedValues
from snaptool.providers.values import Values, gathered, met, of_part, words
from snaptool.sources import Buffer, Mapped

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from snaptool.providers.kms_keys import Rewrapping

Answer = TypeVar("Answer")

DIGEST_SIZE = 16
BATCH_VALUES = 512
"""Measured: batches of 500 values amortise the hand-over and keep both cores busy."""

BATCH_BYTES = 1 << 20
"""Of stored values: this stays in the cache, and keeps memory flat where values are large."""

POOL_FROM = 4
"""Threads from which on values are handed over to a pool; measured."""


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


Column = Any
"""Numbers of 64 bits, by value: an array, or a view of one."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Values to work on. All arrays have one entry per value; positions are offsets in the file.

    `resource` indexes `resources`; None there is a key of no known resource. `record` numbers the record in its bucket,
    `main` and `sub` are its revision. With `rows` the arrays may have more: these entries are meant, ascending.
    `resources` may grow, and is best the same object in all batches. `depth`: how closely to look at what values open
    to; None: not at all.
    """

    resources: Sequence[GroupResource | None]
    resource: Column
    record: Column
    key_pos: Column
    key_len: Column
    value_pos: Column
    value_len: Column
    main: Column
    sub: Column
    rows: memoryview | None = None
    depth: Depth | None = None

    def __len__(self) -> int:
        return len(self.resource) if self.rows is None else len(self.rows)

    @property
    def chosen(self) -> memoryview:
        """The entries that are meant."""
        return memoryview(array("q", range(len(self.resource)))) if self.rows is None else self.rows


@dataclass(frozen=True, slots=True)
class OpenedBatch:
    """One `outcome` index into `outcomes` per value, and `DIGEST_SIZE` bytes of `digests` (see `plaintext_digest`).

    `sizes`: of the plaintexts, -1 where there is none. `named_keys`: the etcd keys of the values that are lost or
    undecodable, by row.
    """

    outcomes: tuple[Outcome, ...]
    outcome: memoryview
    sizes: memoryview
    digests: bytes
    named_keys: dict[int, bytes]


class Randomness(Protocol):
    """Where the random bytes of a value come from."""

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
        """Return `stored` under its new wrapping; None if it is to be re-encrypted."""
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
    """What there is to do: whose keys read, whose keys write, what is only rewrapped.

    `depth`: how closely to look at what values open to; None: not at all. `digests`: plaintexts are to be compared.
    `defined`: the versions that custom resources are defined in.
    """

    reading: Keyring
    writing: Keyring
    randomness: Randomness
    rewraps: Rewraps = field(default_factory=Rewraps)
    depth: Depth | None = None
    digests: bool = False
    defined: Defined = field(default_factory=lambda: NOTHING_DEFINED)


class _Chains:
    """Who reads and who writes, looked up once per resource, for all threads."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._lock = Lock()
        self._reading: dict[GroupResource | None, Chain] = {}
        self._writing: dict[GroupResource | None, Chain] = {}
        self._numbers: dict[GroupResource | None, int] = {}
        self._resources: list[GroupResource | None] = []
        self.envelopes = Envelopes(self._fits)

    def reading(self, resource: GroupResource | None) -> Chain:
        if resource not in self._reading:
            with self._lock:
                self._reading[resource] = self.work.reading.chain_for(resource)
        return self._reading[resource]

    def writing(self, resource: GroupResource | None) -> Chain:
        if resource not in self._writing:
            # What has no resource that a configuration could name is never encrypted.
            keyring = Keyring(()) if resource is None else self.work.writing
            with self._lock:
                self._writing[resource] = keyring.chain_for(resource)
        return self._writing[resource]

    def number(self, resource: GroupResource | None) -> int:
        """Number a resource, the same in every batch."""
        if resource not in self._numbers:
            with self._lock:
                if resource not in self._numbers:
                    self._resources.append(resource)
                    self._numbers[resource] = len(self._resources) - 1
        return self._numbers[resource]

    def _fits(self, start: bytes, number: int) -> bool:
        """Is an envelope that begins so one of a type that values of a resource may have?"""
        expected = expected_of(self._resources[number], self.work.defined) or ANY_TYPE
        return fault(start + _EMPTY_OBJECT, expected) is None


_EMPTY_OBJECT = b"\x00\x1a\x00\x22\x00"
"""What makes the start of an envelope a whole one."""

Way = Opening | NoKeyFits | Undecoded


class Bench:
    """One thread's workplace: the values that it has at hand, and what they opened to."""

    def __init__(self, chains: _Chains, buffer: Buffer) -> None:
        self.chains, self.work = chains, chains.work
        self.values = Values(memoryview(buffer))
        self.sealed = SealedValues()
        self.way, self._kinds = words(BATCH_VALUES), words(BATCH_VALUES)
        # What is known of resources, by their number in these.
        self._resources: Sequence[GroupResource | None] = ()
        self._parts: dict[tuple[Chain, Chain], int] = {}
        self._part_of, self._kind_of = array("q"), array("q")

    def take(self, batch: Batch) -> Iterator[tuple[Chain, Chain, memoryview]]:
        """Take up a batch; yield the values that the same chains read and write: those chains, and rows."""
        if len(batch.resource) > len(self.way):
            self.way, self._kinds = words(2 * len(batch.resource)), words(2 * len(batch.resource))
        if self._resources is not batch.resources:
            self._resources, self._parts = batch.resources, {}
            self._part_of, self._kind_of = array("q"), array("q")
        for resource in self._resources[len(self._part_of) :]:
            pair = self.chains.reading(resource), self.chains.writing(resource)
            self._part_of.append(self._parts.setdefault(pair, len(self._parts)))
            self._kind_of.append(self.chains.number(resource))
        rows = batch.chosen
        self.values.begin(batch.value_pos, batch.value_len, batch.key_pos, batch.key_len, rows)
        for part, (reader, writer) in enumerate(tuple(self._parts)):
            with memoryview(self._part_of) as part_of:
                some = of_part(rows, batch.resource, part_of, part)
            if some:
                yield reader, writer, some

    def open_all(self, batch: Batch) -> list[Way]:
        """Open a batch and judge what comes out: `way[row]` says where in the result is how."""
        ways: list[Way] = []
        for reader, _, rows in self.take(batch):
            self.open(batch, reader, rows, ways)
        return ways

    def open(self, batch: Batch, chain: Chain, rows: memoryview, ways: list[Way]) -> None:
        """Open values that one chain reads, and judge what comes out: `way[row]` says where in `ways` is how."""
        ways += chain.open_many(self.values, rows, self.way, len(ways))
        depth = batch.depth
        if depth is None:
            return
        for row in self._doubted(batch, rows) if depth is Depth.CHEAP else rows:
            way, stored, key = ways[self.way[row]], self.values.stored(row), self.values.key(row)
            assert not isinstance(way, Undecoded)
            before = b"" if isinstance(way, NoKeyFits) else bytes(self.values.plaintext(row))
            resource = batch.resources[batch.resource[row]]
            judged, plaintext = judge(chain, resource, (stored, key), (way, before), depth, self.work.defined)
            if judged is not way:
                self.way[row] = len(ways)
                ways.append(judged)
                self.values.put(row, plaintext)

    def _doubted(self, batch: Batch, rows: memoryview) -> list[int]:
        """Return the values that do not open, for sure, to what an API server writes for their resource."""
        with memoryview(self._kind_of) as kind_of:
            renumber(batch.resource, kind_of, len(batch.resource), self._kinds)
        file, opened, _, at, size = self.values.places()
        plain, within = self.values.by_place(rows)
        others = self.chains.envelopes.others
        return sorted(others(file, at, size, plain, self._kinds) + others(opened, at, size, within, self._kinds))

    def open_one(self, resource: GroupResource | None, stored: bytes, key: bytes) -> tuple[Way, bytes]:
        """Open one value and judge what comes out; no plaintext where none of the keys fits."""
        chain = self.chains.reading(resource)
        found: tuple[Opening | NoKeyFits, bytes]
        try:
            found = chain.open(stored, key)
        except NoKeyFits as error:
            found = error, b""
        if self.work.depth is None:
            return found
        return judge(chain, resource, (stored, key), found, self.work.depth, self.work.defined)

    def reseal(self, resource: GroupResource | None, stored: bytes, key: bytes, entropy: Entropy) -> bytes:
        """Return the new stored value of one that is known to open: its key rewrapped where that is all."""
        writer, rewraps = self.chains.writing(resource), self.work.rewraps
        anew = rewraps.rewrap(stored, writer.writer) if rewraps else None
        if anew is not None:
            return anew
        way, plaintext = self.open_one(resource, stored, key)
        if isinstance(way, NoKeyFits):
            raise way
        return writer.seal(plaintext, key, entropy)


def open_batch(bench: Bench, batch: Batch) -> OpenedBatch:
    """Open every value of `batch` with the reading keys."""
    ways, rows = bench.open_all(batch), batch.chosen
    # Values that opened the same way share an outcome: to make one of each costs more than some ciphers do.
    known: dict[Outcome, int] = {}
    number_of, way = words(len(ways)), gathered(rows, bench.way)
    for one in met(rows, bench.way):
        number_of[one] = known.setdefault(outcome_of(ways[one]), len(known))
    outcome = gathered(way, number_of)
    named_keys = {}
    if any(one.why for one in known):
        telling = [bool(one.why) for one in known]
        named_keys = {index: bench.values.key(rows[index]) for index, number in enumerate(outcome) if telling[number]}
    digests = b""
    if bench.work.digests:
        plaintext = bench.values.plaintext
        lost = {number for number, found in enumerate(ways) if isinstance(found, NoKeyFits)}
        digests = b"".join(
            [
                bytes(DIGEST_SIZE) if one in lost else plaintext_digest(plaintext(row))
                for row, one in zip(rows, way, strict=True)
            ]
        )
    return OpenedBatch(tuple(known), outcome, gathered(rows, bench.values.places()[-1]), digests, named_keys)


def outcome_of(way: Opening | NoKeyFits | Undecoded) -> Outcome:
    """Say as a value what came of opening one."""
    if isinstance(way, Undecoded):
        return replace(outcome_of(way.way), opened=True, reasons=(), fault=way.fault)
    if isinstance(way, NoKeyFits):
        return Outcome(False, None, "", (), stale=False, reasons=way.reasons, server_error=str(way))
    reasons = (Reason.DOUBTFUL_PLAINTEXT,) if way.doubtful else ()
    return Outcome(not way.doubtful, way.kind, way.key_name, way.position, way.stale, reasons)


def open_value(chain: Chain, stored: bytes, key: bytes) -> tuple[Outcome, bytes | None]:
    """Open one value: what came of it, and the plaintext (None when it did not open)."""
    try:
        opening, plaintext = chain.open(stored, key)
    except NoKeyFits as error:
        return outcome_of(error), None
    return outcome_of(opening), plaintext


def judge_value(
    chain: Chain, resource: GroupResource | None, value: tuple[bytes, bytes], depth: Depth, defined: Defined
) -> tuple[Outcome, bytes | None]:
    """Open one value, stored bytes and etcd key, as `open_value`, and judge what comes out as `judge`."""
    found: tuple[Opening | NoKeyFits, bytes]
    try:
        found = chain.open(*value)
    except NoKeyFits as error:
        found = error, b""
    way, plaintext = judge(chain, resource, value, found, depth, defined)
    return outcome_of(way), None if isinstance(way, NoKeyFits) else plaintext


def reseal_batch(bench: Bench, batch: Batch) -> SealedValues:
    """Seal every value of `batch` with the writing keys, or rewrap its key; all of them are known to open.

    What comes back is good until the bench is given another batch.
    """
    values, sealed, randomness = bench.values, bench.sealed, bench.work.randomness
    sealed.begin(len(batch.resource))
    for reader, writer, rows in bench.take(batch):
        main, sub = (gathered(rows, column) for column in (batch.main, batch.sub))
        if bench.work.rewraps:
            for row, *revision in zip(rows, main, sub, strict=True):
                resource, entropy = batch.resources[batch.resource[row]], randomness.for_value(*revision)
                sealed.put(row, bench.reseal(resource, values.stored(row), values.key(row), entropy))
            continue
        ways: list[Way] = []
        bench.open(batch, reader, rows, ways)
        for one in met(rows, bench.way):
            if isinstance(way := ways[one], NoKeyFits):
                raise way
        writer.seal_many(values, rows, randomness.for_values(main, sub), sealed)
    return sealed


def plaintext_digest(plaintext: bytes | memoryview) -> bytes:
    """Return 16 bytes by which equal plaintexts are recognised: of SHA-256, for which processors have instructions."""
    return sha256(plaintext).digest()[:DIGEST_SIZE]


class Workshop:
    """Runs batches through `open_batch` or `reseal_batch`, here or in `jobs` threads."""

    def __init__(self, work: Work, file: Mapped, *, jobs: int) -> None:
        self._chains = _Chains(work)
        self._bench = Bench(self._chains, file.buffer)
        self._buffer = file.buffer
        # With few cores, whoever reads and whoever reads back have them all: hand-overs would only cost.
        self._jobs = jobs if jobs >= POOL_FROM else 1
        self._threads: ThreadPoolExecutor | None = None

    @property
    def depth(self) -> Depth | None:
        """How closely values are looked at."""
        return self._bench.work.depth

    @property
    def defined(self) -> Defined:
        """The versions that custom resources are defined in."""
        return self._bench.work.defined

    def writer(self, resource: GroupResource | None) -> tuple[Kind, str]:
        """Return provider and key name that a value of `resource` is sealed with."""
        return self._chains.writing(resource).writer

    def growth(self, resource: GroupResource | None) -> tuple[int, int] | None:
        """Return what sealing adds to a value of `resource`: see `Chain.growth`; None too where keys are rewrapped."""
        return None if self._bench.work.rewraps else self._chains.writing(resource).growth

    def is_writer(self, resource: GroupResource | None, outcome: Outcome) -> bool:
        """Was a value that opened so sealed with the very key that `resource` is sealed with?"""
        position = outcome.position
        if len(position) != 3:
            return False
        chain = self._chains.reading(resource)
        return chain.is_writer_of((position[0], position[1], position[2]), self._chains.writing(resource))

    def judge_plaintext(self, resource: GroupResource | None) -> Outcome:
        """Tell what comes of opening any plaintext of `resource`: only identity matches it, whatever it says."""
        return open_value(self._chains.reading(resource), b"", b"/")[0]

    def open(self, resource: GroupResource | None, stored: bytes, key: bytes) -> tuple[Outcome, bytes | None]:
        """Open one value, here; as `open_value`."""
        way, plaintext = self._bench.open_one(resource, stored, key)
        return outcome_of(way), None if isinstance(way, NoKeyFits) else plaintext

    def reseal(self, resource: GroupResource | None, stored: bytes, key: bytes, revision: tuple[int, int]) -> bytes:
        """Re-encrypt one value that is known to open, here; `revision` (main, sub) chooses the random bytes."""
        return self._bench.reseal(resource, stored, key, self._bench.work.randomness.for_value(*revision))

    def seal(self, resource: GroupResource | None, plaintext: bytes, key: bytes, revision: tuple[int, int]) -> bytes:
        """Seal one plaintext, here; `revision` as in `reseal`."""
        entropy = self._bench.work.randomness.for_value(*revision)
        return self._chains.writing(resource).seal(plaintext, key, entropy)

    def bench(self) -> Bench:
        """Return a workplace of its own, for whoever opens values in a thread of his own."""
        return Bench(self._chains, self._buffer)

    @property
    def ahead(self) -> int:
        """Batches that may be taken before the answer to the first of them has been used."""
        return 2 * self._jobs if self._jobs > 1 else 1

    def opened(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, OpenedBatch]]:
        """Yield every batch with what came of opening it, in order."""
        return self._run(open_batch, batches)

    def resealed(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, SealedValues]]:
        """Yield every batch with its new stored values, in order; they are good until the next ones are taken."""
        return self._run(reseal_batch, batches)

    def _run(self, work: Callable[[Bench, Batch], Answer], batches: Iterable[Batch]) -> Iterator[tuple[Batch, Answer]]:
        if self._jobs == 1:
            for batch in batches:
                yield batch, work(self._bench, batch)
            return
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - seldom needed, and heavy

            self._threads = ThreadPoolExecutor(self._jobs, thread_name_prefix="snaptool-values")
        free = [self.bench() for _ in range(self.ahead)]
        waiting: deque[tuple[Batch, Bench, Future[Answer]]] = deque()
        for batch in batches:
            if not free:
                yield from self._first(waiting, free)
            bench = free.pop()
            waiting.append((batch, bench, self._threads.submit(work, bench, batch)))
        while waiting:
            yield from self._first(waiting, free)

    @staticmethod
    def _first(
        waiting: deque[tuple[Batch, Bench, Future[Answer]]], free: list[Bench]
    ) -> Iterator[tuple[Batch, Answer]]:
        batch, bench, answer = waiting.popleft()
        yield batch, answer.result()
        free.append(bench)  # its answer was used

    def close(self) -> None:
        """End the threads, without waiting for work that nobody wants any more."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
