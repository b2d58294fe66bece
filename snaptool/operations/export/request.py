"""What an export is asked for: which objects, and what is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from snaptool.arguments import word_of
from snaptool.errors import InputError
from snaptool.kube.export import Cleaning
from snaptool.kube.keys import ResourceKey, ResourceType, UnknownType, resolve_type

LEFT_TO_NAME = frozenset({"kube-system", "kube-public", "kube-node-lease"})
"""Namespaces that all namespaces do not include: the new cluster has its own. `-n` names them."""


class Cluster(StrEnum):
    """Which cluster-scoped objects go along."""

    RELATED = "related"
    ALL = "all"
    NONE = "none"


class Format(StrEnum):
    """How manifests are written."""

    YAML = "yaml"
    JSON = "json"


ENDING_FORMATS = {".yaml": Format.YAML, ".yml": Format.YAML, ".json": Format.JSON}
"""Ends of names that ask for one stream."""


class Secrets(StrEnum):
    """What is done with Secrets."""

    INCLUDE = "include"
    SKIP = "skip"
    REDACT = "redact"


class Volumes(StrEnum):
    """Whether claims keep the volumes that they had."""

    KEEP = "keep"
    NEW = "new"


class Lost(StrEnum):
    """What is done about values that no key opens. As `--undecryptable`."""

    STOP = "stop"
    SKIP = "skip"
    OLDER = "older"


@dataclass(frozen=True, slots=True)
class Named:
    """A type that was named, and an object of it if one was."""

    type: ResourceType
    name: str | None = None

    def covers(self, key: ResourceKey) -> bool:
        """Say whether a key is of this type and name."""
        return self.covers_type(key) and self.name in (None, key.name)

    def covers_type(self, key: ResourceKey) -> bool:
        """Say whether a key is of this type."""
        if key.path == self.type.path:
            return True
        return key.resource == self.type.resource and key.group == self.type.group

    def __str__(self) -> str:
        return self.type.group_resource + ("" if self.name is None else f"/{self.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to export. `namespaces`: named ones; `every_namespace`: and all others but LEFT_TO_NAME.

    `types`: empty for every resource with objects there; a named type also brings what is left out of it otherwise.
    `cluster` is None for the default: related with named namespaces, all with every one. `raw`: as stored, nothing left
    out and nothing removed.
    """

    namespaces: tuple[str, ...] = ()
    every_namespace: bool = False
    types: tuple[Named, ...] = ()
    cluster: Cluster | None = None
    format: Format | None = None
    secrets: Secrets = Secrets.INCLUDE
    volumes: Volumes = Volumes.KEEP
    keep_allocated: bool = False
    keep_api_versions: bool = False
    raw: bool = False
    revision: int | None = None
    undecryptable: Lost = Lost.STOP

    def __post_init__(self) -> None:
        for name, words in (("secrets", Secrets), ("volumes", Volumes), ("undecryptable", Lost)):
            object.__setattr__(self, name, word_of(words, getattr(self, name), name))
        only_cluster = self.types and all(one.type.namespaced is False for one in self.types)
        if not (self.namespaces or self.every_namespace or only_cluster):
            raise InputError(
                "it is not said which namespaces to export",
                hint="-n NAMESPACE exports one, may be repeated; -A exports all but the system's own",
                code="no_namespace",
            )

    @property
    def scope(self) -> Cluster:
        """Which cluster-scoped objects go along, by choice or by default."""
        if self.cluster is not None:
            return self.cluster
        if self.every_namespace:
            return Cluster.ALL
        return Cluster.RELATED if self.namespaces else Cluster.NONE

    @property
    def cleaning(self) -> Cleaning:
        """What is done to each object."""
        return Cleaning(
            keep_allocated=self.keep_allocated,
            new_volumes=self.volumes is Volumes.NEW,
            redact=self.secrets is Secrets.REDACT,
        )

    def includes(self, namespace: str) -> bool:
        """Say whether a namespace is asked for."""
        return namespace in self.namespaces or (self.every_namespace and namespace not in LEFT_TO_NAME)

    def names(self, key: ResourceKey) -> bool:
        """Say whether an object's type, or it itself, was named."""
        return any(one.covers(key) for one in self.types)


def parse_types(words: Sequence[str]) -> tuple[Named, ...]:
    """Read `TYPE`, `TYPE/NAME` and `TYPE NAME`, several of them; types may be joined by commas.

    A word behind a type that names no type itself is a name. Raises UnknownType.
    """
    found: list[Named] = []
    last: ResourceType | None = None
    taken = False
    for word in words:
        kind, slash, name = word.partition("/")
        if slash and kind and name:
            found.append(Named(resolve_type(kind), name))
            last = None
            continue
        try:
            types = [resolve_type(one) for one in word.split(",") if one]
        except UnknownType:
            if last is None:
                raise
            if not taken:
                found.pop()
            found.append(Named(last, word))
            taken = True
            continue
        found += [Named(one) for one in types]
        last, taken = (types[0], False) if len(types) == 1 else (None, False)
    return tuple(found)
