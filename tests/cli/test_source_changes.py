"""The file that was opened is the file that is read; one that changes meanwhile is an error, its times put back or not.

A driver runs the real command line and does something to the source when it is mapped, when workers are forked, when
the draft is made, or when the draft is read back.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from snaptool import inspect, open_snapshot
from snaptool.errors import SnaptoolError
from snaptool.sources import SourceChanged
from tests.support.cli import ROOT
from tests.support.snapshots import NEW_SECRET, Mix, config, write_snapshot

DRIVER = """
import os, sys

moment, action, source = sys.argv[1:4]
main_process, maps, done = os.getpid(), 0, False

def in_place():
    status = os.stat(source)
    with open(source, "r+b") as file, open(source + ".other", "rb") as other:
        mine, theirs = file.read(), other.read()
        at = next(place for place in range(len(mine) // 2, len(mine)) if mine[place] != theirs[place])
        file.seek(at)
        file.write(bytes([mine[at] ^ 1]))
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))

ACTIONS = {
    "replace": lambda: os.replace(source + ".other", source),
    "unlink": lambda: os.unlink(source),
    "cut": lambda: os.truncate(source, 8192),
    "grow": lambda: open(source, "ab").write(bytes(100000)),
    "in place": in_place,
}

def hook(event, arguments):
    global maps, done
    if done or os.getpid() != main_process:
        return
    now = ""
    if event == "mmap.__new__" and arguments[0] != -1:
        maps += 1
        now = {1: "mapped", 2: "read back"}.get(maps, "")
    elif event == "os.fork":
        now = "fork"
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_TMPFILE == os.O_TMPFILE:
        now = "draft"
    if now == moment:
        done = True
        ACTIONS[action]()

sys.argv = ["snaptool", *sys.argv[4:]]
sys.addaudithook(hook)
from snaptool.cli import main
main()
"""


class Folder:
    def __init__(self, path: Path, snapshots: Path) -> None:
        self.path = path
        self.source = path / "source.db"
        shutil.copyfile(snapshots / "a.db", self.source)
        shutil.copyfile(snapshots / "b.db", path / "source.db.other")
        shutil.copyfile(snapshots / "a.db", path / "kept.db")
        (path / "old.yaml").write_text(config("aescbc"))
        (path / "new.yaml").write_text(config("secretbox", name="new", secret=NEW_SECRET))
        self.target = path / "target.db"

    def run(self, moment: str, action: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-c", DRIVER, moment, action, str(self.source), *map(str, words)]
        return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    def rewrite(self, moment: str, action: str, jobs: int) -> subprocess.CompletedProcess[str]:
        configs: list[str | Path] = ["--config", self.path / "old.yaml", "--new-config", self.path / "new.yaml"]
        return self.run(
            moment, action, "rewrite", self.source, self.target, *configs, "--jobs", str(jobs), "-o", "json"
        )


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("snapshots")
    write_snapshot(path / "a.db", Mix(records=3_000, sealed=60, seed=1))
    write_snapshot(path / "b.db", Mix(records=3_000, sealed=60, seed=2))
    assert (path / "a.db").read_bytes() != (path / "b.db").read_bytes()
    return path


@pytest.fixture
def folder(tmp_path: Path, snapshots: Path) -> Folder:
    return Folder(tmp_path, snapshots)


@pytest.mark.parametrize(("moment", "jobs"), [("mapped", 1), ("mapped", 2), ("draft", 2), ("read back", 1)])
@pytest.mark.parametrize("action", ["replace", "unlink"])
def test_a_path_that_changes_hands_is_not_looked_at_again(folder: Folder, action: str, moment: str, jobs: int) -> None:
    ran = folder.rewrite(moment, action, jobs)
    assert ran.returncode == 0, ran.stderr
    pairs: list[str | Path] = ["--config-a", folder.path / "old.yaml", "--config-b", folder.path / "new.yaml"]
    compared = folder.run("never", "", "diff", folder.path / "kept.db", folder.target, *pairs, "-o", "json")
    assert compared.returncode == 0, compared.stdout
    assert json.loads(compared.stdout)["changed"] == []


@pytest.mark.parametrize(("moment", "jobs"), [("mapped", 1), ("mapped", 2), ("draft", 2), ("read back", 1)])
@pytest.mark.parametrize("action", ["cut", "grow", "in place"])
def test_a_file_that_changes_is_an_error_and_nothing_appears(
    folder: Folder, action: str, moment: str, jobs: int
) -> None:
    ran = folder.rewrite(moment, action, jobs)
    assert ran.returncode == 4, ran.stderr
    assert "bug" not in ran.stderr
    assert "error" in json.loads(ran.stdout)
    assert not folder.target.exists()
    assert not list(folder.path.glob(".*"))


READING: list[tuple[str, ...]] = [
    ("inspect", "SOURCE", "--config", "old.yaml", "--jobs", "JOBS", "-o", "json"),
    ("verify", "SOURCE", "--config", "old.yaml", "--jobs", "JOBS", "-o", "json"),
    ("list", "SOURCE", "--config", "old.yaml", "-o", "json"),
    ("diff", "SOURCE", "kept.db", "--config-a", "old.yaml", "--config-b", "old.yaml", "-o", "json"),
]


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("words", READING, ids=lambda words: words[0])
def test_every_command_reads_the_file_that_it_opened(folder: Folder, words: tuple[str, ...], jobs: str) -> None:
    named: dict[str, str | Path] = {"SOURCE": folder.source, "JOBS": jobs}
    places = [named.get(word, folder.path / word if "." in word else word) for word in words]
    expected, seen = folder.run("never", "", *places), folder.run("mapped", "replace", *places)
    assert seen.returncode == expected.returncode, seen.stderr
    assert seen.stdout == expected.stdout


# --- as a library ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 4096, 8192, 20_000, 100_000])
def test_a_library_call_on_a_file_that_is_cut_raises(folder: Folder, size: int) -> None:
    """A child process, as the wrong answer would be its end by SIGBUS."""
    code = (
        "import os, sys\n"
        "from snaptool import SnaptoolError, inspect, open_snapshot\n"
        "opened = open_snapshot(sys.argv[1])\n"
        "os.truncate(sys.argv[1], int(sys.argv[2]))\n"
        "for call in (lambda: inspect(opened), lambda: [len(records) for records in opened.snapshot.chunks()]):\n"
        "    try:\n"
        "        call()\n"
        "    except SnaptoolError as error:\n"
        "        print(type(error).__name__)\n"
        "    except AttributeError:\n"
        "        print('read')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, folder.source, str(size)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 2


def test_what_was_found_in_lost_pages_is_not_believed(folder: Folder) -> None:
    with pytest.raises(SourceChanged), open_snapshot(folder.source) as opened:  # noqa: PT012 - it is about the end
        os.truncate(folder.source, 8192)
        with pytest.raises(SnaptoolError):
            inspect(opened)


def test_times_that_are_put_back_do_not_hide_a_change(folder: Folder) -> None:
    with open_snapshot(folder.source) as opened:
        status: Any = folder.source.stat()
        with folder.source.open("r+b") as file:
            file.seek(5000)
            file.write(b"x")
        os.utime(folder.source, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(SourceChanged):
            opened.source.check_unchanged()
