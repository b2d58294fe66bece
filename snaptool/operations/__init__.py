"""What users do with snapshots: one module per intention.

Each takes opened things and typed requests, reports progress to a callback, and returns frozen results. This is the
only place where etcd's records, Kubernetes' names and the providers of encryption meet. Nothing here prints, and
nothing knows exit codes.
"""

from snaptool.operations.boot import replayed, serve_copy
from snaptool.operations.browse import (
    History,
    HistoryEntry,
    ListedRecord,
    Listing,
    NoSuchKey,
    OpenedValue,
    StoredValue,
    Target,
    ValueLost,
    find_value,
    history,
    listing,
    open_found,
    parse_target,
)
from snaptool.operations.diff import Diff, Difference, Differences, DiffSide, DiffValue, Recoded, diff
from snaptool.operations.engine import EtcdEngine
from snaptool.operations.keys import (
    NO_KMS_OPTIONS,
    KeyProblem,
    KmsOptions,
    RewriteKeys,
    Unwrapped,
    asking_keyring,
    check_plugins,
    exported_keys,
    keyring_for_reading,
    keys_for_rewriting,
    plan_calls,
)
from snaptool.operations.opening import OpenedSnapshot, WrongTrailer, open_snapshot
from snaptool.operations.plan import (
    Deletion,
    RecordCounts,
    RewriteRequest,
    UncoveredResources,
    Undecryptable,
    ValueChange,
)
from snaptool.operations.rewrite import DIRECT, BootCheckFailed, Engine, RewriteReport, repair, rewrite
from snaptool.operations.salvage import CarvedRecord, SalvageReport, carve, salvage
from snaptool.operations.survey import CensusRow, EtcdFacts, FileFacts, Finding, Survey, survey
from snaptool.operations.verify import Verification, verify
from snaptool.operations.written import FileReport, ReadBackFailed

__all__ = [
    "DIRECT",
    "NO_KMS_OPTIONS",
    "BootCheckFailed",
    "CarvedRecord",
    "CensusRow",
    "Deletion",
    "Diff",
    "DiffSide",
    "DiffValue",
    "Difference",
    "Differences",
    "Engine",
    "EtcdEngine",
    "EtcdFacts",
    "FileFacts",
    "FileReport",
    "Finding",
    "History",
    "HistoryEntry",
    "KeyProblem",
    "KmsOptions",
    "ListedRecord",
    "Listing",
    "NoSuchKey",
    "OpenedSnapshot",
    "OpenedValue",
    "ReadBackFailed",
    "Recoded",
    "RecordCounts",
    "RewriteKeys",
    "RewriteReport",
    "RewriteRequest",
    "SalvageReport",
    "StoredValue",
    "Survey",
    "Target",
    "UncoveredResources",
    "Undecryptable",
    "Unwrapped",
    "ValueChange",
    "ValueLost",
    "Verification",
    "WrongTrailer",
    "asking_keyring",
    "carve",
    "check_plugins",
    "diff",
    "exported_keys",
    "find_value",
    "history",
    "keyring_for_reading",
    "keys_for_rewriting",
    "listing",
    "open_found",
    "open_snapshot",
    "parse_target",
    "plan_calls",
    "repair",
    "replayed",
    "rewrite",
    "salvage",
    "serve_copy",
    "survey",
    "verify",
]
