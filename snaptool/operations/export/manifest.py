"""One object becomes one manifest: the rules of `kube.export` in their order, and what has to be said about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from snaptool.kube.export import (
    CRD,
    SECRET,
    Below,
    Edit,
    Look,
    Tree,
    clean,
    duplicates,
    entries,
    look_into_schema,
    named_by,
    prepare,
    promote,
    prune,
    redact,
    settle_custom_resource,
    text,
)
from snaptool.kube.kinds.table import fields_of, list_keys, message_of
from snaptool.operations.export.choosing import Chosen
from snaptool.operations.export.request import ExportRequest, Secrets
from snaptool.operations.export.rows import Seen


@dataclass(slots=True)
class Manifest:
    """A document fit to be applied. `create`: only `kubectl create` takes it. `pruned`: paths the server hides too.

    `notes`: what to know about it, each with the words that it shares with others like it.
    """

    tree: Tree = field(repr=False)
    removed: list[str]
    notes: list[tuple[str, str]]
    pruned: list[str]
    create: bool


def make_manifest(seen: Seen, chosen: Chosen, request: ExportRequest) -> Manifest:
    """Make the manifest of one object; its tree is changed."""
    tree, kind = seen.tree, seen.kind
    if request.raw:
        if kind == SECRET and request.secrets is Secrets.REDACT:
            redact(tree)
        return Manifest(tree, [], [], [], create=False)
    edit, notes, pruned = Edit(tree), list(_owners(seen, chosen)), []
    definition = None if kind.built_in else chosen.definition_of(seen.row)
    if kind == CRD:
        notes += _alike(prepare(edit))
    if definition is not None:
        notes += _alike(settle_custom_resource(edit, definition))
    if seen.older:
        notes.append((f"its current value is lost: this is revision {seen.older}", "older revisions of lost values"))
    where = seen.row.namespace
    if text(tree, "metadata", "name") != seen.row.key.name or text(tree, "metadata", "namespace") != where:
        notes += _alike(["its name or namespace is not that of its etcd key"])
    notes += _alike(clean(edit, kind, where, chosen.facts, request.cleaning))
    if definition is not None:
        pruned = prune(tree, definition)
    if not request.keep_api_versions:
        notes += _alike(promote(tree, kind))
    for path, namespace, name in dict.fromkeys(named_by(kind, where, tree)):
        reason = chosen.left_names.get((path, namespace, name))
        if reason is not None:
            said = f"{namespace}/{name}" if namespace else name
            notes += _alike([f"it names {said} of {path}, which is left out ({reason})"])
    if where and not request.includes(where):
        notes += _alike([f"it is in namespace {where}, which is not exported and has to be there"])
    look: Look = _in_table
    node: Any = message_of(str(tree.get("apiVersion")), kind.kind)
    if definition is not None:
        version = definition.versions.get(str(tree.get("apiVersion")).rpartition("/")[2])
        look, node = look_into_schema, version and version.schema
    twice = list(duplicates(tree, node, look)) if node is not None else []
    if twice:
        notes += _alike([f"server-side apply refuses it: {'; '.join(twice)}"])
    return Manifest(tree, edit.removed, notes, pruned, create=bool(twice))


def _alike(notes: Iterator[str] | list[str]) -> Iterator[tuple[str, str]]:
    return ((note, note) for note in notes)


def _owners(seen: Seen, chosen: Chosen) -> Iterator[tuple[str, str]]:
    for owner in entries(seen.tree, "metadata", "ownerReferences"):
        kind = text(owner, "kind")
        name = object_name_of_owner(owner, seen.row.namespace)
        if chosen.comes_back(text(owner, "uid")) and kind == "SealedSecret":
            why = f", and that {kind} is exported too: its controller refuses a Secret that it does not own"
        elif chosen.comes_back(text(owner, "uid")):
            why = f", and that {kind} is exported too: its controller may make another one, or refuse this one"
        else:
            why = ""
        yield f"owner {kind} {name} dropped{why}", f"owner {kind} dropped{why}"


def object_name_of_owner(owner: Tree, namespace: str) -> str:
    """Name an owner: it is in the namespace of what it owns, or in none."""
    cluster_scoped = text(owner, "kind") in {"Node", "Namespace", "PersistentVolume", "CustomResourceDefinition"}
    return text(owner, "name") if cluster_scoped or not namespace else f"{namespace}/{text(owner, 'name')}"


# -- lists that are maps, from the table of kinds ---------------------------------------------------------------------


def _in_table(node: Any, name: str) -> Below | None:
    return _fields(node).get(name)


@lru_cache(maxsize=2048)
def _fields(message: str) -> dict[str, Below]:
    """Return what is below each field of a message, those of inlined messages with them."""
    found: dict[str, Below] = {}
    if not message:
        return found
    keys = list_keys(message)
    for one in fields_of(message):
        inside = one.type if "/" in one.type else None
        if one.presence == "~":
            found |= _fields(one.type)
        elif one.prefix in {"", "*"} and (inside is not None or one.number in keys):
            found[one.name] = Below(inside or "", keys.get(one.number))
    return found
