"""CustomResourceDefinitions as an export needs them: what they say about their objects, and fit to be applied.

v1 refuses what v1beta1 took: the flag `preserveUnknownFields`, a version without a schema, one that is not structural,
a group of the community without an approval. `prepare` settles each, and says so. `Definition` answers for the custom
resources: which versions there are, whether status is a subresource, and which fields the server prunes on reading.

Source: docs/formats/kinds.md, "Definitions of custom resources"; k8s.io/apiextensions-apiserver pkg/apiserver/schema
(validation.go, convert.go, pruning/algorithm.go) and pkg/apihelpers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from snaptool.kube.export.duplicates import Below
from snaptool.kube.export.order import Kind
from snaptool.kube.export.trees import Edit, Tree, annotations_of, at, entries, mapping, text, texts
from snaptool.kube.kinds.crds import pruned

PRESERVE, EMBEDDED = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_APPROVED = "api-approved.kubernetes.io"
_UNAPPROVED = "unapproved, as in the backup"
MAX_DEPTH = 200
"""Schemas nested deeper are taken for not structural."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a definition. `schema` is None where the server prunes nothing by it."""

    served: bool
    storage: bool
    has_status: bool
    schema: Tree | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Definition:
    """What a CustomResourceDefinition says about its objects. `webhook`: the Service that converts, or its URL."""

    kind: Kind
    plural: str
    versions: dict[str, Version]
    webhook: str

    @property
    def resource(self) -> str:
        """PLURAL.GROUP."""
        return f"{self.plural}.{self.kind.group}"

    @property
    def storage_version(self) -> str:
        """The version that the server writes, empty if none is marked."""
        return next((name for name, version in self.versions.items() if version.storage), "")


def read_definition(tree: Tree) -> Definition:
    """Read a v1 CustomResourceDefinition, however odd."""
    spec = mapping(tree, "spec")
    preserving = spec.get("preserveUnknownFields") is True
    versions = {}
    for one in entries(spec, "versions"):
        schema = at(one, "schema", "openAPIV3Schema")
        usable = isinstance(schema, dict) and not preserving and is_structural(schema)
        versions[text(one, "name")] = Version(
            served=one.get("served") is True,
            storage=one.get("storage") is True,
            has_status=isinstance(at(one, "subresources", "status"), dict),
            schema=schema if usable else None,
        )
    webhook = ""
    if text(spec, "conversion", "strategy") == "Webhook":
        client = mapping(spec, "conversion", "webhook", "clientConfig")
        webhook = service_of(client) or text(client, "url") or "unknown"
    kind = Kind(text(spec, "names", "kind"), text(spec, "group"))
    return Definition(kind, text(spec, "names", "plural"), versions, webhook)


def service_of(client_config: Tree) -> str:
    """Return NAMESPACE/NAME of the Service that a webhook calls, empty if it calls none."""
    service = mapping(client_config, "service")
    return f"{text(service, 'namespace')}/{text(service, 'name')}" if service else ""


# -- fit to be applied -----------------------------------------------------------------------------------------------


def prepare(edit: Edit) -> Iterator[str]:
    """Make a v1 definition one that a server takes. Yields notes. Status and the like are `clean`'s."""
    tree = edit.tree
    spec = mapping(tree, "spec")
    preserving = spec.get("preserveUnknownFields") is True
    edit.drop("spec", "preserveUnknownFields")
    widened = False
    for version in entries(spec, "versions"):
        schema = at(version, "schema", "openAPIV3Schema")
        if isinstance(schema, dict) and is_structural(schema):
            if preserving:
                _preserve_everywhere(schema)
                widened = True
            continue
        version["schema"] = {"openAPIV3Schema": {"type": "object", PRESERVE: True}}
        if schema is None:
            yield f"version {text(version, 'name')} has no schema, v1 refuses that: given one that accepts all fields"
        else:
            yield (
                f"the schema of version {text(version, 'name')} is not structural, v1 refuses it: replaced by one that "
                "accepts all fields"
            )
    if widened:
        yield (
            f"preserveUnknownFields true became {PRESERVE} in every object of its schema, or fields that the schema "
            "does not name would be pruned"
        )
    group = text(spec, "group")
    if _is_protected(group) and not _is_approved(text(annotations_of(tree), _APPROVED)):
        annotations = {**annotations_of(tree), _APPROVED: _UNAPPROVED}
        tree["metadata"] = {**mapping(tree, "metadata"), "annotations": annotations}
        yield f"v1 demands the annotation {_APPROVED} in group {group}: set to unapproved"


def _is_protected(group: str) -> bool:
    return f".{group}".endswith((".k8s.io", ".kubernetes.io"))


def _is_approved(annotation: str) -> bool:
    if annotation.startswith("unapproved"):
        return True
    try:
        url = urlsplit(annotation)
    except ValueError:
        return False
    return bool(url.scheme and url.netloc)


def _preserve_everywhere(schema: Tree, *, root: bool = True) -> None:
    """Let every object of a structural schema keep unknown fields: the mark ends where properties are named."""
    if schema.get("type") == "object" and not schema.get(_INT_OR_STRING):
        schema[PRESERVE] = True
    meta = root or schema.get(EMBEDDED) is True
    for name, one in mapping(schema, "properties").items():
        if isinstance(one, dict) and not (meta and name in {"metadata", "apiVersion", "kind"}):
            _preserve_everywhere(one, root=False)
    for one in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(one, dict):
            _preserve_everywhere(one, root=False)


# -- structural or not -----------------------------------------------------------------------------------------------


_UNSUPPORTED = frozenset(
    {"id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions"}
)
_JUNCTORS = ("allOf", "anyOf", "oneOf")
_NOT_BELOW_JUNCTORS = frozenset(
    {
        *("type", "additionalProperties", "default", "title", "description", "nullable"),
        *(PRESERVE, EMBEDDED, _INT_OR_STRING, "x-kubernetes-list-map-keys", "x-kubernetes-list-type"),
        *("x-kubernetes-map-type", "x-kubernetes-validations"),
    }
)


def is_structural(schema: Tree) -> bool:
    """Say whether a server takes this as the schema of a v1 definition."""
    return not schema.get("nullable") and _structural(schema, "root", MAX_DEPTH)


def _structural(schema: Any, level: str, depth: int) -> bool:
    if not isinstance(schema, dict) or not depth or _set(schema) & _UNSUPPORTED or schema.get("uniqueItems"):
        return False
    kind, any_kind = schema.get("type"), schema.get(_INT_OR_STRING) or schema.get(PRESERVE)
    if not kind and not any_kind:
        return False
    embedded = schema.get(EMBEDDED) is True
    if (level == "root" and kind not in ("object", None, "")) or (embedded and kind != "object"):
        return False
    if schema.get(_INT_OR_STRING) and (schema.get(PRESERVE) or embedded):
        return False
    properties, more = mapping(schema, "properties"), schema.get("additionalProperties")
    if more is not None and (level == "root" or embedded or properties or more is False):
        return False
    if embedded and not schema.get(PRESERVE) and not properties:
        return False
    if kind == "array" and not isinstance(schema.get("items"), dict):
        return False
    return _parts_are_structural(schema, properties, level, depth, meta=level == "root" or embedded)


def _parts_are_structural(schema: Tree, properties: Tree, level: str, depth: int, *, meta: bool) -> bool:
    if meta:
        if any(name in properties and at(properties, name, "type") != "string" for name in ("kind", "apiVersion")):
            return False
        if "metadata" in properties and not _metadata_is_fine(properties["metadata"], level):
            return False
    parts = [one for name, one in properties.items() if not (level == "root" and name == "metadata")]
    parts += [schema[name] for name in ("items", "additionalProperties") if schema.get(name) not in (None, True)]
    if not all(_structural(one, "field", depth - 1) for one in parts):
        return False
    return all(_below_is_fine(one, schema, depth - 1) for one in _under_junctors(schema))


def _metadata_is_fine(schema: Any, level: str) -> bool:
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return False
    if level != "root":
        return True
    if set(mapping(schema, "properties")) - {"name", "generateName"}:
        return False
    return not _set(schema) & {"additionalProperties", "items", PRESERVE, EMBEDDED, "description", "title", "nullable"}


def _under_junctors(schema: Tree) -> Iterator[Any]:
    """Yield what stands under allOf, anyOf, oneOf and not, but for the way in which int-or-string is spelled."""
    any_of = schema.get("anyOf")
    for name in _JUNCTORS:
        ones = schema.get(name)
        for number, one in enumerate(ones if isinstance(ones, list) else ()):
            if name == "anyOf" and any_of == _INT_OR_STRING_WAYS:
                continue
            if name == "allOf" and not number and at(one, "anyOf") == _INT_OR_STRING_WAYS:
                one = {key: value for key, value in one.items() if key != "anyOf"}  # noqa: PLW2901
            yield one
    if schema.get("not") is not None:
        yield schema["not"]


_INT_OR_STRING_WAYS = [{"type": "integer"}, {"type": "string"}]


def _below_is_fine(schema: Any, outside: Any, depth: int) -> bool:
    """Check a schema under a junctor: it may restrict values, and name no field that is not named outside."""
    if not isinstance(schema, dict) or not depth or _set(schema) & (_NOT_BELOW_JUNCTORS | _UNSUPPORTED):
        return False
    properties, named = mapping(schema, "properties"), mapping(outside, "properties")
    if "metadata" in properties or any(
        name not in named and not isinstance(at(outside, "additionalProperties"), dict) for name in properties
    ):
        return False
    for name, one in properties.items():
        if not _below_is_fine(one, named.get(name) or at(outside, "additionalProperties"), depth - 1):
            return False
    items = schema.get("items")
    if items is not None and (at(outside, "items") is None or not _below_is_fine(items, outside["items"], depth - 1)):
        return False
    return all(_below_is_fine(one, outside, depth - 1) for one in _under_junctors(schema))


def _set(schema: Tree) -> set[str]:
    """Return the names of what is set: zero values are the same as absent ones in Go."""
    return {name for name, value in schema.items() if value not in (None, False, "", [], {})}


# -- custom resources ------------------------------------------------------------------------------------------------


def settle_custom_resource(edit: Edit, definition: Definition) -> Iterator[str]:
    """Give a custom resource a version that its definition has, and take its status where that is a subresource."""
    tree = edit.tree
    group, _, stored = text(tree, "apiVersion").rpartition("/")
    version = definition.versions.get(stored)
    if version is None or not version.served:
        missing = f"stored as {stored}, which "
        missing += "the CRD does not have" if version is None else "is not served"
        fails = f": every list of {definition.resource} fails in this cluster" if version is None else ""
        new = definition.storage_version
        if definition.webhook:
            yield f"{missing}{fails}, and its CRD converts by webhook {definition.webhook}: not converted"
        elif new:
            tree["apiVersion"] = f"{group}/{new}"
            version = definition.versions[new]
            yield f"{missing}{fails or f': {new} (the CRD converts nothing but the name)'}"
        else:
            yield f"{missing}{fails}, and no version is stored: kept"
    if version is not None and version.has_status:
        edit.drop("status")


def prune(tree: Tree, definition: Definition) -> list[str]:
    """Take out what the server would not show, for the schema does not name it. Returns the paths, sorted."""
    version = definition.versions.get(text(tree, "apiVersion").rpartition("/")[2])
    if version is None or version.schema is None:
        return []
    kept, paths = pruned(tree, version.schema)
    tree |= kept
    for name in set(tree) - set(kept):
        del tree[name]
    return paths


def look_into_schema(node: Any, name: str) -> Below | None:
    """Say what a schema knows about a field, for `duplicates`."""
    below = mapping(node, "properties").get(name)
    if below is None:
        below = at(node, "additionalProperties")
    if not isinstance(below, dict):
        return None
    if below.get("type") != "array":
        return Below(below)
    keys: tuple[str, ...] | None = None
    if below.get("x-kubernetes-list-type") == "map":
        keys = tuple(texts(below, "x-kubernetes-list-map-keys"))
    elif below.get("x-kubernetes-list-type") == "set":
        keys = ()
    return Below(below.get("items"), keys)
