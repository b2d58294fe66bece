"""What to do next with a file that was written, by the platform that it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaptool.operations.platform import platform_next


@pytest.mark.parametrize("platform", ["k3s", "rke2", "rke1", "openshift", "kops", "gardener", "k0s", "talos", "omni"])
def test_every_platform_has_its_own_way_and_names_the_file(platform: str) -> None:
    steps = platform_next([platform], Path("/backup/new file.db"), (), bootstrap=False)
    (restore,) = [step for step in steps if step.code == "restore"]
    text = "\n".join(restore.lines)
    assert "etcdutl" not in text
    assert "FILE" not in text
    assert "'/backup/new file.db'" in text or platform == "rke1"


@pytest.mark.parametrize("platform", [[], ["kubeadm"], ["vcluster"]])
def test_without_a_way_of_its_own_etcdutl_restores(platform: list[str]) -> None:
    (step,) = platform_next(platform, Path("new.db"), (), bootstrap=False)
    assert "etcdutl snapshot restore new.db" in "\n".join(step.lines)


@pytest.mark.parametrize(
    ("name", "layers", "command"),
    [
        ("new.db.gz", ("gzip",), "gzip -dc new.db.gz > new.db"),
        ("new.db.zst", ("zstd",), "zstd -dc new.db.zst > new.db"),
        ("new.zip", ("zip:new",), "unzip -p new.zip new > new.db"),
        ("b.tar.gz", ("gzip", "tar:./db"), "tar -xOf b.tar.gz ./db > b.db"),
    ],
)
def test_what_no_restore_takes_is_unpacked_first(name: str, layers: tuple[str, ...], command: str) -> None:
    unpack, restore = platform_next([], Path(name), layers, bootstrap=False)
    assert (unpack.code, command in "\n".join(unpack.lines)) == ("unpack", True)
    assert name not in "\n".join(restore.lines)


def test_k3s_gets_a_plain_file_and_is_told_about_bootstrap() -> None:
    steps = platform_next(["k3s"], Path("new.zip"), ("zip:new",), bootstrap=True)
    assert [step.code for step in steps] == ["unpack", "restore", "bootstrap"]
    assert "--cluster-reset-restore-path=new.db" in "\n".join(steps[1].lines)


def test_rke1_takes_its_zip() -> None:
    steps = platform_next(["rke1"], Path("new.zip"), ("zip:/backup/new",), bootstrap=False)
    assert [step.code for step in steps] == ["restore"]


def test_openshift_needs_the_directory_of_both_files() -> None:
    layers = ("gzip", "tar:backup/snapshot_2026-01-02_030405.db")
    unpack, restore = platform_next(["openshift"], Path("new.tar.gz"), layers, bootstrap=False)
    assert unpack.lines[-1].strip() == "tar -xf new.tar.gz"
    assert "backup/snapshot_2026-01-02_030405.db" in "\n".join(restore.lines)
