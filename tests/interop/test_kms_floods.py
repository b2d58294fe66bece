"""Sockets that flood, stall or are full: every call ends by a deadline of ours, and the words fit what happened."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptool.providers.kms_grpc import GrpcKms, parse_endpoint
from snaptool.providers.kms_pace import Retry
from snaptool.providers.kms_service import Category, KmsAnsweredWrongly, KmsError, KmsRefused, KmsUnreachable
from snaptool.providers.provider import Api
from tests.support.kms_plugin import REPOSITORY, kms_plugin
from tests.support.kms_values import local_keks

SERVER = """
import os, socket, sys, time
how, path = sys.argv[1:]
SETTINGS = bytes.fromhex("000000040000000000")
PING = bytes.fromhex("000008060000000000") + bytes(8)
HEADERS = bytes.fromhex("00000501040000000140") + b"\\x01a\\x01b"
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen(50)
print("ready", flush=True)
sys.stdin.readline()
while True:
    connection, _ = server.accept()
    if os.fork():
        connection.close()
        continue
    server.close()
    flood = {"settings": SETTINGS, "ping": PING, "headers": HEADERS}.get(how)
    try:
        if flood:
            connection.sendall(SETTINGS)
            while True:
                connection.sendall(flood * 1000)
        for byte in SETTINGS * 100 if how == "drip" else b"":
            connection.sendall(bytes([byte]))
            time.sleep(0.2)
        time.sleep(60)
    except OSError:
        pass
    os._exit(0)
"""


@contextlib.contextmanager
def raw_server(how: str) -> Iterator[str]:
    """A server of its own process group, so that its connections end with it."""
    with tempfile.TemporaryDirectory(prefix="testkms-") as folder:
        path = str(Path(folder) / "kms.sock")
        with subprocess.Popen(
            [sys.executable, "-c", SERVER, how, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "ready\n"
            process.stdin.write("go\n")
            process.stdin.flush()
            try:
                yield path
            finally:
                os.killpg(process.pid, 9)


ASK = """
import sys
from snaptool.providers.kms import Api, KmsError
from snaptool.providers.kms_grpc import GrpcKms, parse_endpoint
from snaptool.providers.kms_pace import Retry
service = GrpcKms("kp", Api.V2, parse_endpoint("unix://" + sys.argv[1]), timeout=0.5, retry=Retry(tries=2))
try:
    service.status()
except KmsError as error:
    print(type(error).__name__, error.category, error, sep="|")
service.close()
"""


@pytest.mark.parametrize("how", ["silent", "drip", "settings", "ping", "headers"])
def test_a_call_ends_by_our_deadline_and_so_does_the_process(how: str) -> None:
    with raw_server(how) as path:
        # The limit is for a hang alone: a flooded connection held gRPC's own threads for ever.
        ran = subprocess.run(
            [sys.executable, "-c", ASK, path], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
        )
    kind, category, message = ran.stdout.strip().split("|")
    assert ran.returncode == 0, ran.stderr
    if how == "headers":  # a frame for a stream that nobody opened is an error of the connection
        assert category in (Category.TIMEOUT, Category.UNAVAILABLE, Category.NOT_A_PLUGIN, Category.OTHER)
    else:
        assert (kind, category) == ("KmsUnreachable", Category.TIMEOUT)
        assert "no answer to Status within 0.5 s" in message


def test_a_full_queue_of_connections_is_no_leftover() -> None:
    with tempfile.TemporaryDirectory(prefix="testkms-") as folder, contextlib.ExitStack() as stack:
        path = str(Path(folder) / "kms.sock")
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(path)
        server.listen(1)
        for _ in range(20):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(path)
        with pytest.raises(KmsUnreachable) as refusal:
            GrpcKms("kp", Api.V2, parse_endpoint(f"unix://{path}")).probe()
    assert refusal.value.category is Category.TIMEOUT
    assert "takes no connection: its queue is full (EAGAIN)" in str(refusal.value)
    assert "leftover" not in str(refusal.value)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "pad", "bytes": 5 << 20}, "the answer to Decrypt is larger than 4 MiB"),
        ({"kind": "metadata", "bytes": 100_000}, "or its metadata"),
        ({"kind": "metadata", "bytes": 2_000_000}, "or its metadata"),
    ],
)
def test_a_large_answer_is_not_throttling(fault: dict[str, object], words: str) -> None:
    error = refusal_of(fault)
    assert isinstance(error, KmsAnsweredWrongly)
    assert (error.category, error.attempts) == (Category.BAD_ANSWER, 1)
    assert words in str(error)


def test_throttling_is_still_called_so() -> None:
    error = refusal_of({"kind": "error", "code": "RESOURCE_EXHAUSTED", "text": "quota of your project exceeded"})
    assert isinstance(error, KmsRefused)
    assert error.category is Category.THROTTLED


def refusal_of(fault: dict[str, object]) -> KmsError:
    with kms_plugin() as plugin:
        plugin.fail({"method": "Decrypt", **fault})
        retry = Retry(tries=2, first_wait=0.01)
        service = GrpcKms("kp", Api.V2, parse_endpoint(plugin.endpoint), timeout=5, retry=retry)
        try:
            with pytest.raises(KmsError) as refusal:
                service.unwrap(local_keks(Api.V2).wrap(b"k" * 32))
        finally:
            service.close()
    return refusal.value
