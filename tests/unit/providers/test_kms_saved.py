"""Keys without a key service: files of saved keys."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace

import pytest

from snaptool.providers.kms import KmsV1Provider, KmsV2Provider, WriteKey
from snaptool.providers.kms_envelope import decode_v1
from snaptool.providers.kms_saved import (
    KEY_FILE_FORMAT,
    BadKeyFile,
    SavedKeys,
    read_key_file,
    write_key_file,
)
from snaptool.providers.kms_service import Category, UnwrapFailed
from snaptool.providers.kms_unwrapping import unwrap_sources
from snaptool.providers.provider import Api, KeyDoesNotFit, Reason
from tests.support.kms_values import Store, local_keks


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
    ('{"current": "a", "keks": {"a": "%s"}}' % ("00" * 32), "format"),  # what the test plugin keeps
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


def test_unseal_refuses_a_v1_value_whose_saved_key_has_no_possible_length() -> None:
    store = Store()
    store.seal_by(local_keks(Api.V1), 1)
    key, stored = store.values[0]
    source = decode_v1("kp", stored.removeprefix(b"k8s:enc:kms:v1:kp:")).source
    provider = KmsV1Provider("kp", SavedKeys({source.source_digest: b"x" * 33}))
    with pytest.raises(KeyDoesNotFit) as refusal:
        provider.unseal(stored.removeprefix(provider.prefix), key)
    assert refusal.value.reasons == (Reason.DEK_BAD_SIZE,)


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
    assert (offline.known, offline.unproven) == (0, frozenset([source.cache_key]))
    assert [group.category for group in offline.failures] == [Category.NOT_ASKED]
    with pytest.raises(KeyDoesNotFit) as refusal:
        KmsV2Provider("kp", offline.keys).unseal(store.values[0][1].removeprefix(b"k8s:enc:kms:v2:kp:"), b"/moved")
    assert refusal.value.reasons == (Reason.GCM_AUTH,)
    guesses = SavedKeys({}, {"kp": (key, bytes(32))})
    (unknown,) = unwrap_sources(sources, [], store.fetch, known=[guesses])
    assert [group.category for group in unknown.failures] == [Category.NOT_ASKED]
