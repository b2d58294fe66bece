"""Where snapshots are kept: files, and what a URL names. Read by version, created whole or not at all.

A store has four operations: look, read a range of one version, create under a condition, say whether two places are
one. What is read from one goes into a private file without a name; what is written to one was verified before the
first byte leaves. Source: docs/clouds.md.
"""

from snaptool.stores.location import BadUrl, BlobAt, FileAt, LinkAt, Location, ObjectAt, RemotePath, parse_url, place_of
from snaptool.stores.publish import StoreDraft, check_target
from snaptool.stores.reading import fetch
from snaptool.stores.store import ExtraMissing, StoreUnreachable, UploadDiffers

__all__ = [
    "BadUrl",
    "BlobAt",
    "ExtraMissing",
    "FileAt",
    "LinkAt",
    "Location",
    "ObjectAt",
    "RemotePath",
    "StoreDraft",
    "StoreUnreachable",
    "UploadDiffers",
    "check_target",
    "fetch",
    "parse_url",
    "place_of",
]
