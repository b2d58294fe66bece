"""`snaptool audit` while workers, the scheduler and the asking process are killed: every backup has one row, and right.

A small fleet in every run; 200 backups, and 5,000, are soak.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from tests.support.cli import SAMPLES
from tests.support.dask import running

KEYS = ["--config", str(SAMPLES / "aescbc.yaml"), "--config", str(SAMPLES / "mixed.yaml")]
MADE = {
    "ok": "aescbc-cluster.db",
    "plaintext": "mixed-providers.db",
    "undecryptable": "lost-key.db",
    "cut": "aescbc-cluster.db",
    "flipped": "mixed-providers.db",
}
STATUS = {"cut": "damaged", "flipped": "damaged"}
has_dask = importlib.util.find_spec("distributed") is not None


def fleet(folder: Path, count: int, seed: int = 7) -> dict[str, str]:
    """Write backups of three providers, with a lost key, plaintext, files that are cut, one flipped byte."""
    folder.mkdir()
    chance = random.Random(seed)
    wanted = {}
    for number in range(count):
        kind = chance.choices(list(MADE), [158, 14, 13, 8, 7])[0] if number >= len(MADE) else list(MADE)[number]
        content = bytearray((SAMPLES / MADE[kind]).read_bytes())
        if kind == "cut":
            del content[len(content) // chance.randint(2, 9) :]
        if kind == "flipped":
            content[chance.randrange(len(content) - 32)] ^= 1 << chance.randrange(8)  # the SHA-256 behind it says so
        path = folder / f"etcd-{number:04}.db"
        path.write_bytes(content)
        wanted[str(path)] = STATUS.get(kind, kind)
    return wanted


def rows(folder: Path) -> dict[str, str]:
    with closing(sqlite3.connect(folder / "store.db")) as database:
        found = database.execute("select url, status from result").fetchall()
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert len(dict(found)) == len(found), "no row twice"
    return dict(found)


class Asker:
    """A run of `snaptool audit` that prints each record as it comes."""

    def __init__(self, folder: Path, *more: str, where: str = "") -> None:
        words = [
            "audit",
            where or str(folder / "bucket"),
            "--store",
            str(folder / "store.db"),
            "-o",
            "jsonl",
            *KEYS,
            *more,
        ]
        (folder / "work").mkdir(exist_ok=True)
        if "--scheduler" not in more:  # Dask has folders of its own
            words += ["--work-dir", str(folder / "work")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "snaptool", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.records: list[dict[str, Any]] = []

    @property
    def _out(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def hear(self, count: int) -> None:
        for _ in range(count):
            line = self._out.readline()
            if not line:
                pytest.fail(f"it ended: {self.process.communicate()[1].decode()}")
            self.records.append(json.loads(line))

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> None:
        family = self.workers()
        self.kill_alone()
        gone, alive = psutil.wait_procs(family, timeout=60)
        assert not alive, "workers end with the one who asks"
        assert len(gone) == len(family)

    def kill_alone(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        out = self._out.read()  # not by communicate: it knows nothing of what was read ahead of a line
        _, self.said = self.process.communicate(timeout=500)
        self.records += [json.loads(line) for line in out.splitlines()]
        return self.process.returncode


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.soak)])
def test_case_2_and_4_whoever_is_killed_every_backup_has_one_row_and_it_is_right(tmp_path: Path, count: int) -> None:
    wanted = fleet(tmp_path / "bucket", count)
    first = Asker(tmp_path, "--jobs", "2")
    kills = 0
    for _ in range(3):
        first.hear(count // 15)
        for worker in first.workers()[kills % 2 :][:1]:
            worker.send_signal(signal.SIGKILL)
            kills += 1
    first.hear(count // 15)
    first.kill()
    assert list((tmp_path / "work").iterdir()) == [], "nothing is left"
    before = rows(tmp_path)
    assert len(first.records) <= len(before) < count
    second = Asker(tmp_path, "--jobs", "2")
    assert second.end() == 3, second.said
    assert f"kept {len(before)}".encode() in second.said
    assert rows(tmp_path) == wanted
    assert {one["url"]: one["status"] for one in second.records} == wanted
    assert len(second.records) == count
    attempts = sum(one["attempts"] for one in second.records)
    assert attempts <= count + kills, "a death costs one backup one attempt"


def test_case_3_a_backup_that_ends_every_worker_costs_its_own_record_alone(tmp_path: Path) -> None:
    """Each worker that holds it open is killed, as the system does where memory ends."""
    wanted = fleet(tmp_path / "bucket", 12)
    poison = tmp_path / "bucket" / "poison.db"
    with poison.open("wb") as file:  # a snapshot by its first pages, and so large that a worker is met at it
        file.write((SAMPLES / "aescbc-cluster.db").read_bytes()[:8192])
        file.truncate(40 << 30)
    asker = Asker(tmp_path, "--jobs", "2")
    kills = 0
    while kills < 3:
        assert asker.process.poll() is None
        for worker in asker.workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(one.path == str(poison) for one in worker.open_files()):
                    worker.kill()
                    worker.wait(60)
                    kills += 1
                    break
    assert asker.end() == 1, asker.said
    assert rows(tmp_path) == {**wanted, str(poison): "failed"}
    (record,) = (one for one in asker.records if one["status"] == "failed")
    assert (record["attempts"], record["error"]["kind"]) == (3, "worker_died")
    assert "a worker ended with -9, 3 times" in record["error"]["message"]


@pytest.mark.soak
@pytest.mark.skipif(not has_dask, reason="Dask is not installed: pip install 'snaptool[fleet]'")
def test_case_2_and_5_with_dask(tmp_path: Path) -> None:
    wanted = fleet(tmp_path / "bucket", 200)
    with running(tmp_path / "one") as cluster:
        first = Asker(tmp_path, "--scheduler", cluster.address, *cluster.tls)
        for number in range(2):
            first.hear(15)
            for worker in psutil.Process(cluster.workers[number].pid).children(recursive=True):
                worker.send_signal(signal.SIGKILL)
        first.hear(10)
        first.kill_alone()
        before = rows(tmp_path)
        second = Asker(tmp_path, "--scheduler", cluster.address, *cluster.tls)
        second.hear(len(before) + 20)
        cluster.scheduler.kill()
        assert second.end() == 1
        assert b"the scheduler went away" in second.said
    done = rows(tmp_path)
    assert len(before) < len(done) < 200
    assert done.items() <= wanted.items()
    with running(tmp_path / "two", pem=tmp_path / "pem") as cluster:
        third = Asker(tmp_path, "--scheduler", cluster.address, *cluster.tls)
        assert third.end() == 3, third.said
    assert rows(tmp_path) == wanted


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_case_23_an_interrupted_run_leaves_a_whole_store_and_nothing_else(tmp_path: Path, end: signal.Signals) -> None:
    wanted = fleet(tmp_path / "bucket", 40)
    asker = Asker(tmp_path, "--jobs", "2")
    asker.hear(6)
    family = asker.workers()
    asker.process.send_signal(end)
    assert asker.end() == 128 + end
    gone, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert len(gone) == len(family)
    assert list((tmp_path / "work").iterdir()) == []
    done = rows(tmp_path)
    assert 6 <= len(done) < len(wanted)
    assert done.items() <= wanted.items()


def test_case_13_own_workers_listen_on_nothing(tmp_path: Path) -> None:
    fleet(tmp_path / "bucket", 30)
    asker = Asker(tmp_path, "--jobs", "2")
    asker.hear(3)
    family = [psutil.Process(asker.process.pid), *asker.workers()]
    assert len(family) == 3
    sockets = [one for process in family for one in process.net_connections("inet")]
    asker.kill()
    assert sockets == []


@pytest.mark.soak
def test_case_24_the_memory_of_who_asks_does_not_grow_with_the_bytes_and_little_with_the_backups(
    tmp_path: Path,
) -> None:
    """And all work takes less than two cores give in five minutes."""
    fleet(tmp_path / "bucket", 5_000)
    before = os.times()
    asker = Asker(tmp_path, "--jobs", "2")
    peak = 0
    while asker.process.poll() is None and len(asker.records) < 4_990:
        asker.hear(10)
        peak = max(peak, psutil.Process(asker.process.pid).memory_info().rss)
    assert asker.end() == 3
    spent = os.times()
    assert spent.children_user + spent.children_system - before.children_user - before.children_system < 2 * 300
    assert peak < 200 << 20
    assert Counter(rows(tmp_path).values()).total() == 5_000
