"""How the results of an audit are shown: as text, as a document, as a page; and the exit code that they mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from snaptool.cli import exits, options
from snaptool.cli.render import Terminal, echo, print_json, print_sentence, print_table
from snaptool.fleet import STATUSES, Given, Record, Report, document
from snaptool.text import quoted

_SHOWN, _IN_A_FOLDER = 20, 5


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
    """Print the worst by folder, each with the command that shows more of one."""
    none = "not_a_snapshot"
    ordered = sorted(records, key=lambda one: (one["status"] == none, STATUSES.index(one["status"]), one["url"]))
    folders: dict[str, list[Record]] = {}
    for record in ordered:
        folders.setdefault(record["url"].rpartition("/")[0], []).append(record)
    for folder, several in list(folders.items())[:limit]:
        counts = Counter(record["status"] for record in several)
        print_sentence(f"{folder}/: {', '.join(f'{count:,} {word}' for word, count in counts.items())}")
        most = limit if limit is None or len(folders) == 1 else _IN_A_FOLDER
        for record in several[:most]:
            name = record["url"].removeprefix(f"{folder}/")
            print_sentence(f"  {record['status']}  {name}{_why(record)}", hanging="      ")
        if most is not None and len(several) > most:
            echo(f"  and {len(several) - most:,} more; --all shows every backup")
        first = next((one for one in several if one["status"] in _VERIFIABLE or one["undecodable"]), None)
        if first is not None:
            print_sentence(f"  {_more_of(first, configs)}", hanging="      ")
    if limit is not None and len(folders) > limit:
        echo(f"and {len(folders) - limit:,} more folders; --all shows every backup")


def _more_of(record: Record, configs: Sequence[str]) -> str:
    keys = "".join(f" --config {quoted(path)}" for path in configs)
    keys += " --embedded-config" if "embedded" in record["configs"] else ""
    path = record["path"]
    if path.endswith("?…"):
        return "more of it: snaptool verify with the link itself, whose signature is not shown"
    if "://" in path and record["entry"]:
        verify = f"snaptool verify FOLDER --entry {quoted(record['entry'])}{keys}"
        return f"more of one: copy {len(record['files'])} files of {quoted(path)} to a FOLDER, then {verify}"
    entry = f" --entry {quoted(record['entry'])}" if record["entry"] else ""
    command = "inspect" if "kine" in record["findings"] else "verify"  # which needs an etcd
    return f"more of one: snaptool {command} {quoted(path)}{entry}{keys}"


_VERIFIABLE = {"failed", "damaged", "undecryptable", "plaintext", "stale"}


def _why(record: Record) -> str:
    if record["error"]:
        message: str = record["error"]["message"]
        why = message.removeprefix(record["url"])  # which stands before it already: `: …`, or ` is cut: …`
        if why == message:
            why = f": {message}"
        if "salvaged" in record["findings"]:
            why += f"; of what can be saved: {', '.join(_counts(record)) or 'nothing lost'}"
        return why
    parts = _counts(record)
    parts += [one for one in record["findings"] if one.startswith(("same_as:", "checksum_"))]
    return f": {', '.join(parts)}" if parts else ""


def _counts(record: Record) -> list[str]:
    return [f"{record[word]:,} {word}" for word in ("lost", "undecodable", "plaintext", "stale") if record[word]]
