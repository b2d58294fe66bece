"""Lists that fit a screen: what is lost, undecodable or deleted, in groups with counts; JSON has every one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from snaptool.cli.render import echo, print_sentence
from snaptool.text import counted, printable

if TYPE_CHECKING:
    from snaptool.operations.plan import Deletion, Restoration
    from snaptool.operations.sweep import LostValue

SHOWN = 20
"""So many are named in all; each group names one at least, and the rest are counted."""


def print_lost(values: Sequence[LostValue], *, with_config: bool = True) -> None:
    """Print the values that do not open, by the reason why. `with_config`: there was one to open them with."""
    _print_groups(_by_reason("lost" if with_config else "not opened", values, with_config=with_config))


def print_undecodable(values: Sequence[LostValue]) -> None:
    """Print the values that no API server can decode, by the reason why."""
    _print_groups(_by_reason("undecodable", values))


def print_restored(restored: Sequence[Restoration]) -> None:
    """Print objects that got an older revision back, with both revisions."""
    rows = (
        (
            f"taken back, {one.resource.name}",
            "the newest older revision that opens is the current content again",
            f"{printable(one.key)} at revision {one.revision}: as it was at revision {one.from_revision}"
            + (f" in {one.place}" if one.place else ""),
        )
        for one in restored
    )
    _print_groups(rows)


def print_deletions(deletions: Sequence[Deletion], no_older: Mapping[bytes, str]) -> None:
    """Print keys that went whole and keys whose history was cut, by what that means for the cluster.

    `no_older`: why those that went have no older revision to take back.
    """
    rows = (
        (
            f"{'deleted' if one.whole else 'history cut'}, {one.resource}",
            one.consequence,
            f"{printable(one.key)} ({counted(len(one.revisions), 'revision')})"
            + (f": {no_older[one.key]}" if one.whole and one.key in no_older else ""),
        )
        for one in sorted(deletions, key=lambda one: not one.whole)
    )
    _print_groups(rows)


def _by_reason(what: str, values: Sequence[LostValue], *, with_config: bool = True) -> Iterable[tuple[str, str, str]]:
    from snaptool.operations.reasons import explain

    for value in sorted(values, key=lambda value: not value.live):
        age = "current" if value.live else "old"
        place = f"{printable(value.key)} at revision {value.revision.main}"
        yield f"{what}, {age} values", explain(value.outcome, value.header, with_config=with_config), place


def _print_groups(rows: Iterable[tuple[str, str, str]]) -> None:
    """Print rows of heading, sentence and place, those of one heading and sentence together."""
    from snaptool.operations.reasons import of_each

    groups: dict[tuple[str, str], list[str]] = {}
    for heading, sentence, place in rows:
        groups.setdefault((heading, sentence), []).append(place)
    left = SHOWN
    for number, ((heading, sentence), places) in enumerate(groups.items()):
        if number >= SHOWN:
            more = sum(map(len, list(groups.values())[SHOWN:]))
            groups_left = counted(len(groups) - SHOWN, "more group")
            echo(f"... {more:,} more in {groups_left}; -o json and --report list all of them")
            break
        print_sentence(f"{heading}: {len(places):,}: {of_each(sentence, len(places))}")
        shown = places[: max(1, left)]
        left -= len(shown)
        for place in shown:
            echo(f"    {place}")
        if len(places) > len(shown):
            echo(f"    ... and {len(places) - len(shown):,} more; -o json and --report list all of them")
