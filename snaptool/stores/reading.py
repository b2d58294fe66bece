"""From a store into a private file: one version of one object, resumed where a connection breaks off."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from snaptool import signals
from snaptool.containers.spool import Spool, folder_for
from snaptool.inputs import InputTooLarge, remember_object
from snaptool.sources import source_changed
from snaptool.stores.store import (
    BrokenOff,
    DownloadDiffers,
    NoSuchObject,
    Replaced,
    Seen,
    Store,
    StoreUnreachable,
    open_store,
)
from snaptool.stores.sums import Sums
from snaptool.text import quoted

_MOST_FAILURES = 5
"""In a row, without a byte between them."""
_PAUSE = 0.2  # seconds, doubled each time


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was read, which version of it, and its checksums."""

    spool: Spool
    seen: Seen
    sums: Sums


def read_small(path: Path, most: int, what: str) -> bytes:
    """Read a small object whole. Raises InputTooLarge before its first byte, and as `fetch`."""
    seen = open_store(path).look()
    if seen is not None and seen.size > most:
        raise InputTooLarge(
            f"{path} has more than {most >> 20} MiB, more than a {what} has", hint="check the URL", beginning=b""
        )
    fetched = fetch(path, folder_for(None))
    try:
        return Path(fetched.spool.readable_path).read_bytes()
    finally:
        fetched.spool.close()


def fetch(path: Path, folder: Path) -> Fetched:
    """Read what a remote path names into a file without a name in `folder`.

    Raises NoSuchObject, NoRoom before the first byte, SourceChanged where it is replaced meanwhile, StoreError.
    """
    store = open_store(path)
    seen = store.look()
    if seen is None:
        raise no_such_object(path)
    remember_object(path, seen.version)
    spool = Spool(folder, seen.size)
    try:
        sums = _fill(spool, store, seen, path)
    except BaseException:
        spool.close()
        raise
    return Fetched(spool, seen, sums)


def no_such_object(path: Path) -> NoSuchObject:
    """Make the error for a URL that names nothing."""
    hint = "check the spelling of the URL"
    if re.search(r"[*?\[]", path.name) is not None:
        hint = f"patterns are for `snaptool audit`: `snaptool audit --list {quoted(str(path))}` shows what there is"
    return NoSuchObject(f"{path}: nothing is there under this name", hint=hint, place=str(path))


def read_part(path: Path, seen: Seen, start: int, end: int) -> bytes:
    """Read bytes `start` to `end` of one version, all of them. Raises SourceChanged, StoreUnreachable, StoreError."""
    end = min(end, seen.size)
    found = bytearray()
    failures = 0
    while start + len(found) < end:
        before = len(found)
        try:
            for data in open_store(path).read(replace(seen, size=end, whole=seen.size), start + before):
                found += data
                if start + len(found) >= end:
                    break  # a store may send more than was asked for
        except BrokenOff as error:
            failures = 0 if len(found) > before else failures + 1
            if failures == _MOST_FAILURES:
                raise _nothing_comes(path, len(found), end - start, str(error)) from error
            signals.sleep(_PAUSE * 2**failures if failures else 0)
        except Replaced as error:
            raise source_changed(path, ": another version is there now") from error
        else:
            if len(found) == before:
                raise source_changed(path, f": it has fewer than {end:,} bytes now")
    return bytes(found[: end - start])


def _nothing_comes(path: Path, done: int, of: int, why: str) -> StoreUnreachable:
    return StoreUnreachable(
        f"{path}: after {done:,} of {of:,} bytes nothing more comes: {why}",
        hint="check the network, then run the command again",
        place=str(path),
    )


def _fill(spool: Spool, store: Store, seen: Seen, path: Path) -> Sums:
    sums = Sums()
    for data in _blocks(store, seen, path):
        spool.write(data)
        sums.add(data)
    if sums.fits(seen.checksum) is False:
        raise DownloadDiffers(str(path))
    return sums


def read_back(path: Path, sums: Sums) -> bool:
    """Is what is there now, all of it, what these are the sums of? Raises SourceChanged, StoreError, InputError."""
    store = open_store(path)
    seen = store.look()
    if seen is None or seen.size != sums.size:
        return False
    return Sums(_blocks(store, seen, path)).sha256 == sums.sha256


def _blocks(store: Store, seen: Seen, path: Path) -> Iterator[bytes]:
    """Yield one version from its start to its end, going on where a connection broke off."""
    done = failures = 0
    while done < seen.size:
        before, why = done, "the connection ended"
        try:
            for data in store.read(seen, before):
                signals.look()
                if done + len(data) > seen.size:
                    raise source_changed(path, f": it has more than {seen.size:,} bytes now")
                done += len(data)
                yield data
        except BrokenOff as error:
            why = str(error)
        except Replaced as error:
            raise source_changed(path, ": another version is there now") from error
        failures = 0 if done > before else failures + 1
        if failures == _MOST_FAILURES:
            raise _nothing_comes(path, done, seen.size, why)
        if done < seen.size:
            signals.sleep(_PAUSE * 2**failures if failures else 0)
