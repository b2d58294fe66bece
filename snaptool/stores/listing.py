"""What is in a store: the objects below a name, each with the version that a listing shows.

A store lists by the beginning of names; folders are what users see in the slashes. Source: docs/audit.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

from snaptool.stores.location import BadUrl, BlobAt, FileAt, ObjectAt, place_of
from snaptool.stores.reading import no_such_object
from snaptool.stores.store import NotAFile, StoreUnsupported, open_store, store_at

_ROOT = re.compile(r"(?:s3|gs|az|sftp)://[^/]+/?|az://[^/]+\.blob\.core\.windows\.net/[^/]+/?|sftp://[^/]+/~/?")
_OF_A_VERSION = re.compile(r"(?:(?<=.)\?versionid=[^?&/]+|(?<=.)#[0-9]+)$", re.IGNORECASE)
_VERSIONS = {"s3": "?versionId=", "az": "?versionid=", "gs": "#"}


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as a listing shows it. `url` names it, with its version where that is not the current one.

    `size` in bytes; `version` is what `Seen.version` of the same bytes is; "" where the store names none.
    """

    url: str
    size: int
    version: str
    modified: datetime


@runtime_checkable
class _Lists(Protocol):
    """A store that names what it has."""

    def below(self, *, all_versions: bool) -> Iterator[Entry]:
        """Yield all whose names begin with that of the location."""


def entries_below(url: str, *, all_versions: bool = False) -> Iterator[Entry]:
    """Yield every object whose URL begins with `url`, which may end anywhere; not those that stand for folders.

    `all_versions`: those too that were replaced or deleted. Raises BadUrl, StoreUnsupported, ExtraMissing, StoreError.
    """
    # A beginning may name no object yet; parsing needs one.
    rest = ""
    if _ROOT.fullmatch(url) or url.endswith("/"):
        rest = "-" if url.endswith("/") else "/-"
    path = place_of(url + rest)
    location = getattr(path, "location", None)
    if isinstance(location, FileAt):
        store = store_at(replace(location, path=location.path.removesuffix("-") if rest else location.path), url)
    elif isinstance(location, (ObjectAt, BlobAt)):
        name = location.name.removesuffix("-") if rest else location.name
        store = store_at(replace(location, name=name, version=None), url)
    else:
        raise StoreUnsupported(
            f"{url}: what is in such a place cannot be listed",
            hint="name each object, or a folder of s3://, gs://, az:// or sftp://",
            place=url,
        )
    assert isinstance(store, _Lists)
    yield from store.below(all_versions=all_versions)


def entry_at(url: str) -> Entry:
    """Return the one object that a URL names, or its version. Raises NoSuchObject, BadUrl, StoreError."""
    path = place_of(url)
    seen = open_store(path).look()
    if seen is None:
        raise no_such_object(path)
    return Entry(url, seen.size, seen.version, seen.modified or datetime.now(UTC))


def without_version(url: str) -> str:
    """Return the URL of an object whatever its version, as listings write them."""
    mark = _VERSIONS.get(url.partition("://")[0])
    found = _OF_A_VERSION.search(url) if mark is not None else None
    return url[: found.start()] if found is not None and mark is not None and found[0].startswith(mark) else url


def may_be_listed(url: str) -> bool:
    """Can a URL name more than one object?"""
    return not url.startswith(("https://", "http://")) and without_version(url) == url


def is_object(url: str) -> bool:
    """Does a URL name an object that is there? Raises StoreError."""
    try:
        path = place_of(url)
    except BadUrl:
        return False  # a bucket or a folder
    try:
        return open_store(path).look() is not None
    except NotAFile:
        return False
