"""The samples are what their page says, and can be made again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from samples.make import CONFIGS, HERE, SAMPLES, Sample, make_snapshot
from snaptool.scratch import EtcdBinaries, ScratchEtcd

PAGE = (HERE / "README.md").read_text()


def cells(row: str) -> dict[str, str]:
    names = ("sample", "shows", "config", "keys", "revision", "compacted", "status_hash", "hashkv")
    return dict(zip(names, (cell.strip(" `") for cell in row.strip("|").split("|")), strict=True))


ROWS = {cells(row)["sample"]: cells(row) for row in PAGE.splitlines() if row.startswith("| `") and ".db` | " in row}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_sample_made_again_holds_the_same(etcd_binaries: EtcdBinaries, tmp_path: Path, sample: Sample) -> None:
    made, stated = cells(make_snapshot(sample, etcd_binaries, tmp_path)), ROWS[sample.name]
    # The status hash counts etcd's own log index too, and that depends on how long the making took.
    assert {**made, "status_hash": ""} == {**stated, "status_hash": ""}


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: str(row["sample"]))
def test_every_etcd_serves_a_sample_as_its_page_says(
    every_etcd: EtcdBinaries, scratch_parent: Path, row: dict[str, str]
) -> None:
    path = HERE / row["sample"]
    bare = path.stat().st_size % 512 == 0
    with ScratchEtcd.restore(path, binaries=every_etcd, parent=scratch_parent, skip_hash_check=bare) as server:
        client = server.client()
        assert client.status().revision == int(row["revision"])
        assert client.hashkv().hash == int(row["hashkv"])
        assert sum(map(len, client.pages(revision=0))) == int(row["keys"])


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: str(row["sample"]))
def test_etcdutl_states_the_hash_of_the_page(etcd_binaries: EtcdBinaries, row: dict[str, str]) -> None:
    assert etcd_binaries.etcdutl is not None
    shown = subprocess.run(
        [etcd_binaries.etcdutl, "snapshot", "status", HERE / row["sample"], "-w", "json"],
        capture_output=True,
        check=True,
    )
    assert json.loads(shown.stdout)["hash"] == int(row["status_hash"], 16)


def test_the_page_names_every_file() -> None:
    data = {path.name for path in HERE.iterdir() if path.suffix in {".db", ".yaml"}}
    assert data == {sample.name for sample in SAMPLES} | set(CONFIGS)
    assert data == set(ROWS) | {name for name in CONFIGS if f"| `{name}` |" in PAGE}


@pytest.mark.parametrize("name", CONFIGS)
def test_published_keys_are_marked_as_such(name: str) -> None:
    text = (HERE / name).read_text()
    assert text == CONFIGS[name][0]
    assert text.startswith("# TEST ONLY.")
