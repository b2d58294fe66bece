"""Entry point of `snaptool` and `python -m snaptool`."""

from __future__ import annotations

import sys

_TURN = 0.0002
"""Seconds that a thread waits for one that runs Python: there are three or four, which need it for moments."""


def main() -> None:
    """Run the command line. Signals wait until there is somebody to answer them."""
    from snaptool import signals  # noqa: PLC0415 - the first of all

    signals.block()
    from snaptool import hashing  # noqa: PLC0415 - compiled: an interrupt while it is loaded is a crash

    sys.setswitchinterval(_TURN)
    hashing.begin_early(sys.argv[1:])
    from snaptool.cli import main as cli_main  # noqa: PLC0415

    cli_main()


if __name__ == "__main__":
    main()
