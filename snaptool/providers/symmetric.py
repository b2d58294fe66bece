"""The local providers: identity, aescbc, aesgcm, secretbox.

Each is one entry of a chain with its keys in order; the payload it sees begins with the key's name and a colon. Reading
tries every key whose name matches, in order, as kube-apiserver does: a name may stand for two keys, and `a` also
matches what `a:b` wrote. Writing takes the first key.

What a provider proves differs, and callers must know it: aesgcm authenticates the context (the etcd key), secretbox
only the value itself, aescbc nothing at all: a wrong key is noticed by its padding alone, so that one wrong read in
256 returns garbage. Hence `plausible`.

Source: kubernetes/apiserver pkg/storage/value/encrypt/{identity,aes,secretbox} (24a394e51); docs/formats/encryption.md,
"Headers".
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING

from snaptool.providers.provider import (
    Entropies,
    Entropy,
    KeyDoesNotFit,
    Kind,
    Opened,
    Plausible,
    Reason,
    SureOfMany,
)
from snaptool.providers.values import Sealed, Values

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

RESERVED_PREFIX = b"k8s:enc:"
CBC_IV_SIZE = BLOCK_SIZE = 16
GCM_NONCE_SIZE = 12
SECRETBOX_NONCE_SIZE = 24
TAG_SIZE = 16  # of both that authenticate
SECRETBOX_OVERHEAD = SECRETBOX_NONCE_SIZE + TAG_SIZE
_PREFIXES = {kind: RESERVED_PREFIX + kind.encode() + b":v1:" for kind in (Kind.AESCBC, Kind.AESGCM, Kind.SECRETBOX)}


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a local provider. `marker`: its name and a colon, which stand in front of what it sealed."""

    name: str
    secret: bytes = field(repr=False)
    marker: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "marker", self.name.encode() + b":")


@dataclass(frozen=True, slots=True)
class Identity:
    """Plaintext. Refuses what begins like an encrypted value, so that "plain" is checked and never assumed."""

    @property
    def kind(self) -> Kind:
        """Identity."""
        return Kind.IDENTITY

    @property
    def prefix(self) -> bytes:
        """Nothing stands in front."""
        return b""

    @property
    def write_key(self) -> str:
        """There is no key."""
        return ""

    def unseal(self, payload: bytes, context: bytes) -> Opened:
        """Return the bytes as they are. Ignores `context`. Raises KeyDoesNotFit for `k8s:enc:`."""
        del context
        if payload.startswith(RESERVED_PREFIX):
            raise KeyDoesNotFit(Reason.IDENTITY_ENCRYPTED)
        return Opened(payload, stale=False, key_name="")

    def seal(self, plaintext: bytes, context: bytes, entropy: Entropy) -> bytes:
        """Return the bytes as they are."""
        del context, entropy
        return plaintext


@dataclass(frozen=True, slots=True)
class LocalProvider:
    """aescbc, aesgcm or secretbox with its keys, the first of which writes."""

    kind: Kind
    keys: tuple[Key, ...]
    plausible: Plausible | None = field(default=None, repr=False)

    @property
    def prefix(self) -> bytes:
        """`k8s:enc:aescbc:v1:` and the like; key names are matched behind it."""
        return _PREFIXES[self.kind]

    @property
    def write_key(self) -> str:
        """The first key's name."""
        return self.keys[0].name

    def unseal(self, payload: bytes, context: bytes) -> Opened:
        """Try the keys whose name stands in front of `payload`, in order. Raises KeyDoesNotFit with all their reasons.

        An implausible plaintext is passed over for a later key's plausible one, and else returned as doubtful.
        """
        read = _READERS[self.kind]
        reasons: list[Reason] = []
        doubtful: Opened | None = None
        for index, key in enumerate(self.keys):
            if not payload.startswith(key.marker):
                continue
            try:
                plaintext = read(key.secret, payload[len(key.marker) :], context)
            except KeyDoesNotFit as error:
                reasons += error.reasons
                continue
            if self.kind is Kind.AESCBC and not is_proved(plaintext, self.plausible):
                doubtful = doubtful or Opened(plaintext, index != 0, key.name, doubtful=True, key_index=index)
                continue
            return Opened(plaintext, index != 0, key.name, key_index=index)
        if doubtful is not None:
            return doubtful
        raise KeyDoesNotFit(*(dict.fromkeys(reasons) or (Reason.UNKNOWN_KEY_NAME,)))

    def unseal_headless(self, payload: bytes, context: bytes) -> Iterator[Opened]:
        """Yield what each key makes of a payload without a key's name in front; nothing is proved by it."""
        read = _READERS[self.kind]
        for index, key in enumerate(self.keys):
            try:
                plaintext = read(key.secret, payload, context)
            except KeyDoesNotFit:
                continue
            yield Opened(plaintext, stale=True, key_name=key.name, key_index=index)

    def shortcuts(self) -> tuple[tuple[bytes, OpenMany], ...]:
        """Return what every key's stored values begin with, prefix included, and how that key alone opens many."""
        open_many, plausible = _OPEN_MANY[self.kind], self.plausible
        one: object = plausible
        sure_of_many = one if isinstance(one, SureOfMany) else None
        headers = [self.prefix + key.marker for key in self.keys]
        return tuple(
            (header, partial(open_many, key.secret, len(header), (plausible, sure_of_many)))
            for header, key in zip(headers, self.keys, strict=True)
        )

    def seal(self, plaintext: bytes, context: bytes, entropy: Entropy) -> bytes:
        """Seal with the first key; takes as many random bytes as the algorithm has nonce."""
        key = self.keys[0]
        nonce = entropy(_NONCE_SIZES[self.kind])
        return key.marker + nonce + _WRITERS[self.kind](key.secret, plaintext, context, nonce)

    @property
    def growth(self) -> tuple[int, int]:
        """Bytes that stand around a plaintext once it is sealed, and the block that it is filled up to before."""
        header = len(self.prefix) + len(self.keys[0].marker) + _NONCE_SIZES[self.kind]
        return (header, BLOCK_SIZE) if self.kind is Kind.AESCBC else (header + TAG_SIZE, 1)

    def seal_many(self, values: Values, rows: memoryview, entropy: Entropies, sealed: Sealed) -> None:
        """Seal open values to whole stored ones, prefix included, as `seal` would.

        Of one source for all, AES-CBC does not take its IVs as they come: see `Sealed.seal_cbc`.
        """
        key, size = self.keys[0], _NONCE_SIZES[self.kind]
        if self.kind is Kind.AESCBC and not callable(entropy):
            for row, each in zip(rows, entropy, strict=True):
                sealed.put(row, self.prefix + self.seal(bytes(values.plaintext(row)), b"", each))
            return
        nonces = entropy(size * len(rows)) if callable(entropy) else b"".join([each(size) for each in entropy])
        _SEAL_MANY[self.kind](key.secret, self.prefix + key.marker, values, rows, nonces, sealed)


Judge = tuple[Plausible | None, SureOfMany | None]
"""Who says whether a plaintext is plausible; the same one, if it can say so of many."""

OpenMany = Callable[[Values, memoryview, int], None]
"""Opens those of some values, by row, that are to be opened by the key of a number; leaves closed what is in doubt."""


def open_cbc(key: bytes, payload: bytes) -> bytes:
    """Open IV(16) || ciphertext. Proves nothing about the result. Raises KeyDoesNotFit.

    The padding is checked as kube-apiserver does: it may be as long as all the data, where PKCS#7 stops at a block.
    """
    size = len(payload)
    if size <= CBC_IV_SIZE or size % BLOCK_SIZE:
        raise KeyDoesNotFit(_misfit(size))
    # The IV goes in as a block of its own: what comes out for it is nonsense, and all behind it is right.
    padded = _running.of_key(key).update(payload)
    padding = padded[-1]
    if not 0 < padding <= size - CBC_IV_SIZE:
        raise KeyDoesNotFit(Reason.CBC_PADDING_LENGTH)
    if not padded.endswith(_PADDINGS[padding]):
        raise KeyDoesNotFit(Reason.CBC_PADDING_BYTES)
    return padded[CBC_IV_SIZE:-padding]


def is_proved(plaintext: bytes, plausible: Plausible | None) -> bool:
    """Is this what the right key gives? Nothing behind a whole block of padding is: no other key gives such a block."""
    return not plaintext or plausible is None or plausible(plaintext)


def _misfit(size: int) -> Reason:
    if size < CBC_IV_SIZE:
        return Reason.TOO_SHORT
    return Reason.NOT_BLOCK_MULTIPLE if size % BLOCK_SIZE else Reason.NO_CIPHER_BLOCK


_PADDINGS = tuple(bytes((length,)) * length for length in range(256))


def _cbc(key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415 - who opens no value does not wait for it

    return Cipher(algorithms.AES(key), modes.CBC(iv))


def _started_decryptor(key: bytes) -> CipherContext:
    return _cbc(key, bytes(CBC_IV_SIZE)).decryptor()


class _RunningDecryptors(threading.local):
    """Decryptors that every value continues: a block depends on the one before it and on nothing else.

    Setting one up takes longer than decrypting an object. Each thread has its own: cryptography lets other threads run
    while it decrypts, and refuses a second one in the same decryptor.
    """

    def __init__(self) -> None:
        self.of_key = lru_cache(maxsize=64)(_started_decryptor)


_running = _RunningDecryptors()


def seal_gcm(key: bytes, plaintext: bytes, context: bytes, nonce: bytes) -> bytes:
    """Seal to ciphertext || tag(16) under a key that is used once."""
    return _gcm(key).encrypt(nonce, plaintext, context)


def open_gcm(key: bytes, payload: bytes, context: bytes) -> bytes:
    """Open nonce(12) || ciphertext || tag(16), with `context` authenticated. Raises KeyDoesNotFit."""
    return _open_gcm(_gcm(key), payload, context)


def _gcm(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - who opens no value does not wait for it

    return AESGCM(key)


def _open_gcm(cipher: AESGCM, payload: bytes, context: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - who opens no value does not wait for it

    if len(payload) < GCM_NONCE_SIZE:
        raise KeyDoesNotFit(Reason.TOO_SHORT)
    try:
        return cipher.decrypt(payload[:GCM_NONCE_SIZE], payload[GCM_NONCE_SIZE:], context)
    except InvalidTag as error:
        raise KeyDoesNotFit(Reason.GCM_AUTH) from error


# Keys of a configuration are few and used for every value; those of KMS values come once, and must not push them out.
_kept_gcm = lru_cache(maxsize=64)(_gcm)


def _open_gcm_with_kept_cipher(key: bytes, payload: bytes, context: bytes) -> bytes:
    return _open_gcm(_kept_gcm(key), payload, context)


def _open_secretbox(key: bytes, payload: bytes, context: bytes) -> bytes:
    from nacl.bindings import crypto_secretbox_open  # noqa: PLC0415 - who opens no value does not wait for it
    from nacl.exceptions import CryptoError  # noqa: PLC0415 - who opens no value does not wait for it

    del context
    if len(payload) < SECRETBOX_OVERHEAD:
        raise KeyDoesNotFit(Reason.TOO_SHORT)
    try:
        return crypto_secretbox_open(payload[SECRETBOX_NONCE_SIZE:], payload[:SECRETBOX_NONCE_SIZE], key)
    except CryptoError as error:
        raise KeyDoesNotFit(Reason.SECRETBOX_AUTH) from error


def _open_cbc_ignoring_context(key: bytes, payload: bytes, context: bytes) -> bytes:
    del context
    return open_cbc(key, payload)


def _seal_cbc(key: bytes, plaintext: bytes, context: bytes, iv: bytes) -> bytes:
    del context
    padding = _PADDINGS[BLOCK_SIZE - len(plaintext) % BLOCK_SIZE]
    return _cbc(key, iv).encryptor().update(plaintext + padding)


def _seal_gcm(key: bytes, plaintext: bytes, context: bytes, nonce: bytes) -> bytes:
    return _kept_gcm(key).encrypt(nonce, plaintext, context)


def _seal_secretbox(key: bytes, plaintext: bytes, context: bytes, nonce: bytes) -> bytes:
    from nacl.bindings import crypto_secretbox  # noqa: PLC0415 - who opens no value does not wait for it

    del context
    return crypto_secretbox(plaintext, nonce, key)


# What opens many values does no more for each than it must: what does not open at once goes the long way, which finds
# out why. Here that way would take three times as long as the ciphers do.


def _open_many_cbc(key: bytes, header_size: int, judge: Judge, values: Values, rows: memoryview, number: int) -> None:
    values.open_cbc(rows, number, header_size, _running.of_key(key).update_into)
    plausible, sure_of_many = judge
    if plausible is None:
        return
    opened = array("q", values.open_by(rows, number))
    sure = bytearray(max(opened, default=-1) + 1)
    if sure_of_many is not None:
        _, within, _, at, size = values.places()
        sure_of_many.mark(within, at, size, memoryview(opened), sure)
    for row in opened:
        if not sure[row] and not is_proved(bytes(values.plaintext(row)), plausible):
            values.close(row)


def _open_many_gcm(key: bytes, header_size: int, judge: Judge, values: Values, rows: memoryview, number: int) -> None:
    del judge
    values.open_gcm(rows, number, header_size, _kept_gcm(key))


def _open_many_secretbox(
    key: bytes, header_size: int, judge: Judge, values: Values, rows: memoryview, number: int
) -> None:
    del judge
    values.open_secretbox(rows, number, header_size, key, _in_libsodium("crypto_secretbox_open_easy"))


def _seal_many_cbc(key: bytes, header: bytes, values: Values, rows: memoryview, nonces: bytes, sealed: Sealed) -> None:
    sealed.seal_cbc(rows, values, header, nonces, _cbc(key, bytes(CBC_IV_SIZE)).encryptor().update_into)


def _seal_many_gcm(key: bytes, header: bytes, values: Values, rows: memoryview, nonces: bytes, sealed: Sealed) -> None:
    sealed.seal_gcm(rows, values, header, _kept_gcm(key), nonces)


def _seal_many_secretbox(
    key: bytes, header: bytes, values: Values, rows: memoryview, nonces: bytes, sealed: Sealed
) -> None:
    sealed.seal_secretbox(rows, values, header, key, nonces, _in_libsodium("crypto_secretbox_easy"))


@cache
def _in_libsodium(name: str) -> int:
    """Return the address of a function in the libsodium of PyNaCl, 0 where a PyNaCl does not let it be found."""
    try:
        from nacl._sodium import ffi, lib  # type: ignore[import-not-found]  # noqa: PLC0415 - private: here alone

        # Before, libsodium uses what every processor has: half as fast. Done once; asked again, it does nothing.
        lib.sodium_init()
        return int(ffi.cast("uintptr_t", ffi.addressof(lib, name)))
    except (ImportError, AttributeError, TypeError, ValueError):
        return 0


_READERS: dict[Kind, Callable[[bytes, bytes, bytes], bytes]] = {
    Kind.AESCBC: _open_cbc_ignoring_context,
    Kind.AESGCM: _open_gcm_with_kept_cipher,
    Kind.SECRETBOX: _open_secretbox,
}
_WRITERS: dict[Kind, Callable[[bytes, bytes, bytes, bytes], bytes]] = {
    Kind.AESCBC: _seal_cbc,
    Kind.AESGCM: _seal_gcm,
    Kind.SECRETBOX: _seal_secretbox,
}
"""Key, plaintext, context, nonce: what follows the nonce."""

_NONCE_SIZES = {Kind.AESCBC: CBC_IV_SIZE, Kind.AESGCM: GCM_NONCE_SIZE, Kind.SECRETBOX: SECRETBOX_NONCE_SIZE}
_OPEN_MANY: dict[Kind, Callable[[bytes, int, Judge, Values, memoryview, int], None]] = {
    Kind.AESCBC: _open_many_cbc,
    Kind.AESGCM: _open_many_gcm,
    Kind.SECRETBOX: _open_many_secretbox,
}
"""Key, size of the header, who judges; then as `OpenMany`."""

_SEAL_MANY: dict[Kind, Callable[[bytes, bytes, Values, memoryview, bytes, Sealed], None]] = {
    Kind.AESCBC: _seal_many_cbc,
    Kind.AESGCM: _seal_many_gcm,
    Kind.SECRETBOX: _seal_many_secretbox,
}
"""Key, header, values, rows, the nonces of all rows, and where the sealed ones go."""
