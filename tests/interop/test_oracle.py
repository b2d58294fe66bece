"""Kubernetes' own code and snaptool, asked the same: vectors, and random keys, chains, values and damage."""

from __future__ import annotations

import base64
import io
import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from snaptool.providers.config.model import BadConfig
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import SERVER_TEXTS, Chain, GroupResource, Keyring, NoKeyFits
from snaptool.providers.provider import Reason
from tests.oracles.judge import Answer, Judge
from tests.support.etcd import GOLDEN
from tests.support.together import sealed_together

VECTORS: dict[str, Any] = json.loads((GOLDEN / "encryption-at-rest.json").read_text())
SAMPLES = Path(__file__).parents[2] / "samples"
CONFIGS_PER_RUN = 300


def group_resource(name: str) -> GroupResource:
    resource, _, group = name.partition(".")
    return GroupResource(resource, group)


def ours(chain: Chain, key: bytes, stored: bytes) -> Answer:
    """What snaptool makes of a stored value, said as the API server says it."""
    try:
        opened = chain.unseal(stored, key)
    except NoKeyFits as error:
        return Answer(b"", stale=False, error=str(error))
    return Answer(opened.plaintext, opened.stale, "")


def same(found: Answer, said: Answer) -> bool:
    """Are both answers the same? A panic ends the search of the server; we go on, and must have met its cause."""
    if said.error.startswith("panic: "):
        return said.error.removeprefix("panic: ") in found.error
    return found == said


# --- values ---------------------------------------------------------------------------------------------------------

LOCAL = [vector for vector in VECTORS["vectors"] if "kms" not in vector]


def test_vectors_of_local_providers(judge: Judge) -> None:
    """The error's words are compared as well: they are what an operator finds in the server's log."""
    for vector in LOCAL:
        key, stored = vector["etcd_key"].encode(), bytes.fromhex(vector["stored_hex"])
        chain = Keyring([parse_config(vector["config"].encode())]).chain_for(group_resource(vector["resource"]))
        said = judge.read(vector["config"], vector["resource"], key, stored)
        if vector["expect"] == "ok":
            assert said == Answer(bytes.fromhex(vector["plaintext_hex"]), vector["stale"], ""), vector["name"]
        else:
            assert said.error != "", vector["name"]
        assert same(ours(chain, key, stored), said), vector["name"]
        if "write_randomness" in vector:
            entropy = b"".join(bytes.fromhex(part["hex"]) for part in vector["write_randomness"])
            plaintext = bytes.fromhex(vector["plaintext_hex"])
            written = judge.write(vector["config"], vector["resource"], key, plaintext, entropy)
            assert written.value == stored, vector["name"]


@dataclass(frozen=True)
class Written:
    """A value, the name under which it was stored, and the configuration that sealed it."""

    key: bytes
    resource: str
    stored: bytes


SIZES = {"aescbc": (16, 24, 32), "aesgcm": (16, 24, 32), "secretbox": (32,)}
NAMES = ("k", "key1", "key1:", "key", "a b", "é", "2024", "k:k", "key1:v1:", "\u2028", "x" * 300)
RESOURCES = ("secrets", "configmaps", "pods", "deployments.apps", "leases.coordination.k8s.io", "events")
ENTRIES = (["secrets"], ["configmaps", "pods"], ["deployments.apps"], ["*."], ["*.apps"], ["*.*"])


def random_keys(rng: random.Random, kind: str, pool: list[bytes]) -> list[dict[str, str]]:
    keys = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        size = rng.choice(SIZES[kind])
        secret = rng.choice(pool)[:size] if rng.random() < 0.7 else rng.randbytes(size)
        keys.append({"name": rng.choice(NAMES), "secret": base64.b64encode(secret).decode()})
    return keys


def random_provider(rng: random.Random, pool: list[bytes]) -> dict[str, Any]:
    kind = rng.choice(("identity", "aescbc", "aescbc", "aesgcm", "secretbox"))
    return {kind: {} if kind == "identity" else {"keys": random_keys(rng, kind, pool)}}


def random_config(rng: random.Random, pool: list[bytes]) -> str:
    entries = []
    for number in sorted(rng.sample(range(len(ENTRIES)), rng.choice((1, 1, 2, 3)))):
        providers = [random_provider(rng, pool) for _ in range(rng.choice((1, 2, 2, 3, 4)))]
        entries.append({"resources": ENTRIES[number], "providers": providers})
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": entries,
    }
    return json.dumps(document, ensure_ascii=False)


def random_plaintext(rng: random.Random) -> bytes:
    size = rng.choice((0, 1, 15, 16, 17, 100, rng.randrange(200), rng.randrange(5000)))
    return rng.choice((b"", b"k8s\x00", b"{", b"k8s:enc:aescbc:v1:", b"k8s:enc:")) + rng.randbytes(size)


def damaged(rng: random.Random, stored: bytes) -> bytes:
    """The value after an accident: flipped, cut, longer, under another prefix, or with another's tail."""
    if rng.random() < 0.5 or not stored:
        return stored
    way, place = rng.randrange(6), rng.randrange(len(stored))
    if way == 0:
        return stored[:place] + bytes([stored[place] ^ 1 << rng.randrange(8)]) + stored[place + 1 :]
    if way == 1:
        return stored[:place]
    if way == 2:
        return stored + rng.randbytes(rng.choice((1, 16)))
    if way == 3:
        return rng.choice((b"k8s:enc:aescbc:v1:", b"k8s:enc:aesgcm:v1:key1:", b"k8s:enc:secretbox:v1:")) + stored
    if way == 4:
        cut = stored.rfind(b":", 0, 60) + 1
        return stored[:cut] + rng.randbytes(rng.choice((0, 1, 15, 16, 17, 23, 24, 32, 33, 40, 48, 64)))
    return b"k8s:enc:" + rng.choice((b"aescbc", b"aesgcm", b"secretbox", b"kms")) + b":v1:" + rng.randbytes(place)


def compare_reading(judge: Judge, rng: random.Random, configs: int) -> set[str]:
    """Have damaged and sound values read, 30 for each pair of configurations. Returns what the server said."""
    seen: set[str] = set()
    for number in range(configs):
        pool = [rng.randbytes(32) for _ in range(3)]
        texts = [random_config(rng, pool) for _ in range(2)]
        rings = [Keyring([parse_config(text.encode())]) for text in texts]
        for _ in range(30):
            resource = rng.choice(RESOURCES)
            key = b"/registry/" + resource.encode() + b"/default/" + rng.randbytes(rng.randrange(8))
            reader, writer = rng.choice((0, 0, 1)), 0
            stored = rings[writer].chain_for(group_resource(resource)).seal(random_plaintext(rng), key)
            stored = damaged(rng, stored)
            read_at = key if rng.random() < 0.9 else key + b"x"
            said = judge.read(texts[reader], resource, read_at, stored)
            found = ours(rings[reader].chain_for(group_resource(resource)), read_at, stored)
            assert same(found, said), f"config {number}: {texts[reader]}\n{resource} {read_at.hex()} {stored.hex()}"
            seen.add(said.error)
    return seen


def test_random_values_open_to_the_same_or_fail_in_the_same_words(judge: Judge) -> None:
    seen = compare_reading(judge, random.Random(8), CONFIGS_PER_RUN)
    assert {"", SERVER_TEXTS[Reason.GCM_AUTH], SERVER_TEXTS[Reason.UNKNOWN_PREFIX]} < seen
    assert any(text.startswith("[") for text in seen), "no value failed for several reasons"


def compare_writing(judge: Judge, rng: random.Random, configs: int) -> None:
    """Have values sealed, 10 for each configuration."""
    for number in range(configs):
        pool = [rng.randbytes(32) for _ in range(3)]
        text = random_config(rng, pool)
        ring = Keyring([parse_config(text.encode())])
        for _ in range(10):
            resource, key, plaintext = rng.choice(RESOURCES), rng.randbytes(rng.randrange(60)), random_plaintext(rng)
            chain, entropy = ring.chain_for(group_resource(resource)), rng.randbytes(64)
            said = judge.write(text, resource, key, plaintext, entropy)
            assert said.error == ""
            assert chain.seal(plaintext, key, io.BytesIO(entropy).read) == said.value, f"config {number}: {text}"
            # With randomness of their own, each opens what the other wrote.
            theirs = judge.write(text, resource, key, plaintext).value
            mine = chain.seal(plaintext, key)
            assert ours(chain, key, theirs) == judge.read(text, resource, key, theirs)
            assert ours(chain, key, mine) == judge.read(text, resource, key, mine)


def test_random_values_are_sealed_to_the_same_bytes(judge: Judge) -> None:
    compare_writing(judge, random.Random(80), CONFIGS_PER_RUN)


@pytest.mark.parametrize("kind", ["aescbc", "aesgcm", "secretbox"])
def test_values_that_are_sealed_together_are_read_one_by_one(kind: str, judge: Judge) -> None:
    rng = random.Random(81)
    keys = [{"name": "key1", "secret": base64.b64encode(rng.randbytes(32)).decode()}]
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [{kind: {"keys": keys}}]}],
    }
    text = json.dumps(document)
    chain = Keyring([parse_config(text.encode())]).chain_for(GroupResource("secrets"))
    plaintexts = [rng.randbytes(size) for size in (0, 1, 15, 16, 17, 1000, 4000)] + [b"alike"] * 30
    paths = [b"/registry/secrets/default/%d" % number for number in range(len(plaintexts))]
    stored = sealed_together(chain, plaintexts, paths, os.urandom)
    for plaintext, path, one in zip(plaintexts, paths, stored, strict=True):
        assert judge.read(text, "secrets", path, one) == Answer(plaintext, stale=False, error="")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1010))
def test_many_random_values_and_configurations(seed: int, judge: Judge) -> None:
    compare_reading(judge, random.Random(seed), 1000)
    compare_writing(judge, random.Random(seed), 500)
    compare_configurations(judge, random.Random(seed), 5000)
    compare_scalars(judge, random.Random(seed), 5000)


# --- configurations -------------------------------------------------------------------------------------------------


def our_decision(text: str, *, reload: bool = False, kmsv1: bool = True) -> BadConfig | None:
    try:
        parse_config(text.encode(), kmsv1=kmsv1, automatic_reload=reload)
    except BadConfig as error:
        return error
    return None


def check_decision(judge: Judge, text: str, *, reload: bool = False, kmsv1: bool = True) -> str:
    """Accepted by both, or refused by both at the same stage and, where fields are checked, at the same places."""
    said, decision = judge.load(text, reload=reload, kmsv1=kmsv1), our_decision(text, reload=reload, kmsv1=kmsv1)
    assert (decision is None) == (said == ""), f"{text}\nwe: {decision}\nkube-apiserver: {said}"
    if decision is not None:
        builds = said.startswith("error while building transformers: ")
        assert (decision.stage == "build") == builds, f"{text}\nwe: {decision}\nkube-apiserver: {said}"
        if decision.stage == "validate":
            for problem in decision.problems:
                assert f"{problem.path}: " in said, f"{text}\nwe: {problem}\nkube-apiserver: {said}"
    return said


def test_vectors_of_configurations(judge: Judge) -> None:
    for vector in VECTORS["config_vectors"]:
        said = check_decision(judge, vector["config"], reload=vector["automatic_reload"], kmsv1=vector["kmsv1_enabled"])
        assert (said == "") == (vector["strict"]["decision"] == "accept"), vector["name"]


PLACES: tuple[Any, ...] = (
    None, True, 0, 1, 1.5, "", "x", "*", "*.*", "*.", "*.apps", "a.*", "Secrets", "events.k8s.io", "x.extensions", [],
    {}, "v1", "v2", "v3", "unix:///tmp/k.sock", "http://k", "3s", "0s", "-1s", "1d", "AAAA", "AAECAwQFBgcICQoLDA0ODw==",
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=", "AAEC AwQF", "AA-_",
)  # fmt: skip
FIELDS = (
    "resources", "providers", "aescbc", "aesgcm", "secretbox", "identity", "kms", "keys", "name", "secret",
    "apiVersion", "kind", "endpoint", "timeout", "cachesize", "Keys", "metadata",
)  # fmt: skip


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for step, child in pairs:
        found += places(child, (*path, step))
    return found


def mutated(rng: random.Random, document: Any) -> Any:
    """The document with a few things dropped, renamed, repeated, or replaced by something else."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        *path, last = rng.choice(places(document))
        parent = document
        for step in path:
            parent = parent[step]
        way = rng.randrange(5)
        if way == 0:
            del parent[last]
        elif way == 1 and isinstance(parent, dict):
            parent[rng.choice(FIELDS)] = parent[last]
        elif way == 2 and isinstance(parent, list):
            parent.append(parent[last])
        else:
            parent[last] = rng.choice(PLACES)
        if not places(document):
            break
    return document


def compare_configurations(judge: Judge, rng: random.Random, count: int) -> dict[str, int]:
    """Have mutated configurations loaded. Returns how often the server accepted and refused, and where."""
    outcomes = {"accepted": 0, "parsing file": 0, "building transformers": 0}
    kms = {"kms": {"apiVersion": "v2", "name": "a", "endpoint": "unix:///tmp/k.sock", "timeout": "1s"}}
    kms_v1 = {"kms": {"name": "a", "endpoint": "unix:///tmp/k.sock", "cachesize": 5}}
    for _ in range(count):
        document = json.loads(random_config(rng, [bytes(range(32))]))
        for entry in document["resources"]:
            entry["providers"] += rng.choice(([], [], [kms], [kms_v1]))
        text = json.dumps(mutated(rng, document), ensure_ascii=False)
        if rng.random() < 0.5:
            text = "# YAML\n" + text
        said = check_decision(judge, text, reload=rng.random() < 0.3, kmsv1=rng.random() < 0.7)
        outcomes[next((name for name in outcomes if name in said), "accepted")] += 1
    return outcomes


def test_random_configurations_are_accepted_and_refused_alike(judge: Judge) -> None:
    outcomes = compare_configurations(judge, random.Random(88), 1500)
    assert min(outcomes.values()) > 10, outcomes


def compare_scalar(judge: Judge, text: str) -> str | None:
    """Have the text read as the name of a key. Returns the name, as the server took it; None if it is not a string."""
    config = SCALAR.format(text=text)
    if check_decision(judge, config):
        return None
    said = judge.write(config, "secrets", b"/k", b"", bytes(32))
    assert Keyring([parse_config(config.encode())]).chain_for(GroupResource("secrets")).seal(b"", b"/k", bytes) == (
        said.value
    ), config
    return said.value[len(b"k8s:enc:secretbox:v1:") : -(24 + 16 + 1)].decode()


SCALAR = """\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox:
      keys:
      - name: {text}
        secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
"""


def test_vectors_of_yaml_scalars(judge: Judge) -> None:
    for vector in VECTORS["yaml_scalars"]:
        named = compare_scalar(judge, vector["text"])
        assert named == (vector["value"] if vector["type"] == "string" else None), vector


def compare_scalars(judge: Judge, rng: random.Random, count: int) -> None:
    """Have random texts read that look a little like numbers, dates, booleans and nothing."""
    parts = (*"0123456789abfxoeEyYnN+-._:~ ", "0x", "0b", "0o", "true", "No", "null", ".inf", "1e3", "!!str ", "'", '"')
    for _ in range(count):
        compare_scalar(judge, "".join(rng.choices(parts, k=rng.randrange(1, 7))))


def test_random_yaml_scalars_have_the_same_meaning(judge: Judge) -> None:
    compare_scalars(judge, random.Random(888), 1500)


# Left out is what is known to differ between libyaml and go-yaml v2: a question mark inside [] or {}, a byte order mark
# after the beginning, and spaces inside !!binary.
STROKES = (
    *"\n\t :-{}[],#'\"&*!|>%@`~a1\r\\.<=\x00\x7fé\u2028\u00a0", "  ", "- ", ": ", "\n  ", "---\n", "...\n", "&a ",
    "*a", "<<: ", "!!str ", "|\n", ">\n", "|-\n", "\\x41", "\\u00e9", "\\/",
)  # fmt: skip


def mistyped(rng: random.Random, text: str) -> str:
    """The text after slips of a hand: characters lost or put in, lines repeated, lines indented otherwise."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        place, way, lines = rng.randrange(len(text) + 1), rng.randrange(5), text.split("\n")
        number = rng.randrange(len(lines))
        if way == 0:
            text = text[:place] + text[place + 1 :]
        elif way in {1, 2}:
            text = text[:place] + rng.choice(STROKES) + text[place:]
        elif way == 3:
            lines.insert(rng.randrange(len(lines) + 1), lines[number])
            text = "\n".join(lines)
        else:
            lines[number] = " " * rng.randrange(4) + lines[number].lstrip()
            text = "\n".join(lines)
    return text


def compare_texts(judge: Judge, rng: random.Random, count: int) -> None:
    """Have good configurations loaded after slips of a hand; what is accepted must mean the same."""
    good = [vector["config"] for vector in VECTORS["config_vectors"] if vector["strict"]["decision"] == "accept"]
    good += [path.read_text() for path in sorted(SAMPLES.glob("*.yaml"))]
    good = [text for text in good if "\ufeff" not in text and "!!binary" not in text]
    for _ in range(count):
        text = mistyped(rng, rng.choice(good))
        if check_decision(judge, text) == "" and "kms" not in text:
            chain = Keyring([parse_config(text.encode())]).chain_for(GroupResource("secrets"))
            assert chain.seal(b"x", b"/k", bytes) == judge.write(text, "secrets", b"/k", b"x", bytes(32)).value, text


def test_slips_of_a_hand_are_accepted_and_refused_alike(judge: Judge) -> None:
    compare_texts(judge, random.Random(8888), 1500)


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.yaml")), ids=lambda p: p.name)
def test_sample_configurations_are_accepted(path: Path, judge: Judge) -> None:
    assert check_decision(judge, path.read_text()) == ""
