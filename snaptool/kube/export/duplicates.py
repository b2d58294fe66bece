"""Lists that server-side apply takes for maps or sets, and that hold a key or a member twice.

Old servers took them: two environment variables of one name, two ports of one number. `create` still does; apply
answers "duplicate entries for key". Which lists these are says the table of kinds for what Kubernetes serves
(`+listType`), and the schema of its definition for a custom resource (`x-kubernetes-list-type`). Both are handed in as
a function, so that this module knows neither. Source: docs/formats/kinds.md, "Order and files".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Below:
    """What a schema says about a field of a mapping. `keys`: of a list that is a map; empty for a set; else None."""

    node: Any
    keys: tuple[str, ...] | None = None


Look = Callable[[Any, str], Below | None]
"""Says what a node of the schema knows about a field of that name; None for nothing. An item's is its list's."""


def duplicates(tree: Any, node: Any, look: Look, path: str = "") -> Iterator[str]:
    """Yield what is there twice, in words: `spec.template.spec.containers[app].env has MODE twice`."""
    if not isinstance(tree, dict):
        return
    for name, value in tree.items():
        below = look(node, name)
        if below is None or not isinstance(value, dict | list):
            continue
        here = f"{path}.{name}" if path else name
        if isinstance(value, dict):
            yield from duplicates(value, below.node, look, here)
            continue
        for shown in _twice(value, below.keys):
            yield f"{here} has {shown} twice"
        for number, one in enumerate(value):
            shown = _identity(one, below.keys or ("name",)) if isinstance(one, dict) else ""
            yield from duplicates(one, below.node, look, f"{here}[{shown or number}]")


def _twice(values: list[Any], keys: tuple[str, ...] | None) -> Iterator[str]:
    if keys is None:
        return
    shown = {_exact(_key(one, keys)): _identity(one, keys) if keys else str(one) for one in values}
    counted = Counter(_exact(_key(one, keys)) for one in values)
    for key, times in counted.items():
        if times > 1:
            yield shown[key]


def _key(one: Any, keys: tuple[str, ...]) -> Any:
    return [one.get(key) for key in keys] if keys and isinstance(one, dict) else one


def _exact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _identity(one: Any, keys: tuple[str, ...]) -> str:
    if not isinstance(one, dict):
        return str(one)
    return "/".join(str(one[key]) for key in keys if one.get(key) is not None)
