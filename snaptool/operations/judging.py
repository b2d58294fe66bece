"""Plaintext on its way through a pass: can an API server decode it, and is it ciphertext that lost its header?

The rule is `kube.undecodable`'s. Here is how it is asked without looking at every value one by one: `Doubts` finds the
plain values of a chunk that are *not* byte for byte what an API server writes, in loops; only those, and
what encrypted values open to, are judged one at a time, by whoever opens them. A plain value that is no object is also
tried with every key of its resource: should it open to an object of the resource, it is ciphertext without its header.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

from snaptool.etcd import TOMBSTONE, UNREADABLE, Records
from snaptool.kube.cutting import Envelopes, pick
from snaptool.kube.keys import parse_key
from snaptool.kube.objects import usual_type
from snaptool.kube.undecodable import ANY_TYPE, ExpectedType, Fault, expected_type, fault, is_object_of, shows_right_key
from snaptool.operations.labels import ENCRYPTED, Labels
from snaptool.providers.keyring import Chain, GroupResource, NoKeyFits, Opening


class Depth(Enum):
    """How closely plaintext is looked at."""

    CHEAP = "cheap"
    """Encodings and types: enough for what a server would fail at nearly always."""
    FULL = "full"
    """The message inside of every envelope too."""


@dataclass(frozen=True, slots=True)
class Undecoded:
    """A value that opens as `way` says, to something that no API server can decode.

    For `Fault.HEADLESS`, `way` is how it opens without its header; its plaintext is then the object.
    """

    way: Opening
    fault: Fault


Defined = Mapping[GroupResource, Container[str]]
"""Custom resources, each with the apiVersions that its definition has."""

NOTHING_DEFINED: Defined = {}


class NotYetDefined(dict[GroupResource, "_Noted"]):
    """Stands for definitions that are not read yet: any version of a custom resource is right for now, and noted."""

    def __contains__(self, _resource: object) -> bool:
        return True

    def __missing__(self, resource: GroupResource) -> _Noted:
        return self.setdefault(resource, _Noted())

    def were_right(self, defined: Mapping[GroupResource, frozenset[str]]) -> bool:
        """Would these definitions have said the same of all that was asked?"""
        return all(noted.asked <= defined.get(resource, noted.asked) for resource, noted in self.items())


class _Noted(Container[str]):
    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __contains__(self, version: object) -> bool:
        self.asked.add(str(version))
        return True


def expected_of(resource: GroupResource | None, defined: Defined = NOTHING_DEFINED) -> ExpectedType | None:
    """Return what values of a resource have to be; None where they need not be API objects."""
    if resource is None:
        return None
    expected = expected_type(resource.resource, resource.group)
    if expected is not ANY_TYPE or resource not in defined:
        return expected
    return ExpectedType(versions=defined[resource])


def judge(
    chain: Chain,
    resource: GroupResource | None,
    value: tuple[bytes, bytes],
    found: tuple[Opening | NoKeyFits, bytes],
    depth: Depth,
    defined: Defined = NOTHING_DEFINED,
) -> tuple[Opening | NoKeyFits | Undecoded, bytes]:
    """Judge what a value (stored bytes and etcd key) opened to; return how it is to be understood, and its plaintext.

    What no key opens and what is doubtful stays as it is, for nobody knows its plaintext, unless what came out shows
    that the key was right.
    """
    (stored, key), (way, plaintext) = value, found
    plain = not stored.startswith(ENCRYPTED)
    expected = expected_of(resource, defined)
    if expected is None:
        # Under a plural that nobody knows, an API server has written what it encrypted, and nothing else is certain.
        expected = None if plain or resource is None else ANY_TYPE
    if expected is None or (isinstance(way, NoKeyFits) and not plain):
        return found
    if isinstance(way, Opening) and way.doubtful and not shows_right_key(plaintext):
        return found
    content = stored if plain else plaintext
    at_once = fault(content, expected)
    fault_found = at_once or (fault(content, expected, full=True) if depth is Depth.FULL else None)
    if fault_found is None:
        return found
    if plain and at_once is not None:
        headless = chain.open_headless(stored, key, partial(is_object_of, expected=expected))
        if headless is not None:
            return Undecoded(headless[0], Fault.HEADLESS), headless[1]
    return (way, plaintext) if isinstance(way, NoKeyFits) else (Undecoded(way, fault_found), plaintext)


def is_listed(key: bytes, prefixes: Sequence[str]) -> bool:
    """Is a key one of those that a list of its resource reads? The path of the resource alone is not."""
    parsed = parse_key(key, prefixes)
    return parsed is not None and bool(parsed.name)


_END = b"\x1a\x00\x22\x00"
"""What an envelope of an empty object ends with: no encoding, no content type."""


class Doubts:
    """Finds the plain values that have to be judged one at a time, chunk by chunk."""

    def __init__(self, depth: Depth) -> None:
        self._depth = depth
        self._judged: Sequence[ExpectedType | None] = ()
        self._envelopes = Envelopes(self._fits)

    def rows(self, records: Records, labels: Labels, judged: Sequence[ExpectedType | None]) -> list[int]:
        """Return them, ascending. `judged`: by number of a resource, what its values have to be."""
        known = memoryview(bytes(expected is not None for expected in judged))
        without = TOMBSTONE | UNREADABLE
        rows = pick(labels.resource, known, labels.header, records.flags, without, len(records))
        if self._depth is Depth.FULL:
            return rows.tolist()
        self._judged = judged
        return self._envelopes.others(records.view, records.value_at, records.value_size, rows, labels.resource)

    def _fits(self, start: bytes, resource: int) -> bool:
        whole = start + b"\x00" + _END  # an empty object makes it whole
        expected = self._judged[resource]
        return usual_type(whole) is not None and expected is not None and fault(whole, expected) is None
