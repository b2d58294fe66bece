"""Programs of other people that judge what snaptool wrote: brought by `make peers`, `make oracles`, `make apiserver`.

What was not brought is skipped, with the reason. What was to be brought and did not build is a failure.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.build import MAKE, PEERS, pinned

ETCD_VERSIONS = tuple(pinned("etcd"))
BBOLT_VERSIONS = tuple(pinned("bbolt"))
APISERVER_VERSIONS = tuple(pinned("apiserver"))
KUBERNETES_VERSIONS = tuple(pinned("kubernetes"))


def peer(name: str, version: str) -> Path:
    """The folder with a program's binaries. Skips the test if it is not there, fails it if it could not be built."""
    folder = PEERS / f"{name}-{version}"
    if folder.is_dir():
        return folder
    failed, skipped = (PEERS / f"{folder.name}.{end}" for end in ("failed", "skipped"))
    if failed.is_file():
        pytest.fail(f"{name} {version} did not build: {failed.read_text()}")
    reason = f", which said: {skipped.read_text()}" if skipped.is_file() else ""
    pytest.skip(f"{name} {version} is not there; `make {MAKE[name]}` brings it{reason}")
