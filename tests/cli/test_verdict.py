"""The last words of every command that opens values: objects, not records, and what to do next."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import snaptool as library
from snaptool.operations.verdict import KeyCount, objects, under_keys
from tests.cli.test_older import KNOWN, OTHER, history, sealed, secret
from tests.support.cli import GOLDEN, SAMPLES, Snaptool
from tests.support.history import Store
from tests.support.snapshots import config

__all__ = ["history"]

LOST, LOST_KEYS = SAMPLES / "lost-key.db", SAMPLES / "lost-key.yaml"
SENTENCE = "2 Secrets in namespace shop are lost (none has an older revision that opens), 1 more only loses history."


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", LOST),
        ("list", LOST, "--lost"),
        ("verify", LOST),
        ("rewrite", LOST, "new.db", "--new-config", SAMPLES / "secretbox.yaml"),
    ],
    ids=["inspect", "list", "verify", "rewrite"],
)
def test_what_is_lost_is_counted_in_objects_last(snaptool: Snaptool, words: tuple[str | Path, ...]) -> None:
    ran = snaptool(*words, "--config", LOST_KEYS)
    assert ran.code == 3
    assert ran.stdout.count(SENTENCE) == 1
    lines = ran.stdout.splitlines()
    after = lines[lines.index(SENTENCE) + 1 :]
    assert any(line.startswith("Next: ") for line in after)
    assert after[-1].startswith("    snaptool rewrite ")
    assert "unknown_key_name" not in ran.stdout, "a word for programs"
    summary = snaptool(*words, "--config", LOST_KEYS, "-o", "json").json["summary"]
    counts = {name: count for name, count in summary.items() if name != "values_by_key"}
    assert counts == {"objects_lost": 2, "objects_with_older": 0, "objects_deleted": 0, "histories_cut": 1}


def test_the_command_that_is_named_next_works(snaptool: Snaptool, tmp_path: Path) -> None:
    said = snaptool("inspect", LOST, "--config", LOST_KEYS).stdout.splitlines()[-1]
    target = tmp_path / "new.db"
    command = [str(target) if word == "new.db" else word for word in shlex.split(said)]
    assert command[0] == "snaptool"
    ran = snaptool(*command[1:], "-o", "json", makes=[target])
    assert ran.code == 0
    assert ran.json["summary"] == {
        "objects_lost": 2,
        "objects_with_older": 0,
        "objects_deleted": 2,
        "histories_cut": 1,
        "values_by_key": [
            {"provider": "aescbc", "key_name": "year-2025", "key_name_certain": True, "values": 10},
            {"provider": "aescbc", "key_name": "year-2026", "key_name_certain": True, "values": 2},
        ],
    }


def test_older_revisions_that_open_are_named_with_the_command_that_shows_them(
    snaptool: Snaptool, history: Path, tmp_path: Path
) -> None:
    ran = snaptool("inspect", history, "--config", tmp_path / "known.yaml")
    assert (
        "3 Secrets in namespace a are lost (1 has an older revision that opens), 1 more only loses history."
        in ran.stdout
    )
    assert "--undecryptable older" in ran.stdout.splitlines()[-1]
    (line,) = (line for line in ran.stdout.splitlines() if "--revision 3" in line)
    words = shlex.split(line)
    assert words[:2] == ["snaptool", "get"]
    assert words[3:7] == ["secrets", "back", "-n", "a"]
    shown = snaptool(*words[1:], "-o", "json")
    assert (shown.code, shown.json["type"]) == (0, "two")
    stopped = snaptool("rewrite", history, "new.db", "--config", tmp_path / "known.yaml", "--decrypt", "-o", "json")
    assert stopped.json["summary"]["objects_with_older"] == 1
    deleted = snaptool(
        "rewrite", history, "new.db", "--config", tmp_path / "known.yaml", "--undecryptable", "delete", "--dry-run"
    )
    assert "1 of the deleted had an older revision that opens: --undecryptable older takes it back." in deleted.stdout


def test_done_says_how_many_values_are_under_which_key(snaptool: Snaptool, tmp_path: Path) -> None:
    target = tmp_path / "new.db"
    words = ("--config", SAMPLES / "aescbc.yaml", "--new-config", SAMPLES / "secretbox.yaml")
    ran = snaptool("rewrite", snaptool.sample("aescbc-cluster.db"), target, *words, makes=[target])
    assert "11 values are under secretbox key1, 0 under any other key" in ran.stdout
    assert "Nothing is lost." in ran.stdout
    proof = snaptool("verify", target, "--config", SAMPLES / "secretbox.yaml")
    assert "11 values are under secretbox key1, 0 under any other key" in proof.stdout


def test_objects_are_counted_by_kind_and_namespace() -> None:
    keys = [f"/registry/secrets/ns-{number % 7}/s-{number}".encode() for number in range(34)]
    assert objects(keys, ("/registry",)) == "34 Secrets in 7 namespaces"
    assert objects([b"/registry/networkpolicies/a/x", b"/registry/namespaces/a"], ("/registry",)) == (
        "1 NetworkPolicy and 1 Namespace in namespace a"
    )
    assert under_keys([KeyCount(provider="aescbc", key_name="k", values=1)], ["masterleases"]) == (
        "1 value is under aescbc k, 0 under any other key; never encrypted by design: masterleases"
    )


# --- is the configuration the likelier cause? -----------------------------------------------------------------------


def store(snaptool: Snaptool, name: str, secret_text: str, count: int = 3) -> Path:
    made = Store()
    for number in range(count):
        key = f"/registry/secrets/a/s{number}".encode()
        made.put(key, sealed(snaptool, key, secret(f"s{number}", "x"), secret_text, name))
    return snaptool.write("lost.db", made.snapshot())


@pytest.mark.parametrize(
    ("stored_name", "stored_key", "configured", "said"),
    [
        ("key2", KNOWN, config("aesgcm", name="key1", secret=KNOWN), "open with the key that the configuration calls"),
        ("k", KNOWN, config("secretbox", name="k", secret=KNOWN), "the configuration calls secretbox 'k'"),
        ("aes-2026-01", OTHER, config("aesgcm", name="aes-2026", secret=KNOWN), "looks like the other cut off"),
        ("key1", OTHER, config("aesgcm", name="key1", secret=KNOWN), "none of the 3 encrypted values opens"),
    ],
    ids=["another name", "another provider", "cut name", "another cluster"],
)
def test_a_likelier_cause_is_said_before_any_advice_to_delete(
    snaptool: Snaptool, stored_name: str, stored_key: str, configured: str, said: str
) -> None:
    source, known = store(snaptool, stored_name, stored_key), snaptool.write("old.yaml", configured)
    for words in (("inspect", source), ("rewrite", source, "new.db", "--decrypt"), ("verify", source)):
        out = snaptool(*words, "--config", known).stdout
        assert said in out, words[0]
        assert out.index(said) < out.index("--undecryptable delete")
    causes: Any = json.loads(snaptool("inspect", source, "--config", known, "-o", "json").stdout)["likelier_causes"]
    assert [cause["values"] for cause in causes] == [3]


def test_a_key_that_is_really_lost_has_no_likelier_cause(snaptool: Snaptool) -> None:
    assert snaptool("inspect", LOST, "--config", LOST_KEYS, "-o", "json").json["likelier_causes"] == []


@pytest.mark.parametrize("words", [("inspect", LOST), ("list", LOST, "--lost")])
def test_lines_fit_a_terminal_of_80_columns(
    snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch, words: tuple[str | Path, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    source = snaptool.sample("lost-key.db", "l.db")
    known = Path(snaptool.write("l.yaml", LOST_KEYS.read_text()))
    monkeypatch.chdir(snaptool.folder)
    assert source.exists()
    out = snaptool(words[0], "l.db", *words[2:], "--config", known.name).stdout
    assert [line for line in out.splitlines() if len(line) > 80] == []


# --- without a configuration ----------------------------------------------------------------------------------------


def test_verify_without_a_configuration_says_that_nothing_was_opened(snaptool: Snaptool) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    ran = snaptool("verify", source)
    assert ran.code == 0
    assert "37 records, 0 of 11 encrypted values opened: no --config given, 1 note" in ran.stdout
    document = snaptool("verify", source, "-o", "json").json
    assert (document["encrypted"], document["opened"]) == (11, None)
    (note,) = document["findings"]
    assert (note["code"], note["severity"], note["count"]) == ("not_opened", "note", 11)
    assert snaptool("verify", source, "--fail-on", "note").code == 3
    assert snaptool("verify", source, "-q").text == ""
    opened = snaptool("verify", source, "--config", SAMPLES / "aescbc.yaml")
    assert "37 records, 11 of 11 encrypted values opened, 0 findings" in opened.stdout


@pytest.mark.parametrize("words", [("--decrypt",), ("--new-config", SAMPLES / "secretbox.yaml")])
def test_rewrite_without_a_configuration_blames_no_entry_of_one(
    snaptool: Snaptool, words: tuple[str | Path, ...]
) -> None:
    ran = snaptool("rewrite", snaptool.sample("aescbc-cluster.db"), "new.db", *words)
    assert ran.code == 3
    assert "no entry of the configuration" not in ran.text
    assert "no configuration was given to open it with" in ran.stdout
    assert "9 Secrets in 2 namespaces cannot be read: no configuration was given to open them with." in ran.stdout
    assert "older revision" not in ran.stdout


def test_one_of_a_kind_is_counted_in_the_singular(snaptool: Snaptool) -> None:
    store = Store()
    for name in ("a", "b"):
        store.put(f"/registry/configmaps/a/{name}".encode(), b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{}}\n')
    key = b"/registry/secrets/a/s"
    store.put(key, sealed(snaptool, key, secret("s", "x"), OTHER, "lost"))
    store.put(b"/registry/secrets/a/t", b"garbage")
    source, known = snaptool.write("one.db", store.snapshot()), snaptool.write("k.yaml", config("aesgcm", name="known"))
    for words in (("inspect",), ("verify",), ("list", "--lost")):
        text = snaptool(words[0], source, *words[1:], "--config", known).stdout
        assert not re.findall(r"(?<![\d,.] of )(?<![\d,.])\b1 (?:values|objects|keys|resources|leases|records)\b", text)
        assert "all 1" not in text
    assert "and 1 resource that is all plaintext; -v shows it" in snaptool("inspect", source, "--config", known).stdout
    assert "drops this 1 undecodable value" in snaptool("verify", source, "--config", known).stdout


def test_a_key_name_that_may_go_on_is_marked_wherever_it_is_said(snaptool: Snaptool) -> None:
    case = GOLDEN / "cases" / "rotated-within-an-hour"
    source = case / "etcd-snapshot-node-1"
    for words in (("inspect", source), ("verify", source), ("rewrite", source, "x.db", "--decrypt")):
        out = snaptool(*words, "--config", case / "have.yaml").stdout
        assert "aescbckey-2026-03-09T09:46:54+01:00" in out
        assert not re.search(r"09:46:54\+01:00(?!:…)", out.replace("\n    ", " ")), words
    keys = snaptool("inspect", source, "--config", case / "have.yaml", "-o", "json").json["summary"]["values_by_key"]
    assert [one["key_name_certain"] for one in keys] == [False, True]


def test_the_reports_of_the_library_have_the_same_summary(snaptool: Snaptool, tmp_path: Path) -> None:
    inspected = library.inspect(LOST, LOST_KEYS)
    verified = library.verify(LOST, LOST_KEYS)
    stopped = library.rewrite(LOST, tmp_path / "x.db", config=LOST_KEYS, decrypt=True)
    done = library.rewrite(LOST, tmp_path / "x.db", config=LOST_KEYS, undecryptable="delete")
    for report in (inspected, verified, stopped):
        assert (report.summary.objects_lost, report.summary.histories_cut, report.summary.objects_deleted) == (2, 1, 0)
    assert (done.summary.objects_deleted, stopped.next, done.next[0].code) == (2, (), "restore")
    document = snaptool("inspect", LOST, "-c", LOST_KEYS, "-o", "json").json["summary"]
    assert [one.values for one in inspected.summary.values_by_key] == [
        one["values"] for one in document["values_by_key"]
    ]
