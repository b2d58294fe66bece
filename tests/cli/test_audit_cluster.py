"""`snaptool audit --scheduler`: real processes of Dask on loopback, with certificates on both sides."""

from __future__ import annotations

import importlib.util
import inspect
import json
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.support import dask
from tests.support.cli import SAMPLES, Snaptool, assert_no_canary
from tests.support.dask import Cluster, make_certificates, running

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="Dask is not installed: pip install 'snaptool[fleet]'"
)
CONFIGS = {"keys.yaml": "aescbc.yaml", "other.yaml": "mixed.yaml"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("dask") / "cluster") as found:
        for name, sample in CONFIGS.items():
            shutil.copy2(SAMPLES / sample, found.folder / name)
        yield found


def bucket(folder: Path, count: int) -> dict[str, str]:
    """Backups, with the status of each."""
    folder.mkdir()
    content = {"ok": "aescbc-cluster.db", "undecryptable": "lost-key.db"}
    wanted = {}
    for number in range(count):
        status = "damaged" if number % 5 == 4 else "undecryptable" if number % 5 == 3 else "ok"
        whole = (SAMPLES / content.get(status, "aescbc-cluster.db")).read_bytes()
        path = folder / f"n{number:03}.db"
        path.write_bytes(whole[: len(whole) // 2] if status == "damaged" else whole)
        wanted[str(path)] = status
    return wanted


def command(folder: Path, cluster: Cluster, *more: str) -> list[str]:
    words = [sys.executable, "-m", "snaptool", "audit", str(folder / "bucket"), "--store", str(folder / "store.db")]
    return [*words, "--scheduler", cluster.address, *cluster.tls, "-o", "jsonl", *more]


def rows(folder: Path) -> dict[str, str]:
    with closing(sqlite3.connect(folder / "store.db")) as database:
        found = database.execute("select url, status from result").fetchall()
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert len(dict(found)) == len(found), "no row twice"
    return dict(found)


@needs_dask
def test_case_2_11_and_13_two_workers_one_of_them_killed_give_every_answer_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    wanted = bucket(tmp_path / "bucket", 30)
    words = command(tmp_path, cluster, "--config", str(SAMPLES / "aescbc.yaml"))
    asker = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    assert asker.stdout is not None
    lines = [asker.stdout.readline() for _ in range(4)]
    listening = {
        one.laddr.ip
        for process in [*cluster.processes(), psutil.Process(asker.pid)]
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    commands = b"\0".join(" ".join(process.cmdline()).encode() for process in cluster.processes())
    nanny = psutil.Process(cluster.workers[0].pid)
    for worker in nanny.children(recursive=True):
        worker.send_signal(signal.SIGKILL)
    rest = asker.stdout.read()  # not by communicate: it knows nothing of what was read ahead of a line
    _, said = asker.communicate(timeout=240)
    records = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    assert {record["url"]: record["status"] for record in records} == wanted, said.decode()
    assert len(records) == len(wanted)
    assert asker.returncode == 3, said.decode()
    assert rows(tmp_path) == wanted
    for text in (cluster.logs(), commands, (tmp_path / "store.db").read_bytes(), said):
        assert_no_canary(text)
    assert str(tmp_path / "bucket").encode() not in cluster.logs(), "tasks are named by number"


@needs_dask
def test_case_10_a_worker_with_another_configuration_under_the_same_name_answers_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    wanted = bucket(tmp_path / "bucket", 2)
    shutil.copy2(SAMPLES / "aescbc.yaml", tmp_path / "other.yaml")  # the workers have another one there
    ran = subprocess.run(
        command(tmp_path, cluster, "--config", "other.yaml"), capture_output=True, check=False, cwd=tmp_path
    )
    records = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 1
    assert {record["error"]["kind"] for record in records} == {"other_worker"}
    assert all("other configurations" in record["error"]["message"] for record in records)
    assert set(rows(tmp_path).values()) == {"failed"}
    shutil.copy2(SAMPLES / "aescbc.yaml", tmp_path / "keys.yaml")  # as the workers have
    again = subprocess.run(
        command(tmp_path, cluster, "--config", "keys.yaml"), capture_output=True, check=False, cwd=tmp_path
    )
    assert again.returncode == 0, again.stderr
    assert rows(tmp_path) == wanted, "what failed is asked again"


@needs_dask
def test_workers_are_asked_all_that_own_ones_are(cluster: Cluster, tmp_path: Path) -> None:
    bucket(tmp_path / "bucket", 5)
    shutil.copy2(SAMPLES / "aescbc.yaml", tmp_path / "keys.yaml")
    words = command(tmp_path, cluster, "--config", "keys.yaml", "--salvage", "--names", "--recheck", "all")
    there = subprocess.run(words, capture_output=True, check=False, cwd=tmp_path)
    local = [*words[: words.index("--scheduler")], *words[words.index("-o") :], "--jobs", "2"]
    here = subprocess.run(local, capture_output=True, check=False, cwd=tmp_path)
    found = []
    for ran in (there, here):
        assert ran.returncode == 3, ran.stderr
        records = [json.loads(line) for line in ran.stdout.splitlines()]
        found.append({one["url"]: {**one, "checked_at": "", "seconds": 0} for one in records})
    for one in [*found[0].values(), *found[1].values()]:
        one["findings"] = [finding for finding in one["findings"] if not finding.startswith("same_as")]  # by arrival
    assert found[0] == found[1]
    assert sum("salvaged" in one for one in found[0].values()) == 1
    assert sum("lost_names" in one for one in found[0].values()) == 1


@needs_dask
def test_case_12_who_has_no_certificate_of_this_ca_is_not_let_in(cluster: Cluster, tmp_path: Path) -> None:
    bucket(tmp_path / "bucket", 1)
    other = make_certificates(tmp_path / "pem")
    tls = [
        "--tls-ca",
        str(other / "ca.pem"),
        "--tls-cert",
        str(other / "cert.pem"),
        "--tls-key",
        str(other / "key.pem"),
    ]
    stranger = Cluster(cluster.address, tls, tmp_path, cluster.scheduler)
    ran = subprocess.run(command(tmp_path, stranger), capture_output=True, check=False, text=True)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "refuses this certificate" in ran.stderr
    assert len(ran.stderr.splitlines()) == 2, ran.stderr


@needs_dask
@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        ("tcp://192.0.2.7:8786", 2, "runs code in its workers"),
        ("tls://127.0.0.1:8786", 1, "without a certificate"),
        ("127.0.0.1:8786", 2, "is not tls://HOST:PORT"),
        ("tls://127.0.0.1", 2, "is not tls://HOST:PORT"),
    ],
)
def test_case_12_an_address_that_shows_keys_is_refused(snaptool: Snaptool, address: str, code: int, words: str) -> None:
    ran = snaptool("audit", snaptool.folder, "--scheduler", address)
    assert (ran.code, words in ran.stderr) == (code, True), ran.text


@needs_dask
def test_case_5_a_scheduler_that_is_killed_ends_the_run_with_what_is_done(tmp_path: Path) -> None:
    wanted = bucket(tmp_path / "bucket", 40)
    with running(tmp_path / "cluster", 1) as short:
        words = command(tmp_path, short, "--config", str(SAMPLES / "aescbc.yaml"))
        asker = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert asker.stdout is not None
        for _ in range(3):
            assert asker.stdout.readline()
        short.scheduler.kill()
        _, said = asker.communicate(timeout=120)
    assert (asker.returncode, "the scheduler went away" in said) == (1, True), said
    assert "Traceback" not in said
    done = rows(tmp_path)
    assert 3 <= len(done) < len(wanted)
    assert done.items() <= wanted.items()
    local = [*words[: words.index("--scheduler")], "--config", str(SAMPLES / "aescbc.yaml"), "--jobs", "2"]
    again = subprocess.run(local, capture_output=True, text=True, check=False)
    assert f"kept {len(done)}" in again.stderr
    assert rows(tmp_path) == wanted


@needs_dask
def test_the_commands_of_the_documentation_are_those_that_are_tested() -> None:
    """Every option of the example on two hosts is one of Dask's, or of ours, and of the cluster of these tests."""
    text = (SAMPLES.parent / "docs" / "audit.md").read_text()
    block = text.partition("### Dask")[2].partition("```sh\n")[2].partition("```")[0].replace("\\\n", " ")
    lines = [shlex.split(line) for line in block.splitlines() if line and not line.startswith("#")]
    assert [line[:2] for line in lines] == [["dask", "scheduler"], ["dask", "worker"], ["snaptool", "audit"]]
    here = inspect.getsource(dask)
    for program, command, *words in lines:
        options = {word for word in words if word.startswith("--")}
        run = [sys.executable, "-m", program] if program == "snaptool" else [sys.executable, "-m", "dask"]
        helped = subprocess.run([*run, command, "--help"], capture_output=True, text=True, check=False).stdout
        assert len(options) >= 4
        for option in options:
            assert f"{option} " in helped, option
            assert program == "snaptool" or option.startswith("--tls-") or f'"{option}"' in here, option
