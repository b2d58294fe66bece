"""What is left out of an export, and why: objects that the new cluster makes by itself, or that would do harm there.

Source: docs/formats/kinds.md, "What export leaves out". Facts about other objects (has the Service of these Endpoints a
selector, does that ServiceAccount list this token) are collected before, in `Facts`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from snaptool.kube.export.order import Kind
from snaptool.kube.export.trees import (
    Tree,
    annotations_of,
    at,
    controller_of,
    entries,
    labels_of,
    mapping,
    name_of,
    text,
)


class Leave(StrEnum):
    """Why an object is not among the manifests. These words stand in reports."""

    GENERATED = "generated"
    OWNED = "owned"
    ENDED = "ended"
    TERMINATING = "terminating"
    TOKEN = "token"  # noqa: S105 - a word of the report
    PUBLISHED = "published"
    SNAPSHOT_BINDING = "snapshot_binding"
    UNKNOWN_KIND = "unknown_kind"
    LEADER = "leader"
    MIRROR = "mirror"
    DEFAULT = "default"
    REDACTED = "redacted"
    SKIPPED = "skipped"
    UNDECODABLE = "undecodable"


@dataclass(slots=True)
class Account:
    """What a ServiceAccount says about its tokens."""

    uid: str
    secrets: frozenset[str]


@dataclass(slots=True)
class Facts:
    """What deciding about one object needs to know about others. Names are (namespace, name).

    `terminating`: namespaces that are being deleted, and since when. `services`: whether each has a selector.
    `secrets_seen`: Secrets are among what was looked at, so that `tokens` names those that are left out.
    """

    terminating: dict[str, str] = field(default_factory=dict)
    services: dict[tuple[str, str], bool] = field(default_factory=dict)
    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)
    docker_tokens: set[tuple[str, str]] = field(default_factory=set)
    secrets_seen: bool = False
    tokens: set[tuple[str, str]] = field(default_factory=set)

    def learn(self, kind: Kind, namespace: str, tree: Tree) -> None:
        """Take in one object."""
        name = name_of(tree)
        if kind.group:
            return
        if kind.kind == "Namespace":
            since = text(tree, "metadata", "deletionTimestamp")
            if since:
                self.terminating[name] = since
        elif kind.kind == "Service":
            self.services[namespace, name] = bool(mapping(tree, "spec", "selector"))
        elif kind.kind == "ServiceAccount":
            listed = frozenset(text(one, "name") for one in entries(tree, "secrets"))
            self.accounts[namespace, name] = Account(text(tree, "metadata", "uid"), listed)
        elif kind.kind == "Secret":
            self.secrets_seen = True
            if at(tree, "type") == _DOCKERCFG and text(annotations_of(tree), _ACCOUNT_NAME):
                self.docker_tokens.add((namespace, text(annotations_of(tree), "openshift.io/token-secret.name")))


_GENERATED = frozenset(
    {
        *("Event", "Lease", "LeaseCandidate", "Node", "CSINode", "VolumeAttachment", "CSIStorageCapacity"),
        *("ResourceSlice", "StorageVersion", "IPAddress", "CertificateSigningRequest", "PodCertificateRequest"),
        *("ControllerRevision", "Eviction", "EvictionRequest", "ResourcePoolStatusRequest", "RangeAllocation"),
    }
)
GENERATED_RESOURCES = frozenset({"masterleases", "peerserverleases", "ranges"})
"""Resources that API servers keep for themselves, of kinds that users make elsewhere."""

_OWNED = frozenset({"Pod", "ReplicaSet", "ReplicationController", "Job", "EndpointSlice"})
_SLICE_CONTROLLERS = frozenset({"endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"})
_SERVICE_ACCOUNT_TOKEN, _DOCKERCFG = "kubernetes.io/service-account-token", "kubernetes.io/dockercfg"
_ACCOUNT_NAME, _ACCOUNT_UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
_OPENSHIFT_BINDINGS = frozenset({"system:deployers", "system:image-builders", "system:image-pullers"})
_PUBLISHED = frozenset({"kube-root-ca.crt", "openshift-service-ca.crt"})
_SERVING_CERT = "service.beta.openshift.io/originating-service-name"

_RANDOM = re.compile("[bcdfghjklmnpqrstvwxz2456789]{5}")
"""What the name generator appends (kubernetes/apimachinery pkg/util/rand)."""


def reason_to_leave(tree: Tree, kind: Kind, namespace: str, facts: Facts) -> Leave | None:
    """Say why an object is left out, None if it is not. Custom resources of owners are judged elsewhere."""
    if not kind.built_in:
        bound = kind.kind == "VolumeSnapshot" and kind.group == "snapshot.storage.k8s.io"
        if bound and text(tree, "status", "boundVolumeSnapshotContentName"):
            return Leave.SNAPSHOT_BINDING
        return Leave.TERMINATING if _terminating(tree, kind, namespace, facts) else None
    if _is_default(tree, kind, namespace):
        return Leave.DEFAULT
    if _is_generated(tree, kind, namespace, facts):
        return Leave.GENERATED
    if kind.kind == "Pod" and "kubernetes.io/config.mirror" in annotations_of(tree):
        return Leave.MIRROR
    if kind.kind in _OWNED and controller_of(tree) is not None:
        return Leave.OWNED
    if _has_ended(tree, kind):
        return Leave.ENDED
    if _terminating(tree, kind, namespace, facts):
        return Leave.TERMINATING
    if kind.kind == "Secret" and not kind.group and is_token(tree, namespace, facts):
        return Leave.TOKEN
    published = name_of(tree) in _PUBLISHED if kind.kind == "ConfigMap" else kind.kind == "Secret"
    if published and (kind.kind == "ConfigMap" or _SERVING_CERT in annotations_of(tree)):
        return Leave.PUBLISHED
    if kind.kind in {"ConfigMap", "Endpoints"} and "control-plane.alpha.kubernetes.io/leader" in annotations_of(tree):
        return Leave.LEADER
    return None


def _is_default(tree: Tree, kind: Kind, namespace: str) -> bool:
    name = name_of(tree)
    if text(labels_of(tree), "kubernetes.io/bootstrapping") == "rbac-defaults":
        return True
    if text(annotations_of(tree), "apf.kubernetes.io/autoupdate-spec") == "true":
        return True
    if kind.kind == "PriorityClass":
        return name.startswith("system-")
    if kind.kind == "APIService":
        return "kube-aggregator.kubernetes.io/automanaged" in labels_of(tree)
    if kind.kind in {"Service", "Endpoints", "EndpointSlice"}:
        # The API server's own: it writes its addresses there by itself.
        return (namespace, name) == ("default", "kubernetes")
    if kind.kind == "ServiceCIDR":
        return name == "kubernetes"
    return kind.kind == "RoleBinding" and name in _OPENSHIFT_BINDINGS


def _is_generated(tree: Tree, kind: Kind, namespace: str, facts: Facts) -> bool:
    if kind.kind in _GENERATED:
        return True
    if kind.kind == "EndpointSlice":
        return text(labels_of(tree), "endpointslice.kubernetes.io/managed-by") in _SLICE_CONTROLLERS
    return kind.kind == "Endpoints" and facts.services.get((namespace, name_of(tree)), False)


def _has_ended(tree: Tree, kind: Kind) -> bool:
    if kind.kind == "Pod":
        return text(tree, "status", "phase") in {"Succeeded", "Failed"}
    if kind.kind != "Job":
        return False
    conditions = entries(tree, "status", "conditions")
    ended = any(text(one, "type") in {"Complete", "Failed"} and one.get("status") == "True" for one in conditions)
    return ended or bool(at(tree, "status", "completionTime"))


def _terminating(tree: Tree, kind: Kind, namespace: str, facts: Facts) -> bool:
    if not at(tree, "metadata", "deletionTimestamp") or kind == Kind("Namespace", ""):
        return False
    return namespace not in facts.terminating


def is_token(tree: Tree, namespace: str, facts: Facts) -> bool:
    """Say whether a Secret was made by a controller to log in somewhere, which another cluster makes for itself.

    A token that somebody made by hand may have any name, and is kept. One is generated when its ServiceAccount lists
    it and it has a generated name; when OpenShift made a pull secret of it; or when it is of an earlier ServiceAccount
    of that name, whose tokens the controller deletes.
    """
    name, its_type = name_of(tree), at(tree, "type")
    account = text(annotations_of(tree), _ACCOUNT_NAME)
    if its_type == "bootstrap.kubernetes.io/token":
        return True
    if its_type == _DOCKERCFG:
        return bool(account) and name.startswith(f"{account}-dockercfg-")
    if its_type != _SERVICE_ACCOUNT_TOKEN or not account:
        return False
    tail = name.removeprefix(f"{account}-token-")
    if tail == name or not re.fullmatch("[a-z0-9]{5}", tail):
        return False
    if (namespace, name) in facts.docker_tokens:
        return True
    known = facts.accounts.get((namespace, account))
    if known is None:
        return False
    listed = name in known.secrets and _RANDOM.fullmatch(tail) is not None
    uid = text(annotations_of(tree), _ACCOUNT_UID)
    return listed or bool(uid and known.uid and uid != known.uid)


def is_generated_reference(name: str, account: str, namespace: str, facts: Facts) -> bool:
    """Say whether a ServiceAccount's reference names a Secret that is left out as a token."""
    if facts.secrets_seen:
        return (namespace, name) in facts.tokens
    # Nobody looked at the Secrets: their names decide.
    for middle in ("-token-", "-dockercfg-"):
        tail = name.removeprefix(account + middle)
        if tail != name and _RANDOM.fullmatch(tail):
            return True
    return False


def is_helm_release(tree: Tree, kind: Kind) -> bool:
    """Say whether an object holds a Helm release: the values and texts of everything that it installed."""
    if kind.kind == "Secret":
        return text(tree, "type") == "helm.sh/release.v1"
    return kind.kind == "ConfigMap" and text(labels_of(tree), "owner").lower() == "helm"
