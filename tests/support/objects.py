"""Snapshots made of plain objects, for tests of what is done with objects and not with bytes.

Values are JSON, as an API server writes them with `--storage-media-type=application/json`; keys are those of the API
server. Revisions count from 2, one for each change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snaptool.etcd import Revision, encode_revision_key
from snaptool.kube.keys import RESOURCE_TYPES
from tests.support.stored import records_of, write_records

Tree = dict[str, Any]
Change = Tree | tuple[bytes, bytes | None]
"""An object to write, or a key and what is stored there, None to delete it."""


def thing(api_version: str, kind: str, name: str, namespace: str = "shop", **fields: Any) -> Tree:
    """An object. `namespace` is empty for a cluster-scoped one; `metadata` among the fields is added to its own."""
    metadata = {"name": name, "uid": f"uid-of-{kind}-{namespace}-{name}", "creationTimestamp": "2026-01-01T00:00:00Z"}
    metadata |= {"namespace": namespace} if namespace else {}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata | fields.pop("metadata", {}), **fields}


def namespace(name: str = "shop", **metadata: Any) -> Tree:
    """A Namespace."""
    return thing("v1", "Namespace", name, "", metadata=metadata, spec={"finalizers": ["kubernetes"]})


def crd(plural: str = "widgets", kind: str = "Widget", group: str = "example.com", **spec: Any) -> Tree:
    """A CustomResourceDefinition as it is stored, with a schema that keeps everything below `spec`."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    versions = [{"name": "v1", "served": True, "storage": True}]
    whole = {
        "group": group,
        "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
        "scope": "Namespaced",
        "version": "v1",
        "versions": versions,
        "preserveUnknownFields": False,
        "validation": {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}},
    } | spec
    name = f"{plural}.{group}"
    return thing("apiextensions.k8s.io/v1beta1", "CustomResourceDefinition", name, "", spec=whole)


def owned_by(owner: Tree, *, controller: bool = True) -> Tree:
    """Metadata that names an owner."""
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"]}
    return {"ownerReferences": [reference | {"uid": owner["metadata"]["uid"], "controller": controller}]}


def key_of(tree: Mapping[str, Any], prefix: str = "/registry") -> bytes:
    """The key under which the API server stores an object."""
    metadata = tree["metadata"]
    group, _, _ = tree["apiVersion"].rpartition("/")
    known = next((one for one in RESOURCE_TYPES if one.kind == tree["kind"] and _is_of(one, group)), None)
    path = known.path if known is not None else f"{group}/{tree['kind'].lower()}s"
    return "/".join(filter(None, [prefix, path, metadata.get("namespace"), metadata["name"]])).encode()


def _is_of(known: Any, group: str) -> bool:
    return group in (known.group, *known.former_groups)


def gone(tree: Mapping[str, Any]) -> Change:
    """The deletion of an object."""
    return key_of(tree), None


def write_objects(path: Path, *changes: Change, prefix: str = "/registry", compacted: int = 0) -> Path:
    """Write a snapshot of these changes, compacted at a revision."""
    every = [one if isinstance(one, tuple) else (key_of(one, prefix), json.dumps(one).encode()) for one in changes]
    last_before = {key: main for main, (key, _) in enumerate(every, start=2) if main <= compacted}
    records = [
        stored
        for main, stored in enumerate(records_of(every), start=2)
        if main > compacted or (last_before[every[main - 2][0]] == main and every[main - 2][1])
    ]
    mark = (b"finishedCompactRev", encode_revision_key(Revision(compacted, 0)))
    return write_records(path, records, {b"meta": [mark] if compacted else []})
