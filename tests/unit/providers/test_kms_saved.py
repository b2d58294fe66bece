"""Keys without a key service: files of saved keys and of KEKs."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from typing import Any

import pytest

from snaptool.providers.kms import (
    Api,
    Category,
    KmsRefused,
    KmsV1Provider,
    KmsV2Provider,
    SourceType,
    UnwrapFailed,
    WrappedSource,
    WriteKey,
    decode_v1,
)
from snaptool.providers.kms_keys import unwrap_sources
from snaptool.providers.kms_saved import (
    KEY_FILE_FORMAT,
    BadKeyFile,
    SavedKeks,
    SavedKeys,
    read_key_file,
    write_key_file,
)
from snaptool.providers.provider import KeyDoesNotFit, Reason
from tests.support.kms_values import KMS_VECTORS, Form, Store, local_keks


def test_key_file_round_trip_is_deterministic() -> None:
    keks = local_keks(Api.V2)
    pairs = [(keks.wrap(key), key) for key in (os.urandom(32), os.urandom(16))]
    text = write_key_file(pairs)
    assert write_key_file(reversed(pairs)) == text
    assert json.loads(text)["format"] == KEY_FILE_FORMAT
    saved = read_key_file(text)
    assert [saved.candidates(source) for source, _ in pairs] == [(key,) for _, key in pairs]


def test_candidates_of_a_provider_are_tried_until_one_opens() -> None:
    store = Store()
    keks = local_keks(Api.V2)
    seed = os.urandom(32)
    source = keks.wrap(seed)
    store.seal(2, Api.V2, WriteKey(source, seed))
    tries = [os.urandom(32), b"short", seed, os.urandom(32)]
    document = {
        "format": KEY_FILE_FORMAT,
        "candidates": {"kp": [base64.b64encode(one).decode() for one in tries]},
    }
    saved = read_key_file(json.dumps(document))
    assert saved.candidates(source) == [tries[0], seed, tries[3]]
    with pytest.raises(UnwrapFailed):
        saved.candidates(replace(source, provider="other"))
    (answer,) = unwrap_sources(store.collect(Api.V2), [], store.fetch, known=[saved])
    assert answer.keys.candidates(source) == (seed,)
    store.open_all(KmsV2Provider("kp", saved))
    store.open_all(KmsV2Provider("kp", answer.keys))


def test_missing_service_and_missing_key_is_a_failure_with_a_hint() -> None:
    store = Store()
    store.seal_by(local_keks(Api.V2), 4)
    (answer,) = unwrap_sources(store.collect(Api.V2), [], store.fetch, known=[SavedKeys()])
    (group,) = answer.failures
    assert (group.category, group.objects, group.asked) == (Category.NOT_ASKED, 4, 0)
    assert "--dek-file" in group.hint


BAD_KEY_FILES: list[tuple[str, str]] = [
    ("SECRET", "not a JSON document"),
    ("[" * 100_000, "not a JSON document"),
    ("[]", "not a JSON object"),
    ("{}", "format"),
    ('{"format": "snaptool/kms-keys/1", "keys": []}', "keys: is not an object"),
    ('{"format": "snaptool/kms-keys/1", "keys": {"SECRET": "AAAA"}}', "not a SHA-256"),
    ('{"format": "snaptool/kms-keys/1", "keys": {"%s": "SECR!ET=="}}' % ("a" * 64), "is not base64"),
    ('{"format": "snaptool/kms-keys/1", "keys": {"%s": 5}}' % ("a" * 64), "is not a string"),
    ('{"format": "snaptool/kms-keys/1", "candidates": {"kp": "SECRET"}}', "candidates.'kp'.: is not a list"),
    ('{"format": "snaptool/kms-keys/1", "candidates": {"kp": ["\u00e9SECRET"]}}', "is not base64"),
]


@pytest.mark.parametrize(("text", "problem"), BAD_KEY_FILES)
def test_bad_key_files_are_named_by_place_and_never_by_content(text: str, problem: str) -> None:
    with pytest.raises(BadKeyFile, match=problem) as refusal:
        read_key_file(text)
    assert "SECRET" not in repr(refusal.value) + str(refusal.value.__cause__)


def test_kek_file_of_the_test_plugin_unwraps_and_wraps() -> None:
    vectors = KMS_VECTORS["local_plugin"]
    text = json.dumps({"current": "kek-2", "keks": vectors["keks"]})
    saved = read_key_file(text)
    assert isinstance(saved, SavedKeks)
    service = saved.service("kp", Api.V2)
    case = vectors["cases"][0]
    source = WrappedSource(
        provider="kp",
        api=Api.V2,
        source_type=SourceType.HKDF_SEED,
        source=bytes.fromhex(case["ciphertext"]),
        key_id="kek-1",
        annotations=(("version.testkms.snaptool.example", b"1"),),
    )
    assert service.unwrap(source).hex() == case["plaintext"]
    assert service.wrap(b"k" * 32).key_id == service.status().key_id == "kek-2"


@pytest.mark.parametrize(
    ("changes", "category"),
    [
        ({"key_id": "kek-9"}, Category.KEY_UNKNOWN),
        ({"key_id": "kek-2"}, Category.BAD_CIPHERTEXT),
        ({"annotations": ()}, Category.BAD_CIPHERTEXT),
        ({"source": b"\x01short"}, Category.BAD_CIPHERTEXT),
        ({"source": b""}, Category.BAD_CIPHERTEXT),
    ],
)
def test_local_keks_refuse_as_the_plugin_does(changes: dict[str, Any], category: Category) -> None:
    keks = local_keks(Api.V2)
    source = replace(keks.wrap(b"k" * 32), **changes)
    with pytest.raises(KmsRefused) as refusal:
        keks.unwrap(source)
    assert refusal.value.category is category


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"keks": {}}', "current"),
        ('{"keks": {"SECRET": "zz"}, "current": "SECRET"}', "64 hex digits"),
        ('{"keks": {"a": "%s"}, "current": "b"}' % ("00" * 32), "current"),
        ("nonsense", "not a JSON"),
    ],
)
def test_bad_kek_files_are_refused(text: str, problem: str) -> None:
    with pytest.raises(BadKeyFile, match=problem) as refusal:
        read_key_file(text)
    assert "SECRET" not in str(refusal.value)


def test_unseal_refuses_a_v1_value_whose_saved_key_has_no_possible_length() -> None:
    store = Store()
    store.seal_by(local_keks(Api.V1), 1)
    key, stored = store.values[0]
    source = decode_v1("kp", stored.removeprefix(b"k8s:enc:kms:v1:kp:")).source
    provider = KmsV1Provider("kp", SavedKeys({source.source_digest: b"x" * 33}))
    with pytest.raises(KeyDoesNotFit) as refusal:
        provider.unseal(stored.removeprefix(provider.prefix), key)
    assert refusal.value.reasons == (Reason.DEK_BAD_SIZE,)


def test_keks_are_a_key_source_for_both_apis() -> None:
    text = json.dumps({"current": "kek-1", "keks": {"kek-1": "11" * 32, "kek-2": "22" * 32}})
    saved = read_key_file(text)
    for api, forms in ((Api.V1, (Form.V1_GCM, Form.V1_CBC)), (Api.V2, (Form.V2_SEED, Form.V2_DEK))):
        store = Store()
        for form in forms:
            store.seal_as(form, local_keks(api, current="kek-2"), 2)
        store.open_all(KmsV1Provider("kp", saved) if api is Api.V1 else KmsV2Provider("kp", saved))
        (answer,) = unwrap_sources(store.collect(api), [], store.fetch, known=[saved])
        assert (answer.known, answer.complete) == (2, True)
    gone = read_key_file(text.replace("kek-2", "kek-3"))
    with pytest.raises(UnwrapFailed) as refusal:
        gone.candidates(local_keks(Api.V2, current="kek-2").wrap(b"k" * 32))
    assert refusal.value.category is Category.KEY_UNKNOWN
    assert "2222" not in repr(saved)


def test_the_only_saved_key_is_kept_for_damaged_values_when_nobody_can_be_asked() -> None:
    store = Store()
    keks = local_keks(Api.V2)
    store.seal_by(keks, 1)
    sources = store.collect(Api.V2)
    (answer,) = unwrap_sources(sources, [keks], store.fetch)
    source = sources.fetch(0, store.fetch)
    key = answer.keys.candidates(source)[0]
    store.values[0] = (b"/moved", store.values[0][1])
    saved = SavedKeys({source.source_digest: key})
    (offline,) = unwrap_sources(sources, [], store.fetch, known=[saved])
    assert (offline.failures, offline.known, offline.unproven[0].objects) == ((), 1, 1)
    with pytest.raises(KeyDoesNotFit) as refusal:
        KmsV2Provider("kp", offline.keys).unseal(store.values[0][1].removeprefix(b"k8s:enc:kms:v2:kp:"), b"/moved")
    assert refusal.value.reasons == (Reason.GCM_AUTH,)
    guesses = SavedKeys({}, {"kp": (key, bytes(32))})
    (unknown,) = unwrap_sources(sources, [], store.fetch, known=[guesses])
    assert [group.category for group in unknown.failures] == [Category.NOT_ASKED]
