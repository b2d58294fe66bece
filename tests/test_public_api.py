"""The library's front door: its names are there, typed, and few; importing it is cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import snaptool
from tests.support.cli import SAMPLES


def test_every_public_name_can_be_imported() -> None:
    for name in snaptool.__all__:
        assert getattr(snaptool, name) is not None
    assert sorted(snaptool.__all__) == list(snaptool.__all__)
    assert {"open_snapshot", "Keyring", "rewrite", "SnaptoolError"} <= set(snaptool.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(snaptool, "no_such_name")


def test_importing_the_package_and_asking_for_help_loads_no_heavy_module() -> None:
    heavy = "{'numpy', 'yaml', 'json', 'subprocess', 'traceback', 'cryptography', 'snaptool.operations'}"
    code = f"import sys, snaptool.cli; snaptool.cli.run(['--help']); print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.endswith("[]\n")


def test_rewrite_through_the_library(tmp_path: Path) -> None:
    old = snaptool.parse_config((SAMPLES / "aescbc.yaml").read_bytes())
    new = snaptool.parse_config((SAMPLES / "secretbox.yaml").read_bytes())
    request = snaptool.RewriteRequest(reading=snaptool.Keyring((old,)), writing=snaptool.Keyring((new,)))
    steps: list[str] = []

    def progress(step: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        steps.append(step)

    target = tmp_path / "new.db"
    with snaptool.open_snapshot(SAMPLES / "aescbc-cluster.db") as opened:
        report = snaptool.rewrite(opened, target, request, progress=progress)
    assert report.verified
    assert report.records.rewritten == 11
    assert list(dict.fromkeys(steps)) == ["reading", "writing", "verifying", "publishing"]
    with snaptool.open_snapshot(target) as opened:
        survey = snaptool.survey(opened, snaptool.Keyring((new,)))
    assert {row.provider for row in survey.census if row.resource == "secrets"} == {"secretbox"}
    assert survey.lost == ()
