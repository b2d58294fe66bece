"""Keys that a snapshot carries inside and that nobody read with: what they may open is not lost for good.

k3s, RKE2 and OpenShift keep their configuration in the snapshot. A place that stayed closed may hold the key of any
lost value; what opened, and holds keys that were not tried, is tried here. Whatever advises to delete asks first
whether there is such a place, and whatever deletes refuses while there is one, unless the operator's word is that what
opens it is lost for good.

Source: docs/configurations.md, "What a backup carries inside".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from snaptool.embedded.found import Embedded, Recovered, find_embedded
from snaptool.embedded.places import openshift_secrets
from snaptool.errors import InputError
from snaptool.etcd import Snapshot, decode_key_value
from snaptool.kube.objects import plausible
from snaptool.kube.undecodable import ANY_TYPE, is_object_of, may_be_ciphertext
from snaptool.operations.embedding import carried_files
from snaptool.operations.judging import expected_of
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.sweep import LostValue
from snaptool.providers.config.model import KEY_SIZES, EncryptionConfig
from snaptool.providers.keyring import Keyring, NoKeyFits
from snaptool.providers.provider import Kind
from snaptool.providers.symmetric import LocalProvider
from snaptool.text import counted

_MOST_TRIED = 20_000
_HOLD_NOTHING = {"bootstrap_locked", "bootstrap_format"}
_WITH_TOKEN = ("--embedded-config", "--token-file TOKEN")


@dataclass(frozen=True, slots=True)
class Unread:
    """A place whose keys were not tried. `records`: of the values that it opens, if `opens`, or else may open.

    `options` read with it; none where it takes more than options, which `remedy` says.
    """

    place: Embedded
    records: frozenset[int] = field(repr=False)
    opens: bool
    options: tuple[str, ...]
    remedy: str

    @property
    def problem(self) -> str:
        """Say what it may open."""
        count = len(self.records)
        if self.opens:
            values = counted(count, "value that does", "values that do")
            return (
                f"{values} not open here would with the configuration that the snapshot carries in {self.place.place}"
            )
        values = "the value that does" if count == 1 else f"the {count:,} values that do"
        return f"{self.place.place} in the snapshot is closed, and may hold the keys of {values} not open"


class KeysInside(InputError):
    """Values would be deleted that keys which the snapshot carries inside open, or may open. Nothing was written.

    `values`: how many of those that would go.
    """

    def __init__(self, unread: Unread, values: int, going: int) -> None:
        place, what = unread.place, counted(values, "value")
        hint = unread.remedy
        if unread.opens:
            message = f"{what} would be deleted, and {'opens' if values == 1 else 'open'} with the configuration that "
            message += f"the snapshot carries in {place.place}; nothing was written"
        else:
            message = (
                f"{place.place} is closed ({place.reason}) and may hold the keys of {what} that would be deleted; "
            )
            message += "nothing was written"
            goes = counted(going, "value goes", "values go")
            hint += f". Only if what opens it is gone for good: --embedded-lost, with which {goes}"
        code = "bootstrap_token" if place.code == "bootstrap_token" else "keys_inside"
        super().__init__(message, hint=hint, code=code)
        self.values = values


def unread_places(
    opened: OpenedSnapshot, carried: Recovered | None, values: Sequence[LostValue], keyring: Keyring
) -> tuple[Unread, ...]:
    """Find the places that open, or may open, values which `keyring` does not. `carried`: None to look without a token.

    Raises the FormatErrors of a damaged file.
    """
    sealed = [value for value in values if _may_have_a_key(opened.snapshot, value)]
    if not sealed:
        return ()
    if carried is None:
        carried = find_embedded(opened.places, files=carried_files(opened))
    tried = _keys_of(keyring)
    certain, left = [], frozenset(value.record for value in sealed)
    for place, config in _configurations(carried):
        if not _keys_of(Keyring((config,))) <= tried:
            records = frozenset(_opened_by(config, opened.snapshot, sealed))
            if records:
                certain.append(Unread(place, records, True, *_way_to(place, carried)))
                left -= records
    closed = [place for place in carried.closed if place.code not in _HOLD_NOTHING] if left else []
    return (*certain, *(Unread(place, left, False, *_way_to(place, carried)) for place in closed))


def where_configurations_are(opened: OpenedSnapshot) -> str:
    """Say with which options a configuration is given that may open the values of a snapshot."""
    if opened.has_bootstrap:
        return "with --config, or --embedded-config --token-file TOKEN, for the snapshot carries one inside"
    if openshift_secrets(opened.places.live()):
        return "with --config; that of kube-apiserver opens the others inside the snapshot, with --embedded-config"
    return "with --config"


def refuse_while_unread(unread: Sequence[Unread], going: Sequence[LostValue], *, more: int, given_up: bool) -> None:
    """Refuse to let values go that an unread place opens, or may open unless it is `given_up`. Raises KeysInside.

    `going`: the values that would go; `more`: how many that open would go along with them.
    """
    for one in unread:
        values = sum(1 for value in going if value.record in one.records)
        if values and (one.opens or not given_up):
            raise KeysInside(one, values, len(going) + more)


def _may_have_a_key(snapshot: Snapshot, value: LostValue) -> bool:
    """Is there a key somewhere, of those that configurations hold, which may open a value?"""
    if value.outcome.fault is None:
        return value.header.kind in KEY_SIZES
    return value.header.kind is Kind.IDENTITY and may_be_ciphertext(_stored(snapshot, value), value.outcome.fault)


def _stored(snapshot: Snapshot, value: LostValue) -> bytes:
    return decode_key_value(snapshot.stored_value(snapshot.record(value.record))).value


def _configurations(carried: Recovered) -> Iterator[tuple[Embedded, EncryptionConfig]]:
    """Yield each configuration that opened, with its place; OpenShift's is put together from many."""
    yield from ((place, place.config) for place in carried.places if place.config is not None)
    own = [place.config for place in carried.places]
    openshift = next((place for place in carried.places if place.kind == "openshift" and place.opens), None)
    if openshift is not None:
        yield from ((openshift, config) for config in carried.configs if config not in own)


def _way_to(place: Embedded, carried: Recovered) -> tuple[tuple[str, ...], str]:
    """Return the options that read with a place, and what to do in a sentence."""
    if place.code == "bootstrap_token" or place.passphrase:
        where = "TOKEN is the server's own, server/token below its data directory"
        return _WITH_TOKEN, f"read with it: {' '.join(_WITH_TOKEN)} ({where})"
    if place.opens == "without a token" and any(one.passphrase for one in carried.places):
        return (), (
            "`snaptool config extract` without a token writes it into a file: give that with --config, before all else"
        )
    if place.opens is not None:
        return _WITH_TOKEN[:1], f"read with it: {_WITH_TOKEN[0]}"
    if place.kind == "openshift":
        return (), "give the configuration of kube-apiserver with --config, and --embedded-config: it opens the others"
    return (), f"{place.reason}: look for an earlier backup in which it opens, or for the configuration itself"


def _keys_of(keyring: Keyring) -> set[tuple[str, str, bytes]]:
    local = (one for chain in keyring.providers() for one in chain if isinstance(one, LocalProvider))
    return {(str(one.kind), key.name, key.secret) for one in local for key in one.keys}


def _opened_by(config: EncryptionConfig, snapshot: Snapshot, values: Sequence[LostValue]) -> Iterator[int]:
    """Yield the records that a configuration opens, of the first many. Key services are not asked."""
    keyring = Keyring((config,), plausible=plausible)
    for value in values[:_MOST_TRIED]:
        resource, stored = value.resource.group_resource, _stored(snapshot, value)
        chain = keyring.chain_for(resource)
        if value.outcome.fault is not None:
            expected = expected_of(resource) or ANY_TYPE
            if chain.open_headless(stored, value.key, partial(is_object_of, expected=expected)) is not None:
                yield value.record
            continue
        try:
            way, _ = chain.open(stored, value.key)
        except NoKeyFits:
            continue
        if not way.doubtful:
            yield value.record
