"""Omni's backups: an age file whose file key is sealed with NaCl's secretbox, and in it two secrets and a snapshot.

Only this one kind of recipient is read and written: others belong to age itself. Source: docs/formats/containers.md,
"Omni"; the age format, c2sp.org/age (v1).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

from snaptool.containers.faults import ContainerFault, ContainerRefused, encrypted
from snaptool.containers.readers import Peekable
from snaptool.text import counted

_VERSION_LINE = b"age-encryption.org/v1"
_LARGEST_HEADER = 64 << 10
_CHUNK = 65_536
_TAG = 16
_KEY_SIZE = 32
_LONGEST_FIELD = 4096
_HEADER_VERSION_1 = b"\x08\x01"


@dataclass(frozen=True, slots=True)
class OmniSecrets:
    """What stands before the snapshot: base64 texts as the cluster's secrets bundle has them, empty where it has none.

    Never shown: they are keys of the cluster. `backup_key`: the 32 bytes under which the whole is sealed.
    """

    aescbc: str = field(repr=False)
    secretbox: str = field(repr=False)
    backup_key: bytes = field(default=b"", repr=False)


def read_omni_key(text: bytes) -> bytes:
    """Read the 32-byte backup key from a file's content: 64 hex digits, or the bytes. Raises ContainerRefused."""
    stripped = text.strip()
    if len(stripped) == 2 * _KEY_SIZE:
        try:
            return bytes.fromhex(stripped.decode("ascii"))
        except (UnicodeDecodeError, ValueError):
            pass
    if len(text) == _KEY_SIZE:
        return text
    raise ContainerRefused(
        f"the Omni backup key is 64 hex digits or 32 bytes; this is {counted(len(text), 'byte')} of something else",
        hint="it is in Omni's state, resource EtcdBackupEncryption",
        code="omni_key",
    )


class AgeReader:
    """Decrypts an Omni backup. `secrets` are read at once; `read` then gives the snapshot.

    Data is given when its chunk is authenticated; of a bad chunk nothing is. Raises ContainerRefused
    container_encrypted for other age files and without a key, omni_version; ContainerFault age_auth, omni_format.
    """

    def __init__(self, source: Peekable, place: str, key: bytes | None) -> None:
        self._source = source
        self._place = place
        self._counter = 0
        self._ended = False
        self._ready = b""
        self._key = key or b""
        file_key = self._file_key(key)
        nonce = self._source.read_exactly(16)
        if len(nonce) < 16:
            raise self._not_authentic()
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305  # noqa: PLC0415 - where it is used

        self._cipher = ChaCha20Poly1305(_hkdf(file_key, salt=nonce, info=b"payload"))
        self.secrets = self._secrets()

    def _file_key(self, key: bytes | None) -> bytes:
        """Read the header and open the file key in it. Raises as the class."""
        header, recipients, stated = self._header()
        kinds = [words[0] for words, _ in recipients if words]
        if kinds != [b"nacl_v1"]:
            what = ", ".join(sorted({kind.decode(errors="replace") for kind in kinds})) or "no recipient"
            raise encrypted(
                self._place,
                f"encrypted by age ({what})",
                "decrypt it with age first: age -d -i KEY-FILE -o snapshot.db FILE",
            )
        if key is None:
            raise encrypted(
                self._place,
                "a backup of Omni, encrypted under the cluster's backup key",
                "give the key with --omni-key-file FILE; it is in Omni's state, resource EtcdBackupEncryption",
            )
        from nacl.exceptions import CryptoError  # noqa: PLC0415 - where it is used
        from nacl.secret import SecretBox  # noqa: PLC0415 - the same

        words, body = recipients[0]
        try:
            nonce = bytes.fromhex(words[1].decode("ascii"))
            file_key = SecretBox(key).decrypt(body, nonce)
        except (IndexError, ValueError, CryptoError):
            raise self._not_authentic() from None
        if len(file_key) != 16:
            raise self._not_authentic()
        wanted = hmac.new(_hkdf(file_key, salt=b"", info=b"header"), header, hashlib.sha256).digest()
        if not hmac.compare_digest(wanted, stated):
            raise self._not_authentic()
        return file_key

    def _header(self) -> tuple[bytes, list[tuple[list[bytes], bytes]], bytes]:
        """Read the header: its bytes up to and including `---`, its recipients (words, body), its MAC."""
        header, recipients = b"", list[tuple[list[bytes], bytes]]()
        while True:
            line = self._line()
            if not header:
                if line != _VERSION_LINE:
                    raise self._not_authentic()
            elif line.startswith(b"---"):
                return header + b"---", recipients, _decode(line[4:])
            elif line.startswith(b"-> "):
                recipients.append((line[3:].split(b" "), b""))
            elif recipients:
                words, body = recipients[-1]
                recipients[-1] = words, body + _decode(line)
            header += line + b"\n"
            if len(header) > _LARGEST_HEADER:
                raise self._not_authentic()

    def _line(self) -> bytes:
        ahead = self._source.peek(_LARGEST_HEADER)
        end = ahead.find(b"\n")
        if end < 0:
            raise self._not_authentic()
        return self._source.read_exactly(end + 1)[:-1]

    def _not_authentic(self) -> ContainerFault:
        return ContainerFault(
            f"{self._place}: the key does not fit, or the file is cut or changed; which of them cannot be seen",
            hint="try the backup key of that very cluster; then download the file again",
            code="age_auth",
        )

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes of the snapshot."""
        while not self._ready and not self._ended:
            self._next_chunk()
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def _next_chunk(self) -> None:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - where it is used

        sealed = self._source.read_exactly(_CHUNK + _TAG)
        last = self._source.at_end()
        nonce = self._counter.to_bytes(11, "big") + (b"\x01" if last else b"\x00")
        try:
            self._ready += self._cipher.decrypt(nonce, sealed, None)
        except (InvalidTag, ValueError):
            raise self._not_authentic() from None
        self._counter += 1
        self._ended = last

    def _exactly(self, size: int) -> bytes:
        while len(self._ready) < size and not self._ended:
            self._next_chunk()
        data, self._ready = self._ready[:size], self._ready[size:]
        if len(data) < size:
            raise self._bad_format("it ends within its header")
        return data

    def _secrets(self) -> OmniSecrets:
        header, *texts = [self._field() for _ in range(3)]
        if header != _HEADER_VERSION_1:
            raise ContainerRefused(
                f"{self._place}: its header is of another version than 1",
                hint="a newer snaptool may read it; or let Omni restore it",
                code="omni_version",
            )
        try:
            aescbc, secretbox = (text.decode("ascii") for text in texts)
        except UnicodeDecodeError:
            raise self._bad_format("a secret in its header is not text") from None
        return OmniSecrets(aescbc=aescbc, secretbox=secretbox, backup_key=self._key)

    def _field(self) -> bytes:
        size = int.from_bytes(self._exactly(8), "big")
        if size > _LONGEST_FIELD:
            raise self._bad_format(f"a field of its header is said to have {size:,} bytes")
        return self._exactly(size)

    def _bad_format(self, problem: str) -> ContainerFault:
        return ContainerFault(
            f"{self._place} is not a backup of Omni: {problem}",
            hint="name a file of Omni's backup store",
            code="omni_format",
        )


class AgeWriter:
    """Writes an Omni backup to `sink`: header and secrets at once, then the snapshot that it is given.

    `entropy` is asked for the file key and two nonces, which are new in every file.
    """

    def __init__(self, sink: Callable[[bytes], object], secrets: OmniSecrets, entropy: Callable[[int], bytes]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305  # noqa: PLC0415 - where it is used
        from nacl.secret import SecretBox  # noqa: PLC0415 - the same

        self._sink = sink
        self._counter = 0
        file_key, sealing, nonce = entropy(16), entropy(24), entropy(16)
        body = SecretBox(secrets.backup_key).encrypt(file_key, sealing).ciphertext
        header = b"%s\n-> nacl_v1 %s\n%s\n---" % (_VERSION_LINE, sealing.hex().encode(), _encode(body))
        mac = hmac.new(_hkdf(file_key, salt=b"", info=b"header"), header, hashlib.sha256).digest()
        sink(header + b" " + _encode(mac) + b"\n" + nonce)
        self._cipher = ChaCha20Poly1305(_hkdf(file_key, salt=nonce, info=b"payload"))
        fields = (_HEADER_VERSION_1, secrets.aescbc.encode(), secrets.secretbox.encode())
        self._held = bytearray(b"".join(len(one).to_bytes(8, "big") + one for one in fields))

    def write(self, data: bytes) -> None:
        """Add bytes of the snapshot."""
        self._held += data
        while len(self._held) > _CHUNK:  # what may be the last chunk waits: it is marked
            self._seal(bytes(self._held[:_CHUNK]), b"\x00")
            del self._held[:_CHUNK]

    def finish(self) -> None:
        """Write the last chunk."""
        self._seal(bytes(self._held), b"\x01")

    def _seal(self, chunk: bytes, mark: bytes) -> None:
        self._sink(self._cipher.encrypt(self._counter.to_bytes(11, "big") + mark, chunk, None))
        self._counter += 1


def _encode(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    """Decode base64 without padding; nothing where it is none, which no MAC then fits."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _hkdf(key: bytes, *, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA256, 32 bytes. Source: RFC 5869."""
    pseudo_random = hmac.new(salt or bytes(32), key, hashlib.sha256).digest()
    return hmac.new(pseudo_random, info + b"\x01", hashlib.sha256).digest()
