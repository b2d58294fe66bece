"""What is wrapped in a snapshot: one pass that collects the distinct wrapped keys and says where their values are.

A value is named by its place in the file, so that nothing but a number is kept of it. Source: docs/formats/kms.md, "How
many calls".
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from snaptool.errors import InputError
from snaptool.etcd import RecordChunk, Report, decode_key_value, refuse
from snaptool.operations.labels import Header, Labels, Resource
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.sweep import Progress, Wanted
from snaptool.providers import KeyDoesNotFit, Kind, KmsConfig
from snaptool.providers.kms import Api, decode_envelope
from snaptool.providers.kms_sources import SourceCollector, Sources

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
        return self.collector.sources(Api(config.api_version), config.name)

    def every_place(self, config: KmsConfig, cache_keys: Collection[bytes]) -> Mapping[bytes, Sequence[int]]:
        """Find all values of some sources, in another pass: the collector remembers few of each."""
        sources = self.sources(config)
        found: dict[bytes, array[int]] = {cache_key: array("Q") for cache_key in cache_keys}
        labels = Labels(self.opened.prefixes)
        for chunk in self.opened.snapshot.records(lambda _: None):
            self.opened.tend(chunk)
            header = labels.header_numbers(chunk)
            of_kms = np.array([known.kind is config.kind for known in labels.headers])
            for place, stored in _located(chunk, np.nonzero(of_kms[header] & ~chunk.tombstone & chunk.readable)[0]):
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
    collector = SourceCollector((Api(config.api_version), config.name) for config in kms)
    labels = Labels(opened.prefixes)
    values: Counter[tuple[int, int]] = Counter()
    for chunk in opened.snapshot.records(report):
        opened.tend(chunk)
        resource, header = labels.resource_numbers(chunk), labels.header_numbers(chunk)
        stored = ~chunk.tombstone & chunk.readable
        codes, counts = np.unique((resource[stored] << 32) | header[stored], return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            values[code >> 32, code & 0xFFFFFFFF] += count
        wrapped = np.array([known.kind in (Kind.KMS_V1, Kind.KMS_V2) for known in labels.headers])
        some = stored & wrapped[header]
        (rows,) = np.nonzero(some if wanted is None else some & wanted(chunk, resource, header))
        for place, value in _located(chunk, rows):
            collector.add(value, place)
        progress("wrapped keys", chunk.first_leaf + len(chunk.leaf_page), chunk.total_leaves)
    named = Counter({(labels.resources[one], labels.headers[other]): count for (one, other), count in values.items()})
    return Collected(opened, collector, named)


def _note_place(found: Mapping[bytes, array[int]], sources: Sources, stored: bytes, place: int) -> None:
    try:
        source = decode_envelope(sources.api, sources.provider, stored[len(sources.prefix) :]).source
    except KeyDoesNotFit:
        return
    if source.cache_key in found:
        found[source.cache_key].append(place)


def _located(chunk: RecordChunk, rows: NDArray[np.intp]) -> Iterator[tuple[int, bytes]]:
    """Yield place and stored value of some records of a chunk. Raises PlaceTooFar."""
    for row, start, size, value, value_size in zip(
        rows.tolist(),
        chunk.leaves.value_pos[rows].tolist(),
        chunk.leaves.value_len[rows].tolist(),
        chunk.value_pos[rows].tolist(),
        chunk.value_len[rows].tolist(),
        strict=True,
    ):
        if size >> _LENGTH_BITS or start >> (_PLACE_BITS - _LENGTH_BITS):
            raise PlaceTooFar(f"record {chunk.first_record + row} of {size} bytes at offset {start} is out of reach")
        yield start << _LENGTH_BITS | size, bytes(chunk.buffer.data[value : value + value_size])
