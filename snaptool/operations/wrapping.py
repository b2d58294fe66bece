"""A target in a container: the snapshot is made and verified as ever, then packed, unpacked again, and published."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from snaptool.containers.wrap import PLAIN, Wrapping, folder_files, read_back, write_wrapped
from snaptool.errors import InputError
from snaptool.etcd import Snapshot
from snaptool.folder import FolderDraft
from snaptool.operations.written import Packed, ReadBackFailed
from snaptool.stores.location import RemotePath
from snaptool.stores.publish import StoreDraft

_BLOCK = 1 << 20


class TargetDraft(StoreDraft):
    """A draft of a snapshot that gets its container when it is published. `packed` says what came of it."""

    def __init__(self, target: Path, *, force: bool, wrapping: Wrapping = PLAIN) -> None:
        if wrapping.folder and isinstance(target, RemotePath):
            raise InputError(
                f"{target}: a store keeps objects, no directories",
                hint="choose another --container",
                code="container_target",
            )
        super().__init__(target, force=force)
        self._wrapping = wrapping
        self.packed: Packed | None = None

    def drop_behind(self) -> None:
        """Do so where the snapshot is not read again, to be packed or sent."""
        if not self._wrapping.layers and not isinstance(self.target, RemotePath):
            super().drop_behind()

    def publish(self) -> None:
        """Pack what was written, unpack it again, compare, and give the container its name.

        Raises as `Draft.publish`, and ReadBackFailed when what comes out is not what went in.
        """
        if not self._wrapping.layers:
            super().publish()
            return
        self.flush()
        if self._wrapping.folder:
            self._publish_folder()
            return
        with self.another() as outer:
            write_wrapped(self._wrapping, self._content, self.size, outer)
            outer.sync()
            self.packed = self._compared(outer)
            outer.publish()
            self.published = outer.published

    def _publish_folder(self) -> None:
        with FolderDraft(self.target, force=False, may_replace=lambda _: False) as folder:
            snapshot = Snapshot(self.read_back().buffer)
            files = folder_files(self._wrapping, self._content, self.size, snapshot.current_revision)
            paths = []
            for path, blocks in files:
                folder.write_blocks(path, blocks)
                paths.append(path)
            packed = replace(self._wrapping, folder="", archive="", source=None)
            descriptor = os.open(folder.working_path(paths[0]), os.O_RDONLY | os.O_CLOEXEC)
            try:
                digest, whole = read_back(packed, descriptor, str(self.target)), read_back(PLAIN, descriptor, "")
                size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
            if digest != self._digest():
                raise ReadBackFailed("what was written into the directory is not the snapshot that was packed")
            folder.publish()
            self.published = True
            layers = replace(self._wrapping, name=paths[0]).layers
            self.packed = Packed(layers, size, whole)

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for block in self._content():
            digest.update(block)
        return digest.hexdigest()

    def _content(self) -> Iterator[bytes]:
        for offset in range(0, self.size, _BLOCK):
            yield self.read(offset, min(_BLOCK, self.size - offset))

    def _compared(self, outer: StoreDraft) -> Packed:
        descriptor = os.open(outer.readable_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = read_back(self._wrapping, descriptor, str(self.target))
        finally:
            os.close(descriptor)
        whole = hashlib.sha256()
        if found != self._digest():
            raise ReadBackFailed("what the written container unpacks to is not the snapshot that was packed")
        for offset in range(0, outer.size, _BLOCK):
            whole.update(outer.read(offset, min(_BLOCK, outer.size - offset)))
        return Packed(self._wrapping.layers, outer.size, whole.hexdigest())
