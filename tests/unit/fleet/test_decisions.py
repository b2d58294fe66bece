"""What is asked of a backup, and of whom: vectors of the specification, and times in names."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaptool.errors import InputError
from snaptool.fleet.names import glob_pattern, series_of, shard_of, time_in
from snaptool.fleet.quick import Quick, judge_ends
from snaptool.fleet.store import Asked, is_answered

GOLDEN = Path(__file__).parents[2] / "golden" / "audit"
VECTORS: dict[str, list[dict[str, Any]]] = json.loads((GOLDEN / "fleets.json").read_text())


@pytest.mark.parametrize("case", VECTORS["incremental"], ids=lambda case: str(case["name"]))
def test_case_6_what_is_known_decides_whether_to_look_again(case: dict[str, Any]) -> None:
    known, asked = case["known"], Asked(**case["asked"])
    kept = known is not None and is_answered(known, asked)
    assert ("keep" if kept else "audit") == case["decision"]


@pytest.mark.parametrize("case", VECTORS["shards"], ids=lambda case: f"{case['url']} of {case['of']}")
def test_case_8_every_backup_has_one_shard(case: dict[str, Any]) -> None:
    assert shard_of(case["url"], case["of"]) == case["index"]


@pytest.mark.parametrize("case", VECTORS["globs"], ids=lambda case: f"{case['pattern']} {case['name']}")
def test_globs_match_what_they_say(case: dict[str, Any]) -> None:
    assert bool(glob_pattern(case["pattern"]).fullmatch(case["name"])) == case["matches"]


@given(st.text(alphabet="ab/*?[]!^-\\.&", max_size=12), st.text(max_size=8))
def test_every_text_is_a_glob_or_is_refused_by_name(pattern: str, name: str) -> None:
    try:
        glob_pattern(pattern).fullmatch(name)
    except InputError:
        assert "[" in pattern


@pytest.mark.parametrize(
    ("name", "time", "series"),
    [
        ("k/etcd-snapshot-server1-1772352000", (2026, 3, 1, 8), "k/etcd-snapshot-server1-*"),
        ("k/etcd-snapshot-server1-1772352000.zip", (2026, 3, 1, 8), "k/etcd-snapshot-server1-*.zip"),
        ("ocp/snapshot_2026-01-02_030405.db", (2026, 1, 2, 3, 4, 5), "ocp/snapshot_*.db"),
        ("main/2026-03-01T08:15:00Z-000002/etcd.backup.gz", (2026, 3, 1, 8, 15), "main/*/etcd.backup.gz"),
        ("rke/2026-03-01T08:15:00Z_etcd", (2026, 3, 1, 8, 15), "rke/*_etcd"),
        ("a/20260301-081500.db", (2026, 3, 1, 8, 15), "a/*.db"),
        ("a/etcd-2026-03-01.db", (2026, 3, 1), "a/etcd-*.db"),
        ("a/etcd-202603010815.db", (2026, 3, 1, 8, 15), "a/etcd-*.db"),
        ("a/etcd-2026-03-01_08-15.db", (2026, 3, 1, 8, 15), "a/etcd-*.db"),
        ("a/etcd-2026030108", (2026, 3, 1, 8), "a/etcd-*"),
        ("a/etcd-2026-03-01-9999.db", (2026, 3, 1), "a/etcd-*-9999.db"),
        ("a/etcd-202613450815.db", None, "a/etcd-*.db"),
        ("a/etcd.db", None, "a/etcd.db"),
        ("a/etcd-2026-13-45.db", None, "a/etcd-*.db"),
    ],
)
def test_a_name_says_when_and_of_which_series(name: str, time: tuple[int, ...] | None, series: str) -> None:
    assert time_in(name) == (datetime(*time, tzinfo=UTC) if time else None)  # type: ignore[arg-type,misc]
    assert series_of(name) == series


def looked(content: bytes) -> Quick:
    return judge_ends(lambda start, end: content[start:end], len(content))


def zipped(content: bytes, packing: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        archive.writestr("notes.txt", "hello")
        archive.writestr("etcd-snapshot", content)
    return out.getvalue()


ODD = st.binary(max_size=100)


@given(
    st.binary(max_size=600)
    | ODD.map(lambda tail: b"\x1f\x8b\x08" + tail)
    | ODD.map(lambda tail: b"PK\x03\x04" + tail + b"PK\x05\x06" + tail[:18])
    | st.tuples(st.integers(0, 250), ODD).map(lambda cut: zipped(b"x" * 40, 8)[: cut[0]] + cut[1])
)
def test_a_quick_look_judges_every_file(content: bytes) -> None:
    assert looked(content).status in {"ok", "damaged", "not_a_snapshot"}


@pytest.mark.parametrize("page_size", [4096, 65536])
def test_case_16_a_cut_file_shows_in_its_first_bytes(page_size: int) -> None:
    from snaptool.bolt import Meta, PageId, TxId
    from snaptool.bolt.layout import encode_meta

    whole = b""
    for number in (0, 1):
        meta = Meta(
            page_size=page_size, root=PageId(3), sequence=0, freelist=2, high_water_mark=9, txid=TxId(7 + number)
        )
        whole += encode_meta(meta, number)
    whole = whole.ljust(9 * page_size, b"\0") + bytes(32)
    for size, status in (
        (len(whole), "ok"),
        (len(whole) - 32, "ok"),
        (len(whole) - 33, "damaged"),
        (5, "not_a_snapshot"),
    ):
        assert looked(whole[:size]).status == status, size
    assert looked(bytes(page_size) + whole[page_size:]).status == "ok", "the other meta is there"
    broken = whole[:60] + b"x" + whole[61 : page_size + 60] + b"x" + whole[page_size + 61 :]
    assert looked(broken).status == "damaged"
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert looked(zipped(whole, packing)).status == "ok"
        assert looked(zipped(whole[:-33], packing)).code == "snapshot_short"
        assert looked(zipped(whole, packing)[:-60]).code == "container_truncated"
