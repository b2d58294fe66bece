"""The programs of a proof, the cluster that every story starts from, and what is printed at the end."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest

from snaptool.scratch.server import find_etcd
from tests.proof.stories import (
    CONFIGMAPS,
    NEW_KEY,
    OLD_KEY,
    SECRETS,
    WIDGETS,
    Cluster,
    Programs,
    aescbc,
    configuration,
    fill,
    read_all,
)
from tests.support.peers import ETCD_VERSIONS, KUBERNETES_VERSIONS, peer


@pytest.fixture(scope="session", params=KUBERNETES_VERSIONS)
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    etcd = find_etcd(peer("etcd", ETCD_VERSIONS[-1]))
    kubernetes: str = request.param
    versions = f"kube-apiserver {kubernetes}, etcd {'.'.join(map(str, etcd.version))}"
    folder = tmp_path_factory.mktemp("p")
    program = peer("kubernetes", kubernetes) / "kube-apiserver"
    return Programs(apiserver=program, etcd=etcd, folder=folder, versions=versions)


@pytest.fixture(scope="session")
def cluster(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Secrets, ConfigMaps and custom resources under aescbc, whose key was rotated half-way."""
    snapshot = tmp_path_factory.mktemp("cluster") / "cluster.db"
    with programs.boot(None) as etcd:
        with programs.serve(etcd, configuration(aescbc(OLD_KEY))) as server:
            version = server.get("/version").body["gitVersion"]
            assert f"kube-apiserver {version.removeprefix('v')}," in programs.versions
            fill(server, "before")
        with programs.serve(etcd, configuration(aescbc(NEW_KEY, OLD_KEY))) as server:
            fill(server, "after")
            served = read_all(server)
        stream = io.BytesIO()
        etcd.client().save(stream)
    snapshot.write_bytes(stream.getvalue())
    snapshot.chmod(0o400)
    assert {path: len(items) for path, items in served.items()} == {SECRETS: 13, CONFIGMAPS: 12, WIDGETS: 12}
    return Cluster(snapshot, served)


_PROVEN: list[str] = []


@pytest.fixture
def proven(programs: Programs) -> Callable[[str], None]:
    """Say what a story has shown; printed at the end, with versions and times."""
    began = time.monotonic()

    def say(what: str) -> None:
        _PROVEN.append(f"{time.monotonic() - began:6.1f} s  {programs.versions}: {what}")

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _PROVEN:
        terminalreporter.section("proven")
        for line in _PROVEN:
            terminalreporter.line(line)
