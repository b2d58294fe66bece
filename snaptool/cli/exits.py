"""Exit codes: one table, used by the error boundary, `--help`, README and their tests.

Libraries raise errors and know nothing of this.
"""

from __future__ import annotations

from snaptool import errors

DONE, FAILED, USAGE, FINDINGS, DAMAGED, KEY_SERVICE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

MEANINGS = {
    DONE: "success, no findings",
    FAILED: "failed (diff: differences)",
    USAGE: "wrong usage, bad configuration, target exists, source is target",
    FINDINGS: "findings (rewrite: nothing was written)",
    DAMAGED: "the input is damaged: not a snapshot, broken tree, wrong trailer",
    KEY_SERVICE: "a key service or store was unreachable or refused the request",
    INTERRUPTED: "interrupted (by another signal: 128 and its number)",
}

_OF_FAMILY: tuple[tuple[type[errors.SnaptoolError], int], ...] = (
    (errors.InputError, USAGE),
    (errors.FormatError, DAMAGED),
    (errors.ProviderError, FINDINGS),
    (errors.KeyServiceError, KEY_SERVICE),
    (errors.StoreError, KEY_SERVICE),
    (errors.VerificationFailed, FINDINGS),
    (errors.OutputError, FAILED),
    (errors.ScratchError, FAILED),
    (errors.SnaptoolError, FAILED),
)


def exit_code(error: errors.SnaptoolError) -> int:
    """Return the exit code of the family that `error` belongs to."""
    return next(code for family, code in _OF_FAMILY if isinstance(error, family))


def epilog() -> str:
    """Return the table as help text."""
    rows = "\n".join(f"{code:>5}  {meaning}" for code, meaning in MEANINGS.items())
    return f"\b\nExit codes:\n{rows}"
