"""Google Cloud KMS as k8s-cloudkms-plugin uses it: two JSON calls, with checksums that the plugin does not ask for.

By google-auth and requests, and not by google-cloud-kms: that needs protobuf, in a version of its own.
Source: docs/clouds.md; docs/formats/kms.md, "Plugins"; Cloud KMS REST reference, cryptoKeys.encrypt and decrypt.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

import google.auth
import google.auth.exceptions
import google.auth.transport.requests
import requests
from crc32c import crc32c

from snaptool.providers.direct.service import DirectService, Failure, Refusal, after
from snaptool.providers.kms_envelope import WrappedSource
from snaptool.providers.kms_service import Category
from snaptool.providers.provider import Api

_SERVICE: Final = "https://cloudkms.googleapis.com"
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
_KEY: Final = re.compile(r"(projects/[^/:]+/locations/[^/:]+/keyRings/[^/:]+/cryptoKeys/[^/:]+)")
_LOG_IN: Final = "log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"
_QUOTA: Final = "`gcloud auth application-default set-quota-project PROJECT` names the project that pays"


class _Answered(Exception):
    """The service answered something else than 200."""

    def __init__(self, answer: requests.Response) -> None:
        super().__init__()
        self.status: int = answer.status_code
        self.retry_after = after(answer.headers.get("Retry-After"))
        self.error = _error_of(answer)


def _error_of(answer: requests.Response) -> dict[str, Any]:
    """Return `error` of the body; empty where a body is not the service's: proxies answer HTML, others a text."""
    try:
        body = answer.json()
    except ValueError:
        return {}
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


class GoogleKms(DirectService):
    """One key, or with v2 whatever key a value's key id names."""

    def _open(self) -> Any:
        if self._direct.option("endpoint"):
            return requests.Session()  # a server on this machine: it is shown no credentials
        credentials, _ = google.auth.default(scopes=_SCOPES)
        return google.auth.transport.requests.AuthorizedSession(credentials)

    def _post(self, key: str, verb: str, body: dict[str, str]) -> dict[str, Any]:
        base = self._direct.option("endpoint", _SERVICE).rstrip("/")
        answer = self._made().post(
            f"{base}/v1/{key}:{verb}", json=body, timeout=self._patience.timeout, allow_redirects=False
        )
        if answer.status_code != 200:
            raise _Answered(answer)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Refusal(Category.BAD_ANSWER, "the answer is not the service's", "look for a proxy on the way")
        return found

    def _key_of(self, source: WrappedSource) -> str:
        if self._api is Api.V1:
            if not self._direct.where:
                raise Refusal(
                    Category.KEY_UNKNOWN,
                    "values of KMS v1 do not name their key",
                    f"name it: {self.provider}=gcp:projects/P/locations/L/keyRings/R/cryptoKeys/K",
                )
            return self._direct.where
        found = _KEY.match(source.key_id)
        if found is None:
            raise Refusal(
                Category.KEY_UNKNOWN,
                "the key id of these values is not the name of a key",
                "they were written by the plugin of another service",
            )
        return found[1]

    def _decrypt(self, source: WrappedSource) -> bytes:
        body = {"ciphertext": _coded(source.source), "ciphertextCrc32c": str(crc32c(source.source))}
        answer = self._post(self._key_of(source), "decrypt", body)
        return _content(answer, "plaintext")

    def _encrypt(self, key: bytes) -> WrappedSource:
        ciphertext, key_id = self._sealed(key)
        return self._wrapped(ciphertext, key_id)

    def _sealed(self, plaintext: bytes) -> tuple[bytes, str]:
        body = {"plaintext": _coded(plaintext), "plaintextCrc32c": str(crc32c(plaintext))}
        answer = self._post(self._direct.where, "encrypt", body)
        suffix = self._direct.option("suffix")
        return _content(answer, "ciphertext"), str(answer.get("name", "")) + (f":{suffix}" if suffix else "")

    def _current(self) -> str:
        key_id = self._sealed(b"ping")[1]
        return "" if self._api is Api.V1 else key_id

    def _judge(self, error: Exception) -> Failure:
        if isinstance(error, _Answered):
            return self._judged(error)
        name = type(error).__name__
        if isinstance(error, google.auth.exceptions.TransportError):
            return Failure(Category.UNREACHABLE, name, _GENERAL[Category.UNREACHABLE], answered=False)
        if isinstance(error, google.auth.exceptions.GoogleAuthError):
            return Failure(Category.ACCESS_DENIED, name, f"no valid credentials: {_LOG_IN}", answered=False)
        if isinstance(error, requests.Timeout):
            return Failure(Category.TIMEOUT, name, _GENERAL[Category.TIMEOUT], answered=False)
        if isinstance(error, (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            return Failure(Category.UNREACHABLE, name, _GENERAL[Category.UNREACHABLE], answered=False)
        return Failure(Category.OTHER, name, "check the configuration of Google Cloud")

    def _judged(self, answered: _Answered) -> Failure:
        status, error = answered.status, answered.error
        stated, message = str(error.get("status", "")), str(error.get("message", ""))
        category = _category(status, stated, message, _violations(error))
        hint = self._hint(category, message)
        detail = f"HTTP {status} {stated}: {message}".replace(" :", ":").rstrip(": ")
        return Failure(category, detail, hint, retry_after=answered.retry_after)

    def _hint(self, category: Category, message: str) -> str:
        if category is Category.ACCESS_DENIED:
            if "quota project" in message.lower():
                return _QUOTA
            return (
                "the account needs cloudkms.cryptoKeyVersions.useToDecrypt on the key (role cryptoKeyDecrypter), for "
                f"writing useToEncrypt too (cryptoKeyEncrypterDecrypter); or {_LOG_IN}"
            )
        if category is Category.KEY_DISABLED:
            return (
                "the data is intact: `gcloud kms keys versions enable`, or `restore` where it is scheduled for "
                "destruction and then enable; then start over"
            )
        if category is Category.KEY_UNKNOWN:
            return "a destroyed version is gone for good; a name that is not found may be of another project"
        if category is Category.BAD_CIPHERTEXT:
            return "if this hits every value, look at the name of the key before the data"
        return _GENERAL.get(category, "")


_GENERAL: Final = {
    Category.THROTTLED: "the project's quota is used up: lower --kms-rate or --kms-concurrency, or run again later",
    Category.TIMEOUT: "check the network, or give it more time with --kms-timeout",
    Category.UNREACHABLE: "check the network and HTTPS_PROXY, or run again later",
}


def _violations(error: dict[str, Any]) -> str:
    """Return the types of the violations that the details state."""
    details = error.get("details")
    found = [one.get("violations") for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    flat = [violation for each in found if isinstance(each, list) for violation in each]
    return " ".join(str(violation.get("type", "")) for violation in flat if isinstance(violation, dict))


def _category(status: int, stated: str, message: str, violations: str) -> Category:
    if status == 429 or stated == "RESOURCE_EXHAUSTED":
        return Category.THROTTLED
    if stated == "FAILED_PRECONDITION":
        states = violations or message.rpartition("state is:")[2]
        # Scheduled for destruction is not destroyed: that version can be restored.
        gone = re.search(r"(?<![A-Z])DESTROYED\b", states.replace("KEY_", ""))
        return Category.KEY_UNKNOWN if gone else Category.KEY_DISABLED
    if status in {401, 403}:
        return Category.ACCESS_DENIED
    if status == 404:
        return Category.KEY_UNKNOWN
    if status == 408 or stated == "DEADLINE_EXCEEDED":
        return Category.TIMEOUT
    if status >= 500:
        return Category.UNREACHABLE
    if stated == "INVALID_ARGUMENT" or status == 400:
        return Category.BAD_CIPHERTEXT
    return Category.OTHER


def _coded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _content(answer: dict[str, Any], member: str) -> bytes:
    """Return a member's bytes, which fit the checksum that goes with them where there is one."""
    try:
        content = base64.b64decode(str(answer.get(member, "")), validate=True)
    except binascii.Error:
        raise Refusal(Category.BAD_ANSWER, f"{member} of the answer is not base64") from None
    stated = answer.get(f"{member}Crc32c")
    if stated is not None and str(stated) != str(crc32c(content)):
        hint = "something on the way alters what the service says: nothing of it was used"
        raise Refusal(Category.BAD_ANSWER, f"the checksum of {member} in the answer is wrong", hint)
    return content
