"""JSON and YAML as kubectl prints them: cases by number, docs/formats/kinds.md."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from snaptool.kube.kinds.printing import json_text, list_text, yaml_text
from snaptool.kube.kinds.reader import load_json
from snaptool.text import is_fit
from tests.support.kinds import BY_RELEASE, VECTORS, is_bare_merge, numbers_alike, vectors, yaml_values

FILES = (*BY_RELEASE, "texts", "crd", "cbor")


def printable(vector: dict[str, Any]) -> Any:
    """The vector's object with its numbers as the server has them."""
    return load_json(json.dumps(vector["json"]).encode(), 500)


@pytest.mark.parametrize("name", FILES)
def test_case_28_yaml_vectors(name: str) -> None:
    compared = 0
    for vector in vectors(name):
        if "yaml" not in vector:
            continue
        ours = yaml_text(printable(vector))
        if is_bare_merge(vector["yaml"]):
            ours = ours.replace('"<<":', "<<:")
        assert ours == vector["yaml"]
        compared += 1
    assert compared >= 50


@pytest.mark.parametrize("name", [*BY_RELEASE, "texts"])
def test_case_28_json_vectors(name: str) -> None:
    for vector in vectors(name):
        ours = json_text(printable(vector))
        assert hashlib.sha256(ours.encode()).hexdigest() == vector["kubectl_json_sha256"]


@pytest.mark.parametrize("name", FILES)
def test_case_29_yaml_reads_back(name: str) -> None:
    for vector in itertools.islice(vectors(name), 0, None, 5):
        tree = numbers_alike(printable(vector))
        assert yaml_values(yaml_text(tree)) == tree
        assert yaml_values(yaml_text(tree, fit=is_fit)) == tree


def test_case_29_where_kubectl_fails_ours_reads_back() -> None:
    failed = [vector for name in BY_RELEASE for vector in vectors(name) if "kubectl_yaml_error" in vector]
    assert len(failed) >= 20
    for vector in failed:
        tree = numbers_alike(printable(vector))
        assert yaml_values(yaml_text(tree)) == tree


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x7fb", '"a\\x7Fb"'),
        ("a\x80b", '"a\\x80b"'),
        ("a\ufeffb", '"a\\uFEFFb"'),
        ("a\uffffb", '"a\\uFFFFb"'),
        ("a\x85b", '"a\\Nb"'),
        ("tab\there", '"tab\\there"'),
        ("\U0001f600", '"\\U0001F600"'),
    ],
)
def test_case_30_yaml_controls(text: str, shown: str) -> None:
    assert yaml_text({"a": text}) == f"a: {shown}\n"
    assert yaml_text({text: 1}) == (f"? {shown}\n: 1\n" if "\x85" in text else f"{shown}: 1\n")
    assert yaml_values(yaml_text({text: text})) == {text: text}


def test_case_30_yaml_merge_key() -> None:
    assert yaml_text({"<<": "<<"}) == '"<<": <<\n'


@pytest.mark.parametrize("length", [127, 128, 129, 1024, 1025, 5000])
def test_case_30_yaml_long_key(length: int) -> None:
    key = "k" * length
    printed = yaml_text({key: {"a": [1]}, "b": 1})
    assert printed.startswith("b: 1\n")
    assert (f"? {key}\n: a:\n  - 1\n" in printed) == (length > 128)
    assert yaml_values(printed) == {key: {"a": [1]}, "b": 1}


def test_case_31_yaml_order_total() -> None:
    keys = ["a9", "a10", "a1b2", "a", "b", "A", "a01", "a1", "a001", "-", "_", "ä", "1", "10", "9", "0", "00", "a0", ""]
    randomness = random.Random(31)
    wanted = yaml_text(dict.fromkeys(keys))
    for _ in range(200):
        randomness.shuffle(keys)
        assert yaml_text(dict.fromkeys(keys)) == wanted


@pytest.mark.parametrize(
    ("number", "shown", "in_yaml"),
    [
        (1e-7, "1e-7", "1e-07"),
        (1e21, "1e+21", "1e+21"),
        (1.0, "1", "1"),
        (-0.0, "-0", "0"),
        (123456789.5, "123456789.5", "1.234567895e+08"),
        (1e20, "100000000000000000000", "1e+20"),
        (12345678901234567890.0, "12345678901234567000", "12345678901234567000"),
        (0.00001, "0.00001", "1e-05"),
        (0.25, "0.25", "0.25"),
        (5e-324, "5e-324", "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308", "1.7976931348623157e+308"),
        (9_223_372_036_854_775_807, "9223372036854775807", "9223372036854775807"),
    ],
)
def test_case_32_json_float(number: float, shown: str, in_yaml: str) -> None:
    assert json_text([number]) == f"[\n    {shown}\n]\n"
    assert yaml_text([number]) == f"- {in_yaml}\n"
    assert math.isclose(json.loads(json_text(number)), number)


def test_json_escapes_what_kubectl_escapes() -> None:
    text = "<&>\u2028\u2029\n\r\t\b\f\x01\x7fä\U0001f600"
    assert json_text(text) == '"\\u003c\\u0026\\u003e\\u2028\\u2029\\n\\r\\t\\b\\f\\u0001\x7fä\U0001f600"\n'


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_list_is_printed_a_piece_at_a_time_as_it_would_be_whole(count: int) -> None:
    items = [vector["json"] for vector in itertools.islice(vectors("real-1.37.2"), count)]
    items = [*items, {"a": "\x85 \u2028 x"}][:count]
    whole = {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}
    assert "".join(list_text(items, "yaml")) == yaml_text(whole)
    assert "".join(list_text(items, "json")) == json_text(whole)


@pytest.mark.parametrize("fit", [is_fit, str.isascii])
def test_nothing_that_is_not_fit_for_a_terminal_is_left(fit: Callable[[str], bool]) -> None:
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x10400), *range(0xE0000, 0xE0100)]))
    tree = {every[at : at + 97]: every[at : at + 97] for at in range(0, len(every), 97)}
    printed = yaml_text(tree, fit=fit)
    assert fit(printed)
    assert yaml_values(printed) == tree


def test_a_document_of_any_shape_reads_back() -> None:
    randomness = random.Random(7)
    texts = [text for vector in itertools.islice(vectors("texts"), 400) for text in _texts(vector["json"])]

    def shape(depth: int) -> Any:
        kind = randomness.randrange(7 if depth else 5)
        if kind == 5:
            return [shape(depth - 1) for _ in range(randomness.randrange(4))]
        if kind == 6:
            return {randomness.choice(texts): shape(depth - 1) for _ in range(randomness.randrange(4))}
        return randomness.choice([randomness.choice(texts), None, True, randomness.randrange(1 << 62), 0.5])

    for _ in range(300):
        tree = numbers_alike({"root": shape(6)})
        assert yaml_values(yaml_text(tree)) == tree
        assert numbers_alike(json.loads(json_text(tree))) == tree


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in _texts(item))]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def test_every_file_of_vectors_is_used() -> None:
    files = {path.name.removesuffix(".jsonl.gz") for path in VECTORS.glob("*.jsonl.gz")}
    assert files == {*FILES, "real-1.37.2"}


def test_lines_are_folded_beside_unicode_s_line_breaks_as_go_folds_them() -> None:
    """The form is that of sigs.k8s.io/yaml v1.6.0; what follows a fold is indented once."""
    words, more = "word " * 20, "more " * 20
    text = f"# {words}x\u2028{more}end\u2029"
    printed = (
        f"b:\n  c: '# {'word ' * 14}word\n    word word word word word x\u2028    {'more ' * 15}more\n"
        f"    more more more more end\u2029'\n"
    )
    assert yaml_text({"b": {"c": text}}) == printed
