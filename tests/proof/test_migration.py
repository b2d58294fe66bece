"""Keys and providers change. Every object reads the same through the API with the new configuration alone."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proof.stories import (
    CANARY,
    NEW_KEY,
    OLD_KEY,
    SECRETS,
    Cluster,
    Programs,
    aescbc,
    configuration,
    fill,
    kms,
    read_all,
    secret_of,
    secretbox,
    snaptool,
)
from tests.support.kms_plugin import kms_plugin

pytestmark = pytest.mark.proof

MIDDLE_KEY = "key-2027"
AESCBC = ("aescbc", configuration(aescbc(NEW_KEY, OLD_KEY)), b"k8s:enc:aescbc:v1:")
SECRETBOX = ("secretbox", configuration(secretbox(MIDDLE_KEY)), f"k8s:enc:secretbox:v1:{MIDDLE_KEY}:".encode())
PLAINTEXT = ("identity", configuration("identity: {}"), b"")


def leftovers(folder: Path, *pieces: bytes) -> list[tuple[Path, bytes]]:
    """Every file below a folder that holds one of these byte strings."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        found += [(path, piece) for piece in pieces if piece in content]
    return found


def migrate(
    programs: Programs,
    cluster: Cluster,
    tmp_path: Path,
    steps: list[tuple[str, str, bytes]],
    say: Callable[[str], None],
) -> None:
    """Walk from configuration to configuration; a step is a name, the configuration, and how its values begin."""
    secrets = [secret_of(key) for key in (OLD_KEY, NEW_KEY, MIDDLE_KEY)]
    keys = [*secrets, *(base64.b64encode(secret) for secret in secrets)]
    source = cluster.snapshot
    for (old_name, old, old_prefix), (name, new, prefix) in itertools.pairwise(steps):
        old_config, new_config = tmp_path / f"{old_name}.yaml", tmp_path / f"{name}.yaml"
        old_config.write_text(old)
        new_config.write_text(new)
        target = tmp_path / f"{name}.db"
        words = [] if prefix else ["--allow-plaintext"]
        ran = snaptool("rewrite", source, target, "--config", old_config, "--new-config", new_config, *words)
        assert ran.code == 0, ran
        with programs.boot(target) as etcd:
            with programs.serve(etcd, new) as server:
                assert read_all(server) == cluster.served
            data = etcd.directory / "data"
            assert leftovers(data, old_prefix, *keys) == []
            if prefix:
                assert leftovers(data, prefix) != []
                assert leftovers(data, CANARY.encode()) == []
            else:
                assert leftovers(data, CANARY.encode()) != []
                assert leftovers(data, b"k8s:enc:") == []
        objects = sum(map(len, cluster.served.values()))
        say(
            f"{old_name} to {name}: {objects} objects read the same through the API with the new configuration "
            f"alone, and nothing of the old one is in the data directory"
        )
        source = target


def test_aescbc_to_secretbox_to_plaintext(
    programs: Programs, cluster: Cluster, tmp_path: Path, proven: Callable[[str], None]
) -> None:
    steps = [AESCBC, SECRETBOX, PLAINTEXT]
    migrate(programs, cluster, tmp_path, steps, proven)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_aescbc_to_kms_and_back_to_local_keys(
    version: str, programs: Programs, cluster: Cluster, tmp_path: Path, proven: Callable[[str], None]
) -> None:
    """Both directions: the server reads what snaptool sealed, and snaptool what the server sealed after that."""
    with kms_plugin() as plugin:
        provider, prefix = kms(version, plugin.endpoint), f"k8s:enc:kms:{version}:proof-kms:"
        step = (f"kms {version}", configuration(provider), prefix.encode())
        migrate(programs, cluster, tmp_path, [AESCBC, step], proven)
        stream = io.BytesIO()
        with programs.boot(tmp_path / f"{step[0]}.db") as etcd:
            plugin.control(rotate="kek-2")
            with programs.serve(etcd, step[1]) as server:
                fill(server, "after-migration")
                served = read_all(server)
            etcd.client().save(stream)
        (tmp_path / "rotated.db").write_bytes(stream.getvalue())
        assert len(served[SECRETS]) == len(cluster.served[SECRETS]) + 6
        rotated = Cluster(tmp_path / "rotated.db", served)
        migrate(programs, rotated, tmp_path, [step, SECRETBOX], proven)
