"""A backup brought to where it can be opened: as it is on this machine; from a store into private files.

One object goes into a file without a name, to which a link in a private folder gives the name that containers are
recognised by; several become files of that folder. The folder goes with the block; where a worker is killed in it, the
asking process removes it, who chose where it is. Source: docs/audit.md, "Where downloads go".
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from snaptool.errors import SnaptoolError
from snaptool.fleet.places import SUMS, Backup, version_now, version_of
from snaptool.sources import source_changed
from snaptool.stores.listing import entry_at
from snaptool.stores.location import place_of
from snaptool.stores.reading import fetch

_BLOCK = 1 << 20
_LARGEST_SUM = 4096
_LONGEST_NAME = 60  # in characters of up to four bytes


Sums = tuple[str | None, tuple[bool, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A backup that can be opened. `path`: what to open; `original`: what users call it.

    `sums` returns its SHA-256 in hex, None where it is several files, and for each file beside it that states a
    checksum, whether it is right.
    """

    path: Path
    original: str
    version: str
    sums: Callable[[], Sums]

    def named(self, message: str) -> str:
        """Name in a message the backup in place of its copy."""
        return message.replace(str(self.path), self.original)


@contextmanager
def staged(backup: Backup, folder: Path | None) -> Iterator[Staged]:
    """Make a backup ready to be opened, within the block. `folder`: where what is downloaded goes; None: a new one.

    Raises SourceChanged where it is replaced meanwhile, OSError for files, StoreError and NoRoom for downloads.
    """
    if not backup.is_remote:
        version = version_now(backup.files)
        yield Staged(path=Path(backup.path), original=backup.path, version=version, sums=lambda: _summed(backup))
        if version_now(backup.files) != version:
            raise source_changed(Path(backup.files[0].name))
        return
    with ExitStack() as undo:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="snaptool-audit-"))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        yield _download(backup, folder, undo)


def _download(backup: Backup, folder: Path, undo: ExitStack) -> Staged:
    room = folder.parent
    if len(backup.files) == 1 and backup.entry is None and backup.path == backup.files[0].name:
        fetched = fetch(place_of(backup.path), room)
        undo.callback(fetched.spool.close)
        sha256 = fetched.sums.sha256
        link = folder / _base(backup.url)
        link.symlink_to(fetched.spool.readable_path)
        found = {".sha256": sha256, ".md5": fetched.sums.md5}
        version = fetched.seen.version or f"sha256:{sha256}"

        def sums() -> Sums:
            words = {name: _remote_sum(name, room) for name in backup.sums}
            right = (found[end] in words[name] for name in words for end in SUMS if name.endswith(end) and words[name])
            return sha256, tuple(right)

        return Staged(path=link, original=backup.url, version=version, sums=sums)
    versions = []
    everything = folder / "all"
    for file in backup.files:
        fetched = fetch(place_of(file.name), room)
        with ExitStack() as fetching:
            fetching.callback(fetched.spool.close)
            target = everything / file.name.removeprefix(f"{backup.path}/")
            if everything not in Path(os.path.normpath(target)).parents:  # an object may be called `..`
                raise SnaptoolError(
                    f"{backup.url}: {file.name} is not the name of a file", hint="copy it, and name the copy"
                )
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with target.open("wb") as out:
                for block in fetched.spool.blocks():
                    out.write(block)
        versions.append(fetched.seen.version or f"sha256:{fetched.sums.sha256}")
    return Staged(path=everything, original=backup.path, version=version_of(versions), sums=lambda: (None, ()))


def _base(url: str) -> str:
    base = url.partition("?")[0].rpartition("/")[2][-_LONGEST_NAME:]
    return "snapshot" if base in {"", ".", ".."} else base


def _remote_sum(name: str, room: Path) -> list[str]:
    try:
        if entry_at(name).size > _LARGEST_SUM:
            return []
        fetched = fetch(place_of(name), room)
    except SnaptoolError:
        return []
    content = b"".join(fetched.spool.blocks())[:_LARGEST_SUM]
    fetched.spool.close()
    return _words(content)


def _summed(backup: Backup) -> Sums:
    """Return the SHA-256 of a backup that is one file, and whether files beside it say the same."""
    name = backup.files[0].name
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with _opened(name) as file:
        left = os.fstat(file.fileno()).st_size  # and not what is written behind it meanwhile, which has no end
        while block := file.read(min(_BLOCK, left)):
            sha256.update(block)
            md5.update(block)
            left -= len(block)
    found = {".sha256": sha256.hexdigest(), ".md5": md5.hexdigest()}
    words = {end: _local_sum(name + end) for end in SUMS}
    stated = tuple(found[end] in words[end] for end in SUMS if words[end])
    return sha256.hexdigest() if len(backup.files) == 1 else None, stated


def _local_sum(name: str) -> list[str]:
    try:
        with _opened(name) as file:
            return _words(file.read(_LARGEST_SUM))
    except OSError:
        return []


def _words(content: bytes) -> list[str]:
    """Return the words of a file of checksums; before a name with odd characters there is a backslash."""
    return [word.removeprefix("\\") for word in content.decode(errors="replace").lower().split()]


def _opened(name: str) -> BinaryIO:
    """Open a regular file; what took its place since it was listed, as a pipe, would let us wait for ever."""
    file = os.fdopen(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file any more")
    return file
