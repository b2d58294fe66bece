"""What openbao-kubernetes-kms binds a wrapped key to: its key id, its annotations and the associated data.

Nothing of it is secret: names that the operator knows, and hashes of them. A wrong name makes other associated data,
and the key does not open. Source: docs/clouds.md; dc-tec/openbao-kubernetes-kms internal/aad/aad.go and
internal/keyregistry/keyregistry.go.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from snaptool.providers.direct.said import BadDirect, DirectKms

_DOMAIN = ".kms.openbao.org"
_PROVIDER = "openbao-transit"
_PLUGIN_VERSION = "v0.1.0"
_FORMAT = "v1"


def hashed(text: str) -> str:
    """Return the unpadded base64url of SHA-256: 43 characters."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Identity:
    """The names of a plugin's configuration. `namespace`, `mount_id`, `lineage_id`: empty where only reading."""

    provider_name: str
    cluster_id: str
    instance_id: str
    mount_id: str = ""
    lineage_id: str = ""
    namespace: str = ""

    @classmethod
    def of(cls, direct: DirectKms) -> Identity:
        """Take the names from what the user said."""
        return cls(
            provider_name=direct.option("provider_name", direct.name),
            cluster_id=direct.option("cluster_id"),
            instance_id=direct.option("instance_id"),
            mount_id=direct.option("mount_id"),
            lineage_id=direct.option("lineage_id"),
            namespace=direct.option("namespace"),
        )

    def require_writing(self) -> None:
        """Refuse to write without the names that only the plugin's configuration has. Raises BadDirect."""
        if not (self.mount_id and self.lineage_id):
            raise BadDirect(
                "plugin=openbao needs mount_id and lineage_id to write",
                hint="they are transit_mount_id and transit_key_lineage_id in the configuration of the plugin",
            )

    def key_id(self, version: int, created: int) -> str:
        """Return the key id of a version of the key, made at `created` (Unix seconds)."""
        parts = ["openbao-kubernetes-kms/key-id/v1", self.provider_name, self.cluster_id, self.instance_id]
        parts += [self.namespace] if self.namespace else []
        parts += [self.mount_id, self.lineage_id, str(version), str(created)]
        return "obk2." + hashed("".join(f"{part}\0" for part in parts))

    def annotations(self, key_id: str, version: int) -> dict[str, bytes]:
        """Return the annotations of a key that this version wraps."""
        found = {
            "provider": _PROVIDER,
            "key-id-hash": hashed(key_id),
            "transit-key-version": str(version),
            "transit-mount-hash": hashed(self.mount_id),
            "transit-key-hash": hashed(self.lineage_id),
            "plugin-version": _PLUGIN_VERSION,
            "aad-version": _FORMAT,
        } | ({"openbao-namespace-hash": hashed(self.namespace)} if self.namespace else {})
        return {f"{name}{_DOMAIN}": value.encode() for name, value in found.items()}

    def associated_data(self, annotations: Mapping[str, bytes]) -> bytes:
        """Return what the key was bound to: JSON, of our names and the stored annotations."""

        def stored(name: str) -> str:
            return annotations.get(f"{name}{_DOMAIN}", b"").decode(errors="replace")

        namespace = stored("openbao-namespace-hash")
        members = {
            "aad_version": _FORMAT,
            "purpose": "kubernetes-etcd-kms-v2",
            "provider": _PROVIDER,
            "provider_name": self.provider_name,
            "cluster_id_hash": hashed(self.cluster_id),
            "openbao_instance_hash": hashed(self.instance_id),
            **({"openbao_namespace_hash": namespace} if namespace else {}),
            "transit_mount_hash": stored("transit-mount-hash"),
            "transit_key_hash": stored("transit-key-hash"),
            "key_id_hash": stored("key-id-hash"),
            "key_version": stored("transit-key-version"),
        }
        return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()


def is_supported(annotations: Mapping[str, bytes]) -> bool:
    """Is this the form of associated data that is known here?"""
    return annotations.get(f"aad-version{_DOMAIN}", b"") == _FORMAT.encode()
