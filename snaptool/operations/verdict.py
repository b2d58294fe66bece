"""The verdict in human numbers: objects first and then histories, from what a run has found or done.

Everything else counts records and values. Who is woken at night wants to know how many Secrets are gone, how many of
them can be had back, and what else changes; so the same few numbers and sentences stand last in the text of every
command that opens values, and in its JSON as `summary`.

Source: docs/json.md, "Summary".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snaptool.kube.keys import RESOURCE_TYPES, parse_key
from snaptool.operations.labels import NOT_KUBERNETES
from snaptool.operations.older import OlderValues
from snaptool.text import counted

if TYPE_CHECKING:
    from snaptool.etcd import Snapshot
    from snaptool.operations.sweep import Counted, LostValue
    from snaptool.providers.keyring import GroupResource

_KINDS_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCount:
    """How many values are under one encryption key, current and old ones. `goes_on`: see `Header`."""

    provider: str
    key_name: str
    values: int
    goes_on: bool = False

    @property
    def shown(self) -> str:
        """The key for people."""
        return f"{self.provider} {self.key_name}{':…' if self.goes_on else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LostKeys:
    """Etcd keys by what is lost of them: `current` with their current value, `past` with older revisions alone.

    `undecodable`: those whose current value opens, and that no API server can decode.
    """

    current: tuple[bytes, ...] = ()
    past: tuple[bytes, ...] = ()
    undecodable: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Numbers of objects, and what they say in sentences. `values_by_key`: empty where nobody counted, too.

    `older_elsewhere`: of how many lost objects older revisions were written that are not in this snapshot.
    """

    objects_lost: int
    objects_with_older: int
    objects_deleted: int
    histories_cut: int
    values_by_key: tuple[KeyCount, ...]
    sentences: tuple[str, ...]
    older_elsewhere: int = 0


def lost_keys(lost: Sequence[LostValue], undecodable: Sequence[LostValue] = ()) -> LostKeys:
    """Sort the keys of lost and undecodable values."""
    current = dict.fromkeys(value.key for value in lost if value.live)
    past = dict.fromkeys(value.key for value in lost if value.key not in current)
    broken = dict.fromkeys(value.key for value in undecodable if value.live and not value.outcome.headless)
    return LostKeys(current=tuple(current), past=tuple(past), undecodable=tuple(broken))


def older_wanted(values: Sequence[LostValue]) -> dict[bytes, GroupResource | None]:
    """Return the keys whose current values are among `values`, for `find_older`."""
    return {value.key: value.resource.group_resource for value in values if value.live and not value.outcome.headless}


def also_going(snapshot: Snapshot, values: Sequence[LostValue]) -> int:
    """Count the values that open and would go with an object whose current value is deleted: its older revisions."""
    broken = {value.record for value in values}
    keys = {value.key for value in values if value.live}
    histories = snapshot.history_of(keys) if keys else {}
    records = (record for history in histories.values() for record in history)
    return sum(1 for record in records if not record.tombstone and record.number not in broken)


def values_by_key(swept: Counted) -> tuple[KeyCount, ...]:
    """Count encrypted values by the key that opens them, or, of lost ones, by what stands in front of them."""
    counts: Counter[tuple[str, str, bool]] = Counter()
    for (_, number, outcome_number, _), count in swept.counts.items():
        if number:
            header, outcome = swept.headers[number], swept.outcomes[outcome_number]
            named = outcome.kind is not None and not outcome.headless
            name = outcome.key_name if named else header.key_name or ""
            counts[header.provider, name, header.goes_on and not named] += count
    return tuple(
        KeyCount(provider=provider, key_name=name, values=count, goes_on=goes_on)
        for (provider, name, goes_on), count in sorted(counts.items())
    )


def never_encrypted(swept: Counted) -> tuple[str, ...]:
    """Return the resources in a snapshot that API servers store past the encryption, whatever is configured."""
    found = (swept.resources[number] for number in {resource for resource, *_ in swept.counts})
    return tuple(sorted(one.name for one in found if not one.encryptable and one is not NOT_KUBERNETES))


def under_keys(counts: Sequence[KeyCount], never: Sequence[str] = ()) -> str:
    """Say how many values are under which key."""
    if not counts:
        text = "no value is under an encryption key"
    elif len(counts) == 1:
        only = counts[0]
        values = counted(only.values, "value is", "values are")
        text = f"{values} under {only.shown}, 0 under any other key"
    else:
        listed = ", ".join(f"{one.values:,} under {one.shown}" for one in counts)
        text = f"values by key: {listed}, 0 under any other key"
    return f"{text}; never encrypted by design: {', '.join(never)}" if counts and never else text


# --- sentences ------------------------------------------------------------------------------------------------------


def objects(keys: Iterable[bytes], prefixes: Sequence[str]) -> str:
    """Count objects in words: `34 Secrets in 7 namespaces`, `1 Secret in namespace shop`."""
    kinds: Counter[str] = Counter()
    namespaces: set[str] = set()
    for key in keys:
        parsed = parse_key(key, prefixes)
        kinds[_KIND_OF.get(parsed.group_resource, f"{parsed.group_resource} object") if parsed else "key"] += 1
        if parsed is not None and parsed.namespace:
            namespaces.add(parsed.namespace)
    words = [counted(count, kind, _plural(kind)) for kind, count in kinds.most_common(_KINDS_NAMED)]
    if rest := kinds.total() - sum(count for _, count in kinds.most_common(_KINDS_NAMED)):
        words.append(counted(rest, "other object"))
    text = " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    if len(namespaces) == 1:
        return f"{text} in namespace {next(iter(namespaces))}"
    return f"{text} in {counted(len(namespaces), 'namespace')}" if namespaces else text


_KIND_OF = {kind.group_resource: kind.kind for kind in RESOURCE_TYPES if kind.kind}


def _plural(kind: str) -> str:
    if kind.endswith(("s", "x")):
        return kind if kind == "Endpoints" else f"{kind}es"
    return f"{kind[:-1]}ies" if kind.endswith("y") and kind[-2] not in "aeiou" else f"{kind}s"


def _is(count: int, one: str, many: str) -> str:
    return one if count == 1 else many


def found(
    keys: LostKeys,
    older: OlderValues,
    prefixes: Sequence[str],
    counts: Sequence[KeyCount] = (),
    *,
    never: Sequence[str] = (),
    with_config: bool = True,
) -> Verdict:
    """Judge what was found and not changed: by `inspect`, `list --lost`, `verify`, and a rewrite that stopped."""
    back = sum(1 for key in keys.current if key in older.found)
    sentences = [_lost_sentence(keys, back, prefixes), older.sentence() if keys.current else ""]
    if not with_config and keys.current:
        them = _is(len(keys.current), "it", "them")
        sentences = [
            f"{objects(keys.current, prefixes)} cannot be read: no configuration was given to open {them} with"
        ]
    if keys.undecodable:
        count = len(keys.undecodable)
        sentences.append(
            f"{objects(keys.undecodable, prefixes)} {_is(count, 'opens', 'open')}, and no API server can decode "
            f"{_is(count, 'it', 'them')}: every list of the resource fails"
        )
    if counts and with_config:
        sentences.append(under_keys(counts, never))
    return Verdict(
        objects_lost=len(keys.current),
        objects_with_older=back,
        objects_deleted=0,
        histories_cut=len(keys.past),
        values_by_key=tuple(counts),
        sentences=tuple(sentence for sentence in sentences if sentence),
        older_elsewhere=older.compacted,
    )


def _lost_sentence(keys: LostKeys, back: int, prefixes: Sequence[str]) -> str:
    count, past = len(keys.current), len(keys.past)
    if not count:
        if not past:
            return "" if keys.undecodable else "nothing is lost"
        return f"no object is lost; {objects(keys.past, prefixes)} only {_is(past, 'loses', 'lose')} history"
    has = f"{back:,} {_is(back, 'has', 'have')} an older revision that opens" if back else "none has an older revision"
    if count == 1:
        has = "it has an older revision that opens" if back else "it has no older revision that opens"
    elif not back:
        has += " that opens"
    more = f", {past:,} more only {_is(past, 'loses', 'lose')} history" if past else ""
    return f"{objects(keys.current, prefixes)} {_is(count, 'is', 'are')} lost ({has}){more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fates:
    """What a rewrite did with keys of which something was lost or undecodable. `tried`: values were opened at all."""

    deleted: tuple[bytes, ...] = ()
    cut: tuple[bytes, ...] = ()
    taken_back: tuple[bytes, ...] = ()
    kept: bool = False
    only_lost: bool = False
    dry_run: bool = False
    tried: bool = True


def done(
    keys: LostKeys,
    older: OlderValues,
    prefixes: Sequence[str],
    counts: Sequence[KeyCount],
    fates: Fates,
    never: Sequence[str] = (),
) -> Verdict:
    """Judge what a rewrite did, or would do."""
    back = sum(1 for key in keys.current if key in older.found)
    would = "would be " if fates.dry_run else ""
    parts = []
    if fates.taken_back:
        count = len(fates.taken_back)
        how = "would get" if fates.dry_run else _is(count, "has", "have")
        end = "back" if fates.dry_run else "again"
        parts.append(f"{objects(fates.taken_back, prefixes)} {how} an older revision {end}")
    if fates.deleted:
        count = len(fates.deleted)
        parts.append(f"{objects(fates.deleted, prefixes)} {would or _is(count, 'is ', 'are ')}deleted")
    if fates.cut:
        count = len(fates.cut)
        lose = "would lose" if fates.dry_run else _is(count, "loses", "lose")
        parts.append(
            f"{count:,} more only {lose} history" if parts else f"no object is lost; {count:,} only {lose} history"
        )
    sentences = [", ".join(parts)]
    if parts:
        sentences[0] += "; nothing else changes" if fates.only_lost else "; nothing else is lost"
    could = sum(1 for key in fates.deleted if key in older.found)
    if could:
        sentences.append(
            f"{could:,} of the deleted had an older revision that opens: --undecryptable older takes it back"
        )
    if fates.deleted and not could:
        sentences.append(older.sentence())
    if keys.current and fates.kept:
        sentences.append(f"{objects(keys.current, prefixes)} stay lost, as asked: every list of the resource fails")
    elif fates.tried and not parts and not keys.current and not keys.past:
        sentences.append("nothing is lost")
    sentences.append(under_keys(counts, never))
    return Verdict(
        objects_lost=len(keys.current),
        objects_with_older=back,
        objects_deleted=len(fates.deleted),
        histories_cut=len(fates.cut),
        values_by_key=tuple(counts),
        sentences=tuple(sentence for sentence in sentences if sentence),
    )
