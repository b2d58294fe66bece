"""Azure Key Vault as Azure/kubernetes-kms and OpenShift's fork of it use it: RSA, by one version of a key.

The version is named by a hash (v2) or not at all (v1). Wrapping is done here, with the public key, where that can be
had. Source: docs/clouds.md; pkg/plugin/keyvault.go of Azure/kubernetes-kms; docs/formats/kms.md, "Plugins".
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from typing import Any, Final

from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)
from azure.identity import DefaultAzureCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.crypto import CryptographyClient, EncryptionAlgorithm

from snaptool.providers.direct.said import DirectKms
from snaptool.providers.direct.service import DirectService, Failure, Patience, Refusal, after
from snaptool.providers.kms_envelope import DEK_SIZES, WrappedSource
from snaptool.providers.kms_service import Category
from snaptool.providers.provider import Api

# Its warnings would go to stderr, beside ours and unescaped.
logging.getLogger("azure").addHandler(logging.NullHandler())

_BLOCKS: Final = (256, 384, 512)
_VERSION: Final = "version.azure.akv.io"
_ALGORITHM: Final = "algorithm.azure.akv.io"
_FORK_SEED: Final = re.compile(rb"[A-Za-z0-9_-]{43}")
_NEXT: Final = frozenset({Category.BAD_CIPHERTEXT, Category.BAD_ANSWER, Category.KEY_DISABLED, Category.KEY_UNKNOWN})
"""What one version of a key may answer while another one opens the value."""
_DISABLED: Final = frozenset({"KeyDisabled", "KeyNotYetValid", "KeyExpired"})
_LOG_IN: Final = "log in as for `az`: environment, workload or managed identity, `az login`"


class AzureKms(DirectService):
    """One key, in the versions that are given, else in all that the vault lists.

    `options`: for the clients, in tests: a vault of one's own has a certificate and a name of its own.
    """

    def __init__(
        self,
        direct: DirectKms,
        api: Api,
        patience: Patience,
        *,
        credential: Any = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(direct, api, patience)
        self._credential = credential
        self._options = options or {}
        host, self._name, *version = direct.where.removeprefix("https://").replace("/keys/", "/", 1).split("/")
        self._vault = f"https://{host}"
        self._given = tuple(version) or direct.every("version")
        self._versions: tuple[str, ...] = ()

    def _open(self) -> Any:
        return _Clients(self._credential or DefaultAzureCredential(), self._options | self._settings())

    def _settings(self) -> dict[str, Any]:
        seconds = self._patience.timeout
        return {"retry_total": 0, "connection_timeout": seconds, "read_timeout": seconds}

    def _end(self, client: Any) -> None:
        self._versions = ()
        client.close()

    def _url(self, version: str) -> str:
        return f"{self._vault}/keys/{self._name}/{version}"

    def _known_versions(self) -> tuple[str, ...]:
        """Return the versions that were given, else those that the vault lists, newest first."""
        if self._given:
            return self._given
        if not self._versions:
            with self._made().keys(self._vault) as keys:
                listed = [one for one in keys.list_properties_of_key_versions(self._name) if one.version]
            listed.sort(key=lambda one: str(one.created_on or ""), reverse=True)
            usable = [one.version for one in listed if one.enabled is not False]
            self._versions = (*usable, *(one.version for one in listed if one.enabled is False))
            if not self._versions:
                raise Refusal(Category.KEY_UNKNOWN, "the vault lists no version of this key", "check the name")
        return self._versions

    def _decrypt(self, source: WrappedSource) -> bytes:
        annotations = dict(source.annotations)
        for name, wanted in ((_VERSION, b"1"), (_ALGORITHM, b"RSA-OAEP-256")):
            if annotations.get(name, wanted) != wanted:
                raise Refusal(
                    Category.BAD_CIPHERTEXT,
                    f"the annotation {name} names a form that is not supported",
                    "the key is not in these values and the vault alone: use the plugin that wrote them",
                )
        block = _block(source.source)
        if self._api is Api.V1:
            return self._first_that_opens(block)
        return self._opened(self._version_of(source.key_id), EncryptionAlgorithm.rsa_oaep_256, block)

    def _version_of(self, key_id: str) -> str:
        for version in self._known_versions():
            if _hash(self._url(version)) == key_id:
                return version
        raise Refusal(
            Category.KEY_UNKNOWN,
            "the key id of these values is the hash of no version that is given",
            f"give the version that they were written with: {self.provider}=azure:{self._vault}/keys/{self._name}"
            "?version=ONE&version=OTHER, or no version, to have them listed (keys/list)",
        )

    def _first_that_opens(self, block: bytes) -> bytes:
        """Ask one version after the other: v1 names none, and a wrong one may answer garbage without an error."""
        failures: list[Exception] = []
        for version in self._known_versions():
            try:
                return self._opened(version, EncryptionAlgorithm.rsa1_5, block)
            except Refusal as refusal:
                failures.append(refusal)
            except HttpResponseError as error:
                if self._judge(error).category not in _NEXT:
                    raise
                failures.append(error)
        # A version that is disabled may be the right one; that outweighs wrong ones that answered something.
        raise min(failures, key=self._weight)

    def _weight(self, error: Exception) -> int:
        failure = error.failure if isinstance(error, Refusal) else self._judge(error)
        order = [Category.KEY_DISABLED, Category.KEY_UNKNOWN, Category.BAD_ANSWER, Category.BAD_CIPHERTEXT]
        return order.index(failure.category) if failure.category in order else len(order)

    def _opened(self, version: str, algorithm: Any, block: bytes) -> bytes:
        plaintext: bytes = self._made().key(self._url(version)).decrypt(algorithm, block).plaintext
        if _FORK_SEED.fullmatch(plaintext):
            plaintext = base64.urlsafe_b64decode(plaintext + b"=")
        if len(plaintext) not in DEK_SIZES:
            raise Refusal(
                Category.BAD_ANSWER,
                f"the answer has {len(plaintext)} bytes, which no key has",
                "this is what a wrong version of the key answers: give the one that the values were written with",
            )
        return plaintext

    def _encrypt(self, key: bytes) -> WrappedSource:
        version = self._known_versions()[0]
        client = self._made().key(self._url(version))
        if self._api is Api.V1:
            return self._wrapped(_text(client.encrypt(EncryptionAlgorithm.rsa1_5, key).ciphertext))
        fork = self._direct.option("plugin") == "openshift"
        block = client.encrypt(EncryptionAlgorithm.rsa_oaep_256, _text(key) if fork else key).ciphertext
        annotations = {_VERSION: b"1", _ALGORITHM: b"RSA-OAEP-256"}
        return self._wrapped(block if fork else _text(block), _hash(self._url(version)), annotations)

    def _current(self) -> str:
        return "" if self._api is Api.V1 else _hash(self._url(self._known_versions()[0]))

    def _judge(self, error: Exception) -> Failure:
        if isinstance(error, HttpResponseError) and error.status_code:
            return self._judged(error)
        name = type(error).__name__
        if isinstance(error, ClientAuthenticationError):
            return Failure(Category.ACCESS_DENIED, name, f"no valid credentials: {_LOG_IN}", answered=False)
        if isinstance(error, ServiceResponseTimeoutError) or "timeout" in str(error).lower():
            hint = "check the network, or give it more time with --kms-timeout"
            return Failure(Category.TIMEOUT, name, hint, answered=False)
        if isinstance(error, (ServiceRequestError, ServiceResponseError)):
            hint = "check the network, HTTPS_PROXY, and the name of the vault"
            return Failure(Category.UNREACHABLE, name, hint, answered=False)
        return Failure(Category.OTHER, name, "check the configuration of Azure")

    def _judged(self, error: HttpResponseError) -> Failure:
        stated = getattr(error, "error", None)
        code = str(getattr(stated, "code", "") or "")
        inner = _inner(getattr(stated, "innererror", None)) or _inner(getattr(stated, "inner_error", None))
        message = str(getattr(stated, "message", "") or "")
        headers = getattr(error.response, "headers", None) or {}
        category = _category(int(error.status_code or 0), code, inner)
        detail = f"HTTP {error.status_code} {inner or code}: {message}".rstrip(": ")
        return Failure(category, detail, self._hint(category), retry_after=after(headers.get("Retry-After")))

    def _hint(self, category: Category) -> str:
        if category is Category.ACCESS_DENIED:
            return (
                f"the account needs keys/decrypt on {self._vault} (role Key Vault Crypto User), for writing keys/get, "
                f"without versions keys/list; or {_LOG_IN}"
            )
        if category is Category.KEY_DISABLED:
            return (
                "the data is intact: `az keyvault key set-attributes --enabled true` for this version, or a later "
                "--expires; then start over"
            )
        if category is Category.KEY_UNKNOWN:
            return "a deleted key can be had back while the vault keeps it: `az keyvault key recover`"
        if category is Category.BAD_CIPHERTEXT:
            return "if this hits every value, look at the key and its version before the data"
        if category is Category.THROTTLED:
            return "the vault's quota is used up: lower --kms-rate or --kms-concurrency, or run again later"
        return "run again later" if category is Category.UNREACHABLE else ""


class _Clients:
    """One client for each version of a key: each learns the public key once."""

    def __init__(self, credential: Any, options: dict[str, Any]) -> None:
        self._credential = credential
        self._options = options
        self._made: dict[str, Any] = {}

    def keys(self, vault: str) -> Any:
        return KeyClient(vault, self._credential, **self._options)

    def key(self, url: str) -> Any:
        if url not in self._made:
            self._made[url] = CryptographyClient(url, self._credential, **self._options)
        return self._made[url]

    def close(self) -> None:
        for client in self._made.values():
            client.close()


def _inner(stated: Any) -> str:
    """Return the code of an inner error, in whichever form an SDK hands it out."""
    if isinstance(stated, dict):
        return str(stated.get("code", "") or "")
    return str(getattr(stated, "code", "") or "")


def _category(status: int, code: str, inner: str) -> Category:
    if _DISABLED & {code, inner}:
        return Category.KEY_DISABLED
    if status == 429:
        return Category.THROTTLED
    if status in {401, 403}:
        return Category.ACCESS_DENIED
    if status == 404:
        return Category.KEY_UNKNOWN
    if status == 400:
        return Category.BAD_CIPHERTEXT
    if status == 408:
        return Category.TIMEOUT
    return Category.UNREACHABLE if status >= 500 else Category.OTHER


def _block(stored: bytes) -> bytes:
    """Return the RSA block: upstream stores it as text, the fork as it is."""
    if re.fullmatch(rb"[A-Za-z0-9_-]+", stored) and len(stored) % 4 != 1:
        block = base64.urlsafe_b64decode(stored + b"=" * (-len(stored) % 4))
        if len(block) in _BLOCKS:
            return block
    if len(stored) in _BLOCKS:
        return stored
    raise Refusal(
        Category.BAD_CIPHERTEXT,
        f"a wrapped key of {len(stored)} bytes is not one of this service's",
        "the values may have been written by another plugin",
    )


def _text(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _hash(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()
