"""`snaptool audit` and key services: each wrapped key is asked for once, and a service that is away is no finding."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snaptool.providers.provider import Api
from tests.support.kms_plugin import RunningPlugin, kms_plugin
from tests.support.kms_snapshots import configuration, database, kms_entry, sealed
from tests.support.kms_values import Form

SNAPTOOL = (
    "import sys; from snaptool.cli import auditing, main; auditing._MOST_V1 = 5; sys.argv[0] = 'snaptool'; main()"
)
"""The command line, with a limit that small samples reach."""


@pytest.fixture
def plugin() -> Iterator[RunningPlugin]:
    with kms_plugin() as running:
        yield running


@pytest.fixture
def words(tmp_path: Path, plugin: RunningPlugin) -> list[str]:
    entries = [kms_entry(Api.V2, "kp", plugin.endpoint), kms_entry(Api.V1, "old", plugin.endpoint)]
    (tmp_path / "kms.yaml").write_text(configuration(*entries))
    (tmp_path / "bucket").mkdir()
    words = ["audit", str(tmp_path / "bucket"), "--config", str(tmp_path / "kms.yaml"), "-o", "jsonl"]
    return [sys.executable, "-c", SNAPTOOL, *words, "--store", str(tmp_path / "store.db")]


def run(words: list[str], *more: str) -> tuple[int, list[dict[str, Any]], str]:
    ran = subprocess.run([*words, *more], capture_output=True, text=True, check=False)
    return ran.returncode, [json.loads(line) for line in ran.stdout.splitlines()], ran.stderr


def test_case_17_seven_seeds_of_three_clusters_are_seven_calls(
    tmp_path: Path, plugin: RunningPlugin, words: list[str]
) -> None:
    seeds = [sealed(Form.V2_SEED, 3, 10 * number) for number in range(7)]
    clusters = [seeds[:3], seeds[3:5], seeds[5:]]
    for number in range(12):
        values = [value for seed in clusters[number % 3] for value in seed]
        database(tmp_path / "bucket" / f"c{number % 3}-{number}.db", values)
    code, records, said = run(words, "--jobs", "3")
    assert code == 0, said
    assert Counter(record["status"] for record in records) == {"ok": 12}
    assert len(plugin.calls("Decrypt")) == 7
    kms = {record["url"].rpartition("/")[2][:2]: record["kms"] for record in records}
    assert [kms[name][0]["wrapped_keys"] for name in ("c0", "c1", "c2")] == [3, 2, 2]
    assert kms["c0"][0]["failed"] == {}


def test_a_sample_has_values_of_every_seed(tmp_path: Path, plugin: RunningPlugin, words: list[str]) -> None:
    values = [value for number in range(4) for value in sealed(Form.V2_SEED, 5, 10 * number)]
    database(tmp_path / "bucket" / "a.db", values)
    code, records, said = run(words, "--check", "sample=2")
    assert (code, len(plugin.calls("Decrypt"))) == (0, 4), said
    assert sum(needed["values"] for needed in records[0]["keys_needed"]) == 8


def test_case_17_a_key_for_every_value_is_asked_for_by_word_alone(
    tmp_path: Path, plugin: RunningPlugin, words: list[str]
) -> None:
    def old(count: int, start: int) -> list[Any]:
        return [value for number in range(count) for value in sealed(Form.V1_GCM, 1, start + number)]

    database(tmp_path / "bucket" / "a.db", old(6, 0))
    code, records, said = run(words)
    assert (code, records, plugin.calls("Decrypt")) == (2, [], []), "nothing is asked before that is known"
    assert "--check sample=20" in said
    assert "--yes-all-v1" in said
    code, records, said = run(words, "--check", "sample=2")
    assert (code, len(plugin.calls("Decrypt"))) == (0, 2), said
    assert records[0]["check"] == "sample=2"
    (tmp_path / "bucket" / "a.db").unlink()
    plugin.forget()
    for number in range(3):
        database(tmp_path / "bucket" / f"n{number}.db", old(3, 100 + 10 * number))
    code, records, said = run(words, "--jobs", "1")
    assert (code, len(plugin.calls("Decrypt"))) == (2, 5), "the limit is that of all together"
    code, records, said = run(words, "--jobs", "1", "--yes-all-v1")
    assert (code, len(records)) == (0, 3), said


def test_case_18_a_service_that_ends_is_no_finding_and_the_next_run_goes_on(
    tmp_path: Path, plugin: RunningPlugin, words: list[str]
) -> None:
    for number in range(12):
        database(tmp_path / "bucket" / f"n{number:02}.db", sealed(Form.V2_SEED, 2, 10 * number))
    slowly = [*words, "--jobs", "1", "--kms-rate", "5"]
    asker = subprocess.Popen(slowly, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    good = [json.loads(asker.stdout.readline()) for _ in range(4)]
    plugin.stop()
    rest = asker.stdout.read()  # not by communicate: it knows nothing of what was read ahead of a line
    _, said = asker.communicate(timeout=120)
    records = good + [json.loads(line) for line in rest.splitlines()]
    assert asker.returncode == 5, said
    failed = [record for record in records if record["status"] == "failed"]
    assert len(failed) == 3, "three in a row are enough"
    assert all(record["outage"] and record["kms"][0]["failed"] for record in failed)
    kept = [record for record in records if record["status"] == "ok"]
    assert 4 <= len(kept) == len(records) - 3 < 9
    plugin.start()
    code, records, said = run(words, "--jobs", "2")
    assert (code, Counter(record["status"] for record in records)) == (0, {"ok": 12}), said
    assert f"kept {len(kept)}" in said
