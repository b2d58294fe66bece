"""Taking stock is one pass: another follows only where the first went by a guess that turned out wrong."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

import snaptool
from snaptool.operations.opening import open_snapshot
from snaptool.operations.survey import survey
from tests.support.cli import SAMPLES
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


def test_values_without_a_byte_are_counted(tmp_path: Path) -> None:
    """APISIX makes directories so: a resource may have no other values."""
    changes = [(b"/apisix/routes", b""), (b"/registry/secrets/shop/empty", b"")]
    changes.append((b"/registry/namespaces/shop", envelope("v1", "Namespace", b"\n\x03\n\x01a")))
    with open_snapshot(write_history(tmp_path / "s.db", changes)) as opened:
        rows = {row.resource: row for row in survey(opened).census}
    assert (rows["secrets"].live, rows["secrets"].size, rows["secrets"].undecodable) == (1, 0, 1)
    assert sum(row.live for row in rows.values()) == 3


def test_a_value_without_a_byte_opens_once_it_is_encrypted(tmp_path: Path) -> None:
    """What a rewrite kept as undecodable is not called lost by the next command."""
    changes = [(b"/registry/namespaces/shop", envelope("v1", "Namespace", b"\n\x03\n\x01a"))]
    changes.append((b"/registry/secrets/shop/empty", b""))
    source, target, keys = write_history(tmp_path / "s.db", changes), tmp_path / "t.db", SAMPLES / "aescbc.yaml"
    assert snaptool.rewrite(source, target, new_config=keys).verified
    taken = snaptool.inspect(target, keys)
    assert (len(taken.lost), len(taken.undecodable)) == (0, 1)
    assert snaptool.rewrite(target, tmp_path / "u.db", config=keys, decrypt=True).verified
