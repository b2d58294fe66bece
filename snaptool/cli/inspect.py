"""`snaptool inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snaptool.cli import exits, options
from snaptool.cli.command import Command
from snaptool.cli.embedded import Embedding, embedded_document, embedded_lines, embedded_options
from snaptool.cli.findings import (
    finding_document,
    lost_document,
    prefix_sentence,
    print_findings,
    undecodable_document,
)
from snaptool.cli.lists import print_lost, print_undecodable
from snaptool.cli.render import Terminal, echo, print_json, print_sentence, print_table, size_text
from snaptool.cli.verdict import (
    after_finding,
    causes_document,
    print_causes,
    print_older,
    print_verdict,
    reading_words,
    summary_document,
)
from snaptool.text import counted

if TYPE_CHECKING:
    from snaptool import documents
    from snaptool.containers.unwrap import Unwrapped
    from snaptool.embedded.found import Embedded
    from snaptool.errors import SnaptoolError
    from snaptool.operations.kms_options import KmsOptions
    from snaptool.operations.survey import CensusRow, Survey


@click.command("inspect", cls=Command)
@options.snapshot_argument()
@options.config_option()
@embedded_options
@options.prefix_option
@options.jobs_option
@options.kms_lost_option
@options.kms_options
@options.page_option
@options.output_option()
@options.terminal_options
def inspect_command(
    snapshot: Path,
    configs: tuple[str, ...],
    prefixes: tuple[str, ...],
    jobs: int,
    kms: KmsOptions,
    embedding: Embedding,
    output: str,
    page: options.Page | None,
    terminal: Terminal,
) -> int:
    """Show what a snapshot is, whether it is whole, and which keys its values are stored under.

    With --config it also opens every value: which open, which are lost and why, which are stale. Of a database of Kine,
    which is no snapshot of etcd, it shows what there is, and fails.
    """
    loaded = options.load_configs(configs, terminal)
    with (
        terminal.progress() as progress,
        options.open_snapshot(snapshot, prefixes=prefixes, kine=True) as opened,
        opened.digests() as digests,  # first of all: it is what a large file takes the longest for
    ):
        from snaptool.operations.findings import DAMAGE
        from snaptool.operations.survey import survey

        for notice in opened.notices:
            terminal.note(notice)
        read_with = embedding.read_with(opened, loaded, terminal)
        keyring, outage = None, None
        if read_with or kms.given_up or kms.direct:  # what is said of key services is refused where there are none
            from snaptool.operations.keys import keyring_for_reading

            keys = keyring_for_reading(opened, read_with, kms, progress=progress)
            options.note_key_problems(terminal, keys)
            keyring, outage = keys.keyring if read_with else None, keys.outage
        find = partial(embedding.find, opened, loaded)
        result = survey(opened, keyring, jobs=jobs, progress=progress, carried=find, digests=digests)
        carried = embedding.places(opened, loaded)
        refused = opened.not_etcd
        whole = page is not None and refused is None and not any(one.code in DAMAGE for one in result.findings)
        leftovers = 0
        if whole:
            from snaptool.operations.verify import leftover_pages

            leftovers = len(leftover_pages(opened.snapshot))
    names = [config.name for config in read_with]
    if page is not None:
        from snaptool.pages import inspect_page

        page.write(inspect_page(document(result, names, carried), _ages(result), leftovers))
    if output == "json":
        printed = document(result, names, carried)
        if refused is not None:
            printed["error"] = _failure(refused)
        print_json(printed)
    else:
        _print(result, names, verbose=terminal.verbose)
        reading = reading_words(configs, prefixes, embedded=embedding.wanted, kms=kms)
        print_older(result.older, str(snapshot), result.prefixes, reading)
        for line in embedded_lines(carried):
            echo(line)
        if read_with:
            verdict = result.summary
            following = after_finding(verdict, result.causes, str(snapshot), reading, outage=outage)
            print_verdict(verdict, following)
    if refused is not None:
        raise refused
    if outage is not None:
        return exits.KEY_SERVICE
    bad = result.lost or result.undecodable or result.file.trailer in {"wrong", "cut"}
    return exits.FINDINGS if bad else exits.DONE


def _failure(error: SnaptoolError) -> documents.Error:
    """Return the member by which a document says that there is more to it than what it shows."""
    return {"code": error.code, "problem": str(error), "remedy": error.hint or None, "place": error.place}


def document(result: Survey, configs: Sequence[str] = (), places: Sequence[Embedded] = ()) -> documents.Inspected:
    """Return the JSON form of a survey; `configs`: what it was read with, `places`: what the snapshot carries."""
    from snaptool.kube.prefixes import prefix_text

    file, etcd = result.file, result.etcd
    return {
        "container": container_document(result.container),
        "platform": list(result.platforms),
        "embedded": embedded_document(places),
        "file": {
            "path": file.path,
            "size": file.size,
            "page_size": file.page_size,
            "trailer": file.trailer,
            "free_pages": file.free_pages,
            "high_water_mark": file.high_water_mark,
        },
        "etcd": {
            "revision": etcd.revision,
            "compacted_revision": etcd.compacted_revision,
            "keys": etcd.keys,
            "records": etcd.records,
            "tombstones": etcd.tombstones,
            "leases": etcd.leases,
            "alarms": list(etcd.alarms),
            "auth_enabled": etcd.auth_enabled,
            "storage_version": etcd.storage_version,
            "written_by": None if _is_kine(result) else etcd.version_hint,
            "hash": etcd.hash,
        },
        "prefixes": [prefix_text(prefix) for prefix in result.prefixes],
        "census": [row.document(configs) for row in result.census],
        "lost": [lost_document(value) for value in result.lost],
        "undecodable": [undecodable_document(value) for value in result.undecodable],
        "findings": [finding_document(found) for found in result.findings],
        "likelier_causes": causes_document(result.causes),
        "summary": summary_document(result.summary),
    }


def _ages(result: Survey) -> list[tuple[str, tuple[int, ...]]]:
    """Name the keys of a survey, with how many of their values are how old."""
    return [
        (f"{header.provider} {header.shown or ''}".rstrip(), counts)
        for header, counts in sorted(result.ages, key=lambda one: (one[0].provider, one[0].name))
    ]


def _is_kine(result: Survey) -> bool:
    return result.container is not None and result.container.layers[-1:] == ("kine",)


def container_document(container: Unwrapped | None) -> documents.Container | None:
    """Return the JSON form of what was around a snapshot."""
    if container is None:
        return None
    return {
        "layers": list(container.layers),
        "unpacked_size": container.size,
        "entries": [{"name": one.name, "size": one.size, "role": one.role} for one in container.members],
    }


def _print_container(container: Unwrapped) -> None:
    others = len(container.members) - 1
    beside = f"; {counted(others, 'other file')} in it" if others > 0 else ""
    echo(f"in {', in it '.join(container.layers)}: {size_text(container.size)} unpacked{beside}")


_TRAILERS = {
    "ok": "SHA-256 right",
    "missing": "no SHA-256 (a copied db)",
    "wrong": "SHA-256 WRONG",
    "cut": "SHA-256 CUT",
}


def _telling(census: Sequence[CensusRow]) -> Sequence[CensusRow]:
    """Leave out resources of which there is nothing to say: all plaintext, and none of them Secrets.

    Where nothing at all is encrypted, that is what there is to say.
    """
    telling = {row.resource for row in census if row.provider != "identity" or row.lost or row.stale or row.undecodable}
    return [row for row in census if row.resource in telling | {"secrets"}] if telling else census


def _print(result: Survey, configs: Sequence[str], *, verbose: bool) -> None:
    file, etcd = result.file, result.etcd
    trailer = _TRAILERS[file.trailer]
    print_sentence(
        f"{file.path}: {size_text(file.size)}, {counted(file.high_water_mark, 'page')} of {size_text(file.page_size)}, "
        f"{file.free_pages:,} free; {trailer}"
    )
    if result.container is not None:
        _print_container(result.container)
    if result.platforms:
        echo(f"platform: {', '.join(result.platforms)}")
    store = "Kine" if _is_kine(result) else f"etcd {etcd.storage_version or etcd.version_hint}"
    compacted = f"compacted at {etcd.compacted_revision:,}" if etcd.compacted_revision else "never compacted"
    print_sentence(
        f"{store}: revision {etcd.revision:,}, {compacted}; "
        f"{counted(etcd.keys, 'key')} in {counted(etcd.records, 'record')} ({counted(etcd.tombstones, 'tombstone')}), "
        f"{counted(etcd.leases, 'lease')}; "
        f"status hash {etcd.hash:x}"
    )
    echo(prefix_sentence(result.prefixes))
    echo()
    headings, right = ["RESOURCE", "PROVIDER", "KEY", "LIVE", "OLD", "SIZE"], "   rrr"
    with_keys = any(row.opens is not None for row in result.census)
    if with_keys:
        headings, right = [*headings, "OPENS", "LOST", "STALE"], right + "rrr"
    broken = any(row.undecodable for row in result.census)
    if broken:
        headings, right = [*headings, "UNDECODABLE"], right + "r"
    if len(configs) > 1:
        headings.append("OPENED BY")
    shown = result.census if verbose else _telling(result.census)
    rows = []
    for row in shown:
        cells: list[object] = [
            row.resource,
            row.provider,
            row.header.shown,
            row.live,
            row.old,
            size_text(row.size),
        ]
        if with_keys:
            cells += [row.opens, row.lost, row.stale]
        if broken:
            cells.append(row.undecodable)
        if len(configs) > 1:
            cells.append(", ".join(f"{configs[number]}:{name}" for number, name, _ in row.opened_by))
        rows.append(cells)
    print_table(headings, rows, right=right)
    if len(shown) < len(result.census):
        left_out = len({row.resource for row in result.census} - {row.resource for row in shown})
        rest = counted(left_out, "resource that is", "resources that are")
        echo(f"and {rest} all plaintext; -v shows {'it' if left_out == 1 else 'them'}")
    if any(row.header.goes_on for row in result.census):
        print_sentence(
            "…: the name of the key may go on. Names may hold colons, and no configuration given has this one."
        )
    if any(row.stale for row in result.census):
        print_sentence("STALE: opens, but is not under the key that writes now; `snaptool rewrite` brings it there.")
    if result.lost or result.undecodable:
        echo()
    print_causes(result.causes)
    print_lost(result.lost)
    print_undecodable(result.undecodable)
    print_findings(result.findings)
