"""Snapshots with KMS values: sealed by bare primitives, read back with the test plugin's own keys and no plugin."""

from __future__ import annotations

import os
from pathlib import Path

from snaptool.etcd import KeyValue, decode_key_value, decode_revision_key, encode_key_value
from snaptool.operations.opening import open_snapshot
from snaptool.providers.config.model import KmsConfig
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import GroupResource, Keyring
from snaptool.providers.kms import KmsV1Provider, KmsV2Provider
from snaptool.providers.kms_envelope import WrappedSource, encode_map_entry
from snaptool.providers.provider import Api, Provider
from snaptool.wire import encode_field
from tests.support.kms_values import Form, local_keks, stored_value
from tests.support.local_keks import SavedKeks
from tests.support.snapshots import envelope, revision
from tests.support.stored import write_records

KEKS = SavedKeks({"kek-1": b"\x11" * 32, "kek-2": b"\x22" * 32}, "kek-1")
API = {Form.V1_CBC: Api.V1, Form.V1_GCM: Api.V1, Form.V2_DEK: Api.V2, Form.V2_SEED: Api.V2}
NAME = {Api.V1: "old", Api.V2: "kp"}

Plaintexts = dict[tuple[bytes, int], bytes]
Value = tuple[bytes, bytes, bytes]
"""etcd key, stored, plaintext."""


def kms_entry(api: Api, name: str, endpoint: str) -> str:
    cache = ", cachesize: 100" if api is Api.V1 else ""
    return f'{{kms: {{apiVersion: {api}, name: "{name}", endpoint: "{endpoint}", timeout: 3s{cache}}}}}'


def configuration(*providers: str) -> str:
    listed = "".join(f"  - {one}\n" for one in (*providers, "{identity: {}}"))
    return (
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n"
        f"resources:\n- resources: [secrets]\n  providers:\n{listed}"
    )


def sealed(form: Form, count: int, start: int = 0, *, kek: str = "kek-1", name: str = "") -> list[Value]:
    """`count` Secrets under one wrapped key."""
    api = API[form]
    key = os.urandom(32)
    wrapped = local_keks(api, name or NAME[api], kek).wrap(key)
    return [value_of(form, wrapped, key, number) for number in range(start, start + count)]


def value_of(form: Form, wrapped: WrappedSource, key: bytes, number: int, generation: int = 0) -> Value:
    etcd_key = b"/registry/secrets/default/s%05d" % number
    plaintext = secret(b"s%05d" % number, b"secret %d of generation %d" % (number, generation))
    return etcd_key, stored_value(form, wrapped, key, etcd_key, plaintext), plaintext


def secret(name: bytes, content: bytes) -> bytes:
    """A Secret as an API server stores it: metadata with name and namespace, and one entry of data."""
    metadata = encode_field(1, name) + encode_field(3, b"default")
    return envelope("v1", "Secret", encode_field(1, metadata) + encode_field(2, encode_map_entry("v", content)))


def database(path: Path, values: list[Value]) -> Path:
    """A database of these values, one revision each."""
    records = []
    for number, (key, stored, _) in enumerate(values, start=2):
        record = KeyValue(key=key, create_revision=number, mod_revision=number, version=1, value=stored, lease=0)
        records.append((revision(number), encode_key_value(record)))
    return write_records(path, records)


def stored_values(path: Path) -> dict[tuple[bytes, int], bytes]:
    found = {}
    with open_snapshot(path) as opened:
        for key, value in opened.snapshot.items(b"key"):
            at, tombstone = decode_revision_key(key)
            if not tombstone:
                record = decode_key_value(value)
                found[record.key, at.main] = record.value
    return found


def opened_by(path: Path, text: str, keks: SavedKeks = KEKS) -> Plaintexts:
    """Every plaintext, opened with one configuration and the plugin's own KEKs, without any plugin."""

    def provider(kms: KmsConfig) -> Provider:
        return KmsV1Provider(kms.name, keks) if kms.api_version == "v1" else KmsV2Provider(kms.name, keks)

    chain = Keyring([parse_config(text.encode())], kms=provider).chain_for(GroupResource("secrets"))
    return {at: chain.unseal(value, at[0]).plaintext for at, value in stored_values(path).items()}


def in_plaintext(folder: Path, count: int) -> Path:
    values = []
    for number in range(count):
        plaintext = secret(b"s%05d" % number, b"secret %d" % number)
        values.append((b"/registry/secrets/default/s%05d" % number, plaintext, plaintext))
    return database(folder / "plaintext.db", values)
