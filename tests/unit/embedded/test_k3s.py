"""Bootstrap data of k3s and RKE2 against vectors that k3s' own functions made, and against any bytes."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaptool.embedded.k3s import (
    Bootstrap,
    BootstrapProblem,
    TokenFormat,
    configuration_json,
    passphrases,
    password_of,
    seal,
    storage_key,
    unseal,
)
from snaptool.errors import InputError, SnaptoolError
from snaptool.providers.config.rules import parse_config

CONFIG = Path(__file__).parents[2] / "golden" / "containers" / "config"
VECTORS: dict[str, Any] = json.loads((CONFIG / "k3s-bootstrap.json").read_text())
CLUSTER: dict[str, Any] = json.loads((CONFIG / "k3s-cluster.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["tokens"], ids=lambda vector: repr(vector["token"]))
def test_case_59_token_forms(vector: dict[str, Any]) -> None:
    if vector["password"] is not None:
        assert password_of(vector["token"]) == vector["password"]
        return
    with pytest.raises(TokenFormat) as refused:
        password_of(vector["token"])
    assert refused.value.code == "token_format"


def opened(vector: dict[str, Any]) -> Bootstrap:
    passphrase = next(
        (one for one in passphrases(vector["token"]) if storage_key(one) == vector["etcd_key"].encode()), None
    )
    if passphrase is None:
        raise InputError("no passphrase fits", code="bootstrap_token")
    return Bootstrap.parse(unseal(vector["value"].encode(), passphrase))


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: str(vector["name"]))
def test_case_58_bootstrap_all(vector: dict[str, Any]) -> None:
    expected = vector["expect"]
    if not expected["ok"]:
        with pytest.raises(SnaptoolError) as refused:
            opened(vector)
        assert refused.value.code == expected["error"]
        return
    bootstrap = opened(vector)
    assert (bootstrap.config or b"").decode() == (expected["encryption_config"] or "")
    assert bootstrap.state == expected["encryption_hash"]
    assert bootstrap.is_old == (expected["format"] == "old")
    assert bootstrap.state_fits
    if bootstrap.state:
        assert bootstrap.stage == bootstrap.state.rpartition("-")[0]


@pytest.mark.parametrize(
    "vector", [one for one in VECTORS["vectors"] if one["expect"]["ok"]], ids=lambda one: one["name"]
)
def test_a_new_configuration_leaves_all_other_files_as_they_were(vector: dict[str, Any]) -> None:
    bootstrap = opened(vector)
    config = b'{"kind":"EncryptionConfiguration"}'
    again = Bootstrap.parse(bootstrap.with_config(config, "2026-11-28T20:00:00Z"))
    assert again.config == config
    assert again.state == f"start-{hashlib.sha256(config).hexdigest()}"
    assert again.is_old == bootstrap.is_old
    changed = {"EncryptionConfig", "EncryptionHash"}
    assert {name: file for name, file in again.files.items() if name not in changed} == {
        name: file for name, file in bootstrap.files.items() if name not in changed
    }
    if not again.is_old:
        assert again.time is not None
        assert again.files["EncryptionConfig"]["Timestamp"] == "2026-11-28T20:00:00Z"


@pytest.mark.parametrize(
    "vector", [one for one in VECTORS["vectors"] if one["expect"]["ok"]], ids=lambda one: str(one["name"])
)
def test_sealing_with_the_same_randomness_gives_the_bytes_that_k3s_wrote(vector: dict[str, Any]) -> None:
    # The vectors were written by k3s' own encrypt: what is sealed here is what it would have written.
    value = vector["value"].encode()
    salt, _, text = value.partition(b":")
    passphrase = next(one for one in passphrases(vector["token"]) if storage_key(one) == vector["etcd_key"].encode())
    random = iter([bytes.fromhex(salt.decode()), base64.b64decode(text)[:12]])
    assert seal(unseal(value, passphrase), passphrase, lambda _size: next(random)) == value


def test_randomness_is_the_callers_and_salt_is_text() -> None:
    asked: list[int] = []

    def entropy(size: int) -> bytes:
        asked.append(size)
        return bytes(range(size))

    sealed = seal(b"files", "pw", entropy)
    assert asked == [8, 12]
    assert sealed.startswith(b"0001020304050607:")
    assert unseal(sealed, "pw") == b"files"
    with pytest.raises(BootstrapProblem) as refused:
        unseal(sealed, "other")
    assert refused.value.code == "bootstrap_auth"


def config_of(providers: str, resources: str = "[secrets]", more: str = "") -> bytes:
    return (
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"
        f"- resources: {resources}\n  providers: [{providers}]\n{more}"
    ).encode()


KEYS = "{keys: [{name: aescbckey, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}"


def test_configuration_is_written_as_k3s_keeps_it() -> None:
    config = parse_config(config_of(f"{{aescbc: {KEYS}}}, {{identity: {{}}}}"))
    assert configuration_json(config).decode() == CLUSTER["config"]


@pytest.mark.parametrize(
    "config",
    [
        config_of(f"{{aesgcm: {KEYS}}}, {{identity: {{}}}}"),
        config_of('{kms: {name: a, apiVersion: v2, endpoint: "unix:///s"}}, {identity: {}}'),
        config_of("{identity: {}}", more="- resources: [configmaps]\n  providers: [{identity: {}}]\n"),
        config_of(", ".join([f"{{aescbc: {KEYS}}}"] * 4)),
    ],
    ids=["aesgcm", "kms", "two elements", "four providers"],
)
def test_what_k3s_does_not_take_is_refused(config: bytes) -> None:
    with pytest.raises(InputError) as refused:
        configuration_json(parse_config(config))
    assert refused.value.code == "embedded_unsupported"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.text(max_size=20))
def test_any_value_opens_or_has_a_named_problem(value: bytes, token: str) -> None:
    for data in (value, b"0123456789abcdef:" + value, json.dumps(value.decode("latin-1")).encode()):
        try:
            Bootstrap.parse(unseal(data, token))
        except BootstrapProblem as problem:
            assert problem.code.startswith("bootstrap_")  # noqa: PT017 - either way is right
        try:
            found = Bootstrap.parse(data)
        except BootstrapProblem:
            continue
        assert found.config is None or found.files


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["EncryptionConfig", "EncryptionHash", "ServerCA", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["Content", "Timestamp"]), inner),
            max_leaves=4,
        ),
    )
)
def test_any_json_is_files_or_has_a_named_problem(files: dict[str, Any]) -> None:
    try:
        found = Bootstrap.parse(json.dumps(files).encode())
    except BootstrapProblem:
        return
    assert (found.config, found.state, found.stage, found.time, found.state_fits) is not None
    assert Bootstrap.parse(found.with_config(b"{}", "2026-01-01T00:00:00Z")).config == b"{}"
