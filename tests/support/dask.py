"""A Dask scheduler and workers of its own on loopback, by the commands that docs/audit.md gives, with certificates."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def make_certificates(folder: Path) -> Path:
    """Write ca.pem, cert.pem and key.pem: one certificate for all, of a CA of its own."""
    folder.mkdir(exist_ok=True)
    now = datetime.now(UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    made = []
    for subject, public, is_ca in (("tests", ca_key.public_key(), True), ("loopback", key.public_key(), False)):
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("tests"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        )
        made.append(builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (folder / "ca.pem").write_bytes(made[0])
    (folder / "cert.pem").write_bytes(made[1])
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(*form))
    return folder


@dataclass
class Cluster:
    """What runs. `address` of the scheduler; `tls`: options of `audit`; `folder`: of the workers."""

    address: str
    tls: list[str]
    folder: Path
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def logs(self) -> bytes:
        return b"".join(
            path.read_bytes() for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".yaml"
        )

    def processes(self) -> list[psutil.Process]:
        """Scheduler and workers, nannies and what they started."""
        tops = [psutil.Process(one.pid) for one in (self.scheduler, *self.workers)]
        return [process for top in tops for process in (top, *top.children(recursive=True))]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def running(folder: Path, workers: int = 2, *, pem: Path | None = None) -> Iterator[Cluster]:
    """Start them; whatever is left at the end is killed by its id. `pem`: certificates; None: new ones."""
    folder.mkdir()
    pem = pem or make_certificates(folder.parent / "pem")
    files = [f"--tls-ca-file={pem / 'ca.pem'}", f"--tls-cert={pem / 'cert.pem'}", f"--tls-key={pem / 'key.pem'}"]
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with ExitStack() as undo:

        def start(kind: str, *words: str) -> subprocess.Popen[bytes]:
            log = undo.enter_context((folder / f"{kind}-{time.monotonic_ns()}.log").open("wb"))
            command = [sys.executable, "-m", "dask", kind, *words, *files]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
            undo.callback(_stop, process)
            return process

        local = ["--host", "127.0.0.1", "--dashboard-address"]
        scheduler = start("scheduler", *local, f"127.0.0.1:{free_port()}", "--port", str(port), "--protocol", "tls")
        _wait_for(port, scheduler)
        tls = ["--tls-ca", str(pem / "ca.pem"), "--tls-cert", str(pem / "cert.pem"), "--tls-key", str(pem / "key.pem")]
        cluster = Cluster(f"tls://127.0.0.1:{port}", tls, folder, scheduler)
        for number in range(workers):
            spill = folder / f"spill-{number}"
            more = ["--nthreads", "1", "--death-timeout", "10", "--local-directory", str(spill)]
            cluster.workers.append(start("worker", cluster.address, *local, "127.0.0.1:0", *more))
        yield cluster


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the scheduler ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the scheduler does not listen")


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
