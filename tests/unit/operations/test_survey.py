"""Taking stock is one pass: another follows only where the first went by a guess that turned out wrong."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from snaptool.operations.opening import open_snapshot
from snaptool.operations.survey import survey
from tests.support.snapshots import envelope
from tests.support.stored import write_history

CRD = b"/registry/apiextensions.k8s.io/customresourcedefinitions/ships.example.com"


def definition(*versions: str) -> bytes:
    spec = {
        "group": "example.com",
        "names": {"plural": "ships", "kind": "Ship"},
        "scope": "Namespaced",
        "versions": [{"name": name, "served": True, "storage": name == versions[0]} for name in versions],
    }
    head = {"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1"}
    return json.dumps({**head, "metadata": {"name": "ships.example.com"}, "spec": spec}).encode()


def ship(version: str) -> bytes:
    return json.dumps({"apiVersion": f"example.com/{version}", "kind": "Ship", "metadata": {}}).encode() + b"\n"


@pytest.mark.parametrize(
    ("defined", "passes", "undecodable"), [(["v1", "v2"], 1, 0), (["v2"], 2, 1), ([], 1, 0)], ids=str
)
def test_a_second_pass_is_for_versions_that_are_not_defined(
    defined: list[str], passes: int, undecodable: int, tmp_path: Path
) -> None:
    changes = [(b"/registry/namespaces/a", envelope("v1", "Namespace", b"\n\x03\n\x01a"))]
    changes += [(b"/registry/example.com/ships/a/%d" % number, ship(f"v{number}")) for number in (1, 2)]
    if defined:
        changes.append((CRD, definition(*defined)))
    steps: list[int] = []
    with open_snapshot(write_history(tmp_path / "s.db", changes)) as opened:
        result = survey(opened, progress=lambda _step, done, _total: steps.append(done))
    assert sum(after < before for before, after in pairwise(steps)) + 1 == passes
    assert [str(value.outcome.fault) for value in result.undecodable] == ["undefined_version"] * undecodable
