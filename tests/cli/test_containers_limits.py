"""Unpacking in bounds: nothing stays after a kill or on a full disk, and memory does not grow with what is inside."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snaptool.bolt import DatabaseWriter
from snaptool.containers.age import AgeWriter, OmniSecrets
from snaptool.containers.spool import Spool
from snaptool.containers.streams import import_zstd
from snaptool.containers.unwrap import Unpacking, unwrap
from snaptool.errors import SnaptoolError
from tests.support.cli import GOLDEN, Snaptool

VECTORS = GOLDEN / "containers"
OMNI_KEY = bytes(range(0x20, 0x40))
SNAPTOOL = (sys.executable, "-m", "snaptool")
MIB = 1 << 20


def write_database(path: Path, size: int) -> None:
    """Write a bolt file of about `size` bytes, zeros for the most part, without a trailer."""
    with path.open("wb") as file:
        writer = DatabaseWriter(file)
        with writer.bucket(b"big") as bucket:
            for number in range(size // MIB):
                bucket.put(number.to_bytes(8, "big"), bytes(MIB - 8192))
        with writer.bucket(b"key"):
            pass
        writer.finish()


def unnamed_files(process: int, folder: Path) -> list[Path]:
    """The open files of a process that were made in `folder` and have no name."""
    found = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            place = str(link.readlink())
        except OSError:
            continue
        if place.startswith(f"{folder}/") and place.endswith("(deleted)"):
            found.append(link)
    return found


@pytest.fixture
def half_fed(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that unpacks what comes through a pipe, of which the first half has come."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    database = tmp_path / "big.db"
    write_database(database, 64 * MIB)
    data = database.read_bytes()
    with subprocess.Popen(
        [*SNAPTOOL, "inspect", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(temporary)},
    ) as process:
        assert process.stdin is not None
        process.stdin.write(data[: len(data) // 2])
        process.stdin.flush()
        while not any(link.stat().st_size > MIB for link in unnamed_files(process.pid, temporary)):
            assert process.poll() is None
            time.sleep(0.01)
        (one,) = unnamed_files(process.pid, temporary)
        assert one.stat().st_mode & 0o777 == 0o600
        assert list(temporary.iterdir()) == []
        yield process
        assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_68_a_signal_while_unpacking_leaves_nothing(half_fed: subprocess.Popen[bytes], number: signal.Signals) -> None:
    half_fed.send_signal(number)
    assert half_fed.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        half_fed.stdin.close()
    code = half_fed.wait(60)
    assert code == (-number if number is signal.SIGKILL else 128 + number)


def packed(name: str, database: Path) -> Path:
    """A container of a kind around a database, as fast as it can be made, beside it; once."""
    target = database.with_name(f"packed.{name}")
    if target.exists():
        return target
    data = database.read_bytes()
    if name in STREAMS:
        target.write_bytes(STREAMS[name](data))
    elif name == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.write(database, "big.db")
    elif name == "snapshot":
        with target.open("wb") as file:
            writer = AgeWriter(file.write, OmniSecrets(aescbc="", secretbox="", backup_key=OMNI_KEY), os.urandom)
            writer.write(data)
            writer.finish()
    else:
        with tarfile.open(target, "w" if name == "tar" else "w:gz") as tar:
            tar.add(database, "big.db")
    return target


STREAMS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, 1),
    "zst": lambda data: import_zstd().compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "bz2": lambda data: bz2.compress(data, 1),
    "zlib": lambda data: zlib.compress(data, 1),
}
UNPACKED = [*STREAMS, "zip", "tar.gz", "snapshot"]
KINDS = [*UNPACKED, "tar"]
"""A plain tar is read where it stands: tests/cli/test_containers_in_place.py."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    database = tmp_path_factory.mktemp("large") / "big.db"
    write_database(database, 128 * MIB)
    return database


@pytest.mark.parametrize("name", UNPACKED)
def test_68_a_kill_while_any_container_is_unpacked_leaves_nothing(tmp_path: Path, large: Path, name: str) -> None:
    temporary, key = tmp_path / "tmp", tmp_path / "omni.key"
    temporary.mkdir()
    key.write_bytes(OMNI_KEY)
    source = packed(name, large)
    words = [*SNAPTOOL, "inspect", str(source), "--omni-key-file", str(key)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(temporary)}
    ) as process:
        while not any(link.stat().st_size > MIB for link in unnamed_files(process.pid, temporary)):
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
        assert process.wait(60) == -signal.SIGKILL, "it was in the middle of it"
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", UNPACKED)
def test_68_a_full_disk_while_any_container_is_unpacked_leaves_nothing(
    snaptool: Snaptool, disk: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    database = snaptool.folder / "big.db"
    write_database(database, 3 * MIB)
    source = packed(name, database)
    monkeypatch.setenv("TMPDIR", str(disk))
    key = snaptool.write("omni.key", OMNI_KEY)
    ran = snaptool("inspect", source, "--omni-key-file", key, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (1, "container_no_space")
    # The same where nobody looked at the room before, and the disk fills in the middle.
    free = Spool._free
    monkeypatch.setattr(Spool, "_free", lambda self: free(self) if hasattr(self, "descriptor") else 1 << 40)
    ran = snaptool("inspect", source, "--omni-key-file", key, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (1, "container_no_space")
    assert list(disk.iterdir()) == []


def test_68_a_pipe_that_ends_early_is_a_cut_database(half_fed: subprocess.Popen[bytes]) -> None:
    out, err = half_fed.communicate(timeout=60)
    assert (half_fed.returncode, out) == (4, b"")
    assert b"the database is cut" in err


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path_factory.mktemp("disk")
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # whoever looks at it now lets go soon


def test_68_room_is_looked_at_before_anything_is_unpacked(
    snaptool: Snaptool, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(disk))
    ran = snaptool("inspect", VECTORS / "stream/cli.db.gz", "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (1, "container_no_space")
    assert str(disk) in ran.json["error"]["problem"]
    assert "TMPDIR" in ran.json["error"]["remedy"]
    # A zip says how large its entry is, and that much is there.
    assert snaptool("inspect", VECTORS / "zip/stored.zip", "-o", "json").code != 1
    assert list(disk.iterdir()) == []


def test_68_a_disk_that_fills_while_a_pipe_is_read_leaves_nothing(
    snaptool: Snaptool, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(disk))
    noise = gzip.compress(os.urandom(3 * MIB))
    ran = snaptool("inspect", "-", "-o", "json", stdin=noise)
    assert (ran.code, ran.json["error"]["code"]) == (1, "container_no_space")
    assert list(disk.iterdir()) == []


def test_68_a_disk_that_fills_while_packing_leaves_no_target(snaptool: Snaptool, disk: Path) -> None:
    source = snaptool.sample("aescbc-cluster.db")
    filler = disk / "filler"
    filler.write_bytes(bytes(MIB - source.stat().st_size - 8192))  # the snapshot fits, its container does not
    try:
        target = disk / "new.db.xz"
        ran = snaptool("repair", source, target, "-o", "json")
        assert ran.code == 1
        assert list(disk.iterdir()) == [filler]
    finally:
        filler.unlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("name", ["new.db.xz", "new.zip"])
def test_68_a_signal_while_packing_leaves_no_target(tmp_path: Path, name: str, number: signal.Signals) -> None:
    source, folder = tmp_path / "noise.db", tmp_path / "made"
    folder.mkdir()
    with source.open("wb") as file:
        writer = DatabaseWriter(file)
        with writer.bucket(b"key"):
            pass
        with writer.bucket(b"noise") as bucket:
            for key in range(48):
                bucket.put(key.to_bytes(8, "big"), os.urandom(MIB))
        writer.finish()
    with subprocess.Popen(
        [*SNAPTOOL, "repair", str(source), str(folder / name)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        # The snapshot, whole, and what it is packed into, in its beginnings.
        while not (sizes := sorted(link.stat().st_size for link in unnamed_files(process.pid, folder)))[1:]:
            assert process.poll() is None
            time.sleep(0.001)
        assert sizes[1] >= 48 * MIB
        assert list(folder.iterdir()) == []
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (-number if number is signal.SIGKILL else 128 + number, b"")
    assert b"nothing was written" in err or number is signal.SIGKILL
    assert list(folder.iterdir()) == []


def test_a_closed_directory_for_temporary_files_is_named(snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(snaptool.folder / "not-there"))
    ran = snaptool("inspect", VECTORS / "stream/cli.db.gz")
    assert ran.code == 1
    assert "TMPDIR" in ran.stderr


PEAK = """
import re, sys
sys.argv = ["snaptool", *sys.argv[1:]]
try:
    from snaptool.__main__ import main
    main()
finally:
    state = open("/proc/self/status").read()
    print(int(re.search(r"VmHWM:\\s+(\\d+)", state)[1]) >> 10, file=sys.stderr)
"""
"""The peak of this program alone: what getrusage counts begins with that of the process that started it."""


def peak_mib(*words: str | Path) -> int:
    ran = subprocess.run([sys.executable, "-c", PEAK, *map(str, words)], capture_output=True, text=True, check=True)
    return int(ran.stderr.split()[-1])


@pytest.fixture(scope="module")
def plain_peak(large: Path) -> int:
    return peak_mib("inspect", large)


@pytest.mark.parametrize("name", KINDS)
def test_69_any_container_costs_no_more_memory_than_its_limits(
    tmp_path: Path, large: Path, plain_peak: int, name: str
) -> None:
    """128 MiB in each: what kept a layer in memory would be seen."""
    key = tmp_path / "omni.key"
    key.write_bytes(OMNI_KEY)
    assert peak_mib("inspect", packed(name, large), "--omni-key-file", key) <= plain_peak + 64


@pytest.mark.soak
@pytest.mark.parametrize("name", KINDS)
def test_69_a_gib_in_any_container(tmp_path: Path, name: str) -> None:
    database, key = tmp_path / "big.db", tmp_path / "omni.key"
    write_database(database, 1 << 30)
    key.write_bytes(OMNI_KEY)
    source = packed(name, database)
    plain = peak_mib("inspect", database)
    database.unlink()
    assert peak_mib("inspect", source, "--omni-key-file", key) <= plain + 300


def test_69_a_zip_of_300_mib_costs_no_more_memory_than_the_plain_file(tmp_path: Path) -> None:
    database, packed = tmp_path / "big.db", tmp_path / "big.zip"
    write_database(database, 300 * MIB)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(database, "big.db")
    plain = peak_mib("inspect", database)
    assert peak_mib("inspect", packed) <= plain + 64


@pytest.mark.soak
def test_69_a_zip_of_4_gib_costs_no_more_memory_than_the_plain_file(tmp_path: Path) -> None:
    database, packed = tmp_path / "big.db", tmp_path / "big.zip"
    write_database(database, 4200 * MIB)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(database, "big.db")
    plain = peak_mib("inspect", database)
    assert peak_mib("inspect", packed) <= plain + 64


@pytest.mark.parametrize("name", ["stream/bomb-64MiB.db.gz", "tar/bomb-64MiB.tar.gz", "zip/bomb-64MiB.zip"])
def test_18_bombs_cost_33_mib_of_disk_at_most(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    real = os.pwrite

    def counting(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal written
        written += len(data)
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", counting)
    descriptor = os.open(VECTORS / name, os.O_RDONLY)
    try:
        with pytest.raises(SnaptoolError) as raised:
            unwrap(descriptor, name, Unpacking())
    finally:
        os.close(descriptor)
    assert raised.value.code == "container_too_big"
    assert written <= 33 * MIB
