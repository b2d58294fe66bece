"""What a job will ask of each key service, counted from the snapshot, without asking anything.

Source: docs/formats/kms.md, "How many calls"; docs/clouds.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from snaptool.operations.keys import loads_of
from snaptool.operations.kms_options import NO_KMS_OPTIONS, KmsOptions, kms_configs
from snaptool.operations.kms_services import require_direct
from snaptool.operations.opening import OpenedSnapshot
from snaptool.operations.sweep import Progress, no_progress
from snaptool.operations.wrapped import collect
from snaptool.providers.config.model import EncryptionConfig
from snaptool.providers.direct.calls import asked_directly
from snaptool.providers.kms_sources import CallPlan, plan_reading, plan_rewrapping, plan_writing
from snaptool.providers.provider import Api, Kind


def plan_calls(
    opened: OpenedSnapshot,
    old: Sequence[EncryptionConfig],
    new: Sequence[EncryptionConfig] = (),
    options: KmsOptions = NO_KMS_OPTIONS,
    *,
    rewrap: bool = False,
    skip_hash_check: bool = False,
    progress: Progress = no_progress,
) -> tuple[CallPlan, ...]:
    """Count what reading with `old` and writing with `new` will ask of each service, without asking anything.

    Raises WrongTrailer, unless `skip_hash_check`, and NoSuchProvider.
    """
    require_direct(options, kms_configs(old), kms_configs(new))
    collected = collect(opened, kms_configs(old), progress, skip_hash_check=skip_hash_check)
    loads = loads_of(collected, new)
    rewrapped = {config.kind for config in kms_configs(new) if rewrap and loads.get((config.kind, config.name))}
    plans = []
    named = {(config.api, config.name): config for config in kms_configs(old)}
    for (api, name), config in named.items():
        sources = collected.collector.sources(api, name)
        kind = Kind.KMS_V1 if api is Api.V1 else Kind.KMS_V2
        plan = plan_rewrapping(sources) if kind in rewrapped else plan_reading(sources)
        plans.append(asked_directly(plan, options.direct_for(config)))
    for config in kms_configs(new):
        load = Counter(loads.get((config.kind, config.name), Counter()))
        if rewrap:
            del load[config.kind]
        api = config.api
        plan = plan_writing(config.name, api, load.total(), dek_per_object=options.v1_dek_per_object)
        plans.append(asked_directly(plan, options.direct_for(config, new=True)))
    return tuple(plans)
