"""Azure Blob Storage, by its own client: block blobs, whose blocks become a blob together, under a condition.

Source: docs/clouds.md; Blob Storage, "Specifying conditional headers".
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from snaptool.errors import InputError
from snaptool.stores.listing import Entry
from snaptool.stores.location import BlobAt
from snaptool.stores.store import (
    BrokenOff,
    ExtraMissing,
    Replaced,
    Seen,
    StoreRefused,
    StoreUnreachable,
    exactly,
    first_line,
    other_range,
    require_private,
)
from snaptool.stores.sums import PART, Sums

try:
    from azure.core import MatchConditions
    from azure.core.exceptions import (
        ClientAuthenticationError,
        HttpResponseError,
        IncompleteReadError,
        ResourceExistsError,
        ResourceModifiedError,
        ResourceNotFoundError,
        ServiceRequestError,
        ServiceResponseError,
    )
    from azure.identity import DefaultAzureCredential
    from azure.storage.blob import BlobServiceClient, LinearRetry
except ImportError as error:
    raise ExtraMissing(
        "az:// needs azure-storage-blob, which is not installed", hint="pip install 'snaptool[azure]'"
    ) from error

# Its warnings would go to stderr, beside ours and unescaped.
logging.getLogger("azure").addHandler(logging.NullHandler())

_NOT_HIM = frozenset({"AuthenticationFailed", "AuthorizationFailure", "InvalidAuthenticationInfo"})
_PAUSE = 1  # second, before each of two tries more: the client's own pauses add up to most of a minute
_RANGE = 4 << 20
_SMALLEST_RANGE = 256 << 10
_SETTINGS: dict[str, Any] = {
    "max_block_size": PART,
    "max_single_put_size": PART,
    "max_single_get_size": _RANGE,
    "max_chunk_get_size": _RANGE,
    "connection_timeout": 10,
    "read_timeout": 60,
}


class AzStore:
    """One blob of a container."""

    def __init__(self, location: BlobAt, shown: str) -> None:
        self._location, self._shown = location, shown
        self._range = _RANGE
        with self._said():
            self._service: Any = _service(location, shown)
            require_private(self._service.url, shown, "AZURE_STORAGE_CONNECTION_STRING")
            # What is below a container is asked for without a name.
            self._blob: Any = self._service.get_blob_client(location.container, location.name or "-")

    def look(self) -> Seen | None:
        """Return size and ETag of the blob, or of the version that the URL names."""
        try:
            found = self._blob.get_blob_properties(version_id=self._location.version)
        except ResourceNotFoundError as error:
            if getattr(error, "error_code", "") == "ContainerNotFound":
                self._fail(error)
            return None
        except Exception as error:  # noqa: BLE001 - the client raises what its transport raises
            self._fail(error)
        return Seen(int(found.size), str(found.etag), "", found.last_modified)

    def below(self, *, all_versions: bool) -> Iterator[Entry]:
        """Yield all blobs whose names begin with that of the location, by name."""
        here, name = self._location, self._location.name
        beginning = f"az://{here.account}.blob.core.windows.net/" if here.account else "az://"
        with self._said():
            container = self._service.get_container_client(here.container)
            include = ["versions"] if all_versions else None
            for one in container.list_blobs(name_starts_with=name, include=include):
                if one.name.endswith("/"):
                    continue
                older = f"?versionid={one.version_id}" if all_versions and not one.is_current_version else ""
                url = f"{beginning}{here.container}/{one.name}{older}"
                yield Entry(url, int(one.size), f'"{str(one.etag).strip(chr(34))}"', one.last_modified)

    def read(self, seen: Seen, offset: int) -> Iterator[bytes]:
        """Yield the blob from an offset on, as long as its ETag is the same. After a break the ranges are smaller."""
        try:
            for start in range(offset, seen.size, self._range):
                stream = self._blob.download_blob(
                    offset=start,
                    length=min(self._range, seen.size - start),
                    etag=seen.version,
                    match_condition=MatchConditions.IfNotModified,
                    version_id=self._location.version,
                    max_concurrency=1,
                    decompress=False,  # the bytes that are kept, whatever is said of their encoding
                )
                yield from exactly(stream.readall(), min(self._range, seen.size - start), self._shown)
        except (ResourceModifiedError, ResourceNotFoundError) as error:
            raise Replaced from error
        except (ServiceRequestError, ServiceResponseError, IncompleteReadError, OSError) as error:
            self._range = max(_SMALLEST_RANGE, self._range // 4)
            raise BrokenOff(type(error).__name__) from error
        except HttpResponseError as error:
            if error.status_code == 416:
                raise Replaced from error
            if error.status_code is None or error.status_code >= 500:
                self._range = max(_SMALLEST_RANGE, self._range // 4)
                raise BrokenOff(first_line(error)) from error
            self._fail(error)
        except ValueError as error:  # of an answer without the range that it is for
            raise other_range(self._shown) from error

    def create(self, content: Path, sums: Sums, replacing: Seen | None) -> None:
        """Send a file in blocks of 16 MiB with their checksums, which become a blob together, under the condition."""
        condition: dict[str, Any] = {"overwrite": replacing is not None}
        if replacing is not None:
            condition |= {"etag": replacing.version, "match_condition": MatchConditions.IfNotModified}
        try:
            with content.open("rb") as file:
                self._blob.upload_blob(file, length=sums.size, validate_content=True, max_concurrency=4, **condition)
        except (ResourceExistsError, ResourceModifiedError) as error:
            raise Replaced from error
        except Exception as error:  # noqa: BLE001 - as in `look`
            self._fail(error)

    def kept(self, sums: Sums) -> bool | None:  # noqa: ARG002 - of a Store
        """Say nothing: the store states no checksum of the whole."""
        return None

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - as in `look`
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        """Raise the named error for what the client raised."""
        place = self._shown
        status = error.status_code if isinstance(error, HttpResponseError) else None
        if isinstance(error, (ServiceRequestError, ServiceResponseError)):
            raise StoreUnreachable(
                f"{place}: the store cannot be reached: {type(error).__name__}",
                hint="check the network, HTTPS_PROXY and the name of the account",
                place=place,
            ) from error
        if isinstance(error, ClientAuthenticationError) and status is None:
            raise StoreRefused(
                f"{place}: no valid credentials",
                hint="log in as for `az storage`: `az login`, or set AZURE_STORAGE_CONNECTION_STRING",
                place=place,
            ) from error
        if isinstance(error, ResourceNotFoundError):
            raise InputError(
                f"{place}: there is no such container", hint="check the spelling of the URL", code="no_such_object"
            ) from error
        if status is not None and (status >= 500 or status == 429):
            raise StoreUnreachable(
                f"{place}: the store is not well: HTTP {status}", hint="try again later", place=place
            ) from error
        if isinstance(error, HttpResponseError):
            code = getattr(error, "error_code", "") or ""
            code = str(getattr(code, "value", code))
            hint = "reading needs the role Storage Blob Data Reader, writing Storage Blob Data Contributor"
            if code in _NOT_HIM:
                hint = (
                    "the account's key or the SAS token is wrong, has expired, or is not for this; or a rule of the "
                    "account's network, or this machine's clock: then log in as for `az storage`, `az login`"
                )
            said = f"HTTP {status} {code or first_line(error)}"
            raise StoreRefused(f"{place}: the store refused: {said}", hint=hint, place=place) from error
        hint = "check the configuration of Azure"
        raise StoreRefused(f"{place}: {type(error).__name__}", hint=hint, place=place) from error


def _settings() -> dict[str, Any]:
    return _SETTINGS | {"retry_policy": LinearRetry(backoff=_PAUSE, retry_total=2, random_jitter_range=0)}


def _service(location: BlobAt, shown: str) -> Any:
    """Return a client for the account: of the URL, else of the environment, as `az storage` finds it."""
    connection = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    if connection:
        try:
            service = BlobServiceClient.from_connection_string(connection, **_settings())
        except ValueError:
            raise InputError(
                "AZURE_STORAGE_CONNECTION_STRING is not a connection string",
                hint="`az storage account show-connection-string` prints one",
            ) from None
        if location.account in {None, service.account_name}:
            return service
    account = location.account or os.environ.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise InputError(
            f"{shown}: it is not said in which account",
            hint="set AZURE_STORAGE_ACCOUNT, or write az://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB",
            place=shown,
        )
    own = location.account in {None, os.environ.get("AZURE_STORAGE_ACCOUNT")}
    keys = (os.environ.get("AZURE_STORAGE_KEY"), os.environ.get("AZURE_STORAGE_SAS_TOKEN")) if own else ()
    credential: Any = next(filter(None, keys), None) or DefaultAzureCredential()
    return BlobServiceClient(f"https://{account}.blob.core.windows.net", credential=credential, **_settings())
