"""The interface of a store, which store a location is in, and how stores fail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from snaptool.errors import InputError, OutputError, StoreError
from snaptool.loopback import is_private
from snaptool.stores.location import BadUrl, BlobAt, LinkAt, Location, ObjectAt, location_of
from snaptool.stores.sums import Sums


class ExtraMissing(InputError):
    """A library that a store needs is not installed."""


class StoreUnsupported(InputError):
    """A store that cannot do what is asked of it."""


class NoSuchObject(InputError):
    """The URL names nothing that is there."""


class StoreUnreachable(StoreError):
    """The store does not answer, or breaks off again and again."""


class StoreRefused(StoreError):
    """The store answers that it will not."""


class NotAFile(StoreRefused):
    """There is something under the name that has no content: a folder."""


class NotForReading(StoreRefused):
    """What is there is not shown: a link may be for an upload alone."""


class DownloadDiffers(StoreError):
    """What arrived is not what the store says it keeps."""

    def __init__(self, place: str) -> None:
        super().__init__(
            f"{place}: what was downloaded is not what the store keeps: their checksums differ",
            hint="run the command again; if it stays so, something between here and the store alters data",
            place=place,
        )


class UploadDiffers(OutputError):
    """What the store keeps is not what was sent."""


class BrokenOff(Exception):  # internal: always caught by `fetch`
    """A connection ended in the middle. What has arrived is right."""


class Replaced(Exception):  # internal: becomes SourceChanged or TargetExists
    """The condition of a request does not hold: the object is there, or is another version."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a store has under a name. `version` is what a condition names it by; `checksum`: `ALGORITHM:BASE64`.

    `size` in bytes. `whole`: the size of all, where only the first `size` bytes are wanted.
    """

    size: int
    version: str
    checksum: str = ""
    modified: datetime | None = None
    whole: int | None = None


class Store(Protocol):
    """One place in a store."""

    def look(self) -> Seen | None:
        """Return what is there; None for nothing. Raises StoreError."""

    def read(self, seen: Seen, offset: int) -> Iterator[bytes]:
        """Yield the bytes of that version from an offset on. Raises BrokenOff, Replaced, StoreError."""

    def create(self, content: Path, sums: Sums, replacing: Seen | None) -> None:
        """Create it whole from a file, where nothing is, or in place of that version. Raises Replaced, StoreError."""

    def kept(self, sums: Sums) -> bool | None:
        """Is what the store keeps what was sent, by what it states? None: it states nothing; it can be read back."""


@runtime_checkable
class MayReplace(Protocol):
    """A store of which it is not known that it keeps conditions on writes."""

    def require_conditions(self) -> None:
        """Find out, without writing what is to be written. Raises StoreRefused where it keeps none."""


def open_store(path: Path) -> Store:
    """Return the store for a remote path. Raises ExtraMissing, StoreError, and InputError."""
    return store_at(location_of(path), str(path))


def store_at(location: Location, shown: str) -> Store:
    """Return the store for a location, which messages call `shown`. Raises as `open_store`."""
    # Each is imported where it is asked for: a cloud's library takes a fifth of a second.
    if isinstance(location, ObjectAt) and location.kind == "s3":
        from snaptool.stores.s3 import S3Store  # noqa: PLC0415

        return S3Store(location, shown)
    if isinstance(location, ObjectAt):
        from snaptool.stores.gs import GsStore  # noqa: PLC0415

        return GsStore(location, shown)
    if isinstance(location, BlobAt):
        from snaptool.stores.az import AzStore  # noqa: PLC0415

        return AzStore(location, shown)
    if isinstance(location, LinkAt):
        from snaptool.stores.https import HttpsStore  # noqa: PLC0415

        return HttpsStore(location, shown)
    from snaptool.stores.sftp import SftpStore  # noqa: PLC0415

    return SftpStore(location, shown)


def require_private(endpoint: str, shown: str, variable: str) -> None:
    """Refuse an endpoint of the environment that leads over plain http to another machine. Raises BadUrl."""
    if not is_private(endpoint):
        raise BadUrl(
            f"{shown}: the endpoint that is configured is not an https:// URL: http shows a snapshot to everybody on "
            "the way",
            hint=f"set {variable} to an https:// URL; plain http is for a server on this machine alone",
        )


def exactly(data: bytes, wanted: int, shown: str) -> Iterator[bytes]:
    """Yield the answer to a range of so many bytes. Raises BrokenOff behind one that is short, StoreRefused."""
    if len(data) > wanted:
        raise other_range(shown)
    yield data
    if len(data) < wanted:
        raise BrokenOff("the answer is shorter than it was to be")


def other_range(shown: str) -> StoreRefused:
    """Make the error for a server that sends something else than the range that was asked for."""
    return StoreRefused(
        f"{shown}: the server does not send the part that is asked for",
        hint="a proxy may be between here and the store; download it with the store's own tool, and name the file",
        place=shown,
    )


def first_line(error: Exception) -> str:
    """Return the beginning of an error's message, on one line, without passwords and signatures of URLs in it."""
    line = " ".join(str(error).split()) or type(error).__name__
    line = re.sub(r"//[^/@\s]*@", "//", line)
    return re.sub(r"(://[^\s?\"']*)\?[^\s\"']*", r"\1?…", line)[:300]
