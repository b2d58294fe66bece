"""A file that was written and has no name yet: its checksums, its trailer, and the search for leftovers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snaptool.bolt import Bucket, LeafChunk, first_pages
from snaptool.bolt.layout import BUCKET_HEADER_SIZE, ELEMENT_SIZE, HEADER_SIZE, PageFlag
from snaptool.errors import VerificationFailed
from snaptool.etcd import (
    LeafSums,
    Snapshot,
)
from snaptool.files import Draft
from snaptool.operations.crypto import (
    Outcome,
)

_HASH_BLOCK = 2 << 20


class ReadBackFailed(VerificationFailed):
    """What was written is not what should have been written. Nothing was published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """A snapshot file in a report. `hash` is that of `etcdutl snapshot status`, `hashkv` that of a current server.

    `packed`: the container that it was written in; the other facts are those of the snapshot itself.
    """

    path: str
    size: int
    sha256: str
    revision: int
    hash: int
    hashkv: int
    packed: Packed | None = None


@dataclass(frozen=True, slots=True)
class Packed:
    """A container that was written. `layers` from outside in; `size` in bytes and `sha256` of the whole file."""

    layers: tuple[str, ...]
    size: int
    sha256: str


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


def require_order(bucket: Bucket, leaves: LeafChunk) -> None:
    """Raise ReadBackFailed unless `leaves` hold nothing but records, and branches lead to them by their first keys."""
    if not leaves.are_clean():
        raise ReadBackFailed("a page of the written file has bytes that belong to no record")
    if not bucket.is_found_by_first_keys(leaves):
        raise ReadBackFailed("a branch of the written file has another key than the page that it leads to")


def require_nothing_else(written: Snapshot) -> None:
    """Raise ReadBackFailed unless every byte of the file belongs to what was written, and so to what was compared.

    Nothing is searched for: any text can come about by chance. The first pages are those that were written; every other
    page is a leaf of a bucket, which holds records and zeros, or a branch, which holds the keys that lead to its
    children and zeros. Leaves of bucket `key` are looked at with its records.
    """
    database = written.database
    if len(database.free_pages()) or database.size != database.high_water_mark * database.page_size:
        raise ReadBackFailed("the written file has free pages")
    first = first_pages(database.meta)
    if database.pages.bytes[: len(first)].tobytes() != first:
        raise ReadBackFailed("the metas and the freelist of the written file are not those that were written")
    buckets = database.buckets()
    branch = np.ones(database.high_water_mark, dtype=np.bool_)
    branch[: len(first) // database.page_size] = False
    for bucket in (database.root_bucket(), *(one for name, one in buckets.items() if name != b"key")):
        for leaves in bucket.chunks():
            require_order(bucket, leaves)
    for bucket in (database.root_bucket(), *buckets.values()):
        if bucket.root:
            branch[bucket.leaf_pages()] = False
    for name, value in database.root_bucket().items():
        if not buckets[name].root and not _is_packed(value[BUCKET_HEADER_SIZE:], PageFlag.LEAF, b""):
            raise ReadBackFailed("a small bucket of the written file has bytes that belong to no record")
    content, at = database.pages.bytes, -1
    for page in np.nonzero(branch)[0].tolist():
        if page <= at:
            continue
        start = page * database.page_size
        overflow = int.from_bytes(content[start + 12 : start + HEADER_SIZE].tobytes(), "little")
        at = page + overflow
        whole = content[start : (at + 1) * database.page_size]
        if not branch[page : at + 1].all() or not _is_packed(whole.tobytes(), PageFlag.BRANCH, None):
            raise ReadBackFailed("a branch of the written file has bytes that belong to no key")


def _is_packed(page: bytes, flag: int, rest: bytes | None) -> bool:
    """Is a page its header, its elements, and the bytes that these name, one behind the other?

    `rest`: what follows them; None stands for zeros.
    """
    found, count = int.from_bytes(page[8:10], "little"), int.from_bytes(page[10:12], "little")
    if found != flag:
        return False
    end = HEADER_SIZE + ELEMENT_SIZE * count
    for number in range(count):
        at = HEADER_SIZE + ELEMENT_SIZE * number
        words = [int.from_bytes(page[at + 4 * word : at + 4 * word + 4], "little") for word in range(4)]
        # Branch: position, key size, page. Leaf: flags, position, key size, value size.
        position, size = (words[0], words[1]) if flag == PageFlag.BRANCH else (words[1], words[2] + words[3])
        if at + position != end:
            return False
        end += size
    tail = page[end:]
    return not any(tail) if rest is None else tail == rest
