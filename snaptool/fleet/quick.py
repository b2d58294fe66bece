"""Level `quick`: the first 128 KiB of a backup, and whether the file is as long as its metas say.

Of gzip the first 128 KiB unpacked give the metas, and the last four bytes the size; a zip says the size of what is in
it in its directory, which stands at its end. What is in other containers needs `census`. Source: docs/audit.md,
"Levels".
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from snaptool.bolt import Meta
from snaptool.bolt.layout import MAGIC, PAGE_SIZES, BadMeta, decode_meta
from snaptool.etcd.snapshot import database_size
from snaptool.fleet.places import File, version_now
from snaptool.stores.location import place_of
from snaptool.stores.reading import read_part
from snaptool.stores.store import Seen

_HEAD = 128 << 10
_GZIP = b"\x1f\x8b\x08"
_ZIP = b"PK\x03\x04"
_ZIP_END, _ZIP_END_SIZE = b"PK\x05\x06", 22
_LARGEST_COMMENT = 0xFFFF
_LARGEST_DIRECTORY = 1 << 20
_MEMBER = struct.Struct("<4s6HIII5HII")
_NOT_LOOKED_INTO = ("ok", "not_looked_into", "what is in this container shows with --check census")
_PACKED = (b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh", b"age-encryption.org/", b"SQLite format 3\0")


@dataclass(frozen=True, slots=True)
class Quick:
    """What a quick look says. `status`: ok, damaged, not_a_snapshot. `code` and `problem` where it is not ok."""

    status: str
    code: str = ""
    problem: str = ""


Read = Callable[[int, int], bytes]
"""Reads the bytes from one place to another, less where the file ends."""


def quick_look(file: File) -> tuple[Quick, str]:
    """Look at a file or object, in the version that was listed. Returned too: the version that was read.

    Raises OSError for files; SourceChanged, StoreError for objects.
    """
    if "://" in file.name:
        path, seen = place_of(file.name), Seen(file.size, file.version)
        return judge_ends(partial(read_part, path, seen), file.size), file.version
    descriptor = os.open(file.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(descriptor).st_size
        found = judge_ends(lambda start, end: os.pread(descriptor, end - start, start), size)
    finally:
        os.close(descriptor)
    return found, version_now([file])


def judge_ends(read: Read, size: int) -> Quick:
    """Judge a file of that size by its first bytes, and what of its end is needed."""
    head = read(0, _HEAD)
    if head.startswith(_ZIP):
        return _in_zip(read, size)
    if not head.startswith(_GZIP):
        return _judge(head, size)
    last = int.from_bytes(read(max(size - 4, 0), size), "little")
    return _judge(_unpacked(head), None, last)


def _unpacked(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(head, _HEAD)
    except zlib.error:
        return b""


def _in_zip(read: Read, size: int) -> Quick:
    """Judge the largest file of a zip. Source: APPNOTE.TXT, 4.3.7, 4.3.12 and 4.3.16."""
    start = max(0, size - _ZIP_END_SIZE - _LARGEST_COMMENT)
    tail = read(start, size)
    at = tail.rfind(_ZIP_END)
    if at < 0 or at + _ZIP_END_SIZE > len(tail):
        return Quick("damaged", "container_truncated", "the zip has no directory at its end: it is cut")
    long, where = struct.unpack_from("<II", tail, at + 12)
    if long > _LARGEST_DIRECTORY or where + long > size:
        return Quick(*_NOT_LOOKED_INTO)  # of 64 bits, or odd
    directory, found, place = read(where, where + long), (0, 0, 0), 0
    while place + _MEMBER.size <= len(directory):
        member = _MEMBER.unpack_from(directory, place)
        found = max(found, (member[9], member[4], member[-1]))  # unpacked size, method, local header
        place += _MEMBER.size + sum(member[10:13])
    unpacked, method, local = found
    head = read(local, local + 30)
    if len(head) < 30 or method not in {0, 8}:
        return Quick(*_NOT_LOOKED_INTO)
    begin = local + 30 + sum(struct.unpack_from("<HH", head, 26))
    data = read(begin, begin + _HEAD)
    try:
        data = zlib.decompressobj(-15).decompress(data, _HEAD) if method else data
    except zlib.error:
        return Quick("damaged", "container_checksum", "what is in the zip cannot be unpacked")
    return _judge(data, unpacked) if _newer_meta(data) is not None else Quick(*_NOT_LOOKED_INTO)


def _newer_meta(head: bytes) -> Meta | None:
    metas = []
    for at in (0, *PAGE_SIZES):
        try:
            meta = decode_meta(head[at : at + 80])
        except BadMeta:
            continue
        if at in {0, meta.page_size}:
            metas.append(meta)
    return max(metas, key=lambda meta: meta.txid, default=None)


def _judge(head: bytes, size: int | None, low_bits: int = 0) -> Quick:
    """Judge the start of a database and its size, of which gzip says the lowest 32 bits alone."""
    if size == 0 or not head:
        return Quick("not_a_snapshot", "container_empty" if size == 0 else "container_unknown", "nothing is in it")
    meta = _newer_meta(head)
    if meta is None:
        magic = MAGIC.to_bytes(4, "little")
        if any(head[at + 16 : at + 20] == magic for at in (0, *PAGE_SIZES)):
            return Quick("damaged", "bad_meta", "neither of its two metas can be used")
        if head.startswith(_PACKED) or head[257:262] == b"ustar":
            return Quick(*_NOT_LOOKED_INTO)
        return Quick(
            "not_a_snapshot", "container_unknown", "its first bytes are not those of a bolt file or a container"
        )
    need = meta.page_size * meta.high_water_mark
    if size is not None:
        have = database_size(size)
        short = need > have
    else:
        # The size itself is known modulo 2^32 alone: of a whole file it is at least `need`, and not 16 MiB more.
        beyond = (low_bits - need) % (1 << 32)
        have, short = need + beyond, beyond > 1 << 30
        if short:
            have -= 1 << 32
    if short:
        return Quick("damaged", "snapshot_short", f"its pages need {need:,} bytes, and {max(have, 0):,} are there")
    return Quick("ok")
