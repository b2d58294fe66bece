"""Make snaptool/kube/kinds/table.txt from the published API modules: `python -m tests.generators.kinds` (`make kinds`).

Theory of operation. A Go module of Kubernetes' API is text that gofmt has written, so that a struct is read line by
line: a field has a name, a Go type, a json tag and a protobuf tag. Of those the number, the name in JSON and the
presence follow (docs/formats/kinds.md, "The table of fields"). One patch release of each minor is read, oldest first; a
later one wins, what only older ones have stays, and where a release differs in what it shows, a `!` line says so. No Go
code is built or run; Go is only needed to fetch the modules through its proxy.

The table is one line a message, as in its head. It lies in the package; this program lies with the tests, because
users have no need of it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "snaptool" / "kube" / "kinds" / "table.txt"

RELEASES = (
    *("16.15", "17.17", "18.2", "19.16", "20.15", "21.14", "22.17", "23.17", "24.17", "25.16", "26.15"),
    *("27.16", "28.15", "29.15", "30.14", "31.14", "32.13", "33.13", "34.13", "35.10", "36.6", "37.2"),
)
"""One of each minor: 1.16 to 1.37. k8s.io/api v0.18.2 and not later, whose module is not whole."""

MODULES = {
    "k8s.io/api": "",
    "k8s.io/apimachinery": "pkg/apis",
    "k8s.io/kube-aggregator": "pkg/apis",
}
"""Module to the folder in it that has packages named GROUP/VERSION."""

_HEAD = """\
# Every kind that Kubernetes 1.16 to 1.37 stored, made by tests/generators/kinds.py. Do not edit.
# @GROUP/VERSION PACKAGE KIND...
# !MESSAGE NUMBER FIRST-LAST PRESENCE[:TYPE]   releases that show a field in another way
# +MESSAGE NUMBER=KEY,KEY...                   lists that are maps by these keys; = alone: sets
# MESSAGE NUMBER NAME PRESENCE:TYPE...         ~ inline; ? when on the wire, ! else null; * list, % map, & wrapped list
"""

_SPECIAL = {
    "k8s.io/apimachinery/pkg/api/resource.Quantity": "q",
    "k8s.io/apimachinery/pkg/apis/meta/v1.Time": "t",
    "k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime": "T",
    "k8s.io/apimachinery/pkg/apis/meta/v1.Duration": "d",
    "k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1": "f",
    "k8s.io/apimachinery/pkg/util/intstr.IntOrString": "n",
    "k8s.io/apimachinery/pkg/runtime.RawExtension": "r",
    "k8s.io/apimachinery/pkg/types.UID": "s",
    "k8s.io/apimachinery/pkg/types.NodeName": "s",
    "k8s.io/apimachinery/pkg/types.NamespacedName": "s",
}
_SCALARS = {"string": "s", "bool": "b", "int": "i", "int32": "i", "int64": "i", "[]byte": "y"}


@dataclass(frozen=True, slots=True)
class Field:
    """A field as the table has it. `type`: a letter or a message, with `*`, `%` or `&` before it."""

    number: int
    name: str
    presence: str
    type: str
    keys: str | None = None

    def __str__(self) -> str:
        return f"{self.number}{self.name}{self.presence}:{self.type}"


Message = dict[int, Field]
Messages = dict[str, Message]


# -- one release -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Package:
    """The declarations of one Go package, as text. `wrapped`: named lists that are messages of their own."""

    structs: dict[str, list[tuple[list[str], str]]] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    aliases: set[str] = field(default_factory=set)
    imports: dict[str, str] = field(default_factory=dict)
    wrapped: set[str] = field(default_factory=set)
    group: str = ""
    kinds: list[str] = field(default_factory=list)


_STRUCT = re.compile(r"^type (\w+) struct ?\{(?:\}|\n(.*?)^\})", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"^type (\w+) (= )?(?!struct|interface|func)(\S+)$", re.MULTILINE)
_IMPORT = re.compile(r'^\s+(?:import )?(\w+ )?"([\w./-]+)"$', re.MULTILINE)
_BLOCK_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_FIELD = re.compile(r"^\t(?:(\w+)\s+)?([\w.*\[\]]+)\s+`(.*)`")
_MARSHAL = re.compile(r"^func \(m \*?(\w+)\) MarshalTo\(", re.MULTILINE)
_GROUP = re.compile(r'^const GroupName = "(.*)"', re.MULTILINE)
_REGISTERED = re.compile(r"&(\w+)\{\}")


def read_package(folder: Path) -> Package:
    package = Package()
    for path in sorted(folder.glob("*.go")):
        text = path.read_text()
        if path.name == "generated.pb.go":
            package.wrapped |= set(_MARSHAL.findall(text))
        elif path.name == "register.go":
            found = _GROUP.search(text)
            package.group = found[1] if found else ""
            _, _, body = text.partition("func addKnownTypes")
            package.kinds = [kind for kind in _REGISTERED.findall(body) if _is_kind(kind)]
        elif not path.name.startswith("zz_generated") and not path.name.endswith("_test.go"):
            text = _BLOCK_COMMENT.sub("", text)
            for alias, target in _IMPORT.findall(text):
                package.imports[alias.strip() or target.rpartition("/")[2]] = target
            for name, alias, target in _NAMED.findall(text):
                package.named[name] = target
                package.aliases |= {name} if alias else set()
            for name, body in _STRUCT.findall(text):
                package.structs[name] = list(_fields_of(body))
    package.wrapped &= set(package.named)
    return package


def _is_kind(name: str) -> bool:
    return not name.endswith(("List", "Options"))


def _fields_of(body: str) -> Iterator[tuple[list[str], str]]:
    """Yield comments and declaration of each field."""
    comments: list[str] = []
    for line in body.splitlines():
        if line.strip().startswith("//"):
            comments.append(line.strip().removeprefix("//").strip())
        elif line.strip():
            yield comments, line
            comments = []


class Release:
    """One release of all modules."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.packages: dict[str, Package] = {}
        for module, below in MODULES.items():
            top = folders[module] / below
            # apimachinery's other packages under pkg/apis (testapigroup, metav1beta1) hold nothing that is stored.
            only = {"k8s.io/apimachinery": "meta/v1", "k8s.io/kube-aggregator": "apiregistration/*"}
            for folder in sorted(top.glob(only.get(module, "*/v*"))):
                if (folder / "register.go").exists() and re.fullmatch(r"v\d+((alpha|beta)\d+)?", folder.name):
                    path = f"{module}/{folder.relative_to(folders[module])}"
                    self.packages[path] = read_package(folder)

    def kinds(self) -> Iterator[tuple[str, str, str]]:
        """Yield apiVersion, package and kind of everything registered."""
        for path, package in self.packages.items():
            if short(path) == "meta/v1":
                continue
            version = path.rpartition("/")[2]
            api_version = f"{package.group}/{version}" if package.group else version
            for kind in package.kinds:
                if kind in package.structs or kind in package.named:
                    yield api_version, short(path), kind

    def messages(self) -> Messages:
        """Every message that a kind reaches."""
        found: Messages = {}
        wanted = [f"{path}.{kind}" for path, package in self.packages.items() for kind in package.kinds]
        wanted = [name for name in wanted if short(name.rpartition(".")[0]) != "meta/v1"]
        while wanted:
            name = wanted.pop()
            if short_name(name) in found:
                continue
            message = self._message(name)
            found[short_name(name)] = message
            wanted += [self._long[each.type.lstrip("*%&")] for each in message.values() if "/" in each.type]
        return found

    _long: dict[str, str] = {}  # noqa: RUF012 - short message names are the same in every release

    def _message(self, name: str) -> Message:
        path, struct = self._declared_at(name)
        found = {}
        for comments, line in self.packages[path].structs[struct]:
            declared = _FIELD.match(line)
            if declared is None:
                raise ValueError(f"{name}: cannot read {line!r}")
            field_name, go_type, tags = declared.groups()
            made = self._field(path, field_name, go_type, tags, comments)
            if made is not None:
                found[made.number] = made
        return found

    def _declared_at(self, name: str) -> tuple[str, str]:
        """Follow `type X v1.Y` to where the fields of X stand."""
        path, _, struct = name.rpartition(".")
        while struct not in self.packages[path].structs:
            prefix, dot, struct = self.packages[path].named[struct].rpartition(".")
            path = self.packages[path].imports[prefix] if dot else path
        return path, struct

    def _is_struct(self, path: str, name: str) -> bool:
        prefix, dot, struct = self.packages[path].named[name].rpartition(".")
        target = self.packages.get(self.packages[path].imports.get(prefix, "") if dot else path)
        return target is not None and struct in target.structs

    def _field(self, path: str, name: str | None, go_type: str, tags: str, comments: list[str]) -> Field | None:
        tag: dict[str, str] = dict(re.findall(r'(\w+):"([^"]*)"', tags))
        wire = tag.get("protobuf", "-").split(",")
        json_name, *flags = tag.get("json", "").split(",")
        if wire[0] == "-" or json_name == "-":
            return None
        table_type = self._type(path, go_type)
        if "inline" in flags or (not name and not json_name):
            return Field(int(wire[1]), "", "~", table_type)
        pointer, omitempty = go_type.startswith("*"), "omitempty" in flags
        collection = table_type[0] in "*%&" or table_type == "y"
        if (pointer or collection) and not omitempty:
            presence = "!"
        elif "omitzero" in flags or (omitempty and not pointer and (collection or table_type in "sib")):
            presence = ""
        else:
            presence = "?"
        return Field(int(wire[1]), json_name or name or "", presence, table_type, _list_keys(comments))

    def _type(self, path: str, go_type: str) -> str:
        """Turn a Go type into one of the table, as seen from a package."""
        go_type = go_type.removeprefix("*")
        if go_type in _SCALARS:
            return _SCALARS[go_type]
        if go_type.startswith("[]"):
            return "*" + self._type(path, go_type.removeprefix("[]"))
        if go_type.startswith("map["):
            return "%" + self._type(path, go_type.partition("]")[2])
        prefix, dot, name = go_type.rpartition(".")
        target = self.packages[path].imports[prefix] if dot else path
        full = f"{target}.{name}"
        if full in _SPECIAL:
            return _SPECIAL[full]
        package = self.packages[target]
        if name in package.structs or (name not in package.aliases and self._is_struct(target, name)):
            self._long[short_name(full)] = full
            return short_name(full)
        if name in package.wrapped:
            return "&" + self._type(target, package.named[name]).removeprefix("*")
        return self._type(target, package.named[name])


def _list_keys(comments: list[str]) -> str | None:
    """Read `+listType` and `+listMapKey`: the keys of a map, an empty text for a set, None for anything else."""
    marks = [comment.removeprefix("+") for comment in comments if comment.startswith("+")]
    kind = next((mark.partition("=")[2].strip() for mark in marks if mark.startswith("listType=")), "")
    keys = [mark.partition("=")[2].strip() for mark in marks if mark.startswith("listMapKey=")]
    return ",".join(keys) if kind == "map" else "" if kind == "set" else None


def short(path: str) -> str:
    """`k8s.io/api/core/v1` is core/v1 in the table."""
    return "/".join(path.split("/")[-2:])


def short_name(full: str) -> str:
    path, _, name = full.rpartition(".")
    return f"{short(path)}.{name}"


# -- the union -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Union:
    """All releases in one. `exceptions`: message, number, presence and type to the releases that have it so."""

    kinds: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    messages: Messages = field(default_factory=dict)
    exceptions: dict[tuple[str, int, str, str], list[int]] = field(default_factory=dict)


def unite(releases: dict[int, Release]) -> Union:
    union = Union()
    read = {minor: release.messages() for minor, release in releases.items()}
    for minor, messages in read.items():
        for api_version, package, kind in releases[minor].kinds():
            union.kinds.setdefault((api_version, package), set()).add(kind)
        for name, message in messages.items():
            united = union.messages.setdefault(name, {})
            for number, one in message.items():
                united[number] = _newer(name, united.get(number), one, messages, read)
            # A list that this release does not have is not null in it.
            united |= {
                number: replace(one, presence="?")
                for number, one in united.items()
                if number not in message and one.presence == "!"
            }
    for minor, messages in read.items():
        for name, message in messages.items():
            for number, united_field in union.messages[name].items():
                one = message.get(number) or replace(united_field, presence="?")
                if number not in message and united_field.presence != "!":
                    continue
                other = "" if _alike(one.type, united_field.type, messages, union.messages) else f":{one.type}"
                if one.presence != united_field.presence or other:
                    union.exceptions.setdefault((name, number, one.presence, other), []).append(minor)
    _drop_unused(union)
    return union


def _drop_unused(union: Union) -> None:
    """Drop the messages that only an older release of a field's type reached."""
    wanted = [f"{package}.{kind}" for (_, package), kinds in union.kinds.items() for kind in kinds]
    wanted += [other.lstrip(":*%&") for _, _, _, other in union.exceptions if other]
    used: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in used:
            used.add(name)
            wanted += [one.type.lstrip("*%&") for one in union.messages[name].values() if "/" in one.type]
    union.messages = {name: message for name, message in union.messages.items() if name in used}


def _newer(message: str, old: Field | None, new: Field, messages: Messages, read: dict[int, Messages]) -> Field:
    """Take the newer field; of two message types the newer, except where the older one has more in it."""
    if old is None or old.type == new.type:
        return new
    if old.name != new.name or "/" not in old.type or "/" not in new.type:
        raise ValueError(f"{message}: field {new.number} was {old} and is {new}")
    older = next(of[old.type.lstrip("*%&")] for of in reversed(read.values()) if old.type.lstrip("*%&") in of)
    newer = messages[new.type.lstrip("*%&")]
    still_used = old.type.lstrip("*%&") in messages
    return replace(new, type=old.type) if still_used and set(older) > set(newer) and old.name == "resources" else new


def _alike(one: str, other: str, messages: Messages, union: Messages) -> bool:
    """Does a message type of one release show what the union's type in its place shows?"""
    if one == other:
        return True
    mine, theirs = messages[one.lstrip("*%&")], union[other.lstrip("*%&")]
    return all(
        number in theirs and (theirs[number].name, theirs[number].presence) == (each.name, each.presence)
        for number, each in mine.items()
    )


def lines(union: Union) -> Iterator[str]:
    for (api_version, package), kinds in sorted(union.kinds.items()):
        yield f"@{api_version} {package} {' '.join(sorted(kinds))}"
    for (name, number, presence, other), minors in sorted(union.exceptions.items()):
        for first, last in _runs(minors):
            yield f"!{name} {number} {first}-{last} {presence}{other}"
    for name, message in sorted(union.messages.items()):
        marked = [f"{number}={one.keys}" for number, one in sorted(message.items()) if one.keys is not None]
        if marked:
            yield f"+{name} {' '.join(marked)}"
    for name, message in sorted(union.messages.items()):
        yield " ".join([name, *(str(one) for _, one in sorted(message.items()))])


def _runs(minors: list[int]) -> Iterator[tuple[int, int]]:
    start = 0
    for end in range(1, len(minors) + 1):
        if end == len(minors) or minors[end] != minors[end - 1] + 1:
            yield minors[start], minors[end - 1]
            start = end


# -- fetching --------------------------------------------------------------------------------------------------------


def fetch(release: str) -> dict[str, Path]:
    """Have Go fetch the modules of a release; return their folders."""
    wanted = [f"{module}@v0.{release}" for module in MODULES]
    with tempfile.TemporaryDirectory() as elsewhere:  # outside of any module, so that no go.mod is touched
        done = subprocess.run(
            ["go", "mod", "download", "-json", *wanted], cwd=elsewhere, check=True, capture_output=True, text=True
        )
    documents = json.loads("[" + done.stdout.replace("}\n{", "},{") + "]")
    return {document["Path"]: Path(document["Dir"]) for document in documents}


def make() -> str:
    """Return the text of the table."""
    union = unite({int(release.partition(".")[0]): Release(fetch(release)) for release in RELEASES})
    return _HEAD + "\n".join(lines(union)) + "\n"


if __name__ == "__main__":
    TABLE.write_text(make())
    sys.stdout.write(f"{TABLE.relative_to(ROOT)} is made\n")
