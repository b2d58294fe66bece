"""Where the shapes of the pictures are: numbers in, rectangles out. What they are called stands in the templates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snaptool import documents

WIDTH, HEIGHT = 1000.0, 420.0
NARROW = 360.0
"""For a telephone."""
_LEAST_SHARE = 0.004
"""Smaller areas are drawn as one: nobody could read them."""


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle of a picture, in its units, for a row of a census."""

    x: float
    y: float
    width: float
    height: float
    label: str
    detail: str
    size: int
    kind: str


def areas(sizes: Sequence[tuple[str, str, int, str]], across: float = WIDTH) -> list[Area]:
    """Lay out label, detail, size and kind of things as areas of one picture, the largest first (squarified)."""
    total = sum(size for _, _, size, _ in sizes)
    if not total:
        return []
    large = [one for one in sizes if one[2] >= total * _LEAST_SHARE]
    rest = [one for one in sizes if 0 < one[2] < total * _LEAST_SHARE]
    if rest:
        large.append((f"{len(rest):,} smaller ones", "", sum(one[2] for one in rest), "rest"))
    waiting = sorted(large, key=lambda one: -one[2])
    x, y, width, height, left = 0.0, 0.0, across, HEIGHT, float(total)
    found: list[Area] = []
    while waiting:
        short = min(width, height)
        scale = width * height / left
        count = 1
        while count < len(waiting) and _worst(waiting[: count + 1], short, scale) <= _worst(
            waiting[:count], short, scale
        ):
            count += 1
        strip, waiting = waiting[:count], waiting[count:]
        thick = sum(one[2] for one in strip) * scale / short
        at = 0.0
        for label, detail, size, kind in strip:
            long = size * scale / thick
            left_edge, top, across, down = (
                round(number, 1)
                for number in ((x, y + at, thick, long) if width >= height else (x + at, y, long, thick))
            )
            found.append(Area(left_edge, top, across, down, label, detail, size, kind))
            at += long
        left -= sum(one[2] for one in strip)
        if width >= height:
            x, width = x + thick, width - thick
        else:
            y, height = y + thick, height - thick
    return found


def _worst(strip: Sequence[tuple[str, str, int, str]], short: float, scale: float) -> float:
    """Return how far from square the worst area of a strip is. Source: Bruls, Huizing, van Wijk, 2000."""
    total = sum(one[2] for one in strip) * scale
    largest, smallest = strip[0][2] * scale, strip[-1][2] * scale
    return max(short**2 * largest / total**2, total**2 / (short**2 * smallest))


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a bar: what it is, how many, where it begins and how wide it is, from 0 to `WIDTH`."""

    word: str
    count: int
    x: float
    width: float


def bar(counts: Sequence[tuple[str, int]]) -> list[Share]:
    """Lay out counts as parts of a bar; none of nothing."""
    total, x, found = sum(count for _, count in counts), 0.0, []
    for word, count in counts:
        if count:
            width = count / total * WIDTH
            found.append(Share(word, count, round(x, 1), round(width, 1)))
            x += width
    return found


@dataclass(frozen=True, slots=True)
class Calendar:
    """Backups by time: `columns` are labels of days or longer, a row is a series and its cells by column number."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, dict[int, tuple[str, int]]], ...]
    left_out: int


_MOST_COLUMNS = 62
_MOST_ROWS = 60


def calendar(records: Sequence[dict[str, Any]], order: Sequence[str]) -> Calendar:
    """Lay out records by series and day; a cell has the worst status of its backups (`order`) and their number.

    Where there are too many series, the worst are shown.
    """
    days = [_day(record) for record in records]
    if not days:
        return Calendar((), (), 0)
    first, last = min(days), max(days)
    step = -(-((last - first).days + 1) // _MOST_COLUMNS)
    columns = [first + timedelta(days=step * number) for number in range((last - first).days // step + 1)]
    rows: dict[str, dict[int, tuple[str, int]]] = {}
    for record, day in zip(records, days, strict=True):
        cells = rows.setdefault(record["series"], {})
        column = (day - first).days // step
        worst, count = cells.get(column, (record["status"], 0))
        cells[column] = min(worst, record["status"], key=order.index), count + 1
    common = common_folder(list(rows))
    worst_rows = sorted(rows, key=lambda name: (min(order.index(status) for status, _ in rows[name].values()), name))
    named = tuple((name[len(common) :], rows[name]) for name in sorted(worst_rows[:_MOST_ROWS]))
    return Calendar(tuple(f"{one:%Y-%m-%d}" for one in columns), named, max(0, len(rows) - _MOST_ROWS))


def _day(record: dict[str, Any]) -> date:
    return datetime.fromisoformat(record["time"] or record["modified"]).astimezone(UTC).date()


def common_folder(names: Sequence[str]) -> str:
    """Return the folder, with its slash, that all names begin with; "" for none."""
    if not names:
        return ""
    common = min(names)
    for name in names:
        while not name.startswith(common):
            common = common[:-1]
    return common[: common.rfind("/") + 1]


def worst_first(records: Sequence[dict[str, Any]], order: Sequence[str]) -> list[dict[str, Any]]:
    """Sort records by status, the worst first and what is not a snapshot last, then by name."""
    none = "not_a_snapshot"
    return sorted(records, key=lambda one: (one["status"] == none, order.index(one["status"]), one["url"]))


def totals(census: Sequence[documents.Census]) -> list[tuple[str, int]]:
    """Count the values of a census by what is known of them; every value counts once."""
    found: Counter[str] = Counter()
    for row in census:
        values = row["live"] + row["old"]
        undecodable, lost = row["undecodable"] or 0, row["lost"] or 0
        found["undecodable"] += undecodable
        found["lost"] += lost
        if row["provider"] == "identity":
            found["plaintext"] += row["stale"] or 0
            found["not encrypted"] += values - undecodable - lost - (row["stale"] or 0)
        elif row["opens"] is None:
            found["not opened"] += values - undecodable
        else:
            stale = row["stale"] or 0
            found["stale"] += stale
            found["opens"] += values - undecodable - lost - stale
    return [
        (word, found[word])
        for word in ("opens", "stale", "not opened", "not encrypted", "plaintext", "undecodable", "lost")
    ]
