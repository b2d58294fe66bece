"""Keys in the transit engine, by Vault's own: every plugin's stored form, batches, errors, and what is never shown."""

from __future__ import annotations

import base64
import json
import logging
import os
from typing import Any

import pytest

from snaptool.providers.direct import BadDirect
from snaptool.providers.direct.openbao import Identity
from snaptool.providers.kms_envelope import WrappedSource
from snaptool.providers.kms_service import Category
from tests.clouds.asking import PLAINTEXT, VECTORS, assert_shows_nothing, refusal, service, source
from tests.clouds.between import Between, Reply
from tests.clouds.conftest import TOKEN

hvac = pytest.importorskip("hvac", reason="hvac is not installed: `make clouds` installs it")

VAULT = VECTORS["vault"]
IDENTITY = "&".join(f"{name}={value}" for name, value in VAULT["openbao_identity"].items())
CASES = [pytest.param(case, id=f"{case['name']}-{case['api']}") for case in VAULT["cases"]]
DIALECTS = [
    ("plain", "v2"),
    ("plain", "v1"),
    ("kleidi", "v2"),
    ("trousseau", "v1"),
    ("oracle", "v1"),
    ("openbao", "v2"),
]


def said(dialect: str) -> str:
    return f"vault:transit/vectors?plugin={dialect}" + (f"&{IDENTITY}" if dialect == "openbao" else "")


def of_case(case: dict[str, Any]) -> WrappedSource:
    return source(case["stored_text"].encode(), case["api"], case["key_id"], case["annotations"])


@pytest.fixture
def vectors(transit: Between) -> Between:
    """The engine with the key of the vectors."""
    client = hvac.Client(url=os.environ["VAULT_ADDR"], token=TOKEN)
    client.adapter.post("/v1/transit/restore/vectors", json={"backup": VAULT["backup"], "force": True})
    client.adapter.close()
    transit.asked.clear()
    return transit


@pytest.mark.parametrize("case", CASES)
def test_a11_stored_form_opens_by_the_request_that_is_given(vectors: Between, case: dict[str, Any]) -> None:
    asked = service(said(case["dialect"]), case["api"])
    assert asked.unwrap(of_case(case)) == PLAINTEXT
    asked.close()
    (one,) = vectors.asked
    wanted = case["decrypt_request"]
    assert (one.method, one.path, one.body) == (wanted["method"], wanted["path"], wanted["body"])


@pytest.mark.parametrize(("dialect", "api"), DIALECTS)
def test_what_is_wrapped_has_the_form_of_the_plugin_and_opens(vectors: Between, dialect: str, api: str) -> None:
    asked = service(said(dialect), api)
    wrapped = asked.wrap(PLAINTEXT)
    model = next(case for case in reversed(VAULT["cases"]) if (case["dialect"], case["api"]) == (dialect, api))
    assert [name for name, _ in wrapped.annotations] == sorted(model["annotations"])
    assert wrapped.source[:6] == model["stored_text"].encode()[:6]
    assert wrapped.key_id == (asked.status().key_id if api == "v2" else "")
    assert asked.unwrap(wrapped) == PLAINTEXT
    asked.close()
    assert vectors.asked


def test_an_aggregate_of_trousseau_opens_by_its_line_of_vault(vectors: Between) -> None:
    text = next(case["stored_text"] for case in VAULT["cases"] if case["dialect"] == "trousseau")
    aggregate = f"awskms:-:AAAA\nvault:-:{text}\n".encode()
    asked = service(said("trousseau"), "v1")
    assert asked.unwrap(source(aggregate, "v1")) == PLAINTEXT
    asked.close()
    assert len(vectors.asked) == 1


STORED = {
    "no such key": ("transit/nope", "{text}"),
    "altered": ("transit/vectors", "{text}?"),
    "version of the future": ("transit/vectors", "vault:v9:{body}"),
    "not base64": ("transit/vectors", "vault:v1:????"),
    "another key's": ("transit/vectors", "vault:v2:{body}"),
}


@pytest.mark.parametrize("name", STORED)
@pytest.mark.usefixtures("vectors")
def test_a11_errors_have_the_category_of_their_text(name: str) -> None:
    key, form = STORED[name]
    text = VAULT["cases"][0]["stored_text"]
    asked = service(f"vault:{key}")
    error = refusal(asked, source(form.format(text=text, body=text.split(":")[2]).encode()))
    asked.close()
    model = next((one for one in VAULT["errors"] if one["name"] == name), {"category": "bad_ciphertext", "text": ""})
    assert error.category == model["category"]
    assert model["text"] in str(error)
    assert "transit/" in error.hint


def test_a11_a_version_below_the_least_is_disabled_and_says_how_to_allow_it(vectors: Between) -> None:
    client = hvac.Client(url=vectors.url, token=TOKEN)
    client.adapter.post("/v1/transit/keys/vectors/config", json={"min_decryption_version": 2})
    asked = service("vault:transit/vectors")
    error = refusal(asked, of_case(VAULT["cases"][0]))
    client.adapter.post("/v1/transit/keys/vectors/config", json={"min_decryption_version": 1})
    assert asked.unwrap(of_case(VAULT["cases"][0])) == PLAINTEXT, "the hint is what helps"
    client.adapter.close()
    asked.close()
    assert error.category is Category.KEY_DISABLED
    assert "transit/keys/vectors/config min_decryption_version=1" in error.hint


def test_a11_a_token_that_may_not_is_access_denied(vectors: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "hvs.CAESIJanotherTokenOfTheTests0")
    asked = service("vault:transit/vectors")
    error = refusal(asked, of_case(VAULT["cases"][0]))
    asked.close()
    assert error.category is Category.ACCESS_DENIED
    assert "transit/decrypt/vectors" in error.hint
    assert "anotherToken" not in f"{error}{error.hint}"
    assert len(vectors.asked) == 1, "not asked again"


def many(client: Any, count: int) -> list[WrappedSource]:
    answer = client.adapter.post(
        "/v1/transit/encrypt/vectors",
        json={"batch_input": [{"plaintext": base64.b64encode(secret(n)).decode()} for n in range(count)]},
    )
    return [source(one["ciphertext"].encode(), "v1") for one in answer["data"]["batch_results"]]


def secret(number: int) -> bytes:
    return b"key %28d" % number


def test_a12_a_thousand_keys_come_in_one_call_and_an_altered_one_fails_alone(vectors: Between) -> None:
    client = hvac.Client(url=vectors.url, token=TOKEN)
    sources = many(client, 1000)
    client.adapter.close()
    vectors.asked.clear()
    sources[500] = source(sources[500].source[:-4] + b"AAA=", "v1")
    asked = service("vault:transit/vectors", "v1")
    asked.prepare(sources)
    assert len(vectors.asked) == 1
    error = refusal(asked, sources[500])
    assert error.category is Category.BAD_CIPHERTEXT
    assert [asked.unwrap(one) for one in sources[:500]] == [secret(n) for n in range(500)]
    assert len(vectors.asked) == 1, "each was handed out from the batch"
    assert asked.unwrap(sources[0]) == secret(0)
    assert len(vectors.asked) == 2, "and asked for when it is wanted again"
    asked.close()


def test_a12_the_keys_of_others_in_a_refused_batch_are_shown_nowhere(
    vectors: Between, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """hvac raises with the whole body of HTTP 400 as its text, the keys of the good items included."""
    client = hvac.Client(url=vectors.url, token=TOKEN)
    sources = many(client, 3)
    client.adapter.close()
    sources[1] = source(b"vault:v1:AAAA", "v1")
    items = [{"plaintext": base64.b64encode(secret(n)).decode(), "error": ""} for n in range(3)]
    body = {"data": {"batch_results": items}, "errors": None}
    caplog.set_level(logging.DEBUG)
    asked = service("vault:transit/vectors", "v1")
    vectors.replies.append(Reply.of(400, body))
    vectors.asked.clear()
    asked.prepare(sources)
    assert asked.unwrap(sources[0]) == secret(0), "asked for by itself"
    error = refusal(asked, sources[1])
    assert asked.unwrap(sources[2]) == secret(2)
    asked.close()
    assert len(vectors.asked) == 4
    assert vectors.asked[0].body["partial_failure_response_code"] == 200
    shown = f"{error!r} {error} {error.hint} {error.__dict__} {caplog.text} {capfd.readouterr()}"
    assert_shows_nothing(shown, *(secret(n) for n in range(3)))


@pytest.mark.parametrize("body", [[], {"data": []}, {"data": {"plaintext": "?"}}, {"data": {"batch_results": [1]}}])
def test_an_answer_that_is_not_vaults_is_a_bad_answer(vectors: Between, body: Any) -> None:
    asked = service("vault:transit/vectors")
    vectors.replies.append(Reply.of(200, body))
    assert refusal(asked, of_case(VAULT["cases"][0])).category is Category.BAD_ANSWER
    asked.close()


@pytest.mark.parametrize("results", [None, [], [1, 2], [{"plaintext": "?"}] * 3])
def test_a_server_that_takes_one_key_at_a_time_is_asked_for_one_at_a_time(vectors: Between, results: Any) -> None:
    asked = service("vault:transit/vectors")
    vectors.replies.append(Reply.of(200, {"data": {"batch_results": results}}))
    sources = [of_case(case) for case in (VAULT["cases"][0], VAULT["cases"][6])]
    asked.prepare(sources)
    assert [asked.unwrap(one) for one in sources] == [PLAINTEXT, PLAINTEXT]
    asked.close()
    assert len(vectors.asked) == 3


STATUSES = {
    401: "access_denied",
    403: "access_denied",
    404: "key_unknown",
    418: "other",
    429: "throttled",
    500: "unreachable",
    501: "unreachable",
    502: "unreachable",
    503: "unreachable",
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    "content", [b"<html>proxy</html>", b'{"errors": "text"}', b"", b'{"errors": [1, null]}', b"[]"]
)
def test_the_status_alone_decides_where_a_body_is_not_the_services(
    vectors: Between, status: int, content: bytes
) -> None:
    asked = service("vault:transit/vectors", tries=1)
    vectors.replies.append(Reply(status, content))
    assert refusal(asked, of_case(VAULT["cases"][0])).category == STATUSES[status]
    asked.close()


def test_a13_an_address_is_needed_before_any_call(vectors: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_ADDR")
    with pytest.raises(BadDirect, match="where Vault is") as caught:
        service("vault:transit/vectors").connect()
    assert "BAO_ADDR" in caught.value.hint
    monkeypatch.setenv("VAULT_ADDR", "http://vault.example.com:8200")
    with pytest.raises(BadDirect, match="https"):
        service("vault:transit/vectors").connect()
    assert vectors.asked == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("to", ["http://vault.example.com:8200/v1/x", "//vault.example.com/v1/x", "ftp://127.0.0.1/"])
def test_a_redirection_to_plain_http_elsewhere_is_not_followed(vectors: Between, status: int, to: str) -> None:
    """A standby answers with the address of the active server, and the token would go there."""
    asked = service("vault:transit/vectors", tries=1)
    vectors.replies.append(Reply(status, b"", (("Location", to),)))
    error = refusal(asked, of_case(VAULT["cases"][0]))
    assert (error.category, "api_addr" in error.hint) == ("unreachable", True)
    vectors.replies.append(Reply(307, b"", (("Location", f"{vectors.url}/v1/transit/decrypt/vectors"),)))
    assert asked.unwrap(of_case(VAULT["cases"][0])) == PLAINTEXT
    asked.close()


def test_no_proxy_hears_what_goes_to_this_machine(vectors: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    with Between() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        asked = service("vault:transit/vectors", tries=1)
        assert asked.unwrap(of_case(VAULT["cases"][0])) == PLAINTEXT
        asked.close()
    assert (proxy.asked, len(vectors.asked)) == ([], 1)


def test_a_soft_deleted_key_gets_the_command_that_restores_it(vectors: Between) -> None:
    asked = service("vault:transit/vectors", tries=1)
    vectors.replies.append(Reply.of(400, {"errors": ["key is soft-deleted"]}))
    error = refusal(asked, of_case(VAULT["cases"][0]))
    assert (error.category, "transit/keys/vectors/soft-delete-restore" in error.hint) == ("key_disabled", True)
    asked.close()


def test_a13_openbaos_own_names_will_do_and_the_namespace_is_passed_on(
    vectors: Between, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("VAULT_ADDR")
    monkeypatch.delenv("VAULT_TOKEN")
    monkeypatch.setenv("BAO_ADDR", vectors.url)
    monkeypatch.setenv("BAO_TOKEN", TOKEN)
    monkeypatch.setenv("VAULT_NAMESPACE", "teams/a")
    asked = service("vault:transit/vectors")
    assert asked.unwrap(of_case(VAULT["cases"][0])) == PLAINTEXT
    asked.close()
    assert vectors.asked[0].headers["X-Vault-Namespace"] == "teams/a"
    monkeypatch.delenv("BAO_TOKEN")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("BAO_TOKEN_PATH", str(tmp_path / "token"))
    asked = service("vault:transit/vectors")
    assert asked.unwrap(of_case(VAULT["cases"][0])) == PLAINTEXT
    asked.close()


@pytest.mark.parametrize("model", VECTORS["openbao_identity"], ids=lambda model: model["identity"]["cluster_id"])
def test_a14_identity_of_openbaos_plugin_is_byte_for_byte(model: dict[str, Any]) -> None:
    identity = Identity(**model["identity"])
    key_id = identity.key_id(model["transit_version"], model["version_created_at"])
    assert key_id == model["key_id"]
    annotations = identity.annotations(key_id, model["transit_version"])
    assert {name: value.decode() for name, value in annotations.items()} == model["annotations"]
    assert identity.associated_data(annotations).decode() == model["associated_data"]


def test_a14_another_cluster_is_bad_ciphertext_with_what_to_check(vectors: Between) -> None:
    case = next(case for case in VAULT["cases"] if case["dialect"] == "openbao")
    asked = service(said("openbao").replace("cluster_id=workload-a", "cluster_id=workload-b"))
    error = refusal(asked, of_case(case))
    assert error.category is Category.BAD_CIPHERTEXT
    assert "cluster_id" in error.hint
    vectors.asked.clear()
    other = source(case["stored_text"].encode(), "v2", case["key_id"], {"aad-version.kms.openbao.org": "v2"})
    assert refusal(asked, other).category is Category.BAD_CIPHERTEXT
    assert vectors.asked == [], "refused without a call"
    asked.close()


def test_a18_throttled_twice_succeeds_the_third_time(vectors: Between) -> None:
    asked = service("vault:transit/vectors")
    vectors.replies += [Reply.of(429, {"errors": ["rate limit quota exceeded"]})] * 2
    assert asked.unwrap(of_case(VAULT["cases"][0])) == PLAINTEXT
    asked.close()
    assert len(vectors.asked) == 3


@pytest.mark.usefixtures("transit")
def test_nothing_listens_is_unreachable_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:9")
    asked = service("vault:transit/vectors")
    error = refusal(asked, of_case(VAULT["cases"][0]))
    asked.close()
    assert (error.category, error.attempts) == (Category.UNREACHABLE, 1)


def test_requests_are_json(vectors: Between) -> None:
    asked = service("vault:transit/vectors?plugin=kleidi")
    asked.wrap(PLAINTEXT)
    asked.close()
    encrypt = json.loads(vectors.asked[-1].content)
    assert encrypt == {"plaintext": base64.b64encode(PLAINTEXT).decode(), "key_version": 2}
