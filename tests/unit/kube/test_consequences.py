import time

import pytest

from snaptool.kube.consequences import consequence
from snaptool.kube.keys import parse_key

CLUSTER = {
    b"/registry/serviceaccounts/shop/builder",
    b"/registry/cert-manager.io/certificates/shop/web",
    b"/registry/secrets/shop/sh.helm.release.v1.app.v2",
    b"/registry/secrets/shop/sh.helm.release.v1.app.v5",
}


def said(key: str, cluster: set[bytes] | None = None) -> str:
    parsed = parse_key(f"/registry/{key}".encode())
    assert parsed is not None
    return consequence(parsed) if cluster is None else consequence(parsed, cluster.__contains__)


@pytest.mark.parametrize(
    ("key", "fragment"),
    [
        ("secrets/shop/builder-token-x7k2p", "looks like a token of service account builder"),
        ("secrets/kube-system/bootstrap-token-abcdef", "kubeadm token create"),
        ("secrets/kube-system/kubeadm-certs", "upload-certs"),
        ("secrets/shop/shop-tls", "create it again from where its content comes from"),
        ("secrets/shop/tls", "create it again from where its content comes from"),
        ("secrets/openshift-monitoring/prometheus-serving-cert", "service CA"),
        ("secrets/openshift-config-managed/encryption-key-openshift-kube-apiserver-3", "OpenShift's own encryption"),
        ("secrets/openshift-machine-api/worker-user-data", "new machines"),
        ("secrets/shop/sh.helm.release.v1.my.app.v12", "release my.app, revision 12"),
        ("configmaps/shop/sh.helm.release.v1.app.v1", "release app, revision 1"),
        ("secrets/shop/regcred", "docker-registry NAME -n shop"),
        ("secrets/shop/team-pull-secret", "docker-registry"),
        ("secrets/shop/gitlab-registry", "docker-registry"),
        ("secrets/shop/default-dockercfg-bcdf5", "OpenShift's registry credentials of service account default"),
        ("secrets/cert-manager/cert-manager-webhook-ca", "cert-manager's own key"),
        ("secrets/shop/db-password", "create it again from where its content comes from"),
        ("configmaps/shop/kube-root-ca.crt", "nothing to do"),
        ("configmaps/kube-system/coredns", "addon coredns"),
        ("configmaps/kube-system/extension-apiserver-authentication", "nothing to do"),
        ("configmaps/shop/settings", "its manifest"),
        ("persistentvolumeclaims/shop/data", "DATA IS DELETED"),
        ("deployments/shop/web", "garbage collector"),
        ("minions/n1", "restart its kubelet"),
        ("namespaces/kube-system", "kube-apiserver makes it again"),
        ("namespaces/shop", "kubectl create namespace shop"),
        ("serviceaccounts/shop/default", "a controller makes it again"),
        ("clusterroles/system:node", "default roles"),
        ("clusterroles/mine", "apply it again"),
        ("apiextensions.k8s.io/customresourcedefinitions/foos.cr.bar.com", "foos.cr.bar.com objects"),
        ("validatingwebhookconfigurations/policy", "without this check"),
        ("oauth/accesstokens/sha256~x", "oc login"),
        ("cr.bar.com/foos/shop/x", "a custom resource"),
        ("gadgets/shop/x", "older backup"),
        ("secrets", "create it again"),
    ],
)
def test_a_lost_object_is_recognised_by_its_key(key: str, fragment: str) -> None:
    assert fragment in said(key)


def test_a_token_of_a_living_service_account_is_told_from_one_of_a_gone_one() -> None:
    assert said("secrets/shop/builder-token-x7k2p", CLUSTER).startswith("a token of service account builder")
    assert "does not exist any more" in said("secrets/shop/gone-token-x7k2p", CLUSTER)
    assert "does not exist any more" in said("secrets/other/builder-token-x7k2p", CLUSTER)


@pytest.mark.parametrize("name", ["builder-token-x7k2", "builder-token-x7k2pp", "builder-token-aeiou", "-token-x7k2p"])
def test_a_name_that_no_token_controller_makes_is_no_token(name: str) -> None:
    assert "service account" not in said(f"secrets/shop/{name}")


@pytest.mark.parametrize("name", ["web", "web-tls", "web-cert"])
def test_a_neighbouring_certificate_means_that_cert_manager_issues_another(name: str) -> None:
    assert "cert-manager Certificate web" in said(f"secrets/shop/{name}", CLUSTER)
    assert "cert-manager Certificate" not in said(f"secrets/other/{name}", CLUSTER)


def test_other_records_of_a_helm_release_decide_what_to_do() -> None:
    assert "a newer record exists" in said("secrets/shop/sh.helm.release.v1.app.v4", CLUSTER)
    assert "helm rollback app 5 -n shop" in said("secrets/shop/sh.helm.release.v1.app.v6", CLUSTER)
    assert "helm rollback app 5 -n shop" in said("secrets/shop/sh.helm.release.v1.app.v8", CLUSTER)
    assert "helm upgrade --install other" in said("secrets/shop/sh.helm.release.v1.other.v1", CLUSTER)
    assert "helm upgrade --install app" in said("configmaps/shop/sh.helm.release.v1.app.v6", CLUSTER)


def test_neighbours_are_looked_for_under_the_prefix_of_the_key() -> None:
    key = parse_key(b"/kubernetes.io/secrets/shop/builder-token-x7k2p")
    assert key is not None
    asked: list[bytes] = []

    def exists(place: bytes) -> bool:
        asked.append(place)
        return False

    consequence(key, exists)
    assert asked == [b"/kubernetes.io/serviceaccounts/shop/builder"]


@pytest.mark.parametrize(
    "name", ["{0}-tls", "{base}-tls", "a\nb-tls", "pull-secret-" * 60_000 + "\n", "x" * 600_000 + "-tls"]
)
def test_hostile_names_give_one_line_soon(name: str) -> None:
    began = time.monotonic()
    line = said(f"secrets/shop/{name}", CLUSTER)
    assert time.monotonic() - began < 1
    assert "\n" not in line
    assert len(line) < 1000


@pytest.mark.parametrize(
    ("name", "content", "fragment"),
    [
        ("web", {"type": "kubernetes.io/tls"}, "kubectl create secret tls web -n shop"),
        ("web-tls", {"type": "Opaque"}, "create it again from where its content comes from"),
        (
            "robot",
            {
                "type": "kubernetes.io/service-account-token",
                "metadata": {"annotations": {"kubernetes.io/service-account.name": "ci"}},
            },
            "made by hand: apply the Secret robot again",
        ),
        ("ci-token-x7k2p", {"type": "kubernetes.io/service-account-token"}, "that a controller made"),
        ("pull", {"type": "kubernetes.io/dockerconfigjson"}, "docker-registry pull -n shop"),
    ],
)
def test_the_content_of_an_older_revision_says_what_a_secret_was(
    name: str, content: dict[str, object], fragment: str
) -> None:
    parsed = parse_key(f"/registry/secrets/shop/{name}".encode())
    assert parsed is not None
    assert fragment in consequence(parsed, None, content)
