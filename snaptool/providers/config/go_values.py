"""Durations, base64 and URLs, exactly as Go's standard library takes them.

Source: Go time, encoding/base64, net/url; docs/formats/encryption.md, "Values" and "Rules".
"""

from __future__ import annotations

import base64
import re
from ipaddress import IPv6Address
from urllib.parse import unquote_to_bytes

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_WHOLE_DIGITS = 19  # of 2^63
_FRACTION_DIGITS = 18  # an hour has fewer nanoseconds
_DURATION_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def parse_duration(text: str) -> int | None:
    """Parse a Go duration to nanoseconds; None when it is none. Source: Go time.ParseDuration."""
    sign, body = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if body == "0":
        return 0
    total = position = 0
    while position < len(body):
        part = _DURATION_PART.match(body, position)
        if part is None or not (part[1] or part[2]):
            return None
        unit = _UNITS[part[3]]
        whole, fraction = part[1].lstrip("0"), (part[2] or "")[:_FRACTION_DIGITS]
        if len(whole) > _WHOLE_DIGITS:
            return None
        total += int(whole or "0") * unit + (int(fraction or "0") * unit // 10 ** len(fraction))
        if total >= 1 << 63:
            return None
        position = part.end()
    return sign * total if body else None


_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.ASCII)


def decode_base64(text: str) -> bytes | None:
    """Decode as Go's StdEncoding does: line breaks anywhere, padding required, unused bits not looked at."""
    text = text.replace("\r", "").replace("\n", "")
    return base64.b64decode(text) if _BASE64.fullmatch(text) else None


_USERINFO = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def endpoint_problem(endpoint: str) -> str | None:
    """Return the code of what kube-apiserver has against a KMS endpoint, None when it takes it.

    Source: Go net/url.Parse, then the scheme; docs/formats/kms.md, "Endpoints".
    """
    if not endpoint:
        return "kms_endpoint_required"
    address, _, fragment = endpoint.partition("#")
    if any(char < " " or char == "\x7f" for char in address):
        return "kms_endpoint_invalid"
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", address)
    rest = address[scheme.end() if scheme else 0 :].partition("?")[0]
    if scheme is None and ":" in rest.split("/", 1)[0]:
        return "kms_endpoint_invalid"
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        if _authority_is_bad(authority):
            return "kms_endpoint_invalid"
        rest = slash + path
    # What has a scheme and no slash is not taken apart, so its escapes are not looked at.
    taken_apart = scheme is None or rest.startswith("/")
    if _BAD_ESCAPE.search(fragment) or (taken_apart and _BAD_ESCAPE.search(rest)):
        return "kms_endpoint_invalid"
    return None if scheme and scheme[1].lower() == "unix" else "kms_endpoint_scheme"


def _authority_is_bad(authority: str) -> bool:
    user, at, host = authority.rpartition("@")
    if at and not _USERINFO.fullmatch(user):
        return True
    if "[" in host:
        inside, bracket, behind = host[1:].rpartition("]")
        if not host.startswith("[") or not bracket or not re.fullmatch(r"(?::[0-9]*)?", behind, re.ASCII):
            return True
        return bool(_BAD_ESCAPE.search(inside)) or not _is_ipv6(inside)
    _, _, port = host.rpartition(":")
    if ":" in host and not re.fullmatch("[0-9]*", port, re.ASCII):
        return True
    if _BAD_ESCAPE.search(host) or re.search(r"[ \\^`{}|]", host):
        return True
    return any(
        escape.upper() != "%25" and int(escape[1:], 16) < 0x80 for escape in re.findall(r"%[0-9A-Fa-f]{2}", host)
    )


def _is_ipv6(text: str) -> bool:
    address, escape, zone = text.partition("%25")
    if escape and not zone:
        return False
    try:
        IPv6Address(address)
    except ValueError:
        return False
    return "%" not in address


def endpoint_path(endpoint: str) -> str:
    """Return the socket path of an accepted endpoint: the URL's path, unescaped; empty when it has none."""
    rest = endpoint.partition("#")[0].partition("?")[0].partition(":")[2]
    if rest.startswith("//"):
        _, slash, path = rest[2:].partition("/")
        rest = slash + path
    return unquote_to_bytes(rest).decode(errors="surrogateescape") if rest.startswith("/") else ""
