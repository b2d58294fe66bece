"""The live records that an export looks at, and opening and decoding them one by one.

Rows are columns of numbers, some dozen bytes for each, so that an export of all objects of a large cluster stays small;
an object is opened, decoded and let go of again each time it is looked at.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from snaptool.errors import FormatError
from snaptool.etcd import KeyValue, Records, StoredRecord, decode_key_value
from snaptool.kube.cutting import order_of_keys
from snaptool.kube.export import Kind, Tree, group_of
from snaptool.kube.keys import RESOURCE_TYPES, ResourceKey, ResourceType, parse_key
from snaptool.kube.kinds.reader import Decoded, decode_object
from snaptool.kube.kinds.served import as_served
from snaptool.operations.crypto import Outcome, open_value
from snaptool.operations.labels import Labels, header_of, resource_of
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.reasons import explain
from snaptool.operations.sweep import Progress
from snaptool.providers.keyring import Keyring
from snaptool.providers.provider import Kind as ProviderKind

Wanted = Callable[[ResourceKey], bool]


@dataclass(frozen=True, slots=True)
class Row:
    """One live record: its key, what that stands for, and where its value is in the file."""

    index: int
    key: ResourceKey
    revision: int
    value_pos: int
    value_len: int

    @property
    def namespace(self) -> str:
        """The namespace, empty for cluster-scoped objects."""
        return self.key.namespace or ""


@dataclass(slots=True)
class Rows:
    """Chosen records in the order of the file. `paths`: of their resources, which `path` numbers.

    Keys are copied, one behind the other: sorting them in the file would bring every page of it into memory.
    """

    opened: OpenedSnapshot
    prefixes: tuple[str, ...]
    keys: bytearray = field(default_factory=bytearray)
    key_end: array[int] = field(default_factory=lambda: array("q", [0]))
    value_pos: array[int] = field(default_factory=lambda: array("q"))
    value_len: array[int] = field(default_factory=lambda: array("q"))
    main: array[int] = field(default_factory=lambda: array("q"))
    path: array[int] = field(default_factory=lambda: array("i"))
    paths: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number_of(self, path: str) -> int:
        """Number a path of a resource."""
        number = self._numbers.setdefault(path, len(self.paths))
        if number == len(self.paths):
            self.paths.append(path)
        return number

    def add(self, key: ResourceKey, records: Records, row: int) -> None:
        """Take a record, which has this key."""
        self.keys += key.key
        self.key_end.append(len(self.keys))
        self.value_pos.append(records.value_at[row])
        self.value_len.append(records.value_size[row])
        self.main.append(records.main[row])
        self.path.append(self.number_of(key.path))

    def of_paths(self, paths: Collection[str]) -> Iterator[Row]:
        """Yield the rows of some resources."""
        wanted = {self._numbers[path] for path in paths if path in self._numbers}
        return (self[index] for index, number in enumerate(self.path) if number in wanted)

    def __len__(self) -> int:
        return len(self.main)

    def __getitem__(self, index: int) -> Row:
        key = parse_key(bytes(self.keys[self.key_end[index] : self.key_end[index + 1]]), self.prefixes)
        assert key is not None
        return Row(index, key, self.main[index], self.value_pos[index], self.value_len[index])

    def __iter__(self) -> Iterator[Row]:
        for index in range(len(self)):
            if index % _LET_GO == _LET_GO - 1:
                self.opened.between_chunks(None)
            yield self[index]

    def in_order_of_keys(self, indexes: Sequence[int]) -> Iterator[int]:
        """Sort rows by the bytes of their keys."""
        at = array("q", [self.key_end[index] for index in indexes])
        size = array("q", [self.key_end[index + 1] - self.key_end[index] for index in indexes])
        with memoryview(self.keys) as keys:
            order = order_of_keys(keys, memoryview(at), memoryview(size))
        return (indexes[row] for row in order)

    def stored(self, row: Row) -> bytes:
        """Return the value as it is stored."""
        return bytes(memoryview(self.opened.source.buffer)[row.value_pos : row.value_pos + row.value_len])


_LET_GO = 2000


def collect_rows(
    opened: OpenedSnapshot, prefixes: tuple[str, ...], revision: int | None, wanted: Wanted, progress: Progress
) -> Rows:
    """Pass over the records and keep the live ones that are wanted. `wanted` is asked once for each live object."""
    snapshot = opened.snapshot
    live = snapshot.live(revision)
    rows, labels = Rows(opened, prefixes), Labels(prefixes)
    walk, pages = snapshot.database.new_walk(), snapshot.database.high_water_mark
    for records in snapshot.chunks(walk=walk):
        opened.between_chunks(records)
        progress("reading", walk.pages_seen(), pages)
        labels.add(records)
        alive = live[records.first_record : records.first_record + len(records)]
        for row, resource in enumerate(labels.resource):
            if resource and alive[row]:  # 0: not Kubernetes'
                key = parse_key(records.user_key(row), prefixes)
                if key is not None and key.name and wanted(key):
                    rows.add(key, records, row)
    return rows


# -- opening and decoding --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LostValue:
    """A value that no key opens."""

    key: bytes
    revision: int
    provider: str
    key_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One object, decoded. `older`: the older revision that its content is from, 0 for the current one."""

    row: Row
    kind: Kind
    decoded: Decoded = field(repr=False)
    older: int = 0

    @property
    def tree(self) -> Tree:
        """The object as the API server shows it; may be changed."""
        return self.decoded.tree

    @property
    def name(self) -> str:
        """KIND NAMESPACE/NAME, for notes."""
        return object_name(self.kind, self.row.namespace, self.row.key.name)


def object_name(kind: Kind, namespace: str, name: str) -> str:
    """Name an object in a note: `Deployment shop/web`, `PersistentVolume pv-1`."""
    return f"{kind.kind} {namespace}/{name}" if namespace else f"{kind.kind} {name}"


class Reader:
    """Opens and decodes rows. `lost` and `undecodable`: what did not, by key, each said once.

    `older`: records that stand in for values that are lost; `find_older` looks for them.
    """

    def __init__(self, rows: Rows, keyring: Keyring | None) -> None:
        self._rows = rows
        self._keyring = keyring or Keyring()
        self._with_config = keyring is not None
        self.older: dict[bytes, StoredRecord] = {}
        self.lost: dict[bytes, LostValue] = {}
        self.undecodable: dict[bytes, str] = {}

    def read(self, row: Row) -> Seen | None:
        """Open and decode; None where that fails, which is noted."""
        plaintext, revision, older = self._open(row)
        if plaintext is None:
            return None
        try:
            decoded = decode_object(plaintext)
            tree = as_served(decoded.tree, row.revision if not older else revision)
        except FormatError as error:
            self.undecodable[row.key.key] = str(error)
            return None
        kind = _kind_of(tree, row.key)
        return Seen(row, kind, Decoded(tree, decoded.known, decoded.unknown, decoded.undecoded), older)

    def _open(self, row: Row) -> tuple[bytes | None, int, int]:
        stored = self._rows.stored(row)
        outcome, plaintext = self.open_stored(row.key.key, stored)
        if plaintext is not None:
            return plaintext, row.revision, 0
        record = self.older.get(row.key.key)
        if record is not None:
            _, plaintext = self.open_stored(row.key.key, self._value(record).value)
            return plaintext, record.revision.main, record.revision.main
        header = header_of(stored)
        self.lost[row.key.key] = LostValue(
            key=row.key.key,
            revision=row.revision,
            provider=header.provider,
            key_name=header.name,
            reason=explain(outcome, header, with_config=self._with_config),
        )
        return None, row.revision, 0

    def open_stored(self, key: bytes, stored: bytes) -> tuple[Outcome, bytes | None]:
        """Open one value. What is stored in plaintext is shown whatever the configurations say."""
        chain = self._keyring.chain_for(resource_of(key, self._rows.prefixes).group_resource)
        outcome, plaintext = open_value(chain, stored, key)
        if header_of(stored).kind is ProviderKind.IDENTITY:
            return outcome, stored
        return outcome, plaintext if outcome.opened else None

    def find_older(self) -> int:
        """Look for what can stand in for all that is lost: the newest older value of the same life that opens.

        One pass over the records. What is found is lost no more; returns how many that are.
        """
        before = len(self.lost)
        for key, records in self._rows.opened.snapshot.history_of(self.lost).items():
            found = self._newest_that_opens(key, records, self.lost[key].revision)
            if found is not None:
                self.older[key] = found
                del self.lost[key]
        return before - len(self.lost)

    def _newest_that_opens(self, key: bytes, records: list[StoredRecord], revision: int) -> StoredRecord | None:
        of_life = 0
        for record in reversed([one for one in records if one.revision.main <= revision and not one.tombstone]):
            value = self._value(record)
            of_life = of_life or value.create_revision
            if value.create_revision != of_life:
                return None
            if self.open_stored(key, value.value)[1] is not None:
                return record
        return None

    def _value(self, record: StoredRecord) -> KeyValue:
        return decode_key_value(self._rows.opened.snapshot.stored_value(record))


def _kind_of(tree: Tree, key: ResourceKey) -> Kind:
    """Tell the kind, under the group that serves the resource today."""
    api_version, kind = tree.get("apiVersion"), tree.get("kind")
    group = group_of(api_version if isinstance(api_version, str) else "")
    known = known_type(key)
    name = kind if isinstance(kind, str) else ""
    if known is not None and known.kind == name and group in known.former_groups:
        group = known.group
    return Kind(name, group)


_TYPE_OF_PATH = {one.path: one for one in RESOURCE_TYPES}


def known_type(key: ResourceKey) -> ResourceType | None:
    """Return the built-in type of a key's resource."""
    return _TYPE_OF_PATH.get(key.path)
