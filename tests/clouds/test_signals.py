"""Case B9: Ctrl-C and SIGTERM while something is on its way from or to each store, and what is left then.

The commands are processes of their own, started as a shell starts them; the network is held in the middle.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.clouds.between import Asked, Between, Reply
from tests.clouds.stores import Place
from tests.clouds.test_s3 import UPLOADER, Relay
from tests.support.cli import ROOT, SAMPLES

SAMPLE = SAMPLES / "aescbc-cluster.db"
everywhere = pytest.mark.parametrize("place", ["s3", "gs", "az", "sftp"], indirect=True)
by_http = pytest.mark.parametrize("place", ["s3", "gs", "az"], indirect=True)
each_signal = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
_WHERE = ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST", "AZURE_STORAGE_CONNECTION_STRING")
_HERE = re.compile(r"127\.0\.0\.1:(\d+)")


def port_of(place: Place) -> int:
    text = place.url + "".join(os.environ.get(name, "") for name in _WHERE)
    found = _HERE.search(text)
    assert found is not None
    return int(found[1])


def environment(port: int, other: int) -> dict[str, str]:
    """The environment in which the store is at another port."""
    known = Path(os.environ["HOME"], ".ssh", "known_hosts")
    if known.exists() and f":{port} " in known.read_text():
        known.write_text(known.read_text() + known.read_text().replace(f":{port} ", f":{other} "))
    led = {name: os.environ[name].replace(f":{port}", f":{other}") for name in _WHERE if name in os.environ}
    return {**os.environ, **led}


@contextmanager
def started(argv: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        argv, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def relayed(place: Place, up: int = 1 << 40, down: int = 1 << 40) -> Iterator[tuple[Relay, str, dict[str, str]]]:
    """The store behind a line that is held after so many bytes: the line, the URL and the environment to use."""
    port = port_of(place)
    relay = Relay(port, hold_after=up, hold_back=down)
    try:
        # Google's server answers with where to send the rest.
        relay.alter(b":%d" % port, b":%d" % relay.port)
        yield relay, place.url.replace(f":{port}", f":{relay.port}"), environment(port, relay.port)
    finally:
        relay.close()


@contextmanager
def uploading(place: Place) -> Iterator[tuple[Relay, subprocess.Popen[str]]]:
    """An upload of 40 MiB, half of which has left."""
    with (
        relayed(place, up=18 << 20) as (relay, url, env),
        started([sys.executable, "-c", UPLOADER, f"{url}/x"], env) as process,
    ):
        yield relay, process


@each_signal
@everywhere
def test_b9_a_signal_while_uploading_leaves_nothing(place: Place, number: signal.Signals) -> None:
    with uploading(place) as (relay, process):
        assert relay.held.wait(120)
        process.send_signal(number)
        time.sleep(0.5)
        relay.go_on.set()
        out, _ = process.communicate(timeout=120)
    assert out == "interrupted ()\n"
    assert place.names() == []
    assert place.pending() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda one: one.name)
@everywhere
def test_b2_b9_a_signal_while_downloading_leaves_nothing(place: Place, number: signal.Signals, tmp_path: Path) -> None:
    place.put("a.db", os.urandom(12 << 20))
    with relayed(place, down=3 << 20) as (relay, url, env):
        env["TMPDIR"] = str(tmp_path / "room")
        Path(env["TMPDIR"]).mkdir()
        argv = [sys.executable, "-m", "snaptool", "repair", f"{url}/a.db", f"{url}/x.db"]
        with started(argv, env) as process:
            assert relay.held.wait(120)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)  # the network does not move again
    assert process.returncode in {128 + number, -number}, err
    assert "Traceback" not in err
    assert out == ""
    assert place.names() == ["a.db"]
    assert place.pending() == []
    assert list(Path(env["TMPDIR"]).iterdir()) == []


@by_http
def test_b9_a_second_signal_does_not_wait_for_a_network_that_stands_still(place: Place) -> None:
    with uploading(place) as (relay, process):
        assert relay.held.wait(120)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert out in {"ended ()\n", "interrupted ()\n"}
        assert process.returncode != 0 or out == "interrupted ()\n"
    assert place.names() == []


@by_http
def test_b9_a_signal_after_the_last_byte_says_what_is_there(place: Place, tmp_path: Path) -> None:
    """The store has made the object, and its answer is on the way: that it is there is said, whoever asked to stop."""
    made, go_on = threading.Event(), threading.Event()

    class Late(Between):
        def answer(self, asked: Asked) -> Reply:
            reply = super().answer(asked)
            if asked.method in {"PUT", "POST"} and len(asked.content) > 40_000:
                made.set()
                go_on.wait(60)
            led = ((name, value.replace(f":{port}/", f":{self.port}/")) for name, value in reply.headers)
            return replace(reply, headers=tuple(led))  # Google's says where to send the rest

    port = port_of(place)
    with Late(port) as between:
        argv = [sys.executable, "-m", "snaptool", "repair", str(SAMPLE), place.at("x.db")]
        with started(argv, environment(port, between.port)) as process:
            assert made.wait(120)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            go_on.set()
            out, err = process.communicate(timeout=120)
    assert place.names() == ["x.db"]
    assert len(place.get("x.db")) > 40_000
    assert process.returncode != 0 or "x.db" in out
    assert "x.db" in out + err, "what was written is said"
    assert "nothing was" not in err, err
    assert list(tmp_path.glob("*.db")) == []
