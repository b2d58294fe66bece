"""The KMS wire protocol without a wire: messages, endpoints, categories, pace."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from snaptool import wire
from snaptool.providers.kms_grpc import (
    SCHEMA,
    BadEndpoint,
    GrpcKms,
    GrpcMissing,
    Value,
    decode_message,
    encode_message,
    parse_endpoint,
)
from snaptool.providers.kms_pace import Pace, Retry
from snaptool.providers.kms_service import Category, reveals
from snaptool.providers.kms_words import classify
from snaptool.providers.provider import Api

REPOSITORY = Path(__file__).parents[3]
KMS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "golden" / "kms.json").read_text())


def members_of(vector: dict[str, Any]) -> dict[str, Value]:
    kinds = {member: kind for member, (_, kind) in SCHEMA[vector["message"]].items()}
    members: dict[str, Value] = {}
    for name, value in vector["fields"].items():
        if kinds[name] is dict:
            members[name] = {key: bytes.fromhex(one) for key, one in value.items()}
        else:
            members[name] = value if kinds[name] is str else bytes.fromhex(value)
    return members


@pytest.mark.parametrize("vector", KMS["wire"], ids=lambda vector: vector["name"])
def test_case_01_messages_encode_and_decode(vector: dict[str, Any]) -> None:
    members, encoded = members_of(vector), bytes.fromhex(vector["hex"])
    assert encode_message(vector["message"], members) == encoded
    decoded = decode_message(vector["message"], encoded)
    found: dict[str, Value] = {**decoded.texts, **decoded.blobs, **decoded.maps}
    empty: dict[type, Value] = {str: "", bytes: b"", dict: {}}
    assert found == {name: empty[kind] for name, (_, kind) in SCHEMA[vector["message"]].items()} | members


def test_schema_is_the_one_of_the_specification() -> None:
    kinds = {"string": str, "bytes": bytes, "map<string,bytes>": dict}
    expected = {
        f"{package}.{name}": {member: (number, kinds[kind]) for member, (number, kind) in members.items()}
        for package in ("v1beta1", "v2")
        for name, members in KMS["schema"][package]["messages"].items()
    }
    assert {name: dict(members) for name, members in SCHEMA.items()} == expected


def test_case_02_unknown_fields_are_ignored_and_the_last_scalar_wins() -> None:
    encoded = wire.encode_field(1, b"first") + wire.encode_field(9, 7) + wire.encode_field(1, b"last")
    encoded += wire.encode_field(2, b"first id") + wire.encode_field(2, 5) + wire.encode_field(77, b"?")
    encoded += wire.encode_field(2, b"last id")
    encoded += wire.encode_field(3, b"\x0a\x03a.b\x12\x01x") + wire.encode_field(3, b"\x12\x01y\x0a\x03a.b")
    message = decode_message("v2.EncryptResponse", encoded)
    assert (message.blobs["ciphertext"], message.texts["key_id"]) == (b"last", "last id")
    assert message.maps["annotations"] == {"a.b": b"y"}


def test_case_03_truncated_and_garbled_messages_are_refused() -> None:
    encoded = bytes.fromhex(KMS["wire"][9]["hex"])
    whole = {item.end for item in wire.fields(encoded)} | {0}
    for end in set(range(len(encoded))) - whole:
        with pytest.raises(wire.BadMessage):
            decode_message("v2.DecryptRequest", encoded[:end])
    with pytest.raises(wire.BadMessage, match="not UTF-8"):
        decode_message("v2.StatusResponse", wire.encode_field(3, b"\xff"))


@pytest.mark.parametrize("vector", KMS["endpoints"], ids=lambda vector: vector["endpoint"] or "empty")
def test_case_04_endpoints(vector: dict[str, Any]) -> None:
    if vector["snaptool"].startswith("reject"):
        reason = vector["snaptool"].removeprefix("reject: ")
        with pytest.raises(BadEndpoint, match=reason) as refusal:
            parse_endpoint(vector["endpoint"])
        assert refusal.value.hint or "percent" in reason
        return
    endpoint = parse_endpoint(vector["endpoint"])
    assert endpoint.target == vector["grpcio_target"]
    assert endpoint.abstract is ("abstract" in vector["snaptool"])
    assert endpoint.place == vector["addr"]
    assert bool(endpoint.warning) is ("warn" in vector["snaptool"])


def test_case_05_socket_path_of_108_bytes_is_refused_before_dialing() -> None:
    assert parse_endpoint("unix:///" + "p" * 106).address == "/" + "p" * 106
    with pytest.raises(BadEndpoint, match="108") as refusal:
        parse_endpoint("unix:///" + "p" * 107)
    assert "symlink" in refusal.value.hint


def test_path_characters_that_grpcio_would_interpret_are_escaped() -> None:
    assert parse_endpoint("unix:///a%2541%3Fb%23c").address == "/a%41?b#c"
    assert parse_endpoint("unix:///a%2541%3Fb%23c").target == "unix:/a%2541%3Fb%23c"
    assert parse_endpoint("unix:///%C3%A9%FF").target == "unix:/%C3%A9%FF"


OBSERVED = [
    ("UNAVAILABLE", "failed to connect: No such file or directory", Category.UNREACHABLE),
    ("UNAVAILABLE", "connect failed: Connection refused (111)", Category.UNREACHABLE),
    ("UNAVAILABLE", "connect failed: Permission denied (13)", Category.SOCKET_PERMISSION),
    ("UNAVAILABLE", "Failed parsing HTTP/2", Category.NOT_A_PLUGIN),
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", Category.TIMEOUT),
    ("UNIMPLEMENTED", "unknown service v2.KeyManagementService", Category.WRONG_API),
    ("UNIMPLEMENTED", "Method not found!", Category.WRONG_API),
    ("FAILED_PRECONDITION", "failed precondition - key disabled", Category.KEY_DISABLED),
    ("NOT_FOUND", "", Category.KEY_UNKNOWN),
    ("PERMISSION_DENIED", "", Category.ACCESS_DENIED),
    ("UNAUTHENTICATED", "", Category.ACCESS_DENIED),
    ("INVALID_ARGUMENT", "uid is required", Category.BAD_CIPHERTEXT),
    ("DATA_LOSS", "", Category.BAD_CIPHERTEXT),
    ("RESOURCE_EXHAUSTED", "", Category.THROTTLED),
    ("INTERNAL", "", Category.OTHER),
    ("UNKNOWN", "failed to decrypt DisabledException: x is disabled.", Category.KEY_DISABLED),
    ("UNKNOWN", "operation error KMS: Decrypt, KMSInvalidStateException: pending deletion", Category.KEY_DISABLED),
    ("UNKNOWN", "googleapi: Error 400: k is not enabled, current state is: DISABLED.", Category.KEY_DISABLED),
    ("UNKNOWN", 'StatusCode=403 InnerError={"code":"KeyDisabled"}', Category.KEY_DISABLED),
    ("UNKNOWN", "failed to decrypt NotFoundException: ", Category.KEY_UNKNOWN),
    ("UNKNOWN", "googleapi: Error 404: Not Found", Category.KEY_UNKNOWN),
    ("UNKNOWN", "key id ab does not match expected key id cd used for encryption", Category.KEY_UNKNOWN),
    ("UNKNOWN", "failed to decrypt AccessDeniedException: ", Category.ACCESS_DENIED),
    ("UNKNOWN", "googleapi: Error 403: Permission denied", Category.ACCESS_DENIED),
    ("UNKNOWN", "Failure responding to request: StatusCode=403", Category.ACCESS_DENIED),
    ("UNKNOWN", "ExpiredTokenException: ", Category.ACCESS_DENIED),
    ("UNKNOWN", "failed to decrypt InvalidCiphertextException: ", Category.BAD_CIPHERTEXT),
    ("UNKNOWN", "googleapi: Error 400: Decryption failed: the ciphertext is invalid.", Category.BAD_CIPHERTEXT),
    ("UNKNOWN", "StatusCode=400 BadParameter", Category.BAD_CIPHERTEXT),
    ("UNKNOWN", "ThrottlingException: Rate exceeded", Category.THROTTLED),
    ("UNKNOWN", "googleapi: Error 429: Quota exceeded", Category.THROTTLED),
    ("UNKNOWN", "context deadline exceeded", Category.TIMEOUT),
    ("UNKNOWN", "version v9 of something", Category.OTHER),
]


@pytest.mark.parametrize(("code", "text", "category"), OBSERVED)
def test_case_35_observed_texts_fall_into_their_category(code: str, text: str, category: Category) -> None:
    assert classify(code, text) is category


def test_back_off_doubles_to_its_limit_and_never_waits_less_than_half() -> None:
    retry = Retry()
    assert [retry.wait(attempt, 1.0) for attempt in range(1, 8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert retry.wait(3, 0.0) == pytest.approx(0.4)


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_pace_keeps_the_rate() -> None:
    clock = Clock()
    pace = Pace(10, clock=clock, sleep=clock.sleep)
    for _ in range(21):
        pace.wait()
    assert clock.now == pytest.approx(2.0)


def test_pace_slows_down_when_throttled_and_recovers() -> None:
    clock = Clock()
    pace = Pace(clock=clock, sleep=clock.sleep)
    for _ in range(100):
        pace.wait()
    assert clock.now == 0.0
    for _ in range(4):
        pace.throttled()
    pace.wait()
    pace.wait()
    assert clock.now == pytest.approx(0.4)
    for _ in range(200):
        pace.answered()
    before = clock.now
    pace.wait()
    pace.wait()
    assert clock.now - before <= 0.4


def test_reveals_finds_a_key_in_every_form_and_at_every_alignment() -> None:
    secret = bytes(range(7, 39))
    for lead in range(4):
        text = b"x" * lead + secret + b"tail"
        for form in (text, text.hex().encode(), base64.b64encode(text), base64.urlsafe_b64encode(text).rstrip(b"=")):
            assert reveals(b"answer: " + form, secret)
    assert reveals(secret.hex().upper().encode(), secret)
    assert not reveals(b"a text about nothing", secret)
    for form in (
        secret[::-1],
        base64.b64encode(secret[::-1]),
        secret.hex(":").encode(),
        secret[::-1].hex(" ").encode(),
    ):
        assert reveals(b"answer: " + form, secret)
    assert not reveals(base64.b64encode(bytes(one ^ 1 for one in secret)), secret)


def test_grpcio_is_not_imported_until_a_plugin_is_talked_to() -> None:
    script = (
        "import sys\n"
        "from snaptool.providers import kms_envelope, kms_keys, kms_service, kms_unwrapping, kms_grpc\n"
        "service = kms_grpc.GrpcKms('kp', kms_envelope.Api.V2, kms_grpc.parse_endpoint('unix:///nowhere/kms.sock'))\n"
        "try: service.status()\n"
        "except kms_service.KmsUnreachable: pass\n"
        "sys.exit('grpc' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=False).returncode == 0


def test_missing_grpcio_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0snaptool-test-no-grpcio")
        server.listen()
        service = GrpcKms("kp", Api.V2, parse_endpoint("unix:///@snaptool-test-no-grpcio"))
        with pytest.raises(GrpcMissing, match="'kp'") as refusal:
            service.status()
    assert "pip install grpcio" in refusal.value.hint


@pytest.mark.parametrize("module", ["snaptool.providers.kms_grpc", "snaptool.scratch.client"])
def test_grpc_is_told_to_take_no_part_in_forks_before_it_is_imported(module: str) -> None:
    # Its C core does unless told; a fork after a plugin was asked waited for ever, once in some thousands of tests.
    script = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'grpc': print(os.environ.get('GRPC_ENABLE_FORK_SUPPORT'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"import {module}, grpc"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "false\n"
