"""Batches against values taken one by one, whoever works on them: here, or any number of threads."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from snaptool.operations.crypto import (
    POOL_FROM,
    Batch,
    Outcome,
    SeededRandomness,
    Work,
    Workshop,
    plaintext_digest,
)
from snaptool.operations.labels import Labels
from snaptool.operations.opening import open_snapshot
from snaptool.operations.sweep import batch_of
from snaptool.providers.keyring import NoKeyFits
from tests.support.stored import write_history
from tests.unit.operations.builders import OBJECT, keyring, seal_cbc, seal_gcm

A, B, C = (bytes([letter]) * 32 for letter in b"ABC")
BIG = 3 << 20


def changes(seed: int, *, damaged: bool) -> list[tuple[bytes, bytes | None]]:
    """Values in plaintext and under two keys of one name, and whatever can be wrong with them."""
    rng = random.Random(seed)
    listed: list[tuple[bytes, bytes | None]] = []
    for number in range(1500):
        key = b"/registry/%s/default/n%d" % (rng.choice([b"secrets", b"pods", b"configmaps"]), number)
        plaintext = OBJECT.replace(b"%s", rng.randbytes(rng.choice((0, 30, 300))).hex().encode())
        sealed = seal_cbc("key", rng.choice((A, B)), plaintext, rng.randbytes(16))
        values = [plaintext, sealed, sealed]
        if damaged:
            foreign = seal_cbc("key", C, plaintext, rng.randbytes(16))
            values += [
                b"",
                foreign,
                foreign,
                sealed[:-1],
                sealed[:-16],
                seal_gcm("key", A, plaintext, key),
                b"k8s:enc:",
            ]
        listed.append((key, rng.choice(values)))
    listed.append((b"/registry/secrets/default/big", seal_cbc("key", A, OBJECT.replace(b"%s", b"x" * BIG))))
    return listed


READING = keyring("aescbc", ("key", A), ("key", B), resource="secrets, pods, configmaps")
WRITING = keyring("secretbox", ("new", C), resource="secrets, pods")


@contextmanager
def at_work(path: Path, jobs: int) -> Iterator[tuple[Workshop, list[Batch]]]:
    """A workshop, and all values of the file in batches, some of which are small."""
    with open_snapshot(path) as opened:
        labels = Labels(("/registry",))
        batches: list[Batch] = []
        for records in opened.snapshot.chunks():
            labels.add(records)
            cuts = sorted({len(records) * part // 40 for part in range(41)})
            batches += [batch_of(records, list(range(first, last)), labels, None) for first, last in pairwise(cuts)]
        work = Work(READING, WRITING, SeededRandomness(b"seed"), digests=True)
        with Workshop(work, opened.source, jobs=jobs) as workshop:
            yield workshop, batches


def values_of(path: Path, batch: Batch) -> list[tuple[bytes, bytes]]:
    """Etcd key and stored value of every value of a batch."""
    data = path.read_bytes()
    columns = (batch.key_pos, batch.key_len, batch.value_pos, batch.value_len)
    return [
        (data[key : key + key_len], data[value : value + value_len])
        for key, key_len, value, value_len in zip(*(column.tolist() for column in columns), strict=True)
    ]


@pytest.mark.parametrize("jobs", [1, POOL_FROM, POOL_FROM + 1])
def test_batches_open_as_values_do_one_by_one(tmp_path: Path, jobs: int) -> None:
    path = write_history(tmp_path / "db", changes(1, damaged=True))
    seen: set[Outcome] = set()
    with at_work(path, jobs) as (workshop, batches):
        answers = list(workshop.opened(batches))
        assert [batch for batch, _ in answers] == batches
        for batch, answer in answers:
            for row, (key, stored) in enumerate(values_of(path, batch)):
                resource = batch.resources[batch.resource[row]]
                outcome, plaintext = workshop.open(resource, stored, key)
                assert answer.outcomes[answer.outcome[row]] == outcome
                digest = bytes(16) if plaintext is None else plaintext_digest(plaintext)
                assert answer.digests[16 * row : 16 * row + 16] == digest
                assert answer.named_keys.get(row) == (None if outcome.opened else key)
                seen.add(outcome)
    assert len(seen) >= 8


@pytest.mark.parametrize("jobs", [1, POOL_FROM, POOL_FROM + 1])
def test_batches_are_sealed_as_values_are_one_by_one(tmp_path: Path, jobs: int) -> None:
    path = write_history(tmp_path / "db", changes(2, damaged=False))
    with at_work(path, jobs) as (workshop, batches):
        for batch, sealed in workshop.resealed(batches):
            revisions = list(zip(batch.main.tolist(), batch.sub.tolist(), strict=True))
            expected = [
                workshop.reseal(batch.resources[batch.resource[row]], stored, key, revisions[row])
                for row, (key, stored) in enumerate(values_of(path, batch))
            ]
            assert [bytes(sealed.value(row)) for row in range(len(batch))] == expected


def test_an_error_in_a_thread_is_raised_here_and_the_thread_goes_on(tmp_path: Path) -> None:
    path = write_history(tmp_path / "db", [(b"/registry/secrets/a/b", seal_cbc("key", C, OBJECT)), (b"/c", OBJECT)])
    with at_work(path, POOL_FROM) as (workshop, batches):
        full = [batch for batch in batches if len(batch)]
        with pytest.raises(NoKeyFits):
            list(workshop.resealed(full))
        assert len(list(workshop.opened(full))) == len(full)


def test_a_workshop_ends_with_work_left(tmp_path: Path) -> None:
    path = write_history(tmp_path / "db", changes(2, damaged=False))
    with at_work(path, POOL_FROM) as (workshop, batches):
        next(workshop.resealed(batches * 5))
