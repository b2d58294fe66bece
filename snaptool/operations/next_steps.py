"""What to do next with a file that was written, computed from what is in it, never from the option that was given.

Each step has a code, which docs/json.md lists. Nothing here says that keys are no longer needed: backups that were made
earlier still need them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from snaptool.embedded.update import talos_keys
from snaptool.errors import InputError
from snaptool.kube.names import covers
from snaptool.operations.plan import Undecodable, Undecryptable, ValueChange
from snaptool.operations.platform import Step, platform_next
from snaptool.operations.rewrite import RewriteReport
from snaptool.providers.config.model import EncryptionConfig
from snaptool.providers.provider import Kind
from snaptool.scratch import find_restorer
from snaptool.text import counted, quoted

_NAMED = 5


def next_steps(
    report: RewriteReport,
    target: Path,
    new_configs: Sequence[tuple[str, EncryptionConfig]] = (),
    *,
    rewritten: bool = True,
) -> tuple[Step, ...]:
    """Say what to do with the file at `target`; nothing where none was written.

    `new_configs`: the files that it was written with, by name. `rewritten`: values were looked at (not `repair`).
    """
    if report.target is None:
        return ()
    packed = report.target.packed
    steps = platform_next(
        report.platforms,
        target,
        () if packed is None else packed.layers,
        bootstrap=report.bootstrap,
        restorer=find_restorer(),
    )
    steps += _configuration(report, new_configs, rewritten=rewritten)
    steps += _inside(report, changed=bool(new_configs))
    steps += _kept(report)
    steps += _etcd(report)
    if rewritten and (new_configs or _became_plaintext(report)):
        line = "keep the old configuration and its keys: backups made before this one still need them"
        steps.append(Step("old_keys", (line,)))
    return tuple(steps)


# --- the API servers' configuration -------------------------------------------------------------------------------


def _configuration(
    report: RewriteReport, new_configs: Sequence[tuple[str, EncryptionConfig]], *, rewritten: bool
) -> list[Step]:
    encrypted = _encrypted(report.values)
    if report.updated.place:
        line = f"the new configuration is in this file ({report.updated.place}): the restore gives it to the servers"
        return [Step("config_embedded", (line,))]
    if new_configs and {"talos", "omni"} & set(report.platforms):
        return [_talos_configuration(*new_configs[0])]
    if new_configs:
        return [_new_configuration(report, new_configs)]
    plain = rewritten and _became_plaintext(report)
    if encrypted and plain:
        lines = (
            "give the API servers a configuration with identity as its first provider, for what became plaintext;",
            "  behind it belong the keys of the values that are still encrypted, once they are found:",
        )
        return [Step("config_identity", (*lines, *(f"  {line}" for line in _counted(encrypted))))]
    if encrypted:
        sentence = "the API servers need the configuration that they have: values in this file are under its keys:"
        return [Step("config_old", (sentence, *(f"  {line}" for line in _counted(encrypted))))]
    sentence = "nothing in this file is encrypted"
    if plain:
        resources = _names(change.resource for change in report.values if _is_decrypted(change))
        sentence = f"in this file all of {resources} is plaintext: no key is needed to read this file"
    way = "  start the API servers without --encryption-provider-config, or with one that has identity as a provider"
    return [Step("config_none", (sentence, way))]


def _new_configuration(report: RewriteReport, new_configs: Sequence[tuple[str, EncryptionConfig]]) -> Step:
    if len(new_configs) == 1:
        name = quoted(new_configs[0][0])
        return Step("config_new", (f"start every API server with --encryption-provider-config {name}",))
    lines = ["start every API server with its own --encryption-provider-config:"]
    present = dict.fromkeys(change.resource for change in report.values if change.to_kind is not None)
    for name, config in new_configs:
        named = [resource for entry in config.entries for resource in entry.resources]
        covered = [resource for resource in present if any(covers(one, resource) for one in named)]
        lines.append(f"  {quoted(name)}: the one that serves {_names(covered) if covered else _names(named)}")
    return Step("config_new", tuple(lines))


def _talos_configuration(name: str, config: EncryptionConfig) -> Step:
    """Say how Talos, which renders the file of kube-apiserver itself, gets the keys of a configuration."""
    try:
        keys = zip(("secretboxEncryptionSecret", "aescbcEncryptionSecret"), talos_keys(config), strict=True)
    except InputError:
        other = (
            "Talos serves Secrets under secretbox key2, then aescbc key1, then identity, and can read no other keys;",
            f"  {quoted(name)} has another form: as a document KubeEtcdEncryptionConfig of the machine configuration",
            "  Talos takes it from mid-2026 on; for older releases: snaptool config new --keep MACHINE-CONFIG",
        )
        return Step("config_new", other)
    fields = " and ".join(f"cluster.{field}" for field, key in keys if key)
    lines = (
        f"set {fields} in the machine configuration of every control plane node to the key in {quoted(name)},",
        "  before its API server starts: Talos writes kube-apiserver's file from that",
    )
    return Step("config_new", lines)


def _encrypted(values: Sequence[ValueChange]) -> Counter[tuple[str, str, bool]]:
    """Count the values of the new file that are encrypted, by resource, key, and whether they are current."""
    counts: Counter[tuple[str, str, bool]] = Counter()
    for change in values:
        if change.to_key is not None and change.to_kind is not Kind.IDENTITY:
            key = f"{change.to_kind or 'unknown'} {change.to_key}".rstrip()
            counts[change.resource, key, True] += change.live
            counts[change.resource, key, False] += change.old
    return +counts


def _counted(counts: Counter[tuple[str, str, bool]]) -> list[str]:
    pairs = list(dict.fromkeys((resource, key) for resource, key, _ in counts))
    lines = [
        f"{resource}: {counts[resource, key, True]:,} current and {counts[resource, key, False]:,} old under {key}"
        for resource, key in pairs
    ]
    more = [f"... and {len(lines) - _NAMED:,} more"] if len(lines) > _NAMED else []
    return [*lines[:_NAMED], *more]


def _is_decrypted(change: ValueChange) -> bool:
    return change.to_kind is Kind.IDENTITY and change.from_kind is not Kind.IDENTITY


def _became_plaintext(report: RewriteReport) -> bool:
    return any(map(_is_decrypted, report.values))


# --- what the platform keeps inside ---------------------------------------------------------------------------------


def _inside(report: RewriteReport, *, changed: bool) -> list[Step]:
    steps = []
    changed = changed or _became_plaintext(report)
    if report.bootstrap and changed and report.updated.notes and not report.updated.values:
        steps.append(
            Step(
                "embedded_old",
                (
                    "k3s and RKE2 restore the old configuration from /bootstrap/ in this file, over the server's own",
                    "  server/cred/encryption-config.json: put the new one there before the server starts, or write",
                    "  this file once more with --update-embedded --token-file TOKEN",
                ),
            )
        )
    if "rke1" in report.platforms and changed and not report.updated.files:
        steps.append(
            Step(
                "rke1_state",
                (
                    "RKE keeps a copy of its state, with the old configuration, in this file (full-cluster-state)",
                    "  and in cluster.rkestate: set the new one in cluster.yml (kube-api: secrets_encryption_config:",
                    "  custom_config) before `rke up`, which writes both",
                ),
            )
        )
    if report.carried.key_secrets:
        count = report.carried.key_secrets
        sentence = f"OpenShift's operators keep their keys as {count:,} Secrets in this file and go on with these"
        lines = [sentence]
        if changed:
            lines.append("  after the restore: values under other keys are lost to them")
        steps.append(Step("openshift_keys", tuple(lines)))
    return steps


# --- what was kept --------------------------------------------------------------------------------------------------


def _kept(report: RewriteReport) -> list[Step]:
    steps = []
    if report.lost and report.undecryptable is Undecryptable.KEEP:
        count, live = len(report.lost), [value for value in report.lost if value.live]
        keys = _names(
            f"{value.header.provider} {value.header.shown if value.header.key_name else ''}".rstrip()
            for value in report.lost
        )
        values = counted(count, "lost value is", "lost values are")
        sentence = f"{values} in this file as before, under {keys}: only the old keys can open them"
        lines = [sentence]
        if live:
            resources = _names(value.resource.name for value in live)
            current = counted(len(live), "is a current value", "are current values")
            lines.append(f"  every list of {resources} fails while they are there: {current}")
        steps.append(Step("lost_kept", tuple(lines)))
    if report.broken and report.undecodable_choice is Undecodable.KEEP:
        count, live = len(report.broken), [value for value in report.broken if value.live]
        values = counted(count, "value is", "values are")
        lines = [f"{values} in this file that no API server can decode"]
        if live:
            lines.append(f"  every list of {_names(value.resource.name for value in live)} fails while they are there")
        steps.append(Step("undecodable_kept", tuple(lines)))
    return steps


def _names(names: Iterable[str]) -> str:
    known = list(dict.fromkeys(names))
    return ", ".join(known[:_NAMED]) + (f" and {len(known) - _NAMED:,} more" if len(known) > _NAMED else "")


# --- what etcd itself wants -----------------------------------------------------------------------------------------

_ALARMS = {
    "NOSPACE": "etcd refuses every write while it stands: give it room (--quota-backend-bytes), then",
    "CORRUPT": "etcd refuses every request while it stands: compare the members first (etcdctl endpoint hashkv), then",
}


def _etcd(report: RewriteReport) -> list[Step]:
    steps = []
    for alarm in report.carried.alarms:
        what = _ALARMS.get(alarm, "once its cause is gone,")
        steps.append(Step("alarm", (f"the alarm {alarm} is in this file: {what}", "  etcdctl alarm disarm")))
    if report.carried.auth_enabled:
        steps.append(
            Step(
                "auth",
                (
                    "etcd's own authentication is on in this file: after the restore its users and passwords count;",
                    "  API servers need the credentials that they had, and etcdctl --user NAME",
                ),
            )
        )
    return steps
