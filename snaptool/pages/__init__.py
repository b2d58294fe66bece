"""Results as pages: one HTML file each that needs no network, and no script to be read. Knows results, not files.

What goes in are the documents that `-o json` prints, which hold no key and no plaintext. Every text is escaped twice:
what would command a terminal or turn a line around (`snaptool.text`), then what is markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from snaptool.pages import pictures
from snaptool.text import counted, printable

if TYPE_CHECKING:
    from snaptool import documents

_MOST_LISTED = 500
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_fit,
    )
    environment.filters |= {"n": _number, "counted": counted, "size": _size, "short": _short, "middle": _middle}
    environment.filters |= {"path": _path, "when": _when, "within": _within}
    script = (Path(__file__).parent / "templates" / "page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {"script": Markup(script), "script_hash": Markup(f"sha256-{digest}")}  # noqa: S704 - ours
    return environment


def _fit(value: Any) -> Any:
    """Make a text one that shows as what it is; markup of the templates has a type of its own."""
    if value is None:
        return "–"  # noqa: RUF001 - a dash for what is not known
    return printable(value) if type(value) is str else value


def _number(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _size(size: int) -> str:
    number, unit = float(size), 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:,.1f} {_UNITS[unit]}" if unit else f"{size:,} byte{'s' * (size != 1)}"


def _path(text: str) -> Markup:
    """Let a path be broken after its slashes."""
    return escape(printable(text)).replace("/", Markup("/<wbr>"))


def _when(time: str | None) -> str | None:
    """Return a time to the minute, which is what fits."""
    return None if time is None else time[:16].replace("T", " ")


def _within(text: str, folder: str) -> str:
    """Leave out the folder that all have in common."""
    return text.replace(folder, "") if folder else text


def _short(text: str, width: float) -> str:
    most = max(int(width / 8.5), 1)
    return text if len(text) <= most else text[: max(most - 1, 1)] + "…"


def _middle(text: str, width: float) -> str:
    """Cut out of the middle what does not fit: names of series differ at both ends."""
    most = max(int(width / 8), 3)
    end = (most - 1) * 2 // 3
    return text if len(text) <= most else f"{text[: most - 1 - end]}…{text[-end:]}"


def _read_with(records: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    files = {one["config"]: one["file"] for record in records for one in record["keys_needed"] if one["config"]}
    digests = sorted({digest for record in records for digest in record["configs"]} - {"embedded", "token"})
    return [(files.get(digest, "a configuration, or saved keys, without a value"), digest) for digest in digests]


def _page(template: str, **values: Any) -> str:
    text: str = (
        _environment()
        .get_template(template)
        .render(most=_MOST_LISTED, width=pictures.WIDTH, narrow=pictures.NARROW, **values)
    )
    return text


def inspect_page(
    document: documents.Inspected, ages: Sequence[tuple[str, Sequence[int]]] = (), leftovers: int = 0
) -> str:
    """Make the page of `inspect` from its document; `ages`: by key, values by equal ranges of revisions.

    `leftovers`: how many of the free pages hold values that nothing uses.
    """
    census = document["census"]
    file = document["file"]
    used = file["high_water_mark"] - file["free_pages"]
    sizes = [
        (row["resource"], f"{row['provider']} {row['key_name'] or ''}".rstrip(), row["bytes"], row["provider"])
        for row in census
    ]
    most = max((count for _, counts in ages for count in counts), default=0)
    return _page(
        "inspect.html",
        doc=document,
        areas=pictures.areas(sizes),
        tall=pictures.areas(sizes, pictures.NARROW),
        height=pictures.HEIGHT,
        values=pictures.bar(pictures.totals(census)),
        pages=pictures.bar([("in use", used), ("leftovers", leftovers), ("free", file["free_pages"] - leftovers)]),
        leftovers=leftovers,
        ages=ages,
        most_of_age=most,
    )


def verify_page(document: documents.Verified) -> str:
    """Make the page of `verify` from its document."""
    counts = [
        (word, sum(one["count"] for one in document["findings"] if one["severity"] == word))
        for word in ("error", "warning", "note")
    ]
    return _page("verify.html", doc=document, counts=counts)


def diff_page(document: dict[str, Any]) -> str:
    """Make the page of `diff` from its document."""
    ways = ("same", "re_encrypted", "changed", "added", "removed", "undecided")
    counts = [(way, document[way] if way == "same" else len(document[way])) for way in ways]
    return _page("diff.html", doc=document, values=pictures.bar([(w.replace("_", "-"), c) for w, c in counts]))


def audit_page(document: dict[str, Any], order: Sequence[str], configs: Sequence[tuple[str, str]]) -> str:
    """Make the page of `audit`: `order` of statuses from the worst; `configs`: name and SHA-256 of what was given.

    Where nothing is given, as for a report on earlier runs, the records say what they were read with.
    """
    records = document["records"]
    configs = configs or _read_with(records)
    counts = [(word, document["counts"].get(word, 0)) for word in reversed(order)]
    paths = {key["config"] for key in document["keys"] if key["config"]} | {name for name, _ in configs}
    bases = Counter(name.rpartition("/")[2] for name in paths)
    return _page(
        "audit.html",
        doc=document,
        configs=configs,
        names={name: base for name in paths if bases[base := name.rpartition("/")[2]] == 1},
        folder=pictures.common_folder([record["url"] for record in records]),
        levels=sorted({record["check"] for record in records}),
        checked=(
            min((record["checked_at"] for record in records), default=None),
            max((record["checked_at"] for record in records), default=None),
        ),
        calendar=pictures.calendar([one for one in records if one["status"] != "not_a_snapshot"], order),
        values=pictures.bar(counts),
        records=pictures.worst_first(records, order),
    )
