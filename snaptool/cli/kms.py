"""`snaptool kms`: talk to the KMS plugins of a configuration, count what a job will ask of them, save their answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from snaptool.cli import exits, options
from snaptool.cli.command import Command
from snaptool.cli.render import Terminal, echo, print_json, print_table
from snaptool.text import counted

if TYPE_CHECKING:
    from snaptool import documents
    from snaptool.operations.kms_options import KmsOptions
    from snaptool.providers.kms_keys import ServiceCheck
    from snaptool.providers.kms_service import KmsError
    from snaptool.providers.kms_sources import CallPlan
    from snaptool.providers.kms_unwrapping import FailedSources


@click.group("kms")
def kms_command() -> None:
    """Check KMS plugins, plan their calls, save the keys that they unwrap."""


@kms_command.command("check", cls=Command, short_help="Check that every KMS plugin is healthy")
@options.config_option(required=True)
@click.option("--decrypt-only", is_flag=True, help="Test decryption only, for accounts that may not encrypt.")
@click.option("--sample", metavar="SNAPSHOT", type=options.Place(), help="Unwrap the most used key of this snapshot.")
@options.hash_option
@options.kms_options
@options.output_option()
@options.terminal_options
def check_command(
    configs: tuple[str, ...],
    sample: Path | None,
    kms: KmsOptions,
    output: str,
    terminal: Terminal,
    *,
    decrypt_only: bool,
    skip_hash_check: bool,
) -> int:
    """Check that every KMS plugin is healthy and can encrypt and decrypt 32 random bytes.

    Exit code 5 when one of them cannot be used.
    """
    from snaptool.operations.keys import check_plugins

    read_with = options.load_configs(configs, terminal)
    if sample is None:
        checks = check_plugins(read_with, kms, decrypt_only=decrypt_only)
    else:
        with options.open_snapshot(sample, "sample") as opened:
            checks = check_plugins(
                read_with, kms, decrypt_only=decrypt_only, sample=opened, skip_hash_check=skip_hash_check
            )
    if not checks:
        terminal.note("the configuration has no KMS provider")
    if output == "json":
        print_json({"plugins": [_check_document(check) for check in checks]})
    else:
        _print_checks(checks)
    return exits.DONE if all(map(_usable, checks)) else exits.KEY_SERVICE


def _usable(check: ServiceCheck) -> bool:
    return check.error is None and not check.problems and check.round_trip is not False


def _check_document(check: ServiceCheck) -> documents.CheckedPlugin:
    return {
        "provider": f"kms/{check.api}",
        "key_name": check.provider,
        "usable": _usable(check),
        "version": check.version or None,
        "healthz": check.healthz or None,
        "key_id_hash": check.key_id_hash or None,
        "plugin": check.plugin or None,
        "asked_directly": check.asked or None,
        "round_trip": check.round_trip,
        "problems": list(check.problems),
        "milliseconds": {question: round(1000 * seconds, 1) for question, seconds in check.seconds.items()},
        "error": None if check.error is None else _error_document(check.error),
    }


def _error_document(error: KmsError) -> documents.KmsFailure:
    """Return an error as every failure is reported, and why the service did not deliver."""
    return {
        "code": error.code,
        "problem": str(error),
        "remedy": error.hint or None,
        "place": error.place,
        "category": error.category,
        "detail": error.detail or None,
    }


def _print_checks(checks: tuple[ServiceCheck, ...]) -> None:
    for check in checks:
        echo(f"{check.provider} (KMS {check.api}): {'usable' if _usable(check) else 'NOT USABLE'}")
        facts = {
            "version": check.version,
            "healthz": check.healthz,
            "key id": check.key_id_hash,
            "asked directly": check.asked,
            "plugin": "" if check.asked else check.plugin and f"{check.plugin} (a guess)",
            "round trip": {True: "the same key came back", False: "ANOTHER KEY CAME BACK", None: ""}[check.round_trip],
            "answers in": ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in check.seconds.items()),
        }
        for name, fact in facts.items():
            if fact:
                echo(f"  {name}: {fact}")
        for problem in check.problems:
            echo(f"  problem: {problem}")
        if check.error is not None:
            echo(f"  error: {check.error}")
            if check.error.hint:
                echo(f"         {check.error.hint}")


@kms_command.command("plan", cls=Command, short_help="Count the calls that a job will make")
@options.snapshot_argument()
@options.config_option()
@click.option("--new-config", metavar="FILE", help="EncryptionConfiguration that a rewrite would write with.")
@click.option("--rewrap", is_flag=True, help="Plan a `rewrite --rewrap`.")
@options.prefix_option
@options.hash_option
@options.dek_per_object_option
@options.new_direct_option
@options.kms_options
@options.output_option()
@options.terminal_options
def plan_command(
    snapshot: Path,
    configs: tuple[str, ...],
    new_config: str | None,
    prefixes: tuple[str, ...],
    kms: KmsOptions,
    output: str,
    terminal: Terminal,
    *,
    rewrap: bool,
    skip_hash_check: bool,
) -> int:
    """Count the calls that reading a snapshot, and rewriting it, will make. Nothing is called."""
    from snaptool.operations.kms_plans import plan_calls

    written = [new_config] if new_config is not None else []
    options.refuse_stdin_twice([*configs, *written])
    old, new = (
        options.load_configs(configs, terminal),
        options.load_configs(written, terminal, strict=True, one_each=True),
    )
    with terminal.progress() as progress, options.open_snapshot(snapshot, prefixes=prefixes) as opened:
        plans = plan_calls(
            opened,
            old,
            new,
            kms,
            rewrap=rewrap,
            skip_hash_check=skip_hash_check,
            progress=progress,
        )
    if output == "json":
        print_json({"plans": [_plan_document(plan) for plan in plans]})
        return exits.DONE
    rows = [
        [
            plan.provider,
            plan.api,
            plan.purpose,
            plan.objects,
            plan.sources,
            ", ".join(f"{count:,} {method}" for method, count in plan.calls.items()) or "none",
        ]
        for plan in plans
    ]
    for plan in plans:
        if plan.least_seconds >= 60:
            terminal.note(
                f"{plan.provider}: by the quota of {plan.asked} (4,000 calls in 10 s for a vault, RSA-2048 in "
                f"software) this takes {plan.least_seconds / 60:,.0f} minutes or more"
            )
    print_table(["PROVIDER", "API", "TO", "VALUES", "WRAPPED KEYS", "CALLS"], rows, right="   rr")
    return exits.DONE


def _plan_document(plan: CallPlan) -> documents.PlannedCalls:
    return {
        "provider": f"kms/{plan.api}",
        "key_name": plan.provider,
        "purpose": plan.purpose,
        "values": plan.objects,
        "wrapped_keys": plan.sources,
        "calls": dict(plan.calls),
        "asked_directly": plan.asked or None,
    }


@kms_command.command("export-deks", cls=Command, short_help="Save the data keys of a snapshot")
@options.snapshot_argument()
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@options.config_option(required=True)
@click.option("--yes-write-keys", is_flag=True, help="Required: confirms that whoever has FILE can decrypt.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@options.hash_option
@options.kms_lost_option
@options.kms_options
@options.output_option()
@options.terminal_options
def export_command(
    snapshot: Path,
    target: Path,
    configs: tuple[str, ...],
    kms: KmsOptions,
    output: str,
    terminal: Terminal,
    *,
    yes_write_keys: bool,
    force: bool,
    skip_hash_check: bool,
) -> int:
    """Unwrap every key of a snapshot and write them to FILE, mode 0600: what --dek-file reads when the KMS is gone.

    A key is written when it opened a value. Nothing is written unless every one did, or is given up by --kms-lost.
    """
    from snaptool.files import check_target, write_private
    from snaptool.operations.keys import exported_keys

    if not yes_write_keys:
        raise click.UsageError("FILE will hold the keys themselves: pass --yes-write-keys to confirm that")
    read_with = options.load_configs(configs, terminal)
    with terminal.progress() as progress, options.open_snapshot(snapshot) as opened:
        check_target(target, force=force, source=opened.source)
        text, unwrapped = exported_keys(opened, read_with, kms, skip_hash_check=skip_hash_check, progress=progress)
    write_private(target, text, force=force)
    saved = sum(len(answer.keys) - len(answer.unproven) for answer in unwrapped.answers)
    options.note_key_problems(terminal, unwrapped)
    if output == "json":
        given_up = [_failed_document(failed) for failed in unwrapped.given_up]
        exported: documents.ExportedKeys = {"path": str(target), "keys": saved, "given_up": given_up}
        print_json(exported)
    terminal.note(
        f"wrote {counted(saved, 'key')} to {target}: it opens what they encrypt, without any KMS; keep it as safe"
    )
    return exits.DONE


def _failed_document(failed: FailedSources) -> documents.GivenUp:
    return {
        "provider": f"kms/{failed.api}",
        "key_name": failed.provider,
        "key_id_hash": failed.key_id_hash or None,
        "category": failed.category,
        "wrapped_keys": failed.sources,
        "values": failed.objects,
    }
