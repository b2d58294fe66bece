"""Doubles of Cloud KMS and of Key Vault: versions, states, checksums, permissions, as the clouds' own clients see them.

They are judged by Google's and Microsoft's clients, which accept their answers. What they do not have is IAM and Entra
ID. Sources: Cloud KMS and Key Vault REST references.
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import os
import ssl
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from crc32c import crc32c
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import NameOID

from tests.clouds.between import Asked, Between, Reply

# -- Google

GOOGLE_KEY = "projects/p/locations/europe-west3/keyRings/etcd/cryptoKeys/kek"


class CloudKms(Between):
    """Cloud KMS with one key. `states`: of its versions, from 1; the last one is the primary."""

    def __init__(self) -> None:
        self.states = ["ENABLED"]
        self._keys = [os.urandom(32)]
        super().__init__()

    def rotate(self) -> None:
        self.states.append("ENABLED")
        self._keys.append(os.urandom(32))

    def answer(self, asked: Asked) -> Reply:
        path = urlsplit(asked.path).path
        key, _, verb = path.removeprefix("/v1/").rpartition(":")
        if key.partition("/cryptoKeyVersions/")[0] != GOOGLE_KEY or verb not in {"encrypt", "decrypt"}:
            return self._error(404, "NOT_FOUND", f"CryptoKey {key} not found.")
        return self._encrypt(asked.body) if verb == "encrypt" else self._decrypt(asked.body)

    def _encrypt(self, body: dict[str, Any]) -> Reply:
        plaintext = base64.b64decode(body["plaintext"])
        version = len(self._keys)
        if self.states[-1] != "ENABLED":
            return self._not_enabled(version)
        nonce = os.urandom(12)
        sealed = bytes([0, version]) + nonce + AESGCM(self._keys[-1]).encrypt(nonce, plaintext, None)
        return Reply.of(
            200,
            {
                "name": f"{GOOGLE_KEY}/cryptoKeyVersions/{version}",
                "ciphertext": base64.b64encode(sealed).decode(),
                "ciphertextCrc32c": str(crc32c(sealed)),
                "verifiedPlaintextCrc32c": "plaintextCrc32c" in body,
                "protectionLevel": "SOFTWARE",
            },
        )

    def _decrypt(self, body: dict[str, Any]) -> Reply:
        sealed = base64.b64decode(body["ciphertext"])
        version = sealed[1] if len(sealed) > 30 and sealed[1] <= len(self._keys) else 0
        key = self._keys[version - 1] if version else bytes(32)
        try:
            plaintext = AESGCM(key).decrypt(sealed[2:14], sealed[14:], None)
        except InvalidTag:
            text = "Decryption failed: verify that 'name' refers to the correct CryptoKey."
            return self._error(400, "INVALID_ARGUMENT", text)
        if self.states[version - 1] != "ENABLED":
            return self._not_enabled(version)
        return Reply.of(
            200,
            {
                "plaintext": base64.b64encode(plaintext).decode(),
                "plaintextCrc32c": str(crc32c(plaintext)),
                "usedPrimary": version == len(self._keys),
                "protectionLevel": "SOFTWARE",
            },
        )

    def _not_enabled(self, version: int) -> Reply:
        name, state = f"{GOOGLE_KEY}/cryptoKeyVersions/{version}", self.states[version - 1]
        details = [
            {
                "@type": "type.googleapis.com/google.rpc.PreconditionFailure",
                "violations": [{"type": f"KEY_{state}", "subject": name}],
            }
        ]
        return self._error(400, "FAILED_PRECONDITION", f"{name} is not enabled, current state is: {state}.", details)

    def _error(self, code: int, status: str, message: str, details: list[Any] | None = None) -> Reply:
        body = {"code": code, "message": message, "status": status, "details": details or []}
        return Reply.of(code, {"error": body})


# -- Azure


class KeyVault(Between):
    """Key Vault with one key `kek`. `keys`: version to private key; `disabled`, `forbidden`: versions, and verbs."""

    def __init__(self, keys: dict[str, rsa.RSAPrivateKey], folder: Path) -> None:
        self.keys = keys
        self.disabled: set[str] = set()
        self.forbidden: set[str] = set()
        super().__init__()
        self.authority = folder / "authority.pem"
        self.secure(_certified(self.authority))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def where(self) -> str:
        return f"{self.url}/keys/kek"

    def answer(self, asked: Asked) -> Reply:
        if not asked.headers.get("Authorization", "").startswith("Bearer "):
            challenge = f'Bearer authorization="{self.url}/tenant", resource="https://vault.azure.net"'
            return Reply.of(401, {"error": {"code": "Unauthorized", "message": ""}}, WWW_Authenticate=challenge)
        _, name, *rest = urlsplit(asked.path).path.strip("/").split("/")
        version = rest[0] if rest else ""
        verb = rest[1] if len(rest) > 1 else "list" if version == "versions" else "get"
        if verb in self.forbidden:
            return self._error(403, "Forbidden", "ForbiddenByRbac", f"Caller may not {verb}")
        if verb == "list":
            listed = [{"kid": f"{self.url}/keys/{name}/{one}", "attributes": self._of(one)} for one in self.keys]
            return Reply.of(200, {"value": listed, "nextLink": None})
        if version not in self.keys or name != "kek":
            return self._error(404, "KeyNotFound", "", f"A key with (name/id) {name}/{version} was not found")
        if verb == "get":
            return Reply.of(200, {"key": self._public(version), "attributes": self._of(version)})
        if version in self.disabled:
            return self._error(403, "Forbidden", "KeyDisabled", f"Operation {verb} is not allowed on a disabled key.")
        return self._operate(verb, version, asked.body)

    def _operate(self, verb: str, version: str, body: dict[str, Any]) -> Reply:
        value = base64.urlsafe_b64decode(body["value"] + "==")
        scheme: padding.AsymmetricPadding = padding.PKCS1v15()
        if body["alg"] == "RSA-OAEP-256":
            scheme = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        try:
            if verb == "decrypt":
                result = self.keys[version].decrypt(value, scheme)
            else:
                result = self.keys[version].public_key().encrypt(value, scheme)
        except ValueError:
            return self._error(400, "BadParameter", "", "The parameter is incorrect.\r\n")
        text = base64.urlsafe_b64encode(result).decode().rstrip("=")
        return Reply.of(200, {"kid": f"{self.url}/keys/kek/{version}", "value": text})

    def _of(self, version: str) -> dict[str, Any]:
        created = 1700000000 + list(self.keys).index(version)
        return {"enabled": version not in self.disabled, "created": created, "updated": created}

    def _public(self, version: str) -> dict[str, Any]:
        numbers = self.keys[version].public_key().public_numbers()
        coded = {
            name: base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8)).decode().rstrip("=")
            for name, value in (("n", numbers.n), ("e", numbers.e))
        }
        operations = ["encrypt", "decrypt"]
        return {"kid": f"{self.url}/keys/kek/{version}", "kty": "RSA", "key_ops": operations, **coded}

    def _error(self, status: int, code: str, inner: str, message: str) -> Reply:
        error: dict[str, Any] = {"code": code, "message": message}
        if inner:
            error["innererror"] = {"code": inner}
        return Reply.of(status, {"error": error})


def _certified(authority: Path) -> ssl.SSLContext:
    """A certificate for 127.0.0.1 that signs itself; its PEM goes to `authority`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a vault of the tests")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        file.flush()
        context.load_cert_chain(authority, file.name)
    return context


def private_key_of(jwk: dict[str, str]) -> rsa.RSAPrivateKey:
    """The private key of a JWK."""

    def number(name: str) -> int:
        return int.from_bytes(base64.urlsafe_b64decode(jwk[name] + "=="))

    public = rsa.RSAPublicNumbers(number("e"), number("n"))
    return rsa.RSAPrivateNumbers(
        number("p"), number("q"), number("d"), number("dp"), number("dq"), number("qi"), public
    ).private_key()


def read_jwk(path: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(path.read_text())["azure"]["test_only_rsa_jwk"]
    return found
