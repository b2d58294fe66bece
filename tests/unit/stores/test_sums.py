"""Checksums of uploads are those that the stores state (case B5)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from snaptool.stores.sums import PART, Sums

GOLDEN = Path(__file__).parents[2] / "golden" / "clouds"
VECTORS = json.loads((GOLDEN / "storage-and-fleets.json").read_text())["checksums"]
_PERIOD = bytes(i * i % 251 for i in range(251))


def content(size: int) -> bytes:
    return (_PERIOD * (size // 251 + 1))[:size]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['size']} bytes")
def test_b5_checksum_of_an_upload(vector: dict[str, Any]) -> None:
    data = content(vector["size"])
    sums = Sums(data[at : at + 1_000_003] for at in range(0, len(data), 1_000_003))
    before, _, parts = sums.uploaded.partition("-")
    assert vector["part"] == PART
    assert (sums.size, sums.sha256, before) == (
        vector["size"],
        vector["sha256"],
        vector["s3_ChecksumSHA256_before_any_dash"],
    )
    assert parts == ("" if vector["parts"] is None else str(vector["parts"]))


def test_a_checksum_that_cannot_be_compared_says_nothing() -> None:
    sums = Sums([b"123456789"])
    assert sums.fits("CRC32:y/Q5Jg==") is True  # the check value of CRC-32
    assert sums.fits("CRC32:AAAAAA==") is False
    assert sums.fits("SHA256:AAAA") is False
    assert sums.fits("SHA256:AAAA-3") is None
    assert sums.fits("CRC64NVME:AAAA") is None
    assert sums.fits("") is None
