"""`snaptool config`: make and check EncryptionConfiguration files."""

from __future__ import annotations

import os
from pathlib import Path

import click

from snaptool.cli import exits, options
from snaptool.cli.render import Terminal, echo, print_json, print_table, print_text


@click.group("config")
def config_command() -> None:
    """Make or check an EncryptionConfiguration."""


@config_command.command("new")
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
    default=["secrets"],
    show_default=True,
    help="Resource to encrypt, as in the file: secrets, deployments.apps, *.*; may be repeated.",
)
@click.option("--keep", metavar="OLD", help="Configuration whose providers are appended: old values still open.")
@click.option("-f", "--file", "target", metavar="FILE", type=click.Path(path_type=Path), help="Write there, mode 0600.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@options.terminal_options
def new_command(
    provider: str,
    key_name: str | None,
    resources: tuple[str, ...],
    keep: str | None,
    target: Path | None,
    terminal: Terminal,
    *,
    force: bool,
) -> int:
    """Print a fresh configuration with a random key, or write it to a file."""
    from snaptool.files import write_private
    from snaptool.providers import Kind, new_config

    old = options.load_configs([keep])[0] if keep is not None else None
    text = new_config(
        kind=Kind(provider), key_name=key_name, secret=os.urandom(32), resources=list(resources), keep=old
    )
    if target is None:
        print_text(text)
    else:
        write_private(target, text, force=force)
        terminal.note(f"wrote {target}: keep a copy in a safe place, nothing else opens what it seals")
    return exits.DONE


@config_command.command("check")
@click.argument("file", metavar="FILE")
@click.option("--automatic-reload", is_flag=True, help="The API servers reload the file by themselves.")
@click.option("--before-1.31", "lenient", is_flag=True, help="By the rules before 1.31: unknown fields are overlooked.")
@options.output_option()
def check_command(file: str, output: str, *, automatic_reload: bool, lenient: bool) -> int:
    """Check a configuration as kube-apiserver does, and show what it does to each resource."""
    from snaptool.providers import BadConfig, KmsConfig, config_warnings, parse_config

    try:
        config = parse_config(
            options.read_config(file), name=file, strict=not lenient, automatic_reload=automatic_reload
        )
    except BadConfig as error:
        if output != "json":
            raise
        problems = [{"path": one.path, "code": one.code, "message": one.message} for one in error.problems]
        print_json({"file": file, "accepted": False, "stage": error.stage, "problems": problems})
        return exits.USAGE
    rows = [
        (name, ", ".join(_provider(provider, KmsConfig) for provider in entry.providers))
        for entry in config.entries
        for name in entry.resources
    ]
    warnings = list(config_warnings(config))
    if output == "json":
        print_json({"file": file, "accepted": True, "resources": dict(rows), "warnings": warnings})
    else:
        print_table(["RESOURCE", "PROVIDERS (the first writes)"], rows)
        for warning in warnings:
            echo(f"warning: {warning}")
    return exits.DONE


def _provider(provider: object, kms: type) -> str:
    kind = getattr(provider, "kind", "")
    if isinstance(provider, kms):
        return f"{kind}:{getattr(provider, 'name', '')}"
    keys = "/".join(key.name for key in getattr(provider, "keys", ()))
    return f"{kind}:{keys}" if keys else str(kind)
