"""Google Cloud Storage, by its own client: an object is named with its generation, and created where there is none.

Source: docs/clouds.md; Cloud Storage, "Request preconditions".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from snaptool.errors import InputError
from snaptool.stores.listing import Entry
from snaptool.stores.location import ObjectAt
from snaptool.stores.store import (
    BrokenOff,
    ExtraMissing,
    Replaced,
    Seen,
    StoreRefused,
    StoreUnreachable,
    exactly,
    first_line,
    require_private,
)
from snaptool.stores.sums import PART, Sums

try:
    import requests
    import urllib3
    from google.api_core import exceptions as answers
    from google.auth import exceptions as auth
    from google.cloud import storage
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from google.cloud.storage.retry import DEFAULT_RETRY
except ImportError as error:
    raise ExtraMissing(
        "gs:// needs google-cloud-storage, which is not installed", hint="pip install 'snaptool[gcp]'"
    ) from error

_LARGEST_RANGE = 8 << 20
_SMALLEST_RANGE = 256 << 10
_TIMEOUT = (10, 60)  # seconds: to connect, without a byte
_RETRY: Any = DEFAULT_RETRY.with_timeout(10)
_TRANSIENT = (
    *(requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError),
    urllib3.exceptions.HTTPError,
)


class GsStore:
    """One object of a bucket."""

    def __init__(self, location: ObjectAt, shown: str) -> None:
        self._location, self._shown = location, shown
        self._range = _LARGEST_RANGE
        with self._said():
            require_private(os.environ.get("STORAGE_EMULATOR_HOST") or "https://", shown, "STORAGE_EMULATOR_HOST")
            self._client: Any = storage.Client()
            self._bucket: Any = self._client.bucket(location.bucket)

    def look(self) -> Seen | None:
        """Return size, generation and checksum of the object, or of the generation that the URL names."""
        generation = None if self._location.version is None else int(self._location.version)
        found = self._bucket.blob(self._location.name, generation=generation)
        try:
            found.reload(timeout=_TIMEOUT, retry=_RETRY)
        except answers.NotFound as error:
            if "bucket does not exist" in str(error):
                self._fail(error)
            return None
        except Exception as error:  # noqa: BLE001 - as in `read`
            self._fail(error)
        return Seen(int(found.size), str(found.generation), f"CRC32C:{found.crc32c}", found.updated)

    def below(self, *, all_versions: bool) -> Iterator[Entry]:
        """Yield all objects whose names begin with that of the location, by name."""
        bucket, name = self._location.bucket, self._location.name
        with self._said():
            for one in self._client.list_blobs(
                bucket, prefix=name, versions=all_versions or None, timeout=_TIMEOUT, retry=_RETRY
            ):
                if not one.name.endswith("/"):
                    older = f"#{one.generation}" if all_versions and one.time_deleted else ""
                    yield Entry(f"gs://{bucket}/{one.name}{older}", int(one.size), str(one.generation), one.updated)

    def read(self, seen: Seen, offset: int) -> Iterator[bytes]:
        """Yield the object from an offset on, in that generation. After a break the ranges are smaller."""
        blob = self._bucket.blob(self._location.name, generation=int(seen.version))
        try:
            for start in range(offset, seen.size, self._range):
                end = min(start + self._range, seen.size)
                data = blob.download_as_bytes(
                    start=start, end=end - 1, raw_download=True, checksum=None, timeout=_TIMEOUT, retry=None
                )
                yield from exactly(data, end - start, self._shown)
        except (BrokenOff, StoreRefused):
            raise
        except (answers.NotFound, answers.PreconditionFailed, answers.RequestRangeNotSatisfiable) as error:
            raise Replaced from error
        except (*_TRANSIENT, answers.ServerError, answers.TooManyRequests, DataCorruption, OSError) as error:
            self._range = max(_SMALLEST_RANGE, self._range // 4)
            raise BrokenOff(type(error).__name__) from error
        except Exception as error:  # noqa: BLE001 - the client raises what its transport raises
            self._fail(error)

    def create(self, content: Path, sums: Sums, replacing: Seen | None) -> None:
        """Send a file, which becomes an object at its end, where there is none or still that generation."""
        blob = self._bucket.blob(self._location.name, chunk_size=PART)
        try:
            with content.open("rb") as file:
                blob.upload_from_file(
                    file,
                    size=sums.size,
                    content_type="application/octet-stream",
                    if_generation_match=0 if replacing is None else int(replacing.version),
                    checksum="crc32c",
                    timeout=_TIMEOUT,
                    retry=None,  # one that was not heard of would meet what it made
                )
        except answers.PreconditionFailed as error:
            raise Replaced from error
        except Exception as error:  # noqa: BLE001 - as in `read`
            self._fail(error)

    def kept(self, sums: Sums) -> bool | None:
        """Compare the store's size and CRC-32C with ours."""
        seen = self.look()
        return seen is not None and seen.size == sums.size and bool(sums.fits(seen.checksum))

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - as in `read`
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        """Raise the named error for what the client raised."""
        place = self._shown
        if isinstance(error, answers.RetryError) and isinstance(error.cause, Exception):
            error = error.cause
        if isinstance(error, (auth.TransportError, *_TRANSIENT)):
            raise StoreUnreachable(
                f"{place}: the store cannot be reached: {type(error).__name__}",
                hint="check the network, HTTPS_PROXY and STORAGE_EMULATOR_HOST",
                place=place,
            ) from error
        if isinstance(error, (auth.GoogleAuthError, answers.Unauthorized)):
            raise StoreRefused(
                f"{place}: no valid credentials: {first_line(error)}",
                hint="log in: `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
                place=place,
            ) from error
        if isinstance(error, answers.NotFound):
            raise InputError(
                f"{place}: there is no such bucket", hint="check the spelling of the URL", code="no_such_object"
            ) from error
        if isinstance(error, (answers.ServerError, answers.TooManyRequests, InvalidResponse)):
            raise StoreUnreachable(
                f"{place}: the store is not well: {first_line(error)}", hint="try again later", place=place
            ) from error
        if isinstance(error, answers.GoogleAPICallError):
            hint = "reading needs storage.objects.get, writing storage.objects.create, with --force delete too"
            raise StoreRefused(f"{place}: the store refused: {first_line(error)}", hint=hint, place=place) from error
        hint = "check the configuration of Google Cloud"
        raise StoreRefused(f"{place}: {type(error).__name__}", hint=hint, place=place) from error
