"""From an apiVersion that servers have given up to the one that they serve, where nothing but the name changes.

A pair is here only where every field of the old form stands in the new one under the same name and with the same type,
and the new one requires nothing more; tests/unit/kube/test_export_versions.py holds the pairs to the table of kinds.
Ingress is the one form that is rewritten. What has no served form that means the same is kept, with a note.
Source: docs/formats/kinds.md, "What export changes".
"""

from __future__ import annotations

from collections.abc import Iterator

from snaptool.kube.export.order import Kind, group_of
from snaptool.kube.export.trees import Tree, at, entries, mapping, text

_ADMISSION, _STORAGE, _FLOW = "admissionregistration.k8s.io", "storage.k8s.io", "flowcontrol.apiserver.k8s.io"
_RBAC, _DEVICES = "rbac.authorization.k8s.io", "resource.k8s.io"

_TO_NEWEST: dict[str, dict[str, tuple[str, ...]]] = {
    f"{_ADMISSION}/v1": {
        f"{_ADMISSION}/v1beta1": (
            *("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"),
            *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
            *("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"),
        ),
        f"{_ADMISSION}/v1alpha1": (
            *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
            *("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"),
        ),
    },
    "apiregistration.k8s.io/v1": {"apiregistration.k8s.io/v1beta1": ("APIService",)},
    "apps/v1": {
        "apps/v1beta1": ("StatefulSet",),
        "apps/v1beta2": ("Deployment", "DaemonSet", "ReplicaSet", "StatefulSet", "ControllerRevision"),
        "extensions/v1beta1": ("ReplicaSet", "Deployment", "DaemonSet"),
    },
    "autoscaling/v2": {"autoscaling/v2beta2": ("HorizontalPodAutoscaler",)},
    "batch/v1": {"batch/v1beta1": ("CronJob",), "batch/v2alpha1": ("CronJob",)},
    "certificates.k8s.io/v1": {"certificates.k8s.io/v1beta1": ("CertificateSigningRequest",)},
    "coordination.k8s.io/v1": {"coordination.k8s.io/v1beta1": ("Lease",)},
    f"{_FLOW}/v1": {
        f"{_FLOW}/v1alpha1": ("FlowSchema",),
        f"{_FLOW}/v1beta1": ("FlowSchema",),
        f"{_FLOW}/v1beta2": ("FlowSchema",),
        f"{_FLOW}/v1beta3": ("FlowSchema", "PriorityLevelConfiguration"),
    },
    "networking.k8s.io/v1": {
        "networking.k8s.io/v1beta1": ("IngressClass", "ServiceCIDR", "Ingress"),
        "networking.k8s.io/v1alpha1": ("ServiceCIDR",),
        "extensions/v1beta1": ("NetworkPolicy", "Ingress"),
    },
    "node.k8s.io/v1": {"node.k8s.io/v1beta1": ("RuntimeClass",)},
    "policy/v1": {"policy/v1beta1": ("PodDisruptionBudget",)},
    f"{_RBAC}/v1": {f"{_RBAC}/v1beta1": ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")},
    "scheduling.k8s.io/v1": {
        "scheduling.k8s.io/v1alpha1": ("PriorityClass",),
        "scheduling.k8s.io/v1beta1": ("PriorityClass",),
    },
    f"{_STORAGE}/v1": {
        f"{_STORAGE}/v1alpha1": ("CSIStorageCapacity", "VolumeAttachment", "VolumeAttributesClass"),
        f"{_STORAGE}/v1beta1": (
            *("CSIDriver", "CSINode", "CSIStorageCapacity", "StorageClass", "VolumeAttachment"),
            "VolumeAttributesClass",
        ),
    },
    f"{_DEVICES}/v1": {
        f"{_DEVICES}/v1beta2": ("ResourceClaim", "ResourceClaimTemplate", "ResourceSlice", "DeviceClass"),
        f"{_DEVICES}/v1beta1": ("DeviceClass",),
        f"{_DEVICES}/v1alpha3": ("DeviceClass",),
    },
}
PROMOTED = {(old, kind): new for new, olds in _TO_NEWEST.items() for old, kinds in olds.items() for kind in kinds}
"""(apiVersion, kind) to the apiVersion that it is exported as."""

OLD_FIELDS = {
    ("extensions/v1beta1", "Deployment"): "rollbackTo",
    ("extensions/v1beta1", "DaemonSet"): "templateGeneration",
    ("resource.k8s.io/v1alpha3", "DeviceClass"): "suitableNodes",
}
"""Fields of a spec that the newer version does not have: an object with one is not promoted."""

_KEPT = frozenset(
    {
        *(("policy/v1beta1", "PodSecurityPolicy"), ("extensions/v1beta1", "PodSecurityPolicy")),
        *(("settings.k8s.io/v1alpha1", "PodPreset"), ("auditregistration.k8s.io/v1alpha1", "AuditSink")),
        *(("networking.k8s.io/v1alpha1", "ClusterCIDR"), ("autoscaling/v2beta1", "HorizontalPodAutoscaler")),
        *(("discovery.k8s.io/v1alpha1", "EndpointSlice"), ("discovery.k8s.io/v1beta1", "EndpointSlice")),
        *(("apps/v1beta1", "Deployment"), ("node.k8s.io/v1alpha1", "RuntimeClass")),
    }
)
_KEPT_BETAS = frozenset({"ResourceClaim", "ResourceClaimTemplate", "ResourceSlice"})


def promote(tree: Tree, kind: Kind) -> Iterator[str]:
    """Give an object the newest apiVersion that means the same. Yields notes."""
    version = tree.get("apiVersion")
    if not isinstance(version, str) or not kind.built_in:
        return
    new, old_group = PROMOTED.get((version, kind.kind)), group_of(version)
    if at(tree, "spec", OLD_FIELDS.get((version, kind.kind), "")) is not None:
        new = None
    if new is None:
        # Nothing of an alpha or beta group is served for ever; what is newer than this table stays as it is.
        resource = old_group == "resource.k8s.io" and (kind.kind in _KEPT_BETAS or "alpha" in version)
        if (version, kind.kind) in _KEPT or old_group == "extensions" or (resource and "v1beta2" not in version):
            yield f"{version} is kept, no served version means the same: a new server may refuse it"
        return
    tree["apiVersion"] = new
    yield f"{version} became {new}"
    if kind.kind == "Ingress":
        _promote_ingress(tree)
    elif kind.kind.endswith("WebhookConfiguration"):
        for hook in entries(tree, "webhooks"):
            if text(hook, "sideEffects") not in {"None", "NoneOnDryRun"}:
                hook["sideEffects"] = "None"
                yield f"webhook {hook.get('name')}: sideEffects set to None, for v1 refuses Unknown and Some"
    elif kind.kind == "PodDisruptionBudget" and at(tree, "spec", "selector") is not None:
        selector = mapping(tree, "spec", "selector")
        if not any(selector.get(name) for name in ("matchLabels", "matchExpressions")):
            yield "its empty selector selected no Pods in v1beta1, and selects all Pods of the namespace in v1"


def _promote_ingress(tree: Tree) -> None:
    """Rewrite an Ingress as the server does (kubernetes pkg/apis/networking/v1beta1/conversion.go)."""
    spec = mapping(tree, "spec")
    if "backend" in spec:
        backend = spec.pop("backend")
        spec["defaultBackend"] = _backend(backend)
    for rule in entries(spec, "rules"):
        for path in entries(rule, "http", "paths"):
            if "backend" in path:
                path["backend"] = _backend(path["backend"])
            if not path.get("pathType"):
                path["pathType"] = "ImplementationSpecific"


def _backend(old: object) -> object:
    if not isinstance(old, dict):
        return old
    new = {name: value for name, value in old.items() if name not in {"serviceName", "servicePort"}}
    service: Tree = {}
    if old.get("serviceName"):
        service["name"] = old["serviceName"]
    port = old.get("servicePort")
    if isinstance(port, str) and port:
        service["port"] = {"name": port}
    elif isinstance(port, int) and port:
        service["port"] = {"number": port}
    return {"service": service} | new if service else new
