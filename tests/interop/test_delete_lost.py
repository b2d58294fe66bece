"""Deleting what is lost, alone and joined with a compaction, on every etcd that is installed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from snaptool.etcd import (
    Snapshot,
    compact,
    decode_key_value,
    decode_revision_key,
    delete_lost,
    merge,
    server_generation,
)
from snaptool.scratch.server import EtcdBinaries, ScratchEtcd
from tests.support.etcd import etcd_binaries, every_etcd, scratch_parent
from tests.support.history import Store, boot, random_store, rewritten

__all__ = ["etcd_binaries", "every_etcd", "scratch_parent"]

LAST = b"/last"


def store_with_losses(seed: int) -> tuple[Store, dict[bytes, list[int]]]:
    """A random store in which LAST holds the highest revision, and lost records: that one, live ones and older ones."""
    store, rng = random_store(seed, operations=40, keys=6), random.Random(seed)
    store.revision = max(store.revision, store.scheduled or 0)
    store.put(LAST, b"lost too")
    lost: dict[bytes, list[int]] = {}
    for number, (stored_key, stored_value) in enumerate(store.records):
        key = decode_key_value(stored_value).key
        if not decode_revision_key(stored_key)[1] and (key == LAST or rng.random() < 0.2):
            lost.setdefault(key, []).append(number)
    return store, lost


# In both stores are lost: whole keys, old values of keys that live in a later generation, values of deleted keys.
@pytest.mark.parametrize("seed", [21, 24])
@pytest.mark.parametrize("compacted", [False, True], ids=["kept", "compacted"])
def test_etcd_goes_on_without_what_is_lost(
    seed: int, compacted: object, every_etcd: EtcdBinaries, scratch_parent: Path
) -> None:
    generation = server_generation(*every_etcd.version)
    store, lost = store_with_losses(seed)
    source = Snapshot(store.snapshot())
    edits = delete_lost(source, lost)
    if compacted:
        edits = merge(edits, compact(source))
    written = rewritten(source, edits)
    target = Snapshot(written)
    records = list(target.items(b"key"))
    assert not {store.records[number] for numbers in lost.values() for number in numbers} & set(records)
    before = boot(store.records, generation, store.finished, store.scheduled)
    gone = {key for key, history in source.history_of(lost).items() if history[-1].number in lost[key]}
    with ScratchEtcd.restore(memoryview(written), binaries=every_etcd, parent=scratch_parent) as server:
        client = server.client()
        assert client.status().revision == before.revision == store.revision
        assert client.hashkv().hash == target.hashkv(0, generation).hash
        assert LAST in gone
        for key in sorted(store.index):
            expected, served = before.get(key, before.revision), client.get(key)
            if key in gone:
                assert served is None
            else:
                assert (served and served.mod_revision) == (expected and expected.main)
        for main, key in enumerate(sorted(store.index), start=before.revision + 1):
            assert client.put(key, b"next") == main
            served = client.get(key)
            assert served is not None
            created, version = before.next_put(key)
            continues = key not in gone and version > 1
            assert (served.create_revision, served.version) == ((created, version) if continues else (main, 1))
        client.compact(client.status().revision)
        client.defragment()
        assert sum(len(page) for page in client.pages(revision=0)) == len(store.index)
