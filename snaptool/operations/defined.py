"""Which versions the custom resources of a snapshot are defined in: an object in another one breaks every list.

A definition counts as it is now, for that is what the API servers of a restored cluster read objects by. Its record is
found in the pass that finds the prefixes, under the usual prefix; under others, where there are any, in one of its own.

Source: docs/formats/kinds.md, "What export changes".
"""

from __future__ import annotations

from collections.abc import Iterable

from snaptool.errors import FormatError
from snaptool.etcd import Snapshot, decode_key_value
from snaptool.kube.cutting import Watch
from snaptool.operations.crypto import open_value
from snaptool.operations.definitions import DefinitionFinder
from snaptool.operations.labels import resource_of
from snaptool.operations.opening import OpenedSnapshot
from snaptool.providers.keyring import GroupResource, Keyring


def defined_versions(opened: OpenedSnapshot, keyring: Keyring | None = None) -> dict[GroupResource, frozenset[str]]:
    """Read the definitions of a snapshot. What cannot be read defines nothing; a damaged file has none to be read."""
    found: dict[GroupResource, frozenset[str]] = {}
    snapshot = opened.snapshot
    try:
        others = [prefix for prefix in opened.prefix_facts.taken if prefix not in opened.definitions.prefixes]
        live = dict(opened.definitions.live())
        if others:
            finder = DefinitionFinder(others)
            watch = Watch(snapshot.view, finder.heads)
            for records in snapshot.chunks(lambda _: None):
                opened.source.check_unchanged()
                for row in watch.rows(records.key_at, records.key_size, len(records)):
                    finder.take(records, row)
            live |= finder.live()
        for key, number in live.items():
            found |= _versions(snapshot, key, number, opened.prefix_facts.taken, keyring or Keyring())
    except FormatError:
        return {}
    return found


def _versions(
    snapshot: Snapshot, key: bytes, number: int, prefixes: Iterable[str], keyring: Keyring
) -> Iterable[tuple[GroupResource, frozenset[str]]]:
    from snaptool.kube.kinds.crds import CRD_KIND, CRD_V1, mapping, version_names  # noqa: PLC0415 - where one is
    from snaptool.kube.kinds.reader import decode_object  # noqa: PLC0415
    from snaptool.kube.kinds.served import as_served  # noqa: PLC0415

    stored = decode_key_value(snapshot.stored_value(snapshot.record(number))).value
    chain = keyring.chain_for(resource_of(key, tuple(prefixes)).group_resource)
    _, plaintext = open_value(chain, stored, key)
    try:
        tree = as_served(decode_object(stored if plaintext is None else plaintext).tree)
    except FormatError:
        return ()
    spec = mapping(tree.get("spec"))
    group, plural = spec.get("group"), mapping(spec.get("names")).get("plural")
    if (tree.get("kind"), tree.get("apiVersion")) != (CRD_KIND, CRD_V1) or not isinstance(group, str):
        return ()
    versions = frozenset(f"{group}/{name}" for name in version_names(tree))
    return [(GroupResource(plural, group), versions)] if isinstance(plural, str) and versions else ()
