"""Nothing is lost: whatever ends a rewrite, there is a whole target or none, no trace, and one clear line.

A driver runs the real command line in a process of its own and acts at a given moment of it: Python tells an audit hook
when threads are started, when files are opened and mapped, and when the target is about to get its name.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from snaptool import signals
from snaptool.operations.opening import open_snapshot
from snaptool.providers.provider import Api
from tests.support.cli import ROOT, FileState, assert_no_canary, states
from tests.support.kms_plugin import RunningPlugin, kms_plugin
from tests.support.kms_snapshots import NAME, configuration, database, kms_entry, sealed
from tests.support.kms_values import Form
from tests.support.snapshots import NEW_SECRET, Mix, config, write_snapshot

DRIVER = """
import os, signal, sys, threading

moment, delay, action, number = sys.argv[1], float(sys.argv[2]), sys.argv[3], int(sys.argv[4])
main_process, maps, threads, named = os.getpid(), 0, 0, False

def act():
    if action == "signal":
        os.kill(main_process, number)
    elif action == "signal group":
        os.killpg(0, number)
    elif action == "cut":
        os.truncate(source, number)
    elif action == "touch":
        os.utime(source)

def hook(event, arguments):
    global maps, threads, named, moment
    if os.getpid() != main_process:
        return
    now = ""
    if event == "mmap.__new__" and arguments[0] != -1:  # that is memory to share, no file
        maps += 1
        now = {1: "mapped", 2: "read back"}.get(maps, "")
    elif event == "snaptool.thread":
        threads += 1
        now = {1: "thread 1", 3: "thread 3"}.get(threads, "")
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_TMPFILE == os.O_TMPFILE:
        now = "draft"
    elif event == "os.link":
        now, named = "naming", True
    elif event == "open" and named:
        now = "named"
    if now and now == moment:
        moment = "past"
        if delay:
            threading.Timer(delay, act).start()
        else:
            act()

source = sys.argv[6]
sys.argv = ["snaptool", *sys.argv[5:]]
sys.addaudithook(hook)
start = threading.Thread.start
threading.Thread.start = lambda thread: (sys.audit("snaptool.thread"), start(thread))  # Python says it from 3.12 on
from snaptool.cli import main
main()
"""


@dataclass(frozen=True)
class Ended:
    code: int
    stdout: str
    stderr: str


class Driver:
    """A folder with a source and configurations, and a way to run a rewrite in which something happens."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder = folder
        self.source = folder / "source.db"
        self.source.write_bytes(source.read_bytes())
        self.out = folder / "out"
        self.out.mkdir()
        self.target = self.out / "target.db"
        (folder / "old.yaml").write_text(config("aescbc"))
        (folder / "new.yaml").write_text(config("secretbox", name="new", secret=NEW_SECRET))

    def run(
        self,
        moment: str = "never",
        action: str = "",
        number: int = 0,
        *,
        delay: float = 0,
        jobs: int = 2,
        options: tuple[str, ...] = (),
        before: Callable[[], None] | None = None,
        command: str = "rewrite",
        cwd: Path = ROOT,
    ) -> Ended:
        arguments: list[str | Path] = [*command.split(), self.source, self.target, *options]
        if command == "rewrite":
            arguments += ["--config", self.folder / "old.yaml", "--new-config", self.folder / "new.yaml"]
            arguments += ["--jobs", str(jobs)]
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, moment, str(delay), action, str(number), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            preexec_fn=before,  # noqa: PLW1509 - limits have to be set in the child; this process has no other threads
        )
        stdout, stderr = process.communicate(timeout=60)
        assert_no_canary(stdout + stderr, self.folder)
        assert left_of(process.pid) == []
        return Ended(process.returncode, stdout.decode(), stderr.decode())

    def left(self) -> list[str]:
        return sorted(path.name for path in self.out.iterdir())


def left_of(session: int) -> list[psutil.Process]:
    """Processes of a session that are still there after a moment's grace."""
    deadline = time.monotonic() + 5
    while True:
        left = [process for process in psutil.process_iter() if _is_of(process, session)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def _is_of(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generated") / "source.db"
    write_snapshot(path, Mix(records=4_000, sealed=60))
    return path


@pytest.fixture
def driver(tmp_path: Path, snapshot: Path) -> Driver:
    return Driver(tmp_path, snapshot)


MOMENTS = [
    ("mapped", 0),
    ("thread 1", 0),
    ("thread 3", 0),
    ("draft", 0),
    ("draft", 0.1),
    ("read back", 0),
    ("naming", 0),
]


def assert_whole_or_absent(
    driver: Driver, before: dict[Path, FileState], ended: Ended, number: int, whole: bytes | None = None
) -> bool:
    """Hold a run that a signal may have ended to its promises; say whether there is a target.

    A target that got its name before the signal came is right, if it is whole, and if nothing that was said denies it.
    `whole`: what it must be then; a snapshot otherwise.
    """
    assert {path: state for path, state in states(driver.folder).items() if path != driver.target} == before
    assert ended.code in ({0, -9} if number == signal.SIGKILL else {0, 128 + number})
    named = driver.target.exists()
    if named:
        assert driver.target.stat().st_mode & 0o777 == 0o600
        assert "nothing was" not in ended.stderr
    if named and whole is not None:
        assert driver.target.read_bytes() == whole
    elif named:
        with open_snapshot(driver.target) as opened, opened.digests() as digests:
            assert digests.trailer() == "ok"
            assert len(opened.snapshot.database.free_pages()) == 0
    else:
        assert ended.code != 0
        assert ended.stdout == ""
        if number != signal.SIGKILL:
            assert ended.stderr.lstrip("\n") == "snaptool: interrupted: nothing was written\n"
    return named


@pytest.mark.parametrize(("moment", "delay"), MOMENTS)
def test_kill_leaves_no_trace(driver: Driver, moment: str, delay: float) -> None:
    before = states(driver.folder)
    ended = driver.run(moment, "signal", signal.SIGKILL, delay=delay)
    named = assert_whole_or_absent(driver, before, ended, signal.SIGKILL)
    assert not (named and not delay)


@pytest.mark.parametrize(
    ("moment", "delay", "number", "action"),
    [
        ("thread 3", 0, signal.SIGTERM, "signal"),
        ("draft", 0, signal.SIGTERM, "signal"),
        ("naming", 0, signal.SIGTERM, "signal"),
        ("mapped", 0, signal.SIGINT, "signal"),
        ("draft", 0, signal.SIGINT, "signal group"),
        ("read back", 0, signal.SIGINT, "signal group"),
    ],
)
def test_interruption_ends_in_one_line_and_no_target(
    driver: Driver, moment: str, delay: float, number: int, action: str
) -> None:
    before = states(driver.folder)
    ended = driver.run(moment, action, number, delay=delay, before=lambda: restore_signals(number))
    if moment == "naming":
        # Written, verified, about to be named: too late to stop, so it ends as if nothing had been said.
        assert (ended.code, ended.stderr) == (0, "")
        assert driver.left() == ["target.db"]
        return
    assert ended.code == 128 + number
    assert ended.stderr.lstrip("\n") == "snaptool: interrupted: nothing was written\n"  # ^C leaves the line open
    assert ended.stdout == ""
    assert states(driver.folder) == before


def test_interruption_after_naming_comes_too_late_to_leave_a_doubt(driver: Driver) -> None:
    ended = driver.run("named", "signal", signal.SIGINT)
    assert (ended.code, ended.stderr) == (0, "")
    assert driver.left() == ["target.db"]
    assert "read back and verified" in ended.stdout


def test_force_keeps_the_old_target_when_the_run_is_interrupted(driver: Driver) -> None:
    driver.target.write_text("mine")
    ended = driver.run(
        "read back", "signal", signal.SIGTERM, options=("--force",), before=lambda: restore_signals(signal.SIGTERM)
    )
    assert ended.code == 128 + signal.SIGTERM
    assert driver.left() == ["target.db"]
    assert driver.target.read_text() == "mine"


REAL_TIME = range(signal.SIGRTMIN + 1, signal.SIGRTMAX)  # these are all alike
SIGNALS = sorted(int(number) for number in signals.ending() if number not in REAL_TIME)


@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_every_signal_that_ends_a_run_leaves_nothing(driver: Driver, number: int) -> None:
    before = states(driver.folder)
    ended = driver.run("read back", "signal", number, jobs=1, before=lambda: restore_signals(number))
    assert not assert_whole_or_absent(driver, before, ended, number)
    assert ended.code == 128 + number


def restore_signals(number: int) -> None:
    """Undo what a test runner in the background may have ignored."""
    signal.signal(number, signal.SIG_DFL)


def test_signals_that_the_caller_ignores_stay_ignored(driver: Driver) -> None:
    ended = driver.run("read back", "signal", signal.SIGHUP, before=lambda: ignore(signal.SIGHUP))
    assert ended.code == 0
    assert driver.left() == ["target.db"]


def ignore(number: int) -> None:
    signal.signal(number, signal.SIG_IGN)


KILLED = {
    "rewrite": ("mapped", 1.5),
    "repair": ("mapped", 0.6),
    "kms export-deks": ("thread 3", 0.8),
}
"""Commands, and when a signal comes: a moment, and within how many seconds after it."""


class Killed:
    """Runs that are ended at random moments, and what came of them."""

    def __init__(self, folder: Path, plugin: RunningPlugin) -> None:
        self.folder = folder
        self.counts: Counter[str] = Counter()
        write_snapshot(folder / "generated.db", Mix(records=12_000, sealed=60))
        keys = [sealed(Form.V1_GCM, 1, number)[0] for number in range(300)]
        database(folder / "kms.db", keys)
        self.kms = configuration(kms_entry(Api.V1, NAME[Api.V1], plugin.endpoint))
        exported = self.driver("whole", "kms export-deks")
        assert self.end(exported, "kms export-deks", "never", 0, 0).code == 0
        self.keys = exported.target.read_bytes()
        assert len(json.loads(self.keys)["keys"]) == 300

    def driver(self, name: str, command: str) -> Driver:
        folder = self.folder / name
        folder.mkdir()
        driver = Driver(folder, self.folder / ("kms.db" if "export" in command else "generated.db"))
        (folder / "kms.yaml").write_text(self.kms)
        return driver

    @staticmethod
    def end(driver: Driver, command: str, moment: str, number: int, delay: float, jobs: int = 2) -> Ended:
        options = ("--config", str(driver.folder / "kms.yaml"), "--yes-write-keys") if "export" in command else ()
        return driver.run(
            moment,
            "signal",
            number,
            delay=delay,
            jobs=jobs,
            options=options,
            command=command,
            before=None if number in {0, signal.SIGKILL} else lambda: restore_signals(number),
        )

    def one(self, rng: random.Random) -> None:
        command = rng.choice(list(KILLED))
        driver = self.driver("killed", command)
        number = rng.choice([signal.SIGKILL, *SIGNALS])
        before = states(driver.folder)
        moment, within = KILLED[command]
        ended = self.end(driver, command, moment, number, rng.uniform(0, within), rng.choice([1, 2]))
        named = assert_whole_or_absent(driver, before, ended, number, self.keys if "export" in command else None)
        how = "killed" if number == signal.SIGKILL else "ended"
        self.counts[f"{command}: {how if ended.code else 'done'}, {'whole target' if named else 'no target'}"] += 1
        shutil.rmtree(driver.folder)


def test_runs_that_are_ended_at_random_moments_write_all_or_nothing(tmp_path: Path) -> None:
    with kms_plugin() as plugin:
        killed, rng = Killed(tmp_path, plugin), random.Random(1)
        for _ in range(6):
            killed.one(rng)
    assert killed.counts.total() == 6


@pytest.mark.soak
@pytest.mark.parametrize("part", range(5))
def test_signals_at_500_random_moments(tmp_path: Path, part: int) -> None:
    """Rewrite, repair and the export of keys, ended by every signal at any moment. Prints what came of it."""
    with kms_plugin() as plugin:
        killed, rng = Killed(tmp_path, plugin), random.Random(14 + part)
        for _ in range(100):
            killed.one(rng)
    print(dict(sorted(killed.counts.items())))  # noqa: T201 - the note of a soak
    assert killed.counts.total() == 100


# --- disks and folders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [100_000, 5_000_000])
def test_full_disk_is_named_and_leaves_nothing(driver: Driver, limit: int) -> None:
    # A limit on the size of files answers as a full disk does: an error in the middle of a write.
    before = states(driver.folder)
    ended = driver.run(before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert ended.code == 1
    assert ended.stderr.splitlines()[0] == f"snaptool: error: cannot write {driver.target}: File too large"
    assert len(ended.stderr.splitlines()) <= 2
    assert states(driver.folder) == before


def give_up_rights() -> None:
    """Let permissions count for root too, from the next exec on. Source: capabilities(7)."""
    import ctypes

    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability)  # PR_CAPBSET_DROP


def test_folder_without_permission_is_named(driver: Driver) -> None:
    driver.out.chmod(0o500)
    ended = driver.run(before=give_up_rights)
    driver.out.chmod(0o700)
    assert ended.code == 1
    assert ended.stderr.splitlines() == [
        f"snaptool: error: cannot create a file in {driver.out}: Permission denied",
        "snaptool:        check the permissions of the file and its directories",
    ]
    assert driver.left() == []


def test_source_without_permission_is_named(driver: Driver) -> None:
    driver.source.chmod(0)
    ended = driver.run(before=give_up_rights)
    assert ended.code == 2
    assert f"cannot read {driver.source}: Permission denied" in ended.stderr
    assert driver.left() == []


# --- sources that change --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("moment", "delay", "size"),
    [
        ("mapped", 0, 8192),
        ("mapped", 0, 0),
        ("thread 3", 0, 20_000),
        ("draft", 0, 5_000_000),
        ("draft", 0, 8192),
    ],
)
def test_source_that_is_cut_is_damaged_input(driver: Driver, moment: str, delay: float, size: int, jobs: int) -> None:
    ended = driver.run(moment, "cut", size, delay=delay, jobs=jobs)
    assert ended.code == 4, ended
    assert ended.stdout == ""
    lines = [line for line in ended.stderr.splitlines() if line.startswith("snaptool: error: ")]
    assert len(lines) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert driver.left() == []


@pytest.mark.parametrize("moment", ["draft", "read back"])
def test_source_that_is_written_to_is_refused_before_publishing(driver: Driver, moment: str) -> None:
    ended = driver.run(moment, "touch")
    assert ended.code == 4
    assert f"{driver.source} changed while it was read" in ended.stderr
    assert driver.left() == []
