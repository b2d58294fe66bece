"""Kubernetes objects as an API server stores them, for the samples: protobuf, and JSON for custom resources.

Encoded by hand from the field numbers of k8s.io/api's generated.proto files, strings that are empty included, because
that is what the generated Go code writes. Everything is derived from names, so that every run makes the same bytes.
Names, tokens, certificates and keys are invented and worth nothing.
"""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import hashlib
import json
import uuid
from collections.abc import Mapping

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from snaptool.wire import encode_field

EPOCH = 1_767_225_600  # 2026-01-01T00:00:00Z: when the invented clusters were made


def derived(purpose: str, size: int) -> bytes:
    """Reproducible bytes that look random."""
    return hashlib.shake_256(b"snaptool sample: " + purpose.encode()).digest(size)


def _text(number: int, value: str) -> bytes:
    return encode_field(number, value.encode())


def _map(number: int, entries: Mapping[str, bytes]) -> bytes:
    return b"".join(
        encode_field(number, _text(1, key) + encode_field(2, value)) for key, value in sorted(entries.items())
    )


def _time(seconds: int) -> bytes:
    return encode_field(1, seconds) + encode_field(2, 0)


def _metadata(namespace: str, name: str, *, manager: str, annotations: Mapping[str, str] | None = None) -> bytes:
    uid = str(uuid.UUID(bytes=derived(f"uid {namespace}/{name} {manager}", 16), version=4))
    created = EPOCH + int.from_bytes(derived(f"created {namespace}/{name}", 2))
    labels = {"app.kubernetes.io/name": name.encode(), "kubernetes.io/metadata.name": (namespace or name).encode()}
    fields = json.dumps({"f:data": {".": {}}, "f:type": {}}, separators=(",", ":"))
    managed = (
        _text(1, manager)
        + _text(2, "Update")
        + _text(3, "v1")
        + encode_field(4, _time(created))
        + _text(6, "FieldsV1")
        + encode_field(7, _text(1, fields))
        + _text(8, "")
    )
    return (
        _text(1, name)
        + _text(2, "")
        + _text(3, namespace)
        + _text(4, "")
        + _text(5, uid)
        + _text(6, "")
        + encode_field(7, 0)
        + encode_field(8, _time(created))
        + _map(11, labels)
        + _map(12, {key: value.encode() for key, value in (annotations or {}).items()})
        + encode_field(17, managed)
    )


def _stored(api_version: str, kind: str, message: bytes) -> bytes:
    type_meta = _text(1, api_version) + _text(2, kind)
    return b"k8s\0" + encode_field(1, type_meta) + encode_field(2, message) + _text(3, "") + _text(4, "")


def namespace(name: str) -> bytes:
    """An active namespace."""
    message = encode_field(1, _metadata("", name, manager="kube-apiserver"))
    message += encode_field(2, _text(1, "kubernetes")) + encode_field(3, _text(1, "Active"))
    return _stored("v1", "Namespace", message)


def config_map(namespace: str, name: str, data: Mapping[str, str]) -> bytes:
    """A ConfigMap."""
    message = encode_field(1, _metadata(namespace, name, manager="kubectl-client-side-apply"))
    return _stored("v1", "ConfigMap", message + _map(2, {key: value.encode() for key, value in data.items()}))


def secret(namespace: str, name: str, data: Mapping[str, bytes], secret_type: str = "Opaque") -> bytes:  # noqa: S107 - a type
    """A Secret."""
    message = encode_field(1, _metadata(namespace, name, manager="kubectl-create"))
    return _stored("v1", "Secret", message + _map(2, data) + _text(3, secret_type))


def service_account_token(namespace: str, account: str) -> bytes:
    """A Secret with a long-lived token of a ServiceAccount; the token is shaped like a JWT and signs nothing."""
    claims = {"iss": "kubernetes/serviceaccount", "sub": f"system:serviceaccount:{namespace}:{account}"}
    parts = [json.dumps({"alg": "RS256", "kid": "sample"}).encode(), json.dumps(claims).encode()]
    parts.append(derived(f"token {namespace}/{account}", 256))
    token = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    data = {"ca.crt": certificate("kubernetes-ca")[0], "namespace": namespace.encode(), "token": token}
    return secret(namespace, f"{account}-token", data, "kubernetes.io/service-account-token")


def tls_secret(namespace: str, name: str, host: str) -> bytes:
    """A Secret with a self-signed certificate and its key."""
    crt, key = certificate(host)
    return secret(namespace, name, {"tls.crt": crt, "tls.key": key}, "kubernetes.io/tls")


def helm_release(namespace: str, name: str, revision: int) -> bytes:
    """A Secret with a Helm release: base64 of gzip of JSON, as Helm 3 stores it."""
    templates = [
        {"name": f"templates/{part}.yaml", "data": base64.b64encode(derived(f"{name} {part}", 600)).decode()}
        for part in ("deployment", "service", "ingress")
    ]
    release = {"name": name, "version": revision, "namespace": namespace, "chart": {"templates": templates}}
    packed = base64.b64encode(gzip.compress(json.dumps(release).encode(), mtime=0))
    full_name = f"sh.helm.release.v1.{name}.v{revision}"
    return secret(namespace, full_name, {"release": packed}, "helm.sh/release.v1")


def bootstrap_token(token_id: str) -> bytes:
    """A Secret that lets a node join; kubeadm makes these."""
    data = {
        "token-id": token_id.encode(),
        "token-secret": derived(f"bootstrap {token_id}", 8).hex().encode(),
        "usage-bootstrap-authentication": b"true",
        "usage-bootstrap-signing": b"true",
        "expiration": b"2026-01-02T00:00:00Z",
    }
    return secret("kube-system", f"bootstrap-token-{token_id}", data, "bootstrap.kubernetes.io/token")


def pod(namespace: str, name: str, image: str) -> bytes:
    """A running Pod of one container."""
    container = _text(1, "main") + _text(2, image) + _text(5, "") + _text(13, "/dev/termination-log")
    spec = encode_field(2, container) + _text(3, "Always") + _text(6, "ClusterFirst") + _text(10, "node-1")
    status = _text(1, "Running") + _text(6, "10.244.0." + str(derived(name, 1)[0]))
    message = encode_field(1, _metadata(namespace, name, manager="kubelet"))
    return _stored("v1", "Pod", message + encode_field(2, spec) + encode_field(3, status))


def event(namespace: str, name: str, reason: str) -> bytes:
    """An Event, which API servers store under an etcd lease of an hour."""
    involved = _text(1, "Pod") + _text(2, namespace) + _text(3, name)
    message = encode_field(1, _metadata(namespace, name, manager="kubelet")) + encode_field(2, involved)
    return _stored("v1", "Event", message + _text(3, reason) + _text(4, f"{reason} for pod {name}"))


def coordination_lease(namespace: str, name: str, holder: str, renewals: int) -> bytes:
    """A Lease of coordination.k8s.io: an object like others, and no etcd lease."""
    spec = (
        _text(1, holder)
        + encode_field(2, 15)
        + encode_field(4, _time(EPOCH + 10 * renewals))
        + encode_field(5, renewals)
    )
    message = encode_field(1, _metadata(namespace, name, manager="kube-controller-manager")) + encode_field(2, spec)
    return _stored("coordination.k8s.io/v1", "Lease", message)


def endpoints(address: str) -> bytes:
    """An API server's own Endpoints below `masterleases`, under an etcd lease of 15 seconds."""
    subset = encode_field(1, _text(1, address))
    message = encode_field(1, _metadata("", "", manager="kube-apiserver")) + encode_field(2, subset)
    return _stored("v1", "Endpoints", message)


def custom_resource(namespace: str, name: str, spec: Mapping[str, object]) -> bytes:
    """A custom resource: stored as JSON, with the newline that the encoder leaves."""
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": str(uuid.UUID(bytes=derived(f"uid {name}", 16), version=4)),
    }
    body = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": metadata, "spec": spec}
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


def certificate(host: str) -> tuple[bytes, bytes]:
    """A self-signed certificate and its key, PEM. Ed25519, since its signatures are the same in every run."""
    key = Ed25519PrivateKey.from_private_bytes(derived(f"key of {host}", 32))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    start = dt.datetime.fromtimestamp(EPOCH, dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(derived(f"serial of {host}", 8)) | 1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=3650))
    )
    pem = builder.sign(key, None).public_bytes(Encoding.PEM)
    return pem, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
