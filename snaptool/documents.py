"""Every JSON document that a command prints, as types: docs/json.md says what each field means.

They are made beside the command that prints them; mypy holds them to these. Bytes and paths become text when they are
printed, by the one rule for foreign text. Documents that are written row by row (`list`, `diff`, `export`) are typed by
row. The store and the records of `audit` are the fleet's: docs/audit.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired, TypedDict

Foreign = str | bytes
"""Text from a snapshot."""


class Error(TypedDict):
    """Why a command failed, or stopped before its end: the member `error`."""

    code: str
    problem: str
    remedy: str | None
    place: str | None


class Finding(TypedDict):
    """A finding: one kind, at several places."""

    code: str
    severity: str
    count: int
    place: str
    places: list[str]
    problem: str
    remedy: str


class Lost(TypedDict):
    """A value that no key opens."""

    key: str
    revision: int
    live: bool
    provider: str
    key_name: str | None
    key_name_certain: bool
    reason: str
    reasons: list[str]
    server_error: str


class Undecodable(TypedDict):
    """A value that opens, and that no API server can decode."""

    key: str
    revision: int
    live: bool
    provider: str | None
    key_name: str | None
    reason: str | None
    headless: bool


class ValuesByKey(TypedDict):
    """Encrypted values by key."""

    provider: str
    key_name: str | None
    key_name_certain: bool
    values: int


class Summary(TypedDict):
    """The verdict in objects."""

    objects_lost: int
    objects_with_older: int
    objects_deleted: int
    histories_cut: int
    values_by_key: list[ValuesByKey]


class Cause(TypedDict):
    """What is likelier than that a key is lost."""

    problem: str
    remedy: str
    values: int


class EmbeddedKey(TypedDict):
    """A key of a configuration inside."""

    provider: str
    name: str


class Embedded(TypedDict):
    """A configuration that a snapshot carries inside."""

    kind: str
    place: str
    opens: str | None
    state: str | None
    time: str | None
    revision: int | None
    keys: list[EmbeddedKey]
    code: str | None
    reason: str | None


class Entry(TypedDict):
    """A file of an archive."""

    name: str
    size: int
    role: str


class Container(TypedDict):
    """What was around a snapshot."""

    layers: list[str]
    unpacked_size: int
    entries: list[Entry]


# --- inspect, verify ------------------------------------------------------------------------------------------------


class InspectedFile(TypedDict):
    """The file of a survey."""

    path: str
    size: int
    page_size: int
    trailer: str
    free_pages: int
    high_water_mark: int


class InspectedEtcd(TypedDict):
    """The store of a survey."""

    revision: int
    compacted_revision: int
    keys: int
    records: int
    tombstones: int
    leases: int
    alarms: list[str]
    auth_enabled: bool
    storage_version: str | None
    written_by: str | None
    hash: int


class OpenedBy(TypedDict):
    """Values of a row that a configuration opened."""

    config: str
    key_name: str
    values: int


class Census(TypedDict):
    """Values of one resource under one key."""

    resource: str
    provider: str
    key_name: str | None
    key_name_certain: bool
    live: int
    old: int
    bytes: int
    opens: int | None
    lost: int | None
    lost_by_reason: dict[str, int]
    undecodable: int | None
    stale: int | None
    opened_by: list[OpenedBy]


class Inspected(TypedDict):
    """`inspect`."""

    container: Container | None
    platform: list[str]
    embedded: list[Embedded]
    file: InspectedFile
    etcd: InspectedEtcd
    prefixes: list[str]
    census: list[Census]
    lost: list[Lost]
    undecodable: list[Undecodable]
    findings: list[Finding]
    likelier_causes: list[Cause]
    summary: Summary
    error: NotRequired[Error]


class Verified(TypedDict):
    """`verify`."""

    path: str
    prefixes: list[str]
    records: int
    encrypted: int
    opened: int | None
    damaged: bool
    lost: list[Lost]
    undecodable: list[Undecodable]
    likelier_causes: list[Cause]
    findings: list[Finding]
    summary: Summary


# --- rewrite, repair ------------------------------------------------------------------------------------------------


class Packed(TypedDict):
    """The container that was written."""

    layers: list[str]
    size: int
    sha256: str


class WrittenFile(TypedDict):
    """A snapshot that was read or written."""

    path: str
    size: int
    sha256: str
    revision: int
    hash: int
    hashkv: int
    container: NotRequired[Packed]


class Unmatched(TypedDict):
    """A name in a configuration that covers no stored key."""

    resource: str
    fault: str | None
    meant: list[str]


class RecordCounts(TypedDict):
    """Records by what became of them."""

    total: int
    copied: int
    rewritten: int
    deleted: int


class Under(TypedDict):
    """What values are stored under."""

    provider: str
    key_name: str | None


Change = TypedDict("Change", {"resource": str, "from": Under, "to": Under | None, "live": int, "old": int})
"""Values that went the same way."""


class Updated(TypedDict):
    """What was written into the snapshot's own configuration."""

    place: str
    records: int


Restored = TypedDict(
    "Restored", {"key": str, "resource": str, "revision": int, "from_revision": int, "from": str | None}
)
"""An object that got an older revision back."""


class Deletion(TypedDict):
    """Records that went."""

    key: str
    resource: str
    whole: bool
    revisions: list[int]
    reason: str
    consequence: str
    no_older: str | None


class Next(TypedDict):
    """A step that is to be done next."""

    code: str
    text: str


class Rewritten(TypedDict):
    """`rewrite` and `repair`."""

    source: WrittenFile
    target: WrittenFile | None
    dry_run: bool
    engine: str
    prefixes: list[str] | None
    unmatched: list[Unmatched]
    records: RecordCounts
    values: list[Change]
    embedded: Updated | None
    lost: list[Lost]
    undecodable: list[Undecodable]
    restored: list[Restored]
    deletions: list[Deletion]
    source_problem: str | None
    next: list[Next]
    likelier_causes: list[Cause]
    summary: Summary
    verified: bool
    seconds: float


class SalvagedRecords(TypedDict):
    """Records by where they were found."""

    total: int
    carved: int
    uncertain: int
    stale: int


class Doubtful(TypedDict):
    """A record of which several were found that differ."""

    key: str
    revision: int
    sub: int
    page: int


class SalvagedPages(TypedDict):
    """Pages of the source."""

    size: int
    read: int
    carved: int


class Salvaged(TypedDict):
    """`repair --salvage`."""

    source: Path
    target: WrittenFile
    intact: bool
    records: SalvagedRecords
    doubtful: list[Doubtful]
    missing: list[str]
    dangling_leases: int
    pages: SalvagedPages


# --- list, get, history, diff ---------------------------------------------------------------------------------------


class Listed(TypedDict):
    """A record of `list`."""

    key: Foreign
    resource: str
    namespace: str | None
    name: str
    revision: int
    sub: int
    version: int
    live: bool
    deleted: bool
    provider: str | None
    key_name: str | None
    size: int
    opens: bool | None
    undecodable: str | None
    stale: bool | None
    reasons: list[str]
    explanation: str
    server_error: str


class Carved(TypedDict):
    """A record of `list --carved`."""

    key: str
    revision: int
    sub: int
    deleted: bool
    size: int
    provider: str | None
    key_name: str | None
    page: int
    state: str


class Revised(TypedDict):
    """A revision of `history`."""

    revision: int
    sub: int
    event: str
    live: bool
    version: int
    lease: int
    provider: str | None
    key_name: str | None
    size: int
    digest: str | None
    opens: bool | None
    undecodable: str | None
    stale: bool | None
    reasons: list[str]
    explanation: str
    server_error: str


class History(TypedDict):
    """`history`."""

    key: Foreign
    revision: int
    compacted_revision: int
    revisions: list[Revised]


class DifferentSide(TypedDict):
    """What one snapshot has under a key of `diff`."""

    revision: int
    provider: str
    key_name: str | None
    size: int
    explanation: str
    undecodable: str | None


class Different(TypedDict):
    """A key of `diff`."""

    key: Foreign
    resource: str
    namespace: str | None
    name: str
    a: DifferentSide | None
    b: DifferentSide | None


class ComparedSide(TypedDict):
    """Where one side of `diff --object` is from."""

    path: Path
    key: str | None
    revision: int | None


class Compared(TypedDict):
    """`diff` of one object."""

    a: ComparedSide
    b: ComparedSide
    same: bool
    diff: list[str]


# --- config, kms ----------------------------------------------------------------------------------------------------


class RefusedConfiguration(TypedDict):
    """`config check` of a file that an API server would refuse."""

    file: str
    accepted: bool
    stage: str
    problems: list[dict[str, str]]


class AcceptedConfiguration(TypedDict):
    """`config check` of a file that is taken."""

    file: str
    accepted: bool
    held: list[str]
    resources: dict[str, str]
    warnings: list[str]


class KmsFailure(Error):
    """Why a key service did not deliver."""

    category: str
    detail: str | None


class CheckedPlugin(TypedDict):
    """A plugin of `kms check`."""

    provider: str
    key_name: str
    usable: bool
    version: str | None
    healthz: str | None
    key_id_hash: str | None
    plugin: str | None
    asked_directly: str | None
    round_trip: bool | None
    problems: list[str]
    milliseconds: dict[str, float]
    error: KmsFailure | None


class PlannedCalls(TypedDict):
    """Calls of `kms plan`."""

    provider: str
    key_name: str
    purpose: str
    values: int
    wrapped_keys: int
    calls: Mapping[str, int]
    asked_directly: str | None


class GivenUp(TypedDict):
    """Wrapped keys that `kms export-deks` left out."""

    provider: str
    key_name: str
    key_id_hash: str | None
    category: str
    wrapped_keys: int
    values: int


class ExportedKeys(TypedDict):
    """`kms export-deks`."""

    path: str
    keys: int
    given_up: list[GivenUp]
