"""KMS envelopes, versions 1 and 2: a data key wrapped by a key service, stored beside what it encrypts.

Theory of operation. A value under a KMS provider carries its own data key (DEK), or the seed of one, wrapped by a
plugin that only the cluster's operator can reach. Two layouts exist::

    v1   length(2, big-endian) || wrapped DEK || body         body: AES-GCM (1.25 and newer) or AES-CBC (older)
    v2   protobuf EncryptedObject                             body: AES-GCM under the DEK, or under a key derived
                                                              from a seed and 32 random bytes that stand before it

Opening takes three steps: parse the envelope (`decode_v1`, `decode_v2`: no key, no call), get the unwrapped key of its
`WrappedSource`, open the body. Only the second step needs the outside world, so it is an argument: a `KeySource`.
`UnwrappedKeys` holds keys that were unwrapped beforehand and is all that a worker process ever gets; `AskingKeys` asks
a `KmsService` when a key is first needed, for jobs that read a handful of values. What a source is identified by, its
`cache_key`, is the tuple that kube-apiserver caches by, so one call here is one call there.

The context (the etcd key) is authenticated by every body except v1's old AES-CBC, which authenticates nothing: the v1
reader tries GCM and falls back to CBC as kube-apiserver does, and where a `plausible` function is given, it accepts a
CBC answer only with honest padding and a plaintext that looks like an object.

This module knows no socket, no file and no configuration. Nothing in it prints a key, a wrapped key or a plaintext.

Source: docs/formats/kms.md, "KMS v1 values", "KMS v2 values" and "Limits of answers"; kubernetes/apiserver
pkg/storage/value/encrypt/envelope/{envelope.go,kmsv2/envelope.go} and encrypt/aes (release-1.34).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import struct
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import Final, Protocol, runtime_checkable

from snaptool import signals, wire
from snaptool.errors import KeyServiceError, ProviderError
from snaptool.providers.provider import Entropy, KeyDoesNotFit, Kind, Opened, Plausible, Reason
from snaptool.providers.symmetric import open_cbc, open_gcm, seal_gcm

SEED_BYTES: Final = 32
INFO_BYTES: Final = 32
NONCE_BYTES: Final = 12
DEK_SIZES: Final = (16, 24, 32)
MAX_KEY_ID_BYTES: Final = 1024  # kmsv2/envelope.go: keyIDMaxSize
MAX_SOURCE_BYTES: Final = 1024  # kmsv2/envelope.go: encryptedDEKSourceMaxSize
MAX_ANNOTATION_BYTES: Final = 32 * 1024  # kmsv2/envelope.go: annotationsMaxSize
MAX_V1_SOURCE_BYTES: Final = 0xFFFF  # the length prefix has 16 bits
OBJECTS_PER_V1_DEK: Final = 1 << 20  # ours: AES-GCM with random nonces would allow 2^32
_REMEMBERED_TAIL_BYTES: Final = 4096  # bounds the memory of decode_v2; real plugins stay below 1 KiB
_DATA, _KEY_ID, _SOURCE, _ANNOTATIONS, _TYPE = 1, 2, 3, 4, 5
_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")


class Api(StrEnum):
    """The two KMS APIs, by the names of `apiVersion` in EncryptionConfiguration."""

    V1 = "v1"
    V2 = "v2"

    @property
    def prefix(self) -> bytes:
        """What values of every provider of this API begin with; the provider's name and a colon follow."""
        return b"k8s:enc:kms:v1:" if self is Api.V1 else b"k8s:enc:kms:v2:"


class SourceType(IntEnum):
    """What the unwrapped bytes are: EncryptedDEKSourceType of kmsv2/v2/api.proto."""

    AES_GCM_KEY = 0
    HKDF_SEED = 1


class Category(StrEnum):
    """Why a key service did not deliver: docs/formats/kms.md, "Failures", and five of our own."""

    UNREACHABLE = "unreachable"
    SOCKET_PERMISSION = "socket_permission"
    NOT_A_PLUGIN = "not_a_plugin"
    WRONG_API = "wrong_api"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    """The service is there, and says that it cannot serve now, or ends the connection."""
    KEY_DISABLED = "key_disabled"
    KEY_UNKNOWN = "key_unknown"
    ACCESS_DENIED = "access_denied"
    BAD_CIPHERTEXT = "bad_ciphertext"
    THROTTLED = "throttled"
    UNHEALTHY = "unhealthy"
    BAD_ANSWER = "bad_answer"
    OTHER = "other"
    NOT_ASKED = "not_asked"
    """Given up before this source's turn, because every source before it failed."""


class KmsError(KeyServiceError):
    """A key service did not do what it was asked.

    `detail`: its status code and those of its words that cannot carry a secret.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        category: Category,
        detail: str = "",
        attempts: int = 1,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.provider = provider
        self.category = category
        self.detail = detail
        self.attempts = attempts

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} (tried {self.attempts} times)" if self.attempts > 1 else message


def _restored(kind: type[Exception], args: tuple[object, ...], state: Mapping[str, object]) -> Exception:
    """Rebuild an error in another process: pickle's own way calls `__init__` with the message alone."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class KmsUnreachable(KmsError):
    """No plugin answered in time: no socket, no permission, nothing there that speaks this API."""


class KmsRefused(KmsError):
    """The plugin answered that it does not want to, or cannot, do this."""


class KmsAnsweredWrongly(KmsError):
    """The plugin answered something that must not be used."""


class NoWriteKey(ProviderError):
    """A KMS provider was asked to seal, and no data key was made for it."""


class UnwrapFailed(KeyDoesNotFit):
    """The key of an envelope is not to be had. `category` says why; `failure`: the service's error, if it was asked."""

    def __init__(self, provider: str, category: Category, failure: KmsError | None = None) -> None:
        super().__init__(Reason.KMS_UNWRAP_FAILED, detail=f"KMS provider {provider!r} gave no key: {category}")
        self.provider = provider
        self.category = category
        self.failure = failure

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args, self.__dict__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedSource:
    """What a plugin is asked to unwrap: a wrapped DEK (v1) or encryptedDEKSource (v2), with all that goes with it.

    `annotations` are sorted by key, and empty for v1, as is `key_id`. v1 has no type; its keys are AES_GCM_KEYs.
    `cache_key` is SHA-256 of the tuple that kube-apiserver caches by (v1: of the wrapped DEK).
    """

    provider: str
    api: Api
    source_type: SourceType
    source: bytes = field(repr=False)
    key_id: str = field(default="", repr=False)
    annotations: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    cache_key: bytes = field(init=False)

    def __post_init__(self) -> None:
        preimage = self.source if self.api is Api.V1 else self.cache_preimage()
        object.__setattr__(self, "cache_key", hashlib.sha256(preimage).digest())

    def cache_preimage(self) -> bytes:
        """Return the bytes whose SHA-256 is the cache key of v2. Source: kmsv2/envelope.go, generateCacheKey."""
        key_id = self.key_id.encode()
        parts = [struct.pack(">I", self.source_type), _prefixed(self.source), _prefixed(key_id)]
        if self.annotations:
            parts.append(struct.pack(">I", len(self.annotations)))
            for key, value in self.annotations:
                parts += [_prefixed(key.encode()), _prefixed(value)]
        return b"".join(parts)

    @property
    def source_digest(self) -> bytes:
        """SHA-256 of the wrapped bytes alone: what files of saved keys name a source by."""
        return hashlib.sha256(self.source).digest()

    @property
    def key_id_hash(self) -> str:
        """The key id as kube-apiserver logs it; empty for v1."""
        return hash_key_id(self.key_id)


def hash_key_id(key_id: str) -> str:
    """Return `sha256:` and hex, the form in which key ids may be shown; empty stays empty."""
    return "sha256:" + hashlib.sha256(key_id.encode()).hexdigest() if key_id else ""


def _prefixed(value: bytes) -> bytes:
    # No source within its limits needs the cut; one beyond them gets this far only to be refused.
    return struct.pack(">H", min(len(value), 0xFFFF)) + value


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed value: what to unwrap, and the body that the unwrapped key opens. No key was needed to get here."""

    source: WrappedSource
    body: bytes = field(repr=False)


def decode_envelope(api: Api, provider: str, payload: bytes) -> Envelope:
    """Parse what follows a KMS provider's prefix, with every check that comes before a plugin call.

    Raises KeyDoesNotFit with the reason codes of docs/formats/kms.md, "KMS v1 values" and "KMS v2 values", in their
    order.
    """
    return decode_v1(provider, payload) if api is Api.V1 else decode_v2(provider, payload)


def encode_envelope(envelope: Envelope) -> bytes:
    """Print an envelope back: for v2 in the field order of kube-apiserver, annotations by key."""
    if envelope.source.api is Api.V1:
        return _encode_v1(envelope)
    return wire.encode_field(_DATA, envelope.body) + _encode_tail(envelope.source)


def _encode_v1(envelope: Envelope) -> bytes:
    wrapped = envelope.source.source
    if len(wrapped) > MAX_V1_SOURCE_BYTES:
        raise KeyDoesNotFit(Reason.KMSV1_BAD_LENGTH, detail=f"a wrapped DEK of {len(wrapped)} bytes does not fit")
    return struct.pack(">H", len(wrapped)) + wrapped + envelope.body


def decode_v1(provider: str, payload: bytes) -> Envelope:
    """Take a v1 envelope apart. Raises KeyDoesNotFit (kmsv1_bad_length)."""
    end = 2 + int.from_bytes(payload[:2], "big")
    if end > len(payload):  # also when the length itself is cut off
        raise KeyDoesNotFit(Reason.KMSV1_BAD_LENGTH)
    source = WrappedSource(
        provider=provider, api=Api.V1, source_type=SourceType.AES_GCM_KEY, source=bytes(payload[2:end])
    )
    return Envelope(source, bytes(payload[end:]))


def decode_v2(provider: str, payload: bytes) -> Envelope:
    """Parse and check an EncryptedObject. Raises KeyDoesNotFit (kmsv2_bad_proto and the five checks after it).

    Every value under one seed ends in the same bytes, everything but field 1, so that tail is parsed once and looked
    up afterwards. A message laid out in any other way takes the long road; both accept and refuse the same.
    """
    payload = bytes(payload)
    if payload[:1] == b"\x0a":
        try:
            length, start = wire.read_varint(payload, 1)
        except wire.BadMessage as error:
            raise KeyDoesNotFit(Reason.KMSV2_BAD_PROTO, detail=str(error)) from error
        end = start + length
        if start < end <= len(payload) <= end + _REMEMBERED_TAIL_BYTES:
            source = _source_of_tail(provider, payload[end:])
            if source is not None:
                return Envelope(source, payload[start:end])
    members = _parse(payload)
    body = members.encrypted_data or b""
    return Envelope(_checked(provider, members, body), body)


@dataclass(frozen=True, slots=True)
class _Members:
    """An EncryptedObject before any check. `source_type`: the raw number; `encrypted_data`: None if it is not there."""

    encrypted_data: bytes | None
    key_id: str
    source: bytes
    annotations: Mapping[str, bytes]
    source_type: int


@lru_cache(maxsize=1024)
def _source_of_tail(provider: str, tail: bytes) -> WrappedSource | None:
    """Return the source of a message whose field 1 came first and was not empty; None if only the long road can say."""
    try:
        members = _parse(tail)
        # A second field 1, even an empty one, wins over the first.
        return None if members.encrypted_data is not None else _checked(provider, members, b"\x00")
    except KeyDoesNotFit:
        return None


def _parse(message: bytes) -> _Members:
    encrypted_data: bytes | None = None
    source = b""
    key_id = ""
    annotations: dict[str, bytes] = {}
    source_type = 0
    try:
        for item in wire.fields(message):
            number, value = item.number, item.value
            if isinstance(value, int):
                if number == _TYPE and item.wire_type == wire.VARINT:
                    source_type = value & 0xFFFFFFFF  # an enum is an int32; of its values, only 0 and 1 pass
            elif item.wire_type != wire.BYTES:
                continue  # protobuf: a known number with another wire type is an unknown field
            elif number == _DATA:
                encrypted_data = value
            elif number == _KEY_ID:
                key_id = value.decode()
            elif number == _SOURCE:
                source = value
            elif number == _ANNOTATIONS:
                key, content = decode_map_entry(value)
                annotations[key] = content
    except (wire.BadMessage, UnicodeDecodeError) as error:
        raise KeyDoesNotFit(Reason.KMSV2_BAD_PROTO, detail=f"not an EncryptedObject: {_place(error)}") from error
    return _Members(encrypted_data, key_id, source, annotations, source_type)


def _place(error: wire.BadMessage | UnicodeDecodeError) -> str:
    # UnicodeDecodeError would print the bytes it choked on.
    return error.problem if isinstance(error, wire.BadMessage) else "a string is not UTF-8"


def decode_map_entry(entry: bytes) -> tuple[str, bytes]:
    """Decode one entry of a map<string, bytes>. Raises wire.BadMessage or UnicodeDecodeError."""
    key, content = "", b""
    for item in wire.fields(entry):
        if item.wire_type == wire.BYTES and isinstance(item.value, bytes):
            if item.number == 1:
                key = item.value.decode()
            elif item.number == 2:
                content = item.value
    return key, content


def encode_map_entry(key: str, value: bytes) -> bytes:
    """Encode one entry of a map<string, bytes>; both members are always written, as protobuf's runtimes do."""
    return wire.encode_field(1, key.encode()) + wire.encode_field(2, value)


def _checked(provider: str, members: _Members, encrypted_data: bytes) -> WrappedSource:
    """Make the checks of kmsv2/envelope.go, validateEncryptedObject, in its order."""
    if members.source_type not in (SourceType.AES_GCM_KEY, SourceType.HKDF_SEED):
        raise KeyDoesNotFit(
            Reason.KMSV2_BAD_SOURCE_TYPE, detail=f"encryptedDEKSourceType {members.source_type} is not known"
        )
    if not encrypted_data:
        raise KeyDoesNotFit(Reason.KMSV2_NO_DATA)
    source = WrappedSource(
        provider=provider,
        api=Api.V2,
        source_type=SourceType(members.source_type),
        source=members.source,
        key_id=members.key_id,
        annotations=tuple(sorted(members.annotations.items())),
    )
    problem = source_problem(source)
    if problem is not None:
        raise KeyDoesNotFit(problem)
    return source


def source_problem(source: WrappedSource) -> Reason | None:
    """Return the first limit that a v2 source breaks; it holds for stored values and for answers.

    Source: docs/formats/kms.md, "KMS v2 values".
    """
    if not 0 < len(source.source) <= MAX_SOURCE_BYTES:
        return Reason.KMSV2_BAD_DEK_SOURCE
    if key_id_problem(source.key_id):
        return Reason.KMSV2_BAD_KEY_ID
    total = sum(len(key.encode()) + len(value) for key, value in source.annotations)
    if total > MAX_ANNOTATION_BYTES or not all(is_annotation_key(key) for key, _ in source.annotations):
        return Reason.KMSV2_BAD_ANNOTATIONS
    return None


def key_id_problem(key_id: str) -> bool:
    """Is the key id empty, or too long to be stored?"""
    return not 0 < len(key_id.encode()) <= MAX_KEY_ID_BYTES


def is_annotation_key(key: str) -> bool:
    """Is this a fully qualified domain name as apimachinery's validation.IsFullyQualifiedDomainName takes it?"""
    name = key.removesuffix(".")
    return len(name) <= 253 and _DOMAIN.fullmatch(name) is not None


@lru_cache(maxsize=1024)
def _encode_tail(source: WrappedSource) -> bytes:
    """Encode fields 2 to 5 of an EncryptedObject. proto3: empty and zero members are not written."""
    parts = [wire.encode_field(_KEY_ID, source.key_id.encode())] if source.key_id else []
    if source.source:
        parts.append(wire.encode_field(_SOURCE, source.source))
    parts += [wire.encode_field(_ANNOTATIONS, encode_map_entry(*entry)) for entry in source.annotations]
    if source.source_type:
        parts.append(wire.encode_field(_TYPE, int(source.source_type)))
    return b"".join(parts)


def reveals(text: bytes, secret: bytes) -> bool:
    """Does `text` hold `secret` as it is, in hex or in base64 (either alphabet, at any of the three alignments)?

    Backwards too, and whatever stands between hex digits. Asked of what a plugin returns for a fresh key.
    """
    if len(secret) < 8:  # shorter ones turn up by chance
        return False
    digits = re.sub(rb"(?:0x|[^0-9a-f])+", b"", text.lower())
    return any(_reveals(text, digits, one) for one in (secret, secret[::-1]))


def _reveals(text: bytes, digits: bytes, secret: bytes) -> bool:
    if secret in text or secret.hex().encode() in digits:
        return True
    unified = text.translate(bytes.maketrans(b"-_", b"+/"))
    for lead in range(3):
        # What comes before and after decides the first and last characters: leave those out.
        coded = base64.b64encode(bytes(lead) + secret)[(lead * 8 + 5) // 6 :]
        if coded[: len(secret) * 8 // 6 - 1] in unified:
            return True
    return False


def rewrap(payload: bytes, old: WrappedSource, new: WrappedSource) -> bytes:
    """Put another wrapping of the same key into a stored payload; every other byte stays.

    v1: length and wrapped DEK are replaced. v2: the members keyID, encryptedDEKSource and annotations are; they go
    where the first of them stood, and encryptedData, the type and unknown fields keep their bytes and order.
    `payload` must have been parsed before, into `old`. Raises KeyDoesNotFit if it is not an envelope at all.
    """
    if new.api is not old.api or new.source_type is not old.source_type:
        raise ValueError("a wrapping can only be replaced by one of the same API and type")
    if old.api is Api.V1:
        return _encode_v1(Envelope(new, decode_v1(old.provider, payload).body))
    payload = bytes(payload)
    wrapping = _encode_tail(
        WrappedSource(
            provider=new.provider,
            api=new.api,
            source_type=SourceType.AES_GCM_KEY,  # zero is not written: the stored type field stays where it is
            source=new.source,
            key_id=new.key_id,
            annotations=new.annotations,
        )
    )
    kept: list[bytes] = []
    placed = False
    try:
        for item in wire.fields(payload):
            if item.wire_type == wire.BYTES and item.number in (_KEY_ID, _SOURCE, _ANNOTATIONS):
                if not placed:
                    kept.append(wrapping)
                    placed = True
            else:
                kept.append(payload[item.start : item.end])
    except wire.BadMessage as error:
        raise KeyDoesNotFit(Reason.KMSV2_BAD_PROTO, detail=str(error)) from error
    return b"".join(kept)


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """What a plugin says about itself. `problems`: why kube-apiserver 1.29 and newer would not write through it."""

    version: str
    healthz: str
    key_id: str
    problems: tuple[str, ...] = ()


class KmsService(Protocol):
    """A key service: three questions, and an end. The gRPC client is this, and whatever else unwraps keys.

    All raise KmsError, and KmsError alone, when the service does not deliver; its category decides who asks again and
    when asking ends. Retries of what may pass by itself are the service's own business. Calls may come from several
    threads. Nothing here is believed at once: see `kms_unwrapping`.
    """

    @property
    def provider(self) -> str:
        """The provider's name in the configuration."""

    @property
    def api(self) -> Api:
        """Which KMS API this is."""

    def unwrap(self, source: WrappedSource) -> bytes:
        """Return the key that `source` wraps, unchecked: the caller judges its length and what it opens."""

    def wrap(self, key: bytes) -> WrappedSource:
        """Wrap a fresh key, or seed for v2. The answer is unchecked as well."""

    def status(self) -> ServiceStatus:
        """Ask how the service is. v1 has no such question; there, the protocol version is checked."""

    def close(self) -> None:
        """End outstanding calls and give up the connection. May be called twice."""


@runtime_checkable
class AsksForMany(Protocol):
    """What a KmsService may do besides: ask for many keys in one call, of which `unwrap` then hands each out once."""

    BATCH: int
    """How many at most."""

    def prepare(self, sources: Sequence[WrappedSource]) -> None:
        """Ask ahead. What fails is said by `unwrap`, which asks by itself for what is not here."""


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
                raise KeyDoesNotFit(Reason.DEK_BAD_SIZE, detail=f"the unwrapped DEK has {len(key)} bytes")
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
            if padding > 16 or not self.plausible(plaintext):
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
        raise KeyDoesNotFit(problem, detail=f"the unwrapped key has {len(key)} bytes")
    if source.source_type is SourceType.AES_GCM_KEY:
        return open_gcm(key, body, context)
    if not context:
        # kube-apiserver panics on an empty context here (encrypt/aes/cache.go); nothing it wrote can need one.
        raise KeyDoesNotFit(Reason.GCM_AUTH, detail="there is no etcd key to authenticate")
    # A body without a whole info and nonce leaves less than a nonce behind the slice: too_short.
    return open_gcm(derive_key(key, body[:INFO_BYTES]), body[INFO_BYTES:], context)
