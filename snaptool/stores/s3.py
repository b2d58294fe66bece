"""S3, and stores that speak it, by boto3: credentials, regions and endpoints are found as the cloud's own tools do."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit
from urllib.request import getproxies

from snaptool.errors import InputError
from snaptool.loopback import is_here
from snaptool.stores.listing import Entry
from snaptool.stores.location import AskedAt, ObjectAt
from snaptool.stores.store import (
    BrokenOff,
    DownloadDiffers,
    ExtraMissing,
    Replaced,
    Seen,
    StoreRefused,
    StoreUnreachable,
    StoreUnsupported,
    first_line,
    other_range,
    require_private,
)
from snaptool.stores.sums import PART, Sums

try:
    import boto3
    from boto3.exceptions import S3UploadFailedError
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        CredentialRetrievalError,
        FlexibleChecksumError,
        HTTPClientError,
        IncompleteReadError,
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
        ResponseStreamingError,
        SSOError,
        TokenRetrievalError,
    )
except ImportError as error:
    raise ExtraMissing("s3:// needs boto3, which is not installed", hint="pip install 'snaptool[aws]'") from error

_BLOCK = 1 << 20
_LONGEST = 300
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOError,
    ProfileNotFound,
)
_UNTRUSTED = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_ELSEWHERE = {"301", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_SLOWER = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded"}
_CONDITION = {"412", "PreconditionFailed", "ConditionalRequestConflict"}
_UNCONDITIONAL = (
    "write to a local file, and copy that with the store's own tool; or --no-condition, where nothing else writes there"
)


class S3Store:
    """One object of a bucket."""

    def __init__(self, location: ObjectAt, shown: str) -> None:
        self._location, self._shown = location, shown
        self._own: dict[str, Any] = {}
        if isinstance(location, AskedAt) and location.sse_key:
            self._own = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": location.sse_key}
        self._where: dict[str, Any] = {"Bucket": location.bucket, "Key": location.name, **self._own}
        self._client = _shared(self._made)

    def _made(self) -> Any:
        # A store of one's own has no name for every bucket in its DNS.
        own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        config = Config(
            connect_timeout=10,
            read_timeout=60,
            retries={"mode": "standard", "max_attempts": 3},
            s3={"addressing_style": "path"} if own else None,
        )
        # boto3 alone among Amazon's SDKs does not read AWS_REGION.
        region = os.environ.get("AWS_REGION") or None
        try:
            session = boto3.session.Session()
            client = session.client("s3", region_name=region, config=config)
            if is_here(client.meta.endpoint_url) and getproxies():
                client = session.client("s3", region_name=region, config=config.merge(Config(proxies={})))
        except (BotoCoreError, ValueError) as error:
            self._fail(error)
        require_private(client.meta.endpoint_url, self._shown, "AWS_ENDPOINT_URL_S3")
        return client

    def look(self) -> Seen | None:
        """Return size, ETag and checksum of the object, or of the version that the URL names."""
        version = {} if self._location.version is None else {"VersionId": self._location.version}
        try:
            found = self._client.head_object(**self._where, **version, ChecksumMode="ENABLED")
        except ClientError as error:
            said = self._reason(error, version)
            if _code(said) in {"404", "NoSuchKey", "NotFound"}:
                return None
            self._fail(said)
        except BotoCoreError as error:
            self._fail(error)
        modified = found.get("LastModified")
        return Seen(int(found["ContentLength"]), str(found.get("ETag", "")), _stated(found), modified)

    def _reason(self, error: ClientError, version: dict[str, str]) -> ClientError:
        """Ask for the first byte: an answer to HEAD is a number without a reason."""
        try:
            self._client.get_object(**self._where, **version, Range="bytes=0-0")["Body"].close()
        except ClientError as said:
            return said
        except BotoCoreError:
            pass
        return error

    def below(self, *, all_versions: bool) -> Iterator[Entry]:
        """Yield all objects whose names begin with that of the location, by name."""
        call, field = ("list_object_versions", "Versions") if all_versions else ("list_objects_v2", "Contents")
        bucket = self._location.bucket
        try:
            for page in self._client.get_paginator(call).paginate(Bucket=bucket, Prefix=self._location.name):
                for one in page.get(field, ()):
                    name, size = str(one["Key"]), int(one["Size"])
                    if name.endswith("/"):
                        continue
                    older = all_versions and not one["IsLatest"]
                    version = f"?versionId={one['VersionId']}" if older else ""
                    etag = str(one.get("ETag", ""))
                    yield Entry(f"s3://{bucket}/{name}{version}", size, etag, one["LastModified"])
        except (BotoCoreError, ClientError) as error:
            self._fail(error)

    def _match(self, seen: Seen) -> str:
        """Return what the object must still be when it is read."""
        if not seen.version:
            raise StoreUnsupported(
                f"{self._shown} has no ETag: it could be replaced while it is read, and nobody would know",
                hint="copy the object in its store, which gives it one, or copy it here",
                place=self._shown,
            )
        return seen.version

    def read(self, seen: Seen, offset: int) -> Iterator[bytes]:
        """Yield the object from an offset on, as long as its ETag is the same."""
        version = {} if self._location.version is None else {"VersionId": self._location.version}
        try:
            answer = self._client.get_object(
                **self._where, **version, IfMatch=self._match(seen), Range=f"bytes={offset}-{seen.size - 1}"
            )
            if offset and not str(answer.get("ContentRange", "")).startswith(f"bytes {offset}-"):
                raise other_range(self._shown)
            yield from answer["Body"].iter_chunks(_BLOCK)
        except ClientError as error:
            if _code(error) in _CONDITION | {"404", "NoSuchKey", "InvalidRange"}:
                raise Replaced from error
            if _status(error) >= 500 or _code(error) in _SLOWER:
                raise BrokenOff(_said(error)) from error
            self._fail(error)
        except FlexibleChecksumError as error:  # boto3 compares by itself where a range is the whole
            raise DownloadDiffers(self._shown) from error
        except (HTTPClientError, ResponseStreamingError, IncompleteReadError, OSError) as error:
            raise BrokenOff(type(error).__name__) from error
        except BotoCoreError as error:
            self._fail(error)

    def create(self, content: Path, sums: Sums, replacing: Seen | None) -> None:  # noqa: ARG002 - S3 sums parts itself
        """Send a file in parts of 16 MiB, which become an object together, under the condition, or are aborted."""
        condition = {"IfNoneMatch": "*"} if replacing is None else {"IfMatch": self._match(replacing)}
        if not self._is_conditional():
            condition = {}
        client = self._made()

        def add(params: dict[str, Any], **_: Any) -> None:
            params.update(condition)

        for call in ("PutObject", "CompleteMultipartUpload"):  # s3transfer takes no condition by itself
            client.meta.events.register(f"provide-client-params.s3.{call}", add)
        config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=4)
        try:
            client.upload_file(
                str(content),
                self._location.bucket,
                self._location.name,
                ExtraArgs={"ChecksumAlgorithm": "SHA256", **self._encryption()},
                Config=config,
            )
        except S3UploadFailedError as error:
            cause = error.__context__ if isinstance(error.__context__, ClientError) else None
            if cause is None:
                raise StoreRefused(f"{self._shown}: the upload failed", place=self._shown) from error
            self._refused(cause)
        except ClientError as error:
            self._refused(error)
        except (BotoCoreError, OSError) as error:
            self._fail(error)

    def require_conditions(self) -> None:
        """Ask a store of the user's own for a write that must fail: one to what is not there, as if it were.

        Where the store knows conditions nothing is written; where it ignores them, an empty object under a name that
        nobody has, which is removed. Not asked of Amazon, nor twice.
        """
        endpoint = self._client.meta.endpoint_url
        where = (endpoint, self._location.bucket)
        if where in _conditional or _is_of_amazon(endpoint) or not self._is_conditional():
            return
        name = f"{self._location.name}.{secrets.token_hex(8)}.probe"
        try:
            never = f'"{"0" * 32}"'
            self._client.put_object(
                Bucket=self._location.bucket, Key=name, Body=b"", IfMatch=never, **self._encryption()
            )
        except ClientError as error:
            if _status(error) == 501:
                self._refused(error)
            _conditional.add(where)  # or it says something else, which writing meets again
        except BotoCoreError as error:
            self._fail(error)
        else:
            left = ""
            try:
                self._client.delete_object(Bucket=self._location.bucket, Key=name)
            except (BotoCoreError, ClientError):
                left = f"; an empty object is left: {name}"
            raise StoreRefused(
                f"{self._shown}: this store ignores conditions on writes, so that something could be replaced{left}",
                hint=_UNCONDITIONAL,
                place=self._shown,
            )

    def _is_conditional(self) -> bool:
        return not isinstance(self._location, AskedAt) or self._location.conditional

    def _encryption(self) -> dict[str, Any]:
        """Return the parameters for the encryption of an object that is created."""
        if not (isinstance(self._location, AskedAt) and self._location.sse):
            return self._own
        service, _, key = self._location.sse.partition("aws:kms:")
        return {"ServerSideEncryption": service or "aws:kms"} | ({"SSEKMSKeyId": key} if key else {})

    def _refused(self, error: ClientError) -> NoReturn:
        if _code(error) in _CONDITION:
            raise Replaced from error
        if _status(error) == 501:
            raise StoreRefused(
                f"{self._shown}: this store does not know conditional writes, so that something could be replaced",
                hint=_UNCONDITIONAL,
                place=self._shown,
            ) from error
        self._fail(error)

    def kept(self, sums: Sums) -> bool | None:
        """Compare the store's size with ours, and its checksum where it has one."""
        seen = self.look()
        if seen is None or seen.size != sums.size:
            return False
        return seen.checksum == f"SHA256:{sums.uploaded}" if seen.checksum.startswith("SHA256:") else None

    def _fail(self, error: Exception) -> NoReturn:
        """Raise the named error for what boto3 raised. Messages of the service are cut; nothing sent is in them."""
        place, code = self._shown, _code(error)
        if isinstance(error, _NO_CREDENTIALS) or code in _UNTRUSTED:
            raise StoreRefused(
                f"{place}: no valid credentials: {_said(error)}",
                hint="log in as for `aws s3`: environment, AWS_PROFILE, `aws sso login`",
                place=place,
            ) from error
        if code in _ELSEWHERE:
            raise StoreRefused(
                f"{place}: the bucket is in another region: {_said(error)}",
                hint="set AWS_REGION to the region of the bucket",
                place=place,
            ) from error
        if isinstance(error, ClientError):
            if code == "NoSuchBucket":
                raise InputError(
                    f"{place}: there is no such bucket", hint="check the spelling of the URL", code="no_such_object"
                ) from error
            if _status(error) >= 500 or code in _SLOWER:
                raise StoreUnreachable(
                    f"{place}: the store is not well: {_said(error)}", hint="try again later", place=place
                ) from error
            hint = (
                "reading needs s3:GetObject, writing s3:PutObject too, for this bucket and name; without s3:ListBucket "
                "a name that is not there is answered like this"
            )
            if code == "RequestTimeTooSkewed":
                hint = "set the clock of this machine"
            elif _status(error) == 400:
                hint = "look at the name of the bucket and at AWS_REGION, which is to be that of the bucket"
            raise StoreRefused(f"{place}: the store refused: {_said(error)}", hint=hint, place=place) from error
        if isinstance(error, (HTTPClientError, OSError)) or "Connect" in type(error).__name__:
            raise StoreUnreachable(
                f"{place}: the store cannot be reached: {_said(error)}",
                hint="check the network, AWS_REGION and AWS_ENDPOINT_URL_S3",
                place=place,
            ) from error
        raise StoreRefused(f"{place}: {_said(error)}", hint="check the configuration of AWS", place=place) from error


_conditional: set[tuple[str, str]] = set()
"""Endpoints and buckets that were asked whether they keep conditions, and do."""


def _is_of_amazon(endpoint: str) -> bool:
    """Is it Amazon's own, whose conditions are known?"""
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


_clients: dict[tuple[object, ...], Any] = {}


def _shared(make: Callable[[], Any]) -> Any:
    """Return the client of this process for these settings of the environment: making one takes a tenth of a second."""
    mine = (os.getpid(), *sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    if mine not in _clients:
        _clients.clear()  # one of a parent is no good after a fork, nor one for other settings
        _clients[mine] = make()
    return _clients[mine]


def _stated(found: dict[str, Any]) -> str:
    """Return the checksum that a store states. Some leave out that it is one of parts; the ETag has their number."""
    for name in ("SHA256", "CRC32"):
        if value := str(found.get(f"Checksum{name}", "")):
            _, dash, count = str(found["ETag"]).strip('"').partition("-")
            of_parts = dash and "-" not in value and found.get("ChecksumType") != "FULL_OBJECT"
            return f"{name}:{value}" + (f"-{count}" if of_parts else "")
    return ""


def _code(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)


def _said(error: Exception) -> str:
    if isinstance(error, ClientError):
        stated = error.response.get("Error", {})
        return f"{stated.get('Code', '')} {stated.get('Message', '')}".strip()[:_LONGEST]
    # What a program that hands out credentials says may have some in it.
    return type(error).__name__ if isinstance(error, CredentialRetrievalError) else first_line(error)
