"""`snaptool audit`: its arguments and options; what they do is in `auditing`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from snaptool.cli import options
from snaptool.cli.audit_words import LEVELS, FailOn, Level, Shard
from snaptool.cli.command import Command
from snaptool.cli.embedded import embedded_options

_PEM = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command("audit", cls=Command)
@click.argument("arguments", metavar="PATH-OR-URL...", nargs=-1)
@options.config_option()
@embedded_options
@click.option(
    "--store",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="SQLite file of results: what is known of an unchanged backup is not asked again.  "
    "[default: snaptool-audit.db; with --results in memory]",
)
@click.option(
    "--check",
    metavar="LEVEL",
    type=Level(),
    help=f"How closely to look: {LEVELS}.  [default: keys with --config or --embedded-config, else census]",
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
@click.option("--all-versions", is_flag=True, help="In a bucket, also versions that were replaced or deleted.")
@click.option("--recheck", metavar="all|failed|damaged|URL", default="", help="Look again although it is known.")
@click.option("--forget-gone", is_flag=True, help="Delete from the store what is not there any more.")
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(min=1),
    default=lambda: os.cpu_count() or 1,
    help="Number of backups that are looked at at a time, by a process each.  [default: number of cores]",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="For one backup.  [default: 600, or a second for each megabyte]",
)
@click.option(
    "--work-dir",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where backups are downloaded and unpacked.  [default: TMPDIR, else /var/tmp]",
)
@click.option("--shard", metavar="I/N", type=Shard(), help="Only this part of all; env/N: by the job's index.")
@click.option("--results", metavar="FOLDER-OR-URL", help="Where a shard leaves its records, one file each.")
@click.option(
    "--scheduler",
    metavar="tls://HOST:PORT",
    help="Let the workers of a Dask scheduler look (give each --host: without, it listens on all interfaces).",
)
@click.option("--tls-ca", metavar="FILE", type=_PEM, help="For --scheduler: the CA of its certificates.")
@click.option("--tls-cert", metavar="FILE", type=_PEM, help="For --scheduler: the own certificate.")
@click.option("--tls-key", metavar="FILE", type=_PEM, help="For --scheduler: the key of the own certificate.")
@click.option("--merge", metavar="FOLDER-OR-URL", help="Take in what all shards left there, and report.")
@click.option(
    "--fail-on",
    metavar="WORDS",
    type=FailOn(),
    default="damaged,empty,undecryptable,plaintext,undecodable",
    show_default=True,
    help="Exit with 3 when a backup is one of these; none: never.",
)
@options.etcd_option
@options.kms_lost_option
@options.kms_options
@click.option("--yes-all-v1", is_flag=True, help="Make more than 10,000 calls for keys of KMS v1.")
@click.option("--names", is_flag=True, help="Name the first lost objects in records.")
@click.option("--salvage", is_flag=True, help="Count what can be saved of damaged backups, too: in a copy of each.")
@click.option("--all", "show_all", is_flag=True, help="Show every backup.")
@click.option("--list", "only_list", is_flag=True, help="Say what would be looked at, and stop.")
@click.option("--report-only", is_flag=True, help="Report from the store, and look at nothing.")
@options.page_option
@options.output_option("text", "json", "jsonl")
@options.terminal_options
def audit_command(**given: Any) -> int:
    """Look at many backups: which open with these keys, which hold Secrets in plaintext, which are damaged.

    A PATH is a backup, or a folder with all below it; a URL is an object, or a folder of a bucket (s3://); globs take
    ** for any folders. @FILE reads a list that --list -o jsonl made. What belongs to one backup counts as one. Exit
    code 1 when something could not be looked at, else 3 when there are findings, else 0: suited to cron.
    """
    from snaptool.cli.auditing import Asked, audit

    return audit(Asked(**given))
