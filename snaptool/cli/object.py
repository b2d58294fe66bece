"""`snaptool get` and `history`: one object, and what happened to it."""

from __future__ import annotations

from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snaptool.cli import exits, options
from snaptool.cli.embedded import Embedding, embedded_options
from snaptool.cli.looking import asking, examples, namespace_option, open_for_reading, print_reasons, state
from snaptool.cli.render import Terminal, echo, print_bytes, print_json, print_object, print_table
from snaptool.errors import FormatError
from snaptool.text import printable

if TYPE_CHECKING:
    from snaptool.operations.keys import KmsOptions
    from snaptool.operations.object import History, StoredValue, Target

_SHOWN_DIGITS = 8

_words_argument = click.argument("words", metavar="(KEY | TYPE NAME)", nargs=-1, required=True)


# --- get ------------------------------------------------------------------------------------------------------------


@click.command(
    "get",
    epilog=examples(
        "snaptool get backup.db secret smtp -n shop --config old.yaml",
        "snaptool get backup.db /registry/configmaps/shop/settings --revision 1200",
    ),
)
@options.snapshot_argument()
@_words_argument
@namespace_option
@click.option("--revision", metavar="N", type=click.IntRange(min=1), help="The value as it was at that revision.")
@options.config_option()
@embedded_options
@options.hash_option
@options.prefix_option
@options.kms_options
@options.output_option("yaml", "json", "value", "stored", default="yaml")
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
    output: str,
    terminal: Terminal,
    *,
    skip_hash_check: bool,
) -> int:
    """Show one object, decrypted.

    As with kubectl, a TYPE that has namespaces is looked for in `default` unless -n names another. `-o value` gives the
    plaintext as kube-apiserver stored it, mostly protobuf; `-o stored` what is in etcd, with the encryption around it.
    """
    from snaptool.operations.object import find_value, open_found, parse_target

    target = parse_target(words, namespace)
    loaded = () if output == "stored" else options.load_configs(configs, terminal)
    with ExitStack() as stack:
        opened = stack.enter_context(open_for_reading(snapshot, prefixes, terminal))
        read_with = () if output == "stored" else embedding.read_with(opened, loaded, terminal)
        keyring, _ = stack.enter_context(asking(read_with, kms))
        _tell_namespace(target, terminal)
        value = find_value(opened, target, revision, keyring=keyring, skip_hash_check=skip_hash_check)
        if output == "stored":
            terminal.note(_where(value))
            print_bytes(value.stored)
            return exits.DONE
        found = open_found(opened, value, keyring)
    by = ""
    if found.outcome.key_name and read_with:
        name = read_with[found.outcome.position[0]].name
        by = f", opened by {found.outcome.kind} {found.outcome.key_name} of {name}"
    if found.fault is not None:
        terminal.note("no API server can decode this value: lists of its resource fail while it is the current one")
    terminal.note(_where(value) + (by if value.stored is not found.plaintext else ", in clear"))
    if found.notice:
        terminal.note(found.notice)
    if output == "value":
        print_bytes(found.plaintext)
    else:
        try:
            shown = _object(value, found.plaintext)
        except FormatError as error:
            terminal.note(f"{error}; it is shown as it is, and -o value gives its bytes")
            shown = _as_it_is(value, found.plaintext)
        print_object(shown, output)
    return exits.DONE if found.fault is None else exits.FINDINGS


def _as_it_is(value: StoredValue, plaintext: bytes) -> dict[str, Any]:
    """Show a value that is no API object: as text where it is one."""
    shown = {"key": printable(value.key), "revision": value.revision.main}
    try:
        return {**shown, "text": plaintext.decode()}
    except UnicodeDecodeError:
        return {**shown, "base64": b64encode(plaintext).decode()}


def _object(value: StoredValue, plaintext: bytes) -> dict[str, Any]:
    from snaptool.kube.kinds import as_served, decode_object, without_managed_fields

    return without_managed_fields(as_served(decode_object(plaintext).shown(), value.revision.main))


def _where(value: StoredValue) -> str:
    return f"{printable(value.key)} at revision {value.revision}, {'the current' if value.live else 'an old'} value"


def _tell_namespace(target: Target, terminal: Terminal) -> None:
    if target.namespace_assumed:
        terminal.detail(f"looking in namespace {target.namespace}, as kubectl does; -n names another")


# --- history --------------------------------------------------------------------------------------------------------


@click.command(
    "history",
    epilog=examples(
        "snaptool history backup.db secret smtp -n shop --config old.yaml",
    ),
)
@options.snapshot_argument()
@_words_argument
@namespace_option
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
    configs: tuple[str, ...],
    embedding: Embedding,
    prefixes: tuple[str, ...],
    kms: KmsOptions,
    output: str,
    terminal: Terminal,
    *,
    skip_hash_check: bool,
) -> int:
    """Show every stored revision of a key: what happened, and under which key its value is stored.

    CONTENT is a digest of the plaintext: equal ones are equal contents, whatever they were encrypted with. Encrypted
    values need --config for it. Exit code 3 when a value is lost.
    """
    from snaptool.operations.object import history, parse_target

    target = parse_target(words, namespace)
    loaded = options.load_configs(configs, terminal)
    with ExitStack() as stack:
        opened = stack.enter_context(open_for_reading(snapshot, prefixes, terminal))
        keyring, sources = stack.enter_context(asking(embedding.read_with(opened, loaded, terminal), kms))
        _tell_namespace(target, terminal)
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
    return exits.FINDINGS if found.lost else exits.DONE


def _history_document(found: History) -> dict[str, Any]:
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
                "opens": None if entry.outcome is None else entry.outcome.opened,
                "stale": None if entry.outcome is None else entry.outcome.opened and entry.outcome.stale,
                "reasons": [] if entry.outcome is None else list(entry.outcome.reasons),
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
    rows = [
        [
            str(entry.revision),
            "delete" if entry.deleted else "put",
            entry.version or None,
            None if entry.header is None else entry.header.provider,
            entry.key_name or None,
            None if entry.deleted else entry.size,
            None if entry.digest is None else entry.digest.hex()[:_SHOWN_DIGITS],
            state(entry),
        ]
        for entry in found.entries
    ]
    headings = ["REVISION", "EVENT", "VERSION", "PROVIDER", "KEY", "SIZE", "CONTENT", "STATE"]
    print_table(headings, rows, right="r r  r")
    reasons: dict[tuple[str, str], int] = {}
    for entry in found.entries:
        if entry.outcome is not None and entry.reason:
            why = (entry.reason, server_message(entry.outcome))
            reasons[why] = reasons.get(why, 0) + 1
    print_reasons(reasons)
