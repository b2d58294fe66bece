"""What users do with snapshots: one module per intention.

Each takes opened things and typed requests, reports progress to a callback, and returns frozen results. This is the
only place where etcd's records, Kubernetes' names and the providers of encryption meet. Nothing here prints, and
nothing knows exit codes.
"""

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
from snaptool.operations.opening import OpenedSnapshot, WrongTrailer, open_snapshot
from snaptool.operations.rewrite import (
    Deletion,
    FileReport,
    ReadBackFailed,
    RecordCounts,
    RewriteReport,
    RewriteRequest,
    UncoveredResources,
    Undecryptable,
    ValueChange,
    repair,
    rewrite,
)
from snaptool.operations.survey import CensusRow, EtcdFacts, FileFacts, Finding, Survey, survey
from snaptool.operations.verify import Verification, verify

__all__ = [
    "CensusRow",
    "Deletion",
    "Diff",
    "DiffSide",
    "DiffValue",
    "Difference",
    "Differences",
    "EtcdFacts",
    "FileFacts",
    "FileReport",
    "Finding",
    "History",
    "HistoryEntry",
    "ListedRecord",
    "Listing",
    "NoSuchKey",
    "OpenedSnapshot",
    "OpenedValue",
    "ReadBackFailed",
    "Recoded",
    "RecordCounts",
    "RewriteReport",
    "RewriteRequest",
    "StoredValue",
    "Survey",
    "Target",
    "UncoveredResources",
    "Undecryptable",
    "ValueChange",
    "ValueLost",
    "Verification",
    "WrongTrailer",
    "diff",
    "find_value",
    "history",
    "listing",
    "open_found",
    "open_snapshot",
    "parse_target",
    "repair",
    "rewrite",
    "survey",
    "verify",
]
