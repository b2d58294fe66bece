"""Keys in AWS KMS: the AWS plugin's stored form, on a server that knows the states of keys, and by stubbed answers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snaptool.providers.direct.said import BadDirect
from snaptool.providers.kms_envelope import WrappedSource
from snaptool.providers.kms_pace import Pace
from snaptool.providers.kms_service import Category, KmsError
from tests.clouds.asking import PLAINTEXT, VECTORS, assert_shows_nothing, refusal, service, source
from tests.clouds.between import Between, Reply
from tests.clouds.conftest import SECRET, requires, user_of_aws

AWS = VECTORS["aws"]
CASES = [pytest.param(case, id=case["name"]) for case in AWS["cases"]]
KEY = AWS["cases"][0]["key_id"]
CODES = [*AWS["errors"], *AWS["errors_not_made_by_a_test_server"]]


def context_of(case: dict[str, Any]) -> str:
    return "&".join(f"context.{name}={value}" for name, value in case["encryption_context"].items())


def of_case(case: dict[str, Any]) -> WrappedSource:
    return source(bytes.fromhex(case["stored"]), case["api"], case["key_id"])


def blob_of(case: dict[str, Any]) -> str:
    return base64.b64encode(bytes.fromhex(case["stored"]).removeprefix(b"1")).decode()


@pytest.fixture
def stub(no_proxies: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Between]:
    """A server that answers what a test says."""
    requires("boto3")
    del no_proxies
    user_of_aws(monkeypatch)
    with Between() as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", between.url)
        yield between


@pytest.mark.parametrize("pinned", [False, True], ids=["key of the ciphertext", "pinned"])
@pytest.mark.parametrize("case", CASES)
def test_a1_a3_stored_form_opens_by_the_request_that_is_given(
    local_kms: Between, case: dict[str, Any], *, pinned: bool
) -> None:
    options = "&".join(filter(None, ["pin" if pinned else "", context_of(case)]))
    asked = service(f"aws{f':{KEY}' if pinned else ''}?{options}", case["api"])
    assert asked.unwrap(of_case(case)) == PLAINTEXT
    asked.close()
    (one,) = local_kms.asked
    assert one.headers["X-Amz-Target"] == "TrentService.Decrypt"
    wanted = {"CiphertextBlob": blob_of(case)}
    wanted |= {"EncryptionContext": case["encryption_context"]} if case["encryption_context"] else {}
    wanted |= {"KeyId": KEY} if pinned else {}
    assert one.body == wanted
    if pinned and "decrypt_request_when_key_is_pinned" in case:
        assert one.body == case["decrypt_request_when_key_is_pinned"]["body"]


@pytest.mark.parametrize("case", CASES[:3])
def test_a3_what_is_wrapped_has_the_form_of_the_plugin_and_opens(local_kms: Between, case: dict[str, Any]) -> None:
    asked = service(f"aws:{KEY}?{context_of(case)}", case["api"])
    wrapped = asked.wrap(PLAINTEXT)
    assert (wrapped.source[:1], wrapped.annotations) == (b"1", ())
    assert wrapped.key_id == case["key_id"]
    assert asked.unwrap(wrapped) == PLAINTEXT
    assert asked.status().key_id == wrapped.key_id
    asked.close()
    body = local_kms.asked[0].body
    assert base64.b64decode(body.pop("Plaintext")) == PLAINTEXT
    assert body == case["encrypt_request_without_plaintext"]["body"]


def test_a1_v2_without_the_plugins_mark_is_refused_without_a_call(stub: Between) -> None:
    asked = service("aws", "v2")
    assert refusal(asked, source(b"\x01\x02" * 30)).category is Category.BAD_CIPHERTEXT
    assert refusal(asked, source(b"1")).category is Category.BAD_CIPHERTEXT
    asked.close()
    assert stub.asked == []


@pytest.mark.parametrize("wrong", ["context.cluster=test", ""], ids=["another", "none"])
@pytest.mark.usefixtures("local_kms")
def test_a2_a_wrong_context_is_bad_ciphertext_and_says_so_first(wrong: str) -> None:
    asked = service(f"aws?{wrong}")
    error = refusal(asked, of_case(AWS["cases"][0]))
    asked.close()
    assert error.category is Category.BAD_CIPHERTEXT
    assert error.hint.index("encryption context") < error.hint.index("the data")


def test_a2_a17_a_disabled_key_is_disabled_where_it_is_named(local_kms: Between) -> None:
    import boto3

    client = boto3.client("kms", endpoint_url=local_kms.url, region_name="eu-central-1")
    client.disable_key(KeyId=KEY)
    try:
        asked = service(f"aws:{KEY}?pin&context.cluster=prod")
        error = refusal(asked, of_case(AWS["cases"][0]))
        with pytest.raises(KmsError) as caught:
            asked.status()
        unnamed = refusal(service("aws?context.cluster=prod"), of_case(AWS["cases"][0]))
    finally:
        client.enable_key(KeyId=KEY)
    assert (error.category, caught.value.category) == (Category.KEY_DISABLED, Category.KEY_DISABLED)
    assert "enable-key" in error.hint
    assert unnamed.category is Category.ACCESS_DENIED
    words = [unnamed.hint.index(word) for word in ("region", "key", "kms:Decrypt")]
    assert words == sorted(words)
    assert asked.unwrap(of_case(AWS["cases"][0])) == PLAINTEXT, "enabled again"
    asked.close()
    client.close()


def test_a2_a_key_pending_deletion_is_disabled(local_kms: Between) -> None:
    import boto3

    client = boto3.client("kms", endpoint_url=local_kms.url, region_name="eu-central-1")
    made = client.create_key()["KeyMetadata"]["Arn"]
    asked = service(f"aws:{made}")
    wrapped = asked.wrap(PLAINTEXT)
    client.schedule_key_deletion(KeyId=made, PendingWindowInDays=7)
    pinned = service(f"aws:{made}?pin")
    assert refusal(pinned, wrapped).category is Category.KEY_DISABLED
    with pytest.raises(KmsError) as caught:
        asked.wrap(PLAINTEXT)
    assert caught.value.category is Category.KEY_DISABLED
    assert "cancel-key-deletion" in caught.value.hint
    for one in (asked, pinned, client):
        one.close()
    assert local_kms.asked


@pytest.mark.parametrize("one", CODES, ids=lambda one: f"{one.get('name', '')}{one['code']}")
def test_a2_category_follows_the_code(stub: Between, one: dict[str, Any]) -> None:
    asked = service("aws", tries=1)
    stub.replies.append(Reply.of(400, {"__type": one["code"], "message": one.get("message", "")}))
    error = refusal(asked, of_case(AWS["cases"][0]))
    asked.close()
    assert error.category == one["category"]
    assert one["code"] in error.detail


@pytest.mark.parametrize(("status", "category"), [(403, "access_denied"), (429, "throttled"), (502, "unreachable")])
@pytest.mark.parametrize("content", [b"<html>a proxy</html>", b"", b'{"error": "text"}', b"[1]"])
def test_the_status_alone_decides_where_a_body_is_not_the_services(
    stub: Between, status: int, category: str, content: bytes
) -> None:
    asked = service("aws", tries=1)
    stub.replies.append(Reply(status, content))
    assert refusal(asked, of_case(AWS["cases"][0])).category == category
    asked.close()


def test_the_principal_is_shown_and_nothing_that_could_be_a_secret(stub: Between) -> None:
    who = "arn:aws:sts::111122223333:assumed-role/backup/ops@example.com"
    wrapped = of_case(AWS["cases"][0])
    coded = base64.b64encode(wrapped.source).decode()
    said = f"User: {who} is not authorized to perform: kms:Decrypt with {coded} and {SECRET}"
    asked = service("aws")
    stub.replies.append(Reply.of(400, {"__type": "AccessDeniedException", "message": said}))
    error = refusal(asked, wrapped)
    assert coded not in str(error)
    stub.replies.append(
        Reply.of(400, {"__type": "AccessDeniedException", "message": f"User: {who} is not authorized: kms:Decrypt"})
    )
    error = refusal(asked, wrapped)
    asked.close()
    assert who in str(error)
    assert "kms:Decrypt" in str(error)


def test_a4_what_is_missing_has_a_category_within_the_deadline(
    stub: Between, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrapped = of_case(AWS["cases"][0])
    assert refusal(service("aws?profile=nobody"), wrapped).category is Category.ACCESS_DENIED
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
    error = refusal(service("aws"), wrapped)
    assert (error.category, error.attempts) == (Category.UNREACHABLE, 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", stub.url)
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    error = refusal(service("aws"), wrapped)
    assert error.category is Category.OTHER
    assert "region=" in error.hint
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    error = refusal(service("aws"), wrapped)
    assert error.category is Category.ACCESS_DENIED
    assert "aws sso login" in error.hint
    assert stub.asked == []


def test_a4_a_server_that_does_not_answer_is_a_timeout(no_proxies: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    requires("boto3")
    del no_proxies
    user_of_aws(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{silent.getsockname()[1]}")
        error = refusal(service("aws", timeout=0.3), of_case(AWS["cases"][0]))
    assert (error.category, error.attempts) == (Category.TIMEOUT, 1)


def test_a4_an_expired_token_says_to_log_in_again(stub: Between) -> None:
    asked = service("aws")
    stub.replies.append(Reply.of(400, {"__type": "ExpiredTokenException", "message": "The security token expired"}))
    error = refusal(asked, of_case(AWS["cases"][0]))
    asked.close()
    assert error.category is Category.ACCESS_DENIED
    assert error.hint.startswith("the credentials have expired")


def test_a18_throttled_twice_succeeds_the_third_time_and_the_sdk_adds_no_tries(stub: Between) -> None:
    pace = Pace(sleep=lambda _: None)
    asked = service("aws", pace=pace)
    stub.replies += [Reply.of(400, {"__type": "ThrottlingException", "message": "Rate exceeded"})] * 2
    stub.replies.append(Reply.of(200, {"Plaintext": base64.b64encode(PLAINTEXT).decode(), "KeyId": KEY}))
    assert asked.unwrap(of_case(AWS["cases"][0])) == PLAINTEXT
    assert len(stub.asked) == 3
    stub.asked.clear()
    stub.replies += [Reply.of(400, {"__type": "ThrottlingException", "message": "Rate exceeded"})] * 5
    error = refusal(asked, of_case(AWS["cases"][0]))
    asked.close()
    assert (error.category, error.attempts, len(stub.asked)) == (Category.THROTTLED, 5, 5)


def test_a20_nothing_of_a_key_is_in_the_error_of_an_encryption(stub: Between) -> None:
    asked = service(f"aws:{KEY}")
    coded = base64.b64encode(PLAINTEXT).decode()
    for said in (f"cannot encrypt {coded}", f"cannot encrypt {PLAINTEXT.hex()}", f"value {list(PLAINTEXT)}"):
        stub.replies.append(Reply.of(400, {"__type": "ValidationException", "message": said}))
        with pytest.raises(KmsError) as caught:
            asked.wrap(PLAINTEXT)
        text = f"{caught.value}{caught.value.hint}"
        assert_shows_nothing(text, PLAINTEXT)
        assert "6, 7, 8" not in text
        assert "ValidationException" in text or "…" in text
    asked.close()


def test_plain_http_goes_to_this_machine_alone_and_by_no_proxy(stub: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    with Between() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        stub.replies.append(Reply.of(400, {"__type": "DisabledException"}))
        asked = service("aws", tries=1)
        assert refusal(asked, source(b"1x")).category == "key_disabled"
        asked.close()
    assert proxy.asked == []
    for name in ("AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv("AWS_ENDPOINT_URL_KMS", raising=False)
        monkeypatch.setenv(name, "http://user:sesame@192.0.2.1:4566")
        with pytest.raises(BadDirect, match="everybody") as caught:
            service("aws").connect()
        assert "sesame" not in f"{caught.value} {caught.value.hint}"


def test_region_is_that_of_the_key_unless_it_is_said(stub: Between) -> None:
    for said, wanted in (("", "eu-central-1"), ("?region=us-west-2", "us-west-2")):
        asked = service(f"aws{said}")
        stub.replies.append(Reply.of(200, {"Plaintext": base64.b64encode(PLAINTEXT).decode()}))
        asked.unwrap(of_case(AWS["cases"][0]))
        asked.close()
        assert f"/{wanted}/kms/" in stub.asked[-1].headers["Authorization"]
    arn = KEY.replace("eu-central-1", "ap-south-1")
    asked = service(f"aws:{arn}")
    stub.replies.append(Reply.of(200, {"Plaintext": base64.b64encode(PLAINTEXT).decode()}))
    asked.unwrap(of_case(AWS["cases"][0]))
    asked.close()
    assert "/ap-south-1/kms/" in stub.asked[-1].headers["Authorization"]
