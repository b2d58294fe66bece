"""The promises under any attack at any moment: source, target, exit code, words, secrets.

An attacker is a seed: it chooses what is run, and what happens to the run, when. A sample runs every time.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snaptool import signals
from snaptool.operations.diff import DiffSide, diff
from snaptool.operations.opening import open_snapshot
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import Keyring
from snaptool.text import is_fit
from snaptool.wire import encode_field
from tests.support.cli import ROOT, assert_no_canary
from tests.support.snapshots import NEW_SECRET, config, envelope, revision, seal
from tests.support.stored import write_records

HOSTILE = [
    b"\x1b]0;pwn\x07",
    "\u202eevil\u2066".encode(),
    b"a\nsnaptool: error: fake",
    b"\xff\xfe",
    "\u061c\ufeff\U000e0041".encode(),
]
LIMITS = [{"NOFILE": 6}, {"NOFILE": 14}, {"FSIZE": 3000}, {"FSIZE": 60_000}, {"AS": 150 << 20}]
SIGNALS = sorted(map(int, signals.ending()))


def write_source(path: Path, mark: bytes) -> None:
    """A snapshot of 600 Secrets and ConfigMaps, some with hostile names; `mark` is in every value."""
    records = {}
    for number in range(2, 602):
        secret = number % 3 == 0
        name = HOSTILE[number // 50 % len(HOSTILE)] if number % 50 == 0 else b"one"
        key = b"/registry/%s/shop/%s-%d" % (b"secrets" if secret else b"configmaps", name, number)
        plain = envelope("v1", "Secret" if secret else "ConfigMap", encode_field(1, encode_field(1, b"x" + mark * 9)))
        value = seal(plain, number.to_bytes(16, "big")) if secret else plain
        fields: list[tuple[int, int | bytes]] = [(1, key), (2, number), (3, number), (4, 1), (5, value)]
        records[revision(number)] = b"".join(encode_field(at, field) for at, field in fields)
    write_records(path, sorted(records.items()))


class Attacked:
    """The process that runs what is attacked, and the folder that it is about."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_source(folder / "a.db", b"PLAINTEXT-OF-THE-FIRST-FILE")
        write_source(folder / "b.db", b"PLAINTEXT-OF-ANOTHER-FILES")
        (folder / "old.yaml").write_text(config("aescbc"))
        (folder / "new.yaml").write_text(config("secretbox", name="new", secret=NEW_SECRET))
        self.old, self.new = (
            Keyring((parse_config((folder / name).read_bytes(), name=name),)) for name in ("old.yaml", "new.yaml")
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.attacked"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )

    def run(self, job: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return os.waitstatus_to_exitcode(int(self.process.stdout.readline()))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    found = Attacked(tmp_path_factory.mktemp("attacked"))
    yield found
    found.close()


def job_of(rng: random.Random, folder: Path) -> dict[str, Any]:
    """Choose what is run, and what happens to it."""
    kind = rng.choice(["signal", "signal", "signal", "cut", "grow", "replace", "unlink", "in place", "limits", "none"])
    names = ["new.db", "n\x1b[31mw.db", "\u202ebd.wen", "n" * 255, "pipe"] + ["source.db"] * (
        kind not in {"replace", "unlink"}
    )
    command = rng.choice(["rewrite", "rewrite", "repair"])
    place = folder / rng.choice([*names, "old.yaml"] if command == "rewrite" else names)
    argv = [command, str(folder / "source.db"), str(place)]
    if command == "rewrite":
        argv += ["--config", str(folder / "old.yaml"), "--jobs", rng.choice(["1", "2"])]
        argv += rng.choice([["--new-config", str(folder / "new.yaml")], ["--decrypt"]])
    argv += rng.choice([[], ["--force"]]) + rng.choice([[], ["-o", "json"]])
    number = rng.choice([*SIGNALS, signal.SIGKILL]) if kind == "signal" else rng.randrange(1 << 20)
    # What becomes of the source before it is opened is not an attack.
    moments = ["map", "map", "draft", "thread", "name", *(["open", "import", "any", "any"] if kind == "signal" else [])]
    return {
        "argv": argv,
        "source": str(folder / "source.db"),
        "moment": rng.choice(moments),
        "delay": rng.uniform(0, 0.12),
        "nth": rng.randint(1, 3),
        "action": "" if kind in {"limits", "none"} else kind,
        "number": int(number),
        "limits": rng.choice(LIMITS) if kind == "limits" else {},
        "out": rng.choice([str(folder / "out"), str(folder / "out"), "/dev/full", None]),
        "err": rng.choice([str(folder / "err"), str(folder / "err"), str(folder / "err"), "/dev/full", None]),
        "missing": rng.choice([[], [], ["unnamed files"], ["links"], ["unnamed files", "links"]]),
    }


def withstand(attacked: Attacked, seed: int) -> None:
    """Let one attacker have its way, and hold the run to every promise."""
    rng = random.Random(seed)
    folder = attacked.folder / str(seed)
    folder.mkdir()
    source = folder / "source.db"
    for name, content in (("source.db", "a.db"), ("source.db.other", "b.db"), ("old.yaml",) * 2, ("new.yaml",) * 2):
        (folder / name).write_bytes((attacked.folder / content).read_bytes())
    os.mkfifo(folder / "pipe")
    for name in ("out", "err"):
        (folder / name).touch()
    job = job_of(rng, folder)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    code = attacked.run(job)
    target = Path(job["argv"][2])
    out, err = ((folder / name).read_bytes() for name in ("out", "err"))
    case = f"seed {seed}: {job}, exit {code}, {err[-700:]!r}"

    after = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    changed = {path for path in before if after.get(path) != before[path]} - {folder / "out", folder / "err"}
    if job["action"] in {"cut", "grow", "replace", "unlink", "in place"}:
        changed -= {source, folder / "source.db.other"}
    assert not changed, case
    if "AS" in job["limits"] and code == -signal.SIGABRT:
        # The allocator of cryptography's Rust ends the process where there is no memory: as SIGKILL would.
        assert not err or b"memory allocation of" in err, case
        code = -signal.SIGKILL
    killed = code == -signal.SIGKILL
    extra = {path for path in after if path not in before and path != target}
    assert not extra or (killed and job["missing"] and len(extra) == 1), case

    named = target not in before and target in after
    assert code in {0, 1, 2, 3, 4, -9} | ({128 + job["number"]} if job["action"] == "signal" else set()), case
    assert named or code != 0, case
    text = (out + err).decode()
    assert is_fit(text.replace("\r", "")), case
    assert not re.search("Traceback|this is a bug", text), case
    assert_no_canary(out + err, folder)
    assert b"PLAINTEXT-OF" not in out + err, case
    assert not [line for line in text.splitlines() if line.startswith("snaptool: error: fake")], case
    if named:
        assert "nothing was" not in text, case
        assert code in {0, -9, 128 + job["number"]}, case
        assert target.stat().st_mode & 0o777 == 0o600, case
        keys = attacked.old if "repair" in job["argv"] else attacked.new
        with open_snapshot(attacked.folder / "a.db") as one, open_snapshot(target) as other, other.digests() as digests:
            assert digests.trailer() == "ok", case
            found = diff(DiffSide(one, attacked.old), DiffSide(other, keys))
            wrong = [*found.added, *found.removed, *found.changed, *found.undecided]
            assert not wrong, case
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.parametrize("seed", range(40))
def test_promises_hold_against_a_random_attacker(attacked: Attacked, seed: int) -> None:
    withstand(attacked, seed)


@pytest.mark.soak
@pytest.mark.parametrize("block", range(100))
def test_promises_hold_against_10000_random_attackers(attacked: Attacked, block: int) -> None:
    for seed in range(1000 + 100 * block, 1100 + 100 * block):
        withstand(attacked, seed)
