"""An AWS of its own on loopback, started once; every test skips by name where it is not installed (`make clouds`)."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.clouds import apart
from tests.clouds.between import Between
from tests.clouds.stores import Place, Sftp, of_az, of_gs, of_s3
from tests.peers.build import pinned
from tests.support.cli import GOLDEN, ROOT
from tests.support.peers import peer


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server does not listen")


@pytest.fixture(scope="session")
def moto_port() -> Iterator[int]:
    for name in ("boto3", "moto"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: `make clouds` installs it")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port, process)
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def aws(moto_port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of a user of that AWS; its endpoint."""
    endpoint = f"http://127.0.0.1:{moto_port}"
    user_of_aws(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    return endpoint


def user_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")


SECRET = "the-secret-access-key-of-the-tests"  # noqa: S105 - moto takes any


@pytest.fixture
def s3(aws: str) -> Any:
    import boto3

    assert aws
    return boto3.client("s3")


# -- key services


def requires(*modules: str) -> None:
    """Skip the test by name where an extra is not there."""
    for name in modules:
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            pytest.skip(f"{name} is not installed: `make clouds` installs it")


@contextmanager
def running(*argv: str | Path, port: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [str(one) for one in argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    try:
        wait_for(port, process)
        yield process
    finally:
        process.terminate()
        process.wait()


TOKEN = "hvs.CAESIJtokenOfTheTests0123456789"  # noqa: S105 - of a server that this test starts


@pytest.fixture(scope="session")
def transit_port() -> Iterator[int]:
    requires("hvac")
    (version,) = pinned("transit")
    port = free_port()
    program = peer("transit", version) / "transit"
    with running(program, "-listen", f"127.0.0.1:{port}", "-token", TOKEN, port=port):
        yield port


@pytest.fixture
def transit(transit_port: int, no_proxies: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Between]:
    """Vault's transit engine, with an ear on the line, as its users have it in their environment."""
    del no_proxies
    with Between(transit_port) as between:
        monkeypatch.setenv("VAULT_ADDR", between.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        for name in ("VAULT_NAMESPACE", "BAO_ADDR", "BAO_TOKEN", "BAO_TOKEN_PATH", "BAO_NAMESPACE", "VAULT_CACERT"):
            monkeypatch.delenv(name, raising=False)
        yield between


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="session")
def local_kms_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An AWS KMS that knows the states of keys; it listens everywhere, so it gets a network of its own."""
    requires("boto3")
    (version,) = pinned("local-kms")
    program = peer("local-kms", version) / "local-kms"
    if subprocess.run(["unshare", "-n", "ip", "link"], capture_output=True, check=False).returncode:
        pytest.skip("local-kms listens on every address: it needs unshare -n, which is not permitted here")
    folder = tmp_path_factory.mktemp("local-kms")
    path = folder / "socket"
    environment = {
        "KMS_REGION": "eu-central-1",
        "KMS_ACCOUNT_ID": "123456789012",
        "KMS_DATA_PATH": str(folder),
        "KMS_SEED_PATH": str(GOLDEN / "clouds" / "aws-local-kms-seed.yaml"),
        "PORT": "5702",
    }
    process = subprocess.Popen(
        ["unshare", "-n", sys.executable, "-m", "tests.clouds.apart", str(path), "5702", str(program)],
        env={**os.environ, **environment},
        cwd=ROOT,
    )
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(path))
                apart.join(client, server)

    try:
        for _ in range(400):
            assert process.poll() is None, "local-kms ended"
            if path.exists():
                break
            time.sleep(0.05)
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
    finally:
        process.terminate()
        process.wait()
        listener.close()


@pytest.fixture
def local_kms(local_kms_port: int, no_proxies: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Between]:
    """An AWS KMS with an ear on the line, as its users have it in their environment."""
    del no_proxies
    with Between(local_kms_port) as between:
        user_of_aws(monkeypatch)
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", between.url)
        yield between


# -- stores


def program(name: str, file: str) -> Path:
    (version,) = pinned(name)
    return peer(name, version) / file


@pytest.fixture(scope="session")
def versitygw_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where that S3 keeps its buckets."""
    return tmp_path_factory.mktemp("versitygw")


@pytest.fixture(scope="session")
def versitygw_port(versitygw_folder: Path) -> Iterator[int]:
    """An S3 that verifies checksums and keeps its conditions in a race."""
    requires("boto3")
    port, folder = free_port(), versitygw_folder
    argv = (
        program("versitygw", "versitygw"),
        "--port",
        f"127.0.0.1:{port}",
        "--region",
        "eu-central-1",
        "--quiet",
        "posix",
        str(folder),
    )
    with running(*argv, port=port, ROOT_ACCESS_KEY="AKIAOFATEST", ROOT_SECRET_KEY=SECRET):
        yield port


@pytest.fixture(scope="session")
def fake_gcs_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    requires("google.cloud.storage")
    port, folder = free_port(), tmp_path_factory.mktemp("gcs")
    here = f"127.0.0.1:{port}"
    argv = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-log-level", "warn"]
    argv += ["-backend", "filesystem", "-filesystem-root", str(folder)]
    argv += ["-public-host", here, "-external-url", f"http://{here}"]
    with running(program("fake-gcs-server", "fake-gcs-server"), *argv, port=port):
        yield port


@pytest.fixture(scope="session")
def azurite_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    requires("azure.storage.blob", "azure.identity")
    port, folder = free_port(), tmp_path_factory.mktemp("azurite")
    argv = ["--silent", "--location", str(folder), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    argv += ["--disableTelemetry", "--skipApiVersionCheck"]
    with running(program("azurite", "node_modules/.bin/azurite-blob"), *argv, port=port):
        yield port


_AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of the account that every Azurite has."""


def connection_string(port: int) -> str:
    endpoint = f"http://127.0.0.1:{port}/devstoreaccount1"
    return (
        f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={_AZURITE_KEY};BlobEndpoint={endpoint};"
    )


@pytest.fixture
def place(
    request: pytest.FixtureRequest, no_proxies: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Place]:
    """A place in the store that the test is run for: `s3`, `gs`, `az` or `sftp`."""
    del no_proxies
    kind = request.param
    if kind == "s3":
        port = request.getfixturevalue("versitygw_port")
        user_of_aws(monkeypatch)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        import boto3

        client = boto3.client("s3", region_name="eu-central-1")
        yield of_s3(client)
        client.close()
    elif kind == "gs":
        port = request.getfixturevalue("fake_gcs_port")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        yield of_gs()
    elif kind == "az":
        port = request.getfixturevalue("azurite_port")
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection_string(port))
        yield of_az()
    else:
        requires("asyncssh")
        home = tmp_path / "home"
        home.mkdir()
        monkeypatch.setenv("HOME", str(home))
        server = Sftp(home)
        yield server.place()
        server.close()
