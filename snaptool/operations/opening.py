"""From a path or a URL to a snapshot: a snapshot file, a bare db, or an etcd data directory, and what to warn about."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, TextIO

from snaptool import signals
from snaptool.arguments import wrong_type
from snaptool.compiled import LARGE, WHY_NOT, is_compiled
from snaptool.containers.archive import not_etcd
from snaptool.containers.faults import Ambiguous, ContainerFault
from snaptool.containers.readers import Reader
from snaptool.containers.spool import Spool, folder_for
from snaptool.containers.unwrap import DEFAULT, KINE, Unpacking, Unwrapped, in_directory, receive, unwrap
from snaptool.errors import FormatError, InputError, SnaptoolError
from snaptool.etcd import DIGEST_SIZE, Snapshot, Trailer, describe_bad_trailer, judge_trailer
from snaptool.inputs import Inputs, remember
from snaptool.sources import Source
from snaptool.stores import is_remote
from snaptool.text import counted

if TYPE_CHECKING:
    from snaptool.containers.directories import Located
    from snaptool.embedded.places import PlaceFinder
    from snaptool.operations.definitions import DefinitionFinder
    from snaptool.operations.prefixes import PrefixFacts
    from snaptool.operations.scout import Scout
    from snaptool.stores.location import RemotePath

STDIN = Path("-")
_MOST_LOOKED_INTO = 8
_MOST_UNPACKED = 1 << 30
_LARGEST_LOG = 256 << 20


class WrongTrailer(FormatError):
    """The SHA-256 behind the database is not the one of its bytes."""


class NoKeyUnderPrefix(InputError):
    """A prefix was given under which no key of the snapshot lies."""

    def __init__(self, path: Path, facts: PrefixFacts) -> None:
        from snaptool.kube.prefixes import prefix_text  # noqa: PLC0415 - seldom needed

        given = ", ".join(map(prefix_text, facts.empty))
        found = ", ".join(map(prefix_text, facts.found))
        hint = f"the prefixes found in it: {found}" if found else "none was found in it either"
        super().__init__(f"{path}: no key lies under --etcd-prefix {given}", hint=hint)
        self.prefixes = facts.empty
        self.found = facts.found


class CutTrailer(WrongTrailer):
    """Bytes stand behind the last page of the database that are not its SHA-256."""


def wrong_trailer(path: Path, trailer: Trailer, problem: str) -> WrongTrailer:
    """Make the error that says that what stands behind the database is not as it was made."""
    kind = CutTrailer if trailer is Trailer.CUT else WrongTrailer
    return kind(
        f"{path}: {problem}",
        hint="compare it with another copy; look at it with `snaptool verify`, or use --skip-hash-check to go on",
        place=str(path),
    )


def copied_unproven(problem: str) -> tuple[str, ...]:
    """Say, in lines, what a copy is worth whose source has such a trailer."""
    return (
        f"of the source, {problem}: its records were copied as they are, and the",
        "  SHA-256 of the new file says nothing about whether they are the ones that were saved",
    )


@dataclass(frozen=True, slots=True)
class OpenedSnapshot:
    """A source and the snapshot parsed from it. `notices` are sentences for the user about how it was found.

    `data_directory`: the etcd data directory that it was found in, if that has a WAL, which may hold newer writes than
    `snapshot`; `operations.boot.replayed` brings them in. `stated_path`: what reports call it, if not by its path.
    `given_prefixes`: the API servers' `--etcd-prefix` as the user said it; none: they are found.
    `container`: what was around it, None where the file itself is the snapshot.
    """

    source: Source
    snapshot: Snapshot
    notices: tuple[str, ...] = ()
    data_directory: Path | None = None
    stated_path: Path | None = None
    container: Unwrapped | None = None
    given_prefixes: tuple[str, ...] = ()
    _scouts: list[Scout] = field(default_factory=list, init=False, repr=False, compare=False)
    _facts: list[PrefixFacts] = field(default_factory=list, init=False, repr=False, compare=False)

    def new_scout(self) -> Scout:
        """Return a scout for a pass that is to see all records anyway; it goes to `found_by` in the end."""
        from snaptool.kube.keys import normal_prefix  # noqa: PLC0415 - while the file is hashed already
        from snaptool.operations.scout import Scout  # noqa: PLC0415 - the same

        return Scout(self.snapshot, tuple(dict.fromkeys(map(normal_prefix, self.given_prefixes))))

    def found_by(self, scout: Scout) -> None:
        """Take what a scout saw that has seen all records."""
        self._scouts[:], self._facts[:] = [scout], [scout.prefixes.facts()]

    def _scouted(self) -> Scout:
        """Return what the keys say: found by one pass over them, the first time it is asked."""
        if not self._scouts:
            scout = self.new_scout()
            from snaptool.operations.scout import Cut  # noqa: PLC0415 - as above

            cut = Cut(self.snapshot, scout.likely())
            for records in self.snapshot.chunks(lambda _: None):
                self.between_chunks(records)
                scout.add(records, *cut.add(records))
            self.found_by(scout)
        return self._scouts[0]

    @property
    def is_scouted(self) -> bool:
        """Is it known already what the keys say?"""
        return bool(self._scouts)

    @property
    def prefix_facts(self) -> PrefixFacts:
        """What the keys say of the API servers' prefixes."""
        self._scouted()
        return self._facts[0]

    @property
    def places(self) -> PlaceFinder:
        """The records that may carry a configuration."""
        return self._scouted().places

    @property
    def definitions(self) -> DefinitionFinder:
        """The CustomResourceDefinitions under the usual prefix."""
        return self._scouted().definitions

    @property
    def has_bootstrap(self) -> bool:
        """Are there keys under `/bootstrap/`, as k3s and RKE2 have?"""
        from snaptool.embedded.places import BOOTSTRAP  # noqa: PLC0415 - as above

        return any(key.startswith(BOOTSTRAP) for key in self.places.live())

    @property
    def platforms(self) -> tuple[str, ...]:
        """Which platforms the snapshot shows signs of: found by the same pass."""
        return self._scouted().platforms.platforms(self.container, bootstrap=self.has_bootstrap)

    @property
    def is_kine(self) -> bool:
        """Is it a database of Kine, which is read as a snapshot and never restored?"""
        return self.container is not None and self.container.layers[-1:] == (KINE,)

    @property
    def not_etcd(self) -> ContainerFault | None:
        """What is said, as not_etcd:kine, where a snapshot of etcd is needed; None for one."""
        return not_etcd(self.container.place, KINE) if self.container is not None and self.is_kine else None

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Under which prefixes keys are Kubernetes': those given, else those found. Raises NoKeyUnderPrefix."""
        if self.prefix_facts.empty:
            raise NoKeyUnderPrefix(self.source.path, self.prefix_facts)
        return self.prefix_facts.taken

    @property
    def path(self) -> Path:
        """What reports call the source."""
        return self.stated_path or self.source.path

    @property
    def database_bytes(self) -> memoryview:
        """The file without its trailer."""
        return memoryview(self.source.buffer)[: self.snapshot.database.size]

    def between_chunks(self, _chunk: object) -> None:
        """Between chunks: notice a source that changes under our hands, and let memory go."""
        self.source.check_unchanged()
        self.source.release_memory()

    @contextmanager
    def digests(self) -> Iterator[Digests]:
        """Compute the SHA-256 of the file in a thread of its own, beside the work of the block."""
        digests = Digests(self)
        try:
            yield digests
        finally:
            digests.stop()

    @property
    def may_have_trailer(self) -> bool:
        """Is the file longer than its pages in use? Then what is behind them is worth a look."""
        return self.source.size > self.snapshot.database.high_water_mark * self.snapshot.database.page_size

    def require_right_trailer(self) -> None:
        """Read the file once to refuse a wrong trailer; a missing one is normal. Raises WrongTrailer."""
        if self.may_have_trailer:
            with self.digests() as digests:
                digests.require_right_trailer()

    def close(self) -> None:
        """Close the file, and what it was unpacked from."""
        self.source.close()
        if self.container is not None:
            self.container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.source.__exit__(kind, error, trace)
        finally:
            self.close()


class Digests:
    """SHA-256 of a snapshot file, computed in a thread: hashing leaves the interpreter alone."""

    def __init__(self, opened: OpenedSnapshot) -> None:
        self._opened = opened
        self._hash = opened.source.begin_hash()

    def stop(self) -> None:
        """End the thread, with or without a result."""
        self._hash.stop()

    @cached_property
    def _database_digest(self) -> bytes:
        return self._hash.digest(self._opened.snapshot.database.size)

    @cached_property
    def _appended(self) -> int:
        """Wait for the result; return how many bytes stand behind a trailer that is right: a whole page, perhaps."""
        database, source = self._opened.snapshot.database, self._opened.source
        in_use = database.high_water_mark * database.page_size
        stands = bytes(memoryview(source.buffer)[in_use : in_use + DIGEST_SIZE])
        return source.size - in_use - DIGEST_SIZE if stands == self._hash.digest(in_use) else 0

    def trailer(self) -> Trailer:
        """Wait for the result; say how the trailer compares."""
        if self._appended:
            return Trailer.CUT
        return judge_trailer(self._opened.snapshot.behind, self._database_digest)

    def trailer_problem(self) -> str:
        """Say in a sentence what is wrong with a trailer that is bad; "" for others."""
        if not self.trailer().is_bad:
            return ""
        if self._appended:
            return f"{counted(self._appended, 'byte was', 'bytes were')} appended behind the SHA-256, which is right"
        return describe_bad_trailer(self._opened.snapshot.behind, self._database_digest)

    def require_right_trailer(self) -> None:
        """Refuse a trailer that is there and wrong; a missing one is normal for a copied db."""
        if problem := self.trailer_problem():
            self._opened.source.check_unchanged()
            raise wrong_trailer(self._opened.source.path, self.trailer(), problem)

    def file_sha256(self) -> str:
        """Wait for the result; return the SHA-256 of the whole file, in hex."""
        return self._hash.digest(self._opened.source.size).hex()


class _Unpacked(Source):
    """A snapshot that was taken out of `outer`, which counts as the source itself, and is closed with it."""

    def __init__(self, outer: Source, spool: Spool) -> None:
        self._outer = outer
        super().__init__(spool.readable_path)
        spool.close()
        self.path = outer.path

    def _protect(self, inputs: Inputs) -> None:
        super()._protect(inputs)
        inputs.add(os.fstat(self._outer.fileno()), str(self._outer.path))

    def close(self) -> None:
        super().close()
        self._outer.close()


@dataclass(slots=True, kw_only=True)
class OpenedSource:
    """A file to read as a snapshot, and where it is from. `directory`: the one in which `located` was found."""

    source: Source
    notices: tuple[str, ...]
    data_directory: Path | None
    directory: Path | None
    located: Located | None
    container: Unwrapped | None

    def close(self) -> None:
        """Close the file, and what it was unpacked from."""
        self.source.close()
        if self.container is not None:
            self.container.close()


def _from_stdin(unpacking: Unpacking) -> Source:
    if sys.stdin is None:
        raise InputError("cannot read a snapshot from stdin: it is closed", code="cannot_read")
    _refuse_device(sys.stdin)
    return _from_stream(_Pipe(sys.stdin.buffer), "stdin", unpacking)


def _refuse_device(stream: TextIO) -> None:
    """Raise InputError for a device, which may be endless and would be copied until the disk is full."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return  # it is in memory
    empty = Path(os.devnull).stat().st_rdev
    if stat.S_ISCHR(status.st_mode) and status.st_rdev != empty and not stream.isatty():
        raise InputError(
            "stdin is a device, not a snapshot",
            hint="redirect it from a file, or from a pipe",
            code="not_a_regular_file",
            place="stdin",
        )


class _Pipe:
    """A stream that may wait for whoever writes to it, which a signal ends."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError):
            return self._stream.read(size)  # it is in memory
        return signals.read(descriptor, size)


def _from_stream(stream: Reader, name: str, unpacking: Unpacking) -> Source:
    spool = receive(stream, unpacking)
    try:
        source = Source(spool.readable_path)
    finally:
        spool.close()
    source.path = Path(name)
    return source


def _from_store(path: RemotePath, unpacking: Unpacking) -> tuple[Source, tuple[str, ...]]:
    from snaptool.stores.reading import fetch  # noqa: PLC0415 - files need none of it

    fetched = fetch(path, folder_for(unpacking.near))
    try:
        source = Source(fetched.spool.readable_path)
    finally:
        fetched.spool.close()
    source.path = path
    version = f", version {fetched.seen.version}" if fetched.seen.version else ""
    return source, (f"read {path}: {source.size:,} bytes{version}",)


def open_source(path: Path | bytes, unpacking: Unpacking = DEFAULT) -> OpenedSource:
    """Find the file that is to be read as a snapshot, and unpack it. Raises as `open_snapshot`, for no bolt file too.

    With `unpacking.broken` any file is taken.
    """
    content = path if isinstance(path, bytes) else None
    path = Path("bytes") if isinstance(path, bytes) else path
    notices: tuple[str, ...] = ()
    data_directory: Path | None = None
    remote = path if is_remote(path) else None
    directory = path if content is None and remote is None and path.is_dir() else None
    located = None if directory is None else _located(directory, unpacking.entry)
    if directory is not None and located is not None:
        path, notices = directory / located.file, located.notices
        for member in located.members:  # what belongs to a backup is not written, even where it is not read
            remember((directory / member.name).stat(), str(directory / member.name))
        unpacking = replace(unpacking, entry=None)
    elif directory is not None:
        data_directory = path if has_wal(path) else None
        path, notices = in_data_directory(path)
    if content is not None:
        outer = _from_stream(BytesIO(content), "bytes", unpacking)
    elif remote is not None:
        outer, notices = _from_store(remote, unpacking)
    else:
        outer = _from_stdin(unpacking) if path == STDIN else Source(path)
    with ExitStack() as undo:
        undo.push(outer)  # what is wrong with an archive may be that it changes
        found = unwrap(outer.fileno(), str(outer.path), unpacking)
        undo.callback(found.close)
        outer.check_unchanged()
        if found.section is not None:
            outer.narrow(found.section.begin, found.section.size)
        source = outer if found.spool is None else _Unpacked(outer, found.spool)
        undo.pop_all()
        return OpenedSource(
            source=source,
            notices=notices + found.notices,
            data_directory=data_directory,
            directory=directory,
            located=located,
            container=in_directory(found, directory, located),
        )


def _located(directory: Path, entry: str | None) -> Located | None:
    """Find the snapshot of a directory that is none of etcd's."""
    from snaptool.containers.directories import find_in_directory, is_kubespray  # noqa: PLC0415 - seldom needed

    if is_kubespray(directory) or not _database_in(directory).is_file():
        return find_in_directory(directory, entry)
    return None


def open_snapshot(
    path: str | os.PathLike[str] | bytes,
    unpacking: Unpacking = DEFAULT,
    *,
    prefixes: Sequence[str] = (),
    kine: bool = False,
) -> OpenedSnapshot:
    """Open a snapshot file, a `member/snap/db`, an etcd data directory, or what a platform puts around one, read-only.

    A URL (`s3://`, `https://`) is read into a file without a name. `-` is stdin; bytes are the content of a file.
    `prefixes`: the API servers' `--etcd-prefix`, where they are not to be found from the keys. `kine`: a database of
    Kine is taken too, to be looked at. Raises InputError when there is nothing to open or something to open it with is
    missing, FormatError when there is no snapshot or it is damaged, OutputError when there is no room to unpack.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise wrong_type("path", path, "a path, or the bytes of a snapshot")
    given = path if isinstance(path, (bytes, Path)) else _place_of(path)
    unpacking = replace(unpacking, kine=kine or unpacking.kine)
    try:
        found = open_source(given, unpacking)
    except Ambiguous as error:
        raise _with_revisions(given, unpacking, error) from error
    source, notices, stated = found.source, found.notices, None
    try:
        if found.container is not None and found.container.layers[-1:] == (KINE,):
            beside = Path(f"{given}-wal") if isinstance(given, Path) and given != STDIN else None
            spool, more = _of_kine(source, found.container, beside, unpacking)
            source, notices = _Unpacked(source, spool), notices + more
        snapshot = Snapshot(source.buffer, source.release_memory)
        if found.located is not None and found.directory is not None:
            stated = found.directory
            if found.located.deltas:
                from snaptool.operations.deltas import with_deltas  # noqa: PLC0415 - seldom needed, and heavy

                spool, more = with_deltas(snapshot, stated, found.located.deltas, folder_for(unpacking.near))
                source, notices = _Unpacked(source, spool), notices + more
                snapshot = Snapshot(source.buffer, source.release_memory)
        if source.size > LARGE and not is_compiled():
            notices += (f"the engine is not compiled; {WHY_NOT}",)
        return OpenedSnapshot(
            source,
            snapshot,
            notices,
            found.data_directory,
            stated,
            container=found.container,
            given_prefixes=tuple(prefixes),
        )
    except BaseException:
        source.close()
        if found.container is not None:
            found.container.close()
        raise


def _place_of(text: str | os.PathLike[str]) -> Path:
    from snaptool.stores.location import place_of  # noqa: PLC0415 - paths need none of it

    return place_of(text)


def _of_kine(
    source: Source, container: Unwrapped, beside: Path | None, unpacking: Unpacking
) -> tuple[Spool, tuple[str, ...]]:
    """Make a snapshot of a database of Kine and what lies in its write-ahead log, which may be `beside`."""
    *outer, _ = container.layers
    inner = outer[-1].partition(":")[2] + "-wal" if outer else ""
    with ExitStack() as stack:
        log: bytes | memoryview = b""
        if not outer and beside is not None and beside.is_file() and beside.stat().st_size:
            log = memoryview(stack.enter_context(Source(beside)).buffer)
            stack.callback(log.release)
        elif any(member.name == inner for member in container.members):
            log = container.read_member(inner, _LARGEST_LOG)
        from snaptool.containers.sqlite import SqliteFile  # noqa: PLC0415 - seldom needed
        from snaptool.operations.kine import from_kine  # noqa: PLC0415 - seldom needed, and heavy

        database = SqliteFile(memoryview(source.buffer), container.place, log)

        made = from_kine(database, folder_for(unpacking.near))
        source.check_unchanged()
    return made


def _with_revisions(path: Path | bytes, unpacking: Unpacking, error: Ambiguous) -> Ambiguous:
    """Say of each snapshot that could be meant how far it goes, where looking at them costs little."""
    names = [name for name, _ in error.candidates]
    total = sum(size for _, size in error.candidates)
    if (
        is_remote(path)
        or path == STDIN
        or len(set(names)) < len(names)
        or len(names) > _MOST_LOOKED_INTO
        or total > _MOST_UNPACKED
    ):
        return error
    facts = []
    for name in names:
        try:
            with open_snapshot(path, replace(unpacking, entry=name)) as opened:
                facts.append(f"revision {opened.snapshot.current_revision:,}")
        except SnaptoolError:
            facts.append("not readable")
    return Ambiguous(error.where, error.candidates, facts=facts)


def in_data_directory(directory: Path) -> tuple[Path, tuple[str, ...]]:
    """Find the db file of an etcd data directory, and what its user should know. Raises InputError."""
    database = _database_in(directory)
    if not database.is_file():
        raise InputError(
            f"{directory} is a directory without member/snap/db",
            hint="name a snapshot file, or the data directory of an etcd member",
            code="no_database",
        )
    notices: tuple[str, ...] = (f"reading {database}",)
    if has_wal(directory):
        notices += (
            "the WAL of this data directory may hold newer writes than its db, which is all that is read",
            "  `rewrite --engine etcd`, `verify --boot` and `scratch` read the WAL too",
        )
    return database, notices


def _database_in(directory: Path) -> Path:
    return directory / "member" / "snap" / "db"


def has_wal(directory: Path) -> bool:
    """Say whether a data directory has a write-ahead log."""
    return any((directory / "member" / "wal").glob("*.wal"))
