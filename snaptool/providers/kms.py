"""KMS providers, versions 1 and 2: values whose data key a key service has wrapped, opened and sealed.

Theory of operation. A value under a KMS provider carries its own data key (DEK), or the seed of one, wrapped by a
plugin that only the cluster's operator can reach. Opening takes three steps: parse the envelope (`kms_envelope`: no
key, no call), get the unwrapped key of its `WrappedSource`, open the body. Only the second step needs the outside
world, so it is an argument: a `KeySource`. `UnwrappedKeys` holds keys that were unwrapped beforehand; `AskingKeys` asks
a `KmsService` when a key is first needed, for jobs that read a handful of values.

The context (the etcd key) is authenticated by every body except v1's old AES-CBC, which authenticates nothing: the v1
reader tries GCM and falls back to CBC as kube-apiserver does, and where a `plausible` function is given, it accepts a
CBC answer only with honest padding and a plaintext that looks like an object.

This module knows no socket, no file and no configuration. Nothing in it prints a key, a wrapped key or a plaintext.

Source: docs/formats/kms.md, "KMS v1 values" and "KMS v2 values"; kubernetes/apiserver
pkg/storage/value/encrypt/envelope/{envelope.go,kmsv2/envelope.go} and encrypt/aes (release-1.34).
"""

from __future__ import annotations

import hmac
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from snaptool import signals
from snaptool.errors import ProviderError
from snaptool.providers.kms_envelope import (
    DEK_SIZES,
    INFO_BYTES,
    NONCE_BYTES,
    SEED_BYTES,
    Envelope,
    SourceType,
    WrappedSource,
    decode_v1,
    decode_v2,
    encode_envelope,
)
from snaptool.providers.kms_service import Category, KmsError, KmsService, UnwrapFailed
from snaptool.providers.provider import Api, Entropy, KeyDoesNotFit, Kind, Opened, Plausible, Reason
from snaptool.providers.symmetric import is_proved, open_cbc, open_gcm, seal_gcm
from snaptool.text import counted

OBJECTS_PER_V1_DEK: Final = 1 << 20  # ours: AES-GCM with random nonces would allow 2^32


class NoWriteKey(ProviderError):
    """A KMS provider was asked to seal, and no data key was made for it."""


class KeySource(Protocol):
    """Where a provider gets the unwrapped key of an envelope."""

    def candidates(self, source: WrappedSource) -> Sequence[bytes]:
        """Return the keys to try, at least one. Raises UnwrapFailed when there is none."""


@dataclass(frozen=True, slots=True)
class UnwrappedKeys:
    """Keys that were unwrapped beforehand, packed: what workers get instead of a connection.

    `digests`: the cache keys, 32 bytes each, sorted; `ends[i]` is where the i-th key ends in `keys`. A million data
    keys take 72 MB, pickle as two strings and are shared by forked workers. `failed` says of some sources why there is
    no key; of any other source that is not here it was never asked.
    """

    digests: bytes = field(default=b"", repr=False)
    keys: bytes = field(default=b"", repr=False)
    ends: array[int] = field(default_factory=lambda: array("Q"), repr=False)
    failed: Mapping[bytes, Category] = field(default_factory=dict, repr=False)

    @classmethod
    def pack(
        cls, unwrapped: Iterable[tuple[bytes, bytes]], failed: Mapping[bytes, Category] | None = None
    ) -> UnwrappedKeys:
        """Pack pairs of cache key (32 bytes) and unwrapped key. The cache keys must ascend."""
        digests, keys, ends = bytearray(), bytearray(), array("Q")
        for digest, key in unwrapped:
            if len(digest) != 32 or digest <= digests[-32:]:
                raise ValueError("cache keys have 32 bytes and ascend")
            digests += digest
            keys += key
            ends.append(len(keys))
        return cls(bytes(digests), bytes(keys), ends, dict(failed or {}))

    def __len__(self) -> int:
        return len(self.ends)

    def find(self, cache_key: bytes) -> bytes | None:
        """Return the key of the source with this cache key, if it is here."""
        digests, ends = self.digests, self.ends
        index = bisect_left(range(len(ends)), cache_key, key=lambda i: digests[32 * i : 32 * i + 32])
        if index == len(ends) or digests[32 * index : 32 * index + 32] != cache_key:
            return None
        return self.keys[ends[index - 1] if index else 0 : ends[index]]

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield cache key and key of every source that is here, ascending."""
        start = 0
        for index, end in enumerate(self.ends):
            yield self.digests[32 * index : 32 * index + 32], self.keys[start:end]
            start = end

    def candidates(self, source: WrappedSource) -> Sequence[bytes]:
        """Return the one key of `source`. Raises UnwrapFailed."""
        key = self.find(source.cache_key)
        if key is None:
            raise UnwrapFailed(source.provider, self.failed.get(source.cache_key, Category.NOT_ASKED))
        return (key,)


class AskingKeys:
    """Asks a key service when a key is first needed, and remembers both answers and refusals.

    For a handful of values (`get`, `history`). It holds a connection, so it does not go to another process.
    `known` is looked at before the service is asked. A refusal is asked about a second time, later and over a new
    connection; `doubt` does the same for a key that opened nothing.
    """

    def __init__(
        self,
        service: KmsService,
        known: Sequence[KeySource] = (),
        *,
        sleep: Callable[[float], None] = signals.sleep,
    ) -> None:
        self._service = service
        self._known = tuple(known)
        self._sleep = sleep
        self._answers: dict[bytes, bytes | KmsError] = {}
        self._doubted: set[bytes] = set()
        self._lock = threading.Lock()

    @property
    def failures(self) -> tuple[KmsError, ...]:
        """What went wrong so far, one error per source."""
        return tuple(answer for answer in self._answers.values() if isinstance(answer, KmsError))

    def candidates(self, source: WrappedSource) -> Sequence[bytes]:
        """Return the known keys of `source`, or what the service unwraps. Raises UnwrapFailed."""
        for known in self._known:
            try:
                return known.candidates(source)
            except UnwrapFailed:
                continue
        with self._lock:
            answer = self._answers.get(source.cache_key)
            if answer is None:
                answer = self._ask(source)
                if isinstance(answer, KmsError) and answer.category not in (
                    Category.UNREACHABLE,
                    Category.SOCKET_PERMISSION,
                ):
                    answer = self._ask_again(source)
                self._answers[source.cache_key] = answer
        if isinstance(answer, KmsError):
            raise UnwrapFailed(source.provider, answer.category, answer) from answer
        return (answer,)

    def doubt(self, source: WrappedSource) -> bool:
        """Ask once more for a key that opened nothing. Returns whether another answer came."""
        with self._lock:
            before = self._answers.get(source.cache_key)
            if not isinstance(before, bytes) or source.cache_key in self._doubted:
                return False
            self._doubted.add(source.cache_key)
            answer = self._ask_again(source)
            if answer == before or isinstance(answer, KmsError):
                return False
            self._answers[source.cache_key] = answer
            return True

    def _ask(self, source: WrappedSource) -> bytes | KmsError:
        try:
            return self._service.unwrap(source)
        except KmsError as error:
            return error

    def _ask_again(self, source: WrappedSource) -> bytes | KmsError:
        self._service.close()
        self._sleep(1.0)
        return self._ask(source)


def key_size_problem(source: WrappedSource, key: bytes) -> Reason | None:
    """Return why unwrapped bytes cannot be the key of `source`, judged by their length alone."""
    if source.source_type is SourceType.HKDF_SEED:
        return None if len(key) >= SEED_BYTES else Reason.KMSV2_SEED_TOO_SHORT
    return None if len(key) in DEK_SIZES else Reason.DEK_BAD_SIZE


def derive_key(seed: bytes, info: bytes) -> bytes:
    """HKDF-Expand (RFC 5869) to one block: SHA-256, no extract step. `seed`: 32 bytes or more. Returns 32 bytes."""
    return hmac.digest(seed, info + b"\x01", "sha256")


@dataclass(frozen=True, slots=True)
class WriteKey:
    """A key for sealing, with its wrapping, made by a round trip through the service: it is known to come back."""

    source: WrappedSource
    key: bytes = field(repr=False)


class WriteKeys(Protocol):
    """Where the v1 writer gets the key for the next value."""

    def pick(self, nonce: bytes) -> WriteKey:
        """Return the key for a value that will have this (random) nonce. May raise KmsError."""


@dataclass(frozen=True, slots=True)
class SharedWriteKeys:
    """One data key for about a million values, where kube-apiserver makes one for each.

    With several keys the nonce chooses, so that workers need not agree on a counter and equal randomness gives equal
    bytes; the keys' shares differ by chance alone. Source: docs/formats/kms.md, "How many calls".
    """

    keys: tuple[WriteKey, ...]

    def pick(self, nonce: bytes) -> WriteKey:
        """Return the only key, or the one that the nonce points to."""
        return self.keys[int.from_bytes(nonce[:8], "big") % len(self.keys)]


@dataclass(frozen=True, slots=True)
class KmsV1Provider:
    """KMS v1. Authenticates the context in AES-GCM bodies (1.25 and newer), nothing in AES-CBC bodies (older).

    `plausible` makes the CBC fallback safe: an answer that does not look like an object, or whose padding is longer
    than a block, is refused. Without it the reader does exactly what kube-apiserver does, lucky garbage included.
    """

    name: str
    keys: KeySource = field(repr=False)
    write: WriteKeys | None = field(default=None, repr=False)
    plausible: Plausible | None = field(default=None, repr=False)

    @property
    def kind(self) -> Kind:
        """KMS v1."""
        return Kind.KMS_V1

    @property
    def prefix(self) -> bytes:
        """`k8s:enc:kms:v1:NAME:`. NAME may hold colons, so this prefix is matched, and nothing is split."""
        return Api.V1.prefix + self.name.encode() + b":"

    @property
    def write_key(self) -> str:
        """The provider's name."""
        return self.name

    def unseal(self, payload: bytes, context: bytes) -> Opened:
        """Open a v1 value: GCM, then CBC; a CBC value is stale. Raises KeyDoesNotFit, with both codes if both fail."""
        envelope = decode_v1(self.name, payload)
        keys = self.keys.candidates(envelope.source)
        for key in keys:
            if key_size_problem(envelope.source, key) is not None:
                raise KeyDoesNotFit(Reason.DEK_BAD_SIZE, detail=f"the unwrapped DEK has {counted(len(key), 'byte')}")
        if len(envelope.body) == 16:
            # An IV and no block. kube-apiserver's CBC reader indexes an empty slice here; too short for GCM either way.
            raise KeyDoesNotFit(Reason.NO_CIPHER_BLOCK)
        refused: list[Reason] = []
        for key in keys:
            try:
                return Opened(open_gcm(key, envelope.body, context), stale=False, key_name=self.name)
            except KeyDoesNotFit as error:
                refused += error.reasons
        for key in keys:
            try:
                return Opened(self._open_cbc(key, envelope.body), stale=True, key_name=self.name)
            except KeyDoesNotFit as error:
                refused += error.reasons
        raise KeyDoesNotFit(*dict.fromkeys(refused))

    def _open_cbc(self, key: bytes, body: bytes) -> bytes:
        plaintext = open_cbc(key, body)
        if self.plausible is not None:
            padding = len(body) - 16 - len(plaintext)
            if padding > 16 or not is_proved(plaintext, self.plausible):
                raise KeyDoesNotFit(Reason.DOUBTFUL_PLAINTEXT)
        return plaintext

    def seal(self, plaintext: bytes, context: bytes, entropy: Entropy) -> bytes:
        """Seal as kube-apiserver 1.25 and newer: AES-GCM, 12 random bytes of nonce. Raises NoWriteKey, KmsError."""
        if self.write is None:
            raise NoWriteKey(f"KMS provider {self.name!r} has no key to write with")
        nonce = entropy(NONCE_BYTES)
        chosen = self.write.pick(nonce)
        body = nonce + seal_gcm(chosen.key, plaintext, context, nonce)
        return encode_envelope(Envelope(chosen.source, body))


@dataclass(frozen=True, slots=True)
class KmsV2Provider:
    """KMS v2. Authenticates the context in every body.

    `current_key_id` is the plugin's present key id, if it is known: values under another one are stale. Values of
    another source type than today's writer uses are stale in any case. kube-apiserver refuses to read before its plugin
    was healthy once (kmsv2_no_state); a reader of files has no such state, and drops that rule on the spec's advice.
    """

    name: str
    keys: KeySource = field(repr=False)
    write: WriteKey | None = field(default=None, repr=False)
    current_key_id: str = field(default="", repr=False)
    current_type: SourceType = SourceType.HKDF_SEED

    @property
    def kind(self) -> Kind:
        """KMS v2."""
        return Kind.KMS_V2

    @property
    def prefix(self) -> bytes:
        """`k8s:enc:kms:v2:NAME:`."""
        return Api.V2.prefix + self.name.encode() + b":"

    @property
    def write_key(self) -> str:
        """The provider's name."""
        return self.name

    def unseal(self, payload: bytes, context: bytes) -> Opened:
        """Open a v2 value. Raises KeyDoesNotFit."""
        envelope = decode_v2(self.name, payload)
        source = envelope.source
        current = self.current_key_id or (self.write.source.key_id if self.write else "")
        stale = source.source_type is not self.current_type or (bool(current) and source.key_id != current)
        keys = self.keys.candidates(source)
        for position, key in enumerate(keys, start=1):
            try:
                return Opened(open_body(source, key, envelope.body, context), stale=stale, key_name=self.name)
            except KeyDoesNotFit:
                if position == len(keys):
                    raise
        raise UnwrapFailed(self.name, Category.NOT_ASKED)

    def seal(self, plaintext: bytes, context: bytes, entropy: Entropy) -> bytes:
        """Seal as kube-apiserver 1.29 and newer: a key of its own, derived from the seed. Raises NoWriteKey.

        Takes 32 random bytes (info) and then 12 (nonce).
        """
        if self.write is None:
            raise NoWriteKey(f"KMS provider {self.name!r} has no seed to write with")
        if not context:
            raise NoWriteKey(f"KMS provider {self.name!r} cannot seal a value without an etcd key")
        info = entropy(INFO_BYTES)
        nonce = entropy(NONCE_BYTES)
        sealed = seal_gcm(derive_key(self.write.key, info), plaintext, context, nonce)
        return encode_envelope(Envelope(self.write.source, info + nonce + sealed))


def open_body(source: WrappedSource, key: bytes, body: bytes, context: bytes) -> bytes:
    """Open an authenticated body with the unwrapped key of its source. Raises KeyDoesNotFit.

    For v1 this is the GCM body alone; whoever has an old CBC body gets gcm_auth or too_short.
    """
    problem = key_size_problem(source, key)
    if problem is not None:
        raise KeyDoesNotFit(problem, detail=f"the unwrapped key has {counted(len(key), 'byte')}")
    if source.source_type is SourceType.AES_GCM_KEY:
        return open_gcm(key, body, context)
    if not context:
        # kube-apiserver panics on an empty context here (encrypt/aes/cache.go); nothing it wrote can need one.
        raise KeyDoesNotFit(Reason.GCM_AUTH, detail="there is no etcd key to authenticate")
    # A body without a whole info and nonce leaves less than a nonce behind the slice: too_short.
    return open_gcm(derive_key(key, body[:INFO_BYTES]), body[INFO_BYTES:], context)
