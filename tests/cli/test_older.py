"""`rewrite --undecryptable older`, and dropping only what is lost: what a story of a lost key needs."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from snaptool.cli import exits
from snaptool.etcd import KeyValue, Revision, encode_key_value, encode_revision_key
from tests.cli.test_rewrite import stored, values
from tests.support.cli import GOLDEN, SAMPLES, Snaptool
from tests.support.history import Store, make_snapshot
from tests.support.snapshots import config

CASE = GOLDEN / "cases/field2/19-older-in-another-backup"
LOST_KEY = ("--config", SAMPLES / "lost-key.yaml")
KNOWN, OTHER = base64.b64encode(b"k" * 32).decode(), base64.b64encode(b"o" * 32).decode()


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A copy of the situation, in the test's folder."""
    return Path(shutil.copytree(CASE, tmp_path / "case"))


def expected() -> Any:
    return json.loads((CASE / "expected.json").read_text())


def names(document: Any, member: str, **which: bool) -> set[str]:
    rows = [row for row in document[member] if all(row[name] == value for name, value in which.items())]
    return {row["key"].removeprefix("/registry/secrets/") for row in rows}


def test_older_revisions_come_from_an_earlier_backup_of_the_same_life(snaptool: Snaptool, case: Path) -> None:
    want, target = expected(), case / "new.db"
    words = [case / word if word.endswith((".db", ".yaml")) else word for word in want["command"]]
    ran = snaptool(*words, "-o", "json", makes=[target])
    assert ran.code == want["exit"]
    assert names(ran.json, "restored") == {name.partition(" ")[0] for name in want["taken_back"]}
    assert {row["revision"] - row["from_revision"] > 0 for row in ran.json["restored"]} == {True}
    assert {row["from"] for row in ran.json["restored"]} == {str(case / "yesterday.db")}
    reasons = {row["key"].removeprefix("/registry/secrets/"): row["no_older"] for row in ran.json["deletions"]}
    assert set(reasons) == set(want["not_taken_back"])
    for name, reason in want["not_taken_back"].items():
        assert reasons[name].replace(f"{case}/", "").startswith(reason), (name, reasons[name])
    # The same keys and revisions, the contents of yesterday.
    today, after = values(case / "today.db"), values(target)
    taken = {place for place in today if "/secrets/" not in place[0] or place[0].endswith(("/db", "/smtp"))}
    assert set(after) == taken
    got = snaptool("get", target, "secret", "db", "-n", "shop", "--config", case / "have.yaml", "-o", "json")
    then = snaptool(
        "get", case / "yesterday.db", "secret", "db", "-n", "shop", "--config", case / "have.yaml", "-o", "json"
    )
    assert got.json["data"] == then.json["data"] != {}


def test_earlier_backup_of_another_cluster_is_refused(snaptool: Snaptool, case: Path) -> None:
    other = snaptool.sample("aescbc-cluster.db")
    words = ("rewrite", case / "today.db", case / "new.db", "--config", case / "have.yaml")
    ran = snaptool(*words, "--undecryptable", "older", "--older-from", other)
    assert ran.code == exits.USAGE
    assert "cluster" in ran.stderr


def secret(name: str, text: str) -> bytes:
    tree = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name, "namespace": "a"}, "type": text}
    return json.dumps(tree).encode() + b"\n"


def sealed(snaptool: Snaptool, key: bytes, plaintext: bytes, secret_text: str, name: str) -> bytes:
    from snaptool.providers.config.rules import parse_config
    from snaptool.providers.keyring import GroupResource, Keyring

    del snaptool
    parsed = parse_config(config("aesgcm", name=name, secret=secret_text).encode())
    return Keyring((parsed,)).chain_for(GroupResource("secrets", "")).seal(plaintext, key)


@pytest.fixture
def history(snaptool: Snaptool) -> Path:
    """`back` has an older revision that opens; `gone` has none; `past` lost its first; `again` was created twice."""
    store = Store()

    def put(name: str, text: str, *, lost: bool) -> None:
        key = f"/registry/secrets/a/{name}".encode()
        plaintext = secret(name, text)
        store.put(key, sealed(snaptool, key, plaintext, OTHER if lost else KNOWN, "lost" if lost else "known"))

    put("back", "one", lost=False)
    put("back", "two", lost=False)
    put("gone", "one", lost=True)
    put("past", "one", lost=True)
    put("past", "two", lost=False)
    put("again", "one", lost=False)
    store.delete(b"/registry/secrets/a/again")
    put("again", "two", lost=True)
    put("back", "three", lost=True)
    store.put(b"/registry/configmaps/a/other", b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"other"}}\n')
    snaptool.write("known.yaml", config("aesgcm", name="known", secret=KNOWN))
    return snaptool.write("history.db", store.snapshot())


@pytest.mark.parametrize("new", [False, True], ids=["only lost", "new keys"])
def test_older_gives_back_the_newest_revision_of_this_life_and_deletes_the_rest(
    snaptool: Snaptool, history: Path, tmp_path: Path, new: object
) -> None:
    target = tmp_path / "new.db"
    known = tmp_path / "known.yaml"
    fresh = snaptool.write("fresh.yaml", config("secretbox", name="fresh"))
    writing = ("--new-config", str(fresh)) if new else ()
    ran = snaptool(
        *("rewrite", history, target, "--config", known, *writing, "--undecryptable", "older", "-o", "json"),
        makes=[target],
    )
    assert ran.code == 0
    (back,) = ran.json["restored"]
    assert (back["key"], back["revision"], back["from_revision"]) == ("/registry/secrets/a/back", 10, 3)
    assert names(ran.json, "deletions", whole=True) == {"a/gone", "a/again"}
    assert names(ran.json, "deletions", whole=False) == {"a/past"}
    after = values(target)
    assert after["/registry/secrets/a/back", 10].startswith(
        b"k8s:enc:secretbox:v1:fresh:" if new else b"k8s:enc:aesgcm:v1:known:"
    )
    got = snaptool("get", target, "/registry/secrets/a/back", "--config", fresh if new else known, "-o", "value")
    assert got.stdout.encode() == secret("back", "two")
    moved = [row for row in ran.json["values"] if row["from"]["key_name"] == "lost" and row["to"]]
    assert [(row["to"]["key_name"], row["live"], row["old"]) for row in moved] == [("fresh" if new else "known", 1, 0)]


@pytest.mark.parametrize("option", ["delete", "older"])
def test_without_a_new_configuration_every_other_record_keeps_every_byte(
    snaptool: Snaptool, tmp_path: Path, option: str
) -> None:
    source, target = snaptool.sample("lost-key.db"), tmp_path / "new.db"
    ran = snaptool(
        *("rewrite", source, target, *LOST_KEY, "--undecryptable", option, "-o", "json"),
        makes=[target],
    )
    assert ran.code == 0
    gone = {row["key"] for row in ran.json["lost"]}
    before, after = values(source), values(target)
    kept = {place: value for place, value in before.items() if place[0] not in gone}
    assert {place: value for place, value in after.items() if place[0] not in gone} == kept
    assert ran.json["records"]["rewritten"] == 0
    bystanders = [item for item in stored(source).items() if not any(key.encode() in item[1] for key in gone)]
    assert set(bystanders) <= set(stored(target).items())
    assert ran.json["target"]["revision"] == ran.json["source"]["revision"]


def test_only_what_is_undecodable_goes(snaptool: Snaptool, tmp_path: Path) -> None:
    store = Store()
    store.put(b"/registry/pods/a/good", b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"good"}}\n')
    store.put(b"/registry/pods/a/bad", b"rubbish")
    source, target = snaptool.write("source.db", store.snapshot()), tmp_path / "new.db"
    ran = snaptool("rewrite", source, target, "--undecodable", "delete", "--etcd-prefix", "/registry", makes=[target])
    assert ran.code == 0
    assert {key for key, _ in values(target)} == {"/registry/pods/a/good"}
    assert values(target).items() <= values(source).items()


def test_something_to_do_has_to_be_said(snaptool: Snaptool, tmp_path: Path) -> None:
    source, target = snaptool.sample("lost-key.db"), tmp_path / "new.db"
    ran = snaptool("rewrite", source, target, *LOST_KEY)
    assert ran.code == exits.USAGE
    assert "--undecryptable older" in ran.stderr
    ran = snaptool("rewrite", source, target, *LOST_KEY, "--undecryptable", "delete", "--older-from", source)
    assert ran.code == exits.USAGE


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("entries", "said"),
    [("pods", "has no entry for them"), ("identity", "identity is the first provider of their entry")],
)
def test_encrypted_values_become_plaintext_only_by_word(
    snaptool: Snaptool, tmp_path: Path, entries: str, said: str, dry: tuple[str, ...]
) -> None:
    source, target = snaptool.sample("aescbc-cluster.db"), tmp_path / "new.db"
    text = config("secretbox", resources="pods")
    if entries == "identity":
        text += "- resources: [secrets]\n  providers:\n  - identity: {}\n"
    new = snaptool.write("new.yaml", text)
    reading = ("--config", SAMPLES / "aescbc.yaml", "--new-config", new)
    words: list[str | Path] = ["rewrite", source, target, *reading, *dry]
    ran = snaptool(*words)
    assert ran.code == exits.FINDINGS
    uncovered = "" if entries == "identity" else "the configuration that writes "
    assert f"secrets (11 values): {uncovered}{said}" in ran.stderr
    assert "--allow-plaintext" in ran.stderr
    makes = [] if dry else [target]
    ran = snaptool(*words, "--allow-plaintext", makes=makes)
    assert ran.code == exits.DONE
    assert snaptool(*words, "--allow-uncovered", *(() if dry else ("--force",)), replaces=makes).code == exits.DONE


def test_the_old_name_of_the_word_is_not_shown(snaptool: Snaptool) -> None:
    shown = snaptool("rewrite", "--help").stdout
    assert "--allow-plaintext" in shown
    assert "--allow-uncovered" not in shown


def test_decrypt_needs_no_word(snaptool: Snaptool, tmp_path: Path) -> None:
    target = tmp_path / "new.db"
    words = ("rewrite", snaptool.sample("aescbc-cluster.db"), target, "--config", SAMPLES / "aescbc.yaml", "--decrypt")
    assert snaptool(*words, makes=[target]).code == exits.DONE


def test_where_older_revisions_may_be_is_said_and_no_deletion_is_advised_before(snaptool: Snaptool, case: Path) -> None:
    reading = ("--config", case / "have.yaml")
    said = "This snapshot was compacted at revision 12: older revisions are in earlier backups (--older-from)."
    target = case / "new.db"
    commands: list[list[str | Path]] = [["inspect"], ["list", "--lost"], ["verify"], ["rewrite", target, "--decrypt"]]
    for asked in commands:
        out = snaptool(asked[0], case / "today.db", *asked[1:], *reading).stdout
        assert said in out, asked[0]
        command = out[out.index("Next: ") :].replace("\\\n", "")
        assert "takes what an earlier backup of the cluster has of" in command
        assert "--undecryptable older --older-from EARLIER-BACKUP" in " ".join(command.split())
        assert "--undecryptable delete" not in command
    deleted = snaptool("rewrite", case / "today.db", target, *reading, "--undecryptable", "delete", "--dry-run")
    assert said in deleted.stdout
    # The command, with a backup in the place of the word, takes back what that has.
    words = [case / "yesterday.db" if word == "EARLIER-BACKUP" else word for word in command.split()[-4:]]
    taken = snaptool("rewrite", case / "today.db", target, *reading, *words, "-o", "json", makes=[target])
    assert (taken.code, len(taken.json["restored"])) == (0, 2)


def test_older_revisions_of_a_store_that_does_not_say_when_it_was_compacted(snaptool: Snaptool) -> None:
    key = b"/registry/secrets/a/once"
    value = KeyValue(
        key=key,
        create_revision=2,
        mod_revision=9,
        version=3,
        value=sealed(snaptool, key, secret("once", "x"), OTHER, "lost"),
    )
    source = snaptool.write("a.db", make_snapshot([(encode_revision_key(Revision(9, 0)), encode_key_value(value))]))
    known = snaptool.write("known.yaml", config("aesgcm", name="known", secret=KNOWN))
    out = snaptool("inspect", source, "--config", known).stdout
    assert "Older revisions are not in this snapshot: look into earlier backups (--older-from)." in out
