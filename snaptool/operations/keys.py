"""Keys for a job: from configurations, with their KMS plugins, to keyrings that need no plugin any more.

Theory of operation. Local keys are in the configuration. What a KMS provider has wrapped is in the snapshot, and only
its plugin can unwrap it; so, before any work, one pass over the records collects the distinct wrapped keys, each is
unwrapped once, fresh keys to write with are made and proved, and the connections are closed. Workers get the keys and
never a connection: what a job asks of a plugin does not depend on the number of values or of workers.

`keyring_for_reading` is for jobs that open everything, `asking_keyring` for those that look at a few values, and
`keys_for_rewriting` for the job that writes. A plugin that fails does not always end a job: see `KeyProblem`.

Source: spec/kms.md 2.4 and 6. Nothing here knows a cipher or a socket.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import numpy as np

from snaptool.errors import FormatError, InputError
from snaptool.etcd import decode_key_value
from snaptool.etcd.scan import Report, refuse
from snaptool.kube import plausible
from snaptool.operations.crypto import Rewraps
from snaptool.operations.labels import Header, Labels, Resource
from snaptool.operations.opening import OpenedSnapshot, WrongTrailer
from snaptool.operations.plan import UncoveredResources, Undecryptable
from snaptool.operations.sweep import Progress, no_progress
from snaptool.providers import Chain, EncryptionConfig, Keyring, Kind, KmsConfig, NoKeyFits, Provider, Reason
from snaptool.providers.kms import (
    Api,
    AskingKeys,
    Category,
    KeySource,
    KmsAnsweredWrongly,
    KmsError,
    KmsService,
    KmsV1Provider,
    KmsV2Provider,
    UnwrappedKeys,
    WrappedSource,
    WriteKey,
    WriteKeys,
)
from snaptool.providers.kms_grpc import DEFAULT_TIMEOUT_SECONDS, GrpcKms, Pace, parse_endpoint
from snaptool.providers.kms_keys import (
    CONCURRENCY,
    CallPlan,
    FreshWriteKeys,
    Rewrapping,
    ServiceCheck,
    SourceCollector,
    Sources,
    Unwrapping,
    check_service,
    make_write_key,
    make_write_keys,
    plan_reading,
    plan_rewrapping,
    plan_writing,
    rewrap_sources,
    unwrap_sources,
    unwrapped_pairs,
)
from snaptool.providers.kms_saved import SavedKeks, SavedKeys, write_key_file

_LENGTH_BITS: Final = 26  # of a place: records of up to 64 MiB in files of up to 256 GiB
_PLACE_BITS: Final = 64

_OF_SINGLE_VALUES: Final = frozenset(
    {Category.KEY_UNKNOWN, Category.BAD_CIPHERTEXT, Category.BAD_ANSWER, Category.NOT_ASKED}
)


class PlaceTooFar(InputError):
    """A record lies behind what the places of KMS values can name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsOptions:
    """How to speak to KMS plugins. `endpoints`: URLs by provider name, instead of the configured ones.

    `concurrency`: calls in flight for each provider; `rate`: calls a second; `timeout`: seconds for one call, by
    default the configured ones but 10 at least. `saved`: keys from files, looked at before a plugin is asked.
    """

    endpoints: Mapping[str, str] = field(default_factory=dict)
    concurrency: int | None = None
    rate: float | None = None
    timeout: float | None = None
    v1_dek_per_object: bool = False
    saved: tuple[SavedKeys | SavedKeks, ...] = field(default=(), repr=False)


NO_KMS_OPTIONS: Final = KmsOptions()


@dataclass(frozen=True, slots=True)
class KeyProblem:
    """What one provider could not unwrap, as one error for all of it.

    `outage`: the service failed, or nothing at all came of it, so that the values may well open another time. If not,
    it works, and has no key for some of the values: those are lost, like others without a key.
    """

    error: KmsError
    outage: bool


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A keyring that opens what could be unwrapped, what came of each provider, and what went wrong."""

    keyring: Keyring
    answers: tuple[Unwrapping, ...] = ()
    problems: tuple[KeyProblem, ...] = ()

    @property
    def outage(self) -> KmsError | None:
        """The first error of a service that failed."""
        return next((problem.error for problem in self.problems if problem.outage), None)


@dataclass(frozen=True, slots=True)
class RewriteKeys:
    """Keyrings for a rewrite: what reads, what writes and reads back, what is only wrapped anew."""

    reading: Unwrapped
    writing: Keyring
    rewraps: Rewraps = field(default_factory=Rewraps)


# --- the plugins ----------------------------------------------------------------------------------------------------


def kms_configs(configs: Sequence[EncryptionConfig]) -> tuple[KmsConfig, ...]:
    """Return the distinct KMS providers of configurations, in order."""
    every = (one for config in configs for entry in config.entries for one in entry.providers)
    return tuple(dict.fromkeys(one for one in every if isinstance(one, KmsConfig)))


class _Services:
    """The plugins of a job. Nothing is connected to before it is asked; leaving the block closes all."""

    def __init__(self, options: KmsOptions) -> None:
        self._options = options
        self._made: dict[KmsConfig, GrpcKms] = {}

    def of(self, config: KmsConfig) -> GrpcKms:
        if config not in self._made:
            options = self._options
            self._made[config] = GrpcKms(
                config.name,
                Api(config.api_version),
                parse_endpoint(options.endpoints.get(config.name, config.endpoint)),
                timeout=options.timeout or max(config.timeout, DEFAULT_TIMEOUT_SECONDS),
                pace=Pace(options.rate),
            )
        return self._made[config]

    def close(self) -> None:
        for service in self._made.values():
            service.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_plugins(
    configs: Sequence[EncryptionConfig],
    options: KmsOptions = NO_KMS_OPTIONS,
    *,
    decrypt_only: bool = False,
    sample: OpenedSnapshot | None = None,
    skip_hash_check: bool = False,
) -> tuple[ServiceCheck, ...]:
    """Ask each configured plugin how it is. `sample`: a snapshot, one value of which each plugin unwraps the key of.

    Raises WrongTrailer, unless told to `skip_hash_check`.
    """
    kms = kms_configs(configs)
    samples: dict[KmsConfig, WrappedSource] = {}
    if sample is not None:
        collected = _collect(sample, kms, no_progress, skip_hash_check=skip_hash_check)
        for config in kms:
            sources = collected.sources(config)
            if len(sources):
                samples[config] = sources.fetch(sources.most_used()[0], collected.fetch)
    with _Services(options) as services:
        return tuple(
            check_service(services.of(config), decrypt_only=decrypt_only, sample=samples.get(config)) for config in kms
        )


# --- what is in the snapshot ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Collected:
    """What one pass met: wrapped keys, and how many values of which resource stand under which header."""

    opened: OpenedSnapshot
    collector: SourceCollector
    values: Counter[tuple[Resource, Header]]

    def sources(self, config: KmsConfig) -> Sources:
        return self.collector.sources(Api(config.api_version), config.name)

    def fetch(self, place: int) -> tuple[bytes, bytes]:
        """Bring back the etcd key and the stored value at a place."""
        start, size = place >> _LENGTH_BITS, place & ((1 << _LENGTH_BITS) - 1)
        record = decode_key_value(bytes(self.opened.database_bytes[start : start + size]))
        return record.key, record.value


def _collect(
    opened: OpenedSnapshot,
    kms: Sequence[KmsConfig],
    progress: Progress,
    report: Report = refuse,
    *,
    skip_hash_check: bool = True,
) -> _Collected:
    """Pass over all records. `skip_hash_check`: a wrong trailer does not matter to the job."""
    if not skip_hash_check and opened.snapshot.trailer is not None:
        with opened.digests() as digests:  # beside the pass, so that it costs no time
            collected = _collect(opened, kms, progress, report)
            digests.require_right_trailer()
            return collected
    collector = SourceCollector((Api(config.api_version), config.name) for config in kms)
    labels = Labels(opened.prefixes)
    values: Counter[tuple[int, int]] = Counter()
    for chunk in opened.snapshot.records(report):
        opened.tend(chunk)
        resource, header = labels.resource_numbers(chunk), labels.header_numbers(chunk)
        stored = ~chunk.tombstone & chunk.readable
        codes, counts = np.unique((resource[stored] << 32) | header[stored], return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            values[code >> 32, code & 0xFFFFFFFF] += count
        wrapped = np.array([known.kind in (Kind.KMS_V1, Kind.KMS_V2) for known in labels.headers])
        (rows,) = np.nonzero(stored & wrapped[header])
        for row, start, size, value, value_size in zip(
            rows.tolist(),
            chunk.leaves.value_pos[rows].tolist(),
            chunk.leaves.value_len[rows].tolist(),
            chunk.value_pos[rows].tolist(),
            chunk.value_len[rows].tolist(),
            strict=True,
        ):
            if size >> _LENGTH_BITS or start >> (_PLACE_BITS - _LENGTH_BITS):
                raise PlaceTooFar(
                    f"record {chunk.first_record + row} of {size} bytes at offset {start} is out of reach"
                )
            collector.add(bytes(chunk.buffer.data[value : value + value_size]), start << _LENGTH_BITS | size)
        progress("wrapped keys", chunk.first_leaf + len(chunk.leaf_page), chunk.total_leaves)
    named = Counter({(labels.resources[one], labels.headers[other]): count for (one, other), count in values.items()})
    return _Collected(opened, collector, named)


# --- reading --------------------------------------------------------------------------------------------------------


def keyring_for_reading(
    opened: OpenedSnapshot,
    configs: Sequence[EncryptionConfig],
    options: KmsOptions = NO_KMS_OPTIONS,
    *,
    skip_hash_check: bool = True,
    progress: Progress = no_progress,
) -> Unwrapped:
    """Make a keyring that opens every value of a snapshot, asking each KMS plugin once for every distinct wrapped key.

    All connections are closed when it returns. Raises nothing for a plugin that fails: look at `problems`; what was
    not unwrapped is lost to this keyring for the reason `kms_unwrap_failed`. Nor for a damaged file: whoever reads its
    values next says so, and says where. A v2 plugin that unwrapped something is also asked which key is current: values
    under another one are stale. With `skip_hash_check` false a wrong trailer is refused before any plugin is asked.
    Raises BadEndpoint, GrpcMissing, WrongTrailer.
    """
    kms = kms_configs(configs)
    if not kms:
        return Unwrapped(Keyring(configs, plausible=plausible))
    try:
        collected = _collect(opened, kms, progress, lambda _: None, skip_hash_check=skip_hash_check)
    except WrongTrailer:
        raise
    except FormatError:
        unasked = {config: _reader(config, UnwrappedKeys()) for config in kms}
        return Unwrapped(Keyring(configs, plausible=plausible, kms=unasked.__getitem__))
    with _Services(options) as services:
        return _unwrap(configs, collected, services, options, progress, judge=True)[0]


def _unwrap(
    configs: Sequence[EncryptionConfig],
    collected: _Collected,
    services: _Services,
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
    keys_of: dict[tuple[str, str], UnwrappedKeys] = {}
    for name, same in by_name.items():
        sources = collected.sources(same[0])
        keys = UnwrappedKeys()
        if len(sources):
            found = unwrap_sources(
                sources,
                [services.of(config) for config in same],
                collected.fetch,
                known=options.saved,
                concurrency=options.concurrency,
                plausible=plausible,
                progress=lambda done, total: progress("unwrapping keys", done, total),
            )
            for config, answer in zip(same, found, strict=True):
                keys = _joined(keys, answer.keys, sources)
                works = judge and answer.asked and len(answer.keys)
                providers[config] = _reader(config, keys, _current_key_id(services.of(config)) if works else "")
            answers += found
            problems += _problem(found, keys)
        providers |= {config: _reader(config, keys) for config in same if config not in providers}
        keys_of[name] = keys
    keyring = Keyring(configs, plausible=plausible, kms=providers.__getitem__)
    return Unwrapped(keyring, tuple(answers), tuple(problems)), keys_of


def _joined(keys: UnwrappedKeys, more: UnwrappedKeys, sources: Sources) -> UnwrappedKeys:
    """Join what services of one name gave; the later one was asked where the earlier had nothing that opens."""
    if not len(keys):
        return more
    found = {}
    for cache_key in sources.cache_keys():
        key = more.find(cache_key)
        key = keys.find(cache_key) if key is None else key
        if key is not None:
            found[cache_key] = key
    return UnwrappedKeys.pack(sorted(found.items()), more.failed)


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


def _problem(answers: Sequence[Unwrapping], keys: UnwrappedKeys) -> Iterator[KeyProblem]:
    last = answers[-1].error()
    if last is None:
        return
    failed = [answer for answer in answers if {group.category for group in answer.failures} - _OF_SINGLE_VALUES]
    error = failed[0].error() if failed else last
    nothing_came = not len(keys) or isinstance(last, KmsAnsweredWrongly)
    yield KeyProblem(error or last, outage=bool(failed) or nothing_came)


@contextmanager
def asking_keyring(
    configs: Sequence[EncryptionConfig], options: KmsOptions = NO_KMS_OPTIONS
) -> Iterator[tuple[Keyring, Sequence[AskingKeys]]]:
    """Make a keyring that asks a plugin when a value is opened: for jobs that open a few, in this process alone.

    Also given: the sources of KMS keys, whose `failures` say what went wrong. The connections end with the block.
    """
    asking: list[AskingKeys] = []
    with _Services(options) as services:

        def provider(config: KmsConfig) -> Provider:
            keys = AskingKeys(services.of(config), options.saved)
            asking.append(keys)
            return _reader(config, keys)

        made = {config: provider(config) for config in kms_configs(configs)}
        yield Keyring(configs, plausible=plausible, kms=made.__getitem__), asking


def exported_keys(
    opened: OpenedSnapshot,
    configs: Sequence[EncryptionConfig],
    options: KmsOptions = NO_KMS_OPTIONS,
    *,
    skip_hash_check: bool = False,
    progress: Progress = no_progress,
) -> tuple[str, Unwrapped]:
    """Unwrap every wrapped key of a snapshot and return the text of a file that holds them, for `KmsOptions.saved`.

    Raises WrongTrailer, unless told to `skip_hash_check`.
    """
    kms = kms_configs(configs)
    collected = _collect(opened, kms, progress, skip_hash_check=skip_hash_check)
    with _Services(options) as services:
        unwrapped, keys_of = _unwrap(configs, collected, services, options, progress)
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
    undecryptable: Undecryptable = Undecryptable.STOP,
    allow_uncovered: bool = False,
    skip_hash_check: bool = False,
    rewrap: bool = False,
    progress: Progress = no_progress,
) -> Iterator[RewriteKeys]:
    """Get all keys that a rewrite needs: unwrap the old ones, then make and prove those to write with.

    A service that fails ends the job, unless `undecryptable` says keep: what it did not unwrap is not lost for good, so
    nothing is deleted for it. `rewrap`: values under a KMS
    provider get the same keys under a new wrapping where the API stays the same. The keys are good within the block:
    with `v1_dek_per_object`, plugins are asked while values are sealed, which only this process can do. Raises KmsError
    for a service that fails, InputError for a bad endpoint, and before any plugin is asked WrongTrailer and
    UncoveredResources, as the rewrite itself would.
    """
    old_kms, new_kms = kms_configs(old), kms_configs(new)
    if not (old_kms or new_kms):
        yield RewriteKeys(Unwrapped(Keyring(old, plausible=plausible)), Keyring(new, plausible=plausible))
        return
    collected = _collect(opened, old_kms, progress, skip_hash_check=skip_hash_check)
    if new and not allow_uncovered and undecryptable is Undecryptable.STOP:
        _require_cover(collected, old, new)
    with _Services(options) as services, ExitStack() as stack:
        reading, keys_of = _unwrap(old, collected, services, options, progress)
        if reading.outage is not None and undecryptable is not Undecryptable.KEEP:
            raise _ended(reading.outage, undecryptable)
        writing = _Writing(
            collected, _loads(collected, new), keys_of if rewrap else {}, services, options, progress, stack
        )
        providers = {config: writing.provider(config) for config in new_kms}
        if not writing.asks_later:
            services.close()
        keyring = Keyring(new, plausible=plausible, kms=providers.__getitem__)
        yield RewriteKeys(reading, keyring, Rewraps(writing.rewrappings))


def _require_cover(collected: _Collected, old: Sequence[EncryptionConfig], new: Sequence[EncryptionConfig]) -> None:
    """Refuse encrypted values without an entry in `new` whose key `old` has, by its name. Raises UncoveredResources.

    Only those that open would be written in clear, and whether they do is not known yet. But if they do not, a job that
    stops at lost values ends as well.
    """
    reading, writing = Keyring(old), Keyring(new)
    uncovered = {
        resource.name
        for resource, header in collected.values
        if (resource.group_resource is None or not writing.covers(resource.group_resource))
        and header.text
        and _has_key(reading.chain_for(resource.group_resource), header)
    }
    if uncovered:
        raise UncoveredResources(sorted(uncovered))


def _has_key(chain: Chain, header: Header) -> bool:
    """Has a chain a key of that provider and name? It then finds fault with what follows the header: nothing."""
    try:
        chain.unseal(header.text, b"")
    except NoKeyFits as error:
        return not {Reason.UNKNOWN_PREFIX, Reason.UNKNOWN_KEY_NAME, Reason.IDENTITY_ENCRYPTED}.issuperset(error.reasons)
    return True


def _ended(outage: KmsError, undecryptable: Undecryptable) -> KmsError:
    if undecryptable is Undecryptable.DELETE:
        more = "nothing is deleted for a service that may answer another time; if it never will, leave this provider "
        outage.hint = "; ".join(filter(None, [outage.hint, more + "out of --config"]))
    return outage


def _loads(collected: _Collected, new: Sequence[EncryptionConfig]) -> dict[tuple[Kind, str], Counter[Kind | None]]:
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

    `rewrap`: the old keys, by API and provider, whose wrapping alone is to change; none if all is sealed anew.
    """

    def __init__(
        self,
        collected: _Collected,
        loads: Mapping[tuple[Kind, str], Counter[Kind | None]],
        rewrap: Mapping[tuple[str, str], UnwrappedKeys],
        services: _Services,
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
        write = make_write_key(self._services.of(config)) if objects else None
        if write is not None:
            known[write.source.cache_key] = write.key
        return KmsV2Provider(config.name, UnwrappedKeys.pack(sorted(known.items())), write, current_key_id=key_id)

    def _v1(self, config: KmsConfig, objects: int, known: dict[bytes, bytes]) -> Provider:
        if not objects:
            return KmsV1Provider(config.name, UnwrappedKeys.pack(sorted(known.items())), plausible=plausible)
        service = self._services.of(config)
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
            self._collected.collector.sources(Api(config.api_version), old_provider),
            self._rewrap[config.api_version, old_provider],
            self._services.of(config),
            self._collected.fetch,
            concurrency=self._options.concurrency,
            progress=lambda done, total: self._progress("wrapping keys", done, total),
        )


# --- planning -------------------------------------------------------------------------------------------------------


def plan_calls(
    opened: OpenedSnapshot,
    old: Sequence[EncryptionConfig],
    new: Sequence[EncryptionConfig] = (),
    options: KmsOptions = NO_KMS_OPTIONS,
    *,
    rewrap: bool = False,
    skip_hash_check: bool = False,
    progress: Progress = no_progress,
) -> tuple[CallPlan, ...]:
    """Count what reading with `old` and writing with `new` will ask of each plugin, without asking anything.

    Raises WrongTrailer, unless told to `skip_hash_check`.
    """
    collected = _collect(opened, kms_configs(old), progress, skip_hash_check=skip_hash_check)
    loads = _loads(collected, new)
    rewrapped = {config.kind for config in kms_configs(new) if rewrap and loads.get((config.kind, config.name))}
    plans = []
    for api, name in dict.fromkeys((Api(config.api_version), config.name) for config in kms_configs(old)):
        sources = collected.collector.sources(api, name)
        kind = Kind.KMS_V1 if api is Api.V1 else Kind.KMS_V2
        plans.append(plan_rewrapping(sources) if kind in rewrapped else plan_reading(sources))
    for config in kms_configs(new):
        load = Counter(loads.get((config.kind, config.name), Counter()))
        if rewrap:
            del load[config.kind]
        api = Api(config.api_version)
        plans.append(plan_writing(config.name, api, load.total(), dek_per_object=options.v1_dek_per_object))
    return tuple(plans)
