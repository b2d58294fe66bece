"""`snaptool audit` and Vault's transit engine, by Vault's own: many keys of KMS v1 are one call, and count as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clouds.between import Between
from tests.clouds.conftest import TOKEN
from tests.support.cli import SAMPLES, Snaptool
from tests.support.kms_snapshots import configuration

hvac = pytest.importorskip("hvac", reason="hvac is not installed: `make clouds` installs it")
DIRECT = ("--kms-direct", "old=vault:transit/kek")
LIMITED = (
    "from snaptool.cli import auditing, main; auditing._MOST_V1 = {most}; import sys; sys.argv[0] = 'snaptool'; main()"
)


@pytest.fixture
def bucket(transit: Between, tmp_path: Path) -> Path:
    """Two backups of a cluster, and one of another: each value has a key of its own."""
    client = hvac.Client(url=transit.url, token=TOKEN)
    client.adapter.post("/v1/transit/keys/kek", json={})
    client.adapter.close()
    entry = '{kms: {apiVersion: v1, name: "old", endpoint: "unix:///nowhere/kms.sock", timeout: 3s}}'
    (tmp_path / "kms.yaml").write_text(configuration(entry))
    folder = tmp_path / "bucket"
    folder.mkdir()
    snaptool = Snaptool(tmp_path)
    for name in ("a", "b"):
        target = folder / f"{name}.db"
        words = ("--config", SAMPLES / "aescbc.yaml", "--new-config", tmp_path / "kms.yaml", *DIRECT)
        made = snaptool(
            *("rewrite", SAMPLES / "aescbc-cluster.db", target, *words, "--kms-v1-dek-per-object"), makes=[target]
        )
        assert made.code == 0, made.text
    (folder / "again.db").write_bytes((folder / "a.db").read_bytes())
    transit.asked.clear()
    return folder


def audit(bucket: Path, most: int, *more: str) -> subprocess.CompletedProcess[str]:
    words = ["audit", str(bucket), "--config", str(bucket.parent / "kms.yaml"), *more]
    words += ["--store", str(bucket.parent / "store.db"), "-o", "jsonl", "--jobs", "1"]
    command = [sys.executable, "-c", LIMITED.format(most=most), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)


def decrypts(transit: Between) -> int:
    return sum("/decrypt/" in one.path for one in transit.asked)


def test_case_17_vaults_batch_is_an_exception_to_the_limit_of_kms_v1(transit: Between, bucket: Path) -> None:
    ran = audit(bucket, 4, *DIRECT, "--kms-concurrency", "1")
    assert (ran.returncode, len(ran.stdout.splitlines())) == (0, 3), ran.stderr
    assert ran.stdout.count('"status": "ok"') == 3
    assert decrypts(transit) == 2, "one call for each of two clusters; what is known is not asked for"


def test_case_17_calls_of_vault_are_counted_too(transit: Between, bucket: Path) -> None:
    ran = audit(bucket, 1, *DIRECT, "--kms-concurrency", "1")
    assert (ran.returncode, "--yes-all-v1" in ran.stderr) == (2, True), ran.stderr
    assert decrypts(transit) == 1


def test_a_value_that_vault_refuses_in_a_batch_is_asked_for_by_itself(transit: Between, bucket: Path) -> None:
    whole = (bucket / "a.db").read_bytes()
    at = whole.index(b"vault:v1:") + 40
    broken = bytearray(whole[:-32])
    broken[at] = broken[at] ^ 1 if chr(broken[at] ^ 1).isalnum() else broken[at] ^ 2
    for path in bucket.iterdir():
        path.unlink()
    (bucket / "a.db").write_bytes(broken)
    ran = audit(bucket, 100, *DIRECT)
    assert (ran.returncode, '"status": "failed"' in ran.stdout) == (1, True), ran.stderr + ran.stdout
    assert "'old'" in ran.stdout
    assert decrypts(transit) >= 2
