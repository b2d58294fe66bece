"""What Kubernetes puts in keys and plain values.

`keys` maps registry keys to resources and back, `names` judges names in configurations, `objects` says what a plaintext
is, `decoding` shows it whole, `consequences` says what losing an object means. All take bytes, keys or names and return
values; none knows how values are encrypted.
"""

from snaptool.kube.consequences import consequence
from snaptool.kube.decoding import decode_object
from snaptool.kube.keys import (
    COMPACT_REVISION_KEY,
    DEFAULT_PREFIXES,
    MAX_RESOURCE_SEGMENTS,
    RESOURCE_TYPES,
    ResourceKey,
    ResourceType,
    UnknownType,
    find_prefixes,
    key_prefixes,
    parse_key,
    resolve_type,
    resource_segments,
)
from snaptool.kube.names import Misnamed, NameFault, canonical_name, misnamed, unmatched
from snaptool.kube.objects import Encoding, NotAnObject, ObjectHeader, describe, plausible

__all__ = [
    "COMPACT_REVISION_KEY",
    "DEFAULT_PREFIXES",
    "MAX_RESOURCE_SEGMENTS",
    "RESOURCE_TYPES",
    "Encoding",
    "Misnamed",
    "NameFault",
    "NotAnObject",
    "ObjectHeader",
    "ResourceKey",
    "ResourceType",
    "UnknownType",
    "canonical_name",
    "consequence",
    "decode_object",
    "describe",
    "find_prefixes",
    "key_prefixes",
    "misnamed",
    "parse_key",
    "plausible",
    "resolve_type",
    "resource_segments",
    "unmatched",
]
