"""Snapshots behind links: read as files are, in one version; written whole or not at all."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaptool.stores import reading
from tests.support.cli import SAMPLES, Snaptool
from tests.support.links import Files, serving

SAMPLE = (SAMPLES / "aescbc-cluster.db").read_bytes()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    monkeypatch.setattr(reading, "_PAUSE", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as made:
        yield made


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TMPDIR of the test's own, which has to be empty in the end."""
    folder = tmp_path_factory.mktemp("tmpdir")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.mark.parametrize("no_ranges", [False, True])
def test_b2_a_link_is_inspected_as_the_file_is(
    snaptool: Snaptool, files: Files, temporary: Path, *, no_ranges: bool
) -> None:
    files.content["/b.db"], files.no_ranges = SAMPLE, no_ranges
    local, config = snaptool.sample("aescbc-cluster.db"), snaptool.sample("aescbc.yaml")
    there = snaptool("inspect", f"{files.url}/b.db?sig=geheim", "--config", config, "-o", "json")
    here = snaptool("inspect", local, "--config", config, "-o", "json")
    assert (there.code, here.code) == (0, 0)
    assert there.json["file"].pop("path") == f"{files.url}/b.db?…"
    here.json["file"].pop("path")
    assert there.json["census"] == here.json["census"]
    assert "geheim" not in there.text
    assert list(temporary.iterdir()) == []


def test_b7_a_connection_that_breaks_off_is_resumed(snaptool: Snaptool, files: Files) -> None:
    files.content["/b.db"], files.cut_after = SAMPLE, len(SAMPLE) // 3 + 1
    ran = snaptool("verify", f"{files.url}/b.db", "--config", snaptool.sample("aescbc.yaml"))
    assert ran.code == 0, ran.text
    starts = [headers["range"] for _, _, headers in files.asked if headers["range"] != "bytes=0-0"]
    assert starts == ["bytes=0-", f"bytes={files.cut_after}-", f"bytes={2 * files.cut_after}-"]
    assert all("if-match" in headers for _, _, headers in files.asked[1:])


def test_b7_five_failures_without_a_byte_end_it(snaptool: Snaptool, files: Files, temporary: Path) -> None:
    files.content["/b.db"], files.cut_after = SAMPLE, 1
    # One byte a connection is progress; none is not.
    files.cut_after = 0
    ran = snaptool("inspect", f"{files.url}/b.db", "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (5, "store_unreachable"), ran.text
    assert len(files.asked) <= 6
    assert list(temporary.iterdir()) == []


def test_b8_an_object_that_is_replaced_while_it_is_read_is_no_mixture(snaptool: Snaptool, files: Files) -> None:
    files.content["/b.db"], files.cut_after = SAMPLE, len(SAMPLE) // 2
    files.replace_after = (1, SAMPLE[::-1])
    ran = snaptool("inspect", f"{files.url}/b.db", "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (4, "source_changed"), ran.text


def test_b2_round_trip_by_links(snaptool: Snaptool, files: Files, temporary: Path) -> None:
    files.content["/b.db"] = SAMPLE
    old, new = snaptool.sample("aescbc.yaml"), snaptool.sample("secretbox.yaml")
    ran = snaptool("rewrite", f"{files.url}/b.db", f"{files.url}/n.db", "--config", old, "--new-config", new)
    assert ran.code == 0, ran.text
    assert files.content["/b.db"] == SAMPLE
    put = next(headers for method, _, headers in files.asked if method == "PUT")
    assert put["if-none-match"] == "*"
    back = snaptool.write("back.db", files.content["/n.db"])
    assert snaptool("verify", back, "--config", new).code == 0
    assert list(temporary.iterdir()) == []


def test_b3_a_target_that_is_there_is_refused_before_the_download(snaptool: Snaptool, files: Files) -> None:
    files.content |= {"/b.db": SAMPLE, "/n.db": b"theirs"}
    ran = snaptool("repair", f"{files.url}/b.db", f"{files.url}/n.db")
    assert ran.code == 2
    assert "already exists" in ran.stderr
    assert files.content["/n.db"] == b"theirs"
    assert not [path for method, path, _ in files.asked if method == "PUT"]


def test_b11_force_replaces_only_the_version_that_was_seen(snaptool: Snaptool, files: Files) -> None:
    files.content |= {"/b.db": SAMPLE, "/n.db": b"theirs"}
    ran = snaptool("repair", f"{files.url}/b.db", f"{files.url}/n.db", "--force")
    assert ran.code == 0, ran.text
    assert "if-match" in next(headers for method, _, headers in files.asked if method == "PUT")


def test_b10_source_and_target_are_one_object(snaptool: Snaptool, files: Files) -> None:
    files.content["/b.db"] = SAMPLE
    ran = snaptool("repair", f"{files.url}/b.db?one", f"{files.url}/b.db?other", "--force")
    assert (ran.code, files.content["/b.db"]) == (2, SAMPLE)
    assert "same object" in ran.stderr


def test_what_a_store_keeps_otherwise_is_no_success(snaptool: Snaptool, files: Files) -> None:
    files.content["/b.db"], files.puts_kept_as = SAMPLE, SAMPLE
    ran = snaptool("repair", f"{files.url}/b.db", f"{files.url}/n.db", "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (1, "upload_differs"), ran.text
    assert "was written" in ran.stderr


def test_what_is_not_there_or_refused_says_so(snaptool: Snaptool, files: Files) -> None:
    assert snaptool("inspect", f"{files.url}/none.db").code == 2
    files.content["/e.db"] = b""
    assert snaptool("inspect", f"{files.url}/e.db").code in {2, 4}
    files.redirect = "http://example.org/x"
    ran = snaptool("inspect", f"{files.url}/x.db")
    assert ran.code == 2
    assert "the server leads to what is not an https:// URL" in ran.stderr
    assert snaptool("inspect", "http://127.0.0.1:9/x").code == 5


@pytest.mark.parametrize(
    ("url", "extra"), [("s3://b/o", "aws"), ("gs://b/o", "gcp"), ("az://c/b", "azure"), ("sftp://h/x.db", "sftp")]
)
def test_a_store_whose_library_is_missing_says_what_to_install(
    snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch, url: str, extra: str
) -> None:
    for name in ("boto3", "google.cloud", "azure.core", "asyncssh"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    for store in ("s3", "gs", "az", "sftp"):
        monkeypatch.delitem(sys.modules, f"snaptool.stores.{store}", raising=False)
    ran = snaptool("inspect", url, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "extra_missing")
    assert f"pip install 'snaptool[{extra}]'" in ran.json["error"]["remedy"]
