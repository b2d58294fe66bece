"""export as its users run it: cases by number, options, refusals, files; docs/export.md."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from snaptool.cli import run
from tests.support.cli import Ran, Snaptool
from tests.support.objects import Change, Tree, crd, gone, key_of, namespace, owned_by, thing, write_objects
from tests.unit.operations.builders import seal_cbc

KEY = bytes(range(32))
CONFIG = f"""\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets, configmaps]
  providers:
  - aescbc: {{keys: [{{name: key1, secret: {base64.b64encode(KEY).decode()}}}]}}
  - identity: {{}}
"""

SECRET = thing("v1", "Secret", "db", data={"password": base64.b64encode(b"s3cr3t-of-db").decode()}, type="Opaque")
MAP = thing("v1", "ConfigMap", "settings", data={"k": "v"})


class Exporting:
    """Exports from a snapshot of some objects, and gives back documents."""

    def __init__(self, snaptool: Snaptool) -> None:
        self.snaptool = snaptool
        self.source = snaptool.folder / "cluster.db"
        self.ran: Ran | None = None

    def write(self, *changes: Change, **how: Any) -> None:
        write_objects(self.source, *changes, **how)

    def __call__(self, *options: str | Path) -> list[Tree]:
        """Export to a JSON stream; the report is kept too."""
        target, report = self.snaptool.folder / "out.json", self.snaptool.folder / "report.json"
        for path in (target, report):
            path.unlink(missing_ok=True)
        self.ran = self.snaptool(
            "export", self.source, *options, "--format", "json", "--report", report, makes=[report], shows_secrets=True
        )
        items: list[Tree] = json.loads(self.ran.stdout)["items"]
        return items

    @property
    def report(self) -> Any:
        return json.loads((self.snaptool.folder / "report.json").read_text())

    @property
    def left_out(self) -> dict[str, str]:
        return {one["key"].removeprefix("/registry/"): one["reason"] for one in self.report["left_out"]}

    @property
    def notes(self) -> str:
        assert self.ran is not None
        return self.ran.stderr


@pytest.fixture
def exporting(snaptool: Snaptool) -> Exporting:
    return Exporting(snaptool)


def names(documents: list[Tree]) -> list[str]:
    return [f"{one['kind']}/{one['metadata']['name']}" for one in documents]


def pod_spec(**fields: Any) -> Tree:
    return {"containers": [{"name": "app", "image": "registry.example/app:1"}]} | fields


# --- what is removed -------------------------------------------------------------------------------------------------


def test_37_chosen_ports_stay_and_allocated_ones_go(exporting: Exporting) -> None:
    chosen = {
        "manager": "kubectl",
        "operation": "Update",
        "apiVersion": "v1",
        "fieldsV1": {"f:spec": {"f:ports": {'k:{"port":81,"protocol":"TCP"}': {"f:nodePort": {}, "f:port": {}}}}},
    }
    ports = [{"port": 80, "protocol": "TCP", "nodePort": 31234}, {"port": 81, "protocol": "TCP", "nodePort": 30081}]
    spec = {"type": "NodePort", "clusterIP": "10.96.3.4", "clusterIPs": ["10.96.3.4"], "ports": ports}
    families = {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}
    headless = {"clusterIP": "None", "clusterIPs": ["None"]} | families
    exporting.write(
        namespace(),
        thing("v1", "Service", "np", metadata={"managedFields": [chosen]}, spec=spec | families),
        thing("v1", "Service", "hl", spec=headless),
    )
    hl, np = exporting("services", "-n", "shop", "--cluster", "none")
    assert hl["spec"] == {"clusterIP": "None", "clusterIPs": ["None"]}
    assert np["spec"] == {
        "type": "NodePort",
        "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP", "nodePort": 30081}],
    }
    hl, np = exporting("services", "-n", "shop", "--cluster", "none", "--keep-allocated")
    assert (hl["spec"], np["spec"]) == (headless, spec | families)


def test_38_a_definition_and_its_object_are_never_in_the_first_command_together(snaptool: Snaptool) -> None:
    source = write_objects(
        snaptool.folder / "c.db", namespace(), crd(), thing("example.com/v1", "Widget", "w", spec={})
    )
    out = snaptool.folder / "out"
    made = [
        out / "1-crds/02-customresourcedefinition.widgets.example.com.yaml",
        out / "2-cluster/01-namespace.shop.yaml",
        out / "3-namespaces/shop/46-widget.example.com.w.yaml",
    ]
    ran = snaptool("export", source, "-n", "shop", "--to", out, makes=made)
    wait = f"kubectl wait --for=condition=Established --timeout=60s -f {out}/1-crds"
    assert re.findall("(?m)^  (kubectl .*)", ran.stderr) == [
        f"kubectl apply --server-side -f {out}/1-crds && {wait}",
        f"kubectl apply --server-side -R -f {out}",
    ]


def test_39_an_owned_secret_stays_without_its_owner_and_an_owned_pod_is_left_out(exporting: Exporting) -> None:
    owner = thing("apps/v1", "ReplicaSet", "web-1", spec={})
    exporting.write(
        namespace(),
        owner,
        thing("v1", "Secret", "made", metadata=owned_by(owner), data={}, type="Opaque"),
        thing("v1", "Pod", "web-1-x", metadata=owned_by(owner), spec=pod_spec()),
    )
    assert names(exporting("-n", "shop")) == ["Namespace/shop", "Secret/made", "ReplicaSet/web-1"]
    assert exporting.left_out == {"pods/shop/web-1-x": "owned"}
    assert "Secret shop/made: owner ReplicaSet shop/web-1 dropped" in exporting.notes
    (pod,) = exporting("pods", "-n", "shop", "--cluster", "none")
    assert pod["metadata"] == {"name": "web-1-x", "namespace": "shop"}


def test_40_what_is_left_out_has_its_reason(exporting: Exporting) -> None:
    token = {"kubernetes.io/service-account.name": "web"}
    deleted = {"deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": ["x.example.com/y"]}
    exporting.write(
        namespace(),
        MAP,
        thing("v1", "ServiceAccount", "web", secrets=[{"name": "web-token-bcdfg"}, {"name": "own"}]),
        thing(
            *("v1", "Secret", "web-token-bcdfg"),
            metadata={"annotations": token},
            data={"token": "dA=="},
            type="kubernetes.io/service-account-token",
        ),
        thing("v1", "Secret", "boot", data={}, type="bootstrap.kubernetes.io/token"),
        thing("v1", "Pod", "done", spec=pod_spec(), status={"phase": "Succeeded"}),
        thing("v1", "Pod", "going", metadata=deleted, spec=pod_spec()),
        thing("v1", "Pod", "static", metadata={"annotations": {"kubernetes.io/config.mirror": "x"}}, spec=pod_spec()),
        thing("batch/v1", "Job", "ran", spec={}, status={"conditions": [{"type": "Complete", "status": "True"}]}),
        thing("v1", "ConfigMap", "lock", metadata={"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}),
        thing("v1", "ConfigMap", "kube-root-ca.crt", data={"ca.crt": "x"}),
        thing("v1", "Event", "e.1", reason="r"),
        thing("v1", "Service", "web", spec={"selector": {"app": "web"}}),
        thing("v1", "Endpoints", "web", subsets=[]),
        thing("v1", "Service", "far", spec={}),
        thing("v1", "Endpoints", "far", subsets=[]),
    )
    documents = exporting("-n", "shop")
    assert names(documents) == [
        *("Namespace/shop", "ServiceAccount/web", "ConfigMap/settings", "Service/far", "Service/web", "Endpoints/far"),
    ]
    assert documents[1]["secrets"] == [{"name": "own"}]
    assert exporting.left_out == {
        "configmaps/shop/kube-root-ca.crt": "published",
        "configmaps/shop/lock": "leader",
        "events/shop/e.1": "generated",
        "jobs/shop/ran": "ended",
        "pods/shop/done": "ended",
        "pods/shop/going": "terminating",
        "pods/shop/static": "mirror",
        "secrets/shop/boot": "token",
        "secrets/shop/web-token-bcdfg": "token",
        "services/endpoints/shop/web": "generated",
    }


def test_41_a_token_made_by_hand_is_emptied(exporting: Exporting) -> None:
    account = thing("v1", "ServiceAccount", "ci")
    made_for = {
        "kubernetes.io/service-account.name": "ci",
        "kubernetes.io/service-account.uid": account["metadata"]["uid"],
    }
    data = {"token": "dA==", "ca.crt": "dA==", "namespace": "dA==", "extra": "dA=="}
    kind = "kubernetes.io/service-account-token"
    exporting.write(
        namespace(),
        account,
        thing("v1", "Secret", "ci-token-build", metadata={"annotations": made_for}, data=data, type=kind),
    )
    (secret,) = exporting("secrets", "-n", "shop", "--cluster", "none")
    assert secret["data"] == {"extra": "dA=="}
    assert secret["metadata"]["annotations"] == {"kubernetes.io/service-account.name": "ci"}
    assert "Secret/ci-token-build" in names(exporting("-n", "shop"))


def test_42_labels_of_a_job_go_unless_it_selects_by_hand(exporting: Exporting) -> None:
    by_server = {
        *("controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"),
    }
    its = dict.fromkeys(sorted(by_server), "x") | {"app": "m"}
    spec = {"selector": {"matchLabels": its}, "template": {"metadata": {"labels": its}, "spec": pod_spec()}}
    exporting.write(
        namespace(),
        thing("batch/v1", "Job", "auto", metadata={"labels": its}, spec=spec),
        thing("batch/v1", "Job", "hand", metadata={"labels": its}, spec=spec | {"manualSelector": True}),
    )
    auto, hand = exporting("jobs", "-n", "shop", "--cluster", "none")
    assert auto["metadata"]["labels"] == auto["spec"]["template"]["metadata"]["labels"] == {"app": "m"}
    assert "selector" not in auto["spec"]
    assert hand["spec"] == spec | {"manualSelector": True}
    assert hand["metadata"]["labels"] == its


def test_43_related_objects(exporting: Exporting) -> None:
    rbac = "rbac.authorization.k8s.io"

    def binding(kind: str, name: str, role: str, subject: Tree, where: str = "") -> Tree:
        ref = {"apiGroup": rbac, "kind": role.partition("/")[0], "name": role.partition("/")[2]}
        return thing(f"{rbac}/v1", kind, name, where, subjects=[subject], roleRef=ref)

    def role(name: str, where: str = "", **fields: Any) -> Tree:
        return thing(f"{rbac}/v1", "Role" if where else "ClusterRole", name, where, rules=[], **fields)

    web = {"kind": "ServiceAccount", "name": "web", "namespace": "shop"}
    group = {"kind": "Group", "name": "system:serviceaccounts:shop"}
    user = {"kind": "User", "name": "system:serviceaccount:shop:web"}
    other = {"kind": "ServiceAccount", "name": "web", "namespace": "other"}
    defaults = {"labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}
    exporting.write(
        namespace(),
        namespace("other"),
        thing("v1", "ServiceAccount", "web"),
        thing("apps/v1", "Deployment", "web", spec={"template": {"spec": pod_spec(priorityClassName="high")}}),
        thing("scheduling.k8s.io/v1", "PriorityClass", "high", "", value=1),
        thing("scheduling.k8s.io/v1", "PriorityClass", "unused", "", value=1),
        binding("ClusterRoleBinding", "by-account", "ClusterRole/aggregated", web),
        binding("ClusterRoleBinding", "by-group", "ClusterRole/view", group),
        binding("ClusterRoleBinding", "by-user", "ClusterRole/view", user),
        binding("ClusterRoleBinding", "of-others", "ClusterRole/theirs", other),
        binding("RoleBinding", "there", "Role/reader", web, "other"),
        role("reader", "other"),
        role("theirs"),
        role("aggregated", aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"part": "of-it"}}]}),
        role("part", metadata={"labels": {"part": "of-it"}}),
        role("view", metadata=defaults),
    )
    documents = exporting("-n", "shop")
    assert names(documents) == [
        *("Namespace/shop", "PriorityClass/high", "ServiceAccount/web"),
        *("ClusterRole/aggregated", "ClusterRole/part"),
        *("ClusterRoleBinding/by-account", "ClusterRoleBinding/by-group", "ClusterRoleBinding/by-user"),
        *("Role/reader", "RoleBinding/there", "Deployment/web"),
    ]
    assert "rules" not in documents[3]
    assert exporting.left_out == {"clusterroles/view": "default"}
    assert names(exporting("-n", "shop", "--cluster", "none")) == ["ServiceAccount/web", "Deployment/web"]
    every = names(exporting("-n", "shop", "--cluster", "all"))
    assert {"PriorityClass/unused", "ClusterRoleBinding/of-others"} <= set(every)


def test_44_a_claim_keeps_its_volume_or_gets_a_new_one(exporting: Exporting) -> None:
    ref = {"kind": "PersistentVolumeClaim", "namespace": "shop", "name": "data", "uid": "u", "resourceVersion": "3"}
    spec = {"claimRef": ref, "persistentVolumeReclaimPolicy": "Delete", "csi": {"driver": "d", "volumeHandle": "vol-1"}}
    bound = {"pv.kubernetes.io/bind-completed": "yes", "volume.kubernetes.io/selected-node": "n1", "mine": "x"}
    exporting.write(
        namespace(),
        thing("v1", "PersistentVolume", "pv-1", "", spec=spec),
        thing(
            *("v1", "PersistentVolumeClaim", "data"),
            metadata={"annotations": bound},
            spec={"volumeName": "pv-1", "dataSource": {"kind": "VolumeSnapshot", "name": "s"}},
        ),
    )
    _, volume, claim = exporting("-n", "shop")
    assert volume["spec"] == spec | {
        "claimRef": {"kind": "PersistentVolumeClaim", "namespace": "shop", "name": "data"},
        "persistentVolumeReclaimPolicy": "Retain",
    }
    assert claim["metadata"]["annotations"] == {"mine": "x"}
    assert "volume vol-1 of d" in exporting.notes
    assert "kubectl patch pv pv-1 --type json" in exporting.notes
    documents = exporting("-n", "shop", "--volumes", "new")
    assert names(documents) == ["Namespace/shop", "PersistentVolumeClaim/data"]
    assert documents[1]["spec"] == {}


def test_51_old_versions_become_the_served_ones(exporting: Exporting) -> None:
    backend = {"serviceName": "web", "servicePort": 80}
    rule = {"host": "h", "http": {"paths": [{"backend": {"serviceName": "web", "servicePort": "http"}}]}}
    job = thing("batch/v1beta1", "CronJob", "nightly", spec={"schedule": "@daily", "suspend": True})
    ingress = thing("extensions/v1beta1", "Ingress", "web", spec={"backend": backend, "rules": [rule]})
    budget = thing("policy/v1beta1", "PodDisruptionBudget", "all", spec={"selector": {}})
    kept = thing("autoscaling/v2beta1", "HorizontalPodAutoscaler", "web", spec={})
    exporting.write(namespace(), job, ingress, budget, kept)
    a_budget, an_autoscaler, a_job, an_ingress = exporting("-n", "shop", "--cluster", "none")
    assert [one["apiVersion"] for one in (a_budget, an_autoscaler, a_job, an_ingress)] == [
        *("policy/v1", "autoscaling/v2beta1", "batch/v1", "networking.k8s.io/v1"),
    ]
    service = {"name": "web", "port": {"name": "http"}}
    assert an_ingress["spec"] == {
        "rules": [
            {"host": "h", "http": {"paths": [{"backend": {"service": service}, "pathType": "ImplementationSpecific"}]}}
        ],
        "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
    }
    for needle in ("batch/v1beta1 became batch/v1", "selects all Pods", "autoscaling/v2beta1 is kept"):
        assert needle in exporting.notes
    unchanged = exporting("-n", "shop", "--cluster", "none", "--keep-api-versions")
    assert [one["spec"] for one in unchanged] == [one["spec"] for one in (budget, kept, job, ingress)]
    assert [one["apiVersion"] for one in unchanged] == [one["apiVersion"] for one in (budget, kept, job, ingress)]


def test_52_odd_texts_survive(exporting: Exporting) -> None:
    odd = {"del": "a\x7fb", "nel": "a\x85b", "bom": "\ufeffx", "tab": "\ta", "face": "\U0001f600", "cr": "a\rb\n"}
    odd |= {"no": "no", "number": "1e3", "empty": "", "space": " x ", "lines": "a\n\n b\n"}
    exporting.write(namespace(), thing("v1", "ConfigMap", "odd", data=odd))
    (document,) = exporting("configmaps", "-n", "shop", "--cluster", "none")
    assert document["data"] == odd
    ran = exporting.snaptool("export", exporting.source, "cm", "-n", "shop", "--cluster", "none")
    assert yaml.safe_load(ran.stdout)["data"] == odd
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", ran.text)


# --- Secrets and terminals -------------------------------------------------------------------------------------------


def test_45_secrets_on_a_terminal_are_refused(snaptool: Snaptool) -> None:
    source = write_objects(snaptool.folder / "c.db", namespace(), SECRET, MAP)
    code, shown = on_a_terminal("export", source, "-n", "shop")
    assert code == 2
    assert b"--to" in shown
    assert b"--secrets skip" in shown
    assert SECRET["data"]["password"].encode() not in shown
    code, shown = on_a_terminal("export", source, "-n", "shop", "--secrets", "skip")
    assert (code, b"kind: ConfigMap" in shown, b"kind: Secret" in shown) == (0, True, False)
    code, shown = on_a_terminal("export", source, "-n", "shop", "--secrets", "redact")
    assert (code, b"kind: Secret" in shown) == (0, True)
    assert SECRET["data"]["password"].encode() not in shown


def on_a_terminal(*arguments: str | Path) -> tuple[int, bytes]:
    """Run with stdout and stderr on a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "snaptool", *arguments], stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 65536):
                shown += block
        except OSError:  # the terminal is gone with its last process
            pass
        os.close(ours)
    return process.returncode, shown


def test_45_redacted_manifests_have_no_value_of_the_source(exporting: Exporting) -> None:
    values = ["c2VjcmV0LW9uZQ==", "eyJhdXRocyI6e319"]
    applied = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"data": {"a": values[0]}})}
    helm = base64.b64encode(b"release").decode()
    exporting.write(
        namespace(),
        thing("v1", "Secret", "a", metadata={"annotations": applied}, data={"a": values[0], "e": ""}, type="Opaque"),
        thing(
            *("v1", "Secret", "pull"),
            data={".dockerconfigjson": values[1]},
            type="kubernetes.io/dockerconfigjson",
        ),
        thing("v1", "Secret", "sh.helm.release.v1.a.v1", data={"release": helm}, type="helm.sh/release.v1"),
        thing("v1", "ConfigMap", "a.v1", metadata={"labels": {"owner": "helm"}}, data={"release": helm}),
    )
    documents = exporting("-n", "shop", "--secrets", "redact", "--cluster", "none")
    assert [one["data"] for one in documents] == [
        {"a": base64.b64encode(b"REDACTED").decode(), "e": ""},
        {".dockerconfigjson": base64.b64encode(b"{}").decode()},
    ]
    assert set(exporting.left_out.values()) == {"redacted"}
    everything = json.dumps([documents, exporting.report]) + exporting.notes
    raw = exporting("-n", "shop", "--secrets", "redact", "--raw")
    everything += json.dumps([raw, exporting.report]) + exporting.notes
    assert not any(value in everything for value in (*values, helm))
    assert names(exporting("-n", "shop", "--secrets", "skip", "--raw")) == ["Namespace/shop", "ConfigMap/a.v1"]


def test_names_of_a_snapshot_command_no_terminal(snaptool: Snaptool) -> None:
    evil = "a\x1b]0;owned\x07\u202eb\nsnaptool: all is well"
    hostile = thing("v1", "ConfigMap", evil, metadata={"finalizers": [evil]}, data={evil: evil})
    source = write_objects(snaptool.folder / "c.db", namespace(), hostile)
    ran = snaptool("export", source, "-n", "shop")
    assert ran.code == 0
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", ran.stderr)
    assert not any(line.startswith("snaptool: all is well") for line in ran.stderr.splitlines())
    code, shown = on_a_terminal("export", source, "-n", "shop")
    assert code == 0
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", shown.decode())


# --- files -----------------------------------------------------------------------------------------------------------


def tree_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def export_tree(snaptool: Snaptool, source: Path, *options: str | Path, out: str = "out") -> tuple[int, Path]:
    """Export into a directory, in a process of its own: what it makes is looked at by the test."""
    target = snaptool.folder / out
    command = [sys.executable, "-m", "snaptool", "export", source, "--to", target, *options]
    return subprocess.run(command, capture_output=True, check=False).returncode, target


def test_46_files_are_their_owners_alone_whatever_the_umask(snaptool: Snaptool) -> None:
    source = write_objects(snaptool.folder / "c.db", namespace(), SECRET)
    for umask in (0, 0o777):
        before = os.umask(umask)
        try:
            code, out = export_tree(snaptool, source, "-n", "shop", out=f"out-{umask}")
        finally:
            os.umask(before)
        assert code == 0
        modes = {path.is_dir(): path.stat().st_mode & 0o7777 for path in [out, *out.rglob("*")]}
        assert modes == {True: 0o700, False: 0o600}


def test_47_hostile_names_stay_inside_and_apart(snaptool: Snaptool) -> None:
    hostile = [
        *("../../x", "a:b", "a%3Ab", "x" * 253, "x" * 252 + "y", "-rf", ".hidden", "Web", "web", "con", "a/b", "\x00"),
    ]
    spaces = ["..", ".", "con", "shop"]
    maps = [thing("v1", "ConfigMap", name, where, data={}) for where in spaces for name in hostile]
    roles = [thing("rbac.authorization.k8s.io/v1", "ClusterRole", name, "", rules=[]) for name in ("Edit", "edit")]
    changes: list[Change] = [(_raw_key(one), json.dumps(one).encode()) for one in maps]
    source = write_objects(snaptool.folder / "c.db", *map(namespace, spaces), *roles, *changes)
    code, out = export_tree(snaptool, source, "-A", "--report", snaptool.folder / "r.json")
    assert code == 0
    files = tree_of(out)
    assert tree_of(snaptool.folder) == sorted(["c.db", "r.json", *(f"out/{path}" for path in files)])
    assert len(files) == len(maps) + len(roles) + len(spaces)
    assert len({path.casefold() for path in files}) == len(files)
    for path in files:
        assert re.fullmatch(r"[0-9]-[a-z]+/([A-Za-z0-9%_-][A-Za-z0-9._%-]*/)?[0-9]{2}-[A-Za-z0-9._%-]+\.yaml", path)
        assert all(len(part) <= 255 for part in path.split("/"))
    found = [yaml.safe_load((out / path).read_text()) for path in files if "configmap" in path]
    assert Counter(one["metadata"]["name"] for one in found) == dict.fromkeys(hostile, len(spaces))


def _raw_key(tree: Tree) -> bytes:
    return f"/registry/configmaps/{tree['metadata']['namespace']}/{tree['metadata']['name']}".encode()


def test_a_directory_that_no_export_made_is_never_replaced(snaptool: Snaptool) -> None:
    source = write_objects(snaptool.folder / "c.db", namespace(), MAP)
    code, out = export_tree(snaptool, source, "-n", "shop")
    assert code == 0
    before = tree_of(out)
    assert export_tree(snaptool, source, "-n", "shop")[0] == 2
    assert export_tree(snaptool, source, "configmaps", "-n", "shop", "--cluster", "none", "--force")[0] == 0
    assert tree_of(out) == [path for path in before if "configmap" in path]
    for name in ("mine.txt", "3-namespaces/shop/kustomization.yaml"):
        (out / name).write_text("mine")
        assert export_tree(snaptool, source, "-n", "shop", "--force")[0] == 2
        assert (out / name).read_text() == "mine"
        (out / name).unlink()
    assert [path.name for path in snaptool.folder.iterdir() if path.name.startswith(".")] == []


def test_what_the_run_reads_is_never_written(snaptool: Snaptool) -> None:
    source = write_objects(snaptool.folder / "c.yaml", namespace(), MAP)
    link = snaptool.folder / "other.yaml"
    link.symlink_to(source)
    ran = snaptool("export", source, "-n", "shop", "--to", link, "--force")
    assert (ran.code, ran.stdout) == (2, "")
    config = snaptool.write("keys.json", CONFIG)
    ran = snaptool("export", source, "-n", "shop", "--config", config, "--to", config, "--force")
    assert ran.code == 2
    ran = snaptool("export", source, "-n", "shop", "--report", source, "--force")
    assert ran.code == 2


INTERRUPTED = """
import os, signal, sys
signal.signal(int(sys.argv[2]), signal.SIG_DFL)  # whoever started the tests may ignore it
from snaptool import folder
from snaptool.operations.export import sinks

where, number, count = sys.argv[1], int(sys.argv[2]), [0]

def interrupting(call):
    def wrapped(*arguments, **options):
        result = call(*arguments, **options)
        count[0] += 1
        if count[0] == 2 or where != "write":
            os.kill(os.getpid(), number)
        return result
    return wrapped

if where == "write":
    folder.FolderDraft.write = interrupting(folder.FolderDraft.write)
    sinks.Stream.add = interrupting(sinks.Stream.add)
elif where == "read back":
    folder.FolderDraft._read_back = interrupting(folder.FolderDraft._read_back)
else:
    folder._rename = interrupting(folder._rename)
sys.argv = ["snaptool", *sys.argv[3:]]
from snaptool.cli import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(("target", "moment"), [("out", "write"), ("out", "read back"), ("out.yaml", "write")])
def test_53_an_interrupted_run_leaves_nothing(
    snaptool: Snaptool, target: str, moment: str, number: signal.Signals
) -> None:
    source = write_objects(snaptool.folder / "c.db", namespace(), SECRET, MAP)
    ended = interrupted(moment, number, source, snaptool.folder / target)
    assert ended.returncode == 128 + number, ended.stderr
    assert [path.name for path in snaptool.folder.iterdir()] == ["c.db"]


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_53_a_directory_that_has_its_name_stays(snaptool: Snaptool, force: tuple[str, ...]) -> None:
    source = write_objects(snaptool.folder / "c.db", namespace(), SECRET, MAP)
    if force:
        assert export_tree(snaptool, source, "configmaps", "-n", "shop", "--cluster", "none")[0] == 0
    ended = interrupted("name", signal.SIGTERM, source, snaptool.folder / "out", *force)
    assert ended.returncode == 0, ended.stderr
    assert len(tree_of(snaptool.folder / "out")) == 3
    assert sorted(path.name for path in snaptool.folder.iterdir()) == ["c.db", "out"]


def interrupted(
    moment: str, number: signal.Signals, source: Path, target: Path, *more: str
) -> subprocess.CompletedProcess[str]:
    words = ["export", str(source), "-n", "shop", "--to", str(target), *more]
    command = [sys.executable, "-c", INTERRUPTED, moment, str(int(number)), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("target", ["out", "out.yaml"])
def test_53_a_full_disk_leaves_nothing(snaptool: Snaptool, target: str) -> None:
    source = write_objects(
        snaptool.folder / "c.db", namespace(), thing("v1", "ConfigMap", "big", data={"a": "x" * 99999})
    )
    limit = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000)); from snaptool.cli import run; "
    command = (
        f"{limit}sys.exit(run(['export', {str(source)!r}, '-n', 'shop', '--to', {str(snaptool.folder / target)!r}]))"
    )
    ended = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "cannot write" in ended.stderr
    assert [path.name for path in snaptool.folder.iterdir()] == ["c.db"]


# --- values that do not open, and what no release knows ---------------------------------------------------------------


def sealed(tree: Tree, secret: bytes = KEY, name: str = "key1") -> tuple[bytes, bytes]:
    return key_of(tree), seal_cbc(name, secret, json.dumps(tree).encode())


def test_48_values_that_do_not_open(exporting: Exporting) -> None:
    lost = thing("v1", "Secret", "lost", data={}, type="Opaque")
    exporting.write(namespace(), sealed(SECRET), sealed(lost, bytes(32), "gone"), MAP)
    config = exporting.snaptool.write("config.yaml", CONFIG)
    target = exporting.snaptool.folder / "out.yaml"
    ran = exporting.snaptool("export", exporting.source, "-n", "shop", "--config", config, "--to", target)
    assert ran.code == 3
    assert "/registry/secrets/shop/lost" in ran.stderr
    assert "--undecryptable" in ran.stderr
    documents = exporting("-n", "shop", "--config", config, "--undecryptable", "skip")
    assert names(documents) == ["Namespace/shop", "Secret/db", "ConfigMap/settings"]
    assert exporting.ran is not None
    assert exporting.ran.code == 3
    assert [one["key"] for one in exporting.report["undecryptable"]] == ["/registry/secrets/shop/lost"]
    alone = ("secret/lost", "-n", "shop", "--config", config, "--undecryptable", "skip", "--cluster", "none")
    ran = exporting.snaptool("export", exporting.source, *alone, "--to", target)
    assert ran.code == 3  # nothing is left to write


def test_48_an_older_revision_of_the_same_life_stands_in(exporting: Exporting) -> None:
    other = thing("v1", "Secret", "other", data={"life": "b25l"}, type="Opaque")
    exporting.write(
        *(namespace(), sealed(SECRET), sealed(SECRET, bytes(32), "gone")),
        *(sealed(other), gone(other), sealed(other, bytes(32), "gone")),
    )
    config = exporting.snaptool.write("config.yaml", CONFIG)
    older = ("-n", "shop", "--config", config, "--undecryptable", "older")
    ran = exporting.snaptool("export", exporting.source, "-n", "shop", "--config", config)
    assert ran.code == 3
    assert "1 of them has an older revision that opens" in ran.stderr
    assert names(exporting(*older)) == ["Namespace/shop", "Secret/db"]
    assert exporting.ran is not None
    assert exporting.ran.code == 3  # `other` had one life before, and that is another object
    assert [one["key"] for one in exporting.report["undecryptable"]] == ["/registry/secrets/shop/other"]
    (secret,) = exporting("secret/db", *older, "--cluster", "none")
    assert secret["data"] == SECRET["data"]
    assert exporting.report["older"] == [{"key": "/registry/secrets/shop/db", "revision": 3}]
    assert "its current value is lost: this is revision 3" in exporting.notes


def test_49_unknown_fields_are_reported_and_not_in_the_manifest(exporting: Exporting) -> None:
    from snaptool.wire import encode_field

    raw = encode_field(1, encode_field(1, b"odd") + encode_field(3, b"shop")) + encode_field(99, b"new")
    head = encode_field(1, encode_field(1, b"v1") + encode_field(2, b"ConfigMap"))
    stored = b"k8s\0" + head + encode_field(2, raw) + b"\x1a\x00\x22\x00"
    exporting.write(namespace(), (b"/registry/configmaps/shop/odd", stored))
    documents = exporting("-n", "shop", "--cluster", "none")
    assert documents == [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "odd", "namespace": "shop"}}]
    assert exporting.ran is not None
    assert exporting.ran.code == 3
    assert exporting.report["unknown_fields"] == [{"key": "/registry/configmaps/shop/odd", "paths": ["#99"]}]


def test_what_is_no_object_is_left_out_and_found(exporting: Exporting) -> None:
    exporting.write(namespace(), MAP, (b"/registry/configmaps/shop/torn", b"k8s\0torn"))
    assert names(exporting("-n", "shop")) == ["Namespace/shop", "ConfigMap/settings"]
    assert exporting.left_out == {"configmaps/shop/torn": "undecodable"}
    assert exporting.ran is not None
    assert exporting.ran.code == 3


# --- revisions -------------------------------------------------------------------------------------------------------


def deletion(*objects: Tree) -> list[Change]:
    """A namespace with objects, deleted as a cluster does it: marked (at 3 + their number), emptied, gone."""
    marked = namespace(deletionTimestamp="2026-03-02T09:00:00Z")
    return [namespace(), *objects, marked, *map(gone, objects), gone(namespace())]


def test_50_a_deleted_namespace(exporting: Exporting) -> None:
    other = thing("v1", "ConfigMap", "later", "default", data={})
    exporting.write(*deletion(SECRET, MAP), other)
    snaptool, source = exporting.snaptool, exporting.source
    assert names(exporting("-n", "shop", "--revision", "4")) == ["Namespace/shop", "Secret/db", "ConfigMap/settings"]
    for revision, sentence in ((5, "marked at 5"), (6, "marked at 5"), (7, "marked at 5"), (8, "deleted at 8")):
        ran = snaptool("export", source, "-n", "shop", "--revision", str(revision))
        assert (ran.code, ran.stdout) == (1, "")
        assert sentence in ran.stderr
        assert "--revision 4 " in ran.stderr
    ran = snaptool("export", source, "-n", "shop")
    assert ran.code == 1
    assert "--revision 4 " in ran.stderr


def test_50_the_right_revision_is_compacted(exporting: Exporting) -> None:
    exporting.write(*deletion(SECRET, MAP), compacted=6)
    for more in ((), ("--revision", "7")):
        ran = exporting.snaptool("export", exporting.source, "-n", "shop", *more)
        assert ran.code == 1
        assert "whole at revision 4, which is gone: the store was compacted at 6, where 1 of its objects is left" in (
            ran.stderr
        )
        assert "--revision 4 " not in ran.stderr
    command = re.search("snaptool export SNAPSHOT (.*)", ran.stderr)
    assert command is not None
    assert names(exporting(*command[1].split())) == ["Namespace/shop", "ConfigMap/settings"]
    ran = exporting.snaptool("export", exporting.source, "-n", "shop", "--revision", "4")
    assert ran.code == 2
    assert "compacted at 6" in ran.stderr


def test_a_namespace_that_is_being_deleted_says_where_it_is_whole(exporting: Exporting) -> None:
    *before, _ = deletion(SECRET, MAP)  # the Namespace is still there
    exporting.write(*before)
    assert names(exporting("-n", "shop")) == ["Namespace/shop"]
    assert "being deleted since 2026-03-02T09:00:00Z" in exporting.notes
    assert "--revision 4 is from before" in exporting.notes
    exporting.write(*before, compacted=6)
    exporting("-n", "shop")
    assert "is from before" not in exporting.notes


def test_a_namespace_that_never_was_whole_has_no_revision_named(exporting: Exporting) -> None:
    exporting.write(MAP, namespace(deletionTimestamp="2026-03-02T09:00:00Z"))
    ran = exporting.snaptool("export", exporting.source, "-n", "shop", "--revision", "3")
    assert ran.code == 1
    assert "was being deleted" in ran.stderr
    assert "--revision 2" not in ran.stderr
    assert "at no earlier revision" in ran.stderr


def test_50_list_and_get_name_the_same_revision(exporting: Exporting) -> None:
    marked = SECRET | {"metadata": SECRET["metadata"] | {"deletionTimestamp": "2026-03-02T09:00:00Z"}}
    exporting.write(namespace(), SECRET, namespace(deletionTimestamp="x"), marked, gone(SECRET), gone(namespace()))
    snaptool, source = exporting.snaptool, exporting.source
    assert "whole, until revision 3: --revision 3" in (snaptool("list", source, "-n", "shop").stderr)
    assert "whole" not in snaptool("list", source, "-n", "never").stderr
    ran = snaptool("get", source, "secret", "db", "-n", "shop")
    assert ran.code == 2
    assert "its value before that: --revision 3" in ran.stderr


def test_an_object_that_is_gone_has_its_revision_named(exporting: Exporting) -> None:
    going = thing("v1", "ConfigMap", "settings", metadata={"deletionTimestamp": "2026-03-02T09:00:00Z"})
    exporting.write(namespace(), MAP, going, gone(MAP))
    ran = exporting.snaptool("export", exporting.source, "cm/settings", "-n", "shop")
    assert ran.code == 1
    assert "--revision 3 " in ran.stderr
    assert names(exporting("cm/settings", "-n", "shop", "--revision", "3", "--cluster", "none")) == [
        "ConfigMap/settings"
    ]


# --- options ---------------------------------------------------------------------------------------------------------


def test_neither_namespace_nor_all(exporting: Exporting) -> None:
    exporting.write(namespace(), MAP, crd())
    ran = exporting.snaptool("export", exporting.source)
    assert (ran.code, ran.stdout) == (2, "")
    assert "-n NAMESPACE" in ran.stderr
    assert exporting.snaptool("export", exporting.source, "configmaps").code == 2
    assert names(exporting("crd")) == ["CustomResourceDefinition/widgets.example.com"]


def test_all_namespaces_are_all_but_the_systems_own(exporting: Exporting) -> None:
    places = ("kube-system", "kube-public", "kube-node-lease", "shop", "a", "a-b")
    exporting.write(*map(namespace, places), *(thing("v1", "ConfigMap", "c", where, data={}) for where in places))
    assert [one["metadata"]["namespace"] for one in exporting("cm", "-A")] == ["a", "a-b", "shop"]
    both = exporting("cm", "-A", "-n", "kube-system")
    assert [one["metadata"]["namespace"] for one in both] == ["a", "a-b", "kube-system", "shop"]
    assert names(exporting("ns", "-A")) == [f"Namespace/{name}" for name in sorted(places)]


def test_types_and_names(exporting: Exporting) -> None:
    widget = thing("example.com/v1", "Widget", "w", spec={})
    other = thing("v1", "ConfigMap", "other", data={})
    exporting.write(namespace(), SECRET, MAP, other, thing("v1", "Pod", "p"), crd(), widget)
    alone = ("-n", "shop", "--cluster", "none")
    assert names(exporting("cm", *alone)) == ["ConfigMap/other", "ConfigMap/settings"]
    assert names(exporting("cm/other", *alone)) == ["ConfigMap/other"]
    assert names(exporting("cm", "other", "secret/db", *alone)) == ["Secret/db", "ConfigMap/other"]
    assert names(exporting("cm,secrets", *alone)) == ["Secret/db", "ConfigMap/other", "ConfigMap/settings"]
    assert names(exporting("cm/other", "-n", "shop")) == ["Namespace/shop", "ConfigMap/other"]
    assert names(exporting("widgets.example.com", "-n", "shop")) == [
        *("Namespace/shop", "CustomResourceDefinition/widgets.example.com", "Widget/w"),
    ]
    ran = exporting.snaptool("export", exporting.source, "cm/nope", *alone)
    assert ran.code == 1
    ran = exporting.snaptool("export", exporting.source, "widgetz", *alone)
    assert ran.code == 2


def test_a_suffix_and_a_format_that_differ_are_refused(exporting: Exporting) -> None:
    exporting.write(namespace(), MAP)
    target = exporting.snaptool.folder / "x.json"
    ran = exporting.snaptool("export", exporting.source, "-n", "shop", "--to", target, "--format", "yaml")
    assert ran.code == 2


def test_quiet_says_nothing(exporting: Exporting) -> None:
    exporting.write(namespace(), MAP)
    ran = exporting.snaptool("export", exporting.source, "-n", "shop", "-q")
    assert (ran.code, ran.stderr) == (0, "")
    assert [one["kind"] for one in yaml.safe_load_all(ran.stdout)] == ["Namespace", "ConfigMap"]


def test_paths_in_commands_can_be_copied(snaptool: Snaptool) -> None:
    source = write_objects(snaptool.folder / "c.db", namespace(), MAP)
    out = snaptool.folder / "my shop; $(id)"
    made = [out / "2-cluster/01-namespace.shop.yaml", out / "3-namespaces/shop/17-configmap.settings.yaml"]
    ran = snaptool("export", source, "-n", "shop", "--to", out, makes=made)
    assert f"kubectl apply --server-side -R -f '{out}'" in ran.stderr


def test_what_is_kept_for_an_object_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [_kept_while_writing(tmp_path, count, monkeypatch) for count in (500, 2_500)]
    assert (kept[1] - kept[0]) / 2_000 < 250  # bytes; each of these objects has a thousand in etcd


def _kept_while_writing(folder: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> int:
    from snaptool.operations.export.sinks import Stream

    source = write_many(folder, count)
    seen: list[int] = []
    add = Stream.add

    def measured(*arguments: Any) -> str | None:
        if not seen:
            seen.append(tracemalloc.get_traced_memory()[0])
        return add(*arguments)

    monkeypatch.setattr(Stream, "add", measured)
    tracemalloc.start()
    try:
        assert run(["export", str(source), "-A", "-q", "--to", str(folder / f"{count}.yaml")]) == 0
    finally:
        tracemalloc.stop()
        monkeypatch.undo()
    return seen[0]


def write_many(folder: Path, count: int) -> Path:
    data = {"text": "x" * 1000}
    maps = (thing("v1", "ConfigMap", f"c{number:06}", f"ns-{number % 50}", data=data) for number in range(count))
    return write_objects(folder / f"{count}.db", *maps)


@pytest.mark.soak
def test_memory_is_flat(tmp_path: Path) -> None:
    few, many = (_peak_of_export(tmp_path, count) for count in (50_000, 200_000))
    assert many - few < 120 << 20  # 150,000 objects more, of 200 MB as manifests


def _peak_of_export(folder: Path, count: int) -> int:
    source = write_many(folder, count)
    program = (
        "import re, sys; from pathlib import Path; from snaptool.cli import run; "
        f"code = run(['export', {str(source)!r}, '-A', '-q', '--to', {str(folder / f'{count}.yaml')!r}]); "
        # Not getrusage: what it says begins with the memory of the process that started this one.
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) * 1024); sys.exit(code)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(ended.stdout)


def test_what_names_something_left_out_says_so(exporting: Exporting) -> None:
    going = {"deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": ["x.example.com/y"]}
    volumes = [
        {"name": "s", "secret": {"secretName": "going"}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "d"}},
    ]
    exporting.write(
        namespace(),
        thing("v1", "Secret", "going", metadata=going, data={}, type="Opaque"),
        thing("v1", "PersistentVolumeClaim", "d", spec={"volumeName": "pv-1"}),
        thing("v1", "PersistentVolume", "pv-1", "", metadata=going, spec={}),
        thing("apps/v1", "Deployment", "web", spec={"template": {"spec": pod_spec(volumes=volumes)}}),
    )
    exporting("-n", "shop")
    assert "Deployment shop/web: it names shop/going of secrets, which is left out (terminating)" in exporting.notes
    assert "PersistentVolumeClaim shop/d: it names pv-1 of persistentvolumes" in exporting.notes


def test_the_library_exports_as_the_command_does(tmp_path: Path) -> None:
    from snaptool import export

    source = write_objects(tmp_path / "c.db", namespace(), SECRET, MAP)
    parts: list[bytes] = []
    made = export(source, parts.append, namespaces="shop")
    documents = list(yaml.safe_load_all(b"".join(parts)))
    assert names(documents) == ["Namespace/shop", "Secret/db", "ConfigMap/settings"]
    assert made.kinds == {"Namespace": 1, "Secret": 1, "ConfigMap": 1}
    assert made.complete
