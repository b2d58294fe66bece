"""What can be wrong with a record of bucket `key`, and who gets to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from snaptool.errors import FormatError
from snaptool.etcd.records import BadRecord, BadRevision


class RecordFault(StrEnum):
    """What can be wrong with a record of bucket `key`. The values are finding codes."""

    BAD_REVISION = "bad_revision"
    """Its key is not a revision; a server of 3.6 or newer panics at it, older ones at the first read."""
    REVISION_ZERO = "revision_zero"
    """A revision of main 0, which servers overlook: the key does not exist for them."""
    REVISION_TWICE = "revision_twice"
    """Two records of one (main, sub). If they are of one user key, servers panic."""
    BAD_RECORD = "bad_record"
    """Its value is not a KeyValue message; servers do not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordProblem:
    """A record that may not be. `record` is its number in the bucket, `key` its stored key, `page` that of its leaf."""

    fault: RecordFault
    record: int
    key: bytes
    page: int
    problem: str

    def error(self) -> FormatError:
        """Make the error that says the same."""
        if self.fault is RecordFault.BAD_RECORD:
            return BadRecord("key", self.key, self.problem, self.page)
        return BadRevision(self.key, self.problem, self.page)


Report = Callable[[RecordProblem], None]
"""Told of every problem. When it returns, the scan goes on; records that cannot be read are then not `readable`."""


def refuse(problem: RecordProblem) -> None:
    """The Report that raises BadRevision or BadRecord."""
    raise problem.error()
