"""`snaptool diff`: what differs between two snapshots, by plaintext."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snaptool.cli import exits, options
from snaptool.cli.command import Command
from snaptool.cli.comparing import Side, print_object_diff
from snaptool.cli.embedded import Embedding, embedded_options
from snaptool.cli.looking import SHOWN_REASONS, asking, examples, namespace_option, open_for_reading, tell_namespace
from snaptool.cli.render import Terminal, echo, print_json_members, print_sentence, print_table

if TYPE_CHECKING:
    from snaptool import documents
    from snaptool.operations.diff import Diff, Difference, DiffValue
    from snaptool.operations.kms_options import KmsOptions
    from snaptool.operations.object import Target
    from snaptool.operations.opening import OpenedSnapshot


@click.command(
    "diff",
    cls=Command,
    epilog=examples(
        "snaptool diff before.db after.db --config-a old.yaml --config-b new.yaml",
        "snaptool diff monday.db friday.db --config enc.yaml",
        "snaptool diff before.db after.db deploy web -n shop",
    ),
)
@options.snapshot_argument("a", "A", "--entry-a")
@options.snapshot_argument("b", "B", "--entry-b")
@click.argument("words", metavar="[KEY | TYPE NAME]", nargs=-1)
@namespace_option
@click.option("--show-managed-fields", is_flag=True, help="Compare metadata.managedFields of the object too.")
@options.config_option(help_text="EncryptionConfiguration to read both with; may be repeated, tried in order.")
@options.config_option("--config-a", "EncryptionConfiguration to read A with; may be repeated, tried in order.")
@options.config_option("--config-b", "EncryptionConfiguration to read B with; may be repeated, tried in order.")
@embedded_options
@options.hash_option
@options.prefix_option
@options.jobs_option
@options.kms_options
@options.page_option
@options.output_option()
@options.terminal_options
def diff_command(
    a: Path,
    b: Path,
    words: tuple[str, ...],
    namespace: str | None,
    configs: tuple[str, ...],
    config_as: tuple[str, ...],
    config_bs: tuple[str, ...],
    embedding: Embedding,
    prefixes: tuple[str, ...],
    jobs: int,
    kms: KmsOptions,
    output: str,
    page: options.Page | None,
    terminal: Terminal,
    *,
    show_managed_fields: bool,
    skip_hash_check: bool,
) -> int:
    """Compare the current values of two snapshots by their plaintext, or one object of both as YAML.

    Exit code 0 when every plaintext is the same, however it is encrypted; 1 when keys were added, removed or changed; 3
    when there is no such key, but values that do not open and so cannot be compared.
    """
    from snaptool.operations.diff import DiffSide, diff
    from snaptool.operations.keys import keyring_for_reading
    from snaptool.operations.kms_options import kms_configs
    from snaptool.operations.kms_services import require_direct

    options.refuse_stdin_twice([*configs, *config_as, *config_bs])
    if not words and (namespace is not None or show_managed_fields):
        raise click.UsageError("-n and --show-managed-fields are for one object: name it")
    if words and page is not None:
        raise click.UsageError("--html is for whole snapshots: it shows no plaintext")
    both = options.load_configs(configs, terminal)
    loaded_a = (*options.load_configs(config_as, terminal), *both)
    loaded_b = (*options.load_configs(config_bs, terminal), *both)
    with (
        terminal.progress() as progress,
        open_for_reading(a, prefixes, terminal, "a") as opened_a,
        open_for_reading(b, prefixes, terminal, "b") as opened_b,
    ):
        read_a = embedding.read_with(opened_a, loaded_a, terminal)
        read_b = embedding.read_with(opened_b, loaded_b, terminal)
        require_direct(kms, kms_configs([*read_a, *read_b]))
        kms_a, kms_b = kms.about(read_a), kms.about(read_b)
        if words:
            with asking(read_a, kms_a) as (keyring_a, _), asking(read_b, kms_b) as (keyring_b, _):
                sides = (Side(a, opened_a, keyring_a), Side(b, opened_b, keyring_b))
                target = _target(words, namespace, sides)
                tell_namespace(target, terminal)
                return print_object_diff(
                    target, sides, output, managed_fields=show_managed_fields, skip_hash_check=skip_hash_check
                )
        if not skip_hash_check and kms_configs([*read_a, *read_b]):
            for opened in (opened_a, opened_b):  # before any key service is asked
                opened.require_right_trailer()
        keys_a = keyring_for_reading(opened_a, read_a, kms_a, progress=progress)
        keys_b = keyring_for_reading(opened_b, read_b, kms_b, progress=progress)
        for keys in (keys_a, keys_b):
            options.note_key_problems(terminal, keys)
        found = diff(
            DiffSide(opened_a, keys_a.keyring if read_a else None),
            DiffSide(opened_b, keys_b.keyring if read_b else None),
            skip_hash_check=skip_hash_check,
            jobs=jobs,
            progress=progress,
        )
        progress.close()
        if page is not None:
            from snaptool.pages import diff_page

            page.write(diff_page(_page_document(found, {"a": (a, opened_a), "b": (b, opened_b)})))
        if output == "json":
            print_json_members(_diff_members(found, {"a": (a, opened_a), "b": (b, opened_b)}))
        else:
            _print_diff(found)
    if keys_a.outage or keys_b.outage:
        return exits.KEY_SERVICE
    if found.differs:
        return exits.FAILED
    return exits.FINDINGS if len(found.undecided) else exits.DONE


def _target(words: tuple[str, ...], namespace: str | None, sides: tuple[Side, Side]) -> Target:
    """Find what was named, by the definitions of the first snapshot, or where those do not tell, of the second."""
    from snaptool.kube.keys import UnknownType
    from snaptool.operations.asked import Types
    from snaptool.operations.object import parse_target

    first, second = (Types(side.opened, side.keyring) for side in sides)
    try:
        return parse_target(words, namespace, first.resolve)
    except UnknownType:
        return parse_target(words, namespace, second.resolve)


def _diff_members(found: Diff, sides: dict[str, tuple[Path, OpenedSnapshot]]) -> Iterator[tuple[str, Any]]:
    from snaptool.kube.prefixes import prefix_text

    for side, (path, opened) in sides.items():
        prefixes = [prefix_text(prefix) for prefix in opened.prefix_facts.taken]
        yield side, {"path": path, "revision": opened.snapshot.current_revision, "prefixes": prefixes}
    yield "same", found.same
    for name in ("added", "removed", "changed", "re_encrypted", "undecided"):
        yield name, (_difference_document(one) for one in getattr(found, name))


def _page_document(found: Diff, sides: dict[str, tuple[Path, OpenedSnapshot]]) -> dict[str, Any]:
    """Make one document of the members, with texts for bytes and paths."""
    members: dict[str, Any] = {
        name: list(value) if isinstance(value, Iterator) else value for name, value in _diff_members(found, sides)
    }
    for side in sides:
        members[side]["path"] = str(members[side]["path"])
    return members


def _difference_document(one: Difference) -> documents.Different:
    return {
        "key": one.key,
        "resource": one.resource,
        "namespace": one.namespace or None,
        "name": one.name,
        "a": _side_document(one.a),
        "b": _side_document(one.b),
    }


def _side_document(value: DiffValue | None) -> documents.DifferentSide | None:
    if value is None:
        return None
    return {
        "revision": value.revision.main,
        "provider": value.header.provider,
        "key_name": value.key_name,
        "size": value.size,
        "explanation": value.reason,
        "undecodable": value.fault,
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
    from snaptool.operations.reasons import of_each

    reasons: dict[tuple[str, str], int] = {}
    for one in found.undecided:
        for side, value in (("A", one.a), ("B", one.b)):
            if value is not None and value.reason and len(reasons) < SHOWN_REASONS:
                reasons[side, value.reason] = reasons.get((side, value.reason), 0) + 1
    for (side, sentence), count in reasons.items():
        print_sentence(f"{count:,} undecided, not opened in {side}: {of_each(sentence, count)}")
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
    under = f"{value.header.provider} {value.key_name or ''}".rstrip()
    return f"{under}, UNDECODABLE" if value.fault is not None else under
