"""What a file is that is not an EncryptionConfiguration: people give what they have, and need to hear what to give.

By its first bytes where it is not text, by `apiVersion` and `kind` or by fields that only one format has where it is.
The commands that help read the same file or ask for another one; none is the command that was just run. Nothing of a
file is quoted but paths, kinds and versions that look like ones.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from snaptool.providers.config.decode import Refused, TreeMap, parse_documents

_PIPE = "give what it prints with --config - "


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a file is, with its article, and what to do instead of giving it."""

    what: str
    remedy: str


_SNAPSHOT = Recognised(
    "a bolt database: an etcd snapshot", "give the snapshot in its own place, and the configuration with --config"
)
_LARGEST_KEY_FILE = 200
_BOLT_MAGIC = b"\xed\xda\x0c\xed"
_KEY_SIZES = {16, 24, 32}

_BEGINNINGS: tuple[tuple[bytes, Recognised], ...] = (
    (
        b"$ANSIBLE_VAULT;",
        Recognised("a file encrypted by ansible-vault", f"run `ansible-vault view FILE`; {_PIPE}"),
    ),
    (b"age-encryption.org/", Recognised("a file encrypted by age", f"run `age --decrypt FILE`; {_PIPE}")),
    (b"-----BEGIN AGE ENCRYPTED FILE", Recognised("a file encrypted by age", f"run `age --decrypt FILE`; {_PIPE}")),
    (b"-----BEGIN PGP MESSAGE", Recognised("a file encrypted by PGP", f"run `gpg --decrypt FILE`; {_PIPE}")),
    (b"Salted__", Recognised("a file encrypted by OpenSSL", f"run `openssl enc -d …`; {_PIPE}")),
    (
        b"-----BEGIN ",
        Recognised(
            "a PEM file (a certificate or its key)",
            "give the file that kube-apiserver names in --encryption-provider-config",
        ),
    ),
    (b"\x1f\x8b", Recognised("a gzip file", f"run `gzip -dc FILE`; {_PIPE}")),
    (b"\x28\xb5\x2f\xfd", Recognised("a zstd file", f"run `zstd -dc FILE`; {_PIPE}")),
    (b"\xfd7zXZ\0", Recognised("an xz file", f"run `xz -dc FILE`; {_PIPE}")),
    (b"BZh", Recognised("a bzip2 file", f"run `bzip2 -dc FILE`; {_PIPE}")),
    (b"PK\x03\x04", Recognised("a zip archive", f"run `unzip -p FILE NAME`; {_PIPE}")),
    (
        b"SQLite format 3\0",
        Recognised("an SQLite database", "give the file that kube-apiserver names in --encryption-provider-config"),
    ),
    (b"\x7fELF", Recognised("a program", "give the configuration, not a program")),
    (b"<?xml", Recognised("an XML document", "look at it: a store answers with XML when it refuses a download")),
    (
        b"<!doctype html",
        Recognised("an HTML page", "look at it: a server answers with HTML when a download needs a login"),
    ),
    (b"<html", Recognised("an HTML page", "look at it: a server answers with HTML when a download needs a login")),
    (
        b"k8s:enc:",
        Recognised("an encrypted value as etcd stores it", "give the configuration that has its key"),
    ),
    (
        b"k8s\0",
        Recognised("an object in protobuf, as etcd stores it", "get it as YAML, for instance with `snaptool get`"),
    ),
)


def recognise_bytes(data: bytes) -> Recognised | None:
    """Say what a file is by its bytes; None when it may be YAML or JSON."""
    if data[16:20] in {_BOLT_MAGIC, _BOLT_MAGIC[::-1]}:
        return _SNAPSHOT
    if data[257:262] == b"ustar":
        return Recognised("a tar archive", f"run `tar -xOf FILE NAME`; {_PIPE}")
    if len(data) in _KEY_SIZES and re.search(rb"[^\n\r\t -~]", data):
        return _bare_key(len(data), "in raw bytes")
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        return Recognised(
            "an empty file",
            "look where it came from: a copy that failed, or a wrong name",
        )
    for magic, known in _BEGINNINGS:
        if start[: len(magic)].lower() == magic.lower():
            return known
    return _recognise_text(start.decode(errors="replace"))


def _recognise_text(text: str) -> Recognised | None:
    word = text.strip()
    if len(word) <= _LARGEST_KEY_FILE and not re.search(r"\s", word):
        if re.fullmatch(r"K10[0-9a-f]{0,64}::[^:]*:.+", word):
            return Recognised(
                "a token of k3s or RKE2", "give it with --token-file, and let --embedded-config find the configuration"
            )
        if re.fullmatch(r"[a-z_]+-[0-9a-f]{64}", word):
            return Recognised(
                "the encryption-state.json of k3s", "give encryption-config.json, which lies in the same directory"
            )
        size = _key_size(word)
        if size is not None:
            return _bare_key(size, "in hex" if re.fullmatch("[0-9A-Fa-f]+", word) else "in base64")
    if re.search(r"(?m)^\s*(?:-?\s*[\w.-]+:\s*)?\{[{%]", text):
        line = text[: next(re.finditer(r"\{[{%]", text)).start()].count("\n") + 1
        return Recognised(
            f"a template that was not rendered (line {line} has braces of Jinja or Helm)",
            "give what it was rendered to, which lies on the hosts of the control plane",
        )
    if text.startswith("#!"):
        return Recognised("a script", "give the configuration that it writes")
    return None


def _key_size(word: str) -> int | None:
    if re.fullmatch("(?:[0-9A-Fa-f]{32}|[0-9A-Fa-f]{48}|[0-9A-Fa-f]{64})", word):
        return len(word) // 2
    try:
        size = len(base64.b64decode(word.replace("-", "+").replace("_", "/"), validate=True))
    except ValueError:
        return None
    return size if size in _KEY_SIZES else None


def _bare_key(size: int, form: str) -> Recognised:
    text = "its base64" if form != "in base64" else "it"
    return Recognised(
        f"a bare key of {size} bytes {form}",
        "`snaptool inspect SNAPSHOT` shows provider and key name of the values; write a configuration with them "
        f"and {text} as `secret` (docs/configurations.md has one to copy)",
    )


# --- documents ------------------------------------------------------------------------------------------------------


def recognise_documents(data: bytes) -> Recognised | None:
    """Say what the documents of a file are; None when they are nothing known."""
    documents: list[Any] = []
    with suppress(Refused):
        documents.extend(parse_documents(data))
        if not any(document is not None for document in documents):
            return Recognised("a file of comments without a document", "give the file with the configuration")
    if documents and isinstance(documents[0], str):
        return Recognised("a plain text", "give the file that has `kind: EncryptionConfiguration`")
    found = [_recognise_tree(document) for document in documents if isinstance(document, TreeMap)]
    return next((known for known in found if known is not None), None)


def _recognise_tree(tree: TreeMap) -> Recognised | None:
    for look in _LOOKS:
        found = look(tree)
        if found is not None:
            return found
    return None


def _sops(tree: TreeMap) -> Recognised | None:
    sops = tree.get("sops")
    if not isinstance(sops, dict) or not ({"mac", "version", "lastmodified"} & set(sops)):
        return None
    return Recognised("a file encrypted by sops", f"run `sops --decrypt FILE`; {_PIPE}")


def _api_server(tree: TreeMap) -> Recognised | None:
    """Find what configures kube-apiserver, and in it the path of the file that is wanted."""
    version, kind = _texts(tree, "apiVersion"), _texts(tree, "kind")
    what = {
        "Pod": "a Pod manifest",
        "ClusterConfiguration": "a configuration of kubeadm",
        "KubeadmControlPlane": "a manifest of Cluster API",
        "ClusterConfig": "a configuration of k0s" if "k0s" in version else "a cluster configuration",
    }.get(kind)
    paths = [path for path in _provider_config_paths(tree) if _PATH.fullmatch(path)]
    if what is None and not paths:
        return None
    what = what or _kind_of(tree) or "a file that starts kube-apiserver"
    if not paths:
        return Recognised(
            what, "it names no --encryption-provider-config; give the file that kube-apiserver is started with"
        )
    path = _on_host(tree, paths[0])
    return Recognised(what, f"give the file that it names: {path} on the hosts of the control plane")


_PATH = re.compile(r"/[A-Za-z0-9._/@-]{1,200}")
_OPTION = re.compile(r"--(?:experimental-)?encryption-provider-config[=\s]+[\"']?(/[^\s\"',\]]+)")


def _provider_config_paths(tree: Any) -> Iterator[str]:
    seen: set[int] = set()
    to_see = [tree]
    while to_see:
        value = to_see.pop()
        if isinstance(value, str):
            # A long text may have many aliases.
            if id(value) not in seen:
                seen.add(id(value))
                yield from _OPTION.findall(value)
        elif isinstance(value, list):
            for item, behind in pairwise([*value, None]):
                if isinstance(item, str) and isinstance(behind, str) and item.endswith("encryption-provider-config"):
                    yield behind
                # kubeadm v1beta4: a list of name and value.
                if isinstance(item, dict) and item.get("name") == "encryption-provider-config":
                    yield str(item.get("value"))
            to_see += reversed(value)
        elif isinstance(value, dict):
            path = value.get("encryption-provider-config")
            if isinstance(path, str):
                yield path
            to_see += reversed(value.values())


def _on_host(tree: TreeMap, path: str) -> str:
    """Translate a path in a Pod to the host's, where the manifest mounts one."""
    spec = tree.get("spec")
    if not isinstance(spec, dict):
        return path
    hosts = {
        volume.get("name"): (volume.get("hostPath") or {}).get("path")
        for volume in _maps(spec.get("volumes"))
        if isinstance(volume.get("hostPath"), dict)
    }
    mounts = [mount for container in _maps(spec.get("containers")) for mount in _maps(container.get("volumeMounts"))]
    for mount in mounts:
        inside, outside = mount.get("mountPath"), hosts.get(mount.get("name"))
        if isinstance(inside, str) and isinstance(outside, str) and f"{path}/".startswith(f"{inside.rstrip('/')}/"):
            translated = outside.rstrip("/") + path[len(inside.rstrip("/")) :]
            if _PATH.fullmatch(translated):
                return translated
    return path


def _maps(value: Any) -> list[TreeMap]:
    return [item for item in value if isinstance(item, TreeMap)] if isinstance(value, list) else []


def _kubeconfig(tree: TreeMap) -> Recognised | None:
    if _texts(tree, "kind") != "Config" or not ({"clusters", "contexts", "users"} & set(tree)):
        return None
    return Recognised(
        "a kubeconfig",
        "give the file that kube-apiserver names in --encryption-provider-config; it lies on the hosts of the control "
        "plane",
    )


def _rke(tree: TreeMap) -> Recognised | None:
    if isinstance(tree.get("desiredState"), dict) or isinstance(tree.get("currentState"), dict):
        return Recognised("an RKE state file without a configuration", "encryption was off when it was written")
    services = tree.get("services")
    kube_api = services.get("kube-api") if isinstance(services, dict) else None
    if not isinstance(kube_api, dict):
        return None
    encryption = kube_api.get("secrets_encryption_config")
    if isinstance(encryption, dict) and encryption.get("enabled") is True:
        return Recognised(
            "a cluster.yml of RKE whose key RKE made by itself",
            "give cluster.rkestate, which lies beside it, or /etc/kubernetes/ssl/encryption.yaml of a host",
        )
    return Recognised("a cluster.yml of RKE without an encryption configuration", "encryption is off in this cluster")


def _talos(tree: TreeMap) -> Recognised | None:
    if not _texts(tree, "version").startswith("v1alpha") or not ({"machine", "cluster"} & set(tree)):
        return None
    return Recognised(
        "a machine configuration of Talos without an encryption secret",
        "give that of a control plane node (`talosctl get machineconfig -o yaml`), or the secrets bundle",
    )


def _k3s(tree: TreeMap) -> Recognised | None:
    known = {"secrets-encryption", "secrets-encryption-provider", "cluster-init", "tls-san", "write-kubeconfig-mode"}
    if "kind" in tree or not (known & set(tree)):
        return None
    return Recognised(
        "a configuration of k3s or RKE2",
        "give server/cred/encryption-config.json below the data directory (/var/lib/rancher/k3s or rke2)",
    )


def _by_kind(tree: TreeMap) -> Recognised | None:
    kind, version = _texts(tree, "kind"), _texts(tree, "apiVersion")
    if kind in {"EncryptionConfiguration", "EncryptionConfig"}:
        return None
    if kind in {"Secret", "ConfigMap"}:
        names = [name for field in ("data", "stringData", "binaryData") for name in tree.get(field) or ()]
        hold = "holds" if len(names) == 1 else "hold"
        count = f"{len(names)} {'entry' if len(names) == 1 else 'entries'}"
        return Recognised(
            f"a {kind} whose {count} {hold} no EncryptionConfiguration",
            f"give the {kind} that kube-apiserver mounts, or the file that it names in --encryption-provider-config",
        )
    known = _KINDS.get(kind)
    if known is not None and (not known[0] or known[0] in version):
        return Recognised(known[1], known[2])
    described = _kind_of(tree)
    if described is None:
        return None
    return Recognised(described, "give the file that kube-apiserver names in --encryption-provider-config")


_KINDS = {
    "SealedSecret": (
        "bitnami",
        "a SealedSecret, which only its controller opens",
        "give the Secret that the controller made of it",
    ),
    "ExternalSecret": (
        "external-secrets",
        "an ExternalSecret, which only names a place in a store",
        "give the Secret that it makes",
    ),
    "Cluster": (
        "kops",
        "a cluster of kOps",
        "give secrets/encryptionconfig from its state store",
    ),
    "APIServer": (
        "config.openshift.io",
        "the APIServer object of OpenShift",
        "its key lies in the backup: `snaptool config extract SNAPSHOT`",
    ),
}


def _kind_of(tree: TreeMap) -> str | None:
    kind, version = _texts(tree, "kind"), _texts(tree, "apiVersion")
    if not re.fullmatch(r"[A-Za-z]{1,60}", kind):
        return None
    article = "an" if kind[0] in "AEIOU" else "a"
    shown = f" ({version})" if re.fullmatch(r"[a-z0-9./_-]{1,80}", version) else ""
    return f"{article} {kind}{shown}"


def _texts(tree: TreeMap, name: str) -> str:
    value = tree.get(name)
    return value if isinstance(value, str) else ""


_LOOKS: tuple[Callable[[TreeMap], Recognised | None], ...] = (
    _sops,
    _kubeconfig,
    _rke,
    _talos,
    _api_server,
    _k3s,
    _by_kind,
)
