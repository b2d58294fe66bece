"""What a run leaves in the system besides files: no core of it or of what it starts, no process that outlives it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_interruptions import Driver, left_of
from tests.support.cli import ROOT, SAMPLES
from tests.support.snapshots import Mix, write_snapshot


def allow_cores() -> None:
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    Path("/proc/self/coredump_filter").write_text("0x7f")
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a test runner in the background ignores it


def test_neither_a_run_nor_what_it_starts_may_leave_a_core(tmp_path: Path) -> None:
    both = "/proc/$PPID/{0} /proc/self/{0}".format
    looks = f"grep -h 'core file' {both('limits')}; cat {both('coredump_filter')}"
    ran = subprocess.run(
        [sys.executable, "-m", "snaptool", "scratch", SAMPLES / "aescbc-cluster.db", "--", "sh", "-c", looks],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        preexec_fn=allow_cores,
        capture_output=True,
        text=True,
        check=True,
    )
    *limits, filter_of_run, filter_of_command = ran.stdout.splitlines()
    assert [line.split()[4] for line in limits] == ["0", "0"]
    assert (int(filter_of_run, 16), int(filter_of_command, 16)) == (0, 0)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT])
def test_a_run_that_dies_with_keys_in_memory_leaves_no_core(tmp_path: Path, number: int) -> None:
    write_snapshot(tmp_path / "generated.db", Mix(records=600, sealed=60))
    (tmp_path / "run").mkdir()
    driver = Driver(tmp_path / "run", tmp_path / "generated.db")
    ended = driver.run("read back", "signal", number, before=allow_cores, cwd=tmp_path)
    assert ended.code == (-number if number == signal.SIGSEGV else 128 + number)
    assert [path.name for path in tmp_path.iterdir() if "core" in path.name] == []
    assert driver.left() == []


def test_workers_of_an_audit_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "one.db", Mix(records=20_000, sealed=60))
    for number in range(8):
        os.link(tmp_path / "one.db", tmp_path / f"backup-{number}.db")
    process = subprocess.Popen(
        [sys.executable, "-m", "snaptool", "audit", tmp_path, "--jobs", "2", "-o", "jsonl"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline()  # the others are being looked at
    process.kill()
    process.wait(30)
    process.stdout.close()
    assert left_of(process.pid) == []
