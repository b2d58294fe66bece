"""What kube-apiserver demands of a configuration, and the whole way from a text to one that it accepts.

All errors of validation are collected, then the entries are put together and the first error counts. Source:
kubernetes/apiserver pkg/server/options/encryptionconfig, pkg/apis/apiserver/validation (24a394e51);
docs/formats/encryption.md, "Rules".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from snaptool.providers.config.decode import (
    RawEntry,
    RawKey,
    RawKms,
    RawProvider,
    Refused,
    decode,
    parse_text,
)
from snaptool.providers.config.go_values import decode_base64, endpoint_problem
from snaptool.providers.config.model import (
    KEY_SIZES,
    LOCAL_PROVIDERS,
    BadConfig,
    ConfigEntry,
    ConfigProblem,
    EncryptionConfig,
    KeyConfig,
    KmsConfig,
    LocalConfig,
    ProviderConfig,
    split_resource,
)
from snaptool.providers.provider import Kind
from snaptool.text import counted


def _validate(entries: list[RawEntry], *, automatic_reload: bool) -> Iterator[ConfigProblem]:
    if not entries:
        yield ConfigProblem("resources", "resources_required", "there must be at least one entry")
    kms_names: set[str] = set()
    for index, entry in enumerate(entries):
        path = f"resources[{index}]"
        if not entry.resources:
            yield ConfigProblem(f"{path}.resources", "entry_resources_required", "there must be at least one resource")
        yield from _check_names(entry.resources, f"{path}.resources")
        if not entry.providers:
            yield ConfigProblem(f"{path}.providers", "providers_required", "there must be at least one provider")
        for number, provider in enumerate(entry.providers):
            place = f"{path}.providers[{number}]"
            yield from _check_provider(provider, place)
            if provider.kms is not None:
                name, version = provider.kms.name, provider.kms.api_version
                if name in kms_names and (version != "v1" or automatic_reload):
                    yield ConfigProblem(f"{place}.kms.name", "kms_name_duplicate", "another KMS provider has this name")
                kms_names.add(name)


def _check_names(names: list[str], path: str) -> Iterator[ConfigProblem]:
    pairs = [split_resource(name) for name in names]
    if len(set(pairs)) < len(pairs):
        yield ConfigProblem(path, "duplicate_resource", "a resource is named twice")
    everything = ("*", "*") in pairs and len(pairs) > 1
    groups = [group for resource, group in pairs if resource == "*"]
    if everything or any(sum(group == other for _, other in pairs) > 1 for group in groups):
        yield ConfigProblem(path, "overlap", "a wildcard stands beside a name that it covers")
    for index, name in enumerate(names):
        broken = _name_problem(name)
        if broken is not None:
            yield ConfigProblem(f"{path}[{index}]", *broken)


_NAME_RULES: tuple[tuple[str, str, Callable[[str, str, str], bool]], ...] = (
    ("capital_letters", "resource names are lower case", lambda name, _r, _g: name != name.lower()),
    ("bare_star", "use *. for the core group, *.* for everything", lambda name, _r, _g: name == "*"),
    (
        "no_rest_api",
        "this has no API and cannot be encrypted",
        lambda name, _r, _g: name in {"apiserveripinfo", "serviceipallocations", "servicenodeportallocations"},
    ),
    ("events_group", "use events for both event APIs", lambda _n, _r, group: group == "events.k8s.io"),
    ("extensions_group", "use the group that replaced extensions", lambda _n, _r, group: group == "extensions"),
    ("across_groups", "a resource of all groups cannot be named", lambda _n, res, group: group == "*" and res != "*"),
)


def _name_problem(name: str) -> tuple[str, str] | None:
    resource, group = split_resource(name)
    return next(((code, message) for code, message, broken in _NAME_RULES if broken(name, resource, group)), None)


def _check_provider(provider: RawProvider, path: str) -> Iterator[ConfigProblem]:
    count = len(provider.local) + provider.identity + (provider.kms is not None)
    if not count:
        yield ConfigProblem(path, "no_provider", "it names no provider (identity needs braces: identity: {})")
        return
    if count > 1:
        yield ConfigProblem(path, "several_providers", "it names more than one provider")
    if provider.kms is not None:
        yield from _check_kms(provider.kms, f"{path}.kms")
        return
    for name, keys in provider.local.items():
        yield from _check_keys(keys, KEY_SIZES[LOCAL_PROVIDERS[name]], f"{path}.{name}.keys")
        return


def _check_keys(keys: list[RawKey], sizes: tuple[int, ...], path: str) -> Iterator[ConfigProblem]:
    if not keys:
        yield ConfigProblem(path, "keys_required", "there must be at least one key")
    for index, key in enumerate(keys):
        if not key.name:
            yield ConfigProblem(f"{path}[{index}].name", "key_name_required", "the key needs a name")
        place = f"{path}[{index}].secret"
        if not key.secret:
            yield ConfigProblem(place, "secret_required", "the key needs a secret")
            continue
        secret = decode_base64(key.secret)
        if secret is None:
            yield ConfigProblem(place, "not_base64", "it is not standard base64 with padding")
        elif len(secret) not in sizes:
            wanted = ", ".join(str(size) for size in sizes)
            yield ConfigProblem(
                place, "key_length", f"it has {counted(len(secret), 'byte')}; this provider takes {wanted}"
            )


def _check_kms(kms: RawKms, path: str) -> Iterator[ConfigProblem]:
    if not kms.name:
        yield ConfigProblem(f"{path}.name", "kms_name_required", "the provider needs a name")
    if kms.api_version != "v1" and ":" in kms.name:
        yield ConfigProblem(f"{path}.name", "kms_name_colon", "a KMS v2 name has no colon")
    if kms.timeout is not None and kms.timeout <= 0:
        yield ConfigProblem(f"{path}.timeout", "kms_timeout", "it must be greater than 0")
    code = endpoint_problem(kms.endpoint)
    if code is not None:
        yield ConfigProblem(f"{path}.endpoint", code, "it must be unix:///path/of/socket")
    if kms.api_version == "v1":
        if kms.cache_size == 0:
            yield ConfigProblem(f"{path}.cachesize", "kms_cachesize_zero", "it must not be 0")
    elif kms.cache_size is not None:
        yield ConfigProblem(f"{path}.cachesize", "kms_cachesize_v2", "KMS v2 has no cachesize")
    if kms.api_version not in {"v1", "v2"}:
        yield ConfigProblem(f"{path}.apiVersion", "kms_api_version", "it must be v1 or v2")


def _built(entry: RawEntry) -> ConfigEntry:
    return ConfigEntry(tuple(entry.resources), tuple(_built_provider(provider) for provider in entry.providers))


def _built_provider(provider: RawProvider) -> ProviderConfig:
    if provider.kms is not None:
        kms = provider.kms
        seconds = (kms.timeout or 0) / 1e9
        return KmsConfig(kms.name, kms.api_version, kms.endpoint, seconds, kms.cache_size)
    for name, keys in provider.local.items():
        return LocalConfig(
            LOCAL_PROVIDERS[name], tuple(KeyConfig(key.name, decode_base64(key.secret) or b"") for key in keys)
        )
    return LocalConfig(Kind.IDENTITY)


def _build_problem(config: EncryptionConfig, *, kmsv1: bool) -> ConfigProblem | None:
    seen: set[tuple[str, str]] = set()
    for index, entry in enumerate(config.entries):
        for number, provider in enumerate(entry.providers):
            if not kmsv1 and provider.kind is Kind.KMS_V1:
                place = f"resources[{index}].providers[{number}].kms"
                return ConfigProblem(place, "kmsv1_disabled", "KMS v1 is off unless the feature gate KMSv1 is on")
        for number, (resource, group) in enumerate(entry.group_resources):
            if ("*", group) in seen or ("*", "*") in seen:
                place = f"resources[{index}].resources[{number}]"
                return ConfigProblem(place, "masked", "an entry before covers it with a wildcard; name it before that")
            seen.add((resource, group))
    return None


def parse_config(
    data: bytes, *, name: str = "", strict: bool = True, kmsv1: bool = True, automatic_reload: bool = False
) -> EncryptionConfig:
    """Parse and check a configuration.

    `strict`: 1.31 and newer. `kmsv1`: the feature gate KMSv1 is on (off by default since 1.29). `automatic_reload`:
    the API server reloads the file, which forbids KMS v1 providers of one name. Raises BadConfig.
    """
    try:
        return _read(data, name=name, strict=strict, kmsv1=kmsv1, automatic_reload=automatic_reload)
    except BadConfig as refused:
        # A refusal is rare; what it takes to explain one is loaded then.
        from snaptool.providers.config.explain import explained  # noqa: PLC0415

        raise BadConfig(name, refused.stage, explained(data, refused.problems, name)) from refused


def _read(data: bytes, *, name: str, strict: bool, kmsv1: bool, automatic_reload: bool) -> EncryptionConfig:
    try:
        tree = parse_text(data)
    except Refused as error:
        raise BadConfig(name, "decode", error.problems) from error
    return config_of(tree, name=name, strict=strict, kmsv1=kmsv1, automatic_reload=automatic_reload)


def config_of(
    tree: Any, *, name: str, strict: bool, kmsv1: bool = True, automatic_reload: bool = False
) -> EncryptionConfig:
    """Check a configuration that is a tree already; otherwise as `parse_config`."""
    try:
        entries = decode(tree, strict=strict)
    except Refused as error:
        raise BadConfig(name, "decode", error.problems) from error
    problems = list(_validate(entries, automatic_reload=automatic_reload))
    if problems:
        raise BadConfig(name, "validate", problems)
    config = EncryptionConfig(name, tuple(_built(entry) for entry in entries))
    problem = _build_problem(config, kmsv1=kmsv1)
    if problem is not None:
        raise BadConfig(name, "build", [problem])
    return config
