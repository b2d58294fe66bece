"""Links, presigned ones too: the standard library's client, and no more of a link in a message than its path.

A link is often signed for one method, so that HEAD would be refused: what is there is learned from a range of one byte.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any

from snaptool.loopback import is_here
from snaptool.stores.location import BadUrl, LinkAt, parse_url, place_of
from snaptool.stores.store import BrokenOff, NotForReading, Replaced, Seen, StoreRefused, StoreUnreachable
from snaptool.stores.sums import Sums

_TIMEOUT = 60  # seconds without a byte
_BLOCK = 1 << 20
_LARGEST_ERROR = 8 << 10
_CHANGED = {404, 410, 412, 416}


class _OnlySafe(urllib.request.HTTPRedirectHandler):
    """Follows a redirection to where a URL may lead by itself: never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        try:
            follows = isinstance(parse_url(newurl), LinkAt)
        except BadUrl:
            follows = False
        if not follows or (req.full_url.startswith("https:") and not newurl.startswith("https:")):
            raise BadUrl(
                f"{place_of(req.full_url)}: the server leads to what is not an https:// URL",
                hint="look with `curl -sD - -o /dev/null URL` where it leads, and use that URL, if it is right",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class HttpsStore:
    """What one link names."""

    def __init__(self, location: LinkAt, shown: str) -> None:
        self._url, self._shown = location.url, shown
        direct = (urllib.request.ProxyHandler({}),) if is_here(self._url) else ()
        self._opener = urllib.request.build_opener(_OnlySafe, *direct)
        self._answered = ""
        """The ETag that an upload was answered with."""

    def _open(self, headers: dict[str, str], method: str = "GET", data: Any = None) -> http.client.HTTPResponse:
        request = urllib.request.Request(  # noqa: S310 - parse_url lets https and loopback through
            self._url, data=data, method=method, headers={"Accept-Encoding": "identity", **headers}
        )
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise StoreUnreachable(
                f"{self._shown}: the server cannot be reached: {_said(reason)}",
                hint="check the URL and the network",
                place=self._shown,
            ) from None
        return answer

    def look(self) -> Seen | None:
        """Return the size, and the ETag where the server gives a strong one. For an upload link nothing is known."""
        try:
            with self._open({"Range": "bytes=0-0"}) as answer:
                etag = answer.headers.get("ETag", "")
                version = "" if etag.startswith("W/") else etag
                whole = re.fullmatch(r"bytes 0-0/([0-9]+)", answer.headers.get("Content-Range", ""))
                length = (
                    whole[1] if whole is not None and answer.status == 206 else answer.headers.get("Content-Length")
                )
                if length is None or not length.isdigit():
                    raise StoreRefused(
                        f"{self._shown}: the server does not say how large it is",
                        hint="download it with another program",
                        place=self._shown,
                    )
                return Seen(int(length), version, modified=_time(answer.headers.get("Last-Modified", "")))
        except urllib.error.HTTPError as error:
            with error:
                if error.code in {404, 410}:
                    return None
                if error.code == 416:
                    return Seen(0, "")
                raise self._refused(error) from None

    def read(self, seen: Seen, offset: int) -> Iterator[bytes]:
        """Yield what is there from an offset on, as long as it is the same."""
        last = seen.size - 1
        open_end = "" if seen.whole is None else last
        headers = {"Range": f"bytes={offset}-{open_end}"} | ({"If-Match": seen.version} if seen.version else {})
        try:
            with self._open(headers) as answer:
                etag = answer.headers.get("ETag", "")
                if seen.version and etag and etag != seen.version:
                    raise Replaced
                if not seen.version and _time(answer.headers.get("Last-Modified", "")) != seen.modified:
                    raise Replaced
                skip = offset
                if answer.status == 206:
                    range_ = answer.headers.get("Content-Range", "")
                    if range_ != f"bytes {offset}-{last}/{seen.whole or seen.size}":
                        raise Replaced
                    skip = 0
                while data := answer.read(_BLOCK):
                    if skip < len(data):
                        yield data[skip:]
                    skip = max(0, skip - len(data))
        except urllib.error.HTTPError as error:
            with error:
                if error.code in _CHANGED:
                    raise Replaced from None
                if error.code >= 500 or error.code == 429:
                    raise BrokenOff(f"HTTP {error.code}") from None
                raise self._refused(error) from None
        except StoreUnreachable as error:
            raise BrokenOff(str(error).removeprefix(f"{self._shown}: ")) from None
        except (http.client.HTTPException, OSError) as error:
            raise BrokenOff(_said(error)) from None

    def create(self, content: Path, sums: Sums, replacing: Seen | None) -> None:
        """Send a file by one PUT, under the condition that nothing is there, or still what was seen."""
        condition = {"If-None-Match": "*"}
        if replacing is not None:
            if not replacing.version:
                raise StoreRefused(
                    f"{self._shown}: the server names no version, so that only something new can be written",
                    hint="choose another target",
                    place=self._shown,
                )
            condition = {"If-Match": replacing.version}
        headers = condition | {"Content-Length": str(sums.size), "Content-Type": "application/octet-stream"}
        try:
            with content.open("rb") as file, self._open(headers, "PUT", file if sums.size else b"") as answer:
                self._answered = answer.headers.get("ETag", "").strip('"')
        except urllib.error.HTTPError as error:
            with error:
                if error.code in {409, 412}:
                    raise Replaced from None
                raise self._refused(error, "PUT") from None

    def kept(self, sums: Sums) -> bool | None:
        """Compare the answer's ETag, where it is an MD5."""
        return True if self._answered == sums.md5 else None

    def _refused(self, error: urllib.error.HTTPError, method: str = "GET") -> StoreRefused | StoreUnreachable:
        body = b""
        with contextlib.suppress(OSError, http.client.HTTPException):
            body = error.read(_LARGEST_ERROR)
        named = re.search(rb"<Code>([A-Za-z]{3,60})</Code>", body)
        said = f"HTTP {error.code}" + (f" {named[1].decode()}" if named is not None else "")
        if error.code >= 500 or error.code == 429:
            return StoreUnreachable(
                f"{self._shown}: the server is not well: HTTP {error.code}", hint="try again later", place=self._shown
            )
        if error.code in range(300, 400):
            return StoreRefused(
                f"{self._shown}: the server leads elsewhere: HTTP {error.code}",
                hint="look with `curl -sD - -o /dev/null URL` where it leads, and use that URL; an upload is not sent "
                "elsewhere",
                place=self._shown,
            )
        if b"expired" in body.lower():
            hint = "make a new one; look at the clock of this machine, too"
            return StoreRefused(f"{self._shown}: the link has expired: {said}", hint=hint, place=self._shown)
        hint = f"a signed link serves one method, here {method}, and ends after a time: make a new one"
        kind = NotForReading if method == "GET" and error.code in {401, 403, 405} else StoreRefused
        return kind(f"{self._shown}: the server refused: {said}", hint=hint, place=self._shown)


def _time(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _said(error: object) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__ if isinstance(error, Exception) else str(error)[:100]
