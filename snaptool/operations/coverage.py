"""What configurations cover of a snapshot, and what they miss: values outside of the prefixes, names without a key.

A value that somebody meant to encrypt may stay in plaintext for two reasons that nobody sees: its key lies where
nobody looks, or its resource is written as API servers do not know it. Both are looked for here, from the keys that
there are. Several API servers have a configuration each; `joined` makes one of them, in which no resource is named
twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from snaptool.errors import InputError, VerificationFailed
from snaptool.kube.keys import RESOURCE_TYPES
from snaptool.kube.names import Misnamed, canonical_name, covers, unmatched
from snaptool.kube.prefixes import OutsidePrefix, prefix_text
from snaptool.operations.findings import Finding, Severity
from snaptool.operations.labels import Resource
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.prefixes import PrefixFacts
from snaptool.providers.config.model import EncryptionConfig
from snaptool.text import counted

_NAMED = 5


class NamedTwice(InputError):
    """Two configurations to write with name one resource. `resources`: as either says it."""

    def __init__(self, first: EncryptionConfig, second: EncryptionConfig, names: Sequence[tuple[str, str]]) -> None:
        pairs = ", ".join(one if one == other else f"{one} and {other}" for one, other in names[:_NAMED])
        super().__init__(
            f"{first.name} and {second.name} both name {pairs}: it is not known which of them is to write",
            hint="API servers that share a resource share its entry: leave it in one of the files",
        )
        self.resources = tuple(names)


class OutsidePrefixes(VerificationFailed):
    """Values of Kubernetes lie outside of the prefixes that were taken. Nothing was written."""

    def __init__(self, facts: PrefixFacts) -> None:
        super().__init__(f"{_places(facts)}; nothing was written", hint=_advice(facts))
        self.prefixes = facts.taken
        self.outside = facts.outside


@dataclass(frozen=True, slots=True)
class UnmatchedName:
    """A name in a configuration that covers no key of the snapshot. `misnamed`: what is wrong with it, if anything."""

    name: str
    misnamed: Misnamed | None

    @property
    def problem(self) -> str:
        """Say it in a sentence, with what was meant where that shows."""
        wrong = f": {self.misnamed.problem}" if self.misnamed else ""
        question = f"; {self.misnamed.question}" if self.misnamed and self.misnamed.question else ""
        return f"{self.name} matches no key in this snapshot{wrong}{question}"


def joined(configs: Sequence[EncryptionConfig]) -> EncryptionConfig | None:
    """Make one configuration of those of several API servers; None of none. Raises NamedTwice."""
    for number, second in enumerate(configs):
        for first in configs[:number]:
            twice = [
                (one, other)
                for one in _names(first)
                for other in _names(second)
                if covers(one, other) or covers(other, one)
            ]
            if twice:
                raise NamedTwice(first, second, twice)
    if len(configs) < 2:
        return configs[0] if configs else None
    name = ", ".join(config.name for config in configs)
    return EncryptionConfig(name, tuple(entry for config in configs for entry in config.entries))


def one_of(configs: Sequence[EncryptionConfig]) -> tuple[EncryptionConfig, ...]:
    """Make one configuration of several that are tried in turn: for each resource, the first that names it writes."""
    if len(configs) < 2:
        return tuple(configs)
    name = ", ".join(config.name for config in configs)
    return (EncryptionConfig(name, tuple(entry for config in configs for entry in config.entries)),)


def _names(config: EncryptionConfig) -> Iterator[str]:
    yield from dict.fromkeys(canonical_name(name) for entry in config.entries for name in entry.resources)


def unmatched_names(names: Sequence[str], present: Collection[Resource]) -> tuple[UnmatchedName, ...]:
    """Find the names in a configuration that cover none of the resources `present`."""
    known = {resource.name for resource in present if resource.group_resource is not None}
    return tuple(UnmatchedName(*one) for one in unmatched(names, known))


def refuse_outside(opened: OpenedSnapshot) -> None:
    """Refuse to write while values of Kubernetes lie outside of the prefixes taken. Raises OutsidePrefixes."""
    if opened.prefix_facts.outside or opened.prefix_facts.strays:
        raise OutsidePrefixes(opened.prefix_facts)


def outside_findings(opened: OpenedSnapshot) -> Iterator[Finding]:
    """Say that values of Kubernetes lie outside of the prefixes taken."""
    facts = opened.prefix_facts
    if facts.outside or facts.strays:
        yield Finding(
            code="outside_prefixes",
            severity=Severity.WARNING,
            places=tuple(_place(one) for one in facts.outside) + tuple(map(_stray, facts.strays)),
            problem="values of Kubernetes lie outside of the prefixes taken, and are not looked at",
            remedy=_advice(facts),
            count=sum(one.objects + one.encrypted for one in facts.outside) + sum(count for _, count in facts.strays),
        )


def unmatched_findings(names: Sequence[UnmatchedName]) -> Iterator[Finding]:
    """Say which names of a configuration cover no key: a fault of the name is a warning, else it is only noted."""
    for one in names:
        yield Finding(
            code="misnamed_resource" if one.misnamed else "unmatched_resource",
            severity=Severity.WARNING if one.misnamed else Severity.NOTE,
            places=(),
            problem=one.problem,
            remedy="correct the name in the configuration of the API servers: they overlook it too"
            if one.misnamed
            else "nothing has to be done if the cluster has no such object",
        )


def _places(facts: PrefixFacts) -> str:
    places = [_place(one) for one in facts.outside] + [_stray(one) for one in facts.strays]
    more = f" and {counted(len(places) - _NAMED, 'more place')}" if len(places) > _NAMED else ""
    taken = ", ".join(map(prefix_text, facts.taken)) or "none"
    return f"values of Kubernetes lie outside of the prefixes taken ({taken}): {'; '.join(places[:_NAMED])}{more}"


def _place(outside: OutsidePrefix) -> str:
    resources = ", ".join(outside.resources[:_NAMED]) + (", ..." if len(outside.resources) > _NAMED else "")
    counts = [f"{outside.encrypted:,} encrypted"] if outside.encrypted else []
    counts += [f"{outside.objects:,} in plaintext"] if outside.objects else []
    return f"{prefix_text(outside.prefix)} ({resources}: {' and '.join(counts)})"


def _stray(stray: tuple[bytes, int]) -> str:
    return f"{stray[0].decode(errors='backslashreplace') or 'keys elsewhere'} ({stray[1]:,})"


def _prefix_above(place: bytes) -> str:
    """Guess the prefix of what lies under `place`: what stands before the name of a resource, else the first part.

    With a shorter prefix than its own, a resource is one that nobody knows, and its values stay as they are.
    """
    segments = place.decode(errors="surrogateescape").strip("/").split("/")
    at = next((at for at, name in enumerate(segments) if name in _RESOURCES), 1)
    return "/" + "/".join(segments[:at]) if at else ""


_RESOURCES = frozenset(known.path.partition("/")[0] for known in RESOURCE_TYPES if "." not in known.path)


def _advice(facts: PrefixFacts) -> str:
    strays = (_prefix_above(place) for place, _ in facts.strays if place.startswith(b"/"))
    every = dict.fromkeys([*facts.taken, *(one.prefix for one in facts.outside), *strays])
    if not every:
        return "no API server reads keys that do not begin with a slash: they are another program's, or were damaged"
    options = " ".join(f"--etcd-prefix {prefix_text(prefix)}" for prefix in [*every][:_NAMED])
    return f"if API servers use them, say all prefixes: {options}"
