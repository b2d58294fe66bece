"""Which cluster-scoped objects, and which role bindings of other namespaces, belong to the objects of a namespace.

`References` collects names while the objects of the namespaces are looked at; then it is asked about every candidate,
in an order in which none is asked about before those that may name it: volumes before their classes, bindings before
roles, roles before those that they aggregate. Source: docs/formats/kinds.md, "What export takes along".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from snaptool.kube.export.cleaning import pod_spec_path
from snaptool.kube.export.order import Kind
from snaptool.kube.export.trees import Tree, annotations_of, entries, labels_of, mapping, name_of, text, texts

_RBAC, _STORAGE = "rbac.authorization.k8s.io", "storage.k8s.io"
NAMESPACE = Kind("Namespace", "")
VOLUME = Kind("PersistentVolume", "")
STORAGE_CLASS = Kind("StorageClass", _STORAGE)
ATTRIBUTES_CLASS = Kind("VolumeAttributesClass", _STORAGE)
PRIORITY_CLASS = Kind("PriorityClass", "scheduling.k8s.io")
RUNTIME_CLASS = Kind("RuntimeClass", "node.k8s.io")
INGRESS_CLASS = Kind("IngressClass", "networking.k8s.io")
ROLE, ROLE_BINDING = Kind("Role", _RBAC), Kind("RoleBinding", _RBAC)
CLUSTER_ROLE, CLUSTER_ROLE_BINDING = Kind("ClusterRole", _RBAC), Kind("ClusterRoleBinding", _RBAC)

CANDIDATES = (
    *(VOLUME, STORAGE_CLASS, ATTRIBUTES_CLASS, PRIORITY_CLASS, RUNTIME_CLASS, INGRESS_CLASS),
    *(ROLE_BINDING, ROLE, CLUSTER_ROLE_BINDING, CLUSTER_ROLE),
)
"""Kinds of which an object may be related, in the order in which they have to be asked about."""


@dataclass(slots=True)
class References:
    """What the exported objects name. `wanted`: names by kind; `accounts`: namespaces whose ServiceAccounts go along.

    `claims`: PersistentVolumeClaims as (namespace, name). `selectors`: of cluster roles that aggregate others.
    """

    wanted: dict[Kind, set[str]] = field(default_factory=dict)
    roles: set[tuple[str, str]] = field(default_factory=set)
    claims: set[tuple[str, str]] = field(default_factory=set)
    accounts: set[tuple[str, str]] = field(default_factory=set)
    account_namespaces: set[str] = field(default_factory=set)
    selectors: list[Tree] = field(default_factory=list)

    def want(self, kind: Kind, name: str) -> None:
        """Note that an object is named."""
        if name:
            self.wanted.setdefault(kind, set()).add(name)

    def learn(self, kind: Kind, namespace: str, tree: Tree) -> None:
        """Take in what an exported object names."""
        if namespace:
            self.want(NAMESPACE, namespace)
        if not kind.built_in:
            return
        if kind.kind == "PersistentVolumeClaim":
            self.claims.add((namespace, name_of(tree)))
            self.want(VOLUME, text(tree, "spec", "volumeName"))
            self._storage(tree)
        elif kind.kind == "PersistentVolume":
            self._storage(tree)
        elif kind.kind == "StatefulSet":
            for claim in entries(tree, "spec", "volumeClaimTemplates"):
                self._storage(claim)
        elif kind.kind == "ServiceAccount":
            self.accounts.add((namespace, name_of(tree)))
            self.account_namespaces.add(namespace)
        elif kind.kind == "Ingress":
            self.want(INGRESS_CLASS, text(tree, "spec", "ingressClassName"))
        elif kind in (ROLE_BINDING, CLUSTER_ROLE_BINDING):
            self._role(tree, namespace)
        elif kind == CLUSTER_ROLE:
            self.selectors += entries(tree, "aggregationRule", "clusterRoleSelectors")
        path = pod_spec_path(kind.kind)
        if path is not None:
            self.want(PRIORITY_CLASS, text(tree, *path, "priorityClassName"))
            self.want(RUNTIME_CLASS, text(tree, *path, "runtimeClassName"))

    def _storage(self, claim: Tree) -> None:
        self.want(STORAGE_CLASS, text(claim, "spec", "storageClassName"))
        self.want(STORAGE_CLASS, text(annotations_of(claim), "volume.beta.kubernetes.io/storage-class"))
        self.want(ATTRIBUTES_CLASS, text(claim, "spec", "volumeAttributesClassName"))

    def _role(self, binding: Tree, namespace: str) -> None:
        name = text(binding, "roleRef", "name")
        if text(binding, "roleRef", "kind") == "ClusterRole":
            self.want(CLUSTER_ROLE, name)
        else:
            self.roles.add((namespace, name))

    def relates(self, kind: Kind, namespace: str, tree: Tree) -> bool:
        """Say whether a candidate is named, or names what is exported. What it names is taken in if it is exported."""
        name = name_of(tree)
        if kind in (CLUSTER_ROLE_BINDING, ROLE_BINDING):
            related = any(self._is_subject(one, namespace) for one in entries(tree, "subjects"))
        elif kind == ROLE:
            related = (namespace, name) in self.roles
        else:
            related = name in self.wanted.get(kind, ())
        if kind == VOLUME:
            claim = mapping(tree, "spec", "claimRef")
            related |= (text(claim, "namespace"), text(claim, "name")) in self.claims
        if kind == CLUSTER_ROLE:
            related |= any(_selects(one, labels_of(tree)) for one in self.selectors)
        return related

    def _is_subject(self, subject: Tree, namespace: str) -> bool:
        kind, name = subject.get("kind"), text(subject, "name")
        if kind == "ServiceAccount":
            return (text(subject, "namespace") or namespace, name) in self.accounts
        head, _, rest = name.partition(":serviceaccounts:" if kind == "Group" else ":serviceaccount:")
        if head != "system":
            return False
        if kind == "Group":
            return rest in self.account_namespaces
        where, _, account = rest.partition(":")
        return kind == "User" and (where, account) in self.accounts


def _selects(selector: Tree, its_labels: Tree) -> bool:
    """Match a label selector as Kubernetes does; an empty one selects nothing, as in the aggregation controller."""
    wanted, rules = mapping(selector, "matchLabels"), entries(selector, "matchExpressions")
    if not wanted and not rules:
        return False
    if any(its_labels.get(name) != value for name, value in wanted.items()):
        return False
    return all(_fits(one, its_labels.get(text(one, "key"))) for one in rules)


def _fits(rule: Tree, value: Any) -> bool:
    operator = rule.get("operator")
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    among = value in texts(rule, "values")
    return among if operator == "In" else not among


# -- what one object names -------------------------------------------------------------------------------------------


Named = tuple[str, str, str]
"""Path of a resource, namespace and name."""


def named_by(kind: Kind, namespace: str, tree: Tree) -> Iterator[Named]:
    """Yield what an object cannot do without, as far as built-in kinds say it."""
    if not kind.built_in:
        return
    path = pod_spec_path(kind.kind)
    if path is not None:
        yield from ((resource, namespace, name) for resource, name in _named_by_pods(mapping(tree, *path)))
    if kind.kind == "PersistentVolumeClaim":
        yield "persistentvolumes", "", text(tree, "spec", "volumeName")
    elif kind.kind == "Ingress":
        yield from (("secrets", namespace, text(one, "secretName")) for one in entries(tree, "spec", "tls"))
    elif kind in (ROLE_BINDING, CLUSTER_ROLE_BINDING):
        of_cluster = text(tree, "roleRef", "kind") == "ClusterRole"
        resource, where = ("clusterroles", "") if of_cluster else ("roles", namespace)
        yield resource, where, text(tree, "roleRef", "name")


def _named_by_pods(spec: Tree) -> Iterator[tuple[str, str]]:
    yield "serviceaccounts", text(spec, "serviceAccountName")
    for one in entries(spec, "imagePullSecrets"):
        yield "secrets", text(one, "name")
    for volume in entries(spec, "volumes"):
        yield "persistentvolumeclaims", text(volume, "persistentVolumeClaim", "claimName")
        for source in (volume, *entries(volume, "projected", "sources")):
            yield "secrets", text(source, "secret", "secretName") or text(source, "secret", "name")
            yield "configmaps", text(source, "configMap", "name")
    for container in (*entries(spec, "initContainers"), *entries(spec, "containers")):
        for one in entries(container, "env"):
            yield "secrets", text(one, "valueFrom", "secretKeyRef", "name")
            yield "configmaps", text(one, "valueFrom", "configMapKeyRef", "name")
        for one in entries(container, "envFrom"):
            yield "secrets", text(one, "secretRef", "name")
            yield "configmaps", text(one, "configMapRef", "name")
