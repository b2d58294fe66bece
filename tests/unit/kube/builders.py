"""Stored objects, encoded by hand field by field as kube-apiserver's generated code writes them."""

from snaptool.wire import encode_field

CREATED = 1_700_000_000  # 2023-11-14T22:13:20Z


def text(number: int, value: str) -> bytes:
    return encode_field(number, value.encode())


def time_message(seconds: int) -> bytes:
    return encode_field(1, seconds) + encode_field(2, 0)


def map_entry(key: str, value: bytes) -> bytes:
    return text(1, key) + encode_field(2, value)


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    type_meta = text(1, api_version) + text(2, kind)
    return b"k8s\x00" + encode_field(1, type_meta) + encode_field(2, raw) + text(3, "") + text(4, "")


def plain_meta(name: str, namespace: str = "") -> bytes:
    """ObjectMeta with what is always on the wire, empty or not."""
    return (
        text(1, name)
        + text(2, "")
        + text(3, namespace)
        + text(4, "")
        + text(5, "11111111-2222-3333-4444-555555555555")
        + text(6, "")
        + encode_field(7, 0)
        + encode_field(8, time_message(CREATED))
    )


def config_map(name: str, namespace: str, data: dict[str, str]) -> bytes:
    entries = b"".join(encode_field(2, map_entry(key, value.encode())) for key, value in data.items())
    return envelope("v1", "ConfigMap", encode_field(1, plain_meta(name, namespace)) + entries)
