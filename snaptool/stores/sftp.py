"""Files that sftp reaches: written beside the target, read back, and given its name by a hard link.

A rename over sftp replaces what is there on some servers and is refused on others; a link is refused on all where the
name is taken. Hosts, users and keys are found as ssh finds them, and an unknown host is refused.

Source: docs/clouds.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import secrets
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from snaptool.errors import InputError
from snaptool.stores.listing import Entry
from snaptool.stores.location import FileAt
from snaptool.stores.store import (
    BrokenOff,
    ExtraMissing,
    NotAFile,
    Replaced,
    Seen,
    StoreRefused,
    StoreUnreachable,
    first_line,
)
from snaptool.stores.sums import Sums

try:
    import asyncssh
except ImportError as error:
    raise ExtraMissing("sftp:// needs asyncssh, which is not installed", hint="pip install 'snaptool[sftp]'") from error

_BLOCK = 1 << 20
_TIMEOUT = 20  # seconds
_Answer = TypeVar("_Answer")


class SftpStore:
    """One file of one host. Each operation has a connection of its own, which ends with it."""

    def __init__(self, location: FileAt, shown: str) -> None:
        self._location, self._shown = location, shown
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Any = None
        self._sftp: Any = None

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        """Connect for a block; one within another shares its connection."""
        if self._loop is not None:
            yield
            return
        self._loop = asyncio.new_event_loop()
        try:
            self._sftp = self._do(self._connect())
            yield
        finally:
            if self._connection is not None:
                self._connection.close()
                with contextlib.suppress(asyncssh.Error, OSError):
                    self._do(asyncio.wait_for(self._connection.wait_closed(), _TIMEOUT))
            self._connection = self._sftp = None
            self._loop.close()
            self._loop = None

    def look(self) -> Seen | None:
        """Return size and modification time, which are all that there is of a version."""
        try:
            with self._connected():
                return self._seen(self._do(self._sftp.stat(self._location.path)))
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            return None
        except Exception as error:  # noqa: BLE001 - the client raises what its transport raises
            self._fail(error)

    def below(self, *, all_versions: bool) -> Iterator[Entry]:  # noqa: ARG002 - a host keeps one of each
        """Yield all files whose paths begin with that of the location; no link to a folder is followed."""
        folder, beginning = posixpath.split(self._location.path)
        waiting = [(folder, beginning)]
        try:
            with self._connected():
                while waiting:
                    folder, beginning = waiting.pop()
                    for name, found in self._names(folder):
                        path = posixpath.join(folder, name)
                        if not name.startswith(beginning):
                            continue
                        if found.type == asyncssh.FILEXFER_TYPE_DIRECTORY:
                            waiting.append((path, ""))
                        elif found.type == asyncssh.FILEXFER_TYPE_REGULAR:
                            seen = self._seen(found)
                            assert seen.modified is not None
                            yield Entry(self._url(path), seen.size, seen.version, seen.modified)
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            return
        except Exception as error:  # noqa: BLE001 - as in `look`
            self._fail(error)

    def _names(self, folder: str) -> list[tuple[str, Any]]:
        """List a folder. A link has what it leads to, where that is a file."""
        found = []
        for one in self._do(self._sftp.readdir(folder.encode() or b".")):
            try:
                name = one.filename.decode()
            except UnicodeDecodeError:
                raise StoreRefused(
                    f"{self._url(folder)}: the name of a file in it is not UTF-8: {one.filename!r}",
                    hint="rename it, or name the backups one by one",
                    place=self._shown,
                ) from None
            attributes = one.attrs
            if attributes.type == asyncssh.FILEXFER_TYPE_SYMLINK:
                try:
                    attributes = self._do(self._sftp.stat(posixpath.join(folder, name)))
                except asyncssh.SFTPError:
                    continue  # it leads nowhere
                if attributes.type != asyncssh.FILEXFER_TYPE_REGULAR:
                    continue
            if name not in {".", ".."}:
                found.append((name, attributes))
        return sorted(found, key=lambda one: one[0])

    def _url(self, path: str) -> str:
        here = self._location
        user = f"{here.user}@" if here.user is not None else ""
        port = f":{here.port}" if here.port is not None else ""
        return f"sftp://{user}{here.host}{port}{path if path.startswith('/') else f'/~/{path}'}"

    def read(self, seen: Seen, offset: int) -> Iterator[bytes]:
        """Yield the file from an offset on; that it is the same is looked at before and behind."""
        try:
            with self._connected(), self._opened("rb") as file:
                self._require_same(file, seen)
                while offset < seen.size:
                    data = self._do(file.read(min(_BLOCK, seen.size - offset), offset))
                    if not data:
                        raise Replaced
                    yield data
                    offset += len(data)
                self._require_same(file, seen)
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath) as error:
            raise Replaced from error
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.ConnectionLost, OSError) as error:
            raise BrokenOff(type(error).__name__) from error
        except asyncssh.Error as error:
            self._fail(error)

    def _require_same(self, file: Any, seen: Seen) -> None:
        if self._seen(self._do(file.stat())).version != seen.version:
            raise Replaced

    def create(self, content: Path, sums: Sums, replacing: Seen | None) -> None:
        """Write a file beside the target, and give it the name where nothing has it, or what was seen."""
        folder, name = posixpath.split(self._location.path)
        beside = posixpath.join(folder, f".{name}.{secrets.token_hex(8)}.part")
        try:
            with self._connected():
                try:
                    self._send(content, beside)
                    if self._sums(beside).sha256 != sums.sha256:
                        raise StoreRefused(
                            f"{self._shown}: what arrived is not what was sent; nothing has the name",
                            hint="run the command again; if it stays so, something on the way alters data",
                            place=self._shown,
                        )
                    if replacing is None:
                        self._link(beside)
                    else:
                        self._replace(beside, replacing)
                finally:
                    with contextlib.suppress(asyncssh.Error, OSError):
                        self._do(self._sftp.remove(beside))
        except (StoreRefused, Replaced):
            raise
        except Exception as error:  # noqa: BLE001 - as in `look`
            self._fail(error)

    def _send(self, content: Path, beside: str) -> None:
        flags = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_EXCL
        with self._opened(flags, beside, asyncssh.SFTPAttrs(permissions=0o600)) as file, content.open("rb") as source:
            offset = 0
            while data := source.read(_BLOCK):
                self._do(file.write(data, offset))
                offset += len(data)
            with contextlib.suppress(asyncssh.SFTPOpUnsupported):
                self._do(file.fsync())

    def _link(self, beside: str) -> None:
        try:
            self._do(self._sftp.link(beside, self._location.path))
        except asyncssh.SFTPOpUnsupported as error:
            raise StoreRefused(
                f"{self._shown}: this server makes no hard links, so that something could be replaced",
                hint="write to a local file, and copy that with `sftp`; or --force, where nothing else writes there",
                place=self._shown,
            ) from error
        except asyncssh.SFTPError as error:
            if self.look() is not None:  # servers say "File exists", or just "Failure"
                raise Replaced from error
            raise

    def _replace(self, beside: str, replacing: Seen) -> None:
        now = self.look()
        if now is None or now.version != replacing.version:
            raise Replaced
        self._do(self._sftp.posix_rename(beside, self._location.path))

    def kept(self, sums: Sums) -> bool | None:  # noqa: ARG002 - of a Store
        """Say nothing: a host states no checksums."""
        return None

    def _sums(self, path: str) -> Sums:
        back = Sums()
        with self._opened("rb", path) as file:
            while data := self._do(file.read(_BLOCK, back.size)):
                back.add(data)
        return back

    @contextlib.contextmanager
    def _opened(self, how: Any, path: str = "", attributes: Any = None) -> Iterator[Any]:
        path = path or self._location.path
        opening = self._sftp.open(path, how, attributes or asyncssh.SFTPAttrs(), encoding=None)
        file = self._do(opening)
        try:
            yield file
        finally:
            with contextlib.suppress(asyncssh.Error, OSError):
                self._do(file.close())

    def _seen(self, found: Any) -> Seen:
        if found.type != asyncssh.FILEXFER_TYPE_REGULAR:
            raise NotAFile(
                f"{self._shown}: this is not a regular file", hint="name the snapshot itself", place=self._shown
            )
        modified = datetime.fromtimestamp(found.mtime or 0, UTC)
        return Seen(int(found.size or 0), f"{found.size}-{found.mtime}-{found.mtime_ns or 0}", "", modified)

    def _do(self, work: Coroutine[Any, Any, _Answer]) -> _Answer:
        assert self._loop is not None
        return self._loop.run_until_complete(work)

    async def _connect(self) -> Any:
        here = self._location
        options: dict[str, Any] = {"connect_timeout": _TIMEOUT, "login_timeout": _TIMEOUT, "keepalive_interval": 15}
        if here.user is not None:
            options["username"] = here.user
        if here.port is not None:
            options["port"] = here.port
        self._connection = await asyncssh.connect(here.host.strip("[]"), **options)
        return await self._connection.start_sftp_client()

    def _fail(self, error: Exception) -> NoReturn:
        """Raise the named error for what the client raised."""
        place = self._shown
        if isinstance(error, (StoreRefused, StoreUnreachable, InputError, Replaced)):
            raise error
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            raise StoreRefused(
                f"{place}: the host's key is not known here",
                hint="connect once with `sftp`, and compare the fingerprint; nothing here turns the check off",
                place=place,
            ) from error
        if isinstance(error, asyncssh.PermissionDenied):
            raise StoreRefused(
                f"{place}: the host refuses this user",
                hint="log in as for `sftp`: the agent, ~/.ssh/config, USER@HOST",
                place=place,
            ) from error
        if isinstance(error, (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError)):
            hint = "check the network, and run the command again"
            raise StoreUnreachable(
                f"{place}: the connection ended: {first_line(error)}", hint=hint, place=place
            ) from error
        if isinstance(error, asyncssh.SFTPError):
            hint = "look at permissions and room there, as `sftp` shows them"
            raise StoreRefused(f"{place}: the host refused: {first_line(error)}", hint=hint, place=place) from error
        if isinstance(error, (OSError, TimeoutError, asyncssh.Error)):
            hint = "check host, port and network"
            raise StoreUnreachable(
                f"{place}: the host cannot be reached: {first_line(error)}", hint=hint, place=place
            ) from error
        hint = "look at ~/.ssh/config"
        raise StoreRefused(f"{place}: {type(error).__name__}", hint=hint, place=place) from error
