"""What is wrapped in a snapshot: one pass that collects the distinct wrapped keys and says where their values are.

A value is named by its place in the file, so that nothing but a number is kept of it. Source: docs/formats/kms.md, "How
many calls".
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Final

from snaptool.bolt import Walk
from snaptool.errors import InputError
from snaptool.etcd import TOMBSTONE, UNREADABLE, Records, Report, decode_key_value, refuse
from snaptool.operations.labels import Header, Labels, Resource
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.sweep import Progress, Wanted
from snaptool.providers.config.model import KmsConfig
from snaptool.providers.kms_envelope import decode_envelope
from snaptool.providers.kms_sources import SourceCollector, Sources
from snaptool.providers.provider import KeyDoesNotFit, Kind

_LENGTH_BITS: Final = 26  # of a place: records of up to 64 MiB in files of up to 256 GiB
_PLACE_BITS: Final = 64


class PlaceTooFar(InputError):
    """A record lies behind what the places of KMS values can name."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What one pass met: wrapped keys, and how many values of which resource stand under which header."""

    opened: OpenedSnapshot
    collector: SourceCollector
    values: Counter[tuple[Resource, Header]]

    def sources(self, config: KmsConfig) -> Sources:
        """Return what was met of one provider."""
        return self.collector.sources(config.api, config.name)

    def every_place(self, config: KmsConfig, cache_keys: Collection[bytes]) -> Mapping[bytes, Sequence[int]]:
        """Find all values of some sources, in another pass: the collector remembers few of each."""
        sources = self.sources(config)
        found: dict[bytes, array[int]] = {cache_key: array("Q") for cache_key in cache_keys}
        for records, labels, encrypted in _passed(self.opened, lambda _: None):
            of_kms = [row for row in encrypted if labels.headers[labels.header[row]].kind is config.kind]
            for place, stored in _located(records, of_kms):
                if stored.startswith(sources.prefix):
                    _note_place(found, sources, stored, place)
        return found

    def fetch(self, place: int) -> tuple[bytes, bytes]:
        """Bring back the etcd key and the stored value at a place."""
        start, size = place >> _LENGTH_BITS, place & ((1 << _LENGTH_BITS) - 1)
        record = decode_key_value(bytes(self.opened.database_bytes[start : start + size]))
        return record.key, record.value


def collect(
    opened: OpenedSnapshot,
    kms: Sequence[KmsConfig],
    progress: Progress,
    report: Report = refuse,
    *,
    skip_hash_check: bool = True,
    wanted: Wanted | None = None,
) -> Collected:
    """Pass over all records. `skip_hash_check`: a wrong trailer does not matter to the job. `wanted`: which values."""
    if not skip_hash_check and opened.may_have_trailer:
        with opened.digests() as digests:  # beside the pass, so that it costs no time
            collected = collect(opened, kms, progress, report, wanted=wanted)
            digests.require_right_trailer()
            return collected
    collector = SourceCollector((config.api, config.name) for config in kms)
    values: Counter[tuple[int, int]] = Counter()
    walk, pages = opened.snapshot.database.new_walk(), opened.snapshot.database.high_water_mark
    labels = Labels(())
    for records, labels, encrypted in _passed(opened, report, walk):
        put = [not flags & (TOMBSTONE | UNREADABLE) for flags in records.flags[: len(records)]]
        values.update(compress(zip(labels.resource, labels.header, strict=True), put))
        wrapped = [row for row in encrypted if labels.headers[labels.header[row]].kind in (Kind.KMS_V1, Kind.KMS_V2)]
        for place, value in _located(records, wrapped if wanted is None else wanted(records, labels, wrapped)):
            collector.add(value, place)
        progress("wrapped keys", walk.pages_seen(), pages)
    progress("wrapped keys", pages, pages)
    named = Counter({(labels.resources[one], labels.headers[other]): count for (one, other), count in values.items()})
    return Collected(opened, collector, named)


def _note_place(found: Mapping[bytes, array[int]], sources: Sources, stored: bytes, place: int) -> None:
    try:
        source = decode_envelope(sources.api, sources.provider, stored[len(sources.prefix) :]).source
    except KeyDoesNotFit:
        return
    if source.cache_key in found:
        found[source.cache_key].append(place)


def _passed(
    opened: OpenedSnapshot, report: Report, walk: Walk | None = None
) -> Iterator[tuple[Records, Labels, list[int]]]:
    """Yield the records chunk by chunk, with their labels and the rows of encrypted values."""
    labels = Labels(opened.prefixes)
    for records in opened.snapshot.chunks(report, walk):
        opened.source.check_unchanged()
        encrypted = labels.add(records)
        yield records, labels, [row for row in encrypted if records.is_put(row)]


def _located(records: Records, rows: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Yield place and stored value of some records of a chunk. Raises PlaceTooFar."""
    for row in rows:
        start, size = records.leaves.value_at[row], records.leaves.value_size[row]
        if size >> _LENGTH_BITS or start >> (_PLACE_BITS - _LENGTH_BITS):
            raise PlaceTooFar(f"record {records.first_record + row} of {size} bytes at offset {start} is out of reach")
        yield start << _LENGTH_BITS | size, records.value(row)
