"""Getting the keys of KMS envelopes: few calls, all before anything is written, and none by the workers.

Theory of operation. A snapshot holds a million values and, under KMS v2, a handful of seeds. So a job goes in steps::

    SourceCollector   one pass over the values: parse envelopes, count distinct sources, remember where one value is
    plan_*            what that costs in calls, without a call
    unwrap_sources    ask for each distinct source once, the most used first; prove each key on the value remembered
    make_write_key(s) a fresh key to write with, wrapped, checked, unwrapped again and compared
    rewrap_sources    the same keys under another wrapping, for a change of KEK alone

The results (`UnwrappedKeys`, `WriteKey`, `Rewrapping`) are plain values that workers get instead of a connection. A
collector keeps 32 bytes, a count and a place of each source, never the source itself: the caller's `fetch` brings the
value at a place back. A million v1 data keys therefore cost the same whether a wrapped key has 60 bytes or 600.

A refusal that meets everything is not heard a million times: see `_Patience`. Where no service is left, keys that were
saved before take its place (`kms_saved`): they are just another `KeySource`.

This module knows no socket and no file. Source: spec/kms.md 1.6, 2.4 and 6.
"""

from __future__ import annotations

import os
import re
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Final, Self, TypeVar

from snaptool.errors import InputError
from snaptool.providers.kms import (
    MAX_V1_SOURCE_BYTES,
    OBJECTS_PER_V1_DEK,
    SEED_BYTES,
    TEST_PLUGIN_ANNOTATION,
    Api,
    Category,
    KeySource,
    KmsAnsweredWrongly,
    KmsError,
    KmsRefused,
    KmsService,
    KmsUnreachable,
    KmsV1Provider,
    KmsV2Provider,
    ServiceStatus,
    SharedWriteKeys,
    UnwrapFailed,
    UnwrappedKeys,
    WrappedSource,
    WriteKey,
    decode_envelope,
    hash_key_id,
    key_size_problem,
    reveals,
    rewrap,
    source_problem,
)
from snaptool.providers.provider import Entropy, KeyDoesNotFit, Plausible, Reason

Fetch = Callable[[int], tuple[bytes, bytes]]
"""Brings back the value at a place that `SourceCollector.add` was given: etcd key, stored bytes. From any thread."""

Progress = Callable[[int, int], None]
"""Told how many sources are done, of how many; from one thread at a time."""

CONCURRENCY: Final = {Api.V1: 8, Api.V2: 4}  # spec/kms.md 2.4: the running cluster shares the account's quota
REMEMBERED_PLACES: Final = 3  # of each source: what a report shows, and what a key is tried on
STATUS_QUESTIONS: Final = 4  # one, and three more while Status lags behind a rotation (Google): spec/kms.md 3.2
STATUS_PAUSE_SECONDS: Final = 1.0
_T = TypeVar("_T")


# -- collecting


class Sources:
    """The distinct sources of one provider name, in the order they were met; all of them have the same prefix."""

    def __init__(self, api: Api, provider: str) -> None:
        self.api = api
        self.provider = provider
        self.prefix = api.prefix + provider.encode() + b":"
        self.objects = 0
        self.malformed: Counter[Reason] = Counter()
        self._numbers: dict[bytes, int] = {}
        self._counts = array("Q")
        self._places = array("Q")
        self._more: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, payload: bytes, place: int) -> None:
        """Count a value. One that is no envelope is counted under its reason; opening it will say so again."""
        try:
            source = decode_envelope(self.api, self.provider, payload).source
        except KeyDoesNotFit as error:
            self.malformed.update(error.reasons)
            return
        self._count(source.cache_key, 1, [place])

    def merge(self, other: Sources) -> None:
        """Add what another collector of the same provider met, later in the file."""
        self.malformed.update(other.malformed)
        for cache_key, number in other._numbers.items():
            self._count(cache_key, other._counts[number], other.places(number))

    def _count(self, cache_key: bytes, objects: int, places: Sequence[int]) -> None:
        self.objects += objects
        number = self._numbers.setdefault(cache_key, len(self._counts))
        if number == len(self._counts):
            self._counts.append(0)
            self._places.append(places[0])
            places = places[1:]
        self._counts[number] += objects
        if places:
            more = self._more.setdefault(number, [])
            more += places[: REMEMBERED_PLACES - 1 - len(more)]

    def cache_keys(self) -> list[bytes]:
        """Return the cache keys by number."""
        return list(self._numbers)

    def count(self, number: int) -> int:
        """Return how many values have the source with this number."""
        return self._counts[number]

    def places(self, number: int) -> list[int]:
        """Return where the first few values with the source of this number are."""
        return [self._places[number], *self._more.get(number, ())]

    def most_used(self) -> list[int]:
        """Return the numbers, most used sources first; equals in the order they were met."""
        return sorted(range(len(self._counts)), key=self._counts.__getitem__, reverse=True)

    def fetch(self, number: int, fetch: Fetch) -> WrappedSource:
        """Return the source with this number, from the first value that has it."""
        _, stored = fetch(self._places[number])
        return decode_envelope(self.api, self.provider, stored[len(self.prefix) :]).source


class SourceCollector:
    """One pass over stored values, for any number of providers. Picklable, and mergeable in the order of the file."""

    def __init__(self, providers: Iterable[tuple[Api, str]]) -> None:
        self._sources = {key: Sources(*key) for key in providers}

    def add(self, stored: bytes, place: int) -> None:
        """Look at one stored value; `place` (0 to 2^64-1) is whatever lets the caller find it again.

        A v1 value counts for every provider whose prefix it has: names may hold colons, so `a` and `a:b` both match a
        value of `a:b`. In all likelihood only one of them parses; if both do, both are asked, as in kube-apiserver.
        """
        for sources in self._sources.values():
            if stored.startswith(sources.prefix):
                sources.add(stored[len(sources.prefix) :], place)

    def merge(self, other: SourceCollector) -> None:
        """Add what a collector with the same providers met later in the file."""
        for key, sources in other._sources.items():
            self._sources[key].merge(sources)

    def sources(self, api: Api, provider: str) -> Sources:
        """Return what was met of one provider."""
        return self._sources[api, provider]


# -- planning


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """What one provider will be asked, by method; and for how many values and distinct sources."""

    provider: str
    api: Api
    purpose: str
    objects: int
    sources: int
    calls: Mapping[str, int]

    @property
    def total(self) -> int:
        """All calls together."""
        return sum(self.calls.values())

    def seconds(self, latency: float, concurrency: int | None = None) -> float:
        """Return how long the calls take if each takes `latency` seconds and `concurrency` of them run at once."""
        return self.total * latency / min(max(self.total, 1), concurrency or CONCURRENCY[self.api])


def plan_reading(sources: Sources) -> CallPlan:
    """Count the calls that opening every value needs: one Decrypt for each distinct source."""
    return CallPlan(
        provider=sources.provider,
        api=sources.api,
        purpose="read",
        objects=sources.objects,
        sources=len(sources),
        calls=_calls(sources.api, {"Decrypt": len(sources)}),
    )


def plan_writing(provider: str, api: Api, objects: int, *, dek_per_object: bool = False) -> CallPlan:
    """Count the calls that sealing `objects` values needs. `dek_per_object`: v1 as kube-apiserver does it."""
    if api is Api.V2:
        keys = proofs = min(objects, 1)
    elif dek_per_object:
        keys, proofs = objects, min(objects, 1)
    else:
        keys = proofs = -(-objects // OBJECTS_PER_V1_DEK)
    calls = {"Status": keys if api is Api.V2 else 0, "Encrypt": keys, "Decrypt": proofs}
    return CallPlan(
        provider=provider, api=api, purpose="write", objects=objects, sources=keys, calls=_calls(api, calls)
    )


def plan_rewrapping(sources: Sources) -> CallPlan:
    """Count the calls of a change of KEK alone, reading included: each key is wrapped anew, and the wrapping proved."""
    number = len(sources)
    calls = {"Status": min(number, 1) if sources.api is Api.V2 else 0, "Encrypt": number, "Decrypt": 2 * number}
    return CallPlan(
        provider=sources.provider,
        api=sources.api,
        purpose="rewrap",
        objects=sources.objects,
        sources=number,
        calls=_calls(sources.api, calls),
    )


def _calls(api: Api, calls: Mapping[str, int]) -> dict[str, int]:
    asked = {method: number for method, number in calls.items() if number}
    return {"Version": 1} | asked if api is Api.V1 and asked else asked


# -- unwrapping


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedSources:
    """Sources under one key id for which there is no key, for one reason. `asked`: how many of them were asked for."""

    provider: str
    api: Api
    category: Category
    key_id_hash: str
    key_id: str = field(repr=False)
    sources: int
    asked: int
    objects: int
    first_keys: tuple[bytes, ...]
    detail: str
    hint: str

    def __str__(self) -> str:
        named = f" under key id {self.key_id_hash}" if self.key_id_hash else ""
        first = ", ".join(key.decode(errors="backslashreplace") for key in self.first_keys)
        detail = f": {self.detail}" if self.detail else ""
        return (
            f"KMS provider {self.provider!r}: {self.category}: {self.sources} wrapped keys of {self.objects} values"
            f"{named} (first: {first}){detail}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwrapping:
    """What came of asking one provider. `asked`: calls' worth of sources; `known`: found in saved keys instead.

    `failures`: sources without a key, the largest group first. `unproven`: sources whose key was given and opens none
    of the values it was tried on; it is kept, and opening the values will fail with the reason that fits. `stopped`:
    why asking ended early.
    """

    provider: str
    api: Api
    keys: UnwrappedKeys
    sources: int
    objects: int
    asked: int
    known: int
    failures: tuple[FailedSources, ...]
    unproven: tuple[FailedSources, ...]
    stopped: Category | None
    seconds: float

    @property
    def complete(self) -> bool:
        """Is there a key for every source?"""
        return not self.failures

    @property
    def rate(self) -> float:
        """Sources asked for by the second, throttling and retries included."""
        return self.asked / self.seconds if self.seconds else 0.0

    def error(self) -> KmsError | None:
        """Return one error for all that failed, with the largest group in front; None when nothing did."""
        groups = self.failures
        if not groups:
            # Keys came, but not one of them opens anything: the wrong plugin, not damaged values.
            if sum(group.sources for group in self.unproven) < self.sources or not self.sources:
                return None
            return KmsAnsweredWrongly(
                f"KMS provider {self.provider!r} returned keys that open none of its {self.objects} values",
                provider=self.provider,
                category=Category.BAD_ANSWER,
                hint="wrong key version, or wrong API version (Azure uses different algorithms for v1 and v2)",
            )
        kind = KmsUnreachable if groups[0].category in _GONE | {Category.TIMEOUT} else KmsRefused
        return kind(
            "; ".join(str(group) for group in groups[:3])
            + (f"; and {len(groups) - 3} more" if len(groups) > 3 else ""),
            provider=self.provider,
            category=groups[0].category,
            detail=groups[0].detail,
            hint=groups[0].hint,
        )


_GONE: Final = frozenset(
    {Category.UNREACHABLE, Category.SOCKET_PERMISSION, Category.NOT_A_PLUGIN, Category.WRONG_API, Category.UNHEALTHY}
)


class _Patience:
    """When to stop asking. Each failure here is final already: retries are the service's business.

    A plugin that is gone ends everything. Deadlines end everything when three pass in a row. A refusal is heard eight
    times for each key id (64 times where it may be the single value's fault) if nothing under that id was unwrapped.
    """

    _TIMEOUTS = 3
    _REFUSALS = 8
    _DOUBTS = 64
    _SINGLE: Final = frozenset({Category.BAD_CIPHERTEXT, Category.BAD_ANSWER, Category.OTHER, Category.THROTTLED})

    def __init__(self) -> None:
        self.stopped: KmsError | None = None
        self._timeouts = 0
        self._heard: Counter[tuple[str, Category]] = Counter()
        self._good: set[str] = set()
        self._closed: dict[str, KmsError] = {}

    def verdict(self, key_id: str) -> KmsError | None:
        """Return the error that answers for a source that need not be asked for."""
        return self.stopped or self._closed.get(key_id)

    def succeeded(self, key_id: str) -> None:
        self._timeouts = 0
        self._good.add(key_id)

    def failed(self, key_id: str, error: KmsError) -> None:
        category = error.category
        if category is Category.TIMEOUT:
            self._timeouts += 1
        if category in _GONE or self._timeouts >= self._TIMEOUTS:
            self.stopped = error
            return
        self._heard[key_id, category] += 1
        limit = self._DOUBTS if category in self._SINGLE else self._REFUSALS
        if key_id not in self._good and self._heard[key_id, category] >= limit:
            self._closed[key_id] = error


@dataclass(slots=True)
class _Group:
    """A FailedSources in the making."""

    error: KmsError | None
    sources: int = 0
    asked: int = 0
    objects: int = 0
    places: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _OneKey:
    """A KeySource with one key for everything: to try it."""

    key: bytes = field(repr=False)

    def candidates(self, source: WrappedSource) -> Sequence[bytes]:
        del source
        return (self.key,)


def unwrap_sources(
    sources: Sources,
    services: Sequence[KmsService],
    fetch: Fetch,
    *,
    known: Sequence[KeySource] = (),
    concurrency: int | None = None,
    plausible: Plausible | None = None,
    progress: Progress | None = None,
) -> tuple[Unwrapping, ...]:
    """Unwrap every distinct source once, most used first. One answer for each service, in order; one if there is none.

    `known` is asked first. `services` are all providers of this name and API, in the order of the configuration: v1
    lets two have the same name, and a source that the first cannot unwrap, or whose key opens nothing, is for the
    second. So the last answer tells what nobody could unwrap. Raises nothing for a service that fails: look at
    `failures`, or ask `Unwrapping.error`.
    """
    numbers = sources.most_used()
    answers = []
    for service in services or (None,):
        run = _Run(sources, service, fetch, known=tuple(known), plausible=plausible, progress=progress, numbers=numbers)
        answers.append(run.finish(concurrency or CONCURRENCY[sources.api]))
        numbers = run.left_over()
    return tuple(answers)


class _Run:
    """One service, asked for some sources. Everything shared between its threads is under `_lock`."""

    def __init__(
        self,
        sources: Sources,
        service: KmsService | None,
        fetch: Fetch,
        *,
        known: tuple[KeySource, ...],
        plausible: Plausible | None,
        progress: Progress | None,
        numbers: list[int],
    ) -> None:
        self._sources = sources
        self._service = service
        self._fetch = fetch
        self._known = known
        self._plausible = plausible or _begins_like_an_object
        self._progress = progress
        self._numbers = numbers
        self._lock = threading.Lock()
        self._patience = _Patience()
        # Unwrapped keys one after the other, where each ends, and the number of its source: a dict of a million keys
        # would be five times as large.
        self._keys = bytearray()
        self._ends = array("Q")
        self._owners = array("Q")
        self._failed: dict[int, Category] = {}
        self._unproven: set[int] = set()
        self._failures: dict[tuple[Category, str], _Group] = {}
        self._doubts: dict[tuple[Category, str], _Group] = {}
        self._asked = 0
        self._known_found = 0
        self._done = 0

    def finish(self, concurrency: int) -> Unwrapping:
        started = time.monotonic()
        _in_threads(self._one, self._numbers, concurrency, self._service)
        cache_keys = self._sources.cache_keys()
        stopped = self._patience.stopped
        by_cache_key = sorted(range(len(self._owners)), key=lambda entry: cache_keys[self._owners[entry]])
        keys = UnwrappedKeys.pack(
            ((cache_keys[self._owners[entry]], self._key(entry)) for entry in by_cache_key),
            {cache_keys[number]: category for number, category in self._failed.items()},
        )
        return Unwrapping(
            provider=self._sources.provider,
            api=self._sources.api,
            keys=keys,
            sources=len(self._numbers),
            objects=sum(map(self._sources.count, self._numbers)),
            asked=self._asked,
            known=self._known_found,
            failures=self._groups(self._failures),
            unproven=self._groups(self._doubts),
            stopped=stopped.category if stopped else None,
            seconds=time.monotonic() - started,
        )

    def _key(self, entry: int) -> bytes:
        return bytes(self._keys[self._ends[entry - 1] if entry else 0 : self._ends[entry]])

    def left_over(self) -> list[int]:
        """Return the numbers for the next service of this name."""
        return [number for number in self._numbers if number in self._failed or number in self._unproven]

    def _one(self, number: int) -> None:
        source = self._sources.fetch(number, self._fetch)
        key, proved = self._saved(number, source)
        failure: KmsError | None = None
        asked = False
        if key is None:
            with self._lock:
                failure = self._patience.verdict(source.key_id)
            if failure is None and self._service is not None:
                asked = True
                key, failure = self._ask(self._service, source)
                proved = key is not None and self._opens_some(number, key)
        with self._lock:
            if key is None:
                self._note(self._failures, number, source, failure, asked=asked)
                self._failed[number] = failure.category if failure else Category.NOT_ASKED
            else:
                self._keys += key
                self._ends.append(len(self._keys))
                self._owners.append(number)
                if not proved:
                    self._unproven.add(number)
                    self._note(self._doubts, number, source, _bad_key(source, key), asked=asked)
            self._asked += asked
            self._known_found += key is not None and not asked
            self._done += 1
            if self._progress:
                self._progress(self._done, len(self._numbers))

    def _saved(self, number: int, source: WrappedSource) -> tuple[bytes | None, bool]:
        """Return a saved key and whether it opens a value; the only one there is, where nobody can be asked instead."""
        tried: list[bytes] = []
        for saved in self._known:
            try:
                candidates = saved.candidates(source)
            except UnwrapFailed:
                continue
            for key in candidates:
                if self._opens_some(number, key):
                    return key, True
                tried.append(key)
        return (tried[0], False) if len(tried) == 1 and self._service is None else (None, False)

    def _ask(self, service: KmsService, source: WrappedSource) -> tuple[bytes | None, KmsError | None]:
        try:
            key = service.unwrap(source)
        except KmsError as error:
            with self._lock:
                self._patience.failed(source.key_id, error)
            return None, error
        with self._lock:
            self._patience.succeeded(source.key_id)
        return key, None

    def _opens_some(self, number: int, key: bytes) -> bool:
        for place in self._sources.places(number):
            etcd_key, stored = self._fetch(place)
            if self._opens(key, stored[len(self._sources.prefix) :], etcd_key):
                return True
        return False

    def _opens(self, key: bytes, payload: bytes, etcd_key: bytes) -> bool:
        name = self._sources.provider
        reader = (
            KmsV1Provider(name, _OneKey(key), plausible=self._plausible)
            if self._sources.api is Api.V1
            else KmsV2Provider(name, _OneKey(key))
        )
        try:
            reader.unseal(payload, etcd_key)
        except KeyDoesNotFit:
            return False
        return True

    def _note(
        self,
        groups: dict[tuple[Category, str], _Group],
        number: int,
        source: WrappedSource,
        error: KmsError | None,
        *,
        asked: bool,
    ) -> None:
        category = error.category if error else Category.NOT_ASKED
        group = groups.setdefault((category, source.key_id), _Group(error))
        group.sources += 1
        group.asked += asked
        group.objects += self._sources.count(number)
        # The lowest places, whatever the order in which threads got there: reports do not depend on timing.
        group.places = sorted(group.places + self._sources.places(number))[:REMEMBERED_PLACES]

    def _groups(self, groups: Mapping[tuple[Category, str], _Group]) -> tuple[FailedSources, ...]:
        return tuple(
            FailedSources(
                provider=self._sources.provider,
                api=self._sources.api,
                category=category,
                key_id_hash=hash_key_id(key_id),
                key_id=key_id,
                sources=group.sources,
                asked=group.asked,
                objects=group.objects,
                first_keys=tuple(self._fetch(place)[0] for place in group.places),
                detail=(group.error.detail or str(group.error)) if group.error else "no service and no saved key",
                hint=group.error.hint if group.error else "start the plugin, or give the keys with --dek-file",
            )
            for (category, key_id), group in sorted(groups.items(), key=_largest_first)
        )


def _largest_first(item: tuple[tuple[Category, str], _Group]) -> tuple[int, tuple[Category, str]]:
    name, group = item
    return -group.objects, name


def _bad_key(source: WrappedSource, key: bytes) -> KmsError:
    if key_size_problem(source, key) is not None:
        problem = f"the unwrapped key has {len(key)} bytes"
    else:
        problem = "the unwrapped key opens none of the values it was tried on"
    return KmsAnsweredWrongly(
        f"KMS provider {source.provider!r}: {problem}",
        provider=source.provider,
        category=Category.BAD_ANSWER,
        detail=problem,
        hint="wrong key version, wrong API version, or damaged values",
    )


def _begins_like_an_object(plaintext: bytes) -> bool:
    return plaintext.startswith((b"k8s\0", b"{"))


def _in_threads(work: Callable[[_T], None], items: Sequence[_T], concurrency: int, service: KmsService | None) -> None:
    """Do `work` on every item, in order of start, at most `concurrency` at a time; the first bug or Ctrl-C ends it."""
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
                for one in finished:
                    one.result()
        except BaseException:
            over.set()
            if service is not None:
                service.close()  # cancels the calls that the other threads wait for
            raise


def unwrapped_pairs(sources: Sources, keys: UnwrappedKeys, fetch: Fetch) -> Iterator[tuple[WrappedSource, bytes]]:
    """Yield every source that has a key, with it: what a key file saves."""
    for number in range(len(sources)):
        source = sources.fetch(number, fetch)
        key = keys.find(source.cache_key)
        if key is not None:
            yield source, key


# -- keys to write with


def make_write_key(
    service: KmsService,
    entropy: Entropy = os.urandom,
    *,
    sleep: Callable[[float], None] = time.sleep,
    allow_pass_through: bool = False,
) -> WriteKey:
    """Make a key to write with: wrapped, checked, unwrapped again and equal. `service` decides whether DEK or seed.

    v2: Status must be healthy, and its key id the one that Encrypt used; a Status that lags behind a rotation is asked
    again. `allow_pass_through` (tests) accepts a wrapping that shows the key. Raises KmsError: nothing may be written.
    """
    if service.api is Api.V1:
        return _prove(service, entropy(SEED_BYTES), allow_pass_through=allow_pass_through)
    status = _healthy(service)
    return _prove(service, entropy(SEED_BYTES), allow_pass_through=allow_pass_through, status=status, sleep=sleep)


def make_write_keys(
    service: KmsService, objects: int, entropy: Entropy = os.urandom, *, allow_pass_through: bool = False
) -> SharedWriteKeys:
    """Make the data keys for `objects` v1 values: one for every 2^20 of them. Raises KmsError."""
    number = max(1, -(-objects // OBJECTS_PER_V1_DEK))
    return SharedWriteKeys(
        tuple(make_write_key(service, entropy, allow_pass_through=allow_pass_through) for _ in range(number))
    )


class FreshWriteKeys:
    """A data key for every v1 value, as kube-apiserver makes them: one Encrypt each. Holds a connection: one process.

    `objects` of them are made ahead, `concurrency` at a time; who picks more waits for each. The first key was proved
    by a round trip; the others are checked, but not unwrapped again. Leave the context to end what is made ahead.
    """

    def __init__(
        self,
        service: KmsService,
        objects: int,
        entropy: Entropy = os.urandom,
        *,
        concurrency: int = CONCURRENCY[Api.V1],
        allow_pass_through: bool = False,
    ) -> None:
        self._service = service
        self._entropy = entropy
        self._allow_pass_through = allow_pass_through
        self._lock = threading.Lock()
        self._first: WriteKey | None = make_write_key(service, entropy, allow_pass_through=allow_pass_through)
        self._pool = ThreadPoolExecutor(concurrency)
        self._ahead: deque[Future[WriteKey]] = deque()
        self._to_come = max(objects - 1, 0)
        for _ in range(concurrency):
            self._make_ahead()

    def _make_ahead(self) -> None:
        if self._to_come:
            self._to_come -= 1
            self._ahead.append(self._pool.submit(self._make, self._entropy(SEED_BYTES)))

    def _make(self, key: bytes) -> WriteKey:
        return WriteKey(_wrap(self._service, key, allow_pass_through=self._allow_pass_through), key)

    def pick(self, nonce: bytes) -> WriteKey:
        """Return a key that no other value has. Raises KmsError."""
        del nonce
        with self._lock:
            first, self._first = self._first, None
            if first is not None:
                return first
            self._make_ahead()
            made = self._ahead.popleft() if self._ahead else None
        return made.result() if made is not None else self._make(self._entropy(SEED_BYTES))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def _healthy(service: KmsService) -> ServiceStatus:
    status = service.status()
    if status.problems:
        raise KmsAnsweredWrongly(
            f"KMS provider {service.provider!r} is not fit for writing: {'; '.join(status.problems)}",
            provider=service.provider,
            category=Category.UNHEALTHY,
            detail="; ".join(status.problems),
            hint="kube-apiserver would not write through this plugin either; reading does not need it to be healthy",
        )
    return status


def _wrap(service: KmsService, key: bytes, *, allow_pass_through: bool) -> WrappedSource:
    source = service.wrap(key)
    if service.api is Api.V1:
        size = len(source.source)
        problem = "" if 0 < size <= MAX_V1_SOURCE_BYTES else f"a cipher of {size} bytes cannot be stored"
    else:
        reason = source_problem(source)
        problem = f"kube-apiserver would refuse it: {reason}" if reason else ""
    if not problem and not allow_pass_through:
        shown = [source.source, *(value for _, value in source.annotations), source.key_id.encode()]
        shown += [name.encode() for name, _ in source.annotations]
        if any(reveals(one, key) for one in shown):
            problem = "the key can be read in it: this plugin does not encrypt"
    if problem:
        raise _wrong(service, f"the answer to Encrypt must not be used: {problem}")
    return source


def _wrong(service: KmsService, problem: str, hint: str = "") -> KmsAnsweredWrongly:
    return KmsAnsweredWrongly(
        f"KMS provider {service.provider!r}: {problem}",
        provider=service.provider,
        category=Category.BAD_ANSWER,
        detail=problem,
        hint=hint or "do not write through this plugin; nothing was written",
    )


def _prove(
    service: KmsService,
    key: bytes,
    *,
    allow_pass_through: bool,
    status: ServiceStatus | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> WriteKey:
    source = _wrap(service, key, allow_pass_through=allow_pass_through)
    questions = 1
    while status is not None and status.key_id != source.key_id:
        if questions == STATUS_QUESTIONS:
            raise _wrong(
                service,
                f"Encrypt used key id {source.key_id_hash}, Status keeps saying {hash_key_id(status.key_id)}",
                "kube-apiserver would refuse to write with this plugin; nothing was written",
            )
        sleep(STATUS_PAUSE_SECONDS)
        status = _healthy(service)
        questions += 1
    if service.unwrap(source) != key:
        raise _wrong(service, "a fresh key came back as another one after Encrypt and Decrypt")
    return WriteKey(source, key)


# -- the same keys under another wrapping


@dataclass(frozen=True, slots=True)
class Rewrapping:
    """Old wrapping to new one, for every distinct source; a plain value for workers."""

    api: Api
    old_provider: str
    new: Mapping[bytes, WrappedSource] = field(repr=False)

    def rewrap(self, payload: bytes) -> bytes:
        """Return the payload with the new wrapping. Raises KeyDoesNotFit for a payload whose source was not wrapped."""
        old = decode_envelope(self.api, self.old_provider, payload).source
        new = self.new.get(old.cache_key)
        if new is None:
            raise UnwrapFailed(self.old_provider, Category.NOT_ASKED)
        return rewrap(payload, old, new)


def rewrap_sources(
    sources: Sources,
    keys: KeySource,
    service: KmsService,
    fetch: Fetch,
    *,
    concurrency: int | None = None,
    allow_pass_through: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    progress: Progress | None = None,
) -> Rewrapping:
    """Wrap the key of every distinct source anew with `service`, and prove each wrapping by unwrapping it.

    Sources for which `keys` has no key, or none of a possible length, are left out: their values stay as they are, or
    the caller stops. Raises KmsError at the first thing that goes wrong with the new service: write nothing then.
    """
    if service.api is not sources.api:
        raise InputError(
            f"KMS provider {service.provider!r} speaks {service.api}, values of {sources.provider!r} are {sources.api}",
            hint="rewrap changes the KEK alone; from one API to the other, use rewrite without it",
        )
    new: dict[bytes, WrappedSource] = {}
    lock = threading.Lock()
    # The first is wrapped alone: Status, its lag and a plugin that does not work are met once.
    usable: list[tuple[WrappedSource, bytes]] = []
    for number in sources.most_used():
        source = sources.fetch(number, fetch)
        try:
            key = keys.candidates(source)[0]
        except UnwrapFailed:
            continue
        if key_size_problem(source, key) is None:
            usable.append((source, key))

    def one(pair: tuple[WrappedSource, bytes], status: ServiceStatus | None = None) -> None:
        old, key = pair
        made = _prove(service, key, allow_pass_through=allow_pass_through, status=status, sleep=sleep)
        with lock:
            new[old.cache_key] = replace(made.source, source_type=old.source_type)
            if progress:
                progress(len(new), len(usable))

    if usable:
        one(usable[0], _healthy(service) if service.api is Api.V2 else None)
        _in_threads(one, usable[1:], concurrency or CONCURRENCY[sources.api], service)
    return Rewrapping(sources.api, sources.provider, new)


# -- what a plugin is


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCheck:
    """What `kms check` found. `seconds`: how long each question took; `error`: what ended the check early."""

    provider: str
    api: Api
    version: str = ""
    healthz: str = ""
    key_id_hash: str = ""
    problems: tuple[str, ...] = ()
    round_trip: bool | None = None
    plugin: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: KmsError | None = None


def check_service(
    service: KmsService,
    *,
    decrypt_only: bool = False,
    sample: WrappedSource | None = None,
    entropy: Entropy = os.urandom,
) -> ServiceCheck:
    """Ask one service how it is: Status or Version, then a round trip of 32 random bytes, or of a stored `sample`.

    `decrypt_only`: for accounts that may not encrypt; `sample` is unwrapped, if there is one. Never raises KmsError.
    """
    found = ServiceCheck(provider=service.provider, api=service.api, plugin=guess_plugin(sample) if sample else "")
    seconds: dict[str, float] = {}

    def timed(question: str, ask: Callable[[], _T]) -> _T:
        started = time.monotonic()
        answer = ask()
        seconds[question] = time.monotonic() - started
        return answer

    try:
        status = timed("Status" if service.api is Api.V2 else "Version", service.status)
        found = replace(
            found,
            version=status.version,
            healthz=status.healthz,
            key_id_hash=hash_key_id(status.key_id),
            problems=status.problems,
        )
        if not decrypt_only:
            key = entropy(SEED_BYTES)
            source = timed("Encrypt", lambda: _wrap(service, key, allow_pass_through=False))
            found = replace(found, plugin=guess_plugin(source))
            if source.key_id != status.key_id:
                other = f"Encrypt used key id {source.key_id_hash}, Status had said {found.key_id_hash}"
                found = replace(found, problems=(*found.problems, other))
            found = replace(found, round_trip=timed("Decrypt", lambda: service.unwrap(source)) == key)
        elif sample is not None:
            unwrapped = timed("Decrypt", lambda: service.unwrap(sample))
            found = replace(found, round_trip=key_size_problem(sample, unwrapped) is None)
    except KmsError as error:
        found = replace(found, error=error)
    return replace(found, seconds=seconds)


def guess_plugin(source: WrappedSource) -> str:
    """Say which plugin made this, going by its habits (spec/kms.md 4.3); empty when none is recognised. A guess."""
    names = [name for name, _ in source.annotations]
    if "/cryptoKeys/" in source.key_id:
        return "Google Cloud KMS"
    if any(name.endswith(".azure.akv.io") for name in names):
        return "Azure Key Vault"
    if source.source.startswith(b"1") and source.key_id.startswith(("arn:aws", "alias/")):
        return "AWS KMS"
    if source.source.startswith(b"vault:v"):
        return "Vault transit"
    if TEST_PLUGIN_ANNOTATION in names:
        return "snaptool test plugin"
    if source.api is Api.V1 and re.fullmatch(
        rb"[A-Za-z0-9_-]{342}|[A-Za-z0-9_-]{512}|[A-Za-z0-9_-]{683}", source.source
    ):
        return "Azure Key Vault"
    return ""
