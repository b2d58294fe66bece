"""Every error that snaptool raises on purpose has one family and an exit code."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import snaptool
from snaptool import errors
from snaptool.cli import exits
from snaptool.stores.store import ExtraMissing

FAMILIES = {
    errors.InputError: 2,
    errors.OutputError: 1,
    errors.FormatError: 4,
    errors.ProviderError: 3,
    errors.KeyServiceError: 5,
    errors.StoreError: 5,
    errors.VerificationFailed: 3,
    errors.ScratchError: 1,
}


_DIRECT = (f"snaptool.providers.direct.{kind}" for kind in ("aws", "azure", "gcp", "vault"))
BEHIND_EXTRAS = {*(f"snaptool.stores.{store}" for store in ("s3", "gs", "az", "sftp")), *_DIRECT}


def every_error() -> list[type[errors.SnaptoolError]]:
    for module in pkgutil.walk_packages(snaptool.__path__, "snaptool."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except (ExtraMissing, ImportError):
            assert module.name in BEHIND_EXTRAS, "only these need an extra, and they define no errors"
    found: list[type[errors.SnaptoolError]] = []
    waiting: list[type[errors.SnaptoolError]] = [errors.SnaptoolError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    # Modules of the engine may be here a second time, as Python runs them (support/engine.py).
    there = [kind for kind in set(found) if kind.__module__.partition(".")[0] == "snaptool"]
    return sorted(there, key=lambda kind: kind.__qualname__)


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__qualname__)
def test_error_has_the_exit_code_of_its_family(kind: type[errors.SnaptoolError]) -> None:
    error = kind.__new__(kind)  # leaves take facts of their own; only the type decides
    families = [family for family in kind.__mro__ if family in FAMILIES]
    assert len(families) <= 1, "an error belongs to one family"
    assert exits.exit_code(error) == (FAMILIES[families[0]] if families else 1)


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__qualname__)
def test_error_says_what_it_is_for(kind: type[errors.SnaptoolError]) -> None:
    assert kind.__doc__
    assert kind.__module__.startswith("snaptool.")


def test_families_are_the_children_of_the_root() -> None:
    in_errors = {kind for kind in errors.SnaptoolError.__subclasses__() if kind.__module__ == "snaptool.errors"}
    assert in_errors == set(FAMILIES)


def test_hint_is_kept_beside_the_message() -> None:
    error = errors.InputError("what and where", hint="what next")
    assert (str(error), error.hint) == ("what and where", "what next")
    assert errors.InputError("alone").hint == ""


def test_table_of_meanings_covers_every_code() -> None:
    assert set(exits.MEANINGS) == {0, 1, 2, 3, 4, 5, 130}
    assert set(FAMILIES.values()) < set(exits.MEANINGS)
    for code in exits.MEANINGS:
        assert f"{code}  {exits.MEANINGS[code]}" in exits.epilog()


def every_code() -> set[str]:
    """The codes of classes, and those that are given where an error is raised."""
    kinds = every_error()
    names = {kind.__name__ for kind in kinds}
    given = set()
    for path in Path(snaptool.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                given |= {
                    word.value.value
                    for word in node.keywords
                    if word.arg == "code" and isinstance(word.value, ast.Constant) and isinstance(word.value.value, str)
                }
    return {kind.code for kind in kinds} | given | {"wrong_usage", "interrupted", "bug"}


def test_documentation_lists_every_code() -> None:
    section = (Path(__file__).parents[1] / "docs" / "json.md").read_text().partition("## Errors")[2]
    listed = re.findall(r"(?m)^\| `([a-z0-9_]+)` \|", section.partition("\n## ")[0])
    assert len(listed) == len(set(listed))
    assert set(listed) == every_code(), "docs/json.md, section Errors"


def test_codes_are_words_of_their_own() -> None:
    kinds = every_error()
    assert all(re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", kind.code) for kind in kinds)
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert errors.InputError("what").code == "bad_input"
    assert errors.InputError("what", code="its_own", place="file").code == "its_own"
