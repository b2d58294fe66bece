"""Is the configuration the likelier cause? What to try before anything is believed lost.

A key is lost seldom; a configuration of another cluster, of another time, with a name cut off or a key under another
name is given often. Each of these shows in the values: all of a key's values fail, a configured name is the beginning
of a stored one, or a secret that is configured elsewhere opens them. What shows is said first, with what to try, and
before any advice to delete. Nothing here opens a value for anybody else: it only says which name to change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from snaptool.etcd import Snapshot, decode_key_value
from snaptool.kube.undecodable import ANY_TYPE, is_object_of
from snaptool.operations.inside import Unread
from snaptool.operations.judging import expected_of
from snaptool.operations.labels import Header
from snaptool.operations.sweep import Counted, LostValue
from snaptool.providers.config.model import KEY_SIZES
from snaptool.providers.keyring import Keyring
from snaptool.providers.provider import KeyDoesNotFit, Kind, Reason
from snaptool.providers.symmetric import Key, LocalProvider
from snaptool.text import counted

_GROUPS, _SAMPLES = 16, 3
_NO_KEY = frozenset({Reason.UNKNOWN_PREFIX, Reason.UNKNOWN_KEY_NAME, Reason.IDENTITY_ENCRYPTED})
_COLONS = 5


@dataclass(frozen=True, slots=True)
class Cause:
    """Why values may not open that is no loss of a key. `values`: how many it would explain; `remedy`: what to try.

    `inside`: the keys may be in the snapshot itself, so that nothing is to be deleted; `options` try them.
    """

    problem: str
    remedy: str
    values: int
    inside: bool = False
    options: tuple[str, ...] = ()


def likelier_causes(
    snapshot: Snapshot,
    lost: Sequence[LostValue],
    opened: Mapping[Header, int] | None,
    keyring: Keyring,
    unread: Sequence[Unread] = (),
) -> tuple[Cause, ...]:
    """Find what speaks for a wrong configuration, the most telling first. Raises the FormatErrors of a damaged file.

    `opened`: the encrypted values that open, by header; None where not all values were looked at. `unread`: see
    `unread_places`.
    """
    groups: dict[Header, list[LostValue]] = {}
    for value in lost:
        if value.header.kind is not Kind.IDENTITY:
            groups.setdefault(value.header, []).append(value)
    causes = [Cause(one.problem, one.remedy, len(one.records), inside=True, options=one.options) for one in unread]
    if not groups or not any(keyring.providers()):
        return tuple(causes)
    explained = set()
    for header, values in sorted(groups.items(), key=lambda item: -len(item[1]))[:_GROUPS]:
        cause = _other_key(snapshot, header, values, keyring) or _cut_name(header, values, keyring)
        if cause is not None:
            explained.add(header)
            causes.append(cause)
    # Why a key service did not unwrap, it says itself, and what to do is said with it.
    left = {
        header: values
        for header, values in groups.items()
        if header not in explained and Reason.KMS_UNWRAP_FAILED not in values[0].outcome.reasons
    }
    return (*causes, *(_all_fail(left, opened, keyring) if opened is not None else ()))


def opened_by_header(swept: Counted) -> Mapping[Header, int]:
    """Count the encrypted values that open, by header."""
    counts: Counter[Header] = Counter()
    for (_, header, number, _), count in swept.counts.items():
        outcome = swept.outcomes[number]
        if header and outcome.opened and outcome.kind is not None:
            counts[swept.headers[header]] += count
    return counts


def _named(kind: Kind | None, name: str | None) -> str:
    return f"{kind} {name!r}" if name else str(kind)


def _many(count: int) -> str:
    return counted(count, "value is", "values are")


def _local_keys(keyring: Keyring) -> Iterator[tuple[Kind, Key]]:
    seen = set()
    for providers in keyring.providers():
        for provider in providers:
            for key in provider.keys if isinstance(provider, LocalProvider) else ():
                if (provider.kind, key.name, key.secret) not in seen:
                    seen.add((provider.kind, key.name, key.secret))
                    yield provider.kind, key


def _other_key(snapshot: Snapshot, header: Header, values: Sequence[LostValue], keyring: Keyring) -> Cause | None:
    """Find a configured secret that opens the values although it stands under another name or provider."""
    if header.kind not in KEY_SIZES:
        return None
    for kind, key in _local_keys(keyring):
        mine = (kind, key.name) == (header.kind, header.key_name)
        if mine or len(key.secret) not in KEY_SIZES[header.kind]:
            continue
        reader = LocalProvider(header.kind, (Key(header.key_name or key.name, key.secret),))
        if all(_opens(reader, snapshot, value) for value in values[:_SAMPLES]):
            stored = _named(header.kind, header.key_name)
            problem = f"{_many(len(values))} under {stored} and open with the key that the configuration calls "
            problem += _named(kind, key.name)
            return Cause(problem, f"configure it as {stored} too, and run this again", len(values))
    return None


def _opens(reader: LocalProvider, snapshot: Snapshot, value: LostValue) -> bool:
    stored = decode_key_value(snapshot.stored_value(snapshot.record(value.record))).value
    expected = expected_of(value.resource.group_resource) or ANY_TYPE
    starts = {len(stored) - len(stored.split(b":", _COLONS)[-1]), len(value.header.text)}
    for start in starts - {0}:
        try:
            found = [one.plaintext for one in reader.unseal_headless(stored[start:], value.key)]
        except KeyDoesNotFit:
            continue
        if any(is_object_of(plaintext, expected=expected) for plaintext in found):
            return True
    return False


def _cut_name(header: Header, values: Sequence[LostValue], keyring: Keyring) -> Cause | None:
    """Find a configured name that is the beginning of the stored one, or that begins with it."""
    name = header.key_name
    if not name or Reason.UNKNOWN_KEY_NAME not in values[0].outcome.reasons:
        return None
    for kind, other in sorted(keyring.key_names()):
        if kind is header.kind and other and (name.startswith(other) or other.startswith(name)):
            problem = f"{_many(len(values))} under {_named(kind, name)}, and the configuration has "
            problem += _named(kind, other)
            remedy = "one name looks like the other cut off: write the whole name into the configuration and try again"
            return Cause(problem, remedy, len(values))
    return None


def _all_fail(
    groups: Mapping[Header, Sequence[LostValue]], opened: Mapping[Header, int], keyring: Keyring
) -> Iterator[Cause]:
    lost = sum(map(len, groups.values()))
    if not lost:
        return
    if not sum(opened.values()) and lost > 1:
        yield Cause(
            f"none of the {lost:,} encrypted values opens",
            "the configuration is likelier that of another cluster or of another time than all keys are lost: look "
            "for this cluster's own, on each of its control plane nodes and in their backups",
            lost,
        )
        return
    for header, values in groups.items():
        if opened.get(header, 0) or len(values) < 2 or _NO_KEY.intersection(values[0].outcome.reasons):
            continue
        if (header.kind, header.key_name) in keyring.key_names() and header.kind in KEY_SIZES:
            yield Cause(
                f"all {len(values):,} values under {_named(header.kind, header.key_name)} fail, and the configuration "
                "has a key of that name",
                "it is likelier another key of the same name than a lost one: look for an older copy of the file",
                len(values),
            )
