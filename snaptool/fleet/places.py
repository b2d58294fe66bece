"""Where backups are, and which files are one backup. Local folders; object stores are to be places of the same shape.

The unit is the backup and not the file: OpenShift's pair, a Gardener chain and an etcd data directory are one each.
What platforms keep beside backups (kOps' `control/`, `.metadata/`, `*.meta`) is part of one, never a thing of its own.
Source: docs/audit.md; docs/formats/containers.md, "Platforms" and "Gardener".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from snaptool.containers.directories import chain_folder
from snaptool.containers.gardener import ChainFile, choose_chain, parse_name
from snaptool.errors import InputError
from snaptool.fleet.names import glob_pattern, is_glob, series_of, time_in
from snaptool.inputs import why
from snaptool.text import printable

_KOPS, _KOPS_META, _CONTROL = "etcd.backup.gz", "_etcd_backup.meta", "control"
_PAIR = re.compile(r"snapshot_(.+)\.db")
_RESOURCES = "static_kuberesources_{}.tar.gz"
_DATABASE = ("member", "snap", "db")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """One backup. `url`: its name in records; `path` and `entry`: how it is opened; `files`: all that belong to it.

    `size` in bytes, `modified` the newest of its files, `version` changes when one of them does. `time`: when it was
    made, by its name; None where that says nothing.
    """

    url: str
    path: Path
    entry: str | None
    files: tuple[Path, ...]
    size: int
    modified: datetime
    version: str
    platform: str | None = None

    @property
    def time(self) -> datetime | None:
        """When it was made, as its name says."""
        return time_in(self.url)

    @property
    def series(self) -> str:
        """The name without its time."""
        return series_of(re.sub(r"/Full-\d+-\d+-", "/Full-", self.url))


@dataclass(frozen=True, slots=True)
class Listing:
    """What was found. `parts`: files that belong to a backup and are not part of its content, with its url."""

    backups: tuple[Backup, ...]
    parts: tuple[tuple[str, str], ...] = ()
    links: int = 0


class Place(Protocol):
    """Somewhere that backups are: it lists them, and says whether one is still what was listed."""

    def find(self, argument: str) -> Listing:
        """List what an argument means. Raises InputError where that is nothing."""

    def version(self, backup: Backup) -> str:
        """Return the version of a backup as it is now. Raises OSError where it is gone."""


@dataclass(slots=True)
class LocalPlace:
    """Files and folders of this machine. `own`: files of the run itself, by device and inode, which are not listed.

    `closed`: folders that could not be read, with why: an audit that did not see everything must not look clean.
    """

    own: set[tuple[int, int]] = field(default_factory=set)
    closed: list[tuple[str, str]] = field(default_factory=list, init=False)
    _links: int = field(default=0, init=False)

    def find(self, argument: str) -> Listing:
        """List a file, a folder with all below it, or what fits a glob. Raises InputError."""
        self._links = 0
        if "://" in argument:
            raise InputError(
                f"{argument}: audit reads local files and folders",
                hint="mount or copy the bucket (rclone mount, aws s3 sync), and name the folder",
                code="bad_input",
            )
        path = Path(argument)
        if os.path.lexists(path) or not is_glob(argument):
            try:
                path.stat()
            except OSError as error:
                raise InputError(
                    f"cannot read {argument}: {error.strerror}", hint="check the path", code="cannot_read"
                ) from error
            if path.is_dir():
                return _listing(self._walk(path), self._links)
            return _listing([Path(os.path.abspath(path))], self._links)  # noqa: PTH100 - links stay as they are named
        folder = argument[: re.search(r"[*?\[]", argument).start()].rpartition("/")  # type: ignore[union-attr]
        root = Path((folder[0] or folder[1]) or ".")
        pattern = glob_pattern(os.path.abspath(argument))  # noqa: PTH100 - as above
        found = [one for one in self._walk(root) if pattern.fullmatch(str(one))] if root.is_dir() else []
        return _listing(found, self._links)

    def version(self, backup: Backup) -> str:
        """Return the version of a backup as it is now. Raises OSError where it is gone."""
        return _version(backup.files)

    def _walk(self, folder: Path) -> Iterator[Path]:
        waiting = [os.path.abspath(folder)]  # noqa: PTH100 - as above
        while waiting:
            here = waiting.pop()
            try:
                with os.scandir(here) as found:
                    entries = sorted(found, key=lambda one: one.name)
            except OSError as error:
                self.closed.append((printable(here), why(error)))
                continue
            for one in entries:
                if one.is_symlink():
                    self._links += 1
                elif one.is_dir():
                    waiting.append(one.path)
                elif one.is_file():
                    try:
                        status = one.stat()
                    except FileNotFoundError:
                        continue  # rotated away, as backups are
                    if (status.st_dev, status.st_ino) not in self.own:
                        yield Path(one.path)


def _version(files: Sequence[Path]) -> str:
    parts = []
    for file in files:
        status = file.stat()
        parts.append(f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}")
    return parts[0] if len(parts) == 1 else f"sha256:{hashlib.sha256(' '.join(parts).encode()).hexdigest()}"


def _backup(files: Sequence[Path], path: Path, entry: str | None = None, platform: str | None = None) -> Backup:
    states = [file.stat() for file in files]
    return Backup(
        url=printable(path if path.is_dir() and entry is None else files[0]),
        path=path,
        entry=entry,
        files=tuple(files),
        size=sum(state.st_size for state in states),
        modified=datetime.fromtimestamp(max(state.st_mtime for state in states), UTC),
        version=_version(files),
        platform=platform,
    )


def _listing(found: Iterable[Path], links: int) -> Listing:
    """Sort files into backups, in the order of their names."""
    left = dict.fromkeys(sorted(found))
    backups: list[Backup] = []
    parts: list[tuple[Path, Path]] = []
    for take in (_data_directories, _chains, _pairs, _kops, _metadata):
        taken, beside = take(left)
        backups += taken
        parts += beside
        for path in [*(file for one in taken for file in one.files), *(path for path, _ in beside)]:
            left.pop(path, None)
    for path in left:
        with contextlib.suppress(FileNotFoundError):  # rotated away meanwhile, as backups are
            backups.append(_backup([path], path))
    backups.sort(key=lambda one: one.url)
    return Listing(tuple(backups), tuple((printable(path), printable(of)) for path, of in parts), links)


Taken = tuple[list[Backup], list[tuple[Path, Path]]]


def _data_directories(files: Collection[Path]) -> Taken:
    taken, parts = [], []
    for file in files:
        if file.parts[-3:] == _DATABASE:
            folder = file.parents[2]
            taken.append(_backup([file], folder))
            parts += [(one, folder) for one in files if one != file and one.is_relative_to(folder / "member")]
    return taken, parts


def _chains(files: Collection[Path]) -> Taken:
    """Take Gardener's full snapshots with their deltas; deltas without a full snapshot stay by themselves."""
    chains: dict[str, list[ChainFile]] = {}
    for file in files:
        folder = chain_folder(str(file))
        one = parse_name(str(file)[len(folder) :])
        if one is not None:
            chains.setdefault(folder, []).append(one)
    taken = []
    for folder, several in chains.items():
        for full in (one for one in several if one.full):
            chosen, deltas = choose_chain(several, folder, full.path)
            members = [Path(folder, one.path) for one in (chosen, *deltas)]
            taken.append(_backup(members, Path(folder), chosen.path, "gardener"))
    return taken, []


def _pairs(files: Collection[Path]) -> Taken:
    """Take OpenShift's snapshots with the static resources beside them, listed or not."""
    taken = []
    for file in files:
        match = _PAIR.fullmatch(file.name)
        beside = file.parent / _RESOURCES.format(match[1]) if match else None
        if beside is not None and beside.is_file():
            taken.append(_backup([file, beside], file.parent, file.name, "openshift"))
    return taken, []


def _kops(files: Collection[Path]) -> Taken:
    """Take kOps' backups; the meta beside each, and what etcd-manager keeps in `control/`, are part of the store."""
    taken, parts = [], []
    stores: dict[Path, Path] = {}
    for file in files:
        if file.name == _KOPS:
            taken.append(_backup([file], file, platform="kops"))
            stores[file.parent.parent] = file
    for file in files:
        meta_of = file.parent / _KOPS
        if file.name == _KOPS_META and meta_of in files:
            parts.append((file, meta_of))
        elif file.parent.name == _CONTROL and file.parent.parent in stores:
            parts.append((file, stores[file.parent.parent]))
    return taken, parts


def _metadata(files: Collection[Path]) -> Taken:
    """Set aside what k3s, RKE2 and others write about a backup."""
    parts = []
    for file in files:
        beside = file.with_suffix("") if file.suffix == ".meta" else file.parent.parent / file.name
        if file.suffix == ".meta" and beside in files:
            parts.append((file, beside))
        elif file.parent.name == ".metadata":
            parts.append((file, beside if beside in files else file.parent.parent))
    return [], parts


def newest_of(backups: Sequence[Backup], count: int, per: str) -> list[Backup]:
    """Keep the newest `count` of each series; `per`: series, prefix (the folder), or a pattern that finds its name."""
    groups: dict[str, list[Backup]] = {}
    for one in backups:
        groups.setdefault(_group(one, per), []).append(one)
    kept = [
        one
        for several in groups.values()
        for one in sorted(several, key=lambda one: (one.time or one.modified, one.url))[-count:]
    ]
    return sorted(kept, key=lambda one: one.url)


def _group(backup: Backup, per: str) -> str:
    if per == "series":
        return backup.series
    if per == "prefix":
        return backup.url.rpartition("/")[0]
    match = re.search(per, backup.url)
    return match[match.re.groups and 1] or "" if match else backup.series
