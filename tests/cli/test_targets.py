"""What a run reads is never written; what can be refused before the work is; published is published."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import SAMPLES, Ran, Snaptool, states

SAMPLE = SAMPLES / "aescbc-cluster.db"
BINARY = Path(sys.executable).with_name("snaptool")


@pytest.fixture
def data_directory(snaptool: Snaptool) -> Path:
    """As etcd has it, with a db without trailer, a WAL and more."""
    member = snaptool.folder / "data" / "member"
    for folder in ("snap", "wal"):
        (member / folder).mkdir(parents=True)
    (member / "snap" / "db").write_bytes(SAMPLE.read_bytes()[:-32])
    (member / "snap" / "0000000000000001-0000000000000001.snap").write_bytes(b"snap")
    (member / "wal" / "0000000000000000-0000000000000000.wal").write_bytes(b"wal" * 100)
    return member.parent


WRITES: list[tuple[str, list[str]]] = [
    ("rewrite target", ["rewrite", "SOURCE", "TARGET", "--config", "OLD", "--new-config", "NEW", "--force"]),
    (
        "rewrite report",
        ["rewrite", "SOURCE", "out.db", "--config", "OLD", "--decrypt", "--force", "--report", "TARGET"],
    ),
    ("dry run report", ["rewrite", "SOURCE", "x", "--config", "OLD", "--decrypt", "--dry-run", "--report", "TARGET"]),
    ("repair", ["repair", "SOURCE", "TARGET", "--force"]),
    ("salvage", ["repair", "SOURCE", "TARGET", "--salvage", "--force"]),
]


def run(snaptool: Snaptool, words: list[str], source: Path, target: Path) -> Ran:
    old, new = snaptool.sample("aescbc.yaml"), snaptool.sample("secretbox.yaml")
    named = {"SOURCE": source, "TARGET": target, "OLD": old, "NEW": new, "out.db": snaptool.folder / "out.db"}
    places: list[str | Path] = [named.get(word, word) for word in words]
    if "dry-run" in " ".join(words):
        places.append("--force")
    return snaptool(*places)


@pytest.mark.parametrize(("words"), [words for _, words in WRITES], ids=[name for name, _ in WRITES])
@pytest.mark.parametrize("by_db", [False, True], ids=["directory", "db"])
@pytest.mark.parametrize(
    "name",
    ["snap/db", "wal/0000000000000000-0000000000000000.wal", "snap/0000000000000001-0000000000000001.snap", "new"],
)
def test_nothing_in_a_data_directory_is_a_target(
    snaptool: Snaptool, data_directory: Path, words: list[str], name: str, *, by_db: bool
) -> None:
    source = data_directory / "member" / "snap" / "db" if by_db else data_directory
    ran = run(snaptool, words, source, data_directory / "member" / name)  # the harness sees that no file has changed
    assert ran.code == 2
    assert "never written" in ran.stderr or "never changed" in ran.stderr


@pytest.mark.parametrize("words", [words for _, words in WRITES[:2]], ids=[name for name, _ in WRITES[:2]])
@pytest.mark.parametrize("read", ["aescbc.yaml", "hard link", "soft link"])
def test_no_file_that_the_run_reads_is_a_target(snaptool: Snaptool, words: list[str], read: str) -> None:
    source, old = snaptool.sample("aescbc-cluster.db"), snaptool.sample("aescbc.yaml")
    target = snaptool.folder / "other-name"
    if read == "hard link":
        target.hardlink_to(old)
    elif read == "soft link":
        target.symlink_to(old)
    else:
        target = old
    ran = snaptool(
        *[
            {"SOURCE": source, "TARGET": target, "OLD": old, "NEW": SAMPLES / "secretbox.yaml"}.get(
                word, snaptool.folder / word if word == "out.db" else word
            )
            for word in words
        ]
    )
    assert ran.code == 2
    assert "which this run reads" in ran.stderr


def test_a_configuration_that_comes_from_stdin_is_no_target(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_bytes((SAMPLES / "aescbc.yaml").read_bytes())
    before = states(tmp_path)
    with keys.open() as stdin:
        ran = subprocess.run(
            [BINARY, "rewrite", SAMPLE, keys, "--config", "-", "--decrypt", "--force", "--jobs", "1"],
            stdin=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 2, ran.stderr
    assert states(tmp_path) == before


def rewrite(folder: Path, *words: str, before: Callable[[], None] | None = None, shell: str = "") -> Ran:
    command = [str(BINARY), "rewrite", str(SAMPLE), str(folder / "new.db"), "--config", str(SAMPLES / "aescbc.yaml")]
    command += ["--new-config", str(SAMPLES / "secretbox.yaml"), "--jobs", "1", *words]
    if shell:
        command = ["sh", "-c", f'"$@" {shell}', "sh", *command]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=before,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.mark.parametrize(
    "shell",
    [">/dev/full", "2>/dev/full", ">/dev/full 2>&1", ">&-", "2>&-", ">&- 2>&- <&-", "| true", "-o json >/dev/full"],
)
def test_nothing_after_the_name_takes_the_target_back(tmp_path: Path, shell: str) -> None:
    ran = rewrite(tmp_path, shell=shell)
    assert ran.code == 0
    assert "nothing was" not in ran.text
    assert "bug" not in ran.text
    assert stat.S_IMODE((tmp_path / "new.db").stat().st_mode) == 0o600
    verified = subprocess.run(
        [BINARY, "verify", tmp_path / "new.db", "--config", SAMPLES / "secretbox.yaml", "-q"],
        capture_output=True,
        check=False,
    )
    assert verified.returncode == 0
    if ">/dev/full" in shell and "2>" not in shell:
        assert f"{tmp_path / 'new.db'} was written, complete" in ran.stderr


@pytest.mark.parametrize(("limit", "value"), [("NOFILE", 12), ("NOFILE", 8), ("NOFILE", 6), ("AS", 200 << 20)])
def test_what_the_system_refuses_is_named(tmp_path: Path, limit: str, value: int) -> None:
    number = getattr(resource, f"RLIMIT_{limit}")
    ran = rewrite(tmp_path, "--jobs", "8", before=lambda: resource.setrlimit(number, (value, value)))
    assert "bug" not in ran.text
    assert "Traceback" not in ran.text
    assert (ran.code == 0) == (tmp_path / "new.db").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name != "new.db"] == []


def test_a_full_log_disk_is_no_failure_and_a_missing_report_is_one(tmp_path: Path) -> None:
    ran = rewrite(tmp_path, "--report", "/dev/full")
    assert ran.code == 2
    assert "is a device" in ran.stderr
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize("name", ["n" * 256, "\u00e9" * 128])
def test_a_name_that_is_too_long_is_refused_before_the_work(snaptool: Snaptool, name: str) -> None:
    ran = snaptool("rewrite", SAMPLE, snaptool.folder / name, "--config", SAMPLES / "aescbc.yaml", "--decrypt")
    assert ran.code == 2
    assert "has 256 bytes, and its file system takes 255" in ran.stderr


@pytest.mark.parametrize("size", [(16 << 20) + 1, 64 << 20])
def test_files_that_are_too_large_are_refused_and_not_cut(snaptool: Snaptool, size: int) -> None:
    large = snaptool.folder / "large.yaml"
    large.write_bytes((SAMPLES / "aescbc.yaml").read_bytes())
    os.truncate(large, size)
    for option in ("--config",):
        ran = snaptool("inspect", SAMPLE, option, large, "-o", "json")
        assert ran.code == 2
        assert ran.json["error"]["code"] == "input_too_large"


def test_arguments_that_are_no_utf8_are_shown_and_named(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/o\xff.db"
    texts: list[list[bytes]] = [[b"inspect", odd], [b"list", bytes(SAMPLE), b"/\xff"], [b"get", bytes(SAMPLE), b"\xff"]]
    for words in texts:
        ran = subprocess.run([bytes(BINARY), *words, b"-o", b"json"], capture_output=True, check=False)
        assert ran.returncode in {0, 2}
        assert b"bug" not in ran.stderr
        ran.stderr.decode()
        ran.stdout.decode()


def test_keys_that_every_user_can_read_are_mentioned() -> None:
    keys = Path("/tmp") / f"snaptool-test-{os.getpid()}.yaml"  # noqa: S108 - a directory that every user can enter
    keys.write_bytes((SAMPLES / "aescbc.yaml").read_bytes())
    try:
        for mode, said in ((0o644, True), (0o640, False), (0o600, False)):
            keys.chmod(mode)
            ran = subprocess.run([BINARY, "config", "check", keys], capture_output=True, text=True, check=False)
            assert ran.returncode == 0
            assert ("every user of this machine can read it" in ran.stderr) == said
        keys.chmod(0o644)
        quiet = subprocess.run([BINARY, "inspect", SAMPLE, "--config", keys, "-q"], capture_output=True, check=False)
        assert quiet.stderr == b""
    finally:
        keys.unlink()
