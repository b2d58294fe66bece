"""What all direct key services share: patience, pace, categories, and what of an error may be shown.

Theory of operation. A kind gives a client and four questions; `DirectService` asks them. The SDKs' own retries are
off: two layers of retries multiply. What an SDK raises becomes a `Failure` by the kind's own table, and a KmsError
here, outside the handler, so that no request body hangs on to it. A service's message is shown, because it names who
may not do what; but first everything that could be a key, a token or a wrapped key is taken out of it.

Source: docs/clouds.md; docs/formats/kms.md, "Failures".
"""

from __future__ import annotations

import abc
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from snaptool import signals
from snaptool.errors import SnaptoolError
from snaptool.providers.direct.said import DirectKms
from snaptool.providers.kms_envelope import SourceType, WrappedSource
from snaptool.providers.kms_pace import RETRIED, Pace, Retry
from snaptool.providers.kms_service import (
    Category,
    KmsAnsweredWrongly,
    KmsError,
    KmsRefused,
    KmsUnreachable,
    ServiceStatus,
    reveals,
)
from snaptool.providers.provider import Api

_Answer = TypeVar("_Answer")
_NO_ANSWER: Final = frozenset({Category.UNREACHABLE, Category.TIMEOUT, Category.UNAVAILABLE})
_LONGEST: Final = 300


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call may take, how fast calls follow each other, and how often one is tried. Seconds."""

    timeout: float
    retry: Retry = field(default_factory=Retry)
    pace: Pace = field(default_factory=Pace)
    sleep: Callable[[float], None] = signals.sleep
    chance: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a service did not deliver. `answered`: it was there and said so; `retry_after`: seconds that it asks for.

    `detail` is shown after what could be a secret is taken out.
    """

    category: Category
    detail: str
    hint: str = ""
    answered: bool = True
    retry_after: float = 0.0


class Refusal(Exception):  # internal: becomes a KmsError in `_ask`
    """A kind's own finding: there is no need to ask, or the answer is of no use."""

    def __init__(self, category: Category, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.failure = Failure(category, detail, hint)


class DirectService(abc.ABC):
    """A key service of a cloud: a KmsService. Safe for threads, not for forks: close it before workers start."""

    def __init__(self, direct: DirectKms, api: Api, patience: Patience) -> None:
        self._direct = direct
        self._api = api
        self._patience = patience
        self._lock = threading.Lock()
        self._client: Any = None
        self._reached = False
        self._closings = 0

    @property
    def provider(self) -> str:
        """The provider's name in the configuration."""
        return self._direct.name

    @property
    def api(self) -> Api:
        """Which KMS API the stored form belongs to."""
        return self._api

    @property
    def direct(self) -> DirectKms:
        """What the user said."""
        return self._direct

    def unwrap(self, source: WrappedSource) -> bytes:
        """Return the key that `source` wraps, as the plugin would. Raises KmsError."""
        return self._ask("decrypt", lambda: self._decrypt(source), source.source)

    def wrap(self, key: bytes) -> WrappedSource:
        """Wrap a key, in the plugin's stored form. Raises KmsError, and BadDirect where no key is named."""
        self._direct.require_key()
        return self._ask("encrypt", lambda: self._encrypt(key), key)

    def status(self) -> ServiceStatus:
        """Ask for the state of the key, and which key id is current. Raises KmsError."""
        key_id = self._ask("status", self._current) if self._direct.writes else ""
        return ServiceStatus("", "", key_id)

    def connect(self) -> None:
        """Make the client: credentials and configuration that are missing are said now. Raises KmsError."""
        self._ask("connect", self._made)

    def close(self) -> None:
        """Give up the connection. The next call opens a new one."""
        with self._lock:
            client, self._client = self._client, None
            self._closings += 1
        if client is not None:
            self._end(client)

    # -- what a kind does

    @abc.abstractmethod
    def _open(self) -> Any:
        """Return a client."""

    @abc.abstractmethod
    def _decrypt(self, source: WrappedSource) -> bytes:
        """Ask for the key of a source. Raises what the SDK raises, and Refusal."""

    @abc.abstractmethod
    def _encrypt(self, key: bytes) -> WrappedSource:
        """Ask for the wrapping of a key. Raises what the SDK raises, and Refusal."""

    @abc.abstractmethod
    def _current(self) -> str:
        """Return the current key id (v2; empty for v1) of a key that is fit for use."""

    @abc.abstractmethod
    def _judge(self, error: Exception) -> Failure:
        """Say what an exception of the SDK means. Its request never becomes part of the detail."""

    def _end(self, client: Any) -> None:
        """Close a client."""
        client.close()

    # -- what all share

    def _made(self) -> Any:
        """Return the client, made when it is first needed."""
        with self._lock:
            if self._client is None:
                self._client = self._open()
            return self._client

    def _wrapped(self, source: bytes, key_id: str = "", annotations: dict[str, bytes] | None = None) -> WrappedSource:
        v1 = self._api is Api.V1
        return WrappedSource(
            provider=self.provider,
            api=self._api,
            source_type=SourceType.AES_GCM_KEY if v1 else SourceType.HKDF_SEED,
            source=source,
            key_id="" if v1 else key_id,
            annotations=() if v1 else tuple(sorted((annotations or {}).items())),
        )

    def _ask(self, question: str, ask: Callable[[], _Answer], *secrets: bytes) -> _Answer:
        """Ask, and ask again what may pass by itself. `secrets`: what was sent, which no message may repeat."""
        patience = self._patience
        give_up = time.monotonic() + patience.retry.overall
        closings, tries = self._closings, 0
        while True:
            tries += 1
            patience.pace.wait()
            answer = self._once(ask)
            if not isinstance(answer, Failure):
                self._reached = True
                patience.pace.answered()
                return answer
            throttled = answer.category is Category.THROTTLED
            self._reached |= answer.answered
            if throttled:
                patience.pace.throttled()
            wait = max(patience.retry.wait(tries, patience.chance()), answer.retry_after)
            may_pass = answer.category in RETRIED and self._reached and closings == self._closings
            if not may_pass or tries >= patience.retry.tries or time.monotonic() + wait > give_up:
                raise self._error(question, answer, *secrets, tries=tries)
            patience.sleep(wait)

    def _once(self, ask: Callable[[], _Answer]) -> _Answer | Failure:
        try:
            return ask()
        except Refusal as refusal:
            return refusal.failure
        except SnaptoolError:
            raise
        except Exception as error:  # noqa: BLE001 - an SDK raises what it likes; none of it may pass as it is
            return self._judge(error)

    def _error(self, question: str, failure: Failure, *secrets: bytes, tries: int = 1) -> KmsError:
        detail = shown(failure.detail, *secrets)
        kind: type[KmsError] = KmsRefused
        if failure.category in _NO_ANSWER:
            kind = KmsUnreachable
        elif failure.category is Category.BAD_ANSWER:
            kind = KmsAnsweredWrongly
        said = f" ({detail})" if detail else ""
        return kind(
            f"KMS provider {self.provider!r}, asked in {self._direct.service}: "
            f"{question} failed: {failure.category}{said}",
            provider=self.provider,
            category=failure.category,
            detail=detail,
            attempts=tries,
            hint=failure.hint,
        )


_RUN: Final = re.compile(r"[A-Za-z0-9+/=_-]{16,}")
_LIST: Final = re.compile(r"(?:(?<![0-9A-Za-z])(?:0x|\\x)?[0-9A-Fa-f]{1,3}(?![0-9A-Za-z])[\s,;:.\\-]*){6,}")
_ESCAPES: Final = re.compile(r"(?:\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\[0-7]{3}|%[0-9A-Fa-f]{2}){4,}")


def shown(text: str, *secrets: bytes) -> str:
    """Return the first line of a service's message without what could be a key, a token, or what was sent.

    Names of principals, keys, regions and permissions stay: they are what the operator needs.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[0] if lines else ""
    if any(reveals(line.encode(errors="replace"), secret) for secret in secrets):
        return "…"
    line = _RUN.sub(lambda run: "…" if _coded(run[0]) else run[0], line)
    line = _ESCAPES.sub("…", _LIST.sub("… ", line)).strip()
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"


def _coded(run: str) -> bool:
    """Could this run of letters be bytes in some coding? Names and paths have shorter parts, or no digits."""
    for part in re.split(r"[/_-]", run):
        digits = sum(sign.isdigit() for sign in part)
        mixed = bool(re.search("[a-z]", part)) and bool(re.search("[A-Z]", part))
        if len(part) >= 20 and (digits > 0 or "=" in part or "+" in part):
            return True
        if len(part) >= 16 and mixed and digits > 0:
            return True
    return "+" in run or run.rstrip("=") != run or bool(re.search("[0-9]", run) and len(re.findall("[A-Z]", run)) > 8)


def after(header: str | None) -> float:
    """Return the seconds of a Retry-After header; 0 for none."""
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - seldom needed, and heavy

    if not header:
        return 0.0
    if re.fullmatch(r"[0-9]{1,6}", header.strip()):
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
