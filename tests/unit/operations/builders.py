"""Keyrings for the tests of operations, and values sealed by the bare libraries."""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7

from snaptool.kube.objects import plausible
from snaptool.providers.config.rules import parse_config
from snaptool.providers.keyring import Keyring

SAMPLES = Path(__file__).parents[3] / "samples"
OBJECT = b'{"apiVersion":"v1","kind":"Secret","metadata":{"name":"n"},"text":"%s"}\n'


def sample_keyring(*names: str) -> Keyring:
    """The keyring of configurations among the samples."""
    return Keyring([parse_config((SAMPLES / name).read_bytes(), name=name) for name in names], plausible=plausible)


def keyring(provider: str, *keys: tuple[str, bytes], resource: str = "secrets") -> Keyring:
    """A keyring with one provider for one resource, and identity behind it."""
    listed = ", ".join(f"{{name: '{name}', secret: {base64.b64encode(secret).decode()}}}" for name, secret in keys)
    text = f"""\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [{resource}]
  providers:
  - {provider}: {{keys: [{listed}]}}
  - identity: {{}}
"""
    return Keyring([parse_config(text.encode(), name="test")], plausible=plausible)


def seal_gcm(name: str, secret: bytes, plaintext: bytes, context: bytes, nonce: bytes = bytes(12)) -> bytes:
    """Seal with AES-GCM as kube-apiserver does."""
    return f"k8s:enc:aesgcm:v1:{name}:".encode() + nonce + AESGCM(secret).encrypt(nonce, plaintext, context)


def seal_cbc(name: str, secret: bytes, plaintext: bytes, iv: bytes = bytes(16)) -> bytes:
    """Seal with AES-CBC as kube-apiserver does."""
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(secret), modes.CBC(iv)).encryptor()
    padded = padder.update(plaintext) + padder.finalize()
    return f"k8s:enc:aescbc:v1:{name}:".encode() + iv + encryptor.update(padded)
