"""A new configuration in the place of the one that a backup carries: what its platform finds when it restores it.

k3s and RKE2: in every revision of the record that the token opens, since each holds the old keys: the configuration,
the state that says so, and their time; all other files stay as they are. Records that do not open are named. RKE1: both
configurations of the state file in its zip. Omni: the keys before the snapshot, where they make what Talos serves.
Source: docs/formats/containers.md, "k3s and RKE2", "RKE1", "Omni".
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from snaptool.embedded.k3s import Bootstrap, BootstrapProblem, passphrases, seal, storage_key, unseal
from snaptool.embedded.places import BOOTSTRAP, PlaceFinder, SeenRecord
from snaptool.errors import InputError, VerificationFailed
from snaptool.providers.config.fresh import config_text
from snaptool.providers.config.held import read_configs
from snaptool.providers.config.model import BadConfig, EncryptionConfig, LocalConfig
from snaptool.providers.provider import Entropy, Kind


class EmbeddedUpdateFailed(VerificationFailed):
    """A configuration that was written back does not open to what it should. Nothing was published."""


@dataclass(frozen=True, slots=True)
class Updates:
    """What gets a new configuration: records by number, files of the container by name, or the `keys` of Omni's header.

    `place`: the etcd key, or the file; "" where nothing is updated. `keys`: of Talos, secretbox and aescbc in base64.
    `notes`: what was not updated, and what the platform needs at the restore.
    """

    place: str = ""
    values: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    keys: tuple[str, str] | None = field(default=None, repr=False)


def joined_updates(several: Sequence[Updates]) -> Updates:
    """Take the updates of several places together."""
    return Updates(
        place=", ".join(one.place for one in several if one.place),
        values={number: value for one in several for number, value in one.values.items()},
        notes=tuple(note for one in several for note in one.notes),
        files={name: content for one in several for name, content in one.files.items()},
        keys=next((one.keys for one in several if one.keys is not None), None),
    )


def update_bootstrap(
    finder: PlaceFinder, token: str | None, config: bytes, *, now: datetime, entropy: Entropy
) -> Updates:
    """Seal `config`, one line of JSON, into the record that the token opens. `entropy`: asked for salts and nonces.

    Raises InputError when no live record opens or the one that does carries no configuration.
    """
    live = {key: record for key, record in finder.live().items() if key.startswith(BOOTSTRAP)}
    passphrase = next((one for one in passphrases(token) if storage_key(one) in live), None)
    if passphrase is None:
        raise InputError(
            "no record under /bootstrap/ opens, so the new configuration cannot be written there",
            hint="give the server token with --token-file, or leave the old one there with --keep-embedded",
            code="bootstrap_token",
        )
    key = storage_key(passphrase)
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    values: dict[int, bytes] = {}
    notes: list[str] = []
    for record in finder.records[key]:
        if record.tombstone or not record.value:
            continue
        try:
            bootstrap = Bootstrap.parse(unseal(record.value, passphrase))
        except BootstrapProblem as problem:
            if record is live[key]:
                raise
            notes.append(f"{_text(key)} at revision {record.revision} keeps what it holds: {problem}")
            continue
        if bootstrap.config is not None:
            values[record.number] = _sealed(bootstrap, record, passphrase, config, time, entropy)
        elif record is live[key]:
            raise InputError(
                f"{_text(key)} holds no encryption configuration: the servers ran without --secrets-encryption",
                hint="leave it as it is with --keep-embedded, and give the servers the new configuration yourself",
                code="embedded_unsupported",
            )
    notes += [
        f"{_text(other)} still holds the old configuration: it opens with another token"
        for other, records in finder.records.items()
        if other.startswith(BOOTSTRAP) and other != key and any(record.value for record in records)
    ]
    notes.append(
        "restore with the same token and with --secrets-encryption; on the other servers remove server/db and let them "
        "join again"
    )
    return Updates(_text(key), values, tuple(notes))


def _sealed(
    bootstrap: Bootstrap, record: SeenRecord, passphrase: str, config: bytes, time: str, entropy: Entropy
) -> bytes:
    """Seal the files with the new configuration, and open them again as a server would."""
    value = seal(bootstrap.with_config(config, time), passphrase, entropy)
    again = Bootstrap.parse(unseal(value, passphrase))
    if again.config != config or not again.state_fits or set(again.files) < set(bootstrap.files):
        raise EmbeddedUpdateFailed(f"{_text(record.key)}: the new value does not open to the new configuration")
    return value


def _text(key: bytes) -> str:
    return key.decode(errors="backslashreplace")


# --- files beside the snapshot ---


def update_state(content: bytes, config: EncryptionConfig, place: str) -> bytes:
    """Put `config` into RKE's state, as the one that is wanted and the one that is; all else stays as it was read.

    Raises InputError where the state holds none, EmbeddedUpdateFailed.
    """
    text = config_text(config, head="\n").strip()
    try:
        state = json.loads(content)
        for name in ("desiredState", "currentState"):
            if name in state:
                state[name]["encryptionConfig"] = text
        made = json.dumps(state, indent=2, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError):
        raise InputError(
            f"{place} is not a state of RKE, in which a configuration could be replaced",
            hint="leave it as it is with --keep-embedded, and set the new configuration in cluster.yml",
            code="embedded_unsupported",
        ) from None
    made += b"\n" * content.endswith(b"\n")
    try:
        found = read_configs(made, name=place).configs
    except BadConfig:
        found = ()
    if [one.entries for one in found] != [config.entries]:
        raise EmbeddedUpdateFailed(f"{place}: the new state does not hold the new configuration")
    return made


def talos_keys(config: EncryptionConfig) -> tuple[str, str]:
    """Return secretbox and aescbc key, in base64 or empty, of which Talos makes just this configuration.

    Raises InputError for any other form.
    """
    first = {
        provider.kind: base64.b64encode(provider.keys[0].secret).decode()
        for entry in config.entries[:1]
        for provider in entry.providers
        if isinstance(provider, LocalConfig) and provider.keys
    }
    keys = first.get(Kind.SECRETBOX, ""), first.get(Kind.AESCBC, "")
    names = {"secretboxEncryptionSecret": keys[0], "aescbcEncryptionSecret": keys[1]}
    made = {"cluster": {name: text for name, text in names.items() if text}}
    try:
        served = [one.entries for one in read_configs(json.dumps(made).encode()).configs]
    except BadConfig:
        served = []
    if served != [config.entries]:
        raise InputError(
            f"{config.name}: Talos serves Secrets under secretbox key2, then aescbc key1, then identity, no other form",
            hint="write such a configuration, or leave the header as it is with --keep-embedded",
            code="embedded_unsupported",
        )
    return keys
