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


SIGNATURES = ("sv=2022&sig=sesame", "X-Amz-Security-Token=sesame&X-Amz-Signature=sesame", "X-Goog-Signature=sesame")


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "abfs", "https", "http", "sftp", "HTTPS", "S3", "Https"])
def test_no_signature_is_shown_under_whatever_scheme_it_is_given(scheme: str, signature: str) -> None:
    host = {"az": "a.blob.core.windows.net/c", "abfs": "c@a.dfs.core.windows.net"}.get(scheme.lower(), "h")
    for url in (f"{scheme}://{host}/x.db?{signature}", f"{scheme}://{host}/x.db?a=b&{signature}"):
        try:
            shown = str(place_of(url))
        except BadUrl as error:
            shown = f"{error} {error.hint} {error.place}"
        assert "sesame" not in shown


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "http", "https", "sftp"])
def test_no_password_is_shown_and_none_is_taken(scheme: str) -> None:
    for url in (f"{scheme}://me:sesame@h/x.db", f"{scheme}://me:sesame@h", f"{scheme}://me:sesame@h/x y"):
        with pytest.raises(BadUrl) as raised:
            place_of(url)
        assert "sesame" not in f"{raised.value} {raised.value.hint} {raised.value.place}"


def test_a_name_that_is_no_utf_8_is_refused_as_a_name() -> None:
    for scheme in ("s3", "gs", "az", "sftp", "https"):
        with pytest.raises(BadUrl):
            place_of(f"{scheme}://h/\udcff.db")


def test_a_place_keeps_the_url_as_it_was_written() -> None:
    place = place_of("s3://b/k//a b%20.db.gz")
    assert isinstance(place, RemotePath)
    assert (str(place), place.name, place.suffix) == ("s3://b/k//a b%20.db.gz", "a b%20.db.gz", ".gz")
    assert place.parent.is_dir()
