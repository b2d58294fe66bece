"""Vectors of kinds, and PyYAML as the judge of YAML that we print."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from snaptool.kube.kinds import table

VECTORS = Path(__file__).parents[1] / "golden" / "kinds"
BY_RELEASE = ("v0.20", "v0.27", "v0.34", "v0.37", "other-releases")


def known_kinds() -> tuple[tuple[str, str], ...]:
    """Every apiVersion and kind of the table."""
    return tuple(table._lines().kinds)


def vectors(name: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file of vectors."""
    for line in gzip.decompress((VECTORS / f"{name}.jsonl.gz").read_bytes()).splitlines():
        yield json.loads(line)


def stored(vector: dict[str, Any]) -> bytes:
    """What a vector has in the store: bytes, or for CustomResourceDefinitions an object."""
    kept = vector["stored"]
    return b64decode(kept) if isinstance(kept, str) else json.dumps(kept).encode()


def release(vector: dict[str, Any]) -> int:
    return int(vector["release"].partition(".")[2])


def is_bare_merge(printed: str) -> bool:
    """Did kubectl print a key `<<` as it is, which it then cannot apply?"""
    return any(line.lstrip(" -").startswith("<<:") for line in printed.splitlines())


class _Texts(yaml.CSafeLoader):
    """A loader for which bare `=` and `<<` are texts, and `1e+21` is a number, as they are for kubectl."""


_Texts.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":value", ":merge"))]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


_Texts.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?e[+-][0-9]+\Z"), list("-+0123456789")
)


def yaml_values(text: str) -> Any:
    return numbers_alike(yaml.load(text, Loader=_Texts))  # noqa: S506 - a safe loader, with less


def numbers_alike(value: Any) -> Any:
    """Turn whole numbers beyond what a float holds exactly into floats: formats write those in several ways."""
    if isinstance(value, dict):
        return {name: numbers_alike(item) for name, item in value.items()}
    if isinstance(value, list):
        return [numbers_alike(item) for item in value]
    if isinstance(value, int) and abs(value) > 1 << 53:
        return float(value)
    return value
