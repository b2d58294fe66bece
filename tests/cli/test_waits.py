"""Whatever a command waits for, for however long: a signal ends it, with its code, one sentence, and nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptool.providers.provider import Api
from tests.cli.test_embedded import CLUSTER, K3S
from tests.support.cli import SAMPLES, states
from tests.support.kms_snapshots import configuration, database, kms_entry, sealed
from tests.support.kms_values import Form

SAID = b"snaptool: interrupted: nothing was written\n"
ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM]


def restored() -> None:
    """What a test runner in the background may have ignored counts again."""
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def running(
    *arguments: str | Path, stdin: int = subprocess.DEVNULL, output: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "snaptool", *map(str, arguments)],
        stdin=stdin,
        stdout=output,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=restored,  # noqa: PLW1509 - the child sets its own handlers
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def assert_ends(process: subprocess.Popen[bytes], number: int, *, code: int | None = None, said: bytes = SAID) -> None:
    process.send_signal(number)
    _, err = process.communicate(timeout=30)  # what is waited for never comes
    assert process.returncode == (128 + number if code is None else code), err
    assert err.lstrip(b"\n").replace(b"\r", b"").endswith(said), err
    assert b"Traceback" not in err


class Silent:
    """Listens, takes what is sent, and never answers."""

    def __init__(self, family: int, address: str | tuple[str, int]) -> None:
        self.listener = socket.socket(family)
        self.listener.bind(address)
        self.listener.listen()
        self.asked = threading.Event()
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections.append(connection)
                if connection.recv(1):
                    self.asked.set()

    def close(self) -> None:
        for one in (self.listener, *self.connections):
            one.close()


@pytest.fixture
def silent_plugin(tmp_path: Path) -> Iterator[Silent]:
    found = Silent(socket.AF_UNIX, str(tmp_path / "kms.sock"))
    yield found
    found.close()


@pytest.mark.parametrize("number", ENDING)
def test_a_configuration_from_a_pipe_that_stays_open(tmp_path: Path, number: int) -> None:
    fifo = tmp_path / "config"
    os.mkfifo(fifo)
    writer = os.open(fifo, os.O_RDWR)
    with running("config", "check", fifo) as process:
        os.write(writer, bytes(1 << 16))
        while select.select([], [writer], [], 0.05)[1] == []:  # until somebody has read
            assert process.poll() is None
        assert_ends(process, number)
    os.close(writer)


@pytest.mark.parametrize("words", [("inspect", "-"), ("config", "check", "-")])
def test_stdin_that_stays_open(words: tuple[str, ...]) -> None:
    with running(*words, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        head = (SAMPLES / "aescbc-cluster.db").read_bytes()[:4096] if words[0] == "inspect" else b""
        process.stdin.write(head + bytes((1 << 17) - len(head)))  # more than a pipe holds: the last byte goes in late
        process.stdin.flush()
        assert_ends(process, signal.SIGTERM)


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("command", ["check", "verify", "rewrite"])
def test_a_key_service_that_never_answers(tmp_path: Path, silent_plugin: Silent, command: str, number: int) -> None:
    config = tmp_path / "old.yaml"
    config.write_text(configuration(kms_entry(Api.V2, "kp", f"unix://{tmp_path}/kms.sock")))
    source = database(tmp_path / "old.db", sealed(Form.V2_SEED, 3))
    words: dict[str, tuple[str | Path, ...]] = {
        "check": ("kms", "check", "--config", config),
        "verify": ("verify", source, "--config", config),
        "rewrite": ("rewrite", source, tmp_path / "new.db", "--config", config, "--decrypt"),
    }
    before = states(tmp_path)
    with running(*words[command], "--kms-timeout", "3600") as process:
        assert silent_plugin.asked.wait(30)
        assert_ends(process, number)
    assert states(tmp_path) == before


def test_a_server_that_never_answers(tmp_path: Path) -> None:
    server = Silent(socket.AF_INET, ("127.0.0.1", 0))
    with running("inspect", f"http://127.0.0.1:{server.listener.getsockname()[1]}/backup.db") as process:
        assert server.asked.wait(30)
        assert_ends(process, signal.SIGTERM)
    server.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_question_that_nobody_answers(tmp_path: Path, number: int) -> None:
    token = tmp_path / "token"
    token.write_text(CLUSTER["token"])
    ours, theirs = pty.openpty()
    with running("config", "extract", K3S, "--token-file", token, stdin=theirs, output=theirs) as process:
        assert process.stderr is not None
        asked = b""
        while not asked.endswith(b"[y/N]: "):
            asked += process.stderr.read(1)
        assert_ends(process, number)
    os.close(ours)
    os.close(theirs)


def test_a_command_that_scratch_runs(tmp_path: Path) -> None:
    with running("scratch", SAMPLES / "aescbc-cluster.db", "--", "sh", "-c", "echo begun; exec sleep 3600") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        assert_ends(process, signal.SIGTERM)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [("inspect", "/nowhere"), ("inspect", "--no-such-option"), ("verify", SAMPLES / "mixed.yaml")]
)
def test_a_signal_and_an_error_at_once_are_an_interruption(words: tuple[str | Path, ...]) -> None:
    """The signal is there before the first look, and the error comes before the next one."""
    program = (
        "import os, sys; from snaptool import signals; from snaptool.cli import exits, main\n"
        "import snaptool.cli as cli; real = cli.cli.main\n"
        "def come(*given, **how):\n    os.kill(os.getpid(), 15)\n    return real(*given, **how)\n"
        "cli.cli.main = come\n"
        "main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *map(str, words), "-o", "json"], capture_output=True, check=False, timeout=60
    )
    assert ran.returncode == 143, ran
    assert ran.stderr.endswith(SAID)
    assert json.loads(ran.stdout)["error"]["code"] == "interrupted"


def test_an_endless_device_as_stdin_is_refused() -> None:
    with Path("/dev/zero").open("rb") as endless, running("inspect", "-", stdin=endless.fileno()) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"stdin is a device" in err
