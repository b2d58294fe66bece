"""The records that etcd stores: revision keys, KeyValue messages, and the small records of the other buckets.

Bytes in, values out, and back; one record at a time. `snaptool.etcd.reading` does the same for chunks of records, and
these functions are its model and its fallback.

A record of bucket `key` is stored under a *revision key*: the transaction number `main`, the byte `_`, the number
`sub` of the change in its transaction, and a `t` if the change deleted the key (a *tombstone*). Its value is a
KeyValue message, in which field 5 is the value that a client put. Messages are read as etcd 3.4 to 3.6 read them:
unknown fields are skipped, of two equal fields the later one counts, and a known field of the wrong wire type is an
error.

Source: etcd server/storage/mvcc/revision.go, api/mvccpb/kv.proto, server/lease/leasepb/lease.proto,
api/authpb/auth.proto, api/etcdserverpb/rpc.proto, server/etcdserver/api/membership (v3.7.1). Must not know: pages,
files, what a value means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from snaptool import wire
from snaptool.errors import FormatError
from snaptool.text import counted

REVISION_KEY_SIZE = 17
TOMBSTONE_KEY_SIZE = 18
SEPARATOR = ord("_")
TOMBSTONE_MARK = ord("t")
MAX_REVISION = (1 << 63) - 1
"""Revisions are int64 in etcd; a larger number reads as a negative one."""

_SHOWN_BYTES = 48


def shown(stored: bytes) -> str:
    """Hex of at most the first 48 bytes, for messages: enough to find the record."""
    return stored[:_SHOWN_BYTES].hex() + ("…" if len(stored) > _SHOWN_BYTES else "")


class BadRevision(FormatError):
    """A key of bucket `key` that is not a revision, or may not stand where it does. `page` is None when not known."""

    def __init__(self, key: bytes, problem: str, page: int | None = None) -> None:
        super().__init__(f"{_place(page)}revision key {shown(key) or 'of no bytes'}: {problem}")
        self.key = key
        self.problem = problem
        self.page = page


class BadRecord(FormatError):
    """A record whose value is not what its bucket holds. `page` is None when not known.

    The message shows the record's key, not its value, which may be secret.
    """

    def __init__(self, bucket: str, key: bytes, problem: str, page: int | None = None) -> None:
        super().__init__(f"{_place(page)}record {shown(key) or '(no key)'} in bucket {bucket}: {problem}")
        self.bucket = bucket
        self.key = key
        self.problem = problem
        self.page = page


def _place(page: int | None) -> str:
    return "" if page is None else f"page {page}: "


class Revision(NamedTuple):
    """`main` counts transactions, `sub` the changes inside one."""

    main: int
    sub: int

    def __str__(self) -> str:
        return f"{self.main}.{self.sub}" if self.sub else str(self.main)


def decode_revision_key(key: bytes, page: int | None = None) -> tuple[Revision, bool]:
    """Decode a key of bucket `key`; the second part says whether it is a tombstone. Raises BadRevision.

    Main 0 is decoded: that etcd overlooks such records is for the reader of the whole bucket to say.
    """
    if len(key) not in {REVISION_KEY_SIZE, TOMBSTONE_KEY_SIZE}:
        raise BadRevision(key, f"it has {counted(len(key), 'byte')} instead of 17 or 18", page)
    if key[8] != SEPARATOR:
        raise BadRevision(key, f"byte 8 is {key[8]:02x} instead of 5f", page)
    tombstone = len(key) == TOMBSTONE_KEY_SIZE
    if tombstone and key[17] != TOMBSTONE_MARK:
        raise BadRevision(key, f"byte 17 is {key[17]:02x} instead of 74", page)
    revision = Revision(int.from_bytes(key[:8], "big"), int.from_bytes(key[9:17], "big"))
    if max(revision) > MAX_REVISION:
        raise BadRevision(key, "a number in it is negative", page)
    return revision, tombstone


def encode_revision_key(revision: Revision, *, tombstone: bool = False) -> bytes:
    """Encode a revision as a key of bucket `key`. Raises ValueError for numbers that are no int64 from 0."""
    if not (0 <= revision.main <= MAX_REVISION and 0 <= revision.sub <= MAX_REVISION):
        raise ValueError(f"{revision} is not a revision")
    return revision.main.to_bytes(8, "big") + b"_" + revision.sub.to_bytes(8, "big") + (b"t" if tombstone else b"")


# --- KeyValue -------------------------------------------------------------------------------------------------------

KEY, CREATE_REVISION, MOD_REVISION, VERSION, VALUE, LEASE = range(1, 7)
"""Field numbers of mvccpb.KeyValue."""

_KEY_VALUE_TYPES = {
    KEY: wire.BYTES,
    CREATE_REVISION: wire.VARINT,
    MOD_REVISION: wire.VARINT,
    VERSION: wire.VARINT,
    VALUE: wire.BYTES,
    LEASE: wire.VARINT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """What a client put, and when. A tombstone has only its `key`; `lease` 0 is none. Numbers are int64."""

    key: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    value: bytes = field(default=b"", repr=False)
    lease: int = 0


class KeyValueSpans(NamedTuple):
    """Where the parts of a stored KeyValue are: offsets from its start and sizes in bytes.

    `key`, `value`: payloads of fields 1 and 5, as etcd sees them: the last ones. `field_start`, `field_size`: the
    whole of that field 5 with tag and length; size 0 at the place where it belongs when there is none. `values`
    counts fields 5.
    """

    key_start: int
    key_size: int
    value_start: int
    value_size: int
    field_start: int
    field_size: int
    values: int


def decode_key_value(stored: bytes, key: bytes = b"", page: int | None = None) -> KeyValue:
    """Decode a stored KeyValue. `key` (its revision key) and `page` are for messages. Raises BadRecord."""
    seen = {found.number: found.value for found in _fields(stored, _KEY_VALUE_TYPES, "key", key, page)}
    return KeyValue(
        key=_bytes(seen, KEY),
        create_revision=_int64(seen, CREATE_REVISION),
        mod_revision=_int64(seen, MOD_REVISION),
        version=_int64(seen, VERSION),
        value=_bytes(seen, VALUE),
        lease=_int64(seen, LEASE),
    )


def encode_key_value(key_value: KeyValue) -> bytes:
    """Encode as etcd does: ascending fields, zero values left out."""
    parts = (
        (KEY, key_value.key),
        (CREATE_REVISION, key_value.create_revision),
        (MOD_REVISION, key_value.mod_revision),
        (VERSION, key_value.version),
        (VALUE, key_value.value),
        (LEASE, key_value.lease),
    )
    return b"".join(wire.encode_field(number, value) for number, value in parts if value)


def locate(stored: bytes, key: bytes = b"", page: int | None = None) -> KeyValueSpans:
    """Find the parts of a stored KeyValue. Raises BadRecord."""
    found = _fields(stored, _KEY_VALUE_TYPES, "key", key, page)
    key_start = key_size = value_start = value_size = values = 0
    field_start = field_size = -1
    for one in found:
        if one.number == KEY:
            key_size = len(_payload(one))
            key_start = one.end - key_size
        elif one.number == VALUE:
            value_size = len(_payload(one))
            value_start = one.end - value_size
            field_start, field_size = one.start, one.end - one.start
            values += 1
    if not values:
        field_start = next((one.start for one in found if one.number > VALUE), len(stored))
        field_size, value_start = 0, field_start
    return KeyValueSpans(key_start, key_size, value_start, value_size, field_start, field_size, values)


def replace_value(stored: bytes, new_value: bytes) -> bytes:
    """Put `new_value` into a stored KeyValue and keep every other byte: unknown fields, their order, long varints.

    The last field 5 is the one that counts, so that one is replaced. Earlier ones go: they are values too, which would
    otherwise stay in the file as they were. An empty value is written as etcd writes it, by no field at all. Where
    there was no field 5 it is put before the first field of a higher number. Raises BadRecord.
    """
    spans = locate(stored)
    head, tail = stored[: spans.field_start], stored[spans.field_start + spans.field_size :]
    if spans.values > 1:
        head = _without(head, VALUE)
    return head + encode_value_field(new_value) + tail


def encode_value_field(value: bytes) -> bytes:
    """Encode field 5 whole, which is nothing for an empty value."""
    return wire.encode_field(VALUE, value) if value else b""


def clear_lease(stored: bytes) -> bytes:
    """Take the lease out of a stored KeyValue and keep every other byte. Raises BadRecord."""
    locate(stored)
    return _without(stored, LEASE)


def _without(stored: bytes, number: int) -> bytes:
    return b"".join(stored[one.start : one.end] for one in wire.fields(stored) if one.number != number)


# --- the other buckets ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease. `ttl` and `remaining_ttl` in seconds; the latter is 0 unless a checkpoint was taken."""

    id: int
    ttl: int
    remaining_ttl: int = 0


def decode_lease(key: bytes, stored: bytes) -> Lease:
    """Decode a record of bucket `lease`, whose key is the id again. Raises BadRecord, also when the two differ."""
    types = {1: wire.VARINT, 2: wire.VARINT, 3: wire.VARINT}
    seen = {found.number: found.value for found in _fields(stored, types, "lease", key, None)}
    lease = Lease(_int64(seen, 1), _int64(seen, 2), _int64(seen, 3))
    if key != encode_lease_key(lease.id):
        raise BadRecord("lease", key, f"the lease inside has the id {lease.id:x}")
    return lease


def encode_lease_key(lease_id: int) -> bytes:
    """Encode a lease id (int64) as the key of its record."""
    return (lease_id & ((1 << 64) - 1)).to_bytes(8, "big")


def encode_lease(lease: Lease) -> bytes:
    """Encode the record that stands under `encode_lease_key`."""
    parts = ((1, lease.id), (2, lease.ttl), (3, lease.remaining_ttl))
    return b"".join(wire.encode_field(number, value) for number, value in parts if value)


class Alarm(IntEnum):
    """What an etcd member raises alarm for."""

    NONE = 0
    NOSPACE = 1
    CORRUPT = 2


@dataclass(frozen=True, slots=True)
class AlarmMember:
    """An alarm and the member that raised it. `alarm` is a number of `Alarm`, or one that etcd has learnt since."""

    member_id: int
    alarm: int

    @property
    def name(self) -> str:
        """The alarm as etcdctl prints it."""
        known = [alarm.value for alarm in Alarm]
        return Alarm(self.alarm).name if self.alarm in known else f"alarm {self.alarm}"


def decode_alarm(key: bytes) -> AlarmMember:
    """Decode the key of a record of bucket `alarm`, which has no value. Raises BadRecord."""
    found = _fields(key, {1: wire.VARINT, 2: wire.VARINT}, "alarm", key, None)
    seen = {one.number: one.value for one in found}
    member_id = seen.get(1, 0)
    return AlarmMember(member_id if isinstance(member_id, int) else 0, _int64(seen, 2))


def encode_alarm(alarm: AlarmMember) -> bytes:
    """Encode the key of a record of bucket `alarm`."""
    parts = ((1, alarm.member_id), (2, alarm.alarm))
    return b"".join(wire.encode_field(number, value) for number, value in parts if value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of the cluster that the snapshot was taken from. `id` is uint64."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool


def encode_member_id(member_id: int) -> bytes:
    """Encode a member id as the key of its record: hex without leading zeros."""
    return f"{member_id:x}".encode()


def decode_member(key: bytes, stored: bytes) -> Member:
    """Decode a record of bucket `members`. Raises BadRecord, also when key and content name different members."""
    try:
        content = json.loads(stored)
    except (ValueError, RecursionError) as error:
        raise BadRecord("members", key, "its value is not JSON") from error
    if not isinstance(content, dict):
        raise BadRecord("members", key, "its value is not a JSON object")
    member_id = content.get("id", 0)
    if not isinstance(member_id, int) or not 0 <= member_id < 1 << 64:
        raise BadRecord("members", key, "its id is not a 64-bit number")
    if key != encode_member_id(member_id):
        raise BadRecord("members", key, f"the member inside has the id {member_id:x}")
    name = content.get("name", "")
    return Member(
        id=member_id,
        name=name if isinstance(name, str) else "",
        peer_urls=_texts(content.get("peerURLs")),
        client_urls=_texts(content.get("clientURLs")),
        is_learner=content.get("isLearner") is True,
    )


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()


@dataclass(frozen=True, slots=True)
class User:
    """A user of etcd's own authentication. `password` is a bcrypt hash."""

    name: bytes
    password: bytes = field(repr=False)
    roles: tuple[bytes, ...]


def decode_user(key: bytes, stored: bytes) -> User:
    """Decode a record of bucket `authUsers`. Raises BadRecord."""
    found = _fields(stored, {1: wire.BYTES, 2: wire.BYTES, 3: wire.BYTES, 4: wire.BYTES}, "authUsers", key, None)
    seen = {one.number: one.value for one in found}
    return User(_bytes(seen, 1), _bytes(seen, 2), tuple(_payload(one) for one in found if one.number == 3))


@dataclass(frozen=True, slots=True)
class Permission:
    """What a role may do with the keys from `key` to `range_end`. `kind`: 0 read, 1 write, 2 both."""

    kind: int
    key: bytes
    range_end: bytes


@dataclass(frozen=True, slots=True)
class Role:
    """A role of etcd's own authentication."""

    name: bytes
    permissions: tuple[Permission, ...]


def decode_role(key: bytes, stored: bytes) -> Role:
    """Decode a record of bucket `authRoles`. Raises BadRecord."""
    found = _fields(stored, {1: wire.BYTES, 2: wire.BYTES}, "authRoles", key, None)
    permissions = []
    for one in found:
        if one.number == 2:
            types = {1: wire.VARINT, 2: wire.BYTES, 3: wire.BYTES}
            inner = {part.number: part.value for part in _fields(_payload(one), types, "authRoles", key, None)}
            permissions.append(Permission(_int64(inner, 1), _bytes(inner, 2), _bytes(inner, 3)))
    return Role(_bytes({one.number: one.value for one in found}, 1), tuple(permissions))


def decode_counter(bucket: str, key: bytes, stored: bytes) -> int:
    """Decode a big-endian u64, as `meta` holds consistent_index and term. Raises BadRecord."""
    if len(stored) != 8:
        raise BadRecord(bucket, key, f"it has {counted(len(stored), 'byte')} instead of 8")
    return int.from_bytes(stored, "big")


def decode_text(bucket: str, key: bytes, stored: bytes) -> str:
    """Decode a short printable text, as versions are stored. Raises BadRecord."""
    if not all(0x20 <= byte < 0x7F for byte in stored):
        raise BadRecord(bucket, key, "it is not printable text")
    return stored.decode("ascii")


# --- protobuf -------------------------------------------------------------------------------------------------------


def _fields(stored: bytes, types: Mapping[int, int], bucket: str, key: bytes, page: int | None) -> Sequence[wire.Field]:
    """Read all fields; those in `types` must have the wire type given there."""
    try:
        found = list(wire.fields(stored))
    except wire.BadMessage as error:
        raise BadRecord(bucket, key, str(error), page) from error
    for one in found:
        if types.get(one.number, one.wire_type) != one.wire_type:
            raise BadRecord(bucket, key, f"field {one.number} has wire type {one.wire_type}", page)
    return found


def _payload(one: wire.Field) -> bytes:
    return one.value if isinstance(one.value, bytes) else b""


def _bytes(seen: Mapping[int, int | bytes], number: int) -> bytes:
    value = seen.get(number, b"")
    return value if isinstance(value, bytes) else b""


def _int64(seen: Mapping[int, int | bytes], number: int) -> int:
    value = seen.get(number, 0)
    if not isinstance(value, int):
        return 0
    return value - (1 << 64) if value >> 63 else value
