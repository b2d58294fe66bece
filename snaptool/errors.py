"""Every error that snaptool raises on purpose.

The tree; leaves live beside the code that raises them::

    SnaptoolError
      InputError            the request cannot be served: missing file, source is target, bad configuration entry
      OutputError           the result cannot be written: disk full, no permission
      FormatError           bytes break a format: not a bolt file, broken tree, bad record, truncated message
      ProviderError         a stored value cannot be opened, or a plaintext cannot be sealed
      KeyServiceError       a KMS plugin cannot be reached, refuses, or answers wrongly
      StoreError            a store behind a URL cannot be reached, or refuses
      VerificationFailed    a check ran to its end and has findings
      ScratchError          the scratch etcd did not do its part

A message says what and where; `hint` says what the user can do next. Neither ever holds key bytes, wrapped keys or
plaintext. `code` is a stable word for programs: of a leaf, its class's name in lower case (`NotABoltFile`:
`not_a_bolt_file`) unless it gives another; where one class is raised for several reasons, each gives its own. All of
them are listed in docs/json.md. Facts that callers act on are attributes of the leaves. Libraries know no exit codes:
those are in `snaptool.cli.exits`.
"""

from __future__ import annotations

import re


class SnaptoolError(Exception):
    """Root of all errors raised on purpose; anything else that escapes is a bug.

    `message` is the problem, `hint` the remedy ("" where there is none). `place`: the file, key or page that it is
    about, where that is one thing. `code`: a stable word in place of the class's own.
    """

    code = "failed"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" not in cls.__dict__:
            cls.code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()

    def __init__(self, message: str, *, hint: str = "", code: str = "", place: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.place = place
        if code:
            self.code = code


class InputError(SnaptoolError):
    """The request itself cannot be served."""

    code = "bad_input"


class OutputError(SnaptoolError):
    """The result cannot be written."""

    code = "cannot_write"


class FormatError(SnaptoolError):
    """Bytes do not follow the format they claim to have."""

    code = "damaged"


class ProviderError(SnaptoolError):
    """A stored value cannot be opened, or a plaintext cannot be sealed."""

    code = "cannot_open"


class KeyServiceError(SnaptoolError):
    """A key service cannot be reached, refuses, or answers wrongly."""

    code = "key_service"


class StoreError(SnaptoolError):
    """A store behind a URL cannot be reached, or refuses."""

    code = "store_failed"


class VerificationFailed(SnaptoolError):
    """A check ran to its end and found something."""


class ScratchError(SnaptoolError):
    """The scratch etcd could not be found, started, used or stopped."""

    code = "scratch_failed"
