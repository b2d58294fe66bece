"""OpenShift's keys, which its operators keep as Secrets in the cluster that they encrypt.

Each of three API servers has keys of its own, numbered from 1, and the number is the key name in the values: the keys
of one are never tried on resources of another. The Secrets are encrypted themselves, under the keys of
`openshift-kube-apiserver`: one configuration that opens them has to come from elsewhere, unless they are plaintext.
Source: openshift/library-go pkg/operator/encryption; docs/formats/containers.md, "OpenShift".
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence

from snaptool.embedded.places import SeenRecord
from snaptool.errors import SnaptoolError
from snaptool.kube.kinds.reader import decode_object
from snaptool.providers.config.held import OPENSHIFT_RESOURCES, read_configs
from snaptool.providers.config.model import (
    BadConfig,
    ConfigEntry,
    EncryptionConfig,
    KeyConfig,
    LocalConfig,
    ProviderConfig,
)
from snaptool.providers.keyring import Chain, GroupResource, Keyring, NoKeyFits
from snaptool.providers.provider import Kind

KEY = "encryption.apiserver.operator.openshift.io-key"
_MODE = "encryption.apiserver.operator.openshift.io/mode"
_MODES = {"aescbc": Kind.AESCBC, "aesgcm": Kind.AESGCM, "secretbox": Kind.SECRETBOX}
_SECRETS = GroupResource("secrets", "")
_ROUNDS = 3
"""One configuration opens the next: the tar's that of kube-apiserver, that one the keys of the others."""


def recover(
    live: Mapping[bytes, SeenRecord], configs: Sequence[EncryptionConfig]
) -> tuple[EncryptionConfig | None, dict[bytes, str | None]]:
    """Open the Secrets with `configs` and with what they hold themselves.

    Returns one configuration with an entry for each resource, None where nothing opened, and for each Secret the reason
    why it stayed closed, None for those that opened.
    """
    found: EncryptionConfig | None = None
    closed: dict[bytes, str | None] = {}
    for _ in range(_ROUNDS):
        known = [*configs, *([found] if found else [])]
        opened: dict[bytes, dict[str, bytes]] = {}
        modes: dict[bytes, str] = {}
        chain = Keyring(known).chain_for(_SECRETS)
        for key, record in live.items():
            closed[key] = _open(chain, key, record, opened, modes)
        new = _configuration(opened, modes)
        if new is None or (found is not None and new.entries == found.entries):
            break
        found = new
    return found, closed


def _open(
    chain: Chain, key: bytes, record: SeenRecord, opened: dict[bytes, dict[str, bytes]], modes: dict[bytes, str]
) -> str | None:
    try:
        secret = decode_object(chain.unseal(record.value, key).plaintext).tree
        data = secret.get("data") or {}
        opened[key] = {name: base64.b64decode(text) for name, text in data.items() if isinstance(text, str)}
        annotations = (secret.get("metadata") or {}).get("annotations") or {}
        modes[key] = str(annotations.get(_MODE))
    except NoKeyFits:
        return "none of the given keys opens it"
    except (SnaptoolError, ValueError, AttributeError):
        return "what it holds is not a Secret"
    return None


def _configuration(opened: Mapping[bytes, Mapping[str, bytes]], modes: Mapping[bytes, str]) -> EncryptionConfig | None:
    entries: list[ConfigEntry] = []
    for component, resources in OPENSHIFT_RESOURCES.items():
        configured = _configured(opened, component)
        read_keys = _read_keys(opened, modes, component)
        for resource in dict.fromkeys([*configured, *resources]):
            providers = list(configured.get(resource, ()))
            present = {
                (provider.kind, key)
                for provider in providers
                if isinstance(provider, LocalConfig)
                for key in provider.keys
            }
            extra = [LocalConfig(kind, (key,)) for kind, key in read_keys if (kind, key) not in present]
            if not providers and not extra:
                continue
            # identity may come first (encryption is off): whatever writes stays first.
            entries.append(ConfigEntry((resource,), (*(providers or [LocalConfig(Kind.IDENTITY)]), *extra)))
    return EncryptionConfig("OpenShift's Secrets in the snapshot", tuple(entries), "openshift") if entries else None


def _configured(opened: Mapping[bytes, Mapping[str, bytes]], component: str) -> dict[str, tuple[ProviderConfig, ...]]:
    """Return the providers of each resource: of the wanted configuration, else of the newest copy."""
    head = b"/kubernetes.io/secrets/"
    managed = head + f"openshift-config-managed/encryption-config-{component}".encode()
    copy = head + f"{component}/encryption-config".encode()
    numbered = sorted(
        (key for key in opened if re.fullmatch(re.escape(copy) + rb"-[0-9]{1,18}", key)),
        key=lambda key: int(key.rpartition(b"-")[2]),
        reverse=True,
    )
    for key in (managed, copy, *numbered):
        try:
            (config,) = read_configs(opened[key]["encryption-config"]).configs
        except (KeyError, BadConfig, ValueError):
            continue
        return {name: entry.providers for entry in config.entries for name in entry.resources}
    return {}


def _read_keys(
    opened: Mapping[bytes, Mapping[str, bytes]], modes: Mapping[bytes, str], component: str
) -> list[tuple[Kind, KeyConfig]]:
    """Return the keys of a component, most recent first."""
    head = f"/kubernetes.io/secrets/openshift-config-managed/encryption-key-{component}-".encode()
    found = []
    for key, data in opened.items():
        number = key.removeprefix(head)
        if key.startswith(head) and re.fullmatch(rb"[0-9]{1,18}", number) and modes[key] in _MODES and KEY in data:
            found.append((int(number), _MODES[modes[key]], KeyConfig(number.decode(), data[KEY])))
    return [(kind, key) for _, kind, key in sorted(found, key=lambda one: one[0], reverse=True)]
