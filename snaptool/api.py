"""The library: one function for each command, on paths, bytes or opened snapshots, with typed results.

Each does what its command does, and keeps the same promises. A snapshot is a path (also of what platforms put around
one), its bytes, or an `OpenedSnapshot`; a configuration is a path, its bytes, an `EncryptionConfig`, a `Keyring`, or
several of the first three. `progress` is called with a step, how much is done, and of how much. `note` is called with
sentences that the command would print beside its result.

What is wanted is given by words as on the command line; another word is an `UnknownWord`, a wrong type a `WrongType`,
which are a ValueError and a TypeError too. A key service that does not answer raises a KeyServiceError: a result that
counts its values as lost would be wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias, TypeVar

from snaptool.arguments import require_bool, require_count, texts, word_of, wrong_type
from snaptool.embedded.found import Recovered, find_embedded
from snaptool.embedded.k3s import passphrases
from snaptool.errors import InputError
from snaptool.inputs import read_input, remembering_inputs
from snaptool.kube.kinds.reader import decode_object
from snaptool.kube.kinds.served import as_served
from snaptool.operations import diff as diffing
from snaptool.operations import export as exporting
from snaptool.operations import rewrite as rewriting
from snaptool.operations import verify as verifying
from snaptool.operations.asked import Types
from snaptool.operations.choices import Choices, configurations, keys_for, request_of, require_container
from snaptool.operations.coverage import joined
from snaptool.operations.embedding import carried_files, read_inside
from snaptool.operations.findings import Severity
from snaptool.operations.keys import asking_keyring, keyring_for_reading
from snaptool.operations.kms_options import NO_KMS_OPTIONS, KmsOptions, kms_configs
from snaptool.operations.kms_services import require_direct
from snaptool.operations.listing import ListedRecord, listing
from snaptool.operations.next_steps import next_steps
from snaptool.operations.object import History, find_value, open_found, parse_target
from snaptool.operations.object import history as history_of
from snaptool.operations.opening import OpenedSnapshot, open_snapshot
from snaptool.operations.plan import RewriteRequest, Undecodable, Undecryptable
from snaptool.operations.rewrite import RewriteReport
from snaptool.operations.survey import Survey, survey
from snaptool.operations.sweep import Progress, no_progress
from snaptool.operations.verify import Verification
from snaptool.providers.config.held import read_configs
from snaptool.providers.config.model import EncryptionConfig
from snaptool.providers.keyring import Keyring
from snaptool.stores import is_remote, shown
from snaptool.stores.location import place_of

Snapshot: TypeAlias = str | os.PathLike[str] | bytes | OpenedSnapshot
Configuration: TypeAlias = str | os.PathLike[str] | bytes | EncryptionConfig
Configurations: TypeAlias = Configuration | Sequence[Configuration] | Keyring
Note: TypeAlias = Callable[[str], object]
_P = ParamSpec("_P")
_R = TypeVar("_R")

_LARGEST_CONFIG = 16 << 20
_A_CONFIG = "a path, bytes, an EncryptionConfig, a Keyring, or several of the first three"


def _silent(_sentence: str) -> None:
    """Notes that nobody reads."""


# --- what is passed -------------------------------------------------------------------------------------------------


@contextmanager
def _opened(
    snapshot: Snapshot, prefixes: str | Sequence[str], note: Note, name: str, *, kine: bool = False
) -> Iterator[OpenedSnapshot]:
    """Open what was passed. `kine`: a database of Kine is taken too. Raises ContainerFault not_etcd where it is not."""
    given = texts("prefixes", prefixes)
    if isinstance(snapshot, OpenedSnapshot):
        if given and given != snapshot.given_prefixes:
            raise InputError(f"{name} is opened already: give prefixes to open_snapshot", code="wrong_usage")
        if snapshot.not_etcd is not None and not kine:
            raise snapshot.not_etcd
        yield snapshot
        return
    if not isinstance(snapshot, (str, bytes, os.PathLike)):
        raise wrong_type(name, snapshot, "a path, bytes, or an OpenedSnapshot")
    with open_snapshot(snapshot, prefixes=given, kine=kine) as opened:
        for notice in opened.notices:
            note(notice)
        yield opened


def _target(value: object, name: str) -> Path:
    if not isinstance(value, (str, os.PathLike)):
        raise wrong_type(name, value, "a path")
    return place_of(value)


def _configs(value: Configurations | None, name: str, note: Note, *, strict: bool = False) -> list[EncryptionConfig]:
    """Read what was passed as one configuration or several. Raises WrongType, BadConfig, InputError."""
    if value is None:
        return []
    if isinstance(value, Keyring):
        raise wrong_type(name, value, "a path, bytes, an EncryptionConfig, or several: a Keyring has no KMS keys made")
    several = value if isinstance(value, (list, tuple)) else (value,)
    found: list[EncryptionConfig] = []
    for one in several:
        if isinstance(one, EncryptionConfig):
            found.append(one)
            continue
        if isinstance(one, bytes):
            content, called = one, name
        elif isinstance(one, (str, os.PathLike)):
            content, called = _read_config(one), shown(os.fspath(one))
        else:
            raise wrong_type(name, one, _A_CONFIG)
        held = read_configs(content, name=called, strict=strict)
        for sentence in held.notes:
            note(sentence)
        found += held.configs
    return found


def _is_given(config: Configurations | None) -> bool:
    """Is there anything in it? An empty list is as good as none: no key is in it."""
    return config is not None and not (isinstance(config, (list, tuple)) and not config)


def _snapshots(value: object, name: str) -> Sequence[Snapshot]:
    """Return one snapshot that was passed or several; each is looked at when it is opened. Raises WrongType."""
    if isinstance(value, (str, bytes, os.PathLike, OpenedSnapshot)):
        return (value,)
    if not isinstance(value, (list, tuple)):
        raise wrong_type(name, value, "a path, bytes, an OpenedSnapshot, or several of them")
    return value


def _read_config(path: str | os.PathLike[str]) -> bytes:
    place = place_of(path)
    if is_remote(place):
        from snaptool.stores.reading import read_small  # noqa: PLC0415 - files need none of it

        return read_small(place, _LARGEST_CONFIG, "configuration")
    return read_input(path, _LARGEST_CONFIG, "configuration", secret=b"secret")


def _read_once(config: Configurations | None, note: Note) -> Sequence[EncryptionConfig] | Keyring | None:
    return config if config is None or isinstance(config, Keyring) else _configs(config, "config", note)


def _inside(
    opened: OpenedSnapshot, config: Configurations | None, token: str | None = None
) -> Callable[[], Recovered] | None:
    """What finds and opens what a snapshot carries inside; None where a keyring is all that there is to open it."""
    if isinstance(config, Keyring):
        return None
    configs = _configs(config, "config", _silent)
    return lambda: find_embedded(opened.places, token=token, configs=configs, files=carried_files(opened))


def _keyring(
    opened: OpenedSnapshot,
    config: Configurations | None,
    kms: KmsOptions,
    note: Note,
    progress: Progress,
    *,
    skip_hash_check: bool = True,
) -> Keyring | None:
    """Make the keyring to read all values with; None where no configuration was given. Raises KeyServiceError."""
    if config is None or isinstance(config, Keyring):
        return config
    configs = _configs(config, "config", note)
    keys = keyring_for_reading(opened, configs, kms, skip_hash_check=skip_hash_check, progress=progress)
    if keys.outage is not None:
        raise keys.outage
    return keys.keyring


@contextmanager
def _asking(config: Configurations | None, kms: KmsOptions, note: Note) -> Iterator[Keyring | None]:
    """Make the keyring to read a few values with; a service is asked when one is opened."""
    if config is None or isinstance(config, Keyring):
        yield config
        return
    with asking_keyring(_configs(config, "config", note), kms) as (keyring, asking):
        try:
            yield keyring
        finally:
            failure = next((failure for keys in asking for failure in keys.failures), None)
        if failure is not None:
            raise failure


def _require_words(words: Sequence[object], namespace: object) -> None:
    for word in words:
        if not isinstance(word, str):
            raise wrong_type("the name", word, "a str: an etcd key, or a type and a name")
    if namespace is not None and not isinstance(namespace, str):
        raise wrong_type("namespace", namespace, "a str")


# --- reading --------------------------------------------------------------------------------------------------------


def inspect(
    snapshot: Snapshot,
    config: Configurations | None = None,
    *,
    prefixes: str | Sequence[str] = (),
    jobs: int = 1,
    kms: KmsOptions = NO_KMS_OPTIONS,
    progress: Progress = no_progress,
    note: Note = _silent,
) -> Survey:
    """Take stock of a snapshot; with a configuration, open every value too.

    Raises InputError, FormatError for a damaged file, KeyServiceError.
    """
    require_count(jobs=jobs)
    with _opened(snapshot, prefixes, note, "snapshot", kine=True) as opened:
        keyring = _keyring(opened, config, kms, note, progress)
        return survey(opened, keyring, jobs=jobs, progress=progress, carried=_inside(opened, config))


def verify(
    snapshot: Snapshot,
    config: Configurations | None = None,
    *,
    prefixes: str | Sequence[str] = (),
    live_only: bool = False,
    jobs: int = 1,
    kms: KmsOptions = NO_KMS_OPTIONS,
    progress: Progress = no_progress,
    note: Note = _silent,
) -> Verification:
    """Check a snapshot from its pages to its values. What is wrong is in the result; damage does not raise.

    `live_only`: leave out what concerns older revisions alone. Raises InputError, KeyServiceError, and FormatError for
    what is not a snapshot at all.
    """
    require_bool(live_only=live_only)
    require_count(jobs=jobs)
    with _opened(snapshot, prefixes, note, "snapshot") as opened:
        keyring = _keyring(opened, config, kms, note, progress)
        inside = _inside(opened, config)
        return verifying.verify(opened, keyring, live_only=live_only, jobs=jobs, carried=inside, progress=progress)


def list_keys(
    snapshot: Snapshot,
    what: str | None = None,
    *,
    namespace: str | None = None,
    config: Configurations | None = None,
    all_revisions: bool = False,
    lost: bool = False,
    prefixes: str | Sequence[str] = (),
    skip_hash_check: bool = False,
    jobs: int = 1,
    kms: KmsOptions = NO_KMS_OPTIONS,
    progress: Progress = no_progress,
    note: Note = _silent,
) -> tuple[ListedRecord, ...]:
    """List the keys of a type (`secrets`, `deploy.apps`) or under a beginning (`/registry/pods/`), in their order.

    `lost`: only values that no key opens or no API server can decode, for which a configuration is needed. Raises
    UnknownType, WrongTrailer, FormatError, KeyServiceError.
    """
    require_bool(all_revisions=all_revisions, lost=lost, skip_hash_check=skip_hash_check)
    require_count(jobs=jobs)
    _require_words([] if what is None else [what], namespace)
    if lost and not _is_given(config):
        raise InputError("lost needs config: without keys no value opens", code="wrong_usage")
    with _opened(snapshot, prefixes, note, "snapshot", kine=True) as opened:
        keyring = _keyring(opened, config, kms, note, progress, skip_hash_check=skip_hash_check)
        rows = listing(
            opened,
            Types(opened, keyring).selected(what),
            namespace,
            keyring,
            all_revisions=all_revisions,
            lost=lost,
            skip_hash_check=skip_hash_check,
            jobs=jobs,
            progress=progress,
        )
        return tuple(rows)


def embedded_configs(
    snapshot: Snapshot,
    config: Configurations | None = None,
    *,
    token: str | None = None,
    note: Note = _silent,
) -> tuple[EncryptionConfig, ...]:
    """Return the configurations to read a backup with that it carries inside, and those given: `--embedded-config`.

    `token`: the server token, for k3s and RKE2; `config` opens OpenShift's Secrets. Give the result as `config` to the
    other functions. Raises InputError when it carries nothing, EmbeddedClosed when all of it stays closed, TokenFormat
    and TokenProblem for a token that does not fit.
    """
    _token(token)
    given = _configs(config, "config", note)
    with _opened(snapshot, (), note, "snapshot", kine=True) as opened:
        found = find_embedded(opened.places, token=token, configs=given, files=carried_files(opened))
        for sentence in found.notes:
            note(sentence)
        return read_inside(opened, found, given)


def _token(token: object) -> str | None:
    """Return a token of k3s or RKE2 that was passed. Raises WrongType, and InputError for what is none."""
    if token is None:
        return None
    if not isinstance(token, str):
        raise wrong_type("token", token, "a str")
    passphrases(token)
    return token


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One value of a snapshot, opened. `plaintext`: as kube-apiserver stored it; `live`: it is the current one.

    `provider` and `key_name`: what opened it; `identity` and None where it is plaintext.
    """

    key: str
    revision: int
    live: bool
    provider: str
    key_name: str | None
    plaintext: bytes = field(repr=False)

    @property
    def object(self) -> dict[str, Any]:
        """The object, as an API server gives it. Raises NotAnObject."""
        return as_served(decode_object(self.plaintext).shown(), self.revision)


def get(
    snapshot: Snapshot,
    *name: str,
    namespace: str | None = None,
    revision: int | None = None,
    config: Configurations | None = None,
    prefixes: str | Sequence[str] = (),
    skip_hash_check: bool = False,
    kms: KmsOptions = NO_KMS_OPTIONS,
    note: Note = _silent,
) -> StoredObject:
    """Open one value: `get(path, "secret", "smtp", namespace="shop")`, or by its etcd key.

    Raises NoSuchKey, ValueLost, UnknownType, WrongTrailer, FormatError, KeyServiceError.
    """
    require_bool(skip_hash_check=skip_hash_check)
    require_count(revision=revision)
    _require_words(name, namespace)
    with _opened(snapshot, prefixes, note, "snapshot", kine=True) as opened, _asking(config, kms, note) as keyring:
        target = parse_target(name, namespace, Types(opened, keyring, revision).resolve)
        value = find_value(opened, target, revision, keyring=keyring, skip_hash_check=skip_hash_check)
        found = open_found(opened, value, keyring)
        if found.notice:
            note(found.notice)
        return StoredObject(
            key=value.key.decode(errors="backslashreplace"),
            revision=value.revision.main,
            live=value.live,
            provider=str(found.outcome.kind or value.header.provider),
            key_name=found.outcome.key_name or value.header.key_name,
            plaintext=found.plaintext,
        )


def history(
    snapshot: Snapshot,
    *name: str,
    namespace: str | None = None,
    config: Configurations | None = None,
    prefixes: str | Sequence[str] = (),
    skip_hash_check: bool = False,
    kms: KmsOptions = NO_KMS_OPTIONS,
    note: Note = _silent,
) -> History:
    """Return every stored revision of a key: what happened, and under which key its value is stored. Raises as `get`.

    Lost values do not raise: they are entries with a `reason`.
    """
    require_bool(skip_hash_check=skip_hash_check)
    _require_words(name, namespace)
    with _opened(snapshot, prefixes, note, "snapshot", kine=True) as opened, _asking(config, kms, note) as keyring:
        target = parse_target(name, namespace, Types(opened, keyring).resolve)
        return history_of(opened, target, keyring, skip_hash_check=skip_hash_check)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What differs between two snapshots by plaintext. `same`: how many values have the same stored bytes.

    `re_encrypted`: the same plaintext in other bytes; `undecided`: what does not open on a side.
    """

    same: int
    added: tuple[diffing.Difference, ...]
    removed: tuple[diffing.Difference, ...]
    changed: tuple[diffing.Difference, ...]
    re_encrypted: tuple[diffing.Difference, ...]
    undecided: tuple[diffing.Difference, ...]

    @property
    def differs(self) -> bool:
        """Is anything added, removed or changed?"""
        return bool(self.added or self.removed or self.changed)


def diff(
    a: Snapshot,
    b: Snapshot,
    *,
    config: Configurations | None = None,
    config_a: Configurations | None = None,
    config_b: Configurations | None = None,
    prefixes: str | Sequence[str] = (),
    skip_hash_check: bool = False,
    jobs: int = 1,
    kms: KmsOptions = NO_KMS_OPTIONS,
    progress: Progress = no_progress,
    note: Note = _silent,
) -> Comparison:
    """Compare the current values of two snapshots by their plaintext; `config` is for both.

    Raises WrongTrailer, FormatError, KeyServiceError.
    """
    require_bool(skip_hash_check=skip_hash_check)
    require_count(jobs=jobs)
    if config is not None and (config_a is not None or config_b is not None):
        raise InputError("config is for both snapshots: give it, or config_a and config_b", code="wrong_usage")
    with _opened(a, prefixes, note, "a", kine=True) as opened_a, _opened(b, prefixes, note, "b", kine=True) as opened_b:
        both = [_read_once(own or config, note) for own in (config_a, config_b)]
        configs = [one for own in both if not isinstance(own, Keyring) for one in own or ()]
        if configs:
            require_direct(kms, kms_configs(configs))  # of either side: each is then asked about its own alone
        sides = [
            diffing.DiffSide(
                opened, _keyring(opened, own, kms if isinstance(own, Keyring) else kms.about(own or ()), note, progress)
            )
            for opened, own in zip((opened_a, opened_b), both, strict=True)
        ]
        found = diffing.diff(sides[0], sides[1], skip_hash_check=skip_hash_check, jobs=jobs, progress=progress)
        return Comparison(
            same=found.same,
            added=tuple(found.added),
            removed=tuple(found.removed),
            changed=tuple(found.changed),
            re_encrypted=tuple(found.re_encrypted),
            undecided=tuple(found.undecided),
        )


# --- writing --------------------------------------------------------------------------------------------------------


def _never_writes_what_it_reads(call: Callable[_P, _R]) -> Callable[_P, _R]:
    """Remember every file that a call reads, so that its target is none of them: configurations and backups too."""

    @wraps(call)
    def remembering(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with remembering_inputs():
            return call(*args, **kwargs)

    return remembering


@_never_writes_what_it_reads
def rewrite(
    source: Snapshot,
    target: str | os.PathLike[str] | None,
    request: RewriteRequest | None = None,
    *,
    config: Configurations | None = None,
    new_config: Configurations | None = None,
    decrypt: bool = False,
    undecryptable: Undecryptable | str = Undecryptable.STOP,
    undecodable: Undecodable | str = Undecodable.KEEP,
    older_from: Snapshot | Sequence[Snapshot] = (),
    allow_plaintext: bool = False,
    compact: bool = False,
    rewrap: bool = False,
    update_embedded: bool = False,
    keep_embedded: bool = False,
    embedded_lost: bool = False,
    token: str | None = None,
    container: str = "auto",
    force: bool = False,
    prefixes: str | Sequence[str] = (),
    skip_hash_check: bool = False,
    jobs: int = 1,
    kms: KmsOptions = NO_KMS_OPTIONS,
    progress: Progress = no_progress,
    note: Note = _silent,
) -> RewriteReport:
    """Write every value of `source` to `target` under the first keys of `new_config`, or as plaintext with `decrypt`.

    Without either, `undecryptable` older or delete drops only what is lost. `target` None: do the same work and write
    nothing. `request`: everything about values at once, with keyrings, in place of the words for them. `older_from`:
    earlier backups of the same cluster, for `undecryptable` older. `token`: the server token of k3s or RKE2, for
    `update_embedded`. `embedded_lost`: your word that what is closed inside the snapshot will never open.

    The report says `stopped` when values are lost and nobody said what to do with them; then nothing was written.
    Raises InputError (EmbeddedConfigStale, KeysInside, TargetExists …), PlaintextNotAllowed, FormatError, OutputError,
    KeyServiceError, ReadBackFailed.
    """
    place = None if target is None else _target(target, "target")
    require_bool(force=force, skip_hash_check=skip_hash_check, update_embedded=update_embedded)
    require_bool(decrypt=decrypt, allow_plaintext=allow_plaintext, compact=compact, rewrap=rewrap)
    require_bool(keep_embedded=keep_embedded, embedded_lost=embedded_lost)
    require_count(jobs=jobs)
    earlier = _snapshots(older_from, "older_from")
    choices = Choices(
        config=_is_given(config),
        new_config=_is_given(new_config),
        older_from=bool(earlier),
        decrypt=decrypt,
        undecryptable=word_of(Undecryptable, undecryptable, "undecryptable"),
        undecodable=word_of(Undecodable, undecodable, "undecodable"),
        allow_plaintext=allow_plaintext,
        compact=compact,
        rewrap=rewrap,
        update_embedded=update_embedded,
        keep_embedded=keep_embedded,
        embedded_lost=embedded_lost,
        token=_token(token),
        container=require_container(container),
        skip_hash_check=skip_hash_check,
        jobs=jobs,
        kms=kms,
    )
    write = partial(rewriting.rewrite, container=container, force=force, progress=progress)
    if request is not None:
        if not isinstance(request, RewriteRequest):
            raise wrong_type("request", request, "a RewriteRequest; configurations are given as config and new_config")
        if others := choices.about_values:
            raise InputError(f"request says everything about values: leave {', '.join(others)} out", code="wrong_usage")
        with _opened(source, prefixes, note, "source") as opened:
            return _with_next(write(opened, place, request), place)
    if (problem := choices.contradiction(_parameter)) is not None:
        raise InputError(problem, code="wrong_usage")
    old, each = _configs(config, "config", note), _configs(new_config, "new_config", note, strict=True)
    written = joined(each)
    with _opened(source, prefixes, note, "source") as opened, ExitStack() as backups:
        carried = find_embedded(opened.places, token=choices.token, configs=old, files=carried_files(opened))
        configs = configurations(choices, opened, place, old, written, carried)
        for sentence in configs.updates.notes:
            note(sentence)
        with keys_for(choices, opened, configs, progress=progress) as keys:
            older = [backups.enter_context(_opened(one, (), note, "older_from")) for one in earlier]
            report = write(opened, place, request_of(choices, opened, configs, keys, older))
    return _with_next(report, place, each)


def _parameter(name: str, value: str) -> str:
    return f"{name}='{value}'" if value else name


def _with_next(
    report: RewriteReport, place: Path | None, new: Sequence[EncryptionConfig] = (), *, rewritten: bool = True
) -> RewriteReport:
    """Add what to do next with the file that was written."""
    named = [(config.name, config) for config in new]
    steps = () if place is None else next_steps(report, place, named, rewritten=rewritten)
    return replace(report, next=steps)


@_never_writes_what_it_reads
def repair(
    source: Snapshot,
    target: str | os.PathLike[str],
    *,
    container: str = "auto",
    force: bool = False,
    progress: Progress = no_progress,
    note: Note = _silent,
) -> RewriteReport:
    """Write the same records to a fresh file: packed, without leftovers, with a right trailer. Raises as `rewrite`."""
    require_bool(force=force)
    require_container(container)
    place = _target(target, "target")
    with _opened(source, (), note, "source") as opened:
        report = rewriting.repair(opened, place, container=container, force=force, progress=progress)
        return _with_next(report, place, rewritten=False)


@_never_writes_what_it_reads
def export(
    snapshot: Snapshot,
    to: str | os.PathLike[str] | Callable[[bytes], object],
    *types: str,
    namespaces: str | Sequence[str] = (),
    every_namespace: bool = False,
    config: Configurations | None = None,
    cluster: exporting.Cluster | str | None = None,
    secrets: exporting.Secrets | str = exporting.Secrets.INCLUDE,
    volumes: exporting.Volumes | str = exporting.Volumes.KEEP,
    undecryptable: exporting.Lost | str = exporting.Lost.STOP,
    keep_allocated: bool = False,
    keep_api_versions: bool = False,
    raw: bool = False,
    revision: int | None = None,
    force: bool = False,
    prefixes: str | Sequence[str] = (),
    skip_hash_check: bool = False,
    kms: KmsOptions = NO_KMS_OPTIONS,
    progress: Progress = no_progress,
    note: Note = _silent,
) -> exporting.Exported:
    """Write objects as manifests for `kubectl apply`: `export(path, "shop", namespaces="shop", config="enc.yaml")`.

    `to`: a directory, a file (*.yaml, *.json), or what is called with the bytes of one stream. `types`: `secrets`,
    `secret/smtp`. Raises NothingToExport, ValuesLost, InputError, OutputError, FormatError, KeyServiceError; then
    nothing was written.
    """
    require_bool(every_namespace=every_namespace, keep_allocated=keep_allocated, raw=raw, force=force)
    require_bool(keep_api_versions=keep_api_versions, skip_hash_check=skip_hash_check)
    require_count(revision=revision)
    stream = to if callable(to) else None
    request = exporting.ExportRequest(
        namespaces=texts("namespaces", namespaces),
        every_namespace=every_namespace,
        types=exporting.parse_types(texts("types", types)),
        cluster=None if cluster is None else word_of(exporting.Cluster, cluster, "cluster"),
        secrets=word_of(exporting.Secrets, secrets, "secrets"),
        volumes=word_of(exporting.Volumes, volumes, "volumes"),
        undecryptable=word_of(exporting.Lost, undecryptable, "undecryptable"),
        keep_allocated=keep_allocated,
        keep_api_versions=keep_api_versions,
        raw=raw,
        revision=revision,
    )
    output = exporting.Output(
        to=None if stream is not None else _target(to, "to"),
        write=_nowhere if stream is None else stream,
        force=force,
    )
    with _opened(snapshot, prefixes, note, "snapshot", kine=True) as opened:
        keyring = _keyring(opened, config, kms, note, progress, skip_hash_check=skip_hash_check)
        return exporting.export(opened, request, output, keyring, skip_hash_check=skip_hash_check, progress=progress)


def _nowhere(_data: bytes) -> None:
    """Take the bytes of a stream that is not written."""


__all__ = [
    "Comparison",
    "Severity",
    "StoredObject",
    "diff",
    "embedded_configs",
    "export",
    "get",
    "history",
    "inspect",
    "list_keys",
    "repair",
    "rewrite",
    "verify",
]
