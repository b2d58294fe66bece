"""What an accepted configuration makes one wonder about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from snaptool.providers.config.go_values import endpoint_path
from snaptool.providers.config.model import (
    EncryptionConfig,
    KeyConfig,
    KmsConfig,
    LocalConfig,
    ProviderConfig,
)
from snaptool.providers.provider import Kind


def config_warnings(config: EncryptionConfig) -> Iterator[str]:
    """Yield what an accepted configuration makes one wonder about. Never holds a secret."""
    secrets: dict[bytes, str] = {}
    ambiguous = _entries_with_ambiguous_keys(config)
    for index, entry in enumerate(config.entries):
        path, kinds = f"resources[{index}]", [provider.kind for provider in entry.providers]
        if kinds[0] in _WARNED_WRITERS:
            yield f"{path}: {_WARNED_WRITERS[kinds[0]]}"
        if index in ambiguous:
            yield f"{path}: two aescbc keys fit one name, and the wrong one may read garbage without an error"
        if Kind.IDENTITY not in kinds:
            yield f"{path}: there is no identity, so values that are still in plaintext cannot be read"
        if Kind.KMS_V1 in kinds:
            yield f"{path}: KMS v1 is off by default since Kubernetes 1.29 (feature gate KMSv1)"
        for number, provider in enumerate(entry.providers):
            place = f"{path}.providers[{number}]"
            if isinstance(provider, KmsConfig):
                if not endpoint_path(provider.endpoint):
                    yield f"{place}: the endpoint has no path of a socket; write unix:///path/of/socket"
                continue
            for key in provider.keys:
                other = secrets.setdefault(key.secret, key.name)
                if other != key.name:
                    yield f"{path}: keys {other!r} and {key.name!r} are the same key under two names"


# The number is that of the table of providers in kubernetes/website, tasks/administer-cluster/encrypt-data.
_WARNED_WRITERS = {
    Kind.IDENTITY: "identity comes first, so new values are written in plaintext",
    Kind.AESCBC: "aescbc does not notice altered values; secretbox and KMS v2 do",
    Kind.AESGCM: "aesgcm needs a new key every 200,000 writes, its nonces being random; secretbox and KMS v2 do not",
}


def _entries_with_ambiguous_keys(config: EncryptionConfig) -> set[int]:
    """Find the entries of resources among whose aescbc keys one is tried for what another sealed."""
    # The providers of a resource are those of all entries that name it.
    entries_of: dict[tuple[str, str], list[int]] = {}
    for index, entry in enumerate(config.entries):
        for group_resource in entry.group_resources:
            entries_of.setdefault(group_resource, []).append(index)
    found: set[int] = set()
    for indices in {tuple(dict.fromkeys(indices)) for indices in entries_of.values()}:
        chain = [provider for index in indices for provider in config.entries[index].providers]
        if _one_reads_for_another(keys_of(chain, Kind.AESCBC)):
            found.update(indices)
    return found


def _one_reads_for_another(keys: Iterable[KeyConfig]) -> bool:
    # In sorted order a name is followed at once by all names that it fits for, and those on the stack fit for each
    # other: as long as none was found, they have one secret.
    stack: list[tuple[str, bytes]] = []
    for name, secret in sorted((f"{key.name}:", key.secret) for key in keys):
        while stack and not name.startswith(stack[-1][0]):
            stack.pop()
        if stack and stack[-1][1] != secret:
            return True
        stack.append((name, secret))
    return False


def fits_for(name: str, other: str) -> bool:
    """Is a key tried for what a key of another name sealed, or that one for its? Names are matched with their colon."""
    return f"{name}:".startswith(f"{other}:") or f"{other}:".startswith(f"{name}:")


def keys_of(providers: Iterable[ProviderConfig], kind: Kind) -> Iterator[KeyConfig]:
    """Yield the keys of the providers of a kind, in order."""
    for provider in providers:
        if isinstance(provider, LocalConfig) and provider.kind is kind:
            yield from provider.keys
