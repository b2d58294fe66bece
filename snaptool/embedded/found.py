"""What a snapshot carries inside, what of it opens, and which configuration that gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from snaptool.embedded.places import BOOTSTRAP, RKE1, PlaceFinder, SeenRecord, openshift_secrets
from snaptool.providers.config.model import BadConfig, EncryptionConfig, KmsConfig

COPY = "embedded_config_copy"
"""Code of a place that has a copy only: nothing is read from it, and nothing written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A place that carries keys or a configuration. `place`: an etcd key, or a member of an archive.

    `opens`: how, None where it stayed closed, and `code` and `reason` then say why. `state`: k3s' stage. `keys`:
    provider and name of each. `revision`: of the record that counts. `time`: the newest time inside, RFC 3339.
    """

    kind: str
    place: str
    revision: int
    opens: str | None = None
    code: str = ""
    reason: str = ""
    state: str | None = None
    time: str | None = None
    keys: tuple[tuple[str, str], ...] = ()
    config: EncryptionConfig | None = field(default=None, repr=False)
    passphrase: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CarriedFile:
    """A file beside the snapshot in its container. `kind`: rke1, omni, or openshift: kube-apiserver's configuration."""

    kind: str
    place: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Recovered:
    """All places, the configurations to read with, and sentences about both. `closed`: places that may hold more."""

    places: tuple[Embedded, ...]
    configs: tuple[EncryptionConfig, ...]
    notes: tuple[str, ...]
    closed: tuple[Embedded, ...] = ()


def find_embedded(
    finder: PlaceFinder,
    *,
    token: str | None = None,
    configs: Sequence[EncryptionConfig] = (),
    files: Sequence[CarriedFile] = (),
) -> Recovered:
    """Open what can be opened: with the server token, with `configs`, or without any; and `files` of the container.

    Raises TokenFormat, and TokenProblem for a token that fits no record.
    """
    live = finder.live()
    bootstrap = [record for key, record in live.items() if key.startswith(BOOTSTRAP)]
    places = [_k3s(record, token) for record in bootstrap]
    if token is not None:
        _require_fit(bootstrap, token)
    chosen, notes, closed = _choose(places)
    secrets = openshift_secrets(live)
    recovered: list[EncryptionConfig] = [place.config for place in chosen if place.config is not None]
    for file in files:
        found, remarks = _of_file(file)
        places += found
        notes += remarks
        recovered += [place.config for place in found if place.config is not None]
    if secrets:
        from snaptool.embedded import openshift  # noqa: PLC0415 - most snapshots carry nothing

        config, reasons = openshift.recover(secrets, [*configs, *recovered])
        places += [_openshift(record, reasons[key]) for key, record in secrets.items()]
        if config is not None:
            recovered = [config]  # what opened it is in it
            notes.append("the configuration was taken from OpenShift's Secrets in the snapshot")
        shut = [place for place in places if place.kind == "openshift" and place.opens is None]
        if shut:
            closed += shut
            notes.append(
                f"{len(shut)} of {len(secrets)} key Secrets of OpenShift stayed closed: give the configuration of "
                "kube-apiserver, which lies in static_kuberesources_*.tar.gz beside the snapshot, with --config; "
                "config extract takes that file itself, with --static-resources"
            )
    places += [
        Embedded(kind="rke1", place=_text(key), revision=record.revision.main, code=COPY, reason="RKE's state")
        for key, record in live.items()
        if key in RKE1
    ]
    return Recovered(tuple(places), tuple(recovered), tuple(notes), tuple(closed))


def _k3s(record: SeenRecord, token: str | None) -> Embedded:
    from snaptool.embedded.k3s import Bootstrap, BootstrapProblem, passphrases, storage_key, unseal  # noqa: PLC0415
    from snaptool.providers.config.held import read_configs  # noqa: PLC0415 - most snapshots carry nothing

    place, revision = _text(record.key), record.revision.main
    passphrase = next((one for one in passphrases(token) if storage_key(one) == record.key), None)
    try:
        bootstrap = Bootstrap.parse(unseal(record.value, passphrase))
    except BootstrapProblem as problem:
        return Embedded(kind="k3s", place=place, revision=revision, code=problem.code, reason=str(problem))
    config, code, reason = None, "", ""
    if bootstrap.config is None:
        reason = "it holds no encryption configuration"
    else:
        try:
            (config,) = read_configs(bootstrap.config, name=f"{place} of the snapshot").configs
        except (BadConfig, ValueError):
            code, reason = "bootstrap_format", "no server would take the configuration in it"
        if not bootstrap.state_fits:
            reason = reason or "its state is that of another configuration"
    return Embedded(
        kind="k3s",
        place=place,
        revision=revision,
        opens="with the token" if passphrase else "without a token",
        code=code,
        reason=reason,
        state=bootstrap.stage,
        time=bootstrap.time,
        keys=keys_of(config) if config is not None else (),
        config=config,
        passphrase=passphrase,
    )


def _of_file(file: CarriedFile) -> tuple[list[Embedded], list[str]]:
    """Read a file of the container; the state that RKE wants counts, and one that differs is noted."""
    from snaptool.providers.config.held import read_configs  # noqa: PLC0415 - most snapshots carry nothing

    try:
        configs = read_configs(file.content, name=file.place).configs
    except BadConfig as refused:
        place = Embedded(kind=file.kind, place=file.place, revision=0, code="embedded_format", reason=str(refused))
        return [place], [str(refused)]
    notes = [f"the configuration was taken from {configs[0].name}"]
    if len(configs) > 1:
        notes.append(f"{file.place}: the state that is wanted and the one that was found differ; both are tried")
    return [
        Embedded(
            kind=file.kind,
            place=config.name,
            revision=0,
            opens="as it is",
            keys=keys_of(config),
            config=config,
        )
        for config in configs
    ], notes


def keys_of(config: EncryptionConfig) -> tuple[tuple[str, str], ...]:
    """Return provider and name of every key of a configuration."""
    return tuple(
        dict.fromkeys(
            (str(provider.kind), name)
            for entry in config.entries
            for provider in entry.providers
            for name in ([provider.name] if isinstance(provider, KmsConfig) else [key.name for key in provider.keys])
        )
    )


def _require_fit(bootstrap: Sequence[SeenRecord], token: str) -> None:
    from snaptool.embedded.k3s import TokenProblem, passphrases, storage_key  # noqa: PLC0415 - as above

    keys = {record.key for record in bootstrap}
    wanted = [storage_key(one) for one in passphrases(token) if one]
    if keys & set(wanted):
        return
    given = ", ".join(dict.fromkeys(_text(key) for key in wanted))
    there = ", ".join(sorted(map(_text, keys)))
    raise TokenProblem(
        f"the token is for {given}; the snapshot has {there}" if there else "the snapshot has no key under /bootstrap/",
        hint="give the token of the server that took the snapshot: server/token below its data directory"
        if there
        else "leave --token-file out: only k3s and RKE2 keep their configuration there",
    )


def _choose(places: Sequence[Embedded]) -> tuple[list[Embedded], list[str], list[Embedded]]:
    """Choose the record that counts: the token's before the one that opens without any. Say what stayed closed."""
    opened = [place for place in places if place.opens is not None]
    closed = [place for place in places if place.opens is None]
    with_token = [place for place in opened if place.passphrase]
    chosen = with_token or opened
    notes = [
        f"the configuration was taken from {place.place}, which opened {place.opens}"
        for place in chosen
        if place.config is not None
    ]
    notes += [f"{place.place}: {place.reason}" for place in chosen if place.reason]
    newest = max((place.revision for place in chosen), default=0)
    for place in closed:
        newer = "newer and " if chosen and place.revision > newest else ""
        option = " (--token-file)" if place.code == "bootstrap_token" else ""
        doubt = f"; {chosen[0].place} opens without one and may be out of date" if newer and not with_token else ""
        notes.append(f"{place.place} is {newer}closed: {place.reason}{option}{doubt}")
    return list(chosen), notes, closed


def _openshift(record: SeenRecord, reason: str | None) -> Embedded:
    return Embedded(
        kind="openshift",
        place=_text(record.key),
        revision=record.revision.main,
        opens=None if reason else "with the keys given",
        code="embedded_closed" if reason else "",
        reason=reason or "",
    )


def _text(key: bytes) -> str:
    return key.decode(errors="backslashreplace")
