"""Is it the same object? By what it is, and not by how it is spelled: nothing that a run reads is ever written."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from snaptool.inputs import TargetIsRead, of_run
from snaptool.stores.location import BlobAt, FileAt, LinkAt, Location, ObjectAt, location_of
from snaptool.stores.store import Seen

_ACCOUNT = re.compile(r"(?:^|;)\s*AccountName=([^;]+)", re.IGNORECASE)
_SSH = 22


def require_not_read(target: Path, source: Path | None = None, now: Seen | None = None) -> None:
    """Refuse a target that the run has read. `source`: of a run that remembers nothing; `now`: what the target is.

    Raises TargetIsRead.
    """
    run = of_run()
    read = list(run.objects) if run is not None else []
    for path, version in [*read, *([(source, "")] if source is not None else [])]:
        same = are_one(location_of(target), location_of(path))
        if same or (now is not None and _is_that_version(location_of(target), location_of(path), now.version, version)):
            first = "source and target are the same object" if source is not None else "this run reads the target"
            named = f"{target}" if str(target) == str(path) else f"{target} is {path}"
            raise TargetIsRead(
                f"{first}: {named}", hint="choose another target; what a run reads is never changed, --force or not"
            )


def are_one(one: Location, other: Location) -> bool:
    """Do two places name one object, whatever its version? In doubt they do."""
    if isinstance(one, LinkAt) and isinstance(other, LinkAt):
        return _without_query(one) == _without_query(other)
    if isinstance(one, LinkAt):
        return _leads_to(one, other)
    if isinstance(other, LinkAt):
        return _leads_to(other, one)
    if isinstance(one, ObjectAt) and isinstance(other, ObjectAt):
        return (one.kind, one.bucket, one.name) == (other.kind, other.bucket, other.name)
    if isinstance(one, BlobAt) and isinstance(other, BlobAt):
        accounts = {account for account in (_account(one), _account(other)) if account is not None}
        return len(accounts) < 2 and (one.container, one.name) == (other.container, other.name)
    if isinstance(one, FileAt) and isinstance(other, FileAt):
        return _file(one) == _file(other)
    return False


def _is_that_version(one: Location, other: Location, version: str, read: str) -> bool:
    """Are versions equal, of a store that gives one only once? Files of a host have their time and size."""
    if isinstance(one, BlobAt) and isinstance(other, BlobAt):
        return version == read
    if isinstance(one, FileAt) and isinstance(other, FileAt):
        return one.host.lower() == other.host.lower() and version == read
    return False


def _without_query(link: LinkAt) -> tuple[str, str, str]:
    parts = urlsplit(link.url)
    return parts.scheme, parts.netloc.lower(), unquote(parts.path)


def _leads_to(link: LinkAt, place: Location) -> bool:
    """Is it the link of an object? Its path is the name, behind the bucket, which may be in the host's name."""
    _, host, path = _without_query(link)
    if isinstance(place, ObjectAt):
        in_host = host.startswith(f"{place.bucket.lower()}.") and path == f"/{place.name}"
        return in_host or path == f"/{place.bucket}/{place.name}"
    return isinstance(place, BlobAt) and path.endswith(f"/{place.container}/{place.name}")


def _account(place: BlobAt) -> str | None:
    found = _ACCOUNT.search(os.environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    return place.account or (found[1].strip() if found else os.environ.get("AZURE_STORAGE_ACCOUNT") or None)


def _file(place: FileAt) -> tuple[str, int, str, str | None]:
    user = None if place.path.startswith("/") else place.user
    return place.host.lower(), place.port or _SSH, os.path.normpath(place.path), user
