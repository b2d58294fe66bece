"""What etcd puts in buckets.

Theory of operation. etcd's store is a history. Every change of a key is a record of its own in bucket `key`, under the
revision at which it happened; deleting a key adds a *tombstone*. The last record of a key is what a client gets; the
ones before are history until a *compaction* deletes those that a newer one had replaced by then, and notes in bucket
`meta` how far it went. A snapshot is the bolt database that holds all buckets, followed by the SHA-256 of its bytes.

`records` has the codecs, one record at a time. `reading` decodes them a chunk at a time and finds the last record of
every key, `comparing` has the checksums and compares two files, `snapshot` joins them over a file, and `edits` changes
a history without telling a server anything impossible. Knows nothing of Kubernetes: a value is bytes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from snaptool.etcd.generations import (
    CURRENT_SERVERS,
    HashKV,
    RevisionCompacted,
    RevisionInFuture,
    ServerGeneration,
    Status,
    server_generation,
)
from snaptool.etcd.problems import RecordFault, RecordProblem, Report, refuse
from snaptool.etcd.reading import REPEATED_VALUE, TOMBSTONE, UNREADABLE, UNSEEN, LiveIndex, RecordReader, Records
from snaptool.etcd.records import (
    Alarm,
    AlarmMember,
    BadRecord,
    BadRevision,
    KeyValue,
    Lease,
    Member,
    Revision,
    decode_key_value,
    decode_lease,
    decode_revision_key,
    encode_key_value,
    encode_revision_key,
    encode_value_field,
    replace_value,
)
from snaptool.etcd.snapshot import (
    BUCKETS,
    DIGEST_SIZE,
    DanglingLease,
    Remark,
    RemarkCode,
    Snapshot,
    StatusHash,
    StoredRecord,
    Trailer,
    describe_bad_trailer,
    judge_trailer,
    split_trailer,
)

if TYPE_CHECKING:
    from snaptool.etcd.edits import NO_EDITS, Editor, Edits, UnsafeEdit, compact, delete_lost, merge, set_values

__all__ = [
    "BUCKETS",
    "CURRENT_SERVERS",
    "DIGEST_SIZE",
    "NO_EDITS",
    "REPEATED_VALUE",
    "TOMBSTONE",
    "UNREADABLE",
    "UNSEEN",
    "Alarm",
    "AlarmMember",
    "BadRecord",
    "BadRevision",
    "DanglingLease",
    "Editor",
    "Edits",
    "HashKV",
    "KeyValue",
    "Lease",
    "LiveIndex",
    "Member",
    "RecordFault",
    "RecordProblem",
    "RecordReader",
    "Records",
    "Remark",
    "RemarkCode",
    "Report",
    "Revision",
    "RevisionCompacted",
    "RevisionInFuture",
    "ServerGeneration",
    "Snapshot",
    "Status",
    "StatusHash",
    "StoredRecord",
    "Trailer",
    "UnsafeEdit",
    "compact",
    "decode_key_value",
    "decode_lease",
    "decode_revision_key",
    "delete_lost",
    "describe_bad_trailer",
    "encode_key_value",
    "encode_revision_key",
    "encode_value_field",
    "judge_trailer",
    "merge",
    "refuse",
    "replace_value",
    "server_generation",
    "set_values",
    "split_trailer",
]


def __getattr__(name: str) -> Any:
    """Import what changes a history when it is asked for: who only reads does not wait for it."""
    if name not in __all__:
        raise AttributeError(name)
    return getattr(import_module("snaptool.etcd.edits"), name)
