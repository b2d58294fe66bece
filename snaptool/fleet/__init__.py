"""Many backups: find them, ask the same of each, keep the answers, sum them up. Source: docs/audit.md."""

from snaptool.fleet.audit import Audit, mark_same
from snaptool.fleet.looking import EMBEDDED, FORMAT, Given, Question, Record, closed_record
from snaptool.fleet.names import shard_of
from snaptool.fleet.places import Backup, Listing, LocalPlace, Place, newest_of
from snaptool.fleet.report import FAILING, STATUSES, NeededKey, Report, document, report
from snaptool.fleet.store import NoStore, Store, StoreTooNew

__all__ = [
    "EMBEDDED",
    "FAILING",
    "FORMAT",
    "STATUSES",
    "Audit",
    "Backup",
    "Given",
    "Listing",
    "LocalPlace",
    "NeededKey",
    "NoStore",
    "Place",
    "Question",
    "Record",
    "Report",
    "Store",
    "StoreTooNew",
    "closed_record",
    "document",
    "mark_same",
    "newest_of",
    "report",
    "shard_of",
]
