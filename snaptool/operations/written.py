"""A file that was written and has no name yet: its checksums, its trailer, and the search for leftovers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snaptool.errors import VerificationFailed
from snaptool.etcd import (
    LeafSums,
    Snapshot,
)
from snaptool.files import Draft, release_memory
from snaptool.operations.crypto import (
    Outcome,
)
from snaptool.operations.plan import COPY
from snaptool.operations.sweep import (
    Sweep,
)

_SEARCH_BLOCK = 4 << 20
_HASH_BLOCK = 2 << 20


class ReadBackFailed(VerificationFailed):
    """What was written is not what should have been written. Nothing was published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """A snapshot file in a report. `hash` is that of `etcdutl snapshot status`, `hashkv` that of a current server."""

    path: str
    size: int
    sha256: str
    revision: int
    hash: int
    hashkv: int


def file_report(
    path: Path, size: int, sha256: str, snapshot: Snapshot, sums: LeafSums, live: NDArray[np.bool_] | None = None
) -> FileReport:
    """Report on a file. `sums`: those of its bucket `key`; `live`: which of its records are live, if that is known."""
    return FileReport(
        path=str(path),
        size=size,
        sha256=sha256,
        revision=snapshot.current_revision,
        hash=snapshot.status_hash(sums),
        hashkv=snapshot.hashkv(sums=sums, live=live).hash,
    )


@contextmanager
def hashing(draft: Draft) -> Iterator[Callable[[], tuple[bytes, str]]]:
    """Hash a written database in a thread; the result is its digest, and in hex that of both together."""
    size = draft.size

    def run() -> tuple[bytes, str]:
        digest = hashlib.sha256()
        for start in range(0, size, _HASH_BLOCK):
            # Read, not mapped: what this thread mapped would count as memory, or have to be let go of.
            digest.update(draft.read(start, min(_HASH_BLOCK, size - start)))
        trailer = digest.digest()
        digest.update(trailer)
        return trailer, digest.hexdigest()

    with ThreadPoolExecutor(1, thread_name_prefix="snaptool-sha256") as executor:
        yield executor.submit(run).result


def append_trailer(
    draft: Draft,
    digests: tuple[bytes, str],
    written: Snapshot,
    sums: LeafSums,
    live: NDArray[np.bool_] | None = None,
) -> FileReport:
    """Put the digest that `hashing` gave behind the database, and report on the file."""
    database_digest, file_digest = digests
    draft.seek(draft.size)  # the metas were written last, at the start
    draft.write(database_digest)
    return file_report(draft.target, draft.size, file_digest, written, sums, live)


def is_stale(outcome: Outcome, *, rewrapped: bool) -> bool:
    """Is a value that was sealed anew under another key than the first one of the new configuration?"""
    # A body that is only wrapped anew may be of a form that servers of today no longer write.
    return outcome.position[1:] > (0, 0) if rewrapped else outcome.stale


def retired(source: Sweep, action: NDArray[np.uint8], swept: Sweep) -> list[bytes]:
    """Return the headers under which source values stood and no value of the new file does."""
    here = {swept.headers[number].text for number in np.unique(swept.header).tolist()}
    there = {source.headers[number].text for number in np.unique(source.header[action != COPY]).tolist()}
    return sorted(there - here - {b""})


def search_leftovers(buffer: mmap, written: Snapshot, headers: list[bytes]) -> None:
    """Search every byte of the new file for values under keys that it no longer has.

    The same text inside another value is that value's own business, and has been compared with the source.
    """
    found = np.array(sorted(at for header in headers for at in _occurrences(buffer, header)), dtype=np.int64)
    for chunk in written.records() if len(found) else ():
        starts, ends = chunk.value_pos, chunk.value_pos + chunk.value_len
        order = np.argsort(starts)
        owner = order[np.maximum(np.searchsorted(starts[order], found, side="right") - 1, 0)]
        found = found[(found <= starts[owner]) | (found >= ends[owner])]
    if len(found):
        page = int(found[0]) // written.database.page_size
        raise ReadBackFailed(f"page {page} of the written file holds a value under a key that it should not have")


def _occurrences(buffer: mmap, text: bytes) -> Iterator[int]:
    for start in range(0, len(buffer), _SEARCH_BLOCK):
        block = buffer[start : start + _SEARCH_BLOCK + len(text) - 1]
        release_memory(buffer)
        at = block.find(text)
        while at >= 0:
            yield start + at
            at = block.find(text, at + 1)
