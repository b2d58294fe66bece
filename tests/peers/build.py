"""Build the programs of peers.toml into .peers/: `python -m tests.peers.build peers`, or `oracles`.

Theory of operation. Each peer is made in a directory beside its place, and moved there when all of it is built; a
stamp in it holds a digest of everything that decided the result, and a peer whose stamp still fits is left alone. Go
programs are built in a module of their own that requires the pinned modules, because `go install` refuses modules
with replace directives, as etcd's are. Debian's packages are taken from Debian, into lists and a cache of our own, so
that the machine's own are not touched, and unpacked without being installed.

Where Go, or apt, is not at hand the peer is skipped, which is said, and the tests that want it skip too. What is at
hand and fails is a failure. Sources: `go help build`, apt.conf(5), dpkg-deb(1).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".peers"
_STAMP = ".stamp"
_RECIPE = "1"  # raised when the same table is to give another result


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A set of programs of one version. `programs`: file name to Go package, or to a path in the Debian packages."""

    name: str
    target: str
    programs: dict[str, str]
    modules: tuple[str, ...] = ()
    debian: tuple[str, ...] = ()
    source: str | None = None

    @property
    def folder(self) -> Path:
        """Where its programs are, once they are built."""
        return PEERS / self.name

    def sources(self) -> tuple[Path, ...]:
        """Our own Go files."""
        return tuple(sorted((ROOT / self.source).glob("*.go"))) if self.source else ()

    def stamp(self) -> str:
        """A digest of everything that decides what is built."""
        digest = hashlib.sha256(repr((_RECIPE, self.programs, self.modules, self.debian)).encode())
        for path in self.sources():
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def is_built(self) -> bool:
        """Is what lies in `folder` what this table would build?"""
        stamp = self.folder / _STAMP
        return stamp.is_file() and stamp.read_text() == self.stamp()


def table() -> dict[str, Peer]:
    """Read peers.toml."""
    entries = tomllib.loads((Path(__file__).parent / "peers.toml").read_text())["peer"]
    return {
        name: Peer(
            name=name,
            target=entry["for"],
            programs=entry["programs"],
            modules=tuple(entry.get("modules", ())),
            debian=tuple(entry.get("debian", ())),
            source=entry.get("source"),
        )
        for name, entry in entries.items()
    }


def build(peer: Peer) -> str:
    """Build one peer. Returns what to say about it. Raises CalledProcessError with the output that explains it."""
    if peer.is_built():
        return "is there"
    tool = "apt-get" if peer.debian else "go"
    missing = [name for name in (tool, *(["dpkg-deb"] if peer.debian else [])) if shutil.which(name) is None]
    if missing:
        return f"skipped: there is no {missing[0]} on PATH"
    work = PEERS / "build" / peer.name
    shutil.rmtree(work, ignore_errors=True)
    done = work / "done"
    done.mkdir(parents=True)
    started = time.monotonic()
    if peer.debian:
        if not _from_debian(peer, work, done):
            return f"skipped: this system's package sources do not have {' and '.join(peer.debian)}"
    else:
        _with_go(peer, work, done)
    (done / _STAMP).write_text(peer.stamp())
    shutil.rmtree(peer.folder, ignore_errors=True)
    done.rename(peer.folder)
    shutil.rmtree(work)
    return f"built in {time.monotonic() - started:.0f} s"


def _with_go(peer: Peer, work: Path, done: Path) -> None:
    module = work / "module"
    module.mkdir()
    for path in peer.sources():
        shutil.copy(path, module)
    requires = "".join(f"\t{' '.join(one.split('@'))}\n" for one in peer.modules)
    go_version = _run(["go", "env", "GOVERSION"], module).strip().removeprefix("go").split("-")[0]
    (module / "go.mod").write_text(f"module peer\n\ngo {go_version}\n\nrequire (\n{requires})\n")
    # Only what the pinned modules ask for: -mod=mod adds to go.mod what they require, never anything newer.
    environment = {"GOFLAGS": "-mod=mod -buildvcs=false", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOWORK": "off"}
    for program, package in peer.programs.items():
        argv = ["go", "build", "-p", "2", "-trimpath", "-ldflags", "-s -w", "-o", str(done / program), package]
        _run(argv, module, environment)


def _from_debian(peer: Peer, work: Path, done: Path) -> bool:
    """Unpack Debian packages. Returns False if the system's sources do not have them."""
    lists, cache = PEERS / "build" / "apt-lists", work / "apt-cache"
    for folder in (lists / "partial", cache / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    own = ["-q", "-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={cache}", "-o", "APT::Sandbox::User="]
    _run(["apt-get", *own, "update"], work)
    offered = subprocess.run(
        ["apt-cache", *own, "show", *peer.debian], cwd=work, capture_output=True, check=False
    ).returncode
    if offered != 0:
        return False
    _run(["apt-get", *own, "download", *peer.debian], work)
    for package in work.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(package), str(work / "tree")], work)
    for program, path in peer.programs.items():
        shutil.copy(work / "tree" / path, done / program)
    return True


def _run(argv: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    nice = ["nice", "-n", "10"] if shutil.which("nice") else []
    ended = subprocess.run(
        [*nice, *argv],
        cwd=folder,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise subprocess.CalledProcessError(ended.returncode, argv, ended.stdout)
    return ended.stdout


def main(target: str) -> int:
    """Build every peer of one target of the Makefile. Returns the exit code."""
    failed = False
    for peer in table().values():
        if peer.target != target:
            continue
        try:
            outcome = build(peer)
        except subprocess.CalledProcessError as error:
            outcome = f"failed: {' '.join(error.cmd)} ended with {error.returncode}\n{error.output}"
            failed = True
        sys.stdout.write(f"{peer.name}: {outcome}\n")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
