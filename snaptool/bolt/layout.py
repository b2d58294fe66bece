"""On-disk structures of a bolt file, declared once; sizes and the writer's bytes derive from them.

A file is an array of pages of one size. Pages 0 and 1 are metas; every other page in use is a branch, a leaf or a
freelist. A page is a 16-byte header, then an array of 16-byte elements, then the bytes they point at; an element's
`pos` counts from the element itself, so elements keep their meaning when their page moves. All integers have the
machine's byte order; this module reads and writes the little-endian form and recognises the other by its magic.

Source: etcd-io/bbolt internal/common/{page,meta,bucket,inode}.go (v1.4.3); docs/formats/bolt.md, "Pages". This
module is pure: bytes in, values out, and back. It opens no file and walks no tree.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntFlag
from typing import NewType

from snaptool.errors import FormatError

PageId = NewType("PageId", int)
TxId = NewType("TxId", int)

MAGIC = 0xED0CDAED
VERSION = 2
NO_FREELIST = 0xFFFF_FFFF_FFFF_FFFF  # Meta.freelist of a file whose free pages are found by walking it
BUCKET_FLAG = 0x01  # LeafElement.flags: the value is a bucket header
MANY_IDS = 0xFFFF  # PageHeader.count of a freelist whose real count is its first id
MAX_KEY_SIZE = 32_768
MAX_VALUE_SIZE = (1 << 31) - 2
MAX_PAGE_COUNT = 0xFFFF - 1  # elements of one page; writers of bolt panic at 0xFFFF
PAGE_SIZES = tuple(1024 << step for step in range(15))  # where the second meta is looked for: 1 KiB to 16 MiB


class PageFlag(IntFlag):
    """What a page is: exactly one of these."""

    BRANCH = 0x01
    LEAF = 0x02
    META = 0x04
    FREELIST = 0x10


class PageHeader(ctypes.LittleEndianStructure):
    """First 16 bytes of every page that has a number of its own."""

    _pack_ = 1
    _fields_ = (
        ("id", ctypes.c_uint64),
        ("flags", ctypes.c_uint16),
        ("count", ctypes.c_uint16),
        ("overflow", ctypes.c_uint32),
    )


class BranchElement(ctypes.LittleEndianStructure):
    """One child of a branch page."""

    _pack_ = 1
    _fields_ = (("pos", ctypes.c_uint32), ("ksize", ctypes.c_uint32), ("pgid", ctypes.c_uint64))


class LeafElement(ctypes.LittleEndianStructure):
    """One record of a leaf page; the value follows the key."""

    _pack_ = 1
    _fields_ = (
        ("flags", ctypes.c_uint32),
        ("pos", ctypes.c_uint32),
        ("ksize", ctypes.c_uint32),
        ("vsize", ctypes.c_uint32),
    )


class BucketHeader(ctypes.LittleEndianStructure):
    """Value of a bucket record. `root` 0: a whole leaf page image follows (an inline bucket)."""

    _pack_ = 1
    _fields_ = (("root", ctypes.c_uint64), ("sequence", ctypes.c_uint64))


class MetaBody(ctypes.LittleEndianStructure):
    """The 64 bytes behind the header of pages 0 and 1."""

    _pack_ = 1
    _fields_ = (
        ("magic", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("page_size", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("root", BucketHeader),
        ("freelist", ctypes.c_uint64),
        ("high_water_mark", ctypes.c_uint64),
        ("txid", ctypes.c_uint64),
        ("checksum", ctypes.c_uint64),
    )


def struct_format(structure: type[ctypes.LittleEndianStructure]) -> str:
    """Return the `struct` format of a flat structure, for packing many of them at once."""
    codes = {2: "H", 4: "I", 8: "Q"}
    return "<" + "".join(codes[ctypes.sizeof(field[1])] for field in structure._fields_)


HEADER_SIZE = ctypes.sizeof(PageHeader)
ELEMENT_SIZE = ctypes.sizeof(LeafElement)
BUCKET_HEADER_SIZE = ctypes.sizeof(BucketHeader)
META_SIZE = HEADER_SIZE + ctypes.sizeof(MetaBody)


NO_MAGIC = "no bolt magic"


class BadMeta(FormatError):
    """A meta page that cannot be used."""


class ByteOrderNotSupported(BadMeta):
    """The file was written by a big-endian machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What a meta page says. `page_size` in bytes, `high_water_mark` in pages."""

    page_size: int
    root: PageId
    sequence: int
    freelist: int
    high_water_mark: int
    txid: TxId


def fnv1a64(data: bytes) -> int:
    """FNV-1a, 64 bits: the checksum of a meta's first 56 bytes."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFF_FFFF_FFFF_FFFF
    return value


def decode_meta(page: bytes) -> Meta:
    """Decode the meta page that starts at `page`: a 16-byte page header, which is not looked at, then 64 bytes.

    Raises BadMeta for a short page, a wrong magic, version or checksum, and a page size that bolt cannot have.
    Source: bbolt internal/common/meta.go, Validate and Sum64 (v1.4.3); checksum 0 is refused as bbolt 1.3.7 and newer
    do.
    """
    if len(page) < META_SIZE:
        raise BadMeta(f"a meta page needs {META_SIZE} bytes, {len(page)} are there")
    body = MetaBody.from_buffer_copy(page, HEADER_SIZE)
    if body.magic == int.from_bytes(MAGIC.to_bytes(4, "little"), "big"):
        raise ByteOrderNotSupported(
            "written on a big-endian machine",
            hint="restore it on such a machine (s390x), and take a snapshot from a member on another one",
        )
    if body.magic != MAGIC:
        raise BadMeta(NO_MAGIC)
    if body.version != VERSION:
        raise BadMeta(f"version {body.version}, not {VERSION}")
    if body.checksum != fnv1a64(page[HEADER_SIZE : META_SIZE - 8]):
        raise BadMeta("wrong checksum")
    if body.page_size not in PAGE_SIZES:
        raise BadMeta(f"page size {body.page_size}")
    return Meta(
        page_size=body.page_size,
        root=PageId(body.root.root),
        sequence=body.root.sequence,
        freelist=body.freelist,
        high_water_mark=body.high_water_mark,
        txid=TxId(body.txid),
    )


def encode_meta(meta: Meta, page: int) -> bytes:
    """Encode `meta` as meta page number `page` (0 or 1), one page long, with its checksum."""
    header = PageHeader(id=page, flags=PageFlag.META)
    body = MetaBody(
        magic=MAGIC,
        version=VERSION,
        page_size=meta.page_size,
        root=BucketHeader(meta.root, meta.sequence),
        freelist=meta.freelist,
        high_water_mark=meta.high_water_mark,
        txid=meta.txid,
    )
    body.checksum = fnv1a64(bytes(body)[:-8])
    return (bytes(header) + bytes(body)).ljust(meta.page_size, b"\0")
