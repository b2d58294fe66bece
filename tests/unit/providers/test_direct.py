"""What is said of key services, what of their messages is shown, and what they will be asked: no library needed."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptool.providers.direct import BadDirect, parse_direct
from snaptool.providers.direct.calls import asked_directly
from snaptool.providers.direct.openbao import Identity
from snaptool.providers.direct.service import after, shown
from snaptool.providers.kms_sources import CallPlan, batch_size
from snaptool.providers.provider import Api

VECTORS = json.loads((Path(__file__).parents[2] / "golden" / "clouds" / "direct.json").read_text())
KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/k"


@pytest.mark.parametrize(
    ("text", "kind", "where", "options"),
    [
        ("prod=aws", "aws", "", ()),
        ("a:b=aws:alias/x", "aws", "alias/x", ()),
        (
            "p=aws:arn:aws:kms:eu-central-1:111122223333:key/1-2?context.a%20b=c%26d&profile=x&pin",
            "aws",
            "arn:aws:kms:eu-central-1:111122223333:key/1-2",
            (("context.a b", "c&d"), ("profile", "x"), ("pin", "")),
        ),
        ("p=gcp", "gcp", "", ()),
        (f"p=gcp:{KEY}?suffix=gen2", "gcp", KEY, (("suffix", "gen2"),)),
        ("p=azure:https://v.vault.azure.net/keys/k/1/", "azure", "https://v.vault.azure.net/keys/k/1", ()),
        (
            "p=azure:https://v.vault.azure.net/keys/k?version=1&version=2",
            "azure",
            "https://v.vault.azure.net/keys/k",
            (("version", "1"), ("version", "2")),
        ),
        ("p=vault:a/b/kek?plugin=kleidi", "vault", "a/b/kek", (("plugin", "kleidi"),)),
    ],
)
def test_what_is_said_is_taken_apart(text: str, kind: str, where: str, options: tuple[tuple[str, str], ...]) -> None:
    found = parse_direct(text)
    assert (found.kind, found.where, found.options) == (kind, where, options)
    assert found.name == text.partition("=")[0]


@pytest.mark.parametrize(
    "text",
    [
        *("", "=", "p", "p=", "=aws", "p=aws:two words", "p=alibaba", "p=vault", "p=vault:kek", "p=vault:/kek"),
        *("p=azure", "p=azure:https://v.vault.azure.net/k", "p=gcp:projects/p", f"p=gcp:{KEY}/cryptoKeyVersions/1"),
        *("p=aws?token=x", "p=aws?region=", "p=aws?region=a&region=b", "p=aws?pin", "p=aws:k?pin=maybe"),
        *("p=vault:a/b?plugin=x", "p=vault:a/b?plugin=openbao", "p=vault:a/b?cluster_id=x", "p=aws?context.=x"),
        *("p=azure:https://v/keys/k/1?version=2", "p=gcp?endpoint=http://10.0.0.1", "p=aws?secret_access_key=x"),
    ],
)
def test_what_is_said_wrongly_is_refused_with_advice(text: str) -> None:
    with pytest.raises(BadDirect) as caught:
        parse_direct(text)
    assert caught.value.hint


@given(st.text(max_size=80) | st.from_regex(r"p=(aws|gcp|azure|vault):[^?]{0,20}\?[a-z.]{0,8}=.{0,20}", fullmatch=True))
def test_any_text_is_a_service_or_refused(text: str) -> None:
    with contextlib.suppress(BadDirect):
        assert parse_direct(text).name


def test_no_value_is_repeated_in_a_refusal() -> None:
    secret = "hvs.CAESIJsecretsecret0123"  # noqa: S105 - nobody's
    for text in (f"p=vault:a/b?token={secret}", f"p={secret}", f"p=aws?{secret}", f"p=aws?region=a&region={secret}"):
        with pytest.raises(BadDirect) as caught:
            parse_direct(text)
        assert secret not in f"{caught.value}{caught.value.hint}"


def test_a_form_of_the_other_api_is_refused() -> None:
    for plugin, api in (("trousseau", Api.V2), ("oracle", Api.V2), ("kleidi", Api.V1)):
        with pytest.raises(BadDirect, match=plugin):
            parse_direct(f"p=vault:a/b?plugin={plugin}").require_api(api)


CODINGS: list[Callable[[bytes], str]] = [
    lambda secret: secret.hex(),
    lambda secret: secret.hex().upper(),
    lambda secret: secret.hex(" "),
    lambda secret: secret.hex(":"),
    lambda secret: base64.b64encode(secret).decode(),
    lambda secret: base64.urlsafe_b64encode(secret).decode().rstrip("="),
    lambda secret: str(list(secret)),
    lambda secret: " ".join(map(str, secret)),
    lambda secret: "".join(f"\\x{byte:02x}" for byte in secret),
    lambda secret: "".join(f"%{byte:02X}" for byte in secret),
    lambda secret: secret[::-1].hex(),
]


@given(st.binary(min_size=32, max_size=48), st.sampled_from(range(len(CODINGS))))
def test_a_secret_that_nobody_named_is_shown_in_no_coding(secret: bytes, coding: int) -> None:
    coded = CODINGS[coding](secret)
    if any(sign.isdigit() for sign in coded) or coding not in {4, 5}:
        text = shown(f"cannot use {coded} for this")
        assert coded not in text
        assert coded[5:25] not in text
        assert text.startswith("cannot use")


@pytest.mark.parametrize(
    "text",
    [
        "User: arn:aws:sts::111122223333:assumed-role/backup/ops@example.com is not authorized to perform: kms:Decrypt",
        "arn:aws:kms:eu-central-1:123456789012:key/bc436485-5092-42b8-92a3-0aa8b93536dc is disabled.",
        f"Permission 'cloudkms.cryptoKeyVersions.useToDecrypt' denied on resource '{KEY}' (or it may not exist).",
        f"{KEY}/cryptoKeyVersions/12 is not enabled, current state is: DESTROY_SCHEDULED.",
        "Operation decrypt is not allowed on a disabled key.",
        "ciphertext or signature version is disallowed by policy (too old)",
        "HTTP 403 ForbiddenByRbac: Caller is not authorized to perform action on resource.",
    ],
)
def test_what_the_operator_needs_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == text


def test_of_many_lines_the_first_is_shown_and_of_a_long_one_its_beginning() -> None:
    assert shown("\n first \nsecond") == "first"
    assert len(shown("word " * 200)) <= 301
    assert shown("") == ""


@pytest.mark.parametrize("header", [None, "", "x", "-1", "3", " 7 ", "Wed, 21 Oct 2015 07:28:00 GMT", "1e9", "9" * 30])
def test_any_retry_after_is_a_number_of_seconds(header: str | None) -> None:
    assert after(header) >= 0
    assert after("3") == 3


@pytest.mark.parametrize("model", VECTORS["openbao_identity"], ids=lambda model: model["identity"]["cluster_id"])
def test_identity_of_openbaos_plugin_is_byte_for_byte(model: dict[str, Any]) -> None:
    identity = Identity(**model["identity"])
    key_id = identity.key_id(model["transit_version"], model["version_created_at"])
    annotations = identity.annotations(key_id, model["transit_version"])
    assert key_id == model["key_id"]
    assert {name: value.decode() for name, value in annotations.items()} == model["annotations"]
    assert identity.associated_data(annotations).decode() == model["associated_data"]


def plan(api: Api, purpose: str, **calls: int) -> CallPlan:
    return CallPlan(
        provider="p", api=api, purpose=purpose, objects=1_000_000, sources=calls.get("Decrypt", 0), calls=calls
    )


def test_plan_of_a_service_that_is_asked_directly() -> None:
    reading = plan(Api.V1, "read", Version=1, Decrypt=1_000_000)
    assert asked_directly(reading, None) == reading
    aws = asked_directly(reading, parse_direct("p=aws"))
    assert (aws.calls, aws.asked, aws.least_seconds) == ({"Decrypt": 1_000_000}, "AWS KMS", 0)
    vault = asked_directly(reading, parse_direct("p=vault:a/b"))
    assert vault.calls == {"Decrypt": 1000}
    azure = asked_directly(reading, parse_direct("p=azure:https://v/keys/k/1"))
    assert azure.least_seconds == 2500, "42 minutes: the quota of a vault"
    writing = asked_directly(
        plan(Api.V2, "write", Status=1, Encrypt=1, Decrypt=1), parse_direct("p=azure:https://v/keys/k")
    )
    assert writing.calls == {"Decrypt": 1}


def test_batches_keep_what_is_in_flight_busy() -> None:
    assert [batch_size(keys, 8, 1000) for keys in (1, 8, 9, 800, 8000, 1_000_000)] == [1, 1, 2, 100, 1000, 1000]
