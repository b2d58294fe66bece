"""Keys to write with under KMS, the same keys under another wrapping, and what a plugin is.

    make_write_key(s) a fresh key to write with, wrapped, checked, unwrapped again and compared
    rewrap_sources    the same keys under another wrapping, for a change of KEK alone
    check_service     how a plugin is

The results (`WriteKey`, `Rewrapping`) are plain values that workers get instead of a connection. What is read is
collected by `kms_sources` and unwrapped by `kms_unwrapping`. This module knows no socket and no file.

Source: docs/formats/kms.md, "Limits of answers", "How many calls" and "When a plugin fails".
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Self, TypeVar

from snaptool import signals
from snaptool.errors import InputError
from snaptool.providers.kms import OBJECTS_PER_V1_DEK, KeySource, SharedWriteKeys, WriteKey, key_size_problem
from snaptool.providers.kms_envelope import (
    MAX_V1_SOURCE_BYTES,
    SEED_BYTES,
    WrappedSource,
    decode_envelope,
    hash_key_id,
    rewrap,
    source_problem,
)
from snaptool.providers.kms_pace import in_threads
from snaptool.providers.kms_service import (
    Category,
    KmsAnsweredWrongly,
    KmsError,
    KmsService,
    ServiceStatus,
    UnwrapFailed,
    reveals,
)
from snaptool.providers.kms_sources import CONCURRENCY, Fetch, Sources, guess_plugin
from snaptool.providers.kms_unwrapping import Progress
from snaptool.providers.provider import Api, Entropy

if TYPE_CHECKING:
    from concurrent.futures import Future

STATUS_QUESTIONS: Final = 4
"""One, and three more while Status lags behind a rotation (Google): docs/formats/kms.md, "Plugins"."""
STATUS_PAUSE_SECONDS: Final = 1.0
_T = TypeVar("_T")


# -- keys to write with


def make_write_key(
    service: KmsService,
    entropy: Entropy = os.urandom,
    *,
    sleep: Callable[[float], None] = signals.sleep,
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

    `objects` of them are made ahead, `concurrency` at a time; who picks more waits for each. Every key is proved by a
    round trip: one wrong wrapping would be one value that is lost. Leave the context to end what is made ahead.
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
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - seldom needed, and heavy

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
        return _prove(self._service, key, allow_pass_through=self._allow_pass_through)

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
    sleep: Callable[[float], None] = signals.sleep,
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
    sleep: Callable[[float], None] = signals.sleep,
    progress: Progress | None = None,
) -> Rewrapping:
    """Wrap the key of every distinct source again with `service`, and prove each wrapping by unwrapping it.

    Sources for which `keys` has no key, or none of a possible length, are left out: their values stay as they are, or
    the caller stops. Raises KmsError at the first thing that goes wrong with the new service: write nothing then.
    """
    if service.api is not sources.api:
        raise InputError(
            f"KMS provider {service.provider!r} speaks {service.api}, values of {sources.provider!r} are {sources.api}",
            hint="rewrap changes the KEK alone; from one API to the other, use rewrite without it",
            code="wrong_api",
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
        in_threads(one, usable[1:], concurrency or CONCURRENCY[sources.api], service)
    return Rewrapping(sources.api, sources.provider, new)


# -- what a plugin is


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCheck:
    """What `kms check` found. `seconds`: how long each question took; `error`: what ended the check early.

    `asked`: the key service that was asked in the plugin's place; empty for a plugin.
    """

    provider: str
    api: Api
    version: str = ""
    healthz: str = ""
    key_id_hash: str = ""
    problems: tuple[str, ...] = ()
    round_trip: bool | None = None
    plugin: str = ""
    asked: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: KmsError | None = None


def check_service(
    service: KmsService,
    *,
    decrypt_only: bool = False,
    sample: WrappedSource | None = None,
    proves: Callable[[bytes], bool] | None = None,
    entropy: Entropy = os.urandom,
) -> ServiceCheck:
    """Ask one service how it is: Status or Version, then a round trip of 32 random bytes, or of a stored `sample`.

    `decrypt_only`: for accounts that may not encrypt; `sample` is unwrapped, if there is one. `proves`: does a key open
    a value of the sample? Without it, its length has to do. Never raises KmsError.
    """
    found = ServiceCheck(provider=service.provider, api=service.api, plugin=guess_plugin(sample) if sample else "")
    seconds: dict[str, float] = {}

    def timed(question: str, ask: Callable[[], _T]) -> _T:
        started = time.monotonic()
        answer = ask()
        seconds[question] = time.monotonic() - started
        return answer

    try:
        try:
            status = timed("Status" if service.api is Api.V2 else "Version", service.status)
        except KmsError as error:
            # An account that may only decrypt need not be allowed to look at the key.
            if not (decrypt_only and error.category is Category.ACCESS_DENIED and sample is not None):
                raise
            status = ServiceStatus("", "", "")
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
            fits = key_size_problem(sample, unwrapped) is None
            found = replace(found, round_trip=fits and (proves is None or proves(unwrapped)))
    except KmsError as error:
        found = replace(found, error=error)
    return replace(found, seconds=seconds)
