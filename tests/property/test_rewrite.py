"""Laws of rewriting: random histories under random providers, rewritten in every way, compared with what was put in."""

from __future__ import annotations

import base64
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaptool.etcd import KeyValue, decode_key_value, decode_revision_key
from snaptool.kube.objects import plausible
from snaptool.operations.crypto import SeededRandomness
from snaptool.operations.opening import open_snapshot
from snaptool.operations.plan import RewriteRequest, Undecryptable
from snaptool.operations.rewrite import RewriteReport, repair, rewrite
from snaptool.providers.config.model import EncryptionConfig, LocalConfig
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import GroupResource, Keyring
from tests.support.history import Store
from tests.support.snapshots import envelope

PROVIDERS = ("secretbox", "aesgcm", "aescbc")
COVERED = ("secrets", "configmaps")
SEEDS = st.integers(0, 1 << 32)
LAW = settings(max_examples=7, deadline=None)
LONG = settings(max_examples=400, deadline=None)

Place = tuple[bytes, int, int]
"""Key, main and sub revision."""


@dataclass(frozen=True)
class World:
    """A history, how each of its values was sealed, and what was put in."""

    path: Path
    configs: tuple[EncryptionConfig, ...]
    plaintexts: dict[Place, bytes]

    @property
    def keyring(self) -> Keyring:
        return Keyring(self.configs, plausible=plausible)


def random_config(rng: random.Random, label: str, *, first: str = "") -> EncryptionConfig:
    """One entry for all that is encrypted, one to three providers with one to three keys, identity somewhere."""
    kinds = rng.sample(PROVIDERS, rng.randint(1, 3))
    if first:
        kinds = [first, *(kind for kind in kinds if kind != first)]
    lines = [f"  - resources: [{', '.join(COVERED)}]", "    providers:"]
    for kind in kinds:
        keys = ", ".join(
            f"{{name: {label}-{kind}-{number}, secret: {base64.b64encode(rng.randbytes(32)).decode()}}}"
            for number in range(rng.randint(1, 3))
        )
        lines.append(f"    - {kind}: {{keys: [{keys}]}}")
    lines.append("    - identity: {}")
    text = "\n".join(["apiVersion: apiserver.config.k8s.io/v1", "kind: EncryptionConfiguration", "resources:", *lines])
    return parse_config(text.encode(), name=label)


def seal(rng: random.Random, config: EncryptionConfig, plaintext: bytes, key: bytes) -> bytes:
    """Seal with any key of a configuration: as an older order of its keys would have."""
    (entry,) = config.entries
    provider = rng.choice(entry.providers[:-1])
    assert isinstance(provider, LocalConfig)
    older = replace(provider, keys=(rng.choice(provider.keys),))
    chain = Keyring((replace(config, entries=(replace(entry, providers=(older,)),)),)).chain_for(
        GroupResource("secrets", "")
    )
    return chain.seal(plaintext, key, rng.randbytes)


def random_history(rng: random.Random, configs: tuple[EncryptionConfig, ...], path: Path) -> World:
    store, plaintexts = Store(), {}
    names = [
        f"/registry/{kind}/ns-{number % 2}/name-{number}".encode()
        for number in range(8)
        for kind in ("secrets", "configmaps", "pods")
    ]
    for step in range(rng.randint(1, 60)):
        chance = rng.random()
        if chance < 0.15:
            store.delete(rng.choice(names))
        elif chance < 0.2 and store.revision > max(store.finished or 1, 2):
            store.compact(rng.randint(max(store.finished or 1, 1) + 1, store.revision), new_rule=rng.random() < 0.5)
        else:
            changes: list[tuple[bytes, bytes | None, int]] = []
            for key in rng.sample(names, rng.randint(1, 4)):
                raw = rng.randbytes(rng.choice((0, 1, 40, 700, 5000)))
                plaintext = envelope("v1", "Thing", b"%b %d " % (key, step) + raw)
                sealed = b"/pods/" not in key and rng.random() < 0.8
                value = seal(rng, rng.choice(configs), plaintext, key) if sealed else plaintext
                plaintexts[key, store.revision + 1, len(changes)] = plaintext
                changes.append((key, value, rng.choice((0, 77))))
            store.txn(changes)
    path.write_bytes(store.snapshot(page_size=rng.choice((1024, 4096, 16384))))
    return World(path, configs, {place: plaintexts[place] for place in places(path)})


def places(path: Path) -> dict[Place, KeyValue]:
    """Every put of a file."""
    found = {}
    with open_snapshot(path) as opened:
        for stored_key, stored in opened.snapshot.items(b"key"):
            revision, tombstone = decode_revision_key(stored_key)
            if not tombstone:
                record = decode_key_value(stored)
                found[record.key, revision.main, revision.sub] = record
    return found


def records(path: Path) -> list[tuple[bytes, bytes]]:
    with open_snapshot(path) as opened:
        return list(opened.snapshot.items(b"key"))


def plaintexts_of(path: Path, keyring: Keyring) -> dict[Place, bytes]:
    return {
        place: keyring.chain_for(GroupResource(place[0].split(b"/")[2].decode(), ""))
        .unseal(record.value, place[0])
        .plaintext
        for place, record in places(path).items()
    }


@contextmanager
def world(seed: int) -> Iterator[tuple[random.Random, World, Path]]:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        configs = tuple(random_config(rng, f"old{number}") for number in range(rng.randint(1, 2)))
        yield rng, random_history(rng, configs, Path(folder) / "source.db"), Path(folder)


def run(
    source: Path,
    target: Path,
    reading: Keyring,
    writing: EncryptionConfig | None,
    *,
    jobs: int = 1,
    undecryptable: Undecryptable = Undecryptable.STOP,
) -> RewriteReport:
    request = RewriteRequest(
        reading=reading,
        writing=Keyring((writing,) if writing else (), plausible=plausible),
        decrypt=writing is None,
        undecryptable=undecryptable,
        jobs=jobs,
        randomness=SeededRandomness(b"law"),
    )
    with open_snapshot(source) as opened:
        return rewrite(opened, target, request)


def check_repair_changes_no_record(seed: int) -> None:
    with world(seed) as (_, old, folder):
        with open_snapshot(old.path) as opened:
            report = repair(opened, folder / "new.db")
        assert report.verified
        assert records(folder / "new.db") == records(old.path)


def check_rewrite_under_the_same_first_key_changes_no_record(seed: int) -> None:
    with world(seed) as (rng, old, folder):
        new = random_config(rng, "new")
        run(old.path, folder / "new.db", old.keyring, new)
        report = run(folder / "new.db", folder / "again.db", Keyring((new,), plausible=plausible), new)
        assert report.records.rewritten == 0
        assert (folder / "again.db").read_bytes() == (folder / "new.db").read_bytes()


def check_plaintexts_survive_any_chain(seed: int) -> None:
    with world(seed) as (rng, old, folder):
        path, keyring = old.path, old.keyring
        assert plaintexts_of(path, keyring) == old.plaintexts
        for step in range(3):
            new = None if rng.random() < 0.25 else random_config(rng, f"step{step}", first=rng.choice(PROVIDERS))
            target = folder / f"{step}.db"
            assert run(path, target, keyring, new).verified
            path, keyring = target, Keyring((new,) if new else (), plausible=plausible)
            assert plaintexts_of(path, keyring) == old.plaintexts


def check_only_values_change(seed: int) -> None:
    with world(seed) as (rng, old, folder):
        new = random_config(rng, "new")
        report = run(old.path, folder / "new.db", old.keyring, new)
        before, after = records(old.path), records(folder / "new.db")
        assert [key for key, _ in before] == [key for key, _ in after]
        changed = 0
        for (_, one), (_, other) in zip(before, after, strict=True):
            if one != other:
                changed += 1
                assert replace(decode_key_value(one), value=b"") == replace(decode_key_value(other), value=b"")
        assert changed == report.records.rewritten
        for place, record in places(folder / "new.db").items():
            assert record.value.startswith(b"k8s:enc:") == (b"/pods/" not in place[0])
        _assert_old_values_gone(old, folder / "new.db")


def _assert_old_values_gone(old: World, target: Path) -> None:
    whole = target.read_bytes()
    for place, record in places(old.path).items():
        if b"/pods/" not in place[0]:
            assert record.value not in whole
            assert len(record.value) < 100 or record.value[len(record.value) // 2 :] not in whole


def check_jobs_give_the_same_bytes(seed: int) -> None:
    with world(seed) as (rng, old, folder):
        new = random_config(rng, "new")
        run(old.path, folder / "1.db", old.keyring, new, jobs=1)
        run(old.path, folder / "2.db", old.keyring, new, jobs=2)
        run(old.path, folder / "3.db", old.keyring, new, jobs=1)
        one = (folder / "1.db").read_bytes()
        assert one == (folder / "2.db").read_bytes() == (folder / "3.db").read_bytes()


def check_deleting_leaves_no_byte_of_what_is_lost(seed: int) -> None:
    with world(seed) as (rng, old, folder):
        kept = old.configs[:1]
        known = Keyring(kept, plausible=plausible)
        report = run(old.path, folder / "new.db", known, random_config(rng, "new"), undecryptable=Undecryptable.DELETE)
        assert report.target is not None
        assert report.target.revision == report.source.revision
        lost = {(value.key, value.revision.main, value.revision.sub) for value in report.lost}
        before, after, whole = places(old.path), places(folder / "new.db"), (folder / "new.db").read_bytes()
        for place in lost:
            assert before[place].value[-16:] not in whole
        bystanders = {place for place in before if place[0] not in {key for key, *_ in lost}}
        assert {place for place in after if place[0] not in {key for key, *_ in lost}} == bystanders
        live = {place[0]: place for place in sorted(before, key=lambda place: place[1:])}
        for key, place in live.items():
            if place not in lost and (key in {value[0] for value in lost}):
                assert place in after  # the object itself stays when only its past is lost


LAWS = [
    check_repair_changes_no_record,
    check_rewrite_under_the_same_first_key_changes_no_record,
    check_plaintexts_survive_any_chain,
    check_only_values_change,
    check_deleting_leaves_no_byte_of_what_is_lost,
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__.removeprefix("check_"))
def test_law(law: object) -> None:
    assert callable(law)
    LAW(given(SEEDS)(law))()


def test_number_of_jobs_does_not_change_a_byte() -> None:
    settings(max_examples=3, deadline=None)(given(SEEDS)(check_jobs_give_the_same_bytes))()


@pytest.mark.soak
@pytest.mark.parametrize("law", [*LAWS, check_jobs_give_the_same_bytes], ids=lambda law: law.__name__)
def test_law_for_long(law: object) -> None:
    assert callable(law)
    LONG(given(SEEDS)(law))()
