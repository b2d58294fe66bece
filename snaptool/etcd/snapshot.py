"""An etcd v3 snapshot: a bolt database, and behind it the SHA-256 of all its bytes.

A bare `member/snap/db` is the same without the digest. Which it is shows in the size: pages are multiples of 512
bytes, the digest has 32. The server makes ten buckets; `key` holds the history of all user keys in order of revision,
`meta` how far the store is compacted and applied, the others leases, members, alarms and authentication. Nothing but
`key` is looked at unless it is asked for, and what is not asked for cannot fail.

The store's revision is that of the last record, raised by the compaction marks in `meta`: a compaction may have
deleted the record that held it. Source: etcd server/storage/mvcc/kvstore.go, server/storage/schema (v3.7.1);
docs/formats/etcd.md. Must not know: Kubernetes, encryption, paths.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from mmap import mmap
from typing import TYPE_CHECKING

from snaptool.bolt import Bucket, Chunk, Database, Walk
from snaptool.errors import FormatError
from snaptool.etcd import castagnoli
from snaptool.etcd.compaction import FINISHED, SCHEDULED
from snaptool.etcd.comparing import HistoryHash, checksum
from snaptool.etcd.generations import (
    CURRENT_SERVERS,
    HashKV,
    RevisionCompacted,
    RevisionInFuture,
    ServerGeneration,
    Status,
)
from snaptool.etcd.problems import Report, refuse
from snaptool.etcd.reading import TOMBSTONE, LiveIndex, RecordReader, Records, rows_among
from snaptool.etcd.records import (
    AlarmMember,
    BadRecord,
    BadRevision,
    Lease,
    Member,
    Revision,
    decode_alarm,
    decode_counter,
    decode_lease,
    decode_member,
    decode_revision_key,
    decode_text,
)
from snaptool.text import counted

if TYPE_CHECKING:
    from snaptool.etcd.leaves import Leaves

BUCKETS = (
    b"alarm",
    b"auth",
    b"authRoles",
    b"authUsers",
    b"cluster",
    b"key",
    b"lease",
    b"members",
    b"members_removed",
    b"meta",
)
"""What every server creates at boot, in order. Source: etcd server/storage/schema/bucket.go (v3.7.1)."""

DIGEST_SIZE = 32
_BLOCK_SIZE = 512


class Trailer(StrEnum):
    """What stands behind the database. `CUT`: bytes that are no trailer, for instance a part of one, or a text."""

    OK = "ok"
    MISSING = "missing"
    WRONG = "wrong"
    CUT = "cut"

    @property
    def is_bad(self) -> bool:
        """Does it say that the file is not as it was made?"""
        return self in (Trailer.WRONG, Trailer.CUT)


def database_size(size: int) -> int:
    """Return how much of a file of `size` bytes is the database: it grows by pages, at least a block of a disk each."""
    return size - size % _BLOCK_SIZE


def split_trailer(buffer: bytes | mmap | memoryview) -> tuple[memoryview, bytes]:
    """Split a file into database and what stands behind its last page: nothing, a trailer, or something cut."""
    view = memoryview(buffer)
    end = database_size(len(view))
    return view[:end], bytes(view[end:])


def judge_trailer(behind: bytes, digest: bytes) -> Trailer:
    """Judge what stands behind the last page by the SHA-256 of all that stands before. The one rule about it."""
    if len(behind) != DIGEST_SIZE:
        return Trailer.CUT if behind else Trailer.MISSING
    return Trailer.OK if behind == digest else Trailer.WRONG


def describe_bad_trailer(behind: bytes, digest: bytes) -> str:
    """Say what is wrong with one that `is_bad`, and what that says about the database before it."""
    if len(behind) == DIGEST_SIZE:
        return "the SHA-256 at the end is not that of the bytes before it: the file was cut or altered"
    if digest.startswith(behind):
        missing = DIGEST_SIZE - len(behind)
        lacking = counted(missing, "byte")
        return f"the SHA-256 at the end lacks its last {lacking}; the rest of it fits the bytes before it"
    if behind.startswith(digest):
        appended = counted(len(behind) - DIGEST_SIZE, "byte was", "bytes were")
        return f"{appended} appended behind the SHA-256, which is right"
    return (
        f"{len(behind)} bytes behind the last page are not a SHA-256 of the bytes before them: the file was cut, "
        "altered, or appended to"
    )


class RemarkCode(StrEnum):
    """What `Snapshot.remarks` and `Snapshot.dangling_leases` can find; records of bucket `key` have RecordFault."""

    MISSING_META = "missing_meta"
    BAD_RECORD = "bad_record"
    ALARM = "alarm"
    AUTH_ENABLED = "auth_enabled"
    DANGLING_LEASE = "dangling_lease"


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a snapshot that its user should know. `place` names bucket and record, `hint` the remedy."""

    code: RemarkCode
    place: str
    problem: str
    hint: str


@dataclass(frozen=True, slots=True)
class DanglingLease:
    """A live key whose lease does not exist. Servers start, log it, and keep the key for good."""

    key: bytes
    revision: Revision
    lease: int

    def remark(self) -> Remark:
        """Say it as a Remark."""
        return Remark(
            RemarkCode.DANGLING_LEASE,
            f"key {self.key.decode(errors='backslashreplace')}, revision {self.revision}",
            f"it names the lease {self.lease:x}, which does not exist",
            "the key will never expire; a client's next put without a lease settles it",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """Where one record of bucket `key` is. `number` counts from 0 in the bucket, `key` is the user key.

    `value_pos`, `value_len`: the whole KeyValue message, as offset in the file and size in bytes.
    """

    number: int
    key: bytes
    revision: Revision
    tombstone: bool
    lease: int
    value_pos: int
    value_len: int


class Snapshot:
    """A snapshot file in `buffer`, with or without the digest at its end.

    Raises NotABoltFile and the other FormatErrors of `Database` when the file cannot be read at all. Everything else is
    read when it is asked for, and raises CorruptPage, BadRevision or BadRecord then. `release` is called where a large
    file's memory can go.
    """

    def __init__(self, buffer: bytes | mmap | memoryview, release: Callable[[], None] | None = None) -> None:
        database_bytes, behind = split_trailer(buffer)
        self.database = Database(database_bytes, release)
        if partial := len(database_bytes) % self.database.page_size:
            # Pages may be larger than blocks: what is behind the last whole one is no page.
            end = len(database_bytes) - partial
            behind = bytes(memoryview(buffer)[end:])
            self.database = Database(database_bytes[:end], release)
        self._database_bytes = database_bytes[: self.database.size]
        self.view = self.database.view
        self.behind = behind
        """What stands behind the last page."""
        self._found: bytearray | None = None
        self._signposts: list[tuple[int, bytes]] = []  # of each chunk, the number and the key of its first record
        self._last: Revision | None = None
        self._scanned = False

    def check_trailer(self) -> Trailer:
        """Compare the digest with the bytes before it: one pass of SHA-256 over the file."""
        if not self.behind:
            return Trailer.MISSING
        return judge_trailer(self.behind, hashlib.sha256(self._database_bytes).digest())

    # --- buckets ---

    def bucket(self, name: bytes) -> Bucket | None:
        """Return a bucket, or None when the file lacks it."""
        return self.database.buckets().get(name)

    def items(self, name: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the records of a bucket in order; none when the file lacks it."""
        bucket = self.bucket(name)
        return iter(()) if bucket is None else bucket.items()

    @property
    def record_count(self) -> int:
        """Number of records in bucket `key`. Raises CorruptPage where nobody has gone over them yet."""
        if self._found is not None:
            return len(self._found)
        bucket = self.bucket(b"key")
        return 0 if bucket is None else sum(leaves.records for leaves in bucket.leaves())

    def _get(self, bucket: bytes, key: bytes) -> bytes | None:
        found = self.bucket(bucket)
        return None if found is None else found.get(key)

    # --- facts ---

    @property
    def scheduled_compaction(self) -> int | None:
        """The revision at which a compaction began last, None before the first. Raises BadRecord."""
        return self._compaction(SCHEDULED)

    @property
    def finished_compaction(self) -> int | None:
        """The revision at which a compaction ended last, None before that. Raises BadRecord."""
        return self._compaction(FINISHED)

    def _compaction(self, name: bytes) -> int | None:
        stored = self._get(b"meta", name)
        if stored is None:
            return None
        try:
            return decode_revision_key(stored)[0].main
        except BadRevision as error:
            raise BadRecord("meta", name, f"it is not a revision: {error.problem}") from error

    @property
    def last_revision(self) -> Revision | None:
        """The revision of the last record, None when there is none."""
        if not self._scanned:
            bucket = self.bucket(b"key")
            last = None if bucket is None else bucket.last_key()
            self._last = None if last is None else decode_revision_key(last)[0]
        self._scanned = True
        return self._last

    @property
    def current_revision(self) -> int:
        """The revision that a current server boots with."""
        return self.revision_on(CURRENT_SERVERS)

    def revision_on(self, generation: ServerGeneration) -> int:
        """Return the revision that a server of that generation boots with."""
        last = self.last_revision
        marks = [1, last.main if last else 0, self.finished_compaction or 0]
        if generation.scheduled_raises_revision:
            marks.append(self.scheduled_compaction or 0)
        return max(marks)

    @property
    def compacted_revision(self) -> int:
        """The revision at which the store is compacted once a current server has booted, 0 when it never was."""
        return max(self._compacted_on(CURRENT_SERVERS), 0)

    def _compacted_on(self, generation: ServerGeneration) -> int:
        finished, scheduled = self.finished_compaction, self.scheduled_compaction
        compacted = -1 if finished is None else finished
        # A server finishes at boot what was scheduled.
        if scheduled is not None and compacted < scheduled <= self.revision_on(generation):
            return scheduled
        return compacted

    @property
    def consistent_index(self) -> int | None:
        """Raft index of the last change that is in the file. Raises BadRecord."""
        return self._counter(b"consistent_index")

    @property
    def term(self) -> int | None:
        """Raft term of that change, from 3.5 on. Raises BadRecord."""
        return self._counter(b"term")

    def _counter(self, name: bytes) -> int | None:
        stored = self._get(b"meta", name)
        return None if stored is None else decode_counter("meta", name, stored)

    @property
    def storage_version(self) -> str:
        """The version that the file says it has, from 3.6 on; else empty. Raises BadRecord."""
        return self._text(b"meta", b"storageVersion")

    @property
    def cluster_version(self) -> str:
        """The lowest version in the cluster, as its members had agreed; else empty. Raises BadRecord."""
        return self._text(b"cluster", b"clusterVersion")

    def _text(self, bucket: bytes, name: bytes) -> str:
        return decode_text(bucket.decode(), name, self._get(bucket, name) or b"")

    @property
    def version_hint(self) -> str:
        """What can be said about the writer's version of a file that does not say it itself."""
        if self.bucket(b"meta") is None:
            return "of unknown version"
        return self.storage_version or ("3.4 or older" if self._get(b"meta", b"term") is None else "3.5 or newer")

    @property
    def auth_enabled(self) -> bool:
        """Clients have to log in to etcd itself."""
        return self._get(b"auth", b"authEnabled") == b"\x01"

    def leases(self) -> dict[int, Lease]:
        """Return the leases by id. Raises BadRecord."""
        return {lease.id: lease for lease in (decode_lease(key, stored) for key, stored in self.items(b"lease"))}

    def alarms(self) -> tuple[AlarmMember, ...]:
        """Return the alarms that a cluster restored from the file starts with. Raises BadRecord."""
        return tuple(decode_alarm(key) for key, _ in self.items(b"alarm"))

    def members(self) -> tuple[Member, ...]:
        """Return the members of the cluster that the file is from. Raises BadRecord."""
        return tuple(decode_member(key, stored) for key, stored in self.items(b"members"))

    def remarks(self) -> Iterator[Remark]:
        """Yield what should be known about everything but bucket `key`."""
        if self.bucket(b"meta") is None:
            yield Remark(
                RemarkCode.MISSING_META,
                "bucket meta",
                "it is missing, and etcd 3.5 and newer do not restore a file without it",
                "`snaptool repair` writes a file with all buckets",
            )
        readers = (
            (b"meta", lambda: (self.scheduled_compaction, self.finished_compaction, self.consistent_index, self.term)),
            (b"meta", lambda: self.storage_version),
            (b"cluster", lambda: self.cluster_version),
            (b"lease", self.leases),
            (b"members", self.members),
            (b"alarm", self.alarms),
        )
        for bucket, read in readers:
            try:
                read()
            except FormatError as error:
                place = f"bucket {bucket.decode()}"
                yield Remark(RemarkCode.BAD_RECORD, place, str(error), "use another snapshot if there is one")
        yield from self._warnings()

    def _warnings(self) -> Iterator[Remark]:
        for key, _ in self.items(b"alarm"):
            try:
                alarm = decode_alarm(key)
            except BadRecord:
                continue  # reported above
            yield Remark(
                RemarkCode.ALARM,
                f"bucket alarm, member {alarm.member_id:x}",
                f"the alarm {alarm.name} travels with the snapshot; with NOSPACE the restored cluster is read-only",
                "after the restore: etcdctl alarm disarm",
            )
        if self.auth_enabled:
            yield Remark(
                RemarkCode.AUTH_ENABLED,
                "bucket auth",
                "authentication is on, and stays on in a restored cluster",
                "have the credentials of an etcd user ready; Kubernetes normally uses certificates alone",
            )

    # --- records ---

    def chunks(self, report: Report = refuse, walk: Walk | None = None) -> Iterator[Records]:
        """Yield all records of bucket `key` in order, some at a time: one object, filled again and again.

        Raises CorruptPage, and what `report` raises: BadRevision and BadRecord, by default. A pass that
        goes to the end also finds the live records, so that `live` then costs no further pass.
        """
        bucket = self.bucket(b"key")
        if bucket is None:
            self._scanned, self._found = True, bytearray()
            return
        leaves, reader = Chunk(), RecordReader(self.view)
        records = Records(self.view, leaves)
        index = LiveIndex(self.view) if self._found is None else None
        posts: list[tuple[int, bytes]] = []
        for _ in bucket.leaves(walk, leaves):
            reader.read(records, report)
            if index is not None:
                index.add(records, len(records))
            if len(records):
                posts.append((records.first_record, records.stored_key(0)))
            yield records
        self._signposts = posts
        last = reader.last_revision()
        self._last, self._scanned = None if last is None else Revision(*last), True
        if index is not None:
            self._found = index.live()

    def live(self, at: int | None = None) -> bytearray:
        """Return a byte for each record, by number: 1 for what a client gets for its key, now or at the revision `at`.

        Equal to etcd's set of records to keep when compacting at that revision. Raises as `chunks`.
        """
        if at is not None:
            return self._found_at(at)
        if self._found is None:
            for _ in self.chunks():
                pass
        assert self._found is not None
        return self._found

    def _found_at(self, at: int) -> bytearray:
        bucket, index, total = self.bucket(b"key"), LiveIndex(self.view), 0
        leaves, reader = Chunk(), RecordReader(self.view)
        records = Records(self.view, leaves)
        for _ in bucket.leaves(None, leaves) if bucket else ():
            reader.read(records, refuse)
            count = bisect_right(records.main, at, 0, len(records))
            if total == leaves.first_record:
                index.add(records, count)
                total += count
        found = index.live()
        return found + bytes(leaves.first_record + leaves.records - len(found))

    def history_of(self, keys: Collection[bytes]) -> dict[bytes, list[StoredRecord]]:
        """Collect all records of some user keys, oldest first: one pass. Keys without records are left out."""
        wanted = set(keys)
        found: dict[bytes, list[StoredRecord]] = {}
        for records in self.chunks() if wanted else ():
            for row in rows_among(records, wanted):
                found.setdefault(records.user_key(row), []).append(_stored(records, row))
        return found

    def record(self, number: int) -> StoredRecord:
        """Return one record of bucket `key` by its number. Raises IndexError when there are fewer, and as `chunks`."""
        if not 0 <= number < len(self.live()):
            raise IndexError(number)
        bucket = self.bucket(b"key")
        assert bucket is not None
        if not self._signposts:
            for _ in self.chunks():
                pass
        first, key = self._signposts[bisect_right(self._signposts, (number, b"\xff")) - 1]
        leaves, walk = Chunk(), self.database.new_walk()
        records = Records(self.view, leaves)
        bucket.begin(walk)
        walk.to_key(key)
        walk.fill(leaves)
        leaves.first_record = first
        RecordReader(self.view).read(records, refuse)
        return _stored(records, number - first)

    def stored_value(self, record: StoredRecord) -> bytes:
        """Return the KeyValue message of a record."""
        return bytes(self._database_bytes[record.value_pos : record.value_pos + record.value_len])

    def leased_records(self) -> Iterator[StoredRecord]:
        """Yield the live records that name a lease."""
        live = self.live()
        for records in self.chunks():
            for row, lease in enumerate(records.lease[: len(records)].tolist()):
                if lease and live[records.first_record + row]:
                    yield _stored(records, row)

    def dangling_leases(self) -> Iterator[DanglingLease]:
        """Yield the live keys whose lease does not exist. Older revisions of a key may name leases that are gone."""
        known = self.leases()
        for record in self.leased_records():
            if record.lease not in known:
                yield DanglingLease(record.key, record.revision, record.lease)

    # --- checksums ---

    def status_hash(self, known: Leaves | None = None) -> int:
        """Compute the hash of `snapshot status`. `known`: as in `hashkv`."""
        status = StatusHash(self)
        if known is not None:
            status.join(known)
        else:
            for leaves in status.leaves():
                status.add(leaves)
        return status.finish()

    def status(self) -> Status:
        """Compute what `etcdutl snapshot status` prints. Raises as `chunks`."""
        last = self.last_revision
        return Status(
            hash=self.status_hash(),
            revision=last.main if last else 0,
            total_key_records=sum(
                chunk.records for bucket in self.database.buckets().values() for chunk in bucket.leaves()
            ),
            total_key_live=self.live().count(1),
            total_size=self.database.high_water_mark * self.database.page_size,
            version=self.storage_version,
        )

    def hashkv(
        self,
        at: int = 0,
        generation: ServerGeneration = CURRENT_SERVERS,
        *,
        known: Leaves | None = None,
        live: bytearray | None = None,
    ) -> HashKV:
        """Compute HashKV as a freshly booted server would. `at`: a revision, 0 for the current one.

        It is computed from what is in the file: a running server may answer for the compacted revision itself with a
        number that it stored while compacting. `known`: the leaves of bucket `key`; `live`: the records that are live
        at that revision. Where they are known, they spare passes. Raises RevisionCompacted, RevisionInFuture, and as
        `chunks`.
        """
        current, compacted = self.revision_on(generation), self._compacted_on(generation)
        if at > current:
            raise RevisionInFuture(f"revision {at} is beyond the store's revision {current}")
        if at > 0 and (at < compacted or (at == compacted and not generation.serves_compacted_revision)):
            raise RevisionCompacted(f"revision {at} is gone: the store was compacted at {compacted}")
        at = at or current
        live = self.live(None if at == current else at) if live is None else live
        bucket, skips = self.bucket(b"key"), generation.keeps_tombstones
        history = HistoryHash(self.view, castagnoli.crc32c(), live, (at, compacted), skips_tombstones=skips)
        if known is not None and all(known.page[:1]):  # the leaf of an inline bucket has no page
            known.hash(history, self.database)
        else:
            for leaves in bucket.leaves() if bucket else ():
                history.add(leaves)
        return HashKV(history.value(), at, compacted)


def _stored(records: Records, row: int) -> StoredRecord:
    return StoredRecord(
        number=records.first_record + row,
        key=records.user_key(row),
        revision=records.revision(row),
        tombstone=bool(records.flags[row] & TOMBSTONE),
        lease=records.lease[row],
        value_pos=records.leaves.value_at[row],
        value_len=records.leaves.value_size[row],
    )


class StatusHash:
    """The hash of `snapshot status`, beside a pass over bucket `key`: CRC-32C over all buckets in order.

    `walk`: the one of that pass; it has all trees behind it in the end.
    """

    def __init__(self, snapshot: Snapshot, walk: Walk | None = None) -> None:
        self._crc32c = castagnoli.crc32c(), castagnoli.address()
        self._snapshot = snapshot
        self._walk = snapshot.database.new_walk() if walk is None else walk
        self._buckets = list(snapshot.database.walk_buckets(self._walk).items())
        self._crc = 0
        self._go_on()

    def _go_on(self) -> None:
        """Take the buckets up to the one named `key`, and its name."""
        while self._buckets:
            name, bucket = self._buckets.pop(0)
            self._crc = self._crc32c[0](name, self._crc)
            if name == b"key":
                return
            for leaves in bucket.leaves(self._walk):
                self.add(leaves)

    def leaves(self) -> Iterator[Chunk]:
        """Yield the leaves of bucket `key`, for those who have no pass of their own."""
        bucket = self._snapshot.bucket(b"key")
        return iter(()) if bucket is None else bucket.leaves(self._walk)

    def add(self, leaves: Chunk) -> None:
        """Take the next leaves."""
        self._crc = checksum(leaves, self._snapshot.view, self._crc32c, self._crc)

    def join(self, known: Leaves) -> None:
        """Take all leaves by CRC-32C and size."""
        self._crc = known.joined(self._crc)

    def finish(self) -> int:
        """Take the buckets behind `key`; return the hash."""
        self._go_on()
        return self._crc
