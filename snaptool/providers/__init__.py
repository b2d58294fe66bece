"""Encryption at rest: how kube-apiserver seals values before etcd sees them, and opens them again.

Theory of operation. A stored value is a prefix that names a provider and a key, and a payload. A *provider* is one
algorithm with its keys; it sees payload and context, which is the complete etcd key. A *chain* is the ordered
providers of a resource: all of them read, the first one writes. A *keyring* holds the chains that a configuration
gives to resources. KMS providers wrap the keys of values with a key of their own that lives elsewhere; what was
wrapped is unwrapped before the work begins.

Knows no file, no etcd and no clock. The KMS socket is the one exception, in `kms_grpc`, which nothing here imports.
"""

from snaptool.providers.config import (
    BadConfig,
    ConfigEntry,
    ConfigProblem,
    EncryptionConfig,
    KeyNameTaken,
    KmsConfig,
    LocalConfig,
    ReadConfigs,
    config_text,
    config_warnings,
    final_config,
    new_config,
    parse_config,
    read_configs,
    recognise_bytes,
)
from snaptool.providers.config.model import KEY_SIZES
from snaptool.providers.keyring import SERVER_TEXTS, Chain, GroupResource, Keyring, NoKeyFits, Opening, Unsealed
from snaptool.providers.provider import Entropies, Entropy, KeyDoesNotFit, Kind, Opened, Plausible, Provider, Reason
from snaptool.providers.symmetric import Key, LocalProvider
from snaptool.providers.values import Sealed as SealedValues
from snaptool.providers.values import Values, same_plaintexts, words

__all__ = [
    "KEY_SIZES",
    "SERVER_TEXTS",
    "BadConfig",
    "Chain",
    "ConfigEntry",
    "ConfigProblem",
    "EncryptionConfig",
    "Entropies",
    "Entropy",
    "GroupResource",
    "Key",
    "KeyDoesNotFit",
    "KeyNameTaken",
    "Keyring",
    "Kind",
    "KmsConfig",
    "LocalConfig",
    "LocalProvider",
    "NoKeyFits",
    "Opened",
    "Opening",
    "Plausible",
    "Provider",
    "ReadConfigs",
    "Reason",
    "SealedValues",
    "Unsealed",
    "Values",
    "config_text",
    "config_warnings",
    "final_config",
    "new_config",
    "parse_config",
    "read_configs",
    "recognise_bytes",
    "same_plaintexts",
    "words",
]
