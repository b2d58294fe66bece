"""The layouts in which a data key, wrapped by a key service, stands beside what it encrypts: KMS versions 1 and 2.

Two layouts exist::

    v1   length(2, big-endian) || wrapped DEK || body         body: AES-GCM (1.25 and newer) or AES-CBC (older)
    v2   protobuf EncryptedObject                             body: AES-GCM under the DEK, or under a key derived
                                                              from a seed and 32 random bytes that stand before it

Parsing takes no key and makes no call. What a source is identified by, its `cache_key`, is the tuple that
kube-apiserver caches by, so one call here is one call there.

Source: docs/formats/kms.md, "KMS v1 values", "KMS v2 values" and "Limits of answers"; kubernetes/apiserver
pkg/storage/value/encrypt/envelope/{envelope.go,kmsv2/envelope.go} (release-1.34).
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Final

from snaptool import wire
from snaptool.providers.provider import Api, KeyDoesNotFit, Reason

SEED_BYTES: Final = 32
INFO_BYTES: Final = 32
NONCE_BYTES: Final = 12
DEK_SIZES: Final = (16, 24, 32)
MAX_KEY_ID_BYTES: Final = 1024  # kmsv2/envelope.go: keyIDMaxSize
MAX_SOURCE_BYTES: Final = 1024  # kmsv2/envelope.go: encryptedDEKSourceMaxSize
MAX_ANNOTATION_BYTES: Final = 32 * 1024  # kmsv2/envelope.go: annotationsMaxSize
MAX_V1_SOURCE_BYTES: Final = 0xFFFF  # the length prefix has 16 bits
_REMEMBERED_TAIL_BYTES: Final = 4096  # bounds the memory of decode_v2; real plugins stay below 1 KiB
_DATA, _KEY_ID, _SOURCE, _ANNOTATIONS, _TYPE = 1, 2, 3, 4, 5
_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")


class SourceType(IntEnum):
    """What the unwrapped bytes are: EncryptedDEKSourceType of kmsv2/v2/api.proto."""

    AES_GCM_KEY = 0
    HKDF_SEED = 1


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
