"""What a file is, by its first bytes; its name decides only where there is no magic.

The order matters: a tar may have a database's first page where a meta is looked for. Source:
docs/formats/containers.md, "Recognising a file".
"""

from __future__ import annotations

import re
from enum import StrEnum

from snaptool.bolt.layout import MAGIC, META_SIZE, PAGE_SIZES, BadMeta, Meta, decode_meta
from snaptool.containers.faults import ContainerFault, encrypted, method

HEAD = 64 << 10
"""How many bytes of a layer are looked at."""

_META_MAGIC_AT = 16
_PAGE_SIZE_AT = 24
_MAGICS = (MAGIC.to_bytes(4, "little"), MAGIC.to_bytes(4, "big"))
_ZIP_END = b"PK\x05\x06"
SQLITE = b"SQLite format 3\0"
_KINE_TABLE = re.compile(rb"(?i)create\s+table\s+(?:if\s+not\s+exists\s+)?[\"'`\[]?kine\b")


class Kind(StrEnum):
    """What a layer is: a database, a stream with one thing in it, an archive, or something to refuse."""

    BOLT = "bolt"
    TAR = "tar"
    ZIP = "zip"
    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"
    ZLIB = "zlib"
    LZW = "lzw"
    LZMA = "lzma"
    AGE = "age"
    SQLITE = "sqlite"
    KINE = "kine"
    ENCRYPTED = "encrypted"
    COMPRESS = "compress"
    UNKNOWN = "unknown"


OMNI_LAYER = "age:nacl_v1"
"""What a layer of Omni's is called."""

STREAMS = frozenset({Kind.GZIP, Kind.ZSTD, Kind.XZ, Kind.BZIP2, Kind.ZLIB, Kind.LZW, Kind.LZMA})
PACKED = STREAMS | {Kind.ZIP, Kind.TAR, Kind.AGE}


def recognise(head: bytes, name: str = "", tail: bytes = b"") -> Kind:
    """Say what begins with `head` (up to `HEAD` bytes) and ends with `tail`, where that is known."""
    if head[257:262] == b"ustar":
        return Kind.TAR
    if _is_bolt(head):
        return Kind.BOLT
    for magic, kind in _BY_MAGIC:
        if head.startswith(magic):
            return Kind.KINE if kind is Kind.SQLITE and _KINE_TABLE.search(head) else kind
    if re.match(rb"[\x50-\x5f]\x2a\x4d\x18", head):
        return Kind.ZSTD
    if re.match(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)", head):
        return Kind.BZIP2
    if _is_pgp(head):
        return Kind.ENCRYPTED
    if head[:1] == b"\x78" and len(head) > 1 and int.from_bytes(head[:2], "big") % 31 == 0:
        return Kind.ZLIB
    if name.removesuffix(".final").endswith(".Z") and len(head) > 1 and head[0] == 0 and head[1] & 1:
        return Kind.LZW
    if name.endswith(".lzma") and head[:1] == b"\x5d":
        return Kind.LZMA
    if _ZIP_END in tail:
        return Kind.ZIP
    return Kind.UNKNOWN


_BY_MAGIC = (
    (b"\x1f\x8b", Kind.GZIP),
    (b"\x28\xb5\x2f\xfd", Kind.ZSTD),
    (b"\xfd7zXZ\0", Kind.XZ),
    (b"PK\x03\x04", Kind.ZIP),
    (_ZIP_END, Kind.ZIP),
    (b"PK\x07\x08", Kind.ZIP),
    (b"age-encryption.org/v1", Kind.AGE),
    (SQLITE, Kind.SQLITE),
    (b"Salted__", Kind.ENCRYPTED),
    (b"-----BEGIN PGP MESSAGE-----", Kind.ENCRYPTED),
    (b"-----BEGIN AGE ENCRYPTED FILE-----", Kind.ENCRYPTED),
    (b"\x1f\x9d", Kind.COMPRESS),
)


def _is_bolt(head: bytes) -> bool:
    if head[_META_MAGIC_AT : _META_MAGIC_AT + 4] in _MAGICS:
        return True
    for page_size in PAGE_SIZES:
        at = page_size + _META_MAGIC_AT
        magic = head[at : at + 4]
        if magic in _MAGICS:
            order = "little" if magic == _MAGICS[0] else "big"
            stated = head[page_size + _PAGE_SIZE_AT : page_size + _PAGE_SIZE_AT + 4]
            if int.from_bytes(stated, order) == page_size:  # type: ignore[arg-type]  # the two literals
                return True
    return False


def _is_pgp(head: bytes) -> bool:
    """OpenPGP packets that begin an encrypted message: session keys, or data under one. RFC 9580, 4.2."""
    return head[:1] in {b"\x8c", b"\x8d", b"\x8e", b"\x8f", b"\xc1", b"\xc3"} and not head.isascii()


def extent(head: bytes) -> int | None:
    """Return the size in bytes that the start of a database states, by its metas; None when nothing valid does."""
    if head.startswith(SQLITE) and head[24:28] == head[92:96]:
        page_size = int.from_bytes(head[16:18], "big")
        return int.from_bytes(head[28:32], "big") * (65536 if page_size == 1 else page_size) or None
    metas = [meta for at in (0, *PAGE_SIZES) if (meta := _meta(head, at)) is not None]
    return max((meta.high_water_mark * meta.page_size for meta in metas), default=None)


def _meta(head: bytes, at: int) -> Meta | None:
    if len(head) < at + META_SIZE:
        return None
    try:
        meta = decode_meta(head[at : at + META_SIZE])
    except BadMeta:
        return None
    return meta if at in {0, meta.page_size} else None


def refuse_unreadable(kind: Kind, head: bytes, place: str) -> None:
    """Raise the error for what is recognised and never read: encrypted by others, Unix compress."""
    if kind is Kind.ENCRYPTED:
        if head.startswith(b"Salted__"):
            raise encrypted(
                place,
                "encrypted by OpenSSL",
                "decrypt it first, as it was encrypted: openssl enc -d -aes-256-cbc -pbkdf2 -in FILE -out snapshot.db",
            )
        if head.startswith(b"-----BEGIN AGE"):
            raise encrypted(place, "encrypted by age", "decrypt it first: age -d -i KEY-FILE -o snapshot.db FILE")
        raise encrypted(place, "encrypted by OpenPGP", "decrypt it first: gpg --decrypt -o snapshot.db FILE")
    if kind is Kind.COMPRESS:
        raise method(place, "packed by Unix compress", "unpack it first: gzip -dc FILE > snapshot.db")


def unknown(head: bytes, place: str, kind: str = "") -> ContainerFault:
    """Make the error for bytes that are no snapshot and no container, saying what they are where that shows."""
    what, hint = kind or "", ""
    for pattern, name, advice in _OTHERS:
        if not what and re.match(pattern, head, re.DOTALL):
            what, hint = name, advice
    hint = hint or (
        "give a snapshot (etcdctl snapshot save), a member/snap/db, or one of these in gzip, zstd, xz, bzip2, zip or "
        "tar; what is left of a broken one: `snaptool repair --salvage`"
    )
    what = what or f"it begins with {_shown(head)}"
    return ContainerFault(f"{place} is not an etcd snapshot: {what}", hint=hint, code="container_unknown")


def _shown(head: bytes) -> str:
    first = head[:16]
    if first and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in first):
        return f"the text {first.decode('ascii')!r}"
    return f"the bytes {first.hex(' ')}"


_CONFIG_ADVICE = "give the snapshot as SNAPSHOT and this file with --config"
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (
        rb"(?:.{0,2000}[\n{,])?\s*\"?kind\"?\s*:\s*\"?Encryption(?:Configuration|Config)\b",
        "it is an EncryptionConfiguration, a configuration in YAML or JSON",
        _CONFIG_ADVICE,
    ),
    (
        rb"\s*(?:<\?xml[^>]*>\s*)?<(?:Error|ListBucketResult)\b",
        "it is an XML answer of an object store, saved in place of the file",
        "the download failed: read the file, it says why; check bucket, key and credentials, and download again",
    ),
    (
        rb"(?i)\s*(?:<!doctype html|<html)\b",
        "it is an HTML page, saved in place of the file",
        "the download failed, often for want of a login: open the page, and download again",
    ),
    (rb"\s*<\?xml", "it is an XML document", ""),
    (
        rb"(?:---\s*)?(?:#[^\n]*\n|\s)*apiVersion\s*:",
        "it is a YAML manifest",
        "give the snapshot as SNAPSHOT; an EncryptionConfiguration, or what holds one, goes with --config",
    ),
    (
        rb"version https://git-lfs\.github\.com/spec/",
        "it is a pointer of Git LFS, not the file itself",
        "fetch the file: git lfs pull",
    ),
    (rb"-----BEGIN ", "it is a PEM file, a certificate or a key", "give the snapshot as SNAPSHOT"),
    (rb"\s*[{\[]\s*[\"\[{\]}]", "it is JSON", "give the snapshot as SNAPSHOT; a configuration goes with --config"),
    (rb"\x7fELF", "it is a program", "name the snapshot"),
    (rb"7z\xbc\xaf\x27\x1c", "it is a 7z archive", "unpack it first: 7z x FILE"),
    (rb"Rar!\x1a\x07", "it is a RAR archive", "unpack it first: unrar x FILE"),
    (rb"\x04\x22\x4d\x18", "it is packed by lz4", "unpack it first: lz4 -d FILE snapshot.db"),
    (rb"\xff\x06\x00\x00sNaPpY", "it is packed by snappy", "unpack it first with the program that packed it"),
    (rb"LUKS\xba\xbe", "it is an encrypted disk image", "open it with cryptsetup, and name the snapshot in it"),
    (rb".\x00{6}[\x80-\x87]\x08\x04\x10", "it is a file of etcd's write-ahead log", "name the data directory"),
    (rb"\x00{64}", "it begins with zeros alone: a copy that was not finished, or a damaged disk", ""),
)
