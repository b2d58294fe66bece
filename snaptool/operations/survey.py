"""What is in a snapshot: file facts, etcd facts, and the census of values by resource, provider and key."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from snaptool.bolt import Walk, numbers
from snaptool.containers.unwrap import Unwrapped
from snaptool.etcd import TOMBSTONE, Records, Snapshot, StatusHash, Trailer
from snaptool.kube.cutting import tally
from snaptool.operations.coverage import outside_findings
from snaptool.operations.crypto import SystemRandomness, Work, Workshop
from snaptool.operations.defined import defined_versions
from snaptool.operations.findings import Finding, finding, from_etcd, grouped
from snaptool.operations.judging import Depth, NotYetDefined
from snaptool.operations.labels import Header, Labels
from snaptool.operations.older import NO_OLDER, OlderValues, find_older
from snaptool.operations.opening import Digests, OpenedSnapshot
from snaptool.operations.platform import container_findings
from snaptool.operations.scout import Scout
from snaptool.operations.sweep import LostValue, Progress, Sweep, Wanted, encrypted_values, no_progress, nothing, sweep
from snaptool.operations.verdict import (
    KeyCount,
    Verdict,
    found,
    lost_keys,
    never_encrypted,
    older_wanted,
    values_by_key,
)
from snaptool.providers.keyring import Keyring
from snaptool.providers.provider import Reason

if TYPE_CHECKING:
    from snaptool import documents
    from snaptool.embedded.found import Recovered
    from snaptool.operations.likelier import Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """The file as a bolt database. `size` and `page_size` in bytes; `free_pages` and `high_water_mark` in pages."""

    path: str
    size: int
    page_size: int
    trailer: str
    free_pages: int
    high_water_mark: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdFacts:
    """The file as an etcd store.

    `compacted_revision` is 0 when the store was never compacted. `keys`: live keys. `hash` is that of `etcdutl snapshot
    status`. `alarms` by name, `storage_version` empty when the file does not say.
    """

    revision: int
    compacted_revision: int
    keys: int
    records: int
    tombstones: int
    leases: int
    alarms: tuple[str, ...]
    storage_version: str
    version_hint: str
    auth_enabled: bool
    hash: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CensusRow:
    """Values of one resource under one provider and key.

    `live` current values, `old` older revisions, `size` bytes as stored. `opens`, `lost`, `stale` count values and
    are None when there was no configuration to read with; `undecodable` ones do not count as opening.
    `lost_by_reason` splits `lost`, `opened_by` what opens under a key: number of the configuration, key name, values.
    """

    resource: str
    header: Header
    live: int
    old: int
    size: int
    opens: int | None = None
    lost: int | None = None
    undecodable: int | None = None
    stale: int | None = None
    lost_by_reason: tuple[tuple[Reason, int], ...] = ()
    opened_by: tuple[tuple[int, str, int], ...] = ()

    @property
    def provider(self) -> str:
        """The provider's name: `unknown` for a header that is none."""
        return self.header.provider

    @property
    def key_name(self) -> str | None:
        """The name of the key as far as it is known; None for plaintext."""
        return self.header.key_name

    def document(self, configs: Sequence[str]) -> documents.Census:
        """Return its JSON form; `configs`: the names of the configurations that it was read with."""
        return {
            "resource": self.resource,
            "provider": self.provider,
            "key_name": self.key_name,
            "key_name_certain": self.header.certain,
            "live": self.live,
            "old": self.old,
            "bytes": self.size,
            "opens": self.opens,
            "lost": self.lost,
            "lost_by_reason": dict(self.lost_by_reason),
            "undecodable": self.undecodable,
            "stale": self.stale,
            "opened_by": [
                {"config": configs[number], "key_name": name, "values": count} for number, name, count in self.opened_by
            ],
        }


def census(swept: Sweep, *, with_keys: bool) -> tuple[CensusRow, ...]:
    """Count the values of a sweep, ordered by resource, provider and key name."""
    groups: defaultdict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
    for (resource, header, outcome, live), count in sorted(swept.counts.items()):
        groups[resource, header].append((outcome, live, count))
    rows = [_row(swept, *group, parts, with_keys=with_keys) for group, parts in groups.items()]
    return tuple(sorted(rows, key=lambda row: (row.resource, row.header.provider, row.header.name)))


def _row(swept: Sweep, resource: int, header: int, parts: list[tuple[int, int, int]], *, with_keys: bool) -> CensusRow:
    lost: Counter[Reason] = Counter()
    opened_by: Counter[tuple[int, str]] = Counter()
    opens = stale = live = total = undecodable = 0
    for number, is_live, count in parts:
        outcome = swept.outcomes[number]
        total += count
        live += count * is_live
        if not outcome.opened:
            lost[outcome.reasons[0]] += count
            continue
        if outcome.fault is not None:
            undecodable += count
            continue
        opens += count
        stale += count * outcome.stale
        if outcome.key_name:
            opened_by[outcome.position[0], outcome.key_name] += count
    return CensusRow(
        resource=swept.resources[resource].name,
        header=swept.headers[header],
        live=live,
        old=total - live,
        size=swept.value_bytes.get((resource, header), 0),
        opens=opens if with_keys else None,
        lost=lost.total() if with_keys else None,
        undecodable=undecodable,
        stale=stale if with_keys else None,
        lost_by_reason=tuple(sorted(lost.items())),
        opened_by=tuple((*by, count) for by, count in sorted(opened_by.items())),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a snapshot is and holds. `lost`: the values that do not open, empty without keys to read with.

    `undecodable`: those that no API server can decode; without keys only what is plaintext is looked at.
    `container`: what was around it, None where the file itself is the snapshot. `platforms`: which ones show.
    `prefixes`: the API servers' `--etcd-prefix`, in their normal form.
    `older`: which objects whose current values are lost have an older revision that opens; `causes`: what is likelier
    than that a key is lost; `by_key`: encrypted values by key; `never`: resources that are never encrypted.
    `ages`: for each header, how many values were written in each of `AGES` equal parts of the revisions.
    """

    file: FileFacts
    etcd: EtcdFacts
    prefixes: tuple[str, ...]
    census: tuple[CensusRow, ...]
    lost: tuple[LostValue, ...]
    undecodable: tuple[LostValue, ...]
    findings: tuple[Finding, ...]
    older: OlderValues = NO_OLDER
    causes: tuple[Cause, ...] = ()
    by_key: tuple[KeyCount, ...] = ()
    never: tuple[str, ...] = ()
    with_config: bool = False
    container: Unwrapped | None = None
    platforms: tuple[str, ...] = ()
    ages: tuple[tuple[Header, tuple[int, ...]], ...] = ()

    @property
    def summary(self) -> Verdict:
        """The verdict in objects."""
        keys = lost_keys(self.lost if self.with_config else (), self.undecodable)
        return found(keys, self.older, self.prefixes, self.by_key, never=self.never, with_config=self.with_config)


AGES = 24


class _Ages:
    """Counts values by header and part of the revisions: those of a chunk are mostly of one part."""

    def __init__(self, snapshot: Snapshot, labels: Labels) -> None:
        self._revisions = snapshot.current_revision + 1
        self._labels = labels
        self._counts: Counter[tuple[int, int]] = Counter()

    def add(self, records: Records) -> None:
        """Take the records of a chunk, whose labels are the last that were added."""
        count, start = len(records), 0
        while start < count:
            part = min(records.main[start] * AGES // self._revisions, AGES - 1)
            next_part = -(-(part + 1) * self._revisions // AGES) if part < AGES - 1 else 1 << 63
            end = max(bisect_left(records.main, next_part, start, count), start + 1)
            counts = numbers(len(self._labels.headers))
            tally(self._labels.header, records.flags, TOMBSTONE, start, end, counts)
            self._counts.update({(header, part): times for header, times in enumerate(counts) if times})
            start = end

    def by_header(self, headers: Sequence[Header]) -> tuple[tuple[Header, tuple[int, ...]], ...]:
        seen = sorted({header for header, _ in self._counts})
        return tuple((headers[number], tuple(self._counts[number, part] for part in range(AGES))) for number in seen)


def survey(
    opened: OpenedSnapshot,
    keyring: Keyring | None = None,
    *,
    jobs: int = 1,
    progress: Progress = no_progress,
    wanted: Wanted = encrypted_values,
    carried: Callable[[], Recovered] | None = None,
    digests: Digests | None = None,
) -> Survey:
    """Take stock of a snapshot; with a keyring, open every encrypted value too, or those that are `wanted`.

    `carried` finds what the snapshot carries inside, and opens what it can; without it nothing is opened that takes a
    token. `digests`: those that are being computed already.

    Raises CorruptPage, BadRevision and BadRecord for a damaged file; a wrong trailer is a finding.
    """
    snapshot = opened.snapshot
    keys = keyring or Keyring(())
    undefined = NotYetDefined()
    work = Work(keys, keys, SystemRandomness(), depth=Depth.CHEAP, defined=undefined)
    wanted = nothing if keyring is None else wanted
    with opened.digests() if digests is None else nullcontext(digests) as hashing:
        found: _Pass | None = None
        if not opened.is_scouted:
            found = _Pass(opened, work, jobs, wanted, progress)
            found.run(opened.new_scout())
        defined = defined_versions(opened, keyring)
        work = replace(work, defined=defined)
        if found is None or not found.has_right_prefixes() or not undefined.were_right(defined):
            found = _Pass(opened, work, jobs, wanted, progress)
            found.run(None)
        swept = found.swept
        findings = [from_etcd(one) for one in snapshot.remarks()]
        findings += [*outside_findings(opened), *container_findings(opened.container)]
        return Survey(
            prefixes=opened.prefixes,
            etcd=_etcd_facts(snapshot, swept, found.hash),
            census=census(swept, with_keys=keyring is not None),
            lost=swept.lost,
            undecodable=swept.undecodable,
            older=find_older(snapshot, keys, older_wanted(swept.lost), defined=work.defined)
            if keyring is not None
            else NO_OLDER,
            causes=() if keyring is None else _causes(opened, swept, keys, carried),
            by_key=values_by_key(swept),
            with_config=keyring is not None,
            never=never_encrypted(swept),
            container=opened.container,
            platforms=opened.platforms,
            ages=found.ages.by_header(swept.headers),
            # Last, for they wait for the SHA-256.
            file=_file_facts(opened, hashing.trailer(), found.walk),
            findings=grouped([*trailer_findings(opened, hashing), *findings]),
        )


class _Pass:
    """The one walk over all trees in which everything is found: prefixes, census, live keys, free pages, hash.

    What keys are called depends on the prefixes, and what custom resources have to be on their definitions; nobody
    knows either before the end. The prefixes are guessed from the first records, and every version of a custom resource
    is right until its definition is read. Where either turns out wrong, another pass is needed.
    """

    swept: Sweep
    hash: int
    ages: _Ages

    def __init__(self, opened: OpenedSnapshot, work: Work, jobs: int, wanted: Wanted, progress: Progress) -> None:
        self._opened = opened
        self._work = work
        self._jobs = jobs if work.reading.key_names() else 1
        self._wanted = wanted
        self._progress = progress
        self._prefixes: tuple[str, ...] | None = None
        self.walk = opened.snapshot.database.new_walk()

    def has_right_prefixes(self) -> bool:
        """Did the pass know the prefixes that are known now?"""
        return self._prefixes == self._opened.prefixes

    def run(self, scout: Scout | None) -> None:
        """Go. `scout`: finds the prefixes on the way; None: they are known."""
        opened, snapshot = self._opened, self._opened.snapshot
        self._prefixes = opened.prefixes if scout is None else scout.likely()
        labels = Labels(self._prefixes, self._work.reading.key_names())
        status, self.ages = StatusHash(snapshot, self.walk), _Ages(snapshot, labels)

        def look(records: Records) -> None:
            opened.source.check_unchanged()
            status.add(records.leaves)
            self.ages.add(records)
            if scout is not None:
                scout.add(records, labels.paths, labels.path_of())

        with Workshop(self._work, opened.source, jobs=self._jobs) as workshop:
            self.swept = sweep(
                snapshot,
                labels,
                workshop,
                wanted=self._wanted,
                observers=[look],
                progress=self._progress,
                walk=self.walk,
            )
        self.hash = status.finish()
        if scout is not None:
            opened.found_by(scout)


def _causes(
    opened: OpenedSnapshot, swept: Sweep, keys: Keyring, carried: Callable[[], Recovered] | None
) -> tuple[Cause, ...]:
    if not swept.lost:
        return ()
    from snaptool.operations.inside import unread_places  # noqa: PLC0415 - mostly nothing is lost
    from snaptool.operations.likelier import likelier_causes, opened_by_header  # noqa: PLC0415

    found = carried() if carried else None
    unread = unread_places(opened, found, swept.lost, keys)
    return likelier_causes(opened.snapshot, swept.lost, opened_by_header(swept), keys, unread)


def _file_facts(opened: OpenedSnapshot, trailer: Trailer, walk: Walk) -> FileFacts:
    database = opened.snapshot.database
    return FileFacts(
        path=str(opened.source.path),
        size=opened.source.size,
        page_size=database.page_size,
        trailer=trailer,
        free_pages=len(database.free_pages(walk)),
        high_water_mark=database.high_water_mark,
    )


def _etcd_facts(snapshot: Snapshot, swept: Sweep, status_hash: int) -> EtcdFacts:
    return EtcdFacts(
        revision=snapshot.current_revision,
        compacted_revision=snapshot.compacted_revision,
        keys=swept.live.count(1),
        records=len(swept.live),
        tombstones=swept.tombstone.count(1),
        leases=len(snapshot.leases()),
        alarms=tuple(alarm.name for alarm in snapshot.alarms()),
        storage_version=snapshot.storage_version,
        version_hint=snapshot.version_hint,
        auth_enabled=snapshot.auth_enabled,
        hash=status_hash,
    )


def trailer_findings(opened: OpenedSnapshot, digests: Digests) -> Iterator[Finding]:
    """Yield the finding that what stands behind the database is not as it was made, if so."""
    if problem := digests.trailer_problem():
        cut = digests.trailer() is Trailer.CUT
        yield finding(
            "cut_trailer" if cut else "wrong_trailer",
            f"the {'end' if cut else 'last 32 bytes'} of {opened.source.path}",
            problem,
            "compare it with another copy; a new SHA-256 by `snaptool repair` would not say that the records are right",
        )
