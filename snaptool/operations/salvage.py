"""Saving what can be trusted of a broken snapshot, and showing what lies in the free pages of any.

`salvage` collects (`snaptool.etcd.salvage`), writes a clean store with the ten buckets that every server makes, reads
it back, and publishes it; the source may be any file, broken in any way. What was taken, what was left and what is not
proven are in the report: a salvaged store is for a cluster that has nothing better.

`carve` only looks: it lists what nothing leads to any more, which is why an old value may still be in a snapshot
though its key was deleted or encrypted since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from snaptool.bolt import DatabaseWriter, check
from snaptool.containers.unwrap import DEFAULT, Unpacking
from snaptool.containers.wrap import choose_wrapping
from snaptool.errors import FormatError
from snaptool.etcd import BUCKETS, Revision, Snapshot, describe_bad_trailer
from snaptool.etcd.salvage import Origin, Records, Salvage
from snaptool.etcd.salvage import salvage as collect
from snaptool.files import Draft
from snaptool.operations.labels import LONGEST_HEADER, Header, header_of
from snaptool.operations.opening import copied_unproven, open_source
from snaptool.operations.sweep import Progress, no_progress
from snaptool.operations.wrapping import TargetDraft
from snaptool.operations.written import FileReport, ReadBackFailed
from snaptool.sources import Source
from snaptool.stores.publish import check_target

_HASH_BLOCK = 4 << 20


class NothingSalvaged(FormatError):
    """The file is broken, and not one record of it is left."""


@dataclass(frozen=True, slots=True)
class CarvedRecord:
    """A record that nothing leads to. `size`: bytes of the value; `page`: where it lies."""

    key: bytes
    revision: Revision
    deleted: bool
    size: int
    header: Header
    page: int
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class SalvageReport:
    """What was saved. `intact`: the tree of the source has no fault, so that nothing is missing.

    Of the `records` written, `carved` come from pages that nothing leads to; `uncertain` of them are older than the
    compaction, so that their keys may have been deleted later. `stale` records were left out, and so were `doubtful`
    ones: several of one revision that differ. `missing`: what was not found or is not proven, a sentence each.
    `pages_read` counts pages of `page_size` bytes; `carved_pages` of them were old leaves.
    """

    source: Path
    target: FileReport
    intact: bool
    records: int
    carved: int
    uncertain: int
    stale: int
    doubtful: tuple[CarvedRecord, ...]
    missing: tuple[str, ...]
    page_size: int
    pages_read: int
    carved_pages: int
    dangling_leases: int
    notices: tuple[str, ...] = ()


def salvage(
    path: Path,
    target: Path,
    *,
    unpacking: Unpacking = DEFAULT,
    container: str = "auto",
    force: bool = False,
    progress: Progress = no_progress,
) -> SalvageReport:
    """Write to `target` what can be trusted of the snapshot, db file or data directory at `path`.

    What is around a snapshot is unpacked as far as it goes.

    Raises InputError for a source or a target that cannot be, NothingToCarve and NothingSalvaged when nothing is left,
    OutputError when the disk fails, ReadBackFailed when the written file is not as it should be.
    """
    with _source(path, unpacking) as (source, notices):
        check_target(target, force=force, source=source)
        wrapping = choose_wrapping(target, container, None)
        progress("salvaging", 0, 1)
        found = collect(source.buffer)
        if not found.intact and not len(found.kept):
            raise NothingSalvaged(
                f"{source.path}: no record of a history is left", hint="take another copy of the snapshot"
            )
        unproven = _unproven(source) if found.intact else ()
        with TargetDraft(target, force=force, wrapping=wrapping) as draft:
            progress("writing", 0, 1)
            expected = _write(found, draft)
            written, dangling = _read_back(draft, expected)
            source.check_unchanged()
            progress("publishing", 0, 1)
            draft.publish()
            written = replace(written, packed=draft.packed)
        return SalvageReport(
            source=source.path,
            target=written,
            intact=found.intact,
            records=len(found.kept),
            carved=found.count(Origin.CARVED) + found.count(Origin.UNCERTAIN),
            uncertain=found.count(Origin.UNCERTAIN),
            stale=len(found.stale),
            doubtful=tuple(_carved(found.contradicted)),
            missing=found.missing,
            page_size=found.page_size,
            pages_read=found.pages,
            carved_pages=found.carved_pages,
            dangling_leases=dangling,
            notices=notices + unproven,
        )


@contextmanager
def carve(path: Path, unpacking: Unpacking = DEFAULT) -> Iterator[Iterator[CarvedRecord]]:
    """Open a file of any state and give what lies in its free pages, by revision. Writes nothing.

    In a file whose tree is broken, records that `salvage` would take are among them. Raises InputError, NothingToCarve.
    """
    with _source(path, unpacking) as (source, _):
        found = collect(source.buffer)
        source.check_unchanged()
        yield _carved(found.left)


@contextmanager
def _source(path: Path, unpacking: Unpacking) -> Iterator[tuple[Source, tuple[str, ...]]]:
    found = open_source(path, replace(unpacking, broken=True))
    try:
        with found.source:
            yield found.source, found.notices
    finally:
        found.close()


def _unproven(source: Source) -> tuple[str, ...]:
    """Say that records may be others than were saved, where the SHA-256 says so and the tree does not."""
    snapshot = Snapshot(source.buffer)
    if not snapshot.check_trailer().is_bad:
        return ()
    digest = hashlib.sha256(memoryview(source.buffer)[: snapshot.database.size]).digest()
    return copied_unproven(describe_bad_trailer(snapshot.behind, digest))


def _carved(records: Records) -> Iterator[CarvedRecord]:
    for one in records:
        yield CarvedRecord(
            key=one.key,
            revision=one.revision,
            deleted=one.tombstone,
            size=len(one.value),
            header=header_of(bytes(one.value[:LONGEST_HEADER])),
            page=one.page,
            origin=one.origin,
        )


def _write(found: Salvage, draft: Draft) -> dict[bytes, str]:
    """Write the database and its trailer; return the digest of every bucket."""
    digests = {}
    writer = DatabaseWriter(draft, page_size=found.page_size, txid=2)
    for name in sorted({*found.buckets, *BUCKETS}):
        digest = _Digest()
        with writer.bucket(name) as bucket:
            pairs: Iterator[tuple[bytes, bytes]] = iter(sorted(found.buckets.get(name, {}).items()))
            if name == b"key":
                pairs = ((one.stored_key, bytes(one.stored)) for one in found.kept)
            for key, value in pairs:
                bucket.put(key, value)
                digest.add(key, value)
        digests[name] = digest.text()
    writer.finish()
    draft.sync()
    whole = hashlib.sha256()
    image = draft.read_back().buffer
    for start in range(0, len(image), _HASH_BLOCK):
        whole.update(image[start : start + _HASH_BLOCK])
    draft.seek(len(image))
    draft.write(whole.digest())
    draft.sync()
    return digests


def _read_back(draft: Draft, expected: dict[bytes, str]) -> tuple[FileReport, int]:
    image = draft.read_back().buffer
    snapshot = Snapshot(image)
    problem = next(check(image), None)
    if problem is not None:
        raise ReadBackFailed(f"page {problem.page} of the written file: {problem.problem}")
    found = {}
    for name, bucket in snapshot.database.buckets().items():
        digest = _Digest()
        for key, value in bucket.items():
            digest.add(key, value)
        found[name] = digest.text()
    if found != expected:
        raise ReadBackFailed("the written file does not hold what was salvaged")
    report = FileReport(
        path=str(draft.target),
        size=draft.size,
        sha256=hashlib.sha256(image).hexdigest(),
        revision=snapshot.current_revision,
        hash=snapshot.status().hash,
        hashkv=snapshot.hashkv().hash,
    )
    return report, sum(1 for _ in snapshot.dangling_leases())


class _Digest:
    """SHA-256 over records, with their sizes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, key: bytes, value: bytes) -> None:
        """Add one record."""
        self._hash.update(len(key).to_bytes(8, "big") + len(value).to_bytes(8, "big") + key + value)

    def text(self) -> str:
        """Return the digest so far."""
        return self._hash.hexdigest()
