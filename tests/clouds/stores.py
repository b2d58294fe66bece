"""Stores of the tests, on loopback: each with what only its own client can show."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Place:
    """A bucket, container or folder: its URL, and how its owner puts, gets and lists what is there."""

    url: str
    put: Callable[[str, bytes], object]
    get: Callable[[str], bytes]
    names: Callable[[], list[str]]
    pending: Callable[[], list[Any]] = list

    def at(self, name: str) -> str:
        return f"{self.url}/{name}"


def of_s3(client: Any) -> Place:
    name = f"b{secrets.token_hex(6)}"
    client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    return Place(
        f"s3://{name}",
        lambda key, content: client.put_object(Bucket=name, Key=key, Body=content),
        lambda key: bytes(client.get_object(Bucket=name, Key=key)["Body"].read()),
        lambda: [one["Key"] for one in client.list_objects_v2(Bucket=name).get("Contents", [])],
        lambda: list(client.list_multipart_uploads(Bucket=name).get("Uploads", [])),
    )


def of_gs() -> Place:
    from google.cloud import storage

    client = storage.Client()
    bucket = client.create_bucket(f"b{secrets.token_hex(6)}")
    return Place(
        f"gs://{bucket.name}",
        lambda name, content: bucket.blob(name).upload_from_string(content),
        lambda name: bytes(bucket.blob(name).download_as_bytes()),
        lambda: [one.name for one in client.list_blobs(bucket)],
    )


def of_az() -> Place:
    from azure.storage.blob import BlobServiceClient

    service = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
    container = service.create_container(f"c{secrets.token_hex(6)}")
    return Place(
        f"az://{container.container_name}",
        lambda name, content: container.upload_blob(name, content, overwrite=True),
        lambda name: bytes(container.download_blob(name).readall()),
        lambda: [one.name for one in container.list_blobs()],
    )


class Sftp:
    """An sftp server in a thread. `links`: whether it makes hard links."""

    def __init__(self, home: Path, *, links: bool = True) -> None:
        import asyncssh

        self._time = 1_800_000_000
        self.root = home / "files"
        self.root.mkdir()
        keys = home / ".ssh"
        keys.mkdir(mode=0o700)
        host, user = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
        (keys / "id_ed25519").write_bytes(user.export_private_key())
        (keys / "id_ed25519").chmod(0o600)
        self._user = asyncssh.import_authorized_keys(user.export_public_key().decode())
        self._host = host
        self.known_hosts = keys / "known_hosts"
        root = self.root

        class Served(asyncssh.SFTPServer):  # type: ignore[misc]
            def __init__(self, channel: Any) -> None:
                super().__init__(channel, chroot=str(root).encode())

            def link(self, old: bytes, new: bytes, flags: int = 0) -> Any:
                if not links:
                    raise asyncssh.SFTPOpUnsupported("no links here")
                return super().link(old, new, flags) if flags else super().link(old, new)

        self._served = Served
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listener = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)
        self.port: int = self._listener.get_port()
        public = host.export_public_key().decode().strip()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}\n")

    async def _listen(self) -> Any:
        import asyncssh

        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[self._host],
            authorized_client_keys=self._user,
            sftp_factory=self._served,
        )

    def _put(self, name: str, content: bytes) -> None:
        """Write, a second later than the last time: sftp shows no less of time."""
        (self.root / name).write_bytes(content)
        self._time += 1
        os.utime(self.root / name, (self._time, self._time))

    def place(self) -> Place:
        return Place(
            f"sftp://ops@127.0.0.1:{self.port}",
            self._put,
            lambda name: (self.root / name).read_bytes(),
            lambda: sorted(one.name for one in self.root.iterdir()),
            lambda: [one for one in self.root.iterdir() if one.name.endswith(".part")],
        )

    def close(self) -> None:
        async def end() -> None:
            self._listener.close()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._listener.wait_closed(), 2)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
