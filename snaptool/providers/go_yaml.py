"""YAML as go-yaml v2 reads it and sigs.k8s.io/yaml turns it into JSON, which is how Kubernetes reads configurations.

libyaml's events, through PyYAML, with go-yaml's meaning of scalars, tags, anchors and merges. Where libyaml has become
another parser than go-yaml, that is made up for, or the text refused. Two texts are refused that go-yaml takes: a `:`
right before the comma or bracket of a flow collection, and a tag right before a comma.

No message holds a text of the document. Source: gopkg.in/yaml.v2 resolve.go, scannerc.go; docs/formats/encryption.md,
"Decoding".
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import yaml
from yaml.composer import Composer

_LARGEST_TREE = 200_000  # values, aliases counted each time: far beyond any real configuration
_DEEPEST_TREE = 100
_INT64 = range(-(1 << 63), 1 << 63)


class NotGoYaml(Exception):
    """go-yaml or the conversion to JSON refuses the document.

    `line` and `column` count from 1, and are None where nothing is known.
    """

    def __init__(self, message: str, *, mark: Any = None) -> None:
        place = f" (line {mark.line + 1}, character {mark.column + 1})" if mark else ""
        super().__init__(message + place)
        self.message = message
        self.line: int | None = mark.line + 1 if mark else None
        self.column: int | None = mark.column + 1 if mark else None


class Map(Protocol):
    """What a mapping becomes; `put` is called for keys that come again."""

    def put(self, key: str, value: Any) -> None:
        """Set a key."""


_PLAIN = "!plain"
_STR, _BINARY = "tag:yaml.org,2002:str", "tag:yaml.org,2002:binary"
_TYPED = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float")}
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(?:(?:[Tt](?P<T>)|[ ])[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:[.,][0-9]+)?(?(T)(?:Z|[-+][0-9]{2}:[0-9]{2})))?"
)  # go-yaml takes it for a text all the same
_Events: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# The C loader composes nodes where nobody can have a say; the composer in Python takes its events as well.
_Composing: type[Any] = _Events if issubclass(_Events, Composer) else type("_Composing", (Composer, _Events), {})


class _Loader(_Composing):  # type: ignore[misc] # the C loader where libyaml is installed
    """Composes nodes, and leaves the meaning of untagged plain scalars to `plain_scalar`."""

    def __init__(self, text: str) -> None:
        _Events.__init__(self, text)
        self.anchors: dict[str, yaml.Node] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Let an anchor be set again, as YAML 1.1 and go-yaml do; aliases mean the last one before them.

        Refuse unquoted texts in brackets or braces that go-yaml takes for a key.
        """
        event = self.peek_event()
        if not isinstance(event, yaml.AliasEvent):
            self.anchors.pop(event.anchor, None)
        plain = isinstance(event, yaml.ScalarEvent) and not event.style
        if plain and parent is not None and parent.flow_style and "?" in event.value:
            raise NotGoYaml("a text with a question mark needs quotes", mark=event.start_mark)
        return super().compose_node(parent, index)

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """Mark untagged plain scalars; PyYAML's own rules are those of another YAML."""
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return super().resolve(kind, value, implicit)


def parse(data: bytes, new_map: Callable[[], Map]) -> Any:
    """Return the first document: scalars, lists, and what `new_map` makes for mappings. Raises NotGoYaml."""
    return next(documents(data, new_map), None)


def documents(data: bytes, new_map: Callable[[], Map]) -> Iterator[Any]:
    """Yield the documents one after the other, as `parse` returns the first. Raises NotGoYaml, where one fails."""
    for node, text, stand_in in _nodes(data):
        yield _Tree(text, stand_in, new_map).value(node, 0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands, counted from 1, and what is written there; `text` is None for lists and mappings."""

    line: int
    column: int
    text: str | None = None


class Locator:
    """Finds where values of the first document stand; finds nothing in what is not YAML."""

    def __init__(self, data: bytes) -> None:
        try:
            self._root = next(_nodes(data), (None, "", ""))[0]
        except NotGoYaml:
            self._root = None

    def find(self, path: Sequence[str | int], *, key: bool = False) -> Place | None:
        """Find a value, or the last `key` that names it, or as much of the way as there is."""
        if self._root is None:
            return None
        node = found = self._root
        for number, step in enumerate(path):
            if isinstance(node, yaml.MappingNode):
                pair = next((pair for pair in reversed(node.value) if pair[0].value == step), None)
                if pair is None:
                    break
                node = pair[1]
                empty = node.start_mark.index == node.end_mark.index
                found = pair[0] if empty or (key and number == len(path) - 1) else node
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = found = node.value[step]
            else:
                break
        text = found.value if isinstance(found, yaml.ScalarNode) else None
        return Place(found.start_mark.line + 1, found.start_mark.column + 1, text)


def _nodes(data: bytes) -> Iterator[tuple[Any, str, str]]:
    """Compose the documents: each node with the text that it is from, and what stands there for byte order marks."""
    loader = None
    try:
        text = data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
        # Behind the start go-yaml takes a byte order mark for a letter; libyaml skips it where a line begins.
        stand_in = next((char for char in map(chr, range(0xE000, 0xF900)) if char not in text), "\ufeff")
        text = text.replace("\ufeff", stand_in)
        loader = _Loader(text)
        while loader.check_node():
            yield loader.get_node(), text, stand_in
    except UnicodeDecodeError as error:
        before = data[: error.start]
        raise NotGoYaml(f"byte {error.start + 1} is not UTF-8 (line {before.count(10) + 1})") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise NotGoYaml("not valid YAML", mark=getattr(error, "problem_mark", None)) from None
    finally:
        if loader is not None:
            loader.dispose()


_ESCAPED_SLASH = re.compile(r"(?:[^\\]|\\[^/])*+\\/", re.DOTALL)
_TAG_OF_NO_NAME = re.compile(r"(?:&\S+\s+)?!\s")
_TAG_ALONE = re.compile(r"(?:&\S+\s+)?!\S*")


class _Tree:
    """Turns YAML nodes into the values that go-yaml v2 and the conversion to JSON behind it give.

    `text` is what the nodes were composed from: go-yaml is the older of two brothers, and where libyaml has learned
    something since, it matters how a scalar was written. `stand_in`: stands there for byte order marks.
    """

    def __init__(self, text: str, stand_in: str, new_map: Callable[[], Map]) -> None:
        self._text = text
        self._stand_in = stand_in
        self._new_map = new_map
        self._values = 0
        # By id, which is safe while the tree lives: one long scalar may have a hundred thousand aliases.
        self._scalars: dict[int, Any] = {}

    def value(self, node: yaml.Node, depth: int) -> Any:
        self._values += 1
        if depth > _DEEPEST_TREE or self._values > _LARGEST_TREE:
            raise NotGoYaml("the document is too large or too deep, aliases counted")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1) for item in node.value]
        assert isinstance(node, yaml.MappingNode)  # there are three kinds
        made = self._new_map()
        self._fill(made, node, depth)
        return made

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if id(node) not in self._scalars:
            self._scalars[id(node)] = self._resolved(node)
        return self._scalars[id(node)]

    def _resolved(self, node: yaml.ScalarNode) -> Any:
        written = self._text[node.start_mark.index : node.end_mark.index]
        if node.style == '"' and _ESCAPED_SLASH.match(written):
            raise NotGoYaml("YAML 1.1 has no escape for a slash", mark=node.start_mark)
        if self._text.startswith(",", node.end_mark.index) and _TAG_ALONE.fullmatch(written):
            raise NotGoYaml("the comma is part of the tag before it", mark=node.start_mark)
        value = node.value.replace(self._stand_in, "\ufeff")
        if node.tag == _PLAIN and _TAG_OF_NO_NAME.match(written):
            return value
        return _scalar(node.tag, value)

    def _fill(self, made: Map, node: yaml.MappingNode, depth: int) -> None:
        for key, value in node.value:
            if (
                isinstance(key, yaml.ScalarNode)
                and key.value == "<<"
                and key.tag in {_PLAIN, "tag:yaml.org,2002:merge"}
            ):
                self._merge(made, value, depth + 1)
            else:
                made.put(self._key(key), self.value(value, depth + 1))

    def _merge(self, made: Map, node: yaml.Node, depth: int) -> None:
        sources = reversed(node.value) if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            self._values += 1
            if not isinstance(source, yaml.MappingNode) or depth > _DEEPEST_TREE or self._values > _LARGEST_TREE:
                raise NotGoYaml("a merge needs a mapping", mark=node.start_mark)
            self._fill(made, source, depth)

    def _key(self, node: yaml.Node) -> str:
        key = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(key, str):
            return key
        if isinstance(key, bool):
            return "true" if key else "false"
        if isinstance(key, int | float):
            return f"{key:g}" if isinstance(key, float) else str(key)
        raise NotGoYaml("a key must be a text", mark=node.start_mark)


def _scalar(tag: str, text: str) -> Any:
    if tag == _PLAIN:
        return _finite(plain_scalar(text))
    if tag == _TIMESTAMP and not _TIME.fullmatch(text):
        raise NotGoYaml("a value is not the !!timestamp it claims to be")
    if tag == _BINARY:
        try:
            return base64.b64decode(re.sub(r"\s", "", text), validate=True).decode()
        except ValueError:
            raise NotGoYaml("a !!binary value is not base64 of a text") from None
    if tag in _TYPED:
        value = plain_scalar(text)
        wanted: dict[str, tuple[type, ...]] = {
            "null": (type(None),),
            "bool": (bool,),
            "int": (int,),
            "float": (float, int),
        }
        kind = tag.rpartition(":")[2]
        if not isinstance(value, wanted[kind]) or (kind in {"int", "float"} and isinstance(value, bool)):
            raise NotGoYaml(f"a value is not the !!{kind} it claims to be")
        return _finite(float(value) if kind == "float" and isinstance(value, int) else value)
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise NotGoYaml("infinity and NaN are not allowed")
    # JSON has one kind of number: what is whole is an integer.
    return int(value) if isinstance(value, float) and value.is_integer() else value


_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True) | dict.fromkeys(
    ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False
)
_NOT_FINITE = {
    f"{sign}.{text}": float(sign + text) for sign in ("", "+", "-") for text in ("inf", "Inf", "INF")
} | dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)


def plain_scalar(text: str) -> str | int | float | bool | None:
    """Resolve an untagged plain scalar as go-yaml v2 does.

    Source: its resolve.go; docs/formats/encryption.md, "Decoding".
    """
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if text in _NOT_FINITE:
        return _NOT_FINITE[text]
    if text[0] == ".":
        # Go's own ParseFloat, which takes underscores between digits, and nowhere else.
        return text if re.search("(?<![0-9])_|_(?![0-9])", text) else _float(text.replace("_", ""), text)
    if text[0] in "+-0123456789":
        digits = text.replace("_", "")
        number = _integer(digits)
        return number if number is not None else _float(digits, text)
    return text


def _float(digits: str, text: str = "") -> str | float:
    if _FLOAT.fullmatch(digits):
        value = float(digits)
        if math.isfinite(value):
            return value
    return text or digits


def _integer(digits: str) -> int | None:
    """Go's ParseInt and ParseUint with base 0, and go-yaml's own binary: int64, or uint64 without a sign."""
    match = re.fullmatch(r"([-+]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|0[0-7]*|[1-9][0-9]*)", digits, re.ASCII)
    if match is None or len(digits) > 70:
        return None
    sign, body = match.groups()
    if body[:2].lower() in {"0x", "0b", "0o"}:
        value = int(body, 0)
    else:
        value = int(body, 8) if body.startswith("0") else int(body)
    value = -value if sign == "-" else value
    return value if value in _INT64 or (not sign and value < 1 << 64) else None


def write(document: Any) -> str:
    """Write a document that go-yaml reads back as it is."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=False)
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes what go-yaml would not read back as a text: `y`, `08` and `12e4567` are not texts to it."""


def _quoted_where_needed(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(_STR, text, style=None if isinstance(plain_scalar(text), str) else '"')


_Dumper.add_representer(str, _quoted_where_needed)
