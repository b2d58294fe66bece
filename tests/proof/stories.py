"""What the stories have in common: configurations, the objects that are written, and how snaptool is called."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snaptool.scratch.server import EtcdBinaries, ScratchEtcd, find_etcd
from tests.proof.cluster import SERVICE_RANGE, KubeApiserver

NAMESPACE = "proof"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
CONFIGMAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
SERVICE_ACCOUNTS = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
WIDGETS = f"/apis/proof.example.com/v1/namespaces/{NAMESPACE}/widgets"
CANARY = "canary-in-plaintext"
OLD_KEY, NEW_KEY = "key-2025", "key-2026"

_WIDGET_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.proof.example.com"},
    "spec": {
        "group": "proof.example.com",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ],
    },
}


def secret_of(key: str) -> bytes:
    """The 32 bytes of a key, from its name."""
    return hashlib.sha256(key.encode()).digest()


def _keys(kind: str, names: tuple[str, ...]) -> str:
    listed = ", ".join(f"{{name: {name}, secret: {base64.b64encode(secret_of(name)).decode()}}}" for name in names)
    return f"{kind}: {{keys: [{listed}]}}"


def aescbc(*names: str) -> str:
    """An aescbc provider; the first key writes."""
    return _keys("aescbc", names)


def secretbox(*names: str) -> str:
    """A secretbox provider."""
    return _keys("secretbox", names)


def kms(version: str, endpoint: str) -> str:
    """A KMS provider of an API version."""
    return f"kms: {{apiVersion: {version}, name: proof-kms, endpoint: '{endpoint}', timeout: 5s}}"


def configuration(*providers: str) -> str:
    """A configuration of these providers, for everything that the stories look at."""
    lines = [
        "apiVersion: apiserver.config.k8s.io/v1",
        "kind: EncryptionConfiguration",
        "resources:",
        "- resources: [secrets, configmaps, widgets.proof.example.com]",
        "  providers:",
        *(f"  - {provider}" for provider in providers),
    ]
    return "\n".join(lines) + "\n"


def fill(server: KubeApiserver, when: str, *, large: bool = True) -> None:
    """Write objects of three kinds; when it is `after`, also change, delete and re-create some of those `before`."""
    if when == "before":
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        server.write("POST", "/api/v1/namespaces", namespace)
        server.write("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", _WIDGET_DEFINITION)
        server.wait_for(WIDGETS)
    for number in range(6):
        for path, value in ((SECRETS, _secret), (CONFIGMAPS, _config_map), (WIDGETS, _widget)):
            server.write("POST", path, value(f"{when}-{number}"))
    if when == "after":
        server.write("PUT", f"{SECRETS}/before-0", _secret("before-0", note="written again"))
        for path in (SECRETS, WIDGETS):
            assert server.request("DELETE", f"{path}/before-1").status == 200
        server.write("POST", f"{WIDGETS}", _widget("before-1"))
        server.write("POST", f"{SECRETS}", _secret("before-1", note="made again"))
        _fill_rich(server)
        if large:  # larger than many pages of etcd's file
            server.write("POST", SECRETS, _secret("large", note="x" * 300_000))


def _fill_rich(server: KubeApiserver) -> None:
    """One object of each kind that snaptool shows whole, with every field that a client can set."""
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": NAMESPACE, "uid": "0", "blockOwnerDeletion": True}
    metadata = {
        "name": "rich",
        "generateName": "rich-",
        "labels": {"app": "proof", "empty": ""},
        "annotations": {"proof.example.com/note": "über\n", "proof.example.com/empty": ""},
        "ownerReferences": [owner | {"controller": True}],
        "finalizers": ["proof.example.com/stays"],
    }
    head = {"apiVersion": "v1", "metadata": metadata}
    login = {"username": "bm9ib2R5", "password": ""}
    secret = {"kind": "Secret", "type": "kubernetes.io/basic-auth", "immutable": True, "data": login}
    server.write("POST", SECRETS, head | secret)
    config_map = {
        "kind": "ConfigMap",
        "immutable": False,
        "data": {"empty": ""},
        "binaryData": {"bytes": "AP8=", "none": ""},
    }
    server.write("POST", CONFIGMAPS, head | config_map)
    # It stays, because of its finalizer, with the time of its deletion.
    assert server.request("DELETE", f"{CONFIGMAPS}/rich").status == 200
    account = {"kind": "ServiceAccount", "imagePullSecrets": [{"name": "pull"}], "secrets": [{"name": "token"}]}
    server.write("POST", SERVICE_ACCOUNTS, head | account | {"automountServiceAccountToken": False})


def _secret(name: str, note: str = "") -> dict[str, Any]:
    data = {"password": f"{CANARY} {name}", "note": note}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def _config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": f"{CANARY} {name}"}}


def _widget(name: str) -> dict[str, Any]:
    version = "proof.example.com/v1"
    return {"apiVersion": version, "kind": "Widget", "metadata": {"name": name}, "spec": {"text": f"{CANARY} {name}"}}


def read_all(server: KubeApiserver) -> dict[str, dict[str, Any]]:
    """Every object whole, as a client sees it: path to objects by name."""
    return {path: server.items(path) for path in (SECRETS, CONFIGMAPS, SERVICE_ACCOUNTS, WIDGETS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """What runs. `folder`: where scratch directories go; short, because sockets lie in them."""

    apiserver: Path
    etcd: EtcdBinaries
    folder: Path
    versions: str

    def boot(self, snapshot: Path | None) -> ScratchEtcd:
        """Start etcd on a copy of a snapshot, or on nothing, where an API server can reach it."""
        if snapshot is None:
            return ScratchEtcd.fresh(binaries=self.etcd, parent=self.folder, tcp=True)
        return ScratchEtcd.restore(snapshot, binaries=self.etcd, parent=self.folder, tcp=True)

    def boot_data(self, data: Path) -> ScratchEtcd:
        """Start etcd on a copy of a data directory."""
        return ScratchEtcd.data_dir(data, force_new_cluster=False, binaries=self.etcd, parent=self.folder, tcp=True)

    def serve(
        self,
        etcd: ScratchEtcd,
        config: str | None,
        *,
        ready: str = "/readyz",
        service_range: str = SERVICE_RANGE,
    ) -> KubeApiserver:
        """Start kube-apiserver on a running etcd."""
        return KubeApiserver.start(
            self.apiserver, etcd, config, parent=self.folder, ready=ready, service_range=service_range
        )


def find_programs(apiserver: Path, kubernetes: str, etcd_folder: Path, folder: Path) -> Programs:
    """A kube-apiserver of a version, and the etcd of a folder."""
    etcd = find_etcd(etcd_folder)
    versions = f"kube-apiserver {kubernetes}, etcd {'.'.join(map(str, etcd.version))}"
    return Programs(apiserver=apiserver, etcd=etcd, folder=folder, versions=versions)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A snapshot that was taken of a cluster while it ran, and what its API served then: path to objects by name."""

    snapshot: Path
    served: dict[str, dict[str, Any]] = field(repr=False)


def make_cluster(programs: Programs, snapshot: Path, *, large: bool = True) -> Cluster:
    """Run a cluster whose aescbc key is rotated half-way, and take a snapshot of it at the end."""
    with programs.boot(None) as etcd:
        with programs.serve(etcd, configuration(aescbc(OLD_KEY))) as server:
            version = server.get("/version").body["gitVersion"]
            assert f"kube-apiserver {version.removeprefix('v')}," in programs.versions
            fill(server, "before")
        with programs.serve(etcd, configuration(aescbc(NEW_KEY, OLD_KEY))) as server:
            fill(server, "after", large=large)
            served = read_all(server)
        save(etcd, snapshot)
    return Cluster(snapshot, served)


def save(etcd: ScratchEtcd, snapshot: Path) -> None:
    """Take a snapshot of a running etcd."""
    etcd.client().defragment()
    stream = io.BytesIO()
    etcd.client().save(stream)
    snapshot.write_bytes(stream.getvalue())


@dataclass(frozen=True, slots=True)
class Ran:
    """A command of snaptool: exit code and output."""

    code: int
    out: str
    err: str


def snaptool(*arguments: str | Path) -> Ran:
    """Run a command as an operator would, in a process of its own."""
    command = [sys.executable, "-m", "snaptool", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return Ran(done.returncode, done.stdout, done.stderr)
