import pytest

from snaptool.kube.keys import (
    MAX_RESOURCE_SEGMENTS,
    RESOURCE_TYPES,
    ResourceKey,
    UnknownType,
    key_prefixes,
    parse_key,
    resolve_type,
    resource_segments,
)


def parsed(key: bytes, *prefixes: str) -> ResourceKey:
    found = parse_key(key, prefixes) if prefixes else parse_key(key)
    assert found is not None
    return found


# -- docs/formats/encryption.md, "Keys in etcd"


@pytest.mark.parametrize(
    ("key", "resource"),
    [
        (b"/registry/minions/n1", "nodes"),
        (b"/registry/services/specs/ns/s", "services"),
        (b"/registry/ingress/ns/i", "ingresses.networking.k8s.io"),
    ],
)
def test_case_50_key_to_resource_nodes(key: bytes, resource: str) -> None:
    assert parsed(key).group_resource == resource


def test_case_51_key_to_resource_cr() -> None:
    key = parsed(b"/registry/cr.bar.com/foos/ns/x")
    assert (key.group_resource, key.namespace, key.name) == ("foos.cr.bar.com", "ns", "x")
    cluster_scoped = parsed(b"/registry/cr.bar.com/foos/x")
    assert (cluster_scoped.group_resource, cluster_scoped.namespace, cluster_scoped.name) == (
        "foos.cr.bar.com",
        None,
        "x",
    )


@pytest.mark.parametrize(
    "key",
    [
        b"/registry/masterleases/10.0.0.1",
        b"/registry/peerserverleases/apiserver-x",
        b"/registry/ranges/serviceips",
        b"/registry/ranges/secondaryserviceips",
        b"/registry/ranges/servicenodeports",
        b"/openshift/masterleases/10.0.0.1",
        b"compact_rev_key",
    ],
)
def test_case_52_key_never_encrypted(key: bytes) -> None:
    found = parsed(key, "/registry", "/openshift")
    assert not found.encryptable
    assert found.namespace is None


# -- every row of 4.3 and 4.4 ----------------------------------------------------------------------------------------

RENAMED = [
    ("/registry/minions/n1", "nodes", None),
    ("/registry/services/specs/ns/s", "services", "ns"),
    ("/registry/services/endpoints/ns/s", "endpoints", "ns"),
    ("/registry/controllers/ns/rc", "replicationcontrollers", "ns"),
    ("/registry/ingress/ns/i", "ingresses.networking.k8s.io", "ns"),
    ("/registry/podsecuritypolicy/p", "podsecuritypolicies.policy", None),
    ("/registry/apiregistration.k8s.io/apiservices/v1.apps", "apiservices.apiregistration.k8s.io", None),
    (
        "/registry/apiextensions.k8s.io/customresourcedefinitions/foos.cr.bar.com",
        "customresourcedefinitions.apiextensions.k8s.io",
        None,
    ),
]

OPENSHIFT = [
    ("/kubernetes.io/secrets/ns/s", "secrets", "ns"),
    (
        "/kubernetes.io/security.openshift.io/securitycontextconstraints/restricted",
        "securitycontextconstraints.security.openshift.io",
        None,
    ),
    ("/openshift.io/oauth/accesstokens/t", "oauthaccesstokens.oauth.openshift.io", None),
    ("/openshift.io/oauth/authorizetokens/t", "oauthauthorizetokens.oauth.openshift.io", None),
    ("/openshift.io/oauth/clients/c", "oauthclients.oauth.openshift.io", None),
    ("/openshift.io/oauth/clientauthorizations/u:c", "oauthclientauthorizations.oauth.openshift.io", None),
    ("/openshift.io/useridentities/htpasswd:u", "identities.user.openshift.io", None),
    ("/openshift.io/registry/sdnnetworks/default", "clusternetworks.network.openshift.io", None),
    ("/openshift.io/registry/sdnsubnets/n1", "hostsubnets.network.openshift.io", None),
    ("/openshift.io/registry/sdnnetnamespaces/ns", "netnamespaces.network.openshift.io", None),
    ("/openshift.io/registry/egressnetworkpolicy/ns/e", "egressnetworkpolicies.network.openshift.io", "ns"),
    ("/openshift.io/authorization/cluster/policies/p", "clusterpolicies.authorization.openshift.io", None),
    ("/openshift.io/authorization/cluster/policybindings/p", "clusterpolicybindings.authorization.openshift.io", None),
    ("/openshift.io/authorization/local/policies/ns/p", "policies.authorization.openshift.io", "ns"),
    ("/openshift.io/authorization/local/policybindings/ns/p", "policybindings.authorization.openshift.io", "ns"),
    ("/openshift.io/routes/ns/r", "routes.route.openshift.io", "ns"),
]

_TABLE = """
configmaps(n) endpoints(n) events(n) limitranges(n) namespaces nodes persistentvolumeclaims(n) persistentvolumes pods(n)
podtemplates(n) replicationcontrollers(n) resourcequotas(n) secrets(n) serviceaccounts(n) services(n)
controllerrevisions.apps(n) daemonsets.apps(n) deployments.apps(n) replicasets.apps(n) statefulsets.apps(n)
horizontalpodautoscalers.autoscaling(n) cronjobs.batch(n) jobs.batch(n)
certificatesigningrequests.certificates.k8s.io clustertrustbundles.certificates.k8s.io
podcertificaterequests.certificates.k8s.io(n)
leases.coordination.k8s.io(n) leasecandidates.coordination.k8s.io(n) endpointslices.discovery.k8s.io(n)
ingresses.networking.k8s.io(n) ingressclasses.networking.k8s.io networkpolicies.networking.k8s.io(n)
ipaddresses.networking.k8s.io servicecidrs.networking.k8s.io
poddisruptionbudgets.policy(n) runtimeclasses.node.k8s.io storageversions.internal.apiserver.k8s.io
clusterrolebindings.rbac.authorization.k8s.io clusterroles.rbac.authorization.k8s.io
rolebindings.rbac.authorization.k8s.io(n) roles.rbac.authorization.k8s.io(n)
csidrivers.storage.k8s.io csinodes.storage.k8s.io csistoragecapacities.storage.k8s.io(n) storageclasses.storage.k8s.io
volumeattachments.storage.k8s.io volumeattributesclasses.storage.k8s.io
priorityclasses.scheduling.k8s.io workloads.scheduling.k8s.io(n) podgroups.scheduling.k8s.io(n)
storageversionmigrations.storagemigration.k8s.io
flowschemas.flowcontrol.apiserver.k8s.io prioritylevelconfigurations.flowcontrol.apiserver.k8s.io
mutatingwebhookconfigurations.admissionregistration.k8s.io validatingwebhookconfigurations.admissionregistration.k8s.io
validatingadmissionpolicies.admissionregistration.k8s.io
validatingadmissionpolicybindings.admissionregistration.k8s.io
mutatingadmissionpolicies.admissionregistration.k8s.io mutatingadmissionpolicybindings.admissionregistration.k8s.io
deviceclasses.resource.k8s.io devicetaintrules.resource.k8s.io resourceclaims.resource.k8s.io(n)
resourceclaimtemplates.resource.k8s.io(n) resourcepoolstatusrequests.resource.k8s.io resourceslices.resource.k8s.io
podsecuritypolicies.policy podpresets.settings.k8s.io(n) auditsinks.auditregistration.k8s.io
clustercidrs.networking.k8s.io podschedulingcontexts.resource.k8s.io(n) resourceclasses.resource.k8s.io
podschedulings.resource.k8s.io(n) resourceclaimparameters.resource.k8s.io(n)
resourceclassparameters.resource.k8s.io(n) evictions.lifecycle.k8s.io(n)
"""
BUILT_IN = _TABLE.split()


@pytest.mark.parametrize(("key", "resource", "namespace"), RENAMED + OPENSHIFT)
def test_renamed_paths_lead_to_their_resource(key: str, resource: str, namespace: str | None) -> None:
    found = parsed(key.encode())
    assert (found.group_resource, found.namespace, found.encryptable) == (resource, namespace, True)
    assert found.name == key.rpartition("/")[2]


@pytest.mark.parametrize("row", BUILT_IN)
def test_every_built_in_type_is_known_with_its_scope(row: str) -> None:
    group_resource = row.removesuffix("(n)")
    namespaced = row.endswith("(n)")
    (known,) = [known for known in RESOURCE_TYPES if known.group_resource == group_resource]
    assert known.namespaced is namespaced
    (place,) = key_prefixes(known, "ns" if namespaced else None, "x")
    found = parsed(place)
    assert (found.group_resource, found.namespace, found.name) == (group_resource, "ns" if namespaced else None, "x")


def test_no_two_types_share_a_path_and_none_but_groups_has_a_dot() -> None:
    paths = [known.path for known in RESOURCE_TYPES]
    assert len(set(paths)) == len(paths)
    dotted = {known.group_resource for known in RESOURCE_TYPES if "." in known.path}
    assert dotted == {
        "apiservices.apiregistration.k8s.io",
        "customresourcedefinitions.apiextensions.k8s.io",
    }


def test_resource_segments_never_exceed_the_constant() -> None:
    lengths = {known.path: resource_segments(known.path.split("/")[0]) for known in RESOURCE_TYPES}
    assert lengths == {path: path.count("/") + 1 for path in lengths}
    assert max(lengths.values()) == MAX_RESOURCE_SEGMENTS
    assert resource_segments(b"cr.bar.com") == 2
    assert resource_segments(b"\xff\xfe") == 1


# -- odd keys --------------------------------------------------------------------------------------------------------


def test_an_unknown_plural_keeps_its_group_unknown() -> None:
    found = parsed(b"/registry/gadgets/ns/g")
    assert (found.resource, found.group, found.group_resource) == ("gadgets", None, "gadgets.?")
    assert found.encryptable


@pytest.mark.parametrize(
    "key", [b"", b"/", b"/registry", b"/registryx/secrets/ns/s", b"registry/secrets/ns/s", b"\xff\xfe", b"health"]
)
def test_a_key_under_no_prefix_is_nothing_of_ours(key: bytes) -> None:
    assert parse_key(key) is None


@pytest.mark.parametrize(
    ("key", "namespace", "name"),
    [
        (b"/registry/secrets", None, ""),
        (b"/registry/secrets/", None, ""),
        (b"/registry/secrets/alone", None, "alone"),
        (b"/registry/secrets//s", "", "s"),
        (b"/registry/secrets/ns/a/b", "ns", "a/b"),
        (b"/registry/secrets/ns/\xff", "ns", "\\xff"),
    ],
)
def test_odd_keys_keep_their_resource(key: bytes, namespace: str | None, name: str) -> None:
    found = parsed(key)
    assert (found.group_resource, found.namespace, found.name) == ("secrets", namespace, name)
    assert bytes(found) == key


@pytest.mark.parametrize(
    "spelling", ["mine/prod", "/mine/prod", "/mine/prod/", "//mine/prod", "/mine/./prod", "x/../mine//prod"]
)
def test_a_prefix_may_be_spelled_as_the_flag_allows(spelling: str) -> None:
    found = parsed(b"/mine/prod/secrets/ns/s", spelling)
    assert (found.prefix, found.group_resource) == ("/mine/prod", "secrets")


def test_the_longer_prefix_wins_and_an_empty_one_is_the_root() -> None:
    assert parsed(b"/a/b/secrets/ns/s", "/a", "/a/b").prefix == "/a/b"
    assert parsed(b"/secrets/ns/s", "").group_resource == "secrets"


# -- kubectl's words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "resource"),
    [
        ("secret", "secrets"),
        ("secrets", "secrets"),
        ("Secret", "secrets"),
        ("po", "pods"),
        ("cm", "configmaps"),
        ("sa", "serviceaccounts"),
        ("svc", "services"),
        ("no", "nodes"),
        ("ns", "namespaces"),
        ("pvc", "persistentvolumeclaims"),
        ("deploy.apps", "deployments.apps"),
        ("deployments.v1.apps", "deployments.apps"),
        ("deployments.v1beta1.extensions", "deployments.apps"),
        ("ing", "ingresses.networking.k8s.io"),
        ("ingress.extensions", "ingresses.networking.k8s.io"),
        ("event.events.k8s.io", "events"),
        ("crd", "customresourcedefinitions.apiextensions.k8s.io"),
        ("crds", "customresourcedefinitions.apiextensions.k8s.io"),
        ("pandas.awesome.bears.example", "pandas.awesome.bears.example"),
    ],
)
def test_a_type_is_found_by_the_words_kubectl_takes(word: str, resource: str) -> None:
    assert resolve_type(word).group_resource == resource


def test_no_word_names_two_built_in_types_of_kubernetes() -> None:
    words = [
        word
        for known in RESOURCE_TYPES
        if not known.group.endswith(".openshift.io")
        for word in {known.resource, known.kind.lower(), *known.short_names}
    ]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("word", ["", "secrte", "gadgets", "secrets.nonsense", "pandas.", "."])
def test_a_word_that_names_nothing_is_refused_with_what_to_do(word: str) -> None:
    with pytest.raises(UnknownType) as refused:
        resolve_type(word)
    assert refused.value.word == word
    assert "PLURAL.GROUP" in refused.value.hint


def test_a_misspelled_word_brings_the_likely_one() -> None:
    with pytest.raises(UnknownType) as refused:
        resolve_type("secrte")
    assert "did you mean secret" in refused.value.hint


def test_places_of_a_namespaced_type() -> None:
    secrets = resolve_type("secrets")
    assert key_prefixes(secrets) == (b"/registry/secrets/",)
    assert key_prefixes(secrets, "ns") == (b"/registry/secrets/ns/",)
    assert key_prefixes(secrets, "ns", "s", prefix="/kubernetes.io") == (b"/kubernetes.io/secrets/ns/s",)
    assert key_prefixes(secrets, name="s") == ()


def test_places_of_a_cluster_scoped_type_do_not_ask_for_a_namespace() -> None:
    nodes = resolve_type("node")
    assert key_prefixes(nodes, "ns") == (b"/registry/minions/",)
    assert key_prefixes(nodes, "ns", "n1") == key_prefixes(nodes, name="n1") == (b"/registry/minions/n1",)


def test_places_of_a_custom_resource_are_both_while_its_scope_is_unknown() -> None:
    pandas = resolve_type("pandas.awesome.bears.example")
    assert key_prefixes(pandas, "ns", "p") == (
        b"/registry/awesome.bears.example/pandas/ns/p",
        b"/registry/awesome.bears.example/pandas/p",
    )
    assert key_prefixes(pandas, name="p") == (b"/registry/awesome.bears.example/pandas/p",)
    assert key_prefixes(pandas, "ns") == (b"/registry/awesome.bears.example/pandas/ns/",)
