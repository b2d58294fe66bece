"""`snaptool list`, `get`, `history` and `diff`: looking into snapshots, with kubectl's habits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snaptool.cli import exits, options
from snaptool.cli.render import (
    Terminal,
    echo,
    print_bytes,
    print_json,
    print_json_members,
    print_object,
    print_sentence,
    print_table,
)
from snaptool.errors import InputError
from snaptool.text import printable

if TYPE_CHECKING:
    from snaptool.operations.browse import History, HistoryEntry, ListedRecord, Listing, StoredValue, Target
    from snaptool.operations.diff import Diff, Difference, DiffValue
    from snaptool.operations.keys import KmsOptions
    from snaptool.operations.opening import OpenedSnapshot
    from snaptool.operations.salvage import CarvedRecord
    from snaptool.providers import Keyring
    from snaptool.providers.kms import AskingKeys

_SHOWN_REASONS = 20
_SHOWN_DIGITS = 8

_namespace_option = click.option("-n", "--namespace", metavar="NS", help="Namespace.  [default: default]")
_words_argument = click.argument("words", metavar="(KEY | TYPE NAME)", nargs=-1, required=True)


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@contextmanager
def _asking(
    configs: Sequence[str], kms: KmsOptions, terminal: Terminal
) -> Iterator[tuple[Keyring | None, Sequence[AskingKeys]]]:
    """Keys for the few values that the block opens. A value that is lost because of a KMS plugin raises its error."""
    from snaptool.operations.browse import ValueLost
    from snaptool.operations.keys import asking_keyring

    with asking_keyring(options.load_configs(configs, terminal), kms) as (keyring, asking):
        try:
            yield keyring if configs else None, asking
        except ValueLost as lost:
            failure = next((failure for keys in asking for failure in keys.failures), None)
            if failure is None:
                raise
            raise failure from lost


def _open(path: Path, prefixes: tuple[str, ...], terminal: Terminal, name: str = "snapshot") -> OpenedSnapshot:
    opened = options.open_snapshot(path, name, prefixes=prefixes)
    for notice in opened.notices:
        terminal.note(notice)
    return opened


# --- list -----------------------------------------------------------------------------------------------------------


@click.command(
    "list",
    epilog=_examples(
        "snaptool list backup.db secrets -n shop",
        "snaptool list backup.db /registry/pods/ -o name",
        "snaptool list backup.db --lost --config old.yaml",
    ),
)
@options.snapshot_argument()
@click.argument("word", metavar="[TYPE | KEY-PREFIX]", required=False)
@click.option("-n", "--namespace", metavar="NS", help="Only this namespace.  [default: all]")
@click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces: the default, for the habit of it.")
@click.option("--all-revisions", is_flag=True, help="Every stored revision and deletion, not only current values.")
@click.option("--lost", is_flag=True, help="Only values that --config does not open, with the reasons.")
@click.option("--carved", is_flag=True, help="What lies in free pages, in a file of any state; takes only -o besides.")
@options.config_option()
@options.hash_option
@options.prefix_option
@options.jobs_option
@options.kms_lost_option
@options.kms_options
@options.output_option("text", "wide", "name", "json")
@options.terminal_options
def list_command(
    snapshot: Path,
    word: str | None,
    namespace: str | None,
    configs: tuple[str, ...],
    prefixes: tuple[str, ...],
    jobs: int,
    kms: KmsOptions,
    output: str,
    terminal: Terminal,
    *,
    all_namespaces: bool,
    all_revisions: bool,
    lost: bool,
    carved: bool,
    skip_hash_check: bool,
) -> int:
    """List keys: namespace, name, revision, and what each value is stored under.

    TYPE is what kubectl takes: secrets, cm, deploy.apps, PLURAL.GROUP for a custom resource; a KEY-PREFIX begins with
    a slash. With --config each value is opened too, to tell whether it is lost or stale; exit code 3 when one is lost.
    """
    from snaptool.operations.browse import listing
    from snaptool.operations.keys import keyring_for_reading

    if carved:
        if word or namespace or configs or lost or all_revisions:
            raise click.UsageError("--carved lists all that lies in free pages, and takes no other choice")
        return _list_carved(snapshot, output, terminal)
    if lost and not configs:
        raise click.UsageError("--lost needs --config: without keys no value opens")
    read_with = options.load_configs(configs, terminal)
    with terminal.progress() as progress, _open(snapshot, prefixes, terminal) as opened:
        keys = keyring_for_reading(opened, read_with, kms, skip_hash_check=skip_hash_check, progress=progress)
        options.note_key_problems(terminal, keys)
        keyring = keys.keyring if configs else None
        rows = listing(
            opened,
            word,
            None if all_namespaces else namespace,
            keyring,
            all_revisions=all_revisions,
            lost=lost,
            skip_hash_check=skip_hash_check,
            jobs=jobs,
            progress=progress,
        )
        progress.close()
        if output == "json":
            print_json_members(_listing_members(rows, snapshot))
        elif output == "name":
            for row in rows:
                echo(_short_name(row))
        else:
            _print_listing(rows, with_keys=keyring is not None, all_revisions=all_revisions, wide=output == "wide")
        if not len(rows):
            terminal.note("no value is lost" if lost and not rows.lost_before else "no keys found")
        if rows.lost_before:
            terminal.note(f"older revisions are lost too: {rows.lost_before:,}; --all-revisions lists them")
        if keys.outage is not None:
            return exits.KEY_SERVICE
        return exits.FINDINGS if rows.lost or rows.lost_before else exits.DONE


def _list_carved(path: Path, output: str, terminal: Terminal) -> int:
    from snaptool.operations.salvage import carve

    with carve(path, options.unpacking()) as found:
        if output == "json":
            print_json_members((("path", path), ("items", (_carved_document(one) for one in found))))
            return exits.DONE
        rows = list(found)
    if output == "name":
        for one in rows:
            echo(printable(one.key))
    elif rows:
        print_table(
            ["KEY", "REVISION", "SIZE", "PROVIDER", "PAGE", "STATE"],
            (
                [
                    printable(one.key),
                    str(one.revision),
                    "deleted" if one.deleted else one.size,
                    "" if one.deleted else one.header.provider,
                    one.page,
                    one.origin.value,
                ]
                for one in rows
            ),
            right=" rr r",
        )
    if not rows:
        terminal.note("no records lie in free pages")
    return exits.DONE


def _carved_document(one: CarvedRecord) -> dict[str, Any]:
    return {
        "key": printable(one.key),
        "revision": one.revision.main,
        "sub": one.revision.sub,
        "deleted": one.deleted,
        "size": one.size,
        "provider": None if one.deleted else one.header.provider,
        "key_name": None if one.deleted else one.header.name,
        "page": one.page,
        "state": one.origin.value,
    }


def _listing_members(rows: Listing, path: Path) -> Iterator[tuple[str, Any]]:
    yield "path", path
    yield "revision", rows.revision
    yield "lost", rows.lost
    yield "lost_older", rows.lost_before
    yield "items", (_listed_document(row) for row in rows)


def _listed_document(row: ListedRecord) -> dict[str, Any]:
    from snaptool.operations.reasons import server_message

    outcome = row.outcome
    return {
        "key": row.key,
        "resource": row.resource,
        "namespace": row.namespace or None,
        "name": row.name,
        "revision": row.revision.main,
        "sub": row.revision.sub,
        "version": row.version,
        "live": row.live,
        "deleted": row.deleted,
        "provider": None if row.deleted else row.header.provider,
        "key_name": None if row.deleted else row.key_name,
        "size": row.size,
        "opens": None if outcome is None else outcome.opened,
        "stale": None if outcome is None else outcome.opened and outcome.stale,
        "reasons": [] if outcome is None else list(outcome.reasons),
        "explanation": row.reason,
        "server_error": "" if outcome is None else server_message(outcome),
    }


def _short_name(row: ListedRecord) -> str:
    """Name an object as `kubectl -o name` does: `secret/smtp`, `deployment.apps/shop`."""
    from snaptool.kube import RESOURCE_TYPES

    kind = next((known for known in RESOURCE_TYPES if known.group_resource == row.resource), None)
    if kind is None or not kind.kind:
        return f"{row.resource}/{row.name}"
    group = f".{kind.group}" if kind.group else ""
    return f"{kind.kind.lower()}{group}/{row.name}"


def _print_listing(rows: Listing, *, with_keys: bool, all_revisions: bool, wide: bool) -> None:
    reasons: dict[tuple[str, str], int] = {}
    # A column for the resource would make most lines too long for a terminal.
    for number, (resource, group) in enumerate(itertools.groupby(rows, lambda row: row.resource)):
        first = next(group)
        headings, right = ["NAME", "REVISION", "PROVIDER", "KEY", "SIZE"], " r  r"
        if first.namespace:
            headings, right = ["NAMESPACE", *headings], " " + right
        if with_keys or all_revisions:
            headings, right = [*headings, "STATE"], right + " "
        if wide:
            headings, right = [*headings, "VERSION", "ETCD KEY"], right + "r"
        if rows.selection.kind is None:
            if number:
                echo()
            echo(resource)
        cells = (
            _listed_cells(row, headings, reasons, only_current=not all_revisions)
            for row in itertools.chain([first], group)
        )
        print_table(headings, cells, right=right)
    _print_reasons(reasons)


def _listed_cells(
    row: ListedRecord, headings: Sequence[str], reasons: dict[tuple[str, str], int], *, only_current: bool
) -> list[object]:
    from snaptool.operations.reasons import server_message

    if row.reason and row.outcome is not None and len(reasons) < _SHOWN_REASONS:
        why = (row.reason, server_message(row.outcome))
        reasons[why] = reasons.get(why, 0) + 1
    cells: dict[str, object] = {
        "NAMESPACE": row.namespace,
        "NAME": row.name,
        "REVISION": str(row.revision),
        "PROVIDER": None if row.deleted else row.header.provider,
        "KEY": row.key_name or None,
        "SIZE": None if row.deleted else row.size,
        "STATE": _state(row, only_current=only_current),
        "VERSION": row.version or None,
        "ETCD KEY": row.key,
    }
    return [cells[heading] for heading in headings]


def _state(row: ListedRecord | HistoryEntry, *, only_current: bool = False) -> str:
    if row.deleted:
        return "deleted"
    words = [] if only_current else ["current" if row.live else "old"]
    if row.outcome is not None and not row.outcome.opened:
        words.append("LOST")
    elif row.outcome is not None and row.outcome.stale:
        words.append("stale")
    return ", ".join(words) or "opens"


def _print_reasons(reasons: dict[tuple[str, str], int]) -> None:
    for (sentence, server), count in reasons.items():
        echo()
        print_sentence(f"{count:,} lost: {sentence}")
        print_sentence(f"    kube-apiserver says: {server}")


# --- get ------------------------------------------------------------------------------------------------------------


@click.command(
    "get",
    epilog=_examples(
        "snaptool get backup.db secret smtp -n shop --config old.yaml",
        "snaptool get backup.db /registry/configmaps/shop/settings --revision 1200",
    ),
)
@options.snapshot_argument()
@_words_argument
@_namespace_option
@click.option("--revision", metavar="N", type=click.IntRange(min=1), help="The value as it was at that revision.")
@options.config_option()
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
    from snaptool.operations.browse import find_value, open_found, parse_target

    target = parse_target(words, namespace)
    with (
        _open(snapshot, prefixes, terminal) as opened,
        _asking(() if output == "stored" else configs, kms, terminal) as (keyring, _),
    ):
        _tell_namespace(target, terminal)
        value = find_value(opened, target, revision, skip_hash_check=skip_hash_check)
        if output == "stored":
            terminal.note(_where(value))
            print_bytes(value.stored)
            return exits.DONE
        found = open_found(opened, value, keyring)
    by = ""
    if found.outcome.position and configs:
        by = f", opened by {found.outcome.kind} {found.outcome.key_name} of {configs[found.outcome.position[0]]}"
    terminal.note(_where(value) + (by if value.stored is not found.plaintext else ", in clear"))
    if found.notice:
        terminal.note(found.notice)
    if output == "value":
        print_bytes(found.plaintext)
    else:
        print_object(_object(value, found.plaintext), output)
    return exits.DONE


def _object(value: StoredValue, plaintext: bytes) -> dict[str, Any]:
    from snaptool.kube import NotAnObject
    from snaptool.kube.kinds import as_served, decode_object, without_managed_fields

    try:
        return without_managed_fields(as_served(decode_object(plaintext).shown(), value.revision.main))
    except NotAnObject as error:
        raise InputError(f"{printable(value.key)}: {error}", hint="-o value shows it as it is") from error


def _where(value: StoredValue) -> str:
    return f"{printable(value.key)} at revision {value.revision}, {'the current' if value.live else 'an old'} value"


def _tell_namespace(target: Target, terminal: Terminal) -> None:
    if target.namespace_assumed:
        terminal.detail(f"looking in namespace {target.namespace}, as kubectl does; -n names another")


# --- history --------------------------------------------------------------------------------------------------------


@click.command(
    "history",
    epilog=_examples(
        "snaptool history backup.db secret smtp -n shop --config old.yaml",
    ),
)
@options.snapshot_argument()
@_words_argument
@_namespace_option
@options.config_option()
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
    from snaptool.operations.browse import history, parse_target

    target = parse_target(words, namespace)
    with _open(snapshot, prefixes, terminal) as opened, _asking(configs, kms, terminal) as (keyring, asking):
        _tell_namespace(target, terminal)
        found = history(opened, target, keyring, skip_hash_check=skip_hash_check)
    failures = [failure for keys in asking for failure in keys.failures]
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
            _state(entry),
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
    _print_reasons(reasons)


# --- diff -----------------------------------------------------------------------------------------------------------


@click.command(
    "diff",
    epilog=_examples(
        "snaptool diff before.db after.db --config-a old.yaml --config-b new.yaml",
    ),
)
@options.snapshot_argument("a", "A", "--entry-a")
@options.snapshot_argument("b", "B", "--entry-b")
@options.config_option("--config-a", "EncryptionConfiguration to read A with; may be repeated, tried in order.")
@options.config_option("--config-b", "EncryptionConfiguration to read B with; may be repeated, tried in order.")
@options.hash_option
@options.prefix_option
@options.jobs_option
@options.kms_options
@options.output_option()
@options.terminal_options
def diff_command(
    a: Path,
    b: Path,
    config_as: tuple[str, ...],
    config_bs: tuple[str, ...],
    prefixes: tuple[str, ...],
    jobs: int,
    kms: KmsOptions,
    output: str,
    terminal: Terminal,
    *,
    skip_hash_check: bool,
) -> int:
    """Compare the current values of two snapshots by their plaintext.

    Exit code 0 when every plaintext is the same, however it is encrypted; 1 when keys were added, removed or changed; 3
    when there is no such key, but values that do not open and so cannot be compared.
    """
    from snaptool.operations.diff import DiffSide, diff
    from snaptool.operations.keys import keyring_for_reading, kms_configs

    if [*config_as, *config_bs].count("-") > 1:
        raise InputError("stdin can be read once only", hint="put the second configuration into a file")
    read_a, read_b = options.load_configs(config_as, terminal), options.load_configs(config_bs, terminal)
    with (
        terminal.progress() as progress,
        _open(a, prefixes, terminal, "a") as opened_a,
        _open(b, prefixes, terminal, "b") as opened_b,
    ):
        if not skip_hash_check and kms_configs([*read_a, *read_b]):
            for opened in (opened_a, opened_b):  # before any key service is asked
                opened.require_right_trailer()
        keys_a = keyring_for_reading(opened_a, read_a, kms, progress=progress)
        keys_b = keyring_for_reading(opened_b, read_b, kms, progress=progress)
        for keys in (keys_a, keys_b):
            options.note_key_problems(terminal, keys)
        found = diff(
            DiffSide(opened_a, keys_a.keyring if config_as else None),
            DiffSide(opened_b, keys_b.keyring if config_bs else None),
            skip_hash_check=skip_hash_check,
            jobs=jobs,
            progress=progress,
        )
        progress.close()
        if output == "json":
            revisions = (opened_a.snapshot.current_revision, opened_b.snapshot.current_revision)
            print_json_members(_diff_members(found, (a, b), revisions))
        else:
            _print_diff(found)
    if keys_a.outage or keys_b.outage:
        return exits.KEY_SERVICE
    if found.differs:
        return exits.FAILED
    return exits.FINDINGS if len(found.undecided) else exits.DONE


def _diff_members(found: Diff, paths: tuple[Path, Path], revisions: tuple[int, int]) -> Iterator[tuple[str, Any]]:
    yield "a", {"path": paths[0], "revision": revisions[0]}
    yield "b", {"path": paths[1], "revision": revisions[1]}
    yield "same", found.same
    for name in ("added", "removed", "changed", "re_encrypted", "undecided"):
        yield name, (_difference_document(one) for one in getattr(found, name))


def _difference_document(one: Difference) -> dict[str, Any]:
    return {
        "key": one.key,
        "resource": one.resource,
        "namespace": one.namespace or None,
        "name": one.name,
        "a": _side_document(one.a),
        "b": _side_document(one.b),
    }


def _side_document(value: DiffValue | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {
        "revision": value.revision.main,
        "provider": value.header.provider,
        "key_name": value.key_name,
        "size": value.size,
        "explanation": value.reason,
    }


def _print_diff(found: Diff) -> None:
    ways = (
        ("added", found.added),
        ("removed", found.removed),
        ("changed", found.changed),
        ("undecided", found.undecided),
    )
    for change, ones in ways:
        for resource, group in itertools.groupby(ones, lambda one: one.resource):
            headings, right = ["NAMESPACE", "NAME", "REVISION", "STORED UNDER"], "  r"
            if change in {"changed", "undecided"}:
                headings, right = ["NAMESPACE", "NAME", "REV A", "REV B", "A UNDER", "B UNDER"], "  rr"
            echo(f"{change} {resource}")
            print_table(headings, (_difference_cells(one) for one in group), right=right)
            echo()
    reasons: dict[tuple[str, str], int] = {}
    for one in found.undecided:
        for side, value in (("A", one.a), ("B", one.b)):
            if value is not None and value.reason and len(reasons) < _SHOWN_REASONS:
                reasons[side, value.reason] = reasons.get((side, value.reason), 0) + 1
    for (side, sentence), count in reasons.items():
        print_sentence(f"{count:,} undecided, not opened in {side}: {sentence}")
    for way in found.recoded():
        origin, target = f"{way.from_header.provider} {way.from_key}", f"{way.to_header.provider} {way.to_key}"
        print_sentence(f"{way.count:,} {way.resource} re-encrypted only: {origin.rstrip()} to {target.rstrip()}")
    counts = ", ".join(f"{len(ones):,} {name}" for name, ones in ways)
    print_sentence(f"{found.same:,} stored alike, {len(found.re_encrypted):,} re-encrypted only, {counts}")


def _difference_cells(one: Difference) -> list[object]:
    values = [value for value in (one.a, one.b) if value is not None]
    return [
        one.namespace or None,
        one.name,
        *(str(value.revision) for value in values),
        *(_under(value) for value in values),
    ]


def _under(value: DiffValue) -> str:
    return f"{value.header.provider} {value.key_name}".rstrip()
