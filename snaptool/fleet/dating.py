"""When backups were made that do not say so in their names: by what is in them, not by their files.

Copying gives a file another date. So where it decides which backups are looked at, those without a time are opened
first, in the same workers. Source: docs/audit.md, "Which backups".
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from snaptool.containers.spool import folder_for
from snaptool.containers.unwrap import DEFAULT, Unpacking
from snaptool.errors import SnaptoolError
from snaptool.fleet.looking import status_of
from snaptool.fleet.places import Backup, grouped
from snaptool.fleet.staging import staged
from snaptool.fleet.workers import Room, Seat, Workers
from snaptool.operations.opening import open_snapshot
from snaptool.operations.times import newest_time

_BEFORE_ALL = datetime(1, 1, 1, tzinfo=UTC)


def undated(backups: Sequence[Backup], count: int, per: str) -> list[Backup]:
    """Return those whose time decides which `count` of a group are the newest, and is not in the name."""
    groups = (several for several in grouped(backups, per).values() if len(several) > count)
    return [one for several in groups for one in several if one.time is None]


def times_inside(
    backups: Sequence[Backup], *, jobs: int, timeout: float | None = None, folder: Path | None = None
) -> dict[str, datetime]:
    """Return the times that these backups hold, by url; those that cannot be opened, or say nothing, are left out.

    What is not a snapshot is older than everything, so that it takes no place of one.
    """
    room = Room(folder_for(None) if folder is None else folder, [one.size * one.is_remote for one in backups])

    def ask(job: int, seat: Seat) -> datetime | None:
        return _time_inside(backups[job], seat.folder)

    answers = Workers(ask, [one.size for one in backups], count=jobs, timeout=timeout, room=room).run()
    return {backups[answer.job].url: answer.result for answer in answers if answer.result is not None}


def _time_inside(backup: Backup, folder: Path) -> datetime | None:
    unpacking = DEFAULT if backup.entry is None else Unpacking(entry=backup.entry)
    try:
        with staged(backup, folder) as copy, open_snapshot(copy.path, unpacking, kine=True) as opened:
            return newest_time(opened.snapshot)
    except SnaptoolError as error:  # what is wrong with it is said when it is looked at
        return _BEFORE_ALL if status_of(error) == "not_a_snapshot" else None
    except OSError:
        return None
