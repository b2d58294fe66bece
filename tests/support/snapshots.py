"""Generated snapshots: Kubernetes-like keys and values in a real bolt file, any size, the same bytes for the same seed.

Written by the project's own writer, so they prove nothing about formats; they are for speed, memory and interruptions.
Shape as in docs/performance.md: 25 % of writes are updates, values log-normal from 300 bytes to 10 KB with a median
of 1.8 KB, a share of the objects are Secrets under aescbc; tombstones and leases if asked for. The metas name no
freelist page, as in snapshots that etcd saves, and the trailer is theirs too.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from snaptool.bolt import TxId
from snaptool.bolt.layout import NO_FREELIST, encode_meta
from snaptool.wire import encode_field, encode_varint
from tests.support.stored import write_buckets

KEY = bytes(range(32))
CONFIG = """\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [{resources}]
  providers:
  - {provider}: {{keys: [{{name: {name}, secret: {secret}}}]}}
  - identity: {{}}
"""
OLD_SECRET = base64.b64encode(KEY).decode()
NEW_SECRET = base64.b64encode(bytes(range(32, 64))).decode()
KINDS = (  # plural, kind, apiVersion, how many of 95 objects; the other five of 100 are Secrets
    ("pods", "Pod", "v1", 50),
    ("configmaps", "ConfigMap", "v1", 15),
    ("leases", "Lease", "coordination.k8s.io/v1", 15),
    ("events", "Event", "v1", 15),
)
REMEMBERED = 100_000  # keys that an update chooses from: bounds the generator's memory
FIRST_LEASE = 7_587_000_000_000_000_000
EVENTS_PER_LEASE = 1_000  # defaultLeaseMaxObjectCount of k8s.io/apiserver


@dataclass(frozen=True, slots=True)
class Mix:
    """What to generate.

    `sealed`: percent of the objects that are Secrets under aescbc. `updates`: percent of the writes that change an
    object that is there; 100 makes a single key. `tombstones`: percent of the updates that delete instead. `leases`:
    events expire. `smallest`, `largest` and `median` are of an object's bytes before it is wrapped and sealed.
    """

    records: int
    sealed: int = 5
    updates: int = 25
    tombstones: int = 0
    leases: bool = False
    seed: int = 1
    smallest: int = 300
    largest: int = 10_000
    median: int = 1_800


def config(provider: str, *, resources: str = "secrets", name: str = "key1", secret: str = OLD_SECRET) -> str:
    """An EncryptionConfiguration with one key and identity behind it."""
    return CONFIG.format(provider=provider, resources=resources, name=name, secret=secret)


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    """A plaintext as the API server stores built-in types: the magic, then runtime.Unknown."""
    type_meta = encode_field(1, api_version.encode()) + encode_field(2, kind.encode())
    return b"k8s\0" + encode_field(1, type_meta) + encode_field(2, raw) + b"\x1a\x00\x22\x00"


def seal(plaintext: bytes, iv: bytes) -> bytes:
    """Seal with AES-CBC as kube-apiserver does, by the bare library."""
    padding = 16 - len(plaintext) % 16
    encryptor = Cipher(algorithms.AES(KEY), modes.CBC(iv)).encryptor()
    return b"k8s:enc:aescbc:v1:key1:" + iv + encryptor.update(plaintext + bytes((padding,)) * padding)


def records(mix: Mix) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records of bucket `key`. Ten million of them are wanted, so this is quick before it is pretty."""
    rng = random.Random(mix.seed)
    chance = rng.random
    filler = rng.randbytes(max(1 << 20, 2 * mix.largest))
    kinds = [
        (plural.encode(), kind.lower().encode(), envelope(api_version, kind, b"")[:-6], plural == "events")
        for plural, kind, api_version, share in KINDS
        for _ in range(share)
    ]
    secret = (b"secrets", b"secret", envelope("v1", "Secret", b"")[:-6], False)
    known: list[tuple[bytes, bytes, bool, bool, int, int]] = []
    for main in range(2, mix.records + 2):
        if known and chance() * 100 < mix.updates:
            index = int(chance() * len(known))
            key, head, sealed, leased, create, version = known[index]
            if mix.tombstones and chance() * 100 < mix.tombstones:
                known[index] = known[-1]
                known.pop()
                yield revision(main) + b"t", encode_field(1, key)
                continue
            version += 1
            known[index] = (key, head, sealed, leased, create, version)
        else:
            sealed = chance() * 100 < mix.sealed
            plural, kind, head, leased = secret if sealed else kinds[int(chance() * len(kinds))]
            key = b"/registry/%s/namespace-%03d/%s-%08x" % (plural, int(chance() * 200), kind, main)
            create, version = main, 1
            entry = (key, head, sealed, leased, create, version)
            if len(known) < REMEMBERED:
                known.append(entry)
            else:
                known[int(chance() * REMEMBERED)] = entry
        size = min(mix.largest, max(mix.smallest, int(rng.lognormvariate(0, 0.7) * mix.median)))
        at = int(chance() * (len(filler) - size))
        value = b"%b\x12%b%b\x1a\x00\x22\x00" % (head, encode_varint(size), filler[at : at + size])
        if sealed:
            value = seal(value, rng.randbytes(16))
        created, modified, size_of_value = encode_varint(create), encode_varint(main), encode_varint(len(value))
        # A KeyValue: key, create_revision, mod_revision, version, value, lease.
        stored = b"\x0a%c%b\x10%b\x18%b\x20%b\x2a%b%b" % (
            len(key),
            key,
            created,
            modified,
            encode_varint(version),
            size_of_value,
            value,
        )
        if leased and mix.leases:
            stored += encode_field(6, FIRST_LEASE + main // EVENTS_PER_LEASE)
        yield revision(main), stored


def revision(main: int) -> bytes:
    return number(main) + b"_" + bytes(8)


def number(one: int) -> bytes:
    return one.to_bytes(8, "big")


def write_snapshot(path: Path, mix: Mix, *, trailer: bool = True) -> None:
    """Write the snapshot of `mix` to `path`; memory stays the same for any number of records."""
    with path.open("w+b") as file:
        others = {b"meta": [(b"consistent_index", number(mix.records + 10)), (b"term", number(2))]}
        if mix.leases:
            ids = range(FIRST_LEASE, FIRST_LEASE + (mix.records + 1) // EVENTS_PER_LEASE + 1)
            others[b"lease"] = [(number(one), encode_field(1, one) + encode_field(2, 3600)) for one in ids]
        meta = write_buckets(file, records(mix), others)
        meta = replace(meta, freelist=NO_FREELIST)  # page 2, a freelist until now, becomes a free page
        file.seek(0)
        file.write(encode_meta(meta, 0) + encode_meta(replace(meta, txid=TxId(meta.txid - 1)), 1))
        if trailer:
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0, os.SEEK_END)
            file.write(digest)
