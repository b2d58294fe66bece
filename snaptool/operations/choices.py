"""What is asked of a rewrite, on the command line and in the library: what does not go together, and what it comes to.

Both say the same things in other words, so a sentence about them is made with the words of whoever asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

from snaptool.arguments import UnknownWord, wrong_type
from snaptool.containers.wrap import CHOICES
from snaptool.embedded.found import Recovered
from snaptool.embedded.update import Updates
from snaptool.errors import InputError
from snaptool.operations.coverage import one_of
from snaptool.operations.earlier import earlier_backups
from snaptool.operations.embedding import plan_embedded
from snaptool.operations.keys import RewriteKeys, keys_for_rewriting
from snaptool.operations.kms_options import NO_KMS_OPTIONS, KmsOptions, kms_configs
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.plan import RewriteRequest, Undecodable, Undecryptable
from snaptool.operations.sweep import Progress, no_progress
from snaptool.providers.config.model import EncryptionConfig

Spell = Callable[[str, str], str]
"""How a choice is written: its name, `older_from`, and its value, "" for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What was said of a rewrite. `config`, `new_config`, `older_from`: was any given?"""

    config: bool = False
    new_config: bool = False
    older_from: bool = False
    decrypt: bool = False
    undecryptable: Undecryptable = Undecryptable.STOP
    undecodable: Undecodable = Undecodable.KEEP
    allow_plaintext: bool = False
    compact: bool = False
    rewrap: bool = False
    update_embedded: bool = False
    keep_embedded: bool = False
    embedded_lost: bool = False
    token: str | None = field(default=None, repr=False)
    container: str = "auto"
    skip_hash_check: bool = False
    jobs: int = 1
    kms: KmsOptions = NO_KMS_OPTIONS

    @property
    def only_lost(self) -> bool:
        """Is nothing but what is lost to change?"""
        return not (self.decrypt or self.new_config)

    @property
    def takes_older(self) -> bool:
        """May older revisions take the place of lost values?"""
        return self.undecryptable is Undecryptable.OLDER

    @property
    def about_values(self) -> tuple[str, ...]:
        """What was said of values, by name, where nothing had to be."""
        said = (one.name for one in fields(self) if getattr(self, one.name) != one.default)
        return tuple(name for name in said if name != "container")

    def contradiction(self, spell: Spell) -> str | None:
        """Say what does not go together, before anything is read; None where all does."""
        new_config, decrypt = spell("new_config", ""), spell("decrypt", "")
        older = spell("undecryptable", "older")
        if self.decrypt and self.new_config:
            return f"exactly one of {new_config} and {decrypt} can be given"
        if self.only_lost and not (self.undecryptable.deletes or self.undecodable is Undecodable.DELETE):
            return (
                f"{new_config} or {decrypt} is required; to drop only what is lost (`snaptool list SOURCE --lost` "
                f"shows it): {older}, or delete"
            )
        if self.rewrap and not self.new_config:
            return f"{spell('rewrap', '')} wraps keys with the plugin of {new_config}; without it none is wrapped"
        if self.older_from and not self.takes_older:
            return f"{spell('older_from', '')} goes with {older}"
        if self.update_embedded and (self.keep_embedded or self.only_lost):
            update, keep = spell("update_embedded", ""), spell("keep_embedded", "")
            return f"{update} goes with a change of keys, and not with {keep}"
        if self.undecryptable.deletes and not self.config:
            stated = spell("undecryptable", self.undecryptable)
            return f"{stated} needs {spell('config', '')}: without keys all that is encrypted would go"
        return None


def require_container(wanted: object) -> str:
    """Return what goes around a target, if it is a word for that. Raises WrongType and UnknownWord."""
    if not isinstance(wanted, str):
        raise wrong_type("container", wanted, "a str")
    if wanted not in (*CHOICES, "directory"):
        known = ", ".join(map(repr, (*CHOICES, "directory")))
        raise UnknownWord(f"container is {wanted[:40]!r}, and has to be one of {known}")
    return wanted


@dataclass(frozen=True, slots=True)
class Configurations:
    """What a rewrite reads with, tried in turn; what it writes with; what is inside the snapshot, and becomes of it.

    `inside`: says the latter two later, see `RewriteRequest`.
    """

    old: Sequence[EncryptionConfig]
    written: EncryptionConfig | None
    carried: Recovered | None = None
    updates: Updates = field(default_factory=Updates)
    inside: Callable[[], tuple[Recovered, Updates]] | None = None


def configurations(
    choices: Choices,
    opened: OpenedSnapshot,
    target: Path | None,
    old: Sequence[EncryptionConfig],
    written: EncryptionConfig | None,
    carried: Recovered,
) -> Configurations:
    """Plan what becomes of the configuration inside: nothing, where nothing but lost values changes.

    Raises as `plan_embedded`.
    """
    updates = Updates()
    if not choices.only_lost:
        updates = plan_embedded(
            opened,
            carried,
            written,
            target=target,
            container=choices.container,
            update=choices.update_embedded,
            keep=choices.keep_embedded,
            token=choices.token,
            entropy=os.urandom,
        )
    return Configurations(old, written, carried, updates)


@contextmanager
def keys_for(
    choices: Choices,
    opened: OpenedSnapshot,
    configs: Configurations,
    *,
    judges_later: bool = False,
    progress: Progress = no_progress,
) -> Iterator[RewriteKeys]:
    """Get the keys of a rewrite, good within the block. Raises as `keys_for_rewriting`.

    `judges_later`: an engine that looks at live values alone judges by itself what becomes plaintext.
    """
    new: Sequence[EncryptionConfig] = () if configs.written is None else (configs.written,)
    if choices.rewrap and not kms_configs(new):
        raise InputError(
            "rewrap is for data keys that a KMS wraps, and the new configuration has no KMS provider",
            hint="leave rewrap out: every value is then encrypted again, under the first key of its entry",
            code="wrong_usage",
        )
    if choices.only_lost and choices.takes_older:
        new = one_of(configs.old)  # older revisions that come back are sealed under the first key that there is
    with keys_for_rewriting(
        opened,
        configs.old,
        new,
        choices.kms,
        undecryptable=choices.undecryptable,
        allow_plaintext=choices.allow_plaintext or judges_later,
        skip_hash_check=choices.skip_hash_check,
        rewrap=choices.rewrap,
        progress=progress,
    ) as keys:
        yield keys


def request_of(
    choices: Choices,
    opened: OpenedSnapshot,
    configs: Configurations,
    keys: RewriteKeys,
    backups: Sequence[OpenedSnapshot] = (),
) -> RewriteRequest:
    """Say what to do with the values of `opened`. Raises as `earlier_backups` of `backups`."""
    reading, skip = keys.reading.keyring, choices.skip_hash_check
    return RewriteRequest(
        reading=reading,
        writing=keys.writing,
        rewraps=keys.rewraps,
        decrypt=choices.decrypt,
        undecryptable=choices.undecryptable,
        undecodable=choices.undecodable,
        allow_plaintext=choices.allow_plaintext,
        only_lost=choices.only_lost,
        earlier=earlier_backups(opened, reading, backups, configs.old, choices.kms, skip_hash_check=skip),
        carried=configs.carried,
        embedded_lost=choices.embedded_lost,
        compact=choices.compact,
        skip_hash_check=skip,
        updates=configs.updates,
        inside=configs.inside,
        jobs=1 if choices.kms.v1_dek_per_object else choices.jobs,
    )
