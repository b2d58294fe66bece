"""The one way out for foreign text: names from snapshots, configurations, plugins and file systems.

Such a name may hold what a terminal obeys (escape sequences, carriage returns), what shows a line as another one
(bidirectional marks, invisible characters), or a line break that makes one message into two. `printable` makes one line
of it that shows every character as itself or as an escape; nothing is dropped, and what is printable stays as it is.
Every line that the command line prints goes through it at the point of output (`snaptool.cli.render.echo`).

What is escaped is decided by Unicode's general categories, not by a list: control, format, surrogate, private use and
unassigned (C*), line, paragraph and other separators but the space (Z*). Source: Unicode Standard, chapter 4.5.
"""

from __future__ import annotations

import os
import shlex
import unicodedata


def printable(text: str | bytes | os.PathLike[str]) -> str:
    r"""Return `text` as one line that no terminal obeys: `\x1b`, `\n`, `\u202e` for what is not printable.

    Bytes are read as UTF-8; bytes that are not UTF-8 (in file names too) are shown as `\xff`. Applying it twice changes
    nothing more.
    """
    shown = _decoded(text)
    return shown if shown.isprintable() else "".join(map(_escaped, shown))


def document(text: str) -> str:
    r"""Return a JSON document, with line breaks between its lines, in which no character commands a terminal.

    JSON lets all but the first 32 code points stand as they are; what `printable` would escape is written as `\u….`.
    Spaces of other widths stay: they are text in many languages, and JSON's quotes show where they are.
    """
    unfit = {ord(char): _json_escape(char) for char in set(text) if char != "\n" and _is_unfit(char)}
    return text.translate(unfit) if unfit else text


def is_fit(text: str) -> bool:
    """Say whether `text`, which may have line breaks and tabs, shows on a terminal as what it is."""
    return not any(char not in "\n\t" and _is_unfit(char) for char in set(text))


def counted(count: int, one: str, many: str = "") -> str:
    """Count in words: `1 value`, `1,200 values`; `many` where it is not `one` with an s at its end."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def quoted(path: str | os.PathLike[str]) -> str:
    """Return a path as one word of a shell command that is printed: it can be copied whatever it holds."""
    text = os.fspath(path)
    if text.startswith("-"):
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    # $'…' with octal escapes, which end after three digits in every shell that has them (POSIX.1-2024, 2.2.4).
    parts = ["\\" + char if char in "\\'" else char if char.isprintable() else _octal(char) for char in text]
    return f"$'{''.join(parts)}'"


def _decoded(text: str | bytes | os.PathLike[str]) -> str:
    text = os.fspath(text)
    return text.decode(errors="backslashreplace") if isinstance(text, bytes) else text


def _escaped(char: str) -> str:
    if char.isprintable():
        return char
    if "\udc80" <= char <= "\udcff":  # a byte that is not UTF-8: PEP 383
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def _is_unfit(char: str) -> bool:
    return not char.isprintable() and unicodedata.category(char) != "Zs"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(char))
