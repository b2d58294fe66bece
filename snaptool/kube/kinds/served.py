"""What an API server gives for a stored object, as far as it can be known from the object alone.

Between the store and kubectl stand the server's conversions: some things are set when an object is read and are never
stored. `as_served` adds those; CustomResourceDefinitions, which are stored as v1beta1 in every release, become v1.
Defaults that a newer server has for fields that did not exist are not added: what the writer stored is shown.

Source: docs/formats/kinds.md, "What an API server adds"; kubernetes 1.37 pkg/apis/apps/v1/conversion.go,
pkg/apis/core/v1/defaults.go, pkg/apis/batch/v1/defaults.go.
"""

from __future__ import annotations

from typing import Any

from snaptool.kube.kinds.crds import crd_to_v1, is_stored_crd, mapping

Plain = dict[str, Any]


def as_served(tree: Plain, revision: int | None = None) -> Plain:
    """Return an object as kubectl gets it. `revision`: of its record in etcd, the resourceVersion; None leaves it out.

    The trees share what does not differ. Odd trees come back as far as they fit: nothing raises.
    """
    api_version, kind = tree.get("apiVersion"), tree.get("kind")
    if is_stored_crd(tree):
        tree = crd_to_v1(tree)
    elif kind == "StatefulSet" and isinstance(api_version, str) and api_version.startswith("apps/"):
        tree = _with_claim_types(tree)
    elif kind == "PersistentVolumeClaim" and api_version == "v1":
        tree = _with_phase(tree)
    elif kind == "Job" and api_version == "batch/v1":
        tree = _with_job_labels(tree)
    if revision is None:
        return tree
    return tree | {"metadata": mapping(tree.get("metadata")) | {"resourceVersion": str(revision)}}


def without_managed_fields(tree: Plain) -> Plain:
    """Return an object as kubectl shows it unless --show-managed-fields is given."""
    metadata = tree.get("metadata")
    if not isinstance(metadata, dict) or "managedFields" not in metadata:
        return tree
    return tree | {"metadata": {name: value for name, value in metadata.items() if name != "managedFields"}}


def _with_claim_types(tree: Plain) -> Plain:
    spec = tree.get("spec")
    templates = spec.get("volumeClaimTemplates") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(templates, list):
        return tree
    typed = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    claims = [claim | typed if isinstance(claim, dict) else claim for claim in templates]
    return tree | {"spec": spec | {"volumeClaimTemplates": claims}}


def _with_phase(tree: Plain) -> Plain:
    status = mapping(tree.get("status"))
    return tree if status.get("phase") else tree | {"status": status | {"phase": "Pending"}}


def _with_job_labels(tree: Plain) -> Plain:
    metadata = mapping(tree.get("metadata"))
    template = mapping(mapping(tree.get("spec")).get("template"))
    labels = mapping(template.get("metadata")).get("labels")
    if metadata.get("labels") or not labels:
        return tree
    return tree | {"metadata": metadata | {"labels": labels}}
