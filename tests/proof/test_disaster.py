"""A key is lost. The API server cannot list a single Secret; snaptool takes away what is lost, and only that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proof.stories import (
    CONFIGMAPS,
    NEW_KEY,
    SECRETS,
    WIDGETS,
    Cluster,
    Programs,
    aescbc,
    configuration,
    read_all,
    snaptool,
)

pytestmark = pytest.mark.proof


def test_lists_work_again_and_exactly_the_lost_objects_are_gone(
    programs: Programs, cluster: Cluster, tmp_path: Path, proven: Callable[[str], None]
) -> None:
    remaining = configuration(aescbc(NEW_KEY))
    config = tmp_path / "remaining.yaml"
    config.write_text(remaining)

    with programs.boot(cluster.snapshot) as etcd, programs.serve(etcd, remaining, ready="/livez/ping") as server:
        # Other words since 1.37, where AllowUnsafeMalformedObjectDeletion is on (apiserver pkg/features).
        minor = int(server.get("/version").body["gitVersion"].split(".")[1])
        words = "data from the storage is not transformable" if minor >= 37 else "unable to transform key"
        for path in (SECRETS, CONFIGMAPS, WIDGETS):
            refused = server.wait_for(f"{path}?limit=500", 500)  # as kubectl asks
            assert "no matching key was found for the provided AES transformer" in refused.message
            assert words in refused.message
        assert server.get("/readyz").status == 500

    target = tmp_path / "recovered.db"
    told = snaptool("rewrite", cluster.snapshot, target, "--config", config, "--new-config", config, "-o", "json")
    assert told.code == 3, told
    assert not target.exists()
    lost = {entry["key"] for entry in json.loads(told.out)["lost"] if entry["live"]}

    ran = snaptool(
        "rewrite", cluster.snapshot, target, "--config", config, "--new-config", config, "--undecryptable", "delete"
    )
    assert ran.code == 0, ran
    with programs.boot(target) as etcd, programs.serve(etcd, remaining) as server:
        served = read_all(server)

    gone = set()
    for path, before in cluster.served.items():
        resource = path.rsplit("/", 1)[1]
        prefix = f"/registry/proof.example.com/{resource}" if resource == "widgets" else f"/registry/{resource}"
        assert served[path].items() <= before.items()  # what is left is served as it was, revisions included
        gone |= {f"{prefix}/{name}" for name in before.keys() - served[path].keys()}
    assert gone == {key for key in lost if "/proof/" in key}
    # The Secrets that were written again since, and the widget that was made again, are not among them.
    assert len(gone) == (6 - 2) + 6 + (6 - 1)
    proven(
        f"with a key lost, lists of Secrets, ConfigMaps and a custom resource fail; after `snaptool rewrite "
        f"--undecryptable delete` they work, {sum(map(len, served.values()))} objects are served as before, and "
        f"exactly the {len(gone)} lost ones are gone"
    )
