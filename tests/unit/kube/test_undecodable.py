"""What no API server can decode is called so, what one can is not, and any bytes have a verdict."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snaptool.kube.keys import RESOURCE_TYPES, parse_key
from snaptool.kube.undecodable import ExpectedType, Fault, expected_type, fault, is_object_of
from tests.support.odd_values import DECODABLE, NAMELESS, SOUND, UNDECODABLE

SECRETS = expected_type("secrets", "") or ExpectedType("nothing is expected, which no value is")
GOLDEN = Path(__file__).parents[2] / "golden"
SHALLOW = {
    "garbage in the envelope",
    "number for metadata",
    "number for data",
    "number for a name",
    "text for a time",
    "wire type 6",
    "a group that ends",
    "field 0",
}
"""Faults inside of a whole envelope: the full depth is needed."""


@pytest.mark.parametrize("name", DECODABLE)
def test_what_api_servers_read_is_sound(name: str) -> None:
    assert fault(DECODABLE[name], SECRETS, full=True) is None


@pytest.mark.parametrize("name", UNDECODABLE)
def test_what_no_api_server_reads_has_a_fault(name: str) -> None:
    assert fault(UNDECODABLE[name], SECRETS, full=True) is not None
    assert (fault(UNDECODABLE[name], SECRETS) is None) == (name in SHALLOW)


@pytest.mark.parametrize("name", NAMELESS)
def test_what_names_no_object_has_a_fault(name: str) -> None:
    assert fault(NAMELESS[name], SECRETS) in {Fault.EMPTY, Fault.NO_TYPE}


def test_faults_say_what_is_wrong() -> None:
    found = {name: fault(value, SECRETS, full=True) for name, value in UNDECODABLE.items()}
    assert found["half missing"] is Fault.BAD_ENVELOPE
    assert found["number for data"] is Fault.BAD_OBJECT
    assert found["JSON cut"] is Fault.BAD_JSON
    assert found["another kind"] is found["a version that nobody has"] is Fault.WRONG_TYPE
    assert found["bytes"] is Fault.NO_OBJECT
    assert found["CBOR cut"] is Fault.BAD_CBOR


@pytest.mark.parametrize(
    ("resource", "group"),
    [("ranges", ""), ("masterleases", ""), ("health", None), ("bootstrap", None), ("compact_rev_key", "")],
)
def test_keys_that_hold_no_objects_expect_nothing(resource: str, group: str | None) -> None:
    assert expected_type(resource, group) is None


def test_every_cut_of_an_object_has_a_fault_but_that_of_its_last_fields() -> None:
    whole = {size for size in range(len(SOUND)) if fault(SOUND[:size], SECRETS) is None}
    # A message that ends between two fields is whole, to servers too.
    assert whole == {len(SOUND) - 4, len(SOUND) - 2, 18}
    assert SOUND[18:19] == b"\x12"


def test_no_object_that_a_real_api_server_stored_is_undecodable() -> None:
    """420 objects of 71 kinds. From a real API server: tests/golden has their provenance."""
    judged: Counter[str] = Counter()
    for line in gzip.decompress((GOLDEN / "kinds" / "real-1.37.2.jsonl.gz").read_bytes()).splitlines():
        vector = json.loads(line)
        key = parse_key(vector["key"].encode())
        assert key is not None
        expected = expected_type(key.resource, key.group) if key.encryptable else None
        if expected is not None:
            stored = b64decode(vector["stored"])
            assert fault(stored, expected, full=True) is None, vector["key"]
            judged[key.resource] += 1
    assert len(judged) > 60


def test_a_kind_of_one_resource_is_undecodable_under_another() -> None:
    for known in RESOURCE_TYPES:
        expected = expected_type(known.resource, known.group)
        if known.kind != "Secret":
            assert expected is not None
            assert fault(SOUND, expected) is Fault.WRONG_TYPE, known.resource


def test_custom_resources_may_be_of_any_kind() -> None:
    widgets = expected_type("widgets", "example.com")
    assert widgets is not None
    assert fault(b'{"apiVersion":"example.com/v1","kind":"Widget"}', widgets) is None
    assert fault(b'{"apiVersion":"example.com/v1","kind":"Wid', widgets) is Fault.BAD_JSON
    assert fault(b'{"apiVersion":"example.com/v1"}', widgets) is Fault.NO_TYPE


@given(st.binary(max_size=200) | st.sampled_from([*DECODABLE.values(), *UNDECODABLE.values(), *NAMELESS.values()]))
@example(b"{" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"\xd9\xd9\xf7" + b"\x9b" + b"\xff" * 8)
@example(b"k8s\0\n" + b"\xff" * 20)
def test_any_bytes_have_a_verdict(content: bytes) -> None:
    for expected in (SECRETS, ExpectedType()):
        cheap, full = fault(content, expected), fault(content, expected, full=True)
        assert cheap is None or cheap == full
        assert full is None or full in Fault
        assert not (is_object_of(content, expected) and full)


@given(st.data())
def test_damaged_objects_have_a_verdict(data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from([*DECODABLE.values()])))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    verdict = fault(bytes(damaged), SECRETS, full=True)
    assert verdict is None or verdict in Fault
