"""What a user says: a path, or a URL of an object in a store.

Names are taken as they stand, as the clouds' own command lines take them: nothing is percent-decoded. What is none of
the schemes is a path. Source: docs/clouds.md.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PosixPath
from typing import Literal
from urllib.parse import urlsplit

from snaptool.containers.spool import folder_for
from snaptool.errors import InputError
from snaptool.loopback import is_private


class BadUrl(InputError):
    """A URL names no object, or shows what is sent to everybody."""


@dataclass(frozen=True, slots=True)
class ObjectAt:
    """An object of S3 or Google Cloud Storage. `version`: S3's versionId, or a generation; None: the current one."""

    kind: Literal["s3", "gs"]
    bucket: str
    name: str
    version: str | None


@dataclass(frozen=True, slots=True)
class AskedAt(ObjectAt):
    """An object of S3 of which the user says more than its name.

    `sse`: AES256, aws:kms or aws:kms:KEY; "" leaves it to the bucket. `sse_key`: the user's own key, which S3 encrypts
    under and forgets. `conditional`: it is written only where nothing is, by the store's own word.
    """

    sse: str = ""
    sse_key: bytes = field(default=b"", repr=False)
    conditional: bool = True


@dataclass(frozen=True, slots=True)
class BlobAt:
    """A blob of Azure. `account` is None where the environment names it."""

    account: str | None
    container: str
    name: str
    version: str | None
    kind: Literal["az"] = "az"


@dataclass(frozen=True, slots=True)
class LinkAt:
    """Something behind a link, which may hold a signature: it is never printed whole."""

    url: str
    kind: Literal["https"] = "https"


@dataclass(frozen=True, slots=True)
class FileAt:
    """A file that sftp reaches. A `path` without a slash at its start begins in the user's home."""

    user: str | None
    host: str
    port: int | None
    path: str
    kind: Literal["sftp"] = "sftp"


Location = ObjectAt | BlobAt | LinkAt | FileAt

_BLOB_HOST = ".blob.core.windows.net"
_LAKE = re.compile(r"([^@/]+)@([^./]+)\.dfs\.core\.windows\.net/(.+)", re.DOTALL)
_SCHEMES = frozenset({"s3", "gs", "az", "abfs", "http", "https", "sftp"})
_SIGNED = re.compile(r"[?&#](?:sig|[^?&#=]*signature|[^?&#=]*token)=", re.IGNORECASE)
_SFTP = re.compile(r"(?:([^@/:]+)@)?([^@/:]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?/(.+)", re.DOTALL)


class RemotePath(PosixPath):
    """A place in a store where a path is expected: its text is the URL, without signatures.

    `parent` is the local directory for what is on its way from or to it.
    """

    location: Location | None = None
    shown = ""

    def __str__(self) -> str:
        return self.shown or super().__str__()

    @property
    def parent(self) -> Path:  # type: ignore[override]
        """TMPDIR, or the system's place for files that may be large."""
        return folder_for(None)


def place_of(text: str | os.PathLike[str]) -> Path:
    """Return the path, or the place in a store, that a user names. Raises BadUrl."""
    if isinstance(text, os.PathLike):
        return text if isinstance(text, Path) else place_of(os.fspath(text))
    location = parse_url(text)
    if location is None:
        return Path(text)
    if isinstance(location, LinkAt):
        parts = urlsplit(location.url)
        plain = f"{parts.scheme}://{parts.netloc}{parts.path}"
        remote = RemotePath(plain)
        remote.shown = plain + ("?…" if parts.query else "")
    else:
        remote = RemotePath(location.path if isinstance(location, FileAt) else location.name)
        remote.shown = text
    remote.location = location
    return remote


def asked_of_s3(path: Path, sse: str, sse_key: bytes, *, conditional: bool = True) -> Path:
    """Return a place with what S3 is asked for there; a place of another store stays as it is. See AskedAt."""
    location = getattr(path, "location", None)
    if isinstance(location, ObjectAt) and location.kind == "s3":
        assert isinstance(path, RemotePath)
        if sse or sse_key or not conditional:
            path.location = AskedAt(
                "s3", location.bucket, location.name, location.version, sse, sse_key, conditional=conditional
            )
    return path


def location_of(path: Path) -> Location:
    """Return what a remote path names."""
    assert isinstance(path, RemotePath)
    assert path.location is not None
    return path.location


def parse_url(text: str) -> Location | None:
    """Read a URL; None for what is a path. Raises BadUrl, which shows no signature and no password."""
    scheme, marked, rest = text.partition("://")
    if not marked or scheme.lower() not in _SCHEMES:
        return None
    _require_plain(scheme, rest)
    if scheme in {"s3", "gs"}:
        return _object("s3" if scheme == "s3" else "gs", rest, text)
    if scheme == "az":
        return _blob(rest, text)
    if scheme == "abfs":
        return _lake(rest, text)
    if scheme in {"http", "https"}:
        return _link(text)
    return _file(rest, text)


def _require_plain(scheme: str, rest: str) -> None:
    """Refuse what would be looked up as something else than is meant, or be shown although it is a secret."""
    if scheme != scheme.lower():
        raise BadUrl(f"{scheme}:// is not written so", hint=f"write {scheme.lower()}://…")
    try:
        rest.encode()
    except UnicodeEncodeError:
        raise BadUrl(f"a name of {scheme}:// has bytes that are no UTF-8", hint="names in stores are UTF-8") from None
    if scheme in {"http", "https"}:
        return
    if _SIGNED.search(rest) is not None:
        raise BadUrl(
            f"{scheme}://{rest[: rest.index('?')] if '?' in rest else '…'} with a signature is a signed link",
            hint="write it as the https:// URL that it is; without the signature, credentials of the environment serve",
        )
    if scheme in {"s3", "gs", "az"} and "@" in rest.partition("/")[0]:
        raise BadUrl(
            f"{scheme}://…@{rest.partition('/')[0].rpartition('@')[2]}: a bucket has no @ in its name",
            hint="credentials come from the environment, never from a URL",
        )


def _object(kind: Literal["s3", "gs"], rest: str, text: str) -> ObjectAt:
    bucket, _, name = rest.partition("/")
    mark = r"(.+)\?versionId=([^?&/]+)" if kind == "s3" else r"(.+)#([0-9]+)"
    version = None
    if (found := re.fullmatch(mark, name, re.DOTALL)) is not None:
        name, version = found[1], found[2]
    _require_name(bucket, name, text)
    return ObjectAt(kind, bucket, name, version)


def _blob(rest: str, text: str) -> BlobAt:
    account = None
    first, _, after = rest.partition("/")
    if first.endswith(_BLOB_HOST):
        account, rest = first.removesuffix(_BLOB_HOST), after
    container, _, name = rest.partition("/")
    version = None
    if (found := re.fullmatch(r"(.+)\?versionid=([^?&/]+)", name, re.DOTALL)) is not None:
        name, version = found[1], found[2]
    _require_name(container, name, text)
    return BlobAt(account, container, name, version)


def _lake(rest: str, text: str) -> BlobAt:
    found = _LAKE.fullmatch(rest)
    if found is None:
        raise BadUrl(f"{text}: such a URL is abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/BLOB", place=text)
    _require_name(found[1], found[3], text)
    return BlobAt(found[2], found[1], found[3], None)


def _link(text: str) -> LinkAt:
    scheme, _, rest = re.split("[?#]", text, maxsplit=1)[0].partition("://")
    authority, slash, path = rest.partition("/")
    shown = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise BadUrl(f"{shown} is not a URL", hint="a URL is https://HOST/PATH")
    if "@" in parts.netloc:
        raise BadUrl(
            f"{shown}: user and password in a URL are shown to everybody who sees the command",
            hint="leave USER:PASSWORD@ out, and use a signed link",
        )
    if not is_private(text):
        raise BadUrl(f"{shown}: http shows a snapshot to everybody on the way", hint="use https")
    if any(ord(sign) <= 32 or ord(sign) > 126 for sign in text):
        raise BadUrl(f"{shown} has signs that no URL has", hint="percent-encode spaces and letters beyond ASCII")
    return LinkAt(text)


def _file(rest: str, text: str) -> FileAt:
    found = _SFTP.fullmatch(rest)
    if found is None:
        raise BadUrl("a URL of a file that sftp reaches is sftp://[USER@]HOST[:PORT]/PATH")
    user, host, port, path = found.groups()
    _require_name(host, path, text)
    return FileAt(user, host, None if port is None else int(port), path[2:] if path.startswith("~/") else "/" + path)


def _require_name(bucket: str, name: str, text: str) -> None:
    if not bucket or not name or name.endswith("/"):
        raise BadUrl(f"{text} names no object", hint="add the name of one: SCHEME://BUCKET/NAME", place=text)
