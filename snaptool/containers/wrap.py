"""A new snapshot in a container: one stream, a zip with one entry, or what the source had around it.

A plain snapshot is what every restore takes; a container is made when the target's name asks for one, or where the
rest of the source's container has to come along. The same input gives the same bytes: no times of the run, no names,
fixed levels. Source: docs/formats/containers.md, "Targets".
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Protocol, cast

from snaptool.containers.age import AgeReader, AgeWriter, OmniSecrets
from snaptool.containers.faults import ContainerRefused, corrupt
from snaptool.containers.gardener import parse_name
from snaptool.containers.readers import PIECE, BytesReader, FileReader, Peekable, Reader
from snaptool.containers.recognise import OMNI_LAYER, Kind
from snaptool.containers.streams import import_zstd, open_stream
from snaptool.containers.tars import TarWalk, copy_with
from snaptool.containers.unwrap import Unwrapped
from snaptool.containers.zips import ZipFileReader

CHOICES = ("auto", "plain", "gzip", "zstd", "xz", "bzip2", "zip", "same")
_BY_SUFFIX = {".gz": Kind.GZIP, ".zst": Kind.ZSTD, ".xz": Kind.XZ, ".bz2": Kind.BZIP2}
_TAR_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2", ".txz", ".tbz2")
_KEEPS_THE_REST = frozenset({"rke1", "k0s", "vcluster", "openshift"})
"""Platforms whose restore needs the other files of the archive, or whose keys are in them."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


class Sink(Protocol):
    """Where a container goes, in order."""

    def write(self, data: bytes, /) -> object:
        """Add bytes."""


@dataclass(frozen=True, slots=True)
class Wrapping:
    """How a snapshot is packed. `streams` from outside in; `archive`: "zip", "tar", "age" or none, inside them.

    `folder`: the platform whose directory is made, or "". `name`: the entry's or the file's; `source`: the container
    whose other entries come along; `renames`: new names of entries. `contents`: what entries of the source, by their
    names there, get in place of theirs; `omni`: what an age file has before the snapshot.
    """

    streams: tuple[Kind, ...] = ()
    archive: str = ""
    folder: str = ""
    name: str = ""
    source: Unwrapped | None = field(default=None, repr=False)
    renames: dict[str, str] = field(default_factory=dict)
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    omni: OmniSecrets | None = field(default=None, repr=False)

    def carries(self, member: str) -> bool:
        """Does an entry of the source come along, so that it may get another content?"""
        members = () if self.source is None or self.archive != "zip" else self.source.members
        return any(member == one.name for one in members)

    def updated(self, contents: Mapping[str, bytes], keys: tuple[str, str] | None) -> Wrapping:
        """Return the same with other contents of entries, and other keys (secretbox, aescbc) in Omni's header."""
        omni = self.omni
        if omni is not None and keys is not None:
            omni = replace(omni, secretbox=keys[0], aescbc=keys[1])
        return replace(self, contents=contents, omni=omni)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers as `Unwrapped.layers` says them; none for a plain snapshot."""
        around = (f"directory:{self.name}",) if self.folder else ()
        return (
            *around,
            *(kind.value for kind in self.streams),
            *((f"{self.archive}:{self.name}",) if self.archive else ()),
        )


PLAIN = Wrapping()


def choose_wrapping(target: Path | None, wanted: str, source: Unwrapped | None) -> Wrapping:
    """Choose what goes around a snapshot that is written to `target`. `wanted`: one of `CHOICES`, or "directory".

    Without a target there is nothing around it. Raises ContainerRefused: container_target where suffix, source and wish
    do not fit, container_method without zstd.
    """
    if target is None:
        return PLAIN
    name = target.name.lower()
    is_tar = name.endswith(_TAR_SUFFIXES)
    suffix = next((kind for end, kind in _BY_SUFFIX.items() if name.endswith(end)), None)
    keeps = source is not None and source.platform in _KEEPS_THE_REST
    in_folder = source is not None and source.layers[:1] and source.layers[0].startswith("directory:")
    if wanted == "directory" or (wanted == "same" and in_folder):
        return _folder(target, source)
    if wanted == "same" or (wanted == "auto" and keeps and (is_tar or name.endswith(".zip"))):
        return _same(target, source)
    if wanted == "auto" and is_tar:
        raise ContainerRefused(
            f"target {target} has the name of a tar archive, and the source is not an archive that has to stay whole",
            hint="name a plain snapshot (new.db), or take over the source's own container with --container same",
            code="container_target",
        )
    kinds = {"gzip": Kind.GZIP, "zstd": Kind.ZSTD, "xz": Kind.XZ, "bzip2": Kind.BZIP2}
    kind = kinds.get(wanted) or (suffix if wanted == "auto" else None)
    if kind is Kind.ZSTD:
        _require_zstd(target)
    if kind is not None:
        return Wrapping((kind,))
    if wanted == "zip" or (wanted == "auto" and name.endswith(".zip")):
        return Wrapping(archive="zip", name=target.name.removesuffix(".zip") or target.name)
    return PLAIN


def _require_zstd(target: Path) -> None:
    try:
        import_zstd()
    except ImportError:
        raise ContainerRefused(
            f"{target}: the library for zstd is not installed",
            hint="pip install backports.zstd, or choose another name: .gz",
            code="container_method",
        ) from None


def _same(target: Path, source: Unwrapped | None) -> Wrapping:
    """Take over the layers of the source, with names as the platform's restore wants them."""
    if source is None or not source.layers:
        raise ContainerRefused(
            "--container same: the source is a plain snapshot, and there is no container to make again",
            hint="leave --container out, and write a plain snapshot",
            code="container_target",
        )
    if source.layers == (OMNI_LAYER,):
        return Wrapping(archive="age", name="nacl_v1", omni=source.omni)
    *outer, last = source.layers
    archive, _, entry = last.partition(":")
    streams = tuple(Kind(layer) for layer in (outer if entry else source.layers) if layer in _WRITERS)
    if archive not in {"zip", "tar"}:
        archive, entry = "", ""
    if len(streams) + bool(archive) != len(source.layers) or (archive == "zip" and streams):
        raise ContainerRefused(
            f"--container same: layers like those of the source are not written: {', '.join(source.layers)}",
            hint="leave --container out, and write a plain snapshot, or choose one: --container gzip",
            code="container_target",
        )
    if Kind.ZSTD in streams:
        _require_zstd(target)
    renames = _renames(target, source, entry)
    return Wrapping(
        streams,
        archive,
        name=renames.get(entry, entry),
        source=source if archive else None,
        renames=renames,
    )


def _folder(target: Path, source: Unwrapped | None) -> Wrapping:
    """Make a directory as the platform of the source has it, which is named by its directory."""
    platform = source.platform if source is not None else None
    if source is None or not source.layers[:1] or not source.layers[0].startswith("directory:"):
        platform = None
    if platform not in _FOLDERS:
        raise ContainerRefused(
            f"target {target} is to be a directory, and the source is not from OpenShift, kOps, Gardener or kubespray",
            hint="name a file: a plain snapshot",
            code="container_target",
        )
    assert source is not None
    name = source.layers[0].partition(":")[2].rsplit("/", 1)[-1]
    streams = (Kind.GZIP,) if platform in {"kops", "gardener"} else ()
    return Wrapping(streams, folder=platform or "", name=name, source=source)


_FOLDERS = frozenset({"openshift", "kops", "gardener", "kubespray"})


def folder_files(
    wrapping: Wrapping, blocks: Callable[[], Iterator[bytes]], size: int, revision: int
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield path and content of each file of a directory; the snapshot, of `size` bytes, comes first."""
    assert wrapping.source is not None
    content = _compressed(wrapping.streams[0], blocks(), size) if wrapping.streams else blocks()
    if wrapping.folder == "gardener":
        # The newest of equal revisions is the one that counts, and the same input gives the same name.
        known = [one for one in (parse_name(member.name) for member in wrapping.source.members) if one is not None]
        created = max((one.created for one in known), default=0) + 1
        yield f"v2/Full-00000000-{revision:08}-{created}.gz", content
        return
    yield wrapping.name, content
    for member in wrapping.source.members:
        opened = wrapping.source.member_opener(member.name) if wrapping.source.member_opener is not None else None
        if member.role != "snapshot" and opened is not None:
            yield member.name.rsplit("/", 1)[-1], _pieces(opened)


def _compressed(kind: Kind, blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    out: list[bytes] = []

    class _Held:
        def write(self, data: bytes, /) -> None:
            out.append(data)

    stream = _WRITERS[kind](_Held(), size)
    for block in blocks:
        stream.write(block)
        yield from out
        out.clear()
    stream.finish()
    yield from out


def _renames(target: Path, source: Unwrapped, entry: str) -> dict[str, str]:
    base = target.name.removesuffix(".zip")
    if source.platform == "rke1":
        states = [one.name for one in source.members if one.role == "rkestate"]
        return {entry: f"/backup/{base}", **dict.fromkeys(states, f"/etc/kubernetes/{base}.rkestate")}
    return {entry: base} if source.platform == "k3s" and entry else {}


# --- writing ---


def write_wrapped(wrapping: Wrapping, blocks: Callable[[], Iterator[bytes]], size: int, sink: Sink) -> None:
    """Write a snapshot of `size` bytes, which `blocks` gives, in its container to `sink`."""
    inner: Sink = sink
    closing: list[_Stream | AgeWriter] = []
    for kind in wrapping.streams:
        closing.append(_WRITERS[kind](inner, size if wrapping.layers == (kind.value,) else None))
        inner = closing[-1]
    if wrapping.omni is not None:
        closing.append(AgeWriter(inner.write, wrapping.omni, os.urandom))
        inner = closing[-1]
    if wrapping.archive == "zip":
        _write_zip(wrapping, blocks, size, inner)
    elif wrapping.archive == "tar":
        assert wrapping.source is not None
        copy_with(wrapping.source.reopen(), wrapping.source.place, inner.write, wrapping.name, size, blocks())
    else:
        for block in blocks():
            inner.write(block)
    for stream in reversed(closing):
        stream.finish()


class _Stream:
    """A compressor in front of a sink."""

    def __init__(self, sink: Sink, compress: Callable[[bytes], bytes], flush: Callable[[], bytes]) -> None:
        self._sink = sink
        self._compress = compress
        self._flush = flush

    def write(self, data: bytes) -> None:
        out = self._compress(data)
        if out:
            self._sink.write(out)

    def finish(self) -> None:
        self._sink.write(self._flush())


def _gzip(sink: Sink, _size: int | None) -> _Stream:
    # Python's zlib writes a header without name and time: equal bytes for equal input.
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return _Stream(sink, packer.compress, packer.flush)


def _zstd(sink: Sink, size: int | None) -> _Stream:
    zstd = import_zstd()
    parameters = zstd.CompressionParameter
    packer = zstd.ZstdCompressor(options={parameters.compression_level: 3, parameters.checksum_flag: 1})
    packer.set_pledged_input_size(size)
    return _Stream(sink, packer.compress, packer.flush)


def _xz(sink: Sink, _size: int | None) -> _Stream:
    packer = lzma.LZMACompressor(lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=6)
    return _Stream(sink, packer.compress, packer.flush)


def _bzip2(sink: Sink, _size: int | None) -> _Stream:
    packer = bz2.BZ2Compressor(9)
    return _Stream(sink, packer.compress, packer.flush)


_WRITERS: dict[Kind, Callable[[Sink, int | None], _Stream]] = {
    Kind.GZIP: _gzip,
    Kind.ZSTD: _zstd,
    Kind.XZ: _xz,
    Kind.BZIP2: _bzip2,
}


class _Appending:
    """A sink as the zip library wants one: it can say where it is, and cannot go back."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._at = 0

    def write(self, data: bytes) -> int:
        self._sink.write(bytes(data))
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """Nothing is held back."""


def _write_zip(wrapping: Wrapping, blocks: Callable[[], Iterator[bytes]], size: int, sink: Sink) -> None:
    zipped = wrapping.source.zip_reader if wrapping.source is not None else None
    with zipfile.ZipFile(cast("IO[bytes]", _Appending(sink)), "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        if zipped is None or wrapping.source is None:
            _add(archive, _info(wrapping.name, _EPOCH, size), blocks())
            return
        chosen = next(one.name for one in wrapping.source.members if one.role == "snapshot")
        for entry in zipped.entries:
            name = wrapping.renames.get(entry.name, entry.name)
            if entry.name == chosen:
                _add(archive, _info(name, entry.info.date_time, size), blocks())
            else:
                content = wrapping.contents.get(entry.name)
                info = _info(name, entry.info.date_time, entry.size if content is None else len(content))
                info.external_attr, info.create_system = entry.info.external_attr, entry.info.create_system
                blocks_of = iter(()) if entry.info.is_dir() else _pieces(zipped.open(entry))
                _add(archive, info, blocks_of if content is None else (content,))


def _info(name: str, when: tuple[int, int, int, int, int, int], size: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, max(when, _EPOCH))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o100600 << 16
    info.create_system = 3
    info.file_size = size  # by this the library decides on zip64
    return info


def _add(archive: zipfile.ZipFile, info: zipfile.ZipInfo, blocks: Iterable[bytes]) -> None:
    with archive.open(info, "w") as entry:
        for block in blocks:
            entry.write(block)


def _pieces(source: Reader) -> Iterator[bytes]:
    while data := source.read(PIECE):
        yield data


# --- reading back ---


def read_back(wrapping: Wrapping, descriptor: int, place: str) -> str:
    """Unpack a container that was written, to its end; return the SHA-256 of the snapshot in it, in hex.

    Entries that came along are compared with those of the source. Raises ContainerFault where anything differs.
    """
    if wrapping.archive == "zip":
        return _read_zip_back(wrapping, ZipFileReader(descriptor, place), place)
    source = _open(wrapping.streams, lambda: Peekable(FileReader(descriptor)), place)
    if wrapping.omni is not None:
        opened = AgeReader(source, place, wrapping.omni.backup_key)
        if opened.secrets != wrapping.omni:
            raise corrupt(place, 0, "its header does not hold what was written")
        return _digest(opened)
    if not wrapping.archive:
        return _digest(source)
    assert wrapping.source is not None
    before = {
        wrapping.renames.get(one.name, one.name): None if one.name == _chosen(wrapping.source) else _digest(one.content)
        for one in TarWalk(wrapping.source.reopen(), wrapping.source.place)
        if one.is_file
    }
    after = {one.name: _digest(one.content) for one in TarWalk(source, place) if one.is_file}
    return _compare(before, after, wrapping.name, place)


def _read_zip_back(wrapping: Wrapping, zipped: ZipFileReader, place: str) -> str:
    before: dict[str, str | None] = {wrapping.name: None}
    if wrapping.source is not None and wrapping.source.zip_reader is not None:
        reader, chosen = wrapping.source.zip_reader, _chosen(wrapping.source)
        before = {
            wrapping.renames.get(one.name, one.name): None
            if one.name == chosen
            else _digest(_content(wrapping, one.name) or reader.open(one))
            for one in reader.entries
            if one.is_file
        }
    after = {one.name: _digest(zipped.open(one)) for one in zipped.entries if one.is_file}
    return _compare(before, after, wrapping.name, place)


def _content(wrapping: Wrapping, name: str) -> Reader | None:
    return BytesReader(wrapping.contents[name]) if name in wrapping.contents else None


def _chosen(source: Unwrapped) -> str:
    return next(one.name for one in source.members if one.role == "snapshot")


def _compare(before: dict[str, str | None], after: dict[str, str], name: str, place: str) -> str:
    if set(before) != set(after) or any(digest not in {None, after[one]} for one, digest in before.items()):
        raise corrupt(place, 0, "what was written is not what the source has")
    return after[name]


def _open(streams: tuple[Kind, ...], opens: Callable[[], Peekable], place: str) -> Peekable:
    source = opens()
    for kind in streams:
        source = Peekable(open_stream(kind, source, place))
    return source


def _digest(source: Reader) -> str:
    digest = hashlib.sha256()
    for block in _pieces(source):
        digest.update(block)
    return digest.hexdigest()
