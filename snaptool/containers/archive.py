"""Rules that zip, tar and directories share: which entry is the snapshot, what the others are, what is not etcd.

Names are compared and shown, never joined to a path. Source: docs/formats/containers.md, "Archives" and "Not etcd".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from snaptool.containers.faults import Ambiguous, ContainerFault, ContainerRefused
from snaptool.containers.recognise import PACKED, Kind, recognise

Handle = TypeVar("Handle")
_SHOWN_NAMES = 20


@dataclass(frozen=True, slots=True)
class Member:
    """What lies in a container: `name` as it is stored there, `size` in bytes, `role` of `role_of` or "snapshot"."""

    name: str
    size: int
    role: str


@dataclass(frozen=True, slots=True)
class Candidate(Generic[Handle]):
    """An entry that may be the snapshot, and what the archive needs to open it."""

    name: str
    size: int
    kind: Kind
    handle: Handle


def is_preferred(name: str) -> bool:
    """Say whether a platform gives its snapshot such a name."""
    base = name.rsplit("/", 1)[-1]
    return (
        name == "/vcluster/snapshot/db"
        or name.startswith("/backup/")
        or base.startswith("snapshot")
        or base == "etcd-snapshot.db"
    )


def choose(
    candidates: Sequence[Candidate[Handle]], names: Counter[str], place: str, entry: str | None
) -> Candidate[Handle] | None:
    """Choose the snapshot among the entries that could be it, None when there is none. Raises Ambiguous.

    `names`: how many files of each name the archive has; `entry`: the one that was asked for.
    """
    if entry is not None:
        wanted = [one for one in candidates if one.name == entry]
        if len(wanted) > 1 or (wanted and names[entry] > 1):
            raise Ambiguous(place, [(one.name, one.size) for one in candidates if one.name == entry])
        return wanted[0] if wanted else None
    bolts = [one for one in candidates if one.kind is Kind.BOLT]
    usable = bolts or [one for one in candidates if one.kind in PACKED] or list(candidates)
    if len(usable) > 1:
        preferred = [one for one in usable if is_preferred(one.name)]
        usable = preferred if len(preferred) == 1 else usable
    if len(usable) > 1 or (usable and names[usable[0].name] > 1):
        raise Ambiguous(place, [(one.name, one.size) for one in usable])
    return usable[0] if usable else None


def no_such_entry(place: str, entry: str, names: Sequence[str]) -> ContainerRefused:
    """Say that `--entry` names nothing that is there."""
    return ContainerRefused(
        f"{place} has no file {entry!r} that holds a snapshot", hint=_listed(names), code="container_no_entry"
    )


def no_snapshot(place: str, names: Sequence[str], others: int) -> ContainerFault:
    """Say that an archive holds none, and what it holds. `others`: entries that are not files."""
    hint = _listed(names)
    if not names and others:
        hint = "it has no files, only links, devices or directories; links are not followed: pack the file itself"
    return ContainerFault(f"{place} holds no etcd snapshot", hint=hint, code="container_no_snapshot")


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "it is empty: the backup or the copy failed"
    more = f" and {len(names) - _SHOWN_NAMES:,} more" if len(names) > _SHOWN_NAMES else ""
    return "it holds: " + ", ".join(names[:_SHOWN_NAMES]) + more


def role_of(name: str) -> str:
    """Say what an entry is for, by its name: a short word, "other" when that is not known."""
    return next((role for pattern, role in _ROLES if re.search(pattern, name)), "other")


_ROLES = (
    (r"\.rkestate$", "rkestate"),
    (r"(?:^|/)static_kuberesources_[^/]*\.tar\.gz$", "static_kuberesources"),
    (r"(?:^|/)_etcd_backup\.meta$", "meta"),
    (r"(?:^|/)member/wal/[^/]+\.wal$", "wal"),
    (r"^(?:\./)?k0s\.yaml$", "k0s_config"),
    (r"^/?vcluster/snapshot/(?:release|request/.*|skipkeys)$", "vcluster"),
)


# --- what is not etcd ---

_SIGNS = (
    (r"(?:^|/)kine-state-backup\.db$|(?:^|/)db/state\.db$", "kine"),
    (r"(?:^|/)\d+\.(?:key|data)$", "microk8s"),
    (r"^(?:\./)?metadata/version$|^(?:\./)?resources/[^/]+/(?:cluster|namespaces)/", "velero"),
    (r"(?:^|/)filters/filters\.json$|\.#v\d", "rancher-backup"),
    (r"^/?vcluster/snapshot/revision$|^/registry/", "vcluster-keyvalue"),
    (r"(?:^|/)member/snap/[0-9a-f]{16}-[0-9a-f]{16}\.snap$", "etcd-v2"),
)

_SAY = {
    "kine": (
        "a database of Kine (SQLite), as k3s and k0s have it without etcd: no etcd snapshot is in it",
        (
            "inspect, list, get, history, diff and export read it; it is not rewritten, since each of its rows keeps "
            "the value before it too. k3s turns it into etcd itself when it is started once with --cluster-init; then "
            "`k3s etcd-snapshot save` makes a snapshot"
        ),
    ),
    "sqlite": ("an SQLite database: no etcd snapshot is in it", "name the file that etcd or your platform has saved"),
    "microk8s": (
        "a dqlite dump of MicroK8s, with current values only: no etcd snapshot is in it",
        "restore it with `microk8s dbctl restore`; with snaptool there is nothing to do",
    ),
    "velero": (
        "a backup of Velero: API objects as plain JSON, no etcd snapshot",
        "restore it with `velero restore`; an etcd snapshot comes from `etcdctl snapshot save` or your platform",
    ),
    "rancher-backup": (
        "a backup of Rancher's backup-operator: API objects as JSON, no etcd snapshot",
        "restore it with a Restore resource of that operator; a snapshot of the cluster's etcd is a file of its own",
    ),
    "vcluster-keyvalue": (
        "a key-value dump of vcluster, without history: no etcd snapshot is in it",
        "restore it with `vcluster restore`; only a vcluster whose store is etcd gives snapshots of etcd",
    ),
    "etcd-v2": (
        "a backup of etcd 2: no etcd v3 snapshot is in it",
        "restore it with the etcd 2 that wrote it; Kubernetes 1.13 and newer keep nothing in it",
    ),
}


def sign_of(name: str) -> str | None:
    """Return the kind of backup, not of etcd, that has an entry of such a name."""
    return next((kind for pattern, kind in _SIGNS if re.search(pattern, name)), None)


def sign_in(head: bytes) -> str | None:
    """Return the kind of database, not of etcd, that begins with `head`."""
    kind = recognise(head)
    return kind.value if kind in {Kind.SQLITE, Kind.KINE} else None


def not_etcd(place: str, kind: str) -> ContainerFault:
    """Say that a file is a backup, and none of etcd."""
    what, instead = _SAY[kind]
    return ContainerFault(f"{place} is {what}", hint=instead, code=f"not_etcd:{kind}")
