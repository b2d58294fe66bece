"""Why a configuration is refused, said so that the next edit helps: the line, the character, and what to write there.

The rules name what is wrong; here the text is looked at again for what people do: tabs, typographic quotes, a `*`
without quotes, base64 of another alphabet, folded lines, placeholders. Only a refusal comes here, so it may take time.
No message quotes a text that could be secret: characters are named, texts are counted.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from snaptool.providers.config.decode import Refused, parse_text
from snaptool.providers.config.go_values import decode_base64
from snaptool.providers.config.model import ConfigProblem
from snaptool.providers.config.recognise import recognise_bytes, recognise_documents
from snaptool.providers.go_yaml import Locator, Place
from snaptool.text import counted, quoted

_ANOTHER_FILE = {"kind_missing", "api_version_missing", "unknown_kind", "wrong_kind", "bad_group_version"}
_STEP = re.compile(r"([A-Za-z]+)|\[([0-9]+)\]")
_PLACEHOLDER = re.compile(r"<[^<>]*>|\$\{?[A-Za-z_]|\{\{|%%|@@|(?i:base.?64[ _-]*encoded|changeme|your[ _-]|xxxx)")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}){16,64}")
_FIELDS = (
    *("apiVersion", "kind", "resources", "providers", "keys", "name", "secret", "identity"),
    *("aescbc", "aesgcm", "secretbox", "kms", "endpoint", "timeout", "cachesize"),
)
_PROVIDERS = "aescbc, aesgcm, secretbox, kms or identity"


def explained(data: bytes, problems: Sequence[ConfigProblem], name: str = "") -> list[ConfigProblem]:
    """Give problems their lines, and what helps. `name`: the file's, for commands that read it."""
    first = problems[0]
    if first.code == "syntax" or first.code in _ANOTHER_FILE or (first.code == "wrong_type" and not first.path):
        found = recognise_bytes(data) or recognise_documents(data)
        if found is not None:
            message = f"this is {found.what}, not an EncryptionConfiguration"
            return [
                replace(
                    first, message=message, line=None, column=None, remedy=found.remedy.replace("FILE", _quoted(name))
                )
            ]
    looked_at = _Text(data)
    return [_explained(looked_at, problem) for problem in problems]


def _quoted(name: str) -> str:
    return "FILE" if name in {"", "stdin"} else quoted(name)


class _Text:
    """A refused text, parsed when it is first asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @cached_property
    def locator(self) -> Locator:
        """Where values stand."""
        return Locator(self.data)

    @cached_property
    def tree(self) -> Any:
        """The first document; None when it is not valid."""
        try:
            return parse_text(self.data)
        except Refused:
            return None

    def value(self, path: str) -> Any:
        """Return what stands at a path, or as much of the way as there is."""
        value = self.tree
        for step in _steps(path):
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                break
        return value


def _steps(path: str) -> list[str | int]:
    return [name or int(number) for name, number in _STEP.findall(path)]


def _explained(text: _Text, problem: ConfigProblem) -> ConfigProblem:
    if problem.code == "syntax":
        return _syntax(text.data, problem)
    steps = ["apiVersion"] if problem.code in {"unknown_kind", "bad_group_version"} else _steps(problem.path)
    place = text.locator.find(steps, key=problem.code.startswith("strict_"))
    if place is None:
        return problem
    problem = replace(problem, line=place.line, column=place.column)
    explain = _EXPLANATIONS.get(problem.code)
    return explain(problem, place, text) if explain is not None else problem


# --- syntax ---------------------------------------------------------------------------------------------------------


def _syntax(data: bytes, problem: ConfigProblem) -> ConfigProblem:
    text = data.decode("utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8", errors="replace")
    lines = text.removeprefix("\ufeff").split("\n")
    near = [number for number in (problem.line, (problem.line or 0) - 1, (problem.line or 0) + 1) if number]
    near = [number for number in near if 0 < number <= len(lines)]
    for look in _LOOKS:
        for number in near:
            found = look(lines[number - 1].rstrip("\r"))
            if found is not None:
                column, message, remedy = found
                return replace(problem, message=message, line=number, column=column, remedy=remedy)
    # A quote that is not closed swallows what follows, and fails far behind.
    for number, line in enumerate(lines[: problem.line or 0], 1):
        if (found := _open_quote(line)) is not None:
            return replace(problem, message=found[1], line=number, column=found[0], remedy=found[2])
    if len(lines) > 4 and not text.lstrip().startswith("{") and not re.search(r"(?m)^[ ]+\S", text):
        message = "the indentation is lost: every line stands at the left"
        return replace(problem, message=message, remedy="copy the file again with its blanks, or indent it by hand")
    if problem.line is None:
        return replace(problem, remedy="correct the text; a YAML or JSON file is expected")
    if text.lstrip().startswith("{"):
        remedy = (
            "a file that begins with a brace is read as JSON alone: no comments, double quotes, no comma at the end"
        )
        return replace(problem, remedy=remedy)
    remedy = f"look at lines {max(1, problem.line - 1)} and {problem.line}: indentation, a missing quote or colon"
    return replace(problem, remedy=remedy)


_Found = tuple[int, str, str] | None


def _tab(line: str) -> _Found:
    blanks = line[: len(line) - len(line.lstrip(" \t"))]
    if "\t" not in blanks:
        return None
    return blanks.index("\t") + 1, "a tab in the indentation", "indent with spaces; YAML allows no tabs there"


def _odd_character(line: str) -> _Found:
    for column, char in enumerate(line, 1):
        if char < " " and char != "\t":
            return column, f"a control character (U+{ord(char):04X})", "remove it"
        if char > "~" and (unicodedata.category(char) in {"Pi", "Pf", "Ps", "Pd", "Zs", "Cf"} or char == "\ufffd"):
            return column, f"the character is {_named(char)}", _instead_of(char)
    return None


def _star(line: str) -> _Found:
    found = re.search(r"(?:^|[\s\[,])(\*[a-z0-9.*-]{0,60})(?=[\s,\]#]|$)", line)
    if found is None:
        return None
    return found.start(1) + 1, f"{found[1]} needs quotes: a * begins an alias in YAML", f'write "{found[1]}"'


def _conflict(line: str) -> _Found:
    if not re.match(r"(<<<<<<<|=======|>>>>>>>)(\s|$)", line):
        return None
    return 1, "a conflict of a version control system that was not resolved", "resolve it: keep one of the two versions"


def _no_blank(line: str) -> _Found:
    found = re.match(r"\s*(?:-\s+)*(apiVersion|kind|name|secret|endpoint|timeout|cachesize):(?=[^\s])", line)
    if found is None:
        return None
    return found.end() + 1, f"a blank is missing behind {found[1]}:", f"write `{found[1]}: ` with a blank"


def _open_quote(line: str) -> _Found:
    found = re.match(r"[^#]*?:\s+([\"'])", line)
    if found is None or line.count(found[1]) % 2 == 0:
        return None
    return found.start(1) + 1, "the quote that opens here is not closed in this line", "close it"


_LOOKS: tuple[Callable[[str], _Found], ...] = (_conflict, _tab, _star, _open_quote, _odd_character, _no_blank)


def _named(char: str) -> str:
    what = "a typographic quote, " if unicodedata.category(char) in {"Pi", "Pf"} or char in "\u201a\u201e" else ""
    return f"{what}U+{ord(char):04X} {unicodedata.name(char, '')}".rstrip()


def _instead_of(char: str) -> str:
    if char in "\u2018\u2019\u201a\u201b":
        return "write a plain quote (')"
    if unicodedata.category(char) in {"Pi", "Pf"} or char == "\u201e":
        return 'write plain quotes (")'
    if unicodedata.category(char) == "Pd":
        return "write a plain hyphen (-)"
    return "write a plain space" if unicodedata.category(char) == "Zs" else "remove it, or retype the line"


# --- rules ----------------------------------------------------------------------------------------------------------


def _duplicate(problem: ConfigProblem, _place: Place, _text: _Text) -> ConfigProblem:
    return replace(problem, remedy="remove one of the two; servers before 1.31 took the last")


def _unknown_field(problem: ConfigProblem, _place: Place, _text: _Text) -> ConfigProblem:
    if re.fullmatch(r"resources\[[0-9]+\]\.providers\[[0-9]+\]\.[A-Za-z]+", problem.path):
        return replace(problem, remedy=f"no provider is called so; write {_PROVIDERS}")
    name = problem.path.rpartition(".")[2]
    near = get_close_matches(name.lower(), [known.lower() for known in _FIELDS], n=1)
    meant = next((known for known in _FIELDS if near and known.lower() == near[0]), "")
    question = f"did you mean {meant}? " if meant else ""
    return replace(problem, remedy=f"{question}remove or correct it; servers before 1.31 overlooked it")


def _not_base64(problem: ConfigProblem, place: Place, _text: _Text) -> ConfigProblem:
    text = place.text or ""
    message, remedy = _why_not_base64(text)
    return replace(problem, message=message, remedy=remedy)


def _why_not_base64(text: str) -> tuple[str, str]:
    rule = "it is not standard base64 with padding"
    odd = next((char for char in text if char > "~" and not char.isalnum()), None)
    if odd is not None:
        return f"{rule}: it holds {_named(odd)}", _instead_of(odd)
    if text.startswith("ENC["):
        return f"{rule}: it is encrypted by sops", "decrypt the file with `sops -d` first"
    if _PLACEHOLDER.search(text):
        return f"{rule}: it looks like a placeholder that was not filled in", "put the key there"
    bare = re.sub(r"\s", "", text)
    if bare != text and decode_base64(bare) is not None:
        return f"{rule}: a line was folded, which leaves a blank in it", "write the secret in one line"
    standard = bare.replace("-", "+").replace("_", "/")
    standard += "=" * (-len(standard) % 4)
    if decode_base64(standard) is not None and re.search("[-_]", bare):
        return f"{rule}: it is URL-safe base64", "write + for each - and / for each _ (the bytes stay the same)"
    if decode_base64(standard) is not None and standard != bare:
        missing = len(standard) - len(bare)
        return f"{rule}: the padding is missing", f"add {'=' * missing} at the end, if nothing was cut off"
    if bare.endswith("="):
        return f"{rule}: {len(bare)} characters, a number that base64 does not have", "copy the whole secret again"
    return rule, "encode the key as base64: 16, 24 or 32 bytes (secretbox: 32)"


def _key_length(problem: ConfigProblem, place: Place, _text: _Text) -> ConfigProblem:
    secret = decode_base64(place.text or "") or b""
    try:
        inside = base64.b64decode(secret.strip(), validate=True)
    except (ValueError, binascii.Error):
        inside = b""
    if len(secret) == 48 and _HEX.fullmatch(place.text or ""):
        remedy = "it is written in hex: encode the 32 bytes themselves as base64"
    elif _HEX.fullmatch(secret.decode("latin-1")):
        remedy = "it is base64 of a text in hex: encode the bytes themselves"
    elif len(inside) in {16, 24, 32}:
        remedy = f"it is base64 of base64: decoded twice it has {counted(len(inside), 'byte')}"
    elif secret.endswith(b"\n"):
        remedy = "it ends with a line break, as `echo` without -n leaves one: encode the key alone"
    else:
        remedy = "copy the key again, or look which provider it is for"
    return replace(problem, remedy=remedy)


def _no_provider(problem: ConfigProblem, _place: Place, text: _Text) -> ConfigProblem:
    value = text.value(problem.path)
    names = [name for name in value if isinstance(name, str)] if isinstance(value, dict) else []
    if names == ["identity"]:
        return replace(problem, remedy="write `identity: {}`")
    if names and all(re.fullmatch("[A-Za-z]{1,20}", name) for name in names):
        listed = ", ".join(names)
        return replace(problem, message=f"it names no provider: {listed}", remedy=f"write {_PROVIDERS}")
    return replace(problem, remedy=f"write {_PROVIDERS}, indented below the dash")


def _wrong_type(problem: ConfigProblem, _place: Place, text: _Text) -> ConfigProblem:
    tree = text.tree
    strays = sorted({"providers", "keys", "secret"} & set(tree)) if isinstance(tree, dict) else []
    if strays:
        message = f"the indentation is lost: `{strays[0]}` stands at the beginning of a line"
        return replace(problem, message=message, remedy="copy the file again with its blanks, or indent it by hand")
    return replace(problem, remedy="correct the line; look at its indentation too")


def _unknown_kind(problem: ConfigProblem, place: Place, text: _Text) -> ConfigProblem:
    tree = text.tree
    kind, version = (tree.get("kind"), tree.get("apiVersion")) if isinstance(tree, dict) else ("", "")
    if kind not in {"EncryptionConfiguration", "EncryptionConfig"}:
        return problem
    wanted = "v1" if kind == "EncryptionConfig" else "apiserver.config.k8s.io/v1"
    shown = version if isinstance(version, str) and re.fullmatch(r"[a-z0-9./_-]{1,60}", version) else "this"
    message = f"apiVersion {shown} has no kind {kind}"
    return replace(problem, message=message, line=place.line, remedy=f"write `apiVersion: {wanted}`")


_EXPLANATIONS: dict[str, Callable[[ConfigProblem, Place, _Text], ConfigProblem]] = {
    "strict_duplicate_key": _duplicate,
    "strict_unknown_field": _unknown_field,
    "not_base64": _not_base64,
    "key_length": _key_length,
    "no_provider": _no_provider,
    "wrong_type": _wrong_type,
    "unknown_kind": _unknown_kind,
}
