"""Labels against a plain model that looks at one key and one value at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from snaptool.etcd import KeyValue, Revision, Snapshot, encode_key_value, encode_revision_key
from snaptool.kube.keys import parse_key
from snaptool.operations.labels import NO_KEY_NAME, Header, Labels, header_of
from snaptool.providers.provider import Kind
from tests.support.history import make_snapshot

PREFIXES = ("/registry", "/kubernetes.io", "/openshift.io")
KINDS = {
    "aescbc:v1": Kind.AESCBC,
    "aesgcm:v1": Kind.AESGCM,
    "secretbox:v1": Kind.SECRETBOX,
    "kms:v1": Kind.KMS_V1,
    "kms:v2": Kind.KMS_V2,
}
KEYS = (
    b"/registry/secrets/ns/a",
    b"/registry/configmaps/ns/a",
    b"/registry/secrets",
    b"/registry/",
    b"/registry",
    b"/registryx/secrets/ns/a",
    b"//registry/secrets/ns/a",
    b"/registry//ns/a",
    b"/registry/apps.example.com/foos/ns/a",
    b"/registry/deployments/ns/a",
    b"/registry/services/specs/ns/a",
    b"/registry/services/endpoints/ns/a",
    b"/registry/apiextensions.k8s.io/customresourcedefinitions/a.b",
    b"/registry/apiregistration.k8s.io/apiservices/v1.apps",
    b"/registry/leases/kube-system/a",
    b"/registry/ranges/serviceips",
    b"/registry/masterleases/10.0.0.1",
    b"/registry/events/ns/a",
    b"/kubernetes.io/secrets/ns/a",
    b"/openshift.io/oauth/clients/a",
    b"/openshift.io/routes/ns/a",
    b"compact_rev_key",
    b"compact_rev_keyx",
    b"compact_rev_ke",
    b"a",
    b"/",
    b"\0",
    b"\xff\xfe/registry/secrets/a",
    b"/registry/secrets/\xff\xfe/\0",
    b"/registry/" + b"x" * 95 + b"/ns/a",
    b"/registry/" + b"x" * 3000 + b"/ns/a",
    b"/registry/" + b"g" * 200 + b".example.com/foos/ns/a",
    b"/registry/\xc3\xa9\xc3\xa9/ns/a",
)
VALUES = (
    b"",
    b"k8s\0plain",
    b"k8s:enc:",
    b"k8s:enc",
    b"k8s:enc:aescbc:v1:key1:" + bytes(32),
    b"k8s:enc:aescbc:v1:key1",
    b"k8s:enc:aescbc:v1:",
    b"k8s:enc:aescbc:v1",
    b"k8s:enc:aescbc:v2:key1:x",
    b"k8s:enc:aesgcm:v1:key:with:colons:" + bytes(20),
    b"k8s:enc:secretbox:v1::" + bytes(20),
    b"k8s:enc:secretbox:v1:\xff\xfe:" + bytes(20),
    b"k8s:enc:kms:v1:plugin:" + bytes(20),
    b"k8s:enc:kms:v2:plugin:" + bytes(20),
    b"k8s:enc:unknown:v1:key:x",
    b"k8s:enc:::::::",
    b"K8S:ENC:aescbc:v1:key1:x",
    b"xk8s:enc:aescbc:v1:key1:x",
    b"k8s:enc:aescbc:v1:" + b"n" * 200 + b":x",
    b"k8s:enc:aescbc:v1:" + b"n" * 74 + b":x",
    b"k8s:enc:aescbc:v1:" + b"n" * 5000 + b":x",
)


def model_resource(key: bytes, value: bytes = b"x") -> str:
    parsed = parse_key(key, PREFIXES)
    if parsed is not None and parsed.group is None and not value.startswith(b"k8s:enc:"):
        return "(other)"  # none of the plain values here is an object
    return "(other)" if parsed is None else parsed.group_resource


def model_header(value: bytes) -> tuple[Kind | None, str]:
    """Provider and key name by splitting the text, as a person would read it."""
    if not value.startswith(b"k8s:enc:"):
        return Kind.IDENTITY, ""
    fields = value[:4096].split(b":")
    kind = KINDS.get(b":".join(fields[2:4]).decode("latin-1")) if len(fields) > 4 else None
    if kind is None:
        return None, ""
    try:
        return kind, fields[4].decode() if len(fields) > 5 else "(no key name)"
    except UnicodeDecodeError:
        return kind, "(no key name)"


def labelled(pairs: Sequence[tuple[bytes, bytes]]) -> list[tuple[str, Header]]:
    records = [
        (
            encode_revision_key(Revision(number + 2, 0)),
            encode_key_value(
                KeyValue(key=key, create_revision=number + 2, mod_revision=number + 2, version=1, value=value)
            ),
        )
        for number, (key, value) in enumerate(pairs)
    ]
    snapshot, labels = Snapshot(make_snapshot(records)), Labels(PREFIXES)
    found = []
    for chunk in snapshot.chunks():
        labels.add(chunk)
        found += [
            (labels.resources[one].name, labels.headers[other])
            for one, other in zip(labels.resource, labels.header, strict=True)
        ]
    return found


@pytest.mark.parametrize("key", KEYS, ids=lambda key: repr(key[:40]))
def test_resource_is_that_of_the_key_read_alone(key: bytes) -> None:
    ((resource, _),) = labelled([(key, b"x")])
    assert resource == model_resource(key)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value[:40]))
def test_header_is_that_of_the_value_read_alone(value: bytes) -> None:
    ((_, header),) = labelled([(b"/registry/secrets/ns/a", value)])
    kind, name = model_header(value)
    assert header.kind == kind
    if kind is not None:
        assert header.name == name


CIPHERTEXT = random.Random(7).randbytes(9000).replace(b":", b";")


@pytest.mark.parametrize("head", [b"aescbc:v1:", b"kms:v2:", b"rot13:v1:", b"rot13:", b""])
@pytest.mark.parametrize("length", [1, 40, 4095, 9000])
@pytest.mark.parametrize("tail", [b"", b":", b":" + bytes(40)])
def test_what_no_colon_closes_is_no_key_name_and_shows_nothing_of_the_ciphertext(
    head: bytes, length: int, tail: bytes
) -> None:
    value = b"k8s:enc:" + head + b"key1\xff" + CIPHERTEXT[:length] + tail
    ((_, header),) = labelled([(b"/registry/secrets/ns/a", value)])
    assert header == header_of(value) == Header(model_header(value)[0], NO_KEY_NAME)
    assert header.text == b""


def test_names_of_any_sensible_length_are_shown_whole() -> None:
    for name in ("n" * 60, "é" * 100, "n" * 2000, "a b\n" * 100):
        value = b"k8s:enc:secretbox:v1:" + name.encode() + b":" + CIPHERTEXT
        ((_, header),) = labelled([(b"/registry/secrets/ns/a", value)])
        assert header == header_of(value) == Header(Kind.SECRETBOX, name)


def test_all_keys_and_values_together_are_as_each_alone() -> None:
    rng = random.Random(5)
    pairs = [(rng.choice(KEYS), rng.choice(VALUES)) for _ in range(2000)]
    for (key, value), (resource, header) in zip(pairs, labelled(pairs), strict=True):
        assert resource == model_resource(key, value)
        assert header.kind == model_header(value)[0]


@pytest.mark.parametrize("seed", range(5))
def test_random_keys_and_values_agree_with_the_model(seed: int) -> None:
    rng = random.Random(seed)
    pieces = (
        b"/",
        b"registry",
        b"secrets",
        b"configmaps",
        b"a.example.com",
        b"ns",
        b"\xff",
        b"services",
        b"specs",
        b"",
    )
    parts = (b"k8s:enc:", b"aescbc:v1:", b"kms:v2:", b"key", b":", b"\0", b"n" * 90, b"", b"secretbox", b"v1")
    pairs = [
        (
            b"".join(rng.choice(pieces) for _ in range(rng.randint(1, 9))) or b"k",
            b"".join(rng.choice(parts) for _ in range(rng.randint(0, 6))),
        )
        for _ in range(1500)
    ]
    for (key, value), (resource, header) in zip(pairs, labelled(pairs), strict=True):
        assert resource == model_resource(key, value), key
        assert header.kind == model_header(value)[0], value
        if header.kind is not None:
            assert header.name == model_header(value)[1]


def test_file_that_makes_up_a_name_per_value_does_not_fill_the_memory() -> None:
    pairs = [(b"/registry/secrets/ns/a", b"k8s:enc:aescbc:v1:%d:x" % number) for number in range(10_500)]
    headers = {header for _, header in labelled(pairs)}
    assert len(headers) <= 10_001
    assert "(many more names)" in {header.name for header in headers}


def test_name_of_a_resource_that_has_no_end_is_cut() -> None:
    ((resource, _),) = labelled([(b"/registry/" + b"x" * 100_000 + b"/ns/a", b"k8s:enc:aescbc:v1:k:x")])
    assert 4000 < len(resource) < 4200
