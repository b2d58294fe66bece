"""When a snapshot was made, by what is in it: its newest objects say when they were written.

etcd keeps no times. But every node renews its Lease every ten seconds, and what is written says who changed it when;
the last records of a store hold the newest of these. Encrypted ones are not opened for it: Leases seldom are. Source:
docs/audit.md, "Which backups".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from snaptool.errors import FormatError
from snaptool.etcd import Snapshot, decode_key_value
from snaptool.kube.kinds.reader import decode_object

_LAST_RECORDS = 50


def newest_time(snapshot: Snapshot) -> datetime | None:
    """Return the newest time that one of the last objects says, UTC; None where none does. Raises FormatError."""
    total = len(snapshot.live())
    found = None
    for number in range(total - 1, max(total - _LAST_RECORDS, 0) - 1, -1):
        value = decode_key_value(snapshot.stored_value(snapshot.record(number))).value
        with contextlib.suppress(FormatError):  # a tombstone, an encrypted value, or no object of Kubernetes
            for time in _times(decode_object(value).tree):
                found = time if found is None else max(found, time)
    return found


def _times(tree: dict[str, Any]) -> Iterator[datetime]:
    metadata, spec = (part if isinstance(part := tree.get(name), dict) else {} for name in ("metadata", "spec"))
    managers = metadata.get("managedFields")
    said = [metadata.get("creationTimestamp"), spec.get("renewTime"), tree.get("lastTimestamp"), tree.get("eventTime")]
    said += [one.get("time") for one in managers if isinstance(one, dict)] if isinstance(managers, list) else []
    for text in said:
        if isinstance(text, str):
            with contextlib.suppress(ValueError, OverflowError):
                time = datetime.fromisoformat(text)
                yield time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
