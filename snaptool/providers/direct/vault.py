"""The transit engine of Vault and OpenBao, in the stored forms of five plugins.

A server's answer to a batch in which one item is bad is HTTP 400 with the other items' keys in its body, unless it is
asked for 200 instead; hvac makes that body the text of its exception. So a batch asks for 200, hvac raises nothing
here, and of a body that is no success only `errors` is looked at, and of a batch's not even these.

Source: docs/clouds.md; FalcoSuessgott/vault-kubernetes-kms pkg/vault/transit.go; beezy-dev/kleidi
internal/providers/hvault.go; ondat/trousseau providers/vault; oracle/kubernetes-vault-kms-plugin.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

import hvac
import requests

from snaptool.loopback import is_here, is_private
from snaptool.providers.direct.calls import BATCH
from snaptool.providers.direct.openbao import Identity, is_supported
from snaptool.providers.direct.said import BadDirect, DirectKms
from snaptool.providers.direct.service import DirectService, Failure, Patience, Refusal, after
from snaptool.providers.kms_envelope import WrappedSource
from snaptool.providers.kms_service import Category, KmsError
from snaptool.providers.provider import Api

logging.getLogger("hvac").addHandler(logging.NullHandler())

_TEXT: Final = re.compile(r"vault:v([0-9]{1,9}):")
_KLEIDI: Final = "v2.kleidi.beezy.dev"
_BY_TEXT: Final = (
    (Category.KEY_DISABLED, "too old", "soft-deleted", "soft deleted"),
    (Category.KEY_UNKNOWN, "encryption key not found", "version is too new"),
)


class VaultKms(DirectService):
    """One key of one mount, in the form of one plugin. It is an AsksForMany."""

    BATCH = BATCH

    def __init__(self, direct: DirectKms, api: Api, patience: Patience) -> None:
        super().__init__(direct, api, patience)
        self._mount, _, self._key = direct.where.strip("/").rpartition("/")
        self._plugin = direct.option("plugin", "plain")
        self._identity = Identity.of(direct)
        self._ahead: dict[bytes, bytes | KmsError] = {}

    def _open(self) -> Any:
        address = os.environ.get("VAULT_ADDR") or os.environ.get("BAO_ADDR")
        if not address:
            raise BadDirect(
                f"KMS provider {self.provider!r}: it is not said where Vault is",
                hint="set VAULT_ADDR (OpenBao: BAO_ADDR), as for its own command line",
            )
        if not is_private(address):
            raise BadDirect(
                f"KMS provider {self.provider!r}: VAULT_ADDR is not an https:// URL, and would show keys to everybody",
                hint="plain http is for a server on this machine alone",
            )
        session = _Session()
        session.verify = _first("VAULT_CACERT", "BAO_CACERT", "VAULT_CAPATH", "BAO_CAPATH") or True
        return hvac.Client(
            url=address,
            token=_token(),
            namespace=_first("VAULT_NAMESPACE", "BAO_NAMESPACE"),
            timeout=self._patience.timeout,
            session=session,
        )

    def _end(self, client: Any) -> None:
        self._ahead.clear()
        client.adapter.close()

    def _call(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._send("post", f"{self._mount}/{verb}/{self._key}", body)

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `data` of an answer. Raises _Answered, Refusal for what is not Vault's, and what requests raises."""
        answer = self._made().adapter.request(method, f"/v1/{path}", raise_exception=False, json=body)
        if isinstance(answer, requests.Response):  # hvac hands out the content of a success
            if not answer.ok:
                raise _Answered(answer)
            answer = None
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, dict):
            raise Refusal(Category.BAD_ANSWER, "the answer is not Vault's", "look at VAULT_ADDR, and for a proxy")
        return data

    # -- reading

    def unwrap(self, source: WrappedSource) -> bytes:
        """Return the key of a source, which may have been asked for in a batch. Raises KmsError."""
        ready = self._ahead.pop(source.cache_key, None)
        if isinstance(ready, KmsError):
            raise ready
        return super().unwrap(source) if ready is None else ready

    def prepare(self, sources: Sequence[WrappedSource]) -> None:
        """Ask for many keys in one call; `unwrap` then hands each out once. Raises nothing: it would ask one by one."""
        bodies: list[tuple[WrappedSource, dict[str, str]]] = []
        for source in sources:
            try:
                bodies.append((source, self._body(source)))
            except Refusal:
                continue  # unwrap says so again
        if len(bodies) < 2:
            return
        request = {"batch_input": [body for _, body in bodies], "partial_failure_response_code": 200}
        try:
            results = self._ask("decrypt", lambda: self._results(request, len(bodies)))
        except KmsError as error:
            if error.category is not Category.BAD_CIPHERTEXT:
                self._ahead |= {source.cache_key: error for source, _ in bodies}
            return
        for (source, _), result in zip(bodies, results, strict=True):
            self._ahead[source.cache_key] = self._of_batch(result)

    def _results(self, request: dict[str, Any], count: int) -> list[dict[str, Any]]:
        try:
            answer = self._call("decrypt", request)
        except _Answered as answered:
            if answered.status != 400:
                raise
            # An old server, or a proxy: the body has the keys of the good items. Each is asked for by itself.
            answer = {}
        results = answer.get("batch_results")
        if not isinstance(results, list) or len(results) != count or not all(isinstance(one, dict) for one in results):
            raise Refusal(Category.BAD_CIPHERTEXT, "the server does not take many keys at once")
        return results

    def _of_batch(self, result: dict[str, Any]) -> bytes | KmsError:
        try:
            if not result.get("error"):
                return _plaintext(result)
            failure = self._by_text(str(result["error"]))
        except Refusal as refusal:
            failure = refusal.failure
        return self._error("decrypt", failure)

    def _decrypt(self, source: WrappedSource) -> bytes:
        return _plaintext(self._call("decrypt", self._body(source)))

    def _body(self, source: WrappedSource) -> dict[str, str]:
        """Return the request that opens a source. Raises Refusal for what cannot be the plugin's."""
        try:
            text = source.source.decode("ascii")
        except UnicodeDecodeError:
            raise _foreign() from None
        if self._plugin == "trousseau":
            text = _of_trousseau(text)
        elif self._plugin == "oracle":
            text = f"vault:{text.removeprefix(f'{self._key}:')}" if text.startswith(f"{self._key}:") else text
        body = {"ciphertext": text}
        if self._plugin == "openbao":
            annotations = dict(source.annotations)
            if not is_supported(annotations):
                raise Refusal(
                    Category.BAD_CIPHERTEXT,
                    "the annotation aad-version.kms.openbao.org names a form that is not supported",
                    "use the plugin that wrote these values",
                )
            body["associated_data"] = _coded(self._identity.associated_data(annotations))
        return body

    # -- writing

    def _version(self) -> tuple[int, int]:
        """Return the latest version of the key and when it was made, in Unix seconds."""
        found = self._send("get", f"{self._mount}/keys/{self._key}")
        version = found.get("latest_version")
        keys = found.get("keys")
        made = keys.get(str(version)) if isinstance(keys, dict) else None
        if isinstance(made, dict):  # keys of other types come with their public half
            made = made.get("creation_time")
        if not isinstance(version, int) or isinstance(version, bool):
            raise Refusal(Category.BAD_ANSWER, "the server names no version of the key")
        if found.get("soft_deleted") is True:
            raise Refusal(Category.KEY_DISABLED, "the key is soft-deleted", self._restore())
        return version, made if isinstance(made, int) else 0

    def _key_id(self, version: int, created: int) -> str:
        if self._plugin == "kleidi":
            return f"kleidi-kms-plugin_{version}_{created}"
        return self._identity.key_id(version, created) if self._plugin == "openbao" else str(version)

    def _current(self) -> str:
        if self._plugin == "openbao":
            self._identity.require_writing()
        key_id = self._key_id(*self._version())
        return "" if self._api is Api.V1 else key_id

    def _encrypt(self, key: bytes) -> WrappedSource:
        body: dict[str, Any] = {"plaintext": _coded(key)}
        if self._api is Api.V1:
            return self._wrapped(self._stored(self._ciphertext(body)))
        if self._plugin == "plain":
            text = self._ciphertext(body)
            found = _TEXT.match(text)
            return self._wrapped(text.encode(), found[1] if found else "")
        version, created = self._version()
        key_id, annotations = self._key_id(version, created), {_KLEIDI: b"1"}
        if self._plugin == "openbao":
            self._identity.require_writing()
            annotations = self._identity.annotations(key_id, version)
            body["associated_data"] = _coded(self._identity.associated_data(annotations))
        body["key_version"] = version
        return self._wrapped(self._ciphertext(body).encode(), key_id, annotations)

    def _ciphertext(self, body: dict[str, Any]) -> str:
        text = self._call("encrypt", body).get("ciphertext")
        if not isinstance(text, str) or _TEXT.match(text) is None:
            raise Refusal(Category.BAD_ANSWER, "the answer to encrypt is not a ciphertext of the transit engine")
        return text

    def _stored(self, text: str) -> bytes:
        if self._plugin == "trousseau":
            return base64.b64encode(text.encode())
        if self._plugin == "oracle":
            return f"{self._key}:{text.removeprefix('vault:')}".encode()
        return text.encode()

    # -- errors

    def _judge(self, error: Exception) -> Failure:
        name = type(error).__name__
        if isinstance(error, _Answered):
            if error.status == 400:
                return self._by_text(error.text)
            category = _BY_STATUS.get(error.status, Category.OTHER)
            detail = f"HTTP {error.status}: {_known(error.text)}".rstrip(": ")
            return Failure(category, detail, self._hint(category), retry_after=error.retry_after)
        if isinstance(error, requests.Timeout):
            return Failure(Category.TIMEOUT, name, self._hint(Category.TIMEOUT), answered=False)
        if isinstance(error, (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            return Failure(Category.UNREACHABLE, name, self._hint(Category.UNREACHABLE), answered=False)
        return Failure(Category.OTHER, name, "check the configuration of Vault")

    def _by_text(self, text: str) -> Failure:
        for category, *words in _BY_TEXT:
            if any(word in text for word in words):
                hint = self._restore() if "deleted" in text else self._hint(category)
                return Failure(category, _known(text), hint)
        return Failure(Category.BAD_CIPHERTEXT, _known(text), self._hint(Category.BAD_CIPHERTEXT))

    def _restore(self) -> str:
        return (
            f"the data is intact: `bao write -f {self._mount}/keys/{self._key}/soft-delete-restore` (Vault: `vault`), "
            "then start over"
        )

    def _hint(self, category: Category) -> str:
        where = f"{self._mount}/decrypt/{self._key}"
        if category is Category.ACCESS_DENIED:
            return (
                f"the token (VAULT_TOKEN, `vault login`) may have expired, or lacks `update` on {where}, for writing "
                f"on {self._mount}/encrypt/{self._key} and `read` on {self._mount}/keys/{self._key}"
            )
        if category is Category.KEY_DISABLED:
            return (
                "the data is intact: `vault write "
                f"{self._mount}/keys/{self._key}/config min_decryption_version=1`, then start over"
            )
        if category is Category.KEY_UNKNOWN:
            return (
                f"check the mount, the key ({self._direct.where}) and VAULT_NAMESPACE; a key that was made again, or a "
                "server that was restored, no longer has the version"
            )
        if category is Category.BAD_CIPHERTEXT:
            if self._plugin == "openbao":
                return "check cluster_id, instance_id and provider_name before the data"
            if self._plugin == "plain":
                return (
                    f"if this hits every value, look at the key ({self._direct.where}) before the data: another key, "
                    "or a plugin that binds associated data to it (plugin=openbao)"
                )
            return f"if this hits every value, look at the key ({self._direct.where}) and plugin= before the data"
        if category is Category.THROTTLED:
            return "a quota of the server is used up: lower --kms-rate or --kms-concurrency, or run again later"
        if category is Category.TIMEOUT:
            return "check VAULT_ADDR and the network, or give it more time with --kms-timeout"
        return "check VAULT_ADDR, the network, and whether the server is sealed: `vault status`"


_BY_STATUS: Final = {
    401: Category.ACCESS_DENIED,
    403: Category.ACCESS_DENIED,
    404: Category.KEY_UNKNOWN,
    429: Category.THROTTLED,
    **dict.fromkeys((412, 472, 473, 500, 501, 502, 503, 504), Category.UNREACHABLE),
}
"""501: not initialized, 503: sealed; 412, 472, 473: a standby that cannot serve."""


class _Session(requests.Session):  # type: ignore[misc]  # it has no types
    """Follows a standby to the active server, but never to plain http elsewhere; asks no proxy about this machine."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return where an answer leads. Raises Refusal."""
        target: str | None = super().get_redirect_target(resp)
        if target is not None and not is_private(urljoin(resp.url, target)):
            raise Refusal(
                Category.UNREACHABLE,
                "the server leads to a URL that is not https, and would show token and keys to everybody",
                "set VAULT_ADDR to the active server; its api_addr is to be an https:// URL",
            )
        return target

    def merge_environment_settings(self, url: Any, *arguments: Any) -> Any:
        """Return the settings of a request."""
        settings = super().merge_environment_settings(url, *arguments)
        return {**settings, "proxies": {}} if is_here(str(url)) else settings


class _Answered(Exception):
    """The server answered no success. `text`: what it lists as errors, nothing else of the body."""

    def __init__(self, answer: requests.Response) -> None:
        super().__init__()
        self.status: int = answer.status_code
        self.retry_after = after(answer.headers.get("Retry-After"))
        try:
            body = answer.json()
        except ValueError:
            body = None
        listed = body.get("errors") if isinstance(body, dict) else None
        self.text = "; ".join(one for one in listed if isinstance(one, str)) if isinstance(listed, list) else ""


def _known(text: str) -> str:
    """Return a server's text; it may end in what was sent, so that only short words of it are taken."""
    return " ".join(word for word in text.split() if len(word) <= 40)


def _plaintext(data: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(data["plaintext"], validate=True)
    except (KeyError, TypeError, ValueError):
        raise Refusal(Category.BAD_ANSWER, "the plaintext of the answer is not base64") from None


def _of_trousseau(text: str) -> str:
    """Return the transit text: alone, or in the line of the provider `vault` where there are several."""
    for line in text.splitlines():
        provider, separator, rest = line.partition(":-:")
        if separator and provider == "vault":
            text = rest
    try:
        return base64.b64decode(text.strip(), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        raise _foreign() from None


def _foreign() -> Refusal:
    return Refusal(
        Category.BAD_CIPHERTEXT,
        "the wrapped key is not a ciphertext of the transit engine, in the form of this plugin",
        "the values may have been written by another plugin: look at plugin=",
    )


def _coded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _first(*names: str) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _token() -> str | None:
    """Return OpenBao's token where Vault's is not set; None: hvac finds Vault's by itself."""
    if os.environ.get("VAULT_TOKEN"):
        return None
    if os.environ.get("BAO_TOKEN"):
        return os.environ["BAO_TOKEN"]
    path = os.environ.get("BAO_TOKEN_PATH")
    try:
        return Path(path).read_text().strip() if path else None
    except OSError:
        return None
