"""What is a URL, and of what: every vector of the specification (case B1)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptool.errors import SnaptoolError
from snaptool.stores.location import BadUrl, RemotePath, parse_url, place_of

GOLDEN = Path(__file__).parents[2] / "golden" / "clouds"
URLS = json.loads((GOLDEN / "storage-and-fleets.json").read_text())["urls"]


@pytest.mark.parametrize("vector", URLS, ids=lambda vector: str(vector["url"]))
def test_b1_url_is_read_as_the_vector_says(vector: dict[str, Any]) -> None:
    expected = vector["is"]
    if "error" in expected:
        with pytest.raises(BadUrl) as raised:
            parse_url(vector["url"])
        assert expected["error"] in str(raised.value)
        return
    found = parse_url(vector["url"])
    if found is None:
        assert expected == {"kind": "path"}
        assert place_of(vector["url"]) == Path(vector["url"])
        return
    assert dataclasses.asdict(found) == expected
    assert "sig=1" not in str(place_of(vector["url"]))


@given(
    st.text()
    | st.tuples(st.sampled_from(["s3", "gs", "az", "abfs", "http", "https", "sftp"]), st.text()).map("://".join)
)
def test_any_text_is_a_path_a_place_or_a_named_error(text: str) -> None:
    with contextlib.suppress(SnaptoolError):
        assert isinstance(place_of(text), Path)


@pytest.mark.parametrize("secret", ["https://h/x?X-Amz-Signature=abc", "https://me:pass@h/x?sig=abc", "sftp://a:b@h"])
def test_no_signature_and_no_password_is_shown(secret: str) -> None:
    try:
        shown = str(place_of(secret))
    except BadUrl as error:
        shown = f"{error} {error.hint} {error.place}"
    assert not [word for word in ("abc", "pass", "a:b") if word in shown]


def test_a_place_keeps_the_url_as_it_was_written() -> None:
    place = place_of("s3://b/k//a b%20.db.gz")
    assert isinstance(place, RemotePath)
    assert (str(place), place.name, place.suffix) == ("s3://b/k//a b%20.db.gz", "a b%20.db.gz", ".gz")
    assert place.parent.is_dir()
