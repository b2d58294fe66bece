"""An HTTP server between a client and a service: it records every request, passes it on, and can answer by itself."""

from __future__ import annotations

import http.client
import json
import threading
from collections import deque
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
                self.send_header("Content-Length", str(len(reply.content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.content)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_LIST = answer  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                return

        self._upstream = upstream
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
        assert self._upstream is not None, "nobody to pass it on to"
        connection = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=30)
        try:
            headers = {name: value for name, value in asked.headers.items() if name.lower() not in _HOP}
            connection.request(asked.method, asked.path, asked.content, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        return Reply(answer.status, content, tuple(one for one in answer.getheaders() if one[0].lower() not in _HOP))

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
