"""The scratch etcd's client: the calls that snaptool makes, as typed values.

The only module that knows etcd3. Calls go through etcd3's stubs, not through its convenience methods: those lack
revisions, leases in transactions, HashKV and errors that say what the server said. Every failure is a ScratchError.
All reads are serializable: there is one member.

Must not know: processes, files, what a value means.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

from snaptool.errors import ScratchError
from snaptool.scratch.served import (
    AuthEnabled,
    CallFailed,
    Change,
    Drift,
    ServedHash,
    ServedKey,
    ServerStatus,
    Sink,
    WatchEvent,
)

# As in `providers.kms_grpc`: gRPC must not take part in forks.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
try:
    # cslab-etcd3 0.12.1, not etcd3 0.12.0: the same client with stubs that load on current protobuf. Those of 0.12.0
    # need the slow pure-Python runtime, which an environment variable chooses for the whole process.
    import etcd3
    import grpc
    from etcd3 import etcdrpc
except ImportError as missing:
    raise ScratchError(
        f"the etcd client is not installed ({missing})", hint="pip install 'cslab-etcd3>=0.12.1'"
    ) from missing

_CALL_SECONDS = 300.0
"""For one call; compaction and defragmentation of gigabytes are the slowest."""

_PAGE_BYTES = 8 << 20
_FIRST_PAGE, _LARGEST_PAGE = 200, 10_000  # keys; pages are sized by what the last one weighed
_EVERYTHING = b"\0"  # as key and as range_end: all keys (etcd rpc.proto, RangeRequest)


class EtcdClient:
    """A client of one etcd on a unix socket or a loopback address.

    `address`: a path to a socket, which must end in `:` and a number as etcd itself demands, or `host:port`.
    """

    def __init__(self, address: str) -> None:
        host, port = (f"unix:{address}" if "/" in address else address).rsplit(":", 1)
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_http_proxy", 0),  # never send a cluster's content to a proxy
            ("grpc.initial_reconnect_backoff_ms", 20),
            ("grpc.min_reconnect_backoff_ms", 20),
            ("grpc.max_reconnect_backoff_ms", 200),
        ]
        endpoint = etcd3.Endpoint(host, port, secure=False, opts=options)
        self._etcd = etcd3.MultiEndpointEtcd3Client(endpoints=[endpoint])

    def close(self) -> None:
        """Close the connection."""
        self._etcd.close()

    def has_leader(self) -> bool:
        """Does it answer, and has it a leader?"""
        try:
            call = self._etcd.maintenancestub.Status
            return bool(self._call("status", call, etcdrpc.StatusRequest(), seconds=2.0).leader)
        except CallFailed:
            return False

    def has_caught_up(self) -> bool:
        """Has it applied all that its log holds?

        An etcd that has just elected itself answers before it has applied the last writes of its log, and neither
        serializable reads nor snapshots wait for them. An entry of our own stands behind all others there: the end of a
        lease that nobody has, which changes nothing.
        """
        request = etcdrpc.LeaseRevokeRequest(ID=1 << 62 | secrets.randbits(62))
        try:
            self._call("lease revoke", self._etcd.leasestub.LeaseRevoke, request, seconds=2.0)
        except CallFailed as error:
            return error.status not in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
        except AuthEnabled:
            pass
        return True

    def can_read(self) -> bool:
        """Does it read, even if only to ask for a password?"""
        try:
            self.get(b"\0")
        except CallFailed:
            return False
        except AuthEnabled:
            return True
        return True

    def status(self) -> ServerStatus:
        """Version, current revision, size. Works without a password too."""
        answer = self._call("status", self._etcd.maintenancestub.Status, etcdrpc.StatusRequest())
        return ServerStatus(
            version=answer.version, revision=answer.header.revision, db_size=answer.dbSize, leader=answer.leader
        )

    def check_auth(self) -> None:
        """Raise AuthEnabled if keys can only be read with a user and a password."""
        self.get(b"\0")

    def get(self, key: bytes, *, revision: int = 0) -> ServedKey | None:
        """One key as it was at `revision` (0: now), or None if it was not alive then."""
        request = etcdrpc.RangeRequest(key=key, revision=revision, serializable=True)
        for kv in self._call("get", self._etcd.kvstub.Range, request).kvs:
            return _served(kv)
        return None

    def pages(self, *, revision: int, keys_only: bool = False) -> Iterator[list[ServedKey]]:
        """All live keys at `revision`, ascending, in pages of some megabytes."""
        start, limit = _EVERYTHING, _FIRST_PAGE
        while True:
            request = etcdrpc.RangeRequest(
                key=start,
                range_end=_EVERYTHING,
                revision=revision,
                limit=limit,
                keys_only=keys_only,
                serializable=True,
            )
            answer = self._call("get", self._etcd.kvstub.Range, request)
            page = [_served(kv) for kv in answer.kvs]
            if page:
                yield page
            if not answer.more:
                return
            start = page[-1].key + b"\0"
            weight = sum(len(kv.key) + len(kv.value) + 64 for kv in page) // len(page)
            limit = max(1, min(_LARGEST_PAGE, _PAGE_BYTES // weight))

    def put(self, key: bytes, value: bytes, *, lease: int = 0) -> int:
        """Write a key. Returns the new revision."""
        request = etcdrpc.PutRequest(key=key, value=value, lease=lease)
        return _revision(self._call("put", self._etcd.kvstub.Put, request))

    def delete(self, key: bytes, range_end: bytes = b"") -> int:
        """Delete a key, or all from `key` up to `range_end`. Returns the store's revision afterwards."""
        request = etcdrpc.DeleteRangeRequest(key=key, range_end=range_end)
        return _revision(self._call("delete", self._etcd.kvstub.DeleteRange, request))

    def write(self, operations: Sequence[tuple[bytes, bytes | None]]) -> int:
        """Put (or delete, where the value is None) several keys in one transaction. Returns the new revision."""
        changes = [Change(key, -1, value) for key, value in operations]
        request = etcdrpc.TxnRequest(success=[_operation(change) for change in changes])
        return _revision(self._call("txn", self._etcd.kvstub.Txn, request))

    def apply(self, changes: Sequence[Change]) -> int:
        """Apply all changes in one transaction, each only if its key is still at the revision it was read at.

        Returns the new revision. Raises Drift if any key is at another one: then nothing was written.
        """
        compare = [
            etcdrpc.Compare(
                key=change.key,
                target=etcdrpc.Compare.MOD,
                result=etcdrpc.Compare.EQUAL,
                mod_revision=change.mod_revision,
            )
            for change in changes
        ]
        request = etcdrpc.TxnRequest(compare=compare, success=[_operation(change) for change in changes])
        answer = self._call("txn", self._etcd.kvstub.Txn, request)
        if not answer.succeeded:
            raise Drift(
                f"a key is no longer at the revision it was read at: one of {len(changes)} from {changes[0].key!r} on",
                hint="something else changed the scratch store; nothing was published, so run the command again",
            )
        return _revision(answer)

    def compact(self, revision: int) -> None:
        """Forget all history before `revision`, and wait until it is gone."""
        request = etcdrpc.CompactionRequest(revision=revision, physical=True)
        self._call("compact", self._etcd.kvstub.Compact, request)

    def defragment(self) -> None:
        """Rewrite the database file without its free pages."""
        self._call("defragment", self._etcd.maintenancestub.Defragment, etcdrpc.DefragmentRequest())

    def hashkv(self, revision: int = 0) -> ServedHash:
        """HashKV up to `revision` (0: the current one)."""
        request = etcdrpc.HashKVRequest(revision=revision)
        answer = self._call("hashkv", self._etcd.maintenancestub.HashKV, request)
        return ServedHash(answer.hash, revision or answer.header.revision, answer.compact_revision)

    def save(self, sink: Sink) -> int:
        """Stream a snapshot into `sink`, its digest at the end, by which a reader knows that it is whole.

        Returns the number of bytes.
        """
        size = 0
        try:
            for part in self._etcd.maintenancestub.Snapshot(etcdrpc.SnapshotRequest()):
                sink.write(part.blob)
                size += len(part.blob)
        except grpc.RpcError as error:
            raise _translated("snapshot", error) from error
        return size

    def alarms(self) -> list[str]:
        """Names of the alarms that are raised: NOSPACE, CORRUPT."""
        return [etcdrpc.AlarmType.Name(alarm.alarm) for alarm in self._alarm(etcdrpc.AlarmRequest.GET, 0, 0)]

    def disarm(self) -> list[str]:
        """Take back every alarm, so that the store can be written. Returns what was raised."""
        raised = list(self._alarm(etcdrpc.AlarmRequest.GET, 0, 0))
        for alarm in raised:
            self._alarm(etcdrpc.AlarmRequest.DEACTIVATE, alarm.memberID, alarm.alarm)
        return [etcdrpc.AlarmType.Name(alarm.alarm) for alarm in raised]

    def raise_nospace_alarm(self) -> None:
        """Make the store read-only, as running out of quota does."""
        self._alarm(etcdrpc.AlarmRequest.ACTIVATE, 0, etcdrpc.NOSPACE)

    def _alarm(self, action: int, member: int, alarm: int) -> Iterable[Any]:
        request = etcdrpc.AlarmRequest(action=action, memberID=member, alarm=alarm)
        alarms: Iterable[Any] = self._call("alarm", self._etcd.maintenancestub.Alarm, request).alarms
        return alarms

    def grant_lease(self, seconds: int, lease: int = 0) -> int:
        """Grant a lease of that TTL, with that id (0: the server chooses). Returns the id."""
        request = etcdrpc.LeaseGrantRequest(TTL=seconds, ID=lease)
        return int(self._call("lease grant", self._etcd.leasestub.LeaseGrant, request).ID)

    def leases(self) -> list[int]:
        """Ids of all leases, ascending."""
        # etcd3's stubs are older than this call. Its answer has the shape of a member list: a header, then messages
        # whose field 1 is the id (etcd rpc.proto, LeaseLeasesResponse beside MemberListResponse).
        list_leases = self._etcd.channel.unary_unary(
            "/etcdserverpb.Lease/LeaseLeases",
            request_serializer=etcdrpc.MemberListRequest.SerializeToString,
            response_deserializer=etcdrpc.MemberListResponse.FromString,
        )
        answer = self._call("lease list", list_leases, etcdrpc.MemberListRequest())
        return sorted(lease.ID for lease in answer.members)

    def lease_ttl(self, lease: int) -> tuple[int, int, list[bytes]]:
        """Granted TTL and seconds left (-1: there is no such lease) and the keys attached, ascending."""
        request = etcdrpc.LeaseTimeToLiveRequest(ID=lease, keys=True)
        answer = self._call("lease timetolive", self._etcd.leasestub.LeaseTimeToLive, request)
        return answer.grantedTTL, answer.TTL, sorted(answer.keys)

    def keep_alive(self, lease: int) -> None:
        """Let a lease start its TTL again. Raises Drift if it has ended."""
        request = etcdrpc.LeaseKeepAliveRequest(ID=lease)
        try:
            answer = next(iter(self._etcd.leasestub.LeaseKeepAlive(iter([request]), _CALL_SECONDS)))
        except grpc.RpcError as error:
            raise _translated("lease keep-alive", error) from error
        if answer.TTL <= 0:
            raise Drift(f"lease {lease:x} ran out on the scratch copy", hint="run the command again")

    def events(self, start: int, last: int) -> Iterator[WatchEvent]:
        """What a watcher of all keys from revision `start` on receives, up to and including revision `last`."""
        create = etcdrpc.WatchCreateRequest(key=_EVERYTHING, range_end=_EVERYTHING, start_revision=start)
        requests: SimpleQueue[object] = SimpleQueue()  # kept open: the watch lives as long as its stream of requests
        requests.put(etcdrpc.WatchRequest(create_request=create))
        stream = etcdrpc.WatchStub(self._etcd.channel).Watch(iter(requests.get, None))
        try:
            for answer in stream:
                if answer.compact_revision:
                    raise CallFailed("watch", "COMPACTED", f"revisions before {answer.compact_revision} are compacted")
                for event in answer.events:
                    yield WatchEvent(
                        key=event.kv.key,
                        value=event.kv.value,
                        mod_revision=event.kv.mod_revision,
                        deleted=event.type == event.DELETE,
                    )
                if answer.events and answer.events[-1].kv.mod_revision >= last:
                    return
        except grpc.RpcError as error:
            raise _translated("watch", error) from error
        finally:
            requests.put(None)
            stream.cancel()

    def _call(self, name: str, call: Callable[..., Any], request: object, *, seconds: float = _CALL_SECONDS) -> Any:
        """Make a call. Its answer is untyped, as the stubs are; every caller takes typed fields out of it."""
        try:
            return call(request, seconds)
        except grpc.RpcError as error:
            raise _translated(name, error) from error


def _served(kv: Any) -> ServedKey:
    return ServedKey(
        key=kv.key,
        value=kv.value,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        version=kv.version,
        lease=kv.lease,
    )


def _revision(answer: Any) -> int:
    revision: int = answer.header.revision
    return revision


def _operation(change: Change) -> Any:
    if change.value is None:
        return etcdrpc.RequestOp(request_delete_range=etcdrpc.DeleteRangeRequest(key=change.key))
    # The lease by its id and not by ignore_lease: on a key that names a lease which does not exist, the latter ends
    # the server, at every restart again (docs/formats/etcd.md, "Leases").
    put = etcdrpc.PutRequest(key=change.key, value=change.value, lease=change.lease)
    return etcdrpc.RequestOp(request_put=put)


def _translated(call: str, error: grpc.RpcError) -> ScratchError:
    # Errors of calls are grpc.Call too, which is where code and details are.
    details, code = str(error.details()), error.code().name
    if "user name is empty" in details or "user name not found" in details:
        return AuthEnabled()
    return CallFailed(call, code, details.removeprefix("etcdserver: ").removeprefix("mvcc: "))
