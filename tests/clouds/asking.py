"""What the tests of key services share: services as a user names them, sources, and what must not be shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from snaptool.providers.direct import open_direct, parse_direct
from snaptool.providers.direct.service import Patience
from snaptool.providers.kms_envelope import SourceType, WrappedSource
from snaptool.providers.kms_pace import Pace, Retry
from snaptool.providers.kms_service import KmsError
from snaptool.providers.provider import Api
from tests.support.cli import GOLDEN, spellings

VECTORS: dict[str, Any] = json.loads((GOLDEN / "clouds" / "direct.json").read_text())
PLAINTEXT = bytes(range(32))


def service(said: str, api: str = "v2", *, timeout: float = 10, pace: Pace | None = None, tries: int = 5) -> Any:
    """The service of `prod=SAID`."""
    patience = Patience(timeout, Retry(tries=tries, first_wait=0.01, longest_wait=0.05), pace or Pace())
    return open_direct(parse_direct(f"prod={said}"), Api(api), patience)


def source(
    stored: bytes, api: str = "v2", key_id: str = "1", annotations: dict[str, str] | None = None
) -> WrappedSource:
    return WrappedSource(
        provider="prod",
        api=Api(api),
        source_type=SourceType.HKDF_SEED if api == "v2" else SourceType.AES_GCM_KEY,
        source=stored,
        key_id=key_id if api == "v2" else "",
        annotations=tuple(sorted((name, value.encode()) for name, value in (annotations or {}).items())),
    )


def refusal(asked: Any, stored: WrappedSource) -> KmsError:
    """The error of an unwrapping, which shows nothing of what was asked about."""
    with pytest.raises(KmsError) as caught:
        asked.unwrap(stored)
    error = caught.value
    assert_shows_nothing(f"{error} {error.hint} {error.detail} {error!r}", stored.source, PLAINTEXT)
    assert error.__cause__ is None
    assert error.__context__ is None, "a request may hang on to it"
    return error


def assert_shows_nothing(text: str, *secrets: bytes) -> None:
    for secret in secrets:
        if len(secret) >= 16:
            for needle in spellings(secret):
                assert needle not in text.encode(), "a secret was shown"
