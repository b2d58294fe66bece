"""A server of files over HTTP, on loopback, which keeps conditions and ranges, and fails as it is told to."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Files:
    """What the server has, and how it misbehaves.

    `cut_after`: bytes of a body after which each connection ends. `replace_after`: the content that a file gets once so
    many bodies were begun. `no_ranges`: it always sends the whole.
    """

    url: str = ""
    content: dict[str, bytes] = field(default_factory=dict)
    cut_after: int | None = None
    replace_after: tuple[int, bytes] | None = None
    no_ranges: bool = False
    puts_kept_as: bytes | None = None
    redirect: str = ""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    bodies: int = 0


def etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:16]}"'


@contextmanager
def serving() -> Iterator[Files]:
    files = Files()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def name(self) -> str:
            files.asked.append((self.command, self.path, {key.lower(): value for key, value in self.headers.items()}))
            return self.path.partition("?")[0]

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if files.cut_after is not None and len(body) > files.cut_after:
                self.wfile.write(body[: files.cut_after])
                self.close_connection = True
                return
            self.wfile.write(body)

        def do_GET(self) -> None:
            name = self.name()
            if files.redirect:
                return self.answer(302, Location=files.redirect)
            if name not in files.content:
                return self.answer(404)
            whole = self.headers.get("Range", "").startswith("bytes=0-0")
            if not whole:
                files.bodies += 1
                if files.replace_after is not None and files.bodies > files.replace_after[0]:
                    files.content[name] = files.replace_after[1]
            data = files.content[name]
            if (condition := self.headers.get("If-Match")) is not None and condition != etag(data):
                return self.answer(412)
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if asked is None or files.no_ranges:
                return self.answer(200, data, ETag=etag(data))
            start = int(asked[1])
            end = min(int(asked[2]) if asked[2] else len(data) - 1, len(data) - 1)
            if start >= len(data):
                return self.answer(416)
            span = f"bytes {start}-{end}/{len(data)}"
            return self.answer(206, data[start : end + 1], Content_Range=span, ETag=etag(data))

        def do_PUT(self) -> None:
            name = self.name()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("If-None-Match") == "*" and name in files.content:
                return self.answer(412)
            condition = self.headers.get("If-Match")
            if condition is not None and condition != etag(files.content.get(name, b"")):
                return self.answer(412)
            files.content[name] = body if files.puts_kept_as is None else files.puts_kept_as
            return self.answer(200, ETag=etag(files.content[name]))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    files.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
