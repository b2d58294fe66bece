"""From bucket to bucket with faults on the way: the target is whole or absent, and the words fit what happened."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from snaptool.providers import kms_pace, kms_unwrapping
from snaptool.stores.listing import entries_below
from snaptool.stores.location import place_of
from snaptool.stores.reading import fetch
from snaptool.stores.store import Seen, open_store
from tests.clouds.between import Asked, Between, Cut, Reply
from tests.clouds.conftest import SECRET, free_port, program, requires, user_of_aws, wait_for
from tests.clouds.stores import Place, of_s3
from tests.clouds.test_s3 import Relay
from tests.support.cli import ROOT, SAMPLES, Ran, Snaptool

pytest.importorskip("hvac", reason="hvac is not installed: `make clouds` installs it")
pytest.importorskip("azure.core", reason="azure is not installed: `make clouds` installs it")

from tests.clouds.test_direct_cli import EACH, Cloud, cloud, kms_config

SAMPLE = SAMPLES / "aescbc-cluster.db"
on_s3 = pytest.mark.parametrize("place", ["s3"], indirect=True)
__all__ = ["cloud"]


@pytest.fixture
def snaptool(tmp_path: Path) -> Snaptool:
    folder = tmp_path / "work"
    folder.mkdir()
    return Snaptool(folder)


def port_of(monkeypatch: pytest.MonkeyPatch, port: int) -> int:
    """Lead S3 to another port; returns the one before."""
    before = int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    return before


@on_s3
@pytest.mark.parametrize("form", ["openshift", "vault openbao"])
def test_sealed_by_a_plugin_to_secretbox_and_back(
    place: Place, snaptool: Snaptool, cloud: Callable[[str], Cloud], form: str
) -> None:
    direct = ("--kms-direct", f"prod={cloud(form).said}")
    kms, local = kms_config(snaptool, "v2"), snaptool.sample("aescbc.yaml")
    boxed = snaptool.write("box.yaml", snaptool.sample("secretbox.yaml").read_text())
    place.put("a.db", SAMPLE.read_bytes())
    steps: list[tuple[str, str, tuple[str | Path, ...]]] = [
        ("a.db", "sealed.db", ("--config", local, "--new-config", kms, *direct)),
        ("sealed.db", "box.db", ("--config", kms, "--new-config", boxed, "--allow-plaintext", *direct)),
        ("box.db", "again.db.gz", ("--config", boxed, "--new-config", kms, *direct)),
    ]
    for source, target, how in steps:
        ran = snaptool("rewrite", place.at(source), place.at(target), *how)
        assert ran.code == 0, ran.text
        assert f"aws s3 cp {place.at(target)}" in ran.stdout
        assert SECRET not in ran.text
    ran = snaptool("verify", place.at("again.db.gz"), "--config", kms, *direct)
    assert ran.code == 0, ran.text
    ran = snaptool("diff", place.at("a.db"), place.at("again.db.gz"), "--config-a", local, "--config-b", kms, *direct)
    assert ran.code == 0, ran.text
    assert place.get("a.db") == SAMPLE.read_bytes()
    assert place.pending() == []


@on_s3
def test_a_key_service_that_fails_leaves_no_target(
    place: Place, snaptool: Snaptool, cloud: Callable[[str], Cloud]
) -> None:
    made = cloud("aws")
    direct = ("--kms-direct", f"prod={made.said}")
    kms, local = kms_config(snaptool, "v2"), snaptool.sample("aescbc.yaml")
    place.put("a.db", SAMPLE.read_bytes())
    ran = snaptool("rewrite", place.at("a.db"), place.at("s.db"), "--config", local, "--new-config", kms, *direct)
    assert ran.code == 0, ran.text
    expired = Reply.of(400, {"__type": "ExpiredTokenException", "message": "The security token is expired"})
    tries: list[tuple[str, tuple[str | Path, ...]]] = [
        ("s.db", ("--config", kms, "--decrypt", *direct)),
        ("a.db", ("--config", local, "--new-config", kms, *direct)),
    ]
    for source, options in tries:
        made.between.replies.extend([expired] * 8)
        ran = snaptool("rewrite", place.at(source), place.at("x.db"), *options)
        made.between.replies.clear()
        assert ran.code == 5, ran.text
        assert "expired" in ran.stderr
        assert "log in" in ran.stderr
        assert sorted(place.names()) == ["a.db", "s.db"]


DENIED = {
    "aws": Reply.of(
        400, {"__type": "AccessDeniedException", "message": "User: arn:aws:iam::1:user/ops is not allowed"}
    ),
    "gcp": Reply.of(403, {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "Permission denied"}}),
    "azure": Reply.of(403, {"error": {"code": "Forbidden", "message": "Caller is not authorized"}}),
    "vault": Reply.of(403, {"errors": ["permission denied"]}),
}
DISABLED = {
    "aws": Reply.of(400, {"__type": "DisabledException", "message": "the key is disabled"}),
    "gcp": Reply.of(
        400,
        {
            "error": {
                "code": 400,
                "status": "FAILED_PRECONDITION",
                "message": "not enabled, current state is: DISABLED.",
            }
        },
    ),
    "azure": Reply.of(
        403, {"error": {"code": "Forbidden", "message": "disabled", "innererror": {"code": "KeyDisabled"}}}
    ),
    "vault": Reply.of(400, {"errors": ["ciphertext version is disallowed by policy (too old)"]}),
}
THROTTLED = {
    "aws": Reply.of(400, {"__type": "ThrottlingException", "message": "Rate exceeded"}),
    "gcp": Reply.of(429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded"}}),
    "azure": Reply.of(429, {"error": {"code": "Throttled", "message": "Too many requests"}}),
    "vault": Reply.of(429, {"errors": ["request path exceeded a quota"]}),
}


@on_s3
@pytest.mark.parametrize(("form", "api"), EACH)
def test_every_form_with_faults_of_its_service_and_of_the_store(
    place: Place,
    snaptool: Snaptool,
    cloud: Callable[[str], Cloud],
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    api: str,
) -> None:
    """From bucket to bucket in the plugin's form: refused, disabled, throttled, and a store that loses answers."""
    monkeypatch.setattr(kms_unwrapping, "SECOND_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(kms_pace.Retry, "wait", lambda *_: 0.02)
    made = cloud(form)
    kind = {"openshift": "azure"}.get(form.partition(" ")[0], form.partition(" ")[0])
    direct = ("--kms-direct", f"prod={made.said}")
    local, kms = snaptool.sample("aescbc.yaml"), kms_config(snaptool, api)
    boxed = snaptool.write("box.yaml", snaptool.sample("secretbox.yaml").read_text())
    place.put("a.db", SAMPLE.read_bytes())
    sealing = ("--config", local, "--new-config", kms, *direct)
    opening = ("--config", kms, "--new-config", boxed, "--allow-plaintext", *direct)

    def run(source: str, target: str, how: tuple[str | Path, ...], replies: list[Reply]) -> Ran:
        made.between.replies.extend(replies)
        ran = snaptool("rewrite", place.at(source), place.at(target), *how)
        made.between.replies.clear()
        assert SECRET not in ran.text
        return ran

    for refusal in (DENIED[kind], DISABLED[kind]):
        ran = run("a.db", "sealed.db", sealing, [refusal] * 40)
        assert ran.code == 5, ran.text
        assert place.names() == ["a.db"]
    ran = run("a.db", "sealed.db", sealing, [THROTTLED[kind]] * 2)
    assert ran.code == 0, ran.text
    for refusal in (DENIED[kind], DISABLED[kind]):
        ran = run("sealed.db", "box.db", opening, [refusal] * 40)
        assert ran.code == 5, ran.text
        assert place.names() == ["a.db", "sealed.db"]

    class Losing(Between):
        lost = 0

        def answer(self, asked: Asked) -> Reply:
            reply = super().answer(asked)
            if asked.method == "PUT" and "If-None-Match" in asked.headers and not self.lost:
                self.lost += 1
                return Reply(500, b"<Error><Code>InternalError</Code></Error>", (("Content-Type", "application/xml"),))
            return reply

    with Losing(port_of(monkeypatch, 9)) as between, monkeypatch.context() as led:
        led.setenv("AWS_ENDPOINT_URL", between.url)
        ran = run("sealed.db", "box.db", opening, [THROTTLED[kind]] * 2)
    assert ran.code == 0, ran.text
    assert between.lost
    port_of(monkeypatch, between.upstream)
    ran = snaptool("diff", place.at("a.db"), place.at("box.db"), "--config-a", local, "--config-b", boxed)
    assert ran.code == 0, ran.text
    assert place.get("a.db") == SAMPLE.read_bytes()
    assert place.pending() == []


@on_s3
def test_a_wrong_region_and_an_expired_token_of_the_store(
    place: Place, snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("a.db", SAMPLE.read_bytes())
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    ran = snaptool("repair", place.at("a.db"), place.at("x.db"))
    assert (ran.code, "AWS_REGION" in ran.stderr) == (5, True), ran.text
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    error = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"

    class Expired(Between):
        def answer(self, asked: Asked) -> Reply:
            if asked.method == "PUT":
                return Reply(400, error, (("Content-Type", "application/xml"),))
            return super().answer(asked)

    with Expired(port_of(monkeypatch, 9)) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        ran = snaptool("repair", place.at("a.db"), place.at("x.db"))
    assert (ran.code, "ExpiredToken" in ran.stderr, "aws sso login" in ran.stderr) == (5, True, True), ran.text
    assert place.names() == ["a.db"]
    assert place.pending() == []


@on_s3
def test_b6_an_upload_that_is_altered_on_the_way_is_no_success(
    place: Place, snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Flipping(Between):
        def answer(self, asked: Asked) -> Reply:
            if asked.method == "PUT" and len(asked.content) > 5000:
                content = bytearray(asked.content)
                content[4000] ^= 1
                asked = replace(asked, content=bytes(content))
            return super().answer(asked)

    place.put("a.db", SAMPLE.read_bytes())
    with Flipping(port_of(monkeypatch, 9)) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        ran = snaptool("repair", place.at("a.db"), place.at("x.db"))
    assert ran.code in {1, 5}, ran.text
    assert place.names() == ["a.db"]


@pytest.mark.parametrize("place", ["s3", "gs", "az"], indirect=True)
def test_b7_a_connection_that_is_cut_goes_on_where_it_ended(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(9 << 20)
    place.put("x", content)
    names = ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST", "AZURE_STORAGE_CONNECTION_STRING")
    name = names[["s3", "gs", "az"].index(place.url.partition(":")[0])]
    text = os.environ[name]
    port = int(text.partition("http://127.0.0.1:")[2].partition("/")[0])
    with Cut(port, 3 << 20) as cut:
        monkeypatch.setenv(name, text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{cut.port}"))
        found = fetch(place_of(place.at("x")), tmp_path)
        assert Path(found.spool.readable_path).read_bytes() == content
        found.spool.close()
        assert cut.asked > 2
    assert list(tmp_path.glob("*.db")) == []


@on_s3
def test_b7_five_failures_without_a_byte_are_unreachable(
    place: Place, snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("a.db", SAMPLE.read_bytes())

    class Empty(Between):
        def answer(self, asked: Asked) -> Reply:
            return Reply(503) if asked.method == "GET" else super().answer(asked)

    with Empty(port_of(monkeypatch, 9)) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        ran = snaptool("inspect", place.at("a.db"), "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (5, "store_unreachable")


@pytest.mark.parametrize("place", ["s3", "gs", "az", "sftp"], indirect=True)
def test_b14_without_room_nothing_is_read(place: Place, snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("a.db", SAMPLE.read_bytes())
    kind = type(open_store(place_of(place.at("a.db"))))
    monkeypatch.setattr(kind, "look", lambda _: Seen(1 << 60, "1"))
    read: list[int] = []

    def reading(*_: object) -> Iterator[bytes]:
        read.append(1)
        yield b""

    monkeypatch.setattr(kind, "read", reading)
    ran = snaptool("inspect", place.at("a.db"), "-o", "json")
    assert (ran.code, read) == (1, []), ran.text
    assert "TMPDIR" in ran.stderr


@on_s3
def test_b16_five_thousand_objects_are_five_calls(
    place: Place, monkeypatch: pytest.MonkeyPatch, versitygw_folder: Path
) -> None:
    for number in range(5000):
        (versitygw_folder / place.url.removeprefix("s3://") / f"etcd-{number:04}.db").write_bytes(b"x")
    with Between(port_of(monkeypatch, 9)) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        assert len(list(entries_below(place.at("etcd-")))) == 5000
    assert len(between.asked) == 5


def test_a_server_that_is_killed_while_it_takes_an_upload(
    no_proxies: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And comes back: nothing has the name, and the next run of the same command succeeds."""
    requires("boto3")
    del no_proxies
    gateway = program("versitygw", "versitygw")
    user_of_aws(monkeypatch)
    folder, port = tmp_path / "s3", free_port()
    folder.mkdir()
    keys = {**os.environ, "ROOT_ACCESS_KEY": "AKIAOFATEST", "ROOT_SECRET_KEY": SECRET}

    def start() -> subprocess.Popen[bytes]:
        argv = [gateway, "--port", f"127.0.0.1:{port}", "--region", "eu-central-1", "--quiet", "posix", folder]
        started = subprocess.Popen(list(map(str, argv)), env=keys, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(port, started)
        return started

    def write() -> subprocess.Popen[str]:
        script = (
            "import sys\nfrom snaptool.stores.location import place_of\n"
            "from snaptool.stores.publish import StoreDraft\nfrom snaptool.errors import SnaptoolError\n"
            "try:\n    with StoreDraft(place_of(sys.argv[1]), force=False) as draft:\n"
            "        draft.write(bytes(40 << 20))\n        draft.publish()\n"
            "except SnaptoolError as error:\n    print(error.code, '|', error.hint)\nelse:\n    print('written')\n"
        )
        return subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE, text=True, cwd=ROOT)

    import boto3

    server = start()
    client = boto3.client("s3", region_name="eu-central-1", endpoint_url=f"http://127.0.0.1:{port}")
    place = of_s3(client)
    url = place.at("x.db")
    relay = Relay(port, 20 << 20)
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{relay.port}")
        writer = write()
        assert relay.held.wait(120)
        server.kill()
        server.wait()
        relay.go_on.set()
        out, _ = writer.communicate(timeout=300)
        assert out.startswith("store_unreachable"), out
        server = start()
        assert place.names() == []
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        out, _ = write().communicate(timeout=300)
        assert out == "written\n"
        assert len(place.get("x.db")) == 40 << 20
    finally:
        relay.close()
        server.kill()
        server.wait()
        client.close()


@on_s3
def test_an_answer_that_is_lost_is_looked_for(
    place: Place, snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store made the object, and the connection ended before it said so: it is there, and that is success."""
    place.put("a.db", SAMPLE.read_bytes())
    lost = threading.Event()

    class Losing(Between):
        def answer(self, asked: Asked) -> Reply:
            reply = super().answer(asked)
            if asked.method == "PUT":
                lost.set()
                return Reply(500, b"<Error><Code>InternalError</Code></Error>", (("Content-Type", "application/xml"),))
            return reply

    with Losing(port_of(monkeypatch, 9)) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        ran = snaptool("repair", place.at("a.db"), place.at("x.db"))
    assert lost.is_set()
    assert sorted(place.names()) == ["a.db", "x.db"]
    assert ran.code == 0, ran.text
    assert snaptool("verify", place.at("x.db")).code in {0, 3}
