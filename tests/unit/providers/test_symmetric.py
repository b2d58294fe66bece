"""Local providers by themselves: what each checks and in which order, which key answers, what may be believed."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from snaptool.providers.provider import KeyDoesNotFit, Kind, Reason
from snaptool.providers.symmetric import Identity, Key, LocalProvider, open_cbc, open_gcm

CONTEXT = b"/registry/secrets/default/s1"
OBJECT = b"k8s\0 an object"
ONE, TWO = bytes(range(32)), bytes(range(32, 64))


def repeated(byte: int) -> Callable[[int], bytes]:
    return lambda size: bytes([byte]) * size


def cbc(key: bytes, padded: bytes, iv: bytes = b"i" * 16) -> bytes:
    """Encrypt what is padded already, with a cipher of its own."""
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return iv + encryptor.update(padded) + encryptor.finalize()


def reasons(provider: LocalProvider | Identity, payload: bytes, context: bytes = CONTEXT) -> tuple[Reason, ...]:
    with pytest.raises(KeyDoesNotFit) as refusal:
        provider.unseal(payload, context)
    return refusal.value.reasons


def looks_like_an_object(plaintext: bytes) -> bool:
    return plaintext.startswith(b"k8s\0")


def wrong_key_with_lucky_padding(secret: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield payloads of OBJECT under `secret` that ONE opens to garbage, and the garbage."""
    for number in range(100_000):
        payload = cbc(secret, OBJECT + b"\x02\x02", number.to_bytes(16, "big"))
        try:
            yield payload, open_cbc(ONE, payload)
        except KeyDoesNotFit:
            continue


@pytest.mark.parametrize(
    ("kind", "prefix", "nonce", "overhead"),
    [
        (Kind.AESCBC, b"k8s:enc:aescbc:v1:", 16, 16 + 2),
        (Kind.AESGCM, b"k8s:enc:aesgcm:v1:", 12, 12 + 16),
        (Kind.SECRETBOX, b"k8s:enc:secretbox:v1:", 24, 24 + 16),
    ],
)
def test_sealing_takes_the_first_key_and_one_nonce(kind: Kind, prefix: bytes, nonce: int, overhead: int) -> None:
    provider = LocalProvider(kind, (Key("new", ONE), Key("old", TWO)))
    assert (provider.kind, provider.prefix, provider.write_key) == (kind, prefix, "new")
    asked: list[int] = []

    def entropy(size: int) -> bytes:
        asked.append(size)
        return b"n" * size

    sealed = provider.seal(OBJECT, CONTEXT, entropy)
    assert asked == [nonce]
    assert sealed.startswith(b"new:" + b"n" * nonce)
    assert len(sealed) == len(b"new:") + len(OBJECT) + overhead
    opened = provider.unseal(sealed, CONTEXT)
    assert (opened.plaintext, opened.stale, opened.key_name, opened.key_index) == (OBJECT, False, "new", 0)


def test_identity_seals_nothing_and_refuses_what_begins_like_an_encrypted_value() -> None:
    identity = Identity()
    assert (identity.kind, identity.prefix, identity.write_key) == (Kind.IDENTITY, b"", "")
    assert identity.seal(OBJECT, CONTEXT, repeated(0)) == OBJECT
    assert identity.unseal(b"k8s:enc", CONTEXT).plaintext == b"k8s:enc"
    assert reasons(identity, b"k8s:enc:") == (Reason.IDENTITY_ENCRYPTED,)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (bytes(15), Reason.TOO_SHORT),
        (bytes(17), Reason.NOT_BLOCK_MULTIPLE),
        (bytes(16), Reason.NO_CIPHER_BLOCK),
        (cbc(ONE, bytes(16)), Reason.CBC_PADDING_LENGTH),
        (cbc(ONE, bytes(15) + b"\x11"), Reason.CBC_PADDING_LENGTH),
        (cbc(ONE, bytes(14) + b"\x01\x02"), Reason.CBC_PADDING_BYTES),
    ],
)
def test_cbc_checks_in_the_order_of_the_server(payload: bytes, reason: Reason) -> None:
    with pytest.raises(KeyDoesNotFit) as refusal:
        open_cbc(ONE, payload)
    assert refusal.value.reasons == (reason,)


def test_case_07_cbc_padding_17() -> None:
    assert open_cbc(ONE, cbc(ONE, b"k8s\0" + bytes(11) + b"\x11" * 17)) == b"k8s\0" + bytes(11)


def test_case_08_cbc_padding_whole() -> None:
    assert open_cbc(ONE, cbc(ONE, b"\x20" * 32)) == b""


def test_cbc_padding_does_not_reach_into_the_iv() -> None:
    # The IV goes through the running decryptor too; what that makes of it must not count as data.
    with pytest.raises(KeyDoesNotFit) as refusal:
        open_cbc(ONE, cbc(ONE, b"\x20" * 16))
    assert refusal.value.reasons == (Reason.CBC_PADDING_LENGTH,)


def test_cbc_values_do_not_depend_on_what_was_opened_before() -> None:
    first, second = cbc(ONE, b"a" * 15 + b"\x01"), cbc(ONE, b"b" * 31 + b"\x01", b"j" * 16)
    other = cbc(TWO, b"c" * 15 + b"\x01")
    for _ in range(3):
        assert (open_cbc(ONE, first), open_cbc(TWO, other), open_cbc(ONE, second)) == (b"a" * 15, b"c" * 15, b"b" * 31)
        with pytest.raises(KeyDoesNotFit):
            open_cbc(ONE, first[:32] + b"x" * 16)


@pytest.mark.parametrize("kind", [Kind.AESCBC, Kind.AESGCM, Kind.SECRETBOX])
def test_threads_open_values_of_one_key_at_once(kind: Kind) -> None:
    # Large, so that they meet inside the cipher. CBC's decryptors, which run on, used to be shared, and refused that.
    provider = LocalProvider(kind, (Key("a", ONE),))
    plaintexts = [bytes([number]) * 2_000_000 for number in range(4)]
    stored = [provider.seal(plaintext, CONTEXT, repeated(1)) for plaintext in plaintexts]

    def opened(number: int) -> bool:
        return provider.unseal(stored[number % 4], CONTEXT).plaintext == plaintexts[number % 4]

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(opened, range(40)))


def test_cbc_values_do_not_depend_on_what_was_sealed_before() -> None:
    # Encryptors run on from value to value; the IV must be the one that was drawn all the same.
    provider, other = LocalProvider(Kind.AESCBC, (Key("a", ONE),)), LocalProvider(Kind.AESCBC, (Key("a", TWO),))
    for number in range(40):
        plaintext, iv = bytes([number]) * number, bytes([200 - number]) * 16
        padding = 16 - number % 16
        assert provider.seal(plaintext, CONTEXT, repeated(200 - number)) == b"a:" + cbc(
            ONE, plaintext + bytes([padding]) * padding, iv
        )
        other.seal(plaintext, CONTEXT, repeated(number))

    def entropy_that_fails(size: int) -> bytes:
        raise OSError(size)

    with pytest.raises(OSError, match="16"):
        provider.seal(OBJECT, CONTEXT, entropy_that_fails)
    assert provider.seal(OBJECT, CONTEXT, repeated(1)) == b"a:" + cbc(ONE, OBJECT + b"\x02\x02", b"\x01" * 16)


@pytest.mark.parametrize("kind", [Kind.AESCBC, Kind.AESGCM, Kind.SECRETBOX])
def test_threads_seal_values_with_one_key_at_once(kind: Kind) -> None:
    provider = LocalProvider(kind, (Key("a", ONE),))
    plaintexts = [bytes([number]) * (2_000_000 if number % 2 else 20) for number in range(4)]
    expected = [provider.seal(plaintext, CONTEXT, repeated(1)) for plaintext in plaintexts]

    def as_expected(number: int) -> bool:
        return provider.seal(plaintexts[number % 4], CONTEXT, repeated(1)) == expected[number % 4]

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(as_expected, range(60)))


@pytest.mark.parametrize(("size", "reason"), [(11, Reason.TOO_SHORT), (12, Reason.GCM_AUTH), (27, Reason.GCM_AUTH)])
def test_case_15_gcm_nonce_only(size: int, reason: Reason) -> None:
    with pytest.raises(KeyDoesNotFit) as refusal:
        open_gcm(ONE, bytes(size), CONTEXT)
    assert refusal.value.reasons == (reason,)
    assert reasons(LocalProvider(Kind.AESGCM, (Key("a", ONE),)), b"a:" + bytes(size)) == (reason,)


@pytest.mark.parametrize(("size", "reason"), [(39, Reason.TOO_SHORT), (40, Reason.SECRETBOX_AUTH)])
def test_case_19_secretbox_39(size: int, reason: Reason) -> None:
    assert reasons(LocalProvider(Kind.SECRETBOX, (Key("a", ONE),)), b"a:" + bytes(size)) == (reason,)


def test_only_gcm_notices_another_etcd_key() -> None:
    for kind in (Kind.AESCBC, Kind.SECRETBOX):
        provider = LocalProvider(kind, (Key("a", ONE),))
        assert provider.unseal(provider.seal(OBJECT, CONTEXT, repeated(1)), b"/elsewhere").plaintext == OBJECT
    provider = LocalProvider(Kind.AESGCM, (Key("a", ONE),))
    assert reasons(provider, provider.seal(OBJECT, CONTEXT, repeated(1)), b"/elsewhere") == (Reason.GCM_AUTH,)


def test_second_of_two_keys_of_one_name_is_told_from_the_first_by_its_index() -> None:
    sealed = LocalProvider(Kind.AESGCM, (Key("a", TWO),)).seal(OBJECT, CONTEXT, repeated(1))
    opened = LocalProvider(Kind.AESGCM, (Key("a", ONE), Key("a", TWO))).unseal(sealed, CONTEXT)
    assert (opened.plaintext, opened.stale, opened.key_name, opened.key_index) == (OBJECT, True, "a", 1)


def test_reasons_of_several_keys_come_in_their_order_each_once() -> None:
    # What the two keys `a` see is 18 bytes long, what `a:a` sees is an IV alone.
    provider = LocalProvider(Kind.AESCBC, (Key("a", ONE), Key("a", TWO), Key("a:a", ONE)))
    assert reasons(provider, b"a:a:" + bytes(16)) == (Reason.NOT_BLOCK_MULTIPLE, Reason.NO_CIPHER_BLOCK)
    assert reasons(provider, b"b:" + bytes(32)) == (Reason.UNKNOWN_KEY_NAME,)
    assert reasons(provider, b"") == (Reason.UNKNOWN_KEY_NAME,)


def test_garbage_of_a_wrong_key_is_passed_over_when_a_later_key_gives_an_object() -> None:
    payload, garbage = next(wrong_key_with_lucky_padding(TWO))
    keys = (Key("a", ONE), Key("a", TWO))
    believing = LocalProvider(Kind.AESCBC, keys).unseal(b"a:" + payload, CONTEXT)
    assert (believing.plaintext, believing.stale, believing.doubtful, believing.key_index) == (garbage, False, False, 0)
    asking = LocalProvider(Kind.AESCBC, keys, looks_like_an_object).unseal(b"a:" + payload, CONTEXT)
    assert (asking.plaintext, asking.stale, asking.doubtful, asking.key_index) == (OBJECT, True, False, 1)


def test_garbage_that_no_other_key_betters_comes_back_as_doubtful() -> None:
    payload, garbage = next(wrong_key_with_lucky_padding(TWO))
    provider = LocalProvider(Kind.AESCBC, (Key("a", ONE), Key("b", TWO)), looks_like_an_object)
    opened = provider.unseal(b"a:" + payload, CONTEXT)
    assert (opened.plaintext, opened.doubtful, opened.key_name) == (garbage, True, "a")


def test_of_several_doubtful_answers_the_first_counts_which_is_the_server_s() -> None:
    provider = LocalProvider(Kind.AESCBC, (Key("a", ONE), Key("a", ONE)), looks_like_an_object)
    opened = provider.unseal(provider.seal(b"no object", CONTEXT, repeated(1)), CONTEXT)
    assert (opened.plaintext, opened.doubtful, opened.key_index) == (b"no object", True, 0)


@pytest.mark.parametrize("kind", [Kind.AESGCM, Kind.SECRETBOX])
def test_what_a_cipher_authenticates_is_never_doubtful(kind: Kind) -> None:
    provider = LocalProvider(kind, (Key("a", ONE),), looks_like_an_object)
    opened = provider.unseal(provider.seal(b"no object", CONTEXT, repeated(1)), CONTEXT)
    assert (opened.plaintext, opened.doubtful) == (b"no object", False)


def test_secrets_and_plaintexts_do_not_show() -> None:
    key = Key("shown", b"never shown, never shown, never!")
    provider = LocalProvider(Kind.SECRETBOX, (key,))
    opened = provider.unseal(provider.seal(b"nor is this", CONTEXT, repeated(1)), CONTEXT)
    for text in (repr(key), repr(provider), repr(opened)):
        assert "never" not in text
        assert "nor is" not in text
        assert "shown" in text


def test_providers_travel_to_other_processes_after_use() -> None:
    for kind in (Kind.AESCBC, Kind.AESGCM, Kind.SECRETBOX):
        provider = LocalProvider(kind, (Key("a", ONE),), looks_like_an_object)
        sealed = provider.seal(OBJECT, CONTEXT, repeated(1))
        assert provider.unseal(sealed, CONTEXT).plaintext == OBJECT
        arrived = pickle.loads(pickle.dumps(provider))  # noqa: S301 - our own bytes of a moment ago
        assert arrived.unseal(sealed, CONTEXT).plaintext == OBJECT
        assert arrived.seal(OBJECT, CONTEXT, repeated(1)) == sealed


def test_an_empty_plaintext_is_the_right_key_s() -> None:
    """No other key gives a whole block of padding, so that a value without a byte is not taken for garbage."""
    provider = LocalProvider(Kind.AESCBC, (Key("one", ONE),), looks_like_an_object)
    opened = provider.unseal(b"one:" + cbc(ONE, b"\x10" * 16), CONTEXT)
    assert (opened.plaintext, opened.doubtful) == (b"", False)
    assert provider.unseal(b"one:" + cbc(ONE, b"text" + b"\x0c" * 12), CONTEXT).doubtful


def test_libsodium_has_chosen_the_fastest_form_before_it_is_called_by_address() -> None:
    """In a process of its own: other users of PyNaCl make it choose, too."""
    code = (
        "from snaptool.providers import symmetric\n"
        "assert symmetric._in_libsodium('crypto_secretbox_easy')\n"
        "from nacl._sodium import lib\n"
        "assert lib.sodium_init() == 1, 'it was done before'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
