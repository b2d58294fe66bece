"""Programs of other people that judge what snaptool wrote: brought by `make peers`, `make oracles`, `make apiserver`.

What was not brought is skipped, with the reason. What was to be brought and did not build is a failure. At its end a
run says who judged how much: a green run in which nobody judged anything must not look like one in which all did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oracles.judge import Judge
from tests.peers.build import MAKE, PEERS, pinned

ETCD_VERSIONS = tuple(pinned("etcd"))
BBOLT_VERSIONS = tuple(pinned("bbolt"))
APISERVER_VERSIONS = tuple(pinned("apiserver"))
KUBERNETES_VERSIONS = tuple(pinned("kubernetes"))

_JUDGED = "judged"
Judged = Callable[[str, str, int], None]


def peer(name: str, version: str) -> Path:
    """The folder with a program's binaries. Skips the test if it is not there, fails it if it could not be built."""
    folder = PEERS / f"{name}-{version}"
    failed, skipped = (PEERS / f"{folder.name}.{end}" for end in ("failed", "skipped"))
    if failed.is_file():
        pytest.fail(f"{name} {version} did not build: {failed.read_text()}")
    if folder.is_dir():
        return folder
    reason = f", which said: {skipped.read_text()}" if skipped.is_file() else ""
    pytest.skip(f"{name} {version} is not there; `make {MAKE[name]}` brings it{reason}")


@pytest.fixture(scope="session", params=APISERVER_VERSIONS, ids=lambda version: f"kubernetes-1{version[1:]}")
def running_judge(request: pytest.FixtureRequest) -> Iterator[Judge]:
    """Kubernetes' own code, one release after the other. Tests take `judge`, which counts."""
    with Judge(peer("apiserver", request.param) / "transform") as judge:
        yield judge


@pytest.fixture
def judge(running_judge: Judge, judged: Judged) -> Iterator[Judge]:
    """Kubernetes' own code, one release after the other."""
    running_judge.values = running_judge.configs = 0
    yield running_judge
    judged(f"Kubernetes {running_judge.release}", "values", running_judge.values)
    judged(f"Kubernetes {running_judge.release}", "configurations", running_judge.configs)


@pytest.fixture
def judged(record_property: Callable[[str, object], None]) -> Judged:
    """Called with who judged what, and how many: for the summary of the run."""

    def note(who: str, what: str, count: int) -> None:
        if count:
            record_property(_JUDGED, [who, what, count])

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say who judged how much; properties travel with the reports, so this holds for parallel runs as well."""
    total: Counter[tuple[str, str]] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            # The report of a test's teardown, its last, has them all.
            properties = report.user_properties if getattr(report, "when", "") == "teardown" else ()
            for name, value in properties:
                if name == _JUDGED:
                    total[value[0], value[1]] += value[2]
    for who in sorted({who for who, _ in total}):
        counts = [f"{count:,} {what}" for (judge, what), count in sorted(total.items()) if judge == who]
        terminalreporter.write_line(f"judged by {who}: {', '.join(counts)}")
