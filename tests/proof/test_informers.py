"""A cluster comes back from a rewritten snapshot. Clients that watched before must notice, and read all of it again."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proof.stories import (
    NEW_KEY,
    OLD_KEY,
    SECRETS,
    Cluster,
    Programs,
    aescbc,
    configuration,
    read_all,
    secretbox,
    snaptool,
)

pytestmark = pytest.mark.proof

BUMP = 1_000_000_000


def test_a_bumped_restore_ends_old_watches_and_new_ones_see_every_change(
    programs: Programs, cluster: Cluster, tmp_path: Path, proven: Callable[[str], None]
) -> None:
    old_config, new_config, target = tmp_path / "old.yaml", tmp_path / "new.yaml", tmp_path / "new.db"
    old_config.write_text(configuration(aescbc(NEW_KEY, OLD_KEY)))
    new_config.write_text(configuration(secretbox("key-2027")))
    ran = snaptool("rewrite", cluster.snapshot, target, "--config", old_config, "--new-config", new_config)
    assert ran.code == 0, ran
    assert "--bump-revision 1000000000 --mark-compacted" in ran.out  # what the operator is told to do

    data = tmp_path / "data"
    command: list[str | Path] = [programs.etcd.restorer, "snapshot", "restore", target, "--data-dir", data]
    command += ["--bump-revision", str(BUMP), "--mark-compacted"]
    subprocess.run(command, check=True, capture_output=True)
    seen_before = max(int(item["metadata"]["resourceVersion"]) for item in cluster.served[SECRETS].values())
    with (
        programs.boot_data(data) as etcd,
        programs.serve(etcd, new_config.read_text()) as server,
    ):
        shutil.rmtree(data)
        assert read_all(server) == cluster.served
        (event,) = server.watch(SECRETS, str(seen_before))
        assert event["type"] == "ERROR"
        assert event["object"]["code"] == 410

        listed = server.get(SECRETS).body["metadata"]["resourceVersion"]
        assert int(listed) > BUMP
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "new"}, "stringData": {"a": "b"}}
        made = server.write("POST", SECRETS, body)
        assert int(made["metadata"]["resourceVersion"]) > int(listed)
        assert server.request("DELETE", f"{SECRETS}/before-2").status == 200
        events = list(server.watch(SECRETS, listed))
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
        ("ADDED", "new"),
        ("DELETED", "before-2"),
    ]
    assert events[1]["object"]["data"] == cluster.served[SECRETS]["proof/before-2"]["data"]
    proven(
        "restored with --bump-revision --mark-compacted, a watch from before is told 410 Gone, a new list and watch "
        "see every object and every change, the old value of a deleted Secret included"
    )
