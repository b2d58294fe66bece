"""From the text of a configuration to typed values: the decoding of kube-apiserver, strict or as it was before 1.31.

The text becomes a tree (JSON when it begins with a brace, else the first YAML document, by `go_yaml`), the tree becomes
typed values, and defaults are filled in. Source: sigs.k8s.io/yaml over go-yaml v2, kubernetes/apimachinery
pkg/runtime/serializer/json; docs/formats/encryption.md, "Decoding" and "Values".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from snaptool.providers.config.go_values import parse_duration
from snaptool.providers.config.model import LOCAL_PROVIDERS, ConfigProblem

_INT32 = range(-(1 << 31), 1 << 31)


class Refused(Exception):
    """Ends decoding; never leaves this package."""

    def __init__(
        self, code: str, message: str, path: str = "", *, line: int | None = None, column: int | None = None
    ) -> None:
        super().__init__(message)
        self.problems = [ConfigProblem(path, code, message, line, column)]


class TreeMap(dict[str, Any]):
    """A mapping of the tree; `repeated` names keys that were set more than once."""

    def __init__(self) -> None:
        super().__init__()
        self.repeated: list[str] = []

    def put(self, key: str, value: Any) -> None:
        """Set a key; the last value wins."""
        if key in self:
            self.repeated.append(key)
        self[key] = value


def parse_text(data: bytes) -> Any:
    """Make a tree of JSON, or of the first YAML document. Raises Refused."""
    if not data.strip():
        raise Refused("kind_missing", "the file is empty")
    if data.startswith(b"k8s\0"):
        raise Refused("syntax", "this is protobuf, not YAML or JSON")
    # Go's blanks are those of Unicode. What Python counts besides is a control character, which both readers refuse.
    if data.decode(errors="replace").lstrip().startswith("{"):
        return _parse_json(data)
    from snaptool.providers import go_yaml  # noqa: PLC0415 - who reads no configuration need not wait for it

    try:
        return go_yaml.parse(data, TreeMap)
    except go_yaml.NotGoYaml as error:
        raise Refused("syntax", error.message, line=error.line, column=error.column) from None


def parse_documents(data: bytes) -> Iterator[Any]:
    """Yield the trees of all documents. API servers look at the first alone. Raises Refused, where one fails."""
    if data.decode(errors="replace").lstrip().startswith("{"):
        try:
            yield _parse_json(data)
        except Refused:
            if b"\n---" not in data:
                raise
        else:
            return
    from snaptool.providers import go_yaml  # noqa: PLC0415 - who reads no configuration need not wait for it

    try:
        yield from go_yaml.documents(data, TreeMap)
    except go_yaml.NotGoYaml as error:
        raise Refused("syntax", error.message, line=error.line, column=error.column) from None


def _parse_json(data: bytes) -> Any:
    def mapping(pairs: list[tuple[str, Any]]) -> TreeMap:
        made = TreeMap()
        for key, value in pairs:
            made.put(_whole_characters(key), value)
        return made

    def constant(_name: str) -> None:
        raise Refused("syntax", "infinity and NaN are not JSON")

    try:
        return json.loads(data.decode(), object_pairs_hook=mapping, parse_constant=constant, parse_int=_json_int)
    except (ValueError, RecursionError) as error:
        place = (error.lineno, error.colno) if isinstance(error, json.JSONDecodeError) else (None, None)
        raise Refused("syntax", "not valid JSON", line=place[0], column=place[1]) from None


def _whole_characters(text: str) -> str:
    r"""Replace halves of a character, which `\ud800` and the like leave behind, as Go does."""
    return _HALF.sub("\ufffd", text)


_HALF = re.compile("[\ud800-\udfff]")


def _json_int(text: str) -> int | float:
    return int(text) if len(text) < 20 else float(text)


@dataclass(slots=True)
class RawKey:
    """A key as written."""

    name: str = ""
    secret: str = field(default="", repr=False)


@dataclass(slots=True)
class RawKms:
    """A KMS provider as written; `timeout` in nanoseconds."""

    api_version: str = ""
    name: str = ""
    cache_size: int | None = None
    endpoint: str = ""
    timeout: int | None = None


@dataclass(slots=True)
class RawProvider:
    """An element of `providers`, which may name none or several."""

    local: dict[str, list[RawKey]] = field(default_factory=dict)
    identity: bool = False
    kms: RawKms | None = None


@dataclass(slots=True)
class RawEntry:
    """An element of `resources`."""

    resources: list[str] = field(default_factory=list)
    providers: list[RawProvider] = field(default_factory=list)


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


def decode(tree: Any, *, strict: bool) -> list[RawEntry]:
    """Read the entries from the tree of a configuration. Raises Refused."""
    return _Decoder(strict=strict).configuration(tree)


class _Decoder:
    """Reads typed values from a tree. A wrong type ends it; unknown and repeated fields are refused at the end."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._unknown: list[str] = []
        self._repeated: list[str] = []

    def configuration(self, tree: Any) -> list[RawEntry]:
        if tree is None:
            raise Refused("kind_missing", "the first document is empty")
        if not isinstance(tree, TreeMap):
            raise Refused("wrong_type", "the document must be a mapping")
        known = self._type_of(tree)
        if not known:
            raise Refused("wrong_kind", "this kind is not an EncryptionConfiguration")
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
        found = []
        for code, what, names in (
            ("strict_unknown_field", "unknown field", self._unknown),
            ("strict_duplicate_key", "field set twice", self._repeated),
        ):
            first, *others = dict.fromkeys(names[:5]) if names else [""]
            if first:
                found.append(Refused(code, f"{what}{'; also ' * bool(others)}{', '.join(others)}", first))
        for refused in found[1:]:
            found[0].problems += refused.problems
        if found:
            raise found[0]

    def _type_of(self, tree: TreeMap) -> str:
        texts = {}
        # This first look ignores case, as encoding/json does; the typed decoding behind it does not.
        for name in ("apiversion", "kind"):
            values = [value for key, value in tree.items() if key.lower() == name and value is not None]
            if any(not isinstance(value, str) for value in values):
                raise Refused("wrong_type", f"{name} must be a text")
            texts[name] = values[-1] if values else ""
        if not texts["kind"]:
            raise Refused("kind_missing", "kind is missing")
        version = texts["apiversion"]
        if not version:
            raise Refused("api_version_missing", "apiVersion is missing")
        if version.count("/") > 1:
            raise Refused("bad_group_version", "apiVersion has more than one slash")
        if texts["kind"] not in _KINDS.get(version, set()):
            raise Refused(
                "unknown_kind",
                "it must be kind EncryptionConfiguration of apiVersion apiserver.config.k8s.io/v1",
            )
        if not texts["kind"].startswith("Encryption"):
            return ""
        return "internal" if version.endswith("__internal") else "external"

    def _repeats(self, tree: TreeMap, path: str = "") -> None:
        self._repeated += [f"{path}.{_shown(key)}" if path else _shown(key) for key in tree.repeated]

    def _list(self, value: Any, path: str) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            raise Refused("wrong_type", "it must be a list", path)
        return value

    def _map(self, value: Any, path: str, fields: set[str]) -> TreeMap:
        if value is None:
            return TreeMap()
        if not isinstance(value, TreeMap):
            raise Refused("wrong_type", "it must be a mapping", path)
        self._repeats(value, path)
        self._unknown += [f"{path}.{_shown(key)}" for key in value if key not in fields]
        return value

    def _text(self, value: Any, path: str) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            raise Refused("wrong_type", "it must be a text; put it into quotes", path)
        return _whole_characters(value)

    def _entry(self, value: Any, path: str) -> RawEntry:
        entry = self._map(value, path, {"resources", "providers"})
        names = self._list(entry.get("resources"), f"{path}.resources")
        providers = self._list(entry.get("providers"), f"{path}.providers")
        return RawEntry(
            [self._text(name, f"{path}.resources[{index}]") for index, name in enumerate(names)],
            [self._provider(item, f"{path}.providers[{index}]") for index, item in enumerate(providers)],
        )

    def _provider(self, value: Any, path: str) -> RawProvider:
        tree = self._map(value, path, {*LOCAL_PROVIDERS, "identity", "kms"})
        provider = RawProvider()
        for name in LOCAL_PROVIDERS:
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

    def _key(self, value: Any, path: str) -> RawKey:
        tree = self._map(value, path, {"name", "secret"})
        return RawKey(self._text(tree.get("name"), f"{path}.name"), self._text(tree.get("secret"), f"{path}.secret"))

    def _kms(self, value: Any, path: str) -> RawKms:
        tree = self._map(value, path, {"apiVersion", "name", "cachesize", "endpoint", "timeout"})
        kms = RawKms(
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
            raise Refused("wrong_type", "it must be a whole number of 32 bits", path)
        return value

    def _duration(self, value: Any, path: str) -> int:
        if value is None:
            return 3_000_000_000
        if not isinstance(value, str):
            raise Refused("wrong_type", "it must be a duration, for instance 3s", path)
        nanoseconds = parse_duration(value)
        if nanoseconds is None:
            raise Refused("bad_duration", "it must be a duration, for instance 3s or 500ms", path)
        return nanoseconds


def _shown(field_name: str) -> str:
    """Return the name if nothing secret can be in it: `{secret:AAEC…}`, with no blank, has the secret in a name."""
    return field_name if re.fullmatch(r"[A-Za-z]{1,20}", field_name) else "(a name that is not shown)"
