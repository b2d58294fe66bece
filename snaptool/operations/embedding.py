"""What a rewrite does to the configuration that its source carries inside: nothing, a new one, or a stop.

A backup whose values are under new keys and whose own configuration has the old ones restores into a cluster that reads
nothing. So that stops, unless it is written again or left there on purpose. Source: docs/formats/containers.md, "What a
rewrite does with them".
"""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from snaptool.containers.faults import inside
from snaptool.embedded.found import CarriedFile, Embedded, Recovered
from snaptool.embedded.k3s import configuration_json, disabled_configuration
from snaptool.embedded.update import Updates, joined_updates, talos_keys, update_bootstrap, update_state
from snaptool.errors import InputError, ProviderError
from snaptool.inputs import read_input
from snaptool.operations.opening import OpenedSnapshot
from snaptool.providers.config.held import read_configs
from snaptool.providers.config.model import EncryptionConfig, KmsConfig, LocalConfig
from snaptool.providers.provider import Entropy

if TYPE_CHECKING:
    from snaptool.containers.wrap import Wrapping

_KEY_SIZE = 32


class EmbeddedConfigStale(InputError):
    """The source carries a configuration that would not open what is written, and nobody said what to do with it."""

    def __init__(self, places: Sequence[Embedded]) -> None:
        names = ", ".join(dict.fromkeys(place.place for place in places[:2]))
        more = f" and {len(places) - 2} more" if len(places) > 2 else ""
        token = " (and --token-file)" if places[0].kind == "k3s" else ""
        way = f"write the new one there with --update-embedded{token}, or "
        if places[0].kind == "openshift":
            way = "write with the keys that OpenShift has (snaptool config extract), or "
        super().__init__(
            f"the snapshot carries its configuration inside ({names}{more}), without the keys of the new one: after a "
            "restore the cluster could not read what would be written",
            hint=f"{way}leave it as it is with --keep-embedded and give the servers the new one yourself",
        )
        self.places = tuple(places)


_APISERVER_CONFIG = re.compile(
    r"(?:^|/)static-pod-resources/kube-apiserver-pod-([0-9]{1,9})/secrets/encryption-config/encryption-config$"
)
_LARGEST_CONFIG = 1 << 20
_LARGEST_ARCHIVE = 64 << 20
"""Of OpenShift's static resources, unpacked: they are a few hundred KiB."""


def carried_files(opened: OpenedSnapshot) -> list[CarriedFile]:
    """Return the files beside the snapshot in its container that hold keys."""
    container = opened.container
    if container is None:
        return []
    found = []
    for member in container.members:
        if member.role == "rkestate":
            found.append(CarriedFile("rke1", member.name, container.read_member(member.name)))
        elif member.role == "static_kuberesources":
            entry = _apiserver_config(container.read_member(member.name))
            if entry is not None:
                found.append(CarriedFile("openshift", inside(member.name, entry[0]), entry[1]))
    if container.omni is not None:
        keys = {
            "secretboxEncryptionSecret": container.omni.secretbox,
            "aescbcEncryptionSecret": container.omni.aescbc,
        }
        document = {"cluster": {name: text for name, text in keys.items() if text}}
        found.append(CarriedFile("omni", "Omni's header", json.dumps(document).encode()))
    return found


def static_resources(path: Path) -> CarriedFile:
    """Read kube-apiserver's configuration out of OpenShift's static resources. Raises InputError."""
    content = read_input(path, _LARGEST_ARCHIVE, "archive of static resources", secret=True)
    entry = _apiserver_config(content)
    if entry is None:
        raise InputError(
            f"{path} has no configuration of kube-apiserver",
            hint="name the static_kuberesources_DATE.tar.gz of the same backup; without encryption none is in it",
            code="embedded_missing",
        )
    return CarriedFile("openshift", inside(str(path), entry[0]), entry[1])


def _apiserver_config(archive: bytes) -> tuple[str, bytes] | None:
    """Find kube-apiserver's configuration of the highest revision in OpenShift's static resources."""
    import tarfile  # noqa: PLC0415 - seldom needed, and heavy

    best: tuple[int, str, bytes] | None = None
    seen = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r|*") as tar:
            for entry in tar:
                seen += entry.size + 512
                if seen > _LARGEST_ARCHIVE:
                    break
                match = _APISERVER_CONFIG.search(entry.name)
                if match is None or not entry.isreg() or entry.size > _LARGEST_CONFIG:
                    continue
                content = tar.extractfile(entry)
                if content is not None and (best is None or int(match[1]) > best[0]):
                    best = (int(match[1]), entry.name, content.read())
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error):
        return None
    return (best[1], best[2]) if best is not None else None


class EmbeddedClosed(ProviderError):
    """All that a snapshot carries inside stayed closed. `code`: that of the first place."""

    code = "embedded_closed"


def read_inside(
    opened: OpenedSnapshot, found: Recovered, configs: Sequence[EncryptionConfig]
) -> tuple[EncryptionConfig, ...]:
    """Return the configurations to read with: those given, and what the snapshot carries.

    Raises InputError when it carries nothing, EmbeddedClosed when all of it stays closed.
    """
    if not found.configs:
        raise _nothing(opened, found)
    # OpenShift's keeps apart what belongs to which API server, and so stands before one that was given to open it.
    first = [config for config in found.configs if config.platform == "openshift"]
    return (*first, *configs, *(config for config in found.configs if config not in first))


def _nothing(opened: OpenedSnapshot, found: Recovered) -> InputError | EmbeddedClosed:
    if not found.places:
        return InputError(
            f"{opened.path} carries no configuration inside",
            hint="k3s, RKE2 and OpenShift keep theirs in the snapshot; else give the file with --config",
            code="embedded_missing",
        )
    closed = [place for place in found.places if place.opens is None and place.code != "embedded_config_copy"]
    if not closed:
        return InputError(
            f"{opened.path}: what it carries inside holds no encryption configuration",
            hint="encryption was off when the server wrote it; if values are encrypted, give --config",
            code="embedded_missing",
        )
    listed = "; ".join(f"{place.place}: {place.reason}" for place in closed[:3])
    if len(closed) > 3:
        listed = f"{closed[0].place} and {len(closed) - 1} others: {closed[0].reason}"
    hint = "give the server token with --token-file, or the configuration with --config"
    if closed[0].kind == "openshift":
        hint = "give the configuration of kube-apiserver with --config; it opens the others"
    elif closed[0].code != "bootstrap_token":
        hint = "give the configuration with --config"
    message = f"{opened.path}: no configuration inside opens: {listed}"
    if closed[0].code == "bootstrap_token":
        return InputError(message, hint=hint, code="bootstrap_token")
    return EmbeddedClosed(message, hint=hint, code=closed[0].code)


def plan_embedded(
    opened: OpenedSnapshot,
    carried: Recovered,
    new: EncryptionConfig | None,
    *,
    target: Path | None,
    container: str,
    update: bool,
    keep: bool,
    token: str | None,
    entropy: Entropy,
    now: datetime | None = None,
) -> Updates:
    """Decide what becomes of what the source carries. `new`: None to decrypt; `container`: what goes around `target`.

    Raises EmbeddedConfigStale, and InputError where the platform does not take `new` or it cannot be written back.
    """
    from snaptool.containers.wrap import choose_wrapping  # noqa: PLC0415 - who only reads has no use for it

    wrapping = choose_wrapping(target, container, opened.container)
    k3s = [place for place in carried.places if place.kind == "k3s"]
    openshift = [place for place in carried.places if place.kind == "openshift"]
    beside = [place for place in carried.places if place.kind in _BESIDE and place.config is not None]
    along = [place for place in beside if _comes_along(opened, place, wrapping)]
    if update:
        if openshift:
            raise InputError(
                "new keys cannot be written back into OpenShift's Secrets: its operators make and migrate them",
                hint="write with the keys that are there (snaptool config extract), or with --keep-embedded",
                code="embedded_unsupported",
            )
        if not k3s and not beside:
            raise InputError(
                f"{opened.path} carries no configuration that could be updated",
                hint="leave --update-embedded out: give the servers the new configuration as a file",
                code="embedded_missing",
            )
        made = [_update_beside(opened, carried, new, place, wrapping, entropy) for place in along[:1]]
        if any(place.opens for place in k3s) or (k3s and not beside):
            config = _disabled(carried, entropy) if new is None else configuration_json(new)
            made.append(update_bootstrap(opened.places, token, config, now=now or datetime.now(UTC), entropy=entropy))
        elif k3s:
            made.append(Updates(notes=(f"{k3s[0].place} still holds the configuration that it has: it is closed",)))
        if beside and not along:
            made.append(Updates(notes=_left_behind(beside[0])))
        if not any(one.place for one in made):
            raise InputError(
                f"{beside[0].place} does not come along into this TARGET, so nothing in it can be updated",
                hint=f"write TARGET {_BESIDE[beside[0].kind]}; or leave --update-embedded out",
                code="container_target",
            )
        return joined_updates(made)
    notes = _kept_notes(carried, new, [*k3s, *openshift, *along], keep=keep)
    if beside and not along and (new is None or not _has_keys(carried.configs, new)):
        notes += _left_behind(beside[0])
    return Updates(notes=notes)


def _left_behind(place: Embedded) -> tuple[str, ...]:
    note = "has the old configuration, and does not come along into TARGET: give the platform the new one before"
    return (f"{place.place} {note} the restore; or write TARGET {_BESIDE[place.kind]}, with --update-embedded",)


_BESIDE = {
    "rke1": "as a zip",
    "omni": "with --container same",
}
"""Kinds of places beside the snapshot, and how a target gets one."""


def _comes_along(opened: OpenedSnapshot, place: Embedded, wrapping: Wrapping) -> bool:
    return wrapping.omni is not None if place.kind == "omni" else wrapping.carries(_state_file(opened, place))


def _state_file(opened: OpenedSnapshot, place: Embedded) -> str:
    """Return the name of the file of the container that a place of RKE's state is in."""
    members = () if opened.container is None else opened.container.members
    states = (member.name for member in members if member.role == "rkestate")
    return next((name for name in states if place.place.startswith(f"{name}, ")), "")


def _update_beside(
    opened: OpenedSnapshot,
    carried: Recovered,
    new: EncryptionConfig | None,
    place: Embedded,
    wrapping: Wrapping,
    entropy: Entropy,
) -> Updates:
    """Write the new configuration into what lies beside the snapshot in its container."""
    if place.kind == "omni":
        if new is None:
            raise InputError(
                "Talos has no form of its configuration without encryption, so none can be written into Omni's header",
                hint="leave it as it is with --keep-embedded: it ends in identity, which reads plaintext",
                code="embedded_unsupported",
            )
        note = "Omni takes the new keys from the header when a cluster is made from this backup; a cluster that is"
        return Updates(place.place, keys=talos_keys(new), notes=(f"{note} there keeps its own",))
    name = _state_file(opened, place)
    if new is None:
        (new,) = read_configs(_disabled(carried, entropy), name=name).configs
    assert opened.container is not None
    state = update_state(opened.container.read_member(name), new, name)
    return Updates(
        wrapping.renames.get(name, name),
        files={name: state},
        notes=(
            "restore without --use-local-state, and replace the local cluster.rkestate by the one in the backup",
            "clusters that Rancher made keep their configuration in Rancher: set it there too",
        ),
    )


def _disabled(carried: Recovered, entropy: Entropy) -> bytes:
    """Write the configuration of servers whose encryption is off, for the resources that it was on for."""
    names = [name for config in carried.configs for entry in config.entries for name in entry.resources]
    return disabled_configuration(tuple(dict.fromkeys(names)) or ("secrets",), entropy(_KEY_SIZE))


def _kept_notes(
    carried: Recovered, new: EncryptionConfig | None, places: Sequence[Embedded], *, keep: bool
) -> tuple[str, ...]:
    # A record that says of itself that encryption is off, or a lock, holds no keys that could be out of date.
    holding = [
        place for place in places if place.config is not None or place.kind == "openshift" or place.opens is None
    ]
    holding = [place for place in holding if place.code != "bootstrap_locked"]
    if not holding:
        return ()
    if new is None:
        way = "" if holding[0].kind == "omni" else "; --update-embedded turns that off"
        note = (
            "still has the old configuration: its servers read plaintext, and encrypt what they write under the old key"
        )
        return (f"{holding[0].place} {note}{way}",)
    if not keep and not _has_keys(carried.configs, new):
        raise EmbeddedConfigStale(holding)
    return (f"{holding[0].place} keeps the configuration that it has",) if keep else ()


def _has_keys(configs: Sequence[EncryptionConfig], new: EncryptionConfig) -> bool:
    return bool(configs) and _keys(new) <= {key for config in configs for key in _keys(config)}


def _keys(config: EncryptionConfig) -> set[tuple[str, str, str, bytes]]:
    """Return every key with the resource that it is for."""
    found: set[tuple[str, str, str, bytes]] = set()
    for entry in config.entries:
        for name in entry.resources:
            for provider in entry.providers:
                if isinstance(provider, KmsConfig):
                    found.add((name, str(provider.kind), provider.name, b""))
                elif isinstance(provider, LocalConfig):
                    found |= {(name, str(provider.kind), key.name, key.secret) for key in provider.keys}
    return found
