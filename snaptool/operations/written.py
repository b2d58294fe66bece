"""A file that was written and has no name yet: its checksums, its trailer, and the search for leftovers."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from snaptool.bolt import Chunk, Walk, first_pages
from snaptool.bolt.layout import BUCKET_FLAG, BUCKET_HEADER_SIZE, ELEMENT_SIZE, HEADER_SIZE, PageFlag
from snaptool.errors import VerificationFailed
from snaptool.etcd import Snapshot
from snaptool.etcd.comparing import are_tidy_branches, mark_leaves, mark_tidy, pages_and_keys
from snaptool.etcd.leaves import Leaves
from snaptool.files import Draft
from snaptool.operations.crypto import Outcome

_HASH_BLOCK = 2 << 20
_NO_RECORD = "a page of the written file has bytes that belong to no record"
_MANY = 8192  # leaves at a time, of which the first bytes alone are looked at


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
    path: Path, size: int, sha256: str, snapshot: Snapshot, leaves: Leaves, live: bytearray | None = None
) -> FileReport:
    """Report on a file. `leaves`: of its bucket `key`; `live`: which of its records are live, if that is known."""
    return FileReport(
        path=str(path),
        size=size,
        sha256=sha256,
        revision=snapshot.current_revision,
        hash=snapshot.status_hash(leaves),
        hashkv=snapshot.hashkv(known=leaves, live=live).hash,
    )


@contextmanager
def hashing(draft: Draft) -> Iterator[Callable[[], tuple[bytes, str]]]:
    """Hash a written database in a thread; the result is its digest, and in hex that of both together."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - heavy, and large files are hashed otherwise

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
    leaves: Leaves,
    live: bytearray | None = None,
) -> FileReport:
    """Put the digest that `hashing` gave behind the database, and report on the file."""
    database_digest, file_digest = digests
    draft.seek(draft.size)  # the metas were written last, at the start
    draft.write(database_digest)
    return file_report(draft.target, draft.size, file_digest, written, leaves, live)


def is_stale(outcome: Outcome, *, rewrapped: bool) -> bool:
    """Is a value that was re-encrypted under another key than the first one of the new configuration?"""
    # A body whose key is only rewrapped may be of a form that servers of today no longer write.
    return outcome.position[1:] > (0, 0) if rewrapped else outcome.stale


def require_nothing_else(written: Snapshot, compared: Leaves, *, in_line: bool = False) -> None:
    """Raise ReadBackFailed unless every byte of the file belongs to what was written, and so to what was compared.

    Nothing is searched for: any text can come about by chance. The first pages are those that were written; every other
    page is a leaf of a bucket, which holds records and zeros, or a branch, which holds the first keys of its children
    and zeros. `compared`: the leaves of bucket `key`; `in_line`: as they stand in the file, whatever leads to them.
    """
    database = written.database
    if database.size != database.high_water_mark * database.page_size:
        raise ReadBackFailed("the written file has free pages")
    first = first_pages(database.meta)
    if written.view[: len(first)] != first:
        raise ReadBackFailed("the metas and the freelist of the written file are not those that were written")
    if 0 in compared.tidy and all(compared.page[:1]):  # what lies in an inline bucket is the business of its holder
        raise ReadBackFailed(_NO_RECORD)
    walk, is_leaf = database.new_walk(), bytearray(database.high_water_mark)
    walk.begin(database.meta.root, BUCKET_FLAG)
    _mark_leaves(written, walk, is_leaf)
    for name, bucket in database.buckets().items():
        if not bucket.root:
            continue
        bucket.begin(walk)
        if name != b"key":
            _mark_leaves(written, walk, is_leaf)
        elif _branches(written, walk, is_leaf, compared, in_line=in_line) != compared.branches.digest():
            raise ReadBackFailed(
                "a branch of the written file leads to other leaves than were written, or by other keys"
            )
    if not walk.found_by_first_keys():
        raise ReadBackFailed("a branch of the written file has another key than the page that it leads to")
    for name, value in database.root_bucket().items():
        if not database.buckets()[name].root and not _is_packed(value[BUCKET_HEADER_SIZE:]):
            raise ReadBackFailed("a small bucket of the written file has bytes that belong to no record")
    first_page = len(first) // database.page_size
    if walk.reached_pages().count(1) != database.high_water_mark - first_page:
        raise ReadBackFailed("the written file has free pages")
    if not are_tidy_branches(written.view, first_page, database.page_size, memoryview(is_leaf)):
        raise ReadBackFailed("a branch of the written file has bytes that belong to no key")


def _mark_leaves(written: Snapshot, walk: Walk, is_leaf: bytearray) -> None:
    """Mark all pages of the leaves of the tree that a walk begins. Raises ReadBackFailed for one that is not tidy."""
    chunk = Chunk()
    while walk.fill(chunk):
        tidy = memoryview(bytearray(chunk.leaves))
        if mark_tidy(written.view, chunk, written.database.page_size, tidy) < chunk.leaves:
            raise ReadBackFailed(_NO_RECORD)
        mark_leaves(chunk, memoryview(is_leaf))


def _branches(written: Snapshot, walk: Walk, is_leaf: bytearray, compared: Leaves, *, in_line: bool) -> bytes:
    """Hash what the branches of a tree lead to, whose leaves were compared, and mark these."""
    chunk, digest = Chunk(_MANY), sha256()
    if in_line and len(compared) > 1:
        # They are known to stand one behind the other; nobody has to read them again.
        first, end = compared.page[0], compared.page[-1] + compared.span[-1]
        walk.set_known(first, end)
        is_leaf[first:end] = b"\1" * (end - first)
    while walk.skim(chunk):
        digest.update(pages_and_keys(written.view, chunk))
        mark_leaves(chunk, memoryview(is_leaf))
        written.database.let_go()
    return digest.digest()


def _is_packed(page: bytes) -> bool:
    """Is a leaf without a number its header, its elements, and the bytes that these name, one behind the other?"""
    found, count = int.from_bytes(page[8:10], "little"), int.from_bytes(page[10:12], "little")
    if found != PageFlag.LEAF:
        return False
    end = HEADER_SIZE + ELEMENT_SIZE * count
    for number in range(count):
        at = HEADER_SIZE + ELEMENT_SIZE * number
        _, position, key_size, value_size = struct.unpack_from("<IIII", page, at)
        if at + position != end:
            return False
        end += key_size + value_size
    return end == len(page)
