"""What people name: types by kubectl's words, also those that the snapshot's own definitions bring; objects; keys.

A word is looked for among the built-in types first, as kubectl does; only when it is none of them, or when the scope of
a custom resource matters, are the CustomResourceDefinitions of the file read, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from re import compile as pattern
from typing import Any

from snaptool.errors import FormatError, InputError
from snaptool.kube.keys import RESOURCE_TYPES, ResourceType, UnknownType, key_prefixes, resolve_type
from snaptool.kube.kinds.crds import CRD_KIND, CRD_V1, mapping
from snaptool.kube.kinds.reader import decode_object
from snaptool.kube.kinds.served import as_served
from snaptool.operations.crypto import open_value
from snaptool.operations.labels import Labels, resource_of
from snaptool.operations.listing import live_at
from snaptool.operations.object import DEFAULT_NAMESPACE, NoSuchKey, Target, find_value, target_of
from snaptool.operations.opening import OpenedSnapshot
from snaptool.providers.keyring import Keyring
from snaptool.text import printable

DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
_VERSIONED = pattern(r"v[0-9]+(?:(?:alpha|beta)[0-9]+)?\.(?P<group>.+)")


@dataclass(frozen=True, slots=True)
class Definition:
    """A CustomResourceDefinition of the snapshot. `tree`: in v1 form; `type`: what it defines."""

    type: ResourceType
    names: frozenset[str]
    tree: dict[str, Any]


class Types:
    """Types as people name them: built in, or defined in a snapshot at a revision, None for the newest."""

    def __init__(self, opened: OpenedSnapshot, keyring: Keyring | None = None, revision: int | None = None) -> None:
        self._opened = opened
        self._keyring = keyring or Keyring()
        self._revision = revision

    @cached_property
    def definitions(self) -> tuple[Definition, ...]:
        """The definitions that can be read, in the order of the file. Raises the FormatErrors of a damaged file."""
        snapshot, prefixes = self._opened.snapshot, self._opened.prefixes
        heads = [head for prefix in prefixes for head in key_prefixes(resolve_type(DEFINITIONS), prefix=prefix)]
        live = live_at(snapshot, self._revision)
        found: list[Definition | None] = []
        for records in snapshot.chunks():
            rows = [row for head in heads for row in records.beginning(head)]
            chosen = (row for row in rows if live[records.first_record + row])
            found.extend(self._read(records.user_key(row), records.value(row)) for row in chosen)
        return tuple(one for one in found if one is not None)

    def _read(self, key: bytes, stored: bytes) -> Definition | None:
        chain = self._keyring.chain_for(resource_of(key, self._opened.prefixes).group_resource)
        _, plaintext = open_value(chain, stored, key)
        try:
            return _definition(as_served(decode_object(stored if plaintext is None else plaintext).tree))
        except FormatError:
            return None

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The prefixes of the snapshot."""
        return self._opened.prefixes

    @staticmethod
    def is_built_in(path: str) -> bool:
        """Say whether a path belongs to no custom resource."""
        return any(known.path == path for known in RESOURCE_TYPES)

    def definition_of(self, resource: str, group: str) -> Definition | None:
        """Return the definition of a custom resource, None where the snapshot has none that can be read."""
        if "definitions" not in self.__dict__:
            # One key is found faster than all definitions.
            target = target_of(resolve_type(DEFINITIONS), f"{resource}.{group}")
            try:
                value = find_value(self._opened, target, self._revision, skip_hash_check=True)
            except NoSuchKey:
                return None
            return self._read(value.key, value.stored)
        named = (one for one in self.definitions if (one.type.resource, one.type.group) == (resource, group))
        return next(named, None)

    def resolve(self, word: str) -> ResourceType:
        """Find the type that a word names: plural, singular, kind or short name, with or without group and version.

        A PLURAL.GROUP that no definition has is still a type, of which it is not known whether it has namespaces.
        Raises UnknownType.
        """
        try:
            found = resolve_type(word)
        except UnknownType as unknown:
            defined = self._defined(word)
            if defined is None:
                names = {name for one in self.definitions for name in (one.type.resource, one.type.kind.lower())}
                similar = get_close_matches(word.lower(), sorted(names), n=2, cutoff=0.75) or self._stored_like(word)
                raise UnknownType(word, similar) if similar else unknown from None
            return defined
        if found.kind:
            return found
        definition = self.definition_of(found.resource, found.group)
        return definition.type if definition is not None else self._defined(word) or found

    def _stored_like(self, word: str) -> list[str]:
        """Return the custom resources of which there are objects, and no definition, with a plural like `word`."""
        labels = Labels(self._opened.prefixes)
        for records in self._opened.snapshot.chunks():
            labels.add(records)
        custom = [one.group_resource for one in labels.resources if one.group_resource and one.group_resource.group]
        named = {one.resource: str(one) for one in custom if resolve_type(str(one)).kind == ""}
        return [named[like] for like in get_close_matches(word.lower(), sorted(named), n=2, cutoff=0.75)]

    def selected(self, word: str | None) -> ResourceType | str | None:
        """Find the type that a word names; the beginning of a key stays as it is. Raises UnknownType."""
        return word if word is None or _is_key(word) else self.resolve(word)

    def _defined(self, word: str) -> ResourceType | None:
        wanted, _, group = word.lower().partition(".")
        version = _VERSIONED.fullmatch(group)
        if version is not None:
            group = version["group"]
        named = (one.type for one in self.definitions if wanted in one.names and group in {"", one.type.group})
        return next(named, None)


def _definition(tree: dict[str, Any]) -> Definition | None:
    if tree.get("kind") != CRD_KIND or tree.get("apiVersion") != CRD_V1:
        return None
    spec = mapping(tree.get("spec"))
    names = mapping(spec.get("names"))
    group, plural = spec.get("group"), names.get("plural")
    if not (isinstance(group, str) and isinstance(plural, str) and group and plural):
        return None
    short_names = names.get("shortNames")
    words = [names.get("singular"), names.get("kind"), *(short_names if isinstance(short_names, list) else [])]
    kind = names.get("kind")
    defined = ResourceType(
        resource=plural,
        group=group,
        path=f"{group}/{plural}",
        namespaced=spec.get("scope") == "Namespaced",
        kind=kind if isinstance(kind, str) else "",
    )
    return Definition(defined, frozenset(word.lower() for word in [plural, *words] if isinstance(word, str)), tree)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command is to look at: objects by name, or all of some types in a namespace or everywhere.

    `single`: one object was named, which is shown by itself and not in a list.
    """

    targets: tuple[Target, ...] = ()
    kinds: tuple[ResourceType, ...] = ()
    namespace: str | None = None
    everywhere: bool = False
    single: bool = False

    def namespace_of(self, kind: ResourceType) -> str | None:
        """Return where to look for objects of a type, None for everywhere: kubectl's default where none is named."""
        if self.everywhere or kind.namespaced is False:
            return None
        return self.namespace or (DEFAULT_NAMESPACE if kind.namespaced else None)


def parse_asked(
    words: Sequence[str],
    namespace: str | None,
    resolve: Callable[[str], ResourceType],
    *,
    all_namespaces: bool = False,
) -> Asked:
    """Read `KEY…`, `TYPE[,TYPE…]`, `TYPE[,TYPE…] NAME…` or `TYPE/NAME…`, as kubectl reads them.

    Raises UnknownType, and InputError for what is none of these.
    """
    if _is_key(words[0]):
        keys = [word.encode(errors="surrogateescape") for word in words]
        return Asked(tuple(Target(said=printable(key), key=key) for key in keys), single=len(keys) == 1)
    if any("/" in word for word in words):
        pairs = [word.partition("/")[::2] for word in words]
        if not all(kind and name for kind, name in pairs):
            raise InputError(
                "TYPE/NAME cannot be mixed with other words",
                hint="name one key, a type and names of it, or several as TYPE/NAME",
                code="wrong_usage",
            )
        named = [(resolve(kind), name) for kind, name in pairs]
    else:
        kinds = tuple(resolve(word) for word in words[0].split(",") if word)
        if not kinds:
            raise InputError(
                "no type is named", hint="for example: secrets my-secret -n my-namespace", code="wrong_usage"
            )
        if len(words) == 1:
            return Asked(kinds=kinds, namespace=namespace, everywhere=all_namespaces)
        named = [(kind, name) for kind in kinds for name in words[1:]]
    if all_namespaces:
        raise InputError(
            "an object is named in one namespace", hint="name it with -n, or leave its name out", code="wrong_usage"
        )
    return Asked(tuple(target_of(kind, name, namespace) for kind, name in named), single=len(named) == 1)


def _is_key(word: str) -> bool:
    """No type begins with a slash, or has an underscore as compact_rev_key does."""
    return word.startswith("/") or ("_" in word and "/" not in word)
