"""What a listing's URLs say of versions, and what can be listed."""

from __future__ import annotations

import pytest

from snaptool.fleet import Places
from snaptool.stores.listing import may_be_listed, without_version

VERSIONS = [
    ("s3://b/a/x.db?versionId=3HL4kq", "s3://b/a/x.db"),
    ("az://c/a/x.db?versionid=2026-01-02T03:04:05.1Z", "az://c/a/x.db"),
    ("az://a.blob.core.windows.net/c/a/x.db?versionid=2026", "az://a.blob.core.windows.net/c/a/x.db"),
    ("gs://b/a/x.db#1795918506976067", "gs://b/a/x.db"),
]
CURRENT = ["s3://b/x#1", "s3://b/x?versionid=1", "gs://b/x?versionId=1", "gs://b/x#a", "az://c/x#1", "/a/x.db#1", "a?b"]


@pytest.mark.parametrize(("url", "plain"), VERSIONS)
def test_a_version_of_each_store_belongs_to_what_its_object_is_named_by(url: str, plain: str) -> None:
    """A glob and a name take in what was replaced: in S3 as in the others."""
    assert without_version(url) == plain
    assert not may_be_listed(url)
    assert may_be_listed(plain)
    places = Places(all_versions=True)
    folder = plain.rpartition("/")[0]
    for argument in (plain, folder, f"{folder}/", f"{folder}/*.db", f"{folder}/x.*"):
        assert places.covers(argument, url), argument
    for argument in (f"{folder}/*.gz", f"{folder}x", f"{plain}x"):
        assert not places.covers(argument, url), argument


@pytest.mark.parametrize("url", CURRENT)
def test_what_is_no_version_stays(url: str) -> None:
    assert without_version(url) == url
