"""The field table: which number is which field in every kind that Kubernetes 1.16 to 1.37 stored.

`table.txt` is made by tests/generators/kinds.py and says its own format in its head. It is read once, its lines split;
a message is compiled when it is first needed, into what the reader's loop asks: tag to operation. No field number was
ever given to another name or another wire type, so one table serves all releases; what a release shows in another way
its `!` lines say.

Source: docs/formats/kinds.md, "The table of fields" and "When a field is shown"; kubernetes/api, apimachinery and
kube-aggregator, one patch release of each minor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache, lru_cache
from pathlib import Path

from snaptool import wire

FIRST_RELEASE, LAST_RELEASE = 16, 37
"""Minor releases of Kubernetes 1 that the table was made from."""


class Op(IntEnum):
    """What the reader does with a field. Up to BOOLS the wire holds a varint, from TEXT on a length and bytes."""

    INT = 0
    BOOL = 1
    INTS = 2
    BOOLS = 3
    TEXT = 4
    MESSAGE = 5
    MESSAGES = 6
    TEXTS = 7
    TEXT_MAP = 8
    INLINE = 9
    VALUE = 10
    VALUES = 11
    MAP = 12
    PACKED_INTS = 13
    PACKED_BOOLS = 14


Entry = tuple[int, str, bool, "str | Message"]
"""Operation, name in JSON, shown also when empty, and what is inside: a message, or the letter of a special type."""


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """A compiled message. `fields`: by tag, which is number and wire type; `nulls`: shown as null when absent."""

    name: str
    fields: dict[int, Entry] = field(default_factory=dict, repr=False)
    numbers: set[int] = field(default_factory=set, repr=False)
    nulls: list[str] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class FieldType:
    """A field as people ask for it. `type`: a letter or a message's name; `prefix`: `*` list, `%` map, `&`, or empty.

    Letters: s text, i integer, b bool, y bytes, q quantity, t and T times, d duration, n integer or text, r raw JSON,
    f fieldsV1. `presence`: empty, `?`, `!` or `~`, as in docs/formats/kinds.md, "When a field is shown".
    """

    number: int
    name: str
    presence: str
    prefix: str
    type: str


_FIELD = re.compile(r"(\d+)([^?!~:]*)([?!~]?):([*%&]*)(\S+)")


@dataclass(frozen=True, slots=True)
class _Lines:
    """The table's lines. `kinds`: apiVersion and kind to message; `lists`: message and field number to keys."""

    messages: dict[str, str] = field(default_factory=dict)
    kinds: dict[tuple[str, str], str] = field(default_factory=dict)
    exceptions: list[tuple[str, int, int, int, str]] = field(default_factory=list)
    lists: dict[str, dict[int, tuple[str, ...]]] = field(default_factory=dict)


@cache
def _lines() -> _Lines:
    found = _Lines()
    for line in Path(__file__).with_name("table.txt").read_text().splitlines():
        first, _, rest = line.partition(" ")
        mark = first[0]
        if mark == "@":
            package, *kinds = rest.split()
            found.kinds.update(((first[1:], kind), f"{package}.{kind}") for kind in kinds)
        elif mark == "!":
            number, releases, shown = (rest + " ").split(" ")[:3]
            start, _, end = releases.partition("-")
            found.exceptions.append((first[1:], int(number), int(start), int(end), shown))
        elif mark == "+":
            pairs = (word.partition("=") for word in rest.split())
            found.lists[first[1:]] = {int(number): tuple(filter(None, keys.split(","))) for number, _, keys in pairs}
        elif mark != "#":
            found.messages[first] = rest
    return found


def fields_of(message: str) -> Iterator[FieldType]:
    """Yield the fields of a message in order of number, as the newest release shows them."""
    for found in _FIELD.finditer(_lines().messages[message]):
        yield FieldType(int(found[1]), found[2], found[3], found[4], found[5])


def message_of(api_version: str, kind: str) -> str | None:
    """Return the name of a kind's message, None for a kind that the table does not have."""
    return _lines().kinds.get((api_version, kind))


def list_keys(message: str) -> dict[int, tuple[str, ...]]:
    """Return the lists of a message whose items must differ: field number to the keys of a map; none: a set."""
    return _lines().lists.get(message, {})


class Table:
    """Compiled messages as one release shows them; None: the newest."""

    def __init__(self, release: int | None) -> None:
        self._messages: dict[str, Message] = {}
        self._shown: dict[tuple[str, int], str] = {}
        if release is not None:
            for message, number, first, last, shown in _lines().exceptions:
                if first <= release <= last:
                    self._shown[message, number] = shown

    def kind(self, api_version: str, kind: str) -> Message | None:
        """Return the message of a kind, None for one that the table does not have."""
        name = message_of(api_version, kind)
        return None if name is None else self.message(name)

    def message(self, name: str) -> Message:
        """Return a message, compiled."""
        found = self._messages.get(name)
        if found is None:
            # Known before its fields are, for one message holds itself (CompositePodGroupTemplate).
            found = self._messages[name] = Message(name)
            for one in fields_of(name):
                self._compile(found, one)
        return found

    def _compile(self, message: Message, one: FieldType) -> None:
        presence, prefix, kind = one.presence, one.prefix, one.type
        shown = self._shown.get((message.name, one.number))
        if shown is not None:
            presence, _, other = shown.partition(":")
            kind = other or kind
        if presence == "!":
            message.nulls.append(one.name)
        message.numbers.add(one.number)
        entry_type: str | Message = self.message(kind) if "/" in kind else kind
        keep = presence != ""
        if presence == "~":
            self._add(message, one, Op.INLINE, keep=keep, inside=entry_type)
        elif prefix == "%":
            inside = entry(entry_type)
            self._add(message, one, Op.TEXT_MAP if kind == "s" else Op.MAP, keep=keep, inside=inside)
        elif prefix == "%&":
            self._add(message, one, Op.MAP, keep=keep, inside=entry(wrapper(kind)))
        elif prefix == "&":
            self._add(message, one, Op.VALUE, keep=keep, inside=wrapper(kind))
        elif kind in "ib":
            op = (Op.INTS if kind == "i" else Op.BOOLS) if prefix else (Op.INT if kind == "i" else Op.BOOL)
            self._add(message, one, op, keep=keep, inside=kind)
            if prefix:
                packed = Op.PACKED_INTS if kind == "i" else Op.PACKED_BOOLS
                self._add(message, one, packed, keep=keep, inside=kind)
        elif kind == "s":
            self._add(message, one, Op.TEXTS if prefix else Op.TEXT, keep=keep, inside=kind)
        elif isinstance(entry_type, Message):
            self._add(message, one, Op.MESSAGES if prefix else Op.MESSAGE, keep=keep, inside=entry_type)
        else:
            self._add(message, one, Op.VALUES if prefix else Op.VALUE, keep=keep, inside=kind)

    @staticmethod
    def _add(message: Message, one: FieldType, op: Op, *, keep: bool, inside: str | Message) -> None:
        wire_type = wire.VARINT if op <= Op.BOOLS else wire.BYTES
        message.fields[one.number << 3 | wire_type] = (int(op), one.name, keep, inside)


WRAPPER = "wrapper"
ENTRY = "entry"


def wrapper(letter: str) -> Message:
    """Make the message of a named list: its items in field 1."""
    op = {"s": Op.TEXTS, "i": Op.INTS}.get(letter, Op.VALUES)
    tag = 1 << 3 | (wire.VARINT if op is Op.INTS else wire.BYTES)
    return Message(WRAPPER, {tag: (int(op), "items", True, letter)}, {1})


def entry(inside: str | Message) -> Message:
    """Make the message of a map's entry: key in field 1, value in field 2."""
    made = Message(ENTRY, {1 << 3 | wire.BYTES: (int(Op.TEXT), "key", True, "s")}, {1, 2})
    if isinstance(inside, Message):
        op = Op.VALUE if inside.name == WRAPPER else Op.MESSAGE
    else:
        op = {"s": Op.TEXT, "i": Op.INT, "b": Op.BOOL}.get(inside, Op.VALUE)
    made.fields[2 << 3 | (wire.VARINT if op <= Op.BOOLS else wire.BYTES)] = (int(op), "value", True, inside)
    return made


@lru_cache(maxsize=LAST_RELEASE)
def table_for(release: int | None) -> Table:
    """Return the table of a release, None for the newest."""
    return Table(release)
