"""Servers, proxies and lines that answer what was not asked for: what comes is the object, or a named error."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import snaptool as library
from snaptool.errors import SnaptoolError
from snaptool.stores.location import place_of
from snaptool.stores.publish import StoreDraft
from snaptool.stores.reading import fetch, read_part
from snaptool.stores.store import StoreUnreachable, UploadDiffers, open_store
from tests.clouds.between import Asked, Between, Reply
from tests.clouds.conftest import requires
from tests.clouds.stores import Place
from tests.clouds.test_signals import environment, port_of
from tests.support.cli import ROOT, SAMPLES, Snaptool

SAMPLE = SAMPLES / "aescbc-cluster.db"
by_http = pytest.mark.parametrize("place", ["s3", "gs", "az"], indirect=True)
everywhere = pytest.mark.parametrize("place", ["s3", "gs", "az", "sftp"], indirect=True)


@pytest.fixture
def snaptool(tmp_path: Path) -> Snaptool:
    folder = tmp_path / "work"
    folder.mkdir()
    return Snaptool(folder)


def led_to(port: int, place: Place, monkeypatch: pytest.MonkeyPatch) -> str:
    """Lead the clients of a place to another port; returns its URL there."""
    for name, value in environment(port_of(place), port).items():
        monkeypatch.setenv(name, value)
    return place.url


class Answering(Between):
    """Answers what is asked for by range in its own way. `how`: `fewer`, `more`, `whole`, or as it should."""

    how = ""
    whole = b""

    def answer(self, asked: Asked) -> Reply:
        reply = super().answer(asked)
        if asked.method != "GET" or reply.status != 206 or not self.how:
            return reply
        headers = {name.lower(): value for name, value in reply.headers}
        if self.how == "fewer":
            half = reply.content[: max(1, len(reply.content) // 2)]
            return replace(reply, content=half, headers=kept(reply, "content-md5"))
        if self.how == "more":
            return replace(reply, content=reply.content + b"more", headers=kept(reply, "content-md5"))
        if self.how == "whole" and not headers.get("content-range", "").startswith("bytes 0-0/"):
            return replace(reply, status=200, content=self.whole, headers=kept(reply, "content-range", "content-md5"))
        return reply


def kept(reply: Reply, *without: str) -> tuple[tuple[str, str], ...]:
    return tuple(one for one in reply.headers if one[0].lower() not in without and "checksum" not in one[0].lower())


@by_http
@pytest.mark.parametrize("how", ["fewer", "more", "whole"])
def test_bytes_that_were_not_asked_for_are_never_taken_for_those_that_were(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    content = os.urandom(9 << 20)
    place.put("x", content)
    with Answering(port_of(place)) as between:
        between.whole = content
        path = place_of(f"{led_to(between.port, place, monkeypatch)}/x")
        seen = open_store(path).look()
        assert seen is not None
        between.how = how
        refusal = contextlib.nullcontext() if how == "fewer" else contextlib.suppress(SnaptoolError)
        with refusal:  # what is short goes on
            found = fetch(path, tmp_path)
            assert Path(found.spool.readable_path).read_bytes() == content
            found.spool.close()
        for start, end in ((0, 1000), (5000, 6000), (len(content) - 10, len(content))):
            try:
                part = read_part(path, seen, start, end)
            except SnaptoolError:
                continue
            assert part == content[start:end]


@by_http
def test_what_is_stored_is_read_whatever_is_said_of_its_encoding(place: Place, snaptool: Snaptool) -> None:
    """Tools that upload `x.db.gz` may say that it is gzip-encoded: clients then unpack it on the way, unasked."""
    packed = gzip.compress(SAMPLE.read_bytes())
    kind = place.url.partition(":")[0]
    bucket = place.url.rpartition("/")[2]
    if kind == "s3":
        import boto3

        client = boto3.client("s3", region_name="eu-central-1")
        client.put_object(Bucket=bucket, Key="a.db.gz", Body=packed, ContentEncoding="gzip")
    elif kind == "gs":
        from google.cloud import storage

        blob = storage.Client().bucket(bucket).blob("a.db.gz")
        blob.content_encoding = "gzip"
        blob.upload_from_string(packed)
    else:
        from azure.storage.blob import BlobServiceClient, ContentSettings

        service = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
        settings = ContentSettings(content_encoding="gzip")
        service.get_blob_client(bucket, "a.db.gz").upload_blob(packed, content_settings=settings)
    ran = snaptool("inspect", place.at("a.db.gz"), "-o", "json")
    assert ran.code == 0, ran.text
    assert ran.json["file"]["size"] == SAMPLE.stat().st_size


@by_http
def test_a_store_that_is_not_well_for_a_moment_is_asked_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = os.urandom(6 << 20)
    place.put("x", content)

    class Tired(Between):
        count = 0

        def answer(self, asked: Asked) -> Reply:
            if asked.method == "GET" and "Range" in str(asked.headers):
                self.count += 1
                if self.count % 4:
                    error = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"
                    return Reply(503, error, (("Content-Type", "application/xml"),))
            return super().answer(asked)

    with Tired(port_of(place)) as between:
        path = place_of(f"{led_to(between.port, place, monkeypatch)}/x")
        found = fetch(path, tmp_path)
    assert Path(found.spool.readable_path).read_bytes() == content
    found.spool.close()


@everywhere
def test_what_is_written_and_cannot_be_compared_is_no_success_and_says_so(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network ends between the last byte of the upload and the comparison."""
    path = place_of(place.at("x"))
    kind = type(open_store(path))
    create, look = kind.create, kind.look

    def and_then(self: Any, *arguments: Any) -> None:
        create(self, *arguments)
        monkeypatch.setattr(kind, "look", gone)

    def gone(_: Any) -> None:
        raise StoreUnreachable("the network is gone")

    monkeypatch.setattr(kind, "create", and_then)
    with StoreDraft(path, force=False) as draft:
        draft.write(b"ours")
        with pytest.raises(UploadDiffers, match="was written, and it cannot be compared") as caught:
            draft.publish()
    monkeypatch.setattr(kind, "look", look)
    assert "SHA-256" in caught.value.hint
    assert place.get("x") == b"ours"


@pytest.mark.parametrize("place", ["s3"], indirect=True)
@pytest.mark.parametrize("size", [1000, (16 << 20) + 1])
def test_an_answer_that_was_lost_is_found_although_the_client_tried_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A second try meets what the first has made, and the store says that the name is taken: it is ours."""

    class Losing(Between):
        lost = 0

        def answer(self, asked: Asked) -> Reply:
            reply = super().answer(asked)
            last = asked.method == "PUT" if size < (16 << 20) else asked.method == "POST" and "uploadId" in asked.path
            if last and "If-None-Match" in asked.headers and not self.lost:
                self.lost += 1
                return Reply(500, b"<Error><Code>InternalError</Code></Error>", (("Content-Type", "application/xml"),))
            return reply

    with Losing(port_of(place)) as between:
        path = place_of(f"{led_to(between.port, place, monkeypatch)}/x")
        with StoreDraft(path, force=False) as draft:
            draft.write(bytes(size))
            draft.publish()
            assert draft.published
        assert between.lost
    assert place.get("x") == bytes(size)


@pytest.mark.parametrize(
    "to", ["http://example.com/x", "file:///etc/passwd", "https://me:sesame@h/x", "/again", "ftp://h/x"]
)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_link_that_leads_elsewhere_is_followed_to_https_alone_and_says_so(
    snaptool: Snaptool, no_proxies: None, to: str, status: int
) -> None:
    del no_proxies

    class Leading(Between):
        def answer(self, _: Asked) -> Reply:
            return Reply(status, b"", (("Location", to),))

    with Leading() as server:
        link = f"{server.url}/again?sig=sesame"
        for words in (("inspect", link), ("repair", snaptool.sample("aescbc-cluster.db"), link)):
            ran = snaptool(*words)
            assert ran.code in {2, 5}, ran.text
            assert f"{server.url}/again?…" in ran.stderr
            assert "leads" in ran.stderr
            assert "curl -sD" in ran.stderr
            assert "sesame" not in ran.text


@pytest.mark.parametrize(
    ("url", "variable", "value"),
    [
        ("gs://b/x.db", "STORAGE_EMULATOR_HOST", "http://192.0.2.1:4443"),
        ("gs://b/x.db", "STORAGE_EMULATOR_HOST", "192.0.2.1:4443"),
        (
            "az://c/x.db",
            "AZURE_STORAGE_CONNECTION_STRING",
            "BlobEndpoint=http://192.0.2.1/a;AccountName=a;AccountKey=c2VzYW1lCg==",
        ),
    ],
)
def test_plain_http_of_the_environment_goes_to_this_machine_alone(
    snaptool: Snaptool, no_proxies: None, monkeypatch: pytest.MonkeyPatch, url: str, variable: str, value: str
) -> None:
    requires("google.cloud.storage", "azure.storage.blob", "azure.identity")
    del no_proxies
    monkeypatch.setenv(variable, value)
    ran = snaptool("inspect", url)
    assert (ran.code, "everybody" in ran.stderr, variable in ran.stderr) == (2, True, True), ran.text
    assert "c2Vz" not in ran.text


@pytest.mark.parametrize("place", ["az"], indirect=True)
def test_a_wrong_key_and_an_expired_token_are_not_a_missing_role(
    place: Place, snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("a.db", SAMPLE.read_bytes())
    text = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
    endpoint = re.search("BlobEndpoint=[^;]+", text)
    assert endpoint is not None
    sas = "SharedAccessSignature=sv=2021-10-04&ss=b&srt=sco&sp=r&se=2020-01-01T00:00:00Z&sig=c2VzYW1lCg%3D%3D"
    for wrong in (re.sub("AccountKey=[^;]+", "AccountKey=c2VzYW1lCg==", text), f"{endpoint[0]};{sas}"):
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", wrong)
        ran = snaptool("inspect", place.at("a.db"))
        assert (ran.code, "SAS token" in ran.stderr, "az login" in ran.stderr) == (5, True, True), ran.text
        assert "c2Vz" not in ran.text


@everywhere
def test_b14_a_disk_that_is_full_is_that_of_this_machine(place: Place, tmp_path: Path) -> None:
    """What is on its way to or from a store is on a disk here, and the operator is told which directory."""
    place.put("a.db", os.urandom(3 << 20))
    room = tmp_path / "room"
    room.mkdir()
    env = {**os.environ, "TMPDIR": str(room)}
    for words in (("inspect", place.at("a.db")), ("repair", str(SAMPLE), place.at("x.db"))):
        argv = [sys.executable, "-m", "snaptool", *words]
        ran = subprocess.run(
            ["prlimit", "--fsize=20000", *argv], env=env, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 1, ran.stderr
        assert str(room) in ran.stderr
        assert "TMPDIR" in ran.stderr
        assert "are free" not in ran.stderr, "there is room, and a limit"
        assert list(room.iterdir()) == []
    assert place.names() == ["a.db"]


def web(folder: Path) -> Between:
    """A web server of the files of a folder, without ranges."""

    class Web(Between):
        def answer(self, asked: Asked) -> Reply:
            path = folder / asked.path.partition("?")[0].lstrip("/")
            if asked.method == "PUT":
                path.write_bytes(asked.content)
                return Reply(201)
            return Reply(200, path.read_bytes()) if path.is_file() else Reply(404)

    return Web()


def test_the_library_takes_the_urls_that_the_commands_take(
    no_proxies: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del no_proxies
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    names = ("aescbc-cluster.db", "aescbc.yaml", "secretbox.yaml")
    for name in names:
        (tmp_path / name).write_bytes((SAMPLES / name).read_bytes())
    with web(tmp_path) as server:
        source, old, new = (f"{server.url}/{name}?sig=sesame" for name in names)
        assert not library.inspect(source, config=old).lost
        report = library.rewrite(source, f"{server.url}/new.db?sig=sesame", config=old, new_config=new)
        assert report.verified
        assert not library.diff(source, f"{server.url}/new.db", config_a=old, config_b=new).differs
        with pytest.raises(SnaptoolError) as caught:
            library.inspect(source, config=source)
        assert "sesame" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "words",
    [
        "inspect LOST --config KEYS",
        "inspect LOST --config KEYS -o json",
        "inspect LOST --config NONE",
        "verify LOST --config KEYS",
        "list LOST --lost --config KEYS",
        "list LOST secrets --config KEYS -o json",
        "get LOST secret database -n shop --config KEYS -v",
        "history LOST /registry/secrets/shop/database --config KEYS",
        "diff LOST GOOD --config-a KEYS --config-b BOX",
        "export LOST secrets --config KEYS",
        "kms plan LOST --config KEYS",
        "config check KEYS",
        "config check LOST",
        "rewrite LOST - --config KEYS --new-config BOX",
        "rewrite LOST TARGET --config KEYS --new-config BOX",
        "rewrite LOST TARGET --config KEYS --new-config BOX --undecryptable delete --report REPORT",
        "rewrite LOST LOST --config KEYS --decrypt",
        "rewrite LOST TARGET --config KEYS --new-config KEYS --older-from GOOD --undecryptable older -o json",
        "repair LOST TARGET --report REPORT",
        "audit LOST --config KEYS",
        "audit LOST --config KEYS -o json",
    ],
)
def test_no_command_shows_the_signature_of_a_link(
    snaptool: Snaptool, no_proxies: None, tmp_path: Path, words: str
) -> None:
    """Snapshot, configurations, target and report by signed links: what is said of them leaves the signature out."""
    del no_proxies
    folder = tmp_path / "web"
    folder.mkdir()
    names = {"LOST": "lost-key.db", "GOOD": "aescbc-cluster.db", "KEYS": "lost-key.yaml", "BOX": "secretbox.yaml"}
    for name in names.values():
        (folder / name).write_bytes((SAMPLES / name).read_bytes())
    names |= {"NONE": "none.yaml", "TARGET": "new.db", "REPORT": "report.json"}
    with web(folder) as server:
        links = {word: f"{server.url}/{name}?X-Amz-Signature=sesame" for word, name in names.items()}
        argv = [links.get(word, word) for word in words.split()]
        local = snaptool.folder / "audit.db" if words.startswith("audit") else None
        ran = snaptool(*argv, *(("--store", local) if local else ()), makes=[local] if local else [])
    assert "Traceback" not in ran.text
    assert "sesame" not in ran.text
    made = [one for one in (folder / "report.json", local) if one is not None and one.exists()]
    for one in made:
        assert b"sesame" not in one.read_bytes()
    assert made or not ("REPORT" in words and ran.code == 0)


@pytest.mark.parametrize("place", ["s3"], indirect=True)
@pytest.mark.parametrize("conditional", [True, False])
def test_a_link_for_an_upload_alone_is_written_to_and_never_over_something(
    place: Place, snaptool: Snaptool, *, conditional: bool
) -> None:
    """Such a link answers 403 to whoever would look: the store alone judges whether the name is free."""
    import boto3
    from botocore.config import Config

    client = boto3.client("s3", region_name="eu-central-1", config=Config(s3={"addressing_style": "path"}))
    bucket = place.url.rpartition("/")[2]
    more = {"IfNoneMatch": "*"} if conditional else {}
    place.put("a.db", SAMPLE.read_bytes())

    def link(call: str, name: str, seconds: int = 3600) -> str:
        params = {"Bucket": bucket, "Key": name} | (more if call == "put_object" else {})
        made: str = client.generate_presigned_url(call, Params=params, ExpiresIn=seconds)
        return made

    target = link("put_object", "x.db")
    ran = snaptool("repair", link("get_object", "a.db"), target)
    assert ran.code == 0, ran.text
    written = place.get("x.db")
    for words in ((), ("--force",)):
        ran = snaptool("repair", link("get_object", "a.db"), target, *words)
        assert (ran.code, "not shown" in ran.stderr) == (2, True), ran.text
        assert "not known" not in ran.stderr
        assert "use --force" not in ran.stderr
    assert place.get("x.db") == written
    old = [link(call, name, 1) for call, name in (("get_object", "a.db"), ("put_object", "y.db"))]
    time.sleep(2)
    for command in (("inspect", old[0]), ("repair", str(SAMPLE), old[1])):
        ran = snaptool(*command)
        assert (ran.code, "has expired" in ran.stderr) == (5, True), ran.text
        assert "Signature" not in ran.text
    assert sorted(place.names()) == ["a.db", "x.db"]
    client.close()


def test_without_an_etag_the_time_says_that_a_file_was_replaced(no_proxies: None, tmp_path: Path) -> None:
    del no_proxies
    times = iter(["Wed, 01 Jul 2026 10:00:00 GMT"] * 2 + ["Wed, 01 Jul 2026 10:00:01 GMT"] * 9)
    content = os.urandom(1000)

    class Web(Between):
        def answer(self, asked: Asked) -> Reply:
            first, _, last = asked.headers["Range"].removeprefix("bytes=").partition("-")
            part = content[int(first) : int(last) + 1 if last else None]
            shown = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
            sent = part if last else part[:400]
            return Reply(206, sent, (("Content-Range", shown), ("Last-Modified", next(times))))

    with Web() as web, pytest.raises(SnaptoolError, match="changed while it was read"):
        fetch(place_of(f"{web.url}/x.db"), tmp_path)
