"""Where the CustomResourceDefinitions of a snapshot lie: collected by key, in whatever pass sees all records."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from snaptool.etcd import RecordChunk
from snaptool.kube import DEFAULT_PREFIXES, key_prefixes, resolve_type

_MOST = 100_000
"""No cluster has nearly as many; a file that does is hostile."""


class DefinitionFinder:
    """Collects, under some prefixes, the last record of every definition, in whatever pass sees all records."""

    def __init__(self, prefixes: Iterable[str] = DEFAULT_PREFIXES[:1]) -> None:
        self.prefixes = tuple(prefixes)
        kind = resolve_type("customresourcedefinitions")
        self._heads = [(head, _order(head)) for one in self.prefixes for head in key_prefixes(kind, prefix=one)]
        self._records: dict[bytes, tuple[int, bool]] = {}

    def add(self, chunk: RecordChunk) -> None:
        """Take the records of a chunk; chunks come in order."""
        for head, order in self._heads:
            rows = np.nonzero(chunk.readable & (chunk.key_len > len(head)))[0]
            for offset in order:
                if not len(rows):
                    break
                rows = rows[chunk.buffer[chunk.key_pos[rows] + offset] == head[offset]]
            for row in rows.tolist():
                key = chunk.user_key(row)
                if key in self._records or len(self._records) < _MOST:
                    self._records[key] = chunk.first_record + row, bool(chunk.tombstone[row])

    def live(self) -> dict[bytes, int]:
        """Return the record number of every definition that is not deleted."""
        return {key: number for key, (number, deleted) in self._records.items() if not deleted}


def _order(head: bytes) -> list[int]:
    """Return the offsets of a text, those first in which few other keys are like it."""
    offsets = list(range(len(head)))
    return offsets[-20:] + offsets[:-20]
