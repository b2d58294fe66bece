"""An HTTP server between a client and a service: it records every request, passes it on, and can answer by itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content) if self.content else None


@dataclass(frozen=True)
class Reply:
    """An answer that the service does not get to give."""

    status: int
    content: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)

    @classmethod
    def of(cls, status: int, body: Any, **headers: str) -> Self:
        more = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        return cls(status, json.dumps(body).encode(), (("Content-Type", "application/json"), *more))


class Between:
    """Stands on a port of loopback until it is closed. `replies` are given first, in order, one to each request."""

    def __init__(self, upstream: int | None = None) -> None:
        self.asked: list[Asked] = []
        self.replies: deque[Reply] = deque()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, dict(self.headers), content)
                outer.asked.append(asked)
                try:
                    reply = outer.replies.popleft()
                except IndexError:
                    reply = outer.answer(asked)
                self.send_response(reply.status)
                for name, value in reply.headers:
                    self.send_header(name, value)
                length = next((value for name, value in reply.headers if name.lower() == "content-length"), None)
                if length is None:
                    self.send_header("Content-Length", str(len(reply.content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.content)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_LIST = answer  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                return

        self.upstream = upstream or 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, asked: Asked) -> Reply:
        """What the service says. Doubles of a service say it themselves."""
        assert self.upstream, "nobody to pass it on to"
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=30)
        try:
            headers = {name: value for name, value in asked.headers.items() if name.lower() not in _HOP}
            connection.request(asked.method, asked.path, asked.content, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        # An answer to HEAD states the length of what it does not send.
        dropped = _HOP - {"content-length"} if asked.method == "HEAD" else _HOP
        return Reply(answer.status, content, tuple(one for one in answer.getheaders() if one[0].lower() not in dropped))

    def secure(self, context: Any) -> None:
        """Speak TLS."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Cut:
    """Passes connections on and ends each after so many bytes of the server's. `asked` counts connections."""

    def __init__(self, upstream: int, after: int) -> None:
        self._upstream, self._after = upstream, after
        self.asked = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.asked += 1
                self._start(self._pass, client)

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._upstream)) as server:
            there = threading.Thread(target=_copied, args=(client, server, 1 << 60), daemon=True)
            there.start()
            _copied(server, client, self._after)
            for one in (client, server):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            there.join()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _copied(source: socket.socket, sink: socket.socket, most: int) -> None:
    with contextlib.suppress(OSError):
        while most > 0 and (data := source.recv(min(1 << 16, most))):
            sink.sendall(data)
            most -= len(data)
