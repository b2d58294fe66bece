"""Every kind that Kubernetes stored, decoded and printed as kubectl prints it.

`decode_object` turns a stored plaintext into plain values, `as_served` adds what an API server adds when it reads,
`json_text` and `yaml_text` print. The trees are dicts, lists, texts, numbers, truth values and None, in no particular
order: the printers sort.
"""

from snaptool.kube.kinds.crds import (
    CRD_KIND,
    CRD_V1,
    mapping,
    pruned,
    pruning_schema,
    version_names,
)
from snaptool.kube.kinds.printing import documents_text, json_text, list_text, yaml_text
from snaptool.kube.kinds.reader import Decoded, Plain, decode_object, is_refused
from snaptool.kube.kinds.served import as_served, without_managed_fields
from snaptool.kube.kinds.table import (
    FIRST_RELEASE,
    LAST_RELEASE,
    fields_of,
    list_keys,
    message_of,
)

__all__ = [
    "CRD_KIND",
    "CRD_V1",
    "FIRST_RELEASE",
    "LAST_RELEASE",
    "Decoded",
    "Plain",
    "as_served",
    "decode_object",
    "documents_text",
    "fields_of",
    "is_refused",
    "json_text",
    "list_keys",
    "list_text",
    "mapping",
    "message_of",
    "pruned",
    "pruning_schema",
    "version_names",
    "without_managed_fields",
    "yaml_text",
]
