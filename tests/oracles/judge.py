"""Asks Kubernetes' own code, as built by `make oracles`, what it makes of a configuration and of values at rest.

One process per release, fed by JSON lines; see tests/oracles/transform. Lines are written and read in turn, so nothing
can fill a pipe. What was judged is counted, and pytest prints it at the end of a run: see tests/support/peers.py.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Answer:
    """What kube-apiserver would do: a value, or an error's text. A panic is an error that begins with `panic: `."""

    value: bytes
    stale: bool
    error: str


class Judge:
    """A running oracle of one release of Kubernetes."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.release: str = self._line()["release"]
        self.values = 0
        self.configs = 0

    def load(self, config: str, *, reload: bool = False, kmsv1: bool = True) -> str:
        """Load a configuration. Returns the error's text, empty when it is accepted."""
        self.configs += 1
        return self._ask(direction="load", config=config, reload=reload, kmsv1=kmsv1).error

    def read(self, config: str, resource: str, key: bytes, stored: bytes, *, unready: bool = False) -> Answer:
        """Open a stored value. `unready`: without waiting for KMS plugins to be healthy."""
        self.values += 1
        return self._ask(
            direction="read",
            config=config,
            kmsv1=True,
            resource=resource,
            key=key.hex(),
            value=stored.hex(),
            unready=unready,
        )

    def write(self, config: str, resource: str, key: bytes, plaintext: bytes, entropy: bytes = b"") -> Answer:
        """Seal a value; `entropy` is what its random source gives first."""
        self.values += 1
        return self._ask(
            direction="write",
            config=config,
            kmsv1=True,
            resource=resource,
            key=key.hex(),
            value=plaintext.hex(),
            entropy=entropy.hex(),
        )

    def _ask(self, **request: Any) -> Answer:
        assert self._process.stdin is not None
        # Surrogates cannot be in a file of text: Go's decoder of this line would replace them.
        self._process.stdin.write(json.dumps(request, ensure_ascii=False).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._line()
        assert not answer["error"].startswith("oracle:"), answer
        return Answer(bytes.fromhex(answer["value"]), answer["stale"], answer["error"])

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the oracle ended with exit code {self._process.wait()}"
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
