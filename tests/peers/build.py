"""Build what judges snaptool into .peers/NAME-VERSION: `python -m tests.peers.build etcd bbolt`, names as in pins.toml.

Theory of operation. Each program set is made in a folder beside its place, and moved there when all of it is built. A
stamp in it holds a digest of everything that decided the result; what still fits its stamp is left alone. Go programs
are built in a module of their own that requires the pinned one, because `go install` refuses modules with replace
directives, as etcd's and Kubernetes' are. Debian's packages are taken from Debian, with lists and a cache of our own,
so that the machine's are not touched, and unpacked without being installed.

Where Go, or apt, is not installed the set is skipped, which is said here and again by each test that wants it. What is
installed and fails is a failure, here and in those tests. Sources: `go help build`, apt.conf(5), dpkg-deb(1).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".peers"
MAKE = {"etcd": "peers", "bbolt": "peers", "apiserver": "oracles", "kubernetes": "apiserver", "kubectl": "apiserver"}
MAKE |= dict.fromkeys(("transit", "local-kms", "versitygw", "fake-gcs-server", "azurite"), "clouds")
"""Which target of the Makefile brings a name of pins.toml."""

_STAMP = ".stamp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to build a set with Go. `modules` are all of the pinned version; `programs`: file name to package.

    `source`: a folder with programs of our own, each in a folder of its name. `staging`: the module's own go.mod
    replaces modules by folders of its repository; they are taken as published, with the version that belongs to it.
    `variables`: what the linker sets to the version, for programs that state it only if they are told. `also`: modules
    of a version of their own, which the pinned one needs and does not name as published.
    """

    modules: tuple[str, ...]
    programs: dict[str, str]
    source: str | None = None
    staging: bool = False
    variables: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


_ETCD = "go.etcd.io/etcd"
_GO = {
    "etcd": Recipe(
        modules=(f"{_ETCD}/server/v3", f"{_ETCD}/etcdutl/v3", f"{_ETCD}/etcdctl/v3"),
        programs={"etcd": f"{_ETCD}/server/v3", "etcdutl": f"{_ETCD}/etcdutl/v3", "etcdctl": f"{_ETCD}/etcdctl/v3"},
    ),
    "bbolt": Recipe(modules=("go.etcd.io/bbolt",), programs={"bbolt": "go.etcd.io/bbolt/cmd/bbolt"}),
    "apiserver": Recipe(
        modules=("k8s.io/apiserver",),
        programs={"transform": "./transform", "storage": "./storage"},
        source="tests/oracles",
    ),
    "kubernetes": Recipe(
        modules=("k8s.io/kubernetes",),
        programs={"kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver"},
        staging=True,
        variables=("k8s.io/component-base/version.gitVersion",),
    ),
    "kubectl": Recipe(
        modules=("k8s.io/kubernetes",),
        programs={"kubectl": "k8s.io/kubernetes/cmd/kubectl"},
        staging=True,
        variables=("k8s.io/component-base/version.gitVersion",),
    ),
    "transit": Recipe(
        modules=("github.com/hashicorp/vault",),
        programs={"transit": "./transit"},
        source="tests/clouds/servers",
        also=("github.com/hashicorp/vault/sdk v0.20.0",),
    ),
    "local-kms": Recipe(
        modules=("github.com/nsmithuk/local-kms",), programs={"local-kms": "github.com/nsmithuk/local-kms"}
    ),
    "versitygw": Recipe(
        modules=("github.com/versity/versitygw",),
        programs={"versitygw": "github.com/versity/versitygw/cmd/versitygw"},
    ),
    "fake-gcs-server": Recipe(
        modules=("github.com/fsouza/fake-gcs-server",),
        programs={"fake-gcs-server": "github.com/fsouza/fake-gcs-server"},
    ),
}
_DEBIAN = {"etcd": {"etcd-server": "usr/bin/etcd", "etcd-client": "usr/bin/etcdctl"}}


def _pins() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((Path(__file__).parent / "pins.toml").read_text())


def pinned(name: str) -> list[str]:
    """Return the versions of a name of pins.toml."""
    return [version for versions in _pins()[name].values() for version in versions]


def build(name: str, version: str, how: str) -> str:
    """Build one set. `how`: debian, npm or modules. Returns what to say about it. Raises CalledProcessError."""
    folder, stamp = PEERS / f"{name}-{version}", _stamp(name, version, how)
    if (folder / _STAMP).is_file() and (folder / _STAMP).read_text() == stamp:
        return "is there"
    tools = {"debian": ("apt-get", "dpkg-deb"), "npm": ("npm", "node")}.get(how, ("go",))
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        return f"skipped: there is no {missing[0]} on PATH"
    started = time.monotonic()
    # Named by our pid: two runs at once build twice, and neither disturbs the other.
    work = PEERS / "build" / f"{name}-{version}.{os.getpid()}"
    done = work / "done"
    done.mkdir(parents=True)
    try:
        if how == "debian":
            if not _from_debian(_DEBIAN[name], version, work, done):
                return "skipped: this system's package sources do not have it"
        elif how == "npm":
            _run(["npm", "install", "--no-fund", "--no-audit", "--prefix", str(done), f"{name}@{version}"], work)
        else:
            _with_go(_GO[name], version, work, done)
        (done / _STAMP).write_text(stamp)
        if folder.exists():
            folder.rename(work / "before")
        done.rename(folder)
    finally:
        shutil.rmtree(work)
    return f"built in {time.monotonic() - started:.0f} s"


def _stamp(name: str, version: str, how: str) -> str:
    """Digest everything that decides what is built, the compiler left out."""
    recipe = _GO.get(name)
    digest = hashlib.sha256(repr((name, version, how, recipe, _DEBIAN.get(name))).encode())
    for path in _sources(recipe):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources(recipe: Recipe | None) -> list[Path]:
    return sorted((ROOT / recipe.source).glob("*/*.go")) if recipe and recipe.source else []


def _with_go(recipe: Recipe, version: str, work: Path, done: Path) -> None:
    module = work / "module"
    module.mkdir()
    for path in _sources(recipe):
        (module / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, module / path.parent.name)
    language = _run(["go", "env", "GOVERSION"], module).strip().removeprefix("go").split("-")[0].split()[0]
    wanted = [*(f"{one} v{version}" for one in recipe.modules), *recipe.also]
    lines = ["module snaptool.test/peer", f"go {language}", *(f"require {one}" for one in wanted)]
    (module / "go.mod").write_text("\n".join(lines) + "\n")
    # -mod=mod adds what the pinned modules require, and never anything newer than they ask for.
    environment = {"GOFLAGS": "-mod=mod -buildvcs=false", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOWORK": "off"}
    if recipe.staging:
        (found,) = recipe.modules
        about = _run(["go", "mod", "download", "-json", f"{found}@v{version}"], module, environment)
        its_own = Path(json.loads(about)["GoMod"]).read_text()
        staged = re.findall(r"^\s+(\S+) => \./staging/", its_own, re.MULTILINE)
        published = f"v0.{version.split('.', 1)[1]}"
        lines += [f"replace {one} => {one} {published}" for one in staged]
        (module / "go.mod").write_text("\n".join(lines) + "\n")
    flags = " ".join(["-s", "-w", *(f"-X {name}=v{version}" for name in recipe.variables)])
    for program, package in recipe.programs.items():
        target = str(done / program)
        _run(["go", "build", "-p", "2", "-trimpath", "-ldflags", flags, "-o", target, package], module, environment)


def _from_debian(packages: dict[str, str], version: str, work: Path, done: Path) -> bool:
    """Unpack Debian packages, of any revision of the version. Returns False if the system's sources lack one."""
    lists, cache = work / "apt-lists", work / "apt-cache"
    for folder in (lists / "partial", cache / "archives" / "partial"):
        folder.mkdir(parents=True)
    own = ["-q", "-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={cache}", "-o", "APT::Sandbox::User="]
    _run(["apt-get", *own, "update"], work)
    for package, program in packages.items():
        shown = _run(["apt-cache", *own, "madison", package], work)
        revisions = [line.split("|")[1].strip() for line in shown.splitlines() if line.count("|") == 2]
        wanted = next((one for one in revisions if one.startswith(f"{version}-")), None)
        if wanted is None:
            return False
        _run(["apt-get", *own, "download", f"{package}={wanted}"], work)
        (archive,) = work.glob(f"{package}_*.deb")
        _run(["dpkg-deb", "-x", str(archive), str(work / "tree")], work)
        shutil.copy(work / "tree" / program, done / Path(program).name)
    return True


def _run(argv: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """Run a tool, politely. Returns its output; a failure carries its messages as well."""
    nice = ["nice", "-n", "10"] if shutil.which("nice") else []
    ended = subprocess.run(
        [*nice, *argv], cwd=folder, env=os.environ | (environment or {}), capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise subprocess.CalledProcessError(ended.returncode, argv, ended.stdout + ended.stderr)
    return ended.stdout


def main(names: list[str]) -> int:
    """Build every version of the named sets. Returns the exit code: 1 if one failed, not if one was skipped."""
    failed = False
    for name in names:
        for how, versions in _pins()[name].items():
            for version in versions:
                try:
                    outcome = build(name, version, how)
                except subprocess.CalledProcessError as error:
                    outcome = f"failed: {' '.join(error.cmd)} ended with {error.returncode}\n{error.output}"
                    failed = True
                _note(f"{name}-{version}", outcome)
    return 1 if failed else 0


def _note(place: str, outcome: str) -> None:
    """Say it, and leave a note for the tests that will look for it."""
    sys.stdout.write(f"{place}: {outcome}\n")
    sys.stdout.flush()
    PEERS.mkdir(exist_ok=True)
    for end in ("failed", "skipped"):
        (PEERS / f"{place}.{end}").unlink(missing_ok=True)
        if outcome.startswith(f"{end}: "):
            (PEERS / f"{place}.{end}").write_text(outcome.removeprefix(f"{end}: "))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
