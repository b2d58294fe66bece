"""Keys in Key Vault: by Microsoft's own clients against a double with TLS, challenge, versions and permissions."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from snaptool.providers.direct import parse_direct
from snaptool.providers.kms_envelope import WrappedSource
from snaptool.providers.kms_pace import Retry
from snaptool.providers.kms_service import Category, KmsError
from snaptool.providers.provider import Api
from tests.clouds.asking import PLAINTEXT, VECTORS, refusal, source
from tests.clouds.between import Reply
from tests.clouds.conftest import requires
from tests.clouds.doubles import KeyVault, private_key_of, read_jwk
from tests.support.cli import GOLDEN

AZURE = VECTORS["azure"]
OURS, OTHER = (url.rpartition("/")[2] for url in AZURE["keys"])
VAULT = "https://example-vault.vault.azure.net"
JSON = GOLDEN / "kms.json"


class Token:
    """A credential that any double takes."""

    def get_token(self, *_: str, **__: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("a-token-of-the-tests", int(time.time()) + 3600)


@pytest.fixture(scope="module")
def other_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def vault(no_proxies: None, other_key: rsa.RSAPrivateKey, tmp_path: Path) -> Iterator[KeyVault]:
    requires("azure.identity", "azure.keyvault.keys")
    del no_proxies
    with KeyVault({OURS: private_key_of(read_jwk(JSON)), OTHER: other_key}, tmp_path) as made:
        yield made


def service(vault: KeyVault, said: str, api: str = "v2", *, tries: int = 5) -> Any:
    """The service of `prod=azure:SAID`, on the double. Key ids are those of the vault of the vectors."""
    from snaptool.providers.direct import azure
    from snaptool.providers.direct.service import Patience

    class Here(azure.AzureKms):
        """Its URLs lead to the double; what is hashed is the vault's own name."""

        def _open(self) -> Any:
            clients = super()._open()
            key, keys = clients.key, clients.keys
            clients.key = lambda url: key(url.replace(VAULT, vault.url))
            clients.keys = lambda url: keys(url.replace(VAULT, vault.url))
            return clients

    patience = Patience(10, Retry(tries=tries, first_wait=0.01, longest_wait=0.05))
    options = {"connection_verify": str(vault.authority), "verify_challenge_resource": False}
    direct = parse_direct(f"prod=azure:{VAULT}/keys/{said}")
    return Here(direct, Api(api), patience, credential=Token(), options=options)


def of_case(case: dict[str, Any]) -> WrappedSource:
    stored = case["stored_text"].encode() if case["stored_text"] else bytes.fromhex(case["stored_hex"])
    return source(stored, case["api"], case["key_id"], case["annotations"])


def versions_of(case: dict[str, Any]) -> str:
    return "kek?" + "&".join(f"version={url.rpartition('/')[2]}" for url in case["keys_given"])


def decrypts(vault: KeyVault) -> list[Any]:
    found = [one for one in vault.asked if "/decrypt" in one.path and "Authorization" in one.headers]
    return [{"path": one.path.partition("?")[0], "body": one.body} for one in found]


@pytest.mark.parametrize("case", AZURE["cases"], ids=lambda case: case["name"])
def test_a8_stored_form_opens_by_the_requests_that_are_given(vault: KeyVault, case: dict[str, Any]) -> None:
    asked = service(vault, versions_of(case), case["api"])
    assert asked.unwrap(of_case(case)) == PLAINTEXT
    asked.close()
    assert decrypts(vault) == case["decrypt_requests"]


def test_a8_key_id_is_the_hash_of_the_url(vault: KeyVault) -> None:
    for url, key_id in AZURE["key_id_of"].items():
        asked = service(vault, f"kek/{url.rpartition('/')[2]}")
        assert asked.status().key_id == key_id
        asked.close()
    assert vault.asked == [], "no call"


@pytest.mark.parametrize("fork", [False, True], ids=["upstream", "openshift"])
@pytest.mark.parametrize("without", [set(), {"encrypt"}, {"get"}], ids=["all", "no encrypt", "no get"])
def test_a10_what_is_wrapped_has_the_form_of_the_plugin_and_opens(
    vault: KeyVault, without: set[str], *, fork: bool
) -> None:
    vault.forbidden |= without
    asked = service(vault, f"kek/{OURS}" + ("?plugin=openshift" if fork else ""))
    wrapped = asked.wrap(PLAINTEXT)
    assert len(wrapped.source) == (256 if fork else 342)
    assert wrapped.key_id == AZURE["key_id_of"][AZURE["keys"][0]]
    assert dict(wrapped.annotations) == {"version.azure.akv.io": b"1", "algorithm.azure.akv.io": b"RSA-OAEP-256"}
    assert asked.unwrap(wrapped) == PLAINTEXT
    asked.close()
    remote = [one for one in vault.asked if "/encrypt" in one.path]
    assert bool(remote) == (without == {"get"}), "wrapped here, where the public key can be had"


def test_v1_is_wrapped_in_the_plugins_form(vault: KeyVault) -> None:
    asked = service(vault, f"kek/{OURS}", "v1")
    wrapped = asked.wrap(PLAINTEXT)
    assert (len(wrapped.source), wrapped.key_id, wrapped.annotations) == (342, "", ())
    assert asked.unwrap(wrapped) == PLAINTEXT
    asked.close()


def test_a9_what_cannot_be_the_services_is_refused_without_a_request(vault: KeyVault) -> None:
    case = AZURE["cases"][0]
    text = case["stored_text"].encode()
    asked = service(vault, f"kek/{OTHER}")
    error = refusal(asked, of_case(case))
    assert error.category is Category.KEY_UNKNOWN
    assert "version=" in error.hint
    for stored, noted in (
        (text, {"version.azure.akv.io": "2", "algorithm.azure.akv.io": "RSA-OAEP-256"}),
        (text, {"version.azure.akv.io": "1", "algorithm.azure.akv.io": "RSA1_5"}),
        (bytes(100), {}),
        (b"A" * 100, {}),
        (text[:-1], {}),
        (text + b"A", {}),
    ):
        broken = source(stored, "v2", AZURE["key_id_of"][AZURE["keys"][1]], noted)
        assert refusal(asked, broken).category is Category.BAD_CIPHERTEXT
    asked.close()
    assert vault.asked == []


def test_a10_without_permission_to_get_the_key_it_still_opens(
    vault: KeyVault, capfd: pytest.CaptureFixture[str]
) -> None:
    vault.forbidden.add("get")
    asked = service(vault, f"kek/{OURS}")
    assert asked.unwrap(of_case(AZURE["cases"][0])) == PLAINTEXT
    asked.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("case", AZURE["cases"], ids=lambda case: case["name"])
def test_a10_listing_finds_the_version_where_none_is_given(vault: KeyVault, case: dict[str, Any]) -> None:
    asked = service(vault, "kek", case["api"])
    assert asked.unwrap(of_case(case)) == PLAINTEXT
    assert asked.unwrap(of_case(case)) == PLAINTEXT
    asked.close()
    listed = [one for one in vault.asked if "/versions" in one.path and "Authorization" in one.headers]
    assert len(listed) == 1, "once"


def test_a10_listing_that_is_forbidden_says_what_to_give(vault: KeyVault) -> None:
    vault.forbidden.add("list")
    asked = service(vault, "kek")
    error = refusal(asked, of_case(AZURE["cases"][0]))
    asked.close()
    assert error.category is Category.ACCESS_DENIED
    assert "keys/list" in error.hint


@pytest.mark.parametrize("one", AZURE["errors"][:4], ids=lambda one: one["name"])
def test_category_follows_the_codes(vault: KeyVault, one: dict[str, Any]) -> None:
    asked = service(vault, f"kek/{OURS}", tries=1)
    assert asked.unwrap(of_case(AZURE["cases"][0])) == PLAINTEXT  # the challenge, and the public key, are behind it
    vault.replies.append(Reply.of(one["response"]["status"], one["response"]["body"]))
    assert refusal(asked, of_case(AZURE["cases"][0])).category == one["category"]
    asked.close()


STATUSES = {400: "bad_ciphertext", 403: "access_denied", 404: "key_unknown", 429: "throttled", 502: "unreachable"}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("content", [b"<html>a proxy</html>", b"", b'{"error": "text"}', b"[1]", b'{"error": [1]}'])
def test_the_status_alone_decides_where_a_body_is_not_the_services(
    vault: KeyVault, status: int, content: bytes
) -> None:
    asked = service(vault, f"kek/{OURS}", tries=1)
    assert asked.unwrap(of_case(AZURE["cases"][0])) == PLAINTEXT
    vault.replies.append(Reply(status, content))
    assert refusal(asked, of_case(AZURE["cases"][0])).category == STATUSES[status]
    asked.close()


def test_a17_a_disabled_version_is_disabled_and_the_others_go_on(vault: KeyVault) -> None:
    vault.disabled.add(OURS)
    v1 = AZURE["cases"][3]
    asked = service(vault, versions_of(v1), "v1")
    error = refusal(asked, of_case(v1))
    asked.close()
    assert error.category is Category.KEY_DISABLED, "and not the garbage that the wrong version answered"
    assert "--enabled true" in error.hint
    listing = service(vault, "kek")
    wrapped = listing.wrap(PLAINTEXT)
    assert wrapped.key_id == AZURE["key_id_of"][AZURE["keys"][1]], "what is written with is fit for use"
    listing.close()


def test_a_wrong_version_answers_what_is_no_key(vault: KeyVault) -> None:
    v1 = AZURE["cases"][3]
    asked = service(vault, f"kek/{OTHER}", "v1")
    for _ in range(3):
        assert refusal(asked, of_case(v1)).category in {Category.BAD_ANSWER, Category.BAD_CIPHERTEXT}
    asked.close()


def test_a18_the_sdk_adds_no_tries(vault: KeyVault) -> None:
    asked = service(vault, f"kek/{OURS}")
    assert asked.unwrap(of_case(AZURE["cases"][0])) == PLAINTEXT
    vault.asked.clear()
    busy = Reply.of(429, {"error": {"code": "Throttled", "message": "too many"}}, Retry_After="0")
    vault.replies += [busy, busy]
    assert asked.unwrap(of_case(AZURE["cases"][0])) == PLAINTEXT
    assert len(vault.asked) == 3
    vault.replies += [busy] * 5
    error = refusal(asked, of_case(AZURE["cases"][0]))
    asked.close()
    assert (error.category, error.attempts, len(vault.asked)) == (Category.THROTTLED, 5, 8)


def test_nobody_there_and_no_credentials(vault: KeyVault, monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.core.exceptions import ClientAuthenticationError

    class Nobody(Token):
        def get_token(self, *_: str, **__: Any) -> Any:
            raise ClientAuthenticationError("a long story\nover lines")

    asked = service(vault, f"kek/{OURS}")
    asked._credential = Nobody()
    error = refusal(asked, of_case(AZURE["cases"][0]))
    assert error.category is Category.ACCESS_DENIED
    assert "az login" in error.hint
    asked.close()
    monkeypatch.setattr(vault, "port", 9)
    gone = service(vault, f"kek/{OURS}")
    error = refusal(gone, of_case(AZURE["cases"][0]))
    gone.close()
    assert (error.category, error.attempts) == (Category.UNREACHABLE, 1)


def test_microsofts_own_client_opens_what_we_wrap(vault: KeyVault) -> None:
    from azure.keyvault.keys import JsonWebKey
    from azure.keyvault.keys.crypto import CryptographyClient, EncryptionAlgorithm

    asked = service(vault, f"kek/{OURS}")
    wrapped = asked.wrap(PLAINTEXT)
    asked.close()
    jwk = read_jwk(JSON)
    numbers = {name: base64.urlsafe_b64decode(jwk[name] + "==") for name in ("n", "e", "d", "p", "q", "dp", "dq", "qi")}
    client = CryptographyClient.from_jwk(JsonWebKey(kty="RSA", key_ops=["decrypt"], **numbers))
    block = base64.urlsafe_b64decode(wrapped.source + b"==")
    assert client.decrypt(EncryptionAlgorithm.rsa_oaep_256, block).plaintext == PLAINTEXT


def test_a20_nothing_of_a_key_is_in_the_error_of_an_encryption(vault: KeyVault) -> None:
    vault.forbidden.add("get")
    asked = service(vault, f"kek/{OURS}")
    asked.wrap(PLAINTEXT)
    coded = base64.urlsafe_b64encode(PLAINTEXT).decode()
    vault.replies.append(Reply.of(400, {"error": {"code": "BadParameter", "message": f"value {coded}"}}))
    with pytest.raises(KmsError) as caught:
        asked.wrap(PLAINTEXT)
    asked.close()
    assert coded[:20] not in f"{caught.value}{caught.value.hint}"
