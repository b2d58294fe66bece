"""What Kubernetes' own storage says of odd values: where it fails, snaptool has a fault for them, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptool.kube.undecodable import ExpectedType, expected_type, fault
from snaptool.scratch.server import EtcdBinaries, ScratchEtcd
from tests.oracles.store import Store
from tests.support.etcd import etcd_binaries, scratch_parent
from tests.support.odd_values import DECODABLE, NAMELESS, UNDECODABLE
from tests.support.peers import APISERVER_VERSIONS, peer

__all__ = ["etcd_binaries", "scratch_parent"]

SECRETS = expected_type("secrets", "") or ExpectedType("nothing")


@pytest.fixture(params=APISERVER_VERSIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with Store(peer("apiserver", request.param) / "storage", tmp_path / "log") as store:
        yield store


def test_a_list_fails_exactly_at_what_is_called_undecodable(
    store: Store, etcd_binaries: EtcdBinaries, scratch_parent: Path
) -> None:
    with ScratchEtcd.fresh(binaries=etcd_binaries, parent=scratch_parent, tcp=True) as etcd:
        for name, content in {**DECODABLE, **UNDECODABLE, **NAMELESS}.items():
            etcd.client().put(b"/registry/secrets/default/s1", content)
            failed = bool(store.list(etcd, "", "secrets").error)
            # Of what names no object servers make one without a name; see kube/undecodable.py.
            assert failed == (name in UNDECODABLE), name
            assert (fault(content, SECRETS, full=True) is not None) == (name not in DECODABLE), name
