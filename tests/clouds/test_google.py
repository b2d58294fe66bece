"""Keys in Cloud KMS: requests as they are given, checksums, errors by body, and Google's own client."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from snaptool.providers.direct import BadDirect, parse_direct
from snaptool.providers.kms_envelope import WrappedSource
from snaptool.providers.kms_service import Category, KmsError
from tests.clouds.asking import PLAINTEXT, VECTORS, refusal, service, source
from tests.clouds.between import Between, Reply
from tests.clouds.conftest import requires
from tests.clouds.doubles import GOOGLE_KEY, CloudKms
from tests.support.cli import GOLDEN

GCP = VECTORS["gcp"]
STORED = bytes.fromhex(GCP["stored"])


@pytest.fixture
def stub(no_proxies: None) -> Iterator[Between]:
    requires("google.auth", "requests")
    del no_proxies
    with Between() as between:
        yield between


@pytest.fixture
def double(no_proxies: None) -> Iterator[CloudKms]:
    requires("google.auth", "requests")
    del no_proxies
    with CloudKms() as made:
        yield made


def said(between: Between, key: str = "", **options: str) -> str:
    more = "".join(f"&{name}={value}" for name, value in options.items())
    return f"gcp{f':{key}' if key else ''}?endpoint={between.url}{more}"


def of_vector(api: str = "v2") -> WrappedSource:
    return source(STORED, api, GCP["key_id"])


@pytest.mark.parametrize(("key", "api"), [("", "v2"), (GOOGLE_KEY, "v1")])
def test_a5_decrypt_is_the_request_that_is_given(stub: Between, key: str, api: str) -> None:
    stub.replies.append(Reply.of(GCP["decrypt"]["response"]["status"], GCP["decrypt"]["response"]["body"]))
    asked = service(said(stub, key), api)
    assert asked.unwrap(of_vector(api)) == PLAINTEXT
    asked.close()
    (one,) = stub.asked
    wanted = GCP["decrypt"]["request"]
    assert (one.method, one.path, one.body) == (wanted["method"], wanted["path"], wanted["body"])
    assert "Authorization" not in one.headers


@pytest.mark.parametrize(("suffix", "end"), [("", ""), ("gen2", ":gen2")])
def test_a5_encrypt_is_the_request_that_is_given(stub: Between, suffix: str, end: str) -> None:
    stub.replies.append(Reply.of(200, GCP["encrypt"]["response"]["body"]))
    asked = service(said(stub, GOOGLE_KEY, **({"suffix": suffix} if suffix else {})))
    wrapped = asked.wrap(PLAINTEXT)
    asked.close()
    (one,) = stub.asked
    wanted = GCP["encrypt"]["request"]
    assert (one.method, one.path, one.body) == (wanted["method"], wanted["path"], wanted["body"])
    assert (wrapped.source, wrapped.key_id, wrapped.annotations) == (STORED, GCP["key_id"] + end, ())


def test_a5_a_missing_checksum_is_fine_and_a_wrong_one_is_not(stub: Between) -> None:
    body = dict(GCP["decrypt"]["response"]["body"])
    asked = service(said(stub))
    del body["plaintextCrc32c"]
    stub.replies.append(Reply.of(200, body))
    assert asked.unwrap(of_vector()) == PLAINTEXT
    wrong: Any
    for wrong in ("1188919631", "", "none", 7, []):
        stub.replies.append(Reply.of(200, body | {"plaintextCrc32c": wrong}))
        assert refusal(asked, of_vector()).category is Category.BAD_ANSWER
    asked.close()
    writing = service(said(stub, GOOGLE_KEY))
    stub.replies.append(Reply.of(200, GCP["encrypt"]["response"]["body"] | {"ciphertextCrc32c": "1"}))
    with pytest.raises(KmsError) as caught:
        writing.wrap(PLAINTEXT)
    writing.close()
    assert caught.value.category is Category.BAD_ANSWER


@pytest.mark.parametrize("one", GCP["errors"], ids=lambda one: one["name"])
def test_a6_category_follows_the_body(stub: Between, one: dict[str, Any]) -> None:
    asked = service(said(stub), tries=1)
    stored = of_vector()
    if one["response"] is None:
        stored = source(STORED, "v2", "projects/p")
    else:
        stub.replies.append(Reply.of(one["response"]["status"], one["response"]["body"]))
    error = refusal(asked, stored)
    asked.close()
    assert error.category == one["category"]
    assert len(stub.asked) == (one["response"] is not None)


STATUSES = {
    400: "bad_ciphertext",
    401: "access_denied",
    403: "access_denied",
    404: "key_unknown",
    418: "other",
    429: "throttled",
    500: "unreachable",
    502: "unreachable",
    503: "unreachable",
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    "content",
    [b"<html>a proxy</html>", b"", b'{"error": "text"}', b"[1]", b'{"error": {"details": [1, {"violations": 5}]}}'],
)
def test_a6_the_status_alone_decides_where_a_body_is_not_the_services(
    stub: Between, status: int, content: bytes
) -> None:
    asked = service(said(stub), tries=1)
    stub.replies.append(Reply(status, content))
    assert refusal(asked, of_vector()).category == STATUSES[status]
    asked.close()


@pytest.mark.parametrize("content", [b"<html>a portal</html>", b"", b"[]", b"1", b'{"plaintext": "?"}'])
def test_a_success_that_is_not_the_services_is_a_bad_answer(stub: Between, content: bytes) -> None:
    asked = service(said(stub))
    stub.replies.append(Reply(200, content))
    assert refusal(asked, of_vector()).category is Category.BAD_ANSWER
    asked.close()


def test_a6_a_missing_quota_project_gets_the_command_that_names_one(stub: Between) -> None:
    text = "Your application is authenticating by local credentials. This API requires a quota project"
    stub.replies.append(Reply.of(403, {"error": {"code": 403, "message": text, "status": "PERMISSION_DENIED"}}))
    asked = service(said(stub))
    error = refusal(asked, of_vector())
    asked.close()
    assert error.category is Category.ACCESS_DENIED
    assert "set-quota-project" in error.hint


def test_a7_googles_own_client_opens_what_we_wrap_and_we_open_what_it_wraps(double: CloudKms) -> None:
    requires("google.cloud.kms_v1")
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.kms_v1 import KeyManagementServiceClient
    from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceRestTransport

    transport = KeyManagementServiceRestTransport(
        host=f"127.0.0.1:{double.port}", credentials=AnonymousCredentials(), url_scheme="http"
    )
    client = KeyManagementServiceClient(transport=transport)
    asked = service(said(double, GOOGLE_KEY))
    ours = asked.wrap(PLAINTEXT)
    assert client.decrypt(request={"name": GOOGLE_KEY, "ciphertext": ours.source}).plaintext == PLAINTEXT
    theirs = client.encrypt(request={"name": GOOGLE_KEY, "plaintext": PLAINTEXT})
    assert asked.unwrap(source(theirs.ciphertext, "v2", theirs.name)) == PLAINTEXT
    assert theirs.name == ours.key_id
    asked.close()
    transport.close()


def test_versions_states_and_status(double: CloudKms) -> None:
    asked = service(said(double, GOOGLE_KEY))
    first = asked.wrap(PLAINTEXT)
    assert asked.status().key_id == first.key_id
    double.rotate()
    second = asked.wrap(PLAINTEXT)
    assert second.key_id == asked.status().key_id == f"{GOOGLE_KEY}/cryptoKeyVersions/2"
    assert asked.unwrap(first) == asked.unwrap(second) == PLAINTEXT
    double.states[0] = "DISABLED"
    error = refusal(asked, first)
    assert (error.category, "versions enable" in error.hint) == (Category.KEY_DISABLED, True)
    double.states[0] = "DESTROYED"
    assert refusal(asked, first).category is Category.KEY_UNKNOWN
    double.states[1] = "DISABLED"
    with pytest.raises(KmsError) as caught:
        asked.status()
    assert caught.value.category is Category.KEY_DISABLED
    asked.close()


def test_key_is_that_of_the_key_id_as_the_plugin_cuts_it(stub: Between) -> None:
    requires("google.auth")
    cases = json.loads((GOLDEN / "kms.json").read_text())["gcp"]
    for case in cases["key_id_to_crypto_key"]:
        if not case["key_id"]:
            continue  # no stored value has an empty one
        asked = service(said(stub))
        stub.asked.clear()
        if case["crypto_key"] is None:
            assert refusal(asked, source(STORED, "v2", case["key_id"])).category is Category.KEY_UNKNOWN
            assert stub.asked == []
        else:
            stub.replies.append(Reply.of(200, GCP["decrypt"]["response"]["body"]))
            asked.unwrap(source(STORED, "v2", case["key_id"]))
            assert stub.asked[0].path == f"/v1/{case['crypto_key']}:decrypt"
        asked.close()


def test_v1_needs_a_key_and_says_how_to_name_it(stub: Between) -> None:
    error = refusal(service(said(stub), "v1"), of_vector("v1"))
    assert error.category is Category.KEY_UNKNOWN
    assert "prod=gcp:projects/P" in error.hint
    assert stub.asked == []


def test_an_endpoint_is_for_this_machine_alone() -> None:
    for url in (
        "http://kms.example.com",
        "https://127.0.0.1.example.com",
        "http://127.0.0.1@evil.example",
        "http://10.0.0.1",
    ):
        with pytest.raises(BadDirect, match="this machine"):
            parse_direct(f"prod=gcp?endpoint={url}")


def test_no_credentials_are_access_denied_with_how_to_log_in(
    no_proxies: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    requires("google.auth")
    del no_proxies
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    error = refusal(service("gcp"), of_vector())
    assert error.category is Category.ACCESS_DENIED
    assert "application-default login" in error.hint


def test_a18_retry_after_is_honoured_where_it_is_longer(stub: Between) -> None:
    slept: list[float] = []
    asked = service(said(stub))
    object.__setattr__(asked._patience, "sleep", slept.append)
    busy = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded"}}
    stub.replies += [Reply.of(429, busy, Retry_After="3"), Reply.of(429, busy)]
    stub.replies.append(Reply.of(200, {"plaintext": base64.b64encode(PLAINTEXT).decode()}))
    assert asked.unwrap(of_vector()) == PLAINTEXT
    asked.close()
    assert len(stub.asked) == 3
    assert slept[0] == 3
    assert slept[1] < 1
