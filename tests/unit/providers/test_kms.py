"""KMS envelopes against the vectors of both specifications: which bytes open, to what, and why the others do not."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from snaptool import wire
from snaptool.providers.kms import (
    KmsV1Provider,
    KmsV2Provider,
    NoWriteKey,
    SharedWriteKeys,
    UnwrappedKeys,
    WriteKey,
    derive_key,
)
from snaptool.providers.kms_envelope import (
    Envelope,
    SourceType,
    WrappedSource,
    decode_envelope,
    decode_v1,
    decode_v2,
    encode_envelope,
    is_annotation_key,
    rewrap,
    source_problem,
)
from snaptool.providers.kms_service import Category, KmsRefused, UnwrapFailed
from snaptool.providers.provider import Api, KeyDoesNotFit, Reason

GOLDEN = Path(__file__).parents[2] / "golden"
KMS: dict[str, Any] = json.loads((GOLDEN / "kms.json").read_text())
AT_REST: list[dict[str, Any]] = [
    vector for vector in json.loads((GOLDEN / "encryption-at-rest.json").read_text())["vectors"] if "kms" in vector
]
KEY = b"/registry/secrets/default/s1"


class SourceTable:
    """A stand-in for a plugin: wrapped bytes to keys, everything else is refused. Counts what it is asked."""

    def __init__(self, table: dict[bytes, bytes]) -> None:
        self.table = table
        self.asked: list[WrappedSource] = []

    def candidates(self, source: WrappedSource) -> Sequence[bytes]:
        self.asked.append(source)
        if source.source not in self.table:
            raise UnwrapFailed(source.provider, Category.BAD_CIPHERTEXT)
        return (self.table[source.source],)


def queue(*parts: str) -> Iterator[bytes]:
    yield from (bytes.fromhex(part) for part in parts)


def named(vectors: list[dict[str, Any]], *, without: tuple[str, ...] = ()) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in vectors if vector["name"] not in without]


def provider_of(vector: dict[str, Any]) -> tuple[KmsV1Provider | KmsV2Provider, SourceTable]:
    kms = vector["kms"]
    keys = SourceTable(
        {bytes.fromhex(one["ciphertext_hex"]): bytes.fromhex(one["plaintext_hex"]) for one in kms["unwrap"]}
    )
    if kms["api_version"] == "v1":
        return KmsV1Provider(kms["name"], keys), keys
    current_type = SourceType(kms["write_source_type"])
    return KmsV2Provider(kms["name"], keys, None, kms["write_key_id"], current_type), keys


# unknown_prefix is the chain's answer, and so is the second of two providers; never-healthy is dropped, see below.
CHAIN = (
    "kmsv1-other-provider-name",
    "kmsv1-v2-data",
    "kmsv2-other-provider-name",
    "chain-two-kms-v1-same-name",
    "kmsv2-plugin-never-healthy",
)


@pytest.mark.parametrize("vector", named(AT_REST, without=CHAIN))
def test_stored_value_opens_as_kube_apiserver_opens_it(vector: dict[str, Any]) -> None:
    provider, _ = provider_of(vector)
    stored = bytes.fromhex(vector["stored_hex"])
    assert stored.startswith(provider.prefix)
    payload, context = stored[len(provider.prefix) :], vector["etcd_key"].encode()
    if vector["expect"] == "ok":
        opened = provider.unseal(payload, context)
        assert opened.plaintext.hex() == vector["plaintext_hex"]
        assert (opened.stale, opened.key_name, opened.doubtful) == (vector["stale"], "kp", False)
    else:
        with pytest.raises(KeyDoesNotFit) as refusal:
            provider.unseal(payload, context)
        assert list(refusal.value.reasons) == vector["errors"]


@pytest.mark.parametrize("name", ["kmsv1-other-provider-name", "kmsv1-v2-data", "kmsv2-other-provider-name"])
def test_prefix_of_another_provider_or_api_is_not_this_ones(name: str) -> None:
    (vector,) = [vector for vector in AT_REST if vector["name"] == name]
    assert not bytes.fromhex(vector["stored_hex"]).startswith(provider_of(vector)[0].prefix)


def test_a_plugin_that_was_never_healthy_does_not_keep_a_file_from_being_read() -> None:
    (vector,) = [vector for vector in AT_REST if vector["name"] == "kmsv2-plugin-never-healthy"]
    provider, _ = provider_of(vector)
    payload = bytes.fromhex(vector["stored_hex"])[len(provider.prefix) :]
    assert provider.unseal(payload, vector["etcd_key"].encode()).plaintext.startswith(b"k8s\0")


@pytest.mark.parametrize("vector", named([one for one in AT_REST if "write_randomness" in one], without=("kmsv2-dek",)))
def test_writer_emits_the_bytes_of_kube_apiserver(vector: dict[str, Any]) -> None:
    reader, _ = provider_of(vector)
    stored = bytes.fromhex(vector["stored_hex"])
    random = {one["name"]: one["hex"] for one in vector["write_randomness"]}
    source = decode_envelope(Api(vector["kms"]["api_version"]), "kp", stored[len(reader.prefix) :]).source
    pieces = queue(*(random[name] for name in ("info", "nonce") if name in random))
    write = WriteKey(source, bytes.fromhex(random.get("seed") or random["dek"]))
    writer = (
        KmsV1Provider("kp", UnwrappedKeys(), SharedWriteKeys((write,)))
        if reader.kind == "kms/v1"
        else KmsV2Provider("kp", UnwrappedKeys(), write)
    )
    sealed = writer.seal(bytes.fromhex(vector["plaintext_hex"]), vector["etcd_key"].encode(), lambda _: next(pieces))
    assert writer.prefix + sealed == stored


def looks_like_an_object(plaintext: bytes) -> bool:
    return plaintext.startswith((b"k8s\0", b"{"))


def storage_v1(name: str) -> dict[str, Any]:
    (vector,) = [vector for vector in KMS["storage_v1"] if vector["name"].startswith(name)]
    found: dict[str, Any] = vector
    return found


@pytest.mark.parametrize("vector", named(KMS["storage_v1"]))
def test_case_23_storage_v1(vector: dict[str, Any]) -> None:
    dek, cipher = vector.get("dek"), vector.get("cipher", "")
    keys = SourceTable({bytes.fromhex(cipher): bytes.fromhex(dek)} if dek else {})
    provider = KmsV1Provider(vector.get("provider", "testkms"), keys, plausible=looks_like_an_object)
    payload = bytes.fromhex(vector["stored"]).removeprefix(provider.prefix)
    context = vector.get("etcd_key_text", KEY.decode()).encode()
    if vector["expect"].startswith("decrypt"):
        opened = provider.unseal(payload, context)
        assert opened.plaintext.hex() == vector["plaintext"]
        assert opened.stale is (vector["mode"] == "cbc")
    else:
        with pytest.raises(KeyDoesNotFit) as refusal:
            provider.unseal(payload, context)
        if "no plugin call" in vector["expect"]:
            assert refusal.value.reasons == (Reason.KMSV1_BAD_LENGTH,)
            assert not keys.asked


def test_case_25_trap_is_refused_when_plausibility_is_asked_for_and_garbage_without() -> None:
    vector = storage_v1("trap")
    keys = SourceTable({bytes.fromhex(vector["cipher"]): bytes.fromhex(vector["dek"])})
    payload = bytes.fromhex(vector["stored"]).removeprefix(b"k8s:enc:kms:v1:testkms:")
    with pytest.raises(KeyDoesNotFit) as refusal:
        KmsV1Provider("testkms", keys, plausible=looks_like_an_object).unseal(payload, KEY)
    assert refusal.value.reasons == (Reason.GCM_AUTH, Reason.DOUBTFUL_PLAINTEXT)
    garbage = KmsV1Provider("testkms", keys).unseal(payload, KEY)
    assert (garbage.plaintext.hex(), garbage.stale) == (vector["cbc_fallback_result"], True)


def test_cbc_padding_beyond_a_block_is_refused_when_plausibility_is_asked_for() -> None:
    dek, plaintext = b"d" * 32, b"k8s\0 twelve!"
    padded = plaintext + bytes([20]) * 20
    encryptor = Cipher(algorithms.AES(dek), modes.CBC(b"i" * 16)).encryptor()
    payload = b"\0\x01w" + b"i" * 16 + encryptor.update(padded) + encryptor.finalize()
    keys = SourceTable({b"w": dek})
    assert KmsV1Provider("kp", keys).unseal(payload, KEY).plaintext == plaintext
    with pytest.raises(KeyDoesNotFit) as refusal:
        KmsV1Provider("kp", keys, plausible=looks_like_an_object).unseal(payload, KEY)
    assert refusal.value.reasons == (Reason.GCM_AUTH, Reason.DOUBTFUL_PLAINTEXT)


@pytest.mark.parametrize("vector", named(KMS["storage_v2"]))
def test_case_24_storage_v2(vector: dict[str, Any]) -> None:
    expected = vector["expect"]
    source = bytes.fromhex(vector.get("encryptedDEKSource", ""))
    key = vector.get("dek_or_seed") or KMS["storage_v2"][0]["dek_or_seed"]
    if not source:
        source = bytes.fromhex(KMS["storage_v2"][0]["encryptedDEKSource"])
    unknown = vector["name"] == "v2 key id unknown to the plugin"
    keys = SourceTable({} if unknown else {source: bytes.fromhex(key)})
    provider = KmsV2Provider(vector["provider"], keys)
    payload = bytes.fromhex(vector["stored"]).removeprefix(provider.prefix)
    context = vector["etcd_key_text"].encode()
    if "plaintext" in vector and (expected.startswith(("decrypt", "shape"))):
        opened = provider.unseal(payload, context)
        assert opened.plaintext.hex() == vector["plaintext"]
        assert opened.stale is (vector["type"] == 0)
        assert keys.asked[0].cache_key.hex() == vector["cache_key_sha256"]
        if vector["type"]:
            assert derive_key(bytes.fromhex(key), bytes.fromhex(vector["info"])).hex() == vector["derived_key"]
        envelope = decode_v2(vector["provider"], payload)
        assert envelope.body.hex() == vector["encryptedData"]
        assert encode_envelope(envelope) == payload
    else:
        with pytest.raises(KeyDoesNotFit):
            provider.unseal(payload, context)
        assert bool(keys.asked) is ("before any plugin call" not in expected)


def test_case_18_second_object_under_the_same_seed_has_the_same_cache_key() -> None:
    first, second = (
        decode_v2("testkms", bytes.fromhex(KMS["storage_v2"][i]["stored"]).removeprefix(b"k8s:enc:kms:v2:testkms:"))
        for i in (0, 5)
    )
    assert first.body != second.body
    assert first.source is second.source  # not even parsed again


@pytest.mark.parametrize("vector", named(KMS["cache_keys"]))
def test_case_19_cache_key_is_kube_apiservers(vector: dict[str, Any]) -> None:
    source = WrappedSource(
        provider="p",
        api=Api.V2,
        source_type=SourceType(vector["type"]),
        source=bytes.fromhex(vector["encryptedDEKSource"]),
        key_id=vector["keyID"],
        annotations=tuple(sorted((key, bytes.fromhex(value)) for key, value in vector["annotations"].items())),
    )
    assert source.cache_preimage().hex() == vector["cache_key"]
    assert source.cache_key.hex() == vector["sha256"]


@pytest.mark.parametrize("vector", [pytest.param(one, id=one["key"][:30] or "empty") for one in KMS["annotation_keys"]])
def test_annotation_keys_are_domain_names_of_two_labels_or_more(vector: dict[str, Any]) -> None:
    assert is_annotation_key(vector["key"]) is vector["ok"]


def test_annotation_keys_have_at_most_253_characters_without_the_trailing_dot() -> None:
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert len(longest) == 253
    assert is_annotation_key(longest)
    assert is_annotation_key(longest + ".")
    assert not is_annotation_key(longest + "b")


def v2_source(**changes: Any) -> WrappedSource:
    members: dict[str, Any] = {"source": b"w" * 40, "key_id": "k1", "annotations": ()} | changes
    return WrappedSource(provider="kp", api=Api.V2, source_type=SourceType.HKDF_SEED, **members)


@pytest.mark.parametrize("limit", [one for one in KMS["limits"] if "v1" not in one["field"]], ids=str)
def test_limits_of_v2_sources(limit: dict[str, Any]) -> None:
    size = limit["bytes"]
    if limit["field"] == "key_id":
        source, reason = v2_source(key_id="k" * size), Reason.KMSV2_BAD_KEY_ID
    elif limit["field"].startswith("ciphertext"):
        source, reason = v2_source(source=b"c" * size), Reason.KMSV2_BAD_DEK_SOURCE
    else:
        entry = (("a.example.com", b"v" * (size - 13)),) if size else ()
        source, reason = v2_source(annotations=entry), Reason.KMSV2_BAD_ANNOTATIONS
    assert source_problem(source) == (None if limit["ok"] else reason)


@pytest.mark.parametrize("limit", [one for one in KMS["limits"] if "v1" in one["field"]], ids=str)
def test_limit_of_v1_sources(limit: dict[str, Any]) -> None:
    source = WrappedSource(provider="p", api=Api.V1, source_type=SourceType.AES_GCM_KEY, source=b"w" * limit["bytes"])
    if limit["ok"]:
        assert decode_v1("p", encode_envelope(Envelope(source, b"body"))).source == source
    else:
        with pytest.raises(KeyDoesNotFit, match="65536 bytes"):
            encode_envelope(Envelope(source, b"body"))


@pytest.mark.parametrize(("size", "fits"), [(31, False), (32, True), (64, True)])
def test_case_47_seed_of_the_wrong_length_is_refused(size: int, *, fits: bool) -> None:
    seed = bytes(range(size))
    sealed = KmsV2Provider("kp", UnwrappedKeys(), WriteKey(v2_source(), seed)).seal(b"{}", KEY, bytes)
    reader = KmsV2Provider("kp", SourceTable({b"w" * 40: seed}))
    if fits:
        assert reader.unseal(sealed, KEY).plaintext == b"{}"
    else:
        with pytest.raises(KeyDoesNotFit) as refusal:
            reader.unseal(sealed, KEY)
        assert refusal.value.reasons == (Reason.KMSV2_SEED_TOO_SHORT,)


@pytest.mark.parametrize("size", [0, 31, 33, 159])
def test_case_47_v1_dek_of_the_wrong_length_is_refused(size: int) -> None:
    vector = storage_v1("v1 AES-GCM")
    provider = KmsV1Provider("testkms", SourceTable({bytes.fromhex(vector["cipher"]): b"d" * size}))
    with pytest.raises(KeyDoesNotFit) as refusal:
        provider.unseal(bytes.fromhex(vector["stored"]).removeprefix(provider.prefix), KEY)
    assert refusal.value.reasons == (Reason.DEK_BAD_SIZE,)


def test_case_26_provider_a_leaves_a_value_of_a_b_to_the_provider_a_b() -> None:
    vector = storage_v1("v1 provider name containing")
    keys = SourceTable({bytes.fromhex(vector["cipher"]): bytes.fromhex(vector["dek"])})
    stored = bytes.fromhex(vector["stored"])
    first, second = KmsV1Provider("a", keys), KmsV1Provider("a:b", keys)
    assert stored.startswith(first.prefix)
    with pytest.raises(KeyDoesNotFit):
        first.unseal(stored.removeprefix(first.prefix), KEY)
    assert not keys.asked
    assert second.unseal(stored.removeprefix(second.prefix), KEY).plaintext.hex() == vector["plaintext"]


def test_context_is_authenticated_in_v2_and_an_empty_one_refused() -> None:
    write = WriteKey(v2_source(), b"s" * 32)
    provider = KmsV2Provider("kp", SourceTable({b"w" * 40: b"s" * 32}), write)
    sealed = provider.seal(b"{}", KEY, bytes)
    for other in (b"/registry/secrets/default/s2", b""):
        with pytest.raises(KeyDoesNotFit) as refusal:
            provider.unseal(sealed, other)
        assert refusal.value.reasons == (Reason.GCM_AUTH,)
    with pytest.raises(NoWriteKey):
        provider.seal(b"{}", b"", bytes)


def test_provider_without_a_write_key_says_so() -> None:
    for provider in (KmsV1Provider("kp", UnwrappedKeys()), KmsV2Provider("kp", UnwrappedKeys())):
        with pytest.raises(NoWriteKey, match="'kp'"):
            provider.seal(b"{}", KEY, bytes)


def test_v2_memory_of_tails_never_changes_an_answer() -> None:
    """Every order of the fields of one message, and a second field 1 behind the tail, parse to what protobuf says."""
    source = v2_source(annotations=(("a.example.com", b"1"), ("b.example.com", b"")))
    members = [
        wire.encode_field(1, b"data"),
        wire.encode_field(2, b"k1"),
        wire.encode_field(3, b"w" * 40),
        wire.encode_field(5, 1),
        wire.encode_field(4, b"\x0a\x0da.example.com\x12\x011") + wire.encode_field(4, b"\x0a\x0db.example.com"),
    ]
    for order in itertools.permutations(members):
        for _ in range(2):
            assert decode_v2("kp", b"".join(order)) == Envelope(source, b"data")
    for _ in range(2):
        assert decode_v2("kp", b"".join(members) + wire.encode_field(1, b"later")) == Envelope(source, b"later")
        assert decode_v2("other", b"".join(members)).source.provider == "other"
        with pytest.raises(KeyDoesNotFit) as refusal:
            decode_v2("kp", b"".join(members) + wire.encode_field(1, b""))
        assert refusal.value.reasons == (Reason.KMSV2_NO_DATA,)


@pytest.mark.parametrize(("raw", "meant"), [((1 << 32) + 1, 1), (1 << 63, 0), (1 << 32, 0)])
def test_source_type_is_the_low_32_bits_of_the_varint(raw: int, meant: int) -> None:
    members = wire.encode_field(1, b"data") + wire.encode_field(2, b"k1") + wire.encode_field(3, b"w" * 40)
    source = replace(v2_source(), source_type=SourceType(meant))
    assert decode_v2("kp", members + wire.encode_field(5, raw)) == Envelope(source, b"data")


def test_every_truncation_of_a_v2_payload_within_a_field_is_refused() -> None:
    payload = bytes.fromhex(KMS["storage_v2"][0]["stored"]).removeprefix(b"k8s:enc:kms:v2:testkms:")
    whole = {item.end for item in wire.fields(payload)}
    for end in range(len(payload)):
        if end in whole:
            continue  # cut between two fields: protobuf cannot tell
        with pytest.raises(KeyDoesNotFit) as refusal:
            decode_v2("testkms", payload[:end])
        assert refusal.value.reasons == ((Reason.KMSV2_BAD_PROTO,) if end else (Reason.KMSV2_NO_DATA,))


def test_rewrap_changes_fields_2_3_4_and_keeps_the_rest_byte_for_byte() -> None:
    data, unknown = wire.encode_field(1, b"sealed data"), wire.encode_field(15, b"from the future")
    overlong_type = b"\x28\x81\x80\x00"
    old, new = v2_source(), v2_source(source=b"n" * 50, key_id="k2", annotations=(("a.example.com", b"1"),))
    payload = data + wire.encode_field(2, b"k1") + unknown + wire.encode_field(3, b"w" * 40) + overlong_type
    assert decode_v2("kp", payload).source == old
    fresh = rewrap(payload, old, new)
    wrapping = wire.encode_field(2, b"k2") + wire.encode_field(3, b"n" * 50)
    wrapping += wire.encode_field(4, b"\x0a\x0da.example.com\x12\x011")
    assert fresh == data + wrapping + unknown + overlong_type
    assert decode_v2("kp", fresh) == Envelope(new, b"sealed data")


def test_rewrap_of_a_canonical_value_is_canonical() -> None:
    vector = KMS["storage_v2"][0]
    payload = bytes.fromhex(vector["stored"]).removeprefix(b"k8s:enc:kms:v2:testkms:")
    envelope = decode_v2("testkms", payload)
    new = v2_source(key_id="kek-2")
    assert rewrap(payload, envelope.source, new) == encode_envelope(Envelope(new, envelope.body))


def test_rewrap_of_v1_replaces_the_wrapped_dek_alone() -> None:
    vector = storage_v1("v1 AES-CBC")
    payload = bytes.fromhex(vector["stored"]).removeprefix(b"k8s:enc:kms:v1:testkms:")
    envelope = decode_v1("testkms", payload)
    new = WrappedSource(provider="testkms", api=Api.V1, source_type=SourceType.AES_GCM_KEY, source=b"another")
    assert rewrap(payload, envelope.source, new) == b"\0\x07another" + envelope.body


def test_unwrapped_keys_find_what_was_packed_and_survive_pickling() -> None:
    sources = [v2_source(source=bytes([i]) * 9) for i in range(40)]
    packed = UnwrappedKeys.pack(
        sorted((source.cache_key, bytes([i]) * (i % 3 + 15)) for i, source in enumerate(sources[:30])),
        {sources[30].cache_key: Category.KEY_UNKNOWN},
    )
    keys: UnwrappedKeys = pickle.loads(pickle.dumps(packed))  # noqa: S301 - our own bytes, as workers get them
    assert len(keys) == 30
    for i, source in enumerate(sources[:30]):
        assert keys.candidates(source) == (bytes([i]) * (i % 3 + 15),)
    with pytest.raises(UnwrapFailed) as refusal:
        keys.candidates(sources[30])
    assert refusal.value.category is Category.KEY_UNKNOWN
    with pytest.raises(UnwrapFailed) as refusal:
        keys.candidates(sources[31])
    assert refusal.value.category is Category.NOT_ASKED
    again: UnwrapFailed = pickle.loads(pickle.dumps(refusal.value))  # noqa: S301 - as above
    assert (again.reasons, again.category, str(again)) == (
        refusal.value.reasons,
        refusal.value.category,
        str(refusal.value),
    )


def test_errors_keep_their_facts_across_processes() -> None:
    failure = KmsRefused("no", provider="kp", category=Category.KEY_DISABLED, detail="d", attempts=3, hint="h")
    error: UnwrapFailed = pickle.loads(pickle.dumps(UnwrapFailed("kp", Category.KEY_DISABLED, failure)))  # noqa: S301 - as above
    assert (error.reasons, error.provider, error.category) == ((Reason.KMS_UNWRAP_FAILED,), "kp", Category.KEY_DISABLED)
    assert isinstance(error.failure, KmsRefused)
    assert (str(error.failure), error.failure.hint, error.failure.detail) == ("no (tried 3 times)", "h", "d")


def test_providers_are_picklable_and_print_no_key() -> None:
    secret, wrapped = b"s" * 32, b"w" * 40
    keys = UnwrappedKeys.pack([(v2_source().cache_key, secret)])
    write = WriteKey(v2_source(), secret)
    for provider in (KmsV2Provider("kp", keys, write), KmsV1Provider("kp", keys, SharedWriteKeys((write,)))):
        again = pickle.loads(pickle.dumps(provider))  # noqa: S301 - our own bytes, as workers get them
        assert again == provider
        for printed in (repr(provider), repr(keys), repr(write), repr(v2_source()), repr(SharedWriteKeys((write,)))):
            assert "ssss" not in printed
            assert "wwww" not in printed
    assert wrapped.decode() not in repr(decode_v2("kp", encode_envelope(Envelope(v2_source(), b"body"))))


def _given(random: bytes, size: int) -> bytes:
    return random[:size]


def test_several_v1_write_keys_share_the_values_by_nonce() -> None:
    deks = [
        WriteKey(
            WrappedSource(provider="kp", api=Api.V1, source_type=SourceType.AES_GCM_KEY, source=bytes([i])),
            bytes([i]) * 32,
        )
        for i in range(3)
    ]
    provider = KmsV1Provider(
        "kp", SourceTable({one.source.source: one.key for one in deks}), SharedWriteKeys(tuple(deks))
    )
    used = set()
    for i in range(9):
        nonce = i.to_bytes(8, "big") + bytes(4)
        sealed = provider.seal(b"{}", KEY, partial(_given, nonce))
        used.add(sealed[:3])
        assert provider.unseal(sealed, KEY).plaintext == b"{}"
    assert used == {b"\0\x01\x00", b"\0\x01\x01", b"\0\x01\x02"}
