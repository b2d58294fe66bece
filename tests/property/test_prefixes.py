"""Laws of several API servers and their neighbours in one etcd: a model that made the keys says what becomes of each.

Two to five prefixes, nested ones and the root among them, with half of what may be encrypted encrypted, and neighbours
whose keys are called as Kubernetes' are; what proves a prefix may come last. After a rewrite no configured value is in
plaintext, and no foreign byte has changed.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaptool.kube.objects import plausible
from snaptool.operations.opening import open_snapshot
from snaptool.operations.plan import RewriteRequest
from snaptool.operations.rewrite import rewrite
from snaptool.operations.verify import verify
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import Keyring
from tests.support.kms_snapshots import database
from tests.support.snapshots import NEW_SECRET, config, envelope, seal

PREFIXES = (
    "/registry",
    "/registry/nested",
    "/registry-gardener",
    "/k8s-prod",
    "/kubernetes.io",
    "/openshift.io",
    "/a",
    "/a/b",
    "/a/x.y",
    "/deep/er/est",
    "/my.cluster/prod",
    "",
)
BUILT_IN = (
    ("secrets", "secrets", "v1", "Secret"),
    ("configmaps", "configmaps", "v1", "ConfigMap"),
    ("minions", "nodes", "v1", "Node"),
    ("services/specs", "services", "v1", "Service"),
    ("deployments", "deployments.apps", "apps/v1", "Deployment"),
    ("newthings", "newthings.?", "new.k8s.io/v1", "NewThing"),
)
NAMESPACES = ("default", "secrets", "jobs", "kube-system", "templates")
"""Two are called like resources."""

CONFIGURED = {
    "secrets": {"secrets"},
    '"*.*"': {resource for _, resource, _, _ in BUILT_IN}
    | {"namespaces", "secrets.example.com", "gadgets.example.com"},
    "secrets, secrets.example.com, nodes": {"secrets", "secrets.example.com", "nodes"},
}
FOREIGN_KEYS = (
    "/x/secrets/{}",
    "/x/configmaps/shop/{}",
    "/calico/resources/v3/projectcalico.org/networkpolicies/shop/{}",
    "/apisix/secrets/vault/{}",
    "/registry/foo/{}",
    "/registryx/secrets/a/{}",
    "/service/namespaces/{}",
    "secrets/{}",
    "/registry/nested-not/secrets/a/{}",
)
FOREIGN_VALUES = (
    b'{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{}}',
    b'{"kind":"IPPool"}',
    b'{"token":"t"}',
    b"k8s:en",
    b"K8s\0",
    b"",
    b"\0\1\2",
    b"plain text",
)


@dataclass(frozen=True)
class Made:
    """A record: what it is of, None for a neighbour's, and how it is stored."""

    key: bytes
    stored: bytes
    resource: str | None


def cluster(rng: random.Random, prefix: str, configured: set[str], count: int) -> Iterator[Made]:
    """The records of one API server: a namespace, which proves it, comes among them, and often last."""

    def made(path: str, resource: str, plaintext: bytes, *, proof: bool = False) -> Made:
        key = f"{prefix}/{path}".encode()
        encrypted = resource in configured and rng.random() < 0.5 and not proof
        return Made(key, seal(plaintext, rng.randbytes(16)) if encrypted else plaintext, resource)

    yield made("namespaces/default", "namespaces", envelope("v1", "Namespace", b"\n\x02\n\0"), proof=True)
    for number in range(count):
        where = f"{rng.choice(NAMESPACES)}/o{number}"
        if rng.random() < 0.2:
            plural, kind = rng.choice((("secrets", "Secret"), ("gadgets", "Gadget")))
            text = b'{"apiVersion":"example.com/v1","kind":"%s","metadata":{"name":"o"}}' % kind.encode()
            yield made(f"example.com/{plural}/{where}", f"{plural}.example.com", text)
            continue
        path, resource, version, kind = rng.choice(BUILT_IN)
        yield made(f"{path}/{where}", resource, envelope(version, kind, b"\n\x02\n\0"))


def neighbours(rng: random.Random, count: int) -> Iterator[Made]:
    for number in range(count):
        key = rng.choice(FOREIGN_KEYS).format(number).encode()
        # An object under an unknown plural of an API server is its own.
        values = FOREIGN_VALUES[1:] if key.startswith(b"/registry/") else FOREIGN_VALUES
        yield Made(key, rng.choice(values), None)


def law(seed: int, size: int, folder: Path) -> None:
    rng = random.Random(seed)
    resources = rng.choice(list(CONFIGURED))
    prefixes = rng.sample(PREFIXES, rng.randint(2, 5))
    each = max(size // len(prefixes), 1)
    records = [one for prefix in prefixes for one in cluster(rng, prefix, CONFIGURED[resources], each)]
    if "" not in prefixes:  # whatever lies anywhere may be of an API server whose prefix is the root
        records += neighbours(rng, each)
    proofs = [one for one in records if one.resource == "namespaces"]
    others = [one for one in records if one.resource != "namespaces"]
    rng.shuffle(others)
    records = [*proofs, *others] if rng.random() < 0.3 else [*others, *proofs]
    source, target = folder / "old.db", folder / "new.db"
    database(source, [(one.key, one.stored, b"") for one in records])
    old = parse_config(config("aescbc", resources='"*.*"').encode())
    new = parse_config(config("secretbox", resources=resources, name="new", secret=NEW_SECRET).encode())
    request = RewriteRequest(reading=Keyring((old,), plausible=plausible), writing=Keyring((new,), plausible=plausible))
    with open_snapshot(source) as opened:
        report = rewrite(opened, target, request)
    assert report.prefixes is not None
    assert set(report.prefixes) == set(prefixes), (seed, report.prefixes, prefixes)
    assert report.lost == ()
    with open_snapshot(target) as opened:
        after = [
            (chunk.user_key(row), chunk.value(row)) for chunk in opened.snapshot.chunks() for row in range(len(chunk))
        ]
        findings = verify(opened, request.writing).findings
    assert not [one for one in findings if one.code in {"plaintext", "outside_prefixes"}], seed
    for one, (key, stored) in zip(records, after, strict=True):
        assert key == one.key
        if one.resource in CONFIGURED[resources]:
            assert stored.startswith(b"k8s:enc:secretbox:v1:new:"), (seed, key)
        else:
            assert stored == one.stored, (seed, key)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([1, 5, 60]))
def test_no_configured_value_stays_in_plaintext_and_no_foreign_byte_changes(seed: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        law(seed, size, Path(folder))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(12))
def test_the_same_of_fifty_thousand_records_with_the_interesting_keys_last(seed: int, tmp_path: Path) -> None:
    law(seed, 50_000, tmp_path)
