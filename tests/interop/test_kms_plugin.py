"""The KMS client and a plugin in another process: docs/formats/kms.md, "The protocol", over real gRPC on real unix
sockets.

Calls are counted from the plugin's journal, never from what the client believes it did. Every row of section 6 is here.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import pwd
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from snaptool.providers.kms import AskingKeys, KmsV1Provider, KmsV2Provider, WriteKey
from snaptool.providers.kms_envelope import SourceType, WrappedSource, decode_v1, decode_v2, hash_key_id
from snaptool.providers.kms_grpc import GrpcKms, parse_endpoint
from snaptool.providers.kms_keys import (
    FreshWriteKeys,
    check_service,
    make_write_key,
    make_write_keys,
    rewrap_sources,
)
from snaptool.providers.kms_pace import Pace, Retry
from snaptool.providers.kms_saved import read_key_file, write_key_file
from snaptool.providers.kms_service import Category, KmsAnsweredWrongly, KmsError, KmsRefused, KmsUnreachable
from snaptool.providers.kms_sources import plan_reading, plan_rewrapping, plan_writing
from snaptool.providers.kms_unwrapping import Unwrapping, unwrap_sources, unwrapped_pairs
from snaptool.providers.kms_words import known_words
from snaptool.providers.provider import Api, KeyDoesNotFit, Reason
from tests.support.kms_formats import Local, Wrapped
from tests.support.kms_plugin import REPOSITORY, RunningPlugin, kms_plugin
from tests.support.kms_values import KMS_VECTORS, Form, Store, local_keks, plaintext_of
from tests.support.local_keks import LocalKeks

QUICK = Retry(tries=5, first_wait=0.02, longest_wait=0.2)


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningPlugin]:
    with kms_plugin() as plugin:
        yield plugin


@pytest.fixture
def plugin(shared: RunningPlugin) -> RunningPlugin:
    """The module's plugin as new: no faults, both APIs, kek-1 current, an empty journal."""
    shared.control(faults=[], apis=["v1", "v2"], rotate="kek-1")
    shared.forget()
    return shared


@contextlib.contextmanager
def client(
    plugin: RunningPlugin | str, api: Api = Api.V2, provider: str = "kp", timeout: float = 3.0, **more: Any
) -> Iterator[GrpcKms]:
    endpoint = plugin if isinstance(plugin, str) else plugin.endpoint
    service = GrpcKms(provider, api, parse_endpoint(endpoint), timeout=timeout, **({"retry": QUICK} | more))
    try:
        yield service
    finally:
        service.close()


def unwrap_all(store: Store, service: GrpcKms, **more: Any) -> Unwrapping:
    (answer,) = unwrap_sources(store.collect(service.api, service.provider), [service], store.fetch, **more)
    return answer


def reader(answer: Unwrapping) -> KmsV1Provider | KmsV2Provider:
    """The provider as a worker gets it: through pickle."""
    cls = KmsV1Provider if answer.api is Api.V1 else KmsV2Provider
    found: KmsV1Provider | KmsV2Provider = pickle.loads(pickle.dumps(cls(answer.provider, answer.keys)))  # noqa: S301 - our own
    return found


# -- the protocol


def test_case_06_v1_asks_version_once_before_the_first_decrypt(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V1), 1, 1)
    with client(plugin, Api.V1) as service:
        for _, stored in store.values:
            service.unwrap(decode_v1("kp", stored.removeprefix(b"k8s:enc:kms:v1:kp:")).source)
    assert plugin.methods() == ["Version", "Decrypt", "Decrypt"]


def test_case_07_v1_version_mismatch_names_both_and_is_asked_again(plugin: RunningPlugin) -> None:
    plugin.fail({"kind": "status", "version": "v1", "first": 1, "method": "Version"})
    with client(plugin, Api.V1) as service:
        with pytest.raises(KmsAnsweredWrongly, match="'v1', not 'v1beta1'"):
            service.wrap(b"k" * 32)
        service.wrap(b"k" * 32)
    assert plugin.methods() == ["Version", "Version", "Encrypt"]


def test_case_08_v1_requests_carry_the_version(plugin: RunningPlugin) -> None:
    with client(plugin, Api.V1) as service:
        assert service.unwrap(service.wrap(b"k" * 32)) == b"k" * 32
    assert [call["version"] for call in plugin.calls()] == ["v1beta1"] * 3


def test_case_09_v2_requests_carry_the_stored_bytes_and_a_fresh_uid(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V2), 1, 1)
    with client(plugin) as service:
        assert unwrap_all(store, service).complete
    calls = plugin.calls("Decrypt")
    assert len({uuid.UUID(call["uid"]).hex for call in calls}) == 2
    assert {uuid.UUID(call["uid"]).version for call in calls} == {4}
    sources = [decode_v2("kp", stored.removeprefix(b"k8s:enc:kms:v2:kp:")).source for _, stored in store.values]
    assert sorted((call["ciphertext"], call["key_id"]) for call in calls) == sorted(
        (source.source.hex(), source.key_id) for source in sources
    )
    assert all(call["annotations"] == {"version.testkms.snaptool.example": "31"} for call in calls)


@pytest.mark.parametrize("api", Api)
def test_case_10_server_sees_authority_localhost(plugin: RunningPlugin, api: Api) -> None:
    plugin.fail({"kind": "authority"})
    with client(plugin, api) as service:
        service.unwrap(service.wrap(b"k" * 32))
    assert {call["authority"] for call in plugin.calls()} == {"localhost"}


def test_abstract_socket_serves_both_apis() -> None:
    with kms_plugin(address=f"@snaptool-test-{os.getpid()}") as plugin:
        assert plugin.endpoint.startswith("unix:///@")
        for api in Api:
            with client(plugin, api) as service:
                assert service.unwrap(service.wrap(b"k" * 32)) == b"k" * 32


def test_socket_path_with_characters_that_urls_and_grpcio_interpret() -> None:
    with tempfile.TemporaryDirectory(prefix="testkms-") as name:
        real = Path(name) / "a%41?b#c é.sock"
        with kms_plugin() as plugin:
            real.symlink_to(plugin.address)
            with client("unix://" + quote(str(real))) as service:
                assert service.endpoint.address == str(real)
                assert service.unwrap(service.wrap(b"k" * 32)) == b"k" * 32


STATUS = [one for one in KMS_VECTORS["status_validation"] if one["kube_apiserver"] == ">=1.29"]


@pytest.mark.parametrize("vector", STATUS, ids=lambda vector: vector["why"][:40] or vector["status"]["version"])
def test_case_11_status_validation(plugin: RunningPlugin, vector: dict[str, Any]) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V2), 1)
    status = vector["status"]
    faults: list[dict[str, Any]] = [
        {"kind": "status", "method": "Status", **status},
        {"kind": "encrypt", "method": "Encrypt", "key_id": vector["encrypt_key_id"]},
        # Under the foreign key id the plugin could not decrypt; what is asked here is how Status is judged.
        {"kind": "plaintext", "method": "Decrypt", "bytes": 0},
    ]
    with client(plugin, sleep=lambda _: None) as service:
        assert unwrap_all(store, service).complete  # unhealthy does not block reading
        if vector["first_version_seen"]:
            plugin.fail({"kind": "status", "version": vector["first_version_seen"]})
            service.status()
        plugin.fail(*faults)
        with pytest.raises(KmsAnsweredWrongly) as refusal:
            make_write_key(service, sleep=lambda _: None)
    if vector["healthy"]:
        assert "came back as another" in str(refusal.value)  # it got as far as the round trip
    elif vector["encrypt_key_id"] != status["key_id"] and status["key_id"] and len(status["key_id"]) <= 1024:
        assert "Status keeps saying" in str(refusal.value)
    else:
        assert refusal.value.category is Category.UNHEALTHY


def test_healthy_status_makes_a_write_key(plugin: RunningPlugin) -> None:
    for version in ("v2", "v2beta1"):
        plugin.fail({"kind": "status", "version": version})
        with client(plugin) as service:
            assert make_write_key(service).source.key_id == "kek-1"


# -- writing


def test_case_12_lagging_status_is_asked_again_and_the_write_succeeds() -> None:
    with kms_plugin("--kind", "gcp") as plugin, client(plugin) as service:
        pauses: list[float] = []
        made = make_write_key(service, sleep=pauses.append)
        assert made.source.key_id.endswith("/cryptoKeyVersions/1")
        assert plugin.methods() == ["Status", "Encrypt", "Status", "Decrypt"]
        plugin.control(rotate="2")
        plugin.forget()
        assert make_write_key(service, sleep=pauses.append).source.key_id.endswith("/cryptoKeyVersions/2")
        assert plugin.methods() == ["Status", "Encrypt", "Status", "Decrypt"]
    assert pauses == [1.0, 1.0]


def test_case_13_status_that_never_agrees_with_encrypt_stops_the_write(plugin: RunningPlugin) -> None:
    plugin.fail({"kind": "encrypt", "key_id": "another"})
    with client(plugin) as service, pytest.raises(KmsAnsweredWrongly, match="Status keeps saying") as refusal:
        make_write_key(service, sleep=lambda _: None)
    assert plugin.methods() == ["Status", "Encrypt", "Status", "Status", "Status"]
    assert hash_key_id("another") in str(refusal.value)
    assert "another" not in str(refusal.value).replace(hash_key_id("another"), "")


BAD_ENCRYPTS: list[tuple[dict[str, Any], Reason]] = [
    ({"ciphertext_bytes": 0}, Reason.KMSV2_BAD_DEK_SOURCE),
    ({"ciphertext_bytes": 1025}, Reason.KMSV2_BAD_DEK_SOURCE),
    ({"ciphertext_bytes": 70_000}, Reason.KMSV2_BAD_DEK_SOURCE),
    ({"key_id": ""}, Reason.KMSV2_BAD_KEY_ID),
    ({"key_id": "k" * 1025}, Reason.KMSV2_BAD_KEY_ID),
    ({"annotations": {"nodots": "1"}}, Reason.KMSV2_BAD_ANNOTATIONS),
    ({"annotation_bytes": 32769}, Reason.KMSV2_BAD_ANNOTATIONS),
]


@pytest.mark.parametrize(("fault", "reason"), BAD_ENCRYPTS)
def test_case_14_encrypt_answers_beyond_the_limits_are_refused(
    plugin: RunningPlugin, fault: dict[str, Any], reason: Reason
) -> None:
    plugin.fail({"kind": "encrypt", **fault})
    with client(plugin) as service, pytest.raises(KmsAnsweredWrongly, match=reason):
        make_write_key(service)
    assert "Decrypt" not in plugin.methods()


@pytest.mark.parametrize("size", [0, 65536])
def test_case_14_v1_cipher_that_cannot_be_stored_is_refused(plugin: RunningPlugin, size: int) -> None:
    plugin.fail({"kind": "encrypt", "ciphertext_bytes": size})
    with client(plugin, Api.V1) as service, pytest.raises(KmsAnsweredWrongly, match=f"{size} bytes"):
        make_write_key(service)


@pytest.mark.parametrize("form", ["raw", "hex", "base64", "annotation"])
def test_case_15_pass_through_plugin_is_refused_without_the_override(plugin: RunningPlugin, form: str) -> None:
    plugin.fail({"kind": "pass_through", "as": form})
    with client(plugin) as service:
        with pytest.raises(KmsAnsweredWrongly, match="does not encrypt"):
            make_write_key(service)
        # With the override the next check decides: this plugin cannot undo its own pass-through.
        with pytest.raises(KmsRefused):
            make_write_key(service, allow_pass_through=True)


@pytest.mark.parametrize("api", Api)
def test_case_16_plugin_that_does_not_give_the_key_back_is_refused(plugin: RunningPlugin, api: Api) -> None:
    plugin.fail({"kind": "plaintext", "method": "Decrypt", "bytes": 32})
    with client(plugin, api) as service, pytest.raises(KmsAnsweredWrongly, match="came back as another"):
        make_write_key(service)


def test_case_20_v2_rewrite_takes_one_status_one_encrypt_one_decrypt(plugin: RunningPlugin) -> None:
    with client(plugin) as service:
        write = make_write_key(service)
    assert plugin.methods() == ["Status", "Encrypt", "Decrypt"]
    assert plan_writing("kp", Api.V2, 1000).calls == {"Status": 1, "Encrypt": 1, "Decrypt": 1}
    store = Store()
    store.seal(1000, Api.V2, write)
    envelopes = [decode_v2("kp", stored.removeprefix(b"k8s:enc:kms:v2:kp:")) for _, stored in store.values]
    assert {envelope.source for envelope in envelopes} == {write.source}
    assert len({envelope.body[:32] for envelope in envelopes}) == 1000
    assert len(plugin.calls()) == 3


def test_case_21_v1_rewrite_reuses_one_dek(plugin: RunningPlugin) -> None:
    with client(plugin, Api.V1) as service:
        keys = make_write_keys(service, 1000)
    assert plugin.methods() == ["Version", "Encrypt", "Decrypt"]
    assert plan_writing("kp", Api.V1, 1000).calls == {"Version": 1, "Encrypt": 1, "Decrypt": 1}
    store = Store()
    store.seal(1000, Api.V1, keys.keys[0])
    envelopes = [decode_v1("kp", stored.removeprefix(b"k8s:enc:kms:v1:kp:")) for _, stored in store.values]
    assert len({envelope.source for envelope in envelopes}) == 1
    assert len({envelope.body[:12] for envelope in envelopes}) == 1000


def test_case_21_one_dek_for_every_2_20_objects(plugin: RunningPlugin) -> None:
    with client(plugin, Api.V1) as service:
        assert len(make_write_keys(service, (1 << 20) * 2 + 1).keys) == 3
    assert len(plugin.calls("Encrypt")) == 3
    assert plan_writing("kp", Api.V1, (1 << 20) * 2 + 1).calls == {"Version": 1, "Encrypt": 3, "Decrypt": 3}


def test_case_22_v1_dek_per_object(plugin: RunningPlugin) -> None:
    with client(plugin, Api.V1) as service, FreshWriteKeys(service, 1000, concurrency=4) as keys:
        provider = KmsV1Provider("kp", AskingKeys(service), keys)
        sealed = [provider.seal(b"{}", b"/k%d" % i, os.urandom) for i in range(1000)]
        assert len(plugin.calls("Encrypt")) == 1000
        assert max(call["in_flight"] for call in plugin.calls("Encrypt")) <= 4
        assert provider.unseal(sealed[7], b"/k7").plaintext == b"{}"
        provider.seal(b"{}", b"/one-more", os.urandom)
        assert len(plugin.calls("Encrypt")) == 1001
    assert plan_writing("kp", Api.V1, 1000, dek_per_object=True).calls["Encrypt"] == 1000
    assert len({decode_v1("kp", payload).source for payload in sealed}) == 1000


def test_dek_per_object_stops_at_a_refusal(plugin: RunningPlugin) -> None:
    plugin.fail({"kind": "error", "method": "Encrypt", "code": "PERMISSION_DENIED", "every": 5})
    with client(plugin, Api.V1) as service, FreshWriteKeys(service, 100, concurrency=2) as keys:
        provider = KmsV1Provider("kp", AskingKeys(service), keys)
        with pytest.raises(KmsRefused) as refusal:
            [provider.seal(b"{}", b"/k%d" % i, os.urandom) for i in range(10)]
    assert refusal.value.category is Category.ACCESS_DENIED
    assert len(plugin.calls("Encrypt")) < 10


# -- reading


def test_case_17_1000_objects_over_5_seeds_take_5_decrypts(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V2), 500, 300, 100, 50, 50)
    sources = store.collect(Api.V2)
    assert (sources.objects, len(sources)) == (1000, 5)
    assert plan_reading(sources).calls == {"Decrypt": 5}
    with client(plugin) as service:
        answer = unwrap_all(store, service, concurrency=1)
    assert plugin.methods() == ["Decrypt"] * 5
    first = decode_v2("kp", store.values[0][1].removeprefix(b"k8s:enc:kms:v2:kp:")).source
    assert plugin.calls()[0]["ciphertext"] == first.source.hex()  # the most used one
    assert (answer.asked, answer.known, answer.failures, answer.unproven) == (5, 0, (), frozenset())
    store.open_all(reader(answer))
    assert len(plugin.calls()) == 5


def test_case_19_same_wrapped_seed_under_another_id_type_or_annotation_is_another_question(
    plugin: RunningPlugin,
) -> None:
    keks = local_keks(Api.V2)
    seed = os.urandom(32)
    wrapped = keks.wrap(seed)
    variants = [
        wrapped,
        WrappedSource(**members(wrapped) | {"key_id": "kek-2"}),
        WrappedSource(**members(wrapped) | {"source_type": SourceType.AES_GCM_KEY}),
        WrappedSource(**members(wrapped) | {"annotations": (("other.example.com", b"1"),)}),
    ]
    store = Store()
    for variant in variants:
        store.seal(2, Api.V2, WriteKey(variant, seed))
    with client(plugin) as service:
        answer = unwrap_all(store, service)
    assert len(plugin.calls("Decrypt")) == 7  # what failed was asked for again
    # Another id and another annotation are not the plugin's; the seed is not a key of the other type.
    assert sum(group.sources for group in answer.failures) == 3


def members(source: WrappedSource) -> dict[str, Any]:
    names = ("provider", "api", "source_type", "source", "key_id", "annotations")
    return {name: getattr(source, name) for name in names}


@pytest.mark.parametrize("api", Api)
def test_case_23_and_24_stored_vectors_open_through_a_plugin(api: Api) -> None:
    with kms_plugin() as plugin:
        plugin.stop()
        keks = KMS_VECTORS["local_plugin"]["keks"]
        (plugin.folder / "keks.json").write_text(f'{{"current": "kek-1", "keks": {keks}}}'.replace("'", '"'))
        plugin.start()
        for vector in KMS_VECTORS[f"storage_{api}"]:
            if vector.get("provider", "testkms") == "awskms":
                continue
            plugin.forget()
            with client(plugin, api, vector.get("provider", "testkms")) as service:
                keys = AskingKeys(service)
                provider = (
                    KmsV1Provider(service.provider, keys, plausible=lambda text: text[:4] == b"k8s\0")
                    if api is Api.V1
                    else KmsV2Provider(service.provider, keys)
                )
                payload = bytes.fromhex(vector["stored"]).removeprefix(provider.prefix)
                context = vector.get("etcd_key_text", "/registry/secrets/default/s1").encode()
                if vector["expect"].startswith("decrypt"):
                    assert provider.unseal(payload, context).plaintext.hex() == vector["plaintext"]
                else:
                    with pytest.raises(KeyDoesNotFit):
                        provider.unseal(payload, context)
                    no_call = "plugin call" in vector["expect"]
                    assert (plugin.calls() == []) is no_call, vector["name"]
                    if vector["name"] == "v2 key id unknown to the plugin":
                        assert [failure.category for failure in keys.failures] == [Category.KEY_UNKNOWN]


@pytest.mark.parametrize(
    "case", KMS_VECTORS["local_plugin"]["cases"], ids=lambda case: f"{case['api']}-{case['key_id']}"
)
def test_known_answers_of_the_test_plugin_unwrap_without_it(case: dict[str, Any]) -> None:
    keks = {name: bytes.fromhex(key) for name, key in KMS_VECTORS["local_plugin"]["keks"].items()}
    annotations = {name: bytes.fromhex(value) for name, value in case.get("annotations", {}).items()}
    wrapped = bytes.fromhex(case.get("ciphertext") or case["cipher"])
    plugin = Local(keks, "kek-1")
    assert plugin.unwrap(case["api"], Wrapped(wrapped, case["key_id"], annotations)).hex() == case["plaintext"]
    service = LocalKeks("kp", Api(case["api"]), keks, "kek-1")
    source = WrappedSource(
        provider="kp",
        api=Api(case["api"]),
        source_type=SourceType.HKDF_SEED if case["api"] == "v2" else SourceType.AES_GCM_KEY,
        source=wrapped,
        key_id=case["key_id"] if case["api"] == "v2" else "",
        annotations=tuple(annotations.items()),
    )
    assert service.unwrap(source).hex() == case["plaintext"]


def test_all_stored_forms_over_several_keys_open_and_tell_what_is_stale(plugin: RunningPlugin) -> None:
    for api, forms in ((Api.V1, (Form.V1_GCM, Form.V1_CBC)), (Api.V2, (Form.V2_SEED, Form.V2_DEK))):
        store = Store()
        for form in forms:
            for current in ("kek-1", "kek-2"):
                store.seal_as(form, local_keks(api, current=current), 3)
        with client(plugin, api) as service:
            answer = unwrap_all(store, service)
        assert (answer.sources, answer.objects, answer.failures, answer.unproven) == (4, 12, (), frozenset())
        provider = reader(answer)
        store.open_all(provider)
        stale = [provider.unseal(stored.removeprefix(provider.prefix), key).stale for key, stored in store.values]
        assert stale == [False] * 6 + [True] * 6
    assert len(plugin.calls("Decrypt")) == 8


def test_case_27_second_provider_of_the_same_name_is_asked_what_the_first_cannot(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V1, current="kek-2"), 1, 1, 1)
    store.seal_by(local_keks(Api.V1), 1, 1)
    with kms_plugin() as other, client(other, Api.V1) as first, client(plugin, Api.V1) as second:
        other.control(remove="kek-2")
        sources = store.collect(Api.V1)
        one, two = unwrap_sources(sources, [first, second], store.fetch, concurrency=1)
        assert len(other.calls("Decrypt")) == 5
    assert len(plugin.calls("Decrypt")) == 3
    assert (sum(group.sources for group in one.failures), two.failures) == (3, ())
    providers = [reader(one), reader(two)]
    for number, (key, stored) in enumerate(store.values):
        payload = stored.removeprefix(b"k8s:enc:kms:v1:kp:")
        chosen = providers[0 if number >= 3 else 1]
        assert chosen.unseal(payload, key).plaintext.startswith(b"k8s\0")
    with pytest.raises(KeyDoesNotFit) as refusal:
        providers[0].unseal(store.values[0][1].removeprefix(b"k8s:enc:kms:v1:kp:"), store.values[0][0])
    assert refusal.value.reasons == (Reason.KMS_UNWRAP_FAILED,)


def test_case_39_rotation_between_reading_and_writing(plugin: RunningPlugin) -> None:
    store = Store()
    with client(plugin) as service:
        store.seal(10, Api.V2, make_write_key(service))
        answer = unwrap_all(store, service)
        plugin.control(rotate="kek-2")
        write = make_write_key(service)
    store.open_all(reader(answer))
    assert write.source.key_id == "kek-2"
    stale = KmsV2Provider("kp", answer.keys, write)
    key, stored = store.values[0]
    assert stale.unseal(stored.removeprefix(stale.prefix), key).stale
    fresh = Store()
    fresh.seal(10, Api.V2, write)
    with client(plugin) as service:
        fresh.open_all(reader(unwrap_all(fresh, service)))


def test_case_48_value_of_another_provider_is_nobodys(plugin: RunningPlugin) -> None:
    store = Store("other")
    store.seal_by(local_keks(Api.V2, "other"), 1)
    assert len(store.collect(Api.V2, "kp")) == 0
    assert not store.values[0][1].startswith(KmsV2Provider("kp", AskingKeys(local_keks(Api.V2))).prefix)
    assert plugin.calls() == []


def test_case_49_never_more_in_flight_than_allowed(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V1), *[1] * 400)
    plugin.fail({"kind": "slow", "method": "Decrypt", "seconds": 0.02})
    with client(plugin, Api.V1) as service:
        service.status()
        started = time.monotonic()
        answer = unwrap_all(store, service, concurrency=4)
        seconds = time.monotonic() - started
    assert answer.complete
    in_flight = [call["in_flight"] for call in plugin.calls("Decrypt")]
    assert (len(in_flight), max(in_flight)) == (400, 4)
    assert 2.0 <= seconds < 10  # 400 times 20 ms by 4; the rest is this machine


def test_rate_limit_holds_across_threads(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V1), *[1] * 30)
    with client(plugin, Api.V1, pace=Pace(50)) as service:
        started = time.monotonic()
        assert unwrap_all(store, service).complete
        assert time.monotonic() - started >= 29 / 50


@pytest.mark.parametrize(
    ("code", "category"),
    [("PERMISSION_DENIED", Category.ACCESS_DENIED), ("FAILED_PRECONDITION", Category.KEY_DISABLED)],
)
def test_case_50_a_refusal_that_meets_all_is_heard_a_handful_of_times(
    plugin: RunningPlugin, code: str, category: Category
) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V1), *[1] * 500)
    plugin.fail({"kind": "error", "method": "Decrypt", "code": code, "text": "no"})
    with client(plugin, Api.V1) as service:
        answer = unwrap_all(store, service)
    assert 48 <= len(plugin.calls("Decrypt")) <= 64  # 24 in each of two looks, and what was in flight
    (group,) = answer.failures
    assert (group.category, group.sources, group.objects) == (category, 500, 500)
    assert 24 <= group.asked <= 48
    error = answer.error()
    assert isinstance(error, KmsRefused)
    assert "gave no key for 500 of 500 values" in str(error)
    assert "/registry/secrets/default/s0" in str(error)


# -- section 6, row by row


def fails(plugin: RunningPlugin | str, api: Api = Api.V2, **more: Any) -> KmsError:
    with client(plugin, api, **more) as service, pytest.raises(KmsError) as refusal:
        service.wrap(b"SECRET KEY OF 32 BYTES, DO NOT SHOW")
    assert "SECRET" not in str(refusal.value) + repr(refusal.value) + refusal.value.detail
    return refusal.value


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="testkms-") as name:
        yield Path(name)


@pytest.mark.parametrize("api", Api)
def test_case_28_absent_plugin_is_unreachable_at_once(folder: Path, api: Api) -> None:
    started = time.monotonic()
    error = fails(f"unix://{folder}/kms.sock", api, timeout=10)
    assert time.monotonic() - started < 1
    assert isinstance(error, KmsUnreachable)
    assert (error.category, error.attempts) == (Category.UNREACHABLE, 1)
    assert f"no socket at {folder}/kms.sock (ENOENT)" in str(error)
    assert "--kms-endpoint kp=" in error.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="taking permissions away from oneself needs a second user: run as root")
def test_case_29_wrong_permissions_name_path_owner_mode_and_parent(plugin: RunningPlugin) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    script = (
        "import os, sys\n"
        "from snaptool.providers.kms import Api, KmsError\n"
        "from snaptool.providers.kms_grpc import GrpcKms, parse_endpoint\n"
        f"os.setuid({nobody})\n"
        "try: GrpcKms('kp', Api.V2, parse_endpoint(sys.argv[1])).status()\n"
        "except KmsError as error: print(error.category, error, error.hint)\n"
    )

    def as_nobody() -> str:
        command = [sys.executable, "-c", script, plugin.endpoint]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout

    folder = plugin.folder
    assert f"the folder {folder} may not be searched" in as_nobody()
    folder.chmod(0o755)
    try:
        text = as_nobody()
    finally:
        folder.chmod(0o700)
    assert text.startswith("socket_permission ")
    assert f"{plugin.address} as uid {nobody}: it has mode 0600 and belongs to uid 0 (EACCES)" in text


def test_case_30_regular_file_and_stale_socket_are_told_apart(folder: Path) -> None:
    (folder / "file").write_text("not a socket")
    assert "is not a socket (ECONNREFUSED)" in str(fails(f"unix://{folder}/file"))
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(folder / "stale.sock"))
    error = fails(f"unix://{folder}/stale.sock")
    assert "leftover (ECONNREFUSED)" in str(error)
    assert error.category is Category.UNREACHABLE


def test_abstract_socket_without_listener_hints_at_the_network_namespace() -> None:
    error = fails("unix:///@snaptool-nobody-listens-here")
    assert "abstract socket @snaptool-nobody-listens-here (ECONNREFUSED)" in str(error)
    assert "network namespace" in error.hint


def test_case_31_http_1_server_is_not_a_plugin(folder: Path) -> None:
    class Web(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with socketserver.ThreadingUnixStreamServer(str(folder / "web.sock"), Web) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            error = fails(f"unix://{folder}/web.sock")
        finally:
            server.shutdown()
            thread.join()
    assert error.category is Category.NOT_A_PLUGIN
    assert "not a gRPC KMS plugin" in str(error)


def test_case_32_slow_plugin_times_out_and_is_retried_within_bounds(plugin: RunningPlugin) -> None:
    plugin.fail({"kind": "slow", "method": "Encrypt", "seconds": 5})
    started = time.monotonic()
    error = fails(plugin, timeout=0.25, retry=Retry(tries=3, first_wait=0.01))
    assert time.monotonic() - started < 2
    assert isinstance(error, KmsUnreachable)
    assert (error.category, error.attempts) == (Category.TIMEOUT, 3)
    assert "within 0.25 s (tried 3 times)" in str(error)
    assert "--kms-timeout" in error.hint
    assert len(plugin.calls("Encrypt")) == 3


def test_retries_end_with_the_overall_cap(plugin: RunningPlugin) -> None:
    plugin.fail({"kind": "error", "code": "RESOURCE_EXHAUSTED", "text": "slow down"})
    error = fails(plugin, retry=Retry(tries=100, first_wait=0.1, overall=0.3))
    assert error.attempts < 6
    assert error.category is Category.THROTTLED


def test_case_33_unavailable_three_times_then_fine(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V2), 1)
    plugin.fail({"kind": "error", "method": "Decrypt", "code": "UNAVAILABLE", "text": "starting", "first": 3})
    with client(plugin) as service:
        assert unwrap_all(store, service).complete
        assert (service.traffic.retries, service.traffic.calls["Decrypt"]) == (3, 4)
    assert len(plugin.calls("Decrypt")) == 4


def test_throttling_slows_down_and_goes_on(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V1), *[1] * 20)
    plugin.fail({"kind": "error", "method": "Decrypt", "code": "UNKNOWN", "text": "ThrottlingException", "every": 5})
    slept: list[float] = []
    with client(plugin, Api.V1, pace=Pace(sleep=slept.append)) as service:
        answer = unwrap_all(store, service, concurrency=2)
        assert answer.complete
        assert service.traffic.throttled >= 4
    assert slept  # there was no rate before
    assert len(plugin.calls("Decrypt")) == 20 + service.traffic.throttled


def test_case_34_failed_precondition_is_not_retried(plugin: RunningPlugin) -> None:
    plugin.fail({"kind": "error", "method": "Encrypt", "code": "FAILED_PRECONDITION", "text": "key disabled"})
    error = fails(plugin)
    assert isinstance(error, KmsRefused)
    assert (error.category, error.attempts) == (Category.KEY_DISABLED, 1)
    assert "the data is intact" in error.hint
    assert len(plugin.calls("Encrypt")) == 1


CLOUD_TEXTS = [
    ("failed to decrypt AccessDeniedException: User: arn:aws:iam::1:user/x is not authorized", Category.ACCESS_DENIED),
    ("googleapi: Error 400: k/cryptoKeyVersions/1 is not enabled, current state is: DISABLED.", Category.KEY_DISABLED),
    ('StatusCode=403 -- Original Error: InnerError={"code":"KeyDisabled"}', Category.KEY_DISABLED),
    ("key id aa does not match expected key id bb used for encryption", Category.KEY_UNKNOWN),
    ("failed to decrypt InvalidCiphertextException: ", Category.BAD_CIPHERTEXT),
]


@pytest.mark.parametrize(("text", "category"), CLOUD_TEXTS)
def test_case_35_unknown_with_an_observed_text(plugin: RunningPlugin, text: str, category: Category) -> None:
    plugin.fail({"kind": "error", "code": "UNKNOWN", "text": text})
    error = fails(plugin)
    assert (error.category, error.attempts) == (category, 1)
    assert error.detail == "UNKNOWN"  # the plugin was sent a key, and may show it
    assert error.hint
    with client(plugin) as service, pytest.raises(KmsError) as refusal:
        service.unwrap(local_keks(Api.V2).wrap(b"k" * 32))
    assert refusal.value.category is category
    assert refusal.value.detail == f"UNKNOWN: {known_words(text)}"
    assert known_words(text)


def test_error_text_that_echoes_the_key_is_withheld(plugin: RunningPlugin) -> None:
    key = b"k" * 32
    plugin.fail({"kind": "error", "code": "UNKNOWN", "text": f"cannot encrypt {key.hex()}\n"})
    with client(plugin) as service, pytest.raises(KmsRefused) as refusal:
        service.wrap(key)
    assert key.hex() not in str(refusal.value) + refusal.value.detail
    assert str(refusal.value) == "KMS provider 'kp': Encrypt failed: other (UNKNOWN)"
    assert refusal.value.__suppress_context__  # grpcio's error below it has the text


def test_case_36_plugin_restarted_in_the_middle(plugin: RunningPlugin) -> None:
    del plugin
    store = Store()
    store.seal_by(local_keks(Api.V1), *[1] * 60)
    with kms_plugin() as own, client(own, Api.V1, retry=Retry(tries=8, first_wait=0.1)) as service:
        own.fail({"kind": "slow", "method": "Decrypt", "seconds": 0.02})
        restarted = threading.Event()

        def start() -> None:
            own.start()
            restarted.set()

        def restart(done: int, _: int) -> None:
            if done == 20:
                own.stop(signal.SIGKILL)
                threading.Timer(0.2, start).start()

        answer = unwrap_all(store, service, concurrency=4, progress=restart)
        assert restarted.wait(5)
        asked = [call["ciphertext"] for call in own.calls("Decrypt")]
    assert answer.complete
    store.open_all(reader(answer))
    answered_twice = len(asked) - len(set(asked))
    assert len(set(asked)) == 60
    assert answered_twice <= 4  # those that were in flight when it died


def test_plugin_that_drops_its_connections_is_reconnected_to(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V2), 1, 1, 1, 1, 1, 1)
    plugin.fail({"kind": "restart", "method": "Decrypt", "first": 1})
    with client(plugin, retry=Retry(tries=8, first_wait=0.1)) as service:
        service.status()
        answer = unwrap_all(store, service, concurrency=1)
        assert service.traffic.retries >= 1
    assert answer.complete


def test_plugin_that_dies_for_good_ends_the_run_and_keeps_what_was_answered(plugin: RunningPlugin) -> None:
    del plugin
    store = Store()
    store.seal_by(local_keks(Api.V1), *[1] * 50)
    with kms_plugin() as own, client(own, Api.V1) as service:
        own.fail({"kind": "exit", "method": "Decrypt", "every": 20})
        answer = unwrap_all(store, service, concurrency=2)
        own.stop()
    assert answer.stopped is Category.UNREACHABLE
    assert len(answer.keys) >= 18
    (group,) = answer.failures
    assert group.sources == 50 - len(answer.keys)
    assert isinstance(answer.error(), KmsUnreachable)


@pytest.mark.parametrize(("spoken", "wanted"), [("v1", Api.V2), ("v2", Api.V1)])
def test_case_37_configuration_and_plugin_of_different_versions(
    plugin: RunningPlugin, spoken: str, wanted: Api
) -> None:
    plugin.control(apis=[spoken])
    error = fails(plugin, wanted)
    assert error.category is Category.WRONG_API
    assert f"speaks {spoken} only, the configuration says apiVersion {wanted}" in str(error)
    assert f"apiVersion: {spoken}" in error.hint


def test_plugin_that_lacks_one_method_is_not_said_to_speak_another_version(plugin: RunningPlugin) -> None:
    plugin.control(apis=["v2"])
    plugin.fail({"kind": "error", "method": "Encrypt", "code": "UNIMPLEMENTED", "text": "Method not found!"})
    error = fails(plugin)
    assert "speaks" not in str(error)
    assert "not a KMS v2 plugin" in str(error)


def test_grpc_server_without_kms_is_not_a_kms_plugin(plugin: RunningPlugin) -> None:
    plugin.control(apis=[])
    error = fails(plugin)
    assert "something answers at" in str(error)
    assert "not a KMS v2 plugin" in str(error)


def test_unhealthy_plugin_reads_and_does_not_write(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V2), 3)
    plugin.fail({"kind": "status", "healthz": "vault sealed"})
    with client(plugin) as service:
        store.open_all(reader(unwrap_all(store, service)))
        with pytest.raises(KmsAnsweredWrongly, match="vault sealed") as refusal:
            make_write_key(service)
    assert refusal.value.category is Category.UNHEALTHY
    assert "Encrypt" not in plugin.methods()


def test_case_38_unknown_key_id_of_10_in_1000_is_reported_with_count_and_first_keys(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V2), 495, 495)
    lost = os.urandom(32)
    foreign = WrappedSource(**members(local_keks(Api.V2).wrap(lost)) | {"key_id": "gone"})
    store.seal(10, Api.V2, WriteKey(foreign, lost))
    with client(plugin) as service:
        answer = unwrap_all(store, service)
    assert len(plugin.calls("Decrypt")) == 4
    (group,) = answer.failures
    assert (group.category, group.sources, group.objects) == (Category.KEY_UNKNOWN, 1, 10)
    assert group.key_id_hash == hash_key_id("gone")
    assert group.first_keys == tuple(b"/registry/secrets/default/s%d" % n for n in (990, 991, 992))
    assert "gone" not in str(group).replace(group.key_id_hash, "")
    error = answer.error()
    assert error is not None
    assert "--key-version" in error.hint
    assert f"with --kms-lost kp={group.key_id_hash} drops exactly these 10 values" in error.hint
    provider = reader(answer)
    refused = 0
    for key, stored in store.values:
        try:
            provider.unseal(stored.removeprefix(provider.prefix), key)
        except KeyDoesNotFit as refusal:
            refused += refusal.reasons == (Reason.KMS_UNWRAP_FAILED,)
    assert refused == 10


@pytest.mark.parametrize(("api", "size"), [(Api.V2, 31), (Api.V1, 159), (Api.V1, 0)])
def test_case_47_garbage_of_the_wrong_length_is_named_and_opens_nothing(
    plugin: RunningPlugin, api: Api, size: int
) -> None:
    store = Store()
    store.seal_by(local_keks(api), 2, 2)
    plugin.fail({"kind": "plaintext", "method": "Decrypt", "bytes": size})
    with client(plugin, api) as service:
        answer = unwrap_all(store, service)
    (group,) = answer.failures
    assert (group.sources, group.objects, group.detail) == (2, 4, f"the unwrapped key has {size} bytes")
    error = answer.error()
    assert isinstance(error, KmsAnsweredWrongly)
    assert "gave no key for 4 of 4 values, also when asked again" in str(error)
    expected = Reason.DEK_BAD_SIZE if api is Api.V1 else Reason.KMSV2_SEED_TOO_SHORT
    key, stored = store.values[0]
    with pytest.raises(KeyDoesNotFit) as refusal:
        reader(answer).unseal(stored.removeprefix(reader(answer).prefix), key)
    assert refusal.value.reasons == (expected,)


def test_right_length_garbage_is_asked_about_again_over_a_new_connection(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V2), 2, 2)
    plugin.fail({"kind": "plaintext", "method": "Decrypt", "bytes": 32, "first": 1})
    with client(plugin) as service:
        answer = unwrap_all(store, service, concurrency=1)
    assert (answer.failures, answer.unproven, answer.error()) == ((), frozenset(), None)
    assert plugin.methods() == ["Decrypt"] * 3
    store.open_all(reader(answer))


def test_damaged_value_is_told_by_another_value_of_its_seed(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V2), 2)
    key, stored = store.values[0]
    store.values[0] = (b"/moved" + key, stored)
    with client(plugin) as service:
        answer = unwrap_all(store, service)
    assert answer.unproven == frozenset()  # the second value proves the key, so the first is at fault
    with pytest.raises(KeyDoesNotFit) as refusal:
        reader(answer).unseal(stored.removeprefix(b"k8s:enc:kms:v2:kp:"), b"/moved" + key)
    assert refusal.value.reasons == (Reason.GCM_AUTH,)
    assert len(plugin.calls()) == 1


def test_truncated_answer_is_a_protocol_error(plugin: RunningPlugin) -> None:
    plugin.fail({"kind": "raw", "method": "Encrypt", "hex": "0a20aabb"})
    error = fails(plugin)
    assert isinstance(error, KmsAnsweredWrongly)
    assert error.category is Category.BAD_ANSWER


def test_interruption_cancels_what_is_in_flight(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V1), *[1] * 20)
    plugin.fail({"kind": "slow", "method": "Decrypt", "seconds": 5})
    with client(plugin, Api.V1, timeout=30) as service:
        threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT)).start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            unwrap_all(store, service, concurrency=2)
        assert time.monotonic() - started < 3
    assert len(plugin.calls("Decrypt")) == 2


def test_closing_ends_retries_too(plugin: RunningPlugin) -> None:
    plugin.fail({"kind": "error", "method": "Encrypt", "code": "UNAVAILABLE", "text": "starting"})
    with client(plugin, retry=Retry(tries=1000, first_wait=0.05, longest_wait=0.05)) as service:
        service.status()
        threading.Timer(0.2, service.close).start()
        started = time.monotonic()
        with pytest.raises(KmsError):
            service.wrap(b"k" * 32)
        assert time.monotonic() - started < 2
    before = len(plugin.calls("Encrypt"))
    time.sleep(0.2)
    assert len(plugin.calls("Encrypt")) == before


def _open_in_worker(provider: KmsV1Provider | KmsV2Provider, values: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [provider.unseal(stored.removeprefix(provider.prefix), key).plaintext for key, stored in values]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_open_values_after_the_connection_is_closed(plugin: RunningPlugin, method: str) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V2), 3, 3)
    with client(plugin) as service:
        answer = unwrap_all(store, service)
    plugin.forget()
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        opened = pool.submit(_open_in_worker, KmsV2Provider("kp", answer.keys), store.values).result(timeout=60)
    assert opened == [plaintext_of(number) for number in range(6)]
    assert plugin.calls() == []


def test_plugin_ends_with_the_process_that_started_it() -> None:
    script = (
        "import os, signal\n"
        "from tests.support.kms_plugin import kms_plugin\n"
        "with kms_plugin() as plugin:\n"
        "    print(plugin.process.pid, plugin.folder, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    pid, folder = run.stdout.split()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    shutil.rmtree(folder)


# -- re-wrapping, saved keys, check


def test_rewrap_moves_every_seed_to_another_kek_and_touches_nothing_else() -> None:
    store = Store()
    store.seal_by(local_keks(Api.V2), 5, 3)
    store.seal_as(Form.V2_DEK, local_keks(Api.V2), 1)
    sources = store.collect(Api.V2)
    assert plan_rewrapping(sources).calls == {"Status": 1, "Encrypt": 3, "Decrypt": 6}
    with kms_plugin() as plugin:
        with client(plugin) as service:
            answer = unwrap_all(store, service)
            plugin.control(rotate="kek-2")
            rewrapping = pickle.loads(pickle.dumps(rewrap_sources(sources, answer.keys, service, store.fetch)))  # noqa: S301 - our own
        assert sorted(plugin.methods()) == ["Decrypt"] * 6 + ["Encrypt"] * 3 + ["Status"]
        fresh = Store()
        for key, stored in store.values:
            payload = stored.removeprefix(b"k8s:enc:kms:v2:kp:")
            again = rewrapping.rewrap(payload)
            before, after = decode_v2("kp", payload), decode_v2("kp", again)
            assert after.body == before.body
            assert after.source.key_id == "kek-2"
            assert after.source.source_type is before.source.source_type
            fresh.values.append((key, b"k8s:enc:kms:v2:kp:" + again))
        plugin.control(remove="kek-1")
        with client(plugin) as service:
            fresh.open_all(reader(unwrap_all(fresh, service)))


def test_rewrap_stops_at_a_service_that_does_not_give_keys_back(plugin: RunningPlugin) -> None:
    store = Store()
    store.seal_by(local_keks(Api.V2), 1, 1)
    with client(plugin) as service:
        answer = unwrap_all(store, service)
        plugin.fail({"kind": "plaintext", "method": "Decrypt", "bytes": 32})
        with pytest.raises(KmsAnsweredWrongly, match="came back as another"):
            rewrap_sources(store.collect(Api.V2), answer.keys, service, store.fetch)


@pytest.mark.parametrize("api", Api)
def test_saved_keys_open_everything_without_the_service(plugin: RunningPlugin, api: Api) -> None:
    store = Store()
    store.seal_by(local_keks(api), 3, 2)
    sources = store.collect(api)
    with client(plugin, api) as service:
        answer = unwrap_all(store, service)
    text = write_key_file(unwrapped_pairs(sources, answer.keys, store.fetch))
    plugin.forget()
    (offline,) = unwrap_sources(sources, [], store.fetch, known=[read_key_file(text)])
    assert (offline.known, offline.asked, offline.complete) == (2, 0, True)
    store.open_all(reader(offline))
    with client(plugin, api) as service:
        again = unwrap_all(store, service, known=[read_key_file(text)])
        assert (again.known, again.asked) == (2, 0)
    assert plugin.calls() == []


@pytest.mark.parametrize("api", Api)
def test_check_says_what_the_plugin_is(plugin: RunningPlugin, api: Api) -> None:
    with client(plugin, api) as service:
        found = check_service(service)
    assert (found.round_trip, found.error, found.problems) == (True, None, ())
    assert list(found.seconds) == ["Status" if api is Api.V2 else "Version", "Encrypt", "Decrypt"]
    if api is Api.V2:
        assert (found.plugin, found.version, found.key_id_hash) == ("", "v2", hash_key_id("kek-1"))


def test_check_of_a_lagging_plugin_says_that_it_lags() -> None:
    with kms_plugin("--kind", "gcp") as plugin, client(plugin) as service:
        (problem,) = check_service(service).problems
        assert re.fullmatch("Encrypt used key id sha256:[0-9a-f]{64}, Status had said sha256:[0-9a-f]{64}", problem)
        assert check_service(service).problems == ()


def test_check_reports_an_error_instead_of_raising_it(folder: Path) -> None:
    with client(f"unix://{folder}/kms.sock") as service:
        found = check_service(service)
    assert found.error is not None
    assert found.error.category is Category.UNREACHABLE


def test_decrypt_only_check_asks_for_no_encryption(plugin: RunningPlugin) -> None:
    sample = local_keks(Api.V2).wrap(b"s" * 32)
    with client(plugin) as service:
        assert check_service(service, decrypt_only=True, sample=sample).round_trip is True
        assert check_service(service, decrypt_only=True).round_trip is None
    assert plugin.methods() == ["Status", "Decrypt", "Status"]


@pytest.mark.parametrize(
    ("kind", "guess"),
    [("aws", "AWS KMS"), ("gcp", "Google Cloud KMS"), ("azure", "Azure Key Vault"), ("openshift", "Azure Key Vault")],
)
def test_doubles_of_the_known_plugins_are_read_written_and_recognised(kind: str, guess: str) -> None:
    with kms_plugin("--kind", kind) as plugin:
        for api in Api:
            store = Store()
            with client(plugin, api) as service:
                store.seal(3, api, make_write_key(service, sleep=lambda _: None))
                store.open_all(reader(unwrap_all(store, service)))
                if api is Api.V2:
                    assert check_service(service).plugin == guess


def test_aws_double_with_another_encryption_context_hints_at_the_context_before_corruption() -> None:
    store = Store()
    with kms_plugin("--kind", "aws", "--encryption-context", "cluster=a") as plugin:
        for _ in range(3):
            with client(plugin) as service:
                store.seal(1, Api.V2, make_write_key(service))
    with kms_plugin("--kind", "aws", "--encryption-context", "cluster=b") as plugin, client(plugin) as service:
        answer = unwrap_all(store, service)
    error = answer.error()
    assert error is not None
    assert (error.category, sum(group.sources for group in answer.failures)) == (Category.BAD_CIPHERTEXT, 3)
    assert "region and (AWS) encryption context" in error.hint


@pytest.mark.parametrize(
    ("kind", "command", "category"),
    [
        ("aws", {"remove": "arn:aws:kms:us-east-1:123456789012:key/1111"}, Category.KEY_DISABLED),
        ("gcp", {"remove": "1"}, Category.KEY_DISABLED),
        ("azure", {"rotate": "f" * 32}, Category.KEY_UNKNOWN),
    ],
)
def test_doubles_refuse_in_their_plugins_words(kind: str, command: dict[str, str], category: Category) -> None:
    with kms_plugin("--kind", kind) as plugin, client(plugin) as service:
        store = Store()
        store.seal(2, Api.V2, make_write_key(service, sleep=lambda _: None))
        plugin.control(**command)
        (group,) = unwrap_all(store, service).failures
    assert (group.category, group.objects) == (category, 2)
    assert group.hint
