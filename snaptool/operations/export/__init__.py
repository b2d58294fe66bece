"""Objects of a snapshot as manifests that a cluster takes: `snaptool export`.

Theory of operation. One pass over the records finds the live ones of the namespaces that are asked for, and those of
the whole cluster. Two passes over these decide: facts first, then objects, then what is related to them (`choosing`).
Only when everything opened, and nothing else speaks against it, is the first byte written, in the order in which
objects have to be applied (`writing`); each is opened and decoded once more for that, so that memory does not grow with
the number of objects. The rules themselves are `kube.export`'s; this package knows the snapshot and the files.

Source: docs/export.md.
"""

from snaptool.operations.export.absent import NothingToExport
from snaptool.operations.export.job import Exported, Output, SecretsOnTerminal, ValuesLost, export
from snaptool.operations.export.request import (
    Cluster,
    ExportRequest,
    Format,
    Lost,
    Named,
    Secrets,
    Volumes,
    parse_types,
)
from snaptool.operations.export.rows import LostValue

__all__ = [
    "Cluster",
    "ExportRequest",
    "Exported",
    "Format",
    "Lost",
    "LostValue",
    "Named",
    "NothingToExport",
    "Output",
    "Secrets",
    "SecretsOnTerminal",
    "ValuesLost",
    "Volumes",
    "export",
    "parse_types",
]
