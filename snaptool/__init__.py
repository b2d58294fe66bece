"""snaptool: rewrite etcd snapshots of Kubernetes clusters.

Everything a command does is one call here, named as the command, on paths, bytes or opened snapshots::

    import snaptool

    report = snaptool.rewrite("backup.db", "new.db", config="old.yaml", new_config="new.yaml")

Names are imported when they are first asked for, so that `--help` does not wait for any of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snaptool.api import (
        Comparison,
        StoredObject,
        diff,
        embedded_configs,
        export,
        get,
        history,
        inspect,
        list_keys,
        repair,
        rewrite,
        verify,
    )
    from snaptool.arguments import UnknownWord, WrongType
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
    from snaptool.operations.export import Exported
    from snaptool.operations.kms_options import KmsOptions
    from snaptool.operations.listing import ListedRecord
    from snaptool.operations.object import History
    from snaptool.operations.opening import OpenedSnapshot, open_snapshot
    from snaptool.operations.plan import RewriteRequest, Undecodable, Undecryptable
    from snaptool.operations.rewrite import RewriteReport
    from snaptool.operations.survey import Survey
    from snaptool.operations.verify import Verification
    from snaptool.providers.config.fresh import new_config
    from snaptool.providers.config.model import EncryptionConfig
    from snaptool.providers.config.rules import parse_config
    from snaptool.providers.keyring import GroupResource, Keyring

_HOMES = {
    "api": (
        "Comparison",
        "StoredObject",
        "diff",
        "embedded_configs",
        "export",
        "get",
        "history",
        "inspect",
        "list_keys",
        "repair",
        "rewrite",
        "verify",
    ),
    "arguments": ("UnknownWord", "WrongType"),
    "errors": (
        "FormatError",
        "InputError",
        "KeyServiceError",
        "OutputError",
        "ProviderError",
        "ScratchError",
        "SnaptoolError",
        "VerificationFailed",
    ),
    "operations.export": ("Exported",),
    "operations.kms_options": ("KmsOptions",),
    "operations.listing": ("ListedRecord",),
    "operations.object": ("History",),
    "operations.opening": ("OpenedSnapshot", "open_snapshot"),
    "operations.plan": ("RewriteRequest", "Undecodable", "Undecryptable"),
    "operations.rewrite": ("RewriteReport",),
    "operations.survey": ("Survey",),
    "operations.verify": ("Verification",),
    "providers.config.fresh": ("new_config",),
    "providers.config.model": ("EncryptionConfig",),
    "providers.config.rules": ("parse_config",),
    "providers.keyring": ("GroupResource", "Keyring"),
}

__all__ = [
    "Comparison",
    "EncryptionConfig",
    "Exported",
    "FormatError",
    "GroupResource",
    "History",
    "InputError",
    "KeyServiceError",
    "Keyring",
    "KmsOptions",
    "ListedRecord",
    "OpenedSnapshot",
    "OutputError",
    "ProviderError",
    "RewriteReport",
    "RewriteRequest",
    "ScratchError",
    "SnaptoolError",
    "StoredObject",
    "Survey",
    "Undecodable",
    "Undecryptable",
    "UnknownWord",
    "Verification",
    "VerificationFailed",
    "WrongType",
    "diff",
    "embedded_configs",
    "export",
    "get",
    "history",
    "inspect",
    "list_keys",
    "new_config",
    "open_snapshot",
    "parse_config",
    "repair",
    "rewrite",
    "verify",
]


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"snaptool.{home}"), name)
    raise AttributeError(f"module 'snaptool' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
