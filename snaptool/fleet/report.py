"""What an audit says at its end: counts, which key is needed for which backups, and the worst, by folder.

Source: docs/audit.md, "What is said of a backup".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from snaptool.fleet.looking import Record
from snaptool.text import counted

STATUSES = (
    "failed",
    "not_a_snapshot",
    "damaged",
    "empty",
    "undecryptable",
    "plaintext",
    "stale",
    "ok (not opened)",
    "ok",
)
"""From the worst; a backup has the first that applies."""

FAILING = ("damaged", "empty", "undecryptable", "plaintext", "undecodable")
"""What exits with 3 by default."""

_BELOW_KEYS = ("quick", "census", "sample=")


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededKey:
    """A key that backups need. `config` is None where no configuration given opens what is under it.

    `oldest` and `newest`: the times that the names of these backups say; `urls` of all.
    """

    config: str | None
    key_name: str | None
    provider: str
    urls: tuple[str, ...]
    oldest: str | None
    newest: str | None
    values: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An audit as a whole. `counts` by status; `undecodable`: how many hold values that no API server decodes.

    `all_versions`: objects that were replaced or deleted were listed, too. `left_out`: how many were listed and not
    looked at, None where nothing was listed.
    """

    records: tuple[Record, ...]
    counts: dict[str, int]
    undecodable: int
    keys: tuple[NeededKey, ...]
    all_versions: bool = False
    left_out: int | None = 0

    @property
    def total(self) -> int:
        """How many backups were to be looked at; what is not a snapshot is none."""
        return len(self.records) - self.counts.get("not_a_snapshot", 0)

    def found(self, fail_on: Collection[str]) -> bool:
        """Is there anything that `fail_on` names?"""
        return any(self.counts.get(word) for word in fail_on) or ("undecodable" in fail_on and bool(self.undecodable))

    @property
    def reach(self) -> str:
        """Say how far the table of keys can be trusted, in one sentence."""
        unseen = sum(self.counts.get(word, 0) for word in ("failed", "damaged"))
        shallow = sum(
            (record["check"].startswith(_BELOW_KEYS) or record["status"] == "ok (not opened)")
            and record["status"] not in {"not_a_snapshot", "failed", "damaged"}
            for record in self.records
        )
        living = "the living cluster and copies elsewhere: not looked at"
        if not self.all_versions and any("://" in record["url"] for record in self.records):
            living = "the living cluster, versions that were replaced, and copies elsewhere: not looked at"
        of, word = self.total + (self.left_out or 0), "listed"
        if self.left_out is None:
            living, word = f"backups that are not in the store, {living}", "known"
        if not of:
            return f"No backup was looked at; {living}. So the table says nothing of any key"
        if unseen or shallow or self.left_out:
            parts = [f"{counted(self.left_out, 'was', 'were')} left out"] if self.left_out else []
            parts += [f"{unseen:,} could not be read whole"] if unseen else []
            parts += [f"{counted(shallow, 'was', 'were')} not opened value by value"] if shallow else []
            return (
                f"Of {counted(of, f'{word} backup')}, {' and '.join(parts)}; {living}. "
                "So the table does not say that a key may be destroyed"
            )
        all_of_them = "All" if of > 1 else "The"
        return (
            f"{all_of_them} {counted(of, f'{word} backup was', f'{word} backups were')} read whole; "
            f"{living}. A key that is not in the table is needed by none of these backups"
        )


def report(records: Sequence[Record], *, all_versions: bool = False, left_out: int | None = 0) -> Report:
    """Sum up the records of an audit; `left_out` as in a report."""
    needed: dict[tuple[str | None, str | None, str], list[tuple[Record, int]]] = {}
    for record in records:
        for one in record["keys_needed"]:
            key = (one["file"], one["key_name"], one["provider"])
            needed.setdefault(key, []).append((record, one["values"]))
    keys = [_needed(*key, found) for key, found in needed.items()]
    return Report(
        records=tuple(sorted(records, key=lambda one: str(one["url"]))),
        counts=dict(Counter(record["status"] for record in records)),
        undecodable=sum(bool(record["undecodable"]) for record in records),
        all_versions=all_versions,
        left_out=left_out,
        keys=tuple(
            sorted(keys, key=lambda one: (one.config is None, one.oldest or "", one.config or "", one.key_name or ""))
        ),
    )


def _needed(config: str | None, key_name: str | None, provider: str, found: list[tuple[Record, int]]) -> NeededKey:
    times = sorted(record["time"] or record["modified"] for record, _ in found)
    return NeededKey(
        config=config,
        key_name=key_name,
        provider=provider,
        urls=tuple(dict.fromkeys(record["url"] for record, _ in found)),
        oldest=times[0],
        newest=times[-1],
        values=sum(values for _, values in found),
    )


def document(result: Report, *, kept: int) -> dict[str, Any]:
    """Return the JSON form of a report, without its records."""
    return {
        "backups": result.total,
        "counts": result.counts,
        "undecodable": result.undecodable,
        "kept": kept,
        "left_out": result.left_out,
        "keys": [
            {
                "config": key.config,
                "key_name": key.key_name,
                "provider": key.provider,
                "backups": len(key.urls),
                "values": key.values,
                "oldest": key.oldest,
                "newest": key.newest,
            }
            for key in result.keys
        ],
        "reach": result.reach,
    }
