"""An audit on many machines, by Dask: tasks are names, versions and digests; keys never travel.

Whoever reaches a scheduler runs code in its workers, and those read the keys: so it is reached by TLS with certificates
on both sides, or on the own machine alone. A worker reads the configurations where they are mounted, under the names
that were given here, and answers only when their digest is that of the one who asks. A death costs one backup one
attempt; one that kills three workers is `failed`. Source: docs/audit.md, "Dask".
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from snaptool import signals
from snaptool.errors import InputError, SnaptoolError
from snaptool.fleet.looking import FORMAT, Given, Question, look
from snaptool.fleet.places import Backup, read_backup
from snaptool.fleet.workers import ATTEMPTS, Answer
from snaptool.inputs import read_input
from snaptool.loopback import is_loopback
from snaptool.operations.kms_options import KmsOptions
from snaptool.providers.config.held import read_configs
from snaptool.providers.direct import parse_direct
from snaptool.providers.kms_saved import read_key_file
from snaptool.providers.kms_unwrapping import GivenUp
from snaptool.scratch import find_etcd
from snaptool.stores.listing import without_version
from snaptool.stores.store import ExtraMissing

_PORTION = 10_000
_SCHEDULER_SECONDS = 10
"""How long a scheduler may be away."""
_WORKER_SECONDS = 60
_PAUSE = 0.05
_LARGEST = 256 << 20


class OtherConfigurations(SnaptoolError):
    """What is mounted in a worker is not what the one who asks has."""


class SchedulerUnreachable(SnaptoolError):
    """The scheduler does not answer, refuses, or went away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """What workers read for themselves, by the names that it has here and there.

    `configs`, `key_files`: paths; `token_file` of a server token; `etcd_bin`: where etcd is. `endpoints` of key
    services, `direct`: others, as `--kms-direct` names them; `concurrency`, `rate` of all workers together, `timeout`
    of their calls.
    """

    configs: tuple[str, ...] = ()
    key_files: tuple[str, ...] = ()
    token_file: str | None = None
    etcd_bin: str | None = None
    endpoints: tuple[tuple[str, str], ...] = ()
    direct: tuple[str, ...] = ()
    concurrency: int | None = None
    rate: float | None = None
    timeout: float | None = None
    given_up: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """A Dask scheduler as an engine. `ca`, `certificate`, `key`: files in PEM, for tls://."""

    address: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = field(default=None, repr=False)
    mounted: Mounted = field(default_factory=Mounted)

    def check(self) -> None:
        """Refuse an address that shows keys to others. Raises InputError, SchedulerUnreachable, ExtraMissing."""
        parts = urlsplit(self.address)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if parts.scheme not in {"tls", "tcp"} or not host or not port:
            raise InputError(f"{self.address} is not tls://HOST:PORT", hint="name the scheduler as `dask worker` does")
        if parts.scheme == "tcp" and not is_loopback(host):
            raise InputError(
                f"{self.address}: who reaches a scheduler runs code in its workers, and those read the keys",
                hint="use tls:// with certificates; tcp:// is for this machine alone",
            )
        if parts.scheme == "tls" and None in {self.ca, self.certificate, self.key}:
            raise SchedulerUnreachable(
                f"{self.address}: a scheduler lets nobody in without a certificate",
                hint="give --tls-ca, --tls-cert and --tls-key, of the CA that scheduler and workers have",
            )
        for name in self.mounted.configs:
            if name == "-" or name.startswith("/dev/fd/"):
                raise InputError(
                    "workers read configurations by name, and cannot read a pipe of this process",
                    hint="mount the configuration as a file, under the same name everywhere",
                )
        try:
            import distributed  # noqa: F401, PLC0415 - half a second, and an extra
        except ImportError:
            raise ExtraMissing(
                "--scheduler needs Dask, which is not installed", hint="pip install 'snaptool[fleet]'"
            ) from None

    def answers(self, backups: Sequence[Backup], question: Question) -> Generator[Answer, None, None]:
        """Give backups to the workers; yield answers as they come. Raises SchedulerUnreachable."""
        self.check()
        signed = next((one.url for one in backups if any("?" in without_version(f.name) for f in one.files)), "")
        if signed.startswith("http"):
            raise InputError(
                f"{signed}: a signed link is a credential, and the scheduler sees what it gives out",
                hint="look at it without --scheduler",
            )
        disabled = logging.root.manager.disable
        logging.disable(logging.CRITICAL)  # what Dask says there, our messages say
        client = None
        try:
            client = self._connect()
            workers = self._workers(client)
            for start in range(0, len(backups), _PORTION):
                yield from self._portion(client, backups, start, self._asked(question, workers))
        finally:
            if client is not None:
                client.close(timeout=5)
            logging.disable(disabled)

    def _connect(self) -> Any:
        from distributed import Client, Security  # noqa: PLC0415 - as above

        security = None
        if self.ca is not None:
            security = Security(
                tls_ca_file=str(self.ca),
                tls_client_cert=str(self.certificate),
                tls_client_key=str(self.key),
                require_encryption=True,
            )
        try:
            return Client(self.address, security=security, timeout=_SCHEDULER_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            raise SchedulerUnreachable(
                f"{self.address}: the scheduler cannot be reached, or refuses this certificate: {type(error).__name__}",
                hint="check the address, and that scheduler, workers and --tls-cert have certificates of one CA",
            ) from None

    def _workers(self, client: Any) -> int:
        """Wait for a worker; return how many there are."""
        try:
            client.wait_for_workers(1, timeout=_WORKER_SECONDS)
        except TimeoutError:
            raise SchedulerUnreachable(
                f"{self.address}: the scheduler has no worker", hint="start workers, then run the command again"
            ) from None
        return len(client.scheduler_info(n_workers=-1)["workers"])

    def _asked(self, question: Question, workers: int) -> dict[str, Any]:
        """Return what a task holds besides its backup. Keys are none of it."""
        mounted = self.mounted
        return {
            "format": FORMAT,
            "check": question.check,
            "embedded": question.embedded,
            "names": question.names,
            "salvage": question.salvage,
            "configs": list(mounted.configs),
            "digest": digest_of([*(one.digest for one in question.given), *question.saved]),
            "key_files": list(mounted.key_files),
            "token_file": mounted.token_file,
            "etcd_bin": mounted.etcd_bin,
            "endpoints": [list(pair) for pair in mounted.endpoints],
            "direct": list(mounted.direct),
            "concurrency": mounted.concurrency,
            "rate": None if mounted.rate is None else mounted.rate / workers,
            "timeout": mounted.timeout,
            "given_up": [list(pair) for pair in mounted.given_up],
        }

    def _portion(
        self, client: Any, backups: Sequence[Backup], start: int, asked: Mapping[str, Any]
    ) -> Generator[Answer, None, None]:
        from distributed import as_completed  # noqa: PLC0415 - as above

        jobs = sorted(range(start, min(start + _PORTION, len(backups))), key=lambda job: -backups[job].size)
        run = secrets.token_hex(4)
        job_of = {f"audit-{run}-{job}": job for job in jobs}
        tasks = [{**asked, "backup": backups[job].document()} for job in jobs]
        futures = client.map(audit_one, tasks, key=list(job_of), retries=ATTEMPTS - 1, pure=False)
        coming = as_completed(futures, loop=client.loop, with_results=True, raise_errors=False)
        left, gone_since = len(futures), None
        try:
            while left:
                done = coming.next_batch(block=False)
                for future, result in done:
                    if future.status == "cancelled":
                        raise self._gone(left)
                    left -= 1
                    yield _answer(job_of[future.key], result)
                    future.release()
                if not done:
                    gone_since = None if client.status == "running" else gone_since or time.monotonic()
                    if gone_since is not None and time.monotonic() - gone_since > _SCHEDULER_SECONDS:
                        raise self._gone(left)
                    signals.sleep(_PAUSE)
        finally:
            coming.clear()

    def _gone(self, left: int) -> SchedulerUnreachable:
        return SchedulerUnreachable(
            f"{self.address}: the scheduler went away; {left:,} backups of this portion are not looked at",
            hint="what was answered is in the store: start the scheduler, and run the command again",
        )


def _answer(job: int, result: Any) -> Answer:
    if isinstance(result, dict) and "refused" in result:
        return Answer(job, None, 1, str(result["refused"]), "other_worker")
    if isinstance(result, dict):
        return Answer(job, result["record"], 1)
    error = result[1] if isinstance(result, tuple) else result  # Dask's own form of an exception
    missing = f" ({error.name})" if isinstance(error, ModuleNotFoundError) else ""
    return Answer(
        job, None, ATTEMPTS, f"its workers ended, or failed, {ATTEMPTS} times: {type(error).__name__}{missing}"
    )


def audit_one(task: Mapping[str, Any]) -> dict[str, Any]:
    """Look at one backup, in a worker: `record`, or why it is `refused`."""
    signals.leave_no_core()
    if task["format"] != FORMAT:
        return {"refused": "this worker has another version of snaptool than the one that asks"}
    names = ("configs", "key_files", "endpoints", "direct", "given_up")
    asked = {key: task[key] for key in task if key != "backup"}
    frozen = {key: tuple(map(_frozen, value)) if key in names else value for key, value in asked.items()}
    try:
        question = _question(tuple(sorted(frozen.items())))
    except OtherConfigurations as error:
        return {"refused": str(error)}
    except SnaptoolError as error:
        return {"refused": f"this worker cannot use what is mounted: {error}"}
    from distributed import get_worker  # noqa: PLC0415 - as above

    # Dask removes what a worker that was killed leaves there.
    folder = Path(get_worker().local_directory) / f"snaptool-{secrets.token_hex(4)}"
    return {"record": look(read_backup(task["backup"]), question, folder)}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=4)
def _question(asked: tuple[tuple[str, Any], ...]) -> Question:
    """Read what is mounted. Raises OtherConfigurations, SnaptoolError."""
    task = dict(asked)
    given: list[Given] = []
    for path in task["configs"]:
        content = read_input(path, _LARGEST, "configuration", secret=b"secret")
        held = read_configs(content, name=path, strict=False)
        given += [Given(config, hashlib.sha256(content).hexdigest(), config.name) for config in held.configs]
    saved = tuple(read_key_file(read_input(path, _LARGEST, "file of keys").decode()) for path in task["key_files"])
    digests = tuple(one.digest for one in saved)
    if digest_of([*(one.digest for one in given), *digests]) != task["digest"]:
        raise OtherConfigurations("this worker has other configurations than the one that asks")
    token = task["token_file"]
    kms = KmsOptions(
        endpoints=dict(task["endpoints"]),
        direct={one.name: one for one in map(parse_direct, task["direct"])},
        concurrency=task["concurrency"],
        rate=task["rate"],
        timeout=task["timeout"],
        saved=saved,
        given_up=tuple(GivenUp(*pair) for pair in task["given_up"]),
    )
    etcd_bin = task["etcd_bin"]
    return Question(
        check=task["check"],
        given=tuple(given),
        embedded=task["embedded"],
        token=None if token is None else read_input(token, _LARGEST, "token", secret=True).decode().strip(),
        saved=digests,
        kms=kms,
        etcd=find_etcd(None if etcd_bin is None else Path(etcd_bin)) if task["check"] == "boot" else None,
        names=task["names"],
        salvage=task["salvage"],
    )


def digest_of(digests: Sequence[str]) -> str:
    """Return one digest for several, in order."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
