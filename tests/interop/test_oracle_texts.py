"""Kubernetes' own reading of YAML and JSON, beside ours, on texts as hands and programs spoil them.

`test_oracle` varies what configurations say; here it is how they are written: scalars of every type, tags, anchors,
merges, line breaks, indentation, documents, commas. Where both accept a text, they must also seal to the same bytes,
so that names and secrets were read alike.

Two things are left out on purpose, for libyaml reads them otherwise than go-yaml, so that we refuse them, and no real
file holds them: a `:` or a tag right before the comma or bracket of a flow collection.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable

import pytest

from snaptool.providers.config.model import BadConfig, EncryptionConfig
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import GroupResource, Keyring
from tests.oracles.judge import Judge

TEXTS = 800
KEY_TEXT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
BLOCK = f"""\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources:
  - secrets
  - "*.apps"
  providers:
  - &one
    aescbc:
      keys:
      - name: key1
        secret: {KEY_TEXT}
      - {{<<: &two {{name: key2}}, secret: "{KEY_TEXT}"}}
  - *one
  - identity: {{}}
"""
JSON = (
    '{"apiVersion":"v1","kind":"EncryptionConfig","resources":[{"resources":["secrets","*.apps"],"providers":'
    f'[{{"secretbox":{{"keys":[{{"name":"key1","secret":"{KEY_TEXT}"}}]}}}},{{"identity":{{}}}}]}}]}}\n'
)
SCALARS = (
    "y", "1", "0x1", "1_0", ".5", "1e3", "1.0", "~", "null", "''", '"a"', "0o7", "010", "08", "1:30", "2001-01-01",
    ".inf", ".nan", "NaN", "0b11", "+1", "1.", "1e999", "2147483648", "_1", "<<", "=", "é", "a#b", "a #b", "a b",
    "!!str 1", "!!int 1", "!!float 1", "!!binary aGk=", "!!bool y", "!foo x", "! 1", "!!", '"\\u0041"', '"\\x41"',
    '"\\/"', '"\\ud800"', '"\\q"', '"a\n    b"', "'it''s'", "{a b}", "[]", "{}", "[a]", "{a: b}", "- a", "a: b",
    "*one", "*two", "*three", "&x y", "@a", "%a", "`a", '"', "|\n      x", ">\n      x\n      y", "|-\n    x", "nul",
    "\x07", "\x7f", "\x85", "\u2028",
)  # fmt: skip
# Behind the document libyaml does not look, and go-yaml looks one token far, which matters if it is not a token at all.
PIECES = (
    *(text for text in SCALARS if "\\" not in text),
    "\n", "\r", "\r\n", "\t", "  ", ",", "[", "]", "{", "}", "'", "# c\n", "---\n", "--- ", "...\n", "%YAML 3.0\n",
    "%YAML 1.1\n---\n", "<<: *two\n", "<<: [*two]\n", "name: z\n", "name: z, ", "1: b\n", "y: b\n", "[a]: b\n",
    "? name\n", "?", " ? ", "\ufeff", "\n\ufeff", "{a: b}: c\n", '"x":1,', '"name":"z",', "kind: x\n",
)  # fmt: skip


def spoil_value(rng: random.Random, text: str) -> str:
    places = list(re.finditer(r'(?<=: )\S.*$|(?<=- )\w.*$|(?<=[:\[,])"[^"\n]*"', text, re.MULTILINE))
    place = rng.choice(places or [re.compile("").match("")])
    assert place is not None
    return text[: place.start()] + rng.choice(SCALARS) + text[place.end() :]


def insert(rng: random.Random, text: str) -> str:
    place = rng.choice([rng.randrange(len(text)), rng.choice([0, len(text)])])
    return text[:place] + rng.choice(PIECES) + text[place:]


def insert_line(rng: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    blanks = len(lines[place]) - len(lines[place].lstrip(" -"))
    lines.insert(place, rng.choice([" " * blanks + rng.choice(PIECES), rng.choice(lines)]))
    return "".join(lines)


def cut(rng: random.Random, text: str) -> str:
    place = rng.randrange(len(text))
    return text[:place] + text[place + rng.choice([1, 1, 2, 5, 20]) :]


def indent(rng: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    lines[place] = rng.choice([" ", "  ", "\t"]) + lines[place]
    return "".join(lines)


def break_lines(rng: random.Random, text: str) -> str:
    return text.replace("\n", rng.choice(["\r\n", "\r", "\n\n", "\n# c\n", "\n\t\n", "\u2028", "\x85"]))


WAYS: tuple[Callable[[random.Random, str], str], ...] = (
    *(spoil_value,) * 4,
    *(insert, insert_line, cut, indent, break_lines),
)


def decision(text: str) -> EncryptionConfig | BadConfig:
    try:
        return parse_config(text.encode())
    except BadConfig as error:
        return error


@pytest.mark.parametrize("original", [BLOCK, "# YAML\n" + JSON.replace(":", ": "), JSON], ids=["block", "flow", "json"])
def test_texts_are_read_alike(original: str, judge: Judge) -> None:
    rng = random.Random(888)
    accepted = 0
    for _ in range(TEXTS):
        text = original
        for _ in range(rng.choice([1, 1, 1, 2])):
            text = rng.choice(WAYS)(rng, text)
        said, ours = judge.load(text), decision(text)
        assert isinstance(ours, BadConfig) == bool(said), f"{text!r}\nwe: {ours}\nkube-apiserver: {said}"
        if isinstance(ours, EncryptionConfig):
            accepted += 1
            entropy = rng.randbytes(64)
            theirs = judge.write(text, "secrets", b"/k", b"some object", entropy)
            chain = Keyring([ours]).chain_for(GroupResource("secrets"))
            assert chain.seal(b"some object", b"/k", io.BytesIO(entropy).read) == theirs.value, repr(text)
    assert TEXTS / 50 < accepted < TEXTS * 0.9
