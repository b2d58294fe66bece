"""A plain model of etcd's store: what a server makes of a history, in dicts and lists, one key at a time.

`Store` is the writing side: puts, deletes, transactions and compactions give the records that a server would have.
`boot` is the reading side: it builds the index from records alone, by the rules of docs/formats/etcd.md, "What the
store is at a revision" and "Compaction". What the project computes on arrays has to agree with this. Checksums come
from an own table of CRC-32C, bit by bit.
"""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from snaptool.bolt import Chunk, DatabaseWriter
from snaptool.etcd import (
    BUCKETS,
    Edits,
    KeyValue,
    Revision,
    ServerGeneration,
    Snapshot,
    decode_key_value,
    decode_revision_key,
    encode_key_value,
    encode_revision_key,
)
from snaptool.etcd.leaves import Leaves
from tests.support.bolt import make_database, with_trailer

Record = tuple[bytes, bytes]


def make_snapshot(
    records: Sequence[Record] = (),
    buckets: Mapping[bytes, Mapping[bytes, bytes]] | None = None,
    *,
    finished: int | None = None,
    scheduled: int | None = None,
    page_size: int = 4096,
) -> bytes:
    """A whole snapshot file: ten buckets, the given records, compaction marks, a trailer."""
    everything: dict[bytes, dict[bytes, bytes]] = {name: {} for name in BUCKETS}
    everything[b"meta"] = {b"consistent_index": (7).to_bytes(8, "big")}
    for name, content in (buckets or {}).items():
        everything[name] = dict(content)
    if finished is not None:
        everything[b"meta"][b"finishedCompactRev"] = encode_revision_key(Revision(finished, 0))
    if scheduled is not None:
        everything[b"meta"][b"scheduledCompactRev"] = encode_revision_key(Revision(scheduled, 0))
    everything[b"key"] = dict(records)
    assert len(everything[b"key"]) == len(records), "a test must not lose a record to an equal key"
    return with_trailer(make_database(everything, page_size=page_size))


def rewritten(snapshot: Snapshot, edits: Edits) -> bytes:
    """The snapshot with edits applied, rewritten record by record."""
    sink = io.BytesIO()
    writer = DatabaseWriter(sink, page_size=snapshot.database.page_size, txid=snapshot.database.meta.txid)
    for name in sorted({*BUCKETS, *snapshot.database.buckets()}):
        with writer.bucket(name) as bucket:
            for key, value in edits.apply(name, snapshot.items(name)):
                bucket.put(key, value)
    writer.finish()
    return with_trailer(sink.getvalue())


# --- the index ------------------------------------------------------------------------------------------------------


@dataclass
class Generation:
    """Puts of a key from its creation on, and the tombstone that ended it, if any."""

    created: int
    version: int
    revisions: list[Revision] = field(default_factory=list)
    closed: bool = False


@dataclass
class KeyIndex:
    generations: list[Generation] = field(default_factory=list)

    def put(self, revision: Revision) -> None:
        if not self.generations or self.generations[-1].closed:
            self.generations.append(Generation(revision.main, 0))
        self.generations[-1].version += 1
        self.generations[-1].revisions.append(revision)

    def restore(self, revision: Revision, created: int, version: int) -> None:
        self.generations = [Generation(created, version, [revision])]

    def delete(self, revision: Revision) -> None:
        last = self.generations[-1]
        if not last.closed:
            last.revisions.append(revision)
            last.closed = True

    def get(self, at: int) -> Revision | None:
        """The record that answers a read at the revision `at`."""
        for generation in reversed(self.generations):
            if generation.revisions[0].main > at:
                continue
            if generation.closed and generation.revisions[-1].main <= at:
                return None
            return max(revision for revision in generation.revisions if revision.main <= at)
        return None

    def next_put(self, main: int) -> tuple[int, int]:
        """create_revision and version of a put at the revision `main`."""
        if not self.generations or self.generations[-1].closed:
            return main, 1
        return self.generations[-1].created, self.generations[-1].version + 1

    def pick(self, at: int, *, new_rule: bool) -> tuple[Revision | None, bool]:
        """The record that a compaction at `at` looks at, and whether it is the tombstone of its generation."""
        generations = [*self.generations]
        if not generations or generations[-1].closed:
            generations.append(Generation(0, 0))
        index = 0
        while index < len(generations) - 1:
            end = generations[index].revisions[-1].main
            if end >= at if new_rule else end > at:
                break
            index += 1
        chosen = generations[index]
        known = [revision for revision in chosen.revisions if revision.main <= at]
        if not known:
            return None, False
        return known[-1], chosen.closed and known[-1] == chosen.revisions[-1]


@dataclass
class Booted:
    """What a server of one generation knows after boot."""

    index: dict[bytes, KeyIndex]
    revision: int
    compacted: int
    keys: dict[Revision, bytes]

    def keep_set(self, at: int, *, new_rule: bool) -> set[Revision]:
        picks = (key_index.pick(at, new_rule=new_rule) for key_index in self.index.values())
        return {revision for revision, is_tombstone in picks if revision is not None and not is_tombstone}

    def available(self, at: int, *, new_rule: bool) -> set[Revision]:
        picks = (key_index.pick(at, new_rule=new_rule) for key_index in self.index.values())
        return {revision for revision, is_tombstone in picks if revision is not None and (new_rule or not is_tombstone)}

    def get(self, key: bytes, at: int) -> Revision | None:
        return self.index[key].get(at) if key in self.index else None

    def next_put(self, key: bytes) -> tuple[int, int]:
        return self.index.get(key, KeyIndex()).next_put(self.revision + 1)


def boot(
    records: Sequence[Record], generation: ServerGeneration, finished: int | None = None, scheduled: int | None = None
) -> Booted:
    """Build the index as a server does, from the records and the compaction marks."""
    index: dict[bytes, KeyIndex] = {}
    keys: dict[Revision, bytes] = {}
    last = 1
    for stored_key, stored_value in records:
        revision, tombstone = decode_revision_key(stored_key)
        if revision.main == 0:
            continue
        key_value = decode_key_value(stored_value)
        key = key_value.key
        keys[revision] = key
        last = revision.main
        if key not in index:
            if tombstone:
                if generation.keeps_tombstones:
                    index[key] = KeyIndex([Generation(revision.main, 1, [revision], closed=True)])
                continue
            index[key] = KeyIndex()
            index[key].restore(revision, key_value.create_revision, key_value.version)
        elif tombstone:
            index[key].delete(revision)
        else:
            index[key].put(revision)
    current = max(last, finished or 0)
    if generation.scheduled_raises_revision:
        current = max(current, scheduled or 0)
    compacted = -1 if finished is None else finished
    if scheduled is not None and compacted < scheduled <= current:
        compacted = scheduled
    return Booted(index, current, compacted, keys)


# --- a server that is written to ------------------------------------------------------------------------------------


class Store:
    """A store as clients change it. `records` are what a snapshot of it holds, in order."""

    def __init__(self) -> None:
        self.revision = 1
        self.index: dict[bytes, KeyIndex] = {}
        self.stored: dict[bytes, bytes] = {}
        self.keys: dict[Revision, bytes] = {}
        self.finished: int | None = None
        self.scheduled: int | None = None

    @property
    def records(self) -> list[Record]:
        return sorted(self.stored.items())

    def snapshot(self, buckets: Mapping[bytes, Mapping[bytes, bytes]] | None = None, page_size: int = 4096) -> bytes:
        return make_snapshot(
            self.records, buckets, finished=self.finished, scheduled=self.scheduled, page_size=page_size
        )

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        self.txn([(key, value, lease)])

    def delete(self, *keys: bytes) -> None:
        self.txn([(key, None, 0) for key in keys])

    def txn(self, changes: Sequence[tuple[bytes, bytes | None, int]]) -> None:
        """One transaction: puts, and deletes (value None) of keys that are there. The keys differ."""
        done = 0
        for key, value, lease in changes:
            revision = Revision(self.revision + 1, done)
            key_index = self.index.setdefault(key, KeyIndex())
            created, version = key_index.next_put(revision.main)
            if value is None:
                if key_index.get(self.revision) is None:
                    continue
                key_index.delete(revision)
                self.stored[encode_revision_key(revision, tombstone=True)] = encode_key_value(KeyValue(key=key))
            else:
                key_index.put(revision)
                self.stored[encode_revision_key(revision)] = encode_key_value(
                    KeyValue(
                        key=key,
                        create_revision=created,
                        mod_revision=revision.main,
                        version=version,
                        value=value,
                        lease=lease,
                    )
                )
            self.keys[revision] = key
            done += 1
        self.revision += bool(done)

    def compact(self, at: int, *, new_rule: bool, finish: bool = True) -> None:
        """Compact at `at`; without `finish` as a server that was killed before it deleted anything."""
        self.scheduled = at
        if not finish:
            return
        kept = Booted(self.index, self.revision, at, self.keys).available(at, new_rule=new_rule)
        for stored_key in list(self.stored):
            revision, _ = decode_revision_key(stored_key)
            if revision.main <= at and revision not in kept:
                del self.stored[stored_key]
        self.finished = at
        self.index = boot(
            self.records,
            ServerGeneration(serves_compacted_revision=True, scheduled_raises_revision=True, keeps_tombstones=new_rule),
            self.finished,
            self.scheduled,
        ).index


def random_store(seed: int, operations: int = 40, keys: int = 5, *, new_rule: bool = True) -> Store:
    """A store after random puts, deletes, transactions and compactions."""
    rng = random.Random(seed)
    store = Store()
    names = [b"/k/%d" % number for number in range(keys)]
    for step in range(operations):
        chance = rng.random()
        if chance < 0.55:
            store.put(rng.choice(names), b"value %d" % step, rng.choice((0, 0, 0, 0x4C56A20BFAC57658)))
        elif chance < 0.75:
            store.delete(*rng.sample(names, rng.randint(1, 2)))
        elif chance < 0.95:
            chosen = rng.sample(names, rng.randint(1, keys))
            store.txn([(name, rng.choice((None, b"txn %d" % step)), 0) for name in chosen])
        elif store.revision > max(store.finished or 1, store.scheduled or 1):
            at = rng.randint(max(store.finished or 1, store.scheduled or 1) + 1, store.revision)
            store.compact(at, new_rule=new_rule, finish=rng.random() < 0.8)
    return store


# --- checksums ------------------------------------------------------------------------------------------------------


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE = [_crc_of_byte(byte) for byte in range(256)]


def plain_crc32c(content: bytes, crc: int = 0) -> int:
    """CRC-32C as its definition has it: reflected, polynomial 0x82F63B78."""
    crc ^= 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _CRC_TABLE[crc & 0xFF ^ byte]
    return crc ^ 0xFFFFFFFF


def model_hashkv(records: Sequence[Record], booted: Booted, at: int, generation: ServerGeneration) -> int:
    """HashKV by the rules, record by record."""
    keep = booted.keep_set(at, new_rule=generation.keeps_tombstones)
    crc = plain_crc32c(b"key")
    for stored_key, stored_value in records:
        revision, tombstone = decode_revision_key(stored_key)
        if revision.main > at:
            continue
        if revision.main <= booted.compacted and keep and revision not in keep:
            continue
        if generation.keeps_tombstones and revision.main == booted.compacted and tombstone:
            continue
        crc = plain_crc32c(stored_value, plain_crc32c(stored_key, crc))
    return crc


def leaves_of(snapshot: Snapshot) -> Leaves:
    """What is known of the leaves of bucket `key`, found a record at a time."""
    known, bucket = Leaves(), snapshot.bucket(b"key")
    for leaves in bucket.leaves(None, Chunk(1)) if bucket else ():
        for leaf in range(leaves.leaves):
            rows = range(leaves.leaf_start[leaf], leaves.leaf_start[leaf + 1])
            records = [(leaves.key(snapshot.view, row), leaves.value(snapshot.view, row)) for row in rows]
            content = b"".join(key + value for key, value in records)
            known.page.append(leaves.leaf_page[leaf])
            known.span.append(leaves.leaf_span[leaf])
            known.records.append(len(records))
            known.main.append(int.from_bytes(records[0][0][:8], "big") if records else -1)
            known.crc.append(plain_crc32c(content))
            known.size.append(len(content))
            known.tidy.append(1)
            known.key_sizes += bytes(len(key) for key, _ in records)
            known.sizes.extend(len(key + value) for key, value in records)
            known.branches.update(known.page[-1].to_bytes(8, "little") + (records[0][0] if records else b""))
    return known
