"""Directories that platforms leave: OpenShift's pair, kOps' and Gardener's stores, kubespray's, or one of snapshots.

Nothing is opened here but what is needed to know a file's kind; the file to read is named, and read like any other.
Source: docs/formats/containers.md, "Platforms" and "Gardener".
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from snaptool.containers import archive
from snaptool.containers.archive import Member
from snaptool.containers.faults import Ambiguous, ContainerRefused
from snaptool.containers.gardener import ChainFile, choose_chain, parse_name
from snaptool.containers.recognise import HEAD, PACKED, Kind, recognise

_MOST_FILES = 10_000
_DEEPEST = 4
_LARGEST_META = 64 << 10
_PAIR = re.compile(r"snapshot_(\d{4}-\d{2}-\d{2}_\d{6}(?:__POSSIBLY_DIRTY__)?)\.db")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z-\d{6}")
_KOPS_FILE, _KOPS_META = "etcd.backup.gz", "_etcd_backup.meta"


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """The file of a directory to read, a path below it. `members`: what belongs to it; `deltas`: changes after it."""

    file: str
    platform: str | None
    members: tuple[Member, ...] = ()
    notices: tuple[str, ...] = ()
    deltas: tuple[ChainFile, ...] = field(default=())


def find_in_directory(directory: Path, entry: str | None = None) -> Located | None:
    """Find the snapshot of a directory that is not an etcd data directory; None when nothing in it looks like one.

    Raises Ambiguous for several, ContainerRefused delta_only, ContainerFault not_etcd.
    """
    files = dict(_files(directory, 1))
    return (
        _openshift(directory, files, entry)
        or _kops(directory, entry)
        or _gardener(directory, entry)
        or _kubespray(directory, files, entry)
        or _any(directory, files, entry)
    )


def _files(directory: Path, depth: int, below: str = "") -> Iterator[tuple[str, int]]:
    """Yield path and size of the files of a directory, links not followed, up to `depth` levels."""
    count, waiting = 0, [(below, depth)]
    while waiting:
        below, left = waiting.pop()
        try:
            with os.scandir(directory / below) as found:
                for one in sorted(found, key=lambda one: one.name):
                    path = f"{below}{one.name}"
                    if one.is_file(follow_symlinks=False):
                        count += 1
                        yield path, one.stat(follow_symlinks=False).st_size
                    elif left > 1 and one.is_dir(follow_symlinks=False):
                        waiting.append((f"{path}/", left - 1))
                    if count > _MOST_FILES:
                        return
        except OSError as error:
            raise ContainerRefused(
                f"cannot read the directory {directory / below}: {error.strerror}",
                hint="check its permissions",
                code="container_directory",
            ) from error


def _openshift(directory: Path, files: dict[str, int], entry: str | None) -> Located | None:
    found = {match[1]: name for name in files if (match := _PAIR.fullmatch(name))}
    if entry is not None:
        found = {date: name for date, name in found.items() if name == entry}
    if not found or (entry is None and len(found) < len([one for one in files if one.endswith(".db")])):
        return None
    date = max(found, key=_version_order)
    name, beside = found[date], f"static_kuberesources_{date}.tar.gz"
    notices: tuple[str, ...] = (f"reading {directory / name}",)
    members = [Member(name, files[name], "snapshot")]
    if len(found) > 1:
        notices += (f"it is the newest of {len(found)} snapshots there, the one that cluster-restore.sh takes",)
    if beside in files:
        members.append(Member(beside, files[beside], archive.role_of(beside)))
    else:
        notices += (f"{beside} is not beside it: cluster-restore.sh needs both, and keys may be in it",)
    return Located(file=name, platform="openshift", members=tuple(members), notices=notices)


def _version_order(text: str) -> list[tuple[int, str]]:
    """Sort as `ls -v`: numbers as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def _kops(directory: Path, entry: str | None) -> Located | None:
    for pattern in ("", "*/", "main/*/", "etcd/main/*/", "backups/etcd/main/*/"):
        found = [one for one in sorted(directory.glob(pattern + _KOPS_FILE)) if one.is_file()]
        if entry is not None:
            found = [one for one in found if entry in {one.parent.name, str(one.relative_to(directory))}]
        if found and (not pattern or all(_TIME.fullmatch(one.parent.name) for one in found)):
            return _kops_backup(directory, found)
    return None


def _kops_backup(directory: Path, found: list[Path]) -> Located:
    chosen, meta = found[-1], found[-1].parent / _KOPS_META
    name = str(chosen.relative_to(directory))
    members, version, when = [Member(name, chosen.stat().st_size, "snapshot")], "", ""
    if meta.is_file():
        members.append(Member(str(meta.relative_to(directory)), meta.stat().st_size, "meta"))
        version, when = _kops_meta(meta)
    if version.startswith("2."):
        raise archive.not_etcd(str(chosen), "etcd-v2")
    facts = ", ".join(fact for fact in (when, f"etcd {version}" if version else "") if fact)
    notices: tuple[str, ...] = (f"reading {chosen}" + (f" ({facts})" if facts else ""),)
    if len(found) > 1:
        notices += (f"it is the newest of {len(found)} backups there; another one with --entry {found[0].parent.name}",)
    return Located(file=name, platform="kops", members=tuple(members), notices=notices)


def _kops_meta(meta: Path) -> tuple[str, str]:
    """Read etcd's version and the time from etcd-manager's meta; the time is an int64, a text in protojson."""
    try:
        with meta.open("rb") as file:
            stated = json.loads(file.read(_LARGEST_META))
        version = str(stated.get("etcdVersion", ""))
        when = f"{datetime.fromtimestamp(int(stated['timestamp']), UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return "", ""
    return version, when


def chain_folder(path: str) -> str:
    """Return the folder, with its slash, of the chain that a file of Gardener's is in.

    v1 has a directory for every Full; both versions of the layout make one chain.
    """
    return re.sub(r"(?:^|(?<=/))(?:v2/|v1/Backup-\d+/)?[^/]+$", "", path)


def _gardener(directory: Path, entry: str | None) -> Located | None:
    chains: dict[str, list[ChainFile]] = {}
    sizes = {}
    for path, size in _files(directory, _DEEPEST):
        one = parse_name(path)
        if one is not None:
            chains.setdefault(chain_folder(path), []).append(one)
            sizes[path] = size
    if not chains:
        return None
    if len(chains) > 1:
        names = ", ".join(top or "." for top in sorted(chains))
        raise ContainerRefused(
            f"{directory} holds the backups of several etcds: {names}",
            hint="name one of these directories",
            code="container_ambiguous",
        )
    full, deltas = choose_chain(next(iter(chains.values())), str(directory), entry)
    members = [Member(full.path, sizes[full.path], "snapshot")]
    members += [Member(one.path, sizes[one.path], "delta") for one in deltas]
    last = deltas[-1].last if deltas else full.last
    notices = (f"reading {directory / full.path} and {len(deltas)} deltas after it, to revision {last:,}",)
    return Located(file=full.path, platform="gardener", members=tuple(members), notices=notices, deltas=tuple(deltas))


def is_kubespray(directory: Path) -> bool:
    """Say whether a directory is called as kubespray's backups are; `member` in one is a copy of etcd 2's data."""
    return re.fullmatch(r"etcd-\d{4}-\d{2}-\d{2}_\d{2}:\d{2}:\d{2}", directory.resolve().name) is not None


def _kubespray(directory: Path, files: dict[str, int], entry: str | None) -> Located | None:
    name = "snapshot.db"
    if name not in files or entry not in {None, name}:
        return None
    notices = (f"reading {directory / name}",)
    return Located(
        file=name,
        platform="kubespray" if is_kubespray(directory) else None,
        members=(Member(name, files[name], "snapshot"),),
        notices=notices,
    )


def _any(directory: Path, files: dict[str, int], entry: str | None) -> Located | None:
    """Take the only file that can be a snapshot."""
    kinds: dict[str, Kind] = {}
    sign = "etcd-v2" if any((directory / "member" / "snap").glob("*.snap")) else None
    for name in files:
        head = _head(directory / name)
        kinds[name] = recognise(head, name)
        sign = sign or archive.sign_in(head)
    usable = [name for name in files if kinds[name] is Kind.BOLT] or [name for name in files if kinds[name] in PACKED]
    usable = usable or [name for name in files if kinds[name] is Kind.KINE]
    if entry is not None:
        if entry not in files:
            raise archive.no_such_entry(str(directory), entry, usable)
        usable = [entry]
    if len(usable) > 1:
        raise Ambiguous(str(directory), [(name, files[name]) for name in usable])
    if usable:
        log = f"{usable[0]}-wal"  # Kine's newest writes are in it
        beside = (Member(log, files[log], archive.role_of(log)),) if log in files else ()
        return Located(
            file=usable[0],
            platform=None,
            members=(Member(usable[0], files[usable[0]], "snapshot"), *beside),
            notices=(f"reading {directory / usable[0]}",),
        )
    if sign is not None:
        raise archive.not_etcd(str(directory), sign)
    return None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""
