"""Nothing heavy is imported before it is needed: a look at a small file is over before some libraries are loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[1] / "samples"
HEAVY = (
    *("asyncio", "boto3", "botocore", "concurrent.futures", "cryptography", "email", "etcd3", "grpc"),
    *("importlib.metadata", "jinja2", "logging", "multiprocessing", "nacl", "numpy", "subprocess", "tarfile"),
    *("snaptool.bolt.writer", "snaptool.etcd.salvage", "snaptool.scratch", "snaptool.operations.keys"),
    *("snaptool.providers.kms", "snaptool.containers.tars", "snaptool.kube.kinds.printing"),
    *("tempfile", "yaml", "zipfile"),
    *("snaptool.containers.age", "snaptool.containers.directories", "snaptool.containers.gardener"),
    *("snaptool.containers.streams", "snaptool.containers.zips", "snaptool.embedded.found", "snaptool.embedded.k3s"),
    *("snaptool.kube.kinds", "snaptool.operations.embedding", "snaptool.operations.inside"),
    *("snaptool.operations.likelier", "snaptool.providers.config.held", "snaptool.stores.location"),
)
RUN = """
import sys
from snaptool.cli import run
sys.stdout, out = open("/dev/null", "w"), sys.stdout
code = run(sys.argv[2:])
import json
print(json.dumps([code, [name for name in json.loads(sys.argv[1]) if name in sys.modules]]), file=out)
"""


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (("--help",), []),
        (("inspect", str(SAMPLES / "lost-key.db")), []),
        (("inspect", str(SAMPLES / "lost-key.db"), "-o", "json"), []),
    ],
)
def test_a_command_imports_what_it_needs_alone(words: tuple[str, ...], needed: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(HEAVY), *words], capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout) == [0, needed]
