"""What a key service is asked, and how it fails. Knows no socket: `kms_grpc` and `direct` speak to services.

Source: docs/formats/kms.md, "Failures".
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from snaptool.errors import KeyServiceError
from snaptool.providers.kms_envelope import WrappedSource
from snaptool.providers.provider import Api, KeyDoesNotFit, Reason


class Category(StrEnum):
    """Why a key service did not deliver: docs/formats/kms.md, "Failures", and five of our own."""

    UNREACHABLE = "unreachable"
    SOCKET_PERMISSION = "socket_permission"
    NOT_A_PLUGIN = "not_a_plugin"
    WRONG_API = "wrong_api"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    """The service is there, and says that it cannot serve now, or ends the connection."""
    KEY_DISABLED = "key_disabled"
    KEY_UNKNOWN = "key_unknown"
    ACCESS_DENIED = "access_denied"
    BAD_CIPHERTEXT = "bad_ciphertext"
    THROTTLED = "throttled"
    UNHEALTHY = "unhealthy"
    BAD_ANSWER = "bad_answer"
    OTHER = "other"
    NOT_ASKED = "not_asked"
    """Given up before this source's turn, because every source before it failed."""


class KmsError(KeyServiceError):
    """A key service did not do what it was asked.

    `detail`: its status code and those of its words that cannot carry a secret.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        category: Category,
        detail: str = "",
        attempts: int = 1,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.provider = provider
        self.category = category
        self.detail = detail
        self.attempts = attempts

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} (tried {self.attempts} times)" if self.attempts > 1 else message


def _restored(kind: type[Exception], args: tuple[object, ...], state: Mapping[str, object]) -> Exception:
    """Rebuild an error in another process: pickle's own way calls `__init__` with the message alone."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class KmsUnreachable(KmsError):
    """No plugin answered in time: no socket, no permission, nothing there that speaks this API."""


class KmsRefused(KmsError):
    """The plugin answered that it does not want to, or cannot, do this."""


class KmsAnsweredWrongly(KmsError):
    """The plugin answered something that must not be used."""


class UnwrapFailed(KeyDoesNotFit):
    """The key of an envelope is not to be had. `category` says why; `failure`: the service's error, if it was asked."""

    def __init__(self, provider: str, category: Category, failure: KmsError | None = None) -> None:
        super().__init__(Reason.KMS_UNWRAP_FAILED, detail=f"KMS provider {provider!r} gave no key: {category}")
        self.provider = provider
        self.category = category
        self.failure = failure

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args, self.__dict__)


def reveals(text: bytes, secret: bytes) -> bool:
    """Does `text` hold `secret` as it is, in hex or in base64 (either alphabet, at any of the three alignments)?

    Backwards too, and whatever stands between hex digits. Asked of what a plugin returns for a fresh key.
    """
    if len(secret) < 8:  # shorter ones turn up by chance
        return False
    digits = re.sub(rb"(?:0x|[^0-9a-f])+", b"", text.lower())
    return any(_reveals(text, digits, one) for one in (secret, secret[::-1]))


def _reveals(text: bytes, digits: bytes, secret: bytes) -> bool:
    if secret in text or secret.hex().encode() in digits:
        return True
    unified = text.translate(bytes.maketrans(b"-_", b"+/"))
    for lead in range(3):
        # What comes before and after decides the first and last characters: leave those out.
        coded = base64.b64encode(bytes(lead) + secret)[(lead * 8 + 5) // 6 :]
        if coded[: len(secret) * 8 // 6 - 1] in unified:
            return True
    return False


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """What a plugin says about itself. `problems`: why kube-apiserver 1.29 and newer would not write through it."""

    version: str
    healthz: str
    key_id: str
    problems: tuple[str, ...] = ()


class KmsService(Protocol):
    """A key service: three questions, and an end. The gRPC client is this, and whatever else unwraps keys.

    All raise KmsError, and KmsError alone, when the service does not deliver; its category decides who asks again and
    when asking ends. Retries of what may pass by itself are the service's own business. Calls may come from several
    threads. Nothing here is believed at once: see `kms_unwrapping`.
    """

    @property
    def provider(self) -> str:
        """The provider's name in the configuration."""

    @property
    def api(self) -> Api:
        """Which KMS API this is."""

    def unwrap(self, source: WrappedSource) -> bytes:
        """Return the key that `source` wraps, unchecked: the caller judges its length and what it opens."""

    def wrap(self, key: bytes) -> WrappedSource:
        """Wrap a fresh key, or seed for v2. The answer is unchecked as well."""

    def status(self) -> ServiceStatus:
        """Ask how the service is. v1 has no such question; there, the protocol version is checked."""

    def close(self) -> None:
        """End outstanding calls and give up the connection. May be called twice."""


@runtime_checkable
class AsksForMany(Protocol):
    """What a KmsService may do besides: ask for many keys in one call, of which `unwrap` then hands each out once."""

    BATCH: int
    """How many at most."""

    def prepare(self, sources: Sequence[WrappedSource]) -> None:
        """Ask ahead. What fails is said by `unwrap`, which asks by itself for what is not here."""
