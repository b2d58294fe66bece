"""What records are called: the resource of every key, the provider and key name in front of every value.

The bytes that decide (a few leading path segments of a key; the text up to the fifth colon of a value that begins with
`k8s:enc:`) are cut out and numbered by `kube.cutting`; here is what each distinct text means.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from snaptool.bolt import numbers
from snaptool.etcd import Records
from snaptool.kube.cutting import MOST_TEXTS, Headers, Paths, renumber, weigh
from snaptool.kube.keys import COMPACT_REVISION_KEY, parse_key, resource_segments
from snaptool.kube.objects import plausible
from snaptool.providers.keyring import GroupResource
from snaptool.providers.provider import Kind

ENCRYPTED = b"k8s:enc:"
_SLASH, _COLON = ord("/"), ord(":")
_HEADER_COLONS = 5  # k8s:enc:PROVIDER:VERSION:NAME:
_WINDOW = 96
_SAMPLES = 8
LONGEST_HEADER = 4096
_MOST_NAMES = MOST_TEXTS

NO_KEY_NAME = "(no key name)"
"""Shown where no colon ends the name, or what stands before the colon is no text: the value is damaged there."""

_KINDS = {
    b"aescbc:v1": Kind.AESCBC,
    b"aesgcm:v1": Kind.AESGCM,
    b"secretbox:v1": Kind.SECRETBOX,
    b"kms:v1": Kind.KMS_V1,
    b"kms:v2": Kind.KMS_V2,
}


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as it occurs in a snapshot.

    `name` is for people and JSON: `secrets`, `deployments.apps`, `foos.?`, or `(other)` for keys under no known prefix.
    `group_resource` chooses the chain: None when no configuration can name it. `encryptable`: API servers encrypt it.
    """

    name: str
    group_resource: GroupResource | None
    encryptable: bool

    @property
    def needs_an_object(self) -> bool:
        """Is the plural known to nobody, so that anything may lie there?"""
        return self.group_resource is not None and self.group_resource.group is None


@dataclass(frozen=True, slots=True)
class Header:
    """What stands in front of a stored value: empty for plaintext.

    `name` is that of the configured key that has it (`certain`). Where none has, it is what all values of the kind have
    in common up to a colon, since names may hold colons; `goes_on`: that looks like a part of the name only.
    """

    kind: Kind | None
    name: str
    certain: bool = False
    goes_on: bool = False

    @property
    def key_name(self) -> str | None:
        """The name of the encryption key as far as it is known; None for plaintext, and where there is none."""
        return self.name if self.kind and self.name not in {"", NO_KEY_NAME} else None

    @property
    def shown(self) -> str:
        """The name for people: marked where it may go on."""
        return f"{self.name}:…" if self.goes_on else self.name

    @property
    def provider(self) -> str:
        """The provider's name in reports; `unknown` for what begins like an encrypted value and is none we know."""
        return self.kind or "unknown"

    @property
    def text(self) -> bytes:
        """The header as it stands in front of values; empty for plaintext, unknown providers, and with no key name."""
        if self.name == NO_KEY_NAME:
            return b""
        return header_text(self.kind, self.name)


def header_text(kind: Kind | None, name: str) -> bytes:
    """Return what stands in front of values under a key of that name; empty for what is no kind of encryption."""
    return next(
        (ENCRYPTED + text + b":" + name.encode() + b":" for text, known in _KINDS.items() if known is kind), b""
    )


PLAIN = Header(Kind.IDENTITY, "", certain=True)
NOT_KUBERNETES = Resource("(other)", None, encryptable=False)


def resource_of(key: bytes, prefixes: Sequence[str]) -> Resource:
    """Tell the resource of one etcd key."""
    parsed = parse_key(key, prefixes)
    if parsed is None:
        return NOT_KUBERNETES
    group_resource = GroupResource(parsed.resource, parsed.group) if parsed.encryptable else None
    return Resource(parsed.group_resource, group_resource, parsed.encryptable)


def resource_of_value(key: bytes, stored: bytes, prefixes: Sequence[str]) -> Resource:
    """Tell the resource of one record, as `Labels` does: plaintext under an unknown plural has to be an object."""
    resource = resource_of(key, prefixes)
    return NOT_KUBERNETES if resource.needs_an_object and is_foreign(stored) else resource


def is_foreign(stored: bytes) -> bool:
    """Is a value in plaintext, and no API object?"""
    return not stored.startswith(ENCRYPTED) and not plausible(stored)


def header_of(stored: bytes) -> Header:
    """Tell what stands in front of one stored value, whatever names keys may have."""
    if not stored.startswith(ENCRYPTED):
        return PLAIN
    *fields, _ = stored[:LONGEST_HEADER].split(b":", _HEADER_COLONS)
    kind = _KINDS.get(b":".join(fields[2:4]))
    if len(fields) < _HEADER_COLONS:
        return Header(kind, NO_KEY_NAME)
    try:
        text = b":".join(fields).decode()
    except UnicodeDecodeError:
        return Header(kind, NO_KEY_NAME)  # no configuration can hold it: the colon is one of the ciphertext
    return Header(kind, text.split(":")[-1] if kind else text[:_WINDOW])


class Labels:
    """Resources and headers of one snapshot, numbered in the order in which they were met.

    `names`: those of the keys at hand, by kind. Without them, a colon in a name is as good as the one that ends it.
    """

    def __init__(self, prefixes: Sequence[str], names: Iterable[tuple[Kind, str]] = ()) -> None:
        self.resources: list[Resource] = [NOT_KUBERNETES]
        self.group_resources = [NOT_KUBERNETES.group_resource]
        self.headers: list[Header] = [PLAIN]
        # A key under nested prefixes is of the longest.
        self.prefixes = tuple(sorted(prefixes, key=lambda prefix: (-len(prefix), prefix)))
        self._resource_of: dict[Resource, int] = {NOT_KUBERNETES: 0}
        self._header_of: dict[Header, int] = {PLAIN: 0}
        self._configured = {header_text(*name): Header(*name, certain=True) for name in names}
        self._with_colons = sorted((text for text in self._configured if text.count(b":") > _HEADER_COLONS), key=len)
        self._common: dict[int, bytes] = {}
        self._goes_on: dict[int, bool] = {}
        self._paths: Paths | None = None
        self._resource_numbers = array("q")  # by number of a path
        self._header_numbers = array("q")  # by number of what stands in front
        self._plain = array("q")  # bytes of plain values by number of a path
        self._weights: dict[tuple[int, int], int] = {}
        self._doubtful: set[int] = set()
        self._open_names: set[int] = set()  # headers behind whose names all values so far have text up to a colon
        self._texts = numbers(0)
        self.resource = numbers(0)
        """Of each record that was added last: an index into `resources`."""
        self.header = numbers(0)
        """The same, into `headers`."""

    @property
    def paths(self) -> Paths:
        """The paths of resources that were met. Their numbers, of each record that was added last: `path_of`."""
        assert self._paths is not None
        return self._paths

    def path_of(self) -> memoryview:
        """Number the path of the resource of each record that was added last."""
        return self._texts

    def add(self, records: Records) -> list[int]:
        """Take the records of a chunk into `resource` and `header`; return the rows of the encrypted values."""
        count = len(records)
        if self._paths is None:
            heads = [prefix.encode(errors="surrogateescape") + b"/" for prefix in self.prefixes]
            self._paths = Paths(records.view, heads, resource_segments, COMPACT_REVISION_KEY)
            self._headers = Headers(records.view, ENCRYPTED, self._with_colons)
        if len(self._texts) < records.room:
            self._texts, self._fronts = numbers(records.room), numbers(records.room)
            self._resources, self._headings = numbers(records.room), numbers(records.room)
        self._paths.cut(records.key_at, records.key_size, count, self._texts)
        encrypted = self._headers.cut(records.value_at, records.value_size, count, self._fronts)
        for number, text in enumerate(self._paths.met()[len(self._resource_numbers) :], len(self._resource_numbers)):
            self._resource_numbers.append(self._learn_resource(text, number))
        for text in self._headers.met()[len(self._header_numbers) :]:
            self._header_numbers.append(self._learn_front(text))
        self.resource, self.header = self._resources[:count], self._headings[:count]
        renumber(self._texts, memoryview(self._resource_numbers), count, self.resource)
        renumber(self._fronts, memoryview(self._header_numbers), count, self.header)
        if len(self._plain) < len(self._resource_numbers):
            self._plain.extend([0] * len(self._resource_numbers))
        weigh(self._texts, self._fronts, records.value_size, count, memoryview(self._plain), self._weights)
        if self._doubtful:
            self._leave_out(records)
        for row in encrypted:
            if self.header[row] in self._open_names:
                self._look_behind(records, row)
        return encrypted

    def value_bytes(self) -> dict[tuple[int, int], int]:
        """Add up the bytes of all values by numbers of resource and header."""
        total: dict[tuple[int, int], int] = {}
        plain = {(path, 0): size for path, size in enumerate(self._plain[: len(self._resource_numbers)]) if size}
        for (path, front), size in (plain | self._weights).items():
            pair = self._resource_numbers[path], self._header_numbers[front]
            total[pair] = total.get(pair, 0) + size
        return total

    def _learn_resource(self, path: bytes, number: int) -> int:
        if not path:
            return 0
        found = self._learn_path(path + b"-" if self.paths.ends_open(number) else path, 1 << 30)
        if self.resources[found].needs_an_object:
            self._doubtful.add(found)
        return found

    def _leave_out(self, records: Records) -> None:
        """Take plaintext under plurals that nobody knows for another program's, unless it is an API object."""
        for row, number in enumerate(self.resource):
            if number in self._doubtful and records.is_put(row) and is_foreign(records.value(row)):
                self.resource[row] = 0
                self._plain[self._texts[row]] -= records.value_size[row]
                self._plain[0] += records.value_size[row]

    def _look_behind(self, records: Records, row: int) -> None:
        """Learn what all values under a name that no key at hand has have in common behind it: it may go on there."""
        number = self.header[row]
        start = records.value_at[row] + len(self._headers.met()[self._fronts[row]])
        end = min(start + _WINDOW, records.value_at[row] + records.value_size[row])
        tail = bytes(records.view[start:end])
        common = self._common.setdefault(number, tail)
        while not tail.startswith(common):
            common = common[:-1]
        self._common[number] = common
        self._goes_on[number] = bool(text_before_colon(tail))
        if not self._goes_on[number]:
            self._open_names.discard(number)

    def _learn_path(self, path: bytes, slashes: int = 1) -> int:
        # A path that goes on has all its slashes and any name may follow; one that has fewer is a key that ends there.
        resource = resource_of(path + b"-" if path.count(b"/") >= slashes else path, self.prefixes)
        if resource not in self._resource_of:
            self._resource_of[resource] = len(self.resources)
            self.resources.append(resource)
            self.group_resources.append(resource.group_resource)
        return self._resource_of[resource]

    def named_headers(self) -> tuple[Header, ...]:
        """Return `headers` with the names that they have in the end, when all values are known."""
        return tuple(self._named(number, header) for number, header in enumerate(self.headers))

    def _named(self, number: int, header: Header) -> Header:
        if not self._goes_on.get(number, False):
            return header
        more = text_before_colon(self._common[number])
        return Header(header.kind, f"{header.name}:{more}" if more else header.name, goes_on=True)

    def _learn_front(self, text: bytes) -> int:
        if not text:
            return 0
        return self._learn_header(text if len(self._header_numbers) < MOST_TEXTS else b"")

    def _learn_header(self, text: bytes) -> int:
        header = self._configured.get(text) or header_of(text)
        if not text or (header not in self._header_of and len(self.headers) >= _MOST_NAMES):
            header = Header(None, "(many more names)")
        if header not in self._header_of:
            self._header_of[header] = len(self.headers)
            if not header.certain and header.key_name is not None:
                self._open_names.add(len(self.headers))
            self.headers.append(header)
        return self._header_of[header]


def text_before_colon(tail: bytes) -> str:
    """Return what of a name may stand before the last colon that printable text leads to."""
    for end in range(tail.rfind(b":"), 0, -1):
        if tail[end : end + 1] == b":":
            try:
                text = tail[:end].decode()
            except UnicodeDecodeError:
                continue
            if text.isprintable():
                return text
    return ""
