"""`snaptool config`: make and check EncryptionConfiguration files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snaptool.cli import exits, options
from snaptool.cli.command import Command
from snaptool.cli.embedded import Embedding, read_token, token_option
from snaptool.cli.render import Terminal, confirm, echo, print_json, print_table, print_text
from snaptool.errors import InputError
from snaptool.stores import shown

if TYPE_CHECKING:
    from snaptool import documents
    from snaptool.providers.config.model import EncryptionConfig, ProviderConfig

_KEYS_SHOWN = 8
_NAMES_JUDGED = 200


@click.group("config")
def config_command() -> None:
    """Make, check or extract an EncryptionConfiguration."""


@config_command.command("new", cls=Command, short_help="Make a configuration with a fresh key")
@click.option(
    "--provider",
    type=click.Choice(["secretbox", "aesgcm", "aescbc", "identity"]),
    default="secretbox",
    show_default=True,
    help="Provider to write with.",
)
@click.option("--key-name", metavar="NAME", help="Name of the new key.  [default: key1, or the next that is free]")
@click.option(
    "--resource",
    "resources",
    metavar="NAME",
    multiple=True,
    help="Resource to encrypt, as in the file: secrets, deployments.apps, *.*; may be repeated.  "
    "[default: those of --keep, else secrets]",
)
@click.option(
    "--keep",
    metavar="OLD",
    help="Take over the resources and providers of this configuration: each entry gets the new key first.",
)
@click.option("-f", "--file", "target", metavar="FILE", type=click.Path(path_type=Path), help="Write there, mode 0600.")
@click.option(
    "--final",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the same with the new key alone there: for the proof, and for the day when the old keys go.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@options.terminal_options
def new_command(
    provider: str,
    key_name: str | None,
    resources: tuple[str, ...],
    keep: str | None,
    target: Path | None,
    final: Path | None,
    terminal: Terminal,
    *,
    force: bool,
) -> int:
    """Print a fresh configuration with a random key, or write it to a file."""
    from snaptool.providers.config.fresh import final_config, new_config
    from snaptool.providers.provider import Kind

    if final is not None and keep is None:
        raise click.UsageError("--final leaves the old keys out, and there are none without --keep")
    old = options.load_configs([keep], terminal, one_each=True)[0] if keep is not None else None
    _check_targets([target, final], keep, force=force)
    if old is not None and old.platform == "talos" and key_name is None:
        # Talos gives its two keys these names, and serves no third one: docs/formats/containers.md, "Configurations
        # elsewhere".
        key_name = {"secretbox": "key2", "aescbc": "key1"}.get(provider)
    text = new_config(
        kind=Kind(provider),
        key_name=key_name,
        secret=os.urandom(32),
        resources=_resources(resources, old, terminal),
        keep=old,
    )
    pairs = [(target, text), (final, final_config(text) if final is not None else "")]
    _write_all([(path, content) for path, content in pairs if path is not None], force=force)
    if target is None:
        print_text(text)
    else:
        terminal.note(f"wrote {target}: keep a copy in a safe place, nothing else opens what it seals")
    if final is not None:
        terminal.note(f"wrote {final}: the new key alone; older backups still need the old keys")
    return exits.DONE


def _resources(named: Sequence[str], old: EncryptionConfig | None, terminal: Terminal) -> list[str]:
    """Choose what the new key encrypts. Raises InputError where the old configuration encrypts more than is named."""
    from snaptool.kube.names import canonical_name, covers

    if old is None:
        return list(named) or ["secrets"]
    plain = [entry for entry in old.entries if {provider.kind for provider in entry.providers} == {"identity"}]
    kept = [name for entry in old.entries if entry not in plain for name in entry.resources]
    left_out = [name for name in kept if named and not any(covers(one, name) for one in named)]
    if left_out:
        raise InputError(
            f"the old configuration encrypts more than --resource names: {', '.join(left_out)}",
            hint="leave --resource out to take over all of them, or name these too",
            code="resources_left_out",
        )
    for entry in plain:
        terminal.note(f"never encrypted by the old configuration, nor by the new one: {', '.join(entry.resources)}")
    return list(dict.fromkeys(canonical_name(name) for name in [*named, *kept])) or ["secrets"]


def _check_targets(targets: Sequence[Path | None], keep: str | None, *, force: bool) -> None:
    from snaptool.files import check_target

    paths = [path for path in targets if path is not None]
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise InputError("--file and --final name the same file", hint="name two files", code="same_target")
    for path in paths:
        if keep not in {None, "-"} and os.access(path, os.F_OK) and path.samefile(str(keep)):
            raise InputError(
                f"{path} is the old configuration",
                hint="name another file; what is read is never written",
                code="target_is_read",
            )
        check_target(path, force=force)


def _write_all(files: Sequence[tuple[Path, str]], *, force: bool) -> None:
    """Write every file before the first gets its name."""
    from snaptool.files import Draft

    with ExitStack() as stack:
        drafts = [(stack.enter_context(Draft(path, force=force)), text) for path, text in files]
        for draft, text in drafts:
            draft.write(text.encode())
            draft.sync()
        for draft, _ in drafts:
            draft.publish()


@config_command.command("extract", cls=Command, short_help="Take one out of a snapshot")
@options.snapshot_argument()
@options.config_option(help_text="EncryptionConfiguration that opens what the snapshot carries; may be repeated.")
@token_option
@click.option(
    "--static-resources",
    metavar="TAR",
    type=click.Path(path_type=Path),
    help="OpenShift's static_kuberesources_DATE.tar.gz, where it is not beside SNAPSHOT.",
)
@click.option("-f", "--file", "target", metavar="FILE", type=click.Path(path_type=Path), help="Write there, mode 0600.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@options.terminal_options
def extract_command(
    snapshot: Path,
    configs: tuple[str, ...],
    token_file: str | None,
    static_resources: Path | None,
    target: Path | None,
    terminal: Terminal,
    *,
    force: bool,
) -> int:
    """Write the configuration that a backup carries inside: of k3s, RKE2, RKE1, OpenShift or Omni.

    That of k3s and RKE2 opens with the server token; OpenShift's Secrets with the configuration of kube-apiserver,
    given with --config, and with what they hold themselves. Exit code 3 when something stayed closed.
    """
    from snaptool.files import check_target, write_private
    from snaptool.providers.config.fresh import config_text

    token = read_token(token_file) if token_file is not None else None
    loaded = options.load_configs(configs, terminal)
    with options.open_snapshot(snapshot, kine=True) as opened:
        if target is not None:
            check_target(target, force=force, source=opened.source)
        found = Embedding(wanted=True, token=token, static_resources=static_resources)
        found.read_with(opened, loaded, terminal)
        carried = found.find(opened, loaded)
    (config, *others) = carried.configs
    for other in others:
        terminal.note(f"{other.name} is left out: give its token alone, or none, to extract it")
    text = config_text(config, head=_EXTRACTED)
    if target is not None:
        write_private(target, text, force=force)
        terminal.note(f"wrote {target}: whoever has it can decrypt the cluster's values")
    elif not sys.stdout.isatty() or confirm("print the keys to this terminal?"):
        print_text(text)
    return exits.FINDINGS if carried.closed else exits.DONE


_EXTRACTED = """\
# Extracted by `snaptool config extract` from a snapshot. This file holds keys: mode 0600.
"""


@config_command.command("check", cls=Command, short_help="Check one as kube-apiserver does")
@click.argument("file", metavar="FILE")
@click.option("--automatic-reload", is_flag=True, help="Apply the rules for servers that reload the file themselves.")
@click.option("--before-1.31", "lenient", is_flag=True, help="Apply the rules of Kubernetes before 1.31.")
@options.output_option()
@options.terminal_options
def check_command(file: str, output: str, terminal: Terminal, *, automatic_reload: bool, lenient: bool) -> int:
    """Check a configuration as kube-apiserver does, and show what it does to each resource.

    FILE may be one that holds a configuration, for instance a Secret manifest or a machine configuration of Talos.
    """
    from snaptool.providers.config.held import read_configs
    from snaptool.providers.config.model import BadConfig

    called = shown(file)
    name = "stdin" if file == "-" else called
    try:
        found = read_configs(
            options.read_config(file), name=name, strict=not lenient, automatic_reload=automatic_reload
        )
    except BadConfig as error:
        if output != "json":
            raise
        refused: documents.RefusedConfiguration = {
            "file": called,
            "accepted": False,
            "stage": error.stage,
            "problems": [asdict(problem) for problem in error.problems],
        }
        print_json(refused)
        return exits.USAGE
    held = [config for config in found.configs if config.name != name]
    if output == "json":
        rows = {resource: providers for config in found.configs for resource, providers in _rows(config)}
        warnings = [warning for config in found.configs for warning in _warnings(config)]
        accepted: documents.AcceptedConfiguration = {
            "file": called,
            "accepted": True,
            "held": [config.name for config in held],
            "resources": rows,
            "warnings": [*warnings, *found.notes],
        }
        print_json(accepted)
        return exits.DONE
    for note in found.notes:
        terminal.note(note)
    for config in found.configs:
        if held:
            echo(f"{config.name}:")
        print_table(["RESOURCE", "PROVIDERS (the first writes)"], _rows(config))
        for warning in _warnings(config):
            echo(f"warning: {warning}")
    return exits.DONE


def _rows(config: EncryptionConfig) -> list[tuple[str, str]]:
    return [
        (name, ", ".join(_provider(provider) for provider in entry.providers))
        for entry in config.entries
        for name in entry.resources
    ]


def _warnings(config: EncryptionConfig) -> Iterator[str]:
    from snaptool.kube.names import misnamed
    from snaptool.providers.config.advice import config_warnings

    for index, entry in enumerate(config.entries):
        for name in entry.resources[:_NAMES_JUDGED]:
            wrong = misnamed(name)
            if wrong is not None:
                yield f"resources[{index}]: {name!r}: {wrong.problem}" + (f"; {wrong.question}" if wrong.meant else "")
    yield from config_warnings(config)


def _provider(provider: ProviderConfig) -> str:
    from snaptool.providers.config.model import KmsConfig

    if isinstance(provider, KmsConfig):
        return f"{provider.kind}:{provider.name}"
    names = [key.name for key in provider.keys]
    more = f"/… ({len(names) - _KEYS_SHOWN:,} more)" if len(names) > _KEYS_SHOWN else ""
    return f"{provider.kind}:{'/'.join(names[:_KEYS_SHOWN])}{more}" if names else str(provider.kind)
