"""A signal is a flag that is looked at; where nobody looks, and at a second one, the process ends cleanly."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import ROOT

BEGIN = """
import os, signal, sys, threading, time
from pathlib import Path
from snaptool import signals

part = Path(sys.argv[1]) / ".part"
signals.block()
signals.install(lambda written: os.write(1, f"ended {written}\\n".encode()))
signals.unwanted(part)
part.touch()

def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


def ran(folder: Path, program: str) -> tuple[int, list[str], bool]:
    """Run a program; return its code, what it said, and whether its file is still there."""
    ended = subprocess.run(
        [sys.executable, "-c", BEGIN + program, str(folder)],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    assert ended.stderr == ""
    return ended.returncode, ended.stdout.splitlines(), (folder / ".part").exists()


def test_a_signal_raises_nothing_until_it_is_looked_at_and_then_once_a_thread(tmp_path: Path) -> None:
    program = """
send()
say("went on")
def other():
    try:
        signals.look()
    except KeyboardInterrupt:
        say("other thread")
for _ in range(2):
    try:
        signals.look()
    except signals.Interrupted:
        say("raised")
thread = threading.Thread(target=other)
thread.start()
thread.join()
sys.exit(signals.last_words())
"""
    assert ran(tmp_path, program) == (143, ["went on", "raised", "other thread"], True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGHUP])
def test_where_nobody_looks_the_process_ends_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    program = f"send({int(number)})\nwhile True: time.sleep(3600)"
    assert ran(tmp_path, program) == (128 + number, ["ended ()"], False)


def test_a_caller_that_ignores_alarms_does_not_make_a_run_endless(tmp_path: Path) -> None:
    program = """
signal.signal(signal.SIGALRM, signal.SIG_IGN)
send()
while True: time.sleep(3600)
"""
    assert ran(tmp_path, program) == (143, ["ended ()"], False)


def test_cleaning_up_that_hangs_is_ended(tmp_path: Path) -> None:
    program = """
send()
try:
    signals.look()
finally:
    time.sleep(3600)
"""
    assert ran(tmp_path, program) == (143, ["ended ()"], False)


def test_a_second_signal_ends_at_once_as_the_first_would_have(tmp_path: Path) -> None:
    program = """
send()
send(signal.SIGUSR1)
say("not said")
"""
    assert ran(tmp_path, program) == (143, ["ended ()"], False)


def test_a_file_that_gets_its_name_meanwhile_is_written(tmp_path: Path) -> None:
    program = """
with signals.no_return():
    send()
    signals.written(part)
    signals.wanted(part)
signals.look()
say("went on", *(Path(name).name for name in signals.all_written()))
send()
say("not said")
"""
    code, said, there = ran(tmp_path, program)
    assert (code, said[0], there) == (143, "went on .part", True)
    assert said[1:] == [f"ended ('{tmp_path / '.part'}',)"]


def test_a_file_that_could_not_get_its_name_is_not(tmp_path: Path) -> None:
    program = """
try:
    with signals.no_return():
        send()
        say("named?")
except signals.Interrupted:
    say("no")
"""
    assert ran(tmp_path, program) == (0, ["named?", "no"], True)


def test_nothing_gets_a_name_after_a_signal(tmp_path: Path) -> None:
    program = """
send()
try:
    with signals.no_return():
        say("not said")
except signals.Interrupted:
    say("no")
"""
    assert ran(tmp_path, program) == (0, ["no"], True)


def test_a_wait_is_ended_where_it_is(tmp_path: Path) -> None:
    program = """
ours, theirs = os.pipe()
threading.Timer(0.3, send).start()
try:
    with signals.interruptible():
        os.read(ours, 1)
except signals.Interrupted:
    say("raised")
"""
    assert ran(tmp_path, program) == (0, ["raised"], True)


@pytest.mark.parametrize("wait", ["signals.sleep(3600)", "signals.join(thread)"])
def test_sleeping_and_joining_look(tmp_path: Path, wait: str) -> None:
    program = f"""
thread = threading.Thread(target=time.sleep, args=(3600,), daemon=True)
thread.start()
threading.Timer(0.3, send).start()
try:
    {wait}
except signals.Interrupted:
    say("raised")
    os._exit(0)
"""
    assert ran(tmp_path, program) == (0, ["raised"], True)


def test_signals_wait_before_anything_else_is_imported() -> None:
    """Python's own answer to SIGINT is an exception, which in a compiled module that is being loaded is a crash."""
    program = """
import os, signal, sys
first = {}
def hook(event, arguments):
    if event == "import" and arguments[0].startswith("snaptool.") and arguments[0] != "snaptool.__main__":
        waits = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        first.setdefault(arguments[0], waits)
sys.addaudithook(hook)
sys.argv = ["snaptool", "--version"]
from snaptool.__main__ import main
try:
    main()
finally:
    os.write(2, repr([*first.items()][:3]).encode())
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=60, check=False, text=True
    )
    assert ended.stderr == repr([("snaptool.signals", False), ("snaptool.hashing", True), ("snaptool.cli", True)])
