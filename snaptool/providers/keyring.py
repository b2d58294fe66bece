"""Chains of providers, and the keyring that knows which chain a resource has.

A chain reads as kube-apiserver does: every provider whose prefix matches is tried in order, a failing one does not
end the search, and an answer from any but the first place is stale. It writes with its first provider's first key. A
keyring holds the chains of one or several configurations; of several, each is asked in turn, whatever the ones before
said.

Which chain a resource has: the entry that names it, else the one for its whole group, else the one for everything;
the three are never merged. A resource in no entry is plaintext, and a value that says otherwise is refused. The group
of a resource may be unknown, for no key of etcd tells it: reading then tries all that may apply, and writing refuses to
guess, for a value under the key of another entry is lost to the server.

Source: kubernetes/apiserver pkg/storage/value/transformer.go, pkg/server/options/encryptionconfig/config.go
(24a394e51); docs/formats/encryption.md, "Chains" and "Which entry applies". Knows no file and no etcd; the etcd key is
a context of bytes.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from snaptool.errors import ProviderError
from snaptool.providers.config.model import EncryptionConfig, KmsConfig, ProviderConfig
from snaptool.providers.provider import Entropies, Entropy, KeyDoesNotFit, Kind, Opened, Plausible, Provider, Reason
from snaptool.providers.symmetric import Identity, Key, LocalProvider, OpenMany
from snaptool.providers.values import Sealed, Values

KmsFactory = Callable[[KmsConfig], Provider]


@dataclass(frozen=True, slots=True)
class GroupResource:
    """A resource and its API group; the core group is empty. `group` None: a key did not tell it."""

    resource: str
    group: str | None = ""

    def __str__(self) -> str:
        return f"{self.resource}.{self.group}" if self.group else self.resource


@dataclass(frozen=True, slots=True)
class Attempt:
    """One provider that was asked and failed. `place`: configuration and provider, counted from 0."""

    place: tuple[int, int]
    kind: Kind
    reasons: tuple[Reason, ...]


class NoKeyFits(ProviderError):
    """No provider opens a stored value. `reasons`: each distinct one, in the order of kube-apiserver's report."""

    def __init__(self, reasons: Sequence[Reason], attempts: Sequence[Attempt] = ()) -> None:
        self.reasons = tuple(dict.fromkeys(reasons))
        self.attempts = tuple(attempts)
        kinds = {attempt.kind for attempt in self.attempts}
        texts = tuple(
            dict.fromkeys(
                next((_TEXTS_OF[kind, reason] for kind in kinds if (kind, reason) in _TEXTS_OF), SERVER_TEXTS[reason])
                for reason in self.reasons
            )
        )
        super().__init__(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")

    def __reduce__(self) -> tuple[object, ...]:
        return NoKeyFits, (self.reasons, self.attempts)


SERVER_TEXTS = {
    Reason.UNKNOWN_PREFIX: "no matching prefix found",
    Reason.UNKNOWN_KEY_NAME: "no matching key was found for the provided AES transformer",
    Reason.IDENTITY_ENCRYPTED: "identity transformer tried to read encrypted data",
    Reason.TOO_SHORT: "the stored data was shorter than the required size",
    Reason.NOT_BLOCK_MULTIPLE: "the stored data is not a multiple of the block size",
    Reason.NO_CIPHER_BLOCK: "runtime error: index out of range [-1]",
    Reason.CBC_PADDING_LENGTH: "invalid PKCS7 data (empty or not padded)",
    Reason.CBC_PADDING_BYTES: "invalid padding on input",
    Reason.GCM_AUTH: "cipher: message authentication failed",
    Reason.SECRETBOX_AUTH: "output array was not large enough for encryption",
    Reason.KMSV1_BAD_LENGTH: (
        "invalid data encountered by envelope transformer: failed to read uint16 length prefixed data"
    ),
    Reason.DEK_BAD_SIZE: "crypto/aes: invalid key size",
    Reason.KMS_UNWRAP_FAILED: "failed to decrypt DEK, error: rpc error: code =",
    Reason.KMSV2_BAD_PROTO: "proto: cannot parse invalid wire-format data",
    Reason.KMSV2_BAD_SOURCE_TYPE: "unknown encryptedDEKSourceType",
    Reason.KMSV2_NO_DATA: "encrypted data is empty",
    Reason.KMSV2_BAD_DEK_SOURCE: "failed to validate encrypted DEK source",
    Reason.KMSV2_BAD_KEY_ID: "failed to validate key id",
    Reason.KMSV2_BAD_ANNOTATIONS: "failed to validate annotations",
    Reason.KMSV2_SEED_TOO_SHORT: "invalid seed length",
    Reason.KMSV2_NO_STATE: "got unexpected nil transformer",
    Reason.DOUBTFUL_PLAINTEXT: "no error: it would take the garbage for the object, and fail to decode it",
}
"""What kube-apiserver 1.31 to 1.37 prints for a reason, or how that begins: what to search its log for.

Before it stands `unable to transform key`, or `data from the storage is not transformable` since 1.37.
"""

_TEXTS_OF = {
    (Kind.SECRETBOX, Reason.UNKNOWN_KEY_NAME): "no matching key was found for the provided Secretbox transformer",
    (Kind.KMS_V1, Reason.KMS_UNWRAP_FAILED): "rpc error: code =",
}
"""Where the text depends on the provider: v1 passes on what the plugin said."""


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """How a value opened: all of `Unsealed` but the plaintext. A chain gives the same object for the same way."""

    kind: Kind
    key_name: str
    position: tuple[int, int, int]
    stale: bool
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Unsealed:
    """An opened value. `position` tells keys of the same name apart: configuration, provider, key, counted from 0."""

    plaintext: bytes = field(repr=False)
    stale: bool
    kind: Kind
    key_name: str
    position: tuple[int, int, int]
    doubtful: bool = False


_NOBODY = NoKeyFits(())
"""Stands for the way of plaintext in a chain that does not read it."""


class Chain:
    """The providers of one resource, of one or several configurations in the order in which they are asked."""

    def __init__(self, configurations: Sequence[Sequence[Provider]]) -> None:
        self._configurations = tuple(tuple(providers) for providers in configurations)
        # Values are many, prefixes are few and never change.
        self._prefixes = tuple(
            tuple((provider.prefix, len(provider.prefix), provider) for provider in providers)
            for providers in self._configurations
        )
        self._openings: dict[tuple[object, ...], Opening] = {}
        self._plain, self._shortcuts = self._make_shortcuts()
        self._headers = [header for header, _, _ in self._shortcuts]

    def _make_shortcuts(self) -> tuple[Opening | None, tuple[tuple[bytes, OpenMany | None, Opening], ...]]:
        """Return how plaintext opens, if it does, and for every header who is asked first, in order."""
        plain: Opening | None = None
        shortcuts: list[tuple[bytes, OpenMany | None, Opening]] = []
        for number, providers in enumerate(self._configurations):
            for place, provider in enumerate(providers):
                if isinstance(provider, Identity):
                    plain = plain or self._opening(provider.kind, "", (number, place, 0), stale=place != 0)
                elif isinstance(provider, LocalProvider):
                    for index, (header, open_many) in enumerate(provider.shortcuts()):
                        name, position = provider.keys[index].name, (number, place, index)
                        opening = self._opening(provider.kind, name, position, stale=place != 0 or index != 0)
                        shortcuts.append((header, open_many, opening))
                else:
                    # It has to be here all the same: who comes behind it is not asked first.
                    opening = self._opening(provider.kind, "", (number, place, 0), stale=False)
                    shortcuts.append((provider.prefix, None, opening))
        return plain, tuple(shortcuts)

    def _opening(
        self, kind: Kind, key_name: str, position: tuple[int, int, int], *, stale: bool, doubtful: bool = False
    ) -> Opening:
        way = (kind, key_name, position, stale, doubtful)
        if way not in self._openings:
            self._openings[way] = Opening(kind, key_name, position, stale, doubtful)
        return self._openings[way]

    def has(self, configurations: Sequence[Sequence[Provider]]) -> bool:
        """Is this the chain of these providers?"""
        return self._configurations == tuple(map(tuple, configurations))

    @property
    def _first(self) -> Provider:
        return self._configurations[0][0]

    @property
    def writer(self) -> tuple[Kind, str]:
        """Provider and key that `seal` uses."""
        return self._first.kind, self._first.write_key

    def open_many(
        self, values: Values, rows: memoryview, numbers: memoryview, first: int = 0
    ) -> list[Opening | NoKeyFits]:
        """Open values, each as `open` does; return the ways there are: `numbers[row]` minus `first` says which.

        Nearly every value is opened by the first key that is asked; what that one refuses goes the long way.
        """
        values.ask(rows, self._headers)
        values.note_ways(rows, numbers, first)
        ways = [self._plain or _NOBODY, *(opening for _, _, opening in self._shortcuts)]
        if self._plain is not None:
            values.open_plain(rows)
        for number, (_, open_many, _) in enumerate(self._shortcuts):
            if open_many is not None:
                open_many(values, rows, number)
        known: dict[Opening | NoKeyFits, int] = {}
        for row in values.closed(rows):
            way = self._open_at_length(values, row)
            numbers[row] = known.setdefault(way, first + len(ways))
            if numbers[row] == first + len(ways):
                ways.append(way)
        return ways

    def _open_at_length(self, values: Values, row: int) -> Opening | NoKeyFits:
        try:
            way, plaintext = self.open(values.stored(row), values.key(row))
        except NoKeyFits as error:
            return error.with_traceback(None)  # which would keep the values alive
        values.put(row, plaintext)
        return way

    def open(self, stored: bytes, context: bytes) -> tuple[Opening, bytes]:
        """Open a stored value as `unseal` does; say how, and the plaintext. Raises NoKeyFits."""
        found = self.unseal(stored, context)
        way = self._opening(found.kind, found.key_name, found.position, stale=found.stale, doubtful=found.doubtful)
        return way, found.plaintext

    def unseal(self, stored: bytes, context: bytes) -> Unsealed:
        """Open a stored value. `context`: its whole etcd key. Raises NoKeyFits.

        A doubtful answer (see `Opened`) is returned only when no provider gives a better one.
        """
        attempts: list[Attempt] = []
        reasons: list[Reason] = []
        doubtful: Unsealed | None = None
        for number, providers in enumerate(self._prefixes):
            failed: list[Reason] = []
            for place, (prefix, size, provider) in enumerate(providers):
                if not stored.startswith(prefix):
                    continue
                try:
                    opened = provider.unseal(stored[size:], context)
                except KeyDoesNotFit as error:
                    attempts.append(Attempt((number, place), provider.kind, error.reasons))
                    # The server drops what identity says, unless it is alone, for a resource in no entry.
                    if prefix or (len(providers) == 1 and isinstance(provider, UncoveredIdentity)):
                        failed += error.reasons
                    continue
                found = _unsealed(opened, provider, number, place)
                if not found.doubtful:
                    return found
                doubtful = doubtful or found
            reasons += failed or [Reason.UNKNOWN_PREFIX]
        if doubtful is not None:
            return doubtful
        # That one configuration knows nothing of the value says little beside another's reason.
        telling = [reason for reason in reasons if reason not in _NOT_MINE] or reasons
        raise NoKeyFits(telling if len(self._configurations) > 1 else reasons, attempts)

    def open_headless(
        self, payload: bytes, context: bytes, accepts: Callable[[bytes], bool]
    ) -> tuple[Opening, bytes] | None:
        """Open ciphertext that lost its header with any key there is; None where nothing opens it to what is accepted.

        `accepts` has to be sure: AES-CBC opens one in 256 values under a wrong key. Providers are tried in order.
        """
        for number, providers in enumerate(self._configurations):
            for place, provider in enumerate(providers):
                for opened in _without_header(provider, payload, context):
                    if accepts(opened.plaintext):
                        found = _unsealed(opened, provider, number, place)
                        return self._opening(found.kind, found.key_name, found.position, stale=True), found.plaintext
        return None

    def seal(self, plaintext: bytes, context: bytes, entropy: Entropy = os.urandom) -> bytes:
        """Return the stored value that kube-apiserver would write. `context`: the whole etcd key."""
        return self._first.prefix + self._first.seal(plaintext, context, entropy)

    @property
    def growth(self) -> tuple[int, int] | None:
        """What sealing adds: see `LocalProvider.growth`; None where only the provider of a KMS knows."""
        if isinstance(self._first, Identity):
            return 0, 1
        return self._first.growth if isinstance(self._first, LocalProvider) else None

    def seal_many(self, values: Values, rows: memoryview, entropy: Entropies, sealed: Sealed) -> None:
        """Seal values that are open, each as `seal` does. `entropy`: one source, or one for each of `rows`."""
        if isinstance(self._first, LocalProvider):
            self._first.seal_many(values, rows, entropy, sealed)
        elif isinstance(self._first, Identity):
            sealed.keep_plain(rows, values)
        else:
            entropies = [entropy] * len(rows) if callable(entropy) else entropy
            for row, source in zip(rows, entropies, strict=True):
                sealed.put(row, self.seal(bytes(values.plaintext(row)), values.key(row), source))

    def is_writer_of(self, position: tuple[int, int, int], other: Chain) -> bool:
        """Is the key at `position` of this chain the very key that `other` writes with?"""
        provider, writer = self._configurations[position[0]][position[1]], other._first
        if not (isinstance(provider, LocalProvider) and isinstance(writer, LocalProvider)):
            return provider.kind is writer.kind is Kind.IDENTITY
        key = provider.keys[position[2]]
        return (
            provider.kind is writer.kind
            and key.name == writer.keys[0].name
            and hmac.compare_digest(key.secret, writer.keys[0].secret)
        )


_NOT_MINE = frozenset({Reason.UNKNOWN_PREFIX, Reason.UNKNOWN_KEY_NAME, Reason.IDENTITY_ENCRYPTED})


def _unsealed(opened: Opened, provider: Provider, number: int, place: int) -> Unsealed:
    position = (number, place, opened.key_index)
    return Unsealed(
        opened.plaintext, opened.stale or place != 0, provider.kind, opened.key_name, position, opened.doubtful
    )


def _without_header(provider: Provider, payload: bytes, context: bytes) -> Iterator[Opened]:
    """Yield what a provider makes of a payload whose header is missing, or was cut in front of the key's name."""
    if isinstance(provider, LocalProvider):
        yield from provider.unseal_headless(payload, context)
    if not provider.prefix:
        return
    try:
        yield provider.unseal(payload, context)
    except KeyDoesNotFit:
        return


class UncoveredIdentity(Identity):
    """What a resource in no entry gets: its refusal of encrypted values is reported, as servers do since 1.26."""


_UNCOVERED = UncoveredIdentity()


@dataclass(frozen=True, slots=True)
class UnreachableKms:
    """A KMS provider of a configuration that is read without its plugin: everything else can still be opened."""

    config: KmsConfig

    @property
    def kind(self) -> Kind:
        """KMS v1 or v2."""
        return self.config.kind

    @property
    def prefix(self) -> bytes:
        """`k8s:enc:kms:v2:NAME:`."""
        return self.config.api.prefix + self.config.name.encode() + b":"

    @property
    def write_key(self) -> str:
        """The provider's name."""
        return self.config.name

    def unseal(self, payload: bytes, context: bytes) -> Opened:
        """Refuse. Raises KeyDoesNotFit."""
        del payload, context
        raise KeyDoesNotFit(Reason.KMS_UNWRAP_FAILED, detail=f"KMS provider {self.config.name!r} was not asked")

    def seal(self, plaintext: bytes, context: bytes, entropy: Entropy) -> bytes:
        """Refuse. Raises ProviderError."""
        del plaintext, context, entropy
        raise ProviderError(f"KMS provider {self.config.name!r} cannot seal without its plugin")


class Keyring:
    """The chains of one or several configurations. With none, everything is plaintext.

    `plausible` judges what unauthenticated ciphers return; without it the keyring believes whatever kube-apiserver
    would. `kms` makes the provider of a KMS entry; without it such entries open nothing and everything else works.
    """

    def __init__(
        self,
        configs: Sequence[EncryptionConfig] = (),
        *,
        plausible: Plausible | None = None,
        kms: KmsFactory = UnreachableKms,
    ) -> None:
        made: dict[int, Provider] = {}

        def provider(config: ProviderConfig) -> Provider:
            if id(config) not in made:
                made[id(config)] = _make(config, plausible, kms)
            return made[id(config)]

        self._entries = tuple(
            tuple(
                (GroupResource(resource, group), tuple(provider(one) for one in entry.providers))
                for entry in config.entries
                for resource, group in entry.group_resources
            )
            for config in configs
        )
        self._chains: dict[GroupResource | None, Chain] = {}

    def chain_for(self, resource: GroupResource | None) -> Chain:
        """Return the chain of a resource. None is a key of no known resource: written in plaintext, read with any key.

        A resource whose group is not known is read with every entry that could be its own, and sealed only where one
        entry is certain to be. Resources with the same providers have the same chain: their values are worked on
        together.
        """
        if resource not in self._chains:
            configurations = [_chosen(entries, resource).chain for entries in self._entries] or [(_UNCOVERED,)]
            alike = (chain for chain in self._chains.values() if chain.has(configurations))
            self._chains[resource] = next(alike, None) or Chain(configurations)
        return self._chains[resource]

    def covers(self, resource: GroupResource | None) -> bool:
        """Is it certain that any configuration has an entry for the resource?"""
        return any(_chosen(entries, resource).certain for entries in self._entries)

    def resource_names(self) -> tuple[str, ...]:
        """Return what the entries name, as configurations write it: `secrets`, `*.apps`, `*.` for the core group."""
        every = (resource for entries in self._entries for resource, _ in entries)
        return tuple(dict.fromkeys(f"{one}." if str(one) == "*" else str(one) for one in every))

    def key_names(self) -> frozenset[tuple[Kind, str]]:
        """Return the names that values may stand under: of keys, and of KMS providers, by kind."""
        every = [one for providers in self.providers() for one in providers]
        local = {(one.kind, key.name) for one in every if isinstance(one, LocalProvider) for key in one.keys}
        others = {(one.kind, one.write_key) for one in every if one.prefix and not isinstance(one, LocalProvider)}
        return frozenset(local | others)

    def providers(self) -> tuple[tuple[Provider, ...], ...]:
        """Return the distinct providers of each configuration, in order."""
        return tuple(_distinct(one for _, providers in entries for one in providers) for entries in self._entries)


_Entries = tuple[tuple[GroupResource, tuple[Provider, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    """What a configuration has for a resource. `certain`: the server would write with the first of `chain`."""

    chain: tuple[Provider, ...]
    certain: bool


def _chosen(entries: _Entries, resource: GroupResource | None) -> _Choice:
    if resource is None:
        # Nothing current is encrypted there; what old servers encrypted may be under any key.
        others = _distinct(one for _, providers in entries for one in providers if one.prefix)
        return _Choice((_UNCOVERED, *others), certain=False)
    if resource.group is None:
        return _chosen_without_group(entries, resource.resource)
    for wanted in (resource, GroupResource("*", resource.group), GroupResource("*", "*")):
        found = tuple(one for entry, providers in entries if entry == wanted for one in providers)
        if found:
            return _Choice(found, certain=True)
    return _Choice((_UNCOVERED,), certain=False)


def _chosen_without_group(entries: _Entries, plural: str) -> _Choice:
    possible = list(dict.fromkeys(entry for entry, _ in entries if entry.resource in {plural, "*"}))
    named = [entry for entry in possible if entry.resource == plural]
    # A name in one group alone is taken to be meant. Else the wildcard of its group, if any, hides that of everything.
    only = named or possible
    certain = only[0] if len(only) == 1 and (named or only[0].group == "*") else None
    possible.sort(key=lambda entry: entry != certain)
    found = [one for wanted in possible for entry, providers in entries if entry == wanted for one in providers]
    if certain is not None:
        return _Choice(_distinct(found), certain=True)
    return _Choice((_UNCOVERED, *_distinct(found)), certain=False)


def _distinct(providers: Iterable[Provider]) -> tuple[Provider, ...]:
    return tuple({id(one): one for one in providers}.values())


def _make(config: ProviderConfig, plausible: Plausible | None, kms: KmsFactory) -> Provider:
    if isinstance(config, KmsConfig):
        return kms(config)
    if config.kind is Kind.IDENTITY:
        return Identity()
    return LocalProvider(config.kind, tuple(Key(key.name, key.secret) for key in config.keys), plausible)
