"""Every manifest of the documentation fits the API's own types, as the published modules have them (table.txt)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from snaptool.kube.kinds.table import FieldType, fields_of, message_of

DOCS = Path(__file__).parents[1] / "docs"
MANIFESTS = [
    pytest.param(yaml.safe_load(part), id=f"{path.name}-{number}")
    for path in sorted(DOCS.rglob("*.md"))
    for number, part in enumerate(re.findall(r"(?s)```yaml\n(.*?)```", path.read_text()))
    if re.search(r"(?m)^apiVersion: (batch|apps|v1)", part)
]
KINDS: dict[str, tuple[type, ...]] = {"s": (str,), "i": (int,), "b": (bool,), "q": (str, int), "n": (str, int)}


def misfits(value: Any, message: str, where: str = "") -> list[str]:
    """What of a manifest no field of the API takes."""
    fields: dict[str, FieldType] = {}
    for one in fields_of(message):
        if one.presence == "~":
            fields |= {inner.name: inner for inner in fields_of(one.type)}
        else:
            fields[one.name] = one
    if not isinstance(value, dict):
        return [f"{where}: {message} is a mapping"]
    found = []
    for name, inside in value.items():
        place = f"{where}.{name}"
        if name not in fields:
            found.append(f"{place}: {message} has no such field")
            continue
        field = fields[name]
        values = [inside]
        if field.prefix in {"*", "&"}:
            values = inside if isinstance(inside, list) else []
            found += [] if isinstance(inside, list) else [f"{place}: a list"]
        elif field.prefix == "%":
            values = list(inside.values()) if isinstance(inside, dict) else []
        for item in values:
            if len(field.type) > 1:
                found += misfits(item, field.type, place)
            elif not isinstance(item, KINDS[field.type]) or (isinstance(item, bool) and field.type != "b"):
                found.append(f"{place}: {item!r} is not {field.type}")
    return found


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_of_the_documentation_fits_the_api(manifest: dict[str, Any]) -> None:
    message = message_of(manifest["apiVersion"], manifest["kind"])
    assert message is not None
    assert misfits({key: value for key, value in manifest.items() if key not in {"apiVersion", "kind"}}, message) == []


def test_what_does_not_fit_is_found() -> None:
    job = {"spec": {"completion": 3, "parallelism": "3", "template": {"spec": {"containers": {"name": "a"}}}}}
    assert misfits(job, "batch/v1.Job") == [
        ".spec.completion: batch/v1.JobSpec has no such field",
        ".spec.parallelism: '3' is not i",
        ".spec.template.spec.containers: a list",
    ]
    assert len(MANIFESTS) >= 3
