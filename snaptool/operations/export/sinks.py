"""Where manifests go: one stream, or a tree of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from re import compile as pattern
from typing import Protocol

from snaptool.folder import FolderDraft
from snaptool.kube.export import FOLDERS, Place, Tree
from snaptool.kube.kinds.printing import json_text, yaml_text
from snaptool.operations.export.request import Format
from snaptool.text import document, is_fit

ENDINGS = {Format.YAML: ".yaml", Format.JSON: ".json"}


class Sink(Protocol):
    """Takes manifests in order."""

    def add(self, place: Place, tree: Tree, key: str) -> str | None:
        """Write one manifest. `key`: what tells it from all others. Returns its file, as reports name it."""

    def add_apart(self, place: Place, tree: Tree, key: str) -> str | None:
        """Write one manifest that is not to be applied; all others are behind us."""

    def finish(self) -> None:
        """Write what stands behind the last one."""


_APART = """\
# What follows was made by owners that stand above, whose controllers make it again: not to be applied with them.
"""


class Stream:
    """One stream of documents. `file`: its name in reports; `safe`: a terminal sees it."""

    def __init__(
        self, write: Callable[[bytes], object], form: Format, *, file: str | None = None, safe: bool = False
    ) -> None:
        self._write = write
        self._form = form
        self._file = file
        self._safe = safe
        self._count = 0
        self._apart = False
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def add(self, place: Place, tree: Tree, key: str) -> str | None:  # noqa: ARG002 - a stream has no places
        """Write one document."""
        if self._form is Format.YAML:
            self._put(("---\n" if self._count else "") + yaml_text(tree, fit=is_fit if self._safe else None))
        else:
            head = ",\n" if self._count else _LIST_HEAD
            # Not textwrap.indent: texts hold characters that Python takes for line breaks.
            shown = json_text(tree).rstrip("\n").replace("\n", "\n" + " " * 8)
            self._put(head + " " * 8 + (document(shown) if self._safe else shown))
        self._count += 1
        return self._file

    def add_apart(self, place: Place, tree: Tree, key: str) -> str | None:  # noqa: ARG002 - a stream has no places
        """Write it so that kubectl passes over it: as comments; JSON has none, and leaves it out."""
        if self._form is Format.JSON:
            return None
        head = "" if self._apart else _APART
        self._apart = True
        # Whatever some reader takes for a line break is escaped in texts: it would end the comment.
        shown = yaml_text(tree, fit=is_fit).rstrip("\n")
        self._put(head + "".join(f"# {line}\n" for line in ["---", *shown.split("\n")]))
        return self._file

    def finish(self) -> None:
        """End the list, if it is one."""
        if self._form is Format.JSON:
            self._put(_LIST_TAIL if self._count else _LIST_HEAD + _LIST_TAIL)
        self._flush()

    def _put(self, text: str) -> None:
        self._waiting.append(text.encode(errors="replace"))
        self._waiting_bytes += len(self._waiting[-1])
        if self._waiting_bytes >= _BLOCK:
            self._flush()

    def _flush(self) -> None:
        self._write(b"".join(self._waiting))
        self._waiting, self._waiting_bytes = [], 0


_BLOCK = 1 << 18
_LIST_HEAD = '{\n    "apiVersion": "v1",\n    "items": [\n'
_LIST_TAIL = '\n    ],\n    "kind": "List",\n    "metadata": {\n        "resourceVersion": ""\n    }\n}\n'


class Folder:
    """A tree of files, each with one manifest."""

    def __init__(self, draft: FolderDraft, form: Format) -> None:
        self._draft = draft
        self._form = form

    def add(self, place: Place, tree: Tree, key: str) -> str | None:
        """Write a file. Where its name is taken it gets another."""
        print_one = yaml_text if self._form is Format.YAML else json_text
        content = print_one(tree).encode(errors="replace")
        path = place.path(ENDINGS[self._form])
        try:
            self._draft.write(path, content)
        except FileExistsError:
            path = place.path(ENDINGS[self._form], key)
            self._draft.write(path, content)
        return path

    add_apart = add

    def finish(self) -> None:
        """Nothing stands behind the last file."""


def is_an_export(target: Path) -> bool:
    """Say whether a directory holds what an export writes and nothing else, so that another may replace it."""
    for path in target.rglob("*"):
        inside = path.relative_to(target).parts
        file = path.suffix in ENDINGS.values() and _NUMBERED.match(path.name) and path.is_file()
        if path.is_symlink() or inside[0] not in FOLDERS or not (path.is_dir() or file):
            return False
    return True


_NUMBERED = pattern(r"[0-9]{2,}-[^.]")  # as kube.export.place names every file
