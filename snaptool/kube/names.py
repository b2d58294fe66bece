"""What a name in an EncryptionConfiguration names, and what was meant where it names nothing.

kube-apiserver takes nearly any text for a resource: what names nothing is accepted and never used, and the values that
were to be encrypted stay in plaintext without a word. So a name is held against the resources that Kubernetes has and
those that a snapshot has, and read as people write it: a singular, a kind, a short name, `group/plural`, with a
version, with no group or a wrong one, or misspelled.

Source: docs/formats/encryption.md, "Names of resources" and "Which entry applies". A name is RESOURCE.GROUP here, as in
the file; in the names of a snapshot the group is `?` where keys do not tell it (`ResourceKey.group_resource`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from re import compile as pattern

from snaptool.kube.keys import RESOURCE_TYPES

_VERSION = pattern(r"v[0-9]+(?:(?:alpha|beta)[0-9]+)?")
_GROUPS = frozenset(group for known in RESOURCE_TYPES for group in (known.group, *known.former_groups) if group)
_BUILT_IN = {known.group_resource: known for known in RESOURCE_TYPES}
_CLOSE = 0.8
_MOST_MEANT = 3
_LONGEST_NAME = 512
"""No resource is called so; looking for names like it would take long."""


class NameFault(StrEnum):
    """What is wrong with a name that names no resource."""

    SINGULAR = "singular"
    KIND = "kind"
    SHORT_NAME = "short-name"
    SLASH = "slash"
    VERSION = "version"
    GROUP = "group"
    """The plural exists, in another group."""
    ORDER = "order"
    """GROUP.PLURAL instead of PLURAL.GROUP."""
    SPELLING = "spelling"
    UNKNOWN = "unknown"
    """Nothing like it is known, and a custom resource would have a group."""


_FAULTS = {
    NameFault.SINGULAR: "it is not the plural",
    NameFault.KIND: "it is a kind, not the plural of a resource",
    NameFault.SHORT_NAME: "it is a short name, which kubectl alone knows",
    NameFault.SLASH: "names have no slash; the group follows the plural after a dot",
    NameFault.VERSION: "names have no version",
    NameFault.GROUP: "it is in another API group",
    NameFault.ORDER: "the plural comes first, then the group",
    NameFault.SPELLING: "no resource is spelled so",
    NameFault.UNKNOWN: "no resource is called so",
}


@dataclass(frozen=True, slots=True)
class Misnamed:
    """A name that names no resource. `meant`: what it is like, nearest first; empty when nothing is like it.

    `certain` is False for custom resources that are not known: only the form of the name is odd.
    """

    name: str
    fault: NameFault
    meant: tuple[str, ...] = ()
    certain: bool = True

    @property
    def problem(self) -> str:
        """Say what is wrong with it, in half a sentence."""
        return _FAULTS[self.fault] if self.certain else f"it looks as if {_FAULTS[self.fault]}"

    @property
    def question(self) -> str:
        """Ask what was meant; empty when nothing is like it."""
        return f"did you mean {' or '.join(self.meant)}?" if self.meant else ""


def canonical_name(name: str) -> str:
    """Write a name in one way: the core group is empty, and has no dot unless the name is a wildcard."""
    resource, _, group = name.partition(".")
    return name if group or resource == "*" else resource


def misnamed(name: str, present: Collection[str] = ()) -> Misnamed | None:
    """Say what is wrong with a name; None when it names a resource, or may name a custom one, or is a wildcard.

    `present`: names of resources that a snapshot has. Those are right, and likelier to be meant than others.
    """
    name = canonical_name(name)
    plural, _, group = name.partition(".")
    if name in _BUILT_IN or any(_same(name, other) for other in present):
        return None
    if len(name) > _LONGEST_NAME:
        return Misnamed(name, NameFault.UNKNOWN)
    if plural == "*":
        return _misnamed_group(name, group, present)
    for fault, found in _likenesses(name, present):
        meant = tuple(dict.fromkeys(found))
        if meant:
            return Misnamed(name, fault, meant[:_MOST_MEANT])
    if "/" in name:
        return Misnamed(name, NameFault.SLASH, tuple(".".join(pair) for pair in _readings(name.lower()) if all(pair)))
    if "." not in group:
        return Misnamed(name, NameFault.UNKNOWN)
    if _VERSION.fullmatch(group.partition(".")[0]):
        return Misnamed(name, NameFault.VERSION, (f"{plural}.{group.partition('.')[2]}",))
    if not plural.endswith("s"):
        return Misnamed(name, NameFault.SINGULAR, (f"{_plurals(plural)[0]}.{group}",), certain=False)
    return None


def _misnamed_group(name: str, group: str, present: Collection[str]) -> Misnamed | None:
    """Say what is wrong with the group of a wildcard; None for one that is known, or may be a custom one."""
    known = _GROUPS | {other.partition(".")[2] for other in present} | {"", "*"}
    if group in known:
        return None
    parts = [part for part in group.lower().split("/") if part and not _VERSION.fullmatch(part)]
    labels = parts[0].split(".") if parts else []
    plain = ".".join(labels[1:] if labels and _VERSION.fullmatch(labels[0]) else labels)
    plain = "" if plain in _CORE else plain
    near = [plain] if plain in known else _close(plain, sorted(known - {"", "*"}))
    meant = tuple(f"*.{one}" for one in near)
    if "/" in group:
        return Misnamed(name, NameFault.SLASH, meant or (f"*.{plain}",))
    if plain != group.lower() and plain not in _CORE:
        return Misnamed(name, NameFault.VERSION, meant or (f"*.{plain}",))
    if plain != group.lower():
        return Misnamed(name, NameFault.GROUP, ("*.",))
    if near:
        return Misnamed(name, NameFault.SPELLING, meant)
    return None if "." in group else Misnamed(name, NameFault.UNKNOWN)


_CORE = frozenset({"", "core", "legacy"})
"""What people call the group that has no name."""


def covers(name: str, present: str) -> bool:
    """Does a name in a configuration, which may be a wildcard, cover another name, or a snapshot's of a resource?"""
    plural, _, group = canonical_name(name).partition(".")
    other, _, other_group = present.partition(".")
    return (group in {"*", other_group} or other_group == "?") and plural in {"*", other}


def unmatched(names: Iterable[str], present: Collection[str]) -> Iterator[tuple[str, Misnamed | None]]:
    """Yield the names that cover no resource of a snapshot, and what is wrong with each.

    None: nothing, the snapshot just has no key of it.
    """
    for name in dict.fromkeys(map(canonical_name, names)):
        if not any(covers(name, other) for other in present):
            yield name, misnamed(name, present) or _like_present(name, present)


def _like_present(name: str, present: Collection[str]) -> Misnamed | None:
    """Find a custom resource of the snapshot that a name, by itself a possible one, was meant for."""
    if name in _BUILT_IN or name.startswith("*."):
        return None
    near = _close(name, sorted(present)) if len(name) <= _LONGEST_NAME else []
    return Misnamed(name, NameFault.SPELLING, tuple(near)) if near else None


def _same(name: str, present: str) -> bool:
    return name == present or (present.endswith(".?") and name.partition(".")[0] == present.removesuffix(".?"))


def _likenesses(name: str, present: Collection[str]) -> Iterator[tuple[NameFault, list[str]]]:
    """Yield, for every way to be wrong, what is meant if it is that one; the surest way first."""
    every = [*sorted(present), *(known for known in _BUILT_IN if known not in present)]
    lower = name.lower()
    plural, _, group = lower.partition(".")
    if lower != name:
        yield NameFault.KIND, [one for one in every if one == lower]
    for way, fault in (
        (_singular_of, NameFault.SINGULAR),
        (_kind_of, NameFault.KIND),
        (_short_of, NameFault.SHORT_NAME),
    ):
        if way is not _kind_of or lower != name:
            yield fault, [one for one in every if one.partition(".")[2] == group and way(plural, one)]
    readings = list(_readings(lower))
    form = NameFault.SLASH if "/" in lower else NameFault.VERSION
    for word, in_group in readings:
        if (word, in_group) != (plural, group):
            yield form, [one for one in every if one.partition(".")[2] == in_group and _means(word, one)]
    head, _, last = lower.rpartition(".")
    yield NameFault.ORDER, [one for one in every if "." in one and one.partition(".")[2] == head and _means(last, one)]
    for word, in_group in readings:
        # The same plural in a group of another name: with none, in the core group, or under a name that it once had.
        yield NameFault.GROUP, [one for one in every if _means(word, one) and (not in_group or _alike(in_group, one))]
    yield NameFault.SPELLING, _close(lower, every)


def _close(word: str, known: Sequence[str]) -> list[str]:
    from difflib import get_close_matches  # noqa: PLC0415 - only for names that are wrong

    return get_close_matches(word, known, n=_MOST_MEANT, cutoff=_CLOSE)


def _alike(group: str, known: str) -> bool:
    """May a resource be meant by its plural in another group? Not where the group is a custom one of its own."""
    other = known.partition(".")[2]
    if "." in group and group not in _GROUPS:
        return bool(_close(group, [other]))
    return known in _BUILT_IN


def _readings(name: str) -> Iterator[tuple[str, str]]:
    """Read plural and group out of a name as people write it, versions left out."""
    parts = [part for part in name.split("/") if part and not _VERSION.fullmatch(part)]
    if not parts:
        return
    if len(parts) > 1 and (parts[0] in _GROUPS or "." in parts[0]) and not _BUILT_IN.get(parts[0]):
        yield parts[1], parts[0]
        return
    labels = parts[0].split(".")
    while len(labels) > 1 and _VERSION.fullmatch(labels[0]):
        del labels[0]
    if len(labels) > 1 and _VERSION.fullmatch(labels[1]):
        del labels[1]
    yield labels[0], ".".join(labels[1:])


def is_plural_of(plural: str, kind: str) -> bool:
    """May objects of a kind be those of a resource of that name, as English makes plurals?"""
    return plural == kind.lower() or plural in _plurals(kind.lower())


def _plurals(word: str) -> tuple[str, ...]:
    """Return the plurals that a word may have, the likeliest first."""
    if word.endswith("y"):
        return word[:-1] + "ies", word + "s"
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es", word + "s"
    return (word + "s",)


def _singular_of(word: str, known: str) -> bool:
    plural = known.partition(".")[0]
    kind = _BUILT_IN[known].kind.lower() if known in _BUILT_IN else ""
    return word == kind or plural in _plurals(word)


def _kind_of(word: str, known: str) -> bool:
    return known in _BUILT_IN and word == _BUILT_IN[known].kind.lower()


def _short_of(word: str, known: str) -> bool:
    return known in _BUILT_IN and word in _BUILT_IN[known].short_names


def _means(word: str, known: str) -> bool:
    return (
        word == known.partition(".")[0] or _singular_of(word, known) or _kind_of(word, known) or _short_of(word, known)
    )
