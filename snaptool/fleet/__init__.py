"""Many backups: find them, ask the same of each, keep the answers, sum them up. Source: docs/audit.md."""

from snaptool.fleet.audit import Audit, Engine, LocalEngine, Same, mark_same
from snaptool.fleet.cluster import Mounted, Scheduler, SchedulerUnreachable
from snaptool.fleet.dating import times_inside, undated
from snaptool.fleet.looking import EMBEDDED, FORMAT, Given, Question, Record, closed_record, unseen_record
from snaptool.fleet.names import shard_of
from snaptool.fleet.places import Backup, File, Listing, Places, newest_of, read_backup
from snaptool.fleet.report import FAILING, STATUSES, NeededKey, Report, document, report
from snaptool.fleet.results import BadResults, ShardResult, ShardsMissing, read_plan, read_results
from snaptool.fleet.store import NoStore, Store, StoreTooNew

__all__ = [
    "EMBEDDED",
    "FAILING",
    "FORMAT",
    "STATUSES",
    "Audit",
    "Backup",
    "BadResults",
    "Engine",
    "File",
    "Given",
    "Listing",
    "LocalEngine",
    "Mounted",
    "NeededKey",
    "NoStore",
    "Places",
    "Question",
    "Record",
    "Report",
    "Same",
    "Scheduler",
    "SchedulerUnreachable",
    "ShardResult",
    "ShardsMissing",
    "Store",
    "StoreTooNew",
    "closed_record",
    "document",
    "mark_same",
    "newest_of",
    "read_backup",
    "read_plan",
    "read_results",
    "report",
    "shard_of",
    "times_inside",
    "undated",
    "unseen_record",
]
