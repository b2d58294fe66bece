"""Where snapshots are kept: files, and what a URL names. Read by version, created whole or not at all.

A store has four operations: look, read a range of one version, create under a condition, say whether two places are
one. What is read from one goes into a private file without a name; what is written to one was verified before the
first byte leaves. Source: docs/clouds.md.
"""

from snaptool.stores.listing import Entry, entries_below, entry_at, is_object, may_be_listed
from snaptool.stores.location import BadUrl, BlobAt, FileAt, LinkAt, Location, ObjectAt, RemotePath, parse_url, place_of
from snaptool.stores.publish import StoreDraft, check_target
from snaptool.stores.reading import fetch, read_part, read_small
from snaptool.stores.store import ExtraMissing, Seen, StoreUnreachable, UploadDiffers, open_store

__all__ = [
    "BadUrl",
    "BlobAt",
    "Entry",
    "ExtraMissing",
    "FileAt",
    "LinkAt",
    "Location",
    "ObjectAt",
    "RemotePath",
    "Seen",
    "StoreDraft",
    "StoreUnreachable",
    "UploadDiffers",
    "check_target",
    "entries_below",
    "entry_at",
    "fetch",
    "is_object",
    "may_be_listed",
    "open_store",
    "parse_url",
    "place_of",
    "read_part",
    "read_small",
]
