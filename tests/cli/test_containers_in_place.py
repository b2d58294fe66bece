"""What an archive holds as it is gets read where it stands: no second copy of a database, on disk or in memory.

Source: docs/formats/containers.md, "Temporary files".
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from snaptool import open_snapshot
from snaptool.scratch.server import EtcdBinaries
from snaptool.sources import SourceChanged
from tests.cli.test_containers import VECTORS
from tests.support.cli import SAMPLES, Snaptool

DATABASE = (SAMPLES / "aescbc-cluster.db").read_bytes()
KEYS = SAMPLES / "aescbc.yaml"
MAPS = """
import sys
from snaptool.cli import run
opened = []
def hook(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & {flag} == {flag}:
        opened.append(arguments[0])
sys.addaudithook(hook)
code = run(sys.argv[1:])
print("unnamed files:", len(opened), file=sys.stderr)
sys.exit(code)
"""
"""Runs a command and counts the files without a name that it made."""


def stored_zip(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("README", "a neighbour")
        archive.writestr(name, DATABASE)
    return file.getvalue()


def plain_tar(name: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for one, content in (("README", b"a neighbour"), (name, DATABASE)):
            entry = tarfile.TarInfo(one)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


ARCHIVES = {
    "odd.zip": stored_zip("snapshot1.db"),
    "backup.tar": plain_tar("snapshot.db"),
    "long.tar": plain_tar("etcd-backup/" + "x" * 200 + "/snapshot.db"),
}


@pytest.fixture(params=["odd.zip", "long.tar"])
def archive(snaptool: Snaptool, request: pytest.FixtureRequest) -> Path:
    return snaptool.write(request.param, ARCHIVES[request.param])


@pytest.fixture
def nowhere(snaptool: Snaptool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes a temporary file fails."""
    monkeypatch.setenv("TMPDIR", str(snaptool.folder / "absent"))


def test_archives_begin_a_database_at_places_of_every_kind() -> None:
    starts = {name: content.index(DATABASE) for name, content in ARCHIVES.items()}
    assert starts["odd.zip"] % 2 == 1
    assert all(start % 4096 for start in starts.values())


@pytest.mark.usefixtures("nowhere")
def test_24_a_packed_entry_does_need_a_temporary_file(snaptool: Snaptool) -> None:
    for name in ("zip/bzip2.zip", "zip/gz-in-zip.zip", "tar/kubespray.tar.gz"):
        ran = snaptool("inspect", VECTORS / name)
        assert ran.code == 1, ran.text
        assert "absent" in ran.stderr


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("name", ["zip/stored.zip", "zip/zip64.zip", "tar/charmed-plain.tar"])
def test_24_a_stored_vector_needs_none(snaptool: Snaptool, name: str) -> None:
    ran = snaptool("inspect", VECTORS / name, "-o", "json")
    assert "error" not in ran.json
    assert ran.json["container"]["unpacked_size"] > 0


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("command", ["inspect", "verify", "list", "export", "get", "diff"])
def test_24_reading_it_in_place_says_what_reading_the_plain_file_says(
    snaptool: Snaptool, archive: Path, command: str
) -> None:
    plain = snaptool.sample("aescbc-cluster.db", "plain.db")
    words: dict[str, list[str | Path]] = {
        "export": ["secrets", "-n", "shop", "--config", KEYS],
        "get": ["secrets", "-A", "--config", KEYS],
        "diff": [plain, "--config-a", KEYS, "--config-b", KEYS],
        "list": ["--config", KEYS],
    }
    rest = words.get(command, ["--config", KEYS, "-o", "json"])
    ran = {path: snaptool(command, path, *rest, shows_secrets=True) for path in (plain, archive)}
    assert ran[plain].code == ran[archive].code == 0, ran[archive].text
    if command in {"inspect", "verify"}:
        found, expected = ran[archive].json, ran[plain].json
        for document in (found, expected):
            for field in ("path", "container", "notices"):
                document.pop(field, None)
            document.get("file", {}).pop("path", None)
        assert found == expected
    elif command != "diff":
        assert ran[archive].stdout == ran[plain].stdout != ""


@pytest.mark.usefixtures("nowhere")
def test_24_rewriting_it_in_place_gives_the_file_that_the_plain_one_gives(snaptool: Snaptool, archive: Path) -> None:
    plain = snaptool.sample("aescbc-cluster.db", "plain.db")
    made = {}
    for source, target in ((plain, snaptool.folder / "1.db"), (archive, snaptool.folder / "2.db")):
        ran = snaptool("rewrite", source, target, "--config", KEYS, "--decrypt", "-o", "json", makes=[target])
        assert ran.code == 0, ran.text
        made[source] = target.read_bytes(), ran.json["source"]["sha256"], ran.json["source"]["size"]
    assert made[plain] == made[archive]


@pytest.mark.parametrize("words", [["inspect"], ["verify", "--config", KEYS]])
@pytest.mark.parametrize(("name", "files"), [("odd.zip", 0), ("backup.tar", 0), ("packed.zip", 1)])
def test_24_files_without_a_name_are_counted(
    snaptool: Snaptool, words: list[str | Path], name: str, files: int
) -> None:
    source = snaptool.write(name, ARCHIVES.get(name, b""))
    if name == "packed.zip":
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("snapshot.db", DATABASE)
    command, *rest = words
    driver = MAPS.format(flag=os.O_TMPFILE)
    ran = subprocess.run(
        [sys.executable, "-c", driver, command, source, *rest], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (0, f"unnamed files: {files}"), ran.stderr


def test_24_an_entry_that_is_not_what_its_checksum_says_is_refused(snaptool: Snaptool) -> None:
    content = bytearray(ARCHIVES["odd.zip"])
    content[content.index(DATABASE) + len(DATABASE) // 2] ^= 1
    ran = snaptool("inspect", snaptool.write("odd.zip", bytes(content)), "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (4, "container_corrupt")
    assert "CRC" in ran.json["error"]["problem"]


def test_24_salvage_goes_on_where_the_checksum_is_wrong(snaptool: Snaptool) -> None:
    content = bytearray(ARCHIVES["odd.zip"])
    content[content.index(DATABASE) + len(DATABASE) - 1] ^= 1  # in the trailer, which a salvage makes again
    source, target = snaptool.write("odd.zip", bytes(content)), snaptool.folder / "new.db"
    ran = snaptool("repair", source, target, "--salvage", makes=[target])
    assert ran.code == 0, ran.text
    assert "going on with the" in ran.stderr


def test_24_an_entry_that_ends_early_is_refused_and_salvaged_with_one_word_about_it(snaptool: Snaptool) -> None:
    content, target = ARCHIVES["backup.tar"], snaptool.folder / "new.db"
    source = snaptool.write("backup.tar", content[: content.index(DATABASE) + len(DATABASE) // 2])
    ran = snaptool("inspect", source, "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (4, "container_truncated")
    ran = snaptool("repair", source, target, "--salvage", makes=[target])
    assert (ran.code, ran.stderr.count("going on with the")) == (3, 1), ran.stderr


@pytest.mark.parametrize("change", ["neighbour", "database", "cut"])
def test_24_an_archive_that_changes_while_it_is_read_is_noticed(archive: Path, change: str) -> None:
    content = ARCHIVES[archive.name]
    at = content.index(b"a neighbour" if change == "neighbour" else DATABASE)
    with open_snapshot(archive) as opened:
        opened.source.check_unchanged()
        if change == "cut":
            os.truncate(archive, at + 8192)
        else:
            with archive.open("r+b") as file:
                file.seek(at)
                file.write(b"!")
        with pytest.raises(SourceChanged, match=archive.name):
            opened.source.check_unchanged()


def test_24_the_archive_itself_is_never_a_target(snaptool: Snaptool, archive: Path) -> None:
    link = snaptool.folder / "link.db"
    link.hardlink_to(archive)
    ran = snaptool("rewrite", archive, link, "--config", KEYS, "--decrypt", "--force", "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "target_is_read")


def test_24_a_real_etcd_gets_the_entry_and_not_the_archive(
    snaptool: Snaptool, archive: Path, etcd_binaries: EtcdBinaries
) -> None:
    target = snaptool.folder / "new.db"
    etcd: list[str | Path] = ["--etcd-bin", etcd_binaries.etcd.parent]
    ran = snaptool("verify", archive, "--config", KEYS, "--boot", *etcd)
    assert ran.code == 0, ran.text
    words: list[str | Path] = ["--config", KEYS, "--decrypt", "--engine", "etcd", *etcd]
    ran = snaptool("rewrite", archive, target, *words, makes=[target])
    assert ran.code == 0, ran.text


@pytest.mark.parametrize("name", ["packed.zip", "packed.tar.gz"])
def test_verify_boots_what_is_in_any_container(snaptool: Snaptool, etcd_binaries: EtcdBinaries, name: str) -> None:
    source = snaptool.folder / name
    plain = snaptool.sample("aescbc-cluster.db", "snapshot.db")
    if name.endswith("zip"):
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(plain, "snapshot.db")
    else:
        with tarfile.open(source, "w:gz") as tar:
            tar.add(plain, "snapshot.db")
    ran = snaptool("verify", source, "--config", KEYS, "--boot", "--etcd-bin", etcd_binaries.etcd.parent)
    assert ran.code == 0, ran.text


def test_24_local_names_of_another_length_than_the_directory_s_are_passed_over(snaptool: Snaptool) -> None:
    """The header in front of the entry has an extra field that the directory has not."""
    content = ARCHIVES["odd.zip"]
    head = content.rindex(b"PK\x03\x04")
    extra = struct.pack("<HH5s", 0xCAFE, 5, b"extra")
    name_size = struct.unpack_from("<H", content, head + 26)[0]
    behind = head + 30 + name_size
    changed = bytearray(content[:behind] + extra + content[behind:])
    struct.pack_into("<H", changed, head + 28, len(extra))
    end = changed.rindex(b"PK\x05\x06")
    (directory,) = struct.unpack_from("<L", changed, end + 16)
    struct.pack_into("<L", changed, end + 16, directory + len(extra))
    ran = snaptool("inspect", snaptool.write("odd.zip", bytes(changed)), "-o", "json")
    assert ran.code == 0, ran.text
    assert ran.json["container"]["unpacked_size"] == len(DATABASE)


def beginning_at(offset: int) -> bytes:
    """Return a zip whose directory says, in its field of 64 bits, that the only entry begins at `offset`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("snapshot.db", DATABASE)
    data, extra = bytearray(file.getvalue()), struct.pack("<HHQ", 1, 8, offset)
    entry, end = data.rindex(b"PK\1\2"), data.rindex(b"PK\5\6")
    name = struct.unpack_from("<H", data, entry + 28)[0]
    struct.pack_into("<L", data, end + 12, end - entry + len(extra))
    struct.pack_into("<H", data, entry + 30, len(extra))
    struct.pack_into("<L", data, entry + 42, 0xFFFFFFFF)
    data[entry + 46 + name : entry + 46 + name] = extra
    return bytes(data)


@pytest.mark.parametrize("offset", [10**6, 1 << 62, (1 << 63) - 10, 1 << 63, (1 << 64) - 1])
def test_an_entry_that_begins_behind_the_file_is_damage(snaptool: Snaptool, offset: int) -> None:
    source, target = snaptool.write("far.zip", beginning_at(offset)), snaptool.folder / "new.db"
    commands: list[list[str | Path]] = [
        ["inspect", source],
        ["repair", source, target],
        ["repair", "--salvage", source, target],
    ]
    for words in commands:
        ran = snaptool(*words)
        assert (ran.code, "points at something else" in ran.stderr) == (4, True)
    near = snaptool.write("near.zip", beginning_at(0))
    assert snaptool("repair", near, target, makes=[target]).code == 0


def test_an_entry_without_a_name_is_an_entry(snaptool: Snaptool) -> None:
    data = bytearray(stored_zip("snapshot.db"))
    for header, names in ((b"PK\3\4", 26), (b"PK\1\2", 28)):  # of the neighbour, whose name counts as an extra field
        at = data.index(header)
        struct.pack_into("<HH", data, at + names, 0, 6)
        name = at + (30 if header == b"PK\3\4" else 46)
        struct.pack_into("<HH", data, name, 0xCAFE, 2)
    source = snaptool.write("nameless.zip", bytes(data))
    assert snaptool("inspect", source, "--config", KEYS).code == 0
