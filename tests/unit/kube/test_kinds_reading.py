"""Stored objects of every kind become what the API server shows: cases by number, docs/formats/kinds.md."""

from __future__ import annotations

import gzip
import random
from typing import Any

import pytest

from snaptool.errors import SnaptoolError
from snaptool.kube.kinds.crds import crd_to_v1, pruned, pruning_schema
from snaptool.kube.kinds.printing import yaml_text
from snaptool.kube.kinds.reader import MAX_DEPTH, decode_object
from snaptool.kube.kinds.served import as_served, without_managed_fields
from snaptool.kube.kinds.special import duration_text, go_text, micro_time_text, time_text
from snaptool.kube.kinds.table import fields_of, list_keys, table_for
from snaptool.kube.objects import NotAnObject
from snaptool.wire import BadMessage, encode_field, encode_varint
from tests.support.kinds import BY_RELEASE, VECTORS, known_kinds, release, stored, vectors
from tests.unit.kube.builders import CREATED, envelope, map_entry, plain_meta, text
from tests.unit.kube.test_objects import CONFIG_YAML, CUSTOM

META = encode_field(1, plain_meta("n", "ns"))


def decode(kind: str, raw: bytes, api_version: str = "v1", minor: int | None = None) -> dict[str, Any]:
    return decode_object(envelope(api_version, kind, META + raw), minor).shown()


def unknown(kind: str, raw: bytes, api_version: str = "v1") -> list[tuple[str, Any, bool]]:
    found = decode_object(envelope(api_version, kind, META + raw)).unknown
    return [(one.place, one.value, one.refused) for one in found]


# -- the table -------------------------------------------------------------------------------------------------------


def test_the_table_is_the_one_that_reflection_over_22_releases_gave() -> None:
    theirs = gzip.decompress((VECTORS / "fields.txt.gz").read_bytes()).decode().splitlines()
    ours = (VECTORS.parents[2] / "snaptool" / "kube" / "kinds" / "table.txt").read_text().splitlines()
    assert {tuple(line.split()) for line in ours if line[0] not in "#+"} == {tuple(line.split()) for line in theirs}
    assert len(known_kinds()) == 220


def test_lists_that_are_maps_or_sets_have_their_keys() -> None:
    assert list_keys("core/v1.Container") == {
        6: ("containerPort", "protocol"),
        7: ("name",),
        9: ("mountPath",),
        21: ("devicePath",),
    }
    assert list_keys("meta/v1.ObjectMeta")[14] == ()
    assert list_keys("core/v1.Secret") == {}


def test_every_kind_of_every_release_compiles() -> None:
    for minor in (None, 16, 25, 37):
        for api_version, kind in known_kinds():
            message = table_for(minor).kind(api_version, kind)
            assert message is not None


# -- decoding: cases 1 to 20 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_RELEASE)
def test_case_01_kinds_all(name: str) -> None:
    for vector in vectors(name):
        decoded = decode_object(stored(vector), release(vector))
        assert decoded.tree == vector["json"]
        assert decoded.known
        assert not decoded.unknown


def test_case_02_kinds_default_release() -> None:
    for vector in vectors("v0.37"):
        assert decode_object(stored(vector)).tree == vector["json"]


def test_case_03_null_creation() -> None:
    (zero,) = (
        vector
        for vector in vectors("v0.27")
        if (vector["apiVersion"], vector["kind"], vector["fill"]) == ("apps/v1", "Deployment", "zero")
    )
    template = decode_object(stored(zero), 27).tree["spec"]["template"]
    assert template["metadata"] == {"creationTimestamp": None}
    assert decode_object(stored(zero)).tree["spec"]["template"]["metadata"] == {}


def test_case_04_time_epoch() -> None:
    state = encode_field(2, encode_field(2, encode_field(1, b"")))
    container = encode_field(3, encode_field(8, text(1, "c") + state))
    assert decode("Pod", container)["status"]["containerStatuses"][0]["state"] == {"running": {"startedAt": None}}
    epoch = encode_field(3, encode_field(7, bytes.fromhex("08001000")))
    assert decode("Pod", epoch)["status"]["startTime"] == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (CREATED, "2023-11-14T22:13:20Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
        (253_402_300_800, "10000-01-01T00:00:00Z"),
        (-62_135_596_801, "0000-12-31T23:59:59Z"),
        (-62_167_219_201, "-0001-12-31T23:59:59Z"),
        (-62_135_596_800, None),  # Go's zero time
        ((1 << 63) - 1, "292277026596-12-04T15:30:07Z"),
        (-(1 << 63), "292277026596-12-04T15:30:08Z"),
    ],
)
def test_case_04_times_of_any_year(seconds: int, shown: str | None) -> None:
    assert time_text(seconds) == shown


def test_case_05_microtime_null() -> None:
    empty = encode_field(10, b"")
    assert decode("Event", empty)["eventTime"] is None
    set_to = encode_field(10, encode_field(1, CREATED) + encode_field(2, 123_359_999))
    assert decode("Event", set_to)["eventTime"] == "2023-11-14T22:13:20.123359Z"
    assert micro_time_text(-1, -1_500) == "1969-12-31T23:59:58.999999Z"


@pytest.mark.parametrize(
    ("nanos", "shown"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1500, "1.5µs"),
        (2_500_000, "2.5ms"),
        (1_500_000_000, "1.5s"),
        (60_000_000_000, "1m0s"),
        (90_000_000_000, "1m30s"),
        (5_400_000_000_000, "1h30m0s"),
        (-1_500_000_000, "-1.5s"),
        ((1 << 63) - 1, "2562047h47m16.854775807s"),
        (-(1 << 63), "-2562047h47m16.854775808s"),
    ],
)
def test_case_06_duration_texts(nanos: int, shown: str) -> None:
    assert duration_text(nanos) == shown


@pytest.mark.parametrize("quantity", ["1Gi", "500m", "1e3", "1E3", "1500m", "-1", "0", "107374182400m"])
def test_case_07_quantity_as_stored(quantity: str) -> None:
    hard = encode_field(2, encode_field(1, map_entry("cpu", text(1, quantity))))
    assert decode("ResourceQuota", hard)["spec"]["hard"] == {"cpu": quantity}


def test_case_07_quantity_zero() -> None:
    hard = encode_field(2, encode_field(1, map_entry("cpu", b"")) + encode_field(1, text(1, "memory")))
    assert decode("ResourceQuota", hard)["spec"]["hard"] == {"cpu": "0", "memory": "0"}
    reference = encode_field(3, encode_field(2, text(2, "limits.cpu") + encode_field(3, b"")))
    pod = decode("Pod", encode_field(2, encode_field(2, encode_field(7, text(1, "C") + reference))))
    (variable,) = pod["spec"]["containers"][0]["env"]
    assert variable["valueFrom"]["resourceFieldRef"] == {"resource": "limits.cpu", "divisor": "0"}


def test_case_07_what_is_no_quantity_is_kept_and_refused() -> None:
    hard = encode_field(2, encode_field(1, map_entry("cpu", text(1, "much"))))
    assert [(place, refused) for place, _, refused in unknown("ResourceQuota", hard)] == [("spec.#1", True)]


def test_case_08_int_or_string() -> None:
    def port(value: bytes) -> Any:
        return decode("Service", encode_field(2, encode_field(1, encode_field(4, value))))["spec"]["ports"][0]

    assert port(b"")["targetPort"] == 0
    assert port(encode_field(1, 0) + encode_field(2, 8080) + text(3, ""))["targetPort"] == 8080
    assert port(encode_field(1, 1) + encode_field(2, 0) + text(3, "http"))["targetPort"] == "http"
    assert port(encode_field(1, 1))["targetPort"] == ""
    odd = port(encode_field(1, 2))
    assert "targetPort" not in odd
    assert list(odd["unknownFields"]) == ["4"]


def test_case_09_raw_null() -> None:
    def data(raw: bytes) -> dict[str, Any]:
        return decode("ControllerRevision", encode_field(2, raw) + encode_field(3, 1), "apps/v1")

    assert data(b"")["data"] is None
    assert data(encode_field(1, b""))["data"] is None
    assert data(encode_field(1, b"null"))["data"] is None
    assert data(encode_field(1, b'{"a":[1,2.5,12345678901234567890]}'))["data"] == {
        "a": [1, 2.5, 12345678901234567000.0]
    }
    odd = data(encode_field(1, b"{"))
    assert "data" not in odd
    assert list(odd["unknownFields"]) == ["2"]


def test_case_10_struct_always() -> None:
    pod = decode("Pod", encode_field(2, encode_field(2, encode_field(8, b""))) + encode_field(3, b""))
    assert pod["status"] == {}
    assert pod["spec"]["containers"] == [{"resources": {}}]
    assert "securityContext" not in pod["spec"]


def test_case_11_list_null() -> None:
    assert decode("ClusterRole", b"", "rbac.authorization.k8s.io/v1")["rules"] is None
    assert decode("Pod", encode_field(2, b""))["spec"]["containers"] is None


def test_case_12_bytes_empty() -> None:
    data = encode_field(2, text(1, "a")) + encode_field(2, text(1, "b") + encode_field(2, b"\xff"))
    assert decode("Secret", data)["data"] == {"a": "", "b": "/w=="}


def test_case_13_wrapper_empty() -> None:
    empty, two = text(1, "a") + encode_field(2, b""), map_entry("b", text(1, "x") + text(1, "y"))
    spec = encode_field(2, encode_field(6, empty) + encode_field(6, two) + encode_field(6, text(1, "c")))
    csr = decode("CertificateSigningRequest", spec, "certificates.k8s.io/v1")
    assert csr["spec"]["extra"] == {"a": [], "b": ["x", "y"], "c": []}


def test_case_14_inline() -> None:
    probe = encode_field(10, encode_field(1, encode_field(1, text(1, "true"))) + encode_field(2, 5))
    reference = encode_field(4, encode_field(1, text(1, "smtp")) + text(2, "password"))
    variable = encode_field(7, text(1, "P") + encode_field(3, reference))
    volume = encode_field(1, text(1, "v") + encode_field(2, encode_field(6, text(1, "smtp"))))
    pod = decode("Pod", encode_field(2, volume + encode_field(2, text(1, "c") + probe + variable)))
    (container,) = pod["spec"]["containers"]
    assert container["livenessProbe"] == {"exec": {"command": ["true"]}, "initialDelaySeconds": 5}
    assert container["env"] == [
        {"name": "P", "valueFrom": {"secretKeyRef": {"name": "smtp", "key": "password"}}},
    ]
    assert pod["spec"]["volumes"] == [{"name": "v", "secret": {"secretName": "smtp"}}]


def test_case_15_rep_tag() -> None:
    binding = encode_field(2, text(1, "policy") + encode_field(2, text(1, "settings")))
    shown = decode("ValidatingAdmissionPolicyBinding", binding, "admissionregistration.k8s.io/v1")
    assert shown["spec"]["paramRef"]["name"] == "settings"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("e282", "\ufffd\ufffd"),
        ("eda080", "\ufffd\ufffd\ufffd"),
        ("61ff62", "a\ufffdb"),
        ("f0908d", "\ufffd\ufffd\ufffd"),
        ("e28241", "\ufffd\ufffdA"),
        ("c3a4", "ä"),
    ],
)
def test_case_16_bad_utf8(raw: str, shown: str) -> None:
    assert go_text(bytes.fromhex(raw)) == shown
    data = encode_field(2, map_entry("k", bytes.fromhex(raw)))
    assert decode("ConfigMap", data)["data"] == {"k": shown}


@pytest.mark.parametrize("value", [9_007_199_254_740_993, (1 << 63) - 1, -(1 << 63), -1])
def test_case_17_int64(value: int) -> None:
    active = encode_field(2, encode_field(3, value))
    assert decode("Job", active, "batch/v1")["spec"]["activeDeadlineSeconds"] == value


def test_repeated_numbers_are_read_packed_or_not() -> None:
    groups = encode_field(4, 10) + encode_field(4, encode_varint(20) + encode_varint(30)) + encode_field(4, 40)
    context = encode_field(2, encode_field(14, groups))
    assert decode("Pod", context)["spec"]["securityContext"]["supplementalGroups"] == [10, 20, 30, 40]


def test_case_18_unknown_number() -> None:
    found = unknown("ConfigMap", encode_field(99, 7) + encode_field(98, text(1, "a")) + encode_field(97, b"text"))
    assert found == [("#99", 7, False), ("#98", {"1": ["a"]}, False), ("#97", "text", False)]
    assert decode("ConfigMap", encode_field(99, 7))["unknownFields"] == {"99": [7]}


def test_case_18_an_unknown_field_has_its_place() -> None:
    container = encode_field(2, text(1, "c") + encode_field(500, 1))
    assert unknown("Pod", encode_field(2, container)) == [("spec.containers[0].#500", 1, False)]
    (shown,) = decode("Pod", encode_field(2, container))["spec"]["containers"]
    assert shown == {"name": "c", "unknownFields": {"500": [1]}}


def test_case_18_a_wrong_wire_type_is_kept_and_refused() -> None:
    assert unknown("ConfigMap", encode_field(2, 5)) == [("#2", 5, True)]
    assert unknown("Secret", encode_varint(3 << 3 | 5) + b"\1\0\0\0") == [("#3", {"fixed32": 1}, True)]


def test_case_18_unknown_kind() -> None:
    decoded = decode_object(envelope("route.openshift.io/v1", "Route", META + encode_field(2, text(1, "host"))))
    assert not decoded.known
    assert decoded.tree["metadata"]["name"] == "n"
    assert decoded.shown()["unknownFields"] == {"2": [{"1": ["host"]}]}


def test_a_field_called_unknown_fields_of_a_custom_resource_is_its_own() -> None:
    stored_json = b'{"apiVersion":"a/v1","kind":"K","metadata":{},"unknownFields":{"7":1}}'
    decoded = decode_object(stored_json)
    assert not decoded.unknown
    assert decoded.tree["unknownFields"] == {"7": 1}


@pytest.mark.parametrize("depth", [3, 90, 10_000])
def test_case_19_recursive_template(depth: int) -> None:
    package, recursive = "scheduling/v1alpha3", "scheduling/v1alpha3.CompositePodGroupTemplate"
    (itself,) = (one.number for one in fields_of(recursive) if one.type == recursive)
    (first,) = (one.number for one in fields_of(f"{package}.WorkloadSpec") if one.type == recursive)
    inside = b""
    for _ in range(depth):
        inside = encode_field(itself, inside)
    spec = encode_field(2, encode_field(first, inside))
    decoded = decode_object(envelope("scheduling.k8s.io/v1alpha3", "Workload", META + spec))
    assert bool(decoded.unknown) == (depth > 90)
    assert not any(one.refused for one in decoded.unknown)
    yaml_text(decoded.shown())


def test_case_20_fuzz_of_real_objects() -> None:
    randomness = random.Random(20)
    originals = [stored(vector) for vector in vectors("real-1.37.2")]
    for _ in range(3000):
        damaged = bytearray(randomness.choice(originals))
        for _ in range(randomness.randint(1, 4)):
            damaged[randomness.randrange(len(damaged))] = randomness.randrange(256)
        try:
            shown = as_served(decode_object(bytes(damaged[: randomness.randint(4, len(damaged))])).shown(), 1)
        except SnaptoolError:
            continue
        yaml_text(shown)


def test_a_message_that_breaks_off_is_an_error() -> None:
    whole = envelope("v1", "ConfigMap", META + encode_field(2, map_entry("k", b"value")))
    for raw in (META + b"\x12\x7f", META + b"\x12", META + b"\x0c", META + encode_field(2, b"\x0a\x7f")):
        with pytest.raises(BadMessage):
            decode_object(envelope("v1", "ConfigMap", raw))
    with pytest.raises(SnaptoolError):
        decode_object(whole[:-20])


def test_of_a_field_given_twice_the_last_counts_and_messages_merge() -> None:
    again = encode_field(1, text(1, "other")) + encode_field(1, encode_field(11, map_entry("a", b"b")))
    assert decode("ConfigMap", again)["metadata"] == {
        "name": "other",
        "namespace": "ns",
        "uid": "11111111-2222-3333-4444-555555555555",
        "creationTimestamp": "2023-11-14T22:13:20Z",
        "labels": {"a": "b"},
    }
    assert "type" not in decode("Secret", text(3, "Opaque") + text(3, ""))


def test_an_envelope_of_another_making_is_read_too() -> None:
    meta = text(1, "v1") + text(2, "ConfigMap")
    bare = b"k8s\x00" + encode_field(1, meta) + encode_field(2, META)
    assert decode_object(bare).tree["metadata"]["name"] == "n"
    encoded = bare + text(3, "") + text(4, "application/json")
    assert decode_object(encoded).shown()["undecoded"]["contentType"] == "application/json"


# -- JSON, CBOR, YAML ------------------------------------------------------------------------------------------------


def test_json_is_read_as_go_reads_it() -> None:
    text_bytes = (
        b'{"apiVersion":"a/v1","kind":"K","big":12345678901234567890,"n":9223372036854775807,'
        b'"lone":"\\ud800x","bad":"\xff"}'
    )
    tree = decode_object(text_bytes).tree
    assert isinstance(tree["big"], float)
    assert tree["n"] == 9_223_372_036_854_775_807
    assert tree["lone"] == "\ufffdx"
    assert tree["bad"] == "\ufffd"


@pytest.mark.parametrize(
    "broken",
    [
        b'{"apiVersion":"v1"}',
        b'{"apiVersion":"v1","kind":7}',
        b'{"apiVersion":"v1","kind":"K","a":NaN}',
        b'{"apiVersion":"v1","kind":"K","a":1e999}',
        b'{"apiVersion":"v1","kind":"K","a":' + b"1" * 5000 + b"}",
        b'{"apiVersion":"v1","kind":"K","a":' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}",
        b'{"apiVersion":"v1","kind":"K","a":' + b"[" * 100_000,
        b"{",
        b"",
        b"\xd9\xd9\xf7\x80",
    ],
)
def test_what_is_no_object_is_our_error(broken: bytes) -> None:
    with pytest.raises(NotAnObject):
        decode_object(broken)


def test_yaml_keeps_its_header() -> None:
    decoded = decode_object(CONFIG_YAML)
    assert decoded.tree["kind"]
    assert decoded.undecoded is not None
    assert decoded.undecoded["encoding"] == "yaml"


def test_case_25_cbor() -> None:
    for vector in vectors("cbor"):
        assert decode_object(stored(vector)).tree == vector["json"]


def cbor_object(value: bytes) -> bytes:
    """A CBOR object with `value` under `x`."""
    return b"\xd9\xd9\xf7\xa3JapiVersionBv1DkindAKAx" + value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"\xd6\x42\xff\xfe", "//4="),
        (b"\xd5\x42\xff\xfe", "__4"),
        (b"\xd7\x42\xff\xfe", "fffe"),
        (b"\xc0\x41a", "a"),
        (b"\x1b\x7f\xff\xff\xff\xff\xff\xff\xff", (1 << 63) - 1),
        (b"\x20", -1),
        (b"\xf9\x3e\x00", 1.5),
        (b"\xfa\x3f\xc0\x00\x00", 1.5),
        (b"\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00", 1.5),
        (b"\xf4", False),
        (b"\xf5", True),
        (b"\xf6", None),
        (b"\x82\x01\x61a", [1, "a"]),
    ],
)
def test_case_25_cbor_values(value: bytes, shown: Any) -> None:
    assert decode_object(cbor_object(value)).tree["x"] == shown


@pytest.mark.parametrize("cut", range(4, len(cbor_object(b"\x82\x01\x61a"))))
def test_case_25_truncated_cbor_is_an_error(cut: int) -> None:
    with pytest.raises(NotAnObject):
        decode_object(cbor_object(b"\x82\x01\x61a")[:cut])


@pytest.mark.parametrize("value", [b"\x5f", b"\xf9\x7c\x00", b"\xf7", b"\x9b" + b"\xff" * 8, b"\x81" * 5000 + b"\x01"])
def test_case_25_odd_cbor_is_an_error(value: bytes) -> None:
    with pytest.raises(NotAnObject):
        decode_object(cbor_object(value))


# -- what the server adds: cases 21 to 27 ----------------------------------------------------------------------------


def test_case_21_resource_version() -> None:
    assert as_served(decode_object(CUSTOM).tree, 77)["metadata"]["resourceVersion"] == "77"
    assert as_served(decode_object(cbor_object(b"\x01")).tree, 7)["metadata"] == {"resourceVersion": "7"}
    assert "resourceVersion" not in as_served(decode_object(CUSTOM).tree)["metadata"]


def test_case_22_vct_typemeta() -> None:
    spec = encode_field(2, encode_field(4, encode_field(1, text(1, "data"))))
    (claim,) = as_served(decode("StatefulSet", spec, "apps/v1"))["spec"]["volumeClaimTemplates"]
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")


def test_case_23_pvc_phase() -> None:
    assert as_served(decode("PersistentVolumeClaim", encode_field(3, b"")))["status"] == {"phase": "Pending"}
    bound = encode_field(3, text(1, "Bound"))
    assert as_served(decode("PersistentVolumeClaim", bound))["status"] == {"phase": "Bound"}


def test_case_23_job_labels() -> None:
    template = encode_field(2, encode_field(6, encode_field(1, encode_field(11, map_entry("a", b"b")))))
    assert as_served(decode("Job", template, "batch/v1"))["metadata"]["labels"] == {"a": "b"}
    own = encode_field(1, encode_field(11, map_entry("own", b"c")))
    assert as_served(decode("Job", own + template, "batch/v1"))["metadata"]["labels"] == {"own": "c"}


def test_case_24_crd_v1() -> None:
    for vector in vectors("crd"):
        assert as_served(decode_object(stored(vector)).tree) == vector["json"]


def crd(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apiextensions.k8s.io/v1beta1", "kind": "CustomResourceDefinition", "spec": spec}


def test_case_24_crd_of_one_version() -> None:
    schema = {"openAPIV3Schema": {"type": "object"}}
    columns = [{"name": "A", "JSONPath": ".spec.a"}]
    shown = crd_to_v1(crd(version="v1", validation=schema, additionalPrinterColumns=columns))
    assert shown["apiVersion"] == "apiextensions.k8s.io/v1"
    assert shown["spec"] == {
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": schema,
                "additionalPrinterColumns": [{"name": "A", "jsonPath": ".spec.a"}],
            }
        ],
        "conversion": {"strategy": "None"},
        "preserveUnknownFields": True,
    }


def test_case_24_crd_with_a_webhook() -> None:
    conversion = {"strategy": "Webhook", "webhookClientConfig": {"url": "u"}, "conversionReviewVersions": ["v1"]}
    shown = crd_to_v1(crd(version="v1", conversion=conversion, preserveUnknownFields=False))
    assert shown["spec"]["conversion"] == {
        "strategy": "Webhook",
        "webhook": {"clientConfig": {"url": "u"}, "conversionReviewVersions": ["v1"]},
    }
    assert "preserveUnknownFields" not in shown["spec"]


@pytest.mark.parametrize(
    ("stored_form", "served"),
    [
        (None, {"strategy": "None"}),
        ({"strategy": ""}, {"strategy": ""}),
        (
            {"strategy": "x", "webhookClientConfig": {}},
            {"strategy": "x", "webhook": {"clientConfig": {}, "conversionReviewVersions": None}},
        ),
        (
            {"strategy": "None", "conversionReviewVersions": ["v1"]},
            {"strategy": "None", "webhook": {"conversionReviewVersions": ["v1"]}},
        ),
    ],
)
def test_case_24_conversions_as_the_api_server_serves_them(stored_form: Any, served: Any) -> None:
    """As apiextensions-apiserver v0.37.2 made them of 600 random definitions."""
    assert crd_to_v1(crd(version="v1", conversion=stored_form))["spec"]["conversion"] == served


@pytest.mark.parametrize(
    "spec",
    [
        None,
        [],
        "x",
        {"versions": 7},
        {"versions": [7]},
        {"conversion": []},
        {"version": 1},
        {"preserveUnknownFields": {}},
    ],
)
def test_case_24_an_odd_crd_gives_a_value(spec: Any) -> None:
    as_served({"apiVersion": "apiextensions.k8s.io/v1beta1", "kind": "CustomResourceDefinition", "spec": spec}, 1)


def test_case_26_real() -> None:
    for vector in vectors("real-1.37.2"):
        served = as_served(decode_object(stored(vector)).tree, vector["revision"])
        assert served == vector["json"]
        assert yaml_text(without_managed_fields(served)) == vector["yaml"]


def test_case_27_managed_fields() -> None:
    tree = {"metadata": {"name": "a", "managedFields": [1]}, "kind": "K"}
    assert without_managed_fields(tree) == {"metadata": {"name": "a"}, "kind": "K"}
    assert tree["metadata"] == {"name": "a", "managedFields": [1]}


# -- pruning ---------------------------------------------------------------------------------------------------------


def definition(schema: dict[str, Any], **spec: Any) -> dict[str, Any]:
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema}}
    return {"spec": {"versions": [version]} | spec}


def test_a_server_prunes_what_the_schema_does_not_have() -> None:
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "replicas": {"type": "integer"},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "map": {"additionalProperties": {"type": "object", "properties": {"k": {"type": "string"}}}},
                    "list": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
                },
            }
        },
    }
    tree = {
        "apiVersion": "a/v1",
        "kind": "K",
        "metadata": {"name": "n", "labels": {"any": "thing"}},
        "spec": {
            "replicas": 1,
            "gone": {"x": 1},
            "free": {"any": {"thing": 1}},
            "map": {"a": {"k": "v", "z": 1}},
            "list": [{"k": "v"}, {"z": 1}],
        },
        "data": 1,
    }
    found = pruning_schema(definition(schema), "v1")
    assert found is not None
    kept, paths = pruned(tree, found)
    assert paths == ["data", "spec.gone", "spec.list[1].z", "spec.map.a.z"]
    assert kept == {
        "apiVersion": "a/v1",
        "kind": "K",
        "metadata": {"name": "n", "labels": {"any": "thing"}},
        "spec": {
            "replicas": 1,
            "free": {"any": {"thing": 1}},
            "map": {"a": {"k": "v"}},
            "list": [{"k": "v"}, {}],
        },
    }


def test_in_what_is_preserved_named_fields_are_pruned_by_their_own_rules() -> None:
    schema = {
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {"a": {"type": "object", "properties": {"b": {}}}},
    }
    kept, paths = pruned({"a": {"b": 1, "c": 2}, "d": {"e": 3}}, schema)
    assert (kept, paths) == ({"a": {"b": 1}, "d": {"e": 3}}, ["a.c"])


def test_nothing_is_pruned_where_the_definition_says_so() -> None:
    assert pruning_schema(definition({"type": "object"}, preserveUnknownFields=True), "v1") is None
    assert pruning_schema(definition({"type": "object"}), "v2") is None
    assert pruning_schema({"spec": {"versions": None}}, "v1") is None
