"""`snaptool verify`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snaptool.cli import exits, options
from snaptool.cli.command import Command
from snaptool.cli.embedded import Embedding, embedded_options
from snaptool.cli.findings import (
    count_findings,
    finding_document,
    lost_document,
    prefix_sentence,
    print_findings,
    undecodable_document,
)
from snaptool.cli.render import Terminal, echo, print_json
from snaptool.cli.verdict import (
    after_finding,
    causes_document,
    print_older,
    print_verdict,
    reading_words,
    summary_document,
)
from snaptool.text import counted

if TYPE_CHECKING:
    from snaptool import documents
    from snaptool.operations.kms_options import KmsOptions
    from snaptool.operations.verify import Verification


@click.command("verify", cls=Command)
@options.snapshot_argument()
@options.config_option()
@embedded_options
@click.option("--boot", is_flag=True, help="Also boot a copy with a real etcd, and compare everything that it serves.")
@options.etcd_option
@click.option("--live-only", is_flag=True, help="Leave out old revisions.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "note"]),
    default="warning",
    show_default=True,
    help="Exit with 3 from findings of this severity on.",
)
@options.prefix_option
@options.jobs_option
@options.kms_lost_option
@options.kms_options
@options.page_option
@options.output_option()
@options.terminal_options
def verify_command(
    snapshot: Path,
    configs: tuple[str, ...],
    prefixes: tuple[str, ...],
    jobs: int,
    kms: KmsOptions,
    embedding: Embedding,
    output: str,
    page: options.Page | None,
    etcd_bin: Path | None,
    terminal: Terminal,
    *,
    live_only: bool,
    boot: bool,
    fail_on: str,
) -> int:
    """Check a snapshot from its pages to its values; report problems, where they are and how to fix them.

    With --config every value is opened too. Findings are errors (a restore or a list would fail, data is lost, or a
    value that should be encrypted is not), warnings, or notes (normal states). Exit code 4 when the tree, the records
    or the trailer are damaged, else 3 from --fail-on on, else 0, with -q without any output: suited to cron. Of an
    etcd data directory the db is checked, and with --boot also what only the WAL holds.
    """
    from snaptool.operations.boot import replayed
    from snaptool.operations.findings import Severity
    from snaptool.operations.keys import keyring_for_reading
    from snaptool.operations.verify import verify
    from snaptool.scratch import find_etcd

    loaded = options.load_configs(configs, terminal)
    etcd = find_etcd(etcd_bin) if boot else None
    with (
        terminal.progress() as progress,
        options.open_snapshot(snapshot, prefixes=prefixes) as found,
        replayed(found, etcd, progress=progress) as opened,
    ):
        for notice in opened.notices:
            terminal.note(notice)
        read_with = embedding.read_with(opened, loaded, terminal)
        keys = keyring_for_reading(opened, read_with, kms, progress=progress)
        options.note_key_problems(terminal, keys)
        keyring = keys.keyring if read_with else None
        result = verify(
            opened,
            keyring,
            remedy=keys.remedy,
            live_only=live_only,
            jobs=jobs,
            boot_with=etcd,
            carried=partial(embedding.find, opened, loaded),
            progress=progress,
        )
    failed = result.damaged or keys.outage is not None or result.reaches(Severity(fail_on))
    verdict = result.summary
    whole = document(result, with_config=bool(read_with))
    if page is not None:
        from snaptool.pages import verify_page

        page.write(verify_page(whole))
    if output == "json":
        print_json(whole)
    elif failed or not terminal.quiet:
        print_findings(result.findings)
        if result.records:
            echo(prefix_sentence(result.prefixes))
        echo(
            f"{result.path}: {counted(result.records, 'record')}, {_opened(result, with_config=bool(read_with))}, "
            f"{count_findings(result.findings)}"
        )
        reading = reading_words(configs, prefixes, embedded=embedding.wanted, kms=kms)
        if read_with and result.records:
            print_older(result.older, str(snapshot), result.prefixes, reading)
            # What drops lost values drops old ones too, whether they were looked at or not.
            following = after_finding(result.losses, result.causes, str(snapshot), reading, outage=keys.outage)
            print_verdict(verdict, following)
    if result.damaged:
        return exits.DAMAGED
    if keys.outage is not None:
        return exits.KEY_SERVICE
    return exits.FINDINGS if failed else exits.DONE


def document(result: Verification, *, with_config: bool) -> documents.Verified:
    """Return the JSON form of what was checked."""
    from snaptool.kube.prefixes import prefix_text

    return {
        "path": result.path,
        "prefixes": [prefix_text(prefix) for prefix in result.prefixes],
        "records": result.records,
        "encrypted": result.encrypted,
        "opened": result.opened if with_config else None,
        "damaged": result.damaged,
        "lost": [lost_document(value) for value in result.lost],
        "undecodable": [undecodable_document(value) for value in result.undecodable],
        "likelier_causes": causes_document(result.causes),
        "findings": [finding_document(found) for found in result.findings],
        "summary": summary_document(result.summary),
    }


def _opened(result: Verification, *, with_config: bool) -> str:
    if not result.encrypted:
        return counted(0, "encrypted value")
    text = f"{result.opened:,} of {counted(result.encrypted, 'encrypted value')} opened"
    return text if with_config else f"{text}: no --config given"
