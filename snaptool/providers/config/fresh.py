"""New configurations: a fresh key in front of what an old one reads."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from snaptool.providers.config.advice import fits_for, keys_of
from snaptool.providers.config.model import (
    BadConfig,
    ConfigProblem,
    EncryptionConfig,
    KeyNameTaken,
    KmsConfig,
    ProviderConfig,
    split_resource,
)
from snaptool.providers.config.rules import parse_config
from snaptool.providers.provider import Kind


def new_config(
    *,
    kind: Kind,
    secret: bytes,
    resources: Sequence[str],
    key_name: str | None = None,
    keep: EncryptionConfig | None = None,
) -> str:
    """Write a configuration that seals `resources` with one fresh key and still reads what `keep` reads.

    `kind`: aescbc, aesgcm, secretbox, or identity (no key). Without `key_name`: key1, or the first after it that is
    free. The old providers of each resource, its own or those of a wildcard, follow the new one; plaintext is read
    last. Resources that only `keep` names keep their entries. Raises BadConfig when the result would be refused,
    KeyNameTaken when the fresh key has the name of an old one: with aescbc, API servers would read one old value in 256
    as garbage, without an error.
    """
    old: dict[str, list[ProviderConfig]] = {}
    for entry in keep.entries if keep else ():
        for name in entry.resources:
            old.setdefault(_canonical(name), []).extend(entry.providers)
    resources = [_canonical(name) for name in resources]
    for name in resources:
        # A new entry hides the wildcard that has read its values so far.
        wider = (name, f"*.{split_resource(name)[1]}", "*.*")
        old[name] = next((old[one] for one in wider if one in old), [])
    if key_name is None:
        names_taken = {key.name for name in resources for key in keys_of(old[name], kind)}
        numbered = (f"key{number}" for number in count(1))
        key_name = next(name for name in numbered if not any(fits_for(name, one) for one in names_taken))
    first: dict[str, Any] = {"identity": {}}
    if kind is not Kind.IDENTITY:
        encoded = base64.b64encode(secret).decode()
        first = {kind.value: {"keys": [{"name": key_name, "secret": encoded}]}}
    entries: list[dict[str, Any]] = []
    for names, providers in _grouped(resources, old):
        chain = []
        if names[0] in resources:
            chain = [first]
            taken = [key.name for key in keys_of(providers, kind) if fits_for(key_name, key.name)]
            if taken:
                raise KeyNameTaken(taken[0], kind)
        chain += [_as_tree(provider) for provider in providers]
        if {"identity": {}} not in chain:
            chain.append({"identity": {}})
        entries.append({"resources": names, "providers": chain})
    entries.sort(key=lambda entry: _breadth(entry["resources"][0]))
    return _text_of(entries)


def final_config(text: str) -> str:
    """Write the configuration `new_config` made without the old keys: the first provider of each entry, and identity.

    For the proof that nothing else is needed, and for the day when no server and no backup needs the old keys.
    """
    entries = []
    for entry in parse_config(text.encode(), name="new configuration").entries:
        chain = [_as_tree(entry.providers[0])]
        if {"identity": {}} not in chain:
            chain.append({"identity": {}})
        entries.append({"resources": list(entry.resources), "providers": chain})
    return _text_of(entries)


def config_text(config: EncryptionConfig, *, head: str = "") -> str:
    """Write a configuration as a file; `head`: comments in front. Raises BadConfig when a server would refuse it."""
    return _text_of(
        [
            {"resources": list(entry.resources), "providers": [_as_tree(provider) for provider in entry.providers]}
            for entry in config.entries
        ],
        head,
    )


def _text_of(entries: list[dict[str, Any]], head: str = "") -> str:
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": entries,
    }
    from snaptool.providers import go_yaml  # noqa: PLC0415 - who reads no configuration need not wait for it

    text = (head or _HEAD) + go_yaml.write(document)
    try:
        parse_config(text.encode(), name="new configuration")
    except BadConfig as error:
        raise BadConfig("new configuration", error.stage, [_said_of_new(one) for one in error.problems]) from error
    return text


def _said_of_new(problem: ConfigProblem) -> ConfigProblem:
    if problem.code != "kms_name_duplicate":
        return problem
    message = (
        "a KMS v2 provider can stand in one entry alone: encrypt all resources that it reads with the new key, or none "
        "of them"
    )
    return replace(problem, message=message)


def _canonical(name: str) -> str:
    """Write every name in one way: the core group has no dot, unless it is all of it."""
    resource, group = split_resource(name)
    return name if group or resource == "*" else resource


def _breadth(name: str) -> int:
    """0 for a resource, 1 for a group, 2 for everything: in this order none masks another; only equals share one."""
    return 2 if name == "*.*" else int(name.startswith("*."))


_HEAD = """\
# Written by `snaptool config new`. This file holds the key: mode 0600, and a copy in a safe place.
# Every API server needs it: --encryption-provider-config FILE. The first provider of an entry writes, all of them read.
"""


def _grouped(
    resources: Sequence[str], old: dict[str, list[ProviderConfig]]
) -> Iterator[tuple[list[str], list[ProviderConfig]]]:
    """Yield names of one breadth that share their old providers: those to be sealed again, then those that stay."""
    for wanted in (True, False):
        left = [name for name in (resources if wanted else old) if wanted or name not in resources]
        while left:
            providers = old.get(left[0], [])
            breadth = _breadth(left[0])
            same = [name for name in left if old.get(name, []) == providers and _breadth(name) == breadth]
            yield list(dict.fromkeys(same)), providers
            left = [name for name in left if name not in same]


def _as_tree(provider: ProviderConfig) -> dict[str, Any]:
    if isinstance(provider, KmsConfig):
        kms: dict[str, Any] = {"apiVersion": provider.api_version, "name": provider.name}
        kms |= {"endpoint": provider.endpoint, "timeout": f"{provider.timeout:.9f}".rstrip("0").rstrip(".") + "s"}
        if provider.cache_size is not None:
            kms["cachesize"] = provider.cache_size
        return {"kms": kms}
    if provider.kind is Kind.IDENTITY:
        return {"identity": {}}
    keys = [{"name": key.name, "secret": base64.b64encode(key.secret).decode()} for key in provider.keys]
    return {provider.kind.value: {"keys": keys}}
