"""Proof by booting: does a real etcd serve from a file what the direct reader says is in it, and does the file live?

The caller says what to expect as plain values, computed from the file without etcd; this module asks the server and
names every difference. Values are never shown, only their sizes and digests. `exercise` then makes the copy work:
writes, deletes, compacts and defragments. Those are the moments at which a tree that merely looks right breaks
(docs/formats/bolt.md, "Writing": a one-child branch passes every check and kills the server at a compaction).

Leases: a booted etcd ends a lease when its TTL is over, which deletes keys; the difference would be the server's doing
and not the file's. `kept_alive` renews them while a file is looked at just as it is; a store that is worked on for
longer should carry leases of `SAFE_TTL`.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snaptool.errors import ScratchError
from snaptool.scratch.served import ServedKey

if TYPE_CHECKING:
    from snaptool.scratch.client import EtcdClient

SAFE_TTL = 315_360_000
"""Ten years in seconds: longer than any run, and well inside etcd's limit of 9,000,000,000 (lease/lessor.go)."""

HEARTBEAT_MS, ELECTION_MS = 20, 100
"""Intervals of a scratch etcd: it votes for itself, and the defaults would let it wait for a second before it does."""

MIN_LEASE_TTL = -(-(3 * (ELECTION_MS // HEARTBEAT_MS) // 2) * HEARTBEAT_MS // 1000)
"""The shortest lease in seconds that such an etcd has: at start it raises shorter ones to it.

One and a half elections in whole heartbeats, rounded up to seconds. Source: etcd server/etcdserver/server.go (minTTL),
server/lease/lessor.go (initAndRecover). With the defaults it is 2 seconds.
"""

_LONG_TTL = 86_400
_PROBE = b"snaptool/boot-check"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is served otherwise than it was read. `place`: a key, a lease, or empty for the whole store."""

    what: str
    place: str
    expected: str
    served: str

    def __str__(self) -> str:
        where = f" of {self.place}" if self.place else ""
        return f"{self.what}{where} should be {self.expected}, etcd serves {self.served}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the direct reader computed for the store as a whole.

    `compact_revision` is -1 for a store that was never compacted. `leases`: TTL in seconds by id, as etcd
    serves them from the file that was booted (`served_ttl`).
    """

    revision: int
    hashkv: int
    compact_revision: int
    leases: Mapping[int, int]


def served_ttl(ttl: int) -> int:
    """Return the TTL in seconds that a scratch etcd serves for a lease that was recorded with `ttl`."""
    return max(ttl, MIN_LEASE_TTL)


def compare(client: EtcdClient, expected: Expected, keys: Iterable[ServedKey]) -> Iterator[Difference]:
    """Yield every difference between the served store and the expected one.

    `keys`: all live keys, ascending by key, as `ServedKey`s; the empty key left out, which no client can ask for.
    Both sides are streamed side by side. Raises ScratchError if the server cannot be asked, AuthEnabled included.
    """
    revision = client.status().revision
    if revision != expected.revision:
        yield Difference("revision", "", str(expected.revision), str(revision))
    served_hash = client.hashkv()
    if served_hash.compact_revision != expected.compact_revision:
        compacted = str(expected.compact_revision), str(served_hash.compact_revision)
        yield Difference("compacted revision", "", *compacted)
    if served_hash.hash != expected.hashkv:
        yield Difference("HashKV", "", str(expected.hashkv), str(served_hash.hash))
    yield from _compare_leases(client, expected.leases)
    yield from _compare_keys(keys, (key for page in client.pages(revision=revision) for key in page))
    now = client.status().revision
    if now != revision:
        yield Difference("revision", "the store at rest", str(revision), str(now))


def _compare_leases(client: EtcdClient, leases: Mapping[int, int]) -> Iterator[Difference]:
    served = client.leases()
    for lease in sorted(leases.keys() | set(served)):
        granted = client.lease_ttl(lease)[0] if lease in served else None
        if granted != leases.get(lease):
            place = f"lease {lease:x}"
            yield Difference("TTL", place, _or_absent(leases.get(lease)), _or_absent(granted))


def _compare_keys(expected: Iterable[ServedKey], served: Iterable[ServedKey]) -> Iterator[Difference]:
    ours, theirs = iter(expected), iter(served)
    left, right = next(ours, None), next(theirs, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.key < right.key):
            yield Difference("key", _name(left), "present", "nothing")
            left = next(ours, None)
        elif left is None or right.key < left.key:
            yield Difference("key", _name(right), "absent", f"revision {right.mod_revision}")
            right = next(theirs, None)
        else:
            if left != right:
                yield from _compare_fields(left, right)
            left, right = next(ours, None), next(theirs, None)


def _compare_fields(left: ServedKey, right: ServedKey) -> Iterator[Difference]:
    for field in ("create_revision", "mod_revision", "version", "lease"):
        if getattr(left, field) != getattr(right, field):
            name = field.replace("_", " ")
            yield Difference(name, _name(left), str(getattr(left, field)), str(getattr(right, field)))
    if left.value != right.value:
        yield Difference("value", _name(left), _digest(left.value), _digest(right.value))


def _name(key: ServedKey | None) -> str:
    return key.key.decode(errors="backslashreplace") if key is not None else ""


def _digest(value: bytes) -> str:
    return f"{len(value)} bytes with SHA-256 {hashlib.sha256(value).hexdigest()[:16]}"


def _or_absent(ttl: int | None) -> str:
    return "absent" if ttl is None else f"{ttl} {'second' if ttl == 1 else 'seconds'}"


@contextlib.contextmanager
def kept_alive(client: EtcdClient, leases: Mapping[int, int]) -> Iterator[None]:
    """Renew the leases (TTL in seconds by id) that would end soon, for as long as the block runs.

    The first renewal is done before the block begins. Raises ScratchError if a lease has ended or cannot be renewed.
    """
    short = {lease: ttl for lease, ttl in leases.items() if ttl < _LONG_TTL}
    if not short:
        yield
        return
    stop = threading.Event()
    failures: list[ScratchError] = []

    def renew() -> None:
        for lease in short:
            client.keep_alive(lease)

    def keep_renewing() -> None:
        try:
            while not stop.wait(min(short.values()) / 4):
                renew()
        except ScratchError as error:
            failures.append(error)

    renew()
    thread = threading.Thread(target=keep_renewing, name="snaptool-leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


def exercise(client: EtcdClient) -> None:
    """Write, read, delete, compact, defragment on the copy, and see that everything else is still served.

    Alarms that came with the file are taken back first, as they forbid writing. Raises ScratchError if any step fails
    or changes what it should not.
    """
    client.disarm()
    before = _keys(client)
    revision = client.status().revision
    written = client.put(_PROBE, b"written")
    found = client.get(_PROBE)
    if written != revision + 1 or found is None or found.value != b"written" or found.mod_revision != written:
        raise ScratchError(f"a write to the booted copy at revision {revision} did not become revision {revision + 1}")
    deleted = client.delete(_PROBE)
    client.compact(deleted)
    client.defragment()
    if client.get(_PROBE) is not None or client.status().revision != deleted:
        raise ScratchError("the booted copy is not as it should be after a delete, a compaction and a defragmentation")
    if _keys(client) != before:
        raise ScratchError("the booted copy serves other keys after a compaction and a defragmentation than before")


def _keys(client: EtcdClient) -> bytes:
    """A digest of all live keys with their revisions; the probe, which is deleted, never counts."""
    digest = hashlib.sha256()
    for page in client.pages(revision=0, keys_only=True):
        for key in page:
            digest.update(f"{len(key.key)} {key.mod_revision} {key.version} ".encode() + key.key)
    return digest.digest()
