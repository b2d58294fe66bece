"""Registry keys: which resource, namespace and name an etcd key of Kubernetes stands for, and the way back.

kube-apiserver stores an object under ``PREFIX/PATH/NAMESPACE/NAME``, or ``PREFIX/PATH/NAME`` when it is cluster-scoped.
PATH belongs to the resource and is one of three things, recognised by the first segment alone:

* it has a dot: two segments, the API group and the plural (custom resources, CRDs, APIServices);
* it opens one of the few paths of more than one segment (``services/specs``, OpenShift's ``oauth/clients``);
* else one segment: the plural, without its group, but for a few historic names (``minions``, ``controllers``).

So the first segment says how many segments form PATH (`resource_segments`), PATH says the resource, and every key with
the same prefix and PATH has the same resource: parsing one of them answers for all. A plural that is in no table keeps
its group unknown, since nothing in the key tells it; a few paths are written around the encryption and are marked so.

Source: docs/formats/encryption.md, "Names of resources" and "Keys in etcd" (kubernetes storage factory and its etcd
data test; OpenShift's API servers); the newest resources and the kinds as in kubernetes/api's types (10b39a39b). This
module knows no value, no provider, no file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from re import compile as pattern

from snaptool.errors import InputError

DEFAULT_PREFIXES = ("/registry", "/kubernetes.io", "/openshift.io")
"""`--etcd-prefix` of kube-apiserver by default, of OpenShift's kube-apiserver, of OpenShift's other API servers."""

MAX_RESOURCE_SEGMENTS = 3
"""No more than this many segments behind the prefix decide the resource; `resource_segments` says how many do."""

COMPACT_REVISION_KEY = b"compact_rev_key"
"""Where kube-apiserver's compactor keeps a decimal revision, outside of every prefix (apiserver etcd3/compact.go)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceType:
    """A resource: how people name it and where its objects lie.

    `namespaced` is None where only the keys tell (custom resources). `path` is what stands between the prefix and the
    object. `former_groups` are API groups that served the same stored objects, `kind` is empty when it is not known.
    """

    resource: str
    group: str
    path: str
    namespaced: bool | None
    kind: str = ""
    short_names: tuple[str, ...] = ()
    former_groups: tuple[str, ...] = ()

    @property
    def group_resource(self) -> str:
        """As an EncryptionConfiguration names it: `secrets`, `deployments.apps`."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceKey:
    """What an etcd key under a Kubernetes prefix stands for.

    `key` is the key itself; the texts beside it are for people and comparisons, bytes that are not UTF-8 escaped in
    them. `group` is None when the key does not tell it: any chain may be the right one. `namespace` is None for
    cluster-scoped objects. `encryptable` is False for what current API servers store past the encryption.
    """

    key: bytes
    prefix: str
    path: str
    resource: str
    group: str | None
    namespace: str | None
    name: str
    encryptable: bool = True

    def __bytes__(self) -> bytes:
        return self.key

    @property
    def group_resource(self) -> str:
        """`secrets`, `deployments.apps`; `foos.?` when the group is not known."""
        group = "?" if self.group is None else self.group
        return f"{self.resource}.{group}" if group else self.resource


class UnknownType(InputError):
    """A word that names no resource. `word` is that word."""

    def __init__(self, word: str, similar: Sequence[str]) -> None:
        hint = "name a custom resource as PLURAL.GROUP, or give the whole etcd key"
        if similar:
            hint = f"did you mean {' or '.join(similar)}? Otherwise {hint}"
        super().__init__(f"no resource is called {word!r}", hint=hint)
        self.word = word


# Rows: plural, kind, namespaced, short names. The path is the plural unless _RENAMED says otherwise.
_Row = tuple[str, str, bool, str]
_BUILT_IN: dict[str, tuple[_Row, ...]] = {
    "": (
        ("configmaps", "ConfigMap", True, "cm"),
        ("endpoints", "Endpoints", True, "ep"),
        ("events", "Event", True, "ev"),
        ("limitranges", "LimitRange", True, "limits"),
        ("namespaces", "Namespace", False, "ns"),
        ("nodes", "Node", False, "no"),
        ("persistentvolumeclaims", "PersistentVolumeClaim", True, "pvc"),
        ("persistentvolumes", "PersistentVolume", False, "pv"),
        ("pods", "Pod", True, "po"),
        ("podtemplates", "PodTemplate", True, ""),
        ("replicationcontrollers", "ReplicationController", True, "rc"),
        ("resourcequotas", "ResourceQuota", True, "quota"),
        ("secrets", "Secret", True, ""),
        ("serviceaccounts", "ServiceAccount", True, "sa"),
        ("services", "Service", True, "svc"),
    ),
    "apps": (
        ("controllerrevisions", "ControllerRevision", True, ""),
        ("daemonsets", "DaemonSet", True, "ds"),
        ("deployments", "Deployment", True, "deploy"),
        ("replicasets", "ReplicaSet", True, "rs"),
        ("statefulsets", "StatefulSet", True, "sts"),
    ),
    "autoscaling": (("horizontalpodautoscalers", "HorizontalPodAutoscaler", True, "hpa"),),
    "batch": (
        ("cronjobs", "CronJob", True, "cj"),
        ("jobs", "Job", True, ""),
    ),
    "certificates.k8s.io": (
        ("certificatesigningrequests", "CertificateSigningRequest", False, "csr"),
        ("clustertrustbundles", "ClusterTrustBundle", False, ""),
        ("podcertificaterequests", "PodCertificateRequest", True, ""),
    ),
    "coordination.k8s.io": (
        ("leases", "Lease", True, ""),
        ("leasecandidates", "LeaseCandidate", True, ""),
    ),
    "discovery.k8s.io": (("endpointslices", "EndpointSlice", True, ""),),
    "networking.k8s.io": (
        ("ingresses", "Ingress", True, "ing"),
        ("ingressclasses", "IngressClass", False, ""),
        ("networkpolicies", "NetworkPolicy", True, "netpol"),
        ("ipaddresses", "IPAddress", False, "ip"),
        ("servicecidrs", "ServiceCIDR", False, ""),
        ("clustercidrs", "ClusterCIDR", False, "cc"),
    ),
    "policy": (
        ("poddisruptionbudgets", "PodDisruptionBudget", True, "pdb"),
        ("podsecuritypolicies", "PodSecurityPolicy", False, "psp"),
    ),
    "node.k8s.io": (("runtimeclasses", "RuntimeClass", False, ""),),
    "internal.apiserver.k8s.io": (("storageversions", "StorageVersion", False, ""),),
    "rbac.authorization.k8s.io": (
        ("clusterrolebindings", "ClusterRoleBinding", False, ""),
        ("clusterroles", "ClusterRole", False, ""),
        ("rolebindings", "RoleBinding", True, ""),
        ("roles", "Role", True, ""),
    ),
    "storage.k8s.io": (
        ("csidrivers", "CSIDriver", False, ""),
        ("csinodes", "CSINode", False, ""),
        ("csistoragecapacities", "CSIStorageCapacity", True, ""),
        ("storageclasses", "StorageClass", False, "sc"),
        ("volumeattachments", "VolumeAttachment", False, ""),
        ("volumeattributesclasses", "VolumeAttributesClass", False, "vac"),
    ),
    "scheduling.k8s.io": (
        ("priorityclasses", "PriorityClass", False, "pc"),
        ("workloads", "Workload", True, ""),
        ("podgroups", "PodGroup", True, ""),
        ("compositepodgroups", "CompositePodGroup", True, ""),
    ),
    "storagemigration.k8s.io": (("storageversionmigrations", "StorageVersionMigration", False, ""),),
    "flowcontrol.apiserver.k8s.io": (
        ("flowschemas", "FlowSchema", False, ""),
        ("prioritylevelconfigurations", "PriorityLevelConfiguration", False, ""),
    ),
    "admissionregistration.k8s.io": (
        ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False, ""),
        ("validatingwebhookconfigurations", "ValidatingWebhookConfiguration", False, ""),
        ("validatingadmissionpolicies", "ValidatingAdmissionPolicy", False, ""),
        ("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", False, ""),
        ("mutatingadmissionpolicies", "MutatingAdmissionPolicy", False, ""),
        ("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", False, ""),
    ),
    "resource.k8s.io": (
        ("deviceclasses", "DeviceClass", False, ""),
        ("devicetaintrules", "DeviceTaintRule", False, ""),
        ("resourceclaims", "ResourceClaim", True, ""),
        ("resourceclaimtemplates", "ResourceClaimTemplate", True, ""),
        ("resourcepoolstatusrequests", "ResourcePoolStatusRequest", False, ""),
        ("resourceslices", "ResourceSlice", False, ""),
        ("podschedulings", "PodScheduling", True, ""),
        ("podschedulingcontexts", "PodSchedulingContext", True, ""),
        ("resourceclaimparameters", "ResourceClaimParameters", True, ""),
        ("resourceclassparameters", "ResourceClassParameters", True, ""),
        ("resourceclasses", "ResourceClass", False, ""),
    ),
    "lifecycle.k8s.io": (
        ("evictionrequests", "EvictionRequest", True, ""),
        ("evictions", "Eviction", True, ""),
    ),
    "apiregistration.k8s.io": (("apiservices", "APIService", False, ""),),
    "apiextensions.k8s.io": (("customresourcedefinitions", "CustomResourceDefinition", False, "crd crds"),),
    "settings.k8s.io": (("podpresets", "PodPreset", True, ""),),
    "auditregistration.k8s.io": (("auditsinks", "AuditSink", False, ""),),
    "extensions": (("thirdpartyresources", "ThirdPartyResource", False, ""),),
    # OpenShift's own API servers; routes and the like are one plural, one path, as in Kubernetes.
    "apps.openshift.io": (("deploymentconfigs", "DeploymentConfig", True, "dc"),),
    "authorization.openshift.io": (
        ("clusterpolicies", "ClusterPolicy", False, ""),
        ("clusterpolicybindings", "ClusterPolicyBinding", False, ""),
        ("policies", "Policy", True, ""),
        ("policybindings", "PolicyBinding", True, ""),
        ("rolebindingrestrictions", "RoleBindingRestriction", True, ""),
    ),
    "build.openshift.io": (
        ("buildconfigs", "BuildConfig", True, "bc"),
        ("builds", "Build", True, ""),
    ),
    "image.openshift.io": (
        ("images", "Image", False, ""),
        ("imagestreams", "ImageStream", True, "is"),
    ),
    "network.openshift.io": (
        ("clusternetworks", "ClusterNetwork", False, ""),
        ("egressnetworkpolicies", "EgressNetworkPolicy", True, ""),
        ("hostsubnets", "HostSubnet", False, ""),
        ("netnamespaces", "NetNamespace", False, ""),
    ),
    "oauth.openshift.io": (
        ("oauthaccesstokens", "OAuthAccessToken", False, ""),
        ("oauthauthorizetokens", "OAuthAuthorizeToken", False, ""),
        ("oauthclientauthorizations", "OAuthClientAuthorization", False, ""),
        ("oauthclients", "OAuthClient", False, ""),
    ),
    "quota.openshift.io": (("clusterresourcequotas", "ClusterResourceQuota", False, "clusterquota"),),
    "route.openshift.io": (("routes", "Route", True, ""),),
    "security.openshift.io": (
        ("rangeallocations", "RangeAllocation", False, ""),
        ("securitycontextconstraints", "SecurityContextConstraints", False, "scc"),
    ),
    "template.openshift.io": (
        ("brokertemplateinstances", "BrokerTemplateInstance", False, ""),
        ("templateinstances", "TemplateInstance", True, ""),
        ("templates", "Template", True, ""),
    ),
    "user.openshift.io": (
        ("groups", "Group", False, ""),
        ("identities", "Identity", False, ""),
        ("users", "User", False, ""),
    ),
}

_RENAMED = {
    "nodes": "minions",
    "services": "services/specs",
    "endpoints": "services/endpoints",
    "replicationcontrollers": "controllers",
    "ingresses.networking.k8s.io": "ingress",
    "podsecuritypolicies.policy": "podsecuritypolicy",
    "apiservices.apiregistration.k8s.io": "apiregistration.k8s.io/apiservices",
    "customresourcedefinitions.apiextensions.k8s.io": "apiextensions.k8s.io/customresourcedefinitions",
    "oauthaccesstokens.oauth.openshift.io": "oauth/accesstokens",
    "oauthauthorizetokens.oauth.openshift.io": "oauth/authorizetokens",
    "oauthclients.oauth.openshift.io": "oauth/clients",
    "oauthclientauthorizations.oauth.openshift.io": "oauth/clientauthorizations",
    "identities.user.openshift.io": "useridentities",
    "clusternetworks.network.openshift.io": "registry/sdnnetworks",
    "hostsubnets.network.openshift.io": "registry/sdnsubnets",
    "netnamespaces.network.openshift.io": "registry/sdnnetnamespaces",
    "egressnetworkpolicies.network.openshift.io": "registry/egressnetworkpolicy",
    "clusterpolicies.authorization.openshift.io": "authorization/cluster/policies",
    "clusterpolicybindings.authorization.openshift.io": "authorization/cluster/policybindings",
    "policies.authorization.openshift.io": "authorization/local/policies",
    "policybindings.authorization.openshift.io": "authorization/local/policybindings",
}

# Cohabitation: the same objects under a second API group (kubernetes default_storage_factory_builder.go).
_FORMER_GROUPS = {
    "networkpolicies": ("extensions",),
    "deployments": ("extensions",),
    "daemonsets": ("extensions",),
    "replicasets": ("extensions",),
    "ingresses": ("extensions",),
    "podsecuritypolicies": ("extensions",),
    "events": ("events.k8s.io",),
}

_NEVER_ENCRYPTED = frozenset({"masterleases", "peerserverleases", "ranges"})


def _resource_types() -> tuple[ResourceType, ...]:
    types = []
    for group, rows in _BUILT_IN.items():
        for plural, kind, namespaced, short_names in rows:
            group_resource = f"{plural}.{group}" if group else plural
            types.append(
                ResourceType(
                    resource=plural,
                    group=group,
                    path=_RENAMED.get(group_resource, plural),
                    namespaced=namespaced,
                    kind=kind,
                    short_names=tuple(short_names.split()),
                    former_groups=_FORMER_GROUPS.get(plural, ()),
                )
            )
    return tuple(types)


RESOURCE_TYPES = _resource_types()
"""Every resource whose keys are known without looking into the cluster."""

_BY_PATH = {known.path: known for known in RESOURCE_TYPES}
_PATH_LENGTHS = {
    known.path.partition("/")[0]: known.path.count("/") + 1
    for known in RESOURCE_TYPES
    if "/" in known.path and "." not in known.path
}


def resource_segments(first: str | bytes) -> int:
    """How many segments behind the prefix decide the resource of a key whose first one is `first`: 1 to 3.

    Keys that agree in their prefix and in that many segments have the same resource, group and `encryptable`.
    """
    if isinstance(first, bytes):
        first = first.decode(errors="backslashreplace")
    return 2 if "." in first else _PATH_LENGTHS.get(first, 1)


def normal_prefix(prefix: str) -> str:
    """Return a prefix as kube-apiserver reads it, `path.Join("/", prefix)`; empty for the root."""
    return posixpath.normpath("/" + prefix.lstrip("/")).rstrip("/")


@lru_cache(maxsize=64)
def _normal_prefixes(prefixes: tuple[str, ...]) -> tuple[tuple[bytes, str], ...]:
    """Each prefix as the bytes with the slash behind it; longer ones first."""
    normal = {normal_prefix(prefix) for prefix in prefixes}
    return tuple(
        (f"{text}/".encode(errors="surrogateescape"), text)
        for text in sorted(normal, key=lambda text: (-len(text), text))
    )


def parse_key(key: bytes, prefixes: Iterable[str] = DEFAULT_PREFIXES) -> ResourceKey | None:
    """Read what `key` stands for; None when it lies under none of `prefixes`.

    Any bytes have an answer: odd keys under a prefix (empty segments, too many or too few of them) keep their resource,
    because the API server would choose the transformer by it too, and the rest of the key becomes the name.
    """
    for head, prefix in _normal_prefixes(tuple(prefixes)):
        if key.startswith(head):
            return _parse_below(key, prefix, key[len(head) :].decode(errors="backslashreplace").split("/"))
    if key == COMPACT_REVISION_KEY:
        text = key.decode()
        return ResourceKey(
            key=key, prefix="", path=text, resource=text, group="", namespace=None, name=text, encryptable=False
        )
    return None


def _parse_below(key: bytes, prefix: str, segments: list[str]) -> ResourceKey:
    count = resource_segments(segments[0])
    path = "/".join(segments[:count])
    known = _BY_PATH.get(path)
    if known is not None:
        resource, group, namespaced = known.resource, known.group, known.namespaced
    elif "." in segments[0] and count < len(segments) and segments[1]:
        resource, group, namespaced = segments[1], segments[0], None
    else:
        resource, group, namespaced = path, None, None
    never = path in _NEVER_ENCRYPTED
    rest = segments[count:]
    in_namespace = len(rest) > 1 and namespaced is not False and not never
    return ResourceKey(
        key=key,
        prefix=prefix,
        path=path,
        resource=resource,
        group="" if never else group,
        namespace=rest[0] if in_namespace else None,
        name="/".join(rest[1:] if in_namespace else rest),
        encryptable=not never,
    )


_VERSION = pattern(r"v[0-9]+(?:(?:alpha|beta)[0-9]+)?\.(?P<group>.+)")


def resolve_type(word: str) -> ResourceType:
    """Find the resource that `word` names, as kubectl would: plural, singular, kind or short name, in any case.

    A group may follow (`deploy.apps`, `ingress.extensions`), also with a version (`deployments.v1.apps`). With the
    group of no built-in resource the word is taken for a custom resource's PLURAL.GROUP. Raises UnknownType.
    """
    wanted, _, group = word.lower().partition(".")
    version = _VERSION.fullmatch(group)
    if version is not None:
        group = version["group"]
    for known in RESOURCE_TYPES:
        names = (known.resource, known.kind.lower(), *known.short_names)
        if wanted in names and (not group or group == known.group or group in known.former_groups):
            return known
    if wanted and "." in group.strip("."):
        return ResourceType(resource=wanted, group=group, path=f"{group}/{wanted}", namespaced=None)
    every_name = [name for known in RESOURCE_TYPES for name in (known.resource, known.kind.lower(), *known.short_names)]
    from difflib import get_close_matches  # noqa: PLC0415 - only for who mistypes

    raise UnknownType(word, get_close_matches(wanted, every_name, n=2, cutoff=0.75))


def key_prefixes(
    kind: ResourceType, namespace: str | None = None, name: str | None = None, *, prefix: str = DEFAULT_PREFIXES[0]
) -> tuple[bytes, ...]:
    """Where objects of a resource lie: complete keys when `name` is given, else beginnings of keys that end in a slash.

    Two answers, likelier first, only where the scope is not known (custom resources). As with kubectl the namespace
    does not matter for a cluster-scoped resource. A namespaced one asked for by name alone has no answer.
    """
    ((head, _),) = _normal_prefixes((prefix,))
    base = head + kind.path.encode(errors="surrogateescape") + b"/"
    in_namespace: list[str] = []
    anywhere: list[str] = []
    if namespace is not None and kind.namespaced is not False:
        in_namespace = [f"{namespace}/{name or ''}"]
    if name is None:
        anywhere = [] if in_namespace else [""]
    elif kind.namespaced is not True:
        anywhere = [name]
    return tuple(base + place.encode(errors="surrogateescape") for place in in_namespace + anywhere)
