"""get, list, history and diff on every kind: types, lists, custom resources, what kubectl would show otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from snaptool.kube.kinds.printing import yaml_text
from tests.support.cli import GOLDEN, SAMPLES, Snaptool
from tests.support.kinds import stored, vectors, yaml_values
from tests.support.stored import write_history

MIXED, MIXED_KEYS = SAMPLES / "mixed-providers.db", SAMPLES / "mixed.yaml"
LOST, LOST_KEYS = SAMPLES / "lost-key.db", SAMPLES / "lost-key.yaml"
FIELD = GOLDEN / "cases" / "field2"


def crd(plural: str, kind: str, *, scope: str = "Namespaced", short: str = "") -> bytes:
    spec = {
        "group": "example.com",
        "version": "v1",
        "scope": scope,
        "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "shortNames": [short] if short else []},
        "preserveUnknownFields": False,
    }
    document = {"apiVersion": "apiextensions.k8s.io/v1beta1", "kind": "CustomResourceDefinition", "spec": spec}
    return json.dumps(document | {"metadata": {"name": f"{plural}.example.com"}}).encode()


def custom(kind: str, name: str, namespace: str = "", **more: Any) -> bytes:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return json.dumps({"apiVersion": "example.com/v1", "kind": kind, "metadata": metadata} | more).encode()


NAMESPACE = b'{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"default"}}'


@pytest.fixture
def parks(tmp_path: Path) -> Path:
    """A snapshot with two custom types, one of them in no namespace."""
    definitions = "/registry/apiextensions.k8s.io/customresourcedefinitions"
    changes = [
        (f"{definitions}/benches.example.com", crd("benches", "Bench", short="bn")),
        (f"{definitions}/parks.example.com", crd("parks", "Park", scope="Cluster", short="pk")),
        ("/registry/example.com/benches/north/b1", custom("Bench", "b1", "north")),
        ("/registry/example.com/benches/default/b2", custom("Bench", "b2", "default")),
        ("/registry/example.com/parks/one", custom("Park", "one")),
    ]
    return write_history(tmp_path / "parks.db", [(key.encode(), value) for key, value in changes])


# -- what is named ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["benches", "bench", "Bench", "bn", "benches.example.com", "bn.example.com"])
def test_custom_types_have_the_names_that_their_definitions_give_them(
    snaptool: Snaptool, parks: Path, word: str
) -> None:
    assert snaptool("get", parks, word, "-n", "north", "-o", "name").stdout == "benches.example.com/b1\n"
    assert snaptool("get", parks, word, "-o", "name").stdout == "benches.example.com/b2\n"
    assert snaptool("get", parks, word, "-A", "-o", "name").stdout.splitlines() == [
        "benches.example.com/b2",
        "benches.example.com/b1",
    ]
    assert yaml_values(snaptool("get", parks, word, "b1", "-n", "north").stdout)["metadata"]["name"] == "b1"
    assert snaptool("history", parks, word, "b1", "-n", "north").code == 0


def test_a_custom_type_without_namespaces_is_found_without_one(snaptool: Snaptool, parks: Path) -> None:
    assert yaml_values(snaptool("get", parks, "pk/one").stdout)["kind"] == "Park"
    assert snaptool("get", parks, "parks").stdout.split() == ["NAME", "CREATED", "one", "-"]


def test_a_word_that_is_no_type_is_refused_with_the_likely_custom_one(snaptool: Snaptool, parks: Path) -> None:
    ran = snaptool("get", parks, "benchs")
    assert ran.code == 2
    assert "did you mean benches or bench" in ran.stderr


def test_several_types_and_names_are_shown_together(snaptool: Snaptool) -> None:
    keys = ("-n", "shop", "--config", MIXED_KEYS)
    names = snaptool("get", MIXED, "secret,cm", "-n", "shop", "-o", "name").stdout.splitlines()
    assert len([name for name in names if name.startswith("secret/")]) == 8
    assert names[-2:] == ["configmap/kube-root-ca.crt", "configmap/settings"]
    for output in ([], ["-o", "yaml"]):
        two = snaptool("get", MIXED, "secret", "queue", "database", *keys, *output, shows_secrets=True).stdout
        documents = [yaml_values(text) for text in two.split("\n---\n")]
        assert [(one["kind"], one["metadata"]["name"]) for one in documents] == [
            ("Secret", "queue"),
            ("Secret", "database"),
        ]
        assert two == "---\n".join(
            snaptool("get", MIXED, "secret", name, *keys, shows_secrets=True).stdout for name in ("queue", "database")
        )
    both = snaptool("get", MIXED, "secret,cm", *keys, "-o", "yaml", shows_secrets=True).stdout
    kinds = [yaml_values(text)["kind"] for text in both.split("\n---\n")]
    assert kinds == ["Secret"] * 8 + ["ConfigMap"] * 2
    one_type = snaptool("get", MIXED, "secret", *keys, "-o", "yaml", shows_secrets=True).stdout
    assert yaml_values(one_type)["kind"] == "List"
    assert snaptool("get", MIXED, "pod,job", "-n", "no-such", "-o", "yaml").stdout == ""
    mixed = snaptool("get", MIXED, "secret/queue", "cm/settings", *keys, "-o", "json", shows_secrets=True).json
    assert [item["kind"] for item in mixed["items"]] == ["Secret", "ConfigMap"]
    assert (mixed["kind"], mixed["apiVersion"], mixed["metadata"]) == ("List", "v1", {"resourceVersion": ""})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("secret/a", "b"), "TYPE/NAME cannot be mixed"),
        (("secret", "queue", "-A"), "an object is named in one namespace"),
        (("secrets", "-n", "shop", "-o", "value"), "-o value shows one object"),
        ((",",), "no type is named"),
        (("secret", "queue", "missing", "-n", "shop"), "secrets 'missing' in namespace 'shop': there is no such key"),
        (("secrets", "--revision", "9999"), "the snapshot ends at revision 56, before 9999"),
        (("secrets", "--revision", "2"), "the store was compacted at revision 39"),
    ],
)
def test_what_cannot_be_got_exits_2_with_advice(snaptool: Snaptool, words: tuple[str, ...], said: str) -> None:
    ran = snaptool("get", MIXED, *words)
    assert (ran.code, ran.stdout) == (2, "")
    assert said in ran.stderr


# -- lists -----------------------------------------------------------------------------------------------------------


def test_a_type_lists_its_objects_in_the_default_namespace_as_kubectl_does(snaptool: Snaptool) -> None:
    ran = snaptool("get", MIXED, "secrets", "-n", "shop", "--config", MIXED_KEYS)
    lines = ran.stdout.splitlines()
    assert ran.code == 0
    assert lines[0].split() == ["NAME", "TYPE", "DATA", "CREATED"]
    assert lines[1].split() == ["database", "Opaque", "2", "2026-01-01T01:28:39Z"]
    assert snaptool("get", MIXED, "pods").stderr == (
        "snaptool: no pods in namespace default; "
        "there are some in the namespaces kube-system, shop: name one with -n, or all with -A\n"
    )
    everywhere = snaptool("get", MIXED, "cm,ns", "-A", "--config", MIXED_KEYS).stdout
    config_maps, namespaces = (block.splitlines() for block in everywhere.split("\n\n"))
    assert config_maps[0].split() == ["NAMESPACE", "NAME", "DATA", "CREATED"]
    assert namespaces[0].split() == ["NAME", "STATUS", "CREATED"]


def test_a_list_without_keys_names_what_is_lost_and_exits_3(snaptool: Snaptool) -> None:
    ran = snaptool("get", LOST, "secrets", "-n", "shop", "--config", LOST_KEYS)
    assert ran.code == 3
    rows = {line.split()[0]: line.split()[1:] for line in ran.stdout.splitlines()}
    assert rows["written-last"] == ["-", "-", "LOST"]
    assert "2 lost: the configuration has aescbc keys for it, but none with the name 'year-2024'" in ran.stderr
    as_yaml = snaptool("get", LOST, "secrets", "-n", "shop", "--config", LOST_KEYS, "-o", "yaml", shows_secrets=True)
    assert as_yaml.code == 3
    assert len(yaml_values(as_yaml.stdout)["items"]) == len(rows) - 1 - 2


def test_a_list_is_of_the_revision_that_was_asked_for(snaptool: Snaptool) -> None:
    now = snaptool("get", MIXED, "secrets", "-n", "shop", "-o", "name").stdout.splitlines()
    then = snaptool("get", MIXED, "secrets", "-n", "shop", "-o", "name", "--revision", "46").stdout.splitlines()
    assert set(then) - set(now) == {"secret/smtp"}
    assert set(now) - set(then) == {"secret/queue", "secret/recreated"}
    listed = snaptool("list", MIXED, "secrets", "-n", "shop", "-o", "name", "--revision", "46").stdout.splitlines()
    assert listed == then


def test_an_empty_list_is_a_list(snaptool: Snaptool) -> None:
    assert yaml_values(snaptool("get", MIXED, "pods", "-o", "yaml").stdout) == {
        "apiVersion": "v1",
        "items": [],
        "kind": "List",
        "metadata": {"resourceVersion": ""},
    }


def test_real_objects_of_many_kinds_are_printed_as_kubectl_printed_them(snaptool: Snaptool) -> None:
    wanted = {vector["key"].encode(): vector for vector in vectors("real-1.37.2")}
    path = write_history(snaptool.folder / "db", [(key, stored(vector)) for key, vector in wanted.items()])
    for key, vector in list(wanted.items())[::40]:
        revision = snaptool("list", path, key.decode(), "-o", "json").json["items"][0]["revision"]
        expected = vector["yaml"].replace(f'resourceVersion: "{vector["revision"]}"', f'resourceVersion: "{revision}"')
        assert snaptool("get", path, key.decode()).stdout == expected
    shown = snaptool("get", path, "deployments,daemonsets,cm,csr", "-A", "-o", "yaml").stdout
    assert "---\n".join(yaml_text(yaml_values(text)) for text in shown.split("---\n")) == shown


def test_managed_fields_are_shown_when_asked_for(snaptool: Snaptool) -> None:
    content = custom("Bench", "b", "default")
    document = json.loads(content)
    document["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    changes = [
        (b"/registry/namespaces/default", NAMESPACE),
        (b"/registry/example.com/benches/default/b", json.dumps(document).encode()),
    ]
    path = write_history(snaptool.folder / "db", changes)
    words = ("get", path, "benches.example.com", "b")
    assert "managedFields" not in snaptool(*words).stdout
    assert "managedFields" in snaptool(*words, "--show-managed-fields").stdout


# -- situations from the field ---------------------------------------------------------------------------------------


def test_08_a_version_that_the_definition_lost_is_said(snaptool: Snaptool) -> None:
    path = FIELD / "08-cr-old-version" / "versions.db"
    defined = snaptool("get", path, "crd", "-o", "json").json["items"]
    served = {
        (item["spec"]["names"]["kind"], f"{item['spec']['group']}/{version['name']}")
        for item in defined
        for version in item["spec"]["versions"]
    }
    types = ",".join(one["metadata"]["name"] for one in defined)
    said = set()
    for item in snaptool("get", path, types, "-A", "-o", "json").json["items"]:
        ran = snaptool("get", path, item["kind"], item["metadata"]["name"], "-n", item["metadata"]["namespace"])
        fails = (item["kind"], item["apiVersion"]) not in served
        assert ("fails" in ran.stderr) == fails
        said.add(fails)
    assert said == {True, False}


def test_09_a_custom_resource_without_its_definition_is_shown_and_said(snaptool: Snaptool) -> None:
    ran = snaptool("get", FIELD / "09-cr-without-crd" / "orphans.db", "gadgets.example.com", "a", "-n", "shop")
    assert yaml_values(ran.stdout)["spec"] == {"n": "a"}
    assert "has no CustomResourceDefinition of gadgets.example.com" in ran.stderr


def test_10_fields_that_the_schema_lost_are_shown_and_counted(snaptool: Snaptool) -> None:
    ran = snaptool("get", FIELD / "10-cr-pruned-fields" / "pruned.db", "cache", "main", "-n", "shop")
    assert yaml_values(ran.stdout)["spec"]["affinity"] == {"old": True}
    assert "kubectl would not show spec.affinity and 1 more" in ran.stderr


def test_15_openshifts_kinds_are_shown_by_number(snaptool: Snaptool) -> None:
    ran = snaptool("get", FIELD / "15-openshift-kinds" / "routes.db", "route", "web", "-n", "shop")
    shown = yaml_values(ran.stdout)
    assert (shown["metadata"]["name"], shown["unknownFields"]["2"][0]["1"]) == ("web", ["shop.apps.example"])
    assert "does not know the kind Route of route.openshift.io/v1" in ran.stderr


def test_27_old_definitions_are_shown_in_the_form_that_is_served(snaptool: Snaptool) -> None:
    path = FIELD / "27-old-crds" / "oldcrds.db"
    shown = snaptool("get", path, "crd", "-o", "json").json["items"]
    assert {one["apiVersion"] for one in shown} == {"apiextensions.k8s.io/v1"}
    raw = snaptool("get", path, "crd", "barns.example.com", "-o", "value").stdout
    assert json.loads(raw)["apiVersion"] == "apiextensions.k8s.io/v1beta1"


def test_01_what_was_in_a_deleted_namespace_is_found_at_the_last_revision_at_which_it_was_whole(
    snaptool: Snaptool,
) -> None:
    path = FIELD / "01-namespace-deleted" / "shop.db"
    ran = snaptool("get", path, "cm", "-n", "shop")
    assert ran.stdout == ""
    assert ran.stderr.startswith("snaptool: no configmaps in namespace shop, which was there, whole, until revision ")
    revision = ran.stderr.split("--revision ")[1].split()[0]
    then = yaml_values(snaptool("get", path, "ns", "shop", "--revision", revision).stdout)
    assert "deletionTimestamp" not in then["metadata"]
    after = yaml_values(snaptool("get", path, "ns", "shop", "--revision", str(int(revision) + 1)).stdout)
    assert "deletionTimestamp" in after["metadata"]
    assert f"--revision {revision}" in snaptool("get", path, "ns", "shop").stderr


# -- diff ------------------------------------------------------------------------------------------------------------


def test_history_compares_two_revisions_of_an_object(snaptool: Snaptool) -> None:
    words = ("history", LOST, "secret", "rewritten-since", "-n", "shop", "--config", LOST_KEYS, "--diff")
    ran = snaptool(*words, "35", "36", shows_secrets=True)
    assert ran.code == 1
    changed = [line for line in ran.stdout.splitlines() if line[:1] in "+-" and not line.startswith(("+++", "---"))]
    assert [line.split(":")[0] for line in changed] == [
        "-  password",
        "+  password",
        "-  resourceVersion",
        "+  resourceVersion",
    ]
    same = snaptool(*words, "36", "36")
    assert (same.code, same.stdout) == (0, "")


def test_diff_compares_one_object_of_two_snapshots(snaptool: Snaptool, parks: Path) -> None:
    definition = b"/registry/apiextensions.k8s.io/customresourcedefinitions/benches.example.com"
    bench = b"/registry/example.com/benches/north/b1"
    other = write_history(
        parks.parent / "other.db",
        [(definition, crd("benches", "Bench")), (bench, custom("Bench", "b1", "north", spec={"seats": 2}))],
    )
    ran = snaptool("diff", parks, other, "bench", "b1", "-n", "north")
    assert ran.code == 1
    assert {"+spec:", "+  seats: 2"} < set(ran.stdout.splitlines())
    found = snaptool("diff", parks, other, "bench", "b1", "-n", "north", "-o", "json").json
    assert (found["same"], found["a"]["key"], found["b"]["key"]) == (False, bench.decode(), bench.decode())
    gone = snaptool("diff", parks, other, "pk", "one")
    assert gone.code == 1
    assert "+++ /dev/null" in gone.stdout.splitlines()
    assert snaptool("diff", parks, parks, "pk", "one").code == 0
    assert snaptool("diff", parks, other, "bench", "none").code == 2
    assert snaptool("diff", parks, other, "-n", "north").code == 2
