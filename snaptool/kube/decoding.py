"""Whole objects as plain values, for people to read: what `kubectl get -o yaml` would show of a stored plaintext.

Protobuf carries no field names, so only what has a schema here gets them: the metadata of every kind, and Secrets,
ConfigMaps and ServiceAccounts whole. Everything else of a built-in object is shown by field number under
`unknownFields`, at the level where it stands; a field that does not fit its schema goes there too. Nothing is dropped
but what Kubernetes itself leaves out of its output: empty texts, zeros and absent times where they mean "not set". Of a
singular field or a map key given more than once the last counts, as in protobuf.

JSON objects come whole. CBOR and YAML objects come as their header with the rest undecoded: CBOR needs a library that
is not among our dependencies, and YAML can be read as it is (`get -o value`).

The results are dicts, lists, texts, ints and bools, at most MAX_DEPTH levels deep and valid Unicode, so that every
printer can take them. This module knows no printer, no key and no file.

Source: kubernetes/api core/v1/generated.proto (10b39a39b); kubernetes/apimachinery pkg/apis/meta/v1/generated.proto
(eed236ce) for field numbers, types.go beside them for what is omitted when empty.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any

from snaptool import wire
from snaptool.kube.objects import (
    Encoding,
    NotAnObject,
    decode_envelope,
    describe,
    encoding_of,
    load_json,
)

Plain = dict[str, Any]

MAX_DEPTH = 100
"""Deeper nesting is refused (JSON) or shown as bytes (protobuf): no real object comes near, and printers recurse."""


def decode_object(plaintext: bytes) -> Plain:
    """Show an object as plain values: `apiVersion`, `kind`, `metadata`, then the rest.

    Raises NotAnObject, or wire.BadMessage where a protobuf message breaks off.
    """
    encoding = encoding_of(plaintext)
    if encoding is Encoding.JSON:
        return _ordered(_bounded(load_json(plaintext)))
    if encoding is Encoding.PROTOBUF:
        return _decode_protobuf(plaintext)
    header = describe(plaintext)
    metadata = {"name": header.name, "namespace": header.namespace}
    return {
        "apiVersion": header.api_version,
        "kind": header.kind,
        "metadata": {name: text for name, text in metadata.items() if text},
        "undecoded": {"encoding": header.encoding.value, "base64": b64encode(plaintext).decode()},
    }


def _ordered(loaded: Plain) -> Plain:
    first = {name: loaded[name] for name in ("apiVersion", "kind", "metadata") if name in loaded}
    return first | loaded


def _bounded(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Copy parsed JSON with its depth checked and unpaired surrogates replaced, as Go's decoder replaces them."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if not isinstance(value, dict | list):
        return value
    if not depth:
        raise NotAnObject(f"the JSON is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, list):
        return [_bounded(item, depth - 1) for item in value]
    return {_bounded(name): _bounded(item, depth - 1) for name, item in value.items()}


def _decode_protobuf(plaintext: bytes) -> Plain:
    envelope = decode_envelope(plaintext)
    shown: Plain = {"apiVersion": envelope.api_version, "kind": envelope.kind}
    if envelope.content_type or envelope.content_encoding:
        raw = b64encode(envelope.raw).decode()
        encoding = {"contentType": envelope.content_type, "contentEncoding": envelope.content_encoding}
        return shown | {"undecoded": {**encoding, "base64": raw}}
    schema = _KINDS.get((envelope.api_version, envelope.kind), _ANY_KIND)
    return shown | _decode(envelope.raw, schema)


# -- messages by schema ----------------------------------------------------------------------------------------------


class _DoesNotFit(Exception):
    """A field is not what its schema says: it is shown by its number instead. Never leaves this module."""


class _Shape(Enum):
    VALUE = auto()  # left out when empty, zero or false
    SET = auto()  # a pointer in Go, or never left out: shown whenever it is on the wire
    LIST = auto()
    MAP = auto()


@dataclass(frozen=True, slots=True)
class _Known:
    name: str
    read: Callable[[wire.Field], Any]
    shape: _Shape = _Shape.VALUE


_Schema = Mapping[int, _Known]


def _decode(message: bytes, schema: _Schema) -> Plain:
    """Decode by `schema`, whose order is that of the result. Raises wire.BadMessage."""
    found: Plain = {}
    unknown: dict[str, list[Any]] = {}
    for field in wire.fields(message):
        known = schema.get(field.number)
        if known is not None:
            try:
                value = known.read(field)
            except _DoesNotFit:
                pass
            else:
                if known.shape is _Shape.LIST:
                    found.setdefault(known.name, []).append(value)
                elif known.shape is _Shape.MAP:
                    found.setdefault(known.name, {}).update(value)
                elif known.shape is _Shape.SET or value:
                    found[known.name] = value
                else:
                    found.pop(known.name, None)
                continue
        unknown.setdefault(str(field.number), []).append(_show(field, MAX_DEPTH // 2))
    decoded = {known.name: found[known.name] for known in schema.values() if known.name in found}
    if unknown:
        decoded["unknownFields"] = unknown
    return decoded


def _bytes(field: wire.Field) -> bytes:
    if field.wire_type != wire.BYTES or not isinstance(field.value, bytes):
        raise _DoesNotFit
    return field.value


def _varint(field: wire.Field) -> int:
    if field.wire_type != wire.VARINT or not isinstance(field.value, int):
        raise _DoesNotFit
    return field.value


def _text(field: wire.Field) -> str:
    try:
        return _bytes(field).decode()
    except UnicodeDecodeError:
        raise _DoesNotFit from None


def _base64(field: wire.Field) -> str:
    return b64encode(_bytes(field)).decode()


def _int64(field: wire.Field) -> int:
    value = _varint(field)
    return value - (1 << 64) if value >= 1 << 63 else value


def _bool(field: wire.Field) -> bool:
    return _varint(field) != 0


def _time(field: wire.Field) -> str | None:
    """Read a Time message as RFC 3339 in whole seconds, which is all that Kubernetes prints; None for the zero time."""
    parts = _inner(field, _TIME)
    if not parts:
        return None
    if "unknownFields" in parts:
        raise _DoesNotFit
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=parts.get("seconds", 0))
    except OverflowError:
        raise _DoesNotFit from None
    return moment.isoformat().replace("+00:00", "Z")


def _fields_v1(field: wire.Field) -> Any:
    """Read FieldsV1: a message whose one field is JSON text."""
    parts = _inner(field, _FIELDS_V1)
    if set(parts) != {"Raw"}:
        raise _DoesNotFit
    try:
        return _bounded(load_json(parts["Raw"]), MAX_DEPTH // 2)
    except NotAnObject:
        raise _DoesNotFit from None


def _inner(field: wire.Field, schema: _Schema) -> Plain:
    try:
        return _decode(_bytes(field), schema)
    except wire.BadMessage:
        raise _DoesNotFit from None


def _message(schema: _Schema) -> Callable[[wire.Field], Plain]:
    return lambda field: _inner(field, schema)


def _entry(read_value: Callable[[wire.Field], Any]) -> Callable[[wire.Field], Plain]:
    """Read one entry of a map: a message of key (1) and value (2), either left out when empty."""
    schema = {1: _Known("key", _text, _Shape.SET), 2: _Known("value", read_value, _Shape.SET)}

    def read(field: wire.Field) -> Plain:
        entry = _inner(field, schema)
        if "unknownFields" in entry:
            raise _DoesNotFit
        return {entry.get("key", ""): entry.get("value", "")}

    return read


# -- fields without a schema -----------------------------------------------------------------------------------------


def _show(field: wire.Field, depth: int) -> Any:
    """Show a field that has no schema: a number, a text, a message by field numbers, or bytes in base64.

    What a length-delimited field holds cannot be known; text is the guess where it reads as text, and the message
    where it parses as one.
    """
    value = field.value
    if isinstance(value, int):
        return value
    if field.wire_type == wire.FIXED64:
        return {"fixed64": int.from_bytes(value, "little")}
    if field.wire_type == wire.FIXED32:
        return {"fixed32": int.from_bytes(value, "little")}
    if field.wire_type == wire.START_GROUP:
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
        for field in wire.fields(message):
            shown.setdefault(str(field.number), []).append(field)
    except wire.BadMessage:
        return None
    # Only now, so that bytes which turn out to be no message are not taken apart level by level for nothing.
    return {number: [_show(field, depth - 1) for field in fields] for number, fields in shown.items()}


def _readable(value: bytes) -> str | None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    bare = text.replace("\n", "").replace("\r", "").replace("\t", "")
    return text if bare.isprintable() else None


# -- schemas, in the order of the output: metadata, then by name as kubectl sorts -------------------------------------

_TIME: _Schema = {1: _Known("seconds", _int64), 2: _Known("nanos", _int64)}
_FIELDS_V1: _Schema = {1: _Known("Raw", _bytes, _Shape.SET)}

_OWNER_REFERENCE: _Schema = {
    5: _Known("apiVersion", _text, _Shape.SET),
    7: _Known("blockOwnerDeletion", _bool, _Shape.SET),
    6: _Known("controller", _bool, _Shape.SET),
    1: _Known("kind", _text, _Shape.SET),
    3: _Known("name", _text, _Shape.SET),
    4: _Known("uid", _text, _Shape.SET),
}

_MANAGED_FIELDS_ENTRY: _Schema = {
    3: _Known("apiVersion", _text),
    6: _Known("fieldsType", _text),
    7: _Known("fieldsV1", _fields_v1, _Shape.SET),
    1: _Known("manager", _text),
    2: _Known("operation", _text),
    8: _Known("subresource", _text),
    4: _Known("time", _time, _Shape.SET),
}

_OBJECT_META: _Schema = {
    12: _Known("annotations", _entry(_text), _Shape.MAP),
    8: _Known("creationTimestamp", _time),
    10: _Known("deletionGracePeriodSeconds", _int64, _Shape.SET),
    9: _Known("deletionTimestamp", _time, _Shape.SET),
    14: _Known("finalizers", _text, _Shape.LIST),
    2: _Known("generateName", _text),
    7: _Known("generation", _int64),
    11: _Known("labels", _entry(_text), _Shape.MAP),
    17: _Known("managedFields", _message(_MANAGED_FIELDS_ENTRY), _Shape.LIST),
    1: _Known("name", _text),
    3: _Known("namespace", _text),
    13: _Known("ownerReferences", _message(_OWNER_REFERENCE), _Shape.LIST),
    6: _Known("resourceVersion", _text),
    4: _Known("selfLink", _text),
    5: _Known("uid", _text),
}

_OBJECT_REFERENCE: _Schema = {
    5: _Known("apiVersion", _text),
    7: _Known("fieldPath", _text),
    1: _Known("kind", _text),
    3: _Known("name", _text),
    2: _Known("namespace", _text),
    6: _Known("resourceVersion", _text),
    4: _Known("uid", _text),
}

_METADATA = _Known("metadata", _message(_OBJECT_META), _Shape.SET)
_ANY_KIND: _Schema = {1: _METADATA}
_KINDS: Mapping[tuple[str, str], _Schema] = {
    ("v1", "Secret"): {
        1: _METADATA,
        2: _Known("data", _entry(_base64), _Shape.MAP),
        5: _Known("immutable", _bool, _Shape.SET),
        4: _Known("stringData", _entry(_text), _Shape.MAP),
        3: _Known("type", _text),
    },
    ("v1", "ConfigMap"): {
        1: _METADATA,
        3: _Known("binaryData", _entry(_base64), _Shape.MAP),
        2: _Known("data", _entry(_text), _Shape.MAP),
        4: _Known("immutable", _bool, _Shape.SET),
    },
    ("v1", "ServiceAccount"): {
        1: _METADATA,
        4: _Known("automountServiceAccountToken", _bool, _Shape.SET),
        3: _Known("imagePullSecrets", _message({1: _Known("name", _text)}), _Shape.LIST),
        2: _Known("secrets", _message(_OBJECT_REFERENCE), _Shape.LIST),
    },
}
