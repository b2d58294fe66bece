"""Pipes, sockets, devices, links that lead nowhere or round in circles, wherever a path is expected."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
from pathlib import Path

import pytest

from tests.support.cli import SAMPLES, Snaptool
from tests.support.snapshots import NEW_SECRET, config

SOURCE, OLD = SAMPLES / "aescbc-cluster.db", SAMPLES / "aescbc.yaml"
KINDS = ["pipe", "socket", "device", "link to nothing", "link to itself", "directory", "/dev/zero", "/dev/full"]
REWRITE = ("rewrite", SOURCE, "{new}", "--config", OLD, "--decrypt")
OPTIONS: dict[str, tuple[str | Path, ...]] = {
    "inspect SNAPSHOT": ("inspect", "{odd}"),
    "diff B": ("diff", SOURCE, "{odd}"),
    "verify --config": ("verify", SOURCE, "--config", "{odd}"),
    "verify --dek-file": ("verify", SOURCE, "--dek-file", "{odd}"),
    "inspect --token-file": ("inspect", SOURCE, "--embedded-config", "--token-file", "{odd}"),
    "inspect --html": ("inspect", SOURCE, "--html", "{odd}", "--force"),
    "config check": ("config", "check", "{odd}"),
    "config new --keep": ("config", "new", "--keep", "{odd}", "--file", "{new}"),
    "config new --file": ("config", "new", "--file", "{odd}", "--force"),
    "rewrite TARGET": ("rewrite", SOURCE, "{odd}", "--config", OLD, "--decrypt", "--force"),
    "rewrite --new-config": ("rewrite", SOURCE, "{new}", "--config", OLD, "--new-config", "{odd}"),
    "rewrite --report": (*REWRITE, "--report", "{odd}", "--force"),
    "rewrite --older-from": (*REWRITE, "--undecryptable", "older", "--older-from", "{odd}"),
    "export --to": ("export", SOURCE, "-A", "--config", OLD, "--to", "{odd}"),
    "export --report": ("export", SOURCE, "-A", "--config", OLD, "--to", "{new}", "--report", "{odd}", "--force"),
    "audit PATH": ("audit", "{odd}", "--config", OLD, "--jobs", "1"),
    "audit --store": ("audit", SOURCE, "--config", OLD, "--jobs", "1", "--store", "{odd}"),
}


@pytest.fixture
def odd(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    kind: str = request.param
    path = tmp_path_factory.mktemp("odd") / "odd"
    if kind.startswith("/"):
        return Path(kind)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "device":
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            return Path("/dev/null")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("nothing" if kind == "link to nothing" else path)
    return path


@pytest.mark.parametrize("odd", KINDS, indirect=True)
@pytest.mark.parametrize("option", OPTIONS)
def test_an_odd_path_is_a_named_error_and_stays_what_it_is(
    snaptool: Snaptool,
    odd: Path,
    option: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))  # where an audit keeps its results
    before = odd.lstat()
    new = snaptool.folder / "new"
    words = [str(word).replace("{odd}", str(odd)).replace("{new}", str(new)) for word in OPTIONS[option]]
    ran = snaptool(*words)
    now = odd.lstat()
    assert (now.st_mode, now.st_ino, now.st_rdev) == (before.st_mode, before.st_ino, before.st_rdev)
    assert not odd.is_dir() or list(odd.iterdir()) == []
    assert "this is a bug" not in ran.text
    assert ran.code in {1, 2, 4}, ran.text
    assert "rror: " in ran.stderr


def test_a_store_of_audits_is_never_what_somebody_else_keeps(snaptool: Snaptool, tmp_path: Path) -> None:
    for version in (0, 1):
        theirs = tmp_path / f"theirs-{version}.db"
        with sqlite3.connect(theirs) as database:
            database.execute("create table kine (id integer)")
            database.execute(f"pragma user_version={version}")
        database.close()
        ran = snaptool("audit", SOURCE, "--config", OLD, "--store", theirs)
        assert ran.code == 1
        assert f"{theirs} is an SQLite file of something else" in ran.stderr


def test_a_store_of_audits_is_no_file_that_the_run_reads(snaptool: Snaptool) -> None:
    empty = snaptool.write("old.yaml", config("secretbox", secret=NEW_SECRET))
    ran = snaptool("audit", SOURCE, "--config", empty, "--store", empty)
    assert ran.code == 2
    assert "which this run reads" in ran.stderr
