"""What a rewrite is to do: the request, and the plan that comes of it and of what the first pass found.

A plan says of every record what becomes of it; both engines work by one. What the values of one resource, header and
outcome have in common is decided once, as a `Way`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from snaptool.arguments import word_of
from snaptool.bolt import (
    LeafChunk,
)
from snaptool.embedded import Updates
from snaptool.errors import InputError
from snaptool.etcd import (
    Edits,
    Snapshot,
)
from snaptool.kube import consequence, parse_key
from snaptool.operations.crypto import (
    Outcome,
    Randomness,
    Rewraps,
    SystemRandomness,
    Workshop,
)
from snaptool.operations.labels import Header, Labels, Resource
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.sweep import (
    NOTHING_TRIED,
    LostValue,
    Progress,
    Sweep,
)
from snaptool.providers import Keyring, Kind


class Undecryptable(StrEnum):
    """What to do with values that no key opens."""

    STOP = "stop"
    KEEP = "keep"
    DELETE = "delete"


class Undecodable(StrEnum):
    """What to do with values that no API server can decode. Those that only lack their header are mended anyway."""

    KEEP = "keep"
    STOP = "stop"
    DELETE = "delete"


class UncoveredResources(InputError):
    """Encrypted values would become plaintext because the new configuration has no entry for their resource."""

    def __init__(self, resources: Sequence[str]) -> None:
        names = ", ".join(resources)
        super().__init__(
            f"the new configuration has no entry for {names}, whose encrypted values would be written in clear",
            hint="add an entry for them, or say --allow-uncovered if that is what you want",
        )
        self.resources = tuple(resources)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteRequest:
    """What to do with the values of a snapshot.

    `reading` opens (None: values are not looked at, every record is copied), `writing` seals; `decrypt` writes
    everything in clear (`writing` is then not looked at). `rewraps`: KMS values that keep their keys and bodies, under
    another wrapping.
    """

    reading: Keyring | None
    writing: Keyring
    decrypt: bool = False
    undecryptable: Undecryptable = Undecryptable.STOP
    undecodable: Undecodable = Undecodable.KEEP
    allow_uncovered: bool = False
    compact: bool = False
    skip_hash_check: bool = False
    jobs: int = 1
    randomness: Randomness = field(default_factory=SystemRandomness)
    rewraps: Rewraps = field(default_factory=Rewraps)
    updates: Updates = field(default_factory=Updates)

    def __post_init__(self) -> None:
        # A word that is no member compares unequal to all of them, and would act as the one that nobody tests for.
        object.__setattr__(self, "undecryptable", word_of(Undecryptable, self.undecryptable, "undecryptable"))
        object.__setattr__(self, "undecodable", word_of(Undecodable, self.undecodable, "undecodable"))


COPY, RESEAL, REBUILD, DROP, REPLACE = range(5)
"""REBUILD is RESEAL of a record with several value fields, of which only the one that counts stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordCounts:
    """Records of bucket `key`, by what became of them."""

    total: int
    copied: int
    rewritten: int
    deleted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueChange:
    """Values that went the same way. `to_kind` and `to_key` are None when they were deleted."""

    resource: str
    from_kind: Kind | None
    from_key: str
    to_kind: Kind | None
    to_key: str | None
    live: int
    old: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """A key of which records were dropped. `whole`: nothing is left of it; else its history was cut."""

    key: bytes
    resource: str
    whole: bool
    revisions: tuple[int, ...]
    reason: str
    consequence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What happens to every record (`action`), the edits that come with it, and how all that is told.

    `lost`: the values that do not open, as far as they matter to the engine; `undecodable` likewise.
    """

    action: NDArray[np.uint8]
    edits: Edits
    counts: RecordCounts
    changes: tuple[ValueChange, ...]
    deletions: tuple[Deletion, ...]
    lost: tuple[LostValue, ...]
    undecodable: tuple[LostValue, ...] = ()

    def surviving(self) -> NDArray[np.uint8]:
        """The actions of the new file's records, in its order: what was dropped is not there, what was added is."""
        kept = self.action[self.action != DROP]
        return np.concatenate([kept, np.full(len(self.edits.append), REPLACE, dtype=np.uint8)])


def sealed_anew(action: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which records have their value sealed anew."""
    result: NDArray[np.bool_] = (action == RESEAL) | (action == REBUILD)
    return result


@dataclass(frozen=True, slots=True)
class Way:
    """What happens to all values of one resource, header and outcome."""

    resource: Resource
    header: Header
    outcome: Outcome
    action: int
    to_kind: Kind | None
    to_key: str


def ways_of(swept: Sweep, workshop: Workshop) -> tuple[list[Way], NDArray[np.uint32]]:
    """Return the ways that values go, and for every record the number of its way."""
    found: set[int] = set()
    for some in swept.stretches():
        found.update(np.unique(swept.codes(some)).tolist())
    combinations = sorted(found)
    numbers = np.empty(len(swept.resource), dtype=np.uint32)
    for some in swept.stretches():
        numbers[some] = np.searchsorted(np.array(combinations, dtype=np.int64), swept.codes(some))
    ways = [
        way(swept.resources[code >> 32], swept.headers[code >> 16 & 0xFFFF], swept.outcomes[code & 0xFFFF], workshop)
        for code in combinations
    ]
    return ways, numbers


def way(resource: Resource, header: Header, outcome: Outcome, workshop: Workshop) -> Way:
    """Decide on values of one resource, header and outcome."""
    kind, key = workshop.writer(resource.group_resource)
    if not outcome.opened or outcome is NOTHING_TRIED:
        # Lost values keep their bytes unless the request deletes them; they are never sealed a second time.
        return Way(resource, header, outcome, COPY, header.kind, header.key_name or "")
    if outcome.headless:
        return Way(resource, header, outcome, RESEAL, kind, key)
    same = (
        kind is Kind.IDENTITY if outcome.kind is Kind.IDENTITY else workshop.is_writer(resource.group_resource, outcome)
    )
    return Way(resource, header, outcome, COPY if same else RESEAL, kind, key)


def require_cover(ways: Sequence[Way], writing: Keyring) -> None:
    """Refuse to write in clear what the new configuration does not mention. Raises UncoveredResources."""
    uncovered = {
        way.resource.name
        for way in ways
        if way.action == RESEAL
        and way.to_kind is Kind.IDENTITY
        and (way.resource.group_resource is None or not writing.covers(way.resource.group_resource))
    }
    if uncovered:
        raise UncoveredResources(sorted(uncovered))


def changes(
    swept: Sweep, ways: Sequence[Way], way_of: NDArray[np.uint32], gone: NDArray[np.bool_]
) -> tuple[ValueChange, ...]:
    """Count values by where they came from and went to."""
    counts = np.zeros((len(ways), 2, 2), dtype=np.int64)
    for some in swept.stretches():
        fate = way_of[some].astype(np.int64) * 4 + gone[some] * 2 + ~swept.live[some]
        counts += np.bincount(fate[~swept.tombstone[some]], minlength=counts.size).reshape(counts.shape)
    rows: Counter[tuple[str, Kind | None, str, Kind | None, str | None, bool]] = Counter()
    for way, by_fate in zip(ways, counts.tolist(), strict=True):
        for deleted, (live, old) in enumerate(by_fate):
            from_key = way.header.key_name or ""
            if way.outcome.kind is not None and not way.outcome.headless:
                from_key = way.outcome.key_name
            to: tuple[Kind | None, str | None] = (None, None) if deleted else (way.to_kind, way.to_key)
            rows[way.resource.name, way.header.kind, from_key, *to, True] += live
            rows[way.resource.name, way.header.kind, from_key, *to, False] += old
    fates = sorted({row[:5] for row, count in rows.items() if count}, key=str)
    return tuple(
        ValueChange(
            resource=fate[0],
            from_kind=fate[1],
            from_key=fate[2],
            to_kind=fate[3],
            to_key=fate[4],
            live=rows[*fate, True],
            old=rows[*fate, False],
        )
        for fate in fates
    )


def deletions(
    lost_values: Sequence[LostValue], gone: Container[int], snapshot: Snapshot, prefixes: Sequence[str]
) -> tuple[Deletion, ...]:
    """Tell, for every key with lost values, what goes (`gone` has the records) and what that means for the cluster."""
    reasons: dict[bytes, LostValue] = {}
    for value in lost_values:
        # The live value's reason says most; else the newest one's.
        if value.key not in reasons or value.live or not reasons[value.key].live:
            reasons[value.key] = value
    found = []
    for key, records in snapshot.history_of(reasons).items():
        revisions = tuple(record.revision.main for record in records if record.number in gone)
        if not revisions:
            continue
        lost, parsed = reasons[key], parse_key(key, prefixes)
        whole = len(revisions) == len(records)
        meaning = "only old revisions are gone; the object itself is as it was"
        if whole:
            meaning = consequence(parsed) if parsed else "snaptool does not know what this key is for"
        found.append(
            Deletion(
                key=key,
                resource=lost.resource.name,
                whole=whole,
                revisions=revisions,
                reason=", ".join(lost.outcome.why),
                consequence=meaning,
            )
        )
    return tuple(sorted(found, key=lambda deletion: deletion.key))


def doomed(swept: Sweep, request: RewriteRequest) -> tuple[LostValue, ...]:
    """Return the values that the request deletes, ordered by record."""
    lost = swept.lost if request.undecryptable is Undecryptable.DELETE else ()
    undecodable = swept.undecodable if request.undecodable is Undecodable.DELETE else ()
    both = (*lost, *(value for value in undecodable if not value.outcome.headless))
    return tuple(sorted(both, key=lambda value: value.record))


class LeafNotes:
    """What the first pass learns of the leaves of bucket `key`, by number: sums, shapes, and which are `portable`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.sums = snapshot.new_sums()
        self.shapes = np.zeros(len(self.sums.crc), dtype=np.uint64)
        self.portable = np.zeros(len(self.sums.crc), dtype=np.bool_)

    def add(self, leaves: LeafChunk) -> None:
        """Take the leaves of a chunk."""
        self.sums.add(leaves)
        here = slice(leaves.first_leaf, leaves.first_leaf + len(leaves.leaf_page))
        self.shapes[here], self.portable[here] = leaves.shapes(), leaves.portable()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that is known between the passes."""

    request: RewriteRequest
    opened: OpenedSnapshot
    swept: Sweep
    plan: Plan
    workshop: Workshop
    labels: Labels
    progress: Progress
    notes: LeafNotes
