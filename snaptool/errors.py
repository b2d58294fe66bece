"""Every error that snaptool raises on purpose.

The tree; leaves live beside the code that raises them::

    SnaptoolError
      InputError            the request cannot be served: missing file, source is target, bad configuration entry
      OutputError           the result cannot be written: disk full, no permission
      FormatError           bytes break a format: not a bolt file, broken tree, bad record, truncated message
      ProviderError         a stored value cannot be opened, or a plaintext cannot be sealed
      KeyServiceError       a KMS plugin cannot be reached, refuses, or answers wrongly
      VerificationFailed    a check ran to its end and has findings
      ScratchError          the scratch etcd did not do its part

A message says what and where; `hint` says what the user can do next. Neither ever holds key bytes, wrapped keys or
plaintext. Facts that callers act on are attributes of the leaves. Libraries know no exit codes: those are in
`snaptool.cli.exits`.
"""

from __future__ import annotations


class SnaptoolError(Exception):
    """Root of all errors raised on purpose; anything else that escapes is a bug."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InputError(SnaptoolError):
    """The request itself cannot be served."""


class OutputError(SnaptoolError):
    """The result cannot be written."""


class FormatError(SnaptoolError):
    """Bytes do not follow the format they claim to have."""


class ProviderError(SnaptoolError):
    """A stored value cannot be opened, or a plaintext cannot be sealed."""


class KeyServiceError(SnaptoolError):
    """A key service cannot be reached, refuses, or answers wrongly."""


class VerificationFailed(SnaptoolError):
    """A check ran to its end and found something."""


class ScratchError(SnaptoolError):
    """The scratch etcd could not be found, started, used or stopped."""
