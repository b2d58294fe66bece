"""The rules of an export: which objects of a backup become manifests, what is changed in them, in which order.

Theory of operation. An object that a cluster stored cannot be applied as it is: it carries the marks of one life (uid,
resourceVersion), values that the cluster computed or allocated, and it stands beside others that the new cluster makes
by itself. `leaving` says what is left out, `related` what else belongs to it, `cleaning` with `services`, `versions`
and `definitions` what is changed, `duplicates` what server-side apply refuses, `order` where it goes.

All take and return plain trees. This package knows no snapshot, no key and no file; the rules are docs/export.md.
"""

from snaptool.kube.export.cleaning import Cleaning, clean, redact
from snaptool.kube.export.definitions import (
    Definition,
    look_into_schema,
    prepare,
    prune,
    read_definition,
    settle_custom_resource,
)
from snaptool.kube.export.duplicates import Below, Look, duplicates
from snaptool.kube.export.leaving import (
    GENERATED_RESOURCES,
    Facts,
    Leave,
    is_helm_release,
    is_token,
    reason_to_leave,
)
from snaptool.kube.export.order import (
    CLUSTER,
    CRDS,
    CREATE,
    FOLDERS,
    NAMESPACES,
    OWNED,
    Kind,
    Place,
    group_of,
    place,
)
from snaptool.kube.export.order import WEBHOOKS as WEBHOOK_FOLDER
from snaptool.kube.export.related import CANDIDATES, NAMESPACE, References, named_by
from snaptool.kube.export.trees import Edit, Tree, at, controller_of, entries, labels_of, mapping, name_of, text
from snaptool.kube.export.versions import promote
from snaptool.kube.export.webhooks import WEBHOOKS, Webhook, webhooks_of

CRD = Kind("CustomResourceDefinition", "apiextensions.k8s.io")
SECRET = Kind("Secret", "")

__all__ = [
    "CANDIDATES",
    "CLUSTER",
    "CRD",
    "CRDS",
    "CREATE",
    "FOLDERS",
    "GENERATED_RESOURCES",
    "NAMESPACE",
    "NAMESPACES",
    "OWNED",
    "SECRET",
    "WEBHOOKS",
    "WEBHOOK_FOLDER",
    "Below",
    "Cleaning",
    "Definition",
    "Edit",
    "Facts",
    "Kind",
    "Leave",
    "Look",
    "Place",
    "References",
    "Tree",
    "Webhook",
    "at",
    "clean",
    "controller_of",
    "duplicates",
    "entries",
    "group_of",
    "is_helm_release",
    "is_token",
    "labels_of",
    "look_into_schema",
    "mapping",
    "name_of",
    "named_by",
    "place",
    "prepare",
    "promote",
    "prune",
    "read_definition",
    "reason_to_leave",
    "redact",
    "settle_custom_resource",
    "text",
    "webhooks_of",
]
