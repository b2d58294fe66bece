"""Stored plaintexts as plain values: dicts, lists, texts, numbers, as the API server's JSON has them.

`decode_object` gives what is stored: names from the table, presence by its rules, special types in their JSON form.
What a newer or another API server adds when it reads is `served`'s; how the values are printed is `printing`'s, which
also orders the keys.

What does not fit the table is never dropped and never an error: it is kept aside by number, with the place where it
stands (`Decoded.unknown`), for objects of custom resources may have fields of any name. What breaks the wire format
is an error, as it is for the API server.

The main loop reads a whole tree from one buffer without copying it. It is written for speed: one dictionary look-up a
field, the frequent operations first, errors found by running past the end. Depth is bounded, and so is the time: every
byte is read once, and what is unknown at most _SHOWN_DEPTH times more.

Source: docs/formats/kinds.md, "Reading the wire", "When a field is shown" and "Special types";
docs/formats/encryption.md, "What is encrypted"; apimachinery's generated Unmarshal functions for what is refused.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn

from snaptool import wire
from snaptool.errors import FormatError
from snaptool.kube.kinds.cbor import read_cbor
from snaptool.kube.kinds.special import duration_text, go_text, is_quantity, micro_time_text, time_text
from snaptool.kube.kinds.table import WRAPPER, Message, Op, table_for
from snaptool.kube.objects import CBOR_MAGIC, PROTOBUF_MAGIC, NotAnObject, decode_envelope, describe, encoding_of

Plain = dict[str, Any]

MAX_DEPTH = 200
"""Deeper nesting is refused (JSON, CBOR) or shown as bytes (protobuf): no real object comes near, printers recurse."""

_SHOWN_DEPTH = 20

UNKNOWN = "unknownFields"
"""Where `Decoded.shown` puts what has no name, by its number."""


@dataclass(frozen=True, slots=True)
class UnknownField:
    """A field that the table does not have, or that does not fit it.

    `path`: the names and list positions that lead to the message it stands in; `value`: what could be made of it.
    `refused`: the API server's decoder would not skip it but fail: its number is known and its content is another.
    """

    path: tuple[str | int, ...]
    number: int
    value: Any = field(repr=False)
    refused: bool = False

    @property
    def place(self) -> str:
        """Show where it stands: `spec.containers[0].#99`."""
        shown = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return f"{shown}.#{self.number}".removeprefix(".")


@dataclass(frozen=True, slots=True)
class Decoded:
    """An object. `tree`: plain values; `known`: the table has its kind, or it is not protobuf and needs none.

    `unknown`: what has no place in the tree. `undecoded`: an encoding inside, that we do not read, in base64.
    """

    tree: Plain = field(repr=False)
    known: bool = True
    unknown: tuple[UnknownField, ...] = ()
    undecoded: Plain | None = field(default=None, repr=False)

    def shown(self) -> Plain:
        """Return a tree for people: with `unknownFields` at the level where they stand."""
        if self.undecoded is not None:
            return self.tree | {"undecoded": self.undecoded}
        if not self.unknown:
            return self.tree
        copy: Plain = _copied(self.tree)
        for one in self.unknown:
            place: Any = copy
            for step in one.path:
                place = place[step]
            place.setdefault(UNKNOWN, {}).setdefault(str(one.number), []).append(one.value)
        return copy


def decode_object(plaintext: bytes, release: int | None = None) -> Decoded:
    """Decode a stored object. `release`: the minor release of Kubernetes 1 whose rules of presence hold.

    Raises NotAnObject, or wire.BadMessage where a protobuf message breaks off.
    """
    if plaintext.startswith(PROTOBUF_MAGIC):
        return _decode_protobuf(plaintext, release)
    if plaintext.startswith(b"{"):
        return Decoded(load_json_object(plaintext))
    if plaintext.startswith(CBOR_MAGIC):
        tree = read_cbor(plaintext, len(CBOR_MAGIC), MAX_DEPTH)
        if not isinstance(tree, dict):
            raise NotAnObject("the CBOR is not a map")
        return Decoded(_typed(tree))
    encoding_of(plaintext)  # raises for what is none
    header = describe(plaintext)
    metadata = {"name": header.name, "namespace": header.namespace}
    tree = {
        "apiVersion": header.api_version,
        "kind": header.kind,
        "metadata": {name: text for name, text in metadata.items() if text},
    }
    return Decoded(tree, undecoded={"encoding": header.encoding.value, "base64": b64encode(plaintext).decode()})


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


# -- JSON ------------------------------------------------------------------------------------------------------------


def load_json_object(text: bytes) -> Plain:
    """Parse a JSON object as Go does. Raises NotAnObject, also for nesting of more than MAX_DEPTH levels."""
    loaded = load_json(text, MAX_DEPTH)
    if not isinstance(loaded, dict):
        raise NotAnObject("the JSON is not an object")
    return _typed(loaded)


def _typed(tree: Plain) -> Plain:
    if not (isinstance(tree.get("apiVersion"), str) and isinstance(tree.get("kind"), str)):
        raise NotAnObject("it does not name a type")
    return tree


def load_json(text: bytes, depth: int) -> Any:
    """Parse JSON as Go does: integers beyond int64 as floats, bytes and surrogates that are not text as U+FFFD."""
    try:
        loaded = _JSON(go_text(text))
    except (ValueError, RecursionError, OverflowError) as error:  # ValueError: also numbers of thousands of digits
        raise NotAnObject(f"broken JSON ({type(error).__name__})") from None
    return _bounded(loaded, depth)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are Python's addition


def _integer(digits: str) -> int | float:
    value = int(digits)
    return value if -(1 << 63) <= value < 1 << 63 else _float(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if value in {float("inf"), float("-inf")}:
        raise ValueError(digits)
    return value


_JSON: Callable[[str], Any] = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_int=_integer, parse_float=_float
).decode


def _bounded(value: Any, depth: int) -> Any:
    """Check the depth, and replace unpaired surrogates, as Go's decoder replaces them. Changes in place."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        if not depth:
            raise NotAnObject(f"it is nested more than {MAX_DEPTH} levels deep")
        return {_bounded(name, depth): _bounded(item, depth - 1) for name, item in value.items()}
    if isinstance(value, list):
        if not depth:
            raise NotAnObject(f"it is nested more than {MAX_DEPTH} levels deep")
        return [_bounded(item, depth - 1) for item in value]
    return value


# -- protobuf: the envelope ------------------------------------------------------------------------------------------

_USUAL_END = b"\x1a\x00\x22\x00"  # contentEncoding and contentType, empty


def _decode_protobuf(plaintext: bytes, release: int | None) -> Decoded:
    usual = _usual_body(plaintext, release)
    if usual is not None:
        api_version, kind, message, buffer, start, end = (*usual[0], plaintext, *usual[1])
    else:
        envelope = decode_envelope(plaintext)
        api_version, kind = envelope.api_version, envelope.kind
        if envelope.content_type or envelope.content_encoding:
            encoding = {"contentType": envelope.content_type, "contentEncoding": envelope.content_encoding}
            undecoded = encoding | {"base64": b64encode(envelope.raw).decode()}
            return Decoded({"apiVersion": api_version, "kind": kind}, undecoded=undecoded)
        message, buffer, start, end = table_for(release).kind(api_version, kind), envelope.raw, 0, len(envelope.raw)
    tree: Plain = {"apiVersion": api_version, "kind": kind}
    reading = _Reading(buffer)
    try:
        reading.fill(start, end, message or _any_kind(release), tree, MAX_DEPTH // 2)
    except IndexError:
        raise wire.BadMessage("a field is cut off", len(buffer)) from None
    return Decoded(tree, known=message is not None, unknown=reading.placed(tree) if reading.unknown else ())


_JUDGED_WHOLE = frozenset({("v1", "Secret"), ("v1", "ConfigMap"), ("v1", "ServiceAccount")})


def is_refused(message: bytes, api_version: str, kind: str) -> bool:
    """Is it certain that an API server cannot decode the message inside of an envelope?

    True where it breaks off, or a known field is of another wire type: one of the metadata, or of a kind that is kept
    encrypted most often. Bodies of other kinds are judged by the wire format alone. Stores made by test tools hold
    stand-ins there, which fail as a whole resource; a check that runs every night is not red for these.
    """
    reading = _Reading(message)
    known = table_for(None).kind(api_version, kind) if (api_version, kind) in _JUDGED_WHOLE else None
    try:
        reading.fill(0, len(message), known or _any_kind(None), {}, MAX_DEPTH // 2)
    except (wire.BadMessage, IndexError):
        return True
    return any(refused for _, _, refused in reading.unknown)


_Usual = tuple[tuple[str, str, "Message | None"], tuple[int, int]]


def _usual_body(plaintext: bytes, release: int | None) -> _Usual | None:
    """Find the object in an envelope that the API server wrote. None proves nothing: the envelope is another one."""
    if len(plaintext) < 12 or plaintext[4] != 0x0A or not plaintext.endswith(_USUAL_END):
        return None
    at = 6 + plaintext[5]
    typed = _usual_type(plaintext[4:at], release)
    if typed is None or at >= len(plaintext) or plaintext[at] != 0x12:
        return None
    length, start = wire.read_varint(plaintext, at + 1)
    end = start + length
    return (typed, (start, end)) if end + len(_USUAL_END) == len(plaintext) else None


@lru_cache(maxsize=1024)
def _usual_type(head: bytes, release: int | None) -> tuple[str, str, Message | None] | None:
    """Read the type at the head of an envelope: there are few, and many objects of each."""
    if head[1] >= 0x80:
        return None
    try:
        envelope = decode_envelope(PROTOBUF_MAGIC + head + b"\x12\x00")
    except FormatError:
        return None
    message = table_for(release).kind(envelope.api_version, envelope.kind)
    return envelope.api_version, envelope.kind, message


def _any_kind(release: int | None) -> Message:
    """Return the message of a kind that the table does not have: metadata is field 1 of every one."""
    metadata = table_for(release).message("meta/v1.ObjectMeta")
    return Message("", {1 << 3 | wire.BYTES: (int(Op.MESSAGE), "metadata", True, metadata)}, {1})


# -- protobuf: messages ----------------------------------------------------------------------------------------------


class _DoesNotFit(Exception):
    """A field is not what the table says: it is kept by its number. `refused`: the API server cannot decode it."""

    def __init__(self, *, refused: bool = True) -> None:
        super().__init__()
        self.refused = refused


_INT, _BOOL, _INTS, _BOOLS, _TEXT, _MESSAGE, _MESSAGES, _TEXTS, _TEXT_MAP, _INLINE, _VALUE, _VALUES, _MAP = (
    int(op) for op in list(Op)[:13]
)
_SIGN, _MODULUS = 1 << 63, 1 << 64


class _Reading:
    """One object on its way from bytes to values. `unknown`: the dict it stands in, its field, and whether refused."""

    __slots__ = ("buffer", "unknown")

    def __init__(self, buffer: bytes) -> None:
        self.buffer = buffer
        self.unknown: list[tuple[Plain, wire.Field, bool]] = []

    def fill(self, at: int, end: int, message: Message, out: Plain, depth: int) -> None:
        """Read one message into `out`. Raises BadMessage, and IndexError at the end of the buffer."""
        buffer, fields = self.buffer, message.fields
        while at < end:
            start = at
            tag = buffer[at]
            at += 1
            if tag >= 0x80:
                tag, at = wire.read_varint(buffer, start)
            known = fields.get(tag)
            if known is None:
                at = self._keep(start, end, message, out)
                continue
            op, name, keep, inside = known
            size = buffer[at]
            at += 1
            if size >= 0x80:
                size, at = wire.read_varint(buffer, at - 1)
            if op >= _TEXT:
                stop = at + size
                if stop > end:
                    raise wire.BadMessage("a field is longer than its message", start)
                if op == _TEXT:
                    try:
                        text = buffer[at:stop].decode()
                    except UnicodeDecodeError:
                        text = go_text(buffer[at:stop])
                    if text or keep:
                        out[name] = text
                    else:
                        out.pop(name, None)
                elif op == _MESSAGE:
                    inner = out.get(name)
                    if inner is None:
                        inner = out[name] = {}
                    self._enter(start, at, stop, inside, inner, depth)
                elif op == _MESSAGES:
                    inner = {}
                    self._enter(start, at, stop, inside, inner, depth)
                    items = out.get(name)
                    if items is None:
                        out[name] = [inner]
                    else:
                        items.append(inner)
                elif op == _TEXT_MAP:
                    entry = self._text_entry(at, stop) or self._entry(start, at, stop, inside, out)
                    if entry is not None:
                        mapped = out.get(name)
                        if mapped is None:
                            mapped = out[name] = {}
                        mapped[entry[0]] = entry[1]
                elif op == _TEXTS:
                    items = out.get(name)
                    if items is None:
                        items = out[name] = []
                    items.append(go_text(buffer[at:stop]))
                elif op == _INLINE:
                    self._enter(start, at, stop, inside, out, depth)
                else:
                    self._rare(start, at, stop, known, out)
                at = stop
            elif op == _INT:
                if size >= _SIGN:
                    size -= _MODULUS
                if size or keep:
                    out[name] = size
                else:
                    out.pop(name, None)
            elif op == _BOOL:
                if size or keep:
                    out[name] = size != 0
                else:
                    out.pop(name, None)
            else:
                items = out.get(name)
                if items is None:
                    items = out[name] = []
                items.append(_scalar(op == _INTS, size))
        if at > end:
            raise wire.BadMessage("a field is longer than its message", end)
        for name in message.nulls:
            out.setdefault(name, None)

    def _enter(self, start: int, at: int, stop: int, inside: Any, out: Plain, depth: int) -> None:
        if depth:
            self.fill(at, stop, inside, out, depth - 1)
        else:
            # Kept in the message above in one piece: the list or field itself stays, empty.
            self.unknown.append((out, wire.field_at(self.buffer, start), False))

    def _keep(self, start: int, end: int, message: Message, out: Plain) -> int:
        """Keep a field that the table does not have; return the offset behind it."""
        field = wire.field_at(self.buffer, start)
        if field.end > end:
            raise wire.BadMessage("a field is longer than its message", start)
        self.unknown.append((out, field, field.number in message.numbers))
        return field.end

    def _keep_odd(self, start: int, out: Plain, *, refused: bool) -> None:
        self.unknown.append((out, wire.field_at(self.buffer, start), refused))

    def _text_entry(self, at: int, stop: int) -> tuple[str, str] | None:
        """Read the entry of a map of texts, if it is written as Go writes it and short."""
        buffer = self.buffer
        if stop - at < 4 or buffer[at] != 0x0A:
            return None
        middle = at + 2 + buffer[at + 1]
        if buffer[at + 1] >= 0x80 or middle + 2 > stop or buffer[middle] != 0x12:
            return None
        size, value = buffer[middle + 1], middle + 2
        if size >= 0x80:
            size, value = wire.read_varint(buffer, middle + 1)
        if value + size != stop:
            return None
        return go_text(buffer[at + 2 : middle]), go_text(buffer[value:stop])

    def _entry(self, start: int, at: int, stop: int, inside: Any, out: Plain) -> tuple[str, Any] | None:
        """Read any entry of a map; None for one that does not fit, which is kept."""
        found: Plain = {}
        before = len(self.unknown)
        self.fill(at, stop, inside, found, 1 + MAX_DEPTH // 4)
        inside_it = self.unknown[before:]
        if any(place is found for place, _, _ in inside_it):
            del self.unknown[before:]
            self._keep_odd(start, out, refused=any(refused for _, _, refused in inside_it))
            return None
        value = found.get("value")
        if value is None:
            value = self._absent(inside)
        return found.get("key", ""), value

    def _absent(self, entry: Message) -> Any:
        """Return what an entry without a value has: the empty value of its type."""
        kind = next(inside for _, name, _, inside in entry.fields.values() if name == "value")
        if not isinstance(kind, Message):
            return _EMPTY[kind]
        if kind.name == WRAPPER:
            return []
        empty: Plain = {}
        self.fill(0, 0, kind, empty, 1)
        return empty

    def _rare(self, start: int, at: int, stop: int, known: Any, out: Plain) -> None:
        """Read what is neither a text nor a message: special types, other maps, packed numbers."""
        op, name, keep, inside = known
        if op == _MAP:
            entry = self._entry(start, at, stop, inside, out)
            if entry is not None:
                if out.get(name) is None:
                    out[name] = {}
                out[name][entry[0]] = entry[1]
            return
        if op in {_VALUE, _VALUES}:
            try:
                value = self._value(at, stop, inside)
            except _DoesNotFit as odd:
                self._keep_odd(start, out, refused=odd.refused)
                return
            if op == _VALUES:
                if out.get(name) is None:
                    out[name] = []
                out[name].append(value)
            elif keep or value:
                out[name] = value
            else:
                out.pop(name, None)
            return
        if out.get(name) is None:
            out[name] = []
        while at < stop:
            number, at = wire.read_varint(self.buffer, at)
            out[name].append(_scalar(op == Op.PACKED_INTS, number))
        if at > stop:
            raise wire.BadMessage("a packed field is longer than its bytes", start)

    def _value(self, at: int, stop: int, kind: Any) -> Any:
        """Read a special type. Raises _DoesNotFit."""
        if isinstance(kind, Message):
            found: Plain = {}
            self.fill(at, stop, kind, found, 1)
            return found.get("items", [])
        if kind == "y":
            return b64encode(self.buffer[at:stop]).decode()
        return _SPECIAL[kind](self, at, stop)

    def parts(self, at: int, stop: int) -> dict[int, int | bytes]:
        """Read the fields of a small message; of several the last counts."""
        found: dict[int, int | bytes] = {}
        while at < stop:
            one = wire.field_at(self.buffer, at)
            at = one.end
            found[one.number] = one.value
        if at > stop:
            raise wire.BadMessage("a field is longer than its message", stop)
        return found

    def placed(self, tree: Plain) -> tuple[UnknownField, ...]:
        """Say where each unknown field stands."""
        wanted = {id(out) for out, _, _ in self.unknown}
        paths: dict[int, tuple[str | int, ...]] = {}
        pending: list[tuple[Any, tuple[str | int, ...]]] = [(tree, ())]
        while pending:
            value, path = pending.pop()
            if isinstance(value, dict):
                if id(value) in wanted:
                    paths[id(value)] = path
                pending += [(item, (*path, name)) for name, item in value.items() if isinstance(item, dict | list)]
            else:
                pending += [(item, (*path, at)) for at, item in enumerate(value) if isinstance(item, dict | list)]
        return tuple(
            UnknownField(paths[id(out)], one.number, _show(one, _SHOWN_DEPTH), refused)
            for out, one, refused in self.unknown
        )


def _scalar(is_int: bool, value: int) -> int | bool:  # noqa: FBT001 - the reader's loop passes it along
    if not is_int:
        return value != 0
    return value - _MODULUS if value >= _SIGN else value


# -- protobuf: special types -----------------------------------------------------------------------------------------


def _number(parts: dict[int, int | bytes], number: int) -> int:
    value = parts.get(number, 0)
    if not isinstance(value, int):
        raise _DoesNotFit
    return value - _MODULUS if value >= _SIGN else value


def _bytes(parts: dict[int, int | bytes], number: int) -> bytes:
    value = parts.get(number, b"")
    if not isinstance(value, bytes):
        raise _DoesNotFit
    return value


def _time(reading: _Reading, at: int, stop: int) -> str | None:
    return time_text(_number(reading.parts(at, stop), 1)) if at < stop else None


def _micro_time(reading: _Reading, at: int, stop: int) -> str | None:
    parts = reading.parts(at, stop)
    return micro_time_text(_number(parts, 1), _number(parts, 2)) if at < stop else None


def _duration(reading: _Reading, at: int, stop: int) -> str:
    return duration_text(_number(reading.parts(at, stop), 1))


def _quantity(reading: _Reading, at: int, stop: int) -> str:
    parts = reading.parts(at, stop)
    text = go_text(_bytes(parts, 1))
    if 1 in parts and not is_quantity(text):
        raise _DoesNotFit
    return text or "0"


def _int_or_string(reading: _Reading, at: int, stop: int) -> int | str:
    parts = reading.parts(at, stop)
    kind = _number(parts, 1)
    if kind == 0:
        return _number(parts, 2)
    if kind == 1:
        return go_text(_bytes(parts, 3))
    raise _DoesNotFit(refused=False)  # it is decoded, and cannot be printed


def _raw(reading: _Reading, at: int, stop: int) -> Any:
    text = _bytes(reading.parts(at, stop), 1)
    try:
        return load_json(text, MAX_DEPTH // 2) if text else None
    except NotAnObject:
        raise _DoesNotFit(refused=False) from None  # the same


_SPECIAL: dict[str, Callable[[_Reading, int, int], Any]] = {
    "t": _time,
    "T": _micro_time,
    "d": _duration,
    "q": _quantity,
    "n": _int_or_string,
    "r": _raw,
    "f": _raw,
}
_EMPTY: dict[str, Any] = {"s": "", "y": "", "i": 0, "b": False, "q": "0", "n": 0, "d": "0s"} | dict.fromkeys("tTrf")


# -- fields without a name -------------------------------------------------------------------------------------------


def _show(one: wire.Field, depth: int) -> Any:
    """Show a field that has no name: a number, a text, a message by field numbers, or bytes in base64.

    What a length-delimited field holds cannot be known; text is the guess where it reads as text, and the message
    where it parses as one.
    """
    value = one.value
    if isinstance(value, int):
        return value
    if one.wire_type == wire.FIXED64:
        return {"fixed64": int.from_bytes(value, "little")}
    if one.wire_type == wire.FIXED32:
        return {"fixed32": int.from_bytes(value, "little")}
    if one.wire_type == wire.START_GROUP:
        inside = _show_message(value, depth)
        return {"group": inside if inside is not None else {"base64": b64encode(value).decode()}}
    text = _readable(value)
    # A message whose first field is a text begins with a line feed; few texts do, and they parse as no message.
    inside = None if not value or (text is not None and not value.startswith(b"\n")) else _show_message(value, depth)
    if inside is not None:
        return inside
    return text if text is not None else {"base64": b64encode(value).decode()}


def _show_message(message: bytes, depth: int) -> dict[str, list[Any]] | None:
    if not depth:
        return None
    shown: dict[str, list[Any]] = {}
    try:
        for one in wire.fields(message):
            shown.setdefault(str(one.number), []).append(one)
    except wire.BadMessage:
        return None
    # Only now, so that bytes which turn out to be no message are not taken apart level by level for nothing.
    return {number: [_show(one, depth - 1) for one in fields] for number, fields in shown.items()}


def _readable(value: bytes) -> str | None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    bare = text.replace("\n", "").replace("\r", "").replace("\t", "")
    return text if bare.isprintable() else None
