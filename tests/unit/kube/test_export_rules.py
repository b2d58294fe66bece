"""The rules of export on plain trees: order and names, versions, definitions, lists that are maps."""

from __future__ import annotations

import string
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptool.kube.export import (
    FOLDERS,
    Below,
    Cleaning,
    Edit,
    Facts,
    Kind,
    clean,
    duplicates,
    look_into_schema,
    place,
    prepare,
    promote,
    reason_to_leave,
)
from snaptool.kube.export.definitions import PRESERVE, is_structural, read_definition
from snaptool.kube.export.versions import OLD_FIELDS, PROMOTED
from snaptool.kube.kinds.table import fields_of, message_of
from tests.support.kinds import vectors
from tests.support.objects import thing

OBJECT: dict[str, Any] = {"type": "object"}


# --- order and names -------------------------------------------------------------------------------------------------


def test_order_is_that_of_the_specification() -> None:
    kinds = (
        *("Namespace", "CustomResourceDefinition", "PriorityClass", "RuntimeClass", "StorageClass"),
        *("VolumeAttributesClass", "CSIDriver", "IngressClass", "DeviceClass", "ServiceCIDR", "LimitRange"),
        *("NetworkPolicy", "PodDisruptionBudget", "ServiceAccount", "Secret", "ConfigMap", "PersistentVolume"),
        *("PersistentVolumeClaim", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Service"),
        *("Endpoints", "EndpointSlice", "ResourceClaimTemplate", "ResourceClaim", "PodTemplate", "DaemonSet", "Pod"),
        *("ReplicationController", "ReplicaSet", "Deployment", "StatefulSet", "HorizontalPodAutoscaler", "Job"),
        *("CronJob", "Ingress", "APIService", "ValidatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"),
    )
    ranks = [Kind(kind, "").rank(namespaced=False) for kind in kinds]
    ranks += [
        Kind("Widget", "example.com").rank(namespaced=True),
        Kind("ResourceQuota", "").rank(namespaced=True),
        Kind("ValidatingWebhookConfiguration", "admissionregistration.k8s.io").rank(namespaced=False),
    ]
    assert ranks == sorted(set(ranks))


names = st.text(min_size=1, max_size=300)


@given(st.sampled_from([Kind("ConfigMap", ""), Kind("Widget", "example.com")]), names, names)
def test_a_place_is_inside_its_folder_whatever_the_names(kind: Kind, namespace: str, name: str) -> None:
    path = place(kind, namespace, name).path(".yaml")
    folder, below, file = path.split("/")
    assert folder in FOLDERS
    for part in (below, file):
        assert set(part) <= set(string.ascii_letters + string.digits + "._-%")
        assert not part.startswith(".")
        assert len(part) <= 255


@given(names, names)
def test_two_names_have_two_places_on_every_file_system(one: str, other: str) -> None:
    places = [place(Kind("ConfigMap", ""), "shop", name).path(".yaml").casefold() for name in (one, other)]
    assert (places[0] == places[1]) is (one == other)


# --- versions --------------------------------------------------------------------------------------------------------


def fields(message: str) -> dict[str, tuple[str, str]]:
    """Fields of a message by name, those of inlined ones with them: list or map, and type without its package."""
    found: dict[str, tuple[str, str]] = {}
    for one in fields_of(message):
        if one.presence == "~":
            found |= fields(one.type)
        else:
            found[one.name] = one.prefix, one.type
    return found


REWRITTEN = {"Ingress"}


def differences(old: str, new: str, seen: set[tuple[str, str]], path: str = "") -> list[str]:
    """Paths below `spec` and the like that the new message does not have, or has with another type."""
    if (old, new) in seen:
        return []
    seen.add((old, new))
    found, wanted = fields(new), fields(old)
    wrong = []
    for name, (prefix, kind) in wanted.items():
        here = f"{path}.{name}".lstrip(".")
        if here == "status":
            continue
        if name not in found or found[name][0] != prefix or ("/" in kind) is not ("/" in found[name][1]):
            wrong.append(here)
        elif "/" in kind:
            wrong += differences(kind, found[name][1], seen, here)
        elif kind != found[name][1]:
            wrong.append(here)
    return wrong


@pytest.mark.parametrize(("old", "kind"), [pair for pair in PROMOTED if pair[1] not in REWRITTEN])
def test_every_field_of_an_old_version_stands_in_the_new_one(old: str, kind: str) -> None:
    before, after = message_of(old, kind), message_of(PROMOTED[old, kind], kind)
    assert before is not None
    assert after is not None
    allowed = [f"spec.{OLD_FIELDS[old, kind]}"] if (old, kind) in OLD_FIELDS else []
    assert differences(before, after, set()) == allowed


def test_what_has_old_fields_is_not_promoted() -> None:
    tree = thing("extensions/v1beta1", "Deployment", "web", spec={"rollbackTo": {"revision": 1}})
    notes = list(promote(tree, Kind("Deployment", "apps")))
    assert tree["apiVersion"] == "extensions/v1beta1"
    assert "is kept" in notes[0]


def test_webhooks_with_unknown_side_effects_are_said_to_have_none() -> None:
    group = "admissionregistration.k8s.io"
    hooks = [{"name": "a", "sideEffects": "Unknown"}, {"name": "b", "sideEffects": "NoneOnDryRun"}]
    tree = thing(f"{group}/v1beta1", "MutatingWebhookConfiguration", "hooks", "", webhooks=hooks)
    notes = list(promote(tree, Kind("MutatingWebhookConfiguration", group)))
    assert [hook["sideEffects"] for hook in tree["webhooks"]] == ["None", "NoneOnDryRun"]
    assert any("webhook a" in note for note in notes)


# --- definitions -----------------------------------------------------------------------------------------------------

NOT_STRUCTURAL: dict[str, Any] = {
    "no type": {"properties": {"spec": OBJECT}},
    "a field without type": {"type": "object", "properties": {"spec": {"description": "x"}}},
    "reference": {"type": "object", "properties": {"spec": {"$ref": "#/definitions/x"}}},
    "array without items": {"type": "object", "properties": {"spec": {"type": "array"}}},
    "items of several schemas": {"type": "object", "properties": {"l": {"type": "array", "items": [OBJECT]}}},
    "type below anyOf": {"type": "object", "anyOf": [{"type": "object"}]},
    "field that only allOf names": {"type": "object", "allOf": [{"properties": {"a": {}}}]},
    "no additional properties": {
        "type": "object",
        "properties": {"m": {"type": "object", "additionalProperties": False}},
    },
    "additional at the root": {"type": "object", "additionalProperties": {"type": "string"}},
    "metadata restricted": {
        "type": "object",
        "properties": {"metadata": {"type": "object", "properties": {"labels": OBJECT}}},
    },
    "nullable root": {"type": "object", "nullable": True},
    "unique items": {"type": "object", "properties": {"l": {"type": "array", "items": OBJECT, "uniqueItems": True}}},
    "integer at the root": {"type": "integer"},
}
STRUCTURAL: dict[str, Any] = {
    "the schema that accepts all": {"type": "object", PRESERVE: True},
    "int or string": {"type": "object", "properties": {"p": {"x-kubernetes-int-or-string": True}}},
    "int or string by anyOf": {
        "type": "object",
        "properties": {
            "p": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        },
    },
    "names in metadata": {
        "type": "object",
        "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}}},
    },
    "one of, by required": {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"], "properties": {"b": {"minLength": 1}}}],
    },
    "map": {"type": "object", "properties": {"m": {"type": "object", "additionalProperties": {"type": "string"}}}},
}


@pytest.mark.parametrize("name", NOT_STRUCTURAL)
def test_schema_that_v1_refuses(name: str) -> None:
    assert not is_structural(NOT_STRUCTURAL[name])


@pytest.mark.parametrize("name", STRUCTURAL)
def test_schema_that_v1_takes(name: str) -> None:
    assert is_structural(STRUCTURAL[name])


def definition(schema: Any, *, group: str = "example.com", preserving: bool = True, **metadata: Any) -> dict[str, Any]:
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]
    spec: dict[str, Any] = {
        "group": group,
        "names": {"plural": "as", "kind": "A"},
        "scope": "Namespaced",
        "versions": versions,
    }
    spec |= {"preserveUnknownFields": True} if preserving else {}
    name = f"as.{group}"
    return thing("apiextensions.k8s.io/v1", "CustomResourceDefinition", name, "", spec=spec, metadata=metadata)


def test_the_flag_goes_into_every_object_but_metadata() -> None:
    embedded: dict[str, Any] = {
        "type": "object",
        "x-kubernetes-embedded-resource": True,
        "properties": {"metadata": {"type": "object"}, "spec": {"type": "object"}},
    }
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "metadata": {"type": "object"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object"}},
            "pod": embedded,
        },
    }
    tree = definition(schema)
    notes = list(prepare(Edit(tree)))
    assert schema[PRESERVE] is True
    properties = schema["properties"]
    assert PRESERVE not in properties["metadata"]
    assert properties["list"]["items"][PRESERVE] is True
    assert PRESERVE not in properties["list"]
    assert properties["map"]["additionalProperties"][PRESERVE] is True
    assert PRESERVE not in properties["pod"]["properties"]["metadata"]
    assert properties["pod"]["properties"]["spec"][PRESERVE] is True
    assert is_structural(schema)
    assert "preserveUnknownFields" not in tree["spec"]
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("group", "annotation", "wanted"),
    [
        ("example.k8s.io", None, "unapproved, as in the backup"),
        ("k8s.io", "nonsense", "unapproved, as in the backup"),
        ("a.kubernetes.io", "https://github.com/kubernetes/kubernetes/pull/1", None),
        ("a.kubernetes.io", "unapproved, it is ours", None),
        ("k8s.io.example.com", None, None),
    ],
)
def test_a_group_of_the_community_needs_an_approval(group: str, annotation: str | None, wanted: str | None) -> None:
    annotations = {} if annotation is None else {"annotations": {"api-approved.kubernetes.io": annotation}}
    tree = definition(deepcopy(OBJECT), group=group, preserving=False, **annotations)
    list(prepare(Edit(tree)))
    found = tree["metadata"].get("annotations", {}).get("api-approved.kubernetes.io")
    assert found == (wanted or annotation)


def test_definition_with_nothing_in_it_is_read() -> None:
    every: list[Any] = [None, [], {"versions": [None, 1, {}], "names": 3, "conversion": "x"}]
    for spec in every:
        read = read_definition({"spec": spec})
        assert read.storage_version == ""


NAMES = (
    *("metadata", "spec", "status", "template", "labels", "annotations", "ownerReferences", "finalizers", "ports"),
    *("managedFields", "containers", "volumes", "tolerations", "volumeClaimTemplates", "claimRef", "secrets", "data"),
    *("webhooks", "rules", "http", "paths", "backend", "versions", "schema", "openAPIV3Schema", "properties", "type"),
)
scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
odd_trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=10,
)
KINDS = sorted(
    {("v1", kind) for kind in ("Namespace", "Pod", "Service", "Secret", "ServiceAccount", "PersistentVolume")}
    | {("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("batch/v1", "Job"), ("batch/v1beta1", "CronJob")}
    | {("extensions/v1beta1", "Ingress"), ("policy/v1beta1", "PodDisruptionBudget"), ("example.com/v1", "A")}
    | {("apiextensions.k8s.io/v1", "CustomResourceDefinition")}
)


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(NAMES), odd_trees, max_size=5))
def test_no_tree_is_too_odd(type_of: tuple[str, str], tree: dict[str, Any]) -> None:
    takes(tree | {"apiVersion": type_of[0], "kind": type_of[1]})


REAL = [vector["json"] for vector in vectors("real-1.37.2")]


def places(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a tree."""
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*path, name)
        yield from places(value, (*path, name))


@given(
    st.sampled_from(range(len(REAL))), st.lists(st.tuples(st.integers(0, 10_000), odd_trees), min_size=1, max_size=3)
)
def test_real_objects_with_something_else_in_a_place(number: int, changes: list[tuple[int, Any]]) -> None:
    tree = deepcopy(REAL[number])
    for choice, value in changes:
        every = [path for path in places(tree) if path[0] not in {"apiVersion", "kind"}]
        path = every[choice % len(every)]
        inner = tree
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value
    takes(tree)


@pytest.mark.parametrize("odd", [{}, [], 1, None, True])
def test_what_is_compared_with_words_may_be_anything(odd: Any) -> None:
    hook = {"apiVersion": "admissionregistration.k8s.io/v1beta1", "kind": "ValidatingWebhookConfiguration"}
    takes(hook | {"webhooks": [{"sideEffects": odd}]})
    takes({"apiVersion": "batch/v1", "kind": "Job", "status": {"conditions": [{"type": odd, "status": "True"}]}})
    takes({"apiVersion": "v1", "kind": "Pod", "spec": {"tolerations": [{"key": odd, "operator": "Exists"}]}})


def takes(tree: dict[str, Any]) -> None:
    """Put a tree through every rule, which is to give notes and no error."""
    kind = Kind(tree["kind"], tree["apiVersion"].rpartition("/")[0])
    facts = Facts()
    facts.learn(kind, "shop", tree)
    reason_to_leave(tree, kind, "shop", facts)
    edit = Edit(tree)
    for notes in (prepare(edit), clean(edit, kind, "shop", facts, Cleaning(redact=True)), promote(tree, kind)):
        assert all(isinstance(note, str) for note in notes)
    read_definition(tree)


# --- lists that are maps ---------------------------------------------------------------------------------------------


def test_duplicates_in_the_schema_of_a_custom_resource() -> None:
    schema = {
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "ports": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["port", "protocol"],
                        "items": {"type": "object"},
                    },
                    "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "free": {"type": "array", "items": {"type": "string"}},
                },
            }
        }
    }
    spec = {
        "ports": [{"port": 1, "protocol": "TCP"}, {"port": 1, "protocol": "UDP"}, {"port": 1, "protocol": "TCP"}],
        "tags": ["a", "b", "a"],
        "free": ["x", "x"],
    }
    assert list(duplicates({"spec": spec}, schema, look_into_schema)) == [
        "spec.ports has 1/TCP twice",
        "spec.tags has a twice",
    ]


@given(odd_trees)
def test_duplicates_take_any_tree(tree: Any) -> None:
    found = duplicates({"l": tree}, "", lambda _, name: Below("", ("name",) if name == "l" else ()))
    assert all(isinstance(one, str) for one in found)
