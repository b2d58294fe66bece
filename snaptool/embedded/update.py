"""A new configuration in the place of the one that a snapshot carries: what k3s and RKE2 find when they restore it.

In every revision of the record that the token opens, since each holds the old keys: the configuration, the state that
says so, and their time; all other files stay as they are. Records that do not open are named. Source:
docs/formats/containers.md, "k3s and RKE2".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from snaptool.embedded.k3s import Bootstrap, BootstrapProblem, passphrases, seal, storage_key, unseal
from snaptool.embedded.places import BOOTSTRAP, PlaceFinder, SeenRecord
from snaptool.errors import InputError, VerificationFailed
from snaptool.providers import Entropy


class EmbeddedUpdateFailed(VerificationFailed):
    """A configuration that was written back does not open to what it should. Nothing was published."""


@dataclass(frozen=True, slots=True)
class Updates:
    """New values of records that carry a configuration. `values`: by record number; `place`: the etcd key.

    `notes`: what was not updated, and what the platform needs at the restore.
    """

    place: str = ""
    values: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()


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
