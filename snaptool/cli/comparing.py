"""One object in two states, as a unified diff of its YAML: `diff A B TYPE NAME` and `history --diff`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snaptool.cli import exits
from snaptool.cli.render import print_json, print_lines, yaml_lines
from snaptool.text import printable

if TYPE_CHECKING:
    from snaptool import documents
    from snaptool.operations.object import Target
    from snaptool.operations.opening import OpenedSnapshot
    from snaptool.providers.keyring import Keyring

_CONTEXT_LINES = 3


@dataclass(frozen=True)
class Side:
    """Where one state of the object is: a snapshot, and the revision, None for the newest."""

    path: Path
    opened: OpenedSnapshot
    keyring: Keyring | None
    revision: int | None = None


def print_object_diff(
    target: Target, sides: Sequence[Side], output: str, *, managed_fields: bool, skip_hash_check: bool
) -> int:
    """Print how an object differs; return the exit code: 0 when it does not.

    Where one side does not have it, all of it was added or removed. Raises NoSuchKey when neither has it, ValueLost.
    """
    from difflib import unified_diff

    from snaptool.operations.object import NoSuchKey, find_value, open_found
    from snaptool.operations.shown import show_object

    found: list[tuple[dict[str, Any] | None, str, int | None]] = []
    missing: list[NoSuchKey] = []
    for side in sides:
        try:
            value = find_value(
                side.opened, target, side.revision, keyring=side.keyring, skip_hash_check=skip_hash_check
            )
        except NoSuchKey as error:
            missing.append(error)
            found.append((None, target.said, None))
            continue
        opened = open_found(side.opened, value, side.keyring)
        shown = show_object(value, opened.plaintext, managed_fields=managed_fields)
        found.append((shown.tree, printable(value.key), value.revision.main))
    if len(missing) == len(sides):
        raise missing[0]
    names = [
        "/dev/null" if tree is None else f"{printable(side.path)} {key} at revision {revision}"
        for side, (tree, key, revision) in zip(sides, found, strict=True)
    ]
    before, after = (yaml_lines(tree) for tree, _, _ in found)
    lines = list(unified_diff(before, after, names[0], names[1], n=_CONTEXT_LINES, lineterm=""))
    if output == "json":
        stated: list[documents.ComparedSide] = [
            {"path": side.path, "key": None if revision is None else key, "revision": revision}
            for side, (_, key, revision) in zip(sides, found, strict=True)
        ]
        compared: documents.Compared = {"a": stated[0], "b": stated[1], "same": not lines, "diff": lines}
        print_json(compared)
    else:
        print_lines(lines)
    return exits.FAILED if lines else exits.DONE
