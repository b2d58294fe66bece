"""Configurations against the vectors of the specification: accepted or refused, where and why; and what never shows."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml

from snaptool.providers.config.advice import config_warnings
from snaptool.providers.config.fresh import new_config
from snaptool.providers.config.go_values import endpoint_path, endpoint_problem, parse_duration
from snaptool.providers.config.model import (
    BadConfig,
    ConfigEntry,
    EncryptionConfig,
    KeyConfig,
    KeyNameTaken,
    KmsConfig,
    LocalConfig,
)
from snaptool.providers.config.rules import parse_config
from snaptool.providers.go_yaml import plain_scalar
from snaptool.providers.keyring import GroupResource, Keyring, NoKeyFits
from snaptool.providers.provider import Kind

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[2] / "golden" / "encryption-at-rest.json").read_text())
VECTORS: dict[str, dict[str, Any]] = {one["name"]: one for one in GOLDEN["config_vectors"]}
KEY_TEXT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
HEAD = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n"

# Section 7 of the specification: the vectors that make up each case.
CASES = {
    "case_53_cfg_second_document_ignored": ["two docs", "two docs second garbage", "second doc syntax error"],
    "case_54_cfg_json_trailing_text": ["json trailing garbage", "json two docs", "json after ---"],
    "case_55_cfg_numeric_key_name": ["numeric key name", "quoted numeric key name"],
    "case_56_cfg_y_is_bool": ["bool-like key name"],
    "case_57_cfg_identity_null": ["identity null", "identity blank", "identity {}"],
    "case_58_cfg_identity_null_plus_aescbc": ["identity null + aescbc"],
    "case_59_cfg_unknown_field": ["unknown top field", "unknown provider field", "unknown key field", "metadata field"],
    "case_60_cfg_duplicate_key": ["dup top key yaml", "dup secret key", "json dup key"],
    "case_61_cfg_case": ["Resources key capital"],
    "case_62_cfg_legacy_pair": ["legacy kind", "legacy group + new kind", "new group + legacy kind"],
    "case_63_cfg_secret_newlines": [
        "secret with newline inside",
        "secret with CRLF inside",
        "secret space inside",
        "secret nopad",
        "secret urlsafe",
    ],
    "case_64_cfg_secret_block_scalar": ["secret block literal", "secret folded multi-line"],
    "case_65_cfg_secret_trailing_bits": ["secret noncanonical trailing bits", "secret noncanonical trailing bits 32"],
    "case_66_cfg_cbc_16_byte_key": ["aescbc len 16", "secretbox len 16"],
    "case_67_cfg_kms_dup_order": [
        f"dup names {first},{second} reload={reload}"
        for first in ("v1", "v2")
        for second in ("v1", "v2")
        for reload in (False, True)
    ],
    "case_68_cfg_kms_v2_cachesize": ["kms cachesize v2 0", "kms cachesize v2 1", "kms cachesize v2 null"],
    "case_69_cfg_kms_v1_cachesize": ["kms cachesize v1 0", "kms cachesize v1 -1", "kms cachesize v1 null"],
    "case_70_cfg_kms_timeout": [
        f"kms timeout {text}" for text in ('"0s"', '"-1s"', "3", '"3"', '"1d"', '".5s"', '"3s1h"', "null")
    ],
    "case_71_cfg_kms_endpoint": [
        "kms endpoint 'UNIX:///tmp/x'",
        "kms endpoint 'unix:tmp/x.sock'",
        "kms endpoint 'unix://'",
        "kms endpoint 'tcp://1.2.3.4'",
        "kms endpoint '/tmp/x.sock'",
        "kms endpoint ' unix:///tmp/x'",
        "kms endpoint 'unix:///%zz'",
    ],
    "case_72_cfg_kms_name_colon": ["kms name colon v1", "kms name colon v2"],
    "case_73_cfg_kms_v1_gate": ["kms v1 gate off", "kms v2 gate off"],
    "case_74_cfg_star_rules": ["(['*'],)", "(['*.'],)", "(['*.*'],)", "(['deployments.*'],)"],
    "case_75_cfg_overlap_in_entry": ["(['deployments.apps', '*.apps'],)", "(['*.apps', '*.'],)"],
    "case_76_cfg_masked": [
        "(['*.'], ['secrets'])",
        "(['secrets'], ['*.'])",
        "(['secrets'], ['secrets'])",
        "(['*.apps'], ['*.apps'])",
    ],
    "case_77_cfg_events_groups": [
        "(['events'],)",
        "(['events.events.k8s.io'],)",
        "(['ingresses.extensions'],)",
        "(['extensions'],)",
    ],
    "case_78_cfg_odd_names": ["([''],)", "(['secrets/status'],)", "(['secrets.v1'],)"],
    "case_79_cfg_official_example": ["example of the config API documentation"],
}


def by_case() -> list[Any]:
    case_of = {vector: case for case, vectors in CASES.items() for vector in vectors}
    return [
        pytest.param(vector, id=f"{case_of[name]}-{name}" if name in case_of else name)
        for name, vector in VECTORS.items()
    ]


def parse(vector: dict[str, Any], *, strict: bool) -> EncryptionConfig:
    return parse_config(
        vector["config"].encode(),
        strict=strict,
        kmsv1=vector["kmsv1_enabled"],
        automatic_reload=vector["automatic_reload"],
    )


def refusal_of(text: str, *, strict: bool = True) -> BadConfig:
    with pytest.raises(BadConfig) as refusal:
        parse_config(text.encode(), strict=strict)
    return refusal.value


def codes(refusal: BadConfig) -> list[str]:
    return [problem.code for problem in refusal.problems]


def with_key(name: str, secret: str = KEY_TEXT) -> str:
    return (
        f"{HEAD}resources:\n- resources: [secrets]\n  providers:\n  - aescbc:\n      keys:\n"
        f"      - secret: {secret}\n        name: {name}\n"
    )


def with_kms(fields: str) -> str:
    return f"{HEAD}resources:\n- resources: [secrets]\n  providers:\n  - kms: {{name: kp, {fields}}}\n"


def test_every_case_names_vectors_that_exist() -> None:
    assert {vector for vectors in CASES.values() for vector in vectors} <= set(VECTORS)


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "nonstrict"])
@pytest.mark.parametrize("vector", by_case())
def test_decision_is_that_of_kube_apiserver(vector: dict[str, Any], *, strict: bool) -> None:
    expected = vector["strict"] if strict else vector.get("nonstrict", vector["strict"])
    if vector["name"] == "internal version" and not strict:
        # Known to differ, in the stage alone: section 0 of the specification.
        expected = {**expected, "stage": "validate"}
    if expected["decision"] == "accept":
        parse(vector, strict=strict)
        return
    with pytest.raises(BadConfig) as refusal:
        parse(vector, strict=strict)
    found = refusal.value
    assert found.stage == expected["stage"]
    assert codes(found) == [problem["code"] for problem in expected["errors"]]
    for problem, wanted in zip(found.problems, expected["errors"], strict=True):
        assert problem.path == wanted.get("path", problem.path)
        assert problem.message


@pytest.mark.parametrize("scalar", GOLDEN["yaml_scalars"], ids=lambda scalar: repr(scalar["text"]))
def test_plain_yaml_scalars_are_what_go_yaml_takes_them_for(scalar: dict[str, Any]) -> None:
    text = with_key(scalar["text"])
    if scalar["type"] == "string" and scalar["value"]:
        (provider,) = parse_config(text.encode()).entries[0].providers
        assert isinstance(provider, LocalConfig)
        assert provider.keys[0].name == scalar["value"]
        return
    wanted = {
        "string": "key_name_required",
        "null-or-empty-string": "key_name_required",
        "yaml-error": "syntax",
    }
    # Infinity and NaN are numbers too, but no JSON, and so fail before any type is looked at.
    not_json = scalar["text"].lstrip("+-").lower() in {".inf", ".nan"}
    assert codes(refusal_of(text)) == ["syntax" if not_json else wanted.get(scalar["type"], "wrong_type")]


@pytest.mark.parametrize("vector", VECTORS.values(), ids=lambda vector: str(vector["name"]))
def test_no_message_shows_a_secret(vector: dict[str, Any]) -> None:
    try:
        shown = repr(parse(vector, strict=True))
    except BadConfig as refusal:
        shown = f"{refusal} {refusal.hint} {refusal.problems!r} {refusal!r} {refusal.__cause__!r}"
    for text in re.findall(r"[A-Za-z0-9+/]{16,}={0,2}", vector["config"]):
        # Long words that are not secrets: names of fields, kinds and groups, which hold no digit or padding.
        if re.search(r"[0-9=+]", text):
            assert text not in shown
            assert len(text) % 4 or base64.b64decode(text).hex() not in shown


def test_a_secret_that_slipped_into_the_name_of_a_field_is_not_shown() -> None:
    # In flow style `secret:AAEC…` without a blank is one word, and so a name without a value.
    text = (
        f"{HEAD}resources:\n- resources: [a]\n  providers: [{{aescbc: {{keys: [{{name: k, secret:{KEY_TEXT}}}]}}}}]\n"
    )
    refusal = refusal_of(text)
    assert codes(refusal) == ["strict_unknown_field"]
    assert KEY_TEXT not in str(refusal)
    assert "resources[0].providers[0].aescbc.keys[0]." in str(refusal)
    twice = f'{{"apiVersion":"v1","kind":"EncryptionConfig","{KEY_TEXT}":1,"{KEY_TEXT}":2}}'
    assert codes(refusal_of(twice)) == ["strict_unknown_field", "strict_duplicate_key"]
    assert KEY_TEXT not in str(refusal_of(twice))


PHRASE = b"correct horse battery staple now"  # 32 bytes, which a repr would show as they are
LONG = base64.b64encode(PHRASE + b"!").decode()


@pytest.mark.parametrize("kind", ["aescbc", "aesgcm", "secretbox"])
def test_secrets_show_in_no_form_in_what_is_made_of_a_configuration(kind: str) -> None:
    text = with_key("shown", base64.b64encode(PHRASE).decode()).replace("aescbc", kind)
    parsed = parse_config(text.encode())
    keyring = Keyring([parsed])
    chain = keyring.chain_for(GroupResource("secrets"))
    with pytest.raises(NoKeyFits) as failure:
        chain.unseal(f"k8s:enc:{kind}:v1:shown:".encode() + bytes(48), b"/key")
    # One byte more, and the server refuses the secret itself.
    with pytest.raises(BadConfig) as refusal:
        parse_config(text.replace(base64.b64encode(PHRASE).decode(), LONG).encode())
    with pytest.raises(BadConfig) as new:
        new_config(kind=Kind(kind), key_name="a", secret=PHRASE + b"!", resources=["secrets"], keep=parsed)
    shown = [repr(parsed), str(parsed), repr(parsed.entries[0].providers[0]), repr(keyring), repr(chain)]
    shown += [repr(keyring.providers()), *config_warnings(parsed)]
    for error in (failure.value, refusal.value, new.value):
        shown += [repr(error), *traceback.format_exception(error)]
    assert "shown" in shown[0]
    for text in shown:
        for form in (PHRASE[:12].decode(), PHRASE[:12].hex(), base64.b64encode(PHRASE[:12]).decode()):
            assert form not in text


def test_an_anchor_may_be_set_again_and_an_alias_means_the_last_one() -> None:
    text = f"""{HEAD}resources:
- resources: &a [secrets]
  providers: [{{aescbc: {{keys: [&k {{name: &a x, secret: &s {KEY_TEXT}}}, &k {{name: *a, secret: *s}}, *k]}}}}]
"""
    (provider,) = parse_config(text.encode()).entries[0].providers
    assert provider == LocalConfig(Kind.AESCBC, (KeyConfig("x", bytes(range(32))),) * 3)
    assert codes(refusal_of(text.replace("&a", "&b"))) == ["syntax"]


def test_a_text_that_claims_to_be_a_timestamp_is_refused() -> None:
    for written in ("a", "2001-01", "2001-01-01T10:00:00", "'2001-01-01 1'"):
        assert codes(refusal_of(with_key(f"!!timestamp {written}"))) == ["syntax"]
    for written in ("2001-1-1", "2001-01-01T10:00:00.5Z", "2001-01-01 10:00:00"):
        parse_config(with_key(f"!!timestamp {written}").encode())
    assert codes(refusal_of(with_key("a").replace("name:", "!!timestamp name:"))) == ["syntax"]


def test_first_source_of_a_merge_counts() -> None:
    # go-yaml takes a list of sources from its end, so that those before win. Strict decoding refuses the repetition.
    other = base64.b64encode(bytes(32)).decode()
    text = f"""{HEAD}resources:
- resources: [secrets]
  providers:
  - aescbc: {{keys: [&a {{name: a, secret: {KEY_TEXT}}}, &b {{name: b, secret: {other}}}, {{<<: [*a, *b]}}]}}
"""
    assert codes(refusal_of(text)) == ["strict_duplicate_key"]
    (provider,) = parse_config(text.encode(), strict=False).entries[0].providers
    assert isinstance(provider, LocalConfig)
    assert [key.name for key in provider.keys] == ["a", "b", "a"]


def test_a_number_of_any_length_is_a_number() -> None:
    # Python refuses to turn more than 4300 digits into an int, with an exception that must not come out.
    text = json.dumps({"apiVersion": "v1", "kind": "EncryptionConfig", "x": "N", "resources": []})
    for digits in ("9" * 30, "9" * 10_000, "-" + "9" * 10_000):
        number = text.replace('"N"', digits)
        assert codes(refusal_of(number)) == ["strict_unknown_field"]
        assert codes(refusal_of(number, strict=False)) == ["resources_required"]
    assert plain_scalar("18446744073709551615") == (1 << 64) - 1
    assert isinstance(plain_scalar("18446744073709551616"), float)


def test_names_of_misspelt_fields_are_shown() -> None:
    refusal = refusal_of(with_key("a").replace("- resources", "- resource"))
    assert "resources[0].resource" in str(refusal)


def test_an_accepted_configuration_keeps_everything_it_says() -> None:
    text = f"""{HEAD}resources:
- resources: [secrets, "*.apps"]
  providers:
  - aesgcm: {{keys: [{{name: "1", secret: {KEY_TEXT}}}, {{name: "a:b", secret: AAECAwQFBgcICQoLDA0ODw==}}]}}
  - kms: {{name: old, endpoint: "unix:///a"}}
  - kms: {{name: new, apiVersion: v2, endpoint: "unix:///b", timeout: 1m0.5s}}
  - identity: {{}}
"""
    config = parse_config(text.encode(), name="some.yaml")
    assert config == EncryptionConfig(
        "some.yaml",
        (
            ConfigEntry(
                ("secrets", "*.apps"),
                (
                    LocalConfig(Kind.AESGCM, (KeyConfig("1", bytes(range(32))), KeyConfig("a:b", bytes(range(16))))),
                    KmsConfig("old", "v1", "unix:///a", 3.0, 1000),
                    KmsConfig("new", "v2", "unix:///b", 60.5, None),
                    LocalConfig(Kind.IDENTITY),
                ),
            ),
        ),
    )
    assert config.entries[0].group_resources == (("secrets", ""), ("*", "apps"))
    assert [provider.kind for provider in config.entries[0].providers] == ["aesgcm", "kms/v1", "kms/v2", "identity"]


def test_all_problems_are_listed_with_their_places() -> None:
    text = f"""{HEAD}resources:
- resources: [Secrets, secrets, secrets]
  providers:
  - aescbc: {{keys: [{{name: "", secret: AAEC}}, {{name: k, secret: "!"}}]}}
  - {{}}
"""
    refusal = refusal_of(text)
    assert [(problem.path, problem.code) for problem in refusal.problems] == [
        ("resources[0].resources", "duplicate_resource"),
        ("resources[0].resources[0]", "capital_letters"),
        ("resources[0].providers[0].aescbc.keys[0].name", "key_name_required"),
        ("resources[0].providers[0].aescbc.keys[0].secret", "key_length"),
        ("resources[0].providers[0].aescbc.keys[1].secret", "not_base64"),
        ("resources[0].providers[1]", "no_provider"),
    ]
    assert "it has 3 bytes" in str(refusal)
    assert refusal.hint


@pytest.mark.parametrize(
    "data",
    [
        b"a: " + b"[" * 100_000,
        b"\n".join(b" " * depth + b"a:" for depth in range(900)),
        b'{"a":' * 100_000,
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(
            b"%c: &%c [%s]\n" % (98 + number, 98 + number, b",".join([b"*%c" % (97 + number)] * 9))
            for number in range(12)
        ),
        b"a: &a {b: *a}\n",
        b"a: &a [*a]\n",
        b"&a a: {<<: *a}\n",
    ],
    ids=["flow", "block", "json", "bomb", "map of itself", "list of itself", "merge of itself"],
)
def test_hostile_nesting_is_refused_quickly(data: bytes) -> None:
    with pytest.raises(BadConfig) as refusal:
        parse_config(data)
    assert codes(refusal.value) == ["syntax"]


NASTY = """
import sys
from snaptool.providers.config.model import BadConfig
from snaptool.providers.config.rules import parse_config
nested = [b"- ", b"? ", b"[", b"{a: ", b"[{a: ", b"&a [", b"!!seq [", b'{"a":[']
texts = [head + one * 100_000 for one in nested for head in (b"", b"a: ", b"a:\\n- ")]
texts += [b"[" * 100_000 + b"]" * 100_000, b"a: " + b"9" * 2_000_000, b"a: [" + b"&a " * 10_000, b"a: \\0", b"\\0" * 9]
texts += [b'{"a":' + b"9" * 2_000_000 + b"}", b"a: !!binary " + b"A" * 2_000_001]
texts += [b"%YAML " + b"9" * 99 + b".1\\n---\\na: b"]
for text in texts:
    for strict in (True, False):
        try:
            parse_config(text, strict=strict)
        except BadConfig:
            continue
        sys.exit(f"accepted: {text[:20]!r}")
"""


def test_nothing_nasty_ends_the_interpreter() -> None:
    # A crash in C, or a recursion that eats the stack, would end pytest itself: so they are read elsewhere.
    subprocess.run([sys.executable, "-c", NASTY], check=True, timeout=120)


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"\x80", b'{"a":"\xff"}', b"a: \xc3\x28", b"\xef\xbb\xbf", b"\xfe\xff\0k"]
)
def test_what_is_not_utf8_is_refused(data: bytes) -> None:
    with pytest.raises(BadConfig):
        parse_config(data)


def test_halves_of_characters_become_the_mark_that_go_puts_there() -> None:
    document = {
        "apiVersion": "v1",
        "kind": "EncryptionConfig",
        "resources": [
            {"resources": ["secrets"], "providers": [{"aescbc": {"keys": [{"name": "a\ud800é", "secret": KEY_TEXT}]}}]}
        ],
    }
    config = parse_config(json.dumps(document).encode())
    provider = config.entries[0].providers[0]
    assert isinstance(provider, LocalConfig)
    assert provider.keys[0].name == "a\ufffdé"
    assert Keyring([config]).chain_for(GroupResource("secrets")).writer == (Kind.AESCBC, "a\ufffdé")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("-0", 0),
        ("1.5h", 5_400_000_000_000),
        ("1h2m3.5s", 3_723_500_000_000),
        ("1us1µs1μs", 3_000),
        ("-1s", -1_000_000_000),
        ("0.000000001s", 1),
        ("0.0000000001s", 0),
        ("." + "9" * 5000 + "s", 999_999_999),
        ("0" * 5000 + "1s", 1_000_000_000),
        ("9" * 5000 + "s", None),
        ("9223372036854775807ns", (1 << 63) - 1),
        ("9223372036854775808ns", None),
        ("", None),
        ("-", None),
        (".s", None),
        ("1", None),
        ("1s ", None),
        ("٣s", None),
    ],
)
def test_durations_are_those_of_go(text: str, nanoseconds: int | None) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("unix://[::ffff:1.2.3.4]:80/x", None),
        ("unix://[fe80::1%25en0]/x", None),
        ("unix:rel%zz", None),
        ("unix://[::::]/x", "kms_endpoint_invalid"),
        ("unix://[1.2.3.4]/x", "kms_endpoint_invalid"),
        ("unix://[::1%25]/x", "kms_endpoint_invalid"),
        ("unix://[::1%25%zz]/x", "kms_endpoint_invalid"),
        ("unix:///a#%", "kms_endpoint_invalid"),
        ("a:b", "kms_endpoint_scheme"),
        (":a", "kms_endpoint_invalid"),
        ("//a b", "kms_endpoint_invalid"),
        ("?a:b", "kms_endpoint_scheme"),
        ("./a:b", "kms_endpoint_scheme"),
        ("1a:b", "kms_endpoint_invalid"),
    ],
)
def test_endpoints_are_parsed_as_by_go(endpoint: str, problem: str | None) -> None:
    assert endpoint_problem(endpoint) == problem


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("unix:///run/kms.sock", "/run/kms.sock"),
        ("unix:/run/kms.sock", "/run/kms.sock"),
        ("unix://host/run/kms.sock", "/run/kms.sock"),
        ("unix:///@name", "/@name"),
        ("unix:///a%20b?q#f", "/a b"),
        ("unix:rel", ""),
        ("unix://", ""),
    ],
)
def test_socket_path_is_the_path_of_the_url(endpoint: str, path: str) -> None:
    assert endpoint_problem(endpoint) is None
    assert endpoint_path(endpoint) == path


def test_kms_v1_behind_its_gate_is_named_by_place() -> None:
    text = with_kms('endpoint: "unix:///s"')
    parse_config(text.encode())
    with pytest.raises(BadConfig) as refusal:
        parse_config(text.encode(), kmsv1=False)
    assert (refusal.value.stage, codes(refusal.value)) == ("build", ["kmsv1_disabled"])
    assert refusal.value.problems[0].path == "resources[0].providers[0].kms"


# --- config new -----------------------------------------------------------------------------------------------------

FRESH = bytes(range(100, 132))


def made(*resources: str, keep: str | None = None, kind: Kind = Kind.SECRETBOX) -> list[tuple[list[str], list[str]]]:
    """Return what new_config writes, as names and providers; providers as kind and key name."""
    old = parse_config((HEAD + keep).encode()) if keep is not None else None
    text = new_config(kind=kind, key_name="new", secret=FRESH, resources=resources, keep=old)
    return [
        (
            list(entry.resources),
            [
                f"{one.kind}:{one.keys[0].name if isinstance(one, LocalConfig) and one.keys else ''}"
                for one in entry.providers
            ],
        )
        for entry in parse_config(text.encode()).entries
    ]


def old(names: str, key: str) -> str:
    return (
        f"- resources: [{names}]\n  providers: [{{aescbc: {{keys: [{{name: {key}, secret: {KEY_TEXT}}}]}}}}, "
        "{identity: {}}]\n"
    )


def test_new_configuration_writes_with_the_fresh_key_and_reads_plaintext() -> None:
    text = new_config(kind=Kind.AESGCM, key_name="new", secret=FRESH, resources=["secrets", "configmaps"])
    config = parse_config(text.encode())
    assert config.entries == (
        ConfigEntry(
            ("secrets", "configmaps"),
            (LocalConfig(Kind.AESGCM, (KeyConfig("new", FRESH),)), LocalConfig(Kind.IDENTITY)),
        ),
    )
    assert text.startswith("#")
    assert list(yaml.safe_load(text)) == ["apiVersion", "kind", "resources"]
    assert made("secrets", kind=Kind.IDENTITY) == [(["secrets"], ["identity:"])]


def test_new_configuration_keeps_reading_with_the_old_keys() -> None:
    keep = "resources:\n" + old("secrets, pods", "a") + old("secrets", "b")
    assert made("secrets", keep=keep) == [
        (["secrets"], ["secretbox:new", "aescbc:a", "identity:", "aescbc:b", "identity:"]),
        (["pods"], ["aescbc:a", "identity:"]),
    ]
    assert made("secrets.", "secrets", keep=keep) == made("secrets", keep=keep)


@pytest.mark.parametrize("wildcard", ["'*.'", "'*.*'"])
def test_new_entry_keeps_the_keys_of_the_wildcard_that_it_hides(wildcard: str) -> None:
    name = wildcard.strip("'")
    assert made("secrets", keep="resources:\n" + old(wildcard, "a")) == [
        (["secrets"], ["secretbox:new", "aescbc:a", "identity:"]),
        ([name], ["aescbc:a", "identity:"]),
    ]


def test_wildcards_come_last_the_widest_at_the_end() -> None:
    keep = "resources:\n" + old("'*.apps'", "a")
    assert made("*.*", "deployments.apps", "secrets", "*.", keep=keep) == [
        (["deployments.apps"], ["secretbox:new", "aescbc:a", "identity:"]),
        (["secrets"], ["secretbox:new", "identity:"]),
        (["*."], ["secretbox:new", "identity:"]),
        (["*.apps"], ["aescbc:a", "identity:"]),
        (["*.*"], ["secretbox:new", "identity:"]),
    ]


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        ([], "key1"),
        (["key1"], "key2"),
        (["key2", "key1", "key4"], "key3"),
        (["key1:old"], "key2"),
        (["key10"], "key1"),
        (["2025"], "key1"),
    ],
)
def test_fresh_key_without_a_name_takes_the_first_that_is_free(taken: list[str], chosen: str) -> None:
    keep = "resources:\n" + "".join(old("secrets", f"'{name}'") for name in taken) + old("pods", "key1")
    before = parse_config((HEAD + keep).encode())
    text = new_config(kind=Kind.AESCBC, secret=FRESH, resources=["secrets"], keep=before)
    first = parse_config(text.encode()).entries[0].providers[0]
    assert first == LocalConfig(Kind.AESCBC, (KeyConfig(chosen, FRESH),))


def test_kms_entries_are_carried_over() -> None:
    keep = (
        "resources:\n- resources: [secrets]\n  providers:\n"
        '  - kms: {name: one, endpoint: "unix:///a", timeout: 1500us, cachesize: -1}\n'
        '  - kms: {name: two, apiVersion: v2, endpoint: "unix:///b"}\n'
    )
    before = parse_config((HEAD + keep).encode())
    text = new_config(kind=Kind.SECRETBOX, key_name="new", secret=FRESH, resources=["secrets"], keep=before)
    (entry,) = parse_config(text.encode()).entries
    assert entry.providers[1:3] == before.entries[0].providers
    assert "timeout: 3s\n" in text
    assert "timeout: 0.0015s\n" in text


@pytest.mark.parametrize(("resource", "code"), [("Secrets", "capital_letters"), ("*", "bare_star")])
def test_new_configuration_that_would_be_refused_is_not_made(resource: str, code: str) -> None:
    with pytest.raises(BadConfig) as refusal:
        new_config(kind=Kind.SECRETBOX, key_name="new", secret=FRESH, resources=[resource])
    assert codes(refusal.value) == [code]
    with pytest.raises(BadConfig) as refusal:
        new_config(kind=Kind.SECRETBOX, key_name="new", secret=b"short", resources=["secrets"])
    assert codes(refusal.value) == ["key_length"]


@pytest.mark.parametrize(
    "name",
    ["y", "n", "on", "08", "0o7", "12e4567", "1_0", "+1", ".5", "~", "null", "<<", "=", "1:30", "é\x85\u2028 ", "a\n"],
)
def test_names_that_yaml_takes_for_something_else_are_quoted(name: str) -> None:
    text = new_config(kind=Kind.SECRETBOX, key_name=name, secret=FRESH, resources=["secrets"])
    kept = new_config(
        kind=Kind.SECRETBOX, key_name="b", secret=FRESH, resources=["secrets"], keep=parse_config(text.encode())
    )
    for written, place in ((text, 0), (kept, 1)):
        provider = parse_config(written.encode()).entries[0].providers[place]
        assert isinstance(provider, LocalConfig)
        assert provider.keys == (KeyConfig(name, FRESH),)


@pytest.mark.parametrize("names", ["secrets, configmaps", "'*.*'"])
def test_a_kms_v2_provider_that_would_be_needed_twice_is_said_to_be_so(names: str) -> None:
    # kube-apiserver takes a KMS v2 name once in a file, so half of an entry cannot leave its provider.
    keep = parse_config(with_kms('apiVersion: v2, endpoint: "unix:///s"').replace("secrets", names).encode())
    with pytest.raises(BadConfig, match="one entry alone") as refusal:
        new_config(kind=Kind.SECRETBOX, key_name="new", secret=FRESH, resources=["secrets"], keep=keep)
    assert codes(refusal.value) == ["kms_name_duplicate"]
    together = names.strip("'").split(", ")
    text = new_config(kind=Kind.SECRETBOX, key_name="new", secret=FRESH, resources=together, keep=keep)
    (entry,) = parse_config(text.encode()).entries
    assert [one.kind for one in entry.providers] == [Kind.SECRETBOX, Kind.KMS_V2, Kind.IDENTITY]


def test_long_endpoints_and_blanks_before_json_are_judged_quickly_and_as_by_go() -> None:
    started = time.monotonic()
    assert endpoint_problem("unix://" + "a" * 1_000_000 + ":x/") == "kms_endpoint_invalid"
    assert endpoint_problem("unix://" + "a:" * 500_000 + "1/") is None
    assert time.monotonic() - started < 5
    # After any blank of Unicode a brace means JSON; JSON itself then takes four blanks alone.
    for blank in ("\x85", "\u2028", "\xa0"):
        assert codes(refusal_of(blank + json.dumps({"apiVersion": "v1", "kind": "EncryptionConfig"}))) == ["syntax"]


@pytest.mark.parametrize(
    ("names", "provider", "told"),
    [
        ("secrets", "aesgcm: {keys: [{name: a, secret: S}]}", "200,000"),
        ("secrets", 'kms: {name: a, apiVersion: v2, endpoint: "unix:rel"}', "no path"),
    ],
)
def test_each_warning_stands_alone(names: str, provider: str, told: str) -> None:
    text = f"{HEAD}resources:\n- resources: [{names}]\n  providers:\n  - {provider}\n  - identity: {{}}\n"
    (warning,) = config_warnings(parse_config(text.replace("S}", KEY_TEXT + "}").encode()))
    assert told in warning


@pytest.mark.parametrize(("first", "second", "warned"), [("a", "a", True), ("a:b", "a", True), ("a", "ab", False)])
def test_warning_of_cbc_keys_that_are_tried_for_one_another(first: str, second: str, *, warned: bool) -> None:
    other = base64.b64encode(FRESH).decode()
    keys = json.dumps([{"name": first, "secret": KEY_TEXT}, {"name": second, "secret": other}])
    text = f"{HEAD}resources:\n- resources: [secrets]\n  providers:\n  - aescbc: {{keys: {keys}}}\n  - identity: {{}}\n"
    warnings = list(config_warnings(parse_config(text.encode())))
    assert any("garbage" in warning for warning in warnings) is warned


@pytest.mark.parametrize("second", ["secrets", "secrets."])
def test_warning_of_cbc_keys_covers_all_providers_that_a_resource_has(second: str) -> None:
    other = base64.b64encode(FRESH).decode()
    apart = f"""{HEAD}resources:
- resources: [secrets]
  providers: [{{aescbc: {{keys: [{{name: a, secret: {KEY_TEXT}}}]}}}}, {{identity: {{}}}}]
- resources: ["{second}"]
  providers: [{{aescbc: {{keys: [{{name: a, secret: {other}}}]}}}}, {{identity: {{}}}}]
"""
    warned = [one for one in config_warnings(parse_config(apart.encode())) if "garbage" in one]
    assert [one.partition(":")[0] for one in warned] == ["resources[0]", "resources[1]"]
    for harmless in (apart.replace(f'"{second}"', "pods"), apart.replace(other, KEY_TEXT)):
        assert not [one for one in config_warnings(parse_config(harmless.encode())) if "garbage" in one]


@pytest.mark.parametrize("kind", [Kind.AESCBC, Kind.AESGCM, Kind.SECRETBOX])
@pytest.mark.parametrize(("kept", "taken"), [("key1", True), ("key1:a", True), ("key", False), ("key11", False)])
def test_a_fresh_key_does_not_take_the_name_of_an_old_one(kind: Kind, kept: str, *, taken: bool) -> None:
    before = parse_config(
        new_config(kind=kind, key_name=kept, secret=bytes(range(32)), resources=["secrets", "pods"]).encode()
    )

    def fresh(resource: str, fresh_kind: Kind = kind) -> str:
        return new_config(kind=fresh_kind, key_name="key1", secret=FRESH, resources=[resource], keep=before)

    if not taken:
        fresh("secrets")
        return
    with pytest.raises(KeyNameTaken) as refusal:
        fresh("secrets")
    assert (refusal.value.key_name, refusal.value.kind) == (kept, kind)
    assert "--key-name" in refusal.value.hint
    # Of another kind, or where the old key does not read, the name is free.
    fresh("configmaps")
    fresh("secrets", Kind.SECRETBOX if kind is not Kind.SECRETBOX else Kind.AESGCM)


def test_warnings_say_what_an_accepted_configuration_does() -> None:
    text = f"""{HEAD}resources:
- resources: [secrets]
  providers: [{{identity: {{}}}}, {{kms: {{name: k, endpoint: "unix:///s"}}}}]
- resources: [pods]
  providers: [{{aescbc: {{keys: [{{name: a, secret: {KEY_TEXT}}}, {{name: b, secret: {KEY_TEXT}}}]}}}}]
"""
    warnings = list(config_warnings(parse_config(text.encode())))
    assert [warning.partition(":")[0] for warning in warnings] == ["resources[0]"] * 2 + ["resources[1]"] * 3
    for told, warning in zip(("in plaintext", "KMS v1", "altered", "no identity", "two names"), warnings, strict=True):
        assert told in warning
    assert not list(
        config_warnings(
            parse_config(new_config(kind=Kind.SECRETBOX, key_name="k", secret=FRESH, resources=["secrets"]).encode())
        )
    )
