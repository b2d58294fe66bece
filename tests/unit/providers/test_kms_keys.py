"""Collecting, planning, unwrapping and saving keys, with key services in this process."""

from __future__ import annotations

import base64
import pickle

import pytest

from snaptool.errors import InputError
from snaptool.providers.kms import AskingKeys, KmsV1Provider, KmsV2Provider, UnwrappedKeys
from snaptool.providers.kms_envelope import WrappedSource, decode_envelope, decode_v1, decode_v2
from snaptool.providers.kms_keys import rewrap_sources
from snaptool.providers.kms_saved import SavedKeys
from snaptool.providers.kms_service import Category, KmsError, KmsRefused, KmsUnreachable, UnwrapFailed
from snaptool.providers.kms_sources import SourceCollector, plan_reading, plan_rewrapping, plan_writing
from snaptool.providers.kms_unwrapping import SECOND_LOOK_SECONDS, unwrap_sources
from snaptool.providers.provider import Api, Reason
from tests.support.kms_values import Scripted, Store, local_keks


def no_fetch(place: int) -> tuple[bytes, bytes]:
    raise AssertionError(f"place {place} was fetched")


# -- collecting and planning


def test_collector_counts_objects_and_distinct_sources_and_remembers_three_places() -> None:
    store = Store()
    store.seal_by(local_keks(Api.V2), 2, 5, 1)
    store.values.append((b"/registry/secrets/default/x", b"k8s:enc:kms:v2:kp:\xff"))
    store.values.append((b"/registry/secrets/default/y", b"k8s:enc:aescbc:v1:k:data"))
    sources = store.collect(Api.V2)
    assert (sources.objects, len(sources)) == (8, 3)
    assert [sources.count(number) for number in sources.most_used()] == [5, 2, 1]
    assert [sources.places(number) for number in sources.most_used()] == [[2, 3, 4], [0, 1], [7]]
    assert dict(sources.malformed) == {Reason.KMSV2_BAD_PROTO: 1}


def test_collectors_of_parts_merge_to_the_collector_of_the_whole() -> None:
    store = Store()
    keks = local_keks(Api.V2)
    store.seal_by(keks, 4, 1)
    store.values = store.values[:4] + store.values[:4] + store.values[4:]
    whole = store.collect(Api.V2)
    merged = SourceCollector([(Api.V2, "kp")])
    for part in range(3):
        collector = SourceCollector([(Api.V2, "kp")])
        for place in range(part * 3, part * 3 + 3):
            collector.add(store.values[place][1], place)
        merged.merge(pickle.loads(pickle.dumps(collector)))  # noqa: S301 - our own bytes, as workers send them
    found = merged.sources(Api.V2, "kp")
    assert found.cache_keys() == whole.cache_keys()
    assert [(found.count(n), found.places(n)) for n in range(2)] == [(8, [0, 1, 2]), (1, [8])]
    assert [(whole.count(n), whole.places(n)) for n in range(2)] == [(8, [0, 1, 2]), (1, [8])]


def test_v1_names_with_colons_count_for_every_provider_that_matches_and_parses() -> None:
    store = Store("a:b")
    store.seal_by(local_keks(Api.V1, "a:b"), 3)
    collector = SourceCollector([(Api.V1, "a"), (Api.V1, "a:b")])
    for place, (_, stored) in enumerate(store.values):
        collector.add(stored, place)
    assert len(collector.sources(Api.V1, "a:b")) == 1
    assert len(collector.sources(Api.V1, "a")) == 0
    assert collector.sources(Api.V1, "a").malformed == {Reason.KMSV1_BAD_LENGTH: 3}


@pytest.mark.parametrize(
    ("api", "objects", "calls"),
    [
        (Api.V2, 0, {}),
        (Api.V2, 1_000_000, {"Status": 1, "Encrypt": 1, "Decrypt": 1}),
        (Api.V1, 1_000_000, {"Version": 1, "Encrypt": 1, "Decrypt": 1}),
        (Api.V1, 1 << 20, {"Version": 1, "Encrypt": 1, "Decrypt": 1}),
        (Api.V1, (1 << 20) + 1, {"Version": 1, "Encrypt": 2, "Decrypt": 2}),
    ],
)
def test_plan_of_writing(api: Api, objects: int, calls: dict[str, int]) -> None:
    plan = plan_writing("kp", api, objects)
    assert (plan.calls, plan.total) == (calls, sum(calls.values()))


def test_plans_make_no_call() -> None:
    store = Store()
    store.seal_by(local_keks(Api.V1), 2, 2, 1)
    sources = store.collect(Api.V1)
    assert plan_reading(sources).calls == {"Version": 1, "Decrypt": 3}
    assert plan_rewrapping(sources).calls == {"Version": 1, "Encrypt": 3, "Decrypt": 6}
    assert plan_writing("kp", Api.V1, 5, dek_per_object=True).calls == {"Version": 1, "Encrypt": 5, "Decrypt": 5}


# -- unwrapping


def refusing(category: Category, *, kind: type[KmsError] = KmsRefused) -> KmsError:
    return kind("no", provider="kp", category=category, detail="no")


@pytest.mark.parametrize(
    ("api", "category", "asked"),
    [
        (Api.V1, Category.UNREACHABLE, 1),
        (Api.V1, Category.WRONG_API, 3),
        (Api.V1, Category.TIMEOUT, 3),
        (Api.V1, Category.UNAVAILABLE, 3),
        (Api.V2, Category.ACCESS_DENIED, 8),
        (Api.V2, Category.KEY_DISABLED, 8),
        (Api.V1, Category.KEY_DISABLED, 24),
        (Api.V1, Category.KEY_UNKNOWN, 24),
        (Api.V1, Category.BAD_CIPHERTEXT, 64),
        (Api.V2, Category.OTHER, 64),
    ],
)
def test_case_50_how_often_a_refusal_is_heard_before_asking_ends(api: Api, category: Category, asked: int) -> None:
    store = Store()
    keks = local_keks(api)
    store.seal_by(keks, *[1] * 100)
    heard: list[WrappedSource] = []

    def refuse(source: WrappedSource) -> bytes:
        heard.append(source)
        raise refusing(category)

    (answer,) = unwrap_sources(store.collect(api), [Scripted(keks, refuse)], store.fetch, concurrency=1, sleep=no_sleep)
    looks = 1 if category is Category.UNREACHABLE else 2
    assert len(heard) == looks * asked
    (group,) = answer.failures
    assert (group.category, group.sources, group.asked) == (category, 100, asked)
    with pytest.raises(UnwrapFailed) as refusal:
        answer.keys.candidates(decode_envelope(api, "kp", store.values[99][1][len(b"k8s:enc:kms:v1:kp:") :]).source)
    assert refusal.value.category is category


def no_sleep(seconds: float) -> None:
    assert seconds == SECOND_LOOK_SECONDS


def test_first_keys_of_a_failure_are_the_first_in_the_file_whatever_was_asked_first() -> None:
    store = Store()
    keks = local_keks(Api.V2)
    store.seal_by(keks, 1, 3)

    def refuse(_: WrappedSource) -> bytes:
        raise refusing(Category.KEY_UNKNOWN)

    (answer,) = unwrap_sources(
        store.collect(Api.V2), [Scripted(keks, refuse)], store.fetch, concurrency=1, sleep=no_sleep
    )
    (group,) = answer.failures
    assert group.first_keys == tuple(key for key, _ in store.values[:3])


def test_refusals_of_one_key_id_do_not_end_the_asking_for_another() -> None:
    store = Store()
    old, new = local_keks(Api.V2), local_keks(Api.V2, current="kek-2")
    store.seal_by(old, *[1] * 20)
    store.seal_by(new, *[1] * 5)
    asked: list[str] = []

    def only_new(source: WrappedSource) -> bytes:
        asked.append(source.key_id)
        if source.key_id == "kek-1":
            raise refusing(Category.KEY_DISABLED)
        return new.unwrap(source)

    (answer,) = unwrap_sources(
        store.collect(Api.V2), [Scripted(new, only_new)], store.fetch, concurrency=1, sleep=no_sleep
    )
    assert (asked.count("kek-1"), asked.count("kek-2")) == (16, 5)
    (group,) = answer.failures
    assert (group.sources, group.key_id_hash) == (20, answer.failures[0].key_id_hash)
    assert (answer.complete, answer.stopped, len(answer.keys)) == (False, None, 5)


def test_a_refusal_after_successes_is_the_single_sources_own() -> None:
    store = Store()
    keks = local_keks(Api.V1)
    store.seal_by(keks, *[1] * 100)
    refused = {decode_v1("kp", stored[len(b"k8s:enc:kms:v1:kp:") :]).source for _, stored in store.values[::2]}

    def every_second(source: WrappedSource) -> bytes:
        if source in refused:
            raise refusing(Category.KEY_UNKNOWN)
        return keks.unwrap(source)

    (answer,) = unwrap_sources(
        store.collect(Api.V1), [Scripted(keks, every_second)], store.fetch, concurrency=1, sleep=no_sleep
    )
    assert (answer.asked, len(answer.keys)) == (100, 50)


def test_three_timeouts_in_a_row_end_a_look_and_single_ones_do_not() -> None:
    store = Store()
    keks = local_keks(Api.V1)
    store.seal_by(keks, *[1] * 20)
    script = iter("tt.tt.ttt" + "ttt")

    def slow(source: WrappedSource) -> bytes:
        if next(script) == "t":
            raise refusing(Category.TIMEOUT, kind=KmsUnreachable)
        return keks.unwrap(source)

    (answer,) = unwrap_sources(
        store.collect(Api.V1), [Scripted(keks, slow)], store.fetch, concurrency=1, sleep=no_sleep
    )
    assert (answer.asked, len(answer.keys)) == (9, 2)
    assert isinstance(answer.error(), KmsUnreachable)


def test_a_bug_in_one_thread_ends_all_and_closes_the_service() -> None:
    store = Store()
    keks = local_keks(Api.V1)
    store.seal_by(keks, *[1] * 20)

    def broken(source: WrappedSource) -> bytes:
        raise ZeroDivisionError(source.provider)

    service = Scripted(keks, broken)
    with pytest.raises(ZeroDivisionError):
        unwrap_sources(store.collect(Api.V1), [service], store.fetch)
    assert service.closed


def test_a_key_of_the_right_length_that_opens_nothing_sends_the_source_to_the_next_service() -> None:
    """Two v1 providers of one name behave so in kube-apiserver: the first key fails to open it, the second is tried."""
    store = Store()
    keks = local_keks(Api.V1)
    store.seal_by(keks, 2, 1)
    liar = Scripted(keks, lambda source: bytes(32) if source == wrong else keks.unwrap(source))
    wrong = decode_v1("kp", store.values[2][1].removeprefix(b"k8s:enc:kms:v1:kp:")).source
    asked: list[WrappedSource] = []

    def second(source: WrappedSource) -> bytes:
        asked.append(source)
        return keks.unwrap(source)

    one, two = unwrap_sources(store.collect(Api.V1), [liar, Scripted(keks, second)], store.fetch)
    assert asked == [wrong]
    assert one.keys.candidates(wrong) == (bytes(32),)
    assert (one.unproven, two.unproven, two.failures) == (frozenset([wrong.cache_key]), frozenset(), ())
    assert two.keys.find(wrong.cache_key) == keks.unwrap(wrong)


def test_progress_counts_every_source_once() -> None:
    store = Store()
    keks = local_keks(Api.V2)
    store.seal_by(keks, *[2] * 9)
    seen: list[tuple[int, int]] = []
    unwrap_sources(store.collect(Api.V2), [keks], store.fetch, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 9) for n in range(1, 10)]


def test_nothing_to_unwrap_asks_nobody() -> None:
    sources = Store().collect(Api.V2)
    (answer,) = unwrap_sources(sources, [Scripted(local_keks(Api.V2), no_call)], no_fetch)
    assert (answer.complete, answer.error(), len(answer.keys)) == (True, None, 0)


def no_call(source: WrappedSource) -> bytes:
    raise AssertionError(f"{source} was asked for")


def test_results_print_no_secret() -> None:
    store = Store()
    keks = local_keks(Api.V2)
    store.seal_by(keks, 1)
    (answer,) = unwrap_sources(store.collect(Api.V2), [keks], store.fetch)
    source = decode_v2("kp", store.values[0][1].removeprefix(b"k8s:enc:kms:v2:kp:")).source
    secret = answer.keys.find(source.cache_key)
    assert secret is not None
    saved = SavedKeys({source.source_digest: secret}, {"kp": (secret,)})
    for value in (answer, answer.keys, saved, source, keks):
        for form in (repr(secret)[2:-1], secret.hex(), base64.b64encode(secret).decode()):
            assert form not in repr(value)


def test_asking_keys_asks_twice_and_remembers_refusals_too() -> None:
    store = Store()
    keks = local_keks(Api.V2)
    store.seal_by(keks, 3)
    heard: list[WrappedSource] = []

    def refuse(source: WrappedSource) -> bytes:
        heard.append(source)
        raise refusing(Category.KEY_DISABLED)

    keys = AskingKeys(Scripted(keks, refuse), sleep=no_sleep)
    provider = KmsV2Provider("kp", keys)
    for key, stored in store.values:
        with pytest.raises(UnwrapFailed) as refusal:
            provider.unseal(stored.removeprefix(provider.prefix), key)
        assert refusal.value.reasons == (Reason.KMS_UNWRAP_FAILED,)
        assert refusal.value.failure is keys.failures[0]
    assert len(heard) == 2


def test_rewrapping_to_another_api_is_refused() -> None:
    store = Store()
    store.seal_by(local_keks(Api.V1), 1)
    with pytest.raises(InputError, match="speaks v2"):
        rewrap_sources(store.collect(Api.V1), UnwrappedKeys(), local_keks(Api.V2), store.fetch)


def test_keys_of_an_impossible_length_are_not_rewrapped() -> None:
    store = Store()
    keks = local_keks(Api.V2)
    store.seal_by(keks, 1, 1)
    sources = store.collect(Api.V2)
    first, second = (sources.fetch(number, store.fetch) for number in range(2))
    some = SavedKeys({first.source_digest: b"short", second.source_digest: keks.unwrap(second)})
    assert list(rewrap_sources(sources, some, keks, store.fetch).new) == [second.cache_key]


def test_v1_rewrap_keeps_the_body_and_leaves_out_what_has_no_key() -> None:
    store = Store()
    keks = local_keks(Api.V1)
    store.seal_by(keks, 2, 1)
    sources = store.collect(Api.V1)
    (answer,) = unwrap_sources(sources, [keks], store.fetch)
    lost = decode_v1("kp", store.values[2][1].removeprefix(b"k8s:enc:kms:v1:kp:")).source
    some = UnwrappedKeys.pack(
        sorted(
            (key, found)
            for key in sources.cache_keys()
            if key != lost.cache_key and (found := answer.keys.find(key)) is not None
        )
    )
    new = local_keks(Api.V1, current="kek-2")
    rewrapping = rewrap_sources(sources, some, new, store.fetch)
    provider = KmsV1Provider("kp", AskingKeys(new))
    for key, stored in store.values[:2]:
        payload = stored.removeprefix(provider.prefix)
        fresh = rewrapping.rewrap(payload)
        assert decode_v1("kp", fresh).body == decode_v1("kp", payload).body
        assert decode_v1("kp", fresh).source.source.startswith(b"kek-2|")
        assert provider.unseal(fresh, key).plaintext.startswith(b"k8s\0")
    with pytest.raises(UnwrapFailed):
        rewrapping.rewrap(store.values[2][1].removeprefix(provider.prefix))
