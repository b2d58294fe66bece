"""How the calls of a plan change where a key service is asked without its plugin. Source: docs/clouds.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from snaptool.providers.direct.said import KINDS, DirectKms
from snaptool.providers.kms_sources import CONCURRENCY, CallPlan, batch_size

BATCH: Final = KINDS["vault"].keys_a_call
"""Keys that the transit engine is asked for in one call."""
_AZURE_PER_SECOND: Final = 400
"""Of one vault, RSA-2048 in software: 4,000 in 10 seconds."""


def asked_directly(plan: CallPlan, direct: DirectKms | None) -> CallPlan:
    """Return the plan for the service itself; the same where the plugin is asked."""
    if direct is None:
        return plan
    calls = {method: count for method, count in plan.calls.items() if method != "Version"}  # the plugin's, for v1
    if direct.kind == "vault" and plan.purpose == "read" and "Decrypt" in calls:
        calls["Decrypt"] = -(-plan.sources // batch_size(plan.sources, CONCURRENCY[plan.api], BATCH))
    if direct.kind == "azure":
        calls.pop("Encrypt", None)  # done here, with the public key
        calls.pop("Status", None)
    least = sum(calls.values()) / _AZURE_PER_SECOND if direct.kind == "azure" else 0.0
    return replace(plan, calls=calls, asked=direct.service, least_seconds=least)
