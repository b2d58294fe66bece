"""How a job is to speak to key services: what the operator says of them, and nothing that asks one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from snaptool.providers.config.model import EncryptionConfig, KmsConfig

if TYPE_CHECKING:
    from snaptool.providers.direct import DirectKms
    from snaptool.providers.kms_saved import SavedKeys
    from snaptool.providers.kms_service import KmsService
    from snaptool.providers.kms_unwrapping import GivenUp


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsOptions:
    """How to speak to KMS plugins. `endpoints`: URLs by provider name, instead of the configured ones.

    `direct`: key services by provider name, which are asked instead of the plugin; `new_direct`: the same for the
    providers of a new configuration alone, where a key changes under one name.
    `concurrency`: calls in flight for each provider; `rate`: calls a second; `timeout`: seconds for one call, by
    default the configured ones but 10 at least. `saved`: keys from files, looked at before a plugin is asked.
    `given_up`: the operator's words that keys are gone for good. `ask`: another way to the services. `most_v1`: more
    calls for wrapped keys of KMS v1 in one snapshot are not made, but refused.
    """

    endpoints: Mapping[str, str] = field(default_factory=dict)
    direct: Mapping[str, DirectKms] = field(default_factory=dict)
    new_direct: Mapping[str, DirectKms] = field(default_factory=dict)
    concurrency: int | None = None
    rate: float | None = None
    timeout: float | None = None
    v1_dek_per_object: bool = False
    saved: tuple[SavedKeys, ...] = field(default=(), repr=False)
    given_up: tuple[GivenUp, ...] = ()
    ask: Callable[[KmsConfig], KmsService] | None = field(default=None, repr=False)
    most_v1: int | None = None

    def about(self, configs: Sequence[EncryptionConfig]) -> KmsOptions:
        """Return these options without key services for providers that `configs` does not have."""
        names = {config.name for config in kms_configs(configs)}
        return replace(self, direct={name: one for name, one in self.direct.items() if name in names}, new_direct={})

    def keys_a_call(self, config: KmsConfig) -> int:
        """Return for how many wrapped keys its service is asked at a time."""
        direct = self.direct_for(config)
        return 1 if direct is None or self.saved else direct.keys_a_call

    def direct_for(self, config: KmsConfig, *, new: bool = False) -> DirectKms | None:
        """Return the key service that stands in for a plugin. `new`: for the provider of a new configuration."""
        return (self.new_direct if new else self.direct).get(config.name) or self.direct.get(config.name)


NO_KMS_OPTIONS: Final = KmsOptions()


def kms_configs(configs: Sequence[EncryptionConfig]) -> tuple[KmsConfig, ...]:
    """Return the distinct KMS providers of configurations, in order."""
    every = (one for config in configs for entry in config.entries for one in entry.providers)
    return tuple(dict.fromkeys(one for one in every if isinstance(one, KmsConfig)))
