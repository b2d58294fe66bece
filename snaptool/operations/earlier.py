"""Earlier backups that older revisions may come from: opened with their own keys, and proved to be of the same cluster.

The uid of namespace kube-system is made once in the life of a cluster, and no restore changes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from snaptool.errors import FormatError, InputError
from snaptool.etcd import decode_key_value
from snaptool.kube.keys import key_prefixes, resolve_type
from snaptool.kube.kinds.reader import decode_object
from snaptool.operations.keys import keyring_for_reading
from snaptool.operations.kms_options import NO_KMS_OPTIONS, KmsOptions
from snaptool.operations.older import Earlier, open_object
from snaptool.operations.opening import OpenedSnapshot
from snaptool.providers.config.model import EncryptionConfig
from snaptool.providers.keyring import GroupResource, Keyring


class AnotherCluster(InputError):
    """A backup that older revisions were to come from is of another cluster, or does not say of which one."""


def earlier_backups(
    source: OpenedSnapshot,
    keyring: Keyring,
    backups: Iterable[OpenedSnapshot],
    configs: Sequence[EncryptionConfig],
    options: KmsOptions = NO_KMS_OPTIONS,
    *,
    skip_hash_check: bool = False,
) -> tuple[Earlier, ...]:
    """Get the keys of earlier backups from the same configurations, and prove that they are of one cluster.

    `keyring` opens the values of `source`. Raises AnotherCluster, WrongTrailer unless `skip_hash_check`, the
    other FormatErrors, and as `keyring_for_reading`.
    """
    earlier = []
    for opened in backups:
        keys = keyring_for_reading(opened, configs, options.about(configs), skip_hash_check=skip_hash_check)
        if not skip_hash_check:
            opened.require_right_trailer()
        one = Earlier(opened, keys.keyring)
        require_same_cluster(source, keyring, one)
        earlier.append(one)
    return tuple(earlier)


def require_same_cluster(source: OpenedSnapshot, keyring: Keyring, earlier: Earlier) -> None:
    """Refuse an earlier backup of another cluster. Raises AnotherCluster, and FormatErrors."""
    ours, theirs = _cluster(source, keyring), _cluster(earlier.opened, earlier.keyring)
    if not ours or not theirs:
        path = earlier.opened.path if ours else source.path
        raise AnotherCluster(
            f"--older-from {earlier.opened.path}: {path} does not say which cluster it is of: it has no namespace "
            "kube-system that opens",
            hint="leave it out; `snaptool get` and `snaptool export` take objects out of it one by one",
        )
    if ours != theirs:
        raise AnotherCluster(
            f"--older-from {earlier.opened.path}: it is a backup of another cluster (namespace kube-system has another "
            "uid)",
            hint="name earlier backups of the same cluster, newest first",
        )


def _cluster(opened: OpenedSnapshot, keyring: Keyring) -> str:
    """Return the uid of namespace kube-system; empty where there is none to be had."""
    kind = resolve_type("namespaces")
    resource = GroupResource(kind.resource, kind.group)
    keys = [key for prefix in opened.prefixes for key in key_prefixes(kind, None, "kube-system", prefix=prefix)]
    for key, records in opened.snapshot.history_of(keys).items():
        for record in reversed(records):
            if record.tombstone:
                break
            plaintext = open_object(
                keyring, resource, decode_key_value(opened.snapshot.stored_value(record)).value, key
            )
            try:
                metadata = decode_object(plaintext or b"").tree.get("metadata")
            except FormatError:
                continue
            if isinstance(metadata, dict) and isinstance(metadata.get("uid"), str) and metadata["uid"]:
                return str(metadata["uid"])
    return ""
