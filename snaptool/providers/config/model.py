"""What an accepted configuration says, and what is wrong with one that is refused.

No message holds a secret, or a text that could be one: places are named by path, never quoted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from snaptool.errors import InputError
from snaptool.providers.provider import Api, Kind

KEY_SIZES: Final = {Kind.AESCBC: (16, 24, 32), Kind.AESGCM: (16, 24, 32), Kind.SECRETBOX: (32,)}
LOCAL_PROVIDERS: Final = {"aesgcm": Kind.AESGCM, "aescbc": Kind.AESCBC, "secretbox": Kind.SECRETBOX}


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """A broken rule. `path`: where, as `resources[0].providers[1].aescbc.keys[0].secret`; `code`: those of `rules`.

    `line` and `column` count from 1, and are None where the text has no such place. `remedy`: the edit or the command
    that helps; empty where the rule says it all.
    """

    path: str
    code: str
    message: str
    line: int | None = None
    column: int | None = None
    remedy: str = ""

    def __str__(self) -> str:
        place = f"line {self.line}, character {self.column}" if self.column else f"line {self.line}"
        return ": ".join(part for part in (place if self.line else "", self.path, self.message) if part)


class BadConfig(InputError):
    """A configuration that kube-apiserver refuses. `stage`: decode, validate or build."""

    def __init__(self, name: str, stage: str, problems: Sequence[ConfigProblem]) -> None:
        listed = "; ".join(str(problem) for problem in problems)
        remedies = dict.fromkeys(problem.remedy for problem in problems if problem.remedy)
        super().__init__(
            f"{name or 'configuration'}: {listed}",
            hint="; ".join(remedies) or "kube-apiserver refuses it too; correct what is named",
        )
        self.stage = stage
        self.problems = tuple(problems)


class KeyNameTaken(InputError):
    """A fresh key would be tried for what an old one sealed, or that one for its. `key_name`: the old one's."""

    def __init__(self, key_name: str, kind: Kind) -> None:
        super().__init__(
            f"the old configuration has a key {key_name!r} for {kind}; API servers would try one key for the other",
            hint="give the new key a name of its own with --key-name",
        )
        self.key_name = key_name
        self.kind = kind


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """A named key. `secret`: the decoded bytes."""

    name: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """A local provider; identity has no keys."""

    kind: Kind
    keys: tuple[KeyConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class KmsConfig:
    """A KMS provider. `timeout` in seconds; `cache_size` is None for v2."""

    name: str
    api_version: str
    endpoint: str
    timeout: float
    cache_size: int | None

    @property
    def api(self) -> Api:
        """Its API, of the two that there are."""
        return Api(self.api_version)

    @property
    def kind(self) -> Kind:
        """KMS v1 or v2."""
        return self.api.kind


ProviderConfig = LocalConfig | KmsConfig


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One entry of `resources`: names as written, and the providers that they have, in order."""

    resources: tuple[str, ...]
    providers: tuple[ProviderConfig, ...]

    @property
    def group_resources(self) -> tuple[tuple[str, str], ...]:
        """The names as pairs of resource and group."""
        return tuple(split_resource(name) for name in self.resources)


@dataclass(frozen=True, slots=True)
class EncryptionConfig:
    """A configuration that kube-apiserver accepts. `name`: where it came from, for messages.

    `platform`: whose rules made it of keys alone, for instance `talos`; else empty.
    """

    name: str
    entries: tuple[ConfigEntry, ...]
    platform: str = ""


def split_resource(name: str) -> tuple[str, str]:
    """Split at the first dot: `deployments.apps` is resource and group; no dot is the core group, which is empty."""
    resource, _, group = name.partition(".")
    return resource, group
