"""What platforms put around a snapshot, and how it is taken out: by content, in bounds, into a file without a name."""

from snaptool.containers.age import OmniSecrets, read_omni_key
from snaptool.containers.archive import Member, not_etcd
from snaptool.containers.directories import Located, find_in_directory, is_kubespray
from snaptool.containers.faults import Ambiguous, ContainerFault, ContainerRefused, NoRoom
from snaptool.containers.gardener import ChainFile, read_delta
from snaptool.containers.spool import Spool, folder_for
from snaptool.containers.sqlite import Row, SqliteFile
from snaptool.containers.unwrap import DEFAULT, KINE, Unpacking, Unwrapped, in_directory, receive, unwrap
from snaptool.containers.wrap import CHOICES, PLAIN, Wrapping, choose_wrapping, folder_files, read_back, write_wrapped

__all__ = [
    "CHOICES",
    "DEFAULT",
    "KINE",
    "PLAIN",
    "Ambiguous",
    "ChainFile",
    "ContainerFault",
    "ContainerRefused",
    "Located",
    "Member",
    "NoRoom",
    "OmniSecrets",
    "Row",
    "Spool",
    "SqliteFile",
    "Unpacking",
    "Unwrapped",
    "Wrapping",
    "choose_wrapping",
    "find_in_directory",
    "folder_files",
    "folder_for",
    "in_directory",
    "is_kubespray",
    "not_etcd",
    "read_back",
    "read_delta",
    "read_omni_key",
    "receive",
    "unwrap",
    "write_wrapped",
]
