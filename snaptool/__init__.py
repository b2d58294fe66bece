"""snaptool: rewrite etcd snapshots of Kubernetes clusters.

Everything a command does is one call here, on typed values::

    from snaptool import Keyring, RewriteRequest, open_snapshot, parse_config, rewrite

Names are imported when they are first asked for, so that the command line's `--help` does not wait for numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snaptool.errors import (
        FormatError,
        InputError,
        KeyServiceError,
        OutputError,
        ProviderError,
        ScratchError,
        SnaptoolError,
        VerificationFailed,
    )
    from snaptool.operations.export import Exported, ExportRequest, Output, export
    from snaptool.operations.opening import OpenedSnapshot, open_snapshot
    from snaptool.operations.plan import RewriteRequest, Undecryptable
    from snaptool.operations.rewrite import RewriteReport, repair, rewrite
    from snaptool.operations.survey import Survey, survey
    from snaptool.operations.verify import Verification, verify
    from snaptool.providers import EncryptionConfig, GroupResource, Keyring, new_config, parse_config

__all__ = [
    "EncryptionConfig",
    "ExportRequest",
    "Exported",
    "FormatError",
    "GroupResource",
    "InputError",
    "KeyServiceError",
    "Keyring",
    "OpenedSnapshot",
    "Output",
    "OutputError",
    "ProviderError",
    "RewriteReport",
    "RewriteRequest",
    "ScratchError",
    "SnaptoolError",
    "Survey",
    "Undecryptable",
    "Verification",
    "VerificationFailed",
    "export",
    "new_config",
    "open_snapshot",
    "parse_config",
    "repair",
    "rewrite",
    "survey",
    "verify",
]

_HOMES = (
    "errors",
    "providers",
    "operations.opening",
    "operations.plan",
    "operations.survey",
    "operations.verify",
    "operations.rewrite",
    "operations.export",
)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'snaptool' has no attribute {name!r}")
    found = (import_module(f"snaptool.{home}") for home in _HOMES)
    return next(getattr(home, name) for home in found if hasattr(home, name))
