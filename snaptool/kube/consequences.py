"""What the loss of an object means for the cluster, and what to recreate: one line for a tired operator.

The plaintext is lost, so the key has to tell: the resource, the naming habits of the programs that create such objects,
and, where it helps, whether a neighbour exists (the service account of a token, the Certificate of a TLS Secret, the
other revisions of a Helm release). A name is a hint and no proof; where it is only that, the line says "looks like".

Rules are tried in order, the special before the general, and the last one of a resource takes every name. This module
knows no value and no snapshot: existence is asked through a function.

Source: the controllers' behaviour as documented by Kubernetes (service account tokens since 1.24, bootstrap tokens,
the root CA publisher, RBAC bootstrapping), kubeadm, Helm's storage drivers, cert-manager and OpenShift.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from re import Match, Pattern
from re import compile as pattern
from shlex import quote
from typing import Any

from snaptool.kube.keys import ResourceKey, key_prefixes, resolve_type

_OWNER = "the garbage collector deletes what it owned as soon as controllers run; apply it again"

_MAX_PLACE = 63 + 1 + 253  # namespace (RFC 1123 label), slash, name (RFC 1123 subdomain)

Exists = Callable[[bytes], bool]
"""Is there a live object under this etcd key that is not lost as well?"""

Content = Mapping[str, Any]
"""An older revision of the object that opens, as a tree: it shows what the object was."""

_Sentence = Callable[[ResourceKey, Match[str], Exists | None], str]


@dataclass(frozen=True, slots=True)
class _Rule:
    resource: str
    place: Pattern[str]
    sentence: str | _Sentence


def consequence(key: ResourceKey, exists: Exists | None = None, content: Content | None = None) -> str:
    """Say in one line what is lost with the object under `key` and how it comes back.

    `exists` looks for neighbours; without it the line does not depend on them. `content` says of a Secret what it was:
    its name alone is no proof.
    """
    if content is not None and key.group_resource == "secrets":
        by_content = _by_type(key, content)
        if by_content:
            return by_content
    place = key.name if key.namespace is None else f"{key.namespace}/{key.name}"
    # Longer places break Kubernetes' limits; the patterns are not made for them.
    rules = _RULES_BY_RESOURCE.get(key.group_resource, ()) if len(place) <= _MAX_PLACE else ()
    for rule in rules:
        match = rule.place.fullmatch(place)
        if match is not None:
            if callable(rule.sentence):
                return rule.sentence(key, match, exists)
            texts = {name: quote(text) for name, text in match.groupdict().items() if text}
            return rule.sentence.format(**texts, namespace=quote(key.namespace or ""))
    if key.group and "." in key.path.partition("/")[0]:
        return f"a custom resource: {_OWNER}"
    return "apply it again from its manifest, or from an older backup that still opens"


def _by_type(key: ResourceKey, content: Content) -> str:
    """Say it by the type of a Secret; empty for types that say no more than the name."""
    kind = content.get("type")
    name, namespace = quote(key.name), quote(key.namespace or "")
    if kind == "kubernetes.io/tls":
        return (
            "a TLS certificate with its key: what serves it falls back to a default certificate or does not start; "
            f"have it reissued, or kubectl create secret tls {name} -n {namespace} --cert=FILE --key=FILE"
        )
    if kind == "kubernetes.io/service-account-token":
        account = _annotation(content, "kubernetes.io/service-account.name") or "its service account"
        if _MADE_BY_CONTROLLER.fullmatch(key.name):
            return (
                f"a token of service account {account} that a controller made: whoever uses it is refused; from "
                "Kubernetes 1.24 on pods do not need it, for others: "
                f"kubectl create token {quote(account)} -n {namespace}"
            )
        return (
            f"a token of service account {account}, made by hand: apply the Secret {key.name} again with its type and "
            "its annotation kubernetes.io/service-account.name, and a controller fills in a new token; whoever has "
            "the old one is refused"
        )
    if kind in {"kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"}:
        return (
            "registry credentials: pods that name it in imagePullSecrets cannot pull images; kubectl create secret "
            f"docker-registry {name} -n {namespace} --docker-server=HOST --docker-username=USER"
        )
    return ""


_MADE_BY_CONTROLLER = pattern(r".{1,253}-token-[bcdfghjklmnpqrstvwxz2456789]{5}")


def _annotation(content: Content, name: str) -> str:
    metadata = content.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    value = annotations.get(name) if isinstance(annotations, Mapping) else None
    return value if isinstance(value, str) else ""


def _neighbour(key: ResourceKey, word: str, name: str, exists: Exists | None) -> bool | None:
    """Is there an object of that type and name in the key's namespace? None when nobody can say."""
    if exists is None:
        return None
    places = key_prefixes(resolve_type(word), key.namespace, name, prefix=key.prefix)
    return any(exists(place) for place in places)


def _service_account_token(key: ResourceKey, match: Match[str], exists: Exists | None) -> str:
    account = match["account"]
    there = _neighbour(key, "serviceaccount", account, exists)
    if there is False:
        return (
            f"looks like a token of service account {account}, which does not exist any more: "
            "probably nothing to recreate"
        )
    likely = "looks like a token" if there is None else "a token"
    return (
        f"{likely} of service account {account}: whoever uses it is refused. Up to Kubernetes 1.23 a new one is made "
        "by itself (restart the pods that mount it); from 1.24 on create a Secret of type "
        f"kubernetes.io/service-account-token for {account} if something outside still needs a lasting token, or: "
        f"kubectl create token {quote(account)} -n {quote(key.namespace or '')}"
    )


def _of_certificate(key: ResourceKey, names: tuple[str, ...], exists: Exists | None) -> str | None:
    """The line for a Secret of cert-manager: a Certificate has its name, or its name without an ending."""
    certificate = next(
        (name for name in names if name and _neighbour(key, "certificates.cert-manager.io", name, exists)), None
    )
    if certificate is None:
        return None
    return (
        f"looks like the TLS key of the cert-manager Certificate {certificate}: cert-manager issues a new one with a "
        "new private key; mind the issuer's rate limits when there are many"
    )


def _any_secret(key: ResourceKey, _: Match[str], exists: Exists | None) -> str:
    return _of_certificate(key, (key.name,), exists) or (
        "pods that mount it do not start, and whoever reads it finds nothing; create it again from where its content "
        "comes from"
    )


def _tls(key: ResourceKey, match: Match[str], exists: Exists | None) -> str:
    # A name is no proof: without a Certificate of that name it is a Secret like any other.
    return _of_certificate(key, (key.name, match["base"] or ""), exists) or _any_secret(key, match, exists)


def _helm(key: ResourceKey, match: Match[str], exists: Exists | None) -> str:
    release, revision = match["release"], int(match["revision"])
    where = f"-n {quote(key.namespace or '')}"
    text = f"Helm's record of release {release}, revision {revision}: what the release installed stays as it is"
    if exists is None:
        return f"{text}; if it was the newest, Helm needs a rollback to an older one before it can upgrade"

    def recorded(number: int) -> bool:
        return bool(_neighbour(key, key.resource, f"sh.helm.release.v1.{release}.v{number}", exists))

    if recorded(revision + 1):
        return f"{text}, and a newer record exists; only a rollback to revision {revision} is no longer possible"
    # Helm keeps ten revisions by default; look a little further and never without end.
    older = next((number for number in range(revision - 1, max(revision - 32, 0), -1) if recorded(number)), None)
    if older is not None:
        return f"{text}; it was the newest record: helm rollback {quote(release)} {older} {where}, then upgrade again"
    upgrade = f"helm upgrade --install {quote(release)} CHART {where}"
    return f"{text}; no other record exists: {upgrade}, with the same chart, adopts what is there"


_RANDOM = "[bcdfghjklmnpqrstvwxz2456789]{5}"  # apimachinery pkg/util/rand: no vowels, no look-alikes


def _rule(resource: str, place: str, sentence: str | _Sentence) -> _Rule:
    return _Rule(resource, pattern(place), sentence)


_RULES = (
    _rule("secrets", rf"[^/]+/(?P<account>.+)-token-{_RANDOM}", _service_account_token),
    _rule(
        "secrets",
        r"kube-system/bootstrap-token-(?P<id>[a-z0-9]{6})",
        "bootstrap token {id}: new nodes cannot join with it, nodes that joined are not affected; "
        "kubeadm token create makes a new one",
    ),
    _rule(
        "secrets",
        r"kube-system/kubeadm-certs",
        "control-plane certificates that kubeadm uploads for two hours: kubeadm init phase upload-certs "
        "--upload-certs makes a new one when a control-plane node is to join",
    ),
    _rule("secrets", r"[^/]+/sh\.helm\.release\.v1\.(?P<release>.+)\.v(?P<revision>[0-9]{1,9})", _helm),
    _rule(
        "secrets",
        rf"[^/]+/(?P<account>.+)-dockercfg-{_RANDOM}",
        "looks like OpenShift's registry credentials of service account {account}: its controller makes new ones; "
        "images of the internal registry cannot be pulled until then",
    ),
    _rule(
        "secrets",
        r"openshift-config/pull-secret",
        "the pull secret of the whole OpenShift cluster: nodes cannot pull release images; set it again from the "
        "one of your subscription",
    ),
    _rule(
        "secrets",
        r"openshift-config-managed/encryption-(?:key|config)-.+|openshift-[a-z-]*apiserver/encryption-config-[0-9]+",
        "a key or configuration of OpenShift's own encryption: what is under that key cannot be read by its API "
        "servers; the operator makes a new key (unsupportedConfigOverrides.encryption.reason), not this one again",
    ),
    _rule(
        "secrets",
        r"openshift-[^/]+/(?:.+-)?(?:serving-cert|metrics-tls|tls-certs)",
        "looks like a certificate of OpenShift's service CA: it is issued again by itself for its Service; restart "
        "the pods that mount it",
    ),
    _rule(
        "secrets",
        r"openshift-ingress/router-certs-default|openshift-ingress-operator/router-ca",
        "OpenShift's default certificate of ingress: the ingress operator issues a new one by itself",
    ),
    _rule(
        "secrets",
        r"openshift-machine-api/(?:master|worker)-user-data(?:-managed)?",
        "what new machines of OpenShift start with: running nodes are not affected, new ones do not join; take it "
        "from an older backup",
    ),
    _rule(
        "secrets",
        r"[^/]+/(?:regcred|(?:.+[-.])?(?:dockercfg|dockerconfigjson|(?:image-?)?pull-?secret|"
        r"(?:docker-?)?registry(?:-?(?:creds?|credentials|secret|key|auth))?|acr-secret|ecr-secret|gcr-secret)(?:[-.].+)?)",
        "looks like registry credentials: pods that name it in imagePullSecrets cannot pull images; create it again "
        "(kubectl create secret docker-registry NAME -n {namespace})",
    ),
    _rule(
        "secrets", r"[^/]+/(?:(?P<base>.+)[-.](?:tls|cert|certs|certificate|ssl)|(?:tls|ssl|wildcard)(?:[-.].+)?)", _tls
    ),
    _rule(
        "secrets",
        r"cert-manager/(?:.+-webhook-ca|.*account-key|letsencrypt.*)",
        "cert-manager's own key: it makes a new webhook CA by itself, and registers a new ACME account",
    ),
    _rule("secrets", r".*", _any_secret),
    _rule(
        "configmaps",
        r"[^/]+/(?:kube-root-ca\.crt|openshift-service-ca\.crt)",
        "nothing to do: a controller publishes it again in every namespace; pods that mount it wait until then",
    ),
    _rule(
        "configmaps",
        r"kube-system/extension-apiserver-authentication",
        "nothing to do: kube-apiserver writes it again when it starts",
    ),
    _rule(
        "configmaps",
        r"kube-system/kubeadm-config",
        "kubeadm's cluster configuration: upgrades and joins fail; kubeadm init phase upload-config kubeadm writes it",
    ),
    _rule(
        "configmaps",
        r"kube-system/kubelet-config.*",
        "the kubelets' configuration for joins and upgrades: kubeadm init phase upload-config kubelet writes it",
    ),
    _rule(
        "configmaps",
        r"kube-system/(?P<addon>kube-proxy|coredns)",
        "configuration of {addon}: running pods go on, new ones do not start; kubeadm init phase addon {addon} "
        "writes the default one",
    ),
    _rule(
        "configmaps",
        r"kube-public/cluster-info",
        "kubeadm's discovery file: nodes cannot join by token; kubeadm init phase bootstrap-token writes it again",
    ),
    _rule(
        "configmaps",
        r"kube-system/aws-auth",
        "EKS's map of IAM roles to users: nodes and people mapped in it are refused; write it again first of all",
    ),
    _rule("configmaps", r"[^/]+/sh\.helm\.release\.v1\.(?P<release>.+)\.v(?P<revision>[0-9]{1,9})", _helm),
    _rule(
        "configmaps",
        r".*",
        "pods that mount it or read it do not start; apply it again from its manifest, or let its operator or "
        "Helm release write it",
    ),
    _rule("events", r".*", "nothing to do: events expire within hours"),
    _rule("leases.coordination.k8s.io", r".*", "nothing to do: its holder writes it again"),
    _rule("endpoints", r".*", "made again from its Service, unless somebody wrote it by hand for one without selector"),
    _rule("endpointslices.discovery.k8s.io", r".*", "made again from its Service and pods, unless written by hand"),
    _rule(
        "namespaces",
        r"default|kube-system|kube-public|kube-node-lease",
        "nothing to do: kube-apiserver makes it again; its labels are lost, Pod Security levels among them",
    ),
    _rule(
        "namespaces",
        r"(?P<name>.+)",
        "its objects stay but nothing new can be created there: kubectl create namespace {name}, then its labels, "
        "Pod Security levels among them",
    ),
    _rule(
        "nodes",
        r".*",
        "its pods are deleted as orphans; restart its kubelet and it registers again, without the labels and taints "
        "that were set by hand",
    ),
    _rule(
        "pods",
        r"[^/]+/etcd-.+|[^/]+/kube-(?:apiserver|scheduler|controller-manager)-.+",
        "looks like the mirror of a static pod: its kubelet writes it again",
    ),
    _rule(
        "pods", r".*", "the kubelet stops its containers; a controller replaces it, a bare pod has to be applied again"
    ),
    _rule(
        "serviceaccounts",
        r"[^/]+/default",
        "a controller makes it again; imagePullSecrets added to it are lost",
    ),
    _rule(
        "serviceaccounts",
        r"[^/]+/(?P<name>.+)",
        "pods of {name} cannot be created, and its tokens, tied to the old UID, are refused; apply it again",
    ),
    _rule("services", r"default/kubernetes", "nothing to do: kube-apiserver makes it again"),
    _rule(
        "services",
        r".*",
        "its cluster IP is set free, a cloud load balancer may be left over; apply it again with the same clusterIP",
    ),
    _rule(
        "persistentvolumes",
        r"(?P<name>.+)",
        "the data stays on the storage but its claim shows as Lost: write PersistentVolume {name} again by hand, "
        "with its volume handle and claimRef",
    ),
    _rule(
        "persistentvolumeclaims",
        r".*",
        "its volume counts as released, and with reclaim policy Delete its DATA IS DELETED: set the policy to Retain "
        "before controllers start, then create the claim with its volumeName",
    ),
    _rule(
        "replicasets.apps",
        r".*",
        "its Deployment makes a new one, which replaces the pods; one of an old rollout only cost a rollback",
    ),
    *(
        _rule(resource, r".*", _OWNER)
        for resource in (
            "deployments.apps",
            "statefulsets.apps",
            "daemonsets.apps",
            "jobs.batch",
            "cronjobs.batch",
            "replicationcontrollers",
        )
    ),
    _rule("controllerrevisions.apps", r".*", "a past state of a StatefulSet or DaemonSet: no rollback to it any more"),
    _rule(
        "clusterroles.rbac.authorization.k8s.io",
        r"system:.*|cluster-admin|admin|edit|view",
        "nothing to do: kube-apiserver makes its default roles again when it starts",
    ),
    _rule(
        "clusterrolebindings.rbac.authorization.k8s.io",
        r"system:.*|cluster-admin",
        "kube-apiserver makes its default bindings again when it starts; subjects added by hand are lost",
    ),
    *(
        _rule(f"{plural}.rbac.authorization.k8s.io", r".*", "rights granted by it are gone; apply it again")
        for plural in ("clusterroles", "clusterrolebindings", "roles", "rolebindings")
    ),
    _rule(
        "customresourcedefinitions.apiextensions.k8s.io",
        r"(?P<name>.+)",
        "its {name} objects are not served until it is applied again; then all are: apply it, delete nothing",
    ),
    _rule(
        "apiservices.apiregistration.k8s.io",
        r".*",
        "kube-apiserver makes those of its own and of CRDs again; one of an aggregated server has to be applied",
    ),
    *(
        _rule(
            f"{plural}.admissionregistration.k8s.io",
            r".*",
            "requests pass without this check or change until it is applied again",
        )
        for plural in (
            "mutatingwebhookconfigurations",
            "validatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        )
    ),
    _rule(
        "oauthaccesstokens.oauth.openshift.io",
        r".*",
        "a login session: its user logs in again (oc login)",
    ),
    _rule("oauthauthorizetokens.oauth.openshift.io", r".*", "nothing to do: a login that was under way starts over"),
    _rule(
        "oauthclients.oauth.openshift.io",
        r".*",
        "logins through this client fail; its operator writes it again, one of your own has to be applied",
    ),
    _rule("routes.route.openshift.io", r".*", "the host it publishes is not served; apply it again, with its TLS key"),
)

_RULES_BY_RESOURCE: dict[str, list[_Rule]] = {}
for _each in _RULES:
    _RULES_BY_RESOURCE.setdefault(_each.resource, []).append(_each)
