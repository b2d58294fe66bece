"""Run the command line as its users do, and hold every run to the promises that all commands share.

Whatever a test is about: files that were there keep every byte and their times, no file appears that the test did not
expect, and no key and no plaintext of a sample is in any output, unless the command's purpose is to show it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import signal
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from snaptool.cli import run

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
GOLDEN = ROOT / "tests" / "golden"
_READABLE = re.compile("samples/.* holds keys, and every user of this machine can read it")
_SECRET = re.compile(rb"secret: *\"?([A-Za-z0-9+/=]{16,})")

FileState = tuple[str, int, int, int]
"""SHA-256, modification time, mode, inode."""


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit code and its output."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def text(self) -> str:
        return self.stdout + self.stderr


class Snaptool:
    """`snaptool(...)` runs a command in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sample(self, name: str, target: str = "") -> Path:
        """A copy of a sample in the test's folder."""
        source = SAMPLES / name if (SAMPLES / name).exists() else GOLDEN / name
        return Path(shutil.copy2(source, self.folder / (target or name)))

    def write(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def __call__(
        self,
        *arguments: str | Path,
        makes: Collection[Path] = (),
        replaces: Collection[Path] = (),
        stdin: bytes = b"",
        shows_secrets: bool = False,
    ) -> Ran:
        """Run a command. `makes`: the files that have to appear; `replaces`: those that may change."""
        before = states(self.folder)
        words = [str(argument) for argument in arguments]
        if "--jobs" not in words and words[:1] and words[0] in {"inspect", "verify", "rewrite"}:
            words += ["--jobs", "1"]
        with _streams(stdin) as (out, err), _signals_restored():
            code = run(words)
        # Where the samples lie, and who may read them there, is about this machine and not about the command.
        lines = err.getvalue().decode().splitlines(keepends=True)
        ran = Ran(code, out.getvalue().decode(), "".join(line for line in lines if not _READABLE.search(line)))
        after = states(self.folder)
        expected = {path for path in before if path not in replaces}
        assert {path: after.get(path) for path in expected} == {path: before[path] for path in expected}
        assert set(after) - set(before) == set(makes), "files that nobody asked for, or none where one was asked for"
        if not shows_secrets:
            texts = [out.getvalue(), err.getvalue(), *(path.read_bytes() for path in makes if path.suffix != ".db")]
            for text in texts:
                assert_no_canary(text, self.folder)
        return ran


def states(folder: Path) -> dict[Path, FileState]:
    """Every file below `folder` as it is now. Symbolic links are looked at, not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        status = path.stat()
        found[path] = (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            status.st_mtime_ns,
            status.st_mode,
            status.st_ino,
        )
    return found


def assert_no_canary(text: bytes, folder: Path | None = None) -> None:
    """No key of a configuration of the samples or of `folder`, in any spelling, and no plaintext of theirs."""
    needles = set(sample_canaries())
    if folder is not None:
        needles |= {needle for path in folder.rglob("*.yaml") for needle in _spellings_of_keys(path.read_bytes())}
    for needle in needles:
        assert needle not in text, "a secret was shown"  # which one is not said here either


@cache
def sample_canaries() -> frozenset[bytes]:
    keys = {needle for path in SAMPLES.glob("*.yaml") for needle in _spellings_of_keys(path.read_bytes())}
    return frozenset(keys | _plaintexts())


def _spellings_of_keys(config: bytes) -> Iterator[bytes]:
    for found in _SECRET.finditer(config):
        yield from spellings(base64.b64decode(found[1]))


def spellings(secret: bytes) -> Iterator[bytes]:
    """The ways in which a program could print bytes."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield base64.b64encode(secret).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")
    yield repr(secret)[2:-1].encode()


def _plaintexts() -> set[bytes]:
    """What Secrets of the samples hold: long runs of text in plaintexts that their configurations open."""
    from snaptool.etcd import decode_key_value
    from snaptool.kube.keys import parse_key
    from snaptool.kube.objects import plausible
    from snaptool.operations.opening import open_snapshot
    from snaptool.providers.config.rules import parse_config
    from snaptool.providers.keyring import GroupResource, Keyring, NoKeyFits

    needles: set[bytes] = set()
    for name, configs in (
        ("aescbc-cluster.db", ["aescbc.yaml"]),
        ("mixed-providers.db", ["mixed.yaml"]),
        ("lost-key.db", ["lost-key.yaml", "found-key.yaml"]),
    ):
        keyring = Keyring(
            tuple(parse_config((SAMPLES / config).read_bytes(), name=config) for config in configs), plausible=plausible
        )
        chain = keyring.chain_for(GroupResource("secrets", ""))
        with open_snapshot(SAMPLES / name) as opened:
            for _, stored in opened.snapshot.items(b"key"):
                record = decode_key_value(stored)
                key = parse_key(record.key, ("/registry",))
                if key is None or key.resource != "secrets" or not record.value:
                    continue
                try:
                    plaintext = chain.unseal(record.value, record.key).plaintext
                except NoKeyFits:
                    continue
                needles.update(found[0] for found in re.finditer(rb"[!-~]{24,}", plaintext))
    names = b"".join(path.read_bytes() for path in SAMPLES.glob("*.db"))
    return {needle for needle in needles if names.count(needle) == 0}


@contextmanager
def _streams(stdin: bytes) -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    kept = sys.stdin, sys.stdout, sys.stderr
    out, err = io.BytesIO(), io.BytesIO()
    wrapped = [io.TextIOWrapper(stream, encoding="utf-8", write_through=True) for stream in (out, err)]
    sys.stdin, sys.stdout, sys.stderr = io.TextIOWrapper(io.BytesIO(stdin)), *wrapped
    try:
        yield out, err
    finally:
        sys.stdin, sys.stdout, sys.stderr = kept
        for stream in wrapped:
            stream.detach()


@contextmanager
def _signals_restored() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
