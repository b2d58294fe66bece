"""The bootstrap data of k3s and RKE2: the server's files, sealed under its token, in etcd under `/bootstrap/…`.

The key is `/bootstrap/` and the first 12 hex digits of SHA-256(P); the value SALT `:` base64(nonce ‖ AES-256-GCM
ciphertext ‖ tag), with SALT 16 hex digits as text and the AES key PBKDF2-HMAC-SHA1(P, SALT, 4096 rounds, 32 bytes). P
is the password of the token; before July 2021 the whole token, before June 2021 the empty text. An empty value is a
lock that the first server held while it started. Inside is JSON, by name, with `Timestamp` and `Content`; until late
2021 the content alone. Source: k3s-io/k3s pkg/cluster/encrypt.go, storage.go, pkg/bootstrap, pkg/clientaccess/token.go;
docs/formats/containers.md, "k3s and RKE2".
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from snaptool.errors import InputError, ProviderError
from snaptool.providers.config.model import ConfigEntry, EncryptionConfig, LocalConfig
from snaptool.providers.provider import Entropy, Kind

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_ROUNDS, _KEY_SIZE, _NONCE_SIZE, _TAG_SIZE = 4096, 32, 12, 16
_SALT_BYTES = 8
_HASH_DIGITS = 64
CONFIG, STATE = "EncryptionConfig", "EncryptionHash"
STAGES = ("start", "prepare", "rotate", "reencrypt_request", "reencrypt_active", "reencrypt_finished")


class TokenFormat(InputError):
    """A text is not a server token."""

    code = "token_format"

    def __init__(self) -> None:
        super().__init__(
            "this is not a server token of k3s or RKE2",
            hint="K10<hash>::<user>:<password>, as in server/token below the data directory, or the password alone",
        )


class TokenProblem(InputError):
    """A token is for none of the bootstrap records. Only hashes are shown."""

    code = "bootstrap_token"


class BootstrapProblem(ProviderError):
    """A bootstrap record does not open. `code`: bootstrap_locked, _format, _token or _auth."""


def password_of(token: str) -> str:
    """Return the password of a token, as k3s normalises it. Raises TokenFormat."""
    if not token:
        raise TokenFormat
    if not token.startswith("K10"):
        if _is_bootstrap_token(token):
            raise TokenFormat
        return token
    digest, colons, credentials = token[3:].partition("::")
    if not colons:
        digest, credentials = "", digest
    _, colon, password = credentials.partition(":")
    if len(digest) not in {0, _HASH_DIGITS} or _is_bootstrap_token(credentials) or not colon or not password:
        raise TokenFormat
    return password


def _is_bootstrap_token(text: str) -> bool:
    return re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", text) is not None


def passphrases(token: str | None) -> tuple[str, ...]:
    """Return the passphrases that a token may have sealed with, newest way first; without one the empty text alone."""
    return ("",) if token is None else tuple(dict.fromkeys((password_of(token), token, "")))


def storage_key(passphrase: str) -> bytes:
    """Return the etcd key of what a passphrase seals."""
    return b"/bootstrap/" + hashlib.sha256(passphrase.encode()).hexdigest()[:12].encode()


def _cipher(passphrase: str, salt: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - who opens no value does not wait for it

    # SHA-1 within HMAC is what k3s uses; nothing here rests on collisions.
    return AESGCM(hashlib.pbkdf2_hmac("sha1", passphrase.encode(), salt, _ROUNDS, _KEY_SIZE))


def unseal(value: bytes, passphrase: str | None) -> bytes:
    """Open a stored value. Raises BootstrapProblem, also where there is no passphrase to a value that needs one."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - who opens no value does not wait for it

    salt, sealed = _parts_of(value)
    if passphrase is None:
        raise BootstrapProblem("its token is needed", code="bootstrap_token")
    try:
        return _cipher(passphrase, salt).decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], None)
    except InvalidTag:
        raise BootstrapProblem(
            "the token fits by its hash, but the value does not open: it was altered", code="bootstrap_auth"
        ) from None


def _parts_of(value: bytes) -> tuple[bytes, bytes]:
    """Return salt and ciphertext of a stored value. Raises BootstrapProblem for what holds nothing at all."""
    if not value:
        raise BootstrapProblem(
            "it is empty: a lock that the first server held while it started", code="bootstrap_locked"
        )
    salt, colon, text = value.partition(b":")
    try:
        sealed = base64.b64decode(text.replace(b"\r", b"").replace(b"\n", b""), validate=True)
    except ValueError:
        sealed = b""
    if not colon or len(sealed) < _NONCE_SIZE + _TAG_SIZE:
        raise BootstrapProblem("it is not a salt and base64 of a sealed text", code="bootstrap_format")
    return salt, sealed


def seal(plaintext: bytes, passphrase: str, entropy: Entropy) -> bytes:
    """Seal a text as k3s does; `entropy` is asked for the salt, then for the nonce."""
    salt = entropy(_SALT_BYTES).hex().encode()
    nonce = entropy(_NONCE_SIZE)
    return salt + b":" + base64.b64encode(nonce + _cipher(passphrase, salt).encrypt(nonce, plaintext, None))


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The files of a server. `files` is the parsed JSON; `config` and `state` are None where encryption is off."""

    files: dict[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, plaintext: bytes) -> Bootstrap:
        """Parse what was sealed. Raises BootstrapProblem."""
        try:
            files = json.loads(plaintext)
        except (ValueError, RecursionError):
            files = None
        if not isinstance(files, dict) or not all(_content(file) is not None for file in files.values()):
            raise BootstrapProblem("what it holds is not the JSON of a server's files", code="bootstrap_format")
        return cls(files)

    @property
    def is_old(self) -> bool:
        """Contents without times, as until late 2021."""
        return bool(self.files) and all(isinstance(file, str) for file in self.files.values())

    @property
    def config(self) -> bytes | None:
        """The encryption-config.json; None where there is none or it is empty."""
        return _content(self.files.get(CONFIG)) or None

    @property
    def state(self) -> str | None:
        """The encryption-state.json, `<stage>-<sha256 of the configuration>`."""
        content = _content(self.files.get(STATE))
        return content.decode(errors="replace").strip() if content else None

    @property
    def stage(self) -> str | None:
        """The stage of the state; None where it is none that k3s has."""
        stage = (self.state or "").rpartition("-")[0]
        return stage if stage in STAGES else None

    @property
    def state_fits(self) -> bool:
        """Is the hash in the state that of the configuration?"""
        return self.state is None or self.state.rpartition("-")[2] == hashlib.sha256(self.config or b"").hexdigest()

    @property
    def time(self) -> str | None:
        """The newest time of a file, RFC 3339."""
        times = [file.get("Timestamp") for file in self.files.values() if isinstance(file, dict)]
        return max((time for time in times if isinstance(time, str) and len(time) <= 40), default=None)

    def with_config(self, config: bytes, time: str) -> bytes:
        """Return the JSON with another configuration, and the state that says so; `time`: RFC 3339."""
        state = f"start-{hashlib.sha256(config).hexdigest()}".encode()
        files = dict(self.files)
        for name, content in ((CONFIG, config), (STATE, state)):
            text = base64.b64encode(content).decode()
            files[name] = text if self.is_old else {"Timestamp": time, "Content": text}
        return (json.dumps(files, separators=(",", ":"), ensure_ascii=False, sort_keys=True) + "\n").encode()


def _content(file: Any) -> bytes | None:
    """Return the content of a file; None for what is not a file."""
    if isinstance(file, dict):
        file = file.get("Content")
    if file is None:
        return b""
    if not isinstance(file, str):
        return None
    try:
        return base64.b64decode(file, validate=True)
    except ValueError:
        return None


def configuration_json(config: EncryptionConfig) -> bytes:
    """Write a configuration as k3s keeps it: one line of JSON, which it reads with Go's JSON alone.

    Raises InputError for what k3s' own commands refuse: other providers than aescbc, secretbox and identity, more than
    one element, more than three providers.
    """
    local = [provider for entry in config.entries for provider in entry.providers if isinstance(provider, LocalConfig)]
    providers = [provider for entry in config.entries for provider in entry.providers]
    if (
        len(config.entries) != 1
        or len(local) != len(providers)
        or len(local) > 3
        or any(provider.kind is Kind.AESGCM for provider in local)
    ):
        raise InputError(
            f"{config.name}: k3s and RKE2 take one entry of at most three providers, which are aescbc, secretbox or "
            "identity",
            hint="write such a configuration; `snaptool config new --keep OLD` keeps the form of the old one",
            code="embedded_unsupported",
        )
    return _json(config.entries[0])


def disabled_configuration(resources: tuple[str, ...], secret: bytes) -> bytes:
    """Write the configuration of a server whose encryption is off but can be turned on: identity, then a fresh key."""
    key = {"aescbc": {"keys": [{"name": "aescbckey", "secret": base64.b64encode(secret).decode()}]}}
    return _document(list(resources), [{"identity": {}}, key])


def _json(entry: ConfigEntry) -> bytes:
    providers: list[dict[str, Any]] = []
    for provider in entry.providers:
        assert isinstance(provider, LocalConfig)
        keys = [{"name": key.name, "secret": base64.b64encode(key.secret).decode()} for key in provider.keys]
        providers.append({provider.kind.value: {"keys": keys} if keys else {}})
    return _document(list(entry.resources), providers)


def _document(resources: list[str], providers: list[dict[str, Any]]) -> bytes:
    document = {
        "kind": "EncryptionConfiguration",
        "apiVersion": "apiserver.config.k8s.io/v1",
        "resources": [{"resources": resources, "providers": providers}],
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
