"""Into a store: what was verified is created under a condition, so that it is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from snaptool import files, signals
from snaptool.errors import OutputError, StoreError
from snaptool.files import Draft, Source, TargetExists
from snaptool.inputs import TargetIsRead, notice
from snaptool.stores.location import BlobAt, FileAt, LinkAt, Location, ObjectAt, RemotePath, location_of
from snaptool.stores.store import Replaced, Seen, Store, UploadDiffers, open_store
from snaptool.stores.sums import sums_of


def check_target(target: Path, *, force: bool, source: Source | None = None) -> None:
    """Refuse a target that may not be written, before any work, in a store or among files.

    Raises as `snaptool.files.check_target`; for a store ExtraMissing and StoreError too.
    """
    if not isinstance(target, RemotePath):
        files.check_target(target, force=force, source=source)
        return
    if source is not None and isinstance(source.path, RemotePath):
        _refuse_same(target, source.path)
    if _name_of(location_of(target))[1] is not None:
        raise TargetIsRead(f"target {target} names a version, which nothing can be written to", hint="leave it out")
    if open_store(target).look() is not None and not force:
        raise _exists(target)


def _name_of(location: Location) -> tuple[Location | str, str | None]:
    """Return what identifies an object whatever its version, and the version."""
    if isinstance(location, ObjectAt):
        return ObjectAt(location.kind, location.bucket, location.name, None), location.version
    if isinstance(location, BlobAt):
        return BlobAt(location.account, location.container, location.name, None), location.version
    if isinstance(location, LinkAt):
        return location.url.partition("?")[0], None
    assert isinstance(location, FileAt)
    return location, None


def _refuse_same(target: RemotePath, source: RemotePath) -> None:
    if _name_of(location_of(target))[0] == _name_of(location_of(source))[0]:
        raise TargetIsRead(
            f"source and target are the same object: {target}",
            hint="choose another target; the source is never changed",
        )


class StoreDraft(Draft):
    """A draft that is published where its target is: among files by its name, in a store by one conditional write."""

    def __init__(self, target: Path, *, force: bool) -> None:
        self._seen: Seen | None = None
        super().__init__(target, force=force)

    def _check(self) -> None:
        """Look at what is there: under `--force` this, and nothing newer, is replaced."""
        if not isinstance(self.target, RemotePath):
            super()._check()
            return
        self._seen = open_store(self.target).look()
        if self._seen is not None and not self._force:
            raise _exists(self.target)

    def another(self) -> StoreDraft:
        """Return a new draft for the same target, under the same condition."""
        draft = StoreDraft(self.target, force=self._force)
        draft._seen = self._seen
        return draft

    def publish(self) -> None:
        """Give it its name, as `Draft.publish` does; in a store, compare what is kept with what was sent.

        Raises TargetExists, StoreError, and UploadDiffers after which the object is there and is not deleted.
        """
        if not isinstance(self.target, RemotePath):
            super().publish()
            return
        self.flush()
        content = Path(self.readable_path)
        sums = sums_of(content)
        store = open_store(self.target)
        seen = self._seen
        try:
            with signals.interruptible():
                # The store judges the condition. One that ignores it does at least not replace what is there by now.
                _require_unchanged(store.look(), seen)
                store.create(content, sums, seen)
        except Replaced as error:
            raise _changed(self.target) if seen is not None else _exists(self.target) from error
        except (KeyboardInterrupt, StoreError) as error:
            # It may have come between the last answer and us: what is there is said, whoever wrote it.
            ours = _holds(store, seen, self.target) and store.kept(sums)
            if ours:
                self._written()
            if not ours or isinstance(error, KeyboardInterrupt):
                raise
        self._written()
        if not store.kept(sums):
            raise UploadDiffers(
                f"{self.target} is there, and what the store keeps cannot be shown to be what was sent: somebody else "
                "may have replaced it, where the store keeps no conditions",
                hint="compare it with the source before it is used; it was not deleted",
                place=str(self.target),
            )

    def _written(self) -> None:
        signals.written(self.target)
        self.published = True


def _require_unchanged(now: Seen | None, seen: Seen | None) -> None:
    """Refuse what is there by now, and was not when it was first looked at. Raises Replaced."""
    if now is not None and (seen is None or now.version != seen.version):
        raise Replaced


def _holds(store: Store, before: Seen | None, target: Path) -> bool:
    """Is something there now that was not there before?"""
    try:
        now = store.look()
    except (StoreError, OutputError):
        notice(f"it is not known whether {target} was written")
        return False
    return now is not None and (before is None or now.version != before.version)


def _exists(target: Path) -> TargetExists:
    return TargetExists(
        f"target {target} already exists",
        hint="choose another target, or use --force to replace it",
        place=str(target),
    )


def _changed(target: Path) -> TargetExists:
    return TargetExists(
        f"target {target} was replaced by somebody else meanwhile; it was left alone",
        hint="look at what is there now, then run the command again",
        place=str(target),
    )
