"""A real kube-apiserver beside a real etcd: both on loopback, both gone when the test is.

The server is configured as kubeadm would, as far as stored objects are concerned; what needs nodes or controllers is
left out. Its certificate and the service-account key are made on the spot. Every request goes over its REST API, so
that what is compared is what a client sees.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import ipaddress
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from snaptool.scratch.keeper import LOG
from snaptool.scratch.server import ScratchEtcd, _free_port, _Keeper

TOKEN = "proof-token-0123456789abcdef"  # noqa: S105 - of a server that lives for a test, on loopback
READY_WITHIN = 180.0
SERVICE_RANGE = "10.96.0.0/24"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request got. `body`: the decoded JSON, or text where it is none."""

    status: int
    body: Any

    @property
    def message(self) -> str:
        """What the server says went wrong."""
        return str(self.body.get("message", "")) if isinstance(self.body, dict) else str(self.body)


class ServerEnded(AssertionError):
    """kube-apiserver ended on its own, or did not become ready; with the end of its log."""


class KubeApiserver:
    """A running kube-apiserver. A context manager; use `start`."""

    def __init__(self, keeper: _Keeper, directory: Path, port: int) -> None:
        self.directory = directory
        self._keeper = keeper
        self._port = port
        self._tls = ssl.create_default_context(cafile=str(directory / "server.crt"))

    @classmethod
    def start(
        cls,
        program: Path,
        etcd: ScratchEtcd,
        config: str | None,
        *,
        parent: Path,
        ready: str = "/readyz",
        service_range: str = SERVICE_RANGE,
    ) -> Self:
        """Start it on `etcd`, with an EncryptionConfiguration or without one, and wait until `ready` answers ok.

        `service_range`: one or two, joined by a comma, of the families that Services have there.
        """
        keeper = _Keeper(parent)
        try:
            directory = keeper.make_directory()
            port = _free_port()
            keeper.start([*_command_line(program, etcd, config, directory, port), *_addresses(service_range)])
            server = cls(keeper, directory, port)
            server._wait(ready)
        except BaseException:
            keeper.close()
            raise
        return server

    def _wait(self, path: str) -> None:
        deadline = time.monotonic() + READY_WITHIN
        seen: object = "no answer"
        while time.monotonic() < deadline:
            code = self._keeper.wait(0.2)
            if code is not None:
                raise ServerEnded(f"kube-apiserver ended with {code}:\n{self.log()}")
            with contextlib.suppress(OSError):
                answer = self.get(path)
                if answer.status == 200:
                    return
                seen = answer
        raise ServerEnded(f"kube-apiserver is not ready: {seen}\n{self.log()}")

    def log(self) -> str:
        """The end of its log."""
        return (self.directory / LOG).read_text(errors="replace")[-4000:]

    def kubeconfig(self) -> Path:
        """Write a configuration for kubectl and return its path."""
        cluster = {"server": f"https://127.0.0.1:{self._port}", "certificate-authority": "server.crt"}
        whole = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proof", "cluster": cluster}],
            "users": [{"name": "proof", "user": {"token": TOKEN}}],
            "contexts": [{"name": "proof", "context": {"cluster": "proof", "user": "proof"}}],
            "current-context": "proof",
        }
        path = self.directory / "kubeconfig.json"
        path.write_text(json.dumps(whole))
        return path

    def request(self, method: str, path: str, body: object = None) -> Answer:
        """Make one request."""
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=60, context=self._tls)
        try:
            headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json"}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        try:
            return Answer(response.status, json.loads(text))
        except ValueError:
            return Answer(response.status, text)

    def get(self, path: str) -> Answer:
        """GET."""
        return self.request("GET", path)

    def write(self, method: str, path: str, body: object) -> dict[str, Any]:
        """POST or PUT, which must succeed; return the object as it is now."""
        answer = self.request(method, path, body)
        assert answer.status in {200, 201}, answer
        assert isinstance(answer.body, dict)
        return answer.body

    def wait_for(self, path: str, status: int = 200) -> Answer:
        """GET until the answer has that status: what a server does in its first seconds is not what it does then."""
        deadline = time.monotonic() + 60
        while (answer := self.get(path)).status != status:
            assert time.monotonic() < deadline, answer
            time.sleep(0.2)
        return answer

    def items(self, path: str) -> dict[str, Any]:
        """LIST, which must succeed: every object whole, by namespace and name."""
        answer = self.wait_for(path)
        return {f"{item['metadata']['namespace']}/{item['metadata']['name']}": item for item in answer.body["items"]}

    def watch(self, path: str, revision: str, seconds: int = 3) -> Iterator[dict[str, Any]]:
        """WATCH from a resourceVersion on: every event that comes within some seconds."""
        found = self.get(f"{path}?watch=true&resourceVersion={revision}&timeoutSeconds={seconds}")
        if found.status != 200:
            yield {"type": "ERROR", "object": found.body}
        elif isinstance(found.body, dict):  # exactly one line
            yield found.body
        else:
            yield from (json.loads(line) for line in found.body.splitlines())

    def close(self) -> None:
        """Stop it and remove what it had."""
        self._keeper.stop()
        self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _command_line(program: Path, etcd: ScratchEtcd, config: str | None, directory: Path, port: int) -> list[str | Path]:
    _make_keys(directory)
    (directory / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    argv: list[str | Path] = [
        program,
        f"--etcd-servers=http://{etcd.endpoint}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={directory / 'server.crt'}",
        f"--tls-private-key-file={directory / 'server.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={directory / 'server.pub'}",
        f"--service-account-signing-key-file={directory / 'server.key'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--endpoint-reconciler-type=none",
        "--disable-admission-plugins=ServiceAccount",  # no controller makes service accounts
        "--etcd-compaction-interval=0",  # what is compacted, and when, is up to the tests
        "--profiling=false",
        "--feature-gates=KMSv1=true",  # off since 1.29; a configuration without KMS v1 does not notice
    ]
    if config is not None:
        path = directory / "encryption.yaml"
        path.write_text(config)
        argv.append(f"--encryption-provider-config={path}")
    return argv


def _addresses(service_range: str) -> list[str]:
    # Written nowhere, for nobody is told where this server is; it has to be of the family of the first range.
    advertised = "2001:db8::1" if ":" in service_range.partition(",")[0] else "192.0.2.1"
    return [f"--service-cluster-ip-range={service_range}", f"--advertise-address={advertised}"]


def _make_keys(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "server.key").write_bytes(pem)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (directory / "server.pub").write_bytes(public)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "proof")])
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    address = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "server.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
