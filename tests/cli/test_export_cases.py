"""export on situations from the field: documents, what is left out, notes, exit codes. One test each, as its folder."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from snaptool.etcd import decode_key_value
from snaptool.kube.export import Kind, group_of, place
from snaptool.kube.kinds.printing import yaml_text
from snaptool.kube.kinds.reader import decode_object
from snaptool.kube.kinds.served import as_served
from snaptool.operations.opening import open_snapshot
from tests.support.cli import GOLDEN, Ran, Snaptool
from tests.support.objects import key_of

CASES = GOLDEN / "cases" / "field2"
FOLDERS = sorted(
    path.parent.name
    for path in CASES.glob("*/expected.json")
    if json.loads(path.read_text()).get("command", [""])[0] == "export"
)

NEEDLES = {
    "02-namespace-terminating": ["2026-03-02T09:00:00Z", "gizmo.example.com/cleanup kept"],
    "03-pv-released": ["pvc-7c1e", "only after its claimRef.uid is removed"],
    "05-duplicate-list-keys": [
        "containers[app].env has MODE twice",
        "containers[app].ports has 8080/TCP twice",
        "imagePullSecrets has reg twice",
    ],
    "08-cr-old-version": [
        "Train yard/old: stored as v1alpha1, which is not served: v1 ",
        "Car yard/old: stored as v1alpha1, which the CRD does not have: every list of cars.example.com fails",
        "Boat yard/old: stored as v1alpha1, which is not served, and its CRD converts by webhook ops/conv: not conv",
    ],
    "09-cr-without-crd": ["gadgets.example.com: 2 objects", "deleted at revision 8; --revision 7 has it"],
    "12-cr-owned": ["Secret shop/api: owner SealedSecret shop/api dropped, and that SealedSecret is exported too"],
    "15-openshift-kinds": ["2 objects", "Route.route.openshift.io, ImageStream.image.openshift.io"],
    "17-webhook-in-namespace": [
        "ValidatingWebhookConfiguration gate (failurePolicy Fail, pods) calls Service policy/gate",
        "delete it first, apply it last",
    ],
    "27-old-crds": [
        "issuers.certmanager.k8s.io: v1 demands the annotation api-approved.kubernetes.io",
        "sheds.example.com: the schema of version v1alpha1 is not structural",
        "barns.example.com: preserveUnknownFields true became x-kubernetes-preserve-unknown-fields",
    ],
}
"""What the notes of `expected.json` come to in our words."""


def expected(folder: str) -> Any:
    return json.loads((CASES / folder / "expected.json").read_text())


def run_case(snaptool: Snaptool, folder: str, *more: str | Path) -> tuple[Ran, Path, Path]:
    """Run the command of a case, with its documents in one file and its report in another."""
    _, snapshot, *options = expected(folder)["command"]
    source = snaptool.folder / snapshot
    shutil.copy2(CASES / folder / snapshot, source)
    if "--to" in options:
        at = options.index("--to")
        del options[at : at + 2]
    target, report = snaptool.folder / "documents.json", snaptool.folder / "report.json"
    wanted = expected(folder)["exit"] in {0, 3}
    ran = snaptool(
        "export",
        source,
        *options,
        *("--to", target, "--report", report),
        *more,
        makes=[target, report] if wanted else [],
        shows_secrets=True,
    )
    return ran, target, report


@pytest.mark.parametrize("folder", FOLDERS)
def test_field_case(snaptool: Snaptool, folder: str) -> None:
    case = expected(folder)
    ran, target, report = run_case(snaptool, folder)
    assert ran.code == case["exit"], ran.stderr
    assert json.loads(target.read_text())["items"] == case["documents"]
    found = json.loads(report.read_text())
    assert found["left_out"] == case["left_out"]
    for needle in [*NEEDLES.get(folder, []), *case.get("next_must_contain", [])]:
        assert needle in ran.stderr
    assert [(one["kind"], one["name"]) for one in found["documents"]] == [
        (one["kind"], one["metadata"]["name"]) for one in case["documents"]
    ]


def test_every_note_of_a_field_case_has_its_words() -> None:
    assert {folder for folder in FOLDERS if expected(folder).get("notes")} == set(NEEDLES)


def test_01_the_revision_before_the_mark_is_named(snaptool: Snaptool) -> None:
    source = snaptool.folder / "shop.db"
    shutil.copy2(CASES / "01-namespace-deleted" / "shop.db", source)
    ran = snaptool("export", source, "-n", "shop")
    assert ran.code == 1
    assert "--revision 8" in ran.stderr
    assert "--revision 15" not in ran.stderr
    for revision in range(9, 16):
        ran = snaptool("export", source, "-n", "shop", "--revision", str(revision))
        assert (ran.code, ran.stdout) == (1, "")
        assert "was being deleted" in ran.stderr
        assert "--revision 8" in ran.stderr


def test_05_what_apply_refuses_goes_apart_with_a_command_of_its_own(snaptool: Snaptool) -> None:
    folder = "05-duplicate-list-keys"
    source = snaptool.folder / "dups.db"
    shutil.copy2(CASES / folder / "dups.db", source)
    out = snaptool.folder / "out"
    made = [
        *(out / "2-cluster/01-namespace.shop.yaml", out / "3-namespaces/shop/35-deployment.fine.yaml"),
        *(out / "5-create/35-deployment.pull.yaml", out / "5-create/35-deployment.web.yaml"),
    ]
    ran = snaptool("export", source, "-n", "shop", "--to", out, makes=made)
    assert re.findall("(?m)^  kubectl .*", ran.stderr) == [
        f"  kubectl apply --server-side -R -f {out}/2-cluster -f {out}/3-namespaces",
        f"  kubectl create -f {out}/5-create",
    ]


def test_05_in_a_stream_the_way_out_is_named(snaptool: Snaptool) -> None:
    ran, _, _ = run_case(snaptool, "05-duplicate-list-keys")
    assert "--to DIRECTORY puts them apart, for `kubectl create`" in ran.stderr


def test_10_pruned_paths_stand_in_the_report(snaptool: Snaptool) -> None:
    folder = "10-cr-pruned-fields"
    ran, _, report = run_case(snaptool, folder)
    assert json.loads(report.read_text())["pruned"] == expected(folder)["pruned"]
    assert "fields that their schema does not name" in ran.stderr


def test_12_what_an_owner_makes_again_is_a_comment_in_a_stream_and_a_folder_in_a_tree(snaptool: Snaptool) -> None:
    source = snaptool.folder / "owned.db"
    shutil.copy2(CASES / "12-cr-owned" / "owned.db", source)
    ran = snaptool("export", source, "-n", "shop", shows_secrets=True)
    documents, _, comment = ran.stdout.partition("# What follows")
    assert "kind: Order" not in documents
    assert "\n# kind: Order\n" in comment
    assert all(line.startswith("# ") for line in comment.splitlines()[1:])
    out = snaptool.folder / "out"
    again = shutil.copytree(snaptool.folder, snaptool.folder / "again")
    ran = snaptool("export", again / "owned.db", "-n", "shop", "--to", out, makes=_TWELVE(out), shows_secrets=True)
    assert f"apply --server-side -R -f {out}/1-crds -f {out}/2-cluster -f {out}/3-namespaces\n" in ran.stderr
    assert len(list((out / "6-owned").iterdir())) == 3


def _TWELVE(out: Path) -> list[Path]:  # noqa: N802 - a list that needs its folder
    return [
        out / path
        for path in (
            "1-crds/02-customresourcedefinition.certificates.cert-manager.io.yaml",
            "1-crds/02-customresourcedefinition.sealedsecrets.bitnami.com.yaml",
            "2-cluster/01-namespace.shop.yaml",
            "3-namespaces/shop/16-secret.api.yaml",
            "3-namespaces/shop/16-secret.web-tls.yaml",
            "3-namespaces/shop/40-ingress.web.yaml",
            "3-namespaces/shop/46-certificate.cert-manager.io.own.yaml",
            "3-namespaces/shop/46-sealedsecret.bitnami.com.api.yaml",
            "6-owned/46-certificate.cert-manager.io.web-tls.yaml",
            "6-owned/46-certificaterequest.cert-manager.io.web-tls-1.yaml",
            "6-owned/46-order.acme.cert-manager.io.web-tls-1-77.yaml",
        )
    ]


# --- case 33 of the specification ------------------------------------------------------------------------------------


@pytest.fixture
def shop(snaptool: Snaptool) -> Path:
    return snaptool.write("shop.db", gzip.decompress((GOLDEN / "export" / "export-shop.db.gz").read_bytes()))


def test_33_a_namespace_of_a_real_cluster(snaptool: Snaptool, shop: Path) -> None:
    want = json.loads((GOLDEN / "export" / "export-shop.json").read_text())
    target, report = snaptool.folder / "documents.json", snaptool.folder / "report.json"
    ran = snaptool("export", shop, "-n", "shop", "--to", target, "--report", report, makes=[target, report])
    assert ran.code == 0, ran.stderr
    assert json.loads(target.read_text())["items"] == want["documents"]
    assert json.loads(report.read_text())["left_out"] == want["left_out"]


def test_55_stream_and_tree_hold_the_same_documents(snaptool: Snaptool, shop: Path) -> None:
    out = snaptool.folder / "out"
    want = json.loads((GOLDEN / "export" / "export-shop.json").read_text())["documents"]
    report = snaptool.folder / "report.json"
    snaptool("export", shop, "-n", "shop", "--to", out, "--report", report, makes=[*_files(want, out), report])
    stream = snaptool("export", shop, "-n", "shop", shows_secrets=True).stdout.split("---\n")
    rows = json.loads(report.read_text())["documents"]
    assert [(out / row["file"]).read_text() for row in rows] == stream
    # kubectl reads folders and files by name: nothing comes before what it needs.
    files = sorted(row["file"] for row in rows)
    assert files[0].startswith("1-crds/")
    assert files.index("2-cluster/01-namespace.shop.yaml") < files.index("3-namespaces/shop/16-secret.db.yaml")
    assert files[-1].endswith("47-resourcequota.q.yaml")


def _files(documents: list[dict[str, Any]], out: Path) -> list[Path]:
    found = []
    for one in documents:
        metadata, kind = one["metadata"], Kind(one["kind"], group_of(one["apiVersion"]))
        found.append(out / place(kind, metadata.get("namespace", ""), metadata["name"]).path(".yaml"))
    return found


def test_54_raw_is_what_get_shows_with_managed_fields(snaptool: Snaptool, shop: Path) -> None:
    raw = snaptool("export", shop, "-n", "shop", "--raw", "--cluster", "none", shows_secrets=True)
    assert raw.code == 0
    documents = raw.stdout.split("---\n")
    assert len(documents) == 34  # everything in the namespace
    with open_snapshot(shop) as opened:
        for document in documents:
            shown = yaml.safe_load(document)
            key = key_of(shown)
            record = opened.snapshot.history_of([key])[key][-1]
            stored = decode_key_value(opened.snapshot.stored_value(record)).value
            assert document == yaml_text(as_served(decode_object(stored).tree, record.revision.main))
            assert shown["metadata"]["resourceVersion"]
    assert "kubectl apply" not in raw.stderr
