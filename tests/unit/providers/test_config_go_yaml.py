"""Where go-yaml v2 and libyaml part: texts that random ones, judged by Kubernetes' own code, showed to matter."""

from __future__ import annotations

import time

import pytest

from snaptool.providers.config.model import BadConfig, LocalConfig
from snaptool.providers.config.rules import parse_config

KEY_TEXT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
HEAD = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n"
DOCUMENT = (
    '{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": [{"resources": '
    '["secrets"], "providers": [{"aescbc": {"keys": [{"name": "a/b", "secret": "' + KEY_TEXT + '"}]}}]}]}'
)


def named(name: str) -> str:
    """Return a configuration in which `name` stands where the name of a key does."""
    return (
        f"{HEAD}resources:\n- resources: [secrets]\n  providers:\n  - aescbc:\n      keys:\n"
        f"      - name: {name}\n        secret: {KEY_TEXT}\n"
    )


def key_name(text: str, encoding: str = "utf-8") -> str:
    (provider,) = parse_config(text.encode(encoding)).entries[0].providers
    assert isinstance(provider, LocalConfig)
    return provider.keys[0].name


def codes(text: str) -> list[str]:
    with pytest.raises(BadConfig) as refusal:
        parse_config(text.encode())
    return [problem.code for problem in refusal.value.problems]


@pytest.mark.parametrize(
    ("written", "name"),
    [("! 1", "1"), ("! yes", "yes"), ("! ~", "~"), ("&x ! 1", "1"), ("! &x 1", "1"), ('! "1"', "1"), ("!x 1", "1")],
)
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["", "after a byte order mark"])
def test_a_tag_of_no_name_makes_a_text(written: str, name: str, start: str) -> None:
    assert key_name(start + named(written)) == name


@pytest.mark.parametrize("written", ["1", "&x 1", "!!int 1", "yes"])
def test_without_it_numbers_and_truths_stay_what_they_are(written: str) -> None:
    assert codes(named(written)) == ["wrong_type"]


@pytest.mark.parametrize("written", [r'"\/"', r'"a\/b"', r'"\\\/"', r'&x "\/"', r'"é\/"'])
def test_a_slash_cannot_be_escaped_in_yaml(written: str) -> None:
    assert codes(named(written)) == ["syntax"]


@pytest.mark.parametrize(
    ("written", "name"),
    [(r'"\\/"', r"\/"), (r"'\/'", r"\/"), (r"\/", r"\/"), (r'"\u005c/"', r"\/"), (r'"\\\\/"', r"\\/")],
)
def test_a_backslash_before_a_slash_is_no_escape_of_it(written: str, name: str) -> None:
    assert key_name(named(written)) == name


def test_a_slash_can_be_escaped_in_json_alone() -> None:
    escaped = DOCUMENT.replace("a/b", r"a\/b")
    assert key_name(escaped) == key_name(DOCUMENT) == key_name("# YAML\n" + DOCUMENT) == "a/b"
    assert codes("# YAML\n" + escaped) == ["syntax"]


@pytest.mark.parametrize("blank", [" ", "\t", "\r\n", "\x0b", "\x0c", "\x85", "\xa0", "\u2028", "\u3000"])
def test_what_begins_with_a_brace_after_any_blank_is_json(blank: str) -> None:
    if blank in {" ", "\t", "\r\n"}:
        assert key_name(blank + DOCUMENT) == "a/b"
    else:
        assert codes(blank + DOCUMENT) == ["syntax"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_yaml_may_begin_with_a_byte_order_mark(encoding: str) -> None:
    assert key_name(named("é"), encoding) == "é"


def in_braces(name: str) -> str:
    return f"{HEAD}resources: [{{resources: [secrets], providers: [{{kms: {{{name}, name: a, endpoint: 'unix:///a'}}}}]}}]\n"


@pytest.mark.parametrize("name", ["[po? s]", "[a?b]", "[a?]", "[b, a?\n c]", "[a?#]", "[a, &x a?]"])
def test_a_question_mark_in_brackets_needs_quotes(name: str) -> None:
    text = HEAD + "resources:\n- resources: {}\n  providers: [{{identity: {{}}}}]\n"
    assert codes(text.format(name)) == ["syntax"]
    assert codes(in_braces("timeout: 3s?")) == ["syntax"]
    for quoted in ('["a?"]', "['a? b']", "\n  - a? b", "[a] # ?"):
        parse_config(text.format(quoted).encode())  # is taken
    assert key_name(named("a? b")) == "a? b"
    assert codes("a?") == ["wrong_type"]


@pytest.mark.parametrize("tag", ["!v2", "!", "!!null", "!!str", "&x !v2"])
def test_a_comma_behind_a_tag_is_part_of_it(tag: str) -> None:
    assert codes(in_braces(f"apiVersion: {tag}")) == ["syntax"]
    parse_config(in_braces(f"apiVersion: {tag} ").encode())  # is taken


PLAIN = (
    "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n"
    "resources: [{resources: [secrets], providers: [{identity: {}}]}]\n"
)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff\ufeff" + PLAIN,
        "\n\ufeff" + PLAIN,
        "---\n\ufeff" + PLAIN,
        PLAIN.replace("kind", "\ufeffkind"),
        PLAIN.replace("kind", "\ufeff\nkind"),
        PLAIN.replace("kind", "\ufeff# a comment\nkind"),
        PLAIN + "\ufeff",
    ],
)
def test_a_byte_order_mark_inside_is_a_letter(text: str) -> None:
    with pytest.raises(BadConfig):
        parse_config(text.encode())


@pytest.mark.parametrize(
    "written", ["\ufeffa", "a\ufeff", "'\ufeffa\ue000'", '"a\ufeff\ue000b"', "|-\n          \ufeffa"]
)
def test_a_byte_order_mark_in_a_name_is_kept(written: str) -> None:
    assert key_name(named(written)) == written.strip("|-\n '\"")
    parse_config((PLAIN + "---\n\ufeff[").encode())  # is taken


@pytest.mark.parametrize("scalar", ['"' + "x" * 1_000_000 + '"', "1" * 1_000_000, "!!binary " + "YWFh" * 250_000])
def test_a_long_scalar_is_looked_at_once_for_all_its_aliases(scalar: str) -> None:
    start = time.process_time()
    assert codes(f"a: &a {scalar}\nb: [{'*a,' * 150_000}]\n") == ["kind_missing"]
    # A look at each alias would take minutes.
    assert time.process_time() - start < 10
