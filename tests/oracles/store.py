"""Asks Kubernetes' own storage, as built by `make oracles`, what it reads from a running etcd.

One process per release, fed by JSON lines; see tests/oracles/storage. Objects come back as a client would get them:
opened by Kubernetes' transformers and decoded by Kubernetes' decoders, with nothing of snaptool in between.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from snaptool.scratch.server import ScratchEtcd


@dataclass(frozen=True, slots=True)
class Found:
    """Objects in the order of their keys, or events in the order they happened; or why there are none.

    `objects`: pairs of event (empty in a list) and object. `reason`: the server's name for the kind of error.
    """

    objects: list[tuple[str, dict[str, Any]]] = field(repr=False)
    revision: str
    error: str
    reason: str

    def names(self) -> list[str]:
        """Events and names of the objects, as `MODIFIED shop/database`."""
        return [
            f"{event} {item['metadata']['namespace']}/{item['metadata']['name']}".lstrip()
            for event, item in self.objects
        ]


class Store:
    """A running oracle of one release of Kubernetes. `log`: where its complaints go; it complains of every lost key."""

    def __init__(self, program: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream)
        self.release: str = self._line()["release"]
        self.objects = 0

    def list(self, etcd: ScratchEtcd, config: str, resource: str, *, revision: int | None = None) -> Found:
        """List all objects of a resource, now or as they were at a revision."""
        at = "" if revision is None else str(revision)
        return self._ask(etcd, do="list", config=config, resource=resource, revision=at)

    def get(self, etcd: ScratchEtcd, config: str, resource: str, name: str) -> Found:
        """Get one object; `name` is that of its namespace, a slash, and its own."""
        return self._ask(etcd, do="get", config=config, resource=resource, name=name)

    def watch(self, etcd: ScratchEtcd, config: str, resource: str, *, revision: int, events: int) -> Found:
        """Watch all objects of a resource after a revision, until so many events have come."""
        return self._ask(etcd, do="watch", config=config, resource=resource, revision=str(revision), events=events)

    def _ask(self, etcd: ScratchEtcd, **request: object) -> Found:
        assert self._process.stdin is not None
        request |= {"endpoint": f"http://{etcd.endpoint}", "prefix": "/registry"}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._line()
        assert not answer["error"].startswith("oracle:"), answer
        found = [(item.get("type", ""), item["object"]) for item in answer["objects"] or []]
        self.objects += len(found)
        return Found(found, answer["revision"], answer["error"], answer["reason"])

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise AssertionError(f"the oracle ended with exit code {code}:\n{self._log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        assert self._process.wait(30) == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
