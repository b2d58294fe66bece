"""What reaches the terminal: tables, JSON, notes and the progress bar. Nothing else in snaptool writes to it."""

from __future__ import annotations

import codecs
import itertools
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import click

from snaptool import signals
from snaptool.errors import InputError
from snaptool.text import document, is_fit, printable

_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


class Terminal:
    """Where a command talks: results to stdout, notes and progress to stderr."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose

    def note(self, sentence: str) -> None:
        """Say something about the run, unless asked to be quiet."""
        if not self.quiet:
            echo(f"snaptool: {sentence}", err=True)

    def detail(self, sentence: str) -> None:
        """Say something that only `-v` wants to know."""
        if self.verbose:
            echo(f"snaptool: {sentence}", err=True)

    def progress(self, unit: str = "page") -> Progress:
        """Return the callback that operations report to; draws on a terminal only."""
        return Progress(shown=not self.quiet and sys.stderr is not None and sys.stderr.isatty(), unit=unit)


class Progress:
    """A bar per step, drawn by tqdm on stderr."""

    def __init__(self, *, shown: bool, unit: str = "page") -> None:
        self._shown = shown
        self._unit = unit
        self._step = ""
        self._bar: Any = None

    def __call__(self, step: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of `step` are behind us; the place where a run looks for signals."""
        signals.look()
        if not self._shown:
            return
        if step != self._step:
            from tqdm import tqdm

            self.close()
            # tqdm's monitor is a thread that nobody needs: steps are reported often.
            tqdm.monitor_interval = 0
            self._step = step
            self._bar = tqdm(total=total, desc=step, unit=self._unit, unit_scale=True, leave=False, file=sys.stderr)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def remark(self, text: str) -> None:
        """Show some words behind the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(printable(text), refresh=False)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            self._step = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OutputFailed(Exception):
    """Stdout takes no more. `reader_left`: it is a pipe that nobody reads, as with `| head`."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or type(error).__name__)
        self.reader_left = isinstance(error, BrokenPipeError)


def _write(content: str | bytes, *, err: bool = False) -> None:
    global _printed  # noqa: PLW0603 - of stdout, of which there is one
    if not err:
        signals.look()
        _printed = True
    try:
        click.echo(content, nl=False, err=err)
    except OSError as error:
        if err:
            return  # nobody reads it; what the run does is not about that
        raise OutputFailed(error) from error


_printed = False


def printed() -> bool:
    """Say whether anything has gone to stdout: a document about a failure would then be a second one."""
    return _printed


def begin() -> None:
    """Forget what an earlier run in this process has printed."""
    global _printed  # noqa: PLW0603 - as above
    _printed = False


def echo(line: str = "", *, err: bool = False) -> None:
    """Print one line to stdout, or to stderr: the one way to the terminal for sentences and tables.

    Whatever foreign names are in it, it stays one line and commands no terminal: `snaptool.text.printable`.
    """
    _write(printable(line) + "\n", err=err)


def print_text(text: str) -> None:
    """Print a document as it is; JSON and YAML have escapes of their own, which are used where one was forgotten."""
    _write((text if is_fit(text) else document(text)).removesuffix("\n") + "\n")


def confirm(question: str) -> bool:
    """Ask on the terminal; the answer is no unless it is given."""
    _write(printable(f"{question} [y/N]: "), err=True)
    if sys.stdin is None:
        return False
    answer = b""
    while not answer.endswith(b"\n") and (part := signals.read(sys.stdin.fileno(), 1)):
        answer += part
    return answer.strip().lower() in {b"y", b"yes"}


def print_json(content: Any) -> None:
    """Print one JSON document. Bytes are shown as text where they are UTF-8 and escaped where they are not."""
    _print_part(json_text(content) + "\n")


def _print_part(text: str) -> None:
    _write(text if _shows_unicode() else _in_ascii(text))


def _shows_unicode() -> bool:
    return sys.stdout is None or codecs.lookup(sys.stdout.encoding or "ascii").name.startswith("utf-")


def _in_ascii(text: str) -> str:
    """Write every other character of a JSON document as an escape: stdout cannot take it."""
    import json

    return "".join(char if char.isascii() else json.dumps(char)[1:-1] for char in text)


def print_json_members(members: Iterable[tuple[str, Any]]) -> None:
    """Print one JSON object a member at a time; an iterator among them becomes an array, which is printed row by row.

    For results that may have as many rows as a snapshot has keys.
    """
    before = "{"
    for name, value in members:
        if isinstance(value, Iterator):
            _print_part(f"{before}\n  {json_text(name)}: [")
            between = ""
            for row in value:
                _print_part(f"{between}\n{textwrap.indent(json_text(row), '    ')}")
                between = ","
            _print_part("\n  ]" if between else "]")
        else:
            indented = textwrap.indent(json_text(value), "  ").lstrip()
            _print_part(f"{before}\n  {json_text(name)}: {indented}")
        before = ","
    _print_part("\n}\n")


def json_text(value: Any) -> str:
    """Write a JSON document that a terminal shows as it is."""
    import json

    return document(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def print_json_line(value: Any) -> None:
    """Print a JSON document as one line, at once: for pipes."""
    import json

    _print_part(document(json.dumps(value, ensure_ascii=False, default=_plain)) + "\n")


def print_object(tree: dict[str, Any], output: str) -> None:
    """Print a Kubernetes object as `yaml` or `json`: byte for byte as kubectl does, and for a terminal more escaped."""
    from snaptool.kube.kinds.printing import json_text as object_json
    from snaptool.kube.kinds.printing import yaml_text

    if not sys.stdout.isatty():
        click.echo((object_json(tree) if output == "json" else yaml_text(tree)).encode(), nl=False)
    elif output == "json":
        _print_part(document(object_json(tree)))
    else:
        click.echo(yaml_text(tree, fit=_is_fit_here), nl=False)


def print_objects(trees: Iterable[dict[str, Any]], output: str, *, apart: bool = False) -> None:
    """Print a List of objects as kubectl does, or, `apart`, a YAML document of each. As `print_object`."""
    from snaptool.kube.kinds.printing import documents_text, list_text

    fit = _is_fit_here if sys.stdout.isatty() else None
    for part in documents_text(trees, fit=fit) if apart else list_text(trees, output, fit=fit):
        if fit is None:
            click.echo(part.encode(), nl=False)
        elif output == "json":
            _print_part(document(part))
        else:
            click.echo(part, nl=False)


def yaml_lines(tree: dict[str, Any] | None) -> list[str]:
    """Return the lines of an object's YAML, fit for stdout whatever that is; none for no object."""
    from snaptool.kube.kinds.printing import yaml_text

    text = "" if tree is None else yaml_text(tree, fit=_is_fit_here if sys.stdout.isatty() else None)
    return text.split("\n")[:-1]


def print_lines(lines: Iterable[str]) -> None:
    """Print lines that are fit for stdout already."""
    for line in lines:
        click.echo(f"{line}\n".encode(), nl=False)


def _is_fit_here(text: str) -> bool:
    return is_fit(text) and (_shows_unicode() or text.isascii())


def print_bytes(content: bytes) -> None:
    """Write bytes as they are. Raises InputError when they are not text and stdout is a terminal."""
    if sys.stdout is not None and sys.stdout.isatty():
        text = content.decode(errors="replace")
        if not is_fit(text) or "\ufffd" in text:
            raise InputError(
                "what you asked for is binary, and a terminal would obey what is in it",
                hint="redirect it to a file, or pipe it into `xxd`",
                code="binary_output",
            )
    _write(content)


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return printable(value)
    if hasattr(value, "__fspath__"):
        return str(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: str = "", indent: str = ""
) -> None:
    """Print aligned columns. `right` has an `r` for every right-aligned column: ` r r` aligns the second and fourth.

    Rows are taken and printed a block at a time, as kubectl does; columns only ever grow wider from block to block.
    """
    remaining = iter(rows)
    widths = [0] * len(headings)
    cells = [list(headings), *_cells(remaining)]
    while cells:
        widths = [max(width, *(len(row[column]) for row in cells)) for column, width in enumerate(widths)]
        lines = []
        for row in cells:
            parts = [
                text.rjust(width) if right[index : index + 1] == "r" else text.ljust(width)
                for index, (text, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append(indent + "  ".join(parts).rstrip())
        for line in lines:
            echo(line)
        cells = _cells(remaining)


def _line_width() -> int | None:
    """How wide lines may be: as wide as the terminal, or as COLUMNS says; None for as wide as they are."""
    if sys.stdout is not None and (sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()):
        from shutil import get_terminal_size

        return get_terminal_size().columns
    return None


def print_sentence(sentence: str, *, hanging: str = "    ") -> None:
    """Print a sentence that may be long: on a terminal broken between words, later lines indented by `hanging`.

    Where COLUMNS says how wide lines may be, that holds for what is not a terminal too.
    """
    width = _line_width()
    if width is not None:
        for line in click.wrap_text(printable(sentence), width, subsequent_indent=hanging).split("\n"):
            echo(line)
    else:
        echo(sentence)


def print_command(words: Sequence[str], *, indent: str = "    ") -> None:
    """Print a command to copy: in one line, or broken between its words where lines may not be long."""
    lines, width = [""], _line_width()
    for word in words:
        if width is not None and lines[-1] and len(indent) + len(lines[-1]) + len(word) + 3 > width:
            lines[-1] += " \\"
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    for line in lines:
        echo(indent + line)


_BLOCK_ROWS = 500


def _cells(rows: Iterator[Sequence[object]]) -> list[list[str]]:
    return [[_cell(value) for value in row] for row in itertools.islice(rows, _BLOCK_ROWS)]


def _cell(value: object) -> str:
    if isinstance(value, bytes):
        return printable(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else printable(str(value))


def size_text(size_bytes: int) -> str:
    """Show a size: `61.4 KiB`."""
    for unit, name in _UNITS:
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f} {name}"
    return f"{size_bytes} bytes"
