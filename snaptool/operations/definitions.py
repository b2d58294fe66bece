"""Where the CustomResourceDefinitions of a snapshot lie: collected by key, in whatever pass sees all records."""

from __future__ import annotations

from collections.abc import Iterable

from snaptool.etcd import TOMBSTONE, Records
from snaptool.kube.keys import DEFAULT_PREFIXES, key_prefixes, resolve_type

_MOST = 100_000
"""No cluster has nearly as many; a file that does is hostile."""


class DefinitionFinder:
    """Collects, under some prefixes, the last record of every definition, in whatever pass sees all records."""

    def __init__(self, prefixes: Iterable[str] = DEFAULT_PREFIXES[:1]) -> None:
        self.prefixes = tuple(prefixes)
        kind = resolve_type("customresourcedefinitions")
        self.heads = tuple(head for one in self.prefixes for head in key_prefixes(kind, prefix=one))
        self._records: dict[bytes, tuple[int, bool]] = {}

    def take(self, records: Records, row: int) -> None:
        """Take a record whose key begins with one of `heads`; they come in order."""
        key = records.user_key(row)
        if key not in self.heads and (key in self._records or len(self._records) < _MOST):
            self._records[key] = records.first_record + row, bool(records.flags[row] & TOMBSTONE)

    def live(self) -> dict[bytes, int]:
        """Return the record number of every definition that is not deleted."""
        return {key: number for key, (number, deleted) in self._records.items() if not deleted}
