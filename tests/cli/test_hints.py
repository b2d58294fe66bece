"""Hints that name an option of `rewrite`, followed to the letter: no value goes, or is exposed, that was not counted.

Each situation is met by a command; whatever options its output names are given with the same command once more, and
what that did to the records of the file is held against the numbers that the message had.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snaptool.etcd import decode_key_value
from snaptool.operations.opening import open_snapshot
from tests.cli.test_embedded import CLUSTER, K3S, TWO
from tests.cli.test_next import odd_snapshot
from tests.support.cli import GOLDEN, SAMPLES, Snaptool
from tests.support.odd_values import SOUND
from tests.support.stored import write_history

ENCRYPTED = b"k8s:enc:"
_PUT = 17  # bytes of a revision; a deletion has one more

OPTIONS = re.compile(
    r"--(?:undecryptable|undecodable) (?:delete|keep|older)(?:, (?:delete|keep))*(?: or (?:delete|keep))?"
    r"|--allow-plaintext|--embedded-lost|--skip-hash-check|--keep-embedded|(?:--etcd-prefix [^\s;,]+ ?)+"
)
NEW, LOST_CONFIG = SAMPLES / "secretbox.yaml", SAMPLES / "lost-key.yaml"
CASES = GOLDEN / "cases"
Words = list[str | Path]
Situation = Callable[[Snaptool], Words]


def lost_key(snaptool: Snaptool) -> Words:
    return [snaptool.sample("lost-key.db"), "-c", LOST_CONFIG, "--new-config", NEW]


def lost_key_decrypted(snaptool: Snaptool) -> Words:
    return [snaptool.sample("lost-key.db"), "-c", LOST_CONFIG, "--decrypt"]


def lost_with_older_that_open(snaptool: Snaptool) -> Words:
    text = LOST_CONFIG.read_text()
    half = re.sub(r"(?m)^ *- name: year-2026\n.*\n", "", text)
    assert half != text
    return [snaptool.sample("lost-key.db"), "-c", snaptool.write("half.yaml", half), "--new-config", NEW]


def rotated(snaptool: Snaptool) -> Words:
    config = SAMPLES / "kube-apiserver" / "lost-key.yaml"
    return [snaptool.sample("kube-apiserver/rotated.db", "rotated.db"), "-c", config, "--new-config", config]


def older_elsewhere(_: Snaptool) -> Words:
    case = CASES / "field2" / "19-older-in-another-backup"
    return [case / "today.db", "-c", case / "have.yaml", "--new-config", case / "have.yaml"]


def uncovered(snaptool: Snaptool) -> Words:
    text = NEW.read_text().replace("secrets", "configmaps")
    return [
        *(snaptool.sample("aescbc-cluster.db"), "-c", SAMPLES / "aescbc.yaml"),
        *("--new-config", snaptool.write("other.yaml", text)),
    ]


def identity_first(snaptool: Snaptool) -> Words:
    text = (
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n"
        "resources:\n- resources: [secrets]\n  providers: [{identity: {}}]\n"
    )
    return [
        *(snaptool.sample("aescbc-cluster.db"), "-c", SAMPLES / "aescbc.yaml"),
        *("--new-config", snaptool.write("plain.yaml", text)),
    ]


def undecodable(snaptool: Snaptool) -> Words:
    source = snaptool.write("odd.db", odd_snapshot())
    return [source, "-c", SAMPLES / "aescbc.yaml", "--new-config", NEW, "--undecodable", "stop"]


def outside(_: Snaptool) -> Words:
    case = CASES / "two-prefixes"
    return [
        *(case / "garden.db", "-c", case / "old.yaml", "--new-config", case / "new.yaml"),
        *("--etcd-prefix", "/registry"),
    ]


def wrong_trailer(snaptool: Snaptool) -> Words:
    content = bytearray((SAMPLES / "aescbc-cluster.db").read_bytes())
    content[-1] ^= 1
    return [snaptool.write("wrong.db", bytes(content)), "-c", SAMPLES / "aescbc.yaml", "--new-config", NEW]


def cut_trailer(_: Snaptool) -> Words:
    (source,) = (CASES / "cut-in-trailer").glob("*.db")
    return [source, "-c", SAMPLES / "aescbc.yaml", "--decrypt"]


def embedded(snaptool: Snaptool) -> Words:
    token = snaptool.write("token", CLUSTER["token"] + "\n")
    return [K3S, "--embedded-config", "--token-file", token, "--new-config", NEW]


def closed_place(_: Snaptool) -> Words:
    return [TWO / "two.db", "-c", SAMPLES / "aescbc.yaml", "--undecryptable", "delete"]


def closed_place_in_a_dry_look(_: Snaptool) -> Words:
    return [TWO / "two.db", "-c", SAMPLES / "aescbc.yaml", "--decrypt"]


def may_be_ciphertext(snaptool: Snaptool) -> Words:
    key = b"/registry/secrets/ns/cut"
    source = write_history(
        snaptool.folder / "cut.db", [(b"/registry/secrets/ns/one", SOUND), (key, bytes(range(200, 250)))]
    )
    return [source, "--new-config", NEW, "--undecodable", "delete"]


SITUATIONS: dict[Situation, set[str]] = {
    closed_place: {"--embedded-lost"},
    closed_place_in_a_dry_look: {"--undecryptable keep"},
    may_be_ciphertext: {"--undecodable keep"},
    lost_key: {"--undecryptable delete", "--undecryptable keep"},
    lost_key_decrypted: {"--undecryptable delete", "--undecryptable keep"},
    lost_with_older_that_open: {"--undecryptable delete", "--undecryptable older"},
    rotated: {"--undecryptable delete", "--undecryptable keep"},
    older_elsewhere: {"--undecryptable delete", "--undecryptable keep"},
    uncovered: {"--allow-plaintext"},
    identity_first: {"--allow-plaintext"},
    undecodable: {"--undecodable delete", "--undecodable keep"},
    outside: {"--etcd-prefix /registry --etcd-prefix /registry-gardener"},
    wrong_trailer: {"--skip-hash-check"},
    cut_trailer: {"--skip-hash-check"},
    embedded: {"--keep-embedded"},
}
"""And the options that each hint names at least: a hint that is gone would prove nothing."""


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
def test_hints_followed_to_the_letter_touch_what_the_message_counts(snaptool: Snaptool, situation: Situation) -> None:
    source, *options = situation(snaptool)
    target = snaptool.folder / "target.db"
    stopped = snaptool("rewrite", source, target, *options)
    assert stopped.code in {2, 3, 4}
    named = {one for found in OPTIONS.findall(stopped.text) for one in spelled_out(found)}
    assert named >= SITUATIONS[situation]
    counted = {int(number.replace(",", "")) for number in re.findall(r"(?<![\w./-])\d[\d,]*(?![\w./-])", stopped.text)}
    asked_for_plaintext = "--decrypt" in options
    for option in sorted(named):
        words = option.split()
        kept = without(options, words[0])
        made = snaptool.folder / f"target{option.replace(' ', '').replace('/', '-')}.db"
        following = ("rewrite", source, made, *kept, *words, "-o", "json")
        tried = snaptool(*following, "--dry-run")
        assert tried.code in {0, 2, 3, 4}
        if tried.code:
            # One hint may lead to the next question; nothing is done until it is answered.
            assert snaptool(*following).code == tried.code
            continue
        ran = snaptool(*following, makes=[made])
        before, after = puts(Path(source)), puts(made)
        assert set(after) <= set(before)
        gone = len(before) - len(after)
        exposed = sum(
            one.startswith(ENCRYPTED) and not after.get(at, one).startswith(ENCRYPTED) for at, one in before.items()
        )
        assert gone == values(ran.json, lambda change: change["to"] is None)
        assert gone == 0 or "delete" in option or "older" in option or option == "--embedded-lost"
        assert gone in counted | {0} or ("older" in option and gone <= max(counted)), (option, gone, counted)
        assert asked_for_plaintext or exposed in counted | {0}, (option, exposed, counted)


def puts(path: Path) -> dict[tuple[bytes, int], bytes]:
    """Every value that is stored, by key and revision."""
    with open_snapshot(path) as opened:
        found = (decode_key_value(stored) for key, stored in opened.snapshot.items(b"key") if len(key) == _PUT)
        return {(one.key, one.mod_revision): one.value for one in found}


def spelled_out(found: str) -> list[str]:
    """`--undecryptable older, delete or keep` is three options."""
    name, _, words = found.strip().partition(" ")
    choices = re.split(r", | or ", words)
    return [f"{name} {word}" for word in choices] if name.startswith("--und") else [found.strip()]


def without(options: Words, name: str) -> Words:
    """The options but those of a name, which is given again."""
    places = [place for place, word in enumerate(options) if word == name]
    left_out = {index for place in places for index in (place, place + 1)}
    return [word for place, word in enumerate(options) if place not in left_out]


def values(document: dict[str, Any], chosen: Callable[[dict[str, Any]], bool]) -> int:
    return sum(int(change["live"] + change["old"]) for change in document["values"] if chosen(change))


def test_the_remedy_of_verify_counts_what_its_option_deletes(snaptool: Snaptool) -> None:
    source = snaptool.sample("lost-key.db")
    findings = snaptool("verify", source, "-c", LOST_CONFIG, "-o", "json").json["findings"]
    lost = [found for found in findings if "--undecryptable delete" in found["remedy"]]
    assert lost
    words = (source, snaptool.folder / "x.db", "-c", LOST_CONFIG, "--undecryptable", "delete", "-o", "json")
    gone = snaptool("rewrite", *words, "--dry-run").json["records"]["deleted"]
    for found in lost:
        assert f"all {gone} lost values" in found["remedy"]
