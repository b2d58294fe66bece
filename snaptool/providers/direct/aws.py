"""AWS KMS as kubernetes-sigs/aws-encryption-provider uses it: `1` and the ciphertext, which names its key by itself.

Source: docs/clouds.md; pkg/plugin/plugin_v2.go and pkg/kmsplugin/kms.go of that project.
"""

from __future__ import annotations

import json
import os
from typing import Any, Final
from urllib.request import getproxies

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    SSOError,
    TokenRetrievalError,
)

from snaptool.loopback import is_here, is_private
from snaptool.providers.direct.said import BadDirect
from snaptool.providers.direct.service import DirectService, Failure, Refusal, after
from snaptool.providers.kms_envelope import WrappedSource
from snaptool.providers.kms_service import Category
from snaptool.providers.provider import Api

_PREFIX: Final = b"1"
_BY_CODE: Final = {
    "DisabledException": Category.KEY_DISABLED,
    "KMSInvalidStateException": Category.KEY_DISABLED,
    "NotFoundException": Category.KEY_UNKNOWN,
    "InvalidArnException": Category.KEY_UNKNOWN,
    "IncorrectKeyException": Category.KEY_UNKNOWN,
    "InvalidKeyUsageException": Category.KEY_UNKNOWN,
    "InvalidCiphertextException": Category.BAD_CIPHERTEXT,
    "ValidationException": Category.BAD_CIPHERTEXT,
    "LimitExceededException": Category.THROTTLED,
    "RequestLimitExceeded": Category.THROTTLED,
    "TooManyRequestsException": Category.THROTTLED,
    "KMSInternalException": Category.UNREACHABLE,
    "DependencyTimeoutException": Category.UNREACHABLE,
    "KeyUnavailableException": Category.UNREACHABLE,
    "InternalFailure": Category.UNREACHABLE,
    "InternalServerError": Category.UNREACHABLE,
}
_BY_BEGINNING: Final = (
    (Category.THROTTLED, ("Throttl",)),
    (Category.UNREACHABLE, ("ServiceUnavailable",)),
    (
        Category.ACCESS_DENIED,
        (
            *("AccessDenied", "NotAuthorized", "UnrecognizedClient", "InvalidClientTokenId", "ExpiredToken"),
            *("InvalidSignature", "SignatureDoesNotMatch", "IncompleteSignature", "MissingAuthenticationToken"),
            *("OptInRequired", "InvalidToken", "RequestExpired"),
        ),
    ),
)
_EXPIRED: Final = ("ExpiredToken", "RequestExpired")
_NO_CREDENTIALS: Final = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOError,
    ProfileNotFound,
)
_LOG_IN: Final = "log in as for `aws kms`: environment, AWS_PROFILE or profile=, `aws sso login`"


class AwsKms(DirectService):
    """One account and region.

    Values older than a change of key belong to another one, which only the ciphertext names: KeyId is sent with Decrypt
    only if the user asks for it (`pin`).
    """

    def _open(self) -> Any:
        direct = self._direct
        # boto3 alone among Amazon's SDKs does not read AWS_REGION.
        region = direct.option("region") or _region_of(direct.where) or os.environ.get("AWS_REGION") or None
        config = Config(
            connect_timeout=self._patience.timeout,
            read_timeout=self._patience.timeout,
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        session = boto3.session.Session(profile_name=direct.option("profile") or None)
        client = session.client("kms", region_name=region, config=config)
        endpoint = client.meta.endpoint_url
        if not is_private(endpoint):
            raise BadDirect(
                f"KMS provider {self.provider!r}: the endpoint of KMS is not an https:// URL, and would show keys to "
                "everybody",
                hint="set AWS_ENDPOINT_URL_KMS to an https:// URL; plain http is for a server on this machine alone",
            )
        if is_here(endpoint) and getproxies():
            client = session.client("kms", region_name=region, config=config.merge(Config(proxies={})))
        client.meta.events.register("before-parse.kms", _only_objects)
        return client

    @property
    def _context(self) -> dict[str, Any]:
        found = {key[len("context.") :]: value for key, value in self._direct.options if key.startswith("context.")}
        return {"EncryptionContext": found} if found else {}

    def _decrypt(self, source: WrappedSource) -> bytes:
        stored = source.source
        if self._api is Api.V2 and not stored.startswith(_PREFIX):
            raise Refusal(
                Category.BAD_CIPHERTEXT,
                "the wrapped key does not begin as the AWS plugin's do",
                "the values may have been written by another plugin: `snaptool kms plan` shows what they look like",
            )
        blob = stored.removeprefix(_PREFIX)
        if not blob:
            raise Refusal(Category.BAD_CIPHERTEXT, "the wrapped key is empty")
        pinned = {"KeyId": self._direct.where} if "pin" in dict(self._direct.options) else {}
        answer: bytes = self._made().decrypt(CiphertextBlob=blob, **self._context, **pinned)["Plaintext"]
        return answer

    def _encrypt(self, key: bytes) -> WrappedSource:
        where = self._direct.where
        blob: bytes = self._made().encrypt(KeyId=where, Plaintext=key, **self._context)["CiphertextBlob"]
        return self._wrapped(_PREFIX + blob, where)

    def _current(self) -> str:
        where = self._direct.where
        try:
            state = self._made().describe_key(KeyId=where)["KeyMetadata"]["KeyState"]
        except ClientError as error:
            if self._judge(error).category is not Category.ACCESS_DENIED:
                raise
            state = "Enabled"  # not everybody who may use a key may look at it
        if state != "Enabled":
            raise Refusal(Category.KEY_DISABLED, f"the key is in the state {state}", self._hint(Category.KEY_DISABLED))
        return "" if self._api is Api.V1 else where

    def _judge(self, error: Exception) -> Failure:
        if isinstance(error, ClientError):
            stated = error.response.get("Error", {}) if isinstance(error.response, dict) else {}
            code, message = str(stated.get("Code", "")), str(stated.get("Message", ""))
            about = error.response.get("ResponseMetadata", {}) if isinstance(error.response, dict) else {}
            category = _category(code, int(about.get("HTTPStatusCode") or 0))
            headers = about.get("HTTPHeaders") or {}
            hint = self._hint(category)
            if code.startswith(_EXPIRED):
                hint = f"the credentials have expired: {_LOG_IN}"
            return Failure(
                category, f"{code}: {message}".strip(": "), hint, retry_after=after(headers.get("retry-after"))
            )
        name = type(error).__name__
        if isinstance(error, ValueError):  # botocore says so of an endpoint
            return Failure(
                Category.OTHER, "the endpoint of KMS is not a URL", "set AWS_ENDPOINT_URL_KMS to an https:// URL"
            )
        if isinstance(error, _NO_CREDENTIALS):
            detail = str(error) if isinstance(error, ProfileNotFound) else name
            return Failure(Category.ACCESS_DENIED, detail, f"no valid credentials: {_LOG_IN}", answered=False)
        if isinstance(error, NoRegionError):
            hint = f"say it: {self.provider}=aws?region=REGION, or set AWS_REGION"
            return Failure(Category.OTHER, "no region is configured", hint, answered=False)
        if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)):
            return Failure(Category.TIMEOUT, name, self._hint(Category.TIMEOUT), answered=False)
        if isinstance(error, (EndpointConnectionError, HTTPClientError)):
            return Failure(Category.UNREACHABLE, name, self._hint(Category.UNREACHABLE), answered=False)
        # Messages of other errors may show the parameters of the call.
        return Failure(
            Category.OTHER, name, "check the configuration of AWS", answered=isinstance(error, BotoCoreError)
        )

    def _hint(self, category: Category) -> str:
        where = self._direct.where or "the key that the ciphertext names"
        region = self._client.meta.region_name if self._client is not None else "the configured one"
        if category is Category.ACCESS_DENIED:
            return (
                f"check the region ({region}), the key ({where}) and the permission: kms:Decrypt, for writing "
                "kms:Encrypt too, with the same encryption context; a key of another region, or one that is disabled, "
                "may be answered like this"
            )
        if category is Category.KEY_DISABLED:
            return (
                "the data is intact: `aws kms enable-key`, or `aws kms cancel-key-deletion` and then enable-key, for "
                f"{where}; then start over"
            )
        if category is Category.KEY_UNKNOWN:
            return f"check the key ({where}), the account and the region ({region})"
        if category is Category.BAD_CIPHERTEXT:
            return (
                "if this hits every value, look at the encryption context (context.KEY=VALUE, as the plugin's "
                f"--encryption-context) and the region ({region}) before the data"
            )
        return _GENERAL.get(category, "")


_GENERAL: Final = {
    Category.THROTTLED: "the account's quota is used up: lower --kms-rate or --kms-concurrency, or run again later",
    Category.TIMEOUT: "check the network and the region, or give it more time with --kms-timeout",
    Category.UNREACHABLE: "check the network, HTTPS_PROXY and the region, or run again later",
}


def _only_objects(response_dict: dict[str, Any], **_: Any) -> None:
    """Empty an answer that is not a JSON object: boto3 would fail on it, and its status would be lost."""
    try:
        fits = isinstance(json.loads(response_dict["body"]), dict)
    except ValueError:
        fits = False
    if not fits:
        response_dict["body"] = b"{}"


def _region_of(where: str) -> str:
    return where.split(":")[3] if where.startswith("arn:") else ""


def _category(code: str, status: int) -> Category:
    if code in _BY_CODE:
        return _BY_CODE[code]
    for category, beginnings in _BY_BEGINNING:
        if code.startswith(beginnings):
            return category
    # Who answers without a code of the service is not the service: a proxy, a gateway.
    if status == 429:
        return Category.THROTTLED
    if status in {401, 403}:
        return Category.ACCESS_DENIED
    return Category.UNREACHABLE if status >= 500 else Category.OTHER
