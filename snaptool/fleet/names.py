"""What names say: globs, the time in a name, the series that a backup is one of, the shard that it falls into.

Source: docs/audit.md, "More than one machine".
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

from snaptool.errors import InputError

_TIME = re.compile(
    r"(?<!\d)(20\d\d)-?(\d\d)-?(\d\d)"
    r"(?:[T_ .-]?([01]\d|2[0-3])(?:[:.-]?([0-5]\d)(?:[:.-]?([0-5]\d))?)?(?:Z|[+-]00:?00)?(?:-\d{6})?)?(?!\d)"
    r"|(?<!\d)(1\d{9})(?:\d{3})?(?!\d)"
)
"""A date with or without a time of day, to the hour, minute or second, as kOps counts them on too; or seconds or
milliseconds since 1970."""


def glob_pattern(glob: str) -> re.Pattern[str]:
    """Compile a glob: `*`, `?` and `[…]` stay within a name, `**` goes over folders. Raises InputError."""
    out, at = "", 0
    while at < len(glob):
        if glob.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
        elif glob.startswith("**", at):
            out, at = out + ".*", at + 2
        elif glob[at] in "*?":
            out, at = out + ("[^/]*" if glob[at] == "*" else "[^/]"), at + 1
        elif glob[at] == "[" and (end := glob.find("]", at + 2)) > 0:
            inner = glob[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[").replace("&&", "\\&&")
            not_in = inner.startswith(("!", "^"))
            out, at = out + f"(?!/)[{'^' * not_in}{inner[not_in:]}]", end + 1
        else:
            out, at = out + re.escape(glob[at]), at + 1
    try:
        return re.compile(out, re.DOTALL)
    except re.error as error:
        raise InputError(f"{glob!r} is not a glob: {error}", hint="put an odd character into [ ]") from None


def is_glob(text: str) -> bool:
    """Does an argument hold a character that a glob gives a meaning?"""
    return any(char in text for char in "*?[")


def time_in(path: str) -> datetime | None:
    """Return the time that a name says, UTC: of the file, else of the nearest folder that says one."""
    for part in reversed(path.split("/")):
        for match in reversed(list(_TIME.finditer(part))):
            numbers = [int(text) for text in match.groups()[:6] if text]
            try:
                if match[7]:
                    return datetime.fromtimestamp(int(match[7]), UTC)
                return datetime(*numbers, tzinfo=UTC)  # type: ignore[arg-type,misc]  # three numbers to six
            except ValueError:
                continue
    return None


def series_of(path: str) -> str:
    """Return a name without its times: `a/etcd-snapshot-server1-*`."""
    return _TIME.sub("*", path)


def shard_of(url: str, shards: int) -> int:
    """Return the shard, counted from 0, that looks at a backup."""
    return int.from_bytes(hashlib.sha256(url.encode()).digest()[:8], "big") % shards
