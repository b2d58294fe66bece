"""`snaptool verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from snaptool.cli import exits, options
from snaptool.cli.inspect import finding_document, print_findings
from snaptool.cli.render import Terminal, echo, print_json

if TYPE_CHECKING:
    from snaptool.operations.keys import KmsOptions


@click.command("verify")
@options.snapshot_argument()
@options.config_option()
@click.option("--boot", is_flag=True, help="Boot a copy with a real etcd too, and compare all that it serves.")
@options.etcd_option
@click.option("--live-only", is_flag=True, help="Leave out values that are only old revisions.")
@options.prefix_option
@options.jobs_option
@options.kms_options
@options.output_option()
@options.terminal_options
def verify_command(
    snapshot: Path,
    configs: tuple[str, ...],
    prefixes: tuple[str, ...],
    jobs: int,
    kms: KmsOptions,
    output: str,
    etcd_bin: Path | None,
    terminal: Terminal,
    *,
    live_only: bool,
    boot: bool,
) -> int:
    """Check a snapshot from its pages to its values, and list what is wrong, where, and what helps.

    With --config every value is opened too. Exit code 3 when there are findings, 4 when the database itself is broken:
    made for cron. Of an etcd data directory the db is checked, and with --boot also what only the WAL holds.
    """
    from snaptool.operations.boot import replayed
    from snaptool.operations.keys import keyring_for_reading
    from snaptool.operations.opening import open_snapshot
    from snaptool.operations.verify import verify
    from snaptool.scratch import find_etcd

    read_with = options.load_configs(configs)
    etcd = find_etcd(etcd_bin) if boot else None
    with (
        terminal.progress() as progress,
        open_snapshot(snapshot) as found,
        replayed(found, etcd, progress=progress) as opened,
    ):
        for notice in opened.notices:
            terminal.note(notice)
        keys = keyring_for_reading(opened, read_with, kms, prefixes=prefixes, progress=progress)
        options.note_key_problems(terminal, keys)
        keyring = keys.keyring if configs else None
        result = verify(
            opened,
            keyring,
            live_only=live_only,
            prefixes=prefixes,
            jobs=jobs,
            boot_with=etcd,
            progress=progress,
        )
    if output == "json":
        print_json(
            {
                "path": result.path,
                "records": result.records,
                "opened": result.opened,
                "damaged": result.damaged,
                "findings": [finding_document(finding) for finding in result.findings],
            }
        )
    else:
        print_findings(result.findings)
        echo(
            f"{result.path}: {result.records:,} records, {result.opened:,} encrypted values opened, "
            f"{len(result.findings):,} findings"
        )
    if result.damaged:
        return exits.DAMAGED
    if keys.outage is not None:
        return exits.KEY_SERVICE
    return exits.FINDINGS if result.findings else exits.DONE
