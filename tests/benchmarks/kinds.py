"""Kinds: real objects decoded and printed a second, on one core, beside PyYAML's C dumper in the same run.

`python -m tests.benchmarks.kinds` prints a table; processor time, the best of five. The objects are those of the
vectors that a real API server stored in protobuf, 659 bytes on the average.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import yaml

from snaptool.kube.kinds.printing import json_text, yaml_text
from snaptool.kube.kinds.reader import decode_object
from snaptool.kube.kinds.served import as_served
from tests.support.kinds import stored, vectors

ROUNDS = 5
REPEATS = 10

TARGETS = {"decode": 15_000, "print YAML": 8_000}
"""Objects a second that the project asked for."""


class _Dumper(yaml.CSafeDumper):
    """The settings that come closest to kubectl's YAML: docs/formats/kinds.md, "YAML as kubectl prints it"."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _dump(tree: Any) -> str:
    text: str = yaml.dump(tree, Dumper=_Dumper, width=80, allow_unicode=True, default_flow_style=False)
    return text


def per_second(work: Callable[[Any], object], values: list[Any], repeats: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(repeats):
            for value in values:
                work(value)
        best = min(best, time.process_time() - started)
    return len(values) * repeats / best


def main() -> None:
    plaintexts = [stored(vector) for vector in vectors("real-1.37.2")]
    protobuf = [plaintext for plaintext in plaintexts if plaintext.startswith(b"k8s\0")]
    trees = [as_served(decode_object(plaintext).tree, 1) for plaintext in plaintexts]
    rows = [
        ("decode", per_second(decode_object, protobuf, REPEATS)),
        ("print YAML", per_second(yaml_text, trees, REPEATS)),
        ("print JSON", per_second(json_text, trees, REPEATS)),
        ("PyYAML's C dumper", per_second(_dump, trees, 1)),
    ]
    mean = sum(map(len, protobuf)) / len(protobuf)
    sys.stdout.write(f"{len(protobuf)} real protobuf objects, {mean:.0f} bytes on the average\n")
    for what, rate in rows:
        target = TARGETS.get(what)
        asked = "" if target is None else f"  asked: {target:,}{'' if rate >= target else '  TOO SLOW'}"
        sys.stdout.write(f"{what:<20}{rate:>10,.0f} objects/s{asked}\n")


if __name__ == "__main__":
    main()
