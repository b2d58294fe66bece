"""Laws of the KMS decoders: a value or our error for any bytes, and every encoder undone by its decoder."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snaptool import wire
from snaptool.providers.kms_envelope import (
    Envelope,
    SourceType,
    WrappedSource,
    decode_envelope,
    decode_v2,
    encode_envelope,
    rewrap,
    source_problem,
)
from snaptool.providers.kms_grpc import SCHEMA, BadEndpoint, decode_message, parse_endpoint
from snaptool.providers.kms_saved import BadKeyFile, read_key_file
from snaptool.providers.provider import Api, KeyDoesNotFit

LABELS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
ANNOTATION_KEYS = st.lists(LABELS, min_size=2, max_size=4).map(".".join)
SOURCES = st.builds(
    WrappedSource,
    provider=st.just("kp"),
    api=st.just(Api.V2),
    source_type=st.sampled_from(SourceType),
    source=st.binary(min_size=1, max_size=64),
    key_id=st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()),
    annotations=st.dictionaries(ANNOTATION_KEYS, st.binary(max_size=20), max_size=3).map(
        lambda entries: tuple(sorted(entries.items()))
    ),
)
BODIES = st.binary(min_size=1, max_size=200)
# Messages that look like one: random bytes alone rarely get past the first tag.
FIELDS = st.builds(
    wire.encode_field, st.integers(1, 6), st.one_of(st.binary(max_size=12), st.integers(0, (1 << 64) - 1))
)
MESSAGES = st.lists(st.one_of(FIELDS, st.binary(max_size=3)), max_size=8).map(b"".join)


@given(st.sampled_from(Api), st.one_of(st.binary(max_size=300), MESSAGES))
def test_any_bytes_are_an_envelope_or_do_not_fit(api: Api, payload: bytes) -> None:
    try:
        envelope = decode_envelope(api, "kp", payload)
    except KeyDoesNotFit as refusal:
        assert refusal.reasons  # noqa: PT017 - the law is "either", there is nothing to expect
    else:
        assert decode_envelope(api, "kp", encode_envelope(envelope)) == envelope


@given(SOURCES, BODIES)
def test_v2_envelopes_survive_encoding(source: WrappedSource, body: bytes) -> None:
    assert source_problem(source) is None
    assert decode_v2("kp", encode_envelope(Envelope(source, body))) == Envelope(source, body)


@given(SOURCES, BODIES, st.binary(max_size=5), st.binary(max_size=5))
def test_sources_with_different_content_have_different_cache_keys(
    source: WrappedSource, body: bytes, lead: bytes, tail: bytes
) -> None:
    # Moving bytes from one member to the next must not give the same tuple: every member carries its length.
    other = WrappedSource(
        provider="kp",
        api=Api.V2,
        source_type=source.source_type,
        source=source.source + lead,
        key_id=source.key_id + tail.hex(),
        annotations=source.annotations,
    )
    assert (other.cache_key == source.cache_key) is (not lead and not tail)
    del body


@given(SOURCES, SOURCES, BODIES, st.binary(max_size=9), st.booleans())
def test_rewrap_changes_the_wrapping_and_nothing_else(
    old: WrappedSource,
    new: WrappedSource,
    body: bytes,
    unknown: bytes,
    first: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    new = WrappedSource(
        provider="kp",
        api=Api.V2,
        source_type=old.source_type,
        source=new.source,
        key_id=new.key_id,
        annotations=new.annotations,
    )
    extra = wire.encode_field(19, unknown)
    stored = encode_envelope(Envelope(old, body))
    payload = extra + stored if first else stored + extra
    fresh = rewrap(payload, decode_v2("kp", payload).source, new)
    expected = encode_envelope(Envelope(new, body))
    assert fresh == (extra + expected if first else expected + extra)
    assert rewrap(fresh, new, old) == payload


@given(st.sampled_from(sorted(SCHEMA)), st.one_of(st.binary(max_size=100), MESSAGES))
def test_any_bytes_are_a_kms_message_or_a_bad_one(name: str, encoded: bytes) -> None:
    try:
        decode_message(name, encoded)
    except wire.BadMessage:
        return


ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)  # lone surrogates too, as in argv


@given(st.one_of(ANY_TEXT, ANY_TEXT.map(lambda text: f"unix:///{text}")))
def test_any_text_is_an_endpoint_or_a_bad_one(url: str) -> None:
    try:
        endpoint = parse_endpoint(url)
    except BadEndpoint:
        return
    assert endpoint.abstract or endpoint.address.startswith("/")
    assert endpoint.target.isascii()


@given(st.text(max_size=80))
def test_any_text_is_a_key_file_or_a_bad_one(text: str) -> None:
    try:
        read_key_file(text)
    except BadKeyFile:
        return
