"""Into a store: what was verified is created under a condition, so that it is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from snaptool import files, signals
from snaptool.errors import OutputError, SnaptoolError, StoreError
from snaptool.files import Draft, TargetExists
from snaptool.inputs import TargetIsRead, notice
from snaptool.sources import Source
from snaptool.stores.location import RemotePath, location_of
from snaptool.stores.reading import read_back
from snaptool.stores.same import require_not_read
from snaptool.stores.store import MayReplace, NotForReading, Replaced, Seen, Store, UploadDiffers, open_store
from snaptool.stores.sums import Sums, sums_of


def check_target(target: Path, *, force: bool, source: Source | None = None) -> None:
    """Refuse a target that may not be written, before any work, in a store or among files.

    Raises as `snaptool.files.check_target`; for a store ExtraMissing and StoreError too.
    """
    if not isinstance(target, RemotePath):
        files.check_target(target, force=force, source=source)
        return
    if source is not None and isinstance(source.path, RemotePath):
        require_not_read(target, source.path)
    require_not_read(target)
    if getattr(location_of(target), "version", None) is not None:
        raise TargetIsRead(f"target {target} names a version, which nothing can be written to", hint="leave it out")
    now = _look(open_store(target))
    require_not_read(target, now=now)
    if now is not None and not force:
        raise _exists(target)


class StoreDraft(Draft):
    """A draft that is published where its target is: among files by its name, in a store by one conditional write."""

    def __init__(self, target: Path, *, force: bool) -> None:
        self._seen: Seen | None = None
        self._hidden = False
        super().__init__(target, force=force)

    def _check(self) -> None:
        """Look at what is there: under `--force` this, and nothing newer, is replaced."""
        if not isinstance(self.target, RemotePath):
            super()._check()
            return
        try:
            self._seen = open_store(self.target).look()
        except NotForReading:
            self._hidden = True
        require_not_read(self.target, now=self._seen)
        if self._seen is not None and not self._force:
            raise _exists(self.target)

    def another(self) -> StoreDraft:
        """Return a new draft for the same target, under the same condition."""
        draft = StoreDraft(self.target, force=self._force)
        draft._seen, draft._hidden = self._seen, self._hidden
        return draft

    def publish(self) -> None:
        """Give it its name, as `Draft.publish` does; in a store, compare what is kept with what was sent.

        Raises TargetExists, StoreError, and UploadDiffers after which the object is there and is not deleted.
        """
        if not isinstance(self.target, RemotePath):
            super().publish()
            return
        require_not_read(self.target)
        self.flush()
        content = Path(self.readable_path)
        sums = sums_of(content)
        store = open_store(self.target)
        seen = self._seen
        if isinstance(store, MayReplace):
            with signals.interruptible():
                store.require_conditions()
        refused = _changed if seen is not None else _taken if self._force or self._hidden else _exists
        try:
            with signals.interruptible():
                # The store judges the condition. One that ignores it does at least not replace what is there by now.
                _require_unchanged(_look(store), seen)
        except Replaced as error:
            raise refused(self.target) from error
        try:
            with signals.interruptible():
                store.create(content, sums, seen)
        except (KeyboardInterrupt, Replaced, StoreError) as error:
            # It may have come between the last answer and us, and a client that tries again meets its own object: what
            # is there is looked at.
            ours = _holds(store, seen, self.target, sure=isinstance(error, Replaced)) and self._is_kept(store, sums)
            if ours:
                self._written()
            if isinstance(error, KeyboardInterrupt) or (not ours and not isinstance(error, Replaced)):
                raise
            if not ours:
                raise refused(self.target) from error
            return
        self._written()
        try:
            kept = self._is_kept(store, sums)
        except (SnaptoolError, OSError) as error:
            raise UploadDiffers(
                f"{self.target} was written, and it cannot be compared with what was sent: {error}",
                hint=f"compare its SHA-256 before it is used: {sums.sha256}",
                place=str(self.target),
            ) from error
        if not kept:
            raise UploadDiffers(
                f"{self.target} is there, and what the store keeps is not what was sent: somebody else has replaced "
                "it, or something on the way altered it",
                hint=f"what was sent has the SHA-256 {sums.sha256}; nothing was deleted",
                place=str(self.target),
            )

    def _is_kept(self, store: Store, sums: Sums) -> bool:
        """Is what was sent there? By what the store states, else by reading it back. Raises as `read_back`."""
        kept = store.kept(sums)
        return read_back(self.target, sums) if kept is None else kept

    def _written(self) -> None:
        signals.written(self.target)
        self.published = True


def _look(store: Store) -> Seen | None:
    """Look at what is there; None, too, where that is not shown, so that the store alone judges. Raises StoreError."""
    try:
        return store.look()
    except NotForReading:
        return None


def _require_unchanged(now: Seen | None, seen: Seen | None) -> None:
    """Refuse what is there by now, and was not when it was first looked at. Raises Replaced."""
    if now is not None and (seen is None or now.version != seen.version):
        raise Replaced


def _holds(store: Store, before: Seen | None, target: Path, *, sure: bool) -> bool:
    """Is something there now that was not there before? `sure`: the store has said that nothing was written."""
    try:
        now = store.look()
    except (StoreError, OutputError) as error:
        if not (sure and isinstance(error, NotForReading)):
            notice(f"it is not known whether {target} was written")
        return False
    return now is not None and (before is None or now.version != before.version)


def _exists(target: Path) -> TargetExists:
    return TargetExists(
        f"target {target} already exists",
        hint="choose another target, or use --force to replace it",
        place=str(target),
    )


def _taken(target: Path) -> TargetExists:
    return TargetExists(
        f"target {target} exists by now, or is there and not shown; it was left alone",
        hint="look at what is there, then choose another target: --force replaces only what was seen at the start",
        place=str(target),
    )


def _changed(target: Path) -> TargetExists:
    return TargetExists(
        f"target {target} was replaced by somebody else meanwhile; it was left alone",
        hint="look at what is there now, then run the command again",
        place=str(target),
    )
