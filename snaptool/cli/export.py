"""`snaptool export`: objects of a snapshot as manifests that a cluster takes."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snaptool.cli import exits, options
from snaptool.cli.command import Command
from snaptool.cli.embedded import Embedding, embedded_options
from snaptool.cli.render import Terminal, echo
from snaptool.text import counted

if TYPE_CHECKING:
    from snaptool.operations.export import Exported, LostValue
    from snaptool.operations.kms_options import KmsOptions

_SHOWN = 20


@click.command(
    "export",
    cls=Command,
    epilog="\b\nExamples:\n"
    "  snaptool export backup.db -n shop --config enc.yaml --to shop\n"
    "  snaptool export backup.db -n shop --revision 1200 --to shop.yaml\n"
    "  snaptool export backup.db secret/smtp -n shop | kubectl apply -f -",
)
@options.snapshot_argument()
@click.argument("words", metavar="[TYPE | TYPE/NAME | TYPE NAME]...", nargs=-1)
@click.option("-n", "--namespace", "namespaces", metavar="NS", multiple=True, help="This namespace; may be repeated.")
@click.option(
    "-A",
    "--all-namespaces",
    is_flag=True,
    help="All namespaces but kube-system, kube-public and kube-node-lease, which -n names.",
)
@click.option(
    "--cluster",
    type=click.Choice(["related", "all", "none"]),
    help="Cluster-scoped objects that go along.  [default: related with -n, all with -A]",
)
@click.option(
    "--to",
    metavar="PATH",
    help="*.yaml, *.yml, *.json: one stream; another name: a directory of files; - is stdout.  [default: stdout]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["yaml", "json"]),
    help="JSON is one List.  [default: as --to is called, else yaml]",
)
@click.option(
    "--secrets",
    type=click.Choice(["include", "skip", "redact"]),
    default="include",
    show_default=True,
    help="redact: names and keys stay, each value becomes REDACTED.",
)
@click.option(
    "--volumes",
    type=click.Choice(["keep", "new"]),
    default="keep",
    show_default=True,
    help="new: no PersistentVolumes, and claims that get empty ones.",
)
@click.option("--keep-allocated", is_flag=True, help="Keep cluster IPs and node ports that the old cluster chose.")
@click.option("--keep-api-versions", is_flag=True, help="Keep apiVersions that newer servers no longer serve.")
@click.option("--raw", is_flag=True, help="Nothing left out, nothing removed: as `kubectl get` would show it.")
@click.option("--revision", metavar="N", type=click.IntRange(min=1), help="The state as it was at that revision.")
@click.option(
    "--undecryptable",
    type=click.Choice(["stop", "skip", "older"]),
    default="stop",
    show_default=True,
    help="What to do when values do not open; older: the newest older revision that does, else skip.",
)
@click.option("--report", metavar="FILE", type=click.Path(path_type=Path), help="Write what was done, as JSON.")
@click.option("--force", is_flag=True, help="Replace an existing file, or a directory that an export made.")
@options.config_option()
@embedded_options
@options.hash_option
@options.prefix_option
@options.kms_options
@options.terminal_options
def export_command(
    snapshot: Path,
    words: tuple[str, ...],
    namespaces: tuple[str, ...],
    cluster: str | None,
    to: str | None,
    form: str | None,
    secrets: str,
    volumes: str,
    revision: int | None,
    undecryptable: str,
    report: Path | None,
    configs: tuple[str, ...],
    embedding: Embedding,
    prefixes: tuple[str, ...],
    kms: KmsOptions,
    terminal: Terminal,
    *,
    all_namespaces: bool,
    keep_allocated: bool,
    keep_api_versions: bool,
    raw: bool,
    force: bool,
    skip_hash_check: bool,
) -> int:
    """Write objects as manifests for `kubectl apply`, decrypted: a namespace, a type, one object.

    What belonged to the old cluster's life is removed, what a cluster makes by itself is left out. At the end stand the
    commands that apply the result. --revision brings back what was deleted since.
    """
    from snaptool.operations.export import (
        Cluster,
        ExportRequest,
        Format,
        Lost,
        Output,
        Secrets,
        ValuesLost,
        Volumes,
        export,
        parse_types,
    )
    from snaptool.operations.keys import keyring_for_reading

    request = ExportRequest(
        namespaces=namespaces,
        every_namespace=all_namespaces,
        types=parse_types(words),
        cluster=None if cluster is None else Cluster(cluster),
        format=None if form is None else Format(form),
        secrets=Secrets(secrets),
        volumes=Volumes(volumes),
        keep_allocated=keep_allocated,
        keep_api_versions=keep_api_versions,
        raw=raw,
        revision=revision,
        undecryptable=Lost(undecryptable),
    )
    target = None if to in (None, "-") else Path(to or "")
    output = Output(
        to=target,
        write=sys.stdout.buffer.write,
        terminal=target is None and sys.stdout.isatty(),
        report=report,
        force=force,
    )
    loaded = options.load_configs(configs, terminal)
    with terminal.progress() as progress, options.open_snapshot(snapshot, prefixes=prefixes, kine=True) as opened:
        for notice in opened.notices:
            terminal.note(notice)
        read_with = embedding.read_with(opened, loaded, terminal)
        keys = keyring_for_reading(opened, read_with, kms, skip_hash_check=skip_hash_check, progress=progress)
        options.note_key_problems(terminal, keys)
        try:
            made = export(
                opened,
                request,
                output,
                keys.keyring if read_with else None,
                skip_hash_check=skip_hash_check,
                progress=progress,
            )
        except ValuesLost as stopped:
            progress.close()
            _say_lost(stopped.lost, terminal)
            if keys.outage is not None:
                raise keys.outage from stopped
            raise
        progress.close()
        sys.stdout.flush()
    _summarise(made, target, terminal)
    if keys.outage is not None and made.lost:
        return exits.KEY_SERVICE
    return exits.DONE if made.complete else exits.FINDINGS


def _say_lost(lost: tuple[LostValue, ...], terminal: Terminal) -> None:
    for one in lost[:_SHOWN]:
        terminal.note(f"{_text(one.key)} at revision {one.revision}: {one.reason}")
    if len(lost) > _SHOWN:
        reasons = Counter(one.reason for one in lost[_SHOWN:])
        for reason, count in reasons.most_common(_SHOWN):
            terminal.note(f"and {count:,} more: {reason}")


def _text(key: bytes) -> str:
    return key.decode(errors="backslashreplace")


def _summarise(made: Exported, target: Path | None, terminal: Terminal) -> None:
    from snaptool.kube.prefixes import prefix_text

    total = made.kinds.total()
    counts = ", ".join(f"{count:,} {kind}" for kind, count in made.kinds.items())
    where = "" if target is None else f" in {target}"
    under = ", ".join(map(prefix_text, made.prefixes))
    objects = counted(total, "object")
    terminal.note(f"{objects} at revision {made.revision} under {under}{where}: {counts}")
    if made.left_out:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(made.left_out.items()))
        terminal.note(f"left out {made.left_out.total():,}: {reasons}")
    for note in made.notes:
        terminal.note(note)
    if made.lost:
        terminal.note(f"{len(made.lost):,} left out because no key opens them:")
        _say_lost(made.lost, terminal)
    if made.unknown_fields:
        objects = counted(len(made.unknown_fields), "object has", "objects have")
        terminal.note(f"{objects} fields that no release has, left out of the manifests:")
        for key, paths in list(made.unknown_fields.items())[:_SHOWN]:
            terminal.note(f"  {_text(key)}: {', '.join(paths[:_SHOWN])}")
    if made.commands and not terminal.quiet:
        echo("snaptool: to apply them:", err=True)
        for before, command in made.commands:
            if before:
                echo(f"  # {before}", err=True)
            if command:
                echo(f"  {command}", err=True)
