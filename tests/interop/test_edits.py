"""Edited histories on a real etcd: what it serves, hashes and writes next is what the rules promise."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from snaptool.etcd import Editor, Snapshot, decode_key_value, decode_revision_key, server_generation
from snaptool.scratch.server import EtcdBinaries, ScratchEtcd
from tests.support.etcd import etcd_binaries, scratch_parent
from tests.support.history import boot, random_store, rewritten

__all__ = ["etcd_binaries", "scratch_parent"]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("compact", [False, True], ids=["kept", "compacted"])
def test_etcd_goes_on_from_an_edited_history(
    seed: int, compact: object, etcd_binaries: EtcdBinaries, scratch_parent: Path, tmp_path: Path
) -> None:
    generation = server_generation(*etcd_binaries.version)
    rng = random.Random(seed)
    store = random_store(seed, operations=60, keys=6, new_rule=generation.keeps_tombstones)
    source = Snapshot(store.snapshot())
    lost: dict[bytes, list[int]] = {}
    for number, (stored_key, stored_value) in enumerate(store.records):
        if rng.random() < 0.12 and not decode_revision_key(stored_key)[1]:
            lost.setdefault(decode_key_value(stored_value).key, []).append(number)
    editor = Editor(source, lost)
    for key, numbers in lost.items():
        editor.forget(key, numbers)
    if compact:
        editor.compact()
    written = rewritten(source, editor.finish())
    target = Snapshot(written)
    (tmp_path / "edited.db").write_bytes(written)

    booted = boot(list(target.items(b"key")), generation, target.finished_compaction, target.scheduled_compaction)
    before = boot(store.records, generation, store.finished, store.scheduled)
    with ScratchEtcd.restore(tmp_path / "edited.db", binaries=etcd_binaries, parent=scratch_parent) as server:
        client = server.client()
        assert client.status().revision == booted.revision == before.revision
        compacted = target.hashkv(0, generation).compact_revision
        for at in range(max(compacted + 1, 2), booted.revision + 1):
            served = client.hashkv(at)
            assert served.hash == target.hashkv(at, generation).hash
            assert served.compact_revision == compacted
            for key in store.index:
                found = client.get(key, revision=at)
                revision = booted.get(key, at)
                assert (None if found is None else found.mod_revision) == (None if revision is None else revision.main)
        for key in sorted(store.index):
            created, version = booted.next_put(key)
            booted.revision += 1
            client.put(key, b"next")
            now = client.get(key)
            assert now is not None
            assert (now.create_revision, now.version) == (created, version)
            if key not in lost:
                assert (created == booted.revision) == (before.get(key, before.revision) is None)
        client.compact(booted.revision)
        client.defragment()
        assert {key for page in client.pages(revision=booted.revision) for key in (one.key for one in page)} == {
            *store.index
        }
