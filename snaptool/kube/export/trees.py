"""Looking into objects as plain trees, whatever they hold, and changing them with a list of what was changed.

A tree is what the reader gives: dicts in the order of the stored fields, lists, texts, numbers, None. Custom resources
hold what their owners put there, so that no look may rely on a shape: what is not as expected counts as absent.
"""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]


def at(value: Any, *path: str) -> Any:
    """Return what stands at a path, None where there is nothing."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def mapping(value: Any, *path: str) -> Tree:
    """Return the mapping at a path; an empty one, which is not in the tree, where there is none."""
    found = at(value, *path)
    return found if isinstance(found, dict) else {}


def text(value: Any, *path: str) -> str:
    """Return the text at a path, empty where there is none."""
    found = at(value, *path)
    return found if isinstance(found, str) else ""


def entries(value: Any, *path: str) -> list[Tree]:
    """Return the mappings in the list at a path."""
    found = at(value, *path)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def texts(value: Any, *path: str) -> list[str]:
    """Return the texts in the list at a path."""
    found = at(value, *path)
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def labels_of(tree: Tree) -> Tree:
    """Return the labels of an object."""
    return mapping(tree, "metadata", "labels")


def annotations_of(tree: Tree) -> Tree:
    """Return the annotations of an object."""
    return mapping(tree, "metadata", "annotations")


def name_of(tree: Tree) -> str:
    """Return the name of an object."""
    return text(tree, "metadata", "name")


def controller_of(tree: Tree) -> Tree | None:
    """Return the owner reference of the controller, if there is one."""
    return next((one for one in entries(tree, "metadata", "ownerReferences") if one.get("controller") is True), None)


class Edit:
    """A tree being changed. `removed`: the paths that were taken out, in the order in which that happened."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.removed: list[str] = []

    def drop(self, *path: str) -> Any:
        """Take out what stands at a path and return it, None if nothing did."""
        *above, last = path
        holder = at(self.tree, *above)
        if not isinstance(holder, dict) or last not in holder:
            return None
        self.removed.append(".".join(path))
        return holder.pop(last)

    def drop_if_empty(self, *path: str) -> None:
        """Take out a mapping or list of which nothing is left; not worth a line of its own."""
        *above, last = path
        holder = at(self.tree, *above)
        if isinstance(holder, dict) and holder.get(last) in ({}, []):
            del holder[last]

    def drop_entries(self, path: tuple[str, ...], gone: list[Tree]) -> None:
        """Take entries out of the list at a path, by identity; and the list if nothing is left."""
        *above, last = path
        holder = at(self.tree, *above)
        if not gone or not isinstance(holder, dict):
            return
        holder[last] = [one for one in holder[last] if all(one is not other for other in gone)]
        self.removed += [f"{'.'.join(path)}[{text(one, 'name') or text(one, 'key')}]" for one in gone]
        self.drop_if_empty(*path)
