"""What platforms put around a snapshot, and how it is taken out: by content, in bounds, into a file without a name."""

from snaptool.containers.age import OmniSecrets, read_omni_key
from snaptool.containers.archive import Member
from snaptool.containers.directories import Located, find_in_directory
from snaptool.containers.faults import Ambiguous, ContainerFault, ContainerRefused, NoRoom
from snaptool.containers.gardener import ChainFile, read_delta
from snaptool.containers.spool import Spool, folder_for
from snaptool.containers.unwrap import DEFAULT, Unpacking, Unwrapped, in_directory, receive, unwrap

__all__ = [
    "DEFAULT",
    "Ambiguous",
    "ChainFile",
    "ContainerFault",
    "ContainerRefused",
    "Located",
    "Member",
    "NoRoom",
    "OmniSecrets",
    "Spool",
    "Unpacking",
    "Unwrapped",
    "find_in_directory",
    "folder_for",
    "in_directory",
    "read_delta",
    "read_omni_key",
    "receive",
    "unwrap",
]
