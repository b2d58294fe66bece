# cython: boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True, show_performance_hints=False
"""The values of a batch, opened and sealed many at a time. Compiled where a C compiler is at hand.

What a cipher takes for an object of a kilobyte is a microsecond or four, so that nothing around it may take more.
Values are places in the mapped file; what they open to stands side by side in one buffer, and so does what they are
sealed to.

AES-CBC: the values behind each other are one stream to a decryptor, because a block depends on the one before it and on
nothing else; what comes out for an IV is nonsense, and is passed over. Secretbox: libsodium's own function, called by
its address without Python between the values and without its lock, so that threads work beside each other; where that
address is not to be had, the public functions of PyNaCl.

Knows ciphers and places; knows no key's name, and nothing of what the values mean.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

try:
    import cython
except ImportError:
    from snaptool.compiled import cython  # type: ignore[no-redef]

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if cython.compiled:
    from cython.cimports.libc.string import memcmp  # type: ignore[import-untyped]

if not cython.compiled:
    Bytes = memoryview  # read-only in the compiled module
    Room = memoryview
    Words = memoryview  # of 64-bit numbers
    View = memoryview
    Box = Callable[..., int]

PLAIN = cython.declare(cython.longlong, -1)  # who is asked first for a value that does not look encrypted
NOBODY = cython.declare(cython.longlong, -2)  # and for one that begins with no header that anybody knows

_RESERVED = cython.declare(bytes, b"k8s:enc:")
_BLOCK = cython.declare(cython.longlong, 16)
_GCM_NONCE = cython.declare(cython.longlong, 12)
_BOX_NONCE = cython.declare(cython.longlong, 24)
_TAG = cython.declare(cython.longlong, 16)


def words(count: int) -> memoryview:
    """Make room for that many numbers."""
    return memoryview(array("q", bytes(8 * count)))


# --- rows -----------------------------------------------------------------------------------------------------------


def gathered(rows: Words, column: Words) -> memoryview:
    """Return the numbers of a column in some rows."""
    index: cython.Py_ssize_t
    room = words(len(rows))
    found: Words = room
    for index in range(len(rows)):
        found[index] = column[rows[index]]
    return room


def met(rows: Words, numbers: Words) -> list[int]:
    """Return the numbers of some rows, each once, as they are met."""
    index: cython.Py_ssize_t
    last: cython.longlong = -1
    seen: dict[int, None] = {}
    for index in range(len(rows)):
        if numbers[rows[index]] != last or index == 0:
            last = numbers[rows[index]]
            seen[last] = None
    return list(seen)


def of_part(rows: Words, numbers: Words, part_of: Words, part: int) -> memoryview:
    """Return the rows of a part, in their order. `part_of`: by the number of a row."""
    index: cython.Py_ssize_t
    count: cython.Py_ssize_t = 0
    wanted: cython.longlong = part
    room = words(len(rows))
    found: Words = room
    for index in range(len(rows)):
        if part_of[numbers[rows[index]]] == wanted:
            found[count] = rows[index]
            count += 1
    return room[:count]


# --- values ---------------------------------------------------------------------------------------------------------


@cython.final
@cython.cclass
class Values:
    """Stored values of a file, and what they open to.

    Value `i` has `size[i]` bytes at `at[i]` of the file, its etcd key `key_size[i]` bytes at `key_at[i]`. Opened, it
    has `plain_size[i]` bytes at `plain_at[i]`: of `opened` where `inside[i]`, else of the file; size -1: it is closed.
    `rows`, where a method takes them, are the values that are meant.
    """

    data: Bytes
    view: View
    at: Words
    size: Words
    key_at: Words
    key_size: Words
    asked: Words
    opened: Room
    opened_view: View
    used: cython.longlong
    inside: Room
    plain_at: Words
    plain_size: Words
    stream: Room
    stream_view: View

    def __init__(self, data: memoryview) -> None:
        self.view = memoryview(data)
        self.data = self.view
        self.opened_view = self.stream_view = memoryview(bytearray(0))
        self.opened = self.opened_view
        self.stream = self.stream_view
        self.used = 0
        self._make_room(512)

    def begin(self, at: Words, size: Words, key_at: Words, key_size: Words, rows: Words) -> None:
        """Take up other values; nothing of those before is kept. Raises IndexError for a place outside the file."""
        index: cython.Py_ssize_t
        row: cython.longlong
        end: cython.longlong = len(self.data)
        self.at, self.size, self.key_at, self.key_size = at, size, key_at, key_size
        if len(at) > len(self.asked):
            self._make_room(2 * len(at))
        self.used = 0
        for index in range(len(rows)):
            row = rows[index]
            self.plain_size[row] = -1
            if not (
                0 <= at[row] <= end
                and 0 <= size[row] <= end - at[row]
                and 0 <= key_at[row] <= end
                and 0 <= key_size[row] <= end - key_at[row]
            ):
                raise IndexError("a value is not inside its file")

    def _make_room(self, count: int) -> None:
        self.asked = words(count)
        self.plain_at = words(count)
        self.plain_size = words(count)
        self.inside = memoryview(bytearray(count))

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def need(self, more: cython.longlong) -> cython.int:
        """Have room for so many more opened bytes, and for a block more, which ciphers want."""
        if self.used + more + _BLOCK > len(self.opened):
            larger = memoryview(bytearray(2 * (self.used + more + _BLOCK)))
            larger[: self.used] = self.opened_view[: self.used]
            self.opened_view = larger
            self.opened = larger
        return 0

    @cython.cfunc
    @cython.nogil
    def home(self, row: cython.longlong) -> Bytes:
        """Return what the plaintext of a value stands in: the file, or `opened`."""
        return self.opened if self.inside[row] else self.data

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def need_stream(self, size: cython.longlong) -> cython.int:
        """Have room for a stream of so many bytes."""
        if size > len(self.stream):
            self.stream_view = memoryview(bytearray(2 * size))
            self.stream = self.stream_view
        return 0

    # --- who is asked ---

    def ask(self, rows: Words, headers: list[bytes]) -> None:
        """Find out who is asked first for each value: the first of `headers` that it begins with, PLAIN or NOBODY."""
        index: cython.Py_ssize_t
        row: cython.longlong
        number: cython.longlong
        count: cython.longlong = len(headers)
        texts: Bytes = memoryview(b"".join([_RESERVED, *headers]))
        ends: Words = words(count + 2)
        for number in range(count + 1):
            ends[number + 1] = ends[number] + len(headers[number - 1] if number else _RESERVED)
        for index in range(len(rows)):
            row = rows[index]
            self.asked[row] = PLAIN
            if not self.begins(row, texts, 0, ends[1]):
                continue
            self.asked[row] = NOBODY
            for number in range(count):
                if self.begins(row, texts, ends[number + 1], ends[number + 2]):
                    self.asked[row] = number
                    break

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def begins(self, row: cython.longlong, texts: Bytes, start: cython.longlong, end: cython.longlong) -> cython.int:
        """Whether a stored value begins with the text from `start` to `end` of `texts`."""
        offset: cython.longlong
        if self.size[row] < end - start:
            return 0
        for offset in range(end - start):
            if self.data[self.at[row] + offset] != texts[start + offset]:
                return 0
        return 1

    def note_ways(self, rows: Words, ways: Words, first: int) -> None:
        """Number the ways that values were opened: `first` for plaintext, then those of the headers, in order."""
        index: cython.Py_ssize_t
        before: cython.longlong = first + 1
        for index in range(len(rows)):
            ways[rows[index]] = before + self.asked[rows[index]]

    def closed(self, rows: Words) -> list[int]:
        """Return those that are not open."""
        return [row for row in rows if self.plain_size[row] < 0]

    def by_place(self, rows: Words) -> tuple[memoryview, memoryview]:
        """Part rows: those whose plaintext is in the file, and, backwards, those whose it is in `opened`."""
        index: cython.Py_ssize_t
        front: cython.Py_ssize_t = 0
        back: cython.Py_ssize_t = len(rows)
        room = words(len(rows))
        found: Words = room
        for index in range(len(rows)):
            if self.inside[rows[index]]:
                back -= 1
                found[back] = rows[index]
            else:
                found[front] = rows[index]
                front += 1
        return room[:front], room[front:]

    def open_by(self, rows: Words, number: int) -> list[int]:
        """Return those that are open, and were opened by the key of that header."""
        key: cython.longlong = number
        return [row for row in rows if self.asked[row] == key and self.plain_size[row] >= 0]

    # --- one value ---

    def stored(self, row: int) -> bytes:
        """Return a value as it is stored."""
        return bytes(self.view[self.at[row] : self.at[row] + self.size[row]])

    def key(self, row: int) -> bytes:
        """Return the etcd key of a value."""
        return bytes(self.view[self.key_at[row] : self.key_at[row] + self.key_size[row]])

    def plaintext(self, row: int) -> memoryview:
        """Return what a value opened to, until the next `begin`. Raises ValueError for one that is not open."""
        if self.plain_size[row] < 0:
            raise ValueError("a value that is not open has no plaintext")
        text = self.opened_view if self.inside[row] else self.view
        return text[self.plain_at[row] : self.plain_at[row] + self.plain_size[row]]

    def put(self, row: int, plaintext: bytes | memoryview) -> None:
        """Say what a value opens to."""
        self.need(len(plaintext))
        self.opened_view[self.used : self.used + len(plaintext)] = plaintext
        self.inside[row], self.plain_at[row], self.plain_size[row] = 1, self.used, len(plaintext)
        self.used += len(plaintext)

    def close(self, row: int) -> None:
        """Forget what a value opened to."""
        self.plain_size[row] = -1

    def places(self) -> tuple[memoryview, memoryview, memoryview, memoryview, memoryview]:
        """Return the file, `opened`, `inside`, `plain_at` and `plain_size`, for loops of other modules."""
        return self.view, self.opened_view, self.inside, self.plain_at, self.plain_size

    # --- opening ---

    def open_plain(self, rows: Words) -> None:
        """Open the values that are plaintext: they are what they open to."""
        index: cython.Py_ssize_t
        row: cython.longlong
        for index in range(len(rows)):
            row = rows[index]
            if self.asked[row] == PLAIN:
                self.inside[row], self.plain_at[row], self.plain_size[row] = 0, self.at[row], self.size[row]

    def open_cbc(
        self, rows: Words, number: int, header_size: int, update_into: Callable[[memoryview, memoryview], int]
    ) -> None:
        """Open IV(16) || ciphertext behind the header; other sizes, and what has no PKCS#7 padding, stay closed."""
        index: cython.Py_ssize_t
        row: cython.longlong
        key: cython.longlong = number
        header: cython.longlong = header_size
        total: cython.longlong = 0
        sealed: cython.longlong
        for index in range(len(rows)):
            row = rows[index]
            sealed = self.size[row] - header
            if self.asked[row] == key and sealed > _BLOCK and sealed % _BLOCK == 0:
                total += sealed
        if not total:
            return
        self.need(total)
        self.need_stream(total)
        total = 0
        for index in range(len(rows)):
            row = rows[index]
            sealed = self.size[row] - header
            if self.asked[row] == key and sealed > _BLOCK and sealed % _BLOCK == 0:
                self.stream[total : total + sealed] = self.data[self.at[row] + header : self.at[row] + header + sealed]
                self.inside[row] = 1
                self.plain_at[row], self.plain_size[row] = self.used + total + _BLOCK, sealed - _BLOCK
                total += sealed
        update_into(self.stream_view[:total], self.opened_view[self.used : self.used + total + _BLOCK])
        self.used += total
        for index in range(len(rows)):
            row = rows[index]
            if self.asked[row] == key and self.plain_size[row] >= 0:
                self.cut_padding(row)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(-1, check=False)
    def cut_padding(self, row: cython.longlong) -> cython.int:
        """Take the padding off: n bytes of value n, 1 to 16; a value without one is closed."""
        end: cython.longlong = self.plain_at[row] + self.plain_size[row]
        padding: cython.longlong = self.opened[end - 1]
        at: cython.longlong
        self.plain_size[row] -= padding
        if not 1 <= padding <= _BLOCK:
            self.plain_size[row] = -1
            return 0
        for at in range(end - padding, end):
            if self.opened[at] != padding:
                self.plain_size[row] = -1
        return 0

    def open_gcm(self, rows: Words, number: int, header_size: int, cipher: AESGCM) -> None:
        """Open nonce(12) || ciphertext || tag(16) behind the header, with the etcd key; the rest stays closed."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - who opens no value does not wait for it

        decrypt_into = getattr(cipher, "decrypt_into", None)  # cryptography 47 and newer
        view = self.view
        start: cython.longlong
        end: cython.longlong
        row: cython.longlong
        index: cython.Py_ssize_t
        size: cython.longlong
        for index in range(len(rows)):
            row = rows[index]
            start, end = self.at[row] + header_size + _GCM_NONCE, self.at[row] + self.size[row]
            size = end - start - _TAG
            if self.asked[row] != number or size < 0:
                continue
            nonce, context = (
                view[start - _GCM_NONCE : start],
                view[self.key_at[row] : self.key_at[row] + self.key_size[row]],
            )
            try:
                if decrypt_into is None:
                    self.put(row, cipher.decrypt(nonce, view[start:end], context))
                    continue
                self.need(size)
                decrypt_into(nonce, view[start:end], context, self.opened_view[self.used : self.used + size])
            except InvalidTag:
                continue
            self.inside[row], self.plain_at[row], self.plain_size[row] = 1, self.used, size
            self.used += size

    def open_secretbox(self, rows: Words, number: int, header_size: int, key: bytes, address: int) -> None:
        """Open nonce(24) || tag(16) || ciphertext behind the header; the rest stays closed.

        `address`: of libsodium's crypto_secretbox_open_easy; 0: there is none to be had.
        """
        index: cython.Py_ssize_t
        row: cython.longlong
        wanted: cython.longlong = number
        total: cython.longlong = 0
        for index in range(len(rows)):
            if self.asked[rows[index]] == wanted:
                total += self.size[rows[index]]
        self.need(total)
        if len(key) != 32:
            raise ValueError("a key of secretbox has 32 bytes")
        if cython.compiled and address:
            self.open_boxes(rows, wanted, header_size, memoryview(key), address)
            return
        from nacl.bindings import crypto_secretbox_open  # noqa: PLC0415 - who opens no value does not wait for it
        from nacl.exceptions import CryptoError  # noqa: PLC0415 - who opens no value does not wait for it

        for index in range(len(rows)):
            row = rows[index]
            stored = self.stored(row)[header_size:]
            if self.asked[row] == wanted and len(stored) >= _BOX_NONCE + _TAG:
                try:
                    self.put(row, crypto_secretbox_open(stored[_BOX_NONCE:], stored[:_BOX_NONCE], key))
                except CryptoError:
                    continue

    if cython.compiled:

        @cython.cfunc
        @cython.exceptval(-1, check=False)
        def open_boxes(
            self, rows: Words, number: cython.longlong, header: cython.longlong, key: Bytes, address: cython.size_t
        ) -> cython.int:
            """Open as `open_secretbox` says, by the function at `address`."""
            open_one: Box = cython.cast(Box, address)
            index: cython.Py_ssize_t
            row: cython.longlong
            start: cython.longlong
            size: cython.longlong
            with cython.nogil:
                for index in range(len(rows)):
                    row = rows[index]
                    start, size = self.at[row] + header + _BOX_NONCE, self.size[row] - header - _BOX_NONCE
                    if self.asked[row] != number or size < _TAG:
                        continue
                    # All that the function reads and writes is there: the last byte of each was looked at.
                    self.data[start + size - 1]
                    self.opened[self.used + size - 1]
                    if open_one(
                        cython.address(self.opened[self.used]),
                        cython.address(self.data[start]),
                        size,
                        cython.address(self.data[start - _BOX_NONCE]),
                        cython.address(key[0]),
                    ):
                        continue
                    self.inside[row], self.plain_at[row], self.plain_size[row] = 1, self.used, size - _TAG
                    self.used += size - _TAG
            return 0


def same_plaintexts(old: Values, rows: Words, new: Values, others: Words) -> int:
    """Compare what values opened to, in turn; return how many are the same before one that is not, or is closed."""
    index: cython.Py_ssize_t = 0
    with cython.nogil:
        while index < len(rows) and same(old, rows[index], new, others[index]):
            index += 1
    return index


@cython.cfunc
@cython.nogil
@cython.exceptval(-1, check=False)
def same(old: Values, x: cython.longlong, new: Values, y: cython.longlong) -> cython.int:
    """Whether a value of each is open, and both have the same plaintext."""
    size: cython.longlong = old.plain_size[x]
    at: cython.longlong = old.plain_at[x]
    start: cython.longlong = new.plain_at[y]
    if size < 0 or size != new.plain_size[y]:
        return 0
    if size == 0:
        return 1
    text: Bytes = old.home(x)
    other: Bytes = new.home(y)
    # All that is compared is there: the last byte of both is looked at first.
    if text[at] != other[start] or text[at + size - 1] != other[start + size - 1]:
        return 0
    if cython.compiled:
        different: cython.int = memcmp(cython.address(text[at]), cython.address(other[start]), size)
        return different == 0
    return text[at : at + size] == other[start : start + size]


@cython.final
@cython.cclass
class Sealed:
    """New stored values: that of value `i` has `size[i]` bytes at `at[i]` of `data`; size -1: it has none."""

    room: Room
    data: View
    at: Words
    size: Words
    used: cython.longlong

    def __init__(self) -> None:
        self.data = memoryview(bytearray(0))
        self.room = self.data
        self.at = words(0)
        self.size = words(0)
        self.used = 0

    def begin(self, count: int) -> None:
        """Forget all; so many values may come."""
        index: cython.Py_ssize_t
        if count > len(self.at):
            self.at, self.size = words(2 * count), words(2 * count)
        self.used = 0
        for index in range(len(self.size)):
            self.size[index] = -1

    def places(self) -> tuple[memoryview, memoryview, memoryview]:
        """Return `data`, `at` and `size`, for loops of other modules."""
        return self.data, self.at, self.size

    def value(self, row: int) -> memoryview:
        """Return a new stored value, until the next `begin`. Raises ValueError for one that was not sealed."""
        if self.size[row] < 0:
            raise ValueError("a value that was not sealed")
        return self.data[self.at[row] : self.at[row] + self.size[row]]

    @cython.cfunc
    @cython.exceptval(-1, check=False)
    def need(self, more: cython.longlong) -> cython.int:
        """Have room for so many more bytes."""
        if self.used + more > len(self.room):
            larger = memoryview(bytearray(2 * (self.used + more)))
            larger[: self.used] = self.data[: self.used]
            self.data = larger
            self.room = larger
        return 0

    def put(self, row: int, stored: bytes | memoryview) -> None:
        """Take a value that was sealed elsewhere."""
        self.need(len(stored))
        self.data[self.used : self.used + len(stored)] = stored
        self.at[row], self.size[row] = self.used, len(stored)
        self.used += len(stored)

    def keep_plain(self, rows: Words, values: Values) -> None:
        """Take what the values opened to."""
        index: cython.Py_ssize_t
        for index in range(len(rows)):
            self.put(rows[index], values.plaintext(rows[index]))

    def seal_cbc(
        self,
        rows: Words,
        values: Values,
        header: bytes,
        blocks: bytes,
        update_into: Callable[[memoryview, memoryview], int],
    ) -> None:
        """Seal to header || IV(16) || ciphertext: one stream to an encryptor. `blocks`: a random one for each value.

        An IV has to be random, and nobody may know it before the value is written. The random block goes into the
        stream in front of its value. What the cipher makes of it, E(random block xor the block before), is as random:
        the random block hides the one before, and E only gives blocks other names. What follows is encrypted with
        that as CBC encrypts with an IV; so this is the IV that is stored.
        """
        index: cython.Py_ssize_t
        offset: cython.longlong
        row: cython.longlong
        at: cython.longlong
        size: cython.longlong
        total: cython.longlong = 0
        head: cython.longlong = len(header)
        text: Bytes = memoryview(header)
        drawn: Bytes = memoryview(blocks)
        if len(blocks) != _BLOCK * len(rows):
            raise ValueError("AES-CBC takes a random block of 16 bytes for each value")
        for index in range(len(rows)):
            size = values.plain_size[rows[index]]
            if size < 0:
                raise ValueError("a value that is not open cannot be sealed")
            total += 2 * _BLOCK + size - size % _BLOCK
        values.need_stream(total)
        total = 0
        for index in range(len(rows)):
            row = rows[index]
            at, size = values.plain_at[row], values.plain_size[row]
            values.stream[total : total + _BLOCK] = drawn[_BLOCK * index : _BLOCK * (index + 1)]
            total += _BLOCK
            values.stream[total : total + size] = values.home(row)[at : at + size]
            total += size
            for offset in range(_BLOCK - size % _BLOCK):
                values.stream[total + offset] = cython.cast(cython.uchar, _BLOCK - size % _BLOCK)
            total += _BLOCK - size % _BLOCK
        self.need(head * len(rows) + total + _BLOCK)
        # The last value stands where it has to; the others go forward from there, to make room for the headers.
        at = self.used + head * len(rows)
        update_into(values.stream_view[:total], self.data[at : at + total + _BLOCK])
        for index in range(len(rows)):
            row = rows[index]
            size = 2 * _BLOCK + values.plain_size[row] - values.plain_size[row] % _BLOCK
            self.at[row], self.size[row] = self.used, head + size
            self.room[self.used : self.used + head] = text
            self.room[self.used + head : self.used + head + size] = self.room[at : at + size]
            self.used += head + size
            at += size

    def seal_gcm(self, rows: Words, values: Values, header: bytes, cipher: AESGCM, nonces: bytes) -> None:
        """Seal to header || nonce(12) || ciphertext || tag(16), the etcd key authenticated. `nonces`: all of them."""
        encrypt_into = getattr(cipher, "encrypt_into", None)  # cryptography 47 and newer
        index: cython.Py_ssize_t
        row: cython.longlong
        size: cython.longlong
        at: cython.longlong
        for index in range(len(rows)):
            row = rows[index]
            nonce = nonces[_GCM_NONCE * index : _GCM_NONCE * (index + 1)]
            context = values.view[values.key_at[row] : values.key_at[row] + values.key_size[row]]
            if encrypt_into is None:
                self.put(row, header + nonce + cipher.encrypt(nonce, values.plaintext(row), context))
                continue
            size = len(header) + _GCM_NONCE + values.plain_size[row] + _TAG
            self.need(size)
            at = self.used + len(header)
            self.data[self.used : at] = header
            self.data[at : at + _GCM_NONCE] = nonce
            encrypt_into(nonce, values.plaintext(row), context, self.data[at + _GCM_NONCE : self.used + size])
            self.at[row], self.size[row] = self.used, size
            self.used += size

    def seal_secretbox(
        self, rows: Words, values: Values, header: bytes, key: bytes, nonces: bytes, address: int
    ) -> None:
        """Seal to header || nonce(24) || tag(16) || ciphertext. `nonces`: all of them.

        `address`: of libsodium's crypto_secretbox_easy; 0: there is none to be had.
        """
        index: cython.Py_ssize_t
        total: cython.longlong = 0
        if len(key) != 32 or len(nonces) != _BOX_NONCE * len(rows):
            raise ValueError("secretbox takes a key of 32 bytes and a nonce of 24 for each value")
        for index in range(len(rows)):
            if values.plain_size[rows[index]] < 0:
                raise ValueError("a value that is not open cannot be sealed")
            total += len(header) + _BOX_NONCE + _TAG + values.plain_size[rows[index]]
        self.need(total)
        if cython.compiled and address:
            self.seal_boxes(rows, values, memoryview(header), memoryview(key), memoryview(nonces), address)
            return
        from nacl.bindings import crypto_secretbox  # noqa: PLC0415 - who opens no value does not wait for it

        for index in range(len(rows)):
            nonce = nonces[_BOX_NONCE * index : _BOX_NONCE * (index + 1)]
            self.put(rows[index], header + nonce + crypto_secretbox(bytes(values.plaintext(rows[index])), nonce, key))

    if cython.compiled:

        @cython.cfunc
        @cython.exceptval(-1, check=False)
        def seal_boxes(
            self, rows: Words, values: Values, header: Bytes, key: Bytes, nonces: Bytes, address: cython.size_t
        ) -> cython.int:
            """Seal as `seal_secretbox` says, by the function at `address`."""
            seal_one: Box = cython.cast(Box, address)
            text: Bytes
            index: cython.Py_ssize_t
            row: cython.longlong
            at: cython.longlong
            start: cython.longlong
            size: cython.longlong
            with cython.nogil:
                for index in range(len(rows)):
                    row = rows[index]
                    at, size = values.plain_at[row], values.plain_size[row]
                    start = self.used + len(header)
                    self.at[row], self.size[row] = self.used, len(header) + _BOX_NONCE + _TAG + size
                    self.room[self.used : start] = header
                    self.room[start : start + _BOX_NONCE] = nonces[_BOX_NONCE * index : _BOX_NONCE * (index + 1)]
                    start += _BOX_NONCE
                    self.used += self.size[row]
                    # All that the function reads and writes is there: the last byte of each was looked at.
                    self.room[self.used - 1]
                    text = values.home(row)
                    if size == 0:
                        # Of an empty value there is no byte to name: any will do.
                        text = key
                        at, size = 0, 1
                    text[at + size - 1]
                    seal_one(
                        cython.address(self.room[start]),
                        cython.address(text[at]),
                        values.plain_size[row],
                        cython.address(nonces[_BOX_NONCE * index]),
                        cython.address(key[0]),
                    )
            return 0
