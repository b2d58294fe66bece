"""Go's own cryptography and JSON on the bootstrap data that snaptool seals for k3s and RKE2.

The judge is a program of the standard library alone, in tests/oracles/bootstrap, written from the format: k3s' own
module cannot be had from Go's module proxy. That it judges as k3s does shows in the vectors: k3s' code made their
values.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snaptool.cli import exits
from snaptool.embedded.k3s import Bootstrap, disabled_configuration, passphrases, seal, storage_key, unseal
from snaptool.providers.config.rules import parse_config
from tests.cli.test_embedded import CLUSTER, K3S
from tests.cli.test_embedded_rewrite import NEW_SECRET, bootstrap_records, configuration, key
from tests.support.cli import GOLDEN, Snaptool
from tests.support.peers import Judged

VECTORS = json.loads((GOLDEN / "containers" / "config" / "k3s-bootstrap.json").read_text())["vectors"]
OPENED = [vector for vector in VECTORS if vector["expect"]["ok"]]
SOURCE = Path(__file__).parents[1] / "oracles" / "bootstrap" / "main.go"
Ask = Callable[[str, bytes], dict[str, Any]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("go") is None:
        pytest.skip("Go is not installed, in which the judge of bootstrap data is written")
    target = tmp_path_factory.mktemp("judge") / "bootstrap"
    subprocess.run(["go", "build", "-o", target, SOURCE], check=True, capture_output=True)
    return target


@pytest.fixture
def ask(program: Path, judged: Judged) -> Ask:
    def asked(passphrase: str, value: bytes) -> dict[str, Any]:
        question = json.dumps({"passphrase": passphrase, "value": base64.b64encode(value).decode()})
        done = subprocess.run([program], input=question, capture_output=True, text=True, check=True)
        judged("Go's standard library", "bootstrap values", 1)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return asked


def passphrase_of(vector: dict[str, Any]) -> str:
    wanted = vector["etcd_key"].encode()
    return next(one for one in passphrases(vector["token"]) if storage_key(one) == wanted)


@pytest.mark.parametrize("vector", OPENED, ids=lambda vector: str(vector["name"]))
def test_the_judge_reads_what_k3s_wrote(ask: Ask, vector: dict[str, Any]) -> None:
    answer = ask(passphrase_of(vector), vector["value"].encode())
    assert (answer["key"], answer["error"]) == (vector["etcd_key"], "")
    assert base64.b64decode(answer["config"] or "").decode() == (vector["expect"]["encryption_config"] or "")


@pytest.mark.parametrize("vector", OPENED, ids=lambda vector: str(vector["name"]))
def test_the_judge_reads_what_is_sealed_in_its_place(ask: Ask, vector: dict[str, Any]) -> None:
    passphrase = passphrase_of(vector)
    files = Bootstrap.parse(unseal(vector["value"].encode(), passphrase))
    config = disabled_configuration(("secrets",), NEW_SECRET)
    answer = ask(passphrase, seal(files.with_config(config, "2026-11-28T00:00:00Z"), passphrase, os.urandom))
    assert (answer["error"], base64.b64decode(answer["config"])) == ("", config)
    assert set(files.files) <= set(answer["names"])


def test_the_judge_refuses_another_passphrase(ask: Ask) -> None:
    value = [one.value for one in bootstrap_records(K3S) if one.value][-1]
    assert ask(CLUSTER["password"], value)["error"] == ""
    assert "authentication failed" in ask("another", value)["error"]


@pytest.mark.parametrize("kind", ["aescbc", "secretbox", "decrypt"])
def test_what_the_platform_reads_back_after_a_rotation_is_the_new_configuration(
    snaptool: Snaptool, ask: Ask, kind: str
) -> None:
    token = snaptool.write("token", CLUSTER["token"] + "\n")
    target = snaptool.folder / "new.db"
    writing: list[str | Path] = ["--decrypt"]
    if kind != "decrypt":
        writing = ["--new-config", configuration(snaptool, "new.yaml", key(kind, NEW_SECRET))]
    words: list[str | Path] = ["--embedded-config", "--token-file", token, *writing, "--update-embedded"]
    assert snaptool("rewrite", K3S, target, *words, makes=[target]).code == exits.DONE
    values = [one for one in bootstrap_records(target) if one.value]
    assert values
    for record in values:
        answer = ask(CLUSTER["password"], record.value)
        assert answer["error"] == ""
        assert answer["key"].encode() == record.key
        config = base64.b64decode(answer["config"])
        assert answer["providers"] == (["identity", "aescbc"] if kind == "decrypt" else [kind, "identity"])
        if kind != "decrypt":
            assert parse_config(config).entries == parse_config((snaptool.folder / "new.yaml").read_bytes()).entries
    kept = set(ask(CLUSTER["password"], [one for one in bootstrap_records(K3S) if one.value][-1].value)["names"])
    assert kept <= set(answer["names"])
