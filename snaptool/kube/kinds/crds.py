"""CustomResourceDefinitions: from v1beta1, as every release stores them, to v1; what their schemas leave of objects.

An API server prunes what the structural schema of a version does not have whenever it reads a custom resource, so that
after a schema was narrowed, stored objects have fields that nobody gets.

Source: docs/formats/kinds.md, "Definitions of custom resources"; apiextensions-apiserver v0.37.2
pkg/apis/apiextensions/v1beta1, pkg/apiserver/schema/pruning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Plain = dict[str, Any]

CRD_KIND = "CustomResourceDefinition"
CRD_STORED = "apiextensions.k8s.io/v1beta1"
CRD_V1 = "apiextensions.k8s.io/v1"


def is_stored_crd(tree: Plain) -> bool:
    """Is this a CustomResourceDefinition in the form that is stored?"""
    return tree.get("kind") == CRD_KIND and tree.get("apiVersion") == CRD_STORED


def mapping(value: Any) -> Plain:
    """Return a mapping as it is, and an empty one for anything else: stored JSON may hold anything anywhere."""
    return value if isinstance(value, dict) else {}


_PER_VERSION = {
    "validation": "schema",
    "subresources": "subresources",
    "additionalPrinterColumns": "additionalPrinterColumns",
    "selectableFields": "selectableFields",
}


def crd_to_v1(tree: Plain) -> Plain:
    """Convert a CustomResourceDefinition from v1beta1, as it is stored, to v1, as it is served."""
    spec = dict(mapping(tree.get("spec")))
    version = spec.pop("version", None)
    shared = {name: spec.pop(old) for old, name in _PER_VERSION.items() if spec.get(old) is not None}
    for old in _PER_VERSION:
        spec.pop(old, None)
    versions = spec.get("versions")
    if not isinstance(versions, list) or not versions:
        versions = [{"name": version, "served": True, "storage": True}] if version else []
    spec["versions"] = [_version_to_v1(each, shared) for each in versions if isinstance(each, dict)]
    spec["conversion"] = _conversion_to_v1(spec.get("conversion"))
    if spec.get("preserveUnknownFields") in (None, True):
        spec["preserveUnknownFields"] = True
    else:
        del spec["preserveUnknownFields"]
    return tree | {"apiVersion": CRD_V1, "spec": spec}


def _version_to_v1(version: Plain, shared: Plain) -> Plain:
    converted = shared | {name: value for name, value in version.items() if value is not None}
    columns = converted.get("additionalPrinterColumns")
    if isinstance(columns, list):
        converted["additionalPrinterColumns"] = [
            {"jsonPath" if name == "JSONPath" else name: value for name, value in column.items()}
            if isinstance(column, dict)
            else column
            for column in columns
        ]
    return converted


def _conversion_to_v1(conversion: Any) -> Plain:
    if not isinstance(conversion, dict):
        return {"strategy": "None"}
    versions = conversion.get("conversionReviewVersions")
    webhook: Plain = {} if versions is None else {"conversionReviewVersions": versions}
    if conversion.get("webhookClientConfig") is not None:
        # v1 has no omitempty on the versions.
        webhook = {"clientConfig": conversion["webhookClientConfig"], "conversionReviewVersions": versions}
    return {"strategy": conversion.get("strategy") or ""} | ({"webhook": webhook} if webhook else {})


# -- pruning ---------------------------------------------------------------------------------------------------------

_META = frozenset({"apiVersion", "kind", "metadata"})
_PRESERVE = "x-kubernetes-preserve-unknown-fields"


def pruning_schema(crd: Plain, version: str) -> Plain | None:
    """Return the schema by which a server prunes objects of a version; None where it prunes nothing.

    `crd` is in v1 form. Nothing is pruned where the definition says so, or has no such version or no schema for it.
    """
    if mapping(crd.get("spec")).get("preserveUnknownFields") is True:
        return None
    found = next((each for each in _versions(crd) if each.get("name") == version), {})
    schema = mapping(found.get("schema")).get("openAPIV3Schema")
    return schema if isinstance(schema, dict) else None


def version_names(crd: Plain) -> frozenset[str]:
    """Return the versions that a definition in v1 form has: an object in another one cannot be decoded."""
    return frozenset(name for each in _versions(crd) if isinstance(name := each.get("name"), str))


def _versions(crd: Plain) -> list[Plain]:
    versions = mapping(crd.get("spec")).get("versions")
    return [each for each in versions if isinstance(each, dict)] if isinstance(versions, list) else []


def pruned(tree: Plain, schema: Plain) -> tuple[Plain, list[str]]:
    """Return an object as a server would give it, and the paths of what it would leave out, in order."""
    paths: list[str] = []
    root = schema | {"x-kubernetes-embedded-resource": True}
    kept = _keeping if schema.get(_PRESERVE) is True else _pruned
    return kept(tree, root, "", paths.append), sorted(paths)


def _pruned(value: Any, schema: Plain | None, path: str, left_out: Callable[[str], None]) -> Any:
    if schema is not None and schema.get(_PRESERVE) is True:
        return _keeping(value, schema, path, left_out)
    if isinstance(value, list):
        items = None if schema is None else _schema(schema.get("items"))
        return [_pruned(item, items, f"{path}[{at}]", left_out) for at, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, item in value.items():
        place = f"{path}.{name}".removeprefix(".")
        known, inside = (False, None) if schema is None else _member(schema, name)
        if schema is not None and schema.get("x-kubernetes-embedded-resource") is True and name in _META:
            found[name] = item
        elif known:
            found[name] = _pruned(item, inside, place, left_out)
        else:
            left_out(place)
    return found


def _keeping(value: Any, schema: Plain | None, path: str, left_out: Callable[[str], None]) -> Any:
    """Go through what is preserved: only what the schema names in it is pruned by its own rules."""
    if schema is None:
        return value
    if isinstance(value, list):
        items = _schema(schema.get("items"))
        return [_keeping(item, items, f"{path}[{at}]", left_out) for at, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, item in value.items():
        known, inside = _member(schema, name)
        meta = schema.get("x-kubernetes-embedded-resource") is True and name in _META
        place = f"{path}.{name}".removeprefix(".")
        found[name] = _pruned(item, inside, place, left_out) if known and not meta else item
    return found


def _member(schema: Plain, name: str) -> tuple[bool, Plain | None]:
    """Does a schema have a member of that name, and which schema is it of?"""
    properties = mapping(schema.get("properties"))
    if name in properties:
        return True, _schema(properties[name])
    additional = schema.get("additionalProperties")
    return additional is not None and additional is not False, _schema(additional)


def _schema(value: Any) -> Plain | None:
    return value if isinstance(value, dict) else None
