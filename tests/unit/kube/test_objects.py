import json
import random
from pathlib import Path

import pytest

from snaptool.errors import FormatError
from snaptool.kube.objects import Encoding, NotAnObject, ObjectHeader, decode_envelope, describe, plausible
from snaptool.wire import encode_field
from tests.unit.kube.builders import config_map, envelope, plain_meta, text

GOLDEN = Path(__file__).parents[2] / "golden" / "encryption-at-rest.json"
VECTORS = {vector["name"]: vector for vector in json.loads(GOLDEN.read_text())["vectors"]}
SECRET = bytes.fromhex(VECTORS["identity-protobuf"]["plaintext_hex"])

CUSTOM = (
    b'{"apiVersion":"awesome.bears.example/v1","kind":"Panda","metadata":{"name":"bao","namespace":"zoo"},'
    b'"spec":{"bamboo":3}}\n'
)
CUSTOM_CBOR = (
    b"\xd9\xd9\xf7\xa4"
    b"\x44kind\x45Panda"
    b"\x44spec\xa2\x45parts\x83\x01\x20\xf5\x45ratio\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00"
    b"\x48metadata\xa3\x44name\x43bao\x46labels\xa1\x41a\x41b\x49namespace\x43zoo"
    b"\x4aapiVersion\x58\x18awesome.bears.example/v1"
)
CONFIG_YAML = (
    b"apiVersion: v1\ndata:\n  name: not-this\nkind: ConfigMap\nmetadata:\n  labels:\n    name: nor-this\n"
    b'  name: "settings"\n  namespace: shop\n  annotations:\n    name: nor-that\n'
)


@pytest.mark.parametrize(
    ("plaintext", "header"),
    [
        (SECRET, ("v1", "Secret", "default", "s1", Encoding.PROTOBUF)),
        (config_map("c", "shop", {"k": "v"}), ("v1", "ConfigMap", "shop", "c", Encoding.PROTOBUF)),
        (
            envelope("rbac.authorization.k8s.io/v1", "ClusterRole", encode_field(1, plain_meta("system:node"))),
            ("rbac.authorization.k8s.io/v1", "ClusterRole", "", "system:node", Encoding.PROTOBUF),
        ),
        (CUSTOM, ("awesome.bears.example/v1", "Panda", "zoo", "bao", Encoding.JSON)),
        (CUSTOM_CBOR, ("awesome.bears.example/v1", "Panda", "zoo", "bao", Encoding.CBOR)),
        (CONFIG_YAML, ("v1", "ConfigMap", "shop", "settings", Encoding.YAML)),
        (b"---\n# by hand\n" + CONFIG_YAML, ("v1", "ConfigMap", "shop", "settings", Encoding.YAML)),
    ],
)
def test_an_object_says_who_it_is(plaintext: bytes, header: tuple[str, str, str, str, Encoding]) -> None:
    api_version, kind, namespace, name, encoding = header
    assert plausible(plaintext)
    assert describe(plaintext) == ObjectHeader(
        api_version=api_version, kind=kind, namespace=namespace, name=name, encoding=encoding
    )


def test_an_envelope_that_is_not_in_the_usual_byte_form_is_still_an_object() -> None:
    type_meta = encode_field(1, text(2, "Secret") + text(1, "v1"))
    shuffled = b"k8s\x00" + encode_field(2, encode_field(1, plain_meta("s"))) + type_meta
    assert plausible(shuffled)
    assert describe(shuffled).name == "s"


@pytest.mark.parametrize(
    "plaintext",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"k8s\x00", id="magic-alone"),
        pytest.param(b"k8s:enc:aescbc:v1:key1:", id="still-encrypted"),
        pytest.param(b"12345", id="decimal"),
        pytest.param(b"{}", id="json-without-type"),
        pytest.param(b'{"kind":"Panda"}', id="json-without-version"),
        pytest.param(CUSTOM.replace(b"bao", b"b\xffo"), id="json-not-utf8"),
        pytest.param(CUSTOM[:-3], id="json-cut"),
        pytest.param(b"\xd9\xd9\xf7\xa0", id="cbor-empty-map"),
        pytest.param(CUSTOM_CBOR[:-1], id="cbor-cut"),
        pytest.param(b"\xd9\xd9\xf7\xbf\x44kind\x41a\x4aapiVersion\x42v1\xff", id="cbor-indefinite"),
        pytest.param(b"\xd9\xd9\xf7\xa3\x44kind\x41a\x4aapiVersion\x42v1\x44spec\x81\x45a", id="cbor-cut-in-an-array"),
        pytest.param(b"\xd9\xd9\xf7\xbb" + b"\xff" * 8, id="cbor-hostile-count"),
        pytest.param(CONFIG_YAML.replace(b"kind:", b"kinds:"), id="yaml-without-kind"),
        pytest.param(CONFIG_YAML + b"\x00", id="yaml-with-control-byte"),
        pytest.param(CONFIG_YAML + b"\xff", id="yaml-not-utf8"),
        pytest.param(envelope("v1", "", b""), id="no-kind"),
        pytest.param(envelope("v1", "Sec\x00ret", b""), id="control-byte-in-kind"),
        pytest.param(SECRET + b"\x2a\x00", id="fifth-envelope-field"),
        pytest.param(b"k8s\x00" + encode_field(1, text(1, "v1") + text(2, "Secret")), id="no-object"),
        pytest.param(b"k8s\x00" + encode_field(2, b""), id="no-type"),
        pytest.param(b"k8s\x00" + encode_field(1, 7) + encode_field(2, b""), id="type-is-a-number"),
    ],
)
def test_what_is_no_object_is_not_plausible(plaintext: bytes) -> None:
    assert not plausible(plaintext)
    with pytest.raises(FormatError):
        describe(plaintext)


def test_every_truncation_of_an_envelope_inside_its_object_is_noticed() -> None:
    # Behind the object stand only two empty texts; without them the envelope is whole, in the format's eyes.
    whole = len(SECRET) - 4
    for length in range(len(SECRET)):
        assert plausible(SECRET[:length]) is (length in {whole, whole + 2}), length


def test_a_block_lost_from_the_middle_of_an_envelope_is_noticed() -> None:
    assert len(SECRET) > 80
    for start in range(16, 80, 16):
        assert not plausible(SECRET[:start] + SECRET[start + 16 :])


def test_every_truncation_of_json_and_cbor_is_noticed() -> None:
    assert not any(plausible(CUSTOM[:length]) for length in range(len(CUSTOM) - 1))
    assert not any(plausible(CUSTOM_CBOR[:length]) for length in range(len(CUSTOM_CBOR)))


def test_the_garbage_of_a_wrong_aescbc_key_is_not_plausible() -> None:
    garbage = bytes.fromhex(VECTORS["aescbc-wrong-key-garbage-accepted"]["plaintext_hex"])
    assert garbage
    assert not plausible(garbage)


def test_the_garbage_of_a_moved_kmsv1_value_is_not_plausible() -> None:
    garbage = bytes.fromhex(VECTORS["kmsv1-gcm-moved-false-accept"]["plaintext_hex"])
    assert garbage
    assert not plausible(garbage)


def test_random_bytes_are_not_plausible_even_when_they_begin_well() -> None:
    # A wrong key gives random bytes: 100,000 of them, and as many behind each beginning that an object may have. One
    # acceptance in these 400,000 would put the rate for random bytes as a whole at 2^-24 / 100,000 or so.
    draw = random.Random(1)
    for beginning in (b"", b"{", b"k8s\x00", b"\xd9\xd9\xf7"):
        accepted = sum(plausible(beginning + draw.randbytes(48)) for _ in range(100_000))
        assert accepted == 0, beginning


def test_a_damaged_block_at_the_start_is_noticed() -> None:
    # What a flipped bit in one AES-CBC block does: sixteen random bytes.
    draw = random.Random(2)
    for _ in range(1000):
        assert not plausible(draw.randbytes(16) + SECRET[16:])
        assert not plausible(draw.randbytes(16) + CUSTOM[16:])


def test_an_error_never_shows_what_the_plaintext_holds() -> None:
    for plaintext in (b"canary-plaintext", b'{"canary-plaintext', b'{"apiVersion":"canary-plaintext\xff"}'):
        with pytest.raises(NotAnObject) as refused:
            describe(plaintext)
        assert "canary" not in str(refused.value)


def test_the_envelope_keeps_the_object_message_as_it_is() -> None:
    raw = encode_field(1, plain_meta("c")) + encode_field(99, b"\x00\xff")
    opened = decode_envelope(envelope("v1", "ConfigMap", raw))
    assert (opened.raw, opened.content_type, opened.content_encoding) == (raw, "", "")
