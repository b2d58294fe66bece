"""Two snapshots compared by plaintext."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaptool.operations.diff import Differences, DiffSide, diff
from snaptool.operations.opening import WrongTrailer, open_snapshot
from tests.support.stored import write_history
from tests.unit.operations.builders import OBJECT, SAMPLES, keyring, sample_keyring, seal_cbc, seal_gcm

A, B = bytes(range(32)), bytes(range(32, 64))
CBC, GCM = keyring("aescbc", ("k", A)), keyring("aesgcm", ("k", B))
ONE, TWO, THREE = (b"/registry/secrets/a/" + name for name in (b"one", b"three", b"two"))


def names(differences: Differences) -> list[str]:
    return [one.name for one in differences]


def test_a_snapshot_equals_itself_without_any_key() -> None:
    with open_snapshot(SAMPLES / "lost-key.db") as a, open_snapshot(SAMPLES / "lost-key.db") as b:
        found = diff(DiffSide(a), DiffSide(b))
        assert (found.same, found.differs, len(found.undecided), len(found.re_encrypted)) == (34, False, 0, 0)


def test_values_under_other_keys_are_re_encrypted_and_not_changed(tmp_path: Path) -> None:
    before = [(ONE, seal_cbc("k", A, OBJECT)), (TWO, seal_cbc("k", A, OBJECT)), (THREE, OBJECT)]
    after = [
        (ONE, seal_gcm("k", B, OBJECT, ONE)),
        (TWO, seal_gcm("k", B, OBJECT + b" ", TWO)),
        (THREE, seal_gcm("k", B, OBJECT, THREE)),
    ]
    with (
        open_snapshot(write_history(tmp_path / "a", before)) as a,
        open_snapshot(write_history(tmp_path / "b", after)) as b,
    ):
        found = diff(DiffSide(a, CBC), DiffSide(b, GCM))
        assert names(found.re_encrypted) == ["one", "two"]
        assert names(found.changed) == ["three"]
        assert (found.same, len(found.added), len(found.removed), len(found.undecided)) == (0, 0, 0, 0)
        assert found.differs
        ways = [(way.from_header.provider, way.from_key, way.to_header.provider, way.count) for way in found.recoded()]
        assert ways == [("identity", "", "aesgcm", 1), ("aescbc", "k", "aesgcm", 1)]


def test_added_and_removed_keys_are_told_in_order_and_deleted_ones_are_gone(tmp_path: Path) -> None:
    before = [(TWO, OBJECT), (ONE, OBJECT), (THREE, OBJECT), (THREE, None)]
    after = [(THREE, OBJECT), (TWO, OBJECT), (b"a", OBJECT), (b"z", OBJECT)]
    with (
        open_snapshot(write_history(tmp_path / "a", before)) as a,
        open_snapshot(write_history(tmp_path / "b", after)) as b,
    ):
        found = diff(DiffSide(a), DiffSide(b))
        assert [one.key for one in found.added] == [b"/registry/secrets/a/two", b"a", b"z"]
        assert [one.key for one in found.removed] == [ONE]
        assert found.same == 1
        (removed,) = found.removed
        assert removed.a is not None
        assert (removed.a.revision.main, removed.b, removed.resource, removed.namespace) == (3, None, "secrets", "a")


def test_what_does_not_open_is_undecided_unless_its_bytes_are_the_same(tmp_path: Path) -> None:
    same = seal_cbc("lost", A, OBJECT)
    before = [(ONE, same), (TWO, seal_cbc("lost", A, OBJECT)), (THREE, seal_cbc("k", A, OBJECT))]
    after = [(ONE, same), (TWO, seal_cbc("lost", A, OBJECT, bytes(range(16)))), (THREE, OBJECT)]
    with (
        open_snapshot(write_history(tmp_path / "a", before)) as a,
        open_snapshot(write_history(tmp_path / "b", after)) as b,
    ):
        found = diff(DiffSide(a, CBC), DiffSide(b, CBC))
        assert (found.same, names(found.undecided), names(found.re_encrypted)) == (1, ["three"], ["two"])
        assert not found.differs
        (one,) = found.undecided
        assert one.a is not None
        assert "none with the name 'lost'" in one.a.reason
        without_keys = diff(DiffSide(a), DiffSide(b))
        assert names(without_keys.undecided) == ["three", "two"]


def test_samples_of_two_clusters_differ_as_they_were_made() -> None:
    with (
        open_snapshot(SAMPLES / "aescbc-cluster.db") as a,
        open_snapshot(SAMPLES / "mixed-providers.db") as b,
    ):
        found = diff(DiffSide(a, sample_keyring("aescbc.yaml")), DiffSide(b, sample_keyring("mixed.yaml")))
        assert names(found.removed) == ["smtp"]
        assert [one.name for one in found.added if one.resource == "secrets"] == [
            "forgotten",
            "often-changed",
            "rotated-since",
            "queue",
            "recreated",
        ]
        assert names(found.changed) == ["settings", "node-1", "database", "compact_rev_key"]
        assert len(found.re_encrypted) == 7
        assert len(found.undecided) == 0


@pytest.mark.parametrize("jobs", [1, 2])
def test_worker_processes_find_the_same(jobs: int) -> None:
    with (
        open_snapshot(SAMPLES / "aescbc-cluster.db") as a,
        open_snapshot(SAMPLES / "mixed-providers.db") as b,
    ):
        found = diff(DiffSide(a, sample_keyring("aescbc.yaml")), DiffSide(b, sample_keyring("mixed.yaml")), jobs=jobs)
        assert len(found.re_encrypted) == 7


def test_empty_snapshots_are_the_same_and_everything_is_new_to_them(tmp_path: Path) -> None:
    with (
        open_snapshot(write_history(tmp_path / "a", [])) as a,
        open_snapshot(write_history(tmp_path / "b", [(ONE, OBJECT)])) as b,
    ):
        assert not diff(DiffSide(a), DiffSide(a)).differs
        assert names(diff(DiffSide(a), DiffSide(b)).added) == ["one"]


def test_a_wrong_trailer_on_either_side_stops(tmp_path: Path) -> None:
    content = (SAMPLES / "lost-key.db").read_bytes()
    (tmp_path / "db").write_bytes(content[:-1] + bytes((content[-1] ^ 1,)))
    with open_snapshot(SAMPLES / "lost-key.db") as right, open_snapshot(tmp_path / "db") as wrong:
        with pytest.raises(WrongTrailer):
            diff(DiffSide(right), DiffSide(wrong))
        with pytest.raises(WrongTrailer):
            diff(DiffSide(wrong), DiffSide(right))
        assert diff(DiffSide(wrong), DiffSide(right), skip_hash_check=True).same == 34
