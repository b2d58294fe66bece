"""Which `--etcd-prefix` the API servers of an etcd have, judged by what lies under it.

A prefix is what stands before the path of a resource: `/registry` in `/registry/secrets/NAMESPACE/NAME`. Several API
servers may share an etcd, each with a prefix of its own, and so may programs that have nothing to do with Kubernetes
and call their keys alike. So a name says nothing: a prefix is taken on evidence. Evidence for a resource under it are
values that are an object of that very kind and group, or that begin with an encryption header, which nothing but API
servers writes. A namespace, or two resources, are enough; one alone is enough under a usual name, or where no other
prefix has more. What has less is not taken, and is reported: `outside`.

The same key can be read in several ways: `/a/b.c/secrets/n` is a Secret under `/a/b.c`, or a custom resource of group
`b.c` under `/a`, and a namespace may be called like a resource. Objects say which it is. Where there are only headers,
the shorter prefix explains the longer one away, unless most under the group's name is called as under a prefix.

Source: kubernetes/apiserver pkg/server/options/etcd.go, pkg/storage/etcd3/store.go; docs/formats/encryption.md, "Keys
in etcd". This module knows no value and no file: what was found comes in as counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from snaptool.kube.keys import DEFAULT_PREFIXES, RESOURCE_TYPES, resource_segments

NAMESPACES = "namespaces"
_ENOUGH = 2
_PATHS = {known.path: known for known in RESOURCE_TYPES}
_FIRST_SEGMENTS = frozenset(path.partition("/")[0] for path in _PATHS if "." not in path)


def prefix_text(prefix: str) -> str:
    """Write a normal prefix as an option takes it: the root is `/`."""
    return prefix or "/"


@dataclass(slots=True)
class Evidence:
    """What speaks for one resource under one prefix: records that are `objects` of it, and `encrypted` ones."""

    objects: int = 0
    encrypted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsidePrefix:
    """A prefix that was not taken, although values under it look like Kubernetes'. Counts are of records."""

    prefix: str
    resources: tuple[str, ...]
    objects: int
    encrypted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Prefixes, in their normal form: those `taken`, in order, and those `outside`."""

    taken: tuple[str, ...]
    outside: tuple[OutsidePrefix, ...]


class PrefixEvidence:
    """Evidence as it is gathered, by prefix and by what follows it: the path of a resource, or GROUP/PLURAL."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Evidence]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._found.values()))

    def add(self, prefix: str, path: str, *, objects: int = 0, encrypted: int = 0) -> None:
        """Count records that are objects of the resource, and encrypted ones."""
        if not objects and not encrypted:
            return
        evidence = self._found.setdefault(prefix, {}).setdefault(path, Evidence())
        evidence.objects += objects
        evidence.encrypted += encrypted

    def speaks_for(self, prefix: str) -> bool:
        """Is there any evidence for a prefix?"""
        return prefix in self._found

    def judge(self, given: Iterable[str] | None = None) -> Judgement:
        """Decide which prefixes to take; those `given` are taken as they are, and no others."""
        shortest_first = sorted(self._found, key=lambda prefix: (prefix.count("/"), prefix))
        taken = [prefix for prefix in shortest_first if _is_enough(self._objects(prefix))]
        for prefix in shortest_first:
            if prefix not in taken and _is_enough(self._resources(prefix, taken)):
                taken.append(prefix)
        strong = bool(taken)
        weak = [prefix for prefix in shortest_first if prefix not in taken]
        # One resource is little, and may be a copy that another program keeps; but it is all that a small store has.
        for usual in (True, False):
            for prefix in weak:
                if (prefix in DEFAULT_PREFIXES) is usual and (usual or not strong) and self._resources(prefix, taken):
                    taken.append(prefix)
            strong = strong or bool(taken)
        if given is not None:
            found, taken = taken, list(dict.fromkeys(given))
            weak = [*(prefix for prefix in found if prefix not in taken), *weak]
        outside = (self._outside(prefix, taken) for prefix in dict.fromkeys(weak) if prefix not in taken)
        return Judgement(taken=tuple(sorted(taken)), outside=tuple(one for one in outside if one is not None))

    def _outside(self, prefix: str, taken: list[str]) -> OutsidePrefix | None:
        resources = self._resources(prefix, taken)
        if not resources:
            return None
        found = [self._found[prefix][path] for path in resources]
        return OutsidePrefix(
            prefix=prefix,
            resources=tuple(sorted(map(_resource, resources))),
            objects=sum(one.objects for one in found),
            encrypted=sum(one.encrypted for one in found),
        )

    def _resources(self, prefix: str, taken: list[str]) -> list[str]:
        """List the paths under a prefix that evidence speaks for, beside the prefixes `taken` already."""
        within = next(iter(_ways_within(prefix, taken)), None)
        if within is not None:
            # What lies there is explained: only objects that cannot lie there otherwise say more, and of them several.
            paths = [path for path in self._objects(prefix) if path != within]
            return paths if _is_enough(paths) else []
        paths = [path for path in self._found[prefix] if not self._belongs_deeper(prefix, path, taken)]
        if any(prefix.startswith(f"{outer}/") for outer in taken) and len(paths) < _ENOUGH:
            return self._objects(prefix)  # a plural that is not known, and a namespace called like a resource
        return paths

    def _objects(self, prefix: str) -> list[str]:
        return [path for path, one in self._found[prefix].items() if one.objects]

    def _belongs_deeper(self, prefix: str, path: str, taken: list[str]) -> bool:
        """Is what looks like the group of a custom resource, or like all of its path, a part of a longer prefix?"""
        group, _, _ = path.partition("/")
        if "." not in group:
            return False
        deeper, whole = f"{prefix}/{group}", f"{prefix}/{path}"
        if deeper in taken or any(f"{other}/".startswith(f"{whole}/") for other in taken):
            return True
        if len(self._found.get(whole, ())) >= _ENOUGH:
            return True
        if deeper not in self._found:
            return False
        names = {other.partition("/")[2] for other in self._found[prefix] if other.startswith(f"{group}/")}
        names |= {other.partition("/")[0] for other in self._found[deeper]}
        known = {name for name in names if name in _FIRST_SEGMENTS or "." in name}
        if 2 * len(known) <= len(names):
            return False  # a group with resources of its own; some may be called like built-in ones
        return len(known) >= _ENOUGH or deeper in DEFAULT_PREFIXES or bool(self._objects(deeper))


def _is_enough(paths: list[str]) -> bool:
    return len(paths) >= _ENOUGH or NAMESPACES in paths


def _resource(path: str) -> str:
    """Name the resource of a path, for people."""
    if path in _PATHS:
        return _PATHS[path].group_resource
    group, _, plural = path.partition("/")
    return f"{plural}.{group}"


def _ways_within(prefix: str, taken: list[str]) -> Iterator[str]:
    """Yield the path, or the group, by which `prefix` lies among the objects of a resource of a taken prefix."""
    for outer in taken:
        if prefix.startswith(f"{outer}/"):
            segments = prefix[len(outer) + 1 :].split("/")
            path = "/".join(segments[: resource_segments(segments[0])])
            if "." in segments[0] or path in _PATHS:
                yield path
