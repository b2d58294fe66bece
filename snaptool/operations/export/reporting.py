"""The report of an export: a JSON document written as the manifests are, so that it may be as long as they are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from snaptool.files import Draft


class Report:
    """`{"documents": […], "left_out": […], …}`, one row a line. Without a path nothing is written."""

    def __init__(self, draft: Draft | None) -> None:
        self._draft = draft
        self._rows = 0

    @property
    def wanted(self) -> bool:
        """Somebody wants it: rows are worth making."""
        return self._draft is not None

    def document(self, row: dict[str, Any]) -> None:
        """Add a row to `documents`."""
        self._put(('{"documents": [' if not self._rows else ",") + "\n  " + json.dumps(row))
        self._rows += 1

    def finish(self, members: Iterable[tuple[str, Iterable[Any]]]) -> None:
        """Add the other members, each a list."""
        if self._draft is None:
            return
        self._put("\n]" if self._rows else '{"documents": []')
        for name, rows in members:
            self._put(f",\n{json.dumps(name)}: [")
            between = ""
            for row in rows:
                self._put(f"{between}\n  {json.dumps(row)}")
                between = ","
            self._put("\n]" if between else "]")
        self._put("}\n")
        self._draft.publish()

    def _put(self, text: str) -> None:
        if self._draft is not None:
            self._draft.write(text.encode())


def shown_key(key: bytes) -> str:
    """Write an etcd key in a report."""
    return key.decode(errors="backslashreplace")
