"""Something happens at a given moment of a real command, and what is left of it afterwards is read from /proc.

The command line runs in a process of its own. Python tells a profiler of every call; at the n-th call of a chosen
function the driver notes which programs run in the scratch directories by then and where they listen, so that a test
can be sure of its moment, and acts: it sends a signal to the command, kills the program, fills the disk, or waits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.cli import ROOT

DRIVER = """
import json, os, signal, sys, time

note, moment, left, action, number = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5])
function, _, caller = moment.partition(" in ")
folder = os.environ["TMPDIR"]

def programs():
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/cwd").startswith(folder + "/"):
                found[int(pid)] = open(f"/proc/{pid}/comm").read().strip()
        except OSError:
            pass
    return found

def listening(pids):
    inodes = set()
    for pid in pids:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}").removeprefix("socket:[").removesuffix("]"))
            except OSError:
                pass
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for row in open(f"/proc/net/{table}").readlines()[1:]:
            words = row.split()
            if words[9] in inodes and words[3] in ("0A", "07"):  # TCP_LISTEN; of udp: bound
                found.append(f"{table} {words[1]}")
    for row in open("/proc/net/unix").readlines()[1:]:
        words = row.split()
        if words[6] in inodes and int(words[3], 16) & 0x10000:  # __SO_ACCEPTCON
            found.append("unix " + " ".join(words[7:]))
    return sorted(found)

def act(running):
    if action == "signal":
        os.kill(os.getpid(), int(number))
    elif action == "signal twice":
        os.kill(os.getpid(), int(number))
        os.kill(os.getpid(), int(number))
    elif action == "kill program":
        for pid in running:
            os.kill(pid, signal.SIGKILL)
    elif action == "fill disk":
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        try:
            while True:
                os.write(fd, bytes(65536))
        except OSError:
            pass
    elif action == "wait":
        time.sleep(number)

def hook(frame, event, argument):
    global left
    if event == "call" and frame.f_code.co_qualname == function:
        if caller and (frame.f_back is None or frame.f_back.f_code.co_qualname != caller):
            return
        left -= 1
        if left == 0:
            sys.setprofile(None)
            running = programs()
            with open(note, "w") as file:
                json.dump({"programs": sorted(running.values()), "listening": listening([*running, os.getpid()])}, file)
            act(running)

sys.argv = ["snaptool", *sys.argv[6:]]
from snaptool.cli import main
sys.setprofile(hook)
main()
"""


@dataclass(frozen=True)
class Seen:
    """How it ended, and what ran in the scratch directories when the moment came; empty if it never came."""

    code: int
    stdout: str
    stderr: str
    programs: tuple[str, ...]
    listening: tuple[str, ...]


def run_until(
    folder: Path,
    *words: str | Path,
    moment: str = "none",
    nth: int = 1,
    action: str = "nothing",
    number: float = 0,
    wrapper: tuple[str | Path, ...] = (),
) -> Seen:
    """Run a command whose scratch files go to `folder/temporary`, and act at the n-th call of `moment`.

    `moment` is a qualified name, or `function in caller`. `wrapper`: words in front of the command.
    """
    note, temporary = folder / "note.json", folder / "temporary"
    temporary.mkdir(exist_ok=True)
    line = [*wrapper, sys.executable, "-c", DRIVER, note, moment, nth, action, number, *words]
    with subprocess.Popen(
        list(map(str, line)),
        env=os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=ROOT,
        text=True,
    ) as process:
        stdout, stderr = process.communicate(timeout=90)
    seen = json.loads(note.read_text()) if note.exists() else {"programs": [], "listening": []}
    note.unlink(missing_ok=True)
    return Seen(process.returncode, stdout, stderr, tuple(seen["programs"]), tuple(seen["listening"]))


def left_behind(folder: Path) -> list[str]:
    """Everything that still has to do with `folder/temporary`: files in it, and processes by any trace in /proc."""
    temporary = folder / "temporary"
    processes = [path for path in Path("/proc").iterdir() if path.name.isdigit() and path.name != str(os.getpid())]
    needle = os.fsencode(temporary)
    return [
        *map(str, temporary.rglob("*")),
        *(f"process {path.name}" for path in processes if any(needle in trace for trace in _traces(path))),
    ]


def _traces(process: Path) -> list[bytes]:
    traces = []
    for name in ("cmdline", "environ"):
        try:
            traces.append((process / name).read_bytes())
        except OSError:  # ended meanwhile
            continue
    links = [process / "cwd"]
    try:
        links += (process / "fd").iterdir()
    except OSError:
        return traces
    for link in links:
        try:
            traces.append(os.fsencode(link.readlink()))
        except OSError:
            continue
    return traces


def eventually(claim: Callable[[], bool], seconds: float = 15) -> bool:
    """Wait for a claim to become true. For the moments after a SIGKILL, which nobody can wait for otherwise."""
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
