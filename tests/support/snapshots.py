"""Generated snapshots: Kubernetes-like keys and values in a real bolt file, any size, the same bytes for the same seed.

Written by the project's own writer, so they prove nothing about formats; they are for speed, memory and interruptions.
Shape as in design/performance.md: 25 % of writes are updates, values log-normal from 300 bytes to 10 KB with a median
of 1.8 KB, a share of the objects are Secrets under aescbc; tombstones and leases if asked for.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from snaptool.bolt import DatabaseWriter
from snaptool.etcd import BUCKETS, KeyValue, encode_key_value
from snaptool.wire import encode_field

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
KINDS = (
    ("pods", "Pod", "v1", 50),
    ("configmaps", "ConfigMap", "v1", 15),
    ("leases", "Lease", "coordination.k8s.io/v1", 15),
    ("events", "Event", "v1", 15),
)


@dataclass(frozen=True, slots=True)
class Mix:
    """What to generate. `sealed`: percent of the objects that are Secrets under aescbc."""

    records: int
    sealed: int = 5
    tombstones: int = 0
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
    """Yield the records of bucket `key`."""
    rng = random.Random(mix.seed)
    filler = rng.randbytes(1 << 20)
    known: list[tuple[bytes, str, str, bool, int, int]] = []
    for number in range(mix.records):
        main = number + 2
        if known and rng.random() < 0.25:
            index = rng.randrange(len(known))
            key, kind, api_version, sealed, create, version = known[index]
            if mix.tombstones and rng.random() * 100 < mix.tombstones:
                known[index] = known[-1]
                known.pop()
                yield revision(main) + b"t", encode_field(1, key)
                continue
            known[index] = (key, kind, api_version, sealed, create, version + 1)
            version += 1
        else:
            sealed = rng.random() * 100 < mix.sealed
            plural, kind, api_version, _ = (
                ("secrets", "Secret", "v1", 0) if sealed else rng.choices(KINDS, weights=[row[3] for row in KINDS])[0]
            )
            key = b"/registry/%s/namespace-%03d/%s-%08x" % (
                plural.encode(),
                rng.randrange(200),
                kind.lower().encode(),
                number,
            )
            create, version = main, 1
            known.append((key, kind, api_version, sealed, create, version))
        size = min(mix.largest, max(mix.smallest, int(rng.lognormvariate(0, 0.7) * mix.median)))
        at = rng.randrange(len(filler) - size)
        value = envelope(api_version, kind, filler[at : at + size])
        if sealed:
            value = seal(value, rng.randbytes(16))
        yield (
            revision(main),
            encode_key_value(
                KeyValue(key=key, create_revision=create, mod_revision=main, version=version, value=value, lease=0)
            ),
        )


def revision(main: int) -> bytes:
    return main.to_bytes(8, "big") + b"_" + bytes(8)


def write_snapshot(path: Path, mix: Mix, *, trailer: bool = True) -> None:
    """Write the snapshot of `mix` to `path`, as a real one has it: no freelist page is not imitated, the trailer is."""
    with path.open("w+b") as file:
        writer = DatabaseWriter(file)
        for name in BUCKETS:
            with writer.bucket(name) as bucket:
                if name == b"key":
                    for key, value in records(mix):
                        bucket.put(key, value)
                elif name == b"meta":
                    bucket.put(b"consistent_index", (mix.records + 10).to_bytes(8, "big"))
                    bucket.put(b"term", (2).to_bytes(8, "big"))
        writer.finish()
        if trailer:
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0, os.SEEK_END)
            file.write(digest)
