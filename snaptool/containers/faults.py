"""What can be wrong with a file that should hold a snapshot.

Source of the codes: docs/formats/containers.md, "Error codes".
"""

from __future__ import annotations

from collections.abc import Sequence

from snaptool.errors import FormatError, InputError, OutputError
from snaptool.text import counted


def inside(place: str, name: str) -> str:
    """Name what lies in a layer: the archive, an arrow, the entry."""
    return f"{place} \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK} {name}"


COPY_AGAIN = "copy or download the file again; a checksum of the store that it is from shows which copy is whole"
"""What helps against a transport that cut or altered a file."""


class ContainerFault(FormatError):
    """The bytes around a snapshot are not what they should be. `code` says what is wrong."""

    code = "container_corrupt"


class ContainerRefused(InputError):
    """The file may be whole, and something is missing to open it. `code` says what."""

    code = "container_method"


class Ambiguous(ContainerRefused):
    """Several entries could be the snapshot. `candidates`: name and size in bytes of each, in the archive's order.

    `where`: what holds them; `facts`: what else is known of each.
    """

    code = "container_ambiguous"

    def __init__(self, place: str, candidates: Sequence[tuple[str, int]], *, facts: Sequence[str] = ()) -> None:
        names = [name for name, _ in candidates]
        described = [f"{name} ({size:,} bytes)" for name, size in candidates]
        if facts:
            described = [f"{text[:-1]}, {fact})" for text, fact in zip(described, facts, strict=True)]
        hint = "choose with --entry NAME"
        if len(set(names)) < len(names):
            hint = (
                "programs differ in which one they take: unpack it with your own tool, and name the file that you mean"
            )
        shown = "; ".join(described[:20]) + (f"; and {len(names) - 20} more" if len(names) > 20 else "")
        super().__init__(f"{place} holds several snapshots: {shown}", hint=hint)
        self.where = place
        self.candidates = tuple(candidates)


class NoRoom(OutputError):
    """The directory for temporary files is too small for what has to be unpacked."""

    code = "container_no_space"

    def __init__(self, folder: str, need: int, have: int) -> None:
        super().__init__(
            f"no room to unpack in {folder}: {need:,} bytes are needed, {have:,} are free",
            hint="free space there, or name a larger directory with TMPDIR",
        )


def truncated(place: str, offset: int) -> ContainerFault:
    """Say that a layer ends too early. `offset`: bytes of it that are there."""
    return ContainerFault(
        f"{place} is cut: it ends after {counted(offset, 'byte')}", hint=COPY_AGAIN, code="container_truncated"
    )


def corrupt(place: str, offset: int, problem: str) -> ContainerFault:
    """Say that a layer breaks its format near `offset` of it."""
    return ContainerFault(
        f"{place} is damaged near byte {offset:,}: {problem}", hint=COPY_AGAIN, code="container_corrupt"
    )


def trailing(place: str, offset: int) -> ContainerFault:
    """Say that something else follows a layer's end."""
    return ContainerFault(
        f"{place} has other bytes behind its end, at byte {offset:,}",
        hint="two files may have been joined, or a transfer added to it; " + COPY_AGAIN,
        code="container_trailing_data",
    )


def too_big(place: str, seen: int, bound: int, *, by_meta: bool) -> ContainerFault:
    """Say that more came out than a snapshot can have. `by_meta`: the bound is what the database says of itself."""
    if by_meta:
        why, hint = (
            "the database in it says that it is smaller",
            "it is not a snapshot that etcd wrote; take another copy",
        )
    else:
        why, hint = "nothing in it says how large it is", "if it is right, allow more with --max-unpacked SIZE"
    return ContainerFault(
        f"{place} unpacks to more than {bound:,} bytes ({seen:,} seen), and {why}", hint=hint, code="container_too_big"
    )


def method(place: str, problem: str, hint: str) -> ContainerRefused:
    """Say that a way of packing is not read here."""
    return ContainerRefused(f"{place}: {problem}", hint=hint, code="container_method")


def encrypted(place: str, what: str, hint: str) -> ContainerRefused:
    """Say that a file is encrypted by another program."""
    return ContainerRefused(f"{place} is {what}", hint=hint, code="container_encrypted")


def snapshot_short(place: str, has: int, needs: int) -> ContainerFault:
    """Say that a database ends before its last page."""
    unfinished = "it looks like an unfinished `etcdctl snapshot save`; " if place.endswith(".part") else ""
    return ContainerFault(
        f"{place}: the database is cut: it needs {needs:,} bytes, {has:,} bytes are there",
        hint=f"{unfinished}take the snapshot or copy again; collect what is left with `snaptool repair --salvage`",
        code="snapshot_short",
    )
