"""What Kubernetes puts in keys and plain values.

`keys` maps registry keys to resources and back, `names` judges names in configurations, `objects` says what a plaintext
is, `kinds` decodes and prints it, `consequences` says what losing an object means. All take bytes, keys or names and
return values; none knows how values are encrypted.
"""

from snaptool.kube.consequences import consequence
from snaptool.kube.envelopes import Envelopes
from snaptool.kube.keys import (
    COMPACT_REVISION_KEY,
    DEFAULT_PREFIXES,
    MAX_RESOURCE_SEGMENTS,
    RESOURCE_TYPES,
    ResourceKey,
    ResourceType,
    UnknownType,
    key_prefixes,
    normal_prefix,
    parse_key,
    resolve_type,
    resource_segments,
)
from snaptool.kube.names import Misnamed, NameFault, canonical_name, covers, is_plural_of, misnamed, unmatched
from snaptool.kube.objects import (
    PROTOBUF_MAGIC,
    Encoding,
    NotAnObject,
    ObjectHeader,
    decode_envelope,
    describe,
    plausible,
    usual_type,
)
from snaptool.kube.prefixes import Judgement, OutsidePrefix, PrefixEvidence, prefix_text
from snaptool.kube.undecodable import (
    ANY_TYPE,
    ExpectedType,
    Fault,
    expected_type,
    fault,
    is_object_of,
    may_be_ciphertext,
    shows_right_key,
)

__all__ = [
    "ANY_TYPE",
    "COMPACT_REVISION_KEY",
    "DEFAULT_PREFIXES",
    "MAX_RESOURCE_SEGMENTS",
    "PROTOBUF_MAGIC",
    "RESOURCE_TYPES",
    "Encoding",
    "Envelopes",
    "ExpectedType",
    "Fault",
    "Judgement",
    "Misnamed",
    "NameFault",
    "NotAnObject",
    "ObjectHeader",
    "OutsidePrefix",
    "PrefixEvidence",
    "ResourceKey",
    "ResourceType",
    "UnknownType",
    "canonical_name",
    "consequence",
    "covers",
    "decode_envelope",
    "describe",
    "expected_type",
    "fault",
    "is_object_of",
    "is_plural_of",
    "key_prefixes",
    "may_be_ciphertext",
    "misnamed",
    "normal_prefix",
    "parse_key",
    "plausible",
    "prefix_text",
    "resolve_type",
    "resource_segments",
    "shows_right_key",
    "unmatched",
    "usual_type",
]
