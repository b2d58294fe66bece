"""A real etcd on a copy: started in private, asked as a client, gone without a trace.

`server` finds the programs, restores a copy, starts etcd and stops it; `keeper` is the process that does so for it and
outlives its parent just long enough to clean up; `client` makes the calls (the only module that knows etcd3); `served`
holds what they answer. On these stand `boot`, which compares a booted copy with what was read from the file, and
`engine`, which rewrites a store as a client.

Everything here takes and gives plain values. Snapshots, keys to decrypt with and objects are other packages' business;
`snaptool.operations` joins them. Importing this package needs neither etcd nor its client library: `ScratchEtcd.client`
does.
"""

from snaptool.scratch.boot import SAFE_TTL, Difference, Expected
from snaptool.scratch.engine import Rewritten
from snaptool.scratch.served import (
    ROOM_HINT,
    AuthEnabled,
    CallFailed,
    Change,
    Drift,
    ServedHash,
    ServedKey,
    ServerStatus,
    WatchEvent,
)
from snaptool.scratch.server import (
    EtcdBinaries,
    EtcdFailed,
    EtcdNotFound,
    Restorer,
    ScratchEtcd,
    find_etcd,
    find_restorer,
)

__all__ = [
    "ROOM_HINT",
    "SAFE_TTL",
    "AuthEnabled",
    "CallFailed",
    "Change",
    "Difference",
    "Drift",
    "EtcdBinaries",
    "EtcdFailed",
    "EtcdNotFound",
    "Expected",
    "Restorer",
    "Rewritten",
    "ScratchEtcd",
    "ServedHash",
    "ServedKey",
    "ServerStatus",
    "WatchEvent",
    "find_etcd",
    "find_restorer",
]
