"""Makes the service for what a user says, and imports a cloud's library for that alone."""

from __future__ import annotations

import importlib
from typing import Final

from snaptool.providers.direct.said import KINDS, BadDirect, DirectKms
from snaptool.providers.direct.service import DirectService, Patience
from snaptool.providers.provider import Api

_CLASSES: Final = {"aws": "AwsKms", "gcp": "GoogleKms", "azure": "AzureKms", "vault": "VaultKms"}


def open_direct(direct: DirectKms, api: Api, patience: Patience) -> DirectService:
    """Return the service, which has asked nobody yet. Raises BadDirect, also where its library is not installed."""
    direct.require_api(api)
    try:
        module = importlib.import_module(f"snaptool.providers.direct.{direct.kind}")
    except ImportError as error:
        missing = (error.name or "a library").partition(".")[0]
        raise BadDirect(
            f"KMS provider {direct.name!r}: {direct.service} needs {missing}, which is not installed",
            hint=f"pip install 'snaptool[{KINDS[direct.kind].extra}]'",
            code="extra_missing",
        ) from error
    service: DirectService = getattr(module, _CLASSES[direct.kind])(direct, api, patience)
    return service
