"""Laws of `snaptool.kube`: any bytes have an answer, and what was read prints back to the same bytes."""

import json

from hypothesis import given
from hypothesis import strategies as st

from snaptool.errors import SnaptoolError
from snaptool.kube.consequences import consequence
from snaptool.kube.keys import (
    COMPACT_REVISION_KEY,
    DEFAULT_PREFIXES,
    RESOURCE_TYPES,
    ResourceType,
    key_prefixes,
    normal_prefix,
    parse_key,
    resource_segments,
)
from snaptool.kube.kinds.printing import json_text, yaml_text
from snaptool.kube.kinds.reader import decode_object
from snaptool.kube.objects import Encoding, decode_envelope, describe, plausible
from tests.support.kinds import known_kinds, numbers_alike, yaml_values
from tests.unit.kube.builders import config_map, envelope
from tests.unit.kube.test_objects import CUSTOM, CUSTOM_CBOR, SECRET

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.:", min_size=1, max_size=40)
namespaces = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20)
prefixes = st.one_of(
    st.sampled_from(DEFAULT_PREFIXES),
    st.lists(st.text("abcdefgh-.", min_size=1, max_size=8), min_size=1, max_size=3).map(
        lambda parts: "/" + "/".join(parts)
    ),
)
custom_types = st.builds(
    lambda plural, group: ResourceType(
        resource=plural, group=f"{group}.example", path=f"{group}.example/{plural}", namespaced=None
    ),
    st.text("abcdefgh", min_size=1, max_size=10),
    st.text("abcdefgh.", min_size=1, max_size=10),
)
segments = st.one_of(
    st.sampled_from(sorted({part for known in RESOURCE_TYPES for part in known.path.split("/")})).map(str.encode),
    st.sampled_from([b"", b"registry", b"kubernetes.io", b"openshift.io", b"ranges", b"a.b", b"\xff", b"."]),
    st.binary(max_size=6),
)
hostile_keys = st.one_of(
    st.binary(max_size=60),
    st.lists(segments, max_size=8).map(lambda parts: b"/" + b"/".join(parts)),
    st.lists(segments, max_size=6).map(lambda parts: b"/registry/" + b"/".join(parts)),
)


@given(st.one_of(st.sampled_from(RESOURCE_TYPES), custom_types), namespaces, names, prefixes)
def test_the_place_of_an_object_parses_back_to_it(kind: ResourceType, namespace: str, name: str, prefix: str) -> None:
    place = key_prefixes(kind, namespace, name, prefix=prefix)[0]
    found = parse_key(place, [prefix])
    assert found is not None
    in_namespace = kind.namespaced is not False
    assert (found.prefix, found.group_resource) == (normal_prefix(prefix), kind.group_resource)
    assert (found.namespace, found.name) == (namespace if in_namespace else None, name)
    assert found.encryptable


@given(hostile_keys)
def test_any_key_has_an_answer_that_prints_back_to_it(key: bytes) -> None:
    found = parse_key(key)
    if found is None:
        assert not any(key.startswith(f"{prefix}/".encode()) for prefix in DEFAULT_PREFIXES)
        return
    assert bytes(found) == key
    if key == COMPACT_REVISION_KEY:
        return  # the one key without prefix and path
    texts = [found.prefix, found.path, *([] if found.namespace is None else [found.namespace]), found.name]
    spelled = key.decode(errors="backslashreplace")
    # A key that ends with its path has no object; everything else is its parts and the slashes between them.
    assert spelled in ("/".join(texts), "/".join(texts[:-1]))
    assert "\n" not in consequence(found, lambda _: True)


@given(hostile_keys, st.lists(segments, min_size=1, max_size=4))
def test_one_key_answers_for_all_that_share_its_deciding_segments(key: bytes, tail: list[bytes]) -> None:
    found = parse_key(key)
    if found is None or not found.prefix:
        return
    head = f"{found.prefix}/".encode()
    parts = key[len(head) :].split(b"/")
    count = resource_segments(parts[0])
    if len(parts) <= count:
        return  # no object: it shares its segments with nothing
    other = parse_key(head + b"/".join([*parts[:count], *tail]))
    assert other is not None
    assert (other.path, other.resource, other.group, other.encryptable) == (
        found.path,
        found.resource,
        found.group,
        found.encryptable,
    )


@st.composite
def damaged_objects(draw: st.DrawFn) -> bytes:
    whole = draw(st.sampled_from([SECRET, CUSTOM, CUSTOM_CBOR, config_map("c", "ns", {"k": "v"})]))
    damaged = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        damaged[draw(st.integers(0, len(damaged) - 1))] = draw(st.integers(0, 255))
    return bytes(damaged[: draw(st.integers(0, len(damaged)))])


@given(
    st.one_of(
        st.binary(max_size=200),
        damaged_objects(),
        st.builds(
            lambda kind, raw: envelope(kind[0], kind[1], raw), st.sampled_from(known_kinds()), st.binary(max_size=200)
        ),
        st.binary(max_size=60).map(lambda rest: b"\xd9\xd9\xf7\xa4" + rest),
        st.text(max_size=60).map(lambda rest: b"apiVersion: v1\nkind: K\n" + rest.encode()),
    )
)
def test_any_plaintext_gives_a_value_or_our_error(plaintext: bytes) -> None:
    verdict = plausible(plaintext)
    try:
        header = describe(plaintext)
    except SnaptoolError:
        # The envelope alone is plausible; its header also needs the first field of the object.
        assert not verdict or plaintext.startswith(b"k8s\x00")
    else:
        assert verdict
        assert header.kind
    try:
        shown = decode_object(plaintext).shown()
    except SnaptoolError:
        return
    assert numbers_alike(json.loads(json_text(shown))) == numbers_alike(shown)
    assert yaml_values(yaml_text(shown)) == numbers_alike(shown)


@given(
    st.sampled_from([0, 1, 127, 128, 300, 16_383, 16_384, 70_000]),
    st.lists(st.tuples(st.integers(-9, 40), st.one_of(st.integers(0, 255), st.none())), max_size=2),
)
def test_an_envelope_is_plausible_exactly_when_it_can_be_taken_apart(
    size: int, damage: list[tuple[int, int | None]]
) -> None:
    plaintext = bytearray(envelope("apps/v1", "Deployment", bytes(size)))
    for at, byte in damage:
        plaintext[at : at + 1 or None] = b"" if byte is None else bytes((byte,))
    try:
        decode_envelope(bytes(plaintext))
    except SnaptoolError:
        assert not plausible(bytes(plaintext))
    else:
        assert plausible(bytes(plaintext))


@given(st.dictionaries(names, st.text(max_size=30), max_size=5), names, namespaces)
def test_what_was_put_into_a_config_map_is_shown(data: dict[str, str], name: str, namespace: str) -> None:
    stored = config_map(name, namespace, data)
    shown = decode_object(stored).tree
    assert shown.get("data", {}) == data
    assert (shown["metadata"]["name"], shown["metadata"]["namespace"]) == (name, namespace)
    assert plausible(stored)
    assert describe(stored).encoding is Encoding.PROTOBUF
