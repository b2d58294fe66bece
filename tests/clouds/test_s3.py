"""Snapshots in S3, on moto: conditions, checksums, versions, and nothing left of an upload that was broken off.

moto does not judge races and accepts wrong checksums; another server would be needed for these.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snaptool.files import TargetExists
from snaptool.stores.location import asked_of_s3, place_of
from snaptool.stores.publish import StoreDraft
from tests.clouds.between import Asked, Between, Reply
from tests.clouds.conftest import SECRET
from tests.support.cli import SAMPLES, Snaptool, spellings

SAMPLE = SAMPLES / "aescbc-cluster.db"


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"b{secrets.token_hex(6)}"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    return name


@pytest.fixture
def snaptool(tmp_path: Path) -> Snaptool:
    return Snaptool(tmp_path)


def pending(s3: Any, bucket: str) -> list[Any]:
    found: list[Any] = s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return found


def content(s3: Any, bucket: str, name: str) -> bytes:
    data: bytes = s3.get_object(Bucket=bucket, Key=name)["Body"].read()
    return data


def test_b2_round_trip(snaptool: Snaptool, s3: Any, bucket: str) -> None:
    s3.upload_file(str(SAMPLE), bucket, "prod/a b.db")
    old, new = snaptool.sample("aescbc.yaml"), snaptool.sample("secretbox.yaml")
    source, target = f"s3://{bucket}/prod/a b.db", f"s3://{bucket}/prod/new.db"
    ran = snaptool("rewrite", source, target, "--config", old, "--new-config", new)
    assert ran.code == 0, ran.text
    assert f"aws s3 cp {target} new.db" in ran.stdout
    assert SECRET not in ran.text
    assert content(s3, bucket, "prod/a b.db") == SAMPLE.read_bytes()
    assert snaptool("verify", target, "--config", new).code == 0
    again = snaptool("rewrite", source, target, "--config", old, "--new-config", new)
    assert again.code == 2
    assert "already exists" in again.stderr
    assert pending(s3, bucket) == []


def test_b2_packed_round_trip(snaptool: Snaptool, s3: Any, bucket: str) -> None:
    s3.upload_file(str(SAMPLE), bucket, "a.db")
    assert snaptool("repair", f"s3://{bucket}/a.db", f"s3://{bucket}/n.db.gz").code == 0
    assert content(s3, bucket, "n.db.gz")[:2] == b"\x1f\x8b"
    assert snaptool("inspect", f"s3://{bucket}/n.db.gz").code == 0


def test_an_older_version_is_read_by_its_id(snaptool: Snaptool, s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=bucket, Key="a.db", Body=SAMPLE.read_bytes())["VersionId"]
    s3.put_object(Bucket=bucket, Key="a.db", Body=b"not a snapshot")
    assert snaptool("inspect", f"s3://{bucket}/a.db").code == 4
    assert snaptool("inspect", f"s3://{bucket}/a.db?versionId={first}").code == 0
    assert snaptool("repair", f"s3://{bucket}/a.db?versionId={first}", f"s3://{bucket}/a.db", "--force").code == 2


@pytest.mark.parametrize("size", [0, 1, (16 << 20) - 1, 16 << 20, (16 << 20) + 1])
def test_b5_what_arrived_is_what_was_sent(s3: Any, bucket: str, size: int) -> None:
    data = os.urandom(size)
    with StoreDraft(place_of(f"s3://{bucket}/x"), force=False) as draft:
        draft.write(data)
        draft.publish()
    assert content(s3, bucket, "x") == data
    with pytest.raises(TargetExists):
        StoreDraft(place_of(f"s3://{bucket}/x"), force=False)


@pytest.mark.parametrize("size", [1000, (16 << 20) + 1])
def test_b3_a_target_that_appears_meanwhile_is_left_alone(s3: Any, bucket: str, size: int) -> None:
    with StoreDraft(place_of(f"s3://{bucket}/x"), force=False) as draft:
        draft.write(bytes(size))
        s3.put_object(Bucket=bucket, Key="x", Body=b"theirs")
        with pytest.raises(TargetExists):
            draft.publish()
    assert content(s3, bucket, "x") == b"theirs"
    assert pending(s3, bucket) == []


def test_b11_force_replaces_what_was_seen(snaptool: Snaptool, s3: Any, bucket: str) -> None:
    s3.upload_file(str(SAMPLE), bucket, "a.db")
    s3.put_object(Bucket=bucket, Key="x", Body=b"theirs")
    assert snaptool("repair", f"s3://{bucket}/a.db", f"s3://{bucket}/x", "--force").code == 0
    assert content(s3, bucket, "x") != b"theirs"


def test_b10_source_and_target_are_one_object(snaptool: Snaptool, s3: Any, bucket: str) -> None:
    s3.upload_file(str(SAMPLE), bucket, "a.db")
    ran = snaptool("repair", f"s3://{bucket}/a.db", f"s3://{bucket}/a.db", "--force")
    assert ran.code == 2
    assert "same object" in ran.stderr


def test_a_presigned_link_is_read_and_written(snaptool: Snaptool, s3: Any, bucket: str) -> None:
    s3.upload_file(str(SAMPLE), bucket, "a.db")
    where = {"Bucket": bucket, "Key": "a.db"}
    source = s3.generate_presigned_url("get_object", Params=where)
    target = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "n.db", "IfNoneMatch": "*"})
    ran = snaptool("repair", source, target)
    assert ran.code == 0, ran.text
    assert "Signature" not in ran.text
    assert snaptool("verify", f"s3://{bucket}/n.db").code in {0, 3}


def test_what_is_not_there_says_so(snaptool: Snaptool, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = snaptool("inspect", f"s3://{bucket}/none.db", "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "no_such_object")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert snaptool("inspect", f"s3://{bucket}/none.db").code == 5
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    ran = snaptool("inspect", f"s3://{bucket}/none.db")
    assert ran.code == 5
    assert "no valid credentials" in ran.stderr


UPLOADER = """
import sys
from pathlib import Path
from snaptool import signals
from snaptool.stores.location import place_of
from snaptool.stores.publish import StoreDraft
signals.install(lambda written: print("ended", written, flush=True))
with StoreDraft(place_of(sys.argv[1]), force=False) as draft:
    draft.write(bytes(40 << 20))
    try:
        draft.publish()
    except KeyboardInterrupt:
        print("interrupted", signals.all_written(), flush=True)
"""


class Relay:
    """Passes connections on: holds all of them back once so many bytes went to the server; alters what comes back.

    `hold_back`: the same, of bytes that come back.
    """

    def __init__(
        self, port: int, hold_after: int = 1 << 40, alter: tuple[bytes, bytes] = (b"", b""), hold_back: int = 1 << 40
    ) -> None:
        self._to, self._alter = port, alter
        self._left = {True: hold_after, False: hold_back}
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.held, self.go_on = threading.Event(), threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads.append(threading.Thread(target=self._accept, daemon=True))
        self._threads[0].start()

    def alter(self, this: bytes, to: bytes) -> None:
        """Alter what comes back; both are of one length."""
        self._alter = this, to

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                client.close()
                continue
            self._sockets += [client, server]
            for ends, counted in (((client, server), True), ((server, client), False)):
                thread = threading.Thread(target=self._pass, args=ends, kwargs={"counted": counted}, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass(self, source: socket.socket, sink: socket.socket, *, counted: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                self._left[counted] -= len(data)
                if min(self._left.values()) < 0 and not self.go_on.is_set():
                    self.held.set()
                    self.go_on.wait()
                sink.sendall(data if counted else data.replace(*self._alter))
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.go_on.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()
        for one in (self._listener, *self._sockets):
            one.close()


@pytest.fixture
def relay(moto_port: int) -> Iterator[Relay]:
    made = Relay(moto_port, 18 << 20)
    yield made
    made.close()


def test_b6_a_download_that_was_altered_on_the_way_is_refused(
    snaptool: Snaptool, s3: Any, bucket: str, moto_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket=bucket, Key="a.db", Body=SAMPLE.read_bytes(), ChecksumAlgorithm="SHA256")
    between = Relay(moto_port, alter=(b"k8s:enc:aescbc:v1:key1", b"k8s:enc:aescbc:v1:key2"))
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{between.port}")
        ran = snaptool("inspect", f"s3://{bucket}/a.db", "-o", "json")
    finally:
        between.close()
    assert ran.code == 5, ran.text
    assert ran.json["error"]["code"] == "download_differs"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_b9_a_signal_in_the_middle_of_an_upload_leaves_nothing(
    s3: Any, bucket: str, relay: Relay, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{relay.port}")
    process = subprocess.Popen([sys.executable, "-c", UPLOADER, f"s3://{bucket}/x"], stdout=subprocess.PIPE, text=True)
    try:
        assert relay.held.wait(120)
        assert pending(s3, bucket), "an upload in the middle"
        process.send_signal(number)
        time.sleep(0.5)
        relay.go_on.set()
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert out == "interrupted ()\n"
    assert pending(s3, bucket) == []
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("AES256", {"ServerSideEncryption": "AES256"}),
        ("aws:kms", {"ServerSideEncryption": "aws:kms"}),
        ("aws:kms:alias/backup", {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/backup"}),
    ],
)
@pytest.mark.parametrize("size", [0, 17 << 20])
def test_b13_encryption_is_what_was_asked_for(
    snaptool: Snaptool, s3: Any, bucket: str, how: str, wanted: dict[str, str], size: int
) -> None:
    if size:
        with StoreDraft(asked_of_s3(place_of(f"s3://{bucket}/x"), how, b""), force=False) as draft:
            draft.write(bytes(size))
            draft.publish()
    else:
        s3.upload_file(str(SAMPLE), bucket, "a.db")
        ran = snaptool("repair", f"s3://{bucket}/a.db", f"s3://{bucket}/x", "--sse", how)
        assert ran.code == 0, ran.text
    found = s3.head_object(Bucket=bucket, Key="x")
    assert {name: found[name] for name in wanted} == wanted


def test_b13_a_key_of_ones_own_is_sent_and_never_shown(
    snaptool: Snaptool, s3: Any, bucket: str, moto_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = secrets.token_bytes(32)
    file, short = snaptool.write("sse.key", key), snaptool.write("short.key", key[:31])
    s3.put_object(Bucket=bucket, Key="a.db", Body=SAMPLE.read_bytes())
    with Between(moto_port) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        ran = snaptool("repair", f"s3://{bucket}/a.db", f"s3://{bucket}/x", "--sse-c", file, "-v")
        assert ran.code == 0, ran.text
    sent = {name.lower(): value for one in between.asked for name, value in one.headers.items()}
    assert base64.b64decode(sent["x-amz-server-side-encryption-customer-key"]) == key
    header = "x-amz-server-side-encryption-customer-algorithm"
    for method in ("HEAD", "GET", "PUT"):
        of_it = [one for one in between.asked if one.method == method]
        assert of_it
        assert all({name.lower() for name in one.headers} >= {header} for one in of_it), method
    wrong = snaptool("inspect", f"s3://{bucket}/x", "--sse-c", short)
    assert (wrong.code, "31 bytes" in wrong.stderr) == (2, True)
    for needle in spellings(key):
        assert needle.decode(errors="replace") not in ran.text + wrong.text


def test_b13_another_word_for_encryption_is_wrong_usage(snaptool: Snaptool, bucket: str) -> None:
    assert snaptool("repair", f"s3://{bucket}/a.db", f"s3://{bucket}/x", "--sse", "rot13").code == 2


class Unconditional(Between):
    """An S3 that knows no conditions on writes: it ignores them, or says that it does not know them."""

    says_so = False

    def answer(self, asked: Asked) -> Reply:
        if asked.method not in {"PUT", "POST"}:
            return super().answer(asked)
        conditions = {"if-none-match", "if-match"}
        headers = {name: value for name, value in asked.headers.items() if name.lower() not in conditions}
        if self.says_so and len(headers) < len(asked.headers):
            error = b"<Error><Code>NotImplemented</Code><Message>A header implies functionality</Message></Error>"
            return Reply(501, error, (("Content-Type", "application/xml"),))
        return super().answer(replace(asked, headers=headers))


def names(s3: Any, bucket: str) -> list[str]:
    return [one["Key"] for one in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


@pytest.mark.parametrize("says_so", [False, True])
def test_b12_a_store_without_conditions_is_found_out_before_anything_is_sent(
    snaptool: Snaptool, s3: Any, bucket: str, moto_port: int, monkeypatch: pytest.MonkeyPatch, *, says_so: bool
) -> None:
    s3.upload_file(str(SAMPLE), bucket, "a.db")
    with Unconditional(moto_port) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        between.says_so = says_so
        ran = snaptool("repair", f"s3://{bucket}/a.db", f"s3://{bucket}/n.db")
        assert ran.code == 5, ran.text
        assert ("conditional writes" if says_so else "ignores conditions") in ran.stderr
        assert [one for one in between.asked if one.method in {"PUT", "POST"} and len(one.content) > 100] == []
        assert names(s3, bucket) == ["a.db"]
        assert "--no-condition" in ran.stderr
        assert snaptool("repair", f"s3://{bucket}/a.db", f"s3://{bucket}/n.db", "--force").code == 5
        ran = snaptool("repair", f"s3://{bucket}/a.db", f"s3://{bucket}/n.db", "--no-condition")
        assert ran.code == 0, ran.text
        (sent,) = [one for one in between.asked if len(one.content) > 100]
        assert "If-None-Match" not in sent.headers
        ran = snaptool("repair", f"s3://{bucket}/a.db", f"s3://{bucket}/n.db", "--no-condition")
        assert ran.code == 2, "what is seen there is not replaced without --force"
        with StoreDraft(asked_of_s3(place_of(f"s3://{bucket}/x"), "", b"", conditional=False), force=False) as draft:
            draft.write(b"ours")
            s3.put_object(Bucket=bucket, Key="x", Body=b"theirs")
            with pytest.raises(TargetExists):
                draft.publish()
    assert content(s3, bucket, "x") == b"theirs"


def test_b12_what_the_question_leaves_where_nothing_may_be_deleted_is_named(
    snaptool: Snaptool, s3: Any, bucket: str, moto_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Keeping(Unconditional):
        def answer(self, asked: Asked) -> Reply:
            denied = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
            return Reply(403, denied) if asked.method == "DELETE" else super().answer(asked)

    s3.upload_file(str(SAMPLE), bucket, "a.db")
    with Keeping(moto_port) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        ran = snaptool("repair", f"s3://{bucket}/a.db", f"s3://{bucket}/n.db")
    (left,) = [name for name in names(s3, bucket) if name != "a.db"]
    assert (ran.code, left in ran.stderr) == (5, True), ran.text


@pytest.mark.parametrize("size", [1000, (16 << 20) + 1])
def test_b12_a_store_that_keeps_conditions_is_asked_once_and_keeps_nothing_of_it(
    s3: Any, bucket: str, moto_port: int, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    with Between(moto_port) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        for name in "xyz":
            with StoreDraft(place_of(f"s3://{bucket}/{name}"), force=False) as draft:
                draft.write(bytes(size))
                draft.publish()
    assert names(s3, bucket) == ["x", "y", "z"]
    assert sum("If-Match" in one.headers for one in between.asked if one.method == "PUT") == 1


def test_an_answer_to_head_is_asked_about_for_its_reason(
    snaptool: Snaptool, s3: Any, bucket: str, moto_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HEAD has no body, and its number fits many reasons: what to do next depends on which it is."""
    s3.upload_file(str(SAMPLE), bucket, "a.db")
    reasons = {
        ("ExpiredToken", 400): "aws sso login",
        ("InvalidAccessKeyId", 403): "aws sso login",
        ("SignatureDoesNotMatch", 403): "aws sso login",
        ("AccessDenied", 403): "s3:ListBucket",
        ("RequestTimeTooSkewed", 403): "clock",
        ("AuthorizationHeaderMalformed", 400): "AWS_REGION",
        ("NoSuchBucket", 404): "no such bucket",
    }

    class Refusing(Between):
        reason = ("", 0)

        def answer(self, asked: Asked) -> Reply:
            code, status = self.reason
            body = f"<Error><Code>{code}</Code><Message>said</Message></Error>".encode()
            return Reply(status, body if asked.method != "HEAD" else b"", (("Content-Type", "application/xml"),))

    with Refusing(moto_port) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        for reason, words in reasons.items():
            between.reason = reason
            for ran in (
                snaptool("inspect", f"s3://{bucket}/a.db"),
                snaptool("repair", snaptool.sample("aescbc-cluster.db"), f"s3://{bucket}/b.db"),
            ):
                assert ran.code in {2, 5}, ran.text
                assert words in ran.stderr, (reason, ran.text)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_plain_http_goes_to_this_machine_alone_and_by_no_proxy(
    snaptool: Snaptool, s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    s3.upload_file(str(SAMPLE), bucket, "a.db")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://user:sesame@127.0.0.1:9")
    ran = snaptool("inspect", f"s3://{bucket}/a.db")
    assert ran.code == 0, ran.text
    monkeypatch.setenv(variable, "http://user:sesame@192.0.2.1:9000")
    ran = snaptool("inspect", f"s3://{bucket}/a.db")
    assert (ran.code, "everybody" in ran.stderr, "sesame" in ran.text) == (2, True, False), ran.text


def test_no_password_of_an_endpoint_or_a_proxy_is_shown(
    snaptool: Snaptool, aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert aws
    for name, value in (
        ("AWS_ENDPOINT_URL", "http://user:sesame@127.0.0.1:9"),
        ("https_proxy", "http://user:sesame@127.0.0.1:9"),
    ):
        with monkeypatch.context() as inner:
            inner.delenv("AWS_ENDPOINT_URL")
            inner.setenv(name, value)
            ran = snaptool("inspect", "s3://bucket/a.db")
            assert ran.code in {2, 5}, ran.text
            assert "sesame" not in ran.text
