"""The programs of a proof, the cluster that every story starts from, and what is printed at the end."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.proof.stories import (
    CONFIGMAPS,
    SECRETS,
    SERVICE_ACCOUNTS,
    WIDGETS,
    Cluster,
    Programs,
    find_programs,
    make_cluster,
)
from tests.support.peers import ETCD_VERSIONS, KUBERNETES_VERSIONS, peer

COUNTS = {SECRETS: 14, CONFIGMAPS: 13, SERVICE_ACCOUNTS: 1, WIDGETS: 12}


@pytest.fixture(scope="session", params=KUBERNETES_VERSIONS)
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    kubernetes: str = request.param
    etcd, program = peer("etcd", ETCD_VERSIONS[-1]), peer("kubernetes", kubernetes) / "kube-apiserver"
    return find_programs(program, kubernetes, etcd, tmp_path_factory.mktemp("p"))


@pytest.fixture(scope="session")
def cluster(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Secrets, ConfigMaps and custom resources under aescbc, whose key was rotated half-way."""
    made = make_cluster(programs, tmp_path_factory.mktemp("cluster") / "cluster.db")
    made.snapshot.chmod(0o400)
    assert {path: len(items) for path, items in made.served.items()} == COUNTS
    return made


_PROVEN: list[str] = []


@pytest.fixture
def proven(programs: Programs) -> Callable[[str], None]:
    """Say what a story has shown; printed at the end, with versions and times."""
    times = [time.monotonic()]

    def say(what: str) -> None:
        times.append(time.monotonic())
        _PROVEN.append(f"{times[-1] - times[-2]:6.1f} s  {programs.versions}: {what}")

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _PROVEN:
        terminalreporter.section("proven")
        for line in _PROVEN:
            terminalreporter.line(line)
