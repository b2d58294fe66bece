"""In which order objects are applied, and under which names their files lie.

The order is that of docs/formats/kinds.md, "Order and files": what others need comes first. A namespace above its quota
refuses everything that comes after the quota, so that goes behind all that it can count; webhooks go last, or they
would refuse the rest.

File names come from keys, which are hostile input: nothing but letters, digits, dots, dashes and underscores stands in
one, the rest is percent-encoded; it never begins with a dot, is neither reserved by some system nor
too long, and differs from others in more than the case of letters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from snaptool.kube.keys import RESOURCE_TYPES

_ORDER = (
    *("Namespace", "CustomResourceDefinition", "PriorityClass", "RuntimeClass", "StorageClass"),
    *("VolumeAttributesClass", "CSIDriver", "IngressClass", "DeviceClass", "ServiceCIDR", "*cluster"),
    *("LimitRange", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount", "Secret", "ConfigMap"),
    *("PersistentVolume", "PersistentVolumeClaim", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
    *("Service", "Endpoints", "EndpointSlice", "ResourceClaimTemplate", "ResourceClaim", "*namespaced", "PodTemplate"),
    *("DaemonSet", "Pod", "ReplicationController", "ReplicaSet", "Deployment", "StatefulSet"),
    *("HorizontalPodAutoscaler", "Job", "CronJob", "Ingress", "APIService"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
    *("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"),
    *("*custom", "ResourceQuota", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"),
)
_RANKS = {kind: rank for rank, kind in enumerate(_ORDER, 1)}
_LATE = _RANKS["APIService"]

BUILT_IN_GROUPS = frozenset(
    group
    for known in RESOURCE_TYPES
    for group in (known.group, *known.former_groups)
    if not group.endswith(".openshift.io")
)
"""Groups that Kubernetes itself serves. OpenShift's are custom resources in some releases and its own in others."""


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """A kind without its version. Sorts by kind, then by group."""

    kind: str
    group: str

    @property
    def built_in(self) -> bool:
        """Kubernetes itself serves it."""
        return self.group in BUILT_IN_GROUPS

    def rank(self, *, namespaced: bool) -> int:
        """Where it stands in the order, from 1."""
        if not self.built_in:
            return _RANKS["*custom"]
        return _RANKS.get(self.kind) or _RANKS["*namespaced" if namespaced else "*cluster"]

    def __str__(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind


def group_of(api_version: str) -> str:
    """Return the group of an apiVersion, empty for the core group."""
    group, slash, _ = api_version.partition("/")
    return group if slash else ""


CRDS, CLUSTER, NAMESPACES, WEBHOOKS, CREATE, OWNED = (
    *("1-crds", "2-cluster", "3-namespaces", "4-webhooks"),
    *("5-create", "6-owned"),
)
FOLDERS = (CRDS, CLUSTER, NAMESPACES, WEBHOOKS, CREATE, OWNED)
"""Folders of a tree, in the order in which kubectl reads them."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a document goes in a tree: folder, perhaps a namespace below it, and the file's name without its end.

    Paths may be equal where two namespaces share a folder, or a file system takes capitals for small letters.
    """

    folder: str
    namespace: str
    stem: str

    def path(self, ending: str, again: str = "") -> str:
        """Return the path below the target. `again`: what tells it from another whose path is the same here."""
        stem = f"{self.stem[:_LONGEST]}-{_hash(self.stem, again)}" if again else self.stem
        return "/".join([self.folder, *([self.namespace] if self.namespace else []), stem + ending])


def place(kind: Kind, namespace: str, name: str, *, create: bool = False, owned: bool = False) -> Place:
    """Find the place of an object. `namespace` is empty for cluster-scoped ones."""
    rank = kind.rank(namespaced=bool(namespace))
    if owned or create:
        folder = OWNED if owned else CREATE
    elif kind == Kind("CustomResourceDefinition", "apiextensions.k8s.io"):
        folder = CRDS
    elif namespace:
        folder = NAMESPACES
    else:
        # What is served or decided by something in a namespace comes behind the namespaces, as it does in a stream.
        folder = WEBHOOKS if rank >= _LATE and kind.built_in else CLUSTER
    shown = kind.kind if kind.built_in else str(kind)
    stem = _bounded(f"{rank:02}-{_encoded(shown).lower()}.", name)
    # `kubectl create -f` goes into no folders by itself: those two have none.
    below = "" if owned or create or not namespace else _bounded("", namespace)
    return Place(folder, below, stem)


_LONGEST = 200
_HASH_DIGITS = 12
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)


def _bounded(head: str, name: str) -> str:
    """Make a part of a path. A name gets a hash where it is cut, or where only its capitals tell it from another."""
    part = head + _encoded(name)
    if not head and (part[:1] == "." or _RESERVED.match(part)):
        part = f"%{ord(part[0]):02X}{part[1:]}"
    if part[-1:] == ".":
        part = f"{part[:-1]}%2E"  # some systems take a last dot away
    cut = len(part) > _LONGEST
    if cut or name != name.lower():
        part = f"{part[: _LONGEST - _HASH_DIGITS - 1]}-{_hash(head, name)}"
    return part


def _encoded(text: str) -> str:
    return "".join(
        chr(byte) if chr(byte) in _PLAIN else f"%{byte:02X}" for byte in text.encode(errors="surrogateescape")
    )


_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def _hash(*parts: str) -> str:
    return sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:_HASH_DIGITS]
