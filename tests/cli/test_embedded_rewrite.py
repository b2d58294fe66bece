"""What `rewrite` does to the configuration that a snapshot carries inside: a new one, on purpose none, or a stop."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snaptool.cli import exits
from snaptool.embedded.k3s import Bootstrap, BootstrapProblem, storage_key, unseal
from snaptool.etcd import KeyValue, Revision, decode_key_value, encode_key_value, encode_revision_key
from snaptool.operations.opening import open_snapshot
from snaptool.providers.config.rules import parse_config
from tests.cli.test_embedded import CLUSTER, K3S, OPENSHIFT, OPENSHIFT_FACTS, TWO, counts
from tests.support.cli import Snaptool
from tests.support.history import make_snapshot

NEW_SECRET = bytes(range(100, 132))
OLD_SECRET = bytes(range(32))


@pytest.fixture
def token(snaptool: Snaptool) -> Path:
    return snaptool.write("token", CLUSTER["token"] + "\n")


def configuration(snaptool: Snaptool, name: str, providers: str) -> Path:
    return snaptool.write(
        name,
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"
        f"- resources: [secrets]\n  providers: [{providers}, {{identity: {{}}}}]\n",
    )


def key(kind: str, secret: bytes, name: str = "new") -> str:
    return f"{{{kind}: {{keys: [{{name: {name}, secret: {base64.b64encode(secret).decode()}}}]}}}}"


@pytest.fixture
def new(snaptool: Snaptool) -> Path:
    return configuration(snaptool, "new.yaml", key("secretbox", NEW_SECRET))


def bootstrap_records(path: Path) -> Iterator[KeyValue]:
    with open_snapshot(path) as opened:
        for _, stored in opened.snapshot.items(b"key"):
            record = decode_key_value(stored)
            if record.key.startswith(b"/bootstrap/"):
                yield record


def files_of(record: KeyValue, passphrase: str) -> Bootstrap:
    return Bootstrap.parse(unseal(record.value, passphrase))


def test_case_60_bootstrap_write_back(snaptool: Snaptool, token: Path, new: Path) -> None:
    target = snaptool.folder / "new.db"
    words: list[str | Path] = ["--embedded-config", "--token-file", token, "--new-config", new, "--update-embedded"]
    ran = snaptool("rewrite", K3S, target, *words, "-o", "json", makes=[target])
    assert ran.code == exits.DONE
    assert ran.json["verified"]
    assert ran.json["embedded"] == {"place": "/bootstrap/69c4de406fab", "records": 1}
    assert ran.json["records"]["deleted"] == 0
    assert "same token" in ran.stderr
    before, after = list(bootstrap_records(K3S)), list(bootstrap_records(target))
    assert [(one.key, one.mod_revision, one.version) for one in before] == [
        (one.key, one.mod_revision, one.version) for one in after
    ]
    assert before[0].value == after[0].value == b"", "the lock stays a lock"
    old_files, new_files = (files_of(records[-1], CLUSTER["password"]) for records in (before, after))
    changed = {"EncryptionConfig", "EncryptionHash"}
    assert {name: file for name, file in new_files.files.items() if name not in changed} == {
        name: file for name, file in old_files.files.items() if name not in changed
    }
    assert new_files.config is not None
    assert parse_config(new_files.config).entries == parse_config(new.read_bytes()).entries
    assert json.loads(new_files.config)["kind"] == "EncryptionConfiguration", "k3s reads it with Go's JSON"
    assert new_files.state == f"start-{hashlib.sha256(new_files.config).hexdigest()}"
    # And so the file opens with nothing but its token.
    again = snaptool("inspect", target, "--embedded-config", "--token-file", token, "-o", "json")
    assert counts(again) == (5, 0)
    assert again.json["embedded"][0]["keys"] == [{"provider": "secretbox", "name": "new"}]


def test_every_revision_of_the_record_loses_the_old_keys(snaptool: Snaptool, token: Path, new: Path) -> None:
    with open_snapshot(K3S) as opened:
        records = list(opened.snapshot.items(b"key"))
    live = [decode_key_value(stored) for _, stored in records if b"/bootstrap/" in stored][-1]
    last = max(decode_key_value(stored).mod_revision for _, stored in records) + 1
    again = KeyValue(
        key=live.key,
        create_revision=live.create_revision,
        mod_revision=last,
        version=live.version + 1,
        value=live.value,
    )
    records.append((encode_revision_key(Revision(last, 0)), encode_key_value(again)))
    source = snaptool.write("two.db", make_snapshot(records))
    target = snaptool.folder / "new.db"
    words: list[str | Path] = ["--embedded-config", "--token-file", token, "--new-config", new, "--update-embedded"]
    ran = snaptool("rewrite", source, target, *words, "-o", "json", makes=[target])
    assert ran.json["embedded"]["records"] == 2
    values = [one.value for one in bootstrap_records(target) if one.value]
    assert len(values) == 2
    for record in bootstrap_records(target):
        if record.value:
            config = files_of(record, CLUSTER["password"]).config or b""
            assert base64.b64encode(OLD_SECRET) not in config
    assert values[0] != values[1], "each has a salt and a nonce of its own"


@pytest.mark.parametrize("how", ["given", "embedded", "closed"])
def test_case_61_bootstrap_stale(snaptool: Snaptool, token: Path, new: Path, how: str) -> None:
    old = configuration(snaptool, "old.yaml", key("aescbc", OLD_SECRET, "aescbckey"))
    words: list[Any] = {
        "given": ["-c", old, "--token-file", token],
        "embedded": ["--embedded-config", "--token-file", token],
        "closed": ["-c", old],
    }[how]
    target = snaptool.folder / "new.db"
    ran = snaptool("rewrite", K3S, target, *words, "--new-config", new, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "embedded_config_stale")
    remedy = ran.json["error"]["remedy"]
    assert "--update-embedded" in remedy
    assert "--keep-embedded" in remedy
    # Both ways that it names go on.
    kept = snaptool("rewrite", K3S, target, *words, "--new-config", new, "--keep-embedded", makes=[target])
    assert kept.code == exits.DONE
    assert [one.value for one in bootstrap_records(target)] == [one.value for one in bootstrap_records(K3S)]
    if how != "closed":
        words += ["--new-config", new, "--update-embedded", "--force"]
        assert snaptool("rewrite", K3S, target, *words, replaces=[target]).code == exits.DONE


def test_nothing_stops_when_the_keys_stay_the_same(snaptool: Snaptool, token: Path) -> None:
    old = configuration(snaptool, "old.yaml", key("aescbc", OLD_SECRET, "aescbckey"))
    target = snaptool.folder / "new.db"
    ran = snaptool("rewrite", K3S, target, "-c", old, "--token-file", token, "--new-config", old, makes=[target])
    assert ran.code == exits.DONE


def test_decrypted_values_get_the_form_of_a_server_whose_encryption_is_off(snaptool: Snaptool, token: Path) -> None:
    target = snaptool.folder / "plain.db"
    words: list[str | Path] = ["--embedded-config", "--token-file", token, "--decrypt", "--update-embedded"]
    assert snaptool("rewrite", K3S, target, *words, makes=[target]).code == exits.DONE
    config = files_of(list(bootstrap_records(target))[-1], CLUSTER["password"]).config or b""
    (entry,) = parse_config(config).entries
    assert [str(provider.kind) for provider in entry.providers] == ["identity", "aescbc"]
    assert base64.b64encode(OLD_SECRET) not in config, "its key is a fresh one"
    kept = snaptool.folder / "kept.db"
    ran = snaptool("rewrite", K3S, kept, *words[:-1], makes=[kept])
    assert ran.code == exits.DONE
    assert "still has the old configuration" in ran.stderr


@pytest.mark.parametrize("kind", ["aesgcm"])
def test_what_k3s_does_not_take_is_refused_before_the_work(snaptool: Snaptool, token: Path, kind: str) -> None:
    bad = configuration(snaptool, "bad.yaml", key(kind, NEW_SECRET))
    target = snaptool.folder / "new.db"
    words: list[str | Path] = ["--embedded-config", "--token-file", token, "--new-config", bad, "--update-embedded"]
    ran = snaptool("rewrite", K3S, target, *words, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "embedded_unsupported")


def test_field_28_the_record_of_the_token_is_updated_and_the_other_named(snaptool: Snaptool, new: Path) -> None:
    target = snaptool.folder / "new.db"
    token = TWO / "token"
    words: list[str | Path] = ["--embedded-config", "--token-file", token, "--new-config", new, "--update-embedded"]
    ran = snaptool("rewrite", TWO / "two.db", target, *words, makes=[target])
    assert ran.code == exits.DONE
    assert "/bootstrap/e3b0c44298fc still holds the old configuration" in ran.stderr
    before = {one.key: one.value for one in bootstrap_records(TWO / "two.db")}
    after = {one.key: one.value for one in bootstrap_records(target)}
    assert after[storage_key("")] == before[storage_key("")]
    with pytest.raises(BootstrapProblem):
        unseal(after[b"/bootstrap/ad65e8565e5e"], "another")
    assert counts(snaptool("inspect", target, "--embedded-config", "--token-file", token, "-o", "json")) == (3, 0)


def test_field_28_without_the_token_nothing_is_deleted(snaptool: Snaptool, new: Path) -> None:
    words: list[str | Path] = ["--embedded-config", "--new-config", new, "--keep-embedded"]
    ran = snaptool("rewrite", TWO / "two.db", snaptool.folder / "n.db", *words, "--undecryptable", "delete")
    assert ran.code == exits.USAGE
    assert "/bootstrap/ad65e8565e5e is closed" in ran.stderr
    assert "--token-file" in ran.stderr


def test_openshift_takes_its_own_keys_and_refuses_new_ones(snaptool: Snaptool, new: Path) -> None:
    kas = snaptool.write("kas.json", OPENSHIFT_FACTS["configs"]["openshift-kube-apiserver"])
    everything = snaptool.folder / "all.yaml"
    snaptool("config", "extract", OPENSHIFT, "-c", kas, "-f", everything, makes=[everything], shows_secrets=True)
    target = snaptool.folder / "new.db"
    same = snaptool(
        "rewrite", OPENSHIFT, target, "-c", everything, "--new-config", everything, "-o", "json", makes=[target]
    )
    assert same.code == exits.DONE
    rows = [row for row in same.json["values"] if row["from"]["provider"] != "identity" and row["to"]]
    assert {row["to"]["key_name"] for row in rows} == {"2"}
    target.unlink()
    other: list[str | Path] = ["-c", everything, "--new-config", new, "--allow-plaintext"]
    ran = snaptool("rewrite", OPENSHIFT, target, *other, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "embedded_config_stale")
    ran = snaptool("rewrite", OPENSHIFT, target, *other, "--update-embedded", "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "embedded_unsupported")


def test_no_configuration_is_needed_where_nothing_is_encrypted_and_none_may_delete(
    snaptool: Snaptool, new: Path
) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    plain = snaptool.folder / "plain.db"
    assert (
        snaptool("rewrite", source, plain, "-c", snaptool.sample("aescbc.yaml"), "--decrypt", makes=[plain]).code == 0
    )
    target = snaptool.folder / "new.db"
    assert snaptool("rewrite", plain, target, "--new-config", new, makes=[target]).code == exits.DONE
    stopped = snaptool("rewrite", source, snaptool.folder / "x.db", "--new-config", new)
    assert stopped.code == exits.FINDINGS
    ran = snaptool("rewrite", source, snaptool.folder / "x.db", "--new-config", new, "--undecryptable", "delete")
    assert ran.code == exits.USAGE
    assert "needs --config" in ran.stderr
