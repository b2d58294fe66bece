"""What `list`, `get`, `history` and `diff` share: opening, keys for a few values, words of a record's state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snaptool.cli import options
from snaptool.cli.render import Terminal, echo, print_sentence

if TYPE_CHECKING:
    from snaptool.kube.keys import ResourceType
    from snaptool.operations.kms_options import KmsOptions
    from snaptool.operations.listing import ListedRecord
    from snaptool.operations.object import HistoryEntry, Target
    from snaptool.operations.opening import OpenedSnapshot
    from snaptool.providers.config.model import EncryptionConfig
    from snaptool.providers.keyring import Keyring
    from snaptool.providers.kms import AskingKeys

SHOWN_REASONS = 20

namespace_option = click.option("-n", "--namespace", metavar="NS", help="Namespace.  [default: default]")


def examples(*lines: str) -> str:
    """Return the epilog of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@contextmanager
def asking(
    read_with: Sequence[EncryptionConfig], kms: KmsOptions
) -> Iterator[tuple[Keyring | None, Sequence[AskingKeys]]]:
    """Keys for the few values that the block opens. A value that is lost because of a KMS plugin raises its error."""
    from snaptool.operations.keys import asking_keyring
    from snaptool.operations.object import ValueLost

    with asking_keyring(tuple(read_with), kms) as (keyring, asking):
        try:
            yield keyring if read_with else None, asking
        except ValueLost as lost:
            failure = next((failure for keys in asking for failure in keys.failures), None)
            if failure is None:
                raise
            raise failure from lost


def open_for_reading(
    path: Path, prefixes: tuple[str, ...], terminal: Terminal, name: str = "snapshot"
) -> OpenedSnapshot:
    """Open a snapshot, and say what is to be known about how it was found."""
    opened = options.open_snapshot(path, name, prefixes=prefixes, kine=True)
    for notice in opened.notices:
        terminal.note(notice)
    return opened


def state(row: ListedRecord | HistoryEntry, *, only_current: bool = False) -> str:
    """Say in a word or two what a record is."""
    if row.deleted:
        return "deleted"
    words = [] if only_current else ["current" if row.live else "old"]
    if row.outcome is not None and row.outcome.fault is not None:
        words.append("UNDECODABLE")
    elif row.outcome is not None and not row.outcome.opened:
        words.append("LOST")
    elif row.outcome is not None and row.outcome.stale:
        words.append("stale")
    return ", ".join(words) or "opens"


def print_reasons(reasons: dict[tuple[str, str], int]) -> None:
    """Say why values are lost: our sentence and the API server's, with how many each is about."""
    from snaptool.operations.reasons import of_each

    for (sentence, server), count in reasons.items():
        echo()
        print_sentence(f"{count:,} {'lost' if server else 'undecodable'}: {of_each(sentence, count)}")
        if server:
            print_sentence(f"    kube-apiserver says: {server}")


def tell_namespace(target: Target, terminal: Terminal) -> None:
    """Say where an object is looked for when nobody said it."""
    if target.namespace_assumed:
        terminal.detail(f"looking in namespace {target.namespace}, as kubectl does; -n names another")


def short_name(resource: str, name: str) -> str:
    """Name an object as `kubectl -o name` does: `secret/smtp`, `deployment.apps/shop`."""
    from snaptool.kube.keys import RESOURCE_TYPES

    kind = next((known for known in RESOURCE_TYPES if known.group_resource == resource), None)
    if kind is None or not kind.kind:
        return f"{resource}/{name}"
    group = f".{kind.group}" if kind.group else ""
    return f"{kind.kind.lower()}{group}/{name}"


def absent_note(
    opened: OpenedSnapshot, kind: ResourceType | None, namespace: str | None, keyring: Keyring | None
) -> str:
    """Say that nothing of a type is there, and where there is something."""
    from snaptool.operations.absent import absence_of

    what = "keys" if kind is None else kind.group_resource
    if namespace is None:
        return f"no {what} in this snapshot"
    absence = absence_of(opened, kind, namespace, keyring)
    sentence = f"no {what} in namespace {namespace}"
    if absence.whole_at:
        return f"{sentence}, which was there, whole, until revision {absence.whole_at}: --revision {absence.whole_at}"
    if absence.elsewhere:
        names = ", ".join(absence.elsewhere[:_NAMED_PLACES])
        more = ", ..." if len(absence.elsewhere) > _NAMED_PLACES else ""
        return f"{sentence}; there are some in the namespaces {names}{more}: name one with -n, or all with -A"
    return f"{sentence}, nor in another one"


_NAMED_PLACES = 5
