"""Where snapshots are kept: files, and what a URL names. Read by version, created whole or not at all.

A store has four operations: look, read a range of one version, create under a condition, say whether two places are
one. What is read from one goes into a private file without a name; what is written to one was verified before the
first byte leaves. Source: docs/clouds.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from snaptool.stores.location import RemotePath


def may_be_url(text: object) -> bool:
    """Can it name something in a store? All else is a path, which needs nothing of this package."""
    return "://" in str(text)


def shown(text: str) -> str:
    """Return what a user names as it may be shown to others: of a link no signature. Raises BadUrl."""
    if not may_be_url(text):
        return text
    from snaptool.stores.location import parse_url, place_of  # noqa: PLC0415 - seldom needed

    return str(place_of(text)) if parse_url(text) is not None else text


def is_remote(path: object) -> TypeGuard[RemotePath]:
    """Is a path one in a store? None is where nothing of them was imported."""
    return hasattr(path, "location")
