"""What stands behind the last page and is not a trailer stops every command but those that look, and repair says so."""

from __future__ import annotations

import pytest

from snaptool.text import counted
from tests.support.cli import GOLDEN, SAMPLES, Snaptool

CASE = GOLDEN / "cases" / "cut-in-trailer"
NEW = SAMPLES / "secretbox.yaml"

READING = [
    ["list"],
    ["get", "/registry/secrets/x"],
    ["history", "/registry/secrets/x"],
    ["rewrite", "TARGET", "--config", str(CASE / "old.yaml"), "--new-config", str(NEW)],
]


@pytest.mark.parametrize("words", READING, ids=lambda words: words[0])
def test_a_cut_trailer_stops_commands_unless_told_to_go_on(snaptool: Snaptool, words: list[str]) -> None:
    source = snaptool.write("cut.db", (CASE / "altered-cut.db").read_bytes())
    target = snaptool.folder / "new.db"
    command, *rest = [str(target) if word == "TARGET" else word for word in words]
    ran = snaptool(command, source, *rest, "-o", "json")
    assert ran.code == 4
    assert ran.json["error"]["code"] == "cut_trailer"
    assert "22 bytes behind the last page" in ran.json["error"]["problem"]
    makes = [target] if command == "rewrite" else []
    assert snaptool(command, source, *rest, "--skip-hash-check", makes=makes).code in {0, 2}  # there is no such key


def test_inspect_and_verify_show_a_cut_trailer(snaptool: Snaptool) -> None:
    source = snaptool.write("cut.db", (CASE / "altered-cut.db").read_bytes())
    assert snaptool("inspect", source, "-o", "json").json["file"]["trailer"] == "cut"
    ran = snaptool("verify", source, "-o", "json")
    assert ran.code == 4
    assert "cut_trailer" in {found["code"] for found in ran.json["findings"]}


def test_repair_does_not_certify_in_silence(snaptool: Snaptool) -> None:
    source, target = snaptool.write("cut.db", (CASE / "altered-cut.db").read_bytes()), snaptool.folder / "new.db"
    ran = snaptool("repair", source, target, "-o", "json", makes=[target])
    assert "22 bytes behind the last page" in ran.json["source_problem"]
    assert "says nothing about whether they are the ones that were saved" in ran.stderr


@pytest.mark.parametrize(
    ("tail", "trailer"),
    [(b"", "ok"), (b"\n", "cut"), (b"saved by cron\n" * 300, "cut"), (bytes(4096 - 32), "cut"), (bytes(4096), "cut")],
)
def test_what_was_appended_behind_a_right_trailer_is_seen(snaptool: Snaptool, tail: bytes, trailer: str) -> None:
    source = snaptool.write("longer.db", (SAMPLES / "aescbc-cluster.db").read_bytes() + tail)
    assert snaptool("inspect", source, "-o", "json").json["file"]["trailer"] == trailer
    if tail:
        problem = snaptool("list", source, "-o", "json").json["error"]["problem"]
        appended = counted(len(tail), "byte was", "bytes were")
        assert f"{appended} appended behind the SHA-256, which is right" in problem
