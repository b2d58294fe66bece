"""What an accepted configuration makes one wonder about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import combinations

from snaptool.providers.config.go_values import endpoint_path
from snaptool.providers.config.model import (
    EncryptionConfig,
    KeyConfig,
    KmsConfig,
    LocalConfig,
    ProviderConfig,
    split_resource,
)
from snaptool.providers.provider import Kind


def config_warnings(config: EncryptionConfig) -> Iterator[str]:
    """Yield what an accepted configuration makes one wonder about. Never holds a secret."""
    secrets: dict[bytes, str] = {}
    for index, entry in enumerate(config.entries):
        path, kinds = f"resources[{index}]", [provider.kind for provider in entry.providers]
        for name in entry.resources:
            if not _NAME_OF_A_RESOURCE.fullmatch(name) or _VERSION.fullmatch(split_resource(name)[1]):
                yield f"{path}: no resource is called {name!r}; write it as plural.group, with no version and no slash"
        if kinds[0] in _WARNED_WRITERS:
            yield f"{path}: {_WARNED_WRITERS[kinds[0]]}"
        # The providers of a resource are those of all entries that name it.
        names = set(entry.group_resources)
        chain = [one for other in config.entries if names & set(other.group_resources) for one in other.providers]
        if _one_reads_for_another(keys_of(chain, Kind.AESCBC)):
            yield f"{path}: two aescbc keys fit one name, and the wrong one may read garbage without an error"
        if Kind.IDENTITY not in kinds:
            yield f"{path}: there is no identity, so values that are still in clear cannot be read"
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


_NAME_OF_A_RESOURCE = re.compile(r"(?:\*|[a-z0-9-]+)(?:\.(?:\*|[a-z0-9.-]*))?")
_VERSION = re.compile(r"v[0-9]+(?:(?:alpha|beta)[0-9]+)?")
# The number is that of the table of providers in kubernetes/website, tasks/administer-cluster/encrypt-data.
_WARNED_WRITERS = {
    Kind.IDENTITY: "identity comes first, so new values are written in clear",
    Kind.AESCBC: "aescbc does not notice altered values; secretbox and KMS v2 do",
    Kind.AESGCM: "aesgcm needs a new key every 200,000 writes, its nonces being random; secretbox and KMS v2 do not",
}


def _one_reads_for_another(keys: Iterable[KeyConfig]) -> bool:
    return any(one.secret != other.secret and fits_for(one.name, other.name) for one, other in combinations(keys, 2))


def fits_for(name: str, other: str) -> bool:
    """Is a key tried for what a key of another name sealed, or that one for its? Names are matched with their colon."""
    return f"{name}:".startswith(f"{other}:") or f"{other}:".startswith(f"{name}:")


def keys_of(providers: Iterable[ProviderConfig], kind: Kind) -> Iterator[KeyConfig]:
    """Yield the keys of the providers of a kind, in order."""
    for provider in providers:
        if isinstance(provider, LocalConfig) and provider.kind is kind:
            yield from provider.keys
