"""`snaptool get` and `history`: objects, and what happened to one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snaptool.cli import exits, options
from snaptool.cli.command import Command
from snaptool.cli.comparing import Side, print_object_diff
from snaptool.cli.embedded import Embedding, embedded_options
from snaptool.cli.getting import Getting
from snaptool.cli.looking import (
    asking,
    examples,
    namespace_option,
    open_for_reading,
    print_reasons,
    state,
    tell_namespace,
)
from snaptool.cli.render import Terminal, echo, print_json, print_table
from snaptool.text import printable

if TYPE_CHECKING:
    from snaptool import documents
    from snaptool.operations.kms_options import KmsOptions
    from snaptool.operations.object import History

_words_argument = click.argument("words", metavar="(KEY | TYPE NAME)", nargs=-1, required=True)
_managed_fields_option = click.option("--show-managed-fields", is_flag=True, help="Show metadata.managedFields too.")


# --- get ------------------------------------------------------------------------------------------------------------


@click.command(
    "get",
    cls=Command,
    epilog=examples(
        "snaptool get backup.db secret smtp -n shop --config old.yaml",
        "snaptool get backup.db deploy,sts -A -o yaml",
        "snaptool get backup.db /registry/configmaps/shop/settings --revision 1200",
    ),
)
@options.snapshot_argument()
@click.argument("words", metavar="(KEY | TYPE [NAME]... | TYPE/NAME...)", nargs=-1, required=True)
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces.")
@click.option("--revision", metavar="N", type=click.IntRange(min=1), help="As it was at that revision.")
@_managed_fields_option
@options.config_option()
@embedded_options
@options.hash_option
@options.prefix_option
@options.kms_options
@click.option(
    "-o",
    "--output",
    type=click.Choice(("text", "yaml", "json", "name", "value", "stored")),
    help="How to print the result.  [default: yaml for objects that are named, else text]",
)
@options.terminal_options
def get_command(
    snapshot: Path,
    words: tuple[str, ...],
    namespace: str | None,
    revision: int | None,
    configs: tuple[str, ...],
    embedding: Embedding,
    prefixes: tuple[str, ...],
    kms: KmsOptions,
    output: str | None,
    terminal: Terminal,
    *,
    all_namespaces: bool,
    show_managed_fields: bool,
    skip_hash_check: bool,
) -> int:
    """Show objects, decrypted, as kubectl prints them.

    As with kubectl, a TYPE that has namespaces is looked for in `default` unless -n names another, TYPE may be several
    with commas between. Several objects that were named, or are of several types, are YAML documents with `---`
    between; all of one TYPE are a List. `-o value` gives the plaintext of one as kube-apiserver stored it, mostly
    protobuf; `-o stored` what is in etcd, with the encryption around it.
    """
    from snaptool.operations.asked import Types, parse_asked

    loaded = () if output == "stored" else options.load_configs(configs, terminal)
    with ExitStack() as stack:
        opened = stack.enter_context(open_for_reading(snapshot, prefixes, terminal))
        read_with = () if output == "stored" else embedding.read_with(opened, loaded, terminal)
        keyring, sources = stack.enter_context(asking(read_with, kms))
        types = Types(opened, keyring, revision)
        asked = parse_asked(words, namespace, types.resolve, all_namespaces=all_namespaces)
        got = Getting(opened, types, keyring, revision, terminal, managed_fields=show_managed_fields)
        for target in asked.targets[:1]:
            tell_namespace(target, terminal)
        if asked.single:
            names = [config.name for config in read_with]
            return got.one(asked.targets[0], output or "yaml", names, skip_hash_check=skip_hash_check)
        if output in {"value", "stored"}:
            raise click.UsageError(f"-o {output} shows one object: name it")
        default = "yaml" if asked.targets else "text"
        code = got.several(asked, output or default, skip_hash_check=skip_hash_check)
        failures = [failure for keys in sources for failure in keys.failures]
        for failure in failures[:1]:
            terminal.note(str(failure))
        return exits.KEY_SERVICE if failures else code


# --- history --------------------------------------------------------------------------------------------------------


@click.command(
    "history",
    cls=Command,
    epilog=examples(
        "snaptool history backup.db secret smtp -n shop --config old.yaml",
        "snaptool history backup.db deploy web -n shop --diff 1200 1350",
    ),
)
@options.snapshot_argument()
@_words_argument
@namespace_option
@click.option(
    "--diff",
    "revisions",
    metavar="R1 R2",
    nargs=2,
    type=click.IntRange(min=1),
    help="Compare the object as it was at two revisions; exit code 1 when it differs.",
)
@_managed_fields_option
@options.config_option()
@embedded_options
@options.hash_option
@options.prefix_option
@options.kms_options
@options.output_option()
@options.terminal_options
def history_command(
    snapshot: Path,
    words: tuple[str, ...],
    namespace: str | None,
    revisions: tuple[int, int] | None,
    configs: tuple[str, ...],
    embedding: Embedding,
    prefixes: tuple[str, ...],
    kms: KmsOptions,
    output: str,
    terminal: Terminal,
    *,
    show_managed_fields: bool,
    skip_hash_check: bool,
) -> int:
    """Show every stored revision of a key: what happened, and under which key its value is stored.

    CONTENT numbers the plaintexts: equal numbers are equal contents, whatever they were encrypted with. Encrypted
    values need --config for it. Exit code 3 when a value is lost or undecodable.
    """
    from snaptool.operations.asked import Types
    from snaptool.operations.object import history, parse_target

    loaded = options.load_configs(configs, terminal)
    with ExitStack() as stack:
        opened = stack.enter_context(open_for_reading(snapshot, prefixes, terminal))
        keyring, sources = stack.enter_context(asking(embedding.read_with(opened, loaded, terminal), kms))
        types = Types(opened, keyring)
        target = parse_target(words, namespace, types.resolve)
        tell_namespace(target, terminal)
        if revisions is not None:
            sides = [Side(snapshot, opened, keyring, revision) for revision in revisions]
            return print_object_diff(
                target, sides, output, managed_fields=show_managed_fields, skip_hash_check=skip_hash_check
            )
        found = history(opened, target, keyring, skip_hash_check=skip_hash_check)
    failures = [failure for keys in sources for failure in keys.failures]
    for failure in failures[:1]:
        terminal.note(str(failure))
    if output == "json":
        print_json(_history_document(found))
    else:
        _print_history(found)
    if failures:
        return exits.KEY_SERVICE
    return exits.FINDINGS if found.lost or found.undecodable else exits.DONE


def _history_document(found: History) -> documents.History:
    from snaptool.operations.reasons import server_message

    return {
        "key": found.key,
        "revision": found.revision,
        "compacted_revision": found.compacted_revision,
        "revisions": [
            {
                "revision": entry.revision.main,
                "sub": entry.revision.sub,
                "event": "delete" if entry.deleted else "put",
                "live": entry.live,
                "version": entry.version,
                "lease": entry.lease,
                "provider": None if entry.header is None else entry.header.provider,
                "key_name": None if entry.header is None else entry.key_name,
                "size": entry.size,
                "digest": None if entry.digest is None else entry.digest.hex(),
                "opens": None if entry.outcome is None else entry.outcome.opened and entry.outcome.fault is None,
                "undecodable": None if entry.outcome is None else entry.outcome.fault,
                "stale": None if entry.outcome is None else entry.outcome.opened and entry.outcome.stale,
                "reasons": [] if entry.outcome is None else list(entry.outcome.why),
                "explanation": entry.reason,
                "server_error": "" if entry.outcome is None else server_message(entry.outcome),
            }
            for entry in found.entries
        ],
    }


def _print_history(found: History) -> None:
    from snaptool.operations.reasons import server_message

    compacted = f"compacted at {found.compacted_revision:,}" if found.compacted_revision else "never compacted"
    echo(printable(found.key))
    echo(f"the store is at revision {found.revision:,}, {compacted}")
    echo()
    contents: dict[bytes, int] = {}
    for entry in found.entries:
        if entry.digest is not None:
            contents.setdefault(entry.digest, len(contents) + 1)
    rows = [
        [
            str(entry.revision),
            "delete" if entry.deleted else "put",
            entry.version or None,
            None if entry.header is None else entry.header.provider,
            entry.key_name or None,
            None if entry.deleted else entry.size,
            None if entry.digest is None else contents[entry.digest],
            state(entry),
        ]
        for entry in found.entries
    ]
    headings = ["REVISION", "EVENT", "VERSION", "PROVIDER", "KEY", "SIZE", "CONTENT", "STATE"]
    print_table(headings, rows, right="r r  rr")
    reasons: dict[tuple[str, str], int] = {}
    for entry in found.entries:
        if entry.outcome is not None and entry.reason:
            why = (entry.reason, server_message(entry.outcome))
            reasons[why] = reasons.get(why, 0) + 1
    print_reasons(reasons)
