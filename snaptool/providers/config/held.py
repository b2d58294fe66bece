"""Files that hold a configuration, or the keys of one: Secrets, state of RKE, machine configurations of Talos.

A configuration is looked for wherever it may stand in a document: as a mapping, as a text, as base64 of a text. That
takes Secret and ConfigMap manifests and lists of them, RKE's cluster.yml and cluster.rkestate, kOps' encryptionconfig,
cloud-init and Cluster API files without knowing each. Talos, OpenShift and HyperShift keep keys alone, of which they
make the configuration by rules of their own: those are stated here. Source: docs/formats/containers.md, "Configurations
elsewhere".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from snaptool.providers.config.decode import Refused, TreeMap, parse_documents
from snaptool.providers.config.go_values import decode_base64
from snaptool.providers.config.model import BadConfig, EncryptionConfig
from snaptool.providers.config.rules import config_of, parse_config

_DEEPEST_WRAPPING = 3
_KINDS = {"EncryptionConfiguration", "EncryptionConfig"}
_IN_BASE64 = re.compile(r"[A-Za-z0-9+/]{64}[A-Za-z0-9+/\s]*={0,2}\s*")
_STALE_COPIES = {"kubectl.kubernetes.io/last-applied-configuration", "managedFields"}


@dataclass(frozen=True, slots=True)
class ReadConfigs:
    """The configurations of one file, in the order in which they are tried, and warnings.

    A configuration that the file holds has a name that says where in it.
    """

    configs: tuple[EncryptionConfig, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Held:
    """A configuration in a document: where, and the text or the tree that it is."""

    place: str
    content: Any
    platform: str = ""


def read_configs(data: bytes, *, name: str = "", strict: bool = False, automatic_reload: bool = False) -> ReadConfigs:
    """Read a configuration, or all that a file holds.

    Not `strict`: fields that servers before 1.31 overlooked are overlooked, with a note. Raises BadConfig, which says
    what the file is where it holds none.
    """
    try:
        config, notes = _read_one(data, name, strict=strict, automatic_reload=automatic_reload)
    except BadConfig as refused:
        first = next(_documents(data), None)
        meant = isinstance(first, TreeMap) and first.get("kind") in _KINDS
        found = _held_in(data, 0) if refused.stage == "decode" and not meant else []
        if not found:
            raise
        return _read_held(found, name, strict=strict, automatic_reload=automatic_reload)
    return ReadConfigs((config,), (*notes, *_documents_behind(data, name)))


def _read_one(
    content: Any, name: str, *, strict: bool, automatic_reload: bool = False
) -> tuple[EncryptionConfig, list[str]]:
    """Read a text or a tree. When it is not `strict`, notes say what 1.31 and newer refuse."""

    def read(*, strict: bool) -> EncryptionConfig:
        if isinstance(content, bytes):
            return parse_config(content, name=name, strict=strict, automatic_reload=automatic_reload)
        return config_of(content, name=name, strict=strict, automatic_reload=automatic_reload)

    try:
        return read(strict=True), []
    except BadConfig as refused:
        if strict or not all(problem.code.startswith("strict_") for problem in refused.problems):
            raise
        notes = [f"{name}: {problem}; Kubernetes 1.31 and newer refuse it" for problem in refused.problems]
        return read(strict=False), notes


def _read_held(found: list[_Held], name: str, *, strict: bool, automatic_reload: bool) -> ReadConfigs:
    configs: list[EncryptionConfig] = []
    notes: list[str] = []
    refusals: list[BadConfig] = []
    for held in found:
        place = f"{name or 'configuration'}, {held.place}"
        try:
            config, remarks = _read_one(held.content, place, strict=strict, automatic_reload=automatic_reload)
        except BadConfig as refused:
            refusals.append(refused)
            continue
        # The same configuration twice is one: RKE keeps the state that is wanted and the one that is.
        if any(config.entries == other.entries for other in configs):
            continue
        configs.append(replace(config, platform=held.platform))
        notes += remarks
    if not configs:
        raise refusals[0]
    notes += [f"{refused}; it was not taken" for refused in refusals]
    return ReadConfigs(tuple(configs), tuple(notes))


def _documents_behind(data: bytes, name: str) -> Iterator[str]:
    """Note the documents behind the first one, which API servers do not look at."""
    if b"\n---" not in data:
        return
    behind = [document for number, document in enumerate(_documents(data)) if number and document is not None]
    held = sum(isinstance(one, TreeMap) and one.get("kind") in _KINDS for one in behind)
    if behind:
        what = f"{len(behind)} more document{'s' * (len(behind) > 1)}"
        which = f" ({held} of them an EncryptionConfiguration)" if held else ""
        yield f"{name}: the file has {what}{which}; API servers read the first one alone, and so does snaptool"


# --- search ---------------------------------------------------------------------------------------------------------


def _documents(data: bytes) -> Iterator[Any]:
    try:
        yield from parse_documents(data)
    except Refused:
        return


def _held_in(data: bytes, depth: int) -> list[_Held]:
    """Find the configurations that the documents of a text hold."""
    found: list[_Held] = []
    for number, document in enumerate(_documents(data)):
        where = f"document {number + 1}" if number else ""
        found += [
            replace(held, place=", ".join(part for part in (where, held.place) if part))
            for held in (*_made(document), *_search(document, (), depth, set()))
        ]
    return found


def _search(value: Any, path: tuple[str, ...], depth: int, seen: set[int]) -> Iterator[_Held]:
    """Walk through a value. `seen`: the texts that were looked at, by id; one long text may have many aliases."""
    if isinstance(value, TreeMap):
        if _is_configuration(value):
            # Talos and RKE leave out what is always the same.
            whole = TreeMap()
            whole.update({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration"} | value)
            yield _Held(_path_text(path), whole)
            return
        # The state that RKE wants counts before the one that it found; a restore uses it.
        for name in sorted(value, key=lambda name: name == "currentState"):
            if name not in _STALE_COPIES:
                yield from _search(value[name], (*path, name), depth, seen)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _search(item, (*path, _name_of(item) or f"[{number}]"), depth, seen)
    elif isinstance(value, str) and depth < _DEEPEST_WRAPPING and id(value) not in seen:
        seen.add(id(value))
        yield from _search_text(value, path, depth)


def _search_text(text: str, path: tuple[str, ...], depth: int) -> Iterator[_Held]:
    if ("EncryptionConfig" in text and "\n" in text.strip()) or text.lstrip().startswith("{"):
        content = text.encode(errors="replace")
    elif _IN_BASE64.fullmatch(text):
        content = decode_base64(re.sub(r"[ \t]", "", text)) or b""
    else:
        return
    if not re.search(rb"EncryptionConfig|\bkind\b", content):
        return
    place = _path_text(path)
    if any(isinstance(document, TreeMap) and document.get("kind") in _KINDS for document in _documents(content)):
        yield _Held(place, content)
        return
    inner = _held_in(content, depth + 1)
    yield from (replace(held, place=f"{place}, {held.place}" if held.place else place) for held in inner)
    if not inner and re.search(rb"kind[\"']?\s*:\s*[\"']?EncryptionConfig", content):
        # It means to be one, and fails: the reader says where.
        yield _Held(place, content)


def _is_configuration(tree: TreeMap) -> bool:
    if tree.get("kind") in _KINDS:
        return isinstance(tree.get("resources"), list)
    entries = tree.get("resources")
    return (
        "kind" not in tree
        and isinstance(entries, list)
        and bool(entries)
        and all(isinstance(entry, TreeMap) and {"resources", "providers"} <= set(entry) for entry in entries)
    )


def _name_of(item: Any) -> str:
    """Return what an object in a list is called."""
    metadata = item.get("metadata") if isinstance(item, TreeMap) else None
    name = metadata.get("name") if isinstance(metadata, TreeMap) else None
    return name if isinstance(name, str) else ""


_SHOWN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}|\[[0-9]+\]")


def _path_text(path: tuple[str, ...]) -> str:
    """Show a path; a name that could be anything else stays out of messages."""
    return ".".join(step if _SHOWN.fullmatch(step) else "…" for step in path).replace(".[", "[")


# --- keys alone -----------------------------------------------------------------------------------------------------


def _made(document: Any) -> Iterator[_Held]:
    """Make the configuration that a platform makes of the keys in its own files."""
    if not isinstance(document, TreeMap):
        return
    items = document.get("items")
    for item in items if isinstance(items, list) and str(document.get("kind")).endswith("List") else [document]:
        if isinstance(item, TreeMap):
            yield from _of_talos(item)
            yield from _of_key_secret(item)


def _of_talos(tree: TreeMap) -> Iterator[_Held]:
    """Talos serves secretbox `key2`, then aescbc `key1`, then identity, for Secrets alone.

    In machine configurations under `cluster`, in bundles of secrets under `secrets`, where names are in small letters.
    """
    content = tree.get("config")
    if tree.get("kind") == "KubeEtcdEncryptionConfig" and isinstance(content, str):
        inner = next(_documents(content.encode(errors="replace")), None)
        yield from _search(inner, ("config",), _DEEPEST_WRAPPING, set())
    spec = tree.get("spec")
    for where, place in (
        (tree.get("cluster"), "cluster"),
        (tree.get("secrets"), "secrets"),
        # `talosctl get machineconfig -o yaml` wraps the document, as a text or as it is.
        (spec.get("cluster") if isinstance(spec, TreeMap) else None, "spec.cluster"),
    ):
        if isinstance(where, TreeMap):
            fields = {name.lower(): value for name, value in where.items()}
            secretbox, aescbc = fields.get("secretboxencryptionsecret"), fields.get("aescbcencryptionsecret")
            if isinstance(secretbox, str) or isinstance(aescbc, str):
                yield _Held(f"{place} (keys of Talos)", talos_configuration(secretbox, aescbc), "talos")


def talos_configuration(secretbox: str | None, aescbc: str | None) -> TreeMap:
    """Make the configuration that Talos renders for kube-apiserver; both are base64.

    Source: siderolabs/talos, template of the API server's manifests; docs/formats/containers.md, "Configurations
    elsewhere".
    """
    pairs = (("secretbox", "key2", secretbox), ("aescbc", "key1", aescbc))
    providers = [_provider(kind, name, text) for kind, name, text in pairs if text]
    return _tree([(["secrets"], providers)])


_OPENSHIFT_KEY = "encryption.apiserver.operator.openshift.io-key"
_OPENSHIFT_MODE = "encryption.apiserver.operator.openshift.io/mode"
OPENSHIFT_RESOURCES = {
    "openshift-kube-apiserver": ("secrets", "configmaps"),
    "openshift-apiserver": ("routes.route.openshift.io",),
    "openshift-oauth-apiserver": (
        "oauthaccesstokens.oauth.openshift.io",
        "oauthauthorizetokens.oauth.openshift.io",
    ),
}
_HYPERSHIFT_RESOURCES = [name for names in OPENSHIFT_RESOURCES.values() for name in names]


def _of_key_secret(tree: TreeMap) -> Iterator[_Held]:
    """Read a Secret that holds one key: OpenShift's `encryption-key-COMPONENT-NUMBER`, and HyperShift's active key."""
    data, metadata = tree.get("data"), tree.get("metadata")
    if tree.get("kind") != "Secret" or not isinstance(data, TreeMap) or not isinstance(metadata, TreeMap):
        return
    found = re.fullmatch(r"encryption-key-([a-z-]+)-([0-9]+)", str(metadata.get("name")))
    text = data.get(_OPENSHIFT_KEY)
    if found is not None and isinstance(text, str) and found[1] in OPENSHIFT_RESOURCES:
        annotations = metadata.get("annotations")
        mode = annotations.get(_OPENSHIFT_MODE) if isinstance(annotations, TreeMap) else None
        if mode in {"aescbc", "aesgcm", "secretbox"}:
            entry = (list(OPENSHIFT_RESOURCES[found[1]]), [_provider(mode, found[2], text)])
            yield _Held(f"key {found[2]} of {found[1]}", _tree([entry]))
        return
    key = data.get("key")
    if set(data) == {"key"} and isinstance(key, str):
        raw = decode_base64(key)
        if raw is not None and len(raw) == 32:
            entry = (_HYPERSHIFT_RESOURCES, [_provider("aescbc", hypershift_key_name(raw), key)])
            yield _Held("data.key (an active key of HyperShift)", _tree([entry]))


def hypershift_key_name(key: bytes) -> str:
    """Name a key as HyperShift does: by the 32-bit FNV-1 hash (not FNV-1a) of its bytes.

    Source: docs/formats/containers.md, "Configurations elsewhere".
    """
    value = 0x811C9DC5
    for byte in key:
        value = (value * 0x01000193 & 0xFFFFFFFF) ^ byte
    return f"key-{value}"


def _provider(kind: str, name: str, secret: str) -> TreeMap:
    return _map({kind: _map({"keys": [_map({"name": name, "secret": secret})]})})


def _tree(entries: list[tuple[list[str], list[TreeMap]]]) -> TreeMap:
    return _map(
        {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "EncryptionConfiguration",
            "resources": [
                _map({"resources": names, "providers": [*providers, _map({"identity": _map({})})]})
                for names, providers in entries
            ],
        }
    )


def _map(content: dict[str, Any]) -> TreeMap:
    made = TreeMap()
    made.update(content)
    return made
