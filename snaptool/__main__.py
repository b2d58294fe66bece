"""Entry point of `snaptool` and `python -m snaptool`."""

from __future__ import annotations


def main() -> None:
    """Run the command line. Signals wait until there is somebody to answer them."""
    from snaptool import signals  # noqa: PLC0415 - the first of all

    signals.block()
    from snaptool.cli import main as cli_main  # noqa: PLC0415

    cli_main()


if __name__ == "__main__":
    main()
