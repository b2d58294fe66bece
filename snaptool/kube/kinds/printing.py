"""JSON and YAML as kubectl prints them, byte for byte, from plain values.

kubectl prints JSON with sorted keys, and turns that JSON into YAML with a fork of libyaml's emitter: block style, keys
in an order that counts numbers in them, texts plain where they read back as texts, folded beyond 80 columns. The rules
are few, so that they stand here in whole; PyYAML would differ in one document of thirty and is several times slower.

In some cases kubectl fails or loses something (control characters, U+0085, a key `<<`, orders that are none). There we
print what kubectl reads back right; docs/formats/kinds.md, "Where kubectl fails" lists them.

For a terminal, which must get nothing that it would obey, YAML escapes more texts than kubectl does; what is read back
stays the same. (JSON needs no rule of its own: any character of it may be an escape.)

Source: docs/formats/kinds.md, "JSON as kubectl prints it" and "YAML as kubectl prints it", seen by running kubectl
1.37.2 over 6,515 texts; YAML 1.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cmp_to_key, lru_cache
from json.encoder import encode_basestring
from typing import Any

# -- numbers ---------------------------------------------------------------------------------------------------------


def _digits(value: float) -> tuple[str, str, int]:
    """Take a finite float apart: sign, shortest digits, and the exponent of ten of the first one."""
    mantissa, _, power = f"{value!r}e0".partition("e")
    sign, mantissa = ("-", mantissa[1:]) if mantissa[0] == "-" else ("", mantissa)
    whole, _, fraction = mantissa.partition(".")
    exponent = int(power.partition("e")[0] or 0) + len(whole) - 1
    digits = whole + fraction
    exponent -= len(digits) - len(digits.lstrip("0")) if digits.strip("0") else exponent
    return sign, digits.strip("0") or "0", exponent


def _in_full(sign: str, digits: str, exponent: int) -> str:
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole, fraction = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return f"{sign}{whole}.{fraction}" if fraction else sign + whole


def _scientific(sign: str, digits: str, exponent: int, least: int) -> str:
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):0{least}d}"


def _json_float(value: float) -> str:
    """Write a number as Go's encoding/json does."""
    sign, digits, exponent = _digits(value)
    if value and (exponent < -6 or exponent >= 21):
        return _scientific(sign, digits, exponent, 1)
    return _in_full(sign, digits, exponent)


def _yaml_float(value: float) -> str:
    """Write a number as kubectl's YAML has it: what JSON printed, read back, in Go's %g."""
    printed = _json_float(value)
    if printed.lstrip("-").isdecimal() and -(1 << 63) <= int(printed) < 1 << 64:
        return str(int(printed))
    sign, digits, exponent = _digits(value)
    if exponent < -4 or exponent >= 6:
        return _scientific(sign, digits, exponent, 2)
    return _in_full(sign, digits, exponent)


# -- JSON ------------------------------------------------------------------------------------------------------------

_HTML = re.compile("[<>&\u2028\u2029]")


def json_text(value: Any) -> str:
    """Print JSON as `kubectl -o json` does, with the newline at its end."""
    parts: list[str] = []

    def text(one: str) -> str:
        quoted = encode_basestring(one)
        if _HTML.search(quoted) is None:
            return quoted
        return _HTML.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)

    def write(one: Any, indent: str) -> None:
        if isinstance(one, dict) and one:
            inner = f"{indent}    "
            between = f"{{\n{inner}"
            for name in sorted(one):
                item = one[name]
                parts.append(f"{between}{text(name)}: ")
                if type(item) is str:
                    parts.append(text(item))
                else:
                    write(item, inner)
                between = f",\n{inner}"
            parts.append(f"\n{indent}}}")
        elif isinstance(one, list) and one:
            inner = f"{indent}    "
            between = f"[\n{inner}"
            for item in one:
                parts.append(between)
                write(item, inner)
                between = f",\n{inner}"
            parts.append(f"\n{indent}]")
        else:
            parts.append(text(one) if isinstance(one, str) else _json_scalar(one))

    write(value, "")
    parts.append("\n")
    return "".join(parts)


def _json_scalar(value: Any) -> str:
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _json_float(value)
    if isinstance(value, dict | list):
        return "{}" if isinstance(value, dict) else "[]"
    raise TypeError(f"no JSON form for {type(value).__name__}")


# -- YAML: the order of keys -----------------------------------------------------------------------------------------


def _ordered(keys: Iterable[str]) -> list[str]:
    """Sort keys as kubectl's YAML does; field names, which are letters, by code point.

    The order is not transitive for some keys with digits: what decides then is the code point order they come in.
    """
    by_code_point = sorted(keys)
    if "".join(by_code_point).isalpha():
        return by_code_point
    if len(by_code_point) > _CACHED_KEYS:
        return sorted(by_code_point, key=_NATURAL_KEY)
    return list(_natural(tuple(by_code_point)))


_CACHED_KEYS = 64
"""Labels and managed fields come again and again; what is larger is seldom seen twice, and would fill memory."""


@lru_cache(maxsize=2048)
def _natural(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(keys, key=_NATURAL_KEY))


def _compare(one: str, other: str) -> int:
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if at is None:
        return len(one) - len(other)
    a, b = one[at], other[at]
    if a.isalpha() or b.isalpha():
        if a.isalpha() and b.isalpha():
            return -1 if a < b else 1
        return -1 if b.isalpha() else 1
    leading = 1 if "0" in {a, b} and _in_number(one, at) else 0
    number_a, end_a = _number(one, at, leading)
    number_b, end_b = _number(other, at, leading)
    if number_a != number_b:
        return -1 if number_a < number_b else 1
    if end_a != end_b:
        return end_a - end_b
    return -1 if a < b else 1


_NATURAL_KEY: Callable[[str], Any] = cmp_to_key(_compare)


def _in_number(text: str, at: int) -> bool:
    """Does a digit other than 0 stand before `at` in the same run of digits?"""
    while at and text[at - 1].isdecimal():
        at -= 1
        if text[at] != "0":
            return True
    return False


def _number(text: str, at: int, value: int) -> tuple[int, int]:
    """Read a run of digits as the 64 bits that kubectl has for it."""
    while at < len(text) and text[at].isdecimal():
        value = value * 10 + ord(text[at]) - ord("0")
        at += 1
    return (value + (1 << 63)) % (1 << 64) - (1 << 63), at


# -- YAML: the style of a text ---------------------------------------------------------------------------------------

_WIDTH = 80
_LONGEST_SIMPLE_KEY = 128
_BREAKS = "\n\u2028\u2029"

_SPECIAL = re.compile("[^\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd]|\ufeff")
_SPACE_BREAK = re.compile(f" [{_BREAKS}]")
_BREAK_SPACE = re.compile(f"[{_BREAKS}] ")
_BREAK = re.compile(f"[{_BREAKS}]")
_KEY_BREAK = re.compile(f"[{_BREAKS}\r\x85]")
_INDICATOR = re.compile(r"[ #,\[\]{}&*!|>'\"%@`]|---|\.\.\.|[?:-](?: |\Z)|.*?(?::(?: |\Z)| #| \Z)", re.DOTALL)
_SIMPLE = re.compile(r"[A-Za-z/][A-Za-z0-9/_.-]*")

_WORDS = frozenset(
    (
        *("", "y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off", "OFF"),
        *("true", "True", "TRUE", "false", "False", "FALSE", "~", "null", "Null", "NULL", ".nan", ".NaN", ".NAN"),
        *(".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF"),
    )
)
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[+-]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][+-]?[0-9]+)?")
_BASE_60 = re.compile(r"[+-]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_CLOCK = r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{1,2}):(?P<second>[0-9]{1,2})(?:[.,][0-9]+)?"
_DATE = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})"
    rf"(?:[Tt]{_CLOCK}(?:Z|[+-](?P<zone_hour>[0-9]{{2}}):(?P<zone_minute>[0-9]{{2}})))?"
)
_SPACED_DATE = re.compile(rf"(?P<year>[0-9]{{4}})-(?P<month>[0-9]{{1,2}})-(?P<day>[0-9]{{1,2}}) +{_CLOCK}")


def _is_other_type(text: str) -> bool:
    """Would YAML read this text as a number, a truth value, a date or nothing?"""
    if text in _WORDS:
        return True
    first = text[0]
    if first == ".":
        return _FLOAT.fullmatch(text) is not None and _is_finite(text)
    if first not in "0123456789+-":
        return False
    plain = text.replace("_", "")
    if _INTEGER.fullmatch(plain) is not None and _fits(plain):
        return True
    if _FLOAT.fullmatch(plain) is not None and _is_finite(plain):
        return True
    return _BASE_60.fullmatch(text) is not None or _is_date(text)


def _fits(digits: str) -> bool:
    """Do 64 bits hold the integer? Without a sign they may all count."""
    if len(digits) > 70:
        return False
    based = digits.lstrip("+-").lower()
    value = int(based, 0) if based[0] != "0" or based[1:2].isalpha() else int(based, 8)
    if digits[0] == "-":
        return value <= 1 << 63
    return value < (1 << 63 if digits[0] == "+" else 1 << 64)


def _is_finite(digits: str) -> bool:
    return abs(float(digits)) != float("inf")


def _is_date(text: str) -> bool:
    found = _DATE.fullmatch(text) or _SPACED_DATE.fullmatch(text)
    if found is None:
        return False
    parts = {name: int(digits) for name, digits in found.groupdict(default="0").items()}
    year, month = parts["year"], parts["month"]
    if not 1 <= month <= 12:
        return False
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]
    in_day = parts["hour"] < 24 and parts["minute"] < 60 and parts["second"] < 60
    # Offsets of 24 hours and of 60 minutes are taken, as Go's time.Parse takes them.
    return (
        1 <= parts["day"] <= days and in_day and parts.get("zone_hour", 0) <= 24 and parts.get("zone_minute", 0) <= 60
    )


_PLAIN, _SINGLE, _DOUBLE, _LITERAL = range(4)


def _style_of(text: str) -> int:
    if _SIMPLE.fullmatch(text) is not None:
        return _DOUBLE if text in _WORDS else _PLAIN
    if "\n" in text:
        odd = _SPECIAL.search(text) is not None or text[-1] == " " or _SPACE_BREAK.search(text) is not None
        return _DOUBLE if odd else _LITERAL
    if _is_other_type(text) or _SPECIAL.search(text) is not None:
        return _DOUBLE
    if text.isascii():
        return _SINGLE if _INDICATOR.match(text) is not None else _PLAIN
    if _SPACE_BREAK.search(text) is not None or _BREAK_SPACE.search(text) is not None:
        return _DOUBLE
    return _SINGLE if _INDICATOR.match(text) is not None or _BREAK.search(text) is not None else _PLAIN


_cached_style = lru_cache(maxsize=1 << 14)(_style_of)
_CACHED_LENGTH = 64


# -- YAML: writing texts ---------------------------------------------------------------------------------------------

_ESCAPES = {
    0x00: "\\0",
    0x07: "\\a",
    0x08: "\\b",
    0x09: "\\t",
    0x0A: "\\n",
    0x0B: "\\v",
    0x0C: "\\f",
    0x0D: "\\r",
    0x1B: "\\e",
    0x22: '\\"',
    0x5C: "\\\\",
    0x85: "\\N",
    0x2028: "\\L",
    0x2029: "\\P",
}
_ESCAPED = re.compile('[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd]|["\\\\\ufeff]')
_NOT_ASCII = re.compile("[^\x20-\x7e]")
_SPACES = re.compile(" +")


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    known = _ESCAPES.get(code)
    if known is not None:
        return known
    return f"\\x{code:02X}" if code <= 0xFF else f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"


def _literal(text: str, indent: int) -> str:
    """Write a text of several lines as it is. Every line that is not empty is indented."""
    hint = "2" if text[0] in f" {_BREAKS}" else ""
    if text[-1] not in _BREAKS:
        hint += "-"
    elif len(text) == 1 or text[-2] in _BREAKS:
        hint += "+"
    return f"|{hint}\n{_indented(text, indent)}" + ("" if text[-1] in _BREAKS else "\n")


def _indented(text: str, indent: int) -> str:
    """Indent what follows a line break, and the beginning too if it is one; empty lines stay empty."""
    pad = " " * indent
    shown = re.sub(f"(?<=[{_BREAKS}])(?![{_BREAKS}])(?!\\Z)", pad, text)
    return shown if text[0] in _BREAKS else pad + shown


def _fold(shown: str, column: int, indent: int, *, quote: str) -> str:
    """Break lines at spaces when they are beyond the 80th column; `column` is that of the first character."""
    pieces: list[str] = []
    begin = 0
    for found in _SPACES.finditer(shown):
        start, end = found.span()
        if column + start - begin <= _WIDTH or (quote and (start == 0 or start == len(shown) - 1)):
            continue
        if end - start > 1 and quote != '"':
            continue
        pieces.append(shown[begin:start] + "\n" + " " * indent + ("\\" if end - start > 1 else ""))
        column = indent + (1 if end - start > 1 else 0)
        begin = start + 1
    return "".join(pieces) + shown[begin:]


def _quoted_with_breaks(shown: str, column: int, indent: int) -> str:
    """Write a single quoted text with breaks in it, which are U+2028 and U+2029 alone."""
    parts: list[str] = []
    for line in re.split(f"(?<=[{_BREAKS}])", shown):
        pad = " " * indent if parts and line and line[0] not in _BREAKS else ""
        parts.append(pad + _fold(line, indent if parts else column, indent, quote="'"))
    return "".join(parts)


class _Writer:
    """Writes one document into `parts`. `fit`: whether a text may stand as it is; None: every text may."""

    def __init__(self, fit: Callable[[str], bool] | None) -> None:
        self.parts: list[str] = []
        self._fit = fit

    def style(self, text: str) -> int:
        if self._fit is not None and not self._fit(text):
            return _DOUBLE
        return _cached_style(text) if len(text) <= _CACHED_LENGTH else _style_of(text)

    def escaped(self, text: str) -> str:
        shown = _ESCAPED.sub(_escape, text)
        fit = self._fit
        if fit is None or fit(shown):
            return shown
        return _NOT_ASCII.sub(lambda found: found[0] if fit(found[0]) else _escape(found), shown)

    def key(self, text: str) -> str | None:
        """Write a key; None for one that needs a line of its own."""
        style = self.style(text)
        if style == _PLAIN and len(text) <= _LONGEST_SIMPLE_KEY // 4:
            return text if text != "<<" else '"<<"'  # bare, it would merge mappings
        if len(text.encode()) > _LONGEST_SIMPLE_KEY or _KEY_BREAK.search(text) is not None:
            return None
        if style == _PLAIN:
            return text
        return self._single(text) if style == _SINGLE else self._double(text)

    @staticmethod
    def _single(text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    def _double(self, text: str) -> str:
        return f'"{self.escaped(text)}"'

    def text(self, text: str, column: int, indent: int) -> str:
        """Write a text as a value, with its newline. `indent`: that of its later lines."""
        style = self.style(text)
        if style == _PLAIN:
            return (text if column + len(text) <= _WIDTH else _fold(text, column, indent, quote="")) + "\n"
        if style == _LITERAL:
            return _literal(text, indent)
        if style == _DOUBLE:
            shown = self.escaped(text)
            return f'"{_fold(shown, column + 1, indent, quote=chr(34))}"\n'
        shown = text.replace("'", "''")
        if text.isascii() or _BREAK.search(text) is None:
            return f"'{_fold(shown, column + 1, indent, quote=chr(39))}'\n"
        return f"'{_quoted_with_breaks(shown, column + 1, indent)}'\n"

    def mapping(self, node: dict[str, Any], indent: int, pad: str) -> None:
        """Write a mapping whose first line is begun already; `pad` begins the others."""
        parts = self.parts
        before = ""
        for name in node if len(node) == 1 else _ordered(node):
            value = node[name]
            key = self.key(name)
            if key is None:
                parts.append(f"{before}? {self.text(name, indent + 2, indent + 2)}{pad}: ")
                self.value(value, indent + 2)
            elif type(value) is str:
                parts.append(f"{before}{key}: {self.text(value, indent + len(key) + 2, indent + 2)}")
            elif type(value) is dict and value:
                parts.append(f"{before}{key}:\n{pad}  ")
                self.mapping(value, indent + 2, f"{pad}  ")
            elif type(value) is list and value:
                parts.append(f"{before}{key}:\n{pad}")
                self.sequence(value, indent, pad)
            else:
                parts.append(f"{before}{key}: {_yaml_scalar(value)}\n")
            before = pad

    def sequence(self, node: list[Any], indent: int, pad: str) -> None:
        """Write a sequence whose first line is begun already; `pad` begins the others."""
        before = "- "
        for value in node:
            self.parts.append(before)
            self.value(value, indent + 2)
            before = f"{pad}- "

    def value(self, value: Any, indent: int) -> None:
        """Write what stands behind `- ` or `: ` in the same line; `indent` is where it stands."""
        if type(value) is str:
            self.parts.append(self.text(value, indent, indent))
        elif type(value) is dict and value:
            self.mapping(value, indent, " " * indent)
        elif type(value) is list and value:
            self.sequence(value, indent, " " * indent)
        else:
            self.parts.append(f"{_yaml_scalar(value)}\n")


def _yaml_scalar(value: Any) -> str:
    return _yaml_float(value) if isinstance(value, float) else _json_scalar(value)


def yaml_text(value: Any, *, fit: Callable[[str], bool] | None = None) -> str:
    """Print YAML as `kubectl -o yaml` does: one document, without `---`.

    `fit` is for terminals: texts of which it says no are double quoted, and in them the characters of which it says no
    are escaped.
    """
    writer = _Writer(fit)
    if isinstance(value, dict) and value:
        writer.mapping(value, 0, "")
    elif isinstance(value, list) and value:
        writer.sequence(value, 0, "")
    else:
        writer.value(value, 0)
    return "".join(writer.parts)


def documents_text(items: Iterable[Any], *, fit: Callable[[str], bool] | None = None) -> Iterator[str]:
    """Print YAML documents, a piece at a time, with `---` between them. `fit`: as for `yaml_text`."""
    for count, item in enumerate(items):
        yield ("---\n" if count else "") + yaml_text(item, fit=fit)


def list_text(items: Iterable[Any], output: str, *, fit: Callable[[str], bool] | None = None) -> Iterator[str]:
    """Print a List of objects as kubectl does, as `yaml` or `json`, a piece at a time. `fit`: for YAML, as above."""
    count = 0
    if output == "json":
        yield '{\n    "apiVersion": "v1",\n    "items": ['
        for count, item in enumerate(items, 1):
            indented = json_text(item).rstrip("\n").replace("\n", "\n        ")
            yield f"{',' if count > 1 else ''}\n        {indented}"
        yield "\n    ]" if count else "]"
        yield ',\n    "kind": "List",\n    "metadata": {\n        "resourceVersion": ""\n    }\n}\n'
        return
    for count, item in enumerate(items, 1):
        yield ("apiVersion: v1\nitems:\n" if count == 1 else "") + yaml_text([item], fit=fit)
    yield "" if count else "apiVersion: v1\nitems: []\n"
    yield 'kind: List\nmetadata:\n  resourceVersion: ""\n'
