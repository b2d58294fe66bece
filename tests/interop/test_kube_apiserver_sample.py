"""What a real kube-apiserver stored, held against what it served for it: samples/kube-apiserver. Needs no server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from snaptool.etcd import decode_key_value
from snaptool.kube.keys import parse_key
from snaptool.kube.kinds.reader import decode_object
from snaptool.kube.objects import plausible
from snaptool.operations.opening import open_snapshot
from snaptool.operations.plan import RewriteRequest, Undecryptable
from snaptool.operations.rewrite import rewrite
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import Chain, GroupResource, Keyring

FOLDER = Path(__file__).parents[2] / "samples" / "kube-apiserver"
SERVED: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "served.json").read_text())
KINDS = {
    "secrets": ("v1", "Secret", "secrets"),
    "configmaps": ("v1", "ConfigMap", "configmaps"),
    "serviceaccounts": ("v1", "ServiceAccount", "serviceaccounts"),
    "widgets": ("proof.example.com/v1", "Widget", "proof.example.com/widgets"),
}
SECRETBOX = """\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets, configmaps, widgets.proof.example.com]
  providers: [{secretbox: {keys: [{name: new, secret: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=}]}}]
"""


def keyring(text: str) -> Keyring:
    return Keyring([parse_config(text.encode())], plausible=plausible)


def as_served() -> dict[bytes, tuple[int, dict[str, Any]]]:
    """Key to revision and object. A list leaves out what its items are, and a stored object knows no revision."""
    found = {}
    for path, items in SERVED.items():
        version, kind, folder = KINDS[path.rsplit("/", 1)[1]]
        for item in items:
            metadata = dict(item["metadata"])
            revision = int(metadata.pop("resourceVersion"))
            key = f"/registry/{folder}/{metadata['namespace']}/{metadata['name']}".encode()
            found[key] = revision, {**item, "apiVersion": version, "kind": kind, "metadata": metadata}
    return found


def as_read(snapshot: Path, keys: Keyring) -> dict[bytes, tuple[int, dict[str, Any]]]:
    """The same from a file, without etcd and API server: live objects of the namespace."""
    found: dict[bytes, tuple[int, dict[str, Any]]] = {}
    with open_snapshot(snapshot) as opened:
        for records in opened.snapshot.chunks():
            for row in range(len(records)):
                record = decode_key_value(records.stored_value(row))
                name = parse_key(record.key)
                if name is None or name.namespace != "proof" or name.resource not in KINDS:
                    continue
                found.pop(record.key, None)
                if records.is_put(row):
                    chain: Chain = keys.chain_for(GroupResource(name.resource, name.group))
                    plaintext = chain.unseal(record.value, record.key).plaintext
                    found[record.key] = records.main[row], decode_object(plaintext).shown()
    return found


@pytest.fixture
def rotated() -> Keyring:
    return keyring((FOLDER / "rotated.yaml").read_text())


def test_every_object_is_read_from_the_file_as_the_api_served_it(rotated: Keyring) -> None:
    served = as_served()
    assert len(served) == 39
    assert as_read(FOLDER / "rotated.db", rotated) == served


def test_after_a_rewrite_every_object_is_still_what_the_api_served(rotated: Keyring, tmp_path: Path) -> None:
    writing = keyring(SECRETBOX)
    target = tmp_path / "secretbox.db"
    with open_snapshot(FOLDER / "rotated.db") as opened:
        report = rewrite(opened, target, RewriteRequest(reading=rotated, writing=writing))
    assert as_read(target, writing) == as_served()
    changed = {(one.resource, one.from_key): (one.live, one.old) for one in report.values if one.to_key == "new"}
    assert changed[("secrets", "key-2025")] == (4, 2)  # before-0 was written again, before-1 deleted
    assert changed[("secrets", "key-2026")] == (9, 0)
    assert changed[("widgets.proof.example.com", "key-2025")] == (5, 1)
    assert b"k8s:enc:aescbc" not in target.read_bytes()


def test_with_a_key_lost_exactly_what_only_that_key_opens_is_deleted(tmp_path: Path) -> None:
    remaining = keyring((FOLDER / "lost-key.yaml").read_text())
    target = tmp_path / "recovered.db"
    request = RewriteRequest(reading=remaining, writing=remaining, undecryptable=Undecryptable.DELETE)
    with open_snapshot(FOLDER / "rotated.db") as opened:
        report = rewrite(opened, target, request)
    served, left = as_served(), as_read(target, remaining)
    gone = served.keys() - left.keys()
    assert left == {key: served[key] for key in left}
    assert len(gone) == (6 - 2) + 6 + (6 - 1)
    assert gone == {one.key for one in report.deletions if one.whole and b"/proof/" in one.key}
