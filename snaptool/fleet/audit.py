"""The audit: what is known is kept, the rest is asked of workers, every answer is in the store before it is shown.

Source: docs/audit.md, "The store" and "What is said of a backup".
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from snaptool.containers.spool import folder_for
from snaptool.errors import InputError
from snaptool.fleet.desk import Desk
from snaptool.fleet.looking import FORMAT, Question, Record, blank, fail, look
from snaptool.fleet.places import Backup
from snaptool.fleet.store import Asked, Store, is_answered
from snaptool.fleet.workers import Answer, Room, Seat, Workers
from snaptool.operations.keys import TooManyV1Keys

_OUTAGES = 3
"""So many backups in a row without an answer of the key service end the run."""

_HINTS = {
    "worker_died": "look at it with `snaptool inspect`, which shows where it ends",
    "no_room": "make room, or name another folder with --work-dir",
    "other_worker": "mount the same files under the same names everywhere, and use the same version of snaptool",
}

Step = Callable[[int], object]


class Engine(Protocol):
    """Asks a question about backups, and yields each answer, a `Record`, as it comes; closing it ends the work."""

    def answers(self, backups: Sequence[Backup], question: Question) -> Generator[Answer, None, None]:
        """Begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEngine:
    """Processes of this machine. `folder`: where downloads go."""

    jobs: int = 1
    timeout: float | None = None
    folder: Path | None = None

    def answers(self, backups: Sequence[Backup], question: Question) -> Generator[Answer, None, None]:
        """Start workers; yield answers as they come."""
        downloads = question.check != "quick"
        needs = [one.size * (one.is_remote + question.salvage) if downloads else 0 for one in backups]
        room = Room(folder_for(None) if self.folder is None else self.folder, needs)

        sizes = [one.size for one in backups]
        if question.asks_services:
            return self._with_desk(backups, question, room)

        def ask(job: int, seat: Seat) -> Record:
            return look(backups[job], question, seat.folder)

        return Workers(ask, sizes, count=self.jobs, timeout=self.timeout, room=room).run()

    def _with_desk(self, backups: Sequence[Backup], question: Question, room: Room) -> Generator[Answer, None, None]:
        with Desk(self.jobs, question.kms, question.kms.most_v1) as desk:

            def ask(job: int, seat: Seat) -> Record:
                kms = replace(question.kms, ask=desk.at(seat.number))
                return look(backups[job], replace(question, kms=kms), seat.folder)

            sizes = [one.size for one in backups]
            yield from Workers(ask, sizes, count=self.jobs, timeout=self.timeout, room=room).run()


@dataclass(slots=True)
class Audit:
    """An audit of some backups. `recheck`: all, failed, damaged, or the url of one to look at whatever is known.

    After `run`: `kept`, how many answers were known; `stopped`: a key service that stayed away ended the run.
    """

    backups: Sequence[Backup]
    question: Question
    store: Store
    engine: Engine = field(default_factory=LocalEngine)
    recheck: str = ""
    kept: int = field(default=0, init=False)
    stopped: bool = field(default=False, init=False)

    def run(self, progress: Step = lambda _: None) -> Iterator[Record]:
        """Yield a record for every backup: those that were known, then the others as they come."""
        todo = []
        for one in self.backups:
            known = self._known(one)
            if known is None:
                todo.append(one)
            else:
                self.kept += 1
                progress(one.size)
                yield known
        if todo:
            yield from self._ask(todo, progress)

    def _known(self, backup: Backup) -> Record | None:
        if not backup.version:
            return None  # its store names none: it may be anything now
        asked = Asked(backup.version, self.question.check, FORMAT, self.question.configs)
        answers = self.store.answers(backup.url)
        for row, record in reversed(answers):
            if is_answered(record, asked) and self.question.is_answered_by(record):
                if self.recheck in {"all", backup.url, record["status"]}:
                    return None
                if row != answers[-1][0]:
                    self.store.renew(row)
                return record
        return None

    def _ask(self, todo: Sequence[Backup], progress: Step) -> Iterator[Record]:
        outages = 0
        answers = self.engine.answers(todo, self.question)
        try:
            for answer in answers:
                backup = todo[answer.job]
                record = answer.result if answer.result is not None else _died(backup, self.question, answer)
                record["attempts"] = answer.attempts
                if record["error"] and record["error"]["kind"] == TooManyV1Keys.code:
                    raise InputError(record["error"]["message"], hint=record["error"]["hint"], code=TooManyV1Keys.code)
                self.store.put(record, self.question.digest, again=bool(self.recheck) or not backup.version)
                progress(backup.size)
                yield record
                outages = outages + 1 if record["outage"] else 0
                if outages >= _OUTAGES:
                    self.stopped = True
                    return
        finally:
            answers.close()


def _died(backup: Backup, question: Question, answer: Answer) -> Record:
    record = blank(backup, question)
    fail(record, "failed", answer.kind, f"{backup.url}: {answer.why}", _HINTS[answer.kind])
    return record


def mark_same(records: Sequence[Record]) -> None:
    """Add the finding `same_as` to every record whose file equals an earlier one of its series.

    It is about what is compared, so that it is in no store.
    """
    same = Same()
    for record in sorted(records, key=lambda one: (one["time"] or "", one["url"])):
        same.mark(record)


class Same:
    """Knows the records that came so far."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, int, str], str] = {}

    def mark(self, record: Record) -> None:
        """Add the finding `same_as` to a record whose file equals that of one that came before, of its series."""
        if record["sha256"] is not None:
            first = self._first.setdefault((record["series"], record["size"], record["sha256"]), record["url"])
            if first != record["url"]:
                record["findings"].append(f"same_as:{first}")
