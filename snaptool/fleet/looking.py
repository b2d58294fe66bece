"""One backup, looked at: from a name to a record. Runs in a worker; raises nothing for a backup that is bad.

Source: docs/audit.md, "Levels" and "What is said of a backup".
"""

from __future__ import annotations

import hashlib
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from snaptool.containers.unwrap import DEFAULT, KINE, Unpacking
from snaptool.embedded.found import Recovered, find_embedded
from snaptool.embedded.k3s import TokenProblem
from snaptool.errors import FormatError, KeyServiceError, SnaptoolError
from snaptool.etcd import Records
from snaptool.fleet.places import Backup, File
from snaptool.fleet.quick import quick_look
from snaptool.fleet.staging import Staged, staged
from snaptool.operations.boot import boot_check
from snaptool.operations.embedding import carried_files
from snaptool.operations.findings import DAMAGE, Severity
from snaptool.operations.keys import keyring_for_reading
from snaptool.operations.kms_options import NO_KMS_OPTIONS, KmsOptions, kms_configs
from snaptool.operations.labels import Labels
from snaptool.operations.opening import OpenedSnapshot, open_snapshot
from snaptool.operations.salvage import salvage
from snaptool.operations.survey import CensusRow, Survey, survey
from snaptool.operations.sweep import encrypted_values
from snaptool.operations.times import newest_time
from snaptool.providers.config.model import EncryptionConfig
from snaptool.providers.kms_envelope import decode_envelope
from snaptool.providers.kms_unwrapping import Unwrapping
from snaptool.providers.provider import Api, KeyDoesNotFit
from snaptool.scratch import EtcdBinaries
from snaptool.text import printable

FORMAT = 1
"""Of records. Another one is another question."""

EMBEDDED, TOKEN = "embedded", "token"
"""Stand for the digest of a configuration that a backup carries inside, and of a token, which is too short for one."""

Record = dict[str, Any]

_NO_SNAPSHOT = {"container_unknown", "container_empty", "container_no_snapshot", "not_a_bolt_file"}
_NAMED_LOST = 20


@dataclass(frozen=True, slots=True)
class Given:
    """A configuration that was given: `digest` is the SHA-256 of its file, in hex."""

    config: EncryptionConfig = field(repr=False)
    digest: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of every backup. `check`: quick, census, keys, sample=N or boot. `token` opens k3s' inside.

    `saved`: digests of files of keys. `names`: the first lost objects are named in records. `salvage`: what can be
    carved from damaged backups is counted.
    """

    check: str
    given: tuple[Given, ...] = ()
    embedded: bool = False
    token: str | None = field(default=None, repr=False)
    saved: tuple[str, ...] = ()
    kms: KmsOptions = NO_KMS_OPTIONS
    etcd: EtcdBinaries | None = None
    names: bool = False
    salvage: bool = False

    @property
    def configs(self) -> tuple[str, ...]:
        """Digests of what is read with, in order."""
        if self.check in {"quick", "census"}:
            return ()
        given = tuple(dict.fromkeys((*(one.digest for one in self.given), *self.saved)))
        inside = (EMBEDDED, *([TOKEN] if self.token is not None else [])) if self.embedded else ()
        return (*given, *inside)

    @property
    def asks_services(self) -> bool:
        """May a key service have to be asked?"""
        return bool(self.configs) and bool(kms_configs([one.config for one in self.given]))

    @property
    def digest(self) -> str:
        """The name of the question in the store."""
        more = ["names"] * self.names + ["salvage"] * self.salvage
        text = f"{FORMAT}\n{self.check}\n" + "\n".join(sorted(self.configs) + more)
        return hashlib.sha256(text.encode()).hexdigest()

    def is_answered_by(self, record: Record) -> bool:
        """Does a record that is still true say all that is asked for?"""
        unnamed = self.names and record["lost"] and "lost_names" not in record
        return not unnamed and not (self.salvage and record["status"] == "damaged" and "salvaged" not in record)


def blank(backup: Backup, question: Question) -> Record:
    """Return the record of a backup of which nothing is known yet."""
    return {
        "format": FORMAT,
        "url": backup.url,
        "version": backup.version,
        "size": backup.size,
        "modified": _text(backup.modified),
        "time": _text(backup.time) if backup.time else None,
        "series": backup.series,
        "platform": backup.platform,
        "path": backup.url if backup.path == backup.files[0].name else printable(backup.path),
        "entry": None if backup.entry is None else printable(backup.entry),
        "files": [printable(file.name.rpartition("/")[2].partition("?")[0]) for file in backup.files],
        "sha256": None,
        "check": question.check,
        "configs": list(question.configs),
        "status": "ok",
        "census": [],
        "opened_by": [],
        "keys_needed": [],
        "lost": 0,
        "lost_by_reason": {},
        "undecodable": 0,
        "plaintext": 0,
        "stale": 0,
        "findings": [],
        "etcd": None,
        "kms": [],
        "error": None,
        "outage": False,
        "attempts": 1,
        "seconds": 0.0,
        "checked_at": _text(datetime.now(UTC)),
    }


def closed_record(folder: str, why: str, question: Question) -> Record:
    """Return the record of a folder, or a file, that could not be listed: it is in no store, and tried each time."""
    now = datetime.now(UTC)
    nothing = Backup(url=folder, path=folder, entry=None, files=(File(folder, 0, now, ""),))
    record = blank(nothing, question)
    hint = "let the user of the audit read it, or name what is beside it"
    fail(record, "failed", "container_directory", f"{folder}: cannot be read: {why}", hint)
    return record


def unseen_record(backup: Backup) -> Record:
    """Return the record of a backup that no audit has looked at in its version: it is in no store either."""
    record = blank(backup, Question(check="quick"))
    hint = "run the command again without --report-only"
    fail(record, "failed", "not_looked_at", f"{backup.url}: nothing is known of what is there now", hint)
    return record


def look(backup: Backup, question: Question, folder: Path | None = None) -> Record:
    """Look at one backup. `folder`: where what is downloaded goes, and is removed again; None: a new one."""
    began = time.monotonic()
    record = blank(backup, question)
    try:
        if question.check == "quick":
            _quick(backup, record)
        else:
            _whole(backup, question, record, folder)
    except SnaptoolError as error:
        record["outage"] = isinstance(error, KeyServiceError)
        fail(record, status_of(error), error.code, str(error), error.hint)
    except OSError as error:
        fail(record, "failed", "cannot_read", f"{backup.url}: {error.strerror or type(error).__name__}", "")
    record["seconds"] = round(time.monotonic() - began, 3)
    record["checked_at"] = _text(datetime.now(UTC))
    return record


def fail(record: Record, status: str, kind: str, message: str, hint: str) -> None:
    """Let a record say that nothing good is known."""
    record["status"] = status
    # A name that is not UTF-8 would not be text for others who read the JSON.
    record["error"] = {"kind": kind, "message": printable(message), "hint": printable(hint) or None}


def status_of(error: SnaptoolError) -> str:
    """Return the status of a backup that could not be opened or read for that reason."""
    if error.code in _NO_SNAPSHOT or error.code.startswith("not_etcd"):
        return "not_a_snapshot"
    if isinstance(error, FormatError) and error.code != "source_changed":
        return "damaged"
    return "damaged" if error.code == "delta_only" else "failed"


def _quick(backup: Backup, record: Record) -> None:
    found, record["version"] = quick_look(backup.files[0])
    record["status"] = found.status
    if found.status != "ok":
        fail(record, found.status, found.code, f"{backup.url}: {found.problem}", "")
    elif found.code:
        record["findings"].append(found.code)


def _whole(backup: Backup, question: Question, record: Record, folder: Path | None) -> None:
    with staged(backup, folder) as copy:
        record["version"] = copy.version
        unpacking = DEFAULT if backup.entry is None else Unpacking(entry=backup.entry)
        try:
            _open(copy.path, unpacking, backup, question, record)
        except SnaptoolError as error:
            error.args = (copy.named(str(error)),)
            error.hint = copy.named(error.hint)
            if status_of(error) != "not_a_snapshot":
                _sum(copy, record)
            if not question.salvage or status_of(error) != "damaged":
                raise
            fail(record, "damaged", error.code, str(error), error.hint)
        else:
            _sum(copy, record)
        finally:
            if record["error"]:
                record["error"]["message"] = copy.named(record["error"]["message"])
        if question.salvage and record["status"] == "damaged":
            _salvage(copy, unpacking, backup, question, record, folder)


def _sum(copy: Staged, record: Record) -> None:
    """Only now: what is not a snapshot may have no end that anybody waits for."""
    record["sha256"], stated = copy.sums()
    record["findings"] += ["checksum_ok" if right else "checksum_differs" for right in stated]


_OF_CONTENT = (
    "census",
    "opened_by",
    "keys_needed",
    "lost",
    "lost_by_reason",
    "undecodable",
    "plaintext",
    "stale",
    "kms",
)


def _salvage(
    copy: Staged, unpacking: Unpacking, backup: Backup, question: Question, record: Record, folder: Path | None
) -> None:
    """Count what can be saved of a damaged backup, from a copy that is gone afterwards. It stays damaged."""
    if folder is not None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="snaptool-saved-", dir=folder) as place:
        target = Path(place) / "saved.db"
        try:
            saved = salvage(copy.path, target, unpacking=unpacking)
        except FormatError:
            record["salvaged"] = {"records": 0, "carved": 0, "missing": 0}
            return
        found = blank(backup, question)
        _open(target, DEFAULT, backup, question, found)
    record |= {name: found[name] for name in (*_OF_CONTENT, "lost_names") if name in found}
    record["salvaged"] = {"records": saved.records, "carved": saved.carved, "missing": len(saved.missing)}
    record["findings"].append("salvaged")


def _open(path: Path, unpacking: Unpacking, backup: Backup, question: Question, record: Record) -> None:
    with open_snapshot(path, unpacking, kine=True) as opened:
        if opened.container is not None and opened.container.layers[-1:] == (KINE,):
            record["findings"].append(KINE)
        record["platform"] = backup.platform or next(iter(opened.platforms), None)
        digests: list[str] = []
        names: list[str] = []
        if question.check == "census":
            result = survey(opened)
        else:
            read_with, digests = _read_with(opened, question, record)
            names = [config.name for config in read_with]
            count = _count(question.check) if question.check.startswith("sample=") else 0
            keys = keyring_for_reading(
                opened, read_with, question.kms.about(read_with), wanted=Sample(count) if count else None
            )
            record["kms"] = [_kms_document(one) for one in keys.answers]
            if keys.outage is not None:
                raise keys.outage
            wanted = Sample(count) if count else encrypted_values
            result = survey(opened, keys.keyring if read_with else None, wanted=wanted)
        _fill(record, result, digests, names, names_lost=question.names)
        if record["status"] == "stale" and not question.given:
            record["status"] = "ok"  # under its own keys, which its platform turns over by itself
        if record["time"] is None and record["status"] != "damaged":
            inside = newest_time(opened.snapshot)
            record["time"] = None if inside is None else _text(inside)
        boot = question.etcd
        if boot is not None and boot_check(opened.snapshot, opened.source.image, binaries=boot).differences:
            record["findings"].append("boot")
            record["status"] = "damaged"
        foreign = opened.prefix_facts
        if not foreign.taken and not foreign.outside and not foreign.strays and record["status"].startswith("ok"):
            record["status"] = "empty"


def _kms_document(one: Unwrapping) -> dict[str, Any]:
    failed: Counter[str] = Counter()
    for group in one.failures:
        failed[str(group.category)] += group.sources
    return {
        "provider": one.provider,
        "api": str(one.api),
        "wrapped_keys": one.sources,
        "unwrapped": len(one.keys),
        "failed": dict(failed),
    }


def _read_with(opened: OpenedSnapshot, question: Question, record: Record) -> tuple[list[EncryptionConfig], list[str]]:
    """Return the configurations to read with, and the digest of each."""
    given = [(one.config, one.digest) for one in question.given]
    if question.embedded:
        configs = [one.config for one in question.given]
        found = _carried(opened, configs, question.token)
        if found.closed:
            record["findings"].append("embedded_closed")
        inside = [(config, EMBEDDED) for config in found.configs if config not in configs]
        # As for every command: OpenShift's keeps apart what belongs to which API server, and so stands first.
        first = [one for one in inside if one[0].platform == "openshift"]
        given = [*first, *given, *(one for one in inside if one not in first)]
    return [config for config, _ in given], [digest for _, digest in given]


def _carried(opened: OpenedSnapshot, configs: Sequence[EncryptionConfig], token: str | None) -> Recovered:
    """Find what a backup carries; a token that is another cluster's opens nothing here, as it must in a fleet."""
    files = carried_files(opened)
    try:
        return find_embedded(opened.places, token=token, configs=configs, files=files)
    except TokenProblem:
        return find_embedded(opened.places, configs=configs, files=files)


def _fill(record: Record, result: Survey, digests: Sequence[str], names: Sequence[str], *, names_lost: bool) -> None:
    record["census"] = [row.document(names) for row in result.census]
    etcd = result.etcd
    record["etcd"] = {
        "revision": etcd.revision,
        "keys": etcd.keys,
        "records": etcd.records,
        "hash": etcd.hash,
        "storage_version": etcd.storage_version or None,
    }
    record["findings"] += [found.code for found in result.findings if found.severity is not Severity.NOTE]
    record["keys_needed"] = _keys_needed(result.census, digests, names)
    record["opened_by"] = sorted({one["config"] for one in record["keys_needed"] if one["config"]})
    reasons: Counter[str] = Counter()
    for row in result.census:
        reasons.update({str(reason): count for reason, count in row.lost_by_reason})
        record["lost"] += row.lost or 0
        record["undecodable"] += row.undecodable or 0
        record["plaintext"] += _plaintext(row)
        record["stale"] += (row.stale or 0) if row.provider != "identity" else 0
    record["lost_by_reason"] = dict(reasons)
    if names_lost and result.lost:
        shown = result.lost[:_NAMED_LOST]
        record["lost_names"] = [value.key.decode(errors="backslashreplace") for value in shown]
    damage = [found for found in result.findings if found.code in DAMAGE]
    if damage:
        fail(record, "damaged", damage[0].code, f"{record['url']}: {damage[0].problem}", damage[0].remedy)
    elif record["lost"]:
        record["status"] = "undecryptable"
    elif record["plaintext"]:
        record["status"] = "plaintext"
    elif record["stale"]:
        record["status"] = "stale"
    else:
        record["status"] = "ok" if names else "ok (not opened)"


def _plaintext(row: CensusRow) -> int:
    """Count values that should be encrypted and are not: Secrets, and what a configuration given encrypts."""
    if row.provider != "identity":
        return 0
    return row.live + row.old if row.resource == "secrets" else (row.stale or 0) + (row.lost or 0)


def _keys_needed(census: Sequence[CensusRow], digests: Sequence[str], names: Sequence[str]) -> list[dict[str, Any]]:
    """Say which keys open how many values; `config` is None for what no configuration given opens."""
    counts: Counter[tuple[str | None, str | None, str | None, str]] = Counter()
    for row in census:
        if row.provider == "identity":
            continue
        for number, key_name, values in row.opened_by:
            counts[digests[number], names[number], key_name, row.provider] += values
        unopened = (row.lost or 0) if row.opens is not None else row.live + row.old
        if unopened:
            counts[None, None, row.key_name, row.provider] += unopened
    return [
        {"config": digest, "file": name, "key_name": key_name, "provider": provider, "values": values}
        for (digest, name, key_name, provider), values in counts.items()
    ]


class Sample:
    """Wants so many values of each resource, provider, key name and seed of KMS v2, chosen by a hash of the etcd key.

    KMS v1 has a key for every value, of which there is no more to know than of the provider.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken: Counter[tuple[int, int, bytes]] = Counter()

    def __call__(self, records: Records, labels: Labels, rows: list[int]) -> list[int]:
        """Choose among the rows of the encrypted values of a chunk."""
        if not records.first_record:
            self._taken.clear()  # another pass
        groups: defaultdict[tuple[int, int, bytes], list[int]] = defaultdict(list)
        for row in rows:
            if records.is_put(row):
                groups[labels.resource[row], labels.header[row], self._seed(records.value(row))].append(row)
        wanted = []
        for group, some in groups.items():
            left = self._count - self._taken[group]
            chosen = sorted(some, key=lambda row: zlib.crc32(records.user_key(row)))[: max(left, 0)]
            self._taken[group] += len(chosen)
            wanted += chosen
        return sorted(wanted)

    @staticmethod
    def _seed(stored: bytes) -> bytes:
        """Return what identifies the seed that a value of KMS v2 is under; empty for others."""
        if not stored.startswith(Api.V2.prefix):
            return b""
        try:
            return decode_envelope(Api.V2, "", stored.split(b":", 5)[-1]).source.cache_key
        except KeyDoesNotFit:
            return b""


def _count(check: str) -> int:
    return int(check.removeprefix("sample="))


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
