"""`snaptool list`: keys, and what each value is stored under."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snaptool.cli import exits, options
from snaptool.cli.command import Command
from snaptool.cli.embedded import Embedding, embedded_options
from snaptool.cli.looking import (
    SHOWN_REASONS,
    absent_note,
    examples,
    open_for_reading,
    print_reasons,
    short_name,
    state,
)
from snaptool.cli.render import Terminal, echo, print_json_members, print_table
from snaptool.cli.verdict import (
    Following,
    after_finding,
    causes_document,
    print_causes,
    print_older,
    print_verdict,
    reading_words,
    summary_document,
)
from snaptool.text import printable, quoted

if TYPE_CHECKING:
    from snaptool import documents
    from snaptool.embedded.found import Recovered
    from snaptool.operations.kms_options import KmsOptions
    from snaptool.operations.likelier import Cause
    from snaptool.operations.listing import ListedRecord, Listing
    from snaptool.operations.older import OlderValues
    from snaptool.operations.opening import OpenedSnapshot
    from snaptool.operations.salvage import CarvedRecord
    from snaptool.operations.verdict import Verdict
    from snaptool.providers.keyring import Keyring
    from snaptool.providers.kms_service import KmsError


@click.command(
    "list",
    cls=Command,
    epilog=examples(
        "snaptool list backup.db secrets -n shop",
        "snaptool list backup.db /registry/pods/ -o name",
        "snaptool list backup.db --lost --config old.yaml",
    ),
)
@options.snapshot_argument()
@click.argument("word", metavar="[TYPE | KEY-PREFIX]", required=False)
@click.option("-n", "--namespace", metavar="NS", help="Only this namespace.  [default: all]")
@click.option("-A", "--all-namespaces", is_flag=True, hidden=True)
@click.option(
    "--revision", metavar="N", type=click.IntRange(min=1), help="The values that were there at that revision."
)
@click.option("--all-revisions", is_flag=True, help="List every stored revision and deletion, not only current values.")
@click.option("--lost", is_flag=True, help="List only values that no key opens, or no API server can decode.")
@click.option("--carved", is_flag=True, help="List records found in free pages, even of a damaged file.")
@options.config_option()
@embedded_options
@options.hash_option
@options.prefix_option
@options.jobs_option
@options.kms_lost_option
@options.kms_options
@options.output_option("text", "wide", "name", "json")
@options.terminal_options
def list_command(
    snapshot: Path,
    word: str | None,
    namespace: str | None,
    revision: int | None,
    configs: tuple[str, ...],
    embedding: Embedding,
    prefixes: tuple[str, ...],
    jobs: int,
    kms: KmsOptions,
    output: str,
    terminal: Terminal,
    *,
    all_namespaces: bool,
    all_revisions: bool,
    lost: bool,
    carved: bool,
    skip_hash_check: bool,
) -> int:
    """List keys: namespace, name, revision, and what each value is stored under.

    TYPE is what kubectl takes: secrets, cm, deploy.apps, PLURAL.GROUP for a custom resource; a KEY-PREFIX begins with
    a slash. With --config each value is opened too, to see whether it is lost or stale; exit code 3 when one is lost.
    """
    from snaptool.operations.asked import Types
    from snaptool.operations.keys import keyring_for_reading
    from snaptool.operations.listing import listing

    if revision is not None and (all_revisions or lost):
        raise click.UsageError("--revision shows what was there then; --all-revisions and --lost look at every record")
    if carved:
        if word or namespace or configs or lost or all_revisions or revision:
            raise click.UsageError("--carved lists all that lies in free pages, and takes no other choice")
        return _list_carved(snapshot, output, terminal)
    if lost and not configs and not embedding.wanted:
        raise click.UsageError("--lost needs --config: without keys no value opens")
    loaded = options.load_configs(configs, terminal)
    with terminal.progress() as progress, open_for_reading(snapshot, prefixes, terminal) as opened:
        read_with = embedding.read_with(opened, loaded, terminal)
        keys = keyring_for_reading(opened, read_with, kms, skip_hash_check=skip_hash_check, progress=progress)
        options.note_key_problems(terminal, keys)
        keyring = keys.keyring if read_with else None
        rows = listing(
            opened,
            Types(opened, keyring, revision).selected(word),
            None if all_namespaces else namespace,
            keyring,
            all_revisions=all_revisions,
            lost=lost,
            revision=revision,
            skip_hash_check=skip_hash_check,
            jobs=jobs,
            progress=progress,
        )
        progress.close()
        judged = None
        if lost and keyring is not None:
            judged = _judged(opened, rows, keyring, embedding.find(opened, loaded) if rows.broken else None)
        if output == "json":
            print_json_members(_listing_members(rows, snapshot, judged))
        elif output == "name":
            for row in rows:
                echo(short_name(row.resource, row.name))
        else:
            print_causes(judged.causes if judged else ())
            _print_listing(
                rows, with_keys=keyring is not None, all_revisions=all_revisions, wide=output == "wide", lost=lost
            )
        if not len(rows):
            where = None if all_namespaces else namespace
            if lost:
                note = "no value is lost" if not rows.lost_before else "no current value is lost"
            elif rows.selection.kind is None and (word is not None or where is None):
                note = "no keys found"
            else:
                note = absent_note(opened, rows.selection.kind, where, keyring)
            terminal.note(note)
        if rows.lost_before:
            terminal.note(f"older revisions are lost too: {rows.lost_before:,}; --all-revisions lists them")
        if judged is not None and (rows.lost or rows.past) and output in {"text", "wide"}:
            reading = reading_words(configs, prefixes, embedded=embedding.wanted, kms=kms)
            _print_verdict(judged, rows, snapshot, reading, keys.outage)
        if keys.outage is not None:
            return exits.KEY_SERVICE
        return exits.FINDINGS if rows.lost or rows.lost_before else exits.DONE


@dataclass(frozen=True, slots=True)
class _Judged:
    older: OlderValues
    verdict: Verdict
    causes: tuple[Cause, ...]


def _judged(opened: OpenedSnapshot, rows: Listing, keyring: Keyring, carried: Recovered | None) -> _Judged:
    """Judge a listing of what is lost in objects: those that were asked for."""
    from snaptool.operations import verdict
    from snaptool.operations.inside import unread_places
    from snaptool.operations.labels import resource_of
    from snaptool.operations.likelier import likelier_causes
    from snaptool.operations.older import find_older

    live = [row for row in rows if row.live and row.outcome is not None]
    lost = {row.key: row for row in live if row.outcome is not None and not row.outcome.opened}
    broken = tuple(row.key for row in live if row.outcome is not None and row.outcome.fault and row.key not in lost)
    wanted = {key: resource_of(key, rows.prefixes).group_resource for key in lost}
    older = find_older(opened.snapshot, keyring, wanted)
    keys = verdict.LostKeys(current=tuple(lost), past=rows.past, undecodable=broken)
    values = [value for value in rows.broken if not value.outcome.opened]
    unread = unread_places(opened, carried, values, keyring)
    causes = likelier_causes(opened.snapshot, values, rows.opened_by, keyring, unread)
    return _Judged(older, verdict.found(keys, older, rows.prefixes), causes)


def _list_carved(path: Path, output: str, terminal: Terminal) -> int:
    from snaptool.operations.salvage import carve

    with carve(path, options.unpacking()) as found:
        if output == "json":
            print_json_members((("path", path), ("items", (_carved_document(one) for one in found))))
            return exits.DONE
        rows = list(found)
    if output == "name":
        for one in rows:
            echo(printable(one.key))
    elif rows:
        print_table(
            ["KEY", "REVISION", "SIZE", "PROVIDER", "PAGE", "STATE"],
            (
                [
                    printable(one.key),
                    str(one.revision),
                    "deleted" if one.deleted else one.size,
                    "" if one.deleted else one.header.provider,
                    one.page,
                    one.origin.value,
                ]
                for one in rows
            ),
            right=" rr r",
        )
    if not rows:
        terminal.note("no records lie in free pages")
    return exits.DONE


def _carved_document(one: CarvedRecord) -> documents.Carved:
    return {
        "key": printable(one.key),
        "revision": one.revision.main,
        "sub": one.revision.sub,
        "deleted": one.deleted,
        "size": one.size,
        "provider": None if one.deleted else one.header.provider,
        "key_name": None if one.deleted else one.header.key_name,
        "page": one.page,
        "state": one.origin.value,
    }


def _print_verdict(
    judged: _Judged, rows: Listing, snapshot: Path, reading: Sequence[str], outage: KmsError | None
) -> None:
    print_older(judged.older, str(snapshot), rows.prefixes, reading)
    following = after_finding(judged.verdict, judged.causes, str(snapshot), reading, outage=outage)
    inside = any(cause.inside for cause in judged.causes)
    if not (rows.selection.is_everything or inside or outage is not None):
        # What drops lost values drops all of them, and not those alone that were asked for.
        command = ("snaptool list", quoted(snapshot), "--lost", *reading)
        following = Following("what stands here is what was asked for; all that is lost:", command)
    print_verdict(judged.verdict, following)


def _listing_members(rows: Listing, path: Path, judged: _Judged | None) -> Iterator[tuple[str, Any]]:
    from snaptool.kube.prefixes import prefix_text

    yield "path", path
    yield "revision", rows.revision
    yield "prefixes", [prefix_text(prefix) for prefix in rows.prefixes]
    yield "lost", rows.lost
    yield "lost_older", rows.lost_before
    if judged is not None:
        yield "likelier_causes", causes_document(judged.causes)
        yield "summary", summary_document(judged.verdict)
    yield "items", (_listed_document(row) for row in rows)


def _listed_document(row: ListedRecord) -> documents.Listed:
    from snaptool.operations.reasons import server_message

    outcome = row.outcome
    return {
        "key": row.key,
        "resource": row.resource,
        "namespace": row.namespace or None,
        "name": row.name,
        "revision": row.revision.main,
        "sub": row.revision.sub,
        "version": row.version,
        "live": row.live,
        "deleted": row.deleted,
        "provider": None if row.deleted else row.header.provider,
        "key_name": None if row.deleted else row.key_name,
        "size": row.size,
        "opens": None if outcome is None else outcome.opened and outcome.fault is None,
        "undecodable": None if outcome is None else outcome.fault,
        "stale": None if outcome is None else outcome.opened and outcome.stale,
        "reasons": [] if outcome is None else list(outcome.why),
        "explanation": row.reason,
        "server_error": "" if outcome is None else server_message(outcome),
    }


def _print_listing(rows: Listing, *, with_keys: bool, all_revisions: bool, wide: bool, lost: bool) -> None:
    reasons: dict[tuple[str, str], int] = {}
    # A column for the resource would make most lines too long for a terminal.
    for number, (resource, group) in enumerate(itertools.groupby(rows, lambda row: row.resource)):
        first = next(group)
        headings, right = ["NAME", "REVISION", "PROVIDER", "KEY", "SIZE"], " r  r"
        if lost and not wide:  # the size of what nobody can read says nothing
            headings, right = headings[:-1], right[:-1]
        if first.namespace:
            headings, right = ["NAMESPACE", *headings], " " + right
        if with_keys or all_revisions:
            headings, right = [*headings, "STATE"], right + " "
        if wide:
            headings, right = [*headings, "VERSION", "ETCD KEY"], right + "r"
        if rows.selection.kind is None:
            if number:
                echo()
            echo(resource)
        cells = (
            _listed_cells(row, headings, reasons, only_current=not all_revisions)
            for row in itertools.chain([first], group)
        )
        print_table(headings, cells, right=right)
    print_reasons(reasons)


def _listed_cells(
    row: ListedRecord, headings: Sequence[str], reasons: dict[tuple[str, str], int], *, only_current: bool
) -> list[object]:
    from snaptool.operations.reasons import server_message

    if row.reason and row.outcome is not None and len(reasons) < SHOWN_REASONS:
        why = (row.reason, server_message(row.outcome))
        reasons[why] = reasons.get(why, 0) + 1
    cells: dict[str, object] = {
        "NAMESPACE": row.namespace,
        "NAME": row.name,
        "REVISION": str(row.revision),
        "PROVIDER": None if row.deleted else row.header.provider,
        "KEY": row.key_name or None,
        "SIZE": None if row.deleted else row.size,
        "STATE": state(row, only_current=only_current),
        "VERSION": row.version or None,
        "ETCD KEY": row.key,
    }
    return [cells[heading] for heading in headings]
