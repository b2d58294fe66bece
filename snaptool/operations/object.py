"""One object in a snapshot: finding and opening its value as it was at a revision, and the history of its key.

A key is looked for by its hash, and nothing else is decoded. Which one people mean is said as with kubectl, TYPE NAME
and a namespace, or by the etcd key itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property, partial
from hashlib import blake2b

from snaptool.errors import InputError, ProviderError
from snaptool.etcd import KeyValue, Revision, Snapshot, StoredRecord, decode_key_value
from snaptool.kube.keys import ResourceType, key_prefixes, parse_key, resolve_type
from snaptool.kube.undecodable import ANY_TYPE, Fault, fault, is_object_of, shows_right_key
from snaptool.operations.crypto import DIGEST_SIZE, Outcome, judge_value, open_value
from snaptool.operations.defined import defined_versions
from snaptool.operations.inside import where_configurations_are
from snaptool.operations.judging import NOTHING_DEFINED, Defined, Depth, expected_of, is_listed
from snaptool.operations.labels import Header, header_of, resource_of
from snaptool.operations.lives import last_life, looking
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.reasons import explain, server_message
from snaptool.providers.keyring import Chain, GroupResource, Keyring
from snaptool.providers.provider import Kind, Reason
from snaptool.text import printable

DEFAULT_NAMESPACE = "default"
"""Where an object is looked for when its type has namespaces and none is named: kubectl's default."""


class NoSuchKey(InputError):
    """The snapshot has no such key, or none at that revision. `key` is what was looked for, as the user said it."""

    def __init__(self, key: str, problem: str, *, hint: str) -> None:
        super().__init__(f"{key}: {problem}", hint=hint)
        self.key = key


class ValueLost(ProviderError):
    """A value that was asked for does not open."""

    def __init__(self, value: StoredValue, outcome: Outcome, sentence: str, *, where: str, with_config: bool) -> None:
        self.sentence = sentence
        self.server = server_message(outcome)
        hint = f"give the EncryptionConfiguration of its cluster {where}; -o stored shows the bytes as they are"
        if with_config:
            hint = f"kube-apiserver says: {self.server}; another --config may hold the key that fits"
        super().__init__(f"{printable(value.key)} at revision {value.revision} does not open: {sentence}", hint=hint)
        self.key = value.key
        self.revision = value.revision
        self.reasons = outcome.reasons


# --- one key --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A key as the user said it: `key` whole, or `kind`, `name` and `namespace`.

    `namespace_assumed`: the type may have namespaces, none was named, so it is looked for in `default`.
    """

    said: str
    key: bytes | None = None
    kind: ResourceType | None = None
    name: str = ""
    namespace: str | None = None
    namespace_assumed: bool = False

    def keys(self, prefixes: Sequence[str]) -> tuple[bytes, ...]:
        """The etcd keys that this may be, likelier first."""
        if self.kind is None:
            return () if self.key is None else (self.key,)
        return tuple(
            key for prefix in prefixes for key in key_prefixes(self.kind, self.namespace, self.name, prefix=prefix)
        )


def parse_target(
    words: Sequence[str],
    namespace: str | None = None,
    resolve: Callable[[str], ResourceType] = resolve_type,
) -> Target:
    """Read `KEY`, `TYPE NAME` or `TYPE/NAME`. Raises UnknownType, and InputError for anything else."""
    if len(words) == 1:
        kind_word, slash, name = words[0].partition("/")
        if not (kind_word and slash and name):
            key = words[0].encode(errors="surrogateescape")
            return Target(said=printable(key), key=key)
        words = (kind_word, name)
    if len(words) != 2:
        raise InputError(
            "name one key, or a type and a name",
            hint="for example: secrets my-secret -n my-namespace",
            code="wrong_usage",
        )
    return target_of(resolve(words[0]), words[1], namespace)


def target_of(kind: ResourceType, name: str, namespace: str | None = None) -> Target:
    """Make the target of an object of a type; kubectl's default namespace where none is named."""
    assumed = namespace is None and kind.namespaced is not False
    where = None if kind.namespaced is False else namespace or DEFAULT_NAMESPACE
    said = f"{kind.group_resource} {name!r}" + (f" in namespace {where!r}" if where else "")
    return Target(said=said, kind=kind, name=name, namespace=where, namespace_assumed=assumed)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredValue:
    """One value as it is stored. `stored`: with the encryption around it; `live`: it is the current one of its key."""

    key: bytes
    revision: Revision
    live: bool
    header: Header
    stored: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedValue:
    """What opening a value gave. `notice`: what the user should know about it, empty mostly.

    `fault`: why no API server can decode it, if it should be an object.
    """

    plaintext: bytes = field(repr=False)
    outcome: Outcome
    notice: str = ""
    fault: Fault | None = None


def find_value(
    opened: OpenedSnapshot,
    target: Target,
    revision: int | None = None,
    *,
    keyring: Keyring | None = None,
    skip_hash_check: bool = False,
) -> StoredValue:
    """Find the current value of a key, or the one that a client got at `revision`.

    `keyring` only serves to say when the deletion of one that is gone began. Raises NoSuchKey, WrongTrailer, and the
    FormatErrors of a damaged file.
    """
    (found,) = find_values(opened, (target,), revision, keyring=keyring, skip_hash_check=skip_hash_check)
    return found


def find_values(
    opened: OpenedSnapshot,
    targets: Sequence[Target],
    revision: int | None = None,
    *,
    keyring: Keyring | None = None,
    skip_hash_check: bool = False,
) -> list[StoredValue]:
    """Find the values of several keys, in one pass. Raises as `find_value`, at the first that is not there."""
    found = _find(opened, targets, skip_hash_check=skip_hash_check)
    return [_value_of(opened, key, records, revision, keyring) for key, records in found]


def _value_of(
    opened: OpenedSnapshot,
    key: bytes,
    records: Sequence[StoredRecord],
    revision: int | None,
    keyring: Keyring | None,
) -> StoredValue:
    snapshot = opened.snapshot
    if revision is not None and revision > snapshot.current_revision:
        problem = f"the snapshot ends at revision {snapshot.current_revision}, before {revision}"
        raise NoSuchKey(printable(key), problem, hint="without --revision you get the current value")
    until = [record for record in records if revision is None or record.revision.main <= revision]
    if not until:
        problem = f"its oldest record is of revision {records[0].revision}, after {revision}"
        if snapshot.compacted_revision:
            problem += f"; the store was compacted at {snapshot.compacted_revision}"
        raise NoSuchKey(printable(key), problem, hint="`snaptool history` lists what is stored")
    record = until[-1]
    if record.tombstone:
        hint = "nothing older is stored"
        life = last_life(until, looking(opened, keyring))
        if len(until) > 1 and life is not None:
            before = (one for one in reversed(until[:-1]) if one.revision.main <= life.whole)
            last = next(before, until[-2]).revision.main
            parsed = parse_key(key, opened.prefixes)
            if parsed is not None and parsed.group_resource == "namespaces":
                last = life.whole  # what is in it was written after it
            hint = f"its value before that: --revision {last}"
        raise NoSuchKey(printable(key), f"it was deleted at revision {record.revision}", hint=hint)
    return _stored_value(snapshot, record, live=record is records[-1])


def _stored_value(snapshot: Snapshot, record: StoredRecord, *, live: bool) -> StoredValue:
    stored = decode_key_value(snapshot.stored_value(record)).value
    return value_at(record.key, record.revision, stored, live=live)


def value_at(key: bytes, revision: Revision, stored: bytes, *, live: bool) -> StoredValue:
    """Make the value of a record from its stored bytes."""
    return StoredValue(key=key, revision=revision, live=live, header=header_of(stored), stored=stored)


def _find(
    opened: OpenedSnapshot, targets: Sequence[Target], *, skip_hash_check: bool
) -> list[tuple[bytes, list[StoredRecord]]]:
    snapshot = opened.snapshot
    with opened.digests() as digests:
        histories = snapshot.history_of({key for target in targets for key in target.keys(opened.prefixes)})
        if not skip_hash_check:
            digests.require_right_trailer()
    found = []
    for target in targets:
        key = next((key for key in target.keys(opened.prefixes) if key in histories), None)
        if key is None:
            raise NoSuchKey(target.said, "there is no such key", hint=_where_else(snapshot, target, opened.prefixes))
        found.append((key, histories[key]))
    return found


_NAMED_PLACES, _MOST_NAMES = 5, 10_000
_LIKE = 0.7


def _where_else(snapshot: Snapshot, target: Target, prefixes: Sequence[str]) -> str:
    """Say where objects of the same type and name are, which is what people who forgot `-n` need."""
    if target.kind is None:
        return "`snaptool list SNAPSHOT KEY-PREFIX` shows which keys there are; or say a type and a name"
    tail = b"/" + target.name.encode(errors="surrogateescape")
    heads = [head for prefix in prefixes for head in key_prefixes(target.kind, prefix=prefix)]
    places: dict[str, None] = {}
    beside: set[str] = set()
    for records in snapshot.chunks():
        for head in heads:
            for row in records.beginning(head, tail) if len(places) <= _NAMED_PLACES else ():
                parsed = parse_key(records.user_key(row), prefixes)
                if parsed is not None and parsed.namespace and parsed.name == target.name:
                    places[parsed.namespace] = None
            for row in records.beginning(head) if len(beside) < _MOST_NAMES else ():
                parsed = parse_key(records.user_key(row), prefixes)
                if parsed is not None and parsed.namespace == target.namespace:
                    beside.add(parsed.name)
    if not places:
        similar = get_close_matches(target.name, sorted(beside), n=2, cutoff=_LIKE)
        meant = f"did you mean {' or '.join(similar)}? " if similar else ""
        return f"{meant}`snaptool list SNAPSHOT {target.kind.group_resource}` shows which there are"
    more = ", ..." if len(places) > _NAMED_PLACES else ""
    return f"found in namespace {', '.join([*places][:_NAMED_PLACES])}{more}; choose with -n"


def open_found(
    opened: OpenedSnapshot, value: StoredValue, keyring: Keyring | None, defined: Defined = NOTHING_DEFINED
) -> OpenedValue:
    """Open a value that was found. What is stored in plaintext is shown whatever the keyring says.

    `defined`: the versions that custom resources are defined in. Raises ValueLost.
    """
    prefixes = opened.prefixes
    resource = resource_of(value.key, prefixes).group_resource
    chain, expected = (keyring or Keyring()).chain_for(resource), expected_of(resource, defined)
    outcome, plaintext = open_value(chain, value.stored, value.key)
    if value.header.kind is Kind.IDENTITY:
        notice = "" if keyring is None else explain(outcome, value.header)
        found = None if expected is None else fault(value.stored, expected, full=True)
        headless = None
        if found is not None and expected is not None:
            headless = chain.open_headless(value.stored, value.key, partial(is_object_of, expected=expected))
        if headless is not None:
            notice = f"it is ciphertext that lost its header; it opens under {headless[0].kind} {headless[0].key_name}"
            return OpenedValue(plaintext=headless[1], outcome=outcome, notice=notice, fault=Fault.HEADLESS)
        return OpenedValue(plaintext=value.stored, outcome=outcome, notice=notice, fault=found)
    right_key = outcome.opened or (outcome.doubtful and plaintext is not None and shows_right_key(plaintext))
    if plaintext is None or not right_key:
        sentence = explain(outcome, value.header, with_config=False)
        if keyring is not None:
            sentence = _Origins(opened.snapshot, value.key, chain, prefixes).explain(value, outcome)
        where = where_configurations_are(opened)
        raise ValueLost(value, outcome, sentence, where=where, with_config=keyring is not None)
    found = None if resource is None else fault(plaintext, expected or ANY_TYPE, full=True)
    return OpenedValue(plaintext=plaintext, outcome=outcome, fault=found)


class _Origins:
    """Finds the etcd key that a value was moved from: the one of the same resource under which it opens.

    AES-GCM and KMS bind a value to its etcd key. Gives up after some tries, in all, which take some 100 ms.
    """

    def __init__(self, snapshot: Snapshot, key: bytes, chain: Chain, prefixes: Sequence[str]) -> None:
        self._snapshot = snapshot
        self._key = key
        self.chain = chain
        self._prefixes = prefixes
        self._tries_left = _MOST_TRIES

    def explain(self, value: StoredValue, outcome: Outcome) -> str:
        """Say why the value does not open, by its origin where there is one."""
        if Reason.GCM_AUTH in outcome.reasons:
            for key in self._others:
                if self._tries_left <= 0:
                    break
                self._tries_left -= 1
                if open_value(self.chain, value.stored, key)[0].opened:
                    return (
                        f"the key fits, but the value was moved here from {printable(key)}, and its encryption is "
                        "bound to that etcd key"
                    )
        return explain(outcome, value.header)

    @cached_property
    def _others(self) -> tuple[bytes, ...]:
        parsed = parse_key(self._key, self._prefixes)
        if parsed is None:
            return ()
        head = f"{parsed.prefix}/{parsed.path}/".encode(errors="surrogateescape")
        keys: dict[bytes, None] = {}
        for records in self._snapshot.chunks():
            keys.update(dict.fromkeys(records.user_key(row) for row in records.beginning(head)))
            if len(keys) > _MOST_TRIES:
                break
        keys.pop(self._key, None)
        return tuple(keys)


_MOST_TRIES = 10_000


# --- history --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One record of a key. A deletion has no value: its `header`, `outcome` and `digest` are None.

    `digest`: 16 bytes that are equal for equal plaintexts of one history, and tell nothing else of them; None where the
    value was not opened. `outcome` is None also when there were no keys to try and an API server can decode the value.
    `reason`: why the value is lost or undecodable, in a sentence.
    """

    revision: Revision
    deleted: bool
    live: bool
    version: int
    lease: int
    size: int
    header: Header | None
    key_name: str | None
    digest: bytes | None
    outcome: Outcome | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Every stored revision of a key, oldest first. What a compaction took is not there: see `compacted_revision`."""

    key: bytes
    revision: int
    compacted_revision: int
    entries: tuple[HistoryEntry, ...]

    @property
    def lost(self) -> int:
        """How many values are lost."""
        return sum(1 for entry in self.entries if entry.outcome is not None and not entry.outcome.opened)

    @property
    def undecodable(self) -> int:
        """How many values no API server can decode."""
        return sum(1 for entry in self.entries if entry.outcome is not None and entry.outcome.fault is not None)


def history(
    opened: OpenedSnapshot,
    target: Target,
    keyring: Keyring | None = None,
    *,
    skip_hash_check: bool = False,
) -> History:
    """Tell the history of a key. Without a keyring plaintext alone is digested. Raises as `find_value`."""
    prefixes = opened.prefixes
    ((key, records),) = _find(opened, (target,), skip_hash_check=skip_hash_check)
    snapshot, resource = opened.snapshot, resource_of(key, prefixes).group_resource
    chain = (keyring or Keyring()).chain_for(resource)
    telling = _Telling(
        _Origins(snapshot, key, chain, prefixes),
        resource if is_listed(key, prefixes) else None,
        defined_versions(opened, keyring),
        secrets.token_bytes(_DIGEST_KEY_SIZE),
        with_keys=keyring is not None,
    )
    return History(
        key=key,
        revision=snapshot.current_revision,
        compacted_revision=snapshot.compacted_revision,
        entries=tuple(
            _deletion(record)
            if record.tombstone
            else telling.entry(record, decode_key_value(snapshot.stored_value(record)), live=record is records[-1])
            for record in records
        ),
    )


def _deletion(record: StoredRecord) -> HistoryEntry:
    return HistoryEntry(
        revision=record.revision,
        deleted=True,
        live=False,
        version=0,
        lease=0,
        size=0,
        header=None,
        key_name=None,
        digest=None,
        outcome=None,
    )


_DIGEST_KEY_SIZE = 32


@dataclass(frozen=True, slots=True)
class _Telling:
    """What describes the values of a key. `digest_key`: fresh for each history, so that digests help nobody to guess.

    `resource`: None where values need not be objects.
    """

    origins: _Origins
    resource: GroupResource | None
    defined: Defined
    digest_key: bytes = field(repr=False)
    with_keys: bool

    def entry(self, record: StoredRecord, key_value: KeyValue, *, live: bool) -> HistoryEntry:
        value = value_at(record.key, record.revision, key_value.value, live=live)
        chain = self.origins.chain
        stored = (value.stored, value.key)
        outcome, plaintext = judge_value(chain, self.resource, stored, Depth.FULL, self.defined)
        plain = value.header.kind is Kind.IDENTITY
        shown = plaintext if outcome.opened else value.stored if plain else None
        tried: Outcome | None = outcome
        if not self.with_keys and outcome.fault is None:
            tried, shown = None, value.stored if plain else None
        return HistoryEntry(
            revision=value.revision,
            deleted=False,
            live=value.live,
            version=key_value.version,
            lease=key_value.lease,
            size=len(value.stored),
            header=value.header,
            key_name=(outcome.key_name if tried else "") or value.header.key_name,
            digest=None if shown is None else self._digest(shown),
            outcome=tried,
            reason="" if tried is None else self.origins.explain(value, tried),
        )

    def _digest(self, plaintext: bytes) -> bytes:
        return blake2b(plaintext, key=self.digest_key, digest_size=DIGEST_SIZE).digest()
