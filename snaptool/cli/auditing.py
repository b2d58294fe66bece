"""What `snaptool audit` does: find, ask, keep, report; or list, merge what shards left, report what is known."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import click

from snaptool.cli import exits, options
from snaptool.cli.audit_report import Shown, backups, finish
from snaptool.cli.embedded import Embedding
from snaptool.cli.render import Terminal, echo, print_json, print_json_line, print_table, size_text
from snaptool.errors import InputError
from snaptool.fleet import (
    Audit,
    Backup,
    Engine,
    File,
    Given,
    Listing,
    LocalEngine,
    Mounted,
    Places,
    Question,
    Record,
    Same,
    Scheduler,
    ShardResult,
    Store,
    closed_record,
    mark_same,
    newest_of,
    read_plan,
    read_results,
    report,
    shard_of,
    times_inside,
    undated,
    unseen_record,
)
from snaptool.inputs import of_run, remember
from snaptool.operations.kms_options import KmsOptions, kms_configs
from snaptool.operations.kms_services import require_direct
from snaptool.providers.config.held import read_configs
from snaptool.scratch import find_etcd
from snaptool.stores import shown
from snaptool.text import counted, printable

_STORE = "snaptool-audit.db"
_PAGE = b"<!DOCTYPE html>"
_MOST_V1 = 10_000
"""Calls to a key service that nobody has to confirm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user asks for: arguments and options as they are named."""

    arguments: tuple[str, ...]
    configs: tuple[str, ...]
    embedding: Embedding
    store: Path | None
    check: str | None
    newest: int | None
    per: str
    since: datetime | None
    larger_than: int | None
    all_versions: bool
    recheck: str
    forget_gone: bool
    jobs: int
    timeout: float | None
    work_dir: Path | None
    shard: tuple[int, int] | None
    scheduler: str | None
    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    results: str | None
    merge: str | None
    fail_on: tuple[str, ...]
    etcd_bin: Path | None
    kms: KmsOptions
    yes_all_v1: bool
    names: bool
    salvage: bool
    show_all: bool
    only_list: bool
    report_only: bool
    page: options.Page | None
    output: str
    terminal: Terminal
    same: Same = field(default_factory=Same)

    def finish(self, records: list[Record], kept: int, given: Sequence[Given] = (), *, left_out: int | None = 0) -> int:
        """Show a report on records; return the exit code. `left_out`: listed, and not looked at."""
        how = Shown(
            output=self.output,
            fail_on=self.fail_on,
            configs=tuple(map(shown, self.configs)),
            terminal=self.terminal,
            show_all=self.show_all,
            page=self.page,
        )
        if self.output != "jsonl":
            mark_same(records)
        whole = report(records, all_versions=self.all_versions, left_out=left_out)
        code = finish(whole, how, kept, given)
        if records and not whole.total and self.shard is None and code == exits.DONE:
            echo(f"snaptool: no backup among {counted(len(records), 'file')}", err=True)
            return exits.USAGE
        return code

    def print_line(self, record: Record) -> None:
        """Print a record as soon as it is there, where that is wanted."""
        if self.output == "jsonl":
            self.same.mark(record)
            print_json_line(record)


def audit(asked: Asked) -> int:
    """Do what is asked; return the exit code."""
    _refuse_idle(asked)
    if asked.merge is not None:
        return _merge(asked, asked.merge)
    if asked.report_only:
        return _report(asked)
    if not asked.arguments:
        raise click.UsageError("name backups: paths, folders, URLs or globs")
    question = _question(asked)
    if asked.only_list:
        places = _places(asked)
        code = _print_list(_chosen(asked, _find(asked, places).backups), asked.output)
        for folder, why in places.closed:
            asked.terminal.note(f"{folder}: cannot be read: {why}")
        return exits.FAILED if places.closed else code
    engine = _engine(asked)
    if asked.results is not None:
        return _audit_shard(asked, question, engine, asked.results)
    with Store(asked.store or Path(_STORE)) as kept:
        return _audit(asked, question, engine, kept)


def _refuse_idle(asked: Asked) -> None:
    """Refuse what would be ignored: who gives it expects that something comes of it."""
    chooses: dict[str, object] = {"--newest": asked.newest, "--since": asked.since, "--larger-than": asked.larger_than}
    asks: dict[str, object] = {"--check": asked.check, "--recheck": asked.recheck, "--forget-gone": asked.forget_gone}
    asks |= {"--scheduler": asked.scheduler, "--results": asked.results, "--list": asked.only_list}
    idle: Mapping[str, object] = {}
    if asked.merge is not None:
        others = {"backups": asked.arguments, "--shard": asked.shard, "--report-only": asked.report_only}
        idle, why = {**others, **chooses, **asks}, "--merge reads the results of all shards, and takes no"
    elif asked.report_only:
        idle, why = asks, "--report-only looks at nothing, and takes no"
    elif asked.only_list:
        idle, why = {"--html": asked.page}, "--list looks at nothing, and takes no"
    elif asked.results is not None:
        idle = {"--html": asked.page, "--recheck": asked.recheck, "--forget-gone": asked.forget_gone}
        why = "a shard leaves its records and no report, and takes no"
    elif asked.check == "quick":
        idle, why = {"--salvage": asked.salvage, "--names": asked.names}, "--check quick opens nothing, and takes no"
    if asked.newest is None and asked.per != "series":
        raise click.UsageError("--per says what --newest counts: give --newest, too")
    if asked.scheduler is None and (asked.tls_ca or asked.tls_cert or asked.tls_key):
        raise click.UsageError("--tls-ca, --tls-cert and --tls-key are for --scheduler: give it, too")
    if words := [name for name, value in idle.items() if value]:
        raise click.UsageError(f"{why} {words[0]}")


def _merge(asked: Asked, place: str) -> int:
    with Store(asked.store or Path(_STORE)) as kept:
        _protect(asked, ())
        records = []
        for question, record in read_results(place):
            kept.put(record, question)
            records.append(record)
            asked.print_line(record)
    return asked.finish(records, 0, left_out=None)


def _report(asked: Asked) -> int:
    """Report what is known: of all that the store knows, or of what the arguments find, in the version there now."""
    with Store(asked.store or Path(_STORE), must_exist=True) as kept:
        if asked.arguments:
            places = _places(asked)
            places.own |= kept.own_files
            found = _find(asked, places)
            chosen = _chosen(asked, found.backups, kept)
            records = [closed_record(folder, why, Question(check="quick")) for folder, why in places.closed]
            records += [_known(kept, one) or unseen_record(one) for one in chosen]
            left_out: int | None = len(found.backups) - len(chosen) + found.links
            _protect(asked, found.backups)
        else:
            known = {one["url"]: one for one in kept.newest()}
            if not known:
                raise InputError(f"the store {kept.path} knows no backup", hint="run an audit first, or name another")
            records = [known[one.url] for one in _chosen(asked, [_as_backup(one) for one in known.values()], kept)]
            left_out = len(known) - len(records) or None
            _protect(asked, ())
    for record in records:
        asked.print_line(record)
    return asked.finish(records, len(records), left_out=left_out)


def _known(kept: Store, backup: Backup) -> Record | None:
    answers = kept.answers(backup.url)
    return next((one for _, one in reversed(answers) if backup.version in {"", one["version"]}), None)


def _as_backup(record: Record) -> Backup:
    modified = datetime.fromisoformat(record["modified"])
    file = File(record["url"], record["size"], modified, record["version"])
    return Backup(url=record["url"], path=record["url"], entry=None, files=(file,))


def _protect(asked: Asked, found: Sequence[Backup]) -> None:
    """Take note of what workers will read, and refuse to write a page over it."""
    for one in found:
        for file in one.files if not one.is_remote else ():
            with contextlib.suppress(OSError):
                remember(os.stat(file.name), file.name)  # noqa: PTH116 - names are text here, as URLs are
        data = Path(one.path) / "member"
        if (run := of_run()) is not None and not one.is_remote and Path(one.files[0].name).parent.parent == data:
            run.add_data_directory(data)
    if asked.page is not None:
        asked.page.check()


def _audit(asked: Asked, question: Question, engine: Engine, kept: Store) -> int:
    places = _places(asked)
    places.own |= kept.own_files
    found = _find(asked, places)
    _protect(asked, found.backups)
    if asked.forget_gone:
        _forget_gone(asked, places, kept, found.backups)
    chosen = _chosen(asked, found.backups, kept)
    audit = Audit(chosen, question, kept, engine, _recheck(asked.recheck, chosen))
    records = _records(asked, audit, places)
    left_out = len(found.backups) + len(places.closed) - len(records) + found.links
    if audit.kept:
        asked.terminal.note(f"kept {audit.kept:,}: unchanged since they were looked at")
    code = asked.finish(records, audit.kept, question.given, left_out=left_out)
    return _stopped(asked) if audit.stopped else code


def _stopped(asked: Asked) -> int:
    asked.terminal.note("a key service does not answer: the rest was not looked at, and the next run goes on")
    return exits.KEY_SERVICE


def _audit_shard(asked: Asked, question: Question, engine: Engine, place: str) -> int:
    """Do a shard and leave its records: what they say is the report's matter, so that the exit code is not theirs."""
    if asked.shard is None:
        raise click.UsageError("--results is for a shard: say which with --shard I/N")
    target = ShardResult(place, question.digest, *asked.shard)
    if target.is_there():
        asked.terminal.note(f"done already: {target.target}")
        return exits.DONE
    places = _places(asked)
    with Store(asked.store) as kept:
        found = _find(asked, places).backups
        _protect(asked, found)
        audit = Audit(_chosen(asked, found, kept), question, kept, engine)
        records = _records(asked, audit, places)
    if audit.stopped:
        return _stopped(asked)
    if not target.publish(records):
        asked.terminal.note(f"done meanwhile by another: {target.target}")
    return exits.DONE


def _records(asked: Asked, audit: Audit, places: Places) -> list[Record]:
    """Look at what was chosen; return a record for each backup, and for what could not be listed."""
    chosen, question = audit.backups, audit.question
    records = [closed_record(folder, why, question) for folder, why in places.closed]
    for record in records:
        asked.print_line(record)
    counts = Counter[str]()
    total, done = sum(one.size for one in chosen), 0
    with asked.terminal.progress("B") as progress:

        def step(size: int) -> None:
            nonlocal done
            done += size
            progress("auditing", done, total)

        for record in audit.run(step):
            records.append(record)
            counts[record["status"]] += 1
            asked.print_line(record)
            progress.remark(f"{len(records):,} of {len(chosen):,}, {counts['failed']:,} failed, {audit.kept:,} kept")
    return records


def _engine(asked: Asked) -> Engine:
    """Return who looks: workers of this machine, or of a scheduler, which read what is mounted by themselves."""
    if asked.scheduler is not None and (asked.timeout is not None or asked.work_dir is not None):
        raise click.UsageError("--timeout and --work-dir are for workers of this machine: Dask has settings of its own")
    if asked.scheduler is None:
        return LocalEngine(jobs=asked.jobs, timeout=asked.timeout, folder=asked.work_dir)
    words = click.get_current_context().params  # as they were given: what they hold goes to nobody
    mounted = Mounted(
        configs=asked.configs,
        key_files=tuple(words["dek_files"]),
        token_file=words["token_file"],
        etcd_bin=None if asked.etcd_bin is None else str(asked.etcd_bin),
        direct=tuple(words["kms_direct"]),
        endpoints=tuple(asked.kms.endpoints.items()),
        concurrency=asked.kms.concurrency,
        rate=asked.kms.rate,
        timeout=asked.kms.timeout,
        given_up=tuple((word.name, word.key_id_hash) for word in asked.kms.given_up),
    )
    engine = Scheduler(
        address=asked.scheduler, ca=asked.tls_ca, certificate=asked.tls_cert, key=asked.tls_key, mounted=mounted
    )
    engine.check()
    return engine


def _forget_gone(asked: Asked, places: Places, kept: Store, found: Sequence[Backup]) -> None:
    if places.closed:
        raise InputError(
            f"{places.closed[0][0]} cannot be read: what is gone is not known", hint="leave --forget-gone out"
        )
    there = {one.url for one in found}
    covered = [url for url in kept.urls() if any(places.covers(one, url) for one in asked.arguments)]
    count = kept.forget(url for url in covered if url not in there)
    asked.terminal.note(f"forgot {backups(count)} that {'is' if count == 1 else 'are'} not there any more")


def _places(asked: Asked) -> Places:
    places = Places(all_versions=asked.all_versions)
    if asked.page is not None:
        with contextlib.suppress(OSError), asked.page.target.open("rb") as file:
            if file.read(len(_PAGE)) == _PAGE:  # an earlier run's, which is not a backup
                status = os.fstat(file.fileno())
                places.own.add((status.st_dev, status.st_ino))
    return places


def _recheck(word: str, found: Sequence[Backup]) -> str:
    if word in {"", "all", "failed", "damaged"}:
        return word
    url = word if "://" in word else printable(os.path.abspath(word))  # noqa: PTH100 - as it is named
    if url not in {one.url for one in found}:
        raise click.BadParameter(
            f"{word!r} is not all, failed or damaged, nor one of these backups", param_hint="--recheck"
        )
    return url


def _question(asked: Asked) -> Question:
    given = _given(asked.configs, asked.terminal)
    if not asked.embedding.wanted:
        require_direct(asked.kms, kms_configs([one.config for one in given]))
    level = asked.check or ("keys" if given or asked.embedding.wanted else "census")
    etcd = None
    if level == "boot":
        etcd = find_etcd(asked.etcd_bin)
    return Question(
        check=level,
        given=given,
        embedded=asked.embedding.wanted,
        token=asked.embedding.token,
        saved=tuple(one.digest for one in asked.kms.saved),
        kms=asked.kms if asked.yes_all_v1 else replace(asked.kms, most_v1=_MOST_V1),
        etcd=etcd,
        names=asked.names,
        salvage=asked.salvage,
    )


def _given(paths: Sequence[str], terminal: Terminal) -> tuple[Given, ...]:
    """Read the configurations, each with the digest of its file."""
    options.refuse_stdin_twice(paths)
    given = []
    for path in paths:
        content = options.read_config(path)
        held = read_configs(content, name="stdin" if path == "-" else shown(path), strict=False)
        for note in held.notes:
            terminal.note(note)
        given += [Given(config, hashlib.sha256(content).hexdigest(), config.name) for config in held.configs]
    return tuple(given)


def _find(asked: Asked, places: Places) -> Listing:
    found: dict[tuple[str, str | None], Backup] = {}  # names that are shown may be alike, paths are not
    links = 0
    for argument in asked.arguments:
        if argument.startswith("@"):
            found |= {(one.path, one.entry): one for one in read_plan(argument[1:])}
            continue
        listing = places.find(argument)
        found |= {(one.path, one.entry): one for one in listing.backups}
        links += listing.links
    if asked.results is not None:  # other shards', which are there or not
        theirs = asked.results if "://" in asked.results else os.path.abspath(asked.results)  # noqa: PTH100
        found = {key: one for key, one in found.items() if not one.path.startswith(theirs.rstrip("/") + "/")}
    if links:
        asked.terminal.note(f"{links:,} symbolic link{'s were' if links > 1 else ' was'} not followed")
    if not found and not places.closed:
        raise InputError(
            f"no backup in {', '.join(asked.arguments)}",
            hint="check the path, the URL or the glob; in a shell, put a glob into quotes",
            code="nothing_to_audit",
        )
    return Listing(tuple(sorted(found.values(), key=lambda one: one.url)), links=links)


def _chosen(asked: Asked, all_found: Sequence[Backup], kept: Store | None = None) -> list[Backup]:
    found = list(all_found)
    if asked.since is not None:
        start = asked.since.replace(tzinfo=UTC)
        found = [one for one in found if (one.time or one.modified) >= start]
    if asked.larger_than is not None:
        found = [one for one in found if one.size > asked.larger_than]
    if asked.newest is not None:
        try:
            found = newest_of(found, asked.newest, asked.per, _times(asked, found, asked.newest, kept))
        except re.error as error:
            raise click.BadParameter(
                f"{asked.per!r} is not a regular expression: {error}", param_hint="--per"
            ) from None
    if all_found and not found:
        raise InputError(
            f"none of {backups(len(all_found))} is one that --since and --larger-than let through",
            hint="look at the newest with --newest 1: are backups still made?",
            code="nothing_to_audit",
        )
    if asked.shard is not None:
        index, of = asked.shard
        found = [one for one in found if shard_of(one.url, of) == index]
    return found


def _times(asked: Asked, found: Sequence[Backup], newest: int, kept: Store | None) -> dict[str, datetime]:
    """Return when those were made that do not say so in their names, where that decides what is looked at."""
    waiting = undated(found, newest, asked.per)
    known: dict[str, datetime] = {}
    for one in waiting:
        record = None if kept is None else _known(kept, one)
        if record is not None and record["time"]:
            known[one.url] = datetime.fromisoformat(record["time"])
    waiting = [one for one in waiting if one.url not in known]
    if waiting and not asked.report_only:
        asked.terminal.note(f"{backups(len(waiting))} without a time in the name: looking inside")
        known |= times_inside(waiting, jobs=asked.jobs, timeout=asked.timeout, folder=asked.work_dir)
        waiting = [one for one in waiting if one.url not in known]
    if waiting:
        asked.terminal.note(
            f"{backups(len(waiting))} without a time in the name or inside: --newest goes by the date of the file "
            "there, which copying may change"
        )
    return known


def _print_list(found: Sequence[Backup], output: str) -> int:
    if output == "json":
        print_json({"backups": [one.document() for one in found], "bytes": sum(one.size for one in found)})
    elif output == "jsonl":
        for one in found:
            print_json_line(one.document())
    else:
        print_table(["BACKUP", "SIZE"], [(one.url, size_text(one.size)) for one in found], right=" r")
        echo(f"{backups(len(found))}, {size_text(sum(one.size for one in found))}")
    return exits.DONE
