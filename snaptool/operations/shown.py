"""Objects as people see them: opened, decoded, as an API server gives them, with what is to be said about them.

Source: docs/formats/kinds.md, "What an API server adds" and "What does not fit".
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field

from snaptool.errors import FormatError
from snaptool.kube.keys import parse_key
from snaptool.kube.kinds.crds import pruned, pruning_schema, version_names
from snaptool.kube.kinds.reader import Decoded, Plain, decode_object
from snaptool.kube.kinds.served import as_served, without_managed_fields
from snaptool.kube.kinds.table import FIRST_RELEASE, LAST_RELEASE
from snaptool.operations.asked import Asked, Types
from snaptool.operations.listing import listing
from snaptool.operations.object import StoredValue, find_values, value_at
from snaptool.operations.opening import OpenedSnapshot
from snaptool.text import counted, printable


@dataclass(frozen=True, slots=True)
class ShownObject:
    """An object as `get` shows it. `notes`: sentences about what kubectl would show in another way.

    `is_object`: the tree is that of an API object, and not of bytes that are none.
    """

    tree: Plain = field(repr=False)
    notes: tuple[str, ...] = ()
    is_object: bool = True


def show_object(
    value: StoredValue, plaintext: bytes, types: Types | None = None, *, managed_fields: bool = False
) -> ShownObject:
    """Decode an object that was opened. With `types`, also say what an API server would leave out of it.

    What is not an object is shown as it is.
    """
    try:
        decoded = decode_object(plaintext)
    except FormatError as error:
        note = f"{error}; it is shown as it is, and -o value gives its bytes"
        return ShownObject(_as_it_is(value, plaintext), (note,), is_object=False)
    tree = as_served(decoded.shown(), value.revision.main)
    notes = [*_notes(decoded), *(_definition_notes(value, decoded.tree, types) if types is not None else ())]
    return ShownObject(tree if managed_fields else without_managed_fields(tree), tuple(notes))


def _as_it_is(value: StoredValue, plaintext: bytes) -> Plain:
    shown = {"key": printable(value.key), "revision": value.revision.main}
    try:
        return {**shown, "text": plaintext.decode()}
    except UnicodeDecodeError:
        return {**shown, "base64": b64encode(plaintext).decode()}


def _notes(decoded: Decoded) -> Iterator[str]:
    if decoded.undecoded is not None:
        yield "the object inside is in an encoding that snaptool does not read: it is shown as base64"
    elif not decoded.known:
        kind, version = decoded.tree["kind"], decoded.tree["apiVersion"]
        yield f"snaptool does not know the kind {kind} of {version}: its fields are shown by their numbers"
    elif decoded.unknown:
        count = len(decoded.unknown)
        fields = counted(count, "field has", "fields have")
        yield (
            f"{fields} no name in Kubernetes 1.{FIRST_RELEASE} to 1.{LAST_RELEASE}: shown by number, under "
            f"unknownFields; the first is {decoded.unknown[0].place}"
        )


def _definition_notes(value: StoredValue, tree: Plain, types: Types) -> Iterator[str]:
    """Say how a custom resource stands to its definition."""
    key = parse_key(value.key, types.prefixes)
    if key is None or key.group is None or not key.path.startswith(f"{key.group}/") or types.is_built_in(key.path):
        return
    definition = types.definition_of(key.resource, key.group)
    if definition is None:
        yield f"this snapshot has no CustomResourceDefinition of {key.group_resource}: no API server shows it"
        return
    group, _, version = str(tree.get("apiVersion")).partition("/")
    if group != key.group or version not in version_names(definition.tree):
        yield f"its CustomResourceDefinition has no {tree.get('apiVersion')}: every list of {key.group_resource} fails"
        return
    schema = pruning_schema(definition.tree, version)
    paths = [] if schema is None else pruned(tree, schema)[1]
    if paths:
        more = f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""
        yield f"kubectl would not show {paths[0]}{more}: the schema of its CustomResourceDefinition does not have it"


def values_of(
    opened: OpenedSnapshot, asked: Asked, revision: int | None, *, skip_hash_check: bool = False
) -> Iterator[StoredValue]:
    """Find all that was asked for: objects by name in that order, those of a type in the order of their keys.

    Raises NoSuchKey, WrongTrailer, and the FormatErrors of a damaged file.
    """
    if asked.targets:
        yield from find_values(opened, asked.targets, revision, skip_hash_check=skip_hash_check)
    for kind in asked.kinds:
        rows = listing(opened, kind, asked.namespace_of(kind), revision=revision, skip_hash_check=skip_hash_check)
        skip_hash_check = True  # once is enough
        for number, row in enumerate(rows):
            if number % _LET_GO == _LET_GO - 1:
                opened.between_chunks(None)
            yield value_at(row.key, row.revision, rows.stored(row), live=row.live)


_LET_GO = 2000
