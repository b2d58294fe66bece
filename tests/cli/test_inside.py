"""Keys inside the snapshot that nobody read with: what they may open does not go without a word, nor by advice."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import snaptool as library
from snaptool.cli import exits
from snaptool.embedded.k3s import seal, storage_key
from snaptool.errors import InputError
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import GroupResource, Keyring
from tests.cli.test_embedded import CLUSTER, K3S, OPENSHIFT, OPENSHIFT_FACTS, TWO
from tests.cli.test_older import KNOWN, OTHER
from tests.support.cli import SAMPLES, Snaptool
from tests.support.history import Store
from tests.support.snapshots import config

TOKEN = "secret-of-the-server"  # noqa: S105 - it is for tests
THIRD = base64.b64encode(b"t" * 32).decode()
OF_ANOTHER_CLUSTER = SAMPLES / "aescbc.yaml"


def bootstrap(secret: str, passphrase: str, name: str = "aescbckey") -> bytes:
    """What a k3s server keeps: its files, one of them the configuration, sealed."""
    text = json.dumps(
        {
            "kind": "EncryptionConfiguration",
            "apiVersion": "apiserver.config.k8s.io/v1",
            "resources": [
                {
                    "resources": ["secrets"],
                    "providers": [{"aescbc": {"keys": [{"name": name, "secret": secret}]}}, {"identity": {}}],
                }
            ],
        }
    )
    files = {
        "EncryptionConfig": {"Timestamp": "2026-01-02T03:04:05Z", "Content": base64.b64encode(text.encode()).decode()}
    }
    return seal(json.dumps(files).encode(), passphrase, bytes)


def secret_under(secret: str, key: bytes, name: str = "aescbckey") -> bytes:
    parsed = parse_config(config("aescbc", name=name, secret=secret).encode())
    plaintext = b'{"kind":"Secret","apiVersion":"v1","metadata":{"name":"s","namespace":"a"},"type":"Opaque"}\n'
    return Keyring((parsed,)).chain_for(GroupResource("secrets", "")).seal(plaintext, key)


def cluster(snaptool: Snaptool, under: dict[str, str], places: dict[str, bytes]) -> Path:
    """A store with Secrets under keys, and what lies under /bootstrap/ by passphrase."""
    store = Store()
    for passphrase, value in places.items():
        store.put(storage_key(passphrase), value)
    for name, secret in under.items():
        key = f"/registry/secrets/a/{name}".encode()
        store.put(key, secret_under(secret, key))
    store.put(b"/registry/namespaces/a", b'{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"a"}}\n')
    return snaptool.write("k3s.db", store.snapshot())


Words = list[str | Path]
Situation = Callable[[Snaptool], tuple[Path, Words, int]]
"""A snapshot, how it is read, and how many values do not open so although a closed place may hold their key."""


def configuration_of_another_cluster(_: Snaptool) -> tuple[Path, Words, int]:
    return TWO / "two.db", ["--config", OF_ANOTHER_CLUSTER], 3


def record_out_of_date(_: Snaptool) -> tuple[Path, Words, int]:
    return TWO / "two.db", ["--embedded-config"], 3


def some_values_open(snaptool: Snaptool) -> tuple[Path, Words, int]:
    source = cluster(snaptool, {"old": KNOWN, "new": OTHER, "newer": OTHER}, {TOKEN: bootstrap(OTHER, TOKEN)})
    return source, ["--config", snaptool.write("old.yaml", config("aescbc", name="aescbckey", secret=KNOWN))], 2


SITUATIONS = [configuration_of_another_cluster, record_out_of_date, some_values_open]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.__name__)
def test_nothing_advises_to_delete_while_a_place_is_closed(snaptool: Snaptool, situation: Situation) -> None:
    source, reading, lost = situation(snaptool)
    target = snaptool.folder / "new.db"
    commands: tuple[Words, ...] = (
        ["inspect", source],
        ["verify", source],
        ["list", source, "--lost"],
        ["rewrite", source, target, "--decrypt"],
    )
    for words in commands:
        ran = snaptool(*words, *reading)
        assert ran.code == exits.FINDINGS
        assert "delete" not in ran.stdout.replace(str(snaptool.folder), "")
        assert "--embedded-config --token-file TOKEN" in ran.stdout.replace("\\\n", "")
        (cause, *_) = snaptool(*words, *reading, "-o", "json").json["likelier_causes"]
        assert (cause["values"], "is closed" in cause["problem"]) == (lost, True)


@pytest.mark.parametrize("how", ["delete", "older"])
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.__name__)
def test_nothing_goes_while_a_place_is_closed_but_by_word(snaptool: Snaptool, situation: Situation, how: str) -> None:
    source, reading, lost = situation(snaptool)
    target = snaptool.folder / "new.db"
    words: Words = ["rewrite", source, target, *reading, "--undecryptable", how]
    ran = snaptool(*words, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "bootstrap_token")
    assert f"{lost} values that would be deleted" in ran.json["error"]["problem"]
    assert f"--embedded-lost, with which {lost} values go" in ran.json["error"]["remedy"]
    done = snaptool(*words, "--embedded-lost", "-o", "json", makes=[target])
    assert done.json["records"]["deleted"] == lost


def test_with_the_token_of_the_closed_place_there_is_nothing_to_delete(snaptool: Snaptool) -> None:
    source, reading, _ = some_values_open(snaptool)
    token = snaptool.write("token", TOKEN)
    words: Words = ["rewrite", source, snaptool.folder / "new.db", *reading, "--undecryptable", "delete", "-o", "json"]
    read = snaptool(*words, "--embedded-config", "--token-file", token, makes=[snaptool.folder / "new.db"])
    assert read.json["records"]["deleted"] == 0
    # A token that opens the place, with nobody reading with what is in it.
    (snaptool.folder / "new.db").unlink()
    ran = snaptool(*words, "--token-file", token, "--embedded-lost")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "keys_inside")
    assert "2 values would be deleted, and open with" in ran.json["error"]["problem"]
    assert "--embedded-config --token-file" in ran.json["error"]["remedy"]


def test_a_place_that_opens_without_a_token_is_tried_before_anything_goes(snaptool: Snaptool) -> None:
    source = cluster(snaptool, {"one": OTHER}, {"": bootstrap(OTHER, "")})
    reading: Words = ["--config", OF_ANOTHER_CLUSTER]
    words: Words = ["rewrite", source, snaptool.folder / "new.db", "--undecryptable", "delete", "-o", "json"]
    ran = snaptool(*words, *reading, "--embedded-lost")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "keys_inside")
    assert ran.json["error"]["remedy"] == "read with it: --embedded-config"
    seen = snaptool("verify", source, *reading).stdout
    assert "delete" not in seen
    command = seen.splitlines()[-1].split()
    assert "OPENS" in snaptool(*command[1:]).stdout
    assert snaptool(*command[1:], "-o", "json").json["lost"] == []


def test_a_record_out_of_date_beside_that_of_the_token_may_still_open_something(snaptool: Snaptool) -> None:
    places = {"": bootstrap(OTHER, ""), TOKEN: bootstrap(KNOWN, TOKEN)}
    source = cluster(snaptool, {"old": OTHER, "new": KNOWN, "gone": THIRD}, places)
    token, target = snaptool.write("token", TOKEN), snaptool.folder / "new.db"
    words: Words = ["rewrite", source, target, "--embedded-config", "--token-file", token, "--undecryptable", "delete"]
    ran = snaptool(*words, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "keys_inside")
    assert "1 value would be deleted, and opens with" in ran.json["error"]["problem"]
    assert "snaptool config extract" in ran.json["error"]["remedy"]
    extracted = snaptool.folder / "extracted.yaml"
    snaptool("config", "extract", source, "--file", extracted, makes=[extracted], shows_secrets=True)
    done = snaptool(*words, "--config", extracted, "-o", "json", makes=[target])
    assert [row["key"] for row in done.json["deletions"]] == ["/registry/secrets/a/gone"]


def test_a_lock_holds_no_keys(snaptool: Snaptool) -> None:
    source = cluster(snaptool, {"one": OTHER}, {TOKEN: b""})
    words: Words = [
        "rewrite",
        source,
        snaptool.folder / "new.db",
        "--config",
        OF_ANOTHER_CLUSTER,
        "--undecryptable",
        "delete",
    ]
    assert snaptool(*words, makes=[snaptool.folder / "new.db"]).code == exits.DONE


def test_ciphertext_without_its_header_may_open_with_what_is_closed(snaptool: Snaptool) -> None:
    source = cluster(snaptool, {"one": KNOWN}, {TOKEN: bootstrap(OTHER, TOKEN)})
    store = Store()
    store.put(storage_key(TOKEN), bootstrap(OTHER, TOKEN))
    key = b"/registry/secrets/a/cut"
    store.put(key, secret_under(OTHER, key).split(b":", 5)[-1])
    store.put(b"/registry/namespaces/a", b'{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"a"}}\n')
    source = snaptool.write("cut.db", store.snapshot())
    target = snaptool.folder / "new.db"
    words: Words = ["rewrite", source, target, "--config", OF_ANOTHER_CLUSTER, "--undecodable", "delete", "-o", "json"]
    ran = snaptool(*words)
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "bootstrap_token")
    token = snaptool.write("token", TOKEN)
    opened = snaptool(*words, "--token-file", token)
    assert (opened.code, opened.json["error"]["code"]) == (exits.USAGE, "keys_inside")
    assert snaptool(*words, "--embedded-lost", makes=[target]).json["records"]["deleted"] == 1


def test_what_opens_with_openshifts_own_secrets_does_not_go(snaptool: Snaptool) -> None:
    kas = snaptool.write("kas.json", OPENSHIFT_FACTS["configs"]["openshift-kube-apiserver"])
    target = snaptool.folder / "new.db"
    words: Words = ["rewrite", OPENSHIFT, target, "-c", kas, "--undecryptable", "delete", "-o", "json"]
    ran = snaptool(*words)
    assert (ran.code, ran.json["error"]["code"]) == (exits.USAGE, "keys_inside")
    assert "2 values would be deleted, and open" in ran.json["error"]["problem"]
    done = snaptool(*words, "--embedded-config", makes=[target])
    assert (done.code, done.json["records"]["deleted"]) == (exits.DONE, 0)
    target.unlink()
    # Without any of its keys, all Secrets with keys are closed.
    other: Words = ["rewrite", OPENSHIFT, target, "-c", OF_ANOTHER_CLUSTER, "--undecryptable", "delete", "-o", "json"]
    closed = snaptool(*other)
    assert (closed.code, closed.json["error"]["code"]) == (exits.USAGE, "keys_inside")
    assert "kube-apiserver" in closed.json["error"]["remedy"]


def test_the_library_keeps_the_same_promise(tmp_path: Path) -> None:
    target = tmp_path / "new.db"
    two = TWO / "two.db"
    with pytest.raises(InputError, match="3 values that would be deleted"):
        library.rewrite(two, target, config=OF_ANOTHER_CLUSTER, undecryptable="delete")
    keyring = Keyring((parse_config(OF_ANOTHER_CLUSTER.read_bytes()),))
    request = library.RewriteRequest(reading=keyring, writing=Keyring(()), undecryptable="delete", only_lost=True)  # type: ignore[arg-type]  # words are taken
    with pytest.raises(InputError, match="3 values that would be deleted"):
        library.rewrite(two, target, request)
    assert not target.exists()
    inside = library.embedded_configs(two, token=(TWO / "token").read_text().strip())
    report = library.rewrite(
        two, target, config=inside, token=(TWO / "token").read_text().strip(), undecryptable="delete"
    )
    assert (report.records.deleted, report.lost) == (0, ())
    assert report.next
    given_up = library.rewrite(two, None, config=OF_ANOTHER_CLUSTER, undecryptable="delete", embedded_lost=True)
    assert given_up.records.deleted == 3


def test_what_is_read_is_what_the_library_returns(tmp_path: Path) -> None:
    configs = library.embedded_configs(K3S, token=CLUSTER["token"])
    assert library.inspect(K3S, configs).lost == ()
    with pytest.raises(InputError, match="no configuration inside opens"):
        library.embedded_configs(K3S)
    assert tmp_path.exists()


@pytest.mark.parametrize("words", [["get", K3S, "secrets", "-A"], ["verify", K3S], ["export", K3S, "-n", "shop"]])
def test_without_a_configuration_the_one_inside_is_named(snaptool: Snaptool, words: Words) -> None:
    said = " ".join(snaptool(*words).text.replace("\\\n", "").split())
    assert "with --config, or --embedded-config --token-file TOKEN" in said
    other = SAMPLES / "aescbc-cluster.db"
    plain = " ".join(snaptool(*[other if word == K3S else word for word in words]).text.split())
    assert "with --config" in plain
    assert "--embedded-config" not in plain
