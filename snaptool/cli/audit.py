"""`snaptool audit`."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snaptool.cli import exits, options
from snaptool.cli.command import Command
from snaptool.cli.embedded import Embedding, embedded_options
from snaptool.cli.render import Terminal, echo, print_json, print_json_line, print_sentence, print_table, size_text
from snaptool.errors import InputError
from snaptool.text import quoted

if TYPE_CHECKING:
    from snaptool.fleet import Backup, Given, Listing, Question, Record, Report
    from snaptool.operations.keys import KmsOptions

_SHOWN = 20
_INDEXES = ("JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID", "PARALLEL_SEQ")
_LEVELS = "quick, census, keys, sample=N or boot"


class _Check(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click alone
    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read a level of looking. Raises BadParameter."""
        if not re.fullmatch(r"quick|census|keys|boot|sample=[1-9][0-9]{0,8}", str(value)):
            self.fail(f"{value!r} is none of {_LEVELS}", param, ctx)
        return str(value)


class _Shard(click.ParamType):  # type: ignore[type-arg]  # as above
    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read I/N, or env/N. Raises BadParameter."""
        if isinstance(value, tuple):
            return value
        index, _, of = str(value).partition("/")
        if index == "env":
            name = next((name for name in _INDEXES if os.environ.get(name)), None)
            if name is None:
                self.fail(f"none of {', '.join(_INDEXES)} is set", param, ctx)
            index = os.environ[name]
            if name == "PARALLEL_SEQ" and index.isdecimal():
                index = str(int(index) - 1)  # GNU parallel counts from 1
        if not (index.isdecimal() and of.isdecimal() and int(index) < int(of)):
            self.fail(f"{value!r} is not I/N with I from 0 to N less 1, nor env/N", param, ctx)
        return int(index), int(of)


class _FailOn(click.ParamType):  # type: ignore[type-arg]  # as above
    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Read statuses with commas between. Raises BadParameter."""
        if isinstance(value, tuple):
            return value
        words = tuple(word.strip() for word in str(value).split(",") if word.strip())
        known = {"damaged", "empty", "undecryptable", "plaintext", "undecodable", "stale", "not_a_snapshot", "none"}
        for word in words:
            if word not in known:
                self.fail(f"{word!r} is none of {', '.join(sorted(known))}", param, ctx)
        return words


@click.command("audit", cls=Command)
@click.argument("arguments", metavar="PATH-OR-GLOB...", nargs=-1)
@options.config_option()
@embedded_options
@click.option(
    "--store",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("snaptool-audit.db"),
    show_default=True,
    help="SQLite file of results: what is known of an unchanged backup is not asked again.",
)
@click.option(
    "--check",
    metavar="LEVEL",
    type=_Check(),
    help=f"How closely to look: {_LEVELS}.  [default: keys with --config or --embedded-config, else census]",
)
@click.option("--newest", metavar="N", type=click.IntRange(min=1), help="Only the newest N of each series.")
@click.option(
    "--per",
    metavar="series|prefix|REGEX",
    default="series",
    show_default=True,
    help="What --newest counts: names without their time, folders, or what a regular expression finds.",
)
@click.option(
    "--since", metavar="DATE", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]), help="Only since then."
)
@click.option("--larger-than", metavar="SIZE", type=options.Size(), help="Only larger ones.")
@click.option("--recheck", metavar="all|failed|damaged|PATH", default="", help="Look again although it is known.")
@options.jobs_option
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="For one backup.  [default: 600, or a second for each megabyte]",
)
@click.option("--shard", metavar="I/N", type=_Shard(), help="Only this part of all; env/N: by the job's index.")
@click.option(
    "--fail-on",
    metavar="WORDS",
    type=_FailOn(),
    default="damaged,empty,undecryptable,plaintext,undecodable",
    show_default=True,
    help="Exit with 3 when a backup is one of these; none: never.",
)
@options.etcd_option
@options.kms_lost_option
@options.kms_options
@click.option("--names", is_flag=True, help="Name the first lost objects in records.")
@click.option("--all", "show_all", is_flag=True, help="Show every backup.")
@click.option("--list", "only_list", is_flag=True, help="Say what would be looked at, and stop.")
@click.option("--report-only", is_flag=True, help="Report from the store, and look at nothing.")
@options.page_option
@options.output_option("text", "json", "jsonl")
@options.terminal_options
def audit_command(
    arguments: tuple[str, ...],
    configs: tuple[str, ...],
    embedding: Embedding,
    store: Path,
    check: str | None,
    newest: int | None,
    per: str,
    since: datetime | None,
    larger_than: int | None,
    recheck: str,
    jobs: int,
    timeout: float | None,
    shard: tuple[int, int] | None,
    fail_on: tuple[str, ...],
    etcd_bin: Path | None,
    kms: KmsOptions,
    page: options.Page | None,
    output: str,
    terminal: Terminal,
    *,
    names: bool,
    show_all: bool,
    only_list: bool,
    report_only: bool,
) -> int:
    """Look at many backups: which open with these keys, which hold Secrets in plaintext, which are damaged.

    A PATH is a backup, or a folder with all below it; globs take ** for any folders. What belongs to one backup counts
    as one. Exit code 1 when something could not be looked at, else 3 when there are findings, else 0: suited to cron.
    """
    from snaptool.fleet import Audit, LocalPlace, Store, closed_record, mark_same, report

    shown = _Shown(output=output, fail_on=fail_on, configs=configs, terminal=terminal, show_all=show_all, page=page)
    if report_only:
        with Store(store, must_exist=True) as kept:
            records = kept.newest()
        if arguments:
            there = {one.url for one in _find(LocalPlace(), arguments, terminal)}
            records = [record for record in records if record["url"] in there]
        if output == "jsonl":
            for record in records:
                print_json_line(record)
        mark_same(records)
        return _finish(report(records), shown, len(records))
    if not arguments:
        raise click.UsageError("name backups: paths, folders or globs")
    question = _question(configs, embedding, check, kms, etcd_bin, terminal, jobs=jobs, names=names)
    place = LocalPlace()
    if only_list:
        found = _chosen(_find(place, arguments, terminal), newest, per, since, larger_than, shard)
        return _print_list(found, output)
    with Store(store) as kept:
        place.own = kept.own_files
        if page is not None and page.target.exists():  # an earlier run's, which is not a backup
            status = page.target.stat()
            place.own.add((status.st_dev, status.st_ino))
        found = _chosen(_find(place, arguments, terminal), newest, per, since, larger_than, shard)
        audit = Audit(found, question, place, kept, jobs=jobs, timeout=timeout, recheck=_recheck(recheck))
        total, done = sum(one.size for one in found), 0
        records = [closed_record(folder, why, question) for folder, why in place.closed]
        if output == "jsonl":
            for record in records:
                print_json_line(record)
        with terminal.progress() as progress:

            def step(size: int) -> None:
                nonlocal done
                done += size
                progress("auditing", done, total)

            for record in audit.run(step):
                records.append(record)
                if output == "jsonl":
                    print_json_line(record)
        mark_same(records)
        if audit.kept:
            terminal.note(f"kept {audit.kept:,}: unchanged since they were looked at")
        code = _finish(report(records), shown, audit.kept, question.given)
    if audit.stopped:
        terminal.note("a key service does not answer: the rest was not looked at, and the next run goes on")
        return exits.KEY_SERVICE
    return code


def _recheck(word: str) -> str:
    return word if word in {"", "all", "failed", "damaged"} else os.path.abspath(word)  # noqa: PTH100 - as it is named


def _question(
    configs: Sequence[str],
    embedding: Embedding,
    check: str | None,
    kms: KmsOptions,
    etcd_bin: Path | None,
    terminal: Terminal,
    *,
    jobs: int,
    names: bool,
) -> Question:
    from snaptool.fleet import Question
    from snaptool.scratch import find_etcd

    given = _given(configs, terminal)
    level = check or ("keys" if given or embedding.wanted else "census")
    return Question(
        check=level,
        given=given,
        embedded=embedding.wanted,
        token=embedding.token,
        kms=kms if kms.rate is None else replace(kms, rate=kms.rate / jobs),  # of all workers together
        etcd=find_etcd(etcd_bin) if level == "boot" else None,
        names=names,
    )


def _given(paths: Sequence[str], terminal: Terminal) -> tuple[Given, ...]:
    """Read the configurations, each with the digest of its file."""
    from snaptool.fleet import Given
    from snaptool.providers import read_configs

    options.refuse_stdin_twice(paths)
    given = []
    for path in paths:
        content = options.read_config(path)
        held = read_configs(content, name="stdin" if path == "-" else path, strict=False)
        for note in held.notes:
            terminal.note(note)
        given += [Given(config, hashlib.sha256(content).hexdigest(), config.name) for config in held.configs]
    return tuple(given)


def _find(place: Any, arguments: Sequence[str], terminal: Terminal) -> list[Backup]:
    found: dict[str, Backup] = {}
    links = 0
    for argument in arguments:
        listing: Listing = place.find(argument)
        found |= {one.url: one for one in listing.backups}
        links += listing.links
    if links:
        terminal.note(f"{links:,} symbolic link{'s were' if links > 1 else ' was'} not followed")
    if not found and not place.closed:
        raise InputError(
            f"no backup in {', '.join(arguments)}",
            hint="check the path or the glob; in a shell, put a glob into quotes",
            code="nothing_to_audit",
        )
    return sorted(found.values(), key=lambda one: one.url)


def _chosen(
    found: list[Backup],
    newest: int | None,
    per: str,
    since: datetime | None,
    larger_than: int | None,
    shard: tuple[int, int] | None,
) -> list[Backup]:
    from snaptool.fleet import newest_of, shard_of

    if since is not None:
        start = since.replace(tzinfo=UTC)
        found = [one for one in found if (one.time or one.modified) >= start]
    if larger_than is not None:
        found = [one for one in found if one.size > larger_than]
    if newest is not None:
        try:
            found = newest_of(found, newest, per)
        except re.error as error:
            raise click.BadParameter(f"{per!r} is not a regular expression: {error}", param_hint="--per") from None
    if shard is not None:
        found = [one for one in found if shard_of(one.url, shard[1]) == shard[0]]
    return found


def _print_list(found: Sequence[Backup], output: str) -> int:
    rows = [{"url": one.url, "size": one.size, "version": one.version, "series": one.series} for one in found]
    if output == "json":
        print_json({"backups": rows, "bytes": sum(one.size for one in found)})
    elif output == "jsonl":
        for row in rows:
            print_json_line(row)
    else:
        print_table(["BACKUP", "SIZE"], [(one.url, size_text(one.size)) for one in found], right=" r")
        echo(f"{_backups(len(found))}, {size_text(sum(one.size for one in found))}")
    return exits.DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """How results are shown. `configs`: the files that were given, as the user named them."""

    output: str
    fail_on: Sequence[str]
    configs: Sequence[str]
    terminal: Terminal
    show_all: bool
    page: options.Page | None


def _finish(result: Report, shown: _Shown, kept: int, given: Sequence[Given] = ()) -> int:
    from snaptool.fleet import STATUSES, document

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


def _backups(count: int) -> str:
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


def _print(result: Report, shown: _Shown) -> None:
    from snaptool.fleet import STATUSES

    counts = [f"{result.counts[word]:,} {_WORDS[word]}" for word in reversed(STATUSES) if word in result.counts]
    print_sentence(f"{_backups(result.total)}: {'; '.join(counts)}" if counts else "no backups")
    if result.undecodable:
        print_sentence(f"{_backups(result.undecodable)} with values that no API server can decode: lists fail on them")
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
    from snaptool.fleet import STATUSES

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
