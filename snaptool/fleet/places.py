"""Where backups are, and which files are one backup: in folders of this machine, and in stores by URL.

The unit is the backup and not the file: OpenShift's pair, a Gardener chain and an etcd data directory are one each.
What platforms keep beside backups (kOps' `control/`, `.metadata/`, `*.meta`) is part of one, never a thing of its own.
Source: docs/audit.md; docs/formats/containers.md, "Platforms" and "Gardener".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from snaptool.containers.directories import chain_folder
from snaptool.containers.gardener import ChainFile, choose_chain, parse_name
from snaptool.errors import InputError
from snaptool.fleet.names import glob_pattern, is_glob, series_of, time_in
from snaptool.inputs import why
from snaptool.stores.listing import Entry, entries_below, entry_at, is_object, may_be_listed, without_version
from snaptool.stores.location import place_of
from snaptool.text import printable

_KOPS, _KOPS_META, _CONTROL = "etcd.backup.gz", "_etcd_backup.meta", "control"
_PAIR = re.compile(r"snapshot_(.+)\.db")
_RESOURCES = "static_kuberesources_{}.tar.gz"
_DATABASE = "/member/snap/db"
_LOG, _INDEX_OF_LOG = "-wal", "-shm"
"""What SQLite has beside a database, as k3s' without etcd: the first is read with it."""
SUMS = (".sha256", ".md5")
"""What the names of files of checksums end with, beside what they are of."""


@dataclass(frozen=True, slots=True)
class File:
    """A file, or an object of a store. `name`: its absolute path or URL; `version` changes when it does.

    "" for the version where the store has none. `size` in bytes.
    """

    name: str
    size: int
    modified: datetime
    version: str

    def document(self) -> dict[str, Any]:
        """Return its JSON form."""
        return {
            "name": self.name,
            "size": self.size,
            "modified": self.modified.isoformat(),
            "version": self.version,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """One backup. `url`: its name in records; `path` and `entry`: how it is opened; `files`: all that belong to it.

    `sums`: files beside it that state its checksum. `time`: when it was made, by its name; None where that says
    nothing.
    """

    url: str
    path: str
    entry: str | None
    files: tuple[File, ...]
    platform: str | None = None
    sums: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def modified(self) -> datetime:
        """When the newest of its files was written."""
        return max(file.modified for file in self.files)

    @property
    def version(self) -> str:
        """What changes when one of its files does; "" where one has none."""
        return version_of([file.version for file in self.files])

    @property
    def is_remote(self) -> bool:
        """Is it in a store?"""
        return "://" in self.path

    @property
    def time(self) -> datetime | None:
        """When it was made, as its name says."""
        return time_in(self.url)

    @property
    def series(self) -> str:
        """The name without its time."""
        return series_of(re.sub(r"/Full-\d+-\d+-", "/Full-", self.url))

    def document(self) -> dict[str, Any]:
        """Return its JSON form, from which `read_backup` makes it again."""
        return {
            "url": self.url,
            "size": self.size,
            "version": self.version,
            "series": self.series,
            "path": self.path,
            "entry": self.entry,
            "platform": self.platform,
            "files": [file.document() for file in self.files],
            "sums": list(self.sums),
        }


def read_backup(found: Any) -> Backup:
    """Read what `Backup.document` returns. Raises InputError."""
    try:
        files = tuple(
            File(
                str(one["name"]),
                int(one["size"]),
                datetime.fromisoformat(one["modified"]).astimezone(UTC),
                str(one["version"]),
            )
            for one in found["files"]
        )
        entry, platform = (None if found[name] is None else str(found[name]) for name in ("entry", "platform"))
        sums = tuple(str(name) for name in found["sums"])
        names = [os.fsencode(name) for name in (*(file.name for file in files), str(found["path"]), *sums)]
        if files and b"\0" not in b"/".join(names) and all(0 <= one.size < 1 << 62 for one in files):
            return Backup(
                url=str(found["url"]), path=str(found["path"]), entry=entry, files=files, platform=platform, sums=sums
            )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        pass
    raise InputError(
        "this is not a line of a list of backups", hint="make the list by `snaptool audit … --list -o jsonl`"
    )


def version_of(versions: Sequence[str]) -> str:
    """Make one version of those of all files."""
    if len(versions) == 1:
        return versions[0]
    return f"sha256:{hashlib.sha256(' '.join(versions).encode()).hexdigest()}" if all(versions) else ""


@dataclass(frozen=True, slots=True)
class Listing:
    """What was found. `parts`: files that belong to a backup and are not part of its content, with its url.

    `links`: symbolic links that were not followed, and lead to what is not in the folder itself.
    """

    backups: tuple[Backup, ...]
    parts: tuple[tuple[str, str], ...] = ()
    links: int = 0


@dataclass(slots=True)
class Places:
    """Where an audit looks: files and folders of this machine, URLs of stores.

    `own`: files of the run itself, by device and inode, which are not listed. `all_versions`: objects that were
    replaced or deleted are listed, too. `closed`: folders and files that could not be read, with why: an audit that did
    not see everything must not look clean.
    """

    own: set[tuple[int, int]] = field(default_factory=set)
    all_versions: bool = False
    closed: list[tuple[str, str]] = field(default_factory=list, init=False)
    _links: int = field(default=0, init=False)

    def find(self, argument: str) -> Listing:
        """List a file or object, a folder with all below it, or what fits a glob. Raises InputError, StoreError."""
        self._links = 0
        if "://" in argument:
            return listing_of(_file_of(entry) for entry in self._entries(argument))
        path = Path(argument)
        if os.path.lexists(path) or not is_glob(argument):
            try:
                path.stat()
            except OSError as error:
                raise InputError(
                    f"cannot read {argument}: {error.strerror}", hint="check the path", code="cannot_read"
                ) from error
            if path.is_dir():
                return self._listing(self._walk(path))
            if not path.is_file():
                raise InputError(
                    f"{argument} is not a regular file",
                    hint="name a backup, or a directory of backups",
                    code="not_a_regular_file",
                    place=argument,
                )
            absolute = os.path.abspath(path)  # noqa: PTH100 - links stay as they are named
            return listing_of(with_neighbours([_stated(absolute)]), self._links)
        folder = argument[: re.search(r"[*?\[]", argument).start()].rpartition("/")  # type: ignore[union-attr]
        root = Path((folder[0] or folder[1]) or ".")
        pattern = glob_pattern(os.path.abspath(argument))  # noqa: PTH100 - as above
        found = [one for one in self._walk(root) if pattern.fullmatch(one.name)] if root.is_dir() else []
        return self._listing(with_neighbours(found))

    def _listing(self, found: Iterable[File]) -> Listing:
        files = list(found)  # only then all links are known
        return listing_of(files, self._links)

    def covers(self, argument: str, url: str) -> bool:
        """Would `find` list something of that name for this argument, if it were there?"""
        place = argument if "://" in argument else os.path.abspath(argument)  # noqa: PTH100 - as it is named
        if is_glob(place) and not os.path.lexists(place):
            return glob_pattern(place).fullmatch(without_version(url)) is not None
        return place in {url, without_version(url)} or url.startswith(place.rstrip("/") + "/")

    def _entries(self, url: str) -> Iterator[Entry]:
        if not may_be_listed(url):
            yield entry_at(url)
            return
        if is_glob(url):
            beginning = url[: re.search(r"[*?\[]", url).start()]  # type: ignore[union-attr]
            pattern = glob_pattern(url)
            for one in entries_below(beginning, all_versions=self.all_versions):
                if pattern.fullmatch(without_version(one.url)):
                    yield one
        elif url.endswith("/") or not is_object(url):
            yield from entries_below(url if url.endswith("/") else f"{url}/", all_versions=self.all_versions)
        elif self.all_versions:
            for one in entries_below(url, all_versions=True):
                if without_version(one.url) == url:
                    yield one
        else:
            yield entry_at(url)

    def _walk(self, folder: Path) -> Iterator[File]:
        waiting = [os.path.abspath(folder)]  # noqa: PTH100 - as above
        root = os.path.realpath(folder).rstrip("/") + "/"
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
                    self._links += not f"{os.path.realpath(one.path)}/".startswith(root)
                elif one.is_dir():
                    waiting.append(one.path)
                elif one.is_file():
                    try:
                        status = one.stat()
                    except FileNotFoundError:
                        continue  # rotated away, as backups are
                    except OSError as error:  # as in a folder whose names may be read, and nothing else
                        self.closed.append((printable(one.path), why(error)))
                        continue
                    if (status.st_dev, status.st_ino) not in self.own:
                        yield _file(one.path, status)


def _file(name: str, status: os.stat_result) -> File:
    version = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
    return File(name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC), version)


def _stated(name: str) -> File:
    return _file(name, os.stat(name))  # noqa: PTH116 - names are text here, as URLs are


def version_now(files: Sequence[File]) -> str:
    """Return the version of files of this machine as they are now. Raises OSError where one is gone."""
    return version_of([_stated(file.name).version for file in files])


def _file_of(entry: Entry) -> File:
    return File(entry.url, entry.size, entry.modified.astimezone(UTC), entry.version)


def with_neighbours(files: Iterable[File]) -> Iterator[File]:
    """Add what lies beside OpenShift's snapshots and belongs to them, where a glob or a name left it out."""
    known = {}
    for file in files:
        known[file.name] = file
        yield file
    for name in list(known):
        beside = _resources_of(name)
        if beside and beside not in known and os.path.isfile(beside):  # noqa: PTH113 - as above
            with contextlib.suppress(FileNotFoundError):  # rotated away
                yield _stated(beside)


def listing_of(found: Iterable[File], links: int = 0) -> Listing:
    """Sort files into backups, in the order of their names."""
    left = {file.name: file for file in sorted(found, key=lambda file: file.name)}
    known = frozenset(left)
    backups: list[Backup] = []
    parts: list[tuple[str, str]] = []
    for take in (_data_directories, _chains, _pairs, _kops, _logs, _metadata):
        taken, beside = take(left)
        backups += taken
        parts += beside
        for name in [*(file.name for one in taken for file in one.files), *(name for name, _ in beside)]:
            left.pop(name, None)
    for name, file in left.items():
        sums = tuple(name + end for end in SUMS if name + end in known)
        backups.append(Backup(url=_shown(name), path=name, entry=None, files=(file,), sums=sums))
    backups.sort(key=lambda one: one.url)
    return Listing(tuple(backups), tuple((_shown(name), _shown(of)) for name, of in parts), links)


def _shown(name: str) -> str:
    """Return what a file is called in records: without what a link is signed with."""
    return str(place_of(name)) if name.startswith(("https://", "http://")) else printable(name)


def _resources_of(name: str) -> str:
    """Return what OpenShift writes beside a snapshot; "" for what is not one of its snapshots."""
    folder, slash, base = name.rpartition("/")
    match = _PAIR.fullmatch(base)
    return f"{folder}{slash}{_RESOURCES.format(match[1])}" if match else ""


Taken = tuple[list[Backup], list[tuple[str, str]]]


def _data_directories(files: Mapping[str, File]) -> Taken:
    taken, parts = [], []
    for name, file in files.items():
        if name.endswith(_DATABASE):
            folder = name.removesuffix(_DATABASE)
            taken.append(Backup(url=_shown(folder), path=folder, entry=None, files=(file,)))
            parts += [(one, folder) for one in files if one != name and one.startswith(f"{folder}/member/")]
    return taken, parts


def _chains(files: Mapping[str, File]) -> Taken:
    """Take Gardener's full snapshots with their deltas; deltas without a full snapshot stay by themselves."""
    chains: dict[str, list[ChainFile]] = {}
    for name in files:
        folder = chain_folder(name)
        one = parse_name(name[len(folder) :])
        if one is not None:
            chains.setdefault(folder, []).append(one)
    taken = []
    for folder, several in chains.items():
        for full in (one for one in several if one.full):
            chosen, deltas = choose_chain(several, folder, full.path)
            members = tuple(files[folder + one.path] for one in (chosen, *deltas))
            path = folder.removesuffix("/") or "/"
            url = _shown(members[0].name)
            taken.append(Backup(url=url, path=path, entry=chosen.path, files=members, platform="gardener"))
    return taken, []


def _pairs(files: Mapping[str, File]) -> Taken:
    """Take OpenShift's snapshots with the static resources beside them."""
    taken = []
    for name, file in files.items():
        beside = files.get(_resources_of(name))
        if beside is not None:
            folder, _, base = name.rpartition("/")
            both = (file, beside)
            taken.append(Backup(url=_shown(name), path=folder or "/", entry=base, files=both, platform="openshift"))
    return taken, []


def _kops(files: Mapping[str, File]) -> Taken:
    """Take kOps' backups; the meta beside each, and what etcd-manager keeps in `control/`, are part of the store."""
    taken, parts = [], []
    stores: dict[str, str] = {}
    for name, file in files.items():
        folder, _, base = name.rpartition("/")
        if base == _KOPS:
            taken.append(Backup(url=_shown(name), path=name, entry=None, files=(file,), platform="kops"))
            stores[folder.rpartition("/")[0]] = name
    for name in files:
        folder, _, base = name.rpartition("/")
        above, _, here = folder.rpartition("/")
        if base == _KOPS_META and f"{folder}/{_KOPS}" in files:
            parts.append((name, f"{folder}/{_KOPS}"))
        elif here == _CONTROL and above in stores:
            parts.append((name, stores[above]))
    return taken, parts


def _logs(files: Mapping[str, File]) -> Taken:
    """Take files of this machine with the log that SQLite has beside them: without it a database is an older one."""
    taken, parts = [], []
    for name, file in files.items():
        log = files.get(name + _LOG)
        if log is not None and "://" not in name:
            taken.append(Backup(url=_shown(name), path=name, entry=None, files=(file, log)))
            parts += [(name + _INDEX_OF_LOG, name)] if name + _INDEX_OF_LOG in files else []
    return taken, parts


def _metadata(files: Mapping[str, File]) -> Taken:
    """Set aside what k3s, RKE2 and others write about a backup."""
    parts = []
    for name in files:
        folder, _, base = name.rpartition("/")
        above, _, here = folder.rpartition("/")
        beside = f"{above}/{base}"
        if name.endswith(".meta") and name.removesuffix(".meta") in files:
            parts.append((name, name.removesuffix(".meta")))
        elif here == ".metadata":
            parts.append((name, beside if beside in files else above))
    return [], parts


def newest_of(backups: Sequence[Backup], count: int, per: str, inside: Mapping[str, datetime]) -> list[Backup]:
    """Keep the newest `count` of each group, by the time in the name, else `inside` (by url), else of the file.

    Files without a byte, as a full disk leaves them, are kept where they are newer, and do not count.
    """
    kept = []
    for several in grouped(backups, per).values():
        left = count
        for one in sorted(
            several, key=lambda one: (one.time or inside.get(one.url, one.modified), one.url), reverse=True
        ):
            if not left:
                break
            kept.append(one)
            left -= bool(one.size)
    return sorted(kept, key=lambda one: one.url)


def grouped(backups: Sequence[Backup], per: str) -> dict[str, list[Backup]]:
    """Sort backups into groups; `per`: series, prefix (the folder), or a pattern that finds the name of a group.

    A file that states the checksum of another takes no place of a backup.
    """
    groups: dict[str, list[Backup]] = {}
    sums = {name for one in backups for name in one.sums}
    for one in backups:
        if one.path not in sums:
            groups.setdefault(_group(one, per), []).append(one)
    return groups


def _group(backup: Backup, per: str) -> str:
    if per == "series":
        return backup.series
    if per == "prefix":
        return backup.url.rpartition("/")[0]
    match = re.search(per, backup.url)
    return match[match.re.groups and 1] or "" if match else backup.series
