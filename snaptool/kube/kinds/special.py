"""Values that are more than their wire type: times, durations, quantities, and texts that are not UTF-8.

Each function takes what is on the wire and returns what the API server's JSON holds. Those that return None mean null.
Source: docs/formats/kinds.md, "Reading the wire" and "Special types"; apimachinery pkg/apis/meta/v1 (time_proto.go,
micro_time_proto.go), Go's time.Time and time.Duration.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache

_DAY = 86_400
_YEAR_ONE = -62_135_596_800
"""Seconds from 1970 to Go's zero time, which is the first of January of the year 1."""
_WRAP = 1 << 64
_ABSOLUTE = (292_277_022_400 * 146_097 // 400 + 306 + 719_162) * _DAY
"""Go counts seconds without a sign from a moment that long before 1970 (time.go, absoluteYears)."""


def go_text(raw: bytes) -> str:
    """Decode UTF-8 as Go's JSON encoder does: each byte that fits nowhere becomes one U+FFFD."""
    return raw.decode(errors=_GO)


# Python would take several bytes for one mark where they begin a character; Go goes on one byte later.
_GO = "snaptool.go"
codecs.register_error(_GO, lambda error: ("\ufffd", getattr(error, "start", 0) + 1))


@lru_cache(maxsize=4096)
def time_text(seconds: int) -> str | None:
    """Show seconds since 1970 as RFC 3339 in UTC; None for Go's zero time."""
    if seconds == _YEAR_ONE:
        return None
    return f"{_moment(seconds)}Z"


def micro_time_text(seconds: int, nanos: int) -> str | None:
    """Show a moment with six digits behind the second, which are cut, not rounded; None for Go's zero time."""
    micros = abs(nanos) // 1000 * (1 if nanos >= 0 else -1)
    seconds += micros // 1_000_000
    micros %= 1_000_000
    if seconds == _YEAR_ONE and not micros:
        return None
    return f"{_moment(seconds)}.{micros:06d}Z"


def _moment(seconds: int) -> str:
    seconds = (seconds + _ABSOLUTE) % _WRAP - _ABSOLUTE
    days, second = divmod(seconds, _DAY)
    year, month, day = _civil(days)
    sign = "-" if year < 0 else ""
    return f"{sign}{abs(year):04d}-{month:02d}-{day:02d}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"


def _civil(days: int) -> tuple[int, int, int]:
    """Turn days since 1970 into a date of the Gregorian calendar, for any year. The year begins in March."""
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    year += 400 * era + (month >= 10)
    return year, month + 3 if month < 10 else month - 9, day + 1


def duration_text(nanos: int) -> str:
    """Show nanoseconds as Go's time.Duration prints them: `1h30m0s`, `2.5ms`, `0s`."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    if nanos < 1_000_000_000:
        if not nanos:
            return "0s"
        for unit, size in (("ns", 1), ("µs", 1000), ("ms", 1_000_000)):
            if nanos < size * 1000:
                return f"{sign}{_decimal(nanos, size)}{unit}"
    seconds = nanos // 1_000_000_000
    shown = f"{_decimal(nanos % 60_000_000_000, 1_000_000_000)}s"
    if seconds >= 60:
        shown = f"{seconds // 60 % 60}m{shown}"
    if seconds >= 3600:
        shown = f"{seconds // 3600}h{shown}"
    return sign + shown


def _decimal(value: int, unit: int) -> str:
    """Divide exactly by a power of ten."""
    whole, rest = divmod(value, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)


_QUANTITY = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?", re.ASCII)


@lru_cache(maxsize=4096)
def is_quantity(text: str) -> bool:
    """Would the API server parse this as a resource.Quantity? What it cannot parse it cannot decode."""
    return _QUANTITY.fullmatch(text) is not None
