"""Why nothing of a type is in a namespace: it is elsewhere, or the namespace was deleted, and when it was whole."""

from __future__ import annotations

from dataclasses import dataclass

from snaptool.kube.keys import ResourceType
from snaptool.operations.listing import listing
from snaptool.operations.lives import life_of_namespace
from snaptool.operations.opening import OpenedSnapshot
from snaptool.providers.keyring import Keyring


@dataclass(frozen=True, slots=True)
class Absence:
    """`elsewhere`: namespaces that have such objects.

    `whole_at`: the last revision at which a namespace that is gone or going was whole, 0 where that was compacted away.
    """

    elsewhere: tuple[str, ...] = ()
    whole_at: int = 0


def absence_of(
    opened: OpenedSnapshot, kind: ResourceType | None, namespace: str | None, keyring: Keyring | None
) -> Absence:
    """Find out why a type, None for all, has no objects in a namespace. Raises the FormatErrors of a damaged file."""
    if namespace is None:
        return Absence()
    life = life_of_namespace(opened, namespace, keyring)
    if life is not None and life.whole:
        return Absence(whole_at=life.whole if life.whole >= opened.snapshot.compacted_revision else 0)
    places = dict.fromkeys(row.namespace for row in listing(opened, kind, skip_hash_check=True))
    return Absence(elsewhere=tuple(place for place in places if place))
