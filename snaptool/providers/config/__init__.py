"""EncryptionConfiguration files: read, checked and refused exactly as kube-apiserver reads, checks and refuses them.

`decode` makes typed values of a text, `rules` checks them, `model` is what an accepted configuration says, `advice`
what is odd about one, and `fresh` writes new ones. `held` finds those that other files hold, `recognise` says what a
file is that holds none, and `explain` why a text is refused. The newest rules are the default; `strict=False` are those
of 1.13 to 1.30, which overlooked unknown and repeated fields.

No message holds a secret, or a text that could be one. Texts come in; no file is opened here.
"""

from snaptool.providers.config.advice import config_warnings
from snaptool.providers.config.fresh import config_text, final_config, new_config
from snaptool.providers.config.held import ReadConfigs, read_configs
from snaptool.providers.config.model import (
    BadConfig,
    ConfigEntry,
    ConfigProblem,
    EncryptionConfig,
    KeyConfig,
    KeyNameTaken,
    KmsConfig,
    LocalConfig,
    ProviderConfig,
)
from snaptool.providers.config.recognise import recognise_bytes
from snaptool.providers.config.rules import parse_config

__all__ = [
    "BadConfig",
    "ConfigEntry",
    "ConfigProblem",
    "EncryptionConfig",
    "KeyConfig",
    "KeyNameTaken",
    "KmsConfig",
    "LocalConfig",
    "ProviderConfig",
    "ReadConfigs",
    "config_text",
    "config_warnings",
    "final_config",
    "new_config",
    "parse_config",
    "read_configs",
    "recognise_bytes",
]
