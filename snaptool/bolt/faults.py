"""What can be wrong with a page: the error that stops a reader, and the problem that a report collects."""

from __future__ import annotations

from dataclasses import dataclass

from snaptool.errors import FormatError

MAX_PROBLEMS = 1000  # a hostile file must not fill the memory with complaints


class CorruptPage(FormatError):
    """A page that breaks the tree. `path`: page ids from the bucket's root down to it."""

    def __init__(self, page: int, problem: str, path: tuple[int, ...] = ()) -> None:
        way = " > ".join(str(step) for step in path)
        super().__init__(
            f"page {page}: {problem}" + (f" (reached by {way})" if len(path) > 1 else ""),
            hint="list every problem with `snaptool verify`; save what can be saved with `snaptool repair --salvage`",
        )
        self.page = page
        self.problem = problem
        self.path = path


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a page. `page` is its id, `path` the ids that led there."""

    page: int
    problem: str
    path: tuple[int, ...]
