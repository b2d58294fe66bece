"""What a rewrite is to do: the request, and the plan that comes of it and of what the first pass found.

A plan says of every record what becomes of it; both engines work by one. What the values of one resource, header and
outcome have in common is decided once, as a `Way`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from operator import ge

from snaptool.arguments import word_of
from snaptool.embedded.found import Recovered
from snaptool.embedded.update import Updates
from snaptool.errors import VerificationFailed
from snaptool.etcd import (
    NO_EDITS,
    Edits,
    Snapshot,
)
from snaptool.etcd.leaves import Leaves
from snaptool.kube.cutting import count_labels, marks_of, number_labels
from snaptool.kube.keys import parse_key
from snaptool.operations.crypto import (
    Outcome,
    Randomness,
    Rewraps,
    SystemRandomness,
    Workshop,
    plaintext_digest,
)
from snaptool.operations.labels import Header, Labels, Resource
from snaptool.operations.older import NO_OLDER, Earlier, OlderValues
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.sweep import NOTHING_SWEPT, NOTHING_TRIED, LostValue, Passing, Progress, Sweep
from snaptool.providers.keyring import Keyring
from snaptool.providers.provider import Kind


class Undecryptable(StrEnum):
    """What to do with values that no key opens."""

    STOP = "stop"
    KEEP = "keep"
    OLDER = "older"
    DELETE = "delete"

    @property
    def deletes(self) -> bool:
        """Does it let values go?"""
        return self in {Undecryptable.OLDER, Undecryptable.DELETE}


class Undecodable(StrEnum):
    """What to do with values that no API server can decode. Those that only lack their header are mended anyway."""

    KEEP = "keep"
    STOP = "stop"
    DELETE = "delete"


class PlaintextNotAllowed(VerificationFailed):
    """Encrypted values would become plaintext: no entry covers them, or `identity` comes first in theirs.

    `uncovered`, `identity_first`: how many values, by resource.
    """

    def __init__(self, uncovered: Mapping[str, int], identity_first: Mapping[str, int]) -> None:
        parts = []
        if uncovered:
            parts.append(f"{_counted(uncovered)}: the configuration that writes has no entry for them")
        if identity_first:
            parts.append(f"{_counted(identity_first)}: identity is the first provider of their entry")
        super().__init__(
            f"encrypted values would become plaintext, so nothing was written: {'; '.join(parts)}",
            hint="add an entry, or put the provider that is to write first; if plaintext is what you want for these, "
            "use --allow-plaintext",
        )
        self.uncovered, self.identity_first = dict(uncovered), dict(identity_first)


def _counted(resources: Mapping[str, int]) -> str:
    return ", ".join(
        f"{name} ({count:,} {'value' if count == 1 else 'values'})" for name, count in sorted(resources.items())
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteRequest:
    """What to do with the values of a snapshot.

    `reading` opens (None: values are not looked at, every record is copied), `writing` seals; `decrypt` writes
    plaintext (`writing` is then not looked at). `rewraps`: KMS values that keep their keys and bodies, under
    another wrapping. `only_lost`: what opens keeps every byte, and `writing` seals older revisions that come back.
    `earlier`: backups that older revisions may come from. `carried`: what the snapshot carries inside, as far as it
    opened; None where nobody tried. `embedded_lost`: the operator's word that the rest of it never will. `inside`: says
    what is carried, and what becomes of it, once all keys were seen; its answers are then `carried` and `updates`.
    """

    reading: Keyring | None
    writing: Keyring
    decrypt: bool = False
    undecryptable: Undecryptable = Undecryptable.STOP
    undecodable: Undecodable = Undecodable.KEEP
    allow_plaintext: bool = False
    only_lost: bool = False
    earlier: tuple[Earlier, ...] = ()
    carried: Recovered | None = None
    embedded_lost: bool = False
    compact: bool = False
    skip_hash_check: bool = False
    jobs: int = 1
    randomness: Randomness = field(default_factory=SystemRandomness)
    rewraps: Rewraps = field(default_factory=Rewraps)
    updates: Updates = field(default_factory=Updates)
    inside: Callable[[], tuple[Recovered, Updates]] | None = None

    def settled(self) -> RewriteRequest:
        """Return it with what is inside the snapshot, all keys of which were seen. Raises what `inside` raises."""
        if self.inside is None:
            return self
        carried, updates = self.inside()
        return replace(self, carried=carried, updates=updates, inside=None)

    @property
    def only_copies(self) -> bool:
        """Does every record stay as it is, whatever is found?"""
        keeps = self.undecodable is Undecodable.KEEP and not self.undecryptable.deletes
        return self.reading is None and keeps and not (self.compact or self.updates.values or self.inside)

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
class Restoration:
    """An object whose lost current value, in record number `record`, gives way to an older one that opens.

    `revision` stays; the content is of `from_revision`, in the earlier backup `place` or, where that is empty, in the
    source. `digest`: that of its plaintext, see `plaintext_digest`.
    """

    record: int
    key: bytes
    resource: Resource
    revision: int
    from_revision: int
    place: str
    to_kind: Kind
    to_key: str
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What happens to every record (`action`), the edits that come with it, and how all that is told.

    `lost`: the values that do not open, as far as they matter to the engine; `undecodable` likewise.
    """

    action: bytearray
    edits: Edits
    counts: RecordCounts
    changes: tuple[ValueChange, ...]
    deletions: tuple[Deletion, ...]
    lost: tuple[LostValue, ...]
    undecodable: tuple[LostValue, ...] = ()
    restored: tuple[Restoration, ...] = ()


SEALED = (RESEAL, REBUILD)
"""The actions that seal a value again."""


@dataclass(frozen=True, slots=True)
class Way:
    """What happens to all values of one resource, header and outcome."""

    resource: Resource
    header: Header
    outcome: Outcome
    action: int
    to_kind: Kind | None
    to_key: str


class Ways:
    """The ways that values go. `of`: by record, the number of its way in `ways`."""

    def __init__(self, swept: Sweep, workshop: Workshop, *, only_lost: bool) -> None:
        labels = memoryview(swept.resource), memoryview(swept.header), memoryview(swept.outcome)
        self.of = array("I", bytes(4 * len(swept.resource)))
        self._numbers = number_labels(*labels, memoryview(self.of))
        self._swept, self._labels = swept, labels
        self.ways = [
            way(
                swept.resources[resource],
                swept.headers[header],
                swept.outcomes[outcome],
                workshop,
                only_lost=only_lost,
            )
            for resource, header, outcome in self._numbers
        ]

    def actions(self) -> bytearray:
        """Return the action of each record."""
        action = bytearray(len(self.of))
        marks_of(memoryview(self.of), memoryview(bytes(way.action for way in self.ways)), memoryview(action))
        return action

    def values(self, *, live: bool = False) -> list[int]:
        """Count the values that go each way; `live`: current ones alone."""
        total = [0] * len(self.ways)
        for (*label, is_live), count in self._swept.counts.items():
            total[self._numbers[label[0], label[1], label[2]]] += count if is_live or not live else 0
        return total

    def fates(self, gone: bytearray) -> Counter[tuple[int, int, int]]:
        """Count the values of each way, those that are `gone` apart, and current ones: 1 for both."""
        swept, fates = self._swept, Counter[tuple[int, int, int]]()
        going: Mapping[tuple[int, int, int, int], int] = {}
        if 1 in gone:
            left_out = bytes(map(ge, swept.tombstone, gone))
            going = count_labels(*self._labels, memoryview(swept.live), memoryview(left_out))
        for label, count in swept.counts.items():
            number, some = self._numbers[label[:3]], going.get(label, 0)
            fates[number, 0, label[3]] += count - some
            fates[number, 1, label[3]] += some
        return fates


def way(resource: Resource, header: Header, outcome: Outcome, workshop: Workshop, *, only_lost: bool) -> Way:
    """Decide on values of one resource, header and outcome. `only_lost`: what opens keeps every byte."""
    kind, key = workshop.writer(resource.group_resource)
    if not outcome.opened or outcome is NOTHING_TRIED:
        # Lost values keep their bytes unless the request deletes them; they are never sealed a second time.
        return Way(resource, header, outcome, COPY, header.kind, header.key_name or "")
    if only_lost:
        opened = not outcome.headless and outcome.kind is not None
        name = outcome.key_name if opened else header.key_name or ""
        return Way(resource, header, outcome, COPY, outcome.kind if opened else header.kind, name)
    if outcome.headless:
        return Way(resource, header, outcome, RESEAL, kind, key)
    same = (
        kind is Kind.IDENTITY if outcome.kind is Kind.IDENTITY else workshop.is_writer(resource.group_resource, outcome)
    )
    return Way(resource, header, outcome, COPY if same else RESEAL, kind, key)


def require_encryption(
    ways: Sequence[Way],
    counts: Sequence[int],
    restored: Sequence[Restoration],
    writing: Keyring,
) -> None:
    """Refuse to turn encrypted values into plaintext. `counts`: values of each way. Raises PlaintextNotAllowed."""
    plain = [(way.resource, count) for way, count in zip(ways, counts, strict=True) if count and _loses_its_key(way)]
    plain += [(one.resource, 1) for one in restored if one.to_kind is Kind.IDENTITY]
    uncovered: Counter[str] = Counter()
    identity_first: Counter[str] = Counter()
    for resource, count in plain:
        covered = resource.group_resource is not None and writing.covers(resource.group_resource)
        (identity_first if covered else uncovered)[resource.name] += count
    if plain:
        raise PlaintextNotAllowed(uncovered, identity_first)


def _loses_its_key(way: Way) -> bool:
    return way.action == RESEAL and way.to_kind is Kind.IDENTITY


def changes(
    known: Ways,
    gone: bytearray,
    restored: Sequence[Restoration] = (),
) -> tuple[ValueChange, ...]:
    """Count values by where they came from and went to. `gone`: a byte for each record, 1 where it goes."""
    ways, counts = known.ways, known.fates(gone)
    rows: Counter[tuple[str, Kind | None, str, Kind | None, str | None, bool]] = Counter()
    for (number, deleted, live), count in counts.items():
        way = ways[number]
        to: tuple[Kind | None, str | None] = (None, None) if deleted else (way.to_kind, way.to_key)
        rows[way.resource.name, way.header.kind, _from_key(way), *to, bool(live)] += count
    for one in restored:
        lost = ways[known.of[one.record]]
        before = (lost.resource.name, lost.header.kind, _from_key(lost))
        rows[*before, lost.to_kind, lost.to_key, True] -= 1
        rows[*before, one.to_kind, one.to_key, True] += 1
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


def _from_key(way: Way) -> str:
    by_header = way.outcome.kind is None or way.outcome.headless
    return way.header.key_name or "" if by_header else way.outcome.key_name


def deletions(
    lost_values: Sequence[LostValue],
    gone: Container[int],
    snapshot: Snapshot,
    prefixes: Sequence[str],
    restored: Sequence[Restoration] = (),
    older: OlderValues = NO_OLDER,
) -> tuple[Deletion, ...]:
    """Tell, for every key with lost values, what goes (`gone` has the records) and what that means for the cluster."""
    if not lost_values:
        return ()
    back = {one.key for one in restored}
    reasons: dict[bytes, LostValue] = {}
    for value in lost_values:
        # The live value's reason says most; else the newest one's.
        if value.key not in reasons or value.live or not reasons[value.key].live:
            reasons[value.key] = value
    found = []
    histories = snapshot.history_of(reasons)
    whole_keys = [key for key, records in histories.items() if all(record.number in gone for record in records)]
    parsed_keys = [parsed for key in whole_keys if (parsed := parse_key(key, prefixes)) is not None]
    from snaptool.operations.meaning import meanings  # noqa: PLC0415 - seldom needed, and heavy

    said = meanings(parsed_keys, gone, snapshot, older)
    for key, records in histories.items():
        revisions = tuple(record.revision.main for record in records if record.number in gone)
        if not revisions:
            continue
        lost = reasons[key]
        whole = len(revisions) == len(records)
        meaning = "only old revisions are gone; the object itself is as it was"
        if records[-1].tombstone:
            meaning = "only old revisions are gone, of an object that was deleted since"
        elif key in back:
            meaning = "older revisions are gone; the object itself is as it was at the older revision that came back"
        if whole:
            meaning = said.get(key, "snaptool does not know what this key is for")
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
    """Return the values that the request lets go, ordered by record: deleted, or replaced by older ones."""
    lost = swept.lost if request.undecryptable.deletes else ()
    undecodable = swept.undecodable if request.undecodable is Undecodable.DELETE else ()
    both = (*lost, *(value for value in undecodable if not value.outcome.headless))
    return tuple(sorted(both, key=lambda value: value.record))


def restorations(
    swept: Sweep, older: OlderValues, workshop: Workshop, request: RewriteRequest
) -> tuple[tuple[Restoration, ...], dict[int, bytes]]:
    """Decide which lost current values give way to older ones; return also the new stored values, by record."""
    restored, stored = [], {}
    going = doomed(swept, request) if request.undecryptable is Undecryptable.OLDER else ()
    for value in going:
        found = older.found.get(value.key) if value.live else None
        if found is None:
            continue
        resource = value.resource.group_resource
        kind, key_name = workshop.writer(resource)
        revision = (value.revision.main, value.revision.sub)
        stored[value.record] = workshop.seal(resource, found.plaintext, value.key, revision)
        restored.append(
            Restoration(
                record=value.record,
                key=value.key,
                resource=value.resource,
                revision=value.revision.main,
                from_revision=found.revision,
                place=found.place,
                to_kind=kind,
                to_key=key_name,
                digest=plaintext_digest(found.plaintext),
            )
        )
    return tuple(restored), stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that is known between the passes. `leaves`: those of the source's bucket `key`.

    `passing`: the first pass, where it is not done yet and every record is to be copied as it goes by; until then
    nothing else is known.
    """

    request: RewriteRequest
    opened: OpenedSnapshot
    swept: Sweep
    plan: Plan
    workshop: Workshop
    labels: Labels
    progress: Progress
    leaves: Leaves
    passing: Passing | None = None


def copy_of(
    passing: Passing,
    request: RewriteRequest,
    opened: OpenedSnapshot,
    workshop: Workshop,
    labels: Labels,
    progress: Progress,
    leaves: Leaves,
) -> Job:
    """Make the job of copying every record, as it goes by in a pass: an action of none is COPY for all."""
    nothing = RecordCounts(total=0, copied=0, rewritten=0, deleted=0)
    return Job(
        request=request,
        opened=opened,
        swept=NOTHING_SWEPT,
        plan=Plan(action=bytearray(), edits=NO_EDITS, counts=nothing, changes=(), deletions=(), lost=()),
        workshop=workshop,
        labels=labels,
        progress=progress,
        leaves=leaves,
        passing=passing,
    )
