"""New snapshots in containers: what goes around them, by whom it can be read, and what stays as it is."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from snaptool.cli.options import container_option
from snaptool.containers.streams import import_zstd
from snaptool.containers.wrap import CHOICES
from tests.cli.test_containers import VECTORS, inspect
from tests.support.cli import Snaptool


def unzstd(data: bytes) -> bytes:
    content: bytes = import_zstd().decompress(data)
    return content


def only_entry(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (one,) = archive.infolist()
        return archive.read(one)


READERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "new.db.gz": ("gzip", gzip.decompress),
    "new.db.zst": ("zstd", unzstd),
    "new.db.xz": ("xz", lzma.decompress),
    "new.db.bz2": ("bzip2", bz2.decompress),
    "new.zip": ("zip:new", only_entry),
}


def test_choices_of_the_command_are_those_of_the_library() -> None:
    def command() -> None:
        """Nothing."""

    (option,) = container_option(command).__click_params__  # type: ignore[attr-defined]
    assert tuple(option.type.choices) == CHOICES


@pytest.mark.parametrize("name", READERS)
def test_66_the_suffix_of_the_target_says_what_goes_around_it(snaptool: Snaptool, name: str) -> None:
    source, target = snaptool.sample("aescbc-cluster.db"), snaptool.folder / name
    plain, again = snaptool.folder / "plain.db", snaptool.folder / f"again-{name}"
    assert snaptool("repair", source, plain, makes=[plain]).code == 0
    ran = snaptool("repair", source, target, "-o", "json", makes=[target])
    layer, read = READERS[name]
    packed = ran.json["target"]["container"]
    assert packed["layers"] == [layer]
    assert (packed["size"], packed["sha256"]) == (
        target.stat().st_size,
        hashlib.sha256(target.read_bytes()).hexdigest(),
    )
    assert read(target.read_bytes()) == plain.read_bytes()
    assert ran.json["target"]["sha256"] == hashlib.sha256(plain.read_bytes()).hexdigest()
    assert target.stat().st_mode & 0o777 == 0o600
    assert inspect(snaptool, target).json["container"]["layers"] == [layer]
    assert snaptool("repair", source, again, "--container", "auto", makes=[again]).code == 0
    if not name.endswith(".zip"):  # which names its entry after the target
        assert again.read_bytes() == target.read_bytes()


@pytest.mark.parametrize(("name", "program"), [("new.db.gz", "gzip"), ("new.db.xz", "xz"), ("new.db.bz2", "bzip2")])
def test_66_the_system_s_own_programs_test_what_was_written(snaptool: Snaptool, name: str, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed here")
    target = snaptool.folder / name
    assert snaptool("repair", snaptool.sample("aescbc-cluster.db"), target, makes=[target]).code == 0
    subprocess.run([program, "-t", str(target)], check=True)


def test_any_other_name_is_a_plain_snapshot_whatever_the_source_was_in(snaptool: Snaptool) -> None:
    for number, source in enumerate(["zip/k3s/etcd-snapshot-node-1-1767323045.zip", "tar/kubespray.tar.gz"]):
        target = snaptool.folder / f"new-{number}.db"
        ran = snaptool("repair", VECTORS / source, target, "-o", "json", makes=[target])
        assert "container" not in ran.json["target"]
        assert inspect(snaptool, target).json["container"] is None


def test_67_k3s_zip_has_one_entry_named_after_the_target(snaptool: Snaptool) -> None:
    target = snaptool.folder / "etcd-snapshot-new-1767323999.zip"
    source = VECTORS / "zip/k3s/etcd-snapshot-node-1-1767323045.zip"
    for words in ([], ["--container", "same", "--force"]):
        makes, replaces = ([target], []) if not words else ([], [target])
        assert snaptool("repair", source, target, *words, makes=makes, replaces=replaces).code == 0
        with zipfile.ZipFile(target) as archive:
            (one,) = archive.infolist()
        assert (one.filename, one.compress_type) == ("etcd-snapshot-new-1767323999", zipfile.ZIP_DEFLATED)
        assert one.external_attr >> 16 == 0o100600


def test_rke1_zip_keeps_its_state_file_under_the_target_s_name(snaptool: Snaptool) -> None:
    source = VECTORS / "zip/rke1/c-abc12-rl-7xk2p_2026-01-02T03-04-05Z.zip"
    target = snaptool.folder / "after.zip"
    assert snaptool("repair", source, target, makes=[target]).code == 0
    with zipfile.ZipFile(target) as new, zipfile.ZipFile(source) as old:
        assert [one.filename for one in new.infolist()] == ["/backup/after", "/etc/kubernetes/after.rkestate"]
        state = next(name for name in old.namelist() if name.endswith(".rkestate"))
        assert new.read("/etc/kubernetes/after.rkestate") == old.read(state)


@pytest.mark.parametrize(
    ("source", "name", "changed"),
    [
        ("tar/k0s_backup_2026-01-02T03_04_05_000Z.tar.gz", "k0s_backup_new.tar.gz", "etcd-snapshot.db"),
        ("tar/vcluster-etcd.tar.gz", "new.tgz", "/vcluster/snapshot/db"),
        ("openshift/backup.tar.gz", "new.tar.gz", "backup/snapshot_2026-01-02_030405.db"),
    ],
)
def test_43_tar_with_what_a_restore_needs_keeps_every_other_entry(
    snaptool: Snaptool, source: str, name: str, changed: str
) -> None:
    target = snaptool.folder / name
    ran = snaptool("repair", VECTORS / source, target, "-o", "json", makes=[target])
    assert ran.json["target"]["container"]["layers"] == ["gzip", f"tar:{changed}"]
    with tarfile.open(VECTORS / source) as old, tarfile.open(target) as new:
        assert [one.name for one in new] == [one.name for one in old]
        for before, after in zip(old.getmembers(), new.getmembers(), strict=True):
            known = (before.mode, before.uid, before.gid, before.uname, before.mtime, before.type)
            assert (after.mode, after.uid, after.gid, after.uname, after.mtime, after.type) == known
            if before.isfile() and after.name.strip("./") != changed.strip("./"):
                assert new.extractfile(after).read() == old.extractfile(before).read()  # type: ignore[union-attr]
    assert inspect(snaptool, target).json["file"]["trailer"] == "ok"


@pytest.mark.parametrize(
    "name", ["xz.tar.xz", "zst.tar.zst", "bz2.tar.bz2", "charmed-plain.tar", "pax-long-name.tar.gz"]
)
def test_same_takes_over_the_layers_of_a_tar(snaptool: Snaptool, name: str) -> None:
    source, target = VECTORS / "tar" / name, snaptool.folder / name
    layers = inspect(snaptool, source).json["container"]["layers"]
    assert snaptool("repair", source, target, "--container", "same", makes=[target]).code == 0
    assert inspect(snaptool, target).json["container"]["layers"] == layers


def test_same_keeps_a_sparse_file_s_neighbours(snaptool: Snaptool) -> None:
    if shutil.which("tar") is None:
        pytest.skip("GNU tar is not installed here")
    database = snaptool.sample("aescbc-cluster.db", "snapshot.db")
    with database.open("r+b") as file:
        content = file.read()
    folder = snaptool.folder / "in"
    folder.mkdir()
    for format_ in ("gnu", "posix"):
        bare = folder / "db"
        with bare.open("wb") as file:  # a live file that has grown: no trailer, a hole behind its pages
            file.write(content[:-32])
            file.truncate(len(content) - 32 + (8 << 20))
        (folder / "z.txt").write_text("after it")
        source = snaptool.folder / f"{format_}.tar"
        subprocess.run(["tar", "-S", f"--format={format_}", "-cf", source, "-C", folder, "db", "z.txt"], check=True)
        assert source.stat().st_size < 1 << 20, "tar has made it sparse"
        assert inspect(snaptool, source).json["file"]["size"] == len(content) - 32 + (8 << 20)
        target = snaptool.folder / f"new-{format_}.tar"
        assert snaptool("repair", source, target, "--container", "same", makes=[target]).code == 0
        with tarfile.open(target) as archive:
            assert archive.getnames() == ["db", "z.txt"]
            assert archive.extractfile("z.txt").read() == b"after it"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("zip/k3s/etcd-snapshot-node-1-1767323045.zip", "new.tar.gz", []),
        ("plain/member-snap-db", "new.tgz", []),
        ("plain/member-snap-db", "new.db", ["--container", "same"]),
        ("plain/member-snap-db", "new/", []),
        ("openshift/backup.tar.gz", "new/", []),
        ("stream/lzma-alone.db.lzma", "new.db", ["--container", "same"]),
        ("tar/gz-inside.tar.gz", "new.db", ["--container", "same"]),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    snaptool: Snaptool, source: str, name: str, words: list[str]
) -> None:
    ran = snaptool("repair", VECTORS / source, f"{snaptool.folder}/{name}", "-o", "json", *words)
    assert (ran.code, ran.json["error"]["code"]) == (2, "container_target"), ran.text


def test_rewrite_and_salvage_write_containers_too(snaptool: Snaptool) -> None:
    source, config = snaptool.sample("aescbc-cluster.db"), snaptool.sample("aescbc.yaml")
    target = snaptool.folder / "new.db.gz"
    ran = snaptool("rewrite", source, target, "--config", config, "--decrypt", "-o", "json", makes=[target])
    assert ran.json["target"]["container"]["layers"] == ["gzip"], ran.text
    saved = snaptool.folder / "saved.zip"
    ran = snaptool("repair", "--salvage", source, saved, "-o", "json", makes=[saved])
    assert ran.json["target"]["container"]["layers"] == ["zip:saved"]


def test_salvage_goes_on_with_what_was_unpacked(snaptool: Snaptool) -> None:
    whole = gzip.compress(snaptool.sample("aescbc-cluster.db").read_bytes())
    cut = snaptool.write("cut.db.gz", whole[: len(whole) * 3 // 4])
    assert inspect(snaptool, cut).json["error"]["code"] == "container_truncated"
    target = snaptool.folder / "saved.db"
    ran = snaptool("repair", "--salvage", cut, target, "-o", "json", makes=[target])
    assert ran.json["records"]["total"] > 0
    assert "going on with" in ran.stderr


def test_the_source_s_container_is_never_the_target(snaptool: Snaptool) -> None:
    source = snaptool.folder / "backup.zip"
    shutil.copy2(VECTORS / "zip/k3s/etcd-snapshot-node-1-1767323045.zip", source)
    ran = snaptool("repair", source, source, "--force", "-o", "json")
    assert ran.code == 2
    backup = Path(shutil.copytree(VECTORS / "openshift/dir", snaptool.folder / "backup"))
    tar = backup / "static_kuberesources_2026-01-02_030405.tar.gz"
    ran = snaptool("repair", backup, tar, "--force", "--container", "plain", "-o", "json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "target_is_read")


# --- directories ---


def repaired_into_folder(snaptool: Snaptool, source: str, names: list[str], *words: str) -> Path:
    target = snaptool.folder / "new"
    ran = snaptool("repair", VECTORS / source, f"{target}/", *words, makes=[target / name for name in names])
    assert ran.code == 0, ran.text
    assert all(path.stat().st_mode & 0o077 == 0 for path in (target, *target.rglob("*")))
    return target


def test_43_openshift_directory_keeps_the_second_file(snaptool: Snaptool) -> None:
    names = ["snapshot_2026-01-02_030405.db", "static_kuberesources_2026-01-02_030405.tar.gz"]
    target = repaired_into_folder(snaptool, "openshift/dir", names)
    assert (target / names[1]).read_bytes() == (VECTORS / "openshift/dir" / names[1]).read_bytes()
    assert inspect(snaptool, target).json["container"]["layers"] == [f"directory:{names[0]}"]
    ran = snaptool("repair", VECTORS / "openshift/dir", f"{target}/", "-o", "json")
    assert ran.code == 2


def test_44_kops_directory_keeps_its_meta(snaptool: Snaptool) -> None:
    target = repaired_into_folder(snaptool, "kops", ["etcd.backup.gz", "_etcd_backup.meta"])
    (meta,) = (VECTORS / "kops").rglob("_etcd_backup.meta")
    assert (target / "_etcd_backup.meta").read_bytes() == meta.read_bytes()
    assert inspect(snaptool, target).json["container"]["layers"] == ["directory:etcd.backup.gz", "gzip"]


def test_57_gardener_directory_is_one_full_snapshot_at_the_last_revision(snaptool: Snaptool) -> None:
    name = "v2/Full-00000000-00000018-1795876711.gz"
    target = repaired_into_folder(snaptool, "gardener/lzw", [name])
    ran = inspect(snaptool, target)
    assert ran.json["container"]["layers"] == [f"directory:{name}", "gzip"]
    assert (ran.json["etcd"]["revision"], ran.json["file"]["trailer"]) == (18, "ok")
