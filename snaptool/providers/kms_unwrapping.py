"""Unwrapping keys: each distinct source asked for once, every key proved, and no word of a service believed at once.

Theory of operation. A key service may be wrong for a moment: it answers with other bytes, with none, with a refusal
meant for somebody else. What it says decides over values, so nothing rests on one answer. A key counts when it opened
a value (`_Run.proves`). Whatever was refused or not proved is asked for a second time, later and over a new
connection. What still fails then is a *failure*: refused or answered wrongly, never lost. Only the operator can say
that it is (`GivenUp`), for a provider or for one key id, and every error names the words that say exactly that.

A refusal that meets everything is not heard a million times (`_Patience`), unless the operator's word would give
values up for it: then each source is asked for itself, because the one that was not asked might have opened.

Keys that were saved before are tried first (`kms_saved`): they are just another `KeySource`.

This module knows no socket and no file. Source: docs/formats/kms.md, "Limits of answers", "How many calls" and "When a
plugin fails".
"""

from __future__ import annotations

import shlex
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from snaptool import signals
from snaptool.providers.kms import KeySource, KmsV1Provider, KmsV2Provider, UnwrappedKeys, key_size_problem
from snaptool.providers.kms_envelope import WrappedSource, hash_key_id
from snaptool.providers.kms_pace import in_threads
from snaptool.providers.kms_service import (
    AsksForMany,
    Category,
    KmsAnsweredWrongly,
    KmsError,
    KmsRefused,
    KmsService,
    KmsUnreachable,
    UnwrapFailed,
)
from snaptool.providers.kms_sources import CONCURRENCY, Fetch, Sources, batch_size, direct_offer
from snaptool.providers.provider import Api, KeyDoesNotFit, Opened, Plausible
from snaptool.text import counted

Progress = Callable[[int, int], None]
"""Told how many sources are done, of how many; from one thread at a time."""

Places = Callable[[Collection[bytes]], Mapping[bytes, Iterable[int]]]
"""Finds every place of the sources with these cache keys, where the few remembered ones do not decide."""

SECOND_LOOK_SECONDS: Final = 1.0
"""How much later a source is asked for again: enough for a cache to warm up or a proxy to change its mind."""

NOT_THERE: Final = frozenset({Category.UNREACHABLE, Category.SOCKET_PERMISSION})
"""Nobody answered at all: this says nothing about one key."""

_SILENT: Final = frozenset(
    {Category.TIMEOUT, Category.UNAVAILABLE, Category.WRONG_API, Category.NOT_A_PLUGIN, Category.THROTTLED}
)
_OUTAGES: Final = NOT_THERE | _SILENT
_MOST_NAMED_KEY_IDS: Final = 5


# -- what came of it


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The operator's word that keys are gone: all that provider `name` does not unwrap, or those under one key id.

    `key_id_hash`: `sha256:` and hex, as in messages; empty for the whole provider.
    """

    name: str
    key_id_hash: str = ""

    def __str__(self) -> str:
        return f"{self.name}={self.key_id_hash}" if self.key_id_hash else self.name

    @property
    def option(self) -> str:
        """The option that says so, quoted for a shell."""
        return f"--kms-lost {shlex.quote(str(self))}"

    def covers(self, failed: FailedSources) -> bool:
        """Is this failure meant? One key id is not gone because nobody answered for any."""
        if self.name != failed.provider:
            return False
        return not self.key_id_hash or (self.key_id_hash == failed.key_id_hash and failed.category not in NOT_THERE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedSources:
    """Sources under one key id for which there is no key, for one reason.

    `asked`: how many of them were asked for; of the others nothing is known. `objects`: values that they hold the key
    of; `objects_under_key_id`: how many values there are under that key id, those that open too. `key_id_hash` is
    empty for v1, which has none.
    """

    provider: str
    api: Api
    category: Category
    key_id_hash: str
    key_id: str = field(repr=False)
    sources: int
    asked: int
    objects: int
    objects_under_key_id: int
    first_keys: tuple[bytes, ...]
    detail: str
    hint: str

    def __str__(self) -> str:
        named = f" under key id {self.key_id_hash}" if self.key_id_hash else " values"
        count = f"{self.objects:,}"
        if named == " values" and self.objects == 1:
            named = " value"
        if self.key_id_hash and self.objects != self.objects_under_key_id:
            count += f" of {self.objects_under_key_id:,}"
        first = self.first_keys[0].decode(errors="backslashreplace") if self.first_keys else ""
        detail = f" ({self.detail})" if self.detail else ""
        unasked = f", {self.asked:,} of {self.sources:,} wrapped keys asked for" if self.asked < self.sources else ""
        return f"{count}{named}: {self.category}{detail}{unasked}, first {first}"

    @property
    def given_up_by(self) -> GivenUp:
        """The word that gives these sources up, and as little else as can be said."""
        return GivenUp(self.provider, "" if self.category in NOT_THERE else self.key_id_hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwrapping:
    """What came of asking one provider. `asked`: distinct sources asked for; `known`: found in saved keys instead.

    `failures`: sources without a proved key, the largest group first. `unproven`: cache keys of those for which a key
    came that opens nothing; it is kept in `keys`, so that opening the values fails with the reason that fits, and must
    be used for nothing else. `stopped`: why asking ended early. `twice`: what failed was asked for a second time.
    """

    provider: str
    api: Api
    keys: UnwrappedKeys
    sources: int
    objects: int
    asked: int
    known: int
    failures: tuple[FailedSources, ...]
    unproven: frozenset[bytes] = field(repr=False)
    key_id_hashes: frozenset[str] = field(repr=False)
    stopped: Category | None
    twice: bool
    seconds: float

    @property
    def complete(self) -> bool:
        """Is there a proved key for every source?"""
        return not self.failures

    @property
    def rate(self) -> float:
        """Sources asked for by the second, throttling and retries included."""
        return self.asked / self.seconds if self.seconds else 0.0

    def error(self) -> KmsError | None:
        """Return one error for all that failed; None when nothing did."""
        return failure_error(self.failures, self.objects, twice=self.twice)


def failure_error(groups: Sequence[FailedSources], objects: int, *, twice: bool = True) -> KmsError | None:
    """Make one error of failures of one provider, the largest group in front. `objects`: all its values.

    The message counts the values; the hint says how to have them back, and the option that gives up these and no more.
    """
    if not groups:
        return None
    first = groups[0]
    count = sum(group.objects for group in groups)
    shown = "; ".join(str(group) for group in groups[:3])
    more = f"; and {len(groups) - 3} more" if len(groups) > 3 else ""
    asked = ", also when asked again over a new connection" if twice else ""
    kind: type[KmsError] = KmsRefused
    if first.category in _OUTAGES:
        kind = KmsUnreachable
    elif first.category is Category.BAD_ANSWER:
        kind = KmsAnsweredWrongly
    return kind(
        f"KMS provider {first.provider!r} gave no key for {count:,} of {objects:,} values{asked}: {shown}{more}",
        provider=first.provider,
        category=first.category,
        detail=first.detail,
        hint="; ".join(filter(None, [*dict.fromkeys(group.hint for group in groups[:3]), give_up_hint(groups)])),
    )


def give_up_hint(groups: Sequence[FailedSources]) -> str:
    """Say how to give up what failed, with the options that cover these values and no others that open."""
    words = list(dict.fromkeys(group.given_up_by for group in groups))
    if len(words) > _MOST_NAMED_KEY_IDS or any(not word.key_id_hash for word in words):
        words = [GivenUp(groups[0].provider)]
    count = sum(group.objects for group in groups)
    values = "this 1 value" if count == 1 else f"these {count:,} values"
    exactly = "exactly" if all(group.asked == group.sources for group in groups) else "at most"
    options = " ".join(word.option for word in words)
    return (
        f"if the keys are gone for good, `rewrite --undecryptable delete` with {options} drops {exactly} {values}, "
        "besides what no other key opens"
    )


# -- when to stop asking


class _Patience:
    """When to stop asking. Each failure here is final already: retries are the service's business.

    A plugin that is not there ends everything, and so does one that is silent under three key ids and never answered.
    Silence is heard three times in a row for each key id; a refusal eight times if nothing under that id was unwrapped,
    24 times for v1, where no key id says which values are of a kind, and 64 times where it may be the single value's
    fault.
    `insist`: values will be given up for what fails, so only silence ends the asking, and late.
    """

    _SILENCES = 3
    _REFUSALS: Final = {Api.V1: 24, Api.V2: 8}
    _DOUBTS = 64
    _INSISTENT_SILENCES = 16
    _SILENT_KEY_IDS = 3
    _SINGLE: Final = frozenset({Category.BAD_CIPHERTEXT, Category.BAD_ANSWER, Category.OTHER})

    def __init__(self, api: Api, *, insist: bool) -> None:
        self.stopped: KmsError | None = None
        self._api = api
        self._insist = insist
        self._in_a_row: Counter[str] = Counter()
        self._heard: Counter[tuple[str, Category]] = Counter()
        self._good: set[str] = set()
        self._closed: dict[str, KmsError] = {}

    def verdict(self, key_id: str) -> KmsError | None:
        """Return the error that answers for a source that need not be asked for."""
        return self.stopped or self._closed.get(key_id)

    def succeeded(self, key_id: str) -> None:
        self._in_a_row.pop(key_id, None)
        self._good.add(key_id)

    def failed(self, key_id: str, error: KmsError) -> None:
        category = error.category
        if category in NOT_THERE:
            self.stopped = error
        elif category in _SILENT:
            self._silent(key_id, error)
        elif not self._insist:
            self._heard[key_id, category] += 1
            limit = self._DOUBTS if category in self._SINGLE else self._REFUSALS[self._api]
            if key_id not in self._good and self._heard[key_id, category] >= limit:
                self._closed[key_id] = error

    def _silent(self, key_id: str, error: KmsError) -> None:
        self._in_a_row[key_id] += 1
        if self._insist:
            if not self._good and self._in_a_row.total() >= self._INSISTENT_SILENCES:
                self.stopped = error
        elif self._in_a_row[key_id] >= self._SILENCES:
            self._closed[key_id] = error
            if not self._good and len(self._closed) >= self._SILENT_KEY_IDS:
                self.stopped = error


# -- asking


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
    every_place: Places | None = None,
    insist: bool = False,
    concurrency: int | None = None,
    plausible: Plausible | None = None,
    progress: Progress | None = None,
    sleep: Callable[[float], None] = signals.sleep,
) -> tuple[Unwrapping, ...]:
    """Unwrap every distinct source, most used first. One answer for each service, in order; one if there is none.

    `known` is asked first. `services` are all providers of this name and API, in the order of the configuration: v1
    lets two have the same name, and a source that the first cannot unwrap, or whose key opens nothing, is for the
    second. So the last answer says what nobody could unwrap. What fails everywhere is asked for again, later and over
    a new connection. `insist`: the operator gives up what will fail, so every source is asked for itself, twice.
    Raises nothing for a service that fails: look at `failures`, or ask `Unwrapping.error`.
    """
    numbers = _in_order(sources)
    runs = []
    left = numbers
    for service in services or (None,):
        run = _Run(sources, service, fetch, tuple(known), plausible or _begins_like_an_object, left, insist=insist)
        runs.append(run)
        run.look(left, concurrency or CONCURRENCY[sources.api], progress)
        left = run.left_over(left)
    hopeful = [run for run in runs if run.may_know_better]
    if left and hopeful:
        for run in hopeful:
            run.reconnect()
        sleep(SECOND_LOOK_SECONDS)
        for run in hopeful:
            run.look(left, concurrency or CONCURRENCY[sources.api], None)
            left = run.left_over(left)
    if left and every_place is not None:
        _prove_elsewhere(sources, runs, left, every_place)
        left = [number for number in left if all(number in run.failed for run in runs)]
    return tuple(run.finish(left if run is runs[-1] else run.numbers) for run in runs)


def opens_a_value(sources: Sources, number: int, fetch: Fetch, plausible: Plausible, key: bytes) -> bool:
    """Is this the key of the source with this number, as far as the values show that are remembered of it?"""
    return _Run(sources, None, fetch, (), plausible, [], insist=False).proves(key, sources.places(number))


def _in_order(sources: Sources) -> list[int]:
    """Return the numbers to ask for, most used first; v1's spread over the file: what failed first stands for more.

    A v1 source has one value, so they come in the order of time, and so of key versions, which v1 does not name.
    """
    numbers = sources.most_used()
    if sources.api is Api.V1:
        step = max(1, len(numbers) // 64)
        return [number for start in range(step) for number in numbers[start::step]]
    return numbers


def _prove_elsewhere(sources: Sources, runs: Sequence[_Run], left: Sequence[int], every_place: Places) -> None:
    """Try keys that open none of the few values remembered on all others: those few may be damaged or moved."""
    cache_keys = sources.cache_keys()
    doubted = {
        cache_keys[number]: number
        for number in left
        if sources.count(number) > len(sources.places(number)) and any(run.has_doubted(number) for run in runs)
    }
    if doubted:
        for cache_key, places in every_place(doubted.keys()).items():
            number = doubted[cache_key]
            for run in runs:
                run.prove_on(number, places)


class _Run:
    """One service, asked for some sources. Everything shared between its threads is under `_lock`."""

    def __init__(
        self,
        sources: Sources,
        service: KmsService | None,
        fetch: Fetch,
        known: tuple[KeySource, ...],
        plausible: Plausible,
        numbers: list[int],
        *,
        insist: bool,
    ) -> None:
        self.numbers = numbers
        self.failed: dict[int, tuple[Category, str]] = {}
        self._sources = sources
        self._service = service
        self._fetch = fetch
        self._known = known
        self._plausible = plausible
        self._insist = insist
        self._lock = threading.Lock()
        self._patience = _Patience(sources.api, insist=insist)
        # Unwrapped keys one after the other, where each ends, and the number of its source: a dict of a million keys
        # would be five times as large.
        self._keys = bytearray()
        self._ends = array("Q")
        self._owners = array("Q")
        self._doubted: dict[int, list[bytes]] = {}
        self._errors: dict[tuple[Category, str], KmsError | None] = {}
        self._heard: set[int] = set()
        self._objects: Counter[str] = Counter()
        self._asked = 0
        self._known_found = 0
        self._done = 0
        self._looks = 0
        self._seconds = 0.0

    @property
    def may_know_better(self) -> bool:
        """Is it worth asking again? Where nobody is, only if values are to be given up for it."""
        stopped = self._patience.stopped
        gone = stopped is not None and stopped.category in NOT_THERE and not self._heard_anything
        return self._service is not None and (self._insist or not gone)

    @property
    def _heard_anything(self) -> bool:
        return len(self._owners) > self._known_found

    def look(self, numbers: Sequence[int], concurrency: int, progress: Progress | None) -> None:
        """Ask for these sources. The second look has a patience of its own."""
        started = time.monotonic()
        if self._looks:
            self._patience = _Patience(self._sources.api, insist=self._insist)
        self._looks += 1
        service = self._service
        asked: object = service
        # Saved keys are looked at first: what they open is not asked for, in a batch neither.
        many = asked if isinstance(asked, AsksForMany) and not self._known else None
        size = 1 if many is None else batch_size(len(numbers), concurrency, many.BATCH)

        def some(batch: Sequence[int]) -> None:
            if many is not None and len(batch) > 1 and self._patience.verdict("") is None:
                many.prepare([self._sources.fetch(number, self._fetch) for number in batch])
            for number in batch:
                self._one(number, progress)

        batches = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        in_threads(some, batches, concurrency, service)
        self._seconds += time.monotonic() - started

    def reconnect(self) -> None:
        """End the connection: the next call opens a new one."""
        if self._service is not None:
            self._service.close()

    def left_over(self, numbers: Iterable[int]) -> list[int]:
        """Return those of `numbers` that there is no proved key for."""
        return [number for number in numbers if number in self.failed]

    def has_doubted(self, number: int) -> bool:
        """Did a key come for this source that opened nothing?"""
        return number in self._doubted

    def prove_on(self, number: int, places: Iterable[int]) -> None:
        """Try the keys that were doubted on other values of their source."""
        for key in self._doubted.get(number, ()):
            if self.proves(key, places, chance_counts=False):
                self._keep(number, key)
                return

    def finish(self, left: Sequence[int]) -> Unwrapping:
        """Return what came of it; of what failed only the sources in `left`."""
        cache_keys = self._sources.cache_keys()
        stopped = self._patience.stopped
        unproven = [number for number in self._doubted if number in self.failed]
        for number in unproven:
            self._pack(number, self._doubted[number][-1])
        entries = sorted(range(len(self._owners)), key=lambda entry: cache_keys[self._owners[entry]])
        return Unwrapping(
            provider=self._sources.provider,
            api=self._sources.api,
            keys=UnwrappedKeys.pack(
                ((cache_keys[self._owners[entry]], self._key(entry)) for entry in entries),
                {cache_keys[number]: category for number, (category, _) in self.failed.items()},
            ),
            sources=len(self.numbers),
            objects=sum(map(self._sources.count, self.numbers)),
            asked=self._asked,
            known=self._known_found,
            failures=self._groups([number for number in left if number in self.failed]),
            unproven=frozenset(cache_keys[number] for number in unproven),
            key_id_hashes=frozenset(map(hash_key_id, self._objects)),
            stopped=stopped.category if stopped else None,
            twice=self._looks > 1,
            seconds=self._seconds,
        )

    def _key(self, entry: int) -> bytes:
        return bytes(self._keys[self._ends[entry - 1] if entry else 0 : self._ends[entry]])

    def _one(self, number: int, progress: Progress | None) -> None:
        source = self._sources.fetch(number, self._fetch)
        if self._looks == 1:
            with self._lock:
                self._objects[source.key_id] += self._sources.count(number)
        if self._looks == 1 and self._saved(number, source):
            self._count(progress)
            return
        with self._lock:
            failure = self._patience.verdict(source.key_id)
        if failure is None and self._service is not None:
            failure = self._ask(self._service, number, source)
            if failure is None:
                self._count(progress)
                return
        with self._lock:
            category = failure.category if failure else Category.NOT_ASKED
            name = category, source.key_id
            self._errors[name] = failure or self._errors.get(name)
            self.failed[number] = name
        self._count(progress)

    def _count(self, progress: Progress | None) -> None:
        if progress is not None:
            with self._lock:
                self._done += 1
                progress(self._done, len(self.numbers))

    def _keep(self, number: int, key: bytes) -> None:
        with self._lock:
            self.failed.pop(number, None)
            self._doubted.pop(number, None)
            self._pack(number, key)

    def _pack(self, number: int, key: bytes) -> None:
        self._keys += key
        self._ends.append(len(self._keys))
        self._owners.append(number)

    def _saved(self, number: int, source: WrappedSource) -> bool:
        """Look for a saved key that opens a value; the others are remembered as doubted."""
        for saved in self._known:
            try:
                candidates = saved.candidates(source)
            except UnwrapFailed:
                continue
            for key in candidates:
                if self.proves(key, self._sources.places(number)):
                    self._known_found += 1
                    self._keep(number, key)
                    return True
            if len(candidates) == 1:
                self._doubt(number, candidates[0])
        return False

    def _ask(self, service: KmsService, number: int, source: WrappedSource) -> KmsError | None:
        """Ask, and prove the answer. Returns the failure; None for a key that is kept."""
        with self._lock:
            self._asked += number not in self._heard
            self._heard.add(number)
        error: KmsError
        try:
            key = service.unwrap(source)
        except KmsError as refusal:
            error = refusal
        else:
            if self.proves(key, self._sources.places(number)):
                self._keep(number, key)
                with self._lock:
                    self._patience.succeeded(source.key_id)
                    self._heard.discard(number)
                return None
            self._doubt(number, key)
            error = _bad_key(source, key)
        with self._lock:
            self._patience.failed(source.key_id, error)
        return error

    def _doubt(self, number: int, key: bytes) -> None:
        """Remember a key that was not proved, unless chance makes it open something: that must not happen later."""
        if not self._opens_any(key, self._sources.places(number)):
            with self._lock:
                self._doubted.setdefault(number, []).append(key)

    def _opens_any(self, key: bytes, places: Iterable[int]) -> bool:
        return any(self._opened(key, place) is not None for place in places)

    def proves(self, key: bytes, places: Iterable[int], *, chance_counts: bool = True) -> bool:
        """Does a key open a value for certain? AES-CBC (v1, before 1.25) authenticates nothing: it has to open all.

        `chance_counts`: accept what AES-CBC opens at all.
        """
        by_chance = tried = 0
        for place in places:
            opened = self._opened(key, place)
            # v1 calls what AES-CBC opened stale; v2 authenticates every form.
            if opened is not None and not (self._sources.api is Api.V1 and opened.stale):
                return True
            tried += 1
            by_chance += opened is not None
        return chance_counts and 0 < by_chance == tried

    def _opened(self, key: bytes, place: int) -> Opened | None:
        etcd_key, stored = self._fetch(place)
        name, keys = self._sources.provider, _OneKey(key)
        if self._sources.api is Api.V1:
            reader: KmsV1Provider | KmsV2Provider = KmsV1Provider(name, keys, plausible=self._plausible)
        else:
            reader = KmsV2Provider(name, keys)
        try:
            return reader.unseal(stored[len(self._sources.prefix) :], etcd_key)
        except KeyDoesNotFit:
            return None

    def _groups(self, numbers: Sequence[int]) -> tuple[FailedSources, ...]:
        by_name: dict[tuple[Category, str], list[int]] = {}
        for number in numbers:
            by_name.setdefault(self.failed[number], []).append(number)
        return tuple(sorted((self._group(*item) for item in by_name.items()), key=_largest_first))

    def _group(self, name: tuple[Category, str], numbers: list[int]) -> FailedSources:
        category, key_id = name
        error = self._errors[name]
        places = sorted(place for number in numbers for place in self._sources.places(number))[:3]
        return FailedSources(
            provider=self._sources.provider,
            api=self._sources.api,
            category=category,
            key_id_hash=hash_key_id(key_id),
            key_id=key_id,
            sources=len(numbers),
            asked=sum(number in self._heard for number in numbers),
            objects=sum(map(self._sources.count, numbers)),
            objects_under_key_id=self._objects[key_id],
            first_keys=tuple(self._fetch(place)[0] for place in places),
            detail=(error.detail or str(error)) if error else "no service and no saved key",
            hint=self._advice(category, numbers[0], error),
        )

    def _advice(self, category: Category, number: int, error: KmsError | None) -> str:
        """Say what helps; where a plugin is not there, also who else can be asked."""
        advice = error.hint if error else "start the plugin, or give the keys with --dek-file"
        if category not in NOT_THERE or getattr(self._service, "direct", None) is not None:
            return advice
        return "; ".join(filter(None, [advice, direct_offer(self._sources.fetch(number, self._fetch))]))


def _largest_first(group: FailedSources) -> tuple[int, Category, str]:
    return -group.objects, group.category, group.key_id


def _bad_key(source: WrappedSource, key: bytes) -> KmsError:
    if key_size_problem(source, key) is not None:
        problem = f"the unwrapped key has {counted(len(key), 'byte')}"
    else:
        problem = "the unwrapped key opens none of its values"
    return KmsAnsweredWrongly(
        f"KMS provider {source.provider!r}: {problem}",
        provider=source.provider,
        category=Category.BAD_ANSWER,
        detail=problem,
        hint="wrong key version, wrong API version (Azure uses other algorithms for v1 than for v2), or damaged values",
    )


def _begins_like_an_object(plaintext: bytes) -> bool:
    return plaintext.startswith((b"k8s\0", b"{"))


def proved_keys(answers: Sequence[Unwrapping]) -> Iterator[tuple[bytes, bytes]]:
    """Yield cache key and key of every source that some service of one name gave a proved key for, ascending."""
    found: dict[bytes, bytes] = {}
    for answer in answers:
        found |= {cache_key: key for cache_key, key in answer.keys.items() if cache_key not in answer.unproven}
    yield from sorted(found.items())


def joined_keys(answers: Sequence[Unwrapping]) -> UnwrappedKeys:
    """Join what services of one name gave: proved keys first, and the doubted ones for the reasons they give."""
    if len(answers) == 1:
        return answers[0].keys
    found = {cache_key: key for answer in answers for cache_key, key in answer.keys.items()}
    found |= dict(proved_keys(answers))
    return UnwrappedKeys.pack(sorted(found.items()), answers[-1].keys.failed)


def unwrapped_pairs(sources: Sources, keys: UnwrappedKeys, fetch: Fetch) -> Iterator[tuple[WrappedSource, bytes]]:
    """Yield every source that has a key, with it: what a key file saves."""
    for number in range(len(sources)):
        source = sources.fetch(number, fetch)
        key = keys.find(source.cache_key)
        if key is not None:
            yield source, key
