"""TEST ONLY: how the KMS plugins people run wrap a key, rebuilt around keys that are worthless.

Each `Wrapper` gives the bytes, key ids, annotations and error texts that one plugin is known for, without its cloud.
The functions between them are the transformations of docs/formats/kms.md, "Plugins"; the vectors of kms.json hold them
to it. Source: docs/formats/kms.md, "Plugins".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ANNOTATION = "version.testkms.snaptool.example"
GOLDEN = Path(__file__).parent.parent / "golden" / "kms.json"


class Refusal(Exception):
    """The plugin says no: a gRPC status code by name, and a text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True)
class Wrapped:
    ciphertext: bytes
    key_id: str = ""
    annotations: dict[str, bytes] = field(default_factory=dict)


class Wrapper(Protocol):
    """One plugin's way of wrapping."""

    runtime_name: str
    status_version: str

    def status(self) -> tuple[str, str]:
        """Return healthz and key_id."""

    def wrap(self, api: str, plaintext: bytes) -> Wrapped: ...

    def unwrap(self, api: str, wrapped: Wrapped) -> bytes: ...

    def rotate(self, key_id: str) -> None:
        """Make another key the current one."""

    def remove(self, key_id: str) -> None:
        """Forget a key."""


def seal(key: bytes, plaintext: bytes, context: bytes) -> bytes:
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, context)


def unseal(key: bytes, sealed: bytes, context: bytes, refusal: Refusal) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:12], sealed[12:], context)
    except (InvalidTag, ValueError) as error:
        raise refusal from error


class Local:
    """The plugin of docs/formats/kms.md, "The protocol": named AES-256 keys; ids stay decryptable until they are
    removed."""

    runtime_name = "snaptool-testkms"
    status_version = "v2"

    def __init__(self, keks: dict[str, bytes], current: str) -> None:
        self.keks = dict(keks)
        self.current = current

    def status(self) -> tuple[str, str]:
        return "ok", self.current

    def wrap(self, api: str, plaintext: bytes) -> Wrapped:
        key_id = self.current
        blob = b"\x01" + seal(self.keks[key_id], plaintext, key_id.encode())
        if api == "v1":
            return Wrapped(key_id.encode() + b"|" + blob)
        return Wrapped(blob, key_id, {ANNOTATION: b"1"})

    def unwrap(self, api: str, wrapped: Wrapped) -> bytes:
        key_id, blob = wrapped.key_id, wrapped.ciphertext
        if api == "v1":
            head, bar, blob = wrapped.ciphertext.partition(b"|")
            if not bar:
                raise Refusal("INVALID_ARGUMENT", "cipher: no key id")
            key_id = head.decode(errors="replace")
        elif wrapped.annotations != {ANNOTATION: b"1"}:
            raise Refusal("INVALID_ARGUMENT", "invalid annotations")
        if key_id not in self.keks:
            raise Refusal("NOT_FOUND", "key id is not known to this plugin")
        refusal = Refusal("INVALID_ARGUMENT", "message authentication failed")
        if blob[:1] != b"\x01":
            raise refusal
        return unseal(self.keks[key_id], blob[1:], key_id.encode(), refusal)

    def rotate(self, key_id: str) -> None:
        self.keks.setdefault(key_id, hashlib.sha256(b"TEST ONLY " + key_id.encode()).digest())
        self.current = key_id

    def remove(self, key_id: str) -> None:
        del self.keks[key_id]


def aws_blob(api: str, plugin_bytes: bytes) -> bytes:
    """Return the CiphertextBlob in the plugin's bytes: v2 demands the version byte, v1 takes one off."""
    if not plugin_bytes:
        raise Refusal("UNKNOWN", "refuse: empty ciphertext")
    if plugin_bytes[0] == 0x31:
        return plugin_bytes[1:]
    if api == "v1":
        return plugin_bytes
    raise Refusal("UNKNOWN", f"refuse: version byte 0x{plugin_bytes[0]:02x} is not 0x31")


def aws_encryption_context(flag: str) -> dict[str, str]:
    """Read the plugin's --encryption-context: CSV of k=v, brackets around it allowed."""
    import csv

    text = flag.removeprefix("[").removesuffix("]")
    context = {}
    for entry in next(csv.reader([text]), []):
        name, equals, value = entry.partition("=")
        if not equals:
            raise ValueError("must be key=value")
        context[name] = value
    return context


class Aws:
    """kubernetes-sigs/aws-encryption-provider: `1` and a blob that names its key; the context is stored nowhere."""

    runtime_name = "AWSKMS"
    status_version = "v2beta1"

    def __init__(self, current: str = "arn:aws:kms:us-east-1:123456789012:key/1111", context: str = "") -> None:
        self.current = current
        self.context = json.dumps(aws_encryption_context(context), sort_keys=True).encode()
        self.removed: set[str] = set()

    @staticmethod
    def _key(name: str) -> bytes:
        return hashlib.sha256(b"TEST ONLY aws " + name.encode()).digest()

    def status(self) -> tuple[str, str]:
        return "ok", self.current

    def wrap(self, api: str, plaintext: bytes) -> Wrapped:
        name = self.current.encode()
        blob = b"\x01\x02\x02\x00\x78" + bytes([len(name)]) + name
        blob += seal(self._key(self.current), plaintext, self.context)
        return Wrapped(b"1" + blob, self.current if api == "v2" else "")

    def unwrap(self, api: str, wrapped: Wrapped) -> bytes:
        blob = aws_blob(api, wrapped.ciphertext)
        invalid = Refusal("UNKNOWN", "failed to decrypt InvalidCiphertextException: ")
        if blob[:5] != b"\x01\x02\x02\x00\x78" or len(blob) < 6:
            raise invalid
        name = blob[6 : 6 + blob[5]].decode(errors="replace")
        if name in self.removed:
            raise Refusal("UNKNOWN", f"failed to decrypt DisabledException: {name} is disabled.")
        return unseal(self._key(name), blob[6 + blob[5] :], self.context, invalid)

    def rotate(self, key_id: str) -> None:
        self.current = key_id

    def remove(self, key_id: str) -> None:
        self.removed.add(key_id)


_CRYPTO_KEY = re.compile(
    r"(projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/:]+)(/cryptoKeyVersions/[^:]*)?(:.*)?"
)


def gcp_crypto_key(key_id: str) -> str | None:
    """Return the crypto key that a stored key id belongs to, None if it is not one."""
    found = _CRYPTO_KEY.fullmatch(key_id)
    return found.group(1) if found else None


class Gcp:
    """GoogleCloudPlatform/k8s-cloudkms-plugin: raw ciphertext, key versions; Status reports what it knew before."""

    runtime_name = "CloudKMS"
    status_version = "v2beta1"

    def __init__(self, key_uri: str = "projects/p/locations/global/keyRings/r/cryptoKeys/k", suffix: str = "") -> None:
        self.key_uri = key_uri
        self.suffix = f":{suffix}" if suffix else ""
        self.version = "1"
        self.known = key_uri
        self.disabled: set[str] = set()

    def _key(self, version: str) -> bytes:
        return hashlib.sha256(f"TEST ONLY gcp {self.key_uri} {version}".encode()).digest()

    def _seal(self, plaintext: bytes) -> bytes:
        self.known = f"{self.key_uri}/cryptoKeyVersions/{self.version}{self.suffix}"
        version = self.version.encode()
        return b"\x0a\x24\x00" + bytes([len(version)]) + version + seal(self._key(self.version), plaintext, b"")

    def status(self) -> tuple[str, str]:
        before = self.known
        self._seal(b"ping")
        return "ok", before

    def wrap(self, api: str, plaintext: bytes) -> Wrapped:
        sealed = self._seal(plaintext)
        return Wrapped(sealed, self.known if api == "v2" else "")

    def unwrap(self, api: str, wrapped: Wrapped) -> bytes:
        if api == "v2" and gcp_crypto_key(wrapped.key_id or self.key_uri) is None:
            raise Refusal("UNKNOWN", "googleapi: Error 404: Not Found, notFound")
        failed = Refusal("UNKNOWN", "googleapi: Error 400: Decryption failed: the ciphertext is invalid., badRequest")
        blob = wrapped.ciphertext
        if blob[:3] != b"\x0a\x24\x00" or len(blob) < 4:
            raise failed
        version = blob[4 : 4 + blob[3]].decode(errors="replace")
        if version in self.disabled:
            name = f"{self.key_uri}/cryptoKeyVersions/{version}"
            text = f"googleapi: Error 400: {name} is not enabled, current state is: DISABLED., failedPrecondition"
            raise Refusal("UNKNOWN", text)
        return unseal(self._key(version), blob[4 + blob[3] :], b"", failed)

    def rotate(self, key_id: str) -> None:
        self.version = key_id

    def remove(self, key_id: str) -> None:
        self.disabled.add(key_id)


def azure_key_id(vault_url: str, key_name: str, key_version: str) -> str:
    """Return the plugin's key id: SHA-256 of the key's URL."""
    url = f"{vault_url.rstrip('/')}/keys/{key_name}/{key_version}"
    return hashlib.sha256(url.encode()).hexdigest()


def azure_private_key(jwk: dict[str, str]) -> rsa.RSAPrivateKey:
    numbers = {
        name: int.from_bytes(_unpadded(jwk[name].encode()), "big")
        for name in ("n", "e", "d", "p", "q", "dp", "dq", "qi")
    }
    public = rsa.RSAPublicNumbers(numbers["e"], numbers["n"])
    return rsa.RSAPrivateNumbers(
        numbers["p"], numbers["q"], numbers["d"], numbers["dp"], numbers["dq"], numbers["qi"], public
    ).private_key()


def _unpadded(text: bytes) -> bytes:
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def azure_padding(algorithm: str) -> padding.AsymmetricPadding:
    if algorithm == "RSA1_5":
        return padding.PKCS1v15()
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def azure_block(plugin_bytes: bytes) -> tuple[bytes, str]:
    """Sniff: return the RSA block, and `upstream` for base64url text of one or `openshift` for a raw one."""
    if re.fullmatch(rb"[A-Za-z0-9_-]+", plugin_bytes):
        try:
            block = _unpadded(plugin_bytes)
        except binascii.Error:
            block = b""
        if len(block) in (256, 384, 512):
            return block, "upstream"
    if len(plugin_bytes) in (256, 384, 512):
        return plugin_bytes, "openshift"
    raise Refusal("UNKNOWN", "StatusCode=400 BadParameter")


def azure_unwrap(key: rsa.RSAPrivateKey, plugin_bytes: bytes, algorithm: str) -> bytes:
    """Unwrap either variant: 32 bytes are the key, 43 characters of base64url are decoded once more."""
    block, _ = azure_block(plugin_bytes)
    plaintext = key.decrypt(block, azure_padding(algorithm))
    if len(plaintext) == 43 and re.fullmatch(rb"[A-Za-z0-9_-]+", plaintext):
        return _unpadded(plaintext)
    return plaintext


def azure_check_annotations(annotations: dict[str, bytes]) -> None:
    """Refuse what the plugin refuses before it calls the vault."""
    if not annotations:
        raise Refusal("UNKNOWN", "invalid annotations, annotations cannot be empty")
    version = annotations.get("version.azure.akv.io", b"").decode(errors="replace")
    if version != "1":
        raise Refusal("UNKNOWN", f"version {version} does not match: unsupported envelope version")
    algorithm = annotations.get("algorithm.azure.akv.io", b"").decode(errors="replace")
    if algorithm != "RSA-OAEP-256":
        raise Refusal("UNKNOWN", f"algorithm {algorithm} does not match expected algorithm RSA-OAEP-256")


class Azure:
    """Azure/kubernetes-kms: one key version for each instance, RSA1_5 for v1, RSA-OAEP-256 for v2, as text."""

    runtime_name = "Microsoft AzureKMS"
    status_version = "v2beta1"
    raw = False

    def __init__(self, version: str = "0123456789abcdef0123456789abcdef") -> None:
        vectors: dict[str, Any] = json.loads(GOLDEN.read_text())["azure"]
        self.key = azure_private_key(vectors["test_only_rsa_jwk"])
        self.key_id = azure_key_id("https://testkv.vault.azure.net/", "k8s", version)

    def status(self) -> tuple[str, str]:
        return "ok", self.key_id

    def wrap(self, api: str, plaintext: bytes) -> Wrapped:
        scheme = azure_padding("RSA1_5" if api == "v1" else "RSA-OAEP-256")
        text = base64.urlsafe_b64encode(plaintext).rstrip(b"=")
        block = self.key.public_key().encrypt(text if self.raw else plaintext, scheme)
        ciphertext = block if self.raw else base64.urlsafe_b64encode(block).rstrip(b"=")
        if api == "v1":
            return Wrapped(ciphertext)
        annotations = {"algorithm.azure.akv.io": b"RSA-OAEP-256", "version.azure.akv.io": b"1"}
        if not self.raw:
            annotations |= {
                "date.azure.akv.io": b"Tue, 24 Nov 2026 04:30:13 GMT",
                "x-ms-request-id.azure.akv.io": b"11111111-2222-3333-4444-555555555555",
                "x-ms-keyvault-region.azure.akv.io": b"eastus",
            }
        return Wrapped(ciphertext, self.key_id, annotations)

    def unwrap(self, api: str, wrapped: Wrapped) -> bytes:
        if api == "v2":
            if wrapped.annotations and wrapped.key_id != self.key_id:
                text = f"key id {wrapped.key_id} does not match expected key id {self.key_id} used for encryption"
                raise Refusal("UNKNOWN", text)
            azure_check_annotations(wrapped.annotations)
        try:
            return azure_unwrap(self.key, wrapped.ciphertext, "RSA1_5" if api == "v1" else "RSA-OAEP-256")
        except ValueError as error:
            text = "failed to decrypt, error: keyvault.BaseClient#Decrypt: StatusCode=400 BadParameter"
            raise Refusal("UNKNOWN", text) from error

    def rotate(self, key_id: str) -> None:
        self.key_id = azure_key_id("https://testkv.vault.azure.net/", "k8s", key_id)

    def remove(self, key_id: str) -> None:
        raise Refusal("UNIMPLEMENTED", f"one instance has one key version, there is no {key_id} to remove")


class OpenShift(Azure):
    """openshift/azure-kubernetes-kms 4.19 and later: the raw RSA block of base64url text, two annotations."""

    raw = True


def transit_text(plugin_bytes: bytes, key_name: str = "") -> str:
    """Return the transit ciphertext in what a Vault plugin stored: plain, base64, a line for each provider, renamed."""
    text = plugin_bytes.decode()
    if key_name and text.startswith(f"{key_name}:"):
        return "vault:" + text.removeprefix(f"{key_name}:")
    if text.startswith("vault:v"):
        return text
    lines = dict(line.split(":-:", 1) for line in text.splitlines() if ":-:" in line)
    return base64.b64decode(lines.get("vault", text)).decode()
