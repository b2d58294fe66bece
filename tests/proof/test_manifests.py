"""The manifests of the documentation, held to the schema by an API server that would take them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.proof.stories import Programs

pytestmark = pytest.mark.proof
DOCS = Path(__file__).parents[2] / "docs"
PATHS = {
    "CronJob": "/apis/batch/v1/namespaces/default/cronjobs",
    "Job": "/apis/batch/v1/namespaces/default/jobs",
}
STRICTLY = "?dryRun=All&fieldValidation=Strict"


def test_every_manifest_is_taken_without_an_unknown_field(programs: Programs, proven: Callable[[str], None]) -> None:
    blocks = [part for path in DOCS.glob("*.md") for part in re.findall(r"(?s)```yaml\n(.*?)```", path.read_text())]
    manifests = [one for one in map(yaml.safe_load, blocks) if one.get("kind") in PATHS]
    assert {one["kind"] for one in manifests} == set(PATHS)
    with programs.boot(None) as etcd, programs.serve(etcd, None) as server:
        server.wait_for("/api/v1/namespaces/default")
        for manifest in manifests:
            manifest["metadata"].pop("namespace", None)  # it is not there
            path = PATHS[manifest["kind"]] + STRICTLY
            answer = server.request("POST", path, manifest)
            assert answer.status == 201, answer.message
            wrong = {**manifest, "spec": {**manifest["spec"], "paralelism": 1}}
            assert "paralelism" in server.request("POST", path, wrong).message, "the server does look"
    proven(f"{len(manifests)} manifests are what the API takes")
