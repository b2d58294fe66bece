"""From a file to the snapshot in it: layer by layer, by content, into a private file without a name.

A database says how long it is; what would unpack to much more is stopped there, so that a bomb costs 32 MiB whatever
it claims. Every layer is read to its own end, checksum included, also when the snapshot is complete by then. Source:
docs/formats/containers.md, "Recognising a file" and "Bounds".
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from snaptool import signals
from snaptool.containers import archive
from snaptool.containers.archive import Candidate, Handle, Member
from snaptool.containers.faults import ContainerFault, ContainerRefused, inside, snapshot_short, too_big
from snaptool.containers.platforms import platform_of
from snaptool.containers.readers import PIECE, BytesReader, Counted, FileReader, Peekable, Reader, Section
from snaptool.containers.recognise import (
    HEAD,
    OMNI_LAYER,
    PACKED,
    STREAMS,
    Kind,
    extent,
    recognise,
    refuse_unreadable,
    unknown,
)
from snaptool.containers.spool import Spool, folder_for

if TYPE_CHECKING:  # what reads each kind is imported where one is met: most snapshots are in no archive
    from snaptool.containers.age import OmniSecrets
    from snaptool.containers.directories import Located
    from snaptool.containers.tars import TarWalk
    from snaptool.containers.zips import ZipEntry, ZipFileReader

DEEPEST = 3
SLACK = 32 << 20
"""How much longer than its pages a database file may be: bbolt grows live files by up to 16 MiB."""
_TRAILER = 32
_TAIL = 22 + 0xFFFF
"""How far from its end a zip may have its directory's end: 22 bytes, and a comment of 64 KiB."""
_MOST_MEMBERS = 10_000
_MOST_NAMES = 100_000
_AFTER_A_SIGN = 1_000
LARGEST_MEMBER = 1 << 20
KINE = Kind.KINE.value
"""The last of the layers of what is no snapshot of etcd, and is read as one."""
_WRAPPED = PACKED | {Kind.KINE}

Opens = Callable[[], Peekable]
"""Opens a layer from its start, as often as it is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacking:
    """How to take a snapshot out of what is around it.

    `entry`: the one to take where several fit; `max_unpacked`: bytes, where nothing says how large the snapshot is;
    `omni_key`: 32 bytes; `broken`: what can be unpacked is taken, whatever its state; `near`: the target's directory,
    for temporary files where TMPDIR is not set; `kine`: a database of Kine is taken too, whose last layer is `KINE`.
    """

    entry: str | None = None
    max_unpacked: int = 64 << 30
    omni_key: bytes | None = field(default=None, repr=False)
    broken: bool = False
    near: Path | None = None
    kine: bool = False


DEFAULT = Unpacking()


@dataclass(slots=True, kw_only=True)
class Unwrapped:
    """A snapshot that was taken out of its container.

    `spool` has its bytes, or they stand in the file as they are: in `section` of it, or as all of it. `layers` from
    outside in: `gzip`, `zip:NAME`, `tar:NAME`, `age:nacl_v1`. `members`: what else lies in the innermost archive.
    `place`: the layers for messages. `reopen` opens the innermost archive, where that is a tar; `zip_reader` is it,
    where that is a zip.
    """

    spool: Spool | None
    section: Section | None = None
    size: int = 0
    layers: tuple[str, ...] = ()
    platform: str | None = None
    members: tuple[Member, ...] = ()
    notices: tuple[str, ...] = ()
    place: str = ""
    omni: OmniSecrets | None = None
    member_opener: Callable[[str], Peekable | None] | None = field(default=None, repr=False)
    reopen: Opens = field(default=lambda: Peekable(BytesReader(b"")), repr=False)
    zip_reader: ZipFileReader | None = field(default=None, repr=False)
    keeps: list[Spool] = field(default_factory=list, repr=False)

    def read_member(self, name: str, limit: int = LARGEST_MEMBER) -> bytes:
        """Return the content of a member, by its name in `members`: `limit` bytes at most.

        Raises ContainerFault container_no_snapshot when there is none of that name, container_too_big, and the faults
        of its content.
        """
        content = self.member_opener(name) if self.member_opener is not None else None
        if content is None:
            raise ContainerFault(f"{self.place} has no file {name!r}", code="container_no_member")
        parts, size = [], 0
        while data := content.read(PIECE):
            parts.append(data)
            size += len(data)
            if size > limit:
                raise too_big(inside(self.place, name), size, limit, by_meta=False)
        return b"".join(parts)

    def close(self) -> None:
        """Let the unpacked files go."""
        for spool in self.keeps:
            spool.close()


def unwrap(descriptor: int, name: str, how: Unpacking = DEFAULT) -> Unwrapped:
    """Take the snapshot out of the open file `descriptor`, which messages call `name`.

    The descriptor is read past its position and has to stay open as long as members are read. Raises ContainerFault,
    ContainerRefused, NoRoom, OutputError.
    """
    opener = _Opener(how)
    try:
        made = opener.unwrap(lambda: Peekable(FileReader(descriptor)), name, (), name, descriptor)
    except BaseException:
        opener.close()
        raise
    made.keeps, made.notices = opener.spools, made.notices + opener.notices
    kept = made.spool or made.section
    made.size = kept.size if kept is not None else os.fstat(descriptor).st_size
    made.platform = platform_of(name.rsplit("/", 1)[-1], made.layers, made.members)
    return made


def receive(stream: Reader, how: Unpacking = DEFAULT) -> Spool:
    """Copy what a pipe gives into a private file, in the bounds of what it is.

    Raises as `unwrap`.
    """
    opener, source = _Opener(how), Peekable(stream)
    bolt = recognise(source.peek(HEAD)) is Kind.BOLT
    try:
        spool = opener.copy(source, "stdin", -1) if bolt else opener.whole(source, -1)
    except BaseException:
        opener.close()
        raise
    return spool


def in_directory(made: Unwrapped, directory: Path | None, located: Located | None) -> Unwrapped | None:
    """Say what is around the snapshot: None where the file that was named is the snapshot itself."""
    if located is not None and directory is not None:
        made.layers = (f"directory:{located.file}", *made.layers)
        made.members = located.members
        made.platform = located.platform or made.platform
        names = {member.name for member in located.members}

        def opener(name: str) -> Peekable | None:
            return Peekable(_NamedFile(directory / name)) if name in names else None

        made.member_opener = opener
    return made if made.layers else None


class _NamedFile:
    """A file that is opened when it is read, and closed at its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def read(self, size: int) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read(size)
        except OSError as error:
            raise ContainerRefused(
                f"cannot read {self._path}: {error.strerror}", hint="check its permissions", code="container_directory"
            ) from error
        self._at += len(data)
        return data


class _Found(Generic[Handle]):
    """What a walk through an archive has found so far, and which entry is the snapshot by that."""

    def __init__(self, place: str, entry: str | None) -> None:
        self.members: list[Member] = []
        self.others = 0
        self.undecided = False
        self._place = place
        self._entry = entry
        self._names: Counter[str] = Counter()
        self._candidates: list[Candidate[Handle]] = []
        self._held: Candidate[Handle] | None = None
        self._sign: str | None = None
        self._since_sign = 0
        self._faults: dict[str, Exception] = {}

    def add(self, one: Candidate[Handle], head: bytes) -> bool:
        """Take note of a file; say whether it is the snapshot as far as can be seen by now."""
        if len(self._names) < _MOST_NAMES or one.name in self._names:
            self._names[one.name] += 1
        if len(self.members) < _MOST_MEMBERS:
            self.members.append(Member(one.name, one.size, archive.role_of(one.name)))
        bolt = one.kind is Kind.BOLT
        if bolt or (one.kind in _WRAPPED and len(self._candidates) < _MOST_MEMBERS):
            self._candidates.append(one)
        elif not bolt:
            self._look_for_sign(one.name, head)
        if not bolt:
            return False
        wanted = one.name == self._entry and self._held is None
        takes = self._takes_over(one) if self._entry is None else wanted
        if takes:
            self._held = one
        return takes

    def _takes_over(self, one: Candidate[Handle]) -> bool:
        first = self._held is None and not self.undecided
        preferred = archive.is_preferred(one.name)
        if first or (preferred and (self._held is None or not archive.is_preferred(self._held.name))):
            self.undecided = False
            return True
        if self._held is None or archive.is_preferred(self._held.name) == preferred:
            self._held, self.undecided = None, True
        return False

    def _look_for_sign(self, name: str, head: bytes) -> None:
        self._sign = self._sign or archive.sign_of(name) or archive.sign_in(head)
        if self._sign is not None:
            self._since_sign += 1
            if self._since_sign > _AFTER_A_SIGN and not self._candidates:
                raise archive.not_etcd(self._place, self._sign)

    def note_fault(self, name: str, fault: Exception) -> None:
        """Take note of an entry that cannot be read."""
        self._faults.setdefault(name, fault)

    def chosen(self) -> Candidate[Handle]:
        """Return the snapshot. Raises Ambiguous, not_etcd, no snapshot, and the faults of what cannot be read."""
        chosen = archive.choose(self._candidates, self._names, self._place, self._entry)
        if chosen is not None:
            return chosen
        names = [member.name for member in self.members]
        if self._entry is not None:
            raise self._faults.get(self._entry) or archive.no_such_entry(self._place, self._entry, names)
        for fault in self._faults.values():
            raise fault
        if self._sign is not None:
            raise archive.not_etcd(self._place, self._sign)
        raise archive.no_snapshot(self._place, names, self.others)


class _Opener:
    def __init__(self, how: Unpacking) -> None:
        self._how = how
        self.spools: list[Spool] = []
        self._omni: OmniSecrets | None = None
        self.notices: tuple[str, ...] = ()

    def close(self) -> None:
        for spool in self.spools:
            spool.close()

    def _new_spool(self, need: int) -> Spool:
        spool = Spool(folder_for(self._how.near), need)
        self.spools.append(spool)
        return spool

    def unwrap(
        self,
        opens: Opens,
        name: str,
        layers: tuple[str, ...],
        place: str,
        descriptor: int | None,
        size: int = -1,
        section: Section | None = None,
    ) -> Unwrapped:
        """Unwrap one layer. `descriptor`: where it is a file of its own; `size` in bytes where an archive states it.

        `section`: where the layer stands in the file as it is.
        """
        source = opens()
        head = source.peek(HEAD)
        kind = recognise(head, name, _tail(descriptor))
        if kind is Kind.UNKNOWN and self._how.broken and (head or not layers):
            kind = Kind.BOLT
        if kind is Kind.UNKNOWN and source.fault is not None:
            raise source.fault
        if not head:
            raise ContainerFault(
                f"{place} is empty", hint="the copy or download failed; repeat it", code="container_empty"
            )
        if kind is Kind.BOLT:
            if not layers:
                self._check_whole(extent(head), os.fstat(descriptor).st_size if descriptor is not None else 0, place)
                return Unwrapped(spool=None, place=place)
            return self._made(self._kept(source, place, size, section), layers=layers, place=place)
        if kind is Kind.KINE and self._how.kine:
            kept = self._kept(source, place, size, section) if layers else None
            return self._made(kept, layers=(*layers, KINE), place=place)
        self._refuse(kind, head, name, place)
        if len(layers) == DEEPEST:
            raise ContainerFault(
                f"{place}: there is one more layer ({kind}) inside, and {DEEPEST} at most are opened",
                hint="unpack the outer ones with your own tool first",
                code="container_too_deep",
            )
        if kind in STREAMS:
            return self._stream(kind, opens, name, layers, place)
        if kind is Kind.AGE:
            return self._age(opens, name, layers, place)
        if kind is Kind.TAR:
            return self._tar(opens, layers, place, in_file=descriptor is not None)
        return self._zip(opens, layers, place, descriptor, size)

    def _refuse(self, kind: Kind, head: bytes, name: str, place: str) -> None:
        refuse_unreadable(kind, head, place)
        if kind in {Kind.SQLITE, Kind.KINE}:
            raise archive.not_etcd(place, kind.value)
        if kind is Kind.UNKNOWN:
            from snaptool.containers.gardener import EVENTS, only_deltas, parse_name  # noqa: PLC0415 - see above

            if head.startswith(EVENTS) or ((one := parse_name(name)) is not None and not one.full):
                raise only_deltas(place)
            raise unknown(head, place)

    def _made(self, kept: Spool | Section | None, *, layers: tuple[str, ...], place: str) -> Unwrapped:
        spool, section = (None, kept) if isinstance(kept, Section) else (kept, None)
        return Unwrapped(spool=spool, section=section, layers=layers, place=place, omni=self._omni)

    def _kept(self, source: Peekable, place: str, declared: int, section: Section | None) -> Spool | Section:
        """Copy a database, unless it stands in the file as it is: then it is only read, to its end and checksum."""
        if section is None:
            return self.copy(source, place, declared)
        return Section(section.begin, self._read(source, place, declared, lambda _: signals.look()))

    def copy(self, source: Peekable, place: str, declared: int) -> Spool:
        """Copy a database into a private file, up to what its metas say."""
        needed, bound = self._bound(source, place, declared)
        room = declared if declared >= 0 else bound
        spool = self._new_spool(0 if needed is None and declared < 0 else room)
        self._read(source, place, declared, spool.write)
        return spool

    def _bound(self, source: Peekable, place: str, declared: int) -> tuple[int | None, int]:
        """Return how many bytes the database says that it has, and how many are taken at most."""
        needed = extent(source.peek(HEAD))
        bound = self._how.max_unpacked if needed is None else needed + _TRAILER + SLACK
        if declared > bound:
            raise too_big(place, declared, bound, by_meta=needed is not None)
        return needed, bound

    def _read(self, source: Peekable, place: str, declared: int, take: Callable[[bytes], None]) -> int:
        """Give a database piece by piece to `take`, and return how many bytes it had."""
        needed, bound = self._bound(source, place, declared)
        size = 0
        try:
            while data := source.read(PIECE):
                if size + len(data) > bound:
                    raise too_big(place, size + len(data), bound, by_meta=needed is not None)
                take(data)
                size += len(data)
        except ContainerFault as fault:
            self._go_on(fault, size)
        self._check_whole(needed, size, place)
        return size

    def _go_on(self, fault: ContainerFault, size: int) -> None:
        """Keep what was unpacked before a fault, where the caller takes what there is; else raise it."""
        if not self._how.broken or not size or fault.code == "container_too_big":
            raise fault
        notice = f"{fault}; going on with the {size:,} bytes that were unpacked"
        if notice not in self.notices:  # of a tar the entry is cut, and the archive around it
            self.notices += (notice,)

    def _check_whole(self, needed: int | None, size: int, place: str) -> None:
        if needed is not None and size < needed and not self._how.broken:
            raise snapshot_short(place, size, needed)

    def _stream(self, kind: Kind, opens: Opens, name: str, layers: tuple[str, ...], place: str) -> Unwrapped:
        from snaptool.containers.streams import open_stream  # noqa: PLC0415 - see above

        def inner() -> Peekable:
            return Peekable(Counted(open_stream(kind, opens(), f"{place} ({kind})"), self._how.max_unpacked, place))

        return self.unwrap(inner, _without_suffix(name), (*layers, kind.value), place, None)

    def _age(self, opens: Opens, name: str, layers: tuple[str, ...], place: str) -> Unwrapped:
        from snaptool.containers.age import AgeReader  # noqa: PLC0415 - see above

        def inner() -> Peekable:
            reader = AgeReader(opens(), place, self._how.omni_key)
            self._omni = reader.secrets
            return Peekable(reader)

        return self.unwrap(inner, name, (*layers, OMNI_LAYER), place, None)

    # --- tar ---

    def _tar(self, opens: Opens, layers: tuple[str, ...], place: str, *, in_file: bool) -> Unwrapped:
        found = _Found[int](place, self._how.entry)
        held: Spool | Section | None = None
        try:
            for number, entry in enumerate(_tar_walk(opens(), place)):
                if not entry.is_file:
                    found.others += 1
                    continue
                head = entry.content.peek(HEAD)
                kind = recognise(head, entry.name)
                if found.add(Candidate(entry.name, entry.size, kind, number), head):
                    _let_go(held)
                    section = entry.section if in_file else None
                    held = self._kept(entry.content, inside(place, entry.name), entry.size, section)
                elif found.undecided:
                    _let_go(held)
                    held = None
        except ContainerFault as fault:
            self._go_on(fault, held.size if held is not None else 0)
        chosen = found.chosen()
        within = inside(place, chosen.name)
        layers = (*layers, f"tar:{chosen.name}")
        if chosen.kind is Kind.BOLT:
            assert held is not None
            made = self._made(held, layers=layers, place=within)
        else:
            made = self.unwrap(
                lambda: _tar_entry(opens, place, chosen.handle), chosen.name, layers, within, None, chosen.size
            )
        if not made.members:
            made.reopen = opens
        return self._with_members(made, found, chosen, lambda name: _tar_member(opens, place, name))

    # --- zip ---

    def _zip(self, opens: Opens, layers: tuple[str, ...], place: str, descriptor: int | None, size: int) -> Unwrapped:
        from snaptool.containers.zips import ZipFileReader  # noqa: PLC0415 - see above

        in_file = descriptor is not None
        if descriptor is None:
            descriptor = self.whole(opens(), size).descriptor
        zipped = ZipFileReader(descriptor, place)
        found: _Found[ZipEntry] = _Found(place, self._how.entry)
        for entry in zipped.entries:
            if not entry.is_file:
                found.others += 1
                continue
            refusal = zipped.refusal(entry)
            if refusal is not None:
                found.note_fault(entry.name, refusal)
                continue
            content = zipped.open(entry)
            head = content.peek(HEAD)
            kind = recognise(head, entry.name)
            if kind is Kind.UNKNOWN and content.fault is not None:
                found.note_fault(entry.name, content.fault)
            found.add(Candidate(entry.name, entry.size, kind, entry), head)
        chosen = found.chosen()
        made = self.unwrap(
            lambda: zipped.open(chosen.handle),
            chosen.name,
            (*layers, f"zip:{chosen.name}"),
            inside(place, chosen.name),
            None,
            chosen.size,
            zipped.section(chosen.handle) if in_file else None,
        )
        if not made.members:
            made.zip_reader = zipped
        return self._with_members(made, found, chosen, lambda name: _zip_member(zipped, name))

    def whole(self, source: Peekable, declared: int) -> Spool:
        """Copy an archive that is read from its end."""
        spool = self._new_spool(max(declared, 0))
        while data := source.read(PIECE):
            spool.write(data)
        return spool

    def _with_members(
        self,
        made: Unwrapped,
        found: _Found[ZipEntry] | _Found[int],
        chosen: Candidate[ZipEntry] | Candidate[int],
        opener: Callable[[str], Peekable | None],
    ) -> Unwrapped:
        if made.members:
            return made  # the innermost archive is the one whose members are of interest
        made.members = tuple(
            Member(one.name, one.size, "snapshot" if one.name == chosen.name else one.role) for one in found.members
        )
        made.member_opener = opener
        wals = [one for one in made.members if one.role == "wal"]
        if wals and chosen.name.endswith("member/snap/db"):
            made.notices += (
                "the WAL that lies beside this db may hold newer writes than the db, which is all that is read",
            )
        return made


def _let_go(held: Spool | Section | None) -> None:
    if isinstance(held, Spool):
        held.close()


def _tail(descriptor: int | None) -> bytes:
    if descriptor is None:
        return b""
    return os.pread(descriptor, _TAIL, max(0, os.fstat(descriptor).st_size - _TAIL))


def _without_suffix(name: str) -> str:
    base, dot, suffix = name.rpartition(".")
    return base if dot and suffix.lower() in {"gz", "zst", "xz", "bz2", "zlib", "z", "lzma"} else name


def _tar_walk(reader: Peekable, place: str) -> TarWalk:
    from snaptool.containers.tars import TarWalk  # noqa: PLC0415 - see above

    return TarWalk(reader, place)


def _tar_entry(opens: Opens, place: str, number: int) -> Peekable:
    return next(entry.content for at, entry in enumerate(_tar_walk(opens(), place)) if at == number)


def _tar_member(opens: Opens, place: str, name: str) -> Peekable | None:
    return next((one.content for one in _tar_walk(opens(), place) if one.is_file and one.name == name), None)


def _zip_member(zipped: ZipFileReader, name: str) -> Peekable | None:
    return next((zipped.open(one) for one in zipped.entries if one.is_file and one.name == name), None)
