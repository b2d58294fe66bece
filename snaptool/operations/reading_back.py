"""Reading back: the records of a written file, each held against the source's. While it is written, or afterwards.

Every record is compared with the source's, whole, or around its value, and the values by what both open to, the new one
with the new keys.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from itertools import compress
from queue import SimpleQueue
from types import TracebackType
from typing import NoReturn, Self

from snaptool import signals
from snaptool.bolt import Chunk, Walk
from snaptool.errors import FormatError
from snaptool.etcd import (
    RecordReader,
    Records,
    Snapshot,
    decode_key_value,
    refuse,
    replace_value,
)
from snaptool.etcd.castagnoli import crc32c
from snaptool.etcd.comparing import ALONE, CHANGED, DIFFERENT, NO_MORE, Match
from snaptool.etcd.leaves import Leaves
from snaptool.files import Draft
from snaptool.operations.crypto import (
    Outcome,
    Work,
    Workshop,
    open_value,
    outcome_of,
    plaintext_digest,
)
from snaptool.operations.pieces import OPENED, Looked, Part, Pieces
from snaptool.operations.plan import DROP, REPLACE, SEALED, Job
from snaptool.operations.written import (
    ReadBackFailed,
    is_stale,
)
from snaptool.providers.keyring import Keyring
from snaptool.providers.values import met, same_plaintexts, words
from snaptool.sources import Mapped, source_changed
from snaptool.text import printable

_LET_GO = 16
"""Chunks after which what was read may leave the memory."""

_WINDOW = 8 << 20
"""Bytes that are mapped together behind the writer: as many as begin to be brought to the disk together."""

_LEAD = 64 << 20
"""Bytes that the writer may be ahead of who reads back: more than a window and all blocks."""


def require_same(job: Job, looked: Looked) -> None:
    """Raise SourceChanged unless leaves that are written from are those that the first pass checked."""
    if looked.leaves and not job.leaves.have(looked.records.leaves, looked.records.view, looked.leaves):
        refuse_changed(job)


def refuse_changed(job: Job) -> NoReturn:
    """Raise SourceChanged."""
    job.opened.source.check_unchanged()
    raise source_changed(job.opened.path)


class Comparison:
    """The pass over the records of the written file: each is what the plan makes of one of the source.

    `pieces`: the source; `leaves`: those of the written file so far.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.leaves = Leaves()
        request = job.request
        keys = Keyring(()) if request.decrypt else request.writing
        # What keeps every byte opens with what it opened with before.
        reading = keys if not request.only_lost or request.reading is None else request.reading
        self._work = Work(reading, keys, request.randomness)
        self._old_bench, self._new_bench = job.workshop.bench(), job.workshop.bench()
        self.pieces = Pieces(job, _watched(job))
        self._parts = iter(self.pieces)
        self._part: Part | None = None
        self._match = Match()
        self._added = deque(job.plan.edits.append)

    def expect(self, parts: Iterator[Part]) -> None:
        """Take the source from there; by default it is read again."""
        self._parts = parts

    def look_at(self, file: Mapped) -> None:
        """Take records of that map from now on."""
        self._new_bench = Workshop(self._work, file, jobs=1).bench()

    def take(self, new: Records) -> None:
        """Compare the records of a chunk with those that should be there. Raises ReadBackFailed, and SourceChanged."""
        page_size, first = self.job.opened.snapshot.database.page_size, len(self.leaves)
        self.leaves.add(new.leaves, new.view, page_size)
        crcs = memoryview(self.leaves.crc[first:])
        match, at_hand = self._match, None
        match.begin_chunk()
        while (place := match.place())[1] < len(new):
            part = self._next()
            if part is None:
                self._require_pair(new, place[1], self._added.popleft() if self._added else None)
                match.step()
                continue
            looked = part.looked
            if at_hand is not None and at_hand is not looked:
                self._compare_values(at_hand, new, *match.watched())
            at_hand = looked
            end = match.compare(looked.records, part, looked.watched, new, page_size, (part.crcs, crcs))
            if end == CHANGED:
                refuse_changed(self.job)
            if end == DIFFERENT:
                raise ReadBackFailed("bytes that the request does not change are not the same in the written file")
            if end == ALONE:
                self._compare_alone(looked, new, *match.place())
                match.step()
            elif end == NO_MORE:
                self._part = None
        if at_hand is not None:
            self._compare_values(at_hand, new, *match.watched())

    def _next(self) -> Part | None:
        """Return the piece of the source at hand, or the next one; None when there is none left."""
        if self._part is None:
            self._part = next(self._parts, None)
            self._match.begin_piece()
        return self._part

    @staticmethod
    def _require_pair(new: Records, row: int, expected: tuple[bytes, bytes] | None) -> None:
        if (new.stored_key(row), new.stored_value(row)) != expected:
            raise ReadBackFailed(f"record {new.first_record + row} of the written file is not the one that was added")

    def _compare_alone(self, looked: Looked, new: Records, row: int, other: int) -> None:
        """Compare a record that was made by itself."""
        if looked.action[row] == REPLACE:
            self._require_pair(new, other, self.job.plan.edits.replace[looked.number[row]])
            return
        old = looked.records
        stored = replace_value(old.stored_value(row), new.value(other))
        if (old.stored_key(row), stored) != (new.stored_key(other), new.stored_value(other)):
            raise ReadBackFailed("bytes that the request does not change are not the same in the written file")
        self._match.look_at(row, other, looked.watched)

    def _compare_values(self, looked: Looked, new: Records, rows: memoryview, others: memoryview) -> None:
        """Open values of both files and compare. Raises ReadBackFailed for one that does not open to the same."""
        if not rows:
            return
        before, after = self._old_bench, self._new_bench
        before.open_all(self.pieces.values(looked.records, rows, looked.resource, self.pieces.depth))
        resource = words(len(new))
        for row, other in zip(rows, others, strict=True):
            resource[other] = looked.resource[row]
        ways = after.open_all(self.pieces.values(new, others, resource))
        same = same_plaintexts(before.values, rows, after.values, others)
        outcomes = {number: outcome_of(ways[number]) for number in met(others, after.way)}
        rewrapped = bool(self.job.request.rewraps)
        if any(not one.opened or is_stale(one, rewrapped=rewrapped) for one in outcomes.values()):
            for row, other in zip(rows, others, strict=True):
                self._require_right(new, other, outcomes[after.way[other]], looked.action[row])
        if same < len(rows):
            raise ReadBackFailed(
                f"record {new.first_record + others[same]} of the written file opens to another plaintext than in the "
                "source"
            )

    def _require_right(self, new: Records, row: int, outcome: Outcome, action: int) -> None:
        """Raise ReadBackFailed for a value that does not open, or that was sealed by another key than the first."""
        # What equals the source's plaintext is right, whatever it looks like.
        if not outcome.opened and not outcome.doubtful:
            where = f"{printable(new.user_key(row))}, record {new.first_record + row}"
            raise ReadBackFailed(f"{where}, does not open: {', '.join(outcome.reasons)}")
        if action in SEALED and is_stale(outcome, rewrapped=bool(self.job.request.rewraps)):
            raise ReadBackFailed("a value was written under another key than the first one of the new configuration")

    def finish(self) -> Leaves:
        """Require that nothing is missing; return the leaves. Raises ReadBackFailed."""
        while (part := self._next()) is not None and self._match.is_done(part):
            self._part = None
        if part is not None or self._added:
            found = sum(self.leaves.records)
            raise ReadBackFailed(f"more records were written than the {found} that were read back")
        return self.leaves

    def require_restored(self, written: Snapshot) -> None:
        """Open what came back from older revisions with the keys that write. Raises ReadBackFailed."""
        for one in self.job.plan.restored:
            dropped = self.job.plan.action[: one.record].count(DROP)
            record = written.record(one.record - dropped)
            stored = decode_key_value(written.stored_value(record)).value
            chain = self._work.writing.chain_for(one.resource.group_resource)
            outcome, plaintext = open_value(chain, stored, one.key)
            same = record.key == one.key and record.revision.main == one.revision
            if not same or plaintext is None or plaintext_digest(plaintext) != one.digest or outcome.stale:
                raise ReadBackFailed(f"{printable(one.key)} does not open to its older revision {one.from_revision}")


_IS_SEALED = bytes(action in SEALED for action in range(256))


def _watched(job: Job) -> bytearray:
    """Mark the records whose value has to open to the same in both files. Raises ReadBackFailed for a sealed one.

    Plain values that stay are compared byte by byte, like all else that is not sealed; lost ones open in neither.
    """
    swept, action = job.swept, job.plan.action
    watched = bytearray(len(action))
    for record in swept.opened:
        watched[record] = (swept.header[record] != 0 and action[record] < DROP) or action[record] in SEALED
    if not all(compress(watched, action.translate(_IS_SEALED))):
        raise ReadBackFailed("values were sealed of which the source's plaintext is not known")
    for value in swept.lost:
        watched[value.record] = 0
    return watched if 1 in watched else bytearray()


class Follower:
    """Reads the records of bucket `key` back while they are written: a thread, a window behind the writer.

    It is given the pieces of the source as they are written. The leaves of a new tree stand one behind the other, so
    that they need no branch to be found. What leads to them is looked at when all is there, and has to lead to just
    these leaves, in this order.
    `keeps_sums`: the hash of the file is that of what is read in the end, which has to be what was compared.
    """

    def __init__(self, job: Job, draft: Draft, *, keeps_sums: bool) -> None:
        self._handed_over: SimpleQueue[Part | None] = SimpleQueue()
        self.comparison = Comparison(job)
        self.comparison.expect(self._taken_over())
        self.is_done = False
        self.keeps_sums = keeps_sums
        self._windows: list[tuple[int, int, int]] = []
        self._job, self._draft = job, draft
        self._page_size = job.opened.snapshot.database.page_size
        self._first = self._page = 0
        self._end = -1
        self._stopped = False
        self._read = threading.Condition()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="snaptool-read-back", daemon=True)

    def begin(self, page: int) -> None:
        """Begin with the leaf at a page, which is written next."""
        self._first = self._page = page
        self._thread.start()

    def hand_over(self, part: Part) -> None:
        """Give it the piece of the source that is written next, when it is near enough. Raises what it has found."""
        with self._read:
            while self._failure is None and self._draft.size - self._page * self._page_size > _LEAD:
                self._read.wait(0.1)
                self._draft.require_no_failure()
                signals.look()
        self.check()
        self._handed_over.put(part)

    def _taken_over(self) -> Iterator[Part]:
        last = None
        for part in iter(self._handed_over.get, None):
            if part.looked is not last:
                last = part.looked
                require_same(self._job, last)
            yield part

    def end(self, page: int | None) -> None:
        """Say where the leaves end, before anything is written behind them. None: there are none, but one inline."""
        self._handed_over.put(None)
        self._end, self._stopped = (self._first, True) if page is None else (page, self._stopped)
        self._draft.nudge()

    def check(self) -> None:
        """Raise what the thread has found, if anything."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            # Values are opened many at once; what is only compared stays in the cache.
            chunk, size = Chunk() if self._job.passing is not None else Chunk(*OPENED), self._page_size
            while not self._stopped and self._page != self._end:
                # In this order: what is written once the end is known may be something else.
                written = self._draft.wait_written(self._page * size + _WINDOW, seconds=0.2) // size
                end = self._end
                until = written if end < 0 else min(written, end)
                if until > self._page and ((until - self._page) * size >= _WINDOW or until == end):
                    self._compare(self._page, until, chunk)
                    self._draft.was_read(self._page * size)  # the window before is the last that is mapped no more
                    with self._read:
                        self._page = until
                        self._read.notify_all()
            self.is_done = not self._stopped
        except BaseException as error:  # noqa: BLE001 - raised again by who waits for it
            with self._read:
                self._failure = error
                self._read.notify_all()

    def _compare(self, page: int, until: int, chunk: Chunk) -> None:
        """Compare the leaves from one page to another."""
        file = self._draft.map_written(until * self._page_size)
        view = memoryview(file.buffer)
        walk = Walk(view, self._page_size, until)
        walk.begin_line(page, until)
        self.comparison.look_at(file)
        for records in _records(self._job, view, walk, chunk):
            if self._stopped:
                return
            self.comparison.take(records)
        if self.keeps_sums:
            self._windows.append((page, until, crc32c()(view[page * self._page_size : until * self._page_size], 0)))

    def require_unchanged(self, written: Snapshot) -> None:
        """Raise ReadBackFailed where the file is no longer what it was when it was compared."""
        for page, until, crc in self._windows:
            if crc32c()(written.view[page * self._page_size : until * self._page_size], 0) != crc:
                raise ReadBackFailed("the written file changed after it was compared")
            written.database.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._thread.ident is None:
            return
        if kind is None:
            self._draft.flush()
            while self._thread.is_alive():
                self._thread.join(0.1)
                self._job.progress("verifying", len(self.comparison.leaves), max(self._end - self._first, 1))
            self.check()
        self._stopped = True
        self._handed_over.put(None)
        self._draft.nudge()
        self._thread.join()


def _records(job: Job, view: memoryview, walk: Walk, chunk: Chunk) -> Iterator[Records]:
    """Yield the records of a written file that a walk goes over: one object, filled again and again.

    Raises ReadBackFailed for what is broken.
    """
    records, reader = Records(view, chunk), RecordReader(view)
    # What is compared byte by byte needs no reading.
    is_read = job.request.reading is not None or any(job.plan.action)
    try:
        while walk.fill(chunk):
            records.make_room()
            if is_read:
                reader.read(records, refuse)
            yield records
    except FormatError as error:
        # It is not the source that is damaged, which is being read meanwhile.
        raise ReadBackFailed(f"the written file is broken: {error}") from error


def compare_records(job: Job, written: Snapshot, comparison: Comparison) -> None:
    """Compare all records, once everything is written."""
    bucket = written.bucket(b"key")
    if bucket is None:
        raise ReadBackFailed("the written file has other buckets than the source")
    edits = job.plan.edits
    total = job.opened.snapshot.record_count - len(edits.drop) + len(edits.append)
    chunk, walk = Chunk(), written.database.new_walk()
    bucket.begin(walk)
    for turn, records in enumerate(_records(job, written.view, walk, chunk), 1):
        comparison.take(records)
        if turn % _LET_GO == 0:
            written.database.let_go()
        job.progress("verifying", records.first_record + len(records), total)
