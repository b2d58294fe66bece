"""Foreign text on its way out: what a terminal shows, what a shell reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptool.text import document, is_fit, printable, quoted

UNFIT = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nsnaptool: error: fake", "a\\nsnaptool: error: fake"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\u061c\u00ad\ufeff\U000e0041", "\\u061c\\xad\\ufeff\\U000e0041"),
        ("\x9b31m", "\\x9b31m"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        (os.fsdecode(b"o\xff.db"), "o\\xff.db"),
        ("\ud800", "\\ud800"),
        (b"a\x00\xff\xc3\xa9", "a\\x00\\xff\u00e9"),
        ("caf\u00e9 \u540d\u524d \U0001f600", "caf\u00e9 \u540d\u524d \U0001f600"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped_and_all_else_stays(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown


def test_every_code_point_of_the_unprintable_classes_is_escaped() -> None:
    for point in range(sys.maxunicode + 1):
        char = chr(point)
        category = unicodedata.category(char)
        assert (printable(char) == char) == (category not in UNFIT | {"Zs"} or char == " "), hex(point)
        if category in UNFIT and char not in "\n\t":
            assert not is_fit(char)
            assert document(f'"{char}"').isascii()


@given(st.text() | st.binary())
def test_one_line_comes_out_and_twice_is_once(text: str | bytes) -> None:
    once = printable(text)
    assert once.isprintable()
    assert printable(once) == once


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_means_the_same_and_shows_nothing_unprintable(value: object) -> None:
    text = document(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(text) == value
    assert is_fit(text)


@pytest.mark.parametrize(
    "name", ["a b", "a'b", "a\x1b[31m'\\b", "-x.db", "\u202e\nrm -rf", "\udcff\udc80", "$(id)", "7\x01" + "1"]
)
def test_a_shell_reads_the_very_path_from_what_is_printed(name: str) -> None:
    word = quoted(name)
    assert word.isprintable()
    out = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    assert out == os.fsencode(f"./{name}" if name.startswith("-") else name)
