"""Checksums of a file as stores state them, from one pass over it."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path

PART = 16 << 20
"""Bytes of a part of an upload; what is smaller is sent as one."""
_BLOCK = 1 << 20


class Sums:
    """SHA-256 whole and of parts, MD5, CRC-32 and CRC-32C of what is added. Sizes in bytes."""

    def __init__(self, blocks: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._whole = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crc = 0
        self._crc32c = 0
        self._part = hashlib.sha256()
        self._parts: list[bytes] = []
        for block in blocks:
            self.add(block)

    def add(self, data: bytes) -> None:
        """Take in the next bytes."""
        from crc32c import crc32c  # noqa: PLC0415 - seldom needed, and heavy

        self._whole.update(data)
        self._md5.update(data)
        self._crc = zlib.crc32(data, self._crc)
        self._crc32c = crc32c(data, self._crc32c)
        while data:
            room = PART - self.size % PART
            self._part.update(data[:room])
            self.size += len(data[:room])
            data = data[room:]
            if self.size % PART == 0:
                self._parts.append(self._part.digest())
                self._part = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """In hex."""
        return self._whole.hexdigest()

    @property
    def md5(self) -> str:
        """In hex: the ETag of a simple upload on many stores."""
        return self._md5.hexdigest()

    @property
    def uploaded(self) -> str:
        """The SHA-256 that S3 states of an upload by us: of the body, or of the parts' digests and their number."""
        if self.size < PART:
            return base64.b64encode(self._whole.digest()).decode()
        parts = [*self._parts, self._part.digest()] if self.size % PART else self._parts
        return f"{base64.b64encode(hashlib.sha256(b''.join(parts)).digest()).decode()}-{len(parts)}"

    def fits(self, stated: str) -> bool | None:
        """Compare with `ALGORITHM:BASE64`; None for what cannot be compared."""
        algorithm, _, value = stated.partition(":")
        if algorithm == "SHA256":
            if "-" not in value:
                return value == base64.b64encode(self._whole.digest()).decode()
            # Others may cut parts of another size; only equality says something.
            return True if value == self.uploaded else None
        crcs = {"CRC32": self._crc, "CRC32C": self._crc32c}
        if algorithm in crcs and "-" not in value:
            return value == base64.b64encode(crcs[algorithm].to_bytes(4, "big")).decode()
        return None


def sums_of(path: Path) -> Sums:
    """Read a file once."""
    with path.open("rb") as file:
        return Sums(iter(lambda: file.read(_BLOCK), b""))
