"""EncryptionConfiguration files: read, checked and refused exactly as kube-apiserver reads, checks and refuses them.

In its order: the text becomes a tree (JSON when it begins with a brace, else the first YAML document, by `go_yaml`),
the tree becomes typed values, defaults are filled in, every field is validated and all errors are collected, then the
entries are put together and the first error counts. The newest rules are the default; `strict=False` are those of 1.13
to 1.30, which overlooked unknown and repeated fields.

No message of this module holds a secret, or a text that could be one: places are named by path, never quoted.
Source: kubernetes/apiserver pkg/server/options/encryptionconfig, pkg/apis/apiserver (24a394e51), sigs.k8s.io/yaml
over go-yaml v2; spec/encryption-at-rest.md, section 5. Texts come in; no file is opened here.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from itertools import combinations, count
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from snaptool.errors import InputError
from snaptool.providers.provider import Kind

_INT32 = range(-(1 << 31), 1 << 31)
KEY_SIZES: Final = {Kind.AESCBC: (16, 24, 32), Kind.AESGCM: (16, 24, 32), Kind.SECRETBOX: (32,)}
_LOCAL = {"aesgcm": Kind.AESGCM, "aescbc": Kind.AESCBC, "secretbox": Kind.SECRETBOX}


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """A broken rule. `path`: where, as `resources[0].providers[1].aescbc.keys[0].secret`; `code`: spec section 5."""

    path: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class BadConfig(InputError):
    """A configuration that kube-apiserver refuses. `stage`: decode, validate or build."""

    def __init__(self, name: str, stage: str, problems: Sequence[ConfigProblem]) -> None:
        listed = "; ".join(str(problem) for problem in problems)
        super().__init__(
            f"{name or 'configuration'}: {listed}",
            hint="kube-apiserver refuses it too; `snaptool config check FILE` shows the same list",
        )
        self.stage = stage
        self.problems = tuple(problems)


class KeyNameTaken(InputError):
    """A fresh key would be tried for what an old one sealed, or that one for its. `key_name`: the old one's."""

    def __init__(self, key_name: str, kind: Kind) -> None:
        super().__init__(
            f"the old configuration has a key {key_name!r} for {kind}; API servers would try one key for the other",
            hint="give the new key a name of its own with --key-name",
        )
        self.key_name = key_name
        self.kind = kind


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """A named key. `secret`: the decoded bytes."""

    name: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """A local provider; identity has no keys."""

    kind: Kind
    keys: tuple[KeyConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class KmsConfig:
    """A KMS provider. `timeout` in seconds; `cache_size` is None for v2."""

    name: str
    api_version: str
    endpoint: str
    timeout: float
    cache_size: int | None

    @property
    def kind(self) -> Kind:
        """KMS v1 or v2."""
        return Kind.KMS_V1 if self.api_version == "v1" else Kind.KMS_V2


ProviderConfig = LocalConfig | KmsConfig


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One entry of `resources`: names as written, and the providers that they have, in order."""

    resources: tuple[str, ...]
    providers: tuple[ProviderConfig, ...]

    @property
    def group_resources(self) -> tuple[tuple[str, str], ...]:
        """The names as pairs of resource and group."""
        return tuple(split_resource(name) for name in self.resources)


@dataclass(frozen=True, slots=True)
class EncryptionConfig:
    """A configuration that kube-apiserver accepts. `name`: where it came from, for messages."""

    name: str
    entries: tuple[ConfigEntry, ...]


def split_resource(name: str) -> tuple[str, str]:
    """Split at the first dot: `deployments.apps` is resource and group; no dot is the core group, which is empty."""
    resource, _, group = name.partition(".")
    return resource, group


def parse_config(
    data: bytes, *, name: str = "", strict: bool = True, kmsv1: bool = True, automatic_reload: bool = False
) -> EncryptionConfig:
    """Parse and check a configuration.

    `strict`: 1.31 and newer. `kmsv1`: the feature gate KMSv1 is on (off by default since 1.29). `automatic_reload`:
    the API server reloads the file, which forbids KMS v1 providers of one name. Raises BadConfig.
    """
    try:
        tree = _parse_text(data)
        entries = _Decoder(strict=strict).configuration(tree)
    except _Refused as error:
        raise BadConfig(name, "decode", error.problems) from error
    problems = list(_validate(entries, automatic_reload=automatic_reload))
    if problems:
        raise BadConfig(name, "validate", problems)
    config = EncryptionConfig(name, tuple(_built(entry) for entry in entries))
    problem = _build_problem(config, kmsv1=kmsv1)
    if problem is not None:
        raise BadConfig(name, "build", [problem])
    return config


class _Refused(Exception):
    """Ends decoding; never leaves this module."""

    def __init__(self, code: str, message: str, path: str = "") -> None:
        super().__init__(message)
        self.problems = [ConfigProblem(path, code, message)]


# --- text to tree ---------------------------------------------------------------------------------------------------


class _Map(dict[str, Any]):
    """A mapping of the tree; `repeated` names keys that were set more than once."""

    def __init__(self) -> None:
        super().__init__()
        self.repeated: list[str] = []

    def put(self, key: str, value: Any) -> None:
        """Set a key; the last value wins."""
        if key in self:
            self.repeated.append(key)
        self[key] = value


def _parse_text(data: bytes) -> Any:
    if not data.strip():
        raise _Refused("kind_missing", "the file is empty")
    if data.startswith(b"k8s\0"):
        raise _Refused("syntax", "this is protobuf, not YAML or JSON")
    # Go's blanks are those of Unicode. What Python counts besides is a control character, which both readers refuse.
    if data.decode(errors="replace").lstrip().startswith("{"):
        return _parse_json(data)
    from snaptool.providers import go_yaml  # noqa: PLC0415 - who reads no configuration need not wait for it

    try:
        return go_yaml.parse(data, _Map)
    except go_yaml.NotGoYaml as error:
        raise _Refused("syntax", str(error)) from None


def _parse_json(data: bytes) -> Any:
    def mapping(pairs: list[tuple[str, Any]]) -> _Map:
        made = _Map()
        for key, value in pairs:
            made.put(_whole_characters(key), value)
        return made

    def constant(_name: str) -> None:
        raise _Refused("syntax", "infinity and NaN are no JSON")

    try:
        return json.loads(data.decode(), object_pairs_hook=mapping, parse_constant=constant, parse_int=_json_int)
    except (ValueError, RecursionError) as error:
        # The parser's own message quotes nothing, but its position is all that is needed.
        place = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise _Refused("syntax", f"not valid JSON{place}") from None


def _whole_characters(text: str) -> str:
    r"""Replace halves of a character, which `\ud800` and the like leave behind, as Go does."""
    return _HALF.sub("\ufffd", text)


_HALF = re.compile("[\ud800-\udfff]")


def _json_int(text: str) -> int | float:
    return int(text) if len(text) < 20 else float(text)


# --- tree to values -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Key:
    name: str = ""
    secret: str = field(default="", repr=False)


@dataclass(slots=True)
class _Kms:
    api_version: str = ""
    name: str = ""
    cache_size: int | None = None
    endpoint: str = ""
    timeout: int | None = None


@dataclass(slots=True)
class _Provider:
    local: dict[str, list[_Key]] = field(default_factory=dict)
    identity: bool = False
    kms: _Kms | None = None


@dataclass(slots=True)
class _Entry:
    resources: list[str] = field(default_factory=list)
    providers: list[_Provider] = field(default_factory=list)


_KINDS: Final = {
    "apiserver.config.k8s.io/v1": {
        "EncryptionConfiguration",
        "AdmissionConfiguration",
        "AuthenticationConfiguration",
        "AuthorizationConfiguration",
        "TracingConfiguration",
    },
    "apiserver.config.k8s.io/__internal": {
        "EncryptionConfiguration",
        "AdmissionConfiguration",
        "AuthenticationConfiguration",
        "AuthorizationConfiguration",
        "TracingConfiguration",
    },
    "v1": {"EncryptionConfig", "Status"},
}


class _Decoder:
    """Reads typed values from a tree. A wrong type ends it; unknown and repeated fields are refused at the end."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._unknown: list[str] = []
        self._repeated: list[str] = []

    def configuration(self, tree: Any) -> list[_Entry]:
        if tree is None:
            raise _Refused("kind_missing", "the first document is empty")
        if not isinstance(tree, _Map):
            raise _Refused("wrong_type", "the document must be a mapping")
        known = self._type_of(tree)
        if not known:
            raise _Refused("wrong_kind", "this kind is not an EncryptionConfiguration")
        fields = {"apiVersion", "kind", "resources"} if known == "external" else {"apiVersion", "kind"}
        self._repeats(tree)
        self._unknown += [_shown(key) for key in tree if key not in fields]
        entries = []
        if known == "external":
            entries = [
                self._entry(item, f"resources[{index}]")
                for index, item in enumerate(self._list(tree.get("resources"), "resources"))
            ]
        if self._strict:
            self._refuse_unknown_and_repeated()
        return entries

    def _refuse_unknown_and_repeated(self) -> None:
        found = [
            _Refused(code, f"{what}: {', '.join(dict.fromkeys(names[:5]))}")
            for code, what, names in (
                ("strict_unknown_field", "unknown fields", self._unknown),
                ("strict_duplicate_key", "fields set twice", self._repeated),
            )
            if names
        ]
        for refused in found[1:]:
            found[0].problems += refused.problems
        if found:
            raise found[0]

    def _type_of(self, tree: _Map) -> str:
        texts = {}
        # This first look ignores case, as encoding/json does; the typed decoding behind it does not.
        for name in ("apiversion", "kind"):
            values = [value for key, value in tree.items() if key.lower() == name and value is not None]
            if any(not isinstance(value, str) for value in values):
                raise _Refused("wrong_type", f"{name} must be a text")
            texts[name] = values[-1] if values else ""
        if not texts["kind"]:
            raise _Refused("kind_missing", "kind is missing")
        version = texts["apiversion"]
        if not version:
            raise _Refused("api_version_missing", "apiVersion is missing")
        if version.count("/") > 1:
            raise _Refused("bad_group_version", "apiVersion has more than one slash")
        if texts["kind"] not in _KINDS.get(version, set()):
            raise _Refused(
                "unknown_kind",
                "it must be kind EncryptionConfiguration of apiVersion apiserver.config.k8s.io/v1",
            )
        if not texts["kind"].startswith("Encryption"):
            return ""
        return "internal" if version.endswith("__internal") else "external"

    def _repeats(self, tree: _Map, path: str = "") -> None:
        self._repeated += [f"{path}.{_shown(key)}" if path else _shown(key) for key in tree.repeated]

    def _list(self, value: Any, path: str) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            raise _Refused("wrong_type", "it must be a list", path)
        return value

    def _map(self, value: Any, path: str, fields: set[str]) -> _Map:
        if value is None:
            return _Map()
        if not isinstance(value, _Map):
            raise _Refused("wrong_type", "it must be a mapping", path)
        self._repeats(value, path)
        self._unknown += [f"{path}.{_shown(key)}" for key in value if key not in fields]
        return value

    def _text(self, value: Any, path: str) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            raise _Refused("wrong_type", "it must be a text; put it into quotes", path)
        return _whole_characters(value)

    def _entry(self, value: Any, path: str) -> _Entry:
        entry = self._map(value, path, {"resources", "providers"})
        names = self._list(entry.get("resources"), f"{path}.resources")
        providers = self._list(entry.get("providers"), f"{path}.providers")
        return _Entry(
            [self._text(name, f"{path}.resources[{index}]") for index, name in enumerate(names)],
            [self._provider(item, f"{path}.providers[{index}]") for index, item in enumerate(providers)],
        )

    def _provider(self, value: Any, path: str) -> _Provider:
        tree = self._map(value, path, {*_LOCAL, "identity", "kms"})
        provider = _Provider()
        for name in _LOCAL:
            if tree.get(name) is not None:
                keys = self._map(tree[name], f"{path}.{name}", {"keys"}).get("keys")
                place = f"{path}.{name}.keys"
                provider.local[name] = [
                    self._key(key, f"{place}[{index}]") for index, key in enumerate(self._list(keys, place))
                ]
        if tree.get("identity") is not None:
            self._map(tree["identity"], f"{path}.identity", set())
            provider.identity = True
        if tree.get("kms") is not None:
            provider.kms = self._kms(tree["kms"], f"{path}.kms")
        return provider

    def _key(self, value: Any, path: str) -> _Key:
        tree = self._map(value, path, {"name", "secret"})
        return _Key(self._text(tree.get("name"), f"{path}.name"), self._text(tree.get("secret"), f"{path}.secret"))

    def _kms(self, value: Any, path: str) -> _Kms:
        tree = self._map(value, path, {"apiVersion", "name", "cachesize", "endpoint", "timeout"})
        kms = _Kms(
            self._text(tree.get("apiVersion"), f"{path}.apiVersion") or "v1",
            self._text(tree.get("name"), f"{path}.name"),
            self._int32(tree.get("cachesize"), f"{path}.cachesize"),
            self._text(tree.get("endpoint"), f"{path}.endpoint"),
            self._duration(tree.get("timeout"), f"{path}.timeout"),
        )
        if kms.cache_size is None and kms.api_version == "v1":
            kms.cache_size = 1000
        return kms

    def _int32(self, value: Any, path: str) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value not in _INT32:
            raise _Refused("wrong_type", "it must be a whole number of 32 bits", path)
        return value

    def _duration(self, value: Any, path: str) -> int:
        if value is None:
            return 3_000_000_000
        if not isinstance(value, str):
            raise _Refused("wrong_type", "it must be a duration, for instance 3s", path)
        nanoseconds = parse_duration(value)
        if nanoseconds is None:
            raise _Refused("bad_duration", "it must be a duration, for instance 3s or 500ms", path)
        return nanoseconds


def _shown(field_name: str) -> str:
    """Return the name if nothing secret can be in it: `{secret:AAEC…}`, with no blank, has the secret in a name."""
    return field_name if re.fullmatch(r"[A-Za-z]{1,20}", field_name) else "(a name that is not shown)"


_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_WHOLE_DIGITS = 19  # of 2^63
_FRACTION_DIGITS = 18  # an hour has fewer nanoseconds
_DURATION_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def parse_duration(text: str) -> int | None:
    """Parse a Go duration to nanoseconds; None when it is none. Source: Go time.ParseDuration."""
    sign, body = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if body == "0":
        return 0
    total = position = 0
    while position < len(body):
        part = _DURATION_PART.match(body, position)
        if part is None or not (part[1] or part[2]):
            return None
        unit = _UNITS[part[3]]
        whole, fraction = part[1].lstrip("0"), (part[2] or "")[:_FRACTION_DIGITS]
        if len(whole) > _WHOLE_DIGITS:
            return None
        total += int(whole or "0") * unit + (int(fraction or "0") * unit // 10 ** len(fraction))
        if total >= 1 << 63:
            return None
        position = part.end()
    return sign * total if body else None


# --- rules ----------------------------------------------------------------------------------------------------------


def _validate(entries: list[_Entry], *, automatic_reload: bool) -> Iterator[ConfigProblem]:
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


def _check_provider(provider: _Provider, path: str) -> Iterator[ConfigProblem]:
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
        yield from _check_keys(keys, KEY_SIZES[_LOCAL[name]], f"{path}.{name}.keys")
        return


def _check_keys(keys: list[_Key], sizes: tuple[int, ...], path: str) -> Iterator[ConfigProblem]:
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
            yield ConfigProblem(place, "key_length", f"it has {len(secret)} bytes; this provider takes {wanted}")


_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.ASCII)


def decode_base64(text: str) -> bytes | None:
    """Decode as Go's StdEncoding does: line breaks anywhere, padding required, unused bits not looked at."""
    text = text.replace("\r", "").replace("\n", "")
    return base64.b64decode(text) if _BASE64.fullmatch(text) else None


def _check_kms(kms: _Kms, path: str) -> Iterator[ConfigProblem]:
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


_USERINFO = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def endpoint_problem(endpoint: str) -> str | None:
    """Return the code of what kube-apiserver has against a KMS endpoint, None when it takes it.

    Source: Go net/url.Parse, then the scheme; spec section 5.8.
    """
    if not endpoint:
        return "kms_endpoint_required"
    address, _, fragment = endpoint.partition("#")
    if any(char < " " or char == "\x7f" for char in address):
        return "kms_endpoint_invalid"
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", address)
    rest = address[scheme.end() if scheme else 0 :].partition("?")[0]
    if scheme is None and ":" in rest.split("/", 1)[0]:
        return "kms_endpoint_invalid"
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        if _authority_is_bad(authority):
            return "kms_endpoint_invalid"
        rest = slash + path
    # What has a scheme and no slash is not taken apart, so its escapes are not looked at.
    taken_apart = scheme is None or rest.startswith("/")
    if _BAD_ESCAPE.search(fragment) or (taken_apart and _BAD_ESCAPE.search(rest)):
        return "kms_endpoint_invalid"
    return None if scheme and scheme[1].lower() == "unix" else "kms_endpoint_scheme"


def _authority_is_bad(authority: str) -> bool:
    user, at, host = authority.rpartition("@")
    if at and not _USERINFO.fullmatch(user):
        return True
    if "[" in host:
        inside, bracket, behind = host[1:].rpartition("]")
        if not host.startswith("[") or not bracket or not re.fullmatch(r"(?::[0-9]*)?", behind, re.ASCII):
            return True
        return bool(_BAD_ESCAPE.search(inside)) or not _is_ipv6(inside)
    _, _, port = host.rpartition(":")
    if ":" in host and not re.fullmatch("[0-9]*", port, re.ASCII):
        return True
    if _BAD_ESCAPE.search(host) or re.search(r"[ \\^`{}|]", host):
        return True
    return any(
        escape.upper() != "%25" and int(escape[1:], 16) < 0x80 for escape in re.findall(r"%[0-9A-Fa-f]{2}", host)
    )


def _is_ipv6(text: str) -> bool:
    address, escape, zone = text.partition("%25")
    if escape and not zone:
        return False
    try:
        IPv6Address(address)
    except ValueError:
        return False
    return "%" not in address


def endpoint_path(endpoint: str) -> str:
    """Return the socket path of an accepted endpoint: the URL's path, unescaped; empty when it has none."""
    rest = endpoint.partition("#")[0].partition("?")[0].partition(":")[2]
    if rest.startswith("//"):
        _, slash, path = rest[2:].partition("/")
        rest = slash + path
    return unquote_to_bytes(rest).decode(errors="surrogateescape") if rest.startswith("/") else ""


def _built(entry: _Entry) -> ConfigEntry:
    return ConfigEntry(tuple(entry.resources), tuple(_built_provider(provider) for provider in entry.providers))


def _built_provider(provider: _Provider) -> ProviderConfig:
    if provider.kms is not None:
        kms = provider.kms
        seconds = (kms.timeout or 0) / 1e9
        return KmsConfig(kms.name, kms.api_version, kms.endpoint, seconds, kms.cache_size)
    for name, keys in provider.local.items():
        return LocalConfig(_LOCAL[name], tuple(KeyConfig(key.name, decode_base64(key.secret) or b"") for key in keys))
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
    free. The old providers of each resource, be they its own or
    those of a wildcard, follow the new one; plaintext is read last. Resources that only `keep` names keep their
    entries. Raises BadConfig when the result would be refused, KeyNameTaken when its name does not tell the fresh key
    from an old one: with aescbc, API servers would read one old value in 256 as garbage, without an error.
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
        names_taken = {key.name for name in resources for key in _keys(old[name], kind)}
        numbered = (f"key{number}" for number in count(1))
        key_name = next(name for name in numbered if not any(_fits_for(name, one) for one in names_taken))
    first: dict[str, Any] = {"identity": {}}
    if kind is not Kind.IDENTITY:
        encoded = base64.b64encode(secret).decode()
        first = {kind.value: {"keys": [{"name": key_name, "secret": encoded}]}}
    entries: list[dict[str, Any]] = []
    for names, providers in _grouped(resources, old):
        chain = []
        if names[0] in resources:
            chain = [first]
            taken = [key.name for key in _keys(providers, kind) if _fits_for(key_name, key.name)]
            if taken:
                raise KeyNameTaken(taken[0], kind)
        chain += [_as_tree(provider) for provider in providers]
        if {"identity": {}} not in chain:
            chain.append({"identity": {}})
        entries.append({"resources": names, "providers": chain})
    entries.sort(key=lambda entry: _breadth(entry["resources"][0]))
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": entries,
    }
    from snaptool.providers import go_yaml  # noqa: PLC0415 - who writes no configuration need not wait for it

    text = _HEAD + go_yaml.write(document)
    try:
        parse_config(text.encode(), name="new configuration")
    except BadConfig as error:
        raise BadConfig("new configuration", error.stage, [_said_of_new(one) for one in error.problems]) from error
    return text


def _said_of_new(problem: ConfigProblem) -> ConfigProblem:
    if problem.code != "kms_name_duplicate":
        return problem
    message = "a KMS v2 provider can stand in one entry alone: seal all resources anew that it reads, or none of them"
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
    """Yield names of one breadth that share their old providers: those to be sealed anew, then those that only stay."""
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
        if _one_reads_for_another(_keys(chain, Kind.AESCBC)):
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
    return any(one.secret != other.secret and _fits_for(one.name, other.name) for one, other in combinations(keys, 2))


def _fits_for(name: str, other: str) -> bool:
    """Is a key tried for what a key of another name sealed, or that one for its? Names are matched with their colon."""
    return f"{name}:".startswith(f"{other}:") or f"{other}:".startswith(f"{name}:")


def _keys(providers: Iterable[ProviderConfig], kind: Kind) -> Iterator[KeyConfig]:
    for provider in providers:
        if isinstance(provider, LocalConfig) and provider.kind is kind:
            yield from provider.keys
