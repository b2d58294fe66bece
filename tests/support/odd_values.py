"""Plaintext of Secrets in every state that a store has been seen in: sound, cut, damaged, of another kind."""

from __future__ import annotations

from snaptool.wire import encode_field, encode_varint
from tests.support.snapshots import envelope

META = encode_field(1, b"s1") + encode_field(3, b"default") + encode_field(8, encode_field(1, 1_700_000_000))
SECRET = encode_field(1, META) + encode_field(2, encode_field(1, b"k") + encode_field(2, b"v")) + b"\x1a\x06Opaque"
SOUND = envelope("v1", "Secret", SECRET)
_TYPE = encode_field(1, encode_field(1, b"v1") + encode_field(2, b"Secret"))
_JSON = b'{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s1","namespace":"default"}'
_CBOR = bytes.fromhex("a24a61706956657273696f6e427631446b696e6446536563726574")

DECODABLE: dict[str, bytes] = {
    "sound": SOUND,
    "without its last fields": SOUND[:-4],
    "unknown field in the envelope": b"k8s\0" + _TYPE + encode_field(2, SECRET) + encode_field(5, b"x"),
    "unknown number in the envelope": b"k8s\0" + _TYPE + encode_field(2, SECRET) + encode_field(9, 7),
    "empty object": b"k8s\0" + _TYPE + encode_field(2, b"") + b"\x1a\0\x22\0",
    "content type": b"k8s\0" + _TYPE + encode_field(2, SECRET) + encode_field(4, b"application/json5"),
    "name that is not UTF-8": envelope("v1", "Secret", encode_field(1, encode_field(1, b"\xff\xfe"))),
    "unknown field in the object": envelope("v1", "Secret", SECRET + encode_field(99, b"x")),
    "JSON": _JSON + b"}\n",
    "JSON behind space": b" \n" + _JSON + b"}",
    "JSON that is not UTF-8": b'{"apiVersion":"v1","kind":"Secret","metadata":{"name":"\xff"}}',
    "JSON with half a pair": b'{"apiVersion":"v1","kind":"Secret","metadata":{"name":"\\ud800"}}',
    "JSON with a large number": b'{"apiVersion":"v1","kind":"Secret","x":1e999}',
    "YAML": b"apiVersion: v1\nkind: Secret\nmetadata:\n  name: s1\n",
    "YAML behind a comment": b"# c\napiVersion: v1\nkind: Secret\n",
}
"""What API servers read."""

UNDECODABLE: dict[str, bytes] = {
    "magic alone": b"k8s\0",
    "end missing": SOUND[:-10],
    "half missing": SOUND[:40],
    "number for a type": b"k8s\0" + encode_field(1, 7) + encode_field(2, SECRET),
    "number for an object": b"k8s\0" + _TYPE + encode_field(2, 7),
    "another kind": envelope("v1", "ConfigMap", encode_field(1, META)),
    "a kind that nobody has": envelope("v1", "Frob", SECRET),
    "a version that nobody has": envelope("v9", "Secret", SECRET),
    "another group": envelope("apps/v1", "Secret", SECRET),
    "garbage in the envelope": envelope("v1", "Secret", b"\xff" * 20),
    "number for metadata": envelope("v1", "Secret", encode_field(1, 5)),
    "number for data": envelope("v1", "Secret", encode_field(1, META) + encode_field(2, 9)),
    "number for a name": envelope("v1", "Secret", encode_field(1, encode_field(1, 9))),
    "text for a time": envelope("v1", "Secret", encode_field(1, encode_field(8, encode_field(1, b"x")))),
    "wire type 6": envelope("v1", "Secret", SECRET + encode_varint(99 << 3 | 6)),
    "a group that ends": envelope("v1", "Secret", SECRET + encode_varint(99 << 3 | 4)),
    "field 0": envelope("v1", "Secret", SECRET + b"\x02\x00"),
    "JSON cut": _JSON[:-20],
    "JSON with text behind": _JSON + b"} x",
    "JSON with NUL behind": _JSON + b"}\0\0",
    "JSON with NaN": b'{"apiVersion":"v1","kind":"Secret","x":NaN}',
    "JSON with a line break in a text": b'{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a\nb"}}',
    "JSON of another kind": b'{"apiVersion":"v1","kind":"Secret","kind":"ConfigMap"}',
    "JSON with a number for metadata": b'{"apiVersion":"v1","kind":"Secret","metadata":5}',
    "JSON with a number for a kind": b'{"apiVersion":"v1","kind":5}',
    "JSON list": b"[1]",
    "JSON text": b'"x"',
    "number": b"12345",
    "words": b"hello world",
    "bytes": bytes(range(200, 250)),
    "NUL": b"\0",
    "a block of NUL": bytes(16),
    "CBOR without its tag": _CBOR,
    "CBOR cut": bytes.fromhex("d9d9f7a24a617069"),
}
"""What no API server reads: a list of the resource fails."""

NAMELESS: dict[str, bytes] = {
    "empty": b"",
    "space": b" \n ",
    "no type in the envelope": b"k8s\0" + encode_field(2, SECRET) + b"\x1a\0\x22\0",
    "JSON without kind": b'{"some":"thing that is not an object of any"}',
    "empty JSON": b"{}",
}
"""What servers make an object without a name of: nobody stored it as one, and no client can get or delete it."""
