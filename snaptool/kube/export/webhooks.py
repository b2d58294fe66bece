"""Admission webhooks in a snapshot: which Service each calls, what it matches, and what happens when nobody answers.

One that is served from an exported namespace refuses the restore of that very namespace. Source: docs/formats/kinds.md,
"Order and files".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from snaptool.kube.export.definitions import service_of
from snaptool.kube.export.order import Kind
from snaptool.kube.export.trees import Tree, entries, mapping, name_of, text, texts

_ADMISSION = "admissionregistration.k8s.io"
WEBHOOKS = (
    Kind("ValidatingWebhookConfiguration", _ADMISSION),
    Kind("MutatingWebhookConfiguration", _ADMISSION),
)


@dataclass(frozen=True, slots=True)
class Webhook:
    """What calls a Service. `matches`: the resources, as text; empty for a conversion."""

    configuration: str
    service: str
    failure_policy: str
    matches: str


def webhooks_of(kind: Kind, tree: Tree) -> Iterator[Webhook]:
    """Yield the webhooks of a configuration that call a Service."""
    for one in entries(tree, "webhooks"):
        service = service_of(mapping(one, "clientConfig"))
        if service:
            resources = [name for rule in entries(one, "rules") for name in texts(rule, "resources")]
            policy = text(one, "failurePolicy") or ("Ignore" if "beta" in text(tree, "apiVersion") else "Fail")
            shown = ", ".join(dict.fromkeys(resources))
            yield Webhook(f"{kind.kind} {name_of(tree)}", service, policy, shown or "nothing")
