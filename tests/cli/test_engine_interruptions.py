"""Whatever ends a command that runs an etcd, or the etcd: no process, no directory, no target, and one clear line.

Each of these tests runs the real command with a real etcd, and reads /proc for what it left.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import states
from tests.support.scratch_moments import Seen, eventually, left_behind, run_until
from tests.support.snapshots import NEW_SECRET, Mix, config, write_snapshot

ETCDUTL, ETCD, NONE = ("etcdutl",), ("etcd",), ()

REWRITE = [
    ("ScratchEtcd._copy", 1, NONE),
    ("_Keeper.wait", 1, ETCDUTL),
    ("ScratchEtcd._wait_until_ready", 1, ETCD),
    ("EtcdClient.apply", 3, ETCD),
    ("EtcdClient.compact", 1, ETCD),
    ("EtcdClient.defragment", 1, ETCD),
    ("Draft.write in EtcdClient.save", 2, ETCD),
    ("_read_back", 1, NONE),
]
BOOT = [
    ("_Keeper.wait", 1, ETCDUTL),
    ("ScratchEtcd._wait_until_ready", 1, ETCD),
    ("EtcdClient.pages", 2, ETCD),
    ("EtcdClient.compact", 1, ETCD),
]


def name(value: object) -> str | None:
    return value if isinstance(value, str) else None


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generated") / "source.db"
    write_snapshot(path, Mix(records=1_500, sealed=60))
    return path


class Folder:
    """A source, configurations, and commands on them."""

    def __init__(self, path: Path, snapshot: Path) -> None:
        self.path = path
        self.source = Path(shutil.copy2(snapshot, path / "source.db"))
        self.target = path / "target.db"
        (path / "old.yaml").write_text(config("aescbc"))
        (path / "new.yaml").write_text(config("secretbox", name="new", secret=NEW_SECRET))
        keys = ("--config", path / "old.yaml", "--new-config", path / "new.yaml", "--jobs", "1")
        self.by_etcd = ("rewrite", self.source, self.target, *keys, "--engine", "etcd")
        self.checked = ("rewrite", self.source, self.target, *keys, "--boot-check")
        self.verified = ("verify", "--boot", self.source, "--jobs", "1")
        self.before = states(path)

    def words(self, command: str) -> tuple[str | Path, ...]:
        return {"by_etcd": self.by_etcd, "checked": self.checked, "verified": self.verified}[command]

    def assert_nothing_left(self, *, wait: bool = False) -> None:
        """`wait`: for the keeper, which cleans up behind a command that was killed."""
        if wait:
            eventually(lambda: left_behind(self.path) == [])
        assert left_behind(self.path) == []
        assert states(self.path) == self.before


@pytest.fixture
def folder(tmp_path: Path, snapshot: Path) -> Folder:
    return Folder(tmp_path, snapshot)


# --- the command is ended -------------------------------------------------------------------------------------------


def assert_ended_by(seen: Seen, number: signal.Signals) -> None:
    if number == signal.SIGKILL:
        assert (seen.code, seen.stdout) == (-signal.SIGKILL, "")
        return
    assert (seen.code, seen.stdout) == (128 + number, "")
    assert seen.stderr.lstrip("\n") == "snaptool: interrupted: nothing was written\n"  # ^C leaves the line open


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize(("moment", "nth", "programs"), REWRITE, ids=name)
def test_a_rewrite_by_etcd_that_is_ended_leaves_nothing(
    folder: Folder, moment: str, nth: int, programs: tuple[str, ...], number: signal.Signals
) -> None:
    seen = run_until(folder.path, *folder.by_etcd, moment=moment, nth=nth, action="signal", number=number)
    assert seen.programs == programs
    assert_ended_by(seen, number)
    folder.assert_nothing_left(wait=number == signal.SIGKILL)


@pytest.mark.parametrize(
    ("command", "number"),
    [("verified", signal.SIGKILL), ("verified", signal.SIGTERM), ("checked", signal.SIGKILL)],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else value,
)
@pytest.mark.parametrize(("moment", "nth", "programs"), BOOT, ids=name)
def test_a_check_by_booting_that_is_ended_leaves_nothing(
    folder: Folder, command: str, moment: str, nth: int, programs: tuple[str, ...], number: signal.Signals
) -> None:
    seen = run_until(folder.path, *folder.words(command), moment=moment, nth=nth, action="signal", number=number)
    assert seen.programs == programs
    assert_ended_by(seen, number)
    folder.assert_nothing_left(wait=number == signal.SIGKILL)


def test_ctrl_c_in_the_middle_leaves_nothing(folder: Folder) -> None:
    seen = run_until(folder.path, *folder.by_etcd, moment="EtcdClient.apply", action="signal", number=signal.SIGINT)
    assert seen.programs == ETCD
    assert_ended_by(seen, signal.SIGINT)
    folder.assert_nothing_left()


def test_a_second_ctrl_c_while_it_cleans_up_leaves_nothing(folder: Folder) -> None:
    seen = run_until(folder.path, *folder.by_etcd, moment="_Keeper.close", action="signal twice", number=signal.SIGINT)
    assert seen.programs == ETCD
    assert_ended_by(seen, signal.SIGINT)
    folder.assert_nothing_left(wait=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_scratch_that_is_ended_leaves_nothing(folder: Folder, number: signal.Signals) -> None:
    words = ("scratch", folder.source)
    seen = run_until(
        folder.path, *words, moment="ScratchEtcd.check_running in scratch_command", action="signal", number=number
    )
    assert seen.programs == ETCD
    assert seen.code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    folder.assert_nothing_left(wait=number == signal.SIGKILL)


# --- etcd is killed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "moment", "nth", "says"),
    [
        ("by_etcd", "_Keeper.wait", 1, r"etcdutl 3\.5\.1 cannot restore the snapshot \(by signal 9\)"),
        ("by_etcd", "ScratchEtcd._wait_until_ready", 1, "etcd ended by signal 9"),
        ("by_etcd", "EtcdClient.apply", 3, "etcd ended by signal 9"),
        ("by_etcd", "EtcdClient.compact", 1, "etcd ended by signal 9"),
        ("by_etcd", "Draft.write in EtcdClient.save", 2, "etcd ended by signal 9"),
        ("verified", "_Keeper.wait", 1, r"etcdutl 3\.5\.1 cannot restore the snapshot \(by signal 9\)"),
        ("verified", "_compare_leases", 1, "etcd ended by signal 9"),
        ("checked", "EtcdClient.defragment", 1, "etcd ended by signal 9"),
    ],
)
def test_etcd_killed_is_one_error_and_leaves_nothing(
    folder: Folder, command: str, moment: str, nth: int, says: str
) -> None:
    seen = run_until(folder.path, *folder.words(command), moment=moment, nth=nth, action="kill program")
    assert len(seen.programs) == 1
    assert (seen.code, seen.stdout) == (1, "")
    first, second = seen.stderr.splitlines()
    assert re.fullmatch(f"snaptool: error: {says}", first)
    assert second == "snaptool:        something killed it, perhaps for want of memory; run the command again"
    folder.assert_nothing_left()


# --- the disk is full -----------------------------------------------------------------------------------------------

DISK = """
mount -t tmpfs -o size="$1" none "$2" || exit 99
folder="$2"; shift 2
"$@"
code=$?
find "$folder" -mindepth 1 >&2
exit $code
"""


@pytest.fixture(scope="session")
def mounting() -> tuple[str, ...]:
    """Words that run a command where it may mount: a name space of its own, in which root is nobody else's root."""
    for words in (("unshare", "--mount"), ("unshare", "--map-root-user", "--mount")):
        try:
            tried = subprocess.run([*words, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
        except OSError:
            break
        if tried.returncode == 0:
            return words
    pytest.skip("this machine lets nobody mount a small disk; limits on file sizes are tested in test_keeper.py")


NO_FILE = "cannot write scratch files in {folder}: No space left on device"
NO_COPY = r"cannot copy to the scratch directory {folder}/\S+: No space left on device"
NO_RESTORE = r"etcdutl 3\.5\.1 cannot restore the snapshot \(with exit code 1\): Error: .*no space left on device"
NO_BOOT = "etcd ended with exit code 1: .*no space left on device"
NO_WRITE = "etcd .*no space left on device"  # at this call or at a later one: etcd commits when it likes
NO_DEFRAGMENTATION = "etcd refused defragment: .*no space left on device"


@pytest.mark.parametrize(
    ("command", "size", "moment", "says"),
    [
        ("by_etcd", "2m", "never", NO_FILE),
        ("by_etcd", "8m", "never", NO_COPY),
        ("by_etcd", "12m", "never", NO_RESTORE),
        ("by_etcd", "300m", "ScratchEtcd._start", NO_WRITE),
        ("by_etcd", "300m", "EtcdClient.apply", NO_WRITE),
        ("by_etcd", "300m", "EtcdClient.defragment", NO_DEFRAGMENTATION),
        ("by_etcd", "300m", "EtcdClient.save", NO_FILE),
        ("verified", "2m", "never", NO_COPY),
        ("verified", "12m", "never", NO_RESTORE),
        ("verified", "300m", "ScratchEtcd._start", NO_BOOT),
        ("verified", "300m", "exercise", NO_WRITE),
        ("checked", "2m", "never", NO_COPY),
        ("checked", "12m", "never", NO_RESTORE),
        ("checked", "300m", "exercise", NO_WRITE),
    ],
)
def test_a_full_scratch_disk_is_one_error_and_leaves_nothing(
    folder: Folder, mounting: tuple[str, ...], command: str, size: str, moment: str, says: str
) -> None:
    temporary = folder.path / "temporary"
    disk = (*mounting, "sh", "-c", DISK, "sh", size, str(temporary))
    seen = run_until(folder.path, *folder.words(command), moment=moment, action="fill disk", wrapper=disk)
    assert (seen.code, seen.stdout) == (1, ""), seen
    first, second = seen.stderr.splitlines()
    assert re.fullmatch(f"snaptool: error: {says.format(folder=re.escape(str(temporary)))}", first)
    assert second.startswith("snaptool:        set TMPDIR to a directory on a disk with more room")
    folder.assert_nothing_left()
