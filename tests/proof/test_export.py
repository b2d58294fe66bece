"""What `export` writes is applied by kubectl, with the commands that it prints, to API servers that are not the old.

Read back, it is exported again and compared: nothing was lost on the way, and nothing of the old cluster came along.
The servers have no controllers, so that nothing is bound, deleted or started.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.build import pinned
from tests.proof.cluster import KubeApiserver
from tests.proof.stories import Programs, save, snaptool
from tests.support.cli import GOLDEN
from tests.support.peers import peer

pytestmark = pytest.mark.proof

FIELD = GOLDEN / "cases" / "field2"
RANGES = ("10.111.0.0/24", "fd00:111::/112", "10.111.0.0/24,fd00:111::/112")

WHOLE = (
    *("06-quota-first", "10-cr-pruned-fields", "12-cr-owned", "14-openshift-dockercfg", "17-webhook-in-namespace"),
    *("23-helm-release", "27-old-crds"),
)
ADMITTED = {"Pod/debug"}
"""Its LimitRange and the admission of Pods add to it: everything else comes back as it was."""


class Kubectl:
    """kubectl on one server; commands are run as they were printed, by a shell."""

    def __init__(self, server: KubeApiserver, folder: Path) -> None:
        path = f"{peer('kubectl', pinned('kubectl')[0])}{os.pathsep}{os.environ['PATH']}"
        self._environment = os.environ | {"PATH": path, "KUBECONFIG": str(server.kubeconfig()), "HOME": str(folder)}

    def __call__(self, command: str, *, succeeds: bool = True) -> str:
        done = subprocess.run(
            ["bash", "-c", command], env=self._environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert (done.returncode == 0) is succeeds, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


def export(source: Path, namespace: str, target: Path) -> tuple[list[str], list[Any]]:
    """Export a namespace twice: as a directory, whose commands are returned, and as documents."""
    ran = snaptool("export", source, "-n", namespace, "--to", target)
    assert ran.code == 0, ran
    documents = snaptool("export", source, "-n", namespace, "--format", "json")
    return re.findall("(?m)^  (kubectl .*)", ran.err), json.loads(documents.out)["items"]


def _without_gated(documents: list[Any]) -> list[Any]:
    """Leave out what only a feature gate lets in, which older servers have closed."""
    for one in documents:
        if one["kind"] == "StatefulSet":
            one["spec"]["updateStrategy"]["rollingUpdate"].pop("maxUnavailable", None)
    return documents


def called(documents: list[Any]) -> dict[str, Any]:
    """Documents by kind and name."""
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in documents}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A namespace of a real cluster with some thirty kinds of objects."""
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    path.write_bytes(gzip.decompress((GOLDEN / "export" / "export-shop.db.gz").read_bytes()))
    return path


@pytest.mark.parametrize("service_range", RANGES)
def test_a_namespace_is_applied_twice_to_a_fresh_cluster(
    programs: Programs, shop: Path, tmp_path: Path, service_range: str, proven: Callable[[str], None]
) -> None:
    commands, documents = export(shop, "shop", tmp_path / "out")
    assert len(commands) == 3
    with programs.boot(None) as etcd, programs.serve(etcd, None, service_range=service_range) as server:
        kubectl = Kubectl(server, tmp_path)
        for command in commands[:2]:
            kubectl(command)
        before = _contents(server)
        for command in commands[:2]:
            kubectl(command)
        assert _contents(server) == before
        save(etcd, tmp_path / "again.db")
        addresses = [one["spec"].get("clusterIP", "") for one in server.items("/api/v1/services").values()]
    _, again = export(tmp_path / "again.db", "shop", tmp_path / "again")
    want, found = (called(_without_gated(one)) for one in (documents, again))
    assert found.keys() == want.keys() | {"ServiceAccount/default"}
    assert {name for name in want if found[name] != want[name]} <= ADMITTED
    assert not any(address.startswith("10.96.") for address in addresses)
    proven(f"a namespace exported, applied twice and read back, service range {service_range}")


def _contents(server: KubeApiserver) -> dict[str, Any]:
    """What can be seen of the namespace's objects, but for what every write changes."""
    found = {}
    for path in ("/api/v1/namespaces/shop/secrets", "/api/v1/namespaces/shop/services", "/api/v1/persistentvolumes"):
        for item in server.get(path).body["items"]:
            for name in ("resourceVersion", "managedFields", "generation"):
                item["metadata"].pop(name, None)
            found[f"{path}/{item['metadata']['name']}"] = item
    deployments = server.items("/apis/apps/v1/namespaces/shop/deployments")
    return found | {name: one["spec"] for name, one in deployments.items()}


@pytest.fixture(scope="module")
def fresh(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KubeApiserver, Kubectl]]:
    """A server for situations that do not get in each other's way."""
    with programs.boot(None) as etcd, programs.serve(etcd, None, service_range=RANGES[0]) as server:
        yield server, Kubectl(server, tmp_path_factory.mktemp("home"))


def situation(folder: str) -> tuple[Path, str]:
    """The snapshot of a situation and its namespace."""
    _, snapshot, _, namespace, *_ = json.loads((FIELD / folder / "expected.json").read_text())["command"]
    return FIELD / folder / snapshot, namespace


@pytest.mark.parametrize("folder", WHOLE)
def test_situations_are_accepted_whole(
    fresh: tuple[KubeApiserver, Kubectl], folder: str, tmp_path: Path, proven: Callable[[str], None]
) -> None:
    _, kubectl = fresh
    commands, documents = export(*situation(folder), tmp_path / "out")
    for command in commands * 2:
        kubectl(command)
    for one in documents:
        metadata = one["metadata"]
        where = f"-n {metadata['namespace']}" if "namespace" in metadata else ""
        group = one["apiVersion"].rpartition("/")[0]
        kind = f"{one['kind']}.{group}" if group else one["kind"]
        shown = json.loads(kubectl(f"kubectl get {kind} {metadata['name']} {where} -o json"))
        for field in ("spec", "data", "rules"):
            if field in one and one["kind"] not in {"Pod", "CustomResourceDefinition", "Service"}:
                assert shown[field] == one[field] or _is_within(one[field], shown[field])
    proven(f"{folder}: applied twice")


def _is_within(part: Any, whole: Any) -> bool:
    """Is everything that was applied there? Servers add defaults."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and _is_within(value, whole[name]) for name, value in part.items())
    if isinstance(part, list) and isinstance(whole, list) and len(part) == len(whole):
        return all(map(_is_within, part, whole))
    return bool(part == whole)


def test_03_a_volume_that_is_still_there_binds_after_the_third_command(
    fresh: tuple[KubeApiserver, Kubectl], tmp_path: Path, proven: Callable[[str], None]
) -> None:
    server, kubectl = fresh
    commands, documents = export(*situation("03-pv-released"), tmp_path / "out")
    volume = called(documents)["PersistentVolume/pvc-7c1e"]
    spec = volume["spec"] | {"claimRef": volume["spec"]["claimRef"] | {"uid": "00000000-0000-0000-0000-000000000001"}}
    server.write("POST", "/api/v1/persistentvolumes", volume | {"spec": spec})
    *applied, patch = commands
    for command in applied:
        kubectl(command)
    path = "/api/v1/persistentvolumes/pvc-7c1e"
    assert server.get(path).body["spec"]["claimRef"]["uid"]
    kubectl(patch)
    assert "uid" not in server.get(path).body["spec"]["claimRef"]
    proven("03-pv-released: apply leaves the uid, the third command takes it away")


def test_05_what_apply_refuses_is_created(
    fresh: tuple[KubeApiserver, Kubectl], tmp_path: Path, proven: Callable[[str], None]
) -> None:
    server, kubectl = fresh
    (apply, create), documents = export(*situation("05-duplicate-list-keys"), tmp_path / "out")
    kubectl(apply)
    refused = kubectl(f"kubectl apply --server-side -R -f {tmp_path}/out/5-create", succeeds=False)
    assert "duplicate entries for key" in refused
    kubectl(create)
    for name in ("web", "pull"):
        shown = server.get(f"/apis/apps/v1/namespaces/shop/deployments/{name}").body
        assert _is_within(called(documents)[f"Deployment/{name}"]["spec"], shown["spec"])
    proven("05-duplicate-list-keys: apply refuses, create takes")


def test_06_a_quota_before_what_it_counts_would_refuse_it(
    fresh: tuple[KubeApiserver, Kubectl], tmp_path: Path, proven: Callable[[str], None]
) -> None:
    server, kubectl = fresh
    _, documents = export(*situation("06-quota-first"), tmp_path / "out")
    quota = called(documents)["ResourceQuota/limits"]
    server.write("POST", "/api/v1/namespaces", {"metadata": {"name": "full"}})
    made = server.write(
        "POST", "/api/v1/namespaces/full/resourcequotas", {"metadata": {"name": "limits"}, "spec": quota["spec"]}
    )
    hard = quota["spec"]["hard"]
    status = {"hard": hard, "used": dict.fromkeys(hard, "0")}
    server.write("PUT", "/api/v1/namespaces/full/resourcequotas/limits/status", made | {"status": status})
    refused = 0
    for name in ("c0", "c1", "c2", "c3"):
        document = called(documents)[f"ConfigMap/{name}"] | {"metadata": {"name": name}}
        refused += server.request("POST", "/api/v1/namespaces/full/configmaps", document).status == 403
    assert refused == 2
    assert kubectl(f"kubectl apply --server-side -R -f {tmp_path}/out")  # here it comes last
    proven("06-quota-first: the quota refuses what comes after it")


def test_a_stream_with_definitions_is_applied_at_the_second_time(
    fresh: tuple[KubeApiserver, Kubectl], tmp_path: Path, proven: Callable[[str], None]
) -> None:
    """What the commands say for one file: kubectl applies what it knows, and the rest when it is told again."""
    _, kubectl = fresh
    source, namespace = situation("08-cr-old-version")
    stream = tmp_path / "stream.yaml"
    ran = snaptool("export", source, "cars.example.com", "-n", namespace, "--to", stream)
    assert ran.code == 0, ran
    command = re.findall("(?m)^  (kubectl .*)", ran.err)[0]
    assert "twice" in ran.err
    kubectl(command, succeeds=False)
    kubectl("kubectl wait --for=condition=Established --timeout=60s crd/cars.example.com")
    kubectl(command)
    assert "new" in kubectl(f"kubectl get cars.example.com -n {namespace} -o name")
    proven("a stream with definitions: applied twice")
