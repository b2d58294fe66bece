import json

import pytest
import yaml

from snaptool.errors import FormatError
from snaptool.kube import NotAnObject, decode_object
from snaptool.kube.decoding import MAX_DEPTH
from snaptool.wire import encode_field, encode_varint
from tests.unit.kube.builders import CREATED, config_map, envelope, map_entry, plain_meta, text, time_message
from tests.unit.kube.test_objects import CONFIG_YAML, CUSTOM, CUSTOM_CBOR, SECRET

UID = "11111111-2222-3333-4444-555555555555"


def test_a_secret_is_shown_as_kubectl_shows_it() -> None:
    assert decode_object(SECRET) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "creationTimestamp": "2023-11-14T22:13:20Z",
            "name": "s1",
            "namespace": "default",
            "uid": UID,
        },
        "data": {"k": "dg=="},
        "type": "Opaque",
    }
    assert list(decode_object(SECRET)) == ["apiVersion", "kind", "metadata", "data", "type"]


def test_every_field_of_metadata_has_its_name() -> None:
    owner = (
        text(1, "ReplicaSet")
        + text(3, "web-1")
        + text(4, UID)
        + text(5, "apps/v1")
        + encode_field(6, 1)
        + encode_field(7, 0)
    )
    fields_v1 = encode_field(1, b'{"f:data":{".":{},"f:k":{}}}')
    managed = (
        text(1, "kubectl")
        + text(2, "Update")
        + text(3, "v1")
        + encode_field(4, time_message(CREATED))
        + text(6, "FieldsV1")
        + encode_field(7, fields_v1)
        + text(8, "status")
    )
    meta = (
        text(1, "n")
        + text(2, "n-")
        + text(3, "ns")
        + text(4, "/self")
        + text(5, UID)
        + text(6, "77")
        + encode_field(7, 3)
        + encode_field(8, time_message(CREATED))
        + encode_field(9, time_message(CREATED + 1))
        + encode_field(10, 0)
        + encode_field(11, map_entry("app", b"web"))
        + encode_field(11, map_entry("empty", b""))
        + encode_field(12, map_entry("note", "grüße".encode()))
        + encode_field(13, owner)
        + text(14, "a/b")
        + text(14, "c/d")
        + encode_field(17, managed)
    )
    shown = decode_object(envelope("v1", "Pod", encode_field(1, meta)))
    assert shown["metadata"] == {
        "annotations": {"note": "grüße"},
        "creationTimestamp": "2023-11-14T22:13:20Z",
        "deletionGracePeriodSeconds": 0,
        "deletionTimestamp": "2023-11-14T22:13:21Z",
        "finalizers": ["a/b", "c/d"],
        "generateName": "n-",
        "generation": 3,
        "labels": {"app": "web", "empty": ""},
        "managedFields": [
            {
                "apiVersion": "v1",
                "fieldsType": "FieldsV1",
                "fieldsV1": {"f:data": {".": {}, "f:k": {}}},
                "manager": "kubectl",
                "operation": "Update",
                "subresource": "status",
                "time": "2023-11-14T22:13:20Z",
            }
        ],
        "name": "n",
        "namespace": "ns",
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "blockOwnerDeletion": False,
                "controller": True,
                "kind": "ReplicaSet",
                "name": "web-1",
                "uid": UID,
            }
        ],
        "resourceVersion": "77",
        "selfLink": "/self",
        "uid": UID,
    }
    assert list(shown["metadata"]) == sorted(shown["metadata"])


def test_a_config_map_is_shown_whole() -> None:
    stored = envelope(
        "v1",
        "ConfigMap",
        encode_field(1, text(1, "c"))
        + encode_field(2, map_entry("a.txt", b"line\nline\n"))
        + encode_field(3, map_entry("b.bin", b"\xff\x00"))
        + encode_field(4, 1),
    )
    assert decode_object(stored) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c"},
        "binaryData": {"b.bin": "/wA="},
        "data": {"a.txt": "line\nline\n"},
        "immutable": True,
    }


def test_a_service_account_is_shown_whole() -> None:
    reference = text(1, "") + text(2, "") + text(3, "builder-token-x7k2p") + text(4, "") + text(5, "")
    stored = envelope(
        "v1",
        "ServiceAccount",
        encode_field(1, text(1, "builder"))
        + encode_field(2, reference)
        + encode_field(3, text(1, "regcred"))
        + encode_field(4, 0),
    )
    assert decode_object(stored) == {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "builder"},
        "automountServiceAccountToken": False,
        "imagePullSecrets": [{"name": "regcred"}],
        "secrets": [{"name": "builder-token-x7k2p"}],
    }


def test_immutable_secrets_and_string_data() -> None:
    stored = envelope(
        "v1", "Secret", encode_field(1, text(1, "s")) + encode_field(4, map_entry("k", b"v")) + encode_field(5, 1)
    )
    shown = decode_object(stored)
    assert (shown["stringData"], shown["immutable"]) == ({"k": "v"}, True)


def test_fields_without_a_schema_are_shown_by_number_and_never_dropped() -> None:
    inner = text(1, "node-1") + encode_field(2, 7)
    raw = (
        encode_field(1, text(1, "p"))
        + encode_field(2, inner)
        + encode_field(2, b"plain text")
        + encode_field(3, b"\x00\xff\xfe")
        + encode_field(4, 5)
        + encode_varint(5 << 3 | 1)
        + (1).to_bytes(8, "little")
        + encode_varint(6 << 3 | 5)
        + (2).to_bytes(4, "little")
        + encode_field(7, b"")
        + encode_varint(8 << 3 | 3)
        + encode_field(1, 9)
        + encode_varint(8 << 3 | 4)
    )
    assert decode_object(envelope("v1", "Pod", raw))["unknownFields"] == {
        "2": [{"1": ["node-1"], "2": [7]}, "plain text"],
        "3": [{"base64": "AP/+"}],
        "4": [5],
        "5": [{"fixed64": 1}],
        "6": [{"fixed32": 2}],
        "7": [""],
        "8": [{"group": {"1": [9]}}],
    }


def test_unknown_fields_stand_at_the_level_where_they_are() -> None:
    raw = encode_field(1, text(1, "s") + encode_field(99, 1)) + encode_field(98, b"x")
    shown = decode_object(envelope("v1", "Secret", raw))
    assert shown["metadata"] == {"name": "s", "unknownFields": {"99": [1]}}
    assert shown["unknownFields"] == {"98": ["x"]}


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        pytest.param(encode_field(1, 5), {"1": [5]}, id="number-where-a-text-belongs"),
        pytest.param(encode_field(1, b"\xff"), {"1": [{"base64": "/w=="}]}, id="text-not-utf8"),
        pytest.param(encode_field(7, b"x"), {"7": ["x"]}, id="text-where-a-number-belongs"),
        pytest.param(encode_field(8, time_message(1 << 62)), {"8": [{"1": [1 << 62], "2": [0]}]}, id="time-too-far"),
        pytest.param(encode_field(11, text(3, "x")), {"11": [{"3": ["x"]}]}, id="map-entry-with-a-third-field"),
        pytest.param(
            encode_field(17, encode_field(7, encode_field(1, b"{broken"))),
            None,
            id="fieldsV1-not-json",
        ),
    ],
)
def test_a_field_that_does_not_fit_its_schema_is_shown_by_number(field: bytes, shown: dict[str, object] | None) -> None:
    metadata = decode_object(envelope("v1", "Secret", encode_field(1, field)))["metadata"]
    if shown is None:
        assert metadata == {"managedFields": [{"unknownFields": {"7": [{"1": ["{broken"]}]}}]}
    else:
        assert metadata == {"unknownFields": shown}


def test_a_kind_whose_first_field_is_no_metadata_is_shown_by_number() -> None:
    shown = decode_object(envelope("v1", "Odd", encode_field(1, 3)))
    assert shown == {"apiVersion": "v1", "kind": "Odd", "unknownFields": {"1": [3]}}


def test_the_zero_time_is_left_out() -> None:
    shown = decode_object(envelope("v1", "Secret", encode_field(1, text(1, "s") + encode_field(8, b""))))
    assert shown["metadata"] == {"name": "s"}


def test_times_before_1970_and_negative_numbers() -> None:
    meta = encode_field(7, -1) + encode_field(8, time_message(-1))
    shown = decode_object(envelope("v1", "Secret", encode_field(1, meta)))
    assert shown["metadata"] == {"creationTimestamp": "1969-12-31T23:59:59Z", "generation": -1}


def test_a_custom_resource_comes_whole_with_its_type_first() -> None:
    stored = (
        b'{"spec":{"n":1,"f":1.5,"l":[null,true]},"kind":"Panda","apiVersion":"b.example/v1","metadata":{"name":"x"}}'
    )
    shown = decode_object(stored)
    assert shown == json.loads(stored)
    assert list(shown) == ["apiVersion", "kind", "metadata", "spec"]
    assert decode_object(CUSTOM) == json.loads(CUSTOM)


def test_unpaired_surrogates_in_json_are_replaced_as_go_does() -> None:
    shown = decode_object(b'{"apiVersion":"v1","kind":"K","a":"\\ud800","b":"\\ud83d\\ude00"}')
    assert (shown["a"], shown["b"]) == ("\ufffd", "\U0001f600")


@pytest.mark.parametrize("plaintext", [CUSTOM_CBOR, CONFIG_YAML])
def test_cbor_and_yaml_come_as_header_and_bytes(plaintext: bytes) -> None:
    shown = decode_object(plaintext)
    assert list(shown) == ["apiVersion", "kind", "metadata", "undecoded"]
    assert set(shown["metadata"]) == {"name", "namespace"}
    assert set(shown["undecoded"]) == {"encoding", "base64"}


def test_a_compressed_or_foreign_content_is_not_guessed_at() -> None:
    type_meta = encode_field(1, text(1, "v1") + text(2, "Secret"))
    stored = b"k8s\x00" + type_meta + encode_field(2, b"{}") + text(3, "gzip") + text(4, "application/json")
    assert decode_object(stored) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "undecoded": {"contentType": "application/json", "contentEncoding": "gzip", "base64": "e30="},
    }


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"12345",
        b"{",
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}",
        b'{"a":' + b"1" * 5000 + b"}",
    ],
    ids=["empty", "decimal", "cut", "nan", "infinite", "hostile-depth", "too-deep", "long-number"],
)
def test_what_cannot_be_shown_is_refused(plaintext: bytes) -> None:
    with pytest.raises(NotAnObject):
        decode_object(plaintext)


def test_a_broken_object_message_is_refused() -> None:
    with pytest.raises(FormatError):
        decode_object(envelope("v1", "Secret", b"\x0a\xff"))


def test_hostile_nesting_is_shown_as_far_as_printers_can_follow() -> None:
    message = b""
    groups = b""
    for _ in range(2000):
        message = encode_field(2, message)
        groups = encode_varint(2 << 3 | 3) + groups + encode_varint(2 << 3 | 4)
    for raw in (message, groups):
        shown = decode_object(envelope("v1", "Pod", raw))
        assert "base64" in yaml.safe_dump(shown)
        assert json.loads(json.dumps(shown)) == shown


def test_what_is_shown_survives_a_yaml_printer() -> None:
    shown = decode_object(config_map("c", "ns", {"k": "v\n", "t": "2020-01-01", "n": "1"}))
    assert yaml.safe_load(yaml.safe_dump(shown, sort_keys=False)) == shown


def test_metadata_as_always_written_shows_nothing_empty() -> None:
    shown = decode_object(envelope("v1", "Pod", encode_field(1, plain_meta("p", "ns"))))
    assert set(shown["metadata"]) == {"creationTimestamp", "name", "namespace", "uid"}
