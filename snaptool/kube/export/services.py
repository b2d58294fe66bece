"""What of a Service somebody chose, and what the old cluster allocated by chance.

The server fills in addresses and ports after it has computed `managedFields`, so a chosen value appears there and an
allocated one does not. Entries of a subresource do not count: status controllers write those. Before 1.18 there are no
managedFields; then the annotation of `kubectl apply` says what was chosen, and without it nothing was.

Source: docs/formats/kinds.md, "What export changes".
"""

from __future__ import annotations

import json
from typing import Any

from snaptool.kube.export.trees import Edit, Tree, annotations_of, at, entries, mapping, text

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_FIELDS = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort")


def drop_allocated(edit: Edit) -> None:
    """Take out of a Service what nobody chose. Call before managedFields and annotations go."""
    tree = edit.tree
    chosen = _Chosen(tree)
    headless = at(tree, "spec", "clusterIP") == "None"
    for field in _FIELDS:
        if not (headless and field.startswith("clusterIP")) and not chosen.field(field):
            edit.drop("spec", field)
    if at(tree, "spec", "clusterIP") is None:
        edit.drop("spec", "clusterIPs")  # refused alone
    for port in entries(tree, "spec", "ports"):
        if "nodePort" in port and not chosen.node_port(port):
            port.pop("nodePort")
            edit.removed.append(f"spec.ports[{_port_name(port)}].nodePort")


def _port_name(port: Tree) -> str:
    return f"{port.get('port')}/{port.get('protocol') or 'TCP'}"


class _Chosen:
    def __init__(self, tree: Tree) -> None:
        managed = [one for one in entries(tree, "metadata", "managedFields") if not one.get("subresource")]
        self._owned = [mapping(one, "fieldsV1", "f:spec") for one in managed]
        self._applied = {} if self._owned else mapping(_parsed(text(annotations_of(tree), LAST_APPLIED)), "spec")

    def field(self, name: str) -> bool:
        return any(f"f:{name}" in owned for owned in self._owned) or name in self._applied

    def node_port(self, port: Tree) -> bool:
        number, protocol = port.get("port"), port.get("protocol") or "TCP"
        for owned in self._owned:
            for key, fields in mapping(owned, "f:ports").items():
                if key.startswith("k:") and isinstance(fields, dict) and "f:nodePort" in fields:
                    keys = _parsed(key[2:])
                    if (at(keys, "port"), at(keys, "protocol") or "TCP") == (number, protocol):
                        return True
        return any(
            (one.get("port"), one.get("protocol") or "TCP") == (number, protocol) and one.get("nodePort")
            for one in entries(self._applied, "ports")
        )


def _parsed(document: str) -> Any:
    try:
        return json.loads(document)
    except (ValueError, RecursionError):
        return None
