"""A key service that refuses some keys, or answers wrongly: only the operator's word loses values, and exactly those.

Five key ids, of which a plugin in another process refuses two, in the ways that services are known for; and a hostile
plugin that answers wrongly for one key alone, once or always. What is kept and what is lost is compared value by value.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snaptool.providers import kms_pace, kms_unwrapping
from snaptool.providers.kms_envelope import decode_envelope, hash_key_id
from snaptool.providers.provider import Api
from tests.support.cli import Ran, Snaptool
from tests.support.kms_plugin import RunningPlugin, kms_plugin
from tests.support.kms_snapshots import (
    API,
    NAME,
    Value,
    configuration,
    database,
    kms_entry,
    opened_by,
    sealed,
    stored_values,
)
from tests.support.kms_values import Form
from tests.support.snapshots import config

KEY_IDS = [f"kek-{number}" for number in range(1, 6)]
REFUSED = ["kek-2", "kek-4"]
FORMS = {Api.V1: Form.V1_GCM, Api.V2: Form.V2_SEED}

AWS = "failed to decrypt operation error KMS: Decrypt, https response error StatusCode: 400, RequestID: 1b2, "
GOOGLE = "googleapi: Error 400: k/cryptoKeyVersions/3 is not enabled, current state is: DESTROYED., failedPrecondition"
AZURE = (
    "failed to decrypt, error: keyvault.BaseClient#Decrypt: Failure responding to request: StatusCode=403 -- "
    'Original Error: autorest/azure: Service returned an error. Code="Forbidden" InnerError={"code":"KeyDisabled"}'
)
REFUSALS = {
    "FAILED_PRECONDITION": ("FAILED_PRECONDITION", "failed precondition - key disabled"),
    "NOT_FOUND": ("NOT_FOUND", "key version is gone"),
    "PERMISSION_DENIED": ("PERMISSION_DENIED", "no"),
    "AWS disabled": ("UNKNOWN", AWS + "DisabledException: arn:aws:kms:eu:1:key/2 is disabled."),
    "AWS pending": ("UNKNOWN", AWS + "KMSInvalidStateException: arn:aws:kms:eu:1:key/2 is pending deletion."),
    "AWS denied": ("UNKNOWN", AWS + "AccessDeniedException: User: arn:aws:iam::1:user/x is not authorized"),
    "Google": ("UNKNOWN", GOOGLE),
    "Azure": ("UNKNOWN", AZURE),
    "Azure version": ("UNKNOWN", "key id ab does not match expected key id cd used for encryption"),
    "INTERNAL": ("INTERNAL", "rpc error"),
    "UNAVAILABLE": ("UNAVAILABLE", "permission denied by the HSM, HTTP/2"),
}

CODES = """
    CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED
    FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED
"""
NEAR_MISSES = "empty zeros reversed bit cut longer twice half hex base64 quoted hash wrapped key-id text"
MODES: dict[str, dict[str, Any]] = {
    **{code: {"kind": "error", "code": code, "text": "hiccup"} for code in CODES.split()},
    **{f"{size} bytes": {"kind": "plaintext", "bytes": size} for size in (5, 16, 24, 31, 32, 33, 159, 1 << 20)},
    **{how: {"kind": "plaintext", "as": how.replace("-", " ")} for how in NEAR_MISSES.split()},
    "no protobuf": {"kind": "raw", "hex": "ff" * 50},
    "cut protobuf": {"kind": "raw", "hex": "0a20aabb"},
    "another field": {"kind": "raw", "hex": "1220" + "ab" * 32},
    "a number": {"kind": "raw", "hex": "08ff01"},
    "5 MiB": {"kind": "pad", "bytes": 5 << 20},
    "dropped": {"kind": "restart"},
}
SAMPLE = ["INVALID_ARGUMENT", "UNIMPLEMENTED", "16 bytes", "32 bytes", "zeros", "twice", "no protobuf", "5 MiB"]


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningPlugin]:
    with kms_plugin() as plugin:
        yield plugin


@pytest.fixture
def plugin(shared: RunningPlugin, monkeypatch: pytest.MonkeyPatch) -> RunningPlugin:
    monkeypatch.setattr(kms_unwrapping, "SECOND_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(kms_pace.Retry, "wait", lambda *_: 0.02)
    shared.control(faults=[])
    shared.forget()
    return shared


@pytest.fixture
def secretbox(snaptool: Snaptool) -> Path:
    return snaptool.write("new.yaml", config("secretbox"))


def old_config(snaptool: Snaptool, plugin: RunningPlugin, api: Api) -> Path:
    return snaptool.write("old.yaml", configuration(kms_entry(api, NAME[api], plugin.endpoint)))


def values_of(api: Api) -> dict[str, list[Value]]:
    """Three values under each key id: one seed for all of them, or for v1 a key each."""
    found: dict[str, list[Value]] = {}
    for number, key_id in enumerate(KEY_IDS):
        if api is Api.V2:
            found[key_id] = sealed(FORMS[api], 3, 3 * number, kek=key_id)
        else:
            found[key_id] = [one for i in range(3) for one in sealed(FORMS[api], 1, 3 * number + i, kek=key_id)]
    return found


def options_of(ran: Ran) -> list[str]:
    """The options that a refusal names, as a shell would read them."""
    hint = re.search(r"if the keys are gone for good, `rewrite (.*?)` with (.*?) drops exactly", ran.stderr)
    assert hint is not None, ran.stderr
    return shlex.split(hint[1]) + shlex.split(hint[2])


def assert_kept(target: Path, kept: list[Value], untouched: list[Value] = ()) -> None:  # type: ignore[assignment]
    """`kept` values and no others are in the target, under the new key; `untouched` ones byte for byte as they were."""
    stored = {key: value for (key, _), value in stored_values(target).items()}
    same = {key: value for key, value, _ in untouched}
    assert {key: stored.pop(key, None) for key in same} == same
    assert all(value.startswith(b"k8s:enc:secretbox:") for value in stored.values())
    assert sorted(stored) == sorted(key for key, _, _ in kept)
    if not untouched:
        opened = {key: plaintext for (key, _), plaintext in opened_by(target, config("secretbox")).items()}
        assert opened == {key: plaintext for key, _, plaintext in kept}


def split(values: dict[str, list[Value]]) -> tuple[list[Value], list[Value]]:
    """What opens and what is refused."""
    good = [one for key_id, some in values.items() if key_id not in REFUSED for one in some]
    return good, [one for key_id in REFUSED for one in values[key_id]]


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("api", Api)
def test_refused_key_ids_are_lost_by_the_operators_word_alone_and_exactly(
    snaptool: Snaptool, plugin: RunningPlugin, secretbox: Path, tmp_path: Path, api: Api, refusal: str
) -> None:
    values = values_of(api)
    good, _ = split(values)
    source = database(tmp_path / "old.db", [one for some in values.values() for one in some])
    code, text = REFUSALS[refusal]
    plugin.fail({"kind": "error", "method": "Decrypt", "key_ids": REFUSED, "code": code, "text": text})
    target = tmp_path / "new.db"
    words = ("rewrite", source, target, "--config", old_config(snaptool, plugin, api), "--new-config", secretbox)
    ran = snaptool(*words, "--undecryptable", "delete")
    assert ran.code == 5, ran.text
    assert f"{NAME[api]!r} gave no key for 6 of 15 values, also when asked again" in ran.stderr
    assert "drops exactly these 6 values" in ran.stderr
    lost = [word for word in options_of(ran) if word.startswith(NAME[api])]
    hashes = [f"{NAME[api]}={hash_key_id(key_id)}" for key_id in REFUSED]
    assert sorted(lost) == (sorted(hashes) if api is Api.V2 else [NAME[api]])
    ran = snaptool(*words, *options_of(ran), makes=[target])
    assert ran.code == 0, ran.text
    assert_kept(target, good)


@pytest.mark.parametrize("api", Api)
def test_without_the_word_nothing_is_written_whatever_becomes_of_lost_values(
    snaptool: Snaptool, plugin: RunningPlugin, secretbox: Path, tmp_path: Path, api: Api
) -> None:
    values = values_of(api)
    good, refused = split(values)
    source = database(tmp_path / "old.db", [one for some in values.values() for one in some])
    plugin.fail({"kind": "error", "method": "Decrypt", "key_ids": REFUSED, "code": "FAILED_PRECONDITION"})
    target = tmp_path / "new.db"
    words = ("rewrite", source, target, "--config", old_config(snaptool, plugin, api), "--new-config", secretbox)
    for undecryptable in ("stop", "keep", "delete"):
        assert snaptool(*words, "--undecryptable", undecryptable).code == 5
    stopped = snaptool(*words, "--kms-lost", NAME[api], "-o", "json")
    assert stopped.code == 3
    assert sorted(one["key"] for one in stopped.json["lost" if "lost" in stopped.json else "undecryptable"]) == sorted(
        key.decode() for key, _, _ in refused
    )
    ran = snaptool(*words, "--kms-lost", NAME[api], "--undecryptable", "keep", makes=[target])
    assert ran.code == 0, ran.text
    assert_kept(target, good, refused)


def test_one_key_id_given_up_is_not_the_other(
    snaptool: Snaptool, plugin: RunningPlugin, secretbox: Path, tmp_path: Path
) -> None:
    values = values_of(Api.V2)
    source = database(tmp_path / "old.db", [one for some in values.values() for one in some])
    old = old_config(snaptool, plugin, Api.V2)
    plugin.fail({"kind": "error", "method": "Decrypt", "key_ids": REFUSED, "code": "NOT_FOUND", "text": "gone"})
    target = tmp_path / "new.db"
    words = ("rewrite", source, target, "--config", old, "--new-config", secretbox, "--undecryptable", "delete")
    one, other = (("--kms-lost", f"kp={hash_key_id(key_id)}") for key_id in REFUSED)
    ran = snaptool(*words, *one)
    assert ran.code == 5
    assert "gave no key for 3 of 15 values" in ran.stderr
    assert hash_key_id("kek-2") not in ran.stderr
    plugin.fail({"kind": "error", "method": "Decrypt", "key_ids": ["kek-4"], "code": "NOT_FOUND", "text": "gone"})
    assert snaptool(*words, *one, *other, makes=[target]).code == 0  # kek-2 works again: its word deletes nothing
    assert_kept(target, [one for key_id, some in values.items() if key_id != "kek-4" for one in some])


def test_a_word_about_what_is_not_there_is_wrong_usage(
    snaptool: Snaptool, plugin: RunningPlugin, secretbox: Path, tmp_path: Path
) -> None:
    source = database(tmp_path / "old.db", [one for some in values_of(Api.V2).values() for one in some])
    both = [kms_entry(api, NAME[api], plugin.endpoint) for api in Api]
    old = snaptool.write("old.yaml", configuration(*both))
    words = ("rewrite", source, tmp_path / "new.db", "--config", old, "--new-config", secretbox)
    for word, problem in [
        ("nobody", "no KMS provider of the name 'nobody'"),
        ("kp=sha256:" + "0" * 64, "no value of 'kp' is under this key id"),
        ("kp=sha256:abc", "64 hex digits"),
        ("old=sha256:" + "0" * 64, "do not say which key id"),
    ]:
        ran = snaptool(*words, "--kms-lost", word)
        assert ran.code == 2, (word, ran.text)
        assert problem in ran.stderr
    assert snaptool("inspect", source, "--kms-lost", "kp").code == 2


def test_key_id_is_not_given_up_by_a_service_that_is_not_there(
    snaptool: Snaptool, plugin: RunningPlugin, secretbox: Path, tmp_path: Path
) -> None:
    source = database(tmp_path / "old.db", sealed(Form.V2_SEED, 3, kek="kek-2"))
    old = old_config(snaptool, plugin, Api.V2)
    words = ("rewrite", source, tmp_path / "new.db", "--config", old, "--new-config", secretbox)
    gone = ("--undecryptable", "delete", "--kms-endpoint", "kp=unix:///nowhere/kms.sock")
    ran = snaptool(*words, *gone, "--kms-lost", f"kp={hash_key_id('kek-2')}")
    assert ran.code == 5
    assert "no socket at /nowhere/kms.sock" in ran.stderr


def test_saved_keys_open_what_they_can_and_the_rest_is_lost_by_the_word(
    snaptool: Snaptool, plugin: RunningPlugin, secretbox: Path, tmp_path: Path
) -> None:
    values = values_of(Api.V2)
    good, refused = split(values)
    source = database(tmp_path / "old.db", [one for some in values.values() for one in some])
    old = old_config(snaptool, plugin, Api.V2)
    keys, target = tmp_path / "keys.json", tmp_path / "new.db"
    plugin.fail({"kind": "error", "method": "Decrypt", "key_ids": REFUSED, "code": "NOT_FOUND", "text": "gone"})
    export = ("kms", "export-deks", source, keys, "--config", old, "--yes-write-keys", "-o", "json")
    ran = snaptool(*export)
    assert (ran.code, ran.json["error"]["code"]) == (5, "kms_refused")
    ran = snaptool(*export, "--kms-lost", "kp", makes=[keys], shows_secrets=True)
    assert (ran.code, ran.json["keys"], [one["values"] for one in ran.json["given_up"]]) == (0, 3, [3, 3])
    gone = ("--kms-endpoint", "kp=unix:///nowhere/kms.sock", "--dek-file", keys)
    words = ("rewrite", source, target, "--config", old, "--new-config", secretbox, "--undecryptable", "delete", *gone)
    ran = snaptool(*words)
    assert ran.code == 5
    assert "gave no key for 6 of 15 values" in ran.stderr
    assert snaptool(*words, "--kms-lost", "kp", makes=[target]).code == 0
    assert_kept(target, good)
    assert refused


def test_verify_names_the_same_way_out(snaptool: Snaptool, plugin: RunningPlugin, tmp_path: Path) -> None:
    values = values_of(Api.V2)
    source = database(tmp_path / "old.db", [one for some in values.values() for one in some])
    old = old_config(snaptool, plugin, Api.V2)
    plugin.fail({"kind": "error", "method": "Decrypt", "key_ids": REFUSED, "code": "FAILED_PRECONDITION"})
    ran = snaptool("verify", source, "--config", old, "-o", "json")
    assert ran.code == 5
    (found,) = (one for one in ran.json["findings"] if one["code"] == "kms_unwrap_failed")
    for key_id in REFUSED:
        assert f"--kms-lost kp={hash_key_id(key_id)}" in found["remedy"]
    assert "exactly these 6 values" in found["remedy"]
    ran = snaptool("verify", source, "--config", old, "--kms-lost", "kp", "-o", "json")
    assert ran.code == 3


def fault(mode: str, victims: list[Value], api: Api, **more: Any) -> dict[str, Any]:
    envelope = decode_envelope(api, NAME[api], victims[0][1][len(api.prefix) + len(NAME[api]) + 1 :])
    return MODES[mode] | {"method": "Decrypt", "ciphertexts": [envelope.source.source.hex()]} | more


@pytest.mark.parametrize("mode", [one if one in SAMPLE else pytest.param(one, marks=pytest.mark.soak) for one in MODES])
@pytest.mark.parametrize("form", [Form.V1_GCM, Form.V1_CBC, Form.V2_SEED])
def test_a_wrong_answer_loses_nothing_once_and_exactly_its_values_by_the_word(
    snaptool: Snaptool, plugin: RunningPlugin, secretbox: Path, tmp_path: Path, form: Form, mode: str
) -> None:
    api = API[form]
    size = 3 if api is Api.V2 else 1
    groups = [sealed(form, size, size * number) for number in range(4)]
    source = database(tmp_path / "old.db", [one for group in groups for one in group])
    old = old_config(snaptool, plugin, api)
    once, always = tmp_path / "once.db", tmp_path / "always.db"
    options = ("--config", old, "--new-config", secretbox, "--undecryptable", "delete", "--kms-timeout", "1")
    plugin.fail(fault(mode, groups[2], api, first=1))
    ran = snaptool("rewrite", source, once, *options, makes=[once])
    assert ran.code == 0, ran.text
    assert_kept(once, [one for group in groups for one in group])
    plugin.fail(fault(mode, groups[2], api))
    ran = snaptool("rewrite", source, always, *options)
    assert ran.code == 5, ran.text
    if mode == "dropped":
        return  # at every call, it is an outage of all that are asked for meanwhile
    assert f"gave no key for {size} of {4 * size} values" in ran.stderr
    ran = snaptool("rewrite", source, always, *options, *options_of(ran), makes=[always])
    assert ran.code == 0, ran.text
    assert_kept(always, [one for group in groups if group is not groups[2] for one in group])


@pytest.mark.parametrize("mode", ["zeros", "5 bytes", "no protobuf", "NOT_FOUND"])
def test_export_writes_proved_keys_or_nothing(
    snaptool: Snaptool, plugin: RunningPlugin, tmp_path: Path, mode: str
) -> None:
    groups = [sealed(Form.V1_GCM, 1, number) for number in range(4)]
    source = database(tmp_path / "old.db", [one for group in groups for one in group])
    keys = tmp_path / "keys.json"
    old = old_config(snaptool, plugin, Api.V1)
    words = ("kms", "export-deks", source, keys, "--config", old, "--yes-write-keys", "-o", "json")
    plugin.fail(fault(mode, groups[1], Api.V1))
    assert snaptool(*words).code == 5
    plugin.fail(fault(mode, groups[1], Api.V1, first=1))
    ran = snaptool(*words, makes=[keys], shows_secrets=True)
    assert (ran.code, ran.json["keys"]) == (0, 4)
    gone = ("--kms-endpoint", "old=unix:///nowhere/kms.sock")
    assert snaptool("verify", source, "--config", old, "--dek-file", keys, *gone, "-q").code == 0


def test_get_asks_again_before_it_says_that_a_value_does_not_open(
    snaptool: Snaptool, plugin: RunningPlugin, tmp_path: Path
) -> None:
    group = sealed(Form.V2_SEED, 2)
    source = database(tmp_path / "old.db", group)
    old = old_config(snaptool, plugin, Api.V2)
    for mode in ("zeros", "NOT_FOUND"):
        plugin.fail(fault(mode, group, Api.V2, first=1))
        ran = snaptool("get", source, "/registry/secrets/default/s00001", "--config", old, "-o", "value")
        assert (ran.code, ran.stdout.count("secret 1 of generation 0")) == (0, 1), ran.text


def test_rewrap_wraps_no_key_that_is_not_proved(snaptool: Snaptool, plugin: RunningPlugin, tmp_path: Path) -> None:
    groups = [sealed(Form.V2_SEED, 2, 2 * number) for number in range(3)]
    source = database(tmp_path / "old.db", [one for group in groups for one in group])
    old = old_config(snaptool, plugin, Api.V2)
    target = tmp_path / "new.db"
    words = ("rewrite", source, target, "--config", old, "--new-config", old, "--rewrap", "--undecryptable", "keep")
    plugin.fail(fault("zeros", groups[0], Api.V2))
    assert snaptool(*words).code == 5
    assert snaptool(*words, "--kms-lost", "kp", makes=[target]).code == 0
    stored = {key: value for (key, _), value in stored_values(target).items()}
    assert {key: stored[key] for key, _, _ in groups[0]} == {key: value for key, value, _ in groups[0]}


def test_a_damaged_value_does_not_cost_the_others_of_its_seed(
    snaptool: Snaptool, plugin: RunningPlugin, secretbox: Path, tmp_path: Path
) -> None:
    """The key is proved by the fifth value: the four before it were moved here from other keys."""
    values = sealed(Form.V2_SEED, 6)
    moved = [(b"/registry/secrets/moved/" + key[-6:], stored, plain) for key, stored, plain in values[:4]]
    source = database(tmp_path / "old.db", [*moved, *values[4:]])
    old = old_config(snaptool, plugin, Api.V2)
    target = tmp_path / "new.db"
    words = ("rewrite", source, target, "--config", old, "--new-config", secretbox, "--undecryptable", "delete")
    ran = snaptool(*words, makes=[target])
    assert ran.code == 0, ran.text
    assert_kept(target, values[4:])
