"""What is removed or changed in an object so that another cluster takes it, or the same one a second time.

`clean` does it to one object of a kind that Kubernetes serves, or to a custom resource, whose schema-bound part is
`definitions`'. What every object loses stands in the metadata; what is left to its kind are values that the old cluster
computed or allocated, and that the new one computes for itself or refuses. Source: docs/formats/kinds.md, "What export
changes".
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from snaptool.kube.export.leaving import Facts, is_generated_reference
from snaptool.kube.export.order import Kind
from snaptool.kube.export.services import LAST_APPLIED, drop_allocated
from snaptool.kube.export.trees import Edit, Tree, annotations_of, at, entries, mapping, name_of, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaning:
    """What a request says about cleaning. `redact`: no value of a Secret is shown."""

    keep_allocated: bool = False
    new_volumes: bool = False
    redact: bool = False


_OF_ONE_LIFE = (
    *("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp"),
    *("deletionGracePeriodSeconds", "selfLink", "clusterName", "managedFields"),
)

_SYSTEM_FINALIZERS = frozenset(
    {
        "foregroundDeletion",
        "orphan",
        "batch.kubernetes.io/job-tracking",
        "customresourcecleanup.apiextensions.k8s.io",
        "external-provisioner.volume.kubernetes.io/finalizer",
        "kubernetes.io/pv-protection",
        "kubernetes.io/pvc-protection",
        "kubernetes.io/vac-protection",
        "networking.k8s.io/service-cidr-finalizer",
        "resource.kubernetes.io/delete-protection",
        "service.kubernetes.io/load-balancer-cleanup",
    }
)
_SNAPSHOT_CONTROLLER = ("snapshot.storage.kubernetes.io/", "groupsnapshot.storage.kubernetes.io/")


def clean(edit: Edit, kind: Kind, namespace: str, facts: Facts, how: Cleaning) -> Iterator[str]:
    """Clean one object in place. Yields notes: what the user has to know about it."""
    if kind.built_in:
        work = _BY_KIND.get(kind.kind)
        if work is not None:
            yield from work(edit, namespace, facts, how)
        edit.drop("status")
        _clean_templates(edit)
    yield from _clean_metadata(edit)


def _clean_metadata(edit: Edit) -> Iterator[str]:
    tree = edit.tree
    for name in _OF_ONE_LIFE:
        edit.drop("metadata", name)
    if name_of(tree):
        edit.drop("metadata", "generateName")
    edit.drop("metadata", "ownerReferences")
    edit.drop("metadata", "annotations", LAST_APPLIED)
    finalizers = at(tree, "metadata", "finalizers")
    if isinstance(finalizers, list):
        kept = [one for one in finalizers if not _is_of_the_system(one)]
        if kept != finalizers:
            edit.drop("metadata", "finalizers")
            tree["metadata"] |= {"finalizers": kept} if kept else {}
        yield from (f"finalizer {one} kept: without its controller the object cannot be deleted" for one in kept)
    for name in ("labels", "annotations", "finalizers"):
        edit.drop_if_empty("metadata", name)


def _is_of_the_system(finalizer: object) -> bool:
    return isinstance(finalizer, str) and (
        finalizer in _SYSTEM_FINALIZERS or finalizer.startswith(_SNAPSHOT_CONTROLLER)
    )


def _drop_annotations(edit: Edit, *names: str) -> None:
    for name in names:
        edit.drop("metadata", "annotations", name)


# -- templates -------------------------------------------------------------------------------------------------------


def pod_spec_path(kind: str) -> tuple[str, ...] | None:
    """Return where the spec of the Pods of a kind stands, None if it has none."""
    return {
        "Pod": ("spec",),
        "PodTemplate": ("template", "spec"),
        "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
        **dict.fromkeys(_TEMPLATED, ("spec", "template", "spec")),
    }.get(kind)


_TEMPLATED = ("Deployment", "ReplicaSet", "ReplicationController", "DaemonSet", "StatefulSet", "Job")


def _clean_templates(edit: Edit) -> None:
    """Take creation times out of what stands in an object and has metadata of its own: Go writes them as null."""
    for path in (
        *(("template",), ("spec", "template")),
        *(("spec", "jobTemplate"), ("spec", "jobTemplate", "spec", "template")),
    ):
        if isinstance(at(edit.tree, *path, "metadata"), dict):
            edit.drop(*path, "metadata", "creationTimestamp")
    for number, claim in enumerate(entries(edit.tree, "spec", "volumeClaimTemplates")):
        mapping(claim, "metadata").pop("creationTimestamp", None)
        if claim.pop("status", None) is not None:
            edit.removed.append(f"spec.volumeClaimTemplates[{number}].status")


# -- by kind ---------------------------------------------------------------------------------------------------------


def _namespace(edit: Edit, _namespace: str, _facts: Facts, _how: Cleaning) -> Iterator[str]:
    edit.drop("spec")
    edit.drop("metadata", "labels", "kubernetes.io/metadata.name")
    yield from ()


def _service(edit: Edit, _namespace: str, _facts: Facts, how: Cleaning) -> Iterator[str]:
    if text(edit.tree, "spec", "type") == "LoadBalancer":
        yield "of type LoadBalancer: its external address will be a new one"
    if not how.keep_allocated:
        drop_allocated(edit)


_DEFAULT_TOLERATIONS = frozenset({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})


def _pod(edit: Edit, _namespace: str, _facts: Facts, _how: Cleaning) -> Iterator[str]:
    tree = edit.tree
    for name in ("nodeName", "priority", "preemptionPolicy", "overhead", "serviceAccount", "ephemeralContainers"):
        edit.drop("spec", name)
    token = re.compile(rf"{re.escape(text(tree, 'spec', 'serviceAccountName') or 'default')}-token-[a-z0-9]{{5}}")
    volumes = [one for one in entries(tree, "spec", "volumes") if _is_token_volume(one, token)]
    edit.drop_entries(("spec", "volumes"), volumes)
    names = {one.get("name") for one in volumes}
    for containers in ("initContainers", "containers"):
        for one in entries(tree, "spec", containers):
            mounts = one.get("volumeMounts")
            if isinstance(mounts, list) and names:
                one["volumeMounts"] = [mount for mount in mounts if at(mount, "name") not in names]
                if not one["volumeMounts"]:
                    del one["volumeMounts"]
    defaults = [one for one in entries(tree, "spec", "tolerations") if _is_default_toleration(one)]
    edit.drop_entries(("spec", "tolerations"), defaults)
    yield from ()


def _is_token_volume(volume: Tree, token: re.Pattern[str]) -> bool:
    if text(volume, "name").startswith("kube-api-access-"):
        return True
    return token.fullmatch(text(volume, "secret", "secretName")) is not None


def _is_default_toleration(one: Tree) -> bool:
    known = text(one, "key") in _DEFAULT_TOLERATIONS and one.get("operator") == "Exists"
    return known and one.get("effect") == "NoExecute" and one.get("tolerationSeconds") == 300


_JOB_LABELS = (
    *("controller-uid", "job-name"),
    *("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"),
)


def _job(edit: Edit, _namespace: str, _facts: Facts, _how: Cleaning) -> Iterator[str]:
    if at(edit.tree, "spec", "manualSelector") is not True:
        edit.drop("spec", "selector")
        for name in _JOB_LABELS:
            edit.drop("spec", "template", "metadata", "labels", name)
            edit.drop("metadata", "labels", name)
    yield "it had not ended: it runs from the beginning once applied"


def _cron_job(edit: Edit, _namespace: str, _facts: Facts, _how: Cleaning) -> Iterator[str]:
    if at(edit.tree, "spec", "suspend") is not True:
        yield "it runs on its schedule from the moment of apply"


def _claim(edit: Edit, _namespace: str, _facts: Facts, how: Cleaning) -> Iterator[str]:
    _drop_annotations(
        edit,
        "pv.kubernetes.io/bind-completed",
        "pv.kubernetes.io/bound-by-controller",
        "volume.kubernetes.io/storage-provisioner",
        "volume.beta.kubernetes.io/storage-provisioner",
        "volume.kubernetes.io/selected-node",
    )
    if how.new_volumes:
        for name in ("volumeName", "dataSource", "dataSourceRef"):
            edit.drop("spec", name)
        yield "a new, empty volume: the data of the old one is not in a snapshot of etcd"


_HANDLES = {
    "csi": "volumeHandle",
    "awsElasticBlockStore": "volumeID",
    "azureDisk": "diskURI",
    "azureFile": "shareName",
    "cephfs": "path",
    "cinder": "volumeID",
    "gcePersistentDisk": "pdName",
    "hostPath": "path",
    "iscsi": "iqn",
    "local": "path",
    "nfs": "path",
    "rbd": "image",
    "vsphereVolume": "volumePath",
}
"""What tells a volume from others, by its source."""


def _volume(edit: Edit, _namespace: str, _facts: Facts, _how: Cleaning) -> Iterator[str]:
    tree = edit.tree
    for source, name in _HANDLES.items():
        handle = text(tree, "spec", source, name)
        if handle:
            driver = text(tree, "spec", source, "driver") or text(tree, "spec", source, "server") or source
            yield f"the data is in volume {handle} of {driver}, not in this export"
    edit.drop("spec", "claimRef", "uid")
    edit.drop("spec", "claimRef", "resourceVersion")
    _drop_annotations(edit, "pv.kubernetes.io/bound-by-controller", "pv.kubernetes.io/bind-completed")
    if at(tree, "spec", "claimRef") is not None:
        yield "if the cluster still has it (Released), it binds only after its claimRef.uid is removed"
    if at(tree, "spec", "persistentVolumeReclaimPolicy") == "Delete":
        tree["spec"]["persistentVolumeReclaimPolicy"] = "Retain"
        yield (
            "persistentVolumeReclaimPolicy Delete became Retain: whoever deletes the claim in a copy would delete the "
            "original disk"
        )


def _service_account(edit: Edit, namespace: str, facts: Facts, _how: Cleaning) -> Iterator[str]:
    name = name_of(edit.tree)
    for field in ("secrets", "imagePullSecrets"):
        gone = [
            one
            for one in entries(edit.tree, field)
            if is_generated_reference(text(one, "name"), name, namespace, facts)
        ]
        edit.drop_entries((field,), gone)
    clouds = [key for key in annotations_of(edit.tree) if key.startswith(_CLOUD_ANNOTATIONS)]
    if clouds:
        yield f"annotation {clouds[0]} names an identity of a cloud, which has to trust the new cluster"


_CLOUD_ANNOTATIONS = ("eks.amazonaws.com/", "iam.gke.io/", "azure.workload.identity/")


def _secret(edit: Edit, _namespace: str, _facts: Facts, how: Cleaning) -> Iterator[str]:
    tree = edit.tree
    if at(tree, "type") == "kubernetes.io/service-account-token":
        for name in ("token", "ca.crt", "namespace"):
            edit.drop("data", name)
        _drop_annotations(edit, "kubernetes.io/service-account.uid")
        edit.drop_if_empty("data")
    if how.redact:
        redact(tree)
    yield from ()


_DOCKER_TYPES = frozenset({"kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson"})


_OF_SECRETS = ("apiVersion", "kind", "metadata", "type", "immutable", "data")


def redact(secret: Tree) -> None:
    """Replace every value of a Secret that is not empty, and take out what may hold a copy."""
    instead = b64encode(b"{}" if text(secret, "type") in _DOCKER_TYPES else b"REDACTED").decode()
    annotations_of(secret).pop(LAST_APPLIED, None)
    for field in [field for field in secret if field not in _OF_SECRETS]:
        del secret[field]
    if "data" in secret:
        secret["data"] = {name: instead if value else value for name, value in mapping(secret, "data").items()}


def _scaled(edit: Edit, _namespace: str, _facts: Facts, _how: Cleaning) -> Iterator[str]:
    for name in [name for name in annotations_of(edit.tree) if name.startswith("deployment.kubernetes.io/")]:
        _drop_annotations(edit, name)
    _drop_annotations(edit, "deprecated.daemonset.template.generation")
    yield from ()


def _autoscaler(edit: Edit, _namespace: str, _facts: Facts, _how: Cleaning) -> Iterator[str]:
    _drop_annotations(
        edit, "autoscaling.alpha.kubernetes.io/conditions", "autoscaling.alpha.kubernetes.io/current-metrics"
    )
    yield from ()


def _endpoints(edit: Edit, _namespace: str, _facts: Facts, _how: Cleaning) -> Iterator[str]:
    _drop_annotations(edit, "endpoints.kubernetes.io/last-change-trigger-time")
    yield from ()


def _cluster_role(edit: Edit, _namespace: str, _facts: Facts, _how: Cleaning) -> Iterator[str]:
    if at(edit.tree, "aggregationRule") is not None:
        edit.drop("rules")  # the controller gathers them again
    yield from ()


_Work = Callable[[Edit, str, Facts, Cleaning], Iterator[str]]
_BY_KIND: dict[str, _Work] = {
    "Namespace": _namespace,
    "Service": _service,
    "Pod": _pod,
    "Job": _job,
    "CronJob": _cron_job,
    "PersistentVolumeClaim": _claim,
    "PersistentVolume": _volume,
    "ServiceAccount": _service_account,
    "Secret": _secret,
    "Deployment": _scaled,
    "ReplicaSet": _scaled,
    "DaemonSet": _scaled,
    "HorizontalPodAutoscaler": _autoscaler,
    "Endpoints": _endpoints,
    "EndpointSlice": _endpoints,
    "ClusterRole": _cluster_role,
}
