"""What the loss of whole objects means for the cluster, asked with what the snapshot still says about them.

`kube.consequence` has the rules. Here are its two sources: which neighbours are there and stay, and the content of an
older revision, which shows what a Secret was where its name only suggests it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from snaptool.errors import FormatError
from snaptool.etcd import Snapshot
from snaptool.kube.consequences import consequence
from snaptool.kube.keys import ResourceKey
from snaptool.kube.kinds.reader import decode_object
from snaptool.operations.older import OlderValues

_MOST = 5000
"""Of more objects the neighbours are not looked for: each may ask for some thirty keys."""


def meanings(
    lost: Sequence[ResourceKey], gone: Container[int], snapshot: Snapshot, older: OlderValues
) -> Mapping[bytes, str]:
    """Say for each lost object what is lost with it. `gone`: the records that go."""
    contents = {one.key: _content(older, one.key) for one in lost}
    if len(lost) > _MOST:
        return {one.key: consequence(one, None, contents[one.key]) for one in lost}
    asked: set[bytes] = set()

    def ask(key: bytes) -> bool:
        asked.add(key)
        return False

    for one in lost:
        consequence(one, ask, contents[one.key])
    there = {
        key
        for key, records in (snapshot.history_of(asked) if asked else {}).items()
        if not records[-1].tombstone and records[-1].number not in gone
    }
    return {one.key: consequence(one, there.__contains__, contents[one.key]) for one in lost}


def _content(older: OlderValues, key: bytes) -> Mapping[str, Any] | None:
    found = older.found.get(key)
    if found is None:
        return None
    try:
        return decode_object(found.plaintext).tree
    except FormatError:
        return None
