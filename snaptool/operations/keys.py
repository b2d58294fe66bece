"""Keys for a job: from configurations, with their KMS plugins, to keyrings that need no plugin any more.

Theory of operation. Local keys are in the configuration. What a KMS provider has wrapped is in the snapshot, and only
its plugin can unwrap it; so, before any work, one pass over the records collects the distinct wrapped keys, each is
unwrapped once, fresh keys to write with are made and proved, and the connections are closed. Workers get the keys and
never a connection: what a job asks of a plugin does not depend on the number of values or of workers.

`keyring_for_reading` is for jobs that open everything, `asking_keyring` for those that look at a few values, and
`keys_for_rewriting` for the job that writes. What a plugin refuses or answers wrongly, also when asked again, is a
`KeyProblem`: readers go on without these values and say so, a rewrite ends. Only the operator's word
(`KmsOptions.given_up`) makes them lost.

Source: docs/formats/kms.md, "How many calls" and "When a plugin fails". Nothing here knows a cipher or a socket.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from snaptool.errors import FormatError, InputError
from snaptool.kube.objects import plausible
from snaptool.operations.crypto import Rewraps
from snaptool.operations.kms_options import NO_KMS_OPTIONS, KmsOptions, kms_configs
from snaptool.operations.kms_services import Services, require_direct
from snaptool.operations.labels import Header
from snaptool.operations.opening import OpenedSnapshot, WrongTrailer
from snaptool.operations.sweep import Progress, Wanted, no_progress
from snaptool.operations.wrapped import Collected, collect
from snaptool.providers.config.model import EncryptionConfig, KmsConfig
from snaptool.providers.keyring import Chain, Keyring, NoKeyFits
from snaptool.providers.kms import (
    AskingKeys,
    KeySource,
    KmsV1Provider,
    KmsV2Provider,
    UnwrappedKeys,
    WriteKey,
    WriteKeys,
)
from snaptool.providers.kms_envelope import WrappedSource, decode_envelope
from snaptool.providers.kms_keys import (
    FreshWriteKeys,
    Rewrapping,
    ServiceCheck,
    check_service,
    make_write_key,
    make_write_keys,
    rewrap_sources,
)
from snaptool.providers.kms_pace import Retry
from snaptool.providers.kms_saved import write_key_file
from snaptool.providers.kms_service import Category, KmsError, KmsService, UnwrapFailed
from snaptool.providers.kms_sources import CONCURRENCY, direct_offer
from snaptool.providers.kms_unwrapping import (
    NOT_THERE,
    FailedSources,
    GivenUp,
    Unwrapping,
    failure_error,
    give_up_hint,
    joined_keys,
    opens_a_value,
    proved_keys,
    unwrap_sources,
    unwrapped_pairs,
)
from snaptool.providers.provider import Api, Entropy, KeyDoesNotFit, Kind, Opened, Provider, Reason

if TYPE_CHECKING:
    from snaptool.operations.plan import Undecryptable


class TooManyV1Keys(InputError):
    """More data keys of KMS v1 than somebody may want to have unwrapped: each costs a call."""

    code = "too_many_v1_keys"

    def __init__(self, provider: str, most: int) -> None:
        super().__init__(
            f"KMS v1 provider {provider!r} wrapped a key for every value: more than {most:,} calls in all",
            hint="use --check sample=20, or --yes-all-v1 to make all these calls",
        )
        self._parts = provider, most

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self._parts


@dataclass(frozen=True, slots=True)
class KeyProblem:
    """What one provider refused or answered wrongly, also when asked again, and nobody gave up: one error for all.

    `remedy`: how to have the values back, and the options that give up these and no more.
    """

    kind: Kind
    name: str
    error: KmsError
    failures: tuple[FailedSources, ...]

    @property
    def remedy(self) -> str:
        """What to do about values of this provider."""
        hints = dict.fromkeys(failed.hint for failed in self.failures if failed.hint)
        return "; ".join([*hints] or ["enable the keys in the KMS again"]) + f"; {give_up_hint(self.failures)}"


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A keyring that opens what could be unwrapped, what came of each provider, and what went wrong.

    `given_up`: what failed and is lost by the operator's word.
    """

    keyring: Keyring
    answers: tuple[Unwrapping, ...] = ()
    problems: tuple[KeyProblem, ...] = ()
    given_up: tuple[FailedSources, ...] = ()

    @property
    def outage(self) -> KmsError | None:
        """The first error of a service that failed."""
        return next((problem.error for problem in self.problems), None)

    def remedy(self, header: Header, reason: Reason) -> str:
        """Say what helps for a value that does not open because of a key service; empty for any other value."""
        for problem in self.problems:
            mine = (problem.kind, problem.name) == (header.kind, header.name)
            answered_wrongly = any(failed.category is Category.BAD_ANSWER for failed in problem.failures)
            if mine and (answered_wrongly or reason is Reason.KMS_UNWRAP_FAILED):
                return problem.remedy
        return ""


@dataclass(frozen=True, slots=True)
class RewriteKeys:
    """Keyrings for a rewrite: what reads, what writes and reads back, what is only wrapped again."""

    reading: Unwrapped
    writing: Keyring
    rewraps: Rewraps = field(default_factory=Rewraps)


# --- the plugins ----------------------------------------------------------------------------------------------------


@contextmanager
def key_services(options: KmsOptions) -> Iterator[Callable[[KmsConfig], KmsService]]:
    """Yield what returns the service of a provider, which is connected to when it is first asked; all end here."""
    with Services(options) as services:
        yield services.of


def check_plugins(
    configs: Sequence[EncryptionConfig],
    options: KmsOptions = NO_KMS_OPTIONS,
    *,
    decrypt_only: bool = False,
    sample: OpenedSnapshot | None = None,
    skip_hash_check: bool = False,
) -> tuple[ServiceCheck, ...]:
    """Ask each configured plugin how it is. `sample`: a snapshot, one value of which each plugin unwraps the key of.

    Raises WrongTrailer, unless `skip_hash_check`.
    """
    kms = kms_configs(configs)
    require_direct(options, kms)
    samples: dict[KmsConfig, tuple[WrappedSource, Callable[[bytes], bool]]] = {}
    if sample is not None:
        collected = collect(sample, kms, no_progress, skip_hash_check=skip_hash_check)
        for config in kms:
            sources = collected.sources(config)
            if len(sources):
                number = sources.most_used()[0]
                proves = partial(opens_a_value, sources, number, collected.fetch, plausible)
                samples[config] = sources.fetch(number, collected.fetch), proves
    # Who asks how a plugin is wants to know soon.
    with Services(options, Retry(tries=2)) as services:
        checks = []
        for config in kms:
            source, proves_it = samples.get(config, (None, None))
            direct = options.direct_for(config)
            # A service without a key of its own reads what names its key, and writes nothing.
            reads = decrypt_only or not (direct is None or direct.writes)
            checked = check_service(services.of(config), decrypt_only=reads, sample=source, proves=proves_it)
            checks.append(checked if direct is None else replace(checked, asked=direct.service))
        return tuple(checks)


# --- reading --------------------------------------------------------------------------------------------------------


def keyring_for_reading(
    opened: OpenedSnapshot,
    configs: Sequence[EncryptionConfig],
    options: KmsOptions = NO_KMS_OPTIONS,
    *,
    skip_hash_check: bool = True,
    progress: Progress = no_progress,
    wanted: Wanted | None = None,
) -> Unwrapped:
    """Make a keyring that opens every value of a snapshot, asking each KMS plugin once for every distinct wrapped key.

    `wanted`: these values alone are to be opened; a Wanted that remembers, as `sweep` gets it, has to be another one.

    All connections are closed when it returns. Raises nothing for a plugin that fails: look at `problems`; what was
    not unwrapped is lost to this keyring for the reason `kms_unwrap_failed`. Nor for a damaged file: whoever reads its
    values next says so, and says where. A v2 plugin that unwrapped something is also asked which key is current: values
    under another one are stale. With `skip_hash_check` false a wrong trailer is refused before any plugin is asked.
    Raises BadEndpoint, GrpcMissing, NothingGivenUp, WrongTrailer.
    """
    kms = kms_configs(configs)
    _require_names(options.given_up, kms)
    require_direct(options, kms)
    if not kms:
        return Unwrapped(Keyring(configs, plausible=plausible))
    try:
        collected = collect(opened, kms, progress, lambda _: None, skip_hash_check=skip_hash_check, wanted=wanted)
    except WrongTrailer:
        raise
    except FormatError:
        unasked = {config: _reader(config, UnwrappedKeys()) for config in kms}
        return Unwrapped(Keyring(configs, plausible=plausible, kms=unasked.__getitem__))
    with Services(options) as services:
        return _unwrap(configs, collected, services, options, progress, judge=True)[0]


def _unwrap(
    configs: Sequence[EncryptionConfig],
    collected: Collected,
    services: Services,
    options: KmsOptions,
    progress: Progress,
    *,
    judge: bool = False,
) -> tuple[Unwrapped, dict[tuple[str, str], UnwrappedKeys]]:
    """Unwrap for all providers of `configs`. Returned too: the keys by API and name of provider.

    `judge`: ask which key is current, so that stale values show.
    """
    by_name: dict[tuple[str, str], list[KmsConfig]] = {}
    for config in kms_configs(configs):
        by_name.setdefault((config.api_version, config.name), []).append(config)
    providers: dict[KmsConfig, Provider] = {}
    answers: list[Unwrapping] = []
    problems: list[KeyProblem] = []
    given_up: list[FailedSources] = []
    keys_of: dict[tuple[str, str], UnwrappedKeys] = {}
    for name, same in by_name.items():
        sources = collected.sources(same[0])
        if not len(sources):
            providers |= {config: _reader(config, UnwrappedKeys()) for config in same}
            keys_of[name] = UnwrappedKeys()
            continue
        calls = -(-len(sources) // min(options.keys_a_call(config) for config in same))
        if options.most_v1 is not None and sources.api is Api.V1 and calls > options.most_v1:
            raise TooManyV1Keys(name[1], options.most_v1)
        found = unwrap_sources(
            sources,
            [services.of(config) for config in same],
            collected.fetch,
            known=options.saved,
            every_place=partial(collected.every_place, same[0]),
            insist=any(word.name == same[0].name for word in options.given_up),
            concurrency=options.concurrency,
            plausible=plausible,
            progress=lambda done, total: progress("unwrapping keys", done, total),
        )
        keys = joined_keys(found)
        for config, answer in zip(same, found, strict=True):
            works = judge and answer.asked and len(answer.keys)
            providers[config] = _reader(config, keys, _current_key_id(services.of(config)) if works else "")
        answers += found
        _require_key_ids(options.given_up, same[0], found)
        gone, problem = _sorted_out(options.given_up, same[0], found)
        given_up += gone
        problems += [problem] if problem is not None else []
        keys_of[name] = UnwrappedKeys.pack(proved_keys(found))
    keyring = Keyring(configs, plausible=plausible, kms=providers.__getitem__)
    return Unwrapped(keyring, tuple(answers), tuple(problems), tuple(given_up)), keys_of


class NothingGivenUp(InputError):
    """What is given up is not there: no such KMS provider, or no value under that key id."""


def _require_names(given_up: Sequence[GivenUp], kms: Sequence[KmsConfig]) -> None:
    """Refuse a word about a provider that no configuration has. Raises NothingGivenUp."""
    names = sorted({config.name for config in kms})
    for word in given_up:
        apis = {config.api_version for config in kms if config.name == word.name}
        if not apis:
            known = ", ".join(map(repr, names))
            raise NothingGivenUp(
                f"--kms-lost {word}: the configuration has no KMS provider of the name {word.name!r}",
                hint=f"its KMS providers are {known}" if names else "it has no KMS provider at all",
            )
        if word.key_id_hash and apis == {Api.V1.value}:
            raise NothingGivenUp(
                f"--kms-lost {word}: values of KMS v1 do not say which key id they are under",
                hint=f"{GivenUp(word.name).option} gives up all that the provider refuses",
            )


def _require_key_ids(given_up: Sequence[GivenUp], config: KmsConfig, answers: Sequence[Unwrapping]) -> None:
    """Refuse a word about a key id that no value of the provider is under. Raises NothingGivenUp."""
    there = frozenset().union(*(answer.key_id_hashes for answer in answers))
    for word in given_up:
        if word.name == config.name and word.key_id_hash and config.api_version != Api.V1:
            if word.key_id_hash in there:
                continue
            raise NothingGivenUp(
                f"--kms-lost {word}: no value of {word.name!r} is under this key id",
                hint="without the option, the command says under which key ids values are refused",
            )


def _sorted_out(
    given_up: Sequence[GivenUp], config: KmsConfig, answers: Sequence[Unwrapping]
) -> tuple[list[FailedSources], KeyProblem | None]:
    """Tell what is given up from what is a problem."""
    failures, twice = answers[-1].failures, any(answer.twice for answer in answers)
    gone = [failed for failed in failures if any(word.covers(failed) for word in given_up)]
    left = tuple(failed for failed in failures if failed not in gone)
    error = failure_error(left, answers[0].objects, twice=twice)
    if error is None:
        return gone, None
    return gone, KeyProblem(config.kind, config.name, error, left)


def _reader(config: KmsConfig, keys: KeySource, current_key_id: str = "") -> Provider:
    if config.api_version == Api.V1:
        return KmsV1Provider(config.name, keys, plausible=plausible)
    return KmsV2Provider(config.name, keys, current_key_id=current_key_id)


def _current_key_id(service: KmsService) -> str:
    if service.api is Api.V1:
        return ""
    try:
        return service.status().key_id
    except KmsError:
        return ""  # reading does not need it


@contextmanager
def asking_keyring(
    configs: Sequence[EncryptionConfig], options: KmsOptions = NO_KMS_OPTIONS
) -> Iterator[tuple[Keyring, Sequence[AskingKeys]]]:
    """Make a keyring that asks a plugin when a value is opened: for jobs that open a few, in this process alone.

    Also given: the sources of KMS keys, whose `failures` say what went wrong. The connections end with the block.
    """
    asking: list[AskingKeys] = []
    require_direct(options, kms_configs(configs))
    with Services(options) as services:

        def provider(config: KmsConfig) -> Provider:
            keys = AskingKeys(services.of(config), options.saved)
            asking.append(keys)
            return _SecondLook(_reader(config, keys), keys, config.api, direct=options.direct_for(config) is not None)

        made = {config: provider(config) for config in kms_configs(configs)}
        yield Keyring(configs, plausible=plausible, kms=made.__getitem__), asking


@dataclass(frozen=True, slots=True)
class _SecondLook:
    """A provider that has its key asked for once more where it does not open the value: a Provider.

    `direct`: the service is asked without its plugin.
    """

    reader: Provider
    keys: AskingKeys = field(repr=False)
    api: Api
    direct: bool

    @property
    def kind(self) -> Kind:
        return self.reader.kind

    @property
    def prefix(self) -> bytes:
        return self.reader.prefix

    @property
    def write_key(self) -> str:
        return self.reader.write_key

    def unseal(self, payload: bytes, context: bytes) -> Opened:
        try:
            return self.reader.unseal(payload, context)
        except KeyDoesNotFit as error:
            source = decode_envelope(self.api, self.reader.write_key, payload).source
            failure = error.failure if isinstance(error, UnwrapFailed) else None
            if failure is not None and failure.category in NOT_THERE and not self.direct:
                offer = direct_offer(source)
                failure.hint = failure.hint if offer in failure.hint else f"{failure.hint}; {offer}"
            if not self.keys.doubt(source):
                raise
        return self.reader.unseal(payload, context)

    def seal(self, plaintext: bytes, context: bytes, entropy: Entropy) -> bytes:
        return self.reader.seal(plaintext, context, entropy)


def exported_keys(
    opened: OpenedSnapshot,
    configs: Sequence[EncryptionConfig],
    options: KmsOptions = NO_KMS_OPTIONS,
    *,
    skip_hash_check: bool = False,
    progress: Progress = no_progress,
) -> tuple[str, Unwrapped]:
    """Unwrap every wrapped key of a snapshot and return the text of a file that holds them, for `KmsOptions.saved`.

    Only keys that opened a value are in it. Raises KmsError for those that are neither proved nor given up, and
    WrongTrailer, unless `skip_hash_check`.
    """
    kms = kms_configs(configs)
    _require_names(options.given_up, kms)
    require_direct(options, kms)
    with Services(options) as services:
        services.ready(kms)
        collected = collect(opened, kms, progress, skip_hash_check=skip_hash_check)
        unwrapped, keys_of = _unwrap(configs, collected, services, options, progress)
    if unwrapped.outage is not None:
        raise unwrapped.outage
    pairs: list[tuple[WrappedSource, bytes]] = []
    for (api, name), keys in keys_of.items():
        pairs += unwrapped_pairs(collected.collector.sources(Api(api), name), keys, collected.fetch)
    return write_key_file(pairs), unwrapped


# --- writing --------------------------------------------------------------------------------------------------------


class _Remembered:
    """Keys to write with, one for each value, which are needed again to read back: a WriteKeys and a KeySource."""

    def __init__(self, fresh: WriteKeys, known: Mapping[bytes, bytes]) -> None:
        self._fresh = fresh
        self._picked = dict(known)

    def pick(self, nonce: bytes) -> WriteKey:
        write = self._fresh.pick(nonce)
        self._picked[write.source.cache_key] = write.key
        return write

    def candidates(self, source: WrappedSource) -> Sequence[bytes]:
        key = self._picked.get(source.cache_key)
        return UnwrappedKeys().candidates(source) if key is None else (key,)


@contextmanager
def keys_for_rewriting(
    opened: OpenedSnapshot,
    old: Sequence[EncryptionConfig],
    new: Sequence[EncryptionConfig],
    options: KmsOptions = NO_KMS_OPTIONS,
    *,
    undecryptable: Undecryptable | None = None,
    allow_plaintext: bool = False,
    skip_hash_check: bool = False,
    rewrap: bool = False,
    progress: Progress = no_progress,
) -> Iterator[RewriteKeys]:
    """Get all keys that a rewrite needs: unwrap the old ones, then make and prove those to write with.

    A service that refuses or answers wrongly ends the job, whatever `undecryptable` says (None: STOP): what it did not
    unwrap is not lost until the operator says so (`KmsOptions.given_up`). `rewrap`: values under a KMS provider get the
    same keys under a new wrapping where the API stays the same. The keys are good within the block: with
    `v1_dek_per_object`, plugins are asked while values are sealed. Raises KmsError for a service that fails, InputError
    for a bad endpoint, NothingGivenUp, and before any plugin is asked WrongTrailer and PlaintextNotAllowed, as the
    rewrite itself would.
    """
    old_kms, new_kms = kms_configs(old), kms_configs(new)
    _require_names(options.given_up, old_kms)
    require_direct(options, old_kms, new_kms)
    if not (old_kms or new_kms):
        yield RewriteKeys(Unwrapped(Keyring(old, plausible=plausible)), Keyring(new, plausible=plausible))
        return
    with Services(options) as services, ExitStack() as stack:
        services.ready(old_kms)
        services.ready(new_kms, new=True)
        collected = collect(opened, old_kms, progress, skip_hash_check=skip_hash_check)
        if new and not allow_plaintext and (undecryptable or "stop") == "stop":
            _require_cover(collected, old, new)
        loads = loads_of(collected, new)
        for config in new_kms:
            direct = options.direct_for(config, new=True)
            if direct is not None and loads.get((config.kind, config.name)):
                direct.require_key()
        reading, keys_of = _unwrap(old, collected, services, options, progress)
        if reading.outage is not None:
            raise reading.outage
        writing = _Writing(collected, loads, keys_of if rewrap else {}, services, options, progress, stack)
        providers = {config: writing.provider(config) for config in new_kms}
        if not writing.asks_later:
            services.close()
        keyring = Keyring(new, plausible=plausible, kms=providers.__getitem__)
        yield RewriteKeys(reading, keyring, Rewraps(writing.rewrappings))


def _require_cover(collected: Collected, old: Sequence[EncryptionConfig], new: Sequence[EncryptionConfig]) -> None:
    """Refuse encrypted values that `new` writes in plaintext and whose key `old` has, by name.

    Raises PlaintextNotAllowed.

    Only those that open would be written in plaintext, and whether they do is not known yet. But if they do not, a job
    that stops at lost values ends as well.
    """
    reading, writing = Keyring(old), Keyring(new)
    uncovered: Counter[str] = Counter()
    identity_first: Counter[str] = Counter()
    for (resource, header), count in collected.values.items():
        known = resource.group_resource
        covered = known is not None and writing.covers(known)
        if covered and writing.chain_for(known).writer[0] is not Kind.IDENTITY:
            continue
        if header.text and _has_key(reading.chain_for(known), header):
            (identity_first if covered else uncovered)[resource.name] += count
    if uncovered or identity_first:
        from snaptool.operations.plan import PlaintextNotAllowed  # noqa: PLC0415 - who reads needs no plan

        raise PlaintextNotAllowed(uncovered, identity_first)


def _has_key(chain: Chain, header: Header) -> bool:
    """Has a chain a key of that provider and name? It then finds fault with what follows the header: nothing."""
    try:
        chain.unseal(header.text, b"")
    except NoKeyFits as error:
        return not {Reason.UNKNOWN_PREFIX, Reason.UNKNOWN_KEY_NAME, Reason.IDENTITY_ENCRYPTED}.issuperset(error.reasons)
    return True


def loads_of(collected: Collected, new: Sequence[EncryptionConfig]) -> dict[tuple[Kind, str], Counter[Kind | None]]:
    """Count, for each provider and name that will write, the values that it gets, by the kind they are under now."""
    shape = Keyring(new)
    loads: dict[tuple[Kind, str], Counter[Kind | None]] = {}
    for (resource, header), count in collected.values.items():
        if resource.group_resource is not None:
            writer = shape.chain_for(resource.group_resource).writer
            loads.setdefault(writer, Counter())[header.kind] += count
    return loads


class _Writing:
    """Makes the KMS providers of the new configuration, each with keys to write with if it will write.

    `rewrap`: the old keys, by API and provider, whose wrapping alone is to change; none if all is sealed again.
    """

    def __init__(
        self,
        collected: Collected,
        loads: Mapping[tuple[Kind, str], Counter[Kind | None]],
        rewrap: Mapping[tuple[str, str], UnwrappedKeys],
        services: Services,
        options: KmsOptions,
        progress: Progress,
        stack: ExitStack,
    ) -> None:
        self._collected = collected
        self._loads = loads
        self._rewrap = rewrap
        self._services = services
        self._options = options
        self._progress = progress
        self._stack = stack
        self.rewrappings: dict[tuple[Kind, str], tuple[Rewrapping, ...]] = {}
        self.asks_later = False

    def provider(self, config: KmsConfig) -> Provider:
        """Make one provider: it writes, and opens what it wrote. Raises KmsError."""
        load = Counter(self._loads.get((config.kind, config.name), Counter()))
        known: dict[bytes, bytes] = {}
        key_id = ""
        if self._rewrap and load.pop(config.kind, 0):
            rewrappings = tuple(
                self._rewrapping(config, name) for api, name in self._rewrap if api == config.api_version
            )
            self.rewrappings[config.kind, config.name] = rewrappings
            for rewrapping in rewrappings:
                keys = self._rewrap[config.api_version, rewrapping.old_provider]
                for cache_key, source in rewrapping.new.items():
                    known[source.cache_key] = keys.find(cache_key) or b""
                    key_id = source.key_id
        objects = load.total()
        if config.api_version == Api.V1:
            return self._v1(config, objects, known)
        write = make_write_key(self._services.of(config, new=True)) if objects else None
        if write is not None:
            known[write.source.cache_key] = write.key
        return KmsV2Provider(config.name, UnwrappedKeys.pack(sorted(known.items())), write, current_key_id=key_id)

    def _v1(self, config: KmsConfig, objects: int, known: dict[bytes, bytes]) -> Provider:
        if not objects:
            return KmsV1Provider(config.name, UnwrappedKeys.pack(sorted(known.items())), plausible=plausible)
        service = self._services.of(config, new=True)
        if self._options.v1_dek_per_object:
            self.asks_later = True
            fresh = FreshWriteKeys(service, objects, concurrency=self._options.concurrency or CONCURRENCY[Api.V1])
            keys = _Remembered(self._stack.enter_context(fresh), known)
            return KmsV1Provider(config.name, keys, keys, plausible)
        shared = make_write_keys(service, objects)
        known |= {write.source.cache_key: write.key for write in shared.keys}
        return KmsV1Provider(config.name, UnwrappedKeys.pack(sorted(known.items())), shared, plausible)

    def _rewrapping(self, config: KmsConfig, old_provider: str) -> Rewrapping:
        return rewrap_sources(
            self._collected.collector.sources(config.api, old_provider),
            self._rewrap[config.api_version, old_provider],
            self._services.of(config, new=True),
            self._collected.fetch,
            concurrency=self._options.concurrency,
            progress=lambda done, total: self._progress("wrapping keys", done, total),
        )
