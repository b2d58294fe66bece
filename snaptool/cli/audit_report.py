"""How the results of an audit are shown: as text, as a document, as a page; and the exit code that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from snaptool.cli import exits, options
from snaptool.cli.render import Terminal, echo, print_json, print_sentence, print_table
from snaptool.fleet import STATUSES, Given, Record, Report, document
from snaptool.text import quoted

_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How results are shown. `configs`: the files that were given, as the user named them."""

    output: str
    fail_on: Sequence[str]
    configs: Sequence[str]
    terminal: Terminal
    show_all: bool
    page: options.Page | None


def finish(result: Report, shown: Shown, kept: int, given: Sequence[Given] = ()) -> int:
    """Show a report; return the exit code that it means."""
    code = exits.FINDINGS if result.found(shown.fail_on) else exits.DONE
    if result.counts.get("failed"):
        code = exits.FAILED
    whole = {**document(result, kept=kept), "records": list(result.records)}
    if shown.page is not None:
        from snaptool.pages import audit_page

        configs = [(one.name, one.digest) for one in given]
        shown.page.write(audit_page(whole, STATUSES, list(dict.fromkeys(configs))))
    if shown.output == "json":
        print_json(whole)
    elif shown.output == "text" and (code or not shown.terminal.quiet):
        _print(result, shown)
    return code


def backups(count: int) -> str:
    """Return that many backups, in words."""
    return f"{count:,} backup{'s' * (count != 1)}"


_WORDS = {
    "failed": "not looked at",
    "damaged": "damaged",
    "empty": "empty (a whole etcd without one key of Kubernetes: restored, it is a new cluster)",
    "undecryptable": "with lost values",
    "plaintext": "with values in plaintext that should be encrypted",
    "stale": "stale (all opens, not all under the key that writes)",
    "ok": "ok",
    "ok (not opened)": "ok as far as can be seen without keys (not opened)",
    "not_a_snapshot": "no snapshots",
}


def _print(result: Report, shown: Shown) -> None:
    counts = [f"{result.counts[word]:,} {_WORDS[word]}" for word in reversed(STATUSES) if word in result.counts]
    print_sentence(f"{backups(result.total)}: {'; '.join(counts)}" if counts else "no backups")
    if result.undecodable:
        print_sentence(f"{backups(result.undecodable)} with values that no API server can decode: lists fail on them")
    if result.keys:
        echo()
        print_table(
            ["CONFIGURATION", "PROVIDER", "KEY", "BACKUPS", "OLDEST", "NEWEST"],
            [
                (key.config or "(none)", key.provider, key.key_name, len(key.urls), key.oldest, key.newest)
                for key in result.keys
            ],
            right="   r",
        )
        print_sentence(result.reach)
    bad = [one for one in result.records if shown.show_all or _is_bad(one, shown.fail_on)]
    if bad:
        echo()
        _print_records(bad, shown.configs, limit=None if shown.show_all else _SHOWN)


def _is_bad(record: Record, fail_on: Sequence[str]) -> bool:
    return record["status"] in {"failed", *fail_on} or bool(record["undecodable"] and "undecodable" in fail_on)


def _print_records(records: Sequence[Record], configs: Sequence[str], limit: int | None) -> None:
    none = "not_a_snapshot"
    ordered = sorted(records, key=lambda one: (one["status"] == none, STATUSES.index(one["status"]), one["url"]))
    for record in ordered[:limit]:
        print_sentence(f"{record['status']}  {record['url']}{_why(record)}")
    if limit is not None and len(ordered) > limit:
        echo(f"and {len(ordered) - limit:,} more; --all shows every backup")
    first = next((one for one in ordered if one["status"] in _VERIFIABLE or one["undecodable"]), None)
    if first is not None:
        entry = f" --entry {quoted(first['entry'])}" if first["entry"] else ""
        keys = "".join(f" --config {quoted(path)}" for path in configs)
        keys += " --embedded-config" if "embedded" in first["configs"] else ""
        echo(f"more of one: snaptool verify {quoted(first['path'])}{entry}{keys}")


_VERIFIABLE = {"failed", "damaged", "undecryptable", "plaintext", "stale"}


def _why(record: Record) -> str:
    if record["error"]:
        return f": {record['error']['message'].removeprefix(record['url']).removeprefix(': ')}"
    parts = [f"{record[word]:,} {word}" for word in ("lost", "undecodable", "plaintext", "stale") if record[word]]
    parts += [one for one in record["findings"] if one.startswith(("same_as:", "checksum_"))]
    return f": {', '.join(parts)}" if parts else ""
