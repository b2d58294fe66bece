"""Older revisions that come back: held to a plain model of the history, and served by a real etcd as any store is."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from snaptool.etcd import KeyValue, Snapshot, decode_key_value, decode_revision_key
from snaptool.kube.objects import plausible
from snaptool.operations.older import Earlier
from snaptool.operations.opening import open_snapshot
from snaptool.operations.plan import RewriteRequest, Undecryptable
from snaptool.operations.rewrite import rewrite
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import GroupResource, Keyring
from snaptool.scratch.server import EtcdBinaries, ScratchEtcd
from tests.support.etcd import etcd_binaries, scratch_parent
from tests.support.history import Store
from tests.support.snapshots import NEW_SECRET, OLD_SECRET, config

__all__ = ["etcd_binaries", "scratch_parent"]

KNOWN = parse_config(config("aesgcm", name="known", secret=OLD_SECRET).encode())
LOST = parse_config(config("aesgcm", name="lost", secret=NEW_SECRET).encode())
FRESH = parse_config(config("secretbox", name="fresh", secret=OLD_SECRET).encode())
SECRETS = GroupResource("secrets", "")


@dataclass
class Put:
    """One put: where it stands in the life of its key, what it holds, and whether its key is lost."""

    revision: int
    created: int
    content: bytes
    lost: bool


@dataclass
class World:
    """A store, what was put in, and the backup that was taken half-way."""

    store: Store = field(default_factory=Store)
    puts: dict[bytes, list[Put]] = field(default_factory=dict)
    backup: bytes = b""
    backed_up: int = 0


def make(seed: int) -> World:
    rng, world = random.Random(seed), World()
    names = [f"/registry/secrets/ns-{number % 2}/name-{number}".encode() for number in range(9)]
    for step in range(60):
        key, chance = rng.choice(names), rng.random()
        if step == 30:
            world.backup, world.backed_up = world.store.snapshot(), world.store.revision
            world.store.compact(world.store.revision - rng.randint(0, 5), new_rule=True)
        if chance < 0.12:
            world.store.delete(key)
            continue
        lost = rng.random() < (0.2 if step < 30 else 0.6)
        tree = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": key.decode()[-6:]}, "type": f"{step}"}
        content = json.dumps(tree).encode() + b"\n"
        world.store.put(key, Keyring((LOST if lost else KNOWN,)).chain_for(SECRETS).seal(content, key))
        created = decode_key_value(world.store.records[-1][1]).create_revision
        world.puts.setdefault(key, []).append(Put(world.store.revision, created, content, lost))
    return world


def live(path: Path) -> dict[bytes, KeyValue]:
    found: dict[bytes, KeyValue] = {}
    with open_snapshot(path) as opened:
        for stored_key, stored in opened.snapshot.items(b"key"):
            record = decode_key_value(stored)
            if decode_revision_key(stored_key)[1]:
                found.pop(record.key, None)
            else:
                found[record.key] = record
    return found


def expected(world: World, before: dict[bytes, KeyValue], *, backup: bool) -> dict[bytes, tuple[int, bytes]]:
    """The model: for every live key, the revision whose content it has afterwards, and that content."""
    stored = {decode_revision_key(key)[0].main for key, _ in world.store.records}
    found = {}
    for key, record in before.items():
        puts = [put for put in world.puts[key] if put.created == record.create_revision]
        current, past = puts[-1], puts[:-1]
        if not current.lost:
            found[key] = current.revision, current.content
            continue
        here = [put for put in past if put.revision in stored and not put.lost]
        there = [put for put in past if backup and put.revision <= world.backed_up and not put.lost]
        if here or there:
            best = (here or there)[-1]
            found[key] = best.revision, best.content
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("backup", "fresh"), [(False, False), (True, False), (True, True)])
def test_contents_and_revisions_are_those_of_the_model(tmp_path: Path, seed: int, *, backup: bool, fresh: bool) -> None:
    world = make(seed)
    source, target, earlier = tmp_path / "today.db", tmp_path / "new.db", tmp_path / "before.db"
    source.write_bytes(world.store.snapshot())
    earlier.write_bytes(world.backup)
    before = live(source)
    reading = Keyring((KNOWN,), plausible=plausible)
    writing = Keyring((FRESH if fresh else KNOWN,), plausible=plausible)
    with open_snapshot(source) as opened, open_snapshot(earlier) as older:
        request = RewriteRequest(
            reading=reading,
            writing=writing,
            undecryptable=Undecryptable.OLDER,
            only_lost=not fresh,
            earlier=(Earlier(older, reading),) if backup else (),
        )
        report = rewrite(opened, target, request)
    want, after = expected(world, before, backup=backup), live(target)
    assert after.keys() == want.keys()
    for key, (revision, content) in want.items():
        opening = writing.chain_for(SECRETS).unseal(after[key].value, key)
        assert (opening.plaintext, opening.stale) == (content, False)
        for same in ("create_revision", "mod_revision", "version", "lease"):
            assert getattr(after[key], same) == getattr(before[key], same)
        if revision == before[key].mod_revision and not fresh:
            assert after[key] == before[key]
    assert {one.key: one.from_revision for one in report.restored} == {
        key: revision for key, (revision, _) in want.items() if revision != before[key].mod_revision
    }
    assert report.target is not None
    assert report.target.revision == report.source.revision


@pytest.mark.parametrize("seed", [1, 4])
def test_etcd_lists_gets_and_tells_watchers_what_came_back(
    seed: int, etcd_binaries: EtcdBinaries, scratch_parent: Path, tmp_path: Path
) -> None:
    world = make(seed)
    source, target = tmp_path / "today.db", tmp_path / "new.db"
    source.write_bytes(world.store.snapshot())
    reading = Keyring((KNOWN,), plausible=plausible)
    with open_snapshot(source) as opened:
        request = RewriteRequest(reading=reading, writing=reading, undecryptable=Undecryptable.OLDER, only_lost=True)
        report = rewrite(opened, target, request)
    assert report.restored, "a seed for which nothing comes back proves nothing"
    after, written = live(target), Snapshot(target.read_bytes())
    with ScratchEtcd.restore(target, binaries=etcd_binaries, parent=scratch_parent) as server:
        client = server.client()
        assert client.status().revision == written.current_revision == report.source.revision
        assert client.hashkv().hash == written.hashkv(0).hash
        listed = {served.key: served for page in client.pages(revision=0) for served in page}
        assert {key: served.value for key, served in listed.items()} == {key: kv.value for key, kv in after.items()}
        for one in report.restored:
            served = client.get(one.key)
            assert served is not None
            assert (served.mod_revision, served.value) == (one.revision, after[one.key].value)
            opened_value = reading.chain_for(SECRETS).unseal(served.value, one.key).plaintext
            assert opened_value == next(put.content for put in world.puts[one.key] if put.revision == one.from_revision)
        first = written.compacted_revision + 1
        told = {
            event.mod_revision: event
            for event in client.events(first, written.current_revision)
            if event.mod_revision in {one.revision for one in report.restored}
        }
        for one in report.restored:
            if one.revision >= first:
                assert told[one.revision].value == after[one.key].value
        put = client.put(report.restored[0].key, b"next")
        served = client.get(report.restored[0].key)
        assert served is not None
        assert (served.mod_revision, served.version) == (put, after[report.restored[0].key].version + 1)
